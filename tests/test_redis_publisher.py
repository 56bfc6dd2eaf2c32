"""What is heard of our own publications when channels move between shards: each once, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from types import SimpleNamespace
from typing import Any

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

    def __init__(self, ear: Notes, serials: Callable[[], int]) -> None:
        self.commands = Commands()
        self.is_deaf = False
        self.regaining: set[bytes] = set()
        self.publisher = Publisher(
            self.commands,  # type: ignore[arg-type]
            Names("p"),
            scripts.CLUSTER,
            ear,
            origin=ORIGIN,
            serials=serials,
            new_epoch=lambda: "epoch000",
            wall_clock=lambda: 0.0,
            is_deaf=lambda: self.is_deaf,
            is_regaining=self.regaining.__contains__,
            incarnation=lambda: b"",
        )
        self.told: list[Any] = []

    def say(self, payload: bytes, channel: str = "news") -> None:
        self.publisher.publish(channel, Publication(payload), PLAIN, self.told.append)

    def answer(self, reply: Any) -> None:
        _, done = self.commands.asked.pop(0)
        done(reply)

    def echo(self, place: int = 0, channel: str = "news") -> None:
        """Have Redis bring back what is asked of it."""
        (verb, _, message), _ = self.commands.asked[place]
        assert verb == "SPUBLISH"
        _, origin, serial, epoch, publication = decode(message)
        self.publisher.hear(channel, publication, epoch, origin, serial)


def desks() -> tuple[Notes, Desk, Desk]:
    ear, serials = Notes(), count(1).__next__
    return ear, Desk(ear, serials), Desk(ear, serials)


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
    late = [message for (_, _, message), _ in old.commands.asked]
    old.answer(AWAY)
    old.answer(AWAY)
    assert ear.texts() == [b"1", b"2"], "heard here, as when Redis is away"
    new = Desk(ear, old.publisher._next_serial)
    new.say(b"3")
    for message in late:
        _, origin, serial, epoch, publication = decode(message)
        new.publisher.hear("news", publication, epoch, origin, serial)
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
