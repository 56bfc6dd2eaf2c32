"""Handshakes and frames that no client sends: thousands of each from a seed, against oracles that know the answer.

    STENTOR_FUZZ_CASES=100000 STENTOR_FUZZ_SEED=7 pytest tests/scenarios/test_fuzz.py

A failure names its seed and its case, with the bytes that were sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from tests.garbage import garbage, protobuf_garbage
from tests.scenarios.clients import request
from tests.scenarios.mutations import mutated_request, mutated_stream
from tests.scenarios.stage import MIB, Stage, figure, stage
from tests.scenarios.wire import BINARY, CLOSE, PING, PONG, TEXT, Scanner, frame

pytestmark = pytest.mark.scenario

CASES = int(os.environ.get("STENTOR_FUZZ_CASES", "3000"))
SEED = int(os.environ.get("STENTOR_FUZZ_SEED", "1"))
AT_ONCE = 25
PATIENCE = 10.0
MAX_SIZE = 65536

# A mutation may hit upon the page.
IS_PAGE = re.compile(rb"GET /(\?\S*)? ")
STATUSES = {101, 400, 401, 403, 404, 405, 414, 426, 429, 431, 503, 505}


@contextlib.asynccontextmanager
async def canaries(*options: str) -> AsyncIterator[Stage]:
    """Set a stage whose healthy clients must not notice anything, and whose memory must not grow."""
    async with stage(*options) as on:
        healthy = await on.listeners(20, "canaries")
        talk = asyncio.create_task(healthy[0].publish(on.ledger, "canaries", rate=20, seconds=3600, size=128))
        try:
            yield on
            assert not talk.done(), "the canaries were not talked to all the time"
        finally:
            await cancelled(talk)
        await on.all_heard(healthy)
        assert not any(client.is_gone for client in healthy)


async def run(on: Stage, case: Callable[[random.Random], Awaitable[None]]) -> None:
    """Run all cases, a few at a time, each from a seed of its own; judge the memory after a warm-up."""
    figure("fuzz", f"seed {SEED}, {CASES} cases")
    numbers = iter(range(CASES))
    base = 0

    async def worker() -> None:
        nonlocal base
        for number in numbers:
            if number == CASES // 10:
                base = on.server.rss()
            try:
                await case(random.Random(f"{SEED}/{number}"))
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"seed {SEED}, case {number}: {error!r}") from error

    workers = [asyncio.create_task(worker()) for _ in range(AT_ONCE)]
    try:
        await asyncio.gather(*workers)
    finally:
        await cancelled(*workers)
    growth = on.server.rss() - base
    figure("fuzz, memory", f"{growth / MIB:+.2f} MiB")
    assert growth <= 10 * MIB


def new_socket(dice: random.Random) -> socket.socket:
    """Make a socket on one of many loopback addresses: one has no more than 28,000 ports, each in use for a minute."""
    sock = socket.socket()
    sock.bind((f"127.0.0.{dice.randrange(2, 250)}", 0))
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


async def converse(sock: socket.socket, pieces: list[bytes]) -> bytes:
    """Send `pieces` one by one and then the end of the stream; return all that comes back until its end."""
    loop = asyncio.get_running_loop()
    heard = b""
    async with asyncio.timeout(PATIENCE):
        # Side by side: who sends a lot must read meanwhile. A reset is an end like any other.
        sending = asyncio.create_task(send_all(sock, pieces))
        try:
            with contextlib.suppress(ConnectionError):
                while data := await loop.sock_recv(sock, 65536):
                    heard += data
            await sending
        finally:
            await cancelled(sending)
    return heard


async def cancelled(*tasks: asyncio.Task[None]) -> None:
    """Cancel what still runs of `tasks`, and wait for its end; whoever awaited them knows how they ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def send_all(sock: socket.socket, pieces: list[bytes]) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        for piece in pieces:
            await loop.sock_sendall(sock, piece)
            await asyncio.sleep(0)
        sock.shutdown(socket.SHUT_WR)


def chopped(dice: random.Random, data: bytes) -> list[bytes]:
    """Cut `data` where the network might."""
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.choice((0, 0, 1, 3))))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if start < end]


async def test_handshakes() -> None:
    seen: Counter[int] = Counter()

    async def case(dice: random.Random) -> None:
        sent = mutated_request(dice)
        with new_socket(dice) as sock:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", on.server.port))
            heard = await converse(sock, chopped(dice, sent))
        if not heard:
            seen[0] += 1
            return
        assert heard.startswith(b"HTTP/1.1 "), (sent, heard)
        status = int(heard[9:12])
        assert status in STATUSES or (status == 200 and IS_PAGE.match(sent)), (sent, heard)
        seen[status] += 1

    async with canaries() as on:
        await run(on, case)
        figure("handshakes", dict(sorted(seen.items())))
        # An oracle that only ever saw one answer has shown nothing.
        assert {0, 101, 400, 403, 404, 414, 426, 431} <= set(seen)
        assert seen[101] >= CASES / 50


@dataclass
class Verdict:
    """What a server may do with a stream of frames; `codes` is empty when it must not close."""

    codes: set[int] = field(default_factory=set)
    messages: list[tuple[int, bytes]] = field(default_factory=list)
    last_pong: bytes = b""
    is_text_bad: bool = False


