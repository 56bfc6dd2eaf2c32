"""The proof that we hear: a probe that is published now and then as anything else is, and must come back.

Laws: who has missed two probes in a row is deaf; a probe that could be published in no way proves nothing. Time is an
argument, in seconds.
"""

from __future__ import annotations

from typing import Final

from server.core.counters import Histogram

_MISSES: Final = 2


class Pulse:
    """A probe every `period` seconds, missed if it is not back after `patience`; `lag` gets the round trips."""

    def __init__(self, period: float, patience: float, lag: Histogram) -> None:
        self._period = period
        self._patience = patience
        self._lag = lag
        self._next = 0.0
        self._serial = 0
        self._sent = 0.0
        self._is_out = False
        self._misses = 0

    @property
    def is_deaf(self) -> bool:
        return self._misses >= _MISSES

    def restart(self, now: float) -> None:
        """Forget what was: the connection is new, and the first probe is due at once."""
        self._next = now
        self._misses = 0
        self._is_out = False

    def beat(self, now: float) -> int | None:
        """Return the serial of a probe that is to be sent now, if one is due."""
        if now < self._next:
            return None
        self._next = now + self._period
        self._serial += 1
        self._sent = now
        self._is_out = True
        return self._serial

    def check(self, now: float, *, is_behind: bool) -> None:
        """Count the probe as missed if it is overdue, and not among what we have not looked at yet (`is_behind`)."""
        if self._is_out and not is_behind and now - self._sent >= self._patience:
            self._is_out = False
            self._misses += 1

    def resent(self, serial: int, now: float) -> None:
        """Learn that a probe is sent by another way, because the first one is closed."""
        if serial == self._serial:
            self._sent = now

    def unsent(self, serial: int) -> None:
        """Learn that a probe could not be published."""
        if serial == self._serial:
            self._is_out = False

    def hear(self, serial: int, now: float) -> None:
        """Learn that a probe has come back."""
        if serial == self._serial:
            self._lag.observe(now - self._sent)
            self._is_out = False
            self._misses = 0
