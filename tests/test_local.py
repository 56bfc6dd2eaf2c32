"""The local broker: two workers and the exchange between them, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from server.brokers import local as local_module
from server.brokers.base import EVERYTHING, PLAIN, Attendance, BrokerError, Published, Retention, Slice, Stream, Terms
from server.brokers.link import Fields, Kind, Link
from server.brokers.local import LocalBroker
from server.core.history import Position
from server.core.publication import ClientInfo, Publication
from server.supervisor import exchange as exchange_module
from server.supervisor.exchange import Exchange
from tests.fakes import Clock

KEPT = Terms(Retention(10, 300.0))
ANNA = ClientInfo("anna", "a1", b'{"n":1}')
BEN = ClientInfo("ben", "b1")


class Ear:
    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.keeps_up = True
        self.on_relief: list[Callable[[], None]] = []

    def relieve(self) -> None:
        self.keeps_up = True
        waiting, self.on_relief = self.on_relief, []
        for callback in waiting:
            callback()

    def hear(self, channel: str, publication: Publication, epoch: str) -> bool:
        self.told.append(("publication", channel, publication.payload, publication.offset, bool(epoch)))
        return self.keeps_up

    def hear_join(self, channel: str, info: ClientInfo) -> None:
        self.told.append(("join", channel, info))

    def hear_leave(self, channel: str, info: ClientInfo) -> None:
        self.told.append(("leave", channel, info))

    def lost(self, channel: str | None) -> None:
        self.told.append(("lost", channel))


class WorkerEnd:
    """A worker's link and broker; `ask` waits for the one answer."""

    def __init__(self) -> None:
        self.ear = Ear()
        self.link = Link(self._take, self._ended)
        self.neighbourly: list[tuple[str, bytes]] = []
        self.clock = Clock(0.0)
        self.broker = LocalBroker(
            self.ear, self.link, lambda channel, callback: self.ear.on_relief.append(callback), self.clock
        )

    def _take(self, link: Link, kind: Kind, fields: Fields, body: bytes) -> None:
        if kind is Kind.NEIGHBOUR:
            self.neighbourly.append((fields[0], body))
        else:
            self.broker.take(kind, fields, body)

    def _ended(self, link: Link) -> None:
        self.broker.end()

    async def ask(self, call: Callable[..., None], *arguments: object) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call(*arguments, future.set_result)
        async with asyncio.timeout(5):
            return await future

    async def publish(self, channel: str, payload: bytes, terms: Terms = PLAIN) -> Any:
        return await self.ask(self.broker.publish, channel, Publication(payload), terms)

    async def settle(self) -> None:
        """Wait until everything said before this has been heard."""
        await self.ask(self.broker.presence_stats, "nobody")


class Town:
    def __init__(self, path: Path) -> None:
        self.exchange = Exchange(Clock(0.0))
        self.path = str(path)
        self.links: list[Link] = []

    async def worker(self) -> WorkerEnd:
        worker = WorkerEnd()
        await asyncio.get_running_loop().create_unix_connection(lambda: worker.link, self.path)
        await worker.settle()
        return worker


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what nobody tells of; five seconds at most."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    async with _town(tmp_path / "workers") as town:
        yield town


@asynccontextmanager
async def _town(path: Path) -> AsyncIterator[Town]:
    town = Town(path)

    class Supervised(Link):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            town.exchange.enter(self)
            town.links.append(self)

    server = await asyncio.get_running_loop().create_unix_server(
        lambda: Supervised(town.exchange.take, town.exchange.leave), str(path)
    )
    try:
        yield town
    finally:
        server.close()
        for link in town.links:
            link.close()


async def test_all_who_hear_a_channel_hear_in_one_order_the_publisher_before_its_answer(town: Town) -> None:
    one, two, deaf = await town.worker(), await town.worker(), await town.worker()
    for worker in (one, two):
        assert await worker.ask(worker.broker.subscribe, "news") is None
    answers = []
    for number in range(50):
        speaker = (one, two)[number % 2]
        speaker.broker.publish("news", Publication(b"%d" % number), KEPT, answers.append)
        if number % 2:
            await speaker.settle()
    await one.settle()
    await two.settle()
    assert [answer.position.offset for answer in answers if isinstance(answer, Published)] != []
    assert len(answers) == 50
    assert one.ear.told == two.ear.told
    assert [told[3] for told in one.ear.told] == list(range(1, 51))
    assert deaf.ear.told == []


