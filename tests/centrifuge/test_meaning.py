"""JSON and Protobuf mean the same: commands in, replies out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.publication import ClientInfo, Publication
from server.dialects.centrifuge import codes, json_codec, protobuf_codec, schema
from server.dialects.centrifuge import replies as r
from tests.centrifuge.laws import LAW
from tests.centrifuge.said import ALL, Said

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
uint64 = st.integers(0, 2**64 - 1)
uint32 = st.integers(0, 2**32 - 1)
int32 = st.integers(-(2**31), 2**31 - 1)
json_data = st.sampled_from([b"{}", b"1.10", b'"5"', b"null", '{"a":["☃",2]}'.encode()])


def fields(**strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=strategies)


recovery = fields(recover=st.booleans(), epoch=text, offset=uint64, delta=text)
subscribe = fields(
    channel=text, token=text, recover=st.booleans(), epoch=text, offset=uint64, data=json_data,
    positioned=st.booleans(), recoverable=st.booleans(), join_leave=st.booleans(), delta=text,
    flag=st.integers(-(2**63), 2**63 - 1), type=int32, tf=st.just({}),
)  # fmt: skip
requests = st.one_of(
    st.tuples(
        st.just("connect"),
        fields(
            token=text, data=json_data, subs=st.dictionaries(text, recovery, max_size=3), name=text, version=text,
            headers=st.dictionaries(text, text, max_size=3),
        ),
    ),
    st.tuples(st.just("subscribe"), subscribe),
    st.tuples(st.sampled_from(["unsubscribe", "presence", "presence_stats"]), fields(channel=text)),
    st.tuples(st.just("publish"), fields(channel=text, data=json_data, type=int32)),
    st.tuples(
        st.just("history"),
        fields(channel=text, limit=int32, since=fields(offset=uint64, epoch=text), reverse=st.booleans()),
    ),
    st.tuples(st.just("rpc"), fields(method=text, data=json_data)),
    st.tuples(st.just("send"), fields(data=json_data)),
    st.tuples(st.just("refresh"), fields(token=text)),
    st.tuples(st.just("sub_refresh"), fields(channel=text, token=text, type=int32)),
    st.tuples(st.just("ping"), fields()),
)  # fmt: skip


@LAW
@given(st.integers(1, 2**32 - 1), requests, st.booleans())
def test_a_command_means_the_same_in_both(id: int, request: tuple[str, dict[str, Any]], spaced: bool) -> None:
    method, body = request
    data = body.get("data", b"").decode()
    separators = (", ", ": ") if spaced else (",", ":")
    as_json = json.dumps(
        {"id": id, method: body}, default=lambda data: "DATA", ensure_ascii=False, separators=separators
    )
    as_protobuf = protobuf_codec.join([schema.Command(id=id, **{method: body}).SerializeToString()])
    decoded = json_codec.decode(as_json.replace('"DATA"', data).encode(), 1)
    assert decoded == protobuf_codec.decode(as_protobuf, 1)
    assert [command.id for command in decoded] == [id]
    assert type(decoded[0].body).__name__.lower() == method.replace("_", "")


def of_json(message: bytes) -> Any:
    """Return what a JSON message says, without zeros; numbers as they are written."""
    return without_zeros(json.loads(message, parse_float=str))


def without_zeros(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: inner for name, inner in ((n, without_zeros(v)) for n, v in value.items()) if is_said(inner)}
    if isinstance(value, list):
        return [without_zeros(inner) for inner in value]
    return value


def is_said(value: Any) -> bool:
    # An empty object is one that is said to be there, but for a map.
    return value not in (0, False, "", None, []) or value == {}


def of_protobuf(message: Any) -> Any:
    """Return what a Protobuf message says, in the way of `of_json`."""
    said = {}
    for field, value in message.ListFields():
        if field.type == field.TYPE_BYTES:
            value = without_zeros(json.loads(value, parse_float=str))
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"].message_type
            value = {key: of_protobuf(value[key]) if inner is not None else value[key] for key in value}
        elif field.message_type is not None:
            value = [of_protobuf(each) for each in value] if field.is_repeated else of_protobuf(value)
        if is_said(value):
            said[field.name] = value
    return said


infos = st.builds(ClientInfo, text, text, json_data, json_data)
publications = st.builds(
    Publication,
    json_data,
    is_binary=st.just(False),
    offset=uint64,
    info=st.none() | infos,
    tags=st.none() | st.dictionaries(text, text.filter(bool), max_size=3),
    published_at=st.integers(0, 2**63 - 1),
    is_json=st.booleans(),
)
subscribed = st.builds(
    r.SubscribeResult, st.booleans(), text, st.lists(publications, max_size=3), st.booleans(), uint64, st.booleans(),
    st.booleans(), json_data, st.just(False), st.booleans(), uint32,
)  # fmt: skip
results = st.one_of(
    subscribed,
    st.builds(
        r.ConnectResult, text, text, st.booleans(), uint32, json_data,
        st.dictionaries(text, subscribed, min_size=1, max_size=2), uint32, st.booleans(), text, text,
        st.integers(0, 2**63 - 1),
    ),
    st.just(r.UnsubscribeResult()),
    st.just(r.PublishResult()),
    st.just(r.PingResult()),
    st.builds(r.PresenceResult, st.dictionaries(text, infos, min_size=1, max_size=3)),
    st.builds(r.PresenceStatsResult, uint32, uint32),
    st.builds(r.HistoryResult, st.lists(publications, max_size=3), text, uint64),
    st.builds(r.RpcResult, json_data),
    st.builds(r.RefreshResult, text, text, st.booleans(), uint32),
    st.builds(r.SubRefreshResult, st.booleans(), uint32),
)  # fmt: skip
pushes = st.one_of(
    publications,
    st.builds(r.Join, infos),
    st.builds(r.Leave, infos),
    st.builds(codes.Unsubscribe, uint32, text),
    st.builds(codes.Disconnect, uint32, text),
    st.builds(r.Subscribed, st.booleans(), text, uint64, st.booleans(), json_data),
    st.builds(r.Message, json_data),
    st.builds(r.Refreshed, st.booleans(), uint32),
)


@LAW
@given(st.integers(1, 2**32 - 1), results)
def test_a_reply_means_the_same_in_both(id: int, result: r.Result) -> None:
    protobuf = schema.Reply.FromString(protobuf_codec.encode_reply(id, result))
    assert of_protobuf(protobuf) == of_json(json_codec.encode_reply(id, result))


@LAW
@given(text, pushes)
def test_a_push_means_the_same_in_both(channel: str, push: r.Push) -> None:
    protobuf = schema.Reply.FromString(protobuf_codec.encode_push(channel, push))
    assert of_protobuf(protobuf) == of_json(json_codec.encode_push(channel, push))


@LAW
@given(uint32, text, st.booleans())
def test_an_error_means_the_same_in_both(code: int, message: str, temporary: bool) -> None:
    error = codes.Error(code, message, temporary)
    protobuf = schema.Reply.FromString(protobuf_codec.encode_error(5, error))
    assert of_protobuf(protobuf) == of_json(json_codec.encode_error(5, error))


DIFFERENT = {
    # Text, binary and deltas are different on purpose: JSON has only JSON for them.
    "subscribe with deltas", "raw text", "no text at all", "binary", "in full, for deltas", "text in full, for deltas",
    "delta", "delta with characters",
}  # fmt: skip
SAME = [said for said in ALL if said.name not in DIFFERENT]


@pytest.mark.parametrize("said", SAME, ids=[said.name for said in SAME])
def test_the_literal_bytes_mean_the_same(said: Said) -> None:
    as_json = of_json(said.json)
    if said.name == "presence of none":
        as_json["presence"] = {}
    assert of_protobuf(schema.Reply.FromString(said.protobuf)) == as_json
