"""Too much at once: queues that fill up until the server browns out, what it sheds at each step, and its way back.

One process, run here so that its holds can be short; everything else is as in service: real sockets, the internal port.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection

from server import blueprint
from server.commands.contact import Destination, keep_contact
from server.config import Settings
from server.core.brownout import Brownout, Step
from server.edge import gate
from server.worker import House
from tests.harness import Metrics
from tests.lifecycle.crowd import Client, connect, connect_many, cut_everyone_off, until
from tests.scenarios.clients import eventually
from tests.wire import answer

pytestmark = pytest.mark.scenario

HOLD = 0.3
BUDGET = 4 * 1024 * 1024
STALLED = 20
SIZE = 4096
LEVEL = "stentor_brownout_level"


@dataclass
class Site:
    """A house that serves, and its internal port."""

    house: House
    port: int
    http: aiohttp.ClientSession
    log: pytest.LogCaptureFixture

    async def metrics(self) -> Metrics:
        async with self.http.get("/metrics") as reply:
            return Metrics(await reply.text())

    async def ready(self) -> tuple[int, str]:
        async with self.http.get("/readyz") as reply:
            return reply.status, (await reply.json())["status"]

    async def until_level(self, level: int) -> None:
        async def is_there() -> bool:
            return (await self.metrics())[LEVEL] == level

        await eventually(is_there, 20, f"level {level}")

    @property
    def steps(self) -> list[tuple[int, int]]:
        """The changes of the step, as the log tells them."""
        said = (re.match(r"brown-out (\d) -> (\d): ", record.getMessage()) for record in self.log.records)
        return [(int(match[1]), int(match[2])) for match in said if match]

    def assert_walked_back(self) -> None:
        """Demand that the log tells of every change, and that the way back led over each step."""
        steps = self.steps
        assert steps, "it never browned out, so nothing is known"
        assert (steps[0][0], steps[-1][1]) == (0, 0)
        assert all(one[1] == following[0] for one, following in pairwise(steps))
        assert all(after > before or after == before - 1 for before, after in steps)
        assert all(record.levelno == logging.WARNING for record in self.log.records if "brown-out" in record.message)


@contextlib.asynccontextmanager
async def site(caplog: pytest.LogCaptureFixture, **options: Any) -> AsyncIterator[Site]:
    """Serve with these options; judge the books when everyone has left."""
    settings = Settings(
        port=0, internal_port=0, node_queue_bytes=BUDGET, queue_messages=10**6, queue_bytes=2**30, write_timeout=60.0,
        message_rate=0.0, **options,
    )  # fmt: skip
    house = House(settings, blueprint.broker(settings))
    house.shedding._brownout = Brownout(HOLD)
    internal = house.internal()
    internal_port = await internal.listen("127.0.0.1", 0)
    port = await house.listen()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{internal_port}") as http:
        found = Site(house, port, http, caplog)
        try:
            yield found
            await cut_everyone_off()
            await until(lambda: not house.listener.connections, 10, "everyone has left")
            metrics = await found.metrics()
            metrics.assert_balanced()
            assert metrics["stentor_queue_bytes"] == 0
        finally:
            await cut_everyone_off()
            house.listener.stop_accepting()
            house.listener.abort_all()
            await house.listener.all_dropped()
            house.wheel.stop()
            house.chores.stop()
            house.shedding.stop()
            await internal.stop()
            # The last timers of the three see that they are not wanted.
            await asyncio.sleep(0)


async def stalled(site: Site, channel: str = "news", count: int = STALLED) -> list[Client]:
    clients = await connect_many(count, site.port, f"/ws/{channel}", receive_buffer=4096)
    for client in clients:
        client.stop_reading()
    return clients


async def speak_until(site: Site, speaker: Client, step: int) -> int:
    """Publish until the server has taken the step; return how many publications that took."""
    for said in range(5000):
        if site.house.listener.gate.brownout >= step:
            return said
        speaker.say(f"{said:08d}" + "x" * (SIZE - 8))
        # Two percent of the budget: few enough between two looks for no step to be left out.
        await asyncio.sleep(0.04)
    raise AssertionError("it does not brown out")


async def test_who_is_new_is_refused_who_is_here_is_served_and_it_comes_back(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "AFTER_BROWNOUT", 1)
    async with site(caplog, lag_policy="drop_oldest") as on:
        healthy, speaker = await connect_many(10, on.port, "/ws/news"), await connect(on.port, "/ws/news")
        slow = await stalled(on)
        assert await on.ready() == (200, "ready")
        said = await speak_until(on, speaker, Step.REFUSE)

        refused = await connect(on.port, "/ws/news")
        assert refused.status == 503
        assert int(answer(refused.head + b"\r\n\r\n").fields["retry-after"]) >= 1
        assert await on.ready() == (503, "browned out")
        metrics = await on.metrics()
        assert metrics[LEVEL] >= 1
        assert metrics['stentor_connections_rejected_total{reason="brownout"}'] == 1

        # A command that waits as it is told to comes in when it is over.
        in_contact = asyncio.Event()
        lines: list[str] = []

        async def talk(connection: ClientConnection) -> None:
            in_contact.set()

        destination = Destination.of(f"ws://127.0.0.1:{on.port}", "news", None)
        contact = asyncio.create_task(keep_contact(destination, talk, lines.append))
        await until(lambda: bool(lines), 5, "it was refused")
        assert not in_contact.is_set()

        # More of the load: the laggards, whose policy lets them miss parts, are left with the latest.
        said += await speak_until(on, speaker, Step.CONFLATE)
        await until(lambda: len(healthy[0].heard) == said, 10, "who reads is served")
        speaker.say("latest")
        await until(lambda: all(client.heard[-1] == b"latest" for client in healthy), 5, "who reads is served")
        assert all(len(client.heard) == said + 1 for client in healthy), "and loses nothing"
        metrics = await on.metrics()
        assert metrics['stentor_messages_dropped_total{reason="conflated"}'] > 0
        assert metrics["stentor_queue_bytes"] < 0.1 * BUDGET
        assert metrics["stentor_slow_disconnects_total"] == 0

        # The queues are empty: it steps back by itself, and newcomers come in.
        await on.until_level(0)
        assert await on.ready() == (200, "ready")
        await asyncio.wait_for(contact, 10)
        assert in_contact.is_set()
        assert (await connect(on.port, "/ws/news")).status == 101
        for client in slow:
            client.transport.resume_reading()
        await until(lambda: all(client.heard and client.heard[-1] == b"latest" for client in slow), 10, "the latest")
        on.assert_walked_back()


async def test_the_heaviest_laggards_go_and_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    async with site(caplog, lag_policy="disconnect") as on:
        healthy, speaker = await connect_many(5, on.port, "/ws/heavy"), await connect(on.port, "/ws/heavy")
        light_speaker = await connect(on.port, "/ws/light")
        heavy, light = await stalled(on, "heavy"), await stalled(on, "light", 5)
        for number in range(60):
            light_speaker.say(f"{number:08d}" + "x" * (SIZE - 8))
        await until(lambda: len(light_speaker.heard) == 60, 5, "the light ones are behind, but not by much")
        said = await speak_until(on, speaker, Step.EVICT)
        assert on.house.listener.backlog.bytes < 0.9 * BUDGET
        for client in [*heavy, *light]:
            client.transport.resume_reading()
        await until(lambda: len(speaker.heard) == said, 10, "all is published")
        metrics = await on.metrics()
        assert metrics['stentor_messages_dropped_total{reason="budget"}'] > 0
        evicted = metrics["stentor_slow_disconnects_total"]
        assert 0 < evicted < len(heavy)
        await until(lambda: sum(client.is_lost for client in heavy) == evicted, 10, "they are out")
        out = [client for client in heavy if client.is_lost]
        # Who does not take its close frame in time goes without it.
        told = {(client.close_code, client.close_reason) for client in out if client.close_code is not None}
        assert told == {(1013, "memory budget")}
        # The policy says that nobody misses a part in silence, and nobody does, not even now.
        staying = [*healthy, speaker, *(client for client in heavy if client not in out)]
        await until(lambda: all(len(client.heard) == said for client in staying), 10, "all of it")
        assert all([int(each[:8]) for each in client.heard] == list(range(said)) for client in staying)
        await until(lambda: all(len(client.heard) == 60 for client in light), 10, "the light ones have it all")
        await on.until_level(0)
        assert (await connect(on.port, "/ws/heavy")).status == 101
        on.assert_walked_back()


async def test_switched_off_the_budget_is_the_only_wall(caplog: pytest.LogCaptureFixture) -> None:
    async with site(caplog, lag_policy="disconnect", brownout=False) as on:
        speaker = await connect(on.port, "/ws/news")
        slow = await stalled(on)
        for number in range(400):
            speaker.say(f"{number:08d}" + "x" * (SIZE - 8))
            await asyncio.sleep(0.002)
        await until(lambda: len(speaker.heard) == 400, 10, "all is published")
        metrics = await on.metrics()
        assert metrics['stentor_messages_dropped_total{reason="budget"}'] > 0, "the wall was never reached"
        assert 0 < metrics["stentor_slow_disconnects_total"] < len(slow)
        assert metrics[LEVEL] == 0
        assert (await connect(on.port)).status == 101
        assert on.steps == []
