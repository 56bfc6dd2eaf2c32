"""The flight recorder: the last 10,000 closes, with all that explains them."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

CAPACITY: Final = 10_000


@dataclass(frozen=True, slots=True)
class Departure:
    """One close. Times in seconds; `at` is wall-clock time, the others are durations."""

    at: float
    address: str
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
    """Keeps the newest departures and forgets the oldest."""

    __slots__ = ("_departures",)

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._departures: deque[Departure] = deque(maxlen=capacity)

    def record(self, departure: Departure) -> None:
        self._departures.append(departure)

    def __len__(self) -> int:
        return len(self._departures)

    def __iter__(self) -> Iterator[Departure]:
        """Newest first."""
        return reversed(self._departures)
