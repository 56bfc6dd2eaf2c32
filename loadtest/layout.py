"""How publications lie in what a server sends, so that they can be checked by the batch, without an object for each.

A layout makes a scanner for the streams of one audience: it checks frames in place, as far as nothing is wrong with
them. Laws: pure; whole frames or nothing; a frame that is unusual in any way, be it allowed or not, ends the scan,
and whoever scans reads it with the dialect instead. It keeps no books: which sequences are due it is told.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import orjson

from loadtest.payload import PREFIX_LENGTH, SEQUENCE, STAMP, Stream, padding

#: Reads from an offset on; moves the sequences that are due, by stream; returns bytes used and send times.
Scan = Callable[[list[int], bytes, int], tuple[int, list[int]]]

_SEQUENCE_LENGTH = SEQUENCE.stop - SEQUENCE.start
_STAMP_LENGTH = STAMP.stop - STAMP.start
_TEXT_FRAME = 0x81  # whole, and not the part of a message
_NEWLINE = 10


class Layout(Protocol):
    """See the module."""

    @property
    def size(self) -> int:
        """Bytes of a payload."""
        ...

    def label(self, channel: int) -> str | None:
        """What publications on the channel say of where they belong; None: nothing, a connection has only one."""
        ...

    def scanner(self, streams: Sequence[Stream]) -> Scan:
        """What scans for publications of these streams, numbered in their order."""
        ...


@dataclass(frozen=True, slots=True)
class PlainFrames:
    """Each publication is a frame of its own, and all are of one length: a header, and the payload."""

    before: bytes
    size: int

    def label(self, channel: int) -> str | None:
        return None

    def scanner(self, streams: Sequence[Stream]) -> Scan:
        pad = padding(self.size)
        heads = {self.before + prefix: index for index, stream in enumerate(streams) for prefix in stream.prefixes()}
        record = struct.Struct(f"{len(self.before) + PREFIX_LENGTH}s{_SEQUENCE_LENGTH}sx{_STAMP_LENGTH}s{len(pad)}s")
        stride = record.size

        def scan(nexts: list[int], data: bytes, start: int) -> tuple[int, list[int]]:
            stamps: list[int] = []
            whole = len(data) - (len(data) - start) % stride
            for head, sequence, stamp, rest in record.iter_unpack(memoryview(data)[start:whole]):
                stream = heads.get(head)
                if stream is None or rest != pad or not (sequence.isdigit() and stamp.isdigit()):
                    break
                number = int(sequence)
                if number != nexts[stream]:
                    break
                nexts[stream] = number + 1
                stamps.append(int(stamp))
            return len(stamps) * stride, stamps

        return scan


@dataclass(frozen=True, slots=True)
class PushFrames:
    """A frame holds one push or several, a line each: JSON with the channel, the payload, and what the server adds."""

    size: int
    name: Callable[[int], str]

    def label(self, channel: int) -> str | None:
        return self.name(channel)

    def scanner(self, streams: Sequence[Stream]) -> Scan:
        # After the payload: offset, info, tags and the like, numbers and flat objects, which prove nothing here.
        line = re.compile(
            rb'(\{"push":\{"channel":"[^"\\]*","pub":\{"data":.{%d})([0-9]{%d}) ([0-9]{%d})%b'
            rb'(?:,"[a-z_]+":(?:[0-9]+|\{[^{}]*\}))*\}\}\}'
            % (PREFIX_LENGTH, _SEQUENCE_LENGTH, _STAMP_LENGTH, re.escape(padding(self.size)))
        ).match
        heads = {
            b'{"push":{"channel":%b,"pub":{"data":%b' % (orjson.dumps(self.name(stream.channel)), prefix): index
            for index, stream in enumerate(streams)
            for prefix in stream.prefixes()
        }

        def scan_frame(nexts: list[int], data: bytes, at: int, end: int, stamps: list[int]) -> bool:
            while (found := line(data, at, end)) is not None:
                head, sequence, stamp = found.groups()
                stream, number = heads.get(head), int(sequence)
                if stream is None or number != nexts[stream]:
                    return False
                nexts[stream] = number + 1
                stamps.append(int(stamp))
                at = found.end()
                if at == end:
                    return True
                if data[at] != _NEWLINE:
                    return False
                at += 1
            return False

        def scan(nexts: list[int], data: bytes, start: int) -> tuple[int, list[int]]:
            stamps: list[int] = []
            at = start
            while (bounds := text_frame(data, at)) is not None:
                before, count = nexts[:], len(stamps)
                if not scan_frame(nexts, data, *bounds, stamps):
                    nexts[:] = before
                    del stamps[count:]
                    break
                at = bounds[1]
            return at - start, stamps

        return scan


def text_frame(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the payload of a whole text message in one short, unmasked frame begins and ends; None: it is no such."""
    if len(data) < at + 2 or data[at] != _TEXT_FRAME:
        return None
    length, start = data[at + 1], at + 2
    if length == 126:
        length, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
    elif length > 126:
        return None  # more than 64 KiB, or masked: the careful reader's business
    end = start + length
    return (start, end) if end <= len(data) else None
