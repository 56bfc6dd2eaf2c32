"""The flight recorders of all workers as one: the newest closes first, wherever they were.

Laws: no more is asked of a worker than is told of it, in pieces that keep nobody's loop; a worker that does not answer
in time is passed over, with what it has left to tell.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

from server.admin.debug import PIECE
from server.supervisor.worker_link import Unanswered, Worker

Entry = dict[str, Any]


class Recorder:
    """The flight recorder of one worker, read from its newest close on; each piece `within` so many seconds."""

    def __init__(self, worker: Worker, within: float) -> None:
        self._worker = worker
        self._within = within
        self._mark: int | None = None
        self._read: deque[Entry] = deque()

    @property
    def newest(self) -> float:
        """When the next close was, in Unix time; minus infinity when there is none."""
        return self._read[0]["at"] if self._read else float("-inf")

    @property
    def is_read(self) -> bool:
        """Tell if nothing is left of what has been read of it."""
        return not self._read

    async def read(self, most: int) -> None:
        """Read on, `most` entries or fewer."""
        try:
            self._mark, entries = await self._worker.ask("disconnects", self._mark, most, within=self._within)
        except Unanswered:
            return
        self._read += entries

    def take(self) -> Entry:
        """Take the next close."""
        return {"worker": self._worker.index, **self._read.popleft()}


async def newest_first(recorders: Sequence[Recorder], most: int) -> AsyncIterator[list[Entry]]:
    """Yield the newest `most` closes of all recorders, in pieces."""
    await asyncio.gather(*(recorder.read(min(most, PIECE)) for recorder in recorders))
    piece: list[Entry] = []
    open_ones = [recorder for recorder in recorders if not recorder.is_read]
    while most and open_ones:
        recorder = max(open_ones, key=lambda each: each.newest)
        piece.append(recorder.take())
        most -= 1
        if recorder.is_read and most:
            yield piece
            piece = []
            await recorder.read(min(most, PIECE))
            if recorder.is_read:
                open_ones.remove(recorder)
    yield piece
