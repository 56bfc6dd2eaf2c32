"""Stentor's load test for Locust: run it headless, with its web page, as master and workers, or on its own.

    locust -f loadtest/locustfile.py --headless --url ws://127.0.0.1:8000 --subscribers 2000 --processes 1

A Locust user here is a swarm of subscribers. Publishers and troublemakers are the crew of some process, so that
Locust's number of users is that of the swarms. This module only tells Locust of its users and options:
``loadtest.leader`` and ``loadtest.worker`` do the rest. Nothing is live before a test starts.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Locust may load this file from anywhere

import locust.runners
from gevent.event import Event
from locust import LoadTestShape, User, events, task

from loadtest import figures, leader, worker
from loadtest.desk import desk
from loadtest.options import declare
from loadtest.shapes import users_at
from loadtest.station import Client
from loadtest.watch import raise_file_limit

figures.install()
locust.runners.WORKER_REPORT_INTERVAL = 1.0  # a second of the run at a time


class Subscribers(User):
    """A swarm of healthy subscribers."""

    clients: list[Client]

    def on_start(self) -> None:
        """Let them connect."""
        size = max(self.environment.parsed_options.swarm_size, 1)
        # Without a station the run is over before it began: there was no server.
        self.clients = desk.station.join(size) if desk.station is not None else []

    @task
    def listen(self) -> None:
        """Stay; what is received is handled in the hub."""
        Event().wait()

    def on_stop(self) -> None:
        """Let them go."""
        if desk.station is not None:
            desk.station.leave(self.clients)


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    """Declare the options."""
    declare(parser)


@events.init.add_listener
def wire(environment: Any, runner: Any, web_ui: Any, **_: Any) -> None:
    """Give this process its part."""
    raise_file_limit()
    if isinstance(runner, locust.runners.WorkerRunner):
        worker.wire(environment, runner)
        return
    leader.wire(environment, runner, web_ui)
    if environment.parsed_options.shape:
        environment.shape_class = Shape()
        environment.shape_class.runner = runner


class Shape(LoadTestShape):
    """Lets the number of users follow ``SHAPE=`` over the time of publishing."""

    abstract = True  # for Locust's search in this file: it is used only where a shape is asked for

    def tick(self) -> tuple[int, float] | None:
        """The users there should be now, and how fast to get there; None when the run is over."""
        assert self.runner is not None, "set when the shape was chosen"
        conductor, parsed = desk.conductor, self.runner.environment.parsed_options
        assert parsed is not None, "Locust was started from the command line"
        if conductor is not None and conductor.finished.is_set():
            return None
        elapsed = conductor.elapsed() if conductor is not None else 0.0
        shape, duration = parsed.shape, conductor.options.duration if conductor is not None else None
        return users_at(shape, elapsed, duration or 1.0, parsed.num_users), parsed.spawn_rate
