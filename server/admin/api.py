"""The server API: Centrifugo's commands, so that its published libraries work unchanged.

A command takes the fields of its request and gives its result as an object, or raises ApiError. Source:
centrifugal.dev, "Server API walkthrough". How they come over HTTP is `http_api`'s affair.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from math import inf
from typing import Any, Final, Protocol

import orjson

from server.admin.fields import (
    BAD_REQUEST,
    INTERNAL,
    NOT_AVAILABLE,
    NOT_FOUND,
    UNRECOVERABLE_POSITION,
    ApiError,
    Fields,
)
from server.brokers.base import (
    NOTHING,
    Attendance,
    Broker,
    BrokerError,
    Done,
    Published,
    Retention,
    Slice,
    Stream,
    Terms,
)
from server.core.publication import ClientInfo, Publication
from server.core.revocations import MOST as MOST_REVOCATIONS
from server.core.revocations import Revocation
from server.dialects.centrifuge.data import json_tags, json_text
from server.node.namespaces import Namespaces
from server.node.revocation_log import RevocationLog

# What one broadcast or one batch may name: more would keep the loop from everyone else.
MOST_CHANNELS: Final = 1000
MOST_COMMANDS: Final = 1000
# How long a publisher waits on a congested channel before it is told to come back.
PATIENCE: Final = 5.0

log = logging.getLogger("stentor.admin")

Answer = dict[str, Any]
Command = Callable[[Fields], Awaitable[Answer]]


class Desk(Protocol):
    """What publications and questions about channels need of a node."""

    @property
    def namespaces(self) -> Namespaces: ...

    @property
    def broker(self) -> Broker: ...

    @property
    def revocations(self) -> RevocationLog: ...

    def publish(self, channel: str, publication: Publication, done: Done[Published], terms: Terms) -> None:
        """Publish on a channel."""

    def on_relief(self, channel: str, callback: Callable[[], None]) -> None:
        """Call `callback` once, when nothing of the channel is congested any more: at once if so now."""


class Api(ABC):
    """The commands: what concerns channels here, what concerns clients wherever they are (`NodeApi`)."""

    def __init__(self, desk: Desk, *, max_channel_length: int, max_message_size: int) -> None:
        self._desk = desk
        self._max_channel_length = max_channel_length
        self._max_message_size = max_message_size
        self.commands: dict[str, Command] = {
            "publish": self.publish,
            "broadcast": self.broadcast,
            "batch": self.batch,
            "subscribe": self.subscribe,
            "unsubscribe": self.unsubscribe,
            "disconnect": self.disconnect,
            "refresh": self.refresh,
            "revoke_token": self.revoke_token,
            "invalidate_user_tokens": self.invalidate_user_tokens,
            "presence": self.presence,
            "presence_stats": self.presence_stats,
            "history": self.history,
            "history_remove": self.history_remove,
            "channels": self.channels,
            "info": self.info,
        }

    async def call(self, name: str, request: Mapping[str, Any], text: str = "") -> Answer:
        """Do the command `name`, one of `commands`; `request` was read from the JSON `text`. Raises ApiError."""
        return await self.do(name, self.fields(request, text))

    async def do(self, name: str, fields: Fields) -> Answer:
        """Do the command `name` with the fields of its request. Raises ApiError, also for a fault of our own."""
        try:
            return await self.commands[name](fields)
        except ApiError:
            raise
        except Exception:
            # Others may have come with it in one request: they are done, and answered.
            log.exception("a fault in the server API, in the command %s", name)
            raise ApiError(INTERNAL, "internal server error") from None

    def fields(self, request: Mapping[str, Any], text: str = "") -> Fields:
        """Make the fields of a request."""
        return Fields(
            request, text, max_channel_length=self._max_channel_length, max_message_size=self._max_message_size
        )

    # Clients

    @abstractmethod
    async def subscribe(self, fields: Fields) -> Answer:
        """Put the clients of ``user`` (or its ``client``) on ``channel``."""

    @abstractmethod
    async def unsubscribe(self, fields: Fields) -> Answer:
        """Take the clients of ``user`` (or its ``client``) off ``channel``; off all of them when it is missing."""

    @abstractmethod
    async def disconnect(self, fields: Fields) -> Answer:
        """End the connections of ``user`` (or its ``client``), but not those of the client ids in ``whitelist``."""

    @abstractmethod
    async def refresh(self, fields: Fields) -> Answer:
        """Prolong the connections of ``user`` until ``expire_at`` (Unix time; 0: for ever); end them if ``expired``."""

    @abstractmethod
    async def channels(self, fields: Fields) -> Answer:
        """Name the channels that somebody listens to, and how many do; ``pattern`` as in a shell."""

    @abstractmethod
    async def info(self, fields: Fields) -> Answer:
        """Tell of the nodes."""

    # Tokens: what is said of them is for all servers, and so one stream of the broker's

    async def revoke_token(self, fields: Fields) -> Answer:
        """Revoke the token with the id (``jti``) ``uid``, until ``expire_at`` (Unix time; 0: for good)."""
        uid = fields.text("uid")
        if not uid:
            raise ApiError(BAD_REQUEST, "uid: the id of a token is needed")
        return await self._revoke(Revocation(uid=uid, ends=self._end(fields)))

    async def invalidate_user_tokens(self, fields: Fields) -> Answer:
        """Revoke the connection tokens of ``user`` from before ``issued_before`` (Unix time; 0: now).

        With a ``channel`` it is the subscription tokens for that; ``expire_at`` as in revoke_token.
        """
        user = fields.user()
        channel = fields.channel() if fields.text("channel", self._max_channel_length) else ""
        # The second that is now is spared: a token that is issued right after this says the same ``iat``.
        before = fields.natural("issued_before") or int(self._desk.revocations.wall_clock())
        return await self._revoke(Revocation("", user, channel, before, self._end(fields)))

    def _end(self, fields: Fields) -> float:
        end = fields.natural("expire_at")
        if end and end <= self._desk.revocations.wall_clock():
            raise ApiError(BAD_REQUEST, "expire_at: is in the past")
        return end or inf

    async def _revoke(self, revocation: Revocation) -> Answer:
        revocations = self._desk.revocations
        if not revocations.is_needed:
            raise ApiError(NOT_AVAILABLE, "only signed tokens can be revoked, and there are none (auth)")
        if not await _answer(lambda done: revocations.revoke(revocation, done)):
            raise ApiError(NOT_AVAILABLE, f"{MOST_REVOCATIONS} revocations are in force: there is room for no more")
        return {}

    # Publications

    async def publish(self, fields: Fields) -> Answer:
        """Publish ``data`` or ``b64data`` on ``channel`` -> ``{"offset", "epoch"}``, empty without history."""
        channel = fields.channel()
        return await self._say(channel, fields.publication(), self._terms(channel, fields))

    async def broadcast(self, fields: Fields) -> Answer:
        """Publish on each of ``channels`` -> ``{"responses": [{"result": {}}, …]}``, in the order of the channels."""
        channels = [fields.channel_name(name) for name in fields.entries("channels", MOST_CHANNELS)]
        if not channels:
            raise ApiError(BAD_REQUEST, "channels: at least one is needed")
        publication = fields.publication()
        terms = [self._terms(channel, fields) for channel in channels]
        # At once: a congested channel holds the caller, but not what is for the others.
        says = (self._respond(channel, publication, each) for channel, each in zip(channels, terms, strict=True))
        return {"responses": await asyncio.gather(*says)}

    async def _respond(self, channel: str, publication: Publication, terms: Terms) -> Answer:
        try:
            return {"result": await self._say(channel, publication, terms)}
        except ApiError as error:
            return {"error": error.told}

    async def batch(self, fields: Fields) -> Answer:
        """Do ``commands``, one after the other or, with ``parallel``, at once -> ``{"replies": […]}``."""
        wanted = fields.parts("commands", MOST_COMMANDS)
        if fields.flag("parallel"):
            return {"replies": await asyncio.gather(*(self._reply(command) for command in wanted))}
        replies = []
        for command in wanted:
            replies.append(await self._reply(command))
            await asyncio.sleep(0)  # a long batch lets others speak in between
        return {"replies": replies}

    async def _reply(self, command: Fields | None) -> Answer:
        try:
            named = command.named([name for name in self.commands if name != "batch"]) if command is not None else []
            if command is None or not named:
                raise ApiError(NOT_FOUND, "there is no such command")
            if len(named) > 1:
                raise ApiError(BAD_REQUEST, "a command is an object with one member, its name")
            (name,) = named
            request = command.part(name)
            assert request is not None, "it is named because it is there"
            return {name: await self.do(name, request)}
        except ApiError as error:
            return {"error": error.told}

    def _terms(self, channel: str, fields: Fields) -> Terms:
        terms = self._desk.namespaces.of(channel).publishing
        key, version = fields.text("idempotency_key"), fields.natural("version")
        if fields.flag("skip_history"):
            terms = replace(terms, retention=NOTHING)
        if key or version:
            epoch = fields.text("version_epoch")
            terms = replace(terms, idempotency_key=key, version=version, version_epoch=epoch)
        return terms

    async def _say(self, channel: str, publication: Publication, terms: Terms) -> Answer:
        published: Published = await _answer(lambda done: self._desk.publish(channel, publication, done, terms))
        if not published.keeps_up:
            await self._relief(channel)
        position = published.position
        return {"offset": position.offset, "epoch": position.epoch} if position.offset else {}

    async def _relief(self, channel: str) -> None:
        """Hold the caller, as a client that publishes is held, until there is room again."""
        relief = asyncio.get_running_loop().create_future()
        self._desk.on_relief(channel, lambda: None if relief.done() else relief.set_result(None))
        try:
            async with asyncio.timeout(PATIENCE):
                await relief
        except TimeoutError:
            raise ApiError(INTERNAL, "the channel is congested; this publication was taken, slow down") from None

    # Channels

    async def presence(self, fields: Fields) -> Answer:
        """Tell who is on ``channel`` -> ``{"presence": {client: {"client", "user", …}}}``."""
        channel = self._with_presence(fields)
        broker = self._desk.broker
        present: Mapping[str, ClientInfo] = await _answer(lambda done: broker.presence(channel, done))
        return {"presence": {client: _info(info) for client, info in present.items()}}

    async def presence_stats(self, fields: Fields) -> Answer:
        """Tell how many are on ``channel`` -> ``{"num_clients", "num_users"}``."""
        channel = self._with_presence(fields)
        broker = self._desk.broker
        present: Attendance = await _answer(lambda done: broker.presence_stats(channel, done))
        return {"num_clients": present.clients, "num_users": present.users}

    def _with_presence(self, fields: Fields) -> str:
        channel = fields.channel()
        if not self._desk.namespaces.of(channel).presence:
            raise ApiError(NOT_AVAILABLE, "the channel keeps no presence")
        return channel

    async def history(self, fields: Fields) -> Answer:
        """Read what ``channel`` keeps -> ``{"publications", "offset", "epoch"}``; ``limit`` 0 is the position alone."""
        channel, retention = self._with_history(fields)
        limit, since = fields.number("limit"), fields.position("since")
        wanted = Slice(limit if limit >= 0 else None, since, fields.flag("reverse"))
        broker = self._desk.broker
        stream: Stream = await _answer(lambda done: broker.history(channel, retention, wanted, done))
        if since is not None and since.epoch and since.epoch != stream.top.epoch:
            raise ApiError(UNRECOVERABLE_POSITION, "the position is of another epoch")
        publications = [_publication(publication) for publication in stream.publications]
        return {"publications": publications, "epoch": stream.top.epoch, "offset": stream.top.offset}

    async def history_remove(self, fields: Fields) -> Answer:
        """Forget what ``channel`` keeps; its position stays."""
        channel, _ = self._with_history(fields)
        broker = self._desk.broker
        await _answer(lambda done: broker.remove_history(channel, done))
        return {}

    def _with_history(self, fields: Fields) -> tuple[str, Retention]:
        channel = fields.channel()
        retention = self._desk.namespaces.of(channel).retention
        if not retention.keeps:
            raise ApiError(NOT_AVAILABLE, "the channel keeps no history")
        return channel, retention


async def _answer(ask: Callable[[Done[Any]], object]) -> Any:
    """Await what a broker answers by a call. Raises ApiError."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    ask(lambda result: None if future.done() else future.set_result(result))
    result = await future
    if isinstance(result, BrokerError):
        raise ApiError(INTERNAL, "the broker cannot do this now")
    return result


def _info(info: ClientInfo) -> Answer:
    fields: Answer = {"client": info.client, "user": info.user}
    if info.conn_info:
        fields["conn_info"] = orjson.Fragment(info.conn_info)
    if info.chan_info:
        fields["chan_info"] = orjson.Fragment(info.chan_info)
    return fields


def _publication(publication: Publication) -> Answer:
    fields: Answer = {"data": orjson.Fragment(json_text(publication)), "offset": publication.offset}
    if publication.info is not None:
        fields["info"] = _info(publication.info)
    if tags := json_tags(publication):
        fields["tags"] = dict(tags)
    return fields
