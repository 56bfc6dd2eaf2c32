"""A planted regression is caught, and noise of the size of the spread is not."""

import copy
import random
from typing import Any, cast

import pytest

from loadtest.baseline import compare
from loadtest.scaling_result import Point, Repetition, Scaling, point

TRUTH = {
    "deliveries_per_second": 50_000.0,
    "p50_ms": 2.0,
    "p99_ms": 11.0,
    "p99_9_ms": 20.0,
    "cpu_us_per_delivery": 7.0,
    "rss_per_connection": 12_000.0,
}
# The spread of each figure, as a share of it, between runs of the same server on the same machine.
SPREAD = dict(zip(TRUTH, (0.005, 0.06, 0.10, 0.20, 0.03, 0.01), strict=True))


def repetition(chance: random.Random, factors: dict[str, float], state: str = "held") -> Repetition:
    """One run of a server whose figures are TRUTH times `factors`, with noise."""
    figures = {k: v * factors.get(k, 1) * (1 + chance.gauss(0, SPREAD[k])) for k, v in TRUTH.items()}
    nothing: dict[str, Any] = dict.fromkeys(Repetition.__annotations__)
    return cast(Repetition, nothing | figures | {"state": state, "lost": 0, "connections": 100})


def scaling(seed: int, factors: dict[str, float] | None = None, *, repeat: int = 3, steps: int = 10) -> Scaling:
    """A scaling run over several steps; `factors` are those of the whole server."""
    chance = random.Random(seed)
    points: list[Point] = [
        point("subscribers", 500 * n, 10, 128, [repetition(chance, factors or {}) for _ in range(repeat)])
        for n in range(1, steps + 1)
    ]
    environment = {"cpu_model": "A CPU", "cpus_total": 2, "kernel": "Linux 6.1", "python": "3.11.2"}
    return cast(
        Scaling,
        {
            "points": points,
            "environment": environment,
            "cores": "server on core 0",
            "slo": {"p99_ms": 50.0, "lost": 0},
        },
    )


def test_nothing_got_worse_between_a_result_and_itself() -> None:
    found = compare(scaling(1), scaling(1))
    assert found.worse == ()
    assert found.notes == ()
    assert len(found.changes) == 66  # six figures of ten steps, and of all steps together
    assert all(change.relative == 0 for change in found.changes)


def test_noise_of_the_size_of_the_spread_is_not_called_a_regression() -> None:
    """Forty pairs of runs of the same server, 2,640 comparisons: at most one pair may raise an alarm."""
    false_alarms = sum(bool(compare(scaling(2 * s), scaling(2 * s + 1)).worse) for s in range(40))
    assert false_alarms <= 1


@pytest.mark.parametrize(
    ("key", "factor", "name"),
    [
        ("cpu_us_per_delivery", 1.3, "server CPU per delivery"),
        ("rss_per_connection", 1.15, "memory per connection"),
        ("deliveries_per_second", 0.9, "deliveries/s"),
        ("p50_ms", 1.6, "p50"),
        ("p99_ms", 2.2, "p99"),
        ("p99_9_ms", 4.0, "p99.9"),
    ],
)
def test_a_planted_regression_is_caught(key: str, factor: float, name: str) -> None:
    for seed in range(5):
        found = compare(scaling(seed, {key: factor}), scaling(seed + 100))
        assert len(found.worse) >= 7, "most of the ten steps show it"
        assert all(f": {name} " in sentence for sentence in found.worse)
        assert found.worse[0].startswith(f"all steps: {name} ")


def test_a_regression_too_small_for_any_single_step_shows_over_all_of_them() -> None:
    """Eight percent more CPU, with three percent of noise: three repetitions of one step could not tell."""
    for seed in range(5):
        found = compare(scaling(seed, {"cpu_us_per_delivery": 1.08}), scaling(seed + 100))
        assert found.worse[0].startswith("all steps: server CPU per delivery ")


def test_an_improvement_is_no_regression() -> None:
    better = {"cpu_us_per_delivery": 0.5, "p99_ms": 0.5, "deliveries_per_second": 1.5}
    assert compare(scaling(1, better), scaling(2)).worse == ()


def test_a_regression_on_one_step_alone_is_named() -> None:
    now, before = scaling(1), scaling(2)
    for run in now["points"][3]["repetitions"]:
        run["cpu_us_per_delivery"] = 10.5
    now["points"][3] = point("subscribers", 2000, 10, 128, now["points"][3]["repetitions"])
    (sentence,) = compare(now, before).worse
    assert sentence.startswith("2,000 subscribers at 10/s of 128 B: server CPU per delivery ")


def test_a_step_that_held_and_now_breaks_is_worse_and_one_that_proves_nothing_is_a_note() -> None:
    now, before = scaling(1), scaling(2)
    now["points"][8] |= {"state": "broken", "why": "p99 80 ms"}
    now["points"][9] |= {"state": "unknown", "why": "the generator lagged"}
    found = compare(now, before)
    assert found.worse == ("4,500 subscribers at 10/s of 128 B: held before, now broken: p99 80 ms",)
    assert found.notes == ("5,000 subscribers at 10/s of 128 B: held before, now unknown: the generator lagged",)
    assert len(found.changes) == 54


def test_a_step_that_was_broken_before_is_not_compared() -> None:
    before = scaling(2)
    before["points"][9]["state"] = "broken"
    assert len(compare(scaling(1), before).changes) == 60


def test_figures_that_one_side_did_not_measure_are_not_compared() -> None:
    before = scaling(2)
    for step in before["points"]:
        step["median"]["rss_per_connection"] = None
    names = {change.name for change in compare(scaling(1), before).changes}
    assert names == {"deliveries/s", "p50", "p99", "p99.9", "server CPU per delivery"}


def test_results_without_a_step_in_common_say_so() -> None:
    now = scaling(1)
    for step in now["points"]:
        step["size"] = 1024
    assert "No step was measured by both runs: nothing is compared." in compare(now, scaling(2)).notes


def test_what_differs_besides_the_server_is_said() -> None:
    now, before = scaling(1, repeat=1), scaling(2, repeat=1)
    before["environment"] = cast(Any, dict(before["environment"] or {}, cpu_model="Another CPU"))
    before["cores"] = "not pinned"
    before["slo"] = {"p99_ms": 10.0, "lost": 0}
    notes = " ".join(compare(now, before).notes)
    assert "The machine differs in cpu model: Another CPU before, A CPU now." in notes
    assert "Pinning differs" in notes
    assert "p99 < 10 ms before" in notes
    assert "No step was repeated" in notes
    assert "busy" not in notes
    now["points"][0]["repetitions"][0]["neighbours"] = 0.4
    assert "busy with other things, up to 40% of it" in " ".join(compare(now, before).notes)


def test_one_wild_repetition_does_not_hide_in_the_median_nor_raise_an_alarm() -> None:
    now, before = scaling(1), scaling(2)
    wild = copy.deepcopy(now["points"][0]["repetitions"])
    wild[0]["p99_ms"] = 45.0
    now["points"][0] = point("subscribers", 500, 10, 128, wild)
    assert compare(now, before).worse == ()
