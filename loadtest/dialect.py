"""What a server speaks above WebSocket, as the load test needs it; and the raw dialect, in which that is nothing.

A dialect says where to connect, what to send until a client hears its channels, how a publication goes out and comes
in. Laws: pure and synchronous; whatever the peer says wrong is a ``ProtocolFault`` of one line. It does not know
sockets, the ledger's books or the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from urllib.parse import quote, urlsplit, urlunsplit

from websockets.exceptions import InvalidURI
from websockets.frames import Frame, Opcode
from websockets.uri import WebSocketURI, parse_uri

from loadtest.layout import Layout, PlainFrames
from loadtest.protocol import CLOSE, TEXT, Handshake, IncomingFrame, ProtocolFault, close_code, header, read_frame

CHANNEL = "{channel}"


class Payload(NamedTuple):
    """A publication: its payload, and the channel it is said to be of; None where a connection has only one."""

    payload: bytes
    channel: str | None


class Reply(NamedTuple):
    """The answer to a command: None, or what went wrong, with its code."""

    id: int
    error: str | None


class Unsubscribed(NamedTuple):
    """The server has ended one subscription, and says so."""

    channel: str
    code: int


class Ping(NamedTuple):
    """The server asks whether we are there; what to answer, as a frame."""

    answer: bytes


Said = Payload | Reply | Unsubscribed | Ping


@dataclass(frozen=True, slots=True)
class Opening:
    """What a client says right after the handshake, and the answers without which it hears nothing: what, by id."""

    frame: bytes = b""
    awaited: dict[int, str] = field(default_factory=dict)


class Dialect(Protocol):
    """What a server's protocol above WebSocket looks like to the load test."""

    name: str
    #: Whether a publication is answered. If it is not, its publisher hears the channel, and the echo is the answer.
    answers: bool

    def split(self, channels: Sequence[int]) -> list[tuple[int, ...]]:
        """The channels of each connection of a client that listens to ``channels``."""
        ...

    def target(self, channels: Sequence[str]) -> WebSocketURI:
        """Where to connect to hear ``channels``."""
        ...

    def layout(self, size: int, name: Callable[[int], str]) -> Layout:
        """How publications of ``size`` bytes arrive; ``name`` names the channels."""
        ...

    def opening(self, channels: Sequence[str]) -> Opening:
        """What to say right after the handshake, to hear ``channels``."""
        ...

    def publication(self, channel: str, payload: bytes, number: int) -> bytes:
        """The bytes that publish ``payload``, the publisher's ``number``-th; as many for payloads of one length."""
        ...

    def number_of(self, reply: int) -> int:
        """The number of the publication that is answered by a reply with this id; not positive: it is none."""
        ...

    def read(self, message: bytes) -> Iterable[Said]:
        """What one message says; what does not concern the load test is left out.

        Raises:
            ProtocolFault: it is nothing that the dialect knows.
        """
        ...


class RawDialect:
    """One channel per connection, named in the path; a message is a payload, byte for byte."""

    name = "raw"
    answers = False

    def __init__(self, url: str) -> None:
        self._url = url

    def split(self, channels: Sequence[int]) -> list[tuple[int, ...]]:
        return [(channel,) for channel in channels]

    def target(self, channels: Sequence[str]) -> WebSocketURI:
        (channel,) = channels
        return parse_uri(self._url.replace(CHANNEL, quote(channel, safe="")))

    def layout(self, size: int, name: Callable[[int], str]) -> Layout:
        return PlainFrames(header(TEXT, size), size)

    def opening(self, channels: Sequence[str]) -> Opening:
        return Opening()

    def publication(self, channel: str, payload: bytes, number: int) -> bytes:
        return Frame(Opcode.TEXT, payload).serialize(mask=True)

    def number_of(self, reply: int) -> int:
        raise AssertionError("the raw dialect has no replies")

    def read(self, message: bytes) -> Iterable[Said]:
        return (Payload(message, None),)


class Introduction:
    """A client's way from the opening handshake until it hears its channels, without I/O.

    Whoever drives it sends what is ``outgoing`` and clears it, before the first ``receive`` and after each.
    """

    __slots__ = ("_awaited", "_dialect", "_handshake", "_opening", "_received", "outgoing")

    def __init__(
        self,
        dialect: Dialect,
        channels: Sequence[str],
        headers: Sequence[tuple[str, str]] = (),
        listens: bool = True,
    ) -> None:
        self._dialect = dialect
        self._handshake: Handshake | None = Handshake(dialect.target(channels), headers)
        self._opening = dialect.opening(channels if listens else ())
        self._awaited = self._opening.awaited
        self._received = b""
        self.outgoing = self._handshake.request

    @property
    def upgraded(self) -> bool:
        """Whether the WebSocket handshake is done."""
        return self._handshake is None

    def receive(self, data: bytes) -> bytes | None:
        """Take what the server sent; what follows the last answer that was awaited, or None while one is missing.

        Raises:
            ProtocolFault: the server refuses, or does not speak this.
        """
        if self._handshake is not None:
            rest = self._handshake.receive(data)
            if rest is None:
                return None
            self._handshake = None
            self.outgoing, data = self._opening.frame, rest
        if not self._awaited:
            return data
        self._received += data
        return self._rest()

    def _rest(self) -> bytes | None:
        missing = dict(self._awaited)
        at, rest = 0, None
        while (frame := read_frame(self._received, at)) is not None:
            if not self._is_answer(frame, missing) and rest is None:
                rest = at  # whatever else comes in between is for the client, in its order
            at += frame.length
        return None if missing else self._received[at if rest is None else rest :]

    def _is_answer(self, frame: IncomingFrame, missing: dict[int, str]) -> bool:
        """Whether a frame has nothing in it but answers; they are no longer ``missing``."""
        if frame.opcode == CLOSE:
            reason = frame.payload[2:].decode("utf-8", "replace")
            raise ProtocolFault(f"closed with {close_code(frame.payload)} {reason}".rstrip())
        if frame.opcode != TEXT or not frame.fin:
            return False
        said = list(self._dialect.read(frame.payload))
        for reply in said:
            if isinstance(reply, Reply):
                what = missing.pop(reply.id, None) or self._awaited.get(reply.id, "a command")
                if reply.error is not None:
                    raise ProtocolFault(f"{what}: {reply.error}")
        return all(isinstance(each, Reply) for each in said)


def target_url(text: str, path: str = f"/ws/{CHANNEL}") -> str:
    """The URL template of a run: ``{channel}`` stands where the channel's name goes.

    ``ws://host:port`` alone gets the dialect's ``path``; http is read as ws.

    Raises:
        ProtocolFault: it is no WebSocket URL, or one with TLS.
    """
    url = text.strip()
    for plain, upgraded in (("http://", "ws://"), ("https://", "wss://")):
        if url.startswith(plain):
            url = upgraded + url[len(plain) :]
    try:
        parts = urlsplit(url)
        if parts.path in ("", "/"):
            url = urlunsplit(parts._replace(path=path))
        secure = parse_uri(url.replace(CHANNEL, "x")).secure
    except (InvalidURI, ValueError) as error:
        raise ProtocolFault(f"URL={text}: {error}") from None
    if secure:
        raise ProtocolFault(f"URL={text}: the load test speaks no TLS; aim at the plain port behind it")
    return url


def origin(url: str) -> str:
    """A URL without its path and query: where a server is, whatever it speaks."""
    return urlunsplit(urlsplit(url)._replace(path="", query="", fragment=""))
