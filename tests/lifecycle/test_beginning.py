"""The first moments: a signal that comes with the first printed line, and an output that nobody takes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import REPOSITORY, http, serve, wait_until

COMMAND = [sys.executable, "-m", "server", "serve", "--port", "0", "--internal-port", "0", "--log-format", "text"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_with_the_first_line_is_a_drain(number: signal.Signals) -> None:
    with serve() as server:
        server.process.send_signal(number)
        assert server.process.wait(20) == 0


@pytest.mark.parametrize("output", ["a closed pipe", "a full disk"])
def test_an_output_that_takes_nothing(output: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    if output == "a full disk":
        stdout = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, stdout = os.pipe()
        os.close(reader)
    with log.open("w") as stderr:
        process = subprocess.Popen(
            COMMAND, stdout=stdout, stderr=stderr, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
        )
    os.close(stdout)
    try:
        said = wait_until(lambda: re.search(r"listening on \S+:(\d+)", log.read_text()), within=20)
        assert http("GET", f"http://127.0.0.1:{said[1]}/healthz") == (200, b"ok\n")
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_broker_that_cannot_be_is_one_line(workers: str) -> None:
    done = subprocess.run(
        [*COMMAND, "--workers", workers, "--broker", "redis://:secret@127.0.0.1/zero"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "stentor: broker: the database must be a number\n"
