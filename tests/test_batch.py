"""A batch and the parts of it that wait: what is shared, what is cut off, and what conflation keeps."""

from __future__ import annotations

import pytest

from server.core.batch import Entry, some_keys
from tests.publications import batch, sized


def test_a_batch_of_one_is_its_frame_and_of_more_is_joined_once() -> None:
    frame = b"one"
    assert batch(frame).wire is frame
    assert batch(b"one", b"two").wire == b"onetwo"
    assert len(batch(b"one", b"two")) == 2
    assert type(batch(b"one", b"two").wire) is bytes


def test_a_batch_made_of_nothing_is_nobody_s() -> None:
    empty = batch()
    assert (len(empty), empty.wire) == (0, b"")


def test_what_comes_after_so_many_is_a_batch_of_the_same_channel() -> None:
    whole = batch(b"a", b"b", b"c", at=5.0, keys=("x", None, "y"))
    rest = whole.after(1)
    assert (rest.frames, rest.wire, rest.accepted, rest.keys) == ([b"b", b"c"], b"bc", [6.0, 7.0], (None, "y"))
    assert rest.channel is whole.channel
    assert rest.lag is whole.lag
    assert batch(b"a", b"b", keys=("x", None)).after(1).keys is None
    assert batch(b"a", b"b").after(1).keys is None


def test_a_whole_entry_is_the_batch_s_own_bytes_and_a_part_is_joined() -> None:
    shared = batch(b"aa", b"bb", b"cc")
    assert Entry(shared, 0, 3).wire() is shared.wire
    assert (Entry(shared, 1, 3).wire(), Entry(shared, 1, 3).size(), len(Entry(shared, 1, 3))) == (b"bbcc", 4, 2)


@pytest.mark.parametrize(
    ("end", "messages", "size", "left", "taken"),
    [
        (0, 1, 0, b"bbbccc", (1, 3)),
        (0, 2, 0, b"ccc", (2, 6)),
        (0, 0, 4, b"ccc", (2, 6)),
        (0, 1, 4, b"ccc", (2, 6)),
        (-1, 1, 0, b"aaabbb", (1, 3)),
        (-1, 0, 4, b"aaa", (2, 6)),
        (0, -5, 1, b"bbbccc", (1, 3)),
        (-1, 9, 0, b"", (3, 9)),
        (0, 0, 0, b"aaabbbccc", (0, 0)),
    ],
)
def test_frames_are_cut_off_one_end(end: int, messages: int, size: int, left: bytes, taken: tuple[int, int]) -> None:
    entry = Entry(batch(*sized(3, 3, 3)), 0, 3)
    assert entry.cut(end, messages, size) == taken
    assert entry.wire() == left


def test_of_publications_without_keys_the_last_is_the_latest() -> None:
    seen: set[object] = set()
    entry = Entry(batch(b"a", b"b", b"c"), 0, 2)
    assert entry.latest(seen) == [1]
    assert seen == {None}
    assert entry.latest(seen) == []


def test_each_key_has_its_latest_in_the_order_of_publication() -> None:
    seen: set[object] = {"z"}
    entry = Entry(batch(*sized(1, 1, 1, 1, 1), keys=("x", "y", None, "x", "z")), 0, 5)
    assert entry.latest(seen) == [1, 2, 3]
    assert seen == {"x", "y", "z", None}


def test_keys_of_which_there_are_none_are_none() -> None:
    assert some_keys([None, None]) is None
    assert some_keys([None, ""]) == [None, ""], "the empty key is a key"
