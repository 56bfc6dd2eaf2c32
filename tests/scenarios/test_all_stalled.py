"""Everybody stalls at once: memory stays within what the options allow, and comes back when they leave."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.scenarios.clients import TINY_BUFFER, Client, eventually
from tests.scenarios.stage import MIB, Stage, figure, stage

pytestmark = pytest.mark.scenario


STALLED = 1000
SIZE = 2048
QUEUE_BYTES = 128 * 1024
# A laggard holds ranges of batches that all laggards share: what the queues have in common is in memory once, and
# each client adds its own bookkeeping. What is shared is a queue's worth, and the batches that the sockets are in.
BOUND = STALLED * 8 * 1024 + 8 * MIB
ROUNDS = 3


async def test_memory_is_bounded_and_comes_back() -> None:
    limits = ("--lag-policy", "drop_oldest", "--queue-bytes", str(QUEUE_BYTES), "--write-timeout", "60")
    async with stage(*limits) as on:
        speaker = await on.listener("news")
        await stall_everybody(on, speaker)
        after_first = on.server.rss()
        for _ in range(ROUNDS - 1):
            await stall_everybody(on, speaker)
        # The allocator may keep what it has, for the next crowd; a client that stays behind would show.
        figure("memory after the first and the last crowd", f"{mib(after_first)} and {mib(on.server.rss())}")
        assert on.server.rss() <= after_first + 3 * MIB


async def stall_everybody(on: Stage, speaker: Client) -> None:
    """Let a crowd come, stall, be talked to until every queue is full, and leave; keep an eye on the memory."""
    account = on.ledger.open_account("news")
    clients = await on.crowd.join_many(STALLED, "/ws/news", account=account, receive_buffer=TINY_BUFFER)
    for client in clients:
        client.stall()
    base = peak = on.server.rss()
    queued = lagging = 0.0
    talk = asyncio.create_task(speaker.publish(on.ledger, "news", rate=200, seconds=1.6, size=SIZE))
    while not talk.done():
        metrics = await on.metrics()
        queued = max(queued, metrics["stentor_queue_bytes"])
        lagging = max(lagging, metrics["stentor_lagging_clients"])
        peak = max(peak, on.server.rss())
        await asyncio.sleep(0.1)
    await talk
    figure("stalled", f"{lagging:.0f} clients, {mib(queued)} in their books, {mib(base)} base, {mib(peak)} peak")
    assert lagging >= STALLED, "not everybody stalled"
    assert queued > 0.9 * STALLED * QUEUE_BYTES, "the queues never were full"
    assert queued <= (STALLED + 1) * QUEUE_BYTES
    assert peak - base <= BOUND, f"{mib(peak - base)} more than with {STALLED} idle clients"
    await on.all_heard([speaker])
    for client in clients:
        client.leave()
    left_at = time.monotonic()

    async def all_left() -> bool:
        return (await on.metrics()).total("stentor_connections") == 1

    await eventually(all_left, 30, "the crowd is gone")
    # Ten percent, and what the allocator keeps of arenas that are not quite empty.
    await eventually(lambda: on.server.rss() <= 1.1 * base + 4 * MIB, 30, f"{mib(base)} again", every=0.1)
    figure("memory came back to", f"{mib(on.server.rss())} in {time.monotonic() - left_at:.1f} s")


def mib(size: float) -> str:
    return f"{size / MIB:.1f} MiB"


HEAVY, LIGHT = 20, 40
BUDGET = 4 * MIB
UNLIMITED = ("--queue-messages", "1000000", "--queue-bytes", "1000000000")


@pytest.mark.parametrize(
    "options",
    [("--lag-policy", "drop_oldest", *UNLIMITED), ("--lag-policy-mode", "observe")],
    ids=["limits above the budget", "observe"],
)
async def test_the_budget_takes_the_heaviest_first(options: tuple[str, ...]) -> None:
    # The last wall alone: a brown-out would act before it.
    limits = ("--node-queue-bytes", str(BUDGET), "--brownout", "false", "--write-timeout", "30")
    async with stage(*options, *limits) as on:
        heavy_speaker, light_speaker = await on.listener("heavy"), await on.listener("light")
        heavy = await on.crowd.join_many(HEAVY, "/ws/heavy", reading=False, receive_buffer=TINY_BUFFER)
        light = await on.crowd.join_many(LIGHT, "/ws/light", reading=False, receive_buffer=TINY_BUFFER)
        # Fill the pipes of the light ones, so that what comes goes into their queues.
        await light_speaker.publish(on.ledger, "light", rate=100, seconds=0.16, size=4096)
        most = asyncio.create_task(watch_the_queues(on))
        await asyncio.gather(
            heavy_speaker.publish(on.ledger, "heavy", rate=60, seconds=1.6, size=8192),
            light_speaker.publish(on.ledger, "light", rate=30, seconds=1.6, size=1024),
        )
        await on.all_heard([heavy_speaker, light_speaker])
        most.cancel()
        await asyncio.gather(most, return_exceptions=True)
        metrics = await on.metrics()
        assert metrics["stentor_queue_bytes"] <= BUDGET
        assert metrics['stentor_messages_dropped_total{reason="budget"}'] > 0
        thrown_out = metrics["stentor_slow_disconnects_total"]
        figure("budget", f"{thrown_out:.0f} thrown out, {metrics['stentor_queue_bytes'] / BUDGET:.0%} of it in use")
        assert thrown_out >= 0.5 * HEAVY, "the budget was never short"
        await judge_order(on, heavy, light, int(thrown_out))


async def watch_the_queues(on: Stage) -> None:
    """Demand of every scrape that the queues are within the budget."""
    while True:
        assert (await on.metrics())["stentor_queue_bytes"] <= BUDGET
        await asyncio.sleep(0.05)


async def judge_order(on: Stage, heavy: list[Client], light: list[Client], thrown_out: int) -> None:
    """Demand that nobody was thrown out who held less than one who may stay."""
    staying = [entry for entry in await on.slow() if not entry["why"].startswith("closing")]
    for client in heavy:
        client.read()
    await eventually(lambda: sum(client.is_gone for client in heavy) == thrown_out, 10, "the heavy ones are out")
    assert {client.close_code for client in heavy if client.is_gone} == {1013}
    departures = await on.departures()
    assert {(entry["channel"], entry["code"], entry["reason"]) for entry in departures} == {
        ("heavy", 1013, "memory budget")
    }
    lightest_out = min(entry["queue_bytes"] for entry in departures)
    heaviest_light = max(entry["queue_bytes"] for entry in staying if entry["channel"] == "light")
    assert len([entry for entry in staying if entry["channel"] == "light"]) == LIGHT
    assert lightest_out > heaviest_light
    for client in light:
        client.read()
    said = on.ledger.published["light", 0]
    await eventually(lambda: all(len(client.inbox) == said for client in light), 10, "the light ones lost nothing")
    assert not any(client.is_gone for client in light)
