"""Who of this node's clients is on which channel, and when Redis is to hear of them again, lest it forgets them.

Laws: each channel's turn comes once per period, all of them spread over it; after an outage all are due at once, a part
at a time. Time is an argument, in seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from server.core.publication import ClientInfo

# Channels whose turn may come at a time, or this part of them if that is more.
_TURNS: Final = 500
_TURNS_PART: Final = 10


class Present:
    """See the module."""

    def __init__(self, period: float) -> None:
        self._period = period
        self._clients: dict[str, dict[str, ClientInfo]] = {}
        self._due: OrderedDict[str, float] = OrderedDict()  # soonest first

    def add(self, channel: str, info: ClientInfo, now: float) -> None:
        """Take a client in, or what is now said of one that is here."""
        clients = self._clients.get(channel)
        if clients is None:
            clients = self._clients[channel] = {}
            self._due[channel] = now + self._period
        clients[info.client] = info

    def remove(self, channel: str, client: str) -> None:
        """Take a client out. Idempotent."""
        clients = self._clients.get(channel)
        if clients is None:
            return
        clients.pop(client, None)
        if not clients:
            del self._clients[channel], self._due[channel]

    def hurry(self, now: float) -> None:
        """Make all due: Redis may know nothing of them."""
        for channel in self._due:
            self._due[channel] = now

    def take(self, now: float) -> list[tuple[str, list[ClientInfo]]]:
        """Return the channels whose turn has come, with their clients; their next turn is a period later."""
        turns = []
        for _ in range(max(_TURNS, len(self._due) // _TURNS_PART)):
            if not self._due or next(iter(self._due.values())) > now:
                break
            channel, _ = self._due.popitem(last=False)
            self._due[channel] = now + self._period
            turns.append((channel, list(self._clients[channel].values())))
        return turns
