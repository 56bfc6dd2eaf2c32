"""What the operator's page is told: one view of all processes, put together from what each says of itself (`vitals`).

Laws: pure; a process that does not answer is in the view, without figures. Rates, queues and clients are added up;
what may not be added (how late a loop is, how much of a core is used) is that of the worst.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import Any, Final

from server.admin.vitals import MOST_CHANNELS, MOST_LEFT, MOST_SLOW, Look, quantile
from server.core.counters import SECONDS

_ADDED: Final = ("max_connections", "subscriptions", "lagging", "queue_bytes", "max_queue_bytes")
_ADDED_BROKER: Final = ("reconnects", "gaps", "lost")


@dataclass(frozen=True, slots=True)
class Process:
    """One process: its place among the workers, how it is, and what it says of itself (None: it does not answer).

    `connections` is what was last heard of those.
    """

    index: int
    pid: int
    state: str
    connections: int
    look: Look | None = None


def together(processes: Sequence[Process], **more: Any) -> Look:
    """Make the view; `more` is put beside it."""
    looks = [process.look for process in processes if process.look is not None]
    latency = [sum(bucket) for bucket in zip(*(look["latency"] for look in looks), strict=True)]
    return {
        "connections": _added(look["connections"] for look in looks),
        **{name: sum(look[name] for look in looks) for name in _ADDED},
        # Who listens to one channel may be anywhere: the workers' channels overlap.
        "channels": max((look["channels"] for look in looks), default=0),
        "rates": _added(look["rates"] for look in looks if look["rates"] is not None),
        "cpu": _worst(look["cpu"] for look in looks),
        "memory": sum(look["memory"] or 0 for look in looks),
        "loop_lag": _worst(look["loop_lag"] for look in looks),
        "latency": quantile(SECONDS, latency, 0.99),
        "brownout": max((look["brownout"] for look in looks), default=0),
        "broker": _broker([look["broker"] for look in looks]),
        "busiest": _busiest([look["busiest"] for look in looks]),
        "slow": nlargest(MOST_SLOW, _listed(processes, "slow"), key=lambda client: client["queue_bytes"]),
        "left": nlargest(MOST_LEFT, _listed(processes, "left"), key=lambda entry: entry["at"]),
        "workers": [_worker(process) for process in processes],
        **more,
    }  # fmt: skip


def _added(counts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for each in counts:
        for name, count in each.items():
            total[name] = total.get(name, 0) + count
    return total


def _worst(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _broker(said: list[Look]) -> Look | None:
    if not said:
        return None
    return {
        "is_remote": any(broker["is_remote"] for broker in said),
        "is_up": all(broker["is_up"] for broker in said),
        **{name: sum(broker[name] for broker in said) for name in _ADDED_BROKER},
    }


def _busiest(lists: list[list[Look]]) -> list[Look]:
    """Join the channels: every process with listeners hears every publication, and delivers it to its own."""
    found: dict[str, Look] = {}
    for channels in lists:
        for each in channels:
            channel = found.setdefault(
                each["channel"], {"channel": each["channel"], "listeners": 0, "published": 0.0, "delivered": 0.0}
            )
            channel["listeners"] += each["listeners"]
            channel["published"] = max(channel["published"], each["published"])
            channel["delivered"] += each["published"] * each["listeners"]
    return nlargest(MOST_CHANNELS, found.values(), key=lambda channel: (channel["delivered"], channel["published"]))


def _listed(processes: Sequence[Process], name: str) -> list[Look]:
    return [
        {"worker": process.index, **entry}
        for process in processes
        if process.look is not None
        for entry in process.look[name]
    ]


def _worker(process: Process) -> Look:
    look = process.look
    row: Look = {
        "index": process.index,
        "pid": process.pid,
        "state": process.state,
        "connections": process.connections,
        "answers": look is not None,
    }
    if look is not None:
        rates = look["rates"] or {}
        row |= {
            "published": rates.get("published"),
            "sent": rates.get("sent"),
            "connections": sum(look["connections"].values()),
            "dropped": rates.get("dropped"),
            **{name: look[name] for name in ("lagging", "queue_bytes", "brownout", "cpu", "memory", "loop_lag")},
        }
    return row
