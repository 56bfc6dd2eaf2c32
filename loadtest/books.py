"""Adds up what the stations report, and makes the result of it.

Laws: adding is exact (histograms merge, counts add), in any order and from any number of stations. It keeps no
connection and sends nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from loadtest.histogram import Histogram
from loadtest.ledger import Sums
from loadtest.options import Options
from loadtest.result import ChannelRow, Clients, GeneratorRow, Latency, Ledger, TimelineRow, Troublemakers

MAX_CHANNEL_ROWS = 1000
PATIENCE = 10  # seconds that a station may be behind with its reports before a second is sealed
SUSTAINED = 3  # seconds: shorter peaks of the generator's CPU are left to the lag to judge

Message = dict[str, Any]


def latency_of(histogram: Histogram) -> Latency:
    """A histogram of nanoseconds in the schema's form."""

    def us(value: float | None) -> float | None:
        return None if value is None else value / 1000

    return {
        "unit": "us",
        "count": histogram.count,
        "min": us(histogram.minimum) if histogram.count else None,
        "max": us(histogram.maximum) if histogram.count else None,
        "mean": us(histogram.mean()),
        "p50": us(histogram.percentile(50)),
        "p90": us(histogram.percentile(90)),
        "p99": us(histogram.percentile(99)),
        "p99_9": us(histogram.percentile(99.9)),
        "p99_99": us(histogram.percentile(99.99)),
        "histogram": histogram.rows(1000.0),
    }


class Second:
    """One second, over all stations."""

    __slots__ = ("connections", "cpu", "delivered", "lag", "late", "latency", "percentiles", "published", "server")

    def __init__(self) -> None:
        self.published = 0
        self.delivered = 0
        self.late = 0
        self.latency: Histogram | None = Histogram()  # None once sealed: a day has too many seconds to keep it
        self.percentiles: tuple[float | None, float | None, float | None] = (None, None, None)
        self.connections: dict[str, int] = {}
        self.cpu: dict[str, float] = {}
        self.lag: dict[str, float] = {}
        self.server: dict[str, Any] = {}

    def seal(self) -> None:
        """Keep only the figures of the latencies. Idempotent."""
        latency, self.latency = self.latency, None
        if latency is not None and latency.count:
            self.percentiles = (latency.percentile(50), latency.percentile(99), latency.maximum)

    def row(self, t: int) -> TimelineRow:
        """The schema's form."""
        p50, p99, worst = self.percentiles
        if self.latency is not None and self.latency.count:
            p50, p99, worst = self.latency.percentile(50), self.latency.percentile(99), self.latency.maximum
        server = self.server.get
        return {
            "t": t,
            "published": self.published,
            "delivered": self.delivered,
            "p50_us": _us(p50),
            "p99_us": _us(p99),
            "max_us": _us(worst),
            "connections": sum(self.connections.values()) if self.connections else None,
            "server_cpu": server("server_cpu"),
            "server_rss": server("server_rss"),
            "server_connections": server("server_connections"),
            "server_loop_lag_ms": server("server_loop_lag_ms"),
            "nodes_cpu": server("nodes_cpu", {}),
            "broker_cpu": server("broker_cpu"),
            "queue_bytes": server("queue_bytes"),
            "lagging_clients": server("lagging_clients"),
            "dropped": server("dropped"),
            "generator_cpu": self.cpu,
            "generator_lag_ms": self.lag,
            "late_ms": self.late / 1e6 if self.published else None,
        }


