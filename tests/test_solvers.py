"""Minimisation: the closed form found again, saddles left, and every way to have no minimum."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

import pyssl
from pyssl import Outcome, minimize
from pyssl.testing import (
    check_gradient,
    check_hvp,
    gaussian_views,
    random_moments,
    random_pencil,
    random_spectrum,
)

Array = np.ndarray

LOSSES = {
    "spectral contrastive": pyssl.SpectralContrastive(),
    "Barlow Twins": pyssl.BarlowTwins(normalize=False, redundancy=1.0),
    "SquaredVICReg": pyssl.SquaredVICReg(invariance=1.5),
    **{
        f"InfoNCE {similarity} {partition}": pyssl.InfoNCE(0.5, similarity, partition)
        for similarity in ("sqeuclidean", "dot")
        for partition in ("conditional", "joint")
    },
}


def random_land(loss: pyssl.Loss, number: int) -> pyssl.SpectralLandscape:
    """Draw a landscape: ties, rank-deficient moments, decay and k > d in turns."""
    rng = np.random.default_rng([number, 7])
    d = int(rng.integers(2, 8))
    alignments = np.abs(random_spectrum(d, rng, repeated=number % 3 == 0, zeros=number % 2))
    moments = random_moments(alignments, rng, nulls=number % 5 // 3)
    decay = 0.0 if number % 4 == 0 else 0.2 * rng.random()
    k = int(rng.integers(1, 10))
    return loss.population(moments, embedding_dim=k, weight_decay=decay)


def spectrum(land: pyssl.SpectralLandscape, W: Array) -> Array:
    """Return the eigenvalues of W S W', descending, padded to d."""
    n = np.linalg.eigvalsh(W @ land.S @ W.T)[::-1]
    return np.pad(n, (0, land.dim))[: land.dim]


def assert_minimum(result: pyssl.MinimizeResult, land: pyssl.SpectralLandscape) -> None:
    minimum = land.minimum()
    assert result.outcome is Outcome.CONVERGED and result.attained
    assert result.index == 0
    assert not result.closed_form
    expected = np.sort(minimum.amplitudes)[::-1]
    size = max(1e-2, abs(minimum.value))
    assert abs(result.value - minimum.value) <= 1e-6 * size
    assert abs(result.value - land.value(result.weights)) <= 1e-12 * (1.0 + size)
    scale = max(expected[0], 1e-2)
    np.testing.assert_allclose(
        spectrum(land, result.weights), expected, rtol=1e-6, atol=1e-6 * scale
    )
    gradient = np.linalg.norm(land.gradient(result.weights))
    assert abs(gradient - result.gradient_norm) <= 1e-12 * (1.0 + scale)


@pytest.mark.parametrize("name", LOSSES)
def test_every_saddle_is_left(name: str) -> None:
    moments = random_moments([0.875, 0.75, 0.5, 0.4375], np.random.default_rng(3))
    for k in (2, 5):
        land = LOSSES[name].population(moments, embedding_dim=k, weight_decay=0.01)
        points = list(land.stationary_points())
        assert len(points) > 5
        for point in points:
            assert_minimum(minimize(land, point.weights(), closed_form=False), land)


def test_saddles_are_left_in_the_coordinates_of_the_weights() -> None:
    land = random_land(pyssl.SpectralContrastive(), 2)
    plain = Evaluated(land)
    points = list(land.stationary_points())
    assert points[-1].active == () and points[-1].index > 0
    for point in points:
        assert_minimum(minimize(plain, point.weights()), land)


def test_a_saddle_of_many_weights() -> None:
    # past 300 weights the index comes from Lanczos iterations
    rng = np.random.default_rng(0)
    B, S = random_pencil(random_spectrum(40, rng), rng)
    land = pyssl.SpectralLandscape(B, S, pyssl.Quartic(0.5), 10)
    saddle = land.stationary_points()
    starts = [next(saddle) for _ in range(5)][1:]
    assert all(point.index > 0 for point in starts)
    for solved in (land, Evaluated(land)):
        for W in (np.zeros(land.shape), *(point.weights() for point in starts)):
            assert_minimum(minimize(solved, W, closed_form=False), land)


