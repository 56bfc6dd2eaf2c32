"""The laws of hub, outboxes and backlog, whatever happens in whatever order.

A machine subscribes, publishes, stalls, reads, breaks and leaves at random, and holds the real thing against a model
that is written naively: a list of messages per client, nothing joined, nothing shared, nothing indexed. At the end the
checker itself is checked: each of the planted bugs must make it fail.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from server.core import channel as channel_module
from server.core import hub as hub_module
from server.core import outbox as outbox_module
from server.core.backlog import Backlog
from server.core.batch import Batch, Entry
from server.core.channel import Channel
from server.core.counters import Counters, Drop
from server.core.hub import Hub
from server.core.lag import ChannelTerms, LagLimits, LagPolicy
from server.core.outbox import Outbox
from server.core.subscription import CLOSED, Subscription
from tests.fakes import Clock, Loop, Transport
from tests.house import fan_out

# Small, so that a few messages are many.
BATCH_BYTES: Final = 200
CONGESTED_BYTES: Final = 400
CHANNELS: Final = ("news", "sport", "weather")
BURSTS: Final = ((6,), (60,), (20, 6), (150, 6), (250,), (60, 20, 6), (60, 60, 60), (6, 20, 6, 20, 6))  # sizes
MOST_CLIENTS: Final = 7
# Messages and bytes for one client, bytes for all. Mostly one bound alone, so that no other one hides it.
FREE: Final = 1 << 20
BOUNDS: Final = (
    (1, FREE, FREE),
    (3, FREE, FREE),
    (FREE, 70, FREE),
    (FREE, 300, FREE),
    (FREE, FREE, 100),
    (FREE, FREE, 200),
    (FREE, FREE, 300),
    (5, 200, 400),
)


# The model


class Message(NamedTuple):
    channel: str
    wire: bytes
    at: float
    key: str | None


@dataclass(eq=False)
class ModelEar:
    """A client on a channel: what it must not hear of what was published before, and if it gathers what it hears."""

    client: ModelClient
    skips: list[Message]
    collects: bool


@dataclass(eq=False)
class ModelClient:
    """What one client should have got, should be waiting for, and should have lost."""

    room: int | None  # what its socket takes; below 0: what it has not taken; None: it takes everything
    most: int = 1  # what it takes of its queue at a time
    got: list[Message] = field(default_factory=list)
    queue: list[list[Message]] = field(default_factory=list)  # in the portions in which it was offered
    ears: dict[str, ModelEar] = field(default_factory=dict)
    broken_off: list[str] = field(default_factory=list)
    gathers: bool = False
    has_gathered: bool = False  # there is something in the queue that no policy has seen
    is_dirty: bool = False
    is_broken: bool = False
    is_gone: bool = False
    must_go: bool = False
    was_observed: bool = False

    @property
    def lags(self) -> bool:
        return self.room is not None and self.room < 0

    @property
    def waiting(self) -> list[Message]:
        return [message for portion in self.queue for message in portion]

    @property
    def waiting_bytes(self) -> int:
        return sum(len(message.wire) for message in self.waiting)


@dataclass(eq=False)
class ModelChannel:
    terms: ChannelTerms
    listeners: list[ModelEar] = field(default_factory=list)
    pending: list[Message] = field(default_factory=list)
    flushing: list[Message] = field(default_factory=list)
    legs: list[list[tuple[ModelEar, list[Message]]]] = field(default_factory=list)
    in_line: bool = False
    waits_for_relief: int = 0

    @property
    def is_congested(self) -> bool:
        return sum(len(message.wire) for message in self.pending) >= CONGESTED_BYTES


class Model:
    """The hub as it is described, one message and one client at a time."""

    def __init__(self, terms: dict[str, ChannelTerms], budget: int, fanout_slice: int) -> None:
        self.budget = budget
        self.slice = fanout_slice
        self.channels = {name: ModelChannel(terms[name]) for name in CHANNELS}
        self.line: list[str] = []
        self.laggards: list[ModelClient] = []  # in the order in which they fell behind
        self.dirty: list[ModelClient] = []
        self.offered = 0
        self.dropped: Counter[str] = Counter()
        self.gaps: list[tuple[ModelClient, str]] = []
        self.observed = 0
        self.relieved = 0

    def subscribe(self, client: ModelClient, name: str, *, skips: bool) -> None:
        channel = self.channels[name]
        ear = ModelEar(client, list(channel.pending) if skips else [], client.gathers or bool(client.queue))
        client.ears[name] = ear
        channel.listeners.append(ear)

    def unsubscribe(self, client: ModelClient, name: str) -> None:
        self.channels[name].listeners.remove(client.ears.pop(name))

    def drop_pending(self, client: ModelClient, name: str) -> None:
        self.drop(client, [message for message in client.waiting if message.channel == name], Drop.DISCONNECTED)

    def set_gathering(self, client: ModelClient, *, gathers: bool) -> None:
        client.gathers = gathers
        for ear in client.ears.values():
            ear.collects = gathers or (ear.collects and bool(client.queue))

    def publish(self, message: Message) -> bool:
        channel = self.channels[message.channel]
        if not channel.listeners and not channel.in_line:
            return True
        channel.pending.append(message)
        if not channel.in_line:
            channel.in_line = True
            self.line.append(message.channel)
        return not channel.is_congested

    def wait_for_relief(self, name: str) -> None:
        if self.channels[name].is_congested:
            self.channels[name].waits_for_relief += 1
        else:
            self.relieved += 1

    def turn(self) -> None:
        room = 16.0 * self.slice  # in appends, of which sixteen cost what a write costs
        for _ in range(len(self.line)):
            if room >= 16:
                room -= self.advance(self.line.pop(0), room)
        due, self.dirty = self.dirty[: self.slice], self.dirty[self.slice :]
        for client in due:
            client.is_dirty = False
            if client.queue and not client.lags:
                self.drain(client)
        self.act_on_lag()

    def begin(self, channel: ModelChannel) -> None:
        while channel.pending and (
            not channel.flushing or sum(len(m.wire) for m in (*channel.flushing, channel.pending[0])) <= BATCH_BYTES
        ):
            channel.flushing.append(channel.pending.pop(0))
        parts = [(ear, [m for m in channel.flushing if m not in ear.skips]) for ear in channel.listeners]
        for size in range(len(channel.flushing), 0, -1):
            leg = [(ear, part) for ear, part in parts if len(part) == size]
            channel.legs += [leg] if leg else []

    def advance(self, name: str, room: float) -> float:
        channel = self.channels[name]
        if not channel.flushing:
            self.begin(channel)
        spent = 0
        while channel.legs and room - spent >= 16:
            [leg, *others] = channel.legs
            part: list[tuple[ModelEar, list[Message]]] = []
            for ear, messages in leg:
                is_here = ear.client.ears.get(name) is ear
                spent += 1 if is_here and ear.client.gathers else 16
                if spent > room:
                    spent -= 1 if is_here and ear.client.gathers else 16
                    break
                part.append((ear, messages))
            channel.legs = [leg[len(part) :], *others] if len(part) < len(leg) else others
            # First those who gather.
            for ear, messages in sorted(part, key=lambda one: one[0].client.lags or not one[0].client.gathers):
                if ear.client.ears.get(name) is ear:
                    self.offer(ear, messages)
            self.act_on_lag([ear.client for ear, _ in part])
            if len(part) < len(leg):
                break
        if channel.legs:
            self.line.append(name)
        else:
            self.finish(name, channel)
        return max(16, spent)

    def act_on_lag(self, offered: Sequence[ModelClient] = ()) -> None:
        self.keep_the_budget()
        for client in [*offered, *self.laggards]:
            if client.must_go and not client.is_gone:
                self.disconnect(client)
        for client in offered:
            names, client.broken_off = client.broken_off, []
            for name in names:
                if name in client.ears:
                    self.unsubscribe(client, name)
                    self.gaps.append((client, name))

    def finish(self, name: str, channel: ModelChannel) -> None:
        channel.flushing = []
        if not channel.is_congested:
            self.relieved += channel.waits_for_relief
            channel.waits_for_relief = 0
        if channel.pending:
            self.line.append(name)
        else:
            channel.in_line = False

    def offer(self, ear: ModelEar, messages: list[Message]) -> None:
        client = ear.client
        self.offered += len(messages)
        if client.lags:
            self.queue(client, messages)
        elif client.gathers or (ear.collects and client.queue):
            client.queue.append(list(messages))
            client.has_gathered = True
            if not client.is_dirty:
                client.is_dirty = True
                self.dirty.append(client)
        else:
            ear.collects = False
            if client.is_broken:
                self.dropped[Drop.DISCONNECTED] += len(messages)
            else:
                self.write(client, messages)

    def write(self, client: ModelClient, messages: list[Message]) -> None:
        client.got += messages
        if client.room is not None:
            client.room -= sum(len(message.wire) for message in messages)
            if client.lags and client not in self.laggards:
                self.laggards.append(client)

    def under(self, client: ModelClient, lag: LagLimits) -> list[Message]:
        return [message for message in client.waiting if self.channels[message.channel].terms.lag is lag]

    def is_over(self, client: ModelClient, lag: LagLimits) -> bool:
        waiting = self.under(client, lag)
        return len(waiting) > lag.messages or sum(len(message.wire) for message in waiting) > lag.bytes

    def queue(self, client: ModelClient, messages: list[Message]) -> None:
        lag = self.channels[messages[0].channel].terms.lag
        if client.must_go:
            self.dropped[Drop.DISCONNECTED] += len(messages)
            return
        client.queue.append(list(messages))
        if not lag.enforce:
            if self.is_over(client, lag) and not client.was_observed:
                client.was_observed = True
                self.observed += 1
        elif lag.policy is LagPolicy.DISCONNECT:
            if self.is_over(client, lag):
                client.must_go = True
                self.drop(client, client.waiting, Drop.DISCONNECTED)
        else:
            if lag.policy is LagPolicy.CONFLATE:
                self.conflate(client, messages[0].channel)
            while self.is_over(client, lag):
                oldest = lag.policy is LagPolicy.DROP_OLDEST
                self.lose(client, self.under(client, lag)[0 if oldest else -1], Drop.QUEUE_FULL)

    def conflate(self, client: ModelClient, name: str) -> None:
        latest = {message.key: message for message in client.waiting if message.channel == name}
        stale = [m for m in client.waiting if m.channel == name and latest[m.key] is not m]
        # What loses something is taken apart: the rest of it is read one by one.
        client.queue = [
            part
            for portion in client.queue
            for part in ([[m] for m in portion] if any(m in stale for m in portion) else [portion])
        ]
        for message in stale:
            self.lose(client, message, Drop.CONFLATED)

    def lose(self, client: ModelClient, message: Message, reason: Drop) -> None:
        """Drop a message; all that waits of its channel, if that declares its gaps."""
        if not self.channels[message.channel].terms.declares_gaps:
            self.drop(client, [message], reason)
        else:
            self.drop(client, [other for other in client.waiting if other.channel == message.channel], reason)
            if message.channel not in client.broken_off:
                client.broken_off.append(message.channel)

    def drop(self, client: ModelClient, messages: list[Message], reason: Drop) -> None:
        for portion in client.queue:
            self.dropped[reason] += sum(message in messages for message in portion)
            portion[:] = [message for message in portion if message not in messages]
        client.queue = [portion for portion in client.queue if portion]

    def keep_the_budget(self) -> None:
        while sum(client.waiting_bytes for client in self.laggards) > self.budget:
            heaviest = max(self.laggards, key=lambda client: client.waiting_bytes)
            heaviest.must_go = True
            self.drop(heaviest, heaviest.waiting, Drop.BUDGET)

    def disconnect(self, client: ModelClient) -> None:
        for name in list(client.ears):
            self.unsubscribe(client, name)
        self.drop(client, client.waiting, Drop.DISCONNECTED)
        client.is_gone = True
        if client in self.laggards:
            self.laggards.remove(client)

    def drain(self, client: ModelClient) -> None:
        while client.queue and not client.lags:
            taken: list[Message] = []
            while client.queue and sum(len(message.wire) for message in taken) < client.most:
                taken += client.queue.pop(0)
            self.write(client, taken)

    def read(self, client: ModelClient, size: int | None) -> None:
        lagged = client.lags
        client.room = None if size is None else (client.room or 0) + size
        if lagged and not client.lags:
            self.drain(client)
        if lagged and not client.lags:
            client.was_observed = False
            self.laggards.remove(client)
            for ear in client.ears.values():
                ear.collects = client.gathers


# The real thing


class Wire(Transport):
    """A transport that can break, and that knows when nobody may write to it any more."""

    is_broken = False
    is_over = False
    wrongs: list[str]

    def write(self, data: bytes) -> None:
        if self.is_over:
            # broadcast() would swallow an exception.
            self.wrongs.append("written to a client that is on no channel")
        if self.is_broken:
            raise BrokenPipeError("broken")
        super().write(data)


class Client:
    """A client as the edge has it: flow control between its transport, its subscriptions and its outbox."""

    def __init__(self, hub: Hub, room: int | None, wrongs: list[str]) -> None:
        self.hub = hub
        self.transport = Wire(self, room=room)
        self.transport.wrongs = wrongs
        self.outbox = Outbox(self, hub.backlog)
        self.ears: dict[str, Subscription] = {}
        self.most = 1
        self.paused = False
        self.gathers = False

    def subscribe(self, name: str, terms: ChannelTerms, *, skips: bool) -> None:
        self.transport.is_over = False
        ear = self.hub.subscribe(name, self.outbox, self.transport.write, terms, skips_pending=skips)
        self.ears[name] = ear
        if self.gathers:
            ear.gather()
        if self.paused:
            ear.pause()

    def unsubscribe(self, name: str, *, drops: bool) -> None:
        ear = self.ears.pop(name)
        self.hub.unsubscribe(ear)
        if drops:
            self.hub.drop_pending(ear)
        self.transport.is_over = not self.ears and not self.outbox.messages

    def lose(self, name: str) -> None:
        ear = self.ears.pop(name)
        assert ear.state is CLOSED
        self.transport.is_over = not self.ears and not self.outbox.messages

    def set_gathering(self, *, gathers: bool) -> None:
        self.gathers = gathers
        for ear in self.ears.values():
            if gathers:
                ear.gather()
            else:
                ear.write_through()

    def pause_writing(self) -> None:
        self.paused = True
        self.hub.backlog.laggards[self.outbox] = None
        for ear in self.ears.values():
            ear.pause()

    def flush(self) -> None:
        while self.outbox.messages and not self.paused:
            self.transport.write(self.outbox.take(self.most))

    def resume_writing(self) -> None:
        self.paused = False
        self.flush()
        if not self.paused:
            self.hub.backlog.laggards.pop(self.outbox, None)
            self.outbox.catch_up()
            for ear in self.ears.values():
                ear.resume()

    def leave(self) -> None:
        for name in list(self.ears):
            self.unsubscribe(name, drops=False)
        self.outbox.discard(Drop.DISCONNECTED)
        self.hub.backlog.laggards.pop(self.outbox, None)
        self.transport.is_over = True


class HubMachine(RuleBasedStateMachine):
    """Does the same to both, and compares."""

    @initialize(
        policies=st.tuples(st.sampled_from(LagPolicy), st.sampled_from(LagPolicy)),
        enforce=st.sampled_from([True, True, True, False]),
        bounds=st.sampled_from(BOUNDS),
        # Which limits hold for each of the channels, and which of them declare their gaps.
        mixed=st.sampled_from([(0, 0, 0), (0, 0, 1), (0, 1, 1)]),
        declaring=st.sampled_from([(), (), CHANNELS, CHANNELS[:1], CHANNELS[1:]]),
        fanout_slice=st.sampled_from([1, 1, 2, 4]),
        # How much each of the first clients takes, on how many channels it listens, and if it gathers.
        first=st.lists(
            st.sampled_from(
                [(0, 1, False), (0, 3, True), (0, 2, False), (10, 1, True), (None, 2, True), (60, 3, True)]
            ),
            min_size=3,
            max_size=5,
        ),
    )
    def build(
        self,
        policies: tuple[LagPolicy, LagPolicy],
        enforce: bool,
        bounds: tuple[int, int, int],
        mixed: tuple[int, int, int],
        declaring: tuple[str, ...],
        fanout_slice: int,
        first: list[tuple[int | None, int, bool]],
    ) -> None:
        messages, size, budget = bounds
        self.limits = [LagLimits(policy, messages=messages, bytes=size, enforce=enforce) for policy in policies]
        self.terms = {
            name: ChannelTerms(self.limits[number], declares_gaps=name in declaring)
            for name, number in zip(CHANNELS, mixed, strict=True)
        }
        self.model = Model(self.terms, budget, fanout_slice)
        self.clock = Clock()
        self.loop = Loop(self.clock)
        self.counters = Counters()
        self.wrongs: list[str] = []
        self.gaps: list[tuple[object, object]] = []
        self.hub = Hub(
            self.counters,
            Backlog(self.counters, budget, lambda owner: None),
            fan_out=self.fan_out,
            clock=self.clock,
            call_soon=self.loop.call_soon,
            call_later=self.loop.call_later,
            evict=lambda owner, why: owner.leave(),  # type: ignore[attr-defined]
            drain=self.drain,
            gap=self.lose,
            report=lambda text: None,
            fanout_slice=fanout_slice,
        )
        self.pairs: list[tuple[Client, ModelClient]] = []
        self.published = 0
        self.relieved = 0
        self.written = self.drained = 0  # in this turn
        for number, (room, channels, gathers) in enumerate(first):
            self.connect(room, CHANNELS[0], gathers)
            for name in CHANNELS[1:channels]:
                self.subscribe_or_unsubscribe(number, name, skips=False, drops=False)

    def drain(self, owner: object) -> None:
        assert isinstance(owner, Client)
        self.drained += 1
        owner.flush()

    def lose(self, owner: object, key: object) -> None:
        assert isinstance(owner, Client)
        assert isinstance(key, str)
        owner.lose(key)
        self.gaps.append((owner, key))

    def fan_out(self, part: Iterable[Subscription], wire: bytes) -> None:
        subscriptions = list(part)
        self.written += sum(not subscription.gathers for subscription in subscriptions)
        fan_out(subscriptions, wire)

    def pick(self, number: int) -> tuple[Client, ModelClient]:
        here = [pair for pair in self.pairs if not pair[1].is_gone]
        return here[number % len(here)]

    def someone_is_here(self) -> bool:
        return any(not model.is_gone for _, model in self.pairs)

    # What may happen

    clients = st.integers(0, MOST_CLIENTS - 1)
    names = st.sampled_from(CHANNELS)
    busy = st.sampled_from([CHANNELS[0], *CHANNELS])

    @precondition(lambda self: sum(not model.is_gone for _, model in self.pairs) < MOST_CLIENTS)
    @rule(room=st.sampled_from([None, None, 0, 10, 100]), name=busy, gathers=st.booleans())
    def connect(self, room: int | None, name: str, gathers: bool) -> None:
        client, model = Client(self.hub, room, self.wrongs), ModelClient(room)
        self.pairs.append((client, model))
        client.gathers = model.gathers = gathers
        client.subscribe(name, self.terms[name], skips=False)
        self.model.subscribe(model, name, skips=False)

    @precondition(someone_is_here)
    @rule(number=clients, name=names, skips=st.sampled_from([True, True, False]), drops=st.booleans())
    def subscribe_or_unsubscribe(self, number: int, name: str, skips: bool, drops: bool) -> None:
        client, model = self.pick(number)
        if name in model.ears:
            client.unsubscribe(name, drops=drops)
            self.model.unsubscribe(model, name)
            if drops:
                self.model.drop_pending(model, name)
        else:
            client.subscribe(name, self.terms[name], skips=skips)
            self.model.subscribe(model, name, skips=skips)

    @precondition(someone_is_here)
    @rule(numbers=st.lists(clients, min_size=1, max_size=2), name=busy, sizes=st.sampled_from(BURSTS))
    def come_while_something_waits(self, numbers: list[int], name: str, sizes: tuple[int, ...]) -> None:
        for number in numbers:
            self.publish(name, sizes, (None,), turns=0)
            client, model = self.pick(number)
            if name in model.ears:
                client.unsubscribe(name, drops=False)
                self.model.unsubscribe(model, name)
            client.subscribe(name, self.terms[name], skips=True)
            self.model.subscribe(model, name, skips=True)
        self.publish(name, BURSTS[0], (None,), turns=1)

    @precondition(someone_is_here)
    @rule(number=clients, gathers=st.booleans())
    def gather_or_write_through(self, number: int, gathers: bool) -> None:
        client, model = self.pick(number)
        if not model.is_broken:
            client.set_gathering(gathers=gathers)
            self.model.set_gathering(model, gathers=gathers)

    @precondition(lambda self: any(model.queue and not model.lags for model in self.model.dirty))
    @rule(turns=st.sampled_from([0, 1]))
    def write_through_before_it_is_drained(self, turns: int) -> None:
        for client, model in self.pairs:
            if model.is_dirty and model.queue and not model.lags:
                client.set_gathering(gathers=False)
                self.model.set_gathering(model, gathers=False)
        self.publish(CHANNELS[0], BURSTS[0], (None,), turns)

    @rule(
        name=busy,
        sizes=st.sampled_from(BURSTS),
        keys=st.sampled_from([(None,), ("a",), (None, "a"), ("a", "b"), ("a", "b", "a")]),
        turns=st.sampled_from([0, 1, 1, 3]),
    )
    def publish(self, name: str, sizes: tuple[int, ...], keys: tuple[str | None, ...], turns: int) -> None:
        for size, key in zip(sizes, keys * len(sizes), strict=False):
            self.published += 1
            self.clock.advance(1.0)
            wire = b"%05d" % self.published + b"." * (size - 5)
            message = Message(name, wire, self.clock.now, key)
            assert self.hub.publish(name, wire, key) == self.model.publish(message)
        self.turn(turns)

    @rule(name=names)
    def wait_for_relief(self, name: str) -> None:
        def relieve() -> None:
            self.relieved += 1

        self.hub.on_relief(name, relieve)
        self.model.wait_for_relief(name)

    @rule(turns=st.sampled_from([1, 2, 10]))
    def turn(self, turns: int) -> None:
        for _ in range(turns):
            self.written = self.drained = 0
            self.loop.turn()
            self.model.turn()
            assert self.written <= self.model.slice
            assert self.drained <= self.model.slice

    @precondition(someone_is_here)
    @rule(number=clients)
    def stall(self, number: int) -> None:
        client, model = self.pick(number)
        if not model.lags:
            client.transport.room = model.room = 0

    @precondition(someone_is_here)
    @rule(number=clients, size=st.sampled_from([1, 10, 70, 300]), most=st.sampled_from([1, 50, 65536]))
    def read(self, number: int, size: int | None, most: int) -> None:
        client, model = self.pick(number)
        if not model.is_broken:
            client.most = model.most = most
            client.transport.drain(size)
            self.model.read(model, size)

    @precondition(lambda self: sum(not model.is_gone for _, model in self.pairs) > 2)
    @rule(number=clients, name=busy, turns=st.sampled_from([0, 1]))
    def disconnect(self, number: int, name: str, turns: int) -> None:
        # With a turn, in the middle of a flush.
        if turns:
            self.publish(name, BURSTS[0], (None,), turns)
        if self.someone_is_here():
            client, model = self.pick(number)
            client.leave()
            self.model.disconnect(model)

    @precondition(lambda self: self.published > 20 and self.someone_is_here())
    @rule(number=clients)
    def break_the_socket(self, number: int) -> None:
        client, model = self.pick(number)
        if not model.lags and not model.gathers and not model.queue:
            client.transport.is_broken = model.is_broken = True

    # What must hold

    @invariant()
    def the_books_balance(self) -> None:
        counters, backlog = self.counters, self.hub.backlog
        assert counters.offered == counters.sent + sum(counters.dropped.values()) + backlog.messages
        assert counters.offered == self.model.offered
        assert counters.dropped == dict.fromkeys(Drop, 0) | dict(self.model.dropped)
        assert counters.observed == self.model.observed
        assert counters.sent == sum(len(model.got) for _, model in self.pairs)
        assert counters.bytes_sent == sum(len(message.wire) for _, model in self.pairs for message in model.got)

    @invariant()
    def every_client_has_what_it_should_in_order(self) -> None:
        assert self.wrongs == []
        for client, model in self.pairs:
            assert b"".join(client.transport.writes) == b"".join(message.wire for message in model.got)
            waiting = model.waiting
            assert client.outbox.messages == len(waiting)
            assert client.outbox.bytes == model.waiting_bytes
            assert client.outbox.oldest == (waiting[0].at if waiting else None)
            assert client.paused == model.lags or model.is_gone
            for name in CHANNELS:
                numbers = [message.wire[:5] for message in model.got if message.channel == name]
                assert all(one < other for one, other in pairwise(numbers))

    @invariant()
    def no_stream_is_broken_in_silence(self) -> None:
        assert self.gaps == [
            (client, name) for lost, name in self.model.gaps for client, model in self.pairs if model is lost
        ]

    @invariant()
    def the_limits_hold(self) -> None:
        backlog = self.hub.backlog
        outboxes = [client.outbox for client, _ in self.pairs]
        assert backlog.messages == sum(outbox.messages for outbox in outboxes)
        assert backlog.bytes == sum(outbox.bytes for outbox in outboxes)
        assert sum(laggard.bytes for laggard in backlog.laggards) <= backlog.budget
        assert list(backlog.laggards) == [
            client.outbox for lagging in self.model.laggards for client, model in self.pairs if model is lagging
        ]
        assert list(backlog.dirty) == [
            client.outbox for dirty in self.model.dirty for client, model in self.pairs if model is dirty
        ]
        for client, model in self.pairs:
            model.has_gathered = model.has_gathered and bool(model.queue)
            for lag in self.limits:
                waiting = self.model.under(model, lag)
                if waiting:
                    held = client.outbox.held(lag)
                    assert (held.messages, held.bytes) == (len(waiting), sum(len(message.wire) for message in waiting))
                assert model.has_gathered or not lag.enforce or not self.model.is_over(model, lag)

    @invariant()
    def who_listens_is_known(self) -> None:
        assert self.hub.subscriptions == sum(len(model.ears) for _, model in self.pairs)
        listening = {name for name, channel in self.model.channels.items() if channel.listeners or channel.in_line}
        assert set(self.hub.channels) == listening
        assert self.relieved == self.model.relieved

    def teardown(self) -> None:
        if not hasattr(self, "pairs"):
            return
        for _ in range(1000):
            if not self.loop.is_idle:
                self.turn(1)
        assert self.loop.is_idle
        for number in range(MOST_CLIENTS):
            if self.someone_is_here():
                self.read(number, None, 1)
        self.the_books_balance()
        self.every_client_has_what_it_should_in_order()
        assert self.hub.backlog.messages == 0


RUN = settings(
    max_examples=80,
    stateful_step_count=40,
    deadline=None,
    derandomize="CI" in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "MAX_BATCH_BYTES", BATCH_BYTES)
    monkeypatch.setattr(hub_module, "CONGESTION_BYTES", CONGESTED_BYTES)


def test_the_laws_hold() -> None:
    run_state_machine_as_test(HubMachine, settings=RUN)


# The checker, checked: bugs of the kinds that such code has

Patch = Callable[[pytest.MonkeyPatch], None]


def sends_uncounted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Backlog, "sent", lambda backlog, messages, size: None)


def drops_uncounted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Backlog, "drop", lambda backlog, reason, messages: None)


def drops_for_another_reason(patch: pytest.MonkeyPatch) -> None:
    drop = Backlog.drop
    patch.setattr(Backlog, "drop", lambda backlog, reason, messages: drop(backlog, Drop.BUDGET, messages))


def writes_to_the_departed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Subscription, "close", lambda subscription: None)


def counts_the_departed_as_offered(patch: pytest.MonkeyPatch) -> None:
    leave = Channel.leave

    def forget(channel: Channel, subscription: Subscription) -> bool:
        was_there = leave(channel, subscription)
        channel.departures = 0
        return was_there

    patch.setattr(Channel, "leave", forget)


def swaps_two_of_a_batch(patch: pytest.MonkeyPatch) -> None:
    build = Batch.__init__

    def swap(batch: Batch, channel: Channel, frames: list[bytes], accepted: list[float], keys: Any = None) -> None:
        if len(frames) > 2:
            frames = [*frames[:-2], frames[-1], frames[-2]]
        build(batch, channel, frames, accepted, keys)

    patch.setattr(Batch, "__init__", swap)


def loses_one_of_a_batch(patch: pytest.MonkeyPatch) -> None:
    build = Batch.__init__

    def lose(batch: Batch, channel: Channel, frames: list[bytes], accepted: list[float], keys: Any = None) -> None:
        build(batch, channel, frames[:3], accepted[:3], keys)

    patch.setattr(Batch, "__init__", lose)


def starts_before_the_last_flush_has_ended(patch: pytest.MonkeyPatch) -> None:
    advance = Hub._advance

    def forget(hub: Hub, channel: Any, room: int) -> int:
        if channel.frames:
            channel.flush = None
        return advance(hub, channel, room)

    patch.setattr(Hub, "_advance", forget)


def queues_the_newest_first(patch: pytest.MonkeyPatch) -> None:
    push = Outbox.push

    def push_in_front(outbox: Outbox, batch: Batch) -> None:
        push(outbox, batch)
        assert outbox._entries is not None
        outbox._entries.rotate(1)

    patch.setattr(Outbox, "push", push_in_front)


def admits_one_message_less(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LagLimits, "admit", lambda lag, messages, size: messages < lag.messages and size <= lag.bytes)


def looks_at_no_bytes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LagLimits, "admit", lambda lag, messages, size: messages <= lag.messages)


def cuts_too_much(patch: pytest.MonkeyPatch) -> None:
    cut = Entry.cut
    patch.setattr(Entry, "cut", lambda entry, end, messages, size: cut(entry, end, messages + 1, size))


def cuts_from_the_other_end(patch: pytest.MonkeyPatch) -> None:
    cut = Entry.cut
    patch.setattr(Entry, "cut", lambda entry, end, messages, size: cut(entry, -1 - end, messages, size))


def writes_through_to_laggards(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Subscription, "pause", lambda subscription: None)


def never_writes_through_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Subscription, "resume", lambda subscription: None)


def never_sends_away(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Backlog, "take_evictions", lambda backlog: [])


def has_no_budget(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Backlog, "enforce_budget", lambda backlog: None)


def sends_the_longest_lagging_away(patch: pytest.MonkeyPatch) -> None:
    def in_order(backlog: Backlog) -> None:
        for outbox in backlog.laggards:
            if backlog.bytes > backlog.budget and not outbox.overflowed:
                outbox.overflowed = True
                outbox.discard(Drop.BUDGET)
                backlog.evictions.append((outbox, "memory budget"))

    patch.setattr(Backlog, "enforce_budget", in_order)


def knows_no_slices(patch: pytest.MonkeyPatch) -> None:
    advance = Hub._advance
    patch.setattr(Hub, "_advance", lambda hub, channel, room: advance(hub, channel, 8000))


def relieves_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Hub, "on_relief", lambda hub, name, callback: None)


def forgets_no_channel(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Hub, "_forget_if_idle", lambda hub, channel: None)


def gathers_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Subscription, "gather", lambda subscription: None)


def never_drains(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Hub, "_drain_gathered", lambda hub: hub.backlog.dirty.clear())


def drains_all_at_once(patch: pytest.MonkeyPatch) -> None:
    drain = Hub._drain_gathered

    def drain_all(hub: Hub) -> None:
        hub._slice, most = 1000, hub._slice
        drain(hub)
        hub._slice = most

    patch.setattr(Hub, "_drain_gathered", drain_all)


def limits_who_keeps_up(patch: pytest.MonkeyPatch) -> None:
    def offer(backlog: Backlog, outboxes: Sequence[Outbox], batch: Batch) -> None:
        for outbox in outboxes:
            outbox.offer(batch)
            backlog.offers -= 1
            backlog.dirty[outbox] = None

    patch.setattr(Backlog, "gather", offer)


def leaves_what_was_gathered_behind_what_comes_later(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Outbox, "_settle", lambda outbox: None)


def forgets_who_has_gathered_already(patch: pytest.MonkeyPatch) -> None:
    gather = Backlog.gather

    def only_once(backlog: Backlog, outboxes: Sequence[Outbox], batch: Batch) -> None:
        gather(backlog, [outbox for outbox in outboxes if not outbox.gathered], batch)

    patch.setattr(Backlog, "gather", only_once)


def overtakes_what_was_gathered(patch: pytest.MonkeyPatch) -> None:
    write_through = Subscription.write_through

    def at_once(subscription: Subscription) -> None:
        write_through(subscription)
        if not subscription.lags:
            subscription.send_text = subscription._write

    patch.setattr(Subscription, "write_through", at_once)


def budgets_what_was_gathered(patch: pytest.MonkeyPatch) -> None:
    def enforce(backlog: Backlog) -> None:
        for outbox in sorted(backlog.laggards, key=lambda laggard: laggard.bytes, reverse=True):
            if backlog.bytes > backlog.budget and not outbox.overflowed:
                outbox.overflowed = True
                outbox.discard(Drop.BUDGET)
                backlog.evictions.append((outbox, "memory budget"))

    patch.setattr(Backlog, "enforce_budget", enforce)


def thinks_an_append_as_dear_as_a_write(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(channel_module, "GATHER", channel_module.WRITE)


def thinks_that_all_writes_are_appends(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(channel_module, "_reach", lambda part, room: (len(part), len(part)))


def knows_no_conflation_keys(patch: pytest.MonkeyPatch) -> None:
    latest = Entry.latest

    def without_keys(entry: Entry, seen: set[Hashable]) -> list[int]:
        keys, entry.batch.keys = entry.batch.keys, None
        try:
            return latest(entry, seen)
        finally:
            entry.batch.keys = keys

    patch.setattr(Entry, "latest", without_keys)


def mixes_up_conflation_keys(patch: pytest.MonkeyPatch) -> None:
    # Those of a batch that is cut in two go with the wrong half.
    take = Channel.take_batch

    def take_batch(channel: Channel) -> Batch:
        keys = channel.keys
        batch = take(channel)
        if channel.frames and keys is not None:
            channel.keys = keys[: len(channel.frames)]
        return batch

    patch.setattr(Channel, "take_batch", take_batch)


def keeps_the_first_of_a_key(patch: pytest.MonkeyPatch) -> None:
    latest = Entry.latest

    def first(entry: Entry, seen: set[Hashable]) -> list[int]:
        return [entry.start] if latest(entry, seen) else []

    patch.setattr(Entry, "latest", first)


def gives_newcomers_what_is_old(patch: pytest.MonkeyPatch) -> None:
    enter = Channel.enter
    patch.setattr(
        Channel, "enter", lambda channel, subscription, skips_pending: enter(channel, subscription, skips_pending=False)
    )


def gives_newcomers_one_too_little(patch: pytest.MonkeyPatch) -> None:
    enter = Channel.enter

    def enter_late(channel: Channel, subscription: Subscription, *, skips_pending: bool) -> None:
        enter(channel, subscription, skips_pending=skips_pending)
        if subscription in channel.newcomers:
            channel.newcomers[subscription] += 1

    patch.setattr(Channel, "enter", enter_late)


def forgets_the_rest_for_newcomers(patch: pytest.MonkeyPatch) -> None:
    legs = Channel.legs
    patch.setattr(Channel, "legs", lambda channel, batch: legs(channel, batch)[:1])


def lets_newcomers_skip_one_batch_only(patch: pytest.MonkeyPatch) -> None:
    legs = Channel.legs

    def forget(channel: Channel, batch: Batch) -> Any:
        try:
            return legs(channel, batch)
        finally:
            channel.newcomers.clear()

    patch.setattr(Channel, "legs", forget)


def breaks_streams_in_silence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Backlog, "take_gaps", lambda backlog: [])


def keeps_a_part_of_a_broken_stream(patch: pytest.MonkeyPatch) -> None:
    discard = Outbox.discard_channel

    def keep_one(outbox: Outbox, channel: Channel, reason: Drop) -> None:
        entries = [entry for entry in outbox._entries or () if entry.batch.channel is channel]
        discard(outbox, channel, reason)
        if len(entries) > 1:
            outbox.push(entries[0].batch.after(entries[0].start))

    patch.setattr(Outbox, "discard_channel", keep_one)


def declares_gaps_where_nothing_is_lost(patch: pytest.MonkeyPatch) -> None:
    push = Outbox.push

    def declare(outbox: Outbox, batch: Batch) -> None:
        push(outbox, batch)
        if outbox in outbox._backlog.laggards and batch.channel.terms.declares_gaps:
            outbox._backlog.gaps[outbox, batch.channel] = None

    patch.setattr(Outbox, "push", declare)


def limits_all_that_waits_alike(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Outbox, "held", lambda outbox, lag: outbox)


def loses_what_other_limits_hold_for(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(outbox_module, "_place", lambda entries, lag, end: end)


def drops_all_when_one_channel_is_left(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Hub, "drop_pending", lambda hub, subscription: subscription.outbox.discard(Drop.DISCONNECTED))


BUGS: Final[tuple[Patch, ...]] = (
    sends_uncounted,
    drops_uncounted,
    drops_for_another_reason,
    writes_to_the_departed,
    counts_the_departed_as_offered,
    swaps_two_of_a_batch,
    loses_one_of_a_batch,
    starts_before_the_last_flush_has_ended,
    queues_the_newest_first,
    admits_one_message_less,
    looks_at_no_bytes,
    cuts_too_much,
    cuts_from_the_other_end,
    writes_through_to_laggards,
    never_writes_through_again,
    never_sends_away,
    has_no_budget,
    sends_the_longest_lagging_away,
    knows_no_slices,
    relieves_nobody,
    forgets_no_channel,
    gathers_nothing,
    never_drains,
    drains_all_at_once,
    limits_who_keeps_up,
    leaves_what_was_gathered_behind_what_comes_later,
    forgets_who_has_gathered_already,
    overtakes_what_was_gathered,
    budgets_what_was_gathered,
    thinks_an_append_as_dear_as_a_write,
    thinks_that_all_writes_are_appends,
    knows_no_conflation_keys,
    mixes_up_conflation_keys,
    keeps_the_first_of_a_key,
    gives_newcomers_what_is_old,
    gives_newcomers_one_too_little,
    forgets_the_rest_for_newcomers,
    lets_newcomers_skip_one_batch_only,
    breaks_streams_in_silence,
    keeps_a_part_of_a_broken_stream,
    declares_gaps_where_nothing_is_lost,
    limits_all_that_waits_alike,
    loses_what_other_limits_hold_for,
    drops_all_when_one_channel_is_left,
)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_the_checker_finds_a_hub_that(bug: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    hunt = settings(
        RUN, max_examples=1500, derandomize=True, phases=[Phase.generate], report_multiple_bugs=False, print_blob=False
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(HubMachine, settings=hunt)
