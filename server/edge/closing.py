"""Close codes: why the edge ends a connection, what the client is told, and how it is counted.

RFC 6455, section 7.4; the table is in the contract (README, "Close codes"). Law: a cause is finer than a code. The edge
ends a connection for a cause; the session's dialect decides the code and the words of the goodbye; what is recorded
and counted is what went on the wire.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from websockets.frames import Close as CloseFrame


class Close(IntEnum):
    """Why the edge ends a connection, by the code that says it; the raw dialect says `standard` ones."""

    GOING_AWAY = 1001
    BAD_DATA = 1007
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL = 1011
    RESTART = 1012
    TOO_SLOW = 1013
    NO_PONG = 3012
    # Policies with a number of their own (Centrifugo's), so that a dialect can tell them from the others.
    EXPIRED = 3005
    TOO_MANY = 3013
    STALE = 3502


ABNORMAL: Final = 1006

_AS_STANDARD: Final[dict[int, int]] = dict.fromkeys((Close.EXPIRED, Close.TOO_MANY, Close.STALE), Close.POLICY)

_COUNTED: Final = frozenset(
    {1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013}
    | {3000, 3001, *range(3003, 3015), *range(3500, 3510)}
)


class Cause(NamedTuple):
    """Why a connection ended: the code that was on the wire, and a reason that quotes no client."""

    code: int
    reason: str


def standard(code: int) -> int:
    """Return the code that says a cause in a dialect without codes of its own; any other code as it is."""
    return _AS_STANDARD.get(code, code)


def seen(received: CloseFrame | None, sent: CloseFrame | None) -> Cause:
    """Tell why a connection ended from the close frames alone, when nothing of ours ended it."""
    if received is not None:
        return Cause(int(received.code), "closed by the client")
    if sent is not None:
        return Cause(int(sent.code), sent.reason)
    return Cause(ABNORMAL, "connection lost")


def close_label(code: int) -> str:
    """Name a close code for a metric: clients may send any of 4,000 codes, and labels are bounded."""
    return str(code) if code in _COUNTED else "other"


def come_back(
    code: Close, words: str, within: float, draw: Callable[[float, float], float] = random.uniform
) -> Callable[[], tuple[int, str]]:
    """Make the goodbye that tells each one to come back at a time of its own in the next `within` seconds.

    It says `words` and ``reconnect_after_ms=N``, where the session's dialect has room for a reason.
    """

    def farewell() -> tuple[int, str]:
        return code, f"{words}reconnect_after_ms={round(1000 * draw(0.0, within))}"

    return farewell
