"""What the server says, to the byte, in both encodings."""

import typing

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.publication import ClientInfo, Publication
from server.dialects.centrifuge import json_codec, protobuf_codec, replies
from server.dialects.centrifuge.codec import Codec
from tests.centrifuge.laws import LAW
from tests.centrifuge.said import ALL, Said

EACH = pytest.mark.parametrize("said", ALL, ids=[said.name for said in ALL])


@EACH
def test_json(said: Said) -> None:
    assert said.say(json_codec) == said.json


@EACH
def test_protobuf(said: Said) -> None:
    assert said.say(protobuf_codec) == said.protobuf


@EACH
def test_no_json_message_holds_a_raw_newline(said: Said) -> None:
    assert b"\n" not in said.say(json_codec)
    assert b"\r" not in said.say(json_codec)


@pytest.mark.parametrize("codec", [json_codec, protobuf_codec], ids=["json", "protobuf"])
def test_no_kind_is_forgotten(codec: typing.Any) -> None:
    assert set(codec._RESULTS) == set(typing.get_args(replies.Result))
    assert set(codec._PUSHES) == set(typing.get_args(replies.Push))


def test_messages_are_joined_into_one_frame() -> None:
    ping_and_error = [
        json_codec.encode_reply(1, replies.PingResult()),
        json_codec.encode_push("", replies.Message(b"2")),
    ]
    assert json_codec.join(ping_and_error) == b'{"id":1,"ping":{}}\n{"push":{"message":{"data":2}}}'
    assert json_codec.join(ping_and_error[:1]) == b'{"id":1,"ping":{}}'


@pytest.mark.parametrize(
    ("size", "length"),
    [
        (1, b"\x01"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (300, b"\xac\x02"),
        (16_383, b"\xff\x7f"),
        (16_384, b"\x80\x80\x01"),
    ],
)
def test_protobuf_messages_come_behind_their_length(size: int, length: bytes) -> None:
    message = b"m" * size
    assert protobuf_codec.join([message, b"", b"x"]) == length + message + b"\x00" + b"\x01x"


def test_pings_are_empty_replies() -> None:
    assert json_codec.ping() == b"{}"
    assert protobuf_codec.ping() == b"\x00"


TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)
JSON_OBJECTS = st.sampled_from([b"", b"{}", b'{"name":"\xc3\xa9"}', b'{"a":\n[1.10, 2]}'])
PUBLICATIONS = st.one_of(
    st.builds(Publication, st.binary(max_size=300), st.just(value=True)),
    st.builds(Publication, TEXTS.map(str.encode)),
    st.builds(Publication, TEXTS.map(orjson.dumps), is_json=st.just(value=True)),
).flatmap(
    lambda said: st.builds(
        said._replace,
        offset=st.integers(1, 2**64 - 1),
        info=st.none() | st.builds(ClientInfo, TEXTS, TEXTS, JSON_OBJECTS, JSON_OBJECTS),
        tags=st.none() | st.dictionaries(TEXTS, TEXTS, max_size=3),
        published_at=st.integers(0, 2**63 - 1),
    )
)


@LAW
@given(st.lists(PUBLICATIONS, max_size=3), st.booleans())
def test_publications_take_no_more_of_a_reply_than_their_sizes(said: list[Publication], delta: bool) -> None:
    for codec in (json_codec, protobuf_codec):
        none, all = (codec.encode_reply(1, replies.HistoryResult(each, "abcd", 9)) for each in ((), said))
        taken, sizes = len(all) - len(none), sum(codec.sizes(said))
        if codec is json_codec:
            assert taken == sizes - bool(said), "there is no comma after the last one"
        else:
            assert taken <= sizes
        none, all = (
            codec.encode_reply(1, replies.SubscribeResult(delta=delta, offset=1, publications=each))
            for each in ((), said)
        )
        sizes = sum(codec.sizes(said, delta=delta))
        assert len(all) - len(none) <= sizes + len('"publications":[],')


def test_both_are_codecs_of_their_frames_kind() -> None:
    codecs: list[Codec] = [json_codec, protobuf_codec]
    assert [(codec.name, codec.opcode) for codec in codecs] == [("json", 1), ("protobuf", 2)]
