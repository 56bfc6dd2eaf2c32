"""The server API: what a caller may ask, and every way to ask wrongly."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import orjson
import pytest

from server.admin import api as api_module
from server.admin.fields import ApiError
from server.brokers.base import BrokerError, Retention
from server.core.hub import CONGESTION_BYTES
from server.core.lag import LagLimits, LagPolicy
from server.node.namespaces import ChannelOptions
from tests.backend import Client, backend
from tests.backend import api_of as make
from tests.house import House, house

KEEPS = ChannelOptions(retention=Retention(3, 300))
OPEN = ChannelOptions(presence=True, join_leave=True, retention=Retention(10, 300))

BAD_REQUEST = 107


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
        ({"channel": "news", "data": "a", "b64data": ""}, b"\x81\x01a"),
        ({"channel": "news", "data": "a", "b64data": None, "tags": None, "version": None}, b"\x81\x01a"),
        ({"channel": "news", "data": "a", "tags": {}, "delta": True, "unknown": [1]}, b"\x81\x01a"),
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
        ({"channel": "a", "data": 1, "tags": {"a": 1}}, "tags: at most 64 strings are needed"),
        ({"channel": "a", "data": 1, "tags": {str(n): "" for n in range(65)}}, "tags: at most 64 strings are needed"),
        ({"channel": "a", "data": 1, "tags": {"a": "x" * 65536}}, "tags: larger than 65536 bytes"),
        ({"channel": "a", "data": 1, "tags": "a"}, "tags: an object is needed"),
        ({"channel": "a", "data": 1, "version": -1}, "version: 0 or more is needed"),
        ({"channel": "a", "data": 1, "version": True}, "version: a whole number is needed"),
        ({"channel": "a", "data": 1, "version": 1.5}, "version: a whole number is needed"),
        ({"channel": "a", "data": 1, "version": "1"}, "version: a whole number is needed"),
        ({"channel": "a", "data": 1, "idempotency_key": 1}, "idempotency_key: a string is needed"),
        ({"channel": "a", "data": 1, "idempotency_key": "x" * 257}, "idempotency_key: longer than 256 characters"),
        ({"channel": "a", "data": 1, "version_epoch": [], "version": 1}, "version_epoch: a string is needed"),
        ({"channel": "a", "data": 1, "skip_history": 1}, "skip_history: true or false is needed"),
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
    with pytest.raises(ApiError, match=r"channels: (a list|at least one) is needed"):
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


async def test_a_broadcast_is_held_by_all_congested_channels_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "PATIENCE", 0.01)
    home = house()
    for name in ("a", "b"):
        home.open(f"/ws/{name}")
        home.publish(name, bytes(CONGESTION_BYTES))
    free = Client.listen(home, "free")
    reply = await make(home).call("broadcast", {"channels": ["a", "b", "free"], "data": "x"})
    assert [next(iter(response)) for response in reply["responses"]] == ["error", "error", "result"]
    assert free.said() == ["x"]


async def test_a_channel_named_twice_hears_twice() -> None:
    _, api = backend(options=KEEPS)
    reply = await api.call("broadcast", {"channels": ["a", "a"], "data": 1})
    assert [response["result"]["offset"] for response in reply["responses"]] == [1, 2]


# Publications that are kept


async def test_publish_tells_the_position_of_what_is_kept() -> None:
    _, api = backend(options=KEEPS, namespaces={"chat": ChannelOptions()})
    first, second = [await api.call("publish", {"channel": "news", "data": n}) for n in (1, 2)]
    assert first == {"offset": 1, "epoch": second["epoch"]}
    assert second["offset"] == 2
    assert second["epoch"]
    assert await api.call("publish", {"channel": "chat:a", "data": 1}) == {}


async def test_skip_history_publishes_and_keeps_nothing() -> None:
    home, api = backend(options=KEEPS)
    raw = Client.listen(home, "news")
    assert await api.call("publish", {"channel": "news", "data": "x", "skip_history": True}) == {}
    assert raw.said() == ["x"]
    assert (await api.call("history", {"channel": "news", "limit": -1}))["publications"] == []


@pytest.mark.parametrize("options", [KEEPS, ChannelOptions()])
async def test_an_idempotency_key_is_said_once_for_five_minutes(options: ChannelOptions) -> None:
    home, api = backend(options=options)
    raw = Client.listen(home, "news")
    request = {"channel": "news", "data": "x", "idempotency_key": "k"}
    assert await api.call("publish", request) == await api.call("publish", request)
    await api.call("publish", request | {"idempotency_key": "other"})
    assert raw.said() == ["x", "x"]
    home.clock.advance(301)
    await api.call("publish", request)
    assert raw.said() == ["x"]


async def test_an_old_version_is_passed_over() -> None:
    home, api = backend(options=KEEPS)
    raw = Client.listen(home, "news")
    for version, epoch in ((2, "a"), (2, "a"), (1, "a"), (3, "a"), (1, "b")):
        data = f"{version}{epoch}"
        await api.call("publish", {"channel": "news", "data": data, "version": version, "version_epoch": epoch})
    assert raw.said() == ["2a", "3a", "1b"]


async def test_tags_go_with_a_publication() -> None:
    home, api = backend()
    ann = Client.connect(home, "", "news")
    await api.call("publish", {"channel": "news", "data": 1, "tags": {"a": "b"}})
    assert ann.said() == [{"push": {"channel": "news", "pub": {"data": 1, "tags": {"a": "b"}}}}]


async def test_binary_is_base64_to_who_speaks_json() -> None:
    home, api = backend()
    ann = Client.connect(home, "", "news")
    await api.call("publish", {"channel": "news", "b64data": "/wA=", "tags": {"a": "b"}})
    tags = {"a": "b", "encoding": "base64"}
    assert ann.said() == [{"push": {"channel": "news", "pub": {"data": "/wA=", "tags": tags}}}]


async def test_the_tag_key_says_what_may_take_the_place_of_what() -> None:
    home, api = backend(options=ChannelOptions(lag=LagLimits(LagPolicy.CONFLATE, messages=2)))
    ann = Client.connect(home, "", "cars")
    ann.transport.stall()
    for number, key in enumerate("aabbab"):
        await api.call("publish", {"channel": "cars", "data": f"{key}{number}", "tags": {"key": key}})
        home.loop.settle()
    ann.transport.drain()
    assert [push["push"]["pub"]["data"] for push in ann.said()] == ["a0", "a4", "b5"]
    home.assert_balanced()


# Channels


async def test_presence_tells_who_is_there() -> None:
    home, api = backend(options=OPEN)
    ann, bob = Client.connect(home, "ann", "news"), Client.connect(home, "", "news")
    Client.connect(home, "ann", "news")
    present = (await api.call("presence", {"channel": "news"}))["presence"]
    assert present[ann.id] == {"client": ann.id, "user": "ann"}
    assert present[bob.id] == {"client": bob.id, "user": ""}
    assert await api.call("presence_stats", {"channel": "news"}) == {"num_clients": 3, "num_users": 2}
    assert await api.call("presence", {"channel": "empty"}) == {"presence": {}}
    assert await api.call("presence_stats", {"channel": "empty"}) == {"num_clients": 0, "num_users": 0}


@pytest.mark.parametrize("command", ["presence", "presence_stats", "history", "history_remove"])
async def test_what_is_not_kept_is_not_available(command: str) -> None:
    with pytest.raises(ApiError, match="the channel keeps no") as error:
        await make(house()).call(command, {"channel": "news"})
    assert error.value.code == 108
    for channel in (None, "", 5, "x" * 129):
        with pytest.raises(ApiError, match="channel") as error:
            await make(house(options=OPEN)).call(command, {"channel": channel})
        assert error.value.code == BAD_REQUEST


async def kept(api: Any, **fields: Any) -> list[Any]:
    reply = await api.call("history", {"channel": "news", **fields})
    assert reply["offset"] == 5
    return [orjson.loads(orjson.dumps(publication["data"])) for publication in reply["publications"]]


async def test_history_reads_any_part() -> None:
    _, api = backend(options=KEEPS)
    for number in range(1, 6):
        epoch = (await api.call("publish", {"channel": "news", "data": number}))["epoch"]
    assert await kept(api) == []
    assert await kept(api, limit=0) == []
    assert await kept(api, limit=-1) == [3, 4, 5]
    assert await kept(api, limit=2) == [3, 4]
    assert await kept(api, limit=2, reverse=True) == [5, 4]
    assert await kept(api, limit=-1, since={"offset": 4, "epoch": epoch}) == [5]
    assert await kept(api, limit=-1, since={"offset": 4, "epoch": ""}) == [5]
    assert await kept(api, limit=-1, since={"offset": 5, "epoch": epoch}, reverse=True) == [4, 3]
    with pytest.raises(ApiError) as error:
        await kept(api, limit=-1, since={"offset": 4, "epoch": "other"})
    assert error.value.code == 112
    for bad in ({"offset": -1}, {"offset": "4"}, {"epoch": 4}, [4]):
        with pytest.raises(ApiError) as error:
            await kept(api, limit=-1, since=bad)
        assert error.value.code == BAD_REQUEST


@pytest.mark.parametrize(
    "fields",
    [
        {"limit": 2**63},
        {"limit": 2**63 - 1},
        {"limit": -(2**63)},
        {"limit": 1, "since": {"offset": 2**64}},
    ],
)
async def test_a_number_that_no_field_of_the_protocol_holds_is_a_bad_request(fields: dict[str, Any]) -> None:
    _, api = backend(options=KEEPS)
    with pytest.raises(ApiError) as error:
        await api.call("history", {"channel": "news", **fields})
    assert error.value.code == BAD_REQUEST
    reply = await api.call("history", {"channel": "news", "limit": 2**31 - 1, "since": {"offset": 2**64 - 1}})
    assert reply["publications"] == []


async def test_the_application_reads_as_much_of_a_history_as_it_likes() -> None:
    _, api = backend(options=ChannelOptions(retention=Retention(9, 300), history_limit=2, lag=LagLimits(bytes=1)))
    for number in range(1, 6):
        await api.call("publish", {"channel": "news", "data": number})
    assert await kept(api, limit=-1) == [1, 2, 3, 4, 5]


async def test_history_tells_who_said_it_and_with_what_tags() -> None:
    home, api = backend(options=KEEPS)
    ann = Client.connect(home, "ann", "news")
    ann.say('{"id":3,"publish":{"channel":"news","data":{"n":1}}}')
    await api.call("publish", {"channel": "news", "b64data": "/w==", "tags": {"a": "b"}})
    reply = orjson.loads(orjson.dumps(await api.call("history", {"channel": "news", "limit": -1})))
    assert reply["publications"] == [
        {"data": {"n": 1}, "offset": 1, "info": {"client": ann.id, "user": "ann"}},
        {"data": "/w==", "offset": 2, "tags": {"a": "b", "encoding": "base64"}},
    ]


async def test_history_remove_forgets_all_but_the_position() -> None:
    _, api = backend(options=KEEPS)
    for number in range(1, 6):
        position = await api.call("publish", {"channel": "news", "data": number})
    assert await api.call("history_remove", {"channel": "news"}) == {}
    reply = await api.call("history", {"channel": "news", "limit": -1})
    assert reply == {"publications": [], "offset": 5, "epoch": position["epoch"]}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        (None, {"chat:1", "chat:2", "news"}),
        ("", {"chat:1", "chat:2", "news"}),
        ("*", {"chat:1", "chat:2", "news"}),
        ("chat:*", {"chat:1", "chat:2"}),
        ("chat:?", {"chat:1", "chat:2"}),
        ("chat:[!1]", {"chat:2"}),
        ("NEWS", set()),
        ("new", set()),
    ],
)
async def test_channels_that_have_listeners_are_named(pattern: str | None, names: set[str]) -> None:
    home, api = backend()
    Client.connect(home, "ann", "chat:1", "chat:2", "news")
    Client.listen(home, "news")
    leaves = Client.connect(home, "bob", "gone")
    leaves.say('{"id":3,"unsubscribe":{"channel":"gone"}}')
    channels = (await api.call("channels", {"pattern": pattern}))["channels"]
    assert channels.keys() == names
    assert channels.get("news", {"num_clients": 2}) == {"num_clients": 2}
    with pytest.raises(ApiError, match="pattern"):
        await api.call("channels", {"pattern": 5})


async def test_info_counts_everyone() -> None:
    home, api = backend()
    Client.connect(home, "ann", "a", "b")
    Client.listen(home, "a", "ann")
    Client.listen(home, "a")
    home.clock.advance(7)
    (node,) = (await api.call("info", {}))["nodes"]
    assert node.pop("version")
    assert node == {
        "uid": "node",
        "name": "node",
        "num_clients": 3,
        "num_users": 1,
        "num_channels": 2,
        "num_subs": 4,
        "uptime": 7,
    }


# Batches


async def test_a_batch_is_done_in_its_order() -> None:
    _, api = backend(options=KEEPS)
    commands = [{"publish": {"channel": "news", "data": n}} for n in range(3)]
    commands += [{"history_remove": {"channel": "news"}}, {"history": {"channel": "news", "limit": -1}}]
    replies = (await api.call("batch", {"commands": commands}))["replies"]
    assert [reply["publish"]["offset"] for reply in replies[:3]] == [1, 2, 3]
    assert replies[3] == {"history_remove": {}}
    assert replies[4]["history"]["publications"] == []


@pytest.mark.parametrize("parallel", [True, False])
async def test_one_bad_command_does_not_spoil_a_batch(parallel: bool) -> None:
    _, api = backend()
    good = {"publish": {"channel": "news", "data": 1}}
    bad: list[Any] = [
        {"publish": {"channel": ""}},
        {"publish": {"channel": "a", "data": 1}, "info": {}},
        {"publish": []},
        {"batch": {"commands": []}},
        {"explode": {}},
        {"publish": None},
        {},
        5,
        None,
    ]
    replies = (await api.call("batch", {"commands": [good, *bad, good], "parallel": parallel}))["replies"]
    assert [reply.get("error", {}).get("code", 0) for reply in replies] == [
        *(0, 107, 107, 107, 104, 104, 104, 104, 104, 104, 0),
    ]
    assert (await api.call("batch", {"commands": [good | {"info": None}]}))["replies"] == [{"publish": {}}]


@pytest.mark.parametrize("parallel", [True, False])
async def test_a_fault_of_our_own_does_not_spoil_a_batch(parallel: bool, caplog: pytest.LogCaptureFixture) -> None:
    home, api = backend(options=KEEPS)
    home.node.broker.remove_history = lambda channel, done: 1 / 0  # type: ignore[method-assign]
    good, bad = {"publish": {"channel": "news", "data": 1}}, {"history_remove": {"channel": "news"}}
    replies = (await api.call("batch", {"commands": [good, bad, good], "parallel": parallel}))["replies"]
    assert [reply.get("publish", {}).get("offset") for reply in replies] == [1, None, 2]
    assert replies[1] == {"error": {"code": 100, "message": "internal server error"}}
    (record,) = caplog.records
    assert "history_remove" in record.message
    assert record.exc_info is not None
    caplog.clear()


async def test_a_batch_of_nothing_is_answered_with_nothing() -> None:
    assert await make(house()).call("batch", {"commands": []}) == {"replies": []}


@pytest.mark.parametrize("commands", [None, {}, "all", [{"info": {}}] * 1001])
async def test_a_batch_needs_a_list_that_is_not_too_long(commands: object) -> None:
    with pytest.raises(ApiError, match="commands") as error:
        await make(house()).call("batch", {"commands": commands})
    assert error.value.code == BAD_REQUEST
    with pytest.raises(ApiError, match="parallel"):
        await make(house()).call("batch", {"commands": [], "parallel": "yes"})


# A broker that cannot


class AwayBroker:
    """Answers everything with an error."""

    def __getattr__(self, name: str) -> Any:
        return lambda *given: given[-1](BrokerError("away"))


@pytest.mark.parametrize(
    ("command", "fields"),
    [
        ("publish", {"data": 1}),
        ("history", {}),
        ("history_remove", {}),
        ("presence", {}),
        ("presence_stats", {}),
    ],
)
async def test_what_the_broker_cannot_is_an_internal_error(command: str, fields: dict[str, Any]) -> None:
    home, api = backend(options=OPEN)
    home.node.broker = AwayBroker()
    with pytest.raises(ApiError, match="the broker cannot do this now") as error:
        await api.call(command, {"channel": "news", **fields})
    assert error.value.code == 100
    reply = await api.call("broadcast", {"channels": ["a"], "data": 1})
    assert reply["responses"][0]["error"]["code"] == 100
