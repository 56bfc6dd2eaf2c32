"""Locust itself on the locustfile, in processes of its own, as an operator runs it."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from loadtest import result as schema
from loadtest.result import Result
from tests.harness import REPOSITORY, Server, http, serve, wait_until

pytestmark = pytest.mark.scenario

#: A test machine is slow, shared and not asked how fast it is.
PATIENT = {"CPU_LIMIT": "1000", "LAG_LIMIT": "60000", "BARRIER": "10"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve("--message-rate", "0") as server:
        yield server


class Locust:
    """A Locust process, its output, and the result that it leaves."""

    def __init__(self, directory: Path, *arguments: str, files: int | None = None, **variables: Any) -> None:
        self.directory = directory
        self._log = directory / "locust.log"
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("LOCUST_", "STENTOR_"))}
        environment |= {**PATIENT, schema.DIRECTORY_VARIABLE: str(directory)}
        environment |= {key: str(value) for key, value in variables.items()}

        def limit() -> None:
            # What a shell with job control does, too: a background job of a plain one would not hear Ctrl-C.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if files is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

        command = [sys.executable, "-m", "locust", "-f", str(REPOSITORY / "loadtest" / "locustfile.py"), *arguments]
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=limit,
            )  # fmt: skip

    def wait(self, within: float = 60.0) -> int:
        return self.process.wait(within)

    @property
    def output(self) -> str:
        return self._log.read_text()

    def result(self) -> Result:
        return schema.read(self.directory / schema.RESULT_FILE)

    def kill_whoever_is_left(self) -> bool:
        """Whether anybody of its process group was."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        self.process.wait(10)
        return True


@contextlib.contextmanager
def locust(directory: Path, *arguments: str, files: int | None = None, **variables: Any) -> Iterator[Locust]:
    directory.mkdir(parents=True, exist_ok=True)
    one = Locust(directory, *arguments, files=files, **variables)
    try:
        yield one
    finally:
        left = one.kill_whoever_is_left() and one.process.returncode is None
    assert not left, f"still running: {one.output}"
    assert "Traceback" not in one.output, one.output


def headless(server: Server, *arguments: str) -> list[str]:
    target = ["--url", server.websocket_url, "--metrics", f"{server.internal_url}/metrics"]
    return ["--headless", "--only-summary", "--loglevel", "WARNING", *target, *arguments]


@pytest.mark.parametrize("processes", [[], ["--processes", "2"]], ids=["one process", "two workers"])
def test_a_headless_run_passes_and_its_exit_code_says_so(server: Server, tmp_path: Path, processes: list[str]) -> None:
    with locust(
        tmp_path, *headless(server, *processes, "--rate", "80"), USERS=40, RATE=7, TIME="1s", CHANNELS=2
    ) as run:
        assert run.wait() == 0, run.output
    result = run.result()
    assert result["verdict"]["verdict"] == "pass"
    assert result["options"]["rate"] == 80.0, "the command line wins over the environment"
    assert (result["clients"]["connected"], result["plan"]["processes"]) == (40, 2 if processes else 1)
    assert result["ledger"]["server"]["mode"] == "equality"
    assert result["ledger"]["server"]["agrees"] is True
    assert sum(row["delivered"] for row in result["timeline"]) == result["ledger"]["delivered"]
    assert len(result["generator"]) == result["plan"]["processes"]
    assert result["latency"]["count"] == result["ledger"]["delivered"]
    assert result["handshake"]["count"] == 42
    # Locust's own table shows the same: 80 publications, and their deliveries to all clients.
    assert any(line.split()[:3] == ["WS", "publish", "80"] for line in run.output.splitlines()), run.output


