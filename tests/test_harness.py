"""The harness says why a server is not there, and when; it waits for none for ever."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import pytest

from tests.harness import TAIL, read_ports, serve

SAID = b"Stentor 1.0\n  page     https://127.0.0.1:8000/\n  metrics  http://127.0.0.1:9000/metrics\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, FileIO]]:
    """A descriptor to read from, and what is said into it."""
    reader, writer = os.pipe()
    with FileIO(writer, "w") as said:
        yield reader, said
    os.close(reader)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.write_text("the beginning" + "x" * TAIL + "cannot bind")
    return path


def test_ports_are_read_as_they_are_said(pipe: tuple[int, FileIO], log: Path) -> None:
    reader, said = pipe
    said.write(SAID)
    assert read_ports(reader, log) == (8000, 9000, "https")


def test_a_server_that_says_nothing_is_waited_for_no_longer_than_it_has(pipe: tuple[int, FileIO], log: Path) -> None:
    reader, said = pipe
    said.write(SAID[:40])
    began = time.monotonic()
    with pytest.raises(AssertionError, match=r"did not start within 0\.1 s: Stentor 1\.0\n.*x{100}cannot bind") as seen:
        read_ports(reader, log, within=0.1)
    assert 0.1 <= time.monotonic() - began < 10
    assert "the beginning" not in str(seen.value)


def test_a_server_that_ends_first_is_not_waited_for(pipe: tuple[int, FileIO], log: Path) -> None:
    reader, said = pipe
    said.close()
    with pytest.raises(AssertionError, match=r"did not start before it ended: .*cannot bind"):
        read_ports(reader, log)


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(AssertionError, match="no-such-file"), serve("--config", "no-such-file"):
        pass
