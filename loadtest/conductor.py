"""Leads a run: connect everyone, publish, wait for the last message, close the books, judge, write the result.

One conductor per run, in Locust's master or in the only process. It commands the stations and hears from them through
callables, so that it need not know whether they are in this process or on other machines.

Laws: whatever happens, ``lead`` ends with a result that was judged and written, within bounded time: every wait has
a deadline, and a stop is heeded in each. Before it publishes, it has tried the server itself, so that a wrong URL is
one line and not a thousand failures.
"""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import Any

import gevent
from gevent.event import Event

from loadtest.books import Books, Second
from loadtest.cluster import Cluster
from loadtest.histogram import hgrm_lines
from loadtest.judge import Limits, judge
from loadtest.options import Options
from loadtest.outcome import Run, result_of
from loadtest.preflight import Stopped, preflight
from loadtest.probe import Probe
from loadtest.result import HGRM_FILE, Result, append_progress, write
from loadtest.watch import boot_id
from loadtest.witness import Witness

LEAD = 0.5  # seconds between the word to publish and the first publication
CONNECT_PATIENCE = 20.0  # seconds without a new connection
ANSWER_PATIENCE = 10.0  # seconds beyond what a station was given
_NAP = 0.05

logger = logging.getLogger("loadtest")

Message = dict[str, Any]


