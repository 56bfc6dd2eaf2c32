"""A Redis that answers and refuses: what is said of it, what flows all the same, and how deafness is noticed then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from server.brokers.base import NOTHING, PLAIN, BrokerError, Terms
from server.core.publication import Publication
from tests.redis_cluster import RedisCluster
from tests.redis_nodes import KEPT, RedisNode, node, until
from tests.redis_server import RedisServer, Wire, free_port

KEYED = Terms(NOTHING, "key")


@dataclass(frozen=True)
class Way:
    """How Redis is brought to refuse what is written, and to take it again; `word` is what it says then."""

    word: str
    begin: Callable[[RedisServer], object]
    end: Callable[[RedisServer], object]


def fail_to_save(redis: RedisServer) -> None:
    """Let it save where it cannot: after that it takes no writes."""
    (redis.directory / "gone").rmdir()
    redis.ask("CONFIG", "SET", "save", "3600 1")
    redis.ask("BGSAVE")


WAYS = [
    Way(
        "OOM",
        lambda redis: redis.ask("CONFIG", "SET", "maxmemory", "1"),
        lambda redis: redis.ask("CONFIG", "SET", "maxmemory", "0"),
    ),
    Way(
        "NOREPLICAS",
        lambda redis: redis.ask("CONFIG", "SET", "min-replicas-to-write", "1"),
        lambda redis: redis.ask("CONFIG", "SET", "min-replicas-to-write", "0"),
    ),
    Way("MISCONF", fail_to_save, lambda redis: redis.ask("CONFIG", "SET", "save", "")),
    Way(
        "NOPERM",
        lambda redis: redis.ask("ACL", "SETUSER", "ann", "-evalsha"),
        lambda redis: redis.ask("ACL", "SETUSER", "ann", "+evalsha"),
    ),
    Way(
        "NOPERM",
        lambda redis: redis.ask("ACL", "SETUSER", "ann", "resetkeys", "~others*"),
        lambda redis: redis.ask("ACL", "SETUSER", "ann", "allkeys"),
    ),
]


@pytest.fixture(params=WAYS, ids=["full", "without replicas", "not saved", "no scripts", "no keys"])
def way(request: pytest.FixtureRequest) -> Way:
    assert isinstance(request.param, Way)
    return request.param


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    gone = server.directory / "gone"
    gone.mkdir()
    server._options = (*server._options, "--dir", str(gone))
    with server:
        server.ask("ACL", "SETUSER", "ann", "on", ">pw", "allkeys", "allchannels", "+@all")
        yield server


def url(port: int) -> str:
    return f"redis://ann:pw@127.0.0.1:{port}/0"


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().partition(": ")[2] for record in caplog.records]


async def do(way: Callable[[RedisServer], object], redis: RedisServer) -> None:
    """Without holding up the nodes."""
    await asyncio.to_thread(way, redis)


async def assert_refused(a: RedisNode, word: str) -> None:
    for terms in (KEPT, KEYED):
        async with asyncio.timeout(2.0):
            answer = await a.try_to(a.broker.publish, "news", Publication(b"refused"), terms)
        assert isinstance(answer, BrokerError)
        assert word in str(answer)


async def test_a_redis_that_refuses_what_is_written_is_said_to_and_plain_publications_flow(
    way: Way, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with node(url(redis.port)) as a, node(redis.url) as b:
        for each in (a, b):
            await each.subscribe("news")
        await a.publish("news", b"before", KEPT)  # a full Redis takes the first of a stream, and no more
        await do(way.begin, redis)
        await until(lambda: not a.broker.is_up)
        assert way.word in a.broker.trouble
        await assert_refused(a, way.word)
        if way.word != "NOPERM":
            assert [kept.payload for kept in (await a.history("news")).publications] == [b"before"]
        for number in range(3):
            await a.publish("news", b"%d" % number)
        await until(lambda: len(a.ear.heard) == len(b.ear.heard) == 4)
        beats = a.broker.lag.count
        await until(lambda: a.broker.lag.count > beats + 2)  # it is proven that we hear
        assert (a.broker.reconnects, a.broker.gaps, a.ear.losses) == (0, 0, [])
        await do(way.end, redis)
        await until(lambda: a.broker.is_up and b.broker.is_up)
        assert a.broker.trouble == ""
        await a.publish("news", b"3", KEPT)
        await until(lambda: len(a.ear.heard) == len(b.ear.heard) == 5)
        assert a.ear.texts() == b.ear.texts() == [b"before", b"0", b"1", b"2", b"3"]
        assert a.ear.offsets("news")[-1] == 2, "what was refused has no offset"
    own = [line for line in said(caplog) if line]
    others = 2 if way.word != "NOPERM" else 1  # what nobody may be written, b was refused too
    assert sum(way.word in line and "it refuses what is written" in line for line in own) == others
    assert own.count("it takes again what is written") == others
    assert len(own) == 2 * others


async def test_deafness_is_noticed_while_redis_refuses_what_is_written(
    way: Way, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with Wire(redis.port) as wire, node(url(wire.port)) as a, node(redis.url) as b:
        await a.subscribe("news")
        await do(way.begin, redis)
        await until(lambda: not a.broker.is_up)
        wire.deafen()
        await b.publish("news", b"lost")
        await until(lambda: a.broker.gaps == 1)
        await until(lambda: a.ear.losses)
        await b.publish("news", b"heard")
        await until(lambda: a.ear.heard)
        assert a.ear.texts() == [b"heard"]
        assert (a.broker.reconnects, a.ear.losses) == (1, [None])
        assert way.word in a.broker.trouble, "one does not hide the other"
        await do(way.end, redis)
        await until(lambda: a.broker.is_up)
    assert sum("two probes have not come back" in line for line in said(caplog)) == 1


async def test_one_that_refuses_probes_of_every_kind_proves_nothing(redis: RedisServer) -> None:
    async with node(url(redis.port)) as a:
        await a.subscribe("news")
        await until(lambda: a.broker.lag.count)
        redis.ask("ACL", "SETUSER", "ann", "-evalsha", "-publish")
        await until(lambda: a.broker.trouble)
        beats = redis.ask("INFO", "commandstats")["cmdstat_publish"]["rejected_calls"]
        await until(lambda: redis.ask("INFO", "commandstats")["cmdstat_publish"]["rejected_calls"] > beats + 4)
        assert (a.broker.gaps, a.broker.reconnects) == (0, 0)
        redis.ask("PUBLISH", "stentor:c:{news}", b"rubbish")
        await until(lambda: a.broker.malformed)  # it hears what others say
        redis.ask("ACL", "SETUSER", "ann", "+evalsha", "+publish")
        await until(lambda: a.broker.is_up)


@pytest.mark.parametrize("is_at_start", [True, False])
async def test_who_may_not_subscribe_is_told_why_once(
    is_at_start: bool, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    if is_at_start:
        redis.ask("ACL", "SETUSER", "ann", "resetchannels")
    async with node(url(redis.port), must_be_up=not is_at_start) as a:
        if not is_at_start:
            await a.subscribe("news")
            redis.ask("ACL", "SETUSER", "ann", "resetchannels")  # and it ends our connection
        await until(lambda: "NOPERM" in a.broker.trouble)
        opened = redis.ask("INFO", "stats")["total_connections_received"]
        await until(lambda: redis.ask("INFO", "stats")["total_connections_received"] > opened + 100)
        assert not a.broker.is_up
        assert "it refuses us: NOPERM" in a.broker.trouble
        answer = await a.try_to(a.broker.publish, "news", Publication(b"1"), PLAIN)
        assert "NOPERM" in str(answer)
        redis.ask("ACL", "SETUSER", "ann", "allchannels")
        await until(lambda: a.broker.is_up)
        await a.subscribe("news")
        await a.publish("news", b"2")
        await until(lambda: a.ear.texts()[-1:] == [b"2"])
    lines = said(caplog)
    assert [line for line in lines if "NOPERM" in line and "it refuses us" in line] == [lines[-2]], "once"
    assert lines[-1] == "connected again"
    assert len(lines) == (2 if is_at_start else 3), lines


async def test_who_comes_back_after_a_save_that_failed_hears(redis: RedisServer) -> None:
    """Redis refuses even PING then."""
    async with node(url(redis.port)) as a, node(redis.url) as b:
        await a.subscribe("news")
        await do(fail_to_save, redis)
        await until(lambda: "MISCONF" in a.broker.trouble and "MISCONF" in b.broker.trouble)
        redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: a.ear.losses)
        await b.publish("news", b"1")
        await until(lambda: a.ear.heard)


# In a cluster


@asynccontextmanager
async def pair_of(cluster: RedisCluster) -> AsyncIterator[tuple[RedisNode, RedisNode]]:
    async with node(cluster.url) as a, node(cluster.url) as b:
        yield a, b


async def test_each_primary_of_a_cluster_is_looked_at_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    channels = [f"c{number}" for number in range(40)]
    with RedisCluster() as cluster:
        full = cluster.primaries[1]
        async with pair_of(cluster) as (a, b):
            for each in (a, b):
                await each.subscribe(*channels)
            for name in channels:
                await a.publish(name, b"before", KEPT)
            await do(WAYS[0].begin, full)
            await until(lambda: not a.broker.is_up and not b.broker.is_up)
            assert a.broker.trouble.startswith(f"redis://127.0.0.1:{full.port}/0: it refuses what is written: OOM")
            there = [name for name in channels if cluster.primary_of(f"x{{{name}}}".encode()) is full]
            assert 0 < len(there) < len(channels)
            for name in channels:
                answer = await a.try_to(a.broker.publish, name, Publication(b"kept"), KEPT)
                assert isinstance(answer, BrokerError) is (name in there)
                await a.publish(name, b"plain")
            await until(lambda: len(b.ear.heard) == 3 * len(channels) - len(there))
            shard = next(each for each in b.broker._layout.shards if each.address.port == full.port)
            assert shard._hearing_link._connection is not None
            shard._hearing_link._connection.pause_reading()
            await a.publish(there[0], b"lost")
            await until(lambda: b.broker.gaps == 1)
            await until(lambda: shard.is_up and set(there) <= set(b.ear.losses))
            assert set(b.ear.losses).isdisjoint(set(channels) - set(there))
            await a.publish(there[0], b"heard")
            await until(lambda: b.ear.texts(there[0])[-1] == b"heard")
            await do(WAYS[0].end, full)
            await until(lambda: a.broker.is_up and b.broker.is_up)
    lines = said(caplog)
    assert sum("it refuses what is written: OOM" in line for line in lines) == 2
    assert lines.count("it takes again what is written") == 2


async def test_a_redis_that_has_become_a_replica_is_said_to_be_one_once(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with node(redis.url) as a:
        await a.subscribe("news")
        redis.ask("REPLICAOF", "127.0.0.1", str(free_port()))
        assert isinstance(await a.try_to(a.broker.publish, "news", Publication(b"kept"), KEPT), BrokerError)
        opened = redis.ask("INFO", "stats")["total_connections_received"]
        await until(lambda: redis.ask("INFO", "stats")["total_connections_received"] > opened + 20)
        assert not a.broker.is_up
        assert a.broker.trouble.endswith("it refuses us: READONLY it is a replica")
        redis.ask("REPLICAOF", "NO", "ONE")
        await until(lambda: a.broker.is_up)
        await a.publish("news", b"after", KEPT)
    [left, refused, back] = said(caplog)
    assert left.startswith("it is not the Redis to write to: READONLY")
    assert (refused, back) == ("it refuses us: READONLY it is a replica", "connected again")


async def test_a_replica_that_takes_writes_is_taken(redis: RedisServer) -> None:
    redis.ask("CONFIG", "SET", "replica-read-only", "no")
    redis.ask("REPLICAOF", "127.0.0.1", str(free_port()))
    async with node(redis.url) as a:
        await until(lambda: a.broker.is_up)
