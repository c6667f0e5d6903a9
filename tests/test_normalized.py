"""NT-Xent's landscape in the moments: derivatives, water-filling, the mean and the bias."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import scipy.optimize

import pyssl
from pyssl import Cause, Moments, NTXent
from pyssl._cosine import water_filling
from pyssl.testing import check_gradient, gaussian_views, random_moments

TAUS = [1e-3, 0.1, 0.5, 2.0, 1e3]


def problem(rng, *, d=5, k=3, tau=0.4, mean=False, bias=False, decay=0.0, nulls=0):
    rho = np.sort(rng.uniform(-0.3, 1.0, d - nulls))[::-1]
    m = random_moments(rho, rng, nulls=nulls, mean=mean)
    return NTXent(tau).effective(m, k, weight_decay=decay, bias=bias)


def transposed(a):
    return np.swapaxes(a, -1, -2)


def trace(a):
    return np.trace(a, axis1=-2, axis2=-1)


def reference(land):
    """The formula of the class's docstring, batched, for complex W too."""
    m, tau, k = land.moments, land.loss.temperature, land.embedding_dim

    def value(W):
        inner = W[..., : m.dim]
        offset = (inner @ m.mean)[..., None]
        if land.bias:
            offset = offset + W[..., -1:]
        p = inner @ m.covariance @ transposed(inner)
        q = inner @ m.cross_covariance @ transposed(inner)
        outer = offset @ transposed(offset)
        n = (trace(p) + trace(outer))[..., None, None]
        j = np.eye(k) - outer / n
        pj, qj = j @ p @ j / n, j @ q @ j / n
        cumulant = trace(pj @ (pj + outer / n))
        decay = 0.5 * land.weight_decay * (inner**2).sum((-1, -2))
        return -trace(qj) / tau + cumulant / (2.0 * tau**2) + decay

    return value


def minimised(land, rng, starts=4):
    """The lowest value that descent over W finds."""
    found = []
    for _ in range(starts):
        result = scipy.optimize.minimize(
            lambda w: tuple(np.ravel(x) for x in land.value_and_gradient(w.reshape(land.shape))),
            rng.standard_normal(land.shape).ravel(), jac=True, method="BFGS",
            options={"gtol": 1e-9, "maxiter": 3000},
        )  # fmt: skip
        found.append(float(result.fun))
    return min(found)


# ---- evaluation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("nulls", [0, 2])
def test_derivatives(rng, mean, bias, nulls):
    land = problem(rng, mean=mean, bias=bias, decay=0.3, nulls=nulls)
    W, D = rng.standard_normal((2, *land.shape))
    check_gradient(land.value, land.gradient, W, reference=reference(land), rtol=1e-12)
    # a stencil of five points: its error is a fourth power of the step
    h, weights = 2e-3, {-2: 1.0, -1: -8.0, 1: 8.0, 2: -1.0}
    bend = sum(c * land.gradient(W + i * h * D) for i, c in weights.items()) / (12.0 * h)
    np.testing.assert_allclose(land.hvp(W, D), bend, rtol=0.0, atol=1e-8 * abs(bend).max())
    hessian = land.hessian(W)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-12 * abs(hessian).max())
    assert land.value(W) == pytest.approx(land.value_and_gradient(W)[0], rel=1e-14)


def test_zero_direction_bends_nothing(rng):
    land = problem(rng, mean=True, bias=True)
    assert not land.hvp(rng.standard_normal(land.shape), np.zeros(land.shape)).any()


@pytest.mark.parametrize("factor", [1e-150, 1e-3, 7.0, 1e150])
@pytest.mark.parametrize("mean", [False, True])
def test_scale_free(rng, factor, mean):
    land = problem(rng, mean=mean, bias=mean)
    W = rng.standard_normal(land.shape)
    value, gradient = land.value_and_gradient(W)
    scaled, slope = land.value_and_gradient(factor * W)
    assert scaled == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(slope * factor, gradient, rtol=1e-11, atol=1e-14)
    assert abs(np.sum(gradient * W)) < 1e-13
    assert land.scale_free


