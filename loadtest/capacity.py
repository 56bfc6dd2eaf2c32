"""What the points of a scaling run say together: where each leg ends, what a delivery costs, and one sentence.

Laws: a point that proves nothing feeds no model and is nobody's knee; a model that the points do not carry is a
sentence that says why. It runs nothing and draws nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from loadtest import axes, fit
from loadtest.scaling_result import (
    FittedModel,
    Knee,
    Leg,
    Limit,
    Point,
    Repetition,
    ScalabilityLaw,
    Slo,
    along,
    generator_bound,
    label,
)

_UNITS = {"subscribers": "subscribers", "rate": "publications/s", "size": "bytes"}


def knee(leg: Leg, points: Sequence[Point], slo: Slo, *, out_of_time: bool) -> Knee:
    """Where the leg ended, and what ended it."""
    held: float | None = None
    beyond: tuple[float, Point] | None = None
    for value, step in along(leg, points):
        if step["state"] == "broken":
            beyond = (value, step)
            break
        if step["state"] == "held":
            held = value
    ended = beyond or next(((v, p) for v, p in along(leg, points) if held is None or v > held), None)
    limit = _limit(ended, out_of_time=out_of_time)
    return {
        "leg": leg,
        "held": held,
        "next": ended[0] if ended else None,
        "limit": limit,
        "sentence": _knee_sentence(leg, held, ended, limit, slo),
    }


def sentence(points: Sequence[Point], knees: Sequence[Knee], slo: Slo) -> str:
    """This machine, in one sentence."""
    first = next((k for k in knees if k["leg"] == "subscribers"), None)
    steps = [p for p in points if p["leg"] == "subscribers"]
    if first is None or not steps:
        return "This machine: unknown, nothing was measured."
    base = min(steps, key=lambda p: p["subscribers"])
    load = f"{base['rate']:g} publications/s of {base['size']:,} bytes"
    promise = f"p99 < {slo['p99_ms']:g} ms"
    if first["held"] is None:
        why = f" ({base['why']})" if base["why"] else ""
        least = f"{base['subscribers']:,} subscribers at {load}"
        if any(p["state"] == "broken" for p in steps):
            return f"This machine: not even {least} with {promise} and no loss{why}."
        return f"This machine: unknown at {least}{why}."
    more = "" if first["limit"] == "slo" else "at least "
    return f"This machine: {more}{first['held']:,.0f} subscribers at {load}, {promise}."


def cost(points: Sequence[Point]) -> FittedModel:
    """Server CPU from publications, deliveries and bytes, over every run that proves something and lost nothing."""
    runs = [(p, r) for p in points for r in p["repetitions"] if _priced(r)]
    loads = [
        fit.Load(
            r["publications_per_second"] or 0.0,
            r["deliveries_per_second"] or 0.0,
            r["delivered_bytes_per_second"] or 0.0,
            (r["cpu_us_per_delivery"] or 0.0) * (r["deliveries_per_second"] or 0.0),
        )
        for _, r in runs
    ]
    try:
        return _model(fit.cost_model(loads), [p for p, _ in runs])
    except fit.NotFitted as why:
        return _no_model(str(why))


def memory(points: Sequence[Point]) -> FittedModel:
    """The server's resident memory from its connections."""
    runs = [(p, r) for p in points for r in p["repetitions"] if r["rss"] and r["state"] != "unknown"]
    try:
        fitted = fit.memory_model([r["connections"] for _, r in runs], [float(r["rss"] or 0) for _, r in runs])
        return _model(fitted, [p for p, _ in runs])
    except fit.NotFitted as why:
        return _no_model(str(why))


