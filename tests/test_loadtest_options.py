from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from loadtest.options import OPTIONS, BadOption, NodeAddress, Options, as_given, declare, masked, seconds, swarm_size
from tests.engine import parsed


def options(**values: Any) -> Options:
    return Options.of(parsed(url="ws://127.0.0.1:8000", **values))


def test_the_defaults_make_a_run() -> None:
    run = options()
    assert (run.subscribers, run.rate, run.duration, run.publications) == (100, 10.0, 10.0, 100)
    assert run.url == "ws://127.0.0.1:8000/ws/{channel}"
    assert run.channel(3) == "loadtest-ab12-3"
    assert options(channel_prefix="c:").channel(3) == "c:3"


def test_a_server_of_several_nodes_has_several_addresses() -> None:
    run = Options.of(parsed(url="ws://a:1 ws://b:2", metrics="http://a/metrics http://b/metrics", server_pid="7 8"))
    assert run.nodes == (
        NodeAddress("ws://a:1/ws/{channel}", "http://a/metrics", 7),
        NodeAddress("ws://b:2/ws/{channel}", "http://b/metrics", 8),
    )
    assert run.url == "ws://a:1/ws/{channel} ws://b:2/ws/{channel}"
    assert [run.make_dialect(node).target(["x"]).host for node in range(2)] == ["a", "b"]
    assert options().nodes == (NodeAddress("ws://127.0.0.1:8000/ws/{channel}", "", 0),)


@pytest.mark.parametrize("nodes", [1, 2, 3])
@pytest.mark.parametrize(("channels", "per_client"), [(1, 1), (2, 1), (3, 1), (4, 2), (6, 1), (6, 4)])
def test_clients_take_turns_at_the_nodes_and_so_do_those_of_each_channel(
    nodes: int, channels: int, per_client: int
) -> None:
    urls = " ".join(f"ws://h{number}/{{channel}}" for number in range(nodes))
    run = Options.of(parsed(url=urls, channels=channels, per_client=per_client))
    assert [run.node_of(number) for number in range(nodes)] == list(range(nodes))
    at = Counter(run.node_of(number) for number in range(360))
    assert set(at.values()) == {360 // nodes}
    parts = Counter((run.node_of(number), channel) for number in range(360) for channel in run.channels_of(number))
    assert set(parts.values()) == {360 * per_client // channels // nodes}


def test_locusts_host_stands_in_for_the_url() -> None:
    assert Options.of(parsed(), "ws://h:1").url == "ws://h:1/ws/{channel}"


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"url": ""}, "URL= is missing: ws://host:port of the server to load"),
        ({"url": "ftp://h"}, "URL=ftp://h: ftp://h/ws/x isn't a valid URI: scheme isn't ws or wss"),
        ({"size": 48}, "SIZE=48: a payload takes 49 to 1048576 bytes"),
        ({"subscribers": 0}, "USERS=0: 1 to 1000000 are possible"),
        ({"rate": 0.0}, "RATE=0.0: 0.001 to 1000000 are possible"),
        ({"per_client": 3, "channels": 2}, "PER_CLIENT=3: 1 to 2 are possible"),
        ({"channels": 100_001}, "CHANNELS=100001: 1 to 100000 are possible"),
        ({"publishers": 1001}, "PUBLISHERS=1001: 1 to 1000 are possible"),
        ({"stalled": -1}, "STALLED=-1: 0 to 100000 are possible"),
        ({"slow_bps": 0}, "SLOW_BPS=0: 1 to 1073741824 are possible"),
        ({"flapping": -1.0}, "FLAPPING=-1.0: 0 to 10000 are possible"),
        ({"shape": "wave"}, "SHAPE=wave: there are ramp, step, spike, soak"),
        ({"shape": "ramp", "publish_time": "0"}, "SHAPE= needs a TIME= to shape"),
        ({"publish_time": "2s", "warmup": 2.0}, "WARMUP=2: nothing is left of 2 s"),
        ({"publish_time": "soon"}, "TIME=soon: write 30s, 5m or 1h30m"),
        ({"url": "ws://h/chat", "channels": 2}, "CHANNELS= needs a URL with {channel} in it"),
        ({"dialect": "mqtt"}, "DIALECT=mqtt: there are raw and centrifuge"),
        (
            {"url": "ws://a ws://b", "metrics": "http://a"},
            "METRICS=http://a: one for each of the 2 in URL= is needed",
        ),
        ({"url": "ws://a ws://b", "server_pid": "1 2 3"}, "SERVER_PID=1 2 3: one for each of the 2 in URL= is needed"),
        ({"server_pid": "me"}, "SERVER_PID=me: a whole number is needed"),
        ({"url": "ws://a/{channel} ws://b/chat", "channels": 2}, "CHANNELS= needs a URL with {channel} in it"),
        (
            {"dialect": "centrifuge", "url": "ws://h/{channel}"},
            "URL=ws://h/{channel}: in the centrifuge dialect no channel is part of it",
        ),
    ],
)
def test_what_makes_no_run_is_refused_in_one_line(values: dict[str, Any], why: str) -> None:
    with pytest.raises(BadOption) as caught:
        Options.of(parsed(**{"url": "ws://127.0.0.1:8000", **values}))
    assert str(caught.value) == why


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("45", 45), ("30s", 30), ("1.5m", 90), ("1h30m", 5400), (" 2M ", 120)]
)
def test_a_duration_is_read(text: str, value: float) -> None:
    assert seconds(text) == value


