"""Every async test runs on uvloop, the loop that is shipped."""

from collections.abc import Callable
from typing import Any

import uvloop


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], Any]]:
    return {"uvloop": uvloop.new_event_loop}
