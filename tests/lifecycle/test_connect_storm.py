"""Many connect at once beside many who are served: all get in soon, and nobody who is served loses anything.

The promise is 10,000 connects in 10 s beside 1,000 served clients: STENTOR_FULL=1 runs it at that size, the default is
three tenths of it, at the same rate.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.harness import Server, serve, wait_until
from tests.lifecycle.crowd import (
    Client,
    all_heard,
    assert_nothing_lost,
    connect,
    connect_many,
    make_room,
    publishing,
    until,
)
from tests.wire import request

pytestmark = [pytest.mark.scenario, pytest.mark.alone]

FULL = bool(os.environ.get("STENTOR_FULL"))
SERVED, ARRIVING, SECONDS = (1000, 10_000, 10.0) if FULL else (300, 3000, 3.0)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def arrive(port: int, count: int, seconds: float) -> tuple[list[Client], int]:
    """Let `count` clients connect, evenly over `seconds`, whether the earlier ones are in or not."""
    start, tasks = time.monotonic(), []
    for number in range(count):
        late = start + number * seconds / count - time.monotonic()
        if late > 0:
            await asyncio.sleep(late)
        tasks.append(asyncio.create_task(connect(port, "/ws/newcomers")))
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    clients = [outcome for outcome in outcomes if isinstance(outcome, Client)]
    return clients, len(outcomes) - len(clients)


async def test_newcomers_get_in_and_the_served_lose_nothing() -> None:
    make_room(SERVED + ARRIVING)
    with serve() as server:
        served = await connect_many(SERVED, server.port, "/ws/served")
        async with publishing(server, "/ws/served", rate=20) as publisher:
            await until(lambda: all(client.heard for client in served))
            before = publisher.said
            start = time.monotonic()
            newcomers, failed = await arrive(server.port, ARRIVING, SECONDS)
            took = time.monotonic() - start
            during = publisher.said - before
        await all_heard(served, through=publisher.said - 1)
        metrics = await asyncio.to_thread(server.metrics)
        log = server.log_text()

    inside = [client for client in newcomers if client.status == 101]
    handshakes = [client.answered_at - client.started_at for client in inside]
    p99 = percentile(handshakes, 0.99)
    print(f"connects: {len(inside)} of {ARRIVING} in {took:.2f} s, {failed} failed")
    print(f"handshakes: p50 {percentile(handshakes, 0.5):.4f} s, p99 {p99:.4f} s, slowest {max(handshakes):.4f} s")
    assert took < 2 * SECONDS, "the storm was slower than it was to be: nothing is proven"
    assert during >= 0.5 * 20 * SECONDS, "hardly anything was published during the storm: nothing is proven"
    assert len(inside) >= 0.999 * ARRIVING
    assert p99 <= 2.0
    assert_nothing_lost(served, through=publisher.said - 1)
    assert all(client.close_code is None and not client.is_lost for client in served)
    metrics.assert_balanced()
    assert metrics["stentor_connections_opened_total"] == SERVED + 1 + len(inside)
    assert "Traceback" not in log


def backlog_of(port: int) -> tuple[int, int]:
    """Return how many connections wait to be accepted at a listening port, and how many may (Linux)."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{port:04X}") and fields[3] == "0A":  # LISTEN
            return int(fields[4].split(":")[1], 16), int(Path("/proc/sys/net/core/somaxconn").read_text())
    raise AssertionError(f"nobody listens on {port}")


def connect_at_once(port: int, count: int) -> tuple[list[socket.socket], float]:
    """Start `count` connects in one go; return the sockets, and how long the slowest took to be connected."""
    poll, sockets = select.epoll(), []
    try:
        start = time.monotonic()
        for _ in range(count):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
            poll.register(sock, select.EPOLLOUT)
            sockets.append(sock)
        connected: set[int] = set()
        while len(connected) < count:
            assert time.monotonic() - start < 30, f"{count - len(connected)} of {count} are not connected"
            for descriptor, _ in poll.poll(1.0):
                connected.add(descriptor)
                poll.unregister(descriptor)
        return sockets, time.monotonic() - start
    finally:
        poll.close()


def test_a_burst_waits_in_the_backlog_while_the_server_is_busy() -> None:
    with serve() as server:
        most = backlog_of(server.port)[1]
        count = min(3000, most - most // 8)
        make_room(count)
        # Busier than this a server cannot be: whatever gets in now, gets in by the backlog alone.
        server.process.send_signal(signal.SIGSTOP)
        try:
            sockets, took = connect_at_once(server.port, count)
            waiting = backlog_of(server.port)[0]
            for sock in sockets:
                sock.setblocking(True)
                sock.settimeout(20)
                sock.sendall(request())
        finally:
            server.process.send_signal(signal.SIGCONT)
        resumed = time.monotonic()
        answers = [sock.recv(1024) for sock in sockets]
        answered = time.monotonic() - resumed
        wait_until(lambda: is_serving(server, count), what="all of them are served")
        for sock in sockets:
            sock.close()
    print(f"burst: {count} connected in {took:.3f} s, answered {answered:.3f} s after the server went on")
    assert waiting == count, "the kernel threw some out of the backlog"
    # Linux sends a lost SYN again after one second.
    assert took < 1.0
    assert all(answer.startswith(b"HTTP/1.1 101 ") for answer in answers)


def is_serving(server: Server, count: int) -> bool:
    return server.metrics()["stentor_subscriptions"] == count
