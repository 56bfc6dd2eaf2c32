"""The Centrifuge dialect against a running server, over real sockets: the main paths, and the server's goodbyes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness import Server, serve, wait_until
from tests.lifecycle.asking import Talk, ask, bearer, talk
from tests.speaker import messages, number, part
from tests.wire import BINARY, CLOSE, Read, frame, request, text

PATH = "/connection/websocket"
CONNECT = '{"id":1,"connect":{}}'
SUBSCRIBE = '{"id":2,"subscribe":{"channel":"news"}}'


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve("--history-size", "10", "--open-timeout", "1", "--ping-interval", "1", "--pong-timeout", "1") as running:
        yield running


def heard(client: Talk) -> list[Any]:
    """Read the messages of the next frame that is no ping."""
    while (read := client.read()).payload == b"{}":
        client.send(text("{}"))
    assert read.opcode != CLOSE, read
    return [json.loads(line) for line in read.payload.split(b"\n")]


def goodbye(client: Talk) -> Read:
    """Read over what comes until the close frame, and answer no ping."""
    return client.read_until_closed()


def test_two_clients_talk_and_the_third_speaks_protobuf(server: Server) -> None:
    offer = "Sec-WebSocket-Protocol: centrifuge-protobuf"
    with talk(server, PATH) as alice, talk(server, PATH) as bob, talk(server, PATH, offer) as paul:
        for client in (alice, bob):
            client.send(text(f"{CONNECT}\n{SUBSCRIBE}"))
            connected, subscribed = heard(client)
            assert connected["connect"]["ping"] == 1
            assert subscribed["subscribe"]["positioned"] is True
        paul.send(frame(BINARY, messages(number(1, 1) + part(4, b""), number(1, 2) + part(5, part(1, b"news")))))
        assert paul.read().opcode == BINARY
        alice.send(text('{"id":3,"publish":{"channel":"news","data":{"n":1.10}}}'))
        assert heard(alice) == [{"id": 3, "publish": {}}]
        (push,) = heard(bob)
        assert push["push"]["pub"]["data"] == {"n": 1.1}
        while (read := paul.read()).payload == b"\x00":
            paul.send(frame(BINARY, b"\x00"))
        assert part(4, b'{"n":1.10}') in read.payload


def test_who_comes_back_gets_what_it_missed(server: Server) -> None:
    server.api("publish", {"channel": "log", "data": 0})
    with talk(server, PATH) as alice:
        alice.send(text(CONNECT + '\n{"id":2,"subscribe":{"channel":"log"}}'))
        _, subscribed = heard(alice)
        top = subscribed["subscribe"]
    for data in (1, 2):
        server.api("publish", {"channel": "log", "data": data})
    with talk(server, PATH) as alice:
        back = {"channel": "log", "recover": True, "offset": top["offset"], "epoch": top["epoch"]}
        alice.send(text(CONNECT + "\n" + json.dumps({"id": 2, "subscribe": back})))
        _, subscribed = heard(alice)
        assert subscribed["subscribe"]["recovered"] is True
        assert [publication["data"] for publication in subscribed["subscribe"]["publications"]] == [1, 2]


def test_who_does_not_say_who_it_is(server: Server) -> None:
    with talk(server, PATH) as client:
        end = goodbye(client)
        assert (end.code, end.reason) == (3502, "stale")


def test_who_answers_no_ping(server: Server) -> None:
    with talk(server, PATH) as client:
        client.send(text(f"{CONNECT}\n{SUBSCRIBE}"))
        end = goodbye(client)
        assert (end.code, end.reason) == (3012, "no pong")
    departures = wait_until(
        lambda: [each for each in server.get_json("/debug/disconnects")["disconnects"] if each["code"] == 3012]
    )
    assert (departures[0]["dialect"], departures[0]["channel"]) == ("centrifuge", "news")


def test_who_sends_too_much_at_once(server: Server) -> None:
    with talk(server, PATH) as client:
        client.send(text(CONNECT))
        client.send(text(json.dumps({"id": 2, "publish": {"channel": "news", "data": "x" * 65536}})))
        assert goodbye(client).code == 1009


def test_who_asks_too_much_at_once(server: Server) -> None:
    with talk(server, PATH) as client:
        client.send(text(CONNECT))
        client.send(text("\n".join(["{}"] * 10_000)))
        assert goodbye(client).code == 3501
    with talk(server, PATH) as client:
        client.send(text(CONNECT))
        client.send(text("\n".join(["{}"] * 1000)) * 2)
        assert goodbye(client).code == 3013


def test_a_client_that_never_reads_is_thrown_out() -> None:
    with serve("--write-timeout", "1", "--queue-messages", "100", "--presence", "true") as server:
        with talk(server, PATH) as client:
            client.send(text(f"{CONNECT}\n{SUBSCRIBE}"))
            heard(client)
            for _ in range(200):
                server.api("publish", {"channel": "news", "data": "x" * 60_000})
                if server.metrics()['stentor_connections_closed_total{code="3008"}']:
                    break
            wait_until(lambda: server.metrics()['stentor_connections_closed_total{code="3008"}'], within=20.0)
            assert server.metrics()["stentor_slow_disconnects_total"] == 1
        server.metrics().assert_balanced()


def test_shutdown() -> None:
    with serve() as server:
        with talk(server, PATH) as client, talk(server, PATH) as new:
            client.send(text(CONNECT))
            heard(client)
            server.process.terminate()
            for each in (client, new):
                end = goodbye(each)
                assert (end.code, end.reason) == (3001, "shutdown")
                each.send(frame(CLOSE, end.payload[:2]))
        assert server.process.wait(10.0) == 0


def test_tokens() -> None:
    with serve("--auth", "token", "--tokens", "sesame") as server:
        assert ask(server.port, request(PATH, bearer("barley"))).status == 401
        for token, fields in (("sesame", ()), ("", (bearer("sesame"),))):
            with talk(server, PATH, *fields) as client:
                client.send(text(json.dumps({"id": 1, "connect": {"token": token}})))
                assert "connect" in heard(client)[0]
        with talk(server, PATH) as client:
            client.send(text(json.dumps({"id": 1, "connect": {"token": "barley"}})))
            assert goodbye(client).code == 3500
        assert "barley" not in server.log_text()
