"""The live feed: who may watch, what is sent, and that it costs nothing while nobody does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from server.admin import live
from server.admin.live import MOST_WATCHERS, Live
from tests.lifecycle.crowd import until


class Server:
    """A port with nothing but a live feed, of views that count up."""

    def __init__(self, **given: Any) -> None:
        self.looks = self.rests = 0
        self.filling = ""
        self.fault: Exception | None = None
        self.live = Live(
            self.look, self.rest, {"needs_key": True}, **{"on_loopback": True, "wall_clock": lambda: 7.0, **given}
        )
        self.port = 0
        self.session: aiohttp.ClientSession

    async def look(self) -> dict[str, Any]:
        if self.fault is not None:
            raise self.fault
        self.looks += 1
        return {
            "rates": {"published": 1.5},
            "connections": {"raw": 2, "echo": 1},
            "queue_bytes": 9,
            "latency": None,
            "loop_lag": 0.25,
            "number": self.looks,
            "filling": self.filling,
        }

    def rest(self) -> None:
        self.rests += 1

    async def watch(self, **headers: str) -> aiohttp.ClientWebSocketResponse:
        return await self.session.ws_connect(f"http://127.0.0.1:{self.port}/live", headers=headers, max_msg_size=0)

    async def status(self, **headers: str) -> int:
        try:
            socket = await self.watch(**headers)
        except aiohttp.WSServerHandshakeError as refusal:
            return refusal.status
        await socket.close()
        return 101


@asynccontextmanager
async def serving(**given: Any) -> AsyncIterator[Server]:
    server = Server(**given)
    app = web.Application()
    app.add_routes([web.get("/live", server.live.watch)])
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.port = runner.addresses[0][1]
    try:
        async with aiohttp.ClientSession() as server.session:
            yield server
    finally:
        await server.live.stop()
        await server.live.stop()
        await runner.cleanup()
    assert not server.live.is_awake


@pytest.fixture(autouse=True)
def _quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes twenty times as fast."""
    for name in ("EVERY", "LINGER", "PATIENCE"):
        monkeypatch.setattr(live, name, getattr(live, name) / 20)


async def test_who_watches_is_greeted_and_told_again_and_again() -> None:
    async with serving() as server:
        socket = await server.watch()
        assert await socket.receive_json() == {"kind": "hello", "needs_key": True, "now": 7.0, "history": []}
        for number in (1, 2, 3):
            view = await socket.receive_json()
            assert (view["kind"], view["now"], view["number"]) == ("view", 7.0, number)
        await socket.close()


async def test_a_look_is_taken_once_for_all_who_watch() -> None:
    async with serving() as server:
        sockets = [await server.watch() for _ in range(5)]
        told = [[await socket.receive_json() for _ in range(4)] for socket in sockets]
        assert all({view["number"] for view in views[1:]} <= set(range(1, server.looks + 1)) for views in told)
        assert server.looks < 5 * 3
        # Who comes later has the charts of the others, and need not wait for the next look.
        late = await server.watch()
        hello, view = await late.receive_json(), await late.receive_json()
        assert hello["history"][0] == [7.0, 1.5, None, None, None, 3, 9, None, 0.25]
        assert len(hello["history"]) == view["number"]


async def test_without_a_watcher_it_falls_asleep_a_little_later() -> None:
    async with serving() as server:
        assert not server.live.is_awake
        socket = await server.watch()
        await socket.receive_json()
        await socket.close()
        # A page that is loaded anew finds its charts.
        again = await server.watch()
        assert (await again.receive_json())["history"] != []
        await again.close()
        await until(lambda: not server.live.is_awake)
        assert server.rests == 1
        looks = server.looks
        third = await server.watch()
        assert (await third.receive_json())["history"] == []
        assert (await third.receive_json())["number"] == looks + 1
        await third.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 101),
        ({"Origin": "http://127.0.0.1:{port}"}, 101),
        ({"Origin": "https://127.0.0.1:{port}"}, 101),
        ({"Origin": "http://localhost:{port}", "Host": "localhost:{port}"}, 101),
        ({"Origin": "http://127.0.0.1:8000"}, 403),
        ({"Origin": "http://localhost:{port}"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://evil.example:{port}", "Host": "evil.example:{port}"}, 403),
        ({"Host": "evil.example:{port}"}, 403),
    ],
)
async def test_only_the_page_of_this_port_may_watch(headers: dict[str, str], status: int) -> None:
    async with serving() as server:
        named = {name: value.format(port=server.port) for name, value in headers.items()}
        assert await server.status(**named) == status
        assert server.live.is_awake is (status == 101)


