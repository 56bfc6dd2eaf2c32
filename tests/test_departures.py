"""The flight recorders of all workers as one."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from server.admin.debug import PIECE
from server.supervisor.departures import Recorder, newest_first
from server.supervisor.worker_link import Unanswered, Worker


class Recorded:
    """A worker whose closes were at these times; after `answers` pieces it hangs."""

    def __init__(self, index: int, times: list[int], answers: int = 1000) -> None:
        self.index = index
        self.asked: list[int] = []
        self._times = times
        self._answers = answers

    async def ask(self, what: str, mark: int | None, most: int, within: float) -> Any:
        assert (what, within) == ("disconnects", 0.1)
        await asyncio.sleep(0)
        if len(self.asked) == self._answers:
            raise Unanswered("in time")
        self.asked.append(most)
        start = len(self._times) if mark is None else mark
        entries = [{"at": at} for at in self._times[:start][::-1][:most]]
        return start - len(entries), entries


async def told(workers: list[Recorded], most: int = 10_000) -> list[list[dict[str, Any]]]:
    recorders = [Recorder(cast(Worker, worker), 0.1) for worker in workers]
    return [piece async for piece in newest_first(recorders, most)]


def joined(pieces: list[list[dict[str, Any]]]) -> list[tuple[int, int]]:
    return [(entry["worker"], entry["at"]) for piece in pieces for entry in piece]


async def test_the_newest_come_first_wherever_they_were() -> None:
    assert joined(await told([Recorded(0, [1, 4, 6]), Recorded(1, [2, 3, 5])])) == [
        (0, 6), (1, 5), (0, 4), (1, 3), (1, 2), (0, 1),
    ]  # fmt: skip


async def test_long_ones_come_in_pieces_and_whole() -> None:
    even, odd = list(range(0, 4 * PIECE, 2)), list(range(1, 2 * PIECE, 2))
    pieces = await told([Recorded(0, even), Recorded(1, odd)])
    assert [at for _, at in joined(pieces)] == sorted(even + odd, reverse=True)
    assert max(map(len, pieces)) <= 2 * PIECE


@pytest.mark.parametrize("most", [0, 1, 7, PIECE, PIECE + 1])
async def test_no_more_is_asked_than_is_told(most: int) -> None:
    workers = [Recorded(index, list(range(index, 3 * PIECE, 2))) for index in (0, 1)]
    found = joined(await told(workers, most))
    assert [at for _, at in found] == list(range(3 * PIECE - 1, 3 * PIECE - 1 - most, -1))
    assert sum(sum(worker.asked) for worker in workers) <= 2 * most + PIECE


async def test_who_does_not_answer_is_passed_over() -> None:
    silent, hanging, well = Recorded(0, [9], 0), Recorded(1, list(range(1000)), 1), Recorded(2, [500])
    found = joined(await told([silent, hanging, well]))
    assert found[:2] == [(1, 999), (1, 998)]
    assert len(found) == PIECE + 1
    assert found[-1] == (2, 500)
    assert joined(await told([])) == []
