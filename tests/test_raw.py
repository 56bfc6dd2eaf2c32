"""The raw dialect: no envelope, text stays text, binary stays binary."""

from __future__ import annotations

import pytest

from server.dialects.raw import is_text


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
