"""What our subscriptions rely on of ``websockets.broadcast()``, held against the version that is installed.

The fan-out hands broadcast() objects that are no connections. It works because broadcast() looks at a handful of
attributes and at nothing else. Whoever updates the library learns here, and not in production, that this has changed.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest
from websockets.asyncio.server import broadcast
from websockets.protocol import State

from server.core.channel import Channel
from server.core.counters import Drop
from server.core.subscription import Subscription, WriteFaults
from tests.house import house
from tests.publications import MAIN, batch, outbox

WIRE = b"\x81\x02hi\x82\x01\x00"


class Watched:
    """Has what it is given, and notes every attribute that is looked at."""

    def __init__(self, **attributes: Any) -> None:
        object.__setattr__(self, "attributes", attributes)
        object.__setattr__(self, "looked_at", [])

    def __getattribute__(self, name: str) -> Any:
        own = object.__getattribute__
        if name.startswith("__"):
            return own(self, name)
        own(self, "looked_at").append(name)
        return own(self, "attributes")[name]

    def __setattr__(self, name: str, value: object) -> None:
        raise AssertionError(f"broadcast() sets {name}")


def looked_at(watched: Watched) -> list[str]:
    return list(object.__getattribute__(watched, "looked_at"))


class Broadcast:
    """One call of broadcast() with one watched connection."""

    def __init__(self, *, state: State = State.OPEN, send: Any = None, send_data: Any = None) -> None:
        self.sent: list[Any] = []
        self.warned: list[tuple[object, ...]] = []
        send = send or self.sent.append
        self.logger = Watched(warning=lambda *words: self.warned.append(words))
        self.protocol = Watched(state=state, send_text=send, send_binary=send)
        self.connection = Watched(
            protocol=self.protocol,
            send_in_progress=None,
            send_data=send_data or (lambda: None),
            logger=self.logger,
        )

    def __call__(self, wire: bytes = WIRE, **options: Any) -> Broadcast:
        broadcast([self.connection], wire, **options)  # type: ignore[list-item]
        return self


def raise_oserror(*_: object) -> None:
    raise OSError("no route")


def test_the_library_is_the_one_that_was_read() -> None:
    assert version("websockets").split(".")[0] == "17"


def test_of_an_open_connection_it_looks_at_this_and_at_nothing_else() -> None:
    call = Broadcast()(text=True)
    assert looked_at(call.connection) == ["protocol", "send_in_progress", "protocol", "send_data"]
    assert looked_at(call.protocol) == ["state", "send_text"]
    assert looked_at(call.logger) == []


def test_without_text_it_calls_the_other_slot() -> None:
    call = Broadcast()()
    assert looked_at(call.protocol) == ["state", "send_binary"]


@pytest.mark.parametrize("state", [State.CONNECTING, State.CLOSING, State.CLOSED])
def test_of_a_closed_one_it_looks_at_the_state_alone(state: State) -> None:
    call = Broadcast(state=state)(text=True)
    assert looked_at(call.connection) == ["protocol"]
    assert looked_at(call.protocol) == ["state"]
    assert call.sent == []


@pytest.mark.parametrize("broken", ["send", "send_data"])
def test_when_a_write_raises_it_warns_once_and_goes_on(broken: str) -> None:
    call = Broadcast(**{broken: raise_oserror})(text=True)
    after = ["send_data"] if broken == "send_data" else []
    assert looked_at(call.connection) == ["protocol", "send_in_progress", "protocol", *after, "logger"]
    assert looked_at(call.protocol) == ["state", "send_text"]
    assert looked_at(call.logger) == ["warning"]
    [(template, *details)] = call.warned
    assert "no route" in str(template) % tuple(details)


@pytest.mark.parametrize("text", [True, None])
def test_the_bytes_arrive_as_they_are(text: bool | None) -> None:
    call = Broadcast()(text=text)
    assert call.sent == [WIRE]
    assert call.sent[0] is WIRE, "not even copied"
    assert type(call.sent[0]) is bytes


def test_state_is_compared_by_identity() -> None:
    call = Broadcast(state=1)(text=True)  # type: ignore[arg-type]
    assert State.OPEN == 1, "so a comparison of values would let this through"
    assert call.sent == []


# Our side


def subscription(write: Any) -> tuple[Subscription, list[str]]:
    reported: list[str] = []
    box, _, _ = outbox()
    return Subscription(Channel("news", MAIN.terms, WriteFaults(reported.append)), box, write), reported


def test_a_subscription_has_all_that_broadcast_looks_at() -> None:
    call = Broadcast(send=raise_oserror)(text=True)
    open_one, _ = subscription(print)
    closed, _ = subscription(print)
    closed.close()
    for name in {*looked_at(call.connection), "send_data"}:
        assert hasattr(open_one, name), name
    for name in looked_at(call.protocol):
        assert hasattr(open_one.protocol, name), name
    assert hasattr(closed.protocol, "state")
    assert hasattr(open_one.logger, "warning")


def test_an_open_subscription_is_written_to() -> None:
    written: list[bytes] = []
    ear, reported = subscription(written.append)
    broadcast([ear], WIRE, text=True)  # type: ignore[list-item]
    assert written[0] is WIRE
    assert (len(written), reported) == (1, [])


def test_a_paused_one_is_offered_the_batch() -> None:
    written: list[bytes] = []
    ear, reported = subscription(written.append)
    ear.pause()
    ear.channel.batch = batch(b"a", b"b")
    broadcast([ear], ear.channel.batch.wire, text=True)  # type: ignore[list-item]
    assert (written, reported, ear.outbox.messages) == ([], [], 2)
    ear.outbox.take(1)
    ear.resume()
    broadcast([ear], WIRE, text=True)  # type: ignore[list-item]
    assert written == [WIRE]


@pytest.mark.parametrize("before", ["open", "paused"])
def test_a_closed_one_is_passed_over(before: str) -> None:
    written: list[bytes] = []
    ear, reported = subscription(written.append)
    if before == "paused":
        ear.pause()
    ear.close()
    ear.channel.batch = batch(b"a")
    broadcast([ear], WIRE, text=True)  # type: ignore[list-item]
    assert (written, reported, ear.channel.faults.count, ear.outbox.messages) == ([], [], 0, 0)


def test_a_failing_one_is_a_fault_that_is_counted_and_reported() -> None:
    written: list[bytes] = []
    ear, reported = subscription(raise_oserror)
    other, _ = subscription(written.append)
    broadcast([ear, other], WIRE, text=True)  # type: ignore[list-item]
    assert ear.channel.faults.count == 1
    assert len(reported) == 1
    assert "no route" in reported[0]
    assert written == [WIRE], "the others are written to"


def test_through_the_hub_all_four_kinds_balance() -> None:
    home = house()
    written: list[bytes] = []

    def listen(write: Any) -> Subscription:
        box, _, _ = outbox(backlog=home.backlog)
        return home.hub.subscribe("news", box, write, MAIN.terms)

    kinds = [listen(write) for write in (written.append, written.append, raise_oserror, written.append)]
    kinds[1].pause()
    home.hub.publish("news", WIRE)
    home.hub.unsubscribe(kinds[3])
    home.loop.settle()
    assert written == [WIRE]
    counters = home.counters
    assert (counters.offered, counters.sent, counters.dropped[Drop.DISCONNECTED]) == (3, 1, 1)
    assert home.backlog.messages == 1
    home.assert_balanced()
