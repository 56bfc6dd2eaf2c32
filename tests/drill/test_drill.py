"""The drill: real servers, a real Prometheus with the rules that are shipped, faults; the right alerts fire, no others.

Everything goes wrong at once, each fault on a server of its own, beside one on which nothing does. The rules are those
of `dashboards/prometheus`, with all their durations divided by HASTE (`rules.shortened`); thresholds are as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from math import isfinite
from pathlib import Path
from typing import Any, Final, Protocol

import pytest
import yaml

from tests.drill.incidents import Control, Dead, Deaf, Flooded, Site, Slow, Stalled
from tests.drill.rules import FOLDER, RULES, Alert, alerts, recorded, shortened
from tests.drill.runbook import TEXT, queries
from tests.harness import Server, serve
from tests.prometheus import Prometheus, job, targets
from tests.redis_server import RedisServer
from tests.scenarios.clients import eventually

pytestmark = pytest.mark.scenario

# Two minutes are four seconds then: as many scrapes as `rate` needs to be itself.
HASTE: Final = 30
# Longer than the `for` of every page: what would call somebody for nothing has done so. The tickets have the whole
# drill for it, in which every site is healthy but for its own fault.
HEALTHY: Final = 14.0
# For SlowDisconnects, which waits for ten minutes.
ALARM: Final = 45.0
CALM: Final = 25.0

EXPECTED: Final = {
    ("StentorDeliveriesDropped", "stalled"),
    ("StentorSlowDisconnects", "slow"),
    ("StentorBrokerDeaf", "deaf"),
    ("StentorReconnectStorm", "flooded"),
    ("StentorDown", "dead"),
}
# It waits for ten minutes, and there is no certificate here.
NOT_HERE: Final = {"StentorCertificateEnds"}
# Nobody starts it again.
LASTING: Final = {("StentorDown", "dead")}


class Firing(Protocol):
    """What is asked about alerts."""

    def firing(self) -> set[tuple[str, str]]: ...

    def alerts(self) -> list[dict[str, Any]]: ...


class Says:
    """A Prometheus that always says the same."""

    def __init__(self, *fire: tuple[str, str]) -> None:
        self._fire = set(fire)

    def firing(self) -> set[tuple[str, str]]:
        return self._fire

    def alerts(self) -> list[dict[str, Any]]:
        return [{"state": "pending", "labels": {"alertname": "StentorSlow"}, "value": "1"}]


@contextlib.asynccontextmanager
async def sites() -> AsyncIterator[dict[str, Site]]:
    """Open all sites, each with its server and traffic."""
    with contextlib.ExitStack() as servers:
        redis = await asyncio.to_thread(servers.enter_context, RedisServer())

        def start(*options: str) -> Server:
            return servers.enter_context(serve(*options))

        wanted = {
            "control": Control.options, "stalled": Stalled.options, "slow": Slow.options,
            "deaf": ("--broker", redis.url), "flooded": (), "dead": (),
        }  # fmt: skip
        started = await asyncio.gather(*(asyncio.to_thread(start, *options) for options in wanted.values()))
        control, stalled, slow, deaf, flooded, dead = started
        found: dict[str, Site] = {
            "control": Control(control), "stalled": Stalled(stalled), "slow": Slow(slow),
            "deaf": Deaf(deaf, redis), "flooded": Flooded(flooded), "dead": Dead(dead),
        }  # fmt: skip
        try:
            for site in found.values():
                await site.open()
            yield found
        finally:
            for site in found.values():
                await site.close()


async def test_the_right_alerts_fire_and_no_others(tmp_path: Path) -> None:
    rules = {name: shortened((FOLDER / name).read_text(), HASTE) for name in RULES}
    async with sites() as on:
        prometheus = await asyncio.to_thread(watching(on, rules, tmp_path).__enter__)
        try:
            await drill(on, prometheus)
        finally:
            await asyncio.to_thread(prometheus.__exit__)


def watching(on: dict[str, Site], rules: dict[str, str], folder: Path) -> Prometheus:
    """A Prometheus with the configuration that is shipped, but for rules and sites; an instance is a site's name."""
    configuration = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert configuration["rule_files"] == list(rules), "the configuration that is shipped loads these rules"
    (shipped,) = (each for each in configuration["scrape_configs"] if each["job_name"] == "stentor")
    known = (targets(f"127.0.0.1:{site.server.internal_port}", instance=name) for name, site in on.items())
    configuration["scrape_configs"] = [{**shipped, **job("stentor", *known)}]
    for name, text in rules.items():
        (folder / name).write_text(text)
    return Prometheus(folder, configuration)


