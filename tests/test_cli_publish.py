"""`stentor publish`: every line arrives, in order, whatever happens to the connection or to standard input."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from server.commands import publish
from server.commands.contact import Backoff, Destination, RefusedError, keep_contact
from server.commands.publish import Lines, Pace, Publisher
from server.core.limits import TokenBucket
from tests import keyring
from tests.board import Board, board, close_with, cut_after, refuse_the_first, reserved_port, stop_reading, until
from tests.harness import serve

REPOSITORY = Path(__file__).resolve().parent.parent
MANY = [f"line {number}".encode() for number in range(3000)]


@pytest.fixture
async def server() -> AsyncIterator[Board]:
    async with board() as made:
        yield made


@pytest.fixture
def pipe() -> Iterator[tuple[int, Callable[[bytes], None]]]:
    """A pipe to read from, and a function that fills and closes it from a thread."""
    reader, writer = os.pipe()
    threads: list[threading.Thread] = []

    def fill(payload: bytes) -> None:
        def write() -> None:
            with os.fdopen(writer, "wb") as file:
                file.write(payload)

        threads.append(threading.Thread(target=write))
        threads[-1].start()

    yield reader, fill
    os.close(reader)
    for thread in threads:
        thread.join(20)
    if not threads:
        os.close(writer)


async def hand_over(
    server: Board, descriptor: int, *, text: bool = True, rate: float = 0.0, channel: str = "c"
) -> list[str]:
    """Publish a descriptor's lines; return what was said to the operator."""
    said: list[str] = []
    publisher = Publisher(Lines(descriptor), Pace(rate), said.append, text=text)
    destination = Destination.of(server.url, channel, None)
    async with asyncio.timeout(60):
        await keep_contact(destination, publisher.talk, said.append, backoff=Backoff(draw=lambda low, high: 0.0))
    return said


def in_order(visits: list[list[bytes]]) -> list[bytes]:
    """Join what several connections read: each goes on where the one before ended, or a little before."""
    joined: list[bytes] = []
    for lines in visits:
        if lines:
            start = joined.index(lines[0]) if lines[0] in joined else len(joined)
            again = joined[start : start + len(lines)]
            assert again == lines[: len(again)]
            joined += lines[len(again) :]
    return joined


@pytest.mark.parametrize(
    ("raw", "lines"),
    [
        (b"", []),
        (b"\n", [b""]),
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\n\nb", [b"a", b"", b"b"]),
        (b"a\r\n", [b"a\r"]),
        ("ä€😀\n".encode(), ["ä€😀".encode()]),
        (b"x" * 200_000 + b"\ny", [b"x" * 200_000, b"y"]),
    ],
)
async def test_each_line_is_a_publication(
    server: Board, pipe: tuple[int, Callable[[bytes], None]], raw: bytes, lines: list[bytes]
) -> None:
    reader, fill = pipe
    fill(raw)
    assert await hand_over(server, reader) == []
    (visit,) = server.visits
    assert visit.said == [("text", line) for line in lines]
    await until(lambda: visit.closed, "the closing handshake")
    assert visit.closed == 1000


async def test_binary_lines_are_sent_byte_for_byte(server: Board, pipe: tuple[int, Callable[[bytes], None]]) -> None:
    reader, fill = pipe
    fill(b"\xff\x00\r\nb")
    assert await hand_over(server, reader, text=False) == []
    assert server.visits[0].said == [("binary", b"\xff\x00\r"), ("binary", b"b")]


async def test_text_that_is_not_utf8_is_mended_and_said_once(
    server: Board, pipe: tuple[int, Callable[[bytes], None]]
) -> None:
    reader, fill = pipe
    fill(b"caf\xe9\nok\n\xff\n")
    assert await hand_over(server, reader) == [
        "standard input is not UTF-8 throughout: what is not becomes U+FFFD (--binary keeps it)"
    ]
    assert server.lines == ["caf\ufffd".encode(), b"ok", "\ufffd".encode()]


async def test_a_channel_may_have_any_name(server: Board, pipe: tuple[int, Callable[[bytes], None]]) -> None:
    reader, fill = pipe
    fill(b"a")
    await hand_over(server, reader, channel="a b/ü?")
    assert server.visits[0].path == "/ws/a%20b%2F%C3%BC%3F"


async def test_every_line_arrives_in_order_over_broken_connections(
    server: Board, pipe: tuple[int, Callable[[bytes], None]]
) -> None:
    server.treatments = [cut_after(1), cut_after(5), cut_after(700), close_with(1012, after=300), cut_after(2)]
    reader, fill = pipe
    fill(b"\n".join(MANY))
    said = await hand_over(server, reader)
    assert in_order([visit.lines for visit in server.visits]) == MANY
    assert len(server.visits) == 6
    assert [line.split(" with ")[0] for line in said] == ["lost contact", "in contact"] * 5


