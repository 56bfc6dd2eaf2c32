"""The new tokens that a client brings while it is connected: for its connection, or for one of its subscriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.dialects.centrifuge import codes, commands
from server.dialects.centrifuge.replies import RefreshResult, SubRefreshResult
from server.edge.credentials import Expired, Refused

if TYPE_CHECKING:
    from server.edge.centrifuge.session import CentrifugeSession


def refresh(session: CentrifugeSession, id: int, command: commands.Refresh) -> None:
    """Let the connection last as long as its new token says; a bad one ends it."""
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
    session.identity = identity
    session.last_until(identity.expires)
    session.reply(id, RefreshResult(session.client, service.version, *service.expiry(identity.expires)))


def sub_refresh(session: CentrifugeSession, id: int, command: commands.SubRefresh) -> None:
    """Let a subscription last as long as its new token says; with a bad one it stays as it is."""
    service, places = session.service, session.places
    place = places.get(command.channel)
    if place is None or command.type:
        session.reply(id, codes.ERROR_NOT_AVAILABLE if command.type else codes.ERROR_PERMISSION_DENIED)
        return
    try:
        grant = service.subscription_tokens.check(command.token, channel=place.channel, user=session.user)
    except Expired:
        session.reply(id, codes.ERROR_TOKEN_EXPIRED)
        return
    except Refused:
        session.reply(id, codes.ERROR_PERMISSION_DENIED)
        return
    places.prolong(place, grant.expires)
    session.reply(id, SubRefreshResult(*service.expiry(grant.expires)))
