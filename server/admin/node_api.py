"""The commands of the server API that concern the clients of this process, and what there is here."""

from __future__ import annotations

import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from server import __version__
from server.admin.api import MOST_CHANNELS, Answer, Api
from server.admin.fields import BAD_REQUEST, INT64, NOT_AVAILABLE, ApiError, Fields
from server.dialects.centrifuge import codes
from server.node.node import Node
from server.node.registry import Member, Registry

if TYPE_CHECKING:
    from server.edge.connection import Connection


class NodeApi(Api):
    """All commands, on one node; `connections` tells how many there are, whatever they have said of themselves.

    `find` returns the connection of a client by the name that the debug pages call it.
    """

    def __init__(
        self,
        node: Node,
        registry: Registry,
        *,
        clock: Callable[[], float],
        max_channel_length: int,
        max_message_size: int,
        node_id: str = "",
        wall_clock: Callable[[], float] = time.time,
        connections: Callable[[], int] | None = None,
        find: Callable[[str], Connection | None] = lambda client: None,
    ) -> None:
        super().__init__(node, max_channel_length=max_channel_length, max_message_size=max_message_size)
        self._node = node
        self._registry = registry
        self._clock = clock
        self._started = clock()
        self._node_id = node_id
        self._wall_clock = wall_clock
        self._connections = connections or registry.__len__
        self._find = find

    def _members(self, fields: Fields) -> list[Member]:
        """Find the clients of ``user``, or the one of them whose id is ``client`` or (the same here) ``session``."""
        user, client, session = fields.user(), fields.text("client"), fields.text("session")
        if client and session and client != session:
            return []
        return self._registry.find(user, client or session)

    async def subscribe(self, fields: Fields) -> Answer:
        """Put the clients of ``user`` (or its ``client``) on ``channel``.

        An error says that it could not be done for each of them; clients of the raw dialect, which are on one channel
        for good, count only if there are no others.
        """
        channel, members = fields.channel(), self._members(fields)
        info, data = fields.shown("info") or b"", fields.shown("data")
        expires = self._moment(fields)
        for name in ("recover_since", "override"):
            if fields.members(name):
                raise ApiError(NOT_AVAILABLE, f"{name}: not available")
        if expires is not None and expires <= self._wall_clock():
            raise ApiError(BAD_REQUEST, "expire_at: is in the past")
        faults = [member.enter(channel, info, data, expires) for member in members]
        wrong = [fault for fault in faults if fault not in (None, codes.ERROR_ALREADY_SUBSCRIBED)]
        for fault in wrong:
            if fault is not None and (fault is not codes.ERROR_NOT_AVAILABLE or len(wrong) == len(faults)):
                raise ApiError(fault.code, fault.message)
        return {}

    async def unsubscribe(self, fields: Fields) -> Answer:
        """Take the clients of ``user`` (or its ``client``) off ``channel``; off all of them when it is missing."""
        channel = fields.channel() if fields.text("channel", self._max_channel_length) else ""
        for member in self._members(fields):
            member.throw_out(channel, codes.UNSUBSCRIBE_BY_SERVER)
        return {}

    async def disconnect(self, fields: Fields) -> Answer:
        """End the connections of ``user`` (or its ``client``), but not those of the client ids in ``whitelist``.

        Here ``client`` alone will do, and mean any connection by the name that the debug pages call it.
        """
        if "user" not in fields and fields.text("client"):
            self._end_one(fields.text("client"), _disconnect(fields.part("disconnect")))
            return {}
        members, spared = self._members(fields), fields.texts("whitelist", MOST_CHANNELS)
        disconnect = _disconnect(fields.part("disconnect"))
        for member in members:
            if member.client not in spared:
                member.end(disconnect)
        return {}

    def _end_one(self, client: str, disconnect: codes.Disconnect) -> None:
        """End the connection of a client, who may be new, or without a name, or of a dialect that has none."""
        connection = self._find(client)
        if connection is None:
            return
        if connection.session is not None:
            connection.session.end(disconnect)
        else:
            connection.abort("disconnected by the server API")

    async def refresh(self, fields: Fields) -> Answer:
        """Prolong the connections of ``user`` until ``expire_at`` (Unix time; 0: for ever); end them if ``expired``."""
        members, expires = self._members(fields), self._moment(fields)
        if "info" in fields:
            raise ApiError(NOT_AVAILABLE, "info: not available")
        is_expired = fields.flag("expired") or (expires is not None and expires <= self._wall_clock())
        for member in members:
            if is_expired:
                member.end(codes.DISCONNECT_CONNECTION_EXPIRED)
            else:
                member.prolong(expires)
        return {}

    def _moment(self, fields: Fields) -> int | None:
        return fields.natural("expire_at", INT64) or None

    async def channels(self, fields: Fields) -> Answer:
        """Name the channels that somebody listens to, and how many do; ``pattern`` as in a shell."""
        pattern = fields.text("pattern")
        return {
            "channels": {
                name: {"num_clients": sum(lane.listeners for lane in audience.lanes.values())}
                for name, audience in self._node.audiences.items()
                if audience.lanes and (not pattern or fnmatchcase(name, pattern))
            }
        }

    async def info(self, fields: Fields) -> Answer:
        """Tell of the nodes: this one."""
        node = {
            "uid": self._node_id,
            "name": self._node_id,
            "version": __version__,
            "num_clients": self._connections(),
            "num_users": self._registry.users,
            "num_channels": len(self._node.audiences),
            "num_subs": self._node.hub.subscriptions,
            "uptime": int(self._clock() - self._started),
        }
        return {"nodes": [node]}


def _disconnect(given: Fields | None) -> codes.Disconnect:
    if given is None:
        return codes.DISCONNECT_FORCE_NO_RECONNECT
    code, reason = given.number("code"), given.text("reason", 123)
    if not 3000 <= code <= 4999 or len(reason.encode()) > 123:
        raise ApiError(BAD_REQUEST, "disconnect: a code from 3000 to 4999 and at most 123 bytes of reason are needed")
    return codes.Disconnect(code, reason)
