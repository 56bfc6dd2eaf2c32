"""report.html and scaling.svg of a scaling run.

Laws: made from a `Scaling` and a `Comparison` alone; the figures are theirs, never this module's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from loadtest import axes, charts, page, scaling_charts
from loadtest.baseline import Comparison
from loadtest.capacity import cost_sentence
from loadtest.page import Markup
from loadtest.scaling_charts import LEGS, TITLES, UNITS
from loadtest.scaling_result import FittedModel, Leg, Scaling, along
from loadtest.scaling_result import Point as Step

REPORT_FILE = "report.html"
PICTURE_FILE = "scaling.svg"


def write(scaling: Scaling, into: Path, compared: Comparison | None) -> Path:
    """Make report.html and scaling.svg; returns the report's path."""
    (into / PICTURE_FILE).write_text(picture(scaling), encoding="utf-8")
    path = into / REPORT_FILE
    path.write_text(render(scaling, compared), encoding="utf-8")
    return path


def picture(scaling: Scaling) -> str:
    """All charts in one file, for a README."""
    return charts.sheet(scaling_charts.sheet(scaling), scaling["sentence"])


def render(scaling: Scaling, compared: Comparison | None = None) -> str:
    """The whole page."""
    more = [knee["sentence"] for knee in scaling["knees"]]
    return page.page(
        f"Stentor scaling, {scaling['started']}",
        (
            page.verdict(*_verdict(scaling, compared), scaling["sentence"], more),
            page.section("Compared with the baseline", *_comparison(compared)) if compared else Markup(""),
            *(_leg(scaling, leg) for leg in LEGS),
            page.section(
                "What it costs",
                page.figures(scaling_charts.cpu(scaling), scaling_charts.memory(scaling)),
                *_costs(scaling),
            ),
            page.section("Universal Scalability Law", _laws(scaling)),
            page.section("Environment", page.words(_environment(scaling))),
            page.section("Exact command", page.command(scaling["command"])),
            Markup(
                "<footer>Beside this page: scaling.json (every figure of it), scaling.svg, each run in runs/.</footer>"
            ),
        ),
    )


def _verdict(scaling: Scaling, compared: Comparison | None) -> tuple[str, str]:
    """The kind of the verdict, and what is said large."""
    if compared and compared.worse:
        return "fail", "Worse than the baseline"
    first = scaling["knees"][0] if scaling["knees"] else None
    if first is None or first["held"] is None:
        return ("fail", "Not held") if first and first["limit"] == "slo" else ("unknown", "Unknown")
    least = "" if first["limit"] == "slo" else "At least "
    return "pass", f"{least}{first['held']:,.0f} {UNITS[first['leg']]}"


def _leg(scaling: Scaling, leg: Leg) -> Markup:
    steps = along(leg, scaling["points"])
    if not steps:
        return Markup("")
    drawn = (
        page.figures(scaling_charts.throughput(scaling, leg), scaling_charts.latency(scaling, leg))
        if leg != "size"
        else Markup("")
    )
    return page.section(TITLES[leg], drawn, _table(leg, steps))


def _table(leg: Leg, steps: Sequence[tuple[float, Step]]) -> Markup:
    head = (UNITS[leg], "", "deliveries/s", "p50", "p99", "p99.9", "CPU per delivery", "memory per conn.")
    say: dict[str, Callable[[float], str]] = {
        "deliveries_per_second": axes.count,
        "p50_ms": axes.milliseconds,
        "p99_ms": axes.milliseconds,
        "p99_9_ms": axes.milliseconds,
        "cpu_us_per_delivery": axes.microseconds,
        "rss_per_connection": axes.size,
    }
    rows = [
        (f"{value:,g}", step["state"], *(_spread(step, key, text) for key, text in say.items()))
        for value, step in steps
    ]
    fixed = steps[0][1]
    load = {
        "subscribers": f"{fixed['rate']:g} publications/s of {fixed['size']:,} bytes",
        "rate": f"{fixed['subscribers']:,} subscribers, {fixed['size']:,} bytes",
        "size": f"{fixed['subscribers']:,} subscribers at {fixed['rate']:g} publications/s",
    }[leg]
    wrong = {i for i, (_, step) in enumerate(steps) if step["state"] == "broken"}
    runs = axes.many(len(fixed["repetitions"]), "run")
    caption = f"{load}. Medians of {runs}, with half of their range; warm-up left out."
    # Why a step did not hold takes a sentence, and a sentence has no room beside so many figures.
    why = [f"{value:,g}: {step['why'].rstrip('.')}." for value, step in steps if step["why"]]
    return Markup(page.table(head, rows, caption, wrong=wrong) + page.listed(why))


