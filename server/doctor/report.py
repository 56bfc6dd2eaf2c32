"""The doctor's report: every finding, every limit, how many clients fit, and whether what is configured does.

For people a table of 79 columns, with advice under the rows that need it; for programs one JSON object.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from server.doctor.capacity import Bound
from server.doctor.finding import Finding, count

WIDTH: Final = 79
_CHECK: Final = 24
_VERDICT: Final = 8


@dataclass(frozen=True, slots=True)
class Report:
    """`wanted` is what the settings let in over all workers, and `origin` where that number is from.

    `bounds` are in the order in which they bind; `is_default` tells that nobody has asked for `wanted`.
    """

    findings: Sequence[Finding]
    bounds: Sequence[Bound]
    wanted: int
    workers: int
    origin: str
    is_default: bool

    @property
    def clients(self) -> int | None:
        """How many clients fit; None if no limit could be seen."""
        return self.bounds[0].clients if self.bounds else None

    @property
    def fits(self) -> bool:
        """Whether what was asked for fits. What is only a default was not asked for."""
        return self.is_default or self.clients is None or self.wanted <= self.clients

    def text(self) -> str:
        """Write the table."""
        lines = [f"{'check':{_CHECK}}{'verdict':{_VERDICT + 2}}found", "-" * WIDTH]
        for finding in self.findings:
            lines += _row(finding)
        lines += ["", "clients that fit"]
        lines += [f"  {count(bound.clients):>12}  by {bound.limit}" for bound in self.bounds]
        lines += ["", *textwrap.wrap(self.verdict, WIDTH)]
        return "\n".join(lines)

    def as_json(self) -> str:
        """Write the same for programs."""
        return json.dumps(
            {
                "findings": [asdict(finding) for finding in self.findings],
                "limits": [asdict(bound) for bound in self.bounds],
                "clients": self.clients,
                "binds_first": self.bounds[0].limit if self.bounds else None,
                "max_connections": self.wanted,
                "workers": self.workers,
                "fits": self.fits,
            },
            indent=2,
        )

    @property
    def verdict(self) -> str:
        """Say it in a sentence or two."""
        if self.clients is None:
            return "No limit could be seen here: how many clients fit is not known."
        said = f"{count(self.clients)} clients fit, bound by {self.bounds[0].limit}."
        asked = f"max_connections is {count(self.wanted // self.workers)} ({self.origin})"
        if self.workers > 1:
            asked += f" in each of {self.workers} workers, {count(self.wanted)} in all"
        if self.wanted <= self.clients:
            return f"{said} {asked}: it fits."
        if self.is_default:
            return f"{said} {asked}, more than fit: set it to {max(1, self.clients // self.workers)}."
        return f"{said} {asked}: it does not fit."


def _row(finding: Finding) -> Iterator[str]:
    indent = " " * (_CHECK + _VERDICT + 2)
    head = f"{finding.check:{_CHECK}}{finding.verdict:{_VERDICT}}  "
    said = textwrap.wrap(finding.value, WIDTH - len(indent)) or [""]
    yield (head + said[0]).rstrip()
    yield from (indent + line for line in said[1:])
    for line in textwrap.wrap(finding.advice, WIDTH - 6):
        yield f"      {line}"
