"""Contact with a server for the commands that speak and listen: one connection after another until the work is done.

Laws: what can heal is tried again, with full-jitter exponential backoff, or when a server that goes says; what
cannot ends at once; contact lost and regained is said once each. Knows nothing of what is said over the connection.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from socket import gaierror
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus, InvalidURI, WebSocketException
from websockets.uri import parse_uri

from server.config import Settings, is_loopback

LARGEST_PUBLICATION: Final = 64 * 1024 * 1024  # bytes, out or in: far above what a server takes
_OPEN_TIMEOUT: Final = 10.0
_CLOSE_TIMEOUT: Final = 5.0
_PROVEN: Final = 10.0  # seconds after which a contact counts as regained for good

# RFC 9110: what a server or proxy answers that is busy, starting or stopping.
_PASSING_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_STATUSES: Final = {401: "bad or missing credentials", 403: "not allowed", 404: "no such path"}
# What a server that goes, or restarts, asks of its clients, so that they do not all come back at once.
_GOING: Final = frozenset({1001, 1012})
_WHEN: Final = re.compile(r"reconnect_after_ms=([0-9]{1,9})")
_LONGEST_AWAY: Final = 300.0
_CLOSES: Final = {1008: "not allowed", 1009: "larger than the server takes"}

Say = Callable[[str], object]


class RefusedError(Exception):
    """The server cannot be spoken to, and trying again will not help; the text is for the operator."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a channel is: the URL of its raw endpoint, and the token to show there."""

    url: str
    token: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, base: str, channel: str, token: str | None) -> Self:
        """Take a server's URL (ws:// or wss://, a path before /ws is kept). Raises ValueError."""
        try:
            parse_uri(base)
        except (InvalidURI, ValueError):
            raise ValueError("must be a URL such as ws://127.0.0.1:8000 or wss://example.com") from None
        parts = urlsplit(base)
        path = f"{parts.path.rstrip('/')}/ws/{quote(channel, safe='')}"
        return cls(urlunsplit((parts.scheme, parts.netloc, path, parts.query, "")), token)

    @property
    def shown(self) -> str:
        """The URL without what may be secret in it: user, password, query."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    async def connect(self) -> ClientConnection:
        """Open one connection. Raises OSError and websockets' exceptions."""
        local = is_loopback(urlsplit(self.url).hostname or "")
        return await connect(
            self.url,
            additional_headers={"Authorization": f"Bearer {self.token}"} if self.token else None,
            compression=None,
            proxy=None if local else True,
            open_timeout=_OPEN_TIMEOUT,
            close_timeout=_CLOSE_TIMEOUT,
            max_size=LARGEST_PUBLICATION,
        )


def base_url(settings: Settings) -> str:
    """Name the server that these settings configure, as this machine reaches it. Raises ValueError."""
    if settings.port == 0:
        raise ValueError("the configured port is 0, any free one: give --url")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    scheme = "wss" if settings.tls_cert else "ws"
    return f"{scheme}://[{host}]:{settings.port}" if ":" in host else f"{scheme}://{host}:{settings.port}"


class Backoff:
    """Delays in seconds between attempts: anything from 0 to a ceiling that doubles from 0.5 to 30.

    `draw` takes the two ends of the range.
    """

    __slots__ = ("_attempts", "_draw")

    FIRST: Final = 0.5
    HIGHEST: Final = 30.0

    def __init__(self, draw: Callable[[float, float], float] = random.uniform) -> None:
        self._draw = draw
        self._attempts = 0

    def next(self, at_least: float = 0.0) -> float:
        """Draw the next delay; with a server's word for `at_least` so many whole seconds, from there or from above."""
        ceiling = min(self.HIGHEST, self.FIRST * 2 ** min(self._attempts, 10))
        self._attempts += 1
        # Everyone who was told the same second has that second to spread over.
        return self._draw(at_least, max(ceiling, at_least + 1.0 if at_least else 0.0))

    def reset(self) -> None:
        """Start over: the last contact lasted."""
        self._attempts = 0


