"""The pictures of a scaling run: each function makes one chart out of a `Scaling`.

Laws: a point that proves nothing is drawn as a ring, outside every line. It does not know of HTML.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from loadtest import axes
from loadtest.axes import Axis
from loadtest.charts import Chart, Mark, Point, Series
from loadtest.scaling_result import Leg, Scaling, along
from loadtest.scaling_result import Point as Step

LEGS: tuple[Leg, ...] = ("subscribers", "rate", "size")
TITLES = {"subscribers": "Raising subscribers", "rate": "Raising the rate", "size": "Raising the payload"}
UNITS = {"subscribers": "subscribers", "rate": "publications/s", "size": "bytes"}
_PERCENTILES = {"p50": "p50_ms", "p99": "p99_ms", "p99.9": "p99_9_ms"}


def sheet(scaling: Scaling) -> list[Chart]:
    """The charts that tell the story, in its order."""
    legs: list[Leg] = [leg for leg in ("subscribers", "rate") if along(leg, scaling["points"])]
    pairs = [chart for leg in legs for chart in (throughput(scaling, leg), latency(scaling, leg))]
    return [*pairs, cpu(scaling), memory(scaling)]


def throughput(scaling: Scaling, leg: Leg) -> Chart:
    """Deliveries per second along a leg, what was asked for, and the knee."""
    steps = along(leg, scaling["points"])
    asked = [(value, step["subscribers"] * step["rate"]) for value, step in steps]
    return Chart(
        f"throughput-{leg}",
        f"{TITLES[leg]}: deliveries/s",
        f"Deliveries per second against {UNITS[leg]}: the median of the repetitions, their range as whiskers.",
        Axis(UNITS[leg], axes.count, "log"),
        Axis("deliveries/s", axes.count, low=0),
        (*_measured(steps, "deliveries_per_second"), Series("asked for", asked, 5, dash=2), *_law(scaling, leg, steps)),
        marks=_knee(scaling, leg),
    )


def latency(scaling: Scaling, leg: Leg) -> Chart:
    """p50, p99 and p99.9 along a leg, against the promise."""
    steps = along(leg, scaling["points"])
    known = [(value, step) for value, step in steps if step["state"] != "unknown"]
    lines = [
        Series(name, _medians(known, key), tone, "both", _whiskers(known, key))
        for tone, (name, key) in enumerate(_PERCENTILES.items())
    ]
    unknown = [(value, step) for value, step in steps if step["state"] == "unknown"]
    rings = Series("p99, proves nothing", _medians(unknown, "p99_ms"), 5, "dots", hollow=True)
    promise = scaling["slo"]["p99_ms"]
    return Chart(
        f"latency-{leg}",
        f"{TITLES[leg]}: latency",
        f"Latency percentiles against {UNITS[leg]}, on logarithmic scales; the promise is p99 < {promise:g} ms.",
        Axis(UNITS[leg], axes.count, "log"),
        Axis("intended send to receipt, log scale", axes.milliseconds, "log"),
        (*lines, *((rings,) if unknown else ())),
        marks=(Mark(f"p99 < {promise:g} ms", promise), *_knee(scaling, leg)),
    )


def cpu(scaling: Scaling) -> Chart:
    """What a delivery costs the server, against how many there are."""
    series = []
    for tone, leg in enumerate(LEGS):
        steps = [
            (x, step)
            for _, step in along(leg, scaling["points"])
            if step["state"] != "unknown" and (x := step["median"]["deliveries_per_second"])
        ]
        if steps:
            points = _medians(sorted(steps, key=lambda pair: pair[0]), "cpu_us_per_delivery")
            series.append(Series(TITLES[leg].lower(), points, tone, "both"))
    return Chart(
        "cpu",
        "Server CPU per delivery",
        "Microseconds of the server's CPU per delivery, against deliveries per second, for each leg.",
        Axis("deliveries/s", axes.count, "log"),
        Axis("CPU per delivery", axes.microseconds, low=0),
        series,
        empty="not measured: neither /metrics nor the process of the server was known",
    )


def memory(scaling: Scaling) -> Chart:
    """The server's memory against its connections, with the fitted line."""
    runs = [(r["connections"], float(r["rss"])) for p in scaling["points"] for r in p["repetitions"] if r["rss"]]
    series = [Series("measured", sorted(runs), 0, "dots")]
    model = scaling["memory"]
    if runs and model["why_not"] is None:
        base, each = (c["value"] for c in model["coefficients"])
        ends = (min(n for n, _ in runs), max(n for n, _ in runs))
        series.append(Series("fitted", [(n, base + each * n) for n in ends], 1))
    return Chart(
        "memory",
        "Server memory",
        "Resident memory of the server with all clients connected and nothing published yet, for every run.",
        Axis("connections", axes.count, low=0),
        Axis("resident memory", axes.size, "bytes", low=0),
        series,
        empty="not measured: the process of the server was not known",
    )


def residuals(scaling: Scaling) -> Chart:
    """How far the cost model is from each run."""
    rows = scaling["cost"]["residuals"]
    return Chart(
        "residuals",
        "Cost model: what it misses",
        "For each run, how far the measured CPU lies above or below the fitted model, against the CPU measured.",
        Axis("measured CPU per second", axes.microseconds, "log"),
        Axis("measured above the model, %", axes.plain),
        (Series("runs", [(row["measured"], row["relative"] * 100) for row in rows], 0, "dots"),),
        marks=(Mark("the model", 0.0),),
        empty=f"no model: {scaling['cost']['why_not']}",
    )


def _measured(steps: Sequence[tuple[float, Step]], key: str) -> list[Series]:
    """A line through what is known, and a ring for what is not."""
    known = [(value, step) for value, step in steps if step["state"] != "unknown"]
    found = [Series("measured", _medians(known, key), 0, "both", _whiskers(known, key))]
    unknown = [(value, step) for value, step in steps if step["state"] == "unknown"]
    if unknown:
        found.append(Series("proves nothing", _medians(unknown, key), 5, "dots", hollow=True))
    return found


def _medians(steps: Sequence[tuple[float, Step]], key: str) -> list[Point]:
    return [(value, _number(step["median"].get(key))) for value, step in steps]


def _whiskers(steps: Sequence[tuple[float, Step]], key: str) -> list[Point]:
    spans = (step["spread"].get(key) for _, step in steps)
    return [(span[0], span[1]) if span else (math.nan, math.nan) for span in spans]


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _law(scaling: Scaling, leg: Leg, steps: Sequence[tuple[float, Step]]) -> tuple[Series, ...]:
    law = next((law for law in scaling["laws"] if law["leg"] == leg), None)
    if law is None or law["gamma"] is None or law["alpha"] is None or law["beta"] is None:
        return ()
    low, high = steps[0][0], steps[-1][0]
    loads = [low * (high / low) ** (k / 40) for k in range(41)]
    gamma, alpha, beta = law["gamma"], law["alpha"], law["beta"]
    points = [(n, gamma * n / (1 + alpha * (n - 1) + beta * n * (n - 1))) for n in loads]
    return (Series("scalability law", points, 3),)


def _knee(scaling: Scaling, leg: Leg) -> tuple[Mark, ...]:
    knee = next((knee for knee in scaling["knees"] if knee["leg"] == leg), None)
    if knee is None or knee["held"] is None:
        return ()
    name = "knee" if knee["limit"] == "slo" else "highest proven"
    return (Mark(f"{name}: {knee['held']:,.0f}", knee["held"], "x"),)
