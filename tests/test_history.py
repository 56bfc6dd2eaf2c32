"""The recovery rules of a stream: the table of cases that Centrifugo's own tests hold, and the reading of history."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from server.core.history import History, Position, Recovery, first_that_fit, judge, judge_cache
from server.core.publication import ClientInfo, Publication

EPOCH = "abcd"


def stream(published: int, *, size: int = 10, ttl: float = 60.0) -> History:
    """A stream in which the publications "1", "2", … were made at the time 0."""
    history = History(EPOCH, size, ttl)
    for number in range(1, published + 1):
        history.append(Publication(str(number).encode()), 0.0)
    return history


def recover(history: History, since: Position, now: float = 0.0, most_bytes: int | None = None) -> Recovery:
    """Do what happens when a client comes back: read what it missed, and judge."""
    return judge(since, history.position, history.read(now, since=since), most_bytes)


def made(*offsets: int) -> list[Publication]:
    """Publications as they may come from any broker, one byte each."""
    return [Publication(b"x", offset=offset) for offset in offsets]


def offsets(recovery: Recovery) -> list[int]:
    return [publication.offset for publication in recovery.publications]


# Recovery of a stream


@pytest.mark.parametrize("epoch", [EPOCH, ""], ids=["its epoch", "no epoch"])
@pytest.mark.parametrize(
    ("published", "since", "now", "recovered", "missed"),
    [
        pytest.param(0, 0, 0.0, True, [], id="empty stream, from its start"),
        pytest.param(10, 8, 0.0, True, [9, 10], id="two missed"),
        pytest.param(20, 8, 0.0, False, [], id="missed more than is kept"),
        pytest.param(20, 10, 0.0, True, list(range(11, 21)), id="missed exactly what is kept"),
        pytest.param(20, 9, 0.0, False, [], id="missed one more than is kept"),
        pytest.param(10, 108, 0.0, False, [], id="ahead of the stream"),
        pytest.param(0, 1, 0.0, False, [], id="ahead of an empty stream"),
        pytest.param(10, 10, 0.0, True, [], id="at the top"),
        pytest.param(4, 0, 0.0, True, [1, 2, 3, 4], id="all of a short stream"),
        pytest.param(10, 8, 60.0, False, [], id="expired"),
        pytest.param(10, 10, 60.0, True, [], id="expired, but at the top"),
    ],
)
def test_recovery(published: int, since: int, now: float, recovered: bool, missed: list[int], epoch: str) -> None:
    recovery = recover(stream(published), Position(since, epoch), now)
    assert recovery.recovered is recovered
    assert offsets(recovery) == missed


def test_another_epoch_recovers_nothing() -> None:
    assert recover(stream(10), Position(8, "other")) == Recovery(False)
    assert recover(stream(10), Position(10, "other")) == Recovery(False)
    assert recover(stream(0), Position(0, "other")) == Recovery(False)


@pytest.mark.parametrize(
    ("since", "top", "answer"),
    [
        pytest.param(8, 12, [9, 10, 12], id="a hole"),
        pytest.param(8, 12, [9, 11, 10, 12], id="out of order"),
        pytest.param(8, 12, [9, 10, 10, 12], id="one twice, another not"),
        pytest.param(8, 12, [10, 11, 12], id="the first is missing"),
        pytest.param(8, 12, [9, 10, 11], id="the last is missing"),
        pytest.param(8, 12, [], id="none"),
        pytest.param(8, 10, [9, 10, 11], id="one above the top"),
        pytest.param(8, 10, [8, 9, 10], id="one that the client has"),
        pytest.param(10, 10, [10], id="at the top, and one more"),
        pytest.param(12, 10, [], id="ahead"),
    ],
)
def test_an_answer_that_does_not_run_from_the_client_to_the_top_recovers_nothing(
    since: int, top: int, answer: list[int]
) -> None:
    assert judge(Position(since, EPOCH), Position(top, EPOCH), made(*answer)) == Recovery(False)


def test_more_than_may_be_recovered_is_not_recovered_in_part() -> None:
    since, top = Position(8, EPOCH), Position(10, EPOCH)
    assert judge(since, top, made(9, 10), most_bytes=1) == Recovery(False)
    assert offsets(judge(since, top, made(9, 10), most_bytes=2)) == [9, 10]
    assert judge(top, top, [], most_bytes=0) == Recovery(True)


def offset_sizes(publications: Iterable[Publication]) -> list[int]:
    """Let each take as many bytes as its offset."""
    return [publication.offset for publication in publications]


def test_publications_take_what_whoever_asks_counts() -> None:
    since, top = Position(8, EPOCH), Position(10, EPOCH)
    assert judge(since, top, made(9, 10), 19, offset_sizes) == Recovery(True, (*made(9, 10),))
    assert judge(since, top, made(9, 10), 18, offset_sizes) == Recovery(False)


@pytest.mark.parametrize(
    ("most_bytes", "fit"), [(0, [1]), (1, [1]), (2, [1]), (3, [1, 2]), (5, [1, 2]), (6, [1, 2, 3]), (99, [1, 2, 3])]
)
def test_the_first_that_fit_are_one_at_least(most_bytes: int, fit: list[int]) -> None:
    found = first_that_fit(made(1, 2, 3), most_bytes, offset_sizes)
    assert [publication.offset for publication in found] == fit
    assert first_that_fit([], most_bytes) == ()


# Recovery of the latest alone


@pytest.mark.parametrize(
    ("since", "top", "latest", "expected"),
    [
        pytest.param(Position(0, ""), 10, 10, Recovery(True, tuple(made(10))), id="a new client"),
        pytest.param(Position(3, EPOCH), 10, 10, Recovery(True, tuple(made(10))), id="a client that missed many"),
        pytest.param(Position(10, EPOCH), 10, 10, Recovery(True), id="at the top"),
        pytest.param(Position(10, ""), 10, 10, Recovery(True, tuple(made(10))), id="at the top of who knows what"),
        pytest.param(Position(10, "other"), 10, 10, Recovery(True, tuple(made(10))), id="another epoch"),
        pytest.param(Position(12, EPOCH), 10, 10, Recovery(True, tuple(made(10))), id="ahead"),
        pytest.param(Position(10, EPOCH), 10, None, Recovery(True), id="at the top, the latest has expired"),
        pytest.param(Position(9, EPOCH), 10, None, Recovery(False), id="the latest has expired"),
        pytest.param(Position(0, EPOCH), 0, None, Recovery(False), id="nothing was ever said"),
        pytest.param(Position(0, ""), 0, None, Recovery(False), id="nothing was ever said to a new client"),
        pytest.param(Position(3, EPOCH), 10, 9, Recovery(False), id="the broker has not got the latest"),
    ],
)
def test_cache_recovery(since: Position, top: int, latest: int | None, expected: Recovery) -> None:
    known = [] if latest is None else made(latest)
    assert judge_cache(since, Position(top, EPOCH), known) == expected


def test_cache_recovery_gives_the_newest_alone() -> None:
    since, top = Position(3, EPOCH), Position(10, EPOCH)
    for answer in (made(8, 9, 10), made(10, 9, 8)):
        assert offsets(judge_cache(since, top, answer)) == [10]
    assert judge_cache(since, top, made(7, 8, 9)) == Recovery(False)


# The stream


def test_a_kept_publication_is_what_was_published_with_its_offset() -> None:
    given = Publication(b"p", True, 0, ClientInfo("u", "c"), {"a": "b"}, 5, True)
    assert all(getattr(given, field) != getattr(Publication(b""), field) for field in names(given) if field != "offset")
    history = stream(2)
    kept = history.append(given, 0.0)
    assert kept.offset == 3
    assert given.offset == 0
    assert all(getattr(kept, field) == getattr(given, field) for field in names(given) if field != "offset")
    assert history.read(0.0)[-1] is kept


def names(publication: Publication) -> tuple[str, ...]:
    """Name what a publication is made of: a field that is added later must not get lost."""
    return type(publication).__match_args__


def test_a_late_publication_after_expiry_goes_on_counting() -> None:
    history = stream(3)
    late = history.append(Publication(b"late"), 100.0)
    assert late.offset == 4
    assert offsets(recover(history, Position(3, EPOCH), 100.0)) == [4]
    assert recover(history, Position(2, EPOCH), 100.0) == Recovery(False)


def test_every_publication_puts_off_the_expiry_of_all() -> None:
    history = stream(3)
    history.append(Publication(b"4"), 59.0)
    assert len(history.read(118.0)) == 4
    assert history.read(119.0) == ()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [3, 4, 5, 6, 7]),
        ({"limit": 2}, [3, 4]),
        ({"limit": 0}, []),
        ({"limit": 9}, [3, 4, 5, 6, 7]),
        ({"reverse": True}, [7, 6, 5, 4, 3]),
        ({"reverse": True, "limit": 2}, [7, 6]),
        ({"since": Position(4, EPOCH)}, [5, 6, 7]),
        ({"since": Position(4, "other"), "limit": 1}, [5]),
        ({"since": Position(0, EPOCH)}, [3, 4, 5, 6, 7]),
        ({"since": Position(2, EPOCH)}, [3, 4, 5, 6, 7]),
        ({"since": Position(7, EPOCH)}, []),
        ({"since": Position(99, EPOCH)}, []),
        ({"since": Position(5, EPOCH), "reverse": True}, [4, 3]),
        ({"since": Position(5, EPOCH), "reverse": True, "limit": 1}, [4]),
        ({"since": Position(8, EPOCH), "reverse": True}, [7, 6, 5, 4, 3]),
        ({"since": Position(99, EPOCH), "reverse": True}, [7, 6, 5, 4, 3]),
        ({"since": Position(3, EPOCH), "reverse": True}, []),
        ({"since": Position(0, EPOCH), "reverse": True}, []),
    ],
)
def test_reading(options: dict[str, object], expected: list[int]) -> None:
    read = stream(7, size=5).read(0.0, **options)  # type: ignore[arg-type]
    assert [(p.offset, p.payload) for p in read] == [(offset, str(offset).encode()) for offset in expected]


def test_reading_what_is_empty() -> None:
    for history in (stream(0), stream(1)):
        history.clear()
        assert history.read(0.0) == history.read(0.0, reverse=True) == ()
        assert (
            history.read(0.0, since=Position(0, EPOCH)) == history.read(0.0, since=Position(1, ""), reverse=True) == ()
        )


def test_clearing_forgets_what_was_said_but_not_where_we_are() -> None:
    history = stream(3)
    history.clear()
    assert history.position == Position(3, EPOCH)
    assert recover(history, Position(2, EPOCH)) == Recovery(False)
    assert recover(history, Position(3, EPOCH)) == Recovery(True)
    assert history.append(Publication(b"4"), 0.0).offset == 4
    assert offsets(recover(history, Position(3, EPOCH))) == [4]


def test_another_retention_is_taken_over() -> None:
    history = stream(10)
    history.retain(3, 60.0, 0.0)
    assert [p.offset for p in history.read(0.0)] == [8, 9, 10]
    history.retain(5, 60.0, 0.0)
    for _ in range(4):
        history.append(Publication(b"x"), 0.0)
    assert [p.offset for p in history.read(0.0)] == [10, 11, 12, 13, 14]
    history.retain(5, 10.0, 0.0)
    assert history.read(10.0) == ()


def test_a_longer_retention_brings_nothing_back() -> None:
    history = stream(3)
    history.retain(10, 1000.0, 60.0)
    assert history.read(60.0) == ()


def test_nothing_is_held_of_what_has_expired() -> None:
    history = stream(3)
    history.forget_old(59.0)
    assert history.kept == 3
    history.forget_old(60.0)
    assert history.kept == 0
    assert stream(20).kept == 10


def test_a_stream_is_idle_since_it_was_last_published_to_or_touched() -> None:
    history = History(EPOCH, 10, 60.0, now=100.0)
    assert history.idle_for(130.0) == 30.0
    history.append(Publication(b"x"), 140.0)
    assert history.idle_for(141.0) == 1.0
    history.touch(150.0)
    assert history.idle_for(151.0) == 1.0
    history.append(Publication(b"x"), 160.0)
    assert history.idle_for(161.0) == 1.0


def test_versions_go_up_within_their_epoch() -> None:
    history = stream(0)
    assert history.advance(5, "a")
    assert not history.advance(5, "a")
    assert not history.advance(4, "a")
    assert not history.advance(5), "without an epoch it is compared with any"
    assert history.advance(6)
    assert history.advance(1, "b"), "another epoch begins anew"
    assert not history.advance(1, "b")


@pytest.mark.parametrize("offset", [2**63 - 1, 2**63, 2**64 - 1])
def test_an_offset_may_be_any_number_of_64_bits(offset: int) -> None:
    since = Position(offset, EPOCH)
    assert stream(4).read(0.0, since=since) == ()
    assert len(stream(4).read(0.0, since=since, reverse=True, limit=2**31 - 1)) == 4


@pytest.mark.parametrize("limit", [2**63 - 1, 2**63, 2**70])
def test_a_limit_may_be_any_number(limit: int) -> None:
    assert len(stream(3).read(0.0, limit=limit)) == 3
    assert len(stream(3).read(0.0, limit=limit, since=Position(1, EPOCH))) == 2


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, [1, 2]),
        ({"since": Position(2, EPOCH)}, [3, 4]),
        ({"reverse": True}, [4, 3]),
        ({"limit": 1}, [1]),
        ({"limit": 0}, []),
    ],
)
def test_no_more_is_read_than_fits(how: dict[str, Any], expected: list[int]) -> None:
    found = stream(4).read(0.0, most_bytes=2, **how)
    assert [publication.offset for publication in found] == expected
