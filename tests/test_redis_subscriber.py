"""Subscriptions: batches of names, confirmations in time, what comes in, and what becomes of it after an outage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest

from server.brokers.base import BrokerError
from server.brokers.redis import inbox
from server.brokers.redis.commands import AWAY
from server.brokers.redis.connection import Connection, pack
from server.brokers.redis.subscriber import LINGER, SHARDED, Subscriber
from tests.fakes import Clock, Loop


class Wire:
    """Stands for a connection: what was written, and what Redis says."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.is_aborted = False
        self.is_reading = True
        self.say: Callable[[bytes], None] = lambda data: None

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def abort(self) -> None:
        self.is_aborted = True

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def hand_over(self, receive: Callable[[bytes], None]) -> None:
        self.say = receive


class Desk:
    """The subscriptions to one Redis, on a clock and a loop that a test turns by hand."""

    def __init__(self, **more: Any) -> None:
        self.clock = Clock(100.0)
        self.loop = Loop(self.clock)
        self.heard: list[tuple[str, bytes]] = []
        self.hearings = 0
        self.answers: list[tuple[str, BrokerError | None]] = []
        self.subscriber = Subscriber(
            hear=lambda channel, data: self.heard.append((channel, data)),
            hearing=self.note_hearing,
            clock=self.clock,
            call_soon=self.loop.call_soon,
            patience=1.5,
            **more,
        )
        self.wire = Wire()

    def note_hearing(self) -> None:
        self.hearings += 1

    def connect(self) -> Wire:
        self.wire = Wire()
        self.subscriber.up(cast(Connection, self.wire))
        return self.wire

    def subscribe(self, *channels: str) -> None:
        for channel in channels:
            self.subscriber.subscribe(b"p:" + channel.encode(), channel, partial(self.note, channel))

    def note(self, channel: str, answer: Any) -> None:
        self.answers.append((channel, answer))

    def unsubscribe(self, channel: str) -> None:
        self.subscriber.unsubscribe(b"p:" + channel.encode())

    def say(self, *data: bytes) -> None:
        self.wire.say(b"".join(data))
        self.loop.settle()

    def tick(self, seconds: float) -> None:
        self.subscriber.tick(self.clock.advance(seconds))


def confirmed(*channels: str) -> bytes:
    return b"".join(b"*3\r\n$9\r\nsubscribe\r\n$%d\r\np:%b\r\n:1\r\n" % (len(c) + 2, c.encode()) for c in channels)


def message(channel: str, data: bytes) -> bytes:
    return b"*3\r\n$7\r\nmessage\r\n$%d\r\np:%b\r\n$%d\r\n%b\r\n" % (
        len(channel) + 2,
        channel.encode(),
        len(data),
        data,
    )


@pytest.fixture
def desk() -> Desk:
    """One channel is heard: a."""
    made = Desk()
    made.subscribe("a")
    made.connect()
    made.say(confirmed("a"))
    assert made.answers == [("a", None)]
    made.answers.clear()
    made.wire.writes.clear()
    return made


def test_names_of_a_turn_are_asked_for_together_and_answered_when_confirmed(desk: Desk) -> None:
    desk.subscribe("b", "c", "b")
    assert desk.wire.writes == []
    desk.loop.settle()
    assert desk.wire.writes == [pack(("SUBSCRIBE", b"p:b", b"p:c"))]
    assert desk.answers == []
    desk.say(confirmed("b"))
    assert desk.answers == [("b", None), ("b", None)]
    desk.say(confirmed("c"))
    desk.subscribe("a")
    assert desk.answers[2:] == [("c", None), ("a", None)], "what is heard needs no asking"
    assert len(desk.wire.writes) == 1


def test_messages_are_heard_however_they_are_cut(desk: Desk) -> None:
    for byte in message("a", b"1") + message("a", b"") + message("unknown", b"2") + message("a", bytes(50)):
        desk.say(bytes([byte]))
    assert desk.heard == [("a", b"1"), ("a", b""), ("a", bytes(50))]


def test_a_name_is_given_back_late_and_taken_again_for_nothing(desk: Desk) -> None:
    desk.unsubscribe("a")
    desk.tick(LINGER - 0.1)
    desk.say(message("a", b"still"))
    desk.subscribe("a")
    desk.tick(LINGER)
    assert desk.answers == [("a", None)]
    assert desk.wire.writes == []
    desk.unsubscribe("a")
    desk.unsubscribe("a")
    desk.unsubscribe("unknown")
    assert desk.subscriber.channels() == []
    desk.tick(LINGER)
    assert desk.wire.writes == [pack(("UNSUBSCRIBE", b"p:a"))]
    desk.say(message("a", b"late"))
    assert desk.heard == [("a", b"still")]
    desk.subscribe("a")
    desk.loop.settle()
    desk.say(b"*3\r\n$11\r\nunsubscribe\r\n$3\r\np:a\r\n:0\r\n")
    assert desk.answers == [("a", None)], "the word of before is not for this one"
    desk.say(confirmed("a"))
    assert len(desk.answers) == 2