def test_a_saddle_where_the_iterations_end_is_not_a_minimum() -> None:
    land = random_land(pyssl.SpectralContrastive(), 2)
    result = minimize(land, np.zeros(land.shape), closed_form=False, max_iterations=0)
    assert result.gradient_norm == 0.0
    assert result.index == land.origin().index > 0
    assert result.outcome is Outcome.ITERATION_LIMIT
    assert not result.converged


class Evaluated:
    """A landscape of which a solver sees evaluations only."""

    def __init__(self, land: pyssl.Landscape) -> None:
        self.shape = land.shape
        for name in ("value", "gradient", "value_and_gradient", "hvp", "hessian", "plane"):
            setattr(self, name, getattr(land, name))


# ---- no minimum ----------------------------------------------------------------------------------


def unbounded_on_the_null_space() -> pyssl.SpectralLandscape:
    return pyssl.SpectralLandscape(np.diag([1.0, 0.5]), np.diag([1.0, 0.0]), pyssl.Quartic(1.0), 2)


def unbounded_by_coupling() -> pyssl.SpectralLandscape:
    B = np.array([[1.0, 0.3], [0.3, 0.0]])
    return pyssl.SpectralLandscape(B, np.diag([1.0, 0.0]), pyssl.Quartic(1.0), 2)


def beyond_the_slope_limit() -> pyssl.SpectralLandscape:
    return pyssl.SpectralLandscape(np.diag([5.0, 0.5]), np.eye(2), pyssl.InfoNCEPotential(0.5), 2)


def at_the_slope_limit() -> pyssl.SpectralLandscape:
    return pyssl.SpectralLandscape(np.diag([2.0, 0.5]), np.eye(2), pyssl.InfoNCEPotential(0.5), 2)


def without_augmentation(partition: str) -> pyssl.Landscape:
    moments = pyssl.Moments(np.eye(3), np.diag([1.0, 0.5, 0.2]))
    return pyssl.InfoNCE(partition=partition).population(moments, embedding_dim=2)


def with_an_asymptote() -> pyssl.SpectralLandscape:
    potential = pyssl.CustomPotential(
        lambda n: n * n / (1 + n),
        lambda n: n * (2 + n) / (1 + n) ** 2,
        lambda n: 2 / (1 + n) ** 3,
        slope_limit=1.0,
        asymptote=-1.0,
    )
    return pyssl.SpectralLandscape(np.diag([1.0, 0.5]), np.eye(2), potential, 2)


@pytest.mark.parametrize("closed_form", [True, False])
@pytest.mark.parametrize(
    ("make", "outcome"),
    [
        (unbounded_on_the_null_space, Outcome.UNBOUNDED),
        (unbounded_by_coupling, Outcome.UNBOUNDED),
        (beyond_the_slope_limit, Outcome.UNBOUNDED),
        (at_the_slope_limit, Outcome.NO_MINIMISER),
        (lambda: without_augmentation("conditional"), Outcome.NO_MINIMISER),
        (lambda: without_augmentation("joint"), Outcome.NO_MINIMISER),
        (with_an_asymptote, Outcome.NO_MINIMISER),
    ],
)
def test_no_minimum_is_said(
    make: Callable[[], pyssl.Landscape], outcome: Outcome, closed_form: bool
) -> None:
    for restarts in (1, 3):
        result = minimize(make(), closed_form=closed_form, restarts=restarts)
        assert result.outcome is outcome
        assert not result.converged and not result.attained
        assert outcome.value in repr(result)


