"""Starts what a run needs: a server on free ports, and Locust against it.

Laws: it knows the server only as a command that prints where it listens; whatever goes wrong is one line, and nothing
that was started is left behind by a start that failed.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import resource
import shlex
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from loadtest import line
from loadtest.options import Options
from loadtest.processes import CannotStart, Child
from loadtest.result import DIRECTORY_VARIABLE

SERVER_LOG = "server.log"
NODE_LOG = "node-{}.log"
BROKER_VARIABLE = "STENTOR_BROKER"
LOCUST_LOG = "locust.log"
LOCUSTFILE = Path(__file__).parent / "locustfile.py"
_STARTUP = 20.0
_JOINING = 10.0
_TURN = 0.02
# What a process holds besides its connections: libraries, logs, event loop, sockets to Locust's other processes.
_SPARE_DESCRIPTORS = 128


@dataclass(frozen=True, slots=True)
class Server:
    """A server that we started: where it listens, and its process."""

    child: Child
    command: list[str]
    url: str
    metrics: str


def start_nodes(
    directory: Path,
    count: int,
    *,
    workers: int,
    options: str,
    broker: str,
    cores: Collection[int],
    environment: Mapping[str, str],
    heed: Callable[[], None],
) -> list[Server]:
    """Start a server of so many nodes, each on free ports, and wait until the broker has joined them.

    Raises:
        CannotStart: a node ended, did not listen in time, or cannot reach the broker.
    """
    # In the environment, since a broker's address may hold a password, and commands are for all to see.
    environment = {**environment, **({BROKER_VARIABLE: broker} if broker else {})}
    nodes: list[Server] = []
    try:
        for number in range(1, count + 1):
            log = SERVER_LOG if count == 1 else NODE_LOG.format(number)
            nodes.append(
                start_server(
                    directory,
                    log=log,
                    workers=workers,
                    options=options,
                    cores=cores,
                    environment=environment,
                    heed=heed,
                )
            )
        if broker:
            for node in nodes:
                _wait_for_broker(node, heed)
    except BaseException:
        for node in nodes:
            node.child.stop()
        raise
    return nodes


def _wait_for_broker(node: Server, heed: Callable[[], None]) -> None:
    deadline = time.monotonic() + _JOINING
    while node.child.ended is None and time.monotonic() < deadline:
        if _is_ready(node):
            return
        heed()
        time.sleep(_TURN)
    raise CannotStart(f"a node is not in contact with its broker, {node.child.last_words()}; see {node.child.log}")


def _is_ready(node: Server) -> bool:
    connection = http.client.HTTPConnection(urlsplit(node.metrics).netloc, timeout=2.0)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def start_server(
    directory: Path,
    *,
    log: str = SERVER_LOG,
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
    child = Child(command, directory / log, cores, {**environment, "PYTHONUNBUFFERED": "1"})
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
    server_pid: str,
    broker_pid: int,
    processes: int,
    cores: Collection[int],
    environment: Mapping[str, str],
    web_port: int | None,
    own_report: bool,
) -> Child:
    """Start Locust on our locustfile; headless (with its own report and tables, if wanted), or with its web page."""
    found = {"url": url, "metrics": metrics, "server_pid": server_pid, "broker_pid": broker_pid}
    target = argparse.Namespace(**{**vars(parsed), **found})
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


def room_for(options: Options, processes: int, *, server_here: bool, nodes: int = 1) -> None:
    """Raise our limit of open files, which everything we start inherits, as far as it goes; see that it is enough.

    Raises:
        CannotStart: the connections do not fit into one process.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    everyone = options.connections + options.streams + options.stalled + options.slow
    # A swarm divides among the processes; a server has them all, or its part as a node.
    need = max(-(-everyone // processes), -(-everyone // nodes) if server_here else 0) + _SPARE_DESCRIPTORS
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
