"""A node's side of a run: its account before and after, and what it cost it.

Laws: what the server or the kernel does not tell stays None. The account after a run is read when the server is
quiet: two equal readings that balance, with nothing queued, if it comes to that within ``QUIET_PATIENCE``.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

import gevent

from loadtest.probe import Probe, Rates, balanced, difference, is_account
from loadtest.result import ProcessRow, ServerCounters, ServerFacts

QUIET_PATIENCE = 3.0
_PAUSE = 0.1


class Witness:
    """Watches one node over one run."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._rates = Rates(probe)
        self._build: dict[str, str] | None = None
        self._pids: list[int] = []
        self._rss_before: int | None = None
        self._rss_connected: int | None = None
        self._rss_max: int | None = None
        self._cpu_before: float | None = None
        self._each_before: dict[int, float] = {}
        self._bytes: tuple[int | None, int | None] = (None, None)
        self.before: ServerCounters | None = None
        self.after: ServerCounters | None = None

    @property
    def delta(self) -> ServerCounters | None:
        """What the server counted during the run."""
        return difference(self.before, self.after) if self.before and self.after else None

    def read_before(self) -> None:
        """Before the first client connects."""
        scrape = self._probe.scrape()
        if scrape is not None:
            self._build = scrape.build
            if is_account(scrape):
                self.before = scrape.counters()
                self._bytes = (scrape.number("stentor_bytes_sent_total"), None)
        self._pids = self._probe.pids()
        self._rss_before = self._probe.rss(scrape)

    def read_connected(self) -> None:
        """When everybody is connected and nothing has been published."""
        scrape = self._probe.scrape()
        self._rss_connected = self._probe.rss(scrape)
        self._cpu_before = self._probe.cpu_seconds(scrape)
        self._each_before = self._probe.cpu_of_each()
        self._rates.take()

    def read_second(self) -> dict[str, Any]:
        """The server's part of a timeline row, since the last one."""
        row = self._rates.take()
        if (rss := row["server_rss"]) is not None:
            self._rss_max = max(int(rss), self._rss_max or 0)
        return row

    def read_after(self) -> None:
        """When the last message has arrived, and before anyone leaves."""
        deadline, last = monotonic() + QUIET_PATIENCE, None
        while (scrape := self._probe.scrape()) is not None and is_account(scrape):
            counters = scrape.counters()
            quiet = counters == last and balanced(counters) and not counters["queued"]
            if quiet or monotonic() > deadline:
                self.after = counters
                self._bytes = (self._bytes[0], scrape.number("stentor_bytes_sent_total"))
                return
            last = counters
            gevent.sleep(_PAUSE)

    def facts(self, delivered: int) -> ServerFacts:
        """What is known of the server at the end; ``delivered`` is what its clients got."""
        last = self._probe.last
        cpu, used, each = self._probe.cpu_seconds(last), None, None
        if cpu is not None and self._cpu_before is not None:
            used = cpu - self._cpu_before
            deliveries = self.delta["sent"] if self.delta else delivered
            each = 1e6 * used / deliveries if deliveries else None
        before, after = self._bytes
        return {
            "build": self._build,
            "pids": self._pids,
            "processes": self._each(),
            "cpu_seconds": used,
            "cpu_us_per_delivery": each,
            "rss_before": self._rss_before,
            "rss_connected": self._rss_connected,
            "rss_max": self._rss_max,
            "rss_after": self._probe.rss(last),
            "bytes_sent": after - before if before is not None and after is not None else None,
        }

    def _each(self) -> list[ProcessRow]:
        now = self._probe.cpu_of_each()
        return [
            {"pid": pid, "cpu_seconds": now[pid] - before} for pid, before in self._each_before.items() if pid in now
        ]
