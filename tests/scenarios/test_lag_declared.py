"""Whoever loses a part of a stream is told, and recovers exactly that; where nobody can be told, it is counted.

First without sockets, policy by policy; then once with a real server and a client that does not read.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from server.admin.node_api import NodeApi
from server.brokers.base import Retention
from server.core.counters import Drop
from server.core.lag import LagLimits, LagPolicy
from server.node.namespaces import ChannelOptions
from tests import wire as client_wire
from tests.house import House
from tests.scenarios import wire
from tests.scenarios.clients import TINY_BUFFER, Client, eventually
from tests.scenarios.stage import Stage, figure, stage
from tests.speaker import connected, dialect_house

LOSING = (LagPolicy.DROP_OLDEST, LagPolicy.DROP_NEWEST, LagPolicy.CONFLATE)
QUEUE = 4
DROP = dict.fromkeys(LagPolicy, Drop.QUEUE_FULL) | {LagPolicy.CONFLATE: Drop.CONFLATED}
INSUFFICIENT = '{"push":{"channel":"%s","unsubscribe":{"code":2500,"reason":"insufficient state"}}}'


def lagging_house(policy: LagPolicy, **more: Any) -> House:
    """Build a house where `kept:` has a history, other channels have none, and each has a queue of its own."""
    return dialect_house(
        options=ChannelOptions(lag=LagLimits(policy, messages=QUEUE)),
        namespaces={
            "kept": ChannelOptions(lag=LagLimits(policy, messages=QUEUE), retention=Retention(100, 300.0)),
            "calm": ChannelOptions(),
        },
        **more,
    )


def api(home: House) -> NodeApi:
    registry = home.service.registry
    return NodeApi(home.node, registry, clock=home.clock, max_channel_length=128, max_message_size=65536)


async def publish(home: House, channel: str, *numbers: int, **fields: Any) -> None:
    """Publish each number alone: a turn of the loop for each."""
    for number in numbers:
        await api(home).call("publish", {"channel": channel, "data": number, **fields})
        home.loop.settle()


def numbers(lines: list[str], channel: str) -> list[int]:
    """Return what was published on a channel, as a client heard it."""
    pushes = [orjson.loads(line).get("push", {}) for line in lines]
    return [push["pub"]["data"] for push in pushes if push.get("channel") == channel and "pub" in push]


def queued(home: House) -> int:
    return home.backlog.messages


# On a channel with history


@pytest.mark.parametrize("policy", LOSING)
async def test_a_stream_that_a_policy_cuts_is_declared_and_recovered(policy: LagPolicy) -> None:
    home = lagging_house(policy)
    lazy, healthy = connected(home), connected(home, "YOU")
    epoch = lazy.subscribes("kept:news")["epoch"]
    healthy.subscribes("kept:news")
    lazy.transport.stall()
    cut_at = 3 if policy is LagPolicy.CONFLATE else QUEUE + 2  # the first is with the kernel
    await publish(home, "kept:news", *range(1, cut_at))
    assert home.gaps == []
    assert queued(home) == cut_at - 2
    await publish(home, "kept:news", cut_at)
    assert len(home.gaps) == 1
    assert queued(home) == 0
    assert home.counters.dropped[DROP[policy]] == cut_at - 1
    await publish(home, "kept:news", *range(cut_at + 1, 11))
    home.assert_balanced()
    lazy.transport.drain()
    lines = lazy.hears()
    assert numbers(lines, "kept:news") == [1]
    assert lines[-1] == INSUFFICIENT % "kept:news"
    missed = lazy.subscribes("kept:news", recover=True, epoch=epoch, offset=1)
    assert missed["recovered"] is True
    assert [publication["data"] for publication in missed["publications"]] == list(range(2, 11))
    await publish(home, "kept:news", 11)
    assert numbers(lazy.hears(), "kept:news") == [11]
    assert numbers(healthy.hears(), "kept:news") == list(range(1, 12))
    home.assert_balanced()


@pytest.mark.parametrize("policy", LOSING)
async def test_the_other_channels_of_the_client_go_on(policy: LagPolicy) -> None:
    home = lagging_house(policy)
    lazy = connected(home)
    for channel in ("kept:news", "calm:chat"):
        lazy.subscribes(channel)
    lazy.transport.stall()
    await publish(home, "calm:chat", 1, 2)
    await publish(home, "kept:news", *range(1, 11))
    await publish(home, "calm:chat", 3)
    assert queued(home) == 2  # of the chat, beside what is with the kernel
    lazy.transport.drain()
    lines = lazy.hears()
    assert numbers(lines, "calm:chat") == [1, 2, 3]
    assert numbers(lines, "kept:news") == []
    assert INSUFFICIENT % "kept:news" in lines
    await publish(home, "calm:chat", 4)
    assert numbers(lazy.hears(), "calm:chat") == [4]
    home.assert_balanced()


@pytest.mark.parametrize("policy", LOSING)
async def test_a_subscription_of_the_servers_ends_with_its_connection(policy: LagPolicy) -> None:
    """The client can't subscribe to it by itself: it is to come back, and recovers by its connect command."""
    home = lagging_house(policy)
    lazy = connected(home)
    lazy.session.enter("kept:news")
    (pushed,) = lazy.hears()
    epoch = orjson.loads(pushed)["push"]["subscribe"]["epoch"]
    lazy.transport.stall()
    await publish(home, "kept:news", *range(1, 11))
    lazy.transport.drain()
    assert numbers(lazy.hears(), "kept:news") == [1]
    assert lazy.close == (3010, "insufficient state")
    home.assert_balanced()
    assert queued(home) == 0
    assert home.counters.dropped[DROP[policy]] > 0
    assert home.node.audiences == {}
    assert epoch == "EPOCH"


