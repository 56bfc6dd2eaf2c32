"""The pauses of the garbage collector: each run is observed once, and nothing stays behind."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from server.admin.pauses import CollectorPauses
from server.core.counters import SECONDS, Histogram
from tests.fakes import Clock


@pytest.fixture
def quiet() -> Iterator[None]:
    """Only runs that a test asks for."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("quiet")
def test_each_run_is_observed_once() -> None:
    before = list(gc.callbacks)
    pauses = CollectorPauses(Histogram(SECONDS))
    pauses.start()
    pauses.start()
    gc.collect()
    gc.collect(0)
    assert pauses.observed.count == 2
    assert 0.0 < pauses.observed.sum < 60.0
    pauses.stop()
    pauses.stop()
    gc.collect()
    assert pauses.observed.count == 2
    assert gc.callbacks == before


def test_a_pause_is_as_long_as_the_run() -> None:
    clock = Clock()
    pauses = CollectorPauses(Histogram(SECONDS), clock)
    for seconds in (0.003, 0.2):
        pauses._note("start", {})
        clock.advance(seconds)
        pauses._note("stop", {})
    assert pauses.observed.sum == pytest.approx(0.203)
    assert [count for count in pauses.observed.counts if count] == [1, 1]


def test_a_run_whose_beginning_was_not_seen_is_not_observed() -> None:
    pauses = CollectorPauses(Histogram(SECONDS))
    pauses._note("stop", {})
    assert pauses.observed.count == 0
