"""Contact with a server: where it is, which failures heal, and what is said about them."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.datastructures import Headers
from websockets.exceptions import (
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidMessage,
    InvalidStatus,
    InvalidUpgrade,
)
from websockets.frames import Close
from websockets.http11 import Response

from server.commands.contact import (
    Backoff,
    Destination,
    RefusedError,
    asked_away,
    base_url,
    can_heal,
    first_of,
    keep_contact,
    reason,
)
from server.config import Settings
from tests.board import Board, board, close_with, reserved_port, until


def at_once() -> Backoff:
    return Backoff(draw=lambda low, high: 0.0)


@pytest.mark.parametrize(
    ("base", "channel", "url"),
    [
        ("ws://127.0.0.1:8000", "system", "ws://127.0.0.1:8000/ws/system"),
        ("ws://127.0.0.1:8000/", "a b/c?d#e%ü", "ws://127.0.0.1:8000/ws/a%20b%2Fc%3Fd%23e%25%C3%BC"),
        ("wss://example.com/live/?x=1", "c", "wss://example.com/live/ws/c?x=1"),
        ("ws://[::1]:8000", "..", "ws://[::1]:8000/ws/.."),
    ],
)
def test_a_channel_is_a_path_of_its_server(base: str, channel: str, url: str) -> None:
    assert Destination.of(base, channel, None).url == url


@pytest.mark.parametrize("base", ["", "127.0.0.1:8000", "http://x", "ws://", "ws://x:port", "ws://x#y", "ws://x:99999"])
def test_what_is_no_url_of_a_server_is_refused(base: str) -> None:
    with pytest.raises(ValueError, match="must be a URL such as"):
        Destination.of(base, "c", None)


def test_nothing_secret_is_shown() -> None:
    destination = Destination.of("ws://user:s3cret@example.com/x?token=s3cret", "c", "s3cret")
    assert destination.shown == "ws://example.com/x/ws/c"
    assert "token" not in repr(destination).replace("?token=", "")


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({}, "ws://127.0.0.1:8000"),
        ({"host": "0.0.0.0", "port": 80}, "ws://127.0.0.1:80"),
        ({"host": "::"}, "ws://[::1]:8000"),
        ({"host": "example.com"}, "ws://example.com:8000"),
    ],
)
def test_the_configured_server_is_reached_from_here(values: dict[str, Any], url: str) -> None:
    assert base_url(Settings(**values)) == url


def test_a_server_on_any_port_cannot_be_found() -> None:
    with pytest.raises(ValueError, match="give --url"):
        base_url(Settings(port=0))


def test_backoff_doubles_with_full_jitter_from_half_a_second_to_30() -> None:
    ranges: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        ranges.append((low, high))
        return high

    backoff = Backoff(draw)
    assert [backoff.next() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    backoff.reset()
    assert backoff.next() == 0.5
    assert {low for low, _ in ranges} == {0.0}
    # Asked to stay away for 7 seconds, it comes in the second after them, or in its own time if that is later.
    assert [backoff.next(7.0) for _ in range(6)] == [8, 8, 8, 8, 16, 30]
    assert {low for low, _ in ranges[-6:]} == {7.0}
    assert all(0 <= Backoff().next() <= 0.5 for _ in range(20))


def status(code: int) -> InvalidStatus:
    return InvalidStatus(Response(code, "", Headers()))


def closed(code: int, text: str = "") -> ConnectionClosedError:
    return ConnectionClosedError(Close(code, text), None)


@pytest.mark.parametrize(
    ("error", "heals", "words"),
    [
        (ConnectionRefusedError(111, "Connect call failed"), True, "connection refused"),
        (TimeoutError(), True, "it does not answer"),
        (OSError("Multiple exceptions: a, b"), True, "Multiple exceptions: a, b"),
        (InvalidMessage("did not receive a valid HTTP response"), True, "no WebSocket server answers there"),
        (InvalidUpgrade("Upgrade", "h2c"), False, "invalid Upgrade header: h2c"),
        (status(503), True, "HTTP 503"),
        (status(429), True, "HTTP 429"),
        (status(502), True, "HTTP 502"),
        (status(401), False, "HTTP 401, bad or missing credentials"),
        (status(403), False, "HTTP 403, not allowed"),
        (status(404), False, "HTTP 404, no such path"),
        (status(200), False, "HTTP 200"),
        (closed(1001), True, "closed with 1001"),
        (closed(1011), True, "closed with 1011"),
        (closed(1012, "restart"), True, "closed with 1012, restart"),
        (closed(1013, "too slow"), True, "closed with 1013, too slow"),
        (closed(1008), False, "closed with 1008, not allowed"),
        (closed(1008, "too many messages"), False, "closed with 1008, too many messages"),
        (closed(1009), False, "closed with 1009, larger than the server takes"),
        (closed(3500), False, "closed with 3500"),
        (closed(4000), True, "closed with 4000"),
        (closed(1011, "\x1b[31mred\n\x07é"), True, "closed with 1011, [31mred"),
        (ConnectionClosedOK(Close(1000, ""), Close(1000, ""), True), True, "closed with 1000"),
        (ConnectionClosedError(None, None), True, "closed with 1006, the connection broke off"),
        (ConnectionClosedError(None, Close(1009, "")), False, "closed with 1009, larger than the server takes"),
    ],
)
def test_what_heals_and_what_is_said(error: Exception, heals: bool, words: str) -> None:
    assert can_heal(error) is heals
    assert reason(error) == words


def test_a_certificate_that_is_not_trusted_does_not_heal() -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "self-signed certificate"
    assert not can_heal(error)
    assert reason(error) == "its certificate is not trusted (self-signed certificate)"


async def test_contact_is_kept_over_every_loss_that_heals() -> None:
    said: list[str] = []
    async with board() as server:
        destination = Destination.of(server.url, "c", "t")
        server.statuses = [503, 429]
        server.treatments = [close_with(1013, "too slow"), close_with(1001)]

        async def talk(connection: ClientConnection) -> None:
            await connection.send("hello")
            assert await connection.recv() == "hello"
            await connection.close()

        await keep_contact(destination, talk, said.append, backoff=at_once())
    assert [(visit.path, visit.authorization) for visit in server.visits] == [("/ws/c", "Bearer t")] * 3
    assert server.lines == [b"hello"]
    assert said == [
        f"no contact with {server.url}/ws/c: HTTP 503; trying again",
        f"in contact with {server.url}/ws/c",
        f"lost contact with {server.url}/ws/c: closed with 1013, too slow; trying again",
        f"in contact with {server.url}/ws/c again",
        f"lost contact with {server.url}/ws/c: closed with 1001; trying again",
        f"in contact with {server.url}/ws/c again",
    ]


@pytest.mark.parametrize(("asked", "within"), [(0, 5.0), (400, 5.0)])
async def test_a_server_that_restarts_says_when_to_come_back(asked: int, within: float) -> None:
    def as_late_as_can_be(low: float, high: float) -> float:
        return 60.0

    came: list[float] = []
    clock = asyncio.get_running_loop().time
    async with board() as server, asyncio.timeout(within):
        server.treatments = [close_with(1012, f"reconnect_after_ms={asked}")]

        async def talk(connection: ClientConnection) -> None:
            came.append(clock())
            await connection.send("hello")
            assert await connection.recv() == "hello"
            await connection.close()

        destination = Destination.of(server.url, "c", None)
        await keep_contact(destination, talk, lambda text: None, backoff=Backoff(as_late_as_can_be))
    assert len(came) == 2
    assert came[1] - came[0] >= asked / 1000


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (closed(1012, "reconnect_after_ms=1500"), 1.5),
        (closed(1012, "reconnect_after_ms=999999999"), 300.0),
        (closed(1012, "restart"), None),
        (closed(1001, "server shutting down, reconnect_after_ms=1500"), 1.5),
        (closed(1013, "reconnect_after_ms=1500"), None),
        (closed(1012, "reconnect_after_ms=-1"), None),
        (status(503), None),
        (ConnectionClosedError(None, None), None),
    ],
)
def test_only_a_server_that_goes_says_when(error: Exception, seconds: float | None) -> None:
    assert asked_away(error) == seconds


async def never(connection: ClientConnection) -> None:
    raise AssertionError("there was no contact")


@pytest.mark.parametrize(
    ("code", "words"),
    [(401, "HTTP 401, bad or missing credentials"), (403, "HTTP 403, not allowed"), (404, "HTTP 404, no such path")],
)
async def test_a_refusal_that_cannot_heal_is_the_end(code: int, words: str) -> None:
    said: list[str] = []
    async with board() as server:
        server.statuses = [code]
        with pytest.raises(RefusedError) as caught:
            await keep_contact(Destination.of(server.url, "c", None), never, said.append, backoff=at_once())
    assert str(caught.value) == f"no contact with {server.url}/ws/c: {words}"
    assert said == []


async def test_without_retry_the_first_failure_is_the_end() -> None:
    with reserved_port() as sock:
        server = Board(sock)
        with pytest.raises(RefusedError, match=r"no contact with .*: connection refused$"):
            await keep_contact(Destination.of(server.url, "c", None), never, print, retry=False)


async def test_the_wait_is_cancelled_at_once() -> None:
    with reserved_port() as sock:
        said: list[str] = []
        slow = Backoff(draw=lambda low, high: 3600.0)
        destination = Destination.of(Board(sock).url, "c", None)
        task = asyncio.create_task(keep_contact(destination, never, said.append, backoff=slow))
        await until(lambda: said, "the first failure")
        task.cancel()
        async with asyncio.timeout(20):
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_the_first_of_several_works_ends_the_others() -> None:
    ended: list[str] = []

    async def forever(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async def fail() -> None:
        await asyncio.sleep(0)
        raise OSError("broken")

    async def succeed() -> None:
        await asyncio.sleep(0)

    with pytest.raises(OSError, match="broken"):
        await first_of(forever("a"), fail(), forever("b"))
    assert ended == ["a", "b"]
    # Two in one turn: the earlier counts, and the other's failure is no noise.
    await first_of(succeed(), fail())
    with pytest.raises(OSError, match="broken"):
        await first_of(fail(), succeed())
