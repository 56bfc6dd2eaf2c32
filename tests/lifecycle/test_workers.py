"""`--workers N` from start to end: signals of every kind, ports in use, and what is left when the supervisor dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import REPOSITORY, Server, serve, wait_until
from tests.lifecycle.crowd import Client, connect, connect_many, gone, publishing, until
from tests.scenarios.workers import descendants, is_alive

pytestmark = pytest.mark.scenario

CROWD = 200
WORKERS = ("--workers", "2")


def entries(server: Server) -> list[dict[str, str]]:
    return [json.loads(line) for line in server.log_text().splitlines() if line.startswith("{")]


def messages(server: Server) -> list[str]:
    return [entry["message"] for entry in entries(server)]


def assert_no_faults(server: Server) -> None:
    log = server.log_text()
    assert "raceback" not in log, log
    assert '"level":"error"' not in log, log


async def assert_ended(server: Server, code: int, within: float) -> None:
    """Wait for the exit code, and demand that no process is left."""
    family = descendants(server.pid)
    assert len(family) >= 2
    assert await asyncio.to_thread(server.process.wait, within) == code, server.log_text()
    await until(lambda: not any(map(is_alive, family)), 2, "no process is left")


async def crowd_of(server: Server, count: int = CROWD) -> list[Client]:
    clients = await connect_many(count, server.port)
    workers = [worker["connections"] for worker in (await asyncio.to_thread(server.get_json, "/readyz"))["workers"]]
    assert len(workers) == 2
    return clients


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_under_load_drains_all_workers(number: signal.Signals) -> None:
    with serve(*WORKERS) as server:
        clients = await crowd_of(server)
        async with publishing(server, rate=200):
            await until(lambda: all(client.heard for client in clients))
            server.process.send_signal(number)
            await assert_ended(server, 0, within=15)
            await gone(clients)
        assert {client.close_code for client in clients} == {1001}
        assert_no_faults(server)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_to_all_processes_at_once_drains_once(number: signal.Signals) -> None:
    # A terminal does that with Ctrl-C, and systemd when it stops a service.
    with serve(*WORKERS) as server:
        clients = await crowd_of(server, 2 * CROWD)
        for pid in (*descendants(server.pid), server.pid):
            os.kill(pid, number)
        await assert_ended(server, 0, within=15)
        await gone(clients)
        assert {client.close_code for client in clients} == {1001}
        assert_no_faults(server)


async def stalled(server: Server, count: int) -> list[Client]:
    """Connect clients that read nothing, and fill what is between them and the server."""
    clients = await connect_many(count, server.port, receive_buffer=4096)
    for client in clients:
        client.stop_reading()
    speaker = await connect(server.port)
    for _ in range(100):
        speaker.say("x" * 32768)
    metric = "stentor_lagging_clients"
    for _ in range(200):
        if (await asyncio.to_thread(server.metrics)).total(metric) >= count:
            return clients
        await asyncio.sleep(0.05)
    raise AssertionError("they do not lag")


async def test_stalled_clients_hold_nobody_up_longer_than_the_drain_timeout() -> None:
    with serve(*WORKERS, "--drain-timeout", "2", "--lag-policy", "drop_newest") as server:
        await stalled(server, 20)
        server.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        await assert_ended(server, 0, within=10)
        assert 1.5 <= time.monotonic() - began <= 5


async def test_a_second_signal_ends_it_at_once() -> None:
    with serve(*WORKERS, "--lag-policy", "drop_newest") as server:
        await stalled(server, 20)
        server.process.send_signal(signal.SIGTERM)
        await until(lambda: any("draining" in message for message in messages(server)), 5)
        assert (await asyncio.to_thread(server.get, "/readyz"))[0] == 503
        server.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        await assert_ended(server, 1, within=10)
        assert time.monotonic() - began <= 3


def start(*options: str, tmp: Path | None = None) -> subprocess.Popen[str]:
    """Start a server, and do not wait for it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("STENTOR_")}
    environment["PYTHONPATH"] = str(REPOSITORY)
    if tmp is not None:
        environment["TMPDIR"] = str(tmp)
    command = [sys.executable, "-m", "server", "serve", "--port", "0", "--internal-port", "0", *WORKERS, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("to_all", [False, True])
def test_a_signal_during_the_start_ends_it_cleanly(number: signal.Signals, *, to_all: bool) -> None:
    process = start()
    try:
        family = wait_until(lambda: family if len(family := descendants(process.pid)) >= 3 else None, 10)
        for pid in family if to_all else ():
            os.kill(pid, number)
        process.send_signal(number)
        said, log = process.communicate(timeout=10)
        assert (process.returncode, said) == (0, ""), log
        assert "raceback" not in log, log
        wait_until(lambda: not any(map(is_alive, family)), 2)
    finally:
        process.kill()
        process.wait()


async def test_when_the_supervisor_is_killed_its_workers_end_and_nothing_is_left(tmp_path: Path) -> None:
    with serve(*WORKERS, env={"TMPDIR": str(tmp_path)}) as server:
        clients = await crowd_of(server, 50)
        silent = await connect(server.port)
        silent.answers_close = False
        family = descendants(server.pid)
        assert len(family) >= 3
        server.process.kill()
        await until(lambda: not any(map(is_alive, family)), 8, "all workers have ended")
        await gone([*clients, silent])
        assert {client.close_code for client in clients} == {1012}
        assert all(client.close_reason.startswith("reconnect_after_ms=") for client in clients)
        assert os.listdir(tmp_path) == []
        options = ("--port", str(server.port), "--internal-port", str(server.internal_port))
        with serve(*WORKERS, *options) as again:
            assert again.port == server.port
            assert (await connect(again.port)).status == 101


async def test_one_worker_that_somebody_tells_to_go_is_replaced() -> None:
    with serve(*WORKERS) as server:
        clients = await crowd_of(server, 50)
        worker = server.get_json("/readyz")["workers"][0]
        os.kill(worker["pid"], signal.SIGTERM)

        def pids() -> set[int]:
            workers = server.get_json("/readyz")["workers"]
            return {each["pid"] for each in workers if each["state"] == "ready"}

        await asyncio.to_thread(wait_until, lambda: len(pids()) == 2 and worker["pid"] not in pids(), 10)
        left = [client for client in clients if client.close_code is not None]
        assert 0 < len(left) < len(clients)
        assert await asyncio.to_thread(server.terminate) == 0
        assert_no_faults(server)


async def test_each_line_of_the_log_says_whose_it_is() -> None:
    with serve(*WORKERS) as server:
        assert server.terminate() == 0
        said = [entry["message"] for entry in entries(server) if entry["logger"] == "stentor"]
        assert {"worker 0: stopped", "worker 1: stopped"} <= set(said)


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


def assert_cannot_listen(*options: str) -> str:
    """Run a server that cannot start; demand exit code 2 and one line; return that."""
    process = start(*options)
    try:
        said, log = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    lines = [line for line in log.splitlines() if "warning" not in line]
    assert (process.returncode, said, len(lines)) == (2, "", 1), log
    assert lines[0].startswith("stentor: cannot listen: "), log
    return lines[0]


def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    with taken_port() as port:
        assert "in use" in assert_cannot_listen("--port", str(port))
        assert "in use" in assert_cannot_listen("--internal-port", str(port))


def test_the_port_of_another_server_with_workers_is_not_shared() -> None:
    with serve(*WORKERS) as server:
        assert "in use" in assert_cannot_listen("--port", str(server.port))
        assert server.terminate() == 0


def test_an_address_that_is_not_of_this_machine_is_said_in_one_line() -> None:
    assert_cannot_listen("--host", "192.0.2.1")  # RFC 5737: nobody's
