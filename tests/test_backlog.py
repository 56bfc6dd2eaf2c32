"""The sum of all queues, and its budget: the heaviest goes first, and no more than needed."""

from __future__ import annotations

import pytest

from server.core.backlog import Backlog
from server.core.counters import Counters, Drop
from server.core.outbox import Outbox
from tests.publications import batch, channel, outbox

ROOMY = channel(messages=100, size=10_000)


def laggards(budget: int, *sizes: int) -> tuple[Backlog, list[Outbox]]:
    """Make outboxes that hold these many bytes, under a budget; they fell behind in this order."""
    backlog = Backlog(Counters(), budget, lambda owner: None)
    boxes = []
    for number, size in enumerate(sizes):
        box, _, _ = outbox(backlog=backlog, owner=number)
        if size:
            box.offer(batch(b"x" * size, channel=ROOMY))
        backlog.laggards[box] = None
        boxes.append(box)
    return backlog, boxes


def evicted(backlog: Backlog) -> list[object]:
    evictions = backlog.take_evictions()
    assert all(why == "memory budget" for _, why in evictions)
    return [box.owner for box, _ in evictions]


@pytest.mark.parametrize(
    ("budget", "sizes", "gone"),
    [
        (60, (10, 20, 30), []),  # to the byte
        (59, (10, 20, 30), [2]),
        (59, (30, 20, 10), [0]),
        (30, (10, 20, 30), [2]),
        (29, (10, 20, 30), [2, 1]),
        (9, (10, 20, 30), [2, 1, 0]),
        (50, (20, 20, 20), [0]),  # of equals, who has lagged for the longest time
        (0, (1, 0, 1), [0, 2]),  # whoever holds nothing stays
    ],
)
def test_the_heaviest_go_until_the_rest_fits(budget: int, sizes: tuple[int, ...], gone: list[int]) -> None:
    backlog, boxes = laggards(budget, *sizes)
    assert backlog.bytes == sum(sizes)
    backlog.enforce_budget()
    assert evicted(backlog) == gone
    assert backlog.bytes == sum(size for number, size in enumerate(sizes) if number not in gone) <= budget
    assert [box.overflowed for box in boxes] == [number in gone for number in range(len(sizes))]
    assert backlog._counters.dropped[Drop.BUDGET] == len(gone)


def test_nobody_is_thrown_out_twice() -> None:
    backlog, boxes = laggards(10, 20, 5)
    backlog.enforce_budget()
    assert evicted(backlog) == [0]
    boxes[0].offer(batch(b"y" * 50, channel=ROOMY))
    assert backlog.bytes == 5
    boxes[1].offer(batch(b"y" * 50, channel=ROOMY))
    backlog.enforce_budget()
    assert evicted(backlog) == [1]
    assert backlog.bytes == 0


def test_a_client_that_was_thrown_out_is_offered_nothing_more() -> None:
    backlog, boxes = laggards(0, 20)
    backlog.enforce_budget()
    boxes[0].offer(batch(b"a", b"b"))
    assert (backlog.messages, backlog.bytes) == (0, 0)
    assert backlog._counters.dropped == {"queue_full": 0, "conflated": 0, "disconnected": 2, "budget": 1}


def test_evictions_are_handed_over_once() -> None:
    backlog, _ = laggards(0, 1)
    backlog.enforce_budget()
    assert len(backlog.take_evictions()) == 1
    assert backlog.take_evictions() == []


def test_an_observed_policy_names_the_client() -> None:
    named: list[object] = []
    backlog = Backlog(Counters(), 1 << 20, named.append)
    box, _, _ = outbox(backlog=backlog, owner="slow one")
    box.offer(batch(b"a", b"b", channel=channel(messages=1, enforce=False)))
    assert named == ["slow one"]
    assert backlog._counters.observed == 1


def test_what_is_gathered_for_those_who_keep_up_is_not_the_laggards_fault() -> None:
    backlog, _ = laggards(30, 10, 20)
    quick, _, _ = outbox(backlog=backlog)
    quick.gather(batch(b"z" * 1000, channel=ROOMY))
    backlog.enforce_budget()
    assert evicted(backlog) == []
    backlog.laggards[quick] = None
    backlog.enforce_budget()
    assert evicted(backlog) == ["client"]
    assert backlog.bytes == 30


def test_in_a_brownout_the_ceiling_is_lower_than_the_budget_and_comes_back() -> None:
    backlog, boxes = laggards(100, 40, 30, 20)
    assert backlog.fill == 0.9
    backlog.shed(spare=False, share=0.75)
    backlog.enforce_budget()
    assert evicted(backlog) == [0]
    assert backlog.bytes == 50
    backlog.shed(spare=False, share=1.0)
    boxes[1].offer(batch(b"y" * 50, channel=ROOMY))
    backlog.enforce_budget()
    assert (evicted(backlog), backlog.bytes) == ([], 100)
