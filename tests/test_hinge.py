"""VICReg's population landscape: the hinge, its kinks, and minima on them (theory 3.5)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize

import pyssl
from pyssl.testing import check_gradient, check_hvp, random_moments, random_spectrum

LOSSES = [
    pyssl.VICReg(),
    pyssl.VICReg(3.0, 2.0, 0.7, epsilon=0.2, halve_variance=False),
]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=repr)
both_biases = pytest.mark.parametrize("bias", [False, True])


def seeded(*key: int) -> np.random.Generator:
    return np.random.default_rng([3, 5, *key])


def problem(d: int, rng: np.random.Generator) -> pyssl.Moments:
    return random_moments(random_spectrum(d, rng, positive=True), rng, mean=True)


def on_kinks(land: pyssl.VICRegLandscape, W: np.ndarray, rows: slice) -> np.ndarray:
    """Return W with some rows scaled to their kinks; a second step takes off the rounding."""
    result = W.copy()
    for _ in range(2):
        variance = land.kinks(result) + 1.0 - land.loss.epsilon
        factor = np.sqrt((1.0 - land.loss.epsilon) / variance)
        result[rows] *= factor[rows, None]
    return result


def vicreg(
    loss: pyssl.VICReg, m: pyssl.Moments, W: np.ndarray, theta: np.ndarray | None = None
) -> np.ndarray:
    """Evaluate theory 3.5, with given slopes of the hinges if any; accepts complex W."""
    k = W.shape[-2]
    turned = np.swapaxes(W, -1, -2)
    P, apart = W @ m.covariance @ turned, W @ m.augmentation_covariance @ turned
    variance = np.diagonal(P, axis1=-2, axis2=-1)
    hinge = 1.0 - np.sqrt(variance + loss.epsilon)
    slopes = (hinge.real > 0.0) if theta is None else theta
    off = P * (1.0 - np.eye(k))
    return np.asarray(
        loss.invariance * 2.0 * np.trace(apart, axis1=-2, axis2=-1) / k
        + loss.variance * (1.0 if loss.halve_variance else 2.0) * (slopes * hinge).mean(axis=-1)
        + loss.covariance * 2.0 * (off**2).sum((-2, -1)) / k
    )


@every_loss
@both_biases
def test_derivatives(loss: pyssl.VICReg, bias: bool) -> None:
    for k, d in ((3, 4), (5, 2), (1, 1), (12, 14)):
        rng = seeded(1, k, d)
        m = problem(d, rng)
        land = loss.population(m, k, weight_decay=0.3, bias=bias)
        W, D = rng.standard_normal((2, *land.shape))
        W[::2] *= 0.2
        W[1::2] *= 3.0
        assert k == 1 or len(set(np.sign(land.kinks(W)))) == 2
        theta = rng.uniform(size=k)
        for slopes, each in ((None, land), (theta, land.with_slopes(theta))):

            def reference(
                w: np.ndarray, m: pyssl.Moments = m, slopes: np.ndarray | None = slopes
            ) -> np.ndarray:
                w = w[..., : m.dim]
                return vicreg(loss, m, w, slopes) + 0.15 * (w**2).sum((-2, -1))

            check_gradient(each.value, each.gradient, W, reference=reference)
            # steps so short that no hinge changes sides
            check_hvp(each.gradient, each.hvp, W, 0.01 * D, rtol=1e-7)
            u, v = np.linspace(-0.4, 0.5, 5), np.linspace(-1.0, 1.0, 4)
            points = W + u[:, None, None, None] * D + v[:, None, None] * W[::-1]
            np.testing.assert_allclose(
                each.plane(W, D, W[::-1], u, v), reference(points), rtol=1e-11, atol=1e-11
            )


def test_complete_collapse_is_a_matter_of_directions() -> None:
    # theory 3.5: a direction escapes iff var Sigma > 4 inv sqrt(eps) C along it
    rng = seeded(2)
    loss = pyssl.VICReg(epsilon=1e-2)
    for rho in (0.9, 0.5, 0.76, 0.74):
        m = pyssl.Moments(np.diag([1.0, 2.0]), np.diag([rho, -0.5]))
        land = loss.population(m, 2)
        threshold = loss.variance - 4.0 * loss.invariance * 0.1 * (1.0 - rho)
        assert (land.origin_spectrum[0] > 0.0) == (threshold > 0.0)
    for factor, escapes in ((0.999, False), (1.001, True)):
        m = pyssl.Moments(np.diag([1.0, 2.0]), np.diag([0.3, -0.2]))
        balance = 4.0 * 0.1 * 0.7 * loss.invariance * factor
        land = pyssl.VICReg(variance=balance, epsilon=1e-2).population(m, 2)
        W = 1e-3 * rng.standard_normal((50, 2, 2))
        lower = land.value(W) < land.value(np.zeros((2, 2)))
        along = land.value([[1e-3, 0.0], [0.0, 0.0]]) < land.value(np.zeros((2, 2)))
        assert along == escapes
        assert escapes or not lower.any()
        assert (land.critical_weight_decay[0] > 0.0) == escapes


@pytest.mark.parametrize("halve", [True, False])
@pytest.mark.parametrize("invariance", [0.5, 2.0])
def test_one_unit_in_closed_form(invariance: float, halve: bool) -> None:
    # along the best aligned mode: on the kink, or where the hinge and the invariance balance
    loss = pyssl.VICReg(invariance, 4.0, 1.0, epsilon=0.04, halve_variance=halve)
    rho = np.array([0.2, -0.1, -0.4])
    m = random_moments(rho, seeded(3))
    land = loss.population(m, 1)
    hinge = 4.0 * (1.0 if halve else 2.0)
    balance = hinge / (4.0 * invariance * (1.0 - rho[0]))
    best = min(1.0, balance)  # sqrt(P + eps)
    expected = 2.0 * invariance * (1.0 - rho[0]) * (best**2 - 0.04) + hinge * (1.0 - best)
    value = min(
        scipy.optimize.minimize(
            lambda w: float(land.value(w[None])),
            seeded(4, start).standard_normal(3),
            method="Nelder-Mead",
            options={"xatol": 1e-10, "fatol": 1e-14, "maxiter": 10000, "maxfev": 10000},
        ).fun
        for start in range(3)
    )
    np.testing.assert_allclose(value, expected, rtol=1e-9)
    kinds = {(0.5, True): True, (0.5, False): True, (2.0, True): False, (2.0, False): True}
    assert (balance > 1.0) == kinds[invariance, halve]  # both cases occur


def test_kinks_and_their_normals() -> None:
    rng = seeded(5)
    m = problem(4, rng)
    land = pyssl.VICReg(epsilon=0.3).population(m, 3, bias=True)
    W = rng.standard_normal((2, 3, 5))
    P = W[..., :4] @ m.covariance @ np.swapaxes(W[..., :4], 1, 2)
    expected = np.diagonal(P, axis1=1, axis2=2) + 0.3 - 1.0
    np.testing.assert_allclose(land.kinks(W), expected, rtol=1e-12)
    normals = land.kink_normals(W)
    assert normals.shape == W.shape
    np.testing.assert_array_equal(normals[..., 4], 0.0)
    for row in range(3):
        direction = np.zeros((3, 5))
        direction[row] = rng.standard_normal(5)
        change = (land.kinks(W + 1e-4 * direction) - land.kinks(W - 1e-4 * direction)) / 2e-4
        np.testing.assert_allclose(change[:, row], (normals * direction).sum((1, 2)), rtol=1e-8)
        np.testing.assert_array_equal(np.delete(change, row, axis=1), 0.0)
    single = W.astype(np.float32)
    for result in (land.kinks(single), land.kink_normals(single), *land.kkt_residual(single)):
        assert result.dtype == np.float32


@every_loss
@both_biases
def test_the_kkt_residual_is_the_least_subgradient(loss: pyssl.VICReg, bias: bool) -> None:
    rng = seeded(6)
    m = problem(4, rng)
    land = loss.population(m, 5, weight_decay=0.1, bias=bias)
    W = rng.standard_normal(land.shape)
    W[4] *= 0.01
    off = land.kkt_residual(W)[0]  # away from the kinks it is the gradient's norm
    np.testing.assert_allclose(off, np.linalg.norm(land.gradient(W)), rtol=1e-12)
    W = on_kinks(land, W, slice(0, 3))
    np.testing.assert_allclose(land.kinks(W)[:3], 0.0, atol=1e-14)
    residual, theta = land.kkt_residual(W)
    assert theta[4] == 1.0 and theta[3] == (land.kinks(W)[3] < 0.0)
    assert ((theta >= 0.0) & (theta <= 1.0)).all()
    np.testing.assert_allclose(
        residual, np.linalg.norm(land.with_slopes(theta).gradient(W)), rtol=1e-12
    )
    for _ in range(50):
        other = theta.copy()
        other[:3] = rng.uniform(size=3)
        worse = np.linalg.norm(land.with_slopes(other).gradient(W))
        assert worse >= residual * (1.0 - 1e-12)
    # a batch of two, in one call
    residuals, slopes = land.kkt_residual(np.stack([W, 2.0 * W]))
    assert residuals[0] == residual and slopes.shape == (2, 5)
    # within the tolerance a row counts as on its kink, beyond it does not
    near = W * (1.0 + 1e-9)
    np.testing.assert_allclose(land.kkt_residual(near, tolerance=1e-6)[1], theta, atol=1e-6)
    assert (land.kkt_residual(near, tolerance=0.0)[1][:3] == 0.0).all()


@every_loss
@pytest.mark.parametrize(
    ("rho", "g"),
    [
        ((0.95, 0.93, 0.9, 0.3, 0.2), 0.0),
        ((0.95, 0.93, 0.9, 0.3, 0.2), 0.05),
        ((0.9, 0.9, 0.9, 0.3, 0.2), 0.0),
    ],
)
def test_canonical_modes_on_their_kinks(
    loss: pyssl.VICReg, rho: tuple[float, ...], g: float
) -> None:
    # P is diagonal, and the invariance and the decay pull each row against its own hinge
    rng = seeded(7)
    d, k = 5, 3
    m = random_moments(rho, rng, commuting=True)
    vectors = scipy.linalg.eigh(m.cross_covariance, m.covariance)[1].T[::-1][:k]
    land = loss.population(m, k, weight_decay=g)
    W = on_kinks(land, vectors, slice(None))
    residual, theta = land.kkt_residual(W)
    hinge = loss.variance * (1.0 if loss.halve_variance else 2.0) / k
    length = np.sum(W**2, axis=1) / (1.0 - loss.epsilon)
    expected = (4.0 * loss.invariance * (1.0 - np.array(rho[:k])) / k + g * length) / hinge
    np.testing.assert_allclose(theta, expected, rtol=1e-8)
    assert residual < 1e-10
    assert np.linalg.norm(land.gradient(W)) > 0.1  # of one side of the kinks
    # judged by the Lagrangian on the tangent space of the kinks
    rows = np.zeros((k, k, d))
    rows[np.arange(k), np.arange(k)] = land.kink_normals(W)
    tangent = scipy.linalg.null_space(rows.reshape(k, -1))
    lowest = np.linalg.eigvalsh(tangent.T @ land.with_slopes(theta).hessian(W) @ tangent)[0]
    around = [W + size * rng.standard_normal((200, k, d)) for size in (1e-3, 1e-2)]
    if rho[0] == rho[1]:
        # a minimum: flat along rotations of the units, and nothing lower nearby
        assert lowest > -1e-9
        for points in around:
            assert (land.value(points) > land.value(W)).all()
    elif g == 0.0:
        # a saddle: units that mix modes can correlate, and lean to the better aligned of them
        assert lowest < -1e-4


def test_units_that_mix_modes_lean_to_the_better_one() -> None:
    # P = [[p, q], [q, p]] has the variances p + q and p - q along two modes: that gains to first
    # order in q what the covariance term costs to second order, so the units correlate
    loss = pyssl.VICReg(invariance=5.0, variance=25.0, covariance=1.0, epsilon=0.25)
    c = np.array([0.05, 0.3])
    land = loss.population(pyssl.Moments(np.eye(2), np.diag(1.0 - c)), 2)
    p = 0.75
    q = loss.invariance * (c[1] - c[0]) / (4.0 * loss.covariance)
    assert q < p  # else both units are the better mode
    sizes = np.sqrt([p + q, p - q])
    W = np.array([[1.0, 1.0], [1.0, -1.0]]) / math.sqrt(2.0) * sizes
    np.testing.assert_allclose(land.kinks(W), 0.0, atol=1e-14)
    residual, theta = land.kkt_residual(W)
    assert residual < 1e-12
    assert ((theta > 0.0) & (theta < 1.0)).all()
    assert land.value(W) < land.value(math.sqrt(p) * np.eye(2)) - 1e-3


def test_the_hinge_counts_as_inactive_at_its_kink() -> None:
    land = pyssl.VICReg(epsilon=0.75).population(pyssl.Moments(np.eye(1), 0.5 * np.eye(1)), 1)
    W = np.array([[0.5]])
    assert land.kinks(W) == 0.0
    np.testing.assert_array_equal(land.gradient(W), 50.0 * W)
    np.testing.assert_array_equal(land.hvp(W, W), 50.0 * W)
    inside = np.nextafter(W, 0.0)
    np.testing.assert_allclose(land.gradient(inside), 25.0 * W, rtol=1e-12)


def test_a_large_epsilon_leaves_no_hinge() -> None:
    rng = seeded(8)
    m = problem(3, rng)
    for epsilon in (1.0, 2.0):
        land = pyssl.VICReg(epsilon=epsilon).population(m, 2)
        assert land.value(np.zeros((2, 3))) == 0.0
        assert land.origin_spectrum[0] <= 1e-12
        assert (land.critical_weight_decay[:1] == 0.0).all()
        W = rng.standard_normal((20, 2, 3))
        assert (land.value(W) > 0.0).all()


def test_bad_input() -> None:
    land = pyssl.VICReg().population(problem(3, seeded(9)), 2)
    W = np.ones((2, 3))
    with pytest.raises(ValueError, match=r"theta must be between 0 and 1, got 1\.5"):
        land.with_slopes([0.0, 1.5])
    with pytest.raises(ValueError, match="theta must be between 0 and 1, got -1"):
        land.with_slopes([-1.0, 0.5])
    with pytest.raises(ValueError, match=r"theta must be \(2,\), got \(3,\)"):
        land.with_slopes([0.0, 0.5, 1.0])
    with pytest.raises(ValueError, match="theta must be finite"):
        land.with_slopes([0.0, np.nan])
    with pytest.raises(ValueError, match="tolerance must be >= 0"):
        land.kkt_residual(W, tolerance=-1.0)
    with pytest.raises(TypeError, match="tolerance must be a real number"):
        land.kkt_residual(W, tolerance="small")  # type: ignore[arg-type]
    for call in (land.kinks, land.kink_normals, land.kkt_residual):
        with pytest.raises(ValueError, match=r"W must be \(\.\.\., 2, 3\), got \(3, 3\)"):
            call(np.ones((3, 3)))
