"""Everybody vanishes at once, without a word: counted, not logged at length, and nothing of them stays behind.

STENTOR_FULL=1 does it with 10,000 clients, the default with 2,000.
"""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from tests.harness import Metrics, Server, serve, wait_until
from tests.lifecycle.crowd import Client, all_heard, assert_nothing_lost, connect_many, gone, publishing

pytestmark = pytest.mark.scenario

CROWD = 10_000 if os.environ.get("STENTOR_FULL") else 2000
STAYING = 50
MEBIBYTE = 1024 * 1024


def is_left_with(server: Server, connections: int) -> Metrics | None:
    metrics = server.metrics()
    return metrics if metrics['stentor_connections{dialect="raw"}'] == connections else None


async def vanish(server: Server, clients: list[Client], *, reset: bool, remaining: int) -> float:
    """Let all of these go in one turn; return how long the server took to notice."""
    start = time.monotonic()
    for client in clients:
        client.vanish(reset=reset)
    await gone(clients, within=20)
    await asyncio.to_thread(wait_until, lambda: is_left_with(server, remaining), 20)
    return time.monotonic() - start


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "end of stream"])
async def test_everyone_vanishes_at_once(*, reset: bool) -> None:
    with serve() as server:
        staying = await connect_many(STAYING, server.port, "/ws/served")
        at_start = server.descriptors()
        async with publishing(server, "/ws/served", rate=20) as publisher:
            memory = [server.rss()]
            for _ in range(3):
                crowd = await connect_many(CROWD, server.port, "/ws/crowd")
                assert server.descriptors() >= at_start + CROWD, "the crowd is not there"
                crowd[0].say("00000000 is anybody here")
                await all_heard(crowd, through=0)
                noticed = await vanish(server, crowd, reset=reset, remaining=STAYING + 1)
                crowd.clear()
                memory.append(server.rss())
        await all_heard(staying, through=publisher.said - 1)
        publisher.client.vanish(reset=True)
        last = await asyncio.to_thread(wait_until, lambda: is_left_with(server, STAYING))
        descriptors = server.descriptors()
        disconnects = await asyncio.to_thread(server.get_json, "/debug/disconnects?limit=1")
        log = server.log_text()
        assert not any(client.is_lost for client in staying)

    print(f"{CROWD} noticed within {noticed:.2f} s")
    print(f"memory before the first and after each: {[size // MEBIBYTE for size in memory]} MiB")
    assert "Traceback" not in log
    assert len(log.splitlines()) < 10
    assert descriptors <= at_start + 1, "a scrape may still be open"
    # The first crowd shows what the process needs for so many; the later ones must find it there again.
    assert memory[3] <= memory[2] * 1.05 + 4 * MEBIBYTE
    last.assert_balanced()
    assert last["stentor_subscriptions"] == STAYING
    assert last["stentor_channels"] == 1
    assert last["stentor_queue_bytes"] == last["stentor_queue_messages"] == last["stentor_lagging_clients"] == 0
    assert last['stentor_connections_closed_total{code="1006"}'] == 3 * CROWD + 1
    assert disconnects["disconnects"][0]["code"] == 1006
    assert_nothing_lost(staying, through=publisher.said - 1)
