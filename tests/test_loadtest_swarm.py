"""The swarm on real sockets: one end of a socket pair plays the server, byte by byte."""

from __future__ import annotations

import _socket
import errno
import socket
from collections.abc import Callable, Iterator

import gevent
import pytest

from loadtest.dialect import RawDialect
from loadtest.ledger import Audience, Entry, Memory, settle
from loadtest.payload import Stream
from loadtest.protocol import TEXT, header, read_frame
from loadtest.swarm import Connection, Swarm
from tests.test_loadtest_protocol import unmasked

SIZE = 64
DIALECT = RawDialect("ws://127.0.0.1:1/ws/{channel}")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now


class Bench:
    """A swarm, and the server's ends of its connections."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.swarm = Swarm(DIALECT, self.clock)
        self.audience = Audience((0,), [Stream("ab12", 0, 0, SIZE)], DIALECT.layout(SIZE, str), Memory())
        self.closed: list[int] = []
        self._ends: list[socket.socket] = []

    def connect(self, rest: bytes = b"") -> tuple[Connection, socket.socket]:
        ours, theirs = socket.socketpair()
        self._ends.append(theirs)
        sock = _socket.socket(fileno=ours.detach())
        sock.setblocking(False)
        entry = Entry(self.audience, late=False)
        return self.swarm.adopt(sock, entry, rest, lambda connection, code: self.closed.append(code)), theirs

    def close(self) -> None:
        self.swarm.close()
        for end in self._ends:
            end.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def turn(until: Callable[[], object] | None = None) -> None:
    """Let the hub run until the condition holds, or for two of its turns."""
    if until is None:
        gevent.sleep(0.002)
        gevent.sleep(0.002)
        return
    with gevent.Timeout(20):
        while not until():
            gevent.sleep(0.001)


def frame(sequence: int, stamp: int = 0) -> bytes:
    return header(TEXT, SIZE) + Stream("ab12", 0, 0, SIZE).payload(sequence, stamp)


def frames(first: int, last: int, stamp: int = 0) -> bytes:
    return b"".join(frame(sequence, stamp) for sequence in range(first, last + 1))


def test_frames_are_counted_and_checked_however_they_are_cut(bench: Bench) -> None:
    connection, server = bench.connect()
    wire = frames(1, 20)
    for start in range(0, len(wire), 37):
        server.sendall(wire[start : start + 37])
        turn()
    turn(lambda: connection.entry.delivered() == 20)
    assert bench.swarm.second.delivered == 20
    assert connection.entry.is_clean
    assert connection.tail == b""


def test_the_same_bytes_on_many_connections_are_checked_once_and_compared_on_the_others(bench: Bench) -> None:
    connections = [bench.connect() for _ in range(10)]
    parsed: list[int] = []
    run = bench.audience.run
    Audience.run = lambda self, position, data, start=0: (parsed.append(len(data)), run(position, data, start))[1]  # type: ignore[method-assign, assignment, return-value]
    try:
        for _, server in connections:
            server.sendall(frames(1, 50))
            turn()
        turn(lambda: all(connection.entry.delivered() == 50 for connection, _ in connections))
    finally:
        Audience.run = run.__func__  # type: ignore[method-assign]
    assert len(parsed) == 1
    assert bench.swarm.second.delivered == 500


def test_what_came_with_the_handshake_is_received(bench: Bench) -> None:
    connection, server = bench.connect(rest=frames(1, 2) + frame(3)[:10])
    server.sendall(frame(3)[10:])
    turn(lambda: connection.entry.delivered() == 3)
    assert connection.entry.is_clean


def test_a_message_in_fragments_with_a_ping_between_is_one_delivery(bench: Bench) -> None:
    connection, server = bench.connect()
    payload = frame(1)[2:]
    server.sendall(b"\x01\x0a" + payload[:10] + b"\x89\x01p" + b"\x00\x0a" + payload[10:20])
    server.sendall(header(0, 44) + payload[20:] + frame(2))
    turn(lambda: connection.entry.delivered() == 2)
    assert connection.entry.is_clean
    assert unmasked(server.recv(100)) == b"p"


def test_a_ping_is_answered_and_a_pong_is_not(bench: Bench) -> None:
    connection, server = bench.connect()
    server.sendall(b"\x89\x04beat" + b"\x8a\x00" + frame(1) + b"\x89\x00")
    turn(lambda: connection.entry.delivered() == 1)
    first = server.recv(10)
    assert (first[:2], unmasked(first)) == (b"\x8a\x84", b"beat")
    assert server.recv(100)[:2] == b"\x8a\x80"


def test_a_close_frame_is_answered_and_counted_by_its_code(bench: Bench) -> None:
    connection, server = bench.connect()
    server.sendall(frame(1) + b"\x88\x02\x03\xf5" + frame(2))
    turn(lambda: connection.closed)
    assert (bench.closed, dict(bench.swarm.closes)) == ([1013], {1013: 1})
    answer = server.recv(100)
    assert (answer[:2], unmasked(answer)) == (b"\x88\x82", b"\x03\xf5")
    assert server.recv(100) == b""
    sums = settle(connection.entry, [3])[0]
    assert (sums.delivered, sums.declared) == (1, 2), "what comes after a close frame does not count"
    assert bench.swarm.connections == set()


@pytest.mark.parametrize("how", ["end", "reset"])
def test_an_end_without_a_close_frame_is_1006(bench: Bench, how: str) -> None:
    connection, server = bench.connect()
    if how == "reset":
        connection.recv_into = _raise_reset
        server.sendall(b"x")
    else:
        server.close()
    turn(lambda: connection.closed)
    assert (bench.closed, dict(bench.swarm.closes)) == ([1006], {1006: 1})


def _raise_reset(buffer: object) -> int:
    raise ConnectionResetError(errno.ECONNRESET, "reset")


@pytest.mark.parametrize("wrong", [b"\xc1\x00", b"\x80\x02lo", b"\x01\x01a\x01\x01b"])
def test_a_server_that_breaks_the_protocol_is_left_with_1002(bench: Bench, wrong: bytes) -> None:
    connection, server = bench.connect()
    server.sendall(frame(1) + wrong)
    turn(lambda: connection.closed)
    assert bench.closed == [1002]
    assert settle(connection.entry, [1])[0].unexpected == 1
    assert unmasked(server.recv(100)) == b"\x03\xea"


def test_whoever_leaves_says_so_and_is_not_counted_as_closed(bench: Bench) -> None:
    connection, server = bench.connect()
    bench.swarm.leave(connection)
    bench.swarm.leave(connection)
    bench.swarm.drop(connection, 1006)
    assert unmasked(server.recv(100)) == b"\x03\xe8"
    assert (bench.closed, dict(bench.swarm.closes)) == ([], {})
    assert bench.swarm.send(connection, b"x") == 0


def test_what_the_kernel_does_not_take_waits_and_goes_out_in_order(bench: Bench) -> None:
    connection, server = bench.connect()
    sent = [bytes([65 + number]) * 400_000 for number in range(5)]
    for data in sent:
        bench.swarm.send(connection, data)
    assert connection.outgoing
    server.setblocking(False)
    received = bytearray()

    def drained() -> bool:
        try:
            received.extend(server.recv(1 << 20))
        except BlockingIOError:
            pass
        return len(received) == 2_000_000

    turn(drained)
    assert bytes(received) == b"".join(sent)
    assert connection.writer is None


def test_every_delivery_is_timed_or_every_nth_and_the_worst_always(bench: Bench) -> None:
    connection, server = bench.connect()
    bench.swarm.begin(bench.clock.now, 3, timing=True)
    bench.clock.now += 5_000
    server.sendall(frames(1, 10, stamp=bench.clock.now - 1_000))
    turn(lambda: connection.entry.delivered() == 10)
    server.sendall(frame(11, stamp=bench.clock.now - 4_000))
    turn(lambda: connection.entry.delivered() == 11)
    bench.clock.now += 1_000_000_000
    bench.swarm.roll(bench.clock.now)
    (second,) = bench.swarm.finished
    assert (second.t, second.delivered, second.latency.count) == (0, 11, 4)
    assert second.latency.maximum == 4_000
    assert bench.swarm.second.t == 1


def test_nothing_is_timed_by_another_machines_clock(bench: Bench) -> None:
    connection, server = bench.connect()
    bench.swarm.begin(bench.clock.now, 1, timing=False)
    server.sendall(frames(1, 3, stamp=10**15))
    turn(lambda: connection.entry.delivered() == 3)
    bench.swarm.finish()
    assert (bench.swarm.finished[0].delivered, bench.swarm.finished[0].latency.maximum) == (3, None)


def test_seconds_without_anything_are_rows_too(bench: Bench) -> None:
    bench.swarm.begin(bench.clock.now, 1, timing=True)
    bench.swarm.roll(bench.clock.now + 3_500_000_000)
    assert [second.t for second in bench.swarm.finished] == [0, 1, 2]


def test_a_publication_reads_back_as_the_layout_says() -> None:
    found = read_frame(frame(7))
    assert found is not None
    assert found.payload == Stream("ab12", 0, 0, SIZE).payload(7, 0)
