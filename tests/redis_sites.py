"""Two sites over one Redis: whole nodes but for their sockets, with clients of both dialects, and the accounts.

    async with sites(url_a, url_b) as scene:
        await scene.speak(until=…)    # both nodes publish, on a channel with history and on one without
        scene.assert_all_accounted(may_lose=False)

A publication is its publisher and its number. *Acknowledged* is what the broker took, *refused* what it did not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson

from server.brokers.base import BrokerError, Published, Retention
from server.brokers.redis import Pace, RedisBroker, parse
from server.core.publication import Publication
from server.node.namespaces import ChannelOptions
from tests import wire
from tests.house import House, house
from tests.redis_nodes import QUICK, until

KEPT: Final = "kept:news"
PLAIN: Final = "plain"
RETENTION: Final = Retention(20_000, 300.0)
# Seconds between two publications of one node on one channel.
PERIOD: Final = 0.01

Said = tuple[int, int]  # the publisher's number, and that of the publication


class Client:
    """One client; `heard` is what it heard, in order."""

    def __init__(self, home: House, path: str) -> None:
        self.heard: list[Said] = []
        self.connection, self.transport = home.open(path)
        self._rest = b""

    def read(self) -> None:
        """Take in what has come."""
        self.transport.writes.clear()
        frames, self._rest = wire.split(self._rest + self.transport.take())
        for frame in frames:
            assert frame.opcode == wire.TEXT, f"nobody is disconnected: {frame}"
            self.take(frame.payload)

    def take(self, payload: bytes) -> None:
        self.heard.append(said(payload))


class Sdk(Client):
    """A client of the Centrifuge dialect that does as the published SDKs do: it comes back, and recovers."""

    def __init__(self, home: House, channel: str) -> None:
        super().__init__(home, "/connection/websocket")
        self.channel = channel
        self.recovered = 0
        self.declared = 0  # how often it was told that it could not recover all
        self.is_subscribed = False
        self._position: dict[str, Any] = {}
        self._send({"id": 1, "connect": {}})

    def take(self, payload: bytes) -> None:
        for line in payload.split(b"\n"):
            self._take(orjson.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        if "push" in message:
            push = message["push"]
            if "unsubscribe" in push:
                assert push["unsubscribe"]["code"] == 2500
                self.is_subscribed = False
                self._subscribe()
            else:
                self._hear(push["pub"])
        elif "error" in message:
            assert message["error"].get("temporary"), message
            asyncio.get_running_loop().call_later(0.1, self._subscribe)
        elif "subscribe" in message:
            self._subscribed(message["subscribe"])
        else:
            assert "connect" in message, message
            self._subscribe()

    def _subscribed(self, result: dict[str, Any]) -> None:
        self.is_subscribed = True
        if self._position:
            if result.get("recovered"):
                self.recovered += 1
            else:
                self.declared += 1
                assert not result.get("publications"), "all or nothing"
        for publication in result.get("publications", ()):
            self._hear(publication)
        self._position = {"epoch": result["epoch"], "offset": result.get("offset", 0)}
        if self.heard and result.get("recovered"):
            self._position["offset"] = max(self._position["offset"], self._heard_offset)

    def _hear(self, publication: dict[str, Any]) -> None:
        self.heard.append(said(publication["data"]))
        self._heard_offset = self._position["offset"] = publication["offset"]

    def _subscribe(self) -> None:
        recover = {"recover": True, **self._position} if self._position else {}
        self._send({"id": 2, "subscribe": {"channel": self.channel, **recover}})

    def _send(self, command: dict[str, Any]) -> None:
        self.connection.data_received(wire.text(orjson.dumps(command).decode()))


def said(data: Any) -> Said:
    """Read a publication."""
    publisher, number = orjson.loads(data) if isinstance(data, bytes) else data
    return publisher, number


class Site:
    """A node, its broker and its clients; `number` names it as a publisher."""

    def __init__(self, number: int, url: str, pace: Pace) -> None:
        self.number = number
        options = {"kept": ChannelOptions(retention=RETENTION)}
        self.home = house(loop=asyncio.get_running_loop(), namespaces=options)
        self.broker = RedisBroker(parse(url), self.home.node, pace=pace)
        self.home.node.broker = self.broker
        self.raw: list[Client] = []
        self.sdks: list[Sdk] = []
        self.acknowledged: dict[str, list[Said]] = {KEPT: [], PLAIN: []}
        self.refused: dict[str, list[Said]] = {KEPT: [], PLAIN: []}
        self.slowest = 0.0  # answer, in seconds
        self.waiting = 0
        self._numbers = dict.fromkeys((KEPT, PLAIN), 0)

    @property
    def clients(self) -> list[Client]:
        return [*self.raw, *self.sdks]

    def settle(self) -> None:
        """Let the clients in."""
        self.raw = [Client(self.home, f"/ws/{PLAIN}") for _ in range(2)]
        self.sdks = [Sdk(self.home, KEPT) for _ in range(2)]

    def publish(self, channel: str) -> None:
        number = self._numbers[channel]
        self._numbers[channel] = number + 1
        began = time.monotonic()
        self.waiting += 1

        def done(answer: Published | BrokerError) -> None:
            self.waiting -= 1
            self.slowest = max(self.slowest, time.monotonic() - began)
            book = self.acknowledged if isinstance(answer, Published) else self.refused
            book[channel].append((self.number, number))

        payload = b"[%d,%d]" % (self.number, number)
        self.home.node.publish(channel, Publication(payload, is_json=True), done)


class Scene:
    """The sites together."""

    def __init__(self, *sites: Site) -> None:
        self.sites = sites

    @property
    def is_up(self) -> bool:
        return all(site.broker.is_up for site in self.sites)

    @property
    def sdks(self) -> list[Sdk]:
        return [sdk for site in self.sites for sdk in site.sdks]

    async def speak(self, until: Callable[[], object] = lambda: False, seconds: float = 15.0) -> float:
        """Publish from all sites until a condition holds, or for so many seconds; return how long it was."""
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds and not until():
            for site in self.sites:
                site.publish(KEPT)
                site.publish(PLAIN)
            await asyncio.sleep(PERIOD)
        return passed

    async def look_after(self) -> None:
        """Do what a process does beside, only more often."""
        while True:
            await asyncio.sleep(0.005)
            for site in self.sites:
                for client in site.clients:
                    client.read()
            if asyncio.get_running_loop().time() % 0.2 < 0.02:
                for site in self.sites:
                    site.broker.sweep()
                    site.home.node.check_suspects()

    async def be_quiet(self) -> None:
        """Wait until everything said was answered for, and everyone on the channel has what it can have."""
        await until(lambda: self.is_up and not any(site.waiting for site in self.sites))
        for _ in range(2):  # the last of each: nothing that was said before is still under way after it
            for site in self.sites:
                site.publish(KEPT)
                site.publish(PLAIN)
            last = [site._numbers for site in self.sites]
            await until(lambda last=last: self._have_heard(last))

    def _have_heard(self, last: list[dict[str, int]]) -> bool:
        return all(
            {(site.number, numbers[KEPT] - 1) for site, numbers in zip(self.sites, last, strict=True)}
            <= set(sdk.heard[-200:])
            and sdk.is_subscribed
            for sdk in self.sdks
        ) and all(
            {(site.number, numbers[PLAIN] - 1) for site, numbers in zip(self.sites, last, strict=True)}
            <= set(client.heard[-200:])
            for each in self.sites
            for client in each.raw
        )

    def assert_all_accounted(self, *, may_lose: bool) -> None:
        """The ledger: nothing twice, in order, nothing lost in secret; answers within two seconds."""
        acknowledged = [item for site in self.sites for item in site.acknowledged[KEPT]]
        published = acknowledged + [item for site in self.sites for item in site.refused[KEPT]]
        assert len(acknowledged) > 50, "unknown, not passed"
        for site in self.sites:
            assert site.slowest <= 2.0
            for sdk in site.sdks:
                assert_kept(sdk.heard, acknowledged, published, sdk.declared, may_lose=may_lose)
            for client in site.raw:
                own = site.acknowledged[PLAIN] + site.refused[PLAIN]
                assert_plain(client.heard, site.number, len(own))
            for each in site.clients:
                assert each.connection.is_open, "nobody is disconnected"


def assert_kept(
    heard: list[Said], acknowledged: list[Said], published: list[Said], declared: int, *, may_lose: bool
) -> None:
    """Check what one client heard of a channel with history."""
    assert_in_order(heard)
    assert set(heard) <= set(published), "something was made up"
    missing = set(acknowledged) - set(heard)
    if not may_lose:
        assert not missing, f"{len(missing)} lost, {declared} declared"
        assert declared == 0
    assert not missing or declared, f"{len(missing)} lost in secret"


def assert_plain(heard: list[Said], number: int, own: int) -> None:
    """Check what one client heard of a channel without: all that was said on its node, whatever became of the rest."""
    assert_in_order(heard)
    here = [item for publisher, item in heard if publisher == number]
    missing = sorted(set(range(own)) - set(here))
    assert here == list(range(own)), f"of {own} said here {len(missing)} are not heard: {missing[:10]}"


def assert_in_order(heard: list[Said]) -> None:
    """Check that a client heard each publisher in order, and nothing twice."""
    last: dict[int, int] = {}
    for publisher, number in heard:
        assert number > last.get(publisher, -1), f"{publisher}, {number} after {last}"
        last[publisher] = number


@asynccontextmanager
async def sites(*urls: str, pace: Pace = QUICK) -> AsyncIterator[Scene]:
    """Open a site at each URL, with all its clients on their channels."""
    scene = Scene(*(Site(number, url, pace) for number, url in enumerate(urls)))
    caretaker = asyncio.get_running_loop().create_task(scene.look_after())
    try:
        for site in scene.sites:
            assert await site.broker.start(10.0)
            site.settle()
        await until(lambda: all(sdk.is_subscribed for sdk in scene.sdks))
        await scene.be_quiet()
        yield scene
        if caretaker.done():
            caretaker.result()
    finally:
        caretaker.cancel()
        await asyncio.gather(caretaker, return_exceptions=True)
        for site in scene.sites:
            await site.broker.stop()
