"""The systemd unit: systemd's own word on it, and that its times and codes are those of the server."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.__main__ import main
from server.config import OPTIONS
from server.worker import CANNOT_LISTEN
from tests.deploy import DEPLOY, DRAIN_TIMEOUT, tool
from tests.harness import serve, wait_until

UNIT = DEPLOY / "systemd/stentor.service"
# What `systemd-analyze security` calls well protected is under 2 of 10.
MOST_EXPOSED = 2.0
STENTOR = Path(sys.executable).parent / "stentor"


def settings(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            yield key, value


def value(key: str) -> str:
    [found] = [each for name, each in settings(UNIT.read_text()) if name == key]
    return found


def as_installed(folder: Path, unit: str | None = None) -> Path:
    """Write the unit with the program where it is here, for systemd looks whether it exists."""
    file = folder / "stentor.service"
    file.write_text((unit or UNIT.read_text()).replace("/opt/stentor/bin/stentor", str(STENTOR)))
    return file


def verified(unit: Path) -> str:
    """Return what systemd finds wrong with a unit."""
    command = [tool("systemd-analyze"), "verify", "--man=no", unit]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0 or said.stderr
    # Only of ours: it also looks at all that a unit of this machine wants.
    return "\n".join(line for line in said.stderr.splitlines() if unit.name in line)


def test_systemd_understands_it(tmp_path: Path) -> None:
    assert STENTOR.exists()
    assert verified(as_installed(tmp_path)) == ""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("WatchdogSec=30", "WatchdogSec=often"),
        ("ProtectSystem=strict", "ProtectSystm=strict"),
        ("/opt/stentor/bin/stentor", "/nowhere/stentor"),
        ("Type=notify", "Type=notified"),
    ],
)
def test_it_finds_what_is_wrong(tmp_path: Path, right: str, wrong: str) -> None:
    assert verified(as_installed(tmp_path, UNIT.read_text().replace(right, wrong))) != ""


def test_it_is_well_protected(tmp_path: Path) -> None:
    command = [tool("systemd-analyze"), "security", "--offline=true", "--no-pager", as_installed(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Overall exposure level for stentor.service: ([0-9.]+)", said)
    assert found, said
    assert float(found[1]) < MOST_EXPOSED


def test_there_is_time_to_drain() -> None:
    assert OPTIONS["drain_timeout"].default() == DRAIN_TIMEOUT
    assert int(value("TimeoutStopSec")) > DRAIN_TIMEOUT + 5


def test_a_wrong_configuration_is_not_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert int(value("RestartPreventExitStatus")) == CANNOT_LISTEN == main(["--port", "x"])
    assert capsys.readouterr().err


def test_it_speaks_for_itself_alone_and_is_restarted_when_it_hangs() -> None:
    assert (value("Type"), value("NotifyAccess"), value("Restart")) == ("notify", "main", "always")
    assert int(value("WatchdogSec")) >= 10


def test_a_client_for_each_descriptor() -> None:
    assert int(value("LimitNOFILE")) >= 65536


def test_the_line_that_starts_it_is_one(tmp_path: Path) -> None:
    program, command, *options = value("ExecStart").split()
    assert (program, command) == ("/opt/stentor/bin/stentor", "serve")
    with serve(*options, cwd=tmp_path) as server:
        wait_until(lambda: '"message":"listening on' in server.log_text())
        assert server.terminate() == 0


def test_it_does_without_memory_that_is_writable_and_executable() -> None:
    """MemoryDenyWriteExecute, as far as Linux has it by itself (PR_SET_MDWE, 6.3)."""
    assert value("MemoryDenyWriteExecute") == "yes"
    script = (
        "import ctypes, runpy, sys\n"
        "if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0): sys.exit(77)\n"
        "import server.worker, server.supervisor.supervisor, server.commands.token, cryptography.x509\n"
        "import jwt, ssl; ssl.create_default_context()\n"
        "print(jwt.encode({}, 'x' * 32))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=DEPLOY.parent)
    if run.returncode == 77:
        pytest.skip("this kernel has no PR_SET_MDWE")  # nor is it for CI to install
    assert (run.returncode, run.stdout.count(".")) == (0, 2), run.stderr