async def drill(on: dict[str, Site], prometheus: Prometheus) -> None:
    """Go through a healthy time, the incidents, and their end."""
    started = time.time()
    pages = (alert for alert in alerts().values() if alert.is_page and alert.name not in NOT_HERE)
    assert max(minutes(alert) for alert in pages) * 60 / HASTE < HEALTHY
    await eventually(lambda: time.time() - started >= HEALTHY, HEALTHY + 5, every=0.2)
    up = await asyncio.to_thread(prometheus.query, 'up{job="stentor"}')
    assert {series.labels["instance"]: series.value for series in up} == dict.fromkeys(on, 1.0)
    assert await asyncio.to_thread(prometheus.ever_fired, started) == set(), "all are healthy"
    await asyncio.to_thread(judge_rules, prometheus)

    for site in on.values():
        await site.inject()
    await fires(prometheus, EXPECTED, ALARM)
    said = await asyncio.to_thread(prometheus.alerts)
    judge_annotations(said)

    for site in on.values():
        await site.relieve()
    await fires(prometheus, LASTING, CALM)
    assert await asyncio.to_thread(prometheus.ever_fired, started) == EXPECTED


def minutes(alert: Alert) -> int:
    """Tell for how long an alert waits."""
    assert alert.within.endswith("m")
    return int(alert.within[:-1])


async def fires(prometheus: Firing, wanted: set[tuple[str, str]], within: float) -> None:
    """Wait until exactly these alerts fire."""
    fire: set[tuple[str, str]] = set()

    async def are_they() -> bool:
        fire.clear()
        fire.update(await asyncio.to_thread(prometheus.firing))
        return fire == wanted

    try:
        await eventually(are_they, within, every=0.25)
    except AssertionError:
        said = await asyncio.to_thread(prometheus.alerts)
        waiting = [(alert["state"], alert["labels"], alert["value"]) for alert in said]
        raise AssertionError(
            f"not within {within} s: missing {wanted - fire}, too many {fire - wanted}; {waiting}"
        ) from None


def judge_rules(prometheus: Prometheus) -> None:
    """Demand that Prometheus evaluates every rule, and that what is recorded of a server under load has values."""
    rules = prometheus.rules()
    assert {rule["name"] for rule in rules if rule["type"] == "alerting"} == set(alerts())
    assert [(rule["name"], rule["health"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    for name in recorded():
        found = prometheus.query(name)
        instances = {series.labels["instance"] for series in found}
        assert instances >= {"control", "slow"}, f"{name} is not of everyone: {found}"
        by_worker = {series.labels.get("worker") for series in found if series.labels["instance"] == "control"}
        assert by_worker >= {"0", "1"} if name.startswith("worker:") else by_worker == {None}, found
        # Within so short a time not everybody was pinged.
        if name != "instance:stentor_ping_rtt_seconds:p99_rate5m":
            assert all(isfinite(series.value) for series in found), f"{name} has no value: {found}"
    for query in queries(TEXT):
        prometheus.query(query)  # it raises what Prometheus has against it


def judge_annotations(said: list[dict[str, Any]]) -> None:
    """Demand that every alert's words come out whole."""
    for alert in said:
        for words in alert["annotations"].values():
            assert "error" not in words, words
            assert "<no value>" not in words, words
            assert "{{" not in words, words


async def test_the_check_wants_all_of_the_right_ones_and_no_other() -> None:
    await fires(Says(*EXPECTED), EXPECTED, 1)
    for wrong in (Says(), Says(*EXPECTED, ("StentorFull", "control")), Says(*LASTING)):
        with pytest.raises(AssertionError, match=r"missing .*, too many .*StentorSlow"):
            await fires(wrong, EXPECTED, 0.1)


def test_the_check_of_annotations_finds_one_that_could_not_be_filled_in() -> None:
    judge_annotations([{"annotations": {"summary": "one:9000 is full"}}])
    for words in ("<error expanding template: …>", "worker <no value>", "{{ $labels.instance }}"):
        with pytest.raises(AssertionError):
            judge_annotations([{"annotations": {"summary": words}}])
