"""The tables of one run's report.

Laws: a figure that was not measured is a dash; a row with something wrong in it stands out. It does not know the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from loadtest import axes, page
from loadtest.page import Markup
from loadtest.report_charts import cpu_limit, lag_limit
from loadtest.result import ChannelRow, Clients, Latency, Result, ServerCounters

WRONG = ("lost", "overdue", "duplicated", "reordered", "unexpected")
_SHOWN_CHANNELS = 50


class Surroundings(TypedDict):
    """`run.json`: what the command that started the run knows, and the load generator does not."""

    command: str  # as one would type it again
    server_command: str | None  # None: the server was running already
    server_cores: list[int] | None  # None: not pinned
    generator_cores: list[int] | None
    shared_core: bool  # both run on threads of one physical core, and so slow each other down
    neighbours: float | None  # the share of the whole machine's CPU that went to others while publishing


def microseconds(value: float | None) -> str:
    """A latency kept in microseconds, in the unit that reads best."""
    return known(value, axes.microseconds)


def known(value: float | None, say: axes.Format) -> str:
    """The figure as `say` says it, or a dash where there is none."""
    return axes.NOTHING if value is None else say(value)


def shading(result: Result) -> Markup:
    """What the shaded stretch of the charts is."""
    if not result["plan"]["warmup"]:
        return Markup("")
    return page.paragraph(
        "The shaded seconds are the warm-up: checked like all others, left out of the figures.", "faint"
    )


def latencies(result: Result) -> Markup:
    """Percentiles of deliveries and handshakes."""
    head = ("milliseconds", "timed", "p50", "p90", "p99", "p99.9", "p99.99", "worst", "mean")
    rows = [_latency_row("delivery", result["latency"]), _latency_row("handshake", result["handshake"])]
    every = result["plan"]["timed_every"]
    how = f"one delivery in {every:,} was timed, and the worst is of all" if every > 1 else "every delivery was timed"
    return page.table(head, rows, f"From the intended send time to receipt; {how}.")


def _latency_row(name: str, latency: Latency) -> tuple[str, ...]:
    keys = ("p50", "p90", "p99", "p99_9", "p99_99", "max", "mean")
    values = (latency[key] for key in keys)  # type: ignore[literal-required]
    return (name, f"{latency['count']:,}", *(known(v, lambda us: axes.plain(us / 1000)) for v in values))


def generator(result: Result) -> Markup:
    """How busy each process of the generator was."""
    head = ("process", "connections", "CPU mean", "CPU worst 3 s", "CPU worst s", "lag p99", "lag worst")
    rows = [
        (
            f"{row['process']} (pid {row['pid']})",
            f"{row['connections']:,}",
            *(known(row[key], lambda v: f"{v:.0f} %") for key in ("cpu_mean", "cpu_sustained", "cpu_max")),
            *(known(row[key], axes.milliseconds) for key in ("lag_p99_ms", "lag_max_ms")),
        )
        for row in result["generator"]
    ]
    limits = f"Above {cpu_limit(result):g} % of a core, or a lag of {lag_limit(result):g} ms (p99), a run is unknown."
    return page.table(head, rows, limits)


def server(result: Result) -> Markup:
    """What the run cost the server."""
    server = result["server"]
    build = server["build"]
    facts = {
        "build": ", ".join(f"{k} {v}" for k, v in build.items()) if build else None,
        "processes": ", ".join(map(str, server["pids"])),
        "CPU while publishing": known(server["cpu_seconds"], cpu_seconds),
        "CPU per delivery": microseconds(server["cpu_us_per_delivery"]),
        "memory before, connected, highest, after": ", ".join(
            known(server[key], axes.size) for key in ("rss_before", "rss_connected", "rss_max", "rss_after")
        ),
        "sent": known(server["bytes_sent"], axes.size),
    }
    return page.words({name: value for name, value in facts.items() if value and value.strip(axes.NOTHING + ", ")})


def cpu_seconds(seconds: float) -> str:
    """CPU time in words."""
    return f"{axes.plain(seconds)} s"


def ledger(result: Result) -> Markup:
    """What was owed and what arrived, by channel."""
    ledger, sent = result["ledger"], result["publications"]
    head = ("channel", "publications", "subscribers", "owed", "delivered", "declared", *WRONG)
    channels = ledger["channels"][:_SHOWN_CHANNELS]
    rows = [_channel(row) for row in channels]
    rows.append(_total(result, sum(row["publications"] for row in ledger["channels"])))
    wrong = {i for i, row in enumerate(channels) if any(row[key] for key in WRONG)}  # type: ignore[literal-required]
    if any(ledger[key] for key in WRONG):  # type: ignore[literal-required]
        wrong.add(len(channels))
    left_out = len(ledger["channels"]) - len(channels)
    more = f" {left_out} channels with nothing wrong are not shown." if left_out else ""
    return Markup(
        page.paragraph(
            f"{sent['planned']:,} publications planned, {sent['attempted']:,} sent, {sent['acknowledged']:,} "
            f"acknowledged; {axes.many(sent['markers'], 'marker')} closed the run. "
            f"Healthy subscriptions that got nothing that they were owed: {ledger['silent_clients']:,}; "
            f"that did not see every marker: {ledger['barrier_missing']:,}."
        )
        + page.table(head, rows, f"Every delivery, by channel.{more}", wrong=wrong)
        + (page.subtitle("Connections with a wrong entry") if ledger["damaged"] else "")
        + page.listed(ledger["damaged"])
    )


def _channel(row: ChannelRow) -> tuple[str, ...]:
    keys = ("publications", "subscribers", "expected", "delivered", "declared", *WRONG)
    return (row["channel"], *(f"{row[key]:,}" for key in keys))  # type: ignore[literal-required]


def _total(result: Result, publications: int) -> tuple[str, ...]:
    ledger = result["ledger"]
    figures = (f"{ledger[key]:,}" for key in ("expected", "delivered", "declared", *WRONG))  # type: ignore[literal-required]
    return ("all", f"{publications:,}", "", *figures)


def account(result: Result) -> Markup:
    """The server's counters beside the clients' sums."""
    account = result["ledger"]["server"]
    if account["delta"] is None:
        return page.paragraph("The server's own counters were not read: there was no /metrics address.", "faint")
    columns = [_counters(account[key]) for key in ("before", "after", "delta")]
    rows = [(name, *(column.get(name, axes.NOTHING) for column in columns)) for name in columns[1]]
    says = {
        True: "They agree with the clients' sums",
        False: "They contradict the clients' sums",
        None: "Not comparable",
    }
    mode: dict[str, str] = {
        "equality": "to the message",
        "inequality": "as bounds, since some clients misbehaved",
        "none": "not compared",
    }
    sentence = f"{says[account['agrees']]} ({mode.get(account['mode'], account['mode'])})."
    return Markup(
        page.subtitle("The server's own account")
        + page.paragraph(sentence)
        + page.listed(account["differences"])
        + page.table(
            ("counter", "before", "after", "difference"), rows, "Sums over workers and nodes, read from /metrics."
        )
    )


def _counters(counters: ServerCounters | None) -> dict[str, str]:
    """One column of the account, with the dropped and closed opened up by reason and code."""
    found: dict[str, str] = {}
    for name, value in (counters or {}).items():
        if isinstance(value, dict):
            found |= {f"{name} {label}": f"{number:,}" for label, number in value.items()}
            found.setdefault(f"{name}, sum", f"{sum(value.values()):,}")
        else:
            found[name] = f"{value:,}"
    return found


def clients(result: Result) -> Markup:
    """Connections asked for, made, failed and ended."""
    rows = [_client_row("subscribers", result["clients"]), _client_row("publishers", result["publishers"])]
    failed = [
        f"{number:,} {who} could not connect: {why}."
        for who, side in (("subscribers", result["clients"]), ("publishers", result["publishers"]))
        for why, number in side["failed"].items()
    ]
    head = ("", "asked", "connected", "failed", "opened/s", "closed early", "left by plan")
    return Markup(page.table(head, rows, "Connections.") + page.listed(failed))


def _client_row(name: str, side: Clients) -> tuple[str, ...]:
    return (
        name,
        f"{side['asked']:,}",
        f"{side['connected']:,}",
        f"{sum(side['failed'].values()):,}",
        known(side["connects_per_second"], axes.count),
        f"{sum(side['closes'].values()):,}",
        f"{side['left']:,}",
    )


def closes(result: Result) -> Markup:
    """Closes before the end, by code."""
    by_server = result["ledger"]["server"]["delta"]
    columns = [result["clients"]["closes"], result["publishers"]["closes"], by_server["closed"] if by_server else {}]
    codes = sorted({code for column in columns for code in column})
    if not codes:
        return page.paragraph("No connection was closed before the end.", "faint")
    rows = [(code, *(f"{column.get(code, 0):,}" for column in columns)) for code in codes]
    head = ("close code", "subscribers", "publishers", "server's count, all clients and to the end")
    return page.table(head, rows, "Closes by code; 1006 is a connection that ended without a close frame.")


def troublemakers(result: Result) -> Markup:
    """What the clients that misbehave by order did, and what became of them."""
    trouble = result["troublemakers"]
    rows = [
        (kind, *(f"{trouble[f'{kind}_{what}']:,}" for what in ("asked", "observed", "evicted")))  # type: ignore[literal-required]
        for kind in ("stalled", "slow")
        if trouble[f"{kind}_asked"]  # type: ignore[literal-required]
    ]
    if trouble["flapping_asked"] or trouble["flapping_done"]:
        rows.append(("flapping (reconnects)", f"{trouble['flapping_asked']:,}", f"{trouble['flapping_done']:,}", ""))
    return page.table(
        ("troublemakers", "asked", "seen misbehaving", "closed by the server"),
        rows,
        "Clients that misbehave by order; they take no part in the ledger.",
    )


def environment(result: Result, around: Surroundings | None) -> Markup:
    """The load, the machine and the software, in words."""
    env, plan = result["environment"], result["plan"]
    load = (
        f"{plan['users']:,} subscribers, {axes.plain(plan['rate'])} publications/s, {axes.size(plan['size'])}, "
        f"{axes.many(plan['channels'], 'channel')}, each client on {plan['per_client']}, "
        f"{axes.many(plan['publishers'], 'publisher')}, "
        f"shape {plan['shape'] or 'none'}"
    )
    duration = axes.seconds(plan["duration"]) if plan["duration"] else "until stopped"
    cores = {} if around is None else {"cores": pinned(around)}
    if around and around["neighbours"] is not None:
        cores["neighbours"] = f"{axes.percent(around['neighbours'])} of the machine's CPU went to other processes"
    facts = {
        "load": load,
        "time": f"{duration} of publishing, the first {axes.seconds(plan['warmup'])} not in the latency figures",
        "server": f"{plan['url']} ({plan['dialect']} dialect)",
        **cores,
        "machine": f"{env['hostname']}: {env['cpu_model']}, {env['cpus_total']} CPUs, {axes.size(env['memory_bytes'])}",
        "processes": f"{plan['processes']} generating",
        "kernel": env["kernel"],
        "software": ", ".join(f"{n} {env[n.lower()]}" for n in ("Python", "Locust", "gevent", "websockets")),  # type: ignore[literal-required]
        "file limit": f"{env['file_limits']['soft']:,} (hard {env['file_limits']['hard']:,})",
        "started, ended": f"{result['started']}, {result['ended']}",
    }
    return page.words(facts)


def pinned(around: Surroundings) -> str:
    """Which cores server and generator ran on, in words."""
    names = {"server": around["server_cores"], "generator": around["generator_cores"]}
    told = [f"{who} on {_cores(cores)}" for who, cores in names.items() if cores]
    if not told:
        return "not pinned: server and generator may share a core"
    return ", ".join(told) + (", which are threads of one physical core" if around["shared_core"] else "")


def _cores(cores: list[int]) -> str:
    return f"core{'s' if len(cores) > 1 else ''} {', '.join(map(str, cores))}"


def commands(result: Result, around: Surroundings | None) -> tuple[Markup, ...]:
    """How to run it again, and every option as the generator got it."""
    shown = [page.command(around["command"])] if around else []
    if around and around["server_command"]:
        shown += [page.paragraph("which started the server as", "faint"), page.command(around["server_command"])]
    shown += [page.paragraph("and the load as" if around else "The load:", "faint")]
    return (*shown, page.command(" ".join(result["command"])), page.words(_options(result["options"])))


def _options(options: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in sorted(options.items()) if value not in (None, "")}
