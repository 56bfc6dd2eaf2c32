"""What all sessions of the Centrifuge dialect share, and the chores that come once a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from server.edge.credentials import Credentials, SubscriptionTokens
from server.edge.turnstile import Turnstile
from server.node.node import Node
from server.node.permissions import Permissions
from server.node.registry import Registry

if TYPE_CHECKING:
    from server.edge.centrifuge.places import Place

# What one frame may hold: an SDK sends its connect command and a subscribe for every channel together.
MAX_COMMANDS: Final = 1024
# An SDK that is told of a longer time may count it in 32 bits; like any other it brings a new token before the old one
# ends.
MAX_TTL: Final = 365 * 24 * 3600
# How long a client whose credentials have run out may take to bring new ones: SDKs ask for them at that moment.
EXPIRY_GRACE: Final = 25.0


@dataclass(slots=True)
class Service:
    """What a session needs of the house. Times in seconds; `clock` is monotonic, `wall_clock` Unix time."""

    node: Node
    registry: Registry
    permissions: Permissions
    credentials: Credentials
    subscription_tokens: SubscriptionTokens
    clock: Callable[[], float]
    wall_clock: Callable[[], float]
    turnstile: Turnstile
    max_channels: int = 128
    max_channel_length: int = 128
    ping_interval: int = 25
    version: str = ""
    node_id: str = ""
    # Whose subscription tokens run out, and when.
    expiring: dict[Place, float] = field(default_factory=dict)

    def tick(self) -> None:
        """End the subscriptions whose tokens have run out; called once a second."""
        now = self.clock()
        for place in [place for place, deadline in self.expiring.items() if deadline <= now]:
            if place in self.expiring:  # the end of one may be the end of others
                place.expire()

    def moment(self, expires: float) -> float:
        """Turn a Unix time into the same moment by our clock; a wall clock that jumps later disconnects nobody."""
        return self.clock() + expires - self.wall_clock()

    def deadline(self, expires: float) -> float:
        """Turn a Unix time into when, by our clock, nobody waits any longer for new credentials."""
        return self.moment(expires) + EXPIRY_GRACE

    def ttl(self, expires: float) -> int:
        """Turn a Unix time into the whole seconds until then, a year at most and at least one: 0 would be never."""
        return min(max(1, round(expires - self.wall_clock())), MAX_TTL)

    def expiry(self, expires: float | None) -> tuple[bool, int]:
        """Say of an end in Unix time (None: never) what replies say: whether there is one, and the seconds until it."""
        return (False, 0) if expires is None else (True, self.ttl(expires))
