"""A real Prometheus for tests: its own process, port and folder, with rules and targets of your own.

    with Prometheus(folder, rules, {"one": "127.0.0.1:9000"}) as prometheus:
        prometheus.query('up')                       # [({"instance": "one", …}, 1.0)]
        prometheus.firing()                          # {("StentorDown", "one")}
        prometheus.ever_fired(since)                 # the same, for all the time since

A target is known by its name, not by its port: it is what the label `instance` says.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import yaml

from tests.drill.rules import FOLDER, tool
from tests.harness import http, wait_until
from tests.redis_server import free_port

STARTUP: Final = 20.0
INTERVAL: Final = "1s"

Labels = dict[str, str]


class Prometheus:
    """See the module. `rules` are the rule files' contents, by name; the rest is the configuration that is shipped."""

    def __init__(self, folder: Path, rules: Mapping[str, str], targets: Mapping[str, str]) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        configuration = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        configuration["global"] |= dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), INTERVAL)
        assert configuration["rule_files"] == list(rules), "the configuration that is shipped loads these rules"
        (job,) = (job for job in configuration["scrape_configs"] if job["job_name"] == "stentor")
        job["static_configs"] = [{"targets": [at], "labels": {"instance": name}} for name, at in targets.items()]
        configuration["scrape_configs"] = [job]
        for name, text in rules.items():
            (folder / name).write_text(text)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))

    def __enter__(self) -> Self:
        command = (
            tool("prometheus"), f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'data'}", f"--web.listen-address=127.0.0.1:{self._port}",
            "--log.level=warn",
        )  # fmt: skip
        with (self._folder / "log").open("w") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
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

    def query(self, expression: str) -> list[tuple[Labels, float]]:
        """Ask for an instant vector, now."""
        answer = self._ask("query", query=expression)
        return [(sample["metric"], float(sample["value"][1])) for sample in answer["result"]]

    def firing(self) -> set[tuple[str, str]]:
        """Name the alerts that fire now: alert and instance."""
        return {
            (labels["alertname"], labels.get("instance", "")) for labels, _ in self.query('ALERTS{alertstate="firing"}')
        }

    def ever_fired(self, since: float) -> set[tuple[str, str]]:
        """Name the alerts that have fired at any time since `since`, in seconds of the wall clock."""
        answer = self._ask(
            "query_range", query='ALERTS{alertstate="firing"}', start=str(since), end=str(time.time()), step=INTERVAL
        )
        return {(series["metric"]["alertname"], series["metric"].get("instance", "")) for series in answer["result"]}

    def rules(self) -> list[dict[str, Any]]:
        """Return all rules with their health."""
        return [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that are pending or fire, with their annotations."""
        found: list[dict[str, Any]] = self._ask("alerts")["alerts"]
        return found

    def _ask(self, what: str, **parameters: str) -> Any:
        url = f"http://127.0.0.1:{self._port}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        answer = json.loads(http("GET", url)[1])
        assert answer["status"] == "success", answer
        return answer["data"]

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            return http("GET", f"http://127.0.0.1:{self._port}/-/ready")[0] == 200
        except urllib.error.URLError:
            return False
