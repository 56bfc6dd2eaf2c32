"""How long a publication takes to its reader, as the reader bears witness: by the echo of a ping.

Some clients, the sample, are asked about once a second each: behind something that was published goes a ping (RFC 6455,
section 5.5.2). Its pong proves that all before it has been read; every WebSocket library and browser sends it by
itself, in either dialect. What is measured is the time from the acceptance of a publication to that pong: our queues,
the kernel's, the network's, and the pong's way back. So it is an upper bound. Laws:

- the ping goes behind what it asks about: behind the write to a client that keeps up, behind what has just left the
  queue of one that lags. Whoever is told nothing is asked nothing.
- of what goes out in one write, the publication that has waited longest counts.
- only what comes back exactly as it was sent is an answer, and once; it holds a number that nobody can guess.
- a client owes one echo at most: one that never answers is not asked again, and never counted.
- nothing is done per delivery: a subscription is another one for the one write that is asked about.
- the sample is a share of the clients, but FEWEST where there are so many; it is asked at most MOST times a tick, so
  that it costs no more with more clients.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from secrets import token_bytes
from struct import Struct
from typing import TYPE_CHECKING, Final

from server.core.frames import PING, encode_frame
from server.core.subscription import OPEN

if TYPE_CHECKING:
    from server.core.counters import Histogram
    from server.core.subscription import Subscription
    from server.edge.connection import Connection

# So that an operator with twenty clients has figures, too.
FEWEST: Final = 10
# In a tick of the wheel: fifty a second, some 3 ms of work.
MOST: Final = 5
# How long the same client is left alone, in seconds: drawn anew each time, so that the sample does not march in step.
PAUSE: Final = (0.5, 1.5)

# When the publication was accepted, by our clock, and a number that cannot be guessed.
_ECHO: Final = Struct("!d8s")


class Probe:
    """One client of the sample: what it is asked, and what it answers."""

    __slots__ = ("_clock", "_connection", "_latency", "_owed", "asked_at", "due", "is_armed")

    def __init__(self, connection: Connection, latency: Histogram, clock: Callable[[], float], due: float) -> None:
        self._connection = connection
        self._latency = latency
        self._clock = clock
        self._owed = b""  # what has to come back; b"" when nothing has been asked
        self.asked_at = 0.0
        self.due = due
        self.is_armed = False  # to be asked with the next that goes out

    def arm(self) -> None:
        """Ask with the next that goes out, unless an answer is still owed. Idempotent."""
        session = self._connection.session
        if self._owed or session is None:
            return
        self.is_armed = True
        subscription = session.subscription
        if subscription is not None and _writes_through(subscription):
            # All other ways lead through the outbox, and whoever drains it looks at the probe.
            subscription.send_text = partial(self._write, subscription)

    def ask(self, published: float) -> None:
        """Send the ping, behind what went out just now; the oldest of that was accepted at `published`."""
        self.is_armed = False
        connection = self._connection
        if connection.is_open and not connection.transport.is_closing():
            self._owed = _ECHO.pack(published, token_bytes(8))
            self.asked_at = self._clock()
            connection.transport.write(encode_frame(PING, self._owed))

    def take(self, payload: bytes) -> bool:
        """Take a pong, and tell if it is the echo that is owed."""
        if not self._owed or payload != self._owed:
            return False
        published, _ = _ECHO.unpack(self._owed)
        self._owed = b""
        self._latency.observe(self._clock() - published)
        return True

    def pass_over(self, pinged_at: float) -> None:
        """Expect no echo that was asked for before `pinged_at`: a later ping has been answered.

        A client may answer only the last of several pings; RFC 6455, section 5.5.3.
        """
        if self._owed and self.asked_at <= pinged_at:
            self._owed = b""

    def _write(self, subscription: Subscription, wire: bytes) -> None:
        batch = subscription.channel.batch
        assert batch is not None, "only a flush writes, and a flush has a batch"
        subscription.resume()
        subscription.send_text(wire)
        if self.is_armed:
            self.ask(batch.accepted[0])


class LatencySample:
    """Who is asked. `share` of the clients is, 0 is nobody; `latency` gets what they answer, in seconds of `clock`."""

    def __init__(self, share: float, latency: Histogram, clock: Callable[[], float]) -> None:
        self._share = share
        self._latency = latency
        self._clock = clock
        # In the order in which they are asked: whoever was goes to the end of the line.
        self._probes: dict[Connection, Probe] = {}

    def __len__(self) -> int:
        return len(self._probes)

    def meet(self, connection: Connection) -> None:
        """Let chance decide whether a newcomer is in the sample."""
        if self._share and (self._is_short or random.random() < self._share):
            self._enter(connection)

    def fill(self, connections: Iterable[Connection]) -> None:
        """Take in some of these if the sample is shorter than it should be: its clients have left, others stayed."""
        if self._share and self._is_short:
            for connection in connections:
                if self._is_short and connection not in self._probes:
                    self._enter(connection)

    def leave(self, connection: Connection) -> None:
        """Forget a client. Idempotent."""
        if self._probes.pop(connection, None) is not None:
            connection.probe = None

    def tick(self, now: float) -> None:
        """Arm the probes that are due, the longest waiting first."""
        for connection, probe in list(islice(self._probes.items(), MOST)):
            if probe.due <= now:
                del self._probes[connection]
                self._probes[connection] = probe
                probe.due = now + random.uniform(*PAUSE)
                probe.arm()

    @property
    def _is_short(self) -> bool:
        return len(self._probes) < FEWEST

    def _enter(self, connection: Connection) -> None:
        if connection.outbox is not None:  # who only hears itself is on no channel
            due = self._clock() + random.uniform(*PAUSE)
            connection.probe = self._probes[connection] = Probe(connection, self._latency, self._clock, due)


def _writes_through(subscription: Subscription) -> bool:
    return (
        subscription.state is OPEN
        and not subscription.lags
        and not subscription.gathers
        and subscription.outbox.is_empty
    )
