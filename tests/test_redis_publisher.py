"""What is heard of our own publications when connections end and channels move: each once, and in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from server.brokers.base import PLAIN, BrokerError, Published
from server.brokers.redis import scripts
from server.brokers.redis.commands import AWAY, Redirect
from server.brokers.redis.message import decode
from server.brokers.redis.publisher import Publisher
from server.brokers.redis.scripts import Names
from server.core.publication import Publication
from tests.redis_nodes import Notes

ORIGIN = b"origin00"


class Commands:
    """What is asked of Redis, until the test answers."""

    def __init__(self) -> None:
        self.is_up = True
        self.asked: list[tuple[Any, Callable[[Any], object]]] = []

    def ask(self, command: Any, done: Callable[[Any], object]) -> None:
        self.asked.append((command, done))

    def answers(self) -> list[Callable[[Any], object]]:
        return [done for _, done in self.asked]


class Desk:
    """A shard's publisher; `regaining` says that its channels were heard, and are not."""

    def __init__(self, ear: Notes, serials: Callable[[], int], origin: bytes = ORIGIN) -> None:
        self.commands = Commands()
        self.is_deaf = False
        self.regaining: set[bytes] = set()
        self.heard = {b"p:c:{news}", b"p:c:{staying}"}
        self.publisher = Publisher(
            self.commands,  # type: ignore[arg-type]
            Names("p"),
            scripts.CLUSTER,
            ear,
            origin=origin,
            serials=serials,
            new_epoch=lambda: "epoch000",
            wall_clock=lambda: 0.0,
            is_deaf=lambda: self.is_deaf,
            is_heard=self.heard.__contains__,
            is_regaining=self.regaining.__contains__,
            incarnation=lambda: b"",
            tell_neighbours=lambda channel, said: self.neighbourly.append((channel, said)),
        )
        self.told: list[Any] = []
        self.neighbourly: list[tuple[str, bytes]] = []

    def say(self, payload: bytes, channel: str = "news") -> None:
        self.publisher.publish(channel, Publication(payload), PLAIN, self.told.append)

    def answer(self, reply: Any) -> None:
        _, done = self.commands.asked.pop(0)
        done(reply)

    def messages(self) -> list[bytes]:
        """Return what is asked of Redis to publish."""
        assert all(verb == "SPUBLISH" for (verb, *_), _ in self.commands.asked)
        return [message for (_, _, message), _ in self.commands.asked]

    def echo(self, place: int = 0, channel: str = "news") -> None:
        """Have Redis bring back what is asked of it."""
        self.bring(self.messages()[place], channel)

    def bring(self, message: bytes, channel: str = "news") -> None:
        _, origin, serial, epoch, publication = decode(message)
        self.publisher.hear(channel, publication, epoch, origin, serial)


def desks() -> tuple[Notes, Desk, Desk]:
    ear, serials = Notes(), count(1).__next__
    return ear, Desk(ear, serials), Desk(ear, serials)


def neighbour() -> tuple[Notes, Desk]:
    """Another process of the same server."""
    ear = Notes()
    return ear, Desk(ear, count(1).__next__, origin=b"neighbor")


def test_what_is_heard_comes_from_redis() -> None:
    ear, desk, _ = desks()
    desk.say(b"1")
    assert ear.texts() == []
    desk.echo()
    desk.echo()
    desk.answer(1)
    assert ear.texts() == [b"1"]
    assert desk.told == [Published()]


def test_while_a_channel_moves_its_own_are_heard_at_once_and_not_again() -> None:
    ear, desk, _ = desks()
    desk.say(b"1", "staying")
    desk.regaining.add(b"p:c:{news}")
    desk.say(b"2")
    assert ear.texts() == [b"2"]
    desk.echo(0, "staying")
    assert ear.texts() == [b"2", b"1"], "what is on its way on other channels is not taken for heard"
    desk.echo(1)
    assert ear.texts() == [b"2", b"1"]


