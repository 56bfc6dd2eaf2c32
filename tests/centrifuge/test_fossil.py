"""Fossil deltas: to the byte, there and back, and one from another's encoder.

That the SDKs' own appliers (JavaScript and Python) agree was tried by hand with 5,000 random pairs.
"""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.dialects.centrifuge.fossil import apply_delta, create_delta
from tests.centrifuge.laws import LAW


@pytest.mark.parametrize(
    ("source", "target", "delta"),
    [
        (b"", b"", b"0\n0;"),
        (b"", b"abcd", b"4\n4:abcd1XObD_;"),
        (b"something", b"", b"0\n0;"),
        (b"same text here", b"same text here", b"E\nE@0,1vMoi2;"),
        (b"the number is 1.", b"the number is 22.", b"H\nE@0,3:22.3eS2KT;"),
        (b"0123456789abcdef", b"0123456789-abcdef", b"H\nA@0,7:-abcdef1a0kdl;"),
        (b"a" * 100, b"b" * 70, b"16\n16:" + b"b" * 70 + b"3fvdY2;"),
    ],
)
def test_literal_deltas(source: bytes, target: bytes, delta: bytes) -> None:
    assert create_delta(source, target) == delta
    assert apply_delta(source, delta) == target


def test_delta_from_elsewhere() -> None:
    # Made by `fossil-delta` 2 for JavaScript, which goes by another algorithm.
    source = b'{"rows":[{"id":1,"name":"Alice","score":10},{"id":2,"name":"Bob","score":20}],"title":"scores"}'
    target = (
        '{"title":"☃ scores","rows":[{"id":1,"name":"Alice","score":10},{"id":3,"name":"Carol","score":5},'
        '{"id":2,"name":"Bob","score":21}]}'
    ).encode()
    delta = b'25\nM:{"title":"\xe2\x98\x83 scores",m@1,Q:3,"name":"Carol","score":5W@f,4:1}]}24MbSV;'
    assert apply_delta(source, delta) == target


@pytest.mark.parametrize("extra", range(1, 9))
def test_checksum_fills_up_the_last_word(extra: int) -> None:
    # 01 00 00 00 and so on: what is missing is zeros behind, not in front.
    made = create_delta(b"", b"\x01" * extra)
    whole, rest = divmod(extra, 4)
    checksum = whole * 0x01010101 + int.from_bytes((b"\x01" * rest).ljust(4, b"\x00"), "big")
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"
    written = ""
    while checksum:
        written = digits[checksum % 64] + written
        checksum //= 64
    assert made.endswith(b"\x01" + written.encode() + b";")


DELTA = create_delta(b"some text to start from", b"some other text to start from")


@pytest.mark.parametrize(
    "delta",
    [
        b"", b"\n", b"T", b"T\n", b"T;", b"*\n0;", DELTA[:-1], DELTA[:-8], DELTA.replace(b"\n", b""),
        b"A\nA@0", b"A\nA@0;", b"A\nA@~~~,0;", b"A\nA:abc", b"A\nB@0,0;", b"A\nA@0,0;", b"9" + DELTA[1:],
        b"A\n*", b"A\n0", b"0\n1;", b"5\n4:abcd1XObD_;", b"zzzzzzzzzzzzzz\n0;",
    ],
    ids=repr,
)  # fmt: skip
def test_bad_delta_is_a_value_error(delta: bytes) -> None:
    with pytest.raises(ValueError, match=r"^a (delta|copy) "):
        apply_delta(b"some text to start from", delta)


def test_delta_from_another_source_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="another source"):
        apply_delta(b"other text to start from", DELTA)


@LAW
@given(st.binary(max_size=300), st.binary(max_size=300))
def test_round_trip_of_anything(source: bytes, target: bytes) -> None:
    assert apply_delta(source, create_delta(source, target)) == target


@LAW
@given(st.binary(max_size=60))
def test_garbage_is_a_value_error(delta: bytes) -> None:
    with pytest.raises(ValueError, match=r"^a (delta|copy) "):
        apply_delta(b"0123456789" * 10, b"A\n" + delta)


edits = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 60), st.text('ab{}":,0123456789é☃😀', max_size=40)), max_size=8
)


@LAW
@given(st.text('ab{}":,0123456789é☃😀 ', min_size=20, max_size=2_000), edits)
def test_round_trip_of_an_edited_text_is_text(text: str, edits: list[tuple[float, int, str]]) -> None:
    edited = text
    for place, size, insert in edits:
        at = int(place * len(edited))
        edited = edited[:at] + insert + edited[at + size :]
    source, target = text.encode(), edited.encode()
    delta = create_delta(source, target)
    assert apply_delta(source, delta) == target
    # A JSON subscriber gets the delta in a string, so no insert may hold half a character.
    assert delta.decode().encode() == delta


def table(rows: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    return [
        f'{{"id":{row},"name":"player {chance.randrange(10**6)}","price":{chance.randrange(10**6) / 100}}}'
        for row in range(rows)
    ]


def document(rows: list[str]) -> bytes:
    return f'{{"title":"☃","rows":[{",".join(rows)}]}}'.encode()


@pytest.mark.parametrize("rows", [20, 300])
def test_small_change_makes_a_small_delta(rows: int) -> None:
    before = table(rows, seed=1)
    chance = random.Random(2)
    after = list(before)
    for row in chance.sample(range(rows), 3):
        after[row] = f'{{"id":{row},"name":"player {chance.randrange(10**6)}","price":1}}'
    source, target = document(before), document(after)
    delta = create_delta(source, target)
    assert apply_delta(source, delta) == target
    assert len(delta) < 200


def test_insertion_and_removal_are_small_too() -> None:
    rows = table(300, seed=1)
    source = document(rows)
    for changed in (rows[1:], rows[:150] + rows[151:], [*rows, rows[5]], [rows[5], *rows], rows[100:] + rows[:100]):
        delta = create_delta(source, document(changed))
        assert apply_delta(source, delta) == document(changed)
        assert len(delta) < 150


def test_many_changes_still_pay() -> None:
    before, after = table(40, seed=1), table(40, seed=2)
    mixed = [one if row % 3 else other for row, (one, other) in enumerate(zip(before, after, strict=True))]
    source, target = document(before), document(mixed)
    delta = create_delta(source, target)
    assert apply_delta(source, delta) == target
    assert len(delta) < len(target) // 2


@pytest.mark.parametrize("size", [1_000, 16_000])
def test_no_likeness_costs_little(size: int) -> None:
    chance = random.Random(3)
    source, target = chance.randbytes(size), chance.randbytes(size)
    delta = create_delta(source, target)
    assert apply_delta(source, delta) == target
    assert len(delta) < size + 30
