"""A cable is cut: no packet comes or goes any more, and neither side is told."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from tests.scenarios.clients import Client, eventually
from tests.scenarios.island import island
from tests.scenarios.kernel import KernelSocket, kernel_socket
from tests.scenarios.stage import Stage, figure, stage

pytestmark = [pytest.mark.scenario, pytest.mark.alone]

PING_INTERVAL, PONG_TIMEOUT, WRITE_TIMEOUT = 1.0, 1.0, 1.5
OPTIONS = (
    "--ping-interval", str(PING_INTERVAL), "--pong-timeout", str(PONG_TIMEOUT), "--write-timeout", str(WRITE_TIMEOUT),
)  # fmt: skip
GRACE = 1.0
_ESTABLISHED = 1


async def test_a_dead_connection_is_noticed() -> None:
    with island() as far:
        async with stage("--host", far.host, *OPTIONS, host=far.host) as on:
            near = await on.listeners(10, "news")
            near += await on.listeners(10, "torrent")
            # Nothing is sent to it; little is, and its kernel's buffer never fills; so much that the transport pauses.
            idle = await on.crowd.join("/ws/silence", sock=far.socket())
            spoken_to = await on.crowd.join("/ws/news", sock=far.socket())
            flooded = await on.crowd.join("/ws/torrent", sock=far.socket())
            lost = [idle, spoken_to, flooded]
            await eventually(lambda: all(client.pings for client in lost), 5, "the cable carries pings")
            far.cut()
            cut_at = time.monotonic()
            speaking = asyncio.gather(
                near[0].publish(on.ledger, "news", rate=50, seconds=2.5, size=200),
                near[10].publish(on.ledger, "torrent", rate=50, seconds=2.5, size=8192),
            )
            left_after, last_seen, paused = await watch(on, lost, cut_at)
            await speaking
            for client, name in ((idle, "idle"), (spoken_to, "spoken to"), (flooded, "flooded")):
                figure(f"half-open, {name}: gone after", f"{left_after[client]:.2f} s")
                assert left_after[client] <= PING_INTERVAL + PONG_TIMEOUT + GRACE, name
                # Until then neither kernel knew of anything.
                assert last_seen[client].state == "ESTABLISHED", name
                assert not client.is_gone
                assert client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED, name
            assert last_seen[spoken_to].unacknowledged > 0
            assert last_seen[spoken_to].retransmissions > 0
            assert paused, "the flooded one never lagged"
            reasons = sorted((entry["channel"], entry["code"], entry["reason"]) for entry in await on.departures())
            assert reasons == [
                ("news", 3012, "no pong"),
                ("silence", 3012, "no pong"),
                ("torrent", 1013, "write timeout"),
            ]
            await on.all_heard(near)


async def watch(
    on: Stage, lost: list[Client], cut_at: float
) -> tuple[dict[Client, float], dict[Client, KernelSocket], bool]:
    """Watch until the server has let go of all; return when it did, their sockets before, and if one was paused."""
    left_after: dict[Client, float] = {}
    last_seen: dict[Client, KernelSocket] = {}
    paused = False

    async def all_gone() -> bool:
        nonlocal paused
        for client in lost:
            if client in left_after:
                continue
            row = kernel_socket(on.server.port, client.port)
            if row is not None and row.is_held:
                last_seen[client] = row
            else:
                left_after[client] = time.monotonic() - cut_at
        paused = paused or bool(await on.slow())
        return len(left_after) == len(lost)

    await eventually(all_gone, 10, "the server has let go of all three")
    return left_after, last_seen, paused
