"""An HTTP server on the internal port: who may ask, and how answers look; what is answered is for its owner to say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final

import orjson
from aiohttp import web

from server.admin import guard
from server.admin.live import Live
from server.admin.site import Site
from server.edge.recorder import CAPACITY

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Bytes that one request may have; more are not even read.
MAX_REQUEST: Final = 4 * 1024 * 1024


class Port:
    """Answers GET for each path of `pages`, the `commands` of the server API, `/healthz`, and the operator's page.

    `on_loopback`: only requests that name this machine, or show the `api_key`, are answered. `live` feeds the page. To
    a program that is no browser `/` tells what there is.
    """

    def __init__(
        self,
        pages: dict[str, Handler],
        commands: Iterable[web.RouteDef],
        live: Live,
        *,
        on_loopback: bool,
        api_key: str | None,
    ) -> None:
        commands = list(commands)
        # One of them is the old way to all the others, and has no name.
        named = [command.path for command in commands if command.path.startswith("/api/")]
        paths = [*pages, "/healthz", "", *(f"POST {path}" for path in named)]
        index = "\n".join(["Stentor, internal port.", "", *paths]) + "\n"
        self._app = web.Application(
            client_max_size=MAX_REQUEST,
            middlewares=[guard.only_for_this_machine(api_key)] if on_loopback else [],
        )
        gets = {"/healthz": _say_alive, "/live": live.watch, **pages}
        site = Site(index)
        self._app.add_routes([*site.routes(), *(web.get(path, handler) for path, handler in gets.items()), *commands])
        self._live = live
        self._runner = web.AppRunner(self._app, handle_signals=False, access_log=None, shutdown_timeout=1.0)

    async def listen(self, host: str, port: int) -> int:
        """Accept on `host`, on a free port when 0; return the port. Raises OSError."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        bound: int = self._runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Close the port. Idempotent."""
        await self._live.stop()
        await self._runner.cleanup()


def json_answer(value: Any, status: int = 200) -> web.Response:
    """Answer with JSON."""
    return web.Response(body=orjson.dumps(value) + b"\n", status=status, content_type="application/json")


async def stream_answer(request: web.Request, name: str, pieces: AsyncIterator[list[Any]]) -> web.StreamResponse:
    """Answer with a JSON object of one list, which goes out piece by piece."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    separator = b'{"%s":[' % name.encode()
    async for piece in pieces:
        if piece:
            await response.write(separator + orjson.dumps(piece)[1:-1])
            separator = b","
    await response.write(b"]}\n" if separator == b"," else separator + b"]}\n")
    return response


def limit_of(request: web.Request) -> int:
    """Read ``?limit=``: how many entries are wanted, at most (and by default) CAPACITY. Raises HTTPBadRequest."""
    limit = request.query.get("limit", str(CAPACITY))
    if not limit.isdecimal() or len(limit) > 9:
        raise web.HTTPBadRequest(text='{"error":"limit: a number is needed"}\n', content_type="application/json")
    return min(int(limit), CAPACITY)


async def _say_alive(request: web.Request) -> web.Response:
    return web.Response(text="ok\n")
