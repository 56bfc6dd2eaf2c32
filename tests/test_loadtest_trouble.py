from __future__ import annotations

import _socket
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from loadtest.trouble import (
    SMALL_BUFFER,
    Flapping,
    Slow,
    Stalled,
    Troublemakers,
    cut_off,
    small_receive_buffer,
    unread,
)
from tests.test_loadtest_swarm import turn


class Server:
    """Accepts whoever comes; `open` is what a troublemaker connects with."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.clients: list[socket.socket] = []
        self.refuse = False

    def open(
        self, number: int, done: Callable[[Any, bytes | str], None], prepare: Callable[[Any], None] | None
    ) -> None:
        if self.refuse:
            done(None, "refused")
            return
        sock = _socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if prepare:
            prepare(sock)
        sock.connect(self._listener.getsockname())
        sock.setblocking(False)
        self.clients.append(self._listener.accept()[0])
        done(sock, b"")

    def close(self) -> None:
        for each in (self._listener, *self.clients):
            each.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def test_a_stalled_client_is_seen_once_something_waits_for_it(server: Server) -> None:
    stalled = Stalled()
    stalled.start(3, server.open)
    assert (stalled.observed(), stalled.evicted()) == (0, 0)
    server.clients[0].sendall(b"x")
    turn(lambda: stalled.observed() == 1)
    server.clients[1].close()
    turn(lambda: stalled.evicted() == 1)
    assert stalled.observed() == 2
    stalled.close()
    stalled.close()


def test_a_stalled_client_never_reads(server: Server) -> None:
    stalled = Stalled()
    stalled.start(1, server.open)
    server.clients[0].sendall(b"x" * 100)
    turn(lambda: unread(stalled.sockets[0]) == 100)
    turn()
    assert unread(stalled.sockets[0]) == 100
    stalled.close()


def test_a_slow_client_reads_its_share_and_no_more(server: Server) -> None:
    slow = Slow(bps=400)
    slow.start(1, server.open)
    server.clients[0].sendall(b"x" * 1000)
    turn(lambda: slow.observed() == 1)
    (read,) = slow._read.values()
    assert 0 < read <= 400
    server.clients[0].close()
    turn(lambda: slow.evicted() == 1)
    slow.close()


def test_a_flapping_client_comes_and_goes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtest.trouble.FLAP_LIFE", 0.02)
    flapping = Flapping(100.0)
    assert flapping.asked() == 0
    flapping.start(server.open)
    turn(lambda: flapping.done >= 6)
    flapping.cease()
    asked = flapping.asked()
    turn()
    assert flapping.asked() == asked >= flapping.done
    goodbyes = []
    for client in server.clients:
        client.settimeout(5)
        goodbyes.append(client.recv(100))
    assert {len(each) for each in goodbyes} == {0, 8}, "every other one leaves without a word"


def test_those_who_could_not_connect_are_not_observed(server: Server) -> None:
    server.refuse = True
    stalled, slow, flapping = Stalled(), Slow(10), Flapping(100.0)
    stalled.start(2, server.open)
    slow.start(2, server.open)
    flapping.start(server.open)
    turn(lambda: flapping.failed)
    flapping.cease()
    slow.close()
    assert (stalled.observed(), slow.observed(), flapping.done) == (0, 0, 0)
    assert stalled.failed == slow.failed == ["refused", "refused"]


def test_the_receive_buffer_is_small_and_a_cut_is_seen_without_reading(server: Server) -> None:
    opened: list[Any] = []
    server.open(0, lambda sock, rest: opened.append(sock), small_receive_buffer)
    assert opened[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) <= 2 * SMALL_BUFFER
    assert not cut_off(opened[0])
    server.clients[0].close()
    turn(lambda: cut_off(opened[0]))
    opened[0].close()


def test_all_of_them_together(server: Server) -> None:
    everyone = Troublemakers(stalled=2, slow=1, slow_bps=100, flapping=100.0)
    everyone.start(server.open)
    assert len(server.clients) == 3
    everyone.go(server.open)
    for client in server.clients[:3]:
        client.sendall(b"x" * 50)
    turn(lambda: everyone.seen()["flapping_done"] >= 2 and everyone.seen()["slow_observed"] == 1)
    everyone.cease()
    seen = everyone.seen()
    assert (seen["stalled_observed"], seen["stalled_evicted"], seen["slow_evicted"]) == (2, 0, 0)
    assert seen["flapping_asked"] >= seen["flapping_done"]
    everyone.close()
    everyone.close()


def test_nobody_asked_for_makes_no_trouble(server: Server) -> None:
    nobody = Troublemakers(0, 0, 100, 0.0)
    nobody.start(server.open)
    nobody.go(server.open)
    turn()
    nobody.cease()
    assert (server.clients, set(nobody.seen().values())) == ([], {0})
    nobody.close()
