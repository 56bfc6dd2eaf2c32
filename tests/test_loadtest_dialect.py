from __future__ import annotations

import pytest

from loadtest.centrifuge import CentrifugeDialect
from loadtest.dialect import Introduction, Payload, RawDialect, origin, target_url
from loadtest.protocol import ProtocolFault
from tests.test_loadtest_protocol import accepted, unmasked

DIALECT = RawDialect("ws://127.0.0.1:8000/ws/{channel}?token=t")
CENTRIFUGE = CentrifugeDialect("ws://127.0.0.1:8000/connection/websocket")

CONNECTED = b'{"id":1,"connect":{"client":"c"}}'
ON_A = b'{"id":2,"subscribe":{}}'
ON_B = b'{"id":3,"subscribe":{}}'
PUSH = b'{"push":{"channel":"a","pub":{"data":"x"}}}'


def text(*lines: bytes) -> bytes:
    """A short message from a server."""
    payload = b"\n".join(lines)
    return bytes((0x81, len(payload))) + payload


def introduced(*frames: bytes, step: int = 10_000) -> bytes | None:
    """What is left of these frames when a client on two channels has been introduced; None if it has not been."""
    introduction = Introduction(CENTRIFUGE, ["a", "b"])
    wire, rest = accepted(introduction.outgoing) + b"".join(frames), None
    for start in range(0, len(wire), step):
        rest = introduction.receive(wire[start : start + step])
        if rest is not None:
            return rest + wire[start + step :]
    return None


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_an_introduction_ends_when_every_answer_is_there(step: int) -> None:
    assert introduced(text(CONNECTED, ON_A, ON_B), text(PUSH), step=step) == text(PUSH)
    assert introduced(text(CONNECTED), text(ON_B), text(ON_A), step=step) == b""
    assert introduced(text(CONNECTED, ON_A), step=step) is None


def test_what_comes_between_the_answers_is_not_lost() -> None:
    push, mixed, ping = text(PUSH), text(ON_B, PUSH), b"\x89\x00"
    assert introduced(text(CONNECTED), text(ON_A), push, text(ON_B)) == push + text(ON_B)
    assert introduced(text(CONNECTED, ON_A), mixed, push) == mixed + push
    assert introduced(ping, text(CONNECTED, ON_A, ON_B)) == ping + text(CONNECTED, ON_A, ON_B)


def test_the_commands_wait_for_the_handshake() -> None:
    introduction = Introduction(CENTRIFUGE, ["a"])
    request = introduction.outgoing
    assert request.startswith(b"GET /connection/websocket HTTP/1.1\r\n")
    introduction.outgoing = b""
    assert introduction.receive(accepted(request)[:20]) is None
    assert (introduction.upgraded, introduction.outgoing) == (False, b"")
    assert introduction.receive(accepted(request)[20:]) is None
    assert introduction.upgraded
    assert unmasked(introduction.outgoing) == (
        b'{"id":1,"connect":{"name":"loadtest"}}\n{"id":2,"subscribe":{"channel":"a"}}'
    )


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (text(b'{"id":1,"error":{"code":109,"message":"token expired"}}'), "connect: error 109 token expired"),
        (text(CONNECTED, b'{"id":3,"error":{"code":103,"message":"no"}}'), "subscribe: error 103 no"),
        (b"\x88\x0f\x0d\xacinvalid token", "closed with 3500 invalid token"),
        (b"\x88\x00", "closed with 1005"),
        (text(b"hello"), "not of the Centrifuge protocol: b'hello'"),
    ],
)
def test_a_server_that_turns_the_client_away_says_why_in_one_line(frame: bytes, why: str) -> None:
    with pytest.raises(ProtocolFault) as caught:
        introduced(frame)
    assert str(caught.value) == why


def test_a_raw_client_is_introduced_by_the_handshake_alone() -> None:
    introduction = Introduction(DIALECT, ["a"])
    assert introduction.receive(accepted(introduction.outgoing) + b"\x81\x01x") == b"\x81\x01x"
    assert introduction.outgoing == b""


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("ws://h:1", "ws://h:1/ws/{channel}"),
        ("ws://h:1/", "ws://h:1/ws/{channel}"),
        ("ws://h/x/{channel}?a=1", "ws://h/x/{channel}?a=1"),
        ("ws://h/chat", "ws://h/chat"),
        (" http://h:1 ", "ws://h:1/ws/{channel}"),
    ],
)
def test_a_url_is_completed(given: str, url: str) -> None:
    assert target_url(given) == url


@pytest.mark.parametrize(
    "given", ["", "h:1", "ftp://h", "ws://", "ws://h:port", "ws://h/#fragment", "wss://h", "https://h"]
)
def test_what_is_no_url_is_refused_in_one_line(given: str) -> None:
    with pytest.raises(ProtocolFault, match=r"^URL="):
        target_url(given)


def test_another_dialect_has_another_path() -> None:
    assert target_url("http://h:1", "/connection/websocket") == "ws://h:1/connection/websocket"
    assert target_url("ws://h:1/own", "/connection/websocket") == "ws://h:1/own"
    assert origin("ws://h:1/ws/{channel}?a=1") == "ws://h:1"


def test_the_raw_dialect_has_a_connection_for_each_channel_and_no_envelope() -> None:
    assert DIALECT.split([3, 1, 2]) == [(3,), (1,), (2,)]
    assert DIALECT.opening(["a"]).frame == b""
    assert list(DIALECT.read(b"x")) == [Payload(b"x", None)]
