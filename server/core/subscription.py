"""One client on one channel, in the shape that ``websockets.broadcast()`` looks at.

While the client keeps up, ``send_text`` *is* the transport's bound ``write``: nothing of ours runs per delivery. While
it lags, ``send_text`` is `offer`, and the outbox decides. A client on several channels gathers: what comes while it
keeps up goes to its outbox, past the policies, and out in one write at the end of the turn: the hub puts it there for
all who gather at once, and broadcast() has the others. Laws:

- ``state`` leaves OPEN the moment a close frame goes out or comes in: no data after Close.
- ``protocol`` is readable for ever: broadcast() reads it outside its ``try``. After the end it is `_GONE`, not the
  subscription itself: a cycle per client would be left to the garbage collector.
- nothing is written past what the client has gathered.
- what reaches ``send_text`` is wire bytes, text and binary frames joined; the name is only broadcast()'s way in.

The one place below the edge that names a thing of ``websockets``, the state OPEN; broadcast() compares by identity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from websockets.protocol import State

if TYPE_CHECKING:
    from server.core.channel import Channel
    from server.core.outbox import Outbox

Write = Callable[[bytes], object]

OPEN: Final = State.OPEN
CLOSED: Final = State.CLOSED


class _Gone:
    """What the protocol of a subscription is after its end."""

    __slots__ = ()
    state = CLOSED


_GONE: Final = _Gone()


class WriteFaults:
    """Stands in for the logger that broadcast() calls when a write raises: counts it, so that the books balance."""

    __slots__ = ("_report", "count")

    def __init__(self, report: Callable[[str], object]) -> None:
        self.count = 0
        self._report = report

    def warning(self, message: str, *details: object) -> None:
        self.count += 1
        self._report(message % details if details else message)


class Subscription:
    """A client's ear on a channel."""

    __slots__ = ("_write", "channel", "gathers", "lags", "outbox", "protocol", "send_text", "state")

    # broadcast() skips a connection that is in the middle of a fragmented message; we never send one.
    send_in_progress = None

    def __init__(self, channel: Channel, outbox: Outbox, write: Write) -> None:
        self.channel = channel
        self.outbox = outbox
        self.protocol: Subscription | _Gone = self
        self.state = OPEN
        self.lags = False
        self.gathers = False
        # A client that has gathered, or is leaving another channel, still has something to take first.
        self.send_text: Write = write if outbox.is_empty else self.collect
        self._write: Write = write

    @staticmethod
    def send_data() -> None:
        """Do nothing: `send_text` has written already."""

    @property
    def logger(self) -> WriteFaults:
        return self.channel.faults

    def offer(self, wire: bytes) -> None:
        """Put the batch that is being handed out, whose bytes are `wire`, into the outbox."""
        batch = self.channel.batch
        assert batch is not None, "only a flush offers, and a flush has a batch"
        self.outbox.offer(batch)

    def collect(self, wire: bytes) -> None:
        """Put the batch that is being handed out into the outbox for the rest of this turn."""
        outbox = self.outbox
        if self.gathers or not outbox.is_empty:
            batch = self.channel.batch
            assert batch is not None, "only a flush hands out, and a flush has a batch"
            outbox.gather(batch)
        else:
            # It gathers no more, and what it had gathered has gone out.
            self.send_text = self._write
            self._write(wire)

    def pause(self) -> None:
        """The client's socket takes no more: what comes goes to the outbox. Idempotent."""
        if self.state is OPEN:
            self.lags = True
            self.send_text = self.offer

    def resume(self) -> None:
        """The socket and the outbox are empty: go on as before. Idempotent."""
        if self.state is OPEN:
            self.lags = False
            self.send_text = self.collect if self.gathers else self._write

    def gather(self) -> None:
        """From now on, and while the client keeps up, have the hub write what one turn brings. Idempotent."""
        if self.state is OPEN and not self.gathers:
            self.gathers = True
            self.channel.gatherers += 1
            if not self.lags:
                self.send_text = self.collect

    def write_through(self) -> None:
        """Gather no more; what was gathered still goes out first. Idempotent."""
        if self.state is OPEN and self.gathers:
            self.gathers = False
            self.channel.gatherers -= 1
            if not self.lags and self.outbox.is_empty:
                self.send_text = self._write

    def close(self) -> None:
        """Take no more part, for ever. Idempotent, in any state."""
        self.write_through()
        self.state = CLOSED
        self.protocol = _GONE
        self.send_text = self._write = _nowhere

    def __repr__(self) -> str:
        way = "lagging" if self.lags else "gathering" if self.gathers else "writing"
        way = way if self.state is OPEN else "closed"
        return f"<Subscription {self.channel.key!r} {way}, {self.outbox.messages} queued>"


def _nowhere(wire: bytes) -> None:
    raise AssertionError("written to a closed subscription: broadcast() looks at the state first")
