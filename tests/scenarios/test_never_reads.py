"""A client never reads, and its kernel acknowledges all the same: TCP sees nothing wrong, so we must."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.scenarios.clients import TINY_BUFFER, Client, eventually
from tests.scenarios.kernel import is_held, kernel_socket
from tests.scenarios.stage import Stage, figure, stage
from tests.scenarios.wire import BINARY, NO_MASKING, frame

pytestmark = pytest.mark.scenario

WRITE_TIMEOUT = 1.5
TIMEOUT_OPTION = ("--write-timeout", str(WRITE_TIMEOUT))
# What is promised on top of the timeout.
GRACE = 1.0
# A look at /debug/slow may be this late.
BLUR = 0.25


@dataclass
class Eviction:
    """What was seen of a laggard, from its first stall to the end of its descriptor; times on the monotonic clock."""

    stalled_at: float = 0.0
    gone_at: float = 0.0
    seen: list[dict[str, Any]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.gone_at - self.stalled_at


async def watch(on: Stage, laggard: Client, within: float) -> Eviction:
    """Watch a laggard in /debug/slow until the server has let go of its descriptor."""
    eviction = Eviction()

    async def gone() -> bool:
        now = time.monotonic()
        clients = await on.slow()
        if clients and not eviction.seen:
            eviction.stalled_at = now - clients[0]["stalled_seconds"]
        eviction.seen += clients[:1]
        eviction.gone_at = time.monotonic()
        return not is_held(on.server, laggard)

    await eventually(gone, within, "the laggard's descriptor is gone")
    return eviction


async def judge(on: Stage, laggard: Client, eviction: Eviction, reason: str) -> None:
    """Demand that the laggard was shown, was thrown out in time, and was put on record."""
    assert eviction.seen, "/debug/slow never showed the laggard"
    assert {entry["channel"] for entry in eviction.seen} == {"news"}
    assert all(entry["why"] for entry in eviction.seen)
    figure(f"evicted ({reason}) after", f"{eviction.seconds:.2f} s, write_timeout {WRITE_TIMEOUT} s")
    assert eviction.seconds <= WRITE_TIMEOUT + GRACE + BLUR
    metrics = await on.metrics()
    assert metrics["stentor_slow_disconnects_total"] == 1
    assert metrics['stentor_connections_closed_total{code="1013"}'] == 1
    departure = (await on.departures())[0]
    assert (departure["code"], departure["reason"]) == (1013, reason)
    # The kernel keeps nothing for it either: it was reset.
    laggard.read()
    await eventually(lambda: laggard.is_gone, 2, "the laggard's kernel was told")
    assert kernel_socket(on.server.port, laggard.port) is None


@pytest.mark.parametrize("queue", [20, 130], ids=["at once", "just before the write timeout"])
async def test_evicted_when_its_queue_overflows(queue: int) -> None:
    limits = ("--queue-messages", str(queue), "--queue-bytes", "100000000")
    async with stage(*TIMEOUT_OPTION, *limits) as on:
        healthy = await on.listeners(20, "news")
        laggard = await on.crowd.join("/ws/news", reading=False, receive_buffer=TINY_BUFFER)
        talk = asyncio.create_task(healthy[0].publish(on.ledger, "news", rate=100, seconds=2.2, size=8192))
        eviction = await watch(on, laggard, 8)
        await talk
        await on.all_heard(healthy)
        await judge(on, laggard, eviction, "queue full")
        assert max(entry["queue_messages"] for entry in eviction.seen) <= queue
        departure = (await on.departures())[0]
        assert departure["queue_messages"] > queue
        assert departure["queue_bytes"] > queue * 8192
        assert (await on.metrics())['stentor_messages_dropped_total{reason="disconnected"}'] > queue


async def test_evicted_when_its_buffer_is_full_and_its_queue_is_not() -> None:
    async with stage(*TIMEOUT_OPTION, "--queue-messages", "100000", "--queue-bytes", "100000000") as on:
        healthy = await on.listeners(20, "news")
        laggard = await on.crowd.join("/ws/news", reading=False, receive_buffer=TINY_BUFFER)
        talk = asyncio.create_task(healthy[0].publish(on.ledger, "news", rate=100, seconds=2.2, size=8192))
        eviction = await watch(on, laggard, 8)
        await talk
        await on.all_heard(healthy)
        await judge(on, laggard, eviction, "write timeout")
        assert eviction.seconds >= WRITE_TIMEOUT - BLUR, "it was not given its time"
        assert max(entry["queue_messages"] for entry in eviction.seen) > 20
        assert max(entry["unsent_bytes"] for entry in eviction.seen) > 0
        assert any(entry["why"].startswith("has read nothing for 1.") for entry in eviction.seen)


async def test_evicted_when_its_buffer_is_just_under_the_mark() -> None:
    size = 200
    async with stage(*TIMEOUT_OPTION) as on:
        healthy = await on.listeners(2, "news")
        laggard = await on.crowd.join("/ws/news", reading=False, receive_buffer=TINY_BUFFER)
        await fill_to_the_brim(on, healthy[0], size)
        eviction = await watch(on, laggard, 8)
        await judge(on, laggard, eviction, "write timeout")
        assert eviction.seconds >= WRITE_TIMEOUT - BLUR, "it was not given its time"
        assert {entry["queue_messages"] for entry in eviction.seen} == {0}
        assert all(0 < entry["unsent_bytes"] <= size + 4 for entry in eviction.seen)
        await on.all_heard(healthy)


async def fill_to_the_brim(on: Stage, publisher: Client, size: int) -> None:
    """Publish until a few bytes for the laggard find no room in its kernel's buffer, and not a message more."""
    brim = 56 * 1024 // size  # less than the kernel takes for one that does not read
    for number in range(2000):
        await publisher.send(frame(BINARY, on.ledger.stamp("news", size), key=NO_MASKING))
        if number >= brim:
            await on.all_heard([publisher])
            if await on.slow():
                assert number > brim, "the first look was late"
                return
    pytest.fail("the kernel took everything")


