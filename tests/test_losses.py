"""Landscapes of the losses against their definitions (theory 3 and 4)."""

from __future__ import annotations

import dataclasses
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize

import pyssl
from pyssl.testing import (
    SpectralReference,
    check_gradient,
    check_hvp,
    gaussian_views,
    infonce_monte_carlo,
    random_moments,
    random_spectrum,
)

INFONCE = [
    pyssl.InfoNCE(0.8, similarity, partition)
    for similarity in ("dot", "sqeuclidean")
    for partition in ("conditional", "joint")
]
BARLOW = pyssl.BarlowTwins(redundancy=1.0, normalize=False)
# every loss of the registry with the settings that have a spectral landscape
SPECTRAL: dict[str, list[pyssl.Loss]] = {
    "infonce": [*INFONCE],
    "spectral": [pyssl.SpectralContrastive()],
    "barlow_twins": [BARLOW],
    "squared_vicreg": [pyssl.SquaredVICReg(inv) for inv in (0.0, 0.5, 1.0, 2.5)],
    "ntxent": [],
    "vicreg": [],
}
LOSSES = [loss for group in SPECTRAL.values() for loss in group]
LEVELS = ("effective", "population")


def seeded(*key: int) -> np.random.Generator:
    return np.random.default_rng([3, 14, *key])