def test_what_redis_has_taken_is_heard_before_what_is_said_when_its_commands_end() -> None:
    ear, desk, _ = desks()
    desk.say(b"1")
    (taken,) = desk.messages()
    desk.answer(1)
    desk.commands.is_up = False
    desk.say(b"2")
    assert ear.texts() == [b"1", b"2"]
    desk.bring(taken)  # the other connection lives a moment longer
    assert ear.texts() == [b"1", b"2"]
    assert desk.told == [Published(), AWAY]


def test_what_redis_has_taken_and_cannot_bring_is_heard_when_we_become_deaf() -> None:
    ear, desk, _ = desks()
    desk.say(b"1")
    desk.answer(1)
    desk.say(b"2")
    desk.publisher.hear_what_waits()
    assert ear.texts() == [b"1", b"2"]
    desk.answer(AWAY)
    assert ear.texts() == [b"1", b"2"]


def test_what_is_heard_without_redis_is_for_the_neighbours_too_and_once() -> None:
    ear, desk, _ = desks()
    desk.say(b"1")
    desk.say(b"2", "elsewhere")
    assert desk.neighbourly == [], "Redis brings it to them"
    (taken, *_) = desk.messages()
    desk.commands.is_up = False
    desk.publisher.hear_what_waits()
    desk.say(b"3")
    assert ear.texts() == [b"1", b"2", b"3"]
    assert [channel for channel, _ in desk.neighbourly] == ["news", "elsewhere", "news"]
    others, next_door = neighbour()
    next_door.bring(taken)  # Redis was faster, and may be slower
    for channel, said in desk.neighbourly:
        next_door.bring(said, channel)
    next_door.bring(taken)
    assert others.texts() == [b"1", b"2", b"3"]


def test_what_nobody_heard_when_it_was_said_is_not_heard_later() -> None:
    ear, desk, _ = desks()
    desk.say(b"unwanted", "elsewhere")
    desk.answer(0)
    desk.say(b"left behind")
    desk.answer(1)
    desk.publisher.forget("news")
    desk.publisher.hear_what_waits()
    assert ear.texts() == []


def test_what_redis_refuses_is_not_heard() -> None:
    ear, desk, _ = desks()
    desk.say(b"1")
    desk.answer(BrokerError("OOM command not allowed"))
    desk.publisher.hear_what_waits()
    assert ear.texts() == []


