"""Fifty thousand pings a second, each of which asks for a pong: by one who reads them, and by one who does not."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.scenarios.clients import TINY_BUFFER, Client, eventually
from tests.scenarios.kernel import is_held, kernel_socket
from tests.scenarios.stage import MIB, Stage, figure, stage
from tests.scenarios.wire import CLOSE, PING, close_frame, frame

pytestmark = pytest.mark.scenario

PING_RATE = 50_000
PAYLOAD = 100
SECONDS = 2.0
WRITE_TIMEOUT = 1.5
GRACE = 1.0
# Beside what the kernel has: the pongs to what one read brought, and the newest pong.
BUFFER_BOUND = 256 * 1024 + 1024
# One read brings some thousands of pings at once: this is their passage through the parser.
MEMORY_BOUND = 8 * MIB


async def flood(client: Client, seconds: float) -> int:
    """Send PING_RATE pings a second, or what the server reads of it; return how many were sent, each of them whole."""
    step = 500
    pings = frame(PING, b"p" * PAYLOAD) * step
    start, sent = time.monotonic(), 0
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(seconds + 30):
            while not client.is_gone and time.monotonic() < start + seconds:
                await asyncio.sleep(max(0.0, start + sent / PING_RATE - time.monotonic()))
                await client.send(pings)
                sent += step
    return sent


class Gauge:
    """The largest write buffer and memory of the server, read as often as it answers."""

    def __init__(self, on: Stage) -> None:
        self._on = on
        self._base = on.server.rss()
        self.unsent = 0
        self.growth = 0
        self.looks = 0

    async def look(self) -> None:
        while True:
            slow = await self._on.slow()
            self.unsent = max([self.unsent, *(client["unsent_bytes"] for client in slow)])
            self.growth = max(self.growth, self._on.server.rss() - self._base)
            self.looks += 1
            await asyncio.sleep(0.02)

    def judge(self, name: str) -> None:
        figure(f"{name}: unsent, memory", f"{self.unsent} bytes, +{self.growth / MIB:.1f} MiB, {self.looks} looks")
        assert self.looks >= 2
        assert self.unsent <= BUFFER_BOUND
        assert self.growth <= MEMORY_BOUND


@contextlib.asynccontextmanager
async def gauged(on: Stage, name: str) -> AsyncIterator[Gauge]:
    gauge = Gauge(on)
    looking = asyncio.create_task(gauge.look())
    try:
        yield gauge
    finally:
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking
    gauge.judge(name)


@pytest.mark.parametrize("reading", [True, False], ids=["reading", "not reading"])
async def test_too_many_pings_end_the_connection(reading: bool) -> None:
    async with stage("--write-timeout", str(WRITE_TIMEOUT)) as on:
        healthy = await on.listeners(20, "news")
        flooder = await on.crowd.join("/ws/flood", reading=reading, receive_buffer=0 if reading else TINY_BUFFER)
        talk = asyncio.create_task(healthy[0].publish(on.ledger, "news", rate=50, seconds=SECONDS, size=256))
        async with gauged(on, f"ping flood at the default rate, {reading=}"):
            sent = await flood(flooder, SECONDS)
            await talk
        await on.all_heard(healthy)
        assert sent > 1000
        flooder.read()
        await eventually(lambda: flooder.close_code or flooder.is_gone, 5, "the flooder was told")
        assert await closed_with(on) == (1008, "too many messages")
        if reading:
            assert flooder.close_code == 1008
            figure("pongs", f"{flooder.pongs} for {sent} pings")
            # Some thousands at once, and a few thousand a second, which is how long it may take at the most.
            assert flooder.pongs <= 16_384, "it was answered long after it was told to go"


async def closed_with(on: Stage) -> tuple[int, str]:
    """Wait for the first departure, and say how it was closed."""
    departures: list[dict[str, Any]] = await eventually(on.departures, 7, "a departure is on record")
    departure = departures[0]
    return departure["code"], departure["reason"]


async def test_without_a_rate_every_ping_of_a_reader_is_answered() -> None:
    async with stage("--message-rate", "0") as on:
        healthy = await on.listeners(20, "news")
        flooder = await on.crowd.join("/ws/flood")
        talk = asyncio.create_task(healthy[0].publish(on.ledger, "news", rate=50, seconds=SECONDS, size=256))
        async with gauged(on, "ping flood without a rate, reading"):
            sent = await flood(flooder, SECONDS)
            await talk
        await on.all_heard(healthy)
        figure("pings sent", f"{sent}, {sent / SECONDS:.0f} a second")
        assert sent >= 0.1 * PING_RATE * SECONDS, "no flood"
        await flooder.send(frame(PING, b"the last"))
        await eventually(lambda: flooder.last_pong == b"the last", 10, "the last ping is answered")
        # To one who lags for a moment, older pongs need not be sent (RFC 6455, section 5.5.3).
        assert 0 < flooder.pongs <= sent + 1
        assert not flooder.is_gone


@pytest.mark.alone
async def test_without_a_rate_one_who_does_not_read_is_evicted() -> None:
    async with stage("--message-rate", "0", "--write-timeout", str(WRITE_TIMEOUT)) as on:
        healthy = await on.listeners(20, "news")
        flooder = await on.crowd.join("/ws/flood", reading=False, receive_buffer=TINY_BUFFER)
        talk = asyncio.create_task(healthy[0].publish(on.ledger, "news", rate=50, seconds=SECONDS, size=256))
        async with gauged(on, "ping flood without a rate, not reading") as gauge:
            flooding = asyncio.create_task(flood(flooder, WRITE_TIMEOUT + 2))
            await eventually(on.slow, 3, "the pongs have nowhere to go")
            stalled_at = time.monotonic()
            await eventually(lambda: not is_held(on.server, flooder), WRITE_TIMEOUT + 3, "the flooder is out")
            took = time.monotonic() - stalled_at
            sent = await flooding
        await talk
        await on.all_heard(healthy)
        figure("ping flood, not reading: evicted after", f"{took:.2f} s, {sent} pings")
        assert took <= WRITE_TIMEOUT + GRACE
        assert sent * PAYLOAD > 2 * BUFFER_BOUND, "no flood"
        assert gauge.unsent > 0
        assert await closed_with(on) == (1013, "write timeout")


async def fill_and_ping(on: Stage, client: Client) -> None:
    """Ping until the pongs have nowhere to go, and then some; the server has read it all when this returns."""
    pings = frame(PING, b"p" * PAYLOAD) * 100
    while not await on.slow():
        await client.send(pings)
    await client.send(pings)
    await client.send(frame(PING, b"the last"))
    await all_read(on, client)


async def all_read(on: Stage, client: Client) -> None:
    """Wait until the server has read what the client sent."""

    def nothing_unread() -> bool:
        row = kernel_socket(on.server.port, client.port)
        return row is not None and row.unread == 0

    await eventually(nothing_unread, 5, "the server has read everything")
    # What was read is handled in the same turn of its loop; this answer comes from a later one.
    await on.metrics()


async def test_one_who_reads_again_gets_the_newest_pong() -> None:
    async with stage("--message-rate", "0") as on:
        client = await on.crowd.join("/ws/flood", reading=False, receive_buffer=TINY_BUFFER)
        await fill_and_ping(on, client)
        client.read()
        await eventually(lambda: client.last_pong == b"the last", 5, "the newest pong")
        await client.send(frame(PING, b"again"))
        await eventually(lambda: client.last_pong == b"again", 5, "pongs as before")
        assert await on.slow() == []


async def test_no_pong_follows_the_close_frame() -> None:
    async with stage("--message-rate", "0") as on:
        client = await on.crowd.join("/ws/flood", reading=False, receive_buffer=TINY_BUFFER)
        await fill_and_ping(on, client)
        await client.send(close_frame())
        await all_read(on, client)
        client.read()
        await eventually(lambda: client.is_gone, 7, "the connection is closed")
        assert client.close_code == 1000
        assert client.last_opcode == CLOSE
        assert await closed_with(on) == (1000, "closed by the client")
