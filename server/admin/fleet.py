"""The servers that share a broker, and what they ask each other: commands of the server API, for their own clients.

    {"v": 1, "from": UID, "number": 7, "ask": "disconnect", "request": {…}}           to all
    {"v": 1, "from": UID, "number": 7, "answer": {"result": {…}} or {"error": {…}}}   to the one that asked

Laws:
- every other server that hears us does a command once, on its own clients; its answer is waited for no longer than
  PATIENCE. One that hangs does what it was asked when it wakes.
- what others say is data: checked in size, version and form, and what is asked by whoever does the commands. Who may
  speak here is Redis' affair.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from secrets import token_hex
from typing import Any, Final

import orjson

from server.admin.api import Answer
from server.admin.fields import INTERNAL, ApiError
from server.brokers.base import BrokerError, Switchboard

log = logging.getLogger("stentor.fleet")

VERSION: Final = 1
# What is asked of others: the rest is the broker's affair.
ASKED: Final = frozenset({"subscribe", "unsubscribe", "disconnect", "refresh", "channels"})
# A server whose workers are all busy waits a second for them.
PATIENCE: Final = 1.5
MOST_ASKED: Final = 1 << 20
MOST_ANSWERED: Final = 4 << 20
# Commands of others that are done at the same time.
MOST_AT_ONCE: Final = 1000

_TOO_LONG: Final = ApiError(INTERNAL, "a server has more to tell than can be sent: ask for less")
_BUSY: Final = ApiError(INTERNAL, "a server is asked too much at once")

# Does a command on this server's own clients.
Do = Callable[[str, Mapping[str, Any]], Awaitable[Answer]]


class Fleet:
    """See the module. `nodes` tells of this server's nodes: itself, or its workers."""

    def __init__(self, switchboard: Switchboard, do: Do, nodes: Callable[[], Awaitable[list[Answer]]]) -> None:
        self.uid = token_hex(8)
        self._switchboard = switchboard
        self._do = do
        self._nodes = nodes
        self._asked: dict[int, _Asked] = {}
        self._number = 0
        self._tasks: set[asyncio.Task[None]] = set()
        switchboard.attend(self.uid, self.take, self._announce)

    # Asking

    async def ask(self, name: str, request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Have all other servers do a command; return what they answer in time. Raises ApiError."""
        self._number += 1
        asked = self._asked[self._number] = _Asked()
        try:
            said = self._encode(self._number, ask=name, request=request)
            if len(said) > MOST_ASKED:
                raise ApiError(INTERNAL, "the request is too long for the other servers")
            asked.expect(await self._tell("", said) - 1)  # we are among those who hear it
            async with asyncio.timeout(PATIENCE):
                await asked.complete
        except TimeoutError:
            pass
        finally:
            del self._asked[self._number]
        return asked.answers

    async def others(self) -> list[Answer]:
        """Return what the other servers have last told of their nodes; none if nobody can be asked."""
        words: Mapping[str, bytes] | BrokerError = await _answer(self._switchboard.announced)
        if isinstance(words, BrokerError):
            return []
        return [node for uid, word in words.items() if uid != self.uid for node in _read_nodes(word)]

    async def _tell(self, uid: str, said: bytes) -> int:
        heard: int | BrokerError = await _answer(lambda done: self._switchboard.tell(uid, said, done))
        if isinstance(heard, BrokerError):
            raise ApiError(INTERNAL, "done on this server alone: the broker cannot be reached now")
        return heard

    # Being asked

    def take(self, said: bytes) -> bool:
        """Take what a server says; false if it makes no sense."""
        try:
            word = orjson.loads(said) if len(said) <= MOST_ANSWERED else None
        except orjson.JSONDecodeError:
            return False
        match word:
            case {"v": 1, "from": self.uid}:
                return True
            case {"v": 1, "from": str(uid), "number": int(number), "ask": str(name), "request": dict(request)}:
                self._run(self._reply(uid, number, name, request))
            case {"v": 1, "from": str(), "number": int(number), "answer": dict(answer)}:
                if number in self._asked:
                    self._asked[number].take(answer)
            case _:
                return False
        return True

    async def _reply(self, uid: str, number: int, name: str, request: Mapping[str, Any]) -> None:
        try:
            if len(self._tasks) > MOST_AT_ONCE:
                raise _BUSY
            if name not in ASKED:
                raise ApiError(INTERNAL, "a server does not know this command")
            answer: Answer = {"result": await self._do(name, request)}
        except ApiError as error:
            answer = {"error": error.told}
        said = self._encode(number, answer=answer)
        if len(said) > MOST_ANSWERED:
            said = self._encode(number, answer={"error": _TOO_LONG.told})
        self._switchboard.tell(uid, said, _ignore)

    # Being there

    def _announce(self) -> None:
        self._run(self._leave_word())

    async def _leave_word(self) -> None:
        try:
            nodes = await self._nodes()
        except ApiError:
            return  # nobody is there to tell of yet
        self._switchboard.announce(orjson.dumps({"v": VERSION, "nodes": nodes}))

    def _encode(self, number: int, **what: object) -> bytes:
        return orjson.dumps({"v": VERSION, "from": self.uid, "number": number, **what})

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("a command for another server failed", exc_info=fault)


class _Asked:
    """What was asked of all others: complete when so many have answered as have heard it."""

    def __init__(self) -> None:
        self.answers: list[Mapping[str, Any]] = []
        self.complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._expected = -1

    def expect(self, answers: int) -> None:
        self._expected = max(0, answers)
        self._look()

    def take(self, answer: Mapping[str, Any]) -> None:
        self.answers.append(answer)
        self._look()

    def _look(self) -> None:
        if 0 <= self._expected <= len(self.answers) and not self.complete.done():
            self.complete.set_result(None)


def _read_nodes(word: bytes) -> list[Answer]:
    try:
        told = orjson.loads(word)
    except orjson.JSONDecodeError:
        return []
    match told:
        case {"v": 1, "nodes": list(nodes)}:
            return [node for node in nodes if isinstance(node, dict)]
    return []


async def _answer(ask: Callable[[Callable[[Any], object]], object]) -> Any:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    ask(lambda result: None if future.done() else future.set_result(result))
    return await future


def _ignore(answer: object) -> None:
    """Whoever asked waits no longer than it has patience."""
