"""The flight recorder: the last 10,000 closes, with all that explains them."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

CAPACITY: Final = 10_000


@dataclass(frozen=True, slots=True)
class Departure:
    """One close. Times in seconds; `at` is wall-clock time, the others are durations."""

    at: float
    address: str
    client: str
    dialect: str
    channel: str
    code: int
    reason: str
    queue_messages: int
    queue_bytes: int
    queue_age: float
    connected: float
    rtt: float
    loop_lag: float


class Recorder:
    """Keeps the newest departures and forgets the oldest; `total` counts all that there ever were."""

    __slots__ = ("_departures", "total")

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._departures: deque[Departure] = deque(maxlen=capacity)
        self.total = 0

    def record(self, departure: Departure) -> None:
        self.total += 1
        self._departures.append(departure)

    def before(self, mark: int, most: int) -> list[Departure]:
        """Return those of the first `mark` that ever were which are still kept: newest first, at most `most`.

        So a long list can be read in pieces while more is recorded: each piece ends where the mark of the next stands.
        """
        newer = self.total - mark
        return list(islice(reversed(self._departures), newer, newer + most)) if newer >= 0 else []

    def __len__(self) -> int:
        return len(self._departures)

    def __iter__(self) -> Iterator[Departure]:
        """Newest first."""
        return reversed(self._departures)
