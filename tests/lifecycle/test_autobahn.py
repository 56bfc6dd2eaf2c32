"""The Autobahn cases, some three hundred ways to speak RFC 6455 well and badly, against the echo.

They are run by kosoku, which carries the case files of the Autobahn test suite.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from fnmatch import fnmatch

import pytest
from kosoku import FailureError, run_fuzzingclient

from server.core.frames import encode_frame
from tests.harness import Server, serve
from tests.wire import BINARY, CLOSE, PONG, TEXT, split

pytestmark = pytest.mark.scenario

# Cases that are not run, and why.
NOT_RUN = {
    "12.*": "permessage-deflate, which the server does not negotiate: one deflate per client is what it saves",
    "13.*": "permessage-deflate with its parameters",
}
# Cases that are run and fail, and why that is right.
FAILING = {
    "7.1.5": "a close frame amid a fragmented message is 1002 here; the case accepts only 1000 or no code",
    "9.3.1": "4 MiB in 65,536 text fragments of 64 bytes: a message may have 4,096 fragments, then it is 1009",
    "9.3.2": "4 MiB in 16,384 text fragments of 256 bytes: the same",
    "9.4.1": "4 MiB in 65,536 binary fragments of 64 bytes: the same",
    "9.4.2": "4 MiB in 16,384 binary fragments of 256 bytes: the same",
}
# What the suite calls "non-strict": right, but an error could have been reported with an earlier fragment.
NON_STRICT = {"3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15", "6.4.*"}


async def run_cases(url: str, cases: list[str] | None = None) -> dict[str, str]:
    """Run the cases four at a time; return the verdict of each, "FAILED" or worse for those that did not pass."""
    try:
        results = await run_fuzzingclient(url, cases, list(NOT_RUN), concurrency=4)
    except FailureError as failure:
        results = failure.results
    return {
        result.case_id: result.behavior.value if result.passed else f"FAILED: {result.result} {result.result_close}"
        for result in results
    }


async def test_the_echo_conforms() -> None:
    # The largest cases send 16 MiB, or 1,000 messages as fast as they can. A ping of the server's own in the middle of
    # a case would count as a wrong event.
    with serve("--max-message-size", "16MiB", "--message-rate", "0", "--ping-interval", "1h") as server:
        start = time.monotonic()
        verdicts = await run_cases(f"{server.websocket_url}/echo")
        print(f"{len(verdicts)} cases in {time.monotonic() - start:.1f} s")
        log = server.log_text()
    failed = {case: verdict for case, verdict in verdicts.items() if verdict.startswith("FAILED")}
    non_strict = [case for case, verdict in verdicts.items() if verdict == "NON-STRICT"]
    assert len(verdicts) > 290, "the suite has shrunk"
    assert {case: verdict for case, verdict in failed.items() if case not in FAILING} == {}
    assert FAILING.keys() - failed.keys() == set(), "these pass now: take them off the table"
    assert [case for case in non_strict if not any(fnmatch(case, known) for known in NON_STRICT)] == []
    assert "Traceback" not in log


def unchanged(opcode: int, payload: bytes) -> bytes:
    return encode_frame(opcode, payload)


def last_byte_changed(opcode: int, payload: bytes) -> bytes:
    return encode_frame(opcode, payload[:-1] + b"?" if opcode == TEXT else payload)


def pongs_left_out(opcode: int, payload: bytes) -> bytes:
    return b"" if opcode == PONG else encode_frame(opcode, payload)


def reserved_bit_set(opcode: int, payload: bytes) -> bytes:
    frame = encode_frame(opcode, payload)
    return bytes([frame[0] | 0x40]) + frame[1:]


def close_frames_left_out(opcode: int, payload: bytes) -> bytes:
    return b"" if opcode == CLOSE else encode_frame(opcode, payload)


def said_twice(opcode: int, payload: bytes) -> bytes:
    return encode_frame(opcode, payload) * (2 if opcode == BINARY else 1)


@contextlib.asynccontextmanager
async def spoilt(server: Server, fault: Callable[[int, bytes], bytes]) -> AsyncIterator[str]:
    """Put someone between the cases and the server who passes on what `fault` makes of each frame of the server."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", server.port)

        async def upwards() -> None:
            while data := await reader.read(65536):
                to_server.write(data)
            to_server.write_eof()

        asking = asyncio.create_task(upwards())
        try:
            writer.write(await from_server.readuntil(b"\r\n\r\n"))
            rest = b""
            while data := await from_server.read(65536):
                frames, rest = split(rest + data)
                writer.write(b"".join(fault(*frame) for frame in frames))
        except OSError:
            pass  # a case has seen enough
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            for end in (writer, to_server):
                end.transport.abort()

    async with await asyncio.start_server(pass_on, "127.0.0.1", 0) as between:
        port = between.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}/echo"


@pytest.mark.parametrize(
    ("fault", "case"),
    [
        (last_byte_changed, "1.1.2"),
        (said_twice, "1.2.2"),
        (pongs_left_out, "2.2"),
        (reserved_bit_set, "1.1.2"),
        (close_frames_left_out, "7.1.1"),
    ],
)
async def test_an_echo_with_a_planted_fault_does_not(fault: Callable[[int, bytes], bytes], case: str) -> None:
    with serve() as server:
        async with spoilt(server, unchanged) as url:
            assert await run_cases(url, [case]) == {case: "OK"}
        async with spoilt(server, fault) as url:
            assert (await run_cases(url, [case]))[case].startswith("FAILED")
