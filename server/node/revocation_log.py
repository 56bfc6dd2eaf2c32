"""What was revoked, as all nodes know it: a stream that the broker keeps, and the table that each makes of it.

    {"v": 1, "uid": "a token's jti", "ends": 1700000000}
    {"v": 1, "user": "ann", "channel": "", "before": 1700000000, "ends": 0}          ends 0: for good

Laws:
- the stream is the truth: a node reads it from its beginning when it starts, and on from where it was whenever it hears
  of something new, may have missed something, or is asked to. One read at a time.
- what the stream is about to forget, or what a broker that has come back empty does not know, the nodes that know it
  say again. A key makes it one word, however many say it.
- it is revoked once the broker has it: if that cannot be reached, whoever asked is told so, and nothing is revoked.

What others say is data: checked in size, version and form. The stream has a name that no client's channel can have.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from math import inf
from typing import Final

import orjson

from server.brokers.base import Broker, BrokerError, Done, Published, Retention, Slice, Stream, Terms
from server.core.history import Position
from server.core.publication import Publication
from server.core.revocations import MOST, Revocation, Revocations

log = logging.getLogger("stentor.node")

REVOKED: Final = "revoked\ttokens"
# Longer than twice what is said again if all of it has faded: words about the old never push the old out. And for a
# year after the last word.
KEPT: Final = Retention(size=4 * MOST, ttl=365 * 24 * 3600.0)
PAGE: Final = 1000
MOST_BYTES: Final = 16 * 1024
VERSION: Final = 1

_START: Final = Position(0, "")


class RevocationLog:
    """See the module; `broker` returns the broker, which may be joined later, and `wall_clock` Unix time.

    `on_news` is called when more is revoked than before. Where no token is ever signed it is not `is_needed`.
    """

    def __init__(self, broker: Callable[[], Broker], wall_clock: Callable[[], float] = time.time) -> None:
        self.revoked = Revocations()
        self.on_news: Callable[[], object] = lambda: None
        self.is_needed = True
        self.wall_clock = wall_clock
        self._broker = broker
        self._read = _START
        self._follows = False
        self._is_subscribed = False
        self._is_current = False
        self._has_news = False
        self._underway = 0
        self._ignored = 0  # while reading
        self._asked: list[Done[None]] = []  # for what is being read now
        self._waiting: list[Done[None]] = []  # for what is read after that

    # Following

    def follow(self, done: Done[None] | None = None) -> None:
        """Hear of everything new from now on, and read what there is; done when that is known. Idempotent."""
        self._follows = True
        self._broker().subscribe(REVOKED, lambda answer: self._subscribed(answer, done or _ignore))

    def look(self) -> None:
        """Read on: something is new, or may have been missed. Nothing happens unless it follows."""
        if self._follows:
            self.catch_up()

    def tick(self) -> None:
        """Forget what has ended, and try again what has failed; called once a second."""
        self.revoked.forget_old(self.wall_clock())
        if self._follows and not (self._is_subscribed and self._is_current):
            self.follow()

    def catch_up(self, done: Done[None] | None = None) -> None:
        """Read on; done when everything is known that was said before this call."""
        self._waiting.append(done or _ignore)
        if not self._asked:
            self._begin()

    # Revoking

    def revoke(self, revocation: Revocation, done: Done[bool]) -> None:
        """Revoke for all nodes; done when it is known here, or with false when there is no room for more."""

        def known(answer: BrokerError | None) -> None:
            if isinstance(answer, BrokerError):
                done(answer)
            elif revocation not in self.revoked and len(self.revoked) + self._underway >= MOST:
                done(False)
            else:
                self._underway += 1
                self._say(revocation, "", said)

        def said(answer: Published | BrokerError) -> None:
            self._underway -= 1
            if isinstance(answer, BrokerError):
                done(answer)
            else:
                # It is revoked, whether or not it could be read back.
                self.catch_up(lambda _: done(True))

        self.catch_up(known)

    def _say(self, revocation: Revocation, key: str, done: Done[Published]) -> None:
        publication = Publication(encode(revocation), is_json=True)
        self._broker().publish(REVOKED, publication, Terms(KEPT, idempotency_key=key), done)

    def _say_again(self) -> None:
        """Say what the stream may not say for long."""
        for revocation, offset in self.revoked.faded(self._read.offset - KEPT.size // 2, PAGE):
            key = " ".join((self._read.epoch, str(offset), *revocation.key))
            self._say(revocation, key, _ignore)

    # Reading

    def _subscribed(self, answer: BrokerError | None, done: Done[None]) -> None:
        self._is_subscribed = answer is None
        self.catch_up(done)

    def _begin(self) -> None:
        self._asked, self._waiting = self._waiting, []
        self._ask()

    def _ask(self) -> None:
        self._broker().history(REVOKED, KEPT, Slice(limit=PAGE, since=self._read), self._take)

    def _take(self, answer: Stream | BrokerError) -> None:
        if isinstance(answer, BrokerError):
            self._end(answer)
            return
        if answer.top.epoch != self._read.epoch:
            was_elsewhere = self._read.offset > 0
            self._read = Position(0, answer.top.epoch)
            self.revoked.unsay()
            if was_elsewhere:
                self._ask()
                return
        for publication in answer.publications:
            self._fold(publication)
        last = answer.publications[-1].offset if answer.publications else answer.top.offset
        self._read = Position(last, answer.top.epoch)
        if last < answer.top.offset:
            self._ask()
        else:
            self._end(None)

    def _fold(self, publication: Publication) -> None:
        revocation = decode(publication.payload)
        if revocation is not None and self.revoked.add(revocation, publication.offset):
            self._has_news = True
        elif revocation is None or revocation not in self.revoked:
            self._ignored += 1

    def _end(self, outcome: BrokerError | None) -> None:
        self._is_current = outcome is None
        self.revoked.forget_old(self.wall_clock())
        if self._ignored:
            log.error("%d revocations are not in force: they make no sense, or there is no room", self._ignored)
            self._ignored = 0
        if self._has_news:
            self._has_news = False
            self.on_news()
        if outcome is None:
            self._say_again()
        asked, self._asked = self._asked, []
        for done in asked:
            done(outcome)
        if self._waiting and not self._asked:
            self._begin()


def encode(revocation: Revocation) -> bytes:
    """Write a revocation as the stream has it."""
    ends = 0 if revocation.ends == inf else revocation.ends
    if revocation.uid:
        return orjson.dumps({"v": VERSION, "uid": revocation.uid, "ends": ends})
    user, channel, before = revocation.user, revocation.channel, revocation.before
    return orjson.dumps({"v": VERSION, "user": user, "channel": channel, "before": before, "ends": ends})


def decode(payload: bytes) -> Revocation | None:
    """Read what `encode` wrote; None if it is nothing of the kind."""
    try:
        said = orjson.loads(payload) if len(payload) <= MOST_BYTES else None
    except orjson.JSONDecodeError:
        return None
    match said:
        case {"v": 1, "uid": str(uid), "ends": int(ends) | float(ends)} if uid:
            return Revocation(uid=uid, ends=ends or inf)
        case {
            "v": 1,
            "user": str(user),
            "channel": str(channel),
            "before": int(before) | float(before),
            "ends": int(ends) | float(ends),
        }:
            return Revocation("", user, channel, before, ends or inf)
    return None


def _ignore(answer: object) -> None:
    """What is missing is read with the next word, or a second later."""
