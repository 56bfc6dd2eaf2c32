"""What is asked of the shards of a cluster: again where it is, in order, and not for ever. The shards are fakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from server.brokers.base import BrokerError
from server.brokers.redis import Address
from server.brokers.redis import cluster as room
from server.brokers.redis.cluster import Cluster
from server.brokers.redis.commands import AWAY, Redirect
from server.brokers.redis.scripts import Names
from server.brokers.redis.slots import SLOTS, Map, Range, slot_of
from tests.fakes import Clock, Loop

A, B, C = (Address(host, 1, in_cluster=True) for host in "abc")
MOVED = Redirect("MOVED 1 b:1")


class FakeShard:
    """A shard that writes down what it is asked, until the test answers."""

    def __init__(self, address: Address, cluster: Any) -> None:
        self.address = address
        self.names = Names("p")
        self.commands = self.subscriber = self.publisher = self
        self.is_up = True
        self.is_coming = False
        self.lineage = address.host.encode()
        self.reconnects = self.gaps = self.malformed = 1
        self.asked: list[tuple[str, Callable[[Any], object]]] = []
        self.slots: set[int] = set()
        self.is_started = self.is_stopped = False
        self.claims: list[Any] = []
        self.with_leave: list[str] = []
        self._is_asking = False

    @property
    def waiting(self) -> int:
        return len(self.asked)

    def ask(self, command: Any, done: Callable[[Any], object]) -> None:
        text = command[0] if isinstance(command, tuple) else command
        if self._is_asking:
            self.with_leave.append(text)
        if self.is_up:
            self.asked.append((text, done))
        else:
            done(AWAY)

    def asking(self) -> FakeShard:
        return self

    def __enter__(self) -> None:
        self._is_asking = True

    def __exit__(self, *_: object) -> None:
        self._is_asking = False

    def answer(self, reply: Any, count: int = 1) -> None:
        for _ in range(count):
            _, done = self.asked.pop(0)
            done(reply)

    @property
    def texts(self) -> list[str]:
        return [text for text, _ in self.asked]

    def own(self, slots: set[int]) -> None:
        self.slots = slots

    def start(self) -> None:
        self.is_started = True

    async def stop(self) -> None:
        self.is_stopped = True

    def release(self, is_gone: object) -> list[Any]:
        return []

    def adopt(self, claims: list[Any]) -> None: ...

    def tick(self, now: float) -> None: ...


class Desk:
    """A cluster of fake shards, on a clock that the test turns; `news` is on A at first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.surveys = 0
        monkeypatch.setattr(room.Survey, "hurry", self._note_survey)
        self.clock = Clock(100.0)
        self.loop = Loop(self.clock)
        self.shards: dict[Address, FakeShard] = {}
        self.told: list[tuple[str, Any]] = []
        self.cluster = Cluster(
            [A],
            self._make,
            patience=1.0,
            clock=self.clock,
            call_later=self.loop.call_later,  # type: ignore[arg-type]
        )
        self.adrift = self.shards.pop(A)
        self.adrift.is_up = False
        self.slot = slot_of(b"{news}")
        self.settle(A)

    def _make(self, address: Address, cluster: Any) -> FakeShard:
        shard = self.shards[address] = FakeShard(address, cluster)
        return shard

    def _note_survey(self) -> None:
        self.surveys += 1

    def settle(self, owner: Address, rest: Address = C) -> None:
        ranges = [Range(self.slot, self.slot, owner)]
        ranges += [Range(first, last, rest) for first, last in ((0, self.slot - 1), (self.slot + 1, SLOTS - 1))]
        self.cluster.settle(Map(1, tuple(ranges), (owner, rest)))

    def say(self, *texts: str) -> None:
        for text in texts:
            self.cluster.do(
                "news",
                lambda shard, done, text=text: shard.commands.ask(text, done),
                lambda answer, text=text: self.told.append((text, answer)),
            )

    def wait(self, seconds: float = 0.05) -> None:
        self.clock.advance(seconds)
        self.loop.turn()


@pytest.fixture
async def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch)


async def test_what_is_sent_away_is_asked_for_again_in_the_order_in_which_it_was(desk: Desk) -> None:
    a = desk.shards[A]
    desk.say("1", "2", "3")
    a.answer("done")
    a.answer(MOVED)
    assert desk.surveys == 1
    desk.say("4")
    assert a.texts == ["3"], "nothing overtakes what waits"
    desk.settle(B)
    b = desk.shards[B]
    desk.say("5")
    assert b.texts == []
    a.answer(MOVED)
    assert b.texts == [], "there may be more on the way"
    a.answer("PONG")
    assert b.texts == ["2", "3", "4", "5"]
    b.answer("done", 4)
    assert [text for text, _ in desk.told] == ["1", "2", "3", "4", "5"]
    desk.say("6")
    assert b.texts == ["6"]


