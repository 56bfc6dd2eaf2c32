"""Reads the Dockerfile as far as its tests need it: stages, and instructions with their words."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """One FROM and what follows it."""

    image: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, keyword: str) -> list[str]:
        return [words for name, words in self.instructions if name == keyword]

    def last(self, keyword: str) -> str:
        return self.all(keyword)[-1]

    def environment(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for words in self.all("ENV") for pair in words.split())

    def copied(self) -> list[str]:
        """What comes from the repository."""
        lines = [words.split() for words in self.all("COPY") if "--from" not in words]
        return [source for words in lines for source in words[:-1]]


def stages(file: Path) -> list[Stage]:
    """Split a Dockerfile; lines that go on are joined, and comments left out."""
    text = "\n".join(line for line in file.read_text().splitlines() if not line.lstrip().startswith("#"))
    found: list[Stage] = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        keyword, _, words = line.strip().partition(" ")
        if keyword == "FROM":
            image, _, name = words.partition(" AS ")
            found.append(Stage(image, name))
        elif keyword and found:
            found[-1].instructions.append((keyword, words.strip()))
    return found


def command(words: str) -> list[str]:
    """Read a command in exec form, the one that needs no shell. Raises ValueError for the other."""
    value = json.loads(words)
    assert isinstance(value, list)
    return [str(word) for word in value]
