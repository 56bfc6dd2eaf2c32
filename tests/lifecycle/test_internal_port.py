"""The internal port as its users see it: health, the debug pages, and the server API."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness import Server, http, serve, wait_until
from tests.lifecycle.asking import ask, talk
from tests.lifecycle.crowd import connect, connect_many, publishing, until
from tests.wire import BINARY, TEXT, close, request

KEY = "a-key-for-the-server-API"
BAD_REQUEST = 107


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


def call(server: Server, command: str, body: bytes, **headers: str) -> tuple[int, Any]:
    """Call the server API with a body as it is; return the status, and the reply if it is JSON."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    status, said = http("POST", f"{server.internal_url}/api/{command}", body, fields)
    return status, json.loads(said) if said.startswith(b"{") else said


def test_health_and_readiness(server: Server) -> None:
    assert server.get("/healthz") == (200, b"ok\n")
    assert server.get_json("/readyz")["status"] == "ready"
    assert server.get("/readyz")[0] == 200
    assert server.get("/nothing")[0] == 404
    assert http("POST", f"{server.internal_url}/metrics", b"")[0] == 405


def test_the_public_port_serves_none_of_it(server: Server) -> None:
    for path in ("/metrics", "/readyz", "/debug/slow", "/debug/disconnects", "/api/publish"):
        assert http("GET", f"{server.url}{path}")[0] == 404
        assert ask(server.port, request(path)).status == 404


def test_disconnects(server: Server) -> None:
    for code in (1000, 4321):
        with talk(server, "/ws/leaving") as client:
            client.send(close(code, "a reason of the client's own"))
            client.read_until_closed()
    newest = wait_until(lambda: latest(server, "leaving", 2))
    assert [entry["code"] for entry in newest] == [4321, 1000], "the newest first"
    assert set(newest[0]) == {
        "at", "address", "client", "dialect", "channel", "code", "reason", "queue_messages", "queue_bytes",
        "queue_age_seconds", "connected_seconds", "rtt_seconds", "loop_lag_seconds",
    }  # fmt: skip
    assert newest[0]["address"] == "127.0.0.1"
    assert newest[0]["dialect"] == "raw"
    assert newest[0]["reason"] == "closed by the client", "what a client wrote is not repeated"
    assert 0 <= newest[0]["connected_seconds"] < 60
    assert len(server.get_json("/debug/disconnects?limit=1")["disconnects"]) == 1
    assert server.get_json("/debug/disconnects?limit=0")["disconnects"] == []
    assert server.get("/debug/disconnects?limit=-1")[0] == 400
    assert server.get("/debug/disconnects?limit=all")[0] == 400


def latest(server: Server, channel: str, count: int) -> list[dict[str, Any]]:
    entries = [e for e in server.get_json("/debug/disconnects")["disconnects"] if e["channel"] == channel]
    return entries[:count] if len(entries) >= count else []


async def test_slow_clients() -> None:
    with serve("--queue-messages", "100000", "--queue-bytes", "64MiB") as server:
        assert server.get_json("/debug/slow") == {"clients": []}
        stalled = await connect_many(3, server.port, "/ws/slow", receive_buffer=4096)
        for client in stalled:
            client.stop_reading()
        keeping_up = await connect(server.port, "/ws/slow")
        async with publishing(server, "/ws/slow", rate=100, size=16_000) as publisher:
            await until(lambda: publisher.said >= 100)
            await asyncio.to_thread(wait_until, lambda: server.metrics()["stentor_lagging_clients"] == 3)
            clients = (await asyncio.to_thread(server.get_json, "/debug/slow"))["clients"]
        assert len(keeping_up.heard) > 50
    assert len(clients) == 3
    assert clients == sorted(clients, key=lambda client: -client["queue_bytes"]), "the longest queue first"
    for client in clients:
        assert client["channel"] == "slow"
        assert client["queue_messages"] > 0
        assert client["queue_bytes"] >= 16_000 * client["queue_messages"]
        assert client["queue_age_seconds"] > 0
        assert client["why"].startswith(("has read nothing for", "reads more slowly"))


