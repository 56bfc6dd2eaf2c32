"""What the least forwarder costs: ``python -m bench.forwarder``.

A process under uvloop that writes all that it reads from one Unix socket to two: no message is looked at, none is
answered. What `bench.workers` says of the supervisor has this for its floor, at the same rates.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from bench.channels import cpu

SIZE = 180  # of a publication of 128 bytes, between processes


class Forwarder(asyncio.Protocol):
    """One end of many; they share `ends`."""

    def __init__(self, ends: list[Any]) -> None:
        self.ends = ends

    def connection_made(self, transport: Any) -> None:
        transport.set_write_buffer_limits(0)
        self.ends.append(transport)

    def data_received(self, data: bytes) -> None:
        for end in self.ends:
            end.write(data)


async def forward(path: str) -> None:
    """Forward until killed; says so when it is there."""
    ends: list[Any] = []
    await asyncio.get_running_loop().create_unix_server(lambda: Forwarder(ends), path)
    print("ready", flush=True)
    await asyncio.Event().wait()


def measure(path: str, pid: int, rate: int, seconds: float) -> str:
    """Send messages one by one at a steady rate; say what each cost."""
    ends = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    for end in ends:
        end.connect(path)
        end.setblocking(False)
    began, before, sent = time.monotonic(), cpu(pid), 0
    while (now := time.monotonic()) < began + seconds:
        while sent < int((now - began) * rate):
            ends[0].send(bytes(SIZE))
            sent += 1
        for end in ends:
            try:
                end.recv(1 << 20)
            except BlockingIOError:
                pass
        time.sleep(0.0001)
    spent = cpu(pid) - before
    for end in ends:
        end.close()
    return f"{rate:,} messages/s: a bare forwarder {spent / sent * 1e6:.1f} us CPU for each"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--rates", type=int, nargs="+", default=[2000, 20_000])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--forward", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.forward:
        uvloop.run(forward(given.forward))
        return
    with tempfile.TemporaryDirectory() as folder:
        for number, rate in enumerate(given.rates):
            path = str(Path(folder) / f"{number}.sock")
            command = [sys.executable, "-m", "bench.forwarder", "--forward", path]
            process = subprocess.Popen(command, cwd=Path(__file__).resolve().parent.parent, stdout=subprocess.PIPE)
            try:
                assert process.stdout is not None
                process.stdout.readline()
                os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
                print(measure(path, process.pid, rate, given.seconds), flush=True)
            finally:
                process.kill()
                process.wait()


if __name__ == "__main__":
    main()
