"""A session of a made-up dialect, for tests of what a connection does with whatever session it carries.

client, transport, session = open_scripted(home)
session.words[Close.TOO_SLOW] = (3008, "slow")
"""

from __future__ import annotations

from collections.abc import Callable

from server.core.outbox import Outbox
from server.core.subscription import Subscription
from server.edge.connection import Connection
from server.edge.session import RawSession
from tests.fakes import Transport
from tests.house import House


class Scripted:
    """Does as a test tells it, and notes what it was told; it has the queue and the channel of a raw session."""

    dialect = "raw"

    def __init__(self, connection: Connection, inner: RawSession) -> None:
        self.connection = connection
        self.ping_frame: bytes | None = None
        self.words: dict[int, tuple[int, str]] = {}
        self.heard: list[bytes] = []
        self.on_message: Callable[[bytes], object] = self.heard.append
        self._inner = inner

    @property
    def channel(self) -> str:
        return self._inner.channel

    @property
    def client(self) -> str:
        return self._inner.client

    @property
    def subscription(self) -> Subscription | None:
        return self._inner.subscription

    @property
    def outbox(self) -> Outbox | None:
        return self._inner.outbox

    def begin(self) -> None:
        self._inner.begin()

    def farewell(self, code: int, reason: str) -> tuple[int, str]:
        return self.words.get(code, (code, reason))

    def message(self, opcode: int, payload: bytes | bytearray) -> None:
        self.on_message(bytes(payload))

    def pause(self) -> None:
        self._inner.pause()

    def resume(self) -> None:
        self._inner.resume()

    def finish(self) -> None:
        self._inner.finish()

    def leave(self) -> None:
        self._inner.leave()


def open_scripted(home: House, path: str = "/ws") -> tuple[Connection, Transport, Scripted]:
    """Let a client in that gets a scripted session."""
    listener = home.listener
    make = listener.new_session

    def new_session(connection: Connection, admission: object) -> Scripted:
        inner = make(connection, admission)  # type: ignore[arg-type]
        assert isinstance(inner, RawSession)
        return Scripted(connection, inner)

    listener.new_session = new_session  # type: ignore[method-assign, assignment]
    try:
        connection, transport = home.open(path)
    finally:
        listener.new_session = make  # type: ignore[method-assign]
    session = connection.session
    assert isinstance(session, Scripted)
    return connection, transport, session
