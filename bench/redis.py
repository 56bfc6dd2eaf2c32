"""What the Redis broker costs, beside a bare ``redis-benchmark`` of the same script: ``python -m bench.redis``.

One worker's broker, in this process, on a redis-server of its own. *Receive*: 100 channels with one subscriber each,
and a loader that publishes to Redis as another node would; into the broker alone, and through a whole server to one raw
client on each channel. *Publish*: the round trip of a publication that is kept, one or fifty in flight, and then what
Redis needs for the same script called by the same arguments. *Subscribe*: 1,000 channels, after the connection was cut.
Redis, the loader and the server have the first core, all else the last.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop
from websockets.client import ClientProtocol
from websockets.uri import parse_uri

from bench import channels
from loadtest.broker import OWN, start_broker
from server.brokers.base import Published, Retention, Terms
from server.brokers.redis import RedisBroker, message, parse, scripts
from server.brokers.redis.connection import pack
from server.brokers.redis.scripts import Names
from server.core.publication import Publication
from server.worker import calm_the_collector

CHANNELS = 100
SIZE = 128
PATIENCE = 60.0
_SCRIPT = scripts.ORDINARY.publish
_FIRST, _LAST = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))


class Ear:
    """Counts."""

    def __init__(self) -> None:
        self.heard = self.losses = 0

    def hear(self, *_: object) -> bool:
        self.heard += 1
        return True

    def hear_join(self, *_: object) -> None:
        """Nobody joins."""

    hear_leave = hear_join

    def lost(self, *_: object) -> None:
        self.losses += 1


@contextmanager
def serving() -> Iterator[int]:
    """Run a redis-server on the first core, this process and its children on the last; return its port."""
    cores = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory(prefix="stentor-bench-") as directory:
        redis = start_broker(Path(directory), OWN, cores={_FIRST}, environment=os.environ, heed=lambda: None)
        assert redis.child is not None, "it is our own"
        os.sched_setaffinity(0, {_LAST})
        try:
            yield int(urlsplit(redis.url).port or 0)
        finally:
            os.sched_setaffinity(0, cores)
            redis.child.stop()


async def _answer(ask: Callable[..., object], *arguments: Any) -> Any:
    answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    ask(*arguments, answered.set_result)
    return await answered


async def _until(what: str, is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} s"
        await asyncio.sleep(0.001)


async def _broker(port: int) -> tuple[RedisBroker, Ear]:
    ear = Ear()
    broker = RedisBroker(parse(f"redis://127.0.0.1:{port}/0"), ear)
    deadline = time.monotonic() + PATIENCE
    while not await broker.start():
        assert time.monotonic() < deadline, "no Redis"
    return broker, ear


async def _subscribe(broker: RedisBroker, count: int) -> None:
    await asyncio.gather(*(_answer(broker.subscribe, f"ch{number}") for number in range(count)))


def _publish_as_another(port: int, count: int, rate: float) -> None:
    """Publish to all channels in turn, as fast as Redis takes it, or at a rate; run in a process of its own."""
    names = Names("stentor")
    said = message.encode(message.Kind.PUBLICATION, b"another.", 0, Publication(b"x" * SIZE))
    block = b"".join(pack(("PUBLISH", names.channel(f"ch{number}"), said)) for number in range(CHANNELS))
    with socket.create_connection(("127.0.0.1", port)) as wire:
        wire.sendall(pack(("CLIENT", "REPLY", "OFF")))
        start = time.monotonic()
        for number in range(count // CHANNELS):
            early = start + number * CHANNELS / rate - time.monotonic() if rate else 0
            if early > 0:
                time.sleep(early)
            wire.sendall(block)


async def receive(port: int, rate: float, count: int) -> str:
    """Receive what another node publishes."""
    broker, ear = await _broker(port)
    await _subscribe(broker, CHANNELS)
    loader = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.redis", "--load", str(port), str(count), str(rate)
    )
    os.sched_setaffinity(loader.pid, {_FIRST})
    await _until("the first publications", lambda: ear.heard >= CHANNELS)
    began, spent, before = time.monotonic(), time.process_time(), ear.heard
    await _until("the last publication", lambda: ear.heard >= count or broker.gaps > 0)
    took, spent, heard = time.monotonic() - began, time.process_time() - spent, ear.heard - before
    await loader.wait()
    await broker.stop()
    asked = f"{rate:,.0f}/s" if rate else "all at once"
    return (
        f"receive, {asked}: {heard:,} of {count - before:,}, {heard / took:,.0f}/s, "
        f"{spent / heard * 1e6:.1f} us of CPU each"
    )


class Counter(asyncio.Protocol):
    """A raw client that counts the bytes it gets after the handshake."""

    def __init__(self, port: int, channel: str) -> None:
        self._handshake = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}/ws/{channel}"))
        self.is_open = False
        self.bytes = 0

    def connection_made(self, transport: Any) -> None:
        self._handshake.send_request(self._handshake.connect())
        transport.writelines(self._handshake.data_to_send())

    def data_received(self, data: bytes) -> None:
        if self.is_open:
            self.bytes += len(data)
        else:
            self.is_open = b" 101 " in data


async def receive_in_a_server(port: int, rate: float, count: int) -> str:
    """Have a server receive what another node publishes, and write it to clients; the CPU is for both."""
    with channels.serving("--broker", f"redis://127.0.0.1:{port}/0") as (listening, pid):
        loop = asyncio.get_running_loop()
        counters = [Counter(listening, f"ch{number}") for number in range(CHANNELS)]
        for counter in counters:
            await loop.create_connection(lambda counter=counter: counter, "127.0.0.1", listening)
        await _until("all open", lambda: all(counter.is_open for counter in counters))
        await asyncio.sleep(1.0)  # nothing tells a raw client that Redis has heard of its channel
        spent = channels.cpu(pid)
        loader = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.redis", "--load", str(port), str(count), str(rate)
        )
        await loader.wait()
        expected = count * (SIZE + 4)
        await _until("the last publication", lambda: sum(counter.bytes for counter in counters) >= expected)
        spent = channels.cpu(pid) - spent
    return f"receive in a server, {rate:,.0f}/s: {count:,} of {count:,}, {spent / count * 1e6:.1f} us of CPU each"


async def publish(port: int, in_flight: int, count: int) -> str:
    """Publish what is kept, so many at a time; return the round trips and those of redis-benchmark."""
    broker, _ = await _broker(port)
    terms, late = Terms(Retention(10, 60)), []

    async def one(channel: str) -> None:
        for _ in range(count // in_flight):
            before = time.perf_counter()
            answer = await _answer(broker.publish, channel, Publication(b"x" * SIZE), terms)
            late.append(time.perf_counter() - before)
            assert isinstance(answer, Published), answer

    await asyncio.gather(*(one(f"p{number}") for number in range(in_flight)))
    await broker.stop()
    late.sort()
    bare = await asyncio.to_thread(_benchmark, port, in_flight, count)
    ours = late[len(late) // 2] * 1e3, late[int(len(late) * 0.99)] * 1e3
    return (
        f"publish, {in_flight} in flight: p50 {ours[0]:.3f} ms, p99 {ours[1]:.3f} ms; "
        f"redis-benchmark p50 {bare[0]:.3f} ms, p99 {bare[1]:.3f} ms ({ours[1] / bare[1]:.2f} times the p99)"
    )


def _benchmark(port: int, in_flight: int, count: int) -> tuple[float, float]:
    """Return p50 and p99 (ms) of the script that keeps and publishes, called by redis-benchmark."""
    said = message.body(message.encode(message.Kind.PUBLICATION, b"another.", 0, Publication(b"x" * SIZE)))
    arguments = ("stentor:c:{b}", b"x" * len(said), "10", "60000", "3600000", "epoch678", "incarnat", "0", "", "300000")
    command = ["redis-benchmark", "-p", str(port), "-c", str(in_flight), "-n", str(count), "--csv"]
    call = ["EVALSHA", _SCRIPT.digest, "2", "stentor:m:{b}", "stentor:s:{b}", *arguments]
    said_by_it = subprocess.run([*command, *call], capture_output=True, text=True, check=True).stdout
    [row] = csv.DictReader(said_by_it.splitlines())
    return float(row["p50_latency_ms"]), float(row["p99_latency_ms"])


async def subscribe(port: int, count: int) -> str:
    """Cut the connection that hears, and time from there until everything is subscribed again."""
    broker, ear = await _broker(port)
    await _subscribe(broker, count)
    took = []
    for _ in range(3):
        known, began = ear.losses, time.monotonic()
        with socket.create_connection(("127.0.0.1", port)) as wire:
            wire.sendall(b"CLIENT KILL TYPE pubsub\r\n")
        await _until("heard again", lambda known=known: ear.losses > known)
        took.append(time.monotonic() - began)
        await _until("up again", lambda: broker.is_up)
    await broker.stop()
    again = ", ".join(f"{each:.3f}" for each in took)
    return f"subscribe, {count:,} channels: again after {again} s, the backoff included"


async def _all(port: int, count: int, rounds: int) -> None:
    measurements: list[Callable[[], Awaitable[str]]] = [
        *(lambda rate=rate: receive(port, rate, count * 5) for rate in (20_000.0, 0.0)),
        *(lambda many=many: publish(port, many, count) for _ in range(rounds) for many in (1, 50)),
        lambda: receive_in_a_server(port, 20_000.0, count * 5),
        lambda: subscribe(port, 1000),
    ]
    for measurement in measurements:
        print(await measurement(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--count", type=int, default=20_000, help="publications in each measurement of round trips")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the round trips")
    parser.add_argument("--load", nargs=3, metavar=("PORT", "COUNT", "RATE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        port, count, rate = options.load
        _publish_as_another(int(port), int(count), float(rate))
        return
    for tool in ("redis-server", "redis-benchmark"):
        if shutil.which(tool) is None:
            parser.error(f"{tool} is not installed")
    calm_the_collector()  # as the server does
    with serving() as port, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_all(port, options.count, options.rounds))


if __name__ == "__main__":
    main()
