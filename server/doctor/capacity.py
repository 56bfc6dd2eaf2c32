"""How many clients fit: every limit that bounds them, and the one that binds first. Arithmetic alone.

The costs are measured: 3,000 connections at a time, idle, on Linux 6; 5.8 to 6.2 KiB of the process in the raw dialect
and 7.4 KiB with a subscription of the Centrifuge dialect, 24 KiB more with TLS, 5 KiB of the kernel for each socket. A
client that does not read holds some 80 KiB of the kernel besides what its queue holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from server.doctor.machine import UNLIMITED, Machine

if TYPE_CHECKING:
    from server.config import Settings

KIB: Final = 1024
PROCESS: Final = 70 * KIB * KIB
CLIENT: Final = round(7.4 * KIB)
SOCKET: Final = 5 * KIB
TLS: Final = 24 * KIB
LAGGARD: Final = 80 * KIB
# Descriptors that a worker keeps for itself; `max_connections` is so much less than the limit of open files.
SPARE_FILES: Final = 64
# A publication reaches one client after the other, so many seconds apart, when it goes out alone.
DELIVERY: Final = 9e-6


@dataclass(frozen=True, slots=True)
class Bound:
    """One limit, and how many clients of the whole server fit under it."""

    limit: str
    clients: int


def bounds(machine: Machine, settings: Settings) -> list[Bound]:
    """Reckon every limit that can be seen, the narrowest first. `max_connections` itself is not among them."""
    return sorted(_bounds(machine, settings), key=lambda bound: bound.clients)


def _bounds(machine: Machine, settings: Settings) -> Iterator[Bound]:
    if machine.files_soft is not None:
        files = min(machine.files_soft, machine.files_at_most or UNLIMITED)
        yield Bound("open files", settings.workers * max(0, files - SPARE_FILES))
    if machine.files_of_all is not None and machine.files_of_all < UNLIMITED:
        spare = settings.workers * SPARE_FILES + (machine.files_in_use or 0)
        yield Bound("open files of all processes", max(0, machine.files_of_all - spare))
    if (available := memory(machine)) is not None:
        yield Bound("memory", max(0, available - fixed_memory(settings)) // cost(settings))
    if machine.tracked_at_most is not None:
        yield Bound("connection tracking", max(0, machine.tracked_at_most - (machine.tracked or 0)))


def memory(machine: Machine) -> int | None:
    """Return the bytes that the server may take, of the machine or of its group."""
    seen = [left for left in (machine.memory_available, machine.memory_left_by_group) if left is not None]
    return min(seen, default=None)


def fixed_memory(settings: Settings) -> int:
    """Return the bytes that the server takes whoever is connected: its processes, and all that may wait in queues."""
    processes = settings.workers + (1 if settings.workers > 1 else 0)
    return processes * PROCESS + settings.workers * settings.node_queue_bytes


def cost(settings: Settings) -> int:
    """Return the bytes that a client takes, of the process and of the kernel."""
    return CLIENT + SOCKET + (TLS if settings.tls_cert else 0)


def wanted(machine: Machine, settings: Settings, *, is_default: bool) -> int:
    """Return how many clients the settings let in, over all workers.

    By default (`is_default`) these are as many as there are open files, of the process that was looked at.
    """
    each = settings.max_connections
    if is_default and machine.files_soft is not None:
        each = max(1, min(machine.files_soft, machine.files_at_most or UNLIMITED) - SPARE_FILES)
    return settings.workers * each
