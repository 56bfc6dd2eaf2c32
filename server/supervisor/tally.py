"""The metrics of all workers as one scrape: each sample with the label ``worker``, and counters that never go back.

Laws: what a worker counted in its life is kept when it dies, and its successor's counters go on from there; a worker
that does not answer is shown as down, with the counters that it said last and without its gauges.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Final

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

# name, type, help, samples (name, labels, value): as `families` packs them.
Family = list[Any]
Key = tuple[str, tuple[tuple[str, str], ...]]

_GROWING: Final = frozenset({"counter", "histogram", "summary"})


def families(registry: CollectorRegistry) -> list[Family]:
    """Pack a registry's metrics into JSON."""
    return [
        [
            family.name, family.type, family.documentation,
            [[sample.name, dict(sample.labels), sample.value] for sample in family.samples],
        ]
        for family in registry.collect()
    ]  # fmt: skip


class Tally(Collector):
    """What each place of the crew has said, and what those who had it before have counted."""

    def __init__(self) -> None:
        self._said: dict[int, list[Family]] = {}
        self._before: dict[int, dict[Key, float]] = defaultdict(lambda: defaultdict(float))
        self._down: set[int] = set()
        self.own: list[Metric] = []  # the supervisor's own

    def take(self, index: int, said: list[Family] | None) -> None:
        """Take a worker's metrics, or None when it did not answer."""
        if said is None:
            self._down.add(index)
        else:
            self._down.discard(index)
            self._said[index] = said

    def bury(self, index: int) -> None:
        """Keep what a worker has counted: its successor begins at nothing."""
        before = self._before[index]
        for _, kind, _, samples in self._said.pop(index, []):
            if kind in _GROWING:
                for name, labels, value in samples:
                    before[_key(name, labels)] += value
        self._down.add(index)

    def collect(self) -> Iterator[Metric]:
        found: dict[str, Metric] = {}
        for index, said in sorted(self._said.items()):
            for name, kind, documentation, samples in said:
                if name == "stentor_worker_up" or (index in self._down and kind not in _GROWING):
                    continue
                metric = found.setdefault(name, Metric(name, documentation, kind))
                self._add(metric, index, kind, samples)
        for index in sorted(self._before.keys() - self._said.keys()):
            self._add_buried(found, index)
        up = Metric("stentor_worker_up", "Whether the worker answers.", "gauge")
        for index in sorted(self._said.keys() | self._down):
            up.add_sample("stentor_worker_up", {"worker": str(index)}, float(index not in self._down))
        yield up
        for metric in self.own:
            found.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type)).samples += [
                sample._replace(labels={**sample.labels, "worker": "supervisor"}) for sample in metric.samples
            ]
        yield from found.values()

    def _add(self, metric: Metric, index: int, kind: str, samples: Iterable[Any]) -> None:
        before = self._before.get(index, {})
        for name, labels, value in samples:
            more = before.get(_key(name, labels), 0.0) if kind in _GROWING else 0.0
            metric.add_sample(name, {**labels, "worker": str(index)}, value + more)

    def _add_buried(self, found: dict[str, Metric], index: int) -> None:
        """Show what a dead worker has counted, in the families that others tell the names of."""
        for (name, labels), value in self._before[index].items():
            for metric in found.values():
                if name == metric.name or name.removesuffix("_total") == metric.name or _is_part(name, metric):
                    metric.add_sample(name, {**dict(labels), "worker": str(index)}, value)
                    break


def _is_part(name: str, metric: Metric) -> bool:
    return metric.type == "histogram" and name in {f"{metric.name}{end}" for end in ("_bucket", "_sum", "_count")}


def _key(name: str, labels: dict[str, str]) -> Key:
    return name, tuple(sorted(labels.items()))
