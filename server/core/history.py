"""A channel's recent publications, and where a client is among them.

*Offset* counts up by one per publication, from 1; *epoch* names this incarnation of the stream. The rules are
Centrifugo's ("History and recovery" in its documentation), so that its SDKs understand them:

- ``recovered`` is true only if the epoch matches and the history runs without a hole from the client's offset + 1 to
  the top, or the client is at the top. Otherwise false, and no publications: never a part of what was missed.
- what is old (``ttl`` seconds after the last publication) or too much (over ``size``) is forgotten; offset and epoch
  are not, so a client at the top recovers nothing, truly.

Time is an argument, in seconds of any monotonic clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from itertools import islice

from server.core.publication import Publication


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a stream: after the publication `offset` of the incarnation `epoch`."""

    offset: int
    epoch: str


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a client that comes back gets: all that it missed, or nothing and the word that it is not all."""

    recovered: bool
    publications: tuple[Publication, ...] = ()


class History:
    """One channel's stream."""

    __slots__ = ("_kept", "_last", "epoch", "size", "top", "ttl")

    def __init__(self, epoch: str, size: int, ttl: float) -> None:
        self.epoch = epoch
        self.size = size
        self.ttl = ttl
        self.top = 0
        self._kept: deque[Publication] = deque(maxlen=size)
        self._last = 0.0

    @property
    def position(self) -> Position:
        return Position(self.top, self.epoch)

    def idle_for(self, now: float) -> float:
        """Return the seconds since the last publication."""
        return now - self._last

    def append(self, publication: Publication, now: float) -> Publication:
        """Keep a publication; returns it with its offset."""
        self._forget_old(now)
        self.top += 1
        publication = replace(publication, offset=self.top)
        self._kept.append(publication)
        self._last = now
        return publication

    def clear(self) -> None:
        """Forget all publications; the position stays."""
        self._kept.clear()

    def latest(self, now: float) -> Publication | None:
        """Return the newest publication that is kept."""
        self._forget_old(now)
        return self._kept[-1] if self._kept else None

    def recover(self, since: Position, now: float, most: int | None = None) -> Recovery:
        """Return what was published after `since`; more than `most` publications can't be recovered."""
        self._forget_old(now)
        if since.epoch != self.epoch or since.offset > self.top:
            return Recovery(False)
        missed = self.top - since.offset
        if missed > len(self._kept) or (most is not None and missed > most):
            return Recovery(False)
        return Recovery(True, tuple(islice(self._kept, len(self._kept) - missed, None)))

    def read(
        self, now: float, *, limit: int | None = None, since: Position | None = None, reverse: bool = False
    ) -> tuple[Publication, ...]:
        """Return what is kept, oldest first (or newest first), after `since` (or before it), at most `limit`.

        `limit` None is no limit. Raises Unrecoverable when `since` is of another epoch.
        """
        self._forget_old(now)
        if since is not None and since.epoch and since.epoch != self.epoch:
            raise Unrecoverable
        kept = reversed(self._kept) if reverse else iter(self._kept)
        if since is not None:
            kept = (p for p in kept if (p.offset < since.offset if reverse else p.offset > since.offset))
        return tuple(islice(kept, limit))

    def _forget_old(self, now: float) -> None:
        if self._kept and now - self._last >= self.ttl:
            self._kept.clear()


class Unrecoverable(Exception):
    """A position that is not of this stream."""
