"""What a client sends, once it may: frames in, whole messages to its session, and no more of either than is allowed.

Laws: frames are taken in the order in which they came, and none after the first that ends the connection; a message is
charged when it is whole, every frame a quarter of that, the answer to a ping of ours nothing; what is held of an
unfinished message is bounded in bytes by the library and in fragments here.
Knows nothing of the transport: what is wrong is said to the connection, which knows how to end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from websockets.frames import Frame, Opcode

from server.core.limits import TokenBucket
from server.edge.closing import Close

if TYPE_CHECKING:
    from server.core.counters import Counters
    from server.edge.connection import Connection
    from server.edge.session import Session

# More fragments than this in one message are an attack on our memory, not a message.
MAX_FRAGMENTS: Final = 4096
# How many frames, pings and fragments too, a client may send for each message that it may send; and how many at once,
# so that a message in as many fragments as may be gets through.
FRAMES_PER_MESSAGE: Final = 4
FRAMES_AT_ONCE: Final = MAX_FRAGMENTS + 64

_DATA: Final = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONT})


class _Fragments:
    """A message that has not come whole yet."""

    __slots__ = ("count", "opcode", "payload")

    def __init__(self, opcode: int, first: bytes | bytearray) -> None:
        self.opcode = opcode
        self.payload = bytearray(first)
        self.count = 1


class _Allowance:
    """How much one client may say: a rate of messages, and a wider one of frames, since a message may be many."""

    __slots__ = ("_frames", "_messages")

    def __init__(self, rate: float, now: float) -> None:
        self._messages = TokenBucket(rate, now)
        frame_rate = rate * FRAMES_PER_MESSAGE
        self._frames = TokenBucket(frame_rate, now, max(frame_rate, FRAMES_AT_ONCE))

    def spend(self, messages: int, now: float) -> bool:
        """Charge whole messages; false when there are not so many to spend."""
        return all(self._messages.take(now) for _ in range(messages))

    def admits(self, frame: Frame, now: float) -> bool:
        """Charge a frame, and the message that it ends; false when there is no more to spend."""
        is_message = frame.fin and frame.opcode in _DATA
        return self._frames.take(now) and (not is_message or self._messages.take(now))


class Intake:
    """One open connection's way in."""

    __slots__ = ("_allowance", "_connection", "_counters", "_fragments", "_rate", "_session")

    def __init__(self, connection: Connection, session: Session, counters: Counters, rate: float) -> None:
        self._connection = connection
        self._session = session
        self._counters = counters
        self._rate = rate  # messages a second; 0: as many as it likes
        self._allowance: _Allowance | None = None  # most clients only listen
        self._fragments: _Fragments | None = None

    def take(self, frames: list[Frame], now: float) -> None:
        """Take the frames of one read, up to one that ends the connection."""
        reader = self._connection.reader
        for frame in frames:
            if reader.is_leaving:
                return
            opcode = frame.opcode
            is_answer = opcode is Opcode.PONG and self._take_pong(cast(bytes, frame.data))
            if self._rate and not is_answer and not self._get_allowance(now).admits(frame, now):
                self._connection.fail(Close.TOO_MANY, "too many messages")
                return
            if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
                if frame.fin:
                    self._hand_on(opcode, cast(bytes, frame.data))
                else:
                    self._fragments = _Fragments(opcode, cast(bytes, frame.data))
            elif opcode is Opcode.CONT:
                self._take_fragment(frame)

    def charge(self, messages: int, now: float) -> bool:
        """Charge what a message turned out to bring; false when that was too much, and the connection ends."""
        if not self._rate or self._get_allowance(now).spend(messages, now):
            return True
        self._connection.fail(Close.TOO_MANY, "too many messages")
        return False

    def _take_pong(self, payload: bytes) -> bool:
        """Take a pong; tell if it answers a ping of ours: unasked ones are allowed, too. RFC 6455, section 5.5.3."""
        connection = self._connection
        probe, pinged_at = connection.probe, connection.pinged_at
        is_awaited = bool(pinged_at) and self._session.ping_frame is None
        if probe is not None and probe.take(payload):
            if is_awaited and probe.asked_at >= pinged_at:
                connection.take_pong(probe.asked_at)
            return True
        if is_awaited:
            connection.take_pong()
            if probe is not None:
                probe.pass_over(pinged_at)
        return is_awaited

    def _get_allowance(self, now: float) -> _Allowance:
        if self._allowance is None:
            self._allowance = _Allowance(self._rate, now)
        return self._allowance

    def _take_fragment(self, frame: Frame) -> None:
        fragments = self._fragments
        if fragments is None:
            raise AssertionError("the library lets no continuation through before a first fragment")
        fragments.payload += frame.data
        fragments.count += 1
        if fragments.count > MAX_FRAGMENTS:
            self._fragments = None
            self._connection.fail(Close.TOO_BIG, "too many fragments")
        elif frame.fin:
            self._fragments = None
            self._hand_on(fragments.opcode, fragments.payload)

    def _hand_on(self, opcode: int, payload: bytes | bytearray) -> None:
        self._counters.received += 1
        self._counters.bytes_received += len(payload)
        self._session.message(opcode, payload)
