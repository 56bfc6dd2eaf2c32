"""What a client can make the server say at once, over real sockets: no more than may wait for one client."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.forgeries import FUTURE, SECRET, signed
from tests.harness import Server, serve, wait_until
from tests.lifecycle.asking import Talk, talk
from tests.wire import BINARY, CLOSE, frame, text

PATH: Final = "/connection/websocket"
QUEUE_BYTES: Final = 1048576
# What is around the publications of an answer.
ENVELOPE: Final = 8192
LARGE: Final = 60_000
KEPT: Final = 500
CHANNELS: Final = [f"log:{number}" for number in range(20)]
SUBS: Final = [f"c{number}" for number in range(600)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server on which `log:large` has 30 MB and `log:long` 400 publications."""
    options = ("--auth", "jwt", "--jwt-secret", SECRET, "--history-size", "1000", "--presence", "--message-rate", "0")
    with serve(*options, "--max-channels-per-client", "1000", "--write-timeout", "60") as running:
        say(running, "log:large", KEPT, "x" * LARGE)
        say(running, "log:long", 400, 1)
        yield running


def say(server: Server, channel: str, times: int, data: object) -> None:
    for _ in range(times // 20):
        commands = [{"publish": {"channel": channel, "data": data}}] * 20
        replies = server.api("batch", {"commands": commands})["replies"]
        assert all("publish" in reply for reply in replies)


def token(*channels: str) -> str:
    return signed({"sub": "ann", "exp": FUTURE, "channels": channels})


def asks(client: Talk, id: int, **command: Any) -> tuple[Any, int]:
    """Send a command; return the reply, and the bytes of its frame."""
    client.send(text(json.dumps({"id": id, **command})))
    while (read := client.read()).payload == b"{}":
        client.send(text("{}"))
    assert read.opcode != CLOSE, read
    (line,) = read.payload.split(b"\n")
    return json.loads(line), len(read.payload)


@contextlib.contextmanager
def connected(server: Server, *channels: str, subs: dict[str, Any] | None = None) -> Iterator[tuple[Talk, Any, int]]:
    with talk(server, PATH) as client:
        reply, size = asks(client, 1, connect={"token": token(*channels), "subs": subs or {}})
        yield client, reply["connect"], size


def test_a_history_is_given_in_answers_that_are_not_too_large(server: Server) -> None:
    found: list[int] = []
    with connected(server) as (client, _, _):
        while len(found) < KEPT:
            since = {"offset": found[-1] if found else 0}
            reply, size = asks(client, 2, history={"channel": "log:large", "limit": -1, "since": since})
            assert LARGE < size <= QUEUE_BYTES + ENVELOPE
            found += [publication["offset"] for publication in reply["history"]["publications"]]
    assert found == list(range(1, KEPT + 1))


@pytest.mark.parametrize("limit", [-1, 301, 2**31 - 1])
def test_a_history_is_given_in_answers_that_are_not_too_long(server: Server, limit: int) -> None:
    with connected(server) as (client, _, _):
        reply, _ = asks(client, 2, history={"channel": "log:long", "limit": limit})
        assert [publication["offset"] for publication in reply["history"]["publications"]] == list(range(1, 301))
        assert reply["history"]["offset"] == 400
    everything = server.api("history", {"channel": "log:long", "limit": -1})["result"]["publications"]
    assert len(everything) == 400, "the application may read it all at once"


def test_a_recovery_is_not_too_large(server: Server) -> None:
    with connected(server) as (client, _, _):
        for offset, recovered in ((KEPT - 10, True), (KEPT - 20, False)):
            reply, size = asks(client, 2, subscribe={"channel": "log:large", "recover": True, "offset": offset})
            assert reply["subscribe"].get("recovered", False) is recovered
            assert size <= QUEUE_BYTES + ENVELOPE
            asks(client, 3, unsubscribe={"channel": "log:large"})


def test_what_many_channels_recover_in_one_reply_is_not_too_large(server: Server) -> None:
    for channel in CHANNELS:
        say(server, channel, 20, "x" * 10_000)
    back = {channel: {"recover": True} for channel in CHANNELS}
    with connected(server, *CHANNELS, subs=back) as (_, result, size):
        recovered = [channel for channel in CHANNELS if result["subs"][channel].get("recovered")]
        assert len(recovered) == QUEUE_BYTES // (20 * 10_050)
        assert size <= QUEUE_BYTES + ENVELOPE
        for channel in set(CHANNELS) - set(recovered):
            sub = result["subs"][channel]
            assert (sub["was_recovering"], sub["offset"], "publications" in sub) == (True, 20, False)


QUESTIONS: Final[dict[str, list[dict[str, Any]]]] = {
    "history": [{"history": {"channel": "log:large", "limit": -1}}],
    "recovery": [
        {"subscribe": {"channel": "log:large", "recover": True, "offset": KEPT - 15}},
        {"unsubscribe": {"channel": "log:large"}},
    ],
    "presence": [{"presence": {"channel": "hall"}}],
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_clients_that_do_not_read_what_they_ask_for_do_not_fill_the_memory(server: Server, question: str) -> None:
    times, commands = 100, QUESTIONS[question]
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            guest = stack.enter_context(talk(server, PATH))
            info = {"sub": "guest", "exp": FUTURE, "channels": ["hall"], "info": {"about": "x" * 4000}}
            asks(guest, 1, connect={"token": signed(info)})
        clients = [stack.enter_context(connected(server))[0] for _ in range(10)]
        before = server.rss()
        for client in clients:
            lines = [json.dumps({"id": id, **command}) for id in range(2, 2 + times) for command in commands]
            client.send(b"".join(map(text, lines)))
        wait_until(lambda: server.metrics()["stentor_lagging_clients"] >= len(clients))
        assert server.rss() - before < len(clients) * 2 * QUEUE_BYTES + 30 * 2**20
        # Whoever reads gets it all.
        answered = 0
        while answered < times * len(commands):
            read = clients[0].read()
            assert read.opcode != CLOSE, read
            lines = [json.loads(line) for line in read.payload.split(b"\n")]
            answered += sum("id" in line and "error" not in line for line in lines)


def test_as_many_channels_as_a_client_may_have_come_back_with_it(server: Server) -> None:
    with connected(server, *SUBS) as (_, result, _):
        back = {
            channel: {"recover": True, "epoch": sub["epoch"], "offset": 0} for channel, sub in result["subs"].items()
        }
    with connected(server, *SUBS, subs=back) as (_, result, _):
        assert len(result["subs"]) == len(SUBS)
        assert all(sub["recovered"] for sub in result["subs"].values())


def test_an_unknown_kind_of_delta_ends_the_connection(server: Server) -> None:
    with connected(server) as (client, _, _):
        client.send(text('{"id":2,"subscribe":{"channel":"log:long","delta":"vcdiff"}}'))
        end = client.read_until_closed()
        assert (end.code, end.reason) == (3501, "bad request")


def test_a_user_with_a_long_name_can_be_sent_away(server: Server) -> None:
    name = "u" * 1000
    with talk(server, PATH) as client:
        asks(client, 1, connect={"token": signed({"sub": name, "exp": FUTURE})})
        assert server.api("disconnect", {"user": name}) == {"result": {}}
        assert client.read_until_closed().code == 3503
        client.send(frame(BINARY, b""))


@pytest.mark.parametrize("limit", [2**31, 2**63, 2**64 - 1, 2**64])
def test_a_number_that_is_too_large_is_a_bad_request_to_the_server_api(server: Server, limit: int) -> None:
    history = {"history": {"channel": "log:long", "limit": limit}}
    good = {"publish": {"channel": "elsewhere", "data": 1}}
    first, second, third = server.api("batch", {"commands": [good, history, good]})["replies"]
    assert second["error"]["code"] == 107
    assert (first["publish"]["offset"], third["publish"]["offset"]) == (
        third["publish"]["offset"] - 1,
        first["publish"]["offset"] + 1,
    )
    assert "Traceback" not in server.log_text()


def test_a_request_to_the_server_api_may_not_be_too_large(server: Server) -> None:
    told = server.api("publish", {"channel": "elsewhere", "data": "x" * 4 * 2**20})
    assert told == {"error": {"code": 107, "message": "the request is larger than 4194304 bytes"}}
