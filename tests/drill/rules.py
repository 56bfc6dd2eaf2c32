"""The rules of Prometheus as the tests see them: alerts, recorded series, the cases of promtool, and what they name."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from tests.absence import absent

REPOSITORY: Final = Path(__file__).resolve().parent.parent.parent
FOLDER: Final = REPOSITORY / "dashboards" / "prometheus"
CASES: Final = FOLDER / "tests"
RULES: Final = ("recording.yml", "alerts.yml")
RUNBOOK: Final = REPOSITORY / "docs" / "runbook.md"

_METRIC: Final = re.compile(r"(?<![\w:])(?:stentor|process)_[a-z0-9_]+")
_RECORDED: Final = re.compile(r"\b[a-z_]+:[a-z0-9_]+:[a-z0-9_]+")
_MATCHER: Final = re.compile(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"')
_DURATION: Final = re.compile(r"(?P<before>\bfor: |\[|offset )(?P<count>\d+)(?P<unit>[smhd])\b")
_MILLISECONDS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True)
class Alert:
    """One alert: its expression, for how long, and what it says."""

    name: str
    expression: str
    within: str
    labels: dict[str, str]
    annotations: dict[str, str]

    @property
    def is_page(self) -> bool:
        return self.labels["severity"] == "page"


def tool(name: str) -> str:
    """Find one of Prometheus' programs. Where there is none the test is skipped, aloud; under CI it fails."""
    found = shutil.which(name)
    if found is None:
        absent(f"{name} is not installed")
    return found


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool; what it says is in `stdout`, whichever way it said it."""
    command = [tool("promtool"), *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False)


def rules_of(file: Path) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


@cache
def alerts() -> dict[str, Alert]:
    """Read all alerts, by name, in the order of the file."""
    return {
        rule["alert"]: Alert(rule["alert"], rule["expr"], rule["for"], rule["labels"], rule["annotations"])
        for rule in rules_of(FOLDER / "alerts.yml")
    }


@cache
def recorded() -> dict[str, str]:
    """Read the recorded series: their expressions, by name."""
    return {rule["record"]: rule["expr"] for rule in rules_of(FOLDER / "recording.yml")}


def metrics_in(expression: str) -> set[str]:
    """Name the metrics that an expression reads from a scrape."""
    return set(_METRIC.findall(expression))


def recorded_in(expression: str) -> set[str]:
    """Name the recorded series that an expression reads."""
    return set(_RECORDED.findall(expression))


def values_in(expression: str, label: str) -> set[str]:
    """Name the values of a label that an expression asks for, or leaves out."""
    return {value for name, values in _MATCHER.findall(expression) if name == label for value in values.split("|")}


def shortened(rules: str, factor: int) -> str:
    """Make the time of the rules `factor` times as fast: every `for`, range and offset, and nothing else."""

    def shorten(match: re.Match[str]) -> str:
        milliseconds = int(match["count"]) * _MILLISECONDS[match["unit"]] // factor
        return f"{match['before']}{milliseconds}ms"

    return _DURATION.sub(shorten, rules)
