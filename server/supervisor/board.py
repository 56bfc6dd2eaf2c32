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
from server.admin.port import Handler, Port, json_answer, limit_of
from server.supervisor.crew import Crew
from server.supervisor.tally import Tally
from server.supervisor.worker_link import State, Unanswered, Worker

# How long a worker may take to answer, so that the whole stays within 200 ms.
WITHIN: Final = 0.12


class Board:
    """The internal port. `is_draining` tells if the server is on its way out, `broker_is_up` if it can be reached."""

    def __init__(
        self,
        crew: Crew,
        tally: Tally,
        *,
        is_draining: Callable[[], bool],
        broker_is_up: Callable[[], bool],
        guarded: bool,
        routes: list[web.RouteDef],
    ) -> None:
        self._crew = crew
        self._tally = tally
        self._is_draining = is_draining
        self._broker_is_up = broker_is_up
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._registry.register(tally)
        self._own = CollectorRegistry()
        ProcessCollector(registry=self._own)
        pages: dict[str, Handler] = {
            "/metrics": self._metrics,
            "/readyz": self._readyz,
            "/debug/slow": self._slow,
            "/debug/disconnects": self._disconnects,
        }
        port = Port(pages, routes, guarded=guarded)
        self.listen, self.stop = port.listen, port.stop

    async def _metrics(self, request: web.Request) -> web.Response:
        await asyncio.gather(*(self._take_metrics(worker) for worker in self._crew.serving))
        self._tally.own = list(self._own.collect())
        body, content_type = metrics.render(self._registry, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _readyz(self, request: web.Request) -> web.Response:
        crew, now = self._crew, time.monotonic()
        is_listening = any(not worker.is_silent(now) for worker in crew.ready) and not self._is_draining()
        is_ready = is_listening and self._broker_is_up()
        state = "draining" if self._is_draining() else "not listening" if not is_listening else "degraded"
        if is_ready:
            state = "ready"
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
        limit = limit_of(request)
        found = [
            {"worker": worker.index, **entry}
            for worker, said in await self._ask_all("disconnects", limit)
            for entry in said or []
        ]
        found.sort(key=lambda entry: entry["at"], reverse=True)
        return json_answer({"disconnects": found[:limit]})

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
