"""What the server under test says of itself (its ``/metrics``), and what the kernel says of its processes.

Laws: a reading is the sum over all workers. What cannot be read is None, never 0, and reading never raises: a server
that dies is the run's business, not the probe's. Only the lines that are needed are parsed, because in a run without
workers this happens in the process that measures, once a second: a full parse of a scrape would be seen as its lag.
"""

from __future__ import annotations

import http.client
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, cast
from urllib.parse import urlsplit

import psutil

from loadtest.result import ServerCounters

TIMEOUT = 2.0
_LINE = re.compile(r"^(stentor_\w+|process_\w+)(\{[^}]*\})? (\S+)")
_LABELLED = ("dropped", "closed")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(slots=True)
class Scrape:
    """One reading of /metrics: the sums by name, and by the one label that matters."""

    sums: dict[str, float] = field(default_factory=dict)
    by_label: dict[str, dict[str, float]] = field(default_factory=dict)
    build: dict[str, str] | None = None

    def number(self, name: str) -> int | None:
        """A whole number, or None if the server does not have it."""
        value = self.sums.get(name)
        return None if value is None else int(value)

    def counters(self) -> ServerCounters:
        """The server's own account."""
        return {
            "offered": self.number("stentor_messages_offered_total") or 0,
            "sent": self.number("stentor_messages_sent_total") or 0,
            "dropped": self._labelled("stentor_messages_dropped_total"),
            "received": self.number("stentor_messages_received_total") or 0,
            "published": self.number("stentor_messages_published_total") or 0,
            "queued": self.number("stentor_client_queue_messages_sum") or 0,
            "connections": self.number("stentor_connections") or 0,
            "opened": self.number("stentor_connections_opened_total") or 0,
            "closed": self._labelled("stentor_connections_closed_total"),
        }

    def _labelled(self, name: str) -> dict[str, int]:
        return {label: int(value) for label, value in self.by_label.get(name, {}).items() if value}


def parse(text: str) -> Scrape:
    """Read the Prometheus text format, as far as the load test needs it."""
    sums: dict[str, float] = defaultdict(float)
    by_label: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    build: dict[str, str] | None = None
    for line in text.splitlines():
        if "_bucket{" in line or not (match := _LINE.match(line)):
            continue
        name, labels, value = match[1], dict(_LABEL.findall(match[2] or "")), float(match[3])
        sums[name] += value
        if name == "stentor_build_info":
            build = {key: text for key, text in labels.items() if key != "worker"}
        for key in ("reason", "code"):
            if key in labels:
                by_label[name][labels[key]] += value
    return Scrape(dict(sums), {name: dict(each) for name, each in by_label.items()}, build)


def is_account(scrape: Scrape) -> bool:
    """Whether the scrape comes from a server that keeps the account which the ledger checks."""
    return "stentor_messages_offered_total" in scrape.sums


def difference(before: ServerCounters, after: ServerCounters) -> ServerCounters:
    """What was counted in between; gauges are those of ``after``."""

    def labelled(new: dict[str, int], old: dict[str, int]) -> dict[str, int]:
        return {key: value for key in new if (value := new[key] - old.get(key, 0))}

    return {
        "offered": after["offered"] - before["offered"],
        "sent": after["sent"] - before["sent"],
        "dropped": labelled(after["dropped"], before["dropped"]),
        "received": after["received"] - before["received"],
        "published": after["published"] - before["published"],
        "queued": after["queued"],
        "connections": after["connections"],
        "opened": after["opened"] - before["opened"],
        "closed": labelled(after["closed"], before["closed"]),
    }


def total(parts: Sequence[ServerCounters]) -> ServerCounters:
    """The sums over nodes."""

    def labelled(key: str) -> dict[str, int]:
        return dict(sum((Counter(part[key]) for part in parts), Counter()))  # type: ignore[literal-required]

    sums: dict[str, Any] = {key: sum(part[key] for part in parts) for key in parts[0] if key not in _LABELLED}  # type: ignore[literal-required]
    return cast(ServerCounters, {key: labelled(key) if key in _LABELLED else sums[key] for key in parts[0]})


