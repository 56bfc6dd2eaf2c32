"""What a client on many channels costs: ``python -m bench.channels``.

The same number of deliveries per second twice, in the Centrifuge dialect, in one run: 1,000 clients on one channel, and
1,000 clients on 20 of 200 channels each. Server on one core, load on the other. CPU is the server's, per delivery;
latency is from publish to receipt, of the first publication in each read.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop
from websockets.client import ClientProtocol
from websockets.uri import parse_uri

ROOT = Path(__file__).resolve().parent.parent
_STAMP = re.compile(rb'"t":(\d+)')


class Client(asyncio.Protocol):
    """Says what it is told to after the handshake; counts what it hears."""

    def __init__(self, port: int, hello: bytes, tally: Tally) -> None:
        self._handshake = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}/connection/websocket"))
        self._hello = hello
        self.tally = tally
        self.all = b""  # what it heard first
        self._is_open = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._handshake.send_request(self._handshake.connect())
        transport.writelines(self._handshake.data_to_send())

    def data_received(self, data: bytes) -> None:
        if not self._is_open:
            self._is_open = b"101" in data
            self.say(self._hello)
            return
        if len(self.all) < 1000:
            self.all += data
        self.heard(data)

    def heard(self, data: bytes) -> None:
        """Count what came."""
        tally = self.tally
        tally.reads += 1
        tally.subscribed += data.count(b'"subscribe":')
        tally.delivered += data.count(b'"pub":{')
        if found := _STAMP.search(data):
            tally.late.append(time.monotonic_ns() - int(found[1]))

    def say(self, text: bytes) -> None:
        """Send a text frame with a mask of zeros."""
        size = len(text)
        head = b"\x81" + (bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big"))
        self.transport.write(head + bytes(4) + text)


class Tally:
    """What all clients have heard together."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.delivered = self.reads = self.subscribed = 0
        self.late: list[int] = []


def cpu(pid: int) -> float:
    """Return the seconds that a process has run on a core, all its threads together.

    From the scheduler: what /proc/PID/stat says is sampled, and wrong for what runs for microseconds at a time.
    """
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


@contextmanager
def serving(*options: str, pinned: bool = True) -> Iterator[tuple[int, int]]:
    """Run a server, `pinned` on the first core with this process on the last; its port and its process."""
    command = [
        sys.executable, "-m", "server", "--port", "0", "--internal-port", "0", "--message-rate", "0",
        "--ping-interval", "3600", "--log-level", "error", *options,
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    cores = os.sched_getaffinity(0)
    if pinned:
        os.sched_setaffinity(process.pid, {min(cores)})
        os.sched_setaffinity(0, {max(cores)})
    try:
        assert process.stdout is not None
        yield (
            next(int(found[1]) for line in process.stdout if (found := re.search(r"ws://\S+:(\d+)/", line))),
            process.pid,
        )
    finally:
        os.sched_setaffinity(0, cores)
        process.terminate()
        process.wait()


def measure(clients: int, channels: int, each: int, rate: int, seconds: float) -> str:
    """Load a server, and say what it cost."""
    with serving() as (port, pid):
        tally, before, published = uvloop.run(_load(port, pid, clients, channels, each, rate, seconds))
        spent, expected = cpu(pid) - before, published * clients * each // channels
    late = sorted(tally.late)
    return (
        f"{clients} clients on {each} of {channels} channels, {rate} publications/s: "
        f"{tally.delivered:,} deliveries ({tally.delivered / expected:.4f} of those expected), "
        f"{spent / tally.delivered * 1e6:.2f} us CPU for each, "
        f"{tally.delivered / tally.reads:.1f} per read, p50 {late[len(late) // 2] / 1e6:.1f} ms, "
        f"p99 {late[int(len(late) * 0.99)] / 1e6:.1f} ms"
    )


async def _load(
    port: int, pid: int, clients: int, channels: int, each: int, rate: int, seconds: float
) -> tuple[Tally, float, int]:
    """Publish for so long; return what was heard, the server's CPU before it, and how many were published."""
    tally, loop, dice = Tally(), asyncio.get_running_loop(), random.Random(1)
    for _ in range(clients):
        commands = [b'{"id":1,"connect":{}}'] + [
            b'{"id":%d,"subscribe":{"channel":"c%d"}}' % (number + 2, channel)
            for number, channel in enumerate(dice.sample(range(channels), each))
        ]
        client = Client(port, b"\n".join(commands), tally)
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)
    speaker = Client(port, b'{"id":1,"connect":{}}', Tally())
    await loop.create_connection(lambda: speaker, "127.0.0.1", port)
    deadline = time.monotonic() + 30
    while tally.subscribed < clients * each:
        assert time.monotonic() < deadline, f"only {tally.subscribed} subscriptions"
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.5)
    tally.clear()
    padding, before, began, published = "x" * 100, cpu(pid), time.monotonic(), 0
    while (now := time.monotonic()) < began + seconds:
        due = int((now - began) * rate)
        while published < due:
            data = f'{{"t":{time.monotonic_ns()},"p":"{padding}"}}'
            speaker.say(
                f'{{"id":{published + 2},"publish":{{"channel":"c{published % channels}","data":{data}}}}}'.encode()
            )
            published += 1
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.5)
    return tally, before, published


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    seconds = parser.parse_args().seconds
    for channels, each, rate in ((1, 1, 200), (200, 20, 2000)):
        print(measure(1000, channels, each, rate, seconds), flush=True)


if __name__ == "__main__":
    main()
