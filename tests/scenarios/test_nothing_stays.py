"""However a connection ends, all of it is freed at once: what a cycle holds would pile up until the collector looks.

Against the server's own parts in this process, since only here it can be seen; the memory of a whole server after a
thousand departures is looked at in test_all_stalled.
"""

from __future__ import annotations

import gc
import weakref

import pytest

from server.brokers.base import Retention
from server.core.outbox import Outbox
from server.core.publication import Publication
from server.edge.centrifuge.connecting import Arrival
from server.edge.centrifuge.places import Place, Places
from server.edge.centrifuge.session import CentrifugeSession
from server.edge.credentials import StaticTokens
from server.node.namespaces import ChannelOptions
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


DIALECT = wire.request("/connection/websocket")
CONNECT = wire.text('{"id":1,"connect":{}}')
SUBSCRIBE = wire.text('{"id":2,"subscribe":{"channel":"main","join_leave":true}}\n{"id":3,"subscribe":{"channel":"x"}}')
OF_A_CLIENT = (CentrifugeSession, Places, Place, Arrival, Outbox)
CENTRIFUGE_ENDINGS = {
    "lost": [DIALECT, CONNECT, SUBSCRIBE],
    "never introduced": [DIALECT],
    "closed by the client": [DIALECT, CONNECT, SUBSCRIBE, wire.close(1000)],
    "a second connect": [DIALECT, CONNECT, SUBSCRIBE, CONNECT],
    "garbage": [DIALECT, CONNECT, wire.text("{")],
    "not UTF-8": [DIALECT, CONNECT, wire.frame(wire.TEXT, b"\xff")],
    "errors": [DIALECT, CONNECT, wire.text('{"id":4,"subscribe":{"channel":"a b","token":"x"}}\n{"id":5,"rpc":{}}')],
    "a forged token": [DIALECT, wire.text('{"id":1,"connect":{"token":"x"}}')],
    "left first": [DIALECT, CONNECT, SUBSCRIBE, wire.text('{"id":4,"unsubscribe":{"channel":"main"}}')],
    "asked for history": [DIALECT, CONNECT, wire.text('{"id":4,"history":{"channel":"main","limit":-1}}\n' * 50)],
    "published": [DIALECT, CONNECT, SUBSCRIBE, wire.text('{"id":4,"publish":{"channel":"main","data":1}}')],
}


def of_clients() -> list[object]:
    """Find what belongs to one client each; other tests may have left some."""
    return [thing for thing in gc.get_objects() if type(thing) in OF_A_CLIENT]


@pytest.mark.parametrize("feed", CENTRIFUGE_ENDINGS.values(), ids=CENTRIFUGE_ENDINGS.keys())
@pytest.mark.parametrize("stalled", [False, True], ids=["reading", "stalled"])
@pytest.mark.parametrize("forged", [False, True], ids=["let in", "refused"])
def test_a_centrifuge_client_is_freed_when_it_is_lost(feed: list[bytes], stalled: bool, forged: bool) -> None:
    options = ChannelOptions(retention=Retention(10, 300.0), presence=True, join_leave=True)
    building = house(options=options, credentials=StaticTokens(["y"]) if forged else None)
    gc.collect()
    gc.disable()
    before = {id(thing) for thing in of_clients()}
    try:
        connection, transport = building.accept(room=400 if stalled else None)
        protocol = weakref.ref(connection._protocol)
        for data in feed:
            connection.data_received(data)
            for _ in range(3):
                building.node.publish("main", Publication(b'"a word to fill a pipe"' * 20), lambda done: None)
                building.loop.settle()
        transport.lose()
        building.loop.settle()
        del transport.protocol, connection, transport
        assert protocol() is None
        assert [thing for thing in of_clients() if id(thing) not in before] == []
    finally:
        gc.enable()
    assert not building.listener.connections
    assert building.node.audiences == {}
    assert len(building.service.registry) == 0
    assert building.backlog.bytes == 0
    building.assert_balanced()
