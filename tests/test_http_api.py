"""The server API over HTTP: the forms of requests and replies, garbage, and the key."""

from __future__ import annotations

import orjson
import pytest

from server.admin.port import MAX_REQUEST
from server.brokers.base import Retention
from server.node.namespaces import ChannelOptions
from tests.backend import Client, serving
from tests.house import house

BAD_REQUEST = 107

HELLO = {"channel": "news", "data": "hello"}


async def test_a_reply_is_a_result_or_an_error_with_status_200() -> None:
    home = house()
    raw = Client.listen(home, "news")
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
    assert raw.said() == ["hello", "1"]


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


@pytest.mark.parametrize("path", ["publish", "batch", ""])
async def test_a_request_that_is_too_large_is_told_how_large_it_may_be(path: str) -> None:
    async with serving(house()) as post:
        status, reply = await post(path, b'{"data": "' + b"x" * MAX_REQUEST + b'"}')
        assert (status, reply) == (
            200,
            {"error": {"code": BAD_REQUEST, "message": "the request is larger than 4194304 bytes"}},
        )
        assert await post("publish", HELLO) == (200, {"result": {}})


async def test_a_fault_of_our_own_is_told_without_its_details(caplog: pytest.LogCaptureFixture) -> None:
    home = house(options=ChannelOptions(retention=Retention(3, 300)))
    home.node.broker.history = lambda *asked: 1 / 0  # type: ignore[method-assign]
    told = {"error": {"code": 100, "message": "internal server error"}}
    async with serving(home) as post:
        assert await post("history", {"channel": "news"}) == (200, told)
        assert await post("", {"method": "history", "params": {"channel": "news"}}) == (200, told)
    assert [record.exc_info is not None for record in caplog.records] == [True, True]
    caplog.clear()


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
        ({"X-API-Key": "k3y"}, 200),
        ({"x-api-key": "k3y", "Origin": "https://evil.example"}, 200),
        ({}, 401),
        ({"X-API-Key": ""}, 401),
        ({"X-API-Key": "k3"}, 401),
        ({"X-API-Key": "k3y2"}, 401),
        ({"X-API-Key": "K3Y"}, 401),
        ({"X-API-Key": "é"}, 401),
        ({"X-API-Key": "x" * 4000}, 401),
        ({"Authorization": "Bearer k3y"}, 401),
        ({"Authorization": "apikey k3y"}, 200),
        ({"Authorization": "Apikey k3y"}, 200),
        ({"Authorization": "apikey k3"}, 401),
        ({"Authorization": "apikey"}, 401),
        ({"Authorization": "apikey k3y", "X-API-Key": "k3"}, 401),
    ],
    ids=str,
)
@pytest.mark.parametrize("on_loopback", [True, False])
async def test_with_a_key_the_key_is_asked_for(headers: dict[str, str], status: int, on_loopback: bool) -> None:
    home = house()
    async with serving(home, api_key="k3y", on_loopback=on_loopback) as post:
        given, reply = await post("publish", HELLO, headers)
    assert given == status
    assert home.counters.published == (1 if status == 200 else 0)
    assert b"k3y" not in (reply if isinstance(reply, bytes) else b"")


@pytest.mark.parametrize(
    ("on_loopback", "headers", "status"),
    [
        (True, {}, 200),
        (True, {"X-API-Key": "any"}, 200),
        (True, {"Origin": "http://127.0.0.1"}, 403),  # a page in a browser on this machine
        (True, {"Origin": "null"}, 403),
        (True, {"Origin": "http://127.0.0.1:9000", "Host": "127.0.0.1:9000"}, 200),  # the operator's page
        (True, {"Origin": "http://localhost:9000", "Host": "localhost:9000"}, 200),
        (True, {"Origin": "http://127.0.0.1:8000", "Host": "127.0.0.1:9000"}, 403),  # the public one
        (True, {"Origin": "http://evil.example", "Host": "evil.example"}, 403),  # whose name was pointed at us
        (True, {"Origin": "http://[::1", "Host": "[::1"}, 403),
        (False, {}, 403),
        (False, {"Origin": "http://127.0.0.1:9000", "Host": "127.0.0.1:9000"}, 403),
    ],
)
async def test_without_a_key_only_programs_of_this_machine_are_heard(
    on_loopback: bool, headers: dict[str, str], status: int
) -> None:
    home = house()
    async with serving(home, on_loopback=on_loopback) as post:
        assert (await post("publish", HELLO, headers))[0] == status
    assert home.counters.published == (1 if status == 200 else 0)


