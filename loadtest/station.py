"""One process of the generator: its clients, its part of the publishers and troublemakers, its part of the books.

A station does what the conductor says (``crew``, ``go``, ``cease``, ``settle``) and tells it how things stand: a
small ``status`` several times a second, a ``report`` with the finished seconds every second, an ``account`` at the
end. All of it is plain data, because it may travel between machines.

Laws: everything live is made here, per run, never at import (Locust forks). ``close`` ends whatever is open, in any
state. It does not know Locust: users join and leave, messages come and go through callables.
"""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic, monotonic_ns
from typing import Any

import gevent

from loadtest.dialect import Dialect, Introduction
from loadtest.histogram import Histogram
from loadtest.ledger import Audience, Entry, Memory, Refused, Sums, damage, settle
from loadtest.opening import Opener, Route, resolve
from loadtest.options import Options
from loadtest.payload import streams
from loadtest.publishing import Publishers, Schedule, StreamSender
from loadtest.swarm import Connection, Second, Swarm
from loadtest.trouble import Troublemakers
from loadtest.watch import Watch, boot_id

STATUS_PERIOD = 0.2
#: Nothing received for so long, at the end of the barrier: what is absent then is not on its way.
QUIET = 2.0
MAX_DAMAGED = 20

Message = dict[str, Any]
Totals = dict[tuple[int, int], int | None]  # by publisher and channel; None = nobody knows


@dataclass(slots=True)
class Attempts:
    """How the opening of one kind of connection went."""

    asked: int = 0
    connected: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    closes: Counter[str] = field(default_factory=Counter)
    left: int = 0

    def dump(self) -> Message:
        """Plain data."""
        return {
            "asked": self.asked,
            "connected": self.connected,
            "failed": dict(self.failed),
            "closes": dict(self.closes),
            "left": self.left,
        }


class Client:
    """One healthy subscriber: a connection, or one per channel where the dialect has it so."""

    __slots__ = ("connections", "gone")

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.gone = False


