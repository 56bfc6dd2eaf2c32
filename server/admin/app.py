"""The internal port of one process: which path tells what."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from aiohttp import web
from prometheus_client import CollectorRegistry

from server.admin import broker_metrics, debug, http_api, metrics
from server.admin.api import Api
from server.admin.port import Handler, Port, json_answer, limit_of
from server.edge.listener import Listener


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
        pages: dict[str, Handler] = {
            "/metrics": self._metrics,
            "/readyz": self._readyz,
            "/debug/slow": self._slow,
            "/debug/disconnects": self._disconnects,
        }
        commands = http_api.routes(server_api, api_key=api_key, on_loopback=on_loopback)
        port = Port(pages, commands, guarded=on_loopback and api_key is None)
        self.listen, self.stop = port.listen, port.stop

    async def _metrics(self, request: web.Request) -> web.Response:
        body, content_type = metrics.render(self._registry, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

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
        recorder = self._listener.recorder
        return json_answer({"disconnects": [debug.departure(entry) for entry in islice(recorder, limit_of(request))]})
