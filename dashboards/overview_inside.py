"""The rows about the inside: the way to the broker, the processes, and the Python in them."""

from __future__ import annotations

from dashboards.panels import BLUE, GREEN, ORANGE, RED, YELLOW, Row, State, Target, Unit, graph, states, table
from dashboards.promql import ours, quantile, rate, rate_of_each, series

_PROCESS = "{{instance}} {{worker}}"
_WORKER_STATES = (State(0, "DOWN", RED), State(1, "up", GREEN))


def _by_generation(counter: str) -> str:
    return f"sum by (generation) ({ours(rate_of_each(counter))})"


def broker(names: tuple[State, ...]) -> Row:
    """What comes from other workers and machines."""
    nothing = "one process, without a broker"
    return Row(
        "Broker: what comes from other workers and machines",
        (
            states(
                "Contact",
                Target(series("stentor_broker_up"), _PROCESS),
                names,
                "Whether each worker hears the broker. One DEAF: that worker's network. All: the broker. Clients of a "
                "deaf worker hear nothing from elsewhere, and it is not ready, so a load balancer sends it nobody.",
                nothing=nothing,
            ).wide(6),
            graph(
                "Time to answer",
                Unit.SECONDS,
                (
                    Target(quantile(0.5, "stentor_broker_lag_seconds"), "p50", GREEN),
                    Target(quantile(0.99, "stentor_broker_lag_seconds"), "p99", ORANGE),
                ),
                "How long the broker takes to answer. Normal: a few ms. Slow: the broker is busy (look at slow "
                "commands there), or our loop is (see “Event loop lag”).",
                nothing=nothing,
            ).wide(6),
            graph(
                "Contact made anew, and gaps",
                Unit.PER_SECOND,
                (
                    Target(rate("stentor_broker_reconnects_total"), "contact made anew", BLUE),
                    Target(rate("stentor_broker_gaps_total"), "gaps", RED),
                ),
                "Each gap is a moment in which something was lost on the way from the broker; clients with positions "
                "recover it from history, raw ones do not. Normal: 0. Redis cuts off who reads slowly: "
                "client-output-buffer-limit pubsub.",
                nothing=nothing,
            ).wide(6),
            graph(
                "Lost on the way",
                Unit.MESSAGES_PER_SECOND,
                (
                    Target(rate("stentor_broker_lost_total"), "lost", RED),
                    Target(rate("stentor_messages_refused_total"), "refused", YELLOW),
                ),
                "Lost: publications known to have been lost between broker and worker; above 0 after a reconnect it is "
                "what was said meanwhile, without one the broker drops. Refused: what raw clients said and the broker "
                "did not take, which nothing tells them; others got an error. Normal: 0.",
                nothing=nothing,
            ).wide(6),
        ),
    )


