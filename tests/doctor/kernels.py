"""A machine's files, made up: what its kernel would say, below a folder of the test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

MIB: Final = 1024 * 1024

LIMITS: Final = """\
Limit                     Soft Limit           Hard Limit           Units
Max processes             96000                96000                processes
Max open files            {soft:<20} {hard:<20} files
Max locked memory         8388608              8388608              bytes
"""
USUAL: Final[Mapping[str, str]] = {
    "proc/sys/fs/nr_open": "1048576\n",
    "proc/sys/fs/file-max": "2000000\n",
    "proc/sys/fs/file-nr": "1000\t0\t2000000\n",
    "proc/meminfo": "MemTotal:  8388608 kB\nMemFree:  1048576 kB\nMemAvailable:  4194304 kB\n",
    "proc/sys/net/core/somaxconn": "4096\n",
    "proc/sys/net/ipv4/tcp_max_syn_backlog": "2048\n",
    "proc/sys/net/ipv4/ip_local_port_range": "32768\t60999\n",
    "proc/sys/net/ipv4/tcp_mem": "90000\t120000\t180000\n",
    "proc/sys/net/ipv4/tcp_wmem": "4096\t16384\t4194304\n",
    "proc/sys/net/ipv4/tcp_rmem": "4096\t131072\t6291456\n",
    "proc/self/status": "Name:\tx\nCpus_allowed:\tf\nCpus_allowed_list:\t0-3\nThreads:\t1\n",
}


def make(root: Path, files: Mapping[str, str] | None = None, *, soft: object = 65536, hard: object = 65536) -> Path:
    """Write a usual machine below `root`, with some files otherwise, or gone ("")."""
    said = {**USUAL, "proc/self/limits": LIMITS.format(soft=soft, hard=hard), **(files or {})}
    for name, text in said.items():
        if text:
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    return root
