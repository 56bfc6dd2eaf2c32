"""The server that the SDKs talk to, who may come in, and what its channels are like."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import jwt

from tests.harness import Server, serve
from tests.sdk.line import Line
from tests.sdk.programs import PAGE

SECRET: Final = "a secret of thirty-two bytes or more"
API_KEY: Final = "the-key-of-the-server-API"

NAMESPACES: Final = {
    "chat": {"history_size": 100, "presence": True, "join_leave": True},
    "short": {"history_size": 3},
    "slow": {"history_size": 10_000, "queue_messages": 16, "lag_policy": "drop_oldest"},
    "latest": {"history_size": 10, "recovery_mode": "cache"},
    "diff": {"history_size": 10, "delta": True},
    "mute": {"history_size": 10, "presence": True, "publish": False, "read_history": False, "read_presence": False},
    "closed": {"history_size": 10, "subscribe": False},
    "bare": {},
}
ORIGIN: Final = PAGE.rstrip("/")


class Site:
    """A server with everything on; tokens for its clients."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._numbers = itertools.count(1)

    def address(self, line: Line | None = None) -> str:
        """Where clients go: to the server, or to the near end of a line to it."""
        port = line.port if line is not None else self.server.port
        return f"ws://127.0.0.1:{port}/connection/websocket"

    def channel(self, namespace: str) -> str:
        """Name a channel that no other test uses."""
        return f"{namespace}:{next(self._numbers)}"

    def token(self, user: str, lasts: float = 3600, **claims: Any) -> str:
        """Make a token for `user`: one for a channel, if `claims` name a `channel`."""
        return jwt.encode({"sub": user, "exp": int(time.time() + lasts), **claims}, SECRET)

    def api(self, command: str, **request: Any) -> Any:
        """Call the server API; return the result."""
        reply = self.server.api(command, request, {"X-API-Key": API_KEY})
        assert "error" not in reply, reply
        return reply["result"]

    def publish(self, channel: str, *data: Any) -> None:
        """Say each of `data` in the server's own name."""
        for each in data:
            self.api("publish", channel=channel, data=each)


@contextmanager
def open_site(*options: str) -> Iterator[Site]:
    """Run a server that knows its clients by signed tokens, unless `options` say otherwise."""
    environment = {
        "STENTOR_NAMESPACES": json.dumps(NAMESPACES),
        "STENTOR_JWT_SECRET": SECRET,
        "STENTOR_API_KEY": API_KEY,
    }
    common = ("--auth", "jwt", "--allowed-origins", ORIGIN, "--ping-interval", "1", "--message-rate", "0")
    with serve(*common, *options, env=environment) as server:
        yield Site(server)
