"""One client's TCP connection: bytes in, frames to the session, flow control, and every way to end it.

Built on the sans-I/O ``ServerProtocol`` of ``websockets``, which knows the protocol, and on a transport of uvloop; not
on the library's own connection, which spends a task, two futures and three queues per client, and cannot get rid of one
that does not read (it waits for the buffer to drain before any deadline starts). Laws:

- frames are handled as they are read: no task is woken, none exists.
- the transport's write limit is 0: the moment the kernel takes less than it is given, the client lags and its outbox
  takes over. So what we hold for a client beside its outbox is the rest of one write.
- automatic answers are bounded: to a client that does not read, only the newest pong is owed (RFC 6455, section 5.5.3).
- no data frame follows a close frame: `_part` comes before any close frame is written.
- `close` and `abort` are idempotent and safe in any state; `connection_lost` comes once, and settles everything.
- one place turns errors into close codes: the library's parser for what the peer did to the protocol, `data_received`
  for what is our own fault (1011, and no details).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from http import HTTPStatus
from struct import pack
from typing import TYPE_CHECKING, Final, cast

from websockets.exceptions import InvalidMessage
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import Event, State
from websockets.server import ServerProtocol

from server.core.limits import TokenBucket
from server.edge.closing import ABNORMAL, Close
from server.edge.gate import Admission, respond

if TYPE_CHECKING:
    from server.core.outbox import Outbox
    from server.edge.listener import Listener
    from server.edge.session import Session

# What is taken from an outbox for one write.
DRAIN_BYTES: Final = 64 * 1024
# What the parser gets at a time. It takes apart all that it gets, also when the first frames of it are one too many; a
# read may bring 40,000 frames, and the others wait meanwhile.
PARSE_BYTES: Final = 4096
# More fragments than this in one message are an attack on our memory, not a message.
MAX_FRAGMENTS: Final = 4096
# What an opening handshake may weigh: the library's own limits, by the line, would let a stranger fill a mebibyte.
MAX_REQUEST_BYTES: Final = 32 * 1024

# How many frames, pings and fragments too, a client may send for each message that it may send; and how many at once,
# so that a message in as many fragments as may be gets through.
FRAMES_PER_MESSAGE: Final = 4
FRAMES_AT_ONCE: Final = MAX_FRAGMENTS + 64

_DATA: Final = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONT})
_CLOSE_FRAME: Final = 0x88  # the first byte of every close frame: FIN, opcode 8
_RESET: Final = pack("ii", 1, 0)  # struct linger: on, 0 seconds


class _Fragments:
    """A message that has not come whole yet."""

    __slots__ = ("count", "opcode", "payload")

    def __init__(self, opcode: int, first: bytes | bytearray) -> None:
        self.opcode = opcode
        self.payload = bytearray(first)
        self.count = 1


class Connection(asyncio.Protocol):
    """A client, from accept to the end of its socket."""

    __slots__ = (
        "_buffered",
        "_close_code",
        "_close_reason",
        "_finishing",
        "_fragments",
        "_frames",
        "_listener",
        "_messages",
        "_pong",
        "_progress_at",
        "_protocol",
        "_request_bytes",
        "_session",
        "accepted_at",
        "address",
        "holds_reading",
        "opened_at",
        "paused",
        "pinged_at",
        "place",
        "rtt",
        "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._protocol: ServerProtocol = listener.new_protocol()
        self._session: Session | None = None
        # The message rate; for frames there is more room, since a message may be many.
        self._messages: TokenBucket | None = None
        self._frames: TokenBucket | None = None
        self._fragments: _Fragments | None = None
        self._pong: bytes | None = None
        self.place = -1  # on the wheel; its own to set
        self._buffered = 0
        self._request_bytes = 0
        self._progress_at = 0.0
        self._close_code = 0
        self._close_reason = ""
        self._finishing: tuple[int, str] | None = None
        self.accepted_at = 0.0
        self.opened_at = 0.0
        self.address = ""
        self.paused = False
        self.holds_reading = False
        self.pinged_at = 0.0
        self.rtt = 0.0

    # What others may ask

    @property
    def is_open(self) -> bool:
        return self._session is not None and self._protocol.state is State.OPEN

    @property
    def session(self) -> Session | None:
        return self._session

    @property
    def outbox(self) -> Outbox | None:
        return self._session.outbox if self._session is not None else None

    @property
    def unsent_bytes(self) -> int:
        """What the transport holds, beside the outbox."""
        return self.transport.get_write_buffer_size()

    def stalled_for(self, now: float) -> float:
        """Return the seconds since the socket last took a byte; 0 when it has since the last call."""
        buffered = self.transport.get_write_buffer_size()
        if buffered < self._buffered:
            self._progress_at = now
        # It grows by our own close frame; that is no progress of the client's.
        self._buffered = buffered
        return now - self._progress_at

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        # TLS counts a full buffer from the limit on, not from above it: at 0 an empty one would be full for ever.
        self.transport.set_write_buffer_limits(high=1 if transport.get_extra_info("sslcontext") else 0, low=0)
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if peer else ""
        self._listener.joined(self)

    def data_received(self, data: bytes) -> None:
        try:
            for start in range(0, len(data), PARSE_BYTES):
                self._receive(data[start : start + PARSE_BYTES])
                if self.transport.is_closing():
                    break
        except Exception:
            self._listener.fault(self)
            if self.is_open:
                self.close(Close.INTERNAL, "")
            else:
                self.abort("internal error")

    def _receive(self, data: bytes) -> None:
        protocol = self._protocol
        protocol.receive_data(data)
        events = protocol.events_received()
        if self._session is None:
            self._request_bytes += len(data)
            if events and self._request_bytes <= MAX_REQUEST_BYTES:
                self._take_request(events)
            else:
                self._take_no_request()
        else:
            # A pong goes out before what the frames after its ping bring, a close frame after all that they bring.
            if protocol.state is State.OPEN:
                self._answer()
            if events:
                self._take_frames(cast(list[Frame], events))
            if protocol.state is not State.OPEN:
                # The library has answered a close frame, or failed the connection, and is about to say so.
                self._part()
            self._answer()
        if protocol.close_expected():
            self._listener.wheel.closing.add(self, self._listener.clock())

    def eof_received(self) -> None:
        # The transport closes itself after this; a half-closed WebSocket has nothing to wait for, and gets no more.
        self._part()
        self._protocol.receive_eof()

    def pause_writing(self) -> None:
        self.paused = True
        self._progress_at = self._listener.clock()
        self._buffered = self.transport.get_write_buffer_size()
        self._listener.wheel.paused[self] = None
        session = self._session
        if session is not None:
            session.pause()
            if session.outbox is not None:
                self._listener.backlog.laggards[session.outbox] = None

    def resume_writing(self) -> None:
        self.paused = False
        self._progress_at = self._listener.clock()
        pong, self._pong = self._pong, None
        if pong is not None and self._protocol.state is State.OPEN:
            self.transport.write(pong)
        self._drain()

    def connection_lost(self, exc: Exception | None) -> None:
        # Before anything else: a client that is gone is on no channel.
        self._part()
        self._protocol.receive_eof()
        self._listener.left(self, *self._cause())
        # Cycles would wait for the collector, which looks rarely here: the session and its outbox know us, and the
        # library's parser, like the errors that it keeps, holds its protocol. Without these, all is freed here and now.
        self._session = None
        protocol = self._protocol
        protocol.parser = None  # type: ignore[assignment]
        _forget_frames(protocol.parser_exc)
        _forget_frames(protocol.handshake_exc)

    # Flow

    def hold_reading(self) -> None:
        """Read no more from this client for now. Idempotent."""
        self.holds_reading = True
        self.transport.pause_reading()

    def release_reading(self) -> None:
        """Read on. Idempotent, in any state."""
        self.holds_reading = False
        self.transport.resume_reading()

    def _drain(self) -> None:
        """Write what waits in the outbox until the socket takes no more; then write through again."""
        session = self._session
        outbox = session.outbox if session is not None else None
        while outbox is not None and outbox.messages and not self.paused:
            self.transport.write(outbox.take(DRAIN_BYTES))
        if self.paused:
            return
        self._listener.wheel.paused.pop(self, None)
        if outbox is not None:
            self._listener.backlog.laggards.pop(outbox, None)
            outbox.catch_up()
        if self._finishing is not None:
            self.close(*self._finishing)
        elif session is not None:
            session.resume()

    # The opening handshake. RFC 6455, section 4.2

    def _take_request(self, events: list[Event]) -> None:
        request = events[0]
        if not isinstance(request, Request) or len(events) > 1 or self._protocol.close_expected():
            # Nobody may speak the protocol before it is agreed on; what was read already can't be unread.
            self.abort("frames before the handshake was answered")
            return
        listener = self._listener
        verdict = listener.gate.judge(request, self.address, listener.clock())
        if isinstance(verdict, Response):
            self._note(ABNORMAL, "answered with HTTP")
            self._protocol.send_response(verdict)
            self._answer()
            return
        response = self._protocol.accept(request)
        self._protocol.send_response(response)
        if response.status_code != 101:
            self._note(ABNORMAL, "not a handshake")
            listener.counters.rejected["bad_request"] += 1
            self._answer()
            return
        self._open(verdict)

    def _take_no_request(self) -> None:
        """Refuse what is not HTTP, or more of it than is taken; wait for the rest of what may become a request."""
        protocol = self._protocol
        if self._close_code:
            return
        if protocol.handshake_exc is None:
            if self._request_bytes <= MAX_REQUEST_BYTES:
                return
            too_long = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            protocol.send_response(respond(too_long, b"The request is too long.\n"))
        elif isinstance(protocol.handshake_exc, InvalidMessage):
            # The library hangs up without a word; of its other errors it has told the client.
            self.transport.write(respond(HTTPStatus.BAD_REQUEST, b"This is not a request.\n").serialize())
        self._note(ABNORMAL, "not a request")
        self._listener.counters.rejected["bad_request"] += 1
        self._answer()

    def _open(self, admission: Admission) -> None:
        listener = self._listener
        listener.gate.enter(self.address)
        self._answer()
        self._session = listener.new_session(self, admission)
        if self.paused:
            # A peer with no room for 200 bytes lags from the start.
            self.pause_writing()
        self.opened_at = listener.clock()
        listener.wheel.join(self)
        listener.opened(self, admission)

    # Frames

    def _take_frames(self, frames: list[Frame]) -> None:
        if not frames:
            return
        rate = self._listener.message_rate
        now = self._listener.clock() if rate else 0.0
        for frame in frames:
            if self._finishing is not None or self._close_code:
                return
            opcode = frame.opcode
            if rate and not self._may_speak(rate, opcode, is_last=frame.fin, now=now):
                self.fail(Close.POLICY, "too many messages")
                return
            if opcode is Opcode.PONG:
                self._take_pong()
            elif opcode is Opcode.TEXT or opcode is Opcode.BINARY:
                if frame.fin:
                    self._take_message(opcode, cast(bytes, frame.data))
                else:
                    self._fragments = _Fragments(opcode, cast(bytes, frame.data))
            elif opcode is Opcode.CONT:
                self._take_fragment(frame)

    def _may_speak(self, rate: float, opcode: Opcode, *, is_last: bool, now: float) -> bool:
        """Charge a message when it is whole, and each frame, pings and fragments too, a quarter of that.

        The answer to a ping of ours is free.
        """
        if opcode is Opcode.PONG and self.pinged_at:
            return True
        if self._frames is None:
            self._messages = TokenBucket(rate, now)
            frame_rate = rate * FRAMES_PER_MESSAGE
            self._frames = TokenBucket(frame_rate, now, max(frame_rate, FRAMES_AT_ONCE))
        assert self._messages is not None
        is_message = is_last and opcode in _DATA
        return self._frames.take(now) and (not is_message or self._messages.take(now))

    def _take_fragment(self, frame: Frame) -> None:
        fragments = self._fragments
        if fragments is None:
            raise AssertionError("the library lets no continuation through before a first fragment")
        fragments.payload += frame.data
        fragments.count += 1
        if fragments.count > MAX_FRAGMENTS:
            self._fragments = None
            self.fail(Close.TOO_BIG, "too many fragments")
        elif frame.fin:
            self._fragments = None
            self._take_message(fragments.opcode, fragments.payload)

    def _take_message(self, opcode: int, payload: bytes | bytearray) -> None:
        assert self._session is not None
        counters = self._listener.counters
        counters.received += 1
        counters.bytes_received += len(payload)
        self._session.message(opcode, payload)

    # Heartbeat

    def ping(self, frame: bytes, now: float) -> bool:
        """Send a ping, unless the client lags, is leaving or owes a pong; tell if one was sent."""
        if self.paused or self.pinged_at or not self.is_open:
            return False
        self.pinged_at = now
        self.transport.write(frame)
        return True

    def _take_pong(self) -> None:
        if not self.pinged_at:
            return  # unsolicited, which is allowed: RFC 6455, section 5.5.3
        self.rtt = self._listener.clock() - self.pinged_at
        self.pinged_at = 0.0
        self._listener.wheel.awaiting_pong.discard(self)
        self._listener.counters.ping_rtt.observe(self.rtt)

    # Endings

    def close(self, code: int, reason: str) -> None:
        """Say goodbye: part from the hub at once, send a close frame, and wait for its answer. Idempotent.

        `code` is one of `Close`, `reason` at most 123 bytes. RFC 6455, section 7.1.2.
        """
        self._say_goodbye(code, reason, self._protocol.send_close)

    def fail(self, code: int, reason: str) -> None:
        """Break off over what the client did: as `close`, but what it sends from now on is not even looked at.

        Idempotent. RFC 6455, section 7.1.7.
        """
        self._say_goodbye(code, reason, self._protocol.fail)

    def _say_goodbye(self, code: int, reason: str, say: Callable[[int, str], None]) -> None:
        if not self.is_open:
            return
        self._part()
        self._finishing = None
        self._note(code, reason)
        say(code, reason)
        self._listener.wheel.closing.add(self, self._listener.clock())
        self._answer()
        if self.holds_reading:
            self.release_reading()

    def finish(self, code: int, reason: str) -> None:
        """Say goodbye after what is queued: nothing new is taken, and the close frame comes last. Idempotent."""
        if not self.is_open or self._finishing is not None:
            return
        assert self._session is not None
        outbox = self._session.outbox
        if outbox is None or not outbox.messages:
            self.close(code, reason)
        else:
            self._finishing = (code, reason)
            self._session.finish()

    def evict(self, why: str) -> None:
        """Throw out a client that is too slow: it gets a close frame, if it takes one within EVICTION_GRACE."""
        if not self.is_open:
            return
        self._listener.slow(self, why)
        self.close(Close.TOO_SLOW, why)
        self._listener.wheel.evicting.add(self, self._listener.clock())

    def abandon(self) -> None:
        """Throw out a client whose socket has taken nothing for `write_timeout`: no frame would reach it."""
        if self.is_open and not self._close_code:  # over TLS the end of an abort may come after another look at it
            self._listener.slow(self, "write timeout")
            self._note(Close.TOO_SLOW, "write timeout")
        self.abort("write timeout")

    def lose_contact(self) -> None:
        """End a connection whose ping was not answered: say why, should the peer still be there, and go."""
        self.close(Close.NO_PONG, "no pong")
        self._part()
        self.transport.abort()

    def expire(self) -> None:
        """End a connection whose credentials have expired."""
        self.close(Close.POLICY, "credentials expired")

    def abort(self, reason: str) -> None:
        """Drop the connection now, with whatever is unsent. Idempotent, in any state."""
        self._part()
        if self._protocol.close_sent is None:  # otherwise that is the cause, and this only how it ends
            self._note(ABNORMAL, reason)
        if not self.transport.is_closing() or self.unsent_bytes:
            self._reset_on_close()
        # Also when it is closing: over TLS that may wait for the peer's goodbye.
        self.transport.abort()

    def _reset_on_close(self) -> None:
        # Otherwise the kernel keeps what is unsent, for minutes, for a peer that does not read.
        sock = self.transport.get_extra_info("socket")
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except (AttributeError, OSError):
            pass  # not a TCP socket, or gone already: nothing to reset

    def _part(self) -> None:
        """Take part no more: off the channel, and what is queued is dropped. Idempotent."""
        session = self._session
        if session is None:
            return
        session.leave()
        if session.outbox is not None:
            self._listener.backlog.laggards.pop(session.outbox, None)

    def _note(self, code: int, reason: str) -> None:
        """Keep the first cause; what follows from it is not one."""
        if not self._close_code:
            self._close_code = code
            self._close_reason = reason

    def _cause(self) -> tuple[int, str]:
        """Say why the connection ended, as a close code and a reason that quotes no client."""
        if self._close_code:
            return self._close_code, self._close_reason
        received, sent = self._protocol.close_rcvd, self._protocol.close_sent
        if received is not None:
            return int(received.code), "closed by the client"
        if sent is not None:
            return int(sent.code), sent.reason
        return ABNORMAL, "connection lost"

    # Writing what the library has to say: handshake, pongs, close frames

    def _answer(self) -> None:
        writes = self._protocol.data_to_send()
        if not writes:
            return
        ends = not writes[-1]  # the library's sign for the end of the stream
        if ends:
            writes.pop()
        if self.paused and self._session is not None:
            writes = self._owed(writes)
        transport = self.transport
        if transport.is_closing():
            return
        if writes:
            transport.write(writes[0] if len(writes) == 1 else b"".join(writes))
        if ends:
            if transport.can_write_eof():
                transport.write_eof()
            else:  # TLS has no half-close
                transport.close()

    def _owed(self, writes: list[bytes]) -> list[bytes]:
        """Keep back the newest pong for when the client reads again; only a close frame goes out now."""
        closes = [data for data in writes if data[0] == _CLOSE_FRAME]
        if not closes and writes:
            self._pong = writes[-1]
        return closes


def _forget_frames(error: BaseException | None) -> None:
    """Cut the tracebacks of an error and of what led to it: their frames hold all that there was at that moment."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