def test_a_master_and_workers_on_their_own_share_a_run(server: Server, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    master = ["--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--expect-workers", "2"]
    worker = ["--worker", "--master-port", port, "--loglevel", "WARNING"]
    with contextlib.ExitStack() as everybody:
        lead = everybody.enter_context(
            locust(
                tmp_path / "master", *headless(server, *master), USERS=20, RATE=50, TIME="1s", PUBLISHERS=2, SHAPE=""
            )
        )
        # They know nothing but their master.
        workers = [everybody.enter_context(locust(tmp_path / f"worker{number}", *worker)) for number in (1, 2)]
        assert lead.wait() == 0, lead.output
        assert [each.wait() for each in workers] == [0, 0]
    result = lead.result()
    assert result["verdict"]["verdict"] == "pass"
    assert result["plan"]["processes"] == 2
    assert sorted(process["connections"] for process in result["generator"]) == [11, 11]
    assert result["publications"]["acknowledged"] == 50
    assert [each.name for each in (tmp_path / "worker1").iterdir()] == ["locust.log"], "the master leaves the result"


def test_a_shape_lets_clients_come_later_and_the_ledger_adds_up(server: Server, tmp_path: Path) -> None:
    with locust(tmp_path, *headless(server), USERS=20, RATE=50, TIME="5s", SHAPE="step") as run:
        assert run.wait() == 0, run.output
    result = run.result()
    connections = [row["connections"] for row in result["timeline"]]
    assert None not in connections
    assert connections == sorted(connections, key=lambda count: count or 0)
    assert connections[0] < 20  # type: ignore[operator]
    assert 4 < result["clients"]["connected"] <= 20, "how many in time is up to a machine that may be busy"
    assert result["ledger"]["server"]["mode"] == "inequality"
    assert 250 * 5 < result["ledger"]["expected"] < 250 * 21


def test_without_a_shape_no_shape_is_active(server: Server, tmp_path: Path) -> None:
    with locust(tmp_path, *headless(server), "--loglevel", "INFO", USERS=2, RATE=10, TIME="0.2s") as run:
        assert run.wait() == 0, run.output
    assert "Shape" not in run.output


def refused(run: Locust) -> str:
    assert run.wait() == 2, run.output
    lines = [line for line in run.output.splitlines() if "loadtest" in line]
    assert len(lines) == 1, run.output
    return lines[0]


@pytest.mark.parametrize("processes", [[], ["--processes", "2"]], ids=["one process", "two workers"])
def test_a_server_that_is_not_there_is_one_line(tmp_path: Path, processes: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"ws://127.0.0.1:{free.getsockname()[1]}"
    with locust(tmp_path, "--headless", "--only-summary", "--loglevel", "WARNING", "--url", url, *processes) as run:
        assert refused(run).endswith(f"unknown: {url}/ws/{{channel}} cannot be reached: refused.")
    assert run.result()["verdict"]["verdict"] == "unknown"


def test_too_few_descriptors_are_one_line(server: Server, tmp_path: Path) -> None:
    with locust(tmp_path, *headless(server), files=256, USERS=1000) as run:
        assert refused(run) == (
            "loadtest: a process needs 1,101 open files and may have 256: "
            "raise it (ulimit -n), or use more processes"
        )  # fmt: skip
    assert run.result()["verdict"]["verdict"] == "unknown"
    assert run.result()["environment"]["file_limits"]["hard"] == 256


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"SIZE": "10"}, "loadtest: SIZE=10: a payload takes 49 to 1048576 bytes"),
        ({"SHAPE": "wave"}, "loadtest: SHAPE=wave: there are ramp, step, spike, soak"),
        ({"TIME": "soon"}, "loadtest: TIME=soon: write 30s, 5m or 1h30m"),
    ],
)
def test_an_impossible_option_is_one_line(server: Server, tmp_path: Path, variables: dict[str, str], why: str) -> None:
    with locust(tmp_path, *headless(server), **variables) as run:
        assert refused(run) == why


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_closes_its_books(server: Server, tmp_path: Path, number: int) -> None:
    """Ctrl-C on a terminal reaches the workers as well: they wait for the master."""
    with locust(tmp_path, *headless(server), "--processes", "2", USERS=10, RATE=50, TIME="60s") as run:
        progress = tmp_path / schema.PROGRESS_FILE
        wait_until(lambda: progress.exists() and '"delivered"' in progress.read_text(), within=30)
        (os.killpg if number == signal.SIGINT else os.kill)(run.process.pid, number)
        assert run.wait() == 2, run.output
    result = run.result()
    assert result["verdict"]["verdict"] == "unknown"
    assert result["verdict"]["reasons"][0] == "The run was stopped before its end."
    assert result["ledger"]["lost"] == 0
    assert result["ledger"]["expected"] == result["ledger"]["delivered"] > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_without_a_duration_is_judged_when_it_is_stopped(server: Server, tmp_path: Path, number: int) -> None:
    with locust(tmp_path, *headless(server), "--processes", "2", USERS=10, RATE=50, TIME="0") as run:
        progress = tmp_path / schema.PROGRESS_FILE
        wait_until(lambda: progress.exists() and '"delivered"' in progress.read_text(), within=30)
        (os.killpg if number == signal.SIGINT else os.kill)(run.process.pid, number)
        assert run.wait() == 0, run.output
    result = run.result()
    assert result["verdict"]["verdict"] == "pass", result["verdict"]
    assert result["plan"]["duration"] is None
    assert result["publications"]["attempted"] > 0.99 * result["publications"]["planned"] > 0
    assert result["ledger"]["expected"] == result["ledger"]["delivered"] > 0


