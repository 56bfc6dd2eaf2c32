"""Shows the run's figures in Locust's own table, page and files, in fractions of a millisecond.

Locust logs a request at a time and rounds to whole milliseconds below 100. Here a finished second becomes one
``StatsEntry`` that is added with ``extend``, as Locust's master does with what a worker reports; and the entries are
of a kind that keeps three significant digits and prints them. Locust's documented hook for the former is
``bucket_response_time``; for the latter there is none, so ``install`` replaces the class before anything is counted:
this is the one place that reaches into Locust's module, and it is pinned by a test.
"""

from __future__ import annotations

import time
from typing import Any

import locust.stats
from locust.stats import RequestStats, StatsEntry

from loadtest.histogram import Histogram, bounds_of

METHOD = "WS"
DELIVER, CONNECT, PUBLISH = "deliver", "connect", "publish"


def three_digits(milliseconds: float) -> float:
    """Round to three significant digits: the key under which Locust counts a response time."""
    return float(f"{milliseconds:.3g}")


class FineStatsEntry(StatsEntry):
    """A statistics entry that prints fractions of a millisecond."""

    def to_string(self, current: bool = True) -> str:
        """One line of Locust's table."""
        rate, failing = (
            (self.current_rps, self.current_fail_per_sec) if current else (self.total_rps, self.total_fail_per_sec)
        )
        name = f"{(self.method + ' ') if self.method else '':<{locust.stats.STATS_TYPE_WIDTH}} {self.name:<{_width()}}"
        figures = (
            self.avg_response_time,
            self.min_response_time or 0,
            self.max_response_time,
            self.median_response_time or 0,
        )
        average, least, most, median = (f"{figure:>7.3g}" if figure < 100 else f"{figure:>7.0f}" for figure in figures)
        failures = f"{self.num_failures}({self.fail_ratio * 100:.2f}%)"
        return (
            f"{name} {self.num_requests:7d} {failures:>12} |{average} {least} {most}{median} "
            f"| {rate or 0:7.2f} {failing or 0:11.2f}"
        )

    def percentile(self) -> str:
        """One line of Locust's table of percentiles."""
        if not self.num_requests:
            raise ValueError("there are no percentiles of nothing")
        values = (self.get_response_time_percentile(part) for part in locust.stats.PERCENTILES_TO_REPORT)
        cells = " ".join(f"{value:>6.3g}" if value < 100 else f"{value:>6.0f}" for value in values)
        width = locust.stats.STATS_NAME_WIDTH
        return (
            f"{self.method or '':<{locust.stats.STATS_TYPE_WIDTH}} {self.name:<{width}} {cells} {self.num_requests:8d}"
        )

    def to_dict(self, escape_string_values: bool = False) -> dict[str, Any]:
        """One line of Locust's page."""
        row: dict[str, Any] = super().to_dict(escape_string_values)
        row["min_response_time"] = three_digits(self.min_response_time or 0)
        row["max_response_time"] = three_digits(self.max_response_time)
        return row


def install() -> None:
    """Make Locust keep and print three significant digits; before its environment is made. Idempotent."""
    locust.stats.bucket_response_time = three_digits
    locust.stats.StatsEntry = FineStatsEntry


def show(
    stats: RequestStats, name: str, count: int, size: int, latency: Histogram | None, at: float | None = None
) -> None:
    """Add ``count`` events of ``size`` bytes each to Locust's figures.

    Args:
        latency: of those that were timed, in nanoseconds; the others count as Locust's requests without a time.
        at: the wall-clock time, in seconds.
    """
    if not count:
        return
    entry = FineStatsEntry(stats, name, METHOD)
    entry.last_request_timestamp = time.time() if at is None else at
    entry.start_time = entry.last_request_timestamp
    entry.num_requests = count
    entry.num_none_requests = count - (latency.count if latency else 0)
    entry.total_content_length = count * size
    entry.num_reqs_per_sec[int(entry.last_request_timestamp)] = count
    if latency is not None and latency.count:
        entry.total_response_time = latency.total / 1e6
        entry.min_response_time = (latency.minimum or 0) / 1e6
        entry.max_response_time = (latency.maximum or 0) / 1e6
        for bucket, times in latency.sparse():
            lower, upper = bounds_of(bucket)
            entry.response_times[three_digits((lower + upper - 1) / 2e6)] += times
    stats.entries[(name, METHOD)].extend(entry)
    stats.total.extend(entry)


def _width() -> int:
    return locust.stats.STATS_NAME_WIDTH - locust.stats.STATS_TYPE_WIDTH + 4
