"""What is published on one Redis, and what of it is heard here without Redis.

Laws:
- a publication without history or key is heard here exactly once: from Redis, or at once while Redis is away or we are
  deaf. `serial` tells them apart: Redis brings our own in the order in which we sent them, so that what comes with a
  serial that is not above the last one heard was heard before.
- with history or key nothing is heard that Redis has not taken; what is kept is dated, for those who read it later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

from server.brokers.base import IDEMPOTENCY_TTL, BrokerError, Done, Ear, Published, Retention, Terms
from server.brokers.redis import scripts
from server.brokers.redis.commands import AWAY, Commands
from server.brokers.redis.connection import Reply
from server.brokers.redis.message import Kind, body, encode
from server.brokers.redis.scripts import Names, Script
from server.core.history import Position
from server.core.publication import ClientInfo, Publication

_GOOD: Final = Published()
_BUSY: Final = Published(keeps_up=False)
_TWICE: Final = Published(is_suppressed=True)
_PROBE: Final = Publication(b"")
_PROBED: Final = Terms(Retention(1, 30.0))
_IDEMPOTENCY_MS: Final = int(IDEMPOTENCY_TTL * 1000)


class Publisher:
    """See the module. `is_deaf` tells if Redis does not bring back what we publish; `origin` is this node's name."""

    def __init__(
        self,
        commands: Commands,
        names: Names,
        ear: Ear,
        *,
        origin: bytes,
        new_epoch: Callable[[], str],
        wall_clock: Callable[[], float],
        is_deaf: Callable[[], bool],
    ) -> None:
        self.incarnation = b""  # of Redis, as it was when we connected
        self._commands = commands
        self._names = names
        self._ear = ear
        self._origin = origin
        self._new_epoch = new_epoch
        self._wall_clock = wall_clock
        self._is_deaf = is_deaf
        self._serial = 0
        self._own_heard = 0
        self._congested: set[str] = set()
        self._probe_keys = names.probe_keys(origin.hex())
        self.probe_name = names.probe(origin.hex())

    def run(
        self, script: Script, keys: Sequence[bytes], arguments: tuple[Any, ...], done: Callable[[Any], object]
    ) -> None:
        """Have a script run."""
        self._commands.ask(("EVALSHA", script.digest, len(keys), *keys, *arguments), done)

    def place(self) -> tuple[str, bytes]:
        """Return a fresh epoch and the incarnation of Redis: what a script needs that may begin a stream."""
        return self._new_epoch(), self.incarnation

    # Publishing

    def publish(self, channel: str, publication: Publication, terms: Terms, done: Done[Published]) -> None:
        """Publish a publication."""
        if terms.retention.keeps:
            self._publish_kept(channel, publication, terms, done)
        elif terms.idempotency_key:
            self._publish_once(channel, publication, terms.idempotency_key, done)
        else:
            self._publish_plain(channel, publication, done)

    def publish_news(self, kind: Kind, channel: str, info: ClientInfo) -> bool:
        """Tell of a client that came or left; false if Redis is away."""
        if not self._commands.is_up:
            return False
        message = encode(kind, self._origin, 0, Publication(b"", info=info))
        self._commands.ask(("PUBLISH", self._names.channel(channel), message), _ignore)
        return True

    def _publish_plain(self, channel: str, publication: Publication, done: Done[Published]) -> None:
        self._serial = serial = self._serial + 1
        if self._is_deaf() or not self._commands.is_up:
            self.hear_own(channel, publication, serial)
        if not self._commands.is_up:
            done(AWAY)
            return
        message = encode(Kind.PUBLICATION, self._origin, serial, publication)
        waiting = _Plain(self, channel, publication, serial, done)
        self._commands.ask(("PUBLISH", self._names.channel(channel), message), waiting)

    def _publish_once(self, channel: str, publication: Publication, key: str, done: Done[Published]) -> None:
        def answer(reply: Reply | BrokerError) -> None:
            done(reply if isinstance(reply, BrokerError) else _TWICE if reply else self.good(channel))

        names = self._names
        message = encode(Kind.PUBLICATION, self._origin, 0, publication)
        arguments = (names.channel(channel), message, _IDEMPOTENCY_MS)
        self.run(scripts.PUBLISH_ONCE, (names.key(channel, key),), arguments, answer)

    def _publish_kept(self, channel: str, publication: Publication, terms: Terms, done: Done[Published]) -> None:
        def answer(reply: Reply | BrokerError) -> None:
            if isinstance(reply, BrokerError):
                done(reply)
            else:
                offset, epoch, is_suppressed = reply
                position = Position(int(offset), epoch.decode("ascii"))
                done(Published(position, is_suppressed == 1, channel not in self._congested))

        name, *keys = self._names.kept(channel)
        if terms.idempotency_key:
            keys.append(self._names.key(channel, terms.idempotency_key))
        dated = Publication(
            publication.payload,
            publication.is_binary,
            0,
            publication.info,
            publication.tags,
            publication.published_at or int(self._wall_clock() * 1000),
            publication.is_json,
        )
        kept = body(encode(Kind.PUBLICATION, self._origin, 0, dated))
        self._run_publish(keys, name, kept, terms, answer)

    def _run_publish(
        self, keys: Sequence[bytes], name: bytes, kept: bytes, terms: Terms, answer: Callable[[Any], object]
    ) -> None:
        arguments = (
            name,
            kept,
            *_retention(terms.retention),
            *self.place(),
            max(0, terms.version),
            terms.version_epoch,
            _IDEMPOTENCY_MS,
        )
        self.run(scripts.PUBLISH, keys, arguments, answer)

    def good(self, channel: str) -> Published:
        """Return the answer for what is not kept."""
        return _BUSY if channel in self._congested else _GOOD

    def publish_probe(self, serial: int, unsent: Callable[[int], object]) -> None:
        """Publish a probe on the way of everything that is kept; `unsent` is told if it could not be."""

        def answer(reply: Reply | BrokerError) -> None:
            if isinstance(reply, BrokerError):
                unsent(serial)

        kept = body(encode(Kind.PROBE, self._origin, serial, _PROBE))
        self._run_publish(self._probe_keys, self.probe_name, kept, _PROBED, answer)

    # Hearing

    def hear(self, channel: str, publication: Publication, epoch: str, origin: bytes, serial: int) -> None:
        """Hear what Redis brings, unless it is our own and was heard before."""
        if serial and origin == self._origin:
            if serial <= self._own_heard:
                return
            self._own_heard = serial
        self._hand_on(channel, publication, epoch)

    def hear_own(self, channel: str, publication: Publication, serial: int) -> None:
        """Hear a plain publication of our own that Redis may not bring; only the first time."""
        if serial > self._own_heard:
            self._own_heard = serial
            self._hand_on(channel, publication, "")

    def hear_what_waits(self) -> None:
        """Hear what is under way, when we have become deaf: it will come to others, but not back to us."""
        for waiting in list(self._commands.answers()):
            if isinstance(waiting, _Plain):
                waiting.hear()

    def forget(self, channel: str) -> None:
        """Know that nobody hears a channel any more."""
        self._congested.discard(channel)

    def _hand_on(self, channel: str, publication: Publication, epoch: str) -> None:
        if not self._ear.hear(channel, publication, epoch):
            self._congested.add(channel)
        elif self._congested:
            self._congested.discard(channel)


