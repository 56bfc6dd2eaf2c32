"""What to look at when something is wrong: who is slow now, and why the last clients left.

A `client` is named so that the server API's `disconnect` knows whom is meant, whatever the dialect.
"""

from __future__ import annotations

from heapq import nlargest
from itertools import chain, islice
from operator import attrgetter
from typing import Any, Final, cast

from server.edge.connection import Connection
from server.edge.listener import Listener
from server.edge.recorder import Departure, Recorder

MOST_SLOW: Final = 100
# How many departures are told at a time: ten thousand at once would keep the loop from everyone else.
PIECE: Final = 250


def slow(listener: Listener, now: float, most: int = MOST_SLOW) -> list[dict[str, Any]]:
    """List the slowest clients now, the longest queue first; then those who do not take what was never queued."""
    laggards, paused = listener.backlog.laggards, listener.wheel.paused
    # Thousands may lag, and this may be asked every second: no code of ours runs for each of them.
    slowest = [cast(Connection, outbox.owner) for outbox in nlargest(most, laggards, key=attrgetter("bytes"))]
    others = (connection for connection in paused if connection.outbox not in laggards)
    return [_slow_client(listener, each, now) for each in islice(chain(slowest, others), most)]


def _slow_client(listener: Listener, connection: Connection, now: float) -> dict[str, Any]:
    outbox, session = connection.outbox, connection.session
    oldest = outbox.oldest if outbox else None
    stalled = listener.wheel.stalled_for(connection, now)
    if not connection.is_open:
        why = "closing, and does not take the rest"
    elif stalled >= 1.0:
        why = f"has read nothing for {stalled:.1f} s"
    else:
        why = "reads more slowly than its channel speaks"
    return {
        "address": connection.address,
        "client": listener.client_id(connection),
        "dialect": session.dialect if session else "",
        "channel": session.channel if session else "",
        "queue_messages": outbox.messages if outbox else 0,
        "queue_bytes": outbox.bytes if outbox else 0,
        "queue_age_seconds": round(now - oldest, 3) if oldest is not None else 0.0,
        "unsent_bytes": connection.unsent_bytes,
        "stalled_seconds": round(stalled, 3),
        "rtt_seconds": round(connection.rtt, 6),
        "connected_seconds": round(now - (connection.opened_at or connection.accepted_at), 3),
        "would_act": bool(outbox and outbox.observed),
        "why": why,
    }


def departures(recorder: Recorder, mark: int | None, most: int) -> tuple[int, list[dict[str, Any]]]:
    """Describe the last closes, newest first, at most PIECE of them; return the mark of the next piece, and this one.

    None is the mark of the first piece; an empty piece is the last.
    """
    if mark is None:
        mark = recorder.total
    entries = recorder.before(mark, min(most, PIECE))
    return mark - len(entries), [departure(entry) for entry in entries]


def departure(entry: Departure) -> dict[str, Any]:
    """Describe one close, in the words of the flight recorder."""
    return {
        "at": entry.at,
        "address": entry.address,
        "client": entry.client,
        "dialect": entry.dialect,
        "channel": entry.channel,
        "code": entry.code,
        "reason": entry.reason,
        "queue_messages": entry.queue_messages,
        "queue_bytes": entry.queue_bytes,
        "queue_age_seconds": round(entry.queue_age, 3),
        "connected_seconds": round(entry.connected, 3),
        "rtt_seconds": round(entry.rtt, 6),
        "loop_lag_seconds": round(entry.loop_lag, 6),
    }
