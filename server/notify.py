"""What is told to the service manager that started us (systemd, Type=notify): ready, reloading, stopping, still alive.

Laws: without one, nothing happens; what cannot be told is logged and never an error; nothing waits. "Still alive" is
said by the event loop, so that a process whose loop hangs is started again. Children do not inherit the manager: only
the process that was started speaks to it. (sd_notify(3), systemd.service(5).)
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, MutableMapping
from typing import Any, Final, Self

log = logging.getLogger("stentor")

SOCKET: Final = "NOTIFY_SOCKET"
WATCHDOG: Final = "WATCHDOG_USEC"
WATCHDOG_PROCESS: Final = "WATCHDOG_PID"

CallLater = Callable[[float, Callable[[], None]], Any]


class ServiceManager:
    """The service manager at a Unix socket, "" for none; `watchdog` is after how many seconds of silence it acts.

    An address with an @ in front is an abstract one.
    """

    def __init__(self, address: str = "", watchdog: float = 0.0) -> None:
        self.watchdog = watchdog
        self._address = address
        self._socket: socket.socket | None = None
        self._next: Any = None

    @classmethod
    def of(cls, environ: MutableMapping[str, str], pid: int) -> Self:
        """Find the manager of the process `pid` in its environment, and take it out of there."""
        address, microseconds = environ.pop(SOCKET, ""), environ.pop(WATCHDOG, "")
        # Ours alone, if it says whose it is.
        is_ours = environ.pop(WATCHDOG_PROCESS, str(pid)) == str(pid)
        if address and address[0] not in "@/":
            log.warning("%s is not a Unix socket: the service manager is told nothing", SOCKET)
            address = ""
        return cls(address, int(microseconds) / 1e6 if is_ours and microseconds.isdecimal() else 0.0)

    @property
    def is_there(self) -> bool:
        """Whether there is anybody to tell."""
        return bool(self._address)

    def ready(self, call_later: CallLater, status: str) -> None:
        """Say that we serve, or do so again, with a line for people; from now on say that we are alive."""
        self._tell("READY=1", f"STATUS={status}")
        if self._next is None and self.watchdog and self.is_there:
            self._stay_alive(call_later)

    def reloading(self, now: float) -> None:
        """Say that a reload has begun, which `ready` ends. `now` is of the monotonic clock."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={int(now * 1e6)}", "STATUS=replacing the workers")

    def stopping(self, within: float, status: str) -> None:
        """Say that we are about to end, and may take so many seconds for it."""
        self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(within * 1e6)}", f"STATUS={status}")

    def close(self) -> None:
        """Say nothing any more. Idempotent."""
        if self._next is not None:
            self._next.cancel()
        if self._socket is not None:
            self._socket.close()
        self._address = ""

    def _stay_alive(self, call_later: CallLater) -> None:
        self._tell("WATCHDOG=1")
        # Half of the time that the manager gives: one late message is no reason to be killed.
        self._next = call_later(self.watchdog / 2, lambda: self._stay_alive(call_later))

    def _tell(self, *fields: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            self._socket.sendto("\n".join(fields).encode(), address)
        except OSError as error:
            log.warning("the service manager was not told %s: %s", fields[0], error.strerror or error)
