"""The stage of a scenario: a server, its crowd, the ledger; and the aftermath that every fault must leave behind.

    async with stage("--write-timeout", "1.5") as on:
        healthy = await on.listeners(20, "news")
        ...                                   # inject, prove, assert
    # here the crowd has left, and the aftermath was judged

Figures that a run measured are printed (`figure`): pytest shows them with -rP or -s.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.harness import Metrics, Server, serve
from tests.scenarios.clients import Client, Crowd, eventually
from tests.scenarios.kernel import serves_http
from tests.scenarios.ledger import Ledger

Answer = TypeVar("Answer")

MIB = 1024 * 1024
# How long the server has to come to rest when all have left, or been told to go.
REST = 10.0


@dataclass
class Stage:
    """One server with its clients. Questions to the server are asked in a thread: the crowd is read meanwhile."""

    server: Server
    crowd: Crowd
    ledger: Ledger
    descriptors_before: int

    async def ask(self, question: Callable[..., Answer], *arguments: Any) -> Answer:
        return await asyncio.to_thread(question, *arguments)

    async def metrics(self) -> Metrics:
        return await self.ask(self.server.metrics)

    async def slow(self) -> list[dict[str, Any]]:
        """Who is slow now, as /debug/slow tells it: the longest queue first."""
        answer = await self.ask(self.server.get_json, "/debug/slow")
        return list(answer["clients"])

    async def departures(self) -> list[dict[str, Any]]:
        """Who has left, as the flight recorder tells it: the newest first."""
        answer = await self.ask(self.server.get_json, "/debug/disconnects")
        return list(answer["disconnects"])

    async def listeners(self, count: int, channel: str) -> list[Client]:
        """Let `count` healthy clients join `channel`, each with an account."""
        return list(await asyncio.gather(*(self.listener(channel) for _ in range(count))))

    async def listener(self, channel: str, **options: Any) -> Client:
        """Let one client join `channel`, with an account."""
        return await self.crowd.join(f"/ws/{channel}", account=self.ledger.open_account(channel), **options)

    async def all_heard(self, clients: Iterable[Client], within: float = REST) -> None:
        """Wait until `clients` have heard all that was published, and demand a clean account of each."""
        accounts = [client.account for client in clients if client.account is not None]
        with contextlib.suppress(AssertionError):  # the ledger says it better
            await eventually(lambda: not any(account.lost for account in accounts), within, every=0.005)
        self.ledger.assert_complete(accounts)

    async def aftermath(self) -> None:
        """Let the crowd go, and judge what is left of it in the server: nothing."""
        server = self.server
        self.crowd.leave()
        assert server.process.poll() is None, f"the server died: {server.log_text()}"
        await eventually(
            lambda: server.descriptors() <= self.descriptors_before,
            REST,
            f"{server.descriptors()} descriptors, {self.descriptors_before} before",
        )
        metrics = await self.metrics()
        metrics.assert_balanced()
        assert metrics.total("stentor_connections") == 0
        assert metrics["stentor_subscriptions"] == 0
        assert metrics["stentor_lagging_clients"] == 0
        assert metrics["stentor_queue_bytes"] == 0
        opened, closed = metrics["stentor_connections_opened_total"], metrics.total("stentor_connections_closed_total")
        assert opened == closed
        # A client may say 1011, too; the server has no reason to.
        faults = [entry for entry in await self.departures() if entry["code"] == 1011]
        assert all(entry["reason"] == "closed by the client" for entry in faults), faults
        log = server.log_text()
        assert "raceback" not in log, log
        assert '"level":"error"' not in log, log


@contextlib.asynccontextmanager
async def stage(*options: str, host: str = "127.0.0.1") -> AsyncIterator[Stage]:
    """Set a stage, its clients to connect to `host`; judge the aftermath at its end."""
    with serve(*options) as server:
        # The first scrape imports and allocates; what comes after is the scenario's.
        await asyncio.to_thread(server.metrics)
        await eventually(lambda: not serves_http(server), 5, "the scrape's connection is closed")
        async with Crowd(server.port, host) as crowd:
            set_stage = Stage(server, crowd, Ledger(), server.descriptors())
            yield set_stage
            await set_stage.aftermath()


def figure(name: str, value: object) -> None:
    """Print what was measured."""
    print(f"FIGURE {name}: {value}")
