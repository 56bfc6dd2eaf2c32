"""One who says too much: thrown out by the rate; where there is no rate, held back to what the channel can take."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from struct import pack

import pytest

from tests.scenarios.clients import Client, eventually
from tests.scenarios.stage import MIB, Stage, figure, kernel_socket, stage
from tests.scenarios.wire import BINARY, NO_MASKING, frame

pytestmark = pytest.mark.scenario


async def test_too_many_messages_end_the_connection() -> None:
    rate, flood = 1000, 20_000  # the default of message_rate
    async with stage() as on:
        healthy = await on.listeners(20, "news")
        flooder = await on.listener("news")
        messages = b"".join(frame(BINARY, on.ledger.stamp("news", 64)) for _ in range(flood))
        started_at = time.monotonic()
        with contextlib.suppress(ConnectionError):
            await flooder.send(messages)
        await eventually(lambda: flooder.close_code, 5, "the flooder was told", every=0.002)
        took = time.monotonic() - started_at
        assert flooder.close_code == 1008
        metrics = await on.metrics()
        taken = int(metrics["stentor_messages_published_total"])
        figure("flood", f"{taken} of {flood} messages taken in {took:.2f} s")
        # A second's worth at once, and what a second brings.
        assert rate <= taken <= rate * (1 + took) + 1
        accounts = [client.account for client in healthy if client.account is not None]
        await eventually(lambda: all(account.received == taken for account in accounts), 5, "all that was taken")
        on.ledger.assert_clean(accounts)
        assert {account.heard_last() for account in accounts} == {taken - 1}, "a hole in what was taken"
        departure = (await eventually(on.departures, 5))[0]
        assert (departure["code"], departure["reason"]) == (1008, "too many messages")


SUBSCRIBERS = 200
ACCOUNTANTS = 20  # of the subscribers; the others count bytes, or the test would be slower than the server
SIZE = 32 * 1024
FRAME = SIZE + 4
MESSAGES = 1000
# Limits are high: nobody is thrown out over a moment in which the machine was elsewhere. No pings: bytes are counted.
CONGESTED = (
    "--message-rate", "0", "--queue-bytes", str(64 * MIB), "--queue-messages", "2000",
    "--node-queue-bytes", str(8192 * MIB), "--ping-interval", "3600", "--latency-sample", "0",
)  # fmt: skip
# What waits on the channel, what a read adds, what is handed out and who is behind with it: about 2 MiB. The rest is
# what readers may be behind with on a bad day.
MEMORY_BOUND = 20 * MIB


async def test_a_publisher_is_held_back_and_nothing_is_lost() -> None:
    async with stage(*CONGESTED) as on:
        healthy = await on.listeners(ACCOUNTANTS, "news")
        counting = await on.crowd.join_many(SUBSCRIBERS - ACCOUNTANTS, "/ws/news")
        for client in counting:
            client.discards = True
        publisher = await on.crowd.join("/ws/news")
        publisher.discards = True
        base = on.server.rss()
        started_at = time.monotonic()
        speaking = asyncio.create_task(speak(on, publisher, MESSAGES))
        held_back, peak = await watch(on, publisher, speaking, base)
        await on.all_heard(healthy, within=30)
        everything = MESSAGES * FRAME
        await eventually(lambda: all(client.bytes == everything for client in counting), 30, "every byte")
        took = time.monotonic() - started_at
        said = MESSAGES * SIZE
        figure("congestion", f"{said / MIB:.0f} MiB to {SUBSCRIBERS} in {took:.1f} s, {(peak - base) / MIB:+.1f} MiB")
        figure("held back", f"{held_back / 1024:.0f} KiB left unread in the kernel")
        # The fault happened: the server left what the publisher had sent where it was.
        assert held_back >= 256 * 1024
        assert said > MEMORY_BOUND
        assert peak - base <= MEMORY_BOUND
        metrics = await on.metrics()
        assert metrics["stentor_messages_sent_total"] == MESSAGES * (SUBSCRIBERS + 1)
        await vanish_while_held_back(on, healthy)


async def speak(on: Stage, publisher: Client, count: int) -> None:
    for _ in range(count):
        await publisher.send(frame(BINARY, on.ledger.stamp("news", SIZE), key=NO_MASKING))
        await asyncio.sleep(0)  # what the kernel takes at once would let nobody read


async def watch(on: Stage, publisher: Client, speaking: asyncio.Task[None], base: int) -> tuple[int, int]:
    """Return the most that the server left unread of the publisher, and the most memory that it had."""
    held_back, peak = 0, base
    while not speaking.done():
        row = kernel_socket(on.server.port, publisher.port)
        held_back = max(held_back, row.unread if row else 0)
        peak = max(peak, on.server.rss())
        await asyncio.sleep(0.02)
    await speaking
    return held_back, peak


async def vanish_while_held_back(on: Stage, healthy: list[Client]) -> None:
    """Reset a publisher that is held back; the channel, and the others on it, go on."""
    publisher = await on.crowd.join("/ws/news", reading=False)
    publisher.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
    stranger = await on.crowd.join("/ws/news")
    speaking = asyncio.create_task(speak(on, publisher, MESSAGES))

    def is_held_back() -> bool:
        row = kernel_socket(on.server.port, publisher.port)
        return row is not None and row.unread >= 256 * 1024

    await eventually(is_held_back, 10, "the second publisher is held back", every=0.002)
    speaking.cancel()
    await asyncio.gather(speaking, return_exceptions=True)
    publisher.leave()
    await eventually(lambda: kernel_socket(on.server.port, publisher.port) is None, 10, "the server noticed")
    said_by_healthy = on.ledger.stamp("news", SIZE, publisher=1)
    await healthy[0].send(frame(BINARY, said_by_healthy, key=NO_MASKING))
    await eventually(lambda: stranger.inbox and stranger.inbox[-1] == (BINARY, said_by_healthy), 10, "life goes on")
    on.ledger.assert_clean([client.account for client in healthy if client.account is not None])
