"""The ledger, against a model that is too simple to be wrong, and with every kind of damage planted."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.dialect import RawDialect
from loadtest.ledger import Account, Audience, Entry, Memory, Position, Refused, Sums, damage, settle
from loadtest.payload import Stream
from loadtest.protocol import TEXT, header, read_frame

SIZE = 64
DIALECT = RawDialect("ws://localhost/ws/{channel}")


def audience(publishers: int = 1, memory: Memory | None = None) -> Audience:
    streams = [Stream("ab12", publisher, 0, SIZE) for publisher in range(publishers)]
    return Audience((0,), streams, DIALECT.layout(SIZE, str), memory or Memory())


def frame(sequence: int, publisher: int = 0, channel: int = 0, run: str = "ab12", size: int = SIZE) -> bytes:
    return header(TEXT, size) + Stream(run, publisher, channel, size).payload(sequence, 1000 + sequence)


def settled(entry: Entry, totals: list[int], refused: Refused | None = None, under_way: bool = False) -> Sums:
    """The sums of a connection on one channel."""
    (sums,) = settle(entry, totals, refused, under_way).values()
    return sums


class Reader:
    """Feeds an entry as a connection does: from the memory if it can, else parsed, else frame by frame."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.tail = b""
        self.received: list[int] = []  # send times of deliveries
        self.remembered = 0

    def feed(self, data: bytes) -> None:
        data = self.tail + data
        start = 0
        while start < len(data):
            memo = self.entry.position.memo
            if memo is not None and data.startswith(memo.data, start):
                self.entry.position = memo.after
                self.received += memo.stamps
                self.remembered += memo.count
                start += memo.size
                continue
            self.entry.position, used, stamps = self.entry.audience.run(self.entry.position, data, start)
            if used:
                self.received += stamps
                start += used
                continue
            one = read_frame(data, start)
            if one is None:
                break
            stamp = self.entry.audience.take(self.entry, one.payload)
            if stamp is not None:
                self.received.append(stamp)
            start += one.length
        self.tail = data[start:]


def book(*sequences: int, total: int | None = None, late: bool = False) -> Sums:
    """The sums of a connection that received these sequences of one stream."""
    reader = Reader(Entry(audience(), late))
    for sequence in sequences:
        reader.feed(frame(sequence))
    return settled(reader.entry, [max(sequences) if total is None else total])


def test_a_clean_connection() -> None:
    assert book(1, 2, 3) == Sums(subscribers=1, expected=3, delivered=3)


def test_a_gap_is_missing() -> None:
    assert book(1, 2, 5) == Sums(subscribers=1, expected=5, delivered=3, missing=2)


def test_the_end_is_absent() -> None:
    assert book(1, 2, total=4) == Sums(subscribers=1, expected=4, delivered=2, absent=2, unfinished=1)


def test_the_end_is_overdue_while_messages_still_come_in() -> None:
    reader = Reader(Entry(audience(), late=False))
    reader.feed(frame(1) + frame(3))
    assert settled(reader.entry, [5], under_way=True) == Sums(
        subscribers=1, expected=5, delivered=2, missing=1, overdue=2, unfinished=1
    )


def test_two_that_are_swapped_are_reordered_and_not_missing() -> None:
    assert book(1, 3, 2, 4) == Sums(subscribers=1, expected=4, delivered=4, reordered=1)


def test_one_that_comes_twice_is_duplicated() -> None:
    assert book(1, 2, 2, 3) == Sums(subscribers=1, expected=3, delivered=3, duplicated=1)


def test_one_that_comes_late_and_again_is_both() -> None:
    assert book(1, 4, 2, 2, 3, 5) == Sums(subscribers=1, expected=5, delivered=5, reordered=2, duplicated=1)


def test_one_that_was_never_sent_is_unexpected() -> None:
    assert book(1, 2, 3, total=2) == Sums(subscribers=1, expected=2, delivered=2, unexpected=1)


