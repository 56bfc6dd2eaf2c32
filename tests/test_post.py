"""A worker at its post: what the supervisor hears of it, and what it does when told to, or left alone."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.brokers.link import Fields, Kind, Link
from server.brokers.local import LocalBroker
from server.config import Settings
from server.supervisor import post as post_module
from server.supervisor.post import Post, Signature
from tests.lifecycle.crowd import Client, connect, cut_everyone_off


class Supervisor:
    """The other end of a worker's link."""

    def __init__(self) -> None:
        self.heard: list[tuple[Kind, Fields]] = []
        self.link = Link(lambda link, kind, fields, body: self.heard.append((kind, fields)), lambda link: None)
        self.signature = Signature()
        self.post: Post
        self.work: asyncio.Task[int]
        self._number = 0

    async def begin(self, port: int) -> None:
        ours, theirs = socket.socketpair()
        self.post = Post(Settings(internal_port=0), port, self.signature)
        await self.link.open(ours)
        await self.post.open(theirs)
        self.work = asyncio.create_task(self.post.until_told_to_stop())

    async def until(self, kind: Kind, where: Any = lambda fields: True) -> Fields:
        async with asyncio.timeout(5):
            while True:
                for each, fields in self.heard:
                    if each is kind and where(fields):
                        return fields
                await asyncio.sleep(0.005)

    async def ask(self, what: str, *arguments: Any) -> tuple[str, Any]:
        self._number += 1
        number = self._number
        self.link.say(Kind.ASK, [number, what, list(arguments)])
        _, fault, result = await self.until(Kind.ANSWER, lambda fields: fields[0] == number)
        return fault, result


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    supervisor = Supervisor()
    await supervisor.begin(free_port())
    yield supervisor
    await end(supervisor)


async def end(supervisor: Supervisor) -> None:
    supervisor.post.leave()
    supervisor.post._cut_short()
    async with asyncio.timeout(5):
        await supervisor.work
    supervisor.link.close()
    await cut_everyone_off()
    await asyncio.sleep(0.01)


async def client_of(supervisor: Supervisor) -> Client:
    assert await supervisor.ask("listen", 3) == ("", None)
    client = await connect(supervisor.post._port)
    assert client.status == 101
    return client


async def test_it_says_hello_and_that_it_is_there(supervisor: Supervisor) -> None:
    assert await supervisor.until(Kind.HELLO) == []
    assert await supervisor.until(Kind.BEAT) == [0, False, 0, True]
    supervisor.post.house.listener.gate.brownout = 2
    supervisor.post._say_alive()
    assert await supervisor.until(Kind.BEAT, lambda fields: fields[2]) == [0, False, 2, True]


