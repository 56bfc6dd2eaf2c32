"""One wheel for every connection's time: pings, and the deadlines of all that a client must do in time.

One timer, ten times a second, instead of a task and timers per connection. On each tick: one slot of the wheel is
pinged (one shared frame a dialect), expired deadlines are acted on, and the laggards are asked for progress.

Laws:
- a verdict is passed on a client only after the loop has had the time to read what the client sent: a late tick, which
  means that *we* were busy, passes none.
- the time for a pong does not run while we are late; whoever is spared by that is counted, once for each ping.
- a client that lags is not pinged, and not blamed for a missing pong: the ping would wait behind its queue. What
  counts for it is progress: ``write_timeout`` seconds without any, and it is gone.
- a client that waits for us to look at what it said is late for nothing.
- pings are spread over the interval, so that ten thousand clients that came at once are not pinged at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from server.core.counters import Histogram
from server.core.frames import PING, encode_frame
from server.edge.closing import Close
from server.edge.deadlines import Deadlines

if TYPE_CHECKING:
    from server.edge.connection import Connection
    from server.edge.latency import LatencySample

TICK: Final = 0.1
# How long a peer may take to answer our close frame, and a client that was too slow to take it at all.
CLOSE_TIMEOUT: Final = 5.0
EVICTION_GRACE: Final = 2.0
# For dialects without a ping of their own. Empty: a connection has one ping on its way at most, so a pong needs no
# payload to say which it answers.
_PING: Final = encode_frame(PING, b"")
# A tick that is later than this tells more of us than of the clients.
LATE: Final = 0.5
# By less than a tick a timer is late on any busy machine, and no pong waits for longer than that to be read.
NOTICED: Final = TICK
# What two ways to reckon the same time may differ by.
_ROUNDING: Final = 1e-6


class _Progress:
    """How far a client is with what its transport holds, and since when it has not moved."""

    __slots__ = ("since", "unsent")

    def __init__(self, unsent: int, now: float) -> None:
        self.unsent = unsent
        self.since = now

    def note(self, unsent: int, now: float) -> None:
        if unsent < self.unsent:
            self.since = now
        # It grows by our own close frame and by replies; that is no progress of the client's.
        self.unsent = unsent

    def stalled(self, unsent: int, now: float) -> float:
        return 0.0 if unsent < self.unsent else now - self.since


class Wheel:
    """Pings, pongs and deadlines of all connections of a listener."""

    def __init__(
        self,
        *,
        ping_interval: float,
        pong_timeout: float,
        open_timeout: float,
        write_timeout: float,
        loop_lag: Histogram,
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
        sample: LatencySample | None = None,
    ) -> None:
        self.opening: Deadlines[Connection] = Deadlines(open_timeout)
        self.closing: Deadlines[Connection] = Deadlines(CLOSE_TIMEOUT)
        self.evicting: Deadlines[Connection] = Deadlines(EVICTION_GRACE)
        # By the time in which we were there to hear of it.
        self.awaiting_pong: Deadlines[Connection] = Deadlines(pong_timeout)
        # Who has not said yet who it is, in a dialect that asks for that after the handshake.
        self.connecting: Deadlines[Connection] = Deadlines(open_timeout)
        # Whose sockets take no more: asked for progress on every tick.
        self.paused: dict[Connection, _Progress] = {}
        # When the credentials of a connection end; any time, so this one is looked through.
        self.expiring: dict[Connection, float] = {}
        self.last_lag = 0.0
        self._slots: list[dict[Connection, None]] = [{} for _ in range(max(1, round(ping_interval / TICK)))]
        self._at = 0
        self._write_timeout = write_timeout
        self._loop_lag = loop_lag
        self._clock = clock
        self._call_later = call_later
        self.sample = sample
        # The same as `awaiting_pong` by the clock alone: who is here no more, but is there, has been spared.
        self._overdue: Deadlines[Connection] = Deadlines(pong_timeout + _ROUNDING)
        self._absence = 0.0  # all that we were late by, in seconds
        self._due = 0.0
        self._is_excused = False
        self._running = False

    def start(self) -> None:
        self._running = True
        self._due = self._clock() + TICK
        self._call_later(TICK, self._turn)

    def stop(self) -> None:
        """Turn no more. Idempotent."""
        self._running = False

    def join(self, connection: Connection) -> None:
        """Give an open connection a place on the wheel, at random."""
        connection.place = random.randrange(len(self._slots))
        self._slots[connection.place][connection] = None
        if self.sample is not None:
            self.sample.meet(connection)

    def watch(self, connection: Connection, now: float) -> None:
        """Ask a connection whose socket takes no more for progress, from now on until it leaves `paused`."""
        self.paused[connection] = _Progress(connection.unsent_bytes, now)

    def stalled_for(self, connection: Connection, now: float) -> float:
        """Return the seconds since the socket of a connection last took a byte, as far as is known; 0 when it has room.

        To ask changes nothing.
        """
        progress = self.paused.get(connection)
        return progress.stalled(connection.unsent_bytes, now) if progress is not None else 0.0

    def forget(self, connection: Connection) -> None:
        """Wait for nothing more from a connection. Idempotent."""
        for deadlines in (self.opening, self.connecting, self.closing, self.evicting):
            deadlines.discard(connection)
        self.answered(connection)
        self.paused.pop(connection, None)
        self.expiring.pop(connection, None)
        if connection.place >= 0:
            self._slots[connection.place].pop(connection, None)
        if self.sample is not None:
            self.sample.leave(connection)

    def answered(self, connection: Connection) -> None:
        """Await no pong any more. Idempotent."""
        self.awaiting_pong.discard(connection)
        self._overdue.discard(connection)

    def _turn(self) -> None:
        if not self._running:
            return
        now = self._clock()
        lag = self.last_lag = max(0.0, now - self._due)
        # Ticks that were missed are not caught up on, and after a late one a whole tick passes: a timer that is due at
        # once would fire before the loop has read what came in the meantime.
        self._due = now + TICK if lag > LATE else max(self._due + TICK, now)
        self._call_later(self._due - now, self._turn)
        self._loop_lag.observe(lag)
        if lag > NOTICED:
            self._absence += lag
        # Late twice in a row, we are overloaded, and must get rid of those who do not read all the more.
        self._is_excused = lag > LATE and not self._is_excused
        self.tick(now, late=self._is_excused)

    def tick(self, now: float, *, late: bool = False) -> None:
        """Do what is due at `now`; a `late` tick only pings, and counts whom it spares."""
        self._ping(now)
        if self.sample is not None:
            self.sample.tick(now)
        if late:
            self._spare(now)
            return
        for connection in self.opening.expire(now):
            if connection.reader.is_queuing:
                self.opening.add(connection, now)
            else:
                connection.abort("handshake not finished in time")
        for connection in self.connecting.expire(now):
            if connection.reader.is_queuing:
                self.connecting.add(connection, now)
            else:
                connection.close(Close.STALE, "no introduction in time")
        for connection in self.closing.expire(now):
            connection.abort("close frame not answered in time")
        for connection in self.evicting.expire(now):
            connection.abort("did not take the close frame in time")
        for connection in self.awaiting_pong.expire(now - self._absence):
            if connection.paused or connection.reader.is_held:
                self._overdue.discard(connection)
                self._await_pong(connection, now)
            else:
                connection.lose_contact()
        self._spare(now)
        for connection in [c for c, deadline in self.expiring.items() if deadline <= now]:
            connection.close(Close.EXPIRED, "credentials expired")
        self._ask_for_progress(now)

    def _ping(self, now: float) -> None:
        self._at = (self._at + 1) % len(self._slots)
        # A copy: a write may fail, and a connection that fails leaves its slot.
        slot = list(self._slots[self._at])
        for connection in slot:
            if connection.ping(_PING, now):
                self._await_pong(connection, now)
        if self.sample is not None:
            self.sample.fill(slot)

    def _await_pong(self, connection: Connection, now: float) -> None:
        self.awaiting_pong.add(connection, now - self._absence)
        self._overdue.add(connection, now)

    def _spare(self, now: float) -> None:
        """Count those who would be gone now, had we not been late ourselves."""
        for connection in self._overdue.expire(now):
            if connection in self.awaiting_pong and not (connection.paused or connection.reader.is_held):
                connection.spare()

    def _ask_for_progress(self, now: float) -> None:
        for connection, progress in list(self.paused.items()):
            progress.note(connection.unsent_bytes, now)
            if now - progress.since >= self._write_timeout:
                connection.abandon()