class Station:
    """One process's part of one run."""

    def __init__(
        self, options: Options, number: int, stations: int, tell: Callable[[str, Message], None], name: str
    ) -> None:
        self.options = options
        self.name = name
        self._number = number
        self._stations = max(stations, 1)
        self._tell = tell
        self._dialect = options.make_dialect()  # which node it is of matters only to where one connects
        self._entrances = [self._entrance(node) for node in range(len(options.nodes))]
        self._streams = streams(options.run, options.publishers, options.channels, options.size)
        self._layout = self._dialect.layout(options.size, options.channel)
        self._memory = Memory()
        self._audiences: dict[tuple[tuple[int, ...], bool], Audience] = {}
        self._headers = [("Authorization", f"Bearer {options.token}")] if options.token else []
        self._opener = Opener()
        self._troubled = Opener()  # so that their connects are not in the figures
        self.swarm = Swarm(self._dialect)
        self.watch = Watch()
        self.watch.begin()
        self._clients = 0
        self._here: list[Connection] = []  # the healthy subscribers' that were ever open, and the publishers'
        self.subscribers, self.publishing = Attempts(), Attempts()
        self.publishers = Publishers(self.swarm, len(self._streams))
        self._trouble: Troublemakers | None = None
        self._going = False
        self._ceasing = False
        self._over = False
        self._timed = 0
        self.fresh: list[Second] = []  # finished seconds that Locust's own page has not been shown yet
        self._shown_failures: Counter[str] = Counter()
        self._status_loop = gevent.spawn(self._keep_telling)

    def _entrance(self, node: int) -> tuple[Dialect, Route]:
        dialect = self.options.make_dialect(node)
        return dialect, Route(*resolve(dialect.target([self.options.channel(0)])))

    def take_handshakes(self) -> tuple[int, int, Histogram]:
        """The healthy connections opened since the last call: their number, 0 bytes, and their handshakes."""
        fresh, self._opener.fresh = self._opener.fresh, Histogram()
        return fresh.count, 0, fresh

    def take_failures(self) -> Counter[str]:
        """The connects that failed since the last call, by reason."""
        failed = self.subscribers.failed + self.publishing.failed
        fresh, self._shown_failures = failed - self._shown_failures, failed
        return fresh

    # -- users come and go --------------------------------------------------------------------------------------

    def join(self, count: int) -> list[Client]:
        """Let ``count`` healthy subscribers connect; returns at once."""
        clients = []
        for _ in range(count):
            client = Client()
            clients.append(client)
            # Workers take turns, so that the channels fill evenly without anyone counting for all.
            number = self._clients * self._stations + self._number
            self._clients += 1
            node = self.options.node_of(number)
            for channels in self._dialect.split(self.options.channels_of(number)):
                self._connect(channels, client, node)
        return clients

    def leave(self, clients: Sequence[Client]) -> None:
        """Let subscribers go. Idempotent."""
        for client in clients:
            client.gone = True
            for connection in client.connections:
                if not connection.closed and not self._over:
                    self.subscribers.left += 1
                self.swarm.leave(connection)

    def _connect(self, channels: tuple[int, ...], client: Client, node: int) -> None:
        self.subscribers.asked += 1

        def done(sock: Any, outcome: bytes | str) -> None:
            if sock is None:
                self.subscribers.failed[str(outcome)] += 1
                return
            if client.gone or self._over or self._ceasing:  # the final markers may be out already
                sock.close()
                self.subscribers.asked -= 1
                return
            assert isinstance(outcome, bytes)
            self.subscribers.connected += 1
            client.connections.append(self._adopt(sock, outcome, self._audience(channels), self._on_close, node))

        self._opener.open(*self._way(node, channels), done)

    def _way(self, node: int, channels: tuple[int, ...], listens: bool = True) -> tuple[Route, Introduction]:
        """How to get to a node, and what to say there."""
        dialect, route = self._entrances[node]
        names = [self.options.channel(each) for each in channels]
        return route, Introduction(dialect, names, self._headers, listens)

    def _adopt(
        self, sock: Any, rest: bytes, audience: Audience, on_close: Callable[[Connection, int], None], node: int
    ) -> Connection:
        entry = Entry(audience, late=self._going)
        connection = self.swarm.adopt(sock, entry, rest, on_close, node)
        self._here.append(connection)
        return connection

    def _audience(self, channels: tuple[int, ...], listens: bool = True) -> Audience:
        audience = self._audiences.get((channels, listens))
        if audience is None:
            audience = Audience(channels, self._streams, self._layout, self._memory, listens)
            self._audiences[channels, listens] = audience
        return audience

    def _on_close(self, connection: Connection, code: int) -> None:
        self.subscribers.closes[str(code)] += 1

    # -- what the conductor says ---------------------------------------------------------------------------------

    def crew(self, message: Message) -> None:
        """Connect the publishers named, and the troublemakers if this station has them."""
        for number, stream in enumerate(self._streams):
            if stream.publisher in message["publishers"]:
                self._connect_publisher(number)
        if message["trouble"] and self._trouble is None:
            options = self.options
            self._trouble = Troublemakers(options.stalled, options.slow, options.slow_bps, options.flapping)
            self._trouble.start(self._open_troubled)

    def _connect_publisher(self, number: int) -> None:
        stream = self._streams[number]
        channel, channels = self.options.channel(stream.channel), (stream.channel,)
        listens = not self._dialect.answers
        node = number % len(self._entrances)  # streams take turns, so that nodes hear one another
        self.publishing.asked += 1

        def on_close(connection: Connection, code: int) -> None:
            self.publishing.closes[str(code)] += 1

        def done(sock: Any, outcome: bytes | str) -> None:
            if sock is None:
                self.publishing.failed[str(outcome)] += 1
                return
            assert isinstance(outcome, bytes)
            self.publishing.connected += 1
            connection = self._adopt(sock, outcome, self._audience(channels, listens), on_close, node)
            self.publishers.senders[number] = StreamSender(stream, channel, self._dialect, self.swarm, connection)

        self._opener.open(*self._way(node, channels, listens), done)

    def _open_troubled(
        self, number: int, done: Callable[[Any, bytes | str], None], prepare: Callable[[Any], None] | None
    ) -> None:
        node = self.options.node_of(number)
        self._troubled.open(*self._way(node, (number % self.options.channels,)), done, prepare)

    def go(self, message: Message) -> None:
        """Publishing begins: everyone here until now is owed every publication."""
        here = boot_id()
        # Another machine's clock says nothing here: there the seconds are counted from when the word arrived.
        began = message["began"] if message["leader"] == here else monotonic_ns() + int(message["lead"] * 1e9)
        self._going = True
        # Who is here stays: the collector need not look at them again while every millisecond counts.
        gc.collect()
        gc.freeze()
        self.watch.reset()
        self.swarm.begin(began, message["every"], timing=message["clock"] == here)
        if self.publishers.senders:
            self.publishers.start(Schedule(began, self.options.rate, self.options.publications))
        if self._trouble is not None:
            self._trouble.go(self._open_troubled)

    def cease(self, message: Message) -> None:
        """Publish no more, send the final markers, and tell what was sent; in a greenlet of its own."""
        self._ceasing = True
        gevent.spawn(self._cease, message["within"])

    def _cease(self, within: float) -> None:
        self.publishers.cease()
        if self._trouble is not None:
            self._trouble.cease()
        if self._going:
            self.publishers.mark()
        deadline = monotonic() + within
        while not self.publishers.is_settled() and monotonic() < deadline:
            gevent.sleep(0.01)
        senders = self.publishers.senders
        self._tell(
            "ceased",
            {
                "totals": [[number, sender.total()] for number, sender in senders.items()],
                "attempted": sum(sender.attempted() for sender in senders.values()),
                "refused": [[number, list(sender.refused)] for number, sender in senders.items() if sender.refused],
                "why_refused": dict(Counter(why for sender in senders.values() for why in sender.refused.values())),
                "received": [[sender.connection.node, sender.received()] for sender in senders.values()],
                "markers": sum(int(sender.has_marked()) for sender in senders.values()),
                "late_max": self.publishers.late_max if senders else None,
                "first": self.publishers.first,
                "last": self.publishers.last,
            },
        )

    def settle(self, message: Message) -> None:
        """Wait for the final markers, then close the books; in a greenlet of its own."""
        streams = [(stream.publisher, stream.channel) for stream in self._streams]
        totals = {streams[number]: total for number, total in message["totals"]}
        refused = {streams[number]: sorted(sequences) for number, sequences in message["refused"]}
        gevent.spawn(self._settle, totals, refused, message["within"])

    def _settle(self, totals: Totals, refused: Refused, within: float) -> None:
        deadline = monotonic() + within
        waiting = [connection for connection in self._here if connection.entry.ended is None]
        received, moved = self.swarm.delivered(), monotonic()
        while waiting and monotonic() < deadline:
            if (now := self.swarm.delivered()) == received:
                waiting = [each for each in waiting if _is_behind(each.entry, totals)]
            else:
                received, moved = now, monotonic()  # to look at everyone now would delay what still comes in
            if waiting:
                gevent.sleep(0.05)
        under_way = bool(waiting) and monotonic() - moved < min(QUIET, within / 2)
        self._tell("account", self._account(totals, refused, under_way))

    # -- what it tells -------------------------------------------------------------------------------------------

    def _keep_telling(self) -> None:
        while True:
            self._tell("status", self.status())
            gevent.sleep(STATUS_PERIOD)

    def status(self) -> Message:
        """How things stand."""
        return {
            "process": self.name,
            "pid": os.getpid(),
            "boot_id": boot_id(),
            "pending": self._opener.pending + self._troubled.pending,
            "subscribers": self.subscribers.dump(),
            "publishing": self.publishing.dump(),
            "open": len(self.swarm.connections),
            "done": self._going and self.publishers.done(),
        }

    def report(self) -> Message:
        """The seconds that are over since the last report, and this process's own load in them."""
        self.swarm.roll(monotonic_ns())
        seconds, self.swarm.finished = self.swarm.finished, []
        self.fresh.extend(seconds)
        rows = []
        # Two seconds in one report have had the loop to themselves in between: what was sampled is that of both.
        cpu, lag = self.watch.take() if seconds else (0.0, 0.0)
        for second in seconds:
            rows.append(
                {
                    "t": second.t,
                    "delivered": second.delivered,
                    "published": second.published,
                    "late": second.late,
                    "latency": second.latency.dump(),
                    "cpu": cpu,
                    "lag": lag,
                    "connections": len(self.swarm.connections) - len(self.publishers.senders),
                }
            )
            self._timed += second.latency.count
        return {
            "process": self.name,
            "rows": rows,
            "handshakes": self._opener.handshakes.dump(),
            "missing": sum(connection.entry.missing() for connection in self._here if not connection.entry.is_clean),
        }

    def _account(self, totals: Totals, refused: Refused, under_way: bool) -> Message:
        sums_of: dict[tuple[int, int], Sums] = {}
        damaged: list[str] = []
        for connection in self._here:
            entry = connection.entry
            for channel, sums in settle(entry, entry.due(totals), refused, under_way).items():
                sums_of.setdefault((channel, connection.node), Sums()).add(sums)
                if len(damaged) < MAX_DAMAGED and (text := damage(sums, entry, channel)):
                    damaged.append(text)
        self._finish_second()
        report = self.report()
        first, last = self._opener.first_ns, self._opener.last_ns
        connected = self.subscribers.connected + self.publishing.connected
        took = (last - first) / 1e9 if first is not None and last is not None else 0.0
        return {
            **self.status(),
            "sums": [[channel, node, sums.dump()] for (channel, node), sums in sums_of.items()],
            "opened": list(Counter(connection.node for connection in self._here).items()),
            "damaged": damaged,
            "late_joiners": sum(1 for connection in self._here if connection.entry.joined is not None),
            "acknowledged": sum(sender.acknowledged() for sender in self.publishers.senders.values()),
            "connects_per_second": connected / took if took else None,
            "timing": self.swarm.timing,
            "timed": self._timed,
            "report": report,
            "lags": self.watch.lags.dump(),
            "trouble": None if self._trouble is None else self._trouble.seen(),
        }

    def _finish_second(self) -> None:
        """Close the running second early: what arrived in it belongs to the books."""
        if self._going:
            self.swarm.finish()

    def close(self) -> None:
        """End everything that is open. Idempotent."""
        self._over = True
        gc.unfreeze()
        self._status_loop.kill(block=False)
        self.publishers.cease()
        if self._trouble is not None:
            self._trouble.close()
        self._opener.abandon()
        self._troubled.abandon()
        self.swarm.close()
        self.watch.stop()


def _is_behind(entry: Entry, totals: Totals) -> bool:
    return entry.ended is None and not entry.has_all(entry.due(totals))
