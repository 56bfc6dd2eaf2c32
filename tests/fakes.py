"""Stand-ins for what is slow or not to be controlled: clock, event loop, transport. Named for how they behave.

`Transport` is as strict as uvloop's (``test_fakes.py`` holds the two against each other), so that what passes here is
not refused there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol


class Clock:
    """Stands still until it is told to move; in seconds."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> float:
        self.now += seconds
        return self.now


class Loop:
    """Runs what it is given when it is told to turn; timers go by the `clock`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.turns = 0
        self._ready: deque[Callable[[], object]] = deque()
        self._timers: list[tuple[float, Callable[[], object]]] = []

    def call_soon(self, callback: Callable[[], object]) -> None:
        self._ready.append(callback)

    def call_later(self, delay: float, callback: Callable[[], object]) -> None:
        self._timers.append((self.clock.now + delay, callback))

    @property
    def is_idle(self) -> bool:
        return not self._ready

    @property
    def timers(self) -> list[float]:
        """When what waits is due."""
        return sorted(due for due, _ in self._timers)

    def turn(self) -> None:
        """Run what was ready when the turn began, and the timers that are due."""
        self.turns += 1
        due = [timer for timer in self._timers if timer[0] <= self.clock.now + 1e-9]
        self._timers = [timer for timer in self._timers if timer not in due]
        ready, self._ready = self._ready, deque()
        for callback in (*(callback for _, callback in sorted(due, key=lambda timer: timer[0])), *ready):
            callback()

    def settle(self) -> None:
        """Turn until nothing is ready."""
        while not self.is_idle:
            self.turn()


class FlowControlled(Protocol):
    """The part of a protocol that a transport speaks to while it writes."""

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


class Transport:
    """Takes `room` bytes and buffers the rest, as a socket does whose peer does not read (None: takes all).

    What the peer has got is in `received`. With `write_buffer_limits(high=0)` it pauses the protocol as soon as a byte
    is buffered, and resumes it when none is.
    """

    def __init__(self, protocol: Any = None, *, room: int | None = None, address: str = "127.0.0.1") -> None:
        self.protocol = protocol
        self.room = room
        self.received = bytearray()
        self.writes: list[bytes] = []
        self.is_reading = True
        self.has_ended = False  # write_eof() was called
        self.is_lost = False
        self.is_aborted = False
        self._address = address
        self._buffer = bytearray()
        self._is_closing = False
        self._is_paused = False

    # What a protocol calls

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == 0, "the edge wants to know at once"

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self._address, 50000) if name == "peername" else default

    def get_write_buffer_size(self) -> int:
        return len(self._buffer)

    def is_closing(self) -> bool:
        return self._is_closing

    def can_write_eof(self) -> bool:
        return True

    def write(self, data: bytes) -> None:
        self._ensure_alive()
        if self.has_ended:
            raise RuntimeError("Cannot call write() after write_eof()")
        assert type(data) is bytes, f"uvloop is fast for exactly bytes, not {type(data)}"
        if self.is_aborted or (self._is_closing and not self._buffer):
            return
        self.writes.append(data)
        self._buffer += data
        if self._is_paused:
            return
        self._flush()
        if self._buffer:
            self._is_paused = True
            self.protocol.pause_writing()

    def write_eof(self) -> None:
        self._ensure_alive()
        self.has_ended = True

    def close(self) -> None:
        self._is_closing = True
        self.is_reading = False

    def abort(self) -> None:
        self._is_closing = self.is_aborted = True
        self.is_reading = False
        self._buffer.clear()

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = not self._is_closing

    # What a test calls

    def drain(self, size: int | None = None) -> None:
        """Let the peer read `size` bytes more (None: all there is, and all that comes)."""
        self.room = None if size is None else (self.room or 0) + size
        self._flush()
        if self._is_paused and not self._buffer and not self.is_aborted:
            self._is_paused = False
            self.protocol.resume_writing()

    def stall(self) -> None:
        """Let the peer read nothing from now on."""
        self.room = 0

    def lose(self, error: Exception | None = None) -> None:
        """End the connection, as the loop does after close() or abort(), or when the peer resets it. Once."""
        assert not self.is_lost, "a connection is lost once"
        self._is_closing = True
        self.protocol.connection_lost(error)
        self.is_lost = True
        self._buffer.clear()

    def take(self) -> bytes:
        """Return what the peer has got since the last call."""
        received = bytes(self.received)
        self.received.clear()
        return received

    def _flush(self) -> None:
        size = len(self._buffer) if self.room is None else min(self.room, len(self._buffer))
        self.received += self._buffer[:size]
        del self._buffer[:size]
        if self.room is not None:
            self.room -= size

    def _ensure_alive(self) -> None:
        if self.is_lost:
            raise RuntimeError("unable to perform operation on the transport; the handler is closed")


def stalled(protocol: Any = None, room: int = 0) -> Transport:
    """Make a transport whose peer takes `room` bytes and no more."""
    return Transport(protocol, room=room)
