"""New tokens of a Centrifuge client, for its connection and for its subscriptions: good ones, and all others."""

from __future__ import annotations

from typing import Any, Final

import pytest

from server.node.namespaces import ChannelOptions
from tests.forgeries import FUTURE, signed
from tests.house import House
from tests.speaker import BAD, DENIED, connected, error, jwt_house, published, quiet, soon

Claims = dict[str, Any]

ANN: Final[Claims] = {"sub": "ann", "exp": FUTURE}
CLAIMS: Final = ANN | {"channel": "shut"}
INVALID: Final = (3500, "invalid token")

# Of the connection


def test_a_refresh_prolongs_it() -> None:
    home = jwt_house()
    ann = connected(home, token=signed({"sub": "ann", "exp": soon(home, 100)}))
    home.tick(100.0)
    token = signed({"sub": "ann", "exp": soon(home, 300), "info": {"name": "Ann"}})
    answer = '{"id":2,"refresh":{"client":"ME","version":"Stentor test","expires":true,"ttl":300}}'
    assert ann.asks(f'{{"id":2,"refresh":{{"token":"{token}"}}}}') == [answer]
    home.tick(320.0)
    assert ann.hears() == []
    assert ann.close is None
    endless = signed({"sub": "ann", "exp": FUTURE, "expire_at": 0})
    answer = '{"id":3,"refresh":{"client":"ME","version":"Stentor test"}}'
    assert ann.asks(f'{{"id":3,"refresh":{{"token":"{endless}"}}}}') == [answer]
    home.tick(1_000_000.0)
    assert ann.hears() == []
    assert ann.close is None


@pytest.mark.parametrize(
    ("token", "end"),
    [
        (signed(ANN | {"sub": "bob"}), INVALID),
        (signed(ANN, "x" * 40), INVALID),
        (signed(ANN | {"channel": "news"}), INVALID),
        ("", INVALID),
        # An SDK that gets an error gives up; this one makes it come back with a new one.
        (signed(ANN | {"exp": 1}), (3005, "connection expired")),
        (signed(ANN | {"nbf": FUTURE}), (3005, "connection expired")),
    ],
    ids=["another user", "forged", "for a subscription", "none", "expired", "early"],
)
def test_a_refresh_with_a_bad_token_ends_it(token: str, end: tuple[int, str]) -> None:
    ann = connected(jwt_house(), token=signed(ANN))
    assert ann.ends(f'{{"id":2,"refresh":{{"token":"{token}"}}}}') == end


# Where it is put

SHUT: Final = {"shut": ChannelOptions(subscribe=False), "open": ChannelOptions()}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"channels": ["shut:a", "shut:b"]}, {"channels": ["shut:b"]}),
        ({"channels": ["shut:a"]}, {}),
        ({"subs": {"shut:a": {}}}, {"subs": {}}),
        ({"channels": ["open:a"]}, {}),
        ({}, {"channels": ["open:a"]}),
        ({"channels": ["shut:a"]}, {"channels": ["shut:a"], "subs": {"shut:b": {}}}),
    ],
    ids=str,
)
def test_a_refresh_that_puts_it_elsewhere_sends_it_away_to_come_back(before: Claims, after: Claims) -> None:
    home = jwt_house(namespaces=SHUT)
    ann = connected(home, token=signed(ANN | before))
    assert ann.ends(f'{{"id":2,"refresh":{{"token":"{signed(ANN | after)}"}}}}') == (3010, "insufficient state")
    ann.goes()
    quiet(home)


def test_what_only_the_old_token_opened_is_closed_by_the_new_one() -> None:
    home = jwt_house(namespaces=SHUT)
    ann = connected(home, token=signed(ANN | {"channels": ["shut:a"]}))
    ann.asks('{"id":2,"unsubscribe":{"channel":"shut:a"}}')
    ann.subscribes("shut:a")
    assert ann.ends(f'{{"id":3,"refresh":{{"token":"{signed(ANN)}"}}}}') == (3010, "insufficient state")


