"""A network of its own, joined to ours by one cable that can be cut: what is sent after that is lost in silence.

Linux network namespaces; needs root and iproute2. Nothing leaves the machine: both ends of the cable are in it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

_CLONE_NEWNET = 0x40000000


class Island:
    """The network namespace `name`; a server for it listens on `host`, which is our end of the cable."""

    def __init__(self, name: str, host: str, their_end: str) -> None:
        self.name = name
        self.host = host
        self._their_end = their_end

    def socket(self) -> socket.socket:
        """Make a TCP socket that lives on the island."""
        made: list[socket.socket] = []
        errors: list[OSError] = []

        def make() -> None:
            # A namespace is entered by a thread; the socket stays where it was made.
            libc = ctypes.CDLL(None, use_errno=True)
            with Path("/run/netns", self.name).open() as namespace:
                if libc.setns(namespace.fileno(), _CLONE_NEWNET):
                    errors.append(OSError(ctypes.get_errno(), "setns"))
                else:
                    made.append(socket.socket())

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return made[0]

    def cut(self) -> None:
        """Cut the cable: packets vanish, in both directions, and nobody is told."""
        _ip("-n", self.name, "link", "set", self._their_end, "down")


@contextlib.contextmanager
def island() -> Iterator[Island]:
    """Raise an island, and sink it at the end of the block."""
    if not shutil.which("ip"):
        pytest.fail("this scenario needs the program `ip` (Debian package iproute2) to cut a cable")
    number = os.getpid() % 16384
    # 198.18.0.0/15 is for tests of networks (RFC 2544): a pair of addresses for each process.
    prefix = f"198.18.{number // 64}."
    ours, theirs = (prefix + str(number % 64 * 4 + end) for end in (1, 2))
    name, our_end, their_end = (f"stentor{end}{os.getpid()}" for end in "nab")
    try:
        _ip("netns", "add", name)
        _ip("link", "add", our_end, "type", "veth", "peer", "name", their_end, "netns", name)
        _ip("address", "add", f"{ours}/30", "dev", our_end)
        _ip("link", "set", our_end, "up")
        _ip("-n", name, "address", "add", f"{theirs}/30", "dev", their_end)
        _ip("-n", name, "link", "set", their_end, "up")
        yield Island(name, ours, their_end)
    finally:
        for words in (("link", "del", our_end), ("netns", "del", name)):
            subprocess.run(("ip", *words), check=False, capture_output=True)


def _ip(*words: str) -> None:
    done = subprocess.run(("ip", *words), check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"this scenario needs network namespaces (root): ip {' '.join(words)}: {done.stderr.strip()}")
