"""At the limits: open files, connections, connections of one address, connects per second."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.harness import Server, serve
from tests.lifecycle.crowd import Client, connect, gone, until
from tests.wire import answer

OPEN_FILES = 256
# What the server keeps for itself of the open files: its own, and some to turn people away with.
KEPT_FREE = 64


@contextlib.contextmanager
def serve_with_open_files(limit: int, *options: str) -> Iterator[Server]:
    """Run a server that may have `limit` files open, as `ulimit -n` in its shell would do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            server = stack.enter_context(serve(*options))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        yield server


async def all_at_once(server: Server, count: int) -> list[Client]:
    return await asyncio.gather(*(connect(server.port) for _ in range(count)))


def statuses(clients: list[Client]) -> Counter[int]:
    return Counter(client.status for client in clients)


async def rejected(server: Server, reason: str) -> float:
    metrics = await asyncio.to_thread(server.metrics)
    return metrics[f'stentor_connections_rejected_total{{reason="{reason}"}}']


async def assert_idle_while_full(server: Server, seconds: float = 2.0) -> None:
    """With the clients held and nothing said, a server that spins on a full table of files would take a whole core."""
    before, start = server.cpu_seconds(), time.monotonic()
    await asyncio.sleep(seconds)
    share = (server.cpu_seconds() - before) / (time.monotonic() - start)
    print(f"CPU while full: {share:.3f} of a core")
    assert share <= 0.3


async def assert_served(clients: list[Client]) -> None:
    clients[0].say("are you there")
    await until(lambda: all(b"are you there" in client.heard for client in clients), what="all of them are served")


async def assert_accepts_again(server: Server, leaving: list[Client], newcomers: int) -> None:
    for client in leaving:
        client.vanish(reset=True)
    await gone(leaving)
    left = time.monotonic()
    while statuses(inside := await all_at_once(server, newcomers)) != {101: newcomers}:
        assert time.monotonic() - left <= 2.0, f"not all are let in again: {statuses(inside)}"
        await asyncio.sleep(0.05)
    print(f"accepts again after {time.monotonic() - left:.3f} s")


@pytest.mark.scenario
@pytest.mark.parametrize(
    "options", [(), ("--max-connections", "100000")], ids=["by default", "max_connections too high"]
)
async def test_the_limit_of_open_files_is_never_reached(options: tuple[str, ...]) -> None:
    room = OPEN_FILES - KEPT_FREE
    with serve_with_open_files(OPEN_FILES, *options) as server:
        clients = await all_at_once(server, 400)
        inside = [client for client in clients if client.status == 101]
        # One that is turned away in the doorway has its 503 cut off at times, by what it had still to say.
        assert statuses(clients)[101] == room
        assert statuses(clients)[503] > 0
        assert sum(statuses(clients)[status] for status in (101, 503, 0)) == len(clients)
        assert await rejected(server, "full") == len(clients) - room
        assert server.descriptors() < OPEN_FILES
        await assert_idle_while_full(server)
        await assert_served(inside)
        await assert_accepts_again(server, inside[:50], newcomers=20)
        log = server.log_text()
    assert "Traceback" not in log
    assert len(log.splitlines()) < 10


@pytest.mark.scenario
async def test_open_files_run_out_after_all() -> None:
    """The limit falls below what the server reckoned with at its start: the kernel has no descriptor for newcomers."""
    with serve() as server:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
        clients = await all_at_once(server, 400)
        inside = [client for client in clients if client.status == 101]
        assert 0 < len(inside) < OPEN_FILES
        assert server.descriptors() == OPEN_FILES, "the fault did not happen"
        assert all(client.is_lost for client in clients if client.status != 101), "nobody is left waiting"
        await assert_idle_while_full(server)
        await assert_served(inside)
        assert not any(client.is_lost for client in inside)
        await assert_accepts_again(server, inside[:50], newcomers=20)
        assert (await asyncio.to_thread(server.metrics))['stentor_connections{dialect="raw"}'] > 0
        log = server.log_text()
    assert "Traceback" not in log
    assert len(log.splitlines()) < 20


async def test_a_full_server_says_when_to_come_back() -> None:
    with serve("--max-connections", "3") as server:
        inside = await all_at_once(server, 3)
        assert statuses(inside) == {101: 3}
        refused = await connect(server.port)
        assert answer(refused.head + b"\r\n\r\n").status == 503
        assert answer(refused.head + b"\r\n\r\n").fields["retry-after"] == "1"
        assert await rejected(server, "full") == 1
        await assert_served(inside)
        # The page and the health check are not clients.
        assert server.get("/healthz")[0] == 200
        await assert_accepts_again(server, inside[:1], newcomers=1)


async def test_one_address_may_have_so_many() -> None:
    with serve("--max-connections-per-ip", "2") as server:
        inside = await all_at_once(server, 2)
        assert statuses(inside) == {101: 2}
        refused = await connect(server.port)
        assert answer(refused.head + b"\r\n\r\n").status == 429
        assert answer(refused.head + b"\r\n\r\n").fields["retry-after"] == "1"
        assert await rejected(server, "address") == 1
        elsewhere = await connect(server.port, source="127.0.0.2")
        assert elsewhere.status == 101
        await assert_served([*inside, elsewhere])
        await assert_accepts_again(server, inside[:1], newcomers=1)


async def test_so_many_may_connect_in_a_second() -> None:
    with serve("--connect-rate", "5") as server:
        start = time.monotonic()
        clients = await all_at_once(server, 30)
        took = time.monotonic() - start
        inside = statuses(clients)[101]
        # As many at once as one second allows, and what the time since has added.
        assert 5 <= inside <= 5 + 5 * took + 1
        assert statuses(clients)[503] == 30 - inside
        told = Counter(
            int(answer(client.head + b"\r\n\r\n").fields["retry-after"]) for client in clients if client.status == 503
        )
        # Each is told when there is room for it, and a second has room for five.
        assert min(told) == 1
        assert max(told.values()) <= 6
        assert len(told) >= (30 - inside) / 6
        assert await rejected(server, "connect_rate") == 30 - inside
        deadline = time.monotonic() + 5
        while (await connect(server.port)).status != 101:
            assert time.monotonic() < deadline, "the rate does not recover"
            await asyncio.sleep(0.05)
