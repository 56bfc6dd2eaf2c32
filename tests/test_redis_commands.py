"""The queue of commands: one write per turn, answers in order and in time, bounds, and scripts that were forgotten."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest

from server.brokers.base import BrokerError
from server.brokers.redis.commands import AWAY, BUSY, Commands, Redirect, Refusal
from server.brokers.redis.connection import Connection
from server.brokers.redis.scripts import Script
from tests.fakes import Clock, Loop

SCRIPT = Script(b"return 1")


class Wire:
    """Stands for a connection: what was written, and what Redis says."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.is_aborted = False
        self.say: Callable[[bytes], None] = lambda data: None

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def abort(self) -> None:
        self.is_aborted = True

    def hand_over(self, receive: Callable[[bytes], None]) -> None:
        self.say = receive


class Desk:
    """The commands of one Redis, on a clock and a loop that a test turns by hand."""

    def __init__(self, **bounds: int) -> None:
        self.clock = Clock(100.0)
        self.loop = Loop(self.clock)
        self.failures: list[str] = []
        self.answers: list[tuple[Any, Any]] = []
        self.commands = Commands(
            (SCRIPT,),
            fail=self.failures.append,
            clock=self.clock,
            call_soon=self.loop.call_soon,
            patience=1.5,
            **bounds,
        )
        self.wire = self.connect()

    def connect(self) -> Wire:
        wire = Wire()
        self.commands.up(cast(Connection, wire))
        return wire

    def ask(self, *names: str) -> None:
        for name in names:
            self.commands.ask((name,), partial(self.note, name))

    def note(self, name: str, answer: object) -> None:
        self.answers.append((name, answer))


def said(*names: str) -> bytes:
    return b"".join(b"*1\r\n$1\r\n%b\r\n" % name.encode() for name in names)


LOAD = b"*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$8\r\nreturn 1\r\n"


def test_what_redis_could_work_on_does_not_wait_for_the_end_of_the_turn() -> None:
    desk = Desk()
    desk.ask("A")
    assert desk.wire.writes == [said("A")], "Redis has nothing else to do"
    desk.ask("B", "C")
    assert desk.wire.writes == [said("A")]
    desk.loop.settle()
    assert desk.wire.writes == [said("A"), said("B", "C")]
    desk.wire.say(b":1\r\n:1\r\n:1\r\n")
    desk.ask("D")
    assert desk.wire.writes == [said("A"), said("B", "C"), said("D")]
    desk.loop.settle()
    assert len(desk.wire.writes) == 3


def test_many_in_one_turn_go_out_by_the_batch() -> None:
    desk = Desk()
    names = [chr(ord("A") + number) for number in range(50)]
    desk.ask(*names)
    assert desk.wire.writes == [said("A"), said(*names[1:17]), said(*names[17:33]), said(*names[33:49])]
    desk.loop.settle()
    assert desk.wire.writes[4:] == [said(names[49])]
    desk.wire.say(b":1\r\n" * 50)
    assert [name for name, _ in desk.answers] == names


def test_answers_come_in_order_however_they_are_cut() -> None:
    desk = Desk()
    desk.ask("A", "B", "C", "D")
    desk.loop.settle()
    for byte in b":0\r\n$2\r\nhi\r\n*2\r\n:1\r\n$-1\r\n":
        desk.wire.say(bytes([byte]))
    assert desk.answers == [("A", 0), ("B", b"hi"), ("C", [1, None])]
    assert desk.commands.waiting == 1
    desk.wire.say(b"-ERR no\r\n")
    name, answer = desk.answers[-1]
    assert name == "D"
    assert isinstance(answer, Refusal)
    assert str(answer) == "ERR no"


def test_who_asks_while_redis_is_away_is_told_at_once_and_who_waited_too() -> None:
    desk = Desk()
    desk.ask("A")
    desk.loop.settle()
    desk.ask("B")
    desk.commands.down()
    desk.commands.down()
    desk.ask("C")
    assert desk.answers == [("A", AWAY), ("B", AWAY), ("C", AWAY)]
    desk.loop.settle()
    assert len(desk.wire.writes) == 1, "B is not written any more"
    desk.wire = desk.connect()
    desk.ask("D")
    desk.loop.settle()
    desk.wire.say(b":1\r\n")
    assert desk.answers[-1] == ("D", 1)


