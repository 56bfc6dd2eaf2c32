"""The connect command: who the client is, and the channels that the server puts it on.

The reply comes when it is on all of them; what it asks in the meantime waits. Laws:
- what all channels recover together is no more than what may wait for a client: whichever come when there is no room
  for theirs have not recovered.
- a client that comes back is put again on the channels that it says it was on (`subs`), where they are open to it: what
  the server API has put it on would else be over at every break of the line. Nobody gets by that to where nobody could
  subscribe, and what there is no room or no leave for is left out.
- a client can be found from the moment it has said who it is; what is done to it on its way here holds, and what it
  would be told of that comes after the reply.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from server.dialects.centrifuge import codes, commands
from server.dialects.centrifuge.replies import ConnectResult, SubscribeResult
from server.edge.centrifuge.places import PLAIN
from server.edge.credentials import Expired, Identity, Refused, ServerSubscription
from server.node.permissions import personal_channel

if TYPE_CHECKING:
    from server.edge.centrifuge.places import Place
    from server.edge.centrifuge.session import CentrifugeSession


log = logging.getLogger("stentor.edge")


def identify(
    session: CentrifugeSession, token: str, admitted: Identity | None
) -> Identity | codes.Error | codes.Disconnect:
    """Tell who a client is by its token, or else as whom it was `admitted` at the upgrade; or say why it is nobody."""
    if not token and admitted is not None:
        return admitted
    try:
        return session.service.credentials.check(token or None)
    except Expired:
        return codes.ERROR_TOKEN_EXPIRED
    except Refused:
        return codes.DISCONNECT_INVALID_TOKEN


class Arrival:
    """A client that is being connected."""

    def __init__(self, session: CentrifugeSession, id: int, command: commands.Connect) -> None:
        self._session = session
        self._id = id
        self._command = command
        self._results: dict[str, SubscribeResult] = {}
        self._missing = 0
        self._recovered = 0  # bytes, in all channels

    def begin(self) -> None:
        session = self._session
        channels = self._channels()
        if len(channels) > session.service.max_channels:
            session.end(codes.DISCONNECT_CHANNEL_LIMIT)
            return
        self._missing = len(channels) + 1
        for channel, given in channels.items():
            if session.is_over:  # the broker is away, and the client was told
                return
            resumed = self._command.subs.get(channel)
            fault = session.places.enter(
                channel,
                self._entered,
                resumed=resumed,
                given=given,
                is_by_identity=channel in session.identity.granted,
            )
            if fault is not None:
                # The token names what is no channel: it is as bad as a forged one.
                session.end(codes.DISCONNECT_INVALID_TOKEN)
                return
        self._count_down()

    def _channels(self) -> dict[str, ServerSubscription]:
        """Return where the server puts the client, and how: where it has to be, and where it was and still may be."""
        session, service = self._session, self._session.service
        found = self._given()
        open_again = (
            channel
            for channel in self._command.subs
            if channel not in found
            and session.name_fault(channel) is None
            and service.permissions.may_subscribe(session.user, channel)
        )
        return found | dict.fromkeys(islice(open_again, max(0, service.max_channels - len(found))), PLAIN)

    def _given(self) -> dict[str, ServerSubscription]:
        session = self._session
        identity = session.identity
        found = dict.fromkeys(identity.channels, PLAIN) | dict(identity.subs)
        if session.service.permissions.personal_channels and identity.user:
            personal = personal_channel(identity.user)
            if session.name_fault(personal) is None:
                found.setdefault(personal, PLAIN)
            else:
                # Users are named by somebody else, and not for our sake: this one has no channel, but everything else.
                log.debug("a user has no personal channel: its name is no name for a channel")
        return found

    def _entered(self, place: Place, result: SubscribeResult | codes.Error) -> None:
        if isinstance(result, SubscribeResult):
            self._results[place.channel] = self._as_it_fits(result, place.options.lag.bytes)
        elif not place.has_left:  # else the server API has taken it off again
            self._session.end(codes.DISCONNECT_SERVER_ERROR)
            return
        self._count_down()

    def _as_it_fits(self, result: SubscribeResult, most_bytes: int) -> SubscribeResult:
        """Let a channel recover nothing for which the one reply, with what the others recover, has no room."""
        if not result.publications:
            return result
        size = sum(self._session.codec.sizes(result.publications))
        if self._recovered + size > most_bytes:
            return replace(result, recovered=False, publications=(), offset=result.publications[-1].offset)
        self._recovered += size
        return result

    def _count_down(self) -> None:
        self._missing -= 1
        if self._missing or self._session.is_over:
            return
        session, service = self._session, self._session.service
        expires = session.identity.expires
        session.reply(
            self._id,
            ConnectResult(
                client=session.client,
                version=service.version,
                expires=expires is not None,
                ttl=service.ttl(expires) if expires is not None else 0,
                subs=self._results,
                ping=service.ping_interval,
                pong=True,
                session=session.client,
                node=service.node_id,
                time=int(service.wall_clock() * 1000),
            ),
        )
        session.connected()
