"""What each lag policy does with each kind of too much: of one channel, of several, and of streams."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from server.core.counters import Drop
from server.core.lag import LagLimits, LagPolicy
from tests.publications import batch, channel, outbox, sized, take_all


class Case(NamedTuple):
    """Batches offered one after the other to an outbox of 4 messages and 100 bytes, and what comes of it."""

    policy: LagPolicy
    batches: list[list[bytes]]
    kept: bytes
    dropped: dict[Drop, int]
    goes: bool = False  # the client must be disconnected


D, OLD, NEW, CONFLATE = LagPolicy.DISCONNECT, LagPolicy.DROP_OLDEST, LagPolicy.DROP_NEWEST, LagPolicy.CONFLATE
a, b, c, d, e, f = (bytes([letter]) * 10 for letter in b"abcdef")
HUGE = b"h" * 101

CASES = {
    # Within the limits nobody loses anything, but for conflation, which keeps the latest alone.
    "disconnect, fits": Case(D, [[a, b], [c, d]], a + b + c + d, {}),
    "oldest, fits": Case(OLD, [[a, b], [c, d]], a + b + c + d, {}),
    "newest, fits": Case(NEW, [[a, b], [c, d]], a + b + c + d, {}),
    "conflate, fits": Case(CONFLATE, [[a, b], [c, d]], d, {Drop.CONFLATED: 3}),
    # One message too many.
    "disconnect, a message over": Case(D, [[a, b, c, d], [e]], b"", {Drop.DISCONNECTED: 5}, goes=True),
    "oldest, a message over": Case(OLD, [[a, b, c, d], [e]], b + c + d + e, {Drop.QUEUE_FULL: 1}),
    "newest, a message over": Case(NEW, [[a, b, c, d], [e]], a + b + c + d, {Drop.QUEUE_FULL: 1}),
    # One byte too many, with messages to spare.
    "disconnect, a byte over": Case(D, [sized(50), sized(51)], b"", {Drop.DISCONNECTED: 2}, goes=True),
    "oldest, a byte over": Case(OLD, [sized(50, 50), sized(1)], b"b" * 50 + b"a", {Drop.QUEUE_FULL: 1}),
    "newest, a byte over": Case(NEW, [sized(50, 50), sized(1)], b"a" * 50 + b"b" * 50, {Drop.QUEUE_FULL: 1}),
    "full to the byte": Case(D, [sized(50, 50)], b"a" * 50 + b"b" * 50, {}),
    # A batch that is larger than the whole queue.
    "disconnect, a batch too large": Case(D, [[a, b, c, d, e, f]], b"", {Drop.DISCONNECTED: 6}, goes=True),
    "oldest, a batch too large": Case(OLD, [[a, b, c, d, e, f]], c + d + e + f, {Drop.QUEUE_FULL: 2}),
    "newest, a batch too large": Case(NEW, [[a, b, c, d, e, f]], a + b + c + d, {Drop.QUEUE_FULL: 2}),
    "conflate, a batch too large": Case(CONFLATE, [[a, b, c, d, e, f]], f, {Drop.CONFLATED: 5}),
    # One frame that is larger than the whole queue.
    "disconnect, a frame too large": Case(D, [[a], [HUGE]], b"", {Drop.DISCONNECTED: 2}, goes=True),
    "oldest, a frame too large": Case(OLD, [[a], [HUGE]], b"", {Drop.QUEUE_FULL: 2}),
    "oldest, a frame too large, then more": Case(OLD, [[a], [HUGE, b]], b, {Drop.QUEUE_FULL: 2}),
    "newest, a frame too large": Case(NEW, [[a], [HUGE], [b]], a + b, {Drop.QUEUE_FULL: 1}),
    "newest keeps no later frame of the batch": Case(NEW, [[a, HUGE, b]], a, {Drop.QUEUE_FULL: 2}),
    "conflate, a frame too large": Case(CONFLATE, [[HUGE]], b"", {Drop.QUEUE_FULL: 1}),
    # Once thrown out, a client is offered nothing that counts otherwise.
    "disconnect, offered afterwards": Case(D, [[HUGE], [a, b], [c]], b"", {Drop.DISCONNECTED: 4}, goes=True),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_policy(case: Case) -> None:
    box, backlog, counters = outbox()
    main = channel(policy=case.policy)
    for frames in case.batches:
        box.offer(batch(*frames, channel=main))
        assert box.messages <= 4
        assert box.bytes <= 100
        assert (backlog.messages, backlog.bytes) == (box.messages, box.bytes)
    assert counters.dropped == dict.fromkeys(Drop, 0) | case.dropped
    assert box.overflowed is case.goes
    assert backlog.take_evictions() == ([(box, "queue full")] if case.goes else [])
    assert box.bytes == len(case.kept)
    assert take_all(box) == case.kept
    assert counters.sent == sum(map(len, case.batches)) - sum(case.dropped.values())


def test_conflation_keeps_the_latest_of_each_channel() -> None:
    box, _, counters = outbox()
    main = channel("main", CONFLATE)
    other = channel("other", lag=main.terms.lag)
    box.offer(batch(a, channel=main))
    box.offer(batch(b, channel=other))
    box.offer(batch(c, d, channel=main))
    assert take_all(box) == b + d, "each where its publication came"
    assert counters.dropped[Drop.CONFLATED] == 2


def test_conflation_of_more_channels_than_fit_drops_the_newest() -> None:
    box, _, counters = outbox()
    limits = LagLimits(CONFLATE, messages=2, bytes=100)
    for number, frame in enumerate((a, b, c)):
        box.offer(batch(frame, channel=channel(number, lag=limits)))
    assert counters.dropped[Drop.QUEUE_FULL] == 1
    assert take_all(box) == a + b


@pytest.mark.parametrize("policy", LagPolicy)
def test_a_policy_that_is_only_observed_drops_nothing_and_says_so_once_in_a_spell(policy: LagPolicy) -> None:
    box, backlog, counters = outbox()
    main = channel(policy=policy, messages=2, enforce=False)
    for frames in ([a, b], [c], [HUGE], [d]):
        box.offer(batch(*frames, channel=main))
    assert counters.observed == 1
    assert not box.overflowed
    assert take_all(box) == a + b + c + HUGE + d
    assert sum(counters.dropped.values()) == 0
    box.catch_up()
    box.offer(batch(a, b, channel=main))
    assert counters.observed == 1, "within the limits"
    box.offer(batch(c, channel=main))
    assert counters.observed == 2
    assert backlog.take_evictions() == []


def test_conflation_keeps_the_latest_of_each_key() -> None:
    box, _, counters = outbox()
    main = channel(policy=CONFLATE)
    box.offer(batch(a, b, channel=main, keys=("x", "y")))
    box.offer(batch(c, d, channel=main, keys=("x", "x")))
    box.offer(batch(e, channel=main))
    assert take_all(box) == b + d + e, "no key is a key too"
    assert counters.dropped[Drop.CONFLATED] == 2


def test_conflation_takes_apart_what_was_gathered() -> None:
    box, _, counters = outbox()
    main = channel(policy=CONFLATE)
    box.gather(batch(a, b, c, channel=main, keys=("x", "y", "x")))
    box.offer(batch(d, channel=main, keys=("y",)))
    assert take_all(box) == c + d
    assert counters.dropped[Drop.CONFLATED] == 2


def test_more_keys_than_fit_drop_the_newest() -> None:
    box, _, counters = outbox()
    main = channel(policy=CONFLATE, messages=2)
    box.offer(batch(a, b, c, d, channel=main, keys=("w", "x", "y", "z")))
    assert take_all(box) == a + b
    assert counters.dropped[Drop.QUEUE_FULL] == 2


@pytest.mark.parametrize(
    ("policy", "kept"),
    [(OLD, b + c + d + e + f), (NEW, a + b + c + d + e)],
)
def test_only_what_is_under_the_same_limits_is_dropped(policy: LagPolicy, kept: bytes) -> None:
    box, _, counters = outbox()
    large, small = channel("large", policy), channel("small", policy, messages=2)
    for where, frame in ((small, a), (large, b), (large, c), (small, d), (large, e), (small, f)):
        box.offer(batch(frame, channel=where))
    assert counters.dropped[Drop.QUEUE_FULL] == 1
    assert take_all(box) == kept


@pytest.mark.parametrize(
    ("policy", "frames", "reason"),
    [
        (OLD, [a, b, c, d, e], Drop.QUEUE_FULL),
        (NEW, [a, b, c, d, e], Drop.QUEUE_FULL),
        (OLD, [HUGE], Drop.QUEUE_FULL),
        (CONFLATE, [a, b], Drop.CONFLATED),
        (CONFLATE, [HUGE], Drop.QUEUE_FULL),
    ],
)
def test_a_stream_that_declares_its_gaps_is_broken_off_whole(
    policy: LagPolicy, frames: list[bytes], reason: Drop
) -> None:
    box, backlog, counters = outbox()
    stream = channel("stream", policy, declares_gaps=True)
    other = channel("other", policy, lag=LagLimits())
    box.offer(batch(b"other", channel=other))
    for frame in frames:
        box.offer(batch(frame, channel=stream))
    assert backlog.take_gaps() == [(box, stream)]
    assert backlog.take_gaps() == []
    assert counters.dropped == dict.fromkeys(Drop, 0) | {reason: len(frames)}
    assert take_all(box) == b"other"


def test_the_oldest_may_be_another_channel_s_stream() -> None:
    box, backlog, counters = outbox()
    stream = channel("stream", OLD, declares_gaps=True)
    plain = channel("plain", lag=stream.terms.lag)
    box.offer(batch(a, b, channel=stream))
    box.offer(batch(c, d, channel=plain))
    box.offer(batch(e, channel=plain))
    assert backlog.take_gaps() == [(box, stream)]
    assert counters.dropped[Drop.QUEUE_FULL] == 2
    assert take_all(box) == c + d + e


def test_conflation_of_different_keys_leaves_a_stream_whole() -> None:
    box, backlog, _ = outbox()
    stream = channel("stream", CONFLATE, declares_gaps=True)
    box.offer(batch(a, b, channel=stream, keys=("x", "y")))
    box.offer(batch(c, channel=stream, keys=("z",)))
    assert backlog.take_gaps() == []
    assert take_all(box) == a + b + c


@pytest.mark.parametrize("policy", LagPolicy)
def test_in_a_brownout_who_lags_is_spared_where_that_is_no_silent_loss(policy: LagPolicy) -> None:
    box, backlog, counters = outbox()
    backlog.shed(spare=True, share=1.0)
    plain = channel("plain", policy)
    for frame in (a, b, c):
        box.offer(batch(frame, channel=plain))
    assert take_all(box) == (a + b + c if policy is D else c)
    assert counters.dropped[Drop.CONFLATED] == (0 if policy is D else 2)
    backlog.shed(spare=False, share=1.0)
    for frame in (a, b, c):
        box.offer(batch(frame, channel=plain))
    assert take_all(box) == (c if policy is CONFLATE else a + b + c)


@pytest.mark.parametrize("policy", LagPolicy)
def test_in_a_brownout_a_stream_is_broken_off_and_the_channels_beside_it_are_not(policy: LagPolicy) -> None:
    box, backlog, _ = outbox()
    stream = channel("stream", policy, declares_gaps=True)
    plain = channel("plain", lag=stream.terms.lag)
    box.offer(batch(a, channel=stream))
    box.offer(batch(b, channel=plain))
    backlog.shed(spare=True, share=1.0)
    assert backlog.take_gaps() == [], "what waits stays until more comes"
    box.offer(batch(HUGE, channel=stream))
    assert backlog.take_gaps() == [(box, stream)]
    assert not box.overflowed
    assert take_all(box) == b


def test_in_a_brownout_a_full_queue_without_a_history_is_still_the_end_where_nothing_may_be_missed() -> None:
    box, backlog, _ = outbox()
    backlog.shed(spare=True, share=1.0)
    box.offer(batch(HUGE, channel=channel(policy=D)))
    assert box.overflowed
    box, backlog, _ = outbox()
    backlog.shed(spare=True, share=1.0)
    observed = channel(policy=OLD, enforce=False)
    for frame in (a, b):
        box.offer(batch(frame, channel=observed))
    assert take_all(box) == a + b, "who only observes loses nothing"


@pytest.mark.parametrize("enforce", [True, False])
def test_neither_disconnection_nor_observation_declares_a_gap(enforce: bool) -> None:
    box, backlog, _ = outbox()
    box.offer(batch(HUGE, channel=channel(policy=D, enforce=enforce, declares_gaps=True)))
    assert backlog.take_gaps() == []
    assert box.overflowed is enforce
