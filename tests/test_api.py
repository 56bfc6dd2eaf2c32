"""The server API: what a caller may ask, and every way to ask wrongly."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from server.admin import api as api_module
from server.admin.api import Api
from server.admin.fields import ApiError
from server.admin.http_api import routes
from server.core.hub import CONGESTION_BYTES
from tests.house import House, house

BAD_REQUEST = 107


def make(home: House, *, max_channel_length: int = 128, max_message_size: int = 65536) -> Api:
    return Api(
        home.node,
        home.service.registry,
        clock=home.clock,
        max_channel_length=max_channel_length,
        max_message_size=max_message_size,
    )


def heard(home: House, transport: Any) -> bytes:
    home.loop.settle()
    return bytes(transport.take())


# Commands


@pytest.mark.parametrize(
    ("request_", "frame"),
    [
        ({"channel": "news", "data": "hello"}, b"\x81\x05hello"),
        ({"channel": "news", "data": {"a": [1, None]}}, b'\x81\x0e{"a":[1,null]}'),
        ({"channel": "news", "data": None}, b"\x81\x04null"),
        ({"channel": "news", "data": ""}, b"\x81\x00"),
        ({"channel": "news", "b64data": base64.b64encode(b"\xff\x00").decode()}, b"\x82\x02\xff\x00"),
        ({"channel": "news", "b64data": ""}, b"\x82\x00"),
        ({"channel": "news", "data": "a", "b64data": "/w=="}, b"\x82\x01\xff"),
    ],
)
async def test_publish_says_it_on_the_channel(request_: dict[str, Any], frame: bytes) -> None:
    home = house()
    (_, listening), (_, elsewhere) = home.open("/ws/news"), home.open()
    assert await make(home).call("publish", request_) == {}
    assert heard(home, listening) == frame
    assert heard(home, elsewhere) == b""


async def test_broadcast_says_it_on_each() -> None:
    home = house()
    transports = [home.open(path)[1] for path in ("/ws/a", "/ws/b", "/ws/c")]
    reply = await make(home).call("broadcast", {"channels": ["a", "b", "nobody"], "data": "x"})
    assert reply == {"responses": [{"result": {}}] * 3}
    assert [heard(home, transport) for transport in transports] == [b"\x81\x01x", b"\x81\x01x", b""]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "channel: a name is needed"),
        ({"channel": "", "data": 1}, "channel: a name is needed"),
        ({"channel": None, "data": 1}, "channel: a name is needed"),
        ({"channel": 7, "data": 1}, "channel: a name is needed"),
        ({"channel": ["a"], "data": 1}, "channel: a name is needed"),
        ({"channel": "x" * 129, "data": 1}, "channel: the name is longer than 128 characters"),
        ({"channel": "a"}, "data: a JSON value is needed"),
        ({"channel": "a", "b64data": "?"}, "b64data: not base64"),
        ({"channel": "a", "b64data": "YQ"}, "b64data: not base64"),
        ({"channel": "a", "b64data": "é"}, "b64data: not base64"),
        ({"channel": "a", "b64data": 5}, "b64data: not base64"),
        ({"channel": "a", "b64data": None}, "data: a JSON value is needed"),
        ({"channel": "a", "data": "x" * 65537}, "data: larger than 65536 bytes"),
        ({"channel": "a", "b64data": base64.b64encode(bytes(65537)).decode()}, "data: larger than 65536 bytes"),
        ({"channel": "a", "data": orjson.loads("[" * 500 + "]" * 500)}, "data: nested too deeply"),
    ],
)
async def test_publish_refuses(request_: dict[str, Any], message: str) -> None:
    home = house()
    with pytest.raises(ApiError, match=message) as error:
        await make(home).call("publish", request_)
    assert (str(error.value), error.value.code) == (message, BAD_REQUEST)
    assert home.counters.published == 0


@pytest.mark.parametrize("channels", [None, [], "a", {"a": 1}, 5])
async def test_broadcast_needs_a_list(channels: object) -> None:
    with pytest.raises(ApiError, match="channels: a list is needed"):
        await make(house()).call("broadcast", {"channels": channels, "data": 1})


@pytest.mark.parametrize("request_", [{"channels": ["a", ""], "data": 1}, {"channels": ["a", "b"]}])
async def test_broadcast_says_nothing_if_it_cannot_say_it_everywhere(request_: dict[str, Any]) -> None:
    home = house()
    with pytest.raises(ApiError):
        await make(home).call("broadcast", request_)
    assert home.counters.published == 0


@pytest.mark.parametrize("size", [125, 126, 65535, 65536])
async def test_the_largest_message_is_as_large_as_a_client_s(size: int) -> None:
    home = house()
    api = make(home, max_message_size=size)
    assert await api.call("publish", {"channel": "a", "data": "x" * size}) == {}
    assert await api.call("publish", {"channel": "a", "b64data": base64.b64encode(bytes(size)).decode()}) == {}
    with pytest.raises(ApiError, match="larger"):
        await api.call("publish", {"channel": "a", "data": "x" * (size + 1)})


async def test_a_congested_channel_holds_its_caller_until_there_is_room() -> None:
    home = house()
    home.open("/ws/news")
    api = make(home)
    home.publish("news", bytes(CONGESTION_BYTES))
    waiting = asyncio.create_task(api.call("publish", {"channel": "news", "data": "x"}))
    await asyncio.sleep(0)
    assert not waiting.done()
    home.loop.settle()
    assert await waiting == {}


async def test_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "PATIENCE", 0.01)
    home = house()
    _, transport = home.open("/ws/news")
    home.publish("news", bytes(CONGESTION_BYTES))
    with pytest.raises(ApiError, match="slow down") as error:
        await make(home).call("publish", {"channel": "news", "data": "x"})
    assert error.value.code == 100
    assert heard(home, transport).endswith(b"\x81\x01x"), "it was taken, as it says"


# Over HTTP


@asynccontextmanager
async def serving(home: House, *, api_key: str | None = None, on_loopback: bool = True) -> AsyncIterator[Any]:
    """Serve the API on loopback; yields a function that posts, and returns status and body."""
    app = web.Application()
    app.add_routes(routes(make(home), api_key=api_key, on_loopback=on_loopback))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]

    async with aiohttp.ClientSession() as session:

        async def post(command: str, body: bytes | object, **headers: str) -> tuple[int, Any]:
            data = body if isinstance(body, bytes) else orjson.dumps(body)
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            async with session.post(f"http://127.0.0.1:{port}/api/{command}", data=data, headers=names) as answer:
                text = await answer.read()
                return answer.status, orjson.loads(text) if answer.content_type == "application/json" else text

        try:
            yield post
        finally:
            await runner.cleanup()


HELLO = {"channel": "news", "data": "hello"}


async def test_a_reply_is_a_result_or_an_error_with_status_200() -> None:
    home = house()
    _, transport = home.open("/ws/news")
    async with serving(home) as post:
        assert await post("publish", HELLO) == (200, {"result": {}})
        assert await post("broadcast", {"channels": ["news"], "data": 1}) == (
            200,
            {"result": {"responses": [{"result": {}}]}},
        )
        assert await post("publish", {"channel": "news"}) == (
            200,
            {"error": {"code": BAD_REQUEST, "message": "data: a JSON value is needed"}},
        )
    assert heard(home, transport) == b"\x81\x05hello\x81\x011"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"hello",
        b"\xff",
        b"NaN",
        b'{"channel": "a", "data": NaN}',
        b'{"channel": "\\ud800", "data": 1}',
        b"[" * 100_000,
        b'{"channel": "a", "data": ' + b"[" * 100_000,
        b'{"channel": "a", "data": "\x00"}',
    ],
)
async def test_garbage_is_a_bad_request_and_never_a_fault(body: bytes) -> None:
    async with serving(house()) as post:
        assert await post("publish", body) == (
            200,
            {"error": {"code": BAD_REQUEST, "message": "the request is not JSON"}},
        )


@pytest.mark.parametrize("body", [b"[]", b"null", b'"publish"', b"5", b"true"])
async def test_a_request_is_an_object(body: bytes) -> None:
    async with serving(house()) as post:
        assert await post("publish", body) == (
            200,
            {"error": {"code": BAD_REQUEST, "message": "the request is not a JSON object"}},
        )


async def test_a_deep_value_is_told_to_be_too_deep() -> None:
    async with serving(house()) as post:
        status, reply = await post("publish", b'{"channel": "a", "data": ' + b"[" * 500 + b"]" * 500 + b"}")
    assert (status, reply["error"]["message"]) == (200, "data: nested too deeply")


async def test_an_unknown_command_is_not_found() -> None:
    async with serving(house()) as post:
        assert (await post("explode", {}))[0] == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X_API_Key": "k3y"}, 200),
        ({"x_api_key": "k3y", "Origin": "https://evil.example"}, 200),
        ({}, 401),
        ({"X_API_Key": ""}, 401),
        ({"X_API_Key": "k3"}, 401),
        ({"X_API_Key": "k3y2"}, 401),
        ({"X_API_Key": "K3Y"}, 401),
        ({"X_API_Key": "é"}, 401),
        ({"X_API_Key": "x" * 4000}, 401),
        ({"Authorization": "Bearer k3y"}, 401),
    ],
    ids=str,
)
@pytest.mark.parametrize("on_loopback", [True, False])
async def test_with_a_key_the_key_is_asked_for(headers: dict[str, str], status: int, on_loopback: bool) -> None:
    home = house()
    async with serving(home, api_key="k3y", on_loopback=on_loopback) as post:
        given, reply = await post("publish", HELLO, **headers)
    assert given == status
    assert home.counters.published == (1 if status == 200 else 0)
    assert b"k3y" not in (reply if isinstance(reply, bytes) else b"")


@pytest.mark.parametrize(
    ("on_loopback", "headers", "status"),
    [
        (True, {}, 200),
        (True, {"X_API_Key": "any"}, 200),
        (True, {"Origin": "http://127.0.0.1"}, 403),  # a page in a browser on this machine
        (True, {"Origin": "null"}, 403),
        (False, {}, 403),
    ],
)
async def test_without_a_key_only_programs_of_this_machine_are_heard(
    on_loopback: bool, headers: dict[str, str], status: int
) -> None:
    home = house()
    async with serving(home, on_loopback=on_loopback) as post:
        assert (await post("publish", HELLO, **headers))[0] == status
    assert home.counters.published == (1 if status == 200 else 0)
