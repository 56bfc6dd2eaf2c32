"""The result of a scaling run: the schema of ``scaling.json``, and how runs become points and points a knee.

Laws: pure but for `read` and `write`; every figure is cut to the seconds after the warm-up; what was not measured is
``None``; a run that proves nothing makes a point unknown, and an unknown point is never the server's knee. Within one
``schema`` number keys may be added, never renamed, removed or given another unit.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

from loadtest.neighbours import BUSY
from loadtest.report_charts import cpu_limit, lag_limit
from loadtest.result import Environment, Result, ResultError, TimelineRow

SCHEMA = 1
SCALING_FILE = "scaling.json"

State = Literal["held", "broken", "unknown"]
Leg = Literal["subscribers", "rate", "size"]
Limit = Literal["slo", "generator", "unknown", "grid", "time"]

#: The figures of a point that are compared and drawn.
FIGURES = (
    "deliveries_per_second",
    "p50_ms",
    "p99_ms",
    "p99_9_ms",
    "cpu_us_per_delivery",
    "rss_per_connection",
)


class Slo(TypedDict):
    """The promise that every step is held against."""

    p99_ms: float
    lost: int  # always 0: neither lost nor declared dropped


class Repetition(TypedDict):
    """One run of one step. Rates are means over the seconds after the warm-up."""

    state: State
    why: str | None
    generator_bound: bool  # a generator process was over a limit of its own: nothing is known about the server
    publications_per_second: float | None
    deliveries_per_second: float | None
    delivered_bytes_per_second: float | None  # payload
    p50_ms: float | None
    p99_ms: float | None
    p99_9_ms: float | None
    max_ms: float | None
    server_cpu: float | None  # % of one core, all workers
    cpu_us_per_delivery: float | None
    connections: int  # open when `rss` was taken
    rss: int | None  # bytes, all connected, nothing published yet
    rss_per_connection: float | None  # growth since before the first connection
    lost: int  # lost, or declared dropped
    generator_cpu: float | None  # % of one core, the busiest process, its worst 3 s
    neighbours: float | None  # the share of the machine's CPU that went to others
    result: str  # its result.json, relative to the directory of scaling.json


class Point(TypedDict):
    """One step of the load, and its repetitions."""

    leg: Leg
    subscribers: int
    rate: float
    size: int
    state: State  # what most repetitions say
    why: str | None
    median: dict[str, float | None]  # of each of FIGURES
    spread: dict[str, list[float] | None]  # [lowest, highest] of each of FIGURES
    repetitions: list[Repetition]


class Knee(TypedDict):
    """Where one leg ended."""

    leg: Leg
    held: float | None  # the highest value up to which every known step held; None: not even the lowest did
    next: float | None  # the first one above it that did not
    limit: Limit  # why the leg ended there
    sentence: str


class FittedModel(TypedDict):
    """A model, or the sentence that says why there is none."""

    why_not: str | None
    coefficients: list[dict[str, Any]]  # name, unit, value, error
    r_squared: float | None
    residuals: list[dict[str, Any]]  # point (label), measured, predicted, relative


class ScalabilityLaw(TypedDict):
    """The Universal Scalability Law on one leg, or the sentence that says why there is none."""

    leg: Leg
    why_not: str | None
    gamma: float | None
    alpha: float | None
    beta: float | None
    ranges: dict[str, list[float]]  # the central 95 % of gamma, alpha, beta
    peak: float | None
    r_squared: float | None


class Scaling(TypedDict):
    """``scaling.json``."""

    schema: int
    started: str
    ended: str
    command: str
    options: dict[str, Any]
    environment: Environment | None
    server_build: dict[str, str] | None
    cores: str  # how server and generator were pinned, in words
    slo: Slo
    points: list[Point]
    knees: list[Knee]
    cost: FittedModel  # server CPU: µs/s idle, µs per publication, delivery, byte
    memory: FittedModel  # bytes: base, per connection
    laws: list[ScalabilityLaw]
    left_out: list[str]  # steps that the time did not suffice for
    sentence: str


def repetition(result: Result, slo: Slo, path: str, neighbours: float | None = None) -> Repetition:
    """What one run says about its step."""
    rows = steady(result["timeline"], result["plan"]["warmup"])
    latency, lost = result["latency"], result["ledger"]["lost"] + result["ledger"]["declared"]
    delivered = _mean(rows, "delivered")
    state, why = _judged(result, slo, neighbours or 0.0)
    busiest = [row["cpu_sustained"] for row in result["generator"] if row["cpu_sustained"] is not None]
    lags = [row["lag_p99_ms"] for row in result["generator"] if row["lag_p99_ms"] is not None]
    trouble = result["troublemakers"]
    opened = result["clients"]["connected"] + result["publishers"]["connected"]
    opened += trouble["stalled_observed"] + trouble["slow_observed"]
    before, connected = result["server"]["rss_before"], result["server"]["rss_connected"]
    return {
        "state": state,
        "why": why,
        "generator_bound": max(busiest, default=0) > cpu_limit(result) or max(lags, default=0) > lag_limit(result),
        "publications_per_second": _mean(rows, "published"),
        "deliveries_per_second": delivered,
        "delivered_bytes_per_second": None if delivered is None else delivered * result["plan"]["size"],
        "p50_ms": _thousandth(latency["p50"]),
        "p99_ms": _thousandth(latency["p99"]),
        "p99_9_ms": _thousandth(latency["p99_9"]),
        "max_ms": _thousandth(latency["max"]),
        "server_cpu": _mean(rows, "server_cpu"),
        "cpu_us_per_delivery": _cpu_per_delivery(rows, result),
        "connections": opened,
        "rss": connected,
        "rss_per_connection": (connected - before) / opened if connected and before is not None and opened else None,
        "lost": lost,
        "generator_cpu": max(busiest, default=None),
        "neighbours": neighbours,
        "result": path,
    }


def failed(why: str, path: str) -> Repetition:
    """A run that left no result."""
    nothing: dict[str, Any] = dict.fromkeys(Repetition.__annotations__)
    known = {"state": "unknown", "why": why, "generator_bound": False, "connections": 0, "lost": 0, "result": path}
    return cast(Repetition, nothing | known)


def steady(rows: Sequence[TimelineRow], warmup: float) -> list[TimelineRow]:
    """The whole seconds after the warm-up; the last one may be cut short by the end, and is left out."""
    after = [row for row in rows if row["t"] >= warmup]
    return after[:-1] if len(after) > 1 else after


def point(leg: Leg, subscribers: int, rate: float, size: int, repetitions: list[Repetition]) -> Point:
    """One step out of its repetitions: what most of them say."""
    states = [r["state"] for r in repetitions]
    most = next((s for s in ("held", "broken") if states.count(s) * 2 > len(states)), "unknown")
    why = next((r["why"] for r in repetitions if r["state"] == most and r["why"]), None)
    if most == "unknown" and "unknown" not in states:
        why = f"the repetitions disagree: {', '.join(states)}"
    measured = {key: [v for r in repetitions if (v := r[key]) is not None] for key in FIGURES}  # type: ignore[literal-required]
    return {
        "leg": leg,
        "subscribers": subscribers,
        "rate": rate,
        "size": size,
        "state": cast(State, most),
        "why": why,
        "median": {key: statistics.median(values) if values else None for key, values in measured.items()},
        "spread": {key: [min(values), max(values)] if values else None for key, values in measured.items()},
        "repetitions": repetitions,
    }


def along(leg: Leg, points: Iterable[Point]) -> list[tuple[float, Point]]:
    """A leg's points by the value that it raises, ascending."""
    return sorted(((float(p[leg]), p) for p in points if p["leg"] == leg), key=lambda pair: pair[0])


