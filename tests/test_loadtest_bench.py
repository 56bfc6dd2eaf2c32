from __future__ import annotations

import os

import psutil
import pytest

from loadtest import bench


@pytest.mark.parametrize("shared", [True, False])
def test_messages_are_received_and_checked_and_nothing_is_left_behind(shared: bool) -> None:
    """Not how fast: only that something was received, and nothing wrong."""
    cores, before = os.sched_getaffinity(0), psutil.Process().children()
    measured = bench.receive("a few", 10, 5, 0.05, shared=shared)
    assert measured.per_second > 0
    assert measured.per_cpu_second > 0
    assert psutil.Process().children() == before
    assert os.sched_getaffinity(0) == cores


def test_connections_are_opened_and_held() -> None:
    before = psutil.Process().children()
    assert bench.connect(50).held == 50
    assert psutil.Process().children() == before


def test_the_table_says_what_was_measured() -> None:
    reception = bench.Reception("one message per read", 500, 1, 131_000.4, 150_000, 87.3)
    lines = list(bench.table([reception], bench.Connects(10_000, 1_500, 3_000)))
    assert " ".join(lines[1].split()) == "one message per read 131,000 /s 150,000 per CPU second (87 % CPU)"
    assert lines[2].split()[:6] == ["10,000", "connections", "opened", "and", "held", "1,500"]
