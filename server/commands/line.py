"""Command lines: argparse built from the options' declarations.

Laws: a wrong line is reported whole, a sentence per mistake, and never with a traceback; values stay texts, for the
configuration reads them like those of the other places.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NoReturn

from server import __version__
from server.config import OPTIONS, Option
from server.config.options import plain
from server.config.sources import COMMAND_LINE, ConfigError, Loaded, load, unknown

WIDTH: Final = 79
_NO_VALUE: Final = object()
_METAVARS: Final = {"seconds": "SECONDS", "milliseconds": "MS", "bytes": "BYTES", "per second": "N"}


@dataclass(slots=True)
class Line:
    """What one command line says: `own` are the command's own options, `values` those of the configuration."""

    own: argparse.Namespace
    values: dict[str, object] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)


class Layout(argparse.RawDescriptionHelpFormatter):
    """Help for a terminal of 80 columns, the same on every terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=WIDTH)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        # A missing value is only let through so that it is reported along with the other mistakes.
        shown = super()._format_args(action, default_metavar)
        return shown.strip("[]") if action.const is _NO_VALUE else shown


class Parser(argparse.ArgumentParser):
    """The options of one command; `keys` are those of the configuration that it takes, by default all."""

    def __init__(self, command: str, about: str, keys: Sequence[str] = tuple(OPTIONS), epilog: str = "") -> None:
        super().__init__(
            prog=f"stentor {command}",
            usage=f"stentor {command} [options]",
            description=about,
            epilog=epilog,
            formatter_class=Layout,
            allow_abbrev=False,
            add_help=False,
            argument_default=argparse.SUPPRESS,
        )
        self.command = command
        self.flags = ["--help"]
        self._keys = keys
        self._general = self.add_argument_group("general")
        self._general.add_argument("-h", "--help", action="help", help="Show this help and end.")
        self.add_value(self._general, "--config", "FILE", "TOML file to read. (default: stentor.toml, if there is one)")

    def add_version(self) -> None:
        """Add the option that prints the version."""
        self.flags.append("--version")
        version = f"stentor {__version__}"
        self._general.add_argument("--version", action="version", version=version, help="Show the version and end.")

    def add_value(
        self, group: argparse._ArgumentGroup, flag: str, metavar: str, sentence: str, *, many: bool = False
    ) -> None:
        """Add an option with a value, or one that may be repeated."""
        self.flags.append(flag)
        action = "append" if many else "store"
        group.add_argument(flag, metavar=metavar, help=sentence, action=action, nargs="?", const=_NO_VALUE)

    def add_switch(self, group: argparse._ArgumentGroup, flag: str, sentence: str) -> None:
        """Add an option without a value."""
        self.flags.append(flag)
        group.add_argument(flag, help=sentence, action="store_true", default=False)

    def add_configuration(self) -> None:
        """Add the options of the configuration, in their groups if these are all."""
        whole = len(self._keys) == len(OPTIONS)
        chosen = [OPTIONS[key] for key in self._keys]
        for title, options in groupby(chosen, key=lambda option: option.group if whole else "configuration"):
            group = self.add_argument_group(title)
            for option in options:
                self._add_option(group, option)

    def _add_option(self, group: argparse._ArgumentGroup, option: Option) -> None:
        sentence = _help(option).replace("%", "%%")
        if option.kind != "flag":
            self.add_value(group, option.flag, _metavar(option), sentence, many=option.kind == "list")
            return
        opposite = option.flag.replace("--", "--no-", 1)
        self.flags += [option.flag, opposite]
        group.add_argument(option.flag, metavar="true|false", help=sentence, nargs="?", const="true")
        group.add_argument(
            opposite, dest=option.key, help=f"The same as {option.flag} false.", action="store_const", const="false"
        )

    def read(self, arguments: Sequence[str]) -> Line:
        """Read the arguments after the command's name."""
        try:
            own, rest = self.parse_known_args(arguments)
        except argparse.ArgumentError as error:
            return Line(argparse.Namespace(), mistakes=[str(error)])
        line = Line(own, mistakes=list(self._stray(arguments, rest)))
        for key, value in list(vars(own).items()):
            if value is _NO_VALUE or (isinstance(value, list) and _NO_VALUE in value):
                line.mistakes.append(f"--{key.replace('_', '-')} ({COMMAND_LINE}): needs a value")
                delattr(own, key)
            elif key in self._keys or key == "config":
                line.values[key] = value
                delattr(own, key)
        return line

    def _stray(self, arguments: Sequence[str], rest: Sequence[str]) -> Iterator[str]:
        """Name what belongs to no option. Never by its value, nor by what follows an equals sign: it may be secret."""
        after_unknown = False
        for argument in rest:
            if argument.startswith("-") and argument.strip("-"):
                yield unknown(argument.partition("=")[0], COMMAND_LINE, self.flags)
                after_unknown = "=" not in argument
            elif after_unknown:
                after_unknown = False
            else:
                yield (
                    f"argument {arguments.index(argument) + 1} ({COMMAND_LINE}): belongs to no option; "
                    "the command comes first, and a list repeats its option"
                )

    def error(self, message: str) -> NoReturn:
        raise argparse.ArgumentError(None, message)


def _metavar(option: Option) -> str:
    match option.kind:
        case "whole" | "number":
            return _METAVARS.get(option.unit, "N")
        case "file":
            return "FILE"
        case "choice":
            return option.key.rpartition("_")[2].upper()
        case "list":
            return "ENTRY"
    return "TEXT"


def _help(option: Option) -> str:
    choices = f" One of {', '.join(option.choices)}." if option.kind == "choice" else ""
    repeat = " Repeat it for more." if option.kind == "list" else ""
    return f"{option.sentence}{choices}{repeat} (default: {default_text(option)})"


def configuration(line: Line) -> Loaded:
    """Read the configuration that a command line asks for. Raises ConfigError, with the line's own mistakes first."""
    try:
        cwd = Path.cwd()
    except OSError:  # the directory was removed
        cwd = Path()
    try:
        loaded = load(line.values, os.environ, cwd)
    except ConfigError as error:
        raise ConfigError(line.mistakes + error.mistakes) from None
    if line.mistakes:
        raise ConfigError(line.mistakes)
    return loaded


def warn(line_of_text: str) -> None:
    """Say something on standard error."""
    print(line_of_text, file=sys.stderr, flush=True)


def default_text(option: Option) -> str:
    """Write an option's default with its unit."""
    default: Any = option.default()
    if default is None or default == ():
        return "none"
    if isinstance(default, bool):
        return "true" if default else "false"
    if isinstance(default, int | float):
        return f"{plain(default)} {option.unit}".rstrip()
    return str(default)
