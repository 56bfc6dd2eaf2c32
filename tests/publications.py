"""Publications and outboxes for tests of the core: frames that can be told apart, and what an outbox still holds."""

from __future__ import annotations

from server.core.backlog import Backlog
from server.core.counters import Counters
from server.core.lag import LagLimits, LagPolicy
from server.core.outbox import Batch, Outbox

MAIN = object()  # a channel; an outbox only asks if it is the same one


def batch(*frames: bytes, channel: object = MAIN, at: float = 0.0) -> Batch:
    """Make the batch of a flush; its publications were accepted at `at`, at + 1, …"""
    return Batch(channel, list(frames), [at + index for index in range(len(frames))])


def sized(*sizes: int) -> list[bytes]:
    """Make frames of these sizes, each of its own letter."""
    return [bytes([ord("a") + index]) * size for index, size in enumerate(sizes)]


def outbox(
    policy: LagPolicy = LagPolicy.DISCONNECT,
    messages: int = 4,
    size: int = 100,
    *,
    enforce: bool = True,
    backlog: Backlog | None = None,
    owner: object = "client",
) -> tuple[Outbox, Backlog, Counters]:
    """Make an outbox with small limits, its backlog and its counters."""
    if backlog is None:
        backlog = Backlog(Counters(), 1 << 30, lambda owner: None)
    limits = LagLimits(policy, messages=messages, bytes=size, enforce=enforce)
    return Outbox(owner, limits, backlog), backlog, backlog._counters


def take_all(box: Outbox) -> bytes:
    """Take everything out, an entry at a time."""
    taken = b""
    while box.messages:
        taken += box.take(1)
    return taken
