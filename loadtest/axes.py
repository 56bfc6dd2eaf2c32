"""Axes of a chart: scales, round ticks, and numbers the way a person says them.

Laws: pure; a tick is always a round number (1, 2 or 5 times a power of ten, a power of two of bytes, or a percentile
of nines); an axis always has room for every finite value it was made for. It does not know what is drawn on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

Format = Callable[[float], str]
# What stands where there is no number.
NOTHING = "\N{EN DASH}"


def plain(value: float, digits: int = 3) -> str:
    """A number with `digits` significant digits, no exponent and no trailing zeros."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else NOTHING
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _stepped(value: float, base: float, suffixes: tuple[str, ...]) -> str:
    """`value` divided by the largest power of `base` that leaves at least one, with that power's suffix."""
    size = 0
    # 999.6 reads "1,000" at three digits; the next suffix reads better, hence the half digit.
    while abs(value) >= base * 0.9995 and size < len(suffixes) - 1:
        value, size = value / base, size + 1
    return f"{plain(value)}{suffixes[size]}"


def count(value: float) -> str:
    """A count or a rate: 950, 12.5 k, 1.2 M."""
    return _stepped(value, 1000.0, ("", " k", " M", " G", " T"))


def many(number: int, noun: str) -> str:
    """So many of something: 1 channel, 2,000 channels."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def size(value: float) -> str:
    """Bytes, in powers of 1024: 128 B, 4 KiB, 1.5 GiB."""
    return _stepped(value, 1024.0, (" B", " KiB", " MiB", " GiB", " TiB"))


def microseconds(value: float) -> str:
    """Microseconds, in the unit that reads best: 0.65 ns, 420 µs, 12.3 ms, 1.2 s."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else NOTHING
    # Below a tenth of a microsecond, so that 0.5 µs stays what it is.
    return f"{plain(value * 1000)} ns" if abs(value) < 0.09995 else _stepped(value, 1000.0, (" µs", " ms", " s"))


def milliseconds(value: float) -> str:
    """Milliseconds, in the unit that reads best: 420 µs, 12.3 ms, 1.2 s."""
    return microseconds(value * 1000)


def seconds(value: float) -> str:
    """Seconds of a run's own time: 45 s, 3 min, 1.5 h."""
    if abs(value) < 300:
        return f"{plain(value)} s"
    return f"{plain(value / 60)} min" if abs(value) < 7200 else f"{plain(value / 3600)} h"


def percent(value: float) -> str:
    """A share (1.0 is the whole) in percent."""
    return f"{plain(value * 100)} %"


def nines(value: float) -> str:
    """A percentile as a share, with exactly its nines: 50 %, 99 %, 99.9 %."""
    if value >= 1:
        return "100 %"
    digits = max(0, math.floor(-math.log10(1 - value) + 1e-9) - 2)
    return f"{value * 100:.{digits}f} %" if digits else f"{plain(value * 100)} %"


@dataclass(frozen=True, slots=True)
class Axis:
    """What one side of a chart shows.

    `low` and `high` widen the range to at least these values; `nines` takes shares below 1 and stretches the tail.
    `least` is the smallest distance between ticks: 1 for what is counted in whole numbers.
    """

    title: str
    text: Format = plain
    kind: Literal["linear", "bytes", "log", "nines"] = "linear"
    low: float | None = None
    high: float | None = None
    least: float = 0.0


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis with its range settled: where a value lies between 0 and 1, and its ticks."""

    axis: Axis
    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """The place of `value` along the axis: 0 at its low end, 1 at its high end; clamped."""
        low, high, here = (_bent(self.axis.kind, each) for each in (self.low, self.high, value))
        return min(1.0, max(0.0, (here - low) / (high - low)))


def scaled(axis: Axis, values: Iterable[float], *, most: int = 6) -> Scale:
    """The scale that holds all finite `values`, its ends on round numbers, with about `most` ticks."""
    known = [v for v in (*values, axis.low, axis.high) if v is not None and math.isfinite(v)]
    if axis.kind == "nines":
        return _nines_scale(axis, known)
    if axis.kind == "log":
        return _log_scale(axis, [v for v in known if v > 0], most)
    return _linear_scale(axis, known, most)


def _bent(kind: str, value: float) -> float:
    if kind == "log":
        return math.log10(max(value, 1e-300))
    return -math.log10(max(1 - value, 1e-15)) if kind == "nines" else value


def _linear_scale(axis: Axis, known: list[float], most: int) -> Scale:
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if high <= low:
        low, high = (min(low, 0.0), high if high > 0 else low + 1.0)
    rough = max((high - low) / most, axis.least)
    step = 2.0 ** math.ceil(math.log2(rough)) if axis.kind == "bytes" else _round_step(rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(k * step, 12) for k in range(first, last + 1))
    return Scale(axis, ticks[0], ticks[-1], ticks)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999999)


def _log_scale(axis: Axis, known: list[float], most: int) -> Scale:
    low, high = (min(known), max(known)) if known else (1.0, 10.0)
    fine = [m * 10.0**e for e in range(_decade(low) - 1, _decade(high) + 2) for m in (1, 2, 5)]
    first = max(v for v in fine if v <= low * 1.000001)
    last = min(v for v in fine if v >= high * 0.999999 and v > first)
    inside = [v for v in fine if first <= v <= last]
    # A log axis reads by its decades: a few more ticks than elsewhere are no clutter.
    if len(inside) > most + 2:
        decades = [v for v in inside if math.isclose(math.log10(v), round(math.log10(v)), abs_tol=1e-9)]
        inside = decades[:: math.ceil(len(decades) / (most + 2))] or inside
    return Scale(axis, first, last, tuple(float(f"{v:.6g}") for v in inside))


def _decade(value: float) -> int:
    return math.floor(math.log10(value))


def _nines_scale(axis: Axis, known: list[float]) -> Scale:
    highest = max((v for v in known if v < 1), default=0.9)
    # Up to the next nine if that is near; half a chart for a nine that nobody measured would tell nothing.
    bent = _bent("nines", highest)
    depth = max(1, math.ceil(bent - 0.85))
    top = max(1 - 10.0**-depth, highest)
    ticks = (0.0, 0.5, *(1 - 10.0**-k for k in range(1, depth + 1)))
    return Scale(axis, 0.0, top, ticks)
