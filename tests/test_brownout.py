"""The brown-out: its steps by example and by law, and what gate, hub and log make of them."""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from server.core import backlog
from server.core import brownout as core
from server.core.brownout import HOLD, LOOKS, MARKS, Brownout, Step
from server.core.counters import Drop
from server.core.lag import ChannelTerms, LagLimits, LagPolicy
from server.core.outbox import Outbox
from server.edge.brownout import LOOK, Shedding
from server.edge.gate import Admission
from tests import wire
from tests.fakes import Transport
from tests.house import House, house

LAW = settings(derandomize=True, deadline=None, max_examples=100)
CALM = (0.0, 0.0)

# Two looks a second, so that HOLD is ten of them; loads around all marks and beyond.
Load = tuple[float, float]
lags = st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.3, 0.5, 0.9, 1.0, 2.0, 3.0])
fills = st.sampled_from([0.0, 0.3, 0.49, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 1.0, 2.0])
loads = st.lists(st.tuples(lags, fills), min_size=1, max_size=120)
PACE = 0.5


def steps_of(loads: list[Load], brownout: Brownout | None = None) -> list[Step]:
    """Look at these loads, one after the other; return the step after each."""
    brownout = brownout or Brownout()
    found = []
    for number, (lag, fill) in enumerate(loads):
        before = brownout.step
        assert brownout.look(lag, fill, 1000.0 + number * PACE) is (brownout.step is not before)
        found.append(brownout.step)
    return found


# The steps


@pytest.mark.parametrize("step", MARKS)
def test_each_sign_reaches_each_step_at_its_mark(step: Step) -> None:
    mark = MARKS[step]
    assert steps_of([(0.0, mark.fill - 0.001)])[-1] == step - 1
    assert steps_of([(0.0, mark.fill)])[-1] == step
    assert steps_of([(mark.lag - 0.001, 0.0)] * LOOKS)[-1] == step - 1
    assert steps_of([(mark.lag, 0.0)] * LOOKS)[-1] == step


def test_the_queues_count_at_once_and_a_late_loop_when_most_looks_were_late() -> None:
    assert steps_of([(0.0, 0.0), (0.0, 0.95)]) == [Step.NORMAL, Step.EVICT]
    late = steps_of([(9.0, 0.0)] * LOOKS)
    assert late.index(Step.EVICT) == LOOKS // 2


def test_a_pause_now_and_then_is_none() -> None:
    assert set(steps_of([(5.0, 0.0), *[CALM] * 2] * 40)) == {Step.NORMAL}


def test_it_steps_back_one_by_one_and_waits_each_time() -> None:
    steps = steps_of([(0.0, 0.95), *[CALM] * 60])
    held = int(HOLD / PACE)
    assert steps == [
        *[Step.EVICT] * held, *[Step.CONFLATE] * held, *[Step.BATCH] * held, *[Step.REFUSE] * held,
        *[Step.NORMAL] * (61 - 4 * held),
    ]  # fmt: skip


@pytest.mark.parametrize("between", [(0.0, 0.55), (0.13, 0.0)])
def test_between_the_marks_it_stays(between: Load) -> None:
    steps = steps_of([(0.3, 0.6)] * LOOKS + [between] * 100)
    assert steps[-1] is Step.REFUSE
    assert steps_of([between] * 100)[-1] is Step.NORMAL


def test_one_look_that_is_not_calm_begins_the_wait_anew() -> None:
    almost = [CALM] * (int(HOLD / PACE) - 1)
    steps = steps_of([(0.0, 0.6), *almost, (0.0, 0.55), *almost])
    assert set(steps) == {Step.REFUSE}


def test_evicting_ends_below_what_makes_it_go_on() -> None:
    assert MARKS[Step.EVICT].fill - 0.1 > core.EVICT_TO
    steps = steps_of([(0.0, 0.95), *[(0.0, core.EVICT_TO)] * 60])
    assert steps[-1] is Step.CONFLATE, "and the others stay until who lags reads on"


@LAW
@given(loads)
def test_it_never_swings_within_the_hold(loads: list[Load]) -> None:
    steps = [Step.NORMAL, *steps_of(loads)]
    changes = [(number, after - before) for number, (before, after) in enumerate(pairwise(steps)) if after != before]
    for (at, _), (later, down) in pairwise(changes):
        # Upwards whenever the load asks for it, downwards never sooner than HOLD after any change.
        assert down > 0 or (down == -1 and (later - at) * PACE >= HOLD)


