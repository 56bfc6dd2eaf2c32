"""Buckets and zeros."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.counters import BYTES, MESSAGES, SECONDS, Counters, Drop, Histogram


@pytest.mark.parametrize(
    ("value", "counts"),
    [
        (-1.0, [1, 0, 0]),
        (0.0, [1, 0, 0]),
        (1.0, [1, 0, 0]),  # an upper bound is in its bucket, as Prometheus has it
        (1.0000001, [0, 1, 0]),
        (2.0, [0, 1, 0]),
        (2.1, [0, 0, 1]),
        (float("inf"), [0, 0, 1]),
    ],
)
def test_a_value_is_in_the_first_bucket_whose_bound_it_does_not_exceed(value: float, counts: list[int]) -> None:
    histogram = Histogram((1.0, 2.0))
    histogram.observe(value)
    assert histogram.counts == counts


def test_a_histogram_knows_its_sum_and_its_count() -> None:
    histogram = Histogram((1.0, 2.0))
    assert (histogram.sum, histogram.count) == (0.0, 0)
    histogram.observe(0.5)
    histogram.observe(1.5, times=3)
    histogram.observe(4.0)
    histogram.observe(7.0, times=0)
    assert histogram.counts == [1, 3, 1]
    assert histogram.sum == pytest.approx(9.0)
    assert histogram.count == 5


@pytest.mark.parametrize("bounds", [SECONDS, MESSAGES, BYTES])
def test_bounds_rise(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))


def test_seconds_are_measured_from_a_tenth_of_a_millisecond() -> None:
    assert (SECONDS[0], SECONDS[-1]) == (0.0001, 10.0)


def test_everything_starts_at_zero_and_every_reason_has_its_counter() -> None:
    counters = Counters()
    assert counters.dropped == {"queue_full": 0, "conflated": 0, "disconnected": 0, "budget": 0}
    assert list(counters.dropped) == list(Drop)
    for name in Counters.__slots__:
        value = getattr(counters, name)
        if isinstance(value, Histogram):
            assert (value.count, value.sum) == (0, 0.0)
        elif isinstance(value, int):
            assert value == 0
        else:
            assert not any(value.values())


def test_two_processes_do_not_share_a_histogram() -> None:
    one, other = Counters(), Counters()
    one.ping_rtt.observe(1.0)
    one.dropped[Drop.BUDGET] += 1
    assert (other.ping_rtt.count, other.dropped[Drop.BUDGET]) == (0, 0)


@given(st.lists(st.one_of(st.integers(0, 10_000), st.sampled_from(MESSAGES), st.floats(0, 1e6))))
def test_many_values_at_once_are_counted_as_one_by_one(values: list[float]) -> None:
    together, apart = Histogram(MESSAGES), Histogram(MESSAGES)
    together.observe_each(values)
    for value in values:
        apart.observe(value)
    assert together.counts == apart.counts
    assert together.sum == pytest.approx(apart.sum)
