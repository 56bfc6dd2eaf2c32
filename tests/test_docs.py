"""The documents, held against the code: links lead somewhere, what is named exists, what is generated is current."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest

from server.__main__ import COMMANDS
from server.config import OPTIONS, Namespace
from server.doctor import capacity
from tests.documents import blocks
from tests.test_layers import FLOORS, LEAVES, PURE, REPOSITORY

PAGES: Final = sorted(
    page for folder in (".", "docs", "loadtest", "deploy", "dashboards") for page in (REPOSITORY / folder).glob("*.md")
)
NAMES: Final = [str(page.relative_to(REPOSITORY)) for page in PAGES]
_LINK: Final = re.compile(r"!?\[[^\]]*\]\(([^()\s]+)\)")
_CODE: Final = re.compile(r"`([^`\n]+)`")
_PATH: Final = re.compile(r"(?:server|tests|docs|deploy|dashboards|loadtest|bench)/[\w./-]+\.\w+")
_VARIABLE: Final = re.compile(r"\bSTENTOR_[A-Z][A-Z_]*")
_METRIC: Final = re.compile(r"\bstentor_[a-z][a-z_]*[a-z]\b(?![*_])")
# Variables that are no options of the server.
OTHERS: Final = {"STENTOR_NAMESPACES", "STENTOR_CONFIG", "STENTOR_LOADTEST_DIR"}


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Name a document's headings as GitHub does."""
    found: Counter[str] = Counter()
    names = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", without_code(text), flags=re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        names.add(name if not found[name] else f"{name}-{found[name]}")
        found[name] += 1
    return names


def dead_links(page: Path, text: str) -> Iterator[str]:
    """Yield the links of a page that lead nowhere in the repository."""
    for link in _LINK.findall(without_code(text)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        is_there = target.is_relative_to(REPOSITORY) and target.exists()
        if not is_there or (anchor and anchor not in anchors(text if target == page else target.read_text("utf-8"))):
            yield link


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    page = REPOSITORY / name
    assert list(dead_links(page, page.read_text(encoding="utf-8"))) == []


def test_a_link_that_leads_nowhere_is_found() -> None:
    text = "# One thing\n[a](#one-thing) [b](#other) [c](gone.md) [d](protocol.md#limits) [e](protocol.md#gone)\n"
    text += "[f](https://example.com/x) [g](../../etc/passwd) ![h](pictures/gone.png) ```\n```sh\n[i](code)\n```\n"
    found = list(dead_links(REPOSITORY / "docs/README.md", text))
    assert found == ["#other", "gone.md", "protocol.md#gone", "../../etc/passwd", "pictures/gone.png"]


def test_headings_are_named_as_on_github() -> None:
    text = "# A `code` & more\n## A b\n## A b\n### [Link](x.md), too!\n```sh\n# no heading\n```\n"
    assert anchors(text) == {"a-code--more", "a-b", "a-b-1", "link-too"}


def test_every_page_is_in_the_index() -> None:
    linked = _LINK.findall((REPOSITORY / "docs/README.md").read_text(encoding="utf-8"))
    pages = {page.name for page in (REPOSITORY / "docs").glob("*.md")} - {"README.md"}
    assert pages <= set(linked)


# What a reader must find from the front page.
FOUND_FROM_THE_README: Final = {
    "docs/README.md", "docs/getting-started.md", "docs/protocol.md", "docs/asyncapi.yaml", "docs/configuration.md",
    "docs/operations.md", "docs/scaling.md", "docs/load-balancing.md", "deploy/haproxy.cfg", "deploy/nginx.conf",
    "docs/dashboards.md", "dashboards/prometheus/alerts.yml", "docs/runbook.md", "loadtest/README.md",
}  # fmt: skip


def test_the_readme_leads_to_what_one_looks_for() -> None:
    linked = set(_LINK.findall((REPOSITORY / "README.md").read_text(encoding="utf-8")))
    assert FOUND_FROM_THE_README - linked == set()


def test_the_readme_names_the_packages_that_ci_installs() -> None:
    line = re.search(r"\(wants Debian's (.+)\)", (REPOSITORY / "README.md").read_text(encoding="utf-8"))
    packages = re.search(r"^packages=\((.+)\)$", (REPOSITORY / ".ci/run").read_text(), flags=re.MULTILINE)
    assert line is not None
    assert packages is not None
    # These come before: nothing runs without them. And npm comes with a package of its own, or with Node's.
    assert set(line[1].split(", ")) - {"npm"} == set(packages[1].split()) - {"make", "python3-venv"}


@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_named_exist(name: str) -> None:
    words = _CODE.findall((REPOSITORY / name).read_text(encoding="utf-8"))
    missing = [word for word in words if _PATH.fullmatch(word) and not (REPOSITORY / word).exists()]
    # What a run of the load test leaves is not in the repository.
    assert [word for word in missing if not word.startswith("loadtest/results")] == []


# Commands, options, metrics


@cache
def flags(command: str) -> frozenset[str]:
    return frozenset(import_module(f"server.commands.{command}").parser().flags)


def strange_words(line: str) -> Iterator[str]:
    """Yield what a line of shell gives to `stentor` or `make` that neither knows."""
    for part in re.split(r"[|;&]+|\$\(", line):
        try:
            words = shlex.split(part, comments=True)
        except ValueError:
            continue  # a part of something quoted over several lines
        while words and re.fullmatch(r"\w+=.*", words[0]):
            words.pop(0)
        if not words:
            continue
        program, *rest = words
        if Path(program).name == "make":
            yield from (word for word in rest if "=" not in word and word not in targets())
        elif Path(program).name == "stentor":
            command = rest.pop(0) if rest and re.fullmatch(r"[a-z]+", rest[0]) else "serve"
            if command not in COMMANDS:
                yield command
                continue
            given = [word.partition("=")[0] for word in rest if word.startswith("--")]
            yield from (flag for flag in given if flag not in flags(command))


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))


