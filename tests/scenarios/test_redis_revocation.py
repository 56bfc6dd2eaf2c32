"""Revoked tokens over a Redis: servers that were there, servers that start later, and a Redis that comes back empty."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import jwt
import pytest

from tests.harness import Server, serve, wait_until
from tests.lifecycle.asking import Talk, ask, bearer, hears_itself, talk
from tests.redis_cluster import RedisCluster
from tests.redis_server import RedisServer
from tests.wire import request

pytestmark = pytest.mark.scenario

SECRET = "a secret that is long enough for the algorithm"
# What is promised, and what is let pass on a machine that is busy with other things.
PROMISED, PATIENCE = 1.0, 5.0


def token(uid: str = "", user: str = "ann", **more: Any) -> str:
    return jwt.encode({"sub": user, "jti": uid, "exp": int(time.time()) + 3600, **more}, SECRET)


def status(server: Server, shown: str) -> int:
    return ask(server.port, request("/ws", bearer(shown))).status


def is_kept_out(server: Server, uid: str) -> bool:
    """Tell if every worker refuses a token: each gets its part of a dozen."""
    return all(status(server, token(uid)) == 401 for _ in range(12))


def revoke(server: Server, uid: str) -> Any:
    return server.api("revoke_token", {"uid": uid})


def gone(clients: list[Talk]) -> float:
    """Wait until all are disconnected for their tokens; return how long that took."""
    began = time.monotonic()
    ends = [client.read_until_closed() for client in clients]
    assert {(end.code, end.reason) for end in ends} == {(1008, "invalid token")}
    return time.monotonic() - began


@pytest.fixture
def start() -> Any:
    with ExitStack() as stack:
        yield lambda url, *options: stack.enter_context(
            serve("--auth", "jwt", "--jwt-secret", SECRET, "--broker", url, *options)
        )


def test_a_server_that_starts_later_knows_what_was_revoked_before(start: Callable[..., Server]) -> None:
    with RedisServer() as redis, ExitStack() as stack:
        one = start(redis.url)
        crowd = [stack.enter_context(talk(one, "/ws", bearer(token("1"))))]
        assert revoke(one, "1") == {"result": {}}
        times = [gone(crowd)]
        late = start(redis.url, "--workers", "2")
        assert is_kept_out(late, "1"), "from the first client on"
        # And whichever is asked, it is so on all: on every worker, and on the supervisor's side of the broker.
        for asked, uid in ((late, "2"), (one, "3")):
            crowd = [
                stack.enter_context(talk(server, "/ws", bearer(token(uid))))
                for server in (one, *[late] * 6)
            ]  # fmt: skip
            bystander = stack.enter_context(talk(late, f"/ws/{uid}", bearer(token("good"))))
            assert revoke(asked, uid) == {"result": {}}
            times.append(gone(crowd))
            assert hears_itself(bystander, b"still here")
            assert is_kept_out(one, uid)
            assert is_kept_out(late, uid)
        for server in (one, late):
            assert "raceback" not in server.log_text()
    print(f"gone {[f'{took:.3f}' for took in times]} s after the answer")
    assert max(times) < PATIENCE * PROMISED


def test_a_redis_that_comes_back_empty_is_told_again(start: Callable[..., Server]) -> None:
    with RedisServer() as redis:
        one, other = start(redis.url), start(redis.url, "--workers", "2")
        assert revoke(one, "1") == {"result": {}}
        wait_until(lambda: is_kept_out(other, "1"))
        redis.kill()
        wait_until(lambda: "error" in revoke(one, "2"))
        assert revoke(other, "2")["error"]["code"] == 100
        assert is_kept_out(one, "1"), "what is known stays in force"
        assert is_kept_out(other, "1")
        lonely = start(redis.url)
        assert status(lonely, token("1")) == 101, "as documented: it knows of nothing"
        wait_until(lambda: "not known yet" in lonely.log_text())
        redis.restart()
        # Each who knows says it again, once they all have found back.
        wait_until(lambda: is_kept_out(lonely, "1"), 30, "who started alone hears of it")
        late = start(redis.url)
        assert is_kept_out(late, "1")
        wait_until(lambda: revoke(late, "2") == {"result": {}})
        wait_until(lambda: all(is_kept_out(server, "2") for server in (one, other, lonely, late)))
        streams = [key for key in redis.ask("KEYS", "*") if b"revoked" in key and b":s:" in key]
        assert [redis.ask("XLEN", key) for key in streams] == [2], "however many have said it"
        for server in (one, other, lonely, late):
            assert "raceback" not in server.log_text()


def test_servers_that_all_start_anew_find_it_in_redis(start: Callable[..., Server]) -> None:
    with RedisServer() as redis:
        one = start(redis.url)
        assert revoke(one, "1") == {"result": {}}
        assert one.terminate() == 0
        assert is_kept_out(start(redis.url), "1")


def test_a_cluster(start: Callable[..., Server]) -> None:
    with RedisCluster() as cluster:
        one = start(cluster.url)
        wait_until(lambda: revoke(one, "1") == {"result": {}})
        late = start(cluster.url)
        assert is_kept_out(late, "1")
        assert revoke(late, "2") == {"result": {}}
        wait_until(lambda: is_kept_out(one, "2"))