WORKERS = Row(
    "Workers: each process",
    (
        states(
            "Up",
            Target(series("stentor_worker_up"), _PROCESS),
            _WORKER_STATES,
            "Whether each worker answers its supervisor. DOWN for a moment: it was replaced, or too busy to answer; "
            "its clients come back. DOWN for long: it cannot start; the log says why.",
        ).wide(6),
        graph(
            "Replaced",
            Unit.PER_SECOND,
            (Target(rate("stentor_worker_restarts_total", by=("instance", "worker")), _PROCESS),),
            "Workers that died or hung, and whose place another one took. Normal: 0; a deployment is none. Each one "
            "is a crowd that comes back; the log has its exit code.",
            nothing="one process, without a supervisor",
        ).wide(6),
        graph(
            "Connections per worker",
            Unit.COUNT,
            (Target(f"sum by (instance, worker) ({series('stentor_connections')})", _PROCESS),),
            "Normal: about even. A new worker fills up as clients come back. One far above: connections that live "
            "long, opened when it was alone.",
        ).wide(6),
        graph(
            "Deliveries per worker",
            Unit.MESSAGES_PER_SECOND,
            (Target(rate("stentor_messages_sent_total", by=("instance", "worker")), _PROCESS),),
            "Normal: as the connections. One worker far above: a channel whose listeners are all on it.",
        ).wide(6),
        graph(
            "CPU per process",
            Unit.SHARE,
            (Target(ours(rate_of_each("process_cpu_seconds_total")), _PROCESS),),
            "Of one core. Normal: below 70 %. One process at 100 % is full, however idle the machine is: more workers.",
        ),
        graph(
            "Event loop lag p99 per worker",
            Unit.SECONDS,
            (Target(quantile(0.99, "stentor_event_loop_lag_seconds", by=("instance", "worker")), _PROCESS),),
            "Normal: below 10 ms, and alike. One worker alone: its clients or its core. All: the machine.",
        ),
        graph(
            "Resident memory",
            Unit.BYTES,
            (Target(ours(series("process_resident_memory_bytes")), _PROCESS),),
            "Normal: follows the connections (some 12 KiB each) and the queues. Rising with neither: history, many "
            "channels, or a leak; the row Python runtime tells more.",
        ),
        graph(
            "Open files",
            Unit.COUNT,
            (Target(ours(series("process_open_fds")), _PROCESS),),
            "Each connection is one. What it is of the limit is in “Ceilings”; at the limit no client gets in, nor "
            "does Prometheus. LimitNOFILE or ulimit -n raises it.",
        ),
        graph(
            "Up since",
            Unit.SECONDS,
            (Target(f"time() - {ours(series('process_start_time_seconds'))}", _PROCESS),),
            "Age of each process. A saw-tooth is a process that dies again and again; all at once is a deployment.",
        ),
        graph(
            "Scrapes",
            Unit.SECONDS,
            (Target(ours(series("scrape_duration_seconds")), "{{instance}}"),),
            "How long Prometheus waits for the metrics of an instance. Normal: tens of ms. Growing with loop lag: a "
            "worker is late to answer, and shown by what it said last.",
        ),
    ),
    is_collapsed=True,
)

PYTHON = Row(
    "Python runtime",
    (
        graph(
            "Garbage collections",
            Unit.PER_SECOND,
            (Target(_by_generation("python_gc_collections_total"), "generation {{generation}}"),),
            "How often Python collects, over all workers. Normal: generation 0 follows the load, 2 is rare. Many of "
            "generation 2 cost pauses: see “Garbage collector pauses”.",
        ).wide(6),
        graph(
            "Objects collected",
            Unit.PER_SECOND,
            (
                Target(_by_generation("python_gc_objects_collected_total"), "generation {{generation}}"),
                Target(
                    _by_generation("python_gc_objects_uncollectable_total"), "uncollectable, generation {{generation}}"
                ),
            ),
            "Objects in cycles that were freed. Normal: few, since nothing on the way of a message makes cycles. "
            "Uncollectable ones are a leak.",
        ).wide(6),
        graph(
            "Time spent collecting",
            Unit.SHARE,
            (Target(rate("stentor_gc_pause_seconds_sum", by=("instance", "worker")), _PROCESS),),
            "Share of its time in which a worker did nothing but collect garbage. Normal: below 1 %. More: memory is "
            "made and dropped faster than it should be; compare with the load before you blame it.",
        ).wide(6),
        graph(
            "Virtual memory",
            Unit.BYTES,
            (Target(ours(series("process_virtual_memory_bytes")), _PROCESS),),
            "Address space. Of interest only where it is limited (ulimit -v); memory in use is “Resident memory”.",
        ).wide(6),
        table(
            "What runs",
            series("stentor_build_info"),
            (
                ("instance", "Instance"),
                ("worker", "Worker"),
                ("version", "Stentor"),
                ("python", "Python"),
                ("uvloop", "uvloop"),
                ("websockets", "websockets"),
            ),
            "Versions, by instance and worker. Normal: all the same, but for the minutes of a rolling deployment.",
        ),
    ),
    is_collapsed=True,
)
