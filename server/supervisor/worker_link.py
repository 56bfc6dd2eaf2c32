"""One worker, as the supervisor knows it: its process, its link, how it is, and what it answers.

Laws: a worker that is asked and does not answer in time is not waited for; one that has not said anything for
`HUNG_AFTER` seconds hangs. Its process is ended only by whoever started it.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from multiprocessing.process import BaseProcess
from typing import Any, Final

from server.brokers.link import Fields, Kind, Link

# A worker says every second that it is there; what it does may take some.
HUNG_AFTER: Final = 7.0
SILENT_AFTER: Final = 2.5
# Starting takes longer: everything is imported first.
START_WITHIN: Final = 30.0
# How long somebody outside waits for a worker, so that the answer of all comes within 200 ms.
WITHIN: Final = 0.12
# The index of a worker that has no place yet.
STANDING_BY: Final = -1


class State(StrEnum):
    """How far a worker has come."""

    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"
    DEAD = "dead"


class Unanswered(Exception):
    """The worker did not answer in time, or could not do what it was asked: then `reason` says why."""

    def __init__(self, what: str, reason: str = "") -> None:
        super().__init__(what)
        self.reason = reason


class Worker:
    """See the module. `index` is its place in the crew, which its successor takes over."""

    def __init__(self, index: int, process: BaseProcess, now: float) -> None:
        self.index = index
        self.process = process
        self.hired_at = now
        self.state = State.STARTING
        self.link: Link | None = None
        self.is_up = False  # it has said hello
        self.has_said_goodbye = False  # it has nothing to do any more
        self.was_killed = False  # because it hung
        self.ready_at = now
        self.connections = 0
        self.brownout = 0
        self.broker_is_up = True  # until it says otherwise
        self.heard_at = now
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._number = 0

    def __str__(self) -> str:
        return f"worker {self.index}" if self.index != STANDING_BY else "the worker that stands by"

    @property
    def pid(self) -> int:
        return self.process.pid or 0

    def is_hung(self, now: float) -> bool:
        """Tell if the worker has been silent for too long."""
        limit = HUNG_AFTER if self.is_up else START_WITHIN
        return self.state is not State.DEAD and now - self.heard_at > limit

    def is_silent(self, now: float) -> bool:
        """Tell if a worker that was up has said nothing for so long that something is wrong with it."""
        return self.is_up and now - self.heard_at > SILENT_AFTER

    def is_heard(self, now: float) -> bool:
        """Tell if the worker has said hello, and has not been silent since."""
        return self.is_up and not self.is_silent(now)

    def takes_newcomers(self, now: float) -> bool:
        """Tell if new connections are well with the worker: it is heard of, and not browned out."""
        return not (self.is_silent(now) or self.brownout)

    async def ask(self, what: str, *arguments: Any, within: float) -> Any:
        """Ask the worker to do `what`, and return its answer. Raises Unanswered."""
        if self.link is None or not self.link.is_open:
            raise Unanswered(f"{self} is not there")
        self._number += 1
        number = self._number
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        self.link.say(Kind.ASK, [number, what, list(arguments)])
        try:
            async with asyncio.timeout(within):
                return await future
        except TimeoutError:
            raise Unanswered(f"{self} did not answer in time") from None
        finally:
            self._asked.pop(number, None)

    def tell(self, what: str, *arguments: Any) -> None:
        """Have the worker do `what`, when it comes to it; its answer is nobody's."""
        if self.link is not None:
            self.link.say(Kind.ASK, [0, what, list(arguments)])

    def answer(self, fields: Fields) -> None:
        """Take the answer to what was asked."""
        number, fault, result = fields
        future = self._asked.get(number)
        if future is None or future.done():
            return
        if fault:
            future.set_exception(Unanswered(f"{self}: {fault}", fault))
        else:
            future.set_result(result)

    def end(self) -> None:
        """Answer what is still asked, and end the link. Idempotent."""
        self.state = State.DEAD
        if self.link is not None:
            self.link.close()
        self.link = None
        for future in self._asked.values():
            if not future.done():
                future.set_exception(Unanswered(f"{self} is gone"))
