"""A worker at its post under a supervisor: the house of one process, with broker and internal port next door.

Laws: it listens when it is told to, and by then has had its moment with the broker; it says every second that it is
there, and at once when the broker is lost or found; without its supervisor it sends its clients away and ends within
ORPHANED, and whatever it does within FORSAKEN. SIGTERM drains, however often it comes: who signals all processes of a
service at once must not cut short what the supervisor tells its workers, too. Signals from the terminal are the
supervisor's. What it has counted to its end is the last that it says.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import uvloop

from server import blueprint, logs
from server.admin import broker_metrics, debug, metrics
from server.admin.fields import ApiError
from server.admin.vitals import Vitals
from server.brokers.base import Neighbourly
from server.brokers.link import Fields, Kind, Link
from server.brokers.local import MOST_WAITING, LocalBroker
from server.edge.closing import Close, come_back
from server.node.node import Node
from server.supervisor import spread
from server.supervisor.orphan import end_after_supervisor
from server.supervisor.tally import families, families_in_turns
from server.worker import House, calm_the_collector

if TYPE_CHECKING:
    from server.config import Settings

log = logging.getLogger("stentor")

BEAT: Final = 1.0
# How often it looks whether the broker can be reached: of a change the supervisor hears at once.
LOOK: Final = 0.25
# So long after the last look the operator's page is closed.
UNWATCHED: Final = 3.0
# How long clients may take to go when the supervisor has died: whoever starts it again wants the machine.
ORPHANED: Final = 3.0
# When it is over for a worker that is still there then.
FORSAKEN: Final = 2 * ORPHANED


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker stands: its end of the socket to the supervisor, and the public port that all share."""

    socket: socket.socket
    port: int


class Signature(logging.Filter):
    """Says in each line of the log which worker it is from."""

    def __init__(self) -> None:
        super().__init__()
        self.index: int | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        who = f"worker {self.index}" if self.index is not None else "new worker"
        record.msg = f"{who}: {record.msg}"
        return True


