"""Clients that misbehave by order: they stall, they read slowly, or they come and go.

They are owed nothing, so they take no part in the ledger's sum. What counts is that they really did what was asked:
a run whose troublemakers made no trouble shows nothing about a server that survives them.

Laws: a stalled client finishes its handshake with a receive buffer as small as the kernel allows and never reads
again, also not to find out that it was cut off: it asks the kernel for the state of its connection. A slow client
reads so many bytes per second and no more. A flapping client leaves after ``FLAP_LIFE`` seconds, every other one
without a word, and the next one comes.
"""

from __future__ import annotations

import _socket
import fcntl
import struct
import termios
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent

from loadtest.protocol import close_frame

SMALL_BUFFER = 4096
FLAP_LIFE = 1.0
_TICK = 0.25
_TCP_ESTABLISHED = 1

#: Opens a connection on the n-th channel: prepare(socket) before it connects, done(socket or None, rest or reason).
Open = Callable[[int, Callable[[Any, "bytes | str"], None], "Callable[[Any], None] | None"], None]


def small_receive_buffer(sock: Any) -> None:
    """Let the kernel hold as little as possible for a client that does not read."""
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF, SMALL_BUFFER)


def unread(sock: Any) -> int:
    """How many bytes wait in the kernel for a client to read them."""
    return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, b"\0\0\0\0"))[0])


def cut_off(sock: Any) -> bool:
    """Whether the server has ended the connection, without reading from it."""
    info = sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, 1)
    return bool(info[0] != _TCP_ESTABLISHED)


class Stalled:
    """Clients that never read."""

    def __init__(self) -> None:
        self.sockets: list[Any] = []
        self.failed: list[str] = []

    def start(self, count: int, open_: Open) -> None:
        """Connect ``count`` of them."""
        for number in range(count):
            open_(number, self._opened, small_receive_buffer)

    def _opened(self, sock: Any, outcome: bytes | str) -> None:
        if sock is None:
            self.failed.append(str(outcome))
        else:
            self.sockets.append(sock)

    def observed(self) -> int:
        """How many have data that they did not read, or were cut off for it."""
        return sum(1 for sock in self.sockets if cut_off(sock) or unread(sock) > 0)

    def evicted(self) -> int:
        """How many the server has cut off."""
        return sum(1 for sock in self.sockets if cut_off(sock))

    def close(self) -> None:
        """End them all. Idempotent."""
        while self.sockets:
            self.sockets.pop().close()


class Slow:
    """Clients that read ``bps`` bytes a second."""

    def __init__(self, bps: int) -> None:
        self._bps = bps
        self._sockets: list[Any] = []
        self._read: dict[Any, int] = {}
        self._evicted: set[Any] = set()
        self.failed: list[str] = []
        self._loop: gevent.Greenlet | None = None

    def start(self, count: int, open_: Open) -> None:
        """Connect ``count`` of them, and let them read."""
        for number in range(count):
            open_(number, self._opened, small_receive_buffer)
        if count:
            self._loop = gevent.spawn(self._run)

    def _opened(self, sock: Any, outcome: bytes | str) -> None:
        if sock is None:
            self.failed.append(str(outcome))
        else:
            self._sockets.append(sock)
            self._read[sock] = len(outcome)

    def _run(self) -> None:
        began, allowed = monotonic(), 0
        while True:
            gevent.sleep(_TICK)
            until = int((monotonic() - began) * self._bps)
            for sock in self._sockets:
                if sock not in self._evicted:
                    self._sip(sock, until - allowed)
            allowed = until

    def _sip(self, sock: Any, share: int) -> None:
        try:
            got = sock.recv(share) if share else None
        except BlockingIOError:
            return
        except OSError:
            got = b""
        if got is None:
            return
        self._read[sock] += len(got)
        if not got:
            self._evicted.add(sock)

    def observed(self) -> int:
        """How many have read something and have more waiting, or were cut off for that."""
        return sum(1 for sock in self._sockets if sock in self._evicted or cut_off(sock) or self._read[sock] > 0)

    def evicted(self) -> int:
        """How many the server has cut off."""
        return sum(1 for sock in self._sockets if sock in self._evicted or cut_off(sock))

    def close(self) -> None:
        """End them all. Idempotent."""
        if self._loop is not None:
            self._loop.kill()
        while self._sockets:
            self._sockets.pop().close()


class Flapping:
    """Clients that come and go: so many connects a second."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._here: deque[tuple[float, Any]] = deque()
        self._loop: gevent.Greenlet | None = None
        self._began: float | None = None
        self._ended: float | None = None
        self.done = 0  # connects that succeeded
        self.failed: list[str] = []
        self._left = 0

    def start(self, open_: Open) -> None:
        """Let them come and go until ``cease``."""
        self._began = monotonic()
        self._loop = gevent.spawn(self._run, open_)

    def asked(self) -> int:
        """How many connects the rate called for until now."""
        if self._began is None:
            return 0
        return int(((self._ended or monotonic()) - self._began) * self._rate)

    def _opened(self, sock: Any, outcome: bytes | str) -> None:
        if sock is None:
            self.failed.append(str(outcome))
            return
        self.done += 1
        self._here.append((monotonic(), sock))
        if self._ended is not None:
            self.close()

    def _run(self, open_: Open) -> None:
        begun = 0
        while True:
            while begun < self.asked():
                open_(begun, self._opened, None)
                begun += 1
            while self._here and self._here[0][0] < monotonic() - FLAP_LIFE:
                self._leave(self._here.popleft()[1])
            gevent.sleep(min(0.5 / self._rate, _TICK))

    def _leave(self, sock: Any) -> None:
        self._left += 1
        try:
            if self._left % 2:
                sock.send(close_frame(1000))
        except OSError:
            pass  # the server was faster
        sock.close()

    def cease(self) -> None:
        """Nobody new comes, and those who are here leave. Idempotent."""
        self._ended = self._ended or monotonic()
        if self._loop is not None:
            self._loop.kill()
        self.close()

    def close(self) -> None:
        """End them all. Idempotent."""
        while self._here:
            self._leave(self._here.popleft()[1])


class Troublemakers:
    """All of them, of one run."""

    def __init__(self, stalled: int, slow: int, slow_bps: int, flapping: float) -> None:
        self._asked = (stalled, slow, flapping)
        self.stalled, self.slow, self.flapping = Stalled(), Slow(slow_bps), Flapping(flapping)

    def start(self, open_: Open) -> None:
        """Connect those who are there all the time."""
        stalled, slow, _ = self._asked
        self.stalled.start(stalled, open_)
        self.slow.start(slow, open_)

    def go(self, open_: Open) -> None:
        """Publishing begins: now others come and go."""
        if self._asked[2]:
            self.flapping.start(open_)

    def cease(self) -> None:
        """Publishing is over: nobody comes and goes any more. Idempotent."""
        self.flapping.cease()

    def seen(self) -> dict[str, int]:
        """What they were seen to do."""
        return {
            "stalled_observed": self.stalled.observed(),
            "stalled_evicted": self.stalled.evicted(),
            "slow_observed": self.slow.observed(),
            "slow_evicted": self.slow.evicted(),
            "flapping_asked": self.flapping.asked(),
            "flapping_done": self.flapping.done,
        }

    def close(self) -> None:
        """End them all. Idempotent."""
        self.flapping.cease()
        self.slow.close()
        self.stalled.close()
