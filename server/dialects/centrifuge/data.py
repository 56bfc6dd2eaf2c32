"""A payload as each side sees it: one publication, and JSON, Protobuf and raw subscribers.

Laws:
- to JSON subscribers, text that is JSON is that JSON, other text a JSON string, binary a base64 string with the tag
  ``encoding: base64``. To Protobuf subscribers it is the payload's bytes. To raw subscribers, JSON that is one string
  is its text, anything else the payload.
- what was published as JSON comes back as the JSON that it was: not even a number changes its digits. Only newlines
  between tokens go, where a newline ends the message.
- JSON that is nested too deep is no JSON: the parsers of some SDKs would fail on it, and end their connection.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final

import orjson

from server.core.publication import ClientInfo, Publication

# System.Text.Json, for one, gives up at 64; some levels are the message's own.
MAX_DEPTH: Final = 32

BINARY_TAG: Final = ("encoding", "base64")

_FIRST_OF_JSON: Final = frozenset(b' \t\r\n"{[-0123456789tfn')
_NEWLINES: Final = b"\r\n"
_CONTAINERS: Final = frozenset((dict, list))


def is_json(text: bytes) -> bool:
    """Tell if `text` is one JSON value (RFC 8259, numbers that fit a double, no lone surrogates), not too deep."""
    # The first byte tells most chat apart from JSON without a parser's exception.
    if not text or text[0] not in _FIRST_OF_JSON:
        return False
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return not is_deeper(text, value, MAX_DEPTH)


def is_deeper(json: bytes, value: object, depth: int) -> bool:
    """Tell if `json`, which orjson has read as `value`, nests arrays and objects more than `depth` deep."""
    if json.count(b"[") + json.count(b"{") <= depth:
        return False
    level: list[Any] = [value] if type(value) in _CONTAINERS else []
    for _ in range(depth):
        if not level:
            return False
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) in _CONTAINERS
        ]
    return bool(level)


def without_newlines(json: bytes) -> bytes:
    """Remove raw newlines from valid JSON: they are white space there, but end a message of the protocol."""
    if b"\n" in json or b"\r" in json:
        return json.translate(None, _NEWLINES)
    return json


def json_text(publication: Publication) -> bytes:
    """Return the data as JSON subscribers get it: JSON without raw newlines."""
    payload = publication.payload
    if publication.is_binary:
        return b'"%b"' % b64encode(payload)
    if publication.is_json or is_json(payload):
        return without_newlines(payload)
    return orjson.dumps(payload.decode())


def json_tags(publication: Publication) -> Mapping[str, str] | None:
    """Return the tags as JSON subscribers get them."""
    if not publication.is_binary:
        return publication.tags
    return {**(publication.tags or {}), BINARY_TAG[0]: BINARY_TAG[1]}


def raw_payload(publication: Publication) -> bytes:
    """Return what raw subscribers get, as text or, if the publication `is_binary`, as binary."""
    payload = publication.payload
    if publication.is_json and payload.lstrip()[:1] == b'"':
        text: str = orjson.loads(payload)
        return text.encode()
    return payload


def to_publication(
    data: bytes, *, info: ClientInfo | None = None, tags: Mapping[str, str] | None = None
) -> Publication:
    """Make a publication of what a Centrifuge client or the server API said: JSON, or else binary.

    `data` of a JSON client is JSON already. That of a Protobuf client may be anything; text that is not JSON is binary
    too, because half of all binary formats look like text now and then.
    """
    if is_json(data):
        return Publication(data, info=info, tags=tags, is_json=True)
    return Publication(data, is_binary=True, info=info, tags=tags)
