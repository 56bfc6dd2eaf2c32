"""The broker between machines, with a real Redis: what two nodes hear of each other, and what is kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from server.brokers.base import (
    EVERYTHING,
    NOTHING,
    PLAIN,
    Attendance,
    Broker,
    BrokerError,
    Published,
    Retention,
    Stream,
    Terms,
)
from server.brokers.redis import RedisBroker, parse
from server.core.history import Position, judge
from server.core.publication import ClientInfo, Publication
from tests.redis_nodes import DATE, KEPT, QUICK, Notes, RedisNode, node, until, until_answered
from tests.redis_server import RedisServer

NUMBERS = count()
ANN = ClientInfo("ann", "client-1", b'{"name":"Ann"}', b"[1]")
SMALL = Terms(Retention(3, 300.0))


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def url(redis: RedisServer) -> str:
    """Each test has its own keys."""
    return f"{redis.url}?prefix=test{next(NUMBERS)}"


@pytest.fixture
async def pair(url: str) -> AsyncIterator[tuple[RedisNode, RedisNode]]:
    async with node(url) as a, node(url) as b:
        yield a, b


# Publishing


async def test_it_is_a_broker(url: str) -> None:
    async with node(url) as a:
        broker: Broker = a.broker
        assert broker.is_up


async def test_what_one_node_publishes_every_node_hears_byte_for_byte(pair: tuple[RedisNode, RedisNode]) -> None:
    a, b = pair
    publications = [
        Publication("grüß".encode()),
        Publication(b"\xff\x00", is_binary=True),
        Publication(b"5", is_json=True, info=ANN, tags={"key": "é", "": ""}, published_at=1_700_000_000_123),
        Publication(b""),
        Publication(b"x" * 300_000),
    ]
    await a.subscribe("news")
    await b.subscribe("news")
    for publication in publications:
        assert await a.ask(a.broker.publish, "news", publication, PLAIN) == Published(Position(0, ""))
    expected = [("news", publication, "") for publication in publications]
    await until(lambda: len(a.ear.heard) == len(b.ear.heard) == len(publications))
    assert a.ear.heard == b.ear.heard == expected


async def test_names_of_channels_are_exact(pair: tuple[RedisNode, RedisNode]) -> None:
    a, b = pair
    names = ["news", "new?", "*", "n}e{ws", "#ann", "chat:ü", "}", "{"]
    await b.subscribe(*names)
    for name in [*names, "newt", "other"]:
        await a.publish(name, name.encode())
        assert (await a.publish(name, name.encode(), KEPT)).position.offset == 1
    await until(lambda: len(b.ear.heard) == 2 * len(names))
    assert [channel for channel, *_ in b.ear.heard] == [name for name in names for _ in range(2)]
    assert b.ear.texts() == [name.encode() for name in names for _ in range(2)]


async def test_kept_ones_are_heard_with_offset_and_epoch(pair: tuple[RedisNode, RedisNode]) -> None:
    a, b = pair
    await b.subscribe("news")
    first = await a.publish("news", b"1", KEPT, info=ANN)
    second = await b.publish("news", b"2", KEPT)
    epoch = first.position.epoch
    assert len(epoch) == 8
    assert (first.position, second.position) == (Position(1, epoch), Position(2, epoch))
    kept = (Publication(b"1", offset=1, info=ANN, published_at=DATE), Publication(b"2", offset=2, published_at=DATE))
    await until(lambda: len(b.ear.heard) == 2)
    assert b.ear.heard == [("news", publication, epoch) for publication in kept]
    assert await a.history("news") == await b.history("news")
    stream = await a.history("news")
    assert (stream.publications, stream.top) == (kept, Position(2, epoch))


async def test_offsets_are_one_order_for_all_nodes_however_many_publish_at_once(
    pair: tuple[RedisNode, RedisNode],
) -> None:
    channels = [f"c{number}" for number in range(5)]
    for each in pair:
        await each.subscribe(*channels)

    async def publish(publisher: RedisNode, name: bytes) -> list[tuple[str, int, bytes]]:
        texts = [(channel, b"%b %d" % (name, number)) for number in range(200) for channel in channels]
        answers = await asyncio.gather(*(publisher.publish(channel, text, KEPT) for channel, text in texts))
        return [(channel, answer.position.offset, text) for (channel, text), answer in zip(texts, answers, strict=True)]

    answered = [
        said for group in await asyncio.gather(publish(pair[0], b"a"), publish(pair[1], b"b")) for said in group
    ]
    await until(lambda: all(len(each.ear.heard) == 2000 for each in pair))
    for each in pair:
        heard = [(channel, publication.offset, publication.payload) for channel, publication, _ in each.ear.heard]
        assert sorted(heard) == sorted(answered)
        for channel in channels:
            assert each.ear.offsets(channel) == list(range(1, 401))
            texts = each.ear.texts(channel)
            for name in (b"a", b"b"):
                assert [text for text in texts if text.startswith(name)] == [b"%b %d" % (name, n) for n in range(200)]


async def test_publications_of_one_turn_go_out_together_and_are_answered_in_order(url: str) -> None:
    async with node(url) as a:
        await a.subscribe("news")
        happened: list[object] = []
        for number in range(100):
            terms = KEPT if number % 2 else PLAIN
            a.broker.publish("news", Publication(b"%d" % number), terms, lambda answer, n=number: happened.append(n))
        assert happened == []
        await until(lambda: len(happened) == 100)
        assert happened == list(range(100))
        await until(lambda: len(a.ear.heard) == 100)
        assert a.ear.texts() == [b"%d" % number for number in range(100)]


async def test_the_publisher_is_told_when_too_much_waits_here(url: str) -> None:
    async with node(url) as a:
        await a.subscribe("news")
        a.ear.keeps_up = False
        await a.publish("news", b"1")
        await until(lambda: a.ear.heard)
        for terms in (PLAIN, KEPT):
            assert (await a.publish("news", b"2", terms)).keeps_up is False
        assert (await a.publish("other", b"2")).keeps_up is True
        a.ear.keeps_up = True
        await a.publish("news", b"3")
        await until(lambda: len(a.ear.heard) == 4)
        assert (await a.publish("news", b"4")).keeps_up is True


@pytest.mark.parametrize("retention", [NOTHING, KEPT.retention], ids=["not kept", "kept"])
async def test_a_key_is_published_once_by_whatever_node(
    pair: tuple[RedisNode, RedisNode], retention: Retention
) -> None:
    a, b = pair
    await b.subscribe("news", "other")
    first = await a.publish("news", b"1", Terms(retention, "k"))
    assert not first.is_suppressed
    again = await b.publish("news", b"2", Terms(retention, "k"))
    assert again == Published(first.position, is_suppressed=True)
    assert not (await b.publish("other", b"3", Terms(retention, "k"))).is_suppressed
    assert not (await b.publish("news", b"4", Terms(retention, "l"))).is_suppressed
    await until(lambda: len(b.ear.heard) == 3)
    assert b.ear.texts() == [b"1", b"3", b"4"]


async def test_a_key_is_forgotten_after_its_time(url: str, redis: RedisServer) -> None:
    async with node(url) as a:
        for terms in (Terms(NOTHING, "k"), Terms(KEPT.retention, "l")):
            await a.publish("news", b"1", terms)
        keys = redis.ask("KEYS", f"{url.rpartition('=')[2]}:i:*")
        assert len(keys) == 2
        for key in keys:
            assert 0 < redis.ask("PTTL", key) <= 300_000
            redis.ask("DEL", key)
        for terms in (Terms(NOTHING, "k"), Terms(KEPT.retention, "l")):
            assert not (await a.publish("news", b"2", terms)).is_suppressed


async def test_a_version_that_is_not_above_the_last_one_is_not_published(pair: tuple[RedisNode, RedisNode]) -> None:
    a, b = pair

    async def publish(version: int, epoch: str = "", key: str = "") -> Published:
        return await a.publish("news", b"x", Terms(KEPT.retention, key, version, epoch))

    await b.subscribe("news")
    position = (await publish(5)).position
    for version in (5, 4):
        assert await publish(version) == Published(position, is_suppressed=True)
    assert not (await publish(0)).is_suppressed
    assert (await publish(5)).is_suppressed, "a publication without one changes nothing"
    assert not (await publish(6)).is_suppressed
    assert not (await publish(10)).is_suppressed, "numbers, not texts"
    assert not (await publish(1, "b")).is_suppressed
    assert (await publish(1, "b")).is_suppressed
    assert (await publish(2**63 - 1, "b")).is_suppressed is False
    assert (await publish(2**63 - 2, "b", key="k")).is_suppressed
    assert not (await publish(2**63, "b", key="k")).is_suppressed, "its key was not used"
    await until(lambda: len(b.ear.heard) == 7)
    assert b.ear.offsets("news") == [1, 2, 3, 4, 5, 6, 7]


# History


async def test_a_part_of_a_history_is_read(url: str) -> None:
    async with node(url) as a:
        for number in range(5):
            await a.publish("news", b"%d" % number, KEPT)

        async def read(**wanted: Any) -> list[int]:
            stream = await a.history("news", **wanted)
            assert stream.top.offset == 5
            return [publication.offset for publication in stream.publications]

        assert await read() == [1, 2, 3, 4, 5]
        assert await read(limit=0) == []
        assert await read(limit=2) == [1, 2]
        assert await read(since=Position(3, "any")) == [4, 5]
        assert await read(since=Position(3, "any"), limit=1) == [4]
        assert await read(since=Position(3, "e1"), reverse=True) == [2, 1]
        assert await read(limit=1, reverse=True) == [5]
        assert await read(reverse=True) == [5, 4, 3, 2, 1]
        for beyond in (5, 108, 2**64 - 1):
            assert await read(since=Position(beyond, "")) == []
        assert await read(since=Position(2**64 - 1, ""), reverse=True, limit=1) == [5]
        assert await read(since=Position(0, ""), reverse=True) == []


async def test_a_long_history_is_read_as_far_as_it_fits(url: str) -> None:
    async with node(url) as a:
        for number in range(200):
            await a.publish("news", b"x" * 100 + b"%03d" % number, KEPT)

        async def read(**wanted: Any) -> list[int]:
            return [publication.offset for publication in (await a.history("news", **wanted)).publications]

        everything = list(range(1, 201))
        for limit in (None, 63, 64, 65, 128, 200, 201, 2**31 - 1):
            assert await read(limit=limit) == everything[:limit]
            assert await read(limit=limit, reverse=True) == everything[::-1][:limit]
            assert await read(limit=limit, since=Position(70, "")) == everything[70:][:limit]
            assert await read(limit=limit, since=Position(70, ""), reverse=True) == everything[:69][::-1][:limit]
        assert await read(most_bytes=0) == [1]
        assert await read(most_bytes=10**9) == everything
        fitting = await read(most_bytes=10_000)
        assert 64 < len(fitting) < 100
        assert fitting == everything[: len(fitting)]
        assert len(await read(most_bytes=10_000, reverse=True)) == len(fitting)
        assert await read(most_bytes=10_000, limit=2) == [1, 2]
        assert await read(most_bytes=10_000, limit=0) == []


async def test_what_is_too_much_is_forgotten_and_a_reader_may_want_less(url: str) -> None:
    async with node(url) as a:
        for number in range(10):
            await a.publish("news", b"%d" % number, SMALL)
        assert [p.offset for p in (await a.history("news", SMALL.retention)).publications] == [8, 9, 10]
        assert [p.offset for p in (await a.history("news", Retention(2, 300.0))).publications] == [9, 10]
        assert [p.offset for p in (await a.history("news", Retention(2, 300.0), limit=1)).publications] == [9]
        assert [p.offset for p in (await a.history("news", NOTHING)).publications] == [8, 9, 10]


async def test_a_channel_that_never_had_a_history_gets_its_epoch(url: str) -> None:
    async with node(url) as a:
        stream = await a.history("news")
        assert (stream.publications, stream.top.offset) == ((), 0)
        assert (await a.publish("news", b"1", KEPT)).position == Position(1, stream.top.epoch)


async def test_old_publications_expire_and_the_position_stays(url: str) -> None:
    async with node(url) as a:
        short = Terms(Retention(10, 0.05))
        position = (await a.publish("news", b"1", short)).position
        await until_answered(lambda: a.history("news", short.retention), Stream((), position))
        assert judge(position, position, ()).recovered


async def test_removing_a_history_leaves_the_position(url: str) -> None:
    async with node(url) as a:
        position = (await a.publish("news", b"1", KEPT)).position
        assert await a.ask(a.broker.remove_history, "news") is None
        stream = await a.history("news")
        assert (stream.publications, stream.top) == ((), position)
        assert await a.ask(a.broker.remove_history, "unknown") is None
        assert (await a.publish("news", b"2", KEPT)).position == Position(2, position.epoch)


async def test_everything_in_redis_expires(url: str, redis: RedisServer) -> None:
    prefix = url.rpartition("=")[2]
    async with node(url) as a:
        await a.publish("news", b"1", Terms(KEPT.retention, "k", 1))
        await a.publish("plain", b"1", Terms(NOTHING, "k"))
        await a.history("unused")
        await a.ask(a.broker.add_presence, "news", ANN)
        await until(lambda: a.broker.lag.count)
        ttls = {key: redis.ask("PTTL", key) for key in redis.ask("KEYS", f"{prefix}:*")}
    assert len(ttls) == 8
    assert all(ttl > 0 for ttl in ttls.values()), ttls
    meta = {key: ttl for key, ttl in ttls.items() if f"{prefix}:m:".encode() in key}
    assert min(meta.values()) > 3_000_000 - 1000, "a position outlives its publications, and the lack of any"


async def test_among_many_keys_a_name_that_was_only_asked_about_is_soon_forgotten() -> None:
    fill = "for number = 1, 100000 do redis.call('SET', 'other:' .. number, '') end"
    with RedisServer() as crowded:
        async with node(crowded.url) as a:
            await a.publish("news", b"1", KEPT)
            await a.history("early")
            crowded.ask("EVAL", fill, 0)
            await a.history("late")
            ttls = [crowded.ask("PTTL", f"stentor:m:{{{name}}}") for name in ("news", "early", "late")]
    assert [ttl > 300_000 for ttl in ttls] == [True, True, False]
    assert min(ttls) > 0


async def test_a_stream_of_a_redis_that_was_started_again_is_another_one(redis: RedisServer) -> None:
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as lasting:
        async with node(lasting.url) as a:
            before = (await a.publish("news", b"1", KEPT)).position
            await until(lambda: a.broker.lag.count)
            lasting.kill()
            await until(lambda: not a.broker.is_up)
            lasting.restart()
            await until(lambda: a.broker.is_up)
            stream = await a.history("news")
            assert stream.top.epoch != before.epoch, "it may have come back with less than it had acknowledged"
            assert stream.publications == ()


# Hearing


async def test_who_unsubscribes_hears_no_more_and_redis_is_told(url: str, redis: RedisServer) -> None:
    prefix = url.rpartition("=")[2]

    def subscribers() -> int:
        [_, number] = redis.ask("PUBSUB", "NUMSUB", f"{prefix}:c:{{news}}")
        return int(number)

    async with node(url) as a:
        await a.subscribe("news")
        assert subscribers() == 1
        a.broker.unsubscribe("news")
        a.broker.unsubscribe("news")
        await a.subscribe("news")
        await a.publish("news", b"1")
        await until(lambda: a.ear.heard)
        a.broker.unsubscribe("news")
        a.broker.unsubscribe("unknown")
        await until(lambda: subscribers() == 0)
        await a.subscribe("news")
        assert subscribers() == 1
        await a.publish("news", b"2")
        await until(lambda: len(a.ear.heard) == 2)


async def test_done_means_that_nothing_is_missed_from_then_on(pair: tuple[RedisNode, RedisNode]) -> None:
    a, b = pair
    for number in range(50):
        channel = f"c{number}"
        await b.subscribe(channel)
        await a.publish(channel, channel.encode())
    await until(lambda: len(b.ear.heard) == 50)


async def test_who_comes_and_goes_is_told_to_all(pair: tuple[RedisNode, RedisNode]) -> None:
    for each in pair:
        await each.subscribe("news")
    a, _ = pair
    a.broker.publish_join("news", ANN)
    a.broker.publish_leave("news", ANN)
    for each in pair:
        await until(lambda each=each: len(each.ear.news) == 2)
        assert each.ear.news == [("join", "news", ANN), ("leave", "news", ANN)]


# Presence


async def test_presence_is_who_was_added_and_not_removed_on_any_node(pair: tuple[RedisNode, RedisNode]) -> None:
    a, b = pair
    others = [ClientInfo("ann", "client-2"), ClientInfo("", "client-3"), ClientInfo("", "client-4")]
    await a.ask(a.broker.add_presence, "news", ANN)
    for info in others:
        assert await b.ask(b.broker.add_presence, "news", info) is None
    everyone = {info.client: info for info in (ANN, *others)}
    assert await a.ask(a.broker.presence, "news") == everyone
    assert await b.ask(b.broker.presence_stats, "news") == Attendance(clients=4, users=2)
    # What is said of one anew takes the place of what was said.
    changed = others[0]._replace(conn_info=b'{"mood":"new"}')
    await b.ask(b.broker.add_presence, "news", changed)
    assert await a.ask(a.broker.presence, "news") == everyone | {changed.client: changed}
    assert await a.ask(a.broker.presence_stats, "news") == Attendance(clients=4, users=2)
    b.broker.remove_presence("news", others[0])
    b.broker.remove_presence("news", others[0])
    a.broker.remove_presence("news", ANN)
    await until_answered(lambda: b.ask(b.broker.presence_stats, "news"), Attendance(2, 1))
    assert await a.ask(a.broker.presence, "empty") == {}
    assert await a.ask(a.broker.presence_stats, "empty") == Attendance(0, 0)


async def test_the_clients_of_a_node_that_died_are_forgotten_and_those_of_others_are_not(url: str) -> None:
    pace = replace(QUICK, presence_ttl=0.9)
    async with node(url, pace) as a:
        async with node(url, pace) as b:
            await b.ask(b.broker.add_presence, "news", ANN)
            await a.ask(a.broker.add_presence, "news", ClientInfo("bob", "client-2"))
            assert await a.ask(a.broker.presence_stats, "news") == Attendance(2, 2)

        async def stats() -> Attendance:
            a.broker.sweep()
            answer = await a.ask(a.broker.presence_stats, "news")
            assert isinstance(answer, Attendance)
            return answer

        await until_answered(stats, Attendance(1, 1))
        assert list(await a.ask(a.broker.presence, "news")) == ["client-2"]


# Places


async def test_prefixes_and_databases_do_not_meet(redis: RedisServer) -> None:
    base = redis.url.removesuffix("0")
    async with node(f"{base}0") as a, node(f"{base}0?prefix=p") as b, node(f"{base}1") as c:
        for each in (a, b, c):
            await each.subscribe("news")
        for number, each in enumerate((a, b, c)):
            for text in range(number + 1):
                assert (await each.publish("news", b"%d" % number, KEPT)).position.offset == text + 1
        await until(lambda: len(c.ear.heard) == 3)
        assert [set(each.ear.texts()) for each in (a, b, c)] == [{b"0"}, {b"1"}, {b"2"}]


async def test_by_a_unix_socket_and_with_a_password() -> None:
    with RedisServer(password="s3cret!") as locked:
        async with (
            node(f"unix://:s3cret%21@{locked.path}?db=2") as a,
            node(f"unix://{locked.path}", must_be_up=False) as b,
        ):
            await a.publish("news", b"1", KEPT)
            assert not b.broker.is_up


async def test_several_redis_share_the_channels(redis: RedisServer) -> None:
    with RedisServer() as second:
        url = f"{redis.url}?prefix=shards,{second.url}?prefix=shards"
        async with node(url) as a, node(",".join(reversed(url.split(",")))) as b:
            channels = [f"c{number}" for number in range(40)]
            await b.subscribe(*channels)
            for channel in channels:
                await a.publish(channel, channel.encode(), KEPT)
            await until(lambda: len(b.ear.heard) == 40)
            kept = [len(server.ask("KEYS", "shards:s:*")) for server in (redis, second)]
            assert sum(kept) == 40
            assert min(kept) >= 5
            for channel in channels:
                assert (await b.history(channel)).top.offset == 1
            second.kill()
            await until(lambda: not a.broker.is_up)
            outcomes = [await a.try_to(a.broker.publish, channel, Publication(b"2"), KEPT) for channel in channels]
            assert sum(isinstance(outcome, BrokerError) for outcome in outcomes) == kept[1], "the others go on"
            second.restart()
            await until(lambda: a.broker.is_up and b.broker.is_up)
            assert len(b.ear.losses) == kept[1], "of the one that was away, each channel"


# Redis away


async def test_a_server_may_start_before_its_redis(redis: RedisServer) -> None:
    late = RedisServer()
    async with node(late.url, must_be_up=False) as a:
        answers = [
            await a.try_to(a.broker.publish, "news", Publication(b"1"), KEPT),
            await a.try_to(a.broker.history, "news", KEPT.retention, EVERYTHING),
            await a.try_to(a.broker.presence, "news"),
            await a.try_to(a.broker.presence_stats, "news"),
            await a.try_to(a.broker.remove_history, "news"),
            await a.try_to(a.broker.add_presence, "news", ANN),
            await a.try_to(a.broker.subscribe, "news"),
        ]
        assert all(isinstance(answer, BrokerError) for answer in answers)
        with late:
            await until(lambda: a.broker.is_up)
            assert (a.broker.reconnects, a.broker.gaps, a.ear.losses) == (0, 0, [])
            a.broker.sweep()
            await until_answered(lambda: a.ask(a.broker.presence, "news"), {ANN.client: ANN})
            await a.publish("news", b"2")
            await until(lambda: a.ear.heard), "what was wanted meanwhile was not forgotten"


async def test_while_redis_is_away_plain_publications_are_heard_here_and_their_publisher_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with RedisServer() as redis:
        async with node(redis.url) as a, node(redis.url) as b:
            for each in (a, b):
                await each.subscribe("news")
            await a.publish("news", b"before")
            await until(lambda: a.ear.heard and b.ear.heard)
            redis.kill()
            await until(lambda: not a.broker.is_up)
            for terms in (PLAIN, KEPT, Terms(NOTHING, "k")):
                assert isinstance(await a.try_to(a.broker.publish, "news", Publication(b"away"), terms), BrokerError)
            a.broker.publish_join("news", ANN)
            a.broker.publish_leave("news", ANN)
            assert a.ear.texts() == [b"before", b"away"], "kept and keyed ones are heard by all or by none"
            assert [kind for kind, *_ in a.ear.news] == ["join", "leave"]
            redis.restart()
            await until(lambda: a.broker.is_up and b.broker.is_up)
            await b.publish("news", b"after")
            await until(lambda: len(a.ear.heard) == 3 and len(b.ear.heard) == 2)
            assert a.ear.texts() == [b"before", b"away", b"after"]
            assert b.ear.texts() == [b"before", b"after"]
            assert (a.ear.losses, a.broker.gaps) == ([None], 1)
            assert a.broker.reconnects == 2
    assert sum("cannot be reached" in record.message for record in caplog.records) == 4, "once per connection"


async def test_stopping_answers_everyone(url: str) -> None:
    ear, answers = Notes(), []
    broker = RedisBroker(parse(url), ear, pace=QUICK)
    await broker.start()
    broker.publish("news", Publication(b"1"), KEPT, answers.append)
    broker.subscribe("late", answers.append)
    await broker.stop()
    await broker.stop()
    await until(lambda: answers)
    broker.publish("news", Publication(b"2"), KEPT, answers.append)
    assert isinstance(answers[-1], BrokerError)
    assert not broker.is_up


async def test_ten_thousand_malformed_messages_change_nothing(
    url: str, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "stentor.redis")
    prefix = url.rpartition("=")[2]
    async with node(url) as a:
        await a.subscribe("news")
        garbage = [
            b"",
            b"x",
            b"{}" * 20,
            bytes(47),
            bytes(46) + b"\xff" * 30,
            b"\x80\x04\x95" + bytes(60),
            b"\xff" * 5000,
        ]
        script = "for i = 1, 10000 do redis.call('PUBLISH', KEYS[1], ARGV[i % #ARGV + 1]) end"
        redis.ask("EVAL", script, 1, f"{prefix}:c:{{news}}", *garbage)
        await a.publish("news", b"fine")
        await until(lambda: a.ear.heard)
        assert a.ear.texts() == [b"fine"]
        assert a.broker.malformed == 10_000
        assert a.broker.is_up
        assert (a.broker.gaps, a.broker.reconnects) == (0, 0)
    assert 1 <= sum("malformed" in record.message for record in caplog.records) <= 10, "a line a second"


async def test_a_kept_publication_that_is_none_is_a_hole(url: str, redis: RedisServer) -> None:
    prefix = url.rpartition("=")[2]
    async with node(url) as a:
        since = (await a.publish("news", b"1", KEPT)).position
        redis.ask("HINCRBY", f"{prefix}:m:{{news}}", "o", 1)
        redis.ask("XADD", f"{prefix}:s:{{news}}", "2-0", "b", b"rubbish")
        await a.publish("news", b"3", KEPT)
        stream = await a.history("news")
        assert [publication.offset for publication in stream.publications] == [1, 3]
        assert not judge(since, stream.top, stream.publications[1:]).recovered


async def test_a_script_that_redis_forgot_is_loaded_again_and_nothing_is_overtaken(
    url: str, redis: RedisServer
) -> None:
    async with node(url) as a:
        await a.subscribe("news")
        for _ in range(5):
            redis.ask("SCRIPT", "FLUSH")
            await asyncio.gather(*(a.publish("news", b"x", KEPT) for _ in range(100)))
        await until(lambda: len(a.ear.heard) == 500)
        assert a.ear.offsets("news") == list(range(1, 501))
        assert a.broker.reconnects == 0


async def test_scripts_that_are_forgotten_while_two_publish_lose_nothing_and_all_hear_one_order(
    pair: tuple[RedisNode, RedisNode], redis: RedisServer
) -> None:
    a, b = pair
    for each in pair:
        await each.subscribe("news")
    published = [b"%d" % number for number in range(400)]
    for start in range(0, 400, 40):
        flushing = asyncio.to_thread(redis.ask, "SCRIPT", "FLUSH")
        texts = enumerate(published[start : start + 40])
        await asyncio.gather(flushing, *(pair[place % 2].publish("news", text, KEPT) for place, text in texts))
    await until(lambda: len(a.ear.heard) == len(b.ear.heard) == 400)
    assert a.ear.texts() == b.ear.texts()
    assert sorted(a.ear.texts()) == sorted(published)
    assert a.ear.offsets("news") == list(range(1, 401))


async def test_what_is_under_way_when_we_become_deaf_is_heard_here_once(redis: RedisServer, url: str) -> None:
    async with node(url, replace(QUICK, patience=5.0)) as a:
        await a.subscribe("news")
        await a.publish("news", b"1")
        await until(lambda: a.ear.heard)
        answers: list[object] = []
        redis.stop()
        try:
            for text in (b"2", b"3"):
                a.broker.publish("news", Publication(text), PLAIN, answers.append)
            await asyncio.sleep(0)
            a.broker._layout.shards[0]._hearing_link.drop("for a test")
            await until(lambda: len(a.ear.heard) == 3)
            a.broker.publish("news", Publication(b"4"), PLAIN, answers.append)
            assert a.ear.texts() == [b"1", b"2", b"3", b"4"]
            assert answers == []
        finally:
            redis.go_on()
        await until(lambda: len(answers) == 3 and a.broker.is_up)
        assert answers == [Published()] * 3, "Redis has carried them to the others"
        await a.publish("news", b"5")
        await until(lambda: len(a.ear.heard) == 5)
        assert a.ear.texts() == [b"1", b"2", b"3", b"4", b"5"]
