"""One run from outside: a server and Locust are started, pinned, followed and stopped, and the result is read.

Laws: when `measure` returns or raises, nothing that it started runs any more; a run that was cut short from here is
unknown, whatever its books say. What a delivery is, or a verdict, it leaves to those who know.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from loadtest import broker, launch, line, processes, report
from loadtest.broker import Broker
from loadtest.console import Show
from loadtest.dialect import origin
from loadtest.launch import Server
from loadtest.neighbours import BUSY, Neighbours
from loadtest.options import Options, masked
from loadtest.processes import Child, Interrupted, Interrupts
from loadtest.report_tables import Surroundings
from loadtest.result import PROGRESS_FILE, RESULT_FILE, Progress, Result, ResultError, read, write

_TURN = 0.1
# How long Locust may take to close its books when it was asked to come to an end.
_GRACE = 45.0
# Locust tells of its progress every second; a minute without a word is no run any more.
_SILENCE = 60.0


class NoResult(Exception):
    """The run left no result; the message is one line."""


@dataclass(frozen=True, slots=True)
class Started:
    """What runs for one run; `nodes` and `broker` are empty where the server runs already."""

    nodes: Sequence[Server]
    broker: Broker | None
    locust: Child
    around: Surroundings

    @property
    def served(self) -> dict[str, Child]:
        """What the load is for, by name: the run is over when one of them ends."""
        names = ["The server"] if len(self.nodes) == 1 else [f"Node {n}" for n, _ in enumerate(self.nodes, 1)]
        found = {name: node.child for name, node in zip(names, self.nodes, strict=True)}
        return found | ({"Redis": self.broker.child} if self.broker and self.broker.child else {})


def measure(
    parsed: argparse.Namespace,
    directory: Path,
    command: str,
    interrupts: Interrupts,
    show: Show,
    *,
    own_report: bool = True,
) -> tuple[Result, Surroundings]:
    """One run, from the start of the server to the report; nothing is left running, whatever happens.

    Args:
        parsed: the options of `loadtest.options` and `line.RUN_OPTIONS`.
        directory: gets the run's files; it need not exist.
        command: what to call the run in its report.
        own_report: whether Locust shall leave its own report and tables as well.

    Raises:
        BadOption, CannotStart, NoResult: in one line, why there is no result.
        Interrupted: somebody asked to stop, before there was anything to tell.
    """
    with ExitStack() as started:
        running = start(parsed, directory, command, interrupts, started, own_report=own_report)
        around, served = running.around, running.served
        neighbours = Neighbours([running.locust.pid, *(child.pid for child in served.values())])

        def look_and_show(progress: Progress) -> None:
            if progress["phase"] == "publishing":
                neighbours.look()
            show(progress)

        cut = follow(running.locust, served, directory / PROGRESS_FILE, interrupts, look_and_show)
    try:
        result = read(directory / RESULT_FILE)
    except ResultError:
        interrupts.heed()
        raise NoResult(cut or f"Locust ended without a result, {running.locust.last_words()}") from None
    around["neighbours"] = neighbours.share if parsed.url == "" or parsed.server_pid else None
    _keep(around, directory)
    if cut:
        result["verdict"] |= {"verdict": "unknown", "reasons": [cut, *result["verdict"]["reasons"]]}
    if (share := around["neighbours"]) and share > BUSY:
        result["verdict"]["notes"].append(
            f"{share:.0%} of this machine was busy with other things: latencies include that."
        )
    write(result, directory)
    report.write(directory)
    return result, around


def start(
    parsed: argparse.Namespace,
    directory: Path,
    command: str,
    interrupts: Interrupts,
    started: ExitStack,
    *,
    web_port: int | None = None,
    own_report: bool = False,
) -> Started:
    """Start the server (unless there is one), the broker of its nodes, and Locust; `started` stops them.

    Raises:
        BadOption, CannotStart: in one line, why not.
        Interrupted: somebody asked to stop meanwhile.
    """
    broker.check(parsed.nodes, parsed.broker, parsed.url)
    is_ours = not parsed.url
    cpus = launch.cores_available()
    server_cores, generator_cores = processes.split(cpus, parsed.workers * parsed.nodes) if is_ours else ([], [])
    generators = parsed.processes or max(1, len(generator_cores))
    launch.room_for(checked(parsed), generators, server_here=is_ours, nodes=parsed.nodes)
    directory.mkdir(parents=True, exist_ok=True)
    environment = line.without(os.environ)
    nodes, joint = _serve(parsed, directory, server_cores, environment, interrupts, started) if is_ours else ([], None)
    around: Surroundings = {
        "command": command,
        "server_command": _commands(nodes, joint),
        "server_cores": server_cores or None,
        "generator_cores": generator_cores or None,
        "shared_core": processes.siblings(server_cores, generator_cores),
        "neighbours": None,
    }
    _keep(around, directory)
    locust = launch.start_locust(
        directory,
        parsed,
        url=" ".join(_address(node.url, parsed.dialect) for node in nodes) or parsed.url,
        metrics=" ".join(node.metrics for node in nodes) or parsed.metrics,
        server_pid=" ".join(str(node.child.pid) for node in nodes) or parsed.server_pid,
        broker_pid=joint.child.pid if joint and joint.child else parsed.broker_pid,
        processes=generators,
        cores=generator_cores,
        environment=environment,
        web_port=web_port,
        own_report=own_report,
    )
    started.callback(locust.stop)
    return Started(nodes, joint, locust, around)


def _serve(
    parsed: argparse.Namespace,
    directory: Path,
    cores: Sequence[int],
    environment: dict[str, str],
    interrupts: Interrupts,
    started: ExitStack,
) -> tuple[list[Server], Broker | None]:
    """Start the nodes, and before them what joins them."""
    joint = None
    if parsed.broker:
        joint = broker.start_broker(
            directory, parsed.broker, cores=cores, environment=environment, heed=interrupts.heed
        )
        if joint.child:
            started.callback(joint.child.stop)
    nodes = launch.start_nodes(
        directory,
        parsed.nodes,
        workers=parsed.workers,
        options=parsed.server_args,
        broker=joint.url if joint else "",
        cores=cores,
        environment=environment,
        heed=interrupts.heed,
    )
    for node in nodes:
        started.callback(node.child.stop)
    return nodes, joint


def _commands(nodes: Sequence[Server], joint: Broker | None) -> str | None:
    """What was started, a line each, as one would type it."""
    if not nodes:
        return None
    prefix = f"{launch.BROKER_VARIABLE}={masked(joint.url, '')} " if joint else ""
    lines = [shlex.join(joint.command)] if joint and joint.child else []
    return "\n".join([*lines, *(prefix + shlex.join(["python", *node.command[1:]]) for node in nodes)])


def _address(raw: str, dialect: str) -> str:
    """Where a server that tells the address of its raw dialect is to be found in another."""
    return raw if dialect == "raw" else origin(raw)


def follow(locust: Child, served: Mapping[str, Child], path: Path, interrupts: Interrupts, show: Show) -> str | None:
    """Show the run until it ends; returns why it was cut short, unless the result will say so itself.

    Args:
        served: what must not end before Locust does, by name.
    """
    lines = _lines(path)
    heard = time.monotonic()
    asked: float | None = None
    death: str | None = None
    while locust.ended is None:
        for progress in next(lines):
            show(progress)
            heard = time.monotonic()
        now = time.monotonic()
        dead = next(((name, child) for name, child in served.items() if child.ended is not None), None)
        if dead and death is None:
            death = f"{dead[0]} died midway, {dead[1].last_words()}."
        if asked is None and (interrupts.count or death):
            # The books are worth having even so: whatever was measured until now is in them.
            locust.interrupt()
            asked = now
        if interrupts.count > 1:
            raise Interrupted
        if asked is not None and now - asked > _GRACE:
            return death or "The run was stopped, and Locust did not come to an end."
        if now - heard > _SILENCE:
            return f"The load generator has said nothing for {_SILENCE:g} s."
        time.sleep(_TURN)
    for progress in next(lines):
        show(progress)
    return death


def _keep(around: Surroundings, directory: Path) -> None:
    (directory / report.RUN_FILE).write_text(json.dumps(around, indent=1) + "\n", encoding="utf-8")


def _lines(path: Path) -> Iterator[list[Progress]]:
    """At each turn, the whole lines that have been added to the file since."""
    offset = 0
    while True:
        new = b""
        if path.exists():
            with path.open("rb") as file:
                file.seek(offset)
                new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        offset += len(new)
        yield [json.loads(text) for text in new.splitlines()]


def checked(parsed: argparse.Namespace) -> Options:
    """The options of the load, checked.

    Raises:
        BadOption: a value is out of its range, or two do not fit.
    """
    # The address of a server that is still to be started does not matter to the check.
    return Options.of(argparse.Namespace(**{**vars(parsed), "url": parsed.url or "ws://127.0.0.1", "run_id": ""}))
