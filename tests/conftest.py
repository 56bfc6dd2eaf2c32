"""Every async test runs on uvloop, the loop that is shipped; and none waits for what it need not wait for."""

import gc
from collections.abc import Callable
from typing import Any

import pytest
import uvloop


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], Any]]:
    return {"uvloop": uvloop.new_event_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let files with scenarios begin: where several run at a time, one that began last would be waited for alone."""
    slow = {item.path for item in items if item.get_closest_marker("scenario")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Keep all tests out of the collector's way: some let it look at everything, and they are a million objects."""
    gc.collect()
    gc.freeze()
