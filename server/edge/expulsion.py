"""Ends what lives by a token that was revoked: a connection, or one of its subscriptions.

Laws: whoever is here when something is revoked is looked at DELAY later; what is revoked in the meantime is part of the
same look, and one turn of the event loop looks at LOOKED_AT clients. Who comes later is the credentials' affair.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final

from server.core.revocations import Token

if TYPE_CHECKING:
    from server.edge.connection import Connection

# A quarter of what is promised: many revocations are one look, and however many there are, so much is all they cost.
DELAY: Final = 0.25
LOOKED_AT: Final = 500


class Expulsion:
    """Looks through `connections`; `call_later` is the event loop's."""

    def __init__(
        self,
        connections: Collection[Connection],
        is_revoked: Callable[[Token], bool],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._connections = connections
        self._is_revoked = is_revoked
        self._call_later = call_later
        self._is_due = False

    def hurry(self) -> None:
        """Look soon. Idempotent until then."""
        if not self._is_due:
            self._is_due = True
            self._call_later(DELAY, self._look)

    def _look(self) -> None:
        self._is_due = False
        self._look_at(list(self._connections))

    def _look_at(self, connections: list[Connection]) -> None:
        for connection in connections[:LOOKED_AT]:
            if connection.session is not None:
                connection.session.drop_revoked(self._is_revoked)
        if rest := connections[LOOKED_AT:]:
            self._call_later(0.0, lambda: self._look_at(rest))
