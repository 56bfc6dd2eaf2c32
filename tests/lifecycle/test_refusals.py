"""What is refused, and how: before the upgrade with HTTP, after it with a close code; and the others do not notice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from struct import pack

import pytest

from tests.harness import Server, serve
from tests.lifecycle.asking import Talk, ask, hears_itself, talk
from tests.wire import BINARY, CLOSE, CONT, PING, PONG, TEXT, close, frame, request, text

HOST = "Host: 127.0.0.1:8000"
UPGRADE = request().partition(b"\r\n")[2]  # all of a handshake but its first line
LARGEST = 65536


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve("--log-level", "debug") as running:
        yield running


@pytest.fixture(scope="module")
def bystander(server: Server) -> Iterator[Talk]:
    """A client who is connected all the while, on a channel that nobody else is on."""
    with talk(server, "/ws/bystander") as client:
        yield client


@pytest.fixture(autouse=True)
def _harms_nobody(server: Server, bystander: Talk) -> Iterator[None]:
    yield
    assert hears_itself(bystander, os.urandom(8).hex().encode())
    assert "Traceback" not in server.log_text()
    assert 'level":"error' not in server.log_text()


def rejections(server: Server) -> dict[str, float]:
    prefix = "stentor_connections_rejected_total"
    return {key: value for key, value in server.metrics().items() if key.startswith(prefix) and value}


def plain(method: str, path: str, *fields: str) -> bytes:
    """Write a request that is no handshake."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", HOST, *fields, "", ""]).encode()


