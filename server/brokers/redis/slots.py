"""The slots of a Redis Cluster: which one a name is in, and who has them.

Source: the Redis Cluster specification ("Key distribution model", "Hash tags") and the commands CLUSTER SLOTS and
CLUSTER INFO. What a cluster says of itself is checked: what makes no sense is a ValueError. Knows no sockets.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from server.brokers.redis.address import Address

SLOTS: Final = 16384


def slot_of(name: bytes) -> int:
    """Return the slot of a key or channel: the CRC-16 (XMODEM) of its hash tag, or of all of it if it has none."""
    start = name.find(b"{")
    if start >= 0:
        end = name.find(b"}", start + 1)
        if end > start + 1:
            name = name[start + 1 : end]
    return crc_hqx(name, 0) % SLOTS


@dataclass(frozen=True, slots=True)
class Range:
    """The slots from `first` to `last`, and the primary that has them."""

    first: int
    last: int
    primary: Address

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.last + 1))


@dataclass(frozen=True, slots=True)
class Map:
    """Who has which slots, as one node saw it; `epoch` is that of the cluster, and `nodes` are all it named."""

    epoch: int
    ranges: tuple[Range, ...]
    nodes: tuple[Address, ...]

    @property
    def primaries(self) -> dict[Address, set[int]]:
        """Return each primary with its slots."""
        found: dict[Address, set[int]] = {}
        for each in self.ranges:
            found.setdefault(each.primary, set()).update(each)
        return found


class Unwell(ValueError):
    """The node says that the cluster is not well, or nothing that makes sense: its map is not to be used."""


def read_map(info: Any, slots: Any, asked: Address) -> Map:
    """Read the answers of the node `asked` to CLUSTER INFO and CLUSTER SLOTS. Raises Unwell."""
    try:
        facts = dict(line.split(":", 1) for line in bytes(info).decode("ascii").split("\r\n") if ":" in line)
        epoch, state = int(facts["cluster_current_epoch"]), facts["cluster_state"]
        found = [_range(entry, asked) for entry in slots]
    except (ValueError, KeyError, TypeError, IndexError):
        raise Unwell("it does not answer as a node of a Redis Cluster does") from None
    if state != "ok" or not found:
        raise Unwell("the cluster is down")
    nodes = dict.fromkeys(node for _, members in found for node in members)
    return Map(epoch, tuple(each for each, _ in found), tuple(nodes))


def _range(entry: Sequence[Any], asked: Address) -> tuple[Range, list[Address]]:
    first, last, *members = entry
    if not 0 <= first <= last < SLOTS:
        raise ValueError("a slot that there is not")
    nodes = [_node(member, asked) for member in members]
    return Range(first, last, nodes[0]), nodes


def _node(member: Sequence[Any], asked: Address) -> Address:
    """Read one node; one that does not know its own host is reached as we reached it."""
    host, port = member[0], member[1]
    if not 0 < port < 65536:
        raise ValueError("a port that there is not")
    return replace(asked, host=bytes(host).decode("ascii") if host else asked.host, port=port)
