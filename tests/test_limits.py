"""Token buckets with a clock in the hand; whose address is whose."""

from __future__ import annotations

import pytest

from server.core.limits import AddressCeiling, TokenBucket, address_key


def taken(bucket: TokenBucket, now: float, most: int = 1000) -> int:
    """Take tokens until there are none; return how many there were."""
    count = 0
    while count < most and bucket.take(now):
        count += 1
    return count


def test_a_bucket_holds_one_second() -> None:
    bucket = TokenBucket(10, now=5.0)
    assert taken(bucket, 5.0) == 10
    assert taken(bucket, 5.05) == 0
    assert taken(bucket, 5.25) == 2
    assert taken(bucket, 1e9) == 10, "more than a second's worth is never saved up"


def test_a_steady_stream_at_the_rate_passes_for_ever() -> None:
    bucket = TokenBucket(8, now=0.0)
    assert all(bucket.take(tick / 8) for tick in range(1000))


def test_over_a_long_time_no_more_than_the_rate_and_one_burst_pass() -> None:
    bucket = TokenBucket(4, now=0.0)
    assert sum(bucket.take(tick / 64) for tick in range(64 * 10 + 1)) == 4 + 4 * 10


def test_a_rate_below_one_still_lets_one_pass() -> None:
    bucket = TokenBucket(0.5, now=0.0)
    assert [bucket.take(now) for now in (0.0, 0.0, 1.9, 2.0, 2.0)] == [True, False, False, True, False]


def test_time_that_stands_still_gives_nothing_back() -> None:
    bucket = TokenBucket(2, now=0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, False, False]


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:0DB8:0001:0002:0:0:0:1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::1", "::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),  # what a dual-stack socket calls an IPv4 peer
        ("", ""),
        ("not an address", "not an address"),
        ("192.0.2.1.example", "192.0.2.1.example"),
    ],
)
def test_an_address_stands_for_what_one_subscriber_line_owns(address: str, key: str) -> None:
    assert address_key(address) == key


def test_a_ceiling_counts_who_is_inside() -> None:
    ceiling = AddressCeiling(2)
    for address in ("2001:db8::1", "2001:db8::2"):
        assert not ceiling.full(address)
        ceiling.enter(address)
    assert ceiling.full("2001:db8::3"), "the same /64"
    assert not ceiling.full("2001:db8:0:1::3")
    ceiling.leave("2001:db8::1")
    assert not ceiling.full("2001:db8::3")


def test_a_ceiling_forgets_addresses_that_nobody_is_at() -> None:
    ceiling = AddressCeiling(1)
    for number in range(50):
        address = f"192.0.2.{number}"
        assert not ceiling.full(address)
        ceiling.enter(address)
        ceiling.leave(address)
    assert len(ceiling) == 0


def test_no_ceiling_is_no_memory_either() -> None:
    ceiling = AddressCeiling(0)
    for _ in range(3):
        ceiling.enter("192.0.2.1")
    assert not ceiling.full("192.0.2.1")
    assert len(ceiling) == 0
    ceiling.leave("192.0.2.1")
