"""What one client does here: its dialect, its place in the hub, and what happens to the messages it sends.

A session decides nothing about sockets; its connection tells it of messages, of flow and of the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol
from uuid import uuid4

from server.brokers.base import BrokerError, Published
from server.core.counters import Drop
from server.core.frames import TEXT, encode_frame
from server.core.outbox import Outbox
from server.core.publication import Publication
from server.core.revocations import Token
from server.dialects.centrifuge import codes
from server.dialects.centrifuge.codes import Disconnect, Error, Unsubscribe
from server.dialects.raw import is_text
from server.edge.closing import Close, standard
from server.edge.reader import Hold
from server.node.audience import Reading
from server.node.node import Seat, Unrecovered, Wish

if TYPE_CHECKING:
    from server.core.subscription import Subscription
    from server.edge.centrifuge.service import Service
    from server.edge.connection import Connection

RAW: Final = Reading()
# How much of what a client publishes may be on its way to a broker: then it is read from no more until one is answered.
MOST_UNANSWERED: Final = 64


class Session(Protocol):
    """What a connection needs of the session that it carries."""

    @property
    def dialect(self) -> str: ...

    @property
    def channel(self) -> str: ...

    @property
    def client(self) -> str:
        """The client's own id; "" where it has none."""

    @property
    def outbox(self) -> Outbox | None: ...

    @property
    def subscription(self) -> Subscription | None:
        """The one that it is written to through, while it is on one channel."""

    @property
    def ping_frame(self) -> bytes | None:
        """What it is pinged with: None for the ping of WebSocket, b"" as long as it is not to be pinged yet.

        The answer to a frame of the dialect's own is the session's to hear, and to tell by `Connection.take_pong`.
        """

    def begin(self) -> None:
        """Take part from now on; called once, when the connection can be written to and ended."""

    def farewell(self, code: int, reason: str) -> tuple[int, str]:
        """Say goodbye in its dialect: the close code and the reason (at most 123 bytes) for a cause of the edge.

        `code` is one of `Close`, or one of the dialect's own, which comes back as it is. Called before `leave`; also
        when no close frame will reach the client, for the record.
        """

    def message(self, opcode: int, payload: bytes | bytearray) -> None:
        """Take a whole message from the client; `opcode` is TEXT or BINARY."""

    def pause(self) -> None:
        """The socket takes no more."""

    def resume(self) -> None:
        """The socket and the outbox are empty again."""

    def leave(self) -> None:
        """Take no more part: what is queued is dropped. Idempotent."""

    def finish(self) -> None:
        """Take no more, but let what is queued go out. Idempotent."""

    def end(self, disconnect: Disconnect) -> None:
        """End the connection, since the server API says so. Idempotent."""

    def drop_revoked(self, is_revoked: Callable[[Token], bool]) -> None:
        """End what lives by a token that was revoked. Idempotent."""


