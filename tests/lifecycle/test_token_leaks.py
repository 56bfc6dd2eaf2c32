"""A token is never seen again: not in the log, the metrics, the debug pages, an answer or a close reason."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import jwt

from tests.harness import Server, http, serve
from tests.lifecycle.asking import ask, bearer, talk
from tests.wire import Answer, request, text


class Leaks:
    """Looks for words that must not be seen again in whatever a server says."""

    def __init__(self, *words: str) -> None:
        self._words = words

    def in_text(self, where: str, said: str) -> list[str]:
        return [f"{word} in {where}" for word in self._words if re.search(re.escape(word), said, re.IGNORECASE)]

    def in_answer(self, where: str, got: Answer) -> list[str]:
        return self.in_text(where, f"{got.fields} {got.body!r}")


def test_a_token_is_never_seen_again() -> None:
    good, bad, key = "canary-good-5f2c", "canary-bad-91be", "canary-key-77aa"
    body = jwt.encode({"sub": "alice", "exp": time.time() + 60}, "a secret of thirty-two bytes, and more")
    leaks = Leaks(good, bad, key, body, body.split(".")[2])
    found: list[str] = []
    with serve("--auth", "token", "--tokens", good, "--api-key", key, "--log-level", "debug") as server:
        for path, fields in (
            ("/ws", (bearer(good),)),
            (f"/ws?token={good}", ()),
            ("/ws", (bearer(bad),)),
            (f"/ws?token={bad}", ()),
            (f"/ws?token={body}", ()),
            (f"/ws?token={bad}&token={good}", ()),
            (f"/nope?token={bad}", ()),
            (f"/ws/%ff?token={bad}", ()),
            (f"/ws?token={bad}", ("Origin: http://evil.example",)),
            (f"/ws?token={good}", ("Sec-WebSocket-Version: 8",)),
            (f"/ws?token={good}", ("Content-Length: 7",)),
            (f"/ws?token={good}" + "a" * 9000, ()),
            ("/ws", (f"Authorization: Bearer {good}" + "a" * 9000,)),
        ):
            found += leaks.in_answer(path, ask(server.port, request(path, *fields)))
        with talk(server, f"/ws?token={good}") as client:
            client.send(text("hello") * 1500)
            found += leaks.in_text("a close reason", client.read_until_closed().reason)
        for given in (key, bad):
            headers = {"X-API-Key": given}
            for payload in ({"channel": "a", "data": "b"}, {"channel": 1}, {}):
                found += leaks.in_text("the API", server_says(server, payload, headers))
        for path in ("/", "/metrics", "/healthz", "/readyz", "/debug/slow", "/debug/disconnects", "/nope"):
            found += leaks.in_text(path, server.get(path, {"X-API-Key": bad})[1].decode())
        assert server.terminate() == 0
        log = server.log_text()
    found += leaks.in_text("the log", log)
    assert "open 127.0.0.1" in log, "the log does tell of connections"
    assert found == []


def server_says(server: Server, payload: Any, headers: dict[str, str]) -> str:
    return http("POST", f"{server.internal_url}/api/publish", json.dumps(payload).encode(), headers)[1].decode()


def test_the_search_for_tokens_finds_them() -> None:
    assert Leaks("canary").in_text("here", "GET /ws?token=CANARY") == ["canary in here"]
    assert Leaks("canary").in_answer("there", Answer(401, {"x": "a"}, b"no canary")) == ["canary in there"]