def generator_bound(step: Point) -> bool:
    """Whether the step is unknown because the generator was the limit."""
    return step["state"] == "unknown" and any(r["generator_bound"] for r in step["repetitions"])


def label(step: Point) -> str:
    """A step in words, which also names it in a comparison."""
    return f"{step['subscribers']:,} subscribers at {step['rate']:g}/s of {step['size']:,} B"


def write(scaling: Scaling, into: Path) -> Path:
    """Write ``scaling.json`` and return its path."""
    into.mkdir(parents=True, exist_ok=True)
    path = into / SCALING_FILE
    path.write_text(json.dumps(scaling, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read(path: Path) -> Scaling:
    """Read a ``scaling.json``, or the one in a directory.

    Raises:
        ResultError: the file is missing, is not JSON, or is of another schema.
    """
    path = path / SCALING_FILE if path.is_dir() else path
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultError(f"{path}: {error}") from error
    if not isinstance(data, dict) or "points" not in data or "knees" not in data:
        raise ResultError(f"{path}: not a scaling result")
    if data.get("schema") != SCHEMA:
        raise ResultError(f"{path}: schema {data.get('schema')}, this program reads {SCHEMA}")
    return cast(Scaling, data)


def _judged(result: Result, slo: Slo, neighbours: float) -> tuple[State, str | None]:
    verdict, p99 = result["verdict"], _thousandth(result["latency"]["p99"])
    if verdict["verdict"] == "unknown":
        return "unknown", next(iter(verdict["reasons"]), "the run proves nothing")
    if verdict["verdict"] == "fail":
        return "broken", next(iter(verdict["reasons"]), "a promise was broken")
    if declared := result["ledger"]["declared"]:
        return "broken", f"{declared:,} deliveries were dropped"
    if p99 is None:
        return "unknown", "nothing was timed after the warm-up"
    if p99 < slo["p99_ms"]:
        return "held", None
    # Who holds the promise on a busy machine holds it anywhere; who breaks it there has not been measured.
    if neighbours > BUSY:
        return "unknown", f"p99 {p99:.3g} ms, but {neighbours:.0%} of the machine was busy with other things"
    return "broken", f"p99 {p99:.3g} ms"


def _cpu_per_delivery(rows: Sequence[TimelineRow], result: Result) -> float | None:
    cpu, delivered = _mean(rows, "server_cpu"), _mean(rows, "delivered")
    if cpu is None or not delivered:
        return result["server"]["cpu_us_per_delivery"]
    # A percent of one core is 10,000 microseconds in each second.
    return cpu * 10_000 / delivered


def _mean(rows: Sequence[TimelineRow], key: str) -> float | None:
    values = [row[key] for row in rows if row[key] is not None]  # type: ignore[literal-required]
    return statistics.fmean(values) if values else None


def _thousandth(value: float | None) -> float | None:
    return None if value is None else value / 1000
