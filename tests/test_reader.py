"""When a client is read from, and how much of what it says is looked at: over a whole connection, and by itself."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.hub import CONGESTION_BYTES
from server.edge.reader import PARSE_BYTES, Hold, Reader
from server.edge.turnstile import Turnstile
from tests import wire
from tests.fakes import Clock, Loop, Transport
from tests.house import House, house
from tests.sessions import open_scripted


def say(home: House, *words: str, channel: str = "main") -> None:
    """Publish texts and let them go out."""
    for text in words:
        home.publish(channel, wire.frame(wire.TEXT, text.encode(), mask=None))
    home.loop.settle()


# Reasons to wait


def test_reading_is_held_until_no_reason_is_left() -> None:
    home = house()
    connection, transport = home.open()
    connection.reader.hold(Hold.CONGESTED)
    connection.reader.hold(Hold.UNREAD)
    connection.reader.hold(Hold.UNREAD)
    connection.reader.release(Hold.UNREAD)
    assert (connection.reader.is_held, transport.is_reading) == (True, False)
    connection.reader.release(Hold.UNREAD)
    assert not transport.is_reading
    connection.reader.release(Hold.CONGESTED)
    assert (connection.reader.is_held, transport.is_reading) == (False, True)


def test_who_speaks_too_fast_for_the_channel_is_read_again_when_there_is_room() -> None:
    home = house(max_message_size=CONGESTION_BYTES)
    connection, transport = home.open()
    connection.data_received(wire.frame(wire.BINARY, bytes(CONGESTION_BYTES)))
    assert (connection.reader.is_held, transport.is_reading) == (True, False)
    home.loop.settle()
    assert (connection.reader.is_held, transport.is_reading) == (False, True)


def test_relief_may_come_after_the_end() -> None:
    home = house(max_message_size=CONGESTION_BYTES)
    connection, transport = home.open()
    _, other = home.open()
    connection.data_received(wire.frame(wire.BINARY, bytes(CONGESTION_BYTES)))
    transport.lose()
    home.loop.settle()
    assert len(wire.read(other.take())) == 1
    say(home, "the channel lives on")
    assert wire.texts(other.take()) == ["the channel lives on"]


def test_an_echo_that_is_not_taken_is_not_read_for() -> None:
    home = house()
    connection, transport = home.open("/echo")
    transport.room = 2
    connection.data_received(wire.text("hello"))
    assert (connection.paused, transport.is_reading) == (True, False)
    transport.drain()
    assert (connection.paused, transport.is_reading) == (False, True)
    assert wire.texts(transport.take()) == ["hello"]


def test_who_does_not_take_its_replies_is_not_read_until_it_has() -> None:
    home = house()
    connection, transport = home.open()
    transport.room = 3
    connection.send(b"\x81\x03one")
    assert (connection.paused, transport.is_reading) == (True, False)
    connection.send(b"\x81\x03two")
    say(home, "queued")
    transport.drain(5)
    assert not transport.is_reading
    transport.drain()
    assert wire.texts(transport.take()) == ["one", "two", "queued"]
    assert (connection.paused, transport.is_reading) == (False, True)
    say(home, "live")
    assert wire.texts(transport.take()) == ["live"]
    home.assert_balanced()


def test_a_reply_that_is_taken_does_not_end_a_congestion() -> None:
    home = house()
    connection, transport = home.open()
    connection.reader.hold(Hold.CONGESTED)
    transport.stall()
    connection.send(b"\x81\x02ok")
    transport.drain()
    assert (connection.paused, transport.is_reading) == (False, False)
    connection.reader.release(Hold.CONGESTED)
    assert transport.is_reading


def test_nor_does_relief_read_on_from_who_does_not_take_its_replies() -> None:
    home = house()
    connection, transport = home.open()
    connection.reader.hold(Hold.CONGESTED)
    transport.stall()
    connection.send(b"\x81\x02ok")
    connection.reader.release(Hold.CONGESTED)
    assert not transport.is_reading
    transport.drain()
    assert transport.is_reading


# What was read already


def test_one_read_does_not_ask_for_more_than_there_is_room_for() -> None:
    home = house()
    connection, transport, session = open_scripted(home)
    session.on_message = lambda payload: connection.send(wire.frame(wire.TEXT, payload * 100, mask=None))
    transport.stall()
    asked = [f"{number:04d}" for number in range(5000)]
    data = b"".join(wire.text(text) for text in asked)
    connection.data_received(data)
    assert connection.unsent_bytes <= 100 * PARSE_BYTES
    held = connection.unsent_bytes
    connection.data_received(wire.text("last"))
    assert connection.unsent_bytes == held, "what comes all the same waits its turn"
    for _ in range(20):
        transport.drain(held // 2)
        assert connection.unsent_bytes <= 100 * PARSE_BYTES
    transport.drain()
    assert wire.texts(transport.take()) == [text * 100 for text in (*asked, "last")]
    assert (connection.is_open, transport.is_reading) == (True, True)


def test_what_waits_goes_with_a_connection_that_is_dropped() -> None:
    home = house()
    connection, transport = home.open("/echo")
    transport.stall()
    connection.data_received(wire.text("a" * 100) * 50)
    connection.abort("")
    transport.lose()
    assert home.counters.received < 50


def test_what_a_client_said_that_is_gone_is_not_looked_at_when_an_answer_comes_late(
    caplog: pytest.LogCaptureFixture,
) -> None:
    home = house()
    connection, transport, session = open_scripted(home)
    session.on_message = lambda _: connection.reader.hold(Hold.UNANSWERED)
    connection.data_received(wire.text("x" * (PARSE_BYTES - 8)) + wire.text("the rest"))
    transport.lose(ConnectionResetError())
    assert connection.session is None
    connection.reader.release(Hold.UNANSWERED)
    assert caplog.records == []


# Leaving


def test_to_close_is_to_read_again_for_the_answer() -> None:
    home = house()
    connection, transport = home.open()
    connection.reader.hold()
    connection.reader.hold()
    connection.close(1008, "")
    assert (connection.reader.is_held, transport.is_reading) == (False, True)
    connection.reader.release()
    assert transport.is_reading


def test_a_close_reads_on_whatever_held_the_reading() -> None:
    home = house()
    connection, transport = home.open()
    connection.reader.hold(Hold.CONGESTED)
    transport.stall()
    connection.send(b"\x81\x02ok")
    connection.close(1008, "")
    assert (connection.reader.is_held, transport.is_reading) == (False, True)


def test_a_close_looks_for_its_answer_in_what_was_read_already() -> None:
    home = house()
    connection, transport, session = open_scripted(home)
    heard = session.heard
    session.on_message = lambda payload: (heard.append(payload), connection.send(b"\x81\x01x"))
    transport.stall()
    connection.data_received(wire.text("a" * 100) * 50 + wire.close(1001))
    before = len(heard)
    assert 0 < before < 50
    connection.close(1001, "bye")
    assert len(heard) == before, "it is leaving: nothing more is looked at but that"
    assert transport.has_ended
    transport.lose()
    assert home.counters.closed == {"1001": 1}


# By itself


class Tap:
    """A reader on a transport of its own; what it looked at is in `pieces`, and `on_piece` says whether to go on."""

    def __init__(self, per_turn: int = 1000) -> None:
        self.loop = Loop(Clock())
        self.transport = Transport()
        self.turnstile = Turnstile(self.loop.call_soon, per_turn)
        self.reader = Reader(cast(asyncio.Transport, self.transport), self.turnstile, self.receive)
        self.reader.is_new = False
        self.pieces: list[bytes] = []
        self.on_piece: Callable[[], bool] = lambda: True

    def receive(self, data: bytes) -> bool:
        self.pieces.append(data)
        return self.on_piece()


BIG = bytes(range(256)) * (3 * PARSE_BYTES // 256) + b"the rest"


def test_what_is_read_is_looked_at_in_pieces() -> None:
    tap = Tap()
    tap.reader.feed(BIG)
    assert [len(piece) for piece in tap.pieces] == [PARSE_BYTES] * 3 + [len(b"the rest")]
    assert b"".join(tap.pieces) == BIG


@pytest.mark.parametrize("size", [1, PARSE_BYTES - 1, PARSE_BYTES])
def test_what_is_no_more_than_a_piece_is_one(size: int) -> None:
    tap = Tap()
    tap.reader.feed(BIG[:size])
    assert tap.pieces == [BIG[:size]]


def test_after_the_last_piece_nothing_is_looked_at_and_nothing_is_kept() -> None:
    tap = Tap()
    tap.on_piece = lambda: False
    tap.reader.feed(BIG)
    tap.reader.hold(Hold.UNREAD)
    tap.reader.release(Hold.UNREAD)
    assert tap.pieces == [BIG[:PARSE_BYTES]]


@pytest.mark.parametrize("why", Hold)
def test_what_was_read_already_waits_for_all_reasons_but_congestion(why: Hold) -> None:
    tap = Tap()
    reader = tap.reader

    def hold() -> bool:
        reader.hold(why)
        return True

    tap.on_piece = hold
    reader.feed(BIG)
    assert (len(tap.pieces), reader.is_held, tap.transport.is_reading) == (
        4 if why is Hold.CONGESTED else 1,
        True,
        False,
    )
    assert (reader.has_unread, reader.is_queuing) == (why is Hold.UNREAD, why is Hold.QUEUING)
    tap.on_piece = lambda: True
    reader.release(why)
    assert b"".join(tap.pieces) == BIG
    assert (reader.is_held, tap.transport.is_reading) == (False, True)


def test_what_is_read_all_the_same_stays_behind_what_waits() -> None:
    tap = Tap()
    reader = tap.reader
    tap.on_piece = lambda: reader.hold(Hold.UNANSWERED) is None
    reader.feed(BIG)
    tap.on_piece = lambda: True
    reader.feed(b"late")
    assert len(tap.pieces) == 1
    reader.release(Hold.UNANSWERED)
    assert b"".join(tap.pieces) == BIG + b"late"


def test_whoever_lifts_a_reason_says_when_to_read_on() -> None:
    tap = Tap()
    reader = tap.reader
    reader.hold(Hold.UNREAD)
    assert not reader.lift(Hold.UNANSWERED)
    assert reader.lift(Hold.UNREAD)
    assert not reader.lift(Hold.UNREAD)
    assert (reader.is_held, tap.transport.is_reading) == (False, False)
    reader.read_on()
    reader.read_on()
    assert tap.transport.is_reading


def test_who_is_leaving_is_heard_out() -> None:
    tap = Tap()
    reader = tap.reader
    reader.is_leaving = True
    tap.on_piece = lambda: reader.hold(Hold.UNREAD) is None
    reader.feed(BIG)
    assert b"".join(tap.pieces) == BIG


def test_to_hear_out_is_to_look_at_what_waits_whatever_it_waits_for() -> None:
    tap = Tap()
    reader = tap.reader
    tap.on_piece = lambda: all(reader.hold(why) is None for why in Hold)
    reader.feed(BIG)
    assert len(tap.pieces) == 1
    tap.on_piece = lambda: True
    reader.hear_out()
    assert b"".join(tap.pieces) == BIG
    assert (reader.is_held, tap.transport.is_reading) == (False, True)


def test_nor_does_a_newcomer_queue_that_is_heard_out() -> None:
    tap = Tap(per_turn=1)
    reader = tap.reader
    reader.is_new = True
    assert tap.turnstile.try_pass()
    reader.feed(b"hello")
    reader.hear_out()
    reader.feed(b", and goodbye")
    assert (tap.pieces, reader.is_queuing) == ([b"hello", b", and goodbye"], False)
    tap.loop.settle()
    assert b"".join(tap.pieces) == b"hello, and goodbye"


def test_a_newcomer_waits_for_its_turn_with_all_that_it_says() -> None:
    tap = Tap(per_turn=1)
    reader = tap.reader
    reader.is_new = True
    assert tap.turnstile.try_pass()
    reader.feed(b"hello, ")
    reader.feed(b"it is me")
    assert (tap.pieces, reader.is_queuing, tap.transport.is_reading) == ([], True, False)
    tap.loop.turn()
    assert (tap.pieces, reader.is_queuing, tap.transport.is_reading) == ([b"hello, it is me"], False, True)


def test_a_newcomer_that_has_gone_meanwhile_is_not_looked_at() -> None:
    tap = Tap(per_turn=1)
    reader = tap.reader
    reader.is_new = True
    assert tap.turnstile.try_pass()
    reader.feed(b"hello")
    tap.transport.close()
    tap.loop.turn()
    assert (tap.pieces, reader.is_queuing) == ([], False)


def test_a_newcomer_s_turn_is_no_reason_to_read_while_there_is_another_not_to() -> None:
    tap = Tap(per_turn=1)
    reader = tap.reader
    reader.is_new = True
    assert tap.turnstile.try_pass()
    reader.feed(b"hello")
    reader.hold(Hold.CONGESTED)
    tap.loop.turn()
    assert (tap.pieces, tap.transport.is_reading) == ([b"hello"], False)
    reader.release(Hold.CONGESTED)
    assert tap.transport.is_reading


def test_once_stopped_it_knows_nobody_and_looks_at_nothing() -> None:
    tap = Tap()
    reader, known = tap.reader, weakref.ref(tap)
    tap.on_piece = lambda: reader.hold(Hold.UNREAD) is None
    reader.feed(BIG)
    reader.stop()
    reader.release(Hold.UNREAD)
    reader.feed(b"late")
    assert len(tap.pieces) == 1
    del tap
    assert known() is None


@given(
    st.lists(
        st.one_of(
            st.integers(1, 3 * PARSE_BYTES).map(lambda size: BIG[:size]),
            st.tuples(st.booleans(), st.sampled_from(Hold)),
        )
    ),
    st.lists(st.sampled_from([None, *Hold]), max_size=20),
)
def test_whatever_holds_it_all_is_looked_at_once_and_in_order(
    steps: list[bytes | tuple[bool, Hold]], during: list[Hold | None]
) -> None:
    tap = Tap()
    reader, said = tap.reader, b""

    def hold() -> bool:
        why = during.pop() if during else None
        if why is not None:
            reader.hold(why)
        return True

    tap.on_piece = hold
    for step in steps:
        if isinstance(step, bytes):
            said += step
            reader.feed(step)
        elif step[0]:
            reader.hold(step[1])
        else:
            reader.release(step[1])
        assert said.startswith(b"".join(tap.pieces))
        assert tap.transport.is_reading is not reader.is_held
    during.clear()
    for why in Hold:
        reader.release(why)
    assert b"".join(tap.pieces) == said
