"""The queue of one client: what goes in comes out once, in order, and is counted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from server.core.counters import Drop
from server.core.lag import LagPolicy
from server.core.outbox import Loss, Outbox
from tests.publications import MAIN, batch, channel, outbox, sized, take_all


def test_what_is_taken_is_the_oldest_and_is_counted_as_sent() -> None:
    box, backlog, counters = outbox()
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
    one, backlog, _ = outbox()
    other, _, _ = outbox(backlog=backlog)
    shared = batch(b"a", b"b", b"c", channel=channel(policy=LagPolicy.DROP_OLDEST))
    for box in (one, other):
        box.offer(shared)
    one.offer(batch(b"d", b"e", channel=shared.channel))
    assert (take_all(one), take_all(other)) == (b"bcde", b"abc")
    assert shared.frames == [b"a", b"b", b"c"]


def test_the_age_is_that_of_the_oldest_that_still_waits() -> None:
    box, _, _ = outbox()
    main = channel(policy=LagPolicy.DROP_OLDEST, messages=3)
    assert box.oldest is None
    box.offer(batch(b"a", b"b", channel=main, at=10.0))
    assert box.oldest == 10.0
    box.offer(batch(b"c", b"d", channel=main, at=20.0))
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
    box, _, _ = outbox()
    main = channel(messages=2)
    box.offer(batch(b"aa", channel=main, at=3.0))
    box.offer(batch(b"bb", b"cc", channel=main, at=4.0))
    assert box.lost == Loss(messages=3, bytes=6, oldest=3.0)


def test_offers_are_counted_whatever_becomes_of_them() -> None:
    box, backlog, _ = outbox()
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


def test_nothing_is_left_of_a_queue_that_was_taken_discarded_or_dropped() -> None:
    def by_policy(box: Outbox) -> None:
        box.offer(batch(b"h" * 101, channel=channel(policy=LagPolicy.DROP_OLDEST, messages=0)))

    ends: list[Callable[[Outbox], object]] = [
        lambda box: box.take(1000),
        lambda box: box.discard(Drop.BUDGET),
        lambda box: box.discard_channel(MAIN, Drop.DISCONNECTED),
    ]
    for end in ends:
        box, _, _ = outbox()
        box.offer(batch(b"a"))
        end(box)
        assert (box._entries, box.messages, box.bytes, box.oldest) == (None, 0, 0, None)
    box, _, _ = outbox()
    by_policy(box)
    assert box._entries is None


def test_what_waits_of_one_channel_is_dropped_and_the_rest_stays_in_order() -> None:
    box, backlog, counters = outbox()
    other = channel("other", lag=MAIN.terms.lag)
    for number, where in enumerate((MAIN, other, MAIN, other)):
        box.offer(batch(b"%d" % number, channel=where))
    for _ in range(2):
        box.discard_channel(MAIN, Drop.DISCONNECTED)
        assert counters.dropped[Drop.DISCONNECTED] == 2
        assert (box.messages, box.bytes, backlog.messages) == (2, 2, 2)
    assert box.lost is None, "it is not the end"
    assert take_all(box) == b"13"


def test_what_is_gathered_is_past_all_limits_and_marks_the_outbox_once() -> None:
    box, backlog, counters = outbox()
    for frame in sized(*[60] * 9):
        box.gather(batch(frame))
    assert (box.messages, box.bytes) == (9, 540)
    assert (list(backlog.dirty), backlog.offers) == ([box], 9)
    assert sum(counters.dropped.values()) == 0
    assert len(take_all(box)) == 540


def test_limits_look_at_what_was_gathered_when_more_is_offered() -> None:
    for policy, kept in ((LagPolicy.DROP_OLDEST, b"defg"), (LagPolicy.DROP_NEWEST, b"abcd")):
        box, _, _ = outbox()
        main = channel(policy=policy)
        box.gather(batch(b"a", b"b", b"c", channel=main))
        box.gather(batch(b"d", b"e", b"f", channel=main))
        box.offer(batch(b"g", channel=main))
        assert take_all(box) == kept


def test_who_was_sent_away_gathers_nothing() -> None:
    box, backlog, counters = outbox()
    box.offer(batch(b"h" * 101))
    box.gather(batch(b"a", b"b"))
    assert (box.messages, list(backlog.dirty)) == (0, [])
    assert counters.dropped[Drop.DISCONNECTED] == 3


def test_equal_limits_are_not_the_same_limits() -> None:
    box, _, _ = outbox()
    one, other = channel("one"), channel("other")
    assert one.terms.lag == other.terms.lag
    for where in (one, other):
        box.offer(batch(b"a", b"b", b"c", channel=where))
        held = box.held(where.terms.lag)
        assert (held.messages, held.bytes) == (3, 3)
    assert (box.messages, box.overflowed) == (6, False)
    box.offer(batch(b"d", b"e", channel=one))
    assert box.overflowed


def test_shares_are_forgotten_when_nothing_waits() -> None:
    box, _, _ = outbox()
    box.offer(batch(b"a", channel=channel("one")))
    box.offer(batch(b"b", channel=channel("other")))
    assert take_all(box) == b"ab"
    assert box._shares is None
    box.offer(batch(b"c"))
    assert box.held(MAIN.terms.lag) is box
