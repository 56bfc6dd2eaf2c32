"""The service manager, played by a datagram socket: what it is told, when, and that its absence is never felt."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.notify import ServiceManager


class Bench:
    """Timers that run when they are told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, seconds: float, call: Callable[[], None]) -> Bench:
        self.waiting.append((seconds, call))
        return self

    def cancel(self) -> None:
        self.waiting.clear()

    def run(self) -> float:
        seconds, call = self.waiting.pop()
        call()
        return seconds


class Listening:
    """What systemd would hear."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0", 1))
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        said = []
        while True:
            try:
                said.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return said


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listening]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@stentor-test-{os.getpid()}"
    listening = Listening(address)
    yield listening
    listening.socket.close()


def test_the_life_of_a_service(systemd: Listening) -> None:
    bench = Bench()
    manager = ServiceManager(systemd.address, watchdog=3.0)
    manager.ready(bench.call_later, "listening")
    assert systemd.heard() == ["READY=1\nSTATUS=listening", "WATCHDOG=1"]
    assert bench.run() == 1.5
    assert systemd.heard() == ["WATCHDOG=1"]
    manager.reloading(12.5)
    assert systemd.heard() == ["RELOADING=1\nMONOTONIC_USEC=12500000\nSTATUS=replacing the workers"]
    manager.ready(bench.call_later, "listening again")
    assert systemd.heard() == ["READY=1\nSTATUS=listening again"]
    assert len(bench.waiting) == 1, "one reminder, however often it is ready"
    manager.stopping(30.0, "draining")
    assert systemd.heard() == ["STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000\nSTATUS=draining"]
    manager.close()
    manager.close()
    assert bench.waiting == []
    manager.stopping(1.0, "again")
    assert systemd.heard() == []


def test_without_a_watchdog_there_are_no_reminders(systemd: Listening) -> None:
    bench = Bench()
    manager = ServiceManager(systemd.address)
    manager.ready(bench.call_later, "x")
    assert systemd.heard() == ["READY=1\nSTATUS=x"]
    assert bench.waiting == []
    manager.close()


def test_without_a_manager_nothing_happens() -> None:
    bench = Bench()
    manager = ServiceManager(watchdog=1.0)
    manager.ready(bench.call_later, "x")
    manager.reloading(1.0)
    manager.stopping(1.0, "x")
    assert (manager.is_there, bench.waiting) == (False, [])


def test_a_manager_that_has_gone_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    manager = ServiceManager(str(tmp_path / "gone"), watchdog=1.0)
    with caplog.at_level(logging.WARNING):
        manager.ready(bench.call_later, "x")
    assert "was not told READY=1: No such file or directory" in caplog.text
    assert bench.run() == 0.5
    manager.close()


@pytest.mark.parametrize(
    ("variables", "watchdog"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
    ],
)
def test_what_the_environment_says(variables: dict[str, str], watchdog: float) -> None:
    environ = {"NOTIFY_SOCKET": "/run/x", "PATH": "/bin", **variables}
    manager = ServiceManager.of(environ, 7)
    assert (manager.is_there, manager.watchdog) == (True, watchdog)
    assert environ == {"PATH": "/bin"}, "children are not told"


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "notify"])
def test_addresses_that_are_no_unix_socket(address: str) -> None:
    assert not ServiceManager.of({"NOTIFY_SOCKET": address}, 7).is_there
