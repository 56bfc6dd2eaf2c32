"""The verdict of a run: did the server keep its promises, and does the run show it?

Laws: a pure function of the result. *unknown* outranks *pass*: a run that proves nothing never looks green. *fail*
outranks *unknown*: a promise that was seen broken stays broken, however bad the measurement was around it.
The exceptions: when the server or a publisher's connection went away, nobody can say what was owed afterwards; and
late or ended connections are not held against the server when the generator was too busy to read.

What can be demanded of the server's own counters depends on who else used it. With healthy clients only, who were
all there from the first publication to the last, and nobody else connected, *equality*: offered, sent and received
are exactly the clients' sums. Otherwise *inequality*: it offered and sent at least what our clients got. In both
modes its account must balance: offered = sent + dropped + queued. All of it is demanded of each node by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from loadtest.ledger import Sums
from loadtest.probe import balanced, difference, total
from loadtest.result import Clients, Ledger, Result, ServerAccount, ServerCounters, Verdict

MIN_ATTEMPTED = 0.99
MIN_FLAPS = 0.5


@dataclass(frozen=True, slots=True)
class Limits:
    """Beyond these the generator measures itself."""

    cpu: float = 90.0
    lag_ms: float = 100.0


@dataclass(slots=True)
class Findings:
    """What speaks for each outcome."""

    broken: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def judge(result: Result, limits: Limits, stopped: str | None = None, gone: bool = False) -> Verdict:
    """Judge a result, whose own ``verdict`` is not looked at.

    Args:
        stopped: why the run ended before it had done what was planned, if it did; it then proves nothing.
        gone: the server went away, so that every connection ended: no promise is judged by that.
    """
    findings = Findings()
    if stopped:
        findings.unclear.append(stopped)
        if not result["publications"]["attempted"]:
            return {"verdict": "unknown", "reasons": findings.unclear, "notes": []}  # the rest follows from that
    _judge_load(result, findings)
    _judge_ledger(result["ledger"], findings)
    _judge_server(result["ledger"]["server"], findings)
    overloaded = _judge_generator(result, limits, findings)
    _judge_delay(result, findings.unclear if overloaded or gone else findings.broken, gone)
    if result["publishers"]["closes"] and not gone:
        findings.unclear.append(
            f"The server closed {_closes(result['publishers']['closes'], 'publisher')}: "
            "what it had received of them is not known."
        )
    if findings.broken:
        return {"verdict": "fail", "reasons": findings.broken + findings.unclear, "notes": findings.notes}
    if findings.unclear:
        return {"verdict": "unknown", "reasons": findings.unclear, "notes": findings.notes}
    return {"verdict": "pass", "reasons": [_summary(result)], "notes": findings.notes}


def account_of_server(
    before: ServerCounters | None,
    after: ServerCounters | None,
    delta: ServerCounters | None,
    sums: Sums,
    received: int,
    undisturbed: bool,
    ours: int,
    counter: Literal["received", "published"] = "received",
) -> ServerAccount:
    """Compare a node's counters with its clients' sums.

    Args:
        received: publications that the server had from the publishers, markers included.
        undisturbed: only healthy clients took part, and all of them from the first publication to the last.
        ours: connections that the run opened.
        counter: the server's counter that must be ``received``.
    """
    if before is None or after is None or delta is None:
        return {
            "before": before, "after": after, "delta": delta,
            "balanced": None, "mode": "none", "agrees": None, "differences": [],
        }  # fmt: skip
    alone = delta["opened"] <= ours
    differences: list[str] = []
    dropped = sum(delta["dropped"].values())
    if undisturbed and alone:
        for name, server, clients in (
            (counter, delta[counter], received),
            ("offered", delta["offered"], sums.expected),
            ("sent", delta["sent"], sums.delivered + sums.duplicated),
            ("dropped", dropped, sums.declared),
        ):
            if server != clients:
                differences.append(f"The server counts {server:,} {name}, the clients {clients:,}.")
    else:
        for name, server, clients in (
            (counter, delta[counter], received),
            ("offered", delta["offered"], sums.delivered),
            ("sent", delta["sent"], sums.delivered),
        ):
            if server < clients:
                differences.append(f"The server counts {server:,} {name}, the clients saw {clients:,}.")
    return {
        "before": before, "after": after, "delta": delta,
        "balanced": balanced(after) and (balanced(delta) or bool(before["queued"])),
        "mode": "equality" if undisturbed and alone else "inequality",
        "agrees": not differences,
        "differences": differences,
    }  # fmt: skip


def account_of_whole(nodes: Sequence[ServerAccount]) -> ServerAccount:
    """The account of all nodes together: it agrees and balances only if each of them does."""
    if len(nodes) == 1:
        return nodes[0]
    befores = [node["before"] for node in nodes if node["before"] is not None]
    afters = [node["after"] for node in nodes if node["after"] is not None]
    if len(befores) < len(nodes) or len(afters) < len(nodes):
        before, after = (total(each) if len(each) == len(nodes) else None for each in (befores, afters))
        return {
            "before": before, "after": after, "delta": None,
            "balanced": None, "mode": "none", "agrees": None, "differences": [],
        }  # fmt: skip
    before, after = total(befores), total(afters)
    return {
        "before": before, "after": after, "delta": difference(before, after),
        "balanced": all(node["balanced"] for node in nodes),
        "mode": "equality" if all(node["mode"] == "equality" for node in nodes) else "inequality",
        "agrees": all(node["agrees"] for node in nodes),
        "differences": [
            f"Node {number}: {sentence}" for number, node in enumerate(nodes, 1) for sentence in node["differences"]
        ],
    }  # fmt: skip


def _judge_load(result: Result, findings: Findings) -> None:
    plan, clients, publications = result["plan"], result["clients"], result["publications"]
    if clients["connected"] < clients["asked"]:
        findings.unclear.append(
            f"{clients['connected']:,} of {clients['asked']:,} subscribers connected{_why(clients)}."
        )
    if result["publishers"]["connected"] < result["publishers"]["asked"]:
        findings.unclear.append(
            f"{result['publishers']['connected']:,} of {result['publishers']['asked']:,} publishers' "
            f"connections were opened{_why(result['publishers'])}."
        )
    planned, attempted = publications["planned"], publications["attempted"]
    if attempted < MIN_ATTEMPTED * planned or not attempted:
        findings.unclear.append(f"{attempted:,} of {planned:,} planned publications were attempted.")
    if publications["refused"]:
        refused = ", ".join(f"{error}: {count:,}" for error, count in sorted(publications["refused"].items()))
        findings.notes.append(f"The server refused publications ({refused}): nobody was owed them.")
    trouble = result["troublemakers"]
    for name, asked, seen in (
        ("stalled", trouble["stalled_asked"], trouble["stalled_observed"]),
        ("slow", trouble["slow_asked"], trouble["slow_observed"]),
    ):
        if seen < asked:
            findings.unclear.append(f"{asked:,} {name} clients were asked for, {seen:,} were seen to be {name}.")
    if plan["flapping"] and trouble["flapping_done"] < MIN_FLAPS * trouble["flapping_asked"]:
        findings.unclear.append(
            f"{trouble['flapping_asked']:,} reconnects were asked for, {trouble['flapping_done']:,} happened."
        )


def _judge_ledger(ledger: Ledger, findings: Findings) -> None:
    for name, count in (
        ("lost without a word", ledger["lost"]),
        ("delivered twice", ledger["duplicated"]),
        ("delivered out of order", ledger["reordered"]),
        ("unexpected: foreign, on the wrong channel, or never sent", ledger["unexpected"]),
    ):
        if count:
            findings.broken.append(f"{count:,} {'message was' if count == 1 else 'messages were'} {name}.")
    if ledger["expected"] != ledger["delivered"] + ledger["declared"] + ledger["lost"] + ledger["overdue"]:
        findings.broken.append(
            f"The ledger does not add up: {ledger['expected']:,} expected, {ledger['delivered']:,} delivered, "
            f"{ledger['declared']:,} declared, {ledger['lost']:,} lost, {ledger['overdue']:,} overdue."
        )
    if ledger["silent_clients"]:
        findings.unclear.append(f"{ledger['silent_clients']:,} healthy subscriptions got nothing at all.")
    if ledger["barrier_missing"] and not ledger["overdue"]:
        findings.unclear.append(
            f"{ledger['barrier_missing']:,} healthy subscriptions did not see the final markers in time."
        )
    if not ledger["expected"]:
        findings.unclear.append("Nobody was owed anything.")
    if ledger["declared"]:
        findings.notes.append(
            f"{ledger['declared']:,} of {ledger['expected']:,} deliveries did not happen, and the server said so."
        )


def _judge_delay(result: Result, where: list[str], gone: bool) -> None:
    """What a reader that is too slow would bring upon itself."""
    ledger, closes = result["ledger"], result["clients"]["closes"]
    if ledger["overdue"]:
        where.append(
            f"{ledger['overdue']:,} of {ledger['expected']:,} deliveries had not arrived when the barrier gave up: "
            f"{ledger['barrier_missing']:,} subscriptions did not see the final markers in time."
        )
    if closes and not gone:
        where.append(f"The server closed {_closes(closes, 'healthy client')}.")


def _judge_server(account: ServerAccount, findings: Findings) -> None:
    if account["mode"] == "none":
        findings.notes.append("The server's counters were not read: the proof is the clients' alone.")
        return
    if account["balanced"] is False:
        findings.broken.append("The server's account does not balance: offered is not sent + dropped + queued.")
    findings.broken.extend(account["differences"])


def _judge_generator(result: Result, limits: Limits, findings: Findings) -> bool:
    """Whether the generator was the limit."""
    before = len(findings.unclear)
    for process in result["generator"]:
        name = f"Generator process {process['process']}"
        if process["cpu_sustained"] is not None and process["cpu_sustained"] > limits.cpu:
            findings.unclear.append(
                f"{name} used {process['cpu_sustained']:.0f} % of its core (the limit is {limits.cpu:g} %): "
                "it measures itself. Use more processes or machines."
            )
        if process["lag_p99_ms"] is not None and process["lag_p99_ms"] > limits.lag_ms:
            findings.unclear.append(
                f"{name} lagged by {process['lag_p99_ms']:.0f} ms (p99; the limit is {limits.lag_ms:g} ms): "
                "its latencies are its own."
            )
    return len(findings.unclear) > before


def _summary(result: Result) -> str:
    ledger = result["ledger"]
    return (
        f"{ledger['delivered']:,} of {ledger['expected']:,} deliveries, "
        f"{ledger['declared']:,} declared as dropped, none lost, doubled, reordered or foreign."
    )


def _why(clients: Clients) -> str:
    return "".join(f", {reason}: {count:,}" for reason, count in sorted(clients["failed"].items()))


def _closes(closes: dict[str, int], who: str) -> str:
    count = sum(closes.values())
    codes = ", ".join(f"{code}: {number:,}" for code, number in sorted(closes.items()))
    return f"{count:,} {who}{'' if count == 1 else 's'} ({codes})"