def test_a_weak_decay_brings_the_minimiser_back() -> None:
    moments = pyssl.Moments(np.eye(3), np.diag([1.0, 0.5, 0.2]))
    land = pyssl.InfoNCE().population(moments, embedding_dim=2, weight_decay=1e-6)
    result = minimize(land, closed_form=False)
    assert np.linalg.norm(result.weights) > 500.0
    assert_minimum(result, land)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("start", [None, np.zeros((2, 3)), np.ones((2, 3))])
def test_no_moments(decay: float, start: Array | None) -> None:
    zero = pyssl.Moments(np.zeros((3, 3)), np.zeros((3, 3)))
    land = pyssl.InfoNCE().population(zero, embedding_dim=2, weight_decay=decay)
    for solved in (land, Evaluated(land)):
        result = minimize(solved, start, closed_form=False)
        assert result.converged and result.index == 0
        assert result.value == pytest.approx(0.0, abs=1e-15)
        if decay:
            assert np.linalg.norm(result.weights) < 1e-6


def test_complete_collapse_is_the_origin() -> None:
    moments = pyssl.Moments(np.eye(3), 0.5 * np.eye(3))
    land = pyssl.InfoNCE().population(moments, embedding_dim=2, weight_decay=3.0)
    result = minimize(land, np.ones((2, 3)), closed_form=False)
    assert result.converged
    assert np.linalg.norm(result.weights) < 1e-8


def test_a_degenerate_origin() -> None:
    # the largest eigenvalue of B is exactly 0: flat to second order, and the minimum
    land = pyssl.SpectralLandscape(np.diag([0.0, -1.0]), np.eye(2), pyssl.Quartic(1.0), 2)
    result = minimize(land, closed_form=False)
    assert result.converged
    assert 0.0 <= result.value < 1e-12


# ---- scale ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [-20, 20])
def test_units_do_not_matter(power: int) -> None:
    unit = 2.0**power
    rng = np.random.default_rng(5)
    B, S = random_pencil(random_spectrum(5, rng), rng)
    plain = pyssl.SpectralLandscape(B, S, pyssl.Quartic(1.0), 3)
    scaled = pyssl.SpectralLandscape(unit * B, unit * S, pyssl.Quartic(1.0), 3)
    for wrap in (lambda land: land, Evaluated):
        results = [minimize(wrap(land), closed_form=False) for land in (plain, scaled)]
        assert all(result.converged for result in results)
        assert results[1].value == pytest.approx(results[0].value, rel=1e-9)


def scale_free_land(decay: float) -> pyssl.Landscape:
    moments = random_moments([0.9, 0.6, 0.3, 0.1], np.random.default_rng(1))
    views = gaussian_views(moments, 60, np.random.default_rng(2))
    return pyssl.NTXent().empirical(*views, embedding_dim=3, weight_decay=decay)


def test_a_scale_free_landscape_keeps_its_scale() -> None:
    result = minimize(scale_free_land(0.0), restarts=2)
    assert result.outcome is Outcome.CONVERGED and result.index == 0
    assert np.linalg.norm(result.weights) == pytest.approx(1.0)


def test_decay_leaves_a_scale_free_landscape_without_minimiser() -> None:
    free, decayed = (minimize(scale_free_land(decay), restarts=2) for decay in (0.0, 0.1))
    assert decayed.outcome is Outcome.SCALE_FREE
    assert decayed.converged and not decayed.attained
    np.testing.assert_array_equal(decayed.weights, free.weights)
    assert decayed.value == free.value  # what shrinking W brings the value to
    tiny = 1e-6 * decayed.weights
    assert scale_free_land(0.1).value(tiny) == pytest.approx(decayed.value, abs=1e-9)


def test_a_scale_free_landscape_has_no_origin_to_start_from() -> None:
    with pytest.raises(ValueError, match="start must not be 0"):
        minimize(scale_free_land(0.0), np.zeros((3, 4)))