def test_a_refresh_that_names_the_same_channels_in_another_way_leaves_it_where_it_is() -> None:
    home = jwt_house(namespaces=SHUT, personal_channels=True)
    ann = connected(home, token=signed(ANN | {"channels": ["shut:a", "open:a"]}))
    # Where it is by itself, by a token for the channel, by the server API or by its name is not the token's affair.
    ann.subscribes("open:b")
    ann.subscribes("shut:b", token=signed(ANN | {"channel": "shut:b"}))
    ann.session.enter("shut:c")
    ann.hears()
    for claims in ({"subs": {"open:a": {}, "shut:a": {}}}, {"channels": ["shut:a", "open:a", "open:b", "shut:c"]}):
        (answer,) = ann.asks(f'{{"id":3,"refresh":{{"token":"{signed(ANN | claims)}"}}}}')
        assert answer.startswith('{"id":3,"refresh":{"client":"ME"')
    assert {place.channel for place in ann.session.places} == {
        "#ann", "open:a", "open:b", "shut:a", "shut:b", "shut:c",
    }  # fmt: skip


def test_a_channel_that_it_has_left_it_is_put_on_again() -> None:
    ann = connected(jwt_house(), token=signed(ANN | {"channels": ["a"]}))
    ann.asks('{"id":2,"unsubscribe":{"channel":"a"}}')
    assert ann.ends(f'{{"id":3,"refresh":{{"token":"{signed(ANN | {"channels": ["a"]})}"}}}}')[0] == 3010


# What others see of it


def seen(home: House, channel: str = "hall") -> list[tuple[bytes, bytes]]:
    """List what presence says of everyone on a channel."""
    found: list[tuple[bytes, bytes]] = []

    def take(present: Any) -> None:
        found.extend((info.conn_info, info.chan_info) for info in present.values())

    home.node.broker.presence(channel, take)
    return found


def test_new_info_is_seen_everywhere_and_old_info_stays_where_there_is_no_new() -> None:
    home = jwt_house(options=ChannelOptions(presence=True, join_leave=True), namespaces={"bare": ChannelOptions()})
    watcher = connected(home, "WATCHER", token=signed({"exp": FUTURE}))
    watcher.asks('{"id":2,"subscribe":{"channel":"hall","join_leave":true}}')
    ann = connected(home, token=signed(ANN | {"info": {"mood": "old"}}))
    for channel in ("hall", "yard", "bare:a"):
        ann.subscribes(channel)
    for info in ("new", None):
        token = signed(ANN | ({"info": {"mood": info}} if info else {}))
        assert len(ann.asks(f'{{"id":3,"refresh":{{"token":"{token}"}}}}')) == 1
        for channel in ("hall", "yard"):
            assert (b'{"mood":"new"}', b"") in seen(home, channel)
            assert (b'{"mood":"old"}', b"") not in seen(home, channel)
        assert seen(home, "bare:a") == []
    watcher.hears()
    ann.asks('{"id":4,"publish":{"channel":"hall","data":1}}')
    ann.goes()
    who = '{"user":"ann","client":"ME","conn_info":{"mood":"new"}}'
    assert watcher.hears() == [
        published("hall", "1", who),
        f'{{"push":{{"channel":"hall","leave":{{"info":{who}}}}}}}',
    ]
    assert len(seen(home)) == 1


def test_nothing_is_said_of_it_anew_if_nothing_is_new() -> None:
    home = jwt_house(options=ChannelOptions(presence=True))
    token = signed(ANN | {"info": {"mood": "old"}})
    ann = connected(home, token=token)
    ann.subscribes("hall")
    home.node.broker.add_presence = None  # type: ignore[method-assign, assignment]
    assert len(ann.asks(f'{{"id":3,"refresh":{{"token":"{token}"}}}}')) == 1
    assert ann.close is None


def test_a_new_subscription_token_says_what_is_seen_on_its_channel() -> None:
    home = jwt_house(options=ChannelOptions(presence=True))
    ann = connected(home, token=signed(ANN))
    ann.subscribes("shut", token=signed(CLAIMS | {"info": {"seat": 1}}))
    for claims, info in (({"info": {"seat": 2}}, b'{"seat":2}'), ({"info": "standing"}, b'"standing"'), ({}, b"")):
        token = signed(CLAIMS | claims)
        (answer,) = ann.asks(f'{{"id":3,"sub_refresh":{{"channel":"shut","token":"{token}"}}}}')
        assert answer.startswith('{"id":3,"sub_refresh":{"expires":true')
        assert seen(home, "shut") == [(b"", info)]
    ann.goes()
    assert seen(home, "shut") == []


