"""The server API and the clients of a user: put on channels, taken off, disconnected, prolonged; in both dialects."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from server.admin.fields import ApiError
from server.brokers.base import Retention
from server.node.namespaces import ChannelOptions
from tests.backend import NOW, Client, backend

BAD_REQUEST = 107
OPEN = ChannelOptions(presence=True, join_leave=True, retention=Retention(10, 300))


@pytest.mark.parametrize("command", ["subscribe", "unsubscribe", "disconnect", "refresh"])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"user": None}, "user: a name is needed"),
        ({"user": 7}, "user: a string is needed"),
        ({"user": ["ann"]}, "user: a string is needed"),
        ({"user": "ann", "client": 7}, "client: a string is needed"),
        ({"user": "ann", "session": {}}, "session: a string is needed"),
    ],
)
async def test_whose_clients_is_to_be_said(command: str, fields: Mapping[str, Any], message: str) -> None:
    home, api = backend()
    ann = Client.connect(home, "ann", "news")
    with pytest.raises(ApiError, match=message) as error:
        await api.call(command, {"channel": "news", **fields})
    assert error.value.code == BAD_REQUEST
    assert (ann.said(), ann.code) == ([], 0)


@pytest.mark.parametrize("command", ["subscribe", "unsubscribe", "disconnect", "refresh"])
async def test_of_whom_nobody_is_here_nothing_is_done(command: str) -> None:
    home, api = backend()
    ann, bob = Client.connect(home, "ann", "news"), Client.connect(home, "bob", "news")
    for fields in (
        {"user": "eve"},
        {"user": "ann", "client": bob.id},
        {"user": "ann", "session": bob.id},
        {"user": "ann", "client": ann.id, "session": bob.id},
        {"user": "ann", "client": "no such client"},
        {"user": ""},
    ):
        assert await api.call(command, {"channel": "news", **fields}) == {}
    assert (ann.said(), bob.said(), ann.code, bob.code) == ([], [], 0, 0)


@pytest.mark.parametrize("field", ["client", "session"])
async def test_one_of_the_clients_can_be_meant(field: str) -> None:
    home, api = backend()
    clients = [Client.connect(home, "ann", "news") for _ in range(3)]
    assert await api.call("disconnect", {"user": "ann", field: clients[1].id}) == {}
    assert [client.said() for client in clients] == [[], [], []]
    assert [client.code for client in clients] == [0, 3503, 0]


async def test_subscribe_puts_all_clients_of_a_user_on_a_channel() -> None:
    home, api = backend(options=OPEN)
    clients, other = [Client.connect(home, "ann") for _ in range(2)], Client.connect(home, "bob")
    request = {"user": "ann", "channel": "news", "info": {"role": "host"}, "data": {"seats": 4}}
    assert await api.call("subscribe", request) == {}
    for client in clients:
        push = client.said_at_once()[0]["push"]
        assert push["channel"] == "news"
        assert push["subscribe"]["data"] == {"seats": 4}
        assert push["subscribe"]["recoverable"] is True
    assert other.said() == []
    present = (await api.call("presence", {"channel": "news"}))["presence"]
    assert {name: json.loads(orjson.dumps(info["chan_info"])) for name, info in present.items()} == {
        client.id: {"role": "host"} for client in clients
    }
    await api.call("publish", {"channel": "news", "data": 1})
    assert [client.said()[-1]["push"]["pub"]["data"] for client in clients] == [1, 1]
    assert await api.call("subscribe", request) == {}, "again is as good"


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"channel": None}, 107, "channel: a name is needed"),
        ({"channel": "x" * 129}, 107, "channel: the name is longer than 128 characters"),
        ({"b64info": "/w=="}, 107, "b64info: base64 of JSON is needed"),
        ({"b64data": "e30"}, 107, "b64data: not base64"),
        ({"b64data": 5}, 107, "b64data: not base64"),
        ({"info": "x" * 70_000}, 107, "info: larger than 65536 bytes"),
        ({"expire_at": NOW}, 107, "expire_at: is in the past"),
        ({"expire_at": -1}, 107, "expire_at: 0 or more is needed"),
        ({"expire_at": "soon"}, 107, "expire_at: a whole number is needed"),
        ({"recover_since": {"offset": 1, "epoch": "a"}}, 108, "recover_since: not available"),
        ({"override": {"presence": {"value": True}}}, 108, "override: not available"),
    ],
)
async def test_subscribe_refuses(fields: dict[str, Any], code: int, message: str) -> None:
    home, api = backend()
    ann = Client.connect(home, "ann")
    with pytest.raises(ApiError, match=message) as error:
        await api.call("subscribe", {"user": "ann", "channel": "news", **fields})
    assert (error.value.code, str(error.value)) == (code, message)
    assert ann.said() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"b64info": "", "b64data": "", "info": None, "data": None, "expire_at": 0, "client": "", "session": ""},
        {"override": {}, "recover_since": None},
    ],
)
async def test_what_is_null_or_empty_is_missing(fields: dict[str, Any]) -> None:
    home, api = backend()
    ann = Client.connect(home, "ann")
    assert await api.call("subscribe", {"user": "ann", "channel": "news", **fields}) == {}
    assert ann.said() == [{"push": {"channel": "news", "subscribe": {}}}]


async def test_base64_of_json_is_told_on_one_line() -> None:
    home, api = backend()
    ann = Client.connect(home, "ann")
    data = base64.b64encode(b'{\n"a": 1.0}').decode()
    await api.call("subscribe", {"user": "ann", "channel": "news", "b64data": data})
    assert ann.said() == [{"push": {"channel": "news", "subscribe": {"data": {"a": 1.0}}}}]


async def test_a_subscription_by_the_server_ends_in_its_time() -> None:
    home, api = backend()
    ann = Client.connect(home, "ann")
    await api.call("subscribe", {"user": "ann", "channel": "news", "expire_at": NOW + 60})
    ann.said()
    home.clock.advance(59)
    home.service.tick()
    assert (ann.said(), ann.code) == ([], 0)
    home.clock.advance(40)
    home.service.tick()
    assert (ann.said(), ann.code) == ([], 3006)


async def test_a_raw_client_is_on_its_one_channel() -> None:
    home, api = backend()
    raw = Client.listen(home, "news", "ann")
    assert await api.call("subscribe", {"user": "ann", "channel": "news"}) == {}
    with pytest.raises(ApiError, match="not available") as error:
        await api.call("subscribe", {"user": "ann", "channel": "other"})
    assert error.value.code == 108
    both = Client.connect(home, "ann")
    assert await api.call("subscribe", {"user": "ann", "channel": "other"}) == {}, "one of them can"
    assert (raw.said(), both.said()) == ([], [{"push": {"channel": "other", "subscribe": {}}}])


async def test_what_cannot_be_for_one_is_told_after_all_have_been_tried() -> None:
    home, api = backend(max_channels=1)
    full, free = Client.connect(home, "ann", "a"), Client.connect(home, "ann")
    with pytest.raises(ApiError, match="limit exceeded") as error:
        await api.call("subscribe", {"user": "ann", "channel": "news"})
    assert error.value.code == 106
    assert (full.said(), free.said()) == ([], [{"push": {"channel": "news", "subscribe": {}}}])


async def test_unsubscribe_acts_at_once() -> None:
    home, api = backend()
    ann, bob = Client.connect(home, "ann", "news", "chat"), Client.connect(home, "bob", "news")
    raw, other = Client.listen(home, "news", "ann"), Client.listen(home, "chat", "ann")
    await api.call("publish", {"channel": "news", "data": "before"})
    assert await api.call("unsubscribe", {"user": "ann", "channel": "news"}) == {}
    gone = {"push": {"channel": "news", "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}}}
    assert ann.said_at_once()[-1] == gone
    assert (raw.said_at_once(), raw.code, raw.reason) == ([], 1008, "server unsubscribe")
    await api.call("publish", {"channel": "news", "data": "after"})
    assert ann.said() == []
    assert [push["push"]["pub"]["data"] for push in bob.said()] == ["before", "after"]
    assert other.said() == []


@pytest.mark.parametrize("channel", [{}, {"channel": None}, {"channel": ""}])
async def test_unsubscribe_from_nothing_is_from_all(channel: dict[str, Any]) -> None:
    home, api = backend()
    ann, raw = Client.connect(home, "ann", "a", "b"), Client.listen(home, "c", "ann")
    assert await api.call("unsubscribe", {"user": "ann", **channel}) == {}
    assert sorted(push["push"]["channel"] for push in ann.said()) == ["a", "b"]
    assert (raw.said(), raw.code) == ([], 1008)


async def test_unsubscribe_refuses_what_is_no_name() -> None:
    with pytest.raises(ApiError, match="channel: a string is needed"):
        await backend()[1].call("unsubscribe", {"user": "ann", "channel": 5})


async def test_whoever_is_let_in_can_be_reached_however_long_its_name() -> None:
    home, api = backend()
    name = "u" * 8000
    ann = Client.connect(home, name)
    assert await api.call("subscribe", {"user": name, "channel": "news"}) == {}
    assert ann.said() == [{"push": {"channel": "news", "subscribe": {}}}]
    assert await api.call("disconnect", {"user": name}) == {}
    ann.said()
    assert ann.code == 3503


@pytest.mark.parametrize("command", ["subscribe", "refresh"])
@pytest.mark.parametrize("expires", [2**63, 2**64 - 1, -1])
async def test_a_date_that_no_field_of_the_protocol_holds_is_a_bad_request(command: str, expires: int) -> None:
    _, api = backend()
    with pytest.raises(ApiError, match="expire_at") as error:
        await api.call(command, {"user": "ann", "channel": "news", "expire_at": expires})
    assert error.value.code == 107


async def test_disconnect_acts_at_once_and_for_good() -> None:
    home, api = backend()
    ann, bob = Client.connect(home, "ann", "news"), Client.connect(home, "bob", "news")
    raw = Client.listen(home, "news", "ann")
    assert await api.call("disconnect", {"user": "ann"}) == {}
    assert (ann.said_at_once(), ann.code, ann.reason) == ([], 3503, "force disconnect")
    assert (raw.said_at_once(), raw.code, raw.reason) == ([], 1008, "force disconnect")
    assert (bob.said(), bob.code) == ([], 0)
    await api.call("publish", {"channel": "news", "data": 1})
    assert (ann.said(), raw.said()) == ([], [])
    assert await api.call("disconnect", {"user": "ann"}) == {}


@pytest.mark.parametrize(
    ("given", "code", "raw_code", "reason"),
    [
        (None, 3503, 1008, "force disconnect"),
        ({"code": 4001, "reason": "bye"}, 4001, 4001, "bye"),
        ({"code": 3000, "reason": ""}, 3000, 1008, ""),
        ({"code": 4999, "reason": "x" * 123}, 4999, 4999, "x" * 123),
    ],
)
async def test_disconnect_says_what_it_is_told_to(given: object, code: int, raw_code: int, reason: str) -> None:
    home, api = backend()
    ann, raw = Client.connect(home, "ann"), Client.listen(home, "news", "ann")
    await api.call("disconnect", {"user": "ann", "disconnect": given})
    assert (ann.said(), raw.said()) == ([], [])
    assert (ann.code, raw.code, ann.reason, raw.reason) == (code, raw_code, reason, reason)


@pytest.mark.parametrize(
    "given",
    [
        {"code": 2999},
        {"code": 5000},
        {"code": 0, "reason": ""},
        {"reason": "no code"},
        {"code": "4000"},
        {"code": 4000.5},
        {"code": 4000, "reason": "x" * 124},
        {"code": 4000, "reason": "é" * 62},
        {"code": 4000, "reason": 5},
        [4000],
        4000,
    ],
)
async def test_disconnect_refuses_codes_that_no_close_frame_can_say(given: object) -> None:
    home, api = backend()
    ann = Client.connect(home, "ann")
    with pytest.raises(ApiError) as error:
        await api.call("disconnect", {"user": "ann", "disconnect": given})
    assert error.value.code == BAD_REQUEST
    assert (ann.said(), ann.code) == ([], 0)


@pytest.mark.parametrize("whitelist", [[], None])
async def test_an_empty_whitelist_spares_nobody(whitelist: object) -> None:
    home, api = backend()
    ann = Client.connect(home, "ann")
    await api.call("disconnect", {"user": "ann", "whitelist": whitelist})
    assert (ann.said(), ann.code) == ([], 3503)


async def test_a_whitelist_spares() -> None:
    home, api = backend()
    ann, other = Client.connect(home, "ann"), Client.connect(home, "ann")
    await api.call("disconnect", {"user": "ann", "whitelist": [ann.id, "someone"]})
    assert (ann.said(), other.said(), ann.code, other.code) == ([], [], 0, 3503)
    for bad in ("all", [5], [[ann.id]], {"a": 1}):
        with pytest.raises(ApiError, match="whitelist"):
            await api.call("disconnect", {"user": "ann", "whitelist": bad})
    assert (ann.said(), ann.code) == ([], 0)


async def test_refresh_prolongs() -> None:
    home, api = backend()
    ann, raw = Client.connect(home, "ann"), Client.listen(home, "news", "ann")
    assert await api.call("refresh", {"user": "ann", "expire_at": NOW + 100}) == {}
    assert ann.said() == [{"push": {"refresh": {"expires": True, "ttl": 100}}}]
    assert await api.call("refresh", {"user": "ann"}) == {}
    assert ann.said() == [{"push": {"refresh": {}}}]
    home.tick(1000)
    assert (ann.code, raw.code) == (0, 0)


@pytest.mark.parametrize("fields", [{"expired": True}, {"expire_at": NOW}, {"expire_at": 1}])
async def test_refresh_can_end_a_connection_at_once(fields: dict[str, Any]) -> None:
    home, api = backend()
    ann, raw = Client.connect(home, "ann"), Client.listen(home, "news", "ann")
    assert await api.call("refresh", {"user": "ann", **fields}) == {}
    assert (ann.said_at_once(), ann.code, ann.reason) == ([], 3005, "connection expired")
    assert (raw.said_at_once(), raw.code, raw.reason) == ([], 1008, "connection expired")


@pytest.mark.parametrize(
    ("fields", "code"),
    [({"expire_at": "1"}, 107), ({"expired": 1}, 107), ({"expire_at": -1}, 107), ({"info": {"name": "Ann"}}, 108)],
)
async def test_refresh_refuses(fields: dict[str, Any], code: int) -> None:
    with pytest.raises(ApiError) as error:
        await backend()[1].call("refresh", {"user": "ann", **fields})
    assert error.value.code == code


def connection_of(client: Client) -> str:
    """Return what the debug pages call a client."""
    listener = client.home.listener
    return listener.client_id(client.transport.protocol)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["centrifuge", "anonymous", "named", "raw", "raw with a name", "echo", "silent"])
async def test_whoever_is_on_the_debug_pages_can_be_disconnected(kind: str) -> None:
    home, api = backend()
    clients = []
    for _ in range(3):
        if kind == "echo":
            clients.append(Client(home, home.open("/echo")[1]))
        elif kind == "silent":  # it has not said yet who it is
            clients.append(Client(home, home.open("/connection/websocket")[1]))
        elif kind.startswith("raw"):
            clients.append(Client.listen(home, "news", "ann" if "name" in kind else ""))
        else:
            clients.append(Client.connect(home, "ann" if kind == "named" else "", "news"))
    assert len({connection_of(client) for client in clients}) == 3
    wanted = {"client": connection_of(clients[1])}
    assert await api.call("disconnect", wanted) == {}
    assert [client.said() for client in clients] == [[], [], []]
    code = 1008 if kind == "echo" or kind.startswith("raw") else 3503
    assert [client.code for client in clients] == [0, code, 0]
    clients[1].transport.lose()
    assert await api.call("disconnect", wanted) == {}
    assert home.listener.recorder.before(1, 1)[0].client == wanted["client"]


async def test_a_socket_without_a_request_can_be_disconnected() -> None:
    home, api = backend()
    connection, transport = home.accept()
    await api.call("disconnect", {"client": home.listener.client_id(connection)})
    assert transport.is_aborted


@pytest.mark.parametrize(
    "client", ["-", "-1", "1", "x-1", "no such client", "0" * 250, "{name}-0", "{name}-9", "{name}-²"]
)
async def test_whoever_is_not_there_is_not_disconnected(client: str) -> None:
    home, api = backend()
    here = Client.listen(home, "news")
    name = connection_of(here).partition("-")[0]
    assert await api.call("disconnect", {"client": client.format(name=name)}) == {}
    assert (here.said(), here.code) == ([], 0)


async def test_other_servers_clients_have_other_names() -> None:
    (one, _), (other, api) = backend(), backend()
    theirs, ours = Client.listen(one, "news"), Client.listen(other, "news")
    await api.call("disconnect", {"client": connection_of(theirs)})
    assert (ours.said(), ours.code) == ([], 0)


async def test_only_to_disconnect_a_client_alone_will_do() -> None:
    home, api = backend()
    ann = Client.connect(home, "ann", "news")
    for command in ("subscribe", "unsubscribe", "refresh"):
        with pytest.raises(ApiError, match="user: a name is needed"):
            await api.call(command, {"channel": "news", "client": ann.id})
