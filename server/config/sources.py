"""Reads the configuration from its three places: command line beats environment beats file beats default.

Laws: every mistake is reported, a line each, with its key, its value (masked when secret), its place and what is
allowed; a value is checked only where it won. Prints nothing and ends nothing: that is the caller's.

Namespaces are tables in the file, ``[namespaces.NAME]``, or an object of objects (JSON) in the environment variable
STENTOR_NAMESPACES, which takes the place of all those in the file.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Final

from server.config.judgement import DEFAULT, NAMESPACES, Given, Key, dotted, judged, printable, shown
from server.config.namespaces import Namespace
from server.config.options import PREFIX
from server.config.settings import OPTIONS, Settings

FILE: Final = "stentor.toml"
COMMAND_LINE: Final = "command line"

_NAMESPACES_VARIABLE: Final = PREFIX + NAMESPACES.upper()
_CONFIG: Final = "config"  # where the file is: an option of the command line and the environment alone


class ConfigError(Exception):
    """The configuration cannot be used; `mistakes` says why, a line each."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and for each key the place that its value came from.

    `overridden` is the same for what namespaces have set otherwise: by the namespace's name, then by key.
    """

    settings: Settings
    origin: dict[str, str]
    overridden: dict[str, dict[str, str]]


def load(argv_values: Mapping[str, object], environ: Mapping[str, str], cwd: Path) -> Loaded:
    """Read and check the configuration.

    `argv_values` are options by key (a text, or a list of texts), `config` among them; relative paths start at `cwd`.
    Raises ConfigError.
    """
    mistakes: list[str] = []
    environ = {name: value for name, value in environ.items() if name.startswith(PREFIX)}
    named = _config_file(argv_values, environ)
    given = _from_file(named, cwd, mistakes)
    if _NAMESPACES_VARIABLE in environ:
        given = {path: found for path, found in given.items() if path[0] != NAMESPACES}
    given |= _from_environment(environ, mistakes)
    given |= _from_command_line(argv_values, mistakes)
    settings = judged(given, cwd, mistakes)
    if settings is None or mistakes:
        raise ConfigError(mistakes)
    origin = {key: given[key,].place if (key,) in given else DEFAULT for key in OPTIONS}
    overridden: dict[str, dict[str, str]] = {name: {} for name in settings.namespaces}
    for path, found in given.items():
        if len(path) == 3:
            overridden[path[1]][path[2]] = found.place
    return Loaded(settings, origin, overridden)


def unknown(name: str, place: str, known: Iterable[str]) -> str:
    """Name the mistake of an option that does not exist, and the nearest one that does."""
    nearest = max(known, key=lambda candidate: SequenceMatcher(None, name, candidate).ratio())
    return f"{printable(name)} ({place}): unknown option; the nearest known one is {nearest}"


def _config_file(argv_values: Mapping[str, object], environ: Mapping[str, str]) -> Given | None:
    variable = PREFIX + _CONFIG.upper()
    if _CONFIG in argv_values:
        return Given(argv_values[_CONFIG], COMMAND_LINE)
    if variable in environ:
        return Given(environ[variable], _variable_place(variable))
    return None


def _from_command_line(argv_values: Mapping[str, object], mistakes: list[str]) -> dict[Key, Given]:
    given: dict[Key, Given] = {}
    for key, value in argv_values.items():
        if key in OPTIONS:
            given[key,] = Given(value, COMMAND_LINE)
        elif key != _CONFIG:
            flag = "--" + key.replace("_", "-")
            mistakes.append(unknown(flag, COMMAND_LINE, [option.flag for option in OPTIONS.values()]))
    return given


def _from_environment(environ: Mapping[str, str], mistakes: list[str]) -> dict[Key, Given]:
    given: dict[Key, Given] = {}
    keys = {option.variable: key for key, option in OPTIONS.items()}
    foreign = _service_links(environ)
    for name in sorted(environ.keys() - foreign - {PREFIX + _CONFIG.upper()}):
        if name == _NAMESPACES_VARIABLE:
            given |= _namespaces(_json_of(environ[name]), _variable_place(name), mistakes)
        elif name not in keys:
            mistakes.append(unknown(name, "environment", [*keys, _NAMESPACES_VARIABLE]))
        elif OPTIONS[keys[name]].kind == "list":
            given[keys[name],] = _list_of(environ[name], _variable_place(name))
        else:
            given[keys[name],] = Given(environ[name], _variable_place(name))
    return given


def _service_links(environ: Mapping[str, str]) -> set[str]:
    """Find the variables that Kubernetes adds for a Service called stentor or stentor-…: they are not meant for us.

    https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
    """
    services = [name.removesuffix("_SERVICE_HOST") for name in environ if name.endswith("_SERVICE_HOST")]
    return {
        name
        for name in environ
        for service in services
        if re.fullmatch(rf"{service}_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_\w+)", name)
        or (name == f"{service}_PORT" and "://" in environ[name])
    }


def _list_of(text: str, place: str) -> Given:
    """Read a list from one text: JSON, or a single entry."""
    if text.lstrip().startswith("["):
        try:
            return Given(json.loads(text), place)
        except (ValueError, RecursionError):
            return Given(text, place, 'must be a JSON list of texts, such as ["a", "b"]')
    if "," in text:
        return Given(text, place, 'must be one entry without a comma, or a JSON list such as ["a", "b"]')
    return Given([text], place)


def _json_of(text: str) -> object:
    """Read JSON; a text that is none stays the text that it is."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _namespaces(tables: object, place: str, mistakes: list[str]) -> dict[Key, Given]:
    """Take the namespaces' tables apart."""
    if not isinstance(tables, dict):
        example = '[namespaces.chat] in the file, or {"chat": {"history_size": 100}}'
        mistakes.append(f"{NAMESPACES} = {shown(tables)} ({place}): must be a table of tables, such as {example}")
        return {}
    given: dict[Key, Given] = {}
    for name, table in tables.items():
        path = (NAMESPACES, name)
        if not isinstance(table, dict):
            mistakes.append(f"{dotted(path)} = {shown(table)} ({place}): must be a table of options")
            continue
        given[path] = Given({}, place)
        for key, value in table.items():
            if key in Namespace.model_fields:
                given[*path, key] = Given(value, place)
            elif key in OPTIONS:
                mistakes.append(
                    f"{key} ({place}, [{dotted(path)}]): holds for all channels; it stands outside of tables"
                )
            else:
                mistakes.append(unknown(key, f"{place}, [{dotted(path)}]", Namespace.model_fields))
    return given


