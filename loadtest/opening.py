"""Opening connections: addresses, sockets, introductions; without blocking, in order, a bounded number at a time.

Laws: whoever asked for a connection hears exactly once how it went: an open socket and the bytes that followed the
introduction, or a short reason that many failures can be counted under. Everything runs in gevent's hub and never
blocks.
"""

from __future__ import annotations

import _socket  # the C class itself: gevent replaces socket.socket, and its reads would switch greenlets
import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from time import monotonic_ns
from typing import Any

import gevent
from websockets.uri import WebSocketURI

from loadtest.dialect import Introduction
from loadtest.histogram import Histogram
from loadtest.protocol import ProtocolFault

READ, WRITE = 1, 2  # what a hub's watcher waits for
MAX_OPENING = 128
OPEN_TIMEOUT = 10.0
_IP_BIND_ADDRESS_NO_PORT = 24
_NAMES = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ETIMEDOUT: "timeout",
    errno.EMFILE: "too many open files",
    errno.EADDRNOTAVAIL: "out of local ports",
}


def reason_of(error: OSError) -> str:
    """A short, stable reason for a socket's error."""
    return _NAMES.get(error.errno or 0) or (os.strerror(error.errno).lower() if error.errno else str(error))


class Route:
    """To one address, from local ones: a loopback address can be reached from several, each with its own ports."""

    __slots__ = ("_host", "_loopback", "address", "family")

    def __init__(self, address: tuple[Any, ...], family: int, first: int = 0) -> None:
        self.address = address
        self.family = family
        self._loopback = str(address[0]).startswith("127.")
        self._host = first

    def bind(self, sock: Any) -> None:
        """Choose the local address; the port is chosen by the kernel when it connects."""
        if self._loopback and self._host:
            sock.setsockopt(_socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((f"127.0.{self._host // 250}.{self._host % 250 + 1}", 0))

    def exhausted(self) -> bool:
        """The ports of this address are used up: True if another one can be tried."""
        if not self._loopback or self._host > 1000:
            return False
        self._host += 1
        return True


class Opening:
    """One connection on its way until its client hears."""

    __slots__ = ("began", "done", "introduction", "prepare", "route", "sock", "watcher")

    def __init__(
        self,
        route: Route,
        introduction: Introduction,
        prepare: Callable[[Any], None] | None,
        done: Callable[[Any, bytes | str], None],
    ) -> None:
        self.route = route
        self.introduction = introduction
        self.prepare = prepare
        self.done = done  # with the socket and the bytes after the introduction, or with None and the reason why not
        self.sock: Any = None
        self.watcher: Any = None
        self.began = 0


class Opener:
    """Opens connections without blocking, in order, at most ``MAX_OPENING`` at a time."""

    def __init__(self, max_opening: int = MAX_OPENING) -> None:
        self._max_opening = max_opening
        self._waiting: deque[Opening] = deque()
        self._opening: set[Opening] = set()
        self._loop = gevent.get_hub().loop
        self._clock = self._loop.timer(0.5, 0.5)
        self._clock.start(self._expire)
        self.handshakes = Histogram()
        self.fresh = Histogram()  # the handshakes since somebody last took them away
        self.first_ns: int | None = None  # when the first began and the last was done: connects per second
        self.last_ns: int | None = None

    def open(
        self,
        route: Route,
        introduction: Introduction,
        done: Callable[[Any, bytes | str], None],
        prepare: Callable[[Any], None] | None = None,
    ) -> None:
        """Open a connection; ``done`` hears how it went. ``prepare`` may set options on the socket."""
        self._waiting.append(Opening(route, introduction, prepare, done))
        self._fill()

    @property
    def pending(self) -> int:
        """How many are waiting or on their way."""
        return len(self._waiting) + len(self._opening)

    def abandon(self) -> None:
        """Give up all that are waiting or on their way, without telling anyone. Idempotent."""
        self._waiting.clear()
        for opening in list(self._opening):
            self._release(opening)
            opening.sock.close()
        self._clock.stop()
        self._clock.close()

    def _fill(self) -> None:
        while self._waiting and len(self._opening) < self._max_opening:
            self._begin(self._waiting.popleft())

    def _begin(self, opening: Opening) -> None:
        opening.began = monotonic_ns()
        if self.first_ns is None:
            self.first_ns = opening.began
        try:
            opening.sock = self._connect(opening)
        except OSError as error:
            opening.done(None, reason_of(error))
            return
        self._opening.add(opening)
        self._watch(opening, WRITE, self._writable)

    def _connect(self, opening: Opening) -> Any:
        route = opening.route
        while True:
            sock = _socket.socket(route.family, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC)
            try:
                sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
                if opening.prepare:
                    opening.prepare(sock)
                route.bind(sock)
                code = sock.connect_ex(route.address)
                if code == errno.EADDRNOTAVAIL and route.exhausted():
                    sock.close()
                    continue
                if code not in (0, errno.EINPROGRESS):
                    raise OSError(code, os.strerror(code))
                return sock
            except BaseException:
                sock.close()
                raise

    def _watch(self, opening: Opening, events: int, callback: Callable[[Opening], None]) -> None:
        if opening.watcher is not None:
            opening.watcher.stop()
            opening.watcher.close()
        opening.watcher = self._loop.io(opening.sock.fileno(), events)
        opening.watcher.start(callback, opening)

    def _writable(self, opening: Opening) -> None:
        code = opening.sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        if code:
            self._finish(opening, reason_of(OSError(code, "")))
            return
        introduction = opening.introduction
        try:
            introduction.outgoing = introduction.outgoing[opening.sock.send(introduction.outgoing) :]
        except BlockingIOError:
            return
        except OSError as error:
            self._finish(opening, reason_of(error))
            return
        if not introduction.outgoing:
            self._watch(opening, READ, self._readable)

    def _readable(self, opening: Opening) -> None:
        try:
            data = opening.sock.recv(16384)
        except BlockingIOError:
            return
        except OSError as error:
            self._finish(opening, reason_of(error))
            return
        if not data:
            self._finish(opening, "closed during the handshake")
            return
        try:
            rest = opening.introduction.receive(data)
        except ProtocolFault as fault:
            self._finish(opening, str(fault))
            return
        if rest is not None:
            self.last_ns = monotonic_ns()
            self.handshakes.record(self.last_ns - opening.began)
            self.fresh.record(self.last_ns - opening.began)
            self._finish(opening, rest)
        elif opening.introduction.outgoing:
            self._watch(opening, WRITE, self._writable)

    def _finish(self, opening: Opening, outcome: bytes | str) -> None:
        self._release(opening)
        if isinstance(outcome, str):
            opening.sock.close()
            opening.done(None, outcome)
        else:
            opening.done(opening.sock, outcome)
        self._fill()

    def _release(self, opening: Opening) -> None:
        self._opening.discard(opening)
        if opening.watcher is not None:
            opening.watcher.stop()
            opening.watcher.close()
            opening.watcher = None

    def _expire(self) -> None:
        oldest = monotonic_ns() - int(OPEN_TIMEOUT * 1e9)
        for opening in [each for each in self._opening if each.began < oldest]:
            self._finish(opening, "timeout")


def resolve(uri: WebSocketURI) -> tuple[tuple[Any, ...], int]:
    """The address of a server and its family.

    Raises:
        ProtocolFault: the name has no address.
    """
    try:
        found = socket.getaddrinfo(uri.host, uri.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ProtocolFault(f"{uri.host} has no address: {error.strerror or error}") from None
    family, _, _, _, address = found[0] if len(found) == 1 else next(filter(_answers, found), found[0])
    return address, int(family)


def _answers(candidate: tuple[Any, ...]) -> bool:
    """Whether somebody listens there: ``localhost`` has two addresses, and a server often but one of them."""
    family, kind, _, _, address = candidate
    with socket.socket(family, kind) as sock:
        sock.settimeout(1.0)
        return sock.connect_ex(address) == 0