def lines_of_shell(text: str) -> Iterator[str]:
    for block in blocks(text):
        if block.kind == "sh":
            yield from re.sub(r"\\\n\s*", " ", block.text).splitlines()
    for code in _CODE.findall(without_code(text)):
        if re.match(r"(?:stentor|make) ", code):
            yield code


@pytest.mark.parametrize("name", NAMES)
def test_commands_that_are_named_exist(name: str) -> None:
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    assert [(line, word) for line in lines_of_shell(text) for word in strange_words(line)] == []


def test_commands_that_do_not_are_found() -> None:
    text = (
        "`stentor doktor` `make loadtset` `stentor check --prot 1`\n```sh\nX=1 .venv/bin/stentor --workers 2 --nope\n"
    )
    text += "echo x | stentor publish \\\n  --chanel c   # --no\n```\n"
    found = [word for line in lines_of_shell(text) for word in strange_words(line)]
    assert sorted(found) == ["--chanel", "--nope", "--prot", "doktor", "loadtset"]
    assert len(list(lines_of_shell((REPOSITORY / "docs/operations.md").read_text()))) > 20


@pytest.mark.parametrize("name", NAMES)
def test_variables_that_are_named_are_options(name: str) -> None:
    known = {option.variable for option in OPTIONS.values()} | OTHERS
    found = set(_VARIABLE.findall((REPOSITORY / name).read_text(encoding="utf-8")))
    assert found - known == set()


@cache
def code() -> str:
    places = [*(REPOSITORY / "server").rglob("*.py"), *(REPOSITORY / "loadtest").glob("*.py")]
    places += [*(REPOSITORY / "dashboards/prometheus").glob("*.yml")]
    return "\n".join(place.read_text(encoding="utf-8") for place in places)


