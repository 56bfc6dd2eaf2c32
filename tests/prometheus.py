"""A real Prometheus for tests: its own process, port and folder, and its HTTP API.

    with Prometheus(folder, {"scrape_configs": [job("stentor", targets("127.0.0.1:9000"))]}) as prometheus:
        prometheus.query("up")                           # [Series({"job": "stentor", …}, [(time, 1.0)])]
        prometheus.query_range("up", start, end, 1)
        prometheus.values_of("job", 'up{x="y"}')         # ["stentor"]
        prometheus.laid_out("up  +1")                    # "up + 1"; Refused if it is no PromQL
        prometheus.firing()                              # {("StentorDown", "127.0.0.1:9000")}
        prometheus.ever_fired(since)                     # the same, for all the time since

It scrapes and evaluates once a second, whatever the configuration says. Times are Unix times. It does not know which
servers and rules it is for: that is the configuration's, whose rule files are looked for in the folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import yaml

from tests.drill.rules import tool
from tests.harness import http, wait_until
from tests.redis_server import free_port

STARTUP: Final = 20.0
INTERVAL: Final = "1s"


class Refused(Exception):
    """Prometheus does not take a query; the message is its own."""


@dataclass(frozen=True)
class Series:
    """A series of an answer: its labels, and its values by time."""

    labels: dict[str, str]
    points: list[tuple[float, float]]

    @property
    def value(self) -> float:
        """The latest."""
        return self.points[-1][1]


def job(name: str, *groups: Mapping[str, Any]) -> dict[str, Any]:
    """A job of a configuration, with its groups of targets."""
    return {"job_name": name, "static_configs": list(groups)}


def targets(*addresses: str, **labels: str) -> dict[str, Any]:
    """A group of targets, each as host and port, and the labels that all of them get."""
    return {"targets": list(addresses), "labels": labels}


class Prometheus:
    """See the module; `configuration` is that of prometheus.yml, but for the pace."""

    def __init__(self, folder: Path, configuration: Mapping[str, Any]) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        pace = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), INTERVAL)
        paced = {**configuration, "global": {**configuration.get("global", {}), **pace}}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(paced))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        command = (
            tool("prometheus"), f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'data'}", f"--web.listen-address=127.0.0.1:{self._port}",
            "--log.level=warn",
        )  # fmt: skip
        with (self._folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, "GOMAXPROCS": "1"}
            )
        try:
            wait_until(self._is_ready, STARTUP, "Prometheus is ready")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            return http("GET", f"{self.url}/-/ready")[0] == 200
        except OSError:
            return False

    # What is measured

    def query(self, query: str, at: float | None = None) -> list[Series]:
        """What a query gives at a moment; now, unless it is said."""
        return _series(self._ask("query", query=query, **({} if at is None else {"time": at})))

    def query_range(self, query: str, start: float, end: float, step: float) -> list[Series]:
        return _series(self._ask("query_range", query=query, start=start, end=end, step=step))

    def values_of(self, label: str, selector: str) -> list[str]:
        """The values that a label has in the series of a selector."""
        found: list[str] = self._ask(f"label/{label}/values", **{"match[]": selector})
        return found

    def laid_out(self, query: str) -> str:
        """The query as Prometheus itself would write it."""
        text: str = self._ask("format_query", query=query)
        return text

    # What the rules make of it

    def rules(self) -> list[dict[str, Any]]:
        """All rules with their health."""
        return [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that are pending or fire, with their annotations."""
        found: list[dict[str, Any]] = self._ask("alerts")["alerts"]
        return found

    def firing(self) -> set[tuple[str, str]]:
        """The alerts that fire now: alert and instance."""
        return {_alert(series) for series in self.query('ALERTS{alertstate="firing"}')}

    def ever_fired(self, since: float) -> set[tuple[str, str]]:
        """The alerts that have fired at any time since `since`."""
        return {_alert(series) for series in self.query_range('ALERTS{alertstate="firing"}', since, time.time(), 1)}

    def _ask(self, what: str, **fields: Any) -> Any:
        # In the address, for not each of these takes a body.
        status, body = http("GET", f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(fields)}")
        answer = json.loads(body)
        if status != 200 or answer["status"] != "success":
            raise Refused(answer.get("error", body))
        return answer["data"]


def _alert(series: Series) -> tuple[str, str]:
    return series.labels["alertname"], series.labels.get("instance", "")


def _series(data: Any) -> list[Series]:
    if data["resultType"] == "scalar":
        at, value = data["result"]
        return [Series({}, [(float(at), float(value))])]
    return [
        Series(each["metric"], [(float(at), float(value)) for at, value in each.get("values") or [each["value"]]])
        for each in data["result"]
    ]
