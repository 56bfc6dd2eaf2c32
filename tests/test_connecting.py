"""Who a Centrifuge client is: tokens at the upgrade and in the connect command, for how long, and where it is put."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Final

import orjson
import pytest

from server.brokers.base import Retention
from server.core.lag import LagLimits
from server.core.publication import Publication
from server.dialects.centrifuge import codes
from server.edge.credentials import StaticTokens
from server.edge.signatures import MAX_TOKEN
from server.node.namespaces import ChannelOptions
from tests import wire
from tests.forgeries import FUTURE, early_hmac, expired_hmac, forged_hmac, signed
from tests.speaker import (
    DENIED,
    EXPIRED,
    PATH,
    Speaker,
    connect,
    connected,
    dialect_house,
    error,
    jwt_house,
    published,
    quiet,
    soon,
)

CLAIMS: Final = {"sub": "ann", "exp": FUTURE}
INVALID: Final = (3500, "invalid token")
FORGED: Final = forged_hmac(CLAIMS, MAX_TOKEN)
OLD: Final = expired_hmac(CLAIMS) | early_hmac(CLAIMS)
# No command can say what is no text, or more than a frame holds.
UTTERABLE: Final = {
    name: token for name, token in FORGED.items() if token and "\ud800" not in token and len(token) < 60_000
}


def result(line: str) -> dict[str, Any]:
    """Read a connect reply, without what is always in it."""
    reply: dict[str, Any] = orjson.loads(line)["connect"]
    for name in ("client", "version", "ping", "pong", "session", "node", "time"):
        del reply[name]
    return reply


# Who it is


def test_a_good_token_in_the_connect_command() -> None:
    home = jwt_house()
    ann = Speaker(home)
    (line,) = ann.asks(connect(signed({"sub": "ann", "exp": soon(home, 600)})))
    assert result(line) == {"expires": True, "ttl": 600}
    assert ann.session.user == "ann"
    assert home.service.registry.find("ann") == [ann.session]


@pytest.mark.parametrize("way", ["header", "query"])
def test_a_good_token_at_the_upgrade(way: str) -> None:
    home = jwt_house()
    token = signed(CLAIMS)
    field, path = (f"Authorization: Bearer {token}", PATH) if way == "header" else ("X: y", f"{PATH}?token={token}")
    ann = connected(home, "ME", field, path=path)
    assert ann.session.user == "ann"
    # The one in the command counts, if there is one.
    bob = connected(home, "BOB", field, path=path, token=signed(CLAIMS | {"sub": "bob"}))
    assert bob.session.user == "bob"
    assert Speaker(home, "EVE", field, path=path).ends(connect("x.y.z")) == INVALID


@pytest.mark.parametrize("token", UTTERABLE.values(), ids=UTTERABLE.keys())
def test_a_forged_token_ends_the_connection(token: str) -> None:
    home = jwt_house()
    ann = Speaker(home)
    ann.feed(wire.text(connect(token)))
    assert ann.hears() == []
    assert ann.close == INVALID
    ann.goes()
    quiet(home)


def test_there_are_enough_of_them() -> None:
    assert len(UTTERABLE) > 30
    assert len(OLD) > 3


def test_no_token_is_as_bad_as_a_forged_one() -> None:
    assert Speaker(jwt_house()).ends('{"id":1,"connect":{}}') == INVALID


@pytest.mark.parametrize("token", OLD.values(), ids=OLD.keys())
def test_an_expired_token_is_an_error_and_a_better_one_may_follow(token: str) -> None:
    home = jwt_house()
    ann = Speaker(home)
    assert ann.asks(connect(token)) == [error(1, *EXPIRED)]
    assert ann.asks(connect(token, 2)) == [error(2, *EXPIRED)]
    assert home.service.registry.find("ann") == []
    (line,) = ann.asks(connect(signed(CLAIMS), 3))
    assert result(line)["expires"] is True
    # But there is not for ever time for that.
    late = Speaker(home, "LATE")
    late.asks(connect(token))
    home.tick(5.1)
    assert late.hears() == []
    assert late.close == (3502, "stale")


def test_a_forged_or_old_token_at_the_upgrade_gets_no_further() -> None:
    home = jwt_house()
    for token in (signed(CLAIMS, "x" * 40), signed(CLAIMS | {"exp": 1}), "x"):
        for path, field in ((f"{PATH}?token={token}", "X: y"), (PATH, f"Authorization: Bearer {token}")):
            connection, transport = home.accept()
            connection.data_received(wire.request(path, field))
            assert wire.answer(transport.take()).status == 401


def test_static_tokens() -> None:
    home = dialect_house(credentials=StaticTokens(["open sesame"]))
    for speaker in (
        connected(home, token="open sesame"),
        connected(home, "BOB", "Authorization: Bearer open sesame"),
        connected(home, "EVE", path=f"{PATH}?token=open+sesame"),
    ):
        assert speaker.session.user == ""
    assert Speaker(home).ends(connect("open barley")) == INVALID
    assert Speaker(home).ends('{"id":1,"connect":{}}') == INVALID


def test_without_credentials_everybody_is_nobody() -> None:
    home = dialect_house()
    assert connected(home, token="whatever").session.user == ""


# For how long


def test_a_connection_ends_a_grace_after_its_credentials() -> None:
    home = jwt_house()
    ann = connected(home, token=signed({"sub": "ann", "exp": soon(home, 100)}))
    home.tick(124.8)
    assert ann.hears() == []
    assert ann.close is None
    home.tick(0.3)
    assert ann.hears() == []
    assert ann.close == (3005, "connection expired")


# Where it is put


def test_the_channels_of_its_token_and_its_own() -> None:
    home = jwt_house(
        personal_channels=True,
        options=ChannelOptions(presence=True, join_leave=True),
        namespaces={"kept": ChannelOptions(retention=Retention(10, 300.0))},
    )
    claims = CLAIMS | {
        "info": {"name": "Ann"},
        "channels": ["lobby"],
        "subs": {
            "kept:log": {"data": {"hello": 1}},
            "quiet": {"override": {"presence": {"value": False}, "join_leave": {"value": False}}},
        },
    }
    home.node.publish("kept:log", Publication(b"1"), lambda done: None)
    ann = Speaker(home)
    answer, *joins = ann.asks(connect(signed(claims)))
    assert result(answer)["subs"] == {
        "lobby": {},
        "kept:log": {"recoverable": True, "epoch": "EPOCH", "offset": 1, "positioned": True, "data": {"hello": 1}},
        "quiet": {},
        "#ann": {},
    }
    who = '{"user":"ann","client":"ME","conn_info":{"name":"Ann"}}'
    assert joins == [
        f'{{"push":{{"channel":"{channel}","join":{{"info":{who}}}}}}}' for channel in ("lobby", "#ann")
    ], "where news of who comes are on, it hears of itself, after the reply"
    present = {"id": 2, "presence": {"presence": {"ME": orjson.loads(who)}}}
    assert [orjson.loads(line) for line in ann.asks('{"id":2,"presence":{"channel":"lobby"}}')] == [present]
    assert ann.asks('{"id":3,"presence":{"channel":"quiet"}}') == ['{"id":3,"presence":{"presence":{}}}']
    home.node.publish("#ann", Publication(b"2"), lambda done: None)
    assert ann.hears() == [published("#ann", "2")]
    # It is there already, and may leave.
    assert ann.asks('{"id":4,"subscribe":{"channel":"lobby"}}') == [error(4, 105, "already subscribed")]
    assert ann.asks('{"id":5,"unsubscribe":{"channel":"#ann"}}') == ['{"id":5,"unsubscribe":{}}']
    ann.goes()
    quiet(home)


def test_what_it_missed_there_is_in_the_connect_reply() -> None:
    home = jwt_house(options=ChannelOptions(subscribe=False, retention=Retention(10, 300.0)))
    token = signed(CLAIMS | {"channels": ["news"]})
    ann = connected(home, token=token)
    for number in (b"1", b"2", b"3"):
        home.node.publish("news", Publication(number), lambda done: None)
    ann.goes()
    again = Speaker(home)
    subs = {"news": {"recover": True, "offset": 1, "epoch": "EPOCH"}, "elsewhere": {"recover": True}}
    (line,) = again.asks(connect(token, subs=subs))
    assert result(line)["subs"] == {
        "news": {
            "recoverable": True,
            "epoch": "EPOCH",
            "publications": [{"data": 2, "offset": 2}, {"data": 3, "offset": 3}],
            "recovered": True,
            "offset": 1,
            "positioned": True,
            "was_recovering": True,
        }
    }
    lost = Speaker(home)
    subs["news"]["epoch"] = "ANOTHER"
    (line,) = lost.asks(connect(token, subs=subs))
    assert result(line)["subs"]["news"] == {
        "recoverable": True, "epoch": "EPOCH", "offset": 3, "positioned": True, "was_recovering": True,
    }  # fmt: skip


def test_where_the_server_has_put_it_it_comes_back_to_by_itself_if_that_is_open_to_it() -> None:
    """What the server API did is in no token: only the client remembers."""
    home = jwt_house(
        personal_channels=True,
        options=ChannelOptions(retention=Retention(10, 300.0)),
        namespaces={"shut": ChannelOptions(subscribe=False), "users": ChannelOptions(anonymous=False)},
    )
    token = signed(CLAIMS)
    ann = connected(home, token=token)
    for channel in ("news", "shut:a", "users:a"):
        assert ann.session.enter(channel) is None
    ann.goes()
    home.node.publish("news", Publication(b"1"), lambda done: None)
    was_on = ("news", "shut:a", "users:a", "#bob", "two words", "", "x" * 129)
    subs = {channel: {"recover": True, "epoch": "EPOCH"} for channel in was_on}
    (line,) = Speaker(home).asks(connect(token, subs=subs))
    back = result(line)["subs"]
    assert list(back) == ["#ann", "news", "users:a"]
    assert back["news"]["recovered"]
    assert back["news"]["publications"] == [{"data": 1, "offset": 1}]
    (line,) = Speaker(home, "NOBODY").asks(connect(signed({"exp": FUTURE}), subs=subs))
    assert list(result(line)["subs"]) == ["news"]


def test_it_comes_back_to_no_more_channels_than_it_may_have() -> None:
    home = jwt_house(max_channels=2)
    token = signed(CLAIMS | {"channels": ["a"]})
    (line,) = Speaker(home).asks(connect(token, subs={"b": {}, "c": {}}))
    assert list(result(line)["subs"]) == ["a", "b"], "what its token names goes before"


def test_what_all_channels_missed_together_is_no_more_than_may_wait_for_a_client() -> None:
    """Each of the three has 40 bytes of payload, some 70 on the wire; there is room for two of them."""
    options = ChannelOptions(retention=Retention(10, 300.0), lag=LagLimits(bytes=150))
    home = jwt_house(options=options, namespaces={"roomy": replace(options, lag=LagLimits(bytes=1000))})
    channels = ["a", "b", "c", "roomy:d", "e"]
    token = signed(CLAIMS | {"channels": channels})
    for channel in channels[:-1]:
        home.node.publish(channel, Publication(b'"' + b"x" * 38 + b'"', is_json=True), lambda done: None)
    back = {channel: {"recover": True, "offset": 0, "epoch": "EPOCH"} for channel in channels}
    (line,) = Speaker(home).asks(connect(token, subs=back))
    subs = result(line)["subs"]
    assert {name: sub.get("recovered", False) for name, sub in subs.items()} == {
        "a": True, "b": True, "c": False, "roomy:d": True, "e": True,
    }  # fmt: skip
    assert subs["c"] == {
        "recoverable": True, "epoch": "EPOCH", "offset": 1, "positioned": True, "was_recovering": True,
    }  # fmt: skip


def test_as_many_channels_as_a_client_may_have_come_back_with_it() -> None:
    home = jwt_house(max_channels=600, options=ChannelOptions(retention=Retention(10, 300.0)))
    token = signed(CLAIMS | {"channels": [f"c{number}" for number in range(600)]})
    ann = connected(home, token=token)
    ann.goes()
    subs = {f"c{number}": {"recover": True, "epoch": "EPOCH"} for number in range(600)}
    (line,) = Speaker(home).asks(connect(token, subs=subs))
    assert all(sub["recovered"] for sub in result(line)["subs"].values())
    assert Speaker(home, "EVE").ends(connect(token, subs=subs | {"c600": {}})) == (3501, "bad request")


def test_more_channels_than_a_client_may_have() -> None:
    home = jwt_house(max_channels=2)
    ann = connected(home, token=signed(CLAIMS | {"channels": ["a", "b"]}))
    assert ann.asks('{"id":2,"subscribe":{"channel":"c"}}') == [error(2, 106, "limit exceeded")]
    assert Speaker(home).ends(connect(signed(CLAIMS | {"channels": ["a", "b", "c"]}))) == (3505, "channel limit")


def test_a_channel_that_is_named_by_the_token_is_open_to_its_owner() -> None:
    home = jwt_house(options=ChannelOptions(subscribe=False))
    ann = connected(home, token=signed(CLAIMS | {"channels": ["a"]}))
    assert ann.asks('{"id":2,"subscribe":{"channel":"b"}}') == [error(2, *DENIED)]
    ann.asks('{"id":3,"unsubscribe":{"channel":"a"}}')
    assert ann.subscribes("a") == {}


@pytest.mark.parametrize("user", ["ann smith", "x" * 128, "a\tb"])
def test_a_user_whose_name_names_no_channel_has_none_and_is_let_in(user: str, caplog: pytest.LogCaptureFixture) -> None:
    home = jwt_house(personal_channels=True)
    with caplog.at_level(logging.DEBUG, "stentor.edge"):
        ann = Speaker(home)
        (line,) = ann.asks(connect(signed(CLAIMS | {"sub": user})))
    assert "subs" not in result(line)
    assert ann.session.user == user
    assert user not in caplog.text
    assert len([record for record in caplog.records if "personal channel" in record.message]) == 1


def test_a_user_may_go_to_its_own_channel_and_to_no_other() -> None:
    home = jwt_house(personal_channels=True)
    ann = connected(home, token=signed(CLAIMS))
    assert ann.asks('{"id":2,"subscribe":{"channel":"#ann"}}') == [error(2, 105, "already subscribed")]
    assert ann.asks('{"id":3,"subscribe":{"channel":"#bob"}}') == [error(3, *DENIED)]
    assert ann.asks('{"id":4,"publish":{"channel":"#bob","data":1}}') == [error(4, *DENIED)]
    assert ann.asks('{"id":5,"subscribe":{"channel":"#"}}') == [error(5, *DENIED)]
    nobody = connected(home, "NOBODY", token=signed({"exp": FUTURE}))
    assert nobody.asks('{"id":2,"subscribe":{"channel":"#"}}') == [error(2, *DENIED)]


def test_who_is_thrown_out_is_told_where_it_stands() -> None:
    home = jwt_house()
    ann = connected(home, token=signed(CLAIMS | {"channels": ["a", "b"]}))
    assert ann.session.throw_out("a", codes.UNSUBSCRIBE_BY_SERVER)
    assert not ann.session.throw_out("a", codes.UNSUBSCRIBE_BY_SERVER)
    pushed = '{"push":{"channel":"%s","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}'
    assert ann.hears() == [pushed % "a"]
    assert ann.session.throw_out("", codes.UNSUBSCRIBE_BY_SERVER)
    assert ann.hears() == [pushed % "b"]
    assert ann.session.enter("c", b'{"x":1}', b'{"y":2}') is None
    assert ann.hears() == ['{"push":{"channel":"c","subscribe":{"data":{"y":2}}}}']
    assert ann.session.enter("c") == codes.ERROR_ALREADY_SUBSCRIBED
    assert ann.session.enter("a b") == codes.ERROR_BAD_REQUEST
