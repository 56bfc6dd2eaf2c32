"""A real Prometheus that scrapes several jobs once a second, and its HTTP API.

    with Prometheus(folder, {"stentor": ["127.0.0.1:9000"]}) as prometheus:
        prometheus.query("up")                           # [Series({"job": "stentor", …}, [(time, 1.0)])]
        prometheus.query_range("up", start, end, 1)
        prometheus.values_of("job", 'up{x="y"}')         # ["stentor"]
        prometheus.laid_out("up  +1")                    # "up + 1"; Refused if it is no PromQL

Times are Unix times. The rules that are shipped are loaded, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import yaml

from tests.drill.rules import FOLDER, RULES, tool
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


class Prometheus:
    """See the module. `jobs`: the targets of each, as host and port."""

    def __init__(self, folder: Path, jobs: Mapping[str, Sequence[str]]) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        every = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), INTERVAL)
        configuration = {
            "global": every,
            "rule_files": [str(FOLDER / name) for name in RULES],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": list(targets)}]} for job, targets in jobs.items()
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))

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

    def _ask(self, what: str, **fields: Any) -> Any:
        # In the address, for not each of these takes a body.
        status, body = http("GET", f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(fields)}")
        answer = json.loads(body)
        if status != 200 or answer["status"] != "success":
            raise Refused(answer.get("error", body))
        return answer["data"]


def _series(data: Any) -> list[Series]:
    if data["resultType"] == "scalar":
        at, value = data["result"]
        return [Series({}, [(float(at), float(value))])]
    return [
        Series(each["metric"], [(float(at), float(value)) for at, value in each.get("values") or [each["value"]]])
        for each in data["result"]
    ]
