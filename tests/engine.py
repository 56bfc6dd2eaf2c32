"""The load test's engine without Locust: one station and its conductor in this process, against any server."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import gevent

from loadtest.conductor import Conductor
from loadtest.options import OPTIONS, Options
from loadtest.result import Result
from loadtest.station import Station

#: A test machine is slow, shared and not asked how fast it is.
PATIENT: dict[str, Any] = {"cpu_limit": 1000.0, "lag_limit": 60_000.0, "barrier": 5.0}


def parsed(**values: Any) -> Namespace:
    """Options as Locust would parse them."""
    defaults = {option.key: option.default for option in OPTIONS}
    assert set(values) <= set(defaults) | {"run_id"}, values
    return Namespace(**{**defaults, "run_id": "ab12", **values})


def run(url: str, directory: Path | None = None, **values: Any) -> Result:
    """Lead one run to its end."""
    given = parsed(url=url, **{**PATIENT, **values})
    options = Options.of(given)
    station: Station | None = None

    def post(kind: str, message: dict[str, Any], to: str | None) -> None:
        assert station is not None
        getattr(station, kind)(message)

    conductor = Conductor(options, given, post, lambda: ["local"], directory)
    if conductor.prepare():
        station = Station(options, 0, 1, lambda kind, message: conductor.hear(kind, "local", message), "1")
        station.join(options.subscribers)
        conductor.spawned = True
    reporter = gevent.spawn(_report, station, conductor) if station else None
    try:
        return conductor.lead()
    finally:
        if reporter is not None:
            reporter.kill()
        if station is not None:
            station.close()


def _report(station: Station, conductor: Conductor) -> None:
    while True:
        gevent.sleep(1.0)
        conductor.hear("report", "local", station.report())
