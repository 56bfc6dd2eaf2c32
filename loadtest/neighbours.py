"""What else the machine was busy with while a run published: other processes, and the hypervisor's other guests.

A latency on a busy machine is not the server's alone, and no figure of the server or of the generator shows why.
Laws: it only looks, from outside; what cannot be read is None. It does not judge.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import psutil  # type: ignore[import-untyped, unused-ignore]

#: Above this share of the machine a broken promise may be the neighbours' doing.
BUSY = 0.10


class Neighbours:
    """Compares what the whole machine did with what we did, from the first look to the last."""

    def __init__(self, ours: Iterable[int]) -> None:
        self._ours = tuple(ours)
        self._first: tuple[float, float, float] | None = None
        self._last: tuple[float, float, float] | None = None

    def look(self) -> None:
        """Read the clocks of the machine and of our processes."""
        try:
            times = psutil.cpu_times()
        except (OSError, psutil.Error):
            return  # a machine that hides them: then there is nothing to tell
        idle = times.idle + getattr(times, "iowait", 0.0)
        # `guest` is counted in `user` as well.
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        self._last = (total, total - idle, sum(map(_cpu_of, (*self._ours, os.getpid()))))
        self._first = self._first or self._last

    @property
    def share(self) -> float | None:
        """The part of the machine's CPU time that went to others, stolen time included; None if nobody looked twice."""
        if self._first is None or self._last is None or self._last[0] <= self._first[0]:
            return None
        total, busy, ours = (last - first for first, last in zip(self._first, self._last, strict=True))
        return min(1.0, max(0.0, (busy - ours) / total))


def _cpu_of(pid: int) -> float:
    """User and system time of a process and of all that it started, so far."""
    seconds = 0.0
    try:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            times = process.cpu_times()
            seconds += times.user + times.system
    except psutil.Error:
        pass  # it is gone, and what it used until now is lost: the share errs on the side of the neighbours
    return seconds
