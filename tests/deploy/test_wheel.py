"""The wheel: built from what the image is built from, installed where nothing is, and used from an empty folder.

What it asks for is put beside it in the versions that the tests run with, without asking an index for each: so this
takes seconds, and a requirement that is not declared is missed.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from server import __version__
from tests.deploy import DEPLOY, REPOSITORY
from tests.deploy.dockerfile import stages
from tests.harness import http, read_ports
from tests.lifecycle.crowd import connect, until

pytestmark = pytest.mark.scenario

# Python and pip as an operator has them: none of this shell's ways to find modules.
CLEAN = {
    name: value for name, value in os.environ.items() if not name.startswith(("STENTOR_", "PYTHON", "VIRTUAL_ENV"))
}


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=CLEAN, timeout=300)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, of exactly the files that the Dockerfile copies before it installs the server."""
    source, into = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in stages(DEPLOY / "Dockerfile")[0].copied():
        path = REPOSITORY / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", into, source, cwd=into)
    [built] = into.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bin_folder(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that holds the wheel and what that asks for, and nothing else."""
    home = tmp_path_factory.mktemp("home")
    run(sys.executable, "-m", "venv", "--without-pip", "env", cwd=home)
    python = home / "env/bin/python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps")
    run(*pip, "--no-compile", wheel, cwd=home)
    asking = "from importlib.metadata import requires; print(*requires('stentor'), sep='\\n')"
    for distribution in needed(run(python, "-c", asking, cwd=home).splitlines()):
        copy(
            distribution,
            Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home)[:-1]),
        )
    return home / "env/bin"


def needed(requirements: Iterable[str]) -> list[Distribution]:
    """Find what is asked for, and what that asks for in turn, among what the tests run with: the pinned versions."""
    found: dict[str, Distribution] = {}
    wanted = [(Requirement(text), "") for text in requirements]
    while wanted:
        requirement, extra = wanted.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        distribution = importlib.metadata.distribution(requirement.name)
        assert requirement.specifier.contains(distribution.version), requirement
        is_new = requirement.name not in found
        found[requirement.name] = distribution
        for each in {"", *requirement.extras} if is_new or requirement.extras else ():
            wanted += [(Requirement(text), each) for text in distribution.requires or ()]
    return list(found.values())


def copy(distribution: Distribution, into: Path) -> None:
    for file in distribution.files or ():
        if ".." not in file.parts and "__pycache__" not in file.parts:
            (into / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), into / file)


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def test_what_is_in_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"server", f"stentor-{__version__}.dist-info"}
    ours = {str(file.relative_to(REPOSITORY)) for file in (REPOSITORY / "server").rglob("*") if file.is_file()}
    ours = {name for name in ours if "__pycache__" not in name}
    assert {name for name in names if name.startswith("server/")} == ours
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_commands_that_need_no_server(bin_folder: Path, empty: Path) -> None:
    stentor = bin_folder / "stentor"
    assert run(stentor, "--version", cwd=empty) == f"stentor {__version__}\n"
    assert "queue_messages = 256  # from default" in run(stentor, "check", cwd=empty)
    assert "clients that fit" in run(stentor, "doctor", cwd=empty)
    assert run(bin_folder / "python", "-m", "server", "--version", cwd=empty) == f"stentor {__version__}\n"


@pytest.fixture
def ports(bin_folder: Path, empty: Path) -> Iterator[tuple[int, int]]:
    """The public and the internal port of `stentor`, run from an empty folder."""
    command = [bin_folder / "stentor", "--port", "0", "--internal-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=empty, env=CLEAN) as process:
        try:
            assert process.stdout is not None
            yield read_ports(process.stdout.fileno(), Path(os.devnull))[:2]
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
    assert list(empty.iterdir()) == [], "it leaves nothing behind"


async def test_it_serves(ports: tuple[int, int]) -> None:
    public, internal = (f"http://127.0.0.1:{port}" for port in ports)
    assets = await asyncio.to_thread(_assets, public)
    assert {"stentor.css", "main.js"} <= {name.rpartition("/")[2] for name in assets}
    operator = await asyncio.to_thread(_assets, internal)
    assert any(name.endswith(".js") for name in operator)
    client = await connect(ports[0], "/ws/lobby")
    assert client.status == 101
    client.say("heard")
    await until(lambda: client.heard == [b"heard"], what="it hears itself")
    client.vanish(reset=False)
    status, metrics = await asyncio.to_thread(http, "GET", f"{internal}/metrics")
    assert (status, b"stentor_messages_published_total 1.0" in metrics) == (200, True)


def _assets(site: str) -> list[str]:
    """Fetch a page and all that it asks for; return the names of that."""
    status, page = http("GET", f"{site}/", headers={"Accept": "text/html"})
    assert status == 200
    names = [name for name in re.findall(r'(?:src|href)="([^"#:]+)"', page.decode()) if "." in name]
    for name in names:
        assert http("GET", f"{site}/{name.lstrip('/')}")[0] == 200, name
    return names
