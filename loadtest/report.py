"""report.html of one run: what was promised, whether it was kept, and everything needed to doubt it.

Laws: made from `result.json` and `run.json` alone, so that `python -m loadtest.report DIRECTORY` makes it again; the
verdict is the result's, never this module's; what was not measured is shown as not measured.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import cast

from loadtest import axes, page, report_charts, report_nodes
from loadtest import report_tables as tables
from loadtest.page import Markup
from loadtest.report_tables import Surroundings
from loadtest.result import RESULT_FILE, Result, ResultError, read

RUN_FILE = "run.json"
REPORT_FILE = "report.html"


def write(directory: Path) -> Path:
    """Make report.html in `directory` from the result in it.

    Raises:
        ResultError: there is no result of this schema there.
    """
    result = read(directory / RESULT_FILE)
    path = directory / REPORT_FILE
    path.write_text(render(result, surroundings(directory)), encoding="utf-8")
    return path


def surroundings(directory: Path) -> Surroundings | None:
    """`run.json` of a run, or of the web page that it was started from; None where Locust was started by hand."""
    for place in (directory, directory.parent):
        try:
            known = json.loads((place / RUN_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(known, dict) and Surroundings.__annotations__.keys() <= known.keys():
            return cast(Surroundings, known)
    return None


def render(result: Result, around: Surroundings | None = None) -> str:
    """The whole page."""
    verdict, reasons = result["verdict"]["verdict"], result["verdict"]["reasons"]
    return page.page(
        f"Stentor load test, {result['started']}",
        (
            page.verdict(verdict, verdict.upper(), headline(result), reasons[1:]),
            page.tiles(tiles(result)),
            page.listed(result["verdict"]["notes"]),
            *(_measured(result) if result["timeline"] else ()),
            page.section("The nodes", report_nodes.nodes(result)),
            page.section("The ledger", tables.ledger(result), tables.account(result)),
            page.section(
                "Connections and closes", tables.clients(result), tables.closes(result), tables.troublemakers(result)
            ),
            page.section("Environment", tables.environment(result, around)),
            page.section("Exact command", *tables.commands(result, around)),
            _footer(result),
        ),
    )


def _measured(result: Result) -> tuple[Markup, ...]:
    """The sections with pictures, which a run that never published has no use for."""
    charts = report_charts
    return (
        page.section(
            "Latency",
            page.figures(charts.latency_over_time(result), charts.latency_by_percentile(result["latency"])),
            tables.shading(result),
            tables.latencies(result),
        ),
        page.section("Throughput", page.figures(charts.delivered(result), charts.published(result))),
        page.section(
            "Load on both sides", page.figures(charts.cpu(result), charts.lags(result)), tables.generator(result)
        ),
        page.section(
            "The server",
            page.figures(
                charts.queue(result), charts.laggards(result), charts.memory(result), charts.connections(result)
            ),
            tables.server(result),
        ),
    )


def headline(result: Result) -> str:
    """The verdict in one sentence: the worst reason, or what was proved."""
    reasons, ledger, plan = result["verdict"]["reasons"], result["ledger"], result["plan"]
    if result["verdict"]["verdict"] == "fail":
        return reasons[0]
    if result["verdict"]["verdict"] == "unknown":
        return f"This run proves nothing: {reasons[0]}"
    load = f"{plan['users']:,} subscribers at {axes.plain(plan['rate'])} publications/s of {axes.size(plan['size'])}"
    kept = f"all {ledger['expected']:,} deliveries arrived, once and in order"
    if ledger["declared"]:
        kept = (
            f"of {ledger['expected']:,} deliveries owed, {ledger['delivered']:,} arrived, once and in order, and the "
            f"server declared the other {ledger['declared']:,} dropped"
        )
    tail = f"; p99 {tables.microseconds(result['latency']['p99'])}" if result["latency"]["count"] else ""
    return f"{load}: {kept}{tail}."


def tiles(result: Result) -> dict[str, str]:
    """The figures that matter most, ready to show."""
    latency, ledger = result["latency"], result["ledger"]
    server, seconds = result["server"], result["publications"]["seconds"]
    return {
        "deliveries/s": axes.count(ledger["delivered"] / seconds) if seconds else axes.NOTHING,
        "p50": tables.microseconds(latency["p50"]),
        "p99": tables.microseconds(latency["p99"]),
        "p99.9": tables.microseconds(latency["p99_9"]),
        "worst": tables.microseconds(latency["max"]),
        "lost": f"{ledger['lost']:,}",
        "server CPU per delivery": tables.microseconds(server["cpu_us_per_delivery"]),
        "memory per connection": tables.known(rss_per_connection(result), axes.size),
    }


def rss_per_connection(result: Result) -> float | None:
    """Bytes that the server's memory grew by for each connection opened, before anything was published."""
    server, trouble = result["server"], result["troublemakers"]
    opened = result["clients"]["connected"] + result["publishers"]["connected"]
    opened += trouble["stalled_observed"] + trouble["slow_observed"]
    if server["rss_before"] is None or server["rss_connected"] is None or not opened:
        return None
    return (server["rss_connected"] - server["rss_before"]) / opened


def _footer(result: Result) -> Markup:
    return Markup(
        f"<footer>Run {page.text(result['run'])}, schema {page.text(result['schema'])}. Beside this page: result.json "
        "(every figure of it), latency.hgrm, and Locust's own report and tables. How to read all of this: "
        "loadtest/README.md.</footer>"
    )


def main(arguments: list[str]) -> int:
    """Make the reports of the directories named, again."""
    if not arguments:
        print("usage: python -m loadtest.report DIRECTORY...", file=sys.stderr)
        return 2
    for name in arguments:
        try:
            print(write(Path(name)))
        except (ResultError, OSError) as error:
            print(f"loadtest.report: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
