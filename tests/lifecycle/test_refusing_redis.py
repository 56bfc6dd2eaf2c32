"""What a server says of a Redis that answers and refuses: `/readyz`, a metric, two lines; with workers and without."""

from __future__ import annotations

import time

import pytest

from tests.harness import Metrics, Server, serve, wait_until
from tests.redis_server import RedisServer

# What is said within a probe's period, and what a test may take.
WITHIN = 15.0


def lines_of(server: Server) -> list[str]:
    return [line for line in server.log_text().splitlines() if "what is written" in line]


def are_up(metrics: Metrics) -> set[float]:
    return {value for name, value in metrics.items() if name.startswith("stentor_broker_up")}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_redis_that_is_full_is_said_to_be_and_is_over_when_it_is(workers: int) -> None:
    processes = workers if workers == 1 else workers + 1  # the supervisor has its own way to Redis
    with (
        RedisServer() as redis,
        serve("--history-size", "10", "--broker", redis.url, "--workers", str(workers)) as server,
    ):
        wait_until(lambda: server.get("/readyz")[0] == 200, WITHIN)
        assert "error" not in server.api("publish", {"channel": "news", "data": 1})
        redis.ask("CONFIG", "SET", "maxmemory", "1")
        wait_until(lambda: server.get("/readyz")[0] == 503, WITHIN)
        answer = server.get_json("/readyz")
        assert answer["status"] == "degraded"
        assert "it refuses what is written: OOM" in answer["reason"]
        asked = time.monotonic()
        assert server.api("publish", {"channel": "news", "data": 2})["error"]["code"] == 100
        assert time.monotonic() - asked < 2.0
        wait_until(lambda: len(lines_of(server)) == processes, WITHIN, "each says so once")
        assert all("OOM command not allowed" in line for line in lines_of(server))
        assert are_up(server.metrics()) == {0.0}
        redis.ask("CONFIG", "SET", "maxmemory", "0")
        wait_until(lambda: len(lines_of(server)) == 2 * processes, WITHIN, "and that it is over")
        # A worker's supervisor hears of it a moment later.
        wait_until(lambda: server.get("/readyz")[0] == 200, WITHIN)
        assert are_up(server.metrics()) == {1.0}
        assert "error" not in server.api("publish", {"channel": "news", "data": 3})
        assert server.terminate() == 0


@pytest.mark.parametrize("host", ["a..b", "x" * 64])
def test_a_name_that_is_none_is_refused_at_the_start(host: str) -> None:
    with pytest.raises(AssertionError, match="the host is no name"), serve("--broker", f"redis://{host}:6379"):
        pass
