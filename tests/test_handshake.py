"""The opening handshake: what is agreed to, what is refused and how, and how much a stranger may say. RFC 6455, 4.2."""

from __future__ import annotations

import pytest

from server.edge.handshake import MAX_REQUEST_BYTES
from tests import wire
from tests.house import house


def test_a_handshake_is_answered_and_puts_the_client_on_its_channel() -> None:
    home = house()
    connection, transport = home.accept()
    connection.data_received(wire.request("/ws/news"))
    answer = wire.answer(transport.take())
    assert answer.status == 101
    assert answer.fields["sec-websocket-accept"] == wire.ACCEPT
    assert answer.fields["upgrade"] == "websocket"
    assert "sec-websocket-extensions" not in answer.fields
    assert connection.is_open
    assert list(home.node.audiences) == ["news"]
    assert (home.gate.open, home.counters.opened, home.listener.open_by_dialect["raw"]) == (1, 1, 1)


def test_a_handshake_may_come_a_byte_at_a_time() -> None:
    home = house()
    connection, transport = home.accept()
    request = wire.request("/ws")
    for index in range(len(request) - 1):
        connection.data_received(request[index : index + 1])
        assert transport.writes == []
    connection.data_received(request[-1:])
    assert wire.answer(transport.take()).status == 101


@pytest.mark.parametrize(
    "early",
    [
        wire.text("early"),
        wire.frame(wire.PING),
        wire.close(),
        wire.frame(wire.TEXT, b"x", mask=None),
        b"GET / HTTP/1.1\r\n",
    ],
    ids=["text", "ping", "close", "unmasked", "HTTP"],
)
def test_nobody_speaks_before_the_handshake_is_answered(early: bytes) -> None:
    home = house()
    connection, transport = home.accept()
    connection.data_received(wire.request() + early)
    assert transport.is_aborted
    assert transport.writes == []
    assert not connection.is_open
    transport.lose()
    assert (home.gate.open, home.counters.opened, home.listener.connections) == (0, 0, {})


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (wire.request("/nothing"), 404),
        (wire.request("/ws", "Origin: https://evil.example"), 403),
        (wire.request("/ws", method="HEAD"), 405),
        (b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n", 426),
        (wire.request("/ws").replace(b"Version: 13", b"Version: 8"), 400),
        (wire.request("/ws").replace(wire.KEY.encode(), b"short"), 400),
        (b"GET /ws HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /ws HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"GET /ws HTTP/2.0\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400),  # TLS to a plain port
        (b"POST /ws HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"\r\n", 400),
    ],
)
def test_what_is_no_handshake_is_answered_and_hung_up_on(request_bytes: bytes, status: int) -> None:
    home = house()
    connection, transport = home.accept()
    connection.data_received(request_bytes)
    assert wire.answer(transport.take()).status == status
    assert transport.has_ended
    assert sum(home.counters.rejected.values()) == 1
    # Whatever comes now is not looked at, and whoever does not hang up is hung up on.
    connection.data_received(b"more\r\n\r\n")
    assert transport.take() == b""
    assert sum(home.counters.rejected.values()) == 1
    home.tick(5.0)
    assert transport.is_aborted
    transport.lose()
    assert (home.gate.open, home.listener.connections, len(home.listener.recorder)) == (0, {}, 0)


def test_a_request_has_a_ceiling_of_its_own() -> None:
    home = house()
    connection, transport = home.accept()
    line = b"X: " + b"x" * 4091 + b"\r\n"
    connection.data_received(b"GET /ws HTTP/1.1\r\n")
    for _ in range(MAX_REQUEST_BYTES // len(line) - 1):
        connection.data_received(line)
        assert transport.writes == []
    connection.data_received(line)
    connection.data_received(line)
    assert wire.answer(transport.take()).status == 431
    assert home.counters.rejected == {"bad_request": 1}
    connection.data_received(line)
    assert transport.take() == b""


def test_a_request_that_ends_beyond_its_ceiling_is_none() -> None:
    home = house()
    line = "X: " + "x" * 2000
    request = wire.request("/ws", *[line] * (MAX_REQUEST_BYTES // len(line)), "Y: " + "y" * 2000)
    assert MAX_REQUEST_BYTES < len(request) < MAX_REQUEST_BYTES + 4096
    connection, transport = home.accept()
    connection.data_received(request)
    assert wire.answer(transport.take()).status == 431
    assert not connection.is_open


def test_who_does_not_finish_the_handshake_in_time_is_dropped() -> None:
    home = house(open_timeout=5.0)
    connection, transport = home.accept()
    connection.data_received(b"GET /ws HTTP/1.1\r\n")
    home.tick(4.9)
    connection.data_received(b"Host: a\r\n")
    assert not transport.is_aborted
    home.tick(0.2)
    assert transport.is_aborted


def test_a_client_that_leaves_before_its_handshake_was_never_here() -> None:
    home = house()
    connection, transport = home.accept()
    connection.data_received(b"GET /ws")
    connection.eof_received()
    transport.lose()
    assert home.listener.connections == {}
    assert (home.counters.opened, home.counters.closed) == (0, {})
    home.tick(60.0)
