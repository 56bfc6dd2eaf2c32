"""The broker in memory: what it keeps, in what order it tells, and what it forgets."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from server.brokers.base import (
    EVERYTHING,
    IDEMPOTENCY_TTL,
    NOTHING,
    PLAIN,
    Attendance,
    Broker,
    BrokerError,
    Published,
    Retention,
    Slice,
    Stream,
    Terms,
)
from server.brokers.memory import MemoryBroker, random_epoch
from server.core.history import Position, judge
from server.core.publication import ClientInfo, Publication
from tests.fakes import Clock

KEPT = Retention(10, 300.0)
HOUR = 3600.0


class Ear:
    """Writes down what it is told; keeps up unless it is told otherwise."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.keeps_up = True

    def hear(self, channel: str, publication: Publication, epoch: str) -> bool:
        self.told.append(("publication", channel, publication, epoch))
        return self.keeps_up

    def hear_join(self, channel: str, info: ClientInfo) -> None:
        self.told.append(("join", channel, info))

    def hear_leave(self, channel: str, info: ClientInfo) -> None:
        self.told.append(("leave", channel, info))

    def lost(self, channel: str | None) -> None:
        raise AssertionError("memory loses nothing")


class House:
    """A broker with its ear, a clock that stands still, and epochs called e1, e2, …"""

    def __init__(self) -> None:
        self.ear, self.clock = Ear(), Clock(0.0)
        numbers = count(1)
        self.broker = MemoryBroker(self.ear, self.clock, lambda: f"e{next(numbers)}")

    def ask(self, call: Callable[..., None], *arguments: object) -> Any:
        """Return the one answer of a call that gives it at once."""
        answers: list[object] = []
        call(*arguments, answers.append)
        [answer] = answers
        assert not isinstance(answer, BrokerError)
        return answer

    def publish(
        self, channel: str = "news", text: bytes = b"x", retention: Retention = KEPT, **terms: Any
    ) -> Published:
        published = self.ask(self.broker.publish, channel, Publication(text), Terms(retention, **terms))
        assert isinstance(published, Published)
        return published

    def history(self, channel: str = "news", wanted: Slice = EVERYTHING, retention: Retention = KEPT) -> Stream:
        stream = self.ask(self.broker.history, channel, retention, wanted)
        assert isinstance(stream, Stream)
        return stream

    def position(self, channel: str = "news") -> Position:
        return self.history(channel, Slice(limit=0)).top

    def subscribe(self, channel: str = "news") -> None:
        assert self.ask(self.broker.subscribe, channel) is None

    def sweep(self, times: int = 1) -> None:
        for _ in range(times):
            self.broker.sweep()


@pytest.fixture
def house() -> House:
    return House()


def test_it_is_a_broker(house: House) -> None:
    broker: Broker = house.broker
    assert broker.is_up


# Publishing


def test_without_retention_a_publication_is_heard_as_it_is_and_nothing_is_kept(house: House) -> None:
    publication = Publication(b"hello", is_binary=True)
    assert house.ask(house.broker.publish, "news", publication, PLAIN) == Published(Position(0, ""))
    [(_, channel, heard, epoch)] = house.ear.told
    assert (channel, epoch) == ("news", "")
    assert heard is publication
    assert house.broker.streams == 0


def test_with_retention_a_publication_is_heard_with_its_offset_and_kept(house: House) -> None:
    assert house.publish(text=b"1") == Published(Position(1, "e1"))
    assert house.publish(text=b"2") == Published(Position(2, "e1"))
    expected = (Publication(b"1", offset=1), Publication(b"2", offset=2))
    assert house.ear.told == [("publication", "news", publication, "e1") for publication in expected]
    assert house.history() == Stream(expected, Position(2, "e1"))


@pytest.mark.parametrize("retention", [NOTHING, KEPT], ids=["not kept", "kept"])
def test_the_publisher_is_told_when_too_much_waits(house: House, retention: Retention) -> None:
    assert house.publish(retention=retention).keeps_up is True
    house.ear.keeps_up = False
    assert house.publish(retention=retention).keeps_up is False
    house.ear.keeps_up = True
    assert house.publish(retention=retention).keeps_up is True


