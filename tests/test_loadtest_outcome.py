from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from loadtest.books import Books
from loadtest.cluster import Cluster
from loadtest.options import Options
from loadtest.outcome import Run, result_of, totals_by_channel
from loadtest.result import Result
from tests import loadtest_samples
from tests.engine import parsed
from tests.test_loadtest_books import account
from tests.test_loadtest_witness import quiet, witness

STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def ceased(**changes: Any) -> dict[str, Any]:
    return {
        "totals": [[0, 11]], "attempted": 10, "received": [[0, 11]], "markers": 1, "refused": [], "why_refused": {},
        "late_max": 2_000_000, "first": 10**9, "last": 3 * 10**9, **changes,
    }  # fmt: skip


def run(*said: dict[str, Any], published_for: float | None = 2.0, **values: Any) -> Run:
    given = parsed(url="ws://h:1/ws/{channel}?token=secret", **values)
    return Run(Options.of(given), given, STARTED, published_for, 2, False, said)


def cluster() -> Cluster:
    one, _ = witness(quiet(0), quiet(10))
    made = Cluster([one])
    made.read_before()
    made.read_after()
    return made


def result(of: Run) -> Result:
    books = Books(of.options)
    books.account("a", account("1"))
    one = cluster()
    return result_of(of, books, one)


def test_every_key_of_the_schema_is_there() -> None:
    def keys(value: Any) -> Any:
        return {key: keys(each) for key, each in value.items()} if isinstance(value, dict) else None

    made: Any = result(run(ceased()))
    sample: Any = loadtest_samples.result()
    assert set(made) == set(Result.__annotations__)
    for part in ("plan", "publications", "clients", "publishers", "troublemakers", "latency", "server", "environment"):
        assert keys(made[part]).keys() == keys(sample[part]).keys(), part


def test_publications_are_summed_over_those_who_published() -> None:
    made = result(run(ceased(), ceased(totals=[[1, 5]], attempted=4, first=10**9 // 2, late_max=None), publishers=2))
    assert made["publications"] == {
        "planned": 100, "attempted": 14, "refused": {}, "acknowledged": 5, "markers": 2, "late_max_ms": 2.0,
        "seconds": 2.5,
    }  # fmt: skip
    assert made["started"] == "2026-01-02T03:04:05+00:00"


def test_without_a_duration_what_was_planned_is_what_the_time_allowed() -> None:
    assert result(run(ceased(), publish_time="0", published_for=1.5))["publications"]["planned"] == 15
    assert result(run(publish_time="0", published_for=None))["publications"]["planned"] == 0
    late = result(run(ceased(), publish_time="0", published_for=0.9))["publications"]
    assert late["planned"] == late["attempted"] == 10, "what became due until the publishers had heard of the end"


def test_what_was_refused_was_not_published() -> None:
    said = ceased(refused=[[0, [3, 4]]], why_refused={"error 108": 2}, attempted=8)
    other = ceased(totals=[[1, None]], why_refused={"error 108": 1})
    made = run(said, other, publishers=2)
    assert totals_by_channel(made) == {0: 9}
    assert result(made)["publications"]["refused"] == {"error 108": 3}


def test_credentials_are_not_written_down() -> None:
    made = result(run(ceased(), token="hush"))
    assert made["plan"]["url"] == "ws://h:1/ws/{channel}?token=***"
    assert made["options"]["url"] == "ws://h:1/ws/{channel}?token=***"
    assert made["options"]["token"] == "***"
    assert "hush" not in str(made)


def test_totals_are_by_channel_and_unknown_ones_are_left_out() -> None:
    of = run(ceased(totals=[[0, 11], [1, None]]), ceased(totals=[[2, 7]]), publishers=3, channels=2)
    assert totals_by_channel(of) == {0: 18, 1: 0}


@pytest.mark.parametrize(
    ("values", "mode"), [({}, "inequality"), ({"stalled": 1}, "inequality")], ids=["closed clients", "troublemakers"]
)
def test_equality_is_for_the_undisturbed(values: dict[str, Any], mode: str) -> None:
    assert result(run(ceased(), **values))["ledger"]["server"]["mode"] == mode


def test_a_process_that_did_not_tell_forbids_equality() -> None:
    of = run(ceased())
    books = Books(of.options)
    tried = {"asked": 2, "connected": 2, "failed": {}, "closes": {}, "left": 0}
    books.account("a", account("1", subscribers=tried, publishing=tried))
    one = cluster()
    assert result_of(of, books, one)["ledger"]["server"]["mode"] == "equality"
    lost = Run(of.options, of.parsed, STARTED, 2.0, 2, True, of.ceased)
    assert result_of(lost, books, one)["ledger"]["server"]["mode"] == "inequality"
