"""What the supervisor knows of one worker, and what it makes of silence."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from server.brokers.link import Kind
from server.supervisor.worker_link import (
    HUNG_AFTER,
    SILENT_AFTER,
    STANDING_BY,
    START_WITHIN,
    State,
    Unanswered,
    Worker,
)


class FakeLink:
    is_open = True

    def __init__(self) -> None:
        self.said: list[tuple[Kind, list[Any]]] = []
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True

    def say(self, kind: Kind, fields: list[Any], body: bytes = b"") -> None:
        self.said.append((kind, fields))


def worker() -> tuple[Worker, FakeLink]:
    found, link = Worker(0, cast(Any, SimpleNamespace(pid=7)), 100.0), FakeLink()
    found.link = cast(Any, link)
    return found, link


async def test_an_answer_finds_its_question() -> None:
    asked, link = worker()
    first = asyncio.create_task(asked.ask("metrics", within=5))
    second = asyncio.create_task(asked.ask("slow", 1, "a", within=5))
    await asyncio.sleep(0)
    assert link.said == [(Kind.ASK, [1, "metrics", []]), (Kind.ASK, [2, "slow", [1, "a"]])]
    asked.answer([2, "", "slow ones"])
    asked.answer([1, "", None])
    assert (await first, await second) == (None, "slow ones")
    asked.answer([2, "", "too late"])


async def test_what_it_is_told_has_no_answer() -> None:
    told, link = worker()
    told.tell("api", "disconnect", {"user": "ann"})
    assert link.said == [(Kind.ASK, [0, "api", ["disconnect", {"user": "ann"}]])]
    told.answer([0, "", {}])
    told.end()
    told.tell("cut_short")
    assert len(link.said) == 1


async def test_who_does_not_answer_in_time_is_not_waited_for() -> None:
    asked, _ = worker()
    with pytest.raises(Unanswered, match="in time"):
        await asked.ask("metrics", within=0.01)
    asked.answer([1, "", "too late"])


async def test_a_fault_and_the_end_are_answers_too() -> None:
    asked, _ = worker()
    task = asyncio.create_task(asked.ask("listen", within=5))
    await asyncio.sleep(0)
    asked.answer([1, "Address already in use", None])
    with pytest.raises(Unanswered, match="Address already in use") as unanswered:
        await task
    assert unanswered.value.reason == "Address already in use"
    task = asyncio.create_task(asked.ask("listen", within=5))
    await asyncio.sleep(0)
    asked.end()
    with pytest.raises(Unanswered, match="gone"):
        await task
    with pytest.raises(Unanswered, match="not there"):
        await asked.ask("listen", within=5)


def test_silence_is_hanging_but_starting_takes_longer() -> None:
    asked, _ = worker()
    assert not asked.is_hung(100.0 + START_WITHIN)
    assert asked.is_hung(100.1 + START_WITHIN)
    assert not asked.is_silent(100.1 + START_WITHIN), "it has never been heard"
    asked.is_up = True
    assert not asked.is_hung(100.0 + HUNG_AFTER)
    assert asked.is_hung(100.1 + HUNG_AFTER)
    assert not asked.is_silent(100.0 + SILENT_AFTER)
    assert asked.is_silent(100.1 + SILENT_AFTER)
    asked.end()
    assert not asked.is_hung(1000.0)


def test_the_end_is_the_end_of_its_link_too() -> None:
    asked, link = worker()
    asked.end()
    asked.end()
    assert (link.is_closed, asked.link, asked.state) == (True, None, State.DEAD)


def test_it_has_a_name() -> None:
    asked, _ = worker()
    assert str(asked) == "worker 0"
    asked.index = STANDING_BY
    assert str(asked) == "the worker that stands by"
