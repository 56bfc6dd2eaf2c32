"""Numbers as Grafana shows them in its units; as far as the dashboards use those."""

from __future__ import annotations

import math
from collections.abc import Sequence

_SUFFIXES = {"cps": " c/s", "mps": " msg/s", "Bps": "/s"}
_TIMES = (
    (1e-6, "µs"),
    (1e-3, "ms"),
    (1.0, "s"),
    (60.0, "min"),
    (3600.0, "h"),
    (86400.0, "d"),
    (604800.0, "weeks"),
    (31536000.0, "years"),
)


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """A value with its unit; of what is not a number, a hyphen."""
    if not math.isfinite(value):
        return "-"
    if unit == "percentunit":
        return f"{_rounded(100 * value, decimals)} %"
    if unit == "s":
        return _time(value, decimals)
    if unit in ("bytes", "Bps"):
        return _scaled(value, 1024, ("B", "KiB", "MiB", "GiB"), decimals, " ") + _SUFFIXES.get(unit, "")
    return _scaled(value, 1000, ("", "K", "M", "G"), decimals, " ").rstrip() + _SUFFIXES.get(unit, "")


def steps(low: float, high: float, unit: str, count: int = 4) -> list[float]:
    """Round values from `low` to `high` for an axis, about `count` of them."""
    base = 1024 if unit in ("bytes", "Bps") else 10
    rough = (high - low) / count or 1.0
    power = float(base ** math.floor(math.log(rough, base)))
    factors: Sequence[float] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024) if base == 1024 else (1, 2, 2.5, 5, 10)
    step = next(power * factor for factor in factors if power * factor >= rough * 0.999)
    first = math.ceil(low / step)
    return [number * step for number in range(first, int(high / step + 1e-9) + 1)]


def _time(value: float, decimals: int | None) -> str:
    if value == 0:
        return "0 s"
    scale, name = next(((scale, name) for scale, name in reversed(_TIMES) if abs(value) >= scale * 0.9995), _TIMES[0])
    return f"{_rounded(value / scale, decimals)} {name}"


def _scaled(value: float, base: int, names: Sequence[str], decimals: int | None, gap: str) -> str:
    power = 0
    while abs(value) >= base * 0.9995 and power < len(names) - 1:
        value, power = value / base, power + 1
    return f"{_rounded(value, decimals)}{gap}{names[power]}"


def _rounded(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{value:.{decimals}f}"
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return text if "e" not in text else f"{value:.6f}".rstrip("0").rstrip(".")