class _Plain:
    """A publication without history on its way: whatever becomes of it, it is heard here."""

    __slots__ = ("_channel", "_done", "_publication", "_publisher", "_serial")

    def __init__(
        self, publisher: Publisher, channel: str, publication: Publication, serial: int, done: Done[Published]
    ) -> None:
        self._publisher = publisher
        self._channel = channel
        self._publication = publication
        self._serial = serial
        self._done = done

    def __call__(self, reply: Reply | BrokerError) -> None:
        if not isinstance(reply, BrokerError):
            self._done(self._publisher.good(self._channel))
            return
        if reply is AWAY:
            self.hear()
        self._done(reply)

    def hear(self) -> None:
        self._publisher.hear_own(self._channel, self._publication, self._serial)


def ms(seconds: float) -> int:
    """Return milliseconds, one at least: Redis forgets at once what may live for none."""
    return max(1, round(seconds * 1000))


def meta_ttl(retention: Retention) -> int:
    """Return for how many milliseconds the position of a stream is remembered when nobody uses it."""
    return ms(max(scripts.META_TTL, scripts.META_TTLS * retention.ttl))


@lru_cache(64)
def _retention(retention: Retention) -> tuple[int, int, int]:
    """Return what the script wants to know of a retention: size, ttl, and ttl of the position."""
    return retention.size, ms(retention.ttl), meta_ttl(retention)


def _ignore(answer: object) -> None:
    """What is lost of these is lost."""
