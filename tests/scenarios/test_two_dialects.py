"""One channel, two dialects: raw clients and Centrifuge clients, in JSON and in Protobuf, speak and listen together.

First word by word, without sockets; then with a real server and all of them speaking at once: everyone hears all, in
one order, each in its own way. The Protobuf is written and read by hand here, from the numbers in client.proto.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import orjson
import pytest

from server.brokers.base import Retention
from server.node.namespaces import ChannelOptions
from tests import wire as client_wire
from tests.scenarios import wire
from tests.scenarios.clients import Client, eventually
from tests.scenarios.stage import Stage, stage
from tests.speaker import Binary, Speaker, connected, dialect_house, messages, number, part

KEPT = ChannelOptions(retention=Retention(100, 300.0))
SUBSCRIBE: Final = '{"id":2,"subscribe":{"channel":"news"}}'

# client.proto: Command id 1, connect 4, subscribe 5, publish 7; Reply push 4; Push channel 2, pub 4; Publication
# data 4, offset 6
CONNECT_PROTOBUF: Final = number(1, 1) + part(4, b"")
SUBSCRIBE_PROTOBUF: Final = number(1, 2) + part(5, part(1, b"news"))


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Read the fields of a Protobuf message: numbers and bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value, at = _varint(message, at)
        if key & 7 == 2:
            yield key >> 3, message[at : at + value]
            at += value
        else:
            assert key & 7 == 0, "the protocol has no other kinds"
            yield key >> 3, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def delimited(payload: bytes) -> Iterator[bytes]:
    """Cut a frame's payload into its messages."""
    at = 0
    while at < len(payload):
        size, at = _varint(payload, at)
        yield payload[at : at + size]
        at += size


class Heard(NamedTuple):
    """A publication as somebody got it; offset and tags where its dialect has them."""

    data: Any
    offset: int = 0
    tags: tuple[tuple[str, str], ...] = ()


def read_raw(opcode: int, payload: bytes) -> Iterator[Heard]:
    yield Heard(payload.decode() if opcode == wire.TEXT else payload)


def read_json(opcode: int, payload: bytes) -> Iterator[Heard]:
    assert opcode == wire.TEXT
    for line in payload.split(b"\n"):
        publication = orjson.loads(line).get("push", {}).get("pub")
        if publication is not None:
            tags = tuple(publication.get("tags", {}).items())
            yield Heard(publication["data"], publication.get("offset", 0), tags)


def read_protobuf(opcode: int, payload: bytes) -> Iterator[Heard]:
    assert opcode == wire.BINARY
    for message in delimited(payload):
        reply = dict(fields(message))
        push = dict(fields(reply[4])) if 4 in reply else {}
        if 4 in push:
            publication = dict(fields(push[4]))
            yield Heard(publication.get(4, b""), publication.get(6, 0))


# Word by word


class Room(NamedTuple):
    """All kinds of listeners on one channel: what each has heard since it was last asked."""

    raw: Callable[[], list[Heard]]
    json: Callable[[], list[Heard]]
    protobuf: Callable[[], list[Heard]]


def heard_by(home: Any, transport: Any, read: Callable[[int, bytes], Iterator[Heard]]) -> Callable[[], list[Heard]]:
    def look() -> list[Heard]:
        home.loop.settle()
        return [heard for frame in client_wire.read(transport.take()) for heard in read(*frame)]

    return look


def room(home: Any) -> tuple[Room, Any, Speaker, Binary]:
    raw, raw_transport = home.open("/ws/news")
    speaker = connected(home, "J")
    speaker.asks(SUBSCRIBE)
    binary = Binary(home)
    binary.asks(CONNECT_PROTOBUF, SUBSCRIBE_PROTOBUF)
    listeners = Room(
        heard_by(home, raw_transport, read_raw),
        heard_by(home, speaker.transport, read_json),
        heard_by(home, binary.transport, read_protobuf),
    )
    return listeners, raw, speaker, binary


BASE64 = (("encoding", "base64"),)


