"""Whether the generator itself is the bottleneck: its CPU, its event loop's lag, its file limits.

Laws: CPU is that of this process, in per cent of one core. Lag is how much later than asked a timer of
the same loop fired; a message that waits in the kernel meanwhile is measured late by as much. It does not judge.
"""

from __future__ import annotations

import os
import platform
import resource
import socket
import sys
from importlib.metadata import version
from time import monotonic_ns, process_time_ns
from typing import Any

import gevent

from loadtest.histogram import Histogram
from loadtest.result import Environment, FileLimits

TICK = 0.02
_LEAST = 200_000_000  # ns: over less than this a share of CPU says nothing, and the one before stands


class Watch:
    """Samples this process."""

    def __init__(self) -> None:
        self.lags = Histogram()  # since the last reset, ns
        self._worst = 0
        self._last = 0
        self._timer: Any = None
        self._since = (0, 0)
        self._share = 0.0

    def begin(self) -> None:
        """Start to sample. Idempotent."""
        if self._timer is None:
            self._last = monotonic_ns()
            self._since = (self._last, process_time_ns())
            self._timer = gevent.get_hub().loop.timer(TICK, TICK)
            self._timer.start(self._tick)

    def reset(self) -> None:
        """Forget what was sampled: the part of the run that counts begins now."""
        self.lags = Histogram()
        self._worst, self._last = 0, monotonic_ns()
        self._since = (self._last, process_time_ns())

    def _tick(self) -> None:
        now = monotonic_ns()
        lag = max(now - self._last - int(TICK * 1e9), 0)
        self._last = now
        # Whoever asked at any moment of a long stall would have waited: all of those count, not the stall as one.
        for waited in range(lag, -1, -int(TICK * 1e9)):
            self.lags.record(waited)
        self._worst = max(self._worst, lag)

    def take(self) -> tuple[float, float]:
        """The CPU in per cent of a core, and the worst lag in ms, since the last call (or reset)."""
        now, cpu = monotonic_ns(), process_time_ns()
        then, before = self._since
        if now - then >= _LEAST:
            self._share = 100 * (cpu - before) / (now - then)
            self._since = (now, cpu)
        # A loop that hangs right now has not had its timer fire: what it is late by already counts.
        worst = max(self._worst, now - self._last - int(TICK * 1e9), 0)
        self._worst = 0
        return self._share, worst / 1e6

    def stop(self) -> None:
        """Stop sampling. Idempotent."""
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None


def raise_file_limit() -> tuple[int, int]:
    """Raise the soft limit on open files to the hard one; both, afterwards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)


def file_limits() -> FileLimits:
    """RLIMIT_NOFILE of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {"soft": soft, "hard": hard}


def boot_id() -> str:
    """What tells two machines, and so two monotonic clocks, apart."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return f"{socket.gethostname()} {platform.node()}"


def environment() -> Environment:
    """The machine and the libraries."""
    return {
        "hostname": socket.gethostname(),
        "kernel": f"{platform.system()} {platform.release()}",
        "cpu_model": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "cpus_total": os.cpu_count() or 1,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": sys.version.split()[0],
        "locust": version("locust"),
        "gevent": version("gevent"),
        "websockets": version("websockets"),
        "file_limits": file_limits(),
    }


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.lower().startswith(("model name", "hardware")):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux: the architecture will have to do
    return platform.processor() or platform.machine()
