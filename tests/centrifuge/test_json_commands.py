"""JSON frames to commands: what is exact, what is refused, and how."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.dialects.centrifuge import codes, commands
from server.dialects.centrifuge.codes import BadCommands
from server.dialects.centrifuge.commands import Body, Command
from server.dialects.centrifuge.json_codec import decode
from tests.centrifuge.laws import LAW

REJECTED = commands.Rejected(codes.ERROR_BAD_REQUEST)


def body(frame: bytes) -> Body:
    (command,) = decode(frame, 1)
    return command.body


def refused(frame: bytes, max_commands: int = 100) -> codes.Disconnect:
    with pytest.raises(BadCommands) as caught:
        decode(frame, max_commands)
    return caught.value.disconnect


# Frames


def test_commands_are_lines_and_the_last_newline_is_optional() -> None:
    two = [Command(1, commands.Ping()), Command(0, commands.Pong())]
    assert decode(b'{"id":1,"ping":{}}\n{}', 2) == two
    assert decode(b'{"id":1,"ping":{}}\n{}\n', 2) == two
    assert decode(b'{"id":1,"ping":{}}\r\n{}\r\n', 2) == two


@pytest.mark.parametrize("frame", [b"", b"\n", b"\n\n", b"{}\n\n", b"\n{}", b"{}\n \n{}", b"{} {}"])
def test_empty_lines_are_no_commands(frame: bytes) -> None:
    assert refused(frame) == codes.DISCONNECT_BAD_REQUEST


def test_number_of_commands_is_limited() -> None:
    assert len(decode(b"{}\n" * 100, 100)) == 100
    assert refused(b"{}\n" * 101) == codes.DISCONNECT_BAD_REQUEST
    assert refused(b"{}\n" * 10_000) == codes.DISCONNECT_BAD_REQUEST
    assert refused(b"\n" * 65_536) == codes.DISCONNECT_BAD_REQUEST


def test_one_bad_line_spoils_the_frame() -> None:
    assert refused(b'{"id":1,"ping":{}}\nhello\n{}') == codes.DISCONNECT_BAD_REQUEST


# What a client publishes stays as it is

EXACT = [
    b"1.10", b"1e2", b"-0", b"0.1000000000000000055511151231257827", b"12345678901234567890123", b'"5"', b'"true"',
    b"true", b"null", b'""', b"{}", b"[]", b'"\\u00fc"', b'"\\/"', b'{ "a" :\t[ 1 , 2 ] }', b'{"a":1,"a":2}',
    b'"\\u0000"', b'"\\ud83d\\ude00"', '"☃"'.encode(), b'"}"', b'"\\"data\\":1"', b'{"data":{"data":3}}',
    b"[" * 32 + b"]" * 32,
]  # fmt: skip


@pytest.mark.parametrize("data", EXACT, ids=[data.decode()[:40] for data in EXACT])
@pytest.mark.parametrize(
    "frame",
    [
        b'{"id":1,"publish":{"channel":"c","data":%b}}',
        b'{"publish":{"data":%b,"channel":"c"},"id":1}',
        b' { "id" : 1 , "publish" : { "data" : %b , "channel" : "c" } , "data" : 7 } ',
        b'{"data":[0],"other":{"data":0},"publish":{"more":{"data":0},"channel":"c","data":%b},"id":1}',
        b'{ "id":1,"publish":{"channel":"c","data":%b,"publish":{"data":0}} }',
    ],
    ids=["compact", "other order", "spaced", "decoys", "decoy behind"],
)
def test_data_is_cut_out_as_it_came(frame: bytes, data: bytes) -> None:
    assert decode(frame % data, 1) == [Command(1, commands.Publish("c", data))]


numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]))
keys = st.text('ab"\\{}[]:,\n', max_size=4)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)


@LAW
@given(json_values, st.booleans(), st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", "  : ")]))
def test_any_data_is_cut_out_as_it_came(value: object, escape: bool, separators: tuple[str, str]) -> None:
    data = json.dumps(value, ensure_ascii=escape, separators=separators)
    command = json.dumps({"rpc": {"method": "m", "data": "HERE"}, "id": 9}, separators=separators)
    assert body(command.replace('"HERE"', data).encode()) == commands.Rpc("m", data.encode())


def test_no_data_and_null_are_two_things() -> None:
    assert body(b'{"id":1,"publish":{"channel":"c"}}') == commands.Publish("c", None)
    assert body(b'{"id": 1, "publish": {"channel": "c"}}') == commands.Publish("c", None)
    assert body(b'{"id":1,"publish":{"channel":"c","data":null}}') == commands.Publish("c", b"null")


# What is refused with error 107, under the command's id

WRONG = [
    b'"publish":5',
    b'"publish":[]',
    b'"publish":"x"',
    b'"publish":{"channel":5}',
    b'"publish":{"channel":["c"]}',
    b'"publish":{"channel":"c","type":"map"}',
    b'"connect":{"token":1}',
    b'"connect":{"subs":[]}',
    b'"connect":{"subs":{"c":1}}',
    b'"connect":{"subs":{"c":null}}',
    b'"connect":{"subs":{"c":{"offset":-1}}}',
    b'"connect":{"headers":{"a":1}}',
    b'"connect":{"headers":"a"}',
    b'"subscribe":{"channel":"c","recover":1}',
    b'"subscribe":{"channel":"c","recover":"true"}',
    b'"subscribe":{"channel":"c","offset":"1"}',
    b'"subscribe":{"channel":"c","offset":1.0}',
    b'"subscribe":{"channel":"c","offset":true}',
    b'"subscribe":{"channel":"c","offset":18446744073709551616}',
    b'"subscribe":{"channel":"c","epoch":4}',
    b'"subscribe":{"channel":"c","delta":{}}',
    b'"history":{"channel":"c","limit":2147483648}',
    b'"history":{"channel":"c","since":5}',
    b'"history":{"channel":"c","since":{"offset":-1}}',
    b'"history":{"channel":"c","reverse":0}',
    b'"rpc":{"method":null,"data":1e999}',
    b'"publish":{"channel":"\\ud83d"}',
    b'"publish":{"channel":"c","data":"half of an emoji: \\ud83d"}',
    b'"publish":{"channel":"c","data":NaN}',
    b'"publish":{"channel":"c","data":-Infinity}',
    b'"publish":{"channel":"c","data":' + b"9" * 400 + b"}",
    b'"publish":{"channel":"c","data":' + b"[" * 33 + b"]" * 33 + b"}",
    b'"publish":{"channel":"c","data":' + b'{"a":' * 33 + b"1" + b"}" * 33 + b"}",
    b'"publish":{"channel":"c"},"subscribe":{"channel":"c"}',
    b'"ping":[]',
]


@pytest.mark.parametrize("members", WRONG, ids=[members.decode()[:60] for members in WRONG])
@pytest.mark.parametrize("frame", [b'{"id":3,%b}', b'{%b , "id": 3}'], ids=["compact", "spaced"])
def test_wrong_fields_get_an_error_reply(frame: bytes, members: bytes) -> None:
    assert decode(frame % members + b"\n{}", 2) == [Command(3, REJECTED), Command(0, commands.Pong())]


def test_too_many_server_side_subscriptions_or_headers() -> None:
    def connect(field: str, count: int, value: object) -> Body:
        fields = {field: {f"n{index}": value for index in range(count)}}
        return body(json.dumps({"id": 1, "connect": fields}).encode())

    full = connect("subs", commands.MAX_SUBS, {})
    assert isinstance(full, commands.Connect)
    assert len(full.subs) == commands.MAX_SUBS
    assert connect("subs", commands.MAX_SUBS + 1, {}) == REJECTED
    more = json.dumps({"id": 1, "connect": {"subs": {f"n{index}": {} for index in range(commands.MAX_SUBS + 1)}}})
    (command,) = decode(more.encode(), 1, commands.MAX_SUBS + 1)
    assert isinstance(command.body, commands.Connect)
    assert isinstance(connect("headers", commands.MAX_HEADERS, ""), commands.Connect)
    assert connect("headers", commands.MAX_HEADERS + 1, "") == REJECTED


def test_unknown_command_gets_its_error_reply() -> None:
    unknown = commands.Rejected(codes.ERROR_METHOD_NOT_FOUND)
    assert body(b'{"id":7,"dance":{}}') == unknown
    assert body(b'{"id":7}') == unknown
    assert body(b'{"id":7,"publish":null}') == unknown


def test_unknown_fields_and_nulls_are_passed_over() -> None:
    assert body(b'{"id":7,"v":2,"subscribe":{"channel":"c","token":null,"since":1}}') == commands.Subscribe("c")


# What ends the connection: there is no id to answer to

HOPELESS = [
    b"hello", b"5", b"null", b'"{}"', b"[]", b"[[],[]]", b"{", b'{"id":1,}', b'{"id":01}', b"NaN", b"{}x",
    b'{"id":-1,"ping":{}}', b'{"id":4294967296,"ping":{}}', b'{"id":1.0,"ping":{}}', b'{"id":"1","ping":{}}',
    b'{"id":true,"ping":{}}', b'{"id":[],"ping":{}}', b'{"id":"","ping":{}}', b'{"id":false}',
    b'{"id":' + b"9" * 5000 + b',"ping":{}}',
    b'{"ping":{}}', b'{"id":0,"subscribe":{"channel":"c"}}', b'{"publish":{"channel":"c"}}', b'{"dance":{}}',
    b'{"send":5}', b'{"send":{},"ping":{}}', b'{"send":{"data":NaN}}',
    b'{"id":1,"id":2,"ping":{}}', b'{"id":1,"subscribe":{"channel":"mine","channel":"yours"}}',
    b'{"id":1,"publish":{"channel":"c","data":1,"data":2}}', b'{"id":1,"ping":{},"ping":{}}',
    b"\x00", b"\x00" * 1000, b'{"id":1,"ping":{}}\x00', b"\xff\xfe", b'{"id":1,"a":"\xff"}', b"\xef\xbb\xbf{}",
    b"[" * 65_536, b'{"a":' * 13_000, b'{"id":1,"publish":{"data":' + b"[" * 2_000 + b"]" * 2_000 + b"}}",
]  # fmt: skip


@pytest.mark.parametrize("frame", HOPELESS, ids=[repr(frame[:50]) for frame in HOPELESS])
def test_no_command_ends_the_connection(frame: bytes) -> None:
    assert refused(frame) == codes.DISCONNECT_BAD_REQUEST


def test_long_line_is_not_searched_for_an_id() -> None:
    almost = b'{"id":3,"publish":{"channel":"c","data":"%b\\ud83d"}}'
    assert decode(almost % (b"x" * 10_000), 1) == [Command(3, REJECTED)]
    assert refused(almost % (b"x" * 20_000)) == codes.DISCONNECT_BAD_REQUEST


def test_pong_may_have_an_id_of_zero() -> None:
    assert decode(b'{"id":0}', 1) == [Command(0, commands.Pong())]


def test_send_may_have_an_id() -> None:
    assert decode(b'{"id":5,"send":{"data":1}}', 1) == [Command(5, commands.Send(b"1"))]


@LAW
@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_garbage_raises_nothing_else(frame: bytes) -> None:
    try:
        assert decode(frame, 10)
    except BadCommands:
        pass


@LAW
@given(st.data())
def test_damaged_commands_raise_nothing_else(data: st.DataObject) -> None:
    whole = (
        b'{"id": 1, "connect": {"token": "t", "data": {"a": [1, 2.5]}, "subs": {"c": {"recover": true}}}}\n'
        b'{"id":2,"history":{"channel":"c","limit":-1,"since":{"offset":1,"epoch":"e"},"reverse":true}}\n{}'
    )
    place = data.draw(st.integers(0, len(whole)))
    size = data.draw(st.integers(0, 8))
    patch = data.draw(
        st.binary(max_size=8) | st.sampled_from([b"{", b"}", b'"', b"null", b"1e400", b"\\ud800", b"[[", b","])
    )
    try:
        assert decode(whole[:place] + patch + whole[place + size :], 10)
    except BadCommands:
        pass
