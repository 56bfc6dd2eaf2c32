"""Both ways to ask the kernel for a connection say the same, and neither takes one for another."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from tests.scenarios.kernel import KernelSocket, _asked_for, _in_the_table, kernel_socket


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection: the server's end, and the client's."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as client,
    ):
        server, _ = listening.accept()
        with server:
            yield server, client


def ports(ends: tuple[socket.socket, socket.socket]) -> tuple[int, int]:
    server, client = ends
    return server.getsockname()[1], client.getsockname()[1]


def test_what_nobody_has_read_is_seen(ends: tuple[socket.socket, socket.socket]) -> None:
    server, client = ends
    client.sendall(b"x" * 1000)
    expected = KernelSocket("ESTABLISHED", 0, 1000, 0, True)
    assert _asked_for(*ports(ends)) == _in_the_table(*ports(ends)) == expected
    server.recv(600)
    assert kernel_socket(*ports(ends)) == KernelSocket("ESTABLISHED", 0, 400, 0, True)


def test_what_nobody_holds_is_seen(ends: tuple[socket.socket, socket.socket]) -> None:
    server, _ = ends
    asked = ports(ends)
    server.close()
    for ask in (_asked_for, _in_the_table, kernel_socket):
        row = ask(*asked)
        assert row is not None
        assert row.state in ("FIN-WAIT-1", "FIN-WAIT-2"), "its peer may not have answered yet"
        assert not row.is_held


def test_what_is_not_there_is_none(ends: tuple[socket.socket, socket.socket]) -> None:
    server, client = ends
    at, port = ports(ends)
    # Who listens is not taken for a connection.
    assert kernel_socket(at, 1) is None
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    server.close()
    assert kernel_socket(at, port) is None


def test_another_address_is_found_too() -> None:
    with (
        socket.create_server(("127.0.0.2", 0)) as listening,
        socket.create_connection(listening.getsockname()) as client,
    ):
        server, _ = listening.accept()
        with server:
            row = kernel_socket(listening.getsockname()[1], client.getsockname()[1])
            assert row == KernelSocket("ESTABLISHED", 0, 0, 0, True)