async def test_off_loopback_the_port_has_other_names() -> None:
    async with serving(on_loopback=False) as server:
        assert await server.status(Host="stentor.internal:9000", Origin="http://stentor.internal:9000") == 101
        assert await server.status(Host="stentor.internal:9000", Origin="http://evil.example") == 403


async def test_no_more_than_so_many_watch() -> None:
    async with serving() as server:
        sockets = [await server.watch() for _ in range(MOST_WATCHERS)]
        for socket in sockets:
            await socket.receive_json()
        assert await server.status() == 503
        await sockets[0].close()
        await until(lambda: server.live.watchers < MOST_WATCHERS)
        assert await server.status() == 101


async def stalled(server: Server) -> aiohttp.ClientWebSocketResponse:
    """Open a watcher that takes nothing."""
    socket = await server.watch()
    transport = socket._writer.transport
    assert transport is not None
    transport.pause_reading()
    return socket


async def test_who_does_not_take_its_messages_is_dropped_and_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PATIENCE", 1.0)
    async with serving() as server:
        server.filling = "x" * 1_000_000
        silent = await stalled(server)
        well = await server.watch()
        while server.live.watchers == 2:
            assert (await well.receive()).type is aiohttp.WSMsgType.TEXT
        assert (await well.receive_json())["kind"] == "view"
        assert silent._writer.transport is not None
        silent._writer.transport.abort()
        await well.close()


async def test_the_end_waits_for_nobody_who_does_not_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PATIENCE", 600.0)
    async with serving() as server:
        server.filling = "x" * 1_000_000
        silent = await stalled(server)
        await until(lambda: server.looks >= 1)
        looks = -1
        while looks != server.looks:  # until one waits for room
            looks = server.looks
            await asyncio.sleep(10 * live.EVERY)
        async with asyncio.timeout(10):
            await server.live.stop()
        await until(lambda: not server.live.watchers)
        assert silent._writer.transport is not None
        silent._writer.transport.abort()


async def test_what_a_watcher_says_is_not_looked_at_and_no_more_than_little() -> None:
    async with serving() as server:
        socket = await server.watch()
        await socket.send_str("?" * 1000)
        await socket.send_bytes(b"?")
        for _ in range(3):
            assert (await socket.receive()).type is aiohttp.WSMsgType.TEXT
        await socket.send_str("?" * 2000)
        while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
            pass
        assert (message.type, socket.close_code) == (aiohttp.WSMsgType.CLOSE, 1009)


async def test_the_end_is_told() -> None:
    async with serving() as server:
        socket = await server.watch()
        await socket.receive_json()
        stopping = asyncio.create_task(server.live.stop())
        while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
            pass
        await stopping
        assert (message.type, socket.close_code) == (aiohttp.WSMsgType.CLOSE, 1001)
        assert server.rests == 1


async def test_a_fault_ends_the_watch_and_the_next_one_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server:
        server.fault = ZeroDivisionError("a detail")
        with caplog.at_level(logging.ERROR):
            socket = await server.watch()
            assert (await socket.receive_json())["kind"] == "hello"
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        assert [record.message for record in caplog.records] == ["the operator's page cannot be told"]
        server.fault = None
        socket = await server.watch()
        assert (await socket.receive_json())["kind"] == "hello"
        assert (await socket.receive_json())["kind"] == "view"
        await socket.close()
