"""The processes of the workers: started, watched, replaced, and ended.

Laws:
- a worker listens only when it is told to, one at a time: so the order of the listening sockets is known.
- one that dies is replaced at once; one that dies again before it has lived, later and later.
- one that hangs is killed: nobody can ask it to go.
- a worker that is replaced on purpose goes after its successor listens.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from multiprocessing.process import BaseProcess
from typing import Final

from server.brokers.link import Fields, Kind, Link
from server.supervisor import spread
from server.supervisor.exchange import Exchange
from server.supervisor.worker_link import START_WITHIN, State, Unanswered, Worker

log = logging.getLogger("stentor.supervisor")

WATCH: Final = 0.1
BALANCE: Final = 1.0
# A worker that lives shorter than this is broken; its successor waits, each time longer.
LIVED: Final = 5.0
FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 10.0

Start = Callable[[int], BaseProcess]


class Crew:
    """N workers; `start` makes the process of one, by its index."""

    def __init__(
        self,
        count: int,
        start: Start,
        exchange: Exchange,
        clock: Callable[[], float],
        on_gone: Callable[[Worker], object],
        drain_timeout: float,
    ) -> None:
        self.workers: dict[int, Worker] = {}
        self.retiring: set[Worker] = set()
        self.restarts = 0
        self.is_stopping = False
        self._count = count
        self._start = start
        self._exchange = exchange
        self._clock = clock
        self._on_gone = on_gone
        self._drain_timeout = drain_timeout
        self._failures = 0
        self._order = spread.Order()
        self._spread_now: list[float] | None = None
        self._balance_at = 0.0
        self._changed = asyncio.Event()
        self._listening = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    # For others

    @property
    def ready(self) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.state is State.READY]

    @property
    def is_complete(self) -> bool:
        return len(self.ready) == self._count

    async def until_complete(self) -> None:
        """Wait until all workers listen, or one of them could not."""
        while not self.is_complete:
            self._changed.clear()
            await self._changed.wait()

    def by_link(self, link: Link) -> Worker | None:
        """Find the worker at the other end of a link."""
        return next((worker for worker in (*self.workers.values(), *self.retiring) if worker.link is link), None)

    # Life

    def begin(self) -> None:
        """Start all workers."""
        for index in range(self._count):
            self.workers[index] = self._hire(index)
        self._run(self._watch())

    def hello(self, link: Link, fields: Fields) -> None:
        """Take the first message of a worker: it is up, and may listen."""
        index, pid = fields
        worker = self.workers.get(index)
        if worker is None or worker.pid != pid:
            link.close()
            return
        worker.link = link
        worker.heard_at = self._clock()
        self._exchange.enter(link)
        self._run(self._let_listen(worker))

    def beat(self, link: Link, fields: Fields) -> None:
        """Take note that a worker is alive."""
        worker = self.by_link(link)
        if worker is not None:
            worker.heard_at = self._clock()
            worker.connections = fields[0]

    def lost(self, link: Link) -> None:
        """Take note that a worker's link has ended: its process has, or is about to."""
        self._exchange.leave(link)
        worker = self.by_link(link)
        if worker is not None:
            self._order.leave(worker)
            worker.link = None

    async def replace_all(self) -> None:
        """Replace each worker by a new one, one after the other; the old ones send their clients away."""
        for index in range(self._count):
            if self.is_stopping:
                return
            old = self.workers.get(index)
            if old is None:  # it has just died, and is being replaced anyway
                continue
            self.retiring.add(old)
            self.workers[index] = new = self._hire(index)
            while new.state is State.STARTING:
                self._changed.clear()
                await self._changed.wait()
            if new.state is not State.READY:
                log.error("the successor of worker %d did not come up: the old one stays", index)
                continue
            await self._retire(old)

    async def stop(self) -> None:
        """Tell everyone to drain, and wait until they are gone, a little longer than they may take."""
        self.is_stopping = True
        everyone = [*self.workers.values(), *self.retiring]
        for worker in everyone:
            _signal(worker, signal.SIGTERM)
        await self._gone(everyone, within=self._drain_timeout + 2.0)

    def cut_short(self) -> None:
        """Tell everyone a second time: they end at once."""
        for worker in (*self.workers.values(), *self.retiring):
            _signal(worker, signal.SIGTERM)

    def kill(self) -> None:
        """End whoever is left. Idempotent."""
        for worker in (*self.workers.values(), *self.retiring):
            if worker.process.is_alive():
                worker.process.kill()
            worker.process.join(1.0)
        for task in self._tasks:
            task.cancel()

    def _hire(self, index: int) -> Worker:
        return Worker(index, self._start(index), self._clock())

    async def _let_listen(self, worker: Worker) -> None:
        async with self._listening:
            try:
                await worker.ask("listen", within=START_WITHIN)
            except Unanswered as fault:
                log.error("%s", fault)
                worker.process.kill()
                return
            self._order.enter(worker)
            if worker.state is State.STARTING:
                worker.state = State.READY
        self._changed.set()
        log.info("worker %d listens, pid %d", worker.index, worker.pid)

    async def _retire(self, worker: Worker) -> None:
        worker.state = State.RETIRING
        self._order.leave(worker)
        try:
            await worker.ask("retire", within=2.0)
        except Unanswered:
            _signal(worker, signal.SIGTERM)
        await self._gone([worker], within=self._drain_timeout + 2.0)
        if worker.process.is_alive():
            worker.process.kill()

    async def _gone(self, workers: list[Worker], within: float) -> None:
        deadline = self._clock() + within
        # A process tells of its end to whoever polls, or to a thread: there is no event to wait for.
        while any(worker.process.is_alive() for worker in workers) and self._clock() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async def _watch(self) -> None:
        while not self.is_stopping:
            now = self._clock()
            for worker in list(self.retiring):
                if not worker.process.is_alive():
                    self.retiring.discard(worker)
                    self._bury(worker)
            for worker in list(self.workers.values()):
                if not worker.process.is_alive():
                    self._replace(worker, now)
                elif worker.is_hung(now):
                    log.error("worker %d has been silent for %.1f s: killed", worker.index, now - worker.heard_at)
                    worker.process.kill()
            if now >= self._balance_at:
                self._balance_at = now + BALANCE
                await self._balance()
            await asyncio.sleep(WATCH)

    def _replace(self, worker: Worker, now: float) -> None:
        code = worker.process.exitcode
        lived = now - worker.started_at
        self._failures = self._failures + 1 if lived < LIVED else 0
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (self._failures - 1)) if self._failures else 0.0
        self._bury(worker)
        self.restarts += 1
        log.error("worker %d ended with %s after %.1f s; replaced in %.2f s", worker.index, code, lived, pause)
        # Stands for the place until then, and is not looked at.
        del self.workers[worker.index]
        self._run(self._hire_later(worker.index, pause))

    async def _hire_later(self, index: int, pause: float) -> None:
        await asyncio.sleep(pause)
        if not self.is_stopping:
            self.workers[index] = self._hire(index)

    def _bury(self, worker: Worker) -> None:
        self._order.leave(worker)
        if worker.link is not None:
            self._exchange.leave(worker.link)
        worker.end()
        worker.process.join(0)
        self._on_gone(worker)
        self._changed.set()

    async def _balance(self) -> None:
        """Give the emptier workers more of the new connections, when they differ by too much."""
        workers = self._order.workers
        if len(workers) < 2 or not all(isinstance(each, Worker) and each.state is State.READY for each in workers):
            return
        known = [each for each in workers if isinstance(each, Worker)]
        wanted = spread.shares([worker.connections for worker in known])
        if wanted == self._spread_now:
            return
        self._spread_now = wanted
        try:
            await known[0].ask("spread", wanted, within=1.0)
        except Unanswered as fault:
            log.warning("new connections are not spread: %s", fault)

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def take(crew: Crew, exchange: Exchange, link: Link, kind: Kind, fields: Fields, body: bytes) -> None:
    """Hand a message of a worker's to whom it concerns."""
    if kind is Kind.HELLO:
        crew.hello(link, fields)
    elif kind is Kind.BEAT:
        crew.beat(link, fields)
    elif kind is Kind.ANSWER:
        worker = crew.by_link(link)
        if worker is not None:
            worker.answer(fields)
    else:
        exchange.take(link, kind, fields, body)


def _signal(worker: Worker, number: int) -> None:
    if worker.process.is_alive() and worker.pid:
        try:
            os.kill(worker.pid, number)
        except ProcessLookupError:
            pass