def test_no_duration_means_until_stopped() -> None:
    run = options(publish_time="0")
    assert (run.duration, run.publications) == (None, None)


@pytest.mark.parametrize(("users", "channels", "each"), [(10, 5, 1), (10, 5, 3), (7, 3, 2)])
def test_channels_fill_evenly(users: int, channels: int, each: int) -> None:
    run = options(subscribers=users, channels=channels, per_client=each)
    counts = [0] * channels
    for subscriber in range(users):
        mine = run.channels_of(subscriber)
        assert len(set(mine)) == each
        for channel in mine:
            counts[channel] += 1
    assert max(counts) - min(counts) <= 1
    assert run.connections == users * each


def test_a_client_of_the_centrifuge_dialect_has_one_connection() -> None:
    run = options(dialect="centrifuge", subscribers=10, channels=5, per_client=3, publishers=2)
    assert run.url == "ws://127.0.0.1:8000/connection/websocket"
    assert (run.connections_per_client, run.connections, run.subscriptions) == (1, 10, 30)
    raw = options(subscribers=10, channels=5, per_client=3, publishers=2)
    assert (raw.connections_per_client, raw.connections, raw.subscriptions) == (3, 30, 35)


@pytest.mark.parametrize(
    ("subscribers", "processes", "size"),
    [(100, 1, 100), (2000, 1, 100), (2000, 30, 50), (97, 1, 97), (1009, 1, 1), (1, 4, 1)],
)
def test_swarms_divide_the_subscribers_without_a_remainder(subscribers: int, processes: int, size: int) -> None:
    assert swarm_size(subscribers, processes) == size
    assert subscribers % size == 0


def test_as_many_deliveries_are_timed_as_asked_for() -> None:
    assert options(subscribers=100, rate=50.0).timed_every(1) == 1
    assert options(subscribers=1000, rate=1000.0).timed_every(1) == 53
    assert options(subscribers=1000, rate=1000.0).timed_every(2) == 29
    assert options(subscribers=1000, rate=1000.0, channels=1000).timed_every(1) == 1


def test_options_are_kept_as_given_but_secrets_are_not() -> None:
    given = as_given(parsed(token="secret", rate=7.0))
    assert (given["token"], given["rate"]) == ("***", 7.0)
    assert as_given(parsed())["token"] == ""
    assert as_given(parsed(url="ws://h/x?a=1&token=abc&b=2"))["url"] == "ws://h/x?a=1&token=***&b=2"
    assert masked("ws://user:pass@h/x", "") == "ws://user:***@h/x"
    assert masked("ws://127.0.0.1:8000/ws/{channel}", "") == "ws://127.0.0.1:8000/ws/{channel}"
    assert masked("--token=secret", "secret") == "--token=***"
    assert set(given) == {option.key for option in OPTIONS}


def test_every_option_is_declared_with_its_variable() -> None:
    class Parser:
        def __init__(self) -> None:
            self.declared: dict[str, dict[str, Any]] = {}

        def add_argument(self, flag: str, **settings: Any) -> None:
            self.declared[flag] = settings

    parser = Parser()
    declare(parser)
    for variable in ("URL", "USERS", "RATE", "SIZE", "TIME", "CHANNELS", "PER_CLIENT", "STALLED", "SLOW", "FLAPPING"):
        assert variable in {settings.get("env_var") for settings in parser.declared.values()}
    assert parser.declared["--token"]["is_secret"] is True
    assert parser.declared["--run-id"]["include_in_web_ui"] is False
