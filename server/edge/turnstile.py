"""The way in, a few at a time: who arrives or recovers does so within what one turn of the event loop can spare.

A handshake, a connect command, the recovery of what one missed: each costs more than anything else that a client asks.
When everyone comes back at once, hundreds of them are readable in one turn of the loop, and to answer them all in one
go would keep those who are here already waiting for as long.

Laws: who finds it free goes through at once; who waits goes in the order of coming; nobody is turned away.
It does not know what anyone does once inside.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

# Who may go through in one turn of the loop: some 2 ms of work, or a quarter of what a flush to 1,000 clients takes.
PER_TURN: Final = 4


class Turnstile:
    """See the module. `call_soon` runs what it is given in the next turn of the loop."""

    __slots__ = ("_call_soon", "_is_turning", "_passed", "_per_turn", "_waiting")

    def __init__(self, call_soon: Callable[[Callable[[], None]], object], per_turn: int = PER_TURN) -> None:
        self._call_soon = call_soon
        self._per_turn = per_turn
        self._passed = 0  # in this turn
        self._is_turning = False
        self._waiting: deque[Callable[[], None]] = deque()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def try_pass(self) -> bool:
        """Go through if there is nobody before and room in this turn; if not, false: `wait`."""
        if self._waiting or self._passed >= self._per_turn:
            return False
        self._passed += 1
        self._turn_soon()
        return True

    def wait(self, enter: Callable[[], None]) -> None:
        """Call `enter` in a later turn, after all who wait already."""
        self._waiting.append(enter)
        self._turn_soon()

    def _turn_soon(self) -> None:
        if not self._is_turning:
            self._is_turning = True
            self._call_soon(self._turn)

    def _turn(self) -> None:
        self._is_turning = False
        self._passed = 0
        while self._waiting and self._passed < self._per_turn:
            self._passed += 1
            self._turn_soon()
            self._waiting.popleft()()
