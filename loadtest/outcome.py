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
from loadtest.cluster import Cluster, together
from loadtest.judge import account_of_server, account_of_whole
from loadtest.ledger import Sums
from loadtest.options import Options, as_given, masked
from loadtest.payload import streams
from loadtest.result import SCHEMA, Clients, NodeRow, Plan, Publications, Result, ServerCounters
from loadtest.watch import environment

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


def result_of(run: Run, books: Books, cluster: Cluster) -> Result:
    """The result, not yet judged."""
    sums = books.sums([_dropped(node.delta) for node in cluster.nodes])
    ledger = books.ledger(totals_by_channel(run), sums)
    clients, publishers = books.clients("subscribers"), books.clients("publishing")
    undisturbed = _undisturbed(run, books, clients, publishers)
    nodes = [_node(run, books, cluster, sums, number, undisturbed) for number in range(len(cluster.nodes))]
    ledger["server"] = account_of_whole([node["server"] for node in nodes])
    delta = ledger["server"]["delta"]
    publications = publications_of(run, books)
    return {
        "schema": SCHEMA,
        "run": run.options.run,
        "started": run.started.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "options": as_given(run.parsed),
        "command": [masked(argument, run.options.token) for argument in sys.argv],
        "environment": environment(),
        "plan": plan_of(run.options, run.processes),
        "publications": publications,
        "clients": clients,
        "publishers": publishers,
        "troublemakers": books.troublemakers(),
        "ledger": ledger,
        "latency": latency_of(books.latency()),
        "handshake": latency_of(books.handshakes()),
        "timeline": books.timeline(),
        "generator": books.generator(run.published_for),
        "server": together([node["facts"] for node in nodes], delta["sent"] if delta else ledger["delivered"]),
        "nodes": nodes,
        "broker": cluster.broker(publications["attempted"]),
        "verdict": {"verdict": "unknown", "reasons": [], "notes": []},
    }


def _dropped(delta: ServerCounters | None) -> int:
    return sum(delta["dropped"].values()) if delta else 0


def _node(
    run: Run, books: Books, cluster: Cluster, sums: dict[tuple[int, int], Sums], number: int, undisturbed: bool
) -> NodeRow:
    """A node's part of the books, and its own account held against it."""
    witness, whole = cluster.nodes[number], Sums()
    for (_, node), each in sums.items():
        if node == number:
            whole.add(each)
    published = sum(count for message in run.ceased for node, count in message["received"] if node == number)
    opened = books.opened(number)
    return {
        "name": str(number + 1),
        "url": masked(run.options.nodes[number].url, run.options.token),
        "connections": opened,
        "published": published,
        "expected": whole.expected,
        "delivered": whole.delivered,
        "declared": whole.declared,
        "lost": whole.lost,
        "overdue": whole.overdue,
        "duplicated": whole.duplicated,
        "reordered": whole.reordered,
        "unexpected": whole.unexpected,
        "server": account_of_server(
            witness.before,
            witness.after,
            witness.delta,
            whole,
            received=published,
            # Where a client says more than publications, what it says is not what it publishes.
            counter="published" if run.options.make_dialect().answers else "received",
            undisturbed=undisturbed,
            ours=opened,
        ),
        "facts": witness.facts(whole.delivered),
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
