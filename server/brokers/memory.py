"""A broker that keeps all in the memory of this process: for a server of one process.

Laws: every answer is given before the call returns. A publication is kept first, then heard, then answered for. What
nobody uses is forgotten (`sweep`), so memory follows what is in use and not what ever was; a stream that comes back
after that has another epoch, so nobody takes it for the old one.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from secrets import token_urlsafe
from typing import Final

from server.brokers.base import (
    IDEMPOTENCY_TTL,
    Attendance,
    Done,
    Ear,
    Published,
    Retention,
    Slice,
    Stream,
    Terms,
)
from server.core.history import History, Position
from server.core.publication import ClientInfo, Publication

# A stream that nobody uses is forgotten after so many seconds (or so many times its retention, if that is longer) …
_IDLE: Final = 3600.0
_IDLE_TTLS: Final = 10
# … and, where there are so many, after these if nothing was ever published on it: whoever invents names must not fill
# the memory with them.
_MANY: Final = 100_000
_IDLE_UNUSED: Final = 60.0

# A sweep looks at so many streams, or at this part of them if that is more.
_LOOKS: Final = 1000
_LOOKS_PART: Final = 128

# The answers for publications that are not kept.
_GOOD: Final = Published()
_BUSY: Final = Published(keeps_up=False)


def random_epoch() -> str:
    """Make the name of a stream's incarnation: eight characters that nobody can guess."""
    return token_urlsafe(6)


