"""Judges the values that were found, each by itself and then together, and puts every mistake in one line.

Knows where a value came from, but not how it was read there.
"""

from __future__ import annotations

import json
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from server.config.options import MASK, as_toml, as_toml_key
from server.config.rules import Contradiction, ContradictionError
from server.config.settings import OPTIONS, Settings

DEFAULT: Final = "default"
NAMESPACES: Final = "namespaces"

_SHOWN: Final = 60  # characters of a wrong value

# Where a value belongs: (option,) or ("namespaces", name, option); ("namespaces", name) is a namespace itself.
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it was found; `fault` is why it could not be read, if so."""

    value: object
    place: str
    fault: str | None = None


def judged(given: dict[Key, Given], cwd: Path, mistakes: list[str]) -> Settings | None:
    """Check each value by itself, then those that are right by themselves together."""
    faults = {path: found.fault for path, found in given.items() if found.fault}
    settings: Settings | None = None
    contradictions: tuple[Contradiction, ...] = ()
    for _ in range(2):  # the second time without the values that are wrong by themselves
        try:
            settings = Settings.model_validate(_assembled(given, faults.keys()), context={"cwd": cwd})
            break
        except ValidationError as error:
            new, contradictions = _sorted_out(error)
            faults |= new
            if not new:
                break
    # In the order of the declarations, whatever place they came from.
    for path in (*((key,) for key in OPTIONS), *(path for path in given if path[0] == NAMESPACES)):
        if fault := faults.get(path):
            mistakes.append(_mistake(path, given[path], fault))
        for found in contradictions:
            if (found.key,) == path and not any((key,) in faults for key in found.looked_at):
                mistakes.append(_mistake(path, given.get(path), found.sentence))
    return settings


def _assembled(given: dict[Key, Given], without: Set[Key]) -> dict[str, Any]:
    """Put values together as the settings take them; what is in a namespace goes with it."""
    values: dict[str, Any] = {}
    namespaces: dict[str, dict[str, object]] = {}
    for path, found in given.items():
        if path in without or path[:2] in without:
            continue
        match path:
            case (key,):
                values[key] = found.value
            case (_, name):
                namespaces[name] = {}
            case (_, name, key):
                namespaces[name][key] = found.value
    return {**values, NAMESPACES: namespaces}


def _sorted_out(error: ValidationError) -> tuple[dict[Key, str], tuple[Contradiction, ...]]:
    """Split what pydantic found into the faults of single options and the contradictions between them."""
    faults: dict[Key, str] = {}
    for entry in error.errors(include_url=False, include_input=False):
        cause = entry.get("ctx", {}).get("error")
        if isinstance(cause, ContradictionError):
            return {}, cause.contradictions
        path = _path(entry["loc"])
        faults.setdefault(path, str(cause) if isinstance(cause, ValueError) else OPTIONS[path[-1]].allowed)
    return faults, ()


def _path(loc: tuple[str | int, ...]) -> Key:
    """Find the value that pydantic speaks of; what lies below it is left out."""
    if loc[0] != NAMESPACES:
        return (str(loc[0]),)
    return tuple(str(part) for part in (loc[:2] if loc[2] == "[key]" else loc[:3]))


def _mistake(path: Key, given: Given | None, fault: str) -> str:
    if len(path) == 2:
        assert given is not None, "nobody but the configuration names a namespace"
        return f"{dotted(path)} ({given.place}): {fault}"
    option = OPTIONS[path[-1]]
    value, place = (option.default(), DEFAULT) if given is None else (given.value, given.place)
    return f"{dotted(path)} = {MASK if option.secret else shown(value)} ({place}): {fault}"


def dotted(path: Key) -> str:
    """Write a key as it stands in a TOML file."""
    return ".".join(as_toml_key(part) for part in path)


def shown(value: object) -> str:
    """Write a value as it was given, shortened; quoted where its end would not be seen otherwise."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    text = value if isinstance(value, str) and value.isprintable() and value == value.strip() != "" else as_toml(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def printable(text: str) -> str:
    """Write a text that may hold anything, such as a key, on one line."""
    return text if text.isprintable() else json.dumps(text)
