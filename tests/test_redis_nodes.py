"""How nodes speak with each other over a real Redis: heard by all or by one, remembered for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count

import pytest

from server.brokers.base import BrokerError, Shared
from server.brokers.redis import nodes as room
from server.brokers.redis.scripts import is_for_nodes
from server.core.names import name_fault
from tests.redis_nodes import RedisNode, node, until
from tests.redis_server import RedisServer

NUMBERS = count()


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def url(redis: RedisServer) -> str:
    """Each test has its own keys."""
    return f"{redis.url}?prefix=nodes{next(NUMBERS)}"


class Listener:
    """A node that writes down what it is told, and says that it is there when it is asked to."""

    def __init__(self, place: RedisNode, uid: str) -> None:
        self.switchboard = place.broker.switchboard
        self.uid = uid
        self.place = place
        self.heard: list[bytes] = []
        self.calls = 0
        self.switchboard.attend(uid, self.take, self.announce)

    def take(self, said: bytes) -> bool:
        self.heard.append(said)
        return said != b"nonsense"

    def announce(self) -> None:
        self.calls += 1
        self.switchboard.announce(b"I am " + self.uid.encode())

    async def tell(self, uid: str, said: bytes) -> object:
        return await self.place.try_to(self.switchboard.tell, uid, said)

    async def words(self) -> object:
        return await self.place.try_to(self.switchboard.announced)


async def test_a_word_goes_to_all_or_to_one(url: str) -> None:
    async with node(url) as first, node(url) as second:
        assert isinstance(first.broker, Shared)
        a, b = Listener(first, "a"), Listener(second, "b")
        async with asyncio.timeout(5):
            while await a.tell("", b"all") != 2:  # noqa: ASYNC110 - they have only just begun to listen
                await asyncio.sleep(0.01)
        assert await a.tell("b", b"one") == 1
        assert await b.tell("nobody", b"none") == 0
        await until(lambda: b.heard[-1:] == [b"one"])
        assert b"one" not in a.heard
        assert await b.tell("a", b"nonsense") == 1
        await until(lambda: first.broker.malformed == 1)
        assert second.broker.malformed == 0
        assert (first.ear.heard, first.ear.news) == ([], [])


async def test_words_are_remembered_until_they_expire_or_their_node_goes(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node(url) as first:
        a = Listener(first, "a")
        a.announce()
        async with node(url) as second:
            b = Listener(second, "b")
            b.announce()
            await until(lambda: True)
            assert await a.words() == {"a": b"I am a", "b": b"I am b"}
        assert await a.words() == {"a": b"I am a"}
        monkeypatch.setattr(room, "WORD_TTL", 0.02)
        a.announce()
        async with asyncio.timeout(5):
            while await a.words() != {}:  # noqa: ASYNC110 - Redis announces nothing of the kind
                await asyncio.sleep(0.01)


async def test_words_are_renewed_now_and_then_and_at_once_when_redis_is_back() -> None:
    with RedisServer() as redis:
        async with node(redis.url) as first:
            a = Listener(first, "a")
            for _ in range(3):
                first.broker.sweep()
            assert a.calls == 1, "not every second"
            redis.kill()
            await until(lambda: not first.broker.is_up)
            assert isinstance(await a.tell("", b"x"), BrokerError)
            assert isinstance(await a.words(), BrokerError)
            redis.restart()
            await until(lambda: first.broker.is_up)
            assert a.calls == 2
            assert await a.words() == {"a": b"I am a"}


async def test_what_is_too_long_is_not_said(url: str) -> None:
    async with node(url) as first:
        a = Listener(first, "a")
        assert isinstance(await a.tell("a", bytes(room.MOST_SAID + 1)), BrokerError)


async def test_no_client_can_name_the_channels_of_the_nodes() -> None:
    for name in (room.EVERYONE, room._of("a")):
        assert is_for_nodes(name)
        assert name_fault(name, 128)
