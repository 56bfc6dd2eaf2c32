"""The ledger: what each connection has received, checked frame by frame, and what it comes to at the end.

The idea that makes it fast: all connections of an audience must receive the same bytes. A ``Position`` is how far a
connection has come; positions with the same content are the same object. Whoever first reads some bytes at a
position has them parsed and checked, frame by frame; the position remembers the bytes and where they lead. For every
other connection that stands there one comparison of bytes proves the same of every frame in them. So every frame
of every connection is checked, and most for the price of a memcmp.

Laws: a position never changes what it says, it only gains or loses its memo of what comes next; the memory is
bounded by ``MEMORY_BYTES``, whatever a laggard holds on to. Only whole frames with nothing wrong in them are
remembered. A sequence is counted as missing, late (reordered), twice (duplicated) or as delivered: once.

It does not know sockets, clocks or the frame format: the dialect's layout reads what surrounds a payload.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from weakref import WeakValueDictionary

from loadtest.layout import Layout
from loadtest.payload import PREFIX_LENGTH, SEQUENCE, STAMP, Stream, padding

MEMORY_BYTES = 64 << 20
#: Gaps that an account keeps open for a late arrival; older ones are closed, their count is kept.
MAX_GAPS = 1000


class Position:
    """How far a connection has come on the streams of its audience, and what was seen to come next."""

    __slots__ = ("__weakref__", "memo", "nexts")

    def __init__(self, nexts: tuple[int, ...]) -> None:
        self.nexts = nexts  # by stream: the sequence that is due; 0 = any, for one who joined later
        self.memo: Memo | None = None


class Memo:
    """Bytes that were received at a position, whole frames in order, and where they lead."""

    __slots__ = ("after", "count", "data", "oldest", "size", "stamps")

    def __init__(self, data: bytes, stamps: Sequence[int], after: Position) -> None:
        self.data = data
        self.size = len(data)
        self.stamps = stamps  # the intended send time of each publication in it
        self.count = len(stamps)
        self.oldest = min(stamps)
        self.after = after


class Memory:
    """What the positions of one process remember, the oldest forgotten first."""

    __slots__ = ("_budget", "_held", "_positions")

    def __init__(self, budget: int = MEMORY_BYTES) -> None:
        self._budget = budget
        self._held = 0
        self._positions: deque[tuple[Position, int]] = deque()

    def keep(self, position: Position, memo: Memo) -> None:
        """Let ``position`` remember, at the expense of those that have remembered longest."""
        # A position may stand in the queue twice; it is then forgotten early, which costs a parse and nothing else.
        position.memo = memo
        cost = memo.size + 40 * memo.count
        self._held += cost
        self._positions.append((position, cost))
        while self._held > self._budget and len(self._positions) > 1:
            old, cost = self._positions.popleft()
            self._held -= cost
            if old is not position:
                old.memo = None


class Account:
    """What went wrong on one channel of one connection; one that has none is clean."""

    __slots__ = ("duplicated", "gaps", "missing", "reordered", "unexpected")

    def __init__(self) -> None:
        self.missing = 0
        self.duplicated = 0
        self.reordered = 0
        self.unexpected = 0
        self.gaps: deque[tuple[int, int, int]] = deque()  # stream, first, last: the youngest MAX_GAPS

    def skip(self, stream: int, first: int, last: int) -> None:
        """The sequences ``first`` to ``last`` were due and something later came instead."""
        self.missing += last - first + 1
        self.gaps.append((stream, first, last))
        if len(self.gaps) > MAX_GAPS:
            self.gaps.popleft()

    def late(self, stream: int, sequence: int) -> bool:
        """An earlier sequence came after a later one: True if it had been missing, False if it is a duplicate."""
        for index, (of, first, last) in enumerate(self.gaps):
            if of == stream and first <= sequence <= last:
                del self.gaps[index]
                rest = [(of, first, sequence - 1), (of, sequence + 1, last)]
                self.gaps.extend(gap for gap in rest if gap[1] <= gap[2])
                self.missing -= 1
                self.reordered += 1
                return True
        self.duplicated += 1
        return False


class Audience:
    """All connections of this process on the same channels; they are owed the same publications."""

    __slots__ = (
        "_labels", "_memory", "_padding", "_positions", "_scan", "_size", "_streams", "channels", "members"
    )  # fmt: skip

    def __init__(
        self, channels: tuple[int, ...], streams: Sequence[Stream], layout: Layout, memory: Memory, listens: bool = True
    ) -> None:
        self.channels = channels
        self.members = 0  # connections that stand on its positions; memory is worth while from two on
        # Those of a connection that only publishes are none: whatever it hears is unexpected.
        self._streams = [stream for stream in streams if listens and stream.channel in channels]
        self._memory = memory
        self._size, self._padding = layout.size, padding(layout.size)
        self._labels = {channel: layout.label(channel) for channel in channels}
        self._scan = layout.scanner(self._streams)
        self._positions: WeakValueDictionary[tuple[int, ...], Position] = WeakValueDictionary()

    @property
    def streams(self) -> list[Stream]:
        """The streams that its connections hear."""
        return self._streams

    def channel(self, label: str) -> int | None:
        """Which of its channels has this name on the wire."""
        return next((channel for channel, name in self._labels.items() if name == label), None)

    def start(self, late: bool) -> Position:
        """Where a connection begins: before the first publication, or wherever the streams are when it joins."""
        return self._at((0 if late else 1,) * len(self._streams))

    def run(self, position: Position, data: bytes, start: int = 0) -> tuple[Position, int, Sequence[int]]:
        """Check the whole frames of ``data`` from ``start`` on, as far as nothing is wrong with them.

        Returns:
            The position after them, how many bytes they take, and their send times.
        """
        nexts = list(position.nexts)
        used, stamps = self._scan(nexts, data, start)
        if not stamps:
            return position, 0, ()
        if self.members == 1:
            return Position(tuple(nexts)), used, stamps  # nobody else could stand there
        after = self._at(tuple(nexts))
        self._memory.keep(position, Memo(data[start : start + used], stamps, after))
        return after, used, stamps

    def take(self, entry: Entry, payload: bytes, label: str | None = None) -> int | None:
        """Enter one payload that is not known to be in order; its send time, or None if it is not a delivery.

        Args:
            label: the channel that it is said to be of, where the dialect says so.
        """
        stream = self._stream_of(payload, label)
        if stream is None:
            entry.blame(None if label is None else self.channel(label)).unexpected += 1
            return None
        account = self._streams[stream].channel
        sequence, due = int(payload[SEQUENCE]), entry.position.nexts[stream]
        if due == 0:
            assert entry.joined is not None, "only one who joined later is owed nothing in particular"
            entry.joined[stream] = sequence
        elif sequence < due:
            if sequence < (entry.joined[stream] if entry.joined else 1):
                entry.blame(account).reordered += 1  # older than its first: not owed, and out of order
                return None
            if not entry.blame(account).late(stream, sequence):
                return None
            return int(payload[STAMP])
        elif sequence > due:
            entry.blame(account).skip(stream, due, sequence - 1)
        nexts = list(entry.position.nexts)
        nexts[stream] = sequence + 1
        entry.position = self._at(tuple(nexts))
        return int(payload[STAMP])

    def _stream_of(self, payload: bytes, label: str | None) -> int | None:
        if len(payload) != self._size or not payload.endswith(self._padding):
            return None
        if not (payload[SEQUENCE].isdigit() and payload[STAMP].isdigit()):
            return None
        head = payload[:PREFIX_LENGTH]
        index = next((i for i, stream in enumerate(self._streams) if head in stream.prefixes()), None)
        return None if index is None or self._labels[self._streams[index].channel] != label else index

    def _at(self, nexts: tuple[int, ...]) -> Position:
        position = self._positions.get(nexts)
        if position is None:
            position = self._positions[nexts] = Position(nexts)
        return position


class Entry:
    """One connection in the ledger."""

    __slots__ = ("_cut", "accounts", "audience", "ended", "joined", "position")

    def __init__(self, audience: Audience, late: bool) -> None:
        self.audience = audience
        self.position = audience.start(late)
        self.accounts: dict[int, Account] | None = None  # by channel, those with something in them
        #: By stream, the first sequence of one who joined after the first publication; None = owed all of them.
        self.joined: list[int] | None = [0] * len(audience.streams) if late else None
        self.ended: str | None = None  # None = to the end of the run; "left" of its own accord; "closed" by the peer
        self._cut: dict[int, tuple[int, ...]] | None = None  # by channel that the server took away: the position then
        audience.members += 1

    @property
    def is_clean(self) -> bool:
        """Whether nothing went wrong on it so far."""
        return self.accounts is None

    def blame(self, channel: int | None = None) -> Account:
        """Its account of a channel (its first, if nobody knows which); from the first call on it is not clean."""
        if self.accounts is None:
            self.accounts = {}
        return self.accounts.setdefault(self.audience.channels[0] if channel is None else channel, Account())

    def end(self, how: str) -> None:
        """It hears no more: it ``left``, or was ``closed``. What it has got stays in the books."""
        if self.ended is None:
            self.ended = how
            self.audience.members -= 1
            # A position of its own, so that it does not hold on to what the others remember from here on.
            self.position = Position(self.position.nexts)

    def cut(self, channel: int) -> None:
        """The server has ended its subscription to one channel, and said so. Idempotent."""
        self._cut = self._cut or {}
        self._cut.setdefault(channel, self.position.nexts)

    def cut_at(self, channel: int) -> tuple[int, ...] | None:
        """Where it stood when the server took the channel away; None if it did not."""
        return self._cut.get(channel) if self._cut else None

    def delivered(self) -> int:
        """How many different publications it has received."""
        first = self.joined or (1,) * len(self.position.nexts)
        got = sum(due - since for due, since in zip(self.position.nexts, first, strict=True) if due)
        return got - self.missing()

    def missing(self) -> int:
        """How many publications it has not received, though later ones of their streams have come."""
        return sum(account.missing for account in (self.accounts or {}).values())

    def due(self, totals: Mapping[tuple[int, int], int | None]) -> list[int]:
        """The totals of its streams, in its audience's order.

        Args:
            totals: by publisher and channel; None where nobody knows: it is then due what the connection has got.
        """
        known = (totals.get((stream.publisher, stream.channel)) for stream in self.audience.streams)
        return [
            max(here - 1, 0) if total is None else total for total, here in zip(known, self.position.nexts, strict=True)
        ]

    def has_all(self, totals: Sequence[int]) -> bool:
        """Whether it has seen the last of each stream it still hears; the totals are in the audience's order."""
        return all(
            due > total or (due == 0 and total == 0) or self.cut_at(stream.channel) is not None
            for stream, due, total in zip(self.audience.streams, self.position.nexts, totals, strict=True)
        )


