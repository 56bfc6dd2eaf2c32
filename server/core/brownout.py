"""The brown-out: how much a process that is in distress sheds, by steps, and when it takes up again what it has shed.

Two signs are looked at: how late the event loop is, and how full the queues are. Each step has a mark for either; what
reaches a mark takes the step. Laws:

- one late moment is none: the median of the last LOOKS looks counts, so a pause of the collector or a machine that
  was asleep changes nothing.
- upwards as far as the load says, and at once; downwards one step at a time, each after HOLD seconds in which both
  signs stayed below the step's lower marks. So a step that helped is not taken back for having helped.
- more load never means a lower step.

Decides, and does nothing. Time is an argument, in seconds of any monotonic clock.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import Final, NamedTuple


class Step(IntEnum):
    """What is shed; each step goes on with those below it."""

    NORMAL = 0
    REFUSE = 1  # nobody new is let in
    BATCH = 2  # publications are gathered for longer
    CONFLATE = 3  # who lags gets the latest alone, where that is no silent loss
    EVICT = 4  # the heaviest laggards go


class Mark(NamedTuple):
    """A load: `lag` of the event loop in seconds, `fill` as a part of the budget for queues."""

    lag: float
    fill: float


# A loop that is late by a quarter of a second has missed every promise of latency, and one that is late by two will
# soon find pongs that it could not read. The queues leave each step some room to act in before the budget's own wall.
MARKS: Final[dict[Step, Mark]] = {
    Step.REFUSE: Mark(0.25, 0.6),
    Step.BATCH: Mark(0.5, 0.7),
    Step.CONFLATE: Mark(1.0, 0.8),
    Step.EVICT: Mark(2.0, 0.9),
}
# The lower marks: half the lag, and so much less of the budget.
_CALM_LAG: Final = 0.5
_CALM_FILL: Final = 0.1
# What EVICT leaves in the queues: below its lower mark, so that it is a step and not a state.
EVICT_TO: Final = 0.75
HOLD: Final = 5.0
LOOKS: Final = 9
# How long publications are gathered at BATCH: twice as long as the loop is late, for a flush that is due sooner than
# the loop turns would gather nothing.
SHORTEST_BATCH: Final = 0.05
LONGEST_BATCH: Final = 1.0


class Brownout:
    """The step that is taken now, and what it was taken for."""

    __slots__ = ("_calm_since", "_hold", "_lags", "fill", "step")

    def __init__(self, hold: float = HOLD) -> None:
        self.step = Step.NORMAL
        self.fill = 0.0
        self._hold = hold
        self._lags: deque[float] = deque([0.0] * LOOKS, maxlen=LOOKS)
        self._calm_since = 0.0

    @property
    def lag(self) -> float:
        """How late the event loop is, in seconds."""
        return sorted(self._lags)[LOOKS // 2]

    @property
    def batch_floor(self) -> float:
        """For how long publications are gathered at least, in seconds."""
        if self.step < Step.BATCH:
            return 0.0
        return min(max(2 * self.lag, SHORTEST_BATCH), LONGEST_BATCH)

    def look(self, lag: float, fill: float, now: float) -> bool:
        """Look at the load; return whether the step has changed.

        `lag` is how late the loop was just now, in seconds; `fill` the part of the budget that the queues take.
        """
        self._lags.append(lag)
        self.fill = fill
        lag = self.lag
        reached = (step for step, mark in MARKS.items() if lag >= mark.lag or fill >= mark.fill)
        wanted = max(reached, default=Step.NORMAL)
        if wanted > self.step:
            self.step, self._calm_since = wanted, now
            return True
        if self.step is Step.NORMAL:
            return False
        if not self._is_calm(MARKS[self.step]):
            self._calm_since = now
        elif now - self._calm_since >= self._hold:
            self.step, self._calm_since = Step(self.step - 1), now
            return True
        return False

    def _is_calm(self, mark: Mark) -> bool:
        return self.lag < mark.lag * _CALM_LAG and self.fill < mark.fill - _CALM_FILL

    def __repr__(self) -> str:
        return f"<Brownout {self.step.name}, lag {self.lag:.3f} s, queues {self.fill:.0%}>"
