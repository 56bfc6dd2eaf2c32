"""The stream of what was revoked: read from the beginning, read on, said again; over brokers late and forgetful."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from server.brokers.base import BrokerError, Done, Published, Retention, Slice, Stream, Terms
from server.brokers.memory import MemoryBroker
from server.core import revocations
from server.core.counters import Counters
from server.core.history import Position
from server.core.names import name_fault
from server.core.publication import Publication
from server.core.revocations import MOST, MOST_KEPT, Revocation, Token
from server.node import revocation_log
from server.node.namespaces import ChannelOptions, Namespaces
from server.node.node import Node
from server.node.revocation_log import KEPT, REVOKED, RevocationLog, decode, encode
from tests.fakes import Clock

LEAK = Revocation(uid="leaked", ends=2e9)


class Broker(MemoryBroker):
    """Memory that several logs share; away while it `is_away`; counts what is published and read."""

    def __init__(self) -> None:
        self.logs: list[RevocationLog] = []
        self.clock = Clock()
        self.began = self.clock.now
        self.is_away = False
        self.published: list[Terms] = []
        self.reads: list[Slice] = []
        super().__init__(self, self.clock)  # type: ignore[arg-type]

    def hear(self, channel: str, publication: Publication, epoch: str) -> bool:
        assert channel == REVOKED
        for log in self.logs:
            log.look()
        return True

    def publish(self, channel: str, publication: Publication, terms: Terms, done: Done[Published]) -> None:
        if self.is_away:
            done(BrokerError("away"))
            return
        self.published.append(terms)
        super().publish(channel, publication, terms, done)

    def subscribe(self, channel: str, done: Done[None]) -> None:
        if self.is_away:
            done(BrokerError("away"))
        else:
            super().subscribe(channel, done)

    def history(self, channel: str, retention: Retention, wanted: Slice, done: Done[Stream]) -> None:
        if self.is_away:
            done(BrokerError("away"))
            return
        self.reads.append(wanted)
        super().history(channel, retention, wanted, done)

    @property
    def now(self) -> float:
        return 1_700_000_000.0 + self.clock.now - self.began

    def log(self, *, follows: bool = True) -> RevocationLog:
        """A node's log."""
        log = RevocationLog(lambda: self, lambda: self.now)
        self.logs.append(log)
        if follows:
            log.follow()
        return log

    def forget_everything(self) -> None:
        self._streams.clear()
        self._round.clear()
        self._answers = type(self._answers)()


@pytest.fixture
def broker() -> Broker:
    return Broker()


def revoke(log: RevocationLog, revocation: Revocation) -> object:
    answers: list[bool | BrokerError] = []
    log.revoke(revocation, answers.append)
    [answer] = answers
    return answer


def knows(log: RevocationLog, uid: str = "leaked") -> bool:
    return log.revoked.refuses(Token(uid))


def test_what_is_revoked_anywhere_is_known_everywhere(broker: Broker) -> None:
    one, other = broker.log(), broker.log()
    news: list[str] = []
    other.on_news = lambda: news.append("news")
    assert revoke(one, LEAK) is True
    assert knows(one)
    assert knows(other)
    assert news == ["news"]
    assert revoke(one, LEAK) is True
    assert news == ["news"], "nothing new"


def test_who_comes_later_reads_it_all(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation_log, "PAGE", 3)
    one = broker.log()
    for number in range(10):
        revoke(one, Revocation(uid=str(number)))
    broker.reads.clear()
    late = broker.log()
    assert all(knows(late, str(number)) for number in range(10))
    assert [wanted.since and wanted.since.offset for wanted in broker.reads] == [0, 3, 6, 9]


def test_who_does_not_follow_reads_when_it_is_asked(broker: Broker) -> None:
    one, supervisor = broker.log(), broker.log(follows=False)
    revoke(one, LEAK)
    assert not knows(supervisor)
    supervisor.look()
    supervisor.tick()
    assert not knows(supervisor)
    assert revoke(supervisor, Revocation(uid="another")) is True
    assert knows(supervisor)
    assert knows(one, "another")


def test_while_the_broker_is_away_nothing_is_revoked_and_that_is_said(broker: Broker) -> None:
    log = broker.log()
    broker.is_away = True
    assert isinstance(revoke(log, LEAK), BrokerError)
    assert not knows(log)
    broker.is_away = False
    assert revoke(log, LEAK) is True


