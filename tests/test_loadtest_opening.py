from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from loadtest.centrifuge import CentrifugeDialect
from loadtest.dialect import Introduction, RawDialect
from loadtest.opening import Opener, Route, reason_of, resolve
from tests.test_loadtest_protocol import accepted
from tests.test_loadtest_swarm import turn

DIALECT = RawDialect("ws://127.0.0.1:1/ws/{channel}")


class Acceptor:
    """A server that answers handshakes as it is told."""

    def __init__(
        self, answer: Callable[[bytes], bytes | None], commands: Callable[[bytes], bytes] | None = None
    ) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.address = self.listener.getsockname()
        self._answer, self._commands = answer, commands
        self._clients: list[socket.socket] = []
        self.most = 0
        self._loop = gevent.spawn(self._run)

    def _run(self) -> None:
        while True:
            gevent.sleep(0.001)
            try:
                client, _ = self.listener.accept()
            except BlockingIOError:
                continue
            client.settimeout(5)
            self._clients.append(client)
            self.most = max(self.most, len(self._clients))
            gevent.sleep(0.002)
            answer = self._answer(client.recv(4096))
            if answer is not None:
                client.sendall(answer)
            if self._commands is not None:
                client.setblocking(False)
                gevent.spawn(self._converse, client, self._commands)

    def _converse(self, client: socket.socket, commands: Callable[[bytes], bytes]) -> None:
        with gevent.Timeout(20):
            while True:
                try:
                    client.send(commands(client.recv(4096)))
                    return
                except BlockingIOError:
                    gevent.sleep(0.001)

    def close(self) -> None:
        self._loop.kill()
        for each in (self.listener, *self._clients):
            each.close()


def attempt(acceptor: Acceptor, count: int = 1, **options: Any) -> tuple[Opener, list[tuple[Any, bytes | str]]]:
    opener, route = Opener(**options), Route(acceptor.address, socket.AF_INET)
    outcomes: list[tuple[Any, bytes | str]] = []
    dialect = RawDialect(f"ws://127.0.0.1:{acceptor.address[1]}/ws/{{channel}}")
    for _ in range(count):
        opener.open(route, Introduction(dialect, ["a"]), lambda sock, outcome: outcomes.append((sock, outcome)))
    return opener, outcomes


def test_connections_are_opened_a_bounded_number_at_a_time() -> None:
    acceptor = Acceptor(lambda request: accepted(request) + b"\x81\x01x")
    opener, outcomes = attempt(acceptor, count=10, max_opening=3)
    assert opener.pending == 10
    turn(lambda: len(outcomes) == 10)
    assert {outcome for _, outcome in outcomes} == {b"\x81\x01x"}
    assert opener.handshakes.count == opener.fresh.count == 10
    assert opener.first_ns is not None
    assert opener.last_ns is not None
    assert opener.last_ns > opener.first_ns
    assert opener.pending == 0
    for sock, _ in outcomes:
        sock.close()
    opener.abandon()
    acceptor.close()


def test_a_client_of_the_centrifuge_dialect_is_open_when_it_has_its_answers() -> None:
    acceptor = Acceptor(
        accepted, commands=lambda frame: b"\x81\x21" + b'{"id":1,"connect":{"client":"c"}}' + b"\x89\x00"
    )
    dialect = CentrifugeDialect(f"ws://127.0.0.1:{acceptor.address[1]}/connection/websocket")
    opener, route = Opener(), Route(acceptor.address, socket.AF_INET)
    outcomes: list[tuple[Any, bytes | str]] = []
    opener.open(route, Introduction(dialect, [], listens=False), lambda sock, outcome: outcomes.append((sock, outcome)))
    turn(lambda: outcomes)
    assert outcomes[0][1] == b"\x89\x00"
    outcomes[0][0].close()
    opener.abandon()
    acceptor.close()


@pytest.mark.parametrize(
    ("answer", "why"),
    [(b"HTTP/1.1 503 Full\r\n\r\n", "HTTP 503"), (b"220 mail ESMTP\r\n", "not an HTTP server")],
)
def test_a_refusal_is_a_reason(answer: bytes, why: str) -> None:
    acceptor = Acceptor(lambda request: answer)
    opener, outcomes = attempt(acceptor)
    turn(lambda: outcomes)
    assert outcomes[0][0] is None
    assert str(outcomes[0][1]).startswith(why)
    opener.abandon()
    acceptor.close()


def test_nobody_listening_is_refused() -> None:
    acceptor = Acceptor(lambda request: None)
    acceptor.close()
    opener, outcomes = attempt(acceptor)
    turn(lambda: outcomes)
    assert outcomes == [(None, "refused")]
    opener.abandon()


def test_no_answer_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtest.opening.OPEN_TIMEOUT", 0.05)
    acceptor = Acceptor(lambda request: None)
    opener, outcomes = attempt(acceptor)
    turn(lambda: outcomes)
    assert outcomes == [(None, "timeout")]
    opener.abandon()
    acceptor.close()


def test_abandoned_attempts_are_not_heard_of_again() -> None:
    acceptor = Acceptor(lambda request: None)
    opener, outcomes = attempt(acceptor, count=5, max_opening=2)
    turn()
    opener.abandon()
    opener.abandon()
    assert (opener.pending, outcomes) == (0, [])
    acceptor.close()


def test_another_local_address_is_used_when_the_ports_of_one_are_used_up() -> None:
    route = Route(("127.0.0.1", 1), socket.AF_INET)
    assert route.exhausted()
    with socket.socket() as sock:
        route.bind(sock)
        assert sock.getsockname()[0] == "127.0.0.2"
    assert not Route(("192.0.2.1", 1), socket.AF_INET).exhausted(), "only loopback has more than one"


def test_errors_have_short_names() -> None:
    assert reason_of(OSError(errno.ECONNREFUSED, "")) == "refused"
    assert reason_of(OSError(errno.EMFILE, "")) == "too many open files"
    assert reason_of(OSError(errno.ENETUNREACH, "")) == "network is unreachable"
    assert reason_of(OSError("what")) == "what"


def test_a_name_is_resolved() -> None:
    assert resolve(DIALECT.target(["a"])) == (("127.0.0.1", 1), socket.AF_INET)


def test_of_several_addresses_the_one_is_taken_where_somebody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))
            for host in ("127.0.0.9", "127.0.0.1", "127.0.0.8")
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        assert resolve(DIALECT.target(["a"]))[0] == ("127.0.0.1", port)
    assert resolve(DIALECT.target(["a"]))[0] == ("127.0.0.9", port)
