"""A worker at its post under a supervisor: the house of one process, with broker and internal port next door.

Laws: it listens when it is told to; it says every second that it is there; without its supervisor it sends its clients
away and ends. SIGTERM means what it means to a process of its own; an interrupt from the terminal is the supervisor's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import uvloop

from server import logs
from server.admin import debug, metrics
from server.brokers.link import Fields, Kind, Link
from server.brokers.local import LocalBroker
from server.edge.closing import Close
from server.node.node import Node
from server.supervisor import spread
from server.supervisor.tally import families
from server.worker import CUT_SHORT, House, calm_the_collector, catch_signals

if TYPE_CHECKING:
    from server.config import Settings

log = logging.getLogger("stentor")

# How many clients a second the other workers take back without effort, after one of them has sent its own away.
RETURNS_PER_SECOND: Final = 500.0
SOONEST_RETURN: Final = 1.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker stands: its index, the supervisor's socket, and the public port that all share."""

    index: int
    socket: str
    port: int


def run(settings: Settings, place: Place) -> None:
    """Work until told to stop; the process ends with the exit code."""
    # The terminal interrupts the whole group; the supervisor decides what that means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    writer = logs.start(settings.log_level, settings.log_format)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(_work(settings, place))
    finally:
        writer.close()
    raise SystemExit(code)


async def _work(settings: Settings, place: Place) -> int:
    signals = catch_signals(signal.SIGTERM)
    post = Post(settings, place, signals)
    try:
        await post.open()
    except OSError as error:
        log.error("worker %d: no supervisor at its socket: %s", place.index, error.strerror or error)
        return CUT_SHORT
    calm_the_collector()
    return await post.until_told_to_stop()


class Post:
    """One worker and its link."""

    def __init__(self, settings: Settings, place: Place, signals: asyncio.Queue[int]) -> None:
        self._settings = settings
        self._place = place
        self._signals = signals
        self._link = Link(self._take, self._ended)
        self._tasks: set[asyncio.Task[None]] = set()
        self.broker: LocalBroker
        self.house = House(settings, self._make_broker)
        self._registry = metrics.new_registry(self.house.listener, time.monotonic)
        self._duties: dict[str, Callable[..., Any]] = {
            "metrics": lambda: families(self._registry),
            "slow": lambda: debug.slow(self.house.listener, time.monotonic()),
            "disconnects": lambda most: [debug.departure(each) for each in islice(self.house.listener.recorder, most)],
            "spread": self._spread,
            "retire": self._retire,
        }

    def _make_broker(self, node: Node) -> LocalBroker:
        self.broker = LocalBroker(node, self._link)
        return self.broker

    async def open(self) -> None:
        """Report to the supervisor. Raises OSError."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self._link, self._place.socket)
        self._link.say(Kind.HELLO, [self._place.index, os.getpid()])
        self._beat()

    async def until_told_to_stop(self) -> int:
        """Serve; drain at the first signal, stop at the second; return the exit code."""
        return await self.house.until_signalled(self._signals)

    # Supervisor

    def _take(self, link: Link, kind: Kind, fields: Fields, body: bytes) -> None:
        if kind is not Kind.ASK:
            self.broker.take(kind, fields, body)
            return
        number, what, arguments = fields
        if what == "listen":
            task = asyncio.get_running_loop().create_task(self._listen(number))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        try:
            result, fault = self._duties[what](*arguments), ""
        except Exception as error:  # said to the supervisor, which logs it; the worker works on
            log.exception("could not do %s", what)
            result, fault = None, type(error).__name__
        link.say(Kind.ANSWER, [number, fault, result])

    async def _listen(self, number: int) -> None:
        try:
            await self.house.listen(self._place.port, shared=True)
        except OSError as error:
            self._link.say(Kind.ANSWER, [number, error.strerror or str(error), None])
        else:
            self._link.say(Kind.ANSWER, [number, "", None])

    def _ended(self, link: Link) -> None:
        self.broker.end()
        if not self.house.listener.gate.is_draining:
            log.error("the supervisor is gone: this worker ends")
            self._retire()

    def _beat(self) -> None:
        if self._link.is_open:
            self._link.say(Kind.BEAT, [self.house.listener.gate.open, self.house.wheel.last_lag])
            asyncio.get_running_loop().call_later(1.0, self._beat)

    # Duties

    def _spread(self, parts: list[float] | None) -> None:
        for sock in self.house.listener.sockets:
            spread.attach(sock, parts)

    def _retire(self) -> None:
        """Send everyone away, each told when to come back, and end."""
        spread_over = max(SOONEST_RETURN, self.house.listener.gate.open / RETURNS_PER_SECOND)

        def farewell() -> tuple[int, str]:
            return Close.RESTART, f"reconnect_after_ms={round(1000 * random.uniform(0, spread_over))}"

        self.house.farewell = farewell
        self._signals.put_nowait(signal.SIGTERM)
