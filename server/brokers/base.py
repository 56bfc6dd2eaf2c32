"""What a broker is: it orders the publications of each channel, keeps history and presence, and tells its ear.

Laws:
- what is published on a channel reaches the ear of every node that is subscribed to it, in one order, with offsets that
  count up by one where the channel keeps history; the publisher's own node too.
- every answer comes once, as a call of ``done``: with the result, or with a BrokerError. It may come before the call
  returns (memory) or later (a network is between).
- a broker that may have lost something says so (`Ear.lost`), for one channel or for all.

Knows neither clients nor encodings. The hub does not know which broker it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, TypeVar, runtime_checkable

from server.core.history import Position
from server.core.publication import ClientInfo, Publication

# How long a publication's idempotency key is remembered, in seconds.
IDEMPOTENCY_TTL: Final = 300.0

Result = TypeVar("Result")


class BrokerError(Exception):
    """The broker cannot do this now; trying again later may work."""


Done = Callable[[Result | BrokerError], object]


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of a channel is kept: `size` publications, `ttl` seconds after the last one; both above 0, or none."""

    size: int = 0
    ttl: float = 0.0

    @property
    def keeps(self) -> bool:
        """Tell if the channel has a history at all."""
        return self.size > 0 and self.ttl > 0


NOTHING: Final = Retention()


@dataclass(frozen=True, slots=True)
class Terms:
    """What is asked of the broker for one publication.

    A second publication with the same `idempotency_key` on the channel, within IDEMPOTENCY_TTL, is not published: its
    answer is the first one's. On a channel with history, a `version` above 0 that is not above the channel's last one
    (of the same `version_epoch`; an empty one is compared with any) is not published either.
    """

    retention: Retention = NOTHING
    idempotency_key: str = ""
    version: int = 0
    version_epoch: str = ""


PLAIN: Final = Terms()


class Published(NamedTuple):
    """A publication was taken. `position` is where it stands (offset 0 without history).

    `is_suppressed` says that it was not published, because of its key or version. `keeps_up` is false when so much
    waits to go out that the publisher should pause.
    """

    position: Position = Position(0, "")
    is_suppressed: bool = False
    keeps_up: bool = True


@dataclass(frozen=True, slots=True)
class Slice:
    """What of a history is read: after `since` (or before it, newest first, with `reverse`), `limit` at most.

    `limit` None is no limit, 0 asks for the position alone. The epoch of `since` is not looked at: whoever asked
    compares it with the answer's. Of more than `most_bytes` (None: no limit), as the broker keeps them, only the first
    come that fit into it, but one at least: what nobody could be told is not fetched.
    """

    limit: int | None = None
    since: Position | None = None
    reverse: bool = False
    most_bytes: int | None = None


EVERYTHING: Final = Slice()


@dataclass(frozen=True, slots=True)
class Stream:
    """What was read of a history, and the position of its top at that moment."""

    publications: tuple[Publication, ...]
    top: Position


@dataclass(frozen=True, slots=True)
class Attendance:
    """How many are on a channel: clients, and users (one user may be many clients)."""

    clients: int
    users: int


class Ear(Protocol):
    """What a broker tells a node, from the event loop."""

    def hear(self, channel: str, publication: Publication, epoch: str) -> bool:
        """Take a publication; false when so much waits that publishers should pause. `epoch` "" without history."""

    def hear_join(self, channel: str, info: ClientInfo) -> None:
        """Take the news that a client came to the channel."""

    def hear_leave(self, channel: str, info: ClientInfo) -> None:
        """Take the news that a client left the channel."""

    def lost(self, channel: str | None) -> None:
        """Something may be missing, on `channel` or (None) on all: whoever has a position must check it."""


@runtime_checkable
class Remote(Protocol):
    """A broker that is somewhere else, and must be reached."""

    async def start(self) -> bool:
        """Begin to connect, and wait a moment for it; tell if the broker is up. If not, it goes on trying."""

    async def stop(self) -> None:
        """Let what was asked for go out, and end the connections. Idempotent."""

    @property
    def trouble(self) -> str:
        """Say why it is not up; "" if it is."""


class Switchboard(Protocol):
    """How the nodes that share a broker speak with each other, past all channels; the node "" is all of them."""

    def attend(self, uid: str, take: Callable[[bytes], bool], announce: Callable[[], object]) -> None:
        """Be the node `uid`: `take` what is said to it or to all (false: it makes no sense), `announce` it often."""

    def tell(self, uid: str, said: bytes, done: Done[int]) -> None:
        """Say something to one node, or to all, the speaker too; done with how many hear it."""

    def announce(self, said: bytes) -> None:
        """Leave word of this node for whoever asks in the next seconds."""

    def announced(self, done: Done[Mapping[str, bytes]]) -> None:
        """Tell what the nodes have left word of, by their uids; who has fallen silent is left out."""


@runtime_checkable
class Neighbourly(Protocol):
    """A remote broker of one of several processes on a machine, which hear each other while it is away.

    `tell_neighbours` is called with a channel and a message for their `hear_neighbour`.
    """

    tell_neighbours: Callable[[str, bytes], object]

    def hear_neighbour(self, channel: str, said: bytes) -> None:
        """Hear what a neighbour's clients have heard. Idempotent."""


@runtime_checkable
class Shared(Protocol):
    """A broker that several nodes share."""

    @property
    def switchboard(self) -> Switchboard: ...


class Broker(Protocol):
    """See the module."""

    @property
    def is_up(self) -> bool:
        """Tell if the broker can be reached, and takes what is published."""

    def sweep(self) -> None:
        """Forget what nobody needs, and whatever else comes once a second."""

    def publish(self, channel: str, publication: Publication, terms: Terms, done: Done[Published]) -> None:
        """Publish; with `terms.retention` the publication gets its offset and is kept."""

    def publish_join(self, channel: str, info: ClientInfo) -> None:
        """Tell all nodes that a client came; what is lost of these is lost."""

    def publish_leave(self, channel: str, info: ClientInfo) -> None:
        """Tell all nodes that a client left."""

    def subscribe(self, channel: str, done: Done[None]) -> None:
        """Hear the channel from now on. Done when nothing that is published after this can be missed. Idempotent."""

    def unsubscribe(self, channel: str) -> None:
        """Hear the channel no more. Idempotent."""

    def history(self, channel: str, retention: Retention, wanted: Slice, done: Done[Stream]) -> None:
        """Read a channel's history; a channel that never had one gets its epoch now."""

    def remove_history(self, channel: str, done: Done[None]) -> None:
        """Forget the publications of a channel; its position stays."""

    def add_presence(self, channel: str, info: ClientInfo, done: Done[None]) -> None:
        """Note that the client `info.client` is on the channel."""

    def remove_presence(self, channel: str, info: ClientInfo) -> None:
        """Note that the client is not on the channel any more. Idempotent."""

    def presence(self, channel: str, done: Done[Mapping[str, ClientInfo]]) -> None:
        """Tell who is on the channel, by client id."""

    def presence_stats(self, channel: str, done: Done[Attendance]) -> None:
        """Tell how many are on the channel."""
