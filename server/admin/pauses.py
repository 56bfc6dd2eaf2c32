"""The pauses of the garbage collector: nothing else happens in the process meanwhile.

The collector calls back at both ends of each run, and runs of it do not nest (`gc.callbacks` in Python's library
reference). It is the process's own: so is what watches it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping

from server.core.counters import Histogram


class CollectorPauses:
    """Observes each run of the garbage collector in `observed`, in seconds of `clock`, from `start` to `stop`."""

    def __init__(self, observed: Histogram, clock: Callable[[], float] = time.perf_counter) -> None:
        self.observed = observed
        self._clock = clock
        self._began: float | None = None  # None: the run that ends now was under way when the watch began

    def start(self) -> None:
        """Watch. Idempotent."""
        if self._note not in gc.callbacks:
            gc.callbacks.append(self._note)

    def stop(self) -> None:
        """Watch no more. Idempotent."""
        if self._note in gc.callbacks:
            gc.callbacks.remove(self._note)

    def _note(self, phase: str, facts: Mapping[str, int]) -> None:
        if phase == "start":
            self._began = self._clock()
        elif self._began is not None:
            self.observed.observe(self._clock() - self._began)
            self._began = None