class TestServerApi:
    def test_publish(self, server: Server) -> None:
        data: list[tuple[Any, bytes]] = [
            ("words as they are", b"words as they are"),
            ({"a": [1, 2.5, None, True]}, b'{"a": [1, 2.5, null, true]}'),
            (None, b"null"),
            ("", b""),
            ("grüße 🎺", "grüße 🎺".encode()),
        ]
        with talk(server, "/ws/api") as listener:
            for value, payload in data:
                assert server.api("publish", {"channel": "api", "data": value}) == {"result": {}}
                assert listener.read() == (TEXT, payload)
            encoded = base64.b64encode(bytes(range(256))).decode()
            assert server.api("publish", {"channel": "api", "b64data": encoded}) == {"result": {}}
            assert listener.read() == (BINARY, bytes(range(256)))

    def test_broadcast(self, server: Server) -> None:
        with talk(server, "/ws/one") as one, talk(server, "/ws/two") as two, talk(server, "/ws/three") as three:
            reply = server.api("broadcast", {"channels": ["one", "two", "nobody"], "data": "to both"})
            assert reply == {"result": {"responses": [{"result": {}}, {"result": {}}, {"result": {}}]}}
            assert one.read() == two.read() == (TEXT, b"to both")
            server.api("publish", {"channel": "three", "data": "to the third"})
            assert three.read() == (TEXT, b"to the third")

    @pytest.mark.parametrize(
        ("command", "body"),
        [
            ("publish", b""),
            ("publish", b"not JSON"),
            ("publish", b'{"channel": "a", "data": 1'),
            ("publish", b'{"channel": "a", "data": NaN}'),
            ("publish", b"[1, 2]"),
            ("publish", b"null"),
            ("publish", b"\xff\xfe"),
            ("publish", b"{}"),
            ("publish", b'{"channel": "a"}'),
            ("publish", b'{"data": 1}'),
            ("publish", b'{"channel": "", "data": 1}'),
            ("publish", b'{"channel": 7, "data": 1}'),
            ("publish", b'{"channel": null, "data": 1}'),
            ("publish", b'{"channel": "a b", "data": 1}'),
            ("publish", b'{"channel": "a\\u0000", "data": 1}'),
            ("publish", b'{"channel": "a\\ud800", "data": 1}'),
            ("publish", json.dumps({"channel": "a" * 129, "data": 1}).encode()),
            ("publish", json.dumps({"channel": "a", "data": "a" * 65537}).encode()),
            ("publish", b'{"channel": "a", "b64data": "not base64!"}'),
            ("publish", b'{"channel": "a", "b64data": 7}'),
            ("publish", b'{"channel": "a", "data": ' + b"[" * 3000 + b"]" * 3000 + b"}"),
            ("broadcast", b'{"data": 1}'),
            ("broadcast", b'{"channels": [], "data": 1}'),
            ("broadcast", b'{"channels": "a", "data": 1}'),
            ("broadcast", b'{"channels": ["a", 7], "data": 1}'),
            ("broadcast", b'{"channels": ["a"]}'),
        ],
    )
    def test_a_bad_request_is_an_error_reply(self, server: Server, command: str, body: bytes) -> None:
        before = server.metrics()["stentor_messages_published_total"]
        status, reply = call(server, command, body)
        assert status == 200
        assert set(reply) == {"error"}
        assert reply["error"]["code"] == BAD_REQUEST
        assert reply["error"]["message"]
        assert server.metrics()["stentor_messages_published_total"] == before
        assert "Traceback" not in server.log_text()

    def test_as_large_as_may_be(self, server: Server) -> None:
        with talk(server, "/ws/large") as listener:
            assert server.api("publish", {"channel": "large", "data": "a" * 65536}) == {"result": {}}
            assert len(listener.read().payload) == 65536

    def test_far_too_large(self, server: Server) -> None:
        status, reply = call(server, "publish", b'{"channel": "a", "data": "' + b"a" * 5_000_000 + b'"}')
        assert (status, reply["error"]["code"]) == (200, 107)
        assert server.get("/healthz")[0] == 200

    def test_an_unknown_command(self, server: Server) -> None:
        assert call(server, "destroy", b"{}")[0] == 404

    def test_it_is_asked_by_post(self, server: Server) -> None:
        assert server.get("/api/publish")[0] == 405

    def test_a_web_page_may_not_use_it(self, server: Server) -> None:
        body = b'{"channel": "a", "data": 1}'
        assert call(server, "publish", body, Origin="http://127.0.0.1:8000")[0] == 403
        assert call(server, "publish", body, Origin="null")[0] == 403
        assert call(server, "publish", body, Host="evil.example")[0] == 403

    def test_a_program_that_sends_a_key_that_nobody_asks_for(self, server: Server) -> None:
        assert call(server, "publish", b'{"channel": "a", "data": 1}', X_API_Key="any")[0] == 200


