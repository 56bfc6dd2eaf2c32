"""The laws of hub, outboxes and backlog, whatever happens in whatever order.

A machine subscribes, publishes, stalls, reads, breaks and leaves at random, and holds the real thing against a model
that is written naively: a list of messages per client, nothing joined, nothing shared, nothing indexed. At the end the
checker itself is checked: each of the planted bugs must make it fail.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
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

from server.core import hub as hub_module
from server.core.backlog import Backlog
from server.core.counters import Counters, Drop
from server.core.hub import Hub
from server.core.lag import LagLimits, LagPolicy
from server.core.outbox import Batch, Outbox
from server.core.subscription import Subscription
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


@dataclass(eq=False)
class ModelClient:
    """What one client should have got, should be waiting for, and should have lost."""

    room: int | None  # what its socket takes; below 0: what it has not taken; None: it takes everything
    got: list[Message] = field(default_factory=list)
    queue: list[list[Message]] = field(default_factory=list)  # in the portions in which it was offered
    ears: dict[str, object] = field(default_factory=dict)  # a new token for each subscription
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
    listeners: list[tuple[ModelClient, object]] = field(default_factory=list)
    pending: list[Message] = field(default_factory=list)
    flushing: list[Message] = field(default_factory=list)
    targets: list[tuple[ModelClient, object]] = field(default_factory=list)
    in_line: bool = False
    waits_for_relief: int = 0

    @property
    def is_congested(self) -> bool:
        return sum(len(message.wire) for message in self.pending) >= CONGESTED_BYTES


class Model:
    """The hub as it is described, one message and one client at a time."""

    def __init__(self, limits: LagLimits, budget: int, fanout_slice: int) -> None:
        self.limits = limits
        self.budget = budget
        self.slice = fanout_slice
        self.channels = {name: ModelChannel() for name in CHANNELS}
        self.line: list[str] = []
        self.laggards: list[ModelClient] = []  # in the order in which they fell behind
        self.offered = 0
        self.dropped: Counter[str] = Counter()
        self.observed = 0
        self.relieved = 0

    def subscribe(self, client: ModelClient, name: str) -> None:
        client.ears[name] = token = object()
        self.channels[name].listeners.append((client, token))

    def unsubscribe(self, client: ModelClient, name: str) -> None:
        self.channels[name].listeners.remove((client, client.ears.pop(name)))

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
        room = self.slice
        for _ in range(len(self.line)):
            if room > 0:
                room -= self.advance(self.line.pop(0), room)

    def advance(self, name: str, room: int) -> int:
        channel = self.channels[name]
        if not channel.flushing:
            while channel.pending and (
                not channel.flushing or sum(len(m.wire) for m in (*channel.flushing, channel.pending[0])) <= BATCH_BYTES
            ):
                channel.flushing.append(channel.pending.pop(0))
            channel.targets = list(channel.listeners)
        part, channel.targets = channel.targets[:room], channel.targets[room:]
        for client, token in part:
            if client.ears.get(name) is token:
                self.offer(client, list(channel.flushing))
        self.keep_the_budget()
        for client in [client for client, _ in part if client.must_go] + self.laggards:
            if client.must_go and not client.is_gone:
                self.disconnect(client)
        if channel.targets:
            self.line.append(name)
        else:
            self.finish(name, channel)
        return max(1, len(part))

    def finish(self, name: str, channel: ModelChannel) -> None:
        channel.flushing = []
        if not channel.is_congested:
            self.relieved += channel.waits_for_relief
            channel.waits_for_relief = 0
        if channel.pending:
            self.line.append(name)
        else:
            channel.in_line = False

    def offer(self, client: ModelClient, messages: list[Message]) -> None:
        self.offered += len(messages)
        if client.lags:
            self.queue(client, messages)
        elif client.is_broken:
            self.dropped[Drop.DISCONNECTED] += len(messages)
        else:
            self.write(client, messages)

    def write(self, client: ModelClient, messages: list[Message]) -> None:
        client.got += messages
        if client.room is not None:
            client.room -= sum(len(message.wire) for message in messages)
            if client.lags and client not in self.laggards:
                self.laggards.append(client)

    def is_over(self, client: ModelClient) -> bool:
        return len(client.waiting) > self.limits.messages or client.waiting_bytes > self.limits.bytes

    def queue(self, client: ModelClient, messages: list[Message]) -> None:
        if client.must_go:
            self.dropped[Drop.DISCONNECTED] += len(messages)
        elif not self.limits.enforce:
            client.queue.append(messages)
            if self.is_over(client) and not client.was_observed:
                client.was_observed = True
                self.observed += 1
        else:
            policies: dict[LagPolicy, Callable[[ModelClient, list[Message]], None]] = {
                LagPolicy.DISCONNECT: self.send_away,
                LagPolicy.DROP_OLDEST: self.drop_oldest,
                LagPolicy.DROP_NEWEST: self.drop_newest,
                LagPolicy.CONFLATE: self.conflate,
            }
            policies[self.limits.policy](client, messages)

    def send_away(self, client: ModelClient, messages: list[Message]) -> None:
        client.queue.append(messages)
        if self.is_over(client):
            client.must_go = True
            self.discard(client, Drop.DISCONNECTED)

    def drop_oldest(self, client: ModelClient, messages: list[Message]) -> None:
        client.queue.append(messages)
        while self.is_over(client):
            client.queue[0].pop(0)
            self.dropped[Drop.QUEUE_FULL] += 1
            if not client.queue[0]:
                client.queue.pop(0)

    def drop_newest(self, client: ModelClient, messages: list[Message]) -> None:
        portion: list[Message] = []
        client.queue.append(portion)
        for message in messages:
            portion.append(message)
            if self.is_over(client):
                portion.pop()
                break
        self.dropped[Drop.QUEUE_FULL] += len(messages) - len(portion)
        if not portion:
            client.queue.pop()

    def conflate(self, client: ModelClient, messages: list[Message]) -> None:
        for message in messages:
            stale = [portion for portion in client.queue if portion[0].channel == message.channel]
            self.dropped[Drop.CONFLATED] += len(stale)
            client.queue = [portion for portion in client.queue if portion not in stale]
            client.queue.append([message])
        if self.is_over(client):
            client.queue.pop()
            self.dropped[Drop.QUEUE_FULL] += 1

    def keep_the_budget(self) -> None:
        while sum(client.waiting_bytes for client in self.laggards) > self.budget:
            heaviest = max(self.laggards, key=lambda client: client.waiting_bytes)
            heaviest.must_go = True
            self.discard(heaviest, Drop.BUDGET)

    def discard(self, client: ModelClient, reason: Drop) -> None:
        self.dropped[reason] += len(client.waiting)
        client.queue = []

    def disconnect(self, client: ModelClient) -> None:
        for name in list(client.ears):
            self.unsubscribe(client, name)
        self.discard(client, Drop.DISCONNECTED)
        client.is_gone = True
        if client in self.laggards:
            self.laggards.remove(client)

    def read(self, client: ModelClient, size: int | None, most: int) -> None:
        lagged = client.lags
        client.room = None if size is None else (client.room or 0) + size
        while lagged and client.queue and not client.lags:
            taken: list[Message] = []
            while client.queue and sum(len(message.wire) for message in taken) < most:
                taken += client.queue.pop(0)
            self.write(client, taken)
        if lagged and not client.lags:
            client.was_observed = False
            self.laggards.remove(client)


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

    def __init__(self, hub: Hub, limits: LagLimits, room: int | None, wrongs: list[str]) -> None:
        self.hub = hub
        self.transport = Wire(self, room=room)
        self.transport.wrongs = wrongs
        self.outbox = Outbox(self, limits, hub.backlog)
        self.ears: dict[str, Subscription] = {}
        self.most = 1
        self.paused = False

    def subscribe(self, name: str) -> None:
        self.transport.is_over = False
        self.ears[name] = self.hub.subscribe(name, self.outbox, self.transport.write)
        if self.paused:
            self.ears[name].pause()

    def unsubscribe(self, name: str) -> None:
        self.hub.unsubscribe(self.ears.pop(name))
        self.transport.is_over = not self.ears and not self.outbox.messages

    def pause_writing(self) -> None:
        self.paused = True
        self.hub.backlog.laggards[self.outbox] = None
        for ear in self.ears.values():
            ear.pause()

    def resume_writing(self) -> None:
        self.paused = False
        while self.outbox.messages and not self.paused:
            self.transport.write(self.outbox.take(self.most))
        if not self.paused:
            self.hub.backlog.laggards.pop(self.outbox, None)
            self.outbox.catch_up()
            for ear in self.ears.values():
                ear.resume()

    def leave(self) -> None:
        for name in list(self.ears):
            self.unsubscribe(name)
        self.outbox.discard(Drop.DISCONNECTED)
        self.hub.backlog.laggards.pop(self.outbox, None)
        self.transport.is_over = True


class HubMachine(RuleBasedStateMachine):
    """Does the same to both, and compares."""

    @initialize(
        policy=st.sampled_from(LagPolicy),
        enforce=st.sampled_from([True, True, True, False]),
        bounds=st.sampled_from(BOUNDS),
        fanout_slice=st.sampled_from([1, 1, 2, 4]),
        # How much each of the first clients takes, and on how many channels it listens.
        first=st.lists(st.sampled_from([(0, 1), (0, 3), (10, 1), (None, 2)]), min_size=3, max_size=5),
    )
    def build(
        self,
        policy: LagPolicy,
        enforce: bool,
        bounds: tuple[int, int, int],
        fanout_slice: int,
        first: list[tuple[int | None, int]],
    ) -> None:
        messages, size, budget = bounds
        self.limits = LagLimits(policy, messages=messages, bytes=size, enforce=enforce)
        self.model = Model(self.limits, budget, fanout_slice)
        self.clock = Clock()
        self.loop = Loop(self.clock)
        self.counters = Counters()
        self.wrongs: list[str] = []
        self.hub = Hub(
            self.counters,
            Backlog(self.counters, budget, lambda owner: None),
            fan_out=self.fan_out,
            clock=self.clock,
            call_soon=self.loop.call_soon,
            call_later=self.loop.call_later,
            evict=lambda owner, why: owner.leave(),  # type: ignore[attr-defined]
            report=lambda text: None,
            fanout_slice=fanout_slice,
        )
        self.pairs: list[tuple[Client, ModelClient]] = []
        self.published = 0
        self.relieved = 0
        self.handed_out = 0  # in this turn
        for number, (room, channels) in enumerate(first):
            self.connect(room, CHANNELS[0])
            for name in CHANNELS[1:channels]:
                self.subscribe_or_unsubscribe(number, name)

    def fan_out(self, part: Iterable[Subscription], wire: bytes) -> None:
        subscriptions = list(part)
        self.handed_out += len(subscriptions)
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
    @rule(room=st.sampled_from([None, None, 0, 10, 100]), name=busy)
    def connect(self, room: int | None, name: str) -> None:
        pair = Client(self.hub, self.limits, room, self.wrongs), ModelClient(room)
        self.pairs.append(pair)
        pair[0].subscribe(name)
        self.model.subscribe(pair[1], name)

    @precondition(someone_is_here)
    @rule(number=clients, name=names)
    def subscribe_or_unsubscribe(self, number: int, name: str) -> None:
        client, model = self.pick(number)
        if name in model.ears:
            client.unsubscribe(name)
            self.model.unsubscribe(model, name)
        else:
            client.subscribe(name)
            self.model.subscribe(model, name)

    @rule(
        name=busy,
        sizes=st.sampled_from(BURSTS),
        turns=st.sampled_from([0, 1, 1, 3]),
    )
    def publish(self, name: str, sizes: tuple[int, ...], turns: int) -> None:
        for size in sizes:
            self.published += 1
            self.clock.advance(1.0)
            wire = b"%05d" % self.published + b"." * (size - 5)
            assert self.hub.publish(name, wire) == self.model.publish(Message(name, wire, self.clock.now))
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
            self.handed_out = 0
            self.loop.turn()
            self.model.turn()
            assert self.handed_out <= self.model.slice

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
            client.most = most
            client.transport.drain(size)
            self.model.read(model, size, most)

    @precondition(lambda self: sum(not model.is_gone for _, model in self.pairs) > 2)
    @rule(number=clients, name=busy, turns=st.sampled_from([0, 1]))
    def disconnect(self, number: int, name: str, turns: int) -> None:
        # With a turn, in the middle of a flush.
        if turns:
            self.publish(name, BURSTS[0], turns)
        if self.someone_is_here():
            client, model = self.pick(number)
            client.leave()
            self.model.disconnect(model)

    @precondition(lambda self: self.published > 20 and self.someone_is_here())
    @rule(number=clients)
    def break_the_socket(self, number: int) -> None:
        client, model = self.pick(number)
        if not model.lags:
            client.transport.is_broken = model.is_broken = True

    # What must hold

    @invariant()
    def the_books_balance(self) -> None:
        counters, backlog = self.counters, self.hub.backlog
        assert counters.offered == counters.sent + sum(counters.dropped.values()) + backlog.messages
        assert counters.published == self.published
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

    @invariant()
    def the_limits_hold(self) -> None:
        backlog = self.hub.backlog
        outboxes = [client.outbox for client, _ in self.pairs]
        assert backlog.messages == sum(outbox.messages for outbox in outboxes)
        assert backlog.bytes == sum(outbox.bytes for outbox in outboxes) <= backlog.budget
        assert list(backlog.laggards) == [
            client.outbox for lagging in self.model.laggards for client, model in self.pairs if model is lagging
        ]
        if self.limits.enforce:
            assert all(outbox.messages <= self.limits.messages for outbox in outboxes)
            assert all(outbox.bytes <= self.limits.bytes for outbox in outboxes)

    @invariant()
    def who_listens_is_known(self) -> None:
        assert self.hub.subscriptions == sum(len(model.ears) for _, model in self.pairs)
        listening = {name for name, channel in self.model.channels.items() if channel.listeners or channel.in_line}
        assert set(self.hub.channels) == listening
        assert self.relieved == self.model.relieved

    def teardown(self) -> None:
        if not hasattr(self, "pairs"):
            return
        while not self.loop.is_idle:
            self.turn(1)
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
    monkeypatch.setattr(hub_module, "MAX_BATCH_BYTES", BATCH_BYTES)
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
    unsubscribe = Hub.unsubscribe

    def forget(hub: Hub, subscription: Subscription) -> None:
        unsubscribe(hub, subscription)
        subscription.channel.departures = 0

    patch.setattr(Hub, "unsubscribe", forget)


def swaps_two_of_a_batch(patch: pytest.MonkeyPatch) -> None:
    build = Batch.__init__

    def swap(batch: Batch, channel: object, frames: list[bytes], accepted: list[float]) -> None:
        if len(frames) > 2:
            frames = [*frames[:-2], frames[-1], frames[-2]]
        build(batch, channel, frames, accepted)

    patch.setattr(Batch, "__init__", swap)


def loses_one_of_a_batch(patch: pytest.MonkeyPatch) -> None:
    build = Batch.__init__

    def lose(batch: Batch, channel: object, frames: list[bytes], accepted: list[float]) -> None:
        build(batch, channel, frames[:3], accepted[:3])

    patch.setattr(Batch, "__init__", lose)


def starts_before_the_last_flush_has_ended(patch: pytest.MonkeyPatch) -> None:
    advance = Hub._advance

    def forget(hub: Hub, channel: Any, room: int) -> int:
        if channel.frames:
            channel.flush = None
        return advance(hub, channel, room)

    patch.setattr(Hub, "_advance", forget)


def queues_the_newest_first(patch: pytest.MonkeyPatch) -> None:
    push = Outbox._push

    def push_in_front(outbox: Outbox, batch: Batch, start: int, stop: int) -> None:
        push(outbox, batch, start, stop)
        assert outbox._entries is not None
        outbox._entries.rotate(1)

    patch.setattr(Outbox, "_push", push_in_front)


def admits_one_message_less(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        Outbox,
        "_is_over",
        lambda outbox: outbox.messages >= outbox.limits.messages or outbox.bytes > outbox.limits.bytes,
    )


def looks_at_no_bytes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Outbox, "_is_over", lambda outbox: outbox.messages > outbox.limits.messages)


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
    patch.setattr(Hub, "_advance", lambda hub, channel, room: advance(hub, channel, 1000))


def relieves_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Hub, "on_relief", lambda hub, name, callback: None)


def forgets_no_channel(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Hub, "_forget_if_idle", lambda hub, channel: None)


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
    writes_through_to_laggards,
    never_writes_through_again,
    never_sends_away,
    has_no_budget,
    sends_the_longest_lagging_away,
    knows_no_slices,
    relieves_nobody,
    forgets_no_channel,
)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_the_checker_finds_a_hub_that(bug: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    hunt = settings(
        RUN, max_examples=1500, derandomize=True, phases=[Phase.generate], report_multiple_bugs=False, print_blob=False
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(HubMachine, settings=hunt)
