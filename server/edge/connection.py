"""One client's TCP connection: what the event loop says of it, who deals with it, and every way to end it.

Built on the sans-I/O ``ServerProtocol`` of ``websockets``, which knows the protocol, and on a transport of uvloop; not
on the library's own connection, which spends a task, two futures and three queues per client, and cannot get rid of one
that does not read (it waits for the buffer to drain before any deadline starts). First the `Handshake` gets what comes
in, then the `Intake`; what goes out goes through the `Outlet`. Laws:

- frames are handled as they are read: no task is woken, none exists.
- no data frame follows a close frame: `_part` comes before any close frame is written.
- the edge knows why a connection ends, its session how that is said: every cause of ours goes through `farewell`.
- `close` and `abort` are idempotent and safe in any state; `connection_lost` comes once, and settles everything.
- one place turns errors into close codes: the library's parser for what the peer did to the protocol, `data_received`
  for what is our own fault (1011, and no details).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from struct import pack
from typing import TYPE_CHECKING, Final, cast

from websockets.frames import Frame
from websockets.protocol import Event, State
from websockets.server import ServerProtocol

from server.edge.closing import ABNORMAL, Cause, Close, seen
from server.edge.gate import Admission
from server.edge.handshake import Denial, Handshake
from server.edge.intake import Hold, Intake
from server.edge.outlet import Outlet
from server.edge.proxies import ProxyHeaderError, read_proxy_header

if TYPE_CHECKING:
    from server.core.outbox import Outbox
    from server.edge.latency import Probe
    from server.edge.listener import Listener
    from server.edge.session import Session

# What the parser gets at a time. It takes apart all that it gets, also when the first frames of it are one too many; a
# read may bring 40,000 frames, and the others wait meanwhile.
PARSE_BYTES: Final = 4096

# As long as one of these holds, not even what was read already is looked at.
_BUSY: Final[int] = Hold.UNREAD | Hold.UNANSWERED | Hold.QUEUING

_RESET: Final = pack("ii", 1, 0)  # struct linger: on, 0 seconds


class Connection(asyncio.Protocol):
    """A client, from accept to the end of its socket."""

    __slots__ = (
        "_cause", "_finishing", "_foreword", "_handshake", "_holds", "_intake", "_listener", "_outlet", "_protocol",
        "_rest", "_session", "accepted_at", "address", "is_leaving", "is_new", "number", "opened_at", "pinged_at",
        "place", "probe", "rtt", "transport",
    )  # fmt: skip

    transport: asyncio.Transport
    _outlet: Outlet

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._protocol: ServerProtocol = listener.new_protocol()
        self._handshake: Handshake | None = Handshake(
            self._protocol, listener.gate, listener.proxies, listener.counters
        )
        self._foreword: bytes | None = None  # what a proxy has said so far, until the client's own first byte
        self._session: Session | None = None
        self._intake: Intake | None = None
        self._holds = 0
        self._rest = b""  # what was read already when the reading was held
        self._finishing: Cause | None = None
        self._cause: Cause | None = None
        self.is_leaving = False  # we have said goodbye, or are about to: what the client says is not looked at
        self.number = 0  # in the order of arrival; its listener's to set
        self.is_new = True  # until it is open and has said who it is, where that is asked
        self.accepted_at = 0.0
        self.opened_at = 0.0
        self.address = ""
        self.place = -1  # on the wheel; its own to set
        self.pinged_at = 0.0
        self.rtt = 0.0
        self.probe: Probe | None = None  # only of those whose latency is sampled

    # What others may ask

    @property
    def is_open(self) -> bool:
        return self._session is not None and self._protocol.state is State.OPEN

    @property
    def paused(self) -> bool:
        """Whether the socket takes no more for now."""
        return self._outlet.is_full

    @property
    def holds_reading(self) -> bool:
        return self._holds != 0

    @property
    def has_unread(self) -> bool:
        """Whether the client has not taken yet what it asked for."""
        return bool(self._holds & Hold.UNREAD)

    @property
    def is_queuing(self) -> bool:
        """Whether it has said something that nobody had the time to look at yet."""
        return bool(self._holds & Hold.QUEUING)

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

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._outlet = Outlet(self.transport, self._protocol)
        self._outlet.open()
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if peer else ""
        if self._listener.proxies.trust(self.address):
            self._foreword = b""
        self._listener.joined(self)

    def data_received(self, data: bytes) -> None:
        if self._rest:
            self._rest += data
        elif self.is_new and not self._listener.turnstile.try_pass():
            self._rest = data
            self.hold_reading(Hold.QUEUING)
            self._listener.turnstile.wait(self._come_in)
        else:
            self._take(data)

    def _come_in(self) -> None:
        self._holds &= ~Hold.QUEUING
        data, self._rest = self._rest, b""
        if self.transport.is_closing():
            return
        if not self._holds:
            self.transport.resume_reading()
        self._take(data)

    def _take(self, data: bytes) -> None:
        try:
            for start in range(0, len(data), PARSE_BYTES):
                self._receive(data[start : start + PARSE_BYTES])
                if self.transport.is_closing():
                    break
                if self._holds & _BUSY and not self.is_leaving:
                    # One read may ask for more answers than there is room for, anywhere.
                    self._rest = data[start + PARSE_BYTES :]
                    break
        except Exception:
            self._listener.fault(self)
            if self.is_open:
                self.close(Close.INTERNAL, "")
            else:
                self.abort("internal error")

    def _receive(self, data: bytes) -> None:
        if self._foreword is not None and not (data := self._take_foreword(data)):
            return
        protocol = self._protocol
        protocol.receive_data(data)
        events = protocol.events_received()
        if self._intake is None:
            self._shake_hands(events, len(data))
        else:
            # A pong goes out before what the frames after its ping bring, a close frame after all that they bring.
            if protocol.state is State.OPEN:
                self._answer()
            if events:
                self._intake.take(cast(list[Frame], events), self._listener.clock())
            if protocol.state is not State.OPEN:
                # The library has answered a close frame, or failed the connection, and is about to say so.
                self._part()
            self._answer()
        if protocol.close_expected():
            self._listener.wheel.closing.add(self, self._listener.clock())

    def _read_rest(self) -> None:
        rest, self._rest = self._rest, b""
        if rest:
            self.data_received(rest)

    def eof_received(self) -> None:
        # The transport closes itself after this; a half-closed WebSocket has nothing to wait for, and gets no more.
        self._part()
        self._protocol.receive_eof()

    def pause_writing(self) -> None:
        self._outlet.is_full = True
        self._listener.wheel.watch(self, self._listener.clock())
        session = self._session
        if session is not None:
            session.pause()
            if session.outbox is not None:
                self._listener.backlog.laggards[session.outbox] = None

    def resume_writing(self) -> None:
        self._outlet.is_full = False
        self._outlet.pay()
        self._catch_up()

    def connection_lost(self, exc: Exception | None) -> None:
        # Before anything else: a client that is gone is on no channel.
        self._part()
        self._protocol.receive_eof()
        protocol = self._protocol
        self._listener.left(self, *(self._cause or seen(protocol.close_rcvd, protocol.close_sent)))
        # Cycles would wait for the collector, which looks rarely here: the session, its outbox and the intake know us,
        # and the library's parser, like the errors that it keeps, holds its protocol. Without these, all is freed here
        # and now.
        self._session = self._intake = self._handshake = None
        # What was read and not looked at: whoever asks to read on, does so too late.
        self._rest = b""
        protocol.parser = None  # type: ignore[assignment]
        _forget_frames(protocol.parser_exc)
        _forget_frames(protocol.handshake_exc)

    # Opening

    def _take_foreword(self, data: bytes) -> bytes:
        """Take what a trusted proxy says of its client, if it says anything; return what is the client's own."""
        assert self._foreword is not None, "it is taken once"
        data = self._foreword + data
        try:
            header = read_proxy_header(data)
        except ProxyHeaderError as error:
            self._listener.counters.rejected["bad_request"] += 1
            self.abort(str(error))
            return b""
        if header is None:
            self._foreword = data
            return b""
        self._foreword = None
        if header.address is not None and not self._listener.identified(self, header.address):
            return b""
        return data[header.size :]

    def _shake_hands(self, events: list[Event], size: int) -> None:
        assert self._handshake is not None, "one of the two, the handshake or the intake, gets what comes in"
        outcome = self._handshake.take(events, size, self.address, self._listener.clock())
        if isinstance(outcome, Admission):
            if self._handshake.address != self.address:
                self._listener.admitted(self, self._handshake.address)
            self._open(outcome)
        elif isinstance(outcome, Denial):
            self._deny(outcome)

    def _deny(self, denial: Denial) -> None:
        if not denial.is_answered:
            self.abort(denial.why)
            return
        self._note(Cause(ABNORMAL, denial.why))
        if denial.unsaid:
            self.transport.write(denial.unsaid)
        self._answer()

    def _open(self, admission: Admission) -> None:
        listener = self._listener
        self._answer()
        self.is_new = False
        session = self._session = listener.new_session(self, admission)
        listener.gate.enter(self.address)
        self._intake = Intake(self, session, listener.counters, listener.message_rate)
        self._handshake = None
        if self.paused:
            # A peer with no room for 200 bytes lags from the start.
            self.pause_writing()
        self.opened_at = listener.clock()
        listener.wheel.join(self)
        listener.opened(self, admission)

    def await_introduction(self) -> None:
        """End the connection as STALE unless it is `introduced` within the time for a handshake. Idempotent."""
        self.is_new = True
        self._listener.wheel.connecting.add(self, self._listener.clock())

    def introduced(self) -> None:
        """Wait for no introduction any more. Idempotent, in any state."""
        self.is_new = False
        self._listener.wheel.connecting.discard(self)

    # Flow

    def send(self, wire: bytes) -> None:
        """Write whole frames now, before what is queued: replies. Nothing happens unless the connection is open.

        To a client that does not take them they wait in the transport, and no more of what it sends is looked at until
        it has: what this holds for it is the answer to PARSE_BYTES.
        """
        if not self.is_open or self.transport.is_closing():
            return
        self.transport.write(wire)
        if self.paused:
            self.hold_reading(Hold.UNREAD)

    def flush(self) -> None:
        """Write what waits in the outbox until it is empty or the socket takes no more. Idempotent, in any state."""
        outbox = self.outbox
        if outbox is not None and self.is_open:
            self._drain(outbox)

    def charge(self, messages: int) -> bool:
        """Count what came in one message as `messages` more; false when that was too many, and the connection ends."""
        return self._intake is None or self._intake.charge(messages, self._listener.clock())

    def hold_reading(self, why: int = Hold.CONGESTED) -> None:
        """Read no more from this client until no reason is left. Idempotent, for each reason.

        As long as its answers are UNREAD, or wait themselves, what was read already is not looked at either.
        """
        self._holds |= why
        self.transport.pause_reading()

    def release_reading(self, why: int = Hold.CONGESTED) -> None:
        """Read on, unless there is another reason not to. Idempotent, in any state."""
        self._holds &= ~why
        self._read_on()

    def _read_on(self) -> None:
        if not self._holds:
            self.transport.resume_reading()
        if not self._holds & _BUSY:
            self._read_rest()

    def _catch_up(self) -> None:
        """Write what waits in the outbox until the socket takes no more; then write through again."""
        session = self._session
        outbox = session.outbox if session is not None else None
        if outbox is not None:
            self._drain(outbox)
        if self.paused:
            return
        self._listener.wheel.paused.pop(self, None)
        if outbox is not None:
            self._listener.backlog.laggards.pop(outbox, None)
            outbox.catch_up()
        if self._finishing is not None:
            self.close(*self._finishing)
        elif session is not None:
            held, self._holds = self._holds, self._holds & ~Hold.UNREAD
            # It may have more to say, more than the client has room for; and what it was asked first comes first.
            session.resume()
            if held & Hold.UNREAD:
                self._read_on()

    def _drain(self, outbox: Outbox) -> None:
        probe, oldest = self.probe, None
        if probe is not None and probe.is_armed and not self.paused:
            oldest = outbox.oldest
        self._outlet.drain(outbox)
        if probe is not None and oldest is not None:
            probe.ask(oldest)

    def _answer(self) -> None:
        self._outlet.answer(may_owe=self._session is not None)

    # Heartbeat

    def ping(self, frame: bytes, now: float) -> bool:
        """Send `frame`, or its dialect's own ping, unless the client lags, is leaving or owes a pong; tell if sent."""
        session = self._session
        if session is None or self.paused or self.pinged_at or not self.is_open:
            return False
        own = session.ping_frame
        if own is not None:
            frame = own
        if not frame:
            return False
        self.pinged_at = now
        self.transport.write(frame)
        return True

    def take_pong(self, sent: float = 0.0) -> None:
        """Take the answer to our ping, or to a later one that went out at `sent`; nothing happens when none is awaited.

        Who gets several pings may answer the last one alone: RFC 6455, section 5.5.3.
        """
        if not self.pinged_at:
            return
        self.rtt = self._listener.clock() - (sent or self.pinged_at)
        self.pinged_at = 0.0
        self._listener.wheel.answered(self)
        self._listener.counters.ping_rtt.observe(self.rtt)

    def spare(self) -> None:
        """Take note that the time for a pong is over, but was not all the client's."""
        self._listener.counters.keepalive_spared += 1

    # Endings

    def close(self, code: int, reason: str) -> None:
        """Say goodbye: part from the hub at once, send a close frame, and wait for its answer. Idempotent.

        `code` is one of `Close`, which the session's `farewell` puts into its dialect's words, or one of the dialect's
        own; `reason` at most 123 bytes. RFC 6455, section 7.1.2.
        """
        self._say_goodbye(code, reason, self._protocol.send_close)

    def fail(self, code: int, reason: str) -> None:
        """Break off over what the client did: as `close`, but what it sends from now on is not even looked at.

        Idempotent. RFC 6455, section 7.1.7.
        """
        self._say_goodbye(code, reason, self._protocol.fail)

    def _say_goodbye(self, code: int, reason: str, say: Callable[[int, str], None]) -> None:
        session = self._session
        if session is None or not self.is_open:
            return
        cause = Cause(*session.farewell(code, reason))
        self.is_new = False
        self._part()
        self._finishing = None
        self._note(cause)
        say(*cause)
        self._listener.wheel.closing.add(self, self._listener.clock())
        self._answer()
        if self._holds:
            # For its answer.
            self.release_reading(Hold.CONGESTED | _BUSY)

    def finish(self, code: int, reason: str) -> None:
        """Say goodbye after what is queued: nothing new is taken, and the close frame comes last. Idempotent."""
        session = self._session
        if session is None or not self.is_open or self._finishing is not None:
            return
        self.flush()
        if session.outbox is None or session.outbox.is_empty:
            self.close(code, reason)
        else:
            self._finishing = Cause(code, reason)
            self.is_leaving = True
            session.finish()

    def evict(self, why: str) -> None:
        """Throw out a client that is too slow: it gets a close frame, if it takes one within EVICTION_GRACE."""
        if not self.is_open:
            return
        self._listener.slow(self, why)
        self.close(Close.TOO_SLOW, why)
        self._listener.wheel.evicting.add(self, self._listener.clock())

    def abandon(self) -> None:
        """Throw out a client whose socket has taken nothing for `write_timeout`: no frame would reach it."""
        session = self._session
        # Over TLS the end of an abort may come after another look at it.
        if session is not None and self.is_open and self._cause is None:
            self._listener.slow(self, "write timeout")
            self._note(Cause(*session.farewell(Close.TOO_SLOW, "write timeout")))
        self.abort("write timeout")

    def lose_contact(self) -> None:
        """End a connection whose ping was not answered: say why, should the peer still be there, and go."""
        self.close(Close.NO_PONG, "no pong")
        self._part()
        self.transport.abort()

    def expire_at(self, deadline: float | None) -> None:
        """Let the credentials hold until `deadline`, in seconds of the listener's clock; None: for ever."""
        expiring = self._listener.wheel.expiring
        if deadline is None:
            expiring.pop(self, None)
        elif self.is_open:
            expiring[self] = deadline

    def expire(self) -> None:
        """End a connection whose credentials have expired."""
        self.close(Close.EXPIRED, "credentials expired")

    def abort(self, reason: str) -> None:
        """Drop the connection now, with whatever is unsent. Idempotent, in any state."""
        self._part()
        if self._protocol.close_sent is None:  # otherwise that is the cause, and this only how it ends
            self._note(Cause(ABNORMAL, reason))
        if not self.transport.is_closing() or self.unsent_bytes:
            _reset_on_close(self.transport)
        # Also when it is closing: over TLS that may wait for the peer's goodbye.
        self.transport.abort()

    def _part(self) -> None:
        """Take part no more: off the channel, and what is queued is dropped. Idempotent."""
        session = self._session
        if session is None:
            return
        session.leave()
        if session.outbox is not None:
            self._listener.backlog.laggards.pop(session.outbox, None)

    def _note(self, cause: Cause) -> None:
        """Keep the first cause; what follows from it is not one."""
        if self._cause is None:
            self._cause = cause
            self.is_leaving = True


def _reset_on_close(transport: asyncio.BaseTransport) -> None:
    """Reset the peer when the transport closes: otherwise the kernel keeps what is unsent, for minutes."""
    sock = transport.get_extra_info("socket")
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    except (AttributeError, OSError):
        pass  # not a TCP socket, or gone already: nothing to reset


def _forget_frames(error: BaseException | None) -> None:
    """Cut the tracebacks of an error and of what led to it: their frames hold all that there was at that moment."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
