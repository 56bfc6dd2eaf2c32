from __future__ import annotations

import json

import pytest

from loadtest.payload import MAX_SIZE, MIN_SIZE, PREFIX_LENGTH, SEQUENCE, STAMP, Stream, padding, prefix, streams


def test_a_payload_is_these_bytes() -> None:
    assert Stream("ab12", 3, 12, 64).payload(1, 1234567890123) == (
        b'"ab12 003 00012 P 0000000001 0000001234567890123 xxxxxxxxxxxxxx"'
    )
    assert Stream("ab12", 3, 12, 64).payload(2, 5, marker=True) == (
        b'"ab12 003 00012 M 0000000002 0000000000000000005 xxxxxxxxxxxxxx"'
    )


@pytest.mark.parametrize("size", [MIN_SIZE, MIN_SIZE + 1, MIN_SIZE + 2, 128, 1024, MAX_SIZE])
def test_a_payload_is_json_of_the_size_asked_for(size: int) -> None:
    payload = Stream("ab12", 0, 0, size).payload(10**10 - 1, 10**19 - 1)
    assert len(payload) == size
    assert isinstance(json.loads(payload), str)
    assert int(payload[SEQUENCE]) == 10**10 - 1
    assert int(payload[STAMP]) == 10**19 - 1


@pytest.mark.parametrize("size", [0, MIN_SIZE - 1, MAX_SIZE + 1])
def test_a_size_that_cannot_be_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"SIZE={size}: a payload takes 49 to 1048576 bytes"):
        padding(size)


def test_the_prefix_tells_streams_and_kinds_apart() -> None:
    all_of_them = {prefix(run, p, c, kind) for run in ("aaaa", "aaab") for p in (0, 1) for c in (0, 1) for kind in "PM"}
    assert len(all_of_them) == 16
    assert {len(each) for each in all_of_them} == {PREFIX_LENGTH}


@pytest.mark.parametrize(("publishers", "channels"), [(1, 1), (1, 5), (3, 7), (5, 2), (4, 4)])
def test_every_publisher_has_a_channel_and_every_channel_a_publisher(publishers: int, channels: int) -> None:
    every = [(stream.publisher, stream.channel) for stream in streams("ab12", publishers, channels, 128)]
    assert {publisher for publisher, _ in every} == set(range(publishers))
    assert {channel for _, channel in every} == set(range(channels))
    assert len(set(every)) == len(every) == max(publishers, channels)