async def keep_contact(
    destination: Destination,
    talk: Callable[[ClientConnection], Awaitable[object]],
    say: Say,
    *,
    retry: bool = True,
    backoff: Backoff | None = None,
) -> None:
    """Call `talk` with a connection, and again with a new one whenever contact is lost, until it returns.

    Raises RefusedError if contact cannot be had: at the first failure without `retry`.
    """
    backoff = backoff or Backoff()
    clock = asyncio.get_running_loop().time
    had_contact = in_silence = False
    while True:
        opened = None
        try:
            connection = await destination.connect()
            try:
                opened = clock()
                if in_silence:
                    say(f"in contact with {destination.shown}" + (" again" if had_contact else ""))
                had_contact, in_silence = True, False
                await talk(connection)
                return
            finally:
                # Not a closing handshake, which a stalled server would never answer: that is `talk`'s, where it counts.
                connection.transport.abort()
        except (OSError, WebSocketException) as error:
            why = f"{'lost contact' if had_contact else 'no contact'} with {destination.shown}: {reason(error)}"
            if not (retry and can_heal(error)):
                raise RefusedError(why) from None
            if not in_silence:
                say(f"{why}; trying again")
            in_silence = True
            if opened is not None and clock() - opened > _PROVEN:
                backoff.reset()
            asked = asked_away(error)
            await asyncio.sleep(asked if asked is not None else backoff.next(_retry_after(error)))


async def goodbye(connection: ClientConnection) -> ConnectionClosed | None:
    """Do the closing handshake; return how the connection closed, None if the server would not have it."""
    try:
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            await asyncio.gather(connection.close(), discard(connection))
    except TimeoutError:
        return None
    except ConnectionClosed as closed:
        return closed
    raise AssertionError("discard() ends with the connection, and says so")


async def discard(connection: ClientConnection) -> None:
    """Drop what comes in until the connection closes: unread, it would hold up the control frames behind it.

    Raises ConnectionClosed.
    """
    while True:
        await connection.recv(decode=False)


def can_heal(error: Exception) -> bool:
    """Whether the same attempt may succeed later."""
    match error:
        case ConnectionClosed():
            code = _close_code(error)
            return code not in _CLOSES and not 3500 <= code < 4000
        case InvalidStatus():
            return error.response.status_code in _PASSING_STATUSES
        case ssl.SSLCertVerificationError():
            return False
    return isinstance(error, OSError | InvalidMessage)


def reason(error: Exception) -> str:
    """Say in a few words what went wrong."""
    match error:
        case ConnectionClosed():
            close, code = error.rcvd or error.sent, _close_code(error)
            words = _clean(close.reason) or _CLOSES.get(code) if close else "the connection broke off"
            return f"closed with {code}" + (f", {words}" if words else "")
        case InvalidStatus():
            status = error.response.status_code
            return f"HTTP {status}" + (f", {_STATUSES[status]}" if status in _STATUSES else "")
        case InvalidMessage():
            return "no WebSocket server answers there"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted ({_clean(error.verify_message)})"
        case OSError(errno=int(number)) if number > 0 and not isinstance(error, gaierror | ssl.SSLError):
            return os.strerror(number).lower()
        case TimeoutError():
            return "it does not answer"
    return _clean(str(error))


def _close_code(error: ConnectionClosed) -> int:
    close = error.rcvd or error.sent
    return close.code if close else 1006  # RFC 6455, section 7.1.5


def _clean(text: str) -> str:
    """Keep what a server says from steering the terminal."""
    return re.sub(r"[^ -~]+", " ", text)[:120].strip()


def asked_away(error: Exception) -> float | None:
    """How many seconds a server that goes or restarts asks us to stay away, within reason; None if it does not."""
    close = error.rcvd if isinstance(error, ConnectionClosed) else None
    when = _WHEN.search(close.reason) if close is not None and close.code in _GOING else None
    return min(int(when[1]) / 1000, _LONGEST_AWAY) if when is not None else None


def _retry_after(error: Exception) -> float:
    """How many seconds a refusal asks us to stay away, within reason."""
    value = error.response.headers.get("Retry-After", "") if isinstance(error, InvalidStatus) else ""
    return min(float(value), Backoff.HIGHEST) if re.fullmatch(r"[0-9]{1,6}", value) else 0.0


async def first_of(*works: Awaitable[Any]) -> None:
    """Run several works at once until one ends; cancel the others, and raise what it raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    # The earlier work counts, should two have ended in the same turn.
    next(task for task in tasks if task in done).result()
