"""Servers as they are run, one of them with workers, over a Redis Cluster: the server API reaches them all."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jwt
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.harness import Server, http, serve, wait_until
from tests.redis_cluster import RedisCluster

pytestmark = pytest.mark.scenario

# What is promised: a command is everywhere within a second.
PROMISED = 1.0
WORKERS = 2
SECRET = "a secret of more than thirty-two bytes"


@contextmanager
def servers(url: str) -> Iterator[list[Server]]:
    """Start two servers, the second with workers."""
    options = ("--broker", url, "--auth", "jwt", "--jwt-secret", SECRET)
    with serve(*options) as single, serve(*options, "--workers", str(WORKERS)) as many:
        wait_until(lambda: all(len(call(each, "info")["nodes"]) == 1 + WORKERS for each in (single, many)))
        yield [single, many]


def call(server: Server, command: str, **request: Any) -> Any:
    """Have a command done by the API of one server."""
    status, body = http("POST", f"{server.internal_url}/api/{command}", json.dumps(request).encode())
    assert status == 200
    reply = json.loads(body)
    assert "result" in reply, reply
    return reply["result"]


async def clients_of(servers: list[Server]) -> list[ClientConnection]:
    """Connect a few clients to each server, so that every worker is likely to have one."""
    token = jwt.encode({"sub": "ann", "exp": int(time.time()) + 3600}, SECRET)
    return [await connect(f"{server.websocket_url}/ws/news?token={token}") for server in servers for _ in range(6)]


async def code_of(client: ClientConnection) -> int | None:
    """Wait for the end of a connection."""
    async with asyncio.timeout(5):
        await client.wait_closed()
    return client.close_code


async def assert_one_house(servers: list[Server], asked: Server) -> None:
    clients = await clients_of(servers)
    everyone = {"channels": {"news": {"num_clients": len(clients)}}}
    # They are in before Redis has confirmed that their channel is heard.
    await asyncio.to_thread(wait_until, lambda: call(asked, "channels") == everyone)
    await asyncio.to_thread(call, asked, "publish", channel="news", data=1)
    async with asyncio.timeout(5):
        assert {await client.recv() for client in clients} == {"1"}
    began = time.monotonic()
    assert await asyncio.to_thread(call, asked, "disconnect", user="ann") == {}
    codes = await asyncio.gather(*(code_of(client) for client in clients))
    assert time.monotonic() - began < 2 * PROMISED, "a busy machine may take twice as long"
    assert set(codes) == {1008}
    nobody: dict[str, Any] = {"channels": {}}
    await asyncio.to_thread(wait_until, lambda: all(call(server, "channels") == nobody for server in servers))


def test_all_servers_are_one_house_whichever_is_asked() -> None:
    with RedisCluster() as cluster, servers(cluster.url) as both:
        single, many = both
        for asked in both:
            asyncio.run(assert_one_house(both, asked))
        many.process.terminate()
        many.process.wait(20)
        wait_until(lambda: len(call(single, "info")["nodes"]) == 1, 15.0, "who has gone is told of no more")