def test_nothing_received_is_silence() -> None:
    entry = Entry(audience(), late=False)
    assert settled(entry, [3]) == Sums(subscribers=1, expected=3, absent=3, silent=1, unfinished=1)


def test_what_a_closed_connection_missed_is_declared() -> None:
    reader = Reader(Entry(audience(), late=False))
    reader.feed(frame(1))
    reader.entry.end("closed")
    assert settled(reader.entry, [3]) == Sums(subscribers=1, expected=3, delivered=1, declared=2)


def test_who_left_is_owed_nothing_more() -> None:
    reader = Reader(Entry(audience(), late=False))
    reader.feed(frame(1))
    reader.entry.end("left")
    assert settled(reader.entry, [3]) == Sums(subscribers=1, expected=1, delivered=1)


def test_who_joins_later_is_owed_what_follows_its_first() -> None:
    assert book(5, 6, 8, total=9, late=True) == Sums(
        subscribers=1, expected=5, delivered=3, missing=1, absent=1, unfinished=1
    )


def test_who_joins_later_and_gets_something_older_than_its_first_got_it_out_of_order() -> None:
    assert book(5, 4, 6, late=True) == Sums(subscribers=1, expected=2, delivered=2, reordered=1)


def test_who_joins_later_and_hears_nothing_is_owed_the_marker() -> None:
    entry = Entry(audience(), late=True)
    assert settled(entry, [9]) == Sums(subscribers=1, expected=1, overdue=1, silent=1, unfinished=1)


@pytest.mark.parametrize(
    "foreign",
    [
        header(TEXT, 5) + b"hello",
        frame(1, run="ab13"),
        frame(1, channel=1),
        frame(1, publisher=1),
        frame(1, size=SIZE + 1),
        frame(1)[:-5] + b'xx?x"',
        frame(1).replace(b"0000000001", b"000000000x"),
        frame(1).replace(b"0000000000000001001", b"000000000000000100x"),
    ],
    ids=["text", "run", "channel", "publisher", "size", "padding", "sequence", "stamp"],
)
def test_whatever_is_not_of_this_run_and_channel_is_unexpected(foreign: bytes) -> None:
    reader = Reader(Entry(audience(), late=False))
    reader.feed(frame(1) + foreign + frame(2))
    assert settled(reader.entry, [2]) == Sums(subscribers=1, expected=2, delivered=2, unexpected=1)


def test_streams_of_several_publishers_are_kept_apart() -> None:
    reader = Reader(Entry(audience(publishers=2), late=False))
    reader.feed(frame(1, 1) + frame(1, 0) + frame(2, 1) + frame(4, 1) + frame(2, 0))
    assert settled(reader.entry, [2, 4]) == Sums(subscribers=1, expected=6, delivered=5, missing=1)


def test_connections_that_have_come_equally_far_share_a_position() -> None:
    everyone = audience()
    first, second = Reader(Entry(everyone, False)), Reader(Entry(everyone, False))
    data = b"".join(frame(sequence) for sequence in range(1, 6))
    first.feed(data)
    second.feed(data[:100])  # not where the other one's reads ended
    second.feed(data[100:])
    assert second.entry.position is first.entry.position


def test_what_one_has_read_the_others_only_compare() -> None:
    everyone = audience()
    readers = [Reader(Entry(everyone, False)) for _ in range(5)]
    for batch in range(3):
        data = b"".join(frame(sequence) for sequence in range(10 * batch + 1, 10 * batch + 11))
        for reader in readers:
            reader.feed(data)
    assert [reader.remembered for reader in readers] == [0, 30, 30, 30, 30]
    assert all(reader.received == [1000 + sequence for sequence in range(1, 31)] for reader in readers)


