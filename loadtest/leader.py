"""The Locust process that leads: its options, and what it does at Locust's events.

It fits Locust's options to ours, starts a ``Conductor`` with each test, lets it finish before Locust stops anything,
and turns the verdict into the exit code. Without workers it has a ``Station``, too.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gevent
from locust.runners import LocalRunner, MasterRunner

from loadtest import exporter, tabs
from loadtest.conductor import Conductor
from loadtest.desk import WORDS, close_station, desk, message_name, show
from loadtest.options import BadOption, Options, swarm_size
from loadtest.protocol import ProtocolFault
from loadtest.result import EXIT_CODES, directory
from loadtest.shapes import users_at
from loadtest.station import Station
from loadtest.watch import raise_file_limit

SPARE_DESCRIPTORS = 100

logger = logging.getLogger("loadtest")


def wire(environment: Any, runner: Any, web_ui: Any) -> None:
    """Connect Locust's events with what leading means; may end the process over its options."""
    try:
        _fit_to_locust(environment, headless=web_ui is None)
    except BadOption as error:
        _refuse(environment, str(error))
    if web_ui is not None:
        tabs.add_tabs(web_ui, lambda: desk.conductor)
    _export(environment)
    if isinstance(runner, MasterRunner):
        _listen_to_workers(environment, runner)
    listen = environment.events
    listen.test_start.add_listener(lambda **_: _begin(environment, runner))
    listen.test_stopping.add_listener(lambda **_: _wind_up(environment))
    listen.test_stop.add_listener(lambda **_: close_station(environment))
    listen.spawning_complete.add_listener(lambda **_: _mark_spawned())
    listen.quitting.add_listener(lambda **_: _wind_up(environment))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt_main)


def _export(environment: Any) -> None:
    """Let Prometheus read the figures of the runs, if it is wanted; may end the process over the port."""
    parsed = environment.parsed_options
    if parsed.metrics_port:
        try:
            exporter.serve(parsed.metrics_host, parsed.metrics_port, lambda: desk.conductor)
        except OSError as error:
            _refuse(environment, f"METRICS_PORT={parsed.metrics_port}: {os.strerror(error.errno or 0)}")


def _interrupt_main(signum: int, frame: Any) -> None:
    """Raise KeyboardInterrupt where Locust waits for it, and not in whichever greenlet runs at this moment."""
    hub = gevent.get_hub()
    hub.loop.run_callback_threadsafe(hub.parent.throw, KeyboardInterrupt)


def _refuse(environment: Any, why: str) -> None:
    """End the process over what it was asked, in one line, with a result if the options make one."""
    print(f"loadtest: {why}", file=sys.stderr, flush=True)
    try:
        options = Options.of(environment.parsed_options, environment.host)
    except BadOption:
        pass  # there is no plan that a result could describe
    else:
        conductor = Conductor(options, environment.parsed_options, lambda *_: None, list, directory())
        conductor.stop(why)
        conductor.lead()
    sys.exit(EXIT_CODES["unknown"])


