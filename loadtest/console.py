"""What a person sees of a run on the terminal: how it goes, second by second, and how it went.

Laws: a line per second in words where nobody watches (a log, a pipe), a live display where somebody does; the same
figures in both. It reads nothing and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadtest import axes, report
from loadtest.result import NodeRow, Progress, Result, TimelineRow

_COLOURS = {"pass": "bold green", "fail": "bold red", "unknown": "bold yellow"}
_PHASES = {
    "connecting": "connecting",
    "publishing": "publishing",
    "barrier": "waiting for the last messages",
    "done": "done",
}


class Show(Protocol):
    """Takes each step of a run's progress as it comes."""

    def __call__(self, progress: Progress) -> None: ...


@contextmanager
def shown(console: Console, seconds: float | None) -> Iterator[Show]:
    """Show the progress of a run that publishes for so many seconds (None: until it is stopped)."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    # Redrawn when there is something new, not by a thread of its own: nothing of ours runs between the seconds.
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield lambda progress: live.update(_display(progress, seconds), refresh=True)


@contextmanager
def briefly(console: Console, title: str, seconds: float | None) -> Iterator[Show]:
    """Like `shown`, for one run of many: only a person who watches sees it go by."""
    if not console.is_terminal:
        yield lambda progress: None
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(progress: Progress) -> None:
            rows = Table.grid()
            rows.add_row(Text(title))
            rows.add_row(_display(progress, seconds))
            live.update(rows, refresh=True)

        yield show


class _Lines:
    """Prints a line per step; a second that was told before is not told again."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told = -1

    def __call__(self, progress: Progress) -> None:
        row = progress["row"]
        if row and row["t"] <= self._told:
            progress = {**progress, "row": None}
        elif row:
            self._told = row["t"]
        self._console.print(Text(line(progress)), soft_wrap=True)


def line(progress: Progress) -> str:
    """One second of a run in one line."""
    parts = [f"{progress['elapsed']:5.0f} s  {_PHASES[progress['phase']]}"]
    parts.append(f"{progress['connected']:,}/{progress['asked']:,} clients")
    row = progress["row"]
    if row:
        parts += [f"{name} {value}" for name, value in _figures(row).items()]
    return "  ".join(parts)


def summary(console: Console, result: Result) -> None:
    """The table at the end, and the verdict."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(justify="right")
    for name, value in _rows(result).items():
        table.add_row(name, value)
    console.print()
    console.print(table)
    console.print()
    verdict = result["verdict"]
    console.print(
        Text.assemble((verdict["verdict"].upper(), _COLOURS[verdict["verdict"]]), "  ", report.headline(result)),
        soft_wrap=True,
    )
    more = verdict["reasons"][1:] if verdict["verdict"] != "pass" else []
    for sentence in (*more, *verdict["notes"]):
        console.print(Text(f"  {sentence}"), soft_wrap=True)


def _display(progress: Progress, seconds: float | None) -> Table:
    table = Table.grid(padding=(0, 2))
    row = progress["row"]
    if progress["phase"] == "connecting":
        bar = ProgressBar(total=max(1, progress["asked"]), completed=progress["connected"], width=30)
    else:
        published = row["t"] + 1 if row else 0
        bar = ProgressBar(total=seconds, completed=min(published, seconds or 0), width=30, pulse=seconds is None)
    table.add_row(_PHASES[progress["phase"]], bar, f"{progress['connected']:,} of {progress['asked']:,} clients")
    outer = Table.grid()
    outer.add_row(table)
    if row:
        figures = Table.grid(padding=(0, 3))
        shown = _figures(row)
        figures.add_row(*(Text(name, style="dim") for name in shown))
        figures.add_row(*(Text(value, style="bold") for value in shown.values()))
        outer.add_row(figures)
    return outer


def _figures(row: TimelineRow) -> dict[str, str]:
    """The figures of one second that tell how it goes."""
    found = {
        "published/s": axes.count(row["published"]),
        "delivered/s": axes.count(row["delivered"]),
        "p50": _latency(row["p50_us"]),
        "p99": _latency(row["p99_us"]),
        "worst": _latency(row["max_us"]),
    }
    if row["server_cpu"] is not None:
        found["server"] = f"{row['server_cpu']:.0f} %"
    if row["generator_cpu"]:
        found["generator"] = f"{max(row['generator_cpu'].values()):.0f} %"
    if row["lagging_clients"]:
        found["lagging"] = f"{row['lagging_clients']:,}"
    if row["dropped"]:
        found["dropped"] = f"{row['dropped']:,}"
    return found


def _rows(result: Result) -> dict[str, str]:
    ledger, clients, trouble = result["ledger"], result["clients"], result["troublemakers"]
    found = {
        "clients": f"{clients['connected']:,} of {clients['asked']:,} connected",
        "published": f"{result['publications']['attempted']:,} of {result['publications']['planned']:,}",
        "owed": f"{ledger['expected']:,}",
        "delivered": f"{ledger['delivered']:,}",
        "declared dropped": f"{ledger['declared']:,}",
        "lost, overdue, doubled, reordered, foreign": ", ".join(
            f"{ledger[key]:,}" for key in ("lost", "overdue", "duplicated", "reordered", "unexpected")
        ),
    }
    for kind in ("stalled", "slow"):
        if trouble[f"{kind}_asked"]:  # type: ignore[literal-required]
            evicted, seen = trouble[f"{kind}_evicted"], trouble[f"{kind}_observed"]  # type: ignore[literal-required]
            found[f"{kind} clients"] = f"{seen:,} seen, {evicted:,} closed by the server"
    if trouble["flapping_asked"]:
        found["reconnects"] = f"{trouble['flapping_done']:,} of {trouble['flapping_asked']:,}"
    if len(result["nodes"]) > 1:
        for node in result["nodes"]:
            found[f"node {node['name']}: delivered"] = _node(node)
    seconds, broker = result["publications"]["seconds"], result["broker"]
    if broker and broker["cpu_seconds"] is not None and seconds:
        found["Redis CPU"] = f"{100 * broker['cpu_seconds'] / seconds:.1f} % of a core"
    cpu = [row["cpu_sustained"] for row in result["generator"] if row["cpu_sustained"] is not None]
    found |= {name: value for name, value in report.tiles(result).items() if name != "lost"}
    if cpu:
        found["generator CPU, worst 3 s"] = f"{max(cpu):.0f} % of a core"
    return found


def _node(node: NodeRow) -> str:
    told = f"{node['delivered']:,} of {node['expected']:,}"
    cost = node["facts"]["cpu_us_per_delivery"]
    return told if cost is None else f"{told}, {axes.microseconds(cost)} each"


def _latency(value: float | None) -> str:
    return axes.NOTHING if value is None else axes.microseconds(value)
