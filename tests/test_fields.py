"""The fields of a request: what each kind of them takes, what is missing, and that texts are cut where they belong."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.admin.fields import ApiError, Fields
from server.core.history import Position
from server.edge.signatures import MAX_TOKEN


def fields(request: dict[str, Any], text: str = "") -> Fields:
    return Fields(request, text, max_channel_length=10, max_message_size=20)


def read(text: str) -> Fields:
    return fields(orjson.loads(text), text)


READERS: dict[str, tuple[Any, list[Any], list[Any]]] = {
    # what is read when it is missing, good values, bad ones
    "text": ("", ["", "a", "x" * 256], [1, True, [], {}, "x" * 257]),
    "flag": (False, [True, False], [0, 1, "true", []]),
    "number": (0, [0, -1, 2**31 - 1, -(2**31)], [1.0, "1", True, [], 2**31, -(2**31) - 1, 2**63]),
    "natural": (0, [0, 1, 2**64 - 1], [-1, 1.5, False, "1", 2**64]),
    "members": (None, [{}, {"a": 1}], [[], "a", 1]),
    "position": (None, [], [[], "a", {"offset": -1}, {"offset": "1"}, {"offset": 2**64}, {"epoch": 1}]),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_field_is_of_one_type_and_may_be_missing(reader: str) -> None:
    missing, good, bad = READERS[reader]
    assert getattr(fields({}), reader)("x") == missing
    assert getattr(fields({"x": None}), reader)("x") == missing
    for value in good:
        assert getattr(fields({"x": value}), reader)("x") == value
    for value in bad:
        with pytest.raises(ApiError, match=r"^(x|offset|epoch): ") as error:
            getattr(fields({"x": value}), reader)("x")
        assert error.value.code == 107
        assert error.value.told == {"code": 107, "message": str(error.value)}


def test_a_number_may_have_another_end() -> None:
    assert fields({"x": 9}).natural("x", 10) == 9
    with pytest.raises(ApiError, match="x: less than 10 is needed"):
        fields({"x": 10}).natural("x", 10)


def test_a_user_s_name_may_be_as_long_as_a_token_can_say_it() -> None:
    assert fields({"user": "u" * MAX_TOKEN}).user() == "u" * MAX_TOKEN
    with pytest.raises(ApiError, match="user: longer than"):
        fields({"user": "u" * (MAX_TOKEN + 1)}).user()


def test_lists_are_limited() -> None:
    assert fields({"x": []}).entries("x", 2) == []
    assert fields({"x": [1, None]}).entries("x", 2) == [1, None]
    assert fields({}).texts("x", 2) == []
    assert fields({"x": ["a"]}).texts("x", 2) == ["a"]
    with pytest.raises(ApiError, match="x: more than 2"):
        fields({"x": [1, 2, 3]}).entries("x", 2)
    for missing in ({}, {"x": None}, {"x": {}}):
        with pytest.raises(ApiError, match="x: a list is needed"):
            fields(missing).entries("x", 2)
    with pytest.raises(ApiError, match="x: strings are needed"):
        fields({"x": ["a", 1]}).texts("x", 2)


def test_a_position_is_an_offset_and_an_epoch() -> None:
    assert fields({"since": {"offset": 3, "epoch": "e"}}).position("since") == Position(3, "e")
    assert fields({"since": {}}).position("since") == Position(0, "")


def test_a_publication_is_json_or_binary() -> None:
    text = fields({"data": "a"}).publication()
    assert (text.payload, text.is_json, text.is_binary) == (b'"a"', True, False)
    binary = fields({"b64data": "/w=="}).publication()
    assert (binary.payload, binary.is_json, binary.is_binary) == (b"\xff", False, True)
    assert fields({"data": "x" * 20}).publication().payload == b'"' + b"x" * 20 + b'"'
    with pytest.raises(ApiError, match="data: larger than 20 bytes"):
        fields({"data": "x" * 21}).publication()
    with pytest.raises(ApiError, match="tags: larger than 20 bytes"):
        fields({"data": 1, "tags": {"é" * 10: "a"}}).publication()


@pytest.mark.parametrize("text", ['{"x":1.10}', '{ "x" :\n 1.10 }', '{"y": {"x": 2}, "x": 1.10, "z": "}"}'])
def test_what_is_shown_is_cut_out_as_it_came(text: str) -> None:
    assert read(text).shown("x") == b"1.10"


def test_what_is_shown_is_on_one_line_and_json() -> None:
    assert read('{"x": {\n"a":\r\n1.0}}').shown("x") == b'{"a":1.0}'
    assert fields({"b64x": "eyAiYSI6CjEgfQ=="}).shown("x") == b'{ "a":1 }'
    assert fields({"b64x": "", "x": [1]}).shown("x") == b"[1]"
    assert fields({"b64x": None, "x": None}).shown("x") is None
    for wrong in ("/w==", "e30", "", 5):
        if wrong != "":
            with pytest.raises(ApiError, match="b64x"):
                fields({"b64x": wrong}).shown("x")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(
    st.lists(st.fixed_dictionaries({"data": JSON}) | JSON, max_size=5),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " :\t")]),
)
def test_parts_are_cut_where_they_begin_and_end(parts: list[Any], separators: tuple[str, str]) -> None:
    try:
        text = json.dumps({"a": "[{", "x": parts, "z": 1}, separators=separators)
        request = orjson.loads(text)
    except orjson.JSONDecodeError:  # a lone surrogate
        return
    roomy = Fields(request, text, max_channel_length=10, max_message_size=1 << 20)
    for part, found in zip(parts, roomy.parts("x", 5), strict=True):
        assert (found is None) == (not isinstance(part, dict))
        if found is not None and "data" in part and part["data"] is not None:
            assert json.loads(found.publication().payload) == part["data"]
