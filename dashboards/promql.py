"""Queries, as text. Every selector asks for the job and the instance that are chosen above the dashboard.

Laws: a counter is only ever seen through ``rate``, over Grafana's own window; a sum keeps the labels that it is told to
keep and no other, so that a query holds for one process (no ``worker`` label) as for many.
It does not know which metrics there are.
"""

from __future__ import annotations

from collections.abc import Sequence

CHOSEN = 'job=~"$job",instance=~"$instance"'
WINDOW = "$__rate_interval"
#: What every Stentor exports, alive or not: where it is, the other series of the same instance are Stentor's, too.
IS_STENTOR = "stentor_worker_up"


def series(metric: str, *matchers: str) -> str:
    """A selector; `matchers` are further ones, such as ``reason!="conflated"``."""
    return f"{metric}{{{','.join((CHOSEN, *matchers))}}}"


def total(metric: str, *matchers: str, by: Sequence[str] = ()) -> str:
    """The sum of a gauge."""
    return f"sum{_by(by)} ({series(metric, *matchers)})"


def rate(counter: str, *matchers: str, by: Sequence[str] = ()) -> str:
    """How fast a counter rises, per second, summed."""
    return f"sum{_by(by)} ({rate_of_each(counter, *matchers)})"


def rate_of_each(counter: str, *matchers: str) -> str:
    """The same for each series."""
    return f"rate({series(counter, *matchers)}[{WINDOW}])"


def rates_by(counter: str, label: str, always: str) -> str:
    """The rates by a label of many values: those above zero, and one that is shown in any case."""
    any_way = rate(counter, f'{label}="{always}"', by=(label,))
    return f"{rate(counter, by=(label,))} > 0 or {any_way}"


def quantile(share: float, histogram: str, by: Sequence[str] = ()) -> str:
    """The value that `share` of what was observed in the window did not exceed."""
    return f"histogram_quantile({share:g}, {rate(f'{histogram}_bucket', by=('le', *by))})"


def quantile_now(share: float, histogram: str, by: Sequence[str] = ()) -> str:
    """The same of all that a histogram holds, such as one that is made anew at each scrape."""
    return f"histogram_quantile({share:g}, {total(f'{histogram}_bucket', by=('le', *by))})"


def mean(histogram: str, by: Sequence[str] = ()) -> str:
    """The mean of what was observed in the window."""
    return f"{rate(f'{histogram}_sum', by=by)} / {rate(f'{histogram}_count', by=by)}"


def ours(query: str) -> str:
    """Keep the series of Stentor's instances.

    Every program exports ``process_*``, and with "All" chosen every job matches.
    """
    return f"{query} and on (job, instance) {series(IS_STENTOR)}"


def _by(labels: Sequence[str]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""