def test_a_line_out_of_order_would_be_seen() -> None:
    assert in_order([[b"a", b"b"], [b"b"], [b"b", b"c"], []]) == [b"a", b"b", b"c"]
    assert in_order([[b"a", b"c"], [b"b"]]) != [b"a", b"b", b"c"]
    with pytest.raises(AssertionError):
        in_order([[b"a", b"b", b"c"], [b"a", b"c"]])


async def test_lines_that_a_connection_has_confirmed_are_not_said_again(server: Board) -> None:
    reader, writer = os.pipe()
    publisher = Publisher(Lines(reader), Pace(0), print, text=True)
    destination = Destination.of(server.url, "c", None)
    backoff = Backoff(draw=lambda low, high: 0.0)
    task = asyncio.create_task(keep_contact(destination, publisher.talk, print, backoff=backoff))
    os.write(writer, b"one\ntwo\n")
    await until(lambda: server.lines == [b"one", b"two"] and not publisher._unconfirmed, "the confirmation")
    server.present[0].transport.abort()
    os.write(writer, b"three\n")
    os.close(writer)
    async with asyncio.timeout(20):
        await task
    os.close(reader)
    assert [visit.lines for visit in server.visits] == [[b"one", b"two"], [b"three"]]


async def test_a_server_that_stops_reading_is_left(
    server: Board, pipe: tuple[int, Callable[[bytes], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_ANSWER", 2.0)
    server.treatments = [stop_reading]
    reader, fill = pipe
    fill(b"\n".join(MANY))
    said = await hand_over(server, reader)
    assert server.lines == MANY
    assert said[0] == f"lost contact with {server.url}/ws/c: it does not answer; trying again"


async def test_what_comes_back_does_not_get_in_the_way(
    server: Board, pipe: tuple[int, Callable[[bytes], None]]
) -> None:
    async def shout(connection: object) -> None:
        for _ in range(500):
            server.say("x" * 10_000)

    server.treatments = [shout]
    reader, fill = pipe
    fill(b"\n".join(MANY))
    assert await hand_over(server, reader) == []
    assert server.lines == MANY


@pytest.mark.parametrize(
    ("code", "words"),
    [(1008, "closed with 1008, not allowed"), (1009, "closed with 1009, larger than the server takes")],
)
async def test_a_close_that_cannot_heal_is_the_end(server: Board, code: int, words: str) -> None:
    server.treatments = [close_with(code, after=1)]
    reader, writer = os.pipe()
    os.write(writer, b"a\n" * 10)
    with pytest.raises(RefusedError) as caught:
        await hand_over(server, reader)
    os.close(reader)
    os.close(writer)
    assert str(caught.value) == f"lost contact with {server.url}/ws/c: {words}"


async def test_a_refusal_of_the_last_line_is_not_missed(
    server: Board, pipe: tuple[int, Callable[[bytes], None]]
) -> None:
    server.treatments = [refuse_the_first]
    reader, fill = pipe
    fill(b"a")
    with pytest.raises(RefusedError, match="closed with 1008, not allowed"):
        await hand_over(server, reader)


async def test_the_pace_stays_within_what_a_server_takes(
    server: Board, pipe: tuple[int, Callable[[bytes], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    bucket = TokenBucket(400, loop.time())
    refused: list[bytes] = []

    class Strict(list[tuple[str, bytes]]):
        def append(self, said: tuple[str, bytes]) -> None:
            if not bucket.take(loop.time()):
                refused.append(said[1])
            super().append(said)

    async def watch(connection: object) -> None:
        server.visits[0].said = Strict()

    server.treatments = [watch]
    reader, fill = pipe
    fill(b"\n".join(MANY[:600]))
    started = loop.time()
    await hand_over(server, reader, rate=400)
    assert server.lines == MANY[:600]
    assert refused == []
    # Half a second's worth at once, the rest at 400 a second: the pace was kept, whatever the machine's own.
    assert loop.time() - started >= 0.9


async def test_a_slow_pace_sends_its_first_line_at_once() -> None:
    async with asyncio.timeout(20):
        await Pace(0.001).turn()
        for _ in range(1000):
            await Pace(0).turn()


# Standard input


async def read_all(lines: Lines) -> list[bytes]:
    read = []
    async with asyncio.timeout(20):
        while (line := await lines.next()) is not None:
            read.append(line)
    assert await lines.next() is None
    return read


async def test_lines_are_read_from_files_and_devices(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b"\n".join(MANY))
    for path, expected in ((tmp_path / "lines", MANY), (Path("/dev/null"), [])):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            assert await read_all(Lines(descriptor)) == expected
        finally:
            os.close(descriptor)


async def test_lines_are_read_from_a_descriptor_that_does_not_block() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    lines = Lines(reader)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await lines.next()
    # The line that comes after a cancelled wait is not lost.
    os.write(writer, b"a\nb")
    assert await lines.next() == b"a"
    os.close(writer)
    assert await read_all(lines) == [b"b"]
    os.close(reader)


async def test_standard_input_that_cannot_be_read_is_the_end(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(RefusedError, match=r"^cannot read standard input: is a directory$"):
            await Lines(descriptor).next()
    finally:
        os.close(descriptor)


async def test_a_line_without_end_is_not_gathered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "LARGEST_PUBLICATION", 100_000)
    descriptor = os.open("/dev/zero", os.O_RDONLY)
    with pytest.raises(RefusedError, match="a line is longer than 100000 bytes"):
        await Lines(descriptor).next()
    # The thread stands still until there is room: the descriptor is its own until the tests end.


# A process of its own


async def start(
    folder: Path, *arguments: str, stdin: int = asyncio.subprocess.PIPE, trust: Path | None = None
) -> asyncio.subprocess.Process:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("STENTOR_")}
    if trust is not None:
        environ["SSL_CERT_FILE"] = str(trust)
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "server",
        "publish",
        "--channel",
        "c",
        *arguments,
        cwd=folder,
        env=environ | {"PYTHONPATH": str(REPOSITORY)},
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def ended(process: asyncio.subprocess.Process, stdin: bytes = b"") -> tuple[int | None, str, str]:
    """Give the process the rest of its standard input, and wait for its end."""
    try:
        async with asyncio.timeout(60):
            out, err = await process.communicate(stdin)
    except TimeoutError:
        process.kill()
        raise
    return process.returncode, out.decode(), err.decode()


async def test_the_command_publishes_what_it_is_piped(server: Board, tmp_path: Path) -> None:
    process = await start(tmp_path, "--url", server.url, "--token", "t", "--rate", "0")
    assert await ended(process, b"\n".join(MANY)) == (0, "", "")
    assert server.lines == MANY
    assert server.visits[0].authorization == "Bearer t"


async def test_the_command_finds_the_configured_server(server: Board, tmp_path: Path) -> None:
    (tmp_path / "stentor.toml").write_text(f"port = {server.sock.getsockname()[1]}\nmessage_rate = 0")
    process = await start(tmp_path, "--binary")
    assert await ended(process, b"a\nb") == (0, "", "")
    assert server.visits[0].said == [("binary", b"a"), ("binary", b"b")]


async def test_the_command_trusts_a_certificate_of_ones_own_when_told_to(tmp_path: Path) -> None:
    key = keyring.ec_key()
    (tmp_path / "chain.pem").write_text(keyring.certificate(key))
    (tmp_path / "key.pem").write_text(keyring.private_pem(key))
    with serve("--tls-cert", str(tmp_path / "chain.pem"), "--tls-key", str(tmp_path / "key.pem")) as secure:
        line = ("--url", f"wss://localhost:{secure.port}", "--no-retry")
        code, _, said = await ended(await start(tmp_path, *line), b"one\n")
        assert code == 1
        assert "its certificate is not trusted" in said
        trusting = await start(tmp_path, *line, trust=tmp_path / "chain.pem")
        assert await ended(trusting, b"one\n") == (0, "", "")


async def test_the_command_waits_for_its_server(tmp_path: Path) -> None:
    late = Board()
    process = await start(tmp_path, "--url", late.url)
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(b"a\nb\n")
    async with asyncio.timeout(60):
        assert await process.stderr.readline() == (
            f"stentor publish: no contact with {late.url}/ws/c: connection refused; trying again\n".encode()
        )
    async with AsyncExitStack() as stack:
        await late.open(stack)
        assert await ended(process) == (0, "", f"stentor publish: in contact with {late.url}/ws/c\n")
    assert late.lines == [b"a", b"b"]


async def test_the_command_gives_up_when_told_to(tmp_path: Path) -> None:
    with reserved_port() as sock:
        url = Board(sock).url
        process = await start(tmp_path, "--url", url, "--no-retry")
        assert await ended(process, b"a\n") == (
            1,
            "",
            f"stentor publish: no contact with {url}/ws/c: connection refused\n",
        )


async def test_the_command_is_interrupted_quietly(server: Board, tmp_path: Path) -> None:
    process = await start(tmp_path, "--url", server.url)
    assert process.stdin is not None
    process.stdin.write(b"a\n")
    await until(lambda: server.lines == [b"a"], "the first line")
    process.send_signal(signal.SIGINT)
    assert await ended(process) == (130, "", "")