def test_the_server_may_prolong_it_by_itself() -> None:
    home = jwt_house()
    ann = connected(home, token=signed({"sub": "ann", "exp": soon(home, 100)}))
    ann.session.prolong(soon(home, 200))
    assert ann.hears() == ['{"push":{"refresh":{"expires":true,"ttl":200}}}']
    home.tick(200.0)
    assert ann.close is None
    ann.session.prolong(None)
    assert ann.hears() == ['{"push":{"refresh":{}}}']
    home.tick(1000.0)
    assert ann.close is None


# Of a subscription


def test_a_subscription_that_is_prolonged_for_ever() -> None:
    home = jwt_house()
    ann = connected(home, token=signed({"sub": "ann", "exp": FUTURE}))
    ann.subscribes("shut", token=signed(CLAIMS | {"exp": soon(home, 100)}))
    token = signed(CLAIMS | {"expire_at": 0})
    assert ann.asks(f'{{"id":3,"sub_refresh":{{"channel":"shut","token":"{token}"}}}}') == ['{"id":3,"sub_refresh":{}}']
    assert not home.service.expiring


def test_no_token_refreshes_nothing() -> None:
    home = jwt_house()
    ann = connected(home, token=signed({"sub": "ann", "exp": FUTURE}))
    ann.subscribes("shut", token=signed(CLAIMS | {"exp": soon(home, 100)}))
    assert ann.asks('{"id":3,"sub_refresh":{"channel":"shut","token":""}}') == [error(3, *BAD)]
    (deadline,) = home.service.expiring.values()
    assert deadline == pytest.approx(home.clock() + 125, abs=1.1)


def test_with_an_old_token_a_subscription_ends_when_it_was_to_end() -> None:
    """An error would be for good: the SDKs of JavaScript and Python give the channel up."""
    home = jwt_house()
    ann = connected(home, token=signed({"sub": "ann", "exp": FUTURE}))
    ann.subscribes("shut", token=signed(CLAIMS | {"exp": soon(home, 100)}))
    old = f'{{"id":3,"sub_refresh":{{"channel":"shut","token":"{signed(CLAIMS | {"exp": 1})}"}}}}'
    home.clock.advance(90.0)
    assert ann.asks(old) == ['{"id":3,"sub_refresh":{"expires":true,"ttl":10}}'], "so that it asks again then"
    home.clock.advance(20.0)
    assert ann.asks(old) == ['{"id":3,"sub_refresh":{"expires":true,"ttl":1}}']
    home.clock.advance(16.0)
    home.service.tick()
    assert ann.hears() == ['{"push":{"channel":"shut","unsubscribe":{"code":2501,"reason":"subscription expired"}}}']


def test_an_old_token_ends_no_subscription_that_lasts_for_ever() -> None:
    ann = connected(jwt_house(), token=signed(ANN))
    ann.subscribes("open")
    token = signed(CLAIMS | {"channel": "open", "exp": 1})
    assert ann.asks(f'{{"id":3,"sub_refresh":{{"channel":"open","token":"{token}"}}}}') == ['{"id":3,"sub_refresh":{}}']


@pytest.mark.parametrize(
    "token",
    [
        signed(CLAIMS | {"sub": "bob"}),
        signed(CLAIMS | {"channel": "other"}),
        signed(CLAIMS, "x" * 40),
        signed(ANN),
    ],
    ids=["another user's", "another channel's", "forged", "for the connection"],
)
def test_with_a_bad_token_for_a_subscription_the_connection_ends(token: str) -> None:
    home = jwt_house()
    ann = connected(home, token=signed(ANN))
    ann.subscribes("shut", token=signed(CLAIMS))
    assert ann.ends(f'{{"id":3,"sub_refresh":{{"channel":"shut","token":"{token}"}}}}') == INVALID
    ann.goes()
    quiet(home)


def test_where_it_is_not_it_has_nothing_to_refresh() -> None:
    ann = connected(jwt_house(), token=signed(ANN))
    assert ann.asks(f'{{"id":3,"sub_refresh":{{"channel":"shut","token":"{signed(CLAIMS)}"}}}}') == [error(3, *DENIED)]
