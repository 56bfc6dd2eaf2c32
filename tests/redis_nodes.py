"""Nodes over one Redis: brokers with ears that write down what they hear, quick enough in all for a test.

async with node(redis.url) as a, node(redis.url) as b:
    await b.subscribe("news")
    await a.publish("news", b"hello")
    await until(lambda: b.ear.texts() == [b"hello"])
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from server.brokers.base import PLAIN, BrokerError, Published, Retention, Slice, Stream, Terms
from server.brokers.redis import Backoff, Pace, RedisBroker, parse
from server.core.publication import ClientInfo, Publication

WITHIN: Final = 15.0
# When it is everywhere, in Unix milliseconds.
DATE: Final = 1_700_000_000_000
KEPT: Final = Terms(Retention(1000, 300.0))
QUICK: Final = Pace(
    patience=1.0, probe_period=0.5, probe_patience=0.5, presence_ttl=60.0, backoff=Backoff(least=0.02, most=0.2)
)


async def until(condition: Callable[[], object], within: float = WITHIN) -> None:
    """Let the loop turn until `condition` holds."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - conditions of many kinds, which nobody announces
            await asyncio.sleep(0.002)


async def until_answered(ask: Callable[[], Awaitable[object]], expected: object) -> None:
    """Ask until the answer is as expected."""
    async with asyncio.timeout(WITHIN):
        while await ask() != expected:  # noqa: ASYNC110 - Redis announces nothing of the kind
            await asyncio.sleep(0.01)


class Notes:
    """An ear that writes down what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Publication, str]] = []
        self.news: list[tuple[str, str, ClientInfo]] = []
        self.losses: list[str | None] = []
        self.keeps_up = True

    def hear(self, channel: str, publication: Publication, epoch: str) -> bool:
        self.heard.append((channel, publication, epoch))
        return self.keeps_up

    def hear_join(self, channel: str, info: ClientInfo) -> None:
        self.news.append(("join", channel, info))

    def hear_leave(self, channel: str, info: ClientInfo) -> None:
        self.news.append(("leave", channel, info))

    def lost(self, channel: str | None) -> None:
        self.losses.append(channel)

    def texts(self, channel: str | None = None) -> list[bytes]:
        return [publication.payload for name, publication, _ in self.heard if channel in (None, name)]

    def offsets(self, channel: str) -> list[int]:
        return [publication.offset for name, publication, _ in self.heard if name == channel]


class RedisNode:
    """A broker with its ear."""

    def __init__(self, broker: RedisBroker, ear: Notes) -> None:
        self.broker = broker
        self.ear = ear

    async def try_to(self, call: Callable[..., None], *arguments: object) -> Any:
        """Return the one answer, which may be a BrokerError."""
        answers: list[object] = []
        call(*arguments, answers.append)
        await until(lambda: answers)
        [answer] = answers
        return answer

    async def ask(self, call: Callable[..., None], *arguments: object) -> Any:
        """Return the one answer, which must be a good one."""
        answer = await self.try_to(call, *arguments)
        assert not isinstance(answer, BrokerError), answer
        return answer

    async def publish(self, channel: str, payload: bytes, terms: Terms = PLAIN, **more: Any) -> Published:
        answer = await self.ask(self.broker.publish, channel, Publication(payload, **more), terms)
        assert isinstance(answer, Published)
        return answer

    async def subscribe(self, *channels: str) -> None:
        await asyncio.gather(*(self.ask(self.broker.subscribe, channel) for channel in channels))

    async def history(self, channel: str, retention: Retention = KEPT.retention, **wanted: Any) -> Stream:
        answer = await self.ask(self.broker.history, channel, retention, Slice(**wanted))
        assert isinstance(answer, Stream)
        return answer


@asynccontextmanager
async def node(url: str, pace: Pace = QUICK, *, must_be_up: bool = True) -> AsyncIterator[RedisNode]:
    """Start a broker, and stop it after."""
    ear = Notes()
    broker = RedisBroker(parse(url), ear, pace=pace, wall_clock=lambda: DATE / 1000)
    is_up = await broker.start(WITHIN if must_be_up else 0.1)
    assert is_up or not must_be_up
    try:
        yield RedisNode(broker, ear)
    finally:
        await broker.stop()