# ---- empirical landscapes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss",
    [
        pyssl.InfoNCE(),
        pyssl.SpectralContrastive(),
        pyssl.BarlowTwins(normalize=False),
        pyssl.BarlowTwins(),
        pyssl.SquaredVICReg(),
    ],
    ids=repr,
)
@pytest.mark.parametrize("bias", [False, True])
def test_empirical_landscapes(loss: pyssl.Loss, bias: bool) -> None:
    moments = random_moments([0.9, 0.6, 0.3, 0.1], np.random.default_rng(1))
    views = gaussian_views(moments, 100, np.random.default_rng(2))
    land = loss.empirical(*views, embedding_dim=2, weight_decay=0.01, bias=bias)
    result = minimize(land, restarts=3)
    assert result.converged and result.index == 0
    assert result.restarts == 3
    W = result.weights
    spread = np.linalg.eigvalsh(land.hessian(W))
    assert spread[0] >= -2e-6 * spread[-1]
    assert np.linalg.norm(land.gradient(W)) == pytest.approx(result.gradient_norm)
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert land.value(W + 1e-3 * rng.standard_normal(W.shape)) > result.value


@pytest.mark.parametrize(
    "loss",
    [
        pyssl.InfoNCE(),
        pyssl.SpectralContrastive(),
        pyssl.SquaredVICReg(),
        pyssl.BarlowTwins(redundancy=0.1, normalize=False),
        pyssl.VICReg(),
    ],
    ids=repr,
)
def test_a_decay_beyond_all_digits_of_the_loss(loss: pyssl.Loss) -> None:
    with_signal = random_moments([0.8, 0.5, 0.2], np.random.default_rng(0))
    without = pyssl.Moments(np.eye(3), np.zeros((3, 3)))
    for moments in (with_signal, without):
        for decay in (1e10, 1e12, 1e14, 1e20, 1e60):
            land = loss.population(moments, 2, decay)
            result = minimize(land, np.ones((2, 3)), closed_form=False)
            assert result.converged and result.index == 0
            origin = float(land.value(np.zeros(land.shape)))
            assert result.value == pytest.approx(origin, rel=1e-12, abs=1e-9)


# ---- kinks ---------------------------------------------------------------------------------------


