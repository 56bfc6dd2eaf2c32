"""`make loadtest`: start a server, load it, judge it, stop it, and leave a report.

    python -m loadtest.run [--subscribers 2000 --rate 50 --publish-time 30s ...]     every option: --help

Exit code 0: the run passed. 1: a promise was broken. 2: the run proves nothing, and one line says why.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from loadtest import axes, broker, console, line, report
from loadtest.broker import OWN
from loadtest.measure import NoResult, checked, measure, start
from loadtest.options import OPTIONS, BadOption, masked
from loadtest.processes import CannotStart, Child, Interrupted, Interrupts
from loadtest.report_tables import pinned
from loadtest.result import EXIT_CODES, RESULT_FILE, ResultError, read

#: What `make loadtest` does when nothing is asked for: enough to be worth a look, and held by any machine.
DEFAULTS = {"subscribers": 1000, "rate": 20.0, "publish_time": "15s", "warmup": 2.0}
_TURN = 0.1
_PAGE_WITHIN = 30.0
_GRACE = 45.0


def headless(parsed: argparse.Namespace, out: Console, interrupts: Interrupts) -> int:
    """One run with its progress and its table on the terminal; returns the exit code."""
    broker.check(parsed.nodes, parsed.broker, parsed.url)
    directory = fresh(Path(parsed.results))
    command = line.typed("make loadtest", parsed, (*OPTIONS, *line.RUN_OPTIONS))
    out.print(Text(plan(parsed)), soft_wrap=True)
    if parsed.metrics_port:
        out.print(Text(_figures(parsed)), soft_wrap=True)
    # The bar needs the length of the run, which the options carry as text.
    with console.shown(out, checked(parsed).duration) as show:
        result, around = measure(parsed, directory, command, interrupts, show)
    if not result["publications"]["attempted"]:
        # It never began: a table of nothing would only hide the one line that matters.
        raise NoResult(result["verdict"]["reasons"][0])
    console.summary(out, result)
    out.print(Text(f"  {pinned(around)}\n  {directory / report.REPORT_FILE}"), soft_wrap=True)
    return EXIT_CODES[result["verdict"]["verdict"]]


def with_page(parsed: argparse.Namespace, out: Console, interrupts: Interrupts) -> int:
    """Serve Locust's web page against the server until somebody stops it; returns the exit code."""
    _demand_free(parsed.web_port)
    directory = fresh(Path(parsed.results))
    address = f"http://127.0.0.1:{parsed.web_port}/"
    with ExitStack() as started:
        command = line.typed("make loadtest-ui", parsed, (*OPTIONS, *line.RUN_OPTIONS))
        running = start(parsed, directory, command, interrupts, started, web_port=parsed.web_port)
        locust, served = running.locust, running.served
        try:
            _wait_for_page(address, locust, interrupts)
            target = " and ".join(node.url for node in running.nodes) or parsed.url
            out.print(Text(f"Locust: {address}\nagainst {target}; Ctrl-C stops both."), soft_wrap=True)
            if parsed.metrics_port:
                out.print(Text(_figures(parsed)), soft_wrap=True)
            while locust.ended is None and all(child.ended is None for child in served.values()):
                _report_finished(directory, out)
                interrupts.heed()
                time.sleep(_TURN)
        except Interrupted:
            # A run that is going on closes its books first.
            locust.interrupt()
            locust.wait(_GRACE)
            _report_finished(directory, out)
            return 0
        everyone = {"Locust": locust, **served}
        name, child = next((name, child) for name, child in everyone.items() if child.ended is not None)
        raise NoResult(f"{name} ended, {child.last_words()}")


def _report_finished(directory: Path, out: Console) -> None:
    """Make the reports of those runs, each in a directory of its own, that have ended since the last look."""
    for result in directory.glob(f"*/{RESULT_FILE}"):
        if not (result.parent / report.REPORT_FILE).exists():
            path = report.write(result.parent)
            made = read(result)
            verdict = made["verdict"]["verdict"].upper()
            out.print(Text(f"{verdict}  {report.headline(made)}\n  {path}"), soft_wrap=True)


def _demand_free(port: int) -> None:
    try:
        with socket.create_server(("127.0.0.1", port)):
            pass
    except OSError as error:
        raise CannotStart(f"port {port}: {os.strerror(error.errno or 0)}; WEB_PORT= chooses another") from None


def _wait_for_page(address: str, locust: Child, interrupts: Interrupts) -> None:
    deadline = time.monotonic() + _PAGE_WITHIN
    # No proxy of the environment may come between us and our own machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline and locust.ended is None:
        interrupts.heed()
        try:
            with opener.open(address, timeout=2):
                return
        except OSError:
            time.sleep(_TURN)
    raise CannotStart(f"Locust's page did not come up, {locust.last_words()}")


def fresh(results: Path, prefix: str = "") -> Path:
    """A directory of its own for a run, named by the time in UTC; it is not made yet."""
    name = prefix + datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    path, number = results / name, 2
    while path.exists():
        path, number = results / f"{name}-{number}", number + 1
    return path


def plan(parsed: argparse.Namespace) -> str:
    """What is going to happen, in one sentence."""
    trouble = [f"{getattr(parsed, kind):,} {kind}" for kind in ("stalled", "slow") if getattr(parsed, kind)]
    trouble += [f"{parsed.flapping:g} reconnects/s"] if parsed.flapping else []
    return (
        f"Stentor load test: {axes.many(parsed.subscribers, 'subscriber')}, {parsed.rate:g} publications/s of "
        f"{parsed.size:,} bytes on {axes.many(parsed.channels, 'channel')} for {parsed.publish_time}"
        + (f" in the {parsed.dialect} dialect" if parsed.dialect != "raw" else "")
        + (f", beside {', '.join(trouble)}" if trouble else "")
        + (f", over {axes.many(parsed.nodes, 'node')} joined by {_told(parsed.broker)}" if parsed.broker else "")
        + (f", against {parsed.url}" if parsed.url else "")
    )


def _told(broker: str) -> str:
    return "a Redis of their own" if broker == OWN else masked(broker, "")


def _figures(parsed: argparse.Namespace) -> str:
    return f"Prometheus may read the run's figures at http://{parsed.metrics_host}:{parsed.metrics_port}/metrics."


def main(arguments: Sequence[str], out: Console | None = None) -> int:
    """Run a load test; returns the exit code."""
    out = out or Console(highlight=False)
    try:
        with Interrupts() as interrupts:
            parsed = line.parse(
                "python -m loadtest.run",
                __doc__,
                arguments,
                (*OPTIONS, *line.RUN_OPTIONS),
                defaults=DEFAULTS,
                flags={"ui": "open Locust's web page instead of running headless"},
            )
            return with_page(parsed, out, interrupts) if parsed.ui else headless(parsed, out, interrupts)
    except Interrupted:
        print("loadtest: stopped", file=sys.stderr)
    except (BadOption, CannotStart, NoResult, ResultError, OSError) as error:
        print(f"loadtest: {error}", file=sys.stderr)
    return EXIT_CODES["unknown"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