@pytest.mark.parametrize("scale", [1e-130, 1e130])
def test_moments_of_any_magnitude(scale):
    sigma, a = np.diag([3.0, 2.0, 1.0]), np.diag([2.5, 1.0, 0.1])
    W = np.arange(1.0, 7.0).reshape(2, 3)
    unit = NTXent().effective(Moments(sigma, a), 2)
    land = NTXent().effective(Moments(scale * sigma, scale * a), 2)
    assert land.value(W) == pytest.approx(unit.value(W), rel=1e-14)
    assert land.minimum().value == pytest.approx(unit.minimum().value, rel=1e-14)
    axis = [0.0, 0.5]
    np.testing.assert_allclose(
        land.plane(W, W[::-1], W**2, axis, axis), unit.plane(W, W[::-1], W**2, axis, axis), 1e-12
    )


def test_float32_in_float32_out(rng):
    land = problem(rng)
    W = rng.standard_normal(land.shape).astype(np.float32)
    value, gradient = land.value_and_gradient(W)
    assert value.dtype == gradient.dtype == land.hvp(W, W).dtype == np.float32
    assert value == np.float32(land.value(W.astype(np.float64)))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("mean", [False, True])
def test_plane_is_made_of_points(rng, mean, bias):
    land = problem(rng, mean=mean, bias=bias, decay=0.2)
    W0, D1, D2 = rng.standard_normal((3, *land.shape))
    u, v = np.linspace(-2.0, 1.0, 5), np.linspace(-1.0, 3.0, 4)
    points = [[land.value(W0 + a * D1 + b * D2) for b in v] for a in u]
    np.testing.assert_allclose(land.plane(W0, D1, D2, u, v), points, rtol=1e-11, atol=1e-12)


def test_plane_has_a_hole_at_the_origin(rng):
    land = problem(rng)
    W = rng.standard_normal(land.shape)
    surface = land.plane(np.zeros(land.shape), W, W[::-1], [-1.0, 0.0, 2.0], [0.0])
    np.testing.assert_array_equal(np.isnan(surface[:, 0]), [False, True, False])
    assert surface[0, 0] == pytest.approx(surface[2, 0], rel=1e-13)


def test_no_value_where_all_views_map_to_zero(rng):
    land = problem(rng, nulls=2)
    with pytest.raises(ValueError, match="W must not be zero"):
        land.value(np.zeros(land.shape))
    null = np.tile(land.moments._metric.null_basis[:, 0], (3, 1))
    with pytest.raises(ValueError, match=r"W must not map all views to zero.* got Tr\["):
        land.gradient(null)
    with pytest.raises(ValueError, match="the origin is no point of NT-Xent"):
        land.origin()
    with pytest.raises(ValueError, match="moments must have variation"):
        NTXent().effective(Moments(np.zeros((2, 2)), np.zeros((2, 2)), [1.0, 0.0]), 1)


def test_made_again_and_pickled_moments(rng):
    land = problem(rng, decay=0.2)
    for made in (land, pickle.loads(pickle.dumps(land))):
        other = made._remake(2, 0.0)
        assert (other.shape, other.weight_decay) == ((2, 5), 0.0)
    assert isinstance(land, pyssl.NumericalLandscape)
    assert isinstance(land, pyssl.Landscape)
    assert pickle.loads(pickle.dumps(land.minimum())).rank == land.minimum().rank
    assert repr(land) == "NTXentLandscape(NTXent(temperature=0.4), shape=(3, 5), weight_decay=0.2, bias=False)"  # fmt: skip # noqa: E501


# ---- against the loss itself ---------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 0.98])
def test_expansion_against_the_loss(share):
    """The mean's part is right whatever its share: the covariance of the normalised embedding."""
    rng, k, tau = np.random.default_rng(5), 96, 0.5
    rho = np.linspace(0.9, 0.2, k)
    mean = rng.standard_normal(k)
    mean *= math.sqrt(share / (1.0 - share) * k) / np.linalg.norm(mean)
    m = Moments(np.eye(k), np.diag(rho), mean)
    z, z_plus = gaussian_views(m, 6000, rng)
    sampled = NTXent(tau).value(z, z_plus) - math.log(2 * len(z) - 1)
    spread = math.sqrt(np.mean(rho) * (1.0 - share) / (k * len(z))) / tau  # about
    land = NTXent(tau).effective(m, k)
    predicted = float(land.value(np.eye(k)))
    # what is left is of relative order 1/effective rank, and vanishes with 1 - share
    assert abs(sampled - predicted) < 1.5 / k * (1.0 - share) / tau + 5.0 * spread


