"""A steady rate, as well as an event loop keeps one: what is late is made up for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

_NAP = 0.0002


async def steadily(rate: int, seconds: float, say: Callable[[], object]) -> int:
    """Call `say` so often a second, for so long; return how often it was called."""
    began, said = time.monotonic(), 0
    while (now := time.monotonic()) < began + seconds:
        while said < int((now - began) * rate):
            say()
            said += 1
        await asyncio.sleep(_NAP)
    return said
