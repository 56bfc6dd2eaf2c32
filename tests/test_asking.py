"""What a Centrifuge client may ask of a channel beside listening, in literal JSON: publish, history, presence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson
import pytest

from server.brokers.base import BrokerError, Done, Retention, Slice, Stream
from server.brokers.memory import MemoryBroker
from server.core.hub import CONGESTION_BYTES
from server.core.lag import LagLimits
from server.core.publication import ClientInfo, Publication
from server.edge.centrifuge.session import MOST_AWAITED
from server.edge.outlet import HELD_BYTES
from server.node.namespaces import ChannelOptions
from tests import wire
from tests.forgeries import FUTURE, signed
from tests.house import House
from tests.speaker import BAD, DENIED, UNAVAILABLE, connected, dialect_house, error, jwt_house, published

KEPT: Final = ChannelOptions(retention=Retention(10, 300.0))
ALL: Final = ChannelOptions(retention=Retention(10, 300.0), presence=True)


def say(home: House, channel: str, *payloads: bytes) -> None:
    for payload in payloads:
        home.node.publish(channel, Publication(payload), lambda done: None)


# Who may


@pytest.mark.parametrize(
    "ask",
    [
        '{"id":2,"publish":{"channel":"%s","data":1}}',
        '{"id":2,"history":{"channel":"%s"}}',
        '{"id":2,"presence":{"channel":"%s"}}',
        '{"id":2,"presence_stats":{"channel":"%s"}}',
    ],
    ids=["publish", "history", "presence", "presence_stats"],
)
class TestWhoMay:
    def test_not_without_a_proper_name(self, ask: str) -> None:
        home = dialect_house(options=ALL)
        alice = connected(home)
        for name in ("", "a b", "x" * 129, "\\u0000", "\\u2028"):
            assert alice.asks(ask % name) == [error(2, *BAD)]
        assert home.node.broker.streams == 0, "no name is remembered"  # type: ignore[attr-defined]

    @pytest.mark.parametrize("closed", [ChannelOptions(subscribe=False), ChannelOptions(anonymous=False)])
    def test_not_where_it_may_not_hear(self, ask: str, closed: ChannelOptions) -> None:
        options = ChannelOptions(
            subscribe=closed.subscribe, anonymous=closed.anonymous, retention=ALL.retention, presence=True
        )
        alice = connected(dialect_house(namespaces={"shut": options}))
        assert alice.asks(ask % "shut:a") == [error(2, *DENIED)]

    def test_not_where_the_namespace_says_no(self, ask: str) -> None:
        options = ChannelOptions(
            publish=False, read_history=False, read_presence=False, retention=ALL.retention, presence=True
        )
        alice = connected(dialect_house(options=options))
        alice.subscribes("news")
        assert alice.asks(ask % "news") == [error(2, *DENIED)]

    def test_a_channel_that_a_token_opened_is_open(self, ask: str) -> None:
        home = jwt_house(options=ChannelOptions(subscribe=False, retention=ALL.retention, presence=True))
        ann = connected(home, token=signed({"sub": "ann", "exp": FUTURE}))
        assert ann.asks(ask % "shut") == [error(2, *DENIED)]
        ann.subscribes("shut", token=signed({"sub": "ann", "channel": "shut", "exp": FUTURE}))
        answers = [line for line in ann.asks(ask % "shut") if line.startswith('{"id":2,')]
        assert len(answers) == 1
        assert '"error"' not in answers[0]

    def test_also_who_does_not_listen(self, ask: str) -> None:
        alice = connected(dialect_house(options=ALL))
        (answer,) = alice.asks(ask % "news")
        assert '"error"' not in answer


def test_what_a_channel_does_not_have_is_not_available() -> None:
    alice = connected(dialect_house())
    for ask in ("history", "presence", "presence_stats"):
        assert alice.asks(f'{{"id":2,"{ask}":{{"channel":"news"}}}}') == [error(2, *UNAVAILABLE)]


# Publish


@pytest.mark.parametrize("data", ["1.10", '{"b":1,"a":[]}', '"x"', "null", "1e5", '"\\u00e9"', "true", "[]"])
def test_what_is_said_is_heard_as_it_was_said_and_by_whom(data: str) -> None:
    home = dialect_house()
    alice, bob = connected(home), connected(home, "BOB")
    bob.subscribes("news")
    assert alice.asks(f'{{"id":2,"publish":{{"channel":"news","data":{data}}}}}') == ['{"id":2,"publish":{}}']
    assert bob.hears() == [published("news", data, '{"user":"","client":"ME"}')]


def test_a_publisher_of_a_congested_channel_is_not_read_from_until_there_is_room() -> None:
    home = dialect_house()
    alice, bob = connected(home), connected(home, "BOB")
    bob.subscribes("news")
    home.node.publish("news", Publication(b'"' + b"x" * CONGESTION_BYTES + b'"', is_json=True), lambda done: None)
    alice.says('{"id":2,"publish":{"channel":"news","data":1}}')
    assert alice.connection.reader.is_held
    assert not alice.transport.is_reading
    home.loop.settle()
    assert alice.transport.is_reading
    assert alice.hears() == ['{"id":2,"publish":{}}']


def many(*lines: str) -> bytes:
    """Each line in a frame of its own, all in one read."""
    return b"".join(wire.text(line) for line in lines)


def test_the_replies_to_all_that_one_read_brings_are_one_write() -> None:
    home = dialect_house()
    alice, bob = connected(home), connected(home, "BOB")
    bob.subscribes("news")
    alice.transport.writes.clear()
    alice.feed(many(*(f'{{"id":{number},"publish":{{"channel":"news","data":{number}}}}}' for number in range(2, 12))))
    assert len(alice.transport.writes) == 1
    assert alice.hears() == [f'{{"id":{number},"publish":{{}}}}' for number in range(2, 12)]
    assert len(bob.hears()) == 10


def test_what_is_replied_goes_out_before_a_close_frame_and_before_what_is_queued() -> None:
    home = dialect_house()
    alice = connected(home)
    alice.feed(many('{"id":2,"presence":{}}', '{"id":3,"rpc":{}}', "garbage"))
    assert [line[:8] for line in alice.hears()] == ['{"id":2,', '{"id":3,']
    assert alice.close == (3501, "bad request")


def test_large_replies_are_not_held_until_there_are_many() -> None:
    home = dialect_house(options=ALL)
    alice = connected(home)
    for _ in range(9):
        alice.asks('{"id":2,"publish":{"channel":"news","data":"' + "x" * 3000 + '"}}')
    alice.transport.writes.clear()
    alice.feed(many(*['{"id":3,"history":{"channel":"news","limit":9}}'] * 4))
    assert [len(write) > HELD_BYTES for write in alice.transport.writes] == [True] * 4
    assert len(alice.hears()) == 4


def test_who_takes_no_replies_is_not_looked_at_further_than_one_piece_of_a_read() -> None:
    home = dialect_house()
    alice = connected(home)
    alice.transport.stall()
    alice.transport.writes.clear()
    line = '{"id":2,"rpc":{"padding":"' + "x" * 400 + '"}}'
    alice.feed(many(*[line] * 100))
    assert alice.connection.reader.has_unread
    answered = len(wire.read(b"".join(alice.transport.writes)))
    assert answered < 20
    alice.transport.drain()
    assert len(alice.hears()) == 100


# History


def asked(**more: Any) -> str:
    fields = "".join(f',"{name}":{value}' for name, value in more.items())
    return f'{{"id":2,"history":{{"channel":"news"{fields}}}}}'


@pytest.mark.parametrize(
    ("more", "offsets"),
    [
        ({}, []),
        ({"limit": 0}, []),
        ({"limit": -1}, [1, 2, 3, 4]),
        ({"limit": 2}, [1, 2]),
        ({"limit": 2, "reverse": "true"}, [4, 3]),
        ({"limit": -1, "reverse": "true"}, [4, 3, 2, 1]),
        ({"limit": -1, "since": '{"offset":2,"epoch":"EPOCH"}'}, [3, 4]),
        ({"limit": -1, "since": '{"offset":2}'}, [3, 4]),
        ({"limit": 1, "since": '{"offset":2,"epoch":"EPOCH"}'}, [3]),
        ({"limit": -1, "since": '{"offset":3,"epoch":"EPOCH"}', "reverse": "true"}, [2, 1]),
        ({"limit": -1, "since": '{"offset":4,"epoch":"EPOCH"}'}, []),
        ({"limit": 5, "since": '{"offset":18446744073709551615,"epoch":"EPOCH"}'}, []),
        ({"limit": 2147483647, "since": "{}"}, [1, 2, 3, 4]),
    ],
)
def test_history(more: dict[str, Any], offsets: list[int]) -> None:
    home = dialect_house(options=KEPT)
    say(home, "news", b"1", b"2", b"3", b"4")
    alice = connected(home)
    kept = ",".join(f'{{"data":{offset},"offset":{offset}}}' for offset in offsets)
    answer = f'{{"id":2,"history":{{"publications":[{kept}],"epoch":"EPOCH","offset":4}}}}'
    assert alice.asks(asked(**more)) == [answer]


@pytest.mark.parametrize(
    ("limit", "offsets"),
    [(-1, [1, 2, 3]), (0, []), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 3]), (2**31 - 1, [1, 2, 3])],
)
def test_a_history_is_as_long_as_it_may_be(limit: int, offsets: list[int]) -> None:
    home = dialect_house(options=replace(KEPT, history_limit=3))
    say(home, "news", b"1", b"2", b"3", b"4")
    alice = connected(home)
    assert history(alice.asks(asked(limit=limit))) == (offsets, 4)
    since = f'{{"offset":{max(offsets, default=0)},"epoch":"EPOCH"}}'
    assert history(alice.asks(asked(limit=-1, since=since)))[0] == [1, 2, 3, 4][len(offsets) :][:3], "then the rest"


@pytest.mark.parametrize("reverse", ["false", "true"])
def test_a_history_has_no_more_bytes_than_may_wait_for_a_client(reverse: str) -> None:
    kept = ["x" * size for size in (10, 200, 40, 40)]
    home = dialect_house(options=replace(KEPT, lag=LagLimits(bytes=130)))
    say(home, "news", *(f'"{text}"'.encode() for text in kept))
    alice = connected(home)
    found, pages, place = [], 0, 0 if reverse == "false" else 5
    while True:
        since = f'{{"offset":{place},"epoch":"EPOCH"}}'
        offsets, _ = history(alice.asks(asked(limit=-1, since=since, reverse=reverse)))
        if not offsets:
            break
        found += offsets
        pages, place = pages + 1, offsets[-1]
    assert found == ([1, 2, 3, 4] if reverse == "false" else [4, 3, 2, 1])
    assert pages == 3, "the second one is alone, for it is larger than there is room"


def history(lines: list[str]) -> tuple[list[int], int]:
    """Read the offsets of an answer, and the top."""
    (line,) = lines
    result = orjson.loads(line)["history"]
    return [publication["offset"] for publication in result["publications"]], result["offset"]


@pytest.mark.parametrize(
    "ask",
    [
        '{"id":%d,"history":{"channel":"news","limit":-1}}',
        '{"id":%d,"presence":{"channel":"news"}}',
        '{"id":%d,"subscribe":{"channel":"c%d","recover":true}}',
    ],
    ids=["history", "presence", "recovery"],
)
def test_few_answers_that_may_be_large_are_on_their_way_at_a_time(ask: str) -> None:
    home = dialect_house(options=ALL)
    broker = home.node.broker = Slow(home)
    alice = connected(home)
    lines = [ask % (id, id)[: ask.count("%d")] for id in range(2, 22)]
    assert alice.asks(*lines, '{"id":99,"rpc":{}}') == []
    assert len(broker.answers) == MOST_AWAITED
    assert not alice.transport.is_reading
    heard = []
    while broker.answers:
        broker.answers.pop(0)()
        heard += alice.hears()
        assert len(broker.answers) <= MOST_AWAITED
    assert alice.transport.is_reading
    ids = [orjson.loads(line)["id"] for line in heard if line.startswith('{"id"')]
    assert sorted(ids) == [*range(2, 22), 99]


def test_who_does_not_take_its_answers_gets_no_more_of_them() -> None:
    home = dialect_house(options=ALL)
    broker = home.node.broker = Slow(home)
    alice = connected(home)
    alice.transport.room = 0
    alice.says(*(f'{{"id":{id},"history":{{"channel":"news"}}}}' for id in range(2, 22)))
    given = 0
    while broker.answers:
        broker.answers.pop(0)()
        given += 1
    assert given == MOST_AWAITED
    alice.transport.room = None
    alice.transport.drain()
    heard = alice.hears()
    while broker.answers:
        broker.answers.pop(0)()
        heard += alice.hears()
    assert sorted(orjson.loads(line)["id"] for line in heard) == [*range(2, 22)]


class Slow(MemoryBroker):
    """Gives its answers when a test lets it."""

    def __init__(self, home: House) -> None:
        super().__init__(home.node, home.clock, lambda: "EPOCH")
        self.answers: list[Callable[[], None]] = []

    def history(self, channel: str, retention: Retention, wanted: Slice, done: Done[Stream]) -> None:
        ask = super().history
        self.answers.append(lambda: ask(channel, retention, wanted, done))

    def presence(self, channel: str, done: Done[Mapping[str, ClientInfo]]) -> None:
        ask = super().presence
        self.answers.append(lambda: ask(channel, done))


def test_the_history_of_another_epoch_is_not_to_be_had() -> None:
    home = dialect_house(options=KEPT)
    say(home, "news", b"1")
    alice = connected(home)
    since = '{"offset":0,"epoch":"ANOTHER"}'
    assert alice.asks(asked(limit=-1, since=since)) == [error(2, 112, "unrecoverable position")]


def test_an_empty_history_has_a_position() -> None:
    alice = connected(dialect_house(options=KEPT))
    assert alice.asks(asked(limit=-1)) == ['{"id":2,"history":{"publications":[],"epoch":"EPOCH","offset":0}}']


# Presence


def test_who_is_there() -> None:
    home = jwt_house(options=ALL)
    ann = connected(home, "ANN1", token=signed({"sub": "ann", "exp": FUTURE, "info": {"name": "Ann"}}))
    again = connected(home, "ANN2", token=signed({"sub": "ann", "exp": FUTURE}))
    for client in (ann, again):
        client.subscribes("hall")
    present = '{"ANN1":{"user":"ann","client":"ANN1","conn_info":{"name":"Ann"}},"ANN2":{"user":"ann","client":"ANN2"}}'
    assert ann.asks('{"id":2,"presence":{"channel":"hall"}}') == [f'{{"id":2,"presence":{{"presence":{present}}}}}']
    stats = '{"id":3,"presence_stats":{"num_clients":%d,"num_users":1}}'
    assert ann.asks('{"id":3,"presence_stats":{"channel":"hall"}}') == [stats % 2]
    again.goes()
    assert ann.asks('{"id":3,"presence_stats":{"channel":"hall"}}') == [stats % 1]
    assert ann.asks('{"id":2,"presence":{"channel":"empty"}}') == ['{"id":2,"presence":{"presence":{}}}']


# A broker that is away


@pytest.mark.parametrize("method", ["publish", "history", "presence", "presence_stats"])
def test_what_the_broker_cannot_tell_now_is_worth_another_try(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    home = dialect_house(options=ALL)
    alice = connected(home)
    monkeypatch.setattr(home.node.broker, method, lambda *details: details[-1](BrokerError("away")))
    data = ',"data":1' if method == "publish" else ""
    answer = [error(2, 100, "internal server error", temporary=True)]
    assert alice.asks(f'{{"id":2,"{method}":{{"channel":"news"{data}}}}}') == answer
    assert alice.close is None
