"""What is published on one Redis, and what of it is heard here without Redis.

Laws:
- a publication without history or key is heard here exactly once: from Redis, or at once while Redis is away or we are
  deaf. `serial` tells them apart: Redis brings our own in the order in which we sent them, so that what comes with a
  serial that is not above the last one heard was heard before. (Of other nodes it was given up: it is late, and would
  be out of order.) So nothing is heard at once before all that was sent earlier: what Redis has taken may be on its way
  back, on a connection that outlives the other, or dies first. Serials count up for all shards together. Where one
  channel is deaf while it moves to another shard, its own are heard at once, and remembered by their serials.
- what neighbours say by themselves counts as brought: what Redis brings later of before that is late, as above.
- with history or key nothing is heard that Redis has not taken; what is kept is dated, for those who read it later.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, Protocol

from server.brokers.base import IDEMPOTENCY_TTL, BrokerError, Done, Ear, Published, Retention, Terms
from server.brokers.redis import scripts
from server.brokers.redis.commands import AWAY, Commands, Redirect
from server.brokers.redis.connection import Reply
from server.brokers.redis.message import Kind, body, encode
from server.brokers.redis.scripts import Names, Script, Scripts
from server.brokers.redis.unheard import Unheard
from server.core.history import Position
from server.core.publication import ClientInfo, Publication

_GOOD: Final = Published()
_BUSY: Final = Published(keeps_up=False)
_TWICE: Final = Published(is_suppressed=True)
_PROBE: Final = Publication(b"")
_PROBED: Final = Terms(Retention(1, 30.0))
# Nodes whose last publication is remembered.
_MOST_NODES: Final = 10_000
# Publications that were heard here before Redis may bring them.
_MOST_AT_ONCE: Final = 10_000
_NO: Final = object()
_IDEMPOTENCY_MS: Final = int(IDEMPOTENCY_TTL * 1000)


class Publisher:
    """See the module. `is_deaf` tells if Redis does not bring back what we publish, `is_heard` if it brings a name;
    `origin` is this node's name, and `serials` counts the plain publications of all its shards. What is heard here
    without Redis `tell_neighbours` is told, as a message: the other processes of this server hear it by `hear`.
    """

    def __init__(
        self,
        commands: Commands,
        names: Names,
        kind: Scripts,
        ear: Ear,
        *,
        origin: bytes,
        serials: Callable[[], int],
        new_epoch: Callable[[], str],
        wall_clock: Callable[[], float],
        is_deaf: Callable[[], bool],
        is_heard: Callable[[bytes], bool],
        is_regaining: Callable[[bytes], bool],
        incarnation: Callable[[], bytes],
        tell_neighbours: Callable[[str, bytes], object],
    ) -> None:
        self._tell_neighbours = tell_neighbours
        self._incarnation = incarnation
        self._commands = commands
        self._names = names
        self._scripts = kind
        self._ear = ear
        self._origin = origin
        self._new_epoch = new_epoch
        self._wall_clock = wall_clock
        self._is_deaf = is_deaf
        self._is_heard = is_heard
        self._is_regaining = is_regaining
        self._next_serial = serials
        # What was sent before by another shard's publisher may still come here: a primary that hung says it late.
        self._own_heard = serials()
        self._last: dict[bytes, int] = {}  # heard of each other node
        self._heard_at_once: OrderedDict[int, None] = OrderedDict()
        self._unheard = Unheard()
        self._congested: set[str] = set()
        self.probe_name, *self._probe_keys = names.probe(origin.hex())

    def run(
        self, script: Script, keys: Sequence[bytes], arguments: tuple[Any, ...], done: Callable[[Any], object]
    ) -> None:
        """Have a script run."""
        self._commands.ask(("EVALSHA", script.digest, len(keys), *keys, *arguments), done)

    def place(self) -> tuple[str, bytes]:
        """Return a fresh epoch and the incarnation of Redis: what a script needs that may begin a stream."""
        return self._new_epoch(), self._incarnation()

    def probe_by(self, tag: str) -> None:
        """Probe by other names from now on: those of this hash tag."""
        self.probe_name, *self._probe_keys = self._names.probe(tag)

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
        self._commands.ask((self._scripts.verb, self._names.channel(channel), message), _ignore)
        return True

    def publish_control(self, channel: str, said: bytes, done: Done[int]) -> None:
        """Say something to other nodes; done with how many hear it."""
        message = encode(Kind.CONTROL, self._origin, 0, Publication(said, is_binary=True))
        self._commands.ask((self._scripts.verb, self._names.channel(channel), message), done)

    def _publish_plain(self, channel: str, publication: Publication, done: Done[Published]) -> None:
        serial, name = self._next_serial(), self._names.channel(channel)
        plain = _Plain(self, channel, publication, serial, done)
        if self._is_deaf() or not self._commands.is_up:
            plain.hear()
        elif self._is_regaining(name):
            self._expect_heard(serial)
            self._hand_on(channel, publication, "")
            plain.was_heard = True
        elif self._is_heard(name):
            self._unheard.add(serial, plain)
        self._send_plain(plain)

    def publish_heard(self, channel: str, publication: Publication, done: Done[Published]) -> None:
        """Publish a plain publication that was heard here already."""
        serial = self._next_serial()
        self._expect_heard(serial)
        plain = _Plain(self, channel, publication, serial, done)
        plain.was_heard = True
        self._send_plain(plain)

    def _send_plain(self, plain: _Plain) -> None:
        if not self._commands.is_up:
            plain(AWAY)
            return
        message = encode(Kind.PUBLICATION, self._origin, plain.serial, plain.publication)
        self._commands.ask((self._scripts.verb, self._names.channel(plain.channel), message), plain)

    def _publish_once(self, channel: str, publication: Publication, key: str, done: Done[Published]) -> None:
        def answer(reply: Reply | BrokerError) -> None:
            done(reply if isinstance(reply, BrokerError) else _TWICE if reply else self.good(channel))

        names = self._names
        message = encode(Kind.PUBLICATION, self._origin, 0, publication)
        arguments = (names.channel(channel), message, _IDEMPOTENCY_MS)
        self.run(self._scripts.publish_once, (names.key(channel, key),), arguments, answer)

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
        self.run(self._scripts.publish, keys, arguments, answer)

    def good(self, channel: str) -> Published:
        """Return the answer for what is not kept."""
        return _BUSY if channel in self._congested else _GOOD

    def publish_probe(self, serial: int, done: Callable[[Reply | BrokerError], object]) -> None:
        """Publish a probe on the way of everything that is kept."""
        kept = body(encode(Kind.PROBE, self._origin, serial, _PROBE))
        self._run_publish(self._probe_keys, self.probe_name, kept, _PROBED, done)

    def publish_plain_probe(self, serial: int, done: Callable[[Reply | BrokerError], object]) -> None:
        """Publish a probe on the way of everything that is not: it is open also where nothing can be written."""
        message = encode(Kind.PROBE, self._origin, serial, _PROBE)
        self._commands.ask((self._scripts.verb, self.probe_name, message), done)

    # Hearing

    def hear(self, channel: str, publication: Publication, epoch: str, origin: bytes, serial: int) -> None:
        """Hear what Redis brings, unless it is our own and was heard before, or is older than what was heard."""
        if not serial:
            pass
        elif origin == self._origin:
            if serial <= self._own_heard:
                return
            self._own_heard = serial
            self._unheard.brought(serial)
            if self._heard_at_once.pop(serial, _NO) is None:
                return
        elif serial <= self._last.get(origin, 0):
            return  # a Redis that hung does late what its publisher has given up
        else:
            if len(self._last) >= _MOST_NODES:
                self._last.clear()
            self._last[origin] = serial
        self._hand_on(channel, publication, epoch)

    def hear_own(self, channel: str, publication: Publication, serial: int) -> None:
        """Hear a plain publication of our own that Redis may not bring, after all that was sent before; only once."""
        self._unheard.hear(before=serial.__gt__)
        if serial > self._own_heard:
            self._own_heard = serial
            self._hand_on(channel, publication, "")
            # With its serial: Redis may have brought it to them, or may still do.
            self._tell_neighbours(channel, encode(Kind.PUBLICATION, self._origin, serial, publication))

    def _expect_heard(self, serial: int) -> None:
        """Remember that a plain publication was heard, though others before it were not yet."""
        if len(self._heard_at_once) >= _MOST_AT_ONCE:
            self._heard_at_once.popitem(last=False)
        self._heard_at_once[serial] = None

    def hear_what_waits(self) -> None:
        """Hear what is under way, when we have become deaf: it will come to others, but not back to us."""
        for waiting in list(self._commands.answers()):
            if isinstance(waiting, _Plain):
                waiting.hear()
        self._unheard.hear()

    def refused(self, serial: int) -> None:
        """Know that Redis has not taken a plain publication, and will not bring it."""
        self._unheard.refused(serial)

    def forget(self, channel: str) -> None:
        """Know that nobody hears a channel any more."""
        self._congested.discard(channel)
        self._unheard.leave(channel)

    def _hand_on(self, channel: str, publication: Publication, epoch: str) -> None:
        if not self._ear.hear(channel, publication, epoch):
            self._congested.add(channel)
        elif self._congested:
            self._congested.discard(channel)


class _Plain:
    """A publication without history on its way: whatever becomes of it, it is heard here, and once."""

    __slots__ = ("_done", "_publisher", "channel", "publication", "serial", "was_heard")

    def __init__(
        self, publisher: Publisher, channel: str, publication: Publication, serial: int, done: Done[Published]
    ) -> None:
        self._publisher = publisher
        self.channel = channel
        self.publication = publication
        self.serial = serial
        self._done = done
        self.was_heard = False  # otherwise than from Redis

    @property
    def size(self) -> int:
        return len(self.publication.payload)

    def __call__(self, reply: Reply | BrokerError) -> None:
        if not isinstance(reply, BrokerError):
            self._done(self._publisher.good(self.channel))
            return
        if reply is AWAY:
            self.hear()
        else:
            self._publisher.refused(self.serial)
            if self.was_heard and isinstance(reply, Redirect):
                reply.instead = self._publish_heard
        self._done(reply)

    def hear(self) -> None:
        if not self.was_heard:
            self.was_heard = True
            self._publisher.hear_own(self.channel, self.publication, self.serial)

    def _publish_heard(self, shard: _Publishes, done: Done[Published]) -> None:
        shard.publisher.publish_heard(self.channel, self.publication, done)


class _Publishes(Protocol):
    """What a publication that is sent on needs of the other shard."""

    @property
    def publisher(self) -> Publisher: ...


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