class Redis:
    """One Redis and the two connections to it, moved on step by step: what is sent, answered and brought."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.brought: deque[bytes] = deque()
        self.taken = 0  # of what waits for an answer
        self.said: list[bytes] = []

    def say(self) -> None:
        self.said.append(b"%d" % len(self.said))
        self.desk.say(self.said[-1])

    def take(self) -> None:
        """Redis does the next command."""
        if self.taken < len(self.desk.commands.asked):
            message = self.desk.messages()[self.taken]
            self.taken += 1
            if not self.desk.is_deaf:
                self.brought.append(message)

    def answer(self) -> None:
        if self.taken:
            self.taken -= 1
            self.desk.answer(1)

    def bring(self) -> None:
        if self.brought:
            self.desk.bring(self.brought.popleft())

    def end_commands(self) -> None:
        self.desk.commands.is_up = False
        self.taken = 0
        while self.desk.commands.asked:
            self.desk.answer(AWAY)

    def end_hearing(self) -> None:
        self.brought.clear()
        self.desk.is_deaf = True
        self.desk.publisher.hear_what_waits()

    def come_back(self) -> None:
        self.desk.commands.is_up = True
        self.desk.is_deaf = False


STEPS = (Redis.say, Redis.take, Redis.answer, Redis.bring, Redis.end_commands, Redis.end_hearing, Redis.come_back)


def run(redis: Redis, steps: list[Callable[[Redis], None]]) -> None:
    for step in steps:
        step(redis)
    for _ in redis.said:
        redis.take()
        redis.answer()
        redis.bring()
    redis.end_hearing()  # whatever is nowhere now was lost


@given(st.lists(st.sampled_from(STEPS), max_size=40))
def test_whichever_connection_ends_first_each_is_heard_once_and_in_order(steps: list[Callable[[Redis], None]]) -> None:
    ear, desk, _ = desks()
    redis = Redis(desk)
    run(redis, steps)
    assert ear.texts() == redis.said


def test_that_law_is_broken_where_what_was_sent_is_not_remembered() -> None:
    ear, desk, _ = desks()
    desk.heard.clear()
    redis = Redis(desk)
    run(redis, [Redis.say, Redis.take, Redis.answer, Redis.end_commands, Redis.say, Redis.bring])
    assert ear.texts() == [b"1"] != redis.said


def test_what_was_heard_already_is_sent_on_and_not_heard_again() -> None:
    ear, old, new = desks()
    old.regaining.add(b"p:c:{news}")
    old.say(b"1")
    assert ear.texts() == [b"1"]
    redirect = Redirect("MOVED 1 h:1")
    old.answer(redirect)
    assert old.told == [redirect]
    assert redirect.instead is not None
    redirect.instead(SimpleNamespace(publisher=new.publisher), new.told.append)
    new.echo()
    new.answer(0)
    assert ear.texts() == [b"1"]
    assert new.told == [Published()]


def test_what_was_not_heard_yet_is_published_anew() -> None:
    _, old, _ = desks()
    old.say(b"1")
    redirect = Redirect("MOVED 1 h:1")
    old.answer(redirect)
    assert redirect.instead is None


def test_what_waits_when_we_become_deaf_is_heard_once_also_if_it_is_sent_on_or_lost() -> None:
    ear, old, new = desks()
    old.say(b"1")
    old.say(b"2")
    old.publisher.hear_what_waits()
    assert ear.texts() == [b"1", b"2"]
    redirect = Redirect("MOVED 1 h:1")
    old.answer(redirect)
    assert redirect.instead is not None
    redirect.instead(SimpleNamespace(publisher=new.publisher), new.told.append)
    new.answer(AWAY)
    old.answer(AWAY)
    assert ear.texts() == [b"1", b"2"]
    assert new.told == [AWAY]
    assert old.told == [redirect, AWAY]


def test_where_nobody_takes_anything_it_is_heard_here_alone() -> None:
    ear, desk, _ = desks()
    desk.commands.is_up = False
    desk.say(b"1")
    desk.publisher.publish_heard("news", Publication(b"2"), desk.told.append)
    assert ear.texts() == [b"1"]
    assert all(isinstance(answer, BrokerError) for answer in desk.told)
    assert desk.commands.asked == []


def test_what_is_remembered_is_bounded() -> None:
    ear, desk, _ = desks()
    desk.regaining.add(b"p:c:{news}")
    for _ in range(10_100):
        desk.say(b"x")
    assert len(desk.publisher._heard_at_once) == 10_000
    assert len(ear.heard) == 10_100


def test_what_a_primary_that_hung_says_late_is_not_heard_again_where_its_replica_is_now() -> None:
    ear, old, _ = desks()
    for text in (b"1", b"2"):
        old.say(text)
    late = old.messages()
    old.answer(AWAY)
    old.answer(AWAY)
    assert ear.texts() == [b"1", b"2"], "heard here, as when Redis is away"
    new = Desk(ear, old.publisher._next_serial)
    new.say(b"3")
    for message in late:
        new.bring(message)
    new.echo()
    assert ear.texts() == [b"1", b"2", b"3"]


def test_what_comes_late_from_others_is_not_heard_after_what_they_said_later() -> None:
    ear, desk, _ = desks()

    def bring(origin: bytes, serial: int) -> None:
        desk.publisher.hear("news", Publication(b"%b %d" % (origin, serial)), "", origin, serial)

    for origin, serial in ((b"a", 5), (b"b", 2), (b"a", 4), (b"a", 6), (b"a", 6), (b"b", 3)):
        bring(origin, serial)
    assert ear.texts() == [b"a 5", b"b 2", b"a 6", b"b 3"]
    desk.publisher.hear("news", Publication(b"kept", offset=1), "epoch000", b"a", 0)
    assert ear.texts()[-1] == b"kept"
    for number in range(10_100):
        bring(b"%d" % number, 1)
    assert len(desk.publisher._last) <= 10_000