def test_a_worker_that_dies_makes_the_run_unknown(server: Server, tmp_path: Path) -> None:
    """What its clients got is not known: the server's counters are no proof against anybody."""
    with locust(tmp_path, *headless(server), "--processes", "2", USERS=10, RATE=50, TIME="60s") as run:
        progress = tmp_path / schema.PROGRESS_FILE
        wait_until(lambda: progress.exists() and '"delivered"' in progress.read_text(), within=30)
        workers = psutil.Process(run.process.pid).children()
        assert len(workers) == 2
        workers[1].kill()
        assert run.wait() == 2, run.output
    result = run.result()
    assert result["verdict"]["verdict"] == "unknown", result["verdict"]
    assert result["verdict"]["reasons"][0].startswith("A generator process ended before the run did: ")


def test_the_web_page_has_the_ledger_and_the_latencies(server: Server, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    page = f"http://127.0.0.1:{port}"
    target = ["--url", server.websocket_url, "--metrics", f"{server.internal_url}/metrics"]
    with locust(tmp_path, "--web-host", "127.0.0.1", "--web-port", str(port), *target, USERS=8, RATE=50) as run:
        wait_until(lambda: _answers(page), within=30)
        for round_number in (1, 2):
            form = f"user_count={4 * round_number}&spawn_rate=100&host={server.websocket_url}"
            status, text = http(
                "POST", f"{page}/swarm", form.encode(), {"Content-Type": "application/x-www-form-urlencoded"}
            )
            assert (status, json.loads(text)["success"]) == (200, True)
            wait_until(
                lambda: int(_table(page, "stentor-ledger")["delivered"]["value"].replace(",", "")) > 0, within=30
            )
            assert float(_table(page, "stentor-latencies", "figure")["p99"]["delivery"]) > 0
            http("POST", f"{page}/stop", b"")
            ledger = wait_until(lambda: _finished(page), within=30)
            assert ledger["verdict"]["value"] == "pass", ledger
            assert ledger["lost"]["value"] == "0"
            wait_until(lambda n=round_number: len(list(tmp_path.glob("*/result.json"))) == n, within=30)
        run.process.send_signal(signal.SIGTERM)
        assert run.wait() == 0
    users = sorted(schema.read(path)["plan"]["users"] for path in tmp_path.glob("*/result.json"))
    assert users == [4, 8]


def _answers(page: str) -> bool:
    try:
        return http("GET", f"{page}/")[0] == 200
    except OSError:
        return False


def _table(page: str, key: str, by: str = "entry") -> dict[str, Any]:
    tables = json.loads(http("GET", f"{page}/stats/requests")[1])["extended_stats"]
    rows = next(table["data"] for table in tables if table["key"] == key)
    return {"delivered": {"value": "0"}} | {row[by]: row for row in rows}


def _finished(page: str) -> dict[str, Any] | None:
    ledger = _table(page, "stentor-ledger")
    return ledger if "verdict" in ledger else None
