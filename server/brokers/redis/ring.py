"""Which of several shards a channel belongs to: a ring of points, by consistent hashing.

Laws: the same names give the same ring on every node, in whatever order they are named; a shard that is added takes
about its fair share of the channels, one part from each of the others, and moves no other channel.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

# More points make the shares more even: with these they differ by some ten percent.
_POINTS: Final = 256


class Ring:
    """Places channels on shards, which are known by their names."""

    def __init__(self, names: Sequence[str]) -> None:
        if not names or len(set(names)) != len(names):
            raise ValueError("a ring needs shards, each of another name")
        points = sorted(
            (_hash(f"{name} {point}"), number) for number, name in enumerate(names) for point in range(_POINTS)
        )
        self._starts = [start for start, _ in points]
        self._numbers = [number for _, number in points]

    def place(self, channel: str) -> int:
        """Return the index of the shard that has the channel."""
        return self._numbers[bisect_right(self._starts, _hash(channel)) - 1]


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
