"""One channel: who listens, what waits to be said, and the flush that is under way.

A flush hands one batch to those who were there when it began, in *legs*: the main leg brings the whole batch to
everyone but the newcomers that must not get its beginning; those get its rest, in a leg of their own.

Law: who is on the channel when a publication comes gets it once, and in order; of what was published before, somebody
who skips it gets nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Final

from server.core.batch import Batch, Keys, some_keys

if TYPE_CHECKING:
    from server.core.lag import ChannelTerms
    from server.core.outbox import Outbox
    from server.core.subscription import Subscription, WriteFaults

# One write() of a batch; what is more goes with the next turn. Large enough for one system call to carry a thousand
# publications, small enough that a client that stalls in it holds no more than this beside its outbox.
MAX_BATCH_BYTES: Final = 256 * 1024

# What handing a batch to one client costs of a turn's room: a write is a system call, gathering an append.
WRITE: Final = 16
GATHER: Final = 1


class Channel:
    """The subscribers of one channel that hear it in the same encoding."""

    __slots__ = (
        "_everyone", "accepted", "batch", "departures", "faults", "flush", "frames", "gatherers", "key", "keys",
        "newcomers", "on_relief", "pending_bytes", "subscriptions", "terms", "waiting",
    )  # fmt: skip

    def __init__(self, key: Hashable, terms: ChannelTerms, faults: WriteFaults) -> None:
        self.key = key
        self.terms = terms
        self.faults = faults
        # A dict keeps the order of arrival and forgets from the middle at once.
        self.subscriptions: dict[Outbox, Subscription] = {}
        self._everyone: list[Subscription] | None = None  # the same as a list, for as long as nobody comes or leaves
        self.gatherers = 0  # how many of them gather
        self.newcomers: dict[Subscription, int] = {}  # how many of `frames` each of them has to skip
        self.frames: list[bytes] = []
        self.accepted: list[float] = []
        self.keys: list[str | None] | None = None  # None: no publication that waits has a conflation key
        self.pending_bytes = 0
        self.batch: Batch | None = None  # what is being handed out; `Subscription.offer` reads it
        self.flush: Flush | None = None
        self.waiting = False  # a flush is asked for or under way
        self.departures = 0
        self.on_relief: list[Callable[[], None]] = []

    @property
    def is_idle(self) -> bool:
        return not (self.subscriptions or self.waiting)

    def add(self, frame: bytes, accepted: float, conflation_key: str | None) -> None:
        """Let a publication wait for the next flush."""
        if self.keys is not None:
            self.keys.append(conflation_key)
        elif conflation_key is not None:
            self.keys = [*[None] * len(self.frames), conflation_key]
        self.frames.append(frame)
        self.accepted.append(accepted)
        self.pending_bytes += len(frame)

    def enter(self, subscription: Subscription, *, skips_pending: bool) -> None:
        outbox = subscription.outbox
        assert outbox not in self.subscriptions, "a client is on a channel once"
        self.subscriptions[outbox] = subscription
        self._everyone = None
        if skips_pending and self.frames:
            self.newcomers[subscription] = len(self.frames)

    def leave(self, subscription: Subscription) -> bool:
        """Forget a subscription; false when it had left already."""
        if self.subscriptions.get(subscription.outbox) is not subscription:
            return False
        del self.subscriptions[subscription.outbox]
        self._everyone = None
        self.newcomers.pop(subscription, None)
        self.departures += 1
        return True

    def take_batch(self) -> Batch:
        """Remove what waits, up to MAX_BATCH_BYTES but at least one publication."""
        frames, accepted, keys = self.frames, self.accepted, self.keys
        if self.pending_bytes <= MAX_BATCH_BYTES:
            self.frames, self.accepted, self.keys, self.pending_bytes = [], [], None, 0
            return Batch(self, frames, accepted, keys)
        size = count = 0
        while count < len(frames) and (not count or size + len(frames[count]) <= MAX_BATCH_BYTES):
            size += len(frames[count])
            count += 1
        self.frames, self.accepted = frames[count:], accepted[count:]
        self.pending_bytes -= size
        taken: Keys | None = None
        if keys is not None:
            taken = some_keys(keys[:count])
            self.keys = keys[count:] if some_keys(keys[count:]) else None
        return Batch(self, frames[:count], accepted[:count], taken)

    def legs(self, batch: Batch) -> list[Leg]:
        """Say who gets `batch`, which was just taken, and who only a rest of it."""
        if not self.newcomers:
            if self._everyone is None:
                self._everyone = list(self.subscriptions.values())
            return [(batch, self._everyone)]
        newcomers, self.newcomers = self.newcomers, {}
        legs = [(batch, [each for each in self.subscriptions.values() if each not in newcomers])]
        rests: dict[int, list[Subscription]] = {}
        for newcomer, skipped in newcomers.items():
            if skipped > len(batch):
                self.newcomers[newcomer] = skipped - len(batch)
            elif skipped < len(batch):
                rests.setdefault(skipped, []).append(newcomer)
        legs += [(batch.after(skipped), targets) for skipped, targets in rests.items()]
        return legs

    def __repr__(self) -> str:
        return f"<Channel {self.key!r} {len(self.subscriptions)} subscribed, {len(self.frames)} pending>"


Leg = tuple[Batch, list["Subscription"]]


class Flush:
    """One batch on its way to the subscribers that there were when it began."""

    __slots__ = ("_legs", "_position", "batch", "channel", "departures", "is_gathered", "is_partial", "started")

    def __init__(self, channel: Channel, started: float) -> None:
        self.channel = channel
        self.batch = channel.take_batch()
        self.is_gathered = False  # some have it in their outboxes when the flush is through, to be drained
        self.is_partial = bool(channel.frames)  # the rest has waited its time, and goes with the next turn
        self.departures = channel.departures
        self.started = started
        self._legs = [leg for leg in channel.legs(self.batch) if leg[1]]
        self._position = 0  # in the first of the legs

    @property
    def is_through(self) -> bool:
        return not self._legs

    def take_part(self, room: int) -> tuple[Batch, list[Subscription], int]:
        """Remove those whose turn it is; return what they get, who they are, and the room that they took.

        `room` is at least WRITE, so that there is always somebody.
        """
        channel = self.channel
        some_gather = channel.gatherers > 0
        all_gather = channel.gatherers == len(channel.subscriptions) and channel.departures == self.departures
        batch, targets = self._legs[0]
        start = self._position
        part = targets
        most = room if some_gather else room // WRITE
        if start or len(part) > most:
            part = part[start : start + most]
        if some_gather:
            count, cost = (len(part), len(part) * GATHER) if all_gather else _reach(part, room)
            if count < len(part):
                part = part[:count]
        else:
            cost = len(part) * WRITE
        self._position = start + len(part)
        if self._position == len(targets):
            del self._legs[0]
            self._position = 0
        return batch, part, cost


def _reach(part: list[Subscription], room: int) -> tuple[int, int]:
    """Say how many of `part` there is room for, and how much they take."""
    count = cost = 0
    for subscription in part:
        cost += GATHER if subscription.gathers else WRITE
        if cost > room:
            return count, cost - (GATHER if subscription.gathers else WRITE)
        count += 1
    return count, cost
