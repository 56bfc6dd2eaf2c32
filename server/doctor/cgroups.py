"""What the control groups of a process leave it: memory and processors, of version 1 and 2.

A group's limit holds for all groups in it, so every one on the way up to the root is looked at. In a container the
process's path may lead to nowhere: then its root is the group's own. Laws as in `machine`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Version 1 has no word for "no limit", but a number that no machine reaches.
_NO_LIMIT = 2**60


@dataclass(frozen=True, slots=True)
class Group:
    """Bytes that are left, and processors' worth of time; None without a limit."""

    memory_left: int | None = None
    processors: float | None = None


def read(root: Path, process: Path) -> Group:
    """Read the limits of a process, whose folder in proc is `process`."""
    memory: list[int] = []
    processors: list[float] = []
    mount = root / "sys/fs/cgroup"
    for controllers, path in _memberships(process):
        if not controllers:
            for folder in _upwards(_first([mount / "unified", mount]), path):
                memory += _left(folder, "memory.max", "memory.current", "inactive_file")
                processors += _quota(_words(folder / "cpu.max"))
        elif "memory" in controllers:
            for folder in _upwards(mount / "memory", path):
                memory += _left(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        elif "cpu" in controllers:
            for folder in _upwards(_first([mount / "cpu", mount / "cpu,cpuacct"]), path):
                processors += _quota(_words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us"))
    return Group(min(memory, default=None), min(processors, default=None))


def _memberships(process: Path) -> Iterator[tuple[list[str], str]]:
    """Yield the controllers of each hierarchy, none for version 2, and the path in it."""
    for line in _lines(process / "cgroup"):
        parts = line.split(":", 2)
        if len(parts) == 3:
            yield [name for name in parts[1].split(",") if name], parts[2].strip("/")


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    folder = mount / path
    while folder != mount:
        yield folder
        folder = folder.parent
    yield mount


def _first(folders: Iterable[Path]) -> Path:
    candidates = list(folders)
    return next((folder for folder in candidates if folder.is_dir()), candidates[-1])


def _left(folder: Path, limit: str, usage: str, inactive: str) -> list[int]:
    """Return what a limit leaves, as a list of one, or of none without a limit."""
    at_most, used = _words(folder / limit), _words(folder / usage)
    if not at_most or not at_most[0].isdecimal() or int(at_most[0]) >= _NO_LIMIT:
        return []
    # Pages of files that nobody reads are given back when memory is wanted.
    fields = dict(pair for line in _lines(folder / "memory.stat") if len(pair := line.split()) == 2)
    spare = int(fields.get(inactive, "0")) if fields.get(inactive, "0").isdecimal() else 0
    taken = int(used[0]) if used and used[0].isdecimal() else 0
    return [max(0, int(at_most[0]) - max(0, taken - spare))]


def _quota(words: list[str]) -> list[float]:
    """Return how many processors a quota and its period are worth, as a list of one, or of none without a quota."""
    if len(words) != 2 or not all(word.isdecimal() for word in words) or not int(words[1]):
        return []
    return [int(words[0]) / int(words[1])]


def _words(file: Path) -> list[str]:
    return " ".join(_lines(file)).split()


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []
