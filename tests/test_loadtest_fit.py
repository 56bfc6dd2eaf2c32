"""The fits find the coefficients that the data was made with, and refuse data that does not carry them."""

import numpy as np
import pytest

from loadtest.fit import Fitted, Load, NotFitted, cost_model, memory_model, non_negative, usl

IDLE, PUBLICATION, DELIVERY, BYTE = 9_000.0, 55.0, 6.5, 0.004


def loads(noise: float = 0.0, *, seed: int = 7, idle: float = IDLE, publication: float = PUBLICATION) -> list[Load]:
    """A grid like the command's own: subscribers, then rate, then size, each with a relative error of `noise`."""
    chance = np.random.default_rng(seed)
    grid = [(n, 50.0, 128.0) for n in (50, 100, 200, 400, 800, 1600)]
    grid += [(800, r, 128.0) for r in (25.0, 100.0, 200.0)] + [(200, 400.0, 128.0), (10, 2000.0, 128.0)]
    grid += [(400, 50.0, s) for s in (1024.0, 4096.0, 16384.0)]
    made = []
    for subscribers, rate, size in grid * 3:
        exact = idle + rate * (publication + subscribers * (DELIVERY + size * BYTE))
        made.append(Load(rate, rate * subscribers, rate * subscribers * size, exact * (1 + noise * chance.normal())))
    return made


def test_the_cost_model_finds_exact_costs_exactly() -> None:
    fitted = cost_model(loads())
    assert fitted.value("idle") == pytest.approx(IDLE)
    assert fitted.value("publication") == pytest.approx(PUBLICATION)
    assert fitted.value("delivery") == pytest.approx(DELIVERY)
    assert fitted.value("byte") == pytest.approx(BYTE)
    assert fitted.r_squared == pytest.approx(1)
    assert max(map(abs, fitted.residuals)) < 1e-9


def test_the_cost_model_finds_noisy_costs_within_its_own_error() -> None:
    fitted = cost_model(loads(noise=0.05))
    for coefficient, truth in zip(fitted.coefficients, (IDLE, PUBLICATION, DELIVERY, BYTE), strict=True):
        assert coefficient.error is not None
        assert abs(coefficient.value - truth) < 4 * coefficient.error, coefficient
    assert fitted.value("delivery") == pytest.approx(DELIVERY, rel=0.05)
    assert fitted.r_squared > 0.98
    assert 0.02 < float(np.std(fitted.residuals)) < 0.08


def test_a_cost_is_never_negative() -> None:
    """Where a cost is nothing, noise alone sends plain least squares below zero about every second time."""
    held = 0
    for seed in range(20):
        fitted = cost_model(loads(noise=0.05, seed=seed, idle=0, publication=0))
        assert min(c.value for c in fitted.coefficients) >= 0
        assert all((c.error is None) == (c.value == 0) for c in fitted.coefficients)
        assert fitted.value("delivery") == pytest.approx(DELIVERY, rel=0.1)
        held += fitted.value("publication") == 0
    assert 0 < held < 20


def test_costs_that_always_move_together_are_refused() -> None:
    """Bytes are deliveries times the size: with one size alone, no data tells their costs apart."""
    one_size = [p for p in loads() if p.delivered_bytes == p.deliveries * 128]
    with pytest.raises(NotFitted, match="vary them independently"):
        cost_model(one_size)


@pytest.mark.parametrize("points", [0, 4])
def test_too_few_points_are_refused(points: int) -> None:
    with pytest.raises(NotFitted, match="need at least 5 points"):
        cost_model(loads()[:points])


def test_a_point_that_cost_nothing_is_refused() -> None:
    with pytest.raises(NotFitted, match="measured nothing"):
        cost_model([*loads(), Load(1, 1, 1, 0.0)])


def test_the_memory_model_finds_base_and_slope() -> None:
    connections = [0, 100, 500, 1000, 5000]
    fitted = memory_model(connections, [30e6 + 12_000 * n for n in connections])
    assert fitted.value("base") == pytest.approx(30e6)
    assert fitted.value("connection") == pytest.approx(12_000)


def test_memory_at_one_number_of_connections_is_refused() -> None:
    with pytest.raises(NotFitted, match="base and connection apart"):
        memory_model([100, 100, 100], [1e6, 1e6, 1.1e6])


def test_non_negative_least_squares_meets_its_optimality_conditions() -> None:
    """Karush-Kuhn-Tucker: the gradient is zero where x is positive and not negative where x is held at zero."""
    chance = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        matrix, target = chance.normal(size=(9, 4)), chance.normal(size=9)
        x = non_negative(matrix, target)
        gradient = matrix.T @ (matrix @ x - target)
        assert (x >= 0).all()
        assert np.abs(gradient[x > 0]).max(initial=0) < 1e-9
        assert gradient[x == 0].min(initial=0) > -1e-9
        held += int((x == 0).any())
    assert held > 50  # otherwise the bound was never tried


def usl_points(noise: float = 0.0, *, gamma: float = 90, alpha: float = 2e-3, beta: float = 6e-7):
    chance = np.random.default_rng(11)
    n = np.array([10, 50, 100, 200, 400, 800, 1200, 1600, 2400], dtype=float)
    x = gamma * n / (1 + alpha * (n - 1) + beta * n * (n - 1))
    return n, x * (1 + noise * chance.normal(size=len(n)))


def test_the_scalability_law_finds_exact_coefficients() -> None:
    found = usl(*usl_points())
    assert found.gamma == pytest.approx(90)
    assert found.alpha == pytest.approx(2e-3)
    assert found.beta == pytest.approx(6e-7)
    assert found.peak == pytest.approx(((1 - 2e-3) / 6e-7) ** 0.5)
    assert found.throughput(400) == pytest.approx(found.measured[4])


def test_the_scalability_law_holds_the_truth_in_its_ranges_under_noise() -> None:
    found = usl(*usl_points(noise=0.03))
    for (low, high), truth in zip(
        (found.gamma_range, found.alpha_range, found.beta_range), (90, 2e-3, 6e-7), strict=True
    ):
        assert low <= truth <= high
    assert found.r_squared > 0.95


def test_a_law_without_coherency_has_no_peak() -> None:
    assert usl(*usl_points(beta=0)).peak is None


def test_a_peak_far_beyond_the_points_is_not_claimed() -> None:
    assert usl(*usl_points(beta=1e-8)).peak is None


@pytest.mark.parametrize(
    ("loads", "throughput", "why"),
    [
        ([], [], "at least 6 loads, 0 were"),
        ([1, 2, 4, 8, 16], [1, 2, 3, 3.5, 3.6], "at least 6 loads, 5 were"),
        ([1, 1, 2, 4, 8, 16], [1, 1, 2, 3, 3.5, 3.6], "at least 6 loads, 5 were"),
        ([1, 2, 4, 8, 16, 32], [1, 2, 4, 8, 16, 31], "97% of proportional"),
        ([1, 10, 20, 30, 40, 50], [1, 1, 1, 1, 1, 1], "past the knee"),
    ],
)
def test_points_that_do_not_span_the_knee_are_refused(loads: list[float], throughput: list[float], why: str) -> None:
    with pytest.raises(NotFitted, match=why):
        usl(loads, throughput)


def test_a_fit_can_be_made_again() -> None:
    assert usl(*usl_points(noise=0.03)) == usl(*usl_points(noise=0.03))


def test_residuals_are_relative_to_what_was_measured() -> None:
    fitted = Fitted((), 1.0, (10.0, 0.0), (9.0, 1.0))
    assert fitted.residuals[0] == pytest.approx(0.1)
    assert np.isnan(fitted.residuals[1])
