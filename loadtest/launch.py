"""Starts what a run needs: a server on free ports, and Locust against it.

Laws: it knows the server only as a command that prints where it listens; whatever goes wrong is one line, and nothing
that was started is left behind by a start that failed.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shlex
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest import line
from loadtest.options import Options
from loadtest.processes import Child
from loadtest.result import DIRECTORY_VARIABLE

SERVER_LOG = "server.log"
LOCUST_LOG = "locust.log"
LOCUSTFILE = Path(__file__).parent / "locustfile.py"
_STARTUP = 20.0
_TURN = 0.02
# What a process holds besides its connections: libraries, logs, event loop, sockets to Locust's other processes.
_SPARE_DESCRIPTORS = 128


class CannotStart(Exception):
    """The run cannot begin; the message is one line."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that we started: where it listens, and its process."""

    child: Child
    command: list[str]
    url: str
    metrics: str


def start_server(
    directory: Path,
    *,
    workers: int,
    options: str,
    cores: Collection[int],
    environment: Mapping[str, str],
    heed: Callable[[], None],
) -> Server:
    """Start a server on free ports and wait until it says where it listens; `heed` may raise meanwhile.

    Raises:
        CannotStart: it ended, or did not listen in time.
    """
    command = [sys.executable, "-m", "server", "--port", "0", "--internal-port", "0"]
    # A publisher of a load test is one client that publishes for all.
    command += ["--message-rate", "0", *(["--workers", str(workers)] if workers > 1 else []), *shlex.split(options)]
    # Unbuffered, or the addresses would wait in the child's memory for more to print.
    child = Child(command, directory / SERVER_LOG, cores, {**environment, "PYTHONUNBUFFERED": "1"})
    try:
        url, metrics = _addresses(child, heed)
    except BaseException:
        child.stop()
        raise
    return Server(child, command, url, metrics)


def _addresses(child: Child, heed: Callable[[], None]) -> tuple[str, str]:
    deadline = time.monotonic() + _STARTUP
    while time.monotonic() < deadline:
        ended = child.ended is not None  # before the reading: what it printed last is read, too
        text = child.log.read_text(encoding="utf-8", errors="replace")
        url, metrics = (re.search(rf"^\s*{name}\s+(\S+)", text, re.MULTILINE) for name in ("websocket", "metrics"))
        if url and metrics:
            return url[1], metrics[1]
        if ended:
            raise CannotStart(f"the server did not start, {child.last_words()}")
        heed()
        time.sleep(_TURN)
    raise CannotStart(f"the server did not say within {_STARTUP:g} s where it listens; see {child.log}")


def start_locust(
    directory: Path,
    parsed: argparse.Namespace,
    *,
    url: str,
    metrics: str,
    server_pid: int,
    processes: int,
    cores: Collection[int],
    environment: Mapping[str, str],
    web_port: int | None,
    own_report: bool,
) -> Child:
    """Start Locust on our locustfile; headless (with its own report and tables, if wanted), or with its web page."""
    target = argparse.Namespace(**{**vars(parsed), "url": url, "metrics": metrics, "server_pid": server_pid})
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), *line.given(target)]
    if processes > 1:
        command += ["--processes", str(processes)]
    if web_port is None:
        command += ["--headless", "--only-summary"]
    else:
        command += ["--web-host", "127.0.0.1", "--web-port", str(web_port)]
    if own_report:
        command += ["--csv", str(directory / "locust"), "--csv-full-history", "--html", str(directory / "locust.html")]
    secrets = {"TOKEN": parsed.token} if parsed.token else {}
    own = {DIRECTORY_VARIABLE: str(directory), "PYTHONUNBUFFERED": "1", **secrets}
    return Child(command, directory / LOCUST_LOG, cores, {**environment, **own})


def room_for(options: Options, processes: int, *, server_here: bool) -> None:
    """Raise our limit of open files, which everything we start inherits, as far as it goes; see that it is enough.

    Raises:
        CannotStart: the connections do not fit into one process.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    everyone = options.connections + options.streams + options.stalled + options.slow
    # A swarm divides among the processes; the server has them all.
    need = (everyone if server_here else -(-everyone // processes)) + _SPARE_DESCRIPTORS
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and need > hard:
        raise CannotStart(
            f"{everyone:,} connections need {need:,} open files, and the limit is {hard:,}: "
            f"raise it (ulimit -n {need}) or ask for fewer"
        )


def cores_available() -> Sequence[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
