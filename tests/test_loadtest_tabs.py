from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flask import Flask, jsonify

from loadtest.conductor import Conductor
from loadtest.options import Options
from loadtest.tabs import add_tabs, latency_rows, ledger_rows
from tests import loadtest_samples
from tests.engine import parsed
from tests.test_loadtest_books import report, row


def conductor() -> Conductor:
    given = parsed(url="ws://127.0.0.1:1")
    return Conductor(Options.of(given), given, lambda *_: None, list, None)


class Page:
    """As much of Locust's page as the tabs touch."""

    def __init__(self) -> None:
        self.app = Flask("page")
        self.template_args: dict[str, Any] = {}
        self.app.add_url_rule("/stats/requests", view_func=lambda: jsonify(stats=[1]), endpoint="stats")
        self.app.add_url_rule("/tasks", view_func=lambda: jsonify(tasks=1), endpoint="tasks")


def test_the_tabs_and_their_tables_fit_together() -> None:
    page, current = Page(), conductor()
    add_tabs(page, lambda: current)
    tabs = [tab["key"] for tab in page.template_args["extended_tabs"]]
    tables = {table["key"]: table["structure"] for table in page.template_args["extended_tables"]}
    client = page.app.test_client()
    answer = client.get("/stats/requests").json
    assert answer["stats"] == [1]
    assert [each["key"] for each in answer["extended_stats"]] == tabs == list(tables)
    for each in answer["extended_stats"]:
        assert each["data"]
        for line in each["data"]:
            assert set(line) == {column["key"] for column in tables[each["key"]]}
    assert client.get("/tasks").json == {"tasks": 1}


def test_before_the_first_run_the_tables_are_empty() -> None:
    assert ledger_rows(None) == latency_rows(None) == []


def test_while_a_run_lasts_they_say_what_is_known() -> None:
    current = conductor()
    current.hear("report", "local", report("1", row(0), row(1)))
    said = {line["entry"]: line["value"] for line in ledger_rows(current)}
    assert (said["phase"], said["published"], said["delivered"]) == ("connecting", "2", "4")
    figures = {line["figure"]: line for line in latency_rows(current)}
    assert figures["timed"]["delivery"] == 4
    assert float(figures["max"]["delivery"]) == 3.0
    assert abs(float(figures["p50"]["handshake"]) - 1) < 0.01


def test_afterwards_they_show_the_verdict_and_the_ledger() -> None:
    current = conductor()
    made: Any = loadtest_samples.result()
    made["ledger"] |= {"lost": 1234, "overdue": 0}
    made["clients"]["closes"] = {"1013": 2}
    made["verdict"] = {"verdict": "fail", "reasons": ["One.", "Two."], "notes": ["Three."]}
    current.result = made
    lines = ledger_rows(current)
    said = {line["entry"]: (line["value"], line["note"]) for line in lines}
    assert said["verdict"] == ("fail", "One. Two.")
    assert said["lost"][0] == "1,234"
    assert said["closed with 1013"][0] == "2"
    assert said["note"][1] == "Three."
    json.dumps(lines)


def test_a_run_that_is_refused_leaves_its_reason_on_the_page(tmp_path: Path) -> None:
    current = conductor()
    assert not current.prepare()
    current.lead()
    (verdict, *_) = ledger_rows(current)
    assert verdict["value"] == "unknown"
    assert "cannot be reached" in verdict["note"]
