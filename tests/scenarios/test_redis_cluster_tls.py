"""Two servers as they are run, over a Redis Cluster in TLS: a slot moves, a primary dies, nothing is lost in secret.
And one that does not trust the cluster, or cannot show who it is, says so.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.brokers.redis.slots import slot_of
from tests.authority import Authority
from tests.harness import serve, wait_until
from tests.redis_cluster import RedisCluster
from tests.scenarios.clients import eventually
from tests.scenarios.nodes import nodes
from tests.scenarios.stage import figure
from tests.scenarios.talkers import KEPT

pytestmark = pytest.mark.scenario

BACK = 5.0
# What this machine may add, and the cluster itself, until it has taken a node back.
SLACK = 5.0
SLOT = slot_of(f"x{{{KEPT}}}".encode())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"), "ours")


@pytest.fixture(scope="module")
def cluster(authority: Authority) -> Iterator[RedisCluster]:
    with RedisCluster(papers=authority.issue("node", "127.0.0.1")) as started:
        yield started


async def test_a_slot_moves_and_a_primary_dies(cluster: RedisCluster) -> None:
    async with nodes(cluster.url, cluster.url) as pair:
        await pair.talk(0.5)
        source = cluster.owner_of(SLOT)
        target = next(node for node in cluster.primaries if node is not source)
        assert await asyncio.to_thread(cluster.migrate, SLOT, target) >= 2, "the fault has not happened"
        await pair.back(BACK + SLACK)
        await pair.talk(0.5)
        assert not any(member.declared for member in pair.members), "a stream that moves is the same one"
        assert not any(node.speaker.refused for node in pair.nodes), "nothing was refused meanwhile"

        target.kill()
        await eventually(lambda: all(len(node.speaker.refused) > 1 for node in pair.nodes), 15, "they notice")
        await asyncio.to_thread(target.restart)
        await asyncio.to_thread(cluster.wait_until_well)
        figure("all was well after, s", round(await pair.back(BACK + SLACK), 2))
        await pair.talk(0.5)
        await pair.settle(may_lose=True)
        assert [member.closes for member in pair.members if member.closes] == [], "nobody was disconnected"
        assert all(member.declared == 1 for member in pair.members), "it came back empty, and everyone knows"


def test_who_does_not_trust_the_cluster_says_so_and_is_not_ready(cluster: RedisCluster, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "theirs").file
    with serve("--broker", f"{cluster.url.partition('?')[0]}?ca={stranger}") as server:
        words = "no map of the Redis Cluster: its certificate is not accepted: self-signed certificate"
        wait_until(lambda: words in server.log_text())
        status, body = server.get("/readyz")
        assert (status, b"degraded" in body) == (503, True)
        assert server.metrics()["stentor_broker_up"] == 0
        assert server.terminate() == 0
        assert "raceback" not in server.log_text()
        assert server.log_text().count(words) == 1


def test_a_server_whose_papers_are_missing_does_not_start(cluster: RedisCluster, authority: Authority) -> None:
    url = f"{cluster.url.partition('?')[0]}?ca={authority.file}.gone"
    for command in ("serve", "check"):
        line = [sys.executable, "-m", "server", command, "--broker", url, "--port", "0", "--internal-port", "0"]
        done = subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode != 0
        assert f"ca={authority.file}.gone: no such file or directory" in done.stderr
        assert "raceback" not in done.stderr
