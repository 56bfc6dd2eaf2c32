"""How the nodes of one Redis speak with each other: on channels that no client can name, by messages of their own kind.

Laws: what is said is bounded in size, and goes to everyone's ear or to one node's; a node that leaves no word for
`WORD_TTL` is no node any more, by Redis' clock. What is said means nothing here. See `base.Switchboard`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from server.brokers.base import BrokerError, Done
from server.brokers.redis import scripts
from server.brokers.redis.connection import Reply
from server.brokers.redis.layout import Layout
from server.brokers.redis.message import Malformed, decode_info, encode_info
from server.brokers.redis.shard import Shard
from server.core.publication import ClientInfo

EVERYONE: Final = "all nodes"
# Seconds between two words of a node, and those that one is remembered.
WORD_PERIOD: Final = 3.0
WORD_TTL: Final = 10.0
MOST_SAID: Final = 8 << 20

_TOO_LONG: Final = BrokerError("too much to say at once")


class Nodes:
    """See the module."""

    def __init__(self, layout: Layout, clock: Callable[[], float]) -> None:
        self._layout = layout
        self._clock = clock
        self._uid = ""
        self._take: Callable[[bytes], bool] | None = None
        self._announce: Callable[[], object] | None = None
        self._next = 0.0

    def attend(self, uid: str, take: Callable[[bytes], bool], announce: Callable[[], object]) -> None:
        """Be the node `uid`."""
        self._uid, self._take, self._announce = uid, take, announce
        for channel in (EVERYONE, _of(uid)):
            shard = self._layout.place(channel)
            shard.subscriber.subscribe(shard.names.channel(channel), channel, _ignore)

    def tell(self, uid: str, said: bytes, done: Done[int]) -> None:
        """Say something to one node, or to all ("")."""
        if len(said) > MOST_SAID:
            done(_TOO_LONG)
            return
        channel = _of(uid) if uid else EVERYONE
        self._layout.do(channel, lambda shard, answer: shard.publisher.publish_control(channel, said, answer), done)

    def announce(self, said: bytes) -> None:
        """Leave word of this node."""
        word = encode_info(ClientInfo("", self._uid, said))

        def note(shard: Shard, done: Done[Any]) -> None:
            arguments = (int(WORD_TTL * 1000), self._uid, word)
            shard.publisher.run(scripts.PRESENT, (shard.names.presence(EVERYONE),), arguments, done)

        self._layout.do(EVERYONE, note, _ignore)

    def announced(self, done: Done[Mapping[str, bytes]]) -> None:
        """Tell what the nodes have left word of."""

        def ask(shard: Shard, answer: Done[Any]) -> None:
            shard.publisher.run(scripts.WHO, (shard.names.presence(EVERYONE),), ("1",), answer)

        self._layout.do(EVERYONE, ask, partial(_tell_words, done))

    # For the broker

    def hear(self, said: bytes) -> bool:
        """Hear another node, or oneself; false if it makes no sense."""
        return self._take is None or self._take(said)

    def sweep(self) -> None:
        """Have the word of this node renewed when it is time; to be called often."""
        if self._announce is not None and self._clock() >= self._next:
            self._next = self._clock() + WORD_PERIOD
            self._announce()

    def hurry(self) -> None:
        """Renew the word at once: Redis may know nothing of it."""
        self._next = 0.0
        self.sweep()

    def leave(self) -> None:
        """Be no node any more. Idempotent."""
        if self._announce is not None:
            self._announce = None
            shard = self._layout.place(EVERYONE)
            shard.commands.ask(("HDEL", shard.names.presence(EVERYONE), self._uid), _ignore)


def _of(uid: str) -> str:
    return f"node {uid}"


def _tell_words(done: Done[Mapping[str, bytes]], reply: Reply | BrokerError) -> None:
    if isinstance(reply, BrokerError):
        done(reply)
        return
    words = {}
    for data in reply:
        try:
            info = decode_info(data)
        except Malformed:
            continue
        words[info.client] = info.conn_info
    done(words)


def _ignore(answer: object) -> None:
    """What could not be said now is said again soon."""
