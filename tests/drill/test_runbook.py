"""The runbook: a section per alert and no other, each with its parts; and every command, metric, option and path is."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml

from server.__main__ import COMMANDS
from server.config.settings import OPTIONS
from tests.documents import blocks
from tests.drill.rules import alerts, metrics_in, promtool, recorded, recorded_in
from tests.drill.runbook import TEXT, code, commands, queries, sections
from tests.harness import Metrics, Server, serve
from tests.redis_server import RedisServer

PARTS: Final = ("Means", "Users see", "First look", "Confirm")
# What is used of a system, each with a reason to be there.
TOOLS: Final = {
    "curl": "the internal port", "journalctl": "the log", "systemctl": "the service", "ss": "sockets",
    "openssl": "certificates", "redis-cli": "Redis", "promtool": "Prometheus", "stentor": "our own",
}  # fmt: skip
# Words with an underscore that are neither options nor metrics: fields of answers, variables of others.
FIELDS: Final = {"stalled_seconds"}


# Its sections


def test_every_alert_has_its_section_and_no_section_is_left_over() -> None:
    assert list(sections(TEXT)) == list(alerts())


def test_every_link_to_a_section_has_one() -> None:
    anchors = set(re.findall(r"\]\(#([\w-]+)\)", TEXT))
    assert anchors <= {name.lower() for name in alerts()}
    assert {alert.annotations["runbook_url"] for alert in alerts().values()} == {
        f"docs/runbook.md#{name.lower()}" for name in sections(TEXT)
    }


@pytest.mark.parametrize("alert", alerts())
def test_each_section_has_its_parts(alert: str) -> None:
    section = sections(TEXT)[alert]
    places = [section.find(f"**{part}") for part in PARTS]
    assert -1 not in places, f"one of {PARTS} is missing"
    assert places == sorted(places)
    assert "**Do" in section or "causes and cures**" in section or "**cures**" in section
    assert any(block.kind in ("sh", "promql") for block in blocks(section)), "nothing to look at"


def test_the_check_of_sections_finds_a_missing_one() -> None:
    assert list(sections(TEXT.replace("## StentorFull", "## Full"))) != list(alerts())


# Its queries


def test_every_query_is_one(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries(TEXT))]
    assert len(rules) > len(alerts())
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "runbook", "rules": rules}]}))
    checked = promtool("check", "rules", file)
    assert checked.returncode == 0, checked.stdout


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with RedisServer() as redis, serve("--workers", "2", "--broker", redis.url) as running:
        yield running


@pytest.fixture(scope="module")
def scrape(server: Server) -> Metrics:
    return server.metrics()


def test_every_metric_is_in_a_scrape(scrape: Metrics) -> None:
    there = {series.partition("{")[0] for series in scrape} | {"stentor_tls_certificate_expiry_timestamp_seconds"}
    named = {metric for query in queries(TEXT) for metric in metrics_in(query)}
    named |= {word for word in code(TEXT) if re.fullmatch(r"stentor_\w+", word)}
    assert len(named) > 20
    assert named - there == set()
    assert recorded_in(TEXT) <= set(recorded())


# Its commands


def test_every_command_is_of_a_known_tool() -> None:
    found = commands(TEXT)
    assert len(found) > 20
    assert {command.split()[0] for command in found} == set(TOOLS)


def test_every_command_of_ours_is_one() -> None:
    ours = [words for words in code(TEXT) if words.startswith("stentor ")]
    ours += [command.partition("|")[0] for command in commands(TEXT) if command.startswith("stentor ")]
    assert len(ours) > 2
    assert {words.split()[1] for words in ours} <= set(COMMANDS)


@pytest.mark.parametrize("command", [command for command in commands(TEXT) if command.startswith("curl")])
def test_every_question_to_the_internal_port_has_an_answer(command: str, server: Server) -> None:
    assert "localhost:9000" in command
    asked = command.replace("localhost:9000", f"localhost:{server.internal_port}")
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", asked.replace("| head -40", "").replace("| head -60", "")],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    # wc counts nothing of what grep has not found.
    assert done.returncode == 0 or "| wc" in command, done.stderr
    assert done.stderr == ""
    assert "404" not in done.stdout


def test_every_greped_metric_is_there(server: Server) -> None:
    for command in commands(TEXT):
        if "/metrics | grep" in command:
            asked = command.replace("localhost:9000", f"localhost:{server.internal_port}")
            said = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, timeout=20, check=True).stdout
            for pattern in re.findall(r"\^(\w+)(?:\(([^)]*)\))?(\w*)", command):
                for name in (pattern[0] + each + pattern[2] for each in pattern[1].split("|")):
                    assert re.search(rf"^{name}", said, re.MULTILINE), f"{name} is not in {said}"


# Its other words


def test_every_option_is_one() -> None:
    metrics = {word for word in code(TEXT) if word.startswith("stentor_")}
    words = {
        word
        for phrase in code(TEXT)
        for word in re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", phrase)
        if not any(word in metric for metric in metrics)
    }
    assert len(words) > 15
    policies = {"drop_oldest", "drop_newest"}
    assert words - set(OPTIONS) - {name.replace("-", "_") for name in OPTIONS} - FIELDS - policies == set()


def test_every_checked_option_is_one() -> None:
    (command,) = (command for command in commands(TEXT) if command.startswith("stentor check"))
    for word in re.search(r"'(.+)'", command)[1].split("|"):  # type: ignore[index]
        assert any(option.startswith(word) for option in OPTIONS), word


def test_every_path_is_answered(server: Server) -> None:
    paths = {word for word in code(TEXT) if re.fullmatch(r"/[a-z/]+", word)}
    # Prometheus' own pages.
    paths -= {"/alerts", "/targets"}
    assert len(paths) > 2
    for path in paths:
        assert server.get(path)[0] != 404, path
