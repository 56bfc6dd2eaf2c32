"""The processes of the workers: started, watched, replaced, and ended.

Laws:
- a worker listens only when it is told to, one at a time: so the order of the listening sockets is known.
- one stands by, to take the place of one that dies at once: to start a process takes a second, and more under load.
- who dies soon after it began to listen, or before, is broken: its place waits, each time longer.
- one that hangs is killed: nobody can ask it to go.
- a worker that is replaced on purpose goes after its successor listens, and gets no new connections before it goes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from typing import Final

from server.brokers.link import Fields, Kind, Link
from server.supervisor.balance import Balance
from server.supervisor.exchange import Exchange
from server.supervisor.worker_link import STANDING_BY, START_WITHIN, State, Unanswered, Worker

log = logging.getLogger("stentor.supervisor")

WATCH: Final = 0.05
# A look that comes so late tells that we have been asleep ourselves: nobody was silent.
ASLEEP: Final = 1.0
# A worker that dies so soon after it began to listen is broken. The second time in a row its place waits.
LIVED: Final = 1.0
FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 10.0
# So long after the machine would not give us a process we ask again.
NO_PROCESS_PAUSE: Final = 1.0
# A worker that may drain for so long goes a little later.
_GRACE: Final = 2.0

# Makes a process, and the supervisor's end of the socket between the two.
Start = Callable[[], tuple[BaseProcess, socket.socket]]


class CannotListen(OSError):
    """The first workers cannot listen, and the next ones could not either."""


class Crew:
    """N workers, and one that stands by; `on_gone` gets each one that has ended."""

    def __init__(
        self,
        count: int,
        start: Start,
        exchange: Exchange,
        clock: Callable[[], float],
        on_gone: Callable[[Worker], object],
        on_last_words: Callable[[Worker, Fields], object],
        drain_timeout: float,
    ) -> None:
        self.workers: dict[int, Worker] = {}
        self.retiring: set[Worker] = set()
        self.restarts_of = dict.fromkeys(range(count), 0)  # how often the worker of each place died or hung
        self.is_stopping = False
        self._count = count
        self._start = start
        self._exchange = exchange
        self._clock = clock
        self._on_gone = on_gone
        self._on_last_words = on_last_words
        self._drain_timeout = drain_timeout
        self._spare: Worker | None = None
        self._outdated: Worker | None = None  # who stood by when all were to be replaced
        self._by_link: dict[Link, Worker] = {}
        self._failures: dict[int, int] = {}
        self._due: dict[int, float] = {}  # when a place may be filled again
        self._looked_at = clock()
        self._balance = Balance(clock)
        self._fault = ""
        self._was_complete = False
        self._changed = asyncio.Event()
        self._listening = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    # For others

    @property
    def restarts(self) -> int:
        """How many workers died or hung, and were replaced."""
        return sum(self.restarts_of.values())

    @property
    def ready(self) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.state is State.READY]

    @property
    def serving(self) -> list[Worker]:
        """Everyone who has, or may have, clients."""
        return [*self.workers.values(), *self.retiring]

    @property
    def is_complete(self) -> bool:
        return len(self.ready) == self._count

    async def until_complete(self) -> None:
        """Wait until all workers listen. Raises CannotListen."""
        await self._until(lambda: self.is_complete or bool(self._fault))
        if self._fault:
            raise CannotListen(self._fault)

    def by_link(self, link: Link) -> Worker | None:
        """Find the worker at the other end of a link."""
        return self._by_link.get(link)

    @property
    def _everyone(self) -> list[Worker]:
        return [*self.serving, self._spare] if self._spare is not None else self.serving

    # From the workers

    def take(self, link: Link, kind: Kind, fields: Fields, body: bytes) -> None:
        """Hand a worker's message to whom it concerns."""
        worker = self._by_link.get(link)
        if worker is None:  # it has been given up, and is told so by the end of the link
            return
        if kind >= Kind.PUBLISH:
            self._exchange.take(link, kind, fields, body)
        elif kind is Kind.BEAT:
            self._beat(worker, fields)
        elif kind is Kind.ANSWER:
            worker.answer(fields)
        elif kind is Kind.HELLO:
            self._hello(worker)
        elif kind is Kind.LAST_WORDS:
            worker.has_said_goodbye = True
            self._on_last_words(worker, fields)

    def lost(self, link: Link) -> None:
        """Take note that a worker's link has ended: its process has, or is about to."""
        self._exchange.leave(link)
        worker = self.by_link(link)
        if worker is not None:
            self._balance.leave(worker)

    def _hello(self, worker: Worker) -> None:
        assert worker.link is not None, "it has just said something"
        worker.is_up = True
        worker.heard_at = self._clock()
        self._exchange.enter(worker.link)
        if worker.index != STANDING_BY:
            self._run(self._let_listen(worker))

    def _beat(self, worker: Worker, fields: Fields) -> None:
        worker.heard_at = self._clock()
        worker.connections, is_leaving, worker.brownout, worker.broker_is_up = fields
        # Somebody else has told it to go.
        if is_leaving and worker.state is State.READY and not self.is_stopping:
            self._vacate(worker)
            worker.state = State.RETIRING
            self._balance.leave(worker)

    # Life

    def begin(self) -> None:
        """Start all workers."""
        for index in range(self._count):
            self.workers[index] = self._hire(index)
        self._run(self._watch())

    async def replace_all(self, asked_at: float) -> None:
        """Replace each worker that is older than `asked_at` by a new one, one after the other.

        The old ones send their clients away. Those of one are back before those of the next one go: they all come to
        the emptiest, which is the newest.
        """
        await self._replace_spare(asked_at)
        all_back = 0.0
        for index in range(self._count):
            await self._until_ready(index)
            if self.is_stopping:
                return
            old = self.workers[index]
            if old.hired_at > asked_at:
                continue
            self._vacate(old)
            self._fill(self._clock())
            await self._until_ready(index)
            if self.is_stopping:
                return
            await self._pause(all_back - self._clock())
            if old.state is State.READY:  # it may have died meanwhile
                began = self._clock()
                all_back = began + await self._retire(old)

    async def _replace_spare(self, asked_at: float) -> None:
        # It has read keys and files as they were when it was started.
        spare = self._spare
        if spare is not None and spare.hired_at <= asked_at:
            self._outdated = spare
            spare.process.kill()
            await self._until(lambda: self.is_stopping or self._spare is not spare)

    async def stop(self) -> bool:
        """Tell everyone to drain, and wait a little longer than they may take; return whether all have drained."""
        self.is_stopping = True
        self._changed.set()
        serving = [worker for worker in self.serving if worker.state is not State.STARTING]
        for worker in self._everyone:
            if worker in serving:
                _signal(worker, signal.SIGTERM)
            else:
                worker.process.kill()  # it has no clients
        await self._gone(self._everyone, within=self._drain_timeout + _GRACE)
        return all(_has_drained(worker) for worker in serving)

    def cut_short(self) -> None:
        """Tell everyone that there is no time left: they end at once."""
        for worker in self._everyone:
            worker.tell("cut_short")

    def kill(self) -> None:
        """End whoever is left. Idempotent."""
        for worker in self._everyone:
            if worker.process.is_alive():
                worker.process.kill()
            worker.process.join(1.0)
        for task in self._tasks:
            task.cancel()

    def _hire(self, index: int) -> Worker:
        process, sock = self._start()
        worker = Worker(index, process, self._clock())
        worker.link = Link(self.take, self.lost)
        self._by_link[worker.link] = worker
        self._run(worker.link.open(sock))
        return worker

    async def _let_listen(self, worker: Worker) -> None:
        async with self._listening:
            try:
                await worker.ask("listen", worker.index, within=START_WITHIN)
            except Unanswered as fault:
                self._cannot_listen(worker, fault)
                return
            if worker.state is State.STARTING:
                worker.state = State.READY
                worker.ready_at = self._clock()
                self._balance.enter(worker)
        self._was_complete = self._was_complete or self.is_complete
        self._changed.set()
        log.info("worker %d listens, pid %d", worker.index, worker.pid)

    def _cannot_listen(self, worker: Worker, fault: Unanswered) -> None:
        worker.process.kill()
        if fault.reason and not self._was_complete:
            self._fault = fault.reason
            self._changed.set()
        elif worker.state is not State.DEAD and not self.is_stopping:
            log.error("%s", fault)

    async def _retire(self, worker: Worker) -> float:
        """Have a worker send its clients away, and end; return within how many seconds of now they come back."""
        within = 0.0
        worker.state = State.RETIRING
        await self._balance.shut_out(worker)
        self._balance.leave(worker)
        try:
            within = await worker.ask("retire", self._balance.takers, within=2.0)
        except Unanswered:
            _signal(worker, signal.SIGTERM)
        await self._gone([worker], within=self._drain_timeout + _GRACE)
        if worker.process.is_alive():
            worker.process.kill()
        return within

    async def _pause(self, seconds: float) -> None:
        """Wait, unless the server is about to end."""
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._until(lambda: self.is_stopping)

    async def _gone(self, workers: Iterable[Worker], within: float) -> None:
        deadline = self._clock() + within
        # A process tells of its end to whoever polls, or to a thread: there is no event to wait for.
        while any(worker.process.is_alive() for worker in workers) and self._clock() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    # Watching

    async def _watch(self) -> None:
        while True:
            try:
                self.look()
            except Exception:  # nobody else would look after them
                log.exception("a look at the workers failed")
            if self._balance.is_due and not self.is_stopping:
                self._run(self._balance.restore())
            await asyncio.sleep(WATCH)

    def look(self) -> None:
        """Look after everyone once: bury the dead, kill who hangs, fill the places."""
        now = self._clock()
        asleep = now - self._looked_at
        self._looked_at = now
        for worker in self._everyone:
            if asleep > ASLEEP:
                worker.heard_at += asleep
            if not worker.process.is_alive():
                self._bury(worker, now)
            elif worker.is_hung(now) and not worker.was_killed:
                log.error("%s has been silent for %.1f s: killed", worker, now - worker.heard_at)
                worker.was_killed = True
                worker.process.kill()
        if not self.is_stopping:
            self._fill(now)

    def _bury(self, worker: Worker, now: float) -> None:
        is_sudden = worker not in self.retiring and worker is not self._outdated and not self.is_stopping
        lived = now - worker.ready_at if worker.state is State.READY else None
        self._vacate(worker)
        self.retiring.discard(worker)
        self._balance.leave(worker)
        if worker.link is not None:
            self._exchange.leave(worker.link)
            del self._by_link[worker.link]
        worker.end()
        self._on_gone(worker)
        self._changed.set()
        if is_sudden:
            self._note_failure(worker, lived, now)

    def _note_failure(self, worker: Worker, lived: float | None, now: float) -> None:
        is_broken = lived is None or lived < LIVED
        failures = self._failures[worker.index] = self._failures.get(worker.index, 0) + 1 if is_broken else 0
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures - 2, 16)) if failures > 1 else 0.0
        self._due[worker.index] = now + pause
        if worker.index != STANDING_BY:
            self.restarts_of[worker.index] += 1
        if not self._fault:
            code = worker.process.exitcode
            when = f"{lived:.1f} s after it listened" if lived is not None else "before it listened"
            log.error("%s ended with %s, %s; replaced in %.2f s", worker, code, when, pause)

    def _vacate(self, worker: Worker) -> None:
        """Free the place of a worker that is to go, or has gone."""
        if worker is self._spare:
            self._spare = None
        elif self.workers.get(worker.index) is worker:
            del self.workers[worker.index]
            self.retiring.add(worker)

    def _fill(self, now: float) -> None:
        for index in range(self._count):
            if index not in self.workers and now >= self._due.get(index, 0.0):
                worker = self._take_spare(index) or self._try_to_hire(index, now)
                if worker is not None:
                    self.workers[index] = worker
        if self._spare is None and self.is_complete and now >= self._due.get(STANDING_BY, 0.0):
            self._spare = self._try_to_hire(STANDING_BY, now)

    def _try_to_hire(self, index: int, now: float) -> Worker | None:
        try:
            return self._hire(index)
        except OSError as error:  # no memory, no process, no descriptor
            log.error("no process for a worker: %s", error.strerror or error)
            self._due[index] = now + NO_PROCESS_PAUSE
            return None

    def _take_spare(self, index: int) -> Worker | None:
        worker, self._spare = self._spare, None
        if worker is not None:
            worker.index = index
            if worker.is_up:
                self._run(self._let_listen(worker))
        return worker

    # Waiting

    async def _until_ready(self, index: int) -> None:
        """Wait until a worker listens in that place, or nobody will any more."""

        def is_ready() -> bool:
            worker = self.workers.get(index)
            return self.is_stopping or (worker is not None and worker.state is State.READY)

        await self._until(is_ready)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("the supervisor failed at something", exc_info=fault)


def _has_drained(worker: Worker) -> bool:
    """Tell how a worker has ended: a signal that comes after its last words finds nobody to take it."""
    code = worker.process.exitcode
    return code == 0 or (worker.has_said_goodbye and code == -signal.SIGTERM)


def _signal(worker: Worker, number: int) -> None:
    if worker.process.is_alive() and worker.pid:
        try:
            os.kill(worker.pid, number)
        except ProcessLookupError:
            pass
