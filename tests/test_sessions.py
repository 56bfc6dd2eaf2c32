"""Which session a client gets, by its address and its subprotocol."""

from __future__ import annotations

import pytest

from server.dialects.centrifuge import json_codec, protobuf_codec
from server.edge.centrifuge.session import CentrifugeSession
from server.edge.session import EchoSession, RawSession
from tests import wire
from tests.house import house

PROTOCOL = "Sec-WebSocket-Protocol: "


@pytest.mark.parametrize(
    ("path", "fields", "kind", "codec"),
    [
        ("/ws", (), RawSession, None),
        ("/ws/news", (), RawSession, None),
        ("/echo", (), EchoSession, None),
        ("/connection/websocket", (), CentrifugeSession, json_codec),
        ("/connection/websocket?format=json", (), CentrifugeSession, json_codec),
        ("/connection/websocket", (PROTOCOL + "centrifuge-json",), CentrifugeSession, json_codec),
        ("/connection/websocket", (PROTOCOL + "centrifuge-protobuf",), CentrifugeSession, protobuf_codec),
        ("/connection/websocket", (PROTOCOL + "a, centrifuge-protobuf",), CentrifugeSession, protobuf_codec),
        ("/connection/websocket", (PROTOCOL + "centrifuge-protobuf, centrifuge-json",), CentrifugeSession, json_codec),
        ("/connection/websocket?cf_protocol=protobuf", (), CentrifugeSession, protobuf_codec),
        ("/connection/websocket?a=b&format=protobuf", (PROTOCOL + "a",), CentrifugeSession, protobuf_codec),
        (
            "/connection/websocket?cf_protocol=protobuf",
            (PROTOCOL + "centrifuge-protobuf",),
            CentrifugeSession,
            protobuf_codec,
        ),
        ("/connection/websocket?cf_protocol=json&x=format=protobuf", (), CentrifugeSession, json_codec),
        ("/ws", (PROTOCOL + "centrifuge-protobuf",), RawSession, None),
        ("/ws?cf_protocol=protobuf", (PROTOCOL + "centrifuge-json",), RawSession, None),
    ],
)
def test_the_session_of_a_request(path: str, fields: tuple[str, ...], kind: type, codec: object) -> None:
    home = house()
    connection, transport = home.open(path, *fields)
    session = connection.session
    assert type(session) is kind
    if isinstance(session, CentrifugeSession):
        assert session.codec is codec
    assert sum(home.listener.open_by_dialect.values()) == 1
    transport.lose()
    assert sum(home.listener.open_by_dialect.values()) == 0


@pytest.mark.parametrize(
    ("offered", "taken"),
    [
        ("centrifuge-json", "centrifuge-json"),
        ("centrifuge-protobuf", "centrifuge-protobuf"),
        ("a, centrifuge-json", "centrifuge-json"),
        ("a", None),
    ],
)
def test_what_it_offers_is_taken_by_name_or_it_would_hang_up(offered: str, taken: str | None) -> None:
    connection, transport = house().accept()
    connection.data_received(wire.request("/connection/websocket", PROTOCOL + offered))
    answer = wire.answer(transport.take())
    assert answer.status == 101
    assert answer.fields.get("sec-websocket-protocol") == taken
