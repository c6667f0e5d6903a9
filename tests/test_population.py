"""Population landscapes of Barlow Twins: definitions, derivatives, thresholds (theory 3.4)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.optimize

import pyssl
from pyssl.testing import check_gradient, check_hvp, random_moments, random_spectrum

FREE = [pyssl.BarlowTwins(redundancy, normalize=False) for redundancy in (0.0, 0.3, 2.0)]
NORMALIZED = [pyssl.BarlowTwins(redundancy, epsilon=0.0) for redundancy in (5e-3, 0.4, 1.0)]
VICREG = [
    pyssl.VICReg(),
    pyssl.VICReg(3.0, 2.0, 0.7, epsilon=0.2, halve_variance=False),
    pyssl.VICReg(3.0, 2.0, 0.7, epsilon=1.5),
]
LOSSES = [*FREE, *NORMALIZED, *VICREG]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=repr)
both_biases = pytest.mark.parametrize("bias", [False, True])


def seeded(*key: int) -> np.random.Generator:
    return np.random.default_rng([3, 4, *key])


def problem(d: int, rng: np.random.Generator, *, nulls: int = 0) -> pyssl.Moments:
    return random_moments(random_spectrum(d - nulls, rng), rng, nulls=nulls, mean=True)


def exact_views(m: pyssl.Moments, n: int, rng: np.random.Generator) -> Any:
    """Return views (n, d) whose sample moments, with 1/n and by view, are `m` to rounding."""
    sigma, a = m.covariance, m.cross_covariance
    joint = np.block([[sigma, a], [a, sigma]])
    spectrum, basis = np.linalg.eigh(joint)
    root = basis * np.sqrt(np.maximum(spectrum, 0.0)) @ basis.T
    draws = rng.standard_normal((n, len(joint)))
    whitened = np.linalg.qr(draws - draws.mean(axis=0))[0] * np.sqrt(n)
    x, x_plus = np.split(whitened @ root, 2, axis=1)
    return x + m.mean, x_plus + m.mean


def minimise(land: pyssl.Landscape, start: np.ndarray) -> tuple[float, np.ndarray]:
    def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = land.value_and_gradient(w.reshape(land.shape))
        return float(value), gradient.ravel()

    found = scipy.optimize.minimize(
        objective,
        start.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 0.0, "gtol": 1e-10, "maxiter": 5000},
    )
    return float(found.fun), found.x.reshape(land.shape)


def best_of(land: pyssl.Landscape, rng: np.random.Generator, starts: int) -> Any:
    found = [minimise(land, rng.standard_normal(land.shape)) for _ in range(starts)]
    return min(found, key=lambda pair: pair[0])


# ---- the definition ------------------------------------------------------------------------------


@every_loss
@both_biases
@pytest.mark.parametrize(("k", "d"), [(1, 1), (3, 4), (5, 2)])
def test_is_the_loss_of_a_batch_with_these_moments(
    loss: pyssl.Loss, bias: bool, k: int, d: int
) -> None:
    n = 40
    rng = seeded(1, k, d)
    m = problem(d, rng)
    x, x_plus = exact_views(m, n, rng)
    if isinstance(loss, pyssl.VICReg):
        # variances and covariances of a batch are divided by n - 1, distances by n
        wide = m.covariance * (n / (n - 1))
        m = pyssl.Moments(wide, wide - m.augmentation_covariance)
    theory = loss.population(m, k, weight_decay=0.3, bias=bias)
    sample = loss.empirical(x, x_plus, k, weight_decay=0.3, bias=bias)
    assert theory.shape == sample.shape
    W, D = rng.standard_normal((2, *theory.shape))
    if isinstance(loss, pyssl.VICReg) and k > 1:
        W[0] *= 0.1  # some hinges active, others not
        assert len(set(np.sign(theory.kinks(W)))) == (1 if loss.epsilon > 1.0 else 2)
    for name in ("value", "gradient", "hessian"):
        expected = getattr(sample, name)(W)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(getattr(theory, name)(W), expected, atol=1e-10 * scale, rtol=0)
    expected = sample.hvp(W, D)
    np.testing.assert_allclose(theory.hvp(W, D), expected, atol=1e-10 * np.abs(expected).max())


def barlow_twins(loss: pyssl.BarlowTwins, m: pyssl.Moments, W: np.ndarray) -> np.ndarray:
    turned = np.swapaxes(W, -1, -2)
    c = W @ m.cross_covariance @ turned
    if loss.normalize:
        s = np.sqrt(np.einsum("...id,de,...ie->...i", W, m.covariance, W))
        c = c / (s[..., :, None] * s[..., None, :])
    eye = np.eye(W.shape[-2])
    return np.asarray(
        ((c - eye) ** 2 * eye).sum((-2, -1)) + loss.redundancy * (c**2 * (1 - eye)).sum((-2, -1))
    )


@pytest.mark.parametrize("loss", [*FREE, *NORMALIZED], ids=repr)
@both_biases
def test_derivatives(loss: pyssl.BarlowTwins, bias: bool) -> None:
    for k, d, nulls in ((3, 4, 0), (5, 3, 0), (2, 5, 2), (40, 33, 0)):
        rng = seeded(2, k, d)
        m = problem(d, rng, nulls=nulls)
        land = loss.population(m, k, weight_decay=0.3, bias=bias)
        W, D = rng.standard_normal((2, *land.shape))
        if k > 30:  # the kernels instead of NumPy's products
            product, change = land.hvp(W, D), land.gradient(W + 1e-6 * D)
            change = (change - land.gradient(W - 1e-6 * D)) / 2e-6
            np.testing.assert_allclose(product, change, atol=1e-6 * np.abs(change).max())
            np.testing.assert_allclose(
                land.value(W),
                barlow_twins(loss, m, W[:, :d]) + 0.15 * (W[:, :d] ** 2).sum(),
                rtol=1e-12,
            )
            continue

        def reference(w: np.ndarray, m: Any = m, d: int = d) -> np.ndarray:
            w = w[..., :d]
            return barlow_twins(loss, m, w) + 0.15 * (w**2).sum((-2, -1))

        check_gradient(land.value, land.gradient, W, reference=reference)
        check_hvp(land.gradient, land.hvp, W, 0.05 * D, rtol=1e-7)
        hessian = land.hessian(W)
        np.testing.assert_allclose(
            (hessian @ D.ravel()).reshape(land.shape), land.hvp(W, D), rtol=1e-9, atol=1e-9
        )


@every_loss
def test_the_bias_column_is_flat(loss: pyssl.Loss) -> None:
    rng = seeded(3)
    m = problem(4, rng)
    plain = loss.population(m, 3, weight_decay=0.2)
    land = loss.population(m, 3, weight_decay=0.2, bias=True)
    W, D = rng.standard_normal((2, 3, 5))
    assert land.value(W) == plain.value(W[:, :4])
    np.testing.assert_array_equal(land.gradient(W)[:, :4], plain.gradient(W[:, :4]))
    np.testing.assert_array_equal(land.hvp(W, D)[:, :4], plain.hvp(W[:, :4], D[:, :4]))
    for result in (land.gradient(W), land.hvp(W, D)):
        np.testing.assert_array_equal(result[:, 4], 0.0)
    np.testing.assert_array_equal(land.critical_weight_decay, plain.critical_weight_decay)


@every_loss
@both_biases
def test_planes(loss: pyssl.Loss, bias: bool) -> None:
    rng = seeded(4)
    land = loss.population(problem(4, rng), 3, weight_decay=0.3, bias=bias)
    W, D, E = rng.standard_normal((3, *land.shape))
    u, v = np.linspace(-1.0, 2.0, 6), np.linspace(-0.5, 0.5, 7)
    expected = [[land.value(W + a * D + b * E) for b in v] for a in u]
    np.testing.assert_allclose(land.plane(W, D, E, u, v), expected, rtol=1e-10, atol=1e-10)
    assert land.plane(W, D, E, u[:0], v).shape == (0, 7)


@every_loss
def test_batches_and_float32(loss: pyssl.Loss) -> None:
    rng = seeded(5)
    land = loss.population(problem(4, rng), 3, weight_decay=0.1)
    batch = rng.standard_normal((2, 5, *land.shape))
    values, gradients = land.value_and_gradient(batch)
    assert values.shape == (2, 5) and gradients.shape == batch.shape
    assert values[1, 2] == land.value(batch[1, 2])
    np.testing.assert_array_equal(gradients[1, 2], land.gradient(batch[1, 2]))
    narrow = batch.astype(np.float32)
    single = land.value_and_gradient(narrow)
    assert single[0].dtype == single[1].dtype == np.float32
    wide = land.value_and_gradient(narrow.astype(np.float64))  # computed in float64 either way
    np.testing.assert_array_equal(single[0], wide[0].astype(np.float32))
    np.testing.assert_allclose(single[1], wide[1], rtol=1e-6)


@every_loss
def test_says_what_it_is(loss: pyssl.Loss) -> None:
    m = problem(4, seeded(6))
    land = loss.population(m, 3, weight_decay=0.1)
    assert isinstance(land, pyssl.NumericalLandscape) and isinstance(land, pyssl.Landscape)
    assert land.loss is loss and land.moments is m
    assert repr(loss) in repr(land) and "shape=(3, 4)" in repr(land)
    assert land.scale_free == (loss in NORMALIZED)
    assert not land.critical_weight_decay.flags.writeable


# ---- near the origin -----------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [*FREE, *VICREG], ids=repr)
def test_hessian_at_the_origin(loss: pyssl.Loss) -> None:
    rng = seeded(7)
    m = problem(4, rng, nulls=1)
    k, g = 3, 0.7
    land = loss.population(m, k, weight_decay=g)
    found = np.linalg.eigvalsh(land.hessian(np.zeros(land.shape)))
    expected = np.sort(np.repeat(-2.0 * (land.origin_spectrum - 0.5 * g), k))
    np.testing.assert_allclose(found, expected, atol=1e-12 * np.abs(expected).max())
    critical = land.critical_weight_decay
    assert critical.shape == (4,)
    expected = 2.0 * max(land.origin_spectrum[0], 0.0)
    np.testing.assert_allclose(critical[0], expected, rtol=1e-12, atol=1e-14)
    assert critical[-1] == 0.0  # beyond the rank
    closed = getattr(loss, "redundancy", 0.0) > 1.0
    assert np.isnan(critical[1:-1]).all() != closed


# The only landscapes here with a complete collapse.
COLLAPSING = [*FREE, *VICREG[:2]]


@pytest.mark.parametrize("loss", COLLAPSING, ids=repr)
def test_everything_collapses_at_the_first_critical_decay(loss: pyssl.Loss) -> None:
    for seed in range(4):
        rng = seeded(8, seed)
        m = random_moments(random_spectrum(4, rng, positive=True), rng)
        if isinstance(loss, pyssl.VICReg):  # less augmentation, so that something is worth learning
            m = m.with_augmentation_strength(0.05)
        critical = loss.population(m, 3).critical_weight_decay[0]
        assert critical > 0.0
        for factor, collapsed in ((1.05, True), (0.95, False)):
            land = loss.population(m, 3, weight_decay=factor * critical)
            value, W = best_of(land, rng, 3)
            assert (np.abs(W).max() < 1e-4) == collapsed
            origin = land.value(np.zeros(land.shape))
            assert (value < origin - 1e-9) == (not collapsed)


# ---- unnormalised --------------------------------------------------------------------------------


def test_effective_is_population() -> None:
    m = problem(3, seeded(9))
    loss = pyssl.BarlowTwins(0.3, normalize=False)
    effective, population = loss.effective(m, 2), loss.population(m, 2)
    W = seeded(9, 1).standard_normal((2, 3))
    assert type(effective) is type(population)
    assert effective.value(W) == population.value(W)
    one = pyssl.BarlowTwins(1.0, normalize=False).population(m, 2)
    assert isinstance(one, pyssl.SpectralLandscape)
    near = pyssl.BarlowTwins(1.0 + 1e-12, normalize=False).population(m, 2)
    np.testing.assert_allclose(near.value(W), one.value(W), rtol=1e-10)
    np.testing.assert_allclose(near.hessian(W), one.hessian(W), rtol=1e-9, atol=1e-9)


def test_a_redundancy_above_one_has_the_minimum_of_one() -> None:
    for seed in range(5):
        rng = seeded(10, seed)
        m = random_moments(random_spectrum(4, rng), rng)
        g = 2.0 * float(np.sort(np.linalg.eigvalsh(m.cross_covariance))[-2])
        closed = pyssl.BarlowTwins(1.0, normalize=False).population(m, 3, weight_decay=max(g, 0.1))
        land = pyssl.BarlowTwins(2.5, normalize=False).population(m, 3, weight_decay=max(g, 0.1))
        np.testing.assert_allclose(
            land.critical_weight_decay, pyssl.classify(closed).critical_weight_decay, rtol=1e-10
        )
        minimum = closed.minimum()
        value, W = best_of(land, rng, 10)
        np.testing.assert_allclose(value, minimum.value, rtol=1e-9)
        assert np.linalg.matrix_rank(W, tol=1e-4) == minimum.rank


def test_without_redundancy_all_units_are_one() -> None:
    # units then do not see each other, and each learns the strongest mode
    m = pyssl.Moments(np.eye(3), np.diag([0.8, 0.5, 0.2]))
    land = pyssl.BarlowTwins(0.0, normalize=False).population(m, 3, weight_decay=0.4)
    value, W = best_of(land, seeded(11), 5)
    amplitude = 1.0 - 0.4 / (4 * 0.8)
    np.testing.assert_allclose(value, 3 * (1.0 - amplitude**2), rtol=1e-9)
    np.testing.assert_allclose(W[:, 1:], 0.0, atol=1e-4)
    assert np.isnan(land.critical_weight_decay[1:]).all()


# ---- normalised ----------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", NORMALIZED, ids=repr)
def test_rows_have_no_length_and_no_sign(loss: pyssl.BarlowTwins) -> None:
    rng = seeded(12)
    land = loss.population(problem(4, rng), 3)
    W = rng.standard_normal(land.shape)
    value, gradient = land.value_and_gradient(W)
    for size in ([2.0, 2.0, 2.0], [0.1, -3.0, 1e5], [1e-140, 1e140, -1.0]):
        column = np.array(size)[:, None]
        np.testing.assert_allclose(land.value(W * column), value, rtol=1e-12)
        scaled = land.gradient(W * column)
        np.testing.assert_allclose(scaled * column, gradient, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.sum(gradient * W, axis=1), 0.0, atol=1e-13)
    np.testing.assert_allclose(land.hvp(W, W), -gradient, atol=1e-12)
    assert land.origin_spectrum is None
    np.testing.assert_array_equal(land.critical_weight_decay, np.inf)


def test_epsilon_is_left_out() -> None:
    m = problem(3, seeded(13))
    W = seeded(13, 1).standard_normal((2, 3))
    values = {
        float(pyssl.BarlowTwins(epsilon=epsilon).population(m, 2).value(W))
        for epsilon in (0.0, 1e-5, 0.1)
    }
    assert len(values) == 1
    assert pyssl.BarlowTwins(epsilon=0.0).scale_free
    assert not pyssl.BarlowTwins().scale_free
    assert not pyssl.BarlowTwins(normalize=False, epsilon=0.0).scale_free


@pytest.mark.parametrize("loss", NORMALIZED, ids=repr)
def test_canonical_modes_are_stationary(loss: pyssl.BarlowTwins) -> None:
    rng = seeded(14)
    rho = random_spectrum(4, rng)
    m = random_moments(rho, rng)
    vectors = np.real(np.linalg.eig(np.linalg.solve(m.covariance, m.cross_covariance))[1]).T
    land = loss.population(m, 4)
    assert np.abs(land.gradient(vectors)).max() < 1e-11
    np.testing.assert_allclose(land.value(vectors), np.sum((1.0 - rho) ** 2), rtol=1e-11)


def test_duplicates_below_the_threshold_only() -> None:
    checked = 0
    for seed in range(8):
        rng = seeded(15, seed)
        rho = random_spectrum(3, rng, positive=seed % 2 == 0)
        if rho[0] <= 0.1:
            continue
        m = random_moments(rho, rng)
        threshold = pyssl.BarlowTwins().duplicate_threshold(m)
        for factor in (0.9, 1.2):
            loss = pyssl.BarlowTwins(factor * threshold)
            value, W = best_of(loss.population(m, 2), rng, 8)
            duplicates = 2 * (1.0 - rho[0]) ** 2 + 2 * loss.redundancy * rho[0] ** 2
            assert (value > duplicates - 1e-10) == (factor < 1.0)
            units = W / np.linalg.norm(W, axis=1)[:, None]
            if factor < 1.0:
                assert np.linalg.svd(units)[1][1] < 1e-4
            checked += 1
    assert checked >= 10


def test_duplicate_threshold_of_special_moments() -> None:
    def threshold(*rho: float) -> float:
        return pyssl.BarlowTwins().duplicate_threshold(
            pyssl.Moments(np.eye(len(rho)), np.diag(rho))
        )

    assert threshold(0.5) == np.inf
    assert np.isnan(threshold(-0.5, -0.6))
    assert threshold(1.0, 0.3) == 0.0 and threshold(0.6, 0.6) == 0.0
    np.testing.assert_allclose(threshold(0.8, 0.2), 0.2 * 0.6 / 0.8)
    np.testing.assert_allclose(threshold(0.8, -0.3), 0.25)
    one = pyssl.Moments(np.diag([1.0, 0.0]), np.diag([0.5, 0.0]))
    assert pyssl.BarlowTwins().duplicate_threshold(one) == np.inf
    with pytest.raises(TypeError, match=r"moments must be pyssl\.Moments"):
        pyssl.BarlowTwins().duplicate_threshold(np.eye(2))
    with pytest.raises(NotImplementedError, match=r"BarlowTwins\.duplicate_threshold: "):
        pyssl.BarlowTwins(normalize=False).duplicate_threshold(one)


def test_a_row_without_variance_is_singular() -> None:
    rng = seeded(16)
    m = problem(4, rng, nulls=1)
    land = pyssl.BarlowTwins().population(m, 3)
    np.testing.assert_array_equal(land.critical_weight_decay, [np.inf] * 3 + [0.0])
    null = np.linalg.eigh(m.covariance)[1][:, 0]
    for row in (np.zeros(4), null, 1e-140 * null, 1e140 * null):
        W = rng.standard_normal(land.shape)
        W[1] = row
        for call in (
            lambda W=W: land.value(W),
            lambda W=W: land.gradient(W),
            lambda W=W: land.hvp(W, W),
            lambda W=W: land.plane(W, W, 0 * W, [0.0], [0.0]),
        ):
            with pytest.raises(ValueError, match=r"must have variance in every row.* in row 1"):
                call()
    W = rng.standard_normal(land.shape)
    with pytest.raises(ValueError, match=r"W0 .* at u = -1 must have variance in every row"):
        land.plane(W, W, W[::-1], [0.0, -1.0], [0.0, 0.5])
    # however small, variance that is there is no rounding
    small = 1e-100 * W
    np.testing.assert_allclose(land.value(small), land.value(W), rtol=1e-12)


@every_loss
def test_zero_moments(loss: pyssl.Loss) -> None:
    m = pyssl.Moments(np.zeros((3, 3)), np.zeros((3, 3)))
    land = loss.population(m, 2, weight_decay=0.5)
    np.testing.assert_array_equal(land.critical_weight_decay, 0.0)
    W = seeded(17).standard_normal(land.shape)
    if loss in NORMALIZED:
        with pytest.raises(ValueError, match="W must have variance in every row"):
            land.value(W)
        return
    np.testing.assert_array_equal(land.origin_spectrum, 0.0)
    np.testing.assert_allclose(land.gradient(W), 0.5 * W, rtol=1e-14)
