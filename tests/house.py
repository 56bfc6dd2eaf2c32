"""The core and the edge of a server without its sockets: everything on a clock and a loop that a test turns by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.server import broadcast

from server.core.backlog import Backlog
from server.core.counters import Counters
from server.core.hub import Hub
from server.core.lag import LagLimits
from server.core.subscription import Subscription
from server.edge.connection import Connection
from server.edge.credentials import Credentials, NoCredentials
from server.edge.gate import Gate
from server.edge.heartbeat import Wheel
from server.edge.listener import Listener, Terms
from server.edge.origins import Origins
from server.edge.recorder import Recorder
from server.edge.static import Asset
from tests import wire
from tests.fakes import Clock, Loop, Transport


def fan_out(subscriptions: Iterable[Subscription], wire_bytes: bytes) -> None:
    """What the real server does: the library's broadcast()."""
    broadcast(subscriptions, wire_bytes, text=True)  # type: ignore[arg-type]


class _Nothing:
    def __call__(self, path: str) -> Asset | None:
        return None


@dataclass
class House:
    """Everything of one process that a connection meets."""

    listener: Listener
    clock: Clock
    loop: Any  # fakes.Loop, or the running event loop
    evicted: list[tuple[object, str]] = field(default_factory=list)
    observed: list[object] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)

    @property
    def hub(self) -> Hub:
        return self.listener.hub

    @property
    def wheel(self) -> Wheel:
        return self.listener.wheel

    @property
    def gate(self) -> Gate:
        return self.listener.gate

    @property
    def counters(self) -> Counters:
        return self.listener.counters

    @property
    def backlog(self) -> Backlog:
        return self.listener.backlog

    def accept(self, room: int | None = None, address: str = "127.0.0.1") -> tuple[Connection, Transport]:
        """Let a socket in, whose peer takes `room` bytes."""
        connection = Connection(self.listener)
        transport = Transport(connection, room=room, address=address)
        connection.connection_made(transport)  # type: ignore[arg-type]
        return connection, transport

    def open(self, path: str = "/ws", *fields: str, address: str = "127.0.0.1") -> tuple[Connection, Transport]:
        """Let a client in and shake hands; what the peer got for it is taken off."""
        connection, transport = self.accept(address=address)
        connection.data_received(wire.request(path, *fields))
        answer = wire.answer(transport.take())
        assert answer.status == 101, answer
        assert connection.is_open
        return connection, transport

    def tick(self, seconds: float = 0.0, *, late: bool = False) -> None:
        """Let time pass, and the wheel do what is due after it."""
        self.wheel.tick(self.clock.advance(seconds), late=late)

    def assert_balanced(self) -> None:
        """The law of every quiet moment: offered = sent + dropped + queued."""
        counters = self.counters
        assert counters.offered == counters.sent + sum(counters.dropped.values()) + self.backlog.messages


def house(
    limits: LagLimits | None = None,
    *,
    loop: Any = None,
    clock: Clock | None = None,
    budget: int = 1 << 30,
    fanout_slice: int = 512,
    batch_delay: float = 0.0,
    origins: Origins | None = None,
    credentials: Credentials | None = None,
    assets: Callable[[str], Asset | None] | None = None,
    max_connections: int = 1000,
    max_connections_per_ip: int = 0,
    connect_rate: float = 0,
    max_channel_length: int = 128,
    may_publish: bool = True,
    message_rate: float = 0.0,
    max_message_size: int = 65536,
    ping_interval: float = 25.0,
    pong_timeout: float = 10.0,
    open_timeout: float = 5.0,
    write_timeout: float = 10.0,
) -> House:
    """Build the house; the names are the options' names. `loop` is a fake one unless given."""
    clock = clock or Clock()
    loop = loop or Loop(clock)
    counters = Counters()
    evicted: list[tuple[object, str]] = []
    observed: list[object] = []
    reports: list[str] = []

    def evict(owner: object, why: str) -> None:
        evicted.append((owner, why))
        if isinstance(owner, Connection):
            owner.evict(why)

    hub = Hub(
        counters,
        Backlog(counters, budget, observed.append),
        fan_out=fan_out,
        clock=clock,
        call_soon=loop.call_soon,
        call_later=loop.call_later,
        evict=evict,
        report=reports.append,
        fanout_slice=fanout_slice,
        batch_delay=batch_delay,
    )
    gate = Gate(
        counters,
        origins=origins or Origins(("same-origin",)),
        credentials=credentials or NoCredentials(),
        assets=assets or _Nothing(),
        max_connections=max_connections,
        max_connections_per_ip=max_connections_per_ip,
        connect_rate=connect_rate,
        max_channel_length=max_channel_length,
        now=clock.now,
    )
    wheel = Wheel(
        ping_interval=ping_interval,
        pong_timeout=pong_timeout,
        open_timeout=open_timeout,
        write_timeout=write_timeout,
        loop_lag=counters.event_loop_lag,
        clock=clock,
        call_later=loop.call_later,
    )
    terms = Terms(
        lag=limits or LagLimits(),
        may_publish=may_publish,
        message_rate=message_rate,
        max_message_size=max_message_size,
    )
    listener = Listener(terms, hub=hub, gate=gate, wheel=wheel, recorder=Recorder(), clock=clock)
    return House(listener, clock, loop, evicted, observed, reports)
