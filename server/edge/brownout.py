"""The brown-out at work: looks at the load ten times a second, and tells those concerned what to shed.

The steps are decided next door, in ``core.brownout``; here they become the gate's refusal, the hub's longer batches and
sparing policies, and a line of the log for each change. Law: what is shed is pushed into the state of gate and hub;
nothing is asked per delivery.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from server.core.brownout import EVICT_TO, Brownout, Step
from server.core.hub import Hub
from server.edge.gate import Gate

log = logging.getLogger("stentor.edge")

LOOK: Final = 0.1

_WORDS: Final[dict[Step, str]] = {
    Step.NORMAL: "over",
    Step.REFUSE: "newcomers are refused",
    Step.BATCH: "publications are gathered for longer",
    Step.CONFLATE: "laggards get the latest alone, or recover",
    Step.EVICT: "the heaviest laggards are thrown out",
}


class Shedding:
    """Watches over one process; `call_later` is the event loop's, times are in seconds of `clock`."""

    def __init__(
        self,
        hub: Hub,
        gate: Gate,
        *,
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._brownout = Brownout()
        self._hub = hub
        self._gate = gate
        self._clock = clock
        self._call_later = call_later
        self._due = 0.0
        self._is_running = False

    def start(self) -> None:
        self._is_running = True
        self._wait()

    def stop(self) -> None:
        """Look no more. Idempotent."""
        self._is_running = False

    def look(self, lag: float) -> None:
        """Look at the load, with the event loop late by `lag` seconds, and shed what it takes."""
        brownout = self._brownout
        before = brownout.step
        if brownout.look(lag, self._hub.backlog.fill, self._clock()):
            self._say(before)
        elif not brownout.step:
            return
        # Also when the step is the same: how late the loop is says for how long to gather.
        step = brownout.step
        self._gate.brownout = step
        self._hub.shed(
            batch_floor=brownout.batch_floor,
            spare=step >= Step.CONFLATE,
            share=EVICT_TO if step >= Step.EVICT else 1.0,
        )

    def _wait(self) -> None:
        self._due = self._clock() + LOOK
        self._call_later(LOOK, self._turn)

    def _turn(self) -> None:
        if not self._is_running:
            return
        lag = max(0.0, self._clock() - self._due)
        self._wait()
        self.look(lag)

    def _say(self, before: Step) -> None:
        brownout, backlog = self._brownout, self._hub.backlog
        log.warning(
            "brown-out %d -> %d: %s; event loop %.2f s late, queues at %.0f %% of node_queue_bytes, "
            "%d lagging, %d connected",
            before, brownout.step, _WORDS[brownout.step], brownout.lag, 100 * brownout.fill,
            len(backlog.laggards), self._gate.open,
        )  # fmt: skip
