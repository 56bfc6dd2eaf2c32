"""One timeout for many: who came first expires first, and nobody else is looked at."""

from __future__ import annotations

from server.edge.deadlines import Deadlines


def test_who_waited_for_the_timeout_is_expired_once_the_longest_first() -> None:
    deadlines: Deadlines[str] = Deadlines(5.0)
    for second, name in enumerate(("a", "b", "c")):
        deadlines.add(name, float(second))
    assert deadlines.expire(4.999) == []
    assert deadlines.expire(6.0) == ["a", "b"]
    assert deadlines.expire(6.0) == []
    assert (len(deadlines), "c" in deadlines, "a" in deadlines) == (1, True, False)
    assert deadlines.expire(7.0) == ["c"]


def test_a_clock_that_runs_is_not_started_again() -> None:
    deadlines: Deadlines[str] = Deadlines(5.0)
    deadlines.add("a", 0.0)
    deadlines.add("a", 4.0)
    assert deadlines.expire(5.0) == ["a"]


def test_who_did_it_in_time_is_not_expired() -> None:
    deadlines: Deadlines[str] = Deadlines(5.0)
    deadlines.add("a", 0.0)
    deadlines.discard("a")
    deadlines.discard("never added")
    assert deadlines.expire(100.0) == []


def test_who_starts_again_starts_at_the_end_of_the_line() -> None:
    deadlines: Deadlines[str] = Deadlines(5.0)
    deadlines.add("a", 0.0)
    deadlines.add("b", 1.0)
    deadlines.discard("a")
    deadlines.add("a", 2.0)
    assert deadlines.expire(6.0) == ["b"]
    assert deadlines.expire(7.0) == ["a"]


def test_a_pass_costs_what_has_expired() -> None:
    class Waiter:
        looked_at = 0

        def __hash__(self) -> int:
            Waiter.looked_at += 1
            return id(self)

    deadlines: Deadlines[Waiter] = Deadlines(5.0)
    waiters = [Waiter() for _ in range(1000)]
    for second, waiter in enumerate(waiters):
        deadlines.add(waiter, float(second))
    Waiter.looked_at = 0
    assert deadlines.expire(5.0) == waiters[:1]
    assert Waiter.looked_at <= 2
