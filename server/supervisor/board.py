"""The internal port of a server of many workers: one scrape, one answer, one API for all of them.

Law: every answer comes within WITHIN, also while a worker hangs; what that worker would have said is missing then, and
it is shown as down.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics

from server.admin import debug, metrics
from server.admin.app import json_answer, only_for_this_machine
from server.edge.recorder import CAPACITY
from server.supervisor.crew import Crew
from server.supervisor.tally import Tally
from server.supervisor.worker_link import State, Unanswered, Worker

# How long a worker may take to answer, so that the whole stays within 200 ms.
WITHIN: Final = 0.12


class Board:
    """The internal port. `is_draining` tells if the server is on its way out."""

    def __init__(
        self, crew: Crew, tally: Tally, *, is_draining: Callable[[], bool], guarded: bool, routes: list[web.RouteDef]
    ) -> None:
        self._crew = crew
        self._tally = tally
        self._is_draining = is_draining
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._registry.register(tally)
        self._own = CollectorRegistry()
        ProcessCollector(registry=self._own)
        self._app = web.Application(
            client_max_size=4 * 1024 * 1024, middlewares=[only_for_this_machine] if guarded else []
        )
        self._app.add_routes(
            [
                web.get("/", self._index),
                web.get("/metrics", self._metrics),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/debug/slow", self._slow),
                web.get("/debug/disconnects", self._disconnects),
                *routes,
            ]
        )
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

    async def _index(self, request: web.Request) -> web.Response:
        paths = "/metrics /healthz /readyz /debug/slow /debug/disconnects /api/…"
        return web.Response(text="Stentor, internal port.\n\n" + "\n".join(paths.split()) + "\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        await asyncio.gather(*(self._take_metrics(worker) for worker in self._crew.serving))
        self._tally.own = list(self._own.collect())
        body, content_type = metrics.render(self._registry, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        crew, now = self._crew, time.monotonic()
        is_ready = any(not worker.is_silent(now) for worker in crew.ready) and not self._is_draining()
        state = "draining" if self._is_draining() else "ready" if is_ready else "not listening"
        workers = [
            {
                "index": worker.index,
                "pid": worker.pid,
                "state": "silent" if worker.is_silent(now) else worker.state,
                "connections": worker.connections,
            }
            for worker in sorted(crew.serving, key=lambda worker: (worker.index, worker.pid))
        ]
        total = sum(worker.connections for worker in crew.serving)
        answer = {"status": state, "connections": total, "workers": workers, "restarts": crew.restarts}
        return json_answer(answer, status=200 if is_ready else 503)

    async def _slow(self, request: web.Request) -> web.Response:
        clients = [
            {"worker": worker.index, **client} for worker, said in await self._ask_all("slow") for client in said or []
        ]
        clients.sort(key=lambda client: client["queue_bytes"], reverse=True)
        return json_answer({"clients": clients[: debug.MOST_SLOW]})

    async def _disconnects(self, request: web.Request) -> web.Response:
        limit = request.query.get("limit", str(CAPACITY))
        if not limit.isdecimal() or len(limit) > 9:
            return json_answer({"error": "limit: a number is needed"}, status=400)
        found = [
            {"worker": worker.index, **entry}
            for worker, said in await self._ask_all("disconnects", int(limit))
            for entry in said or []
        ]
        found.sort(key=lambda entry: entry["at"], reverse=True)
        return json_answer({"disconnects": found[: int(limit)]})

    async def _take_metrics(self, worker: Worker) -> None:
        try:
            said = await worker.ask("metrics", within=WITHIN)
        except Unanswered:
            said = None
        if worker.state is not State.DEAD:  # what it has counted is settled then
            self._tally.take(worker.index, said, worker.pid)

    async def _ask_all(self, what: str, *arguments: Any) -> list[tuple[Worker, Any]]:
        """Ask every worker; None from one that does not answer."""
        workers = self._crew.serving
        answers = await asyncio.gather(
            *(worker.ask(what, *arguments, within=WITHIN) for worker in workers), return_exceptions=True
        )
        found = []
        for worker, answer in zip(workers, answers, strict=True):
            if isinstance(answer, BaseException) and not isinstance(answer, Unanswered):
                raise answer
            found.append((worker, None if isinstance(answer, BaseException) else answer))
        return found
