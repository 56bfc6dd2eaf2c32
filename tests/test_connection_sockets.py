"""A client over real sockets, on uvloop: what the kernel and the loop add to what ``test_connection.py`` decides."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref

import pytest

from server.core.lag import LagLimits, LagPolicy
from tests import wire
from tests.peers import SMALL, listening, until


async def test_a_handshake_a_byte_at_a_time() -> None:
    async with listening() as server:
        client = await server.connect()
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in wire.request():
            await client.send(bytes([byte]))
            await asyncio.sleep(0)
        answer = wire.answer(await client.read(lambda data: b"\r\n\r\n" in data))
        assert (answer.status, answer.fields["sec-websocket-accept"]) == (101, wire.ACCEPT)


async def test_a_message_and_its_way_back() -> None:
    async with listening() as server:
        one, other = await server.open(), await server.open()
        await one.send(wire.text("hello"))
        assert await one.read_frames() == await other.read_frames() == [(wire.TEXT, b"hello")]


async def test_frames_with_the_handshake_are_refused_without_an_answer() -> None:
    async with listening() as server:
        client = await server.connect()
        await client.send(wire.request() + wire.text("early"))
        with pytest.raises(ConnectionResetError):
            await client.hung_up()
        await until(lambda: not server.home.listener.connections)
        assert server.home.counters.opened == 0


async def test_a_refused_client_gets_its_answer_and_the_end_of_the_stream() -> None:
    async with listening() as server:
        client = await server.connect()
        await client.send(wire.request("/nothing"))
        answer = wire.answer(await client.hung_up())
        assert (answer.status, answer.body) == (404, b"There is nothing here.\n")
        client.sock.close()
        await until(lambda: not server.home.listener.connections)


async def test_a_client_that_stalls_lags_and_gets_all_when_it_reads_again() -> None:
    limits = LagLimits(LagPolicy.DROP_OLDEST, messages=1000, bytes=1 << 30)
    async with listening(limits) as server:
        client, other = await server.open(receive_buffer=SMALL), await server.open()
        sent = await server.stall(client)
        for number in range(50):
            server.publish(b"queued %d" % number)
            await other.read(lambda data: True)
            await asyncio.sleep(0)
        connection = client.connection
        assert connection.outbox is not None
        await until(lambda: connection.outbox is not None and connection.outbox.messages >= 50)
        frames = await client.read_frames(sent + 50)
        assert [len(frame.payload) for frame in frames[:sent]] == [65536] * sent
        assert [frame.payload for frame in frames[sent:]] == [b"queued %d" % number for number in range(50)]
        await until(lambda: not connection.paused)
        assert (server.home.backlog.messages, connection.outbox.messages) == (0, 0)
        server.publish(b"live")
        assert await client.read_frames() == [(wire.BINARY, b"live")]


async def test_what_we_hold_beside_the_outbox_is_small() -> None:
    async with listening(LagLimits(LagPolicy.DROP_OLDEST, messages=4, bytes=1 << 20)) as server:
        client = await server.open(receive_buffer=SMALL)
        await server.stall(client)
        for _ in range(50):
            server.publish(bytes(65536))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        connection = client.connection
        assert connection.outbox is not None
        assert connection.outbox.bytes <= 1 << 20
        assert connection.unsent_bytes <= 2 * 65600


async def test_a_client_that_never_reads_is_gone_after_the_write_timeout() -> None:
    async with listening(LagLimits(LagPolicy.DROP_OLDEST, messages=4, bytes=1 << 20), write_timeout=3.0) as server:
        client = await server.open(receive_buffer=SMALL)
        await server.stall(client)
        seconds = 0
        while server.home.listener.connections:
            server.home.tick(1.0)
            seconds += 1
            await asyncio.sleep(0)
            assert seconds < 100
        assert seconds >= 3
        assert server.home.counters.slow_disconnects == 1
        assert server.home.counters.closed == {"1013": 1}


async def test_an_evicted_client_that_reads_again_gets_the_reason() -> None:
    async with listening(LagLimits(LagPolicy.DISCONNECT, messages=2, bytes=1 << 20)) as server:
        client = await server.open(receive_buffer=SMALL)
        await server.stall(client)
        connection = client.connection
        while connection.is_open:
            server.publish(b"more")
            await asyncio.sleep(0)
        frames: list[wire.Read] = []
        while not frames or frames[-1].opcode != wire.CLOSE:
            frames += await client.read_frames()
        *data, last = frames
        assert all(frame.opcode == wire.BINARY for frame in data)
        assert (last.code, last.reason) == (1013, "queue full")
        await client.send(wire.close(1013))
        assert await client.hung_up() == b""
        client.sock.close()
        await until(lambda: not server.home.listener.connections)
        assert server.home.counters.closed == {"1013": 1}


async def test_a_client_that_answers_no_ping_hears_why_before_the_end() -> None:
    async with listening() as server:
        client = await server.open()
        client.connection.lose_contact()
        [said] = wire.read(await client.hung_up())
        assert (said.code, said.reason) == (3012, "no pong")
        await until(lambda: not server.home.listener.connections)
        assert server.home.counters.closed == {"3012": 1}


async def test_finishing_drains_before_the_close_frame() -> None:
    async with listening(LagLimits(LagPolicy.DISCONNECT, messages=1000, bytes=1 << 30)) as server:
        client = await server.open(receive_buffer=SMALL)
        sent = await server.stall(client)
        for _ in range(20):
            server.publish(bytes(65536))
        connection = client.connection
        await until(lambda: connection.outbox is not None and connection.outbox.messages == 20)
        connection.finish(1001, "server shutting down")
        frames = await client.read_frames(sent + 21)
        assert [frame.opcode for frame in frames] == [wire.BINARY] * (sent + 20) + [wire.CLOSE]
        assert frames[-1].reason == "server shutting down"


async def test_a_client_that_is_reset_is_off_every_list() -> None:
    async with listening() as server:
        client, stalled = await server.open(), await server.open(receive_buffer=SMALL)
        await server.stall(stalled)
        for leaving in (client, stalled):
            leaving.reset()
        await until(lambda: not server.home.listener.connections)
        home = server.home
        assert (home.hub.subscriptions, home.gate.open, home.wheel.paused, home.backlog.laggards) == (0, 0, {}, {})
        assert home.counters.closed == {"1006": 2}


async def test_a_client_that_half_closes_is_let_go() -> None:
    async with listening() as server:
        client = await server.open()
        client.sock.shutdown(socket.SHUT_WR)
        assert await client.hung_up() == b""
        await until(lambda: not server.home.listener.connections)
        assert server.home.counters.closed == {"1006": 1}


async def test_a_stalled_client_that_half_closes_gets_what_was_on_its_way() -> None:
    async with listening(LagLimits(LagPolicy.DROP_OLDEST, messages=10, bytes=1 << 20)) as server:
        client = await server.open(receive_buffer=SMALL)
        sent = await server.stall(client)
        client.sock.shutdown(socket.SHUT_WR)
        await until(lambda: not server.home.hub.subscriptions)
        server.publish(b"late")
        frames = wire.read(await client.hung_up())
        assert [len(frame.payload) for frame in frames] == [65536] * sent
        await until(lambda: not server.home.listener.connections)


@pytest.mark.parametrize("path", ["/ws", "/echo"])
async def test_a_close_in_one_breath_with_a_message(path: str, caplog: pytest.LogCaptureFixture) -> None:
    async with listening() as server:
        client = await server.open(path)
        await client.send(wire.text("goodbye") + wire.close(1000, "bye"))
        *said, last = wire.read(await client.hung_up())
        assert said == ([(wire.TEXT, b"goodbye")] if path == "/echo" else [])
        assert (last.code, last.reason) == (1000, "bye")
        client.sock.close()
        await until(lambda: not server.home.listener.connections)
        assert server.home.counters.closed == {"1000": 1}
        assert caplog.records == []


async def test_a_ping_and_a_close_from_a_client_that_does_not_read() -> None:
    async with listening() as server:
        client = await server.open(receive_buffer=SMALL)
        sent = await server.stall(client)
        await client.send(wire.frame(wire.PING, b"owed") + wire.frame(wire.PING, b"owed"))
        await client.send(wire.close(1000))
        await until(lambda: not server.home.hub.subscriptions)
        frames = wire.read(await client.hung_up())
        assert [frame.opcode for frame in frames] == [wire.BINARY] * sent + [wire.CLOSE]


async def test_an_echo_larger_than_the_socket_holds_the_reading() -> None:
    async with listening(max_message_size=1 << 20) as server:
        client = await server.open("/echo")
        connection = client.connection
        message = wire.frame(wire.BINARY, bytes(1 << 18))
        sending = asyncio.create_task(client.send(message * 20))
        await until(lambda: connection.reader.is_held)
        frames = await client.read_frames(20)
        await sending
        assert [len(frame.payload) for frame in frames] == [1 << 18] * 20
        await until(lambda: not connection.reader.is_held)


async def test_a_connection_that_has_ended_is_freed_without_the_collector() -> None:
    async with listening() as server:
        gc.collect()
        gc.disable()
        try:
            client = await server.open()
            await client.send(wire.text("hello"))
            await client.read_frames()
            protocol = weakref.ref(client.connection._protocol)
            await client.send(wire.close(1000))
            await client.hung_up()
            client.sock.close()
            await until(lambda: protocol() is None)
        finally:
            gc.enable()
