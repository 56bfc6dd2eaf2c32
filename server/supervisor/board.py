"""The internal port of a server of many workers: one scrape, one answer, one API for all of them.

Law: every answer comes within WITHIN, also while a worker hangs; what that worker would have said is missing then. In a
scrape a worker that is late but alive is shown by what it said last, one that is silent as down.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from heapq import nlargest
from typing import Any, Final

from aiohttp import web
from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric

from server.admin import debug, metrics
from server.admin.live import Live
from server.admin.pauses import CollectorPauses
from server.admin.port import Handler, Port, json_answer, limit_of, stream_answer
from server.admin.process import ProcessCollector
from server.admin.view import Process, together
from server.core.counters import SECONDS, Histogram
from server.supervisor.crew import Crew
from server.supervisor.departures import Recorder, newest_first
from server.supervisor.tally import Family, Tally
from server.supervisor.worker_link import SILENT_AFTER, WITHIN, State, Unanswered, Worker

# Looks of the operator's page come once a second; after so many seconds they begin anew.
LONGEST_LOOK: Final = 5.0


class Board:
    """The internal port. `is_draining` tells if the server is on its way out, `broker_is_up` if we reach the broker.

    `published` is how much the server API has published. `configuration` is what the operator's page shows of that. The
    `routes` of the API have their own look at its key.
    """

    def __init__(
        self,
        crew: Crew,
        tally: Tally,
        *,
        is_draining: Callable[[], bool],
        broker_is_up: Callable[[], bool],
        published: Callable[[], int] = lambda: 0,
        routes: list[web.RouteDef],
        on_loopback: bool = True,
        api_key: str | None = None,
        configuration: Sequence[dict[str, Any]] = (),
        broker_trouble: Callable[[], str] = lambda: "",  # why it cannot
    ) -> None:
        self._crew = crew
        self._tally = tally
        self._told: dict[Worker, asyncio.Task[None]] = {}  # whose metrics are on their way
        self._is_draining = is_draining
        self._broker_is_up = broker_is_up
        self._broker_trouble = broker_trouble
        self._published = published
        self._looked = (0.0, 0)  # when, and how much was published by then
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._registry.register(tally)
        self._own = CollectorRegistry()
        self._own.register(ProcessCollector())
        self.pauses = CollectorPauses(Histogram(SECONDS))
        pages: dict[str, Handler] = {
            "/metrics": self._metrics,
            "/readyz": self._readyz,
            "/debug/slow": self._slow,
            "/debug/disconnects": self._disconnects,
        }
        hello = {"needs_key": api_key is not None, "configuration": list(configuration)}
        # The workers rest by themselves when nobody asks them any more.
        live = Live(self._look, lambda: None, hello, on_loopback=on_loopback)
        port = Port(pages, routes, live, on_loopback=on_loopback, api_key=api_key)
        self.listen, self.stop = port.listen, port.stop

    async def _metrics(self, request: web.Request) -> web.Response:
        await asyncio.gather(*(self._take_metrics(worker) for worker in self._crew.serving))
        self._tally.own = [
            *self._own.collect(),
            metrics.gc_pauses(self.pauses.observed),
            metrics.published(self._published()),
            _restarts(self._crew.restarts_of),
        ]
        body, content_type = await metrics.render(self._registry, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _readyz(self, request: web.Request) -> web.Response:
        crew, state = self._crew, self._state()
        workers = [
            {
                "index": worker.index,
                "pid": worker.pid,
                "state": _state_of(worker),
                "connections": worker.connections,
                "broker_up": worker.broker_is_up,
            }
            for worker in sorted(crew.serving, key=lambda worker: (worker.index, worker.pid))
        ]
        total = sum(worker.connections for worker in crew.serving)
        answer = {"status": state, "connections": total, "workers": workers, "restarts": crew.restarts}
        if state == "degraded" and (trouble := self._broker_trouble() or self._workers_trouble()):
            answer["reason"] = trouble
        return json_answer(answer, status=200 if state == "ready" else 503)

    def _workers_trouble(self) -> str:
        """Say which workers do not reach the broker, though we do."""
        without = sorted(str(worker.index) for worker in self._crew.ready if not worker.broker_is_up)
        return f"without the broker, for its log to say why: worker {', '.join(without)}" if without else ""

    def _state(self) -> str:
        if self._is_draining():
            return "draining"
        now = time.monotonic()
        if all(worker.is_silent(now) for worker in self._crew.ready):
            return "not listening"
        if not any(worker.takes_newcomers(now) for worker in self._crew.ready):
            return "browned out"
        heard = [worker for worker in self._crew.ready if not worker.is_silent(now)]
        is_up = self._broker_is_up() and all(worker.broker_is_up for worker in heard)
        return "ready" if is_up else "degraded"

    async def _slow(self, request: web.Request) -> web.Response:
        clients = [
            {"worker": worker.index, **client} for worker, said in await self._ask_all("slow") for client in said or []
        ]
        return json_answer({"clients": nlargest(debug.MOST_SLOW, clients, key=lambda client: client["queue_bytes"])})

    async def _disconnects(self, request: web.Request) -> web.StreamResponse:
        recorders = [Recorder(worker, WITHIN) for worker in self._crew.serving]
        return await stream_answer(request, "disconnects", newest_first(recorders, limit_of(request)))

    async def _look(self) -> dict[str, Any]:
        processes = [
            Process(worker.index, worker.pid, _state_of(worker), worker.connections, look)
            for worker, look in await self._ask_all("look")
        ]
        processes.sort(key=lambda process: (process.index, process.pid))
        view = together(processes, status=self._state(), restarts=self._crew.restarts)
        rate = self._api_rate(time.monotonic())
        if "published" in view["rates"]:
            view["rates"]["published"] += rate
        return view

    def _api_rate(self, now: float) -> float:
        """Return how much the server API publishes per second; 0 at the first look in a while."""
        (before, count), self._looked = self._looked, (now, self._published())
        return (self._looked[1] - count) / (now - before) if 0 < now - before < LONGEST_LOOK else 0.0

    async def _take_metrics(self, worker: Worker) -> None:
        telling = self._told.get(worker)
        if telling is None:
            telling = self._told[worker] = asyncio.create_task(self._be_told(worker))
            telling.add_done_callback(lambda _: self._told.pop(worker, None))
        await asyncio.wait((telling,), timeout=WITHIN)
        if not telling.done() and not worker.is_heard(time.monotonic()):
            self._take(worker, None)

    async def _be_told(self, worker: Worker) -> None:
        # An answer that is late for this scrape is in time for the next one.
        try:
            said = await worker.ask("metrics", within=SILENT_AFTER)
        except Unanswered:
            said = None
        self._take(worker, said)

    def _take(self, worker: Worker, said: list[Family] | None) -> None:
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


def _restarts(restarts_of: Mapping[int, int]) -> Metric:
    """Say how often the worker of each place was replaced; those are there from the start that never were."""
    metric = CounterMetricFamily(
        "stentor_worker_restarts", "Workers that died or hung, and were replaced.", labels=("worker",)
    )
    for index, count in restarts_of.items():
        metric.add_metric((str(index),), count)
    return metric


def _state_of(worker: Worker) -> str:
    if worker.is_silent(time.monotonic()):
        return "silent"
    return "browned out" if worker.brownout and worker.state is State.READY else worker.state