async def test_whoever_is_thrown_out_recovers_when_it_is_back() -> None:
    home = lagging_house(LagPolicy.DISCONNECT)
    lazy = connected(home)
    lazy.subscribes("kept:news")
    lazy.transport.stall()
    await publish(home, "kept:news", *range(1, 11))
    lazy.transport.drain()
    assert numbers(lazy.hears(), "kept:news") == [1]
    assert lazy.close is not None
    assert lazy.close[0] == 3008
    assert home.counters.dropped[Drop.DISCONNECTED] == QUEUE + 1
    home.assert_balanced()
    back = connected(home, "AGAIN")
    missed = back.subscribes("kept:news", recover=True, epoch="EPOCH", offset=1)
    assert [publication["data"] for publication in missed["publications"]] == list(range(2, 11))


async def test_what_is_cut_within_one_turn_is_declared_too() -> None:
    """A batch that is more than a queue at once; and a client that gathers."""
    home = lagging_house(LagPolicy.DROP_OLDEST)
    lazy = connected(home)
    for channel in ("kept:news", "kept:sport"):
        lazy.subscribes(channel)
    lazy.transport.stall()
    await publish(home, "kept:sport", 1)
    for number in range(1, 11):
        await api(home).call("publish", {"channel": "kept:news", "data": number})
    home.loop.settle()
    assert home.counters.dropped[Drop.QUEUE_FULL] == 10
    lazy.transport.drain()
    lines = lazy.hears()
    assert numbers(lines, "kept:news") == []
    assert numbers(lines, "kept:sport") == [1]
    assert lines[-1] == INSUFFICIENT % "kept:news"
    assert len(lazy.subscribes("kept:news", recover=True, epoch="EPOCH", offset=0)["publications"]) == 10
    home.assert_balanced()


async def test_a_laggard_with_a_raw_neighbour_is_told_and_the_neighbour_is_not() -> None:
    home = lagging_house(LagPolicy.DROP_OLDEST)
    lazy = connected(home)
    lazy.subscribes("kept:news")
    _, raw = home.open("/ws/kept:news")
    for transport in (lazy.transport, raw):
        transport.stall()
    await publish(home, "kept:news", *range(1, 11))
    raw.drain()
    assert client_wire.texts(raw.take()) == ["1", "7", "8", "9", "10"]
    lazy.transport.drain()
    assert lazy.hears()[-1] == INSUFFICIENT % "kept:news"
    assert len(home.gaps) == 1
    home.assert_balanced()


# Without history


