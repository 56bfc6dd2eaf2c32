"""The numbers that the protocol gives to what goes wrong, with the words that its SDKs expect.

An `Error` answers one command; an `Unsubscribe` ends one subscription; a `Disconnect` ends the connection. Laws of the
numbers: a client resubscribes by itself after an unsubscribe code of 2500 and more; it reconnects by itself after a
disconnect code in 3000-3499 or 4000-4499, and never after 3500-3999 or 4500-4999. Source: centrifugal.dev, "Client
protocol codes".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Error:
    """Why a command failed. `temporary` invites the client to try the same again."""

    code: int
    message: str
    temporary: bool = False


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Why a connection ends: the WebSocket close code and its reason.

    The reason is plain words: the JavaScript SDK would take a JSON reason for advice on reconnecting.
    """

    code: int
    reason: str

    @property
    def reconnect(self) -> bool:
        """Tell if clients come back by themselves."""
        return not (3500 <= self.code < 4000 or 4500 <= self.code < 5000)


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Why a subscription ends. Also the push that says so."""

    code: int
    reason: str

    @property
    def resubscribe(self) -> bool:
        """Tell if clients resubscribe by themselves."""
        return self.code >= 2500


ERROR_INTERNAL: Final = Error(100, "internal server error", temporary=True)
ERROR_UNAUTHORIZED: Final = Error(101, "unauthorized")
ERROR_UNKNOWN_CHANNEL: Final = Error(102, "unknown channel")
ERROR_PERMISSION_DENIED: Final = Error(103, "permission denied")
ERROR_METHOD_NOT_FOUND: Final = Error(104, "method not found")
ERROR_ALREADY_SUBSCRIBED: Final = Error(105, "already subscribed")
ERROR_LIMIT_EXCEEDED: Final = Error(106, "limit exceeded")
ERROR_BAD_REQUEST: Final = Error(107, "bad request")
ERROR_NOT_AVAILABLE: Final = Error(108, "not available")
ERROR_TOKEN_EXPIRED: Final = Error(109, "token expired")
ERROR_EXPIRED: Final = Error(110, "expired")
ERROR_TOO_MANY_REQUESTS: Final = Error(111, "too many requests", temporary=True)
ERROR_UNRECOVERABLE_POSITION: Final = Error(112, "unrecoverable position")

UNSUBSCRIBE_BY_SERVER: Final = Unsubscribe(2000, "server unsubscribe")
UNSUBSCRIBE_INSUFFICIENT_STATE: Final = Unsubscribe(2500, "insufficient state")
UNSUBSCRIBE_EXPIRED: Final = Unsubscribe(2501, "subscription expired")
UNSUBSCRIBE_STATE_INVALIDATED: Final = Unsubscribe(2502, "state invalidated")

DISCONNECT_CONNECTION_CLOSED: Final = Disconnect(3000, "connection closed")
DISCONNECT_SHUTDOWN: Final = Disconnect(3001, "shutdown")
DISCONNECT_SERVER_ERROR: Final = Disconnect(3004, "internal server error")
DISCONNECT_CONNECTION_EXPIRED: Final = Disconnect(3005, "connection expired")
DISCONNECT_SUBSCRIPTION_EXPIRED: Final = Disconnect(3006, "subscription expired")
DISCONNECT_SLOW: Final = Disconnect(3008, "slow")
DISCONNECT_WRITE_ERROR: Final = Disconnect(3009, "write error")
DISCONNECT_INSUFFICIENT_STATE: Final = Disconnect(3010, "insufficient state")
DISCONNECT_FORCE_RECONNECT: Final = Disconnect(3011, "force reconnect")
DISCONNECT_NO_PONG: Final = Disconnect(3012, "no pong")
DISCONNECT_TOO_MANY_REQUESTS: Final = Disconnect(3013, "too many requests")
DISCONNECT_STATE_INVALIDATED: Final = Disconnect(3014, "state invalidated")
DISCONNECT_INVALID_TOKEN: Final = Disconnect(3500, "invalid token")
DISCONNECT_BAD_REQUEST: Final = Disconnect(3501, "bad request")
DISCONNECT_STALE: Final = Disconnect(3502, "stale")
DISCONNECT_FORCE_NO_RECONNECT: Final = Disconnect(3503, "force disconnect")
DISCONNECT_CONNECTION_LIMIT: Final = Disconnect(3504, "connection limit")
DISCONNECT_CHANNEL_LIMIT: Final = Disconnect(3505, "channel limit")
DISCONNECT_INAPPROPRIATE_PROTOCOL: Final = Disconnect(3506, "inappropriate protocol")
DISCONNECT_PERMISSION_DENIED: Final = Disconnect(3507, "permission denied")
DISCONNECT_NOT_AVAILABLE: Final = Disconnect(3508, "not available")
DISCONNECT_TOO_MANY_ERRORS: Final = Disconnect(3509, "too many errors")


class BadCommands(Exception):
    """A frame that is not commands; the connection ends with `disconnect`. Its text is for our log alone."""

    def __init__(self, why: str, disconnect: Disconnect = DISCONNECT_BAD_REQUEST) -> None:
        super().__init__(why)
        self.disconnect = disconnect
