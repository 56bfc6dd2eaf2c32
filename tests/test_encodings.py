"""A publication as bytes, literally, and how often each of them is made."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
import pytest

from server.core.publication import ClientInfo, Publication
from server.dialects.centrifuge import fossil, json_codec, protobuf_codec
from server.node.audience import CODECS, Audience, Reading
from server.node.encodings import RAW, DeltaEncoder, Encoder, PushEncoder
from server.node.namespaces import ChannelOptions
from tests import wire

LONG = b'{"price":%d,"of":"' + b"a thing that is described at some length, again and again" + b'"}'


def text(payload: bytes, **fields: Any) -> Publication:
    return Publication(payload, **fields)


@pytest.mark.parametrize(
    ("publication", "frame"),
    [
        (text(b"hello"), b"\x81\x05hello"),
        (text(b'{"a":1}'), b'\x81\x07{"a":1}'),
        (text(b'"quoted"'), b'\x81\x08"quoted"'),
        (text(b'"said as JSON"', is_json=True), b"\x81\x0csaid as JSON"),
        (text(b"[1, 2]", is_json=True), b"\x81\x06[1, 2]"),
        (text(b"\xff\x00", is_binary=True), b"\x82\x02\xff\x00"),
        (text(b""), b"\x81\x00"),
    ],
)
def test_raw(publication: Publication, frame: bytes) -> None:
    assert RAW.encode("news", publication) == frame


@pytest.mark.parametrize(
    ("data", "frame"),
    [
        ("hello", b"\x81\x05hello"),
        ("é", b"\x81\x02\xc3\xa9"),
        ("", b"\x81\x00"),
        ("null", b"\x81\x04null"),
        (None, b"\x81\x04null"),
        (True, b"\x81\x04true"),
        (1.5, b"\x81\x031.5"),
        ([1, "é"], b'\x81\x08[1,"\xc3\xa9"]'),
        ({"a": {"b": []}}, b'\x81\x0e{"a":{"b":[]}}'),
    ],
)
def test_to_raw_a_json_string_is_its_text_and_any_other_value_its_json(data: object, frame: bytes) -> None:
    assert RAW.encode("news", text(orjson.dumps(data), is_json=True)) == frame


@pytest.mark.parametrize(
    ("publication", "message"),
    [
        (text(b"hello"), b'{"push":{"channel":"news","pub":{"data":"hello"}}}'),
        (text(b'{"a":1}', offset=7), b'{"push":{"channel":"news","pub":{"data":{"a":1},"offset":7}}}'),
        (
            text(b"\xff\x00", is_binary=True),
            b'{"push":{"channel":"news","pub":{"data":"/wA=","tags":{"encoding":"base64"}}}}',
        ),
        (
            text(b"1", info=ClientInfo("ann", "c1"), tags={"key": "k"}),
            b'{"push":{"channel":"news","pub":{"data":1,"info":{"user":"ann","client":"c1"},"tags":{"key":"k"}}}}',
        ),
    ],
)
def test_json(publication: Publication, message: bytes) -> None:
    [frame] = wire.read(PushEncoder(json_codec).encode("news", publication))
    assert frame == (wire.TEXT, message)


def test_protobuf() -> None:
    encoded = PushEncoder(protobuf_codec).encode("news", text(b"hello", offset=3))
    # Length; reply.push (4): channel (2) "news", pub (4): data (4) "hello", offset (6) 3.
    assert encoded == b"\x82\x14\x13\x22\x11\x12\x04news\x22\x09\x22\x05hello\x30\x03"


def test_a_delta_is_from_the_publication_before() -> None:
    encoder = DeltaEncoder(json_codec)
    pubs = [_json(encoder, text(LONG % number, offset=number)) for number in (1, 2, 3)]
    assert [pub.get("delta", False) for pub in pubs] == [False, True, True]
    data = pubs[0]["data"].encode()
    assert data == LONG % 1
    for number, pub in enumerate(pubs[1:], 2):
        data = fossil.apply_delta(data, pub["data"].encode())
        assert data == LONG % number


def test_a_delta_that_is_no_shorter_is_not_taken() -> None:
    encoder = DeltaEncoder(json_codec)
    first, second, third = (_json(encoder, text(payload)) for payload in (b"1", b"2", b"2"))
    assert (first["data"], second["data"], third["data"]) == ("1", "2", "2")
    assert not any("delta" in pub for pub in (first, second, third))


def test_what_comes_after_a_full_one_is_a_delta_from_that() -> None:
    encoder = DeltaEncoder(json_codec)
    _json(encoder, text(LONG % 1))
    assert "delta" not in _json(encoder, text(b'"short"'))
    assert "delta" not in _json(encoder, text(LONG % 2))
    again = _json(encoder, text(LONG % 3))
    assert fossil.apply_delta(LONG % 2, again["data"].encode()) == LONG % 3


def test_after_a_restart_a_publication_is_whole() -> None:
    encoder = DeltaEncoder(json_codec)
    _json(encoder, text(LONG % 1))
    encoder.restart()
    assert _json(encoder, text(LONG % 2))["data"].encode() == LONG % 2
    assert _json(encoder, text(LONG % 3))["delta"] is True


def test_others_have_nothing_to_restart() -> None:
    for encoder in (RAW, PushEncoder(json_codec)):
        before = encoder.encode("news", text(b"1"))
        encoder.restart()
        assert encoder.encode("news", text(b"1")) == before


@pytest.mark.parametrize("payload", [b"plain words, no JSON " * 4, b"\x00\xff\xfe" * 30])
def test_deltas_of_what_is_no_json_are_of_what_json_subscribers_see(payload: bytes) -> None:
    encoder = DeltaEncoder(json_codec)
    is_binary = payload[0] == 0
    first = _json(encoder, text(payload, is_binary=is_binary))
    second = _json(encoder, text(payload + b"!", is_binary=is_binary))
    assert second["delta"] is True
    seen = fossil.apply_delta(first["data"].encode(), second["data"].encode())
    assert orjson.loads(seen) == _seen(text(payload + b"!", is_binary=is_binary))


def _seen(publication: Publication) -> Any:
    return _json(PushEncoder(json_codec), publication)["data"]


def _json(encoder: Encoder, publication: Publication) -> dict[str, Any]:
    [frame] = wire.read(encoder.encode("news", publication))
    assert frame.opcode == wire.TEXT
    pub: dict[str, Any] = orjson.loads(frame.payload)["push"]["pub"]
    return pub


def test_each_encoding_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever listens, and however many: also those who hear of joins get the same bytes as those who do not."""
    made: Counter[tuple[str, str]] = Counter()

    def count(codec: Any, name: str) -> None:
        encode = getattr(codec, name)

        def counted(*arguments: Any) -> bytes:
            made[codec.name, name] += 1
            encoded: bytes = encode(*arguments)
            return encoded

        monkeypatch.setattr(codec, name, counted)

    for codec in CODECS.values():
        for name in ("encode_publication", "encode_delta_publication"):
            count(codec, name)
    audience = Audience("news", ChannelOptions())
    readings = [Reading()] + [
        Reading(codec, delta, joins) for codec in CODECS for delta in (False, True) for joins in (False, True)
    ]
    for reading in readings * 3:
        audience.enter(reading)
    frames = dict(audience.frames(text(b'"hello"', is_json=True)))
    assert len(frames) == len(audience.lanes) == 9
    assert len(audience.encoders) == 5
    assert len({id(frame) for frame in frames.values()}) == 5
    assert made == {(codec, name): 1 for codec in CODECS for name in ("encode_publication", "encode_delta_publication")}
