"""The application behind the server: it calls the server API; and clients of both dialects to see what comes of it.

home, api = backend(options=ChannelOptions(presence=True))
ann = Client.connect(home, "ann")
await api.call("publish", {"channel": "news", "data": 1})
assert ann.said() == [...]
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from server.admin.http_api import routes
from server.admin.node_api import NodeApi
from server.admin.port import MAX_REQUEST
from server.core.revocations import Token
from server.edge.credentials import ANONYMOUS, Identity, JsonWebTokens, SignedSubscriptionTokens
from tests import forgeries, wire
from tests.fakes import Transport
from tests.house import House, house

# What the house takes for now.
NOW = 1_700_000_000


class Names:
    """Credentials of a house where everyone is believed: the token is the user's name."""

    def check(self, token: str | None) -> Identity:
        return Identity(token) if token else ANONYMOUS


def signed_house(**given: Any) -> House:
    """Build a house where clients show signed tokens, some of which may be revoked."""

    def is_revoked(token: Token) -> bool:
        return home.node.revocations.revoked.refuses(token)

    home = house(
        credentials=JsonWebTokens({None: forgeries.SECRET}, "HS256", is_revoked=is_revoked),
        subscription_tokens=SignedSubscriptionTokens({None: forgeries.SECRET}, "HS256", is_revoked=is_revoked),
        **given,
    )
    return home


def api_of(home: House, *, max_channel_length: int = 128, max_message_size: int = 65536) -> NodeApi:
    """Make the server API of a house."""
    return NodeApi(
        home.node,
        home.service.registry,
        clock=home.clock,
        max_channel_length=max_channel_length,
        max_message_size=max_message_size,
        node_id="node",
        wall_clock=lambda: float(NOW),
        connections=lambda: home.gate.open,
        find=home.listener.find,
    )


def backend(**given: Any) -> tuple[House, NodeApi]:
    """Build a house where tokens are names, and its server API."""
    home = house(credentials=Names(), **given)
    return home, api_of(home)


@dataclass
class Client:
    """A client of the Centrifuge dialect, or with `listen` of the raw one, that notes what it is told."""

    home: House
    transport: Transport
    id: str = ""
    code: int = 0
    reason: str = ""

    @classmethod
    def connect(cls, home: House, user: str = "", *channels: str) -> Client:
        """Connect in the Centrifuge dialect, and subscribe."""
        connection, transport = home.open("/connection/websocket")
        client = cls(home, transport)
        connection.data_received(wire.text(f'{{"id":1,"connect":{{"token":"{user}"}}}}'))
        (reply,) = client.said()
        client.id = reply["connect"]["client"]
        for channel in channels:
            connection.data_received(wire.text(f'{{"id":2,"subscribe":{{"channel":"{channel}"}}}}'))
            assert any("subscribe" in reply for reply in client.said())
        return client

    @classmethod
    def listen(cls, home: House, channel: str, user: str = "") -> Client:
        """Connect in the raw dialect."""
        return cls(home, home.open(f"/ws/{channel}?token={user}" if user else f"/ws/{channel}")[1])

    def say(self, line: str) -> list[Any]:
        """Send a command; return what comes back."""
        self.transport.protocol.data_received(wire.text(line))
        return self.said()

    def said(self) -> list[Any]:
        """Return what came since the last time: a raw client's payloads, or decoded objects."""
        self.home.loop.settle()
        return self.said_at_once()

    def said_at_once(self) -> list[Any]:
        """Return what has come without another turn of the event loop."""
        said: list[Any] = []
        for frame in wire.read(self.transport.take()):
            if frame.opcode == wire.CLOSE:
                self.code, self.reason = frame.code, frame.reason
            else:
                said += [_decoded(line) for line in frame.payload.split(b"\n")]
        return said


def _decoded(line: bytes) -> Any:
    return orjson.loads(line) if line[:1] == b"{" else line.decode()


Post = Callable[..., Awaitable[tuple[int, Any]]]


@asynccontextmanager
async def serving(home: House, *, api_key: str | None = None, on_loopback: bool = True) -> AsyncIterator[Post]:
    """Serve the API on loopback; yields a function that posts to ``/api/COMMAND``, and returns status and body."""
    app = web.Application(client_max_size=MAX_REQUEST)
    app.add_routes(routes(api_of(home), api_key=api_key, on_loopback=on_loopback))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]

    async with aiohttp.ClientSession(f"http://{host}:{port}") as session:

        async def post(command: str, body: object, headers: dict[str, str] | None = None) -> tuple[int, Any]:
            payload = body if isinstance(body, bytes) else orjson.dumps(body)
            path = f"/api/{command}" if command else "/api"
            async with session.post(path, data=io.BytesIO(payload), headers=headers) as response:
                reply = await response.read()
                is_one = response.content_type == "application/json" and b"\n" not in reply
                return response.status, orjson.loads(reply) if is_one else reply

        try:
            yield post
        finally:
            await runner.cleanup()
