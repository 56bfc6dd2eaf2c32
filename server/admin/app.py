"""The internal port of one process: which path tells what."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry

from server.admin import broker_metrics, debug, http_api, metrics
from server.admin.api import Api
from server.admin.live import Live
from server.admin.port import Handler, Port, json_answer, limit_of, stream_answer
from server.admin.view import Process, together
from server.admin.vitals import Vitals
from server.brokers.base import Remote
from server.edge.listener import Listener


class Internal:
    """The internal port of one process; `configuration` is what the operator's page shows of that."""

    def __init__(
        self,
        listener: Listener,
        server_api: Api,
        clock: Callable[[], float],
        *,
        api_key: str | None,
        on_loopback: bool,
        configuration: Sequence[dict[str, Any]] = (),
    ) -> None:
        self._listener = listener
        self._clock = clock
        self._registry: CollectorRegistry = metrics.new_registry(listener, clock)
        if isinstance(listener.node.broker, broker_metrics.Contact):
            self._registry.register(broker_metrics.BrokerCollector(listener.node.broker))
        self._vitals = Vitals(listener, clock)
        hello = {"needs_key": api_key is not None, "configuration": list(configuration), "workers": 1}
        live = Live(self._look, self._vitals.rest, hello, on_loopback=on_loopback)
        pages: dict[str, Handler] = {
            "/metrics": self._metrics,
            "/readyz": self._readyz,
            "/debug/slow": self._slow,
            "/debug/disconnects": self._disconnects,
        }
        commands = http_api.routes(server_api, api_key=api_key, on_loopback=on_loopback)
        port = Port(pages, commands, live, on_loopback=on_loopback, api_key=api_key)
        self.listen, self.stop = port.listen, port.stop

    async def _metrics(self, request: web.Request) -> web.Response:
        body, content_type = await metrics.render(self._registry, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _readyz(self, request: web.Request) -> web.Response:
        state, listener = self._state(), self._listener
        answer = {"status": state, "connections": listener.gate.open}
        if state == "degraded" and isinstance(broker := listener.node.broker, Remote):
            answer["reason"] = broker.trouble
        return json_answer(answer, status=200 if state == "ready" else 503)

    async def _slow(self, request: web.Request) -> web.Response:
        return json_answer({"clients": debug.slow(self._listener, self._clock())})

    async def _disconnects(self, request: web.Request) -> web.StreamResponse:
        return await stream_answer(request, "disconnects", self._departures(limit_of(request)))

    async def _departures(self, most: int) -> AsyncIterator[list[dict[str, Any]]]:
        mark, piece = debug.departures(self._listener.recorder, None, most)
        while piece:
            yield piece
            most -= len(piece)
            await asyncio.sleep(0)
            mark, piece = debug.departures(self._listener.recorder, mark, most)

    async def _look(self) -> dict[str, Any]:
        process = Process(0, os.getpid(), self._state(), self._listener.gate.open, self._vitals.look())
        return together([process], status=process.state, restarts=0)

    def _state(self) -> str:
        listener = self._listener
        if listener.gate.is_draining:
            return "draining"
        if not listener.is_accepting:
            return "not listening"
        # Those who are here are still served; newcomers are better off elsewhere.
        if listener.gate.brownout:
            return "browned out"
        return "ready" if listener.node.broker.is_up else "degraded"
