"""What becomes of each command of a connected client: who answers it, and what has no answer.

Law: whatever the protocol knows is answered, with an error reply where it is not to be had here; only what says nothing
but that something has arrived has no answer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from server.dialects.centrifuge import codes, commands, replies
from server.dialects.centrifuge.codes import Disconnect
from server.edge.centrifuge import asking, renewing
from server.edge.centrifuge.places import FOSSIL

if TYPE_CHECKING:
    from server.dialects.centrifuge.codes import Error
    from server.edge.centrifuge.places import Place
    from server.edge.centrifuge.session import CentrifugeSession

_QUESTIONS: Final[dict[type, Callable[[CentrifugeSession, Any, asking.Answer], None]]] = {
    commands.Publish: asking.publish,
    commands.History: asking.history,
    commands.Presence: asking.presence,
    commands.PresenceStats: asking.presence_stats,
}


_LARGE: Final = frozenset((commands.History, commands.Presence))


def _subscribe(session: CentrifugeSession, id: int, command: commands.Subscribe) -> None:
    if command.delta not in ("", FOSSIL):
        session.end(codes.DISCONNECT_BAD_REQUEST)
        return
    answer = session.await_large(id) if command.recover else partial(session.reply, id)

    def entered(place: Place, result: replies.SubscribeResult | Error) -> None:
        answer(result)

    fault = session.places.subscribe(command, entered)
    if isinstance(fault, Disconnect):
        session.end(fault)
    elif fault is not None:
        answer(fault)


def _unsubscribe(session: CentrifugeSession, id: int, command: commands.Unsubscribe) -> None:
    if not command.channel:
        session.reply(id, codes.ERROR_BAD_REQUEST)
        return
    session.places.leave(command.channel)
    session.reply(id, replies.UnsubscribeResult())


def _ask(session: CentrifugeSession, id: int, command: Any) -> None:
    # Also where nothing can be found: a broker may remember each name that it is asked about.
    if fault := session.name_fault(command.channel):
        session.reply(id, fault)
        return
    answer = session.await_large(id) if type(command) in _LARGE else partial(session.reply, id)
    _QUESTIONS[type(command)](session, command, answer)


def _pong(session: CentrifugeSession, id: int, command: commands.Pong) -> None:
    session.take_pong()


def _reject(session: CentrifugeSession, id: int, command: commands.Rejected) -> None:
    session.reply(id, command.error)


def _ping(session: CentrifugeSession, id: int, command: commands.Ping) -> None:
    session.reply(id, codes.ERROR_NOT_AVAILABLE)


def _rpc(session: CentrifugeSession, id: int, command: commands.Rpc) -> None:
    session.reply(id, codes.ERROR_METHOD_NOT_FOUND)


def _ignore(session: CentrifugeSession, id: int, command: commands.Send) -> None:
    """A message to an application that is not here; the protocol has no answer to it."""


# By the type of a command's body: what is called with the session, the command's id, and that.
HANDLERS: Final[dict[type, Callable[[CentrifugeSession, int, Any], None]]] = {
    commands.Subscribe: _subscribe,
    commands.Unsubscribe: _unsubscribe,
    **dict.fromkeys(_QUESTIONS, _ask),
    commands.Ping: _ping,
    commands.Send: _ignore,
    commands.Rpc: _rpc,
    commands.Refresh: renewing.refresh,
    commands.SubRefresh: renewing.sub_refresh,
    commands.Pong: _pong,
    commands.Rejected: _reject,
}