def test_what_cannot_be_read_at_first_is_read_later(broker: Broker) -> None:
    revoke(broker.log(), LEAK)
    broker.is_away = True
    answers: list[BrokerError | None] = []
    late = broker.log(follows=False)
    late.follow(answers.append)
    assert isinstance(answers[0], BrokerError)
    late.tick()
    assert not knows(late)
    broker.is_away = False
    late.tick()
    assert knows(late)
    broker.reads.clear()
    late.tick()
    assert broker.reads == [], "it is current"


def test_who_could_read_but_not_subscribe_goes_on_trying(broker: Broker) -> None:
    log = broker.log(follows=False)
    subscribe, asked = MemoryBroker.subscribe, []

    def refuse(channel: str, done: Done[None]) -> None:
        asked.append(channel)
        done(BrokerError("deaf"))

    broker.subscribe = refuse  # type: ignore[method-assign]
    log.follow()
    log.catch_up()
    log.tick()
    assert len(asked) == 2, "a read that goes well is not enough"
    broker.subscribe = lambda channel, done: subscribe(broker, channel, done)  # type: ignore[method-assign]
    log.tick()
    log.tick()
    assert broker._heard == {REVOKED}


def test_a_read_that_is_asked_for_during_another_sees_what_came_in_between() -> None:
    """The first read's answer is older than what the second one was asked for."""
    streams: list[Done[Stream]] = []

    class Late:
        def history(self, channel: str, retention: Retention, wanted: Slice, done: Done[Stream]) -> None:
            streams.append(done)

    log = RevocationLog(lambda: Late())  # type: ignore[arg-type, return-value]
    done: list[str] = []
    log.catch_up(lambda _: done.append("first"))
    log.catch_up(lambda _: done.append("second"))
    log.catch_up(lambda _: done.append("third"))
    assert len(streams) == 1, "one at a time"
    streams.pop()(Stream((), Position(0, "a")))
    assert done == ["first"]
    streams.pop()(Stream((Publication(encode(LEAK), offset=1),), Position(1, "a")))
    assert done == ["first", "second", "third"]
    assert not streams
    assert knows(log)


def test_there_is_room_for_so_many(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation_log, "MOST", 3)
    log = broker.log()
    for uid in "abc":
        assert revoke(log, Revocation(uid=uid, ends=1_700_000_010)) is True
    assert revoke(log, Revocation(uid="d")) is False
    assert not knows(log, "d")
    assert revoke(log, Revocation(uid="a", ends=1_700_000_020)) is True, "it takes no more room"
    broker.clock.advance(10)
    assert revoke(log, Revocation(uid="d")) is True, "those that have ended make room, without waiting for the second"


def test_those_under_way_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation_log, "MOST", 2)
    waiting: list[Done[Published]] = []

    class Slow(Broker):
        def publish(self, channel: str, publication: Publication, terms: Terms, done: Done[Published]) -> None:
            waiting.append(done)

    log, answers = Slow().log(), []
    for uid in "abc":
        log.revoke(Revocation(uid=uid), answers.append)
    assert answers == [False]
    assert len(waiting) == 2
    waiting[0](BrokerError("away"))
    log.revoke(Revocation(uid="d"), answers.append)
    assert len(waiting) == 3


def test_what_has_ended_is_forgotten_once_a_second(broker: Broker) -> None:
    log = broker.log()
    revoke(log, Revocation(uid="leaked", ends=1_700_000_005))
    broker.clock.advance(4)
    log.tick()
    assert knows(log)
    broker.clock.advance(1)
    log.tick()
    assert not knows(log)
    assert not knows(broker.log()), "whoever reads it later does not take it in again"


# What the broker forgets


def test_a_broker_that_comes_back_empty_is_told_again_and_once(broker: Broker) -> None:
    nodes = [broker.log() for _ in range(3)]
    revoke(nodes[0], LEAK)
    revoke(nodes[0], Revocation(user="ann", before=5))
    broker.forget_everything()
    broker.published.clear()
    for node in nodes:
        assert knows(node)
        node.look()  # it may have missed something
    late = broker.log()
    assert knows(late)
    assert late.revoked.refuses(Token(user="ann"))
    assert len(broker._streams[REVOKED].read(0.0)) == 2, "however many say it"


