"""The options of a run, how they are declared to Locust, and what is wrong with them.

Each has a flag and a name in the environment (``--rate`` and ``RATE=``); the command line wins. Values keep the type
they have here through Locust's web page and its messages to the workers, so everything is a plain string or number.
"""

from __future__ import annotations

import re
from argparse import Namespace
from dataclasses import dataclass
from math import gcd, lcm
from typing import Any

from loadtest import centrifuge
from loadtest.centrifuge import CentrifugeDialect
from loadtest.dialect import CHANNEL, Dialect, RawDialect, target_url
from loadtest.payload import MAX_CHANNELS, MAX_PUBLISHERS, padding
from loadtest.protocol import ProtocolFault

DIALECTS = ("raw", "centrifuge")
SHAPES = ("ramp", "step", "spike", "soak")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class BadOption(Exception):
    """The options do not make a run; the message is one line."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its flag without dashes, its name in the environment, its default and its help."""

    flag: str
    variable: str
    default: Any
    help: str
    secret: bool = False

    @property
    def key(self) -> str:
        """Its name in the parsed options."""
        return self.flag.replace("-", "_")


OPTIONS = (
    Option(
        "url", "URL", "", "server: ws://host:port, or any ws URL with {channel} in it; of several nodes, with spaces"
    ),
    Option("dialect", "DIALECT", "raw", "what clients speak: raw or centrifuge"),
    Option("token", "TOKEN", "", "bearer token for the handshake", secret=True),
    Option("metrics", "METRICS", "", "URL of the server's /metrics (of each node): its counters are checked"),
    Option("server-pid", "SERVER_PID", "", "process id of a server on this machine: its CPU and memory are measured"),
    Option("broker-pid", "BROKER_PID", 0, "process id of the broker between nodes, if it is here: the same of it"),
    Option("subscribers", "USERS", 100, "healthy subscribers"),
    Option("rate", "RATE", 10.0, "publications per second, over all channels and publishers"),
    Option("size", "SIZE", 128, "bytes per publication (49 or more)"),
    Option("publish-time", "TIME", "10s", "how long to publish: 30s, 5m, 1h; 0 = until stopped"),
    Option("channels", "CHANNELS", 1, "channels"),
    Option("per-client", "PER_CLIENT", 1, "channels per subscriber; the raw dialect needs a connection for each"),
    Option("publishers", "PUBLISHERS", 1, "publishers"),
    Option("stalled", "STALLED", 0, "clients that never read"),
    Option("slow", "SLOW", 0, "clients that read slowly"),
    Option("slow-bps", "SLOW_BPS", 1024, "bytes per second that each slow client reads"),
    Option("flapping", "FLAPPING", 0.0, "reconnects per second of clients that come and go"),
    Option("shape", "SHAPE", "", "how the load varies: ramp, step, spike or soak; empty = constant"),
    Option("warmup", "WARMUP", 0.0, "seconds of publishing that are checked, but not in the latency figures"),
    Option("barrier", "BARRIER", 15.0, "seconds the last publication may take to arrive"),
    Option("connect-rate", "CONNECT_RATE", 1000.0, "connects per second, over all processes"),
    Option("timed", "TIMED", 20000, "deliveries per second and process that are timed, about"),
    Option("cpu-limit", "CPU_LIMIT", 90.0, "a generator process above this share of its core makes the run unknown"),
    Option("lag-limit", "LAG_LIMIT", 100.0, "a generator whose loop lags more (ms, p99) makes the run unknown"),
    Option("metrics-port", "METRICS_PORT", 0, "port for Prometheus to read the run's own figures from; 0 = none"),
    Option("metrics-host", "METRICS_HOST", "127.0.0.1", "the address of that port"),
    Option("channel-prefix", "CHANNEL_PREFIX", "", "begin of the channels' names; empty = loadtest-<run>-"),
)