def judge(stream: bytes) -> Verdict:
    """Ask the library's protocol, with the same limits, what `stream` comes to after a handshake."""
    protocol = ServerProtocol(max_size=MAX_SIZE)
    protocol.receive_data(request("/echo"))
    (opening,) = protocol.events_received()
    protocol.send_response(protocol.accept(opening))  # type: ignore[arg-type]
    protocol.data_to_send()
    protocol.receive_data(stream)
    verdict = Verdict()
    collect(verdict, [event for event in protocol.events_received() if isinstance(event, Frame)])
    for data in protocol.data_to_send():
        if data and data[0] & 0x0F == PONG:
            verdict.last_pong = data[2:]
    if protocol.close_sent is not None:
        verdict.codes.add(protocol.close_sent.code)
    if verdict.is_text_bad:
        # The text is judged when the message is whole; the library may have found something by then, or not yet.
        verdict.codes.add(1007)
    return verdict


def collect(verdict: Verdict, frames: list[Frame]) -> None:
    """Put messages together, up to one whose text is none (RFC 6455, section 8.1)."""
    opcode, parts = Opcode.BINARY, b""
    for event in frames:
        if event.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            continue
        if event.opcode is not Opcode.CONT:
            opcode, parts = event.opcode, b""
        parts += bytes(event.data)
        if not event.fin:
            continue
        if opcode is Opcode.TEXT:
            try:
                parts.decode()
            except UnicodeDecodeError:
                verdict.is_text_bad = True
                return
        verdict.messages.append((int(opcode), parts))


@dataclass
class FrameCases:
    """Streams of frames, each on a connection of its own; counts the close codes, 0 for none."""

    on: Stage
    seen: Counter[int] = field(default_factory=Counter)

    async def run_one(self, dice: random.Random) -> None:
        """Send a stream and hold what comes back against the verdict."""
        stream = mutated_stream(dice, MAX_SIZE) + frame(PING, b"still there?")
        path = dice.choice(("/echo", f"/ws/fuzz{dice.randrange(10**9)}"))
        verdict = judge(stream)
        # The handshake by itself: nobody may speak before it is answered.
        client = await self.on.crowd.join(path, reading=False, sock=new_socket(dice))
        self.on.crowd.clients.remove(client)
        with client.sock:
            heard = await converse(client.sock, chopped(dice, stream))
        codes, messages, last_pong = self._read(heard)
        assert len(codes) == bool(verdict.codes), (verdict.codes, codes, stream)
        assert set(codes) <= verdict.codes, (verdict.codes, codes, stream)
        # On a channel, who lags and has closed its half may miss what was on its way to it; an echo is taken first.
        if path == "/echo" and not verdict.is_text_bad:
            assert messages == verdict.messages, (verdict.messages, messages, stream)
        if path == "/echo" and not verdict.codes:
            assert last_pong == verdict.last_pong, (verdict.last_pong, last_pong, stream)
        self.seen[codes[0] if codes else 0] += 1

    def _read(self, heard: bytes) -> tuple[list[int], list[tuple[int, bytes]], bytes]:
        codes: list[int] = []
        messages, last_pong = [], b""
        for opcode, payload in Scanner().feed(heard):
            if opcode == CLOSE:
                codes.append(int.from_bytes(payload[:2], "big") if payload else 1005)
            elif opcode == PONG:
                last_pong = payload  # also after a close frame: only data must not follow it (RFC 6455, section 5.5.1)
            elif opcode != PING:
                assert not codes, ("a message after the close frame", heard)
                messages.append((opcode, payload))
        return codes, messages, last_pong


async def test_frames() -> None:
    async with canaries("--message-rate", "0") as on:
        cases = FrameCases(on)
        await run(on, cases.run_one)
        figure("frames", dict(sorted(cases.seen.items())))
        assert {0, 1002, 1005, 1007, 1009} <= set(cases.seen)
        assert cases.seen[0] >= CASES / 20


async def test_the_oracle_notices_a_server_that_is_a_byte_off() -> None:
    async with canaries("--message-rate", "0", "--max-message-size", str(MAX_SIZE - 1)) as on:
        with pytest.raises(AssertionError, match="1009"):
            await run(on, FrameCases(on).run_one)


# How the server ends it with a Centrifuge client that talks garbage, if it does.
COMMAND_CODES = {1009, 3500, 3501}


async def test_commands() -> None:
    seen: Counter[int] = Counter()

    async def case(dice: random.Random) -> None:
        is_json = dice.random() < 0.5
        make, opcode = (garbage, TEXT) if is_json else (protobuf_garbage, BINARY)
        opening = b'{"id":1,"connect":{}}' if is_json else b"\x04\x08\x01\x22\x00"
        frames = [frame(opcode, make(dice)) for _ in range(dice.choice((1, 1, 2, 5)))]
        if dice.random() < 0.8:
            frames.insert(0, frame(opcode, opening))
        fields = () if is_json else ("Sec-WebSocket-Protocol: centrifuge-protobuf",)
        sock = new_socket(dice)
        client = await on.crowd.join("/connection/websocket", headers=fields, reading=False, sock=sock)
        on.crowd.clients.remove(client)
        with client.sock:
            heard = await converse(client.sock, chopped(dice, b"".join(frames)))
        codes = [int.from_bytes(payload[:2], "big") for opcode, payload in Scanner().feed(heard) if opcode == CLOSE]
        assert len(codes) <= 1, (codes, frames)
        assert set(codes) <= COMMAND_CODES, (codes, frames)
        seen[codes[0] if codes else 0] += 1

    options = ("--message-rate", "0", "--history-size", "10", "--presence", "true", "--join-leave", "true")
    async with canaries(*options, "--delta", "true") as on:
        await run(on, case)
        figure("commands", dict(sorted(seen.items())))
        assert min(seen[0], seen[3501]) >= CASES / 20