def test_an_answer_that_is_overdue_ends_the_connection() -> None:
    desk = Desk()
    desk.ask("A")
    desk.loop.settle()
    desk.clock.advance(1.0)
    desk.ask("B")
    desk.commands.tick(desk.clock.now)
    assert desk.answers == []
    desk.commands.tick(desk.clock.advance(0.5))
    assert desk.answers == [("A", AWAY), ("B", AWAY)]
    assert desk.wire.is_aborted
    assert desk.failures == ["no answer in time"]
    assert not desk.commands.is_up
    desk.commands.tick(desk.clock.advance(100))
    assert len(desk.failures) == 1


@pytest.mark.parametrize("bounds", [{"most": 3}, {"most_bytes": 3 * len(b"*1..$1..A..")}], ids=["number", "bytes"])
def test_what_waits_is_bounded(bounds: dict[str, int]) -> None:
    desk = Desk(**bounds)
    desk.ask("A", "B")
    desk.loop.settle()
    desk.ask("C", "D")
    assert desk.answers == [("D", BUSY)]
    desk.loop.settle()
    desk.wire.say(b":1\r\n")
    desk.ask("E", "F")
    assert desk.answers == [("D", BUSY), ("A", 1), ("F", BUSY)]
    desk.loop.settle()
    desk.wire.say(b":1\r\n:1\r\n:1\r\n")
    assert [name for name, _ in desk.answers] == ["D", "A", "F", "B", "C", "E"]
    assert desk.commands._bytes == 0


def test_a_forgotten_script_is_loaded_and_nothing_overtakes_what_must_be_asked_again() -> None:
    desk = Desk()
    desk.ask("A", "B")
    desk.loop.settle()
    desk.ask("C")
    desk.loop.settle()
    desk.wire.say(b"-NOSCRIPT No matching script.\r\n-NOSCRIPT\r\n")
    desk.ask("D")
    desk.loop.settle()
    assert desk.wire.writes == [said("A"), said("B"), said("C")], "C may be answered with the same"
    desk.wire.say(b"-NOSCRIPT\r\n")
    assert desk.answers == []
    assert desk.wire.writes[3:] == [LOAD + said("A", "B", "C", "D")]
    desk.ask("E")
    desk.loop.settle()
    desk.wire.say(b"$3\r\nsha\r\n:1\r\n:2\r\n:3\r\n:4\r\n:5\r\n")
    assert desk.answers == [("A", 1), ("B", 2), ("C", 3), ("D", 4), ("E", 5)]


def test_what_was_sent_behind_a_forgotten_script_may_be_done_before_and_nothing_that_was_not_sent() -> None:
    desk = Desk()
    desk.ask("A", "B", "C")
    desk.loop.settle()
    desk.wire.say(b"-NOSCRIPT\r\n")
    desk.ask("D")
    desk.loop.settle()
    assert desk.wire.writes == [said("A"), said("B", "C")], "B is not answered yet"
    desk.wire.say(b":1\r\n-NOSCRIPT\r\n")  # B needed no script
    assert desk.wire.writes[2:] == [LOAD + said("A", "C", "D")]
    desk.wire.say(b"$3\r\nsha\r\n:1\r\n:1\r\n:1\r\n")
    assert desk.answers == [("B", 1), ("A", 1), ("C", 1), ("D", 1)]
    assert (desk.commands.waiting, desk.commands._bytes) == (0, 0)


def test_what_waits_to_be_asked_again_is_not_forgotten_when_redis_goes() -> None:
    desk = Desk()
    desk.ask("A", "B")
    desk.loop.settle()
    desk.wire.say(b"-NOSCRIPT\r\n")
    desk.ask("C")
    assert len(list(desk.commands.answers())) == 3
    desk.commands.down()
    assert [name for name, _ in desk.answers] == ["B", "A", "C"]
    assert {answer for _, answer in desk.answers} == {AWAY}


@pytest.mark.parametrize("answer", [b"-READONLY You can't write\r\n", b"-LOADING\r\n", b"-MASTERDOWN\r\n"])
def test_a_redis_that_takes_no_writes_is_left(answer: bytes) -> None:
    desk = Desk()
    desk.ask("A")
    desk.loop.settle()
    desk.wire.say(answer)
    assert isinstance(desk.answers[0][1], BrokerError)
    assert desk.wire.is_aborted
    assert len(desk.failures) == 1


