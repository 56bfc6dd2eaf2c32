"""The rows about clients: who comes and goes, and who does not keep up."""

from __future__ import annotations

from dashboards.panels import BLUE, GREEN, ORANGE, RED, YELLOW, Row, State, Target, Unit, graph, states, tile
from dashboards.promql import ours, quantile, quantile_now, rate, rates_by, series, total


def _worst(used: str, limit: str) -> str:
    """The largest share of a limit that any process uses."""
    each = ("instance", "worker")
    return f"max({total(used, by=each)} / {total(limit, by=each)})"


_FILES = ours(f"{series('process_open_fds')} / {series('process_max_fds')}")


CONNECTIONS = Row(
    "Connections: who comes and goes",
    (
        graph(
            "Open connections",
            Unit.COUNT,
            (Target(total("stentor_connections", by=("dialect",)), "{{dialect}}"),),
            "Connections by dialect. Normal: as the time of day. A cliff: a restart, a proxy, a network. A dip of "
            "seconds that comes back whole: a worker was too busy to answer the scrape.",
            is_stacked=True,
        ).wide(6),
        graph(
            "Opened and ended",
            Unit.PER_SECOND,
            (
                Target(rate("stentor_connections_opened_total"), "opened", GREEN),
                Target(rate("stentor_connections_closed_total"), "ended", ORANGE),
            ),
            "Normal: both the same, and small against the open connections. Ended first and opened after: clients were "
            "cut off and come back. Opened alone: new clients.",
        ).wide(6),
        graph(
            "Ended by close code",
            Unit.PER_SECOND,
            (Target(rates_by("stentor_connections_closed_total", "code", "1000"), "{{code}}"),),
            "Why connections ended. Normal: 1000, 1001 and 1005 (the client left), some 1006 (its network did). "
            "1001/3001 from us: a shutdown. 1008/3500: credentials. 1013/3008: too slow. 3012: no pong. 1011: our "
            "fault, see the log.",
            is_stacked=True,
        ).wide(6),
        graph(
            "Ceilings",
            Unit.SHARE,
            (
                Target(_worst("stentor_connections", "stentor_max_connections"), "connections", BLUE),
                Target(_worst("stentor_queue_bytes", "stentor_max_queue_bytes"), "queue budget", ORANGE),
                Target(f"max({_FILES})", "open files", RED),
            ),
            "How much of each limit the worst process uses. Normal: below 70 %. At 100 % of connections newcomers get "
            "503; of the queue budget the slowest are thrown out; of open files nobody gets in, not even Prometheus.",
            maximum=1,
        ).wide(6),
        graph(
            "Refused by reason",
            Unit.PER_SECOND,
            (Target(rates_by("stentor_connections_rejected_total", "reason", "full"), "{{reason}}"),),
            "Requests turned away before the upgrade. full, connect_rate, address: too many. credentials, permission, "
            "origin: whoever asks is wrong, or a key was changed. draining: a restart. not_found, bad_request: no "
            "client of ours.",
            is_stacked=True,
        ).wide(6),
        graph(
            "Handshake",
            Unit.SECONDS,
            (
                Target(quantile(0.5, "stentor_handshake_duration_seconds"), "p50", GREEN),
                Target(quantile(0.99, "stentor_handshake_duration_seconds"), "p99", ORANGE),
            ),
            "From accept to 101. Normal: a few ms; with TLS more. Rising in a storm: connect_rate bounds it. Rising "
            "without one: loop lag, or clients that send their request slowly.",
        ).wide(6),
        graph(
            "Channels and subscriptions",
            Unit.COUNT,
            (
                Target(total("stentor_channels"), "channels", BLUE),
                Target(total("stentor_subscriptions"), "subscriptions", GREEN),
            ),
            "Channels that somebody listens to, summed over workers, and listeners on them. Normal: both follow the "
            "connections. Channels rising alone: names are made up by clients; memory follows.",
        ).wide(6),
        tile(
            "Certificate ends in",
            f"min({series('stentor_tls_certificate_expiry_timestamp_seconds')}) - time()",
            Unit.SECONDS,
            "Until the certificate in use ends, of the instance where it ends first. Normal: weeks. Red: renew it and "
            "restart; a renewed file is not in use before. Nothing: TLS ends in front of the server.",
            steps=((0, RED), (7 * 86400, YELLOW), (21 * 86400, GREEN)),
            nothing="no TLS here",
            decimals=1,
        ).wide(3, 8),
        tile(
            "Revoked tokens",
            f"max({series('stentor_revocations')})",
            Unit.COUNT,
            "Revocations in force (revoke_token, invalidate_user_tokens), where most are known. Normal: they go as the "
            "tokens end; 0 without JWT. Red: at 10,000 new ones are refused, so give each an expire_at.",
            steps=((0, BLUE), (5000, YELLOW), (9000, RED)),
        ).wide(3, 8),
    ),
)


