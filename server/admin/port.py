"""An HTTP server on the internal port: who may ask, and how answers look; what is answered is for its owner to say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import orjson
from aiohttp import web

from server.config import is_loopback
from server.edge.recorder import CAPACITY

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Port:
    """Answers GET for each path of `pages`, the `commands` of the server API, `/healthz`, and `/` with what there is.

    `guarded`: only requests that name this machine are answered.
    """

    def __init__(self, pages: dict[str, Handler], commands: Iterable[web.RouteDef], *, guarded: bool) -> None:
        commands = list(commands)
        # One of them is the old way to all the others, and has no name.
        named = [command.path for command in commands if command.path.startswith("/api/")]
        paths = [*pages, "/healthz", "", *(f"POST {path}" for path in named)]
        self._index = "\n".join(["Stentor, internal port.", "", *paths]) + "\n"
        self._app = web.Application(
            client_max_size=4 * 1024 * 1024, middlewares=[_only_for_this_machine] if guarded else []
        )
        gets = {"/": self._name, "/healthz": _say_alive, **pages}
        self._app.add_routes([*(web.get(path, handler) for path, handler in gets.items()), *commands])
        self._runner = web.AppRunner(self._app, handle_signals=False, access_log=None, shutdown_timeout=1.0)

    async def listen(self, host: str, port: int) -> int:
        """Accept on `host`, on a free port when 0; return the port. Raises OSError."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        bound: int = self._runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Close the port. Idempotent."""
        await self._runner.cleanup()

    async def _name(self, request: web.Request) -> web.Response:
        return web.Response(text=self._index)


def json_answer(value: Any, status: int = 200) -> web.Response:
    """Answer with JSON."""
    return web.Response(body=orjson.dumps(value) + b"\n", status=status, content_type="application/json")


def limit_of(request: web.Request) -> int:
    """Read ``?limit=``: how many entries are wanted, all when it is missing. Raises HTTPBadRequest."""
    limit = request.query.get("limit", str(CAPACITY))
    if not limit.isdecimal() or len(limit) > 9:
        raise web.HTTPBadRequest(text='{"error":"limit: a number is needed"}\n', content_type="application/json")
    return int(limit)


async def _say_alive(request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


@web.middleware
async def _only_for_this_machine(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse a request that names another host: a web page whose name was pointed at us ("DNS rebinding") sends one."""
    if not is_loopback(urlsplit(f"//{request.host}").hostname or ""):
        return web.Response(status=403, text="This port is for this machine.\n")
    return await handler(request)
