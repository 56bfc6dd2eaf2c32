"""What a dashboard is made of: targets, panels and rows, as values.

It does not know how Grafana writes them down (``schema``) nor where they stand on the page (``layout``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

GREEN, YELLOW, ORANGE, RED, BLUE, PURPLE, GREY = "green", "yellow", "orange", "red", "blue", "purple", "text"


class Kind(StrEnum):
    """Grafana's names of the kinds of panels used here."""

    TILE = "stat"
    GRAPH = "timeseries"
    HEATMAP = "heatmap"
    STATES = "state-timeline"
    TABLE = "table"


class Unit(StrEnum):
    """Grafana's names of the units used here."""

    COUNT = "short"
    PER_SECOND = "cps"
    MESSAGES_PER_SECOND = "mps"
    BYTES_PER_SECOND = "Bps"
    BYTES = "bytes"
    SECONDS = "s"
    SHARE = "percentunit"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Target:
    """A query, and what its series are called: a text with ``{{label}}`` in it."""

    query: str
    legend: str
    color: str = ""  # of its only series; "" = the palette's next
    is_limit: bool = False  # drawn as what the others must stay below
    is_instant: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """What a value is called, and its colour; NaN is a value, too."""

    value: float
    text: str
    color: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `description`: what is normal, and what to do or where to look next.

    `steps`: from which value on it has which colour, ascending; the first counts from below.
    """

    kind: Kind
    title: str
    description: str
    unit: Unit
    targets: tuple[Target, ...]
    width: int
    height: int
    steps: tuple[tuple[float, str], ...] = ((0, GREEN),)
    states: tuple[State, ...] = ()
    decimals: int | None = None
    maximum: float | None = None
    is_stacked: bool = False
    is_logarithmic: bool = False
    columns: tuple[tuple[str, str], ...] = ()  # of a table: label and title
    nothing: str = ""  # what stands there when there is no series, if that is as it should be

    def wide(self, width: int, height: int | None = None) -> Panel:
        """The same panel in another size."""
        return replace(self, width=width, height=height or self.height)


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading; a collapsed one is asked for only when it is opened."""

    title: str
    panels: tuple[Panel, ...]
    is_collapsed: bool = False


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A page of rows. `chooser`: a selector of the series that tell which jobs and instances there are."""

    uid: str
    title: str
    description: str
    top: tuple[Panel, ...]
    rows: tuple[Row, ...]
    chooser: str
    tags: tuple[str, ...] = ("stentor", "websocket")

    def panels(self) -> list[Panel]:
        """All panels, in the order in which they stand on the page."""
        return [*self.top, *(panel for row in self.rows for panel in row.panels)]


IDLE = State(float("nan"), "idle", GREY)


def tile(
    title: str,
    query: str,
    unit: Unit,
    description: str,
    *,
    steps: tuple[tuple[float, str], ...] = ((0, GREEN),),
    states: tuple[State, ...] = (),
    decimals: int | None = None,
    nothing: str = "",
) -> Panel:
    """A number, with its course behind it."""
    # A quantile of nothing is not a number: nothing happened, which is no fault.
    return Panel(
        Kind.TILE, title, description, unit, (Target(query, ""),), 3, 4,
        steps=steps, states=(*states, IDLE), decimals=decimals, nothing=nothing,
    )  # fmt: skip


def graph(
    title: str,
    unit: Unit,
    targets: Sequence[Target],
    description: str,
    *,
    maximum: float | None = None,
    is_stacked: bool = False,
    is_logarithmic: bool = False,
    nothing: str = "",
) -> Panel:
    """Lines over time."""
    return Panel(
        Kind.GRAPH, title, description, unit, tuple(targets), 8, 8,
        maximum=maximum, is_stacked=is_stacked, is_logarithmic=is_logarithmic, nothing=nothing,
    )  # fmt: skip


def heatmap(title: str, unit: Unit, query: str, description: str) -> Panel:
    """How observations spread over the buckets of a histogram, over time; the query sums by ``le``."""
    return Panel(Kind.HEATMAP, title, description, unit, (Target(query, "{{le}}"),), 8, 8)


def states(title: str, target: Target, names: tuple[State, ...], description: str, *, nothing: str = "") -> Panel:
    """What each series was, over time."""
    return Panel(Kind.STATES, title, description, Unit.NONE, (target,), 8, 8, states=names, nothing=nothing)


def table(title: str, query: str, columns: tuple[tuple[str, str], ...], description: str) -> Panel:
    """The labels of what there is now."""
    target = Target(query, "", is_instant=True)
    return Panel(Kind.TABLE, title, description, Unit.NONE, (target,), 24, 6, columns=columns)
