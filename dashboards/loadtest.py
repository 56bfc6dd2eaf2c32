"""The dashboard of a load test: what the server says beside what Locust says.

Where the two disagree, one of them is wrong; where they agree, the ends of the way tell how long the way was.
"""

from __future__ import annotations

from dashboards.panels import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    YELLOW,
    Dashboard,
    Panel,
    Row,
    State,
    Target,
    Unit,
    graph,
    heatmap,
    tile,
)  # fmt: skip
from dashboards.promql import mean, ours, quantile, quantile_now, rate, rate_of_each, rates_by, series, total

_PHASES = (
    State(0, "no run", GREY),
    State(1, "connecting", BLUE),
    State(2, "publishing", GREEN),
    State(3, "closing the books", YELLOW),
    State(4, "done", GREY),
)
_LISTENERS = total("stentor_loadtest_listeners")
_CPU = ours(rate_of_each("process_cpu_seconds_total"))
_OWED = f"{rate('stentor_loadtest_publications_total')} * {_LISTENERS}"


def _first_line() -> tuple[Panel, ...]:
    return (
        tile(
            "Run",
            f"max({series('stentor_loadtest_phase')})",
            Unit.NONE,
            "What the load test does now. Figures before “publishing” are those of connecting clients.",
            states=_PHASES,
            nothing="no load test",
        ),
        tile(
            "Subscribers",
            total("stentor_loadtest_connections"),
            Unit.COUNT,
            "Healthy subscribers' connections that are open, as the load test sees them. Normal: all that were asked "
            "for.",
            steps=((0, BLUE),),
        ),
        tile(
            "Published",
            rate("stentor_loadtest_publications_total"),
            Unit.MESSAGES_PER_SECOND,
            "Publications per second, as the load test sends them. Normal: the planned rate; below it the generator or "
            "the way into the server is full.",
            steps=((0, BLUE),),
        ),
        tile(
            "Delivered",
            rate("stentor_loadtest_deliveries_total"),
            Unit.MESSAGES_PER_SECOND,
            "Deliveries per second, each checked by the load test. Normal: publications times listeners.",
            steps=((0, BLUE),),
        ),
        tile(
            "Undeclared losses",
            total("stentor_loadtest_undeclared_deliveries"),
            Unit.COUNT,
            "Deliveries that did not come though later ones did, and that the server does not count as dropped. "
            "Normal: 0. Anything else breaks the promise, unless it is a message that still comes, out of order.",
            steps=((0, GREEN), (1, RED)),
        ),
        tile(
            "Delivery p99",
            quantile(0.99, "stentor_loadtest_delivery_latency_seconds"),
            Unit.SECONDS,
            "From when a publication was due to when a subscriber had it, as the load test measures it. Normal: below "
            "the promise, 50 ms.",
            steps=((0, GREEN), (0.05, YELLOW), (0.25, RED)),
        ),
        tile(
            "Generator: CPU",
            f"max({series('stentor_loadtest_generator_cpu_ratio')})",
            Unit.SHARE,
            "CPU of the load test's own busiest process, of one core. Normal: below 70 %. Above 90 % the run proves "
            "nothing: it measures the generator.",
            steps=((0, GREEN), (0.7, YELLOW), (0.9, RED)),
            decimals=0,
        ),
        tile(
            "Server: CPU",
            f"max({_CPU})",
            Unit.SHARE,
            "CPU of the server's busiest process, of one core. At 100 % while the generator has room: this is what the "
            "server holds.",
            steps=((0, GREEN), (0.7, YELLOW), (0.9, RED)),
            decimals=0,
        ),
    )


