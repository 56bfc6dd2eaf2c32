"""Two models of a server's cost, fitted to what was measured.

*Cost model*: CPU microseconds per second = idle + a · publications + b · deliveries + c · delivered bytes;
memory = base + d · connections.
*Universal Scalability Law* (N. J. Gunther): X(N) = gamma N / (1 + alpha (N - 1) + beta N (N - 1)); alpha is contention,
beta coherency.

Laws: no coefficient is ever negative (a negative cost is a fit that went wrong, not a saving); a coefficient comes with
its standard error, and one that the points cannot tell apart is refused, not guessed; errors are weighed relative to
what was measured, so that a small load counts as much as a large one.
It does not know how a point was measured.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]

# Columns closer to dependent than this cannot be told apart by data that carries a few percent of noise.
_MAX_CONDITION = 1e4
_MIN_USL_POINTS = 6
# Below this share of the best throughput per unit of load, the curve has bent.
_BENT = 0.9
_RESAMPLES = 400


class NotFitted(Exception):
    """The points do not carry this model; the message is the sentence that says why."""


@dataclass(frozen=True, slots=True)
class Load:
    """One measured point of the cost model, in units per second of publishing."""

    publications: float
    deliveries: float
    delivered_bytes: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Coefficient:
    """A fitted cost and its standard error; the error is None where the fit holds the cost at its bound, 0."""

    name: str
    unit: str
    value: float
    error: float | None


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted linear model: its coefficients, and measured against predicted for each point, in their order."""

    coefficients: tuple[Coefficient, ...]
    r_squared: float
    measured: tuple[float, ...]
    predicted: tuple[float, ...]

    @property
    def residuals(self) -> tuple[float, ...]:
        """Each point's (measured - predicted) / measured."""
        return tuple((m - p) / m if m else math.nan for m, p in zip(self.measured, self.predicted, strict=True))

    def value(self, name: str) -> float:
        """The coefficient called `name`."""
        return next(c.value for c in self.coefficients if c.name == name)


@dataclass(frozen=True, slots=True)
class Usl:
    """A fitted Universal Scalability Law; `*_range` are the central 95 % of a bootstrap over the points.

    `peak` is the load with the highest throughput, or None where that lies beyond twice the largest load measured:
    so far out the fit is a guess.
    """

    gamma: float
    alpha: float
    beta: float
    alpha_range: tuple[float, float]
    beta_range: tuple[float, float]
    gamma_range: tuple[float, float]
    peak: float | None
    r_squared: float
    loads: tuple[float, ...]
    measured: tuple[float, ...]
    predicted: tuple[float, ...]

    def throughput(self, load: float) -> float:
        """X(load)."""
        return _usl(load, self.gamma, self.alpha, self.beta)


def non_negative(matrix: Matrix, target: Matrix) -> Matrix:
    """The non-negative x that minimises |matrix x - target|.

    Every set of columns is tried: the best solution is the plain least-squares one on the columns that it uses, and
    for the handful of terms here that is both exact and quicker than an iteration (Lawson and Hanson, 1974, ch. 23).
    """
    columns = matrix.shape[1]
    best, least = np.zeros(columns), float(target @ target)
    for used in itertools.chain.from_iterable(itertools.combinations(range(columns), n) for n in range(1, columns + 1)):
        x, *_ = np.linalg.lstsq(matrix[:, used], target, rcond=None)
        error = float(np.sum((matrix[:, used] @ x - target) ** 2))
        if (x >= 0).all() and error < least * (1 - 1e-12):
            best, least = np.zeros(columns), error
            best[list(used)] = x
    return best


def cost_model(loads: Sequence[Load]) -> Fitted:
    """Server CPU from publications, deliveries and bytes.

    Raises:
        NotFitted: too few points, or the grid moved two of the causes together.
    """
    matrix = np.array([[1.0, p.publications, p.deliveries, p.delivered_bytes] for p in loads])
    names = (("idle", "µs/s"), ("publication", "µs"), ("delivery", "µs"), ("byte", "µs"))
    return _linear(matrix, np.array([p.cpu_us for p in loads]), names)


def memory_model(connections: Sequence[float], rss: Sequence[float]) -> Fitted:
    """Resident bytes from open connections.

    Raises:
        NotFitted: too few points, or all with the same number of connections.
    """
    matrix = np.array([[1.0, n] for n in connections])
    return _linear(matrix, np.array(rss, dtype=float), (("base", "B"), ("connection", "B")))


