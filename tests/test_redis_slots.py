"""The slots of a Redis Cluster: as its specification has them, as a real node computes them, and what a map may say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.brokers.redis import Address
from server.brokers.redis.scripts import Names
from server.brokers.redis.slots import SLOTS, Range, Unwell, read_map, slot_of

ASKED = Address("seed", 7000, password="secret", prefix="p", in_cluster=True)
INFO = b"cluster_state:ok\r\ncluster_slots_ok:16384\r\ncluster_current_epoch:7\r\n"
ENTRIES = [
    [0, 8191, [b"10.0.0.1", 7001, b"a" * 40, []], [b"10.0.0.2", 7002, b"b" * 40, []]],
    [8192, 16382, [b"10.0.0.3", 7003, b"c" * 40, []]],
    [16383, 16383, [b"10.0.0.1", 7001, b"a" * 40, []]],
]


@pytest.mark.parametrize(
    ("name", "slot"),
    [
        pytest.param(b"123456789", 0x31C3, id="the specification's own"),
        (b"", 0),
        (b"foo", 12182),
        (b"{user1000}.following", 3443),
        (b"{user1000}.followers", 3443),
        pytest.param(b"foo{}{bar}", 8363, id="an empty tag is none"),
        pytest.param(b"foo{{bar}}zap", 4015, id="to the first brace that closes"),
        pytest.param(b"foo{bar}{zap}", 5061, id="the first of two"),
        pytest.param(b"foo{bar", 15278, id="one that never closes"),
    ],
)
def test_the_slot_of_a_name(name: bytes, slot: int) -> None:
    assert slot_of(name) == slot % SLOTS


@given(st.text(min_size=1), st.text())
def test_all_names_of_a_channel_are_in_one_slot(channel: str, key: str) -> None:
    names = Names("p")
    found = [
        names.channel(channel),
        names.meta(channel),
        names.stream(channel),
        names.presence(channel),
        names.key(channel, key),
    ]
    assert len({slot_of(name) for name in found}) == 1
    assert len(set(found)) == len(found)


@given(st.text(alphabet="{}-:ab", min_size=1), st.text(alphabet="{}-:ab", min_size=1))
def test_two_channels_have_no_name_in_common(one: str, other: str) -> None:
    names = Names("p")
    if one != other:
        assert names.channel(one) != names.channel(other)
        assert names.meta(one) != names.meta(other)


def test_a_map() -> None:
    seen = read_map(INFO, ENTRIES, ASKED)
    first, second, third = (
        Address(f"10.0.0.{number}", 7000 + number, password="secret", prefix="p", in_cluster=True)
        for number in (1, 2, 3)
    )
    assert seen.epoch == 7
    assert seen.ranges == (Range(0, 8191, first), Range(8192, 16382, third), Range(16383, 16383, first))
    assert seen.nodes == (first, second, third)
    assert {address: len(slots) for address, slots in seen.primaries.items()} == {first: 8193, third: 8191}


@pytest.mark.parametrize("host", [b"", None])
def test_a_node_that_does_not_know_its_own_name_is_reached_as_it_was(host: bytes | None) -> None:
    seen = read_map(INFO, [[0, 16383, [host, 7009, b"a" * 40]]], ASKED)
    assert (seen.ranges[0].primary.host, seen.ranges[0].primary.port) == ("seed", 7009)


@pytest.mark.parametrize(
    ("info", "entries", "why"),
    [
        (INFO.replace(b":ok", b":fail"), ENTRIES, "down"),
        (INFO, [], "down"),
        (b"", ENTRIES, "does not answer as"),
        (None, ENTRIES, "does not answer as"),
        (INFO.replace(b"7", b"x"), ENTRIES, "does not answer as"),
        (INFO, None, "does not answer as"),
        (INFO, [[0]], "does not answer as"),
        (INFO, [[0, 1]], "does not answer as"),
        (INFO, [[0, 16384, [b"h", 1, b"a"]]], "does not answer as"),
        (INFO, [[5, 4, [b"h", 1, b"a"]]], "does not answer as"),
        (INFO, [[0, 1, [b"h", 0, b"a"]]], "does not answer as"),
        (INFO, [[0, 1, [b"\xff", 1, b"a"]]], "does not answer as"),
    ],
)
def test_a_map_that_is_none(info: Any, entries: Any, why: str) -> None:
    with pytest.raises(Unwell, match=why):
        read_map(info, entries, ASKED)
