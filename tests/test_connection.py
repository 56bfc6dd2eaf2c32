"""One client from accept to the end, on a transport that a test stalls, drains and loses by hand.

Its reader, its handshake, its intake, its outlet and its ending have tests of their own. ``test_connection_sockets.py``
does the same over sockets and uvloop; what is decided is decided here.
"""

from __future__ import annotations

import time

import pytest

from server.brokers.base import BrokerError
from server.core.counters import Drop
from server.core.lag import LagLimits, LagPolicy
from server.edge.closing import Close
from server.edge.connection import Connection
from server.edge.credentials import Identity
from tests import wire
from tests.fakes import Transport
from tests.house import House, house
from tests.sessions import open_scripted


def closed(transport: Transport) -> wire.Read:
    """Read the close frame that must be the last thing that was sent."""
    *_, last = wire.read(transport.take())
    assert last.opcode == wire.CLOSE, last
    return last


def say(home: House, *words: str, channel: str = "main") -> None:
    """Publish texts and let them go out."""
    for text in words:
        home.publish(channel, wire.frame(wire.TEXT, text.encode(), mask=None))
    home.loop.settle()


# Lagging


def test_a_client_lags_from_the_first_byte_that_stays_and_catches_up_in_order() -> None:
    home = house()
    connection, transport = home.open()
    _, other = home.open()
    transport.room = 3
    say(home, "first")
    assert connection.paused
    assert connection.outbox is not None
    say(home, "second", "third")
    assert connection.outbox.messages == 2
    assert (home.backlog.messages, list(home.backlog.laggards)) == (2, [connection.outbox])
    assert list(home.wheel.paused) == [connection]
    transport.drain()
    assert wire.texts(transport.take()) == ["first", "second", "third"]
    assert (connection.paused, connection.outbox.messages) == (False, 0)
    assert (home.backlog.laggards, home.wheel.paused) == ({}, {})
    say(home, "fourth")
    assert wire.texts(transport.take()) == ["fourth"]
    assert wire.texts(other.take()) == ["first", "second", "third", "fourth"]
    home.assert_balanced()


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (LagPolicy.DROP_OLDEST, ["a", "d", "e"]),
        (LagPolicy.DROP_NEWEST, ["a", "b", "c"]),
        (LagPolicy.CONFLATE, ["a", "e"]),
    ],
)
def test_a_laggard_s_policy_is_the_configured_one(policy: LagPolicy, kept: list[str]) -> None:
    home = house(LagLimits(policy, messages=2, bytes=1000))
    _, transport = home.open()
    transport.stall()
    for text in "abcde":
        say(home, text)
    transport.drain()
    assert wire.texts(transport.take()) == kept
    home.assert_balanced()


