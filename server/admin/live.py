"""The live feed of the operator's page: a WebSocket that brings a view of the server once a second.

Laws: who does not watch costs nothing: looks are taken as long as somebody watches, and a little longer, so that a page
that is loaded anew keeps its charts. A look is taken once for all who watch. A watcher that does not take its messages
is dropped, and holds up nobody. Only the page that this very port serves may watch, and where the port is for this
machine alone, only under a name of this machine: a browser lets any page open a WebSocket anywhere, and names may be
pointed at us ("DNS rebinding").
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
from aiohttp import WSCloseCode, WSMsgType, web

from server.admin import guard

log = logging.getLogger("stentor.admin")

EVERY: Final = 1.0
# So long looks go on without a watcher.
LINGER: Final = 5.0
# How many watch at most, and how long one may take for one message.
MOST_WATCHERS: Final = 16
PATIENCE: Final = 2.0
# How long a watcher may take to answer our goodbye.
CLOSE_TIMEOUT: Final = 0.5
# What the charts go back, in looks.
REMEMBERED: Final = 300
# What each of them keeps of a look.
_CHARTED: Final = ("published", "sent", "dropped", "bytes_sent")


class Live:
    """See the module. `look` gives a view (an object for JSON), `rest` is called when nobody watches any more.

    `hello` is what a page is told once: what does not change.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[dict[str, Any]]],
        rest: Callable[[], object],
        hello: dict[str, Any],
        *,
        on_loopback: bool,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._look = look
        self._rest = rest
        self._hello = hello
        self._on_loopback = on_loopback
        self._wall_clock = wall_clock
        self._watchers: dict[web.WebSocketResponse, web.Request] = {}
        self._history: deque[list[float | None]] = deque(maxlen=REMEMBERED)
        self._newest = b""
        self._task: asyncio.Task[None] | None = None

    @property
    def is_awake(self) -> bool:
        """Tell if looks are taken."""
        return self._task is not None

    @property
    def watchers(self) -> int:
        """How many watch."""
        return len(self._watchers)

    async def watch(self, request: web.Request) -> web.StreamResponse:
        """Answer ``GET /live``: a WebSocket for the page of this port, 403 for any other."""
        if self._on_loopback and not guard.names_this_machine(request):
            raise web.HTTPForbidden(text="This port is for this machine.\n")
        if not guard.is_of_own_page(request):
            raise web.HTTPForbidden(text="Only this port's own page may watch.\n")
        if len(self._watchers) >= MOST_WATCHERS:
            raise web.HTTPServiceUnavailable(text="Too many watch.\n", headers={"Retry-After": "10"})
        socket = web.WebSocketResponse(compress=False, max_msg_size=1024, heartbeat=20.0, timeout=CLOSE_TIMEOUT)
        await socket.prepare(request)
        try:
            await self._welcome(socket, request)
            async for _ in socket:
                pass  # it has nothing to say
        except ConnectionError:
            pass  # gone before it was welcomed
        finally:
            self._watchers.pop(socket, None)
        return socket

    async def stop(self) -> None:
        """Send all watchers away, and take no looks any more. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._fall_asleep()
        await self._dismiss()

    async def _dismiss(self) -> None:
        await asyncio.gather(*(_dismiss(*watcher) for watcher in self._watchers.items()))

    async def _welcome(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        hello = {"kind": "hello", **self._hello, "now": self._wall_clock(), "history": list(self._history)}
        await socket.send_frame(orjson.dumps(hello), WSMsgType.TEXT)
        if self._newest:
            await socket.send_frame(self._newest, WSMsgType.TEXT)
        self._watchers[socket] = request
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._watch_over())

    async def _watch_over(self) -> None:
        """Take looks for as long as somebody watches."""
        loop = asyncio.get_running_loop()
        watched_at = due = loop.time()
        try:
            while self._watchers or loop.time() - watched_at < LINGER:
                await self._tell_all()
                if self._watchers:
                    watched_at = loop.time()
                due = max(due + EVERY, loop.time())
                await asyncio.sleep(due - loop.time())
        except Exception:
            log.exception("the operator's page cannot be told")
        # Whoever comes from here on wakes us anew.
        self._task = None
        self._fall_asleep()
        await self._dismiss()

    def _fall_asleep(self) -> None:
        self._history.clear()
        self._newest = b""
        self._rest()

    async def _tell_all(self) -> None:
        view = await self._look()
        now = self._wall_clock()
        self._remember(now, view)
        self._newest = orjson.dumps({"kind": "view", "now": now, **view})
        await asyncio.gather(*(_tell(*watcher, self._newest) for watcher in self._watchers.items()))

    def _remember(self, now: float, view: dict[str, Any]) -> None:
        rates = view["rates"]
        self._history.append(
            [
                now,
                *(rates.get(name) for name in _CHARTED),
                sum(view["connections"].values()),
                view["queue_bytes"],
                view["latency"],
                view["loop_lag"],
            ]
        )


async def _tell(watcher: web.WebSocketResponse, request: web.Request, message: bytes) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            await watcher.send_frame(message, WSMsgType.TEXT)
    except TimeoutError:
        _drop(request)  # it would not read a goodbye either
    except ConnectionError:
        pass  # gone: its handler notices


async def _dismiss(watcher: web.WebSocketResponse, request: web.Request) -> None:
    # The library waits for an answer only so long, but without end for room for its close frame.
    if request.transport is not None and request.transport.get_write_buffer_size():
        _drop(request)
        return
    try:
        async with asyncio.timeout(2 * CLOSE_TIMEOUT):
            await watcher.close(code=WSCloseCode.GOING_AWAY)
    except TimeoutError:
        _drop(request)
    except ConnectionError:
        pass  # gone already


def _drop(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
