"""The house rules that a reader cannot see in one file: imports go one way, and every module has its twin here.

    core <- dialects, brokers <- node <- edge <- admin <- blueprint <- worker <- supervisor <- doctor <- commands
    <- __main__

``config``, ``logs`` and ``notify`` are leaves: everybody above the core may import them, and they import nobody.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

REPOSITORY: Final = Path(__file__).resolve().parent.parent
TESTS: Final = REPOSITORY / "tests"

FLOORS: Final = (
    {"core"},
    {"dialects", "brokers"},
    {"node"},
    {"edge"},
    {"admin"},
    {"blueprint"},
    {"worker"},
    {"supervisor"},
    {"doctor"},
    {"commands"},
    {"__main__"},
)
LEAVES: Final = {"config", "logs", "notify"}
# Pure and synchronous: what these rooms need of the world is handed to them.
PURE: Final = {"core", "dialects"}
EFFECTS: Final = {
    "asyncio", "uvloop", "socket", "selectors", "ssl", "threading", "signal", "time", "random", "logging", "os",
    "subprocess", "prometheus_client", "websockets", "aiohttp", "redis", "hiredis",
}  # fmt: skip
# Who may all the same, and why.
EXCEPTIONS: Final = {
    ("server.core.subscription", "websockets"): "broadcast() compares the state with State.OPEN by identity",
}

# Modules and packages whose tests have another name.
TWINS: Final = {
    "server.worker": ("lifecycle", "what a process does with signals and ports takes a process to see"),
    "server.__main__": ("test_cli.py", "the program is tested by its command lines"),
    "server.commands": ("test_cli.py", "the program is tested by its command lines"),
    "server.supervisor.exchange": ("test_local.py", "its answers are to the brokers of the workers, over real sockets"),
    "server.supervisor.supervisor": ("lifecycle", "what signals and ports do to several processes takes them to see"),
    "server.core.publication": ("test_history.py", "a value without behaviour, in the hands of the stream"),
    "server.brokers.redis": (
        "test_redis_broker.py",
        "one broker of several rooms; each has its test_redis_NAME.py, or is seen at work there",
    ),
    "server.brokers.base": ("test_memory.py", "values and protocols, in the hands of a broker"),
    "server.admin.node_api": ("test_api_clients.py", "what the API does with clients, and what it tells of them"),
    "server.admin.port": ("test_app.py", "seen in the port of one process, and in that of many (test_board.py)"),
    "server.blueprint": ("test_config.py", "what becomes of each option"),
    "server.config": ("test_config.py", "the settings are read and judged as a whole"),
}


def modules(package: str) -> dict[str, Path]:
    """Find the modules of a package, by their dotted names."""
    found = {}
    for file in sorted((REPOSITORY / package).rglob("*.py")):
        parts = file.relative_to(REPOSITORY).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(name: str, source: str, *, is_package: bool = False) -> Iterator[str]:
    """Name every module that a source imports: at the top, in functions, and for type checking alone."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = name.split(".")[: -node.level + is_package or None] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # `from server import logs` may name a module.
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def floor(room: str) -> int:
    [number] = [number for number, rooms in enumerate(FLOORS) if room in rooms]
    return number


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def wrongs(name: str, source: str, *, is_package: bool = False) -> list[str]:
    """List the imports of a module that go the wrong way."""
    found = []
    package, room = name.split(".")[0], room_of(name)
    for target in imports(name, source, is_package=is_package):
        top = target.split(".")[0]
        if {package, top} == {"server", "loadtest"} or top == "tests":
            found.append(f"{name} imports {target}: {package} and {top} don't know each other")
        if package != "server":
            continue
        if room in PURE and top in EFFECTS and (name, top) not in EXCEPTIONS:
            found.append(f"{name} imports {target}: {room} is pure")
        other = room_of(target) if top == "server" else ""
        if other in ("", "__version__", room):
            continue
        if room in LEAVES:
            found.append(f"{name} imports {target}: {room} is a leaf")
        elif other in LEAVES:
            if room in PURE:
                found.append(f"{name} imports {target}: {room} is pure")
        elif floor(other) >= floor(room):
            found.append(f"{name} imports {target}: upwards")
    return found


def test_imports_go_one_way() -> None:
    house = modules("server")
    harness = modules("loadtest")
    assert len(house) > 30
    assert len(harness) > 10
    found = [
        wrong
        for name, file in (house | harness).items()
        for wrong in wrongs(name, file.read_text(), is_package=file.name == "__init__.py")
    ]
    assert found == []


