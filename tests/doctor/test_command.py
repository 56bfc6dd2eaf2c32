"""`stentor doctor` as an operator sees it: what it prints, for people and programs, and the code that it ends with."""

from __future__ import annotations

import asyncio
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.__main__ import main
from server.commands.doctor import examine
from server.config.sources import load
from server.doctor import report as reports
from server.doctor.broker import OLDEST_CLUSTER, brokers, eviction, output_limit, places, version
from server.doctor.capacity import Bound
from server.doctor.finding import Finding, Verdict
from server.doctor.report import Report
from tests.doctor.kernels import MIB, make
from tests.redis_cluster import RedisNode, wait
from tests.redis_server import RedisServer


@pytest.fixture(autouse=True)
def _empty_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, and no variable, but those of the test."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("STENTOR_"):
            monkeypatch.delenv(name)


def report(root: Path, **options: str) -> Report:
    return examine(load(options, {}, root), root=root)


# On machines that are made up


def test_the_whole_report(tmp_path: Path) -> None:
    root = make(tmp_path, soft=1024, hard=4096)
    assert (
        report(root, max_connections="2000", trusted_proxies="10.0.0.1").text()
        == """\
check                   verdict   found
-------------------------------------------------------------------------------
open files              warning   soft 1,024, hard 4,096
      ulimit -n 4096 before the start, or LimitNOFILE=4096 in the systemd unit.
files of all processes  ok        1,000 of 2,000,000 in use
memory                  ok        4 GiB free; 326 MiB for the server, 12.4 KiB
                                  a client
processors              ok        4 for 1 worker
accept queue            ok        somaxconn 4,096, backlog 4,096
half-open connections   ok        2,048
local ports             ok        32768 to 60999: 28,232 for each pair of
                                  addresses
TCP memory              ok        468.8 MiB, at most 703.1 MiB: 9,000 clients
                                  that do not read
send buffer             ok        4 KiB, 16 KiB, at most 4 MiB
receive buffer          ok        4 KiB, 128 KiB, at most 6 MiB
fan-out                 ok        8.64 ms from the first to the last of all on
                                  one channel
pings                   ok        every 25 s, 10 s for the answer
access                  ok        same-origin, auth none

clients that fit
           960  by open files
       311,319  by memory
     1,998,936  by open files of all processes

960 clients fit, bound by open files. max_connections is 2,000 (command line):
it does not fit."""
    )


def test_what_was_asked_for_and_does_not_fit_is_a_failure(tmp_path: Path) -> None:
    root = make(tmp_path, soft=1024, hard=1024)
    assert report(root, max_connections="960").fits
    assert not report(root, max_connections="961").fits
    assert report(root, max_connections="500", workers="2").fits is not False
    assert "500 (command line) in each of 2 workers, 1,000 in all: it fits." in " ".join(
        report(root, max_connections="500", workers="2").text().split()
    )


def test_what_is_a_default_is_none(tmp_path: Path) -> None:
    root = make(tmp_path, {"proc/meminfo": "MemAvailable: 524288 kB\n"}, soft=1048576, hard=1048576)
    seen = report(root)
    assert (seen.fits, seen.wanted) == (True, 1048576 - 64)
    clients = seen.clients or 0
    assert 15000 < clients < 17000
    assert seen.verdict == (
        f"{clients:,} clients fit, bound by memory. max_connections is 1,048,512 (default), more than fit: "
        f"set it to {clients}."
    )


def test_a_small_container(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": f"{512 * MIB}\n",
        "sys/fs/cgroup/memory.current": "0\n",
        "sys/fs/cgroup/cpu.max": "50000 100000\n",
    }
    seen = report(make(tmp_path, files))
    found = {finding.check: finding for finding in seen.findings}
    assert seen.bounds[0].limit == "memory"
    assert "512 MiB free under the control group's limit" in found["memory"].value
    assert found["processors"].verdict == Verdict.WARNING


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    seen = report(tmp_path, max_connections="100000000")
    assert (seen.fits, seen.clients) == (True, None)
    assert seen.verdict == "No limit could be seen here: how many clients fit is not known."
    assert "not seen" in seen.text()


def test_the_report_is_never_wider_than_a_terminal() -> None:
    words = Finding("a check", "word " * 60, Verdict.WARNING, "advice " * 60)
    text = Report([words], [Bound("a limit", 10**12)], 10**12, 256, "environment STENTOR_MAX_CONNECTIONS", False).text()
    assert max(map(len, text.splitlines())) <= reports.WIDTH


def test_as_json(tmp_path: Path) -> None:
    said = json.loads(report(make(tmp_path, soft=1024, hard=1024), max_connections="2000").as_json())
    assert said["findings"][0] == {
        "check": "open files", "value": "soft 1,024, hard 1,024", "verdict": "ok", "advice": "",
    }  # fmt: skip
    assert said["limits"][0] == {"limit": "open files", "clients": 960}
    assert (said["clients"], said["binds_first"], said["fits"]) == (960, "open files", False)
    assert (said["max_connections"], said["workers"]) == (2000, 1)


# On this machine


@pytest.fixture
def _few_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("_few_files")
@pytest.mark.parametrize(
    ("options", "code"), [([], 0), (["--max-connections", "448"], 0), (["--max-connections", "449"], 1)]
)
def test_the_exit_code(options: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *options]) == code
    out, err = capsys.readouterr()
    assert "soft 512" in out
    assert ("it does not fit." in " ".join(out.split())) == bool(code)
    assert err == ""


def test_json_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "--pid", str(os.getpid())]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["fits"] is True
    assert said["clients"] == min(limit["clients"] for limit in said["limits"])


