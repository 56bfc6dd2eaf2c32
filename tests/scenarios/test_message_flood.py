"""One who says too much: thrown out by the rate; where there is no rate, held back to what the channel can take."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from struct import pack

import pytest

from tests.scenarios.clients import Client, eventually
from tests.scenarios.kernel import kernel_socket
from tests.scenarios.stage import MIB, Stage, figure, stage
from tests.scenarios.wire import BINARY, NO_MASKING, frame

pytestmark = [pytest.mark.scenario, pytest.mark.alone]


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
# What is handed to the kernel at once, 512 KiB: so the publisher is ahead of the server, however slow this process is,
# which sees to the readers as well.
AT_ONCE = 16
# Limits are high: nobody is thrown out over a moment in which the machine was elsewhere, or over a ping that was only
# counted.
CONGESTED = (
    "--message-rate", "0", "--queue-bytes", str(64 * MIB), "--queue-messages", "2000",
    "--node-queue-bytes", str(8192 * MIB), "--brownout", "false",
    "--ping-interval", "3600", "--pong-timeout", "3600", "--latency-sample", "0",
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
        with contextlib.suppress(AssertionError):  # the comparison says it better
            await eventually(lambda: all(messages_of(client) == MESSAGES for client in counting), 30)
        assert [messages_of(client) for client in counting] == [MESSAGES] * len(counting)
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


def messages_of(client: Client) -> int:
    """How many whole messages a client has counted; a ping, of a few bytes, may come to anyone at any time."""
    return client.bytes // FRAME


async def speak(on: Stage, publisher: Client, count: int) -> None:
    for said in range(0, count, AT_ONCE):
        messages = (on.ledger.stamp("news", SIZE) for _ in range(min(AT_ONCE, count - said)))
        await publisher.send(b"".join(frame(BINARY, message, key=NO_MASKING) for message in messages))
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

    began = time.monotonic()
    await eventually(is_held_back, 10, "the second publisher is held back", every=0.002)
    figure("the second one held back after", f"{time.monotonic() - began:.2f} s")
    speaking.cancel()
    await asyncio.gather(speaking, return_exceptions=True)
    publisher.leave()
    await eventually(lambda: kernel_socket(on.server.port, publisher.port) is None, 10, "the server noticed")
    said_by_healthy = on.ledger.stamp("news", SIZE, publisher=1)
    await healthy[0].send(frame(BINARY, said_by_healthy, key=NO_MASKING))
    await eventually(lambda: stranger.inbox and stranger.inbox[-1] == (BINARY, said_by_healthy), 10, "life goes on")
    on.ledger.assert_clean([client.account for client in healthy if client.account is not None])
