"""What one client does here: its dialect, its place in the hub, and what happens to the messages it sends.

A session decides nothing about sockets; its connection tells it of messages, of flow and of the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from server.core.counters import Drop
from server.core.frames import TEXT, encode_frame
from server.core.outbox import Outbox
from server.dialects.raw import is_text
from server.edge.closing import Close

if TYPE_CHECKING:
    from server.core.hub import Hub
    from server.core.lag import LagLimits
    from server.edge.connection import Connection


class Session(Protocol):
    """What a connection needs of the session that it carries."""

    @property
    def dialect(self) -> str: ...

    @property
    def channel(self) -> str: ...

    @property
    def outbox(self) -> Outbox | None: ...

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


class RawSession:
    """A client on one channel: what it says goes to all of them, itself included."""

    __slots__ = ("_connection", "_hub", "_may_publish", "channel", "outbox", "subscription")

    dialect = "raw"

    def __init__(
        self, connection: Connection, hub: Hub, channel: str, limits: LagLimits, *, may_publish: bool = True
    ) -> None:
        self.channel = channel
        self.outbox = Outbox(connection, limits, hub.backlog)
        self.subscription = hub.subscribe(channel, self.outbox, connection.transport.write)
        self._connection = connection
        self._hub = hub
        self._may_publish = may_publish

    def message(self, opcode: int, payload: bytes | bytearray) -> None:
        if not self._may_publish:
            self._connection.close(Close.POLICY, "clients may not publish here")
        elif opcode == TEXT and not is_text(payload):
            self._connection.close(Close.BAD_DATA, "text is not UTF-8")
        elif not self._hub.publish(self.channel, encode_frame(opcode, payload)):
            self._connection.hold_reading()
            self._hub.on_relief(self.channel, self._connection.release_reading)

    def pause(self) -> None:
        self.subscription.pause()

    def resume(self) -> None:
        self.subscription.resume()

    def finish(self) -> None:
        self._hub.unsubscribe(self.subscription)

    def leave(self) -> None:
        self._hub.unsubscribe(self.subscription)
        self.outbox.discard(Drop.DISCONNECTED)


class EchoSession:
    """A client that hears itself and nobody else. Takes part in no channel.

    What does not fit the socket is not queued: nothing more is read from the client until it has taken its echo.
    """

    __slots__ = ("_connection",)

    dialect = "echo"
    channel = ""
    outbox = None

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def message(self, opcode: int, payload: bytes | bytearray) -> None:
        if opcode == TEXT and not is_text(payload):
            self._connection.close(Close.BAD_DATA, "text is not UTF-8")
        else:
            self._connection.transport.write(encode_frame(opcode, payload))

    def pause(self) -> None:
        self._connection.hold_reading()

    def resume(self) -> None:
        self._connection.release_reading()

    def finish(self) -> None:
        """Nothing is queued."""

    def leave(self) -> None:
        """Nothing is queued."""