@dataclass(slots=True)
class Sums:
    """The ledger of some subscriptions; every field adds up."""

    subscribers: int = 0
    expected: int = 0
    delivered: int = 0
    declared: int = 0  # the tail that a closed connection, or one off the channel, was not there for
    missing: int = 0  # gaps in what a connection got
    absent: int = 0  # at the end of a connection that stayed, which the barrier should have brought
    overdue: int = 0  # the same, of a connection that still received when the barrier gave up, or came late itself
    duplicated: int = 0
    reordered: int = 0
    unexpected: int = 0
    silent: int = 0
    unfinished: int = 0

    @property
    def lost(self) -> int:
        """What did not come, and nobody has declared."""
        return self.missing + self.absent

    def excuse(self, dropped: int) -> int:
        """Let up to ``dropped`` of what is lost be declared, because the server says that it dropped so many.

        Returns:
            How many of them it explained.
        """
        explained = min(self.lost, dropped)
        gaps = min(self.missing, explained)
        self.missing -= gaps
        self.absent -= explained - gaps
        self.declared += explained
        return explained

    def add(self, other: Sums) -> None:
        """Add what ``other`` holds."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def dump(self) -> dict[str, int]:
        """The fields by name."""
        return asdict(self)


#: The publications that the server refused, which nobody is owed: by publisher and channel, ascending.
Refused = Mapping[tuple[int, int], Sequence[int]]


def settle(
    entry: Entry, totals: Sequence[int], refused: Refused | None = None, under_way: bool = False
) -> dict[int, Sums]:
    """What one connection's entry comes to, by channel, when each stream has had ``totals`` (markers included).

    Args:
        under_way: messages were still coming in at the end, so that what is absent may be on its way.
    """
    return {channel: _settle(entry, channel, totals, refused or {}, under_way) for channel in entry.audience.channels}


def _settle(entry: Entry, channel: int, totals: Sequence[int], refused: Refused, under_way: bool) -> Sums:
    account = (entry.accounts or {}).get(channel) or Account()
    cut = entry.cut_at(channel)
    ended = entry.ended if cut is None else "closed"
    sums = Sums(delivered=-account.missing, missing=account.missing)
    tail = 0
    for index, stream in enumerate(entry.audience.streams):
        if stream.channel != channel:
            continue
        sums.subscribers = 1
        due, total, first = entry.position.nexts[index], totals[index], entry.joined[index] if entry.joined else 1
        if due == 0:
            # It joined later and never heard this stream. Who stayed is owed the final marker at least; but whether it
            # was there before the marker, only one who is not late can say.
            sums.overdue += int(ended is None and total > 0)
            continue
        # More than was ever sent, or sent to one who was off the channel.
        beyond = max(due - 1 - total, due - (cut[index] or first) if cut else 0, 0)
        sums.unexpected += beyond
        sums.delivered += due - first - beyond
        never = refused.get((stream.publisher, channel), ())
        sums.missing -= _between(never, first, due)
        tail += max(total + 1 - due, 0) - _between(never, due, total + 1)
        sums.unfinished |= int(ended is None and due <= total)
    if sums.missing < 0:  # it was refused, and came all the same
        sums.unexpected -= sums.missing
        sums.delivered += sums.missing
        sums.missing = 0
    if ended == "closed":
        sums.declared = tail
    elif ended is None:
        sums.absent, sums.overdue = (0, sums.overdue + tail) if under_way else (tail, sums.overdue)
        sums.unfinished |= int(tail + sums.overdue > 0)
    sums.duplicated, sums.reordered = account.duplicated, account.reordered
    sums.unexpected += account.unexpected
    sums.expected = sums.delivered + sums.missing + sums.absent + sums.overdue + sums.declared
    sums.silent = int(sums.expected > 0 and sums.delivered == 0 and ended != "closed")
    return sums


def _between(ascending: Sequence[int], first: int, end: int) -> int:
    """How many of the numbers are in [first, end)."""
    return bisect_left(ascending, end) - bisect_left(ascending, first) if first < end else 0


def damage(sums: Sums, entry: Entry, channel: int) -> str | None:
    """One sentence on a channel of a connection with a wrong entry, or None."""
    wrong = {
        "missing": sums.missing,
        "absent at the end": sums.absent,
        "overdue": sums.overdue,
        "duplicated": sums.duplicated,
        "reordered": sums.reordered,
        "unexpected": sums.unexpected,
    }
    if not any(wrong.values()) and not sums.silent:
        return None
    said = ", ".join(f"{count:,} {name}" for name, count in wrong.items() if count) or "nothing received"
    gap = ""
    account = (entry.accounts or {}).get(channel)
    if account and account.gaps:
        _, first, last = account.gaps[0]
        gap = f" (the first missing: {first if first == last else f'{first}-{last}'})"
    return f"A connection on channel {channel}: {said}{gap}."
