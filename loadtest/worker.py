"""A Locust worker: it plays a part in the run that the master leads."""

from __future__ import annotations

import logging
import os
import signal
from typing import Any

import gevent

from loadtest.desk import ORDERS, close_station, desk, message_name, show
from loadtest.options import Options
from loadtest.protocol import ProtocolFault
from loadtest.station import Station

INTERRUPT_GRACE = 60.0

logger = logging.getLogger("loadtest")


def wire(environment: Any, runner: Any) -> None:
    """Connect Locust's events and the conductor's messages with the station of this process."""
    environment.process_exit_code = 0  # the verdict is the master's
    environment.events.test_start.add_listener(lambda **_: _take_part(environment, runner))
    environment.events.test_stop.add_listener(lambda **_: close_station(environment))
    environment.events.report_to_master.add_listener(_report_to_master)
    for kind in ORDERS:
        runner.register_message(message_name(kind), lambda environment, msg, kind=kind, **_: _obey(kind, msg.data))
    gevent.spawn(_show_for_ever, environment)
    signal.signal(signal.SIGINT, _wait_for_the_master)


def _take_part(environment: Any, runner: Any) -> None:
    parsed = environment.parsed_options
    options = Options.of(parsed, environment.host)

    def tell(kind: str, message: dict[str, Any]) -> None:
        runner.send_message(message_name(kind), {**message, "run": options.run})

    close_station(environment)
    number = max(runner.worker_index, 0) % parsed.stations
    try:
        desk.station = Station(options, number, parsed.stations, tell, str(number + 1))
    except ProtocolFault as fault:
        logger.error("loadtest: %s", fault)  # the master finds that nobody connects from here


def _obey(kind: str, message: dict[str, Any]) -> None:
    if desk.station is not None:
        getattr(desk.station, kind)(message)


def _report_to_master(client_id: str, data: dict[str, Any]) -> None:
    if desk.station is not None:
        data["stentor"] = {**desk.station.report(), "run": desk.station.options.run}


def _wait_for_the_master(signum: int, frame: Any) -> None:
    """Ctrl-C on a terminal reaches every process: the master closes the books first and then sends us home."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if desk.station is None:
        raise KeyboardInterrupt
    gevent.get_hub().loop.run_callback_threadsafe(
        gevent.spawn_later, INTERRUPT_GRACE, os.kill, os.getpid(), signal.SIGINT
    )


def _show_for_ever(environment: Any) -> None:
    while True:
        gevent.sleep(1.0)
        if desk.station is not None:
            show(environment, desk.station)
