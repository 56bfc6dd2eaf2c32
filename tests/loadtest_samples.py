"""A hand-made result of a load test, plausible in every field, for the tests of what is made from results."""

from __future__ import annotations

import copy
import math
from typing import Any, cast

from loadtest.result import Latency, Result, ServerCounters, TimelineRow


def latency(p50: float = 900.0, *, count: int = 100_000) -> Latency:
    """A log-normal-looking distribution around `p50` microseconds."""
    histogram: list[list[float]] = []
    for k in range(60):
        low = p50 / 4 * 1.12**k
        share = math.exp(-((math.log(low / p50)) ** 2) / 0.35)
        if number := round(share * count / 9):
            histogram.append([round(low, 3), round(low * 1.12, 3), number])
    total = sum(int(row[2]) for row in histogram)

    def at(q: float) -> float:
        seen = 0.0
        for low, high, number in histogram:
            seen += number
            if seen >= q * total:
                return (low + high) / 2
        return histogram[-1][1]

    return {
        "unit": "us",
        "count": total,
        "min": histogram[0][0],
        "max": histogram[-1][1],
        "mean": p50 * 1.1,
        "p50": at(0.5),
        "p90": at(0.9),
        "p99": at(0.99),
        "p99_9": at(0.999),
        "p99_99": at(0.9999),
        "histogram": histogram,
    }


def row(t: int, *, subscribers: int = 200, rate: int = 50) -> TimelineRow:
    """One second of the timeline."""
    wave = 1 + 0.2 * math.sin(t)
    return {
        "t": t,
        "published": rate,
        "delivered": rate * subscribers,
        "p50_us": 900 * wave,
        "p99_us": 4_200 * wave * (3 if t == 4 else 1),
        "max_us": 9_000 * wave * (4 if t == 4 else 1),
        "connections": subscribers,
        "server_cpu": 41 * wave,
        "server_rss": 40_000_000 + 10_000 * t,
        "server_connections": subscribers + 1,
        "server_loop_lag_ms": 0.3 * wave,
        "nodes_cpu": {},
        "broker_cpu": None,
        "queue_bytes": 0 if t < 3 else int(4_000 * wave),
        "lagging_clients": 0 if t < 3 else 2,
        "dropped": 0,
        "generator_cpu": {"0": 32 * wave},
        "generator_lag_ms": {"0": 1.1 * wave},
        "late_ms": 0.2,
    }


def counters(offered: int = 0, published: int = 0, **changes: Any) -> ServerCounters:
    """The server's counters; everything offered was sent."""
    made: dict[str, Any] = {
        "offered": offered,
        "sent": offered,
        "dropped": {},
        "received": published,
        "published": published,
        "queued": 0,
        "connections": 201,
        "opened": 201,
        "closed": {},
    }
    return cast(ServerCounters, made | changes)


