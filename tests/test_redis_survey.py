"""Who is asked for the map of a cluster, when, and which maps are used."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from server.brokers.redis import Address
from server.brokers.redis.slots import Map, Range, Unwell
from server.brokers.redis.survey import Survey
from tests.redis_nodes import until

SEEDS = [Address("a", 1, in_cluster=True), Address("b", 2, in_cluster=True)]
OTHER = Address("c", 3, in_cluster=True)


def map_of(epoch: int, *nodes: Address) -> Map:
    return Map(epoch, (Range(0, 16383, nodes[0]),), nodes)


class Desk:
    """A survey whose nodes answer what the test says: a map, or an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: dict[Address, Map | Exception] = {}
        self.asked: list[Address] = []
        self.found: list[Map] = []
        self.is_lost = False
        self.fault: Exception | None = None

        async def ask(survey: Survey, address: Address) -> Map:
            self.asked.append(address)
            answer = self.answers[address]
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(Survey, "_ask", ask)

    def _take(self, seen: Map) -> None:
        self.found.append(seen)
        if self.fault is not None:
            raise self.fault

    @asynccontextmanager
    async def survey(self, period: float = 60.0) -> AsyncIterator[Survey]:
        it = Survey(SEEDS, found=self._take, is_lost=lambda: self.is_lost, patience=1.0, period=period, hurry=0.005)
        it.start()
        it.start()
        try:
            yield it
        finally:
            await it.stop()
            await it.stop()


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk(monkeypatch)
    desk.answers = {address: map_of(1, *SEEDS, OTHER) for address in (*SEEDS, OTHER)}
    return desk


async def test_one_is_asked_at_once_and_the_next_when_there_is_reason(desk: Desk) -> None:
    async with desk.survey() as survey:
        await until(lambda: desk.found)
        assert len(desk.asked) == 1
        survey.hurry()
        survey.hurry()
        await until(lambda: len(desk.found) == 2)
        assert desk.asked[1] != desk.asked[0], "another one may know better"


async def test_all_are_asked_in_their_turn_also_those_that_no_seed_names(desk: Desk) -> None:
    async with desk.survey(period=0.001):
        await until(lambda: set(desk.asked) == {*SEEDS, OTHER})


async def test_who_fails_is_passed_over(desk: Desk) -> None:
    desk.answers[SEEDS[0]] = ConnectionRefusedError("for a test")
    desk.answers[OTHER] = Unwell("for a test")
    async with desk.survey(period=0.001):
        await until(lambda: len(desk.found) >= 3)
    assert {SEEDS[0], OTHER} <= set(desk.asked) | {SEEDS[0], OTHER}
    assert all(seen is desk.answers[SEEDS[1]] for seen in desk.found)


async def test_whose_fault_nobody_foresaw_is_passed_over_too(desk: Desk) -> None:
    desk.answers[SEEDS[0]] = UnicodeError("its name is none, for a test")
    async with desk.survey(period=0.001):
        await until(lambda: SEEDS[0] in desk.asked)
        found = len(desk.found)
        await until(lambda: len(desk.found) > found)


@pytest.mark.parametrize("is_lost", [False, True])
async def test_an_older_map_is_used_only_if_nothing_works(desk: Desk, is_lost: bool) -> None:
    desk.answers = dict.fromkeys((*SEEDS, OTHER), map_of(5, *SEEDS))
    async with desk.survey(period=0.001):
        await until(lambda: desk.found)
        desk.is_lost = is_lost
        old = map_of(4, *SEEDS)
        desk.answers = dict.fromkeys((*SEEDS, OTHER), old)
        asked = len(desk.asked)
        await until(lambda: len(desk.asked) >= asked + 5)
        assert (old in desk.found) is is_lost


async def test_a_cluster_that_cannot_be_found_is_said_to_be_so_once(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "stentor.redis")
    desk.is_lost = True
    good, desk.answers = desk.answers, dict.fromkeys((*SEEDS, OTHER), TimeoutError())
    async with desk.survey():
        await until(lambda: len(desk.asked) > 5)
        desk.answers = good
        await until(lambda: desk.found)
    said = [record.message for record in caplog.records]
    assert len(said) == 2
    assert "no map of the Redis Cluster: it does not answer" in said[0]
    assert said[1] == "the Redis Cluster is well again"


async def test_a_map_that_cannot_be_used_does_not_end_the_survey(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.fault = ZeroDivisionError("for a test")
    async with desk.survey(period=0.001):
        await until(lambda: len(desk.found) > 2)
    assert "could not be used" in caplog.text


async def test_a_node_that_is_none_is_no_map() -> None:
    async def serve(answer: bytes) -> tuple[asyncio.Server, Address]:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1000)
            writer.write(answer)
            await writer.drain()
            await reader.read()
            writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        return server, replace(SEEDS[0], host="127.0.0.1", port=server.sockets[0].getsockname()[1])

    fail: Callable[[Map], None] = lambda seen: pytest.fail("a map out of nothing")  # noqa: E731
    for answer in (b"+OK\r\n*0\r\n", b"-ERR This instance has cluster support disabled\r\n*0\r\n"):
        server, address = await serve(answer)
        survey = Survey([address], found=fail, is_lost=lambda: False, patience=1.0)
        async with server:
            with pytest.raises(Exception, match=r"down|disabled|does not answer as"):
                await survey._ask(address)
