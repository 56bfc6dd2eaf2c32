"""The raw dialect through the real port: what one says, all on the channel hear, byte for byte; nobody else does."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.harness import REPOSITORY, Server, serve, wait_until
from tests.lifecycle.asking import Talk, talk
from tests.wire import BINARY, CONT, PING, PONG, TEXT, frame, text


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture
def clients(server: Server) -> Iterator[list[Talk]]:
    """Three on one channel."""
    with ExitStack() as stack:
        yield [stack.enter_context(talk(server, "/ws/common")) for _ in range(3)]


MESSAGES: dict[str, tuple[int, bytes]] = {
    "words": (TEXT, b"hello"),
    "nothing": (TEXT, b""),
    "nothing, binary": (BINARY, b""),
    "every byte": (BINARY, bytes(range(256))),
    "letters of the world": (TEXT, "Grüße, 世界, привет, 🎺👩‍👩‍👧".encode()),
    "a NUL and controls": (TEXT, b"a\x00b\x1b[31m\r\n\x7f"),
    "JSON, which stays as it is": (TEXT, b'{ "b":1,\n"a" :2.50 }'),
    "what is no JSON": (TEXT, b"{"),
    "125 bytes": (TEXT, b"a" * 125),
    "126 bytes": (BINARY, b"a" * 126),
    "65,535 bytes": (BINARY, random.Random(1).randbytes(65535)),
    "65,536 bytes": (TEXT, b"a" * 65536),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_all_hear_it_byte_for_byte_the_sender_too(clients: list[Talk], case: str) -> None:
    opcode, payload = MESSAGES[case]
    clients[1].send(frame(opcode, payload))
    assert [client.read() for client in clients] == [(opcode, payload)] * 3


def test_the_order_of_a_speaker_is_kept_in_text_and_binary(clients: list[Talk]) -> None:
    said = [(TEXT if number % 2 else BINARY, b"%d" % number) for number in range(200)]
    clients[0].send(b"".join(frame(*message) for message in said))
    for client in clients:
        assert [client.read() for _ in said] == said


def test_all_hear_several_speakers_in_one_order(clients: list[Talk]) -> None:
    for number in range(50):
        for speaker, client in enumerate(clients):
            client.send(text(f"{speaker} {number}"))
    heard = [[client.read().payload for _ in range(150)] for client in clients]
    assert heard[0] == heard[1] == heard[2]
    for speaker in range(3):
        of_one = [payload for payload in heard[0] if payload.startswith(b"%d " % speaker)]
        assert of_one == [b"%d %d" % (speaker, number) for number in range(50)]


def test_fragments_come_whole_with_a_ping_between_them(clients: list[Talk]) -> None:
    clients[0].send(frame(TEXT, "grü".encode()[:3], fin=False) + frame(PING, b"now?"))
    assert clients[0].read() == (PONG, b"now?")
    clients[0].send(frame(CONT, "grü".encode()[3:], fin=False) + frame(CONT, "ße".encode()))
    assert [client.read() for client in clients] == [(TEXT, "grüße".encode())] * 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/ws", "/ws/main"),
        ("/ws/a", "/ws/%61"),
        ("/ws/gr%C3%BC%C3%9Fe", "/ws/gr%c3%bc%c3%9fe"),
        ("/ws/a/b", "/ws/a%2Fb"),
        ("/ws/a?x=y", "/ws/a"),
        ("/ws/%25", "/ws/%25"),
        ("/ws/a+b", "/ws/a%2Bb"),
    ],
)
def test_one_channel_by_two_names(server: Server, one: str, other: str) -> None:
    with talk(server, one) as speaker, talk(server, other) as listener:
        speaker.send(text("to us"))
        assert listener.read().payload == speaker.read().payload == b"to us"


@pytest.mark.parametrize("name", ["grüße", "世界", "🎺", "a:b#c,d", "%", "..", "a/../b", "'\"<script>", "é" * 128])
def test_a_channel_of_any_name(server: Server, name: str) -> None:
    with talk(server, f"/ws/{quote(name, safe='')}") as speaker, talk(server, "/ws/elsewhere") as elsewhere:
        speaker.send(text("here"))
        assert speaker.read().payload == b"here"
        assert server.api("publish", {"channel": name, "data": "by the API"}) == {"result": {}}
        assert speaker.read().payload == b"by the API"
        elsewhere.send(text("the first that is heard here"))
        assert elsewhere.read().payload == b"the first that is heard here"


@pytest.mark.parametrize(
    ("one", "other"),
    [("/ws/a", "/ws/b"), ("/ws/a", "/ws/A"), ("/ws/a", "/ws/a/"), ("/ws/é", "/ws/e\u0301"), ("/ws/a", "/echo")],
)
def test_two_channels_are_apart(server: Server, one: str, other: str) -> None:
    one, other = quote(one), quote(other)
    with talk(server, one) as here, talk(server, other) as there:
        here.send(text("here"))
        assert here.read().payload == b"here"
        there.send(text("there"))
        assert there.read().payload == b"there"
        here.send(text("here again"))
        assert here.read().payload == b"here again"


def test_the_echo_is_for_each_alone(server: Server) -> None:
    before = server.metrics()["stentor_messages_published_total"]
    with talk(server, "/echo") as one, talk(server, "/echo") as other:
        for opcode, payload in MESSAGES.values():
            one.send(frame(opcode, payload))
            assert one.read() == (opcode, payload)
        other.send(text("mine"))
        assert other.read().payload == b"mine"
    assert server.metrics()["stentor_messages_published_total"] == before, "it takes part in no channel"


def test_who_has_left_is_on_no_channel(server: Server) -> None:
    with talk(server, "/ws/leaving"):
        wait_until(lambda: server.metrics()["stentor_channels"] >= 1)
    wait_until(lambda: server.metrics()["stentor_subscriptions"] == 0)
    assert server.metrics()["stentor_channels"] == 0
    before = server.metrics()["stentor_messages_offered_total"]
    server.api("publish", {"channel": "leaving", "data": "is anybody there"})
    assert server.metrics()["stentor_messages_offered_total"] == before


@pytest.mark.scenario
def test_lines_through_the_command_line(server: Server, tmp_path: Path) -> None:
    """``vmstat 1 | stentor publish`` at one end and ``stentor listen | head`` at the other."""
    lines = [f"line {number} grüße".encode() for number in range(500)]
    program = [sys.executable, "-m", "server"]
    where = ["--channel", "pipes", "--url", server.websocket_url]
    # Not where a configuration file may lie.
    place: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(REPOSITORY)}}
    listener = subprocess.Popen(
        [*program, "listen", *where, "--count", str(len(lines))], stdout=subprocess.PIPE, **place
    )
    try:
        wait_until(lambda: server.metrics()["stentor_channels"] >= 1, what="the listener is there")
        done = subprocess.run(
            [*program, "publish", *where], input=b"\n".join(lines), timeout=60, capture_output=True, **place
        )
        assert (done.returncode, done.stderr) == (0, b"")
        heard, _ = listener.communicate(timeout=60)
    finally:
        listener.kill()
        listener.wait()
    assert heard.splitlines() == lines
    assert listener.returncode == 0
