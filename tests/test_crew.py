"""The processes of the workers: who is started when, who takes whose place, and who waits. The processes are fakes."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from server.brokers.link import Fields, Kind, Link
from server.supervisor import crew as crew_module
from server.supervisor.crew import FIRST_PAUSE, LIVED, LONGEST_PAUSE, NO_PROCESS_PAUSE, CannotListen, Crew
from server.supervisor.exchange import Exchange
from server.supervisor.worker_link import HUNG_AFTER, STANDING_BY, State, Worker
from tests.fakes import Clock


class Process:
    """A process with a worker's manners: it says hello, and answers what it is asked."""

    def __init__(self, pid: int, sock: socket.socket, fault: str) -> None:
        self.pid = pid
        self.exitcode: int | None = None
        self.asked: list[str] = []
        self.takers: list[Any] = []
        self.returns_within = 0.0
        self.retired_at = 0.0
        self.fault = fault
        self.link = Link(self._take, lambda link: None)
        self.opening = asyncio.ensure_future(self._open(sock))

    async def _open(self, sock: socket.socket) -> None:
        await self.link.open(sock)
        self.link.say(Kind.HELLO, [])

    def _take(self, link: Link, kind: Kind, fields: Fields, body: bytes) -> None:
        number, what, arguments = fields
        self.asked.append(what)
        self.takers += arguments if what == "retire" else []
        answer = self.returns_within if what == "retire" else None
        link.say(Kind.ANSWER, [number, self.fault if what == "listen" else "", answer])
        if what == "retire":
            self.retired_at = asyncio.get_running_loop().time()
            self.end(0)

    def end(self, code: int) -> None:
        if self.exitcode is None:
            self.exitcode = code
            self.link.close()

    def is_alive(self) -> bool:
        return self.exitcode is None

    def kill(self) -> None:
        self.end(-9)

    def join(self, timeout: float) -> None:
        """It has ended."""


class Town:
    """A crew, and the processes that it has started."""

    def __init__(self, count: int = 2) -> None:
        self.clock = Clock(1000.0)
        self.started: list[Process] = []
        self.gone: list[int] = []
        self.last_words: list[Fields] = []
        self.fault = ""
        self.is_full = False
        self.crew = Crew(
            count,
            self._start,
            Exchange(self.clock),
            self.clock,
            on_gone=lambda worker: self.gone.append(worker.index),
            on_last_words=lambda worker, said: self.last_words.append(said),
            drain_timeout=1.0,
        )

    def _start(self) -> tuple[Any, socket.socket]:
        if self.is_full:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        ours, theirs = socket.socketpair()
        process = Process(100 + len(self.started), theirs, self.fault)
        self.started.append(process)
        return process, ours

    def process(self, index: int) -> Process:
        return cast(Process, self.crew.workers[index].process)

    def live(self, seconds: float) -> None:
        """Let time pass, in which everyone is heard of."""
        self.clock.advance(seconds)
        for worker in self.crew._everyone:
            worker.heard_at = self.clock.now

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def complete(self) -> None:
        await self.until(lambda: self.crew.is_complete and self.spare is not None and self.spare.is_up)

    @property
    def spare(self) -> Worker | None:
        return self.crew._spare

    async def end(self) -> None:
        self.crew.kill()
        for process in self.started:
            process.link.close()
            await process.opening
        await asyncio.sleep(0.01)


@pytest.fixture
async def town(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Town]:
    monkeypatch.setattr(crew_module, "WATCH", 0.005)
    monkeypatch.setattr(crew_module, "_signal", lambda worker, number: worker.process.end(0))
    town = Town()
    town.crew.begin()
    yield town
    await town.end()


async def test_all_listen_and_then_one_more_stands_by(town: Town) -> None:
    await town.crew.until_complete()
    assert [worker.index for worker in town.crew.ready] == [0, 1]
    await town.complete()
    assert town.spare is not None
    assert (town.spare.index, town.spare.state) == (STANDING_BY, State.STARTING)
    assert [process.asked for process in town.started] == [["listen"], ["listen"], []]


