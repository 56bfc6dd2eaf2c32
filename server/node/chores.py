"""What a node does now and then, by the clock: what is forgotten, what is checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from server.node.node import POSITION_CHECK, SECOND_LOOK

PERIOD: Final = 1.0

Chore = Callable[[], object]


class Chores:
    """Calls each of `every_second` once a second, and looks after the positions; `call_later` is the event loop's."""

    def __init__(
        self,
        every_second: list[Chore],
        check_positions: Chore,
        check_suspects: Chore,
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._every_second = every_second
        self._check_positions = check_positions
        self._check_suspects = check_suspects
        self._call_later = call_later
        self._seconds = 0
        self._is_running = False

    def start(self) -> None:
        self._is_running = True
        self._call_later(PERIOD, self._turn)

    def stop(self) -> None:
        """Do nothing more. Idempotent."""
        self._is_running = False

    def _turn(self) -> None:
        if not self._is_running:
            return
        self._call_later(PERIOD, self._turn)
        self._seconds += 1
        for chore in self._every_second:
            chore()
        # Suspects first: whoever becomes one now is looked at again, and not at once.
        if self._seconds % SECOND_LOOK == 0:
            self._check_suspects()
        if self._seconds % POSITION_CHECK == 0:
            self._check_positions()
