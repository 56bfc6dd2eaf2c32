"""Who gets new connections: evenly by the kernel's hash, or more for the emptier workers, by a small filter.

All workers listen on one port with SO_REUSEPORT; the kernel chooses a listening socket for each connection by a hash of
its addresses. That is even for many connections, but a worker that was started anew begins with none. So when workers
differ by more than a quarter, a classic BPF program replaces the hash: it draws a random number, and gives each worker
the share that it lacks. Source: socket(7), SO_ATTACH_REUSEPORT_CBPF; Linux, ``Documentation/networking/filter.rst``.

Law: `Order` holds the listening sockets in the order in which the kernel does, so that a share finds its worker.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Sequence
from struct import pack
from typing import Final

# Uneven: one holds so much more (or less) than the mean, and there are enough of them to tell.
TOLERANCE: Final = 0.25
ENOUGH: Final = 40

_SO_ATTACH_REUSEPORT_CBPF: Final = 51
_SO_DETACH_REUSEPORT_BPF: Final = 68
# BPF_LD|BPF_W|BPF_ABS at SKF_AD_OFF + SKF_AD_RANDOM: a random number of 32 bits.
_LOAD_RANDOM: Final = (0x20, 0, 0, 0xFFFFF000 + 56)
_JUMP_IF_NOT_LESS: Final = 0x35  # BPF_JMP|BPF_JGE|BPF_K
_RETURN: Final = 0x06  # BPF_RET|BPF_K


def shares(connections: Sequence[int]) -> list[float] | None:
    """Return what part of the new connections each worker should get, or None when the kernel's hash will do."""
    total, count = sum(connections), len(connections)
    mean = total / count
    if count < 2 or total < ENOUGH or max(abs(each - mean) for each in connections) <= TOLERANCE * mean:
        return None
    lacking = [max(connections) - each for each in connections]
    # In twentieths, so that the filter is not changed for nothing.
    return [round(20 * each / sum(lacking)) / 20 for each in lacking]


def program(parts: Sequence[float]) -> list[tuple[int, int, int, int]]:
    """Write the filter that returns the index of a socket, each with the probability of its part."""
    steps = [_LOAD_RANDOM]
    bound = 0.0
    for index, part in enumerate(parts[:-1]):
        bound += part
        # Below the bound: the next instruction returns this index; else it is jumped over.
        steps += [(_JUMP_IF_NOT_LESS, 1, 0, min(0xFFFFFFFF, round(bound * 2**32))), (_RETURN, 0, 0, index)]
    return [*steps, (_RETURN, 0, 0, len(parts) - 1)]


def attach(sock: socket.socket, parts: Sequence[float] | None) -> None:
    """Give the sockets that share the port of `sock` their parts, or the kernel's hash again. Raises OSError."""
    if parts is None:
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_REUSEPORT_BPF, 0)
        except OSError:
            pass  # there was none
        return
    code = b"".join(pack("=HBBI", *step) for step in program(parts))
    buffer = ctypes.create_string_buffer(code)
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, pack("@HP", len(code) // 8, ctypes.addressof(buffer)))


class Order:
    """The listening workers in the kernel's order: a new one comes last; where one leaves, the last takes its place."""

    def __init__(self) -> None:
        self.workers: list[object] = []

    def enter(self, worker: object) -> None:
        self.workers.append(worker)

    def leave(self, worker: object) -> None:
        """Forget a worker. Idempotent."""
        if worker in self.workers:
            place = self.workers.index(worker)
            last = self.workers.pop()
            if place < len(self.workers):
                self.workers[place] = last