def declare(parser: Any) -> None:
    """Add the options to Locust's command line parser."""
    # Not in a group of their own: Locust's page knows only what the parser itself was given.
    for option in OPTIONS:
        parser.add_argument(
            f"--{option.flag}",
            env_var=option.variable,
            type=type(option.default),
            default=option.default,
            help=option.help,
            **({"is_secret": True} if option.secret else {}),
        )
    # Chosen anew for each run by the process that leads it, and sent to the workers with the rest.
    for flag, default, what in (
        ("--run-id", "", "marks a run"),
        ("--swarm-size", 1, "subscribers per Locust user"),
        ("--stations", 1, "processes that generate load"),
    ):
        parser.add_argument(
            flag, type=type(default), default=default, include_in_web_ui=False, help=f"(internal) {what}"
        )


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """Where one node of the server is: for clients, for its metrics, for the kernel; empty or 0 = not known."""

    url: str
    metrics: str
    pid: int


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for, checked."""

    nodes: tuple[NodeAddress, ...]
    dialect: str
    token: str
    broker_pid: int
    subscribers: int
    rate: float
    size: int
    duration: float | None
    channels: int
    per_client: int
    publishers: int
    stalled: int
    slow: int
    slow_bps: int
    flapping: float
    shape: str
    warmup: float
    barrier: float
    connect_rate: float
    timed: int
    cpu_limit: float
    lag_limit: float
    metrics_port: int
    metrics_host: str
    channel_prefix: str
    run: str

    @classmethod
    def of(cls, parsed: Namespace, host: str | None = None) -> Options:
        """Read Locust's parsed options; ``host`` (its ``-H``) stands in for the URL.

        Raises:
            BadOption: a value is out of its range, or two do not fit.
        """
        values = {option.key: getattr(parsed, option.key) for option in OPTIONS}
        urls = (values.pop("url") or host or "").split()
        if not urls:
            raise BadOption("URL= is missing: ws://host:port of the server to load")
        metrics, pids = values.pop("metrics").split(), str(values.pop("server_pid")).split()
        duration = seconds(values.pop("publish_time"))
        if values["dialect"] not in DIALECTS:
            raise BadOption(f"DIALECT={values['dialect']}: there are {' and '.join(DIALECTS)}")
        try:
            padding(values["size"])
            paths = [centrifuge.PATH] if values["dialect"] == "centrifuge" else []
            nodes = _nodes([target_url(url, *paths) for url in urls], metrics, pids)
            options = cls(nodes=nodes, duration=duration or None, run=parsed.run_id, **values)
        except (ValueError, ProtocolFault) as error:
            raise BadOption(str(error)) from None
        options._check()
        return options

    def _check(self) -> None:
        for name, low, high in (
            ("subscribers", 1, 1_000_000),
            ("channels", 1, MAX_CHANNELS),
            ("publishers", 1, MAX_PUBLISHERS),
            ("per_client", 1, self.channels),
            ("rate", 0.001, 1_000_000),
            ("stalled", 0, 100_000),
            ("slow", 0, 100_000),
            ("slow_bps", 1, 1 << 30),
            ("flapping", 0, 10_000),
            ("barrier", 0.1, 3600),
            ("connect_rate", 0.1, 1_000_000),
            ("timed", 1, 1 << 30),
            ("metrics_port", 0, 65535),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise BadOption(f"{_variable(name)}={value}: {low} to {high} are possible")
        if self.shape and self.shape not in SHAPES:
            raise BadOption(f"SHAPE={self.shape}: there are {', '.join(SHAPES)}")
        if self.shape and self.duration is None:
            raise BadOption("SHAPE= needs a TIME= to shape")
        if self.duration is not None and self.warmup >= self.duration:
            raise BadOption(f"WARMUP={self.warmup:g}: nothing is left of {self.duration:g} s")
        for url in (node.url for node in self.nodes):
            if self.dialect == "raw" and CHANNEL not in url and self.channels > 1:
                raise BadOption("CHANNELS= needs a URL with {channel} in it")
            if self.dialect != "raw" and CHANNEL in url:
                raise BadOption(f"URL={url}: in the {self.dialect} dialect no channel is part of it")

    @property
    def url(self) -> str:
        """Where clients connect: the address of each node."""
        return " ".join(node.url for node in self.nodes)

    def make_dialect(self, node: int = 0) -> Dialect:
        """The dialect that the server speaks, at a node of it."""
        url = self.nodes[node].url
        return CentrifugeDialect(url, self.token) if self.dialect == "centrifuge" else RawDialect(url)

    def node_of(self, subscriber: int) -> int:
        """The node that subscriber number ``subscriber`` is at: all have as many, and so have the channels' parts."""
        # Channels and nodes take turns alike: after a whole round of both, the turns are shifted by one against each
        # other, or each channel would have all of its clients at one node.
        period = self.channels // gcd(self.channels, self.per_client)
        nodes = len(self.nodes)
        return (subscriber + subscriber // lcm(period, nodes)) % nodes

    def channel(self, number: int) -> str:
        """The name of a channel."""
        return f"{self.channel_prefix or f'loadtest-{self.run}-'}{number}"

    def channels_of(self, subscriber: int) -> list[int]:
        """The channels that subscriber number ``subscriber`` listens to: all channels get as many, within one."""
        first = subscriber * self.per_client
        return [(first + number) % self.channels for number in range(self.per_client)]

    @property
    def connections_per_client(self) -> int:
        """How many connections a subscriber has."""
        return len(self.make_dialect().split(self.channels_of(0)))

    @property
    def connections(self) -> int:
        """Healthy connections, the publishers' not counted."""
        return self.subscribers * self.connections_per_client

    @property
    def subscriptions(self) -> int:
        """How many times somebody healthy is on a channel: those who publish in the raw dialect, too."""
        return self.subscribers * self.per_client + (0 if self.make_dialect().answers else self.streams)

    @property
    def streams(self) -> int:
        """Publishers' connections: one per publisher and channel."""
        return max(self.publishers, self.channels)

    @property
    def publications(self) -> int | None:
        """How many publications are planned, or None if they go on until stopped."""
        return None if self.duration is None else round(self.rate * self.duration)

    def timed_every(self, processes: int) -> int:
        """Every how many-th delivery a process times, to time about ``timed`` a second."""
        deliveries = self.rate * self.subscriptions / self.channels / max(processes, 1)
        every = -(-int(deliveries) // self.timed)
        return every if every < 3 else _next_prime(every)  # a divisor of the clients' number would time the same few


def _nodes(urls: list[str], metrics: list[str], pids: list[str]) -> tuple[NodeAddress, ...]:
    """Each node's addresses, of lists in the nodes' order; a list may be absent, but not too short.

    Raises:
        ValueError: the lists do not fit.
    """
    for name, values in (("METRICS", metrics), ("SERVER_PID", pids)):
        if values and len(values) != len(urls):
            raise ValueError(f"{name}={' '.join(values)}: one for each of the {len(urls)} in URL= is needed")
    if not all(pid.isdigit() for pid in pids):
        raise ValueError(f"SERVER_PID={' '.join(pids)}: a whole number is needed")
    return tuple(
        NodeAddress(url, metrics[number] if metrics else "", int(pids[number]) if pids else 0)
        for number, url in enumerate(urls)
    )


def seconds(text: str) -> float:
    """A duration such as ``30s``, ``5m``, ``1h30m`` or ``45``, in seconds.

    Raises:
        BadOption: it is none.
    """
    text = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not re.fullmatch(r"(\d+(\.\d+)?[smh])+", text):
        raise BadOption(f"TIME={text}: write 30s, 5m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)([smh])", text))


def as_given(parsed: Namespace) -> dict[str, Any]:
    """The options exactly as the run got them, secrets masked."""
    values = {option.key: getattr(parsed, option.key) for option in OPTIONS}
    return {key: masked(value, parsed.token) if isinstance(value, str) else value for key, value in values.items()}


def masked(text: str, token: str) -> str:
    """``text`` without credentials: neither the token, nor what a URL carries of the kind."""
    if token:
        text = text.replace(token, "***")
    text = re.sub(r"([?&](?:access_)?token=)[^&\s]+", r"\1***", text)
    return re.sub(r"(//[^/@\s:]*:)[^/@\s]+@", r"\1***@", text)


def swarm_size(subscribers: int, processes: int, most: int = 100) -> int:
    """How many subscribers one Locust user holds: a divisor of their number, so that none is left over.

    Each process gets a user, and no user holds more than ``most``.
    """
    limit = max(1, min(most, subscribers // max(processes, 1)))
    return next(size for size in range(limit, 0, -1) if subscribers % size == 0)


def _variable(key: str) -> str:
    return next(option.variable for option in OPTIONS if option.key == key)


def _next_prime(number: int) -> int:
    while any(number % divisor == 0 for divisor in range(2, int(number**0.5) + 1)):
        number += 1
    return number
