"""Who said what, and who heard it: the accounts that show that nothing was lost, doubled, swapped or made up.

Every payload carries its publisher, its number and the monotonic time at which it was due, and its channel. A client
has an `Account`; the `Ledger` knows what was published, so it can say of each account what is missing. A verdict on
nothing is no verdict: a channel on which nothing was said, or an account that heard nothing, fails.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable
from struct import Struct
from typing import Final

_HEAD: Final = Struct("!4sHQQB")  # magic, publisher, number, nanoseconds, length of the channel's name
_MAGIC: Final = b"LEDG"


class Account:
    """What one client heard on one channel."""

    __slots__ = ("_expected", "_ledger", "_missing", "channel", "duplicated", "received", "reordered", "unexpected")

    def __init__(self, ledger: Ledger, channel: str) -> None:
        self.channel = channel
        self.received = 0
        self.duplicated = 0
        self.reordered = 0
        self.unexpected = 0
        self._ledger = ledger
        self._expected: dict[int, int] = {}
        self._missing: set[tuple[int, int]] = set()

    def hear(self, payload: bytes, now_ns: int) -> None:
        """Book one message that arrived at `now_ns` of the monotonic clock."""
        said = self._ledger.read(self.channel, payload)
        if said is None:
            self.unexpected += 1
            return
        publisher, number, due_ns = said
        self.received += 1
        self._ledger.latencies.append(now_ns - due_ns)
        expected = self._expected.get(publisher, 0)
        if number == expected:
            self._expected[publisher] = number + 1
        elif number > expected:
            self._missing.update((publisher, skipped) for skipped in range(expected, number))
            self._expected[publisher] = number + 1
        elif (publisher, number) in self._missing:
            self._missing.discard((publisher, number))
            self.reordered += 1
        else:
            self.duplicated += 1

    def heard_last(self, publisher: int = 0) -> int:
        """The highest number heard of a publisher; -1 when there is none."""
        return self._expected.get(publisher, 0) - 1

    @property
    def lost(self) -> int:
        """How many were published on the channel and not heard, up to now."""
        tail = sum(
            published - self._expected.get(publisher, 0)
            for (channel, publisher), published in self._ledger.published.items()
            if channel == self.channel
        )
        return len(self._missing) + tail

    def __repr__(self) -> str:
        return (
            f"<Account {self.channel!r} {self.received} received, {self.lost} lost, {self.duplicated} duplicated, "
            f"{self.reordered} reordered, {self.unexpected} unexpected>"
        )


class Ledger:
    """All that was published, and everyone's account of it."""

    def __init__(self) -> None:
        self.published: dict[tuple[str, int], int] = {}
        # Delivery times in nanoseconds, of all accounts together; exchange the array to start a new phase.
        self.latencies = array("q")

    def open_account(self, channel: str) -> Account:
        """Open the account of a client that has joined `channel` before anything is said there."""
        return Account(self, channel)

    def stamp(self, channel: str, size: int, *, publisher: int = 0, due_ns: int | None = None) -> bytes:
        """Make the next payload of a publisher, `size` bytes long, and book it as published."""
        number = self.published.get((channel, publisher), 0)
        self.published[channel, publisher] = number + 1
        name = channel.encode()
        head = _HEAD.pack(_MAGIC, publisher, number, time.monotonic_ns() if due_ns is None else due_ns, len(name))
        return (head + name).ljust(size, b".")

    def read(self, channel: str, payload: bytes) -> tuple[int, int, int] | None:
        """Return publisher, number and due time of a payload; None if nobody said it on `channel`."""
        if len(payload) < _HEAD.size:
            return None
        magic, publisher, number, due_ns, length = _HEAD.unpack_from(payload)
        name = payload[_HEAD.size : _HEAD.size + length]
        if magic != _MAGIC or name != channel.encode() or number >= self.published.get((channel, publisher), 0):
            return None
        return publisher, number, due_ns

    def assert_complete(self, accounts: Iterable[Account]) -> None:
        """Demand of every account: all that was published, once, in order, and nothing else."""
        accounts = list(accounts)
        self.assert_clean(accounts)
        faulty = [account for account in accounts if account.lost]
        assert not faulty, f"{len(faulty)} of {len(accounts)} accounts have losses, such as {faulty[0]}"

    def assert_clean(self, accounts: Iterable[Account]) -> None:
        """Demand of every account: something, in order, once, and nothing else; losses are allowed."""
        accounts = list(accounts)
        assert accounts, "no account to judge"
        for account in accounts:
            assert account.received, f"heard nothing, so nothing is known: {account}"
            wrong = account.duplicated + account.reordered + account.unexpected
            assert not wrong, f"{account}"

    def percentile(self, share: float) -> float:
        """The delivery time, in seconds, within which `share` (0 to 1) of this phase's deliveries came."""
        assert self.latencies, "nothing was delivered in this phase"
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1e9
