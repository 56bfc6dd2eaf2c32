"""`stentor listen`: what is published comes out as it is, and the end is quiet."""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import signal
import sys
import termios
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.commands.contact import Backoff, Destination, RefusedError, first_of, keep_contact
from server.commands.listen import Listener, Output, OutputClosedError
from tests.board import Board, board, cut_after, until

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
async def server() -> AsyncIterator[Board]:
    async with board() as made:
        yield made


async def start(folder: Path, server: Board, *arguments: str, stdout: int) -> asyncio.subprocess.Process:
    """Start the command, and wait until it listens."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("STENTOR_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "server",
        "listen",
        "--channel",
        "c",
        "--url",
        server.url,
        *arguments,
        cwd=folder,
        env=environ | {"PYTHONPATH": str(REPOSITORY)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
    )
    await until(lambda: server.present, "a listener", 60)
    return process


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    try:
        async with asyncio.timeout(60):
            _, err = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    return process.returncode, err.decode()


async def test_text_and_bytes_come_out_as_they_are(server: Board, tmp_path: Path) -> None:
    heard = os.open(tmp_path / "heard", os.O_WRONLY | os.O_CREAT)
    process = await start(tmp_path, server, "--count", "4", stdout=heard)
    os.close(heard)
    for payload in ("ä\n", b"\xff\x00", "", "x" * 200_000, "too much"):
        server.say(payload)
    assert await ended(process) == (0, "")
    assert (tmp_path / "heard").read_bytes() == "ä\n\n".encode() + b"\xff\x00\n\n" + b"x" * 200_000 + b"\n"
    await until(lambda: server.visits[0].closed, "the closing handshake")
    assert server.visits[0].closed == 1000


async def test_each_publication_comes_out_at_once(server: Board, tmp_path: Path) -> None:
    process = await start(tmp_path, server, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(60):
        for number in range(3):
            server.say(str(number))
            assert await process.stdout.readline() == f"{number}\n".encode()
    process.send_signal(signal.SIGINT)
    assert await ended(process) == (130, "")


async def test_a_closed_pipe_ends_it_even_in_silence(server: Board, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    process = await start(tmp_path, server, stdout=writer)
    os.close(writer)
    server.say("one")
    await until(lambda: _waiting(reader) == 4, "the first line")
    os.close(reader)
    assert await ended(process) == (0, "")


def _waiting(reader: int) -> int:
    """How many bytes wait in a pipe."""
    count = array.array("i", [0])
    fcntl.ioctl(reader, termios.FIONREAD, count)
    return count[0]


async def test_it_can_be_interrupted_while_nobody_reads_its_output(server: Board, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    process = await start(tmp_path, server, stdout=writer)
    os.close(writer)
    for _ in range(20):
        server.say("x" * 10_000)
    await until(lambda: _waiting(reader) >= 60_000, "a full pipe")
    process.send_signal(signal.SIGINT)
    assert await ended(process) == (130, "")
    os.close(reader)


async def test_it_comes_back_by_itself(server: Board, tmp_path: Path) -> None:
    server.treatments = [cut_after(0)]
    said: list[str] = []
    descriptor = os.open(tmp_path / "heard", os.O_WRONLY | os.O_CREAT)
    try:
        listener = Listener(Output(descriptor), count=2)
        destination = Destination.of(server.url, "c", None)
        task = asyncio.create_task(
            keep_contact(destination, listener.talk, said.append, backoff=Backoff(draw=lambda low, high: 0.0))
        )
        await until(lambda: len(server.visits) == 2, "a second connection")
        server.say("a")
        server.say("b")
        async with asyncio.timeout(20):
            await task
    finally:
        os.close(descriptor)
    assert (tmp_path / "heard").read_bytes() == b"a\nb\n"
    assert said == [
        f"lost contact with {server.url}/ws/c: closed with 1006, the connection broke off; trying again",
        f"in contact with {server.url}/ws/c again",
    ]


async def test_it_ends_after_its_count_in_the_middle_of_a_flood(server: Board, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "heard", os.O_WRONLY | os.O_CREAT)

    async def flood(connection: object) -> None:
        for number in range(2000):
            server.say(str(number).ljust(1000))

    server.treatments = [flood]
    try:
        listener = Listener(Output(descriptor), count=100)
        async with asyncio.timeout(20):
            await keep_contact(Destination.of(server.url, "c", None), listener.talk, print, retry=False)
    finally:
        os.close(descriptor)
    assert [int(line) for line in (tmp_path / "heard").read_text().splitlines()] == list(range(100))


async def test_an_output_that_does_not_block_gets_everything() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    payload = os.urandom(300_000)
    read = asyncio.create_task(asyncio.to_thread(_read_all, reader))
    await asyncio.to_thread(Output(writer).write, payload)
    os.close(writer)
    assert await read == payload


def _read_all(reader: int) -> bytes:
    with os.fdopen(reader, "rb") as file:
        return file.read()


def test_an_output_that_nobody_reads_says_so() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(OutputClosedError):
        Output(writer).write(b"x")
    os.close(writer)


def test_an_output_that_is_full_says_so() -> None:
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(RefusedError, match="no space left on device"):
        Output(full.fileno()).write(b"x")


async def test_only_a_pipe_hangs_up() -> None:
    descriptor = os.open("/dev/null", os.O_WRONLY)
    reader, writer = os.pipe()

    async def hang_up() -> None:
        await asyncio.sleep(0)
        os.close(reader)

    async with asyncio.timeout(20):
        waiting = asyncio.create_task(first_of(Output(descriptor).hung_up()))
        await asyncio.gather(Output(writer).hung_up(), hang_up())
        assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    os.close(writer)
    os.close(descriptor)
