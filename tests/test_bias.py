"""Biases and means against the definitions of the losses (theory 4)."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
import scipy.optimize

import pyssl
from pyssl.testing import (
    check_gradient,
    check_hvp,
    infonce_monte_carlo,
    random_moments,
    random_spectrum,
)

FLAT: list[pyssl.Loss] = [
    pyssl.InfoNCE(0.8),
    pyssl.InfoNCE(0.8, partition="joint"),
    pyssl.SquaredVICReg(0.5),
    pyssl.SquaredVICReg(2.0),
    pyssl.BarlowTwins(redundancy=1.0, normalize=False),
]
DOT = [pyssl.InfoNCE(0.8, "dot", partition) for partition in ("conditional", "joint")]
LEVELS = ("effective", "population")
flat = pytest.mark.parametrize("loss", FLAT, ids=repr)
dot = pytest.mark.parametrize("loss", DOT, ids=lambda loss: loss.partition)
levels = pytest.mark.parametrize("level", LEVELS)


def seeded(*key: int) -> np.random.Generator:
    return np.random.default_rng([4, *key])


def problems(*key: int, **options: Any) -> Any:
    """Yield moments with a mean, k and a generator."""
    for number, (k, d) in enumerate(((1, 1), (2, 3), (4, 3), (3, 5))):
        rng = seeded(number, *key)
        yield random_moments(random_spectrum(d, rng), rng, mean=True, **options), k, rng


# ---- where a bias has no effect ------------------------------------------------------------------


@flat
@levels
def test_flat_bias_is_not_seen(loss: pyssl.Loss, level: str) -> None:
    for m, k, rng in problems(0):
        without = getattr(loss, level)(m, k, weight_decay=0.3)
        land = getattr(loss, level)(m, k, weight_decay=0.3, bias=True)
        d = m.dim
        assert land.shape == (k, d + 1)
        for shape in ((), (3,), (12,)):  # alone, a batch for BLAS, one for the kernel
            W, D = rng.standard_normal((2, *shape, k, d + 1))
            kept = {"rtol": 1e-12, "atol": 1e-13}
            np.testing.assert_allclose(land.value(W), without.value(W[..., :d]), **kept)
            value, gradient = land.value_and_gradient(W)
            np.testing.assert_allclose(value, without.value(W[..., :d]), **kept)
            np.testing.assert_allclose(gradient[..., :d], without.gradient(W[..., :d]), **kept)
            assert not gradient[..., d].any()
            bend = land.hvp(W, D)
            expected = without.hvp(W[..., :d], D[..., :d])
            np.testing.assert_allclose(bend[..., :d], expected, rtol=1e-11, atol=1e-12)
            assert not bend[..., d].any()
        hessian = land.hessian(W[0]).reshape(k, d + 1, k, d + 1)
        expected = without.hessian(W[0][:, :d]).reshape(k, d, k, d)
        np.testing.assert_allclose(hessian[:, :d, :, :d], expected, rtol=1e-11, atol=1e-12)
        assert not hessian[:, d].any()
        W0, D1, D2 = rng.standard_normal((3, k, d + 1))
        grid = np.linspace(-1.0, 2.0, 7)
        np.testing.assert_allclose(
            land.plane(W0, D1, D2, grid, grid[:4]),
            without.plane(W0[:, :d], D1[:, :d], D2[:, :d], grid, grid[:4]),
            rtol=1e-11,
        )
        single = W.astype(np.float32)
        assert land.value(single).dtype == land.gradient(single).dtype == np.float32


def test_flat_bias_is_that_of_the_loss_on_a_batch() -> None:
    rng = seeded(1)
    x, x_plus = rng.standard_normal((2, 50, 3)) + np.array([3.0, 1.0, -2.0])
    loss, moments = pyssl.SquaredVICReg(1.5), pyssl.Moments.from_views(x, x_plus)
    population = loss.population(moments, 2, weight_decay=0.4, bias=True)
    empirical = loss.empirical(x, x_plus, 2, weight_decay=0.4, bias=True)
    W = rng.standard_normal((5, 2, 4))
    np.testing.assert_allclose(population.value(W), empirical.value(W), rtol=1e-11)


@flat
def test_flat_bias_closed_form(loss: pyssl.Loss) -> None:
    for m, k, _ in problems(2, nulls=1):
        d = m.dim
        without = loss.population(m, k, weight_decay=0.1)
        land = loss.population(m, k, weight_decay=0.1, bias=True)
        np.testing.assert_array_equal(land.eigenvalues, without.eigenvalues)
        assert land.eigenvalues.shape == (d,)
        np.testing.assert_array_equal(land.vectors[:d], without.vectors)
        assert land.vectors.shape == (d + 1, d) and not land.vectors[d].any()
        minimum, expected = land.minimum(), without.minimum()
        assert (minimum.value, minimum.rank) == (expected.value, expected.rank)
        np.testing.assert_array_equal(minimum.amplitudes, expected.amplitudes)
        np.testing.assert_array_equal(minimum.weights[:, :d], expected.weights)
        assert minimum.weights.shape == (k, d + 1) and not minimum.weights[:, d].any()
        pairs = zip(land.stationary_points(), without.stationary_points(), strict=True)
        for point, other in islice(pairs, 6):
            assert (point.active, point.value, point.index) == (
                other.active,
                other.value,
                other.index,
            )
            np.testing.assert_array_equal(point.weights()[:, :d], other.weights())
            assert point.weights().shape == (k, d + 1)
            spectrum = np.sort(np.append(other.hessian_spectrum(), np.zeros(k)))
            np.testing.assert_array_equal(point.hessian_spectrum(), spectrum)
        escape, expected = land.origin().fastest_escape, without.origin().fastest_escape
        if expected is None:
            assert escape is None
        else:
            np.testing.assert_allclose(escape, np.append(expected, 0.0), atol=1e-12)
        report, other_report = pyssl.classify(land), pyssl.classify(without)
        assert report.kind == other_report.kind
        assert report.effective_rank == pytest.approx(other_report.effective_rank, rel=1e-12)
        for name in ("eigenvalue", "alignment", "amplitude", "signal", "augmentation", "decay"):
            columns = getattr(report.modes, name), getattr(other_report.modes, name)
            np.testing.assert_allclose(*columns, rtol=1e-12, atol=1e-14)
        assert list(report.modes.cause) == list(other_report.modes.cause)
        np.testing.assert_array_equal(
            report.critical_weight_decay, other_report.critical_weight_decay
        )


@flat
def test_flat_bias_in_modes(loss: pyssl.Loss) -> None:
    for m, k, rng in problems(3):
        land = loss.population(m, k, weight_decay=0.1, bias=True)
        modes = land.in_modes()
        W = land.minimum().weights + 0.1 * rng.standard_normal(land.shape)
        if isinstance(loss, pyssl.BarlowTwins):  # A may be indefinite, then modes drop directions
            W = modes.to_weights(modes.from_weights(W))
        U = modes.from_weights(W)
        assert U.shape == modes.shape
        assert modes.value(U) == pytest.approx(land.value(W), rel=1e-10)
        back = modes.to_weights(U)
        np.testing.assert_allclose(back[:, :-1], W[:, :-1], rtol=1e-9, atol=1e-10)
        assert back.shape == land.shape and not back[:, -1].any()
        gradient = modes.gradient_to_weights(modes.gradient(U))
        np.testing.assert_allclose(gradient, land.gradient(W), rtol=1e-8, atol=1e-10)


def test_noise_of_a_sample_is_counted_in_the_dimensions_of_the_views() -> None:
    rng = seeded(4)
    x, x_plus = rng.standard_normal((2, 60, 4)) + rng.standard_normal((60, 4))
    moments = pyssl.Moments.from_views(x, x_plus)
    for loss in FLAT:
        reports = [
            pyssl.classify(loss.population(moments, 3, weight_decay=0.2, bias=bias))
            for bias in (False, True)
        ]
        assert reports[0].within_noise == reports[1].within_noise
        assert reports[0].notes == reports[1].notes


def test_a_minimum_that_diverges_has_the_shape_with_the_bias() -> None:
    m = pyssl.Moments(np.eye(2), np.diag([1.0, 0.5]), [1.0, 2.0])
    minimum = pyssl.InfoNCE().population(m, 2, bias=True).minimum()
    assert not minimum.attained
    assert minimum.weights.shape == (2, 3) and np.isnan(minimum.weights).all()


# ---- the dot similarity, whose mean counts -------------------------------------------------------


def t(a: np.ndarray) -> np.ndarray:
    return np.swapaxes(a, -1, -2)


def trace(a: np.ndarray) -> np.ndarray:
    return np.trace(a, axis1=-2, axis2=-1)


def reference(loss: Any, level: str, m: pyssl.Moments, g: float, bias: bool) -> Any:
    """Return the landscape in plain NumPy by theory 4, for complex W too."""
    d, tau = m.dim, loss.temperature

    def value(W: np.ndarray) -> np.ndarray:
        V = W[..., :d]
        mean = V @ m.mean[:, None] + (W[..., d:] if bias else 0.0)
        P = V @ m.covariance @ t(V)
        total = 0.5 * g * trace(V @ t(V)) - trace(V @ m.cross_covariance @ t(V)) / tau
        if loss.partition == "conditional":
            return total + trace(P @ (P + mean @ t(mean))) / (2 * tau**2)
        if level == "effective":
            return total + trace(P @ (P + 2 * mean @ t(mean))) / (2 * tau**2)
        eye = np.eye(W.shape[-2])
        sign, logarithm = np.linalg.slogdet(eye - P @ P / tau**2)
        cost = t(mean) @ P @ np.linalg.solve(tau * eye - P, mean) / tau
        return total - 0.5 * (np.log(sign) + logarithm) + cost[..., 0, 0]

    return value


@dot
@levels
@pytest.mark.parametrize("bias", [False, True])
def test_dot_with_a_mean(loss: pyssl.InfoNCE, level: str, bias: bool) -> None:
    for m, k, rng in problems(5):
        land = getattr(loss, level)(m, k, weight_decay=0.3, bias=bias)
        assert land.shape == (k, m.dim + bias)
        assert isinstance(land, pyssl.SpectralLandscape) == bias
        expected = reference(loss, level, m, 0.3, bias)
        scale = 0.5 * np.sqrt(loss.temperature / np.trace(m.covariance) / k)
        W, D = scale * rng.standard_normal((2, k, m.dim + bias))  # inside the pole at P = tau
        W *= min(1.0, 0.9 * np.sqrt(0.8 / np.linalg.norm(W[:, : m.dim] @ m.covariance, 2)))
        check_gradient(land.value, land.gradient, W, reference=expected, rtol=1e-11)
        check_gradient(
            lambda W, land=land: land.value_and_gradient(W)[0],
            lambda W, land=land: land.value_and_gradient(W)[1],
            W,
            reference=expected,
            rtol=1e-11,
        )
        check_hvp(land.gradient, land.hvp, W, 0.1 * D, rtol=1e-8)
        by_columns = land.hessian(W) @ D.ravel()
        np.testing.assert_allclose(by_columns.reshape(W.shape), land.hvp(W, D), atol=1e-11)
        batch = W * np.linspace(-1.0, 1.0, 12).reshape(3, 4, 1, 1)
        np.testing.assert_allclose(land.value(batch), expected(batch), rtol=1e-10, atol=1e-14)
        singles = np.array([[land.gradient(w) for w in row] for row in batch])
        np.testing.assert_allclose(land.gradient(batch), singles, rtol=1e-10, atol=1e-13)
        bends = np.array([[land.hvp(w, D) for w in row] for row in batch])
        np.testing.assert_allclose(land.hvp(batch, D), bends, rtol=1e-9, atol=1e-12)
        u, v = np.linspace(-0.5, 0.5, 5), np.linspace(-0.5, 0.4, 4)
        points = W + u[:, None, None, None] * D + v[:, None, None] * W[::-1]
        surface = land.plane(W, D, W[::-1], u, v)
        inside = np.isfinite(land.value(points))
        assert inside[2].all()
        np.testing.assert_array_equal(np.isfinite(surface), inside)
        np.testing.assert_allclose(surface[inside], land.value(points)[inside], rtol=1e-9)
        single, *axes = (a.astype(np.float32) for a in (W, u, v))
        for got, full in (
            (land.value(single), land.value(W)),
            (land.gradient(single), land.gradient(W)),
            (land.hvp(single, single), land.hvp(W, W)),
            (land.plane(single, single, single, *axes), land.plane(W, W, W, u, v)),
        ):
            assert got.dtype == np.float32
            finite = np.isfinite(full)
            np.testing.assert_allclose(got[finite], full[finite], rtol=1e-3, atol=1e-4)


@dot
@pytest.mark.parametrize("bias", [False, True])
def test_dot_is_the_expectation(loss: pyssl.InfoNCE, bias: bool) -> None:
    rng = seeded(6)
    base = random_moments([0.75, 0.5, -0.25], rng)
    W = rng.standard_normal((2, 3))
    W *= 0.5 / np.sqrt(np.linalg.norm(W @ base.covariance @ W.T, 2))
    b = W @ [1.0, -0.5, 1.0]
    # the mean of the embeddings is what the landscape with a bias must make of W mu + b
    mean = np.array([1.0, -2.0, 2.0])
    shifted = mean + (np.linalg.pinv(W) @ b if bias else 0.0)
    seen, true = (
        pyssl.Moments(base.covariance, base.cross_covariance, offset) for offset in (mean, shifted)
    )
    land = loss.population(seen, 2, bias=bias)
    value = land.value(np.hstack([W, b[:, None]]) if bias else W)
    estimate, error = infonce_monte_carlo(loss, true, W, rng)
    centred = loss.population(base, 2).value(W)
    assert abs(value - estimate) < 4 * error
    assert abs(value - centred) > 8 * error  # the mean is what was tested


@dot
@pytest.mark.parametrize("bias", [False, True])
def test_dot_effective_is_the_fourth_order(loss: pyssl.InfoNCE, bias: bool) -> None:
    for m, k, rng in problems(7):
        effective, population = (getattr(loss, level)(m, k, 0.2, bias) for level in LEVELS)
        W = rng.standard_normal(effective.shape)
        W *= 0.05 / np.linalg.norm(W) / np.sqrt(np.trace(m.second_moment))
        gaps = [abs(effective.value(s * W) - population.value(s * W)) for s in (1.0, 2.0)]
        quartic = abs(effective.value(2 * W) - 4 * effective.value(W))
        assert max(gaps) < 1e-2 * quartic + 1e-16


@dot
@levels
def test_dot_with_a_bias_in_closed_form(loss: pyssl.InfoNCE, level: str) -> None:
    for m, k, rng in problems(8):
        g, d = 0.1, m.dim
        land = getattr(loss, level)(m, k, weight_decay=g, bias=True)
        without = getattr(loss, level)(m.centered(), k, weight_decay=g)
        np.testing.assert_array_equal(land.eigenvalues, without.eigenvalues)
        minimum, expected = land.minimum(), without.minimum()
        assert minimum.value == expected.value
        np.testing.assert_array_equal(minimum.weights[:, :d], expected.weights)
        bias = -expected.weights @ m.mean
        np.testing.assert_allclose(minimum.weights[:, d], bias, rtol=1e-12, atol=1e-14)
        change = np.zeros((d + 1, d + 1))  # W = U V', b = m - W mu
        change[:, :d], change[d, d] = land.vectors, 1.0
        to_modes = np.kron(np.eye(k), change)
        for point in islice(land.stationary_points(), 8):
            W = point.weights()
            assert land.value(W) == pytest.approx(point.value, rel=1e-10, abs=1e-13)
            assert np.abs(land.gradient(W)).max() < 1e-11
            spectrum = np.linalg.eigvalsh(to_modes.T @ land.hessian(W) @ to_modes)
            scale = np.abs(spectrum).max()
            np.testing.assert_allclose(point.hessian_spectrum(), spectrum, atol=1e-11 * scale)
            assert point.index == np.count_nonzero(spectrum < -1e-10 * scale)
        report, centred = pyssl.classify(land), pyssl.classify(without)
        assert (report.kind, report.rank) == (centred.kind, centred.rank)
        np.testing.assert_allclose(report.modes.alignment, centred.modes.alignment, atol=1e-13)
        modes = land.in_modes()
        W = modes.to_weights(0.1 * rng.standard_normal(modes.shape))
        np.testing.assert_allclose(W[:, d], -W[:, :d] @ m.mean, atol=1e-12)
        assert modes.value(modes.from_weights(W)) == pytest.approx(land.value(W), rel=1e-9)
        gradient = modes.gradient_to_weights(modes.gradient(modes.from_weights(W)))
        np.testing.assert_allclose(gradient, land.gradient(W), atol=1e-9)


def descend(land: Any, rng: np.random.Generator, starts: int = 6, size: float = 0.1) -> float:
    """Return the lowest value that minimisation from random starts finds."""

    def function(w: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = land.value_and_gradient(w.reshape(land.shape))
        return float(value), gradient.ravel()

    return min(
        scipy.optimize.minimize(
            function,
            size * rng.standard_normal(land.shape).ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-9},
        ).fun
        for _ in range(starts)
    )


def test_dot_minimum_with_a_bias_is_the_lowest() -> None:
    for number in range(12):
        rng = seeded(9, number)
        d, k = int(rng.integers(1, 5)), int(rng.integers(1, 4))
        m = random_moments(random_spectrum(d, rng), rng, mean=True)
        land = DOT[0].population(m, k, weight_decay=0.1, bias=True)
        assert descend(land, rng) == pytest.approx(land.minimum().value, rel=1e-7, abs=1e-10)


@dot
def test_without_a_bias_a_mean_costs_but_the_origin_is_the_same(loss: pyssl.InfoNCE) -> None:
    for m, k, rng in problems(10):
        a = np.sort(np.linalg.eigvalsh(m.cross_covariance))[::-1]
        land: Any = loss.effective(m, k, weight_decay=0.2)
        assert not hasattr(land, "minimum")
        assert (land.loss, land.moments) == (loss, m)
        np.testing.assert_allclose(land.origin_spectrum, a / loss.temperature, atol=1e-13)
        hessian = land.hessian(np.zeros((k, m.dim)))
        B = m.cross_covariance / loss.temperature - 0.1 * np.eye(m.dim)
        np.testing.assert_allclose(hessian, -2 * np.kron(np.eye(k), B), atol=1e-13)
        critical = land.critical_weight_decay
        assert critical.shape == (m.dim,)
        first = 2 * a[0] / loss.temperature
        if first <= 0.0:
            assert not critical.any()
            assert descend(loss.effective(m, k), rng) > -1e-12
            continue
        assert critical[0] == pytest.approx(first, rel=1e-12)
        assert np.isnan(critical[1:]).all()
        assert descend(loss.effective(m, k, weight_decay=1.01 * first), rng) > -1e-12
        below = loss.effective(m, k, weight_decay=0.9 * first)
        centred = loss.effective(m.centered(), k, weight_decay=0.9 * first).minimum()
        lowest = descend(below, rng)
        assert centred.value - 1e-12 < lowest < -1e-9
        if (m.mean @ m.mean) > 0:
            assert lowest > centred.value + 1e-9


def test_without_mean_or_bias_dot_is_spectral() -> None:
    m = pyssl.Moments(np.eye(2), 0.5 * np.eye(2))
    assert type(DOT[0].effective(m, 2)) is pyssl.SpectralLandscape


def test_beyond_the_pole_the_joint_partition_is_infinite() -> None:
    m = pyssl.Moments(np.eye(2), 0.5 * np.eye(2), [1.0, 0.0])
    for bias in (False, True):
        land = DOT[1].population(m, 2, bias=bias)
        W = 5.0 * np.eye(2, 2 + bias)
        assert land.value(W) == np.inf
        assert np.isnan(land.gradient(W)).any()
        assert np.isfinite(land.value(0.1 * W))
