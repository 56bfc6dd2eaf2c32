"""The laws of a node, whatever happens in whatever order on a network between it and its broker.

A machine lets clients come, turn back, recover and leave, publications be said, lost and repeated, streams begin anew,
and answers arrive late, out of turn or as errors. Each client keeps its own position and fails at once when it hears
what is not the next (``ears``). At the end all that is under way arrives, the positions are checked, and whoever is
still on a channel must be where the stream is. Then the checker itself is checked: each planted bug must make it fail.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from server.brokers.base import Retention
from server.core.history import UNRECOVERED, Position
from server.core.hub import Hub
from server.core.publication import Publication
from server.node import node as node_module
from server.node.audience import Audience, Held, Reading
from server.node.encodings import DeltaEncoder
from server.node.namespaces import ChannelOptions
from server.node.node import Node, Seat, _Arrival
from tests.ears import DELTA, JSON, RAW, Ear, Town

KEPT: Final = 4  # publications; few, so that histories run out
MOST_EARS: Final = 5
READINGS: Final = (JSON, DELTA, RAW, DELTA._replace(joins=True))


class Network(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.town = Town(ChannelOptions(retention=Retention(KEPT, 300.0)))
        self.broker = self.town.broker
        self.ears: list[Ear] = []
        self.has_faults = False  # things may be lost, forgotten, out of turn or in error

    @initialize(has_faults=st.booleans(), said=st.integers(0, KEPT))
    def begin(self, has_faults: bool, said: int) -> None:
        self.has_faults = has_faults
        self.come(JSON, None)
        self.broker.settle()
        self.say(said)

    def _off(self) -> list[Ear]:
        return [ear for ear in self.ears if not ear.is_on]

    # Clients

    @precondition(lambda self: len(self.ears) < MOST_EARS)
    @rule(reading=st.sampled_from(READINGS), missed=st.none() | st.integers(0, KEPT))
    def come(self, reading: Reading, missed: int | None) -> None:
        """Come for the first time; or back from another server, where it `missed` the last publications."""
        since = None
        if missed is not None and not reading.is_raw:
            stream = self.broker.stream("news", KEPT)
            since = Position(max(0, stream.top - missed), stream.epoch)
        ear = self.town.ear(reading)
        self.ears.append(ear)
        ear.come(since)

    @precondition(lambda self: self._off())
    @rule(data=st.data(), goes_back=st.integers(0, 2))
    def come_back(self, data: st.DataObject, goes_back: int) -> None:
        """Come (anew, perhaps, while still on the way), from where it was or from a little before."""
        ear = data.draw(st.sampled_from(self._off()))
        since = None
        if ear.position is not None and not ear.reading.is_raw:
            since = Position(max(0, ear.position.offset - goes_back), ear.position.epoch)
        ear.go()
        ear.come(since)

    @precondition(lambda self: self.ears)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.ears)).go()

    # Publications

    @rule(times=st.integers(1, 3))
    def say(self, times: int) -> None:
        for _ in range(times):
            self.town.say()

    @precondition(lambda self: self.broker.underway)
    @rule()
    def deliver(self) -> None:
        self.broker.deliver()

    @precondition(lambda self: self.has_faults and not all(callable(told) for told in self.broker.underway))
    @rule()
    def lose(self) -> None:
        self.broker.lose()

    @precondition(lambda self: self.broker.came)
    @rule()
    def repeat(self) -> None:
        """Tell the last publication again, if anybody has heard it."""
        channel, publication, epoch = self.broker.came[-1]
        audience = self.town.node.audiences.get(channel)
        if audience is not None and audience.top == (publication.offset, epoch):
            self.broker.repeat()

    @precondition(lambda self: self.has_faults)
    @rule()
    def reset(self) -> None:
        self.broker.reset("news")

    @rule()
    def turn(self) -> None:
        self.town.turn()

    # Answers

    @precondition(lambda self: self.broker.asked)
    @rule()
    def process(self) -> None:
        self.broker.process()

    @precondition(lambda self: self.broker.answers)
    @rule()
    def answer(self) -> None:
        self.broker.answer()

    @precondition(lambda self: self.broker.asked)
    @rule()
    def answer_all(self) -> None:
        """Let all answers come, while the news are still under way."""
        while self.broker.asked or self.broker.answers:
            self.broker.process() if self.broker.asked else self.broker.answer()

    @precondition(lambda self: self.broker.asked)
    @rule()
    def say_before_the_answer(self) -> None:
        """Let news come between what the broker does and its answer."""
        self.broker.process()
        self.town.say()
        self.broker.deliver_all()
        while self.broker.answers:
            self.broker.answer()

    @precondition(lambda self: self.has_faults and len(self.broker.answers) > 1)
    @rule()
    def answer_out_of_turn(self) -> None:
        self.broker.answer(-1)

    @precondition(lambda self: self.has_faults and self.broker.answers)
    @rule()
    def fail(self) -> None:
        self.broker.answer(fails=True)

    # Looks

    @rule()
    def first_look(self) -> None:
        self.town.node.check_positions()

    @rule()
    def second_look(self) -> None:
        """Look again when what was under way has had its time."""
        self.broker.deliver_all()
        self.town.node.check_suspects()

    # Judgement

    def teardown(self) -> None:
        town, node = self.town, self.town.node
        for _ in range(3):
            self.broker.settle()
            town.turn()
            node.check_positions()
            self.broker.settle()
            node.check_suspects()
            self.broker.settle()
            town.turn()
        stream = self.broker.stream("news")
        for ear in self.ears:
            if ear.is_on and not ear.reading.is_raw:
                assert ear.position == stream.position, "it has lost something, and was not told"
            if not self.has_faults:
                self._judge_faultless(ear)
            if ear.reading.is_raw:
                self._judge_raw(ear)
        self._judge_release()

    def _judge_faultless(self, ear: Ear) -> None:
        assert not ear.gaps, "a false alarm"
        for since, answer in zip(ear.sinces, ear.answers, strict=True):
            assert isinstance(answer, Seat)
            if since is not None and answer.recovery is UNRECOVERED:
                is_ahead = since.offset > answer.top.offset  # of what was heard here
                is_far_behind = self.broker.stream("news").top - since.offset > KEPT
                assert is_ahead or is_far_behind, "what was kept was not recovered"

    @staticmethod
    def _judge_raw(ear: Ear) -> None:
        assert len(set(ear.heard)) == len(ear.heard), "heard twice"
        for epoch in {place.epoch for place in ear.heard}:
            heard = [place.offset for place in ear.heard if place.epoch == epoch]
            assert heard == sorted(heard), "out of order"

    def _judge_release(self) -> None:
        for ear in self.ears:
            ear.end()
        self.broker.settle()
        self.town.turn()
        node, counters = self.town.node, self.town.counters
        assert node.audiences == {}, "a channel without listeners"
        assert self.broker.heard == set(), "the broker was not told that nobody listens"
        assert node.hub.channels == {}
        assert node.hub.subscriptions == 0
        assert self.town.backlog.messages == self.town.backlog.bytes == 0
        assert counters.offered == counters.sent + sum(counters.dropped.values())


LAWS: Final = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "stentor.node")


def test_the_laws_hold() -> None:
    run_state_machine_as_test(Network, settings=LAWS)


# The checker, checked


def _advance_always(
    self: Node, audience: Audience, publication: Publication, epoch: str, advance: Any = Node._advance
) -> bool:
    advance(self, audience, publication, epoch)
    return True


def _invalidate_the_seated_alone(self: Node, audience: Audience, invalidate: Any = Node.invalidate) -> None:
    holds, audience.holds = audience.holds, {}
    invalidate(self, audience)
    audience.holds = holds


def _trust_the_first_look(self: Node, audience: Audience, top: Position) -> None:
    if audience.is_behind(top):
        audience.top = top
        self.invalidate(audience)


def _subscribe_at_once(self: Hub, *arguments: Any, subscribe: Any = Hub.subscribe, **options: Any) -> Any:
    return subscribe(self, *arguments, **(options | {"skips_pending": False}))


def _merge_all(stream: Any, held: Held, top: Position) -> list[Publication]:
    newer = [publication for publication in held.publications if publication.offset > stream.top.offset]
    return [*stream.publications, *newer]


def _seat_at_the_answer(self: _Arrival, answer: Any, placed: Any = _Arrival._placed) -> None:
    if not isinstance(answer, Exception) and self._audience.top.epoch == answer.top.epoch:
        self._audience.top = answer.top
    placed(self, answer)


BUGS: Final[dict[str, tuple[object, str, Any]]] = {
    "what was heard is heard again": (Node, "_advance", _advance_always),
    "what comes meanwhile is forgotten": (
        node_module, "_merge", lambda stream, held, top: list(stream.publications),
    ),
    "what is on its way is recovered, and then heard": (node_module, "_merge", _merge_all),
    "a client moves the others' position": (_Arrival, "_placed", _seat_at_the_answer),
    "a gap is told to those alone who are seated": (Node, "invalidate", _invalidate_the_seated_alone),
    "a gap is told to nobody": (Node, "invalidate", lambda self, audience: None),
    "nobody looks again": (Node, "check_suspects", lambda self: None),
    "the first look is the last word": (Node, "note_top", _trust_the_first_look),
    "channels are never let go of": (Node, "forget_if_empty", lambda self, audience: None),
    "who turned back is seated, too": (_Arrival, "_is_wanted", lambda self: True),
    "newcomers hear what was said before": (Hub, "subscribe", _subscribe_at_once),
    "newcomers get a delta from what they never had": (DeltaEncoder, "restart", lambda self: None),
}  # fmt: skip


@pytest.mark.parametrize("bug", BUGS)
def test_the_checker_finds(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, name, wrong = BUGS[bug]
    right: Callable[..., Any] = getattr(place, name)
    assert right is not wrong
    monkeypatch.setattr(place, name, wrong)
    quick = settings(LAWS, max_examples=2000, phases=(Phase.generate,), report_multiple_bugs=False, print_blob=False)
    with pytest.raises((AssertionError, KeyError, ValueError)):
        run_state_machine_as_test(Network, settings=quick)