def usl(loads: Sequence[float], throughput: Sequence[float]) -> Usl:
    """The Universal Scalability Law through (load, throughput) points.

    Solved as N/X = (1 + alpha (N - 1) + beta N (N - 1)) / gamma, linear in 1, alpha and beta over gamma.

    Raises:
        NotFitted: fewer than six loads, or they do not span the knee: a straight line has no bend to explain.
    """
    pairs = sorted((n, x) for n, x in zip(loads, throughput, strict=True) if n > 0 and x > 0)
    n, x = (np.array(values) for values in zip(*pairs, strict=True)) if pairs else (np.array([]),) * 2
    _demand_a_knee(n, x)
    gamma, alpha, beta = _usl_coefficients(n, x)
    ranges = _bootstrap(n, x)
    predicted = np.array([_usl(load, gamma, alpha, beta) for load in n])
    return Usl(
        gamma,
        alpha,
        beta,
        alpha_range=ranges[1],
        beta_range=ranges[2],
        gamma_range=ranges[0],
        peak=_peak(alpha, beta, largest=float(n[-1])),
        r_squared=_r_squared(x, predicted),
        loads=tuple(n.tolist()),
        measured=tuple(x.tolist()),
        predicted=tuple(predicted.tolist()),
    )


def _linear(matrix: Matrix, target: Matrix, names: Sequence[tuple[str, str]]) -> Fitted:
    points, terms = matrix.shape if matrix.size else (0, len(names))
    if points <= terms:
        raise NotFitted(f"{terms} unknowns need at least {terms + 1} points, there are {points}")
    if not (target > 0).all():
        raise NotFitted("a point measured nothing, so errors cannot be weighed against it")
    weighed = matrix / target[:, None]
    scale = np.linalg.norm(weighed, axis=0)
    if (scale == 0).any() or np.linalg.cond(weighed / scale) > _MAX_CONDITION:
        raise NotFitted(f"the points do not tell {_listed([n for n, _ in names])} apart: vary them independently")
    x = non_negative(weighed / scale, np.ones(points)) / scale
    errors = _standard_errors(weighed, x)
    predicted = matrix @ x
    return Fitted(
        tuple(Coefficient(n, u, float(v), e) for (n, u), v, e in zip(names, x, errors, strict=True)),
        _r_squared(target, predicted),
        tuple(target.tolist()),
        tuple(predicted.tolist()),
    )


def _standard_errors(weighed: Matrix, x: Matrix) -> list[float | None]:
    """The usual errors of linear least squares, over the columns that the solution uses."""
    used = np.flatnonzero(x)
    freedom = len(weighed) - len(used)
    variance = float(np.sum((weighed @ x - 1) ** 2)) / freedom
    active = weighed[:, used]
    spread = np.sqrt(np.diag(np.linalg.inv(active.T @ active)) * variance)
    errors: list[float | None] = [None] * len(x)
    for column, error in zip(used, spread, strict=True):
        errors[int(column)] = float(error)
    return errors


def _r_squared(measured: Matrix, predicted: Matrix) -> float:
    total = float(np.sum((measured - measured.mean()) ** 2))
    return 1 - float(np.sum((measured - predicted) ** 2)) / total if total else 1.0


def _usl(n: float, gamma: float, alpha: float, beta: float) -> float:
    return gamma * n / (1 + alpha * (n - 1) + beta * n * (n - 1))


def _peak(alpha: float, beta: float, *, largest: float) -> float | None:
    if beta <= 0 or alpha >= 1:
        return None
    peak = math.sqrt((1 - alpha) / beta)
    return peak if peak <= 2 * largest else None


def _usl_coefficients(n: Matrix, x: Matrix) -> tuple[float, float, float]:
    # Divided by N/X, so that the errors are those of the throughput in percent, not those of its inverse.
    matrix = np.stack([np.ones_like(n), n - 1, n * (n - 1)], axis=1) / (n / x)[:, None]
    scale = np.linalg.norm(matrix, axis=0)
    c, contention, coherency = non_negative(matrix / scale, np.ones(len(n))) / scale
    if c <= 0:
        raise NotFitted(
            "the throughput falls from the first point on: there is no linear part to measure the bend against"
        )
    return float(1 / c), float(contention / c), float(coherency / c)


def _demand_a_knee(n: Matrix, x: Matrix) -> None:
    distinct = len(np.unique(n))
    if distinct < _MIN_USL_POINTS:
        raise NotFitted(f"the law needs at least {_MIN_USL_POINTS} loads, {distinct} were measured")
    efficiency = (x / n) / float(np.max(x / n))
    bent = len(np.unique(n[efficiency < _BENT]))
    if bent < 2:
        raise NotFitted(
            f"throughput still grows with the load (at the top it is {efficiency[-1]:.0%} of proportional): "
            "the points do not span a knee"
        )
    if distinct - bent < 2:
        raise NotFitted("nearly every point is past the knee: the points do not span it")


def _bootstrap(n: Matrix, x: Matrix) -> list[tuple[float, float]]:
    """The central 95 % of gamma, alpha and beta over resampled points; seeded, so that a report can be made again."""
    chance = np.random.default_rng(20_08)
    found = []
    for _ in range(_RESAMPLES):
        pick = chance.integers(0, len(n), len(n))
        if len(np.unique(n[pick])) > 3:
            try:
                found.append(_usl_coefficients(n[pick], x[pick]))
            except NotFitted:
                continue
    low, high = np.percentile(np.array(found), [2.5, 97.5], axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
