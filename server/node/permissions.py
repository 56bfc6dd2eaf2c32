"""Who may hear a channel, which whoever speaks on it or asks about it must. Pure: a user, a channel, its rules.

Laws: a grant (the connection token's list) opens any channel, for it is the application that signs it. Without one a
personal channel is for the user that it names, however open or closed its namespace is.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Final

from server.node.namespaces import Namespaces

PERSONAL: Final = "#"


def personal_channel(user: str) -> str:
    """Name the channel of one user."""
    return PERSONAL + user


@dataclass(frozen=True, slots=True)
class Permissions:
    """The rules of the house about channels."""

    namespaces: Namespaces
    personal_channels: bool = False

    def may_subscribe(self, user: str, channel: str, granted: Container[str] = ()) -> bool:
        """Tell if a client may hear a channel without a token for it; `granted` are those that its own token opens."""
        if channel in granted:
            return True
        if self.personal_channels and channel.startswith(PERSONAL):
            return bool(user) and channel == personal_channel(user)
        options = self.namespaces.of(channel)
        return options.subscribe and (options.anonymous or bool(user))