def test_it_is_kept_before_it_is_heard_and_heard_before_it_is_answered_for(house: House) -> None:
    happened: list[object] = []

    def hear(channel: str, publication: Publication, epoch: str) -> bool:
        happened.append(len(house.history(channel).publications))
        return True

    house.ear.hear = hear  # type: ignore[method-assign]
    house.broker.publish("news", Publication(b"x"), Terms(KEPT), lambda answer: happened.append("done"))
    assert happened == [1, "done"]


def test_each_channel_counts_for_itself(house: House) -> None:
    house.publish("a")
    house.publish("b")
    assert house.publish("a").position == Position(2, "e1")
    assert house.publish("b").position == Position(2, "e2")


def test_half_a_retention_is_none(house: House) -> None:
    for retention in (Retention(10, 0.0), Retention(0, 300.0)):
        assert house.publish(retention=retention).position == Position(0, "")
    assert house.broker.streams == 0


def test_another_retention_is_taken_over(house: House) -> None:
    for _ in range(10):
        house.publish()
    house.publish(retention=Retention(3, 300.0))
    assert [p.offset for p in house.history(retention=Retention(3, 300.0)).publications] == [9, 10, 11]
    assert [p.offset for p in house.history(retention=Retention(2, 300.0)).publications] == [10, 11]
    assert [p.offset for p in house.history(retention=NOTHING).publications] == [10, 11], "a reader without one"
    house.clock.advance(5.0)
    assert house.history(retention=Retention(2, 5.0)).publications == ()


# Idempotency


@pytest.mark.parametrize("retention", [NOTHING, KEPT], ids=["not kept", "kept"])
def test_a_key_is_published_once(house: House, retention: Retention) -> None:
    first = house.publish(retention=retention, idempotency_key="k")
    house.publish(retention=retention)
    assert house.publish(retention=retention, idempotency_key="k") == Published(first.position, is_suppressed=True)
    assert len(house.ear.told) == 2
    assert not house.publish("other", retention=retention, idempotency_key="k").is_suppressed
    assert not house.publish(retention=retention, idempotency_key="l").is_suppressed


def test_a_key_is_forgotten_after_its_time(house: House) -> None:
    house.publish(idempotency_key="k")
    house.clock.advance(IDEMPOTENCY_TTL - 1)
    assert house.publish(idempotency_key="k").is_suppressed
    house.clock.advance(1)
    assert not house.publish(idempotency_key="k").is_suppressed, "the second try has not put it off"
    house.clock.advance(IDEMPOTENCY_TTL - 1)
    house.publish(idempotency_key="other")
    assert house.publish(idempotency_key="k").is_suppressed, "its new time counts, not its first one"


def test_old_keys_do_not_pile_up(house: House) -> None:
    for number in range(1000):
        house.publish(retention=NOTHING, idempotency_key=str(number))
    assert len(house.broker._answers._kept) == 1000
    house.clock.advance(IDEMPOTENCY_TTL)
    for number in range(600):
        house.publish(retention=NOTHING, idempotency_key=f"new {number}")
    assert len(house.broker._answers._kept) == 600, "each new one makes two old ones go"
    house.clock.advance(IDEMPOTENCY_TTL)
    house.sweep()
    assert len(house.broker._answers._kept) == 0


def test_a_key_that_comes_again_after_its_time_does_not_keep_others(house: House) -> None:
    for key in ("a", "b", "k"):
        house.publish(idempotency_key=key)
    house.clock.advance(1.0)
    house.publish(idempotency_key="m")
    house.clock.advance(IDEMPOTENCY_TTL - 1)
    house.publish(idempotency_key="k")
    house.clock.advance(1.0)
    house.sweep()
    assert [key for _, key in house.broker._answers._kept] == ["k"]


def test_a_version_that_is_not_above_the_last_one_is_not_published(house: House) -> None:
    assert house.publish(version=5) == Published(Position(1, "e1"))
    for version in (5, 4):
        assert house.publish(version=version) == Published(Position(1, "e1"), is_suppressed=True)
    assert not house.publish(version=0).is_suppressed
    assert house.publish(version=5).is_suppressed, "a publication without one changes nothing"
    assert not house.publish(version=6).is_suppressed
    assert not house.publish(version=1, version_epoch="b").is_suppressed
    assert [told[2].offset for told in house.ear.told] == [1, 2, 3, 4]
    assert not house.publish(retention=NOTHING, version=1).is_suppressed, "without history there are no versions"


