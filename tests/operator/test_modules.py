"""The operator's page's modules that are pure, one by one, in the browser that runs them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.page.reading import NO_FIGURE, Run

pytestmark = pytest.mark.asyncio(loop_scope="session")

QUIET: dict[str, Any] = {
    "status": "ready",
    "restarts": 0,
    "brownout": 0,
    "connections": {"raw": 100, "echo": 0, "centrifuge": 900},
    "max_connections": 10_000,
    "lagging": 0,
    "queue_bytes": 0,
    "max_queue_bytes": 1_000_000,
    "rates": {"published": 12.0, "sent": 12_000.0, "dropped": 0, "opened": 1, "rejected": 0, "slow_disconnects": 0},
    "cpu": 0.34,
    "loop_lag": 0.001,
    "broker": {"is_remote": False, "is_up": True, "gaps": 0, "reconnects": 0, "lost": 0},
    "busiest": [{"channel": "news", "listeners": 10, "published": 9.0, "delivered": 90.0}],
    "slow": [],
    "workers": [{"index": 0, "state": "ready", "answers": True}],
}
BEFORE: dict[str, Any] = {"usual": 10.0, "gaps": 0, "restarts": 0}
REDIS = {"is_remote": True, "is_up": True, "gaps": 0, "reconnects": 0, "lost": 0}
LAGGARD = {"address": "192.0.2.9", "queue_bytes": 812_000, "queue_age_seconds": 12.04}


async def judged(run: Run, who: str, given: dict[str, Any], before: dict[str, Any] | None = None) -> dict[str, str]:
    view = {**QUIET, **given, "rates": {**QUIET["rates"], **given.get("rates", {})}}
    found = await run("verdict.js", "return m.verdicts(...arg)", [view, {**BEFORE, **(before or {})}])
    (verdict,) = (verdict for verdict in found if verdict["who"] == who)
    others = [verdict for verdict in found if verdict["who"] != who]
    # One cause, one that is blamed for it.
    assert [verdict["level"] for verdict in others] == ["good"] * 3, others
    return dict(verdict)


async def test_when_all_is_well_it_says_so(run: Run) -> None:
    found = await run("verdict.js", "const all = m.verdicts(...arg); return [all, m.gravest(all)]", [QUIET, BEFORE])
    assert [(verdict["who"], verdict["level"], verdict["advice"]) for verdict in found[0]] == [
        (who, "good", "") for who in ("Server", "Clients", "Broker", "Load")
    ]
    assert [verdict["words"] for verdict in found[0]] == [
        "In time: the loop is 1.0 ms late (p99), at 34 % of a core.",
        "All 1,000 keep up.",
        "It is this process itself: nothing is lost on the way.",
        "12/s published make 12k/s delivered; 1,000 connections.",
    ]
    assert found[1] == "good"


@pytest.mark.parametrize(
    ("given", "before", "level", "words"),
    [
        ({"status": "not listening"}, {}, "act", "It does not listen: nobody can connect."),
        ({"status": "draining"}, {}, "watch", "It is draining: newcomers go elsewhere."),
        ({"brownout": 2}, {}, "act", "Brown-out, step 2 of 4: publications are gathered for longer."),
        ({"loop_lag": 0.31, "cpu": 0.98}, {}, "act", "The event loop is 310 ms late, at 98 % of a core."),
        ({"loop_lag": 0.06, "cpu": 0.98}, {}, "watch", "The event loop is 60.0 ms late, at 98 % of a core."),
        ({"cpu": 0.95}, {}, "watch", "A process uses 95 % of its core, and is still in time."),
        ({"restarts": 3}, {"restarts": 2}, "watch", "1 worker was replaced in the last minute."),
        ({"restarts": 3}, {"restarts": 3}, "good", "In time: the loop is 1.0 ms late (p99), at 34 % of a core."),
        ({"loop_lag": None, "cpu": None}, {}, "good", "It answers."),
        (
            {"workers": [{"index": 1, "state": "silent", "answers": False}]}, {}, "act", "Worker 1 does not answer.",
        ),
        (
            {"workers": [{"index": 0, "state": "ready", "answers": False}]}, {}, "act", "Worker 0 does not answer.",
        ),
        (
            {"workers": [{"index": 0, "state": "starting", "answers": False}]}, {}, "good",
            "In time: the loop is 1.0 ms late (p99), at 34 % of a core.",
        ),
    ],
)  # fmt: skip
async def test_the_server(run: Run, given: dict[str, Any], before: dict[str, Any], level: str, words: str) -> None:
    verdict = await judged(run, "Server", given, before)
    assert (verdict["level"], verdict["words"]) == (level, words)
    assert (level == "good") == (verdict["advice"] == "")


async def test_a_late_loop_that_is_not_busy_has_another_cause(run: Run) -> None:
    busy = await judged(run, "Server", {"loop_lag": 0.5, "cpu": 1.0})
    idle = await judged(run, "Server", {"loop_lag": 0.5, "cpu": 0.02})
    assert "add workers" in busy["advice"]
    assert "what else runs on this machine" in idle["advice"]


@pytest.mark.parametrize(
    ("given", "level", "words"),
    [
        ({"lagging": 1, "slow": [LAGGARD]}, "watch", "1 client lags; the worst, 192.0.2.9, by 812 kB, 12.0 s old."),
        ({"lagging": 3, "slow": [LAGGARD]}, "watch", "3 clients lag; the worst, 192.0.2.9, by 812 kB, 12.0 s old."),
        (
            {"lagging": 1, "slow": [LAGGARD], "rates": {"dropped": 7.0}}, "act",
            "7/s deliveries are dropped; 1 client lags; the worst, 192.0.2.9, by 812 kB, 12.0 s old.",
        ),
        ({"rates": {"slow_disconnects": 1.0}}, "act", "0/s deliveries are dropped; 0 clients lag."),
        ({"lagging": 4, "queue_bytes": 600_000}, "act", "600 kB wait for 4 laggards: 60 % of the room."),
        ({"connections": {"raw": 1}}, "good", "The only one keeps up."),
        ({"connections": {}}, "good", "Nobody is connected."),
    ],
)  # fmt: skip
async def test_the_clients(run: Run, given: dict[str, Any], level: str, words: str) -> None:
    verdict = await judged(run, "Clients", given)
    assert (verdict["level"], verdict["words"]) == (level, words)


@pytest.mark.parametrize(
    ("broker", "gaps", "level", "words"),
    [
        (REDIS, 0, "good", "In contact, and without a gap."),
        ({**REDIS, "gaps": 4}, 4, "good", "In contact; 4 gaps since the start."),
        ({**REDIS, "gaps": 4}, 3, "watch", "In contact again; 1 gap in the last minute."),
        ({**REDIS, "is_up": False, "gaps": 4}, 3, "act", "It is away, or refuses what is written."),
        (None, 0, "watch", "No process tells of it."),
    ],
)
async def test_the_broker(run: Run, broker: dict[str, Any] | None, gaps: int, level: str, words: str) -> None:
    verdict = await judged(run, "Broker", {"broker": broker}, {"gaps": gaps})
    assert (verdict["level"], verdict["words"]) == (level, words)


@pytest.mark.parametrize(
    ("given", "usual", "level", "words"),
    [
        ({"max_connections": 1050}, 10, "act", "1,000 of 1,050 connections are taken."),
        ({"rates": {"opened": 80}}, 10, "watch", "A storm of newcomers: 80/s."),
        ({"rates": {"opened": 40}}, 10, "good", "12/s published make 12k/s delivered; 1,000 connections."),
        ({"rates": {"rejected": 2.5}}, 10, "watch", "2.5/s are turned away at the door."),
        ({"rates": {"published": 40}}, 10, "watch", "40/s are published, where 10/s are usual, most on news."),
        ({"rates": {"published": 40}}, None, "good", "40/s published make 12k/s delivered; 1,000 connections."),
        ({"rates": {"published": 9}}, 1, "good", "9/s published make 12k/s delivered; 1,000 connections."),
    ],
)
async def test_the_load(run: Run, given: dict[str, Any], usual: float | None, level: str, words: str) -> None:
    verdict = await judged(run, "Load", given, {"usual": usual})
    assert (verdict["level"], verdict["words"]) == (level, words)


async def test_before_the_second_look_nothing_is_alarming(run: Run) -> None:
    found = await run(
        "verdict.js", "return m.gravest(m.verdicts(...arg))", [{**QUIET, "rates": {}, "cpu": None}, BEFORE]
    )
    assert found == "good"


async def test_the_gravest_of_several(run: Run) -> None:
    levels = [["good", "watch", "act"], ["good", "watch"], ["good"], []]
    found = await run("verdict.js", "return arg.map((all) => m.gravest(all.map((level) => ({ level }))))", levels)
    assert found == ["act", "watch", "good", "good"]


async def test_figures_are_short(run: Run) -> None:
    sizes = {None: NO_FIGURE, 0: "0 B", 999: "999 B", 1500: "1.5 kB", 2_420_000: "2.42 MB", 5e9: "5 GB", 3e12: "3 TB"}
    assert await run("figures.js", "return arg.map(m.bytes)", list(sizes)) == list(sizes.values())
    times = {
        None: NO_FIGURE,
        0: "0.0 ms",
        0.0004: "0.4 ms",
        1.25: "1.3 s",
        59: "59.0 s",
        60: "1 min",
        5400: "1.5 h",
        1e6: "12 d",
    }
    assert await run("figures.js", "return arg.map(m.duration)", list(times)) == list(times.values())
    assert await run("figures.js", "return [m.percent(0.345), m.percent(null)]") == ["35 %", NO_FIGURE]
    assert await run("figures.js", "return [m.count(0.00001), m.count(null), m.perSecond(2115)]") == [
        "0",
        NO_FIGURE,
        "2,115/s",
    ]
    assert await run("figures.js", "return [1, 2].map((n) => m.noun(n, 'gap', 'gaps'))") == ["1 gap", "2 gaps"]


async def test_a_series_is_bounded_in_time_and_broken_where_nothing_was_read(run: Run) -> None:
    found = await run(
        "series.js",
        """
        const series = new m.Series();
        for (let second = 0; second <= 1000; second++) series.add(second * 1000, second % 7);
        series.add(1_001_000, null); series.add(1_010_000, 3); series.add(1_010_000, 4); series.add(1_005_000, 5);
        return { length: series.points.length, first: series.points[0].time, value: series.value,
            gaps: series.points.filter((point) => point.afterGap).map((point) => point.time) };
        """,
    )
    assert found == {"length": 292, "first": 710_000, "value": 3, "gaps": [1_010_000]}


async def test_what_is_usual_is_the_middle_of_what_was_read(run: Run) -> None:
    found = await run(
        "series.js",
        """
        const series = new m.Series();
        const before = series.usual(1e9, 3);
        [5, 1, 1000, 2, 3].forEach((value, second) => series.add(second * 1000, value));
        return [before, series.usual(1e9, 3), series.usual(1e9, 6), series.usual(2000, 2), series.value];
        """,
    )
    assert found == [None, 3, None, 5, 3]