# ---- water-filling -------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize(
    ("d", "k", "nulls"), [(2, 2, 0), (6, 6, 0), (6, 3, 0), (7, 4, 3), (4, 6, 0)]
)
def test_minimum_is_stationary_and_lowest(rng, tau, d, k, nulls):
    land = problem(rng, d=d, k=k, tau=tau, nulls=nulls)
    minimum = land.minimum()
    value, gradient = land.value_and_gradient(minimum.weights)
    scale = 1.0 / tau + 1.0 / tau**2
    assert value == pytest.approx(minimum.value, abs=1e-13 * scale)
    assert abs(gradient).max() < 1e-11 * scale
    assert np.trace(minimum.weights @ land.moments.covariance @ minimum.weights.T) == (
        pytest.approx(1.0, rel=1e-12)
    )
    assert minimum.amplitudes.sum() == pytest.approx(1.0, rel=1e-12)
    assert minimum.rank == len(land.active) == np.count_nonzero(minimum.amplitudes)
    assert minimum.rank <= land.capacity
    assert minimum.attained
    lowest = minimised(land, rng)
    assert minimum.value <= lowest + 1e-12 * scale
    if 0.05 < tau < 100.0:  # where descent is well enough conditioned to get there
        assert minimum.value == pytest.approx(lowest, abs=1e-8 * scale)
    inertia = np.linalg.eigvalsh(land.hessian(minimum.weights))
    assert inertia[0] > -1e-10 * abs(inertia).max()


def test_amplitudes_are_the_spectrum_along_the_modes(rng):
    land = problem(rng, d=6, k=4, tau=0.3, nulls=1)
    minimum, m = land.minimum(), land.moments
    modes = minimum.weights @ m.covariance @ land.vectors
    np.testing.assert_allclose(np.sum(modes**2, axis=0), minimum.amplitudes, atol=1e-13)
    np.testing.assert_allclose(land.eigenvalues, m.alignments, atol=1e-12)
    theta = (land.eigenvalues - minimum.amplitudes / 0.3)[list(land.active)]
    np.testing.assert_allclose(theta, theta[0], rtol=1e-12)


def test_ties_are_learned_together(rng):
    m = random_moments([0.75, 0.75, 0.75, 0.5, 0.5], rng)
    hot = NTXent(1e12).effective(m, 5)
    np.testing.assert_allclose(hot.minimum().amplitudes[:3], 1.0 / 3.0, rtol=1e-13)
    assert hot.minimum().rank == 3
    assert not hot.minimum().degenerate
    np.testing.assert_allclose(hot.critical_temperature[3:], 4.0 / 3.0, rtol=1e-10)
    assert np.isinf(hot.critical_temperature[:3]).all()
    crowded = NTXent(1.0).effective(m, 2)
    assert crowded.minimum().degenerate
    assert [str(cause) for cause in crowded.causes()] == ["learned"] * 2 + ["capacity"] * 3


@pytest.mark.parametrize("d", [3, 8, 32])
def test_modes_come_in_at_their_critical_temperature(rng, d):
    m = random_moments(np.sort(rng.uniform(0.0, 1.0, d))[::-1], rng)
    critical = NTXent().effective(m, d).critical_temperature
    assert np.isinf(critical[0])
    assert (np.diff(critical) <= 0.0).all()
    for j in range(1, d):
        for factor, expected in ((1.0 - 1e-6, True), (1.0 + 1e-6, False)):
            land = NTXent(critical[j] * factor).effective(m, d)
            assert (j in land.active) is expected
    capped = NTXent().effective(m, 2).critical_temperature
    np.testing.assert_array_equal(capped[:2], critical[:2])
    assert np.isnan(capped[2:]).all()


def test_causes_and_critical_decay(rng):
    m = random_moments([0.9375, 0.875, 0.75, 0.125], rng, nulls=1)
    land = NTXent(2.0).effective(m, 2)
    causes = [Cause.LEARNED, Cause.LEARNED, Cause.CAPACITY, Cause.COMPETITION, Cause.NO_VARIATION]
    assert list(land.causes()) == causes
    np.testing.assert_array_equal(land.critical_weight_decay, [np.inf] * 3 + [0.0] * 2)
    assert np.isnan(land.critical_temperature[2:]).all()
    assert land.capacity == 2


