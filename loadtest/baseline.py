"""Two scaling results, before and now: what got worse.

Laws: only steps that both runs measured and that the earlier one held are compared. A figure is worse when it moved the
wrong way by more than the noise of the repetitions explains and by more than a floor below which nobody would care:
over all steps together, where a small change shows, or on one step alone, where besides no repetition of now may be as
good as the worst of before. It reads no file.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadtest.neighbours import BUSY
from loadtest.scaling_result import Point, Repetition, Scaling, label

# How many standard errors of the difference are noise. One figure over all steps is one of six comparisons; a single
# step's is one of some sixty, so it takes more to stand out.
_SIGMAS, _SIGMAS_ALONE = 3.0, 4.0
# The standard error of a median of a few normal values, over that of their mean.
_MEDIAN = 1.2

#: Stands for the step in a comparison over all of them.
ALL_STEPS = "all steps"


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure to compare: which way is worse, and the relative change that nobody would care about."""

    key: str
    name: str
    higher_is_worse: bool
    floor: float


FIGURES = (
    Figure("deliveries_per_second", "deliveries/s", False, 0.02),
    Figure("p50_ms", "p50", True, 0.10),
    Figure("p99_ms", "p99", True, 0.15),
    Figure("p99_9_ms", "p99.9", True, 0.25),
    Figure("cpu_us_per_delivery", "server CPU per delivery", True, 0.05),
    Figure("rss_per_connection", "memory per connection", True, 0.05),
)


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of one step, before and now; `relative` is positive when it got worse."""

    step: str
    name: str
    before: float
    now: float
    relative: float
    tolerance: float
    worse: bool
    sizes: tuple[int, int]  # repetitions before and now

    def __str__(self) -> str:
        return (
            f"{self.step}: {self.name} {self.before:.3g} → {self.now:.3g} "
            f"({self.relative:.0%} worse, {self.tolerance:.0%} would be noise)"
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """What got worse, in sentences; every figure compared; and what makes the two hard to compare."""

    worse: tuple[str, ...]
    changes: tuple[Change, ...]
    notes: tuple[str, ...]


def compare(now: Scaling, before: Scaling) -> Comparison:
    """Hold `now` against `before`."""
    current = {label(p): p for p in now["points"]}
    pairs = [(p, current[label(p)]) for p in before["points"] if p["state"] == "held" and label(p) in current]
    changes = []
    for figure in FIGURES:
        noise = _pooled([p for pair in pairs for p in pair], figure.key)
        steps = [c for old, new in pairs if new["state"] == "held" and (c := _change(figure, old, new, noise))]
        changes += [*_together(figure, steps, noise), *steps]
    broken = [f"{label(old)}: held before, now broken: {new['why']}" for old, new in pairs if new["state"] == "broken"]
    return Comparison(
        (*broken, *(str(c) for c in changes if c.worse)), tuple(changes), (*_doubts(now, before), *_unproved(pairs))
    )


def _change(figure: Figure, old: Point, new: Point, noise: float) -> Change | None:
    before, now = old["median"].get(figure.key), new["median"].get(figure.key)
    if not before or now is None:
        return None
    moved = (now - before) / before
    relative = moved if figure.higher_is_worse else -moved
    olds, news = _values(old["repetitions"], figure.key), _values(new["repetitions"], figure.key)
    own = math.sqrt(statistics.fmean([_relative_variance(olds) or 0.0, _relative_variance(news) or 0.0]))
    error = max(noise, own) * _of_medians(len(olds), len(news))
    tolerance = max(figure.floor, _SIGMAS_ALONE * error)
    apart = min(news) > max(olds) if figure.higher_is_worse else max(news) < min(olds)
    sizes = (len(olds), len(news))
    return Change(label(old), figure.name, before, now, relative, tolerance, relative > tolerance and apart, sizes)


def _together(figure: Figure, steps: Sequence[Change], noise: float) -> list[Change]:
    """The figure over all steps: the geometric mean of its changes, whose noise the number of steps divides."""
    ratios = [math.log(c.now / c.before) for c in steps if c.now > 0]
    if len(ratios) < 2:
        return []
    moved = math.expm1(statistics.fmean(ratios))
    error = noise * math.sqrt(statistics.fmean(_of_medians(*c.sizes) ** 2 for c in steps) / len(ratios))
    tolerance = max(figure.floor, _SIGMAS * error)
    relative = moved if figure.higher_is_worse else -moved
    before, now = (statistics.geometric_mean([v for v in values if v > 0]) for values in _columns(steps))
    return [Change(ALL_STEPS, figure.name, before, now, relative, tolerance, relative > tolerance, (0, 0))]


def _columns(steps: Sequence[Change]) -> tuple[list[float], list[float]]:
    return [c.before for c in steps], [c.now for c in steps]


def _of_medians(olds: int, news: int) -> float:
    """The standard error of the difference of two medians, in standard deviations of one value."""
    return _MEDIAN * math.sqrt(1 / olds + 1 / news)


def _pooled(points: Sequence[Point], key: str) -> float:
    """The relative standard deviation of a repetition, from all steps: three values of one step say too little."""
    variances = [v for p in points if (v := _relative_variance(_values(p["repetitions"], key))) is not None]
    return math.sqrt(statistics.fmean(variances)) if variances else 0.0


def _relative_variance(values: Sequence[float]) -> float | None:
    if len(values) < 2 or not (mean := statistics.fmean(values)):
        return None
    return statistics.variance(values) / mean**2


def _values(repetitions: Sequence[Repetition], key: str) -> list[float]:
    return [r[key] for r in repetitions if r[key] is not None]  # type: ignore[literal-required]


def _unproved(pairs: Sequence[tuple[Point, Point]]) -> list[str]:
    lost = [f"{label(old)}: held before, now unknown: {new['why']}" for old, new in pairs if new["state"] == "unknown"]
    return lost if pairs else ["No step was measured by both runs: nothing is compared."]


def _doubts(now: Scaling, before: Scaling) -> list[str]:
    """What differs between the two besides the server."""
    found = []
    for key in ("cpu_model", "cpus_total", "kernel", "python"):
        new, old = _of(now, key), _of(before, key)
        if new != old:
            found.append(f"The machine differs in {key.replace('_', ' ')}: {old} before, {new} now.")
    if now["cores"] != before["cores"]:
        found.append(f"Pinning differs: {before['cores']} before, {now['cores']} now.")
    if now["slo"] != before["slo"]:
        found.append(f"The promise differs: p99 < {before['slo']['p99_ms']:g} ms before.")
    if all(len(p["repetitions"]) < 2 for s in (now, before) for p in s["points"]):
        found.append("No step was repeated: noise cannot be told from change, and only the floors protect from it.")
    busy = [r["neighbours"] for s in (now, before) for p in s["points"] for r in p["repetitions"] if r["neighbours"]]
    if max(busy, default=0.0) > BUSY:
        found.append(f"The machine was busy with other things, up to {max(busy):.0%} of it: the noise is theirs, too.")
    return found


def _of(scaling: Scaling, key: str) -> object:
    environment: Mapping[str, object] = scaling["environment"] or {}
    return environment.get(key, "unknown")