def test_a_key_of_a_version_that_was_not_published_is_free(house: House) -> None:
    house.publish(version=5)
    assert house.publish(version=5, idempotency_key="k").is_suppressed
    assert not house.publish(version=6, idempotency_key="k").is_suppressed


# History


def test_a_channel_that_never_had_a_history_gets_its_epoch(house: House) -> None:
    assert house.history() == Stream((), Position(0, "e1"))
    assert house.publish().position == Position(1, "e1")


def test_a_part_of_a_history_is_read(house: House) -> None:
    for _ in range(5):
        house.publish()

    def read(**wanted: Any) -> list[int]:
        stream = house.history(wanted=Slice(**wanted))
        assert stream.top == Position(5, "e1")
        return [publication.offset for publication in stream.publications]

    assert read(limit=0) == []
    assert read(limit=2) == [1, 2]
    assert read(since=Position(3, "any")) == [4, 5]
    assert read(since=Position(3, "e1"), reverse=True) == [2, 1]
    assert read(limit=1, reverse=True) == [5]


def test_removing_a_history_leaves_the_position(house: House) -> None:
    house.publish()
    assert house.ask(house.broker.remove_history, "news") is None
    assert house.history() == Stream((), Position(1, "e1"))
    assert house.ask(house.broker.remove_history, "unknown") is None


def test_a_client_recovers_across_its_absence(house: House) -> None:
    left_at = house.publish().position
    house.publish()
    stream = house.history(wanted=Slice(since=left_at))
    assert [p.offset for p in judge(left_at, stream.top, stream.publications).publications] == [2]


# Forgetting


def test_an_idle_stream_is_forgotten_and_comes_back_with_another_epoch(house: House) -> None:
    house.publish()
    house.clock.advance(HOUR - 1)
    house.sweep()
    assert house.broker.streams == 1
    house.clock.advance(1)
    house.sweep()
    assert house.broker.streams == 0
    assert house.publish().position == Position(1, "e2")


def test_a_stream_is_remembered_for_ten_times_what_it_keeps(house: House) -> None:
    house.publish(retention=Retention(10, HOUR))
    house.clock.advance(10 * HOUR - 1)
    house.sweep()
    assert house.broker.streams == 1
    house.clock.advance(1)
    house.sweep()
    assert house.broker.streams == 0


def test_a_stream_that_is_heard_is_not_forgotten_and_idle_only_after_that(house: House) -> None:
    house.subscribe()
    house.subscribe()
    house.publish()
    house.clock.advance(50 * HOUR)
    house.sweep()
    house.broker.unsubscribe("news")
    house.clock.advance(HOUR - 1)
    house.broker.unsubscribe("news")  # a second time changes nothing
    house.sweep()
    assert house.broker.streams == 1
    house.clock.advance(1)
    house.sweep()
    assert house.broker.streams == 0


def test_reading_keeps_a_stream_alive(house: House) -> None:
    house.publish()
    for _ in range(3):
        house.clock.advance(HOUR - 1)
        house.sweep()
        assert house.position() == Position(1, "e1")


def test_a_client_comes_back_to_a_stream_that_nobody_published_on(house: House) -> None:
    left_at = house.position()
    house.clock.advance(HOUR - 1)
    house.sweep()
    assert house.position() == left_at, "nothing was missed"
    house.clock.advance(HOUR)
    house.sweep()
    assert house.broker.streams == 0


