"""One timeout for many connections: in order of arrival, so that only the expired ones are ever looked at."""

from typing import Generic, TypeVar

Waiter = TypeVar("Waiter")


class Deadlines(Generic[Waiter]):
    """Who waits for something that must come within `timeout` seconds.

    Law: the timeout is the same for all, so whoever came first expires first; a pass costs what has expired.
    """

    __slots__ = ("_since", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._since: dict[Waiter, float] = {}

    def add(self, waiter: Waiter, now: float) -> None:
        """Start the clock for `waiter`, unless it runs already."""
        self._since.setdefault(waiter, now)

    def discard(self, waiter: Waiter) -> None:
        self._since.pop(waiter, None)

    def expire(self, now: float) -> list[Waiter]:
        """Remove and return those whose time is over, the longest waiting first."""
        expired = []
        for waiter, since in self._since.items():
            if now - since < self.timeout:
                break
            expired.append(waiter)
        for waiter in expired:
            del self._since[waiter]
        return expired

    def __contains__(self, waiter: Waiter) -> bool:
        return waiter in self._since

    def __len__(self) -> int:
        return len(self._since)
