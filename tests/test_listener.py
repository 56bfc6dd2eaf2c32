"""The public port: who is accepted, how all are let go, and what is written down of it."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.core.lag import LagLimits, LagPolicy
from server.edge.credentials import Identity
from server.edge.listener import DOORWAY, FAREWELLS, bind, reserve
from tests import wire
from tests.house import house
from tests.peers import SMALL, listening, until


async def test_it_listens_on_every_address_of_the_host_and_on_one_port() -> None:
    home = house()
    assert not home.listener.is_accepting
    port = await home.listener.listen("127.0.0.1", 0, backlog=10)
    assert port > 0
    assert home.listener.is_accepting
    home.listener.stop_accepting()
    home.listener.stop_accepting()
    assert not home.listener.is_accepting
    assert home.gate.is_draining
    # Free at once: a restart may bind it.
    assert await home.listener.listen("127.0.0.1", port, backlog=10) == port
    home.listener.stop_accepting()


def test_all_interfaces_share_the_port_that_the_first_one_found() -> None:
    sockets = list(bind("", 0, 10))
    try:
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        assert {sock.family for sock in sockets} <= {socket.AF_INET, socket.AF_INET6}
        for sock in sockets:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 64 * 1024
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) != 0
    finally:
        for sock in sockets:
            sock.close()


async def test_a_port_that_is_taken_is_an_oserror() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(OSError, match="in use") as error:
            await house().listener.listen("127.0.0.1", taken.getsockname()[1], backlog=10)
        assert error.value.errno == errno.EADDRINUSE


def closed(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize("is_named", [False, True])
def test_a_port_that_is_kept_is_shared_with_workers_and_with_nobody_else(*, is_named: bool) -> None:
    port = 0
    if is_named:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
    (kept,) = reserve("127.0.0.1", port)
    where = kept.getsockname()
    try:
        with pytest.raises(ConnectionRefusedError):  # it does not listen
            socket.create_connection(where)
        for _ in range(2):
            workers = [sock for _ in range(2) for sock in bind(*where, 10, shared=True)]
            socket.create_connection(where).close()
            closed(workers)
            with socket.socket() as stranger:
                stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with pytest.raises(OSError, match="in use"):
                    stranger.bind(where)
            with pytest.raises(OSError, match="in use"):
                list(bind(*where, 10))
            with pytest.raises(OSError, match="in use"):
                list(reserve(*where))
    finally:
        kept.close()
    again = list(reserve(*where))  # although connections linger there
    closed(again)


def test_a_port_is_kept_on_every_address_of_the_host() -> None:
    kept = list(reserve("", 0))
    try:
        assert len({sock.getsockname()[1] for sock in kept}) == 1
        assert {sock.family for sock in kept} == {
            sock[0] for sock in socket.getaddrinfo(None, 1, flags=socket.AI_PASSIVE)
        }
    finally:
        closed(kept)


def test_of_many_who_want_a_port_at_once_one_gets_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    start = threading.Barrier(8)

    def want() -> list[socket.socket]:
        start.wait(10)
        try:
            return list(reserve("127.0.0.1", port))
        except OSError:
            return []

    with ThreadPoolExecutor(8) as pool:
        for _ in range(30):
            got = [each.result() for each in [pool.submit(want) for _ in range(8)]]
            closed([sock for sockets in got for sock in sockets])
            assert sum(map(bool, got)) == 1


async def test_a_socket_is_a_shallow_pipe() -> None:
    async with listening() as server:
        client = await server.open()
        sock = client.connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 64 * 1024


async def test_what_is_opened_is_counted_and_closed_once() -> None:
    async with listening() as server:
        home = server.home
        raw, echo = await server.open("/ws/news"), await server.open("/echo")
        assert home.listener.open_by_dialect == {"raw": 1, "echo": 1, "centrifuge": 0}
        assert (home.gate.open, home.counters.opened, home.counters.handshake_duration.count) == (2, 2, 2)
        await raw.send(wire.close(1000))
        await raw.hung_up()
        raw.sock.close()
        echo.reset()
        await until(lambda: not home.listener.connections)
        assert home.listener.open_by_dialect == {"raw": 0, "echo": 0, "centrifuge": 0}
        assert (home.gate.open, home.counters.opened) == (0, 2)
        assert home.counters.closed == {"1000": 1, "1006": 1}


def test_a_departure_says_all_that_explains_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.edge.listener.time.time", lambda: 1_700_000_000.0)
    home = house(LagLimits(LagPolicy.DISCONNECT, messages=1, bytes=1000))
    connection, transport = home.open("/ws/news", address="192.0.2.9")
    connection.rtt = 0.25
    home.wheel.last_lag = 0.125
    home.clock.advance(60.0)
    transport.stall()
    for text in (b"a", b"bb"):
        home.publish("news", text)
        home.loop.settle()
    home.clock.advance(5.0)
    home.publish("news", b"ccc")
    home.loop.settle()
    transport.lose()
    [departure] = home.listener.recorder
    assert departure.at == 1_700_000_000.0
    assert (departure.address, departure.dialect, departure.channel) == ("192.0.2.9", "raw", "news")
    assert (departure.code, departure.reason) == (1013, "queue full")
    assert (departure.queue_messages, departure.queue_bytes, departure.queue_age) == (2, 5, 5.0)
    assert (departure.connected, departure.rtt, departure.loop_lag) == (65.0, 0.25, 0.125)


def test_a_client_without_a_queue_leaves_without_one() -> None:
    home = house()
    _, transport = home.open("/echo")
    transport.lose()
    [departure] = home.listener.recorder
    assert (departure.dialect, departure.queue_messages, departure.queue_age) == ("echo", 0, 0.0)


def test_a_handshake_is_timed_from_the_accept() -> None:
    home = house()
    connection, _ = home.accept()
    home.clock.advance(0.3)
    connection.data_received(wire.request())
    assert home.counters.handshake_duration.sum == pytest.approx(0.3)


# Too many


def test_who_stands_in_the_doorway_is_heard_and_who_stands_behind_is_turned_away_unread() -> None:
    home = house(max_connections=2)
    for _ in range(2):
        home.open()
    waiting = [home.accept() for _ in range(DOORWAY)]
    connection, transport = waiting[0]
    connection.data_received(wire.request())
    answer = wire.answer(transport.take())
    assert (answer.status, answer.fields["retry-after"]) == (503, "1")
    _, beyond = home.accept()
    answer = wire.answer(beyond.take())
    assert (answer.status, answer.fields["retry-after"], answer.fields["content-length"]) == (503, "1", "0")
    assert beyond.is_closing()
    assert home.counters.rejected == {"full": 2}
    beyond.lose()
    assert len(home.listener.connections) == 2 + DOORWAY


async def test_a_full_server_says_so_and_takes_the_next_when_one_has_left() -> None:
    async with listening(max_connections=1) as server:
        first = await server.open()
        refused = await server.connect()
        await refused.send(wire.request())
        assert wire.answer(await refused.hung_up()).status == 503
        first.reset()
        await until(lambda: server.home.gate.open == 0)
        await server.open()


# Expiry


def test_credentials_that_end_are_waited_for_by_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    class Known:
        def check(self, token: str | None) -> Identity:
            return Identity("ann", 2_000_000_000.0)

    monkeypatch.setattr("server.edge.listener.time.time", lambda: 2_000_000_000.0 - 90)
    home = house(credentials=Known(), ping_interval=0.0)
    connection, _ = home.open()
    monkeypatch.setattr("server.edge.listener.time.time", lambda: 4_000_000_000.0)  # the clock on the wall jumps
    home.tick(89.9)
    assert connection.is_open
    home.tick(0.1)
    assert not connection.is_open


# Draining


async def test_draining_says_goodbye_to_all_and_ends_when_they_have_gone() -> None:
    async with listening() as server:
        clients = [await server.open() for _ in range(3)]
        stranger = await server.connect()
        draining = asyncio.create_task(server.home.listener.drain(10.0))
        for client in clients:
            [goodbye] = await client.read_frames()
            assert (goodbye.code, goodbye.reason) == (1001, "server shutting down")
            assert not draining.done()
            await client.send(wire.close(1001))
            client.sock.close()
        with pytest.raises(ConnectionResetError):
            await stranger.hung_up()
        await draining
        assert not server.home.listener.is_accepting
        assert server.home.counters.closed == {"1001": 3}


async def test_draining_accepts_nobody() -> None:
    async with listening() as server:
        await server.open()
        draining = asyncio.create_task(server.home.listener.drain(10.0))
        await until(lambda: not server.home.listener.is_accepting)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))
        server.home.listener.abort_all()
        await draining


async def test_draining_sends_what_is_queued_first() -> None:
    async with listening(LagLimits(LagPolicy.DISCONNECT, messages=1000, bytes=1 << 30)) as server:
        client = await server.open(receive_buffer=SMALL)
        sent = await server.stall(client)
        server.publish(b"queued")
        connection = client.connection
        await until(lambda: connection.outbox is not None and connection.outbox.messages)
        draining = asyncio.create_task(server.home.listener.drain(10.0))
        frames = await client.read_frames(sent + 2)
        assert [frame.payload for frame in frames[-2:]] == [b"queued", b"\x03\xe9server shutting down"]
        client.sock.close()
        await draining


async def test_draining_does_not_wait_for_who_does_not_listen(caplog: pytest.LogCaptureFixture) -> None:
    async with listening(LagLimits(LagPolicy.DROP_OLDEST, messages=2, bytes=1 << 20)) as server:
        stalled, silent = await server.open(receive_buffer=SMALL), await server.open()
        await server.stall(stalled)
        began = time.monotonic()
        await server.home.listener.drain(0.2)
        assert time.monotonic() - began >= 0.2
        assert server.home.listener.connections == {}
        assert silent.ends() == []
        assert "2 connections did not close within 0.2 s" in caplog.text


async def test_draining_an_empty_house_takes_no_time() -> None:
    async with listening() as server:
        await server.home.listener.drain(10.0)


async def test_draining_with_no_patience_at_all_drops_everyone() -> None:
    async with listening() as server:
        await server.open()
        await server.home.listener.drain(0.0)
        assert server.home.listener.connections == {}


@pytest.mark.parametrize(
    ("rate", "clients", "pauses"),
    [
        (0.0, FAREWELLS + 1, [(0.0, FAREWELLS), (0.0, 1)]),
        (2.0, 3, [(0.5, 1), (0.5, 1), (0.5, 1)]),
        (100.0, 2, [(0.01, 1), (0.01, 1)]),
        (1000.0, 250, [(0.1, 100), (0.1, 100), (0.1, 50)]),
    ],
)
async def test_goodbyes_come_at_the_rate_that_was_asked_for(
    rate: float, clients: int, pauses: list[tuple[float, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = house()
    transports = [home.open()[1] for _ in range(clients)]
    seen: list[tuple[float, int]] = []

    async def note(seconds: float) -> None:
        told = sum(bool(transport.take()) for transport in transports)
        seen.append((seconds, told))

    monkeypatch.setattr("server.edge.listener.asyncio.sleep", note)
    await home.listener._say_goodbye(rate)
    assert seen == pauses


async def test_aborting_all_is_at_once() -> None:
    async with listening() as server:
        for path in ("/ws", "/echo"):
            await server.open(path)
        await server.connect()
        server.home.listener.abort_all()
        server.home.listener.abort_all()
        await until(lambda: not server.home.listener.connections)
        assert server.home.counters.closed == {"1006": 2}


# The log


async def test_opening_and_closing_is_a_line_each_at_debug_and_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with listening() as server:
        client = await server.open("/ws/news?token=s3cret")
        for _ in range(10):
            await client.send(wire.text("not logged"))
        await client.read_frames(10)
        await client.send(wire.close(1000, "not logged"))
        await client.hung_up()
        client.sock.close()
        await until(lambda: not server.home.listener.connections)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("stentor")]
    assert lines == ["open 127.0.0.1 raw 'news'", "close 127.0.0.1 1000 closed by the client after 0.0 s"]
    assert "s3cret" not in caplog.text
    assert "not logged" not in caplog.text
