"""The documents about the protocol, tried out: every exchange in them is sent to a real server without sockets.

A block of ``text HOUSE`` is an exchange of one client in one of HOUSES, with ``connected`` behind it for a client whose
connect command was answered before. A line begins with ``>`` (the client sends), ``<`` (it gets) or ``=`` (something
happens); after each of the first and the last, all that comes is compared. A block of ``sh`` is one curl command, and
the ``json`` after it the reply. What varies between runs (VARIES) is compared by type; ids and epochs, wherever they
come again, must be the same again.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from server.admin.node_api import NodeApi
from server.brokers.base import Retention
from server.core.lag import LagLimits, LagPolicy
from server.edge.heartbeat import TICK
from server.node.namespaces import ChannelOptions, RecoveryMode
from tests import forgeries
from tests.backend import Client, api_of, signed_house
from tests.house import House, house

ROOT: Final = Path(__file__).resolve().parent.parent
PROTOCOL: Final = ROOT / "docs" / "protocol.md"

# The document's client has this id.
ME: Final = "8a1f6c1e-5f0c-4c1c-9d6e-0c2f3a7b1d11"
LEARNED: Final = frozenset({"client", "session", "epoch"})
VARIES: Final = frozenset({"version", "node", "time", "ttl", "uid", "name", "uptime"})

KEEPS: Final = Retention(10, 300)
ALL: Final = ChannelOptions(presence=True, join_leave=True, retention=KEEPS)
_PLAIN: Final = ChannelOptions()
_LAG: Final = LagLimits(LagPolicy.DROP_OLDEST, messages=2)


def _signed_house() -> House:
    return signed_house(
        options=ChannelOptions(retention=KEEPS),
        namespaces={"vip": ChannelOptions(subscribe=False, retention=KEEPS)},
    )


HOUSES: Final[dict[str, Callable[[], House]]] = {
    "raw": house,
    "plain": house,
    "chat": lambda: house(options=ALL),
    "cache": lambda: house(options=ChannelOptions(retention=KEEPS, recovery_mode=RecoveryMode.CACHE)),
    "delta": lambda: house(options=ChannelOptions(retention=KEEPS, delta=True)),
    "conflate": lambda: house(options=ChannelOptions(lag=LagLimits(LagPolicy.CONFLATE, messages=2))),
    "lag": lambda: house(options=ChannelOptions(retention=KEEPS, lag=_LAG)),
    "tokens": _signed_house,
    "api": lambda: house(options=ALL, namespaces={"plain": _PLAIN}),
}


@dataclass(frozen=True)
class Block:
    """A fenced block: its kind and the words behind it, its lines, and the line of the document that it begins in."""

    kind: str
    words: tuple[str, ...]
    lines: tuple[str, ...]
    at: int

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def blocks(text: str) -> Iterator[Block]:
    """Find the fenced blocks of a document."""
    lines = iter(enumerate(text.splitlines(), 1))
    for at, line in lines:
        if line.startswith("```"):
            kind, *words = line[3:].split() or [""]
            inner = []
            for _, each in lines:
                if each == "```":
                    break
                inner.append(each)
            else:
                raise AssertionError(f"line {at}: a block without an end")
            yield Block(kind, tuple(words), tuple(inner), at)


@dataclass
class Likeness:
    """Compares what a document says with what was said; remembers which id of the one is which of the other."""

    known: dict[str, str] = field(default_factory=dict)

    def translate(self, text: str) -> str:
        """Put the real ids and epochs into what the document says."""
        for said, real in self.known.items():
            text = text.replace(said, real)
        return text

    def compare(self, documented: Any, real: Any, name: str = "") -> None:
        """Raise AssertionError where the two differ."""
        if name in VARIES:
            assert type(documented) is type(real), f"{name}: {documented!r} is not of the type of {real!r}"
        elif name in LEARNED and isinstance(documented, str) and isinstance(real, str):
            if documented not in self.known:
                assert real not in self.known.values(), f"{name}: this one has another name in the document"
            assert self.known.setdefault(documented, real) == real, f"{name}: {documented} is another here"
        elif isinstance(documented, dict) and isinstance(real, dict):
            documented = {self.known.get(key, key): value for key, value in documented.items()}
            assert list(documented) == list(real), f"{name}: it has {list(real)}, in this order"
            for key, value in documented.items():
                self.compare(value, real[key], key)
        elif isinstance(documented, list) and isinstance(real, list):
            assert len(documented) == len(real), f"{name}: there are {len(real)}"
            for value, other in zip(documented, real, strict=True):
                self.compare(value, other, name)
        elif documented == "DELTA":
            assert "@" in real, "Fossil's deltas copy"
        else:
            assert documented == real, f"{name}: it is {real!r}"


@dataclass
class Exchange:
    """One block of an exchange, being tried."""

    home: House
    api: NodeApi
    client: Client
    tokens: dict[str, str]
    is_raw: bool = False
    likeness: Likeness = field(default_factory=Likeness)
    heard: list[Any] = field(default_factory=list)
    messages: list[tuple[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, block: Block, tokens: dict[str, str]) -> Exchange:
        name, *more = block.words
        home = HOUSES[name]()
        if name == "raw":
            client = Client.listen(home, "main")
        elif more == ["connected"]:
            client = Client.connect(home)
        else:
            client = Client(home, home.open("/connection/websocket")[1])
        exchange = cls(home, api_of(home), client, tokens, is_raw=name == "raw")
        if client.id:
            exchange.likeness.known[ME] = client.id
        return exchange

    async def run(self, lines: tuple[str, ...]) -> None:
        """Try every line. Raises AssertionError, which names it."""
        for line in lines:
            mark, words = line[:1], line[2:]
            try:
                if mark == "<":
                    self._expect(words)
                else:
                    assert not self.heard, f"before this came {self.heard}"
                    await self._do(mark, words)
            except AssertionError as wrong:
                raise AssertionError(f"{line}\n{wrong}") from None
        assert not self.heard, f"in the end came {self.heard}"

    def _expect(self, words: str) -> None:
        assert self.heard, "nothing came"
        real = self.heard.pop(0)
        documented = json.loads(words) if isinstance(real, dict) else words
        self.messages.append(("<", words if self.is_raw else documented))
        self.likeness.compare(documented, real)

    async def _do(self, mark: str, words: str) -> None:
        if mark == ">":
            self.messages.append((">", words if self.is_raw else json.loads(words)))
            for name, token in self.tokens.items():
                words = words.replace(name, token)
            self.heard = self.client.say(self.likeness.translate(words))
            return
        assert mark == "=", "a line begins with <, > or ="
        if words.startswith("close "):
            _, code, reason = words.split(" ", 2)
            assert (self.client.code, self.client.reason) == (int(code), reason)
        elif words.startswith("POST /api/"):
            command, body = words.removeprefix("POST /api/").split(" ", 1)
            await self.api.call(command, json.loads(self.likeness.translate(body)), self.likeness.translate(body))
            self.heard = self.client.said()
        else:
            EVENTS[words](self)
            self.heard = self.client.said()


def _come_and_go(exchange: Exchange) -> None:
    other = Client.connect(exchange.home, "", "chat")
    other.say('{"id":9,"unsubscribe":{"channel":"chat"}}')


EVENTS: Final[dict[str, Callable[[Exchange], object]]] = {
    "a quarter of a second passes": lambda exchange: exchange.home.expel(),
    "26 seconds pass": lambda exchange: [exchange.home.tick(TICK) for _ in range(round(26 / TICK))],
    "another client subscribes to chat and leaves": _come_and_go,
    "the client stops reading": lambda exchange: exchange.client.transport.stall(),
    "the client reads again": lambda exchange: exchange.client.transport.drain(),
}


def tokens_of(all_blocks: list[Block]) -> dict[str, str]:
    """Sign the claims that the document shows."""
    shown = {block.words[0]: block for block in all_blocks if block.kind == "json" and block.words}
    return {f"{name.upper()}_TOKEN": forgeries.signed(json.loads(block.text)) for name, block in shown.items()}


Post = Callable[..., Awaitable[tuple[int, Any]]]


async def try_curl(command: str, reply: Any, post: Post, likeness: Likeness, key: str) -> str:
    """Do what a curl command says; compare the reply. Returns the name of the command of the API."""
    words = shlex.split(re.sub(r"\\\n\s*", "", command).replace("$KEY", key))
    assert words[0] == "curl"
    assert words[2:5:2] == ["-H", "-d"], words
    name, _, value = words[3].partition(": ")
    path = re.sub(r"^http://localhost:9000/api/?", "", words[1])
    status, real = await post(path, likeness.translate(words[5]).encode(), {name: value})
    assert status == 200
    likeness.compare(reply, real)
    return path
