"""The rows about delivery: how much goes out, and how fast."""

from __future__ import annotations

from dashboards.panels import BLUE, GREEN, ORANGE, PURPLE, RED, Row, Target, Unit, graph, heatmap
from dashboards.promql import mean, quantile, rate


def _quantiles(histogram: str) -> tuple[Target, ...]:
    return (
        Target(quantile(0.5, histogram), "p50", GREEN),
        Target(quantile(0.99, histogram), "p99", ORANGE),
        Target(quantile(0.999, histogram), "p99.9", RED),
    )


FAN_OUT = Row(
    "Fan-out: how much is said and heard",
    (
        graph(
            "Said",
            Unit.MESSAGES_PER_SECOND,
            (
                Target(rate("stentor_messages_published_total"), "published", GREEN),
                Target(rate("stentor_messages_received_total"), "received from clients", BLUE),
            ),
            "Publications into the hub, over all workers, and messages from clients. With several workers or machines "
            "each publication counts once in each that hears it from the broker. Published above received: the server "
            "API.",
        ),
        graph(
            "Offered and delivered",
            Unit.MESSAGES_PER_SECOND,
            (
                Target(rate("stentor_messages_offered_total"), "offered", BLUE),
                Target(rate("stentor_messages_sent_total"), "delivered", GREEN),
            ),
            "Publications times listeners, and what was handed to the transport. Normal: the same line. A gap is "
            "queued or dropped: offered = delivered + dropped + queued, at every quiet moment.",
        ),
        graph(
            "Bytes",
            Unit.BYTES_PER_SECOND,
            (
                Target(rate("stentor_bytes_sent_total"), "out", GREEN),
                Target(rate("stentor_bytes_received_total"), "in", BLUE),
            ),
            "On the wire to clients, and payload from them. Normal: as deliveries. Near the network card's limit "
            "clients begin to lag all at once, with nothing wrong on this machine.",
        ),
        graph(
            "Listeners per publication",
            Unit.COUNT,
            (
                Target(
                    f"{rate('stentor_messages_offered_total')} / {rate('stentor_messages_published_total')}",
                    "listeners",
                    PURPLE,
                ),
            ),
            "How many deliveries a publication becomes in the worker that hears it. The cost of a publication is this "
            "number: when it doubles, so does the load, though nobody says more.",
        ),
        graph(
            "A flush",
            Unit.SECONDS,
            _quantiles("stentor_fanout_duration_seconds"),
            "How long one flush of one channel takes. Normal: about 6 to 10 µs per listener. Long ones keep the event "
            "loop busy; fanout_slice lets others in between.",
        ),
        graph(
            "Publications per flush",
            Unit.COUNT,
            (
                Target(mean("stentor_batch_messages"), "mean", GREEN),
                Target(quantile(0.99, "stentor_batch_messages"), "p99", ORANGE),
            ),
            "How many publications are written together. Normal: 1 under light load. Growing: the server is busy and "
            "batches to keep up, which is how it is meant to be; latency grows with it.",
        ),
    ),
)

LATENCY = Row(
    "Latency: how fast it is heard, and what delays it",
    (
        graph(
            "Delivery: publication to client",
            Unit.SECONDS,
            _quantiles("stentor_delivery_latency_seconds"),
            "The whole way, by sampled echoes: the answer to a ping proves that all before it has arrived. Normal: the "
            "network's round trip and a little. latency_sample is the share of clients that are asked.",
        ),
        heatmap(
            "Delivery: spread",
            Unit.SECONDS,
            rate("stentor_delivery_latency_seconds_bucket", by=("le",)),
            "How many echoes took how long. One band: one crowd. A second band above: a group of clients with a slow "
            "way, such as another continent. Fog upwards: the server is late with all of them.",
        ),
        graph(
            "Publish to last write",
            Unit.SECONDS,
            _quantiles("stentor_publish_to_write_seconds"),
            "The server's own part: from a publication to the last listener written. Normal: flush time and "
            "batch_delay. If delivery is slow and this is not, the network or the clients are.",
        ),
        graph(
            "Ping round trip",
            Unit.SECONDS,
            _quantiles("stentor_ping_rtt_seconds"),
            "From ping to pong: the clients' part, plus our lag. Normal: the network's round trip. Rising while loop "
            "lag is not: their network, or a page that sleeps in the background.",
        ),
        graph(
            "Event loop lag",
            Unit.SECONDS,
            _quantiles("stentor_event_loop_lag_seconds"),
            "How late the loop's own timer was. Normal: below 10 ms. Above: everything is that late. With high CPU it "
            "is load; without, the machine gives no CPU, or something blocks.",
        ),
        heatmap(
            "Garbage collector pauses",
            Unit.SECONDS,
            rate("stentor_gc_pause_seconds_bucket", by=("le",)),
            "While Python collects garbage nothing else runs. Normal: few pauses, below 10 ms. A band that climbs: "
            "more and more objects are kept; “Time spent collecting” in the row Python runtime tells what it costs.",
        ),
    ),
)
