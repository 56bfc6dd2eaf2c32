"""`stentor listen`: every publication becomes a line of standard output.

Laws: a publication is written as it came, with a newline after it, and at once; what is published while contact is
lost is not heard.
"""

from __future__ import annotations

import asyncio
import os
import select
import stat
from typing import Final

from websockets.asyncio.client import ClientConnection

from server.commands.contact import RefusedError, first_of, goodbye, keep_contact, reason
from server.commands.line import Line, Parser
from server.commands.station import KEYS, add_station, destination_of, end_quietly, voice
from server.config.sources import COMMAND_LINE

ABOUT = """\
Prints what is published on a channel, a line each, until it is interrupted:
  stentor listen --channel system | head -5

When contact is lost it comes back by itself; what is published meanwhile is
not heard."""

_ENDLESS: Final = -1


def parser() -> Parser:
    """Take the channel, the server, and how much to hear."""
    parser = Parser("listen", ABOUT, KEYS)
    group = add_station(parser)
    parser.add_value(group, "--count", "N", "End after so many publications. (default: never)")
    parser.add_configuration()
    return parser


def run(line: Line) -> int:
    """Print publications; return the exit code."""
    count = _count(line)
    destination, _ = destination_of(line)
    say = voice("listen")

    async def listen() -> None:
        output = Output(descriptor=1)
        listener = Listener(output, count)
        contact = keep_contact(destination, listener.talk, say, retry=not line.own.no_retry)
        try:
            await first_of(contact, output.hung_up())
        except OutputClosedError:
            pass  # whoever read us has enough

    return end_quietly(listen(), say)


class OutputClosedError(Exception):
    """Nobody reads the output any more. Not an OSError: those are the connection's."""


class Output:
    """A descriptor that publications are written to, unbuffered."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, payload: bytes) -> None:
        """Write all of `payload`, however long that takes. Raises OutputClosedError and RefusedError."""
        rest = memoryview(payload)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # whoever shares the descriptor made it so
                select.select([], [self._descriptor], [])
            except BrokenPipeError:
                raise OutputClosedError from None
            except OSError as error:
                raise RefusedError(f"cannot write to standard output: {reason(error)}") from None

    async def hung_up(self) -> None:
        """Return when the other end of a pipe is closed, even while there is nothing to write."""
        hung_up = asyncio.Event()
        try:
            is_pipe = stat.S_ISFIFO(os.fstat(self._descriptor).st_mode)
        except OSError:
            is_pipe = False
        if not is_pipe:
            await hung_up.wait()
        # The end that is written to never becomes readable but for this.
        loop = asyncio.get_running_loop()
        loop.add_reader(self._descriptor, hung_up.set)
        try:
            await hung_up.wait()
        finally:
            loop.remove_reader(self._descriptor)


class Listener:
    """Writes what a channel says, `count` publications or without end."""

    def __init__(self, output: Output, count: int = _ENDLESS) -> None:
        self._output = output
        self._left = count

    async def talk(self, connection: ClientConnection) -> None:
        """Write publications until there were enough."""
        while self._left:
            self._output.write(await connection.recv(decode=False) + b"\n")
            self._left -= 1
        await goodbye(connection)


def _count(line: Line) -> int:
    text = getattr(line.own, "count", None)
    if text is None:
        return _ENDLESS
    if not text.isascii() or not text.isdigit() or len(text) > 18 or not int(text):
        line.mistakes.append(f"count = {text} ({COMMAND_LINE}): must be a whole number of 1 or more")
        return _ENDLESS
    return int(text)
