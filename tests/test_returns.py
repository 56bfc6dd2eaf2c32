"""When those come back who were sent or turned away: never faster than they can be taken in."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.core.returns import LATEST, RETURNS_PER_SECOND, SHORTEST_SPREAD, SOONEST, Appointments, spread_of

LAW = settings(derandomize=True, deadline=None, max_examples=100)


@pytest.mark.parametrize(
    ("clients", "options", "seconds"),
    [
        (0, {}, SHORTEST_SPREAD),
        (40, {}, SHORTEST_SPREAD),
        (5000, {}, 10.0),
        (5000, {"takers": 4.0}, 2.5),
        (5000, {"takers": 1.6}, 6.25),
        # connect_rate is each worker's own, and bounds what it takes in, but does not make it faster.
        (5000, {"connect_rate": 100.0}, 50.0),
        (5000, {"connect_rate": 100.0, "takers": 2.0}, 25.0),
        (5000, {"connect_rate": 10_000.0}, 10.0),
        # Goodbyes that are spread already need no second spread, unless they are said faster than clients are taken in.
        (5000, {"goodbye_rate": 100.0}, SHORTEST_SPREAD),
        (5000, {"goodbye_rate": RETURNS_PER_SECOND}, SHORTEST_SPREAD),
        (5000, {"goodbye_rate": 2 * RETURNS_PER_SECOND}, 10.0),
        (5000, {"goodbye_rate": 2 * RETURNS_PER_SECOND, "takers": 2.0}, SHORTEST_SPREAD),
    ],
)
def test_so_many_come_back_over_so_many_seconds(clients: int, options: dict[str, float], seconds: float) -> None:
    assert spread_of(clients, **options) == seconds


def test_the_documents_say_the_same() -> None:
    """The table of docs/storms.md, and the nodes that are stopped in docs/scaling.md."""
    docs = Path(__file__).parent.parent / "docs"
    storms, scaling = (docs / "storms.md").read_text(), (docs / "scaling.md").read_text()
    rows = re.findall(r"^\| (?:up to )?([\d,]+) \| ([\d.]+) s \|$", storms, re.MULTILINE)
    rows += re.findall(r"stopped.*: 7 . ([\d,]+) clients \| ([\d.]+) s \|", scaling)
    assert len(rows) == 5
    for clients, seconds in rows:
        assert spread_of(int(clients.replace(",", ""))) == pytest.approx(float(seconds), rel=0.01)
    for text in (storms, scaling):
        assert f" {RETURNS_PER_SECOND:.0f} " in text


@LAW
@given(st.integers(0, 10**6), st.floats(1, 100), st.floats(0, 5000))
def test_no_more_come_a_second_than_are_taken_in(clients: int, takers: float, connect_rate: float) -> None:
    rate = takers * min(connect_rate or RETURNS_PER_SECOND, RETURNS_PER_SECOND)
    within = spread_of(clients, takers=takers, connect_rate=connect_rate)
    assert clients / within <= rate * 1.001 or within == SHORTEST_SPREAD >= clients / rate


def test_everyone_who_is_turned_away_gets_a_second_and_only_so_many_the_same() -> None:
    appointments = Appointments(4.0, 100.0)
    assert [appointments.give(100.0) for _ in range(12)] == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]
    assert appointments.give(102.5) == 1, "those of before have come, or are about to"
    assert appointments.give(110.0, soonest=5) == 5
    assert appointments.give(110.0, soonest=5) == 5


def test_a_storm_without_end_goes_round() -> None:
    appointments = Appointments(10.0, 100.0)
    given = [appointments.give(100.0) for _ in range(10 * LATEST * 3)]
    assert (min(given), max(given)) == (SOONEST, SOONEST + LATEST - 1)
    assert max(Counter(given).values()) <= 3 * 11


@LAW
@given(st.lists(st.floats(0, 2), max_size=200), st.floats(0.5, 100))
def test_the_seconds_are_never_more_crowded_than_the_rate(gaps: list[float], rate: float) -> None:
    appointments, now = Appointments(rate, 0.0), 0.0
    back: Counter[int] = Counter()
    for gap in gaps[: int(rate * LATEST / 2)]:
        now += gap
        seconds = appointments.give(now)
        assert SOONEST <= seconds <= SOONEST + LATEST
        back[int(now + seconds)] += 1
    # A second of the clock may touch two of the seconds that were told.
    assert max(back.values(), default=0) <= 2 * (rate + 1)
