"""The server API of many workers: asked of all, answered as one."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from server.admin.fields import ApiError
from server.admin.node_api import NodeApi
from server.brokers.base import Retention
from server.brokers.memory import MemoryBroker
from server.core.revocations import Token
from server.node.namespaces import ChannelOptions, Namespaces
from server.node.revocation_log import RevocationLog
from server.supervisor.crew import Crew
from server.supervisor.crew_api import Counterpart, CrewApi
from server.supervisor.worker_link import WITHIN, Unanswered
from tests.backend import Names
from tests.fakes import Transport
from tests.house import House, house
from tests.peers import until

OPTIONS = ChannelOptions(retention=Retention(10, 300.0), presence=True)


class FakeWorker:
    """A worker that answers from a house of its own; `fault` instead, if it has one."""

    def __init__(self) -> None:
        self.home: House = house(credentials=Names(), options=OPTIONS)
        self.fault: Exception | None = None
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.silent = False
        self.told: list[str] = []
        self._api = NodeApi(
            self.home.node,
            self.home.service.registry,
            clock=self.home.clock,
            max_channel_length=128,
            max_message_size=65536,
            node_id="node",
        )

    async def ask(self, what: str, name: str, request: dict[str, Any], within: float) -> Any:
        assert what == "api"
        assert not self.silent
        await self.goes_on.wait()
        if self.fault is not None:
            raise self.fault
        try:
            return {"result": await self._api.call(name, request)}
        except ApiError as error:
            return {"error": error.told}

    def tell(self, what: str, name: str, request: dict[str, Any]) -> None:
        self.told.append(name)

    def is_silent(self, now: float) -> bool:
        return self.silent


class Deaf:
    def hear(self, *heard: object) -> bool:
        return True

    def hear_join(self, *heard: object) -> None: ...

    def hear_leave(self, *heard: object) -> None: ...

    def lost(self, channel: str | None) -> None: ...


class Crowd:
    """Two workers and the API over both."""

    def __init__(self) -> None:
        self.workers = [FakeWorker(), FakeWorker()]
        self.broker = MemoryBroker(Deaf(), self.workers[0].home.clock)
        crew = SimpleNamespace(ready=self.workers, retiring=set())
        self.api = CrewApi(
            Counterpart(self.broker, Namespaces(OPTIONS)),
            cast(Crew, crew),
            max_channel_length=128,
            max_message_size=65536,
        )

    def raw(self, worker: int, user: str, channel: str = "news") -> Transport:
        connection, transport = self.workers[worker].home.open(f"/ws/{channel}", f"Authorization: Bearer {user}")
        assert connection.is_open
        return transport


async def test_what_is_published_goes_to_the_broker_and_is_read_from_it() -> None:
    crowd = Crowd()
    said = await crowd.api.call("publish", {"channel": "news", "data": {"a": 1}})
    assert said["offset"] == 1
    history = await crowd.api.call("history", {"channel": "news", "limit": -1})
    assert [publication["offset"] for publication in history["publications"]] == [1]
    assert await crowd.api.call("presence_stats", {"channel": "news"}) == {"num_clients": 0, "num_users": 0}


async def test_a_user_is_found_wherever_it_is() -> None:
    crowd = Crowd()
    anna, anna_too, ben = crowd.raw(0, "anna"), crowd.raw(1, "anna"), crowd.raw(1, "ben")
    assert await crowd.api.call("disconnect", {"user": "anna"}) == {}
    assert bytes(anna.take())[:1] == bytes(anna_too.take())[:1] == b"\x88"
    assert bytes(ben.take()) == b""


async def test_channels_are_added_up_and_every_worker_is_a_node() -> None:
    crowd = Crowd()
    crowd.raw(0, "anna")
    crowd.raw(1, "anna")
    crowd.raw(1, "ben", "sport")
    answer = await crowd.api.call("channels", {})
    assert answer == {"channels": {"news": {"num_clients": 2}, "sport": {"num_clients": 1}}}
    assert await crowd.api.call("channels", {"pattern": "s*"}) == {"channels": {"sport": {"num_clients": 1}}}
    info = await crowd.api.call("info", {})
    assert [node["num_subs"] for node in info["nodes"]] == [1, 2]


async def test_what_is_wrong_with_the_request_is_said_once() -> None:
    with pytest.raises(ApiError, match="channel: a name is needed") as error:
        await Crowd().api.call("subscribe", {"user": "anna"})
    assert error.value.code == 107


async def test_a_worker_that_does_not_answer_is_left_out_but_one_must() -> None:
    crowd = Crowd()
    crowd.raw(0, "anna")
    crowd.raw(1, "ben")
    crowd.workers[0].fault = Unanswered("worker 0 did not answer in time")
    assert await crowd.api.call("channels", {}) == {"channels": {"news": {"num_clients": 1}}}
    crowd.workers[1].fault = Unanswered("worker 1 did not answer in time")
    with pytest.raises(ApiError, match="no worker answers"):
        await crowd.api.call("channels", {})


async def test_a_worker_that_is_stuck_holds_the_answer_up_for_a_moment_only_and_does_its_part_later() -> None:
    crowd = Crowd()
    anna = crowd.raw(0, "anna")
    crowd.raw(1, "ben")
    stuck = crowd.workers[0]
    stuck.goes_on.clear()
    began = time.monotonic()
    assert await crowd.api.call("disconnect", {"user": "anna"}) == {}
    assert await crowd.api.call("channels", {}) == {"channels": {"news": {"num_clients": 1}}}
    assert time.monotonic() - began >= 2 * WITHIN, "it may be only late"
    assert not anna.take()
    stuck.goes_on.set()
    await until(lambda: bytes(anna.take())[:1] == b"\x88")


async def test_a_worker_that_is_silent_is_not_waited_for_but_told_what_to_do() -> None:
    crowd = Crowd()
    crowd.raw(1, "ben")
    crowd.workers[0].silent = True
    assert await crowd.api.call("channels", {}) == {"channels": {"news": {"num_clients": 1}}}
    assert await crowd.api.call("disconnect", {"user": "ben"}) == {}
    assert (crowd.workers[0].told, crowd.workers[1].told) == (["disconnect"], [])
    crowd.workers[1].silent = True
    with pytest.raises(ApiError, match="no worker answers"):
        await crowd.api.call("info", {})


async def test_while_all_are_late_the_first_one_is_waited_for() -> None:
    crowd = Crowd()
    crowd.raw(1, "ben")
    for worker in crowd.workers:
        worker.goes_on.clear()
    asking = asyncio.create_task(crowd.api.call("channels", {}))
    await asyncio.wait((asking,), timeout=2 * WITHIN)
    assert not asking.done()
    crowd.workers[1].goes_on.set()
    assert await asking == {"channels": {"news": {"num_clients": 1}}}
    crowd.workers[0].goes_on.set()
    await until(lambda: not crowd.api._tasks)


async def test_a_batch_mixes_both_kinds() -> None:
    crowd = Crowd()
    crowd.raw(1, "ben")
    commands = [{"publish": {"channel": "news", "data": 1}}, {"channels": {}}]
    reply = await asyncio.wait_for(crowd.api.call("batch", {"commands": commands, "parallel": True}), 5)
    assert reply["replies"][0]["publish"]["offset"] == 1
    assert reply["replies"][1] == {"channels": {"channels": {"news": {"num_clients": 1}}}}


async def test_a_token_is_revoked_where_the_broker_is_and_no_worker_is_asked() -> None:
    broker = MemoryBroker(Deaf(), lambda: 0.0)
    crew = cast(Crew, SimpleNamespace(ready=[], retiring=[]))
    desk = Counterpart(broker, Namespaces(OPTIONS))
    api = CrewApi(desk, crew, max_channel_length=128, max_message_size=65536)
    assert await api.call("revoke_token", {"uid": "1"}) == {}
    assert await api.call("invalidate_user_tokens", {"user": "ann"}) == {}
    worker = RevocationLog(lambda: broker)
    worker.follow()
    assert worker.revoked.refuses(Token("1"))
    assert worker.revoked.refuses(Token(user="ann"))
    assert desk.published == 0, "it is no publication of anybody's"
