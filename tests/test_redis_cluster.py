"""The broker over a Redis Cluster: what two nodes hear of each other, and what becomes of it when slots move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.brokers.base import EVERYTHING, NOTHING, PLAIN, Attendance, BrokerError, Published, Terms
from server.brokers.redis.slots import slot_of
from server.core.history import Position
from server.core.publication import ClientInfo, Publication
from tests.redis_cluster import RedisCluster, RedisNode
from tests.redis_nodes import KEPT, node, until, until_answered
from tests.redis_nodes import RedisNode as Node

NUMBERS = count()
ANN = ClientInfo("ann", "client-1", b'{"name":"Ann"}', b"[1]")
CHANNELS = [f"c{number}" for number in range(60)]
ODD = ["}", "}x", "{", "{}", "a}b", "a{b}c", "-", "#ann", "chat:ü"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with RedisCluster() as started:
        yield started


@pytest.fixture
def url(cluster: RedisCluster) -> str:
    """Each test has its own keys."""
    return f"{cluster.url}?prefix=test{next(NUMBERS)}"


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


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.binary(max_size=30) | st.text(alphabet="{}ab", max_size=8).map(str.encode))
def test_slots_are_those_that_redis_computes(cluster: RedisCluster, name: bytes) -> None:
    assert slot_of(name) == cluster.primaries[0].ask("CLUSTER", "KEYSLOT", name)


async def test_what_one_node_publishes_every_node_hears_from_whichever_primary(
    cluster: RedisCluster, pair: tuple[Node, Node], url: str
) -> None:
    a, b = pair
    for each in pair:
        await each.subscribe(*CHANNELS, *ODD)
    for channel in (*CHANNELS, *ODD):
        assert await a.publish(channel, b"plain") == Published(Position(0, ""))
        assert (await b.publish(channel, channel.encode(), KEPT)).position.offset == 1
    for each in pair:
        await until(lambda each=each: len(each.ear.heard) == 2 * len(CHANNELS + ODD))
        for channel in (*CHANNELS, *ODD):
            assert each.ear.texts(channel) == [b"plain", channel.encode()]
    prefix = url.rpartition("=")[2]
    for primary in cluster.primaries:
        assert len(primary.ask("KEYS", f"{prefix}:s:*")) >= 5
    assert (a.broker.gaps, a.broker.malformed, a.ear.losses) == (0, 0, [])


async def test_history_is_one_for_all_and_is_recovered_from(pair: tuple[Node, Node]) -> None:
    a, b = pair
    for channel in (*CHANNELS[:10], *ODD):
        since = (await a.publish(channel, b"1", KEPT)).position
        await b.publish(channel, b"2", KEPT)
        stream = await b.history(channel, since=since)
        assert ([each.payload for each in stream.publications], stream.top) == ([b"2"], Position(2, since.epoch))
        assert await a.history(channel) == await b.history(channel)
        assert await a.ask(a.broker.remove_history, channel) is None
        assert (await b.history(channel)).publications == ()


async def test_keys_and_versions_hold_for_all_nodes(pair: tuple[Node, Node]) -> None:
    a, b = pair
    for channel in (*CHANNELS[:10], *ODD):
        for retention in (KEPT.retention, NOTHING):
            terms = Terms(retention, f"key {retention.size}")
            first = await a.publish(channel, b"1", terms)
            assert await b.publish(channel, b"2", terms) == first._replace(is_suppressed=True)
        assert not (await a.publish(channel, b"3", Terms(KEPT.retention, version=2))).is_suppressed
        assert (await b.publish(channel, b"4", Terms(KEPT.retention, version=1))).is_suppressed


async def test_presence_and_news_are_those_of_all_nodes(pair: tuple[Node, Node]) -> None:
    a, b = pair
    for channel in (*CHANNELS[:10], *ODD):
        await b.subscribe(channel)
        await a.ask(a.broker.add_presence, channel, ANN)
        assert await b.ask(b.broker.presence, channel) == {ANN.client: ANN}
        assert await b.ask(b.broker.presence_stats, channel) == Attendance(1, 1)
        a.broker.publish_join(channel, ANN)
        a.broker.remove_presence(channel, ANN)
        await until_answered(lambda channel=channel: b.ask(b.broker.presence_stats, channel), Attendance(0, 0))
    await until(lambda: len(b.ear.news) == len(CHANNELS[:10] + ODD))


async def test_who_unsubscribes_hears_no_more_and_redis_is_told(cluster: RedisCluster, url: str) -> None:
    prefix = url.rpartition("=")[2]

    def subscribers() -> int:
        names = [f"{prefix}:c:{{{channel}}}" for channel in CHANNELS]
        found = [node.ask("PUBSUB", "SHARDNUMSUB", *names) for node in cluster.primaries]
        return sum(answer[2 * place + 1] for answer in found for place in range(len(names)))

    async with node(url) as a:
        await a.subscribe(*CHANNELS)
        assert subscribers() == len(CHANNELS)
        for channel in CHANNELS:
            a.broker.unsubscribe(channel)
        await until(lambda: subscribers() == 0)
        await a.subscribe("c1")
        await a.publish("c1", b"1")
        await until(lambda: a.ear.texts() == [b"1"])


async def test_each_primary_is_probed(cluster: RedisCluster, url: str) -> None:
    async with node(url) as a:
        shards = a.broker._layout.shards
        assert len(shards) == 3
        for primary in cluster.primaries:
            before = primary.facts("INFO commandstats")["cmdstat_spublish"]
            await until(
                lambda primary=primary, before=before: primary.facts("INFO commandstats")["cmdstat_spublish"] != before
            )
        await until(lambda: a.broker.lag.count > 6)
        assert a.broker.is_up


# Slots that move


async def test_a_stream_that_moves_is_the_same_one_and_is_heard_where_it_is(
    cluster: RedisCluster, pair: tuple[Node, Node]
) -> None:
    a, b = pair
    await b.subscribe("moving", "staying")
    before = [(await a.publish("moving", b"%d" % number, KEPT)).position for number in range(3)]
    assert cluster.migrate(slot("moving"), other_than(cluster, "moving")) >= 2
    after = (await a.publish("moving", b"3", KEPT)).position
    assert after == Position(4, before[0].epoch)
    assert [each.offset for each in (await b.history("moving")).publications] == [1, 2, 3, 4]
    await until(lambda: "moving" in b.ear.losses)
    await b.publish("moving", b"4", KEPT)
    await until(lambda: b.ear.texts("moving")[-1:] == [b"4"])
    assert set(b.ear.losses) == {"moving"}
    assert b.broker.gaps == 1
    assert b.broker.reconnects == 0


async def test_who_has_an_old_map_is_sent_on_and_nothing_is_refused(
    cluster: RedisCluster, pair: tuple[Node, Node]
) -> None:
    a, b = pair
    await b.subscribe("sent-on")
    answers: list[Any] = []
    asked = 0
    for _ in range(3):
        moving = asyncio.create_task(
            asyncio.to_thread(cluster.migrate, slot("sent-on"), other_than(cluster, "sent-on"))
        )
        number = 0
        while not moving.done() or number < 50:
            for terms in (KEPT, PLAIN):
                a.broker.publish("sent-on", Publication(b"%d" % number), terms, answers.append)
                asked += 1
            number += 1
            await asyncio.sleep(0.001)
        await moving
    await until(lambda: len(answers) == asked)
    assert all(isinstance(answer, Published) for answer in answers)
    kept = [answer.position.offset for answer in answers if answer.position.offset]
    assert sorted(kept) == list(range(1, len(kept) + 1)), "each was published once"
    assert len({answer.position.epoch for answer in answers if answer.position.offset}) == 1
    payloads = [int(each.payload) for each in (await b.history("sent-on")).publications]
    assert len(payloads) == len(kept)


async def test_what_is_asked_for_in_order_is_done_in_order_while_its_slot_moves(
    cluster: RedisCluster, pair: tuple[Node, Node]
) -> None:
    a, b = pair
    moving = asyncio.create_task(asyncio.to_thread(cluster.migrate, slot("ordered"), other_than(cluster, "ordered")))
    answers: list[Any] = []
    number = 0
    while not moving.done() or number < 500:
        for _ in range(20):
            a.broker.publish("ordered", Publication(b"%d" % number), KEPT, answers.append)
            number += 1
        await asyncio.sleep(0.002)
    await moving
    await until(lambda: len(answers) == number)
    assert all(isinstance(answer, Published) for answer in answers)
    stream = await b.history("ordered")
    assert [int(each.payload) for each in stream.publications] == list(range(number))[-1000:]


async def test_what_is_half_moved_is_asked_for_where_it_is(cluster: RedisCluster, pair: tuple[Node, Node]) -> None:
    a, b = pair
    first = await a.publish("half", b"1", KEPT)
    with cluster.migrating(slot("half"), other_than(cluster, "half")) as move_keys:
        assert (await a.publish("half", b"2", KEPT)).position == Position(2, first.position.epoch)
        assert move_keys() >= 2
        assert (await a.publish("half", b"3", KEPT)).position == Position(3, first.position.epoch)
        assert (await b.history("half")).top.offset == 3
        late: list[Any] = []
        a.broker.publish("half", Publication(b"4"), Terms(KEPT.retention, "a key that is nowhere"), late.append)
        await asyncio.sleep(0.1)
        assert late == [], "it waits until the slot has moved"
    await until(lambda: late)
    assert late[0].position == Position(4, first.position.epoch)
    assert [each.payload for each in (await a.history("half")).publications] == [b"1", b"2", b"3", b"4"]


async def test_what_cannot_be_had_for_too_long_is_refused(cluster: RedisCluster, url: str) -> None:
    async with node(url) as a:
        await a.publish("never", b"1", KEPT)
        with cluster.migrating(slot("never"), other_than(cluster, "never")):
            answer = await a.try_to(a.broker.publish, "never", Publication(b"2"), Terms(KEPT.retention, "k"))
            assert isinstance(answer, BrokerError)
        assert (await a.history("never")).top.offset == 1


async def test_a_new_primary_gets_its_first_slots(cluster: RedisCluster, url: str) -> None:
    async with node(url) as a:
        await a.subscribe("pioneer")
        before = (await a.publish("pioneer", b"1", KEPT)).position
        home = cluster.owner_of(slot("pioneer"))
        with cluster.newcomer() as newcomer:
            with cluster.migrating(slot("pioneer"), newcomer) as move_keys:
                assert move_keys() >= 2
                assert (await a.publish("pioneer", b"2", KEPT)).position == Position(2, before.epoch)
            await until(lambda: "pioneer" in a.ear.losses and len(a.broker._layout.shards) == 4 and a.broker.is_up)
            await a.publish("pioneer", b"3", KEPT)
            await until(lambda: a.ear.texts()[-1] == b"3")
            cluster.migrate(slot("pioneer"), home)
            await until(lambda: len(a.broker._layout.shards) == 3 and a.broker.is_up)
            assert (await a.publish("pioneer", b"4", KEPT)).position == Position(4, before.epoch)


# Nodes that are away


async def test_a_server_may_start_before_its_cluster_which_wants_a_password() -> None:
    late = RedisCluster(2, password="s3cret")
    async with node(late.url.replace("://", "://:s3cret@"), must_be_up=False) as a:
        answers = [
            await a.try_to(a.broker.publish, "news", Publication(b"1"), KEPT),
            await a.try_to(a.broker.publish, "news", Publication(b"plain"), PLAIN),
            await a.try_to(a.broker.history, "news", KEPT.retention, EVERYTHING),
            await a.try_to(a.broker.presence, "news"),
            await a.try_to(a.broker.add_presence, "news", ANN),
            await a.try_to(a.broker.subscribe, "news"),
        ]
        assert all(isinstance(answer, BrokerError) for answer in answers)
        assert a.ear.texts() == [b"plain"], "what is plain is heard here all the same"
        assert not a.broker.is_up
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, late.__enter__)
        try:
            await until(lambda: a.broker.is_up)
            await a.publish("news", b"2")
            await until(lambda: a.ear.texts() == [b"plain", b"2"]), "what was wanted meanwhile was not forgotten"
            a.broker.sweep()
            await until_answered(lambda: a.ask(a.broker.presence, "news"), {ANN.client: ANN})
            await _lose_a_primary(late, a)
        finally:
            late.__exit__()


async def _lose_a_primary(cluster: RedisCluster, a: Node) -> None:
    """Where full coverage is not required, the slots of the others are served."""
    for each in cluster.primaries:
        each.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
    victim = cluster.primary_of(b"{news}")
    [there, *_] = [channel for channel in CHANNELS if cluster.owner_of(slot(channel)) is not victim]
    victim.kill()
    await until(lambda: not a.broker.is_up)
    assert (await a.publish(there, b"1", KEPT)).position.offset == 1
    assert isinstance(await a.try_to(a.broker.publish, "news", Publication(b"3"), KEPT), BrokerError)
    assert isinstance(await a.try_to(a.broker.publish, "news", Publication(b"here"), PLAIN), BrokerError)
    assert a.ear.texts("news")[-1] == b"here"
    await asyncio.to_thread(victim.restart)
    await until(lambda: a.broker.is_up)
    await a.publish("news", b"4")
    await until(lambda: a.ear.texts("news")[-1] == b"4")
    assert "news" in a.ear.losses


async def test_a_redis_that_is_no_cluster_is_said_to_be_none(caplog: pytest.LogCaptureFixture) -> None:
    with RedisNode() as alone:
        alone.ask("CONFIG", "SET", "cluster-require-full-coverage", "yes")
        async with node(f"redis+cluster://127.0.0.1:{alone.port}", must_be_up=False) as a:
            assert not a.broker.is_up
            await until(lambda: "no map of the Redis Cluster: the cluster is down" in caplog.text)
