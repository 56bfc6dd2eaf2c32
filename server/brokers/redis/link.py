"""Keeps one connection to one Redis: connects, and connects again when it is lost, ever less eagerly.

Laws: at most one connection at a time; `up` and `down` are called in turns, each once per connection that was opened;
an outage is logged once when it begins, once for each way in which Redis refuses us meanwhile, in its own words, and
once when it is over: when a connection is confirmed, that is of use for what it is for. Nothing ends the trying.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from server.brokers.redis.address import Address
from server.brokers.redis.connection import Command, Connection, Refused, Reply, connect, credentials

log = logging.getLogger("stentor.redis")


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before another try, in seconds: doubled from `least` to `most`, each time a random part of it.

    `most` and the time that a try may take come to less than the five seconds in which we are back after Redis is.
    """

    least: float = 0.1
    most: float = 3.0

    def delay(self, tries: int, luck: float) -> float:
        """Return the delay after so many tries in vain; `luck` is a random number from 0 to 1."""
        return min(self.most, self.least * 2.0 ** min(tries, 30)) * (0.5 + luck / 2)


class Link:
    """See the module."""

    def __init__(
        self,
        name: str,
        address: Address,
        *,
        opening: Callable[[], Sequence[Command]],
        up: Callable[[Connection, list[Reply]], None],
        down: Callable[[], None],
        patience: float,
        backoff: Backoff,
    ) -> None:
        self.reconnects = -1  # the first connection is none
        self.trouble = ""  # why it is of no use now
        self._name = name
        self._address = address
        self._opening = opening
        self._up = up
        self._down = down
        self._patience = patience
        self._backoff = backoff
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_new = False  # connected, and not confirmed
        self._is_out = False
        self._refusals: set[str] = set()  # that were logged in this outage

    def start(self) -> None:
        """Begin to connect. Idempotent."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep())

    async def stop(self) -> None:
        """Let what was written go out, and connect no more. Idempotent."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if (connection := self._connection) is not None:
            connection.close()
            await asyncio.wait((connection.ended,), timeout=self._patience)
            connection.abort()
            await asyncio.wait((connection.ended,), timeout=self._patience)

    def confirm(self) -> None:
        """Know that the connection is of use. Idempotent."""
        if not self._is_new:
            return
        self._is_new = False
        self.reconnects += 1
        self.trouble = ""
        self._refusals.clear()
        if self._is_out:
            self._is_out = False
            log.warning("%s: connected again", self)

    def drop(self, why: str) -> None:
        """Give the connection up, and make another one."""
        if self._connection is not None:
            log.warning("%s: %s; its connection is made anew", self, why)
            self.trouble = f"{self}: {why}"
            self._is_out = True
            self._connection.abort()

    def refused(self, words: str) -> None:
        """Give the connection up, and make another one: Redis refuses what it is for, in these words. Idempotent."""
        if self._connection is not None:
            self._complain(Refused(words))
            self._connection.abort()

    def __str__(self) -> str:
        return f"{self._address} ({self._name})"

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        tries = 0
        while True:
            opened = loop.time()
            try:
                connection = await self._connect()
            except Exception as error:  # nobody else would connect any more
                self._complain(error)
            else:
                await asyncio.wait((connection.ended,))
                # One that lives for a moment only is no better than none.
                if loop.time() - opened > self._backoff.most:
                    tries = 0
            await asyncio.sleep(self._backoff.delay(tries, random.random()))
            tries += 1

    async def _connect(self) -> Connection:
        is_up = False

        def lost() -> None:
            if is_up:  # else it never was ours, and may end when another one is
                self._connection = None
                self._down()
                if self._task is not None and not self._is_out:
                    self._complain(ConnectionResetError("the connection was lost"))

        connection = await connect(self._address, lost, self._patience)
        try:
            async with asyncio.timeout(self._patience):
                first, opening = credentials(self._address), self._opening()
                replies = await connection.open([*first, *opening])
            is_up = self._is_new = True
            self._connection = connection
            self._up(connection, replies[len(first) :])
        except BaseException:
            connection.abort()
            raise
        return connection

    def _complain(self, error: Exception) -> None:
        words = str(error) or "it does not answer"
        self.trouble = f"{self}: {'it refuses us' if isinstance(error, Refused) else 'cannot be reached'}: {words}"
        is_said = self._is_out
        if isinstance(error, Refused):
            # The first word tells the kinds apart: NOPERM, WRONGPASS, LOADING.
            kind = words.partition(" ")[0]
            is_said = kind in self._refusals
            self._refusals.add(kind)
        self._is_out = True
        if not is_said:
            is_foreseen = isinstance(error, OSError | Refused)
            level = logging.WARNING if is_foreseen else logging.ERROR
            log.log(level, "%s", self.trouble, exc_info=None if is_foreseen else error)