@pytest.mark.parametrize("name", NAMES)
def test_metrics_that_are_named_exist(name: str) -> None:
    for metric in set(_METRIC.findall((REPOSITORY / name).read_text(encoding="utf-8"))):
        stem = re.sub(r"_(?:total|bucket|sum|count|created|info)$", "", metric).removeprefix("stentor_loadtest_")
        assert stem in code(), metric


# The reference of the options


def reference() -> dict[str, Any]:
    return runpy.run_path(str(REPOSITORY / "docs/reference.py"))


def test_the_reference_is_current() -> None:
    page = (REPOSITORY / "docs/configuration.md").read_text(encoding="utf-8")
    assert page == reference()["page"](), "make docs"


def test_the_reference_says_everything_of_every_option() -> None:
    page = (REPOSITORY / "docs/configuration.md").read_text(encoding="utf-8")
    entries = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", page, flags=re.MULTILINE | re.DOTALL))
    assert set(entries) == set(OPTIONS)
    for key, option in OPTIONS.items():
        for fact in (option.sentence, f"`{option.flag}`", f"`{option.variable}`", option.allowed):
            assert fact in entries[key], (key, fact)
        assert ("*namespaces*" in entries[key]) == (key in Namespace.model_fields)
    assert "Default: `256`." in entries["queue_messages"]
    assert "Default: reckoned at the start." in entries["max_connections"]


def test_the_reference_is_the_same_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    before = reference()["page"]()
    monkeypatch.setattr("server.config.rules.open_file_ceiling", lambda: 7)
    assert reference()["page"]() == before


def test_the_costs_are_those_that_the_doctor_reckons_with() -> None:
    page = (REPOSITORY / "docs/operations.md").read_text(encoding="utf-8")
    assert f"| a process | {capacity.PROCESS // 2**20} MiB |" in page
    assert f"to {capacity.CLIENT / 1024:.1f} KiB of the process, {capacity.SOCKET // 1024} KiB of the kernel |" in page
    assert f"| {capacity.TLS // 1024} KiB more |" in page
    assert f"| up to {capacity.LAGGARD // 1024} KiB of the kernel" in page
    assert f"hear it {capacity.DELIVERY * 1e6:g} µs after one another" in page


# The picture of the house


def architecture() -> str:
    return (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")


def rooms_of_the_tree() -> set[str]:
    server = REPOSITORY / "server"
    folders = {path.name for path in server.iterdir() if path.is_dir() and path.name != "__pycache__"}
    return folders | {path.stem for path in server.glob("*.py")} - {"__init__"}


def test_the_rooms_are_those_of_the_tree() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", architecture().partition("## Brokers")[0], flags=re.MULTILINE)
    in_order = [room for floor in FLOORS for room in rows if room in floor]
    assert rows == in_order, "the lowest first, as imports go"
    assert set(rows) == set().union(*FLOORS)
    assert rooms_of_the_tree() == set(rows) | LEAVES | {"web"}
    for room in LEAVES | PURE | {"web"}:
        assert f"`{room}`" in architecture()


def test_the_picture_is_current() -> None:
    drawn = runpy.run_path(str(REPOSITORY / "docs/house.py"))["picture"]()
    assert (REPOSITORY / "docs/pictures/house.svg").read_text(encoding="utf-8") == drawn, "make docs"
    assert set(re.findall(r'font-weight="600" fill="#222">(\w+)<', drawn)) == rooms_of_the_tree()


def test_the_way_of_a_message_leads_through_what_exists() -> None:
    methods = set()
    for file in (REPOSITORY / "server").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                methods |= {
                    f"{node.name}.{inner.name}"
                    for inner in node.body
                    if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
                }
    [way] = [block.text for block in blocks(architecture()) if block.kind == "text"]
    named = set(re.findall(r"\b[A-Z]\w+\.\w+", way))
    assert len(named) >= 8
    assert named - methods == set()
