"""A publication as wire bytes, made once for all who read alike.

Law: what comes out is one whole frame, right for every subscriber of the channel in that encoding.
"""

from __future__ import annotations

from typing import Final, Protocol

from server.core.frames import BINARY, TEXT, encode_frame
from server.core.publication import Publication
from server.dialects.centrifuge import fossil
from server.dialects.centrifuge.codec import Codec
from server.dialects.centrifuge.data import raw_payload


class Encoder(Protocol):
    """Encodes the publications of one channel, in their order."""

    def encode(self, channel: str, publication: Publication) -> bytes:
        """Return the frame."""

    def restart(self) -> None:
        """Take no subscriber to have got what came before: someone new listens."""


class RawEncoder:
    """The payload and nothing else."""

    __slots__ = ()

    def encode(self, channel: str, publication: Publication) -> bytes:
        opcode = BINARY if publication.is_binary else TEXT
        return encode_frame(opcode, raw_payload(publication) if publication.is_json else publication.payload)

    def restart(self) -> None:
        """Each publication stands for itself."""


class PushEncoder:
    """The push of a codec."""

    __slots__ = ("_codec",)

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def encode(self, channel: str, publication: Publication) -> bytes:
        codec = self._codec
        return encode_frame(codec.opcode, codec.join((codec.encode_publication(channel, publication),)))

    def restart(self) -> None:
        """Each publication stands for itself."""


class DeltaEncoder:
    """The push of a codec, with what has changed since the last one where that is shorter."""

    __slots__ = ("_codec", "_last")

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._last: bytes | None = None

    def encode(self, channel: str, publication: Publication) -> bytes:
        codec = self._codec
        data = codec.data(publication)
        delta = None
        if self._last is not None:
            delta = fossil.create_delta(self._last, data)
            if len(delta) >= len(data):
                delta = None
        self._last = data
        message = codec.encode_delta_publication(channel, publication, delta)
        return encode_frame(codec.opcode, codec.join((message,)))

    def restart(self) -> None:
        self._last = None


RAW: Final = RawEncoder()
