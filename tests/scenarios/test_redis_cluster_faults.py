"""What becomes of two nodes when slots of their Redis Cluster move, and when primaries die, hang, or are all away:
nothing in secret. Both publish all the while, on a channel with history and on one without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from server.brokers.redis import Pace, scripts
from server.brokers.redis.slots import slot_of
from tests.redis_cluster import RedisCluster, RedisNode
from tests.redis_nodes import QUICK
from tests.redis_sites import KEPT, PLAIN, Scene, sites

pytestmark = pytest.mark.scenario

# What is promised (seconds): that deafness is noticed, that all is well after the cluster is.
NOTICED = 15.0
BACK = 5.0
SHIPPED = Pace(probe_period=1.0, probe_patience=1.0)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with RedisCluster(primaries=3, replicas=3) as started:
        yield started


def name_of(channel: str) -> bytes:
    return f"x{{{channel}}}".encode()


def others(cluster: RedisCluster, channel: str) -> list[RedisNode]:
    """Return the primaries that a channel is not on."""
    owners = {id(cluster.owner_of(slot)): cluster.owner_of(slot) for slot in range(0, 16384, 1024)}
    return [node for node in owners.values() if node is not cluster.primary_of(name_of(channel))]


async def test_slots_move_under_load(cluster: RedisCluster) -> None:
    async with sites(f"{cluster.url}?prefix=moving", f"{cluster.url}?prefix=moving", pace=QUICK) as scene:
        gaps = [site.broker.gaps for site in scene.sites]
        for channel in (KEPT, PLAIN, KEPT, KEPT):
            await scene.speak(seconds=0.3)
            target = others(cluster, channel)[0]
            moving = asyncio.to_thread(cluster.migrate, slot_of(name_of(channel)), target)
            moved = asyncio.create_task(moving)
            await scene.speak(moved.done, BACK)
            await moved
            await scene.speak(seconds=0.3)
        await scene.be_quiet()
        scene.assert_all_accounted(may_lose=False)
        assert all(sdk.declared == 0 for sdk in scene.sdks), "a stream that moves is the same one"
        for site, before in zip(scene.sites, gaps, strict=True):
            assert site.broker.gaps >= before + 3, "the fault has not happened"
            assert not site.refused[PLAIN] + site.refused[KEPT]


async def test_a_slot_takes_its_time_to_move(cluster: RedisCluster) -> None:
    async with sites(f"{cluster.url}?prefix=slowly", f"{cluster.url}?prefix=slowly", pace=QUICK) as scene:
        await scene.speak(seconds=0.3)
        with cluster.migrating(slot_of(name_of(KEPT)), others(cluster, KEPT)[0]) as move_keys:
            await scene.speak(seconds=0.5)
            assert await asyncio.to_thread(move_keys) >= 2, "the fault has not happened"
            await scene.speak(seconds=1.0)
        await scene.speak(seconds=0.5)
        await scene.be_quiet()
        scene.assert_all_accounted(may_lose=False)
        assert all(sdk.recovered for sdk in scene.sdks), (
            "what was published at the new place was not heard at the old one"
        )
        assert not any(site.refused[KEPT] for site in scene.sites), "what is asked of the new place is done there"


async def fail(cluster: RedisCluster, scene: Scene, victim: RedisNode) -> None:
    """Speak while a primary is away, until another one has its place, and all is as it was."""
    await scene.speak(lambda: not any(site.broker.is_up for site in scene.sites), NOTICED)
    assert not any(site.broker.is_up for site in scene.sites), "the fault has not happened"
    well = asyncio.create_task(asyncio.to_thread(cluster.wait_until_well))
    await scene.speak(well.done, NOTICED)
    await well
    assert await scene.speak(lambda: scene.is_up, BACK) < BACK
    await scene.speak(seconds=1.0)
    await scene.be_quiet()
    scene.assert_all_accounted(may_lose=True)
    assert cluster.primary_of(name_of(KEPT)) is not victim


async def lose_what_was_acknowledged(cluster: RedisCluster, scene: Scene) -> None:
    """Have a replica take over that lacks the last half second: it hung when its primary died."""
    await scene.speak(seconds=0.5)
    victim = cluster.primary_of(name_of(KEPT))
    heir = cluster.replica_of(victim)
    heir.stop()
    try:
        victim.ask("CLIENT", "KILL", "TYPE", "replica")
        await scene.speak(seconds=0.5)
        victim.kill()
    finally:
        heir.go_on()
    await fail(cluster, scene, victim)


async def test_a_primary_is_killed_and_its_replica_lacks_what_was_acknowledged(cluster: RedisCluster) -> None:
    async with sites(f"{cluster.url}?prefix=lacking", f"{cluster.url}?prefix=lacking", pace=SHIPPED) as scene:
        await lose_what_was_acknowledged(cluster, scene)
        assert all(sdk.declared == 1 for sdk in scene.sdks)
        reviving = asyncio.create_task(asyncio.to_thread(revive, cluster))
        await scene.speak(reviving.done)
        await reviving
        await scene.speak(seconds=0.5)
        await scene.be_quiet()
        scene.assert_all_accounted(may_lose=True)
        assert all(sdk.declared == 1 for sdk in scene.sdks), "one that comes back as a replica changes nothing"


async def test_the_accounts_find_out_who_believes_a_replica(
    cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    believing = scripts.CLUSTER.publish.source.replace(b"string.find(trusted, known[2], 1, true)", b"true")
    assert believing != scripts.CLUSTER.publish.source
    reading = scripts.CLUSTER.history.source.replace(b"string.find(trusted, known[2], 1, true)", b"true")
    planted = replace(scripts.CLUSTER, publish=scripts.Script(believing), history=scripts.Script(reading))
    monkeypatch.setattr(scripts, "CLUSTER", planted)
    try:
        # Either it is found at the end, or those who took the old offsets for heard hear nothing more.
        with pytest.raises((AssertionError, TimeoutError), match=r"lost in secret|^$"):
            async with sites(f"{cluster.url}?prefix=planted", f"{cluster.url}?prefix=planted", pace=SHIPPED) as scene:
                await lose_what_was_acknowledged(cluster, scene)
    finally:
        await asyncio.to_thread(revive, cluster)


def revive(cluster: RedisCluster) -> None:
    """Start the nodes that were killed; they are replicas now."""
    for node in cluster.nodes:
        if node.process is None:
            node.restart()
    cluster.wait_until_synced()


async def test_a_primary_hangs_and_comes_back_as_a_replica(cluster: RedisCluster) -> None:
    async with sites(f"{cluster.url}?prefix=hang", f"{cluster.url}?prefix=hang", pace=SHIPPED) as scene:
        await scene.speak(seconds=0.5)
        victim = cluster.primary_of(name_of(KEPT))
        victim.stop()
        try:
            await scene.speak(lambda: not any(site.broker.is_up for site in scene.sites), NOTICED)
            await scene.speak(lambda: scene.is_up, NOTICED)
        finally:
            victim.go_on()
        await asyncio.to_thread(cluster.wait_until_synced)
        assert await scene.speak(lambda: scene.is_up, BACK) < BACK
        await scene.speak(seconds=0.5)
        await scene.be_quiet()
        scene.assert_all_accounted(may_lose=True)
        assert cluster.primary_of(name_of(KEPT)) is not victim
        assert all(sdk.declared for sdk in scene.sdks), "more than once, if it says late what it had taken"


async def test_all_of_it_is_restarted(cluster: RedisCluster) -> None:
    async with sites(f"{cluster.url}?prefix=all", f"{cluster.url}?prefix=all", pace=SHIPPED) as scene:
        await scene.speak(seconds=0.5)
        for node in cluster.nodes:
            node.kill()
        await scene.speak(lambda: not any(site.broker.is_up for site in scene.sites), NOTICED)
        assert not any(site.broker.is_up for site in scene.sites)
        await asyncio.to_thread(lambda: [node.restart() for node in cluster.nodes])
        well = asyncio.create_task(asyncio.to_thread(cluster.wait_until_well))
        await scene.speak(well.done, NOTICED)
        await well
        assert await scene.speak(lambda: scene.is_up, BACK) < BACK
        await scene.speak(seconds=0.5)
        await scene.be_quiet()
        scene.assert_all_accounted(may_lose=True)
        assert all(sdk.declared == 1 for sdk in scene.sdks)
