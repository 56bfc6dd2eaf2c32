"""`/debug/slow` and `/debug/disconnects` of real servers, in one process and in two: every field, and the order."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.harness import Server, serve, wait_until
from tests.lifecycle.crowd import Client, connect, connect_many, publishing, until

WORKERS = pytest.mark.parametrize("workers", [1, 2])
SLOW = {
    "address", "client", "dialect", "channel", "queue_messages", "queue_bytes", "queue_age_seconds", "unsent_bytes",
    "stalled_seconds", "rtt_seconds", "connected_seconds", "would_act", "why",
}  # fmt: skip
LEFT = {
    "at", "address", "client", "dialect", "channel", "code", "reason", "queue_messages", "queue_bytes",
    "queue_age_seconds", "connected_seconds", "rtt_seconds", "loop_lag_seconds",
}  # fmt: skip
# Pinged twice a second, so that a client that has just come has a round trip soon; and nobody is blamed for its pongs.
PINGS = ("--ping-interval", "0.5", "--pong-timeout", "60", "--no-brownout")


def fields_of(workers: int, own: set[str]) -> set[str]:
    return own | {"worker"} if workers > 1 else own


async def ask(server: Server, path: str, name: str) -> list[dict[str, Any]]:
    return list((await asyncio.to_thread(server.get_json, path))[name])


async def wait_for(
    server: Server, path: str, name: str, condition: Callable[[list[dict[str, Any]]], bool]
) -> list[dict[str, Any]]:

    def found() -> list[dict[str, Any]] | None:
        entries: list[dict[str, Any]] = server.get_json(path)[name]
        return entries if condition(entries) else None

    return list(await asyncio.to_thread(wait_until, found, 30.0))


async def pinged(server: Server, clients: list[Client]) -> None:
    """Wait until all have answered a ping, as far as the server counts."""
    pongs = "stentor_ping_rtt_seconds_count"
    await asyncio.to_thread(wait_until, lambda: server.metrics().total(pongs) >= 4 * len(clients), 30.0)


@WORKERS
async def test_the_slow_ones_with_all_that_explains_them(workers: int) -> None:
    options = ("--queue-messages", "100000", "--queue-bytes", "256MiB", "--write-timeout", "600")
    with serve("--workers", str(workers), *PINGS, *options) as server:
        stalled = await connect_many(6, server.port, "/ws/slow", receive_buffer=4096)
        await pinged(server, stalled)
        for client in stalled:
            client.stop_reading()
        async with publishing(server, "/ws/slow", rate=100, size=16_000):
            await wait_for(
                server, "/debug/slow", "clients",
                lambda found: len(found) == 6 and all(each["stalled_seconds"] > 1.2 for each in found),
            )  # fmt: skip
            late = await connect(server.port, "/ws/slow", receive_buffer=4096)
            late.stop_reading()
            found = await wait_for(
                server, "/debug/slow", "clients",
                lambda found: len(found) == 7 and all(each["queue_messages"] > 2 for each in found),
            )  # fmt: skip
        assert [each["queue_bytes"] for each in found] == sorted((each["queue_bytes"] for each in found), reverse=True)
        assert len({each["client"] for each in found}) == 7
        for each in found[:6]:
            assert set(each) == fields_of(workers, SLOW)
            assert (each["address"], each["dialect"], each["channel"]) == ("127.0.0.1", "raw", "slow")
            assert each["queue_bytes"] >= 16_000 * each["queue_messages"]
            assert 1.0 < each["queue_age_seconds"] <= each["stalled_seconds"] + 1.0
            assert each["stalled_seconds"] < each["connected_seconds"] < 60
            assert each["unsent_bytes"] > 0
            assert 0 < each["rtt_seconds"] < 10
            assert each["would_act"] is False
            assert each["why"] == f"has read nothing for {each['stalled_seconds']:.1f} s"
        youngest = min(found, key=lambda each: each["connected_seconds"])
        assert youngest["rtt_seconds"] == 0, "it was never pinged"
        if workers > 1:
            assert {each["worker"] for each in found} <= {0, 1}


@WORKERS
async def test_the_departed_with_all_that_explains_them(workers: int) -> None:
    options = ("--queue-messages", "20", "--lag-policy", "disconnect", "--write-timeout", "600")
    with serve("--workers", str(workers), *PINGS, *options) as server:
        began = time.time()
        stalled = await connect_many(6, server.port, "/ws/slow", receive_buffer=4096)
        leaving = await connect_many(6, server.port, "/ws/leaving")
        await pinged(server, stalled + leaving)
        for client in stalled:
            client.stop_reading()
        async with publishing(server, "/ws/slow", rate=200, size=16_000) as publisher:
            await wait_for(
                server, "/debug/disconnects", "disconnects",
                lambda found: sum(each["code"] == 1013 for each in found) == 6,
            )  # fmt: skip
            await until(lambda: publisher.said > 20)
        for client in leaving:
            client.vanish(reset=False)
            await asyncio.sleep(0)
        found = await wait_for(
            server, "/debug/disconnects", "disconnects",
            lambda found: sum(each["channel"] == "leaving" for each in found) == 6,
        )  # fmt: skip
        assert [each["at"] for each in found] == sorted((each["at"] for each in found), reverse=True)
        assert {each["channel"] for each in found[:6]} == {"leaving"}, "the newest first"
        evicted = [each for each in found if each["code"] == 1013]
        for each in found:
            assert set(each) == fields_of(workers, LEFT)
            assert began - 1 <= each["at"] <= time.time() + 1
            assert (each["address"], each["dialect"]) == ("127.0.0.1", "raw")
            assert 0 <= each["connected_seconds"] < 60
            assert 0 <= each["loop_lag_seconds"] < 60
        for each in evicted:
            assert (each["channel"], each["reason"]) == ("slow", "queue full")
            assert each["queue_messages"] > 0
            assert each["queue_bytes"] >= 16_000 * each["queue_messages"]
            assert 0 < each["queue_age_seconds"] < each["connected_seconds"]
            assert each["rtt_seconds"] > 0
        for each in found[:6]:
            assert (each["code"], each["reason"]) == (1006, "connection lost")
            assert (each["queue_messages"], each["queue_bytes"], each["queue_age_seconds"]) == (0, 0, 0.0)
        few = await ask(server, "/debug/disconnects?limit=2", "disconnects")
        assert [each["client"] for each in few] == [each["client"] for each in found[:2]]
        assert len({each["client"] for each in found}) == len(found)


async def test_a_worker_that_hangs_is_not_waited_for() -> None:
    with serve("--workers", "2", *PINGS) as server:
        leaving = await connect_many(20, server.port, "/ws/leaving")
        for client in leaving:
            client.vanish(reset=False)
        found = await wait_for(server, "/debug/disconnects", "disconnects", lambda found: len(found) == 20)
        workers = (await asyncio.to_thread(server.get_json, "/readyz"))["workers"]
        stopped = workers[0]
        os.kill(stopped["pid"], signal.SIGSTOP)
        try:
            rest = await ask(server, "/debug/disconnects", "disconnects")
            assert await ask(server, "/debug/slow", "clients") == []
        finally:
            os.kill(stopped["pid"], signal.SIGCONT)
        assert [each["client"] for each in rest] == [
            each["client"] for each in found if each["worker"] != stopped["index"]
        ]
