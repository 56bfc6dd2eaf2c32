"""`make loadtest` from outside: a real server, a real Locust, real faults; and nothing left running, ever."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import psutil
import pytest

from loadtest import launch, line, measure, run
from loadtest.options import OPTIONS
from loadtest.processes import CannotStart, Child, Interrupts
from loadtest.report_tables import Surroundings
from loadtest.result import Result, append_progress, read, write
from tests.loadtest_samples import row, unmeasured
from tests.redis_server import RedisServer, binary

REPOSITORY = Path(__file__).resolve().parent.parent
WITHIN = 60.0


class Command:
    """`python -m loadtest.run` in a process of its own, whose output is read as it comes."""

    def __init__(self, results: Path, *arguments: str, files: int | None = None) -> None:
        command = [sys.executable, "-m", "loadtest.run", "--results", str(results), *arguments]
        if files:
            # The shell lowers the hard limit, which nothing in the child can raise again.
            command = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command]
        self.process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=line.without(os.environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # or what was read ahead would be lost to `communicate`
        )
        self.lines: list[str] = []
        self.family: list[psutil.Process] = []

    def until(self, there: Callable[[str], bool]) -> None:
        """Read lines until one is as wanted, and note who runs then."""
        assert self.process.stdout is not None
        for line_read in self.process.stdout:
            text = line_read.decode()
            self.lines.append(text)
            if there(text):
                self.family = psutil.Process(self.process.pid).children(recursive=True)
                return
        raise AssertionError(f"it ended first: {self.lines} {self.process.stderr and self.process.stderr.read()}")

    def member(self, module: str) -> psutil.Process:
        """The process that runs a module, of those that were there at the last look."""
        return next(each for each in self.family if module in each.cmdline())

    def end(self) -> tuple[int, str, str]:
        """Wait for the end; returns the exit code, all output and all errors, and sees that nobody is left."""
        out, errors = (text.decode() for text in self.process.communicate(timeout=WITHIN))
        left = [each for each in self.family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
        assert left == []
        assert "Traceback" not in out + errors
        return self.process.returncode, "".join(self.lines) + out, errors


@contextlib.contextmanager
def command(results: Path, *arguments: str, files: int | None = None) -> Iterator[Command]:
    """Run the command; whatever a test that fails leaves of it is ended."""
    started = Command(results, *arguments, files=files)
    try:
        yield started
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(started.process.pid).children(recursive=True)
            for each in (started.process, *family):
                with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                    each.kill()
        started.process.wait(WITHIN)
        for pipe in (started.process.stdout, started.process.stderr):
            assert pipe is not None
            pipe.close()


def only(results: Path) -> Path:
    """The directory of the one run."""
    (directory,) = results.iterdir()
    return directory


def result_in(results: Path) -> Result:
    return read(only(results) / "result.json")


def is_publishing(text: str) -> bool:
    return "publishing  " in text


def is_measuring(text: str) -> bool:
    return "publishing" in text and "p99" in text


@contextlib.contextmanager
def plain_web_server() -> Iterator[int]:
    """A server of the wrong kind: it answers every request with 404 and knows no WebSocket."""

    class Quiet(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.scenario
def test_a_run_leaves_a_verdict_a_report_and_nothing_else(tmp_path: Path) -> None:
    with command(tmp_path, "--subscribers=50", "--rate=20", "--publish-time=3s") as started:
        started.until(is_measuring)
        assert len(started.family) == 2
        code, out, errors = started.end()
    # On a machine that is too busy the run may prove nothing; it never fails, and code and verdict agree.
    made = result_in(tmp_path)
    verdict = made["verdict"]["verdict"]
    assert verdict != "fail", made["verdict"]
    assert (code, errors) == ({"pass": 0, "unknown": 2}[verdict], "")
    assert verdict.upper() in out
    assert made["ledger"]["expected"] == made["ledger"]["delivered"] == 61 * 51  # a marker, and the publisher itself
    assert made["ledger"]["server"]["agrees"]
    names = {path.name for path in only(tmp_path).iterdir()}
    assert {"report.html", "result.json", "run.json", "latency.hgrm", "server.log", "locust.html"} <= names
    assert {"locust_stats.csv", "locust_stats_history.csv", "locust_failures.csv"} <= names
    assert "make loadtest" in (only(tmp_path) / "report.html").read_text()
    around = json.loads((only(tmp_path) / "run.json").read_text())
    pinned = len(os.sched_getaffinity(0)) > 1
    assert bool(around["server_cores"]) == bool(around["generator_cores"]) == pinned
    assert not pinned or not set(around["server_cores"]) & set(around["generator_cores"])
    assert around["neighbours"] is not None


@pytest.mark.scenario
@pytest.mark.parametrize("dialect", ["raw", "centrifuge"])
def test_two_nodes_over_redis_deliver_what_the_other_was_told(dialect: str, tmp_path: Path) -> None:
    binary()
    load = ("--subscribers=40", "--rate=20", "--publish-time=3s", "--publishers=2", f"--dialect={dialect}")
    with command(tmp_path, "--nodes=2", "--broker=redis", *load) as started:
        started.until(is_measuring)
        assert len(started.family) == 4, "two nodes, Redis, Locust"
        code, out, errors = started.end()
    made = result_in(tmp_path)
    verdict = made["verdict"]["verdict"]
    assert verdict != "fail", made["verdict"]
    assert (code, errors) == ({"pass": 0, "unknown": 2}[verdict], "")
    one, two = made["nodes"]
    listeners = 20 + (dialect == "raw")  # where a publisher listens, too
    for node in (one, two):
        assert node["connections"] == 21
        assert node["published"] == 31, "each node was told the half, and a marker"
        assert node["expected"] == node["delivered"] == 62 * listeners, "and its clients heard all"
        account = node["server"]
        assert (account["mode"], account["agrees"], account["balanced"]) == ("equality", True, True)
        assert [process["pid"] for process in node["facts"]["processes"]] == node["facts"]["pids"]
    assert one["url"] != two["url"]
    assert made["ledger"]["delivered"] == one["delivered"] + two["delivered"]
    assert made["broker"] is not None
    assert made["broker"]["cpu_seconds"] is not None
    assert {"1", "2"} in [set(row["nodes_cpu"]) for row in made["timeline"]]
    assert "over 2 nodes joined by a Redis of their own" in out
    assert "node 2: delivered" in out
    assert {"node-1.log", "node-2.log", "redis.log"} <= {path.name for path in only(tmp_path).iterdir()}
    report = (only(tmp_path) / "report.html").read_text()
    assert "NODES=2 BROKER=redis" in report
    assert f"Redis (pid {made['broker']['pid']})" in report


@pytest.mark.scenario
def test_nodes_of_several_workers_share_a_redis_that_runs(tmp_path: Path) -> None:
    with RedisServer() as redis:
        load = ("--subscribers=40", "--publish-time=3s", "--workers=2")
        with command(tmp_path, "--nodes=2", f"--broker={redis.url}", *load) as started:
            started.until(is_publishing)
            code, _, errors = started.end()
        assert redis.ask("PING"), "it is not ours to stop"
    made = result_in(tmp_path)
    assert made["verdict"]["verdict"] != "fail", made["verdict"]
    assert errors == ""
    assert code in (0, 2)
    assert [node["delivered"] for node in made["nodes"]] == [61 * 21, 61 * 20]
    assert all(len(node["facts"]["pids"]) > 2 for node in made["nodes"])
    assert made["broker"] is None


@pytest.mark.scenario
@pytest.mark.parametrize(("victim", "name"), [("redis-server", "Redis"), ("--port", "Node 1")])
def test_a_part_of_a_cluster_that_dies_midway_makes_the_run_unknown(victim: str, name: str, tmp_path: Path) -> None:
    binary()
    with command(tmp_path, "--nodes=2", "--broker=redis", "--subscribers=20", "--publish-time=60s") as started:
        started.until(is_measuring)
        next(each for each in started.family if victim in " ".join(each.cmdline())).kill()
        code, out, _ = started.end()
    assert code == 2
    assert f"{name} died midway, killed by SIGKILL" in out
    assert result_in(tmp_path)["verdict"]["verdict"] == "unknown"


@pytest.mark.scenario
def test_ctrl_c_stops_nodes_and_redis_too(tmp_path: Path) -> None:
    binary()
    with command(tmp_path, "--nodes=2", "--broker=redis", "--subscribers=20", "--publish-time=60s") as started:
        started.until(is_measuring)
        assert len(started.family) == 4
        started.process.send_signal(signal.SIGINT)
        code, out, _ = started.end()
    assert (code, "UNKNOWN" in out) == (2, True)
    made = result_in(tmp_path)
    assert made["ledger"]["lost"] == 0
    assert made["ledger"]["server"]["agrees"]


@pytest.mark.scenario
def test_a_server_that_dies_midway_makes_the_run_unknown(tmp_path: Path) -> None:
    with command(tmp_path, "--subscribers=20", "--publish-time=60s") as started:
        started.until(is_measuring)
        started.member("server").kill()
        code, out, _ = started.end()
    assert code == 2
    assert "UNKNOWN  This run proves nothing: The server died midway, killed by SIGKILL." in out
    assert result_in(tmp_path)["verdict"]["reasons"][0] == "The server died midway, killed by SIGKILL."
    assert "The server died midway" in (only(tmp_path) / "report.html").read_text()


@pytest.mark.scenario
def test_a_locust_that_dies_midway_is_one_line(tmp_path: Path) -> None:
    with command(tmp_path, "--subscribers=20", "--publish-time=60s") as started:
        started.until(is_publishing)
        started.member("locust").kill()
        code, _, errors = started.end()
    assert (code, errors) == (2, "loadtest: Locust ended without a result, killed by SIGKILL\n")


@pytest.mark.scenario
def test_ctrl_c_ends_in_order_and_keeps_what_was_measured(tmp_path: Path) -> None:
    with command(tmp_path, "--subscribers=20", "--publish-time=60s") as started:
        started.until(is_measuring)
        started.process.send_signal(signal.SIGINT)
        code, out, _ = started.end()
    assert code == 2
    assert "UNKNOWN" in out
    made = result_in(tmp_path)
    assert 0 < made["publications"]["attempted"] < 600
    assert made["ledger"]["lost"] == 0
    assert (only(tmp_path) / "report.html").exists()


@pytest.mark.scenario
def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    with command(tmp_path, "--subscribers=20", "--publish-time=60s") as started:
        started.until(is_publishing)
        # A stopped Locust never closes its books: only the second signal ends this, which is of another kind because
        # two of one kind that are pending at once are one.
        started.member("locust").suspend()
        started.process.send_signal(signal.SIGINT)
        started.process.send_signal(signal.SIGTERM)
        code, _, errors = started.end()
    assert (code, errors) == (2, "loadtest: stopped\n")


@pytest.mark.scenario
def test_the_web_page_comes_up_and_goes_with_ctrl_c(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with command(tmp_path, "--ui", f"--web-port={port}", "--subscribers=20") as started:
        started.until(lambda text: "Locust: " in text)
        assert started.lines[-1] == f"Locust: http://127.0.0.1:{port}/\n"
        started.process.send_signal(signal.SIGINT)
        code, out, errors = started.end()
    assert (code, errors) == (0, "")
    assert "against ws://127.0.0.1:" in out


@pytest.mark.scenario
def test_an_unreachable_server_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert run.main(["--url", f"ws://127.0.0.1:{port}", "--results", str(tmp_path)]) == 2
    assert_one_line(capsys, f"ws://127.0.0.1:{port}", "cannot be reached: refused")


@pytest.mark.scenario
def test_a_server_of_the_wrong_kind_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with plain_web_server() as port:
        assert run.main(["--url", f"http://127.0.0.1:{port}", "--results", str(tmp_path)]) == 2
    assert_one_line(capsys, "refuses the WebSocket handshake: HTTP 404")


@pytest.mark.scenario
def test_a_port_that_is_taken_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run.main([f"--server-args=--port {port}", "--results", str(tmp_path)]) == 2
        assert_one_line(capsys, "the server did not start, exit code 2", "Address already in use")
        assert run.main(["--ui", "--web-port", str(port), "--results", str(tmp_path)]) == 2
        assert_one_line(capsys, f"port {port}: Address already in use; WEB_PORT= chooses another")


def assert_one_line(capsys: pytest.CaptureFixture[str], *words: str) -> None:
    """One line of error with these words; nothing of ours runs."""
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert said.startswith("loadtest: ")
    for word in words:
        assert word in said
    assert psutil.Process().children(recursive=True) == []


def test_too_few_file_descriptors_are_one_line(tmp_path: Path) -> None:
    with command(tmp_path, "--subscribers=500", files=300) as started:
        code, _, errors = started.end()
    assert code == 2
    need = "501 connections need 629 open files, and the limit is 300"
    assert errors == f"loadtest: {need}: raise it (ulimit -n 629) or ask for fewer\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shape", "triangle"], "SHAPE=triangle: there are ramp, step, spike, soak"),
        (["--rate", "fast"], "RATE=fast: a number is needed"),
        (["--per-client", "2"], "PER_CLIENT=2: 1 to 1 are possible"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--url", "ftp://x"], "ftp"),
        (["--nodes", "2"], "NODES=2: nodes without a broker are islands; BROKER=redis starts one for them"),
        (["--nodes", "2", "--url", "ws://x"], "URL= names what runs: name every node there"),
    ],
)
def test_bad_options_are_one_line_before_anything_starts(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main([*arguments, "--results", str(tmp_path)]) == 2
    assert_one_line(capsys, words)
    assert list(tmp_path.iterdir()) == []


class StandIns:
    """Children that stand in for a server or for Locust, and that are gone after the test."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.children: list[Child] = []

    def start(self, code: str, log: Path | None = None) -> Child:
        log = log or self._directory / f"log-{len(self.children)}"
        self.children.append(Child([sys.executable, "-u", "-c", code], log, (), dict(os.environ)))
        return self.children[-1]

    def instead(self, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
        """Let every child that is started run `code` instead of its command."""
        monkeypatch.setattr(launch, "Child", lambda argv, log, cores, environment: self.start(code, log))


@pytest.fixture
def stand_ins(tmp_path: Path) -> Iterator[StandIns]:
    made = StandIns(tmp_path)
    yield made
    for child in made.children:
        child.stop()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("print('stentor: no such option'); raise SystemExit(2)", "exit code 2: stentor: no such option"),
        ("import os; os.kill(os.getpid(), 9)", "the server did not start, killed by SIGKILL"),
        ("print('  websocket  ws://x/ws/{channel}')", "exit code 0"),
    ],
)
def test_a_server_that_does_not_start_is_said_and_ended(
    code: str, words: str, tmp_path: Path, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins.instead(monkeypatch, code)
    with pytest.raises(CannotStart, match=words):
        start_server(tmp_path)
    assert stand_ins.children[0].ended is not None


def test_a_server_that_says_nothing_is_not_waited_for_for_ever(
    tmp_path: Path, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins.instead(monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr(launch, "_STARTUP", 0.2)
    with pytest.raises(CannotStart, match=r"did not say within 0\.2 s where it listens"):
        start_server(tmp_path)
    assert stand_ins.children[0].ended is not None


def test_a_server_that_says_where_it_listens_is_used(
    tmp_path: Path, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "Stentor\\n  websocket  ws://h:1/ws/{channel}\\n  metrics  http://h:2/metrics"
    stand_ins.instead(monkeypatch, f"print('{said}'); import time; time.sleep(60)")
    server = start_server(tmp_path)
    assert (server.url, server.metrics) == ("ws://h:1/ws/{channel}", "http://h:2/metrics")
    assert server.command[-6:] == ["--message-rate", "0", "--workers", "2", "--a", "b c"]


def start_server(tmp_path: Path) -> launch.Server:
    return launch.start_server(
        tmp_path, workers=2, options="--a 'b c'", cores=(), environment=dict(os.environ), heed=lambda: None
    )


def options(**changes: object) -> Namespace:
    parsed = line.parse("it", "", [], (*OPTIONS, *line.RUN_OPTIONS), environment={})
    return Namespace(**{**vars(parsed), **changes})


def test_a_secret_reaches_locust_without_being_seen_in_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[str], dict[str, str]]] = []

    def child(argv: list[str], log: Path, cores: object, environment: dict[str, str]) -> None:
        seen.append((argv, environment))

    monkeypatch.setattr(launch, "Child", child)
    for port, own in ((None, True), (8089, False)):
        launch.start_locust(
            tmp_path,
            options(token="hush", rate=2.5),
            url="ws://h",
            metrics="http://m",
            server_pid="7",
            broker_pid=8,
            processes=2,
            cores=(),
            environment={},
            web_port=port,
            own_report=own,
        )
    (headless, environment), (page, _) = seen
    assert {
        "--url=ws://h",
        "--metrics=http://m",
        "--server-pid=7",
        "--broker-pid=8",
        "--rate=2.5",
        "--processes",
        "2",
    } <= set(headless)
    assert "hush" not in " ".join(headless)
    assert environment["TOKEN"] == "hush"
    assert environment["STENTOR_LOADTEST_DIR"] == str(tmp_path)
    assert {"--headless", "--csv", "--html"} <= set(headless)
    assert not {"--headless", "--csv", "--html"} & set(page)
    assert page[-1] == "8089"


@pytest.mark.parametrize(("here", "processes", "fits"), [(True, 4, False), (False, 1, False), (False, 4, True)])
def test_descriptors_are_counted_per_process(
    here: bool, processes: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch.resource, "getrlimit", lambda _: (1024, 1024))
    asked = measure.checked(options(subscribers=2000, stalled=50, slow=50))
    if fits:
        launch.room_for(asked, processes, server_here=here)
    else:
        with pytest.raises(CannotStart, match="2,101 connections need 2,229 open files, and the limit is 1,024"):
            launch.room_for(asked, processes, server_here=here)


def test_the_soft_limit_is_raised_as_far_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(launch.resource, "getrlimit", lambda _: (1024, 9000))
    monkeypatch.setattr(launch.resource, "setrlimit", lambda _, limits: raised.append(limits))
    launch.room_for(measure.checked(options(subscribers=5000)), 1, server_here=True)
    assert raised == [(9000, 9000)]


def test_a_nodes_share_of_the_descriptors_is_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.resource, "getrlimit", lambda _: (1200, 1200))
    asked = measure.checked(options(subscribers=2000))
    launch.room_for(asked, 2, server_here=True, nodes=2)
    with pytest.raises(CannotStart, match="2,001 connections need 2,129 open files"):
        launch.room_for(asked, 2, server_here=True)


def test_a_node_that_does_not_start_takes_the_others_with_it(
    tmp_path: Path, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "  websocket  ws://h:1/ws/{channel}\\n  metrics  http://127.0.0.1:9/metrics"
    first = f"print('{said}'); import time; time.sleep(60)"
    codes = [first, "print('no room'); raise SystemExit(2)"]
    monkeypatch.setattr(launch, "Child", lambda argv, log, *_: stand_ins.start(codes.pop(0), log))
    with pytest.raises(CannotStart, match="the server did not start, exit code 2: no room"):
        start_nodes(tmp_path, 2, broker="redis://h")
    assert [child.ended is None for child in stand_ins.children] == [False, False]


def test_nodes_that_do_not_reach_their_broker_are_said_and_ended(
    tmp_path: Path, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    environments: list[dict[str, str]] = []

    def child(argv: list[str], log: Path, cores: object, environment: dict[str, str]) -> Child:
        environments.append(environment)
        said = f"  websocket  ws://h:1/x\\n  metrics  http://127.0.0.1:{port}/metrics"
        return stand_ins.start(f"print('{said}'); import time; time.sleep(60)", log)

    monkeypatch.setattr(launch, "Child", child)
    monkeypatch.setattr(launch, "_JOINING", 0.2)
    with plain_web_server() as port, pytest.raises(CannotStart, match="a node is not in contact with its broker"):
        start_nodes(tmp_path, 2, broker="redis://:secret@h")
    assert [child.ended is None for child in stand_ins.children] == [False, False]
    assert [each["STENTOR_BROKER"] for each in environments] == ["redis://:secret@h"] * 2, "not for all to see"
    assert {path.name for path in tmp_path.glob("node-*")} == {"node-1.log", "node-2.log"}


def start_nodes(tmp_path: Path, count: int, broker: str) -> list[launch.Server]:
    return launch.start_nodes(
        tmp_path, count, workers=1, options="", broker=broker, cores=(), environment=dict(os.environ),
        heed=lambda: None,
    )  # fmt: skip


def follow(locust: Child, path: Path, **served: Child) -> tuple[str | None, list[str]]:
    """Follow a stand-in to its end; returns why it was cut short, and the phases that were shown."""
    shown: list[str] = []
    with Interrupts() as interrupts:
        why = measure.follow(locust, served, path, interrupts, lambda progress: shown.append(progress["phase"]))
    return why, shown


def test_progress_is_read_as_it_is_written_half_lines_and_all(tmp_path: Path, stand_ins: StandIns) -> None:
    """The second line comes in two halves; both lines are told once, and the last one although the writer is gone."""
    code = f"""
import time
with open({str(tmp_path / "progress.jsonl")!r}, "a", buffering=1) as file:
    file.write('{{"phase": "connecting"}}\\n{{"phase": "publi')
    file.flush()
    time.sleep(0.3)
    file.write('shing"}}\\n{{"phase": "done"}}\\n')
"""
    assert follow(stand_ins.start(code), tmp_path / "progress.jsonl") == (None, ["connecting", "publishing", "done"])


def test_a_generator_that_says_nothing_is_given_up(
    tmp_path: Path, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "_SILENCE", 0.2)
    locust = stand_ins.start("import time; time.sleep(60)")
    assert follow(locust, tmp_path / "none") == ("The load generator has said nothing for 0.2 s.", [])


def test_a_generator_that_will_not_end_is_given_up(
    tmp_path: Path, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is dead, Locust was asked to close its books, and does not."""
    monkeypatch.setattr(measure, "_GRACE", 0.2)
    dead = stand_ins.start("print('out of memory'); raise SystemExit(3)")
    assert dead.wait(WITHIN)
    locust = stand_ins.start("import signal,time; signal.signal(2, signal.SIG_IGN); print('up'); time.sleep(60)")
    deadline = time.monotonic() + WITHIN
    while "up" not in locust.log.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    why, _ = follow(locust, tmp_path / "none", Redis=dead)
    assert why == "Redis died midway, exit code 3: out of memory."


def test_a_run_cut_short_is_unknown_whatever_its_books_say(
    tmp_path: Path, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = unmeasured()
    made["verdict"] = {"verdict": "fail", "reasons": ["Seven were lost."], "notes": []}
    write(made, tmp_path)
    append_progress({"phase": "publishing", "elapsed": 1, "connected": 1, "asked": 1, "row": row(0)}, tmp_path)
    locust, around = stand_ins.start("pass"), cast(Surroundings, dict.fromkeys(AROUND))
    monkeypatch.setattr(measure, "start", lambda *_, **__: measure.Started([], None, locust, around))
    monkeypatch.setattr(measure, "follow", lambda *_: "The server died midway.")
    with Interrupts() as interrupts:
        result, _ = measure.measure(options(url="ws://x"), tmp_path, "it", interrupts, lambda _: None)
    assert result["verdict"]["verdict"] == "unknown"
    assert result["verdict"]["reasons"] == ["The server died midway.", "Seven were lost."]
    assert read(tmp_path / "result.json") == result


AROUND = ("command", "server_command", "server_cores", "generator_cores", "shared_core", "neighbours")


def test_every_run_has_a_directory_of_its_own(tmp_path: Path) -> None:
    made = [run.fresh(tmp_path, "scaling-") for _ in range(1)]
    for _ in range(3):
        made[-1].mkdir()
        made.append(run.fresh(tmp_path, "scaling-"))
    assert len(set(made)) == 4
    assert all(path.parent == tmp_path and path.name.startswith("scaling-2") for path in made)


def test_the_plan_is_said_in_one_sentence() -> None:
    assert run.plan(options(nodes=2, broker="redis://:pw@h:1")) == (
        "Stentor load test: 100 subscribers, 10 publications/s of 128 bytes on 1 channel for 10s, "
        "over 2 nodes joined by redis://:***@h:1"
    )
    assert run.plan(options(subscribers=2000, rate=50.0, stalled=50, flapping=5.0, url="ws://x")) == (
        "Stentor load test: 2,000 subscribers, 50 publications/s of 128 bytes on 1 channel for 10s, "
        "beside 50 stalled, 5 reconnects/s, against ws://x"
    )
