"""One client of the Centrifuge dialect: what it asks, in its order, and the ways in which it ends.

New until its connect command is answered, then connected, then over. Laws:
- before connect there is only connect, and it comes once: anything else ends the connection (3501).
- each command with an id gets one answer; all that one frame asks is answered in one frame, as far as it is known then
  and as long as it is no more than ANSWER_BYTES.
- what is asked waits, and no more is read, until the client is connected and has taken the answers that it has got.
- nothing of a channel goes out before the answer that puts the client there; nothing at all before connect's.
- of the answers that may be large no more than MOST_AWAITED are on their way from a broker at a time.
- the peer's fault is an error reply or a disconnect code of the protocol's; never 1011.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from server.core import names
from server.core.counters import Drop
from server.core.frames import TEXT, encode_frame
from server.core.outbox import Outbox
from server.core.revocations import Token
from server.dialects.centrifuge import codes, commands, replies
from server.dialects.centrifuge.codec import Codec
from server.dialects.centrifuge.codes import BadCommands, Disconnect, Error
from server.dialects.centrifuge.replies import Push, Result, SubscribeResult
from server.edge.centrifuge import asking, connecting
from server.edge.centrifuge.answering import HANDLERS
from server.edge.centrifuge.places import Place, Places, subscribed_push
from server.edge.centrifuge.service import MAX_COMMANDS, Service
from server.edge.closing import Close
from server.edge.credentials import ANONYMOUS, Identity, ServerSubscription
from server.edge.reader import Hold
from server.node.audience import CODECS

if TYPE_CHECKING:
    from server.core.subscription import Subscription
    from server.edge.connection import Connection


# What is answered in one frame, before a look at whether the client takes it.
ANSWER_BYTES: Final = 64 * 1024
# How many of a client's publications may be on their way to a broker.
MOST_UNANSWERED: Final = 64
# How many answers may be on their way from one that may be as large as what may wait for a client.
MOST_AWAITED: Final = 4


class State(Enum):
    """How far a session has come."""

    NEW = auto()
    CONNECTING = auto()
    CONNECTED = auto()
    OVER = auto()


class CentrifugeSession:
    """See the module. `admitted` is who the client was found to be at the upgrade, if it showed credentials then."""

    __slots__ = (
        "_admitted", "_awaited", "_connection", "_later", "_said", "_said_bytes", "_state", "_unanswered", "_waiting",
        "_was_on", "client", "codec", "identity", "outbox", "places", "service",
    )  # fmt: skip

    dialect = "centrifuge"

    def __init__(self, connection: Connection, service: Service, codec: Codec, admitted: Identity | None) -> None:
        self._connection = connection
        self.service = service
        self.codec = codec
        self._admitted = admitted
        self.identity = ANONYMOUS
        self.client = str(uuid4())
        self.outbox = Outbox(connection, service.node.hub.backlog)
        self.places = Places(self)
        self._state = State.NEW
        self._said: list[bytes] | None = None  # what one frame is to say; None while nothing is being asked
        self._said_bytes = 0
        self._waiting: deque[commands.Command] | None = None
        self._was_on = ""
        self._unanswered = 0
        self._awaited = 0
        self._later: list[tuple[str, Push]] = []  # what is to be said once connect is answered

    @property
    def user(self) -> str:
        return self.identity.user

    @property
    def channel(self) -> str:
        """The client's channel, for whoever asks why it is slow or gone; or how many there are."""
        if self.is_over:
            return self._was_on
        on = [place.channel for place in self.places]
        return on[0] if len(on) == 1 else f"{len(on)} channels" if on else ""

    @property
    def is_over(self) -> bool:
        return self._state is State.OVER

    @property
    def is_paused(self) -> bool:
        """Whether what it hears has to wait: for room, or for the answer to its connect command."""
        return self._state is State.CONNECTING or self._connection.paused

    @property
    def write(self) -> Callable[[bytes], object]:
        return self._connection.transport.write

    # From the connection

    def begin(self) -> None:
        self._connection.await_introduction()

    @property
    def subscription(self) -> Subscription | None:
        places = list(self.places)
        return places[0].subscription if len(places) == 1 else None

    @property
    def ping_frame(self) -> bytes | None:
        """The dialect's ping; b"" as long as a client that is not connected yet would not understand it."""
        if self._state is not State.CONNECTED:
            return b""
        return _PINGS[self.codec.name]

    def message(self, opcode: int, payload: bytes | bytearray) -> None:
        if self.is_over:
            return
        try:
            # JSON may come in either kind: many a library sends bytes as binary.
            if opcode == TEXT and self.codec.opcode != TEXT:
                raise BadCommands("text that is to be Protobuf")
            asked = self.codec.decode(bytes(payload), MAX_COMMANDS, max(commands.MAX_SUBS, self.service.max_channels))
        except BadCommands as bad:
            self.end(bad.disconnect)
            return
        if not self._connection.charge(len(asked) - 1):
            return
        if self._waiting is not None:
            self._waiting.extend(asked)  # no more than one read brings: the next one is held
            return
        if self._state is State.CONNECTED and any(map(_recovers, asked)) and not self.service.turnstile.try_pass():
            self._wait_with(deque(asked))
            self.service.turnstile.wait(self._work_on)
        else:
            self._work(deque(asked))

    def pause(self) -> None:
        self.places.pause()

    def resume(self) -> None:
        if self._state is State.CONNECTED:
            self.places.resume()
        self._work_on()

    def finish(self) -> None:
        self._leave()

    def leave(self) -> None:
        self._leave()
        self.outbox.discard(Drop.DISCONNECTED)

    def farewell(self, code: int, reason: str) -> tuple[int, str]:
        """Say why the connection ends in the dialect's own codes."""
        disconnect = _FAREWELLS.get(code)
        return (disconnect.code, disconnect.reason) if disconnect is not None else (code, reason)

    def lose_position(self, channel: str) -> None:
        """The stream of a channel has a gap for this client, and it is off the channel."""
        self.places.lose_position(channel)

    # Speaking

    def reply(self, id: int, result: Result | Error) -> None:
        """Answer the command `id`."""
        encode = self.codec.encode_error if isinstance(result, Error) else self.codec.encode_reply
        self._say(encode(id, result))  # type: ignore[arg-type]

    def push(self, channel: str, push: Push) -> None:
        """Say what nobody asked for."""
        if self._state is State.CONNECTING:
            self._later.append((channel, push))
        else:
            self._say(self.codec.encode_push(channel, push))

    def _say(self, message: bytes) -> None:
        if self.is_over:
            return
        if self._said is None:
            self._send((message,))
            return
        self._said.append(message)
        self._said_bytes += len(message)
        if self._said_bytes >= ANSWER_BYTES:
            self._speak()

    def _speak(self) -> None:
        if self._said:
            said, self._said, self._said_bytes = self._said, [], 0
            self._send(said)

    def _send(self, messages: Sequence[bytes]) -> None:
        self._connection.send(encode_frame(self.codec.opcode, self.codec.join(messages)))

    # Being asked

    def _work(self, asked: deque[commands.Command]) -> None:
        """Take what is asked, in its order; what cannot be taken now waits."""
        self._said = []
        try:
            while asked and not self._has_to_wait:
                self._take(asked.popleft())
        finally:
            self._speak()
            self._said = None
        if self.is_over:
            return
        if asked:
            self._wait_with(asked)
        elif self._waiting is not None:
            self._waiting = None
            self._connection.reader.release(Hold.UNANSWERED)

    @property
    def _has_to_wait(self) -> bool:
        is_connecting = self._state is State.CONNECTING
        return is_connecting or self._awaited >= MOST_AWAITED or self._connection.reader.has_unread

    def _wait_with(self, asked: deque[commands.Command]) -> None:
        self._waiting = asked
        self._connection.reader.hold(Hold.UNANSWERED)

    def _work_on(self) -> None:
        if self._waiting is not None and self._said is None:
            self._work(self._waiting)

    def _take(self, command: commands.Command) -> None:
        if self.is_over:
            return
        body = command.body
        if isinstance(body, commands.Connect):
            if self._state is not State.NEW:
                self.end(codes.DISCONNECT_BAD_REQUEST)
            else:
                self._connect(command.id, body)
        elif self._state is State.CONNECTED:
            HANDLERS[type(body)](self, command.id, body)
        else:
            self.end(codes.DISCONNECT_BAD_REQUEST)

    def _connect(self, id: int, command: commands.Connect) -> None:
        identity = connecting.identify(self, command.token, self._admitted)
        if isinstance(identity, Disconnect):
            self.end(identity)
        elif isinstance(identity, Error):
            self.reply(id, identity)
        else:
            # It has said who it is; how long the broker takes is not its fault.
            self._connection.introduced()
            self._state = State.CONNECTING
            self.identity = identity
            self._admitted = None
            # From here on the server API finds it, however long the broker takes.
            self.service.registry.enter(self)
            self.last_until(identity.expires)
            connecting.Arrival(self, id, command).begin()

    def connected(self) -> None:
        """Begin: the connect command is answered."""
        self._state = State.CONNECTED
        later, self._later = self._later, []
        for channel, push in later:
            self.push(channel, push)
        if not self.outbox.is_empty:  # heard while the broker was asked for other channels
            self._speak()
            self._connection.flush()
        if not self._connection.paused:
            self.places.resume()
        self._work_on()

    # For those who answer

    def await_large(self, id: int) -> asking.Answer:
        """Take note of an answer that may be large; return how it is given."""
        self._awaited += 1

        def answer(result: Result | Error) -> None:
            self._awaited -= 1
            self.reply(id, result)
            self._work_on()

        return answer

    def take_pong(self) -> None:
        """Take the answer to the dialect's ping."""
        self._connection.take_pong()

    def name_fault(self, channel: str) -> Error | None:
        """Say what is wrong with the name of a channel."""
        return codes.ERROR_BAD_REQUEST if names.name_fault(channel, self.service.max_channel_length) else None

    def asks_broker(self) -> None:
        """Take note of a publication on its way: with too many of them no more is read from this client."""
        self._unanswered += 1
        if self._unanswered >= MOST_UNANSWERED:
            self._connection.reader.hold()

    def broker_answered(self) -> None:
        """Take note that a publication has arrived, or not."""
        self._unanswered -= 1
        if self._unanswered == MOST_UNANSWERED - 1:
            self._connection.reader.release()

    def hold_until_relief(self, channel: str) -> None:
        """Read no more from this client until the channel that it publishes to has room."""
        self._connection.reader.hold()
        self.service.node.on_relief(channel, self._connection.reader.release)

    def last_until(self, expires: float | None) -> None:
        """Let the connection last until `expires` (Unix time; None: for ever) and its grace."""
        self._connection.expire_at(self.service.deadline(expires) if expires is not None else None)

    # From the server API

    def enter(
        self, channel: str, info: bytes = b"", data: bytes | None = None, expires: float | None = None
    ) -> Error | None:
        """Put the client on a channel, and tell it; return why not."""
        if self.is_over:
            return codes.ERROR_NOT_AVAILABLE

        def entered(place: Place, result: SubscribeResult | Error) -> None:
            if isinstance(result, SubscribeResult):
                self.push(channel, subscribed_push(result))

        return self.places.enter(channel, entered, given=ServerSubscription(info, data), expires=expires)

    def throw_out(self, channel: str, why: codes.Unsubscribe) -> bool:
        """Take the client off a channel ("": off all of them), and tell it why; false if it was not there."""
        channels = [channel] if channel else [place.channel for place in self.places]
        thrown_out = [self.places.throw_out(each, why) for each in channels]
        return any(thrown_out)

    def prolong(self, expires: float | None) -> None:
        """Let the connection last until `expires` (Unix time; None: for ever), and tell the client."""
        self.last_until(expires)
        self.push("", replies.Refreshed(*self.service.expiry(expires)))

    def end(self, disconnect: Disconnect) -> None:
        """End the connection, with the code that tells the client whether to come back. Idempotent."""
        if self.is_over:
            return
        self._speak()
        self._connection.close(disconnect.code, disconnect.reason)

    def drop_revoked(self, is_revoked: Callable[[Token], bool]) -> None:
        """End the connection, or those of its subscriptions, that live by a token that was revoked. Idempotent."""
        if self.is_over:
            return
        token = (self._admitted or self.identity).token
        if token is not None and is_revoked(token):
            self.end(codes.DISCONNECT_INVALID_TOKEN)
        else:
            self.places.drop_revoked(is_revoked)

    # Endings

    def _leave(self) -> None:
        if self.is_over:
            return
        self._was_on = self.channel
        self._state = State.OVER
        self._waiting = None
        self._later.clear()
        self.places.leave_hub()
        self.service.registry.leave(self)


def _recovers(command: commands.Command) -> bool:
    return isinstance(command.body, commands.Subscribe) and command.body.recover


_PINGS: Final = {name: encode_frame(codec.opcode, codec.ping()) for name, codec in CODECS.items()}

# What the edge ends a connection for, in the dialect's codes; others are the same in all dialects (1009, 1012).
_FAREWELLS: Final[dict[int, Disconnect]] = {
    Close.GOING_AWAY: codes.DISCONNECT_SHUTDOWN,
    Close.BAD_DATA: codes.DISCONNECT_BAD_REQUEST,
    Close.POLICY: codes.DISCONNECT_BAD_REQUEST,
    Close.INTERNAL: codes.DISCONNECT_SERVER_ERROR,
    Close.TOO_SLOW: codes.DISCONNECT_SLOW,
    Close.NO_PONG: codes.DISCONNECT_NO_PONG,
    Close.EXPIRED: codes.DISCONNECT_CONNECTION_EXPIRED,
    Close.TOO_MANY: codes.DISCONNECT_TOO_MANY_REQUESTS,
    Close.STALE: codes.DISCONNECT_STALE,
}
