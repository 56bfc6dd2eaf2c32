"""`--workers N` when something goes wrong: who gets the port, what is left behind, what the books say, who waits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from server.config import Settings
from server.supervisor import supervisor as supervisor_module
from server.supervisor.supervisor import Supervisor
from tests.harness import Metrics, Server, http, serve, wait_until
from tests.lifecycle.crowd import connect, connect_many, gone, until
from tests.lifecycle.test_workers import WORKERS, start
from tests.redis_server import RedisServer, Wire
from tests.scenarios.workers import descendants, is_alive
from tests.wire import TEXT

pytestmark = pytest.mark.scenario

# So that who does not read stays, and all that it does not take is queued.
ROOM = ("--write-timeout", "600", "--queue-messages", "10000", "--queue-bytes", "100000000")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def ready(server: Server) -> dict[int, int]:
    """The process of each place whose worker listens."""
    workers = server.get_json("/readyz")["workers"]
    return {worker["index"]: worker["pid"] for worker in workers if worker["state"] == "ready"}


def is_complete(server: Server) -> bool:
    """Tell if two workers listen, and another process stands by."""
    return len(ready(server)) == 2 and len(descendants(server.pid) - set(ready(server).values())) >= 2


# The port


def test_of_two_servers_that_start_at_once_one_gets_the_port() -> None:
    port = free_port()
    servers = [start("--port", str(port)) for _ in range(2)]
    try:
        loser = wait_until(lambda: next((each for each in servers if each.poll() is not None), None), 20)
        said, log = loser.communicate(timeout=10)
        assert (loser.returncode, said) == (2, "")
        assert "stentor: cannot listen: Address already in use" in log
        (winner,) = (each for each in servers if each is not loser)
        assert winner.stdout is not None
        assert winner.stdout.readline().endswith("is listening\n")
        assert http("GET", f"http://127.0.0.1:{port}/healthz") == (200, b"ok\n")
        winner.terminate()
        winner.communicate(timeout=20)
        assert winner.returncode == 0
    finally:
        for each in servers:
            each.kill()
            each.communicate()


def may_bind(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
            sock.listen(1)
        except OSError:
            return False
    return True


def test_while_all_workers_are_dead_nobody_else_gets_the_port() -> None:
    with serve(*WORKERS) as server:
        dead = set(ready(server).values())
        for pid in descendants(server.pid):  # also who stands by
            if pid in dead or b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, dead)))
        while not dead.isdisjoint(ready(server).values()) or len(ready(server)) < 2:
            assert not may_bind(server.port)
            time.sleep(0.01)
        assert http("GET", f"{server.url}/healthz") == (200, b"ok\n")
        assert server.terminate() == 0
        assert may_bind(server.port)


# Its own death


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


async def test_a_worker_that_hangs_does_not_outlive_its_supervisor() -> None:
    with serve(*WORKERS) as server:
        clients = await connect_many(20, server.port)
        family, victim = descendants(server.pid), ready(server)[0]
        os.kill(victim, signal.SIGSTOP)
        await until(lambda: is_stopped(victim), what="it is stopped")
        server.process.kill()
        await until(lambda: not any(map(is_alive, family)), 15, "no process is left")
        await gone(clients)
        assert {client.close_code for client in clients} == {1012}, "the one that was woken has its manners, too"
        options = ("--port", str(server.port), "--internal-port", str(server.internal_port))
        with serve(*WORKERS, *options) as again:
            assert (await connect(again.port)).status == 101
            assert again.terminate() == 0


# The books


async def test_the_books_balance_after_a_worker_is_killed_with_something_queued() -> None:
    with serve(*WORKERS, *ROOM) as server:
        clients = [await connect(server.port, "/ws/news", receive_buffer=4096) for _ in range(16)]
        for client in clients:
            client.stop_reading()
        for _ in range(100):
            server.api("publish", {"channel": "news", "data": "x" * 20000})
        before = await until(lambda: waiting(server), what="something is queued everywhere")
        before.assert_balanced()
        assert (before.total("stentor_messages_offered_total"), before.total("stentor_connections")) == (1600, 16)
        killed, _ = ready(server).values()
        os.kill(killed, signal.SIGKILL)
        await until(lambda: killed not in ready(server).values() and is_complete(server), what="it is replaced")
        for client in clients:
            client.transport.abort()
        after = await until(lambda: all_gone(server, 16), what="all are gone")
        after.assert_balanced()
        assert after.total("stentor_messages_offered_total") == 1600
        assert after.total("stentor_connections_closed_total") == 16
        assert after.total("stentor_messages_published_total") == 100, "what the server API has published counts"
        assert server.terminate() == 0


def all_gone(server: Server, clients: int) -> Metrics | None:
    """The metrics, when there is nobody any more, and all have been counted as closed."""
    metrics = server.metrics()
    closed = metrics.total("stentor_connections_closed_total")
    return metrics if closed >= clients and not metrics.total("stentor_connections") else None


def waiting(server: Server) -> Metrics | None:
    """The metrics, when every worker has somebody who lags, and all that was published has come to them."""
    metrics = server.metrics()
    queued = [metrics[f'stentor_queue_messages{{worker="{index}"}}'] for index in range(2)]
    return metrics if all(queued) and metrics.total("stentor_messages_offered_total") == 1600 else None


# Who waits


def test_the_server_api_does_not_wait_for_a_worker_that_is_stuck() -> None:
    with serve(*WORKERS) as server:
        wait_until(lambda: is_complete(server))
        stuck = ready(server)[0]
        os.kill(stuck, signal.SIGSTOP)
        took: dict[str, list[float]] = {}
        for _ in range(3):
            for command, request in COMMANDS.items():
                began = time.monotonic()
                assert "result" in server.api(command, request)
                took.setdefault(command, []).append(time.monotonic() - began)
        assert {command for command, seconds in took.items() if min(seconds) > 0.3} == set()
        os.kill(stuck, signal.SIGCONT)
        wait_until(lambda: len(server.api("info", {})["result"]["nodes"]) == 2, what="it answers again")
        assert ready(server)[0] == stuck
        assert server.terminate() == 0


COMMANDS: dict[str, dict[str, Any]] = {
    "info": {},
    "channels": {},
    "subscribe": {"user": "ann", "channel": "news"},
    "unsubscribe": {"user": "ann", "channel": "news"},
    "disconnect": {"user": "ann"},
    "refresh": {"user": "ann"},
}


def test_who_was_replaced_before_the_second_sighup_is_replaced_again() -> None:
    with serve(*WORKERS) as server:
        wait_until(lambda: is_complete(server), 20)
        old = ready(server)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: ready(server).get(0, old[0]) != old[0], 20, "the first one is replaced")
        between = ready(server)
        server.process.send_signal(signal.SIGHUP)

        def are_new() -> bool:
            now = ready(server)
            return len(now) == 2 and set(now.values()).isdisjoint({*old.values(), between[0]})

        wait_until(are_new, 30, "both are replaced, the first one again")
        assert "will be replaced again" in server.log_text()
        metrics = server.metrics()
        assert [name for name in metrics if name.startswith("stentor_worker_up")] == [
            'stentor_worker_up{worker="0"}',
            'stentor_worker_up{worker="1"}',
        ], "those who only stood by are not missed"
        assert server.terminate() == 0, server.log_text()


# The broker


class TwoOnly(Wire):
    """A wire for the first two connections, which are the supervisor's, until it is opened to all."""

    is_open_to_all = False

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.connections >= 2 and not self.is_open_to_all:
            writer.close()
            return
        await super()._accept(reader, writer)


