"""The server API of several machines: what concerns clients is done here and on every other server; their answers are
made one. What concerns channels is the broker's, and so one for all already.

Laws: a command is refused if anybody who has answered refuses it; while the broker is away it is done here, and the
caller is told that it was done here alone. Questions are then answered with what is known here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from server.admin.api import Answer, Api, Desk
from server.admin.fields import INTERNAL, ApiError, Fields
from server.admin.fleet import Fleet
from server.brokers.base import Switchboard

_NO_ANSWER: Final = ApiError(INTERNAL, "a server has answered what is no answer")


class FleetApi(Api):
    """All commands, on all servers that share a broker; `local` does them on this one."""

    def __init__(
        self, desk: Desk, local: Api, switchboard: Switchboard, *, max_channel_length: int, max_message_size: int
    ) -> None:
        super().__init__(desk, max_channel_length=max_channel_length, max_message_size=max_message_size)
        self._local = local
        self._fleet = Fleet(switchboard, local.call, self._own_nodes)

    async def subscribe(self, fields: Fields) -> Answer:
        await self._ask("subscribe", fields)
        return {}

    async def unsubscribe(self, fields: Fields) -> Answer:
        await self._ask("unsubscribe", fields)
        return {}

    async def disconnect(self, fields: Fields) -> Answer:
        await self._ask("disconnect", fields)
        return {}

    async def refresh(self, fields: Fields) -> Answer:
        await self._ask("refresh", fields)
        return {}

    async def channels(self, fields: Fields) -> Answer:
        clients: Counter[str] = Counter()
        for answer in await self._ask("channels", fields, is_question=True):
            clients.update(_clients(answer))
        return {"channels": {channel: {"num_clients": count} for channel, count in clients.items()}}

    async def info(self, fields: Fields) -> Answer:
        own, others = await asyncio.gather(self._local.commands["info"](fields), self._fleet.others())
        return {"nodes": [*own["nodes"], *others]}

    async def _own_nodes(self) -> list[Answer]:
        nodes: list[Answer] = (await self._local.call("info", {}))["nodes"]
        return nodes

    async def _ask(self, name: str, fields: Fields, *, is_question: bool = False) -> list[Mapping[str, Any]]:
        """Have everybody do a command; return the good answers, our own first. Raises ApiError: the first one."""
        own, others = await asyncio.gather(
            self._local.commands[name](fields), self._fleet.ask(name, fields.request), return_exceptions=True
        )
        if isinstance(own, BaseException):
            raise own
        if isinstance(others, BaseException):
            if is_question and isinstance(others, ApiError):
                return [own]
            raise others
        return [own, *(_good(answer) for answer in others)]


def _clients(answer: Mapping[str, Any]) -> dict[str, int]:
    """Read how many clients each channel has."""
    try:
        return {channel: int(found["num_clients"]) for channel, found in answer["channels"].items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise _NO_ANSWER from None


def _good(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    match answer:
        case {"result": dict(result)}:
            return result
        case {"error": {"code": int(code), "message": str(message)}}:
            raise ApiError(code, message)
    raise _NO_ANSWER
