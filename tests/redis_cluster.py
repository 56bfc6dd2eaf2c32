"""A real Redis Cluster for tests: primaries and replicas on free loopback ports, joined by the tests themselves.

    with RedisCluster(primaries=3, replicas=1) as cluster:
        cluster.url                          # redis+cluster://127.0.0.1:port,…
        cluster.migrate(slot, to=node)       # step by step, as redis-cli does
        cluster.primary_of(b"key").kill()    # its replica takes over

    with RedisCluster(papers=authority.issue("node", "127.0.0.1")) as cluster:
        cluster.url                          # rediss+cluster://…?ca=…&cert=…&key=…

The slots are shared out evenly; replica i is that of primary i. With `papers` everything is TLS, between the nodes too,
both sides show a certificate, and nothing is in the clear but each node's Unix socket.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Self

from server.brokers.redis.slots import SLOTS, slot_of
from tests.authority import Papers
from tests.redis_server import RedisServer, free_port

WITHIN = 15.0
# Milliseconds after which a node that says nothing counts as gone.
NODE_TIMEOUT = 1000


class RedisNode(RedisServer):
    """A node of a cluster; what it knows of the others is kept in its directory."""

    def __init__(self, password: str | None = None, papers: Papers | None = None) -> None:
        self.bus = free_port()
        super().__init__(
            "--cluster-enabled", "yes", "--cluster-port", str(self.bus), "--cluster-node-timeout", str(NODE_TIMEOUT),
            "--cluster-config-file", "nodes.conf", "--cluster-allow-replica-migration", "no",
            "--repl-diskless-sync-delay", "0",
            password=password,
        )  # fmt: skip
        if papers is not None:
            # The later port counts.
            tls = ("--port", "0", "--tls-port", str(self.port), "--tls-cluster", "yes", "--tls-replication", "yes")
            self._options = (*self._options, *tls, *papers.redis_options())

    @cached_property
    def id(self) -> str:
        return str(self.ask("CLUSTER", "MYID").decode())

    def facts(self, section: str) -> dict[str, str]:
        """Return what it says of itself."""
        text = self.ask(*section.split())
        if isinstance(text, dict):
            return {str(key): str(value) for key, value in text.items()}
        return dict(line.split(":", 1) for line in text.decode().split("\r\n") if ":" in line)


class RedisCluster:
    """See the module."""

    def __init__(
        self, primaries: int = 3, replicas: int = 0, *, password: str | None = None, papers: Papers | None = None
    ) -> None:
        self.primaries = [RedisNode(password, papers) for _ in range(primaries)]
        self.replicas = [RedisNode(papers=papers) for _ in range(replicas)]
        self._papers = papers

    @property
    def nodes(self) -> list[RedisNode]:
        return [*self.primaries, *self.replicas]

    @property
    def url(self) -> str:
        nodes = ",".join(f"127.0.0.1:{node.port}" for node in self.primaries)
        return f"rediss+cluster://{nodes}?{self._papers.query()}" if self._papers else f"redis+cluster://{nodes}"

    def __enter__(self) -> Self:
        try:
            for node in self.nodes:
                node.restart()
            self._join()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.__exit__()

    def _join(self) -> None:
        count = len(self.primaries)
        for number, node in enumerate(self.primaries):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            first, last = SLOTS * number // count, SLOTS * (number + 1) // count - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
        first, *others = self.nodes
        assert len({node.id for node in self.nodes}) == len(self.nodes)
        for node in others:
            first.ask("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus)
        wait(
            lambda: all(
                node.facts("CLUSTER INFO")["cluster_known_nodes"] == str(len(self.nodes)) for node in self.nodes
            )
        )
        for replica, primary in zip(self.replicas, self.primaries, strict=False):
            name = primary.id
            wait(lambda replica=replica, name=name: name in replica.ask("CLUSTER", "NODES").decode())
            replica.ask("CLUSTER", "REPLICATE", name)
            wait(lambda replica=replica: replica.facts("INFO replication")["master_link_status"] == "up")
        self.wait_until_well()

    def wait_until_well(self) -> None:
        """Wait until every node that runs says that all is well, and knows of all slots."""
        wait(lambda: all(_is_well(node) for node in self.nodes if node.process is not None))

    def wait_until_synced(self) -> None:
        """Wait until all is well, and every replica has what its primary has."""
        self.wait_until_well()
        wait(lambda: all(node.facts("INFO replication").get("master_link_status", "up") == "up" for node in self.nodes))

    def replica_of(self, primary: RedisNode) -> RedisNode:
        """Return the replica of a primary."""
        return next(node for node in self.nodes if _follows(node, primary))

    def owner_of(self, slot: int) -> RedisNode:
        """Return who has a slot, as the first node that runs sees it."""
        [witness, *_] = [node for node in self.nodes if node.process is not None]
        for entry in witness.ask("CLUSTER", "SLOTS"):
            if entry[0] <= slot <= entry[1]:
                # By its name: whoever asks in the clear is told no port that is TLS.
                [owner] = [node for node in self.nodes if node.id == entry[2][2].decode()]
                return owner
        raise AssertionError("nobody has it")

    def primary_of(self, name: bytes) -> RedisNode:
        """Return who has the slot of a name."""
        return self.owner_of(slot_of(name))

    @contextmanager
    def migrating(self, slot: int, target: RedisNode) -> Iterator[Callable[[], int]]:
        """Move a slot; within, its keys are moved by the function that is yielded, which tells how many were there."""
        source = self.owner_of(slot)
        assert source is not target
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)

        def move_keys() -> int:
            keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100)
            if keys:
                source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            return len(keys)

        yield move_keys
        while move_keys():
            pass
        for node in (target, source, *(node for node in self.primaries if node not in (source, target))):
            if node.process is not None:
                node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)

    def migrate(self, slot: int, target: RedisNode) -> int:
        """Move a slot with its keys; return how many there were."""
        moved = 0
        with self.migrating(slot, target) as move_keys:
            while count := move_keys():
                moved += count
        return moved

    @contextmanager
    def newcomer(self) -> Iterator[RedisNode]:
        """Let another primary in, without slots; it is to have none when it goes."""
        node = RedisNode(papers=self._papers)
        with node:
            self.primaries.append(node)
            self.primaries[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus)
            wait(
                lambda: all(
                    each.facts("CLUSTER INFO")["cluster_known_nodes"] == str(len(self.nodes)) for each in self.nodes
                )
            )
            self.wait_until_well()
            try:
                yield node
            finally:
                name = node.id
                self.primaries.remove(node)
                for each in self.nodes:
                    each.ask("CLUSTER", "FORGET", name)


def _follows(node: RedisNode, primary: RedisNode) -> bool:
    facts = node.facts("INFO replication")
    return facts["role"] == "slave" and facts["master_port"] == str(primary.port)


def _is_well(node: RedisNode) -> bool:
    facts = node.facts("CLUSTER INFO")
    return facts["cluster_state"] == "ok" and facts["cluster_slots_ok"] == str(SLOTS)


def wait(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline, "the cluster does not come together"
        time.sleep(0.02)
