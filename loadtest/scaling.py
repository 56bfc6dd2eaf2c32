"""`make scaling`: raise subscribers, then the rate, until the promise breaks; say what this machine holds.

    python -m loadtest.scaling [--slo-p99 50ms --time-budget 10m --baseline FILE ...]     every option: --help

Exit code 0: measured, and nothing got worse. 1: something got worse than BASELINE=, or not even the first step held.
2: the run proves nothing, and one line says why.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from loadtest import axes, baseline, broker, capacity, console, line, scaling_report, scaling_result
from loadtest.measure import NoResult, checked, measure
from loadtest.options import OPTIONS, BadOption, masked, seconds
from loadtest.processes import CannotStart, Interrupted, Interrupts
from loadtest.report_tables import pinned
from loadtest.result import EXIT_CODES, RESULT_FILE, Result, ResultError
from loadtest.run import fresh
from loadtest.scaling_result import Leg, Point, Repetition, Scaling, Slo, generator_bound, label
from loadtest.steps import Grid, Measurements, Step

# What a leg may use of the time: the size leg is short, and always comes to its turn.
_SHARES: tuple[tuple[Leg, float], ...] = (("subscribers", 0.55), ("rate", 0.85), ("size", 1.0))
# Seconds of a run besides connecting and publishing: starting two processes, the barrier, stopping.
_OVERHEAD = 5.0
_DEFAULTS = {"publish_time": "7s", "warmup": 2.0}
#: The options of the load that a step does not set itself.
LOAD = tuple(o for o in OPTIONS if o.key not in ("subscribers", "shape", "stalled", "slow", "flapping"))


class Climb:
    """One `make scaling`: its options, its files, and what all of its runs have in common."""

    def __init__(self, parsed: argparse.Namespace, out: Console, interrupts: Interrupts) -> None:
        self.parsed, self._out, self._interrupts = parsed, out, interrupts
        self.grid = Grid.of(parsed)
        self.slo: Slo = {"p99_ms": _duration("SLO_P99", parsed.slo_p99) * 1000, "lost": 0}
        self.budget = _duration("TIME_BUDGET", parsed.time_budget)
        self.directory = fresh(Path(parsed.results), "scaling-")
        self.command = line.typed("make scaling", parsed, (*LOAD, *line.RUN_OPTIONS, *line.SCALING_OPTIONS))
        self.last: Result | None = None
        self.cores = "not known"
        for step in (s for leg, _ in _SHARES for s in self.grid.leg(leg)):
            checked(self._options(step))
        broker.check(parsed.nodes, parsed.broker, parsed.url)
        if not seconds(parsed.publish_time):
            raise BadOption("TIME=0: a step has to come to an end")
        if parsed.repeat < 1 or parsed.refine < 0:
            raise BadOption("REPEAT= takes 1 or more, REFINE= 0 or more")

    def estimate(self, step: Step) -> float:
        """About how many seconds one run of the step takes."""
        connecting: float = step.subscribers / self.parsed.connect_rate
        return _OVERHEAD + connecting + seconds(self.parsed.publish_time)

    def run(self, step: Step, number: int) -> tuple[Repetition, float]:
        """One run of a step, and the seconds that it took."""
        value = getattr(step, "subscribers" if step.leg == "subscribers" else step.leg)
        name = f"{step.leg}-{value:g}-{number}"
        began, path = time.monotonic(), self.directory / "runs" / name
        title = f"{step.subscribers:,} subscribers, {step.rate:g}/s of {step.size:,} B, run {number}"
        where = f"runs/{name}/{RESULT_FILE}"
        options = self._options(step)
        try:
            with console.briefly(self._out, title, checked(options).duration) as show:
                result, around = measure(options, path, self.command, self._interrupts, show, own_report=False)
        except (CannotStart, NoResult) as why:
            return self._failed(str(why), where), time.monotonic() - began
        self._interrupts.heed()
        if not result["publications"]["attempted"] and self.last is None:
            raise NoResult(result["verdict"]["reasons"][0])
        self.last, self.cores = result, pinned(around)
        made = scaling_result.repetition(result, self.slo, where, around["neighbours"])
        self._out.print(Text(f"  {title}: {_told(made)}"), soft_wrap=True)
        return made, time.monotonic() - began

    def result(self, measured: Measurements, started: str) -> Scaling:
        """All of it, as scaling.json keeps it."""
        points = measured.points
        legs: list[Leg] = [leg for leg, _ in _SHARES if any(p["leg"] == leg for p in points)]
        climbed: list[Leg] = [leg for leg in legs if leg != "size"]
        knees = [capacity.knee(leg, points, self.slo, out_of_time=leg in measured.late) for leg in climbed]
        return {
            "schema": scaling_result.SCHEMA,
            "started": started,
            "ended": _now(),
            "command": self.command,
            "options": {o.key: _shown(getattr(self.parsed, o.key)) for o in (*LOAD, *line.RUN_OPTIONS) if not o.secret}
            | {o.key: getattr(self.parsed, o.key) for o in line.SCALING_OPTIONS},
            "environment": self.last["environment"] if self.last else None,
            "server_build": self.last["server"]["build"] if self.last else None,
            "cores": self.cores,
            "slo": self.slo,
            "points": points,
            "knees": knees,
            "cost": capacity.cost(points),
            "memory": capacity.memory(points),
            "laws": [capacity.law(leg, points) for leg in climbed],
            "left_out": measured.left_out,
            "sentence": capacity.sentence(points, knees, self.slo),
        }

    def _options(self, step: Step) -> argparse.Namespace:
        trouble = {"shape": "", "stalled": 0, "slow": 0, "flapping": 0.0}
        load = {"subscribers": step.subscribers, "rate": step.rate, "size": step.size}
        return argparse.Namespace(**{**vars(self.parsed), **trouble, **load})

    def _failed(self, why: str, where: str) -> Repetition:
        self._interrupts.heed()
        if self.last is None:
            raise NoResult(why)
        self._out.print(Text(f"    no result: {why}"), soft_wrap=True)
        return scaling_result.failed(why, where)


def climb(parsed: argparse.Namespace, out: Console, interrupts: Interrupts) -> int:
    """Measure, fit, compare, report; returns the exit code."""
    before = scaling_result.read(Path(parsed.baseline)) if parsed.baseline else None
    climbing, started = Climb(parsed, out, interrupts), _now()
    steps = [step for leg, _ in _SHARES for step in climbing.grid.leg(leg)]
    longest = parsed.repeat * sum(climbing.estimate(step) for step in steps)
    out.print(
        Text(
            f"Stentor scaling: up to {axes.many(len(steps), 'step')} of {axes.many(parsed.repeat, 'run')}, "
            f"about {axes.seconds(round(min(longest, climbing.budget), -1))} "
            f"(TIME_BUDGET={parsed.time_budget}), until p99 reaches {climbing.slo['p99_ms']:g} ms"
        ),
        soft_wrap=True,
    )
    measured = Measurements(
        climbing.run,
        repeat=parsed.repeat,
        refine=parsed.refine,
        budget=climbing.budget,
        estimate=climbing.estimate,
        tell=lambda made: out.print(Text(f"{label(made)}: {made['state']}{_because(made)}"), soft_wrap=True),
    )
    try:
        for leg, share in _SHARES:
            measured.leg(climbing.grid, leg, share)
    except Interrupted:
        # Minutes of measurement are worth a report, even if there should have been more of them.
        if not measured.points:
            raise
        measured.left_out.append("whatever came after the run was stopped by hand")
    scaling = climbing.result(measured, started)
    compared = baseline.compare(scaling, before) if before else None
    scaling_result.write(scaling, climbing.directory)
    path = scaling_report.write(scaling, climbing.directory, compared)
    _conclude(out, scaling, compared, path)
    return EXIT_CODES["unknown"] if interrupts.count else _exit_code(scaling, compared)


def _conclude(out: Console, scaling: Scaling, compared: baseline.Comparison | None, path: Path) -> None:
    said = [f"  {knee['sentence']}" for knee in scaling["knees"]]
    said.append(f"  Cost: {capacity.cost_sentence(scaling['cost'], scaling['memory'])}")
    if compared:
        said += [f"  Worse: {sentence}" for sentence in compared.worse] or ["  Nothing got worse than the baseline."]
        said += [f"  Note: {sentence}" for sentence in compared.notes]
    out.print(Text(f"\n{scaling['sentence']}", style="bold"), soft_wrap=True)
    for sentence in (*said, f"  {path}"):
        out.print(Text(sentence), soft_wrap=True)


def _exit_code(scaling: Scaling, compared: baseline.Comparison | None) -> int:
    if compared and compared.worse:
        return EXIT_CODES["fail"]
    first = scaling["knees"][0] if scaling["knees"] else None
    if first is None or first["held"] is not None:
        return EXIT_CODES["pass" if first else "unknown"]
    return EXIT_CODES["fail" if first["limit"] == "slo" else "unknown"]


def _told(made: Repetition) -> str:
    """One run in a line."""
    parts = [
        f"{axes.count(made['deliveries_per_second'])} deliveries/s" if made["deliveries_per_second"] else None,
        f"p99 {axes.milliseconds(made['p99_ms'])}" if made["p99_ms"] is not None else None,
        f"server {made['server_cpu']:.0f} %" if made["server_cpu"] is not None else None,
        f"generator {made['generator_cpu']:.0f} %" if made["generator_cpu"] is not None else None,
        made["state"] if made["state"] != "unknown" else f"unknown: {made['why']}",
    ]
    return ", ".join(part for part in parts if part)


def _because(made: Point) -> str:
    if made["state"] == "held" or not made["why"]:
        return ""
    return " (the generator was the limit)" if generator_bound(made) else f" ({made['why'].rstrip('.')})"


def _shown(value: object) -> object:
    return masked(value, "") if isinstance(value, str) else value


def _duration(variable: str, text: str) -> float:
    """Seconds, of "50ms", "30s" or "10m"."""
    milli = re.fullmatch(r"(\d+(\.\d+)?)ms", text.strip().lower())
    try:
        value = float(milli[1]) / 1000 if milli else seconds(text)
    except BadOption:
        raise BadOption(f"{variable}={text}: write 50ms, 30s or 10m") from None
    if value <= 0:
        raise BadOption(f"{variable}={text}: must be above 0")
    return value


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def main(arguments: Sequence[str], out: Console | None = None) -> int:
    """Run a scaling measurement; returns the exit code."""
    out = out or Console(highlight=False)
    try:
        with Interrupts() as interrupts:
            options = (*LOAD, *line.RUN_OPTIONS, *line.SCALING_OPTIONS)
            parsed = line.parse("python -m loadtest.scaling", __doc__, arguments, options, defaults=_DEFAULTS)
            return climb(parsed, out, interrupts)
    except Interrupted:
        print("scaling: stopped", file=sys.stderr)
    except (BadOption, CannotStart, NoResult, ResultError, OSError) as error:
        print(f"scaling: {error}", file=sys.stderr)
    return EXIT_CODES["unknown"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
