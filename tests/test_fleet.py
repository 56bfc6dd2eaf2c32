"""What servers say to each other: asked of all, answered once each, checked like anything that comes from outside."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import orjson
import pytest

from server.admin import fleet
from server.admin.fields import INTERNAL, ApiError
from server.admin.fleet import Fleet
from server.brokers.base import BrokerError, Done


class Room:
    """A switchboard of this process: whoever attends hears at once what is said."""

    def __init__(self) -> None:
        self.ears: dict[str, Callable[[bytes], bool]] = {}
        self.words: dict[str, bytes] = {}
        self.said: list[tuple[str, bytes]] = []
        self.is_away = False
        self.deaf = 0  # so many hear, and do not answer


class Seat:
    """One server's place in the room."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.uid = ""
        self.announce_now: Callable[[], object]

    def attend(self, uid: str, take: Callable[[bytes], bool], announce: Callable[[], object]) -> None:
        self.uid, self.announce_now = uid, announce
        self.room.ears[uid] = take

    def tell(self, uid: str, said: bytes, done: Done[int]) -> None:
        if self.room.is_away:
            done(BrokerError("away"))
            return
        self.room.said.append((uid, said))
        ears = [take for name, take in self.room.ears.items() if uid in ("", name)]
        done(len(ears) + self.room.deaf)
        for take in ears:
            assert take(said)

    def announce(self, said: bytes) -> None:
        self.room.words[self.uid] = said

    def announced(self, done: Done[Mapping[str, bytes]]) -> None:
        done(BrokerError("away") if self.room.is_away else dict(self.room.words))


class Server:
    """A server that writes down what it is asked to do."""

    def __init__(self, room: Room, name: str) -> None:
        self.seat = Seat(room)
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.fault: Exception | None = None
        self.answer: dict[str, Any] = {"name": name}
        self.nodes: list[dict[str, Any]] | None = [{"name": name}]
        self.fleet = Fleet(self.seat, self._do, self._tell_nodes)

    async def _do(self, name: str, request: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append((name, request))
        if self.fault is not None:
            raise self.fault
        return self.answer

    async def _tell_nodes(self) -> list[dict[str, Any]]:
        if self.nodes is None:
            raise ApiError(INTERNAL, "nobody here")
        return self.nodes


@pytest.fixture
def room() -> Room:
    return Room()


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_every_other_server_is_asked_once_and_answers(room: Room) -> None:
    a, b, c = (Server(room, name) for name in "abc")
    answers = await a.fleet.ask("disconnect", {"user": "ann"})
    assert sorted(answers, key=str) == [{"result": {"name": "b"}}, {"result": {"name": "c"}}]
    assert (a.asked, b.asked, c.asked) == ([], [("disconnect", {"user": "ann"})], [("disconnect", {"user": "ann"})])


async def test_nobody_else_is_there(room: Room) -> None:
    assert await Server(room, "a").fleet.ask("refresh", {}) == []


async def test_a_refusal_is_an_answer(room: Room) -> None:
    a, b = Server(room, "a"), Server(room, "b")
    b.fault = ApiError(107, "no")
    assert await a.fleet.ask("subscribe", {}) == [{"error": {"code": 107, "message": "no"}}]


async def test_two_questions_at_once_are_not_mixed_up(room: Room) -> None:
    a, b = Server(room, "a"), Server(room, "b")
    first, second = await asyncio.gather(a.fleet.ask("refresh", {"n": 1}), b.fleet.ask("refresh", {"n": 2}))
    assert (first, second) == ([{"result": {"name": "b"}}], [{"result": {"name": "a"}}])


async def test_who_does_not_answer_is_not_waited_for(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "PATIENCE", 0.05)
    a, _ = Server(room, "a"), Server(room, "b")
    room.deaf = 1
    assert await a.fleet.ask("refresh", {}) == [{"result": {"name": "b"}}]


async def test_while_nobody_can_be_reached_the_caller_is_told(room: Room) -> None:
    a = Server(room, "a")
    room.is_away = True
    with pytest.raises(ApiError, match="done on this server alone"):
        await a.fleet.ask("refresh", {})
    assert await a.fleet.others() == []


async def test_what_is_too_long_is_neither_asked_nor_answered(room: Room) -> None:
    a, b = Server(room, "a"), Server(room, "b")
    with pytest.raises(ApiError, match="too long"):
        await a.fleet.ask("subscribe", {"data": "x" * fleet.MOST_ASKED})
    assert b.asked == []
    b.answer = {"channels": "x" * fleet.MOST_ANSWERED}
    [answer] = await a.fleet.ask("channels", {})
    assert "more to tell than can be sent" in answer["error"]["message"]


async def test_a_server_that_is_asked_too_much_says_so(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "MOST_AT_ONCE", 0)
    a, b = Server(room, "a"), Server(room, "b")
    [answer] = await a.fleet.ask("channels", {})
    assert "asked too much" in answer["error"]["message"]
    assert b.asked == []


async def test_only_what_concerns_clients_is_done_for_others(room: Room) -> None:
    a, b = Server(room, "a"), Server(room, "b")
    [answer] = await a.fleet.ask("publish", {})
    assert "does not know" in answer["error"]["message"]
    assert b.asked == []


async def test_the_nodes_of_the_others_are_told_of(room: Room) -> None:
    a, b, c = (Server(room, name) for name in "abc")
    c.nodes = None
    for server in (a, b, c):
        server.seat.announce_now()
    await turns()
    assert set(room.words) == {a.seat.uid, b.seat.uid}
    assert await a.fleet.others() == [{"name": "b"}]
    room.words["x"], room.words["y"], room.words["z"] = b"rubbish", b'{"v":2,"nodes":[{}]}', b'{"v":1,"nodes":[7]}'
    assert await a.fleet.others() == [{"name": "b"}]


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\x80\x04\x95",
        b"[]",
        b"{}",
        b'{"v":2,"from":"x","number":1,"ask":"refresh","request":{}}',
        b'{"v":1,"from":"x","number":"1","ask":"refresh","request":{}}',
        b'{"v":1,"from":"x","number":1,"ask":"refresh","request":[]}',
        b'{"v":1,"from":7,"number":1,"ask":"refresh","request":{}}',
        b'{"v":1,"from":"x","number":1,"answer":7}',
        orjson.dumps({"v": 1, "from": "x", "number": 1, "answer": {"x": "x" * fleet.MOST_ANSWERED}}),
    ],
)
async def test_what_makes_no_sense_is_not_taken(room: Room, said: bytes) -> None:
    a = Server(room, "a")
    assert not a.fleet.take(said)
    await turns()
    assert a.asked == []


async def test_an_answer_that_nobody_waits_for_changes_nothing(room: Room) -> None:
    a = Server(room, "a")
    assert a.fleet.take(b'{"v":1,"from":"x","number":99,"answer":{"result":{}}}')


async def test_a_command_that_fails_is_logged_and_the_next_one_is_done(
    room: Room, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "PATIENCE", 0.05)
    caplog.set_level(logging.ERROR, "stentor.fleet")
    a, b = Server(room, "a"), Server(room, "b")
    b.fault = ZeroDivisionError("for a test")
    assert await a.fleet.ask("refresh", {}) == []
    assert "a command for another server failed" in caplog.text
    b.fault = None
    assert await a.fleet.ask("refresh", {}) == [{"result": {"name": "b"}}]
