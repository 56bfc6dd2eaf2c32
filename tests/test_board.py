"""The internal port of many workers: what it says of them, and that it waits for none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.edge.recorder import CAPACITY
from server.supervisor.board import Board
from server.supervisor.tally import Tally
from server.supervisor.worker_link import State, Unanswered, Worker
from tests.fakes import Clock
from tests.test_view import look


class Asked(Worker):
    """A worker with its answers; None for what it never answers."""

    def __init__(self, index: int, pid: int, **answers: Any) -> None:
        super().__init__(index, cast(Any, SimpleNamespace(pid=pid)), 0.0)
        self.state, self.connections = State.READY, 10 * pid
        self.answers = answers

    async def ask(self, what: str, *arguments: Any, within: float) -> Any:
        if self.answers.get(what) is None:
            await asyncio.sleep(within)
            raise Unanswered("in time")
        if what == "disconnects":
            mark, most = arguments
            start = 0 if mark is None else mark
            piece = self.answers[what][start : start + most]
            return start + len(piece), piece
        return self.answers[what]


def sent(count: float) -> list[Any]:
    return [["stentor_messages_sent", "counter", "Sent.", [["stentor_messages_sent_total", {}, count]]]]


class Office:
    def __init__(self) -> None:
        self.crew = SimpleNamespace(
            workers={}, retiring=set(), restarts=3, restarts_of={0: 3, 1: 0}, ready=[], serving=[], is_stopping=False
        )
        self.tally = Tally()
        self.broker_is_up = True
        self.broker_trouble = ""
        self.published = 0
        self.board = Board(
            cast(Any, self.crew),
            self.tally,
            is_draining=lambda: self.crew.is_stopping,
            broker_is_up=lambda: self.broker_is_up,
            published=lambda: self.published,
            routes=[],
            broker_trouble=lambda: self.broker_trouble,
        )
        self.session: aiohttp.ClientSession

    def hire(self, *workers: Asked, retiring: Asked | None = None) -> None:
        self.crew.workers = {worker.index: worker for worker in workers}
        self.crew.retiring = {retiring} if retiring else set()
        self.crew.serving = [*workers, *self.crew.retiring]
        self.crew.ready = [worker for worker in workers if worker.state is State.READY]

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        async with self.session.get(path, headers=headers) as answer:
            is_json = answer.content_type == "application/json"
            return answer.status, await answer.json() if is_json else await answer.text()

    async def metrics(self) -> dict[tuple[str, str], float]:
        _, text = await self.get("/metrics")
        return {
            (sample.name, sample.labels["worker"]): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    office = Office()
    port = await office.board.listen("127.0.0.1", 0)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as office.session:
        yield office
    await office.board.stop()
    await office.board.stop()


async def test_it_is_ready_when_a_worker_is(office: Office) -> None:
    status, answer = await office.get("/readyz")
    assert (status, answer["status"], answer["workers"]) == (503, "not listening", [])
    office.hire(Asked(1, 2), Asked(0, 1))
    status, answer = await office.get("/readyz")
    assert (status, answer["status"], answer["connections"], answer["restarts"]) == (200, "ready", 30, 3)
    assert [(each["index"], each["pid"], each["state"]) for each in answer["workers"]] == [
        (0, 1, "ready"),
        (1, 2, "ready"),
    ]
    office.crew.is_stopping = True
    assert (await office.get("/readyz"))[0] == 503


async def test_a_silent_worker_is_shown_as_such(office: Office) -> None:
    silent, well = Asked(0, 1), Asked(1, 2)
    silent.is_up = True  # and was heard when the machine started
    office.hire(silent, well)
    status, answer = await office.get("/readyz")
    assert (status, [each["state"] for each in answer["workers"]]) == (200, ["silent", "ready"])
    office.hire(silent)
    assert (await office.get("/readyz"))[0] == 503


async def test_one_scrape_has_all_and_waits_for_nobody(office: Office) -> None:
    office.hire(Asked(0, 1, metrics=sent(5)), Asked(1, 2), retiring=Asked(0, 3, metrics=sent(100)))
    found = await office.metrics()
    assert found["stentor_messages_sent_total", "0"] == 105
    assert (found["stentor_worker_up", "0"], found["stentor_worker_up", "1"]) == (1, 0)
    assert any(worker == "supervisor" for _, worker in found)
    restarts = {worker: value for (name, worker), value in found.items() if name == "stentor_worker_restarts_total"}
    assert restarts == {"0": 3, "1": 0}, "of their places, not of the supervisor; from the start"


async def test_a_worker_that_is_late_but_alive_is_shown_by_what_it_said_last(office: Office) -> None:
    late = Asked(0, 1, metrics=sent(5))
    late.is_up, late.heard_at = True, float("inf")
    office.hire(late)
    await office.metrics()
    late.answers["metrics"] = None
    found = await office.metrics()
    assert (found["stentor_worker_up", "0"], found["stentor_messages_sent_total", "0"]) == (1, 5)
    late.heard_at = 0.0
    found = await office.metrics()
    assert (found["stentor_worker_up", "0"], found["stentor_messages_sent_total", "0"]) == (0, 5)


async def test_an_answer_that_is_late_for_one_scrape_is_in_time_for_the_next(office: Office) -> None:
    late, come = Asked(0, 1), asyncio.Event()
    late.is_up, late.heard_at = True, float("inf")

    async def ask(what: str, *arguments: Any, within: float) -> Any:
        await come.wait()
        return sent(7)

    late.ask = ask  # type: ignore[method-assign]
    office.hire(late)
    assert ("stentor_messages_sent_total", "0") not in await office.metrics()
    come.set()
    await asyncio.sleep(0)
    found = await office.metrics()
    assert (found["stentor_worker_up", "0"], found["stentor_messages_sent_total", "0"]) == (1, 7)


async def test_what_a_worker_said_is_settled_when_it_has_ended(office: Office) -> None:
    dying = Asked(0, 1, metrics=sent(5))
    office.hire(dying)
    await office.metrics()
    office.tally.bury(0, 1)
    dying.state = State.DEAD
    assert (await office.metrics())["stentor_messages_sent_total", "0"] == 5


async def test_the_slowest_and_the_latest_of_all(office: Office) -> None:
    office.hire(
        Asked(0, 1, slow=[{"queue_bytes": 5}], disconnects=[{"at": 3.0}, {"at": 1.0}]),
        Asked(1, 2, slow=[{"queue_bytes": 9}], disconnects=[{"at": 2.0}]),
        Asked(2, 3),
    )
    _, slow = await office.get("/debug/slow")
    assert slow == {"clients": [{"worker": 1, "queue_bytes": 9}, {"worker": 0, "queue_bytes": 5}]}
    _, left = await office.get("/debug/disconnects")
    assert [entry["at"] for entry in left["disconnects"]] == [3.0, 2.0, 1.0]
    _, left = await office.get("/debug/disconnects?limit=1")
    assert left == {"disconnects": [{"worker": 0, "at": 3.0}]}
    assert (await office.get("/debug/disconnects?limit=many"))[0] == 400


async def test_the_flight_recorder_of_all_is_bounded_as_that_of_one(office: Office) -> None:
    office.hire(
        Asked(0, 1, disconnects=[{"at": float(at)} for at in range(30_000, 10_000, -2)]),
        Asked(1, 2, disconnects=[{"at": float(at)} for at in range(30_001, 10_001, -2)]),
        Asked(2, 3),
    )
    for query in ("", "?limit=999999999"):
        _, said = await office.get("/debug/disconnects" + query)
        entries = said["disconnects"]
        assert len(entries) == CAPACITY
        assert [entry["at"] for entry in entries] == [float(at) for at in range(30_001, 20_001, -1)]
        assert [entry["worker"] for entry in entries[:4]] == [1, 0, 1, 0]


async def test_it_lives_and_says_what_it_has(office: Office) -> None:
    assert await office.get("/healthz") == (200, "ok\n")
    assert "/readyz" in (await office.get("/"))[1]


async def test_without_its_broker_it_is_not_ready(office: Office) -> None:
    office.hire(Asked(0, 10))
    office.crew.ready[0].heard_at = float("inf")
    assert (await office.get("/readyz"))[0] == 200
    office.broker_is_up = False
    status, said = await office.get("/readyz")
    assert (status, said["status"]) == (503, "degraded")
    assert "reason" not in said
    office.broker_trouble = "redis://h:6379/0: it refuses what is written: OOM"
    assert (await office.get("/readyz"))[1]["reason"] == office.broker_trouble


async def test_it_is_ready_when_every_worker_that_is_heard_of_has_the_broker(office: Office) -> None:
    first, second = Asked(0, 1), Asked(1, 2)
    office.hire(first, second)
    first.broker_is_up = False
    status, said = await office.get("/readyz")
    assert (status, said["status"]) == (503, "degraded")
    assert [worker["broker_up"] for worker in said["workers"]] == [False, True]
    assert said["reason"] == "without the broker, for its log to say why: worker 0"
    first.is_up = True  # and fell silent long ago: what it said last is nothing to go by
    assert (await office.get("/readyz"))[0] == 200


async def test_the_operator_sees_what_the_server_api_publishes(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(1000.0)
    monkeypatch.setattr("server.supervisor.board.time", SimpleNamespace(monotonic=clock))
    office.hire(Asked(0, 1, look=look(rates={"published": 2.0, "sent": 9.0})))

    async def rate() -> float:
        view = await office.board._look()
        return float(view["rates"]["published"])

    office.published = 100
    assert await rate() == 2.0, "at the first look nothing is known"
    clock.advance(2.0)
    office.published = 110
    assert await rate() == 7.0
    clock.advance(60.0)
    office.published = 10_000
    assert await rate() == 2.0, "nobody has looked for a while"


async def test_what_the_server_api_publishes_is_counted(office: Office) -> None:
    office.hire(Asked(0, 1, metrics=sent(5)))
    office.published = 3
    assert (await office.metrics())["stentor_messages_published_total", "supervisor"] == 3


async def test_it_is_ready_until_all_workers_are_browned_out(office: Office) -> None:
    first, second = Asked(0, 1), Asked(1, 2)
    office.hire(first, second)
    first.brownout = 1
    status, said = await office.get("/readyz")
    assert (status, said["status"]) == (200, "ready")
    assert [worker["state"] for worker in said["workers"]] == ["browned out", "ready"]
    second.brownout = 4
    status, said = await office.get("/readyz")
    assert (status, said["status"]) == (503, "browned out")
