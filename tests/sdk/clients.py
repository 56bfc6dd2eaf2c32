"""What a test holds in its hand: a client of any SDK.

ann = await sdk.connect(site, "ann")
await ann.subscribe("chat:lobby")
await ann.publish("chat:lobby", {"text": "hello"})
assert (await ann.hears("publication"))["data"] == {"text": "hello"}
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, Final

from tests.sdk.line import Line
from tests.sdk.programs import Order, Said
from tests.sdk.site import Site

WITHIN: Final = 15.0


class SdkError(Exception):
    """The server's error reply to something that a client asked, or whatever else the SDK makes of it."""

    def __init__(self, code: int | str) -> None:
        super().__init__(code)
        self.code = code


class Sdk:
    """One SDK: orders go to its program, and what it says comes back to the clients."""

    def __init__(self) -> None:
        self.order: Order
        self.troubles: list[Said] = []
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._clients: dict[str, Client] = {}

    async def connect(self, site: Site, user: str = "", through: Line | None = None, **options: Any) -> Client:
        """Connect a client, as `user` with a good token unless `options` bring another, and wait until it is."""
        client = await self.begin(site, user, through, **options)
        await client.hears("connected")
        return client

    async def begin(self, site: Site, user: str = "", through: Line | None = None, **options: Any) -> Client:
        """Let a client try to connect."""
        if user and not options.keys() & {"token", "tokens"}:
            options["token"] = site.token(user)
        client = Client(self, f"{user or 'somebody'} {next(self._numbers)}")
        self._clients[client.name] = client
        await client.ask("connect", url=site.address(through), **options)
        return client

    def say(self, what: Said) -> None:
        """Take what the program says."""
        if "id" in what:
            answer = self._answers.pop(what["id"])
            if "error" in what:
                answer.set_exception(SdkError(what["error"]))
            else:
                answer.set_result(what["result"])
        elif "event" in what:
            # Who was sent home has nothing more to tell.
            if client := self._clients.get(what["of"]):
                client.live_to_see(what)
        else:
            self.troubles.append(what)

    async def ask(self, client: str, do: str, **order: Any) -> Any:
        """Have `client` do something; return its result. Raises SdkError."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self.order({"id": number, "client": client, "do": do, **order})
        async with asyncio.timeout(WITHIN):
            return await answer

    async def disconnect_all(self) -> None:
        """Send everyone home."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.ask("disconnect")


class Client:
    """A client of an SDK, and all that it has lived to see."""

    def __init__(self, sdk: Sdk, name: str) -> None:
        self.name = name
        self._sdk = sdk
        self._events: list[Said] = []
        self._unread: list[Said] = []
        self._news = asyncio.Event()

    def live_to_see(self, event: Said) -> None:
        self._events.append(event)
        self._unread.append(event)
        self._news.set()

    def heard(self, *kinds: str, **fields: Any) -> list[Said]:
        """All events of these kinds so far that have these fields."""
        return [event for event in self._events if event["event"] in kinds and _has(event, fields)]

    async def hears(self, kind: str, **fields: Any) -> Said:
        """Wait for the next event of this kind that has these fields; each is told once."""
        try:
            async with asyncio.timeout(WITHIN):
                while True:
                    for event in self._unread:
                        if event["event"] == kind and _has(event, fields):
                            self._unread.remove(event)
                            return event
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{self.name} did not hear {kind} {fields}, but {self._events[-20:]}") from None

    async def hears_publications(self, channel: str, most: int) -> list[Any]:
        """Wait until `most` publications came on a channel, and return the data of all that came."""
        while len(self.heard("publication", channel=channel)) < most:
            await self.hears("publication", channel=channel)
        return [event["data"] for event in self.heard("publication", channel=channel)]

    async def ask(self, do: str, **order: Any) -> Any:
        return await self._sdk.ask(self.name, do, **order)

    async def subscribe(self, channel: str, **options: Any) -> Said:
        """Subscribe, and wait until it is so; returns the event."""
        await self.ask("subscribe", channel=channel, **options)
        return await self.hears("subscribed", channel=channel)

    async def unsubscribe(self, channel: str) -> Said:
        await self.ask("unsubscribe", channel=channel)
        return await self.hears("unsubscribed", channel=channel)

    async def publish(self, channel: str, data: Any) -> None:
        await self.ask("publish", channel=channel, data=data)

    async def history(self, channel: str, limit: int = -1, since: Said | None = None, *, reverse: bool = False) -> Said:
        stream: Said = await self.ask("history", channel=channel, limit=limit, since=since, reverse=reverse)
        return stream


def _has(event: Said, fields: Said) -> bool:
    return all(event.get(name) == value for name, value in fields.items())
