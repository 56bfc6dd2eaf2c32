"""The result of one run: the schema of ``result.json`` and ``progress.jsonl``, and how they are written and read.

The process that leads the run (Locust's master, or the only process) writes both into the directory that the
environment variable ``STENTOR_LOADTEST_DIR`` names: a line of ``progress.jsonl`` per second while the run lasts,
``result.json`` and ``latency.hgrm`` once at its end, whatever the end was: also an unreachable server leaves a
result that says so. With Locust's web page, where one process may lead several runs, each run gets a directory of
its own below that one, named by the time of its start.

Laws: every key is always present; what was not measured is ``None``, never 0. Times are seconds unless the name
says otherwise (``_us``, ``_ms``). Within one ``schema`` number keys may be added, never renamed, removed or given
another unit.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

SCHEMA = 1
DIRECTORY_VARIABLE = "STENTOR_LOADTEST_DIR"
RESULT_FILE = "result.json"
PROGRESS_FILE = "progress.jsonl"
HGRM_FILE = "latency.hgrm"

#: What the verdict means to a shell: a broken promise is 1, a run that proves nothing is 2.
EXIT_CODES = {"pass": 0, "fail": 1, "unknown": 2}


class FileLimits(TypedDict):
    """RLIMIT_NOFILE of the generator's processes (after the soft limit was raised to the hard one)."""

    soft: int
    hard: int


class Environment(TypedDict):
    """The machine that generated the load."""

    hostname: str
    kernel: str
    cpu_model: str
    cpus: int  # CPUs this process may run on, which pinning lowers
    cpus_total: int
    memory_bytes: int
    python: str
    locust: str
    gevent: str
    websockets: str
    file_limits: FileLimits


class Plan(TypedDict):
    """What was asked for."""

    url: str  # of several nodes, with spaces
    dialect: str
    users: int  # healthy subscribers
    rate: float  # publications/s over all channels and publishers
    size: int  # bytes of payload per publication
    channels: int
    per_client: int
    publishers: int
    stalled: int
    slow: int
    slow_bps: int  # bytes/s that each slow client reads
    flapping: float  # reconnects/s
    duration: float | None  # seconds of publishing; None = until stopped
    warmup: float  # the first seconds of publishing are counted and checked, but not in the latency figures
    shape: str | None  # ramp, step, spike, soak or None
    processes: int  # generator processes that took part
    connections: int  # healthy connections: users x (per_client, in the raw dialect)
    publisher_connections: int  # raw: these subscribe, too, since a publisher's echo is its acknowledgement
    timed_every: int  # every n-th delivery was timed; 1 = all


class Publications(TypedDict):
    """Publications over all channels. Markers are the barrier's: one per publisher and channel at the end."""

    planned: int  # rate x duration; x the time until it was stopped, if the plan has no duration
    attempted: int  # handed to the kernel and not refused, markers not counted
    refused: dict[str, int]  # by the error that the server answered with; nobody is owed them
    acknowledged: int  # of the attempted: answered or, in the raw dialect, echoed back to their publisher
    markers: int
    late_max_ms: float | None  # how far behind its intended time a send was, at worst
    seconds: float | None  # from the first intended time to the last


class Clients(TypedDict):
    """The healthy subscribers' connections (publishers and troublemakers are elsewhere)."""

    asked: int
    connected: int
    failed: dict[str, int]  # by reason: "refused", "timeout", "HTTP 503", "subscribe: error 103 ...", ...
    connects_per_second: float | None  # while connections were being opened
    closes: dict[str, int]  # before the run's own end, by close or unsubscribe code; "1006" = no close frame
    left: int  # of their own accord: a load shape let them go


class Troublemakers(TypedDict):
    """What the clients that misbehave by order did; they take no part in the conservation sum."""

    stalled_asked: int
    stalled_observed: int  # connected, and left unread data in the kernel
    stalled_evicted: int  # of those: closed by the server before the end
    slow_asked: int
    slow_observed: int  # connected, and read something
    slow_evicted: int
    flapping_asked: int  # reconnects that the plan calls for
    flapping_done: int


class ChannelRow(TypedDict):
    """One channel's part of the ledger."""

    channel: str
    publications: int  # markers included
    subscribers: int  # healthy connections on it, raw publishers' included
    expected: int
    delivered: int
    declared: int
    lost: int
    overdue: int
    duplicated: int
    reordered: int
    unexpected: int


