"""How the number of subscribers varies over the time of publishing.

Pure functions of the time; ``loadtest.locustfile`` hands them to Locust. Those who come later are owed what is
published from their first message on; those who leave, what was published until then.
"""

from __future__ import annotations

from math import ceil

BASE = 0.25  # of the peak: what a spike rises from
STEPS = 5
RAMP_FROM = 0.1
SOAK_RAMP = 0.1  # of the time


def share(shape: str, elapsed: float, duration: float) -> float:
    """The share of the peak at ``elapsed`` of ``duration`` seconds; before and after, that of the nearer end.

    ``ramp`` rises from a tenth to the peak · ``step`` rises in five equal steps · ``spike`` is at a quarter, and at
    the peak for the middle fifth · ``soak`` rises in the first tenth of the time and stays.
    """
    part = min(max(elapsed / duration, 0.0), 1.0)
    if shape == "ramp":
        return RAMP_FROM + (1 - RAMP_FROM) * part
    if shape == "step":
        return (min(int(part * STEPS), STEPS - 1) + 1) / STEPS
    if shape == "spike":
        return 1.0 if 0.4 <= part < 0.6 else BASE
    if shape == "soak":
        return RAMP_FROM + (1 - RAMP_FROM) * min(part / SOAK_RAMP, 1.0)
    raise ValueError(f"there is no shape {shape!r}")


def users_at(shape: str, elapsed: float, duration: float, peak: int) -> int:
    """The number of users at that time, at least one."""
    return max(1, ceil(share(shape, elapsed, duration) * peak - 1e-9))
