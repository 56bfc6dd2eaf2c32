"""A client of the Centrifuge dialect, with its wire written out; against a house on a clock that a test turns by hand.

    alice = connected(home)
    assert alice.asks('{"id":2,"subscribe":{"channel":"news"}}') == ['{"id":2,"subscribe":{}}']

Ids that the server makes up are masked: the client's own is ME, another's its name, every epoch EPOCH.
"""

from __future__ import annotations

import time
from typing import Any, Final

import orjson

from server.brokers.memory import MemoryBroker
from server.edge.centrifuge.session import CentrifugeSession
from server.edge.credentials import JsonWebTokens, SignedSubscriptionTokens
from tests import wire
from tests.fakes import Clock
from tests.forgeries import SECRET
from tests.house import House, house

PATH: Final = "/connection/websocket"
CONNECT: Final = '{"id":1,"connect":{}}'


def dialect_house(**options: Any) -> House:
    """Build a house whose epochs are all called EPOCH."""
    home = house(**options)
    home.node.broker = MemoryBroker(home.node, home.clock, lambda: "EPOCH")
    return home


class Speaker:
    """One client: what it says, and what it has heard since it was last asked."""

    def __init__(self, home: House, name: str = "ME", *fields: str, path: str = PATH) -> None:
        self.home = home
        self.connection, self.transport = home.open(path, *fields)
        session = self.connection.session
        assert isinstance(session, CentrifugeSession)
        self.session = session
        session.client = name  # before anybody has heard of it
        self.close: tuple[int, str] | None = None

    def says(self, *lines: str) -> None:
        """Send lines in one frame."""
        self.feed(wire.text("\n".join(lines)))

    def feed(self, data: bytes) -> None:
        self.connection.data_received(data)

    def frames(self) -> list[list[str]]:
        """Return the lines of each frame that has come; a close frame is noted in `close`, pings of WebSocket fail."""
        self.home.loop.settle()
        found = []
        for frame in wire.read(self.transport.take()):
            if frame.opcode == wire.CLOSE:
                assert self.close is None, "it is closed once"
                self.close = (frame.code, frame.reason)
                continue
            assert self.close is None, "nothing follows a close frame"
            assert frame.opcode == wire.TEXT, frame
            found.append(frame.payload.decode().split("\n"))
        return found

    def hears(self) -> list[str]:
        """Return all lines that have come, in whatever frames."""
        return [line for frame in self.frames() for line in frame]

    def asks(self, *lines: str) -> list[str]:
        """Send lines in one frame; return what comes back."""
        self.says(*lines)
        return self.hears()

    def ends(self, *lines: str) -> tuple[int, str]:
        """Send lines in one frame; return how the connection ends, with not a word before."""
        assert self.asks(*lines) == []
        assert self.close is not None, "it goes on"
        return self.close

    def subscribes(self, channel: str, **more: Any) -> dict[str, Any]:
        """Subscribe; return the result."""
        command = {"id": 99, "subscribe": {"channel": channel, **more}}
        (line,) = self.asks(orjson.dumps(command).decode())
        reply = orjson.loads(line)
        assert set(reply) == {"id", "subscribe"}, reply
        result: dict[str, Any] = reply["subscribe"]
        return result

    def goes(self) -> None:
        """Be gone, as when a cable is pulled."""
        self.transport.lose()


def connected(home: House, name: str = "ME", *fields: str, token: str = "", path: str = PATH) -> Speaker:
    """Let a client in, and take its connect reply off."""
    speaker = Speaker(home, name, *fields, path=path)
    command: dict[str, Any] = {"id": 1, "connect": {"token": token} if token else {}}
    (line,) = speaker.asks(orjson.dumps(command).decode())
    assert line.startswith(f'{{"id":1,"connect":{{"client":"{name}"'), line
    return speaker


def jwt_house(**options: Any) -> House:
    """A house for which tokens are signed with SECRET, on a wall clock that goes with the fake one."""
    clock, start = Clock(), int(time.time())
    began = clock.now
    return dialect_house(
        credentials=JsonWebTokens({None: SECRET}, "HS256"),
        subscription_tokens=SignedSubscriptionTokens({None: SECRET}, "HS256"),
        clock=clock,
        wall_clock=lambda: start + clock.now - began,
        **options,
    )


def soon(home: House, seconds: float) -> int:
    return int(home.service.wall_clock() + seconds)


def connect(token: str, id: int = 1, **more: Any) -> str:
    return orjson.dumps({"id": id, "connect": {"token": token, **more}}).decode()


def published(channel: str, data: str, info: str = "", offset: int = 0) -> str:
    """Write the push of a publication."""
    who = f',"info":{info}' if info else ""
    place = f',"offset":{offset}' if offset else ""
    return f'{{"push":{{"channel":"{channel}","pub":{{"data":{data}{who}{place}}}}}}}'


def error(id: int, code: int, message: str, *, temporary: bool = False) -> str:
    """Write an error reply."""
    again = ',"temporary":true' if temporary else ""
    return f'{{"id":{id},"error":{{"code":{code},"message":"{message}"{again}}}}}'


def quiet(home: House) -> None:
    """What holds when nobody is left."""
    assert not home.listener.connections
    assert not home.service.expiring
    assert len(home.service.registry) == 0
    assert home.hub.subscriptions == 0
    assert home.node.audiences == {}
    home.assert_balanced()


DENIED: Final = (103, "permission denied")
TAKEN: Final = (105, "already subscribed")
LIMIT: Final = (106, "limit exceeded")
BAD: Final = (107, "bad request")
UNAVAILABLE: Final = (108, "not available")
EXPIRED: Final = (109, "token expired")


# Protobuf: fields by the numbers of client.proto of centrifugal/protocol, each message behind its length


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def varint(value: int) -> bytes:
    return bytes((value,)) if value < 128 else bytes((value & 127 | 128,)) + varint(value >> 7)


def part(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def messages(*all: bytes) -> bytes:
    return b"".join(varint(len(each)) + each for each in all)


class Binary:
    """A client that speaks Protobuf."""

    def __init__(self, home: House) -> None:
        self.home = home
        self.connection, self.transport = home.open(
            "/connection/websocket", "Sec-WebSocket-Protocol: centrifuge-protobuf"
        )
        assert isinstance(self.connection.session, CentrifugeSession)
        self.connection.session.client = "P"

    def asks(self, *commands: bytes) -> list[bytes]:
        self.connection.data_received(wire.frame(wire.BINARY, messages(*commands)))
        self.home.loop.settle()
        frames = wire.read(self.transport.take())
        assert all(frame.opcode == wire.BINARY for frame in frames), frames
        return [frame.payload for frame in frames]
