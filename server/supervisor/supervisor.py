"""`--workers N`: starts the workers, keeps them at work, and ends with them.

Laws: the public port belongs to the server from its start to its end, whatever becomes of a worker; SIGTERM and SIGINT
drain all workers, a second one ends them now; SIGHUP replaces them one after another. Who starts this process is to
start it again if it dies: the workers end without it.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Final

import uvloop

from server import blueprint, logs
from server.admin import configuration, http_api
from server.brokers.base import Broker, Remote
from server.edge.listener import reserve
from server.notify import ServiceManager
from server.supervisor import post
from server.supervisor.board import Board
from server.supervisor.crew import Crew
from server.supervisor.crew_api import Counterpart, CrewApi, Deaf
from server.supervisor.exchange import Exchange
from server.supervisor.tally import Tally
from server.supervisor.worker_link import STANDING_BY, START_WITHIN, Worker
from server.worker import (
    CUT_SHORT,
    DRAINED,
    GRACE,
    announce,
    calm_the_collector,
    cannot_build,
    cannot_listen,
    catch_signals,
)

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from server.config import Settings

log = logging.getLogger("stentor.supervisor")

SWEEP: Final = 1.0
# How long workers that were told a second time may take.
CUT_WITHIN: Final = 1.0
# What a terminal says to all of its processes, and is the supervisor's to decide about.
FROM_TERMINALS: Final = frozenset({signal.SIGINT, signal.SIGHUP})


def run(settings: Settings) -> int:
    """Serve with `settings.workers` processes until a signal comes; return the exit code."""
    writer = logs.start(settings.log_level, settings.log_format)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(settings))
    finally:
        writer.close()


async def _serve(settings: Settings) -> int:
    signals = catch_signals(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    try:
        supervisor = Supervisor(settings)
    except blueprint.Impossible as fault:
        return cannot_build(fault)
    try:
        return await supervisor.serve(signals)
    except OSError as error:
        return cannot_listen(error)
    finally:
        await supervisor.close()


class Supervisor:
    """The crew, the exchange between them, and the board that shows them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reserved: list[socket.socket] = []
        self._processes = multiprocessing.get_context("spawn")
        self._beginning: asyncio.Task[None] | None = None
        self._has_begun = False
        self._replacing: asyncio.Task[None] | None = None
        self._asked_at = 0.0  # to replace all workers
        self._sweeper: asyncio.Task[None] | None = None
        self.port = settings.port
        # Before a worker is started: it would inherit whom only we may speak to.
        self._manager = ServiceManager.of(os.environ, os.getpid())
        self._status = ""
        self.exchange = Exchange(time.monotonic, time.time)
        self.tally = Tally()
        self.crew = Crew(
            settings.workers,
            self._start_process,
            self.exchange,
            time.monotonic,
            on_gone=self._bury,
            on_last_words=lambda worker, said: self.tally.take(worker.index, said, worker.pid),
            drain_timeout=settings.drain_timeout,
        )
        # What the server API speaks through: the exchange's own broker, or this process's way to the one that all have.
        local = blueprint.is_in_memory(settings)
        self._broker: Broker = self.exchange.broker if local else blueprint.broker(settings)(Deaf())
        desk = Counterpart(self._broker, blueprint.namespaces(settings))
        desk.revocations.is_needed = settings.auth == "jwt"
        crew_api = CrewApi(
            desk,
            self.crew,
            max_channel_length=settings.max_channel_length,
            max_message_size=settings.max_message_size,
        )
        api = blueprint.everywhere(crew_api, desk, settings)
        api_key = settings.api_key.get_secret_value() if settings.api_key else None
        self.board = Board(
            self.crew,
            self.tally,
            is_draining=lambda: self.crew.is_stopping,
            broker_is_up=lambda: self._broker.is_up,
            published=lambda: desk.published,
            routes=http_api.routes(api, api_key=api_key, on_loopback=settings.internal_is_loopback),
            on_loopback=settings.internal_is_loopback,
            api_key=api_key,
            configuration=configuration.in_force(settings),
            broker_trouble=lambda: self._broker.trouble if isinstance(self._broker, Remote) else "",
        )

    async def serve(self, signals: asyncio.Queue[int]) -> int:
        """Start everything, and stop it when told to; return the exit code. Raises OSError."""
        settings = self._settings
        self._reserve()
        internal_port = await self.board.listen(settings.internal_host, settings.internal_port)
        if isinstance(self._broker, Remote):
            await self._broker.start()
        self.crew.begin()
        self._sweeper = asyncio.create_task(self._sweep())
        self._beginning = asyncio.create_task(self._greet(internal_port))
        while (number := await self._next(signals, self._beginning)) == signal.SIGHUP:
            self._replace_all()
        self._beginning.cancel()
        return await self._stop(number, signals)

    async def close(self) -> None:
        """End what is left. Idempotent."""
        for task in (self._beginning, self._replacing, self._sweeper):
            if task is not None:
                task.cancel()
        self.crew.kill()
        for sock in self._reserved:
            sock.close()
        self.board.pauses.stop()
        await self.board.stop()
        self._manager.close()
        if isinstance(self._broker, Remote):
            await self._broker.stop()

    async def _greet(self, internal_port: int) -> None:
        """Say that the server is there, as soon as all workers listen. Raises CannotListen."""
        late = asyncio.get_running_loop().call_later(START_WITHIN, self._say_late)
        try:
            await self.crew.until_complete()
        finally:
            late.cancel()
        calm_the_collector()
        self.board.pauses.start()
        announce(self._settings, self.port, internal_port)
        self._status = f"{self._settings.workers} workers listening on port {self.port}"
        self._has_begun = True
        self._say_ready()

    def _say_late(self) -> None:
        ready, wanted = len(self.crew.ready), self._settings.workers
        log.warning("only %d of %d workers listen after %.0f s", ready, wanted, START_WITHIN)

    async def _next(self, signals: asyncio.Queue[int], beginning: asyncio.Task[None]) -> int:
        """Wait for a signal. Raises CannotListen."""
        told = asyncio.create_task(signals.get())
        await asyncio.wait((told, beginning), return_when=asyncio.FIRST_COMPLETED)
        if beginning.done():
            beginning.result()
        return await told

    async def _stop(self, number: int, signals: asyncio.Queue[int]) -> int:
        self._manager.stopping(self._settings.drain_timeout + GRACE, "draining")
        log.info("%s: draining %d workers", signal.Signals(number).name, len(self.crew.workers))
        stopped = asyncio.create_task(self.crew.stop())
        again = asyncio.create_task(signals.get())
        await asyncio.wait((stopped, again), return_when=asyncio.FIRST_COMPLETED)
        if again.done():
            self.crew.cut_short()
            await asyncio.wait((stopped,), timeout=CUT_WITHIN)
        is_drained = stopped.done() and not again.done() and stopped.result()
        again.cancel()
        stopped.cancel()
        log.info("stopped" if is_drained else "stopped before everyone was gone")
        return DRAINED if is_drained else CUT_SHORT

    def _bury(self, worker: Worker) -> None:
        if worker.index != STANDING_BY:  # that one has counted nothing, and nobody misses it
            self.tally.bury(worker.index, worker.pid)

    def _replace_all(self) -> None:
        self._asked_at = time.monotonic()
        if self._has_begun:
            self._manager.reloading(self._asked_at)
        if self._replacing is None or self._replacing.done():
            log.info("SIGHUP: replacing the workers, one after another")
            self._replacing = asyncio.create_task(self._replace())
            self._replacing.add_done_callback(lambda _: self._say_ready())
        else:
            log.info("SIGHUP: those that have been replaced already will be replaced again")

    async def _replace(self) -> None:
        """Replace everyone who is older than the last time that somebody asked for it, also if that is meanwhile."""
        asked_at = 0.0
        while asked_at < self._asked_at and not self.crew.is_stopping:
            asked_at = self._asked_at
            await self.crew.replace_all(asked_at)

    def _say_ready(self) -> None:
        if self._has_begun and not self.crew.is_stopping:
            self._manager.ready(asyncio.get_running_loop().call_later, self._status)

    def _reserve(self) -> None:
        """Keep the public port for as long as we live, without listening on it. Raises OSError."""
        for sock in reserve(self._settings.host, self._settings.port):
            self._reserved.append(sock)
            self.port = sock.getsockname()[1]

    def _start_process(self) -> tuple[BaseProcess, socket.socket]:
        ours, theirs = socket.socketpair()
        # Started along with a worker, it would let the signals through to that again.
        with _held(FROM_TERMINALS):
            resource_tracker.ensure_running()
        with theirs, _held(FROM_TERMINALS):
            place = post.Place(theirs, self.port)
            process = self._processes.Process(target=post.run, args=(self._settings, place), name="stentor-worker")
            process.start()
        return process, ours

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            self.exchange.sweep()
            if isinstance(self._broker, Remote):
                self._broker.sweep()


@contextmanager
def _held(signals: frozenset[signal.Signals]) -> Iterator[None]:
    """Keep signals from a process that is started meanwhile, until it says that it is ready for them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
