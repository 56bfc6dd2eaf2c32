"""The model behind docs/scaling.md: right where the answer is known, near what was measured, and shown as it is."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from bench import simulation
from bench.costs import COSTS, MS
from bench.queues import Stage, hand_out, latencies, line, percentile, poisson, steady
from bench.reconnects import Backoff, Worker, storm
from bench.validation import FIGURES, MEASURED, Measured, predict

PAGE = Path(__file__).resolve().parent.parent / "docs" / "scaling.md"
ALONE = Worker(clients=0, rate=1.0, write=0.0, connect=1 * MS)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8, 0.9])
def test_a_line_with_one_server_waits_as_pollaczek_and_khinchine_say(load: float) -> None:
    """M/D/1: the mean wait is load / (2 (1 - load)) services."""
    arrivals = poisson(load, 400_000, seed=7)
    waits = line(arrivals, 1.0) - arrivals - 1.0
    assert waits.min() >= -1e-6
    assert float(waits.mean()) == pytest.approx(load / (2 * (1 - load)), rel=0.06)


def test_a_line_is_what_one_by_one_gives() -> None:
    arrivals, service = poisson(1.0, 500, seed=3), np.random.default_rng(4).exponential(0.8, 500)
    free, expected = 0.0, []
    for arrived, takes in zip(arrivals, service, strict=True):
        free = max(free, arrived) + takes
        expected.append(free)
    assert line(arrivals, service) == pytest.approx(expected)


def test_a_stage_that_saves_nothing_by_joining_is_such_a_line() -> None:
    stage = Stage(receivers=100, write=0.007, joined=0.007, each=0.1)
    arrivals = poisson(1.0, 20_000, seed=5)
    rounds = hand_out(arrivals, stage)
    # Those of a round end together, so that the last of each is the one to compare.
    last = np.append(np.diff(rounds.ends) > 0, True)
    assert rounds.ends[last] == pytest.approx(line(arrivals, 0.8)[last])


def test_a_lone_publication_comes_to_the_last_client_after_all_writes() -> None:
    published = steady(1.0, 10)
    rounds = hand_out(published, Stage(receivers=3000, write=9 * MS / 1000, joined=0.0))
    late = latencies(published, rounds)
    assert percentile(late, 100) == pytest.approx(27 * MS, rel=0.02)
    assert percentile(late, 50) == pytest.approx(13.5 * MS, rel=0.02)
    assert rounds.busy == pytest.approx(10 * 27 * MS)


def test_beyond_what_lone_publications_allow_a_stage_joins_and_beyond_its_most_it_falls_behind() -> None:
    stage = Stage(receivers=1000, write=9 * MS / 1000, joined=0.1 * MS / 1000)
    assert stage.most == pytest.approx(10_000)
    busy = hand_out(steady(5000, 50_000), stage)
    assert float((busy.ends - busy.begins).max()) < 25 * MS, "with forty times the publications that it can write alone"
    behind = hand_out(steady(20_000, 200_000), stage)
    assert float(behind.ends[-1]) == pytest.approx(20.0, rel=0.2), "ten seconds' worth takes twenty"


def test_the_network_is_the_limit_where_it_is_slower() -> None:
    stage = Stage(receivers=1000, write=1e-6, joined=1e-7, head=1e-6, wire=9e-6)
    assert stage.round(1) == pytest.approx(10 * MS)
    assert stage.round(3) == pytest.approx(28 * MS)
    assert stage.most == pytest.approx(1000 / 9)


def test_a_pause_makes_those_wait_that_come_in_it() -> None:
    rounds = hand_out(np.array([0.2, 0.505, 0.9]), Stage(receivers=1, write=1 * MS, joined=0.0, pause=10 * MS))
    assert rounds.begins == pytest.approx([0.2, 0.51, 0.9])


def test_newcomers_are_let_in_one_by_one() -> None:
    at_once = Backoff(1e-9, 1e-9)
    found = storm(1000, 10, at_once, ALONE, read=0.0)
    fullest = found.last / (1 * MS)
    assert 100 <= fullest <= 130, "a tenth of them each, by chance"
    assert found.backlog in (round(fullest) - 1, round(fullest))
    assert found.recovered_p99 == pytest.approx(0.0)
    assert storm(1000, 10, at_once, ALONE, read=1.0).broker_busy == pytest.approx(1000.0)


def test_newcomers_and_those_who_stayed_make_each_other_wait() -> None:
    serving = Worker(clients=5120, rate=100.0, write=1 * MS / 512, connect=1 * MS)
    beside, alone = (storm(2000, 10, Backoff(1e-9, 1e-9), worker, read=0.0) for worker in (serving, ALONE))
    assert beside.last > 1.5 * alone.last
    assert beside.served_p99 > 10 * MS


def test_a_backoff_doubles_up_to_its_most() -> None:
    delays = Backoff(1.0, 2.0).delays(100_000, failures=2, seed=1)
    assert float(delays.mean()) == pytest.approx((1 + 2 + 2) / 2, rel=0.01)
    assert float(delays.max()) <= 5.0


@pytest.mark.parametrize("point", MEASURED, ids=lambda point: f"{point.what}, {point.clients}, {point.rate:g}")
def test_the_model_is_as_near_the_measurements_as_the_page_says(point: Measured) -> None:
    found = predict(point)
    for name, least, most in (("cpu", 0.8, 1.25), ("p50", 0.7, 1.25), ("p90", 0.7, 1.25), ("p99", 0.35, 1.35)):
        assert name in FIGURES
        assert least <= getattr(found, name) / getattr(point, name) <= most, name


def test_the_joined_writes_are_those_that_were_measured() -> None:
    each = (COSTS.write + 63 * COSTS.joined) / 64
    assert each == pytest.approx(0.23e-6, rel=0.1), "4.4 million a second with 64 in flight"


def test_the_page_shows_what_the_simulation_prints() -> None:
    page = PAGE.read_text(encoding="utf-8")
    first, second = simulation.tables(), simulation.tables()
    assert first == second, "the same each time"
    for name, table in first.items():
        shown = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", page, re.DOTALL)
        assert shown is not None, name
        assert shown[1] == table, f"{name}: python -m bench.simulation prints it anew"
