"""What the server says to a Centrifuge client: results of commands, and pushes that nobody asked for.

Laws: immutable; no encoding. Bytes called ``data`` must be JSON where a JSON client can get them. The pushes that end
something are the codes themselves, `Unsubscribe` and `Disconnect`. Meanings: client.proto of centrifugal/protocol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from server.core.publication import ClientInfo, Publication
from server.dialects.centrifuge.codes import Disconnect, Unsubscribe


@dataclass(frozen=True, slots=True)
class SubscribeResult:
    """A subscription stands; also what a connect result says of each server-side subscription.

    With `recovered` true, `offset` is the client's own from the command, and `publications` are what it missed since
    then; otherwise it is the top of the stream, and there are none. `ttl` is in seconds, and only of meaning with
    `expires`. `delta` says that deltas were agreed on: JSON publications are then strings that hold JSON.
    """

    recoverable: bool = False
    epoch: str = ""
    publications: Sequence[Publication] = ()
    recovered: bool = False
    offset: int = 0
    positioned: bool = False
    was_recovering: bool = False
    data: bytes | None = None
    delta: bool = False
    expires: bool = False
    ttl: int = 0


@dataclass(frozen=True, slots=True)
class ConnectResult:
    """The session stands. `ping` is our ping interval in seconds, `pong` says that we want pongs; `time` is Unix ms."""

    client: str
    version: str = ""
    expires: bool = False
    ttl: int = 0
    data: bytes | None = None
    subs: Mapping[str, SubscribeResult] = field(default_factory=dict)
    ping: int = 0
    pong: bool = False
    session: str = ""
    node: str = ""
    time: int = 0


@dataclass(frozen=True, slots=True)
class UnsubscribeResult:
    """No longer subscribed; also said to a client that never was."""


@dataclass(frozen=True, slots=True)
class PublishResult:
    """Said."""


@dataclass(frozen=True, slots=True)
class PresenceResult:
    """Who is on the channel, by client id."""

    presence: Mapping[str, ClientInfo]


@dataclass(frozen=True, slots=True)
class PresenceStatsResult:
    """How many are on the channel."""

    num_clients: int
    num_users: int


@dataclass(frozen=True, slots=True)
class HistoryResult:
    """Kept publications, and the position of the stream's top."""

    publications: Sequence[Publication]
    epoch: str
    offset: int


@dataclass(frozen=True, slots=True)
class PingResult:
    """Here."""


@dataclass(frozen=True, slots=True)
class RpcResult:
    """What the application answered."""

    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class RefreshResult:
    """The connection lives on, for `ttl` seconds if it `expires`."""

    client: str = ""
    version: str = ""
    expires: bool = False
    ttl: int = 0


@dataclass(frozen=True, slots=True)
class SubRefreshResult:
    """The subscription lives on, for `ttl` seconds if it `expires`."""

    expires: bool = False
    ttl: int = 0


Result = (
    ConnectResult
    | SubscribeResult
    | UnsubscribeResult
    | PublishResult
    | PresenceResult
    | PresenceStatsResult
    | HistoryResult
    | PingResult
    | RpcResult
    | RefreshResult
    | SubRefreshResult
)


@dataclass(frozen=True, slots=True)
class Join:
    """Someone came to the channel."""

    info: ClientInfo


@dataclass(frozen=True, slots=True)
class Leave:
    """Someone left the channel."""

    info: ClientInfo


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The server has put the client on a channel, at this position."""

    recoverable: bool = False
    epoch: str = ""
    offset: int = 0
    positioned: bool = False
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """A word to this client alone, on no channel."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The server has prolonged the connection by itself."""

    expires: bool = False
    ttl: int = 0


Push = Publication | Join | Leave | Unsubscribe | Subscribed | Message | ConnectResult | Disconnect | Refreshed
