"""What goes out to one client: bounded answers, the outbox in portions, and nothing into a transport that closes."""

from __future__ import annotations

import socket
from struct import pack
from typing import Any

import pytest

from server.core.lag import LagLimits, LagPolicy
from server.edge.outlet import DRAIN_BYTES
from tests import wire
from tests.fakes import Transport
from tests.house import House, house


def say(home: House, *words: str) -> None:
    """Publish texts and let them go out."""
    for text in words:
        home.publish("main", wire.frame(wire.TEXT, text.encode(), mask=None))
    home.loop.settle()


# Pings from the client. RFC 6455, section 5.5.2


def test_a_ping_is_answered_at_once() -> None:
    home = house()
    connection, transport = home.open()
    connection.data_received(wire.frame(wire.PING) + wire.frame(wire.PING, b"x" * 125))
    assert wire.read(transport.take()) == [(wire.PONG, b""), (wire.PONG, b"x" * 125)]


def test_to_a_client_that_does_not_read_only_the_newest_pong_is_owed() -> None:
    home = house()
    connection, transport = home.open()
    transport.stall()
    say(home, "fills the socket")
    assert connection.paused
    held = connection.unsent_bytes
    for number in range(1000):
        connection.data_received(wire.frame(wire.PING, b"%d" % number))
    assert connection.unsent_bytes == held, "a flood of pings costs us nothing"
    transport.drain()
    assert wire.read(transport.take()) == [(wire.TEXT, b"fills the socket"), (wire.PONG, b"999")]
    connection.data_received(wire.frame(wire.PING, b"again"))
    assert wire.read(transport.take()) == [(wire.PONG, b"again")]


def test_an_owed_pong_comes_before_what_is_queued() -> None:
    home = house()
    connection, transport = home.open()
    transport.stall()
    say(home, "a", "b")
    say(home, "queued")
    connection.data_received(wire.frame(wire.PING, b"p"))
    transport.drain()
    assert wire.read(transport.take()) == [
        (wire.TEXT, b"a"),
        (wire.TEXT, b"b"),
        (wire.PONG, b"p"),
        (wire.TEXT, b"queued"),
    ]


def test_no_pong_is_owed_once_the_client_has_closed() -> None:
    home = house()
    connection, transport = home.open()
    transport.stall()
    say(home, "a")
    connection.data_received(wire.frame(wire.PING, b"p"))
    connection.data_received(wire.close(1000))
    transport.drain()
    assert wire.read(transport.take()) == [(wire.TEXT, b"a"), (wire.CLOSE, b"\x03\xe8")]


def test_nor_when_it_pings_between_our_close_frame_and_its_answer() -> None:
    home = house()
    connection, transport = home.open()
    transport.stall()
    say(home, "a")
    connection.close(1008, "")
    connection.data_received(wire.frame(wire.PING, b"p"))
    connection.data_received(wire.close(1008))
    transport.drain()
    assert wire.read(transport.take()) == [(wire.TEXT, b"a"), (wire.CLOSE, b"\x03\xf0")]


# The outbox


def test_a_client_that_reads_a_little_is_written_a_little() -> None:
    home = house(LagLimits(LagPolicy.DROP_OLDEST, messages=10_000, bytes=1 << 30))
    connection, transport = home.open()
    transport.stall()
    words = [f"{number:05d}" + "x" * 2000 for number in range(200)]
    for text in words:
        say(home, text)
        assert connection.unsent_bytes <= DRAIN_BYTES + 3000, "what is not in the outbox is one write at most"
    while connection.paused:
        transport.drain(7777)
        assert connection.unsent_bytes <= DRAIN_BYTES + 3000
    assert wire.texts(transport.take()) == words
    home.assert_balanced()


# Dropped


class Socket:
    """Notes what is asked of it, unless it `has_gone`."""

    def __init__(self, *, has_gone: bool = False) -> None:
        self.has_gone = has_gone
        self.options: list[tuple[int, int, bytes]] = []

    def setsockopt(self, level: int, name: int, value: bytes) -> None:
        if self.has_gone:
            raise OSError("bad file descriptor")
        self.options.append((level, name, value))


RESET = [(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))]


@pytest.mark.parametrize(
    ("unsent", "is_closing", "options"),
    [(False, False, RESET), (True, False, RESET), (True, True, RESET), (False, True, [])],
)
def test_what_is_unsent_when_a_client_is_dropped_the_kernel_does_not_keep(
    monkeypatch: pytest.MonkeyPatch, *, unsent: bool, is_closing: bool, options: list[Any]
) -> None:
    sock = Socket()
    ask = Transport.get_extra_info
    monkeypatch.setattr(Transport, "get_extra_info", lambda *name: sock if name[1] == "socket" else ask(*name))
    home = house()
    connection, transport = home.open()
    if unsent:
        transport.stall()
        say(home, "stays")
    if is_closing:
        transport.close()
    connection.abort("")
    assert (transport.is_aborted, sock.options) == (True, options)
    sock.has_gone = True
    connection.abort("")
