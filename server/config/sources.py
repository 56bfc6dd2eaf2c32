"""Reads the configuration from its three places: command line beats environment beats file beats default.

Laws: every mistake is reported, a line each, with its key, its value (masked when secret), its place and what is
allowed; a value is checked only where it won. Prints nothing and ends nothing: that is the caller's.
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

from pydantic import ValidationError

from server.config.options import MASK, PREFIX, as_toml
from server.config.rules import Contradiction, ContradictionError
from server.config.settings import OPTIONS, Settings

FILE: Final = "stentor.toml"
DEFAULT: Final = "default"
COMMAND_LINE: Final = "command line"

_CONFIG: Final = "config"  # where the file is: an option of the command line and the environment alone
_SHOWN: Final = 60  # characters of a wrong value


class ConfigError(Exception):
    """The configuration cannot be used; `mistakes` says why, a line each."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and for each key the place that its value came from."""

    settings: Settings
    origin: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as it was found; `fault` is why it could not be read, if so."""

    value: object
    place: str
    fault: str | None = None


def load(argv_values: Mapping[str, object], environ: Mapping[str, str], cwd: Path) -> Loaded:
    """Read and check the configuration.

    `argv_values` are options by key (a text, or a list of texts), `config` among them; relative paths start at `cwd`.
    Raises ConfigError.
    """
    mistakes: list[str] = []
    environ = {name: value for name, value in environ.items() if name.startswith(PREFIX)}
    named = _config_file(argv_values, environ)
    given = _from_file(named, cwd, mistakes)
    given |= _from_environment(environ, mistakes)
    given |= _from_command_line(argv_values, mistakes)
    settings = _checked(given, cwd, mistakes)
    if settings is None or mistakes:
        raise ConfigError(mistakes)
    return Loaded(settings, {key: given[key].place if key in given else DEFAULT for key in OPTIONS})


def unknown(name: str, place: str, known: Iterable[str]) -> str:
    """Name the mistake of an option that does not exist, and the nearest one that does."""
    nearest = max(known, key=lambda candidate: SequenceMatcher(None, name, candidate).ratio())
    return f"{_printable(name)} ({place}): unknown option; the nearest known one is {nearest}"


def _config_file(argv_values: Mapping[str, object], environ: Mapping[str, str]) -> _Given | None:
    variable = PREFIX + _CONFIG.upper()
    if _CONFIG in argv_values:
        return _Given(argv_values[_CONFIG], COMMAND_LINE)
    if variable in environ:
        return _Given(environ[variable], _variable_place(variable))
    return None


def _from_command_line(argv_values: Mapping[str, object], mistakes: list[str]) -> dict[str, _Given]:
    given = {}
    for key, value in argv_values.items():
        if key in OPTIONS:
            given[key] = _Given(value, COMMAND_LINE)
        elif key != _CONFIG:
            flag = "--" + key.replace("_", "-")
            mistakes.append(unknown(flag, COMMAND_LINE, [option.flag for option in OPTIONS.values()]))
    return given


def _from_environment(environ: Mapping[str, str], mistakes: list[str]) -> dict[str, _Given]:
    given = {}
    keys = {option.variable: key for key, option in OPTIONS.items()}
    foreign = _service_links(environ)
    for name in sorted(environ.keys() - foreign - {PREFIX + _CONFIG.upper()}):
        if name not in keys:
            mistakes.append(unknown(name, "environment", keys))
        elif OPTIONS[keys[name]].kind == "list":
            given[keys[name]] = _list_of(environ[name], _variable_place(name))
        else:
            given[keys[name]] = _Given(environ[name], _variable_place(name))
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


def _list_of(text: str, place: str) -> _Given:
    """Read a list from one text: JSON, or a single entry."""
    if text.lstrip().startswith("["):
        try:
            return _Given(json.loads(text), place)
        except (ValueError, RecursionError):
            return _Given(text, place, 'must be a JSON list of texts, such as ["a", "b"]')
    if "," in text:
        return _Given(text, place, 'must be one entry without a comma, or a JSON list such as ["a", "b"]')
    return _Given([text], place)


def _from_file(named: _Given | None, cwd: Path, mistakes: list[str]) -> dict[str, _Given]:
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
        mistakes.append(f"{_CONFIG} = {_text(name)} ({place}): must be a TOML file that can be read ({reason})")
        return {}
    place = _printable(name)
    given = {}
    for key, value in _toml(raw, place, mistakes).items():
        if key in OPTIONS:
            given[key] = _Given(value, place)
        else:
            hint = "; options stand outside of tables" if isinstance(value, dict) else ""
            mistakes.append(unknown(key, place, OPTIONS) + hint)
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
    mistakes.append(f"{place}, line {line}: not TOML: {_printable(fault)}")
    return {}


def _checked(given: dict[str, _Given], cwd: Path, mistakes: list[str]) -> Settings | None:
    """Check each value by itself, then those that are right by themselves together."""
    faults = {key: found.fault for key, found in given.items() if found.fault}
    settings: Settings | None = None
    contradictions: tuple[Contradiction, ...] = ()
    for _ in range(2):  # the second time without the values that are wrong by themselves
        values = {key: found.value for key, found in given.items() if key not in faults}
        try:
            settings = Settings.model_validate(values, context={"cwd": cwd})
            break
        except ValidationError as error:
            new, contradictions = _sorted_out(error)
            faults |= new
            if not new:
                break
    # In the order of the declarations, whatever place they came from.
    for key in OPTIONS:
        if fault := faults.get(key):
            mistakes.append(_mistake(key, given[key], fault))
        for found in contradictions:
            if found.key == key and not faults.keys() & set(found.looked_at):
                mistakes.append(_mistake(key, given.get(key), found.sentence))
    return settings


def _sorted_out(error: ValidationError) -> tuple[dict[str, str], tuple[Contradiction, ...]]:
    """Split what pydantic found into the faults of single options and the contradictions between them."""
    faults: dict[str, str] = {}
    for entry in error.errors(include_url=False, include_input=False):
        cause = entry.get("ctx", {}).get("error")
        if isinstance(cause, ContradictionError):
            return {}, cause.contradictions
        key = str(entry["loc"][0])
        faults.setdefault(key, str(cause) if isinstance(cause, ValueError) else OPTIONS[key].allowed)
    return faults, ()


def _mistake(key: str, given: _Given | None, fault: str) -> str:
    option = OPTIONS[key]
    value, place = (option.default(), DEFAULT) if given is None else (given.value, given.place)
    return f"{key} = {MASK if option.secret else _text(value)} ({place}): {fault}"


def _variable_place(name: str) -> str:
    return f"environment {name}"


def _text(value: object) -> str:
    """Write a value as it was given, shortened; quoted where its end would not be seen otherwise."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    text = value if isinstance(value, str) and value.isprintable() and value == value.strip() != "" else as_toml(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _printable(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)