class Hinged(pyssl.NumericalLandscape):
    """VICReg's population landscape by its definition, and what its kinks answer (theory 3.5)."""

    def __init__(
        self,
        moments: pyssl.Moments,
        k: int,
        *,
        weights: tuple[float, float, float] = (25.0, 25.0, 1.0),
        decay: float = 0.0,
        eps: float = 1e-4,
        theta: Array | None = None,
    ) -> None:
        super().__init__((k, moments.dim), decay, False)
        self.moments, self.parts, self.eps, self.theta = moments, weights, eps, theta

    def _variances(self, w: Array) -> Array:
        return np.einsum("ia,ab,ib->i", w, self.moments.covariance, w)

    def _slopes(self, w: Array) -> Array:
        if self.theta is not None:
            return self.theta
        return (self._variances(w) + self.eps < 1.0).astype(float)

    def _off(self, w: Array) -> Array:
        gram = w @ self.moments.covariance @ w.T
        np.fill_diagonal(gram, 0.0)
        return gram

    def _value(self, w: Array) -> float:
        inv, var, cov = self.parts
        hinges = self._slopes(w) * (1.0 - np.sqrt(self._variances(w) + self.eps))
        apart = np.trace(w @ self.moments.augmentation_covariance @ w.T)
        total = 2.0 * inv * apart + var * hinges.sum() + 2.0 * cov * np.sum(self._off(w) ** 2)
        return float(total / len(w))

    def _value_and_gradient(self, w: Array) -> tuple[float, Array]:
        inv, var, cov = self.parts
        pull = self._slopes(w) / np.sqrt(self._variances(w) + self.eps)
        mixing = 8.0 * cov * self._off(w) - var * np.diag(pull)
        gradient = 4.0 * inv * w @ self.moments.augmentation_covariance
        return self._value(w), (gradient + mixing @ w @ self.moments.covariance) / len(w)

    def _linearised(self, w: Array) -> Callable[[Array], Array]:
        inv, var, cov = self.parts
        covariance, variances = self.moments.covariance, self._variances(w) + self.eps
        slopes = self._slopes(w)
        mixing = 8.0 * cov * self._off(w) - var * np.diag(slopes / np.sqrt(variances))

        def hvp(along: Array) -> Array:
            cross = along @ covariance @ w.T
            change = 8.0 * cov * (cross + cross.T)
            np.fill_diagonal(change, var * slopes * np.diagonal(cross) / variances**1.5)
            result = 4.0 * inv * along @ self.moments.augmentation_covariance
            return (result + (mixing @ along + change @ w) @ covariance) / len(w)

        return hvp

    def kinks(self, W: Array) -> Array:
        return self._variances(W) + self.eps - 1.0

    def kink_normals(self, W: Array) -> Array:
        return 2.0 * W @ self.moments.covariance

    def with_slopes(self, theta: Array) -> Hinged:
        assert ((theta >= 0.0) & (theta <= 1.0)).all()
        return Hinged(
            self.moments,
            self.shape[0],
            weights=self.parts,
            decay=self.weight_decay,
            eps=self.eps,
            theta=theta,
        )

    def kkt_residual(self, W: Array, tolerance: float = 1e-8) -> tuple[float, Array]:
        flat, steep = (self.with_slopes(np.full(len(W), t)).gradient(W) for t in (0.0, 1.0))
        pull = flat - steep
        length = np.maximum(np.sum(pull * pull, axis=1), 1e-300)
        best = np.clip(np.sum(flat * pull, axis=1) / length, 0.0, 1.0)
        c = self.kinks(W)
        theta = np.where(c < -tolerance, 1.0, np.where(c > tolerance, 0.0, best))
        return float(np.linalg.norm(flat - theta[:, None] * pull)), theta


def test_the_hinged_landscape_is_right(rng: np.random.Generator) -> None:
    land = Hinged(random_moments([0.75, 0.5, 0.25], rng), 2, decay=0.1, eps=0.5)
    W, D = 0.3 * rng.standard_normal((2, 2, 3))
    for theta in (np.array([1.0, 0.0]), np.array([0.3, 0.7])):
        smooth = land.with_slopes(theta)
        check_gradient(smooth.value, smooth.gradient, W, rtol=1e-6)
        check_hvp(smooth.gradient, smooth.hvp, W, D, rtol=1e-6)


def assert_kkt(land: Hinged, result: pyssl.MinimizeResult) -> Array:
    """Assert the conditions of a minimum with kinks; return the slopes."""
    assert result.converged and result.index == 0
    residual, theta = land.kkt_residual(result.weights)
    assert residual <= 1e-6
    assert residual == pytest.approx(result.gradient_norm, abs=1e-9)
    rng = np.random.default_rng(0)
    for size in (1e-1, 1e-2, 1e-3):
        for step in rng.standard_normal((20, *land.shape)):
            assert land.value(result.weights + size * step) > result.value
    return theta


@pytest.mark.parametrize("start", [None, "origin"])
@pytest.mark.parametrize("number", range(20))
def test_the_minimum_on_the_kinks(number: int, start: str | None) -> None:
    # weak augmentation: every unit fills its hinge; among k modes of one rho nothing else costs
    rng = np.random.default_rng(number)
    k = int(rng.integers(1, 5))
    d = k + int(rng.integers(0, 4))
    rho = np.append(np.full(k, 0.9375), rng.integers(64, 120, d - k) / 128.0)
    land = Hinged(random_moments(rho, rng), k, weights=(1.0, 25.0, 10.0))
    origin = None if start is None else np.zeros(land.shape)
    result = minimize(land, origin)
    theta = assert_kkt(land, result)
    assert ((theta > 0.0) & (theta < 1.0)).all()
    assert result.value == pytest.approx(0.125 * (1.0 - 1e-4), rel=1e-9)
    gram = result.weights @ land.moments.covariance @ result.weights.T
    np.testing.assert_allclose(gram, (1.0 - 1e-4) * np.eye(k), atol=1e-7)


