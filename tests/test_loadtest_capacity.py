"""Runs become points, points a knee and a sentence; what proves nothing counts for nothing."""

from pathlib import Path
from typing import Any, cast

import pytest

from loadtest import capacity
from loadtest.result import Result, ResultError
from loadtest.scaling_result import (
    Point,
    Scaling,
    Slo,
    State,
    failed,
    generator_bound,
    label,
    point,
    read,
    repetition,
    steady,
    write,
)
from tests.loadtest_samples import result, unmeasured

SLO: Slo = {"p99_ms": 50.0, "lost": 0}


def verdict(made: Result, word: Any, reason: str = "because") -> Result:
    """The same run with another verdict."""
    made["verdict"] = {"verdict": word, "reasons": [reason], "notes": []}
    return made


def step(subscribers: int, state: State = "held", *, rate: int = 10, size: int = 128, bound: bool = False) -> Point:
    """A step of three like repetitions; costs are 40 µs a publication, 6 µs a delivery, 2 ns a byte, 12 kB a client."""
    made = result(subscribers, rate, 8)
    made["plan"]["size"] = size
    per_second = rate * (40 + subscribers * (6 + 0.002 * size)) + 20_000
    for second in made["timeline"]:
        second["server_cpu"] = per_second / 10_000
    run = repetition(made, SLO, "r")
    run |= {"state": state, "why": None if state == "held" else "because", "generator_bound": bound}
    return point("rate" if rate != 10 else "subscribers" if size == 128 else "size", subscribers, rate, size, [run] * 3)


@pytest.mark.parametrize(
    ("made", "state", "why"),
    [
        (result(), "held", None),
        (result(p50=40_000), "broken", "p99 115 ms"),
        (verdict(result(), "fail"), "broken", "because"),
        (verdict(result(), "unknown"), "unknown", "because"),
        (unmeasured(), "unknown", "ws://127.0.0.1:9: refused."),
    ],
)
def test_a_run_is_held_against_the_promise(made: Result, state: str, why: str | None) -> None:
    run = repetition(made, SLO, "runs/1/result.json")
    assert (run["state"], run["why"]) == (state, why)
    assert run["result"] == "runs/1/result.json"


def test_a_promise_broken_on_a_busy_machine_proves_nothing_and_one_kept_there_counts() -> None:
    late, held = repetition(result(p50=40_000), SLO, "", 0.3), repetition(result(), SLO, "", 0.3)
    assert (late["state"], late["neighbours"]) == ("unknown", 0.3)
    assert late["why"] == "p99 115 ms, but 30% of the machine was busy with other things"
    assert held["state"] == "held"
    assert repetition(result(p50=40_000), SLO, "", 0.05)["state"] == "broken"


def test_a_declared_drop_breaks_the_promise_as_well() -> None:
    made = result()
    made["ledger"]["declared"] = 7
    run = repetition(made, SLO, "")
    assert (run["state"], run["why"], run["lost"]) == ("broken", "7 deliveries were dropped", 7)


def test_a_pass_without_a_single_timed_delivery_is_unknown() -> None:
    made = result()
    made["latency"] = unmeasured()["latency"]
    assert repetition(made, SLO, "")["state"] == "unknown"


def test_the_warm_up_and_the_last_second_are_cut_off() -> None:
    made = result(200, 50, 8)
    assert [row["t"] for row in steady(made["timeline"], 2.0)] == [2, 3, 4, 5, 6]
    assert [row["t"] for row in steady(made["timeline"][:1], 0.0)] == [0]
    assert steady([], 2.0) == []
    for row in made["timeline"]:
        row["delivered"] = 10_000 if 2 <= row["t"] < 7 else 0
        row["server_cpu"] = 7.0 if 2 <= row["t"] < 7 else 100.0
    run = repetition(made, SLO, "")
    assert run["deliveries_per_second"] == 10_000
    assert run["delivered_bytes_per_second"] == 1_280_000
    assert run["cpu_us_per_delivery"] == pytest.approx(7.0)
    assert run["rss_per_connection"] == pytest.approx(12_000)


def test_without_seconds_the_total_cost_stands_in() -> None:
    made = result()
    for row in made["timeline"]:
        row["server_cpu"] = None
    assert repetition(made, SLO, "")["cpu_us_per_delivery"] == made["server"]["cpu_us_per_delivery"]


