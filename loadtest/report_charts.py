"""The pictures of one run: each function makes one chart out of a result.

Laws: what was not measured is a gap with the reason in words, never a zero. It does not know of HTML.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from loadtest import axes
from loadtest.axes import Axis
from loadtest.charts import Band, Chart, Mark, Point, Series
from loadtest.result import Latency, Result, TimelineRow

_NO_METRICS = "not measured: the server's /metrics address was not known"
_NO_TIME = "nothing was published"
_TIME = Axis("time since the first publication", axes.seconds, low=0)


def latency_over_time(result: Result) -> Chart:
    """p50, p99 and the worst, second by second, on a log axis."""
    rows = result["timeline"]
    lines = (
        Series("p50", _line(rows, lambda r: r["p50_us"], 1e-3), 0),
        Series("p99", _line(rows, lambda r: r["p99_us"], 1e-3), 1),
        Series("worst", _line(rows, lambda r: r["max_us"], 1e-3), 2),
    )
    worst = max((y for x, y in lines[2].points if math.isfinite(y)), default=0.0)
    return Chart(
        "latency-time",
        "Latency over time",
        f"Median, 99th percentile and worst delivery of each second; the worst of all took {axes.milliseconds(worst)}.",
        _TIME,
        Axis("intended send to receipt, log scale", axes.milliseconds, "log"),
        lines,
        bands=_warmup(result),
        empty=_NO_TIME,
    )


def latency_by_percentile(latency: Latency) -> Chart:
    """The whole distribution; the axis gives each further nine the same width."""
    points = percentile_points(latency)
    top = axes.milliseconds(points[-1][1]) if points else "nothing"
    return Chart(
        "latency-percentile",
        "Latency by percentile",
        f"How long the slowest share of deliveries took, from the median to the worst, {top}.",
        Axis("percentile of deliveries", axes.nines, "nines"),
        Axis("intended send to receipt", axes.milliseconds, low=0),
        (Series("after the warm-up", points, 0),),
        empty="nothing was timed",
    )


def percentile_points(latency: Latency) -> list[Point]:
    """(share of deliveries at most this slow, milliseconds), as far as the count carries the share."""
    seen, points = 0.0, []
    for lower, upper, number in latency["histogram"]:
        points.append((seen / latency["count"], lower / 1000))
        seen += number
        last = upper / 1000
    if points:
        # One delivery in n is the finest share that n deliveries can tell.
        points.append((1 - 1 / max(2, latency["count"]), last))
    return points


def delivered(result: Result) -> Chart:
    """Deliveries received per second, against what the publications of that second called for."""
    rows, ledger = result["timeline"], result["ledger"]
    publications = sum(row["publications"] for row in ledger["channels"])
    each = ledger["expected"] / publications if publications else 0.0
    return Chart(
        "delivered",
        "Delivered",
        "Messages that the healthy clients received in each second, and how many that second's publications owed them.",
        _TIME,
        Axis("deliveries/s", axes.count, low=0, least=1),
        (
            Series("delivered", _line(rows, lambda r: r["delivered"]), 0),
            Series("owed", _line(rows, lambda r: r["published"] * each), 5),
        ),
        bands=_warmup(result),
        empty=_NO_TIME,
    )


def published(result: Result) -> Chart:
    """Publications sent per second, and how late the latest of them was."""
    return Chart(
        "published",
        "Published",
        "Publications sent in each second, against the rate that was planned.",
        _TIME,
        Axis("publications/s", axes.count, low=0, least=1),
        (Series("published", _line(_while_publishing(result), lambda r: r["published"]), 0),),
        marks=(Mark("planned", result["plan"]["rate"]),) if result["plan"]["shape"] is None else (),
        bands=_warmup(result),
        empty=_NO_TIME,
    )


def cpu(result: Result) -> Chart:
    """The server's CPU and the generator's, in percent of one core."""
    rows, limit = _while_publishing(result), cpu_limit(result)
    return Chart(
        "cpu",
        "CPU: server and generator",
        f"Percent of one core in each second. Above {limit:g} % the generator itself may be the limit.",
        _TIME,
        Axis("% of one core", axes.plain, low=0, high=100),
        (
            *_served(rows),
            *_processes(rows, lambda r: r["generator_cpu"]),
        ),
        marks=(Mark(f"generator's limit, {limit:g} %", limit),),
        bands=_warmup(result),
        empty=_NO_TIME,
    )


def _served(rows: Sequence[TimelineRow]) -> list[Series]:
    """The server's lines: one, or one for each node and the broker."""
    names = sorted({name for row in rows for name in row["nodes_cpu"]})
    if not names:
        return [Series("server, all workers", _line(rows, lambda r: r["server_cpu"]), 0)]
    # By colour and dash a few nodes can be told apart, and no more.
    shown = [Series(f"node {name}", _line(rows, _share_of(name)), 2 * i) for i, name in enumerate(names[:2])]
    if len(names) > 2:
        busiest = _line(rows, lambda row: max(row["nodes_cpu"].values(), default=None))
        shown = [Series(f"busiest of {len(names)} nodes", busiest, 0)]
    if any(row["broker_cpu"] is not None for row in rows):
        shown.append(Series("broker", _line(rows, lambda row: row["broker_cpu"]), 4))
    return shown