@LAW
@given(loads, st.lists(st.tuples(st.floats(0, 3), st.floats(0, 1)), min_size=120, max_size=120))
def test_more_load_is_never_a_lower_step(loads: list[Load], more: list[Load]) -> None:
    heavier = [(lag + added[0], fill + added[1]) for (lag, fill), added in zip(loads, more, strict=False)]
    assert all(low <= high for low, high in zip(steps_of(loads), steps_of(heavier), strict=True))


@LAW
@given(loads)
def test_it_ends_with_the_load(loads: list[Load]) -> None:
    quiet = LOOKS + 4 * int(HOLD / PACE) + 1
    assert steps_of([*loads, *[CALM] * quiet])[-1] is Step.NORMAL


@LAW
@given(loads)
def test_the_step_is_at_least_what_the_load_asks_for(loads: list[Load]) -> None:
    for step, (_, fill) in zip(steps_of(loads), loads, strict=True):
        assert all(step >= wanted for wanted, mark in MARKS.items() if fill >= mark.fill)


def test_the_laws_see_a_brownout_without_hysteresis(monkeypatch: pytest.MonkeyPatch) -> None:
    law = test_it_never_swings_within_the_hold.hypothesis.inner_test  # type: ignore[attr-defined]
    law([(0.0, 0.6), CALM, CALM])
    monkeypatch.setattr(Brownout, "__init__", without_hold)
    with pytest.raises(AssertionError):
        law([(0.0, 0.6), CALM, CALM])


def without_hold(self: Brownout, hold: float = 0.0, init: Any = Brownout.__init__) -> None:
    init(self, 0.0)


def test_publications_are_gathered_for_twice_as_long_as_the_loop_is_late() -> None:
    brownout = Brownout()
    assert brownout.batch_floor == 0.0
    steps_of([(0.0, 0.7)], brownout)
    assert brownout.batch_floor == core.SHORTEST_BATCH
    steps_of([(0.3, 0.7)] * LOOKS, brownout)
    assert brownout.batch_floor == 0.6
    steps_of([(2.0, 0.7)] * LOOKS, brownout)
    assert brownout.batch_floor == core.LONGEST_BATCH
    assert repr(brownout) == "<Brownout EVICT, lag 2.000 s, queues 70%>"


# At work


def shedding(home: House) -> Shedding:
    return Shedding(home.hub, home.gate, clock=home.clock, call_later=home.loop.call_later)


def stalled(home: House, channel: str = "news") -> Transport:
    """Let a client in that takes nothing."""
    _, transport = home.open(f"/ws/{channel}")
    transport.stall()
    home.publish(channel, b"stuck")
    home.loop.settle()
    return transport


