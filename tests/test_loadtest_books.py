from __future__ import annotations

import json
from typing import Any

import pytest

from loadtest.books import Books, latency_of
from loadtest.histogram import Histogram
from loadtest.ledger import Sums
from loadtest.options import Options
from tests.engine import parsed


def histogram(*milliseconds: float) -> Histogram:
    made = Histogram()
    for value in milliseconds:
        made.record(int(value * 1e6))
    return made


def row(t: int, delivered: int = 2, **changes: Any) -> dict[str, Any]:
    return {
        "t": t,
        "delivered": delivered,
        "published": 1,
        "late": 1_000_000,
        "latency": histogram(1, 3).dump(),
        "cpu": 10.0 * (t + 1),
        "lag": 2.0,
        "connections": 5,
        **changes,
    }


def report(process: str, *rows: dict[str, Any]) -> dict[str, Any]:
    return {"process": process, "rows": list(rows), "handshakes": histogram(1).dump(), "missing": 0}


def account(process: str, **changes: Any) -> dict[str, Any]:
    tried = {"asked": 3, "connected": 2, "failed": {"refused": 1}, "closes": {"1013": 1}, "left": 0}
    return {
        "process": process,
        "pid": 7,
        "open": 2,
        "subscribers": tried,
        "publishing": {**tried, "failed": {}, "closes": {}},
        "sums": [[0, 0, Sums(subscribers=2, expected=10, delivered=10).dump()]],
        "opened": [[0, 2]],
        "damaged": [],
        "late_joiners": 0,
        "acknowledged": 5,
        "connects_per_second": 100.0,
        "timing": True,
        "timed": 4,
        "report": report(process),
        "lags": histogram(1, 2, 50).dump(),
        "trouble": None,
        **changes,
    }


@pytest.fixture
def books() -> Books:
    return Books(Options.of(parsed(url="ws://h:1", stalled=2, slow=1)))


def test_seconds_of_several_processes_are_merged_exactly(books: Books) -> None:
    # As they arrive from other machines: through a message.
    books.report("a", json.loads(json.dumps(report("1", row(0), row(1)))))
    books.report("b", report("2", row(1, latency=histogram(7).dump(), delivered=9, late=4_000_000)))
    first, second = books.timeline()
    assert (first["delivered"], second["delivered"], second["published"]) == (2, 11, 2)
    assert (second["connections"], second["generator_cpu"]) == (10, {"1": 20.0, "2": 20.0})
    assert second["late_ms"] == 4.0
    assert second["max_us"] == 7000.0
    assert second["p50_us"] == pytest.approx(3000, rel=0.01)
    assert books.latency().count == 5


def test_the_newest_second_is_the_one_that_everybody_has_told(books: Books) -> None:
    assert books.newest() is None
    books.report("a", report("1", row(0), row(1)))
    books.report("b", report("2", row(0)))
    newest = books.newest()
    assert newest is not None
    assert (newest["t"], newest["delivered"]) == (0, 4)


def test_of_seconds_long_gone_only_the_figures_are_kept(books: Books) -> None:
    books.report("b", report("2", row(0)))
    books.report("a", report("1", *(row(t) for t in range(100))))
    before = books.timeline()
    assert all(second.latency is not None for second in books.seconds.values()), "b may still tell of them"
    books.report("b", report("2", *(row(t) for t in range(1, 100))))
    assert sum(second.latency is not None for second in books.seconds.values()) <= 12
    after = books.timeline()
    assert [each["p99_us"] for each in after] == [each["p99_us"] for each in before]
    assert after[3]["delivered"] == 4
    assert books.latency().count == 400


def test_seconds_in_which_nothing_happened_are_rows_but_not_at_the_end(books: Books) -> None:
    books.report("a", report("1", row(0), row(3), row(4, delivered=0, published=0)))
    assert [each["t"] for each in books.timeline()] == [0, 1, 2, 3]


def test_the_warm_up_is_left_out_of_the_latencies_alone() -> None:
    books = Books(Options.of(parsed(url="ws://h:1", warmup=1.0)))
    books.report("a", report("1", row(0, latency=histogram(900).dump()), row(1)))
    assert (books.latency().count, books.latency().maximum) == (2, 3_000_000)
    assert len(books.timeline()) == 2


def test_clients_and_handshakes_are_summed(books: Books) -> None:
    books.account("a", account("1"))
    books.account("b", account("2"))
    assert books.clients("subscribers") == {
        "asked": 6, "connected": 4, "failed": {"refused": 2}, "connects_per_second": 200.0,
        "closes": {"1013": 2}, "left": 0,
    }  # fmt: skip
    assert books.handshakes().count == 2


