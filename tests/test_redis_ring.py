"""Which shard has a channel: even shares, the same on every node, and little moves when a shard is added."""

from __future__ import annotations

from collections import Counter

import pytest

from server.brokers.redis.ring import Ring

CHANNELS = [f"room:{number}" for number in range(20_000)]


def names(count: int) -> list[str]:
    return [f"redis://10.0.0.{number}:6379/0" for number in range(count)]


def test_one_shard_has_all() -> None:
    assert {Ring(["only"]).place(channel) for channel in CHANNELS[:100]} == {0}


@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_shares_are_even(count: int) -> None:
    ring = Ring(names(count))
    shares = Counter(ring.place(channel) for channel in CHANNELS)
    assert len(shares) == count
    for share in shares.values():
        assert 0.75 < share * count / len(CHANNELS) < 1.25


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_a_shard_that_is_added_takes_its_share_and_moves_nothing_else(count: int) -> None:
    before, after = Ring(names(count)), Ring(names(count + 1))
    moved = [after.place(channel) for channel in CHANNELS if after.place(channel) != before.place(channel)]
    assert set(moved) == {count}, "only to the new one"
    assert 0.75 < len(moved) * (count + 1) / len(CHANNELS) < 1.25


def test_the_order_of_the_names_means_nothing() -> None:
    ring, reverse = Ring(names(4)), Ring(names(4)[::-1])
    assert all(ring.place(channel) == 3 - reverse.place(channel) for channel in CHANNELS[:1000])


def test_the_places_are_for_ever() -> None:
    # Nodes of different versions must agree: these were computed when the ring was made.
    ring = Ring(names(4))
    assert [ring.place(channel) for channel in ("news", "chat:1", "#ann", "ü", "")] == [2, 2, 0, 0, 1]


@pytest.mark.parametrize("wrong", [[], ["a", "b", "a"]])
def test_a_ring_needs_shards_of_different_names(wrong: list[str]) -> None:
    with pytest.raises(ValueError, match="shards"):
        Ring(wrong)
