"""The broker over a Redis Cluster that speaks nothing but TLS, and wants to see certificates of its nodes and of us."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from server.brokers.base import Published
from server.brokers.redis.slots import slot_of
from server.core.history import Position
from server.core.publication import ClientInfo, Publication
from server.doctor.broker import brokers
from server.doctor.finding import Finding, Verdict
from tests.authority import Authority
from tests.redis_cluster import RedisCluster, RedisNode, wait
from tests.redis_nodes import KEPT, node, until
from tests.redis_nodes import RedisNode as Node

NUMBERS = count()
ANN = ClientInfo("ann", "client-1", b'{"name":"Ann"}', b"[1]")
CHANNELS = [f"c{number}" for number in range(30)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder, "ours")


@pytest.fixture(scope="module")
def cluster(authority: Authority) -> Iterator[RedisCluster]:
    with RedisCluster(papers=authority.issue("node", "127.0.0.1")) as started:
        for each in started.nodes:
            assert each.ask("CONFIG", "GET", "port")[b"port"] == b"0", "nothing is in the clear"
        yield started


@pytest.fixture
def url(cluster: RedisCluster) -> str:
    """Each test has its own keys."""
    return f"{cluster.url}&prefix=test{next(NUMBERS)}"


@pytest.fixture
async def pair(url: str) -> AsyncIterator[tuple[Node, Node]]:
    async with node(url) as a, node(url) as b:
        yield a, b


def slot(channel: str) -> int:
    return slot_of(f"x{{{channel}}}".encode())


def other_than(cluster: RedisCluster, channel: str) -> RedisNode:
    """Return a primary that the channel is not on."""
    owner = cluster.owner_of(slot(channel))
    return next(node for node in cluster.primaries if node is not owner)


def hosts_of(node: RedisNode) -> list[bytes]:
    return [primary[0] for _, _, primary in node.ask("CLUSTER", "SLOTS")]


async def look(url: str) -> list[Finding]:
    return [finding async for finding in brokers(url, 1)]


async def test_what_one_node_publishes_every_node_hears_from_whichever_primary(
    cluster: RedisCluster, pair: tuple[Node, Node], url: str, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = pair
    await b.subscribe(*CHANNELS)
    for channel in CHANNELS:
        since = (await a.publish(channel, b"1", KEPT)).position
        await b.publish(channel, b"2", KEPT)
        stream = await a.history(channel, since=since)
        assert ([each.payload for each in stream.publications], stream.top) == ([b"2"], Position(2, since.epoch))
        await a.ask(a.broker.add_presence, channel, ANN)
        assert await b.ask(b.broker.presence, channel) == {ANN.client: ANN}
    await until(lambda: len(b.ear.heard) == 2 * len(CHANNELS))
    for channel in CHANNELS:
        assert b.ear.texts(channel) == [b"1", b"2"]
    prefix = url.rpartition("=")[2]
    for primary in cluster.primaries:
        assert len(primary.ask("KEYS", f"{prefix}:s:*")) >= 3
    assert (b.broker.gaps, b.broker.malformed, b.ear.losses) == (0, 0, [])
    assert not caplog.records


async def test_what_is_large_comes_whole(pair: tuple[Node, Node]) -> None:
    a, b = pair
    await b.subscribe("large")
    payloads = [bytes([number]) * 500_000 for number in range(10)]
    answers: list[Any] = []
    for payload in payloads:
        a.broker.publish("large", Publication(payload), KEPT, answers.append)
    await until(lambda: len(b.ear.heard) == len(payloads))
    assert b.ear.texts() == payloads
    assert [each.payload for each in (await b.history("large")).publications] == payloads


async def test_a_slot_moves_while_it_is_published_to(cluster: RedisCluster, pair: tuple[Node, Node]) -> None:
    a, b = pair
    await b.subscribe("moving")
    first = await a.publish("moving", b"0", KEPT)
    moving = asyncio.create_task(asyncio.to_thread(cluster.migrate, slot("moving"), other_than(cluster, "moving")))
    answers: list[Any] = []
    asked = 0
    while not moving.done() or asked < 200:
        asked += 1
        a.broker.publish("moving", Publication(b"%d" % asked), KEPT, answers.append)
        await asyncio.sleep(0.001)
    assert await moving >= 2, "the fault has not happened"
    await until(lambda: len(answers) == asked)
    assert all(isinstance(answer, Published) for answer in answers)
    stream = await b.history("moving")
    assert stream.top == Position(asked + 1, first.position.epoch), "it is the same stream"
    assert [int(each.payload) for each in stream.publications] == list(range(asked + 1))[-1000:]
    await until(lambda: "moving" in b.ear.losses)
    await a.publish("moving", b"the last", KEPT)
    await until(lambda: b.ear.texts()[-1] == b"the last")


async def test_what_is_half_moved_is_asked_for_where_it_is(cluster: RedisCluster, pair: tuple[Node, Node]) -> None:
    a, b = pair
    first = await a.publish("half", b"1", KEPT)
    with cluster.migrating(slot("half"), other_than(cluster, "half")) as move_keys:
        assert move_keys() >= 2
        assert (await a.publish("half", b"2", KEPT)).position == Position(2, first.position.epoch)
        assert (await b.history("half")).top.offset == 2
    assert (await b.publish("half", b"3", KEPT)).position == Position(3, first.position.epoch)


async def test_a_primary_is_killed_and_comes_back(cluster: RedisCluster, pair: tuple[Node, Node]) -> None:
    a, b = pair
    await b.subscribe(*CHANNELS)
    victim = cluster.owner_of(slot("c0"))
    before = await a.publish("c0", b"1", KEPT)
    victim.kill()
    await until(lambda: not a.broker.is_up and not b.broker.is_up)
    await asyncio.to_thread(victim.restart)
    await asyncio.to_thread(cluster.wait_until_well)
    await until(lambda: a.broker.is_up and b.broker.is_up)
    assert "c0" in b.ear.losses
    after = await a.publish("c0", b"2", KEPT)
    assert after.position.epoch != before.position.epoch, "it has come back empty"
    await until(lambda: b.ear.texts("c0")[-1] == b"2")


async def test_a_node_that_is_not_trusted_is_not_spoken_with(
    cluster: RedisCluster, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = Authority(folder, "theirs").file
    wrong = f"{cluster.url.partition('?')[0]}?ca={stranger}"
    words = "its certificate is not accepted: self-signed certificate in certificate chain; ca= in the address names"
    async with node(wrong, must_be_up=False) as a:
        await until(lambda: caplog.records)
        assert not a.broker.is_up
    [record] = caplog.records
    assert "no map of the Redis Cluster: its certificate is not accepted" in record.getMessage()
    findings = await look(wrong)
    assert [finding.verdict for finding in findings] == [Verdict.BAD] * 3
    assert all(words in finding.advice for finding in findings)


async def test_the_doctor_looks_at_those_that_nobody_has_named(cluster: RedisCluster) -> None:
    hosts, _, query = cluster.url.partition("?")
    findings = await look(f"{hosts.partition(',')[0]}?{query}")
    assert {finding.verdict for finding in findings} == {Verdict.OK}
    assert [finding.check for finding in findings] == [
        "redis", "redis clients", "redis memory", "redis output limit", "redis cluster", "redis", "redis",
    ]  # fmt: skip
    assert findings[4].value == "16,384 of 16,384 slots, at 3 of 3 nodes"


async def test_nodes_go_by_the_names_that_their_certificates_are_for(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    mismatch = "IP address mismatch, certificate is not valid for '127.0.0.1'"
    with RedisCluster(2, papers=authority.issue("named", "localhost")) as named:
        url = named.url.replace("127.0.0.1", "localhost")
        async with node(url, must_be_up=False) as a:
            await until(lambda: sum(mismatch in record.getMessage() for record in caplog.records) == 4)
            assert not a.broker.is_up, "the cluster tells of an address, which the certificate is not for"
        unnamed = [finding for finding in await look(url) if "127.0.0.1" in finding.value]
        assert [finding.verdict for finding in unnamed] == [Verdict.BAD] * 2, "the doctor finds it out, too"
        assert all(mismatch in finding.advice for finding in unnamed)
        for each in named.primaries:
            each.ask("CONFIG", "SET", "cluster-announce-hostname", "localhost")
            each.ask("CONFIG", "SET", "cluster-preferred-endpoint-type", "hostname")
        wait(lambda: all(hosts_of(each) == [b"localhost"] * 2 for each in named.primaries))
        async with node(url) as a:
            await a.subscribe("news")
            await a.publish("news", b"1", KEPT)
            await until(lambda: a.ear.texts() == [b"1"])
        assert {finding.verdict for finding in await look(url)} == {Verdict.OK}
