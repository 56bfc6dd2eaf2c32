"""Who listens to one channel in this process: lanes, each of subscribers that get the same bytes, and the position.

Laws: a publication is encoded once for each encoding that somebody listens in; everyone who listens with a position has
been handed every publication up to `top`, or has been told that it was not so. Where a channel has positions, nobody
listens before `top` is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from server.core.history import Position
from server.core.outbox import Outbox
from server.core.publication import Publication
from server.dialects.centrifuge import json_codec, protobuf_codec
from server.dialects.centrifuge.codec import Codec
from server.node.encodings import RAW, DeltaEncoder, Encoder, PushEncoder
from server.node.namespaces import ChannelOptions

CODECS: Final[dict[str, Codec]] = {codec.name: codec for codec in (json_codec, protobuf_codec)}

# Nobody has said yet where the stream stands.
UNKNOWN: Final = Position(-1, "")


class Reading(NamedTuple):
    """How a subscriber listens: subscribers that are equal in this get the same bytes.

    `codec` is "" for the raw dialect, which has neither positions nor news of who comes and goes.
    """

    codec: str = ""
    delta: bool = False
    joins: bool = False

    @property
    def is_raw(self) -> bool:
        return not self.codec


@dataclass(slots=True, eq=False)
class Lane:
    """The subscribers of one reading, `listeners` of them; itself the key of their channel in the hub."""

    channel: str
    reading: Reading
    listeners: int = 0


@dataclass(slots=True, eq=False)
class Held:
    """What is published while somebody subscribes, until it is known what came before."""

    publications: list[Publication] = field(default_factory=list)
    has_gap: bool = False


class Audience:
    """The listeners of a channel."""

    __slots__ = ("channel", "encoders", "holds", "is_heard", "lanes", "options", "suspect", "top")

    def __init__(self, channel: str, options: ChannelOptions) -> None:
        self.channel = channel
        self.options = options
        # The broker has said that it tells of all from now on; what comes before is left over from an earlier time.
        self.is_heard = False
        self.top = UNKNOWN
        self.lanes: dict[Reading, Lane] = {}
        # Lanes that differ in their news of comings and goings alone get the same publications.
        self.encoders: dict[tuple[str, bool], Encoder] = {}
        self.holds: dict[Outbox, Held] = {}  # of those who are about to subscribe
        self.suspect: Position | None = None  # where the broker was when it was found to be ahead of `top`

    @property
    def is_empty(self) -> bool:
        return not (self.lanes or self.holds)

    @property
    def has_places(self) -> bool:
        """Tell if somebody listens with a position."""
        return self.options.is_positioned and not all(reading.is_raw for reading in self.lanes)

    def is_behind(self, top: Position) -> bool:
        """Tell if less has been heard here than the stream had when it stood at `top`."""
        return top.epoch != self.top.epoch or top.offset > self.top.offset

    def enter(self, reading: Reading) -> Lane:
        """Count a listener in; from its next publication on, everyone of that encoding starts afresh."""
        lane = self.lanes.get(reading)
        if lane is None:
            lane = self.lanes[reading] = Lane(self.channel, reading)
        lane.listeners += 1
        encoding = (reading.codec, reading.delta)
        encoder = self.encoders.get(encoding)
        if encoder is None:
            self.encoders[encoding] = _encoder(reading)
        else:
            encoder.restart()
        return lane

    def leave(self, reading: Reading) -> None:
        """Count a listener out."""
        lane = self.lanes[reading]
        lane.listeners -= 1
        if lane.listeners:
            return
        del self.lanes[reading]
        encoding = (reading.codec, reading.delta)
        if not any((other.codec, other.delta) == encoding for other in self.lanes):
            del self.encoders[encoding]

    def frames(self, publication: Publication) -> list[tuple[Lane, bytes]]:
        """Encode a publication for each lane, once for each encoding."""
        channel, lanes = self.channel, self.lanes
        if len(lanes) == 1:
            # Nearly everywhere all listen alike.
            [lane], [encoder] = lanes.values(), self.encoders.values()
            return [(lane, encoder.encode(channel, publication))]
        wires = {key: encoder.encode(channel, publication) for key, encoder in self.encoders.items()}
        return [(lane, wires[reading.codec, reading.delta]) for reading, lane in lanes.items()]


def _encoder(reading: Reading) -> Encoder:
    if reading.is_raw:
        return RAW
    codec = CODECS[reading.codec]
    return DeltaEncoder(codec) if reading.delta else PushEncoder(codec)
