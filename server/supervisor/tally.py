"""The metrics of all workers as one scrape: each sample with the label ``worker``, and counters that never go back.

Laws: a place of the crew is held by one worker after the other, for a while by two (`life` tells them apart); what
each has counted stays, whatever becomes of it, and what the next one counts is added. A worker that does not answer is
shown as down, with the counters that it said last and without its gauges.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

# name, type, help, samples (name, labels, value): as `families` packs them.
Family = list[Any]
# The name of the family, that of the sample, and its labels.
Key = tuple[str, str, tuple[tuple[str, str], ...]]

_GROWING: Final = frozenset({"counter", "histogram", "summary"})
# Histograms over the clients of this moment: gauges in all but their type.
_MOMENTARY: Final = ("stentor_client_queue_",)
# What two workers in one place do not have together; the newer one tells.
_NOT_ADDED: Final = ("process_", "python_", "stentor_build_info", "stentor_broker_up")
_UP: Final = "stentor_worker_up"


def families(registry: CollectorRegistry) -> list[Family]:
    """Pack a registry's metrics into JSON."""
    return [
        [
            family.name, family.type, family.documentation,
            [[sample.name, dict(sample.labels), sample.value] for sample in family.samples],
        ]
        for family in registry.collect()
    ]  # fmt: skip


@dataclass(slots=True)
class _Life:
    """What one worker has said last, and whether it still answers."""

    said: list[Family]
    answers: bool = True


class _Place:
    """One place of the crew: who has it now (the oldest first), and what those have counted who had it before."""

    def __init__(self) -> None:
        self.lives: dict[int, _Life] = {}
        self.before: dict[Key, float] = {}

    @property
    def is_up(self) -> bool:
        """Tell if the newest worker answers."""
        newest = next(reversed(self.lives.values()), None)
        return newest is not None and newest.answers

    def samples(self) -> dict[Key, float]:
        """Put together what the place has to show."""
        found = dict(self.before)
        for life in self.lives.values():
            for key, kind, value in _samples(life.said):
                if _grows(key[0], kind) or (life.answers and not key[0].startswith(_NOT_ADDED)):
                    found[key] = found.get(key, 0.0) + value
                elif life.answers:
                    found[key] = value
        return found


class Tally(Collector):
    """What each place of the crew has said."""

    def __init__(self) -> None:
        self._places: dict[int, _Place] = defaultdict(_Place)
        self._families: dict[str, tuple[str, str]] = {}  # type and help, by name
        self.own: list[Metric] = []  # the supervisor's own

    def take(self, index: int, said: list[Family] | None, life: int = 0) -> None:
        """Take a worker's metrics, or None when it did not answer."""
        lives = self._places[index].lives
        if said is None:
            lives.setdefault(life, _Life([])).answers = False
            return
        lives[life] = _Life(said)
        for name, kind, documentation, _ in said:
            self._families.setdefault(name, (documentation, kind))

    def bury(self, index: int, life: int = 0) -> None:
        """Keep what a worker has counted, now that it counts no more."""
        place = self._places[index]
        gone = place.lives.pop(life, None)
        for key, kind, value in _samples(gone.said) if gone is not None else ():
            if _grows(key[0], kind):
                place.before[key] = place.before.get(key, 0.0) + value

    def collect(self) -> Iterator[Metric]:
        up = Metric(_UP, "Whether the worker answers.", "gauge")
        found = {name: Metric(name, *described) for name, described in self._families.items() if name != _UP}
        for index, place in sorted(self._places.items()):
            up.add_sample(_UP, {"worker": str(index)}, float(place.is_up))
            for (family, name, labels), value in place.samples().items():
                if family != _UP:
                    found[family].add_sample(name, {**dict(labels), "worker": str(index)}, value)
        for metric in self.own:
            found.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type)).samples += [
                sample._replace(labels={**sample.labels, "worker": "supervisor"}) for sample in metric.samples
            ]
        yield up
        yield from (metric for metric in found.values() if metric.samples)


def _samples(said: list[Family]) -> Iterator[tuple[Key, str, float]]:
    for family, kind, _, samples in said:
        for name, labels, value in samples:
            yield (family, name, tuple(sorted(labels.items()))), kind, value


def _grows(family: str, kind: str) -> bool:
    return kind in _GROWING and not family.startswith(_MOMENTARY)
