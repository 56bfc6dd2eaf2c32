"""The internal port's HTTP server: which path does what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import orjson
from aiohttp import web
from prometheus_client import CollectorRegistry

from server.admin import broker_metrics, debug, http_api, metrics
from server.admin.api import Api
from server.config import is_loopback
from server.edge.listener import Listener
from server.edge.recorder import CAPACITY

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Internal:
    """The internal port of one process."""

    def __init__(
        self, listener: Listener, server_api: Api, clock: Callable[[], float], *, api_key: str | None, on_loopback: bool
    ) -> None:
        self._listener = listener
        self._clock = clock
        self._registry: CollectorRegistry = metrics.new_registry(listener, clock)
        if isinstance(listener.node.broker, broker_metrics.Contact):
            self._registry.register(broker_metrics.BrokerCollector(listener.node.broker))
        guards = [only_for_this_machine] if on_loopback and api_key is None else []
        self._app = web.Application(client_max_size=4 * 1024 * 1024, middlewares=guards)
        self._commands = tuple(server_api.commands)
        self._app.add_routes(
            [
                web.get("/", self._index),
                web.get("/metrics", self._metrics),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/debug/slow", self._slow),
                web.get("/debug/disconnects", self._disconnects),
                *http_api.routes(server_api, api_key=api_key, on_loopback=on_loopback),
            ]
        )
        self._runner = web.AppRunner(self._app, handle_signals=False, access_log=None, shutdown_timeout=1.0)

    async def listen(self, host: str, port: int) -> int:
        """Accept on `host`, on a free port when 0; return the port. Raises OSError."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        bound: int = self._runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Close the port. Idempotent."""
        await self._runner.cleanup()

    async def _index(self, request: web.Request) -> web.Response:
        pages = ["/metrics", "/healthz", "/readyz", "/debug/slow", "/debug/disconnects"]
        lines = ["Stentor, internal port.", "", *pages, "", *(f"POST /api/{name}" for name in self._commands)]
        return web.Response(text="\n".join(lines) + "\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        body, content_type = metrics.render(self._registry, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        listener = self._listener
        is_listening = listener.is_accepting and not listener.gate.is_draining
        # Those who are here are still served, by this node alone; newcomers are better off elsewhere.
        is_ready = is_listening and listener.node.broker.is_up
        state = "draining" if listener.gate.is_draining else "not listening" if not is_listening else "degraded"
        if is_ready:
            state = "ready"
        return json_answer({"status": state, "connections": listener.gate.open}, status=200 if is_ready else 503)

    async def _slow(self, request: web.Request) -> web.Response:
        return json_answer({"clients": debug.slow(self._listener, self._clock())})

    async def _disconnects(self, request: web.Request) -> web.Response:
        limit = request.query.get("limit", str(CAPACITY))
        if not limit.isdecimal() or len(limit) > 9:
            return json_answer({"error": "limit: a number is needed"}, status=400)
        recorder = self._listener.recorder
        return json_answer({"disconnects": [debug.departure(entry) for entry in islice(recorder, int(limit))]})


@web.middleware
async def only_for_this_machine(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse a request that names another host: a web page whose name was pointed at us ("DNS rebinding") sends one."""
    if not is_loopback(urlsplit(f"//{request.host}").hostname or ""):
        return web.Response(status=403, text="This port is for this machine.\n")
    return await handler(request)


def json_answer(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value) + b"\n", status=status, content_type="application/json")