@pytest.mark.parametrize("number", range(30))
def test_rows_on_and_off_their_kinks(number: int) -> None:
    rng = np.random.default_rng([number, 1])
    d, k = (int(size) for size in rng.integers(1, 7, 2))
    moments = random_moments(np.abs(random_spectrum(d, rng)), rng)
    weights = (float(rng.choice([2.0, 10.0, 25.0])), 25.0, 1.0)
    land = Hinged(moments, k, weights=weights, decay=float(rng.choice([0.0, 0.5])))
    values = []
    for start in (None, np.zeros(land.shape), 3.0 * rng.standard_normal(land.shape)):
        result = minimize(land, start)
        assert_kkt(land, result)
        values.append(result.value)
    assert min(values) == pytest.approx(values[0], rel=0.05)  # local minima may differ


@pytest.mark.parametrize("bias", [False, True])
def test_the_population_landscape_of_vicreg(bias: bool) -> None:
    moments = random_moments([0.9, 0.8, 0.5, 0.2], np.random.default_rng(2))
    loss = pyssl.VICReg(invariance=5.0)
    land = loss.population(moments, embedding_dim=3, weight_decay=0.01, bias=bias)
    result = minimize(land)
    twin = minimize(Hinged(moments, 3, weights=(5.0, 25.0, 1.0), decay=0.01))
    assert result.converged and result.index == 0
    assert result.gradient_norm <= 1e-6
    assert result.value == pytest.approx(twin.value, rel=1e-9)
    residual, theta = land.kkt_residual(result.weights)
    assert residual <= 1e-6
    assert ((theta > 0.0) & (theta < 1.0)).any()


def kinked_batch(seed: int, k: int, d: int, n: int, **options: float) -> pyssl.Landscape:
    rng = np.random.default_rng(seed)
    moments = random_moments(random_spectrum(d, rng, positive=True), rng)
    return pyssl.VICReg(**options).empirical(*gaussian_views(moments, n, rng), k, 0.01, bias=True)


@pytest.mark.parametrize(("k", "d"), [(1, 1), (2, 3), (3, 2), (2, 6), (4, 8)])
def test_vicreg_on_a_batch_ends_on_the_kinks_of_both_views(k: int, d: int) -> None:
    met = []
    for seed in range(4):
        land = kinked_batch(seed, k, d, 60, invariance=4.0)
        result = minimize(land)
        assert result.converged and result.index == 0
        residual, theta = land.kkt_residual(result.weights)
        assert residual <= 1e-6 and residual == pytest.approx(result.gradient_norm, abs=1e-8)
        assert ((theta >= 0.0) & (theta <= 1.0)).all()
        met.append(((theta > 0.0) & (theta < 1.0)).sum(axis=0).max())
        rng = np.random.default_rng(0)
        for size in (1e-1, 1e-3):
            for step in rng.standard_normal((20, *land.shape)):
                assert land.value(result.weights + size * step) > result.value
    assert max(met) >= (2 if d > k else 1)  # where two kinks of a row meet


def test_both_views_the_same_have_one_kink_twice() -> None:
    x = np.random.default_rng(0).standard_normal((40, 3))
    result = minimize(pyssl.VICReg().empirical(x, x, 2))
    assert result.converged
    assert result.value == pytest.approx(0.0, abs=1e-9)


