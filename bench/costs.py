"""What the steps of a publication cost, as measured (docs/scaling.md), and the network around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

US: Final = 1e-6
MS: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of processor time, measured on a core of 2.5 GHz with publications of 128 B."""

    write: float = 9.3 * US  # a delivery by itself: nearly all of it the kernel's send()
    joined: float = 0.08 * US  # each further publication in the same write
    hear: float = 15 * US  # a publication from the broker, at each worker, before anybody is written to
    relay: float = 78 * US  # a publication through a supervisor
    ping: float = 39 * US  # a ping and its pong
    connect: float = 600 * US  # a newcomer, gate and all
    scrape: float = 4700 * US  # one of /metrics ...
    scrape_client: float = 1.3 * US  # ... and for each client
    redis_turn: float = 75 * US  # Redis: a turn of its event loop with its system calls
    redis_script: float = 15 * US  # a publication: offset, stream, publish
    redis_write: float = 5.3 * US  # to one worker
    redis_joined: float = 0.63 * US  # each further publication in the same write
    redis_read: float = 30 * US  # a client's recovery: ten publications of a stream
    generator: float = 7.5 * US  # the load test: a read ...
    generator_joined: float = 0.4 * US  # ... and each message in it


COSTS: Final = Costs()
PING_EVERY: Final = 25.0
SCRAPE_EVERY: Final = 15.0
HOP: Final = 0.2 * MS  # between two machines of one room
HEAD_BYTES: Final = 70  # Ethernet, IP and TCP of a write
MESSAGE_BYTES: Final = 132