def test_who_left_before_the_turn_ended_is_not_asked_for_again(desk: Desk) -> None:
    desk.subscribe("b")
    desk.unsubscribe("b")
    desk.loop.settle()
    desk.tick(LINGER)
    assert desk.answers == [("b", AWAY)]
    desk.say(confirmed("b"))
    assert len(desk.answers) == 1


def test_who_waits_too_long_is_told_so_and_the_name_stays_wanted(desk: Desk) -> None:
    desk.subscriber.down()
    desk.subscribe("a", "b")
    desk.tick(1.4)
    assert desk.answers == []
    desk.tick(0.1)
    assert desk.answers == [("a", AWAY), ("b", AWAY)]
    desk.connect()
    assert desk.wire.writes == [pack(("SUBSCRIBE", b"p:a", b"p:b"))]
    desk.say(confirmed("a", "b"))
    assert len(desk.answers) == 2, "an answer comes once"
    assert desk.subscriber._waiters == {}


def test_after_an_outage_all_is_asked_for_and_hearing_is_when_all_is_confirmed(desk: Desk) -> None:
    desk.subscribe("b", "c")
    desk.loop.settle()
    desk.say(confirmed("b", "c"))
    desk.unsubscribe("c")
    assert desk.hearings == 1
    assert desk.subscriber.down(), "something was heard"
    assert not desk.subscriber.down()
    assert not desk.subscriber.is_hearing
    desk.connect()
    assert desk.wire.writes == [pack(("SUBSCRIBE", b"p:a", b"p:b"))], "not what nobody wants any more"
    desk.subscribe("d")
    desk.loop.settle()
    desk.say(confirmed("a"))
    assert (desk.subscriber.is_hearing, desk.hearings) == (False, 1)
    desk.say(confirmed("b"))
    assert (desk.subscriber.is_hearing, desk.hearings) == (True, 2), "d was not heard before either"
    desk.say(confirmed("d"))
    assert desk.hearings == 2


def test_many_names_are_several_commands() -> None:
    desk = Desk()
    desk.subscribe(*(str(number) for number in range(1001)))
    desk.connect()
    [written] = desk.wire.writes
    assert written.count(b"SUBSCRIBE") == 3


def test_what_waits_of_a_connection_that_is_gone_is_not_heard(desk: Desk) -> None:
    desk.wire.say(message("a", b"old"))
    desk.subscriber.down()
    desk.loop.settle()
    old = desk.wire
    desk.connect()
    desk.say(confirmed("a"), message("a", b"new"))
    assert desk.heard == [("a", b"new")]
    assert old is not desk.wire


def test_the_socket_is_drained_first_and_the_work_is_done_in_parts(desk: Desk) -> None:
    big = message("a", bytes(10_000))
    for _ in range(100):
        desk.wire.say(big)
    assert desk.heard == []
    assert desk.subscriber.is_behind
    desk.loop.turn()
    assert 0 < len(desk.heard) < 20, "a part per turn"
    desk.loop.settle()
    assert len(desk.heard) == 100
    assert not desk.subscriber.is_behind


def test_what_waits_is_bounded_and_reading_goes_on_when_there_is_room(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "MOST_BYTES", 200_000)
    chunk = message("a", bytes(10_000))
    for _ in range(30):
        desk.wire.say(chunk)
    assert not desk.wire.is_reading
    desk.loop.turn()
    assert not desk.wire.is_reading
    desk.loop.settle()
    assert desk.wire.is_reading
    assert len(desk.heard) == 30


