"""Handshakes that do not end, or that are too large: gone in time, small in memory, and in nobody's way."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator

import pytest

from tests.harness import Server, serve, wait_until
from tests.lifecycle.crowd import connect, cut_everyone_off, make_room, until
from tests.wire import TEXT, Answer, answer, frame, request

OPEN_TIMEOUT = 1.0
HALVES = 2000 if os.environ.get("STENTOR_FULL") else 500
HALF = b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: web"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server for all that leaves nothing behind in it."""
    with serve() as running:
        yield running


async def begin(port: int, first: bytes) -> socket.socket:
    """Connect, send `first`, and leave it at that."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", port))
    if first:
        await loop.sock_sendall(sock, first)
    return sock


async def until_cut_off(sock: socket.socket) -> tuple[float, bytes]:
    """Wait for the end of a connection; return how long that took, and what was said until then."""
    loop = asyncio.get_running_loop()
    start, said = time.monotonic(), b""
    try:
        async with asyncio.timeout(30):
            while data := await loop.sock_recv(sock, 65536):
                said += data
    except ConnectionError:
        pass
    finally:
        sock.close()
    return time.monotonic() - start, said


async def ask(port: int, words: bytes) -> Answer:
    """Send a whole request and read the whole answer."""
    _, said = await until_cut_off(await begin(port, words))
    return answer(said)


@pytest.mark.scenario
@pytest.mark.parametrize("first", [b"", HALF], ids=["silent", "half a request"])
async def test_half_handshakes_are_gone_in_time_and_others_get_in(first: bytes) -> None:
    make_room(HALVES)
    with serve("--open-timeout", str(OPEN_TIMEOUT)) as server:
        descriptors = server.descriptors()
        sockets = [await begin(server.port, first) for _ in range(HALVES)]
        ends = [asyncio.create_task(until_cut_off(sock)) for sock in sockets]
        await until(lambda: server.descriptors() >= descriptors + HALVES / 2, what="the fault has happened")
        start = time.monotonic()
        inside = await connect(server.port)
        took = time.monotonic() - start
        assert inside.status == 101
        waited = max(seconds for seconds, _ in await asyncio.gather(*ends))
        inside.say("still here")
        await until(lambda: inside.heard)
        metrics = await asyncio.to_thread(server.metrics)
        await cut_everyone_off()
        log = server.log_text()
    print(f"{HALVES} half handshakes: the last gone after {waited:.2f} s; another client in after {took:.4f} s")
    assert waited <= OPEN_TIMEOUT + 1.0
    assert took <= 1.0
    assert metrics["stentor_connections_opened_total"] == 1
    assert len(log.splitlines()) < 10


async def test_a_trickle_of_header_bytes_buys_no_time() -> None:
    with serve("--open-timeout", str(OPEN_TIMEOUT)) as server:
        sock = await begin(server.port, b"")
        loop = asyncio.get_running_loop()

        async def trickle() -> None:
            for byte in request():
                await loop.sock_sendall(sock, bytes([byte]))
                await asyncio.sleep(0.1)

        trickling = asyncio.create_task(trickle())
        waited, said = await until_cut_off(sock)
        trickling.cancel()
        await asyncio.gather(trickling, return_exceptions=True)
    assert OPEN_TIMEOUT * 0.9 <= waited <= OPEN_TIMEOUT + 1.0
    assert b" 101 " not in said


async def test_a_whole_handshake_may_come_byte_by_byte(server: Server) -> None:
    sock = await begin(server.port, b"")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in request():
        await asyncio.get_running_loop().sock_sendall(sock, bytes([byte]))
    head = await asyncio.get_running_loop().sock_recv(sock, 1024)
    sock.close()
    assert answer(head).status == 101


@pytest.mark.parametrize(
    ("words", "status"),
    [
        pytest.param(request("/" + "a" * 20_000), 414, id="a long path"),
        pytest.param(request("/ws", "X-Long: " + "a" * 20_000), 431, id="a long header"),
        pytest.param(request("/ws", *["X-Many: a"] * 200), 431, id="many headers"),
        pytest.param(request("/ws", *["X-Large: " + "a" * 8000] * 100), 431, id="many large headers"),
        pytest.param(request("/ws", *["X-Large: " + "a" * 8000] * 100)[:-4], 431, id="many large headers and no end"),
    ],
)
async def test_too_large_a_request_is_told_so(server: Server, words: bytes, status: int) -> None:
    before = await asyncio.to_thread(refused, server)
    assert (await ask(server.port, words)).status == status
    assert await asyncio.to_thread(refused, server) == before + 1
    assert (await connect(server.port)).status == 101


@pytest.mark.scenario
async def test_a_stranger_cannot_fill_the_memory() -> None:
    """Header after header, each within the limit for one, and never an end: the library would keep a mebibyte each."""
    strangers = 200
    words = request("/ws", *["X-Large: " + "a" * 8000] * 100)[:-4]
    with serve("--open-timeout", "20") as server:
        assert (await connect(server.port)).status == 101
        before = server.rss()
        sockets = [await begin(server.port, words) for _ in range(strangers)]
        await asyncio.to_thread(wait_until, lambda: refused(server) == strangers)
        grown = server.rss() - before
        for sock in sockets:
            sock.close()
    print(f"{strangers} strangers with {len(words)} bytes of headers each: {grown / strangers / 1024:.0f} KiB each")
    assert grown < strangers * 128 * 1024


def refused(server: Server) -> float:
    return server.metrics()['stentor_connections_rejected_total{reason="bad_request"}']


async def test_frames_before_the_answer_end_it(server: Server) -> None:
    before = await asyncio.to_thread(server.metrics)
    _, said = await until_cut_off(await begin(server.port, request() + frame(TEXT, b"too early")))
    assert b" 101 " not in said
    after = await asyncio.to_thread(server.metrics)
    assert after["stentor_messages_received_total"] == before["stentor_messages_received_total"]
    assert (await connect(server.port)).status == 101
