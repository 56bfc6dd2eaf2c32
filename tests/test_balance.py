"""Who gets the new connections: when that is changed, by whom, and for whom nothing is left."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from server.supervisor.balance import EVERY, Balance
from server.supervisor.worker_link import SILENT_AFTER, State, Unanswered, Worker
from tests.fakes import Clock


class Asked(Worker):
    """A worker that notes what it is asked."""

    def __init__(self, index: int, connections: int, now: float) -> None:
        super().__init__(index, cast(Any, SimpleNamespace(pid=index + 1)), now)
        self.state, self.is_up, self.connections = State.READY, True, connections
        self.asked: list[Any] = []
        self.answers = True

    async def ask(self, what: str, *arguments: Any, within: float) -> Any:
        assert what == "spread"
        if not self.answers:
            raise Unanswered("it is busy")
        self.asked.append(arguments[0])


def balanced(*connections: int) -> tuple[Balance, list[Asked], Clock]:
    clock = Clock(100.0)
    balance = Balance(clock)
    workers = [Asked(index, count, clock.now) for index, count in enumerate(connections)]
    for worker in workers:
        balance.enter(worker)
    return balance, workers, clock


async def test_it_is_looked_at_once_a_second() -> None:
    balance, _, clock = balanced(50, 50)
    assert not balance.is_due
    clock.advance(EVERY)
    assert balance.is_due
    await balance.restore()
    assert not balance.is_due


async def test_the_emptier_gets_more_until_they_are_even_and_nothing_is_said_twice() -> None:
    balance, (full, empty), _ = balanced(100, 0)
    await balance.restore()
    await balance.restore()
    assert full.asked == [[0.0, 1.0]]
    full.connections = empty.connections = 100
    await balance.restore()
    await balance.restore()
    assert full.asked == [[0.0, 1.0], None]
    assert empty.asked == []


async def test_a_new_order_is_told_anew() -> None:
    balance, (one, two), clock = balanced(50, 50)
    await balance.restore()
    assert one.asked == [None]
    balance.leave(two)
    balance.leave(two)
    balance.enter(Asked(1, 50, clock.now))
    await balance.restore()
    assert one.asked == [None, None]


async def test_a_silent_one_gets_nothing_new_and_is_not_asked() -> None:
    balance, (silent, other, third), clock = balanced(10, 10, 10)
    clock.advance(SILENT_AFTER + 0.1)
    other.heard_at = third.heard_at = clock.now
    await balance.restore()
    assert other.asked == [[0.0, 0.5, 0.5]]
    assert silent.asked == []
    third.heard_at = other.heard_at = 0.0
    await balance.restore()
    assert other.asked == [[0.0, 0.5, 0.5]], "nobody is better than the others"


async def test_one_that_leaves_gets_nothing_new_before_it_goes() -> None:
    balance, (leaving, staying), _ = balanced(100, 0)
    leaving.state = State.RETIRING
    await balance.shut_out(leaving)
    assert staying.asked == [[0.0, 1.0]]
    await balance.restore()
    assert staying.asked == [[0.0, 1.0]], "until it has gone"
    balance.leave(leaving)
    await balance.restore()
    assert staying.asked == [[0.0, 1.0], None]
    await balance.shut_out(staying)
    assert staying.asked == [[0.0, 1.0], None], "there is nobody else"


async def test_what_could_not_be_said_is_said_again() -> None:
    balance, (one, two), _ = balanced(100, 0)
    one.answers = False
    await balance.restore()
    one.answers = True
    await balance.restore()
    assert (one.asked, two.asked) == ([[0.0, 1.0]], [])


async def test_that_nobody_answers_is_said_once_until_somebody_does(caplog: pytest.LogCaptureFixture) -> None:
    balance, (one, _), _ = balanced(100, 0)
    for one.answers in (False, False, True, False, False):
        balance._is_set = False
        await balance.restore()
    assert caplog.messages == ["new connections are not spread: it is busy"] * 2


async def test_one_that_is_browned_out_gets_nothing_new_while_another_is_not() -> None:
    balance, (first, second), _ = balanced(50, 50)
    first.brownout = 1
    await balance.restore()
    assert first.asked == [[0.0, 1.0]]
    second.brownout = 2
    await balance.restore()
    assert first.asked == [[0.0, 1.0]], "nobody is better than the other"
    first.brownout = second.brownout = 0
    await balance.restore()
    assert first.asked == [[0.0, 1.0], None]


def test_those_who_take_the_clients_of_one_that_goes_are_counted_by_their_parts() -> None:
    assert balanced()[0].takers == 1.0
    assert balanced(500)[0].takers == 1.0
    assert balanced(500, 500, 500)[0].takers == 3.0
    assert balanced(500, 0)[0].takers == 1.0, "the new one gets them all"
    assert balanced(500, 0, 0)[0].takers == 2.0
    assert balanced(5, 0)[0].takers == 2.0, "too few to tell"
