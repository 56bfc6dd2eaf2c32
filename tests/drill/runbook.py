"""The runbook in its parts: sections, queries, commands, and the words that are code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from tests.documents import blocks
from tests.drill.rules import RUNBOOK

TEXT: Final = RUNBOOK.read_text()


def sections(text: str) -> dict[str, str]:
    """Split the runbook at its headings: the text by the name of the alert."""
    parts = re.split(r"^## (Stentor\w+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def queries(text: str) -> list[str]:
    """Find the queries: each line of a block of ``promql`` is one."""
    return [line for block in blocks(text) if block.kind == "promql" for line in block.lines if line]


def commands(text: str) -> list[str]:
    """Find the commands: a block of ``sh`` has one a line, or one that goes on behind an open quote."""
    found: list[str] = []
    for block in blocks(text):
        for line in block.lines if block.kind == "sh" else ():
            if found and _is_open(found[-1]):
                found[-1] += "\n" + line
            else:
                found.append(line)
    return found


def _is_open(command: str) -> bool:
    return command.count("'") % 2 == 1


def code(text: str) -> Iterator[str]:
    """Find what stands between backticks in a line."""
    without_blocks = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"`([^`\n]+)`", without_blocks)
