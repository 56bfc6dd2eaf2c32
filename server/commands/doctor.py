"""`stentor doctor`: what this machine can hold, and which limit binds first, before the clients find out."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from server.commands.line import Line, Parser, configuration
from server.config.judgement import DEFAULT
from server.config.sources import COMMAND_LINE, Loaded
from server.doctor import capacity, certificate, checks, machine
from server.doctor.finding import Finding, Verdict
from server.doctor.report import Report

if TYPE_CHECKING:
    from server.config import Settings

ABOUT = """\
Looks at the limits of this machine and at the configuration, and says how many
clients fit, which limit binds first, and what to do about it. Changes nothing.

Limits differ between a shell and a service: with --pid it looks at those of a
process that runs, with the configuration given here.

Ends with 1 if max_connections was set and does not fit, with 2 if the
configuration cannot be used, else with 0."""
DOES_NOT_FIT = 1


def parser() -> Parser:
    """Take the options that `serve` takes, and how to tell."""
    parser = Parser("doctor", ABOUT)
    report = parser.add_argument_group("report")
    parser.add_switch(report, "--json", "Print the report as JSON.")
    parser.add_value(report, "--pid", "PID", "Process whose limits are looked at. (default: this one)")
    parser.add_configuration()
    return parser


def run(line: Line) -> int:
    """Print the report; return the exit code."""
    pid = _pid(line)
    report = examine(configuration(line), pid=pid)
    print(report.as_json() if line.own.json else report.text())
    return 0 if report.fits else DOES_NOT_FIT


def examine(loaded: Loaded, *, root: Path = Path("/"), pid: int | None = None) -> Report:
    """Look at everything; `root` is where the kernel's files are."""
    settings, seen = loaded.settings, machine.read(root, pid)
    is_default = loaded.origin["max_connections"] == DEFAULT
    wanted = capacity.wanted(seen, settings, is_default=is_default)
    bounds = capacity.bounds(seen, settings)
    clients = min([wanted, *(bound.clients for bound in bounds)])
    findings = [
        *checks.of_machine(seen, settings),
        checks.round_of_all(clients, settings.workers),
        *_certificate(settings),
        *checks.of_settings(settings),
        *_brokers(settings),
    ]
    return Report(findings, bounds, wanted, settings.workers, loaded.origin["max_connections"], is_default)


def _pid(line: Line) -> int | None:
    text = getattr(line.own, "pid", None)
    if text is None:
        return None
    if not text.isdecimal() or not Path(f"/proc/{text}").is_dir():
        line.mistakes.append(f"pid = {text} ({COMMAND_LINE}): must be the number of a process that runs")
        return None
    return int(text)


def _certificate(settings: Settings) -> list[Finding]:
    return [certificate.certificate(settings.tls_cert, certificate.today())] if settings.tls_cert else []


def _brokers(settings: Settings) -> list[Finding]:
    if isinstance(settings.broker, str):
        return []
    try:
        # Only here: the libraries for Redis are an extra.
        from server.doctor.broker import brokers
    except ImportError:
        return [Finding("broker", "", Verdict.BAD, "Redis needs an extra: pip install 'stentor[redis]'.")]
    # Workers, the one that stands by, their supervisor, and while workers are replaced one more.
    processes = settings.workers + (3 if settings.workers > 1 else 0)
    text = settings.broker.get_secret_value()

    async def look() -> list[Finding]:
        return [finding async for finding in brokers(text, processes)]

    import uvloop

    # The server's own event loop: another one may tell less of why there is no TLS.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(look())
