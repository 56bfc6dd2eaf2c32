"""`--workers N`: starts the workers, keeps them at work, and ends with them.

Laws: the public port belongs to the server from its start to its end, whatever becomes of a worker; SIGTERM and SIGINT
drain all workers, a second one ends them now; SIGHUP replaces them one after another. Who starts this process is to
start it again if it dies: the workers end without it.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import signal
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop

from server import logs
from server.brokers.link import Link
from server.edge.listener import bind, reserve
from server.supervisor import crew as crews
from server.supervisor import post
from server.supervisor.board import Board
from server.supervisor.crew import Crew
from server.supervisor.exchange import Exchange
from server.supervisor.tally import Tally
from server.supervisor.worker_link import START_WITHIN
from server.worker import CUT_SHORT, DRAINED, announce, calm_the_collector, cannot_listen, catch_signals

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from server.config import Settings

log = logging.getLogger("stentor.supervisor")

SWEEP: Final = 1.0


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
    with tempfile.TemporaryDirectory(prefix="stentor-") as folder:
        supervisor = Supervisor(settings, str(Path(folder, "workers")))
        try:
            return await supervisor.serve(signals)
        except OSError as error:
            return cannot_listen(error)
        finally:
            await supervisor.close()


class Supervisor:
    """The crew, the exchange between them, and the board that shows them; workers find it at `socket_path`."""

    def __init__(self, settings: Settings, socket_path: str) -> None:
        self._settings = settings
        self._socket_path = socket_path
        self._reserved: list[socket.socket] = []
        self._processes = multiprocessing.get_context("spawn")
        self._replacing: asyncio.Task[None] | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._links: asyncio.Server | None = None
        self.port = settings.port
        self.exchange = Exchange(time.monotonic)
        self.tally = Tally()
        self.crew = Crew(
            settings.workers,
            self._start_process,
            self.exchange,
            time.monotonic,
            on_gone=lambda worker: self.tally.bury(worker.index),
            drain_timeout=settings.drain_timeout,
        )
        self.board = Board(
            self.crew,
            self.tally,
            is_draining=lambda: self.crew.is_stopping,
            guarded=settings.internal_is_loopback and settings.api_key is None,
            routes=[],
        )

    async def serve(self, signals: asyncio.Queue[int]) -> int:
        """Start everything, and stop it when told to; return the exit code. Raises OSError."""
        settings = self._settings
        self._reserve()
        internal_port = await self.board.listen(settings.internal_host, settings.internal_port)
        loop = asyncio.get_running_loop()
        self._links = await loop.create_unix_server(
            lambda: Link(lambda *message: crews.take(self.crew, self.exchange, *message), self.crew.lost),
            self._socket_path,
        )
        self.crew.begin()
        self._sweeper = asyncio.create_task(self._sweep())
        told = asyncio.create_task(signals.get())
        complete = asyncio.create_task(self.crew.until_complete())
        await asyncio.wait((told, complete), return_when=asyncio.FIRST_COMPLETED, timeout=START_WITHIN)
        if complete.done():
            calm_the_collector()
            announce(settings, self.port, internal_port)
        complete.cancel()
        number = await told
        while number == signal.SIGHUP:
            self._replace_all()
            number = await signals.get()
        return await self._stop(number, signals)

    async def close(self) -> None:
        """End what is left. Idempotent."""
        for task in (self._replacing, self._sweeper):
            if task is not None:
                task.cancel()
        self.crew.kill()
        if self._links is not None:
            self._links.close()
        for sock in self._reserved:
            sock.close()
        await self.board.stop()

    async def _stop(self, number: int, signals: asyncio.Queue[int]) -> int:
        log.info("%s: draining %d workers", signal.Signals(number).name, len(self.crew.workers))
        stopped = asyncio.create_task(self.crew.stop())
        again = asyncio.create_task(signals.get())
        await asyncio.wait((stopped, again), return_when=asyncio.FIRST_COMPLETED)
        if again.done():
            self.crew.cut_short()
            await asyncio.wait((stopped,), timeout=1.0)
        again.cancel()
        is_drained = stopped.done() and all(worker.process.exitcode == 0 for worker in self.crew.workers.values())
        stopped.cancel()
        log.info("stopped" if is_drained else "stopped before everyone was gone")
        return DRAINED if is_drained else CUT_SHORT

    def _replace_all(self) -> None:
        if self._replacing is None or self._replacing.done():
            log.info("SIGHUP: replacing the workers, one after another")
            self._replacing = asyncio.create_task(self.crew.replace_all())

    def _reserve(self) -> None:
        """Keep the public port for as long as we live, without listening on it. Raises OSError."""
        host, port = self._settings.host, self._settings.port
        if port:
            # To share a port is to share it with whoever asks: nobody else may have it now.
            for probe in bind(host, port, 1):
                probe.close()
        for sock in reserve(host, port):
            self._reserved.append(sock)
            self.port = sock.getsockname()[1]

    def _start_process(self, index: int) -> BaseProcess:
        place = post.Place(index, self._socket_path, self.port)
        process = self._processes.Process(target=post.run, args=(self._settings, place), name=f"stentor-{index}")
        process.start()
        return process

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            self.exchange.broker.sweep()
