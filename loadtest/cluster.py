"""The server's side of a run as a whole: the nodes that it consists of, together, and the broker between them.

Laws: a sum is known only if every node's part is; a lag is that of the worst. A server of one node is its own whole.
It asks nobody itself but the kernel about the broker: the nodes' witnesses do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loadtest.probe import Probe, Rates, difference, total
from loadtest.result import BrokerFacts, ServerCounters, ServerFacts
from loadtest.witness import Witness

_WORST = "server_loop_lag_ms"


class Cluster:
    """Watches all nodes of a server, and its broker where that is a process of this machine."""

    def __init__(self, nodes: Sequence[Witness], broker: Probe | None = None) -> None:
        self.nodes = list(nodes)
        self._broker = broker
        self._broker_rates = Rates(broker) if broker else None
        self._broker_before: float | None = None
        self._broker_rss: int | None = None

    @property
    def before(self) -> ServerCounters | None:
        """What all nodes had counted before the first client connected."""
        return _total([node.before for node in self.nodes])

    @property
    def after(self) -> ServerCounters | None:
        """What they had counted when all was over."""
        return _total([node.after for node in self.nodes])

    @property
    def delta(self) -> ServerCounters | None:
        """What they counted during the run."""
        before, after = self.before, self.after
        return difference(before, after) if before and after else None

    def read_before(self) -> None:
        """Before the first client connects."""
        for node in self.nodes:
            node.read_before()

    def read_connected(self) -> None:
        """When everybody is connected and nothing has been published."""
        for node in self.nodes:
            node.read_connected()
        if self._broker and self._broker_rates:
            self._broker_before = self._broker.cpu_seconds()
            self._broker_rates.take()

    def read_second(self) -> dict[str, Any]:
        """The server's part of a timeline row, since the last one."""
        rows = [node.read_second() for node in self.nodes]
        row: dict[str, Any] = {key: _merged(key, [each[key] for each in rows]) for key in rows[0]}
        shares = {str(number): each["server_cpu"] for number, each in enumerate(rows, 1)}
        known = {name: share for name, share in shares.items() if share is not None}
        return row | {"nodes_cpu": known if len(rows) > 1 else {}, "broker_cpu": self._read_broker()}

    def _read_broker(self) -> float | None:
        if self._broker_rates is None:
            return None
        taken = self._broker_rates.take()
        if (rss := taken["server_rss"]) is not None:
            self._broker_rss = max(int(rss), self._broker_rss or 0)
        return taken["server_cpu"]

    def read_after(self) -> None:
        """When the last message has arrived, and before anyone leaves."""
        for node in self.nodes:
            node.read_after()

    def broker(self, publications: int) -> BrokerFacts | None:
        """What so many publications cost the broker; None if it is not known as a process."""
        pids = self._broker.pids() if self._broker else []
        if self._broker is None or not pids:
            return None
        now, used = self._broker.cpu_seconds(), None
        if now is not None and self._broker_before is not None:
            used = now - self._broker_before
        return {
            "pid": pids[0],
            "cpu_seconds": used,
            "cpu_us_per_publication": 1e6 * used / publications if used is not None and publications else None,
            "rss_max": self._broker_rss,
        }


def together(parts: Sequence[ServerFacts], deliveries: int) -> ServerFacts:
    """The facts of several nodes as those of one server, which has made so many deliveries."""
    used = _sum([part["cpu_seconds"] for part in parts])
    sums: Any = {
        key: _sum([part[key] for part in parts])  # type: ignore[literal-required]
        for key in ("rss_before", "rss_connected", "rss_max", "rss_after", "bytes_sent")
    }
    return {
        "build": parts[0]["build"],
        "pids": [pid for part in parts for pid in part["pids"]],
        "processes": [process for part in parts for process in part["processes"]],
        "cpu_seconds": used,
        "cpu_us_per_delivery": 1e6 * used / deliveries if used is not None and deliveries else None,
        **sums,
    }


def _total(parts: list[ServerCounters | None]) -> ServerCounters | None:
    known = [part for part in parts if part is not None]
    return total(known) if known and len(known) == len(parts) else None


def _sum(parts: Sequence[Any]) -> Any:
    return None if any(part is None for part in parts) else sum(parts)


def _merged(key: str, parts: Sequence[Any]) -> Any:
    if key == _WORST:
        return max((part for part in parts if part is not None), default=None)
    return _sum(parts)
