"""A client that the broker keeps waiting while it is being connected: it can be sent away all the same."""

from __future__ import annotations

import json
import threading
import time
from typing import Final

from tests.forgeries import FUTURE, SECRET, signed
from tests.harness import Server, serve, wait_until
from tests.lifecycle.asking import talk
from tests.redis_server import RedisServer
from tests.wire import CLOSE, text

PATH: Final = "/connection/websocket"
PAUSE: Final = 10.0


def test_who_waits_for_the_broker_is_sent_away_at_once() -> None:
    with RedisServer() as redis, serve("--broker", redis.url, "--auth", "jwt", "--jwt-secret", SECRET) as server:
        wait_until(lambda: server.get("/readyz")[0] == 200)
        with talk(server, PATH) as ann:
            redis.ask("CLIENT", "PAUSE", int(PAUSE * 1000), "ALL")
            paused = time.monotonic()
            ann.send(text(json.dumps({"id": 1, "connect": {"token": token()}})))
            insisting = threading.Thread(target=_insist, args=(server,))
            insisting.start()
            end = ann.read()
            took = time.monotonic() - paused
            insisting.join()
        assert (end.opcode, end.code, end.reason) == (CLOSE, 3503, "force disconnect"), end
        assert took < PAUSE / 2, "not when the broker was there again"


def token() -> str:
    return signed({"sub": "ann", "exp": FUTURE, "channels": ["news"]})


def _insist(server: Server) -> None:
    """Send ann away, again and again for a while: the server may not have heard yet who she is."""
    for _ in range(3):
        server.api("disconnect", {"user": "ann"})
