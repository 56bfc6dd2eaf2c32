"""The program `stentor`, also `python -m server`: finds the command and runs it.

Laws: exit code 2 and a line per mistake when the line or the configuration is wrong; never a traceback for what an
operator did; quiet when it is interrupted or when its output is closed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from server.config.sources import COMMAND_LINE, ConfigError, unknown

COMMANDS: Final = ("serve", "check", "doctor", "token", "publish", "listen")
INTERRUPTED: Final = 130  # what a shell reports of a program that SIGINT ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (by default this process's) and return the exit code."""
    _prepare_streams()
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except ConfigError as error:
        for mistake in error.mistakes:
            print(f"stentor: {mistake}", file=sys.stderr)
        return 2
    except SystemExit as end:  # argparse, after --help and --version
        return int(end.code or 0)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has enough
        _drop_output()
        return 0
    except OSError as error:  # a full disk, say
        _drop_output()
        print(f"stentor: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        return 1
    return code


def _prepare_streams() -> None:
    # A closed standard stream would be the next socket's descriptor, and what is printed would go to a client.
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  as long as the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no reason to fail


def _drop_output() -> None:
    # The interpreter flushes once more at its end: into nothing.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _run(arguments: list[str]) -> int:
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else "serve"
    if name not in COMMANDS:
        raise ConfigError([unknown(name, COMMAND_LINE, COMMANDS).replace("option", "command")])
    command = import_module(f"server.commands.{name}")
    return int(command.run(command.parser().read(arguments)))


if __name__ == "__main__":
    sys.exit(main())