def test_a_peer_with_no_room_for_the_handshake_lags_from_the_start() -> None:
    home = house()
    connection, transport = home.accept(room=10)
    connection.data_received(wire.request())
    assert (connection.is_open, connection.paused) == (True, True)
    say(home, "queued")
    assert connection.outbox is not None
    assert connection.outbox.messages == 1
    transport.drain()
    answer, rest = transport.take().split(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 101")
    assert wire.texts(rest) == ["queued"]


def test_a_connection_lost_while_it_lags_settles_everything() -> None:
    home = house()
    connection, transport = home.open()
    transport.stall()
    say(home, "a", "b")
    say(home, "c")
    transport.lose(ConnectionResetError())
    assert connection.session is None
    assert (home.hub.subscriptions, home.gate.open, home.listener.connections) == (0, 0, {})
    assert (home.backlog.messages, home.backlog.laggards, home.wheel.paused) == (0, {}, {})
    assert home.counters.closed == {"1006": 1}
    assert home.counters.dropped[Drop.DISCONNECTED] == 1
    home.assert_balanced()
    home.tick(60.0)
    assert not connection.is_open


def test_a_laggard_that_sends_its_last_byte_is_offered_nothing_more() -> None:
    home = house()
    connection, transport = home.open()
    transport.stall()
    say(home, "a")
    say(home, "queued")
    connection.eof_received()
    transport.close()  # as uvloop does after eof_received
    say(home, "late")
    assert home.hub.subscriptions == 0
    transport.drain()
    assert wire.texts(transport.take()) == ["a"]
    assert home.counters.dropped[Drop.DISCONNECTED] == 1
    transport.lose()
    assert home.counters.closed == {"1006": 1}
    home.assert_balanced()


# Replies, and what waits


def test_a_reply_goes_out_at_once() -> None:
    home = house()
    connection, transport = home.open()
    connection.send(b"\x81\x02ok")
    assert transport.take() == b"\x81\x02ok"
    assert transport.is_reading


def gathered(home: House, *words: str) -> tuple[Connection, Transport]:
    """Open a client for whom something waits although its socket has room, as for one on several channels."""
    connection, transport = home.open()
    assert connection.session is not None
    connection.session.pause()
    say(home, *words)
    assert transport.take() == b""
    return connection, transport


def test_what_waits_is_written_on_demand() -> None:
    home = house()
    connection, transport = gathered(home, "a", "b")
    connection.flush()
    connection.flush()
    assert wire.texts(transport.take()) == ["a", "b"]
    home.assert_balanced()
    assert home.backlog.messages == 0


def test_only_as_far_as_the_socket_takes_it() -> None:
    home = house(LagLimits(messages=1000))
    connection, transport = gathered(home, "a" * 70_000, "b")
    say(home, "c")
    transport.stall()
    connection.flush()
    assert connection.paused
    unsent = connection.unsent_bytes
    connection.flush()
    assert connection.unsent_bytes == unsent
    assert list(home.backlog.laggards) == [connection.outbox]
    transport.drain()
    assert [text[0] for text in wire.texts(transport.take())] == ["a", "b", "c"]
    home.assert_balanced()


def test_neither_a_reply_nor_what_waits_is_written_out_of_its_time() -> None:
    home = house()
    stranger, doorstep = home.accept()
    connection, transport = gathered(home, "a")
    connection.close(1008, "")
    assert wire.read(transport.take()) == [(wire.CLOSE, b"\x03\xf0")], "what waited is dropped"
    aborted, aborted_transport = gathered(home, "b")
    aborted.abort("")
    lost, lost_transport = gathered(home, "c")
    lost_transport.lose()
    for client in (stranger, connection, aborted, lost):
        client.flush()
        client.send(b"\x81\x02ok")
    assert all(not each.take() for each in (doorstep, transport, aborted_transport, lost_transport))
    home.assert_balanced()


def test_nothing_is_written_for_a_message_in_one_breath_with_a_close() -> None:
    home = house()
    connection, transport, session = open_scripted(home)
    session.pause()
    say(home, "waits")
    session.on_message = lambda payload: (connection.flush(), connection.send(b"\x81\x02ok"))
    connection.data_received(wire.text("a") + wire.close(1000))
    assert wire.read(transport.take()) == [(wire.CLOSE, b"\x03\xe8")]
    home.assert_balanced()


# Introductions and credentials


def test_who_does_not_introduce_itself_in_time_is_sent_away() -> None:
    home = house(open_timeout=5.0)
    (late, late_transport, session), (prompt, _) = open_scripted(home), home.open()
    session.words[Close.STALE] = (3502, "stale")
    for client in (late, prompt):
        client.await_introduction()
    home.tick(4.9)
    late.await_introduction()
    prompt.introduced()
    prompt.introduced()
    home.tick(0.1)
    assert (late.is_open, prompt.is_open) == (False, True)
    assert (closed(late_transport).code, late_transport.is_aborted) == (3502, False)
    late_transport.lose()
    late.introduced()
    assert home.counters.closed == {"3502": 1}


def test_credentials_end_and_with_them_the_connection() -> None:
    class Soon:
        def check(self, token: str | None) -> Identity:
            return Identity("ann", time.time() + 60)

    home = house(credentials=Soon())
    connection, transport = home.open()
    home.tick(59.0)
    assert connection.is_open
    home.tick(1.1)
    assert closed(transport) == (wire.CLOSE, b"\x03\xf0credentials expired")
    home.tick(0.1)
    assert transport.take() == b""


def test_credentials_may_be_renewed() -> None:
    home = house(pong_timeout=1000.0)
    connection, transport = home.open()
    connection.expire_at(home.clock.now + 10)
    connection.expire_at(home.clock.now + 20)
    home.tick(15.0)
    assert connection.is_open
    connection.expire_at(None)
    connection.expire_at(None)
    home.tick(15.0)
    assert connection.is_open
    connection.expire_at(home.clock.now)
    home.tick()
    assert closed(transport).code == 1008
    transport.lose()
    connection.expire_at(home.clock.now)
    assert home.wheel.expiring == {}


# Our own faults


def test_a_client_that_the_broker_turns_away_at_once_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    home = house()
    refuse = lambda channel, done: done(BrokerError("the supervisor does not keep up"))  # noqa: E731
    monkeypatch.setattr(home.node.broker, "subscribe", refuse)
    connection, transport = home.accept()
    connection.data_received(wire.request("/ws"))
    answer, _, frames = transport.take().partition(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 101 ")
    (opcode, payload), *rest = wire.read(frames)
    assert (opcode, payload[:2], rest) == (wire.CLOSE, b"\x03\xf4", [])
    connection.data_received(wire.close(1012))
    transport.lose()
    assert home.counters.closed == {"1012": 1}


class FailingSession:
    """A session with a mistake of ours in it."""

    dialect, channel, client, outbox = "raw", "main", "", None

    def begin(self) -> None:
        """On no channel."""

    def message(self, opcode: int, payload: bytes | bytearray) -> None:
        raise ZeroDivisionError("a detail")

    def farewell(self, code: int, reason: str) -> tuple[int, str]:
        return code, reason

    def leave(self) -> None:
        """Not on any channel."""


class FailingCredentials:
    def check(self, token: str | None) -> Identity:
        raise ZeroDivisionError("a detail")


def test_a_fault_of_ours_closes_without_details_and_is_logged_with_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home = house()
    monkeypatch.setattr(home.listener, "new_session", lambda connection, admission: FailingSession())
    connection, transport = home.open()
    connection.data_received(wire.text("a") + wire.text("b"))
    assert wire.read(transport.take()) == [(wire.CLOSE, b"\x03\xf3")]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "a detail" in caplog.text
    connection.data_received(wire.close(1011))
    transport.lose()
    assert home.counters.closed == {"1011": 1}


def test_a_fault_in_one_breath_with_the_client_s_close_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home = house()
    monkeypatch.setattr(home.listener, "new_session", lambda connection, admission: FailingSession())
    connection, transport = home.open()
    connection.data_received(wire.text("a") + wire.close(1000))
    assert transport.is_aborted
    assert "a detail" in caplog.text


def test_a_fault_while_a_session_is_made_leaves_nobody_counted_in(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home = house()
    monkeypatch.setattr(home.listener, "new_session", lambda connection, admission: 1 // 0)
    connection, transport = home.accept()
    connection.data_received(wire.request())
    assert transport.is_aborted
    transport.lose()
    assert (home.gate.open, home.listener.connections, home.counters.opened) == (0, {}, 0)
    assert "ZeroDivisionError" in caplog.text


def test_a_fault_before_the_handshake_is_answered_drops_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    home = house(credentials=FailingCredentials())
    connection, transport = home.accept()
    connection.data_received(wire.request())
    assert transport.is_aborted
    assert transport.writes == []
    assert "a detail" in caplog.text
    transport.lose()
    assert (home.gate.open, home.listener.connections) == (0, {})
