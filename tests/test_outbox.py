"""The queue of one client: what goes in comes out once, in order, and is counted."""

from __future__ import annotations

import pytest

from server.core.counters import Drop
from server.core.lag import LagPolicy
from server.core.outbox import Batch, Loss
from tests.publications import MAIN, batch, outbox, sized, take_all


def test_a_batch_of_one_is_its_frame_and_of_more_is_joined_once() -> None:
    frame = b"one"
    assert batch(frame).wire is frame
    assert batch(b"one", b"two").wire == b"onetwo"
    assert len(batch(b"one", b"two")) == 2
    assert type(batch(b"one", b"two").wire) is bytes


def test_what_is_taken_is_the_oldest_and_is_counted_as_sent() -> None:
    box, backlog, counters = outbox(messages=10)
    box.offer(batch(b"aa", b"bb"))
    box.offer(batch(b"cc"))
    box.offer(batch(b"dd"))
    assert box.take(1) == b"aabb", "an entry at least"
    assert (counters.sent, counters.bytes_sent) == (2, 4)
    assert (box.messages, box.bytes, backlog.messages, backlog.bytes) == (2, 4, 2, 4)
    assert box.take(1000) == b"ccdd"
    assert (counters.sent, counters.bytes_sent) == (4, 8)
    assert (box.messages, box.bytes, backlog.messages, backlog.bytes) == (0, 0, 0, 0)


@pytest.mark.parametrize(("most", "taken"), [(1, b"aaaa"), (4, b"aaaa"), (5, b"aaaabbbb"), (8, b"aaaabbbb")])
def test_no_entry_is_begun_beyond_what_was_asked_for(most: int, taken: bytes) -> None:
    box, _, _ = outbox()
    for frame in sized(4, 4, 4):
        box.offer(batch(frame))
    assert box.take(most) == taken


def test_one_entry_alone_is_handed_over_uncopied() -> None:
    box, _, _ = outbox()
    shared = batch(b"aa", b"bb")
    box.offer(shared)
    assert box.take(1) is shared.wire


def test_two_laggards_share_a_batch_and_none_sees_what_the_other_lost() -> None:
    one, backlog, _ = outbox(LagPolicy.DROP_OLDEST, messages=2)
    other, _, _ = outbox(LagPolicy.DROP_NEWEST, messages=2, backlog=backlog)
    third, _, _ = outbox(LagPolicy.DISCONNECT, messages=3, backlog=backlog)
    shared = batch(b"a", b"b", b"c")
    for box in (one, other, third):
        box.offer(shared)
    assert (take_all(one), take_all(other), take_all(third)) == (b"bc", b"ab", b"abc")
    assert shared.frames == [b"a", b"b", b"c"]


def test_the_age_is_that_of_the_oldest_that_still_waits() -> None:
    box, _, _ = outbox(LagPolicy.DROP_OLDEST, messages=3)
    assert box.oldest is None
    box.offer(batch(b"a", b"b", at=10.0))
    assert box.oldest == 10.0
    box.offer(batch(b"c", b"d", at=20.0))
    assert box.oldest == 11.0, "the first of its batch was dropped"
    box.take(1)
    assert box.oldest == 20.0
    box.take(1)
    assert box.oldest is None


def test_what_is_discarded_is_dropped_for_the_reason_given_and_remembered() -> None:
    box, backlog, counters = outbox()
    box.offer(batch(b"aa", b"bb", at=7.0))
    box.discard(Drop.DISCONNECTED)
    assert box.lost == Loss(messages=2, bytes=4, oldest=7.0)
    assert counters.dropped[Drop.DISCONNECTED] == 2
    assert (box.messages, box.bytes, box.oldest, backlog.messages, backlog.bytes) == (0, 0, None, 0, 0)
    box.discard(Drop.BUDGET)
    assert counters.dropped[Drop.BUDGET] == 0, "there was nothing left"
    assert box.lost == Loss(2, 4, 7.0)


def test_what_overflowed_is_remembered_too() -> None:
    box, _, _ = outbox(LagPolicy.DISCONNECT, messages=2)
    box.offer(batch(b"aa", at=3.0))
    box.offer(batch(b"bb", b"cc", at=4.0))
    assert box.lost == Loss(messages=3, bytes=6, oldest=3.0)


def test_offers_are_counted_whatever_becomes_of_them() -> None:
    box, backlog, _ = outbox(messages=1)
    for frames in ((b"a",), (b"b", b"c"), (b"d",)):
        box.offer(batch(*frames))
    assert backlog.offers == 3


def test_nothing_may_be_taken_from_an_empty_one() -> None:
    box, _, _ = outbox()
    with pytest.raises(AssertionError, match="nothing waits"):
        box.take(1)


def test_a_client_that_keeps_up_holds_no_queue_at_all() -> None:
    box, _, _ = outbox()
    assert box._entries is None
    box.offer(batch(b"a"))
    with pytest.raises(AssertionError, match="has taken all"):
        box.catch_up()
    box.take(1)
    box.catch_up()
    assert box._entries is None


def test_a_batch_made_of_nothing_is_nobody_s() -> None:
    empty = Batch(MAIN, [], [])
    assert (len(empty), empty.wire) == (0, b"")
