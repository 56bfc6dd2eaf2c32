"""The checkers of this folder find what they are there to find."""

from __future__ import annotations

import asyncio

import pytest

from tests.lifecycle.crowd import Client, assert_nothing_lost, frame, until
from tests.wire import BINARY, CLOSE, PONG, TEXT
from tests.wire import frame as masked_frame


def client_that_heard(numbers: list[int]) -> Client:
    client = Client("/ws", ())
    client.heard = [b"%08d ..." % number for number in numbers]
    return client


@pytest.mark.parametrize("heard", [[0, 1, 2, 3], [2, 3], [3]])
async def test_an_unbroken_run_is_nothing_lost(heard: list[int]) -> None:
    assert_nothing_lost([client_that_heard(heard)], through=3)


@pytest.mark.parametrize(
    "heard",
    [
        pytest.param([], id="silence"),
        pytest.param([0, 1, 3], id="a gap"),
        pytest.param([0, 1, 2], id="the last is missing"),
        pytest.param([0, 1, 1, 2, 3], id="one twice"),
        pytest.param([0, 2, 1, 3], id="two swapped"),
        pytest.param([0, 1, 2, 3, 4], id="one that was not said"),
    ],
)
async def test_anything_else_is_found(heard: list[int]) -> None:
    with pytest.raises(AssertionError):
        assert_nothing_lost([client_that_heard([0, 1, 2, 3]), client_that_heard(heard)], through=3)


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_a_frame_differs_from_another_only_in_its_mask(size: int) -> None:
    assert frame(BINARY, b"a" * size) == masked_frame(BINARY, b"a" * size, mask=bytes(4))


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)


HEAD = b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
async def test_a_client_reads_in_pieces_of_any_size(step: int) -> None:
    client, wire = Client("/ws", ()), Wire()
    client.connection_made(wire)
    said = HEAD + b"\x81\x05hello" + b"\x89\x01p" + b"\x82\x7e\x00\x80" + bytes(128) + b"\x88\x04\x03\xe9ok"
    wire.written = b""
    for start in range(0, len(said), step):
        client.data_received(said[start : start + step])
    assert (client.status, client.close_code, client.close_reason) == (101, 1001, "ok")
    assert list(zip(client.opcodes, client.heard, strict=True)) == [(TEXT, b"hello"), (BINARY, bytes(128))]
    assert wire.written == frame(PONG, b"p") + frame(CLOSE, b"\x03\xe9")


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"\x01\x05hello", id="a fragment"),
        pytest.param(b"\xc1\x05hello", id="a reserved bit"),
        pytest.param(b"\x81\x85\x00\x00\x00\x00hello", id="a mask"),
        pytest.param(b"\x88\x02\x03\xe9\x81\x05hello", id="data after the close frame"),
    ],
)
async def test_a_client_fails_at_what_no_server_may_say(said: bytes) -> None:
    client = Client("/ws", ())
    client.connection_made(Wire())
    with pytest.raises(AssertionError):
        client.data_received(HEAD + said)


async def test_waiting_has_an_end() -> None:
    with pytest.raises(AssertionError, match="what is not coming"):
        await until(lambda: False, within=0.05, what="what is not coming")
