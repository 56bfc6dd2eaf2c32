"""What becomes of two nodes when their Redis dies, hangs, falls silent, forgets, or cuts them off: nothing in secret.

Both nodes publish all the while, on a channel with history and on one without; the clients are of both dialects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from server.brokers.redis import Backoff, Pace
from tests.redis_nodes import QUICK, until
from tests.redis_server import RedisServer, Wire
from tests.redis_sites import assert_kept, assert_plain, sites

pytestmark = pytest.mark.scenario

# What is promised (seconds): that deafness is noticed, that all is well after Redis is.
NOTICED = 15.0
BACK = 5.0
# As it is shipped, but for the time that a probe takes.
SHIPPED = Pace(probe_period=1.0, probe_patience=1.0)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


async def test_redis_is_killed_and_comes_back_empty(redis: RedisServer) -> None:
    async with sites(redis.url, redis.url, pace=SHIPPED) as scene:
        await scene.speak(seconds=0.5)
        redis.kill()
        await scene.speak(lambda: not any(site.broker.is_up for site in scene.sites), NOTICED)
        assert not any(site.broker.is_up for site in scene.sites)
        await scene.speak(seconds=4.0)
        refused = [len(site.refused["kept:news"]) for site in scene.sites]
        assert all(number > 50 for number in refused), "the fault has not happened"
        restarting = asyncio.to_thread(redis.restart)
        await restarting
        assert await scene.speak(lambda: scene.is_up, BACK) < BACK
        await scene.speak(seconds=0.5)
        await scene.be_quiet()
        scene.assert_all_accounted(may_lose=True)
        assert all(sdk.declared == 1 for sdk in scene.sdks), "the stream is another one, and everyone knows"
        assert all(site.broker.gaps == 1 for site in scene.sites)


async def test_redis_hangs(redis: RedisServer) -> None:
    async with sites(redis.url, redis.url, pace=SHIPPED) as scene:
        await scene.speak(seconds=0.5)
        redis.stop()
        try:
            assert await scene.speak(lambda: not any(site.broker.is_up for site in scene.sites), NOTICED) < NOTICED
            await scene.speak(seconds=3.0)
        finally:
            redis.go_on()
        assert await scene.speak(lambda: scene.is_up, BACK) < BACK
        await scene.speak(seconds=0.5)
        await scene.be_quiet()
        assert all(site.refused["kept:news"] for site in scene.sites)
        scene.assert_all_accounted(may_lose=False)


async def test_the_wire_of_one_node_falls_silent(redis: RedisServer) -> None:
    async with Wire(redis.port) as wire, sites(wire.url, redis.url, pace=SHIPPED) as scene:
        a, b = scene.sites
        await scene.speak(seconds=0.5)
        wire.fall_silent()
        assert await scene.speak(lambda: not a.broker.is_up, NOTICED) < NOTICED
        await scene.speak(seconds=2.0)
        assert b.broker.is_up
        wire.speak()
        assert await scene.speak(lambda: scene.is_up, BACK) < BACK
        await scene.speak(seconds=0.5)
        await scene.be_quiet()
        assert a.refused["kept:news"]
        assert not b.refused["kept:news"]
        scene.assert_all_accounted(may_lose=False)
        assert all(sdk.recovered for sdk in a.sdks)


async def test_a_node_that_is_only_deaf_notices_by_its_probes(redis: RedisServer) -> None:
    async with Wire(redis.port) as wire, sites(wire.url, redis.url, pace=SHIPPED) as scene:
        a, _ = scene.sites
        await scene.speak(seconds=0.5)
        gaps = a.broker.gaps
        wire.deafen()
        assert await scene.speak(lambda: a.broker.gaps > gaps, NOTICED) < NOTICED
        assert await scene.speak(lambda: scene.is_up, BACK) < BACK
        await scene.speak(seconds=0.5)
        await until(lambda: all(sdk.recovered for sdk in a.sdks))
        for site in scene.sites:
            assert not site.refused["kept:news"], "commands went through all the while"
        for sdk in scene.sdks:
            assert sdk.declared == 0


async def test_connections_are_killed_again_and_again(redis: RedisServer) -> None:
    async with sites(redis.url, redis.url, pace=QUICK) as scene:
        for kind in ("pubsub", "normal", "pubsub", "normal", "pubsub"):
            await scene.speak(seconds=0.3)
            before = [site.broker.reconnects for site in scene.sites]
            await asyncio.to_thread(redis.ask, "CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

            def are_back(before: list[int] = before) -> bool:
                return scene.is_up and all(
                    site.broker.reconnects > count for site, count in zip(scene.sites, before, strict=True)
                )

            assert await scene.speak(are_back, BACK) < BACK
        await scene.be_quiet()
        scene.assert_all_accounted(may_lose=False)
        assert all(site.broker.gaps == 3 for site in scene.sites)


async def test_redis_cuts_off_who_reads_too_slowly(redis: RedisServer) -> None:
    redis.ask("CONFIG", "SET", "client-output-buffer-limit", "pubsub 256kb 128kb 1")
    # Its probes would notice first, were they not as slow as they are here.
    pace = replace(QUICK, probe_period=60.0)
    async with sites(redis.url, redis.url, pace=pace) as scene:
        a, _ = scene.sites
        await scene.speak(seconds=0.3)
        shard = a.broker._layout.shards[0]
        connection = shard.subscriber._connection
        assert connection is not None
        connection.pause_reading()
        big = b"x" * 1_000_000

        def flood() -> None:
            for _ in range(20):
                redis.ask("PUBLISH", b"stentor:c:{plain}", big)

        speaking = asyncio.create_task(scene.speak(seconds=1.0))
        await asyncio.to_thread(flood)
        await speaking
        connection.resume_reading()
        assert await scene.speak(lambda: a.broker.gaps == 1 and scene.is_up, BACK) < BACK
        await scene.speak(seconds=0.3)
        await scene.be_quiet()
        assert not a.refused["kept:news"]
        for sdk in scene.sdks:
            assert sdk.declared == 0
        assert all(sdk.recovered for sdk in a.sdks)
        assert_all_heard(scene)


def assert_all_heard(scene: Any) -> None:
    acknowledged = [item for site in scene.sites for item in site.acknowledged["kept:news"]]
    for sdk in scene.sdks:
        assert_kept(sdk.heard, acknowledged, acknowledged, sdk.declared, may_lose=False)


async def test_redis_forgets_everything_and_says_nothing(redis: RedisServer) -> None:
    async with sites(redis.url, redis.url) as scene:
        await scene.speak(seconds=0.5)
        await asyncio.to_thread(redis.ask, "FLUSHALL")
        await scene.speak(seconds=0.5)
        await scene.be_quiet()
        scene.assert_all_accounted(may_lose=True)
        assert all(sdk.declared == 1 for sdk in scene.sdks)


HEARD = [(publisher, number) for number in range(100) for publisher in (0, 1)]


@pytest.mark.parametrize(
    "heard",
    [
        pytest.param(HEARD[:57] + HEARD[58:], id="one is lost"),
        pytest.param([*HEARD[:57], HEARD[59], HEARD[57], *HEARD[60:]], id="two are swapped"),
        pytest.param(HEARD[:57] + HEARD[56:], id="one comes twice"),
        pytest.param([*HEARD, (0, 100)], id="one is made up"),
        pytest.param([], id="nothing is heard"),
    ],
)
def test_the_accounts_find_what_is_wrong(heard: list[tuple[int, int]]) -> None:
    assert_kept(HEARD, HEARD, HEARD, 0, may_lose=False)
    assert_plain(HEARD, 1, 100)
    with pytest.raises(AssertionError):
        assert_kept(heard, HEARD, HEARD, 0, may_lose=True)
    own = [(1, number) for _, number in heard]
    if len(own) != len(HEARD):
        with pytest.raises(AssertionError):
            assert_plain(heard, 1 if (1, 28) not in heard else 0, 100)


def test_the_shipped_pace_keeps_what_is_promised() -> None:
    pace = Pace()
    assert pace.patience <= 2.0, "publishers are told within two seconds"
    assert 2 * pace.probe_period + pace.probe_patience + 0.5 <= NOTICED
    assert pace.patience + pace.backoff.most <= BACK
    assert Backoff().least == 0.1
