"""Revoked tokens at a real server, of one process and of workers that come and go: nobody stays, nobody comes back."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from typing import Any

import jwt

from tests.harness import Server, serve, wait_until
from tests.lifecycle.asking import ask, bearer, hears_itself, talk
from tests.wire import request

SECRET = "a secret that is long enough for the algorithm"
OPTIONS = ("--auth", "jwt", "--jwt-secret", SECRET)
# What is promised, and what is let pass on a machine that is busy with other things.
PROMISED, PATIENCE = 1.0, 5.0


def token(uid: str = "", user: str = "ann", **more: Any) -> str:
    return jwt.encode({"sub": user, "jti": uid, "exp": int(time.time()) + 3600, **more}, SECRET)


def status(server: Server, shown: str) -> int:
    return ask(server.port, request("/ws", bearer(shown))).status


def revoke(server: Server, command: str = "revoke_token", **fields: Any) -> None:
    assert server.api(command, fields) == {"result": {}}


def test_one_process() -> None:
    leaked, good = token("leaked"), token("good")
    with serve(*OPTIONS) as server:
        with (
            talk(server, "/ws", bearer(leaked)) as mallory,
            talk(server, "/ws/other", bearer(leaked)) as again,
            talk(server, "/ws/other", bearer(token("", "", jti="leaked"))) as nameless,
            talk(server, "/ws", bearer(good)) as ann,
            talk(server, "/ws", bearer(token(user="bob", iat=int(time.time()) - 60))) as bob,
        ):
            assert server.metrics()["stentor_revocations"] == 0
            revoke(server, uid="leaked", expire_at=int(time.time()) + 3600)
            began = time.monotonic()
            assert status(server, leaked) == 401, "at once"
            for client in (mallory, again, nameless):
                end = client.read_until_closed()
                assert (end.code, end.reason) == (1008, "invalid token")
            took = time.monotonic() - began
            revoke(server, "invalidate_user_tokens", user="bob")
            assert bob.read_until_closed().code == 1008
            assert hears_itself(ann, b"still here")
            assert server.metrics()["stentor_revocations"] == 2
        assert status(server, good) == 101
        assert status(server, token(user="bob", iat=int(time.time()))) == 101
        assert status(server, token(user="bob", iat=int(time.time()) - 60)) == 401
        log = server.log_text()
    print(f"gone {took:.3f} s after the answer")
    assert took < PATIENCE * PROMISED
    assert "raceback" not in log
    assert leaked not in log


def test_where_tokens_are_not_signed() -> None:
    with serve("--auth", "token", "--tokens", "static") as server:
        for command, fields in (("revoke_token", {"uid": "1"}), ("invalidate_user_tokens", {"user": "ann"})):
            assert server.api(command, fields)["error"]["code"] == 108


def workers(server: Server) -> list[int]:
    """The processes of the workers that are ready."""
    return [worker["pid"] for worker in server.get_json("/readyz")["workers"] if worker["state"] == "ready"]


def test_workers_know_it_and_so_do_those_that_take_their_places() -> None:
    leaked, good = token("leaked"), token("good")
    with serve(*OPTIONS, "--workers", "2") as server:
        with ExitStack() as stack:
            crowd = [stack.enter_context(talk(server, "/ws", bearer(leaked))) for _ in range(12)]
            revoke(server, uid="leaked")
            began = time.monotonic()
            assert {client.read_until_closed().code for client in crowd} == {1008}
            took = time.monotonic() - began
        assert {status(server, leaked) for _ in range(12)} == {401}
        first = workers(server)
        assert len(first) == 2
        for pid in first:
            os.kill(pid, signal.SIGKILL)
            wait_until(
                lambda pid=pid: pid not in (now := workers(server)) and len(now) == 2, 20, "a worker is replaced"
            )
        assert not set(first) & set(workers(server))
        assert [status(server, leaked) for _ in range(12)] == [401] * 12
        assert [status(server, good) for _ in range(12)] == [101] * 12
        # Each worker says how many it knows.
        metrics = server.metrics()
        assert [metrics[f'stentor_revocations{{worker="{index}"}}'] for index in range(2)] == [1, 1]
        assert "raceback" not in server.log_text()
    print(f"gone {took:.3f} s after the answer")
    assert took < PATIENCE * PROMISED