# id: (request, status, reason in the metric, or none when it is no refusal)
REQUESTS: dict[str, tuple[bytes, int, str]] = {
    "an unknown path": (request("/nope"), 404, "not_found"),
    "a channel without a name": (request("/ws/"), 404, "not_found"),
    "a path under the echo": (request("/echo/a"), 404, "not_found"),
    "the metrics": (plain("GET", "/metrics"), 404, "not_found"),
    "the server API": (plain("POST", "/api/publish", "Content-Length: 0"), 404, "not_found"),
    "a name that is not UTF-8": (request("/ws/%ff"), 400, "bad_request"),
    "a name with a control": (request("/ws/a%00b"), 400, "bad_request"),
    "a name with a line end": (request("/ws/a%0d%0ab"), 400, "bad_request"),
    "a name with a space": (request("/ws/a%20b"), 400, "bad_request"),
    "a name that is too long": (request("/ws/" + "a" * 129), 400, "bad_request"),
    "a page of elsewhere": (request("/ws", "Origin: http://evil.example"), 403, "origin"),
    "this page, but another port": (request("/ws", "Origin: http://127.0.0.1:8001"), 403, "origin"),
    "this page, but another scheme": (request("/ws", "Origin: ftp://127.0.0.1:8000"), 403, "origin"),
    "a name that starts like ours": (request("/ws", "Origin: http://127.0.0.1:8000.evil.example"), 403, "origin"),
    "a name that ends like ours": (request("/ws", "Origin: http://evil127.0.0.1:8000"), 403, "origin"),
    "ours as the user of another": (request("/ws", "Origin: http://127.0.0.1:8000@evil.example"), 403, "origin"),
    "ours with a path": (request("/ws", "Origin: http://127.0.0.1:8000/"), 403, "origin"),
    "ours in capitals": (request("/ws", "Origin: HTTP://127.0.0.1:8000"), 403, "origin"),
    "the origin null": (request("/ws", "Origin: null"), 403, "origin"),
    "an empty origin": (request("/ws", "Origin: "), 403, "origin"),
    "two origins": (request("/ws", "Origin: http://127.0.0.1:8000", "Origin: http://127.0.0.1:8000"), 403, "origin"),
    "two origins in one": (request("/ws", "Origin: http://127.0.0.1:8000, http://evil.example"), 403, "origin"),
    "the echo for elsewhere": (request("/echo", "Origin: http://evil.example"), 403, "origin"),
    "no host": (request(host=None), 400, "bad_request"),
    "two hosts": (request("/ws", "Host: evil.example"), 400, "bad_request"),
    "a handshake by POST": (request(method="POST"), 405, "bad_request"),
    "a handshake by HEAD": (request(method="HEAD"), 405, "bad_request"),
    "a page by POST": (plain("POST", "/", "Content-Length: 0"), 405, "bad_request"),
    "a page by DELETE": (plain("DELETE", "/"), 405, "bad_request"),
    "HTTP/1.0": (b"GET /ws HTTP/1.0\r\n" + UPGRADE, 505, "bad_request"),
    "HTTP/2.0": (b"GET /ws HTTP/2.0\r\n" + UPGRADE, 400, "bad_request"),
    "HTTP/2 with prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "bad_request"),
    # No proxy stands in front of it that would ask so; nothing is gained by serving it.
    "an absolute URI": (b"GET http://127.0.0.1:8000/ws HTTP/1.1\r\n" + UPGRADE, 404, "not_found"),
    "a tunnel": (plain("CONNECT", "evil.example:443"), 404, "not_found"),
    "OPTIONS": (plain("OPTIONS", "*"), 404, "not_found"),
    "no upgrade": (plain("GET", "/ws"), 426, "bad_request"),
    "an upgrade to HTTP/2": (plain("GET", "/ws", "Connection: Upgrade", "Upgrade: h2c"), 426, "bad_request"),
    "an old version": (request().replace(b"Version: 13", b"Version: 8"), 400, "bad_request"),
    "no key": (request().replace(b"Sec-WebSocket-Key", b"X-Key"), 400, "bad_request"),
    "a key that is none": (request().replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"AAAA"), 400, "bad_request"),
    "two keys": (request("/ws", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="), 400, "bad_request"),
    "a transfer coding": (request("/ws", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400, "bad_request"),
    "a body": (request("/ws", "Content-Length: 5") + b"hello", 400, "bad_request"),
    "a body on the page": (plain("POST", "/", "Content-Length: 5") + b"hello", 400, "bad_request"),
    "a length that is none": (request("/ws", "Content-Length: -1"), 400, "bad_request"),
    "two lengths": (request("/ws", "Content-Length: 0", "Content-Length: 9"), 400, "bad_request"),
    "a folded header": (request("/ws", "X-Folded: a", " b"), 400, "bad_request"),
    "a space before the colon": (request("/ws", "X-Spaced : a"), 400, "bad_request"),
    "a header without a colon": (request("/ws", "nonsense"), 400, "bad_request"),
    "line ends without a return": (request().replace(b"\r\n", b"\n"), 400, "bad_request"),
    "a path that is not ASCII": ("GET /ws/grüße HTTP/1.1\r\n".encode() + UPGRADE, 400, "bad_request"),
    "a greeting in TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "bad_request"),
    "nothing but a line end": (b"\r\n\r\n", 400, "bad_request"),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_a_request_that_is_refused(server: Server, case: str) -> None:
    words, status, reason = REQUESTS[case]
    before = rejections(server)
    got = ask(server.port, words)
    assert got.status == status
    assert got.fields["connection"] == "close"
    assert int(got.fields["content-length"]) == len(got.body)
    assert b"evil" not in got.body, "nothing of the request is in the answer"
    key = f'stentor_connections_rejected_total{{reason="{reason}"}}'
    assert rejections(server) == before | {key: before.get(key, 0) + 1}


WELCOME: dict[str, tuple[bytes, int]] = {
    "a handshake": (request(), 101),
    "a program, which has no origin": (request("/ws/a"), 101),
    "this very page": (request("/ws", "Origin: http://127.0.0.1:8000"), 101),
    "this very page behind a proxy with TLS": (request("/ws", "Origin: https://127.0.0.1:8000"), 101),
    "a length of zero": (request("/ws", "Content-Length: 0"), 101),
    "a query": (request("/ws/a?b=c"), 101),
    "a name as long as may be": (request("/ws/" + "a" * 128), 101),
    "a subprotocol and an extension that nobody knows": (
        request("/ws", "Sec-WebSocket-Protocol: a, b", "Sec-WebSocket-Extensions: permessage-deflate; a=1"),
        101,
    ),
    "the page": (plain("GET", "/"), 200),
    "the head of the page": (plain("HEAD", "/"), 200),
    "the health check": (plain("GET", "/healthz"), 200),
    "the health check of an old balancer": (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
}


@pytest.mark.parametrize("case", WELCOME)
def test_a_request_that_is_answered(server: Server, case: str) -> None:
    words, status = WELCOME[case]
    before = rejections(server)
    got = ask(server.port, words)
    assert got.status == status
    assert rejections(server) == before
    if status == 101:
        assert "sec-websocket-extensions" not in got.fields
        assert "sec-websocket-protocol" not in got.fields


@pytest.mark.parametrize(
    ("allowed", "let_in"),
    [
        ("*", {"https://app.example.com", "https://example.com", "https://example.org", "null"}),
        ("https://*.example.com", {"https://app.example.com"}),
        ("https://example.com", {"https://example.com"}),
    ],
)
def test_other_origins_are_let_in_when_they_are_allowed(allowed: str, let_in: set[str]) -> None:
    origins = ("https://app.example.com", "https://example.com", "https://example.org", "null")
    with serve("--allowed-origins", allowed) as server:
        statuses = {origin: ask(server.port, request("/ws", f"Origin: {origin}")).status for origin in origins}
    assert statuses == {origin: 101 if origin in let_in else 403 for origin in origins}


def declared(size: int) -> bytes:
    """Write the head of a frame of `size` bytes, and not one of them."""
    return pack("!BBQ", 0x80 | BINARY, 0x80 | 127, size) + bytes(4)


# id: (frames, close code)
FRAMES: dict[str, tuple[bytes, int]] = {
    "a message one byte too large": (frame(BINARY, bytes(LARGEST + 1)), 1009),
    "a message declared one byte too large": (declared(LARGEST + 1), 1009),
    "2^31 bytes declared": (declared(2**31), 1009),
    "2^63 - 1 bytes declared": (declared(2**63 - 1), 1009),
    "2^64 - 1 bytes declared": (declared(2**64 - 1), 1009),
    "fragments too large together": (frame(TEXT, b"a" * LARGEST, fin=False) + frame(CONT, b"a"), 1009),
    "too many fragments": (frame(TEXT, b"", fin=False) + frame(CONT, b"", fin=False) * 5000, 1009),
    "no mask": (frame(TEXT, b"hello", mask=None), 1002),
    "a reserved bit": (frame(TEXT, b"hello", rsv=4), 1002),
    "a reserved opcode": (frame(0x3, b"hello"), 1002),
    "a reserved control opcode": (frame(0xB, b""), 1002),
    "a ping in fragments": (frame(PING, b"", fin=False), 1002),
    "a ping that is too long": (frame(PING, bytes(126)), 1002),
    "a pong that is too long": (frame(PONG, bytes(126)), 1002),
    "a continuation of nothing": (frame(CONT, b"hello"), 1002),
    "a message inside another": (frame(TEXT, b"a", fin=False) + text("b"), 1002),
    "a close frame of one byte": (frame(CLOSE, b"\x03"), 1002),
    "a close code that nobody may send": (close(1005), 1002),
    "a close code out of range": (close(5000), 1002),
    "a close reason that is not UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    "text that is not UTF-8": (frame(TEXT, b"caf\xe9"), 1007),
    "text that is cut off": (frame(TEXT, "é".encode()[:1]), 1007),
    "half a surrogate pair": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "fragments that are not UTF-8": (frame(TEXT, b"a\xff", fin=False) + frame(CONT, b"b"), 1007),
    "a flood of messages": (text("hello") * 1500, 1008),
    "a flood of pings": (frame(PING, b"") * 20_000, 1008),
}


@pytest.mark.parametrize("path", ["/ws/victim", "/echo"])
@pytest.mark.parametrize("case", FRAMES)
def test_frames_that_end_it(server: Server, case: str, path: str) -> None:
    words, code = FRAMES[case]
    with talk(server, path) as client:
        client.send(words)
        said = client.read_until_closed()
    assert said.code == code
    assert len(said.payload) <= 125


@pytest.mark.parametrize("path", ["/ws/victim", "/echo"])
def test_what_is_just_within_the_limits_passes(server: Server, path: str) -> None:
    with talk(server, path) as client:
        for words in (
            frame(BINARY, bytes(LARGEST)),
            frame(TEXT, b"a" * (LARGEST - 1), fin=False) + frame(CONT, b"a"),
            frame(TEXT, "é".encode()[:1], fin=False) + frame(CONT, "é".encode()[1:]),
        ):
            client.send(words)
            assert len(client.read().payload) in (LARGEST, 2)
        client.send(frame(PING, bytes(125)) + close(4000, "well"))
        assert client.read() == (PONG, bytes(125))
        assert client.read_until_closed().code == 4000


def test_nothing_of_a_broken_message_is_published(server: Server) -> None:
    with talk(server, "/ws/broken") as listener:
        for case, (words, _) in FRAMES.items():
            if "flood" in case:
                continue
            with talk(server, "/ws/broken") as client:
                client.send(words)
                client.read_until_closed()
        listener.send(text("the first that is heard"))
        assert listener.read().payload == b"the first that is heard"
