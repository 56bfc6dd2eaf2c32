"""A real server in a process of its own, for tests that use it as a user would.

    with serve("--write-timeout", "1") as server:
        ...  # server.port, server.metrics(), server.get("/debug/slow")

Its ports are free ones, its log goes to a file (`server.log_text()`), and it is gone when the block ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

REPOSITORY = Path(__file__).resolve().parent.parent
STARTUP = 20.0
TAIL = 4000  # characters of a log that say why


@dataclass
class Server:
    """A running server: its process, its ports, and what it says of itself."""

    process: subprocess.Popen[str]
    port: int
    internal_port: int
    log: Path
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def websocket_url(self) -> str:
        return self.url.replace("http", "ws", 1)

    @property
    def internal_url(self) -> str:
        return f"http://127.0.0.1:{self.internal_port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        """GET from the internal port; returns status and body."""
        return http("GET", self.internal_url + path, headers=headers)

    def get_json(self, path: str) -> Any:
        return json.loads(self.get(path)[1])

    def api(self, command: str, body: Any, headers: dict[str, str] | None = None) -> Any:
        """Call the server API; returns the reply."""
        return json.loads(http("POST", f"{self.internal_url}/api/{command}", json.dumps(body).encode(), headers)[1])

    def metrics(self) -> Metrics:
        return Metrics(self.get("/metrics")[1].decode())

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def rss(self) -> int:
        """Resident memory, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024  # type: ignore[index]

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def terminate(self, within: float = 40.0) -> int:
        """Send SIGTERM and wait; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)


class Metrics(dict[str, float]):
    """One scrape: `metrics["name"]` or `metrics['name{label="value"}']`, labels in alphabetical order; 0 if absent."""

    def __init__(self, text: str) -> None:
        super().__init__()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
                self[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value

    def __missing__(self, key: str) -> float:
        return 0.0

    def total(self, name: str) -> float:
        """Sum a family over its labels."""
        return sum(value for key, value in self.items() if key == name or key.startswith(name + "{"))

    def assert_balanced(self) -> None:
        """The laws of every quiet scrape: offered = sent + dropped + queued, opened = closed + open."""
        offered = self.total("stentor_messages_offered_total")
        settled = self.total("stentor_messages_sent_total") + self.total("stentor_messages_dropped_total")
        assert offered == settled + self.total("stentor_queue_messages")
        opened = self.total("stentor_connections_opened_total")
        assert opened == self.total("stentor_connections_closed_total") + self.total("stentor_connections")


@contextlib.contextmanager
def serve(
    *options: str, env: dict[str, str] | None = None, cwd: Path | None = None, stdout: int = subprocess.PIPE
) -> Iterator[Server]:
    """Run `python -m server` with `options` on free ports until the block ends; it is killed if it still lives then."""
    with tempfile.TemporaryDirectory(prefix="stentor-test-") as folder:
        log = Path(folder, "server.log")
        command = [sys.executable, "-m", "server", "serve", "--port", "0", "--internal-port", "0", *options]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("STENTOR_")}
        # To be imported, aiohttp reads all authorities that the machine trusts, which takes a tenth of a second.
        environment |= {"PYTHONPATH": str(REPOSITORY), "SSL_CERT_FILE": os.devnull, **(env or {})}
        with log.open("w") as stderr:
            process = subprocess.Popen(
                command, stdout=stdout, stderr=stderr, text=True, cwd=cwd or folder, env=environment
            )
        try:
            assert process.stdout is not None
            port, internal_port, scheme = read_ports(process.stdout.fileno(), log)
            yield Server(process, port, internal_port, log, scheme)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


def read_ports(descriptor: int, log: Path, within: float = STARTUP) -> tuple[int, int, str]:
    """Read what a server says first: its public and its internal port, and the scheme of the public one.

    Fails with what it said, and with the end of its log, when it ends before, or has not said it `within` seconds.
    """
    said, deadline = b"", time.monotonic() + within
    why = f"within {within:g} s"
    while select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
        if not (data := os.read(descriptor, 4096)):
            why = "before it ended"
            break
        said += data
        page = re.search(rb"page\s+(https?)://\S+:(\d+)/", said)
        internal = re.search(rb"metrics\s+http://\S+:(\d+)/metrics", said)
        if page and internal:
            return int(page[2]), int(internal[1]), page[1].decode()
    raise AssertionError(f"the server did not start {why}: {said.decode()}{log.read_text()[-TAIL:]}")


def http(method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Make one request; an error status is an answer, too."""
    request = urllib.request.Request(url, body, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def wait_until(condition: Callable[[], Any], within: float = 10.0, what: str = "") -> Any:
    """Poll `condition` until it is true, and return what it returned; fail after `within` seconds. Not for a loop."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {within} s: {what or condition}"
        time.sleep(0.02)
    return value
