"""What supervisor and workers say to each other over a Unix socket: messages of a kind, some fields and some bytes.

Laws: messages arrive whole and in order; what one turn of the event loop says goes out in one write; what waits to go
out is bounded by whoever sends (`backlog`). The peer is our own process: a message that makes no sense ends the link.
The fields are JSON; a payload travels beside them, as it is.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from enum import IntEnum
from struct import Struct
from typing import Any, Final, cast

import orjson

from server.core.publication import ClientInfo, Publication

_HEAD: Final = Struct("!IBI")  # bytes after the head, kind, bytes of the fields
# Larger than any message may be, payloads and presence of a large channel included.
MAX_MESSAGE: Final = 256 * 1024 * 1024

Fields = list[Any]


class Kind(IntEnum):
    """What a message is. What is asked has a number as its first field, which the `ANSWER` repeats."""

    HELLO = 1
    BEAT = 2
    ASK = 3
    ANSWER = 4
    LAST_WORDS = 5
    PUBLISH = 10
    SUBSCRIBE = 11
    UNSUBSCRIBE = 12
    HISTORY = 13
    REMOVE_HISTORY = 14
    ADD_PRESENCE = 15
    REMOVE_PRESENCE = 16
    PRESENCE = 17
    PRESENCE_STATS = 18
    JOIN = 19
    LEAVE = 20
    BUSY = 21
    PROBE = 22
    RELAY = 23  # a publication of which nothing is kept; what follows its number and channel is the HEAR of it
    NEIGHBOUR = 24  # what one worker's clients heard without Redis, for those of the others
    HEAR = 30
    LOST = 31
    DONE = 32  # the answer to all RELAYs with these numbers


_KINDS: Final = {int(kind): kind for kind in Kind}


def encode(kind: Kind, fields: Fields, body: bytes = b"") -> bytes:
    """Encode one message."""
    head = orjson.dumps(fields)
    return _HEAD.pack(_HEAD.size - 4 + len(head) + len(body), kind, len(head)) + head + body


class Link(asyncio.Protocol):
    """One end; `receive` gets each message, `ended` is called once, when the other end is gone."""

    def __init__(self, receive: Callable[[Link, Kind, Fields, bytes], object], ended: Callable[[Link], object]) -> None:
        self._receive = receive
        self._ended = ended
        self._transport: asyncio.Transport | None = None
        self._incoming = bytearray()
        self._outgoing: list[bytes] = []
        self._done: list[int] = []
        self._waiting = 0
        self._held = 0  # by the transport, when last it was looked at
        self.on_drained: Callable[[], object] | None = None

    @property
    def backlog(self) -> int:
        """How many bytes wait to go out, or waited when something was written last."""
        return self._waiting + self._held

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def open(self, sock: socket.socket) -> None:
        """Speak over a connected Unix socket. Raises OSError."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=sock)

    def say(self, kind: Kind, fields: Fields, body: bytes = b"") -> None:
        """Send a message with the next turn of the loop. Nothing happens when the link has ended."""
        self.pass_on(encode(kind, fields, body))

    def pass_on(self, message: bytes) -> None:
        """Send what `encode` made."""
        if self._transport is None:
            return
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outgoing.append(message)
        self._waiting += len(message)

    def settle(self, number: int) -> None:
        """Say in this turn of the loop, after what else is said in it, that the RELAY `number` is done."""
        if self._transport is None:
            return
        if not self._outgoing and not self._done:
            asyncio.get_running_loop().call_soon(self._flush)
        self._done.append(number)

    def hold(self) -> None:
        """Take no more from the other end until `release`. Idempotent."""
        if self._transport is not None and self.is_open:
            self._transport.pause_reading()

    def release(self) -> None:
        """Take what comes again. Idempotent."""
        if self._transport is not None and self.is_open:
            self._transport.resume_reading()

    def close(self) -> None:
        """End the link, after what has been said. Idempotent."""
        if self._transport is not None:
            self._flush()
            self._transport.close()

    def _flush(self) -> None:
        outgoing, self._outgoing, self._waiting = self._outgoing, [], 0
        if self._done:
            outgoing.append(encode(Kind.DONE, self._done))
            self._done = []
        transport = self._transport
        if transport is not None and outgoing and not transport.is_closing():
            transport.write(outgoing[0] if len(outgoing) == 1 else b"".join(outgoing))
            self._held = transport.get_write_buffer_size()

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        incoming = self._incoming
        if incoming:
            incoming += data
            del incoming[: self._take(incoming)]
        else:
            # Nearly always messages come whole, and need not be copied together.
            taken = self._take(data)
            if taken < len(data):
                incoming += memoryview(data)[taken:]

    def _take(self, data: bytes | bytearray) -> int:
        """Hand on the messages that are whole; return how many bytes they were."""
        start, size, receive = 0, len(data), self._receive
        while size - start >= _HEAD.size:
            length, kind, head = _HEAD.unpack_from(data, start)
            end = start + 4 + length
            if length > MAX_MESSAGE:
                self.close()
                return size
            if size < end:
                break
            start += _HEAD.size
            middle = start + head
            receive(self, _KINDS[kind], orjson.loads(data[start:middle]), bytes(data[middle:end]))
            start = end
        return start

    def pause_writing(self) -> None:
        """The other end is slow; whoever sends looks at `backlog`."""

    def resume_writing(self) -> None:
        self._held = 0
        if self.on_drained is not None:
            self.on_drained()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._outgoing.clear()
        self._done.clear()
        self._waiting = self._held = 0
        self._ended(self)


# Values on their way


def pack_info(info: ClientInfo | None) -> Fields | None:
    """Turn a client's info into JSON."""
    return [info.user, info.client, info.conn_info.decode(), info.chan_info.decode()] if info is not None else None


def unpack_info(fields: Fields | None) -> ClientInfo | None:
    """Undo `pack_info`."""
    if fields is None:
        return None
    user, client, conn_info, chan_info = fields
    return ClientInfo(user, client, conn_info.encode(), chan_info.encode())


def pack_publication(publication: Publication) -> Fields:
    """Turn all of a publication but its payload into JSON."""
    flags = publication.is_binary | publication.is_json << 1
    tags = dict(publication.tags) if publication.tags else None
    return [publication.offset, flags, pack_info(publication.info), tags, publication.published_at]


def unpack_publication(fields: Fields, payload: bytes) -> Publication:
    """Undo `pack_publication`."""
    offset, flags, info, tags, published_at = fields
    return Publication(payload, bool(flags & 1), offset, unpack_info(info), tags, published_at, bool(flags & 2))


def pack_publications(publications: tuple[Publication, ...]) -> tuple[Fields, bytes]:
    """Turn publications into JSON, with the sizes of their payloads, and the payloads joined."""
    packed = [[len(publication.payload), pack_publication(publication)] for publication in publications]
    return packed, b"".join(publication.payload for publication in publications)


def unpack_publications(packed: Fields, payloads: bytes) -> tuple[Publication, ...]:
    """Undo `pack_publications`."""
    start, publications = 0, []
    for size, fields in packed:
        publications.append(unpack_publication(fields, payloads[start : start + size]))
        start += size
    return tuple(publications)