def test_what_is_remembered_is_compared_byte_by_byte() -> None:
    """One bit in bytes that the others have had verified: it must not pass as the same."""
    everyone = audience()
    good, bad = Reader(Entry(everyone, False)), Reader(Entry(everyone, False))
    data = b"".join(frame(sequence) for sequence in range(1, 11))
    good.feed(data)
    position = data.index(b"0000000007")
    bad.feed(data[: position + 9] + b"8" + data[position + 10 :])
    assert settled(good.entry, [10]).delivered == 10
    sums = settled(bad.entry, [10])
    assert (sums.delivered, sums.missing, sums.duplicated) == (9, 1, 1)


def test_the_memory_is_bounded_and_forgetting_changes_nothing() -> None:
    memory = Memory(budget=10_000)
    everyone = audience(memory=memory)
    ahead, behind = Reader(Entry(everyone, False)), Reader(Entry(everyone, False))
    data = [frame(sequence) for sequence in range(1, 1001)]
    start = behind.entry.position
    for each in data:
        ahead.feed(each)
    assert start.memo is None, "the oldest is forgotten, although somebody still stands there"
    assert memory._held <= 10_000
    behind.feed(b"".join(data))
    assert settled(behind.entry, [1000]) == settled(ahead.entry, [1000])


def test_who_has_left_holds_on_to_nothing() -> None:
    everyone = audience()
    gone, here = Reader(Entry(everyone, False)), Reader(Entry(everyone, False))
    shared = gone.entry.position
    gone.entry.end("left")
    gone.entry.end("closed")
    assert gone.entry.ended == "left"
    assert everyone.members == 1
    assert gone.entry.position is not shared
    here.feed(frame(1))
    assert gone.entry.position.nexts == (1,)


def test_gaps_beyond_the_bound_are_counted_but_not_kept() -> None:
    account = Account()
    for number in range(2000):
        account.skip(0, 2 * number + 1, 2 * number + 1)
    assert (account.missing, len(account.gaps)) == (2000, 1000)
    assert account.late(0, 3999)
    assert not account.late(0, 1), "forgotten: it cannot be told from a duplicate"
    assert (account.missing, account.reordered, account.duplicated) == (1999, 1, 1)


def test_what_the_server_refused_is_owed_to_nobody() -> None:
    """Of one stream: in a gap, in the tail, and one that came all the same."""
    reader = Reader(Entry(audience(), late=False))
    for sequence in (1, 2, 5):
        reader.feed(frame(sequence))
    assert settled(reader.entry, [7], {(0, 0): [3, 6]}) == Sums(
        subscribers=1, expected=5, delivered=3, missing=1, absent=1, unfinished=1
    )
    assert settled(reader.entry, [5], {(0, 0): [2, 3, 4]}) == Sums(subscribers=1, expected=2, delivered=2, unexpected=1)
    late = Reader(Entry(audience(), late=True))
    late.feed(frame(5) + frame(8))
    assert settled(late.entry, [8], {(0, 0): [2, 6, 7]}) == Sums(subscribers=1, expected=2, delivered=2)


def two_channels() -> Audience:
    streams = [Stream("ab12", 0, channel, SIZE) for channel in range(2)]
    return Audience((0, 1), streams, DIALECT.layout(SIZE, str), Memory())


def test_a_channel_that_was_taken_away_is_declared_from_there_on_and_the_others_are_not() -> None:
    reader = Reader(Entry(two_channels(), late=False))
    reader.feed(frame(1) + frame(1, channel=1))
    reader.entry.cut(0)
    reader.feed(frame(2, channel=1))
    reader.entry.cut(0)
    assert settle(reader.entry, [3, 3]) == {
        0: Sums(subscribers=1, expected=3, delivered=1, declared=2),
        1: Sums(subscribers=1, expected=3, delivered=2, absent=1, unfinished=1),
    }
    reader.feed(frame(3, channel=1))
    assert reader.entry.has_all([3, 3])
    reader.feed(frame(2))
    assert settle(reader.entry, [3, 3])[0] == Sums(subscribers=1, expected=2, delivered=1, declared=1, unexpected=1)