def _fit_to_locust(environment: Any, headless: bool) -> None:
    """Make Locust's own options say the same as ours."""
    parsed = environment.parsed_options
    processes = _expected_processes(parsed)
    parsed.run_id = _new_run()
    if parsed.num_users is not None:
        parsed.subscribers = parsed.num_users
    if parsed.run_time:
        parsed.publish_time = f"{parsed.run_time}s"
        parsed.run_time = None  # Locust counts from the first connect, we from the first publication
    elif not headless and not _is_given("TIME", "--publish-time"):
        parsed.publish_time = "0"
    if headless:
        options = Options.of(parsed, environment.host)
        _check_descriptors(options, processes)
        # A shape moves whole swarms: they are small enough for its curve to be seen.
        most = max(options.subscribers // 20, 1) if options.shape else 100
        parsed.swarm_size = swarm_size(options.subscribers, processes, most)
        parsed.num_users = options.subscribers // parsed.swarm_size
        parsed.spawn_rate = max(options.connect_rate / (parsed.swarm_size * options.connections_per_client), 0.01)
    else:
        environment.host = parsed.url or environment.host  # the page shows it, and lets it be changed
        parsed.swarm_size = 1  # so that the page's number of users is that of subscribers
        parsed.num_users = parsed.subscribers
        parsed.spawn_rate = parsed.spawn_rate or min(parsed.connect_rate, 100.0)


def _is_given(variable: str, flag: str) -> bool:
    return variable in os.environ or any(argument.startswith(flag) for argument in sys.argv)


def _new_run() -> str:
    return secrets.token_hex(2)


def _expected_processes(parsed: Any) -> int:
    if parsed.processes:
        return int(parsed.processes)
    return int(parsed.expect_workers) if parsed.master else 1


def _check_descriptors(options: Options, processes: int) -> None:
    soft, _ = raise_file_limit()
    crew = options.streams + options.stalled + options.slow + int(2 * options.flapping)
    needed = -(-options.connections // processes) + crew + SPARE_DESCRIPTORS
    if needed > soft:
        raise BadOption(
            f"a process needs {needed:,} open files and may have {soft:,}: raise it (ulimit -n), or use more processes"
        )


def _begin(environment: Any, runner: Any) -> None:
    """A test starts: lead it, and in a single process play its part as well."""
    parsed = environment.parsed_options
    headless = environment.web_ui is None
    parsed.run_id = _new_run()
    parsed.stations = max(_worker_count(runner), 1)
    if not headless:
        parsed.subscribers = parsed.num_users
        parsed.url = environment.host or parsed.url
    try:
        options = Options.of(parsed, environment.host)
        _check_descriptors(options, parsed.stations)
    except BadOption as error:
        if headless:
            _refuse(environment, str(error))
        logger.error("loadtest: %s", error)
        gevent.spawn(runner.stop)
        return
    single = isinstance(runner, LocalRunner)
    conductor = Conductor(options, parsed, _post(runner), _stations(runner), _results(headless))
    desk.conductor = conductor
    if options.shape:
        first = users_at(options.shape, 0.0, options.duration or 1.0, parsed.num_users)
        conductor.expect_first(first * parsed.swarm_size)
    if not conductor.prepare():
        logger.debug("the server cannot be used")
    elif single:
        try:
            desk.station = Station(options, 0, 1, lambda kind, message: conductor.hear(kind, "local", message), "1")
        except ProtocolFault as fault:
            logger.error("loadtest: %s", fault)
        else:
            gevent.spawn(_report_locally, environment, conductor, desk.station)
    gevent.spawn(_lead, environment, runner, conductor)


def _lead(environment: Any, runner: Any, conductor: Conductor) -> None:
    verdict = conductor.lead()["verdict"]
    level = logging.INFO if verdict["verdict"] == "pass" else logging.ERROR
    for reason in verdict["reasons"]:
        logger.log(level, "%s: %s", verdict["verdict"], reason)
    if environment.web_ui is None:
        environment.process_exit_code = EXIT_CODES[verdict["verdict"]]
        runner.quit()
    else:
        runner.stop()


def _wind_up(environment: Any) -> None:
    """Locust wants to stop: first close the books of the run that is going on."""
    conductor = desk.conductor
    if conductor is None or conductor.finished.is_set():
        return
    conductor.stop()
    try:
        conductor.finished.wait(2 * conductor.options.barrier + 60)
    except KeyboardInterrupt:
        pass  # interrupted twice: whoever does that wants no result
    environment.process_exit_code = (
        EXIT_CODES[conductor.result["verdict"]["verdict"]] if conductor.result else EXIT_CODES["unknown"]
    )
    close_station(environment)


def _mark_spawned() -> None:
    if desk.conductor is not None:
        desk.conductor.spawned = True


def _worker_count(runner: Any) -> int:
    return runner.worker_count if isinstance(runner, MasterRunner) else 1


def _stations(runner: Any) -> Callable[[], list[str]]:
    if isinstance(runner, MasterRunner):
        return lambda: [client.id for client in runner.clients.all if client.state != "missing"]
    return lambda: ["local"]


def _post(runner: Any) -> Callable[[str, dict[str, Any], str | None], None]:
    def to_workers(kind: str, message: dict[str, Any], station: str | None) -> None:
        runner.send_message(message_name(kind), message, station)

    def to_self(kind: str, message: dict[str, Any], station: str | None) -> None:
        if desk.station is not None:
            getattr(desk.station, kind)(message)

    return to_workers if isinstance(runner, MasterRunner) else to_self


def _results(headless: bool) -> Path | None:
    base = directory()
    if base is None or headless:
        return base
    return base / datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def _listen_to_workers(environment: Any, runner: Any) -> None:
    def hear(kind: str, station: str, message: dict[str, Any]) -> None:
        if desk.conductor is not None and message.get("run") == desk.conductor.options.run:
            desk.conductor.hear(kind, station, message)

    for kind in WORDS:
        runner.register_message(
            message_name(kind), lambda environment, msg, kind=kind, **_: hear(kind, msg.node_id, msg.data)
        )

    def on_report(client_id: str, data: dict[str, Any]) -> None:
        if "stentor" in data:
            hear("report", client_id, data["stentor"])

    environment.events.worker_report.add_listener(on_report)


def _report_locally(environment: Any, conductor: Conductor, station: Station) -> None:
    while not conductor.finished.is_set():
        gevent.sleep(1.0)
        conductor.hear("report", "local", station.report())
        show(environment, station)