def test_what_the_stream_would_forget_is_said_again(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation_log, "KEPT", Retention(20, KEPT.ttl))
    nodes = [broker.log(), broker.log()]
    revoke(nodes[0], LEAK)
    for number in range(100):
        broker.clock.advance(5)
        for node in nodes:
            node.tick()
        revoke(nodes[0], Revocation(uid=str(number), ends=broker.now + 7))
    late = broker.log()
    assert knows(late)
    assert len(late.revoked) == 3
    repeats = [terms for terms in broker.published if terms.idempotency_key]
    assert 5 <= len(repeats) <= 60, "not with each word"


def test_when_all_that_is_kept_has_faded_it_comes_to_rest(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation_log, "MOST", 10)
    monkeypatch.setattr(revocation_log, "KEPT", Retention(40, KEPT.ttl))
    log = broker.log()
    for number in range(10):
        assert revoke(log, Revocation(uid=str(number))) is True
    for _ in range(10):
        revoke(log, Revocation(uid="0"))
    published = len(broker.published)
    for _ in range(5):
        log.look()
    assert len(broker.published) == published
    revoke(log, Revocation(uid="0"))
    assert len(broker.published) <= published + 11
    late = broker.log()
    assert len(late.revoked) == 10


def test_the_stream_has_room_for_all_said_again() -> None:
    assert KEPT.size // 2 > MOST_KEPT > MOST, "words about the old never push the old out"


# What is said


@pytest.mark.parametrize(
    ("revocation", "text"),
    [
        (Revocation(uid="1"), b'{"v":1,"uid":"1","ends":0}'),
        (Revocation(uid="1", ends=5), b'{"v":1,"uid":"1","ends":5}'),
        (
            Revocation(user="ann", channel="news", before=7, ends=9),
            b'{"v":1,"user":"ann","channel":"news","before":7,"ends":9}',
        ),
        (Revocation(before=7), b'{"v":1,"user":"","channel":"","before":7,"ends":0}'),
    ],
)
def test_how_it_is_written(revocation: Revocation, text: bytes) -> None:
    assert encode(revocation) == text
    assert decode(text) == revocation


@pytest.mark.parametrize(
    "text",
    [
        b"", b"null", b"[]", b"{}", b'{"v":1}', b'{"v":2,"uid":"1","ends":0}', b'{"v":1,"uid":"","ends":0}',
        b'{"v":1,"uid":7,"ends":0}', b'{"v":1,"uid":"1"}', b'{"v":1,"uid":"1","ends":"0"}', b'{"v":1,"user":"ann"}',
        b'{"v":1,"user":"ann","channel":null,"before":1,"ends":0}', b'{"v":1,"uid":"1","ends":NaN}', b"\xff",
        b'{"v":1,"ends":0,"uid":"' + b"x" * 20_000 + b'"}',
    ],
)  # fmt: skip
def test_what_is_none_is_ignored(broker: Broker, text: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert decode(text) is None
    log = broker.log()
    broker.publish(REVOKED, Publication(text), Terms(KEPT), lambda _: None)
    revoke(log, LEAK)
    late = broker.log()
    assert len(log.revoked) == len(late.revoked) == 1
    assert [record.getMessage()[:33] for record in caplog.records] == ["1 revocations are not in force: t"] * 2


def test_what_there_is_no_room_for_is_said_once(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(revocations, "MOST_KEPT", 2)
    for number in range(5):
        broker.publish(REVOKED, Publication(encode(Revocation(uid=str(number)))), Terms(KEPT), lambda _: None)
    log = broker.log()
    assert [knows(log, str(number)) for number in range(5)] == [True, True, False, False, False]
    assert [record.args for record in caplog.records] == [(3,)]


def test_no_client_can_name_the_channel() -> None:
    assert name_fault(REVOKED, 128)


# In a node


@pytest.mark.parametrize("way", ["hear", "lost", "lost all", "check"])
def test_a_node_reads_on_when_there_may_be_something_new(way: str, broker: Broker) -> None:
    node: Any = Node(None, Namespaces(ChannelOptions()), Counters(), lambda owner, channel: None)  # type: ignore[arg-type]
    node.broker = broker
    ways: dict[str, Callable[[], object]] = {
        "hear": lambda: node.hear(REVOKED, Publication(b""), "a"),
        "lost": lambda: node.lost(REVOKED),
        "lost all": lambda: node.lost(None),
        "check": node.check_positions,
    }
    ways[way]()
    assert broker.reads == [], "it does not follow"
    node.revocations.follow()
    revoke(broker.log(), LEAK)
    assert not knows(node.revocations)
    ways[way]()
    assert knows(node.revocations)
