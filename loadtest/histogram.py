"""A log-linear histogram: constant relative error, exact merge, any number of values in 57 KiB.

Laws: a value below 256 has a bucket of its own; above, each octave has 128 buckets, so a bucket is at most 1/128
of its lower bound wide and its middle is within 0.4 % of every value in it. Merging adds counts and loses nothing:
merged parts equal the whole. Values are integers of any one unit (here nanoseconds); negative ones count as 0.

The idea is that of HdrHistogram (Gil Tene), whose percentile text format (``.hgrm``) ``write_hgrm`` produces.
It does not know what is measured, nor when.
"""

from __future__ import annotations

from collections.abc import Iterator

SUB_BUCKETS = 128
_HALF_BITS = 7  # SUB_BUCKETS == 1 << _HALF_BITS
_BUCKETS = (63 - _HALF_BITS) * SUB_BUCKETS + SUB_BUCKETS  # for any value below 2**63

#: A histogram on the wire: [bucket, count] pairs without the empty ones.
Sparse = list[list[int]]


def bucket_of(value: int) -> int:
    """The number of the bucket that holds ``value``."""
    if value < 2 * SUB_BUCKETS:
        return value if value > 0 else 0
    shift = value.bit_length() - _HALF_BITS - 1
    return (shift << _HALF_BITS) + (value >> shift)


def bounds_of(bucket: int) -> tuple[int, int]:
    """The lowest value of a bucket, and the lowest value above it."""
    if bucket < 2 * SUB_BUCKETS:
        return bucket, bucket + 1
    shift = (bucket >> _HALF_BITS) - 1
    lower = (bucket - (shift << _HALF_BITS)) << shift
    return lower, lower + (1 << shift)


class Histogram:
    """Counts of values, with the exact count, sum, minimum and maximum."""

    __slots__ = ("count", "counts", "maximum", "minimum", "total")

    def __init__(self) -> None:
        self.counts = [0] * _BUCKETS
        self.count = 0
        self.total = 0
        self.minimum: int | None = None
        self.maximum: int | None = None

    def record(self, value: int, times: int = 1) -> None:
        """Count ``value``, ``times`` times."""
        if value < 0:
            value = 0
        self.counts[bucket_of(value)] += times
        self.count += times
        self.total += value * times
        self.see(value)

    def see(self, value: int) -> None:
        """Let ``value`` take part in the minimum and the maximum without counting it."""
        if value < 0:
            value = 0
        if self.minimum is None or value < self.minimum:
            self.minimum = value
        if self.maximum is None or value > self.maximum:
            self.maximum = value

    def merge(self, other: Histogram) -> None:
        """Add everything that ``other`` holds."""
        for bucket, count in other.sparse():
            self.counts[bucket] += count
        self.count += other.count
        self.total += other.total
        for value in (other.minimum, other.maximum):
            if value is not None:
                self.see(value)

    def percentile(self, percent: float) -> float | None:
        """The value that ``percent`` % of the values do not exceed (the middle of its bucket), or None if empty."""
        if not self.count:
            return None
        rank = max(1, -(-self.count * percent // 100))
        seen = 0
        for bucket, count in self.sparse():
            seen += count
            if seen >= rank:
                return self._clamp(bucket)
        raise AssertionError("the counts do not add up to the count")

    def mean(self) -> float | None:
        """The exact mean, or None if empty."""
        return self.total / self.count if self.count else None

    def sparse(self) -> Sparse:
        """The buckets that are not empty, ascending."""
        return [[bucket, count] for bucket, count in enumerate(self.counts) if count]

    def rows(self, scale: float = 1.0) -> list[list[float]]:
        """``[lower, upper, count]`` of each bucket that is not empty, bounds divided by ``scale``."""
        return [
            [lower / scale, upper / scale, count]
            for bucket, count in self.sparse()
            for lower, upper in (bounds_of(bucket),)
        ]

    def dump(self) -> dict[str, object]:
        """Everything, in plain values for the wire; ``load`` is its opposite."""
        return {
            "sparse": self.sparse(),
            "count": self.count,
            "total": self.total,
            "minimum": self.minimum,
            "maximum": self.maximum,
        }

    @classmethod
    def load(cls, data: dict[str, object]) -> Histogram:
        """The histogram that ``dump`` described."""
        histogram = cls()
        for bucket, count in data["sparse"]:  # type: ignore[attr-defined]
            histogram.counts[bucket] = count
        histogram.count = data["count"]  # type: ignore[assignment]
        histogram.total = data["total"]  # type: ignore[assignment]
        histogram.minimum = data["minimum"]  # type: ignore[assignment]
        histogram.maximum = data["maximum"]  # type: ignore[assignment]
        return histogram

    def _clamp(self, bucket: int) -> float:
        lower, upper = bounds_of(bucket)
        middle = (lower + upper - 1) / 2
        if self.minimum is not None and middle < self.minimum:
            return float(self.minimum)
        if self.maximum is not None and middle > self.maximum:
            return float(self.maximum)
        return middle


def hgrm_lines(histogram: Histogram, scale: float, ticks_per_half: int = 5) -> Iterator[str]:
    """The percentile distribution in HdrHistogram's text format, a line at a time, values divided by ``scale``.

    Columns: value, quantile, count up to it, 1/(1 - quantile). The steps halve towards 1 as HdrHistogram's do, so
    its plotter reads the file.
    """
    yield f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}\n\n"
    seen, quantile = 0, 0.0
    for bucket, count in histogram.sparse():
        seen += count
        reached = seen / histogram.count
        while reached >= quantile < 1.0:
            value = histogram._clamp(bucket) / scale
            yield f"{value:12.3f} {quantile:2.12f} {seen:10d} {1 / (1 - quantile):14.2f}\n"
            if seen == histogram.count:
                break
            halvings = int(1 / (1 - quantile)).bit_length()
            quantile += 1 / (ticks_per_half * 2**halvings)
    maximum = (histogram.maximum or 0) / scale
    yield f"{maximum:12.3f} {1.0:2.12f} {histogram.count:10d}\n"
    mean, deviation = (histogram.mean() or 0.0) / scale, _deviation(histogram) / scale
    yield f"#[Mean    = {mean:12.3f}, StdDeviation   = {deviation:12.3f}]\n"
    yield f"#[Max     = {maximum:12.3f}, Total count    = {histogram.count:12d}]\n"
    yield f"#[Buckets = {_BUCKETS // SUB_BUCKETS:12d}, SubBuckets     = {SUB_BUCKETS:12d}]\n"


def _deviation(histogram: Histogram) -> float:
    mean = histogram.mean()
    if mean is None:
        return 0.0
    square = sum(count * (histogram._clamp(bucket) - mean) ** 2 for bucket, count in histogram.sparse())
    return float((square / histogram.count) ** 0.5)