@pytest.mark.parametrize(("key", "value"), [("cpu_sustained", 95.0), ("lag_p99_ms", 150.0)])
def test_a_generator_over_its_own_limit_is_known(key: str, value: float) -> None:
    made = verdict(result(), "unknown")
    assert not repetition(made, SLO, "")["generator_bound"]
    made["generator"][0] |= cast(Any, {key: value})
    run = repetition(made, SLO, "")
    assert run["generator_bound"]
    assert generator_bound(point("subscribers", 1, 1, 1, [run]))


def runs(*states: State) -> list[Any]:
    return [repetition(result(), SLO, "") | {"state": s, "why": s if s != "held" else None} for s in states]


@pytest.mark.parametrize(
    ("states", "state", "why"),
    [
        (("held", "held", "held"), "held", None),
        (("held", "broken", "held"), "held", None),
        (("broken", "held", "broken"), "broken", "broken"),
        (("held", "broken"), "unknown", "the repetitions disagree: held, broken"),
        (("held", "unknown", "broken"), "unknown", "unknown"),
        (("unknown",), "unknown", "unknown"),
    ],
)
def test_a_step_is_what_most_of_its_repetitions_say(states: tuple[State, ...], state: str, why: str | None) -> None:
    made = point("subscribers", 200, 50, 128, runs(*states))
    assert (made["state"], made["why"]) == (state, why)


def test_a_step_gives_the_median_and_the_spread() -> None:
    three = runs("held", "held", "held")
    for run, p99 in zip(three, (5.0, 9.0, 4.0), strict=True):
        run["p99_ms"] = p99
    three[1]["rss_per_connection"] = None
    made = point("subscribers", 2000, 12.5, 128, [*three, failed("no result", "x")])
    assert made["median"]["p99_ms"] == 5.0
    assert made["spread"]["p99_ms"] == [4.0, 9.0]
    assert made["median"]["rss_per_connection"] == pytest.approx(12_000)
    assert label(made) == "2,000 subscribers at 12.5/s of 128 B"
    nothing = point("subscribers", 1, 1, 1, [failed("no result", "x")])
    assert (nothing["median"]["p99_ms"], nothing["spread"]["p99_ms"], nothing["why"]) == (None, None, "no result")


def test_the_knee_lies_between_the_last_that_held_and_the_first_that_broke() -> None:
    knee = capacity.knee("subscribers", [step(1000), step(500), step(2000, "broken")], SLO, out_of_time=False)
    assert (knee["held"], knee["next"], knee["limit"]) == (1000, 2000, "slo")
    assert knee["sentence"] == "1,000 subscribers hold p99 < 50 ms; 2,000 do not: because."


def test_a_limit_of_the_generator_is_never_the_servers_knee() -> None:
    points = [step(500), step(1000), step(2000, "unknown", bound=True)]
    knee = capacity.knee("subscribers", points, SLO, out_of_time=False)
    assert (knee["held"], knee["next"], knee["limit"]) == (1000, 2000, "generator")
    assert "no knee of the server" in knee["sentence"]
    assert capacity.sentence(points, [knee], SLO) == (
        "This machine: at least 1,000 subscribers at 10 publications/s of 128 bytes, p99 < 50 ms."
    )


def test_a_lucky_step_above_a_broken_one_does_not_count() -> None:
    knee = capacity.knee("subscribers", [step(500), step(1000, "broken"), step(2000)], SLO, out_of_time=False)
    assert (knee["held"], knee["next"]) == (500, 1000)


@pytest.mark.parametrize(
    ("points", "late", "limit", "words"),
    [
        ([step(500)], False, "grid", "more was not tried."),
        ([step(500)], True, "time", "for lack of time."),
        ([step(500), step(1000, "unknown")], False, "unknown", "at 1,000 the runs prove nothing: because."),
        ([step(500, "broken")], False, "slo", "no number of subscribers held; 500 do not: because."),
        ([], False, "grid", "no number of subscribers is known to hold; more was not tried."),
        ([step(500, "unknown")], False, "unknown", "no number of subscribers is known to hold; at 500 the runs"),
    ],
)
def test_why_a_leg_ended_is_said(points: list[Point], late: bool, limit: str, words: str) -> None:
    knee = capacity.knee("subscribers", points, SLO, out_of_time=late)
    assert knee["limit"] == limit
    assert words in knee["sentence"]


