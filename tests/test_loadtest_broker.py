"""What joins the nodes: what is asked for is checked, what is started is there and goes again."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtest import broker
from loadtest.broker import Broker, check, start_broker
from loadtest.options import BadOption
from loadtest.processes import CannotStart, Child, Interrupted
from tests.redis_server import binary


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ((2, "", ""), "NODES=2: nodes without a broker are islands; BROKER=redis starts one for them"),
        ((0, "", ""), "NODES=0: 1 or more are possible"),
        (
            (2, "", "ws://h"),
            "NODES= starts nodes, and URL= names what runs: name every node there, with spaces",
        ),
        ((1, "redis", "ws://h"), "BROKER= is for the server that is started, and URL= names one that runs"),
        ((2, "memory", ""), "BROKER=memory: redis starts one, and redis://host:port is one that runs"),
    ],
)
def test_what_makes_no_server_is_refused_in_one_line(asked: tuple[int, str, str], why: str) -> None:
    with pytest.raises(BadOption, match=f"^{re.escape(why)}$"):
        check(*asked)


@pytest.mark.parametrize("asked", [(1, "", ""), (1, "", "ws://h"), (1, "redis", ""), (3, "redis://h:1,redis://i", "")])
def test_what_makes_one_passes(asked: tuple[int, str, str]) -> None:
    check(*asked)


def begin(tmp_path: Path, wanted: str = "redis", heed: Any = lambda: None) -> Broker:
    return start_broker(tmp_path, wanted, cores=(), environment=dict(os.environ), heed=heed)


def test_a_redis_is_started_that_answers_and_keeps_nothing(tmp_path: Path) -> None:
    binary()
    started = begin(tmp_path)
    try:
        assert started.child is not None
        assert started.child.ended is None
        assert re.fullmatch(r"redis://127\.0\.0\.1:\d+/0", started.url)
        assert started.command[0] == "redis-server"
    finally:
        assert started.child is not None
        started.child.stop()
    assert started.child.ended is not None
    assert [path.name for path in tmp_path.iterdir()] == ["redis.log"]


def test_one_that_runs_is_taken_as_it_is(tmp_path: Path) -> None:
    assert begin(tmp_path, "redis://:pw@h:1/2") == Broker("redis://:pw@h:1/2")
    assert list(tmp_path.iterdir()) == []


def test_without_a_redis_the_way_to_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(CannotStart, match=r"redis-server is not installed .*apt install redis-server"):
        begin(tmp_path)


class StandIn:
    """Starts a program of the test in place of redis-server, and remembers it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
        self.children: list[Child] = []
        self._code = code
        monkeypatch.setattr("shutil.which", lambda name: "redis-server")
        monkeypatch.setattr(broker, "Child", self)

    def __call__(self, argv: list[str], log: Path, cores: Any, environment: dict[str, str]) -> Child:
        self.children.append(Child([sys.executable, "-c", self._code], log, cores, environment))
        return self.children[-1]

    def assert_all_gone(self, count: int) -> None:
        assert [child.ended is None for child in self.children] == [False] * count


@pytest.mark.parametrize(
    ("said", "tries"), [("Address already in use", 3), ("FATAL CONFIG FILE ERROR", 1)], ids=["port taken", "broken"]
)
def test_a_redis_that_does_not_start_is_told_and_a_port_that_was_taken_is_tried_again(
    said: str, tries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = StandIn(monkeypatch, f"print('{said}'); raise SystemExit(1)")
    with pytest.raises(CannotStart, match=f"redis-server did not start, exit code 1: {said}"):
        begin(tmp_path)
    stand_in.assert_all_gone(tries)


def test_a_redis_that_says_nothing_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "_STARTUP", 0.2)
    stand_in = StandIn(monkeypatch, "import time; time.sleep(60)")
    with pytest.raises(CannotStart, match="redis-server did not start, killed by"):
        begin(tmp_path)
    stand_in.assert_all_gone(1)


def test_whoever_stops_meanwhile_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = StandIn(monkeypatch, "import time; time.sleep(60)")

    def heed() -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        begin(tmp_path, heed=heed)
    stand_in.assert_all_gone(1)
