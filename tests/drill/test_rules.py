"""The rules: what promtool says of them, a case that fires and one that does not for each alert, and true names."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.config.settings import Settings
from server.edge.closing import close_label
from tests import keyring
from tests.drill.rules import (
    CASES,
    FOLDER,
    RULES,
    RUNBOOK,
    alerts,
    metrics_in,
    promtool,
    recorded,
    recorded_in,
    rules_of,
    shortened,
    values_in,
)
from tests.harness import Metrics, serve
from tests.redis_server import RedisServer

EXPRESSIONS = {**recorded(), **{name: alert.expression for name, alert in alerts().items()}}
# Prometheus' own.
FROM_PROMETHEUS = {"up"}


@cache
def groups() -> list[dict[str, Any]]:
    return [group for file in sorted(CASES.glob("*.yml")) for group in yaml.safe_load(file.read_text())["tests"]]


def verdicts(group: dict[str, Any], alert: str) -> list[bool]:
    """Tell for each look that a group of cases takes at an alert if it fires then."""
    return [bool(case["exp_alerts"]) for case in group.get("alert_rule_test", ()) if case["alertname"] == alert]


# What promtool says


def test_the_configuration_and_its_rules_are_valid() -> None:
    checked = promtool("check", "config", FOLDER / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout
    assert f"{len(rules_of(FOLDER / 'alerts.yml'))} rules found" in checked.stdout
    checked = promtool("check", "rules", "--lint=all", "--lint-fatal", *(FOLDER / name for name in RULES))
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("file", sorted(CASES.glob("*.yml")), ids=lambda file: file.stem)
def test_the_cases_come_true(file: Path) -> None:
    tested = promtool("test", "rules", file)
    assert tested.returncode == 0, tested.stdout


@pytest.mark.parametrize("alert", alerts())
def test_each_alert_has_a_case_that_fires_and_one_that_does_not(alert: str) -> None:
    looks = [found for group in groups() if (found := verdicts(group, alert))]
    assert any(any(found) for found in looks), "no case in which it fires"
    assert any(not any(found) for found in looks), "no case in which it stays silent"


# Planted bugs


def planted(folder: Path, change: Callable[[dict[str, Any]], object]) -> set[str]:
    """Change every alert, and name those whose cases notice."""
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    content = yaml.safe_load((FOLDER / "alerts.yml").read_text())
    for group in content["groups"]:
        for rule in group["rules"]:
            change(rule)
    (folder / "alerts.yml").write_text(yaml.safe_dump(content))
    said = "".join(promtool("test", "rules", file).stdout for file in sorted((folder / "tests").glob("*.yml")))
    return set(re.findall(r"^\s+alertname: (\w+), time", said, re.MULTILINE))


def test_the_cases_notice_an_alert_that_never_fires(tmp_path: Path) -> None:
    assert planted(tmp_path, lambda rule: rule.update(expr="vector(0) > 1")) == set(alerts())


def test_the_cases_notice_an_alert_that_always_fires(tmp_path: Path) -> None:
    assert planted(tmp_path, lambda rule: rule.update(expr="vector(1)")) == set(alerts())


def test_the_cases_notice_an_alert_that_does_not_wait(tmp_path: Path) -> None:
    assert planted(tmp_path, lambda rule: rule.pop("for")) == set(alerts())


# How they are written


def test_the_configuration_scrapes_a_server_with_its_defaults() -> None:
    jobs = {job["job_name"]: job for job in yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]}
    settings = Settings()
    assert jobs["stentor"]["static_configs"] == [{"targets": [f"{settings.internal_host}:{settings.internal_port}"]}]
    # The rules look at this job alone; the load test is nobody's to wake up for.
    assert {job for expression in EXPRESSIONS.values() for job in values_in(expression, "job")} == {"stentor"}


@pytest.mark.parametrize("alert", alerts().values(), ids=lambda alert: alert.name)
def test_each_alert_says_what_the_one_on_duty_needs(alert: Any) -> None:
    assert re.fullmatch(r"Stentor[A-Z]\w+", alert.name)
    assert set(alert.labels) == {"severity"}
    assert alert.labels["severity"] in {"page", "ticket"}
    assert set(alert.annotations) == {"summary", "description", "runbook_url"}
    assert alert.annotations["runbook_url"] == f"docs/runbook.md#{alert.name.lower()}"
    if "absent(" not in alert.expression:
        assert "{{ $labels.instance }}" in alert.annotations["summary"]
    comparisons = {"up{job", "absent(", "stentor_worker_up"}
    if not any(each in alert.expression for each in comparisons):
        assert "$value" in alert.annotations["summary"] + alert.annotations["description"], "how bad is it?"


def test_every_threshold_is_reasoned_in_a_comment() -> None:
    lines = (FOLDER / "alerts.yml").read_text().splitlines()
    bare = {
        line.split()[-1]
        for before, line in pairwise(lines)
        if "- alert:" in line and not before.strip().startswith("#")
    }
    # It shares the reasons of the one above it.
    assert bare == {"StentorCertificateEnds"}


def minutes_of_rates(expression: str) -> list[int]:
    """Find over how many minutes the rates are taken that an expression reads, itself or as they are recorded."""
    found = re.findall(r":\w*(?:rate|increase)(\d+)m\b", expression)
    found += re.findall(r"\brate\([^\[]*\[(\d+)m\]", expression)
    return [int(minutes) for minutes in found]


@pytest.mark.parametrize("alert", alerts().values(), ids=lambda alert: alert.name)
def test_a_spike_is_no_alert(alert: Any) -> None:
    for minutes in minutes_of_rates(alert.expression):
        assert alert.within.endswith("m")
        assert int(alert.within[:-1]) > minutes, "one spike stays in the rate for as long as the alert waits"


def test_the_check_of_spikes_finds_the_rates() -> None:
    assert minutes_of_rates('a:b:ratio_rate2m > 1 and rate(c{d="e"}[5m]) > 0 or changes(f[15m]) > 2') == [2, 5]
    assert sum(bool(minutes_of_rates(alert.expression)) for alert in alerts().values()) > 8


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_what_is_read_is_recorded(name: str) -> None:
    assert recorded_in(EXPRESSIONS[name]) <= set(recorded())


def test_what_is_recorded_is_read() -> None:
    read = {each for expression in EXPRESSIONS.values() for each in recorded_in(expression)}
    assert set(recorded()) - read - recorded_in(RUNBOOK.read_text()) == set()


# What they name


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Metrics]:
    """One scrape of a server that has everything there is to say something about: TLS, a broker, and workers."""
    folder = tmp_path_factory.mktemp("tls")
    key = keyring.ec_key()
    (folder / "chain.pem").write_text(keyring.certificate(key))
    (folder / "key.pem").write_text(keyring.private_pem(key))
    tls = ("--tls-cert", str(folder / "chain.pem"), "--tls-key", str(folder / "key.pem"))
    with RedisServer() as redis, serve(*tls, "--broker", redis.url, "--workers", "2") as server:
        yield server.metrics()


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_metric_and_label_is_in_a_scrape(name: str, scrape: Metrics) -> None:
    expression = EXPRESSIONS[name]
    there = {series.partition("{")[0] for series in scrape}
    wanted = metrics_in(expression)
    assert wanted or recorded_in(expression) or any(each in expression for each in FROM_PROMETHEUS)
    assert wanted <= there, f"not in a scrape: {wanted - there}"
    for reason in values_in(expression, "reason"):
        assert any(f'reason="{reason}"' in series for series in scrape), f"no reason {reason}"
    for code in values_in(expression, "code"):
        assert close_label(int(code)) == code, f"{code} is counted under another name"


def test_the_check_of_names_finds_a_wrong_one() -> None:
    expression = 'sum(rate(stentor_mesages_total{reason=~"full|empty"}[2m])) / worker:stentor_queue_bytes:ratio'
    assert metrics_in(expression) == {"stentor_mesages_total"}
    assert values_in(expression, "reason") == {"full", "empty"}
    assert recorded_in(expression) == {"worker:stentor_queue_bytes:ratio"}


# The short version, for the drill


@pytest.mark.parametrize("file", RULES)
def test_shortened_rules_have_no_long_time_left(file: str, tmp_path: Path) -> None:
    short = shortened((FOLDER / file).read_text(), 30)
    rules = [rule for group in yaml.safe_load(short)["groups"] for rule in group["rules"]]
    times = [time for rule in rules for time in re.findall(r"(?:\[|offset )(\w+)", rule["expr"])]
    times += [rule["for"] for rule in rules if "for" in rule]
    assert times
    assert [time for time in times if not time.endswith("ms")] == []
    (tmp_path / file).write_text(short)
    checked = promtool("check", "rules", tmp_path / file)
    assert checked.returncode == 0, checked.stdout


def test_shortening_changes_durations_alone() -> None:
    rule = "expr: rate(a_5m[2m]) > 0.5 and avg_over_time(b:rate5m[6h] offset 15m) < 2 * 86400\nfor: 1h\nsummary: in 5m"
    assert shortened(rule, 30) == (
        "expr: rate(a_5m[4000ms]) > 0.5 and avg_over_time(b:rate5m[720000ms] offset 30000ms) < 2 * 86400\n"
        "for: 120000ms\nsummary: in 5m"
    )