def law(leg: Leg, points: Sequence[Point]) -> ScalabilityLaw:
    """The Universal Scalability Law through a leg's medians."""
    known = [
        (value, x)
        for value, step in along(leg, points)
        if step["state"] != "unknown" and (x := step["median"]["deliveries_per_second"])
    ]
    empty: ScalabilityLaw = {
        "leg": leg,
        "why_not": None,
        "gamma": None,
        "alpha": None,
        "beta": None,
        "ranges": {},
        "peak": None,
        "r_squared": None,
    }
    try:
        found = fit.usl([n for n, _ in known], [x for _, x in known])
    except fit.NotFitted as why:
        return {**empty, "why_not": str(why)}
    ranges = {"gamma": found.gamma_range, "alpha": found.alpha_range, "beta": found.beta_range}
    return {
        **empty,
        "gamma": found.gamma,
        "alpha": found.alpha,
        "beta": found.beta,
        "ranges": {name: list(pair) for name, pair in ranges.items()},
        "peak": found.peak,
        "r_squared": found.r_squared,
    }


def cost_sentence(cost: FittedModel, memory: FittedModel) -> str:
    """The fitted costs in one line, or why there are none."""
    said = []
    if cost["why_not"] is None:
        said += [_said(c) for c in cost["coefficients"] if c["name"] not in ("idle", "base")]
    if memory["why_not"] is None:
        each = next(c for c in memory["coefficients"] if c["name"] == "connection")
        said.append(f"{axes.size(each['value'])} per connection")
    missing = f"no model of CPU: {cost['why_not']}" if cost["why_not"] else ""
    return "; ".join(filter(None, (" + ".join(said), missing)))


def _said(coefficient: dict[str, object]) -> str:
    value = coefficient["value"]
    assert isinstance(value, float)
    return f"{axes.microseconds(value)} per {coefficient['name']}"


def _limit(ended: tuple[float, Point] | None, *, out_of_time: bool) -> Limit:
    if ended is None:
        return "time" if out_of_time else "grid"
    if ended[1]["state"] == "broken":
        return "slo"
    return "generator" if generator_bound(ended[1]) else "unknown"


def _knee_sentence(leg: Leg, held: float | None, ended: tuple[float, Point] | None, limit: Limit, slo: Slo) -> str:
    unit = _UNITS[leg]
    none = f"no number of {unit} {'held' if limit == 'slo' else 'is known to hold'}"
    holds = f"{held:,.0f} {unit} hold p99 < {slo['p99_ms']:g} ms" if held is not None else none
    if ended is None:
        return f"{holds}; more was not tried" + (" for lack of time." if limit == "time" else ".")
    at = f"{ended[0]:,.0f} {'do' if leg != 'size' else 'does'}"
    why = ended[1]["why"] or "unknown"
    if limit == "slo":
        return f"{holds}; {at} not: {why.rstrip('.')}."
    if limit == "generator":
        return f"{holds}; at {ended[0]:,.0f} the generator was the limit, so this is no knee of the server's."
    return f"{holds}; at {ended[0]:,.0f} the runs prove nothing: {why.rstrip('.')}."


def _priced(run: Repetition) -> bool:
    """Whether the run's cost is that of all its deliveries, and not of clients being thrown out."""
    known = run["cpu_us_per_delivery"] and run["deliveries_per_second"] and run["publications_per_second"]
    return bool(known) and run["state"] != "unknown" and not run["lost"]


def _model(fitted: fit.Fitted, points: Sequence[Point]) -> FittedModel:
    rows = zip(points, fitted.measured, fitted.predicted, fitted.residuals, strict=True)
    return {
        "why_not": None,
        "coefficients": [
            {"name": c.name, "unit": c.unit, "value": c.value, "error": c.error} for c in fitted.coefficients
        ],
        "r_squared": fitted.r_squared,
        "residuals": [
            {"point": label(p), "measured": measured, "predicted": predicted, "relative": relative}
            for p, measured, predicted, relative in rows
        ],
    }


def _no_model(why: str) -> FittedModel:
    return {"why_not": why, "coefficients": [], "r_squared": None, "residuals": []}