def test_among_many_a_stream_that_nobody_published_on_is_soon_forgotten(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.brokers.memory._MANY", 2)
    house.publish("used")
    for name in ("invented", "made up"):
        house.position(name)
    house.clock.advance(59)
    house.sweep()
    assert house.broker.streams == 3
    house.clock.advance(1)
    house.sweep(2)
    assert house.broker.streams == 2, "no more than have to go"
    assert house.position("used") == Position(1, "e1")


def test_expired_publications_are_let_go_though_nobody_asks(house: House) -> None:
    house.subscribe()
    house.publish()
    house.clock.advance(KEPT.ttl)
    house.sweep()
    assert house.broker._streams["news"].kept == 0
    assert house.position() == Position(1, "e1")


def test_memory_is_bounded_by_what_is_in_use(house: House) -> None:
    house.subscribe("7")
    for number in range(100_000):
        house.publish(str(number))
    house.clock.advance(KEPT.ttl)
    house.sweep()
    emptied = sum(not history.kept for history in house.broker._streams.values())
    assert emptied == 1000, "a sweep looks at a part of them"
    house.sweep(99)
    assert not any(history.kept for history in house.broker._streams.values())
    house.clock.advance(HOUR)
    house.sweep(100)
    assert list(house.broker._streams) == list(house.broker._round) == ["7"]


def test_a_sweep_looks_at_more_when_there_are_many(house: House) -> None:
    for number in range(160_000):
        house.position(str(number))
    house.clock.advance(60)
    house.sweep()
    assert house.broker.streams == 158_750


# Presence


def client(name: str, user: str = "") -> ClientInfo:
    return ClientInfo(user, name)


def test_who_comes_and_goes_is_told_at_once(house: House) -> None:
    house.broker.publish_join("news", client("a"))
    house.broker.publish_leave("news", client("a"))
    assert house.ear.told == [("join", "news", client("a")), ("leave", "news", client("a"))]


def test_presence_is_who_was_added_and_not_removed(house: House) -> None:
    broker = house.broker
    for info in (client("a", "ann"), client("b", "ann"), client("c"), client("d")):
        assert house.ask(broker.add_presence, "news", info) is None
    house.ask(broker.add_presence, "other", client("e"))
    assert house.ask(broker.presence, "news") == {
        name: client(name, user) for name, user in (("a", "ann"), ("b", "ann"), ("c", ""), ("d", ""))
    }
    assert house.ask(broker.presence_stats, "news") == Attendance(clients=4, users=2)
    broker.remove_presence("news", client("a", "ann"))
    broker.remove_presence("news", client("a", "ann"))
    assert house.ask(broker.presence_stats, "news") == Attendance(clients=3, users=2)
    broker.remove_presence("news", client("b", "ann"))
    assert house.ask(broker.presence_stats, "news") == Attendance(clients=2, users=1)


def test_the_latest_word_about_a_client_counts(house: House) -> None:
    house.ask(house.broker.add_presence, "news", client("a", "ann"))
    house.ask(house.broker.add_presence, "news", client("a", "bob"))
    assert house.ask(house.broker.presence, "news") == {"a": client("a", "bob")}
    assert house.ask(house.broker.presence_stats, "news") == Attendance(1, 1)
    house.broker.remove_presence("news", client("a", "ann"))
    assert house.ask(house.broker.presence_stats, "news") == Attendance(0, 0)


def test_an_answer_about_presence_does_not_change_afterwards(house: House) -> None:
    house.ask(house.broker.add_presence, "news", client("a"))
    answer = house.ask(house.broker.presence, "news")
    house.broker.remove_presence("news", client("a"))
    assert answer == {"a": client("a")}


def test_nobody_is_on_an_unknown_channel_and_nothing_is_left_of_an_empty_one(house: House) -> None:
    assert house.ask(house.broker.presence, "news") == {}
    assert house.ask(house.broker.presence_stats, "news") == Attendance(0, 0)
    house.broker.remove_presence("news", client("a"))
    house.ask(house.broker.add_presence, "news", client("a"))
    house.broker.remove_presence("news", client("a"))
    assert house.broker._present == {}


def test_epochs_differ() -> None:
    epochs = {random_epoch() for _ in range(1000)}
    assert len(epochs) == 1000
    assert {len(epoch) for epoch in epochs} == {8}


def test_what_is_kept_is_dated_if_there_is_a_clock_for_it() -> None:
    ear = Ear()
    broker = MemoryBroker(ear, Clock(0.0), wall_clock=lambda: 1_700_000_000.5)
    broker.publish("news", Publication(b"x"), Terms(KEPT), lambda answer: None)
    broker.publish("news", Publication(b"x", published_at=7), Terms(KEPT), lambda answer: None)
    broker.publish("news", Publication(b"x"), PLAIN, lambda answer: None)
    assert [told[2].published_at for told in ear.told] == [1_700_000_000_500, 7, 0]
