"""Our own publications that Redis has not brought back yet: whoever becomes deaf hears them from here.

Laws: what is here is in the order of the serials; what waits is bounded in number and bytes, and the oldest goes first
(Redis may still bring it). Only what Redis will bring belongs here: a channel that nobody hears any more is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

MOST: Final = 10_000
MOST_BYTES: Final = 32 << 20


class Own(Protocol):
    """A publication of our own."""

    @property
    def channel(self) -> str: ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def hear(self) -> None: ...


class Unheard:
    """See the module."""

    def __init__(self, *, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._waiting: OrderedDict[int, Own] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, serial: int, own: Own) -> None:
        """Remember what was sent; each `serial` is above the one before."""
        self._waiting[serial] = own
        self._bytes += own.size
        while len(self._waiting) > self._most or self._bytes > self._most_bytes:
            self._forget(next(iter(self._waiting)))

    def brought(self, serial: int) -> None:
        """Know that Redis has brought `serial`, and so all before it that it will ever bring."""
        waiting = self._waiting
        while waiting and (first := next(iter(waiting))) <= serial:
            self._forget(first)

    def refused(self, serial: int) -> None:
        """Know that Redis has not taken it. Idempotent."""
        if serial in self._waiting:
            self._forget(serial)

    def leave(self, channel: str) -> None:
        """Know that nobody hears a channel any more."""
        for serial in [serial for serial, own in self._waiting.items() if own.channel == channel]:
            self._forget(serial)

    def hear(self, *, before: Callable[[int], bool] = lambda serial: True) -> None:
        """Have heard, in order, what waits, as long as it is `before`."""
        waiting = self._waiting
        while waiting and before(first := next(iter(waiting))):
            self._forget(first).hear()

    def _forget(self, serial: int) -> Own:
        own = self._waiting.pop(serial)
        self._bytes -= own.size
        return own
