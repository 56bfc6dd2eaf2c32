"""However a connection ends, all of it is freed at once: what a cycle holds would pile up until the collector looks.

Against the server's own parts in this process, since only here it can be seen; the memory of a whole server after a
thousand departures is looked at in test_all_stalled.
"""

from __future__ import annotations

import gc
import weakref

import pytest

from tests import wire
from tests.house import house

HANDSHAKE = wire.request()
ENDINGS = {
    "lost": [HANDSHAKE],
    "closed by the client": [HANDSHAKE, wire.text("hello"), wire.close(1000)],
    "protocol error": [HANDSHAKE, wire.frame(0x3)],
    "not UTF-8": [HANDSHAKE, wire.frame(wire.TEXT, b"\xff")],
    "in the middle of a message": [HANDSHAKE, wire.text("hel", fin=False)],
    "in the middle of a frame": [HANDSHAKE, wire.text("hello")[:-1]],
    "an echo": [wire.request("/echo"), wire.text("hello"), wire.close(1000)],
    "nothing was said": [],
    "half a request": [HANDSHAKE[:-2]],
    "not HTTP": [b"\x16\x03\x01\r\n\r\n"],
    "no upgrade": [b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n"],
    "no key": [HANDSHAKE.replace(b"Sec-WebSocket-Key", b"X")],
    "bad key": [HANDSHAKE.replace(b"Sec-WebSocket-Key: ", b"Sec-WebSocket-Key: !")],
    "not found": [wire.request("/nowhere")],
    "header too long": [b"GET /ws HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n"],
    "too early": [HANDSHAKE + wire.text("hello")],
}


@pytest.mark.parametrize("feed", ENDINGS.values(), ids=ENDINGS.keys())
@pytest.mark.parametrize("stalled", [False, True], ids=["reading", "stalled"])
def test_a_connection_is_freed_when_it_is_lost(feed: list[bytes], stalled: bool) -> None:
    building = house()
    gc.disable()
    try:
        connection, transport = building.accept(room=200 if stalled else None)
        protocol = weakref.ref(connection._protocol)
        for data in feed:
            connection.data_received(data)
            building.hub.publish("main", wire.text("a word to fill a pipe" * 20))
            building.hub.turn()
        transport.lose()
        del transport.protocol, connection, transport
        assert protocol() is None
    finally:
        gc.enable()
    assert not building.listener.connections
    assert building.backlog.bytes == 0
    building.assert_balanced()