def result(subscribers: int = 200, rate: int = 50, seconds: int = 8, *, p50: float = 900.0) -> Result:
    """A run that passed."""
    publications = rate * seconds
    expected = (publications + 1) * (subscribers + 1)
    made: Any = {
        "schema": 1,
        "run": "beef",
        "started": "2026-11-22T22:00:00Z",
        "ended": "2026-11-22T22:00:14Z",
        "options": {"users": subscribers, "rate": float(rate), "size": 128, "time": f"{seconds}s"},
        "command": ["locust", "-f", "loadtest/locustfile.py", "--headless"],
        "environment": {
            "hostname": "here",
            "kernel": "Linux 6.1",
            "cpu_model": "A CPU",
            "cpus": 1,
            "cpus_total": 2,
            "memory_bytes": 8 << 30,
            "python": "3.11.2",
            "locust": "2.47.0",
            "gevent": "26.9.0",
            "websockets": "17.4",
            "file_limits": {"soft": 20_000, "hard": 20_000},
        },
        "plan": {
            "url": "ws://127.0.0.1:8000",
            "dialect": "raw",
            "users": subscribers,
            "rate": float(rate),
            "size": 128,
            "channels": 1,
            "per_client": 1,
            "publishers": 1,
            "stalled": 0,
            "slow": 0,
            "slow_bps": 1024,
            "flapping": 0.0,
            "duration": float(seconds),
            "warmup": 2.0,
            "shape": None,
            "processes": 1,
            "connections": subscribers,
            "publisher_connections": 1,
            "timed_every": 1,
        },
        "publications": {
            "planned": publications,
            "attempted": publications,
            "refused": {},
            "acknowledged": publications,
            "markers": 1,
            "late_max_ms": 0.4,
            "seconds": float(seconds),
        },
        "clients": _clients(subscribers),
        "publishers": _clients(1),
        "troublemakers": {
            "stalled_asked": 0,
            "stalled_observed": 0,
            "stalled_evicted": 0,
            "slow_asked": 0,
            "slow_observed": 0,
            "slow_evicted": 0,
            "flapping_asked": 0,
            "flapping_done": 0,
        },
        "ledger": {
            "expected": expected,
            "delivered": expected,
            "declared": 0,
            "lost": 0,
            "overdue": 0,
            "duplicated": 0,
            "reordered": 0,
            "unexpected": 0,
            "silent_clients": 0,
            "barrier_missing": 0,
            "damaged": [],
            "channels": [
                {
                    "channel": "load:0",
                    "publications": publications + 1,
                    "subscribers": subscribers + 1,
                    "expected": expected,
                    "delivered": expected,
                    "declared": 0,
                    "lost": 0,
                    "overdue": 0,
                    "duplicated": 0,
                    "reordered": 0,
                    "unexpected": 0,
                }
            ],
            "server": {
                "before": counters(),
                "after": counters(expected, publications + 1),
                "delta": counters(expected, publications + 1),
                "balanced": True,
                "mode": "equality",
                "agrees": True,
                "differences": [],
            },
        },
        "latency": latency(p50),
        "handshake": latency(700.0, count=200),
        "timeline": [row(t, subscribers=subscribers, rate=rate) for t in range(seconds)],
        "generator": [
            {
                "process": "0",
                "pid": 4711,
                "cpu_mean": 32.0,
                "cpu_max": 40.0,
                "cpu_sustained": 38.0,
                "lag_max_ms": 2.0,
                "lag_p99_ms": 1.2,
                "connections": subscribers + 1,
                "timed": 100_000,
            }
        ],
        "server": {
            "build": {"version": "0.1.0", "python": "3.11.2"},
            "pids": [4712],
            "processes": [],
            "cpu_seconds": 6.5e-6 * expected + 0.05 * seconds,
            "cpu_us_per_delivery": 6.5 + 0.05e6 * seconds / expected,
            "rss_before": 38_000_000,
            "rss_connected": 38_000_000 + 12_000 * (subscribers + 1),
            "rss_max": 39_000_000 + 12_000 * (subscribers + 1),
            "rss_after": 39_000_000,
            "bytes_sent": expected * 130,
        },
        "nodes": [],
        "broker": None,
        "verdict": {"verdict": "pass", "reasons": ["All deliveries, none lost."], "notes": []},
    }
    return copy.deepcopy(cast(Result, made))


def of_two_nodes(**changes: Any) -> Result:
    """The same run against two nodes over Redis, each with half of the clients; `changes` are of the second node."""
    made: Any = result()
    expected = made["ledger"]["expected"] // 2
    row: dict[str, Any] = {
        "connections": 101, "published": 200, "expected": expected, "delivered": expected, "declared": 0, "lost": 0,
        "overdue": 0, "duplicated": 0, "reordered": 0, "unexpected": 0, "server": made["ledger"]["server"],
    }  # fmt: skip
    facts = made["server"] | {"processes": [{"pid": 71, "cpu_seconds": 0.5}, {"pid": 72, "cpu_seconds": 2.0}]}
    made["nodes"] = [
        {**row, "name": "1", "url": "ws://127.0.0.1:8001", "facts": facts},
        {**row, "name": "2", "url": "ws://127.0.0.1:8002", "facts": facts, **changes},
    ]
    made["broker"] = {"pid": 73, "cpu_seconds": 0.25, "cpu_us_per_publication": 60.0, "rss_max": 9_000_000}
    for each in made["timeline"]:
        each |= {"nodes_cpu": {"1": 20.0, "2": 21.0}, "broker_cpu": 2.0}
    return cast(Result, copy.deepcopy(made))


def unmeasured() -> Result:
    """What an unreachable server leaves: every key there, hardly a figure in it."""
    made: Any = result()
    nothing: dict[str, Any] = dict.fromkeys(("min", "max", "mean", "p50", "p90", "p99", "p99_9", "p99_99"))
    for name in ("latency", "handshake"):
        made[name] = {"unit": "us", "count": 0, "histogram": [], **nothing}
    made["publications"] |= {
        "attempted": 0,
        "refused": {},
        "acknowledged": 0,
        "markers": 0,
        "late_max_ms": None,
        "seconds": None,
    }
    made["clients"] |= {"connected": 0, "failed": {"refused": 200}, "connects_per_second": None}
    made["ledger"] |= {"expected": 0, "delivered": 0, "channels": []}
    made["ledger"]["server"] = {
        "before": None,
        "after": None,
        "delta": None,
        "balanced": None,
        "mode": "none",
        "agrees": None,
        "differences": [],
    }
    made["server"] = dict.fromkeys(made["server"]) | {"pids": [], "processes": []}
    made["timeline"], made["generator"] = [], []
    made["plan"]["duration"] = None
    made["verdict"] = {"verdict": "unknown", "reasons": ["ws://127.0.0.1:9: refused."], "notes": []}
    return cast(Result, made)


def _clients(asked: int) -> dict[str, Any]:
    return {
        "asked": asked,
        "connected": asked,
        "failed": {},
        "connects_per_second": 1_500.0,
        "closes": {},
        "left": 0,
    }
