"""Under a service manager: what a whole server tells it, from its start to its end, and while its loop hangs."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import serve, wait_until


class Systemd:
    """Hears what services say; `said` keeps it, a message an entry."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def close(self) -> None:
        self._socket.close()

    def listen(self) -> list[str]:
        while True:
            try:
                self.said.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return self.said

    def wait_for(self, count: int, beginning: str) -> None:
        self._wait(lambda: sum(said.startswith(beginning) for said in self.listen()) >= count, beginning)

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        wait_until(condition, within=20.0, what=what)

    def environment(self, watchdog: float) -> dict[str, str]:
        return {"NOTIFY_SOCKET": str(self.path), "WATCHDOG_USEC": str(int(watchdog * 1e6))}


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    manager = Systemd(tmp_path / "notify")
    yield manager
    manager.close()


def silent_for(systemd: Systemd, seconds: float) -> bool:
    """Tell if nothing is heard for so long."""
    before, deadline = len(systemd.listen()), time.monotonic() + seconds
    while time.monotonic() < deadline:
        if len(systemd.listen()) > before:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("workers", [1, 2])
def test_a_service_from_its_start_to_its_end(systemd: Systemd, workers: int) -> None:
    options = ("--workers", str(workers), "--drain-timeout", "3")
    with serve(*options, env=systemd.environment(watchdog=0.4)) as server:
        systemd.wait_for(1, "READY=1\nSTATUS=")
        systemd.wait_for(3, "WATCHDOG=1")
        assert server.terminate() == 0
    said = systemd.listen()
    assert said[0].startswith("READY=1"), "nothing before it is ready"
    assert [words for words in said if words.startswith("STOPPING=1")] == [
        "STOPPING=1\nEXTEND_TIMEOUT_USEC=8000000\nSTATUS=draining"
    ]
    assert [words for words in said if words.startswith("READY=1")] == said[:1]


def test_a_loop_that_hangs_is_not_said_to_be_alive(systemd: Systemd) -> None:
    with serve(env=systemd.environment(watchdog=0.4)) as server:
        systemd.wait_for(2, "WATCHDOG=1")
        os.kill(server.pid, signal.SIGSTOP)
        wait_until(lambda: Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        assert silent_for(systemd, 1.0)
        os.kill(server.pid, signal.SIGCONT)
        systemd.wait_for(len(systemd.listen()) + 1, "")
        assert server.terminate() == 0


def test_a_reload_of_several_workers_begins_and_ends(systemd: Systemd) -> None:
    with serve("--workers", "2", env=systemd.environment(watchdog=60)) as server:
        systemd.wait_for(1, "READY=1")
        server.process.send_signal(signal.SIGHUP)
        systemd.wait_for(1, "RELOADING=1\nMONOTONIC_USEC=")
        systemd.wait_for(2, "READY=1")
        assert server.terminate() == 0
    order = [words.partition("=")[0] for words in systemd.listen() if not words.startswith("WATCHDOG")]
    assert order == ["READY", "RELOADING", "READY", "STOPPING"]


def test_a_single_process_survives_a_reload(systemd: Systemd) -> None:
    with serve(env=systemd.environment(watchdog=60)) as server:
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "a single process has no successor" in server.log_text())
        assert server.get("/readyz")[0] == 200
        assert server.terminate() == 0


def test_workers_do_not_speak_for_the_service(systemd: Systemd) -> None:
    with serve("--workers", "2", env=systemd.environment(watchdog=60)) as server:
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        assert len(children) >= 2
        for child in children:
            # One that has just been forked has our environment until it runs its own program.
            environment = Path(f"/proc/{child}/environ")
            wait_until(lambda path=environment: b"NOTIFY_SOCKET" not in path.read_bytes(), within=5.0, what="its own")
        assert server.terminate() == 0
