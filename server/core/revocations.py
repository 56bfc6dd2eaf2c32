"""Which signed tokens are good no more, though their time is not over.

Laws:
- what is revoked stays so until the end that was said of it: of two words about the same, the later end and the later
  date hold. So it matters neither in which order they are heard nor how often.
- a token that does not say when it was issued counts as issued before everything.
- MOST_KEPT entries at most: what is beyond is refused, never traded for another.

An entry remembers the offset at which a stream says it in full, so that it can be said again before the stream forgets
it. Time is an argument, in Unix seconds. Knows neither signatures nor brokers nor clients.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, takewhile
from math import inf
from typing import Final, NamedTuple

# What the server API takes, and what there is room for: several servers may be asked at the same moment.
MOST: Final = 10_000
MOST_KEPT: Final = 15_000
# The offset of what no stream says now: before all others.
UNSAID: Final = -(1 << 60)

Key = tuple[str, str, str]


class Token(NamedTuple):
    """What a token says of itself: its id ("" without one), whose it is, and when it was issued (-inf: unknown).

    `channel` is the one that a subscription token opens, "" for a connection token.
    """

    uid: str = ""
    user: str = ""
    issued: float = -inf
    channel: str = ""


@dataclass(frozen=True, slots=True)
class Revocation:
    """What is revoked, and until when (`ends`; inf is for good): the token with the id `uid`, or several.

    Without a `uid` it is the tokens of `user` that were issued before `before`: those for connections, or with a
    `channel` those for subscriptions to it.
    """

    uid: str = ""
    user: str = ""
    channel: str = ""
    before: float = 0.0
    ends: float = inf

    @property
    def key(self) -> Key:
        """What it is about: two of the same key are one."""
        return self.uid, self.user, self.channel

    def joined(self, other: Revocation) -> Revocation:
        """Return what holds when both were said of the same."""
        before, ends = max(self.before, other.before), max(self.ends, other.ends)
        return Revocation(self.uid, self.user, self.channel, before, ends)


class Revocations:
    """See the module."""

    def __init__(self) -> None:
        # With the offset, and in the order of the offsets.
        self._entries: dict[Key, tuple[Revocation, int]] = {}
        self._next_end = inf

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, revocation: Revocation) -> bool:
        """Tell if something was said of the same."""
        return revocation.key in self._entries

    def refuses(self, token: Token) -> bool:
        """Tell if a token was revoked."""
        entries = self._entries
        if not entries:
            return False
        if token.uid and (token.uid, "", "") in entries:
            return True
        entry = entries.get(("", token.user, token.channel))
        return entry is not None and token.issued < entry[0].before

    def add(self, revocation: Revocation, offset: int) -> bool:
        """Take what a stream says at `offset`; tell if more is revoked than before."""
        key, entries = revocation.key, self._entries
        known, said = entries.get(key, (None, UNSAID))
        if known is None and len(entries) >= MOST_KEPT:
            return False
        joined = revocation if known is None else known.joined(revocation)
        if joined == revocation:
            entries.pop(key, None)
            said = offset
        entries[key] = joined, said
        self._next_end = min(self._next_end, joined.ends)
        return joined != known

    def forget_old(self, now: float) -> None:
        """Forget what has ended."""
        if now < self._next_end:
            return
        for key in [key for key, (revocation, _) in self._entries.items() if revocation.ends <= now]:
            del self._entries[key]
        self._next_end = min((revocation.ends for revocation, _ in self._entries.values()), default=inf)

    def unsay(self) -> None:
        """Know that the stream is gone that said all this."""
        self._entries = {key: (revocation, UNSAID) for key, (revocation, _) in self._entries.items()}

    def faded(self, offset: int, most: int) -> list[tuple[Revocation, int]]:
        """Return at most so many of those that were last said at `offset` or before it, and where that was."""
        return list(islice(takewhile(lambda entry: entry[1] <= offset, self._entries.values()), most))