def test_every_exception_is_needed() -> None:
    house = modules("server")
    for name, target in EXCEPTIONS:
        assert target in {module.split(".")[0] for module in imports(name, house[name].read_text())}


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("server.core.hub", "import asyncio"),
        ("server.core.hub", "from time import monotonic"),
        ("server.core.hub", "import logging.handlers"),
        ("server.core.hub", "from websockets.asyncio.server import broadcast"),
        ("server.core.hub", "from server.edge import gate"),
        ("server.core.hub", "from server import logs"),
        ("server.core.hub", "from server.config import Settings"),
        ("server.core.hub", "from ..edge.gate import Gate"),
        ("server.core.hub", "from .. import edge"),
        ("server.core.hub", "def f():\n    import server.dialects.raw"),
        ("server.core.hub", "if TYPE_CHECKING:\n    from server.worker import House"),
        ("server.dialects.raw", "from server.edge.session import Session"),
        ("server.dialects.raw", "import socket"),
        ("server.dialects.raw", "from server.brokers.memory import Memory"),
        ("server.edge.gate", "from server.admin.metrics import render"),
        ("server.edge.gate", "from server.worker import run"),
        ("server.admin.app", "from server import worker"),
        ("server.worker", "import server.commands.serve"),
        ("server.commands.serve", "from server.__main__ import main"),
        ("server.config.rules", "from server.core.lag import LagPolicy"),
        ("server.logs", "from server.edge import listener"),
        ("server.edge.gate", "from loadtest.protocol import scan"),
        ("server.edge.gate", "from tests.fakes import Clock"),
        ("loadtest.swarm", "from server.core.frames import encode_frame"),
        ("loadtest.swarm", "import server"),
    ],
)
def test_the_check_finds_an_import_that_goes_the_wrong_way(name: str, source: str) -> None:
    assert len(wrongs(name, source)) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("server.core.hub", "from server.core.lag import LagPolicy\nfrom .outbox import Outbox\nimport struct"),
        ("server.core.subscription", "from websockets.protocol import State"),
        ("server.dialects.raw", "import orjson\nfrom server.core.frames import TEXT"),
        ("server.edge.gate", "import asyncio\nfrom server.core import limits\nfrom server.dialects import raw"),
        ("server.admin.metrics", "from server import __version__"),
        ("server.worker", "from server import __version__, logs\nfrom server.config import Settings"),
        ("server.commands.serve", "from server.worker import run\nfrom server.commands.line import Line"),
        ("server.__main__", "from server.config.sources import ConfigError"),
        ("server.config.rules", "from server.config.keys import fault"),
        ("loadtest.swarm", "import gevent\nfrom loadtest.protocol import scan"),
    ],
)
def test_the_check_lets_the_right_ones_pass(name: str, source: str) -> None:
    assert wrongs(name, source) == []


def has_twin(name: str, tests: set[str]) -> bool:
    """Tell if a module has a test of its name, its package a folder of tests, or either an entry in TWINS."""
    packages = [name.rsplit(".", count)[0] for count in range(name.count("."))]
    return (
        f"test_{name.rpartition('.')[2]}.py" in tests
        or any(package in TWINS for package in packages)
        or any(package.rpartition(".")[2] in tests for package in packages[1:])
    )


def test_every_module_has_its_twin() -> None:
    tests = {path.name for path in TESTS.rglob("*") if path.name.startswith("test_") or path.is_dir()}
    house = {name for name, file in modules("server").items() if file.name != "__init__.py"}
    lonely = sorted(name for name in house if not has_twin(name, tests))
    assert lonely == [], "add tests/test_NAME.py, or say in TWINS where its tests are, and why"


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("server.core.hub", True),
        ("server.dialects.centrifuge.codec", True),
        ("server.commands.token", True),
        ("server.core.new", False),
        ("server.dialects.codec", False),
        ("server.new", False),
    ],
)
def test_the_check_finds_a_module_without_one(name: str, twin: bool) -> None:
    assert has_twin(name, {"test_hub.py", "test_codec2.py", "centrifuge", "lifecycle"}) is twin


def test_every_twin_of_another_name_is_there() -> None:
    house = modules("server")
    for name, (place, reason) in TWINS.items():
        assert name in house, f"{name} has gone: take it out of TWINS"
        assert (TESTS / place).exists(), f"{place}, the twin of {name}, has gone"
        assert reason