def _share_of(name: str) -> Callable[[TimelineRow], float | None]:
    return lambda row: row["nodes_cpu"].get(name)


def lags(result: Result) -> Chart:
    """What else may stretch a latency: event loops that turn late, publications sent late."""
    rows = _while_publishing(result)
    return Chart(
        "lag",
        "Loop lag and lateness",
        "How late the event loops of generator and server turned, and how late publications were sent, in each second.",
        _TIME,
        Axis("lag", axes.milliseconds, low=0),
        (
            Series("server, mean", _line(rows, lambda r: r["server_loop_lag_ms"]), 0),
            *_processes(rows, lambda r: r["generator_lag_ms"], ", worst"),
            Series("publications, worst", _line(rows, lambda r: r["late_ms"]), 2),
        ),
        bands=_warmup(result),
        empty=_NO_TIME,
    )


def queue(result: Result) -> Chart:
    """Bytes that the server holds for clients that lag."""
    return _server_chart(
        result, "queue", "Queued in the server", "Bytes queued for clients", axes.size, lambda r: r["queue_bytes"]
    )


def laggards(result: Result) -> Chart:
    """How many clients the server is waiting for."""
    return _server_chart(
        result, "laggards", "Lagging clients", "Clients that lag", axes.count, lambda r: r["lagging_clients"]
    )


def memory(result: Result) -> Chart:
    """The server's resident memory."""
    return _server_chart(
        result, "memory", "Server memory", "Resident memory, all workers", axes.size, lambda r: r["server_rss"]
    )


def connections(result: Result) -> Chart:
    """Open connections, as the generator and as the server count them."""
    rows = result["timeline"]
    return Chart(
        "connections",
        "Connections",
        "Open connections in each second: the healthy clients', and all that the server counts.",
        _TIME,
        Axis("connections", axes.count, low=0, least=1),
        (
            Series("healthy clients", _line(rows, lambda r: r["connections"]), 0),
            Series("all, by the server's count", _line(rows, lambda r: r["server_connections"]), 1),
        ),
        bands=_warmup(result),
        empty=_NO_TIME,
    )


def cpu_limit(result: Result) -> float:
    """The share of its core over which the generator, not the server, may be what was measured."""
    return float(result["options"].get("cpu_limit", 90.0))


def lag_limit(result: Result) -> float:
    """The loop lag (ms, p99) over which the generator measures itself."""
    return float(result["options"].get("lag_limit", 100.0))


def _server_chart(
    result: Result, name: str, title: str, unit: str, text: axes.Format, pick: Callable[[TimelineRow], float | None]
) -> Chart:
    points = _line(result["timeline"], pick)
    known = [y for _, y in points if math.isfinite(y)]
    most = f" The most was {text(max(known))}." if known else ""
    return Chart(
        name,
        title,
        f"{unit}, by the server's own account in each second.{most}",
        _TIME,
        Axis(
            unit.lower(),
            text,
            "bytes" if text is axes.size else "linear",
            low=0,
            least=1024 if text is axes.size else 1,
        ),
        (Series(title, points, 0),),
        bands=_warmup(result),
        empty=_NO_METRICS if result["timeline"] else _NO_TIME,
    )


def _line(rows: Sequence[TimelineRow], pick: Callable[[TimelineRow], float | None], unit: float = 1.0) -> list[Point]:
    """One point per second, in the middle of it; a second without a figure is a gap."""
    return [(row["t"] + 0.5, math.nan if (value := pick(row)) is None else value * unit) for row in rows]


def _processes(
    rows: Sequence[TimelineRow], pick: Callable[[TimelineRow], dict[str, float]], suffix: str = ""
) -> list[Series]:
    """A line for each generator process, or one for the busiest when there are too many to tell apart."""

    def of(name: str) -> Callable[[TimelineRow], float | None]:
        return lambda row: pick(row).get(name)

    names = sorted({name for row in rows for name in pick(row)})
    if len(names) > 3:
        busiest = _line(rows, lambda row: max(pick(row).values(), default=None))
        return [Series(f"generator, busiest of {len(names)}{suffix}", busiest, 1)]
    label = "generator" if len(names) == 1 else "generator {}"
    return [Series(label.format(name) + suffix, _line(rows, of(name)), 1 + 2 * i) for i, name in enumerate(names)]


def _while_publishing(result: Result) -> list[TimelineRow]:
    """The seconds in which something was due to be published; in the one after, cut short, a share is no share."""
    length = math.floor(result["publications"]["seconds"] or 0) + 1
    return [row for row in result["timeline"] if row["t"] < length]


def _warmup(result: Result) -> tuple[Band, ...]:
    length = result["plan"]["warmup"]
    return (Band("warm-up", 0, length),) if length else ()
