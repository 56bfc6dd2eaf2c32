"""The dashboard of a running Stentor, for one on duty who has ten seconds.

Its first line says how it goes, its second line whose fault it is if it does not: the server's, a client's, the
broker's or the load's. Each tile's description says which row to look at next.
"""

from __future__ import annotations

from dashboards import overview_clients, overview_delivery, overview_inside
from dashboards.layout import FIRING
from dashboards.panels import BLUE, GREEN, ORANGE, PURPLE, RED, YELLOW, Dashboard, Panel, State, Unit, tile
from dashboards.promql import IS_STENTOR, ours, quantile, quantile_now, rate, rate_of_each, series, total

#: What a broker that is part of the process says nothing about: 2.
IN_PROCESS = f"count({series(IS_STENTOR)}) * 0 + 2"

BROKER_STATES = (
    State(0, "DEAF", RED),
    State(1, "in contact", GREEN),
    State(2, "in process", BLUE),
)
BROWNOUT_STATES = (
    State(0, "normal", GREEN),
    State(1, "refusing newcomers", YELLOW),
    State(2, "longer batches", ORANGE),
    State(3, "conflating", RED),
    State(4, "evicting", PURPLE),
)
_ANY = 0.000001  # more than none, per second


def _how_it_goes() -> tuple[Panel, ...]:
    return (
        tile(
            "Connections",
            total("stentor_connections"),
            Unit.COUNT,
            "Clients connected now. Normal: it follows the time of day. A cliff is a restart, a broken proxy or a "
            "network; look at “Ended by close code” in the row Connections.",
            steps=((0, BLUE),),
        ),
        tile(
            "Publications",
            rate("stentor_messages_published_total"),
            Unit.MESSAGES_PER_SECOND,
            "What is said, per second, over all workers and channels. Normal: as the applications say. Zero while "
            "clients are connected: the publishers are silent or refused, not the server; see “Refused by reason”.",
            steps=((0, BLUE),),
        ),
        tile(
            "Deliveries",
            rate("stentor_messages_sent_total"),
            Unit.MESSAGES_PER_SECOND,
            "What is handed to clients, per second: publications times listeners. If it falls while publications go "
            "on, clients have left (Connections) or are being dropped (Backpressure).",
            steps=((0, BLUE),),
        ),
        tile(
            "Drops",
            rate("stentor_messages_dropped_total", 'reason!="conflated"'),
            Unit.MESSAGES_PER_SECOND,
            "Deliveries given up because a client was too slow or the queue budget was used up; those superseded by a "
            "newer one (conflated) are not counted, for that is what was asked for. Normal: 0. Otherwise see the row "
            "Backpressure: the reason tells whether one client (queue_full) or all of them (budget) are the cause.",
            steps=((0, GREEN), (_ANY, YELLOW), (100, RED)),
        ),
        tile(
            "Delivery p99",
            quantile(0.99, "stentor_delivery_latency_seconds"),
            Unit.SECONDS,
            "From publication to the client's own answer, measured by sampled echoes: 99 of 100 are faster. It "
            "contains the network and the client. Normal: a few ms above the network's round trip. Otherwise compare "
            "in the row Latency: “Publish to last write” is ours, “Ping round trip” is theirs.",
            steps=((0, GREEN), (0.25, YELLOW), (1, RED)),
        ),
        tile(
            "Lagging clients",
            total("stentor_lagging_clients"),
            Unit.COUNT,
            "Clients that do not take what they are sent, now. Normal: a handful. All at once: the network or this "
            "machine; a few for long: those clients. `/debug/slow` on the internal port names them.",
            steps=((0, GREEN), (1, YELLOW), (100, RED)),
        ),
        tile(
            "Broker",
            f"min({series('stentor_broker_up')}) or {IN_PROCESS}",
            Unit.NONE,
            "Whether every worker hears the broker. DEAF: a worker gets nothing that is published elsewhere, and is "
            "not ready; look at the row Broker and at the broker itself. “in process”: one process, which needs none.",
            states=BROKER_STATES,
        ),
        tile(
            "Alerts",
            f"count({FIRING}) or vector(0)",
            Unit.COUNT,
            "Alerts of Stentor's rules that fire now; docs/runbook.md has a section for each. Their times are marked "
            "in red in all graphs below. Normal: 0. It is also 0 where the rules are not loaded.",
            steps=((0, GREEN), (1, RED)),
        ),
    )


