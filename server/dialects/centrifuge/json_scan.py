"""Where members of a JSON object, or elements of an array, lie in its text: what a parser to Python objects forgets.

Takes only text that orjson has found to be valid and `is_deeper` not to be deep; knows no command.
"""

from __future__ import annotations

import re
from json import JSONDecoder
from typing import Final

_skip_value: Final = JSONDecoder().raw_decode
# Between a key and its value, or a value and the next key. Valid JSON has each of them where it belongs.
_skip_gap: Final = re.compile(r"[ \t\r\n:,]*").match

Span = tuple[int, int]


class DuplicateKey(Exception):
    """An object that has two values for one key."""


def find_members(text: str, inner: str) -> dict[str, Span]:
    """Return where each value of the outer object begins and ends, and those of its member `inner`, if an object.

    The latter's keys get `inner` and a dot in front, as in ``publish.data``. Raises DuplicateKey.
    """
    spans: dict[str, Span] = {}
    _note_members(text, _gap(text, 0), "", inner, spans)
    return spans


def find_elements(text: str) -> list[Span]:
    """Return where each element of an array begins and ends."""
    spans: list[Span] = []
    at = _gap(text, _gap(text, 0) + 1)
    while text[at] != "]":
        end = _skip_value(text, at)[1]
        spans.append((at, end))
        at = _gap(text, end)
    return spans


def _note_members(text: str, at: int, prefix: str, inner: str, spans: dict[str, Span]) -> int:
    """Note the members of the object that begins at `at`; return where it ends."""
    seen: set[str] = set()
    at = _gap(text, at + 1)
    while text[at] != "}":
        key, at = _skip_value(text, at)
        if key in seen:
            raise DuplicateKey
        seen.add(key)
        begin = _gap(text, at)
        if key == inner and not prefix and text[begin] == "{":
            end = _note_members(text, begin, inner + ".", inner, spans)
        else:
            end = _skip_value(text, begin)[1]
        spans[prefix + key] = (begin, end)
        at = _gap(text, end)
    return at + 1


def _gap(text: str, at: int) -> int:
    match = _skip_gap(text, at)
    assert match is not None, "a pattern that may be empty matches anywhere"
    return match.end()
