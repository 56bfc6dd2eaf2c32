"""The Centrifuge dialect, in JSON: one connection for all channels of a client, commands with replies, and pushes.

Of the protocol it speaks what a load test needs: connect and subscribe in one frame, publish, the pings of the
protocol. Source: centrifugal.dev, "Client protocol", version 2.

Laws: those of ``loadtest.dialect``. An id of a publish command is its publication's number above ``FIRST_ID``, so that
a reply can be attributed, and that all publish commands of a channel are of one length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson
from websockets.frames import Frame, Opcode
from websockets.uri import WebSocketURI, parse_uri

from loadtest.dialect import Opening, Payload, Ping, Reply, Said, Unsubscribed
from loadtest.layout import Layout, PushFrames
from loadtest.protocol import ProtocolFault

PATH = "/connection/websocket"
#: Ten digits from the first publication to the last that 32 bits have room for.
FIRST_ID = 1_000_000_000
_CONNECT = 1


class CentrifugeDialect:
    """See the module."""

    name = "centrifuge"
    answers = True

    def __init__(self, url: str, token: str = "") -> None:
        self._uri = parse_uri(url)
        self._token = token

    def split(self, channels: Sequence[int]) -> list[tuple[int, ...]]:
        return [tuple(sorted(channels))]  # in one order, so that those who hear the same are one audience

    def target(self, channels: Sequence[str]) -> WebSocketURI:
        return self._uri

    def layout(self, size: int, name: Callable[[int], str]) -> Layout:
        return PushFrames(size, name)

    def opening(self, channels: Sequence[str]) -> Opening:
        connect = {"name": "loadtest", **({"token": self._token} if self._token else {})}
        commands: list[dict[str, Any]] = [{"id": _CONNECT, "connect": connect}]
        commands += [{"id": id, "subscribe": {"channel": channel}} for id, channel in enumerate(channels, _CONNECT + 1)]
        awaited = {command["id"]: "connect" if "connect" in command else "subscribe" for command in commands}
        return Opening(_frame(b"\n".join(map(orjson.dumps, commands))), awaited)

    def publication(self, channel: str, payload: bytes, number: int) -> bytes:
        return _frame(
            b'{"id":%d,"publish":{"channel":%b,"data":%b}}' % (FIRST_ID + number, orjson.dumps(channel), payload)
        )

    def number_of(self, reply: int) -> int:
        return reply - FIRST_ID

    def read(self, message: bytes) -> Iterator[Said]:
        for line in message.split(b"\n"):
            if line:
                try:
                    yield from _said(orjson.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError):
                    raise ProtocolFault(f"not of the Centrifuge protocol: {line[:60]!r}") from None


def _said(fields: Any) -> Iterator[Said]:
    if type(fields) is not dict:
        raise TypeError("a message is an object")
    if not fields:
        yield Ping(_frame(b"{}"))
    elif "push" in fields:
        push = fields["push"]
        if "pub" in push:
            yield Payload(orjson.dumps(push["pub"]["data"]), str(push["channel"]))
        elif "unsubscribe" in push:
            yield Unsubscribed(str(push["channel"]), int(push["unsubscribe"].get("code", 0)))
    elif "error" in fields:
        error = fields["error"]
        yield Reply(int(fields["id"]), f"error {int(error['code'])} {error.get('message', '')}".rstrip())
    else:
        yield Reply(int(fields["id"]), None)


def _frame(payload: bytes) -> bytes:
    return Frame(Opcode.TEXT, payload).serialize(mask=True)