async def test_the_one_that_stands_by_takes_the_place_of_one_that_dies(town: Town) -> None:
    await town.complete()
    spare, victim = town.spare, town.process(1)
    town.live(LIVED)
    victim.end(-9)
    await town.until(lambda: town.crew.workers.get(1) is spare and town.crew.is_complete)
    assert (town.gone, town.crew.restarts, town.crew.retiring) == ([1], 1, set())
    await town.complete()
    assert town.spare is not spare


async def test_who_has_served_is_replaced_at_once_however_often_it_dies(town: Town) -> None:
    for _ in range(10):
        await town.complete()
        town.live(LIVED)
        victim = town.process(0)
        victim.end(-9)
        await town.until(lambda victim=victim: town.crew.is_complete and town.process(0) is not victim)
    assert (town.crew.restarts, town.crew.restarts_of) == (10, {0: 10, 1: 0})
    assert town.crew._due[0] <= town.clock.now


async def test_who_dies_at_once_again_and_again_waits_longer_and_longer(town: Town) -> None:
    pauses = []
    for number in range(9):
        await town.complete()
        town.process(0).end(1)
        await town.until(lambda number=number: town.crew.restarts == number + 1)
        pauses.append(town.crew._due[0] - town.clock.now)
        town.live(pauses[-1])
        await town.until(lambda: town.crew.is_complete)
    assert pauses == [0.0] + [min(LONGEST_PAUSE, FIRST_PAUSE * 2**each) for each in range(8)]
    assert pauses[-1] == LONGEST_PAUSE
    await town.complete()
    town.live(LIVED)
    town.process(0).end(1)
    await town.until(lambda: town.crew._failures[0] == 0)


async def test_one_that_hangs_is_killed_but_not_for_a_sleep_of_our_own(town: Town) -> None:
    await town.complete()
    victim = town.process(0)
    town.clock.advance(HUNG_AFTER + 1)
    await asyncio.sleep(0.05)
    assert victim.is_alive(), "it was us who slept"
    for _ in range(20):
        town.clock.advance(HUNG_AFTER / 10)
        town.process(1).link.say(Kind.BEAT, [0, False, 0, True])
        await asyncio.sleep(0.02)
        if not victim.is_alive():
            break
    assert victim.exitcode == -9
    await town.until(lambda: town.crew.is_complete)