async def test_one_whose_kernel_took_everything_is_found_by_its_silence() -> None:
    # Nothing of it is left in the server to time out: only the unanswered ping tells.
    async with stage("--ping-interval", "1", "--pong-timeout", "2") as on:
        healthy = await on.listeners(20, "news")
        laggard = await on.crowd.join("/ws/news", reading=False)
        await healthy[0].publish(on.ledger, "news", rate=50, seconds=0.5, size=200)
        silent_since = time.monotonic()
        await on.all_heard(healthy)
        assert await on.slow() == []
        await eventually(lambda: not is_held(on.server, laggard), 5, "the silent client's descriptor is gone")
        took = time.monotonic() - silent_since
        figure("found by its silence after", f"{took:.2f} s, ping_interval 1 s, pong_timeout 2 s")
        assert took <= 1 + 2 + GRACE
        departure = (await on.departures())[0]
        assert (departure["code"], departure["reason"]) == (3012, "no pong")
        # It was told why, should it ever look; before that come the publications that it never read.
        laggard.read()
        await eventually(lambda: laggard.is_gone, 2)
        assert laggard.close_code == 3012
        assert laggard.pings == 1
        assert len(laggard.inbox) == 25
        assert all(client.pings and not client.is_gone for client in healthy)


async def test_one_that_has_closed_its_half_and_never_reads_is_let_go() -> None:
    async with stage(*TIMEOUT_OPTION) as on:
        healthy = await on.listeners(2, "news")
        laggard = await on.crowd.join("/ws/news", reading=False, receive_buffer=TINY_BUFFER)
        await fill_to_the_brim(on, healthy[0], 200)
        laggard.sock.shutdown(socket.SHUT_WR)
        half_closed_at = time.monotonic()
        await healthy[0].publish(on.ledger, "news", rate=100, seconds=0.5, size=200)
        await eventually(lambda: not is_held(on.server, laggard), 5, "the half-closed client's descriptor is gone")
        took = time.monotonic() - half_closed_at
        figure("half-closed, evicted after", f"{took:.2f} s, write_timeout {WRITE_TIMEOUT} s")
        assert took <= WRITE_TIMEOUT + GRACE
        assert (await on.departures())[0]["reason"] == "write timeout"
        await on.all_heard(healthy)