async def test_what_is_published_is_heard_before_the_answer(town: Town) -> None:
    worker = await town.worker()
    await worker.ask(worker.broker.subscribe, "news")
    published = await worker.publish("news", b"x", KEPT)
    assert worker.ear.told == [("publication", "news", b"x", 1, True)]
    assert isinstance(published, Published)
    assert (published.position.offset, published.keeps_up, published.is_suppressed) == (1, True, False)
    worker.ear.keeps_up = False
    assert not (await worker.publish("news", b"y", KEPT)).keeps_up
    worker.ear.relieve()
    assert (await worker.publish("news", b"z", KEPT)).keeps_up


async def test_what_a_worker_heard_without_redis_goes_to_all_others(town: Town) -> None:
    one, two, three = await town.worker(), await town.worker(), await town.worker()
    one.link.say(Kind.NEIGHBOUR, ["news"], b"said")
    for worker in (one, two, three):
        await worker.settle()
    assert [worker.neighbourly for worker in (one, two, three)] == [[], [("news", b"said")], [("news", b"said")]]


async def test_who_has_left_a_channel_hears_nothing_more(town: Town) -> None:
    worker = await town.worker()
    await worker.ask(worker.broker.subscribe, "news")
    worker.broker.unsubscribe("news")
    await worker.publish("news", b"x")
    assert worker.ear.told == []


async def test_history_and_keys_are_one_for_all(town: Town) -> None:
    one, two = await town.worker(), await town.worker()
    for number in range(3):
        await one.publish("news", b"%d" % number, KEPT)
    keyed = Terms(KEPT.retention, idempotency_key="k")
    first, second = await one.publish("news", b"3", keyed), await two.publish("news", b"3 again", keyed)
    assert second.is_suppressed
    assert first.position == second.position
    stream = await two.ask(two.broker.history, "news", KEPT.retention, EVERYTHING)
    assert isinstance(stream, Stream)
    assert [publication.payload for publication in stream.publications] == [b"0", b"1", b"2", b"3"]
    assert stream.top == first.position
    since = Slice(1, Position(3, stream.top.epoch), reverse=True)
    stream = await two.ask(two.broker.history, "news", KEPT.retention, since)
    assert [publication.offset for publication in stream.publications] == [2]
    stream = await two.ask(two.broker.history, "news", KEPT.retention, Slice(most_bytes=2))
    assert [publication.offset for publication in stream.publications] == [1, 2]
    assert await one.ask(one.broker.remove_history, "news") is None
    assert (await two.ask(two.broker.history, "news", KEPT.retention, EVERYTHING)).publications == ()


async def test_presence_comings_and_goings_are_one_for_all(town: Town) -> None:
    one, two = await town.worker(), await town.worker()
    await two.ask(two.broker.subscribe, "news")
    await one.ask(one.broker.add_presence, "news", ANNA)
    await two.ask(two.broker.add_presence, "news", BEN)
    one.broker.publish_join("news", ANNA)
    await one.settle()
    assert await one.ask(one.broker.presence, "news") == {"a1": ANNA, "b1": BEN}
    assert await two.ask(two.broker.presence_stats, "news") == Attendance(2, 2)
    changed = ANNA._replace(chan_info=b'{"mood":"new"}')
    await one.ask(one.broker.add_presence, "news", changed)
    assert await two.ask(two.broker.presence, "news") == {"a1": changed, "b1": BEN}
    one.broker.publish_leave("news", ANNA)
    one.broker.remove_presence("news", ANNA)
    await one.settle()
    await two.settle()
    assert two.ear.told == [("join", "news", ANNA), ("leave", "news", ANNA)]
    assert await two.ask(two.broker.presence, "news") == {"b1": BEN}


async def test_a_worker_that_dies_is_nowhere_present_and_its_clients_are_seen_to_leave(town: Town) -> None:
    one, two = await town.worker(), await town.worker()
    await two.ask(two.broker.subscribe, "news")
    await one.ask(one.broker.subscribe, "news")
    await one.ask(one.broker.add_presence, "news", ANNA)
    one.broker.publish_join("news", ANNA)
    await one.settle()
    one.link.close()
    await until(lambda: not town.exchange.broker._present)
    await two.settle()
    assert two.ear.told == [("join", "news", ANNA), ("leave", "news", ANNA)]
    await two.publish("news", b"x")
    assert len(two.ear.told) == 3


async def test_without_its_supervisor_everything_is_answered_with_an_error(town: Town) -> None:
    worker = await town.worker()
    answers: list[object] = []
    worker.broker.publish("news", Publication(b"x"), PLAIN, answers.append)
    worker.link.close()
    await until(lambda: bool(answers))
    worker.broker.subscribe("news", answers.append)
    assert [type(answer) for answer in answers] == [BrokerError, BrokerError]
    assert not worker.broker.is_up


