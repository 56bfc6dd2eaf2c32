"""The server API of many workers: publications and questions about channels here, where the broker is; what concerns
clients is done by every worker on its own clients, and their answers are made one.

Laws: an answer comes within WITHIN as soon as one worker has given its own, also while others are stuck. One that does
not answer in time has no clients as far as the answer goes; what it is told to do it does when it comes to it. A
publication is counted here, as in a worker.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from server.admin.api import Answer, Api
from server.admin.fields import INTERNAL, ApiError, Fields
from server.brokers.base import Broker, BrokerError, Published, Terms
from server.core.publication import ClientInfo, Publication
from server.node.namespaces import Namespaces
from server.node.revocation_log import RevocationLog
from server.supervisor.crew import Crew
from server.supervisor.worker_link import WITHIN, Unanswered, Worker

# All workers may be busy at once now and then; so long one of them is waited for.
PATIENCE: Final = 1.0


class Deaf:
    """An ear for a broker that nobody here listens to."""

    def hear(self, channel: str, publication: Publication, epoch: str) -> bool:
        return True

    def hear_join(self, channel: str, info: ClientInfo) -> None:
        """Nobody is told."""

    def hear_leave(self, channel: str, info: ClientInfo) -> None:
        """Nobody is told."""

    def lost(self, channel: str | None) -> None:
        """Nobody has a position."""


class Counterpart:
    """The supervisor as a node: it has the broker and the rules of the channels, and no clients."""

    def __init__(self, broker: Broker, namespaces: Namespaces) -> None:
        self.broker = broker
        self.namespaces = namespaces
        self.revocations = RevocationLog(lambda: broker)
        self.published = 0

    def publish(
        self, channel: str, publication: Publication, done: Callable[[Published | BrokerError], object], terms: Terms
    ) -> None:
        """Publish on a channel."""
        self.published += 1
        self.broker.publish(channel, publication, terms, done)

    def on_relief(self, channel: str, callback: Callable[[], None]) -> None:
        """Nothing waits here: what waits for a worker is bounded by the exchange."""
        callback()


class CrewApi(Api):
    """All commands, on all workers."""

    def __init__(self, desk: Counterpart, crew: Crew, *, max_channel_length: int, max_message_size: int) -> None:
        super().__init__(desk, max_channel_length=max_channel_length, max_message_size=max_message_size)
        self._crew = crew
        self._tasks: set[asyncio.Task[Answer | None]] = set()

    async def subscribe(self, fields: Fields) -> Answer:
        return await self._everywhere("subscribe", fields)

    async def unsubscribe(self, fields: Fields) -> Answer:
        return await self._everywhere("unsubscribe", fields)

    async def disconnect(self, fields: Fields) -> Answer:
        return await self._everywhere("disconnect", fields)

    async def refresh(self, fields: Fields) -> Answer:
        return await self._everywhere("refresh", fields)

    async def channels(self, fields: Fields) -> Answer:
        clients: Counter[str] = Counter()
        for answer in await self._ask("channels", fields):
            for channel, found in answer["channels"].items():
                clients[channel] += found["num_clients"]
        return {"channels": {channel: {"num_clients": count} for channel, count in clients.items()}}

    async def info(self, fields: Fields) -> Answer:
        return {"nodes": [node for answer in await self._ask("info", fields) for node in answer["nodes"]]}

    async def _everywhere(self, name: str, fields: Fields) -> Answer:
        now = time.monotonic()
        for worker in self._workers:
            if worker.is_silent(now):
                worker.tell("api", name, fields.request)
        await self._ask(name, fields)
        return {}

    @property
    def _workers(self) -> list[Worker]:
        return [*self._crew.ready, *self._crew.retiring]

    async def _ask(self, name: str, fields: Fields) -> list[Answer]:
        """Have every worker that is heard of do a command; return the good answers.

        Raises ApiError: the first that one gave.
        """
        now = time.monotonic()
        asked = [self._start(worker, name, fields) for worker in self._workers if not worker.is_silent(now)]
        answers = await _in_time(asked)
        for answer in answers:
            if "error" in answer:
                raise ApiError(answer["error"]["code"], answer["error"]["message"])
        if not answers:
            raise ApiError(INTERNAL, "no worker answers")
        return [answer["result"] for answer in answers]

    def _start(self, worker: Worker, name: str, fields: Fields) -> asyncio.Task[Answer | None]:
        task = asyncio.create_task(_answer_of(worker, name, fields))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _answer_of(worker: Worker, name: str, fields: Fields) -> Answer | None:
    try:
        answer: Answer = await worker.ask("api", name, fields.request, within=PATIENCE)
    except Unanswered:
        return None
    return answer


async def _in_time(asked: list[asyncio.Task[Answer | None]]) -> list[Answer]:
    """Return the answers that come within WITHIN; the first one after that if there are none."""
    late = set(asked)
    if late:
        _, late = await asyncio.wait(late, timeout=WITHIN)
    while late and not any(task.done() and task.result() for task in asked):
        _, late = await asyncio.wait(late, return_when=asyncio.FIRST_COMPLETED)
    return [answer for task in asked if task.done() and (answer := task.result()) is not None]