def _from_file(named: Given | None, cwd: Path, mistakes: list[str]) -> dict[Key, Given]:
    if named is None and not (cwd / FILE).exists():
        return {}
    name = FILE if named is None else str(named.value)
    try:
        if not name:
            raise ValueError("not a path")
        raw = (cwd / Path(name).expanduser()).read_bytes()
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(getattr(error, "strerror", None) or error).lower()
        place = named.place if named else "working directory"
        mistakes.append(f"{_CONFIG} = {shown(name)} ({place}): must be a TOML file that can be read ({reason})")
        return {}
    place = printable(name)
    given: dict[Key, Given] = {}
    for key, value in _toml(raw, place, mistakes).items():
        if key == NAMESPACES:
            given |= _namespaces(value, place, mistakes)
        elif key in OPTIONS:
            given[key,] = Given(value, place)
        else:
            hint = "; options stand outside of tables, but for [namespaces.NAME]" if isinstance(value, dict) else ""
            mistakes.append(unknown(key, place, [*OPTIONS, NAMESPACES]) + hint)
    return given


def _toml(raw: bytes, place: str, mistakes: list[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        line, fault = raw.count(b"\n", 0, error.start) + 1, "not UTF-8"
    except RecursionError:
        line, fault = 1, "nested too deeply"
    except tomllib.TOMLDecodeError as error:
        fault, _, position = str(error).rpartition(" (at ")
        found = re.match(r"line (\d+)", position)
        line = int(found[1]) if found else raw.count(b"\n") + 1  # the other position is "end of document"
    mistakes.append(f"{place}, line {line}: not TOML: {printable(fault)}")
    return {}


def _variable_place(name: str) -> str:
    return f"environment {name}"
