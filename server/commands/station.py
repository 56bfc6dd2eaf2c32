"""What `publish` and `listen` have in common: which channel of which server, and how such a program ends."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
from collections.abc import Coroutine
from types import FrameType
from typing import Any, Final, NoReturn

from server.commands.contact import Destination, RefusedError, Say, base_url
from server.commands.line import Line, Parser, configuration, warn
from server.config import Settings
from server.config.sources import COMMAND_LINE, ConfigError

KEYS: Final = ("host", "port", "tls_cert", "tls_key")  # what the server's URL follows from
_INTERRUPTED: Final = 130


def add_station(parser: Parser) -> argparse._ArgumentGroup:
    """Add the options that name the channel and the server; return their group."""
    group = parser.add_argument_group("channel")
    parser.add_value(group, "--channel", "C", "Name of the channel.")
    parser.add_value(group, "--url", "URL", "The server. (default: the configured one, ws://127.0.0.1:8000)")
    parser.add_value(group, "--token", "T", "Token to show, if the server wants one. (default: none)")
    parser.add_switch(group, "--no-retry", "Give up when contact cannot be had or is lost.")
    return group


def destination_of(line: Line) -> tuple[Destination, Settings | None]:
    """Find the channel that the line names, and the configuration if that says where. Raises ConfigError."""
    channel, url, token = (getattr(line.own, name, None) for name in ("channel", "url", "token"))
    if not channel:
        line.mistakes.append(f"--channel ({COMMAND_LINE}): is needed: the name of the channel")
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        line.mistakes.append(f"--token ({COMMAND_LINE}): must be printable ASCII without spaces, and not empty")
    try:
        # With a URL no configuration is read: the server's own is none of its clients' business.
        settings = configuration(line).settings if url is None else None
        destination = Destination.of(base_url(settings) if settings else str(url), channel or "", token)
    except ValueError as error:
        line.mistakes.append(f"--url ({COMMAND_LINE}): {error}")
    if line.mistakes:
        raise ConfigError(line.mistakes)
    return destination, settings


def voice(command: str) -> Say:
    """Speak to the operator in the name of a command."""
    return lambda text: warn(f"stentor {command}: {text}")


def end_quietly(work: Coroutine[Any, Any, None], say: Say) -> int:
    """Run a command's work; return its exit code, and say why if it had to give up."""
    # asyncio's own handler waits for the loop's next turn, which never comes while standard output blocks. A script's
    # background jobs ignore the signal, and so must we.
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        asyncio.run(work)
    except RefusedError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)
    return 0


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    # An exception would come up in whatever runs at this moment, be it a library, and be logged as its fault.
    os._exit(_INTERRUPTED)
