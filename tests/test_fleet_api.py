"""The server API of two servers over one Redis: users are found wherever they are, and everything is told once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from server.admin.api import Api
from server.admin.fields import ApiError
from server.admin.fleet_api import FleetApi, _clients, _good
from server.admin.http_api import routes
from server.brokers.base import Retention
from server.brokers.redis import RedisBroker, parse
from server.node.namespaces import ChannelOptions, Namespaces
from server.supervisor.crew import Crew
from server.supervisor.crew_api import Counterpart, CrewApi, Deaf
from tests.backend import Client, Names, api_of
from tests.house import House, house
from tests.redis_nodes import QUICK, WITHIN, until, until_answered
from tests.redis_server import RedisServer

OPTIONS = ChannelOptions(presence=True, retention=Retention(10, 300.0))
# What is promised: a command is everywhere within a second.
PROMISED = 1.0


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def url(redis: RedisServer) -> str:
    """Each test has its own keys."""
    return f"{redis.url}?prefix=fleet{time.monotonic_ns()}"


class Server:
    """A server of one process, and its API."""

    def __init__(self, home: House, broker: RedisBroker, api: Api) -> None:
        self.home = home
        self.broker = broker
        self.api = api


def _over(broker: RedisBroker, desk: Any, local: Api) -> FleetApi:
    return FleetApi(desk, local, broker.switchboard, max_channel_length=128, max_message_size=65536)


@asynccontextmanager
async def server(url: str) -> AsyncIterator[Server]:
    home = house(credentials=Names(), options=OPTIONS)
    broker = home.node.broker = RedisBroker(parse(url), home.node, pace=QUICK)
    api = _over(broker, home.node, api_of(home))
    assert await broker.start(WITHIN)
    try:
        yield Server(home, broker, api)
    finally:
        await broker.stop()


class LocalWorker:
    """A worker as its supervisor sees it, of this process."""

    def __init__(self, home: House) -> None:
        self._api = api_of(home)
        self.calls: list[str] = []

    async def ask(self, what: str, name: str, request: dict[str, Any], within: float) -> Any:
        self.calls.append(name)
        return {"result": await self._api.call(name, request)}

    def is_silent(self, now: float) -> bool:
        return False


class Crowd:
    """A server of two workers, each with its own way to Redis, and the supervisor's API over them."""

    def __init__(self, url: str) -> None:
        self.homes = [house(credentials=Names(), options=OPTIONS) for _ in range(2)]
        self.brokers = [RedisBroker(parse(url), Deaf(), pace=QUICK)]
        for home in self.homes:
            home.node.broker = RedisBroker(parse(url), home.node, pace=QUICK)
            self.brokers.append(home.node.broker)
        self.workers = [LocalWorker(home) for home in self.homes]
        desk = Counterpart(self.brokers[0], Namespaces(OPTIONS))
        crew = cast(Crew, SimpleNamespace(ready=self.workers, retiring=set()))
        self.api = _over(self.brokers[0], desk, CrewApi(desk, crew, max_channel_length=128, max_message_size=65536))


@asynccontextmanager
async def crowd(url: str) -> AsyncIterator[Crowd]:
    it = Crowd(url)
    assert all([await broker.start(WITHIN) for broker in it.brokers])
    try:
        yield it
    finally:
        for broker in it.brokers:
            await broker.stop()


async def connected(home: House, user: str, *channels: str) -> Client:
    """Let a client in, on its channels: Redis answers a little later."""
    ann = Client.connect(home, user)
    for channel in channels:
        replies = ann.say(f'{{"id":2,"subscribe":{{"channel":"{channel}"}}}}')
        await until(lambda replies=replies: replies.extend(ann.said()) or replies)
        assert "subscribe" in replies[0]
    return ann


async def nodes_of(api: Api, number: int) -> list[Any]:
    """Return what is told of the nodes, as soon as there are so many."""
    async with asyncio.timeout(WITHIN):
        while len(nodes := (await api.call("info", {}))["nodes"]) != number:  # noqa: ASYNC110 - nobody announces it here
            await asyncio.sleep(0.01)
    return nodes


