"""One process: builds the house from its settings, runs it, and takes it down.

Laws: ready only while it listens and is not draining; the first signal drains and exits with 0, the second exits now;
what was bound is printed.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import uvloop
from websockets.asyncio.server import broadcast

from server import __version__, blueprint, logs
from server.admin import configuration
from server.admin.app import Internal
from server.admin.node_api import NodeApi
from server.admin.pauses import CollectorPauses
from server.brokers.base import Broker, BrokerError, Remote
from server.core.backlog import Backlog
from server.core.counters import Counters
from server.core.hub import Hub
from server.core.returns import spread_of
from server.core.subscription import Subscription
from server.edge.brownout import Shedding
from server.edge.centrifuge.service import Service
from server.edge.centrifuge.session import CentrifugeSession
from server.edge.closing import Close, come_back
from server.edge.connection import Connection
from server.edge.expulsion import Expulsion
from server.edge.heartbeat import Wheel
from server.edge.latency import LatencySample
from server.edge.listener import Farewell, Listener
from server.edge.recorder import Recorder
from server.edge.sessions import Sessions
from server.edge.turnstile import Turnstile
from server.node.audience import Lane
from server.node.chores import Chores
from server.node.node import Node
from server.node.permissions import Permissions
from server.node.registry import Registry
from server.notify import ServiceManager

if TYPE_CHECKING:
    from server.config import Settings

log = logging.getLogger("stentor")

# Exit codes: drained; a second signal cut the drain short; a port could not be had.
DRAINED: Final = 0
CUT_SHORT: Final = 1
CANNOT_LISTEN: Final = 2
# What a drain may take besides `drain_timeout`.
GRACE: Final = 5.0


def run(settings: Settings) -> int:
    """Serve until a signal comes; return the exit code."""
    writer = logs.start(settings.log_level, settings.log_format)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(settings))
    finally:
        writer.close()


async def _serve(settings: Settings) -> int:
    # Before anything is said: a signal that comes with the first printed line is already one to drain for.
    signals = catch_signals(signal.SIGTERM, signal.SIGINT)
    try:
        house = House(settings, blueprint.broker(settings))
    except blueprint.Impossible as fault:
        return cannot_build(fault)
    internal = house.internal()
    calm_the_collector()
    try:
        internal_port = await internal.listen(settings.internal_host, settings.internal_port)
        port = await house.listen()
    except OSError as error:
        await internal.stop()
        return cannot_listen(error)
    manager = ServiceManager.of(os.environ, os.getpid())
    house.on_drain = lambda: manager.stopping(settings.drain_timeout + GRACE, "draining")
    if manager.is_there:
        # A reload, to which only several workers have an answer; it would end us without a word to anybody.
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGHUP, log.warning, "SIGHUP: a single process has no successor; restart it, or set workers"
        )
    announce(settings, port, internal_port)
    manager.ready(asyncio.get_running_loop().call_later, f"listening on {_url_host(settings.host)}:{port}")
    code = await house.until_signalled(signals)
    await internal.stop()
    manager.close()
    return code


def catch_signals(*numbers: int) -> asyncio.Queue[int]:
    """Collect these signals from now on."""
    signals: asyncio.Queue[int] = asyncio.Queue()
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, signals.put_nowait, number)
    return signals


def cannot_build(fault: blueprint.Impossible) -> int:
    """Say what the settings ask for in vain; return the exit code for it."""
    print(f"stentor: {fault}", file=sys.stderr)
    return CANNOT_LISTEN


def cannot_listen(error: OSError) -> int:
    """Say that a port could not be had; return the exit code for it."""
    print(f"stentor: cannot listen: {error.strerror or error}", file=sys.stderr)
    return CANNOT_LISTEN


def announce(settings: Settings, port: int, internal_port: int) -> None:
    """Say where the server listens, to the log and to whoever started it."""
    host, internal_host = _url_host(settings.host), _url_host(settings.internal_host)
    log.info("listening on %s:%d, internal port on %s:%d", host, port, internal_host, internal_port)
    secure = "s" if settings.tls_cert else ""
    try:
        print(
            f"Stentor {__version__} is listening\n"
            f"  page       http{secure}://{host}:{port}/\n"
            f"  websocket  ws{secure}://{host}:{port}/ws/{{channel}}\n"
            f"  metrics    http://{internal_host}:{internal_port}/metrics\n",
            flush=True,
        )
    except OSError:
        log.warning("nobody reads the standard output")


class House:
    """Everything one process consists of, joined together."""

    def __init__(self, settings: Settings, make_broker: Callable[[Node], Broker]) -> None:
        self._settings = settings
        self.farewell: Farewell | None = None  # unless somebody has said otherwise, that of a shutdown
        self.on_drain: Callable[[], None] = lambda: None
        self._has_reached_out = False
        loop = asyncio.get_running_loop()
        clock = time.monotonic
        counters = Counters()
        hub = Hub(
            counters,
            Backlog(counters, settings.node_queue_bytes, _say_observed),
            fan_out=_fan_out,
            clock=clock,
            call_soon=loop.call_soon,
            call_later=loop.call_later,
            evict=_evict,
            drain=_drain,
            gap=self._cut,
            report=lambda text: log.warning("fan-out: %s", text),
            fanout_slice=settings.fanout_slice,
        )
        self.node = Node(hub, blueprint.namespaces(settings), counters, _declare_gap)
        self.node.broker = make_broker(self.node)
        self.node.revocations.is_needed = settings.auth == "jwt"
        self.service = service = _service(settings, self.node, clock)
        self.wheel = Wheel(
            ping_interval=settings.ping_interval,
            pong_timeout=settings.pong_timeout,
            open_timeout=settings.open_timeout,
            write_timeout=settings.write_timeout,
            loop_lag=counters.event_loop_lag,
            clock=clock,
            call_later=loop.call_later,
            sample=LatencySample(settings.latency_sample, counters.delivery_latency, clock),
        )
        self.listener = Listener(
            blueprint.terms(settings),
            node=self.node,
            sessions=Sessions(service),
            gate=blueprint.gate(settings, counters, service.credentials, service.permissions, clock()),
            wheel=self.wheel,
            recorder=Recorder(),
            turnstile=service.turnstile,
            clock=clock,
        )
        revocations = self.node.revocations
        revocations.on_news = Expulsion(self.listener.connections, revocations.revoked.refuses, loop.call_later).hurry
        self.shedding = Shedding(hub, self.listener.gate, clock=clock, call_later=loop.call_later)
        self.pauses = CollectorPauses(counters.gc_pause)
        self.chores = Chores(
            [self.node.broker.sweep, service.tick, revocations.tick],
            self.node.check_positions,
            self.node.check_suspects,
            loop.call_later,
        )

    def api(self) -> NodeApi:
        """Make the server API of this process alone."""
        settings, service = self._settings, self.service
        return NodeApi(
            self.node,
            service.registry,
            clock=time.monotonic,
            max_channel_length=settings.max_channel_length,
            max_message_size=settings.max_message_size,
            node_id=service.node_id,
            connections=lambda: self.listener.gate.open,
            find=self.listener.find,
        )

    def internal(self) -> Internal:
        """Make the internal port of this process alone."""
        settings = self._settings
        return Internal(
            self.listener,
            blueprint.everywhere(self.api(), self.node, settings),
            time.monotonic,
            api_key=settings.api_key.get_secret_value() if settings.api_key else None,
            on_loopback=settings.internal_is_loopback,
            configuration=configuration.in_force(settings),
        )

    async def reach_broker(self) -> None:
        """Begin to connect to a broker that is somewhere else, and give it a moment, the first time. Idempotent."""
        if isinstance(self.node.broker, Remote) and not self._has_reached_out:
            self._has_reached_out = True
            await self.node.broker.start()

    async def listen(self, port: int | None = None, *, shared: bool = False) -> int:
        """Listen on the public port (or on `port`, which may be `shared` with other processes); return it.

        Raises OSError.
        """
        settings = self._settings
        tls = blueprint.tls(settings)
        self.listener.certificate_expires = blueprint.certificate_expiry(settings)
        await self.reach_broker()
        if self.node.revocations.is_needed:
            await self._learn_what_is_revoked()
        wanted = settings.port if port is None else port
        bound = await self.listener.listen(settings.host, wanted, backlog=settings.backlog, tls=tls, shared=shared)
        self.wheel.start()
        self.pauses.start()
        self.chores.start()
        if settings.brownout:
            self.shedding.start()
        return bound

    async def _learn_what_is_revoked(self) -> None:
        """Know it before the first client is let in; if the broker is away, as soon as it is there."""
        known: asyncio.Future[BrokerError | None] = asyncio.get_running_loop().create_future()
        self.node.revocations.follow(lambda answer: None if known.done() else known.set_result(answer))
        if await known is not None:
            log.warning("the broker is away: which tokens are revoked is not known yet")

    def returns_within(self, takers: float = 1.0) -> float:
        """Return over how many seconds the clients that there are should come back to as many `takers` as workers."""
        settings = self._settings
        return spread_of(
            self.listener.gate.open,
            takers=takers,
            connect_rate=settings.connect_rate,
            goodbye_rate=settings.drain_rate,
        )

    async def until_signalled(self, signals: asyncio.Queue[int]) -> int:
        """Serve; drain at the first signal, stop at the second; return the exit code."""
        first = await signals.get()
        # From here on, before anything is awaited: not ready, and nobody gets in.
        self.listener.stop_accepting()
        self.on_drain()
        log.info("%s: draining %d connections", signal.Signals(first).name, self.listener.gate.open)
        return await self._drain(signals)

    async def _drain(self, signals: asyncio.Queue[int]) -> int:
        settings = self._settings
        # One like this takes its place, or others that have as much room.
        farewell = self.farewell or come_back(Close.GOING_AWAY, "server shutting down, ", self.returns_within())
        drain = asyncio.create_task(self.listener.drain(settings.drain_timeout, settings.drain_rate, farewell))
        second = asyncio.create_task(signals.get())
        await asyncio.wait((drain, second), return_when=asyncio.FIRST_COMPLETED)
        code = DRAINED if drain.done() else CUT_SHORT
        drain.cancel()
        second.cancel()
        for outcome in await asyncio.gather(drain, second, return_exceptions=True):
            if isinstance(outcome, Exception):
                log.error("the drain failed", exc_info=outcome)
                code = CUT_SHORT
        self.listener.abort_all()
        await self.listener.all_dropped()
        self.wheel.stop()
        self.pauses.stop()
        self.chores.stop()
        self.shedding.stop()
        if isinstance(self.node.broker, Remote):
            await self.node.broker.stop()
        log.info("stopped" if code == DRAINED else "stopped before everyone was gone")
        return code

    def _cut(self, owner: object, key: Hashable) -> None:
        assert isinstance(key, Lane)
        self.node.cut(owner, key)


def _service(settings: Settings, node: Node, clock: Callable[[], float]) -> Service:
    credentials, subscription_tokens = blueprint.credentials(settings, node.revocations.revoked.refuses)
    return Service(
        node=node,
        registry=Registry(),
        permissions=Permissions(node.namespaces, settings.personal_channels),
        credentials=credentials,
        subscription_tokens=subscription_tokens,
        clock=clock,
        wall_clock=time.time,
        turnstile=Turnstile(asyncio.get_running_loop().call_soon),
        max_channels=settings.max_channels_per_client,
        max_channel_length=settings.max_channel_length,
        # An SDK counts in whole seconds, and 0 would mean that there are none.
        ping_interval=max(1, math.ceil(settings.ping_interval)),
        version=f"Stentor {__version__}",
        node_id=str(uuid4()),
    )


def _fan_out(subscriptions: Iterable[Subscription], wire: bytes) -> None:
    # text=True only names the slot that broadcast() calls: what is in it takes the wire as it is.
    broadcast(subscriptions, wire, text=True)  # type: ignore[arg-type]


def _evict(owner: object, why: str) -> None:
    assert isinstance(owner, Connection)
    owner.evict(why)


def _drain(owner: object) -> None:
    assert isinstance(owner, Connection)
    owner.flush()


def _declare_gap(owner: object, channel: str) -> None:
    assert isinstance(owner, Connection)
    session = owner.session
    if isinstance(session, CentrifugeSession):
        session.lose_position(channel)


def _say_observed(owner: object) -> None:
    assert isinstance(owner, Connection)
    log.warning("the lag policy would act on %s", owner.address)


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def calm_the_collector() -> None:
    """Keep the garbage collector off what lives for ever, and from looking at everything too often.

    A full collection looks at every object of every connection; what ends here is freed by counting references.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
