"""The processes that a run starts: each in a group of its own, logged to a file, pinned, and gone at the end.

Laws: `stop` is idempotent, takes every member of the group with it, and returns only when the group is gone; nothing is
ever stopped by its name. It does not know what the processes do.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

_TURN = 0.02
_KILL_WITHIN = 5.0


class CannotStart(Exception):
    """The run cannot begin; the message is one line."""


class Interrupted(Exception):
    """Somebody asked us to stop."""


class Interrupts:
    """Ctrl-C and the signals to the like effect, counted instead of raised.

    An exception out of nowhere could fall between the start of a process and the note that it was started, and leave it
    behind; so those who wait look here, at places where stopping is safe.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Interrupts:
        # Whoever runs us under nohup wants us to outlive the terminal.
        heard = [n for n in self._SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def heed(self) -> None:
        """Raise Interrupted if anybody asked."""
        if self.count:
            raise Interrupted

    def _note(self, number: int, frame: object) -> None:
        self.count += 1


class Child:
    """A running process, its group and its log.

    Args:
        argv: the command; it runs in the current directory.
        log: gets its output.
        cores: what it, and whatever it starts, may run on; none = everywhere.
        environment: its whole environment.
    """

    def __init__(self, argv: Sequence[str], log: Path, cores: Collection[int], environment: Mapping[str, str]) -> None:
        self.log = log
        with log.open("ab") as output:
            # A session of its own: Ctrl-C on the terminal reaches us alone, and we end things in order.
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )
        if cores:
            try:
                os.sched_setaffinity(self._process.pid, cores)
            except ProcessLookupError:
                pass  # it ended at once; whoever waits for it will hear why

    @property
    def pid(self) -> int:
        """Its process id, which is its group's as well."""
        return self._process.pid

    @property
    def ended(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def ending(self) -> str:
        """How it ended, in words."""
        code = self._process.returncode
        if code is None:
            return "still running"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def last_words(self) -> str:
        """How it ended and, if it ended itself, the last thing that it said."""
        code = self.ended
        said = self._last_line() if code is not None and code >= 0 else ""
        return f"{self.ending()}: {said}" if said else self.ending()

    def _last_line(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        try:
            return str(json.loads(last)["message"])
        except (ValueError, KeyError, TypeError):
            return last  # not a line of a structured log

    def interrupt(self) -> None:
        """Ask it, and it alone, to come to an end in order."""
        if self.ended is None:
            self._process.send_signal(signal.SIGINT)

    def wait(self, within: float) -> bool:
        """Whether it ended within so many seconds."""
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, within: float = 8.0) -> None:
        """End it and its whole group: politely first, then for certain."""
        self._signal(signal.SIGTERM)
        # A stopped process would never hear the polite signal.
        self._signal(signal.SIGCONT)
        self.wait(within)
        deadline = time.monotonic() + _KILL_WITHIN
        while self._signal(signal.SIGKILL) and time.monotonic() < deadline:
            self._process.poll()
            time.sleep(_TURN)
        self._process.wait(_KILL_WITHIN)

    def _signal(self, number: int) -> bool:
        """Whether there was still somebody in the group to hear it."""
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            return False  # the latter on a group of zombies, on some kernels
        return True


def split(cpus: Sequence[int], server: int) -> tuple[list[int], list[int]]:
    """The cores of the server (as many as it has workers, if others remain) and of the generator.

    Both are empty, which means unpinned, where there is only one core to have.
    """
    if len(cpus) < 2:
        return [], []
    count = min(server, len(cpus) - 1)
    return list(cpus[:count]), list(cpus[count:])


def siblings(server: Collection[int], generator: Collection[int], root: Path = Path("/sys/devices/system/cpu")) -> bool:
    """Whether server and generator run on two threads of one core, and so slow each other down."""
    for cpu in server:
        try:
            text = (root / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text(encoding="ascii")
        except OSError:
            continue  # not Linux, or a container that hides it: then there is nothing to warn of
        if set(generator) & _listed(text):
            return True
    return False


def _listed(text: str) -> set[int]:
    """The numbers of a kernel's list such as "0-2,7"."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        low, _, high = part.partition("-")
        found.update(range(int(low), int(high or low) + 1))
    return found
