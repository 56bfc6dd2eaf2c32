"""SIGTERM and SIGINT: not ready at once, nobody gets in, everyone who reads gets 1001, exit 0 in time."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from tests.harness import Metrics, Server, serve
from tests.lifecycle.crowd import (
    Client,
    assert_nothing_lost,
    connect,
    connect_many,
    gone,
    publishing,
    until,
)
from tests.wire import request

pytestmark = pytest.mark.scenario

GOING_AWAY = 1001


def attempts(port: int) -> Iterator[str]:
    """Try to get in again and again; yield what came of it: "in", "refused" (no connection, or cut) or "503".

    On the echo, where those that do get in change no figure of the fan-out.
    """
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
                sock.sendall(request("/echo"))
                answer = sock.recv(1024)
        except OSError:
            yield "refused"
            continue
        yield "in" if b" 101 " in answer else "503" if b" 503 " in answer else "refused"


def seconds_until_shut(port: int, since: float) -> float:
    for outcome in attempts(port):
        if outcome != "in":
            return time.monotonic() - since
        assert time.monotonic() - since < 5, "clients still get in"
    raise AssertionError("attempts do not end")


async def exit_code(server: Server, within: float) -> int:
    return await asyncio.to_thread(server.process.wait, within)


async def scrape(server: Server) -> Metrics:
    return await asyncio.to_thread(server.metrics)


async def all_stalled(server: Server, count: int) -> list[Client]:
    """Connect clients that read nothing, and publish until the server knows each of them as a laggard."""
    clients = await connect_many(count, server.port, receive_buffer=4096)
    for client in clients:
        client.stop_reading()
    async with publishing(server, rate=200, size=16384) as publisher:
        publisher.client.stop_reading()
        deadline = time.monotonic() + 20
        while (await scrape(server))["stentor_lagging_clients"] < count:
            assert time.monotonic() < deadline, "not all clients lag"
            await asyncio.sleep(0.1)
    return [*clients, publisher.client]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_under_load(number: signal.Signals) -> None:
    with serve("--drain-timeout", "10") as server:
        clients = await connect_many(200, server.port)
        # Does not answer its close frame: the drain goes on for as long as there is something to look at.
        holdout = await connect(server.port)
        holdout.answers_close = False
        async with publishing(server, rate=200) as publisher:
            everyone = [*clients, holdout, publisher.client]
            await until(lambda: all(len(client.heard) >= 20 for client in everyone))
            signalled = time.monotonic()
            server.process.send_signal(number)
            shut = await asyncio.to_thread(seconds_until_shut, server.port, signalled)
            assert (await asyncio.to_thread(server.get, "/readyz"))[0] == 503
            await until(lambda: all(client.close_code is not None for client in everyone), within=5)
        await gone([*clients, publisher.client])
        last = await scrape(server)
        holdout.transport.abort()
        assert await exit_code(server, within=10) == 0
        stopped = time.monotonic() - signalled
        assert "Traceback" not in server.log_text()

    # Nothing promises how busy the machine of this test is; idle, it is a few milliseconds.
    print(f"{number.name}: nobody gets in after {shut:.4f} s")
    assert shut < 1
    assert stopped < 10
    assert [client.close_code for client in everyone] == [GOING_AWAY] * len(everyone)
    # Everything that was queued went out before the close frame: what the server counts is what the clients have.
    last.assert_balanced()
    assert last["stentor_messages_sent_total"] == sum(len(client.heard) for client in everyone)
    assert last["stentor_queue_messages"] == 0
    assert last['stentor_connections{dialect="raw"}'] == 1
    assert last['stentor_connections_closed_total{code="1001"}'] >= len(everyone) - 1
    assert_nothing_lost(everyone, through=max(int(payload[:8]) for payload in holdout.heard))


async def test_signal_with_all_clients_stalled() -> None:
    with serve(
        "--drain-timeout", "3", "--write-timeout", "60", "--queue-messages", "100000", "--queue-bytes", "64MiB"
    ) as server:
        clients = await all_stalled(server, 200)
        signalled = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(seconds_until_shut, server.port, signalled)
        draining = await scrape(server)
        assert await exit_code(server, within=10) == 0
        stopped = time.monotonic() - signalled
        for client in clients:
            client.transport.abort()
        log = server.log_text()
    draining.assert_balanced()
    assert draining["stentor_queue_messages"] > 0, "the fault did not happen"
    assert 3 <= stopped < 5, "the time is given, and no more than it"
    assert "did not close within 3.0 s" in log
    assert "Traceback" not in log


async def test_stalled_clients_get_what_is_queued_if_they_read_on_in_time() -> None:
    with serve(
        "--drain-timeout", "20", "--write-timeout", "60", "--queue-messages", "100000", "--queue-bytes", "64MiB"
    ) as server:
        clients = await all_stalled(server, 20)
        server.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(seconds_until_shut, server.port, time.monotonic())
        counted = await scrape(server)
        for client in clients:
            client.transport.resume_reading()
        assert await exit_code(server, within=20) == 0
        await gone(clients)
    assert {client.close_code for client in clients} == {GOING_AWAY}
    assert sum(len(client.heard) for client in clients) == counted["stentor_messages_offered_total"]
    assert counted.total("stentor_messages_dropped_total") == 0
    assert_nothing_lost(clients, through=int(clients[0].heard[-1][:8]))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_it_now(number: signal.Signals) -> None:
    with serve(
        "--drain-timeout", "60", "--write-timeout", "60", "--queue-messages", "100000", "--queue-bytes", "64MiB"
    ) as server:
        clients = await all_stalled(server, 20)
        server.process.send_signal(number)
        await asyncio.to_thread(seconds_until_shut, server.port, time.monotonic())
        second = time.monotonic()
        server.process.send_signal(number)
        assert await exit_code(server, within=10) == 1
        stopped = time.monotonic() - second
        for client in clients:
            client.transport.abort()
        log = server.log_text()
    assert stopped < 2
    assert "stopped before everyone was gone" in log
    assert "Traceback" not in log


async def test_signal_during_a_connect_storm() -> None:
    with serve("--drain-timeout", "5") as server:
        clients: list[Client] = []
        refused = 0

        async def keep_connecting() -> None:
            nonlocal refused
            while not refused:
                try:
                    clients.append(await connect(server.port))
                except OSError:
                    refused += 1

        storm = [asyncio.create_task(keep_connecting()) for _ in range(50)]
        await until(lambda: len(clients) >= 300)
        signalled = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert await exit_code(server, within=10) == 0
        stopped = time.monotonic() - signalled
        await asyncio.gather(*storm)
        await gone(clients)
        log = server.log_text()
    inside = [client for client in clients if client.status == 101]
    assert stopped < 5
    assert len(inside) >= 300
    assert {client.close_code for client in inside} == {GOING_AWAY}
    assert {client.status for client in clients} <= {101, 503, 0}
    assert "Traceback" not in log


async def test_drain_rate_spreads_the_goodbyes() -> None:
    rate = 100
    with serve("--drain-timeout", "20", "--drain-rate", str(rate)) as server:
        clients = await connect_many(200, server.port)
        server.process.send_signal(signal.SIGTERM)
        await gone(clients, within=15)
        assert await exit_code(server, within=10) == 0
    assert {client.close_code for client in clients} == {GOING_AWAY}
    ends = sorted(client.ended_at for client in clients)
    assert ends[-1] - ends[0] >= 0.8 * len(clients) / rate
    # Spread, not in two heaps: after half of the time about half of them are gone.
    half = ends[0] + len(clients) / rate / 2
    assert 0.25 < sum(end < half for end in ends) / len(clients) < 0.75
