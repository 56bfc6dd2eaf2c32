"""How an open connection ends: by whom, with which code, what is still written before, and what is dropped.

RFC 6455, section 7. Laws:
- the first cause is the one that is recorded; what follows from it is not one.
- the edge knows why a connection ends, its session how that is said: every cause of ours goes through `farewell`.
- no data frame follows a close frame: the client takes no more `part` before one is written. What is queued for it then
  is dropped, and counted; only `finish` waits for it to go out.
- whoever is told goodbye has a deadline for the answer, on the wheel; who is dropped, or does not answer, is reset.
- every way to end is idempotent, and nothing happens once the connection is not open; but `abort` works until it is
  lost.

Knows neither what is read nor the parser: that a client has closed, it sees by the library's state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from websockets.protocol import State

from server.edge.closing import ABNORMAL, Cause, Close, seen

if TYPE_CHECKING:
    from websockets.server import ServerProtocol

    from server.edge.connection import Connection
    from server.edge.listener import Listener
    from server.edge.outlet import Outlet
    from server.edge.session import Session


class Ending:
    """The end of one connection: to come, about to come, or brought about."""

    __slots__ = ("_cause", "_connection", "_listener", "_outlet", "_postponed", "_protocol", "_session")

    def __init__(
        self, connection: Connection, session: Session, protocol: ServerProtocol, outlet: Outlet, listener: Listener
    ) -> None:
        self._connection = connection
        self._session = session
        self._protocol = protocol
        self._outlet = outlet
        self._listener = listener
        self._cause: Cause | None = None
        self._postponed: Cause | None = None  # the goodbye that comes after what is queued

    # Goodbyes

    def close(self, code: int, reason: str) -> None:
        """Say goodbye: part from the hub at once, send a close frame, and wait for its answer. Section 7.1.2.

        `code` is one of `Close`, which the session's `farewell` puts into its dialect's words, or one of the dialect's
        own; `reason` at most 123 bytes.
        """
        self._say_goodbye(code, reason, self._protocol.send_close)

    def fail(self, code: int, reason: str) -> None:
        """Break off over what the client did: as `close`, but what it sends from now on is not even looked at.

        Section 7.1.7.
        """
        self._say_goodbye(code, reason, self._protocol.fail)

    def finish(self, code: int, reason: str) -> None:
        """Say goodbye after what is queued: nothing new is taken, and the close frame comes last."""
        if not self._is_open or self._postponed is not None:
            return
        self._connection.flush()
        outbox = self._session.outbox
        if outbox is None or outbox.is_empty:
            self.close(code, reason)
        else:
            self._postponed = Cause(code, reason)
            self._connection.reader.is_leaving = True
            self._session.finish()

    def go_on(self) -> bool:
        """Say the goodbye that waited for the queue to go out; false if none did."""
        if self._postponed is None:
            return False
        self.close(*self._postponed)
        return True

    def evict(self, why: str) -> None:
        """Throw out a client that is too slow: it gets a close frame, if it takes one within EVICTION_GRACE."""
        if not self._is_open:
            return
        self._listener.slow(self._connection, why)
        self.close(Close.TOO_SLOW, why)
        self._listener.wheel.evicting.add(self._connection, self._listener.clock())

    # Without waiting for an answer

    def lose_contact(self) -> None:
        """End a connection whose ping was not answered: say why, should the peer still be there, and go."""
        self.close(Close.NO_PONG, "no pong")
        self.part()
        # Not the outlet's: a reset would overtake the close frame.
        self._connection.transport.abort()

    def abandon(self) -> None:
        """Throw out a client whose socket has taken nothing for `write_timeout`: no frame would reach it."""
        # Over TLS the end of an abort may come after another look at it.
        if self._is_open and self._cause is None:
            self._listener.slow(self._connection, "write timeout")
            self._note(Cause(*self._session.farewell(Close.TOO_SLOW, "write timeout")))
        self.abort("write timeout")

    def abort(self, reason: str) -> None:
        """Drop the connection now, with whatever is unsent."""
        self.part()
        if self._protocol.close_sent is None:  # otherwise that is the cause, and this only how it ends
            self._note(Cause(ABNORMAL, reason))
        self._outlet.abort()

    # Whoever brought it about

    def part(self) -> None:
        """Take part no more: off the channel, and what is queued is dropped."""
        self._session.leave()
        if self._session.outbox is not None:
            self._listener.backlog.laggards.pop(self._session.outbox, None)

    def settle(self) -> Cause:
        """Tell why a connection that is lost has ended."""
        return self._cause or seen(self._protocol.close_rcvd, self._protocol.close_sent)

    @property
    def _is_open(self) -> bool:
        return self._protocol.state is State.OPEN

    def _say_goodbye(self, code: int, reason: str, say: Callable[[int, str], None]) -> None:
        if not self._is_open:
            return
        connection = self._connection
        cause = Cause(*self._session.farewell(code, reason))
        self.part()
        self._postponed = None
        self._note(cause)
        say(*cause)
        self._listener.wheel.closing.add(connection, self._listener.clock())
        self._outlet.answer(may_owe=True)
        connection.reader.hear_out()

    def _note(self, cause: Cause) -> None:
        if self._cause is None:
            self._cause = cause
            self._connection.reader.is_leaving = True
