from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.histogram import Histogram, bounds_of, bucket_of, hgrm_lines

values = st.integers(min_value=0, max_value=2**62)


@settings(deadline=None)
@given(values)
def test_a_value_is_within_its_bucket_and_the_bucket_within_one_percent(value: int) -> None:
    lower, upper = bounds_of(bucket_of(value))
    assert lower <= value < upper
    assert upper - lower <= max(1, lower / 128)


@settings(deadline=None)
@given(values)
def test_buckets_ascend_without_a_hole(value: int) -> None:
    bucket = bucket_of(value)
    assert bounds_of(bucket)[1] == bounds_of(bucket + 1)[0]


@settings(deadline=None)
@given(st.lists(values, min_size=1, max_size=200), st.sampled_from([1, 25, 50, 90, 99, 99.9, 100]))
def test_a_percentile_is_within_one_percent_of_the_true_one(sample: list[int], percent: float) -> None:
    histogram = Histogram()
    for value in sample:
        histogram.record(value)
    true = sorted(sample)[max(1, -(-int(len(sample) * percent * 10) // 1000)) - 1]
    found = histogram.percentile(percent)
    assert found is not None
    assert abs(found - true) <= max(1, 0.01 * true)


@settings(deadline=None)
@given(st.lists(st.lists(values, max_size=30), max_size=5))
def test_merged_parts_equal_the_whole(parts: list[list[int]]) -> None:
    whole = Histogram()
    histograms = []
    for part in parts:
        histogram = Histogram()
        for value in part:
            histogram.record(value)
            whole.record(value)
        histograms.append(histogram)
    merged = Histogram()
    for each in histograms:
        merged.merge(Histogram.load(json.loads(json.dumps(each.dump()))))
    assert merged.dump() == whole.dump()


def test_an_empty_histogram_has_no_figures() -> None:
    empty = Histogram()
    assert (empty.percentile(50), empty.mean(), empty.minimum, empty.maximum, empty.rows()) == (None,) * 4 + ([],)


def test_percentiles_stay_between_the_extremes() -> None:
    histogram = Histogram()
    histogram.record(1_000_001, times=3)
    assert histogram.percentile(50) == histogram.percentile(100) == 1_000_001
    assert histogram.mean() == 1_000_001


def test_a_negative_value_counts_as_zero() -> None:
    histogram = Histogram()
    histogram.record(-5)
    assert (histogram.count, histogram.minimum, histogram.maximum) == (1, 0, 0)


def test_rows_are_the_buckets_with_their_bounds() -> None:
    histogram = Histogram()
    histogram.record(3, times=2)
    histogram.record(1000)
    assert histogram.rows() == [[3, 4, 2], [1000, 1004, 1]]


def test_the_hgrm_file_is_hdrhistograms_format() -> None:
    histogram = Histogram()
    for value in range(1, 10_001):
        histogram.record(value * 1000)
    lines = list(hgrm_lines(histogram, 1000.0))
    assert lines[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    table = [line.split() for line in lines[1:] if line.strip() and not line.startswith("#")]
    quantiles = [float(row[1]) for row in table]
    assert quantiles == sorted(quantiles)
    assert quantiles[0] == 0.0
    assert quantiles[-1] == 1.0
    assert all(float(row[0]) == pytest.approx(float(row[2]), rel=0.01) for row in table), "value = rank here"
    assert lines[-3].startswith("#[Mean    =     5000.500")
    assert lines[-2] == "#[Max     =    10000.000, Total count    =        10000]\n"


def test_the_hgrm_file_of_nothing_has_no_rows() -> None:
    assert [line.split()[0] for line in hgrm_lines(Histogram(), 1.0)] == [
        "Value",
        "0.000",
        "#[Mean",
        "#[Max",
        "#[Buckets",
    ]
