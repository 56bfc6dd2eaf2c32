"""Layouts: what is scanned by the batch is what one frame after the other would have said."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.centrifuge import CentrifugeDialect
from loadtest.layout import PushFrames, text_frame
from loadtest.ledger import Audience, Entry, Memory, Sums, settle
from loadtest.payload import Stream
from loadtest.protocol import TEXT, header, read_frame
from server.core.publication import ClientInfo, Publication
from server.dialects.centrifuge import json_codec

SIZE = 64
DIALECT = CentrifugeDialect("ws://h/connection/websocket")
STREAMS = [Stream("ab12", 0, channel, SIZE) for channel in range(3)]


def name(channel: int) -> str:
    return f"load/ü-{channel}"


LAYOUT = DIALECT.layout(SIZE, name)


def push(channel: int, sequence: int, label: str | None = None, **more: object) -> bytes:
    payload = STREAMS[channel].payload(sequence, 1000 + sequence)
    return json_codec.encode_publication(label or name(channel), Publication(payload, is_json=True, **more))  # type: ignore[arg-type]


def frame(*lines: bytes, opcode: int = TEXT) -> bytes:
    payload = json_codec.join(lines)
    return header(opcode, len(payload)) + payload


def scan(data: bytes, nexts: list[int] | None = None, start: int = 0) -> tuple[int, list[int], list[int]]:
    nexts = nexts or [1, 1, 1]
    used, stamps = LAYOUT.scanner(STREAMS)(nexts, data, start)
    return used, stamps, nexts


def test_pushes_of_one_frame_and_of_several_are_scanned() -> None:
    data = frame(push(0, 1), push(1, 1, offset=9)) + frame(push(0, 2, offset=10, info=ClientInfo("", "c-1")))
    assert scan(data) == (len(data), [1001, 1001, 1002], [3, 2, 1])
    assert scan(b"??" + data, start=2) == (len(data), [1001, 1001, 1002], [3, 2, 1])


@pytest.mark.parametrize(
    "other",
    [
        frame(push(0, 3)),
        frame(push(0, 2), push(0, 2)),
        frame(push(0, 2, label=name(1))),
        frame(push(0, 2, label='"')),
        frame(push(0, 2, tags={"a": "}"})),
        frame(push(0, 2), b"{}"),
        frame(push(0, 2), b""),
        frame(push(0, 2)[:-1] + b" "),
        frame(push(0, 2).replace(b"ab12", b"ab13")),
        frame(push(0, 2).replace(b"xx", b"x?")),
        frame(push(0, 2), opcode=2),
        b"\x01" + frame(push(0, 2))[1:],
        frame(b"{}"),
        frame(b""),
        b"\x89\x00",
    ],
    ids=[
        "gap", "twice", "label", "quote", "tags", "ping", "newline", "broken", "run", "padding", "binary", "fragment",
        "pings", "empty", "control",
    ],
)  # fmt: skip
def test_a_scan_ends_before_a_frame_with_anything_unusual_in_it(other: bytes) -> None:
    good = frame(push(0, 1))
    assert scan(good + other + frame(push(1, 1))) == (len(good), [1001], [2, 1, 1])


def test_a_scan_ends_before_a_frame_that_is_not_whole() -> None:
    good, long = frame(push(0, 1)), frame(*(push(0, sequence) for sequence in range(2, 10)))
    assert long[1] == 126
    for cut in (1, 2, 3, 4, 5, 100, len(long) - 1):
        assert scan(good + long[:cut])[0] == len(good)
    assert scan(good + long)[0] == len(good + long)


def test_what_a_frame_is_not_looked_at_for_is_left_to_the_careful_reader() -> None:
    assert text_frame(header(TEXT, 5) + b"hello", 0) == (2, 7)
    assert text_frame(header(TEXT, 65536) + b"x" * 65536, 0) is None
    assert text_frame(b"\x81\x85abcdhello", 0) is None
    assert text_frame(b"", 0) is None


def _feed(entry: Entry, data: bytes, is_fast: bool) -> None:
    at = 0
    while at < len(data):
        if is_fast:
            entry.position, used, _ = entry.audience.run(entry.position, data, at)
            at += used
            if used:
                continue
        one = read_frame(data, at)
        assert one is not None
        for said in DIALECT.read(one.payload):
            entry.audience.take(entry, said.payload, said.channel)  # type: ignore[union-attr]
        at += one.length


def _spoil(rng: random.Random, plan: list[tuple[int, int]]) -> list[tuple[int, int]]:
    spoilt = [each for each in plan for _ in range(rng.choice((1,) * 12 + (0, 2)))]
    if len(spoilt) > 1 and rng.random() < 0.5:
        at = rng.randrange(len(spoilt) - 1)
        spoilt[at], spoilt[at + 1] = spoilt[at + 1], spoilt[at]
    return spoilt


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 40))
def test_the_scanner_and_the_careful_reader_keep_the_same_books(rng: random.Random, total: int) -> None:
    plan = _spoil(rng, [(channel, sequence) for sequence in range(1, total + 1) for channel in range(3)])
    offset = rng.choice((0, 1))
    lines = [push(channel, sequence, offset=offset * sequence) for channel, sequence in plan]
    data = b""
    while lines:
        many = rng.randrange(1, 8)
        data += frame(*lines[:many])
        lines = lines[many:]
    books: list[dict[int, Sums]] = []
    for is_fast in (True, False):
        entry = Entry(Audience((0, 1, 2), STREAMS, LAYOUT, Memory()), late=False)
        _feed(entry, data, is_fast)
        books.append(settle(entry, [total] * 3))
    assert books[0] == books[1]
    for channel, sums in books[0].items():
        got = [sequence for where, sequence in plan if where == channel]
        assert sums.delivered == len(set(got))
        assert sums.duplicated == len(got) - len(set(got))
        assert sums.expected == total


def test_labels_are_the_names_of_channels() -> None:
    naming: Callable[[int], str] = name
    assert PushFrames(SIZE, naming).label(2) == "load/ü-2"


def test_what_one_client_has_read_the_others_only_compare() -> None:
    audience = Audience((0, 1, 2), STREAMS, LAYOUT, Memory())
    first, second = Entry(audience, late=False), Entry(audience, late=False)
    data = frame(push(0, 1, offset=1), push(2, 1, offset=1)) + frame(push(0, 2, offset=2))
    after, used, stamps = audience.run(first.position, data)
    memo = second.position.memo
    assert memo is not None
    assert (memo.data, memo.size, memo.count, memo.after) == (data, used, len(stamps), after)