class RawSession:
    """A client on one channel: what it says goes to all of them, itself included.

    So what it says before it is on the channel waits for that, and it is read from no more meanwhile.
    Who has a `user` can be found in the registry, as the clients of the other dialect can.
    """

    __slots__ = (
        "_connection", "_early", "_has_left", "_node", "_service", "_token", "_unanswered", "channel", "client",
        "outbox", "subscription", "user",
    )  # fmt: skip

    dialect = "raw"
    ping_frame = None

    def __init__(
        self, connection: Connection, service: Service, channel: str, user: str = "", token: Token | None = None
    ) -> None:
        self._service = service
        self._token = token
        self._node = node = service.node
        self.channel = channel
        self.user = user
        self.client = str(uuid4()) if user else ""
        self.outbox = Outbox(connection, node.hub.backlog)
        self.subscription: Subscription | None = None
        self._connection = connection
        self._has_left = False
        self._unanswered = 0
        self._early: list[Publication] | None = []  # until it is known whether it is on its channel
        if user:
            service.registry.enter(self)

    def begin(self) -> None:
        self._node.subscribe(Wish(self.channel, RAW, self.outbox, self._connection.transport.write), self._seated)

    def message(self, opcode: int, payload: bytes | bytearray) -> None:
        if not self._node.namespaces.of(self.channel).publish:
            self._connection.close(Close.POLICY, "clients may not publish here")
        elif opcode == TEXT and not is_text(payload):
            self._connection.fail(Close.BAD_DATA, "text is not UTF-8")
        else:
            publication = Publication(bytes(payload), is_binary=opcode != TEXT)
            if self._early is None:
                self._publish(publication)
            else:
                self._early.append(publication)
                self._connection.reader.hold(Hold.UNANSWERED)

    def farewell(self, code: int, reason: str) -> tuple[int, str]:
        return standard(code), reason

    def pause(self) -> None:
        if self.subscription is not None:
            self.subscription.pause()

    def resume(self) -> None:
        if self.subscription is not None:
            self.subscription.resume()

    def finish(self) -> None:
        self._has_left = True
        self._publish_early()
        if self.subscription is not None:
            self._node.leave(self.subscription)
        if self.user:
            self._service.registry.leave(self)

    def leave(self) -> None:
        self.finish()
        self.outbox.discard(Drop.DISCONNECTED)

    def _publish(self, publication: Publication) -> None:
        self._unanswered += 1
        self._node.publish(self.channel, publication, self._published)
        if self._unanswered >= MOST_UNANSWERED:
            self._connection.reader.hold(Hold.UNANSWERED)

    def _publish_early(self) -> None:
        """Publish what was said before it was known whether this is on its channel. Idempotent."""
        early, self._early = self._early, None
        for publication in early or ():
            self._publish(publication)
        if early and self._unanswered < MOST_UNANSWERED:
            self._connection.reader.release(Hold.UNANSWERED)

    def _seated(self, answer: Seat | BrokerError | Unrecovered) -> None:
        if not isinstance(answer, Seat):
            self._publish_early()
            self._connection.close(Close.RESTART, "the broker is away")
        elif self._has_left:
            self._node.leave(answer.subscription)
        else:
            self.subscription = answer.subscription
            if self._connection.paused:
                self.subscription.pause()
            self._publish_early()

    def _published(self, answer: Published | BrokerError) -> None:
        self._unanswered -= 1
        if self._unanswered == MOST_UNANSWERED - 1:
            self._connection.reader.release(Hold.UNANSWERED)
        if isinstance(answer, BrokerError):
            # This dialect has no answers, and whoever listens is not sent away over what he says.
            self._node.hub.counters.refused += 1
        elif not answer.keeps_up:
            self._connection.reader.hold()
            self._node.on_relief(self.channel, self._connection.reader.release)

    # From the server API

    def enter(
        self, channel: str, info: bytes = b"", data: bytes | None = None, expires: float | None = None
    ) -> Error | None:
        """Say that this dialect knows one channel."""
        return None if channel == self.channel else codes.ERROR_NOT_AVAILABLE

    def throw_out(self, channel: str, why: Unsubscribe) -> bool:
        """End the connection of a client that is taken off its channel ("": off all)."""
        if channel not in ("", self.channel):
            return False
        self._connection.close(Close.POLICY, why.reason)
        return True

    def prolong(self, expires: float | None) -> None:
        """Let the connection last until `expires` (Unix time; None: for ever)."""
        self._connection.expire_at(self._service.moment(expires) if expires is not None else None)

    def end(self, disconnect: Disconnect) -> None:
        """End the connection; Centrifugo's own codes mean nothing in this dialect, those of the caller's stand."""
        self._connection.close(_plain(disconnect), disconnect.reason)

    def drop_revoked(self, is_revoked: Callable[[Token], bool]) -> None:
        if self._token is not None and is_revoked(self._token):
            self.end(codes.DISCONNECT_INVALID_TOKEN)


class EchoSession:
    """A client that hears itself and nobody else. Takes part in no channel.

    What does not fit the socket is not queued: nothing more is read from the client until it has taken its echo.
    """

    __slots__ = ("_connection", "_token")

    dialect = "echo"
    channel = client = ""
    outbox = subscription = None
    ping_frame = None

    def __init__(self, connection: Connection, token: Token | None = None) -> None:
        self._connection = connection
        self._token = token

    def begin(self) -> None:
        """There is nothing to wait for."""

    def message(self, opcode: int, payload: bytes | bytearray) -> None:
        if opcode == TEXT and not is_text(payload):
            self._connection.fail(Close.BAD_DATA, "text is not UTF-8")
        else:
            self._connection.transport.write(encode_frame(opcode, payload))

    def farewell(self, code: int, reason: str) -> tuple[int, str]:
        return standard(code), reason

    def pause(self) -> None:
        self._connection.reader.hold(Hold.UNREAD)

    def resume(self) -> None:
        self._connection.reader.release(Hold.UNREAD)

    def finish(self) -> None:
        """Nothing is queued."""

    def leave(self) -> None:
        """Nothing is queued."""

    def end(self, disconnect: Disconnect) -> None:
        """End the connection, as a raw client's."""
        self._connection.close(_plain(disconnect), disconnect.reason)

    def drop_revoked(self, is_revoked: Callable[[Token], bool]) -> None:
        if self._token is not None and is_revoked(self._token):
            self.end(codes.DISCONNECT_INVALID_TOKEN)


def _plain(disconnect: Disconnect) -> int:
    return Close.POLICY if disconnect.code < 4000 else disconnect.code
