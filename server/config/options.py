"""What an option is: one declaration, from which the command line, the environment, the file and the help follow.

Laws: a value means the same in all three places; whatever is refused is refused with a sentence that says what is
allowed. Knows no option by name, and not where a value came from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, Union, cast, get_args, get_origin

from pydantic import Field, SecretStr
from pydantic.fields import FieldInfo

Unit = Literal["", "seconds", "milliseconds", "bytes", "per second"]
Kind = Literal["whole", "number", "flag", "choice", "list", "file", "text"]

MASK: Final = "********"
PREFIX: Final = "STENTOR_"

# What one of each is in its option's own unit. Decimal, so that "100ms" is 0.1 and not a neighbour of it.
_FACTORS: Final[dict[Unit, dict[str, Decimal]]] = {
    "seconds": {name: Decimal(n) for name, n in (("ms", "0.001"), ("s", "1"), ("m", "60"), ("h", "3600"))},
    "milliseconds": {name: Decimal(n) for name, n in (("ms", "1"), ("s", "1000"))},
    "bytes": {name: Decimal(n) for name, n in (("B", 1), ("KiB", 2**10), ("MiB", 2**20), ("GiB", 2**30))},
}
# Above these no value makes sense, and some of the calls that get it would raise.
_HIGHEST: Final[dict[Unit, int]] = {
    "": 2**31 - 1,
    "seconds": 24 * 3600,
    "milliseconds": 10_000,
    "bytes": 2**40,
    "per second": 10**9,
}
_EXAMPLES: Final[dict[Unit, str]] = {
    "seconds": ", such as 10, 500ms or 1m",
    "milliseconds": ", such as 5 or 5ms",
    "bytes": ", such as 65536, 64KiB or 1MiB",
}
_MEASURES: Final[dict[Unit, str]] = {
    "seconds": "a time in seconds",
    "milliseconds": "a time in milliseconds",
    "bytes": "a size in bytes",
    "per second": "a number per second",
}
_QUANTITY: Final = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?) ?([A-Za-z]*)")


def option(
    default: object,
    group: str,
    sentence: str,
    *,
    unit: Unit = "",
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
) -> Any:
    """Declare one option as a field of the settings.

    `default` is the value or a function that computes it; `sentence` is the help. A quantity has a lower bound, `low`
    (allowed) or `above` (not allowed); without `high` its unit's own upper bound holds.
    """
    if high is None and (low is not None or above is not None):
        high = _HIGHEST[unit]
    given: dict[str, Any] = {"default_factory": default} if callable(default) else {"default": default}
    facts: dict[str, Any] = {"group": group, "unit": unit, "low": low, "above": above, "high": high}
    return Field(**given, description=sentence, ge=low, gt=above, le=high, json_schema_extra=facts)


def is_option(field: FieldInfo) -> bool:
    """Tell if a field was declared with `option`."""
    return isinstance(field.json_schema_extra, dict) and "group" in field.json_schema_extra


@dataclass(frozen=True, slots=True)
class Option:
    """One option as an operator sees it; `low` is allowed, `above` is not, `high` is."""

    key: str
    group: str
    sentence: str
    kind: Kind
    unit: Unit
    choices: tuple[str, ...]
    secret: bool
    low: float | None
    above: float | None
    high: float | None
    default: Callable[[], object]

    @classmethod
    def of(cls, key: str, field: FieldInfo) -> Option:
        """Describe a field that was declared with `option`."""
        facts = cast(dict[str, Any], field.json_schema_extra)
        leaves = tuple(_leaves(field.annotation))
        return cls(
            key=key,
            group=facts["group"],
            sentence=field.description or "",
            kind=_kind(leaves),
            unit=facts["unit"],
            choices=tuple(leaf for leaf in leaves if isinstance(leaf, str)),
            secret=SecretStr in leaves,
            low=facts["low"],
            above=facts["above"],
            high=facts["high"],
            default=lambda: field.get_default(call_default_factory=True),
        )

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return "--" + self.key.replace("_", "-")

    @property
    def variable(self) -> str:
        """The option in the environment."""
        return PREFIX + self.key.upper()

    @property
    def allowed(self) -> str:
        """Say what a value must be, as the end of a sentence about it."""
        match self.kind:
            case "whole" | "number":
                measure = _MEASURES.get(self.unit, "a whole number" if self.kind == "whole" else "a number")
                lower = (
                    f"above {plain(self.above)} and up to" if self.above is not None else f"from {plain(self.low)} to"
                )
                return f"must be {measure} {lower} {plain(self.high)}{_EXAMPLES.get(self.unit, '')}"
            case "flag":
                return "must be true or false"
            case "choice":
                return f"must be one of {', '.join(self.choices)}"
            case "list":
                return 'must be a list of texts, such as ["a", "b"]'
            case "file":
                return "must be the path of a file that can be read"
            case "text":
                return "must be a text that is not empty"

    def read(self, value: object) -> object:
        """Take a value as it stands in any of the three places; what is left to check is its type and its bounds.

        Raises ValueError with `allowed`.
        """
        match self.kind:
            case "whole" | "number":
                if isinstance(value, bool):
                    raise ValueError(self.allowed)
                return self._quantity(value) if isinstance(value, str) else value
            case "list":
                return self._list(value)
            case "file" | "text" if value == "":
                raise ValueError(self.allowed)
        return value

    def _quantity(self, text: str) -> int | float:
        amount = quantity(text, self.unit)
        if amount is None or (self.kind == "whole" and amount != int(amount)):
            raise ValueError(self.allowed)
        return int(amount) if self.kind == "whole" else float(amount)

    def _list(self, value: object) -> object:
        entries = [value] if isinstance(value, str) else value
        if not isinstance(entries, list | tuple) or not all(isinstance(e, str | SecretStr) for e in entries):
            raise ValueError(self.allowed)
        # A choice such as "*" stands for the whole list.
        if len(entries) == 1 and entries[0] in self.choices:
            return entries[0]
        return tuple(entries)


def quantity(text: str, unit: Unit) -> Decimal | None:
    """Read a number, with or without a unit after it, as a number of `unit`; None if it is neither."""
    match = _QUANTITY.fullmatch(text.strip())
    factors = {"": Decimal(1), **_FACTORS.get(unit, {})}
    return Decimal(match[1]) * factors[match[2]] if match and match[2] in factors else None


def plain(number: float | None) -> str:
    """Write a number without an idle fraction."""
    return str(int(number)) if number is not None and number == int(number) else str(number)


def as_toml(value: object) -> str:
    """Write a value as it stands in a TOML file; a secret is masked."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return plain(value)
        case SecretStr():
            return f'"{MASK}"'
        case list() | tuple():
            return "[" + ", ".join(as_toml(entry) for entry in value) + "]"
        case str() | Path():
            # JSON's escapes are TOML's, but for DEL, which TOML wants escaped too.
            return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value)


def as_toml_key(key: str) -> str:
    """Write a key as it stands in a TOML file, or a name as a part of one."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else as_toml(key)


def _leaves(annotation: object) -> Iterator[object]:
    """Yield the types and literals that an annotation is made of."""
    origin = get_origin(annotation)
    if origin is None:
        yield annotation
        return
    if origin not in (Union, UnionType, Literal):
        yield origin
    for part in get_args(annotation):
        yield from _leaves(part)


def _kind(leaves: tuple[object, ...]) -> Kind:
    kinds: tuple[tuple[object, Kind], ...] = (
        (tuple, "list"),
        (bool, "flag"),
        (int, "whole"),
        (float, "number"),
        (Path, "file"),
    )
    for leaf, kind in kinds:
        if leaf in leaves:
            return kind
    return "choice" if any(isinstance(leaf, str) for leaf in leaves) else "text"