async def test_nothing_of_a_slot_that_moved_goes_before_its_old_shard_has_answered(desk: Desk) -> None:
    a = desk.shards[A]
    desk.say("1")
    desk.settle(B)
    desk.say("2")
    desk.wait(0.1)
    assert desk.shards[B].texts == []
    assert a.texts == ["1", "PING"]
    a.answer("done", 2)
    assert desk.shards[B].texts == ["2"]


async def test_an_old_shard_that_is_gone_is_not_waited_for(desk: Desk) -> None:
    desk.say("1")
    desk.shards[A].is_up = False
    desk.shards[A].answer(AWAY)
    desk.settle(B)
    desk.say("2")
    assert desk.told == [("1", AWAY)]
    assert desk.shards[B].texts == ["2"]


async def test_what_cannot_be_had_in_time_is_done_as_if_redis_were_away(desk: Desk) -> None:
    desk.say("1")
    for _ in range(100):
        if desk.told:
            break
        desk.shards[A].answer(Redirect("TRYAGAIN"))
        desk.wait()
    assert desk.told == [("1", AWAY)]
    assert 101.0 <= desk.clock() < 101.5


async def test_what_is_on_its_way_is_asked_for_where_it_goes_this_once(desk: Desk) -> None:
    a, c = desk.shards[A], desk.shards[C]
    desk.say("1")
    a.answer(Redirect("ASK 1 c:1"))
    assert (c.texts, c.with_leave) == (["1"], ["1"])
    desk.say("2")
    assert a.texts == ["2"], "it is still there for all others"


async def test_where_nobody_was_yet_somebody_is_sent_for_and_stays_a_while(desk: Desk) -> None:
    desk.say("1")
    desk.shards[A].answer(Redirect("ASK 1 b:1"))
    b = desk.shards[B]
    assert b.is_started
    assert (b.texts, desk.cluster.shards) == (["1"], [desk.shards[A], desk.shards[C]])
    desk.settle(B)
    assert desk.shards[B] is b
    desk.cluster.tick(desk.clock.advance(30.0))
    assert not b.is_stopped, "it is one of us now"


async def test_a_guest_that_gets_no_slots_goes(desk: Desk) -> None:
    desk.say("1")
    desk.shards[A].answer(Redirect("ASK 1 b:1"))
    desk.cluster.tick(desk.clock.advance(9.0))
    assert not desk.cluster._stops
    desk.cluster.tick(desk.clock.advance(2.0))
    await desk.cluster.stop()
    assert desk.shards[B].is_stopped


async def test_one_that_is_only_coming_is_waited_for(desk: Desk) -> None:
    desk.settle(B)
    b = desk.shards[B]
    b.is_up, b.is_coming = False, True
    desk.say("1", "2")
    desk.wait()
    assert desk.told == []
    b.is_up = True
    desk.wait()
    assert b.texts == ["1", "2"]
    b.is_up, b.is_coming = False, False
    b.answer(AWAY, 2)
    desk.say("3")
    assert [text for text, _ in desk.told] == ["1", "2", "3"]


async def test_a_slot_that_nobody_has_stays_where_it_was(desk: Desk) -> None:
    desk.cluster.settle(Map(2, (Range(0, SLOTS - 1, C),), (C,)))
    assert desk.cluster.place("news") is desk.shards[C]
    other = Cluster([A], desk._make, patience=1.0, clock=desk.clock, call_later=desk.loop.call_later)  # type: ignore[arg-type]
    other.settle(Map(1, (Range(0, 5, A),), (A,)))
    assert not other.is_up
    assert isinstance(other.place("news"), FakeShard)
    other.settle(Map(2, (Range(6, 9, B),), (B,)))
    assert [shard.address for shard in other.shards] == [A, B], "the slots of A may come back"


async def test_whose_streams_are_trusted(desk: Desk) -> None:
    a, c = desk.shards[A], desk.shards[C]
    assert desk.cluster._trusted(c) == b"a"  # type: ignore[arg-type]
    desk.cluster.settle(Map(2, (Range(0, SLOTS - 1, C),), (C,)))
    assert desk.cluster._trusted(c) == b"a", "all its slots were moved to one that was there before"  # type: ignore[arg-type]
    desk.cluster.settle(Map(3, (Range(0, SLOTS - 1, B),), (B,)))
    assert desk.cluster._trusted(desk.shards[B]) == b"a", "who is new may be a replica that was promoted"  # type: ignore[arg-type]
    assert a is not c


async def test_those_who_are_gone_are_counted(desk: Desk) -> None:
    assert (desk.cluster.reconnects, desk.cluster.gaps, desk.cluster.malformed) == (2, 2, 2)
    desk.settle(B)
    desk.cluster.tick(desk.clock.advance(2.0))
    assert (desk.cluster.reconnects, desk.cluster.malformed) == (3, 3)
    await desk.cluster.stop()
    assert all(shard.is_stopped for shard in desk.shards.values())


async def test_what_waits_when_all_ends_is_answered(desk: Desk) -> None:
    desk.say("1")
    desk.shards[A].answer(MOVED)
    await desk.cluster.stop()
    [(text, answer)] = desk.told
    assert text == "1"
    assert isinstance(answer, BrokerError)