def backpressure(brownout: tuple[State, ...]) -> Row:
    """Who does not keep up, and what was done about it."""
    return Row(
        "Backpressure: who does not keep up",
        (
            graph(
                "Dropped by reason",
                Unit.MESSAGES_PER_SECOND,
                (Target(rate("stentor_messages_dropped_total", by=("reason",)), "{{reason}}"),),
                "Deliveries given up. queue_full: a client's own queue; disconnected: what waited for one that was "
                "closed; budget: all queues together; conflated: superseded by a newer one, as the channel's policy "
                "asks. Normal: 0, or conflated alone.",
                is_stacked=True,
            ),
            graph(
                "Queued for all clients",
                Unit.BYTES,
                (Target(total("stentor_queue_bytes"), "queued", BLUE),),
                "Memory that laggards hold, over all workers. Normal: near 0. What it is of its budget is in "
                "“Ceilings”: at the budget the slowest clients are thrown out, however little each holds.",
            ),
            graph(
                "Lagging clients and what waits for them",
                Unit.COUNT,
                (
                    Target(total("stentor_lagging_clients"), "lagging clients", ORANGE),
                    Target(total("stentor_queue_messages"), "queued messages", BLUE),
                ),
                "Clients whose socket takes no more, and the messages that wait for them. Normal: short peaks. Rising "
                "without end: a lag policy that only observes, or a write_timeout that is too long.",
            ),
            graph(
                "Queue per client",
                Unit.COUNT,
                (
                    Target(quantile_now(0.99, "stentor_client_queue_messages"), "p99 messages", GREEN),
                    Target(quantile_now(1, "stentor_client_queue_messages"), "longest messages", RED),
                ),
                "Messages that wait for a client, at the scrape (upper bounds of buckets). Normal: p99 at 0: who keeps "
                "up has no queue. The longest at queue_messages: that client is about to be dropped or closed.",
            ),
            graph(
                "Queued bytes per client",
                Unit.BYTES,
                (
                    Target(quantile_now(0.99, "stentor_client_queue_bytes"), "p99", GREEN),
                    Target(quantile_now(1, "stentor_client_queue_bytes"), "most", RED),
                ),
                "Bytes that wait for a client, at the scrape (upper bounds of buckets). Normal: 0. The most is bounded "
                "by queue_bytes.",
            ),
            graph(
                "Waiting since",
                Unit.SECONDS,
                (
                    Target(quantile_now(0.99, "stentor_client_queue_age_seconds"), "p99", GREEN),
                    Target(quantile_now(1, "stentor_client_queue_age_seconds"), "longest", RED),
                ),
                "Age of the oldest message of each client (upper bounds of buckets). Normal: 0. It is how far behind a "
                "client is; after write_timeout without progress it is closed.",
            ),
            graph(
                "Thrown out for being slow",
                Unit.PER_SECOND,
                (
                    Target(rate("stentor_slow_disconnects_total"), "thrown out", RED),
                    Target(rate("stentor_lag_policy_observed_total"), "would have acted", YELLOW),
                ),
                "Clients closed with 1013 or 3008, and, with lag_policy_mode = observe, the times the policy would "
                "have acted. Normal: 0. Steady: somebody subscribes to more than he can take.",
            ),
            graph(
                "Pong deadlines that were extended",
                Unit.PER_SECOND,
                (Target(rate("stentor_keepalive_spared_total"), "spared", YELLOW),),
                "Clients that would have been closed for a missing pong while it was our own loop that was late. "
                "Normal: 0. Otherwise the server stalls: see “Event loop lag”.",
            ),
            states(
                "Brown-out",
                Target(f"max by (instance) ({series('stentor_brownout_level')})", "{{instance}}"),
                brownout,
                "What each instance's worst worker did to stay alive, over time. Normal: normal. It steps up and down "
                "one at a time; if it stays up, the load is more than this machine's.",
            ),
        ),
    )