async def test_a_broker_that_is_lost_or_found_is_told_at_once(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await supervisor.until(Kind.BEAT)
    monkeypatch.setattr(post_module, "BEAT", 60.0)
    monkeypatch.setattr(LocalBroker, "is_up", False)
    await supervisor.until(Kind.BEAT, lambda fields: not fields[3])
    supervisor.heard.clear()
    monkeypatch.undo()
    await supervisor.until(Kind.BEAT, lambda fields: fields[3])


async def test_when_it_listens_the_supervisor_knows_how_it_is(supervisor: Supervisor) -> None:
    supervisor.heard.clear()
    await client_of(supervisor)
    kinds = [kind for kind, _ in supervisor.heard]
    assert Kind.BEAT in kinds[: kinds.index(Kind.ANSWER)]


async def test_it_has_waited_for_its_broker_before_it_says_hello(monkeypatch: pytest.MonkeyPatch) -> None:
    starts, goes_on = [], asyncio.Event()

    class Far(LocalBroker):
        async def start(self) -> bool:
            starts.append(self)
            await goes_on.wait()
            return False

        async def stop(self) -> None:
            """Nothing is open."""

        trouble = ""

    monkeypatch.setattr(post_module, "LocalBroker", Far)
    supervisor = Supervisor()
    beginning = asyncio.create_task(supervisor.begin(free_port()))
    async with asyncio.timeout(5):
        while not starts:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert supervisor.heard == []
    goes_on.set()
    await supervisor.until(Kind.HELLO)
    goes_on.clear()
    assert await supervisor.ask("listen", 0) == ("", None)
    assert len(starts) == 1, "whose turn it is to listen keeps nobody waiting"
    await beginning
    await end(supervisor)


async def test_it_listens_when_it_is_told_to_under_the_name_that_it_gets(supervisor: Supervisor) -> None:
    with pytest.raises(OSError):  # noqa: PT011
        await connect(supervisor.post._port)
    client = await client_of(supervisor)
    assert supervisor.signature.index == 3
    client.transport.abort()


async def test_it_answers_for_its_part(supervisor: Supervisor) -> None:
    await client_of(supervisor)
    fault, said = await supervisor.ask("metrics")
    assert not fault
    assert {"stentor_connections", "stentor_broker_up", "process_cpu_seconds"} <= {family[0] for family in said}
    assert await supervisor.ask("slow") == ("", [])
    assert await supervisor.ask("disconnects", None, 5) == ("", [0, []])
    assert await supervisor.ask("spread", None) == ("", None)
    assert "result" in (await supervisor.ask("api", "channels", {}))[1]
    assert "error" in (await supervisor.ask("api", "disconnect", {}))[1]


async def test_what_it_cannot_do_is_said_and_logged(supervisor: Supervisor, caplog: pytest.LogCaptureFixture) -> None:
    assert await supervisor.ask("disconnects", None, "many") == ("TypeError", None)
    _, said = await supervisor.ask("api", "nothing of the kind", {})
    assert said == {"error": {"code": 100, "message": "internal server error"}}
    assert [record.message for record in caplog.records] == [
        "could not do disconnects",
        "a fault in the server API, in the command nothing of the kind",
    ]


async def test_a_port_that_it_cannot_have_is_said(supervisor: Supervisor) -> None:
    with socket.create_server(("127.0.0.1", supervisor.post._port)):
        assert (await supervisor.ask("listen", 0))[0].startswith("Address already in use")


async def test_retiring_it_sends_its_clients_away_and_says_its_last_words(supervisor: Supervisor) -> None:
    client = await client_of(supervisor)
    assert await supervisor.ask("retire") == ("", 1.0)
    async with asyncio.timeout(5):
        assert await supervisor.work == 0
    assert client.close_code == 1012
    assert client.close_reason.startswith("reconnect_after_ms=")
    assert await supervisor.until(Kind.BEAT, lambda fields: fields[1])
    said = await supervisor.until(Kind.LAST_WORDS)
    (closed,) = [family for family in said if family[0] == "stentor_connections_closed"]
    assert [sample[2] for sample in closed[3] if sample[1] == {"code": "1012"}] == [1]


async def test_however_often_it_is_told_it_drains_once(supervisor: Supervisor) -> None:
    client = await client_of(supervisor)
    client.answers_close = False
    supervisor.post.leave()
    supervisor.post.leave()
    await supervisor.ask("retire")
    assert not supervisor.work.done()
    supervisor.link.say(Kind.ASK, [0, "cut_short", []])
    async with asyncio.timeout(5):
        assert await supervisor.work == 1
    assert client.close_code == 1001


async def test_without_its_supervisor_it_ends_soon(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(post_module, "ORPHANED", 0.1)
    client, silent = await client_of(supervisor), await connect(supervisor.post._port)
    silent.answers_close = False
    supervisor.link.close()
    async with asyncio.timeout(5):
        assert await supervisor.work == 1
    assert (client.close_code, silent.close_code) == (1012, 1012)
    assert "the supervisor is gone: this worker ends" in caplog.messages


def test_each_line_is_signed() -> None:
    signature = Signature()
    record = logging.LogRecord("stentor", logging.INFO, "", 0, "100 %% of %d", (7,), None)
    assert signature.filter(record)
    assert record.getMessage() == "new worker: 100 % of 7"
    record.msg = "100 %% of %d"
    signature.index = 2
    assert signature.filter(record)
    assert record.getMessage() == "worker 2: 100 % of 7"
