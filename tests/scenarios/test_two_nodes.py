"""Two nodes, one Redis: whatever dies, hangs, falls silent, forgets or lies, nothing is lost in secret.

Real processes throughout (`tests.scenarios.nodes`); each scenario ends with the ledger, and a fault that did not happen
proves nothing. The times are those that are promised.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.redis_server import RedisServer, Wire
from tests.scenarios.clients import eventually
from tests.scenarios.nodes import Node, Pair, nodes
from tests.scenarios.stage import figure
from tests.scenarios.talkers import KEPT, PLAIN
from tests.scenarios.workers import descendants, is_alive

pytestmark = pytest.mark.scenario

NOTICED = 15.0
BACK = 5.0
VICTIMS_BACK = 10.0
RESTARTED = 2.0
REPLACED = 10.0
KILLS = 10
# What this machine may add to a promise that is about processes which are not ours alone.
SLACK = 3.0


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def nobody_left(pair: Pair) -> None:
    assert [member.closes for member in pair.members if member.closes] == []
    assert not any(listener.is_gone for node in pair.nodes for listener in node.listeners)


async def all_notice(pair: Pair) -> float:
    """Wait until both nodes say that their broker is away; how long it was."""
    began = time.monotonic()

    async def are_degraded() -> bool:
        return all([await node.status() == 503 for node in pair.nodes])

    await eventually(are_degraded, NOTICED, "both nodes notice")
    return time.monotonic() - began


async def test_nothing_is_wrong_and_all_counts_agree(redis: RedisServer) -> None:
    async with nodes(redis.url, redis.url) as pair:
        await pair.talk(2.0)
        await pair.settle(may_lose=False, far_too=True)
        nobody_left(pair)
        assert not any(member.recovered or member.declared for member in pair.members)
        await the_judges_see_what_is_wrong(pair)


async def the_judges_see_what_is_wrong(pair: Pair) -> None:
    member = pair.members[-1]
    books: tuple[list[Any], ...] = (member.heard, pair.nodes[1].listeners[-1].inbox)
    for heard in books:
        lost = heard.pop(20)
        with pytest.raises(AssertionError):
            pair.judge(may_lose=False, far_too=True)
        heard.insert(20, lost)
    pair.judge(may_lose=False, far_too=True)
    member.pushed -= 1
    with pytest.raises(AssertionError):
        await pair.judge_nodes(exactly=True)


@pytest.mark.parametrize("seconds", [0.0, 30.0], ids=["at once", "after 30 s"])
async def test_redis_is_killed_and_comes_back_empty(seconds: float, redis: RedisServer) -> None:
    async with nodes(redis.url, redis.url) as pair:
        await pair.talk(1.0)
        said = [len(node.speaker.acknowledged) for node in pair.nodes]
        redis.kill()
        if seconds:
            killed = time.monotonic()
            figure("the nodes noticed after, s", round(await all_notice(pair), 2))
            await eventually(lambda: time.monotonic() > killed + seconds, seconds + 5)
            assert all(len(node.speaker.refused) > 3 for node in pair.nodes), "the fault happened"
        await asyncio.to_thread(redis.restart)
        figure("all was well after, s", round(await pair.back(BACK + SLACK), 2))
        await pair.talk(1.0)
        assert all(len(node.speaker.acknowledged) > count for node, count in zip(pair.nodes, said, strict=True))
        await pair.settle(may_lose=True)
        nobody_left(pair)
        assert all(member.declared == 1 for member in pair.members), "the stream is another one, and everyone knows"


async def test_redis_hangs(redis: RedisServer) -> None:
    async with nodes(redis.url, redis.url) as pair:
        await pair.talk(1.0)
        redis.stop()
        try:
            figure("the nodes noticed after, s", round(await all_notice(pair), 2))
            await eventually(lambda: all(len(node.speaker.refused) > 3 for node in pair.nodes), 15, "it goes on")
        finally:
            redis.go_on()
        figure("all was well after, s", round(await pair.back(BACK + SLACK), 2))
        await pair.settle(may_lose=False)
        nobody_left(pair)


async def test_the_wire_of_one_node_falls_silent(redis: RedisServer) -> None:
    async with Wire(redis.port) as wire, nodes(wire.url, redis.url) as pair:
        deaf, hearing = pair.nodes
        await pair.talk(1.0)
        wire.fall_silent()
        began = time.monotonic()

        async def is_degraded() -> bool:
            return await deaf.status() == 503

        await eventually(is_degraded, NOTICED, "it notices")
        figure("the node noticed after, s", round(time.monotonic() - began, 2))
        await eventually(lambda: len(deaf.speaker.refused) > 3, 15, "it goes on")
        assert await hearing.status() == 200
        wire.speak()
        figure("all was well after, s", round(await pair.back(BACK + SLACK), 2))
        assert not hearing.speaker.refused
        await pair.settle(may_lose=False)
        nobody_left(pair)
        assert all(member.recovered for member in deaf.members)
        assert not any(member.recovered for member in hearing.members)


async def test_a_node_that_sleeps_is_cut_off_by_redis_and_loses_nothing(redis: RedisServer) -> None:
    redis.ask("CONFIG", "SET", "client-output-buffer-limit", "pubsub 256kb 128kb 1")
    async with nodes(redis.url, redis.url) as pair:
        asleep, awake = pair.nodes
        await pair.talk(1.0)
        asleep.server.process.send_signal(signal.SIGSTOP)
        try:
            said = len(awake.speaker.acknowledged)

            def flood() -> None:
                for _ in range(24):
                    redis.ask("PUBLISH", b"stentor:c:{plain}", b"x" * 1_000_000)

            await asyncio.to_thread(flood)
            await eventually(lambda: len(awake.speaker.acknowledged) > said + 50, 15, "the other one goes on")
        finally:
            asleep.server.process.send_signal(signal.SIGCONT)
        figure("all was well after, s", round(await pair.back(BACK + SLACK), 2))
        assert (await asleep.metrics()).total("stentor_broker_gaps_total") >= 1, "the fault happened"
        asleep.speaker.slowest = 0.0  # it slept itself
        await pair.settle(may_lose=False, deaf=asleep)
        nobody_left(pair)
        assert all(member.recovered for member in asleep.members)


GARBAGE = (b"", b"x", b"{}" * 20, bytes(47), bytes(46) + b"\xff" * 30, b"\x80\x04\x95" + bytes(60), b"\xff" * 5000)


async def test_ten_thousand_malformed_messages_on_our_channels_change_nothing(redis: RedisServer) -> None:
    async with nodes(redis.url, redis.url) as pair:
        names = redis.ask("PUBSUB", "CHANNELS", "stentor:*")
        assert {f"stentor:c:{{{name}}}".encode() for name in (KEPT, PLAIN)} <= set(names)
        script = "for i = 1, 10000 do redis.call('PUBLISH', KEYS[i % #KEYS + 1], ARGV[i % #ARGV + 1]) end return #KEYS"
        talking = asyncio.create_task(pair.talk(2.0))
        assert await asyncio.to_thread(redis.ask, "EVAL", script, len(names), *names, *GARBAGE) == len(names)
        await talking
        await pair.settle(may_lose=False, far_too=True)
        nobody_left(pair)
        assert not any(member.recovered or member.declared for member in pair.members)
        for node in pair.nodes:
            metrics = await node.metrics()
            assert metrics.total("stentor_broker_gaps_total") == 0
            assert metrics.total("stentor_broker_reconnects_total") == 0
            lines = [line for line in node.server.log_text().splitlines() if "malformed" in line]
            assert 1 <= len(lines) <= 30, "it is told, and not ten thousand times"


# With several workers in each node

WORKERS = ("--workers", "2")


async def ready(node: Node, gone: int) -> float:
    """Wait until the node has two ready workers and not that one; how long it was."""
    began = time.monotonic()

    async def is_replaced() -> bool:
        workers = await node.workers()
        pids = {worker["pid"] for worker in workers}
        return len(workers) == 2 and gone not in pids and all(worker["state"] == "ready" for worker in workers)

    await eventually(is_replaced, 60, "the worker is replaced")
    return time.monotonic() - began


def others_stayed(pair: Pair, struck: Node) -> None:
    for node in pair.nodes:
        if node is not struck:
            assert [member.closes for member in node.members if member.closes] == []
            assert not any(listener.is_gone for listener in node.listeners)
            assert not any(member.recovered or member.declared for member in node.members)


async def test_ten_kills_of_a_worker_under_load_cost_nobody_anything_that_was_said(redis: RedisServer) -> None:
    # They come back to where they were: elsewhere the next kill would not meet them.
    async with nodes(redis.url, redis.url, options=WORKERS, members=8, roaming=False) as pair:
        struck, _ = pair.nodes
        restarted = []
        for _ in range(KILLS):
            victim = max(await struck.workers(), key=lambda worker: worker["connections"])
            os.kill(victim["pid"], signal.SIGKILL)
            restarted.append(await ready(struck, victim["pid"]))
            await eventually(lambda: all(member.is_on for member in pair.members), 30, "all are back")
            await pair.talk(2.5)  # as in service: it has lived, and another one stands by again
        await pair.back(20)
        await pair.settle(may_lose=False, exactly=False)
        back = sorted(seconds for member in struck.members for seconds in member.away)
        figure("restarted within, s", [round(each, 2) for each in restarted])
        figure("victims back within, s: all", round(back[-1], 2))
        assert len(back) >= KILLS, "the fault happened"
        assert sorted(restarted)[KILLS // 2] <= RESTARTED + SLACK
        assert back[int(len(back) * 0.99) - 1] <= VICTIMS_BACK
        others_stayed(pair, struck)


async def test_a_stopped_worker_is_replaced_and_nothing_is_lost(redis: RedisServer) -> None:
    async with nodes(redis.url, redis.url, options=WORKERS, members=8) as pair:
        struck, _ = pair.nodes
        await pair.talk(1.0)
        victim = max(await struck.workers(), key=lambda worker: worker["connections"])
        os.kill(victim["pid"], signal.SIGSTOP)
        took = await ready(struck, victim["pid"])
        figure("a stopped worker was replaced after, s", round(took, 2))
        assert took <= REPLACED + SLACK
        await pair.back(20)
        await pair.settle(may_lose=False, exactly=False)
        assert any(member.closes for member in struck.members), "the fault happened"
        others_stayed(pair, struck)


async def test_a_supervisor_is_killed_and_its_clients_go_to_the_other_node(redis: RedisServer) -> None:
    async with nodes(redis.url, redis.url, options=WORKERS, members=8) as pair:
        struck, other = pair.nodes
        await pair.talk(1.0)
        family = descendants(struck.server.pid)
        assert len(family) >= 3
        struck.is_killed = True
        struck.server.process.kill()
        await eventually(lambda: not any(map(is_alive, family)), 8, "all of its workers have ended")
        await pair.back(20)
        said = len(other.speaker.acknowledged)
        await eventually(lambda: len(other.speaker.acknowledged) > said + 50, 15, "the other one goes on")
        await pair.settle(may_lose=False, exactly=False)
        back = sorted(seconds for member in struck.members for seconds in member.away)
        figure("victims back within, s: all", round(back[-1], 2))
        assert len(back) >= len(struck.members), "the fault happened"
        assert back[int(len(back) * 0.99) - 1] <= VICTIMS_BACK
        assert all(member.recovered for member in struck.members)
        others_stayed(pair, struck)
        assert redis.ask("PING")