def sentence(*points: Point) -> str:
    knees = [capacity.knee("subscribers", points, SLO, out_of_time=False)] if points else []
    return capacity.sentence(points, knees, SLO)


def test_one_sentence_says_what_this_machine_holds() -> None:
    assert sentence(step(500), step(2000), step(4000, "broken")) == (
        "This machine: 2,000 subscribers at 10 publications/s of 128 bytes, p99 < 50 ms."
    )
    assert sentence(step(500, "broken")).startswith("This machine: not even 500 subscribers at 10 publications/s")
    assert sentence(step(500, "unknown")).startswith("This machine: unknown at 500 subscribers")
    assert sentence() == "This machine: unknown, nothing was measured."


def grid() -> list[Point]:
    steps = [step(n) for n in (500, 1000, 2000, 4000)]
    return [*steps, *(step(1000, rate=r) for r in (25, 50)), *(step(500, size=s) for s in (1024, 8192))]


def test_the_cost_model_is_found_and_said() -> None:
    cost, memory = capacity.cost(grid()), capacity.memory(grid())
    values = {c["name"]: c["value"] for c in cost["coefficients"]}
    assert values["publication"] == pytest.approx(40, rel=0.01)
    assert values["delivery"] == pytest.approx(6, rel=0.01)
    assert values["byte"] == pytest.approx(0.002, rel=0.01)
    assert values["idle"] == pytest.approx(20_000, rel=0.01)
    assert cost["r_squared"] == pytest.approx(1)
    assert len(cost["residuals"]) == 24
    assert capacity.cost_sentence(cost, memory) == (
        "40 µs per publication + 6 µs per delivery + 2 ns per byte + 11.7 KiB per connection"
    )


def test_runs_that_prove_nothing_or_lost_something_carry_no_cost() -> None:
    wrong = step(1500, "unknown")
    lossy = step(1700, "broken")
    for run in (*wrong["repetitions"], *lossy["repetitions"]):
        run["cpu_us_per_delivery"] = 1e6
    for run in lossy["repetitions"]:
        run["lost"] = 5
    assert capacity.cost([*grid(), wrong, lossy]) == capacity.cost(grid())


def test_models_that_the_points_do_not_carry_say_why() -> None:
    one = [step(500)]
    assert "vary them independently" in str(capacity.cost([step(n) for n in (500, 1000, 2000)])["why_not"])
    assert "apart" in str(capacity.memory(one)["why_not"])
    assert "at least 6 loads, 1 were" in str(capacity.law("subscribers", one)["why_not"])
    assert capacity.cost_sentence(capacity.cost(one), capacity.memory(one)).startswith("no model of CPU: ")


def test_the_scalability_law_is_fitted_where_it_can_be() -> None:
    points = []
    for n in (100, 200, 400, 800, 1600, 3200, 6400):
        made = step(n)
        made["median"]["deliveries_per_second"] = 10 * n / (1 + 1e-4 * (n - 1) + 1e-7 * n * (n - 1))
        points.append(made)
    law = capacity.law("subscribers", points)
    assert law["why_not"] is None
    assert law["alpha"] == pytest.approx(1e-4)
    assert law["beta"] == pytest.approx(1e-7)
    assert set(law["ranges"]) == {"gamma", "alpha", "beta"}
    points[-1]["state"] = points[-2]["state"] = "unknown"
    assert "at least 6 loads, 5 were" in str(capacity.law("subscribers", points)["why_not"])


def test_a_scaling_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = cast(Scaling, dict.fromkeys(Scaling.__annotations__) | {"schema": 1, "points": grid(), "knees": []})
    assert read(write(made, tmp_path)) == made
    assert read(tmp_path) == made


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("{", "Expecting"),
        ("[]", "not a scaling result"),
        ('{"schema": 1, "ledger": {}}', "not a scaling result"),
        ('{"schema": 9, "points": [], "knees": []}', "schema 9, this program reads 1"),
    ],
)
def test_what_is_no_scaling_result_is_refused_in_one_line(content: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "scaling.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ResultError, match=words) as raised:
        read(path)
    assert "\n" not in str(raised.value)
