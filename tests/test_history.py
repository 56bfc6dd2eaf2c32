"""The recovery rules of a stream: the table of cases that Centrifugo's own tests hold, and the reading of history."""

from __future__ import annotations

import pytest

from server.core.history import History, Position, Recovery, Unrecoverable
from server.core.publication import Publication

EPOCH = "abcd"


def stream(published: int, *, size: int = 10, ttl: float = 60.0) -> History:
    """A stream in which the publications "1", "2", … were made at the time 0."""
    history = History(EPOCH, size, ttl)
    for number in range(1, published + 1):
        history.append(Publication(str(number).encode()), 0.0)
    return history


def offsets(recovery: Recovery) -> list[int]:
    return [publication.offset for publication in recovery.publications]


@pytest.mark.parametrize(
    ("published", "since", "now", "recovered", "missed"),
    [
        pytest.param(0, 0, 0.0, True, [], id="empty stream, from its start"),
        pytest.param(10, 8, 0.0, True, [9, 10], id="two missed"),
        pytest.param(20, 8, 0.0, False, [], id="missed more than is kept"),
        pytest.param(20, 10, 0.0, True, list(range(11, 21)), id="missed exactly what is kept"),
        pytest.param(20, 9, 0.0, False, [], id="missed one more than is kept"),
        pytest.param(10, 108, 0.0, False, [], id="ahead of the stream"),
        pytest.param(10, 10, 0.0, True, [], id="at the top"),
        pytest.param(4, 0, 0.0, True, [1, 2, 3, 4], id="all of a short stream"),
        pytest.param(10, 8, 60.0, False, [], id="expired"),
        pytest.param(10, 10, 60.0, True, [], id="expired, but at the top"),
    ],
)
def test_recovery(published: int, since: int, now: float, recovered: bool, missed: list[int]) -> None:
    recovery = stream(published).recover(Position(since, EPOCH), now)
    assert recovery.recovered is recovered
    assert offsets(recovery) == missed


def test_another_epoch_recovers_nothing() -> None:
    assert stream(10).recover(Position(8, "other"), 0.0) == Recovery(False)
    assert stream(0).recover(Position(0, "other"), 0.0) == Recovery(False)


def test_more_than_may_be_recovered_is_not_recovered_in_part() -> None:
    assert stream(10).recover(Position(7, EPOCH), 0.0, most=2) == Recovery(False)
    assert offsets(stream(10).recover(Position(8, EPOCH), 0.0, most=2)) == [9, 10]


def test_a_late_publication_after_expiry_goes_on_counting() -> None:
    history = stream(3)
    late = history.append(Publication(b"late"), 100.0)
    assert late.offset == 4
    assert offsets(history.recover(Position(3, EPOCH), 100.0)) == [4]
    assert history.recover(Position(2, EPOCH), 100.0) == Recovery(False)


def test_every_publication_puts_off_the_expiry_of_all() -> None:
    history = stream(2)
    history.append(Publication(b"3"), 59.0)
    assert offsets(history.recover(Position(0, EPOCH), 118.0)) == [1, 2, 3]
    assert history.idle_for(118.0) == 59.0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"limit": 2}, [1, 2]),
        ({"limit": 0}, []),
        ({"reverse": True}, [5, 4, 3, 2, 1]),
        ({"reverse": True, "limit": 2}, [5, 4]),
        ({"since": Position(2, EPOCH)}, [3, 4, 5]),
        ({"since": Position(2, ""), "limit": 1}, [3]),
        ({"since": Position(3, EPOCH), "reverse": True}, [2, 1]),
        ({"since": Position(9, EPOCH)}, []),
    ],
)
def test_reading(options: dict[str, object], expected: list[int]) -> None:
    assert [p.offset for p in stream(5).read(0.0, **options)] == expected  # type: ignore[arg-type]


def test_reading_from_another_epoch_is_an_error() -> None:
    with pytest.raises(Unrecoverable):
        stream(5).read(0.0, since=Position(1, "other"))


def test_the_latest_is_what_was_said_last_and_expires_too() -> None:
    history = stream(3)
    latest = history.latest(0.0)
    assert latest is not None
    assert (latest.payload, latest.offset) == (b"3", 3)
    assert history.latest(60.0) is None
    assert stream(0).latest(0.0) is None


def test_clearing_forgets_what_was_said_but_not_where_we_are() -> None:
    history = stream(3)
    history.clear()
    assert history.position == Position(3, EPOCH)
    assert history.recover(Position(2, EPOCH), 0.0) == Recovery(False)
    assert history.recover(Position(3, EPOCH), 0.0) == Recovery(True)