async def test_a_batch_has_replies_and_no_result() -> None:
    async with serving(house()) as post:
        commands = [{"publish": HELLO}, {"publish": {}}, {"explode": {}}]
        for parallel in (False, True):
            assert await post("batch", {"commands": commands, "parallel": parallel}) == (
                200,
                {
                    "replies": [
                        {"publish": {}},
                        {"error": {"code": BAD_REQUEST, "message": "channel: a name is needed"}},
                        {"error": {"code": 104, "message": "there is no such command"}},
                    ]
                },
            )
        assert await post("batch", {"commands": "all"}) == (
            200,
            {"error": {"code": BAD_REQUEST, "message": "commands: a list is needed"}},
        )


NUMBERS = '{"a": 1.10, "b": 12345678901234567890123, "c": 1e300, "d": -0.0}'


@pytest.mark.parametrize(
    ("command", "body"),
    [
        ("publish", f'{{"channel": "news", "data": {NUMBERS}}}'),
        ("broadcast", f'{{"data":{NUMBERS}, "channels":["news"]}}'),
        ("batch", f'{{"commands": [{{"info": {{}} }}, {{"publish":{{"data": {NUMBERS} ,"channel":"news"}}}}]}}'),
        ("", f'{{"method": "publish", "params": {{"channel": "news", "data": {NUMBERS}}}}}'),
    ],
)
async def test_what_is_published_keeps_its_digits(command: str, body: str) -> None:
    home = house()
    raw = Client.listen(home, "news")
    async with serving(home) as post:
        assert (await post(command, body.encode()))[0] == 200
    home.loop.settle()
    assert raw.transport.take().endswith(NUMBERS.encode())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"channel": "a", "data": {"x": 1}, "data": {"x": 2}}', "a field comes twice"),
        (b'{"channel": "a", "data": {}, "x": ' + b"[" * 1000 + b"]" * 1000 + b"}", "the request is nested too deeply"),
    ],
)
async def test_what_cannot_be_cut_out_is_refused(body: bytes, message: str) -> None:
    async with serving(house()) as post:
        assert await post("publish", body) == (200, {"error": {"code": BAD_REQUEST, "message": message}})


# The old way


async def test_lines_get_lines() -> None:
    home = house()
    raw = Client.listen(home, "news")
    lines = [
        b'{"method":"publish","params":{"channel":"news","data":"one"}}',
        b'{"id":7,"method":"PUBLISH","params":{"channel":"news","data":"two"}}',
        b'{"method":"publish","params":{"channel":"news"}}',
        b'{"method":"explode"}',
        b'{"method":"batch","params":{"commands":[]}}',
        b'{"method":5}',
        b'{"method":"publish","params":[]}',
        b'{"method":"info"}',
        b'{"method":"info","params":null}',
    ]
    async with serving(home) as post:
        status, reply = await post("", b"\n".join(lines) + b"\n")
    replies = [orjson.loads(line) for line in reply.split(b"\n")]
    assert status == 200
    assert replies[:7] == [
        {"result": {}},
        {"id": 7, "result": {}},
        {"error": {"code": BAD_REQUEST, "message": "data: a JSON value is needed"}},
        {"error": {"code": 104, "message": "there is no such method"}},
        {"error": {"code": 104, "message": "there is no such method"}},
        {"error": {"code": BAD_REQUEST, "message": "method: a string is needed"}},
        {"error": {"code": BAD_REQUEST, "message": "params: an object is needed"}},
    ]
    assert [len(reply["result"]["nodes"]) for reply in replies[7:]] == [1, 1]
    assert raw.said() == ["one", "two"]


async def test_one_object_may_fill_many_lines() -> None:
    async with serving(house()) as post:
        body = b'{\n  "method": "publish",\n  "params": {\n "channel": "news", "data": {\n"a": 1.0}}\n}'
        assert await post("", body) == (200, {"result": {}})


@pytest.mark.parametrize(
    "body",
    [b"", b"\n", b"{", b"[]", b'{"method":"info"}\n{', b'{"method":"info"}\n5', b'{"method":"info"}\n' * 1001],
)
async def test_lines_of_which_one_cannot_be_read_do_nothing(body: bytes) -> None:
    async with serving(house()) as post:
        status, reply = await post("", body)
    assert (status, reply["error"]["code"]) == (200, BAD_REQUEST)


@pytest.mark.parametrize("path", ["", "publish", "info"])
async def test_every_way_in_asks_for_the_key(path: str) -> None:
    async with serving(house(), api_key="k3y") as post:
        assert (await post(path, HELLO))[0] == 401
