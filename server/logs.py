"""The log: one line per event on standard error, text for people or JSON for machines.

Laws: logging never blocks the event loop: a full queue drops the line and counts it, and the log says so as soon as
the queue is empty again; a blocked pipe blocks a thread of its own. It never raises: a line that can't be formatted
says so. A fault that repeats is said ten times a second at most. Nobody's text reaches the terminal raw: control
characters are escaped.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections import Counter
from typing import IO, Final

import orjson

QUEUE_LINES: Final = 1000
REPEATS_PER_SECOND: Final = 10

_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)}


class Repeats(logging.Filter):
    """Lets each message (by its template, not its values) pass REPEATS_PER_SECOND times a second, above debug."""

    def __init__(self) -> None:
        super().__init__()
        self._second = 0
        self._seen: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno <= logging.DEBUG:
            return True
        second = int(record.created)
        if second != self._second:
            self._second = second
            self._seen.clear()
        template = str(record.msg)
        self._seen[template] += 1
        return self._seen[template] <= REPEATS_PER_SECOND


class TextFormatter(logging.Formatter):
    """``12:00:00.123 WARNING stentor.edge: what happened``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        # Only a traceback, which comes after this, may go over several lines.
        record.message = record.message.replace("\n", "\\n")
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).translate(_CONTROLS)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(fields, default=str).decode()


class LineWriter(logging.Handler):
    """Hands formatted lines to a thread that writes them; drops what the thread does not get rid of."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__()
        self._stream = stream
        # What the full queue refused, counted by whoever logs; what of it has been said, and what the stream refused,
        # by the thread.
        self._refused = 0
        self._confessed = 0
        self._unwritten = 0
        self._lines: queue.Queue[str | None] = queue.Queue(QUEUE_LINES)
        # A daemon: a pipe that nobody reads must not keep the process alive.
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """How many lines were not written."""
        return self._refused + self._unwritten

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            # A mistake in a line is no reason for whoever logs it to fail.
            line = self.format(_unformatted(record))
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._refused += 1

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            self._put(line)
            if self._lines.empty():
                self._confess()
        self._confess()

    def _put(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            self._unwritten += 1  # closed under us; there is no one left to tell

    def _confess(self) -> None:
        """Say how many lines the queue had no room for since the last time, behind those that it had room for."""
        refused = self._refused
        if refused > self._confessed:
            self._put(self.format(_line(f"{refused - self._confessed} lines of this log were dropped")))
            self._confessed = refused

    def close(self) -> None:
        """Write what is queued, for half a second at most. Idempotent."""
        if self._thread.is_alive():
            try:
                self._lines.put(None, timeout=0.25)
            except queue.Full:
                pass  # blocked: the thread goes with the process
            else:
                self._thread.join(0.25)
        super().close()


def _unformatted(record: logging.LogRecord) -> logging.LogRecord:
    """Make a line of what could not be made one: its template, quoted, and its place."""
    return _line(f"a line that cannot be formatted: {record.msg!r} at {record.filename}:{record.lineno}", record.name)


def _line(message: str, name: str = "stentor") -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, __file__, 0, message, None, None)


def start(level: str, form: str, stream: IO[str] | None = None) -> LineWriter:
    """Send everything of `level` (debug … error) and above to `stream` (standard error).

    `form` is text, json, or auto: text on a terminal, JSON elsewhere.
    """
    stream = stream or sys.stderr
    writer = LineWriter(stream)
    as_text = form == "text" or (form == "auto" and stream.isatty())
    writer.setFormatter(TextFormatter() if as_text else JsonFormatter())
    writer.addFilter(Repeats())
    root = logging.getLogger()
    root.handlers[:] = [writer]
    root.setLevel(level.upper())
    # The internal port's access log would be a line per scrape.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    return writer
