from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from time import monotonic_ns

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.dialect import RawDialect
from loadtest.payload import SEQUENCE, STAMP, Stream
from loadtest.publishing import Publishers, Schedule, StreamSender
from tests.test_loadtest_swarm import Bench, turn

DIALECT = RawDialect("ws://127.0.0.1:1/ws/{channel}")


def payloads(wire: bytes, size: int = 64) -> list[bytes]:
    """The payloads of short masked frames."""
    found = []
    while wire:
        key, masked = wire[2:6], wire[6 : 6 + size]
        found.append(bytes(byte ^ key[index % 4] for index, byte in enumerate(masked)))
        wire = wire[6 + size :]
    return found


@settings(deadline=None)
@given(st.integers(0, 10**15), st.floats(0.01, 100_000), st.integers(0, 10**6))
def test_a_publication_is_due_from_its_intended_time_on(began: int, rate: float, number: int) -> None:
    schedule = Schedule(began, rate, None)
    intended = schedule.intended(number)
    assert abs(intended - began - Fraction(number) * 10**9 / Fraction(rate)) <= 1 + number * 1e-5
    assert schedule.due(intended - 1 - int(1e9 / rate)) <= number
    assert schedule.due(intended + 1 + int(1e9 / rate)) > number


def test_nothing_is_due_before_the_beginning_or_after_the_end() -> None:
    schedule = Schedule(1000, 10.0, 5)
    assert schedule.due(999) == 0
    assert schedule.due(1000) == 1
    assert schedule.due(10**12) == 5


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def sender(bench: Bench, number: int = 0) -> tuple[StreamSender, object]:
    connection, server = bench.connect()
    return StreamSender(Stream("ab12", 0, number, 64), "a", DIALECT, bench.swarm, connection), server


def test_publications_keep_the_time_they_were_intended_for(bench: Bench) -> None:
    """Everything is overdue: it goes out at once, in one write, and says when it should have gone."""
    publishers = Publishers(bench.swarm, 1)
    publishers.senders[0], server = sender(bench)
    began = monotonic_ns() - 10_000_000_000
    publishers.start(Schedule(began, 10.0, 20))
    turn(publishers.done)
    sent = payloads(server.recv(1 << 20))  # type: ignore[attr-defined]
    assert [int(payload[SEQUENCE]) for payload in sent] == list(range(1, 21))
    assert [int(payload[STAMP]) - began for payload in sent] == [number * 100_000_000 for number in range(20)]
    assert publishers.late_max >= 10_000_000_000
    assert (publishers.first, publishers.last) == (began, began + 1_900_000_000)
    assert bench.swarm.second.published == 20
    assert publishers.senders[0].attempted() == 20


def test_streams_take_turns_and_others_of_the_run_are_left_out(bench: Bench) -> None:
    publishers = Publishers(bench.swarm, 3)
    publishers.senders[0], first = sender(bench, 0)
    publishers.senders[2], third = sender(bench, 2)
    began = monotonic_ns() - 10_000_000_000
    publishers.start(Schedule(began, 10.0, 7))
    turn(publishers.done)
    stamps = [[(int(p[STAMP]) - began) // 100_000_000 for p in payloads(end.recv(1 << 20))] for end in (first, third)]  # type: ignore[attr-defined]
    assert stamps == [[0, 3, 6], [2, 5]]


def test_the_marker_carries_on_the_sequence_and_is_no_publication(bench: Bench) -> None:
    publishers = Publishers(bench.swarm, 1)
    publishers.senders[0], server = sender(bench)
    publishers.start(Schedule(monotonic_ns() - 10**9, 10.0, 3))
    turn(publishers.done)
    publishers.mark()
    assert publishers.is_settled()
    assert [p[16:28] for p in payloads(server.recv(1 << 20))] == [  # type: ignore[attr-defined]
        b"P 0000000001", b"P 0000000002", b"P 0000000003", b"M 0000000004",
    ]  # fmt: skip
    only = publishers.senders[0]
    assert (only.attempted(), only.queued, only.total()) == (3, 4, 4)


def test_what_the_kernel_did_not_take_was_not_attempted(bench: Bench) -> None:
    only, _ = sender(bench)
    only.send(list(range(20_000)))
    assert 0 < only.attempted() < 20_000
    assert only.attempted() + only.waiting() == 20_000
    only.send([1], marker=True)
    assert only.attempted() + only.waiting() == 20_001


def test_a_server_that_does_not_read_does_not_fill_the_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtest.publishing.MAX_WAITING_BYTES", 100_000)
    only, _ = sender(bench)
    given = sum(only.send(list(range(1000))) for _ in range(50))
    assert 1000 < given == only.queued < 50_000
    assert len(only.connection.outgoing) < 200_000


def test_ceasing_ends_an_endless_schedule(bench: Bench) -> None:
    publishers = Publishers(bench.swarm, 1)
    publishers.senders[0], _ = sender(bench)
    publishers.start(Schedule(monotonic_ns(), 1000.0, None))
    turn(lambda: publishers.senders[0].queued > 2)
    assert not publishers.done()
    publishers.cease()
    publishers.cease()
    count = publishers.senders[0].queued
    turn()
    assert publishers.done()
    assert publishers.senders[0].queued == count


def test_a_publisher_whose_connection_ended_gives_out_no_more(bench: Bench) -> None:
    only, server = sender(bench)
    assert only.send([1, 2]) == 2
    server.close()  # type: ignore[attr-defined]
    turn(lambda: only.connection.closed)
    assert only.send([3]) == 0
    assert (only.queued, only.total()) == (2, None)


def test_what_came_back_is_acknowledged(bench: Bench) -> None:
    only, server = sender(bench)
    only.send([1, 2, 3])
    for payload in payloads(server.recv(1 << 20))[:2]:  # type: ignore[attr-defined]
        server.sendall(b"\x81\x40" + payload)  # type: ignore[attr-defined]
    turn(lambda: only.acknowledged() == 2)
    assert only.acknowledged() == 2
