"""Publications and outboxes for tests of the core: frames that can be told apart, and what an outbox still holds."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from server.core.backlog import Backlog
from server.core.batch import Batch
from server.core.channel import Channel
from server.core.counters import Counters
from server.core.lag import ChannelTerms, LagLimits, LagPolicy
from server.core.outbox import Outbox
from server.core.subscription import WriteFaults


def channel(
    key: Hashable = "main",
    policy: LagPolicy = LagPolicy.DISCONNECT,
    messages: int = 4,
    size: int = 100,
    *,
    enforce: bool = True,
    declares_gaps: bool = False,
    lag: LagLimits | None = None,
) -> Channel:
    """Make a channel with small limits, or with those of `lag`."""
    lag = lag or LagLimits(policy, messages=messages, bytes=size, enforce=enforce)
    return Channel(key, ChannelTerms(lag, declares_gaps=declares_gaps), WriteFaults(lambda report: None))


MAIN = channel()


def batch(*frames: bytes, channel: Channel = MAIN, at: float = 0.0, keys: Sequence[str | None] | None = None) -> Batch:
    """Make the batch of a flush; its publications were accepted at `at`, at + 1, …"""
    return Batch(channel, list(frames), [at + index for index in range(len(frames))], keys)


def sized(*sizes: int) -> list[bytes]:
    """Make frames of these sizes, each of its own letter."""
    return [bytes([ord("a") + index]) * size for index, size in enumerate(sizes)]


def outbox(*, backlog: Backlog | None = None, owner: object = "client") -> tuple[Outbox, Backlog, Counters]:
    """Make an outbox, its backlog and its counters."""
    if backlog is None:
        backlog = Backlog(Counters(), 1 << 30, lambda owner: None)
    return Outbox(owner, backlog), backlog, backlog._counters


def take_all(box: Outbox) -> bytes:
    """Take everything out, an entry at a time."""
    taken = b""
    while box.messages:
        taken += box.take(1)
    return taken