@pytest.mark.parametrize(
    ("options", "mistake"),
    [
        (["--pid", "x"], "pid = x (command line): must be the number of a process that runs"),
        (["--pid", "99999999"], "pid = 99999999 (command line): must be the number of a process that runs"),
        (["--port", "x"], "port = x (command line): must be a whole number from 0 to 65535"),
    ],
)
def test_a_wrong_line(options: list[str], mistake: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *options]) == 2
    assert capsys.readouterr() == ("", f"stentor: {mistake}\n")


# Redis


async def look(url: str, processes: int = 1) -> dict[str, Finding]:
    return {finding.check: finding async for finding in brokers(url, processes)}


async def test_a_redis_as_it_comes() -> None:
    with RedisServer() as redis:
        found = await look(redis.url)
    assert {finding.verdict for finding in found.values()} == {Verdict.OK}
    assert list(found) == ["redis", "redis clients", "redis memory", "redis output limit"]
    assert found["redis"].value.startswith(f"redis://127.0.0.1:{redis.port}/0, version ")
    assert found["redis output limit"].value == "pubsub: 32 MiB, or 8 MiB for 60 s"


async def test_a_redis_that_takes_no_writes() -> None:
    with RedisServer() as redis:
        redis.ask("REPLICAOF", "127.0.0.1", "1")
        found = await look(redis.url)
        redis.ask("CONFIG", "SET", "replica-read-only", "no")
        assert "redis role" not in await look(redis.url)
    assert [name for name, finding in found.items() if finding.verdict == Verdict.BAD] == ["redis role"]


async def test_a_redis_that_would_cut_us_off() -> None:
    options = ("--client-output-buffer-limit", "pubsub 1mb 512kb 10", "--maxclients", "20")
    with RedisServer(*options, "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru") as redis:
        found = await look(redis.url, processes=20)
    assert found["redis output limit"].verdict == Verdict.WARNING
    assert found["redis output limit"].value == "pubsub: 1 MiB, or 512 KiB for 10 s"
    assert found["redis memory"].verdict == Verdict.WARNING
    assert found["redis clients"].verdict == Verdict.BAD
    assert "opens 40 connections" in found["redis clients"].advice


async def test_a_redis_that_does_not_tell_everything() -> None:
    with RedisServer("--rename-command", "CONFIG", "") as redis:
        found = await look(redis.url)
    assert found["redis output limit"].verdict == Verdict.UNSEEN
    assert found["redis"].verdict == Verdict.OK


async def test_a_redis_that_refuses_us_hears_no_password_back() -> None:
    with RedisServer(password="right") as redis:
        assert (await look(f"redis://:right@127.0.0.1:{redis.port}/0"))["redis"].verdict == Verdict.OK
        refused = (await look(f"redis://:wr0ng@127.0.0.1:{redis.port}/0"))["redis"]
    assert refused.verdict == Verdict.BAD
    assert "It refuses us" in refused.advice
    assert "wr0ng" not in str(refused)


async def test_a_redis_that_is_not_there(unused_tcp_port: int) -> None:
    found = await look(f"redis://127.0.0.1:{unused_tcp_port}")
    assert list(found) == ["redis"]
    assert found["redis"].verdict == Verdict.BAD
    assert "It cannot be reached" in found["redis"].advice


async def test_a_redis_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.doctor.broker.PATIENCE", 0.1)

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as silent:
        found = await look(f"redis://127.0.0.1:{silent.sockets[0].getsockname()[1]}")
    assert found["redis"].advice == "It cannot be reached: no answer."


async def test_a_cluster_and_what_is_none() -> None:
    with RedisNode() as lonely, RedisServer() as redis:
        found = await look(f"redis+cluster://127.0.0.1:{lonely.port}")
        assert found["redis cluster"].advice == "It has no map: the cluster is down."
        found = await look(f"redis://127.0.0.1:{lonely.port}")
        assert found["redis cluster"].verdict == Verdict.WARNING
        assert "name it as redis+cluster://" in found["redis cluster"].advice
        found = await look(f"redis+cluster://127.0.0.1:{redis.port}")
        assert "cluster support disabled" in found["redis cluster"].advice
        lonely.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16000)
        lonely.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
        wait(lambda: lonely.facts("CLUSTER INFO")["cluster_state"] == "ok")
        found = await look(f"redis+cluster://127.0.0.1:{lonely.port}")
        assert found["redis cluster"].value == "16,001 of 16,384 slots, at 1 of 1 nodes"
        assert found["redis cluster"].verdict == Verdict.BAD


async def test_a_broker_that_is_none() -> None:
    assert (await look("redis://x/nine"))["broker"].verdict == Verdict.BAD


def test_an_old_redis() -> None:
    assert version("x", {"redis_version": "6.0.16"}).verdict == Verdict.BAD
    assert version("x", {"redis_version": "10.0.0"}).verdict == Verdict.OK
    assert version("x", {"redis_version": "6.2.14"}, OLDEST_CLUSTER).advice == "Redis 7.0 or newer is needed."
    assert version("x", {}).value == "x, version unknown"


def test_words_of_redis_that_are_not_there() -> None:
    assert places({}, 1).verdict == Verdict.UNSEEN
    assert eviction({}).verdict == Verdict.UNSEEN
    assert output_limit("normal 0 0 0").verdict == Verdict.UNSEEN
    assert output_limit("normal 0 0 0 pubsub 0 0 0").value == "pubsub: no limit, or no limit for 0 s"


def test_redis_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with RedisServer() as redis:
        assert main(["doctor", "--broker", redis.url]) == 0
    out, err = capsys.readouterr()
    assert "redis output limit" in out
    assert err == ""
