"""The wall clock may jump: nothing that waits, measures or limits looks at it.

There is no way to set the clock of a test's machine, so this looks at the code: every use of the wall clock in the
rooms that serve clients is in the table below, with the reason for which a jump does no harm there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.harness import REPOSITORY

ROOMS = ("core", "dialects", "brokers", "node", "edge", "admin")
FILES = ("blueprint.py", "worker.py", "logs.py")
WALL_CLOCK = {
    ("time", "time"), ("time", "time_ns"), ("time", "gmtime"), ("time", "localtime"), ("time", "ctime"),
    ("time", "strftime"), ("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today"),
}  # fmt: skip

ALLOWED = {
    (
        "brokers/redis/broker.py",
        "__init__",
    ): "the date of what is kept, for those who read it; nothing is reckoned with it",
    ("admin/live.py", "__init__"): "the dates on the operator's charts; nothing is reckoned with it",
    ("admin/node_api.py", "__init__"): "when credentials end, as the server API says it, is Unix time",
    (
        "node/revocation_log.py",
        "__init__",
    ): "the end of a revocation is Unix time, as that of the token is: they jump together",
    ("edge/credentials.py", "_check_time"): "the times of a token are Unix times",
    ("blueprint.py", "broker"): "the date of what is kept, for those who read it; nothing is reckoned with it",
    ("worker.py", "_service"): "when credentials end is Unix time: turned into a duration once, when they are shown",
    ("edge/listener.py", "opened"): "when credentials end is Unix time: turned into a duration once, at the handshake",
    ("edge/listener.py", "_departure"): "a date for people who read the flight recorder; nothing is reckoned with it",
    ("logs.py", "format"): "the date of a log line",
}


def uses_of_the_wall_clock(source: str) -> Iterator[str]:
    """Yield the name of the function around each use; a bare reference counts, too, for it may be called elsewhere."""
    tree = ast.parse(source)
    renamed = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }  # fmt: skip

    def visit(node: ast.AST, function: str) -> Iterator[str]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if (owner, node.attr) in WALL_CLOCK:
                yield function
        elif isinstance(node, ast.Name) and renamed.get(node.id) in WALL_CLOCK:
            yield function
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function)

    return visit(tree, "")


def sources() -> Iterator[tuple[str, Path]]:
    server = REPOSITORY / "server"
    for room in ROOMS:
        for file in sorted((server / room).rglob("*.py")):
            yield str(file.relative_to(server)), file
    for name in FILES:
        yield name, server / name


def test_nothing_waits_by_the_wall_clock() -> None:
    found = {(name, function) for name, file in sources() for function in uses_of_the_wall_clock(file.read_text())}
    assert found - ALLOWED.keys() == set(), "a clock that jumps would be felt here"
    assert ALLOWED.keys() - found == set(), "allowed, but not there any more"


def test_the_search_finds_what_it_looks_for() -> None:
    planted = """
import time, datetime
from time import time as now
def a(): return time.time()
def b(clock=time.time): return clock()
def c(): return datetime.datetime.now()
def d(): return now()
def e(): return time.monotonic() + time.perf_counter()
"""
    assert sorted(uses_of_the_wall_clock(planted)) == ["a", "b", "c", "d"]