async def test_a_server_whose_workers_do_not_reach_redis_is_not_ready() -> None:
    with RedisServer() as redis:
        async with TwoOnly(redis.port) as wire:
            stack = contextlib.ExitStack()
            server = await asyncio.to_thread(stack.enter_context, serve(*WORKERS, "--broker", wire.url))
            try:
                status, said = await asyncio.to_thread(server.get, "/readyz")
                answer = json.loads(said)
                assert (status, answer["status"]) == (503, "degraded")
                assert [worker["broker_up"] for worker in answer["workers"]] == [False, False]
                wire.is_open_to_all = True
                for _ in range(200):
                    status, said = await asyncio.to_thread(server.get, "/readyz")
                    if status == 200:
                        break
                    await asyncio.sleep(0.05)
                metrics = await asyncio.to_thread(server.metrics)
                assert (status, metrics.total("stentor_broker_up")) == (200, 2)
                assert await asyncio.to_thread(server.terminate) == 0
            finally:
                stack.close()


async def test_clients_of_all_workers_hear_each_other_while_redis_is_away() -> None:
    with RedisServer() as redis, serve(*WORKERS, "--broker", redis.url) as server:
        clients = await connect_many(16, server.port, "/ws/news")
        await until(lambda: all_have_clients(server, 16), what="both workers have some")
        said = []

        async def say(count: int) -> None:
            for _ in range(count):
                said.append(b"%d" % len(said))
                clients[0].send(TEXT, said[-1])
            await until(lambda: all(len(client.heard) >= len(said) for client in clients), what="all have heard")

        await say(10)
        redis.kill()
        await until(lambda: server.get("/readyz")[0] == 503, what="Redis is missed")
        await say(100)
        redis.restart()
        await until(lambda: server.get("/readyz")[0] == 200, what="Redis is found")
        await say(10)
        assert [client.heard for client in clients] == [said] * 16, "each once, and in order"
        assert server.terminate() == 0


def all_have_clients(server: Server, count: int) -> bool:
    """Tell if so many clients are known of, and some at each worker."""
    there = [worker["connections"] for worker in server.get_json("/readyz")["workers"]]
    return sum(there) == count and all(there)


def test_workers_wait_for_a_redis_that_is_away_all_at_the_same_time() -> None:
    with serve("--workers", "5", "--broker", f"redis://127.0.0.1:{free_port()}/0") as server:
        assert server.get("/readyz")[0] == 503
        entries = [json.loads(line) for line in server.log_text().splitlines()]
        times = [
            datetime.fromisoformat(entry["time"]).timestamp() for entry in entries if "listens, pid" in entry["message"]
        ]
        assert len(times) == 5
        assert max(times) - min(times) < 6, "one after another it would be two seconds for each"
        assert server.terminate() == 0


async def test_a_start_that_takes_long_is_greeted_when_it_is_over(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor_module, "START_WITHIN", 0.05)
    signals: asyncio.Queue[int] = asyncio.Queue()
    supervisor = Supervisor(Settings(workers=2, port=0, internal_port=0))
    serving = asyncio.create_task(supervisor.serve(signals))
    try:
        await until(lambda: "only 0 of 2 workers listen" in caplog.text)
        said = ""
        while "is listening" not in said:
            await asyncio.sleep(0.01)
            said += capfd.readouterr().out
            assert not serving.done()
        assert supervisor.crew.is_complete
        signals.put_nowait(signal.SIGTERM)
        assert await serving == 0
    finally:
        await supervisor.close()
