"""Whole runs in the Centrifuge dialect, against a peer that keeps its promises, or breaks one of them by order."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from loadtest.result import Result
from server.core.publication import ClientInfo, Publication
from server.dialects.centrifuge import codes, commands, json_codec, replies
from tests.engine import run

#: What becomes of one push: its number (from 1, over all clients), the client's own number, the line; what to say.
Fault = Callable[[int, int, str, bytes], list[bytes]]


def faithful(number: int, client: int, channel: str, line: bytes) -> list[bytes]:
    return [line]


class Client:
    """One connection at the peer's side."""

    def __init__(self, number: int, socket: ServerConnection) -> None:
        self.number = number
        self.socket = socket
        self.channels: set[str] = set()
        self.waiting: list[bytes] = []
        self.pongs = 0


class Peer:
    """A server of the dialect that says what the real codec says; on a thread of its own.

    Args:
        batches: pushes that wait together go out in one frame, as lines; otherwise a frame each.
        history: publications have offsets.
        refuse: which publish commands, counted from 1, get an error.
        fault: what becomes of each push.
    """

    def __init__(
        self,
        batches: bool = True,
        history: bool = False,
        refuse: Callable[[int], bool] = lambda number: False,
        fault: Fault = faithful,
        deny: str | None = None,
    ) -> None:
        self.port = 0
        self.clients: list[Client] = []
        self.frames: Counter[int] = Counter()  # by the pushes in them
        self._batches, self._history, self._refuse, self._fault, self._deny = batches, history, refuse, fault, deny
        self._offsets: Counter[str] = Counter()
        self._published, self._pushed = itertools.count(1), itertools.count(1)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="peer")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with serve(self._take, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
            self.port = next(iter(server.sockets)).getsockname()[1]
            self._ready.set()
            flusher = asyncio.create_task(self._keep_flushing())
            await self._stop.wait()
            flusher.cancel()

    async def _take(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        assert socket.request.path == "/connection/websocket"
        client = Client(len(self.clients), socket)
        self.clients.append(client)
        try:
            async for message in socket:
                assert isinstance(message, str)
                asked = json_codec.decode(message.encode(), 1000)
                said = [answer for command in asked if (answer := self._answer(client, command)) is not None]
                if said:
                    await socket.send(json_codec.join(said), text=True)
        except ConnectionClosed:
            pass
        finally:
            client.channels.clear()

    def _answer(self, client: Client, command: commands.Command) -> bytes | None:
        body = command.body
        if isinstance(body, commands.Pong):
            client.pongs += 1
            return None
        if isinstance(body, commands.Connect):
            client.waiting.append(json_codec.ping())  # soon after the reply, with whatever else is said then
            return json_codec.encode_reply(command.id, replies.ConnectResult("c", ping=25, pong=True))
        if isinstance(body, commands.Subscribe):
            if self._deny == "subscribe":
                return json_codec.encode_error(command.id, codes.ERROR_PERMISSION_DENIED)
            client.channels.add(body.channel)
            return json_codec.encode_reply(command.id, replies.SubscribeResult(recoverable=self._history))
        assert isinstance(body, commands.Publish)
        if self._refuse(next(self._published)):
            return json_codec.encode_error(command.id, codes.ERROR_TOO_MANY_REQUESTS)
        self._publish(body.channel, body.data)
        return json_codec.encode_reply(command.id, replies.PublishResult())

    def _publish(self, channel: str, data: bytes | None) -> None:
        assert data is not None
        self._offsets[channel] += 1
        offset = self._offsets[channel] if self._history else 0
        publication = Publication(data, is_json=True, offset=offset, info=ClientInfo("", "0-0"))
        line = json_codec.encode_publication(channel, publication)
        for client in self.clients:
            if channel in client.channels:
                client.waiting += self._fault(next(self._pushed), client.number, channel, line)
                if client.waiting[-1:] == [GONE]:
                    client.channels.discard(channel)

    async def _keep_flushing(self) -> None:
        while True:
            await asyncio.sleep(0.01)
            for client in self.clients:
                lines, client.waiting = client.waiting, []
                for payload in [json_codec.join(lines)] if lines and self._batches else lines:
                    self.frames[payload.count(b"\n") + 1] += 1
                    try:
                        await client.socket.send(payload, text=True)
                    except ConnectionClosed:
                        pass


GONE = json_codec.encode_push("loadtest-ab12-0", codes.UNSUBSCRIBE_INSUFFICIENT_STATE)


def conduct(peer: Peer, **options: Any) -> Result:
    """A run of 12 subscribers on one or several channels, and one publication in 2 ms."""
    given: dict[str, Any] = {"subscribers": 12, "rate": 500.0, "publish_time": "0.6s", "barrier": 2.0}
    return run(peer.url, dialect="centrifuge", **given | options)


def verdict(result: Result) -> tuple[str, str]:
    return result["verdict"]["verdict"], " ".join(result["verdict"]["reasons"])


@pytest.mark.parametrize("history", [False, True], ids=["bare", "offsets"])
@pytest.mark.parametrize("batches", [False, True], ids=["a frame each", "lines"])
def test_a_peer_that_keeps_its_promises_passes(batches: bool, history: bool) -> None:
    with Peer(batches, history) as peer:
        result = conduct(peer, channels=4, per_client=3, publishers=2)
    assert verdict(result)[0] == "pass", verdict(result)
    ledger = result["ledger"]
    # 300 publications and a marker for each of 4 channels, to 9 of 12 subscribers; publishers do not listen.
    assert ledger["expected"] == ledger["delivered"] == 304 * 9
    assert [(row["publications"], row["subscribers"]) for row in ledger["channels"]] == [(76, 9)] * 4
    assert result["publications"]["acknowledged"] == result["publications"]["attempted"] == 300
    assert result["publications"]["markers"] == 4
    assert result["plan"]["connections"] == 12
    assert len(peer.clients) == 12 + 4 + 1, "one connection for each client and stream, and the first try"
    assert result["latency"]["count"] == ledger["delivered"]
    assert all(client.pongs == 1 for client in peer.clients[1:])
    assert (max(peer.frames) > 1) == batches


def test_a_push_that_is_lost_is_found() -> None:
    with Peer(fault=lambda number, client, channel, line: [] if number == 1000 else [line]) as peer:
        result = conduct(peer)
    assert verdict(result) == ("fail", "1 message was lost without a word.")


def test_a_push_under_the_wrong_channel_is_found() -> None:
    def mislabel(number: int, client: int, channel: str, line: bytes) -> list[bytes]:
        other = {"loadtest-ab12-0": b"ab12-1", "loadtest-ab12-1": b"ab12-0"}[channel]
        return [line.replace(channel[-6:].encode(), other, 1) if number == 1000 else line]

    with Peer(fault=mislabel) as peer:
        result = conduct(peer, channels=2, per_client=2)
    assert verdict(result)[0] == "fail"
    assert (result["ledger"]["lost"], result["ledger"]["unexpected"]) == (1, 1)


def test_an_unsubscribe_is_a_declared_gap_with_its_code() -> None:
    victims: set[int] = set()

    def take_away(number: int, client: int, channel: str, line: bytes) -> list[bytes]:
        if number >= 500 and not victims and channel == "loadtest-ab12-0":
            victims.add(client)
            return [line, GONE]
        return [line]

    with Peer(fault=take_away) as peer:
        result = conduct(peer, channels=2, per_client=2)
    assert verdict(result) == ("fail", "The server closed 1 healthy client (2500: 1).")
    ledger = result["ledger"]
    assert (ledger["lost"], ledger["overdue"], ledger["barrier_missing"]) == (0, 0, 0)
    assert ledger["declared"] > 0
    assert ledger["expected"] == ledger["delivered"] + ledger["declared"] == 302 * 12
    # Only that channel: on the other one the same client is owed everything, and gets it.
    assert [row["declared"] > 0 for row in sorted(ledger["channels"], key=lambda row: row["channel"])] == [True, False]


def test_what_still_comes_after_an_unsubscribe_is_unexpected() -> None:
    def take_away_in_vain(number: int, client: int, channel: str, line: bytes) -> list[bytes]:
        return [GONE, line] if number == 500 else [line]

    with Peer(fault=take_away_in_vain) as peer:
        result = conduct(peer)
    assert verdict(result)[0] == "fail"
    assert result["ledger"]["unexpected"] > 0
    assert result["ledger"]["lost"] == 0


def test_a_publication_that_was_refused_is_owed_to_nobody() -> None:
    with Peer(refuse=lambda number: number in (7, 100)) as peer:
        result = conduct(peer)
    assert verdict(result)[0] == "pass", verdict(result)
    assert result["publications"]["attempted"] == result["publications"]["acknowledged"] == 298
    assert result["publications"]["refused"] == {"error 111 too many requests": 2}
    assert result["ledger"]["expected"] == result["ledger"]["delivered"] == 299 * 12
    assert (
        "The server refused publications (error 111 too many requests: 2): nobody was owed them."
        in (result["verdict"]["notes"])
    )


def test_a_server_that_refuses_everything_proves_nothing() -> None:
    with Peer(refuse=lambda number: True) as peer:
        result = conduct(peer)
    assert verdict(result)[0] == "unknown"
    assert "0 of 300 planned publications were attempted." in verdict(result)[1]
    assert result["ledger"]["expected"] == 0
    assert result["publications"]["markers"] == 0


def test_a_client_that_is_not_let_in_is_one_sentence() -> None:
    with Peer(deny="subscribe") as peer:
        result = conduct(peer)
        assert verdict(result) == (
            "unknown",
            f"{peer.url}/connection/websocket does not let the client in (centrifuge dialect): "
            "subscribe: error 103 permission denied.",
        )


def test_troublemakers_subscribe_before_they_make_trouble() -> None:
    with Peer() as peer:
        result = conduct(peer, stalled=2, slow=2, flapping=5.0, size=512, publish_time="1s")
        came = len(peer.clients)
    assert verdict(result)[0] == "pass", verdict(result)
    trouble = result["troublemakers"]
    assert (trouble["stalled_observed"], trouble["slow_observed"]) == (2, 2)
    assert trouble["flapping_done"] >= 3
    assert came >= 1 + 12 + 1 + 2 + 2 + 3
