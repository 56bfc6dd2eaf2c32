"""How a Centrifuge client comes to its channels and leaves them: what it is told, and what the others are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import orjson
import pytest

from server.brokers.base import BrokerError, Done, Retention, Slice, Stream
from server.brokers.memory import MemoryBroker
from server.core.lag import LagLimits, LagPolicy
from server.core.publication import Publication
from server.dialects.centrifuge import codes
from server.edge.claims import Grant, Identity, Overrides
from server.edge.credentials import Expired, Refused
from server.edge.signatures import MAX_TOKEN
from server.node.namespaces import ChannelOptions, RecoveryMode
from tests.forgeries import FUTURE, expired_hmac, forged_hmac, signed
from tests.house import House
from tests.speaker import (
    BAD,
    CONNECT,
    DENIED,
    EXPIRED,
    LIMIT,
    TAKEN,
    UNAVAILABLE,
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

KEPT: Final = ChannelOptions(retention=Retention(10, 300.0))
CLAIMS: Final = {"sub": "ann", "channel": "shut", "exp": FUTURE}
SHUT: Final = {"shut": ChannelOptions(subscribe=False)}


def say(home: House, channel: str, *payloads: bytes) -> None:
    for payload in payloads:
        home.node.publish(channel, Publication(payload), lambda done: None)


def subscribe(channel: str, id: int = 2, **more: Any) -> str:
    return orjson.dumps({"id": id, "subscribe": {"channel": channel, **more}}).decode()


# Why not


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"channel": ""}, BAD),
        ({"channel": "a b"}, BAD),
        ({"channel": "a\u0000"}, BAD),
        ({"channel": "x" * 129}, BAD),
        ({"channel": "open", "type": 1}, UNAVAILABLE),
        ({"channel": "open", "tf": {}}, BAD),
        ({"channel": "there"}, TAKEN),
        ({"channel": "shut:a"}, DENIED),
        ({"channel": "users:a"}, DENIED),
        ({"channel": "open", "token": "x.y.z"}, DENIED),
    ],
)
def test_a_channel_that_is_not_to_be_had(more: dict[str, Any], fault: tuple[int, str]) -> None:
    home = dialect_house(namespaces={"shut": ChannelOptions(subscribe=False), "users": ChannelOptions(anonymous=False)})
    alice = connected(home)
    assert alice.subscribes("there") == {}
    assert alice.asks(subscribe(**more)) == [error(2, *fault)]
    assert len(alice.session.places) == 1
    alice.goes()
    quiet(home)


def test_no_more_channels_than_a_client_may_have() -> None:
    home = dialect_house(max_channels=2)
    alice = connected(home)
    alice.subscribes("a")
    alice.subscribes("b")
    assert alice.asks(subscribe("c")) == [error(2, *LIMIT)]
    alice.asks('{"id":3,"unsubscribe":{"channel":"a"}}')
    assert alice.subscribes("c") == {}


def test_who_has_a_user_may_go_where_nobody_may() -> None:
    home = jwt_house(namespaces={"users": ChannelOptions(anonymous=False)})
    ann = connected(home, "ANN", token=signed({"sub": "ann", "exp": FUTURE}))
    nobody = connected(home, "NOBODY", token=signed({"exp": FUTURE}))
    assert ann.subscribes("users:a") == {}
    assert nobody.asks(subscribe("users:a")) == [error(2, *DENIED)]


# Tokens


FORGED: Final = {
    name: token
    for name, token in forged_hmac(CLAIMS, MAX_TOKEN).items()
    if token and "\ud800" not in token and len(token) < 60_000
}


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED.keys())
def test_a_forged_subscription_token_opens_nothing(token: str) -> None:
    home = jwt_house(namespaces=SHUT)
    ann = connected(home, token=signed({"sub": "ann", "exp": FUTURE}))
    assert ann.asks(subscribe("shut", token=token)) == [error(2, *DENIED)]
    assert ann.close is None
    assert home.hub.subscriptions == 0


@pytest.mark.parametrize("claims", [{"sub": "bob"}, {"sub": ""}, {"channel": "other"}], ids=str)
def test_who_shows_the_token_of_another_has_to_go(claims: dict[str, Any]) -> None:
    home = jwt_house()
    ann = connected(home, token=signed({"sub": "ann", "exp": FUTURE}))
    ann.subscribes("open")
    assert ann.ends(subscribe("shut", token=signed(CLAIMS | claims))) == (3500, "invalid token")
    ann.goes()
    quiet(home)


def test_a_connection_token_is_none_for_a_channel() -> None:
    ann = connected(jwt_house(namespaces=SHUT), token=signed({"sub": "ann", "exp": FUTURE}))
    for claims in ({"sub": "ann", "exp": FUTURE}, CLAIMS | {"channel": None}):
        assert ann.asks(subscribe("shut", token=signed(claims))) == [error(2, *DENIED)]


@pytest.mark.parametrize("token", expired_hmac(CLAIMS).values(), ids=expired_hmac(CLAIMS).keys())
def test_an_expired_subscription_token_says_so(token: str) -> None:
    ann = connected(jwt_house(), token=signed({"sub": "ann", "exp": FUTURE}))
    assert ann.asks(subscribe("shut", token=token)) == [error(2, *EXPIRED)]
    assert ann.asks(subscribe("shut", token=signed(CLAIMS)))[0].startswith('{"id":2,"subscribe":{"expires":true')


def test_what_a_subscription_token_says_of_the_client() -> None:
    home = jwt_house(options=ChannelOptions(subscribe=False, presence=True))
    ann = connected(home, token=signed({"sub": "ann", "exp": FUTURE, "info": {"name": "Ann"}}))
    token = signed(CLAIMS | {"info": {"seat": 4}, "exp": soon(home, 60)})
    assert ann.subscribes("shut", token=token) == {"expires": True, "ttl": 60}
    (line,) = ann.asks('{"id":3,"presence":{"channel":"shut"}}')
    who = {"user": "ann", "client": "ME", "conn_info": {"name": "Ann"}, "chan_info": {"seat": 4}}
    assert orjson.loads(line)["presence"]["presence"] == {"ME": who}
    _, push = sorted(ann.asks('{"id":4,"publish":{"channel":"shut","data":1}}'))
    assert orjson.loads(push)["push"]["pub"]["info"] == who


def test_a_subscription_ends_a_grace_after_its_token() -> None:
    home = jwt_house(namespaces=SHUT)
    ann = connected(home, token=signed({"sub": "ann", "exp": FUTURE}))
    ann.subscribes("shut", token=signed(CLAIMS | {"exp": soon(home, 100)}))
    token = signed(CLAIMS | {"exp": soon(home, 200)})
    home.clock.advance(110.0)
    home.service.tick()
    answer = '{"id":3,"sub_refresh":{"expires":true,"ttl":90}}'
    assert ann.asks(f'{{"id":3,"sub_refresh":{{"channel":"shut","token":"{token}"}}}}') == [answer]
    home.clock.advance(114.0)
    home.service.tick()
    say(home, "shut", b"1")
    assert ann.hears() == [published("shut", "1")]
    home.clock.advance(2.0)
    home.service.tick()
    say(home, "shut", b"2")
    expired = '{"push":{"channel":"shut","unsubscribe":{"code":2501,"reason":"subscription expired"}}}'
    assert ann.hears() == [expired]
    assert ann.asks(f'{{"id":4,"sub_refresh":{{"channel":"shut","token":"{token}"}}}}') == [error(4, *DENIED)]


def test_overrides() -> None:
    class Granting:
        def check(self, token: str, *, channel: str, user: str) -> Grant:
            return Grant(overrides=Overrides(presence=False, join_leave=False))

    home = dialect_house(options=ChannelOptions(presence=True, join_leave=True), subscription_tokens=Granting())
    watcher = connected(home, "WATCHER")
    watcher.asks(subscribe("hall", join_leave=True))
    ghost = connected(home, "GHOST")
    assert ghost.subscribes("hall", token="x") == {}
    assert watcher.asks('{"id":3,"presence_stats":{"channel":"hall"}}') == [
        '{"id":3,"presence_stats":{"num_clients":1,"num_users":1}}'
    ]
    ghost.goes()
    assert watcher.hears() == []


def test_what_a_token_shows_may_be_json_of_any_kind() -> None:
    home = jwt_house(options=ChannelOptions(subscribe=False, presence=True))
    ann = connected(home, token=signed({"sub": "ann", "exp": FUTURE, "info": "Ann"}))
    token = signed(CLAIMS | {"info": [4], "data": "hello", "expire_at": 0})
    assert ann.subscribes("shut", token=token) == {"data": "hello"}
    (line,) = ann.asks('{"id":3,"presence":{"channel":"shut"}}')
    who = {"user": "ann", "client": "ME", "conn_info": "Ann", "chan_info": [4]}
    assert orjson.loads(line)["presence"]["presence"] == {"ME": who}


@pytest.mark.parametrize("way", ["subscription token", "connection token", "server API"])
def test_a_personal_channel_is_open_to_whom_the_application_lets_in(way: str) -> None:
    home = jwt_house(personal_channels=True)
    claims: dict[str, Any] = {"sub": "bob", "exp": FUTURE}
    if way == "connection token":
        bob = connected(home, "BOB", token=signed(claims | {"channels": ["#ann"]}))
        # However it comes there.
        bob.asks('{"id":3,"unsubscribe":{"channel":"#ann"}}')
        assert bob.subscribes("#ann") == {}
    else:
        bob = connected(home, "BOB", token=signed(claims))
        assert bob.asks(subscribe("#ann")) == [error(2, *DENIED)]
    if way == "subscription token":
        assert bob.subscribes("#ann", token=signed(claims | {"channel": "#ann", "expire_at": 0})) == {}
    elif way == "server API":
        assert bob.session.enter("#ann") is None
        bob.hears()
    say(home, "#ann", b"1")
    assert bob.hears() == [published("#ann", "1")]
    eve = connected(home, "EVE", token=signed({"sub": "eve", "exp": FUTURE}))
    assert eve.asks(subscribe("#ann")) == [error(2, *DENIED)]


# What is not to be had by asking is not to be had by subscribing


HALL: Final = ChannelOptions(join_leave=True, presence=True, read_presence=False)


def test_who_may_not_ask_who_is_there_is_not_told_who_comes_and_goes() -> None:
    home = dialect_house(options=HALL)
    watcher, guest = connected(home, "WATCHER"), connected(home, "GUEST")
    assert watcher.subscribes("hall", join_leave=True) == {}
    assert guest.session.enter("hall") is None
    assert guest.hears() == ['{"push":{"channel":"hall","subscribe":{}}}']
    guest.goes()
    assert watcher.hears() == []


def test_but_the_application_may_have_it_told() -> None:
    home = jwt_house(options=HALL)
    forced = {"override": {"force_push_join_leave": {"value": True}}}
    ann = connected(home, "ANN", token=signed({"sub": "ann", "exp": FUTURE}))
    assert ann.asks(subscribe("shut", token=signed(CLAIMS | forced | {"expire_at": 0}))) == [
        '{"id":2,"subscribe":{}}',
        '{"push":{"channel":"shut","join":{"info":{"user":"ann","client":"ANN"}}}}',
    ]
    bob = Speaker(home, "BOB")
    reply, own = bob.asks(connect(signed({"sub": "bob", "exp": FUTURE, "subs": {"shut": forced}})))
    assert reply.startswith('{"id":1,"connect"')
    push = '{"push":{"channel":"shut","%s":{"info":{"user":"bob","client":"BOB"}}}}'
    assert own == push % "join"
    bob.goes()
    assert ann.hears() == [push % "join", push % "leave"]


def test_whom_the_server_puts_there_it_may_leave_untold() -> None:
    home = jwt_house(options=ChannelOptions(join_leave=True))
    untold = {"override": {"force_push_join_leave": {"value": False}}}
    ann = Speaker(home, "ANN")
    assert len(ann.asks(connect(signed({"sub": "ann", "exp": FUTURE, "subs": {"hall": untold}})))) == 1
    # Who asks for it itself, and may, gets it anyhow.
    bob = connected(home, "BOB", token=signed({"sub": "bob", "exp": FUTURE}))
    token = signed({"sub": "bob", "channel": "hall", "exp": FUTURE} | untold)
    assert len(bob.asks(subscribe("hall", join_leave=True, token=token))) == 2
    bob.goes()
    assert ann.hears() == []


def test_a_token_may_have_one_seen_to_come_where_nobody_else_is() -> None:
    home = jwt_house()
    override = {"join_leave": {"value": True}, "presence": {"value": True}}
    star, fan = {"override": override}, {"override": {"force_push_join_leave": {"value": True}}}
    ann = connected(home, "ANN", token=signed({"sub": "ann", "exp": FUTURE, "subs": {"stage": fan}}))
    nobody = connected(home, "NOBODY", token=signed({"exp": FUTURE}))
    nobody.subscribes("stage", join_leave=True)
    bob = connected(home, "BOB", token=signed({"sub": "bob", "exp": FUTURE, "subs": {"stage": star}}))
    seen = '{"push":{"channel":"stage","%s":{"info":{"user":"bob","client":"BOB"}}}}'
    assert ann.hears() == [seen % "join"]
    present: list[object] = []
    home.node.broker.presence("stage", lambda answer: present.extend(answer))  # type: ignore[arg-type]
    assert present == ["BOB"]
    bob.goes()
    assert ann.hears() == [seen % "leave"]
    assert nobody.hears() == [], "it asked where there is nothing to ask for"


KEPT_FROM_READERS: Final = ChannelOptions(retention=Retention(10, 300.0), read_history=False)
FROM_THE_START: Final[list[dict[str, Any]]] = [{}, {"epoch": "EPOCH"}, {"epoch": "EPOCH", "offset": 1}]


@pytest.mark.parametrize("place", FROM_THE_START, ids=str)
@pytest.mark.parametrize("mode", list(RecoveryMode))
def test_who_may_not_read_the_history_does_not_recover_from_it(place: dict[str, Any], mode: RecoveryMode) -> None:
    home = jwt_house(options=replace(KEPT_FROM_READERS, recovery_mode=mode))
    say(home, "news", b"1", b"2")
    ann = connected(home, "ANN", token=signed({"sub": "ann", "exp": FUTURE}))
    told = {"epoch": "EPOCH", "offset": 2, "positioned": True, "was_recovering": True}
    assert ann.subscribes("news", recover=True, **place) == told
    # Nor where its token puts it.
    bob = Speaker(home, "BOB")
    (line,) = bob.asks(
        connect(signed({"sub": "bob", "exp": FUTURE, "channels": ["news"]}), subs={"news": {"recover": True, **place}})
    )
    assert orjson.loads(line)["connect"]["subs"] == {"news": told}
    # It has its place all the same: a gap is declared.
    home.node.invalidate(home.node.audiences["news"])
    assert ann.hears() == ['{"push":{"channel":"news","unsubscribe":{"code":2500,"reason":"insufficient state"}}}']


@pytest.mark.parametrize("way", ["namespace", "subscription token", "connection token"])
def test_but_where_that_is_wanted_it_recovers(way: str) -> None:
    home = jwt_house(options=replace(KEPT_FROM_READERS, allow_recovery=way == "namespace"))
    say(home, "news", b"1", b"2")
    place = {"recover": True, "epoch": "EPOCH", "offset": 1}
    forced = {"override": {"force_recovery": {"value": True}}}
    claims = {"sub": "ann", "exp": FUTURE}
    if way == "connection token":
        ann = Speaker(home)
        (line,) = ann.asks(connect(signed(claims | {"subs": {"news": forced}}), subs={"news": place}))
        answer = orjson.loads(line)["connect"]["subs"]["news"]
    else:
        ann = connected(home, token=signed(claims))
        token = signed(claims | {"channel": "news", "expire_at": 0} | forced) if way == "subscription token" else ""
        answer = ann.subscribes("news", token=token, **place)
    assert answer == {
        "recoverable": True, "epoch": "EPOCH", "publications": [{"data": 2, "offset": 2}], "recovered": True,
        "offset": 1, "positioned": True, "was_recovering": True,
    }  # fmt: skip
    assert ann.asks('{"id":5,"history":{"channel":"news"}}') == [error(5, *DENIED)]


# Those who watch


def test_who_comes_and_goes_is_told_to_those_who_asked() -> None:
    home = dialect_house(options=ChannelOptions(join_leave=True, presence=True))
    watcher, other = connected(home, "WATCHER"), connected(home, "OTHER")
    assert watcher.asks(subscribe("hall", join_leave=True)) == [
        '{"id":2,"subscribe":{}}',
        '{"push":{"channel":"hall","join":{"info":{"user":"","client":"WATCHER"}}}}',
    ]
    assert other.subscribes("hall") == {}
    assert watcher.hears() == ['{"push":{"channel":"hall","join":{"info":{"user":"","client":"OTHER"}}}}']
    left = '{"push":{"channel":"hall","leave":{"info":{"user":"","client":"%s"}}}}'

    assert other.asks('{"id":3,"unsubscribe":{"channel":"hall"}}') == ['{"id":3,"unsubscribe":{}}']
    assert watcher.hears() == [left % "OTHER"]
    other.asks('{"id":3,"unsubscribe":{"channel":"hall"}}')
    other.session.end(codes.DISCONNECT_FORCE_RECONNECT)
    other.goes()
    assert watcher.hears() == [], "once is enough"

    for end in ("goes", "thrown out", "ends", "loses its place"):
        client = connected(home, "X")
        client.subscribes("hall")
        assert len(watcher.hears()) == 1
        if end == "thrown out":
            client.session.throw_out("hall", codes.UNSUBSCRIBE_BY_SERVER)
        elif end == "ends":
            client.session.end(codes.DISCONNECT_FORCE_RECONNECT)
        elif end == "loses its place":
            place = client.session.places.get("hall")
            assert place is not None
            assert place.subscription is not None
            home.node.unsubscribe(place.subscription)
            client.session.lose_position("hall")
        else:
            client.goes()
        assert watcher.hears() == [left % "X"], end
        if not client.transport.is_lost:
            client.goes()
        assert watcher.hears() == [], end
        stats = '{"id":5,"presence_stats":{"num_clients":1,"num_users":1}}'
        assert watcher.asks('{"id":5,"presence_stats":{"channel":"hall"}}') == [stats]
    watcher.goes()
    quiet(home)


def test_news_of_who_comes_are_off_where_the_namespace_has_none() -> None:
    home = dialect_house()
    watcher, other = connected(home, "WATCHER"), connected(home, "OTHER")
    watcher.subscribes("hall", join_leave=True)
    other.subscribes("hall")
    other.goes()
    assert watcher.hears() == []


def test_a_storm_of_joins_is_bounded_as_any_publication_is() -> None:
    options = ChannelOptions(join_leave=True, lag=LagLimits(LagPolicy.DROP_OLDEST, messages=10))
    home = dialect_house(options=options)
    watcher = connected(home, "WATCHER")
    watcher.asks(subscribe("hall", join_leave=True))
    watcher.transport.stall()
    for index in range(100):
        visitor = connected(home, f"V{index}")
        visitor.subscribes("hall")
        visitor.goes()
        home.loop.settle()
    assert watcher.session.outbox.messages == 10
    assert watcher.connection.unsent_bytes < 1000
    home.assert_balanced()


# Coming back at once


@pytest.mark.parametrize("lags", [False, True])
@pytest.mark.parametrize("others", [0, 2], ids=["alone", "on others too"])
def test_who_leaves_and_comes_back_at_once_hears_nothing_old_and_nothing_twice(lags: bool, others: int) -> None:
    home = dialect_house(limits=LagLimits(LagPolicy.DROP_OLDEST))
    alice, bob = connected(home), connected(home, "BOB")
    for index in range(others):
        alice.subscribes(f"other{index}")
    alice.subscribes("news")
    bob.subscribes("news")
    if lags:
        alice.transport.stall()
        say(home, "news", b"0")
        home.loop.settle()  # this one is in the socket already
        say(home, "news", b"1")
        home.loop.settle()  # this one in the outbox
    say(home, "news", b"2")
    alice.says('{"id":3,"unsubscribe":{"channel":"news"}}', subscribe("news", 4))
    say(home, "news", b"3")
    alice.says('{"id":5,"unsubscribe":{"channel":"news"}}')
    alice.says(subscribe("news", 6))
    say(home, "news", b"4")
    home.loop.settle()
    alice.transport.drain()
    left, there = '{"id":%d,"unsubscribe":{}}', '{"id":%d,"subscribe":{}}'
    if lags:
        # What it asks after the first thing waits until it has taken the answer to that.
        missed = [published("news", "3"), published("news", "4")]
        assert alice.hears() == [published("news", "0"), left % 3, there % 4, *missed, left % 5, there % 6]
    else:
        assert alice.hears() == [left % 3, there % 4, left % 5, there % 6, published("news", "4")]
    assert [line for line in bob.hears() if '"pub"' in line] == [
        published("news", str(number)) for number in range(0 if lags else 2, 5)
    ]
    home.assert_balanced()


def test_who_comes_back_with_its_position_gets_what_it_missed_once() -> None:
    home = dialect_house(options=KEPT)
    alice = connected(home)
    alice.subscribes("news")
    say(home, "news", b"1", b"2")
    back = subscribe("news", 4, recover=True, offset=1, epoch="EPOCH")
    alice.says('{"id":3,"unsubscribe":{"channel":"news"}}', back)
    say(home, "news", b"3")
    _, reply, push = alice.hears()
    assert orjson.loads(reply)["subscribe"]["publications"] == [{"data": 2, "offset": 2}]
    assert push == published("news", "3", offset=3)


def test_who_wants_recovery_or_nothing() -> None:
    home = dialect_house(options=KEPT)
    say(home, "news", b"1")
    alice = connected(home)
    command = subscribe("news", recover=True, offset=9, epoch="EPOCH", flag=2)
    assert alice.asks(command) == [error(2, 112, "unrecoverable position")]
    assert len(alice.session.places) == 0
    assert alice.subscribes("news")["offset"] == 1


def test_where_only_the_latest_counts_there_is_nothing_that_could_be_lost() -> None:
    options = ChannelOptions(retention=Retention(10, 300.0), recovery_mode=RecoveryMode.CACHE)
    alice = connected(dialect_house(options=options))
    reply = alice.subscribes("price", recover=True, flag=2)
    assert reply == {"recoverable": True, "epoch": "EPOCH", "positioned": True, "was_recovering": True}


@pytest.mark.parametrize("options", [ChannelOptions(), ChannelOptions(delta=True, retention=KEPT.retention)])
def test_an_unknown_kind_of_delta_is_no_command_at_all(options: ChannelOptions) -> None:
    home = dialect_house(options=options)
    alice = connected(home)
    assert alice.ends(subscribe("stock", delta="vcdiff")) == (3501, "bad request")
    alice.goes()
    quiet(home)


def test_losing_its_place_leaves_the_other_channels_alone() -> None:
    home = dialect_house(options=KEPT)
    alice = connected(home)
    for channel in ("a", "b"):
        alice.subscribes(channel)
    home.node.invalidate(home.node.audiences["a"])
    assert alice.hears() == ['{"push":{"channel":"a","unsubscribe":{"code":2500,"reason":"insufficient state"}}}']
    place = alice.session.places.get("b")
    assert place is not None
    assert place.subscription is not None
    assert not place.subscription.gathers, "alone again, it is written to directly"
    say(home, "b", b"1")
    assert alice.hears() == [published("b", "1", offset=1)]


def test_losing_a_place_that_the_server_gave_ends_the_connection() -> None:
    home = dialect_house(options=KEPT)
    alice = connected(home)
    alice.session.enter("a")
    alice.hears()
    home.node.invalidate(home.node.audiences["a"])
    assert alice.hears() == []
    assert alice.close == (3010, "insufficient state")


# A broker that answers later


class Late(MemoryBroker):
    """Lets a test say when a subscription is there, in whatever order; or that it is not to be had."""

    def __init__(self, home: House) -> None:
        super().__init__(home.node, home.clock, lambda: "EPOCH")
        self.asked: list[tuple[str, Done[None]]] = []

    def subscribe(self, channel: str, done: Done[None]) -> None:
        self.asked.append((channel, done))

    def answer(self, which: int = 0, fault: BrokerError | None = None) -> None:
        channel, done = self.asked.pop(which)
        if fault is not None:
            done(fault)
        else:
            super().subscribe(channel, done)


class Known:
    """Knows one client, which is put on channels."""

    def __init__(self, *channels: str) -> None:
        self._identity = Identity("ann", channels=channels)

    def check(self, token: str | None) -> Identity:
        if token == "old":
            raise Expired("over")
        if token == "bad":
            raise Refused("bad")
        return self._identity


def late_house(*channels: str, **options: Any) -> tuple[House, Late]:
    home = dialect_house(credentials=Known(*channels), **options)
    broker = home.node.broker = Late(home)
    return home, broker


def test_connect_is_answered_when_it_is_everywhere_and_the_rest_waits_for_that() -> None:
    home, broker = late_house("a", "b", options=KEPT)
    ann = Speaker(home)
    assert ann.asks(CONNECT, '{"id":2,"publish":{"channel":"c","data":1}}') == []
    assert not ann.transport.is_reading
    ann.says('{"id":3,"rpc":{}}')
    broker.answer(1)
    # It is on one of them; what comes there must not come before the reply that says so.
    say(home, "b", b"1", b"2")
    assert ann.hears() == []
    home.tick(60.0)
    assert ann.close is None, "it has done its part"
    broker.answer()
    reply, *pushes, second, third = ann.hears()
    subs = orjson.loads(reply)["connect"]["subs"]
    assert {name: sub.get("offset", 0) for name, sub in subs.items()} == {"a": 0, "b": 0}
    assert pushes == [published("b", "1", offset=1), published("b", "2", offset=2)]
    assert (second, third) == ('{"id":2,"publish":{}}', error(3, 104, "method not found"))
    assert ann.transport.is_reading
    say(home, "b", b"3")
    assert ann.hears() == [published("b", "3", offset=3)]
    home.assert_balanced()
    ann.goes()
    quiet(home)


def test_a_second_connect_is_one_too_many_also_while_the_first_one_waits() -> None:
    home, broker = late_house("a")
    ann = Speaker(home)
    assert ann.asks(CONNECT, CONNECT) == []
    broker.answer()
    assert len(ann.hears()) == 1
    assert ann.close == (3501, "bad request")
    ann.goes()
    quiet(home)


# The server API on a client that is being connected


def test_who_is_being_connected_can_be_disconnected() -> None:
    home, broker = late_house("a", options=ChannelOptions(presence=True, join_leave=True))
    ann = Speaker(home)
    assert ann.asks(CONNECT, '{"id":2,"rpc":{}}') == []
    (found,) = home.service.registry.find("ann")
    assert found is ann.session
    found.end(codes.DISCONNECT_FORCE_NO_RECONNECT)
    assert ann.hears() == []
    assert ann.close == (3503, "force disconnect")
    broker.answer()
    ann.goes()
    quiet(home)
    broker.presence("a", lambda present: _is_empty(present))


def test_who_is_being_connected_can_be_put_on_a_channel_and_is_told_after_the_reply() -> None:
    home, broker = late_house("a", options=KEPT)
    ann = Speaker(home)
    ann.says(CONNECT)
    assert ann.session.enter("a") == codes.ERROR_ALREADY_SUBSCRIBED
    assert ann.session.enter("b", data=b'{"x":1}') is None
    broker.answer(1)
    say(home, "b", b"1")
    assert ann.hears() == []
    broker.answer()
    reply, *pushes = ann.hears()
    assert set(orjson.loads(reply)["connect"]["subs"]) == {"a"}
    entered = {"recoverable": True, "epoch": "EPOCH", "positioned": True, "data": {"x": 1}}
    assert [orjson.loads(push)["push"] for push in pushes] == [
        {"channel": "b", "subscribe": entered},
        {"channel": "b", "pub": {"data": 1, "offset": 1}},
    ]
    home.assert_balanced()
    ann.goes()
    quiet(home)


@pytest.mark.parametrize("is_there", [True, False], ids=["there already", "on its way there"])
def test_who_is_being_connected_can_be_taken_off_a_channel(is_there: bool) -> None:
    home, broker = late_house("a", "b")
    ann = Speaker(home)
    ann.says(CONNECT)
    if is_there:
        broker.answer()
    assert ann.session.throw_out("a", codes.UNSUBSCRIBE_BY_SERVER)
    assert ann.hears() == []
    while broker.asked:
        broker.answer()
    reply, push = ann.hears()
    assert set(orjson.loads(reply)["connect"]["subs"]) == ({"a", "b"} if is_there else {"b"})
    assert push == '{"push":{"channel":"a","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}'
    assert {place.channel for place in ann.session.places} == {"b"}
    assert {channel for channel, audience in home.node.audiences.items() if audience.lanes} == {"b"}
    ann.goes()
    quiet(home)


def test_who_is_being_connected_lasts_as_long_as_it_was_given_then() -> None:
    home, broker = late_house("a")
    ann = Speaker(home)
    ann.says(CONNECT)
    ann.session.prolong(soon(home, 100))
    broker.answer()
    reply, push = ann.hears()
    assert '"expires"' not in reply
    assert push == '{"push":{"refresh":{"expires":true,"ttl":100}}}'
    assert ann.connection in home.listener.wheel.expiring


def test_a_client_that_goes_while_it_is_being_connected_leaves_nothing() -> None:
    home, broker = late_house("a", "b", options=ChannelOptions(presence=True, join_leave=True))
    ann = Speaker(home)
    ann.asks(CONNECT, '{"id":2,"rpc":{}}')
    broker.answer()
    ann.goes()
    broker.answer()
    quiet(home)
    broker.presence("a", lambda present: _is_empty(present))
    broker.presence("b", lambda present: _is_empty(present))


def _is_empty(present: Any) -> None:
    assert present == {}


def test_a_broker_that_is_away_sends_the_client_away_for_a_while() -> None:
    for first in (0, 1):
        home, broker = late_house("a", "b", "c")
        ann = Speaker(home)
        ann.asks(CONNECT, '{"id":2,"rpc":{}}')
        broker.answer(first)
        broker.answer(0, BrokerError("away"))
        assert ann.hears() == []
        assert ann.close == (3004, "internal server error")
        broker.answer()
        ann.goes()
        quiet(home)


def test_a_broker_that_is_away_at_once_leaves_nobody_on_the_other_channels() -> None:
    home, broker = late_house("a", "b")
    broker.subscribe = lambda channel, done: done(BrokerError("away") if channel == "a" else None)  # type: ignore[method-assign]
    ann = Speaker(home)
    assert ann.ends(CONNECT) == (3004, "internal server error")
    ann.goes()
    quiet(home)


def test_a_subscription_that_the_broker_refuses_is_an_error_worth_another_try() -> None:
    home, broker = late_house()
    ann = connected(home)
    assert ann.asks(subscribe("a")) == []
    assert ann.asks(subscribe("a", 3)) == [error(3, *TAKEN)]
    broker.answer(0, BrokerError("away"))
    assert ann.hears() == [error(2, 100, "internal server error", temporary=True)]
    ann.says(subscribe("a", 4))
    broker.answer()
    assert ann.hears() == ['{"id":4,"subscribe":{}}']


def test_who_leaves_on_its_way_there_gets_an_answer_to_each_and_may_come_again() -> None:
    home, broker = late_house(options=ChannelOptions(presence=True, join_leave=True))
    ann, watcher = connected(home), connected(home, "WATCHER")
    watcher.says(subscribe("a", join_leave=True))
    broker.answer()
    watcher.hears()
    assert ann.asks(subscribe("a")) == []
    assert ann.asks('{"id":3,"unsubscribe":{"channel":"a"}}') == ['{"id":3,"unsubscribe":{}}']
    busy = (111, "too many requests")
    assert ann.asks(subscribe("a", 4)) == [error(4, *busy, temporary=True)]
    broker.answer()
    assert ann.hears() == [error(2, *busy, temporary=True)]
    assert watcher.hears() == [], "nobody has seen it"
    ann.says(subscribe("a", 5))
    broker.answer()
    assert ann.hears() == ['{"id":5,"subscribe":{}}']
    assert len(watcher.hears()) == 1
    ann.goes()
    watcher.goes()
    quiet(home)


def test_who_leaves_as_soon_as_it_is_there_is_seen_to_come_before_it_is_seen_to_go() -> None:
    home, broker = late_house("a", options=ChannelOptions(join_leave=True))
    watcher = connected_on(home, broker, "WATCHER")
    ann = Speaker(home)
    ann.says(CONNECT, '{"id":2,"unsubscribe":{"channel":"a"}}')
    broker.answer()
    assert ['"join"' in line for line in watcher.hears()] == [True, False]


def connected_on(home: House, broker: Late, name: str) -> Speaker:
    speaker = Speaker(home, name)
    speaker.says(CONNECT)
    broker.answer()
    speaker.hears()
    return speaker


def test_channels_that_are_there_in_another_order_are_all_written_as_one() -> None:
    home, broker = late_house()
    ann = connected(home)
    for id, channel in enumerate("abc", 2):
        ann.says(subscribe(channel, id))
    for which in (2, 0, 0):
        broker.answer(which)
    assert len(ann.hears()) == 3
    writes = len(ann.transport.writes)
    for channel in "abc":
        say(home, channel, b"1")
    assert len(ann.hears()) == 3
    assert len(ann.transport.writes) == writes + 1


class LateHistory(MemoryBroker):
    """Lets a test say when a history has been read."""

    def __init__(self, home: House) -> None:
        super().__init__(home.node, home.clock, lambda: "EPOCH")
        self.read: list[Any] = []

    def history(self, channel: str, retention: Retention, wanted: Slice, done: Done[Stream]) -> None:
        super().history(channel, retention, wanted, lambda stream: self.read.append(lambda: done(stream)))


def test_answers_that_come_later_come_to_a_client_that_does_not_read_as_well() -> None:
    home = dialect_house(options=KEPT)
    broker = home.node.broker = LateHistory(home)
    ann = connected(home)
    ann.transport.stall()
    ann.says(*[f'{{"id":{id},"history":{{"channel":"a"}}}}' for id in (2, 3, 4)])
    for answer in reversed(broker.read):
        answer()
    assert ann.connection.reader.is_held
    ann.transport.drain()
    assert [orjson.loads(line)["id"] for line in ann.hears()] == [4, 3, 2]
    assert not ann.connection.reader.is_held
    ann.says('{"id":5,"history":{"channel":"a"}}')
    ann.goes()
    broker.read[-1]()
    quiet(home)


def test_old_and_bad_tokens_of_any_credentials() -> None:
    home, _ = late_house()
    assert Speaker(home).asks(connect("old")) == [error(1, *EXPIRED)]
    assert Speaker(home, "BOB").ends(connect("bad")) == (3500, "invalid token")
