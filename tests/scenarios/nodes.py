"""Two nodes over one Redis, all of them real processes, with clients of both dialects at each, and the accounts.

    async with nodes(redis.url, redis.url) as pair:
        await pair.talk(2.0)                      # all the while: both nodes publish, on both kinds of channel
        ...                                       # inject, prove
        await pair.settle(may_lose=False)         # the ledger, the nodes' own accounts, their logs

On ``kept:news``, which has a history, a Speaker of each node publishes by the server API, and Members of the Centrifuge
dialect listen: they come back and recover, as the published SDKs do. On ``plain``, which has none, a raw client of each
node publishes, and raw clients listen. A publication is its publisher (the node's number) and its own number.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Coroutine
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.harness import Metrics, Server, serve
from tests.redis_sites import assert_in_order, assert_kept, assert_plain
from tests.scenarios.clients import Client, Crowd, eventually
from tests.scenarios.talkers import PLAIN, Member, Said, Speaker, Voice

CONFIG: Final = """
[namespaces.kept]
history_size = 20000
history_ttl = 600
"""
COUNTERS: Final = ("messages_offered_total", "messages_sent_total", "messages_dropped_total", "queue_messages")
# A publisher is told within two seconds; a busy machine may add to that.
TOLD: Final = 2.0
SLACK: Final = 2.0


class Node:
    """One node with everyone who talks to it."""

    def __init__(self, number: int, server: Server, crowd: Crowd) -> None:
        self.number = number
        self.server = server
        self.crowd = crowd
        self.members: list[Member] = []
        self.listeners: list[Client] = []
        self.speaker = Speaker(number, server.internal_url)
        self.voice: Voice | None = None
        self.is_killed = False  # on purpose: it has no account to give

    async def metrics(self) -> Metrics:
        return await asyncio.to_thread(self.server.metrics)

    async def status(self) -> int:
        return (await asyncio.to_thread(self.server.get, "/readyz"))[0]

    async def workers(self) -> list[dict[str, Any]]:
        return list((await asyncio.to_thread(self.server.get_json, "/readyz"))["workers"])

    def have_heard(self, word: Said) -> bool:
        """Whether all raw clients who are still here have heard a word lately."""
        return all(word in self.heard(each)[-50:] for each in self.listeners if not each.is_gone)

    def heard(self, listener: Client) -> list[Said]:
        """What a raw client has heard, in order."""
        pairs = (json.loads(payload) for _, payload in listener.inbox)
        return [(publisher, number) for publisher, number in pairs]


class Pair:
    """Both nodes, and what is said all the while."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes = nodes
        self._tasks: list[asyncio.Task[None]] = []
        self._talk: list[asyncio.Task[None]] = []

    @property
    def members(self) -> list[Member]:
        return [member for node in self.nodes for member in node.members]

    @property
    def alive(self) -> list[Node]:
        return [node for node in self.nodes if not node.is_killed]

    async def open(self, members: int, listeners: int, *, roaming: bool) -> None:
        """Let everyone in; members who roam come back to any node, the others to their own."""
        ports = [node.server.port for node in self.nodes]
        for node in self.nodes:
            away = [port for port in ports if port != node.server.port and roaming]
            node.members = [Member([node.server.port, *away]) for _ in range(members)]
            self._tasks += map(_started, (member.run() for member in node.members))
            node.voice = Voice(node.number, await node.crowd.join(f"/ws/{PLAIN}"))
            node.listeners = [node.voice.client, *(await node.crowd.join_many(listeners, f"/ws/{PLAIN}"))]
        await eventually(lambda: all(member.is_on for member in self.members), 20, "all members are on")
        for node in self.nodes:
            assert node.voice is not None
            self._talk += map(_started, (node.speaker.run(), node.voice.run()))

    async def talk(self, seconds: float) -> None:
        """Let everyone go on for so long: the fault lasts, or nothing is wrong and it shows."""
        end = time.monotonic() + seconds
        await eventually(lambda: time.monotonic() > end, seconds + 5)

    async def are_ready(self) -> bool:
        return all([await node.status() == 200 for node in self.alive])

    async def back(self, within: float) -> float:
        """Wait until all nodes are ready, all members are on, and each hears what is said at each node; how long."""
        began = time.monotonic()
        await eventually(self.are_ready, within, "all nodes are ready")
        counts = {node.number: len(node.speaker.acknowledged) for node in self.alive}

        def hear_both() -> bool:
            fresh = [set(node.speaker.acknowledged[counts[node.number] :]) for node in self.alive]
            return all(fresh) and all(
                member.is_on and all(each & set(member.heard[-200:]) for each in fresh) for member in self.members
            )

        await eventually(hear_both, within, "all hear both nodes")
        return time.monotonic() - began

    async def settle(
        self, *, may_lose: bool, far_too: bool = False, exactly: bool = True, deaf: Node | None = None
    ) -> None:
        """Stop talking, wait until all is heard that can be, and judge.

        Args:
            may_lose: whether members may have lost something and been told so.
            far_too: whether raw clients must have heard the other node's raw publications, too.
            deaf: a node that Redis had cut off: what was on its way back to its raw clients is gone.
            exactly: whether the nodes' counters must be the clients' sums; a killed worker's last ones are not known.
        """
        for node in self.nodes:
            assert node.voice is not None
            node.speaker.is_told_to_stop = node.voice.is_told_to_stop = True
        await asyncio.gather(*self._talk)
        await self._last_words()
        self.judge(may_lose=may_lose, far_too=far_too, deaf=deaf)
        await self.judge_nodes(exactly=exactly)

    async def _last_words(self) -> None:
        last = {await node.speaker.last_word() for node in self.alive}
        await eventually(
            lambda: all(member.is_on and last <= set(member.heard[-50:]) for member in self.members), 20, "the last"
        )
        for node in self.alive:
            if node.voice is not None and not node.voice.is_over:
                await eventually(partial(node.have_heard, await node.voice.say()), 20, "the last, raw")

    def judge(self, *, may_lose: bool, far_too: bool, deaf: Node | None = None) -> None:
        """Demand of everyone what is promised to them."""
        acknowledged = [item for node in self.nodes for item in node.speaker.acknowledged]
        published = acknowledged + [item for node in self.nodes for item in node.speaker.refused]
        assert len(acknowledged) > 50, "unknown, not passed"
        assert all(node.speaker.slowest <= TOLD + SLACK for node in self.nodes)
        for member in self.members:
            assert_kept(member.heard, acknowledged, published, member.declared, may_lose=may_lose)
        for node in self.alive:
            assert node.voice is not None
            for listener in node.listeners:
                heard = node.heard(listener)
                assert_in_order(heard)
                if not (listener.is_gone or node.voice.is_over or node is deaf):
                    assert_plain(heard, node.number, node.voice.said)
                if far_too:
                    for other in self.nodes:
                        assert other.voice is not None
                        assert_plain(heard, other.number, other.voice.said)

    async def judge_nodes(self, *, exactly: bool) -> None:
        """Demand of each node that its account balances, and of all together that it is what the clients have got."""
        sent = 0.0
        for node in self.alive:
            assert "raceback" not in node.server.log_text(), node.server.log_text()
            metrics = await node.metrics()
            counts = [metrics.total(f"stentor_{name}") for name in COUNTERS]
            offered, delivered, *others = counts
            assert offered > 0 or not exactly
            assert (offered, others) == (delivered, [0, 0]), f"node {node.number} does not balance: {counts}"
            sent += delivered
        raw = sum(len(node.heard(listener)) for node in self.alive for listener in node.listeners)
        if exactly:
            assert sent == raw + sum(member.pushed for member in self.members)

    async def end(self) -> None:
        for task in (*self._tasks, *self._talk):
            task.cancel()
        gone = await asyncio.gather(*self._tasks, *self._talk, return_exceptions=True)
        faults = [each for each in gone if isinstance(each, Exception)]
        for node in self.nodes:
            node.crowd.leave()
        assert not faults, faults


def _started(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.create_task(work)


@contextlib.asynccontextmanager
async def nodes(
    *urls: str, options: tuple[str, ...] = (), members: int = 4, listeners: int = 2, roaming: bool = True
) -> AsyncIterator[Pair]:
    """Start a node at each Redis URL, and let its clients in; end everyone who talks, and them."""
    with contextlib.ExitStack() as stack:
        config = Path(stack.enter_context(TemporaryDirectory(prefix="stentor-nodes-"))) / "stentor.toml"
        config.write_text(CONFIG)
        made = []
        for number, url in enumerate(urls):
            # In a thread: a relay before Redis may live in this loop.
            server = await asyncio.to_thread(
                stack.enter_context, serve("--config", str(config), "--broker", url, *options)
            )
            made.append(Node(number, server, Crowd(server.port)))
        pair = Pair(*made)
        try:
            await eventually(pair.are_ready, 20, "both nodes are joined")
            await pair.open(members, listeners, roaming=roaming)
            await pair.back(20)
            yield pair
        finally:
            await pair.end()