def test_decay_leaves_the_directions():
    free, decaying = (problem(np.random.default_rng(3), decay=g) for g in (0.0, 0.5))
    assert not decaying.minimum().attained
    assert free.minimum().attained
    np.testing.assert_array_equal(decaying.minimum().weights, free.minimum().weights)
    assert decaying.minimum().value == free.minimum().value
    W = decaying.minimum().weights
    assert decaying.value(0.1 * W) < decaying.value(W)
    assert decaying.value(1e-9 * W) == pytest.approx(free.minimum().value, rel=1e-12)
    assert "smaller weights are always better" in repr(decaying.minimum())


# ---- a mean and a bias ---------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("tau", [0.3, 1.0])
def test_minimum_with_a_mean(rng, k, tau):
    land = problem(rng, mean=True, k=k, tau=tau)
    minimum = land.minimum()
    value, gradient = land.value_and_gradient(minimum.weights)
    assert value == pytest.approx(minimum.value, rel=1e-12)
    assert abs(gradient).max() < 1e-8
    assert minimum.value <= minimised(land, rng, starts=6) + 1e-10
    # water-filling is a bound from below, the mean doing at best what a constant does
    rho = land.eigenvalues
    p = water_filling(1.0 - rho, tau, k, slack=True)
    assert minimum.value >= p @ p / (2.0 * tau**2) - rho @ p / tau - 1e-12
    assert np.isnan(land.critical_temperature).all()
    assert minimum.rank == len(land.active) <= k


@pytest.mark.parametrize("dim", [1, 2])
def test_minimum_with_every_mode_along_the_mean(dim):
    covariance = np.diag([1.0, 0.0][:dim])
    m = Moments(covariance, 0.5 * covariance, mean=[3.0, 0.0][:dim])
    land = NTXent(0.5).effective(m, 2)
    found = land.minimum()
    rng = np.random.default_rng(0)
    assert found.value <= land.value(rng.standard_normal((200, *land.shape))).min() + 1e-12
    assert found.rank == 1
    assert pyssl.classify(land).rank == 1


@pytest.mark.parametrize("mean", [False, True])
def test_a_bias_removes_the_mean(rng, mean):
    land = problem(rng, d=5, k=4, tau=1.0, mean=mean, bias=True)
    centred = NTXent(1.0).effective(land.moments.centered(), 4)
    minimum = land.minimum()
    assert minimum.value == pytest.approx(centred.minimum().value, rel=1e-12)
    np.testing.assert_allclose(minimum.amplitudes, centred.minimum().amplitudes, atol=1e-12)
    assert land.value(minimum.weights) == pytest.approx(minimum.value, rel=1e-12)
    np.testing.assert_allclose(
        minimum.weights[:, -1], -minimum.weights[:, :-1] @ land.moments.mean, atol=1e-13
    )
    assert minimum.value <= minimised(land, rng) + 1e-10


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_a_constant_part_at_low_temperature(rng, k):
    """Below tau = 1/sum rho a constant takes what the modes do not want (theory 4)."""
    tau, rho = 0.1, [0.75, 0.5, 0.25, -0.25]
    land = NTXent(tau).effective(random_moments(rho, rng, mean=True), k, bias=True)
    minimum = land.minimum()
    value, gradient = land.value_and_gradient(minimum.weights)
    assert value == pytest.approx(minimum.value, abs=1e-11)
    assert abs(gradient).max() < 1e-7
    assert minimum.value <= minimised(land, rng, starts=8) + 1e-9
    if k == 4:
        np.testing.assert_allclose(minimum.amplitudes, [0.075, 0.05, 0.025, 0.0], atol=1e-14)
        assert [str(cause) for cause in land.causes()] == ["learned"] * 3 + ["competition"]
        assert minimum.value < NTXent(tau).effective(land.moments.centered(), 4).minimum().value


def test_a_bias_brings_complete_collapse_back(rng):
    """Where no mode is aligned the constant embedding is the global minimum."""
    land = NTXent(0.5).effective(random_moments([-0.25, -0.5], rng), 2, bias=True)
    minimum = land.minimum()
    assert (minimum.rank, minimum.value) == (0, 0.0)
    assert not minimum.weights[:, :-1].any()
    assert land.value(minimum.weights) == 0.0
    assert minimised(land, rng) > -1e-10


