"""What a Locust process has at the moment: a run to lead, a part to play in one, or, being alone, both.

Locust calls back with no more than its environment, so this is where its listeners find the run they are about.
"""

from __future__ import annotations

from typing import Any

from loadtest import figures
from loadtest.conductor import Conductor
from loadtest.station import Station

#: What stations tell, and what they are told, as Locust's messages are called.
WORDS = ("status", "ceased", "account")
ORDERS = ("crew", "go", "cease", "settle")


def message_name(kind: str) -> str:
    """A kind of message between conductor and stations, among Locust's own."""
    return f"stentor-{kind}"


class Desk:
    """The one of this process."""

    conductor: Conductor | None = None
    station: Station | None = None


desk = Desk()


def close_station(environment: Any) -> None:
    station, desk.station = desk.station, None
    if station is not None:
        show(environment, station)  # what has come in since the last second; a worker's last report follows
        station.close()


def show(environment: Any, station: Station) -> None:
    """Put what happened since the last call into Locust's own figures."""
    stats, size = environment.stats, station.options.size
    seconds, station.fresh = station.fresh, []
    for second in seconds:
        figures.show(stats, figures.DELIVER, second.delivered, size, second.latency)
        figures.show(stats, figures.PUBLISH, second.published, size, None)
    figures.show(stats, figures.CONNECT, *station.take_handshakes())
    for reason, count in station.take_failures().items():
        for _ in range(count):
            stats.log_error(figures.METHOD, figures.CONNECT, reason)
