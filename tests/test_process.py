"""What Prometheus is told of the process: the same as by the library, at a fraction of its cost."""

from __future__ import annotations

import os
import resource
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client import ProcessCollector as Theirs
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from server.admin.process import ProcessCollector


def said(collector: Collector) -> dict[str, tuple[str, str, float]]:
    families: list[Metric] = list(collector.collect())
    return {family.name: (family.type, family.documentation, family.samples[0].value) for family in families}


def test_it_is_what_the_library_says() -> None:
    registry = CollectorRegistry()
    ours, theirs = said(ProcessCollector()), said(Theirs(registry=registry))
    assert len(theirs) == 6
    assert ours.keys() == theirs.keys()
    for name, (kind, help_text, value) in theirs.items():
        assert ours[name][:2] == (kind, help_text)
        assert ours[name][2] == pytest.approx(value, rel=0.1, abs=2), name


def test_open_files_are_counted_as_they_come_and_go() -> None:
    collector = ProcessCollector()

    def count() -> float:
        return said(collector)["process_open_fds"][2]

    before = count()
    with ExitStack() as hold:
        for _ in range(100):
            hold.enter_context(socket.socket())
        assert count() == before + 100
    assert count() == before


def test_an_older_kernel_has_them_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = ProcessCollector()
    counted = said(collector)["process_open_fds"]
    sizeless = os.stat_result([0] * 10)
    monkeypatch.setattr(os, "stat", lambda path: sizeless)
    # The directory is open while it is listed.
    assert said(collector)["process_open_fds"][2] - counted[2] in (0, 1)


def test_what_is_not_to_be_had_is_left_out(tmp_path: Path) -> None:
    left = said(ProcessCollector(str(tmp_path)))
    assert left.keys() == {"process_cpu_seconds", "process_max_fds"}
    assert left["process_max_fds"][2] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
