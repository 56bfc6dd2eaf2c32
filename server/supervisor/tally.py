"""The metrics of all workers as one scrape: each sample with the label ``worker``, and counters that never go back.

Laws: a place of the crew is held by one worker after the other, for a while by two (`life` tells them apart); what
each has counted stays, whatever becomes of it, and what the next one counts is added. What it had open and queued when
it spoke last is booked as lost when it ends: so the books balance, also of one that could not settle them. A worker
that is silent is shown as down, with the counters that it said last and without its gauges.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from server.admin.metrics import INTERLUDE, in_turns
from server.core.counters import Drop

# name, type, help, samples (name, labels, value): as `families` packs them.
Family = list[Any]
# The name of a sample of a family, and its labels.
Key = tuple[str, tuple[tuple[str, str], ...]]

_GROWING: Final = frozenset({"counter", "histogram", "summary"})
# Histograms over the clients of this moment: gauges in all but their type.
_MOMENTARY: Final = ("stentor_client_queue_",)
# What two workers in one place do not have together; the newer one tells.
_NOT_ADDED: Final = (
    "process_", "python_", "stentor_build_info", "stentor_broker_up", "stentor_brownout_level",
    "stentor_tls_certificate_expiry_timestamp_seconds", "stentor_revocations",
)  # fmt: skip
# What a worker takes with it when it ends, and as what that is counted.
_LOST_WITH_IT: Final = (
    ("stentor_queue_messages", "stentor_messages_dropped", ("reason", str(Drop.DISCONNECTED))),
    ("stentor_connections", "stentor_connections_closed", ("code", "1006")),
)
_UP: Final = "stentor_worker_up"


def families(registry: CollectorRegistry) -> list[Family]:
    """Pack a registry's metrics into JSON."""
    return [_packed(family) for family in registry.collect() if family is not INTERLUDE]


async def families_in_turns(registry: CollectorRegistry) -> list[Family]:
    """Do as `families`, but let the event loop turn in between."""
    return [_packed(family) async for family in in_turns(registry)]


def _packed(family: Metric) -> Family:
    samples = [[sample.name, dict(sample.labels), sample.value] for sample in family.samples]
    return [family.name, family.type, family.documentation, samples]


@dataclass(slots=True)
class _Life:
    """What one worker has said last, and whether it still answers."""

    said: dict[str, Family]  # by name
    answers: bool = True


class _Place:
    """One place of the crew: who has it now (the oldest first), and what those have counted who had it before."""

    def __init__(self) -> None:
        self.lives: dict[int, _Life] = {}
        self.before: dict[str, dict[Key, float]] = {}

    @property
    def is_up(self) -> bool:
        """Tell if the newest worker answers."""
        newest = next(reversed(self.lives.values()), None)
        return newest is not None and newest.answers

    def settle(self, family: str, samples: Iterable[tuple[Key, float]]) -> None:
        """Add to what was counted here by those who have ended."""
        before = self.before.setdefault(family, {})
        for key, value in samples:
            before[key] = before.get(key, 0.0) + value

    def samples(self, family: str) -> dict[Key, float]:
        """Put together what the place has to show of a family."""
        found = dict(self.before.get(family, {}))
        for life in self.lives.values():
            said = life.said.get(family)
            if said is None or not (life.answers or _grows(said)):
                continue
            is_added = _grows(said) or not family.startswith(_NOT_ADDED)
            for key, value in _samples(said):
                found[key] = found.get(key, 0.0) + value if is_added else value
        return found


class Tally(Collector):
    """What each place of the crew has said."""

    def __init__(self) -> None:
        self._places: dict[int, _Place] = defaultdict(_Place)
        self._families: dict[str, tuple[str, str]] = {}  # type and help, by name
        self.own: list[Metric] = []  # the supervisor's own; what it says of a worker has that label already

    def take(self, index: int, said: list[Family] | None, life: int = 0) -> None:
        """Take a worker's metrics, or None when it did not answer."""
        lives = self._places[index].lives
        if said is None:
            lives.setdefault(life, _Life({})).answers = False
            return
        lives[life] = _Life({family[0]: family for family in said})
        for name, kind, documentation, _ in said:
            self._families.setdefault(name, (documentation, kind))

    def bury(self, index: int, life: int = 0) -> None:
        """Keep what a worker has counted, now that it counts no more."""
        place = self._places[index]
        gone = place.lives.pop(life, None)
        if gone is None:
            return
        for name, said in gone.said.items():
            if _grows(said):
                place.settle(name, _samples(said))
        for gauge, counter, label in _LOST_WITH_IT:
            if gauge in gone.said and counter in gone.said:
                lost = sum(value for _, value in _samples(gone.said[gauge]))
                place.settle(counter, [((f"{counter}_total", (label,)), lost)])

    def collect(self) -> Iterator[Metric]:
        """Yield one family after the other; meanwhile workers may come and go."""
        places, own = sorted(self._places.items()), {metric.name: metric for metric in self.own}
        up = Metric(_UP, "Whether the worker answers.", "gauge")
        for index, place in places:
            up.add_sample(_UP, {"worker": str(index)}, float(place.is_up))
        yield up
        described = {name: (metric.documentation, metric.type) for name, metric in own.items()} | self._families
        described.pop(_UP, None)
        for name, facts in described.items():
            metric = Metric(name, *facts)
            for index, place in places:
                for (sample, labels), value in place.samples(name).items():
                    metric.add_sample(sample, {**dict(labels), "worker": str(index)}, value)
            for ours in own[name].samples if name in own else ():
                metric.add_sample(ours.name, {"worker": "supervisor", **ours.labels}, ours.value)
            if metric.samples:
                yield metric


def _samples(said: Family) -> Iterator[tuple[Key, float]]:
    for name, labels, value in said[3]:
        yield (name, tuple(sorted(labels.items()))), value


def _grows(said: Family) -> bool:
    return said[1] in _GROWING and not said[0].startswith(_MOMENTARY)
