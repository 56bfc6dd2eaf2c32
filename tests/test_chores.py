"""What is done now and then is done by the clock, and in the right order."""

from __future__ import annotations

from server.node.chores import PERIOD, Chores
from server.node.node import POSITION_CHECK, SECOND_LOOK
from tests.fakes import Clock, Loop


def chores(loop: Loop, done: list[str]) -> Chores:
    return Chores(
        (lambda: done.append("sweep"), lambda: done.append("tick")),
        check_positions=lambda: done.append("positions"),
        check_suspects=lambda: done.append("suspects"),
        call_later=loop.call_later,
    )


def run(loop: Loop, seconds: int) -> None:
    for _ in range(seconds):
        loop.clock.advance(PERIOD)
        loop.turn()


def test_every_second_all_that_comes_every_second_is_done() -> None:
    loop, done = Loop(Clock()), list[str]()
    chores(loop, done).start()
    assert done == []
    run(loop, 3)
    assert done == ["sweep", "tick"] * 3


def test_positions_are_checked_and_suspects_looked_at_again() -> None:
    loop, done = Loop(Clock()), list[str]()
    chores(loop, done).start()
    seconds: dict[str, list[int]] = {"positions": [], "suspects": []}
    for second in range(1, 86):
        done.clear()
        run(loop, 1)
        for name, at in seconds.items():
            at.extend([second] * done.count(name))
    assert seconds["positions"] == [POSITION_CHECK, 2 * POSITION_CHECK]
    assert seconds["suspects"] == list(range(int(SECOND_LOOK), 86, int(SECOND_LOOK)))


def test_whoever_becomes_a_suspect_is_not_looked_at_again_at_once() -> None:
    loop, done = Loop(Clock()), list[str]()
    chores(loop, done).start()
    run(loop, int(POSITION_CHECK))
    assert done[-2:] == ["suspects", "positions"]


def test_nothing_is_done_after_the_end() -> None:
    loop, done = Loop(Clock()), list[str]()
    at_work = chores(loop, done)
    at_work.start()
    run(loop, 1)
    at_work.stop()
    at_work.stop()
    run(loop, 100)
    assert done == ["sweep", "tick"]
    assert loop.timers == []


def test_a_chore_that_fails_does_not_end_the_others_for_ever() -> None:
    loop, done = Loop(Clock()), list[str]()
    failures = iter([True])

    def fail_once() -> None:
        if next(failures, False):
            raise ValueError("once")

    at_work = Chores((fail_once, lambda: done.append("tick")), list, list, loop.call_later)
    at_work.start()
    for _ in range(2):
        loop.clock.advance(PERIOD)
        try:
            loop.turn()
        except ValueError:
            done.append("failed")
    assert done == ["failed", "tick"]
