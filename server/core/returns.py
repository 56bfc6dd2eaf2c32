"""When those who are sent away, or turned away, are to come back: not all of them at once.

Laws: nobody is told a time before which others could not be served; the times that are told add up to no more a second
than those who take them in can do beside their work. Time is an argument, in seconds of any monotonic clock.
"""

from __future__ import annotations

from typing import Final

# How many clients a second one worker takes in beside its work. A core does 1,700 handshakes a second when it does
# nothing else; most of it is for those who are there already, and for what a client asks for once it is in.
RETURNS_PER_SECOND: Final = 500.0
# Fewer clients than that are spread, too.
SHORTEST_SPREAD: Final = 1.0
# Retry-After, in seconds.
SOONEST: Final = 1
LATEST: Final = 30


def spread_of(clients: int, *, takers: float = 1.0, connect_rate: float = 0.0, goodbye_rate: float = 0.0) -> float:
    """Return over how many seconds so many clients should come back to as many `takers`, counted in workers.

    `connect_rate` is what one worker lets in a second (0: no limit). Goodbyes at a `goodbye_rate` a second (0: at once)
    that is no faster spread the returns by themselves.
    """
    rate = RETURNS_PER_SECOND if not connect_rate else min(connect_rate, RETURNS_PER_SECOND)
    if 0.0 < goodbye_rate <= rate * takers:
        return SHORTEST_SPREAD
    return max(SHORTEST_SPREAD, clients / (rate * takers))


class Appointments:
    """Gives everyone who is turned away a second to come back in, and no more than `rate` of them the same."""

    __slots__ = ("_interval", "_next")

    def __init__(self, rate: float, now: float) -> None:
        self._interval = 1 / rate
        self._next = now

    def give(self, now: float, soonest: int = SOONEST) -> int:
        """Return after how many seconds the next one should come back: `soonest`, and up to LATEST more."""
        ahead = self._next - now
        if not 0.0 <= ahead < LATEST:
            # Nobody waits, or there is a round full of them: many never come back.
            ahead = 0.0
        self._next = now + ahead + self._interval
        return soonest + int(ahead)
