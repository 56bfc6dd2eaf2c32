"""A Stentor under load and a Prometheus that watches it: what dashboards are tried out on, and drawn from.

    with observatory(folder) as on:
        on.prometheus.query(...)
        on.cluster, on.single        # two workers on Redis, loaded by the real load test; one process with TLS

Everything that has a panel happens here for real: subscribers on both servers, clients that never read and are dropped
for it, handshakes that are refused, a broker, echoes. It ends with the block.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvloop
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from loadtest.line import without
from tests import keyring
from tests.drill.rules import FOLDER, RULES
from tests.harness import REPOSITORY, Server, http, serve, wait_until
from tests.prometheus import Prometheus, job, targets
from tests.redis_server import RedisServer, free_port

SERVERS: Final = "stentor"
LOADTEST: Final = "stentor-loadtest"
#: Every client is asked to echo, and often: there are few, and there is little time.
EAGER: Final = ("--latency-sample", "1", "--ping-interval", "2", "--pong-timeout", "8")
HASTY: Final = (
    "--queue-messages", "16", "--queue-bytes", "1048576", "--lag-policy", "drop_oldest", "--write-timeout", "4",
)  # fmt: skip
LISTENERS: Final = 6
STALL: Final = 12.0
#: So large that who does not read is seen within seconds, for all the kernel takes for him.
BIG: Final = 60_000
SMALL: Final = 1024


#: What a client does, at a URL, with options of `connect`, until it is closed or refused.
Part = Callable[[str, dict[str, Any]], Awaitable[None]]


@dataclass
class Observatory:
    """See the module; `loadtest_port` is that of the load test's own figures."""

    prometheus: Prometheus
    cluster: Server
    single: Server
    loadtest_port: int
    redis: RedisServer


@contextlib.contextmanager
def observatory(folder: Path, *, subscribers: int = 60, rate: int = 40, seconds: int = 600) -> Iterator[Observatory]:
    """Run it all. The load test publishes for `seconds` at most, and ends with the block in any case."""
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        tls = _certificate(folder)
        cluster = stack.enter_context(serve("--workers", "2", "--broker", redis.url, *EAGER, *HASTY))
        single = stack.enter_context(serve(*tls, *EAGER, *HASTY))
        port = free_port()
        stack.enter_context(_loadtest(folder, cluster, port, subscribers, rate, seconds))
        stack.enter_context(_crowd(single, folder / "chain.pem"))
        jobs = (
            job(SERVERS, targets(*(f"127.0.0.1:{each.internal_port}" for each in (cluster, single)))),
            job(LOADTEST, targets(f"127.0.0.1:{port}")),
        )
        rules = [str(FOLDER / name) for name in RULES]
        prometheus = stack.enter_context(Prometheus(folder, {"rule_files": rules, "scrape_configs": [*jobs]}))
        wait_until(lambda: len(prometheus.query("up == 1")) == 3, 30, "everything has been scraped")
        yield Observatory(prometheus, cluster, single, port, redis)


def _certificate(folder: Path) -> tuple[str, ...]:
    key = keyring.ec_key()
    (folder / "chain.pem").write_text(keyring.certificate(key))
    (folder / "key.pem").write_text(keyring.private_pem(key))
    return "--tls-cert", str(folder / "chain.pem"), "--tls-key", str(folder / "key.pem")


@contextlib.contextmanager
def _loadtest(folder: Path, server: Server, port: int, subscribers: int, rate: int, seconds: int) -> Iterator[None]:
    """The real one, with a few who never read and some who come and go."""
    options = {
        "url": server.websocket_url, "metrics": f"{server.internal_url}/metrics", "metrics-port": port,
        "subscribers": subscribers, "rate": rate, "publish-time": f"{seconds}s", "size": SMALL,
        "stalled": 2, "flapping": 2, "processes": 1, "results": folder / "results",
    }  # fmt: skip
    command = [sys.executable, "-m", "loadtest.run", *(f"--{name}={value}" for name, value in options.items())]
    with (folder / "loadtest.log").open("w") as log:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=without(os.environ), stdout=log, stderr=log)
    try:
        wait_until(lambda: _phase(process, port, folder) >= 2, 60, "the load test publishes")
        yield
    finally:
        # The first asks it to close its books, the second to leave them.
        for _ in range(2):
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(15)
        if process.poll() is None:
            process.kill()
            process.wait()


def _phase(process: subprocess.Popen[bytes], port: int, folder: Path) -> float:
    assert process.poll() is None, (folder / "loadtest.log").read_text()
    try:
        text = http("GET", f"http://127.0.0.1:{port}/metrics")[1].decode()
    except OSError:
        return 0
    return max(float(line.split()[1]) for line in text.splitlines() if line.startswith("stentor_loadtest_phase "))


@contextlib.contextmanager
def _crowd(server: Server, chain: Path) -> Iterator[None]:
    """Listeners, a speaker, one who never reads and one who is refused, on a loop of their own."""
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    options: dict[str, Any] = {
        "ssl": ssl.create_default_context(cafile=str(chain)), "server_hostname": "localhost",
        "compression": None, "proxy": None,
    }  # fmt: skip
    url = f"{server.websocket_url}/ws/crowd"
    parts = [*[_listen] * LISTENERS, _speak, _stall]
    tasks = [asyncio.run_coroutine_threadsafe(_for_ever(part, url, options), loop) for part in (*parts, _knock)]
    try:
        yield
        assert not any(task.done() for task in tasks), [task.exception() for task in tasks if task.done()]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(_settle(loop))
        loop.close()


async def _settle(loop: asyncio.AbstractEventLoop) -> None:
    others = [task for task in asyncio.all_tasks(loop) if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _for_ever(part: Part, url: str, options: dict[str, Any]) -> None:
    """Come back after every close and refusal: the machine may be busy with other things."""
    while True:
        with contextlib.suppress(WebSocketException, OSError):
            await part(url, options)
        await asyncio.sleep(0.5)


async def _listen(url: str, options: dict[str, Any]) -> None:
    async with connect(url, **options) as client:
        async for _ in client:
            pass


async def _speak(url: str, options: dict[str, Any]) -> None:
    async with connect(url, **options) as client:
        hearing = asyncio.ensure_future(_drain(client))
        try:
            while True:
                await client.send(b"x" * BIG)
                await asyncio.sleep(0.05)
        finally:
            hearing.cancel()


async def _drain(client: Any) -> None:
    async for _ in client:
        pass


async def _stall(url: str, options: dict[str, Any]) -> None:
    """Read nothing for a while, and go without a word."""
    host, port = url.split("/")[2].split(":")
    tiny = socket.socket()
    tiny.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    tiny.setblocking(False)
    await asyncio.get_running_loop().sock_connect(tiny, (host, int(port)))
    async with connect(url, sock=tiny, ping_interval=None, close_timeout=1, **options) as client:
        client.transport.pause_reading()
        await asyncio.sleep(STALL)
        client.transport.abort()


async def _knock(url: str, options: dict[str, Any]) -> None:
    """Ask for what is not there."""
    await connect(url.replace("/ws/", "/nothing/"), **options)