async def test_of_one_that_hangs_and_takes_its_time_to_die_is_told_once(
    town: Town, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await town.complete()
    town.live(2 * LIVED)
    await town.until(lambda: town.crew._looked_at == town.clock.now)
    victim, worker = town.process(0), town.crew.workers[0]
    kills: list[str] = []
    monkeypatch.setattr(victim, "kill", lambda: kills.append("kill"))
    worker.heard_at = town.clock.now - 8.0
    await town.until(lambda: kills)
    await asyncio.sleep(0.05)
    victim.end(-9)
    await town.until(lambda: town.crew.restarts == 1)
    assert kills == ["kill"]
    assert caplog.messages == [
        "worker 0 has been silent for 8.0 s: killed",
        "worker 0 ended with -9, 2.0 s after it listened; replaced in 0.00 s",
    ]


async def test_of_one_that_stood_by_it_is_not_said_that_it_listened(
    town: Town, caplog: pytest.LogCaptureFixture
) -> None:
    await town.complete()
    spare = town.spare
    assert spare is not None
    spare.process.kill()
    await town.until(lambda: town.spare is not spare)
    assert caplog.messages == ["the worker that stands by ended with -9, before it listened; replaced in 0.00 s"]


async def test_while_all_drain_nobody_is_asked_to_spread_connections(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    await town.complete()
    monkeypatch.setattr(crew_module, "_signal", lambda worker, number: None)
    stopped = asyncio.create_task(town.crew.stop())
    await town.until(lambda: town.crew.is_stopping)
    asked = [list(process.asked) for process in town.started]
    town.live(10.0)
    await asyncio.sleep(0.05)
    assert [process.asked for process in town.started] == asked
    for index in (0, 1):
        town.process(index).end(0)
    town.live(10.0)
    await stopped


async def test_replaced_on_purpose_the_old_one_goes_after_the_new_one_listens(town: Town) -> None:
    await town.complete()
    old = [town.process(0), town.process(1)]
    await town.crew.replace_all(town.clock.now)
    await town.until(lambda: not town.crew.retiring)
    await town.complete()
    assert [process.asked[-1] for process in old] == ["retire", "retire"]
    assert [process.takers for process in old] == [[2.0], [2.0]], "who remains, the successor too"
    assert town.crew.is_complete
    assert not {town.process(0), town.process(1)} & set(old)
    assert (town.crew.restarts, sorted(town.gone)) == (0, [STANDING_BY, 0, 1])


async def test_the_next_one_goes_when_the_clients_of_the_one_before_are_back(town: Town) -> None:
    await town.complete()
    first, second = town.process(0), town.process(1)
    first.returns_within, second.returns_within = 0.3, 60.0
    await town.crew.replace_all(town.clock.now)
    assert second.retired_at - first.retired_at > 0.25
    await town.complete()


async def test_a_crew_that_is_to_stop_waits_for_nobody_to_be_back(town: Town) -> None:
    await town.complete()
    first, second = town.process(0), town.process(1)
    first.returns_within = 60.0
    replacing = asyncio.create_task(town.crew.replace_all(town.clock.now))
    await town.until(lambda: first.retired_at > 0 and len(town.crew.ready) == 2)
    stopping = asyncio.create_task(town.crew.stop())
    async with asyncio.timeout(5):
        await replacing
    assert "retire" not in second.asked
    town.crew.kill()
    await stopping


async def test_who_stood_by_before_is_not_among_the_successors(town: Town, caplog: pytest.LogCaptureFixture) -> None:
    await town.complete()
    spare = town.spare
    assert spare is not None
    await town.crew.replace_all(town.clock.now)
    await town.complete()
    assert spare not in {*town.crew.workers.values(), town.spare}
    assert cast(Process, spare.process).exitcode is not None
    assert (town.crew.restarts, caplog.records) == (0, [])


async def test_a_successor_that_dies_is_replaced_and_the_old_one_stays_that_long(town: Town) -> None:
    await town.complete()
    old, before = town.process(0), len(town.started)
    town.fault = "Too many open files"
    replacing = asyncio.create_task(town.crew.replace_all(town.clock.now))
    await town.until(lambda: any(process.exitcode == -9 for process in town.started[before:]))
    assert "retire" not in old.asked
    town.fault = ""
    for process in town.started[before:]:
        process.fault = ""
    # Two may have failed by now, the second not be buried yet: then its place waits from when it is.
    await town.until(lambda: town.live(0.1) or "retire" in old.asked)
    assert town.crew.workers[0].state is State.READY
    await replacing
    await town.complete()


async def test_who_is_younger_than_the_wish_stays(town: Town) -> None:
    await town.complete()
    old = [town.process(0), town.process(1)]
    asked_at = town.clock.now
    town.live(1.0)
    await town.crew.replace_all(asked_at)
    await town.complete()
    young = [town.process(0), town.process(1)]
    assert not {*old} & {*young}
    spare = town.spare
    await town.crew.replace_all(asked_at)
    assert ([town.process(0), town.process(1)], town.spare) == (young, spare)


async def test_one_that_has_just_taken_a_place_is_replaced_too_if_it_is_older_than_the_wish(town: Town) -> None:
    await town.complete()
    old = town.spare
    assert old is not None
    town.live(LIVED)
    town.process(0).end(-9)
    await town.until(lambda: town.crew.workers.get(0) is old)
    await town.crew.replace_all(town.clock.now)
    await town.until(lambda: not town.crew.retiring)
    assert town.crew.workers[0] is not old
    assert cast(Process, old.process).exitcode == 0


async def test_what_a_worker_says_of_its_broker_is_known(town: Town) -> None:
    await town.complete()
    town.process(0).link.say(Kind.BEAT, [0, False, 0, False])
    await town.until(lambda: not town.crew.workers[0].broker_is_up)
    assert town.crew.workers[1].broker_is_up


async def test_one_that_somebody_else_tells_to_go_leaves_its_place_at_once(town: Town) -> None:
    await town.complete()
    leaving = town.process(0)
    leaving.link.say(Kind.BEAT, [7, True, 0, True])
    await town.until(lambda: town.crew.is_complete and town.process(0) is not leaving)
    assert [worker.process for worker in town.crew.retiring] == [leaving]
    leaving.link.say(Kind.LAST_WORDS, ["goodbye"])
    await town.until(lambda: town.last_words == [["goodbye"]])
    leaving.end(0)
    await town.until(lambda: not town.crew.retiring)
    assert town.crew.restarts == 0


async def test_one_that_lives_on_without_its_place_is_told_by_the_end_of_its_link(town: Town) -> None:
    await town.complete()
    lost = town.process(0)
    lost.exitcode = 255  # so it seems
    await town.until(lambda: not lost.link.is_open)


async def test_all_drain_and_whoever_has_not_is_noticed(town: Town) -> None:
    await town.complete()
    assert await town.crew.stop()
    await town.until(lambda: town.gone)
    assert len(town.started) == 3, "nobody is started any more"
    assert not any(process.is_alive() for process in town.started)


async def test_one_that_dies_while_it_drains_has_not_drained(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    await town.complete()
    monkeypatch.setattr(crew_module, "_signal", lambda worker, number: worker.process.end(-11))
    assert not await town.crew.stop()


async def test_one_that_was_about_to_end_anyway_has_drained(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    await town.complete()
    leaving = town.process(0)
    leaving.link.say(Kind.BEAT, [0, True, 0, True])
    leaving.link.say(Kind.LAST_WORDS, [])
    await town.until(lambda: town.last_words)

    def end(worker: Worker, number: int) -> None:
        cast(Process, worker.process).end(-signal.SIGTERM if worker.process is cast(Any, leaving) else 0)

    monkeypatch.setattr(crew_module, "_signal", end)
    assert await town.crew.stop()
    assert leaving.exitcode == -signal.SIGTERM


async def test_the_second_time_all_are_told_that_there_is_no_time(town: Town) -> None:
    await town.complete()
    town.crew.cut_short()
    await town.until(lambda: all("cut_short" in process.asked for process in town.started))


async def test_if_the_first_ones_cannot_listen_nobody_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "WATCH", 0.005)
    town = Town()
    town.fault = "Address already in use"
    town.crew.begin()
    try:
        with pytest.raises(CannotListen, match="Address already in use"):
            await town.crew.until_complete()
    finally:
        await town.end()


async def test_a_later_one_that_cannot_listen_is_tried_again(town: Town) -> None:
    await town.complete()
    spare = town.spare
    assert spare is not None
    cast(Process, spare.process).fault = "Too many open files"
    town.live(LIVED)
    town.process(0).end(-9)
    await town.until(lambda: cast(Process, spare.process).exitcode == -9)
    town.live(LONGEST_PAUSE)
    await town.until(lambda: town.crew.is_complete)


async def test_a_machine_that_is_full_is_asked_again_later(town: Town, caplog: pytest.LogCaptureFixture) -> None:
    await town.complete()
    town.is_full = True
    town.live(LIVED)
    town.process(0).end(-9)
    await town.until(lambda: town.crew.is_complete and town.spare is None)
    await town.until(lambda: "no process for a worker: Resource temporarily unavailable" in caplog.messages)
    town.process(1).end(-9)
    await town.until(lambda: 1 not in town.crew.workers)
    town.is_full = False
    town.live(NO_PROCESS_PAUSE)
    await town.complete()


async def test_a_look_that_fails_is_not_the_last(
    town: Town, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await town.complete()
    monkeypatch.setattr(town.process(0), "is_alive", lambda: 1 / 0)
    await town.until(lambda: "a look at the workers failed" in caplog.messages)
    monkeypatch.undo()
    monkeypatch.setattr(crew_module, "WATCH", 0.005)
    town.live(LIVED)
    town.process(1).end(-9)
    await town.until(lambda: town.crew.restarts == 1)
    await town.complete()
