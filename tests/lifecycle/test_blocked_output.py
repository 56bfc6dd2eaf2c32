"""Nobody reads what the server prints and logs: the fan-out goes on, and a signal still ends it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import unpack

import pytest

from tests.harness import REPOSITORY, Server, read_ports
from tests.lifecycle.crowd import all_heard, assert_nothing_lost, connect_many, gone, publishing, until

pytestmark = pytest.mark.scenario

PIPE_BYTES = 4096


@dataclass
class Pipe:
    """The one pipe that a server prints and logs into, as in ``stentor 2>&1 | something``."""

    descriptor: int

    def waiting(self) -> int:
        """Return how many bytes nobody has read."""
        return int(unpack("i", fcntl.ioctl(self.descriptor, termios.FIONREAD, b"\0" * 4))[0])

    def close(self) -> None:
        os.close(self.descriptor)
        self.descriptor = -1


@contextlib.contextmanager
def serve_into_pipe(folder: Path) -> Iterator[tuple[Server, Pipe]]:
    """Run a server that logs everything into a small pipe, of which the first lines are read, and no more."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    pipe = Pipe(reader)
    process = subprocess.Popen(
        [sys.executable, "-m", "server", "--port", "0", "--internal-port", "0", "--log-level", "debug"],
        stdout=writer, stderr=writer, text=True, cwd=folder, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    os.close(writer)
    try:
        nowhere = Path(os.devnull)
        port, internal_port, _ = read_ports(reader, nowhere)
        yield Server(process, port, internal_port, nowhere), pipe
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if pipe.descriptor >= 0:
            pipe.close()


async def assert_fans_out_and_ends(server: Server) -> None:
    clients = await connect_many(50, server.port)
    async with publishing(server, rate=200) as publisher:
        await until(lambda: publisher.said >= 100)
    await all_heard(clients, through=publisher.said - 1)
    assert_nothing_lost(clients, through=publisher.said - 1)
    (await asyncio.to_thread(server.metrics)).assert_balanced()
    server.process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    await gone([*clients, publisher.client])
    assert {client.close_code for client in clients} == {1001}
    assert await asyncio.to_thread(server.process.wait, 20) == 0
    print(f"exit 0 after {time.monotonic() - start:.2f} s")
    assert time.monotonic() - start < 5


async def test_nobody_reads(tmp_path: Path) -> None:
    with serve_into_pipe(tmp_path) as (server, pipe):
        # A line for each that comes and goes; the log's own queue is full, too, after a thousand more.
        for _ in range(8):
            for client in await connect_many(100, server.port):
                client.vanish(reset=True)
        await until(lambda: pipe.waiting() > PIPE_BYTES - 256, what="the pipe is full")
        await assert_fans_out_and_ends(server)
        assert pipe.waiting() <= PIPE_BYTES


async def test_the_reader_has_gone(tmp_path: Path) -> None:
    with serve_into_pipe(tmp_path) as (server, pipe):
        pipe.close()
        for client in await connect_many(100, server.port):
            client.vanish(reset=True)
        await assert_fans_out_and_ends(server)
