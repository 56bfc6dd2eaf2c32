"""The internal port over HTTP: which path does what, and what it does when it is asked badly."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import orjson
import pytest

from server.admin.app import Internal
from server.admin.node_api import NodeApi
from tests import wire
from tests.harness import Metrics
from tests.house import House, house
from tests.test_recorder import departure


def internal(home: House) -> Internal:
    api = NodeApi(home.node, home.service.registry, clock=home.clock, max_channel_length=128, max_message_size=65536)
    return Internal(home.listener, api, home.clock, api_key=None, on_loopback=True)


@asynccontextmanager
async def serving(home: House) -> AsyncIterator[Any]:
    """Open the internal port; yields a function that asks it, and returns status, headers and body."""
    port = internal(home)
    number = await port.listen("127.0.0.1", 0)
    async with aiohttp.ClientSession() as session:

        async def ask(path: str, method: str = "GET", **options: Any) -> tuple[int, Any, bytes]:
            async with session.request(method, f"http://127.0.0.1:{number}{path}", **options) as answer:
                return answer.status, answer.headers, await answer.read()

        try:
            yield ask
        finally:
            await port.stop()
    await port.stop()


async def test_the_index_names_what_there_is() -> None:
    async with serving(house()) as ask:
        status, _, body = await ask("/")
        assert status == 200
        lines = [line.removeprefix("POST ") for line in body.decode().splitlines() if "/" in line]
        assert {"/metrics", "/api/publish", "/api/batch", "/api/info"} <= set(lines)
        for path in lines:
            method = "POST" if path.startswith("/api/") else "GET"
            assert (await ask(path, method))[0] in (200, 503), path


async def test_a_scrape() -> None:
    home = house()
    home.open()
    async with serving(home) as ask:
        status, headers, body = await ask("/metrics")
        assert (status, headers["Content-Type"].split(";")[0]) == (200, "text/plain")
        assert Metrics(body.decode())['stentor_connections{dialect="raw"}'] == 1
        status, headers, body = await ask("/metrics", headers={"Accept": "application/openmetrics-text"})
        assert (status, headers["Content-Type"].split(";")[0]) == (200, "application/openmetrics-text")


class Refusing:
    """A broker that is in contact and refuses what is written; all that is asked of it is how it is."""

    is_up = False
    trouble = "redis://h:6379/0: it refuses what is written: OOM"

    async def start(self) -> bool:
        return True

    async def stop(self) -> None:
        pass


async def test_alive_is_not_ready() -> None:
    home = house(loop=asyncio.get_running_loop())
    async with serving(home) as ask:
        assert (await ask("/healthz"))[::2] == (200, b"ok\n")
        status, _, body = await ask("/readyz")
        assert (status, orjson.loads(body)) == (503, {"status": "not listening", "connections": 0})

        await home.listener.listen("127.0.0.1", 0, backlog=10)
        home.open()
        status, _, body = await ask("/readyz")
        assert (status, orjson.loads(body)) == (200, {"status": "ready", "connections": 1})

        home.gate.brownout = 1
        status, _, body = await ask("/readyz")
        assert (status, orjson.loads(body)) == (503, {"status": "browned out", "connections": 1})
        home.gate.brownout = 0

        own, home.node.broker = home.node.broker, cast(Any, Refusing())
        status, _, body = await ask("/readyz")
        answer = {"status": "degraded", "connections": 1, "reason": Refusing.trouble}
        assert (status, orjson.loads(body)) == (503, answer)
        home.node.broker = own

        home.listener.stop_accepting()
        status, _, body = await ask("/readyz")
        assert (status, orjson.loads(body)) == (503, {"status": "draining", "connections": 1})
        assert (await ask("/healthz"))[0] == 200


async def test_who_is_slow() -> None:
    home = house()
    _, transport = home.open("/ws/news", address="192.0.2.9")
    transport.stall()
    home.publish("news", b"x")
    home.loop.settle()
    async with serving(home) as ask:
        status, headers, body = await ask("/debug/slow")
    assert (status, headers["Content-Type"].split(";")[0]) == (200, "application/json")
    assert [client["address"] for client in orjson.loads(body)["clients"]] == ["192.0.2.9"]


async def test_who_has_left_newest_first() -> None:
    home = house()
    for code in (1000, 1001, 1013):
        home.listener.recorder.record(departure(code))
    async with serving(home) as ask:
        for query, codes in (
            ("", [1013, 1001, 1000]),
            ("?limit=2", [1013, 1001]),
            ("?limit=0", []),
            ("?limit=999999999", [1013, 1001, 1000]),
        ):
            status, _, body = await ask("/debug/disconnects" + query)
            assert status == 200
            assert [entry["code"] for entry in orjson.loads(body)["disconnects"]] == codes


@pytest.mark.parametrize("limit", ["", "-1", "1.5", "ten", "²", "1e3", "9" * 25, "9" * 5000])
async def test_a_limit_is_a_number(limit: str) -> None:
    async with serving(house()) as ask:
        status, _, body = await ask("/debug/disconnects", params={"limit": limit})
    assert (status, orjson.loads(body)) == (400, {"error": "limit: a number is needed"})


async def test_a_departure_over_http_is_the_one_that_happened() -> None:
    home = house()
    connection, transport = home.open("/ws/news", address="192.0.2.9")
    connection.data_received(wire.close(1000, "<script>"))
    transport.lose()
    async with serving(home) as ask:
        _, _, body = await ask("/debug/disconnects")
    [entry] = orjson.loads(body)["disconnects"]
    assert (entry["address"], entry["channel"], entry["code"]) == ("192.0.2.9", "news", 1000)
    assert b"script" not in body


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/api/publish", 405),
        ("POST", "/metrics", 405),
        ("POST", "/api/publish", 200),
        ("DELETE", "/debug/slow", 405),
    ],
)
async def test_other_questions(method: str, path: str, status: int) -> None:
    async with serving(house()) as ask:
        assert (await ask(path, method))[0] == status


async def test_a_port_that_is_taken_is_an_oserror() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = internal(house())
        with pytest.raises(OSError, match="in use") as error:
            await port.listen("127.0.0.1", taken.getsockname()[1])
        assert error.value.errno == errno.EADDRINUSE
        await port.stop()