def test_hinges_of_given_slopes_on_a_batch() -> None:
    land = kinked_batch(0, 2, 3, 30, epsilon=0.5)
    rng = np.random.default_rng(1)
    W, D = 0.3 * rng.standard_normal((2, *land.shape))
    theta = rng.random((2, 2))
    smooth = land.with_slopes(theta)
    check_gradient(smooth.value, smooth.gradient, W, rtol=1e-6)
    check_hvp(smooth.gradient, smooth.hvp, W, D, rtol=1e-6)
    active = (land.kinks(W) < 0.0).astype(float)
    assert land.with_slopes(active).value(W) == pytest.approx(land.value(W), rel=1e-12)
    np.testing.assert_allclose(land.with_slopes(active).gradient(W), land.gradient(W), rtol=1e-10)
    for row in range(2):  # the slopes enter by their own rows
        for view in range(2):
            move = np.zeros_like(W)
            move[row] = D[row]
            ahead, behind = (land.kinks(W + s * 1e-6 * move)[view, row] for s in (1.0, -1.0))
            along = float(np.sum(land.kink_normals(W)[view, row] * D[row]))
            assert (ahead - behind) / 2e-6 == pytest.approx(along, rel=1e-6)
    # the least residual over a grid of slopes is no smaller
    residual, _ = land.kkt_residual(W, tolerance=10.0)
    grid = np.stack(np.meshgrid(*[np.linspace(0.0, 1.0, 6)] * 4), axis=-1).reshape(-1, 2, 2)
    least = min(np.linalg.norm(land.with_slopes(t).gradient(W)) for t in grid)
    assert residual <= least + 1e-12


def test_collapse_of_a_hinge() -> None:
    # theory 3.5: no direction has var Sigma > 4 inv sqrt(eps) C
    land = Hinged(pyssl.Moments(np.eye(3), 0.5 * np.eye(3)), 2, eps=0.5, weights=(25.0, 10.0, 1.0))
    result = minimize(land, 0.5 * np.eye(2, 3))
    assert result.converged and result.index == 0
    assert np.linalg.norm(result.weights) < 1e-6
    escaping = Hinged(pyssl.Moments(np.eye(3), 0.99 * np.eye(3)), 2)
    assert np.linalg.norm(minimize(escaping, np.zeros((2, 3))).weights) > 0.5


# ---- the hook, restarts, determinism -------------------------------------------------------------


def test_the_callback_sees_every_iteration() -> None:
    land = random_land(pyssl.SpectralContrastive(), 2)
    states: list[pyssl.MinimizeState] = []
    result = minimize(land, closed_form=False, restarts=2, callback=states.append)
    for run in (0, 1):
        mine = [state for state in states if state.restart == run]
        assert [state.iteration for state in mine] == list(range(len(mine)))
        values = [state.value for state in mine]
        assert all(b <= a + 1e-12 for a, b in itertools.pairwise(values))
    lowest = min(state.value for state in states)
    assert result.value == pytest.approx(lowest, abs=1e-12)


def test_the_callback_stops_everything() -> None:
    land = random_land(pyssl.SpectralContrastive(), 2)
    result = minimize(
        land, closed_form=False, restarts=3, callback=lambda state: state.iteration == 2
    )
    assert result.outcome is Outcome.INTERRUPTED
    assert not result.converged
    assert (result.iterations, result.restarts) == (2, 1)


def test_an_interrupt_passes_through() -> None:
    def interrupt(_: pyssl.MinimizeState) -> None:
        raise KeyboardInterrupt

    land = random_land(pyssl.SpectralContrastive(), 2)
    with pytest.raises(KeyboardInterrupt):
        minimize(land, closed_form=False, callback=interrupt)
    assert minimize(land, closed_form=False).converged


def test_the_same_seed_gives_the_same_bits() -> None:
    land = scale_free_land(0.0)
    one, two = (minimize(land, restarts=2, rng=4) for _ in range(2))
    np.testing.assert_array_equal(one.weights, two.weights)
    by_generator = minimize(land, restarts=2, rng=np.random.default_rng(4))
    np.testing.assert_array_equal(one.weights, by_generator.weights)
    assert not np.array_equal(one.weights, minimize(land, rng=5).weights)