def sample(n: int, d: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of views of no particular distribution: skewed, shifted, unequal in scale."""
    mix = rng.standard_normal((d, d))
    clean = rng.exponential(size=(n, d)) @ mix + rng.standard_normal(d)
    noise = rng.uniform(-1.0, 1.0, (2, n, d)) * rng.uniform(0.2, 1.5, d)
    return clean + noise[0], clean + noise[1]


def centered(loss: pyssl.Loss, m: pyssl.Moments) -> pyssl.Moments:
    """Remove the mean where it makes a loss non-spectral."""
    return m.centered() if getattr(loss, "similarity", None) == "dot" else m


# ---- definitions: the empirical distribution is a distribution too ------------------------------


def spectral_contrastive(z: np.ndarray, z_plus: np.ndarray) -> float:
    pooled = np.concatenate([z, z_plus])  # a negative is a view of an independent sample
    return float(-2 * np.mean(np.sum(z * z_plus, axis=1)) + np.mean((pooled @ pooled.T) ** 2))


def barlow_twins(z: np.ndarray, z_plus: np.ndarray) -> float:
    mean = np.concatenate([z, z_plus]).mean(axis=0)
    cross = (z - mean).T @ (z_plus - mean) / len(z)
    return float(np.sum((np.eye(z.shape[1]) - 0.5 * (cross + cross.T)) ** 2))


def squared_vicreg(z: np.ndarray, z_plus: np.ndarray, invariance: float) -> float:
    covariance = np.cov(np.concatenate([z, z_plus]).T, bias=True).reshape(z.shape[1], -1)
    apart = np.mean(np.sum((z - z_plus) ** 2, axis=1))
    return float(invariance * apart + np.sum((np.eye(z.shape[1]) - covariance) ** 2))


DEFINITIONS: list[tuple[pyssl.Loss, Callable[[np.ndarray, np.ndarray], float]]] = [
    (pyssl.SpectralContrastive(), spectral_contrastive),
    (BARLOW, barlow_twins),
    *(
        (pyssl.SquaredVICReg(inv), lambda z, z_plus, inv=inv: squared_vicreg(z, z_plus, inv))
        for inv in (0.0, 1.0, 2.5)
    ),
]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("loss", "definition"), DEFINITIONS, ids=repr)
def test_value_is_the_definition(loss: pyssl.Loss, definition: Any, level: str) -> None:
    for k, d in ((1, 1), (2, 3), (5, 2), (4, 6)):
        rng = seeded(k, d)
        x, x_plus = sample(40, d, rng)
        g = rng.uniform(0.0, 1.0)
        land = getattr(loss, level)(pyssl.Moments.from_views(x, x_plus), k, weight_decay=g)
        for _ in range(3):
            W = rng.standard_normal((k, d))
            expected = definition(x @ W.T, x_plus @ W.T) + 0.5 * g * np.sum(W * W)
            np.testing.assert_allclose(land.value(W), expected, rtol=1e-11)


def test_spectral_contrastive_value_with_bias() -> None:
    for k, d in ((1, 1), (2, 3), (5, 2)):
        rng = seeded(k, d, 1)
        x, x_plus = sample(40, d, rng)
        moments = pyssl.Moments.from_views(x, x_plus)
        land = pyssl.SpectralContrastive().population(moments, k, weight_decay=0.4, bias=True)
        assert land.shape == (k, d + 1)
        W, b = rng.standard_normal((k, d)), rng.standard_normal((k, 1))
        z, z_plus = x @ W.T + b.T, x_plus @ W.T + b.T
        expected = spectral_contrastive(z, z_plus) + 0.2 * np.sum(W * W)  # b does not decay
        np.testing.assert_allclose(land.value(np.hstack([W, b])), expected, rtol=1e-11)


def test_barlow_twins_value_is_a_squared_distance() -> None:
    rng = seeded(2)
    m = random_moments(random_spectrum(4, rng), rng)  # A indefinite
    land = BARLOW.population(m, 3, weight_decay=0.3)
    W = rng.standard_normal((3, 4))
    expected = np.sum((np.eye(3) - W @ m.cross_covariance @ W.T) ** 2) + 0.15 * np.sum(W * W)
    np.testing.assert_allclose(land.value(W), expected, rtol=1e-13)


def test_squared_vicreg_at_one_is_spectral_contrastive() -> None:
    rng = seeded(3)
    m = random_moments(random_spectrum(4, rng, positive=True), rng)  # zero mean
    one = pyssl.SquaredVICReg(1.0).population(m, 3)
    other = pyssl.SpectralContrastive().population(m, 3)
    W = rng.standard_normal((3, 4))
    np.testing.assert_allclose(one.value(W), other.value(W) + 3.0, rtol=1e-13)
    np.testing.assert_allclose(one.eigenvalues, other.eigenvalues, rtol=1e-13)


# ---- InfoNCE: the population by its definition (3.1) --------------------------------------------


@pytest.mark.parametrize("loss", INFONCE, ids=repr)
def test_infonce_population_by_monte_carlo(loss: pyssl.InfoNCE) -> None:
    for k, d in ((1, 2), (3, 3), (4, 2)):
        rng = seeded(k, d, 2)
        alignments = random_spectrum(d, rng, positive=True)
        m = random_moments(alignments, rng, mean=loss.similarity == "sqeuclidean")
        W = 0.25 * rng.standard_normal((k, d))
        top = np.linalg.eigvalsh(W @ m.covariance @ W.T)[-1]
        W *= np.sqrt(0.35 / max(top, 0.35))  # so that the kernel of "dot" has a variance at all
        estimate, error = infonce_monte_carlo(loss, m, W, rng)
        value = float(loss.population(m, k).value(W))
        assert 0.0 < error < 0.02
        assert abs(estimate - value) < 4 * error, (estimate, value, error)


@pytest.mark.parametrize("loss", INFONCE, ids=repr)
@pytest.mark.parametrize("size", [0.05, 0.3, 0.7])
def test_infonce_population_by_quadrature(loss: pyssl.InfoNCE, size: float) -> None:
    # one unit: z and z' are Gaussian numbers of variance P, and the definition is a double integral
    rng = seeded(4)
    m = random_moments(random_spectrum(3, rng, positive=True), rng)
    w = rng.standard_normal((1, 3))
    tau = loss.temperature
    w *= math.sqrt(size * tau / float((w @ m.covariance @ w.T)[0, 0]))
    variance = float((w @ m.covariance @ w.T)[0, 0])
    aligned = float((w @ m.cross_covariance @ w.T)[0, 0])
    nodes, weights = np.polynomial.hermite_e.hermegauss(180)
    weights = weights / weights.sum()
    z = math.sqrt(variance) * nodes
    if loss.similarity == "dot":
        logits, positive = np.outer(z, z) / tau, aligned / tau
    else:
        logits = -0.5 * (z[:, None] - z) ** 2 / tau
        positive = -(variance - aligned) / tau
    inner = np.exp(logits) @ weights
    if loss.partition == "conditional":
        uniformity = weights @ np.log(inner)
    else:
        uniformity = math.log(weights @ inner)
    value = loss.population(m, 1).value(w)
    np.testing.assert_allclose(value, uniformity - positive, rtol=1e-9)


@pytest.mark.parametrize("loss", INFONCE, ids=repr)
def test_infonce_effective_is_the_population_to_fourth_order(loss: pyssl.InfoNCE) -> None:
    rng = seeded(5)
    m = random_moments(random_spectrum(3, rng, positive=True), rng)
    effective, population = loss.effective(m, 2), loss.population(m, 2)
    W = rng.standard_normal((2, 3))
    gaps = [effective.value(t * W) - population.value(t * W) for t in (0.02, 0.01, 0.005)]
    if (loss.similarity, loss.partition) == ("dot", "conditional"):
        np.testing.assert_allclose(gaps, 0.0, atol=1e-18)  # the quartic is exact
    else:  # what remains is of order six, or eight for "dot, joint"
        order = 8 if loss.similarity == "dot" else 6
        np.testing.assert_allclose(gaps[0] / gaps[1], 2.0**order, rtol=0.02)


@pytest.mark.parametrize("loss", INFONCE, ids=repr)
@pytest.mark.parametrize("g", [0.0, 0.2])
def test_infonce_minimiser_of_the_table(loss: pyssl.InfoNCE, g: float) -> None:
    rng = seeded(6)
    m = random_moments(random_spectrum(5, rng, positive=True), rng)
    tau = loss.temperature
    t = scipy.linalg.eigh(m.cross_covariance - 0.5 * g * tau * np.eye(5), m.covariance)[0][::-1]
    if g == 0.0:
        np.testing.assert_allclose(t, m.alignments)  # t = rho without decay
    e = 1.0 - t
    y = 4.0 * e / (1.0 + np.sqrt(1.0 + 8.0 * e))
    root = np.sqrt(1.0 + 4.0 * t * t)
    expected = {
        ("dot", "conditional"): tau * t,
        ("dot", "joint"): tau * (root - 1.0) / (2.0 * t),
        ("sqeuclidean", "conditional"): tau * (1.0 - y) / y,
        ("sqeuclidean", "joint"): tau * t / (2.0 * (1.0 - t)),
    }[loss.similarity, loss.partition]
    active = (np.arange(5) < 3) & (t > 0.0)
    minimum = loss.population(m, 3, weight_decay=g).minimum()
    np.testing.assert_allclose(minimum.amplitudes, np.where(active, expected, 0.0), rtol=1e-11)
    effective = loss.effective(m, 3, weight_decay=g).minimum()
    q = {"dotconditional": 0.5, "dotjoint": 0.5, "sqeuclideanconditional": 0.75,
         "sqeuclideanjoint": 1.0}[loss.similarity + loss.partition] / tau**2  # fmt: skip
    np.testing.assert_allclose(
        effective.amplitudes, np.where(active, t / tau / (2 * q), 0.0), rtol=1e-11
    )
    np.testing.assert_allclose(
        effective.value, -np.sum((t[active] / tau) ** 2) / (4 * q), rtol=1e-12
    )


def test_infonce_ignores_the_mean_for_sqeuclidean() -> None:
    rng = seeded(7)
    m = random_moments(random_spectrum(3, rng, positive=True), rng, mean=True)
    assert m.mean.any()
    W = rng.standard_normal((2, 3))
    for partition in ("conditional", "joint"):
        loss = pyssl.InfoNCE(0.5, "sqeuclidean", partition)
        assert loss.population(m, 2).value(W) == loss.population(m.centered(), 2).value(W)


# ---- minima that are not attained (2.2) ---------------------------------------------------------


@pytest.mark.parametrize("partition", ["conditional", "joint"])
@pytest.mark.parametrize("seed", range(6))
def test_infonce_diverges_where_nothing_augments(partition: str, seed: int) -> None:
    rng = seeded(8, seed)
    alignments = [1.0, *random_spectrum(3, rng, positive=True)]
    m = random_moments(alignments, rng, commuting=seed % 2 == 1, nulls=seed % 3)
    loss = pyssl.InfoNCE(0.5, "sqeuclidean", partition)
    for k in (1, 2, 5):
        minimum = loss.population(m, k).minimum()
        assert not minimum.attained and minimum.bounded
        assert minimum.value == -math.inf
        assert np.isinf(minimum.amplitudes).tolist() == [True] + [False] * (m.dim - 1)
        assert np.isnan(minimum.weights).all()
        for g in (1e-300, 1e-100, 1e-20, 1e-8, 1e-3):  # any decay at all holds it
            held = loss.population(m, k, weight_decay=g).minimum()
            assert held.attained
            assert np.isfinite(held.weights).all() and np.isfinite(held.value)
            # below eps the rounding of C hides g in all but a commuting pencil
            assert held.amplitudes[0] > 0.04 / max(g, 1e-15)
            # the deficit is at least g/(2 s) whatever the rounding, and n about half its inverse
            assert held.amplitudes[0] < 1.01 * np.linalg.eigvalsh(m.covariance)[-1] / g
    # the dot similarity is always held by its own fourth order, and so is the effective landscape
    assert pyssl.InfoNCE(0.5, "dot", partition).population(m, 2).minimum().attained
    assert loss.effective(m, 2).minimum().attained


@pytest.mark.parametrize("partition", ["conditional", "joint"])
def test_infonce_amplitude_of_a_held_direction(partition: str) -> None:
    # commuting, one direction without augmentation: its deficit is exactly g/(2 s)
    tau, s = 0.5, 4.0
    m = pyssl.Moments(np.diag([s, 1.0]), np.diag([s, 0.5]))
    loss = pyssl.InfoNCE(tau, "sqeuclidean", partition)
    for g in (1e-250, 1e-60, 1e-14, 1e-3):
        e = tau * g / (2 * s)
        if partition == "joint":
            n = tau * (1 - e) / (2 * e)
        else:
            y = 4 * e / (1 + math.sqrt(1 + 8 * e))
            n = tau * (1 - y) / y
        minimum = loss.population(m, 2, weight_decay=g).minimum()
        np.testing.assert_allclose(minimum.amplitudes[0], n, rtol=1e-14)


def test_rounding_is_no_missing_augmentation() -> None:
    # half of every direction's variance is augmentation, also where both come near to rounding
    loss = pyssl.InfoNCE(partition="joint")
    for s in (1e-10, 5e-15, 6e-16, 1e-16, 1e-20):
        m = pyssl.Moments(np.diag([1.0, s]), np.diag([0.5, s / 2]))
        minimum = loss.population(m, 2).minimum()
        assert minimum.attained
        np.testing.assert_allclose(minimum.amplitudes[0], 0.5, rtol=1e-12)
    for seed in range(20):
        rng = seeded(21, seed)
        basis = np.linalg.qr(rng.standard_normal((60, 60)))[0]
        sigma = (basis * np.logspace(0, -18, 60)) @ basis.T
        sigma = 0.5 * (sigma + sigma.T)
        assert loss.population(pyssl.Moments(sigma, 0.5 * sigma), 60).minimum().attained
        # one direction without is still found among them
        first = np.outer(basis[:, 0], basis[:, 0])
        m = pyssl.Moments(sigma, 0.5 * sigma + 0.5 * first)
        amplitudes = loss.population(m, 60).minimum().amplitudes
        assert np.isinf(amplitudes).tolist() == [True] + [False] * 59


def test_weak_augmentation_is_seen_however_weak() -> None:
    # from samples C comes from the differences: 1e-6 of the data's scale, and a large mean
    rng = seeded(9)
    clean = 4096.0 + rng.standard_normal((400, 3))
    noise = rng.standard_normal((400, 3)) * [2.0**-20, 0.5, 0.5]
    x, x_plus = clean + noise, clean - noise
    m = pyssl.Moments.from_views(x, x_plus)
    minimum = pyssl.InfoNCE(partition="joint").population(m, 3).minimum()
    assert minimum.attained
    c = np.mean((x - x_plus)[:, 0] ** 2) / 2
    # n = tau t/(2 (1 - t)) and 1 - t = min over v of v'Cv/v'Sigma v, here almost along e_1
    deficit = scipy.linalg.eigh(m.augmentation_covariance, m.covariance)[0][0]
    np.testing.assert_allclose(deficit, c / np.var(clean[:, 0]), rtol=0.05)
    np.testing.assert_allclose(minimum.amplitudes[0], (1 - deficit) / (2 * deficit), rtol=1e-3)
    # the same views without it have none
    x[:, 0] = x_plus[:, 0]
    m = pyssl.Moments.from_views(x, x_plus)
    assert not pyssl.InfoNCE(partition="joint").population(m, 3).minimum().attained
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    m = pyssl.Moments.from_views(x @ turn, x_plus @ turn)
    assert not pyssl.InfoNCE(partition="joint").population(m, 3).minimum().attained


def test_low_rank_samples_are_bounded_and_attained() -> None:
    # ill-conditioned data on a subspace: rounding couples its null space to the rest, theory 2.5
    for seed in range(40):
        rng = seeded(19, seed)
        d, n = int(rng.integers(10, 60)), 200
        rank = d - int(rng.integers(1, 6))
        shape = rng.standard_normal((rank, d)) * np.exp(rng.uniform(-6.0, 6.0, d))
        clean = rng.standard_normal((n, rank)) @ shape
        views = [clean + rng.standard_normal((n, rank)) @ shape for _ in range(2)]
        m = pyssl.Moments.from_views(*views)
        assert m.rank < d
        for loss in LOSSES:
            for g in (0.0, 1e-12, 1e-3):
                land = loss.population(centered(loss, m), d, weight_decay=g)
                minimum = land.minimum()
                assert minimum.bounded and minimum.attained, (seed, loss, g)
        direct = pyssl.SpectralLandscape(m.cross_covariance, m.covariance, pyssl.Quartic(1.0), d)
        assert direct.bounded


@pytest.mark.parametrize("g", [1e-13, 1e-6])
def test_decay_clears_the_null_space_of_the_views(g: float) -> None:
    # however weak: what W does where the views do not vary only costs
    for seed in range(5):
        rng = seeded(20, seed)
        m = random_moments(random_spectrum(4, rng, positive=True), rng, nulls=3, commuting=True)
        null = scipy.linalg.null_space(m.covariance, rcond=1e-12)
        for loss in LOSSES:
            minimum = loss.population(m, 4, weight_decay=g).minimum()
            assert minimum.rank == 4 or isinstance(loss, pyssl.SquaredVICReg)
            np.testing.assert_allclose(minimum.weights @ null, 0.0, atol=1e-13)


# ---- every loss: derivatives, minima, stationary points -----------------------------------------


def test_the_registry_is_covered() -> None:
    assert set(SPECTRAL) == set(pyssl.LOSSES)
    for key, group in SPECTRAL.items():
        assert pyssl.LOSSES[key].key == key
        assert {type(loss) for loss in group} <= {pyssl.LOSSES[key]}


def cases() -> list[Any]:
    plain = [(loss, level, False) for loss in LOSSES for level in LEVELS]
    biased = [(loss, level, True) for loss in SPECTRAL["spectral"] for level in LEVELS]
    return [pytest.param(*case, id="-".join(map(str, case))) for case in plain + biased]


@pytest.mark.parametrize(("loss", "level", "bias"), cases())
def test_derivatives(loss: pyssl.Loss, level: str, bias: bool) -> None:
    rng = seeded(10)
    m = centered(loss, random_moments(random_spectrum(3, rng, positive=True), rng, mean=True))
    land = getattr(loss, level)(m, 4, weight_decay=0.2, bias=bias)
    assert land.shape == (4, 3 + bias)
    reference = SpectralReference.of(land)
    W, D = 0.2 * rng.standard_normal((2, *land.shape))
    check_gradient(land.value, land.gradient, W, reference=reference.value)
    check_hvp(land.gradient, land.hvp, W, D, reference=reference.gradient)


@pytest.mark.parametrize(("loss", "level", "bias"), cases())
def test_minimum_is_what_minimisation_finds(loss: pyssl.Loss, level: str, bias: bool) -> None:
    for k, nulls, indefinite in ((2, 0, False), (5, 0, True), (3, 1, False)):
        rng = seeded(11, k)
        alignments = random_spectrum(4 - nulls, rng, positive=not indefinite)
        m = centered(loss, random_moments(alignments, rng, mean=True, nulls=nulls))
        land = getattr(loss, level)(m, k, weight_decay=0.1, bias=bias)
        minimum = land.minimum()
        assert minimum.attained
        np.testing.assert_allclose(land.value(minimum.weights), minimum.value, rtol=1e-10)
        assert np.abs(land.gradient(minimum.weights)).max() < 1e-10

        def objective(w: np.ndarray, land: Any = land) -> tuple[float, np.ndarray]:
            value, gradient = land.value_and_gradient(w.reshape(land.shape))
            if not np.isfinite(value):
                return 1e3, 0.0 * w  # outside the domain of dot-joint
            return float(value), gradient.ravel()

        for _ in range(3):
            found = scipy.optimize.minimize(
                objective, 0.1 * rng.standard_normal(k * land.shape[1]), jac=True,
                method="L-BFGS-B", options={"maxiter": 5000, "ftol": 1e-16, "gtol": 1e-11},
            )  # fmt: skip
            np.testing.assert_allclose(found.fun, minimum.value, rtol=1e-9, atol=1e-11)
            W = found.x.reshape(land.shape)
            invariant = minimum.weights.T @ minimum.weights
            np.testing.assert_allclose(W.T @ W, invariant, atol=1e-4 * (1 + invariant.max()))


@pytest.mark.parametrize(("loss", "level", "bias"), cases())
def test_stationary_points(loss: pyssl.Loss, level: str, bias: bool) -> None:
    rng = seeded(12)
    for nulls, indefinite, g in ((0, False, 0.0), (1, False, 0.2), (0, True, 0.2), (0, True, 0.0)):
        alignments = random_spectrum(4 - nulls, rng, positive=not indefinite)
        m = centered(loss, random_moments(alignments, rng, mean=True, nulls=nulls))
        land = getattr(loss, level)(m, 3, weight_decay=g, bias=bias)
        reference = SpectralReference.of(land)
        frame = coordinates(land)
        values = []
        for point in land.stationary_points():
            W = point.weights()
            np.testing.assert_allclose(reference.gradient(W), 0.0, atol=1e-11)
            np.testing.assert_allclose(point.value, reference.value(W), rtol=1e-11, atol=1e-12)
            dense = np.linalg.eigvalsh(reference.hessian_in_modes(W, frame))
            top = np.abs(dense).max()
            np.testing.assert_allclose(point.hessian_spectrum(), dense, rtol=1e-8, atol=1e-11 * top)
            assert point.index == np.count_nonzero(dense < -1e-9 * top)
            values.append(point.value)
        assert values == sorted(values)


def coordinates(land: pyssl.SpectralLandscape) -> np.ndarray:
    """A frame T with T'ST = diag(1, -1, 0), T'BT diagonal, of unit length on the null space."""
    null = scipy.linalg.null_space(land.S, rcond=1e-12)
    complement = scipy.linalg.null_space(null.T)
    level, turn = np.linalg.eigh(null.T @ land.B @ null)
    null = null @ turn
    steep = np.abs(level) > 1e-12
    inverse = np.where(steep, -1.0 / np.where(steep, level, 1.0), 0.0)
    lifted = complement + null * inverse @ (null.T @ land.B @ complement)
    signal, scale = lifted.T @ land.B @ lifted, lifted.T @ land.S @ lifted
    values, basis = np.linalg.eigh(scale)
    if values[0] > 0.0:
        vectors = scipy.linalg.eigh(signal, scale)[1]
    else:  # Barlow Twins on an indefinite A, with which its B commutes
        vectors = basis / np.sqrt(np.abs(values))
    return np.hstack([lifted @ vectors, null])


# ---- spectral contrastive (3.3, 4) --------------------------------------------------------------


def test_spectral_contrastive_learns_the_uncentred_alignments() -> None:
    rng = seeded(13)
    m = random_moments(random_spectrum(4, rng, positive=True), rng, mean=True)
    minimum = pyssl.SpectralContrastive().population(m, 3).minimum()
    rho = scipy.linalg.eigh(m.cross_moment, m.second_moment)[0][::-1]
    np.testing.assert_allclose(minimum.amplitudes, [*rho[:3], 0.0], rtol=1e-12)
    np.testing.assert_allclose(minimum.value, -np.sum(rho[:3] ** 2), rtol=1e-12)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("g", [0.0, 0.3, 100.0])
@pytest.mark.parametrize("nulls", [0, 2])
def test_bias_adds_the_constant_function(mean: bool, g: float, nulls: int) -> None:
    rng = seeded(14)
    for d in (1, 3, 6):
        alignments = random_spectrum(d, rng, positive=True)
        m = random_moments(alignments, rng, mean=mean, nulls=nulls)
        land = pyssl.SpectralContrastive().population(m, 3, weight_decay=g, bias=True)
        centred = pyssl.SpectralContrastive().population(m.centered(), 3, weight_decay=g)
        assert land.eigenvalues.shape == (m.dim + 1,)
        assert land.eigenvalues[0] == 2.0  # exactly: rho = 1
        np.testing.assert_array_equal(land.eigenvalues[1:], centred.eigenvalues)
        numerical = scipy.linalg.null_space(land.S, rcond=1e-12).shape[1]
        assert numerical == nulls
        if not nulls:
            np.testing.assert_allclose(
                land.eigenvalues, scipy.linalg.eigh(land.B, land.S)[0][::-1], rtol=1e-9, atol=1e-12
            )
        minimum = land.minimum()
        assert minimum.amplitudes[0] == 1.0
        # the constant costs one dimension; nothing moves its embedding but the bias
        assert minimum.rank == min(3, 1 + np.count_nonzero(centred.eigenvalues > 0.0))
        np.testing.assert_allclose(minimum.weights[0], [*np.zeros(m.dim), 1.0])
        assert np.abs(land.gradient(minimum.weights)).max() < 1e-11


def test_bias_is_used_as_theory_says() -> None:
    # the optimal bias of centred modes removes the mean
    m = pyssl.Moments(np.eye(2), np.diag([0.9, 0.4]), [3.0, -2.0])
    W = pyssl.SpectralContrastive().population(m, 3, bias=True).minimum().weights
    np.testing.assert_allclose(W[1:, 2], -W[1:, :2] @ [3.0, -2.0], atol=1e-14)


# ---- Barlow Twins (3.4) -------------------------------------------------------------------------


@pytest.mark.parametrize("g", [0.0, 0.2, 1.0, 3.0])
def test_barlow_twins_closed_form(g: float) -> None:
    rng = seeded(15)
    for d in range(1, 7):
        m = random_moments(random_spectrum(d, rng), rng)
        a, basis = np.linalg.eigh(m.cross_covariance)
        land = BARLOW.population(m, d, weight_decay=g)
        positive = np.sort(a[a > 0.0])[::-1]
        lam = 2.0 - g / (2.0 * positive)
        np.testing.assert_allclose(land.eigenvalues[: len(lam)], lam, rtol=1e-11, atol=1e-13)
        learned = positive > g / 4.0
        minimum = land.minimum()
        assert minimum.rank == np.count_nonzero(learned)
        n = 1.0 - g / (4.0 * positive[learned])
        np.testing.assert_allclose(minimum.amplitudes[: minimum.rank], n, rtol=1e-11)
        np.testing.assert_allclose(minimum.value, d - np.sum(n**2), rtol=1e-12)
        # never along the modes with a <= 0, nor mixed with them
        np.testing.assert_allclose(minimum.weights @ basis[:, a <= g / 4.0], 0.0, atol=1e-12)
        np.testing.assert_allclose(
            land.value(minimum.weights), minimum.value, rtol=1e-12, atol=1e-14 * d
        )


def test_barlow_twins_of_a_sample() -> None:
    # true rank 3; the sample's A has positive and negative eigenvalues of noise beside them
    rng = seeded(16)
    clean = rng.standard_normal((200, 3)) @ rng.standard_normal((3, 10))
    x, x_plus = (clean + rng.standard_normal(clean.shape) for _ in range(2))
    m = pyssl.Moments.from_views(x, x_plus)
    a = np.linalg.eigvalsh(m.cross_covariance)
    positive = np.count_nonzero(a > 0.0)
    assert 3 < positive < 10
    for k in (2, positive, 12):
        land = BARLOW.population(m, k)
        minimum = land.minimum()
        assert minimum.rank == min(k, positive)
        assert minimum.degenerate == (k < positive)
        np.testing.assert_array_equal(land.eigenvalues[:positive], 2.0)
        assert (land.eigenvalues[positive:] <= 0.0).all()
        np.testing.assert_allclose(minimum.value, k - minimum.rank, atol=1e-12)
        np.testing.assert_allclose(
            minimum.weights @ m.cross_covariance @ minimum.weights.T,
            np.diag(np.arange(k) < minimum.rank).astype(float),
            atol=1e-10,
        )
        # all modes tie: one stationary orbit for each rank, every one a strict saddle but the last
        points = list(land.stationary_points())
        assert [len(point.active) for point in points] == list(range(minimum.rank, -1, -1))
        assert [point.index == 0 for point in points] == [True] + [False] * minimum.rank


# ---- SquaredVICReg (3.5) ------------------------------------------------------------------------


def test_invariance_alone_collapses_a_direction() -> None:
    # beyond inv = 1 a direction is lost where c (inv - 1) > a
    m = pyssl.Moments(np.eye(3), np.diag([0.9, 0.5, 0.2]))
    for inv, rank in ((1.0, 3), (1.2, 3), (1.3, 2), (1.9, 2), (2.1, 1), (9.9, 1), (10.1, 0)):
        assert pyssl.SquaredVICReg(inv).population(m, 3).minimum().rank == rank


def test_complete_collapse_under_decay() -> None:
    # iff the largest eigenvalue of A is at most g tau/2 (theory 3.1); C does not enter
    rng = seeded(17)
    for loss in INFONCE:
        m = random_moments(random_spectrum(4, rng, positive=True), rng)
        top = np.linalg.eigvalsh(m.cross_covariance)[-1]
        critical = 2.0 * top / loss.temperature
        for strength in (0.5, 3.0):
            stronger = m.with_augmentation_strength(strength)
            for level in LEVELS:
                make = getattr(loss, level)
                assert make(stronger, 4, weight_decay=critical * (1 - 1e-9)).minimum().rank == 1
                assert make(stronger, 4, weight_decay=critical * (1 + 1e-9)).minimum().rank == 0


# ---- settings and what is missing ---------------------------------------------------------------


@pytest.mark.parametrize("key", pyssl.LOSSES)
def test_losses_are_frozen_values(key: str) -> None:
    loss = pyssl.LOSSES[key]()
    assert loss == pyssl.LOSSES[key]()
    assert hash(loss) == hash(pyssl.LOSSES[key]())
    assert eval(repr(loss), {**vars(pyssl), "inf": math.inf}) == loss
    field = dataclasses.fields(loss)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(loss, field, 1.0)


MISSING: list[tuple[pyssl.Loss, str, dict[str, Any], str]] = [
    (pyssl.NTXent(), "effective", {"depth": 2}, "more than one layer .* NTXentLandscape"),
    (pyssl.BarlowTwins(), "population", {"depth": 2}, "more than one layer .* Normalized"),
    (pyssl.VICReg(), "population", {"depth": 3}, "more than one layer .* VICRegLandscape"),
    (pyssl.InfoNCE(negatives=7), "effective", {"depth": 2}, "more than one layer .* SolvedFinite"),
    (pyssl.InfoNCE(similarity="dot"), "effective", {"depth": 2, "mean": 1}, "PenalisedMean"),
    (pyssl.NTXent(), "population", {}, "no closed form"),
    (pyssl.VICReg(), "effective", {}, "no fourth-order expansion; see SquaredVICReg"),
    (pyssl.BarlowTwins(), "effective", {}, "no expansion around the origin"),
    (pyssl.InfoNCE(negatives=7), "population", {}, "no closed form"),
    (pyssl.InfoNCE(negatives=7, partition="joint"), "effective", {}, "finite batch"),
    (pyssl.InfoNCE(normalize=True), "effective", {}, "normalised embeddings"),
    (pyssl.SpectralContrastive(clip=1.0), "effective", {}, "clipped"),
]


@pytest.mark.parametrize(
    ("loss", "level", "options", "reason"), MISSING, ids=[f"{m[0]}-{m[1]}" for m in MISSING]
)
def test_what_is_missing_says_why(
    loss: pyssl.Loss, level: str, options: dict[str, Any], reason: str
) -> None:
    options = dict(options)
    m = pyssl.Moments(np.eye(2), 0.5 * np.eye(2), [1.0, 0.0] if options.pop("mean", 0) else None)
    with pytest.raises(NotImplementedError, match=f"{type(loss).__name__}.{level}: .*{reason}"):
        getattr(loss, level)(m, 2, **options)


@pytest.mark.parametrize("key", pyssl.LOSSES)
def test_arguments_are_checked(key: str) -> None:
    loss = pyssl.LOSSES[key]()
    m = pyssl.Moments(np.eye(2), 0.5 * np.eye(2))
    for level in LEVELS:
        make = getattr(loss, level)
        with pytest.raises(TypeError, match=r"moments must be pyssl\.Moments"):
            make(np.eye(2), 2)
        with pytest.raises(ValueError, match="embedding_dim must be at least 1, got 0"):
            make(m, 0)
        with pytest.raises(TypeError, match="embedding_dim must be an integer"):
            make(m, 2.0)
        with pytest.raises(ValueError, match=r"weight_decay must be >= 0, got -0\.1"):
            make(m, 2, weight_decay=-0.1)
        with pytest.raises(ValueError, match="weight_decay must be finite"):
            make(m, 2, weight_decay=math.nan)
        with pytest.raises(TypeError, match="bias must be True or False"):
            make(m, 2, bias=1)
        with pytest.raises(ValueError, match="depth must be at least 1"):
            make(m, 2, depth=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pyssl.InfoNCE(0.0), "temperature must be > 0, got 0"),
        (lambda: pyssl.InfoNCE(negatives=0), "negatives must be >= 1, got 0"),
        (lambda: pyssl.InfoNCE(negatives=1.5), "negatives must be an integer or infinite"),
        (lambda: pyssl.InfoNCE(similarity="cosine"), "similarity must be one of"),
        (lambda: pyssl.InfoNCE(partition="mean"), "partition must be one of"),
        (lambda: pyssl.NTXent(math.inf), "temperature must be finite"),
        (lambda: pyssl.SpectralContrastive(clip=0.0), "clip must be > 0"),
        (lambda: pyssl.SpectralContrastive(negatives="some"), "negatives must be one of"),
        (lambda: pyssl.BarlowTwins(-1.0), "redundancy must be >= 0"),
        (lambda: pyssl.BarlowTwins(epsilon=-1.0), "epsilon must be >= 0"),
        (lambda: pyssl.VICReg(epsilon=0.0), "epsilon must be > 0"),
        (lambda: pyssl.VICReg(variance=-1.0), "variance must be >= 0"),
        (lambda: pyssl.SquaredVICReg(math.nan), "invariance must be finite"),
    ],
)
def test_settings_are_checked(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_gaussian_views_have_their_moments() -> None:
    rng = seeded(18)
    m = random_moments(random_spectrum(3, rng), rng, mean=True, nulls=1)
    n = 200_000
    sample_moments = pyssl.Moments.from_views(*gaussian_views(m, n, rng))
    # the standard error of a covariance of Gaussians is at most sqrt(2/n) of the largest variance
    error = 5 * math.sqrt(2 / n) * np.diag(m.covariance).max()
    np.testing.assert_allclose(sample_moments.covariance, m.covariance, atol=error)
    np.testing.assert_allclose(sample_moments.cross_covariance, m.cross_covariance, atol=error)
    np.testing.assert_allclose(sample_moments.mean, m.mean, atol=error)


@pytest.mark.parametrize(
    "loss", [pyssl.VICReg(), pyssl.BarlowTwins(), pyssl.BarlowTwins(0.3, normalize=False)], ids=str
)
def test_landscapes_without_closed_form_pickle(loss: pyssl.Loss) -> None:
    rng = seeded(19)
    land = loss.population(random_moments(random_spectrum(3, rng), rng), 2, weight_decay=0.2)
    again = pickle.loads(pickle.dumps(land))
    W = rng.standard_normal(land.shape)
    assert again.value(W) == land.value(W)
    assert again._remake(1, 0.0).shape == (1, 3)
