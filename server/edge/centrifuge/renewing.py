"""The new tokens that a client brings while it is connected: for its connection, or for one of its subscriptions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from server.dialects.centrifuge import codes, commands
from server.dialects.centrifuge.replies import RefreshResult, SubRefreshResult
from server.edge.credentials import Expired, Refused

if TYPE_CHECKING:
    from server.edge.centrifuge.session import CentrifugeSession


def refresh(session: CentrifugeSession, id: int, command: commands.Refresh) -> None:
    """Let the connection last as long as its new token says; a bad one ends it.

    So does one that puts the client on other channels: it comes back, and is put there. What others see of the client
    (`info`) is what the new token says, if it says anything.
    """
    service = session.service
    try:
        identity = service.credentials.check(command.token or None)
    except Expired:
        # Not an error: an SDK would give up, but it gets itself a new token when it connects anew.
        session.end(codes.DISCONNECT_CONNECTION_EXPIRED)
        return
    except Refused:
        session.end(codes.DISCONNECT_INVALID_TOKEN)
        return
    if identity.user != session.user:
        session.end(codes.DISCONNECT_INVALID_TOKEN)
        return
    if not session.places.suit(identity):
        session.end(codes.DISCONNECT_INSUFFICIENT_STATE)
        return
    known = session.identity.info
    session.identity = identity if identity.info else replace(identity, info=known)
    if session.identity.info != known:
        session.places.show_anew()
    session.last_until(identity.expires)
    session.reply(id, RefreshResult(session.client, service.version, *service.expiry(identity.expires)))


def sub_refresh(session: CentrifugeSession, id: int, command: commands.SubRefresh) -> None:
    """Let a subscription last as long as its new token says, with the `info` that it says.

    One that is over leaves it to end when it was to end. A bad one ends the connection. Both are Centrifugo's ways.
    """
    service, places = session.service, session.places
    place = places.get(command.channel)
    if place is None or command.type:
        session.reply(id, codes.ERROR_NOT_AVAILABLE if command.type else codes.ERROR_PERMISSION_DENIED)
        return
    if not command.token:
        session.reply(id, codes.ERROR_BAD_REQUEST)
        return
    try:
        grant = service.subscription_tokens.check(command.token, channel=place.channel, user=session.user)
    except Expired:
        # Not an error: an SDK would give the channel up for good. It asks for another token at the end that it is told.
        session.reply(id, SubRefreshResult(*service.expiry(place.expires)))
        return
    except Refused:
        session.end(codes.DISCONNECT_INVALID_TOKEN)
        return
    places.live_by(place, grant.token)
    places.prolong(place, grant.expires)
    if grant.info != place.chan_info:
        place.chan_info = grant.info
        places.show_anew(place)
    session.reply(id, SubRefreshResult(*service.expiry(grant.expires)))
