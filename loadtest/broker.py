"""What joins the nodes of a run: a redis-server of our own on a free port, or a broker that runs already.

Laws: our own keeps nothing on disk and listens on the loopback alone; a start that fails leaves nothing behind and is
one line. It knows no more of Redis than how to be told that it is there.
"""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from loadtest.options import BadOption
from loadtest.processes import CannotStart, Child

OWN = "redis"
LOG = "redis.log"
_STARTUP = 10.0
_TURN = 0.02
# Between our look at a port and its use somebody else may take it.
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the nodes find it, and its process if we started it."""

    url: str
    child: Child | None = None
    command: tuple[str, ...] = ()


def check(nodes: int, broker: str, url: str) -> None:
    """See whether the options make a server of one node or of several.

    Raises:
        BadOption: they do not.
    """
    if nodes < 1:
        raise BadOption(f"NODES={nodes}: 1 or more are possible")
    if url and nodes > 1:
        raise BadOption("NODES= starts nodes, and URL= names what runs: name every node there, with spaces")
    if url and broker:
        raise BadOption("BROKER= is for the server that is started, and URL= names one that runs")
    if nodes > 1 and not broker:
        raise BadOption(f"NODES={nodes}: nodes without a broker are islands; BROKER=redis starts one for them")
    if broker and broker != OWN and "://" not in broker:
        raise BadOption(f"BROKER={broker}: redis starts one, and redis://host:port is one that runs")


def start_broker(
    directory: Path,
    wanted: str,
    *,
    cores: Collection[int],
    environment: Mapping[str, str],
    heed: Callable[[], None],
) -> Broker:
    """Start a redis-server and wait until it answers; or take one that is named. `heed` may raise meanwhile.

    Raises:
        CannotStart: there is none to start, it ended, or it did not answer in time.
    """
    if wanted != OWN:
        return Broker(wanted)
    binary = shutil.which("redis-server")
    if binary is None:
        raise CannotStart(
            "redis-server is not installed (Debian: apt install redis-server); BROKER=redis://host:port uses another"
        )
    for tried in range(1, _TRIES + 1):
        port = _free_port()
        options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no")
        child = Child((binary, *options), directory / LOG, cores, environment)
        try:
            if _answers(child, port, heed):
                return Broker(f"redis://127.0.0.1:{port}/0", child, ("redis-server", *options))
        except BaseException:
            child.stop()
            raise
        child.stop()
        if "in use" not in child.last_words() or tried == _TRIES:
            break
    raise CannotStart(f"redis-server did not start, {child.last_words()}")


def _answers(child: Child, port: int, heed: Callable[[], None]) -> bool:
    """Whether it answers before it ends, and in time."""
    deadline = time.monotonic() + _STARTUP
    while child.ended is None and time.monotonic() < deadline:
        heed()
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1.0) as sock:
                sock.sendall(b"PING\r\n")
                if sock.recv(16).startswith(b"+PONG"):
                    return True
        except OSError:
            pass  # not yet
        time.sleep(_TURN)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
