"""`make scaling` finds the knee of servers whose knee is known, within its time, and tells a regression from noise."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import random
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from loadtest import line, scaling, scaling_report, scaling_result
from loadtest.baseline import compare
from loadtest.launch import CannotStart
from loadtest.measure import NoResult
from loadtest.processes import Interrupted, Interrupts
from loadtest.result import Result
from loadtest.scaling_result import Point, Repetition, Scaling
from tests.loadtest_samples import latency, result, unmeasured

REPOSITORY = Path(__file__).resolve().parent.parent
AROUND: Any = {
    "command": "make scaling",
    "server_command": None,
    "server_cores": [0],
    "generator_cores": [1],
    "shared_core": False,
    "neighbours": 0.0,
}


class StandIn:
    """A server that costs 60 µs a publication, 6 µs a delivery and 2 ns a byte, and so is full at 160,000 deliveries/s.

    Its generator is full at `generator` deliveries/s. Figures carry a few percent of noise.
    """

    def __init__(self, *, cost: float = 6.0, generator: float = math.inf, seed: int = 1, memory: int = 12_000) -> None:
        self.runs: list[tuple[int, float, int]] = []
        self._cost, self._generator, self._memory = cost, generator, memory
        self._chance = random.Random(seed)

    def measure(self, parsed: argparse.Namespace, directory: Path, *_: object, **__: object) -> tuple[Result, Any]:
        """What `loadtest.measure.measure` does, without doing it."""
        subscribers, rate, size = parsed.subscribers, parsed.rate, parsed.size
        self.runs.append((subscribers, rate, size))
        deliveries = rate * subscribers
        noise = self._chance.gauss(1, 0.02)
        cpu = (0.01e6 + 60 * rate + deliveries * (self._cost + 0.002 * size)) * noise / 1e6
        made = result(subscribers, round(rate), 8)
        made["plan"] |= {"size": size, "rate": rate}
        # The open queue of a busy server: latency grows without bound as the core fills up.
        wait = subscribers * self._cost / 1e3 / max(0.001, 1 - cpu) * self._chance.gauss(1, 0.03)
        made["latency"] = latency(min(wait, 20_000) * 1000 / 3)
        made["latency"]["p99"] = min(wait, 20_000) * 1000
        for second in made["timeline"]:
            second |= {"server_cpu": min(100.0, 100 * cpu), "delivered": round(deliveries * min(1.0, 1 / cpu))}
            second["published"] = round(rate)
        made["server"]["rss_connected"] = 38_000_000 + self._memory * (subscribers + 1)
        if deliveries > self._generator:
            made["generator"][0]["cpu_sustained"] = 99.0
            made["verdict"] = {"verdict": "unknown", "reasons": ["Generator process 1 used 99 %."], "notes": []}
        return made, AROUND


def climbed(
    monkeypatch: pytest.MonkeyPatch, results: Path, server: StandIn, *arguments: str
) -> tuple[int, str, Scaling | None]:
    """`make scaling` against a stand-in; returns the exit code, what was printed, and the result."""
    monkeypatch.setattr(scaling, "measure", server.measure)
    out = io.StringIO()
    before = set(results.iterdir())
    console = Console(file=out, width=200, highlight=False)
    code = scaling.main(["--results", str(results), "--time-budget=1h", *arguments], console)
    made = next(iter(set(results.iterdir()) - before), None)
    return code, out.getvalue(), scaling_result.read(made) if made else None


GRID = "--subscribers-steps=500,1000,2000,4000,8000"


def test_the_knee_of_a_known_server_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """At 10/s and 6.3 µs a delivery, 4,000 subscribers wait some 35 ms, and 6,000 over 50 ms."""
    code, said, made = climbed(monkeypatch, tmp_path, StandIn(), GRID)
    assert code == 0
    assert made is not None
    knee = made["knees"][0]
    assert knee["limit"] == "slo"
    assert 4000 <= (knee["held"] or 0) < (knee["next"] or 0) <= 6000
    assert made["sentence"] == (
        f"This machine: {knee['held']:,.0f} subscribers at 10 publications/s of 128 bytes, p99 < 50 ms."
    )
    assert made["sentence"] in said
    values = {c["name"]: c["value"] for c in made["cost"]["coefficients"]}
    assert values["delivery"] == pytest.approx(6, rel=0.1)
    assert values["byte"] == pytest.approx(0.002, rel=0.3)
    assert next(c["value"] for c in made["memory"]["coefficients"] if c["name"] == "connection") == pytest.approx(
        12_000
    )
    assert made["cores"] == "server on core 0, generator on core 1"
    assert [len(p["repetitions"]) for p in made["points"]] == [3] * len(made["points"])


def test_subscribers_come_before_the_rate_and_each_leg_ends_where_it_breaks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = StandIn()
    climbed(monkeypatch, tmp_path, server, GRID, "--refine=0", "--repeat=1", "--rate-steps=25,50,400,800")
    assert server.runs == [
        *((n, 10.0, 128) for n in (500, 1000, 2000, 4000, 8000)),
        *((500, r, 128) for r in (25.0, 50.0, 400.0)),
        (500, 50.0, 1024),
        (500, 50.0, 8192),
    ]


def test_the_generators_limit_is_never_the_servers_knee(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, said, made = climbed(monkeypatch, tmp_path, StandIn(generator=15_000), GRID, "--refine=0", "--rate-steps=20")
    assert made is not None
    assert code == 0
    assert made["knees"][0]["limit"] == "generator"
    assert made["sentence"].startswith("This machine: at least 1,000 subscribers")
    assert "2,000 subscribers at 10/s of 128 B: unknown (the generator was the limit)" in said
    bound = next(p for p in made["points"] if p["state"] == "unknown")
    assert len(bound["repetitions"]) == 2  # most of three; the third would have changed nothing
    picture = scaling_report.picture(made)
    assert "proves nothing" in picture
    assert "highest proven: 1,000" in picture
    assert "knee: " not in picture.split("Raising the rate")[0]


def test_a_server_that_does_not_hold_the_first_step_is_looked_at_below_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = "--subscribers-steps=8000"
    code, _, made = climbed(monkeypatch, tmp_path, StandIn(), first, "--slo-p99=100ms", "--rate=20")
    assert made is not None
    assert code == 0
    assert made["knees"][0]["held"] in (2000, 4000)
    code, said, _ = climbed(monkeypatch, tmp_path, StandIn(), first, "--slo-p99=1ms", "--rate-steps=20", "--refine=1")
    assert code == 1
    assert "This machine: not even 2,000 subscribers at 10 publications/s" in said


def baseline_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int) -> str:
    climbed(monkeypatch, tmp_path, StandIn(seed=seed), GRID)
    return f"--baseline={next(tmp_path.glob('*/scaling.json'))}"


def test_a_planted_regression_fails_against_the_baseline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = baseline_of(monkeypatch, tmp_path, seed=1)
    code, said, made = climbed(monkeypatch, tmp_path, StandIn(seed=2, cost=7.5), GRID, before)
    assert code == 1
    assert "Worse: all steps: server CPU per delivery" in said
    assert made is not None
    report = max(tmp_path.glob("*/report.html"), key=lambda path: path.stat().st_mtime_ns).read_text()
    assert "Worse than the baseline" in report


def test_noise_and_improvements_pass_against_the_baseline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = baseline_of(monkeypatch, tmp_path, seed=1)
    for seed, cost in ((2, 6.0), (3, 6.0), (4, 4.5)):
        code, said, _ = climbed(monkeypatch, tmp_path, StandIn(seed=seed, cost=cost), GRID, before)
        assert (code, "Nothing got worse than the baseline." in said) == (0, True), said


def test_a_baseline_that_is_none_stops_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = StandIn()
    code, _, made = climbed(monkeypatch, tmp_path, server, f"--baseline={tmp_path / 'nothing.json'}")
    assert (code, made, server.runs) == (2, None, [])
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--subscribers-steps=500,many"], "SUBSCRIBERS=500,many: write numbers with commas between them"),
        (["--rate-steps=50,25"], "RATES=50,25: each step must be above the one before"),
        (["--subscribers-steps=0,5"], "SUBSCRIBERS=0,5: each step must be above the one before"),
        (["--slo-p99=soon"], "SLO_P99=soon: write 50ms, 30s or 10m"),
        (["--slo-p99=0ms"], "SLO_P99=0ms: must be above 0"),
        (["--time-budget=-1"], "TIME_BUDGET=-1: write 50ms, 30s or 10m"),
        (["--repeat=0"], "REPEAT= takes 1 or more"),
        (["--publish-time=0"], "TIME=0: a step has to come to an end"),
        (["--warmup=9"], "WARMUP=9: nothing is left of 7 s"),
        (["--users=5"], "unrecognized arguments"),
    ],
)
def test_bad_options_are_one_line_before_anything_runs(
    arguments: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = StandIn()
    code, _, made = climbed(monkeypatch, tmp_path, server, *arguments)
    assert (code, made, server.runs) == (2, None, [])
    said = capsys.readouterr().err
    assert said.startswith("scaling: ")
    assert said.count("\n") == 1
    assert words in said


@pytest.mark.parametrize("fault", [CannotStart("no server"), NoResult("no result"), None])
def test_a_first_run_that_proves_nothing_ends_it_in_one_line(
    fault: Exception | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs: list[object] = []

    def never(*arguments: object, **_: object) -> tuple[Result, Any]:
        runs.append(arguments)
        if fault:
            raise fault
        return unmeasured(), AROUND

    server = StandIn()
    monkeypatch.setattr(server, "measure", never)
    code, _, made = climbed(monkeypatch, tmp_path, server)
    assert (code, made, len(runs)) == (2, None, 1)
    assert capsys.readouterr().err == f"scaling: {fault or 'ws://127.0.0.1:9: refused.'}\n"


def test_a_later_run_without_a_result_is_an_unknown_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = StandIn()
    working = server.measure

    def sometimes(parsed: argparse.Namespace, *arguments: Any, **named: Any) -> tuple[Result, Any]:
        if parsed.subscribers > 1000:
            raise CannotStart("2,001 connections need 2,129 open files, and the limit is 2,000")
        return working(parsed, *arguments, **named)

    monkeypatch.setattr(server, "measure", sometimes)
    code, said, made = climbed(monkeypatch, tmp_path, server, GRID, "--refine=0", "--rate-steps=20")
    assert code == 0
    assert made is not None
    assert made["knees"][0]["limit"] == "unknown"
    assert "at 2,000 the runs prove nothing: 2,001 connections need 2,129 open files" in said


def test_ctrl_c_keeps_what_was_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = StandIn()
    working = server.measure

    def stopped(*arguments: Any, **named: Any) -> tuple[Result, Any]:
        if len(server.runs) == 4:
            raise Interrupted
        return working(*arguments, **named)

    monkeypatch.setattr(server, "measure", stopped)
    _, said, made = climbed(monkeypatch, tmp_path, server, GRID, "--repeat=2")
    assert made is not None
    assert len(made["points"]) == 2
    assert made["left_out"] == ["whatever came after the run was stopped by hand"]
    assert "at least 1,000 subscribers" in said


# -- the report --------------------------------------------------------------------------------------------------------


def whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **changes: Any) -> Scaling:
    _, _, made = climbed(monkeypatch, tmp_path, StandIn(**changes), GRID)
    assert made is not None
    return made


def test_the_report_and_the_picture_are_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = whole(monkeypatch, tmp_path)
    html = scaling_report.render(made)
    for words in (
        made["sentence"].replace("<", "&lt;"),
        "Raising subscribers",
        "Raising the rate",
        "Raising the payload",
        "per delivery",
        "standard error",
        "Residuals",
        "Universal Scalability Law",
        "make scaling",
        "server on core 0",
    ):
        assert words in html
    assert "<script" not in html
    assert "http" not in html.split("<style>")[1].split("</style>")[0]
    (path,) = tmp_path.glob("*/scaling.svg")
    root = ElementTree.fromstring(path.read_text())
    assert len(root.findall("{http://www.w3.org/2000/svg}svg")) == 6
    assert "knee: " in path.read_text()


def test_every_word_of_a_scaling_result_is_escaped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script>'
    made = whole(monkeypatch, tmp_path)
    made |= cast(Any, {"sentence": evil, "cores": evil, "command": evil, "started": evil, "left_out": [evil]})
    made["server_build"] = {evil: evil}
    cast(Any, made["environment"])["cpu_model"] = evil
    for knee in made["knees"]:
        knee["sentence"] = evil
    for step in made["points"]:
        step["why"] = evil
    made["cost"]["why_not"] = made["laws"][0]["why_not"] = evil
    html = scaling_report.render(made, compare(made, made))
    assert "<script" not in html + scaling_report.picture(made)
    assert html.count("&lt;script&gt;") > 10


def test_a_law_that_was_fitted_is_drawn_and_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = whole(monkeypatch, tmp_path)
    made["laws"][0] |= {
        "why_not": None,
        "gamma": 10.0,
        "alpha": 1e-5,
        "beta": 1e-9,
        "peak": 31_000.0,
        "r_squared": 0.99,
    }
    made["laws"][0]["ranges"] = {"gamma": [9, 11], "alpha": [0, 2e-5], "beta": [0, 2e-9]}
    html = scaling_report.render(made)
    assert "scalability law" in html
    assert "most throughput at 31,000 subscribers" in html


def test_a_result_without_any_cost_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def blind(server: StandIn):
        working = server.measure

        def measure(*arguments: Any, **named: Any) -> tuple[Result, Any]:
            made, around = working(*arguments, **named)
            for second in made["timeline"]:
                second["server_cpu"] = None
            made["server"] = cast(Any, dict.fromkeys(made["server"]) | {"pids": []})
            return made, around

        return measure

    server = StandIn()
    monkeypatch.setattr(server, "measure", blind(server))
    _, said, made = climbed(monkeypatch, tmp_path, server, GRID)
    assert made is not None
    assert "no model of CPU: " in said
    html = scaling_report.render(made)
    assert "not measured: neither /metrics nor the process of the server was known" in html


def test_scaling_json_has_exactly_its_schema(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = whole(monkeypatch, tmp_path)
    assert set(made) == set(Scaling.__annotations__)
    assert all(set(p) == set(Point.__annotations__) for p in made["points"])
    assert all(set(r) == set(Repetition.__annotations__) for p in made["points"] for r in p["repetitions"])


@pytest.mark.scenario
def test_a_real_step_is_measured_and_nothing_is_left(tmp_path: Path) -> None:
    """One step against the real server. On a machine that is too busy it may prove nothing; it never breaks."""
    options = ["--results", str(tmp_path), "--publish-time=3s", "--warmup=1", "--slo-p99=10s", "--repeat=1"]
    options += ["--subscribers-steps=20", "--rate-steps=", "--size-steps=", "--refine=0"]
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.scaling", *options],
        cwd=REPOSITORY,
        env=line.without(os.environ),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert "Traceback" not in done.stderr
    made = scaling_result.read(next(tmp_path.glob("scaling-*")))
    (step,) = made["points"]
    assert step["state"] != "broken", step
    assert done.returncode == {"held": 0, "unknown": 2}[step["state"]]
    assert made["sentence"] in done.stdout
    (run,) = step["repetitions"]
    assert run["lost"] == 0
    assert (run["deliveries_per_second"] or 0) > 0
    assert (next(tmp_path.glob("scaling-*")) / run["result"]).exists()
    assert json.loads(next(tmp_path.glob("*/scaling.json")).read_text())["schema"] == 1


def test_an_interrupt_before_the_first_point_is_no_result(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object, **__: object) -> tuple[Result, Any]:
        raise Interrupted

    server = StandIn()
    monkeypatch.setattr(server, "measure", stopped)
    code, _, made = climbed(monkeypatch, tmp_path, server)
    assert (code, made) == (2, None)
    assert capsys.readouterr().err == "scaling: stopped\n"
    with Interrupts() as interrupts:
        assert interrupts.count == 0
