"""The server API of many workers: publications and questions about channels here, where the broker is; what concerns
clients is done by every worker on its own clients, and their answers are made one.

Law: a worker that does not answer in time is not waited for, and has no clients as far as the answer goes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from server.admin.api import Answer, Api
from server.admin.fields import INTERNAL, ApiError, Fields
from server.brokers.base import Broker, BrokerError, Published, Terms
from server.core.publication import ClientInfo, Publication
from server.node.namespaces import Namespaces
from server.node.revocation_log import RevocationLog
from server.supervisor.crew import Crew
from server.supervisor.worker_link import Unanswered

# A worker is busy now and then; one that takes longer hangs.
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
        await self._ask(name, fields)
        return {}

    async def _ask(self, name: str, fields: Fields) -> list[Answer]:
        """Have every worker do a command; return the good answers. Raises ApiError: the first that one gave."""
        workers = [*self._crew.ready, *self._crew.retiring]
        answers: list[Any] = await asyncio.gather(
            *(worker.ask("api", name, fields.request, within=PATIENCE) for worker in workers), return_exceptions=True
        )
        good = []
        for answer in answers:
            if isinstance(answer, Unanswered):
                continue
            if isinstance(answer, BaseException):
                raise answer
            if "error" in answer:
                raise ApiError(answer["error"]["code"], answer["error"]["message"])
            good.append(answer["result"])
        if not good:
            raise ApiError(INTERNAL, "no worker answers")
        return good