class Conductor:
    """Leads one run."""

    def __init__(
        self,
        options: Options,
        parsed: Namespace,
        post: Callable[[str, Message, str | None], None],
        stations: Callable[[], list[str]],
        directory: Path | None,
    ) -> None:
        self.options = options
        self.result: Result | None = None
        self.finished = Event()
        self.spawned = False  # all users of the (first) load have been started
        self.books = Books(options)
        self.dropped = 0  # by the server, since everybody was connected, as far as it tells
        self._parsed = parsed
        self._post = post  # kind, message, one station or None for all
        self._stations = stations
        self._directory = directory
        self._phase = "connecting"
        self._stop: str | None = None
        self._gone = False
        self._status: dict[str, Message] = {}
        self._ceased: dict[str, Message] = {}
        self._crew: list[str] = []  # the stations that publish
        nodes = [Witness(Probe(node.metrics or None, node.pid or None)) for node in options.nodes]
        self._cluster = Cluster(nodes, Probe(None, options.broker_pid) if options.broker_pid else None)
        self._began: int | None = None
        self._began_at = monotonic()
        self._started = datetime.now(UTC)
        self._published_for: float | None = None
        self._first_load = options.connections
        self._pulse: gevent.Greenlet | None = None

    # -- what is heard --------------------------------------------------------------------------------------------

    def hear(self, kind: str, station: str, message: Message) -> None:
        """A station said something."""
        if kind == "status":
            self._status[station] = message
        elif kind == "report":
            self.books.report(station, message)
        elif kind == "ceased":
            self._ceased[station] = message
        elif kind == "account":
            self.books.account(station, message)
        else:
            raise AssertionError(f"stations do not say {kind!r}")

    def stop(self, why: str = "") -> None:
        """End the run, in order: because of ``why``, or because somebody wishes it. Idempotent."""
        self._stop = self._stop or why

    @property
    def phase(self) -> str:
        """What it does now: connecting, publishing, barrier, done."""
        return self._phase

    @property
    def statuses(self) -> list[Message]:
        """How things stand, as each station said last."""
        return list(self._status.values())

    @property
    def publishing(self) -> bool:
        """Whether publications are on their way."""
        return self._phase == "publishing"

    def elapsed(self) -> float:
        """Seconds since the first publication was due; 0 before."""
        return max((monotonic_ns() - self._began) / 1e9, 0.0) if self._began is not None else 0.0

    def so_far(self) -> list[tuple[str, object, str]]:
        """What is known while the run lasts: name, value, note."""
        seconds = self.books.seconds.values()
        return [
            ("phase", self._phase, ""),
            ("connected", self._total("subscribers", "connected"), f"of {self.options.connections:,}"),
            ("published", sum(second.published for second in seconds), ""),
            ("delivered", sum(second.delivered for second in seconds), "every one checked; the books close at the end"),
        ]

    def expect_first(self, subscribers: int) -> None:
        """A load shape begins with so many subscribers."""
        self._first_load = subscribers * self.options.connections_per_client

    # -- the run --------------------------------------------------------------------------------------------------

    def prepare(self) -> bool:
        """Try the server and read its account, before the first client connects; False if that was the end."""
        try:
            preflight(self.options)
        except Stopped as stopped:
            self._stop = str(stopped)
            return False
        self._cluster.read_before()
        return True

    def lead(self) -> Result:
        """Lead the run from the first connection to the result."""
        why: str | None = None
        self._pulse = gevent.spawn(self._keep_pulse)
        try:
            self._heed_stop()
            self._connect()
            self._publish()
        except Stopped as stopped:
            why = str(stopped)
        except Exception as error:  # a mistake of ours must not cost the books
            logger.exception("the run failed")
            why = f"The load test failed: {type(error).__name__}: {error}."
        return self._finish(why)

    def _connect(self) -> None:
        self._wait_connected(lambda: self._total("subscribers", "asked") >= self._first_load and self.spawned)
        if not self._total("subscribers", "connected"):
            raise Stopped(f"No subscriber could connect{self._failures('subscribers')}.")
        stations = sorted(self._status, key=lambda name: self._status[name]["process"])
        # One clock for all stamps: publishers stay on one machine.
        clock = self._status[stations[0]]["boot_id"]
        able = [name for name in stations if self._status[name]["boot_id"] == clock]
        for index, station in enumerate(able):
            mine = [p for p in range(self.options.publishers) if p % len(able) == index]
            trouble = index == len(able) - 1
            if mine:
                self._crew.append(station)
            self._post("crew", {"publishers": mine, "trouble": trouble}, station)
        self._wait_connected(lambda: self._total("publishing", "asked") >= self.options.streams)
        if not self._total("publishing", "connected"):
            raise Stopped(f"No publisher could connect{self._failures('publishing')}.")

    def _wait_connected(self, asked: Callable[[], bool]) -> None:
        progress, since = -1, monotonic()
        while not (asked() and not any(status["pending"] for status in self._status.values())):
            self._heed_stop()
            now = self._total("subscribers", "connected") + self._total("publishing", "connected")
            if now != progress:
                progress, since = now, monotonic()
            if monotonic() - since > CONNECT_PATIENCE:
                raise Stopped(f"Nobody has connected for {CONNECT_PATIENCE:g} s{self._failures('subscribers')}.")
            gevent.sleep(_NAP)

    def _publish(self) -> None:
        self._cluster.read_connected()
        self._began = monotonic_ns() + int(LEAD * 1e9)
        self._post(
            "go",
            {
                "began": self._began,
                "lead": LEAD,
                "leader": boot_id(),
                "clock": self._status[self._crew[0]]["boot_id"],
                "every": self.options.timed_every(len(self._status)),
            },
            None,
        )
        self._phase = "publishing"
        try:
            while not self._all_published():
                self._heed_stop()
                self._look_for_the_server()
                gevent.sleep(_NAP)
        finally:
            self._published_for = max((monotonic_ns() - self._began) / 1e9, 0.0)

    def _all_published(self) -> bool:
        assert self._began is not None
        duration = self.options.duration
        if duration is None or monotonic_ns() < self._began + int(duration * 1e9):
            return False
        return all(self._status[station]["done"] for station in self._crew)

    def _look_for_the_server(self) -> None:
        if any(status["open"] for status in self._status.values()):
            return
        assert self._began is not None
        after = (monotonic_ns() - self._began) / 1e9
        try:
            preflight(self.options)
        except Stopped:
            self._gone = True
            raise Stopped(f"The server went away {after:.1f} s after the first publication.") from None
        raise Stopped(f"The server had closed every connection {after:.1f} s after the first publication.")

    def _heed_stop(self) -> None:
        if self._stop is not None:
            raise Stopped(self._stop)
        missing = set(self._status) - set(self._stations())
        if missing:
            names = ", ".join(sorted(self._status[station]["process"] for station in missing))
            raise Stopped(f"A generator process ended before the run did: {names}.")

    def _finish(self, why: str | None) -> Result:
        self._phase = "barrier"
        if self._status:
            self._close_books()
        self._cluster.read_after()
        silent = sorted(
            status["process"] for station, status in self._status.items() if station not in self.books.accounts
        )
        run = Run(
            self.options,
            self._parsed,
            self._started,
            self._published_for,
            processes=max(len(self._status), 1),
            lost_processes=bool(silent),
            ceased=self._ceased.values(),
        )
        result = result_of(run, self.books, self._cluster)
        limits = Limits(self.options.cpu_limit, self.options.lag_limit)
        result["verdict"] = judge(result, limits, self._stopped(why, silent), self._gone)
        if self._pulse is not None:
            self._pulse.kill()
        self._phase = "done"
        self._write(result)
        self.result = result
        self.finished.set()
        return result

    def _stopped(self, why: str | None, silent: list[str]) -> str | None:
        """Why the run did not do what was planned; None if it did.

        A run without a duration is planned to last until somebody stops it: that is its end, not an interruption.
        """
        if why == "" and self._began is None:
            why = "The run was stopped before its first publication."
        elif why == "" and self.options.duration is not None:
            why = "The run was stopped before its end."
        if not why and silent:
            why = f"A generator process did not close its books: {', '.join(silent)}."
        return why or None

    def _close_books(self) -> None:
        within = self.options.barrier
        here = [station for station in self._stations() if station in self._status]
        self._post("cease", {"within": within}, None)
        self._await(lambda: all(station in self._ceased for station in here), within)
        totals = [pair for message in self._ceased.values() for pair in message["totals"]]
        refused = [pair for message in self._ceased.values() for pair in message["refused"]]
        self._post("settle", {"totals": totals, "refused": refused, "within": within}, None)
        self._await(lambda: all(station in self.books.accounts for station in here), within)

    def _await(self, condition: Callable[[], bool], within: float) -> None:
        deadline = monotonic() + within + ANSWER_PATIENCE
        while not condition() and monotonic() < deadline:
            gevent.sleep(_NAP)

    # -- meanwhile ------------------------------------------------------------------------------------------------

    def _keep_pulse(self) -> None:
        """Once a second: the server's figures for the second that is over, and a line of progress."""
        while True:
            if self._began is None:
                gevent.sleep(1.0)
            else:
                since = (monotonic_ns() - self._began) / 1e9
                gevent.sleep(1.0 - since % 1.0 if since >= 0 else -since + 1.0)
                t = round((monotonic_ns() - self._began) / 1e9) - 1
                if t >= 0:
                    self._note_server(t)
            self._tell_progress()

    def _note_server(self, t: int) -> None:
        figures = self._cluster.read_second()
        self.books.seconds.setdefault(t, Second()).server = figures
        self.dropped += figures["dropped"] or 0

    def _tell_progress(self) -> None:
        if self._directory is None:
            return
        append_progress(
            {
                "phase": self._phase,  # type: ignore[typeddict-item]
                "elapsed": monotonic() - self._began_at,
                "connected": self._total("subscribers", "connected"),
                "asked": self.options.connections,
                "row": self.books.newest() if self._phase == "publishing" else None,
            },
            self._directory,
        )

    def _write(self, result: Result) -> None:
        self._tell_progress()
        if self._directory is None:
            return
        with (self._directory / HGRM_FILE).open("w", encoding="ascii") as file:
            file.writelines(hgrm_lines(self.books.latency(), 1000.0))
        write(result, self._directory)

    def _total(self, kind: str, what: str) -> int:
        return sum(status[kind][what] for status in self._status.values())

    def _failures(self, kind: str) -> str:
        reasons: dict[str, int] = {}
        for status in self._status.values():
            for reason, count in status[kind]["failed"].items():
                reasons[reason] = reasons.get(reason, 0) + count
        return "".join(f", {reason}: {count:,}" for reason, count in sorted(reasons.items()))