@pytest.mark.parametrize("rubbish", [b"HTTP/1.1 400\r\n", b":1\r\n"], ids=["no RESP", "an answer too many"])
def test_a_redis_that_makes_no_sense_is_left(rubbish: bytes) -> None:
    desk = Desk()
    desk.wire.say(rubbish)
    assert desk.wire.is_aborted
    assert len(desk.failures) == 1


def test_an_answer_that_cannot_be_taken_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()

    def fail(answer: object) -> None:
        raise ValueError("cannot")

    desk.commands.ask(("A",), fail)
    desk.ask("B")
    desk.loop.settle()
    desk.wire.say(b":1\r\n:2\r\n")
    assert desk.answers == [("B", 2)]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize(
    ("said_by_redis", "place"),
    [
        (b"-MOVED 3999 10.0.0.1:6381\r\n", None),
        (b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n", None),
        (b"-ASK 3999 10.0.0.1:6381\r\n", ("10.0.0.1", 6381)),
        (b"-ASK 3999 ::1:6381\r\n", ("::1", 6381)),
        (b"-ASK 3999 :6381\r\n", ("", 6381)),
        (b"-ASK nonsense\r\n", None),
    ],
)
def test_who_asks_in_the_wrong_place_is_sent_on(said_by_redis: bytes, place: tuple[str, int] | None) -> None:
    desk = Desk()
    desk.ask("A", "B")
    desk.loop.settle()
    desk.wire.say(said_by_redis + b":1\r\n")
    (_, answer), second = desk.answers
    assert isinstance(answer, Redirect)
    assert answer.asks == place
    assert second == ("B", 1)
    assert desk.failures == []


def test_what_is_only_on_its_way_is_asked_for_with_leave() -> None:
    desk = Desk()
    desk.ask("A")
    with desk.commands.asking():
        desk.ask("B")
    desk.ask("C")
    desk.loop.settle()
    assert b"".join(desk.wire.writes) == said("A") + b"*1\r\n$6\r\nASKING\r\n" + said("B", "C")
    desk.wire.say(b":1\r\n+OK\r\n:2\r\n:3\r\n")
    assert desk.answers == [("A", 1), ("B", 2), ("C", 3)]
    assert desk.commands.waiting == 0


@pytest.mark.parametrize("text", ["CLUSTERDOWN The cluster is down", "READONLY no", "LOADING", "MASTERDOWN no"])
def test_a_redis_that_takes_nothing_is_away(text: str) -> None:
    desk = Desk()
    desk.ask("A")
    desk.loop.settle()
    desk.wire.say(f"-{text}\r\n".encode())
    assert desk.answers == [("A", AWAY)]
    assert desk.wire.is_aborted
    assert desk.failures == [f"it is not the Redis to write to: {text}"]
    assert not desk.commands.is_up


def test_what_many_are_answered_is_said_once() -> None:
    desk = Desk()
    desk.ask("A", "B", "C")
    desk.loop.settle()
    desk.wire.say(b"-READONLY no\r\n" * 2)
    desk.ask("D")
    assert desk.answers == [("A", AWAY), ("B", AWAY), ("D", AWAY)]
    assert desk.failures == ["it is not the Redis to write to: READONLY no"]
    desk.commands.down()
    assert desk.answers[3:] == [("C", AWAY)]


def test_a_redis_that_takes_the_forgotten_scripts_no_more_is_left() -> None:
    desk = Desk()
    desk.ask("A")
    desk.wire.say(b"-NOSCRIPT\r\n")
    assert desk.wire.writes[1:] == [LOAD + said("A")]
    desk.wire.say(b"-NOPERM no\r\n-NOSCRIPT\r\n")
    assert desk.wire.is_aborted
    assert desk.failures == ["it has forgotten its scripts, and takes them no more: NOPERM no"]
    assert len(desk.wire.writes) == 2
    desk.commands.down()
    assert desk.answers == [("A", AWAY)]


def test_what_comes_upon_a_forgotten_script_again_and_again_is_answered_in_time() -> None:
    desk = Desk()
    desk.ask("A")
    for _ in range(20):
        desk.wire.say(b"-NOSCRIPT\r\n")
        desk.clock.advance(0.1)
        desk.commands.tick(desk.clock())
        if desk.wire.is_aborted:
            break
        desk.wire.say(b"+OK\r\n")
    assert desk.answers == [("A", AWAY)]
    assert desk.failures == ["no answer in time"]
