"""The flight recorder: the newest closes, newest first."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from server.edge.recorder import CAPACITY, Departure, Recorder


def departure(code: int) -> Departure:
    return Departure(
        at=0.0,
        address="192.0.2.1",
        client="4eea37c4-1",
        dialect="raw",
        channel="main",
        code=code,
        reason="",
        queue_messages=0,
        queue_bytes=0,
        queue_age=0.0,
        connected=1.0,
        rtt=0.0,
        loop_lag=0.0,
    )


def test_the_newest_come_first_and_the_oldest_are_forgotten() -> None:
    recorder = Recorder(3)
    for code in range(5):
        recorder.record(departure(code))
    assert [entry.code for entry in recorder] == [4, 3, 2]
    assert len(recorder) == 3


def test_it_keeps_ten_thousand() -> None:
    recorder = Recorder()
    entry = departure(1000)
    for _ in range(CAPACITY + 1):
        recorder.record(entry)
    assert len(recorder) == CAPACITY == 10_000


def test_it_can_be_read_in_pieces_while_more_is_recorded() -> None:
    recorder = Recorder(6)
    for code in range(6):
        recorder.record(departure(code))
    mark, read = recorder.total, []
    while piece := recorder.before(mark, 2):
        assert len(piece) == 2
        read += [entry.code for entry in piece]
        mark -= len(piece)
        recorder.record(departure(100 + len(read)))
    # The oldest was forgotten meanwhile, and nothing was read twice.
    assert read == [5, 4, 3, 2]
    assert recorder.before(recorder.total + 1, 2) == []
    assert recorder.before(recorder.total, 0) == []


def test_what_is_recorded_stays_as_it_was() -> None:
    entry = departure(1000)
    with pytest.raises(FrozenInstanceError):
        entry.code = 1  # type: ignore[misc]
