"""The image: a linter's word, who it runs as, how it is stopped, and that its health check tells the truth."""

from __future__ import annotations

import fnmatch
import subprocess
import sys
from pathlib import Path

import pytest

from server.__main__ import COMMANDS
from server.config import OPTIONS
from tests.deploy import DEPLOY, REPOSITORY, tool
from tests.deploy.dockerfile import command, stages
from tests.harness import serve

DOCKERFILE = DEPLOY / "Dockerfile"
BUILD, LOADTEST, IMAGE = stages(DOCKERFILE)


def hadolint(file: Path) -> str:
    return subprocess.run([tool("hadolint"), "--no-color", file], capture_output=True, text=True, check=False).stdout


def test_hadolint_has_nothing_to_say() -> None:
    assert hadolint(DOCKERFILE) == ""


def test_hadolint_would(tmp_path: Path) -> None:
    planted = tmp_path / "Dockerfile"
    planted.write_text("FROM python\nRUN cd /tmp && pip install x\nCMD stentor serve\n")
    said = hadolint(planted)
    assert {"DL3006", "DL3003", "DL3025"} <= set(said.replace("\x1b[0m", "").split())


def test_stages() -> None:
    assert (BUILD.name, LOADTEST.name, IMAGE.name) == ("build", "loadtest", "")
    assert BUILD.image == IMAGE.image, "what was built on one Python runs on the same"
    assert "slim" in IMAGE.image
    assert LOADTEST.image == "build"
    assert IMAGE.all("RUN") == [run for run in IMAGE.all("RUN") if "pip" not in run and "apt" not in run]


@pytest.mark.parametrize("stage", [LOADTEST, IMAGE], ids=["loadtest", "server"])
def test_nobody_is_root(stage: object) -> None:
    assert stage in (LOADTEST, IMAGE)
    for each in (LOADTEST, IMAGE):
        user = each.last("USER")
        assert user.isdecimal(), "a name is nothing that Kubernetes could check"
        assert int(user) > 1000
        assert any(f"--uid {user} " in run for run in each.all("RUN"))


def test_pip_leaves_no_cache() -> None:
    assert BUILD.environment()["PIP_NO_CACHE_DIR"] == "1"
    assert all("-c constraints.txt" in run for run in BUILD.all("RUN") if "pip install" in run)


def test_it_is_stopped_as_the_server_expects() -> None:
    assert IMAGE.last("STOPSIGNAL") == "SIGTERM"
    assert command(IMAGE.last("ENTRYPOINT")) == ["stentor"]  # no shell in between, which would swallow it
    [name] = command(IMAGE.last("CMD"))
    assert name in COMMANDS


def test_variables_are_options() -> None:
    variables = {name for name in IMAGE.environment() if name.startswith("STENTOR_")}
    assert variables == {"STENTOR_HOST"}
    assert variables <= {option.variable for option in OPTIONS.values()}
    assert IMAGE.last("EXPOSE").split() == [str(OPTIONS["port"].default()), str(OPTIONS["internal_port"].default())]


def health_check() -> list[str]:
    _, _, words = IMAGE.last("HEALTHCHECK").partition("CMD ")
    program, *arguments = command(words)
    assert program == "python"
    return [sys.executable, *arguments]


def is_healthy(internal_port: int) -> bool:
    environment = {"STENTOR_INTERNAL_PORT": str(internal_port)}
    return subprocess.run(health_check(), env=environment, capture_output=True, check=False).returncode == 0


def test_the_health_check_tells_the_truth(unused_tcp_port: int) -> None:
    with serve() as server:
        assert is_healthy(server.internal_port)
    assert not is_healthy(unused_tcp_port)


# What goes into it


def ignored(name: str) -> bool:
    """Tell if .dockerignore leaves a path out: its last line that fits decides."""
    verdict = False
    for line in (REPOSITORY / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#"):
            is_exception, pattern = pattern.startswith("!"), pattern.removeprefix("!")
            parts = Path(name).parts
            prefixes = ["/".join(parts[: end + 1]) for end in range(len(parts))]
            if any(fnmatch.fnmatch(prefix, pattern.replace("**/", "*")) for prefix in prefixes):
                verdict = not is_exception
    return verdict


def test_what_is_copied_is_there_and_not_left_out() -> None:
    copied = [*BUILD.copied(), *LOADTEST.copied()]
    assert copied == ["pyproject.toml", "constraints.txt", "README.md", "LICENSE", "server", "loadtest"]
    for name in copied:
        assert (REPOSITORY / name).exists(), name
        assert not ignored(name), name


@pytest.mark.parametrize(
    "name", [".git/config", ".venv/bin/python", "tests/conftest.py", "server/__pycache__/x.pyc", "loadtest/results/1"]
)
def test_what_does_not_belong_into_it_is_left_out(name: str) -> None:
    assert ignored(name)


def test_files_of_the_server_are_let_in() -> None:
    assert not ignored("server/web/index.html")
    assert not ignored("server/__main__.py")