def _spread(step: Step, key: str, say: Callable[[float], str]) -> str:
    """The median, and half of the range of the repetitions in percent of it."""
    median, span = step["median"].get(key), step["spread"].get(key)
    if median is None:
        return axes.NOTHING
    if not span or not median or span[0] == span[1]:
        return say(median)
    return f"{say(median)} ±{50 * (span[1] - span[0]) / median:.0f} %"


def _costs(scaling: Scaling) -> tuple[Markup, ...]:
    cost, memory = scaling["cost"], scaling["memory"]
    parts = [page.paragraph(f"Fitted: {cost_sentence(cost, memory)}.")]
    for name, model in (("server CPU", cost), ("server memory", memory)):
        if model["why_not"] is not None:
            parts.append(page.paragraph(f"No model of {name}: {model['why_not']}.", "faint"))
        else:
            parts.append(_coefficients(name, model))
    if cost["why_not"] is None:
        parts += [page.subtitle("Residuals"), page.figures(scaling_charts.residuals(scaling)), _residual_table(cost)]
    return tuple(parts)


def _coefficients(name: str, model: FittedModel) -> Markup:
    rows = [
        (f"per {c['name']}" if c["name"] not in ("idle", "base") else c["name"], _costed(c), _error(c))
        for c in model["coefficients"]
    ]
    worst = max((abs(row["relative"]) for row in model["residuals"]), default=0.0)
    caption = (
        f"{name}: R² {model['r_squared']:.4f}, {len(model['residuals'])} runs, the farthest {axes.percent(worst)} off"
    )
    return page.table((name, "cost", "standard error"), rows, caption)


def _costed(coefficient: dict[str, object]) -> str:
    value, unit = coefficient["value"], coefficient["unit"]
    assert isinstance(value, float)
    return axes.size(value) if unit == "B" else axes.microseconds(value) + str(unit).removeprefix("µs")


def _error(coefficient: dict[str, object]) -> str:
    error = coefficient["error"]
    return "held at 0" if error is None else _costed({**coefficient, "value": error})


def _residual_table(model: FittedModel) -> Markup:
    by_step: dict[str, list[float]] = {}
    for row in model["residuals"]:
        by_step.setdefault(row["point"], []).append(row["relative"])
    rows = [(step, *(f"{100 * value:.1f} %" for value in values)) for step, values in by_step.items()]
    most = max((len(values) for values in by_step.values()), default=0)
    padded = [(*row, *([""] * (most + 1 - len(row)))) for row in rows]
    head = ("step", *(f"run {n}" for n in range(1, most + 1)))
    return page.table(head, padded, "How far the measured CPU lies above the model.")


def _laws(scaling: Scaling) -> Markup:
    parts = []
    for law in scaling["laws"]:
        name = TITLES[law["leg"]].lower()
        if law["why_not"] is not None:
            parts.append(page.paragraph(f"{name.capitalize()}: not fitted; {law['why_not']}."))
            continue
        rows = [
            (key, axes.plain(law[key] or 0.0), *(axes.plain(bound) for bound in law["ranges"][key]))
            for key in ("gamma", "alpha", "beta")
        ]
        peak = f"; most throughput at {law['peak']:,.0f} {UNITS[law['leg']]}" if law["peak"] else ""
        caption = f"{name}: R² {law['r_squared']:.4f}{peak}"
        parts.append(page.table(("coefficient", "value", "95 % from", "to"), rows, caption))
    return Markup("".join(parts))


def _comparison(compared: Comparison) -> tuple[Markup, ...]:
    worse = compared.worse or ("Nothing got worse.",)
    rows = [
        (
            f"{change.step}: {change.name}",
            axes.plain(change.before),
            axes.plain(change.now),
            f"{100 * change.relative:.1f} %",
            f"{100 * change.tolerance:.1f} %",
        )
        for change in compared.changes
    ]
    wrong = {i for i, change in enumerate(compared.changes) if change.worse}
    head = ("figure", "before", "now", "worse by", "noise up to")
    return (page.listed(worse), page.listed(compared.notes), page.table(head, rows, "Medians.", wrong=wrong))


def _environment(scaling: Scaling) -> dict[str, str]:
    env, build = scaling["environment"], scaling["server_build"]
    found = {"promise": f"p99 < {scaling['slo']['p99_ms']:g} ms, nothing lost", "cores": scaling["cores"]}
    if build:
        found["server"] = ", ".join(f"{k} {v}" for k, v in build.items())
    if env:
        found |= {
            "machine": f"{env['cpu_model']}, {env['cpus_total']} CPUs, {axes.size(env['memory_bytes'])}",
            "kernel": env["kernel"],
            "software": f"Python {env['python']}, Locust {env['locust']}, gevent {env['gevent']}",
            "file limit": f"{env['file_limits']['soft']:,}",
        }
    if scaling["left_out"]:
        found["left out for lack of time"] = "; ".join(scaling["left_out"])
    return found | {"started, ended": f"{scaling['started']}, {scaling['ended']}"}
