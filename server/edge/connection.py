"""One client's TCP connection: what the event loop says of it, and who deals with that.

Built on the sans-I/O ``ServerProtocol`` of ``websockets``, which knows the protocol, and on a transport of uvloop; not
on the library's own connection, which spends a task, two futures and three queues per client, and cannot get rid of one
that does not read (it waits for the buffer to drain before any deadline starts). What was read waits in the `Reader`
until it may be looked at; first the `Handshake` gets it, then the `Intake`. What goes out goes through the `Outlet`,
and every way to end is the `Ending`'s. Laws:

- frames are handled as they are read: no task is woken, none exists.
- every method is safe in any state; `connection_lost` comes once, and settles everything.
- one place turns errors into close codes: the library's parser for what the peer did to the protocol, `_receive` for
  what is our own fault (1011, and no details).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from websockets.frames import Frame
from websockets.protocol import State
from websockets.server import ServerProtocol

from server.edge.closing import Close
from server.edge.ending import Ending
from server.edge.gate import Admission
from server.edge.handshake import Denial, Handshake, Named
from server.edge.intake import Intake
from server.edge.outlet import Outlet
from server.edge.reader import Hold, Reader

if TYPE_CHECKING:
    from server.core.outbox import Outbox
    from server.edge.latency import Probe
    from server.edge.listener import Listener
    from server.edge.session import Session


class Connection(asyncio.Protocol):
    """A client, from accept to the end of its socket."""

    __slots__ = (
        "_ending", "_handshake", "_intake", "_listener", "_outlet", "_protocol", "_session", "accepted_at", "address",
        "number", "opened_at", "pinged_at", "place", "probe", "reader", "rtt", "transport",
    )  # fmt: skip

    transport: asyncio.Transport
    reader: Reader
    _outlet: Outlet

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._protocol: ServerProtocol = listener.new_protocol()
        self._handshake: Handshake | None = None
        self._session: Session | None = None
        self._intake: Intake | None = None
        self._ending: Ending | None = None
        self.number = 0  # in the order of arrival; its listener's to set
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
        listener = self._listener
        self.transport = cast(asyncio.Transport, transport)
        self.reader = Reader(self.transport, listener.turnstile, self._receive)
        self._outlet = Outlet(self.transport, self._protocol)
        self._outlet.open()
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if peer else ""
        self._handshake = Handshake(self._protocol, listener.gate, listener.proxies, listener.counters, self.address)
        listener.joined(self)

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)

    def _receive(self, data: bytes) -> bool:
        """Look at what was read; false when nothing more of it is to be looked at."""
        intake, protocol = self._intake, self._protocol
        try:
            if intake is None:
                self._shake_hands(data)
            else:
                protocol.receive_data(data)
                # A pong goes out before what the frames after its ping bring, a close frame after all that they bring.
                if protocol.state is State.OPEN:
                    self._answer()
                if frames := protocol.events_received():
                    self._take_in(intake, cast(list[Frame], frames))
                if protocol.state is not State.OPEN:
                    # The library has answered a close frame, or failed the connection, and is about to say so.
                    self._part()
                self._answer()
            if protocol.close_expected():
                self._listener.wheel.closing.add(self, self._listener.clock())
        except Exception:
            self._break_down()
            return False
        return not self.transport.is_closing()

    def _take_in(self, intake: Intake, frames: list[Frame]) -> None:
        if len(frames) == 1:  # as nearly always
            intake.take(frames, self._listener.clock())
            return
        self._outlet.hold()
        try:
            intake.take(frames, self._listener.clock())
        finally:
            if self._outlet.let_go() and self.paused and self.is_open:
                self.reader.hold(Hold.UNREAD)

    def _break_down(self) -> None:
        """End the connection over an error of ours, which is being handled."""
        self._listener.fault(self)
        if self.is_open:
            self.close(Close.INTERNAL, "")
        else:
            self.abort("internal error")

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
        protocol = self._protocol
        protocol.receive_eof()
        self._listener.left(self, self._ending.settle() if self._ending is not None else None)
        # Cycles would wait for the collector, which looks rarely here: the session, its outbox, the intake, the ending
        # and the reader know us, and the library's parser, like the errors that it keeps, holds its protocol. Without
        # these, all is freed here and now.
        self._session = self._intake = self._ending = self._handshake = None
        self.reader.stop()
        protocol.parser = None  # type: ignore[assignment]
        _forget_frames(protocol.parser_exc)
        _forget_frames(protocol.handshake_exc)

    # Opening

    def _shake_hands(self, data: bytes) -> None:
        listener, handshake = self._listener, self._handshake
        assert handshake is not None, "one of the two, the handshake or the intake, gets what comes in"
        outcome = handshake.take(data, listener.clock())
        if isinstance(outcome, Named):
            if not listener.identified(self, outcome.address):
                return
            outcome = handshake.take(outcome.rest, listener.clock())
        if isinstance(outcome, Admission):
            if handshake.address != self.address:
                listener.admitted(self, handshake.address)
            self._open(outcome)
        elif isinstance(outcome, Denial):
            self._deny(outcome)

    def _deny(self, denial: Denial) -> None:
        if not denial.is_answered:
            self.abort(denial.why)
            return
        if denial.unsaid:
            self.transport.write(denial.unsaid)
        self._answer()

    def _open(self, admission: Admission) -> None:
        listener = self._listener
        self._answer()
        self.reader.is_new = False
        session = self._session = listener.new_session(self, admission)
        self._ending = Ending(self, session, self._protocol, self._outlet, listener)
        listener.gate.enter(self.address)
        self._intake = Intake(self, session, listener.counters, listener.message_rate)
        self._handshake = None
        if self.paused:
            # A peer with no room for 200 bytes lags from the start.
            self.pause_writing()
        self.opened_at = listener.clock()
        listener.wheel.join(self)
        listener.opened(self, admission)
        session.begin()

    def await_introduction(self) -> None:
        """End the connection as STALE unless it is `introduced` within the time for a handshake. Idempotent."""
        self.reader.is_new = True
        self._listener.wheel.connecting.add(self, self._listener.clock())

    def introduced(self) -> None:
        """Wait for no introduction any more. Idempotent, in any state."""
        self.reader.is_new = False
        self._listener.wheel.connecting.discard(self)

    # Flow

    def send(self, wire: bytes) -> None:
        """Write whole frames now, before what is queued: replies. Nothing happens unless the connection is open.

        To a client that does not take them they wait in the transport, and no more of what it sends is looked at until
        it has: what this holds for it is the answer to PARSE_BYTES.
        """
        if not self.is_open or self.transport.is_closing():
            return
        self._outlet.send(wire)
        if self.paused:
            self.reader.hold(Hold.UNREAD)

    def flush(self) -> None:
        """Write what waits in the outbox until it is empty or the socket takes no more. Idempotent, in any state."""
        outbox = self.outbox
        if outbox is not None and self.is_open:
            self._drain(outbox)

    def charge(self, messages: int) -> bool:
        """Count what came in one message as `messages` more; false when that was too many, and the connection ends."""
        return self._intake is None or self._intake.charge(messages, self._listener.clock())

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
        if session is None or (self._ending is not None and self._ending.go_on()):
            return
        was_unread = self.reader.lift(Hold.UNREAD)
        # It may have more to say, more than the client has room for; and what it was asked first comes first.
        session.resume()
        if was_unread:
            self.reader.read_on()

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

    # Endings: the first five do nothing unless the connection is open

    def close(self, code: int, reason: str) -> None:
        """Say goodbye, and wait for the answer; `code` is one of `Close`, or of the dialect's own."""
        if self._ending is not None:
            self._ending.close(code, reason)

    def fail(self, code: int, reason: str) -> None:
        """Break off over what the client did."""
        if self._ending is not None:
            self._ending.fail(code, reason)

    def finish(self, code: int, reason: str) -> None:
        """Say goodbye after what is queued."""
        if self._ending is not None:
            self._ending.finish(code, reason)

    def evict(self, why: str) -> None:
        """Throw out a client that is too slow."""
        if self._ending is not None:
            self._ending.evict(why)

    def lose_contact(self) -> None:
        """Let go of a client that did not answer a ping."""
        if self._ending is not None:
            self._ending.lose_contact()

    def abandon(self) -> None:
        """Throw out a client whose socket has taken nothing for `write_timeout`. In any state."""
        if self._ending is not None:
            self._ending.abandon()
        else:
            self._outlet.abort()

    def abort(self, reason: str) -> None:
        """Drop the connection now, with whatever is unsent. In any state."""
        if self._ending is not None:
            self._ending.abort(reason)
        else:
            self._outlet.abort()

    def expire_at(self, deadline: float | None) -> None:
        """Let the credentials hold until `deadline`, in seconds of the listener's clock; None: for ever."""
        expiring = self._listener.wheel.expiring
        if deadline is None:
            expiring.pop(self, None)
        elif self.is_open:
            expiring[self] = deadline

    def _part(self) -> None:
        if self._ending is not None:
            self._ending.part()


def _forget_frames(error: BaseException | None) -> None:
    """Cut the tracebacks of an error and of what led to it: their frames hold all that there was at that moment."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