class MemoryBroker:
    """See the module and `base.Broker`; `clock` is monotonic, in seconds, and `sweep` is to be called once a second.

    What is kept is dated by `wall_clock` (Unix time), if there is one, for those who read it later.
    """

    def __init__(
        self,
        ear: Ear,
        clock: Callable[[], float],
        new_epoch: Callable[[], str] = random_epoch,
        wall_clock: Callable[[], float] | None = None,
    ) -> None:
        self._ear = ear
        self._clock = clock
        self._wall_clock = wall_clock
        self._new_epoch = new_epoch
        self._heard: set[str] = set()
        self._streams: dict[str, History] = {}
        self._round: deque[str] = deque()  # the streams, in the order in which sweeps look at them
        self._answers = _Answers()
        self._present: dict[str, _Present] = {}

    @property
    def is_up(self) -> bool:
        """Memory can always be reached."""
        return True

    @property
    def streams(self) -> int:
        """How many streams are remembered."""
        return len(self._streams)

    def publish(self, channel: str, publication: Publication, terms: Terms, done: Done[Published]) -> None:
        """Publish; with `terms.retention` the publication gets its offset and is kept."""
        keeps, key = terms.retention.keeps, terms.idempotency_key
        if not (keeps or key):  # every message of a channel without history comes by here
            done(_GOOD if self._ear.hear(channel, publication, "") else _BUSY)
            return
        now = self._clock()
        if key and (answer := self._answers.find(channel, key, now)):
            done(answer)
            return
        epoch, position = "", _GOOD.position
        if keeps:
            history = self._history(channel, terms.retention, now)
            if terms.version > 0 and not history.advance(terms.version, terms.version_epoch):
                done(Published(history.position, is_suppressed=True))
                return
            date = int(self._wall_clock() * 1000) if self._wall_clock is not None else 0
            publication = history.append(publication, now, date)
            epoch = history.epoch
            position = Position(publication.offset, epoch)
        if key:
            self._answers.keep(channel, key, Published(position, is_suppressed=True), now)
        done(Published(position, False, self._ear.hear(channel, publication, epoch)))

    def publish_join(self, channel: str, info: ClientInfo) -> None:
        """Tell that a client came."""
        self._ear.hear_join(channel, info)

    def publish_leave(self, channel: str, info: ClientInfo) -> None:
        """Tell that a client left."""
        self._ear.hear_leave(channel, info)

    def subscribe(self, channel: str, done: Done[None]) -> None:
        """Remember that somebody hears the channel. Idempotent."""
        self._heard.add(channel)
        done(None)

    def unsubscribe(self, channel: str) -> None:
        """Nobody hears the channel any more: from now on it is idle while nothing is published. Idempotent."""
        if channel in self._heard:
            self._heard.remove(channel)
            if history := self._streams.get(channel):
                history.touch(self._clock())

    def history(self, channel: str, retention: Retention, wanted: Slice, done: Done[Stream]) -> None:
        """Read a channel's history; a channel that never had one gets its epoch now."""
        now = self._clock()
        history = self._history(channel, retention, now)
        history.touch(now)
        kept = history.read(
            now, limit=wanted.limit, since=wanted.since, reverse=wanted.reverse, most_bytes=wanted.most_bytes
        )
        done(Stream(kept, history.position))

    def remove_history(self, channel: str, done: Done[None]) -> None:
        """Forget the publications of a channel; its position stays."""
        if history := self._streams.get(channel):
            history.clear()
        done(None)

    def add_presence(self, channel: str, info: ClientInfo, done: Done[None]) -> None:
        """Note that the client `info.client` is on the channel."""
        present = self._present.get(channel)
        if present is None:
            present = self._present[channel] = _Present()
        present.add(info)
        done(None)

    def remove_presence(self, channel: str, info: ClientInfo) -> None:
        """Note that the client is not on the channel any more. Idempotent."""
        if present := self._present.get(channel):
            present.remove(info)
            if not present.clients:
                del self._present[channel]

    def presence(self, channel: str, done: Done[Mapping[str, ClientInfo]]) -> None:
        """Tell who is on the channel, by client id."""
        present = self._present.get(channel)
        done(dict(present.clients) if present else {})

    def presence_stats(self, channel: str, done: Done[Attendance]) -> None:
        """Tell how many are on the channel; those without a user are one user together, as in Centrifugo."""
        present = self._present.get(channel)
        done(Attendance(len(present.clients), len(present.users)) if present else Attendance(0, 0))

    def sweep(self) -> None:
        """Forget what nobody uses: publications that expired, streams, answers. Looks at a bounded part of them."""
        now = self._clock()
        looks = max(_LOOKS, len(self._round) // _LOOKS_PART)
        for _ in range(min(looks, len(self._round))):
            channel = self._round.popleft()
            history = self._streams[channel]
            if channel not in self._heard and history.idle_for(now) >= self._longest_idle(history):
                del self._streams[channel]
            else:
                history.forget_old(now)
                self._round.append(channel)
        self._answers.forget_old(now, looks)

    def _history(self, channel: str, retention: Retention, now: float) -> History:
        history = self._streams.get(channel)
        if history is None:
            history = self._streams[channel] = History(self._new_epoch(), retention.size, retention.ttl, now)
            self._round.append(channel)
        elif (history.size != retention.size or history.ttl != retention.ttl) and retention.keeps:
            history.retain(retention.size, retention.ttl, now)
        return history

    def _longest_idle(self, history: History) -> float:
        if history.top or len(self._streams) <= _MANY:
            return max(_IDLE, _IDLE_TTLS * history.ttl)
        return _IDLE_UNUSED


class _Answers:
    """What was answered for idempotency keys, oldest first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], tuple[float, Published]] = OrderedDict()

    def find(self, channel: str, key: str, now: float) -> Published | None:
        """Return the answer of a first publication that is not IDEMPOTENCY_TTL old yet."""
        due, answer = self._kept.get((channel, key), (now, None))
        return answer if due > now else None

    def keep(self, channel: str, key: str, answer: Published, now: float) -> None:
        """Remember an answer; two old ones go for it, so that they never pile up."""
        self.forget_old(now, 2)
        self._kept.pop((channel, key), None)
        self._kept[channel, key] = (now + IDEMPOTENCY_TTL, answer)

    def forget_old(self, now: float, most: int) -> None:
        """Forget at most so many answers whose time is over."""
        for _ in range(most):
            if not self._kept or next(iter(self._kept.values()))[0] > now:
                return
            self._kept.popitem(last=False)


class _Present:
    """Who is on one channel; `users` says how many clients each user has there."""

    __slots__ = ("clients", "users")

    def __init__(self) -> None:
        self.clients: dict[str, ClientInfo] = {}
        self.users: dict[str, int] = {}

    def add(self, info: ClientInfo) -> None:
        """Take a client in, or what is now said of one that is here."""
        self.remove(info)
        self.clients[info.client] = info
        self.users[info.user] = self.users.get(info.user, 0) + 1

    def remove(self, info: ClientInfo) -> None:
        """Take a client out. Idempotent."""
        known = self.clients.pop(info.client, None)
        if known is None:
            return
        self.users[known.user] -= 1
        if not self.users[known.user]:
            del self.users[known.user]