class ServerCounters(TypedDict):
    """The server's own account: the sums over workers (and nodes) of its counters, as read from /metrics."""

    offered: int
    sent: int
    dropped: dict[str, int]  # by reason
    received: int
    published: int
    queued: int  # a gauge: stentor_client_queue_messages summed over clients
    connections: int  # a gauge
    opened: int
    closed: dict[str, int]  # by code


class ServerAccount(TypedDict):
    """Whether the server's counters agree with the clients' sums."""

    before: ServerCounters | None
    after: ServerCounters | None
    delta: ServerCounters | None  # gauges are not subtracted
    balanced: bool | None  # offered = sent + dropped + queued, in delta and after
    mode: Literal["equality", "inequality", "none"]  # what could be demanded of this run, see README
    agrees: bool | None
    differences: list[str]  # one sentence per disagreement


class Ledger(TypedDict):
    """The proof: what was owed to the healthy clients, and what they got.

    expected = delivered + declared + lost + overdue, over all channels and in each.
    """

    expected: int  # publications x connections that were subscribed at the time
    delivered: int  # distinct, in this run, on the right channel
    declared: int  # not delivered, and the server said so: counted as dropped, or the connection was ended
    lost: int  # not delivered and not declared
    overdue: int  # not delivered when the barrier gave up, while messages still came in, or to one who came too late
    duplicated: int
    reordered: int
    unexpected: int  # foreign payload, wrong channel, never sent
    silent_clients: int  # healthy subscriptions (a connection and a channel) that were owed something and got nothing
    barrier_missing: int  # healthy subscriptions that did not see every final marker in time
    damaged: list[str]  # the first 20 connections with a wrong entry, one sentence each
    channels: list[ChannelRow]  # at most 1,000, the ones with something wrong first
    server: ServerAccount


class Latency(TypedDict):
    """A distribution in microseconds. All figures are None when nothing was timed."""

    unit: Literal["us"]
    count: int
    min: float | None
    max: float | None  # exact for deliveries, even where not all are timed
    mean: float | None
    p50: float | None
    p90: float | None
    p99: float | None
    p99_9: float | None
    p99_99: float | None
    histogram: list[list[float]]  # [lower_us, upper_us, count], ascending, without empty ones; upper is exclusive


class TimelineRow(TypedDict):
    """One second of publishing: [t, t + 1) after the first intended time. Latencies count when received."""

    t: int
    published: int
    delivered: int
    p50_us: float | None
    p99_us: float | None
    max_us: float | None
    connections: int | None  # healthy, as the generator sees them
    server_cpu: float | None  # % of one core, all workers of all nodes
    server_rss: int | None  # bytes, all workers of all nodes
    server_connections: int | None
    server_loop_lag_ms: float | None  # mean of this second; of several nodes, the worst
    nodes_cpu: dict[str, float]  # % of one core by node, where there are several
    broker_cpu: float | None  # % of one core
    queue_bytes: int | None
    lagging_clients: int | None
    dropped: int | None  # by the server in this second
    generator_cpu: dict[str, float]  # % of one core per process
    generator_lag_ms: dict[str, float]  # the worst loop lag in this second per process
    late_ms: float | None  # the worst lateness of a send against its intended time


class GeneratorRow(TypedDict):
    """One process of the generator, over the time of publishing."""

    process: str
    pid: int
    cpu_mean: float | None  # % of one core
    cpu_max: float | None  # the worst second
    cpu_sustained: float | None  # the worst mean over 3 consecutive seconds: what the verdict looks at
    lag_max_ms: float | None
    lag_p99_ms: float | None
    connections: int
    timed: int


class Verdict(TypedDict):
    """``fail``: a promise was broken. ``unknown``: the run proves nothing. Reasons are sentences, worst first."""

    verdict: Literal["pass", "fail", "unknown"]
    reasons: list[str]
    notes: list[str]  # what a reader should know although it decides nothing: declared drops, no /metrics


class ProcessRow(TypedDict):
    """What one process used while publishing."""

    pid: int
    cpu_seconds: float


