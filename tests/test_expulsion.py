"""Who lives by a token that is revoked is ended, by the server API, in both dialects; and nobody else is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from server.admin.fields import ApiError
from server.admin.node_api import NodeApi
from server.brokers.base import BrokerError, Retention
from server.core.revocations import Token
from server.edge import expulsion
from server.edge.expulsion import DELAY, Expulsion
from server.node.namespaces import ChannelOptions
from tests import wire
from tests.backend import NOW, Client, api_of, backend, serving, signed_house
from tests.fakes import Clock, Loop
from tests.forgeries import FUTURE, signed
from tests.house import House
from tests.lifecycle.asking import bearer

INVALID = (3500, "invalid token")
CLOSED = ChannelOptions(subscribe=False)


def town() -> tuple[House, NodeApi]:
    home = signed_house(namespaces={"shut": CLOSED, "kept": ChannelOptions(retention=Retention(10, 300))})
    return home, api_of(home)


def token(uid: str = "", user: str = "ann", issued: int = 0, **more: Any) -> str:
    claims = {
        "sub": user,
        "exp": FUTURE,
        **({"jti": uid} if uid else {}),
        **({"iat": issued} if issued else {}),
        **more,
    }
    return signed(claims)


def end(client: Client) -> tuple[int, str]:
    client.said()
    return client.code, client.reason


def status(home: House, path: str, *fields: str) -> int:
    """Ask for a connection; return the HTTP status."""
    connection, transport = home.accept()
    connection.data_received(wire.request(path, *fields))
    return wire.answer(transport.take()).status


def connect(home: House, shown: str) -> tuple[int, str]:
    """Show a token in a connect command; return how that ends, (0, "") if it does not."""
    client = Client(home, home.open("/connection/websocket")[1])
    client.say(f'{{"id":1,"connect":{{"token":"{shown}"}}}}')
    return client.code, client.reason


def subscribe(client: Client, shown: str, channel: str = "shut:1") -> Any:
    """Subscribe by a token; return the reply."""
    (reply,) = client.say(f'{{"id":7,"subscribe":{{"channel":"{channel}","token":"{shown}"}}}}')
    return reply


# Connections


async def test_a_revoked_token_ends_its_connection_and_opens_none() -> None:
    home, api = town()
    ann, other = Client.connect(home, token("1")), Client.connect(home, token("2"))
    assert await api.call("revoke_token", {"uid": "1"}) == {}
    assert connect(home, token("1")) == INVALID, "at once"
    home.expel()
    assert end(ann) == INVALID
    assert end(other) == (0, "")
    assert connect(home, token("2")) == (0, "")


async def test_who_showed_it_at_the_upgrade_is_no_better_off() -> None:
    home, api = town()
    silent = Client(home, home.open("/connection/websocket", bearer(token("1")))[1])
    hasty = Client(home, home.open("/connection/websocket", bearer(token("1")))[1])
    hasty.say('{"id":1,"connect":{}}')
    await api.call("revoke_token", {"uid": "1"})
    home.expel()
    assert (end(silent), end(hasty)) == (INVALID, INVALID)
    assert status(home, "/connection/websocket", bearer(token("1"))) == 401


@pytest.mark.parametrize("path", ["/ws/news", "/echo"])
@pytest.mark.parametrize("user", ["ann", ""])
async def test_raw_clients_are_ended_too(path: str, user: str) -> None:
    home, api = town()
    clients = [Client(home, home.open(path, bearer(token(uid, user)))[1]) for uid in ("1", "2")]
    await api.call("revoke_token", {"uid": "1"})
    assert status(home, path, bearer(token("1", user))) == 401
    home.expel()
    assert [end(client) for client in clients] == [(1008, "invalid token"), (0, "")]
    assert status(home, path, bearer(token("2", user))) == 101


async def test_the_tokens_of_a_user_from_before_are_invalid() -> None:
    home, api = town()
    clients = {
        name: Client.connect(home, shown)
        for name, shown in {
            "before": token(issued=NOW - 10),
            "just before": token(issued=NOW - 1),
            "undated": token(),
            "in that second": token(issued=NOW),
            "after": token(issued=NOW + 1),
            "another user": token(user="bob", issued=NOW - 10),
        }.items()
    }
    raw = Client(home, home.open("/ws/news", bearer(token(issued=NOW - 10)))[1])
    # Without a date it is now, in whole seconds.
    assert await api.call("invalidate_user_tokens", {"user": "ann"}) == {}
    home.expel()
    gone = [name for name, client in clients.items() if end(client) == INVALID]
    assert gone == ["before", "just before", "undated"]
    assert end(raw) == (1008, "invalid token")
    assert connect(home, token(issued=NOW - 1)) == INVALID
    assert connect(home, token(issued=NOW)) == (0, "")


async def test_before_which_date_can_be_said() -> None:
    home, api = town()
    await api.call("invalidate_user_tokens", {"user": "ann", "issued_before": NOW - 5})
    assert connect(home, token(issued=NOW - 6)) == INVALID
    assert connect(home, token(issued=NOW - 5)) == (0, "")


async def test_it_is_forgotten_at_its_end() -> None:
    home, api = town()
    await api.call("revoke_token", {"uid": "1", "expire_at": NOW + 10})
    await api.call("invalidate_user_tokens", {"user": "bob", "expire_at": NOW + 10})
    revocations = home.node.revocations
    revocations.tick()
    assert connect(home, token("1")) == connect(home, token(user="bob")) == INVALID
    revocations.wall_clock = lambda: NOW + 10.0
    revocations.tick()
    assert connect(home, token("1")) == connect(home, token(user="bob")) == (0, "")


async def test_a_refresh_brings_another_token_to_live_by() -> None:
    home, api = town()
    ann = Client.connect(home, token("1"))
    ann.say(f'{{"id":2,"refresh":{{"token":"{token("2")}"}}}}')
    await api.call("revoke_token", {"uid": "1"})
    home.expel()
    assert end(ann) == (0, "")
    await api.call("revoke_token", {"uid": "2"})
    home.expel()
    assert end(ann) == INVALID


async def test_a_refresh_with_a_revoked_token_ends_it() -> None:
    home, api = town()
    ann = Client.connect(home, token("1"))
    await api.call("revoke_token", {"uid": "2"})
    ann.say(f'{{"id":2,"refresh":{{"token":"{token("2")}"}}}}')
    assert end(ann) == INVALID


async def test_a_token_that_is_over_and_revoked_is_no_reason_to_fetch_another() -> None:
    home, api = town()
    late = token("1", exp=1)
    client = Client(home, home.open("/connection/websocket")[1])
    (reply,) = client.say(f'{{"id":1,"connect":{{"token":"{late}"}}}}')
    assert reply["error"]["code"] == 109
    await api.call("revoke_token", {"uid": "1"})
    assert connect(home, late) == INVALID


# Subscriptions


async def test_a_revoked_subscription_token_ends_that_subscription_alone() -> None:
    home, api = town()
    ann, bob = Client.connect(home, token(), "kept:news"), Client.connect(home, token(user="bob"))
    assert "subscribe" in subscribe(ann, token("1", channel="shut:1"))
    assert "subscribe" in subscribe(ann, token("2", channel="shut:2"), "shut:2")
    assert "subscribe" in subscribe(bob, token("3", user="bob", channel="shut:1"))
    await api.call("revoke_token", {"uid": "1"})
    home.expel()
    gone = {"channel": "shut:1", "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}}
    assert ann.said() == [{"push": gone}]
    assert bob.said() == []
    assert subscribe(ann, token("1", channel="shut:1"))["error"]["code"] == 103
    assert "subscribe" in subscribe(ann, token("4", channel="shut:1"))
    await api.call("publish", {"channel": "shut:2", "data": 1})
    assert ann.said()[0]["push"]["pub"] == {"data": 1}


async def test_those_of_a_user_for_one_channel_are_invalid_and_its_connection_is_not() -> None:
    home, api = town()
    ann = Client.connect(home, token(issued=NOW - 10))
    for channel in ("shut:1", "shut:2"):
        assert "subscribe" in subscribe(ann, token(issued=NOW - 10, channel=channel), channel)
    await api.call("invalidate_user_tokens", {"user": "ann", "channel": "shut:1"})
    home.expel()
    assert [push["push"]["channel"] for push in ann.said()] == ["shut:1"]
    assert subscribe(ann, token(issued=NOW - 10, channel="shut:1"))["error"]["code"] == 103
    assert "subscribe" in subscribe(ann, token(issued=NOW, channel="shut:1"))
    assert connect(home, token(issued=NOW - 10)) == (0, "")


async def test_a_sub_refresh_brings_another_token_to_live_by_unless_that_is_revoked() -> None:
    home, api = town()
    ann = Client.connect(home, token())
    subscribe(ann, token("1", channel="shut:1"))

    def sub_refresh(uid: str) -> list[Any]:
        shown = token(uid, channel="shut:1")
        return ann.say(f'{{"id":8,"sub_refresh":{{"channel":"shut:1","token":"{shown}"}}}}')

    (reply,) = sub_refresh("3")
    assert "sub_refresh" in reply
    await api.call("revoke_token", {"uid": "1"})
    home.expel()
    assert ann.said() == [], "it lives by another one now"
    await api.call("revoke_token", {"uid": "3"})
    home.expel()
    assert ann.said()[0]["push"]["unsubscribe"]["code"] == 2000
    assert "subscribe" in subscribe(ann, token("4", channel="shut:1"))
    assert sub_refresh("3") == []
    assert end(ann) == INVALID


async def test_who_came_without_a_token_and_then_shows_one_lives_by_it() -> None:
    home, api = town()
    ann = Client.connect(home, token(), "open", "other")
    shown = token("1", channel="open")
    (reply,) = ann.say(f'{{"id":8,"sub_refresh":{{"channel":"open","token":"{shown}"}}}}')
    assert "sub_refresh" in reply
    await api.call("revoke_token", {"uid": "1"})
    home.expel()
    assert [push["push"]["channel"] for push in ann.said()] == ["open"]


async def test_who_is_on_the_way_to_a_channel_gets_there_no_more() -> None:
    home, api = town()
    ann = Client.connect(home, token())
    seats: list[Callable[[], None]] = []
    subscribe_now = home.node.broker.subscribe

    def later(channel: str, done: Callable[[Any], object]) -> None:
        seats.append(lambda: subscribe_now(channel, done))

    home.node.broker.subscribe = later  # type: ignore[method-assign]
    shown = token("1", channel="shut:1")
    assert ann.say(f'{{"id":7,"subscribe":{{"channel":"shut:1","token":"{shown}"}}}}') == []
    await api.call("revoke_token", {"uid": "1"})
    home.expel()
    seats[0]()
    home.node.broker.subscribe = subscribe_now  # type: ignore[method-assign]
    ann.said()
    await api.call("publish", {"channel": "shut:1", "data": 1})
    assert ann.said() == []
    assert subscribe(ann, shown)["error"]["code"] == 103


# The server API


@pytest.mark.parametrize(
    ("command", "request_", "code", "message"),
    [
        ("revoke_token", {}, 107, "uid: the id of a token is needed"),
        ("revoke_token", {"uid": ""}, 107, "uid: the id of a token is needed"),
        ("revoke_token", {"uid": 7}, 107, "uid: a string is needed"),
        ("revoke_token", {"uid": "x" * 257}, 107, "uid: longer than 256 characters"),
        ("revoke_token", {"uid": "1", "expire_at": NOW}, 107, "expire_at: is in the past"),
        ("revoke_token", {"uid": "1", "expire_at": -1}, 107, "expire_at: 0 or more is needed"),
        ("revoke_token", {"uid": "1", "expire_at": "soon"}, 107, "expire_at: a whole number is needed"),
        ("invalidate_user_tokens", {}, 107, "user: a name is needed"),
        ("invalidate_user_tokens", {"user": None}, 107, "user: a name is needed"),
        ("invalidate_user_tokens", {"user": ["ann"]}, 107, "user: a string is needed"),
        ("invalidate_user_tokens", {"user": "ann", "expire_at": NOW - 1}, 107, "expire_at: is in the past"),
        ("invalidate_user_tokens", {"user": "ann", "issued_before": -1}, 107, "issued_before: 0 or more is needed"),
        ("invalidate_user_tokens", {"user": "ann", "issued_before": 1.5}, 107,
         "issued_before: a whole number is needed"),
        ("invalidate_user_tokens", {"user": "ann", "channel": 7}, 107, "channel: a string is needed"),
        (
            "invalidate_user_tokens", {"user": "ann", "channel": "two words"}, 107,
            "channel: the name has spaces or control characters",
        ),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_refused(command: str, request_: Mapping[str, Any], code: int, message: str) -> None:
    home, api = town()
    with pytest.raises(ApiError) as error:
        await api.call(command, request_)
    assert (error.value.code, str(error.value)) == (code, message)
    assert len(home.node.revocations.revoked) == 0


async def test_what_is_null_or_zero_is_missing() -> None:
    home, api = town()
    await api.call("revoke_token", {"uid": "1", "expire_at": 0})
    await api.call("revoke_token", {"uid": "2", "expire_at": None})
    null = {"user": "ann", "channel": None, "issued_before": None, "expire_at": None}
    await api.call("invalidate_user_tokens", null)
    zero = {"user": "bob", "channel": "", "issued_before": 0, "expire_at": 0}
    await api.call("invalidate_user_tokens", zero)
    assert len(home.node.revocations.revoked) == 4
    assert connect(home, token(user="bob", issued=NOW - 1)) == INVALID
    home.node.revocations.wall_clock = lambda: 1e12
    home.node.revocations.tick()
    assert len(home.node.revocations.revoked) == 4, "for good"


async def test_when_there_is_no_room_or_no_broker_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    home, api = town()
    monkeypatch.setattr("server.node.revocation_log.MOST", 1)
    await api.call("revoke_token", {"uid": "1"})
    with pytest.raises(ApiError, match="10000 revocations are in force") as full:
        await api.call("revoke_token", {"uid": "2"})
    assert full.value.code == 108

    def away(*asked: Any) -> None:
        asked[-1](BrokerError("away"))

    monkeypatch.setattr(home.node.broker, "publish", away)
    with pytest.raises(ApiError, match="the broker cannot do this now") as refused:
        await api.call("revoke_token", {"uid": "1", "expire_at": NOW + 5})
    assert refused.value.code == 100


async def test_where_no_token_is_signed_none_is_revoked() -> None:
    home, api = backend()
    home.node.revocations.is_needed = False
    for command, request in (("revoke_token", {"uid": "1"}), ("invalidate_user_tokens", {"user": "ann"})):
        with pytest.raises(ApiError, match="only signed tokens can be revoked") as error:
            await api.call(command, request)
        assert error.value.code == 108


async def test_it_comes_over_http_in_every_form() -> None:
    home, _ = town()
    async with serving(home, api_key="k3y") as post:
        key = {"X-API-Key": "k3y"}
        assert (await post("revoke_token", {"uid": "1"}))[0] == 401
        assert await post("revoke_token", {"uid": "1"}, key) == (200, {"result": {}})
        assert await post("invalidate_user_tokens", {"user": "ann", "issued_before": 5, "expire_at": NOW + 9}, key) == (
            200,
            {"result": {}},
        )
        batch = {"commands": [{"revoke_token": {"uid": "2"}}, {"invalidate_user_tokens": {}}], "parallel": True}
        wrong = {"error": {"code": 107, "message": "user: a name is needed"}}
        assert await post("batch", batch, key) == (200, {"replies": [{"revoke_token": {}}, wrong]})
        old = (
            b'{"method":"revoke_token","params":{"uid":"3"}}\n{"method":"invalidate_user_tokens","params":{"user":"b"}}'
        )
        assert await post("", old, {"Authorization": "apikey k3y"}) == (200, b'{"result":{}}\n{"result":{}}')
    refuses = home.node.revocations.revoked.refuses
    assert [refuses(Token(uid)) for uid in "123"] == [True, True, True]
    assert [refuses(Token(user="ann", issued=4.0)), refuses(Token(user="b")), refuses(Token(user="c"))] == [
        True,
        True,
        False,
    ]


# How it is done


class Someone:
    """A connection whose session notes when it is looked at; None in its place for one that has no session yet."""

    def __init__(self, seen: list[int], number: int) -> None:
        self.session = self
        self._seen = seen
        self._number = number

    def drop_revoked(self, is_revoked: object) -> None:
        self._seen.append(self._number)


def test_many_revocations_are_one_look_and_a_look_is_many_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expulsion, "LOOKED_AT", 2)
    seen: list[int] = []
    clock = Clock()
    loop = Loop(clock)
    crowd: list[Any] = [Someone(seen, number) for number in range(5)]
    crowd[3].session = None
    looks = Expulsion(crowd, lambda token: True, loop.call_later)
    for _ in range(100):
        looks.hurry()
    clock.advance(DELAY / 2)
    loop.turn()
    assert seen == []
    clock.advance(DELAY / 2)
    loop.turn()
    assert seen == [0, 1]
    looks.hurry()
    loop.turn()
    crowd.append(Someone(seen, 5))
    assert seen == [0, 1, 2]
    loop.turn()
    assert seen == [0, 1, 2, 4]
    clock.advance(DELAY)
    for _ in range(3):
        loop.turn()
    assert seen == [0, 1, 2, 4, 0, 1, 2, 4, 5]
    assert loop.timers == []
