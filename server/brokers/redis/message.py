"""What goes over Redis: one binary message per publication, news of who came or left, word between nodes, and probe.

    offset u64 · epoch 8 bytes | version u8 · kind u8 · flags u8 · origin 8 bytes · serial u64 · published_at u64
    · payload length u32 · payload · [info] · [tags]          all big-endian; the part after the bar is the *body*

The script that assigns offset and epoch puts them before the body; a stream keeps the body alone. `info` is four
lengths (u32) and user, client, conn_info, chan_info; `tags` are a count (u32), and two lengths (u32) and two texts
each. Laws: what is not exactly so, or is no UTF-8 where text is due, is Malformed, whatever it is; nothing is
allocated from a length that was not checked against what is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

from server.core.publication import ClientInfo, Publication

VERSION: Final = 1
EPOCH_LENGTH: Final = 8
ORIGIN_LENGTH: Final = 8
# Larger ones are not ours: the server's own limits are far below.
MAX_MESSAGE: Final = 16 << 20

_PLACE: Final = Struct(">Q8s")
_MESSAGE: Final = Struct(">Q8sBBB8sQQI")
_FOUR: Final = Struct(">IIII")
_TWO: Final = Struct(">II")
_ONE: Final = Struct(">I")
_NO_EPOCH: Final = bytes(EPOCH_LENGTH)

_BINARY, _JSON, _INFO, _TAGS = 1, 2, 4, 8


class Kind(IntEnum):
    """What a message is."""

    PUBLICATION = 0
    JOIN = 1
    LEAVE = 2
    PROBE = 3
    CONTROL = 4


_PUBLICATION: Final = int(Kind.PUBLICATION)
_LAST_KIND: Final = int(max(Kind))
_new: Final = tuple.__new__
_NEWS: Final = (int(Kind.JOIN), int(Kind.LEAVE))


class Malformed(ValueError):
    """Not a message of ours."""


class Message(NamedTuple):
    """A message: `origin` names the node that sent it, and `serial` counts that node's plain publications (or is 0).

    `epoch` is "" when the channel keeps no history. News of who came or left has its `publication.info` alone.
    """

    kind: int
    origin: bytes
    serial: int
    epoch: str
    publication: Publication


def encode(kind: Kind, origin: bytes, serial: int, publication: Publication) -> bytes:
    """Encode a message without offset and epoch."""
    payload, is_binary, _, info, tags, published_at, is_json = publication
    flags = (_BINARY if is_binary else 0) | (_JSON if is_json else 0)
    rest = b""
    if info is not None:
        flags |= _INFO
        rest = encode_info(info)
    if tags:
        flags |= _TAGS
        rest += _encode_tags(tags)
    head = _MESSAGE.pack(0, _NO_EPOCH, VERSION, kind, flags, origin, serial, published_at, len(payload))
    return b"".join((head, payload, rest)) if rest else head + payload


def body(message: bytes) -> bytes:
    """Return a message without the place of its offset and epoch."""
    return message[_PLACE.size :]


def decode(message: bytes) -> Message:
    """Decode a message. Raises Malformed."""
    size = len(message)
    if not _MESSAGE.size <= size <= MAX_MESSAGE:
        raise Malformed("a size that no message has")
    offset, epoch, version, kind, flags, origin, serial, published_at, length = _MESSAGE.unpack_from(message)
    if version != VERSION or kind > _LAST_KIND or flags > 15:
        raise Malformed("a version, kind or flag that is not known")
    end = _MESSAGE.size + length
    if end > size:
        raise Malformed("a payload longer than the message")
    payload = message[_MESSAGE.size : end]
    info: ClientInfo | None = None
    tags: dict[str, str] | None = None
    name = ""
    try:
        if not payload.isascii() and not flags & _BINARY:
            payload.decode()  # a browser would end its connection over it
        if flags > _JSON:
            if flags & _INFO:
                info, end = _decode_info(message, end)
            if flags & _TAGS:
                tags, end = _decode_tags(message, end)
        if offset:
            name = epoch.decode("ascii")
    except UnicodeDecodeError:
        raise Malformed("not the text that it should be") from None
    if end != size:
        raise Malformed("more than the message")
    if info is None and kind in _NEWS:
        raise Malformed("news of nobody")
    said = (payload, flags & _BINARY != 0, offset, info, tags, published_at, flags & _JSON != 0)
    # Every message of everybody comes by here: as their own constructors would, in half the time.
    return _new(Message, (kind, origin, serial, name, _new(Publication, said)))


def decode_kept(offset: int, epoch: str, kept: bytes) -> Publication:
    """Decode the body that a stream has kept. Raises Malformed."""
    message = decode(_PLACE.pack(offset, epoch.encode("ascii")) + kept)
    if message.kind != _PUBLICATION:
        raise Malformed("streams keep publications")
    return message.publication


def encode_info(info: ClientInfo) -> bytes:
    """Encode who a client is."""
    parts = (info.user.encode(), info.client.encode(), info.conn_info, info.chan_info)
    return b"".join((_FOUR.pack(*map(len, parts)), *parts))


def decode_info(data: bytes) -> ClientInfo:
    """Decode who a client is. Raises Malformed."""
    try:
        info, end = _decode_info(data, 0)
    except UnicodeDecodeError:
        raise Malformed("not the text that it should be") from None
    if end != len(data):
        raise Malformed("more than one info")
    return info


def _decode_info(data: bytes, start: int) -> tuple[ClientInfo, int]:
    lengths = _unpack(_FOUR, data, start)
    ends = [start + _FOUR.size]
    for length in lengths:
        ends.append(ends[-1] + length)
    if ends[-1] > len(data):
        raise Malformed("an info longer than the message")
    user, client, conn_info, chan_info = (data[ends[part] : ends[part + 1]] for part in range(4))
    return ClientInfo(user.decode(), client.decode(), conn_info, chan_info), ends[-1]


def _encode_tags(tags: Mapping[str, str]) -> bytes:
    parts = [_ONE.pack(len(tags))]
    for key, value in tags.items():
        texts = key.encode(), value.encode()
        parts += (_TWO.pack(*map(len, texts)), *texts)
    return b"".join(parts)


def _decode_tags(data: bytes, start: int) -> tuple[dict[str, str], int]:
    (count,) = _unpack(_ONE, data, start)
    start += _ONE.size
    tags: dict[str, str] = {}
    for _ in range(count):  # ends with the data: each turn takes eight bytes or raises
        key, value = _unpack(_TWO, data, start)
        start += _TWO.size
        end = start + key + value
        if end > len(data):
            raise Malformed("tags longer than the message")
        tags[data[start : start + key].decode()] = data[start + key : end].decode()
        start = end
    return tags, start


def _unpack(struct: Struct, data: bytes, start: int) -> tuple[int, ...]:
    if start + struct.size > len(data):
        raise Malformed("cut short")
    return struct.unpack_from(data, start)