def test_constant_embedding(rng):
    k, tau, g = 3, 0.5, 0.2
    m = random_moments([0.75, 0.5, 0.25, -0.25], rng, mean=True)
    land = NTXent(tau).effective(m, k, weight_decay=g, bias=True)
    spectrum = np.linalg.eigvalsh(m.cross_covariance)[::-1]
    critical = math.sqrt(2.0 * spectrum[0] / (g * tau))
    for factor in (0.3, 0.7, 0.999, 1.001, 2.0):
        b = factor * critical
        point = land.constant_embedding(b)
        value, gradient = land.value_and_gradient(point.weights)
        assert (value, point.value) == (0.0, 0.0)
        assert not gradient.any()
        assert point.critical_bias == pytest.approx(critical, rel=1e-12)
        assert point.temperature == pytest.approx(tau * b * b, rel=1e-12)
        hessian = np.linalg.eigvalsh(land.hessian(point.weights))
        assert point.index == np.count_nonzero(hessian < -1e-12)
        assert point.index == (k - 1) * np.count_nonzero(spectrum > 0.5 * g * tau * b * b)
        assert point.stable is (factor > 1.0)
        assert not point.marginal
        if point.fastest_escape is None:
            assert point.stable
        else:
            escape = np.zeros(land.shape)
            escape[1, :-1] = point.fastest_escape  # orthogonal to b
            assert np.sum(escape * land.hvp(point.weights, escape)) == pytest.approx(hessian[0])


def test_constant_embedding_on_the_threshold():
    m = Moments(np.eye(2), np.diag([0.5, 0.25]))
    loss = NTXent(0.5)
    point = loss.effective(m, 2, weight_decay=0.5, bias=True).constant_embedding(2.0)
    assert point.marginal
    assert (point.stable, point.index, point.critical_bias) == (False, 0, 2.0)
    undecayed = loss.effective(m, 2, bias=True).constant_embedding(1e3)
    assert (undecayed.stable, undecayed.index, undecayed.critical_bias) == (False, 2, np.inf)
    line = loss.effective(m, 1, weight_decay=0.5, bias=True).constant_embedding(0.1)
    assert (line.stable, line.index, line.critical_bias) == (True, 0, 0.0)
    flat = loss.effective(m, 1, bias=True).constant_embedding(0.1)
    assert (flat.stable, flat.marginal) == (False, True)


def test_constant_embedding_against_the_loss():
    """The Hessian of the loss on a large sample, at W = 0 and a bias."""
    rng, k, tau, g = np.random.default_rng(1), 2, 0.5, 0.1
    m = Moments(np.eye(3), np.diag([0.8, 0.4, 0.1]), [0.5, -1.0, 0.2])
    x, x_plus = gaussian_views(m, 3000, rng)
    sample = Moments.from_views(x, x_plus)
    sampled = NTXent(tau).empirical(x, x_plus, k, weight_decay=g, bias=True)
    land = NTXent(tau).effective(sample, k, weight_decay=g, bias=True)
    critical = land.constant_embedding(1.0).critical_bias
    for b, stable in ((0.9 * critical, False), (1.1 * critical, True)):
        point = land.constant_embedding(b)
        hessian = sampled.hessian(point.weights)
        # every sample counts 2n - 2 of its 2n - 1 others as negatives
        np.testing.assert_allclose(
            hessian, land.hessian(point.weights), atol=3.0 / len(x) * 2.0 / (tau * b * b)
        )
        assert point.stable is stable
        assert bool(np.linalg.eigvalsh(hessian)[0] < -1e-3) is not stable


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bias", "error", "message"),
    [
        (0.0, ValueError, r"bias must be > 0, got 0"),
        (-1.0, ValueError, r"bias must be > 0, got -1"),
        (np.nan, ValueError, r"bias must be finite"),
        ([1.0, 0.0], TypeError, r"bias must be a real number"),
        ("1", TypeError, r"bias must be a real number"),
    ],
)
def test_bias_is_checked(rng, bias, error, message):
    with pytest.raises(error, match=message):
        problem(rng, bias=True).constant_embedding(bias)


def test_no_constant_embedding_without_a_bias(rng):
    with pytest.raises(ValueError, match="only a landscape with bias=True"):
        problem(rng).constant_embedding(1.0)
