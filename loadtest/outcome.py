"""Makes the result of a run out of its books, what its publishers said, and what the server said.

Pure but for the clock and the description of the machine; it decides nothing: ``loadtest.judge`` does.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from loadtest.books import Books, latency_of
from loadtest.judge import account_of_server
from loadtest.options import Options, as_given, masked
from loadtest.payload import streams
from loadtest.result import SCHEMA, Clients, Plan, Publications, Result
from loadtest.watch import environment
from loadtest.witness import Witness

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """What the one who led a run knows of it."""

    options: Options
    parsed: Namespace
    started: datetime
    published_for: float | None  # seconds
    processes: int  # of the generator
    lost_processes: bool  # some of them did not close their books
    ceased: Collection[Message]  # what the stations said when they had published


def result_of(run: Run, books: Books, witness: Witness) -> Result:
    """The result, not yet judged."""
    delta = witness.delta
    ledger = books.ledger(totals_by_channel(run), sum(delta["dropped"].values()) if delta else None)
    clients, publishers = books.clients("subscribers"), books.clients("publishing")
    ledger["server"] = account_of_server(
        witness.before,
        witness.after,
        delta,
        ledger,
        received=sum(message["received"] for message in run.ceased),
        # Where a client says more than publications, what it says is not what it publishes.
        counter="published" if run.options.make_dialect().answers else "received",
        undisturbed=_undisturbed(run, books, clients, publishers),
        ours=clients["connected"] + publishers["connected"],
    )
    timeline = books.timeline()
    return {
        "schema": SCHEMA,
        "run": run.options.run,
        "started": run.started.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "options": as_given(run.parsed),
        "command": [masked(argument, run.options.token) for argument in sys.argv],
        "environment": environment(),
        "plan": plan_of(run.options, run.processes),
        "publications": publications_of(run, books),
        "clients": clients,
        "publishers": publishers,
        "troublemakers": books.troublemakers(),
        "ledger": ledger,
        "latency": latency_of(books.latency()),
        "handshake": latency_of(books.handshakes()),
        "timeline": timeline,
        "generator": books.generator(run.published_for),
        "server": witness.facts(timeline, ledger["delivered"]),
        "verdict": {"verdict": "unknown", "reasons": [], "notes": []},
    }


def _undisturbed(run: Run, books: Books, clients: Clients, publishers: Clients) -> bool:
    """Whether only healthy clients took part, from the first publication to the last, and all have told."""
    options = run.options
    trouble = options.stalled or options.slow or options.flapping
    went = clients["left"] or clients["closes"] or publishers["closes"]
    came = any(account["late_joiners"] for account in books.accounts.values())
    return not (trouble or went or came or run.lost_processes)


def plan_of(options: Options, processes: int) -> Plan:
    """What was asked for."""
    return {
        "url": masked(options.url, options.token),
        "dialect": options.dialect,
        "users": options.subscribers,
        "rate": options.rate,
        "size": options.size,
        "channels": options.channels,
        "per_client": options.per_client,
        "publishers": options.publishers,
        "stalled": options.stalled,
        "slow": options.slow,
        "slow_bps": options.slow_bps,
        "flapping": options.flapping,
        "duration": options.duration,
        "warmup": options.warmup,
        "shape": options.shape or None,
        "processes": processes,
        "connections": options.connections,
        "publisher_connections": options.streams,
        "timed_every": options.timed_every(processes),
    }


def publications_of(run: Run, books: Books) -> Publications:
    """What was planned and what became of it."""
    firsts = [message["first"] for message in run.ceased if message["first"] is not None]
    lasts = [message["last"] for message in run.ceased if message["last"] is not None]
    lates = [message["late_max"] for message in run.ceased if message["late_max"] is not None]
    attempted = sum(message["attempted"] for message in run.ceased)
    planned = run.options.publications
    if planned is None:
        # Until the publishers had heard of the end, more became due.
        planned = max(int(run.options.rate * (run.published_for or 0.0)), attempted)
    return {
        "planned": planned,
        "attempted": attempted,
        "refused": dict(sum((Counter(message["why_refused"]) for message in run.ceased), Counter())),
        "acknowledged": sum(account["acknowledged"] for account in books.accounts.values()),
        "markers": sum(message["markers"] for message in run.ceased),
        "late_max_ms": max(lates) / 1e6 if lates else None,
        "seconds": (max(lasts) - min(firsts)) / 1e9 if firsts and lasts else None,
    }


def totals_by_channel(run: Run) -> dict[int, int]:
    """Publications and markers by channel; those of a publisher that was cut off are not known and not counted."""
    options = run.options
    every = streams(options.run, options.publishers, options.channels, options.size)
    totals: dict[int, int] = {}
    for message in run.ceased:
        refused = dict(message["refused"])
        for number, total in message["totals"]:
            channel = every[number].channel
            taken = (total or 0) - sum(1 for sequence in refused.get(number, ()) if sequence < (total or 0))
            totals[channel] = totals.get(channel, 0) + taken
    return totals