def run(settings: Settings, place: Place) -> None:
    """Work until told to stop; the process ends with the exit code."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    end_after_supervisor(FORSAKEN)
    # The supervisor has held them until now.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP})
    writer = logs.start(settings.log_level, settings.log_format)
    signature = Signature()
    writer.addFilter(signature)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(_work(settings, place, signature))
    finally:
        writer.close()
    raise SystemExit(code)


async def _work(settings: Settings, place: Place, signature: Signature) -> int:
    post = Post(settings, place.port, signature)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, post.leave)
    await post.open(place.socket)
    calm_the_collector()
    return await post.until_told_to_stop()


class Post:
    """One worker and its link."""

    def __init__(self, settings: Settings, port: int, signature: Signature) -> None:
        self._port = port
        self._signature = signature
        self._signals: asyncio.Queue[int] = asyncio.Queue()
        self._is_leaving = False
        self._broker_was_up = False  # when the supervisor was told
        self._link = Link(self._take, self._ended)
        self._tasks: set[asyncio.Task[None]] = set()
        # None when the broker is further away than the supervisor.
        self.broker: LocalBroker | None = None
        local = blueprint.is_in_memory(settings)
        self.house = House(settings, self._make_broker if local else blueprint.broker(settings))
        self._registry = metrics.new_registry(self.house.listener, time.monotonic)
        broker = self.house.node.broker
        assert isinstance(broker, broker_metrics.Contact), "a worker's broker is never in its own memory"
        self._registry.register(broker_metrics.BrokerCollector(broker))
        self._neighbourly = broker if isinstance(broker, Neighbourly) else None
        if self._neighbourly is not None:
            self._neighbourly.tell_neighbours = self._tell_neighbours
        self._api = self.house.api()
        self._vitals = Vitals(self.house.listener)
        self._long_duties: dict[str, Callable[..., Awaitable[Any]]] = {
            "listen": self._listen,
            "api": self._call_api,
            "metrics": lambda: families_in_turns(self._registry),
        }
        self._duties: dict[str, Callable[..., Any]] = {
            "slow": lambda: debug.slow(self.house.listener, time.monotonic()),
            "disconnects": lambda mark, most: debug.departures(self.house.listener.recorder, mark, most),
            "look": self._vitals.look,
            "spread": self._spread,
            "retire": self._retire,
            "cut_short": self._cut_short,
        }

    def _make_broker(self, node: Node) -> LocalBroker:
        self.broker = LocalBroker(node, self._link, node.on_relief, time.monotonic)
        return self.broker

    async def open(self, sock: socket.socket) -> None:
        """Reach for the broker, and report to the supervisor."""
        await self._link.open(sock)
        # Before it is anybody's turn to listen: where the broker is away, all wait for it at the same time.
        await self.house.reach_broker()
        self._link.say(Kind.HELLO, [])
        self._beat()
        self._look_at_broker()

    async def until_told_to_stop(self) -> int:
        """Serve; drain when told to; return the exit code."""
        code = await self.house.until_signalled(self._signals)
        self._link.say(Kind.LAST_WORDS, families(self._registry))
        self._link.close()
        await asyncio.sleep(0)
        return code

    def leave(self) -> None:
        """Drain, and end. Idempotent."""
        if not self._is_leaving:
            self._is_leaving = True
            self._signals.put_nowait(signal.SIGTERM)
            self._say_alive()

    # Supervisor

    def _take(self, link: Link, kind: Kind, fields: Fields, body: bytes) -> None:
        if kind is not Kind.ASK:
            if self.broker is not None:
                self.broker.take(kind, fields, body)
            elif self._neighbourly is not None and kind is Kind.NEIGHBOUR:
                self._neighbourly.hear_neighbour(fields[0], body)
            return
        number, what, arguments = fields
        if what in self._long_duties:
            task = asyncio.get_running_loop().create_task(self._do(number, what, arguments))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        try:
            result = self._duties[what](*arguments)
        except Exception as error:
            self._fail(number, what, error)
        else:
            link.say(Kind.ANSWER, [number, "", result])

    async def _do(self, number: int, what: str, arguments: Fields) -> None:
        try:
            result = await self._long_duties[what](*arguments)
        except Exception as error:
            self._fail(number, what, error)
        else:
            self._link.say(Kind.ANSWER, [number, "", result])

    def _fail(self, number: int, what: str, error: Exception) -> None:
        """Tell the supervisor, which knows what follows from it; the worker works on."""
        if isinstance(error, OSError):
            fault = error.strerror or str(error)
        else:
            log.error("could not do %s", what, exc_info=error)
            fault = type(error).__name__
        self._link.say(Kind.ANSWER, [number, fault, None])

    def _tell_neighbours(self, channel: str, said: bytes) -> None:
        # A supervisor that hangs so long is worse than what they do not hear, and whose publisher knows of.
        if self._link.backlog <= MOST_WAITING:
            self._link.say(Kind.NEIGHBOUR, [channel], said)

    def _ended(self, link: Link) -> None:
        if self.broker is not None:
            self.broker.end()
        if not self.house.listener.gate.is_draining:
            log.error("the supervisor is gone: this worker ends")
        self._retire()
        asyncio.get_running_loop().call_later(ORPHANED, self._cut_short)

    def _beat(self) -> None:
        if self._link.is_open:
            self._say_alive()
            self._vitals.rest_unless_watched(UNWATCHED)
            asyncio.get_running_loop().call_later(BEAT, self._beat)

    def _look_at_broker(self) -> None:
        if self._link.is_open:
            if self.house.node.broker.is_up != self._broker_was_up:
                self._say_alive()
            asyncio.get_running_loop().call_later(LOOK, self._look_at_broker)

    def _say_alive(self) -> None:
        gate = self.house.listener.gate
        self._broker_was_up = self.house.node.broker.is_up
        self._link.say(Kind.BEAT, [gate.open, self._is_leaving, gate.brownout, self._broker_was_up])

    # Duties

    async def _listen(self, index: int) -> None:
        self._signature.index = index
        await self.house.listen(self._port, shared=True)
        self._say_alive()  # before the answer: nobody asks a ready worker how it is

    async def _call_api(self, name: str, request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return {"result": await self._api.call(name, request)}
        except ApiError as error:
            return {"error": error.told}

    def _spread(self, parts: list[float] | None) -> None:
        for sock in self.house.listener.sockets:
            spread.attach(sock, parts)

    def _retire(self, takers: float = 1.0) -> float:
        """Send everyone away, each told when to come back to as many `takers`, counted in workers, and end.

        Returns in how many seconds all are told to be back.
        """
        within = self.house.returns_within(takers)
        self.house.farewell = come_back(Close.RESTART, "", within)
        was_empty = not self.house.listener.gate.open
        self.leave()
        return 0.0 if was_empty else within

    def _cut_short(self) -> None:
        """End now, whoever is still here."""
        self.leave()
        self._signals.put_nowait(signal.SIGTERM)
