"""Who talks and listens at two nodes (`tests.scenarios.nodes`): members who recover, a speaker, a raw voice."""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any, Final

import aiohttp
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from tests.scenarios.clients import Client
from tests.scenarios.wire import TEXT, frame

KEPT: Final = "kept:news"
PLAIN: Final = "plain"
PERIOD: Final = 0.02  # seconds between two publications of one publisher
SOONEST, LATEST = 0.05, 0.3  # seconds after which a member comes back

Said = tuple[int, int]


class Member:
    """A client of the Centrifuge dialect on `kept:news`: it comes back, to any of `ports`, and recovers."""

    def __init__(self, ports: list[int]) -> None:
        self.heard: list[Said] = []
        self.pushed = 0  # of those, the ones that did not come by recovery
        self.closes: list[int] = []  # 1006 when the connection broke
        self.away: list[float] = []  # seconds from each loss to the answer that it is back
        self.recovered = 0
        self.declared = 0  # how often it was told that it could not recover all
        self.is_on = False
        self._home, self._ports = ports[0], ports
        self._position: dict[str, Any] | None = None
        self._lost_at = 0.0

    async def run(self) -> None:
        port = self._home
        while True:
            url = f"ws://127.0.0.1:{port}/connection/websocket"
            try:
                async with connect(url, compression=None, open_timeout=5, close_timeout=1, proxy=None) as ws:
                    await self._talk(ws)
            except ConnectionClosed as closed:
                self.closes.append(int(closed.rcvd.code) if closed.rcvd else 1006)
            except (OSError, WebSocketException, TimeoutError):
                pass  # nobody there: again, elsewhere
            self._lose()
            await asyncio.sleep(random.uniform(SOONEST, LATEST))
            port = random.choice(self._ports)

    async def _talk(self, ws: Any) -> None:
        await ws.send('{"id":1,"connect":{}}')
        await self._subscribe(ws)
        while True:
            for line in (await ws.recv()).split("\n"):
                said = json.loads(line)
                if not said:
                    await ws.send("{}")
                elif "push" in said:
                    await self._take(ws, said["push"])
                elif said["id"] == 2:
                    await self._begin(ws, said)

    async def _subscribe(self, ws: Any) -> None:
        recover = {"recover": True, **self._position} if self._position else {}
        await ws.send(json.dumps({"id": 2, "subscribe": {"channel": KEPT, **recover}}))

    async def _take(self, ws: Any, push: dict[str, Any]) -> None:
        if "unsubscribe" in push:
            assert push["unsubscribe"]["code"] == 2500, push
            self._lose()
            await self._subscribe(ws)
        else:
            self._hear(push["pub"])
            self.pushed += 1

    async def _begin(self, ws: Any, reply: dict[str, Any]) -> None:
        if "error" in reply:
            assert reply["error"].get("temporary"), reply
            await asyncio.sleep(0.1)
            await self._subscribe(ws)
            return
        answer = reply["subscribe"]
        for publication in answer.get("publications", ()):
            self._hear(publication)
        if self._position is not None:
            self.recovered += bool(answer.get("recovered"))
            self.declared += not answer.get("recovered")
        if not answer.get("recovered"):
            assert not answer.get("publications"), "all or nothing"
            self._position = {"epoch": answer["epoch"], "offset": answer.get("offset", 0)}
        self.is_on = True
        if self._lost_at:
            self.away.append(time.monotonic() - self._lost_at)

    def _hear(self, publication: dict[str, Any]) -> None:
        assert self._position is not None
        self._position["offset"] = publication["offset"]
        publisher, number = publication["data"]
        self.heard.append((publisher, number))

    def _lose(self) -> None:
        if self.is_on:
            self.is_on, self._lost_at = False, time.monotonic()


class Speaker:
    """Publishes on `kept:news` by a node's server API, one after the other, and notes what was answered."""

    def __init__(self, number: int, url: str) -> None:
        self.acknowledged: list[Said] = []
        self.refused: list[Said] = []
        self.slowest = 0.0
        self.is_told_to_stop = False  # between two words: what is cut off may have been published
        self._said = 0
        self._number, self._url = number, url

    async def run(self) -> None:
        async with aiohttp.ClientSession(self._url) as session:
            while not self.is_told_to_stop:
                await self.say(session)
                await asyncio.sleep(PERIOD)

    async def say(self, session: aiohttp.ClientSession) -> None:
        item = (self._number, self._said)
        self._said += 1
        began = time.monotonic()
        try:
            async with session.post("/api/publish", json={"channel": KEPT, "data": item}) as answer:
                reply = await answer.json()
        except aiohttp.ClientError:
            self.refused.append(item)  # it may have been published all the same
            return
        self.slowest = max(self.slowest, time.monotonic() - began)
        (self.acknowledged if "result" in reply else self.refused).append(item)

    async def last_word(self) -> Said:
        """Say one more, which is heard."""
        async with aiohttp.ClientSession(self._url) as session:
            count = len(self.acknowledged)
            await self.say(session)
        assert len(self.acknowledged) == count + 1, "nothing is wrong any more"
        return self.acknowledged[-1]


class Voice:
    """A raw client that publishes on `plain`, and listens to it."""

    def __init__(self, number: int, client: Client) -> None:
        self.said = 0
        self.is_over = False  # its worker was killed, and raw clients are promised nothing then
        self.is_told_to_stop = False
        self.client = client
        self._number = number

    async def run(self) -> None:
        while not self.is_told_to_stop:
            try:
                await self.say()
            except OSError:
                self.is_over = True
                return
            await asyncio.sleep(PERIOD)
        self.is_over = self.client.is_gone

    async def say(self) -> Said:
        item = (self._number, self.said)
        await self.client.send(frame(TEXT, b"[%d,%d]" % item))
        self.said += 1
        return item