def fill_up(home: House, size: int, channel: str = "news") -> None:
    """Have so many bytes wait for each laggard on a channel, in 10 publications."""
    for _ in range(10):
        home.publish(channel, b"x" * (size // 10))
        home.loop.settle()


def say(home: House, channel: str, frame: bytes) -> None:
    """Publish, and wait for as long as publications are gathered at most."""
    home.hub.publish(home.lane(channel) or channel, frame)
    home.clock.advance(core.LONGEST_BATCH)
    home.loop.turn()
    home.loop.settle()


def admit(home: House) -> Any:
    return home.gate.judge(Request("/ws", Headers([("Host", "chat.example.com")])), "192.0.2.1", home.clock.now)


ROOMY = LagLimits(LagPolicy.DROP_OLDEST, messages=1000, bytes=1 << 20)


def test_newcomers_are_refused_and_told_when_to_ask_again_while_the_others_are_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    home = house(ROOMY, budget=1000)
    shed = shedding(home)
    stalled(home)
    _, reader = home.open("/ws/news")
    fill_up(home, 650)
    shed.look(0.0)
    assert home.gate.brownout == 1
    answer = admit(home)
    assert isinstance(answer, Response)
    assert (answer.status_code, answer.body) == (503, b"The server is overloaded.\n")
    assert answer.headers["Retry-After"] == "5"
    assert home.counters.rejected == {"brownout": 1}
    reader.take()
    home.publish("news", b"served")
    home.loop.settle()
    assert reader.take() == b"served"
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (
            logging.WARNING,
            "brown-out 0 -> 1: newcomers are refused; event loop 0.00 s late, queues at 65 % of node_queue_bytes, "
            "1 lagging, 2 connected",
        )
    ]


def test_what_waits_goes_and_all_is_as_before(caplog: pytest.LogCaptureFixture) -> None:
    home = house(ROOMY, budget=1000)
    shed = shedding(home)
    slow = stalled(home)
    fill_up(home, 850)
    shed.look(0.0)
    assert home.gate.brownout == Step.CONFLATE
    slow.drain()
    for _ in range(200):
        home.clock.advance(LOOK)
        shed.look(0.0)
    assert home.gate.brownout == 0
    assert isinstance(admit(home), Admission)
    assert home.backlog.ceiling == home.backlog.budget
    assert home.hub._batch_floor == 0.0
    assert [record.getMessage()[:16] for record in caplog.records] == [
        "brown-out 0 -> 3", "brown-out 3 -> 2", "brown-out 2 -> 1", "brown-out 1 -> 0",
    ]  # fmt: skip
    assert "over; event loop" in caplog.records[-1].getMessage()


def test_publications_are_gathered_for_longer_and_none_is_lost() -> None:
    home = house(ROOMY, budget=1000)
    shed = shedding(home)
    stalled(home)
    _, reader = home.open("/ws/other")
    fill_up(home, 750)
    shed.look(0.0)
    reader.writes.clear()
    for _ in range(4):
        home.publish("other", b"a")
        home.loop.settle()
        home.clock.advance(core.SHORTEST_BATCH / 5)
        home.loop.turn()
    assert reader.writes == []
    home.clock.advance(core.SHORTEST_BATCH)
    home.loop.turn()
    home.loop.settle()
    assert reader.writes == [b"aaaa"]
    home.assert_balanced()


@pytest.mark.parametrize(
    ("policy", "waiting", "dropped"),
    [
        (LagPolicy.DROP_OLDEST, 1, Drop.CONFLATED),
        (LagPolicy.DROP_NEWEST, 1, Drop.CONFLATED),
        (LagPolicy.DISCONNECT, 11, None),
    ],
)
def test_laggards_get_the_latest_where_their_policy_lets_them_miss_parts(
    policy: LagPolicy, waiting: int, dropped: Drop | None
) -> None:
    home = house(LagLimits(policy, messages=1000, bytes=1 << 20), budget=1000)
    shed = shedding(home)
    stalled(home)
    fill_up(home, 850)
    shed.look(0.0)
    say(home, "news", b"latest")
    assert home.backlog.messages == waiting
    assert [reason for reason, count in home.counters.dropped.items() if count] == ([dropped] if dropped else [])
    home.assert_balanced()


@pytest.mark.parametrize("policy", LagPolicy)
def test_who_lags_on_a_stream_with_a_history_is_told_of_the_gap(policy: LagPolicy) -> None:
    home = house(budget=1000)
    shed = shedding(home)
    lag = LagLimits(policy, messages=1000, bytes=1 << 20)
    _, transport = home.open("/ws/plain")
    connection = next(iter(home.listener.connections))
    assert connection.outbox is not None
    home.hub.subscribe("stream", connection.outbox, transport.write, ChannelTerms(lag, declares_gaps=True)).pause()
    home.backlog.laggards[connection.outbox] = None
    home.hub.publish("stream", b"x" * 850)
    home.loop.settle()
    shed.look(0.0)
    assert home.gaps == []
    say(home, "stream", b"y")
    assert home.gaps == [(connection, "stream")]
    assert home.hub.subscribers("stream") == []
    assert (home.backlog.bytes, home.evicted) == (0, [])
    assert home.counters.dropped[Drop.CONFLATED] == 2
    home.assert_balanced()


def test_the_heaviest_laggards_go_until_there_is_room() -> None:
    home = house(ROOMY, budget=10_000)
    shed = shedding(home)
    for channel, size in (("light", 1000), ("heavy", 4000), ("middle", 2500), ("middling", 1800)):
        stalled(home, channel)
        fill_up(home, size, channel)
    assert home.backlog.bytes == 9300
    shed.look(0.0)
    assert home.gate.brownout == Step.EVICT
    assert [(owner.session.channel, why) for owner, why in home.evicted] == [("heavy", "memory budget")]  # type: ignore[attr-defined]
    assert home.backlog.bytes == 5300 < core.EVICT_TO * 10_000
    assert home.counters.slow_disconnects == 1
    home.assert_balanced()


def test_a_late_loop_evicts_nobody_whose_queue_is_short() -> None:
    home = house(ROOMY, budget=10_000)
    shed = shedding(home)
    stalled(home)
    fill_up(home, 1000)
    for _ in range(LOOKS):
        shed.look(5.0)
    assert home.gate.brownout == Step.EVICT
    assert home.evicted == []


def test_it_looks_ten_times_a_second_and_measures_the_loop() -> None:
    home = house()
    shed = shedding(home)
    shed.start()
    for _ in range(LOOKS):
        home.clock.advance(LOOK + 0.3)  # each turn of the loop takes as long
        home.loop.turn()
    assert home.gate.brownout == Step.REFUSE
    shed.stop()
    shed.stop()
    home.clock.advance(LOOK)
    home.loop.turn()
    assert home.loop.timers == []


def test_draining_comes_before_it() -> None:
    home = house()
    home.gate.brownout = 4
    assert admit(home).body == b"The server is overloaded.\n"
    home.gate.is_draining = True
    assert admit(home).body == b"The server is shutting down.\n"
    assert wire.answer(bytes(admit(home).serialize())).status == 503


# The books, and the promises, whatever is shed meanwhile


TERMS = {
    "d": ChannelTerms(LagLimits(LagPolicy.DISCONNECT, messages=20, bytes=1000)),
    "o": ChannelTerms(LagLimits(LagPolicy.DROP_OLDEST, messages=20, bytes=1000)),
    "s": ChannelTerms(LagLimits(LagPolicy.DISCONNECT, messages=20, bytes=1000), declares_gaps=True),
}


class Ear:
    """A client on three channels, each with frames of two bytes: the channel's letter and a number."""

    def __init__(self, home: House) -> None:
        self.heard = bytearray()
        self.outbox = Outbox(self, home.backlog)
        self.ears = {
            name: home.hub.subscribe(name, self.outbox, self.heard.extend, terms) for name, terms in TERMS.items()
        }
        self._home = home

    def lag(self) -> None:
        for ear in self.ears.values():
            ear.pause()
        self._home.backlog.laggards[self.outbox] = None

    def catch_up(self) -> None:
        while self.outbox.messages:
            self.heard += self.outbox.take(1)
        self._home.backlog.laggards.pop(self.outbox, None)
        for ear in self.ears.values():
            ear.resume()

    def numbers(self, name: str) -> list[int]:
        pairs = zip(self.heard[::2], self.heard[1::2], strict=True)
        return [number for letter, number in pairs if letter == ord(name)]


acts = st.one_of(
    st.text("dos", min_size=1, max_size=4),  # publications, and the turn of the loop that hands them out
    st.sampled_from(Step),
    st.booleans(),  # to lag, or not to
)


@LAW
@given(st.lists(acts, min_size=20, max_size=60))
def test_whatever_is_shed_the_books_balance_and_who_may_miss_nothing_is_told(acts: list[str | Step | bool]) -> None:
    home = house(budget=100)
    ear, quick = Ear(home), Ear(home)
    said = dict.fromkeys("dos", 0)
    for act in acts:
        if isinstance(act, str):
            for name in act:
                home.hub.publish(name, name.encode() + bytes([said[name]]))
                said[name] += 1
            home.clock.advance(core.SHORTEST_BATCH)
            home.loop.turn()
            home.loop.settle()
        elif isinstance(act, Step):
            home.hub.shed(
                batch_floor=core.SHORTEST_BATCH if act >= Step.BATCH else 0.0,
                spare=act >= Step.CONFLATE,
                share=core.EVICT_TO if act >= Step.EVICT else 1.0,
            )
        else:
            ear.lag() if act else ear.catch_up()
        home.assert_balanced()
    home.clock.advance(core.LONGEST_BATCH)
    home.loop.turn()
    home.loop.settle()
    ear.catch_up()
    home.assert_balanced()
    for name, count in said.items():
        assert quick.numbers(name) == list(range(count)), "who keeps up misses nothing"
        heard = ear.numbers(name)
        assert heard == sorted(set(heard))
        told = ear.outbox.overflowed or (ear, name) in home.gaps
        if name == "o" or told:
            continue
        assert heard == list(range(count)), "a hole that nobody was told of"
    if not ear.outbox.overflowed and (ear, "s") in home.gaps:
        assert ear.numbers("s") == list(range(len(ear.numbers("s")))), "up to the gap there is none"


@pytest.mark.parametrize("silent", ["everywhere", "in streams"])
def test_the_promises_see_a_silent_loss(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def newest_only(box: Outbox, batch: Any) -> None:
        if silent == "everywhere" or batch.channel.terms.declares_gaps:
            box.discard_channel(batch.channel, Drop.CONFLATED)
        box.push(batch)

    monkeypatch.setattr(backlog, "SPARING", dict.fromkeys(LagPolicy, newest_only))
    law = test_whatever_is_shed_the_books_balance_and_who_may_miss_nothing_is_told.hypothesis.inner_test  # type: ignore[attr-defined]
    lags_while_it_conflates = [True, Step.CONFLATE, "d", "s", "d", "s"]
    with pytest.raises(AssertionError, match="nobody was told"):
        law(lags_while_it_conflates)
    monkeypatch.undo()
    law(lags_while_it_conflates)
