"""What one publication of the load test says: fixed-width ASCII in a JSON string, padded to the size asked for.

    "ab12 003 00012 P 0000000001 0000001234567890123 xxxxxxxxxx"
     run  pub channel kind sequence intended send time, ns  padding

Laws: every payload of a run has the same length, and every field its fixed place, so that one comparison of bytes
settles all but the sequence and the time. ``kind`` is ``P`` for a publication and ``M`` for a final marker, which
carries on the sequence. Sequences start at 1. The quotes make it valid JSON: a server that wraps JSON need not
escape it. Times are of the monotonic clock of the publisher's host.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PUBLICATION = "P"
MARKER = "M"
MAX_PUBLISHERS = 1000
MAX_CHANNELS = 100_000
MAX_SIZE = 1 << 20

#: The quote, run, publisher, channel and kind: what tells one stream from another.
PREFIX_LENGTH = 18
SEQUENCE = slice(18, 28)
STAMP = slice(29, 48)
_FIELDS = 48
MIN_SIZE = _FIELDS + 1


def prefix(run: str, publisher: int, channel: int, kind: str) -> bytes:
    """The first ``PREFIX_LENGTH`` bytes of every payload of one stream and kind."""
    text = f'"{run} {publisher:03d} {channel:05d} {kind} '
    assert len(text) == PREFIX_LENGTH, text
    return text.encode("ascii")


def padding(size: int) -> bytes:
    """What follows the last field, to make a payload ``size`` bytes long.

    Raises:
        ValueError: ``size`` is below ``MIN_SIZE`` or above ``MAX_SIZE``.
    """
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise ValueError(f"SIZE={size}: a payload takes {MIN_SIZE} to {MAX_SIZE} bytes")
    room = size - MIN_SIZE
    return (b" " + b"x" * (room - 1) if room else b"") + b'"'


@dataclass(frozen=True, slots=True)
class Stream:
    """What one publisher says on one channel in one run: sequences 1, 2, 3, ... and a final marker."""

    run: str
    publisher: int
    channel: int
    size: int
    _publication: bytes = field(init=False, repr=False, compare=False)
    _marker: bytes = field(init=False, repr=False, compare=False)
    _padding: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "_publication", prefix(self.run, self.publisher, self.channel, PUBLICATION))
        put(self, "_marker", prefix(self.run, self.publisher, self.channel, MARKER))
        put(self, "_padding", padding(self.size))

    def payload(self, sequence: int, stamp: int, marker: bool = False) -> bytes:
        """The payload number ``sequence``, intended for sending at ``stamp`` ns."""
        head = self._marker if marker else self._publication
        return b"%b%010d %019d%b" % (head, sequence, stamp, self._padding)

    def prefixes(self) -> tuple[bytes, bytes]:
        """The prefix of its publications and that of its marker."""
        return self._publication, self._marker


def streams(run: str, publishers: int, channels: int, size: int) -> list[Stream]:
    """Every stream of a run: each channel has a publisher, and each publisher a channel.

    With more channels than publishers, publisher p has the channels p, p + publishers, ...; with more publishers
    than channels, several share one.
    """
    return [Stream(run, index % publishers, index % channels, size) for index in range(max(publishers, channels))]