class Books:
    """The reports and accounts of all stations of one run."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.seconds: dict[int, Second] = {}
        self.accounts: dict[str, Message] = {}
        self._whole = Histogram()  # of the seconds after the warm-up
        self._sealed = 0  # the seconds before this one are
        self._reported: dict[str, int] = {}  # by station: the newest second it has told
        self._handshakes: dict[str, Message] = {}
        self._missing: dict[str, int] = {}
        self.published = 0
        self.delivered = 0

    def report(self, station: str, report: Message) -> None:
        """Add a station's finished seconds."""
        process = report["process"]
        self._handshakes[station] = report["handshakes"]
        self._missing[station] = report["missing"]
        for row in report["rows"]:
            self.published += row["published"]
            self.delivered += row["delivered"]
            second = self.seconds.setdefault(row["t"], Second())
            second.published += row["published"]
            second.delivered += row["delivered"]
            second.late = max(second.late, row["late"])
            latency = Histogram.load(row["latency"])
            if row["t"] >= self._options.warmup:
                self._whole.merge(latency)
            if second.latency is not None:
                second.latency.merge(latency)
            second.connections[process] = row["connections"]
            second.cpu[process] = row["cpu"]
            second.lag[process] = max(row["lag"], second.lag.get(process, 0.0))
            self._reported[station] = row["t"]
        self._seal()

    def _seal(self) -> None:
        newest = min(self._reported.values(), default=0)
        while self._sealed < newest - PATIENCE:
            if self._sealed in self.seconds:
                self.seconds[self._sealed].seal()
            self._sealed += 1

    def account(self, station: str, account: Message) -> None:
        """Close a station's books."""
        self.report(station, account["report"])
        self.accounts[station] = account

    @property
    def missing(self) -> int:
        """Deliveries that healthy subscribers have not got, though later ones have come."""
        return sum(self._missing.values())

    def newest(self) -> TimelineRow | None:
        """The newest second that every station has told."""
        t = min(self._reported.values(), default=-1)
        return self.seconds[t].row(t) if t in self.seconds else None

    def timeline(self) -> list[TimelineRow]:
        """Every second up to the last in which something happened."""
        busy = [t for t, second in self.seconds.items() if second.delivered or second.published]
        return [self.seconds.setdefault(t, Second()).row(t) for t in range(max(busy, default=-1) + 1)]

    def latency(self) -> Histogram:
        """All timed deliveries after the warm-up."""
        return self._whole

    def handshakes(self) -> Histogram:
        """All handshakes of healthy connections."""
        whole = Histogram()
        for handshakes in self._handshakes.values():
            whole.merge(Histogram.load(handshakes))
        return whole

    def clients(self, kind: str) -> Clients:
        """The sums over stations for ``subscribers`` or ``publishing``."""
        failed: Counter[str] = Counter()
        closes: Counter[str] = Counter()
        for account in self.accounts.values():
            failed.update(account[kind]["failed"])
            closes.update(account[kind]["closes"])
        rates = [account["connects_per_second"] for account in self.accounts.values()]
        known = [rate for rate in rates if rate is not None]
        return {
            "asked": self._sum(account[kind]["asked"] for account in self.accounts.values()),
            "connected": self._sum(account[kind]["connected"] for account in self.accounts.values()),
            "failed": dict(failed),
            "connects_per_second": sum(known) if known else None,
            "closes": dict(closes),
            "left": self._sum(account[kind]["left"] for account in self.accounts.values()),
        }

    def troublemakers(self) -> Troublemakers:
        """What the troublemakers did."""
        seen: Counter[str] = Counter()
        for account in self.accounts.values():
            seen.update(account["trouble"] or {})
        return {
            "stalled_asked": self._options.stalled,
            "stalled_observed": seen["stalled_observed"],
            "stalled_evicted": seen["stalled_evicted"],
            "slow_asked": self._options.slow,
            "slow_observed": seen["slow_observed"],
            "slow_evicted": seen["slow_evicted"],
            "flapping_asked": seen["flapping_asked"],
            "flapping_done": seen["flapping_done"],
        }

    def generator(self, publishing: float | None) -> list[GeneratorRow]:
        """One row per process, over the whole seconds of publishing."""
        last = int(publishing) if publishing else 0
        rows: list[GeneratorRow] = []
        for account in self.accounts.values():
            process = account["process"]
            shares = [
                second.cpu[process]
                for t, second in sorted(self.seconds.items())
                if t < max(last, 1) and process in second.cpu
            ]
            lags = Histogram.load(account["lags"])
            lag_p99 = lags.percentile(99)
            rows.append(
                {
                    "process": process,
                    "pid": account["pid"],
                    "cpu_mean": sum(shares) / len(shares) if shares else None,
                    "cpu_max": max(shares) if shares else None,
                    "cpu_sustained": _sustained(shares),
                    "lag_max_ms": lags.maximum / 1e6 if lags.maximum is not None else None,
                    "lag_p99_ms": lag_p99 / 1e6 if lag_p99 is not None else None,
                    "connections": account["open"],
                    "timed": account["timed"],
                }
            )
        return rows

    def sums(self, dropped: Sequence[int]) -> dict[tuple[int, int], Sums]:
        """What was owed and what came, by channel and node.

        Args:
            dropped: what each node says it dropped, which explains what is missing there, and only there.
        """
        found: dict[tuple[int, int], Sums] = {}
        for account in self.accounts.values():
            for channel, node, dump in account["sums"]:
                found.setdefault((channel, node), Sums()).add(Sums(**dump))
        unclaimed = list(dropped)
        for (_, node), sums in sorted(found.items()):
            unclaimed[node] -= sums.excuse(unclaimed[node])
        return found

    def opened(self, node: int) -> int:
        """How many healthy connections were opened to a node, the publishers' included."""
        return self._sum(count for account in self.accounts.values() for at, count in account["opened"] if at == node)

    def ledger(self, totals: dict[int, int], sums: dict[tuple[int, int], Sums]) -> Ledger:
        """The ledger, without the server's account.

        Args:
            totals: publications by channel, markers included.
            sums: by channel and node.
        """
        by_channel: dict[int, Sums] = {}
        whole = Sums()
        for (channel, _), each in sorted(sums.items()):
            by_channel.setdefault(channel, Sums()).add(each)
            whole.add(each)
        damaged = [sentence for account in self.accounts.values() for sentence in account["damaged"]]
        rows = [_channel_row(self._options.channel(c), totals.get(c, 0), each) for c, each in by_channel.items()]
        rows.sort(key=lambda row: -(row["lost"] + row["duplicated"] + row["reordered"] + row["unexpected"]))
        return {
            "expected": whole.expected,
            "delivered": whole.delivered,
            "declared": whole.declared,
            "lost": whole.lost,
            "overdue": whole.overdue,
            "duplicated": whole.duplicated,
            "reordered": whole.reordered,
            "unexpected": whole.unexpected,
            "silent_clients": whole.silent,
            "barrier_missing": whole.unfinished,
            "damaged": damaged[:20],
            "channels": rows[:MAX_CHANNEL_ROWS],
            "server": {
                "before": None, "after": None, "delta": None,
                "balanced": None, "mode": "none", "agrees": None, "differences": [],
            },
        }  # fmt: skip

    @staticmethod
    def _sum(numbers: Iterable[int]) -> int:
        return sum(numbers)


def _channel_row(name: str, publications: int, sums: Sums) -> ChannelRow:
    return {
        "channel": name,
        "publications": publications,
        "subscribers": sums.subscribers,
        "expected": sums.expected,
        "delivered": sums.delivered,
        "declared": sums.declared,
        "lost": sums.lost,
        "overdue": sums.overdue,
        "duplicated": sums.duplicated,
        "reordered": sums.reordered,
        "unexpected": sums.unexpected,
    }


def _sustained(shares: list[float]) -> float | None:
    if not shares:
        return None
    span = min(SUSTAINED, len(shares))
    return max(sum(shares[i : i + span]) / span for i in range(len(shares) - span + 1))


def _us(value: float | None) -> float | None:
    return None if value is None else value / 1000
