"""The lag policies: what happens to a client that does not keep up.

A client lags while its socket takes no more; then its publications go to its outbox, and one of these decides what
a full outbox does. The laws of all four: an outbox never holds more than its limits, in messages and in bytes; the
order of what is kept is the order of publication; whatever is not kept is counted.
"""

from dataclasses import dataclass
from enum import StrEnum


class LagPolicy(StrEnum):
    """What a full queue does.

    `DISCONNECT` throws the client out: it comes back and starts afresh. `DROP_OLDEST` keeps the newest that fit,
    `DROP_NEWEST` the oldest. `CONFLATE` acts before the queue is full: the newest publication of a channel replaces
    the one that waits, so that a laggard has the latest state to read and nothing else.
    """

    DISCONNECT = "disconnect"
    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"
    CONFLATE = "conflate"


@dataclass(frozen=True, slots=True)
class LagLimits:
    """How far behind a client may fall, in messages and in bytes, and what then.

    With `enforce` false the policy only reports what it would have done (once each time a client falls behind):
    the node's budget is then the only bound.
    """

    policy: LagPolicy = LagPolicy.DISCONNECT
    messages: int = 256
    bytes: int = 1024 * 1024
    enforce: bool = True

    @property
    def loses_parts(self) -> bool:
        """Tell if a client may stay connected and yet miss some of what was published."""
        return self.enforce and self.policy is not LagPolicy.DISCONNECT

    def admit(self, messages: int, size: int) -> bool:
        """Tell if so many messages, of `size` bytes together, may wait."""
        return messages <= self.messages and size <= self.bytes


@dataclass(frozen=True, slots=True)
class ChannelTerms:
    """What holds for everyone on a channel; `batch_delay` in seconds.

    The limits hold for all that waits for a client under the same `lag` object: channels that share it share the room.
    With `declares_gaps` no policy drops a part of the channel's stream in silence: the client loses all that waits of
    it, is taken off the channel and told so, and can recover.
    """

    lag: LagLimits
    batch_delay: float = 0.0
    declares_gaps: bool = False