def balanced(counters: ServerCounters) -> bool:
    """The law of the server's account: offered = sent + dropped + queued."""
    return counters["offered"] == counters["sent"] + sum(counters["dropped"].values()) + counters["queued"]


class Probe:
    """Reads one server."""

    def __init__(self, metrics_url: str | None, pid: int | None) -> None:
        self._url = urlsplit(metrics_url) if metrics_url else None
        self._pid = pid
        self.last: Scrape | None = None

    def scrape(self) -> Scrape | None:
        """One reading of /metrics, or None."""
        if self._url is None:
            return None
        host, port = self._url.hostname or "127.0.0.1", self._url.port
        secure = self._url.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(host, port, timeout=TIMEOUT)
        try:
            connection.request("GET", self._url.path or "/metrics", headers={"Accept": "text/plain"})
            response = connection.getresponse()
            text = response.read().decode("utf-8", "replace")
            self.last = parse(text) if response.status == 200 else None
        except (OSError, http.client.HTTPException, ValueError):
            self.last = None
        finally:
            connection.close()
        return self.last

    def pids(self) -> list[int]:
        """The server's processes, the supervisor first."""
        return [process.pid for process in self._processes()]

    def cpu_of_each(self) -> dict[int, float]:
        """User and system time of each of its processes so far, by process id."""
        times = {process.pid: _cpu_of(process) for process in self._processes()}
        return {pid: seconds for pid, seconds in times.items() if seconds is not None}

    def cpu_seconds(self, scrape: Scrape | None = None) -> float | None:
        """User and system time of all its processes so far."""
        processes = self._processes()
        if processes:
            times = [time for process in processes if (time := _cpu_of(process)) is not None]
            return sum(times) if times else None
        return scrape.sums.get("process_cpu_seconds_total") if scrape else None

    def rss(self, scrape: Scrape | None = None) -> int | None:
        """Resident memory of all its processes, in bytes."""
        processes = self._processes()
        if processes:
            sizes = [size for process in processes if (size := _rss_of(process)) is not None]
            return sum(sizes) if sizes else None
        return scrape.number("process_resident_memory_bytes") if scrape else None

    def _processes(self) -> list[psutil.Process]:
        if self._pid is None:
            return []
        try:
            parent = psutil.Process(self._pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.Error:
            return []


class Rates:
    """Turns two readings a second apart into rates."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._then: float | None = None
        self._cpu: float | None = None
        self._lag = (0.0, 0.0)
        self._dropped: int | None = None

    def take(self) -> dict[str, float | int | None]:
        """The server's part of a timeline row, over the time since the last call."""
        scrape = self._probe.scrape()
        now, cpu = monotonic(), self._probe.cpu_seconds(scrape)
        share = None
        if cpu is not None and self._cpu is not None and self._then is not None and now > self._then:
            share = 100 * (cpu - self._cpu) / (now - self._then)
        self._then, self._cpu = now, cpu
        return {
            "server_cpu": share,
            "server_rss": self._probe.rss(scrape),
            "server_connections": scrape.number("stentor_connections") if scrape else None,
            "server_loop_lag_ms": self._mean_lag(scrape),
            "queue_bytes": scrape.number("stentor_queue_bytes") if scrape else None,
            "lagging_clients": scrape.number("stentor_lagging_clients") if scrape else None,
            "dropped": self._newly_dropped(scrape),
        }

    def _mean_lag(self, scrape: Scrape | None) -> float | None:
        if scrape is None or "stentor_event_loop_lag_seconds_count" not in scrape.sums:
            return None
        total = scrape.sums.get("stentor_event_loop_lag_seconds_sum", 0.0)
        count = scrape.sums["stentor_event_loop_lag_seconds_count"]
        before_total, before_count = self._lag
        self._lag = (total, count)
        return 1000 * (total - before_total) / (count - before_count) if count > before_count else None

    def _newly_dropped(self, scrape: Scrape | None) -> int | None:
        if scrape is None or not is_account(scrape):
            return None
        dropped = scrape.number("stentor_messages_dropped_total") or 0
        before, self._dropped = self._dropped, dropped
        return None if before is None else dropped - before


def _cpu_of(process: psutil.Process) -> float | None:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system)


def _rss_of(process: psutil.Process) -> int | None:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return None
