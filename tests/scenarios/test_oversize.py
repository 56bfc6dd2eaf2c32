"""Too much: lengths that are lies, sums of fragments, a million of them, and a hundred megabytes after the end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator

import pytest

from tests.scenarios.clients import Client, eventually
from tests.scenarios.stage import MIB, Stage, figure, stage
from tests.scenarios.wire import BINARY, CONTINUATION, NO_MASKING, PING, TEXT, close_frame, frame

pytestmark = pytest.mark.scenario

MAX_SIZE = 65536  # the default of max_message_size
# "At once": a round trip on a machine that has other things to do.
AT_ONCE = 1.0


@contextlib.asynccontextmanager
async def served(*options: str) -> AsyncIterator[Stage]:
    """Set a stage with twenty healthy clients, who are talked to meanwhile and lose nothing."""
    async with stage(*options) as on:
        healthy = await on.listeners(20, "news")
        talk = asyncio.create_task(healthy[0].publish(on.ledger, "news", rate=50, seconds=60, size=256))
        try:
            yield on
            await asyncio.sleep(0)
            assert not talk.done(), "the healthy were not talked to all the time"
        finally:
            talk.cancel()
            await asyncio.gather(talk, return_exceptions=True)
        await on.all_heard(healthy)


async def refused_with(client: Client, code: int) -> float:
    """Wait for the close frame; demand its code, and that it came at once."""
    asked_at = time.monotonic()
    await eventually(lambda: client.close_code or client.is_gone, 5, "a close frame", every=0.002)
    took = time.monotonic() - asked_at
    assert client.close_code == code
    assert took <= AT_ONCE
    return took


async def test_the_largest_message_is_taken() -> None:
    async with served() as on:
        client = await on.crowd.join("/echo")
        for sizes in ([MAX_SIZE], [40_000, MAX_SIZE - 40_000], [MAX_SIZE, 0]):
            payloads = [bytes(size) for size in sizes]
            for number, payload in enumerate(payloads):
                opcode = CONTINUATION if number else BINARY
                await client.send(frame(opcode, payload, fin=number == len(payloads) - 1))
            await eventually(lambda: client.inbox, 5, "the echo")
            assert client.inbox == [(BINARY, bytes(MAX_SIZE))]
            client.inbox.clear()
        assert not client.is_gone


async def test_a_declared_length_is_not_believed() -> None:
    async with served() as on:
        # What a connection costs is not what is looked for: the first is a warm-up.
        for declared in (MAX_SIZE + 1, MAX_SIZE + 1, 2**31, 2**63, 2**64 - 1):
            clients = await on.crowd.join_many(20, "/echo")
            base = on.server.rss()
            for client in clients:
                await client.send(frame(BINARY, b"", declared=declared, width=8))
            slowest = max([await refused_with(client, 1009) for client in clients])
            growth = on.server.rss() - base
            figure(f"declared {declared}", f"closed in {slowest * 1e3:.0f} ms, {growth / MIB:+.2f} MiB")
            assert growth <= 1 * MIB
            for client in clients:
                client.leave()


TOO_MUCH = [
    ("max + 1", [frame(BINARY, bytes(MAX_SIZE + 1))], 1009),
    ("sum of fragments", [frame(BINARY, bytes(40_000), fin=False), frame(CONTINUATION, bytes(25_537))], 1009),
    ("more after max", [frame(BINARY, bytes(MAX_SIZE), fin=False), frame(CONTINUATION, b"x", fin=False)], 1009),
    ("ping of 126", [frame(PING, bytes(126))], 1002),
    ("ping of 126, wide", [frame(PING, bytes(126), width=8)], 1002),
    ("half a ping", [frame(PING, b"", fin=False)], 1002),
]


async def test_too_much_is_refused_at_once() -> None:
    async with served() as on:
        for name, frames, code in TOO_MUCH:
            client = await on.crowd.join("/ws/strangers")
            for data in frames:
                with contextlib.suppress(ConnectionError):  # refused before its last byte was read
                    await client.send(data)
            took = await refused_with(client, code)
            figure(name, f"{code} in {took * 1e3:.0f} ms")


async def attack_with_fragments(on: Stage, attackers: int, each: int, payload: bytes) -> list[Client]:
    """Let many send fragments without an end, and a ping among them; return when the server has got rid of all.

    That must cost less than to take apart what they sent.
    """
    clients = await on.crowd.join_many(attackers, "/ws/strangers")
    base, cpu = on.server.rss(), on.server.cpu_seconds()
    flood = frame(TEXT, b"begin", fin=False) + frame(CONTINUATION, payload, fin=False) * 500
    flood += frame(PING, b"by the way") + frame(CONTINUATION, payload, fin=False) * (each - 500)
    sending = asyncio.gather(*(client.send(flood) for client in clients), return_exceptions=True)
    await eventually(lambda: all(client.is_gone for client in clients), 10, "every attacker is out", every=0.05)
    cpu, growth = on.server.cpu_seconds() - cpu, on.server.rss() - base
    assert not [error for error in await sending if error and not isinstance(error, ConnectionError)]
    worst = on.ledger.percentile(1.0)
    figure(f"{attackers * each} fragments of {len(payload)} bytes", f"{cpu:.2f} s of CPU, {growth / MIB:+.2f} MiB")
    figure("others", f"p50 {on.ledger.percentile(0.5) * 1e3:.1f} ms, worst {worst * 1e3:.0f} ms")
    assert growth <= 20 * MIB
    assert cpu / (attackers * each) <= 3e-6, "every fragment of the flood was looked at"
    assert all(client.pongs == 1 for client in clients), "a ping between fragments is answered"
    return clients


async def test_a_million_fragments_and_no_end() -> None:
    async with served("--message-rate", "0") as on:
        for payload in (b"", b"x"):
            clients = await attack_with_fragments(on, 10, 50_000, payload)
            assert {client.close_code for client in clients} == {1009}
        assert {entry["reason"] for entry in await on.departures()} == {"too many fragments"}


async def test_an_endless_message_is_refused_at_the_default_rate_too() -> None:
    async with served() as on:
        clients = await attack_with_fragments(on, 20, 50_000, b"")
        assert {client.close_code for client in clients} == {1009}
        assert {entry["reason"] for entry in await on.departures()} == {"too many fragments"}


async def test_a_message_that_comes_byte_by_byte_is_a_message() -> None:
    async with served() as on:
        client = await on.crowd.join("/echo")
        text = "ein Wort, Zeichen für Zeichen".encode()
        stream = frame(TEXT, text[:9], fin=False) + frame(PING, b"dribble") + frame(CONTINUATION, text[9:])
        for at in range(len(stream)):
            await client.send(stream[at : at + 1])
            await asyncio.sleep(0.001)  # a segment of its own
        await eventually(lambda: client.inbox, 5, "the echo")
        assert client.inbox == [(TEXT, text)]
        assert client.last_pong == b"dribble" or client.pongs == 1
        # The same, and the connection ends in the middle of it.
        await client.send(stream[: len(stream) // 2])
        client.leave()


async def test_a_hundred_megabytes_after_the_end() -> None:
    async with served() as on:
        client = await on.crowd.join("/ws/strangers")
        client.answers_close = False  # it goes on sending instead
        chunk = bytes(MIB)
        await client.send(frame(BINARY, b"", declared=MAX_SIZE + 1, width=8))
        await refused_with(client, 1009)
        base, peak, sent = on.server.rss(), 0, 0
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                await client.send(chunk)
                sent += len(chunk)
                peak = max(peak, on.server.rss())
        figure("after the end", f"{sent / MIB:.0f} MiB sent, {(peak - base) / MIB:+.2f} MiB")
        assert sent >= 50 * MIB, "it was not taken long enough to tell"
        assert peak - base <= 4 * MIB


ENDS = [(close_frame(1000), 1000), (frame(0x3, b""), 1002), (frame(BINARY, b"", declared=2**63), 1009)]


async def test_what_came_before_the_end_counts() -> None:
    # All in one segment: the server reads the messages and the end at once.
    async with served() as on:
        for number, (last, code) in enumerate(ENDS):
            listener = await on.crowd.join(f"/ws/own{number}")
            for path in ("/echo", f"/ws/own{number}"):
                client = await on.crowd.join(path)
                await client.send(frame(TEXT, b"one", key=NO_MASKING) + frame(PING, b"") + frame(TEXT, b"two") + last)
                await eventually(functools.partial(getattr, client, "is_gone"), 5, "the end", every=0.002)
                assert client.close_code == code
                heard = client if path == "/echo" else listener
                await eventually(functools.partial(len, heard.inbox), 5, "what it said")
                await on.metrics()  # a turn of the server's loop: there is not more to come
                assert heard.inbox == [(TEXT, b"one"), (TEXT, b"two")]