@pytest.mark.parametrize("options", [(), ("--internal-host", "0.0.0.0")], ids=["loopback", "every address"])
def test_with_a_key_nothing_else_opens_it(options: tuple[str, ...]) -> None:
    body = b'{"channel": "a", "data": 1}'
    with serve(*options, env={"STENTOR_API_KEY": KEY}) as server:
        assert call(server, "publish", body, X_API_Key=KEY) == (200, {"result": {}})
        assert call(server, "publish", body, X_API_Key=KEY, Origin="http://evil.example")[0] == 200
        assert call(server, "publish", body)[0] == 401
        for wrong in ("", KEY[:-1], KEY + "a", KEY.upper()):
            assert call(server, "publish", body, X_API_Key=wrong)[0] == 401
        assert call(server, "publish", body, Authorization=f"Bearer {KEY}")[0] == 401
        assert server.metrics()["stentor_messages_published_total"] == 2
        assert server.get("/metrics")[0] == 200


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_name_that_was_pointed_at_us_reads_nothing_with_a_key_as_without_one(workers: str) -> None:
    """DNS rebinding: a page of evil.example whose name now means 127.0.0.1 asks us from a browser on this machine."""
    forged, paths = {"Host": "evil.example:9000"}, ("/metrics", "/debug/slow", "/debug/disconnects", "/readyz", "/")
    for key in (KEY, ""):
        with serve("--workers", workers, env={"STENTOR_API_KEY": KEY} if key else {}) as server:
            for path in paths:
                assert server.get(path, forged) == (403, b"This port is for this machine.\n"), path
                assert server.get(path, {"Host": "localhost"})[0] == server.get(path)[0] != 403
            wrong = forged | {"X-API-Key": f"{KEY}a"}
            assert {server.get(path, wrong)[0] for path in paths} == {403}
            # Whoever has the key is no stranger's page: a proxy on this machine, with a name of its own.
            assert server.get("/metrics", forged | {"X-API-Key": KEY})[0] == (200 if key else 403)
            assert call(server, "channels", b"{}", Host="evil.example")[0] == 403
            assert call(server, "channels", b"{}", Host="evil.example", X_API_Key=KEY)[0] == (200 if key else 403)


def test_who_opens_the_port_to_others_lets_it_have_any_name() -> None:
    with serve("--internal-host", "0.0.0.0", env={"STENTOR_API_KEY": KEY}) as server:
        assert server.get("/metrics", {"Host": "stentor.internal:9000"})[0] == 200


def test_without_a_key_it_is_closed_on_a_port_that_others_reach() -> None:
    with serve("--internal-host", "0.0.0.0") as server:
        assert call(server, "publish", b'{"channel": "a", "data": 1}')[0] == 403
        assert server.get("/metrics")[0] == 200
        assert server.metrics()["stentor_messages_published_total"] == 0


def test_a_congested_channel_holds_its_publishers() -> None:
    """A megabyte comes together before the next flush: whoever publishes more than that waits, and nothing is lost."""
    count, slowest = 40, 0.0
    options = ("--batch-delay", "500ms", "--queue-messages", "1000", "--queue-bytes", "64MiB")
    with serve(*options) as server, talk(server, "/ws/busy") as listener:
        for number in range(count):
            start = time.monotonic()
            reply = server.api("publish", {"channel": "busy", "data": f"{number:08d}" + "." * 60_000})
            slowest = max(slowest, time.monotonic() - start)
            assert reply == {"result": {}}
        heard = [int(listener.read().payload[:8]) for _ in range(count)]
    assert slowest > 0.1, "nobody was made to wait: nothing is proven"
    assert heard == list(range(count))
