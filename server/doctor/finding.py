"""What the doctor finds: one thing looked at, what was seen, what to think of it, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What to think of it, from nothing to do to something to do first."""

    OK = "ok"
    UNSEEN = "not seen"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the report; `advice` is empty when there is nothing to do."""

    check: str
    value: str
    verdict: Verdict = Verdict.OK
    advice: str = ""


def unseen(check: str) -> Finding:
    """Say that something could not be looked at here."""
    return Finding(check, "-", Verdict.UNSEEN, "This system does not tell it, or not to this user.")


def count(number: int) -> str:
    """Write a number with its thousands apart."""
    return f"{number:,}"


def size(number: float) -> str:
    """Write a number of bytes in the largest unit that leaves it at least 1."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.4g} {unit}"
        number /= 1024
    return f"{number:,.4g} TiB"
