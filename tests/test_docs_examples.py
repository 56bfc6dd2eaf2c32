"""The programs and commands of docs/getting-started.md, run as they stand against a server as it is started there.

Only the ports are others. An SDK that is missing is `make test`'s to install.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from server.__main__ import main
from tests.documents import Block, blocks
from tests.harness import REPOSITORY, Server, http, serve, wait_until
from tests.sdk.programs import INSTALLED, MODULES, absent

PAGE: Final = REPOSITORY / "docs/getting-started.md"
BLOCKS: Final = list(blocks(PAGE.read_text()))
STENTOR: Final = Path(sys.executable).parent / "stentor"


def block(kind: str, *words: str, beginning: str = "") -> Block:
    [found] = [each for each in BLOCKS if (each.kind, each.words) == (kind, words) and each.text.startswith(beginning)]
    return found


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Started with the options that the page gives."""
    line = block("sh", beginning="make run").text
    options = shlex.split(shlex.split(line)[-1].removeprefix("ARGS="))
    assert options == ["--history-size", "100", "--presence", "--join-leave"]
    with serve(*options) as started:
        yield started


class Program:
    """A program that runs until the block ends; `said` is what it has printed."""

    def __init__(self, command: Sequence[str | Path], cwd: Path) -> None:
        self.said: list[str] = []
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=cwd)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.rstrip("\n"))

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def wait_for(self, count: int) -> list[str]:
        return wait_until(lambda: len(self.said) >= count and self.said, within=30.0, what=f"{count} lines")  # type: ignore[no-any-return]


def at(server: Server, text: str) -> str:
    """Say it of this server instead of one on the usual ports."""
    assert ":8000" in text or ":9000" in text
    return text.replace(":8000", f":{server.port}").replace(":9000", f":{server.internal_port}")


def node() -> str:
    program = shutil.which("node")
    if program is None or not MODULES.exists():
        absent("no node" if program is None else "no JavaScript SDK")
    return program


def python_of_the_sdk() -> Path:
    interpreter = INSTALLED / "bin/python"
    if not interpreter.exists():
        absent("no Python SDK")
    return interpreter


def script(folder: Path, text: str) -> Path:
    (folder / "node_modules").symlink_to(MODULES)
    file = folder / "program.mjs"
    file.write_text(text)
    return file


def test_the_five_lines_of_a_browser(server: Server, tmp_path: Path) -> None:
    # What a browser brings along, and Node may not.
    brought = 'import WebSocket from "ws";\n'
    program = script(tmp_path, brought + at(server, block("js").text))
    with Program([node(), program], tmp_path) as running:
        assert running.wait_for(1) == ["hello from a browser"]


def test_python_without_a_library_of_ours(server: Server, tmp_path: Path) -> None:
    program = at(server, block("python").text)
    with Program([sys.executable, "-c", program], tmp_path) as running:
        assert running.wait_for(1) == ["hello from Python"]
        assert running.process.wait(10) == 0


def test_the_sdks_hear_each_other_and_what_was_before(server: Server, tmp_path: Path) -> None:
    before = len(server.api("history", {"channel": "lobby", "limit": 100})["result"]["publications"])
    javascript = script(tmp_path, at(server, block("js", "sdk").text))
    with Program([node(), javascript], tmp_path) as first:
        said = first.wait_for(2)
        assert said == [f"{min(before, 10)} said before you came", "{ from: 'JavaScript', text: 'hello' }"]
        with Program([python_of_the_sdk(), "-c", at(server, block("python", "sdk").text)], tmp_path) as second:
            assert second.wait_for(1) == ["{'from': 'Python', 'text': 'hello'}"]
            assert second.process.wait(15) == 0
        assert first.wait_for(3)[2] == "{ from: 'Python', text: 'hello' }"


def test_a_backend_publishes(server: Server) -> None:
    replies = []
    for line in block("sh", beginning="curl").lines:
        program, option, body, url = shlex.split(at(server, line))
        assert (program, option) == ("curl", "-d")
        status, reply = http("POST", url, body.encode())
        assert status == 200
        replies.append(json.loads(reply))
    assert [list(reply) for reply in replies] == [["result"], ["result"]]
    assert replies[1]["result"]["num_clients"] >= 0


def test_a_dashboard(server: Server, tmp_path: Path) -> None:
    """vmstat is asked for two lines in place of one a second for ever."""
    here = {"--url": f"ws://127.0.0.1:{server.port}"}
    listening = shlex.split(block("sh", beginning=".venv/bin/stentor listen").text)
    with Program([STENTOR, *listening[1:], "--url", here["--url"]], tmp_path) as listener:
        wait_until(lambda: server.metrics()["stentor_subscriptions"] >= 1, what="the listener is there")
        line = block("sh", beginning="vmstat").text
        assert line == "vmstat 1 | .venv/bin/stentor publish --channel system"
        line = line.replace("vmstat 1", "vmstat 1 2").replace(".venv/bin/stentor", str(STENTOR))
        done = subprocess.run(
            f"{line} --url {here['--url']}", shell=True, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(r"[\d ]+", listener.wait_for(4)[3])


def test_the_file_and_its_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("STENTOR_")]:
        monkeypatch.delenv(name)
    text = block("toml").text
    assert tomllib.loads(text)["auth"] == "jwt"
    (tmp_path / "stentor.toml").write_text(text)
    check, token = block("sh", beginning=".venv/bin/stentor check").lines
    assert main(shlex.split(check, comments=True)[1:]) == 0
    out, err = capsys.readouterr()
    assert 'auth = "jwt"  # from stentor.toml' in out
    assert err == ""
    assert main(shlex.split(token, comments=True)[1:]) == 0
    assert capsys.readouterr().out.count(".") == 2


def test_every_block_is_tried() -> None:
    kinds = sorted((each.kind, *each.words) for each in BLOCKS)
    tried = [("js",), ("js", "sdk"), ("python",), ("python", "sdk"), ("text",), ("toml",), *[("sh",)] * 5]
    assert kinds == sorted(tried)
