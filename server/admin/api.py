"""The server API: Centrifugo's commands, so that its published libraries work unchanged.

A command takes the fields of its request and gives its result as an object, or raises ApiError. Source:
centrifugal.dev, "Server API walkthrough". How they come over HTTP is `http_api`'s affair.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, Final

import orjson

from server import __version__
from server.admin.fields import BAD_REQUEST, INTERNAL, NOT_AVAILABLE, UNRECOVERABLE_POSITION, ApiError, Fields
from server.brokers.base import NOTHING, Attendance, BrokerError, Done, Published, Retention, Slice, Stream, Terms
from server.core.publication import ClientInfo, Publication
from server.dialects.centrifuge import codes
from server.dialects.centrifuge.data import json_tags, json_text
from server.node.node import Node
from server.node.registry import Registry

# What one broadcast or one batch may name: more would keep the loop from everyone else.
MOST_CHANNELS: Final = 1000
MOST_COMMANDS: Final = 1000
# How long a publisher waits on a congested channel before it is told to come back.
PATIENCE: Final = 5.0

Answer = dict[str, Any]
Command = Callable[[Fields], Awaitable[Answer]]


class Api:
    """The commands, on one node."""

    def __init__(
        self,
        node: Node,
        registry: Registry,
        *,
        clock: Callable[[], float],
        max_channel_length: int,
        max_message_size: int,
        node_id: str = "",
    ) -> None:
        self._node = node
        self._registry = registry
        self._clock = clock
        self._started = clock()
        self._max_channel_length = max_channel_length
        self._max_message_size = max_message_size
        self._node_id = node_id
        self.commands: dict[str, Command] = {
            "publish": self.publish,
            "broadcast": self.broadcast,
            "batch": self.batch,
            "subscribe": self.subscribe,
            "unsubscribe": self.unsubscribe,
            "disconnect": self.disconnect,
            "refresh": self.refresh,
            "presence": self.presence,
            "presence_stats": self.presence_stats,
            "history": self.history,
            "history_remove": self.history_remove,
            "channels": self.channels,
            "info": self.info,
        }

    async def call(self, name: str, request: Mapping[str, Any]) -> Answer:
        """Do the command `name`, one of `commands`. Raises ApiError."""
        fields = Fields(request, max_channel_length=self._max_channel_length, max_message_size=self._max_message_size)
        return await self.commands[name](fields)

    # Publications

    async def publish(self, fields: Fields) -> Answer:
        """Publish ``data`` or ``b64data`` on ``channel`` -> ``{"offset", "epoch"}``, empty without history."""
        channel = fields.channel()
        return await self._say(channel, fields.publication(), self._terms(channel, fields))

    async def broadcast(self, fields: Fields) -> Answer:
        """Publish on each of ``channels`` -> ``{"responses": [{"result": {}}, …]}``, in the order of the channels."""
        channels = [fields.channel_name(name) for name in fields.entries("channels", MOST_CHANNELS)]
        publication = fields.publication()
        responses = []
        for channel in channels:
            try:
                said = await self._say(channel, publication, self._terms(channel, fields))
                responses.append({"result": said})
            except ApiError as error:
                responses.append({"error": {"code": error.code, "message": str(error)}})
        return {"responses": responses}

    async def batch(self, fields: Fields) -> Answer:
        """Do ``commands``, one after the other or, with ``parallel``, at once -> ``{"replies": […]}``."""
        wanted = fields.entries("commands", MOST_COMMANDS)
        if fields.flag("parallel"):
            return {"replies": await asyncio.gather(*(self._reply(fields, command) for command in wanted))}
        return {"replies": [await self._reply(fields, command) for command in wanted]}

    async def _reply(self, fields: Fields, command: object) -> Answer:
        try:
            if not isinstance(command, dict) or len(command) != 1:
                raise ApiError(BAD_REQUEST, "a command is an object with one member, its name")
            ((name, request),) = command.items()
            if name not in self.commands or name == "batch" or not isinstance(request, dict):
                raise ApiError(BAD_REQUEST, "there is no such command")
            return {name: await self.commands[name](fields.inner(request))}
        except ApiError as error:
            return {"error": {"code": error.code, "message": str(error)}}

    def _terms(self, channel: str, fields: Fields) -> Terms | None:
        terms = self._node.namespaces.of(channel).publishing
        key, version = fields.text("idempotency_key"), fields.number("version")
        if version < 0:
            raise ApiError(BAD_REQUEST, "version: 0 or more is needed")
        if fields.flag("skip_history"):
            terms = replace(terms, retention=NOTHING)
        if key or version:
            epoch = fields.text("version_epoch")
            terms = replace(terms, idempotency_key=key, version=version, version_epoch=epoch)
        return terms

    async def _say(self, channel: str, publication: Publication, terms: Terms | None) -> Answer:
        published: Published = await _answer(lambda done: self._node.publish(channel, publication, done, terms))
        if not published.keeps_up:
            await self._relief(channel)
        position = published.position
        return {"offset": position.offset, "epoch": position.epoch} if position.offset else {}

    async def _relief(self, channel: str) -> None:
        """Hold the caller, as a client that publishes is held, until there is room again."""
        relief = asyncio.get_running_loop().create_future()
        self._node.on_relief(channel, lambda: None if relief.done() else relief.set_result(None))
        try:
            async with asyncio.timeout(PATIENCE):
                await relief
        except TimeoutError:
            raise ApiError(INTERNAL, "the channel is congested; this publication was taken, slow down") from None

    # Clients

    async def subscribe(self, fields: Fields) -> Answer:
        """Put the clients of ``user`` (or its ``client``) on ``channel``."""
        channel, user, client = fields.channel(), fields.user(), fields.text("client")
        info, data = fields.json_or_base64("info") or b"", fields.json_or_base64("data")
        expires = fields.number("expire_at") or None
        for member in self._registry.find(user, client):
            fault = member.enter(channel, info, data, expires)
            if fault is not None and fault is not codes.ERROR_ALREADY_SUBSCRIBED:
                raise ApiError(fault.code, fault.message)
        return {}

    async def unsubscribe(self, fields: Fields) -> Answer:
        """Take the clients of ``user`` (or its ``client``) off ``channel``; off all of them when it is missing."""
        user, client = fields.user(), fields.text("client")
        channel = fields.channel() if "channel" in fields else ""
        for member in self._registry.find(user, client):
            member.throw_out(channel, codes.UNSUBSCRIBE_BY_SERVER)
        return {}

    async def disconnect(self, fields: Fields) -> Answer:
        """End the connections of ``user`` (or its ``client``), but not those of the client ids in ``whitelist``."""
        user, client = fields.user(), fields.text("client")
        spared = fields.entries("whitelist", MOST_CHANNELS) if "whitelist" in fields else []
        disconnect = self._disconnect(fields)
        for member in self._registry.find(user, client):
            if member.client not in spared:
                member.end(disconnect)
        return {}

    def _disconnect(self, fields: Fields) -> codes.Disconnect:
        given = fields.members("disconnect")
        if given is None:
            return codes.DISCONNECT_FORCE_NO_RECONNECT
        inner = fields.inner(given)
        code, reason = inner.number("code"), inner.text("reason", 123)
        if not 3000 <= code <= 4999 or len(reason.encode()) > 123:
            raise ApiError(
                BAD_REQUEST, "disconnect: a code from 3000 to 4999 and at most 123 bytes of reason are needed"
            )
        return codes.Disconnect(code, reason)

    async def refresh(self, fields: Fields) -> Answer:
        """Prolong the connections of ``user`` until ``expire_at`` (Unix time); end them if ``expired``."""
        user, client = fields.user(), fields.text("client")
        expires, is_expired = fields.number("expire_at"), fields.flag("expired")
        for member in self._registry.find(user, client):
            if is_expired:
                member.end(codes.DISCONNECT_CONNECTION_EXPIRED)
            else:
                member.prolong(expires or None)
        return {}

    # Channels

    async def presence(self, fields: Fields) -> Answer:
        """Tell who is on ``channel`` -> ``{"presence": {client: {"client", "user", …}}}``."""
        channel = self._with_presence(fields)
        broker = self._node.broker
        present: Mapping[str, ClientInfo] = await _answer(lambda done: broker.presence(channel, done))
        return {"presence": {client: _info(info) for client, info in present.items()}}

    async def presence_stats(self, fields: Fields) -> Answer:
        """Tell how many are on ``channel`` -> ``{"num_clients", "num_users"}``."""
        channel = self._with_presence(fields)
        broker = self._node.broker
        present: Attendance = await _answer(lambda done: broker.presence_stats(channel, done))
        return {"num_clients": present.clients, "num_users": present.users}

    def _with_presence(self, fields: Fields) -> str:
        channel = fields.channel()
        if not self._node.namespaces.of(channel).presence:
            raise ApiError(NOT_AVAILABLE, "the channel keeps no presence")
        return channel

    async def history(self, fields: Fields) -> Answer:
        """Read what ``channel`` keeps -> ``{"publications", "offset", "epoch"}``; ``limit`` 0 is the position alone."""
        channel, retention = self._with_history(fields)
        limit, since = fields.number("limit"), fields.position("since")
        wanted = Slice(limit if limit >= 0 else None, since, fields.flag("reverse"))
        broker = self._node.broker
        stream: Stream = await _answer(lambda done: broker.history(channel, retention, wanted, done))
        if since is not None and since.epoch and since.epoch != stream.top.epoch:
            raise ApiError(UNRECOVERABLE_POSITION, "the position is of another epoch")
        publications = [_publication(publication) for publication in stream.publications]
        return {"publications": publications, "epoch": stream.top.epoch, "offset": stream.top.offset}

    async def history_remove(self, fields: Fields) -> Answer:
        """Forget what ``channel`` keeps; its position stays."""
        channel, _ = self._with_history(fields)
        broker = self._node.broker
        await _answer(lambda done: broker.remove_history(channel, done))
        return {}

    def _with_history(self, fields: Fields) -> tuple[str, Retention]:
        channel = fields.channel()
        retention = self._node.namespaces.of(channel).retention
        if not retention.keeps:
            raise ApiError(NOT_AVAILABLE, "the channel keeps no history")
        return channel, retention

    async def channels(self, fields: Fields) -> Answer:
        """Name the channels that somebody listens to, and how many do; ``pattern`` as in a shell."""
        pattern = fields.text("pattern")
        return {
            "channels": {
                name: {"num_clients": sum(lane.listeners for lane in audience.lanes.values())}
                for name, audience in self._node.audiences.items()
                if not pattern or fnmatchcase(name, pattern)
            }
        }

    async def info(self, fields: Fields) -> Answer:
        """Tell of the nodes: this one."""
        node = {
            "uid": self._node_id,
            "name": self._node_id,
            "version": __version__,
            "num_clients": len(self._registry),
            "num_users": self._registry.users,
            "num_channels": len(self._node.audiences),
            "num_subs": self._node.hub.subscriptions,
            "uptime": int(self._clock() - self._started),
        }
        return {"nodes": [node]}


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
