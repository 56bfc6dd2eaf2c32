"""The way in: a few in each turn of the loop, in the order of coming."""

from hypothesis import given
from hypothesis import strategies as st

from server.edge.turnstile import PER_TURN, Turnstile
from tests.fakes import Clock, Loop


def test_who_finds_it_free_goes_through_at_once():
    turnstile = Turnstile(Loop(Clock()).call_soon, per_turn=2)
    assert turnstile.try_pass()
    assert turnstile.try_pass()
    assert not turnstile.try_pass()


def test_there_is_room_again_in_the_next_turn():
    loop = Loop(Clock())
    turnstile = Turnstile(loop.call_soon, per_turn=1)
    assert turnstile.try_pass()
    loop.turn()
    assert turnstile.try_pass()


def test_those_who_wait_go_a_few_in_a_turn_and_before_those_who_come():
    loop, gone = Loop(Clock()), []
    turnstile = Turnstile(loop.call_soon, per_turn=2)
    for who in range(5):
        turnstile.wait(lambda who=who: gone.append(who))
    assert gone == []
    assert not turnstile.try_pass()
    loop.turn()
    assert gone == [0, 1]
    assert not turnstile.try_pass()
    loop.turn()
    assert (gone, len(turnstile)) == ([0, 1, 2, 3], 1)
    loop.turn()
    assert gone == [0, 1, 2, 3, 4]
    assert turnstile.try_pass()


def test_it_turns_no_longer_than_somebody_comes():
    loop = Loop(Clock())
    turnstile = Turnstile(loop.call_soon)
    turnstile.try_pass()
    loop.turn()
    assert loop.is_idle


def test_one_who_stumbles_does_not_stop_the_others():
    loop, gone = Loop(Clock()), []
    turnstile = Turnstile(loop.call_soon, per_turn=1)

    def stumble() -> None:
        raise ZeroDivisionError

    turnstile.wait(stumble)
    turnstile.wait(lambda: gone.append("the next"))
    try:
        loop.turn()
    except ZeroDivisionError:
        pass
    loop.turn()
    assert gone == ["the next"]


@given(st.lists(st.integers(0, 12), max_size=20))
def test_never_more_than_a_few_in_a_turn_and_nobody_is_forgotten(comers: list[int]):
    loop, gone = Loop(Clock()), 0
    turnstile = Turnstile(loop.call_soon)
    in_turn = 0

    def enter() -> None:
        nonlocal in_turn, gone
        in_turn += 1
        gone += 1

    for many in comers:
        for _ in range(many):
            if turnstile.try_pass():
                enter()
            else:
                turnstile.wait(enter)
        assert in_turn <= PER_TURN
        in_turn = 0
        loop.turn()
    while not loop.is_idle:
        assert in_turn <= PER_TURN
        in_turn = 0
        loop.turn()
    assert gone == sum(comers)
