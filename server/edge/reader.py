"""When one client is read from, and how much of what it says is looked at in one go.

Laws:
- what was read is looked at in the order in which it came, PARSE_BYTES at a time; what may not be looked at yet waits
  here, and while anything does, no more is read.
- a client is held for reasons, each a `Hold`: as long as there is one, its transport reads no more. But one that is
  leaving is heard out: somewhere in what it has said is the answer to our close frame.
- who is new waits at the turnstile for a turn of its own.
- `hold` and `release` are idempotent, for each reason, and safe in any state: a relief may come after the end.

Knows bytes: neither frames nor who takes them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

    from server.edge.turnstile import Turnstile

# What the parser gets at a time. It takes apart all that it gets, also when the first frames of it are one too many; a
# read may bring 40,000 frames, and the others wait meanwhile.
PARSE_BYTES: Final = 4096


class Hold(IntEnum):
    """Why a client is not read from for now, as bits; it is again when no reason is left."""

    CONGESTED = 1  # what it says is more than its channel takes
    UNREAD = 2  # it does not take what it asked for
    UNANSWERED = 4  # what it asked for has to wait
    QUEUING = 8  # it is new, and others are before it


# As long as one of these holds, not even what was read already is looked at.
_BUSY: Final[int] = Hold.UNREAD | Hold.UNANSWERED | Hold.QUEUING
_ALL: Final[int] = _BUSY | Hold.CONGESTED


class Reader:
    """What one connection has read; `receive` looks at a piece of it, and is false when that was the last.

    `is_new` until its client has said who it is; `is_leaving` from our goodbye on, or when that is about to be said.
    """

    __slots__ = ("_holds", "_receive", "_rest", "_transport", "_turnstile", "is_leaving", "is_new")

    def __init__(self, transport: asyncio.Transport, turnstile: Turnstile, receive: Callable[[bytes], bool]) -> None:
        self._transport = transport
        self._turnstile = turnstile
        self._receive = receive
        self._holds = 0
        self._rest = b""  # what was read already when the reading was held
        self.is_new = True
        self.is_leaving = False

    @property
    def is_held(self) -> bool:
        return self._holds != 0

    @property
    def has_unread(self) -> bool:
        """Whether the client has not taken yet what it asked for."""
        return bool(self._holds & Hold.UNREAD)

    @property
    def is_queuing(self) -> bool:
        """Whether it has said something that nobody had the time to look at yet."""
        return bool(self._holds & Hold.QUEUING)

    def feed(self, data: bytes) -> None:
        """Take what was read: it is looked at now, or as soon as that may be."""
        if self._rest:
            self._rest += data
        elif self.is_new and not self._turnstile.try_pass():
            self._rest = data
            self.hold(Hold.QUEUING)
            self._turnstile.wait(self._come_in)
        elif len(data) <= PARSE_BYTES:
            # As below, for what is nearly all that ever comes.
            self._receive(data)
        else:
            self._look_at(data)

    def hold(self, why: int = Hold.CONGESTED) -> None:
        """Read no more until no reason is left; unless `why` is CONGESTED, look at nothing more either."""
        self._holds |= why
        self._transport.pause_reading()

    def release(self, why: int = Hold.CONGESTED) -> None:
        """Read on, unless there is another reason not to."""
        self.lift(why)
        self.read_on()

    def hear_out(self) -> None:
        """Hold the client for no reason, nor let it queue, from now on: it owes us an answer to our close frame."""
        self.is_new = False
        if self._holds:
            self.release(_ALL)

    def lift(self, why: int) -> bool:
        """Take a reason away, and tell if it was one; whoever does so has something to do before it will `read_on`."""
        held = self._holds & why
        self._holds &= ~why
        return bool(held)

    def read_on(self) -> None:
        """Read on, and look at what waits, as far as the reasons that are left allow. Idempotent."""
        if not self._holds:
            self._transport.resume_reading()
        if not self._holds & _BUSY:
            rest, self._rest = self._rest, b""
            if rest:
                self.feed(rest)

    def stop(self) -> None:
        """Forget what waits, and whom to tell of it: the connection is lost."""
        self._rest = b""
        self._receive = _ignore

    def _come_in(self) -> None:
        self._holds &= ~Hold.QUEUING
        data, self._rest = self._rest, b""
        if self._transport.is_closing():
            return
        if not self._holds:
            self._transport.resume_reading()
        self._look_at(data)

    def _look_at(self, data: bytes) -> None:
        for start in range(0, len(data), PARSE_BYTES):
            if not self._receive(data[start : start + PARSE_BYTES]):
                break
            if self._holds & _BUSY and not self.is_leaving:
                # One read may ask for more answers than there is room for, anywhere.
                self._rest = data[start + PARSE_BYTES :]
                break


def _ignore(data: bytes) -> bool:
    return False
