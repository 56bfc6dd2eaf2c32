"""A process that hangs when its supervisor dies: both are real ones."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import REPOSITORY, wait_until
from tests.scenarios.workers import is_alive

SUPERVISOR = """
import multiprocessing, sys, tests.test_orphan as here
if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=getattr(here, sys.argv[1]), args=(float(sys.argv[2]),))
    child.start()
    child.join()
"""


def hang(within: float) -> None:
    from server.supervisor.orphan import end_after_supervisor

    end_after_supervisor(within)
    print(os.getpid(), flush=True)
    while True:
        pass


def sleep(within: float) -> None:
    from server.supervisor.orphan import end_after_supervisor

    end_after_supervisor(within)
    print(os.getpid(), flush=True)
    while True:
        time.sleep(60)


def hang_unwatched(within: float) -> None:
    print(os.getpid(), flush=True)
    while True:
        time.sleep(60)


@contextlib.contextmanager
def family(what: str, within: float) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a supervisor with a worker that does this; both are gone at the end."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", SUPERVISOR, what, str(within)]
    supervisor = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert supervisor.stdout is not None
    child = int(supervisor.stdout.readline())
    try:
        yield supervisor, child
    finally:
        supervisor.kill()
        supervisor.wait()
        supervisor.stdout.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        wait_until(lambda: not is_alive(child), what="the child is gone")


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize("what", ["hang", "sleep"])
def test_one_that_hangs_ends_after_its_supervisor_and_not_before(what: str) -> None:
    with family(what, 0.3) as (supervisor, child):
        with pytest.raises(subprocess.TimeoutExpired):
            supervisor.wait(0.6)
        assert is_alive(child)
        supervisor.kill()
        wait_until(lambda: not is_alive(child), 10, "the child ends")


def test_one_that_is_stopped_is_woken() -> None:
    with family("sleep", 60.0) as (supervisor, child):
        os.kill(child, signal.SIGSTOP)
        wait_until(lambda: is_stopped(child))
        supervisor.kill()
        wait_until(lambda: not is_stopped(child), 10, "the child is woken")
        assert is_alive(child)


def test_without_it_a_child_stays() -> None:
    with family("hang_unwatched", 0.0) as (supervisor, child):
        supervisor.kill()
        supervisor.wait()
        with pytest.raises(AssertionError):
            wait_until(lambda: not is_alive(child), 0.5)
