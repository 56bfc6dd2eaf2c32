"""A climb goes up until something breaks, looks closer there, and never outlasts its time."""

import argparse
import math
from typing import Any

import pytest

from loadtest import line, scaling
from loadtest.options import BadOption
from loadtest.scaling_result import Repetition, failed
from loadtest.steps import Grid, Measurements, Step


class Clock:
    """Time that passes only when a run takes some."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def held_below(limit: float, clock: Clock, seconds: float = 10.0):
    """A run that holds below a limit of its leg's value, and takes its time."""

    def run(step: Step, number: int) -> tuple[Repetition, float]:
        clock.now += seconds
        value = getattr(step, "subscribers" if step.leg == "subscribers" else step.leg)
        made = failed("", "")
        made |= {"state": "held" if value < limit else "broken", "why": None if value < limit else "too slow"}
        return made, seconds

    return run


def measurements(limit: float, clock: Clock, *, budget: float, **changes: Any) -> Measurements:
    given: dict[str, Any] = {"repeat": 1, "refine": 2, "estimate": lambda _: 10.0, "tell": lambda _: None} | changes
    return Measurements(held_below(limit, clock), budget=budget, clock=clock, **given)


def grid(*subscribers: int, rates: tuple[float, ...] = (25, 50), sizes: tuple[int, ...] = (1024,)) -> Grid:
    return Grid(subscribers, rates, sizes, 500, 10.0, 128)


def values(measured: Measurements) -> list[float]:
    return [p[p["leg"]] for p in measured.points]


def test_where_it_broke_is_looked_at_more_closely() -> None:
    measured = measurements(3100, Clock(), budget=math.inf)
    measured.leg(grid(500, 1000, 2000, 4000, 8000), "subscribers", 1)
    assert values(measured) == [500, 1000, 2000, 4000, 2800, 3300]


def test_below_the_first_step_there_is_something_too() -> None:
    measured = measurements(300, Clock(), budget=math.inf)
    measured.leg(grid(1000, 2000), "subscribers", 1)
    assert values(measured) == [1000, 250, 500]


def test_there_is_nothing_to_find_between_neighbours() -> None:
    assert grid(1).between("subscribers", 100, 105) is None
    assert grid(1).between("size", 100, 1000) is None
    assert grid(1).between("subscribers", None, 1) is None
    assert grid(1).between("rate", 100, 400) == Step("rate", 500, 200, 128)


def test_no_step_is_begun_that_would_not_end_in_time() -> None:
    """Each run takes 10 s; 95 s hold three steps of three runs, and the fourth is named as left out."""
    clock = Clock()
    measured = measurements(math.inf, clock, budget=95, repeat=3)
    measured.leg(grid(500, 1000, 2000, 4000), "subscribers", 1)
    assert values(measured) == [500, 1000, 2000]
    assert clock.now == 1090
    assert measured.left_out == ["4,000 subscribers at 10/s of 128 B"]
    assert measured.late == {"subscribers"}


def test_how_long_runs_really_take_is_learned() -> None:
    """Runs that take twice the estimate: 200 s do not hold the ten steps that the estimate promised."""
    clock = Clock()
    measured = measurements(math.inf, clock, budget=200, estimate=lambda _: 5.0, refine=0)
    measured.leg(grid(*range(1, 41)), "subscribers", 1)
    assert clock.now <= 1200
    assert len(measured.points) == 20


def test_a_leg_leaves_time_for_the_next() -> None:
    clock = Clock()
    measured = measurements(math.inf, clock, budget=100)
    measured.leg(grid(1, 2, 3, 4, 5, 6, 7, 8, 9), "subscribers", 0.5)
    measured.leg(grid(rates=(25, 50, 100, 200, 400, 800)), "rate", 0.8)
    measured.leg(grid(sizes=(1024, 8192, 65536)), "size", 1)
    assert [p["leg"] for p in measured.points] == ["subscribers"] * 5 + ["rate"] * 3 + ["size"] * 2


def test_even_without_time_the_first_step_is_measured() -> None:
    measured = measurements(math.inf, Clock(), budget=1)
    measured.leg(grid(500, 1000), "subscribers", 1)
    assert values(measured) == [500]


def test_the_sizes_are_a_cost_to_find_and_no_limit() -> None:
    measured = measurements(2000, Clock(), budget=math.inf)
    measured.leg(grid(sizes=(128, 1024, 4096, 8192)), "size", 1)
    assert [(p["size"], p["rate"], p["state"]) for p in measured.points] == [
        (1024, 50, "held"),
        (4096, 50, "broken"),
        (8192, 50, "broken"),
    ]


def test_steps_are_read_out_of_their_options() -> None:
    parsed = line.parse("it", "", [], (*scaling.LOAD, *line.RUN_OPTIONS, *line.SCALING_OPTIONS), environment={})
    made = Grid.of(parsed)
    assert made.subscribers[:3] == (500, 1000, 2000)
    assert made.rates[:2] == (25.0, 50.0)
    with pytest.raises(BadOption):
        Grid.of(argparse.Namespace(**{**vars(parsed), "size_steps": "1,x"}))
