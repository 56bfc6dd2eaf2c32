"""What a session does with messages, and what it never does after it has left."""

from __future__ import annotations

from typing import cast

import pytest

from server.brokers.base import BrokerError
from server.core.counters import Drop
from server.core.frames import BINARY, TEXT
from server.core.hub import CONGESTION_BYTES
from server.core.lag import LagLimits, LagPolicy
from server.edge.closing import Close
from server.edge.connection import Connection
from server.edge.reader import Hold
from server.edge.session import EchoSession, RawSession
from tests.fakes import Transport
from tests.house import House, house


class Door:
    """What a session sees of its connection, which is its reader here, too; and what it asked of it."""

    def __init__(self) -> None:
        self.reader = self
        self.asked: list[object] = []
        self.transport = Transport()
        self.paused = False

    def close(self, code: int, reason: str) -> None:
        self.asked.append((int(code), reason))

    def fail(self, code: int, reason: str) -> None:
        self.asked.append(("fail", int(code), reason))

    def hold(self, why: Hold = Hold.CONGESTED) -> None:
        self.asked.append(f"hold {why.name}")

    def release(self, why: Hold = Hold.CONGESTED) -> None:
        self.asked.append(f"release {why.name}")


LIMITS = LagLimits(LagPolicy.DROP_OLDEST, messages=2)


def raw(home: House, channel: str = "main", user: str = "") -> tuple[RawSession, Door]:
    door = Door()
    session = RawSession(cast(Connection, door), home.service, channel, user)
    session.begin()
    return session, door


def echo() -> tuple[EchoSession, Door]:
    door = Door()
    return EchoSession(cast(Connection, door)), door


@pytest.mark.parametrize(
    ("opcode", "payload", "frame"),
    [
        (TEXT, b"hello", b"\x81\x05hello"),
        (TEXT, b"", b"\x81\x00"),
        (TEXT, bytearray("é".encode()), b"\x81\x02\xc3\xa9"),
        (BINARY, b"\xff\x00", b"\x82\x02\xff\x00"),
        (BINARY, bytearray(b"\xff"), b"\x82\x01\xff"),
    ],
)
def test_what_one_says_all_of_the_channel_hear_byte_for_byte(opcode: int, payload: bytes, frame: bytes) -> None:
    home = house(LIMITS)
    (speaker, own), (_, other), (_, elsewhere) = raw(home), raw(home), raw(home, "elsewhere")
    speaker.message(opcode, payload)
    home.loop.settle()
    assert own.transport.writes == [frame], "the speaker too"
    assert other.transport.writes == [frame]
    assert elsewhere.transport.writes == []
    assert own.asked == []


@pytest.mark.parametrize("make", ["raw", "echo"])
def test_text_that_is_not_utf_8_breaks_off_and_goes_nowhere(make: str) -> None:
    home = house(LIMITS)
    session, door = raw(home) if make == "raw" else echo()
    session.message(TEXT, b"\xff")
    home.loop.settle()
    assert door.asked == [("fail", 1007, "text is not UTF-8")]
    assert door.transport.writes == []
    assert home.counters.published == 0


def test_who_may_not_publish_is_told_so() -> None:
    home = house(LIMITS, may_publish=False)
    session, door = raw(home)
    session.message(TEXT, b"hello")
    home.loop.settle()
    assert door.asked == [(1008, "clients may not publish here")]
    assert door.transport.writes == []


def test_a_congested_channel_reads_no_more_of_its_speaker_until_there_is_room() -> None:
    home = house(LIMITS)
    session, door = raw(home)
    session.message(BINARY, bytes(CONGESTION_BYTES))
    assert door.asked == ["hold CONGESTED"]
    home.loop.turn()
    assert door.asked == ["hold CONGESTED", "release CONGESTED"]
    home.loop.settle()
    assert door.asked == ["hold CONGESTED", "release CONGESTED"]


def test_what_the_broker_does_not_take_is_counted_and_the_client_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    home = house()
    refuse = lambda *asked: asked[-1](BrokerError("away"))  # noqa: E731
    monkeypatch.setattr(home.node.broker, "publish", refuse)
    session, door = raw(home)
    for _ in range(3):
        session.message(TEXT, b"lost")
    assert (home.counters.refused, door.asked) == (3, [])


def test_a_lagging_client_is_queued_for_and_a_client_that_left_is_not() -> None:
    home = house(LIMITS)
    session, door = raw(home)
    session.pause()
    session.message(TEXT, b"a")
    home.loop.settle()
    assert (door.transport.writes, session.outbox.messages) == ([], 1)
    session.outbox.take(1)
    session.resume()
    session.message(TEXT, b"b")
    home.loop.settle()
    assert door.transport.writes == [b"\x81\x01b"]


def test_leaving_drops_what_is_queued_and_is_idempotent() -> None:
    home = house(LIMITS)
    session, door = raw(home)
    session.pause()
    session.message(TEXT, b"a")
    home.loop.settle()
    for _ in range(2):
        session.leave()
        assert session.outbox.messages == 0
        assert home.counters.dropped[Drop.DISCONNECTED] == 1
        assert home.hub.subscriptions == 0
    assert session.outbox.lost is not None
    session.resume()
    home.publish("main", b"late")
    home.loop.settle()
    assert door.transport.writes == []
    home.assert_balanced()


def test_finishing_keeps_what_is_queued_and_takes_nothing_new() -> None:
    home = house(LIMITS)
    session, _ = raw(home)
    session.pause()
    session.message(TEXT, b"a")
    home.loop.settle()
    for _ in range(2):
        session.finish()
        assert session.outbox.messages == 1
    home.publish("main", b"late")
    home.loop.settle()
    assert session.outbox.messages == 1


@pytest.mark.parametrize(
    ("opcode", "payload", "frame"),
    [(TEXT, b"hello", b"\x81\x05hello"), (BINARY, bytearray(b"\xff"), b"\x82\x01\xff")],
)
def test_an_echo_goes_back_to_its_client_alone_and_at_once(opcode: int, payload: bytes, frame: bytes) -> None:
    home = house(LIMITS)
    _, listening = raw(home)
    session, door = echo()
    session.message(opcode, payload)
    home.loop.settle()
    assert door.transport.writes == [frame]
    assert listening.transport.writes == []
    assert (session.dialect, session.channel, session.outbox) == ("echo", "", None)


def test_an_echo_that_is_not_taken_stops_the_reading() -> None:
    session, door = echo()
    session.pause()
    session.resume()
    session.finish()
    session.leave()
    assert door.asked == ["hold UNREAD", "release UNREAD"]


@pytest.mark.parametrize("make", ["raw", "echo"])
@pytest.mark.parametrize("cause", [*Close, 1000, 4321])
def test_a_plain_client_is_told_the_code_and_the_reason_as_they_are(make: str, cause: int) -> None:
    session, _ = raw(house(LIMITS)) if make == "raw" else echo()
    plain = 1008 if cause in (Close.EXPIRED, Close.TOO_MANY, Close.STALE) else cause
    assert session.farewell(cause, "why") == (plain, "why")


@pytest.mark.parametrize("make", ["raw", "echo"])
def test_a_plain_client_is_pinged_as_websocket_does(make: str) -> None:
    session, _ = raw(house(LIMITS)) if make == "raw" else echo()
    assert session.ping_frame is None