class ServerFacts(TypedDict):
    """What is known of the server under test; all None without ``METRICS`` and ``SERVER_PID``."""

    build: dict[str, str] | None  # labels of stentor_build_info
    pids: list[int]
    processes: list[ProcessRow]  # those that were there from the first publication to the last
    cpu_seconds: float | None  # user + system, over the time of publishing
    cpu_us_per_delivery: float | None
    rss_before: int | None  # before the first connection
    rss_connected: int | None  # all connected, nothing published yet
    rss_max: int | None
    rss_after: int | None
    bytes_sent: int | None


class NodeRow(TypedDict):
    """One node's part of a run against several: what its clients were owed, and its own account.

    Its channels' sums are those of the ledger; ``server`` holds the node's counters against them.
    """

    name: str
    url: str
    connections: int  # healthy ones, the publishers' included
    published: int  # publications that it had from publishers, markers included
    expected: int
    delivered: int
    declared: int
    lost: int
    overdue: int
    duplicated: int
    reordered: int
    unexpected: int
    server: ServerAccount
    facts: ServerFacts


class BrokerFacts(TypedDict):
    """What the broker between the nodes used while publishing; None where its process is not on this machine."""

    pid: int
    cpu_seconds: float | None
    cpu_us_per_publication: float | None
    rss_max: int | None


class Result(TypedDict):
    """``result.json``."""

    schema: int
    run: str  # four hexadecimal digits that every payload of this run carries
    started: str  # ISO 8601, UTC
    ended: str
    options: dict[str, Any]  # exactly as the run got them, by option name
    command: list[str]  # argv of the leading process
    environment: Environment
    plan: Plan
    publications: Publications
    clients: Clients
    publishers: Clients
    troublemakers: Troublemakers
    ledger: Ledger
    latency: Latency  # intended send time to receipt
    handshake: Latency  # start of the TCP connect until the client hears its channels (raw: to the 101)
    timeline: list[TimelineRow]
    generator: list[GeneratorRow]
    server: ServerFacts
    nodes: list[NodeRow]  # one for each address of the server
    broker: BrokerFacts | None
    verdict: Verdict


class Progress(TypedDict):
    """One line of ``progress.jsonl``."""

    phase: Literal["connecting", "publishing", "barrier", "done"]
    elapsed: float  # seconds since the run began
    connected: int
    asked: int
    row: TimelineRow | None  # the newest whole second, while publishing. Provisional


class ResultError(Exception):
    """A file is not a result of this schema; the message is one line."""


def directory() -> Path | None:
    """Where this run leaves its files, or None when nobody asked for any."""
    value = os.environ.get(DIRECTORY_VARIABLE, "")
    return Path(value) if value else None


def write(result: Result, into: Path) -> Path:
    """Write ``result.json`` atomically and return its path."""
    into.mkdir(parents=True, exist_ok=True)
    path = into / RESULT_FILE
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    draft.replace(path)
    return path


def append_progress(progress: Progress, into: Path) -> None:
    """Append one line to ``progress.jsonl``; a reader that follows the file never sees half a line."""
    into.mkdir(parents=True, exist_ok=True)
    line = json.dumps(progress, allow_nan=False) + "\n"
    with (into / PROGRESS_FILE).open("ab", buffering=0) as file:
        file.write(line.encode())


def read(path: Path) -> Result:
    """Read a ``result.json``.

    Raises:
        ResultError: the file is missing, is not JSON, or is of another schema.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultError(f"{path}: {error}") from error
    if not isinstance(data, dict) or "schema" not in data:
        raise ResultError(f"{path}: not a load test result")
    if data["schema"] != SCHEMA:
        raise ResultError(f"{path}: schema {data['schema']}, this program reads {SCHEMA}")
    _complete(data)
    missing = [key for key in Result.__annotations__ if key not in data]
    if missing:
        raise ResultError(f"{path}: incomplete, {', '.join(missing)} missing")
    return cast(Result, data)


def _complete(data: dict[str, Any]) -> None:
    """Give an older result the keys that were added since, as what was not measured."""
    data.setdefault("nodes", [])
    data.setdefault("broker", None)
    if isinstance(data.get("server"), dict):
        data["server"].setdefault("processes", [])
    for row in data.get("timeline", ()):
        row.setdefault("nodes_cpu", {})
        row.setdefault("broker_cpu", None)
