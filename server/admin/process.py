"""What every program tells Prometheus of its process: CPU, memory, files.

The names and their meaning are those that all client libraries share. The Python library's own collector is not used:
to count the open files it lists them, which with 10,000 clients keeps the event loop for 10 ms and more. Linux says
the number since 6.2, as the size of the directory; before that they are listed here, too.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_PAGE: Final = resource.getpagesize()
_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")


class ProcessCollector(Collector):
    """Reads this process's entry under `proc`; what is not to be had there is left out."""

    def __init__(self, proc: str = "/proc") -> None:
        self._own = f"{proc}/self"
        self._started = self._start_time(proc)

    def collect(self) -> Iterator[Metric]:
        times = os.times()
        cpu = times.user + times.system
        yield CounterMetricFamily("process_cpu_seconds", "Total user and system CPU time spent in seconds.", value=cpu)
        limit = float(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        for name, help_text, value in (
            ("process_virtual_memory_bytes", "Virtual memory size in bytes.", self._pages(0)),
            ("process_resident_memory_bytes", "Resident memory size in bytes.", self._pages(1)),
            ("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", self._started),
            ("process_open_fds", "Number of open file descriptors.", self._open_files()),
            ("process_max_fds", "Maximum number of open file descriptors.", limit),
        ):
            if value is not None:
                yield GaugeMetricFamily(name, help_text, value=value)

    def _pages(self, field: int) -> float | None:
        try:
            with open(f"{self._own}/statm", "rb") as statm:
                return float(statm.read().split()[field]) * _PAGE
        except OSError:
            return None

    def _open_files(self) -> float | None:
        folder = f"{self._own}/fd"
        try:
            return float(os.stat(folder).st_size or len(os.listdir(folder)))
        except OSError:
            return None

    def _start_time(self, proc: str) -> float | None:
        """Add up when the machine was started and how long after that we were; it never changes."""
        try:
            with open(f"{proc}/stat", "rb") as stat:
                booted = next(float(line.split()[1]) for line in stat if line.startswith(b"btime "))
            with open(f"{self._own}/stat", "rb") as stat:
                # The name of the program, in brackets, may hold anything.
                return booted + float(stat.read().rsplit(b")", 1)[1].split()[19]) * _TICK
        except (OSError, StopIteration):
            return None