@pytest.mark.parametrize(
    ("policy", "heard"),
    [
        (LagPolicy.DROP_OLDEST, [1, 7, 8, 9, 10]),
        (LagPolicy.DROP_NEWEST, [1, 2, 3, 4, 5]),
        (LagPolicy.CONFLATE, [1, 10]),
    ],
)
async def test_without_history_the_policy_acts_and_is_counted(policy: LagPolicy, heard: list[int]) -> None:
    home = lagging_house(policy)
    lazy = connected(home)
    lazy.subscribes("news")
    lazy.transport.stall()
    await publish(home, "news", *range(1, 11))
    assert home.gaps == []
    assert home.counters.dropped[DROP[policy]] == 10 - len(heard)
    home.assert_balanced()
    lazy.transport.drain()
    assert numbers(lazy.hears(), "news") == heard
    await publish(home, "news", 11)
    assert numbers(lazy.hears(), "news") == [11]
    home.assert_balanced()


async def test_conflation_keeps_the_latest_of_each_key() -> None:
    """The tag `key` of a publication by the server API; both dialects."""
    home = lagging_house(LagPolicy.CONFLATE)
    lazy = connected(home)
    lazy.subscribes("news")
    _, raw = home.open("/ws/news")
    for transport in (lazy.transport, raw):
        transport.stall()
    await publish(home, "news", 0)
    for number, key in enumerate("abacbc", 1):
        await publish(home, "news", number, tags={"key": key})
    await publish(home, "news", 7)
    await publish(home, "news", 8)
    for transport in (lazy.transport, raw):
        transport.drain()
    assert numbers(lazy.hears(), "news") == [0, 3, 5, 6, 8]
    assert client_wire.texts(raw.take()) == ["0", "3", "5", "6", "8"]
    assert home.counters.dropped[Drop.CONFLATED] == 2 * 4
    home.assert_balanced()


async def test_news_of_who_comes_and_goes_take_no_publications_place() -> None:
    lag = LagLimits(LagPolicy.CONFLATE, messages=QUEUE)
    home = dialect_house(options=ChannelOptions(lag=lag, join_leave=True))
    lazy = connected(home)
    lazy.asks('{"id":2,"subscribe":{"channel":"news","join_leave":true}}')
    lazy.transport.stall()
    await publish(home, "news", 0, 1)
    guest = connected(home, "GUEST")
    guest.subscribes("news")
    home.loop.settle()
    guest.asks('{"id":3,"unsubscribe":{"channel":"news"}}')
    home.loop.settle()
    lazy.transport.drain()
    lines = lazy.hears()
    assert numbers(lines, "news") == [0, 1]
    assert lines[-1] == '{"push":{"channel":"news","leave":{"info":{"user":"","client":"GUEST"}}}}'
    assert not any("join" in line for line in lines)
    home.assert_balanced()


# One write


async def test_a_client_on_several_channels_gets_one_write_per_turn() -> None:
    home = dialect_house()
    alice = connected(home)
    channels = [f"channel{number}" for number in range(20)]
    for channel in channels:
        alice.subscribes(channel)
    for turn in range(3):
        written = len(alice.transport.writes)
        for channel in channels:
            for number in range(3):
                await api(home).call("publish", {"channel": channel, "data": 10 * turn + number})
        assert len(alice.transport.writes) == written
        home.loop.turn()
        assert len(alice.transport.writes) == written + 1
        assert home.loop.is_idle
        lines = alice.hears()
        assert len(lines) == 3 * len(channels)
        for channel in channels:
            assert numbers(lines, channel) == [10 * turn, 10 * turn + 1, 10 * turn + 2]
    home.assert_balanced()


# With a real server

SIZE = 2000
AT_ONCE = 25
TORRENT, CHAT = "torrent:news", "chat"
CONFIG = """
[namespaces.torrent]
history_size = 5000
lag_policy = "drop_oldest"
queue_messages = 100
"""


