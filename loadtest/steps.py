"""Which loads a scaling run tries, in which order, and when it stops: the climb, without the running.

Laws: a leg ends at the first step that does not hold, and then looks closer below it; no step is begun that would not
end in time; what was left out is named. It runs nothing and reads no clock but the one it is given.
"""

from __future__ import annotations

import argparse
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from loadtest import scaling_result
from loadtest.options import BadOption
from loadtest.scaling_result import Leg, Point, Repetition


@dataclass(frozen=True, slots=True)
class Step:
    """A load to measure."""

    leg: Leg
    subscribers: int
    rate: float
    size: int


@dataclass(frozen=True, slots=True)
class Grid:
    """The steps to take, leg by leg, before it is known where each leg ends."""

    subscribers: tuple[int, ...]
    rates: tuple[float, ...]
    sizes: tuple[int, ...]
    rate_subscribers: int
    rate: float
    size: int

    @classmethod
    def of(cls, parsed: argparse.Namespace) -> Grid:
        """Read the grid out of the options.

        Raises:
            BadOption: a step is not a number, or is not above the one before.
        """
        return cls(
            tuple(int(n) for n in _steps("SUBSCRIBERS", parsed.subscribers_steps)),
            _steps("RATES", parsed.rate_steps),
            tuple(int(n) for n in _steps("SIZES", parsed.size_steps)),
            parsed.rate_subscribers,
            parsed.rate,
            parsed.size,
        )

    def leg(self, leg: Leg) -> tuple[Step, ...]:
        """A leg's steps, ascending."""
        if leg == "subscribers":
            return tuple(Step(leg, n, self.rate, self.size) for n in self.subscribers)
        if leg == "rate":
            return tuple(Step(leg, self.rate_subscribers, r, self.size) for r in self.rates)
        # A rate at which deliveries cost enough to be seen, and few enough to be far from the knee.
        rate = self.rates[min(1, len(self.rates) - 1)] if self.rates else self.rate
        return tuple(Step(leg, self.rate_subscribers, rate, size) for size in self.sizes if size != self.size)

    def between(self, leg: Leg, held: float | None, not_held: float) -> Step | None:
        """A step between the last that held and the first that did not, if there is room for one."""
        value = _rounded(math.sqrt(held * not_held) if held else not_held / 4)
        value = max(1.0, round(value)) if leg == "subscribers" else value
        if leg == "size" or not (held or 0) * 1.05 < value < not_held * 0.95:
            return None
        if leg == "subscribers":
            return Step(leg, int(value), self.rate, self.size)
        return Step(leg, self.rate_subscribers, value, self.size)


class Measurements:
    """Takes steps and keeps their points; knows how long a run takes, and when it is too late for another."""

    def __init__(
        self,
        run: Callable[[Step, int], tuple[Repetition, float]],
        *,
        repeat: int,
        refine: int,
        budget: float,
        estimate: Callable[[Step], float],
        tell: Callable[[Point], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.points: list[Point] = []
        self.left_out: list[str] = []
        self.late: set[Leg] = set()
        self._run, self._repeat, self._refine = run, repeat, refine
        self._budget, self._estimate, self._tell = budget, estimate, tell
        self._clock, self._began = clock, clock()
        # How much longer runs take than was estimated; learned from each.
        self._factor = 1.0

    def leg(self, grid: Grid, leg: Leg, share: float) -> None:
        """Climb one leg until a step does not hold, then look closer where it broke."""
        deadline = self._began + share * self._budget
        held: float | None = None
        failed: float | None = None
        for step in grid.leg(leg):
            made = self._take(step, deadline)
            if made is None:
                break
            if made["state"] == "held":
                held = float(made[leg])
            elif leg != "size":  # the sizes do not seek a limit, but a cost
                failed = float(made[leg])
                break
        for _ in range(self._refine):
            closer = grid.between(leg, held, failed) if failed else None
            made = self._take(closer, deadline) if closer else None
            if made is None:
                break
            held, failed = (float(made[leg]), failed) if made["state"] == "held" else (held, float(made[leg]))

    def _take(self, step: Step, deadline: float) -> Point | None:
        """Run a step as often as asked; None when there is no time for it."""
        if self._clock() + self._repeat * self._estimate(step) * self._factor > deadline and self.points:
            self.late.add(step.leg)
            self.left_out.append(f"{step.subscribers:,} subscribers at {step.rate:g}/s of {step.size:,} B")
            return None
        runs: list[Repetition] = []
        for number in range(1, self._repeat + 1):
            repetition, took = self._run(step, number)
            runs.append(repetition)
            self._factor = max(0.5, 0.5 * self._factor + 0.5 * took / self._estimate(step))
            # The generator will not grow between repetitions: most of them have spoken.
            if 2 * sum(r["generator_bound"] for r in runs) > self._repeat:
                break
        made = scaling_result.point(step.leg, step.subscribers, step.rate, step.size, runs)
        self.points.append(made)
        self._tell(made)
        return made


def _steps(variable: str, text: str) -> tuple[float, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(re.fullmatch(r"\d+(\.\d+)?", part) for part in parts):
        raise BadOption(f"{variable}={text}: write numbers with commas between them")
    values = tuple(float(part) for part in parts)
    if list(values) != sorted(set(values)) or any(v <= 0 for v in values):
        raise BadOption(f"{variable}={text}: each step must be above the one before")
    return values


def _rounded(value: float) -> float:
    """To two significant digits: nobody wants to read that the knee lies between 2,000 and 2,828."""
    digits = 1 - math.floor(math.log10(value))
    return round(value, digits)
