"""What a Centrifuge client can ask of the server, whatever the encoding it came in.

Laws: immutable, and complete: every field has a value. An empty string, 0, False or None is what the client left out;
the protocol knows no difference. Bytes called ``data`` are the client's own, exactly as it sent them: JSON from a JSON
client (``b"null"`` included), anything from a Protobuf client. Nothing here is checked but its type and size: channel
names, tokens and permissions are the session's affair. Field names and meanings: client.proto of centrifugal/protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from server.core.history import Position
from server.dialects.centrifuge.codes import Error

# Bits of `Subscribe.flag`. The first asks for short numbers instead of channel names, which a server may ignore.
CHANNEL_COMPACTION: Final = 1
REJECT_UNRECOVERED: Final = 2

# What a connect command may bring along: server-side subscriptions to recover (where clients may be on more channels
# than these, as many as that), emulated HTTP headers.
MAX_SUBS: Final = 512
MAX_HEADERS: Final = 64


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Listen to a channel; with `recover`, from the position `offset`, `epoch` on.

    In a connect command's `subs` it says where a server-side subscription is to be recovered from, and nothing else.
    `delta` names a format ("fossil"). `filtered` and `type` tell of what we do not offer, a tags filter and a map or
    shared-poll subscription: to ignore them would give the client something else than it asked for.
    """

    channel: str
    token: str = ""
    recover: bool = False
    epoch: str = ""
    offset: int = 0
    data: bytes | None = None
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False
    delta: str = ""
    flag: int = 0
    type: int = 0
    filtered: bool = False

    @property
    def position(self) -> Position:
        """Return the place in the stream that the client has reached."""
        return Position(self.offset, self.epoch)

    @property
    def reject_unrecovered(self) -> bool:
        """Tell if the client wants error 112 instead of a subscription that could not recover."""
        return bool(self.flag & REJECT_UNRECOVERED)


@dataclass(frozen=True, slots=True)
class Connect:
    """Begin the session. `headers` stand in for HTTP headers, which a browser can't set; they prove nothing."""

    token: str = ""
    data: bytes | None = None
    subs: Mapping[str, Subscribe] = field(default_factory=dict)
    name: str = ""
    version: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Stop listening."""

    channel: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Say `data` on a channel. A `type` other than 0 is a map publication, which we do not offer."""

    channel: str
    data: bytes | None = None
    type: int = 0


@dataclass(frozen=True, slots=True)
class Presence:
    """Ask who is on a channel."""

    channel: str


@dataclass(frozen=True, slots=True)
class PresenceStats:
    """Ask how many are on a channel."""

    channel: str


@dataclass(frozen=True, slots=True)
class History:
    """Ask for kept publications: `limit` 0 for the position alone, below 0 for no limit of the client's own."""

    channel: str
    limit: int = 0
    since: Position | None = None
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping *command*. No SDK sends it, and Centrifugo answers "not available"; server pings are another thing."""


@dataclass(frozen=True, slots=True)
class Send:
    """An asynchronous message; gets no reply."""

    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Rpc:
    """Call something of the application's."""

    method: str = ""
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Refresh:
    """Bring a new connection token."""

    token: str = ""


@dataclass(frozen=True, slots=True)
class SubRefresh:
    """Bring a new subscription token. A `type` other than 0 tracks keys of a shared poll, which we do not offer."""

    channel: str
    token: str = ""
    type: int = 0


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to our ping: an empty command."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A command that makes no sense in itself; its reply is `error`."""

    error: Error


Body = (
    Connect
    | Subscribe
    | Unsubscribe
    | Publish
    | Presence
    | PresenceStats
    | History
    | Ping
    | Send
    | Rpc
    | Refresh
    | SubRefresh
    | Pong
    | Rejected
)


@dataclass(frozen=True, slots=True)
class Command:
    """One thing that a client asks. `id` goes into the reply; `Pong` and `Send`, which may lack it, get none."""

    id: int
    body: Body