async def test_a_user_is_disconnected_wherever_it_is(url: str) -> None:
    async with server(url) as a, server(url) as b:
        here, there = Client.connect(a.home, "ann"), Client.connect(b.home, "ann")
        raw, other = Client.listen(b.home, "news", "ann"), Client.connect(b.home, "bob")
        began = time.monotonic()
        assert await a.api.call("disconnect", {"user": "ann"}) == {}
        assert time.monotonic() - began < PROMISED
        for each in (here, there, raw, other):
            each.said()
        assert (here.code, there.code, other.code) == (3503, 3503, 0)
        assert raw.code != 0


async def test_one_client_is_meant_on_another_server_and_the_rest_is_spared(url: str) -> None:
    async with server(url) as a, server(url) as b:
        first, second = Client.connect(b.home, "ann"), Client.connect(b.home, "ann")
        await a.api.call("disconnect", {"user": "ann", "client": first.id})
        first.said(), second.said()
        assert (first.code, second.code) == (3503, 0)
        await a.api.call("disconnect", {"user": "ann", "whitelist": [second.id]})
        second.said()
        assert second.code == 0


async def test_a_user_is_subscribed_and_unsubscribed_wherever_it_is(url: str) -> None:
    async with server(url) as a, server(url) as b:
        clients = [Client.connect(each.home, "ann") for each in (a, b)]
        await a.api.call("subscribe", {"user": "ann", "channel": "news", "data": {"seats": 4}})
        for ann in clients:
            heard: list[Any] = []
            await until(lambda ann=ann, heard=heard: heard.extend(ann.said()) or heard)
            assert heard[0]["push"]["subscribe"]["data"] == {"seats": 4}
        await b.api.call("unsubscribe", {"user": "ann", "channel": "news"})
        assert ["unsubscribe" in ann.said()[0]["push"] for ann in clients] == [True, True]


async def test_a_connection_is_prolonged_or_ended_wherever_it_is(url: str) -> None:
    async with server(url) as a, server(url) as b:
        ann = Client.connect(b.home, "ann")
        await a.api.call("refresh", {"user": "ann"})
        ann.said()
        assert ann.code == 0
        await a.api.call("refresh", {"user": "ann", "expired": True})
        ann.said()
        assert ann.code == 3005


async def test_channels_are_those_of_all_servers(url: str) -> None:
    async with server(url) as a, server(url) as b:
        await connected(a.home, "ann", "news")
        await connected(b.home, "ann", "news", "sport")
        both = {"news": {"num_clients": 2}, "sport": {"num_clients": 1}}
        assert await a.api.call("channels", {}) == await b.api.call("channels", {}) == {"channels": both}
        assert await a.api.call("channels", {"pattern": "s*"}) == {"channels": {"sport": {"num_clients": 1}}}


async def test_every_server_is_told_of_and_one_that_left_is_not(url: str, redis: RedisServer) -> None:
    async with server(url) as a:
        async with server(url) as b:
            Client.connect(b.home, "ann")
            b.broker.switchboard.hurry()
            own, other = await nodes_of(a.api, 2)
            assert own["num_clients"] == 0
            assert set(other) == set(own) >= {"uid", "name", "version", "num_clients", "num_users", "num_subs",
                                              "num_channels", "uptime"}  # fmt: skip
        await nodes_of(a.api, 1)
        a.broker.sweep()
        await nodes_of(a.api, 1)
    prefix = url.rpartition("=")[2]
    await until_answered(lambda: asyncio.to_thread(redis.ask, "KEYS", f"{prefix}:p:*"), [])


async def test_what_is_wrong_with_a_request_is_said_once(url: str) -> None:
    async with server(url) as a, server(url) as b:
        ann = Client.connect(b.home, "ann")
        with pytest.raises(ApiError, match="channel: a name is needed"):
            await a.api.call("subscribe", {"user": "ann"})
        assert (ann.said(), ann.code) == ([], 0)


