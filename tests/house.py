"""The core and the edge of a server without its sockets: everything on a clock and a loop that a test turns by hand."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from websockets.asyncio.server import broadcast

from server.brokers.memory import MemoryBroker
from server.core.backlog import Backlog
from server.core.counters import Counters
from server.core.hub import Hub
from server.core.lag import LagLimits
from server.core.subscription import Subscription
from server.edge.centrifuge.service import Service
from server.edge.centrifuge.session import CentrifugeSession
from server.edge.connection import Connection
from server.edge.credentials import Credentials, NoCredentials, NoSubscriptionTokens, SubscriptionTokens
from server.edge.expulsion import DELAY, Expulsion
from server.edge.gate import Gate
from server.edge.heartbeat import Wheel
from server.edge.listener import Listener, Terms
from server.edge.origins import Origins
from server.edge.recorder import Recorder
from server.edge.session import RAW
from server.edge.sessions import Sessions
from server.edge.static import Asset
from server.edge.turnstile import Turnstile
from server.node.audience import Lane
from server.node.namespaces import ChannelOptions, Namespaces
from server.node.node import Node
from server.node.permissions import Permissions
from server.node.registry import Registry
from tests import wire
from tests.fakes import Clock, Loop, Transport


def fan_out(subscriptions: Iterable[Subscription], wire_bytes: bytes) -> None:
    """What the real server does: the library's broadcast()."""
    broadcast(subscriptions, wire_bytes, text=True)  # type: ignore[arg-type]


class _Nothing:
    def __call__(self, path: str) -> Asset | None:
        return None


@runtime_checkable
class Drained(Protocol):
    """An owner of an outbox that can write what waits in it."""

    def flush(self) -> object: ...


@dataclass
class House:
    """Everything of one process that a connection meets."""

    listener: Listener
    service: Service
    clock: Clock
    loop: Any  # fakes.Loop, or the running event loop
    evicted: list[tuple[object, str]] = field(default_factory=list)
    observed: list[object] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)
    gaps: list[tuple[object, Hashable]] = field(default_factory=list)

    @property
    def hub(self) -> Hub:
        return self.listener.hub

    @property
    def node(self) -> Node:
        return self.service.node

    @property
    def options(self) -> ChannelOptions:
        return self.node.namespaces.default

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

    def lane(self, channel: str) -> Hashable:
        """Return what the hub calls the raw subscribers of a channel."""
        audience = self.node.audiences.get(channel)
        return audience.lanes.get(RAW) if audience is not None else None

    def publish(self, channel: str, frame: bytes) -> bool:
        """Say a frame to the raw subscribers of a channel, past broker and encoding."""
        return self.hub.publish(self.lane(channel), frame)

    def tick(self, seconds: float = 0.0, *, late: bool = False) -> None:
        """Let time pass, and the wheel do what is due after it."""
        self.wheel.tick(self.clock.advance(seconds), late=late)

    def expel(self) -> None:
        """Let the time pass until those are looked at who live by what was revoked."""
        self.clock.advance(DELAY)
        self.loop.turn()

    def assert_balanced(self) -> None:
        """The law of every quiet moment: offered = sent + dropped + queued."""
        counters = self.counters
        assert counters.offered == counters.sent + sum(counters.dropped.values()) + self.backlog.messages


def house(
    limits: LagLimits | None = None,
    *,
    loop: Any = None,
    per_turn: int = 1_000_000,
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
    options: ChannelOptions | None = None,
    namespaces: dict[str, ChannelOptions] | None = None,
    personal_channels: bool = False,
    subscription_tokens: SubscriptionTokens | None = None,
    max_channels: int = 128,
    wall_clock: Callable[[], float] = lambda: 1_700_000_000.0,
) -> House:
    """Build the house; the names are the options' names. `loop` is a fake one unless given."""
    clock = clock or Clock()
    loop = loop or Loop(clock)
    counters = Counters()
    evicted: list[tuple[object, str]] = []
    observed: list[object] = []
    reports: list[str] = []
    gaps: list[tuple[object, Hashable]] = []

    def evict(owner: object, why: str) -> None:
        evicted.append((owner, why))
        if isinstance(owner, Connection):
            owner.evict(why)

    def drain(owner: object) -> None:
        assert isinstance(owner, Drained), "only who gathers is drained"
        owner.flush()

    def gap(owner: object, key: Hashable) -> None:
        gaps.append((owner, key))
        if isinstance(key, Lane):
            node.cut(owner, key)

    def declare_gap(owner: object, channel: str) -> None:
        assert isinstance(owner, Connection)
        if isinstance(owner.session, CentrifugeSession):
            owner.session.lose_position(channel)

    hub = Hub(
        counters,
        Backlog(counters, budget, observed.append),
        fan_out=fan_out,
        clock=clock,
        call_soon=loop.call_soon,
        call_later=loop.call_later,
        evict=evict,
        drain=drain,
        gap=gap,
        report=reports.append,
        fanout_slice=fanout_slice,
    )
    default = ChannelOptions(publish=may_publish, lag=limits or LagLimits(), batch_delay=batch_delay)
    node = Node(hub, Namespaces(options or default, namespaces), counters, declare_gap)
    node.broker = MemoryBroker(node, clock)
    node.revocations.wall_clock = wall_clock
    service = Service(
        node=node,
        registry=Registry(),
        permissions=Permissions(node.namespaces, personal_channels),
        credentials=credentials or NoCredentials(),
        subscription_tokens=subscription_tokens or NoSubscriptionTokens(),
        clock=clock,
        wall_clock=wall_clock,
        turnstile=Turnstile(loop.call_soon, per_turn),
        max_channels=max_channels,
        max_channel_length=max_channel_length,
        version="Stentor test",
        node_id="node",
    )
    gate = Gate(
        counters,
        origins=origins or Origins(("same-origin",)),
        credentials=service.credentials,
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
    terms = Terms(message_rate=message_rate, max_message_size=max_message_size)
    listener = Listener(
        terms,
        node=node,
        sessions=Sessions(service),
        gate=gate,
        wheel=wheel,
        recorder=Recorder(),
        turnstile=service.turnstile,
        clock=clock,
    )
    revoked = node.revocations.revoked
    node.revocations.on_news = Expulsion(listener.connections, revoked.refuses, loop.call_later).hurry
    return House(listener, service, clock, loop, evicted, observed, reports, gaps)