def test_what_cannot_be_heard_does_not_stop_the_others(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    def hear(channel: str, data: bytes) -> None:
        desk.heard.append((channel, data))
        assert data != b"1", "as if the ear had a fault"

    desk.subscriber._hear = hear
    desk.say(message("a", b"1"), message("a", b"2"))
    assert desk.heard == [("a", b"1"), ("a", b"2")]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("rubbish", [b"HTTP/1.1 400\r\n", b"-NOPERM this user has no permissions\r\n"])
def test_a_redis_that_does_not_let_us_hear_is_left(desk: Desk, rubbish: bytes) -> None:
    desk.say(rubbish)
    assert desk.wire.is_aborted


# In a cluster


class Shards:
    """Two subscribers of one cluster: a name may go from one to the other."""

    def __init__(self) -> None:
        self.moves = 0
        self.regained: list[str] = []
        self.one, self.other = (
            Desk(verbs=SHARDED, moved=self.note_move, regained=self.regained.append) for _ in range(2)
        )
        for desk in (self.one, self.other):
            desk.connect()

    def note_move(self) -> None:
        self.moves += 1

    def move(self, *channels: str) -> None:
        names = {b"p:" + channel.encode() for channel in channels}
        self.other.subscriber.adopt(self.one.subscriber.release(names.__contains__))
        self.other.loop.settle()


def sharded(kind: str, channel: str, rest: bytes = b":1\r\n") -> bytes:
    return b"*3\r\n$%d\r\n%b\r\n$%d\r\np:%b\r\n" % (len(kind), kind.encode(), len(channel) + 2, channel.encode()) + rest


@pytest.fixture
def shards() -> Shards:
    """Two channels are heard by the first: a and b."""
    made = Shards()
    made.one.subscribe("a", "b")
    made.one.loop.settle()
    assert made.one.wire.writes == [pack(("SSUBSCRIBE", b"p:a")) + pack(("SSUBSCRIBE", b"p:b"))], "one slot a command"
    made.one.say(sharded("ssubscribe", "a"), sharded("ssubscribe", "b"))
    made.one.say(sharded("smessage", "a", b"$1\r\n1\r\n"))
    assert made.one.heard == [("a", b"1")]
    made.one.answers.clear()
    return made


def test_a_name_goes_to_another_shard_and_is_regained_there(shards: Shards) -> None:
    one, other = shards.one, shards.other
    one.say(sharded("sunsubscribe", "a", b":0\r\n"))
    assert shards.moves == 1
    assert one.subscriber.is_regaining(b"p:a")
    assert one.subscriber.is_hearing, "all others are heard"
    shards.move("a")
    assert not one.subscriber.is_regaining(b"p:a")
    assert other.subscriber.is_regaining(b"p:a")
    assert other.wire.writes == [pack(("SSUBSCRIBE", b"p:a"))]
    assert shards.regained == []
    other.say(sharded("ssubscribe", "a"), sharded("smessage", "a", b"$1\r\n2\r\n"))
    assert shards.regained == ["a"]
    assert other.heard == [("a", b"2")]
    one.say(sharded("smessage", "a", b"$1\r\n3\r\n"), sharded("smessage", "b", b"$1\r\n4\r\n"))
    assert one.heard == [("a", b"1"), ("b", b"4")], "what is another's is not heard"
    assert (one.subscriber.channels(), other.subscriber.channels()) == (["b"], ["a"])


def test_who_waits_for_a_name_waits_for_it_where_it_goes(shards: Shards) -> None:
    shards.one.subscribe("c", "c")
    shards.one.loop.settle()
    shards.one.say(b"-MOVED 1 h:1\r\n")
    assert (shards.moves, shards.one.answers) == (1, [])
    shards.move("c")
    shards.one.tick(2.0)
    assert shards.one.answers == []
    shards.other.say(sharded("ssubscribe", "c"))
    assert shards.one.answers == [("c", None)] * 2
    assert shards.regained == [], "it was never heard before"


def test_a_name_that_is_refused_is_asked_for_again(shards: Shards) -> None:
    shards.one.subscribe("c")
    shards.one.loop.settle()
    shards.one.wire.writes.clear()
    shards.one.say(b"-CLUSTERDOWN no\r\n")
    assert not shards.one.wire.is_aborted
    shards.one.tick(0.25)
    assert shards.one.wire.writes == [pack(("SSUBSCRIBE", b"p:c"))]
    shards.one.tick(0.25)
    assert len(shards.one.wire.writes) == 1, "once for each refusal"
    shards.one.say(sharded("ssubscribe", "c"))
    assert shards.one.answers == [("c", None)]


def test_a_name_that_is_refused_to_us_is_no_matter_of_slots(shards: Shards) -> None:
    shards.one.subscribe("c")
    shards.one.loop.settle()
    shards.one.say(b"-NOPERM not for you\r\n")
    assert shards.moves == 0
    assert shards.one.wire.is_aborted


def test_what_was_heard_when_the_connection_went_is_regained_wherever_it_is_next(shards: Shards) -> None:
    assert shards.one.subscriber.down()
    shards.move("a")
    shards.other.say(sharded("ssubscribe", "a"))
    assert shards.regained == ["a"]
    shards.one.connect()
    shards.one.say(sharded("ssubscribe", "b"))
    assert shards.regained == ["a", "b"]


def test_one_that_comes_up_hears_when_what_is_left_to_it_is_confirmed(shards: Shards) -> None:
    shards.one.subscriber.down()
    shards.one.connect()
    hearings = shards.one.hearings
    shards.one.say(sharded("ssubscribe", "b"))
    assert shards.one.hearings == hearings
    shards.move("a")
    assert shards.one.hearings == hearings + 1
    assert shards.one.subscriber.is_hearing


def test_what_nobody_wants_any_more_goes_nowhere(shards: Shards) -> None:
    shards.one.unsubscribe("a")
    shards.one.say(sharded("sunsubscribe", "a", b":0\r\n"))
    shards.move("a")
    assert shards.other.subscriber.channels() == []
    shards.one.unsubscribe("b")
    shards.one.wire.writes.clear()
    shards.one.tick(LINGER)
    assert shards.one.wire.writes == [pack(("SUNSUBSCRIBE", b"p:b"))]