WHAT_BOTH_SAY = Row(
    "The same thing, as both sides see it",
    (
        graph(
            "Connections",
            Unit.COUNT,
            (
                Target(total("stentor_loadtest_connections"), "load test: subscribers", GREEN),
                Target(total("stentor_connections"), "server: open", BLUE),
                Target(total("stentor_loadtest_connections_asked"), "asked for", is_limit=True),
            ),
            "Normal: the server has those of the load test, its publishers and whoever else is there. Below what was "
            "asked for after connecting: see “What went wrong with connections”.",
        ),
        graph(
            "Publications",
            Unit.MESSAGES_PER_SECOND,
            (
                Target(rate("stentor_loadtest_publications_total"), "load test: sent", GREEN),
                Target(rate("stentor_messages_received_total"), "server: received", BLUE),
                Target(total("stentor_loadtest_planned_publications_per_second"), "planned", is_limit=True),
            ),
            "Normal: three lines on one another. Sent below planned: the generator is late. Received below sent: the "
            "way in is full, or message_rate stops the publishers.",
        ),
        graph(
            "Deliveries",
            Unit.MESSAGES_PER_SECOND,
            (
                Target(rate("stentor_loadtest_deliveries_total"), "load test: got", GREEN),
                Target(rate("stentor_messages_sent_total"), "server: sent", BLUE),
                Target(_OWED, "owed", is_limit=True),
            ),
            "Normal: three lines on one another. Sent above got: what is under way, or went to others. Got below owed: "
            "queues grow (see “Queued, missing, dropped”).",
        ),
        graph(
            "Latency p50",
            Unit.SECONDS,
            (
                Target(quantile(0.5, "stentor_loadtest_delivery_latency_seconds"), "load test: due to received", GREEN),
                Target(quantile(0.5, "stentor_delivery_latency_seconds"), "server: published to echoed", BLUE),
                Target(quantile(0.5, "stentor_publish_to_write_seconds"), "server: published to written", PURPLE),
            ),
            "The whole way as the load test sees it, as the server believes it, and the server's own part. Normal: in "
            "this order, close together.",
            is_logarithmic=True,
        ),
        graph(
            "Latency p99",
            Unit.SECONDS,
            (
                Target(
                    quantile(0.99, "stentor_loadtest_delivery_latency_seconds"), "load test: due to received", GREEN
                ),
                Target(quantile(0.99, "stentor_delivery_latency_seconds"), "server: published to echoed", BLUE),
                Target(quantile(0.99, "stentor_publish_to_write_seconds"), "server: published to written", PURPLE),
            ),
            "Normal: alike. The load test's far above the server's: its own event loop is late (below), or "
            "publications waited on the way in.",
            is_logarithmic=True,
        ),
        graph(
            "Handshake p99",
            Unit.SECONDS,
            (
                Target(
                    quantile_now(0.99, "stentor_loadtest_handshake_duration_seconds"), "load test, whole run", GREEN
                ),
                Target(quantile(0.99, "stentor_handshake_duration_seconds"), "server", BLUE),
            ),
            "From connect to usable, and from accept to 101. The difference is the accept queue and the generator: "
            "lower CONNECT_RATE. The load test's is over the whole run.",
            is_logarithmic=True,
        ),
        heatmap(
            "Latency: spread, load test",
            Unit.SECONDS,
            rate("stentor_loadtest_delivery_latency_seconds_bucket", by=("le",)),
            "How many timed deliveries took how long. A band that rises is a queue that grows: the load is past what "
            "the server holds. Stripes are pauses.",
        ),
        graph(
            "Queued, missing, dropped",
            Unit.COUNT,
            (
                Target(total("stentor_queue_messages"), "server: queued", BLUE),
                Target(total("stentor_loadtest_missing_deliveries"), "load test: missing", ORANGE),
                Target(total("stentor_loadtest_undeclared_deliveries"), "load test: missing, not declared", RED),
            ),
            "What waits in the server, and the gaps that healthy subscribers see in what they got. Normal: all 0. "
            "Missing alone: the lag policy dropped, and said so.",
        ),
        graph(
            "What went wrong with connections",
            Unit.PER_SECOND,
            (
                Target(rate("stentor_loadtest_connect_failures_total"), "load test: connect failed", ORANGE),
                Target(rate("stentor_connections_rejected_total"), "server: refused", RED),
                Target(rates_by("stentor_loadtest_closes_total", "code", "1013"), "load test: closed with {{code}}"),
            ),
            "Connects that failed, healthy connections that the server closed, and what the server refused. Normal: 0. "
            "A close of a healthy client makes the run fail.",
        ),
    ),
)

WHO_IS_FULL = Row(
    "Who is at the limit",
    (
        graph(
            "CPU",
            Unit.SHARE,
            (
                Target(series("stentor_loadtest_generator_cpu_ratio"), "load test {{process}}"),
                Target(_CPU, "server {{instance}} {{worker}}"),
            ),
            "Of one core each. Whose line is at 100 % is what the run measures. It must be the server's.",
        ),
        graph(
            "Loop lag and lateness",
            Unit.SECONDS,
            (
                Target(
                    f"max({series('stentor_loadtest_generator_lag_seconds')})", "load test: loop lag, worst", ORANGE
                ),
                Target(
                    f"max({series('stentor_loadtest_publication_lateness_seconds')})",
                    "load test: publication late",
                    RED,
                ),
                Target(quantile(0.99, "stentor_event_loop_lag_seconds"), "server: loop lag p99", BLUE),
            ),
            "How late each side's event loop is, and how late a publication was sent, at worst in a second. What the "
            "generator is late is in its latencies. Normal: all far below the latencies.",
            is_logarithmic=True,
        ),
        graph(
            "Server: queue, lagging clients",
            Unit.COUNT,
            (
                Target(total("stentor_lagging_clients"), "lagging clients", ORANGE),
                Target(rate("stentor_slow_disconnects_total"), "thrown out per second", RED),
                Target(rate("stentor_messages_dropped_total"), "dropped per second", YELLOW),
            ),
            "With troublemakers (STALLED=, SLOW=) these show what they cost, and must level out. Without: 0.",
        ),
        graph(
            "Server: publications per flush",
            Unit.COUNT,
            (
                Target(mean("stentor_batch_messages"), "mean", GREEN),
                Target(quantile(0.99, "stentor_batch_messages"), "p99", ORANGE),
            ),
            "How the server keeps up: the busier it is, the more it writes together. At 1 it is not busy.",
        ),
        graph(
            "Server: memory",
            Unit.BYTES,
            (
                Target(f"sum({ours(series('process_resident_memory_bytes'))})", "resident", BLUE),
                Target(total("stentor_queue_bytes"), "of it queued", ORANGE),
            ),
            "Over all processes. Normal: a step while clients connect, then flat. Rising while publishing: queues.",
        ),
        graph(
            "Bytes out",
            Unit.BYTES_PER_SECOND,
            (Target(rate("stentor_bytes_sent_total"), "server: sent", BLUE),),
            "On the wire to clients. Over a network: compare with the card's limit before you blame either side.",
        ),
    ),
)

LOADTEST = Dashboard(
    uid="stentor-loadtest",
    title="Stentor / Load test",
    description="What the server says beside what Locust says: whose limit is it, and do both tell the same story?",
    top=_first_line(),
    rows=(WHAT_BOTH_SAY, WHO_IS_FULL),
    chooser='__name__=~"stentor_worker_up|stentor_loadtest_phase"',
)