def test_what_goes_wrong_on_one_channel_is_not_held_against_another() -> None:
    reader = Reader(Entry(two_channels(), late=False))
    reader.feed(frame(1) + frame(3, channel=1) + frame(1) + frame(2))
    assert settle(reader.entry, [2, 3]) == {
        0: Sums(subscribers=1, expected=2, delivered=2, duplicated=1),
        1: Sums(subscribers=1, expected=3, delivered=1, missing=2),
    }
    (first, second) = (damage(sums, reader.entry, channel) for channel, sums in settle(reader.entry, [2, 3]).items())
    assert first == "A connection on channel 0: 1 duplicated."
    assert second == "A connection on channel 1: 2 missing (the first missing: 1-2)."


def test_who_only_publishes_is_owed_nothing_and_may_hear_nothing() -> None:
    deaf = Audience((0,), [Stream("ab12", 0, 0, SIZE)], DIALECT.layout(SIZE, str), Memory(), listens=False)
    reader = Reader(Entry(deaf, late=False))
    assert settled(reader.entry, []) == Sums()
    assert reader.entry.has_all([])
    reader.feed(frame(1))
    assert settled(reader.entry, []) == Sums(unexpected=1)


def test_sums_add_up_field_by_field() -> None:
    sums = Sums(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
    sums.add(sums)
    assert list(sums.dump().values()) == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24]


def test_a_position_is_gone_when_nobody_stands_there() -> None:
    everyone = audience()
    reader, other = Reader(Entry(everyone, False)), Reader(Entry(everyone, False))
    for sequence in range(1, 100):
        for each in (reader, other):
            each.feed(frame(sequence))
    assert isinstance(reader.entry.position, Position)
    everyone._memory._positions.clear()
    assert len(everyone._positions) == 1


def damaged(rng: random.Random, total: int) -> list[int]:
    """Sequences with losses, duplicates and swaps."""
    sequences: list[int] = []
    for sequence in range(1, total + 1):
        sequences += [sequence] * rng.choice((1, 1, 1, 1, 1, 1, 0, 2))
    for _ in range(rng.randrange(4)):
        if len(sequences) > 2:
            at = rng.randrange(len(sequences) - 1)
            sequences[at], sequences[at + 1] = sequences[at + 1], sequences[at]
    return sequences


def model(sequences: list[int], total: int) -> tuple[int, int, int, int]:
    """Delivered, lost, duplicated, reordered: from the list alone."""
    counts = Counter(sequences)
    highest, late = 0, 0
    seen: set[int] = set()
    for sequence in sequences:
        if sequence < highest and sequence not in seen:
            late += 1
        seen.add(sequence)
        highest = max(highest, sequence)
    return len(counts), total - len(counts), len(sequences) - len(counts), late


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 60), st.integers(1, 6))
def test_the_ledger_agrees_with_the_model_however_the_bytes_are_cut(rng: random.Random, total: int, many: int) -> None:
    everyone = audience(memory=Memory(budget=rng.choice((0, 2000, 1 << 20))))
    plans = [damaged(rng, total) if rng.random() < 0.5 else list(range(1, total + 1)) for _ in range(many)]
    wires = [b"".join(map(frame, plan)) for plan in plans]
    readers = [Reader(Entry(everyone, False)) for _ in plans]
    while any(wires):
        index = rng.choice([index for index, wire in enumerate(wires) if wire])
        cut = rng.choice((1, 7, 66, 132, 200, 660, len(wires[index])))
        readers[index].feed(wires[index][:cut])
        wires[index] = wires[index][cut:]
    for plan, reader in zip(plans, readers, strict=True):
        sums = settled(reader.entry, [total])
        found = (sums.delivered, sums.missing + sums.absent, sums.duplicated, sums.reordered)
        assert found == model(plan, total), plan
        assert len(reader.received) == sums.delivered
        assert sums.expected == total
