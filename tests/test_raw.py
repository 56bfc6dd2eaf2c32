"""The raw dialect: no envelope, text stays text, binary stays binary."""

from __future__ import annotations

from typing import Any

import pytest

from server.dialects.raw import encode_binary, encode_data, is_text


@pytest.mark.parametrize(
    "payload",
    [b"", b"plain", b"\x00\x7f", "é€😀".encode(), b"\xef\xbf\xbf", b"\xed\x9f\xbf", b"\xf4\x8f\xbf\xbf"],
)
def test_utf_8_is_text(payload: bytes) -> None:
    assert is_text(payload)
    assert is_text(bytearray(payload))


@pytest.mark.parametrize(
    "payload",
    [
        b"\x80",  # a continuation without a start
        b"\xc3",  # a start without its continuation
        b"ok\xe2\x82",  # cut short
        b"\xc0\x80",  # NUL, overlong
        b"\xe0\x80\xaf",  # a slash, overlong
        b"\xed\xa0\x80",  # a surrogate
        b"\xf4\x90\x80\x80",  # beyond U+10FFFF
        b"\xff\xfe",
    ],
)
def test_anything_else_is_not(payload: bytes) -> None:
    assert not is_text(payload)
    assert not is_text(bytearray(payload))


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
def test_a_json_string_is_its_text_and_any_other_value_its_json(data: object, frame: bytes) -> None:
    assert encode_data(data) == frame


@pytest.mark.parametrize("data", [{1: 2}, object(), 2**64, {"a": b"bytes"}])
def test_what_json_cannot_hold_is_a_type_error(data: Any) -> None:
    with pytest.raises(TypeError):
        encode_data(data)


def test_binary_is_binary() -> None:
    assert encode_binary(b"\x00\xff") == b"\x82\x02\x00\xff"
