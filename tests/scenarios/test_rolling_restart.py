"""A restart of two workers: every client is told when to come back, and those who obey find room."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import Counter

import pytest

from tests.harness import REPOSITORY, serve
from tests.scenarios.clients import eventually
from tests.scenarios.stage import figure
from tests.scenarios.workers import crew

pytestmark = [pytest.mark.scenario, pytest.mark.alone]

MEMBERS = 160
RATE = 40


async def test_they_come_back_no_faster_than_those_who_remain_let_them_in() -> None:
    async with crew("--connect-rate", str(RATE), "--history-size", "2000") as on:
        members = await on.members(MEMBERS, "news")
        before = await asyncio.to_thread(on.server.metrics)
        held = await on.connections()
        # The new worker is the emptier one, so that it gets them all: what it lets in a second is what counts.
        expected = {index: count / RATE for index, count in held.items()}
        speaker = on.speaker("news", rate=50)
        old = [worker["pid"] for worker in await on.workers()]
        on.server.process.send_signal(signal.SIGHUP)
        await on.ready(but=old, within=30)
        await eventually(lambda: all(member.is_on for member in members), 20, "all are back")
        await on.all_heard(members, speaker)
        after = await asyncio.to_thread(on.server.metrics)

        closes = [close for member in members for close in member.closes]
        assert {code for code, _ in closes} == {1012}
        first = sorted(member.later[0] for member in members)
        figure("told to come back within, s", [round(first[int(share * (MEMBERS - 1))], 2) for share in (0, 0.5, 1)])
        longest = max(expected.values())
        assert 0.7 * min(expected.values()) <= first[-1] <= 2 * longest
        # Evenly: each quarter of the time has about a quarter of them.
        quarters = Counter(min(3, int(4 * each / first[-1])) for each in first)
        assert min(quarters[part] for part in range(4)) >= MEMBERS / 4 / 4, quarters
        refused = 'stentor_connections_rejected_total{{reason="connect_rate",worker="{}"}}'
        turned_away = sum(after[refused.format(index)] - before[refused.format(index)] for index in held)
        assert turned_away == 0, "whoever came as told was let in"
        assert all(away >= told for member in members for away, told in zip(member.away, member.later, strict=True))


async def test_a_listener_waits_as_it_is_told_and_hears_on() -> None:
    with serve("--workers", "2") as server:
        listener = await listen(server.websocket_url)
        try:
            await eventually(lambda: server.metrics().total("stentor_connections") == 1, 10, "it listens")
            old = {worker["pid"] for worker in server.get_json("/readyz")["workers"]}
            server.process.send_signal(signal.SIGHUP)
            told = await lost_with(listener, 1012)
            back = await again(listener)
            assert told - 0.05 <= back <= told + 5
            await eventually(
                lambda: not old & {worker["pid"] for worker in server.get_json("/readyz")["workers"]}, 20, "all are new"
            )
            await eventually(lambda: server.metrics().total("stentor_connections") == 1, 10, "it is back")
            server.api("publish", {"channel": "c", "data": "still here"})
            assert listener.stdout is not None
            assert await asyncio.wait_for(listener.stdout.readline(), 10) == b"still here\n"
        finally:
            await end(listener)


async def test_a_listener_comes_back_to_the_server_that_takes_the_place() -> None:
    with serve() as server:
        listener = await listen(server.websocket_url)
        try:
            await eventually(lambda: server.metrics().total("stentor_connections") == 1, 10, "it listens")
            server.process.send_signal(signal.SIGTERM)
            told = await lost_with(listener, 1001)
            lost_at = time.monotonic()
            await asyncio.to_thread(server.process.wait, 10)
            with serve("--port", str(server.port)) as successor:
                await again(listener)
                assert time.monotonic() - lost_at >= told - 0.05
                assert successor.metrics().total("stentor_connections_opened_total") == 1
        finally:
            await end(listener)


async def listen(url: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "server", "listen", "--channel", "c", "--url", url,
        cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def lost_with(listener: asyncio.subprocess.Process, code: int) -> float:
    """Wait until it says that contact was lost; return when it was told to come back, in seconds."""
    line = await said_by(listener)
    assert f"closed with {code}, " in line
    return int(line.partition("reconnect_after_ms=")[2].partition(";")[0]) / 1000


async def again(listener: asyncio.subprocess.Process) -> float:
    """Wait until it is in contact again; return how many seconds that took."""
    began = time.monotonic()
    assert "in contact with" in await said_by(listener)
    return time.monotonic() - began


async def said_by(listener: asyncio.subprocess.Process) -> str:
    assert listener.stderr is not None
    return (await asyncio.wait_for(listener.stderr.readline(), 20)).decode()


async def end(listener: asyncio.subprocess.Process) -> None:
    if listener.returncode is None:
        listener.kill()
    await listener.communicate()