def test_the_lowest_of_the_runs_wins() -> None:
    # a well at -1 beside the deeper one at 1: the first run starts in the shallow one
    result = minimize(TwoWells(), [[-1.0]])
    assert result.converged and result.weights[0, 0] < 0.0
    best = minimize(TwoWells(), [[-1.0]], restarts=8)
    assert best.converged and best.weights[0, 0] > 0.0
    assert best.value < result.value


class TwoWells:
    """w^4/4 - w^2/2 - w/10, by hand."""

    shape = (1, 1)

    def value(self, W: Array) -> Array:
        w = np.asarray(W)[..., 0, 0]
        return w**4 / 4 - w**2 / 2 - w / 10

    def gradient(self, W: Array) -> Array:
        w = np.asarray(W)
        return w**3 - w - 0.1

    def value_and_gradient(self, W: Array) -> tuple[Array, Array]:
        return self.value(W), self.gradient(W)

    def hvp(self, W: Array, D: Array) -> Array:
        return (3 * np.asarray(W) ** 2 - 1) * D

    def hessian(self, W: Array) -> Array:
        return 3 * np.asarray(W) ** 2 - 1

    def plane(self, *arguments: Array) -> Array:
        raise NotImplementedError


def test_the_closed_form_is_used_where_there_is_one() -> None:
    land = random_land(pyssl.SpectralContrastive(), 2)
    result = minimize(land)
    assert result.closed_form and result.iterations == 0
    np.testing.assert_array_equal(result.weights, land.minimum().weights)
    assert "closed form" in repr(result)
    assert not result.weights.flags.writeable


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"start": np.ones((2, 2))}, ValueError, "start must be"),
        ({"start": np.ones((1, 2, 3))}, ValueError, "start must be"),
        ({"start": np.full((2, 3), np.nan)}, ValueError, "start must be finite, got nan"),
        (
            {"start": np.full((2, 3), 1e90)},
            ValueError,
            "start must be at most 1e\\+70 in magnitude",
        ),
        ({"start": "here"}, TypeError, "start must hold real numbers"),
        ({"restarts": 0}, ValueError, "restarts must be at least 1, got 0"),
        ({"restarts": 1.5}, TypeError, "restarts must be an integer"),
        ({"tolerance": 0.0}, ValueError, "tolerance must be > 0"),
        ({"tolerance": np.nan}, ValueError, "tolerance must be finite"),
        ({"max_iterations": -1}, ValueError, "max_iterations must be at least 0"),
        ({"closed_form": 1}, TypeError, "closed_form must be True or False"),
        ({"callback": 3}, TypeError, "callback must be a function, got int"),
        ({"rng": -1}, ValueError, "rng must be a seed or a Generator"),
        ({"rng": "seed"}, TypeError, "rng must be a seed"),
    ],
)
def test_bad_arguments(options: dict[str, object], error: type[Exception], message: str) -> None:
    land = pyssl.SpectralLandscape(np.eye(3), np.eye(3), pyssl.Quartic(1.0), 2)
    with pytest.raises(error, match=message):
        minimize(land, **options)


def test_what_is_no_landscape() -> None:
    with pytest.raises(TypeError, match=r"land must be a pyssl\.Landscape, got"):
        minimize(pyssl.SpectralContrastive())


@pytest.mark.parametrize("decay", [1e4, 1e8, 1e12])
@pytest.mark.parametrize(
    "loss",
    [pyssl.VICReg(), pyssl.BarlowTwins(0.1, normalize=False), pyssl.SpectralContrastive()],
    ids=repr,
)
def test_a_huge_decay_hides_nothing(loss: pyssl.Loss, decay: float) -> None:
    moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.3]))
    land = loss.population(moments, 2, weight_decay=decay)
    result = minimize(land, closed_form=False)
    assert result.converged
    assert result.value == pytest.approx(float(land.value(np.zeros((2, 2)))), abs=1e-9)
