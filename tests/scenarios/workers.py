"""A server of several workers, clients that come back to it, and what its supervisor says of it meanwhile.

    async with crew("--history-size", "500") as on:
        members = [on.member("news") for _ in range(20)]      # the Centrifuge dialect, with positions
        speaker = on.speaker("news", rate=100)                # by the server API: what is answered is published
        ...                                                   # inject, prove
        await on.all_heard(members, speaker)

A member reconnects by itself, when it was told to or after a moment, and recovers from where it was; it books each
number that it hears, with the offset it came with. Everything ends with the block.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from tests.harness import Server, serve
from tests.scenarios.clients import eventually

SOONEST: Final = 0.05
LATEST: Final = 0.3
_WHEN: Final = re.compile(r"reconnect_after_ms=(\d+)")


class Member:
    """One client of the Centrifuge dialect on one channel."""

    def __init__(self, port: int, channel: str) -> None:
        self.heard: list[int] = []
        self.closes: list[tuple[int, str]] = []  # code and reason, 1006 when the connection broke
        self.away: list[float] = []  # seconds from each loss to the answer that it is back
        self.unrecovered = 0
        self.is_on = False
        self.later: list[float] = []  # when it was told to come back, in seconds
        self._url = f"ws://127.0.0.1:{port}/connection/websocket"
        self._channel = channel
        self._position: dict[str, Any] | None = None
        self._lost_at = 0.0

    async def run(self) -> None:
        while True:
            wait = random.uniform(SOONEST, LATEST)
            try:
                async with connect(self._url, compression=None, open_timeout=5, close_timeout=1, proxy=None) as ws:
                    await self._talk(ws)
            except ConnectionClosed as closed:
                close = closed.rcvd
                self.closes.append((int(close.code), close.reason) if close else (1006, ""))
                if close and (when := _WHEN.search(close.reason)):
                    self.later.append(int(when[1]) / 1000)
                    wait = self.later[-1]
            except (OSError, WebSocketException, TimeoutError):
                pass  # nobody there: again
            if self.is_on:
                self.is_on, self._lost_at = False, time.monotonic()
            await asyncio.sleep(wait)

    async def _talk(self, ws: Any) -> None:
        await ws.send('{"id":1,"connect":{}}')
        subscribe: dict[str, Any] = {"channel": self._channel}
        if self._position is not None:
            subscribe |= {"recover": True, **self._position}
        await ws.send(json.dumps({"id": 2, "subscribe": subscribe}))
        while True:
            for line in (await ws.recv()).split("\n"):
                self._take(json.loads(line))
                if line == "{}":
                    await ws.send("{}")

    def _take(self, said: dict[str, Any]) -> None:
        if said.get("id") == 2:
            self._begin(said["subscribe"])
        elif "push" in said and "pub" in said["push"]:
            self._hear(said["push"]["pub"])

    def _begin(self, answer: dict[str, Any]) -> None:
        if self._position is None:
            self._position = {"epoch": answer.get("epoch", ""), "offset": answer.get("offset", 0)}
        elif not answer.get("recovered"):
            self.unrecovered += 1
        for publication in answer.get("publications", ()):
            self._hear(publication)
        self.is_on = True
        if self._lost_at:
            self.away.append(time.monotonic() - self._lost_at)

    def _hear(self, publication: dict[str, Any]) -> None:
        assert self._position is not None
        self._position["offset"] = publication.get("offset", 0)
        self.heard.append(publication["data"])


class Speaker:
    """Publishes the numbers from 0 on a channel; `said` is how many were answered for."""

    def __init__(self, url: str, channel: str, rate: float) -> None:
        self.said = 0
        self.is_told_to_stop = False
        self._url, self._channel, self._rate = url, channel, rate

    async def run(self) -> None:
        due = time.monotonic()
        async with aiohttp.ClientSession(self._url) as session:
            while not self.is_told_to_stop:
                async with session.post("/api/publish", json={"channel": self._channel, "data": self.said}) as answer:
                    reply = await answer.json()
                    assert "result" in reply, reply
                self.said += 1
                due += 1 / self._rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))


class Scraper:
    """Scrapes again and again; notes how long each scrape took, and each counter that went back."""

    def __init__(self, url: str) -> None:
        self.scrapes = 0
        self.took: list[float] = []
        self.ready_took: list[float] = []
        self.went_back: list[str] = []
        self.ups: list[dict[str, float]] = []
        self._url = url
        self._last: dict[str, float] = {}

    async def run(self) -> None:
        async with aiohttp.ClientSession(self._url) as session:
            while True:
                began = time.monotonic()
                async with session.get("/metrics") as answer:
                    text = await answer.text()
                self.took.append(time.monotonic() - began)
                self.take(text)
                began = time.monotonic()
                async with session.get("/readyz") as answer:
                    await answer.read()
                self.ready_took.append(time.monotonic() - began)
                await asyncio.sleep(0.1)

    def take(self, text: str) -> None:
        """Compare one scrape with those before: each series, and the sum over the workers."""
        found: Counter[str] = Counter()
        up = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = dict(sample.labels)
                worker = labels.pop("worker", "")
                if sample.name == "stentor_worker_up":
                    up[worker] = sample.value
                momentary = sample.name.startswith("stentor_client_queue_")
                if family.type in ("counter", "histogram") and not momentary and worker != "supervisor":
                    name = sample.name + json.dumps(labels, sort_keys=True)
                    found[name] += sample.value
                    found[f"{name} of {worker}"] = sample.value
        for name, value in self._last.items():
            if found[name] < value:
                self.went_back.append(f"{name}: {value} -> {found[name]}")
        self._last = dict(found)
        self.ups.append(up)
        self.scrapes += 1


class Crew:
    """The server and everyone who talks to it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.url = server.internal_url
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task

    async def members(self, count: int, channel: str) -> list[Member]:
        """Let members join, and wait until they are on."""
        members = [Member(self.server.port, channel) for _ in range(count)]
        for member in members:
            self.start(member.run())
        await eventually(lambda: all(member.is_on for member in members), 20, "all members are on")
        return members

    def speaker(self, channel: str, rate: float) -> Speaker:
        speaker = Speaker(self.url, channel, rate)
        self.start(speaker.run())
        return speaker

    def scraper(self) -> Scraper:
        scraper = Scraper(self.url)
        self.start(scraper.run())
        return scraper

    async def ask(self, path: str) -> Any:
        return await asyncio.to_thread(self.server.get_json, path)

    async def workers(self) -> list[dict[str, Any]]:
        return list((await self.ask("/readyz"))["workers"])

    async def ready(self, but: Iterable[int] = (), within: float = 15.0, count: int = 2) -> float:
        """Wait until all are ready and none of the pids in `but` is left; return how long that took."""
        began, gone = time.monotonic(), set(but)

        async def are_ready() -> bool:
            workers = await self.workers()
            return (
                len(workers) == count
                and all(worker["state"] == "ready" for worker in workers)
                and not gone & {worker["pid"] for worker in workers}
            )

        await eventually(are_ready, within, "all workers are ready")
        return time.monotonic() - began

    async def connections(self) -> dict[int, int]:
        return {worker["index"]: worker["connections"] for worker in await self.workers()}

    async def all_counted(self, count: int) -> bool:
        """Tell if the supervisor knows of so many connections."""
        return sum((await self.connections()).values()) == count

    async def all_heard(self, members: list[Member], speaker: Speaker, within: float = 20.0) -> None:
        """Stop the speaker, and demand of every member: all numbers, once, in order, and never unrecovered."""
        speaker.is_told_to_stop = True
        last: Callable[[], bool] = lambda: all(  # noqa: E731
            member.heard and member.heard[-1] == speaker.said - 1 for member in members
        )
        with contextlib.suppress(AssertionError):  # the comparison says it better
            await asyncio.sleep(0.05)
            await eventually(last, within)
        judge(members, speaker.said)

    def assert_well(self) -> None:
        """Nobody has failed at what nobody injected."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()
        log = self.server.log_text()
        assert "raceback" not in log, log

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def judge(members: list[Member], said: int) -> None:
    """Demand that each member has heard all that was said, once and in order."""
    assert members
    assert said, "nothing was said, so nothing is known"
    assert sum(member.unrecovered for member in members) == 0
    for member in members:
        assert member.heard == list(range(said)), (len(member.heard), said, member.heard[-5:], member.closes)


@contextlib.asynccontextmanager
async def crew(*options: str, workers: int = 2) -> AsyncIterator[Crew]:
    """Start a server of several workers; end everyone who talks to it, and it."""
    with serve("--workers", str(workers), *options) as server:
        on = Crew(server)
        try:
            yield on
            on.assert_well()
        finally:
            await on.end()


def descendants(pid: int) -> set[int]:
    """Name the processes below `pid`. Linux, proc(5)."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"
