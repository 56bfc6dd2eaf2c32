"""The opening handshake of one connection: from its first byte to the answer. RFC 6455, section 4.2.

Laws: whose connection it is, a trusted proxy may say first; a request is judged once; nobody speaks the protocol before
it is agreed on; what a stranger may make us hold is MAX_REQUEST_BYTES. Every answer is left in the library's protocol,
which knows how to write it; whoever asks writes.
Knows requests and the gate, but neither transports nor sessions.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple

from websockets.exceptions import InvalidMessage
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from server.edge.gate import Admission, Gate, respond
from server.edge.proxies import ProxyHeaderError, read_proxy_header

if TYPE_CHECKING:
    from websockets.protocol import Event
    from websockets.server import ServerProtocol

    from server.core.counters import Counters
    from server.edge.proxies import Proxies

# What an opening handshake may weigh: the library's own limits, by the line, would let a stranger fill a mebibyte.
MAX_REQUEST_BYTES: Final = 32 * 1024


class Named(NamedTuple):
    """A trusted proxy has said whose connection it is; `rest` is what it has passed on of the client's own."""

    address: str
    rest: bytes


class Denial(NamedTuple):
    """There will be no WebSocket: why, for the record.

    Only when it `is_answered`, the client is told; `unsaid` goes out before what the library has to say.
    """

    why: str
    is_answered: bool = True
    unsaid: bytes = b""


_EARLY: Final = Denial("frames before the handshake was answered", is_answered=False)
_ANSWERED: Final = Denial("answered with HTTP")
_NO_HANDSHAKE: Final = Denial("not a handshake")
_NO_REQUEST: Final = Denial("not a request")


class Handshake:
    """What has come of a request, and what becomes of it; `address` is the client's, as far as is known."""

    __slots__ = ("_counters", "_foreword", "_gate", "_is_over", "_protocol", "_proxies", "_size", "address")

    def __init__(self, protocol: ServerProtocol, gate: Gate, proxies: Proxies, counters: Counters, peer: str) -> None:
        self.address = peer
        self._protocol = protocol
        self._gate = gate
        self._proxies = proxies
        self._counters = counters
        # What a proxy has said so far, until the client's own first byte; None when that has come.
        self._foreword: bytes | None = b"" if proxies.trust(peer) else None
        self._size = 0
        self._is_over = False

    def take(self, data: bytes, now: float) -> Named | Admission | Denial | None:
        """Take what was read; None while more must come, and after the end."""
        return self._take_own(data, now) if self._foreword is None else self._take_foreword(self._foreword + data, now)

    def _take_foreword(self, data: bytes, now: float) -> Named | Admission | Denial | None:
        """Take what a proxy says of its client, if it says anything."""
        try:
            header = read_proxy_header(data)
        except ProxyHeaderError as error:
            self._counters.rejected["bad_request"] += 1
            return Denial(str(error), is_answered=False)
        if header is None:
            self._foreword = data
            return None
        self._foreword = None
        rest = data[header.size :]
        if header.address is None:
            return self._take_own(rest, now)
        self.address = header.address
        return Named(header.address, rest)

    def _take_own(self, data: bytes, now: float) -> Admission | Denial | None:
        """Take what is the client's own."""
        self._protocol.receive_data(data)
        events = self._protocol.events_received()
        self._size += len(data)
        if self._is_over:
            return None
        is_request = bool(events) and self._size <= MAX_REQUEST_BYTES
        outcome = self._take_request(events, now) if is_request else self._take_no_request()
        self._is_over = outcome is not None
        return outcome

    def _take_request(self, events: list[Event], now: float) -> Admission | Denial:
        request = events[0]
        if not isinstance(request, Request) or len(events) > 1 or self._protocol.close_expected():
            # What was read already can't be unread.
            return _EARLY
        self.address, scheme = self._proxies.client_of(self.address, request.headers)
        verdict = self._gate.judge(request, self.address, now, scheme)
        if isinstance(verdict, Response):
            self._protocol.send_response(verdict)
            return _ANSWERED
        if verdict.subprotocol is not None:
            self._protocol.available_subprotocols = [Subprotocol(verdict.subprotocol)]
        response = self._protocol.accept(request)
        self._protocol.send_response(response)
        if response.status_code == 101:
            return verdict
        self._counters.rejected["bad_request"] += 1
        return _NO_HANDSHAKE

    def _take_no_request(self) -> Denial | None:
        """Refuse what is not HTTP, or more of it than is taken; wait for the rest of what may become a request."""
        error = self._protocol.handshake_exc
        if error is None and self._size <= MAX_REQUEST_BYTES:
            return None
        self._counters.rejected["bad_request"] += 1
        if error is None:
            too_long = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self._protocol.send_response(respond(too_long, b"The request is too long.\n"))
        elif isinstance(error, InvalidMessage):
            # The library hangs up without a word; of its other errors it has told the client.
            unsaid = respond(HTTPStatus.BAD_REQUEST, b"This is not a request.\n").serialize()
            return _NO_REQUEST._replace(unsaid=unsaid)
        return _NO_REQUEST