@pytest.mark.parametrize(
    ("said", "raw", "json", "tags", "protobuf"),
    [
        pytest.param(client_wire.text('{"a":[1, 2]}'), '{"a":[1, 2]}', {"a": [1, 2]}, (), b'{"a":[1, 2]}', id="JSON"),
        pytest.param(client_wire.text("5"), "5", 5, (), b"5", id="a number"),
        pytest.param(client_wire.text('"5"'), '"5"', "5", (), b'"5"', id="a JSON string, quotes and all"),
        pytest.param(client_wire.text("plain: ü\n"), "plain: ü\n", "plain: ü\n", (), "plain: ü\n".encode(), id="plain"),
        pytest.param(client_wire.text("{not json"), "{not json", "{not json", (), b"{not json", id="nearly JSON"),
        pytest.param(client_wire.text(""), "", "", (), b"", id="nothing"),
        pytest.param(client_wire.frame(client_wire.BINARY, b"\xff"), b"\xff", "/w==", BASE64, b"\xff", id="binary"),
        pytest.param(client_wire.frame(client_wire.BINARY, b"{}"), b"{}", "e30=", BASE64, b"{}", id="binary JSON"),
    ],
)  # fmt: skip
def test_what_a_raw_client_says(said: bytes, raw: Any, json: Any, tags: Any, protobuf: bytes) -> None:
    home = dialect_house(options=KEPT)
    listeners, speaking, _, _ = room(home)
    speaking.data_received(said)
    assert listeners.raw() == [Heard(raw)]
    assert listeners.json() == [Heard(json, 1, tags)]
    assert listeners.protobuf() == [Heard(protobuf, 1)]
    home.assert_balanced()


@pytest.mark.parametrize(
    ("data", "raw", "json", "protobuf"),
    [
        ('{"a": 1}', '{"a": 1}', {"a": 1}, b'{"a": 1}'),
        ('"words"', "words", "words", b'"words"'),
        ('"\\u00fc\\n"', "ü\n", "ü\n", b'"\\u00fc\\n"'),
        ("5", "5", 5, b"5"),
        ('"5"', "5", "5", b'"5"'),
        ("1.50", "1.50", 1.5, b"1.50"),
        ("null", "null", None, b"null"),
        ("[]", "[]", [], b"[]"),
    ],
)
def test_what_a_json_client_says(data: str, raw: str, json: Any, protobuf: bytes) -> None:
    home = dialect_house(options=KEPT)
    listeners, _, speaker, _ = room(home)
    speaker.says(f'{{"id":3,"publish":{{"channel":"news","data":{data}}}}}')
    assert listeners.raw() == [Heard(raw)]
    assert listeners.json() == [Heard(json, 1)]
    assert listeners.protobuf() == [Heard(protobuf, 1)]
    home.assert_balanced()


@pytest.mark.parametrize(
    ("data", "raw", "json", "tags", "protobuf"),
    [
        (b'{"a":1}', '{"a":1}', {"a": 1}, (), b'{"a":1}'),
        (b'"words"', "words", "words", (), b'"words"'),
        (b"words", b"words", "d29yZHM=", BASE64, b"words"),
        (b"\x08\x01", b"\x08\x01", "CAE=", BASE64, b"\x08\x01"),
    ],
)
def test_what_a_protobuf_client_says(data: bytes, raw: Any, json: Any, tags: Any, protobuf: bytes) -> None:
    home = dialect_house(options=KEPT)
    listeners, _, _, binary = room(home)
    publish = number(1, 3) + part(7, part(1, b"news") + part(2, data))
    binary.connection.data_received(client_wire.frame(client_wire.BINARY, messages(publish)))
    assert listeners.raw() == [Heard(raw)]
    assert listeners.json() == [Heard(json, 1, tags)]
    assert listeners.protobuf() == [Heard(protobuf, 1)]
    home.assert_balanced()


# All at once

EACH: Final = 150  # publications of each speaker
CHANNEL: Final = "main"


class Word(NamedTuple):
    """What one speaker says: on its own wire, and as each kind of listener is to get it."""

    wire: bytes
    raw: str | bytes
    json: Any
    tags: tuple[tuple[str, str], ...]
    protobuf: bytes


def raw_json(turn: int) -> Word:
    payload = f'{{"by":"raw JSON", "turn":{turn}}}'
    return Word(
        wire.frame(wire.TEXT, payload.encode()), payload, {"by": "raw JSON", "turn": turn}, (), payload.encode()
    )


def raw_text(turn: int) -> Word:
    payload = f"raw words, turn {turn}"
    return Word(wire.frame(wire.TEXT, payload.encode()), payload, payload, (), payload.encode())


def raw_binary(turn: int) -> Word:
    payload = b"\xffraw bytes" + turn.to_bytes(4, "big")
    return Word(wire.frame(wire.BINARY, payload), payload, base64.b64encode(payload).decode(), BASE64, payload)


