"""A channel's recent publications, and where a client is among them.

*Offset* counts up by one per publication, from 1; *epoch* names this incarnation of the stream. The rules are
Centrifugo's ("History and recovery" in its documentation), so that its SDKs understand them:

- ``recovered`` is true only if the epoch matches and the history runs without a hole from the client's offset + 1 to
  the top, or the client is at the top. Otherwise false, and no publications: never a part of what was missed.
- what is old (``ttl`` seconds after the last publication) or too much (over ``size``) is forgotten; offset and epoch
  are not, so a client at the top recovers nothing, truly.

`judge` and `judge_cache` decide on any broker's answer; `History` is the stream of a broker that keeps it in memory.
Time is an argument, in seconds of any monotonic clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from operator import attrgetter
from typing import Final, NamedTuple

from server.core.publication import Publication


class Position(NamedTuple):
    """A place in a stream: after the publication `offset` of the incarnation `epoch`.

    A tuple, for one is made for each publication that is kept, and this is the fastest value to make.
    """

    offset: int
    epoch: str


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a client that comes back gets: all that it missed, or nothing and the word that it is not all."""

    recovered: bool
    publications: tuple[Publication, ...] = ()


UNRECOVERED: Final = Recovery(False)
UP_TO_DATE: Final = Recovery(True)


# Tells how many bytes each of some publications takes; only as far as it is asked, for to find out may be dear.
Sizes = Callable[[Iterable[Publication]], Iterable[int]]


def payload_sizes(publications: Iterable[Publication]) -> Iterable[int]:
    """Count the payloads alone, whatever they are put into."""
    return (len(publication.payload) for publication in publications)


def first_that_fit(
    publications: Iterable[Publication], most_bytes: int, sizes: Sizes = payload_sizes
) -> tuple[Publication, ...]:
    """Return as many of them, from the first on, as `most_bytes` have room for; the first one even if they have not.

    Who reads a history part by part would never get past it otherwise.
    """
    found = tuple(publications)
    fit = 0
    for taken in accumulate(sizes(found)):
        if taken > most_bytes:
            break
        fit += 1
    return found[: max(fit, 1)]


def judge(
    since: Position,
    top: Position,
    publications: Sequence[Publication],
    most_bytes: int | None = None,
    sizes: Sizes = payload_sizes,
) -> Recovery:
    """Decide what a client gets that has seen the stream up to `since`.

    `publications` are what the broker has after `since.offset`, oldest first, and `top` is where the stream stood then.
    A client without an epoch takes the stream's for its own. More than `most_bytes`, by their `sizes`, can't be
    recovered.
    """
    if since.epoch and since.epoch != top.epoch:
        return UNRECOVERED
    if len(publications) != top.offset - since.offset:
        return UNRECOVERED
    if any(publication.offset != offset for offset, publication in enumerate(publications, since.offset + 1)):
        return UNRECOVERED
    if most_bytes is not None and sum(sizes(publications)) > most_bytes:
        return UNRECOVERED
    return Recovery(True, tuple(publications))


def judge_cache(since: Position, top: Position, publications: Sequence[Publication]) -> Recovery:
    """Decide what a client gets that only wants to know what was said last.

    Of `publications`, what the broker has in any order, only the newest counts. A client without an epoch is never up
    to date.
    """
    up_to_date = since == top and top.offset > 0
    if not publications:
        return UP_TO_DATE if up_to_date else UNRECOVERED
    latest = max(publications, key=attrgetter("offset"))
    if latest.offset != top.offset:
        return UNRECOVERED
    return UP_TO_DATE if up_to_date else Recovery(True, (latest,))


# What streams hold that hold nothing: a deque of their own would take 760 bytes. It can't be added to.
_NONE: Final[deque[Publication]] = deque(maxlen=0)


class History:
    """One channel's stream: its last `size` publications, until `ttl` seconds after the last of them.

    The publications that are kept run without a hole up to `top`.
    """

    __slots__ = ("_kept", "_last", "_touched", "_version", "_version_epoch", "epoch", "size", "top", "ttl")

    def __init__(self, epoch: str, size: int, ttl: float, now: float = 0.0) -> None:
        self.epoch = epoch
        self.size = size
        self.ttl = ttl
        self.top = 0
        self._kept = _NONE
        self._last = self._touched = now
        self._version = 0
        self._version_epoch = ""

    @property
    def position(self) -> Position:
        return Position(self.top, self.epoch)

    @property
    def kept(self) -> int:
        """How many publications are held in memory, those that have expired since included."""
        return len(self._kept)

    def touch(self, now: float) -> None:
        """Note that somebody had to do with the stream."""
        self._touched = now

    def idle_for(self, now: float) -> float:
        """Return the seconds since the last publication or touch."""
        return now - max(self._last, self._touched)

    def retain(self, size: int, ttl: float, now: float) -> None:
        """Keep so much from now on; what had expired before does not come back."""
        self.forget_old(now)
        if size != self.size and self._kept:
            self._kept = deque(self._kept, maxlen=size)
        self.size = size
        self.ttl = ttl

    def advance(self, version: int, version_epoch: str = "") -> bool:
        """Take note of the version that a publisher counts by itself; false if it is not above the last one.

        Versions of different epochs can't be compared, and the new one holds; without an epoch it is compared with any.
        """
        if version <= self._version and version_epoch in ("", self._version_epoch):
            return False
        self._version = version
        self._version_epoch = version_epoch
        return True

    def append(self, publication: Publication, now: float, date: int = 0) -> Publication:
        """Keep a publication; returns it with its offset, and with `date` (Unix time in ms) unless it has one."""
        kept = self._kept
        if not kept or now - self._last >= self.ttl:
            kept = self._kept = deque(maxlen=self.size)
        self._last = now
        self.top = offset = self.top + 1
        # dataclasses.replace() takes twice as long.
        publication = Publication(
            publication.payload,
            publication.is_binary,
            offset,
            publication.info,
            publication.tags,
            publication.published_at or date,
            publication.is_json,
        )
        kept.append(publication)
        return publication

    def clear(self) -> None:
        """Forget all publications; the position stays."""
        self._kept = _NONE

    def forget_old(self, now: float) -> None:
        """Forget the publications if they have expired; nobody can read them any more anyway."""
        if self._kept and now - self._last >= self.ttl:
            self._kept = _NONE

    def read(
        self,
        now: float,
        *,
        limit: int | None = None,
        since: Position | None = None,
        reverse: bool = False,
        most_bytes: int | None = None,
    ) -> tuple[Publication, ...]:
        """Return what is kept, oldest first (or newest first), after `since` (or before it), at most `limit`.

        None is no limit; `most_bytes` of payload are looked at as `first_that_fit` does. The epoch of `since` is not.
        """
        if limit == 0:
            return ()
        self.forget_old(now)
        kept, skipped = self._kept, 0
        if since is not None:
            older = since.offset - (self.top - len(kept)) - reverse  # how many come before what is wanted
            # An offset may be any number of 64 bits.
            skipped = min(max(0, len(kept) - older if reverse else older), len(kept))
        end = len(kept) if limit is None else min(skipped + limit, len(kept))
        found = islice(reversed(kept) if reverse else kept, skipped, end)
        return tuple(found) if most_bytes is None else first_that_fit(found, most_bytes)