async def test_publications_and_questions_about_channels_are_the_brokers(url: str) -> None:
    async with server(url) as a, server(url) as b:
        assert (await a.api.call("publish", {"channel": "news", "data": 1}))["offset"] == 1
        assert (await b.api.call("history", {"channel": "news", "limit": -1}))["offset"] == 1
        batch = {"commands": [{"publish": {"channel": "news", "data": 2}}, {"disconnect": {"user": "ann"}}]}
        replies = (await b.api.call("batch", batch))["replies"]
        assert [list(reply) for reply in replies] == [["publish"], ["disconnect"]]


async def test_while_redis_is_away_commands_are_done_here_and_the_caller_is_told() -> None:
    with RedisServer() as redis:
        async with server(redis.url) as a:
            ann = Client.connect(a.home, "ann")
            redis.kill()
            await until(lambda: not a.broker.is_up)
            with pytest.raises(ApiError, match="done on this server alone"):
                await a.api.call("disconnect", {"user": "ann"})
            ann.said()
            assert ann.code == 3503
            assert await a.api.call("channels", {}) == {"channels": {}}
            assert len((await a.api.call("info", {}))["nodes"]) == 1
            redis.restart()
            await until(lambda: a.broker.is_up)
            assert await a.api.call("disconnect", {"user": "ann"}) == {}


async def test_workers_are_asked_by_their_supervisor_alone_and_each_once(url: str) -> None:
    async with crowd(url) as many, server(url) as single:
        clients = [Client.connect(home, "ann") for home in (*many.homes, single.home)]
        assert await single.api.call("disconnect", {"user": "ann"}) == {}
        for ann in clients:
            ann.said()
        assert [ann.code for ann in clients] == [3503] * 3
        clients = [Client.connect(home, "ann") for home in (*many.homes, single.home)]
        assert await many.api.call("disconnect", {"user": "ann"}) == {}
        for ann in clients:
            ann.said()
        assert [ann.code for ann in clients] == [3503] * 3
        assert [worker.calls.count("disconnect") for worker in many.workers] == [2, 2]
        await connected(many.homes[1], "eve", "news")
        await connected(single.home, "eve", "news")
        for api in (many.api, single.api):
            assert await api.call("channels", {}) == {"channels": {"news": {"num_clients": 2}}}
        for broker in (many.brokers[0], single.broker):
            broker.switchboard.hurry()
        for api in (many.api, single.api):
            await nodes_of(api, 3)


async def test_malformed_words_are_counted_and_change_nothing(url: str, redis: RedisServer) -> None:
    async with server(url) as a:
        ann = Client.connect(a.home, "ann")
        prefix = url.rpartition("=")[2]
        for said in (b"", b"rubbish", bytes(46) + b"{}"):
            assert redis.ask("PUBLISH", f"{prefix}:c:{{all nodes}}", said) == 1
        await a.api.call("refresh", {"user": "ann"})
        await until(lambda: a.broker.malformed == 3)
        assert (ann.said(), ann.code) == ([{"push": {"refresh": {}}}], 0)


async def test_over_http_as_the_libraries_do(url: str) -> None:
    async with server(url) as a, server(url) as b:
        app = web.Application()
        app.add_routes(routes(a.api, api_key="key", on_loopback=True))
        async with TestClient(TestServer(app, host="127.0.0.1")) as http:
            ann = Client.connect(b.home, "ann")
            async with http.post("/api/disconnect", json={"user": "ann"}, headers={"X-API-Key": "key"}) as response:
                assert await response.json() == {"result": {}}
            async with http.post("/api/info", json={}, headers={"X-API-Key": "key"}) as response:
                assert len((await response.json())["result"]["nodes"]) >= 1
        ann.said()
        assert ann.code == 3503


@pytest.mark.parametrize("answer", [{}, {"error": {}}, {"result": 7}, {"error": {"code": "x", "message": "y"}}])
def test_an_answer_that_is_none(answer: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match="no answer"):
        _good(answer)


@pytest.mark.parametrize(
    "answer", [{}, {"channels": []}, {"channels": {"a": {}}}, {"channels": {"a": {"num_clients": "x"}}}]
)
def test_channels_that_are_none(answer: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match="no answer"):
        _clients(answer)
