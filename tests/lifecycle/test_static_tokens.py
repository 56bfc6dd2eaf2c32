"""Tokens from a list, through the real port; and clients that may not publish."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness import Server, serve
from tests.lifecycle.asking import ask, bearer, talk
from tests.wire import request, text


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve("--auth", "token", "--tokens", "first-token", "--tokens", "second/token+=") as running:
        yield running


@pytest.mark.parametrize(
    "words",
    [
        request("/ws", bearer("first-token")),
        request("/echo", bearer("second/token+=")),
        request("/ws/a", "authorization: bearer   first-token "),
        request("/ws?token=first-token"),
        request("/ws?a=b&token=second%2Ftoken%2B%3D"),
        # The header counts, and nothing else is looked at.
        request("/ws?token=wrong", bearer("first-token")),
    ],
)
def test_a_good_token_opens(server: Server, words: bytes) -> None:
    assert ask(server.port, words).status == 101


@pytest.mark.parametrize(
    "words",
    [
        request("/ws"),
        request("/echo"),
        request("/ws?token="),
        request("/ws", bearer("")),
        request("/ws", bearer("first-toke")),
        request("/ws", bearer("first-tokenn")),
        request("/ws", bearer("FIRST-TOKEN")),
        request("/ws", bearer("first-token, second/token+=")),
        request("/ws", "Authorization: Basic first-token"),
        request("/ws", "Authorization: first-token"),
        request("/ws", bearer("first-token"), bearer("first-token")),
        request("/ws?token=first-token", bearer("wrong")),
        request("/ws?token=first-token&token=second/token"),
        request("/ws?token=first-token%00"),
        request("/ws", "Cookie: token=first-token"),
        request("/ws", bearer("first-token\xff")),
    ],
)
def test_anything_else_is_refused_in_one_sentence(server: Server, words: bytes) -> None:
    refused = ask(server.port, words)
    assert refused.status == 401
    assert refused.fields["www-authenticate"] == "Bearer"
    assert refused.body in (b"A token is needed.\n", b"The token is not valid.\n")


def test_what_needs_no_token(server: Server) -> None:
    assert ask(server.port, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").status == 200
    assert ask(server.port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").status == 200


def test_refusals_are_counted(server: Server) -> None:
    key = 'stentor_connections_rejected_total{reason="credentials"}'
    before = server.metrics()[key]
    assert ask(server.port, request("/ws")).status == 401
    assert server.metrics()[key] == before + 1


def test_clients_may_only_listen_where_they_may_not_publish() -> None:
    with serve("--publish", "false") as server:
        with talk(server, "/ws/news") as listener, talk(server, "/ws/news") as speaker:
            speaker.send(text("listen to me"))
            assert speaker.read_until_closed().code == 1008
            server.api("publish", {"channel": "news", "data": "the news"})
            assert listener.read().payload == b"the news"
        assert server.metrics()["stentor_messages_published_total"] == 1
