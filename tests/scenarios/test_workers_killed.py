"""Workers that are killed, stopped and replaced under load: the others lose nothing, and whoever was there returns."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter

import pytest

from tests.scenarios.clients import Crowd, eventually
from tests.scenarios.stage import figure
from tests.scenarios.workers import Crew, Member, Scraper, crew, judge

pytestmark = [pytest.mark.scenario, pytest.mark.alone]

MEMBERS = 40
KILLS = 10
HISTORY = ("--history-size", "2000")
RESTARTED = 2.0
BACK = 10.0


async def flood(on: Crew, channel: str, rate: float) -> None:
    """Publish over a connection of one's own, and take up again wherever one is cut off."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import WebSocketException

    while True:
        try:
            async with connect(f"ws://127.0.0.1:{on.server.port}/ws/{channel}", compression=None, proxy=None) as ws:
                while True:
                    await ws.send(b"x" * 128)
                    await asyncio.sleep(1 / rate)
        except (OSError, WebSocketException, TimeoutError):
            await asyncio.sleep(0.05)


async def test_ten_kills_under_load_cost_nobody_anything_that_was_said() -> None:
    async with crew(*HISTORY) as on:
        members = await on.members(MEMBERS, "news")
        on.start(flood(on, "noise", 200))
        scraper, speaker = on.scraper(), on.speaker("news", rate=150)
        restarted, back = [], []
        killed: Counter[str] = Counter({"0": 0, "1": 0})
        for _ in range(KILLS):
            victim = max(await on.workers(), key=lambda worker: worker["connections"])
            losses = sum(len(member.closes) for member in members)
            os.kill(victim["pid"], signal.SIGKILL)
            killed[str(victim["index"])] += 1
            restarted.append(await on.ready(but=[victim["pid"]]))
            await eventually(
                lambda losses=losses: sum(len(member.closes) for member in members) > losses, 5, "the fault happened"
            )
            await eventually(lambda: all(member.is_on for member in members), 30, "all are back")
            back += [member.away.pop() for member in members if member.away]
            said = speaker.said
            # It has lived, as one in service has.
            await eventually(lambda said=said: speaker.said > said + 160, 10)
        await on.all_heard(members, speaker)
        figure("restarted within, s", [round(each, 2) for each in restarted])
        figure("victims back within, s: all", round(max(back), 2))
        assert sorted(restarted)[KILLS // 2] <= RESTARTED
        assert max(restarted) <= 2 * RESTARTED
        assert sorted(back)[int(len(back) * 0.99) - 1] <= BACK
        assert scraper.scrapes > KILLS
        assert scraper.went_back == []
        assert (await on.ask("/readyz"))["restarts"] == KILLS
        assert await restarts(on) == killed


async def test_a_stopped_worker_is_shown_as_down_and_replaced_and_the_others_serve() -> None:
    async with crew(*HISTORY) as on:
        members = await on.members(MEMBERS, "news")
        speaker, scraper = on.speaker("news", rate=100), on.scraper()
        await eventually(lambda: scraper.scrapes > 5, 10)
        victim = (await on.workers())[0]
        before = len(scraper.took)
        os.kill(victim["pid"], signal.SIGSTOP)
        took = await on.ready(but=[victim["pid"]])
        figure("a stopped worker was replaced after, s", round(took, 2))
        assert took <= 10
        slowest = max(scraper.took[before:]), max(scraper.ready_took[before:])
        figure("slowest /metrics and /readyz meanwhile, s", [round(each, 3) for each in slowest])
        assert max(slowest) <= 1.0
        assert {"0": 0.0, "1": 1.0} in [{key: up[key] for key in ("0", "1") if key in up} for up in scraper.ups]
        await eventually(lambda: all(member.is_on for member in members), 20, "all are back")
        await on.all_heard(members, speaker)
        assert any(not member.closes for member in members), "somebody was at the other worker"
        assert await restarts(on) == {"0": 1, "1": 0}, "who hangs is counted as who dies"
        assert scraper.went_back == []


async def test_sighup_replaces_one_after_another_and_loses_nobody() -> None:
    async with crew(*HISTORY) as on:
        members = await on.members(MEMBERS, "news")
        speaker, scraper = on.speaker("news", rate=100), on.scraper()
        old = [worker["pid"] for worker in await on.workers()]
        fewest = asyncio.create_task(fewest_ready(on))
        on.server.process.send_signal(signal.SIGHUP)
        took = await on.ready(but=old, within=30)
        fewest.cancel()
        await eventually(lambda: all(member.is_on for member in members), 20, "all are back")
        await on.all_heard(members, speaker)
        figure("two workers replaced within, s", round(took, 2))
        closes = [close for member in members for close in member.closes]
        assert len(closes) >= MEMBERS, "everyone was sent away"
        assert {code for code, _ in closes} == {1012}
        later = [seconds for member in members for seconds in member.later]
        assert len(later) == len(closes)
        assert max(later) <= 1.0
        assert len(set(later)) > len(later) // 2, "they are spread"
        assert scraper.went_back == []
        assert (await on.ask("/readyz"))["restarts"] == 0
        assert await restarts(on) == {"0": 0, "1": 0}, "those were replaced on purpose"
        await eventually(lambda: on.server.metrics().total("stentor_connections") == MEMBERS, 5)
        metrics = await asyncio.to_thread(on.server.metrics)
        opened, closed = (metrics.total(f"stentor_connections_{what}_total") for what in ("opened", "closed"))
        assert (opened - closed, metrics.total("stentor_connections")) == (MEMBERS, MEMBERS), "to the last word"


async def restarts(on: Crew) -> dict[str, float]:
    """Return what the metrics say of how often each place lost its worker."""
    metrics = await asyncio.to_thread(on.server.metrics)
    name = "stentor_worker_restarts_total"
    return {key[len(name) + 9 : -2]: value for key, value in metrics.items() if key.startswith(name)}


async def fewest_ready(on: Crew) -> None:
    while True:
        ready = [worker for worker in await on.workers() if worker["state"] == "ready"]
        assert ready, "nobody listens"
        await asyncio.sleep(0.02)


async def test_new_connections_go_to_the_emptier_worker_after_a_restart() -> None:
    async with crew() as on:
        async with Crowd(on.server.port) as crowd:
            for _ in range(120):
                await crowd.join("/ws/a")
            # What a worker has is known a second later; then there is something to be uneven about.
            await eventually(lambda: on.all_counted(120), 10, "all are counted")
            victim = (await on.workers())[0]
            os.kill(victim["pid"], signal.SIGKILL)
            await on.ready(but=[victim["pid"]])
            deadline, newcomers = time.monotonic() + 30, 0
            # As many connect as were cut off, and then some, at a pace at which the counts can be seen to differ.
            while not is_even(counts := sorted((await on.connections()).values())):
                assert time.monotonic() < deadline, counts
                await crowd.join("/ws/a")
                newcomers += 1
                await asyncio.sleep(0.05)
        figure("connections of the two workers after a restart", counts)
        figure("new connections that it took", newcomers)
        assert newcomers > 20, "they were uneven"
        assert newcomers <= 120


def is_even(counts: list[int]) -> bool:
    mean = sum(counts) / len(counts)
    return max(counts) - mean <= 0.25 * mean


def test_the_judges_see_what_is_wrong() -> None:
    member = Member(1, "news")
    member.heard = [0, 1, 2]
    judge([member], 3)
    for wrong in ([0, 2], [0, 1, 1, 2], [0, 2, 1], [0, 1, 2, 3]):
        member.heard = wrong
        with pytest.raises(AssertionError):
            judge([member], 3)
    member.heard, member.unrecovered = [0, 1, 2], 1
    with pytest.raises(AssertionError):
        judge([member], 3)
    with pytest.raises(AssertionError):
        judge([member], 0)
    scraper = Scraper("")
    line = '# TYPE a_total counter\na_total{{worker="{}"}} {}\n'
    scraper.take(line.format(0, 5))
    scraper.take(line.format(0, 6))
    assert scraper.went_back == []
    scraper.take(line.format(0, 5))
    assert len(scraper.went_back) == 2