class Listener:
    """A client of the dialect on a real socket: what it heard, channel by channel."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.replies: dict[int, dict[str, Any]] = {}
        self.numbers: dict[str, list[int]] = {}
        self.unsubscribed: list[tuple[str, int]] = []

    async def ask(self, id: int, **command: Any) -> dict[str, Any]:
        line = orjson.dumps({"id": id, **command})
        await self.client.send(wire.frame(wire.TEXT, line))
        await eventually(lambda: self.look() and id in self.replies, 5, f"the answer to {line!r}")
        return self.replies[id]

    def look(self) -> bool:
        """Take in what has come."""
        inbox, self.client.inbox = self.client.inbox, []
        for _, payload in inbox:
            for line in payload.split(b"\n"):
                self._take(orjson.loads(line))
        return True

    def _take(self, said: dict[str, Any]) -> None:
        if "push" not in said:
            self.replies[said.get("id", 0)] = said
            return
        push = said["push"]
        if "unsubscribe" in push:
            self.unsubscribed.append((push["channel"], push["unsubscribe"]["code"]))
        else:
            self.hear(push["channel"], push["pub"])

    def hear(self, channel: str, publication: dict[str, Any]) -> None:
        number = int(publication["data"].split()[0])
        if channel == TORRENT:
            assert publication["offset"] == number + 1
        self.numbers.setdefault(channel, []).append(number)


async def join(on: Stage, *channels: str, **options: Any) -> Listener:
    listener = Listener(await on.crowd.join("/connection/websocket", **options))
    await listener.ask(1, connect={})
    for id, channel in enumerate(channels, 2):
        answer = await listener.ask(id, subscribe={"channel": channel})
        assert "subscribe" in answer, answer
    return listener


async def test_a_client_that_does_not_read_is_told_and_recovers_what_it_missed(tmp_path: Path) -> None:
    config = tmp_path / "stentor.toml"
    config.write_text(CONFIG)
    said = {TORRENT: 0, CHAT: 0}

    async with stage("--config", str(config), "--write-timeout", "30") as on:

        async def say(channel: str, count: int) -> None:
            first = said[channel]
            said[channel] += count
            commands = [
                {"publish": {"channel": channel, "data": f"{number} ".ljust(SIZE, ".")}}
                for number in range(first, first + count)
            ]
            reply = await on.ask(on.server.api, "batch", {"commands": commands})
            assert len(reply["result"]["replies"] if "result" in reply else reply["replies"]) == count

        async def dropped() -> float:
            return (await on.metrics())['stentor_messages_dropped_total{reason="queue_full"}']

        healthy = await join(on, TORRENT, CHAT)
        lazy = await join(on, TORRENT, CHAT, receive_buffer=TINY_BUFFER)
        epoch = lazy.replies[2]["subscribe"]["epoch"]
        await say(TORRENT, 1)
        await eventually(lambda: lazy.look() and lazy.numbers.get(TORRENT) == [0], 5)
        lazy.client.stall()
        deadline = time.monotonic() + 30
        while not await dropped():
            assert time.monotonic() < deadline, "the kernel takes all"
            await say(TORRENT, AT_ONCE)
        await say(TORRENT, AT_ONCE)
        await say(CHAT, 3)
        lost = await dropped()
        figure("publications until the cut", said[TORRENT])
        figure("dropped", lost)
        lazy.client.read()
        await eventually(lambda: lazy.look() and len(lazy.numbers.get(CHAT, [])) == 3, 10, "the other channel goes on")
        await eventually(lambda: lazy.look() and lazy.unsubscribed, 5, "it is told")
        assert lazy.unsubscribed == [(TORRENT, 2500)]
        heard = lazy.numbers[TORRENT]
        assert heard == list(range(len(heard)))
        missed = said[TORRENT] - len(heard)
        assert missed > lost >= 100

        position = {"recover": True, "epoch": epoch, "offset": len(heard)}
        answer = (await lazy.ask(9, subscribe={"channel": TORRENT, **position}))["subscribe"]
        assert answer["recovered"] is True
        assert len(answer["publications"]) == missed
        for publication in answer["publications"]:
            lazy.hear(TORRENT, publication)
        await asyncio.gather(say(TORRENT, 5), say(CHAT, 5))
        for listener in (lazy, healthy):
            for channel, count in said.items():
                await eventually(
                    lambda ears=listener, name=channel, all=count: ears.look() and len(ears.numbers[name]) == all, 10
                )
                assert listener.numbers[channel] == list(range(count))
        assert healthy.unsubscribed == []
        (await on.metrics()).assert_balanced()
