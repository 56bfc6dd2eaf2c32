"""Fossil deltas: what to copy from the last payload, and what to insert, to get the next one.

A delta is the target's size and a newline, then ``COUNT@OFFSET,`` (copy) and ``COUNT:BYTES`` (insert), then ``SUM;``,
with numbers in Fossil's own base 64. Source: fossil-scm.org, "Fossil Delta Format".

The encoder is made for payloads that resemble each other, such as a document with some fields changed: it walks both
side by side, and after a difference looks for the place where they agree again. Laws:
- `apply_delta` of what `create_delta` made is the target, whatever the two are; a delta may be longer than its target.
- searches are paid for with what earlier ones saved, so that two payloads of little likeness cost little; when the
  credit is gone, the rest is inserted.
- no insert begins or ends within a UTF-8 character, if the target is UTF-8: a JSON subscriber gets the delta as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_DIGITS: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"
_VALUES: Final = {digit: value for value, digit in enumerate(_DIGITS)}
_COMMAND: Final = re.compile(rb"([0-9A-Z_a-z~]{1,6})([@:;])")
_SIZE: Final = re.compile(rb"([0-9A-Z_a-z~]{1,6})\n")
_OFFSET: Final = re.compile(rb"([0-9A-Z_a-z~]{1,6}),")

# A copy shorter than this costs more than it saves.
_MIN_COPY: Final = 8
# What both sides must have in common to agree again: long enough to be rare, short enough to lie between two changes.
_ANCHOR: Final = 12
# The first anchors after a difference are this far apart; the further from it, the further apart.
_STEP: Final = 8
# How far ahead in the source an anchor is looked for; later anchors are looked for everywhere, which takes some 10 us.
_NEAR: Final = 256
_WIDE_FROM: Final = 4 * _STEP
# In searches: what there is at first, what a copy earns, what a search everywhere costs, and the most in all.
_CREDIT: Final = 64
_BYTES_PER_SEARCH: Final = 4
_MAX_REWARD: Final = 16
_WIDE_PRICE: Final = 4
_MAX_SEARCHES: Final = 512


def create_delta(source: bytes, target: bytes) -> bytes:
    """Return the delta from `source` to `target`."""
    parts = [_number(len(target)), b"\n"]
    done = 0
    for at, end, offset in _Walk(source, target).copies():
        at, end, offset = _whole_characters(target, at, end, offset)
        if end - at < _MIN_COPY:
            continue
        if at > done:
            parts += (_number(at - done), b":", target[done:at])
        parts += (_number(end - at), b"@", _number(offset), b",")
        done = end
    if len(target) > done:
        parts += (_number(len(target) - done), b":", target[done:])
    parts += (_number(_checksum(target)), b";")
    return b"".join(parts)


def apply_delta(source: bytes, delta: bytes) -> bytes:
    """Return what `delta` makes of `source`. Raises ValueError for what is no delta, or not one from this source."""
    header = _SIZE.match(delta)
    if header is None:
        raise ValueError("a delta without a size")
    size, at = _value(header[1]), header.end()
    parts: list[bytes] = []
    made = 0
    while (command := _COMMAND.match(delta, at)) is not None:
        count, kind, at = _value(command[1]), command[2], command.end()
        if kind == b";":
            return _checked(b"".join(parts), size, count)
        made += count
        if made > size:
            raise ValueError("a delta that makes more than it says")
        if kind == b"@":
            part, at = _copied(source, count, delta, at)
        else:
            part, at = delta[at : at + count], at + count
        if len(part) != count:
            raise ValueError("a delta that takes more than there is")
        parts.append(part)
    raise ValueError("a delta that does not end")


def _copied(source: bytes, count: int, delta: bytes, at: int) -> tuple[bytes, int]:
    """Return what a copy command copies, and where the command ends."""
    place = _OFFSET.match(delta, at)
    if place is None:
        raise ValueError("a copy from nowhere")
    offset = _value(place[1])
    return source[offset : offset + count], place.end()


def _checked(target: bytes, size: int, checksum: int) -> bytes:
    if len(target) != size or _checksum(target) != checksum:
        raise ValueError("a delta from another source")
    return target


class _Walk:
    """Two payloads side by side, and the credit for searches."""

    __slots__ = ("_credit", "_searches", "_source", "_target")

    def __init__(self, source: bytes, target: bytes) -> None:
        self._source = source
        self._target = target
        self._credit = _CREDIT
        self._searches = _MAX_SEARCHES

    def copies(self) -> Iterator[tuple[int, int, int]]:
        """Yield the parts that both have: where each begins and ends in the target, and begins in the source."""
        source, target = self._source, self._target
        # What both end with is kept for the end: a search that is given up early costs no more than the middle.
        last = len(target) - _common_end(source, target)
        at = done = offset = 0
        while True:
            end = min(at + _common_start(source, offset, target, at), last)
            if end > at:
                self._credit += min((end - at) // _BYTES_PER_SEARCH, _MAX_REWARD)
                yield at, end, offset
            if end == last:
                break
            again = self._agree(offset + end - at, end, last)
            if again is None:
                break
            done = end
            offset, at = again
            while at > done and offset and source[offset - 1] == target[at - 1]:
                at -= 1
                offset -= 1
        if last < len(target):
            yield last, len(target), len(source) - (len(target) - last)

    def _agree(self, offset: int, at: int, last: int) -> tuple[int, int] | None:
        """Return where source and target agree again, after they differed at `offset` and `at`; None if nowhere."""
        source, target = self._source, self._target
        ahead = 0
        while at + ahead + _ANCHOR <= last and self._credit > 0 and self._searches:
            self._credit -= 1
            self._searches -= 1
            anchor = target[at + ahead : at + ahead + _ANCHOR]
            if source.startswith(anchor, offset + ahead):
                return offset + ahead, at + ahead
            found = source.find(anchor, offset, offset + ahead + _NEAR)
            if found < 0 and ahead >= _WIDE_FROM:
                self._credit -= _WIDE_PRICE
                found = source.find(anchor)
            if found >= 0:
                return found, at + ahead
            ahead += max(_STEP, ahead >> 2)
        return None


def _common_start(source: bytes, offset: int, target: bytes, at: int) -> int:
    """Return how many bytes from `offset` and `at` on are the same."""
    most = min(len(source) - offset, len(target) - at)
    same, step = 0, 64
    while same < most:
        step = min(step, most - same)
        one = source[offset + same : offset + same + step]
        other = target[at + same : at + same + step]
        if one != other:
            # The lowest bit in which they differ is in the first byte that does.
            differing = int.from_bytes(one, "little") ^ int.from_bytes(other, "little")
            return same + ((differing & -differing).bit_length() - 1) // 8
        same += step
        step *= 2
    return most


def _common_end(source: bytes, target: bytes) -> int:
    """Return how many bytes are the same at the end of both."""
    most = min(len(source), len(target))
    same, step = 0, 64
    while same < most:
        step = min(step, most - same)
        one = source[len(source) - same - step : len(source) - same]
        other = target[len(target) - same - step : len(target) - same]
        if one != other:
            differing = int.from_bytes(one, "big") ^ int.from_bytes(other, "big")
            return same + ((differing & -differing).bit_length() - 1) // 8
        same += step
        step *= 2
    return most


def _whole_characters(target: bytes, at: int, end: int, offset: int) -> tuple[int, int, int]:
    """Shorten a copy so that what is inserted around it is whole UTF-8 characters, if the target is made of such."""
    for _ in range(3):
        if at < end and target[at] & 0xC0 == 0x80:
            at += 1
            offset += 1
        if at < end < len(target) and target[end] & 0xC0 == 0x80:
            end -= 1
    return at, end, offset


def _number(value: int) -> bytes:
    digits = bytearray((_DIGITS[value & 63],))
    while value := value >> 6:
        digits.append(_DIGITS[value & 63])
    digits.reverse()
    return bytes(digits)


def _value(digits: bytes) -> int:
    value = 0
    for digit in digits:
        value = value << 6 | _VALUES[digit]
    return value


def _checksum(payload: bytes) -> int:
    """Return the sum of the big-endian words of 32 bits, modulo 2**32; the last one is filled up with zeros."""
    # Two words share a lane of 64 bits, where their sums have room; then halves of the lanes are added until one is
    # left. So a few long additions do what thousands of short ones would.
    lanes = -(-len(payload) // 8)
    words = int.from_bytes(payload + bytes(8 * lanes - len(payload)), "big")
    low = int.from_bytes(b"\0\0\0\0\xff\xff\xff\xff" * lanes, "big")
    sums = (words & low) + ((words >> 32) & low)
    while lanes > 1:
        half = lanes // 2
        sums = (sums >> (64 * half)) + (sums & ((1 << (64 * half)) - 1))
        lanes -= half
    return sums & 0xFFFFFFFF
