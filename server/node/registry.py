"""Which clients are here, by their own id and by their user; for those who want to reach one of them.

Law: whoever enters leaves once; nobody is found after that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from server.dialects.centrifuge.codes import Disconnect, Error, Unsubscribe


class Member(Protocol):
    """A client that can be found, and what the server may do with it, whatever its dialect."""

    @property
    def client(self) -> str: ...

    @property
    def user(self) -> str: ...

    def enter(
        self, channel: str, info: bytes = b"", data: bytes | None = None, expires: float | None = None
    ) -> Error | None:
        """Put the client on a channel, and tell it; return why not."""

    def throw_out(self, channel: str, why: Unsubscribe) -> bool:
        """Take the client off a channel ("": off all of them), and tell it why; false if it was not there."""

    def prolong(self, expires: float | None) -> None:
        """Let the connection last until `expires` (Unix time; None: for ever)."""

    def end(self, disconnect: Disconnect) -> None:
        """End the connection. Idempotent."""


class Registry:
    """The clients of this process."""

    def __init__(self) -> None:
        self._clients: dict[str, Member] = {}
        self._users: dict[str, dict[str, Member]] = {}

    def enter(self, member: Member) -> None:
        self._clients[member.client] = member
        self._users.setdefault(member.user, {})[member.client] = member

    def leave(self, member: Member) -> None:
        """Forget a client. Idempotent."""
        if self._clients.pop(member.client, None) is None:
            return
        clients = self._users[member.user]
        del clients[member.client]
        if not clients:
            del self._users[member.user]

    def find(self, user: str, client: str = "") -> list[Member]:
        """Return the clients of a user, or the one of them that has the id `client`."""
        clients = self._users.get(user, {})
        if client:
            return [clients[client]] if client in clients else []
        return list(clients.values())

    @property
    def users(self) -> int:
        """How many users are here; all that have no name are one."""
        return len(self._users)

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._clients.values()))