def _whose_fault_it_is() -> tuple[Panel, ...]:
    return (
        tile(
            "Server: loop lag p99",
            quantile(0.99, "stentor_event_loop_lag_seconds"),
            Unit.SECONDS,
            "How late the event loop's timer is. Normal: below 10 ms. Above 50 ms the server itself is the cause: too "
            "much to do, a long pause of the garbage collector, or a machine that gives it no CPU. Rows Latency and "
            "Workers.",
            steps=((0, GREEN), (0.05, YELLOW), (0.25, RED)),
        ),
        tile(
            "Server: busiest CPU",
            f"max({ours(rate_of_each('process_cpu_seconds_total'))})",
            Unit.SHARE,
            "The CPU of the busiest process; each has one core to use. Normal: below 70 %. Near 100 % it is at its "
            "limit: more workers, or less load. Low while the loop lags: somebody else has the CPU.",
            steps=((0, GREEN), (0.7, YELLOW), (0.9, RED)),
            decimals=0,
        ),
        tile(
            "Server: brown-out",
            f"max({series('stentor_brownout_level')})",
            Unit.NONE,
            "What the worst worker does to stay alive: refuse newcomers, batch for longer, conflate, evict. Normal: "
            "normal. Each step is a log line with its cause: loop lag or queue budget.",
            states=BROWNOUT_STATES,
        ),
        tile(
            "Client: longest wait",
            quantile_now(1, "stentor_client_queue_age_seconds"),
            Unit.SECONDS,
            "The age of the oldest message that waits for any client (its bucket's upper bound). Normal: 0. High with "
            "few lagging clients: those clients. High with many: the network between, or this machine.",
            steps=((0, GREEN), (1, YELLOW), (5, RED)),
        ),
        tile(
            "Client: thrown out",
            rate("stentor_slow_disconnects_total"),
            Unit.PER_SECOND,
            "Clients closed for being too slow (1013, 3008), per second. Normal: 0, or now and then one. Steady: the "
            "same clients come back and fail again; `/debug/disconnects` on the internal port tells who, and how far "
            "behind.",
            steps=((0, GREEN), (_ANY, YELLOW), (1, RED)),
            decimals=2,
        ),
        tile(
            "Broker: answer p99",
            quantile(0.99, "stentor_broker_lag_seconds"),
            Unit.SECONDS,
            "How long the broker takes to answer a probe. Normal: a few ms. Slow while loop lag is low: the broker or "
            "the way to it. Nothing: one process, which needs none.",
            steps=((0, GREEN), (0.1, YELLOW), (0.5, RED)),
            nothing="in process",
        ),
        tile(
            "Load: newcomers",
            rate("stentor_connections_opened_total"),
            Unit.PER_SECOND,
            "Handshakes finished per second. Normal: a small share of all connections. A spike is a storm of clients "
            "that come back; the row Connections shows what closed them. A storm that is the load's fault has no "
            "closes before it.",
            steps=((0, BLUE), (100, YELLOW), (1000, RED)),
            decimals=1,
        ),
        tile(
            "Load: refused",
            rate("stentor_connections_rejected_total", 'reason!="draining"'),
            Unit.PER_SECOND,
            "Requests turned away before the upgrade, per second, other than by a restart. Normal: 0. “Refused by "
            "reason” tells whether they are too many (full, connect_rate), wrong (credentials, origin) or no clients "
            "at all (not_found).",
            steps=((0, GREEN), (_ANY, YELLOW), (10, RED)),
            decimals=1,
        ),
    )


OVERVIEW = Dashboard(
    uid="stentor-overview",
    title="Stentor / Overview",
    description="Is it the server, a client, the broker or the load? First line: how it goes. Second line: whose fault "
    "it is.",
    top=(*_how_it_goes(), *_whose_fault_it_is()),
    rows=(
        overview_clients.CONNECTIONS,
        overview_delivery.FAN_OUT,
        overview_clients.backpressure(BROWNOUT_STATES),
        overview_delivery.LATENCY,
        overview_inside.broker(BROKER_STATES),
        overview_inside.WORKERS,
        overview_inside.PYTHON,
    ),
    chooser='__name__="stentor_worker_up"',
)