def test_the_ledger_is_summed_by_channel(books: Books) -> None:
    books.account("a", account("1"))
    bad = Sums(subscribers=1, expected=10, delivered=6, missing=3, declared=1, duplicated=2, unfinished=1, silent=1)
    books.account(
        "b", account("2", sums=[[0, 0, Sums(expected=1, delivered=1).dump()], [1, 0, bad.dump()]], damaged=["x"])
    )
    ledger = books.ledger({0: 5, 1: 10}, books.sums([0]))
    assert (ledger["expected"], ledger["delivered"], ledger["declared"], ledger["lost"]) == (21, 17, 1, 3)
    assert (ledger["duplicated"], ledger["silent_clients"], ledger["barrier_missing"]) == (2, 1, 1)
    assert ledger["damaged"] == ["x"]
    assert [each["lost"] for each in ledger["channels"]] == [3, 0], "the damaged ones first"
    assert ledger["channels"][0]["publications"] == 10


def test_what_the_server_says_it_dropped_is_not_lost(books: Books) -> None:
    gaps, tail = Sums(expected=10, delivered=6, missing=4), Sums(expected=10, delivered=8, absent=2)
    books.account("a", account("1", sums=[[0, 0, gaps.dump()], [1, 0, tail.dump()]]))
    for dropped, declared, lost in ((0, 0, 6), (5, 5, 1), (6, 6, 0), (100, 6, 0)):
        ledger = books.ledger({}, books.sums([dropped]))
        assert (ledger["declared"], ledger["lost"]) == (declared, lost)
        assert ledger["expected"] == ledger["delivered"] + ledger["declared"] + ledger["lost"] + ledger["overdue"]


def test_what_is_on_its_way_is_overdue_and_not_lost(books: Books) -> None:
    books.account("a", account("1", sums=[[0, 0, Sums(expected=10, delivered=6, overdue=4, unfinished=1).dump()]]))
    ledger = books.ledger({}, books.sums([0]))
    assert (ledger["lost"], ledger["overdue"]) == (0, 4)


def test_what_one_node_dropped_does_not_explain_what_is_missing_at_another(books: Books) -> None:
    here, there = Sums(expected=10, delivered=10), Sums(expected=10, delivered=7, missing=3)
    books.account("a", account("1", sums=[[0, 0, here.dump()], [0, 1, there.dump()]], opened=[[0, 2], [1, 3]]))
    assert (books.opened(0), books.opened(1)) == (2, 3)
    for dropped, declared, lost in (([3, 0], 0, 3), ([0, 3], 3, 0), ([0, 2], 2, 1)):
        sums = books.sums(dropped)
        ledger = books.ledger({}, sums)
        assert (ledger["expected"], ledger["declared"], ledger["lost"]) == (20, declared, lost)
        assert (sums[0, 0].lost, sums[0, 1].lost) == (0, lost)
        assert (ledger["channels"][0]["expected"], len(ledger["channels"])) == (20, 1)


def test_the_generators_load_is_that_of_whole_seconds_of_publishing(books: Books) -> None:
    books.report("a", report("1", *(row(t, cpu=cpu) for t, cpu in enumerate((10.0, 95.0, 95.0, 20.0, 99.0)))))
    books.account("a", account("1"))
    (process,) = books.generator(4.3)
    assert (process["cpu_max"], process["cpu_mean"]) == (95.0, 55.0)
    assert process["cpu_sustained"] == 70.0, "over three seconds"
    assert (process["lag_max_ms"], process["timed"], process["connections"]) == (50.0, 4, 2)


def test_troublemakers_are_asked_for_in_the_plan_and_seen_by_those_who_have_them(books: Books) -> None:
    seen = dict.fromkeys(("stalled_observed", "stalled_evicted", "slow_observed", "slow_evicted"), 1)
    books.account("a", account("1", trouble={**seen, "flapping_asked": 9, "flapping_done": 8}))
    books.account("b", account("2"))
    trouble = books.troublemakers()
    assert (trouble["stalled_asked"], trouble["stalled_observed"], trouble["flapping_done"]) == (2, 1, 8)


def test_nothing_told_is_nothing_known(books: Books) -> None:
    assert books.timeline() == []
    assert books.clients("subscribers")["connects_per_second"] is None
    assert latency_of(books.latency())["p99"] is None
    assert latency_of(books.latency())["histogram"] == []


def test_latencies_are_in_microseconds() -> None:
    figures = latency_of(histogram(1, 1, 1, 100))
    assert (figures["unit"], figures["count"], figures["min"], figures["max"]) == ("us", 4, 1000.0, 100_000.0)
    assert figures["p50"] == pytest.approx(1000, rel=0.01)
    (lower, upper, count), *_ = figures["histogram"]
    assert lower <= 1000 < upper
    assert count == 3
