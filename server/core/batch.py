"""The publications that one flush hands out together, and the parts of them that wait for somebody.

Laws: a batch is immutable once made and shared by all who wait for it: what is theirs is an `Entry`, a range of it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from server.core.channel import Channel

Keys = Sequence[str | None]

# The ends of what waits, as indices.
OLDEST: Final = 0
NEWEST: Final = -1


class Batch:
    """Publications of one channel, as wire bytes; `keys` are their conflation keys, None when none has one."""

    __slots__ = ("accepted", "channel", "frames", "keys", "lag", "wire")

    def __init__(self, channel: Channel, frames: list[bytes], accepted: list[float], keys: Keys | None = None) -> None:
        self.channel = channel
        self.lag = channel.terms.lag
        self.frames = frames
        self.wire = frames[0] if len(frames) == 1 else b"".join(frames)
        self.accepted = accepted  # when each was published, in seconds of the hub's clock
        self.keys = keys

    def __len__(self) -> int:
        return len(self.frames)

    def after(self, skipped: int) -> Batch:
        """Make the batch without its first `skipped` publications."""
        keys = some_keys(self.keys[skipped:]) if self.keys is not None else None
        return Batch(self.channel, self.frames[skipped:], self.accepted[skipped:], keys)


class Entry:
    """The part of a batch that still waits: frames `start` to `stop`."""

    __slots__ = ("batch", "start", "stop")

    def __init__(self, batch: Batch, start: int, stop: int) -> None:
        self.batch = batch
        self.start = start
        self.stop = stop

    def __len__(self) -> int:
        return self.stop - self.start

    def wire(self) -> bytes:
        batch = self.batch
        if self.stop - self.start == len(batch.frames):
            return batch.wire
        return b"".join(batch.frames[self.start : self.stop])

    def size(self) -> int:
        batch = self.batch
        if self.stop - self.start == len(batch.frames):
            return len(batch.wire)
        if self.stop - self.start == 1:
            return len(batch.frames[self.start])
        return sum(map(len, batch.frames[self.start : self.stop]))

    def cut(self, end: int, messages: int, size: int) -> tuple[int, int]:
        """Take frames off one end, OLDEST or NEWEST, until so many messages and bytes are off, or all.

        Returns how many there were, and their size.
        """
        frames = self.batch.frames
        count = taken = 0
        while self.start < self.stop and (count < messages or taken < size):
            if end == OLDEST:
                taken += len(frames[self.start])
                self.start += 1
            else:
                self.stop -= 1
                taken += len(frames[self.stop])
            count += 1
        return count, taken

    def latest(self, seen: set[Hashable]) -> list[int]:
        """Find the last frame of each conflation key that is not in `seen`, and add the key to it; ascending."""
        keys = self.batch.keys
        if keys is None:
            if None in seen:
                return []
            seen.add(None)
            return [self.stop - 1]
        places = []
        for place in range(self.stop - 1, self.start - 1, -1):
            if keys[place] not in seen:
                seen.add(keys[place])
                places.append(place)
        places.reverse()
        return places


def some_keys(keys: Keys) -> Keys | None:
    """Return the keys, or None if no publication has one."""
    return keys if any(key is not None for key in keys) else None
