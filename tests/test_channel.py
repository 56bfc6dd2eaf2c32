"""Who is on a channel, what waits there, and in which legs it is handed out."""

from __future__ import annotations

import pytest

from server.core import channel as channel_module
from server.core.channel import GATHER, WRITE, Channel, Flush
from server.core.subscription import Subscription
from tests.publications import channel, outbox


def enter(main: Channel, *, skips_pending: bool = False) -> Subscription:
    box, _, _ = outbox()
    subscription = Subscription(main, box, lambda wire: None)
    main.enter(subscription, skips_pending=skips_pending)
    return subscription


def say(main: Channel, *frames: bytes, key: str | None = None) -> None:
    for frame in frames:
        main.add(frame, 0.0, key)


def legs(main: Channel) -> list[tuple[bytes, list[Subscription]]]:
    """Say who gets what of the next batch."""
    return [(batch.wire, targets) for batch, targets in main.legs(main.take_batch())]


def test_a_client_is_on_a_channel_once_and_leaves_it_once() -> None:
    main = channel()
    subscription = enter(main)
    with pytest.raises(AssertionError, match="on a channel once"):
        main.enter(subscription, skips_pending=False)
    assert main.leave(subscription)
    assert not main.leave(subscription)
    assert (main.departures, main.is_idle) == (1, True)


def test_who_left_and_came_back_is_not_put_out_by_its_old_self() -> None:
    main = channel()
    old = enter(main)
    main.leave(old)
    main.enter(Subscription(main, old.outbox, print), skips_pending=False)
    assert not main.leave(old)
    assert len(main.subscriptions) == 1


def test_without_newcomers_there_is_one_leg() -> None:
    main = channel()
    old, late = enter(main), enter(main, skips_pending=True)
    say(main, b"a", b"b")
    mid = enter(main)
    assert legs(main) == [(b"ab", [old, late, mid])]


def test_newcomers_that_skip_the_same_share_a_leg() -> None:
    main = channel()
    say(main, b"a")
    old, one, two = enter(main), enter(main, skips_pending=True), enter(main, skips_pending=True)
    say(main, b"b")
    three = enter(main, skips_pending=True)
    say(main, b"c")
    assert legs(main) == [(b"abc", [old]), (b"bc", [one, two]), (b"c", [three])]
    say(main, b"d")
    assert legs(main) == [(b"d", [old, one, two, three])]


def test_who_came_after_everything_is_in_no_leg() -> None:
    main = channel()
    say(main, b"a")
    enter(main, skips_pending=True)
    flush = Flush(main, 0.0)
    assert (flush.batch.wire, flush.is_through) == (b"a", True)
    assert main.newcomers == {}


def test_what_is_skipped_counts_down_over_partial_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "MAX_BATCH_BYTES", 2)
    main = channel()
    say(main, b"a", b"b", b"c")
    late = enter(main, skips_pending=True)
    say(main, b"d", b"e")
    assert legs(main) == [(b"ab", [])]
    assert legs(main) == [(b"cd", []), (b"d", [late])]
    assert legs(main) == [(b"e", [late])]


def test_a_newcomer_that_leaves_is_forgotten() -> None:
    main = channel()
    say(main, b"a")
    main.leave(enter(main, skips_pending=True))
    assert main.newcomers == {}


def test_keys_are_kept_from_the_first_one_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "MAX_BATCH_BYTES", 3)
    main = channel()
    say(main, b"a", b"b")
    assert main.take_batch().keys is None
    say(main, b"a", b"b")
    say(main, b"c", b"d", key="k")
    say(main, b"e", b"f", b"g", b"h")
    assert main.take_batch().keys == [None, None, "k"]
    assert main.take_batch().keys == ["k", None, None]
    assert main.keys is None, "what is left has none"
    assert main.take_batch().keys is None


def test_a_part_is_as_many_as_there_is_room_for() -> None:
    main = channel()
    ears = [enter(main) for _ in range(5)]
    say(main, b"a")
    flush = Flush(main, 0.0)
    assert flush.take_part(2 * WRITE + 7)[1:] == (ears[:2], 2 * WRITE)
    assert flush.take_part(100 * WRITE)[1:] == (ears[2:], 3 * WRITE)
    assert flush.is_through


def test_gathering_takes_less_room_than_writing() -> None:
    main = channel()
    ears = [enter(main) for _ in range(6)]
    for ear in ears[1:4]:
        ear.gather()
    say(main, b"a")
    flush = Flush(main, 0.0)
    assert flush.take_part(WRITE)[1:] == (ears[:1], WRITE)
    assert flush.take_part(WRITE)[1:] == (ears[1:4], 3 * GATHER)
    assert flush.take_part(100 * WRITE)[1:] == (ears[4:], 2 * WRITE)


def test_a_part_is_of_one_leg() -> None:
    main = channel()
    say(main, b"a")
    old, late = enter(main), enter(main, skips_pending=True)
    say(main, b"b")
    flush = Flush(main, 0.0)
    main_part, rest_part = (flush.take_part(100 * WRITE) for _ in range(2))
    assert (main_part[0].wire, main_part[1]) == (b"ab", [old])
    assert (rest_part[0].wire, rest_part[1]) == (b"b", [late])
