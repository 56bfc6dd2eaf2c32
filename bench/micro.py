"""What our own code costs, with the kernel left out: nanoseconds per call, best of five."""

from __future__ import annotations

import timeit
from collections.abc import Callable

from websockets.asyncio.server import broadcast
from websockets.frames import Frame, Opcode

from server.core.backlog import Backlog
from server.core.batch import Batch
from server.core.channel import Channel
from server.core.counters import Counters
from server.core.frames import TEXT, encode_frame
from server.core.hub import Hub
from server.core.lag import ChannelTerms, LagLimits, LagPolicy
from server.core.outbox import Outbox
from server.core.subscription import WriteFaults

PAYLOAD = b"x" * 128
CLIENTS = 1000


def _nowhere(*_: object) -> None:
    """A transport that takes everything and a listener that hears nothing."""


class _Loop:
    """Runs what is called soon when it is told to."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def turn(self) -> None:
        due, self.due = self.due, []
        for callback in due:
            callback()


def _hub(loop: _Loop, policy: LagPolicy = LagPolicy.DROP_OLDEST) -> Hub:
    counters = Counters()
    backlog = Backlog(counters, 1 << 40, _nowhere)
    hub = Hub(
        counters,
        backlog,
        fan_out=lambda subscriptions, wire: broadcast(subscriptions, wire, text=True),  # type: ignore[arg-type]
        clock=lambda: 0.0,
        call_soon=loop.due.append,
        call_later=_nowhere,
        evict=_nowhere,
        drain=lambda outbox: outbox.take(1 << 20),  # type: ignore[attr-defined]
        gap=_nowhere,
        report=_nowhere,
    )
    hub._call_soon = lambda callback: loop.due.append(callback)
    terms = ChannelTerms(LagLimits(policy))
    for _ in range(CLIENTS):
        outbox = Outbox(None, backlog)
        outbox.owner = outbox
        hub.subscribe("main", outbox, _nowhere, terms)
    return hub


def _fan_out(publications: int, *, lagging: bool = False, gathering: bool = False) -> Callable[[], None]:
    loop = _Loop()
    hub = _hub(loop)
    frame = encode_frame(TEXT, PAYLOAD)
    if lagging:
        for subscription in hub.subscribers("main"):
            subscription.pause()
    if gathering:
        for subscription in hub.subscribers("main"):
            subscription.gather()

    def once() -> None:
        for _ in range(publications):
            hub.publish("main", frame)
        while loop.due:
            loop.turn()

    return once


def _offer(policy: LagPolicy) -> Callable[[], None]:
    outbox = Outbox(None, Backlog(Counters(), 1 << 40, _nowhere))
    channel = Channel("main", ChannelTerms(LagLimits(policy)), WriteFaults(_nowhere))
    batch = Batch(channel, [encode_frame(TEXT, PAYLOAD)] * 8, [0.0] * 8)
    return lambda: outbox.offer(batch)


def run() -> None:
    """Print the table."""
    rows: list[tuple[str, Callable[[], object], int, int]] = [
        ("encode a frame of 128 B", lambda: encode_frame(TEXT, PAYLOAD), 20_000, 1),
        ("the same by the library", lambda: Frame(Opcode.TEXT, PAYLOAD).serialize(mask=False), 20_000, 1),
        (f"fan-out to {CLIENTS}, per delivery", _fan_out(1), 50, CLIENTS),
        (f"fan-out of 16 to {CLIENTS}, per delivery", _fan_out(16), 50, CLIENTS * 16),
        (f"fan-out to {CLIENTS} that gather, per delivery", _fan_out(1, gathering=True), 50, CLIENTS),
        (f"fan-out to {CLIENTS} laggards, per delivery", _fan_out(1, lagging=True), 50, CLIENTS),
        *[(f"offer 8 messages, {policy}", _offer(policy), 5_000, 1) for policy in list(LagPolicy)[1:]],
    ]
    print("what our code costs (no kernel)")
    for name, call, number, share in rows:
        best = min(timeit.repeat(call, number=number, repeat=5)) / number / share
        print(f"  {name:42}{best * 1e9:>10.0f} ns")
    print()