async def test_a_worker_that_hangs_loses_what_is_too_much_and_is_told(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange_module, "MOST_WAITING", 256 * 1024)
    slow, speaker = await town.worker(), await town.worker()
    await slow.ask(slow.broker.subscribe, "news")
    transport = slow.link._transport
    assert transport is not None
    transport.pause_reading()
    for _ in range(1000):
        await speaker.publish("news", bytes(1000), KEPT)
        if town.exchange.dropped > 10:
            break
    assert town.exchange.dropped > 10
    transport.resume_reading()
    await until(lambda: ("lost", None) in slow.ear.told)
    offsets = [told[3] for told in slow.ear.told if told[0] == "publication"]
    assert offsets == sorted(offsets)
    assert town.exchange.gaps == 1
    assert (slow.broker.gaps, slow.broker.lost) == (1, town.exchange.dropped)


async def test_a_message_larger_than_all_that_may_wait_gets_through(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange_module, "MOST_WAITING", 1024)
    worker = await town.worker()
    await worker.ask(worker.broker.subscribe, "news")
    await worker.publish("news", bytes(4096))
    assert [told[2] for told in worker.ear.told] == [bytes(4096)]


async def test_what_a_worker_asks_waits_while_it_does_not_take_its_answers(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange_module, "MOST_WAITING", 256 * 1024)
    worker = await town.worker()
    await worker.publish("news", bytes(100_000), KEPT)
    answers: list[object] = []
    transport = worker.link._transport
    assert transport is not None
    transport.pause_reading()
    for _ in range(200):
        worker.broker.history("news", KEPT.retention, EVERYTHING, answers.append)
        await asyncio.sleep(0)
    (supervised,) = town.links
    await until(lambda: supervised.backlog > 256 * 1024)
    # What one read brings is answered; the rest stays unread.
    assert supervised.backlog < 50 * 100_000
    transport.resume_reading()
    await until(lambda: len(answers) == 200)
    assert not any(isinstance(answer, BrokerError) for answer in answers)


async def test_what_waits_for_the_supervisor_is_bounded_and_the_rest_is_refused(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_module, "MOST_WAITING", 256 * 1024)
    worker = await town.worker()
    town.links[0].hold()
    answers: list[object] = []
    for _ in range(1000):
        worker.broker.publish("news", Publication(bytes(1000)), PLAIN, answers.append)
        await asyncio.sleep(0)
        if len(answers) > 10:
            break
    assert [type(answer) for answer in answers] == [BrokerError] * 11
    assert worker.link.backlog < 300 * 1024
    town.links[0].release()
    await until(lambda: worker.link.backlog == 0)
    assert isinstance(await worker.publish("news", b"x"), Published)


async def test_where_a_channel_is_busy_its_publishers_everywhere_wait(town: Town) -> None:
    busy, speaker = await town.worker(), await town.worker()
    await busy.ask(busy.broker.subscribe, "news")
    busy.ear.keeps_up = False
    await speaker.publish("news", b"1")
    await busy.settle()
    assert len(busy.ear.on_relief) == 1
    answers: list[object] = []
    for terms in (PLAIN, KEPT):
        speaker.broker.publish("news", Publication(b"2"), terms, answers.append)
    assert isinstance(await speaker.publish("other", b"x"), Published), "other channels go on"
    assert answers == []
    busy.ear.relieve()
    await busy.settle()
    await speaker.settle()
    assert [type(answer) for answer in answers] == [Published, Published]


@pytest.mark.parametrize("how", ["leaves the channel", "dies", "stays busy"])
async def test_nobody_waits_for_a_worker_that_does_not_say_when(town: Town, how: str) -> None:
    busy, speaker = await town.worker(), await town.worker()
    await busy.ask(busy.broker.subscribe, "news")
    busy.ear.keeps_up = False
    await speaker.publish("news", b"1")
    await busy.settle()
    answers: list[object] = []
    speaker.broker.publish("news", Publication(b"2"), PLAIN, answers.append)
    await speaker.settle()
    assert answers == []
    if how == "leaves the channel":
        busy.broker.unsubscribe("news")
    elif how == "dies":
        busy.link.close()
    else:
        clock = town.exchange._clock
        assert isinstance(clock, Clock)
        clock.advance(exchange_module.HELD_FOR)
        town.exchange.sweep()
    await until(lambda: len(answers) == 1)


async def test_the_way_to_the_supervisor_and_back_is_measured(town: Town) -> None:
    worker = await town.worker()
    worker.broker.sweep()
    worker.broker.sweep()
    worker.clock.advance(0.25)
    await worker.settle()
    assert (worker.broker.lag.count, worker.broker.lag.sum) == (1, 0.25)
    worker.broker.sweep()
    await worker.settle()
    assert worker.broker.lag.count == 2
    assert (worker.broker.reconnects, worker.broker.gaps, worker.broker.lost) == (0, 0, 0)
