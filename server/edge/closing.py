"""Close codes: which there are, what they tell the client, and how they are counted.

RFC 6455, section 7.4; the table is in the contract (README, "Close codes").
"""

from enum import IntEnum
from typing import Final


class Close(IntEnum):
    """The codes that the raw dialect sends."""

    GOING_AWAY = 1001
    BAD_DATA = 1007
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL = 1011
    RESTART = 1012
    TOO_SLOW = 1013
    NO_PONG = 3012


ABNORMAL: Final = 1006

_COUNTED: Final = frozenset({1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3012})


def close_label(code: int) -> str:
    """Name a close code for a metric: clients may send any of 4,000 codes, and labels are bounded."""
    return str(code) if code in _COUNTED else "other"
