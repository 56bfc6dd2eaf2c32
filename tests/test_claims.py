"""Claims: what each of them means, and that what is not as it should be is refused and never guessed at."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any, Final

import pytest

from server.core.revocations import Token
from server.edge.claims import (
    ForAnother,
    Grant,
    Identity,
    Overrides,
    ServerSubscription,
    WrongClaim,
    date,
    is_over,
    read_grant,
    read_identity,
)

FUTURE: Final = 4_000_000_000  # the year 2096


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def identity(**claims: Any) -> Identity:
    return read_identity(claims, 16)


def grant(**claims: Any) -> Grant:
    return read_grant({"channel": "news", "sub": "ann"} | claims, channel="news", user="ann")


@pytest.mark.parametrize(
    ("claims", "meaning"),
    [
        ({}, Identity()),
        ({"sub": "ann", "exp": FUTURE}, Identity("ann", FUTURE)),
        ({"sub": ""}, Identity()),
        ({"sub": "é😀"}, Identity("é😀")),
        # RFC 7519, section 2: a date is a JSON number, and need not be whole.
        ({"exp": FUTURE + 0.5}, Identity(expires=FUTURE + 0.5)),
        ({"exp": FUTURE, "expire_at": 5}, Identity(expires=5)),
        ({"exp": FUTURE, "expire_at": 0}, Identity()),
        ({"expire_at": FUTURE}, Identity(expires=FUTURE)),
        ({"info": {}}, Identity(info=b"{}")),
        ({"info": {"name": "Zoë\n", "n": [1.5, 12345678901234567890]}},
         Identity(info='{"name":"Zoë\\n","n":[1.5,12345678901234567890]}'.encode())),
        ({"b64info": b64('{"a": 1}')}, Identity(info=b'{"a": 1}')),
        ({"b64info": b64('\n{"a":\r\n1}')}, Identity(info=b'{"a":1}')),
        ({"info": {"a": 1}, "b64info": b64('{"b":1}')}, Identity(info=b'{"b":1}')),
        ({"info": {"a": 1}, "b64info": ""}, Identity(info=b'{"a":1}')),
        # What is shown may be JSON of any kind, and also what is false in Python is there.
        ({"info": "Zoë"}, Identity(info='"Zoë"'.encode())),
        ({"info": ""}, Identity(info=b'""')),
        ({"info": False}, Identity(info=b"false")),
        ({"info": [1.5, None]}, Identity(info=b"[1.5,null]")),
        ({"b64info": b64('"Ann"')}, Identity(info=b'"Ann"')),
        ({"info": 7, "b64info": b64("0")}, Identity(info=b"0")),
        ({"meta": {"plan": "free"}}, Identity(meta={"plan": "free"})),
        ({"channels": []}, Identity()),
        ({"channels": ["b", "a", "b"]}, Identity(channels=("b", "a"))),
        ({"subs": {}}, Identity()),
        ({"subs": {"a": {}, "b": None}}, Identity(subs={"a": ServerSubscription(), "b": ServerSubscription()})),
        ({"subs": {"a": {"info": {"x": 1}, "b64data": b64("{}")}}},
         Identity(subs={"a": ServerSubscription(b'{"x":1}', b"{}")})),
        # Encoders of some languages write what is not there as null.
        (dict.fromkeys(("info", "b64info", "meta", "channels", "subs", "expire_at")), Identity()),
        # RFC 7519, section 4: what is not understood is ignored.
        ({"caps": 7, "jti": "x", "data": "of subscriptions", "override": []}, Identity()),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_connection_token_says(claims: dict[str, Any], meaning: Identity) -> None:
    assert identity(**claims) == meaning


@pytest.mark.parametrize(
    ("claims", "meaning"),
    [
        ({}, Grant()),
        ({"exp": FUTURE}, Grant(FUTURE)),
        ({"exp": FUTURE, "expire_at": 0}, Grant()),
        ({"exp": 5, "expire_at": FUTURE}, Grant(FUTURE)),
        ({"info": {"a": 1}, "data": {"b": 2}}, Grant(info=b'{"a":1}', data=b'{"b":2}')),
        ({"b64info": b64("{}"), "b64data": b64("{ }")}, Grant(info=b"{}", data=b"{ }")),
        ({"data": {}}, Grant(data=b"{}")),
        ({"info": "host", "data": "hello"}, Grant(info=b'"host"', data=b'"hello"')),
        ({"data": 0}, Grant(data=b"0")),
        ({"b64data": b64("[1,\n2]")}, Grant(data=b"[1,2]")),
        ({"override": {"presence": {"value": True}}}, Grant(overrides=Overrides(presence=True))),
        (dict.fromkeys(("info", "b64info", "data", "b64data", "override", "expire_at")), Grant()),
        ({"channels": 7, "subs": 7, "meta": 7}, Grant()),
    ],
    ids=str,
)
def test_what_a_subscription_token_says(claims: dict[str, Any], meaning: Grant) -> None:
    assert grant(**claims) == meaning


@pytest.mark.parametrize(
    ("override", "overrides"),
    [
        ({}, Overrides()),
        ({"presence": {"value": True}}, Overrides(presence=True)),
        ({"join_leave": {"value": False}}, Overrides(join_leave=False)),
        ({"force_positioning": {"value": True}}, Overrides(position=True)),
        ({"force_recovery": {"value": True}}, Overrides(recover=True)),
        # A value that is left out is false, an override that is left out is none.
        (
            {"presence": {}, "join_leave": None, "force_recovery": {"value": None}},
            Overrides(presence=False, recover=False),
        ),
        ({"force_push_join_leave": {"value": True}}, Overrides(push_joins=True)),
        ({"force_push_join_leave": {}}, Overrides(push_joins=False)),
        ({"something_new": {"value": True}}, Overrides()),
    ],
    ids=str,
)
def test_what_it_says_against_the_options_of_a_channel(override: dict[str, Any], overrides: Overrides) -> None:
    assert grant(override=override).overrides == overrides
    assert identity(subs={"a": {"override": override}}).subs["a"].overrides == overrides


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


NO_OBJECTS: Final = ("Ann", "", 0, 7, 1.5, True, False, [], [{}])
NO_SHOWN: Final[list[dict[str, Any]]] = [
    {"info": float("inf")},
    {"info": "\ud800"},
    {"info": {"a": float("nan")}},
    {"info": {"a": [float("inf")]}},
    {"info": {"a": "\ud800"}},
    {"info": {"\ud800": 1}},
    {"info": deep(33)},
    *({"b64info": value} for value in (0, 7, True, False, [], {}, b"{}")),
    *({"b64info": b64(text)} for text in ("Ann", "'Ann'", "[1", "NaN", "{", "{}{}", "{'a':1}", b'{"a":"\xff"}')),
    {"b64info": b64("[" * 40 + "]" * 40)},
    {"b64info": b64(json.dumps(deep(33)))},
    {"b64info": "{}"},
    {"b64info": b64('{"a":1}').rstrip("=")},
    {"b64info": b64('{"a": "???>>>"}').replace("/", "_").replace("+", "-")},
    {"b64info": b64("{}") + "\n"},
    {"b64info": "é"},
    {"info": {}, "b64info": 7},
]
NO_OVERRIDES: Final[list[dict[str, Any]]] = [
    *({"override": value} for value in NO_OBJECTS),
    *(
        {"override": {name: value}}
        for name in ("presence", "join_leave", "force_push_join_leave", "force_positioning", "force_recovery")
        for value in (True, 0, "", [], {"value": 1}, {"value": "true"}, {"value": []}, {"value": {}})
    ),
]
NO_DATES: Final = ("1", "never", True, False, [1], {}, float("nan"), float("inf"), -float("inf"), 10**400, -(10**400))
NO_CHANNELS: Final = ("", "a b", "a\n", "\ud800", "a" * 17)

WRONG_OF_BOTH: Final[list[dict[str, Any]]] = [
    *NO_SHOWN,
    *({"sub": value} for value in (None, 7, 1.5, True, [], {}, "\ud800", "a\udfff")),
    *({"exp": value} for value in (None, *NO_DATES)),
    *({"expire_at": value} for value in (-1, -0.5, *NO_DATES)),
]
WRONG_OF_CONNECTIONS: Final[list[dict[str, Any]]] = [
    *({"channel": value} for value in ("news", "", None)),
    *({"meta": value} for value in (*NO_OBJECTS, {"a": float("nan")}, {"a": "\ud800"}, deep(33))),
    *({"channels": value} for value in ("news", 0, True, {}, {"news": 1})),
    *({"channels": ["good", value]} for value in (7, None, True, ["a"], {}, *NO_CHANNELS)),
    *({"subs": value} for value in ("news", 0, True, [], ["news"])),
    *({"subs": {"good": {}, name: {}}} for name in NO_CHANNELS),
    *({"subs": {"a": value}} for value in NO_OBJECTS),
    *({"subs": {"a": options}} for options in NO_SHOWN + NO_OVERRIDES),
]


@pytest.mark.parametrize("claims", WRONG_OF_BOTH + WRONG_OF_CONNECTIONS, ids=lambda claims: ascii(claims)[:60])
def test_what_a_connection_token_cannot_say(claims: dict[str, Any]) -> None:
    with pytest.raises(WrongClaim) as wrong:
        identity(**claims)
    assert wrong.value.__suppress_context__ or wrong.value.__context__ is None


@pytest.mark.parametrize("claims", WRONG_OF_BOTH + NO_OVERRIDES, ids=lambda claims: ascii(claims)[:60])
def test_what_a_subscription_token_cannot_say(claims: dict[str, Any]) -> None:
    with pytest.raises(WrongClaim):
        grant(**claims)


@pytest.mark.parametrize("options", NO_SHOWN, ids=lambda claims: ascii(claims)[:60])
def test_what_nobody_can_be_told(options: dict[str, Any]) -> None:
    data = {name.replace("info", "data"): value for name, value in options.items()}
    with pytest.raises(WrongClaim):
        grant(**data)
    with pytest.raises(WrongClaim):
        identity(subs={"a": data})


def test_as_deep_as_the_dialect_takes_it() -> None:
    with pytest.raises(WrongClaim):  # too deep even to be written down
        identity(info=deep(5000))
    assert identity(info=deep(32)).info == json.dumps(deep(32), separators=(",", ":")).encode()


def test_a_grant_is_for_one_user_and_one_channel() -> None:
    for claims in ({"channel": "new"}, {"sub": "bob"}, {"sub": ""}):
        with pytest.raises(ForAnother):
            grant(**claims)


@pytest.mark.parametrize("channel", [{}, {"channel": None}, {"channel": ""}, {"channel": ["news"]}], ids=str)
def test_what_names_no_channel_is_no_subscription_token(channel: dict[str, Any]) -> None:
    with pytest.raises(WrongClaim) as wrong:
        read_grant({"sub": "bob"} | channel, channel="news", user="ann")
    assert not isinstance(wrong.value, ForAnother)


@pytest.mark.parametrize(
    ("claims", "over"),
    [
        ({}, False),
        ({"exp": 101}, False),
        ({"exp": 100}, True),  # RFC 7519, section 4.1.4: on or after
        ({"exp": 99.9}, True),
        ({"exp": 0}, True),
        ({"exp": 101, "expire_at": 100}, True),
        ({"exp": 100, "expire_at": 101}, True),
        ({"exp": 100, "expire_at": 0}, True),
        ({"exp": 101, "expire_at": 0}, False),
        ({"expire_at": 0}, False),
        ({"expire_at": 100}, True),
    ],
    ids=str,
)
def test_when_a_token_is_over(claims: dict[str, Any], over: bool) -> None:
    assert is_over(claims, 100.0) is over


def test_a_date_is_a_number_that_a_clock_can_show() -> None:
    assert date({}, "exp") is None
    assert date({"exp": 2**63 - 1}, "exp") == 2.0**63
    with pytest.raises(WrongClaim):
        date({"exp": 2**65}, "exp")


def test_what_a_token_names_it_opens() -> None:
    assert identity(channels=["a", "b"], subs={"b": {}, "c": {}}).granted == {"a", "b", "c"}
    assert identity().granted == frozenset()


def test_who_somebody_is_does_not_change() -> None:
    who = identity(subs={"a": {}})
    with pytest.raises(dataclasses.FrozenInstanceError):
        who.user = "root"  # type: ignore[misc]
    with pytest.raises(TypeError):
        who.subs["b"] = ServerSubscription()  # type: ignore[index]


# What a token can be revoked by


@pytest.mark.parametrize(
    ("claims", "token"),
    [
        ({}, Token()),
        ({"sub": "ann", "jti": "1", "iat": 5}, Token("1", "ann", 5.0)),
        ({"sub": "ann", "iat": 5.5}, Token("", "ann", 5.5)),
        ({"jti": "", "iat": 0}, Token("", "", 0.0)),
        ({"jti": None}, Token()),
    ],
)
def test_what_a_token_is_called(claims: dict[str, Any], token: Token) -> None:
    assert identity(**claims).token == token
    assert grant(**claims).token == token._replace(user=claims.get("sub", "ann"), channel="news")


@pytest.mark.parametrize("claims", [{"jti": 1}, {"jti": ["1"]}, {"jti": True}, {"iat": "5"}, {"iat": True}])
def test_a_name_of_the_wrong_type_is_refused(claims: dict[str, Any]) -> None:
    for read in (identity, grant):
        with pytest.raises(WrongClaim):
            read(**claims)