def json_text(turn: int) -> Word:
    data = f"JSON, turn {turn}"
    command = {"id": turn + 10, "publish": {"channel": CHANNEL, "data": data}}
    return Word(wire.frame(wire.TEXT, orjson.dumps(command)), data, data, (), orjson.dumps(data))


def protobuf_binary(turn: int) -> Word:
    data = b"\x00Protobuf" + turn.to_bytes(4, "big")
    command = number(1, turn + 10) + part(7, part(1, CHANNEL.encode()) + part(2, data))
    encoded = base64.b64encode(data).decode()
    return Word(wire.frame(wire.BINARY, messages(command)), data, encoded, BASE64, data)


KINDS: Final[dict[str, Callable[[int, bytes], Iterator[Heard]]]] = {
    "raw": read_raw, "json": read_json, "protobuf": read_protobuf,
}  # fmt: skip


async def join(on: Stage, kind: str) -> Client:
    """Let a client join the channel; what it was answered is taken off."""
    if kind == "raw":
        return await on.crowd.join(f"/ws/{CHANNEL}")
    headers = ("Sec-WebSocket-Protocol: centrifuge-protobuf",) if kind == "protobuf" else ()
    client = await on.crowd.join("/connection/websocket", headers=headers)
    if kind == "json":
        lines = f'{{"id":1,"connect":{{}}}}\n{{"id":2,"subscribe":{{"channel":"{CHANNEL}"}}}}'
        await client.send(wire.frame(wire.TEXT, lines.encode()))
    else:
        subscribe = number(1, 2) + part(5, part(1, CHANNEL.encode()))
        await client.send(wire.frame(wire.BINARY, messages(CONNECT_PROTOBUF, subscribe)))
    await eventually(lambda: client.inbox, 5, "it is on the channel")
    client.inbox.clear()
    return client


def heard(client: Client, kind: str) -> list[Heard]:
    return [said for frame in client.inbox for said in KINDS[kind](*frame)]


@pytest.mark.scenario
async def test_all_dialects_speak_at_once_and_everyone_hears_the_same_in_one_order() -> None:
    async with stage("--history-size", "2000", "--queue-messages", "5000") as on:
        speakers = {
            raw_json: await join(on, "raw"),
            raw_text: await join(on, "raw"),
            raw_binary: await join(on, "raw"),
            json_text: await join(on, "json"),
            protobuf_binary: await join(on, "protobuf"),
        }
        clients = [(kind, await join(on, kind)) for kind in KINDS for _ in range(3)]
        clients += zip(("raw", "raw", "raw", "json", "protobuf"), speakers.values(), strict=True)
        total = EACH * len(speakers)

        async def speak(word: Callable[[int], Word], client: Client) -> None:
            for turn in range(EACH):
                await client.send(word(turn).wire)
                if turn % 10 == 9:
                    await asyncio.sleep(0)  # the others', too

        await asyncio.gather(*(speak(word, client) for word, client in speakers.items()))
        for kind, client in clients:
            await eventually(lambda who=client, how=kind: len(heard(who, how)) >= total, 10, f"{kind} hears all")

        words = [word(turn) for word in speakers for turn in range(EACH)]
        identified = {
            "raw": {word.raw: number for number, word in enumerate(words)},
            "json": {orjson.dumps(word.json): number for number, word in enumerate(words)},
            "protobuf": {word.protobuf: number for number, word in enumerate(words)},
        }
        orders = []
        for kind, client in clients:
            order = []
            for place, said in enumerate(heard(client, kind), 1):
                known = identified[kind]
                name: Any = orjson.dumps(said.data) if kind == "json" else said.data
                assert name in known, f"{kind} heard what nobody said: {said}"
                order.append(known[name])
                if kind != "raw":
                    assert said.offset == place
                if kind == "json":
                    assert said.tags == words[known[name]].tags
            orders.append(order)
        assert all(order == orders[0] for order in orders), "one order for all"
        assert sorted(orders[0]) == list(range(total)), "all of it, once"
        for first in range(0, total, EACH):
            own = [number for number in orders[0] if first <= number < first + EACH]
            assert own == sorted(own), "each speaker in its own order"

        metrics = await on.metrics()
        metrics.assert_balanced()
        assert metrics["stentor_messages_published_total"] == total
        assert metrics["stentor_messages_offered_total"] == total * len(clients)
        assert metrics["stentor_messages_sent_total"] == total * len(clients)
        assert metrics.total("stentor_messages_dropped_total") == 0
