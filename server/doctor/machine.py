"""What a machine gives to a process, as its kernel tells it: files, memory, processors, ports and buffers.

Laws: only reads, and only below `root` (a copy of the kernel's files in tests); what is not there, or not understood,
is None and never an error. Sizes are bytes. Knows nothing of Stentor.
"""

from __future__ import annotations

import os
import re
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.doctor import cgroups

# What the kernel calls unlimited, where a number is wanted: above all that there can be.
UNLIMITED: Final = 2**63 - 1

Range = tuple[int, int]
# Least, usual and most; of all sockets together: no care, pressure, and no more.
Triple = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Machine:
    """See the module; None is what could not be seen."""

    files_soft: int | None = None
    files_hard: int | None = None
    files_at_most: int | None = None  # fs.nr_open: above it no process may raise its limit
    files_of_all: int | None = None  # fs.file-max
    files_in_use: int | None = None
    memory_available: int | None = None
    memory_left_by_group: int | None = None
    processors: int | None = None
    processor_quota: float | None = None
    accept_queue: int | None = None  # net.core.somaxconn
    handshake_queue: int | None = None  # net.ipv4.tcp_max_syn_backlog
    ports: Range | None = None
    tcp_memory: Triple | None = None
    send_buffer: Triple | None = None
    receive_buffer: Triple | None = None
    tracked_at_most: int | None = None  # connections that the firewall keeps; None also if it keeps none
    tracked: int | None = None


def read(root: Path = Path("/"), pid: int | None = None) -> Machine:
    """Read the machine's files, and the limits of the process `pid` (by default of this one)."""
    proc = root / "proc"
    process = proc / ("self" if pid is None else str(pid))
    files_soft, files_hard = _open_files(process, is_ours=pid is None and root == Path("/"))
    group = cgroups.read(root, process)
    return Machine(
        files_soft=files_soft,
        files_hard=files_hard,
        files_at_most=_number(proc / "sys/fs/nr_open"),
        files_of_all=_number(proc / "sys/fs/file-max"),
        files_in_use=_number(proc / "sys/fs/file-nr"),
        memory_available=_memory_available(proc),
        memory_left_by_group=group.memory_left,
        processors=_processors(process),
        processor_quota=group.processors,
        accept_queue=_number(proc / "sys/net/core/somaxconn"),
        handshake_queue=_number(proc / "sys/net/ipv4/tcp_max_syn_backlog"),
        ports=_range(proc / "sys/net/ipv4/ip_local_port_range"),
        tcp_memory=_pages(_triple(proc / "sys/net/ipv4/tcp_mem")),
        send_buffer=_triple(proc / "sys/net/ipv4/tcp_wmem"),
        receive_buffer=_triple(proc / "sys/net/ipv4/tcp_rmem"),
        tracked_at_most=_number(proc / "sys/net/netfilter/nf_conntrack_max"),
        tracked=_number(proc / "sys/net/netfilter/nf_conntrack_count"),
    )


def text_of(file: Path) -> str:
    """Return what a file says; "" if it cannot be read."""
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


def _numbers(file: Path) -> list[int]:
    words = text_of(file).split()
    return [int(word) for word in words] if all(word.isdecimal() for word in words) else []


def _number(file: Path) -> int | None:
    numbers = _numbers(file)
    return min(numbers[0], UNLIMITED) if numbers else None


def _range(file: Path) -> Range | None:
    numbers = _numbers(file)
    return (numbers[0], numbers[1]) if len(numbers) == 2 else None


def _triple(file: Path) -> Triple | None:
    numbers = _numbers(file)
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 else None


def _pages(triple: Triple | None) -> Triple | None:
    page = os.sysconf("SC_PAGESIZE")
    return (triple[0] * page, triple[1] * page, triple[2] * page) if triple else None


def _open_files(process: Path, *, is_ours: bool) -> tuple[int | None, int | None]:
    found = re.search(r"^Max open files\s+(\S+)\s+(\S+)", text_of(process / "limits"), re.MULTILINE)
    if found:
        return _limit(found[1]), _limit(found[2])
    if not is_ours:
        return None, None
    # Not Linux: the one limit that every Unix tells.
    soft, hard = (
        UNLIMITED if limit == resource.RLIM_INFINITY else limit for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    return soft, hard


def _limit(word: str) -> int | None:
    if word == "unlimited":
        return UNLIMITED
    return int(word) if word.isdecimal() else None


def _memory_available(proc: Path) -> int | None:
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text_of(proc / "meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _processors(process: Path) -> int | None:
    found = re.search(r"^Cpus_allowed_list:\s+([\d,-]+)$", text_of(process / "status"), re.MULTILINE)
    if not found:
        return None
    spans = [part.partition("-") for part in found[1].split(",")]
    return sum(int(last or first) - int(first) + 1 for first, _, last in spans)
