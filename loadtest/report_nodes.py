"""The tables of a run against several nodes: what each owed and delivered, counted, and used.

Laws: those of `report_tables`; where there is one node there is nothing to tell.
"""

from __future__ import annotations

from loadtest import axes, page
from loadtest.page import Markup
from loadtest.report_tables import WRONG, cpu_seconds, known, microseconds
from loadtest.result import NodeRow, Result


def nodes(result: Result) -> Markup:
    """Each node's part: what its clients were owed and got, its own account, and what it cost."""
    rows = result["nodes"]
    if len(rows) < 2:
        return Markup("")
    head = ("node", "connections", "published there", "owed", "delivered", "declared", *WRONG)
    keys = ("connections", "published", "expected", "delivered", "declared", *WRONG)
    books = [(row["name"], *(f"{row[key]:,}" for key in keys)) for row in rows]  # type: ignore[literal-required]
    wrong = {i for i, row in enumerate(rows) if any(row[key] for key in WRONG) or row["server"]["agrees"] is False}  # type: ignore[literal-required]
    return Markup(
        page.table(
            head, books, "What the clients of each node were owed: all that was published, at any node.", wrong=wrong
        )
        + page.table(
            ("node", "offered", "sent", "dropped", "queued", "received", "agrees", "CPU", "CPU per delivery"),
            [_node_account(row) for row in rows],
            "Each node's own account, whose law is its own: offered = sent + dropped + queued.",
        )
        + page.table(("process", "CPU while publishing", "share of a core"), _processes(result), "What each used.")
    )


def _node_account(row: NodeRow) -> tuple[str, ...]:
    delta, facts = row["server"]["delta"], row["facts"]
    cost = (known(facts["cpu_seconds"], cpu_seconds), microseconds(facts["cpu_us_per_delivery"]))
    if delta is None:
        return (row["name"], *(axes.NOTHING,) * 6, *cost)
    counted = (delta["offered"], delta["sent"], sum(delta["dropped"].values()), delta["queued"], delta["received"])
    return (row["name"], *(f"{count:,}" for count in counted), "yes" if row["server"]["agrees"] else "no", *cost)


def _processes(result: Result) -> list[tuple[str, ...]]:
    """Who used how much CPU: every process of every node, and the broker."""
    used: list[tuple[str, float | None]] = []
    for row in result["nodes"]:
        for number, process in enumerate(row["facts"]["processes"]):
            if number and not process["cpu_seconds"]:
                continue  # one that stands by
            role = "supervisor" if number == 0 and len(row["facts"]["processes"]) > 1 else "worker"
            used.append((f"node {row['name']}, {role} (pid {process['pid']})", process["cpu_seconds"]))
    if result["broker"]:
        used.append((f"Redis (pid {result['broker']['pid']})", result["broker"]["cpu_seconds"]))
    seconds = result["publications"]["seconds"]
    return [
        (name, known(cpu, cpu_seconds), known(cpu / seconds if cpu is not None and seconds else None, axes.percent))
        for name, cpu in used
    ]
