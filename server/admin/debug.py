"""What to look at when something is wrong: who is slow now, and why the last clients left."""

from __future__ import annotations

from typing import Any, Final

from server.edge.connection import Connection
from server.edge.listener import Listener
from server.edge.recorder import Departure

MOST_SLOW: Final = 100


def slow(listener: Listener, now: float) -> list[dict[str, Any]]:
    """List the slowest clients now, the longest queue first, at most MOST_SLOW."""
    paused = sorted(
        listener.wheel.paused,
        key=lambda connection: connection.outbox.bytes if connection.outbox else 0,
        reverse=True,
    )
    return [
        _slow_client(connection, listener.wheel.stalled_for(connection, now), now) for connection in paused[:MOST_SLOW]
    ]


def _slow_client(connection: Connection, stalled: float, now: float) -> dict[str, Any]:
    outbox, session = connection.outbox, connection.session
    oldest = outbox.oldest if outbox else None
    if not connection.is_open:
        why = "closing, and does not take the rest"
    elif stalled >= 1.0:
        why = f"has read nothing for {stalled:.1f} s"
    else:
        why = "reads more slowly than its channel speaks"
    return {
        "address": connection.address,
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


def departure(entry: Departure) -> dict[str, Any]:
    """Describe one close, in the words of the flight recorder."""
    return {
        "at": entry.at,
        "address": entry.address,
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
