"""The rules of a channel, by its name: ``NAME:rest`` is in the namespace NAME, if there is one.

A prefix that names no namespace means nothing, and the channel has the rules that all have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from server.brokers.base import Retention, Terms
from server.core.lag import ChannelTerms, LagLimits


class RecoveryMode(StrEnum):
    """What a client that comes back gets: all that it missed, or the latest publication."""

    STREAM = "stream"
    CACHE = "cache"


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """What holds on a channel.

    `subscribe` opens it to every client that was let in (and `anonymous` to those without a user among them); `publish`
    lets clients speak on it, `read_history` and `read_presence` ask about it; `allow_recovery` lets those who may not
    read the history recover from it all the same. `batch_delay` is in seconds. Who asks for publications gets at most
    `history_limit`, and who has missed more than `recovery_limit` recovers none (None: no limit).
    """

    publish: bool = True
    subscribe: bool = True
    anonymous: bool = True
    read_history: bool = True
    read_presence: bool = True
    allow_recovery: bool = False
    lag: LagLimits = field(default_factory=LagLimits)
    batch_delay: float = 0.0
    retention: Retention = field(default_factory=Retention)
    history_limit: int | None = None
    recovery_limit: int | None = None
    presence: bool = False
    join_leave: bool = False
    delta: bool = False
    recovery_mode: RecoveryMode = RecoveryMode.STREAM
    # What the broker is asked for with each publication; made once, it goes with all of them.
    publishing: Terms = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "publishing", Terms(self.retention))

    @property
    def is_positioned(self) -> bool:
        """Tell if subscribers know their place in the stream, and can recover."""
        return self.retention.keeps

    @property
    def shows_joins(self) -> bool:
        """Tell if clients may be told who comes and goes: only where they may ask who is there."""
        return self.join_leave and self.read_presence

    @property
    def loses_in_silence(self) -> bool:
        """Tell if the lag policy may leave out publications without anyone being told."""
        return not self.is_positioned and self.lag.loses_parts

    def terms(self, *, with_position: bool) -> ChannelTerms:
        """Say how the hub treats those who listen with a position, or without."""
        return ChannelTerms(self.lag, self.batch_delay, declares_gaps=with_position and self.is_positioned)


class Namespaces:
    """Finds the rules of a channel."""

    def __init__(self, default: ChannelOptions, named: Mapping[str, ChannelOptions] | None = None) -> None:
        self.default = default
        self._named = dict(named or {})

    def of(self, channel: str) -> ChannelOptions:
        """Return the rules of a channel."""
        if not self._named:
            return self.default
        name, colon, _ = channel.partition(":")
        return self._named.get(name, self.default) if colon else self.default
