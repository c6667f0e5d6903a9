"""InfoNCE with K negatives against its definition, its expansion and numerical minimisation."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import scipy.optimize

import pyssl
from pyssl.testing import check_gradient, check_hvp, random_moments, random_spectrum

SIMILARITIES = ("dot", "sqeuclidean")
similarities = pytest.mark.parametrize("similarity", SIMILARITIES)
NEGATIVES = (1, 2, 5, 64)
TAU = 0.7


def seeded(*key: int) -> np.random.Generator:
    return np.random.default_rng([3, 1, *key])


def infonce(similarity: str, negatives: float) -> pyssl.InfoNCE:
    return pyssl.InfoNCE(TAU, similarity, negatives=negatives)


def problem(*key: int, **options: Any) -> tuple[pyssl.Moments, int, np.random.Generator]:
    rng = seeded(*key)
    d = int(rng.integers(1, 6))
    k = int(rng.integers(1, d + 2))
    positive = bool(rng.random() < 0.5)
    return random_moments(random_spectrum(d, rng, positive=positive), rng, **options), k, rng


def t(a: np.ndarray) -> np.ndarray:
    return np.swapaxes(a, -1, -2)


def trace(a: np.ndarray) -> np.ndarray:
    return np.trace(a, axis1=-2, axis2=-1)


def reference(loss: pyssl.InfoNCE, m: pyssl.Moments, g: float, bias: bool) -> Any:
    """Return the landscape in plain NumPy by theory 3.1, for complex W too."""
    K, n, tau, d = loss.negatives, loss.negatives + 1.0, loss.temperature, m.dim

    def value(W: np.ndarray) -> np.ndarray:
        V = W[..., :d]
        mean = V @ m.mean[:, None] + (W[..., d:] if bias else 0.0)
        P, Q = V @ m.covariance @ t(V), V @ m.cross_covariance @ t(V)
        R = V @ m.augmentation_covariance @ t(V)
        if loss.similarity == "dot":
            bracket = n * trace(P @ (P + mean @ t(mean))) + trace(Q @ Q) + trace(Q) ** 2
        else:
            bracket = (3 * K + 1) / 2 * trace(P @ P) + trace(R @ R) + trace(Q) ** 2
        quartic = K / (2 * n**2 * tau**2) * bracket
        return 0.5 * g * trace(V @ t(V)) - K / n * trace(Q) / tau + quartic

    return value


# ---- the formula ---------------------------------------------------------------------------------


def coefficients(
    loss: pyssl.InfoNCE, P: np.ndarray, Q: np.ndarray, mean: np.ndarray, nodes: int
) -> tuple[float, float]:
    """Return the second- and fourth-order coefficients in s of the loss on embeddings s z.

    The expectation over Gaussian z, z+ and K negatives is by Gauss-Hermite quadrature of the loss
    itself, the coefficients by extrapolation to s = 0.
    """
    K, k = int(loss.negatives), len(P)
    points, weight = np.polynomial.hermite_e.hermegauss(nodes)
    weight /= weight.sum()
    grid = np.array(list(itertools.product(points, repeat=(K + 2) * k)))
    shares = np.prod(list(itertools.product(weight, repeat=(K + 2) * k)), axis=1)
    pair = np.linalg.cholesky(np.block([[P, Q], [Q, P]]))
    pairs = grid[:, : 2 * k] @ pair.T
    alone = grid[:, 2 * k :].reshape(-1, K, k) @ np.linalg.cholesky(P).T
    z, others = pairs[:, :k], np.concatenate([pairs[:, None, k:], alone], axis=1)
    z, others = z + mean, others + mean
    if loss.similarity == "dot":
        logits = np.einsum("nk,njk->nj", z, others) / loss.temperature
    else:
        logits = -0.5 * np.sum((z[:, None] - others) ** 2, axis=2) / loss.temperature
    # per order in s^2: exact differences of log-mean-exp would cancel, its logits do not
    squares = np.array([0.002, 0.004, 0.006, 0.008, 0.01, 0.012])
    values = []
    for e in squares:
        terms = -e * logits[:, 0] + np.log1p(np.expm1(e * logits).mean(axis=1))
        values.append(float(shares @ terms) / e)
    fit = np.polynomial.polynomial.polyfit(squares, values, 4)
    return float(fit[0]), float(fit[1])


@similarities
@pytest.mark.parametrize(("K", "nodes"), [(1, 14), (2, 10), (3, 8)])
@pytest.mark.parametrize("mean", [0.0, 0.8])
def test_expansion_of_the_loss_itself(similarity: str, K: int, nodes: int, mean: float) -> None:
    p, q = 0.9, 0.4
    loss = infonce(similarity, K)
    second, fourth = coefficients(loss, np.array([[p]]), np.array([[q]]), np.array([mean]), nodes)
    m = pyssl.Moments(np.array([[p]]), np.array([[q]]), [mean])
    land = loss.effective(m, 1)
    values = [land.value([[s]]) for s in (1.0, 2.0)]
    assert second == pytest.approx((16 * values[0] - values[1]) / 12, rel=1e-7)
    assert fourth == pytest.approx((values[1] - 4 * values[0]) / 12, rel=1e-4)


@similarities
def test_expansion_of_the_loss_itself_in_two_dimensions(similarity: str) -> None:
    P, Q = np.array([[0.9, 0.2], [0.2, 0.6]]), np.array([[0.5, -0.1], [-0.1, 0.3]])
    mean = np.array([0.5, -0.8])
    loss = infonce(similarity, 1)
    second, fourth = coefficients(loss, P, Q, mean, 7)
    land = loss.effective(pyssl.Moments(P, Q, mean), 2)
    values = [land.value(s * np.eye(2)) for s in (1.0, 2.0)]
    assert second == pytest.approx((16 * values[0] - values[1]) / 12, rel=1e-7)
    assert fourth == pytest.approx((values[1] - 4 * values[0]) / 12, rel=1e-4)


@similarities
@pytest.mark.parametrize("bias", [False, True])
def test_derivatives(similarity: str, bias: bool) -> None:
    for number, K in enumerate(NEGATIVES):
        m, k, rng = problem(0, number, mean=True)
        loss = infonce(similarity, K)
        land: Any = loss.effective(m, k, weight_decay=0.3, bias=bias)
        assert (land.loss, land.moments) == (loss, m)
        assert land.shape == (k, m.dim + bias)
        expected = reference(loss, m, 0.3, bias)
        W, D = rng.standard_normal((2, *land.shape))
        check_gradient(land.value, land.gradient, W, reference=expected, rtol=1e-12)
        check_hvp(land.gradient, land.hvp, W, D, rtol=1e-10)
        bend = (land.hessian(W) @ D.ravel()).reshape(W.shape)
        np.testing.assert_allclose(bend, land.hvp(W, D), rtol=1e-10, atol=1e-12)
        batch = rng.standard_normal((3, 2, *land.shape))
        values, gradients = land.value_and_gradient(batch)
        np.testing.assert_allclose(values, expected(batch), rtol=1e-11)
        np.testing.assert_array_equal(gradients[1, 1], land.gradient(batch[1, 1]))
        u, v = np.linspace(-2.0, 1.0, 6), np.linspace(-1.0, 2.0, 7)
        points = W + u[:, None, None, None] * D + v[:, None, None] * batch[0, 0]
        exact = expected(points)
        np.testing.assert_allclose(
            land.plane(W, D, batch[0, 0], u, v), exact, atol=1e-12 * np.abs(exact).max()
        )
        single = W.astype(np.float32)
        assert land.value(single).dtype == land.gradient(single).dtype == np.float32
        if bias and similarity == "sqeuclidean":
            assert not land.gradient(W)[:, -1].any()


@similarities
def test_many_negatives_are_infinitely_many(similarity: str) -> None:
    for number in range(6):
        m, k, rng = problem(1, number)
        limit = infonce(similarity, np.inf).effective(m, k, weight_decay=0.05)
        W = rng.standard_normal((4, k, m.dim))
        for K, rtol in ((1e6, 1e-5), (1e300, 1e-12)):
            land: Any = infonce(similarity, K).effective(m, k, weight_decay=0.05)
            np.testing.assert_allclose(land.value(W), limit.value(W), rtol=rtol, atol=rtol)
            # without decay it is always solved
            solved = infonce(similarity, K).effective(m, k).minimum()
            expected = infonce(similarity, np.inf).effective(m, k).minimum()
            assert solved.rank == expected.rank
            assert solved.value == pytest.approx(expected.value, rel=10 * rtol, abs=1e-14)
            np.testing.assert_allclose(
                solved.amplitudes, expected.amplitudes, rtol=20 * rtol, atol=1e-9
            )


# ---- the closed form -----------------------------------------------------------------------------


def descend(land: Any, rng: np.random.Generator, starts: int = 10) -> tuple[float, np.ndarray]:
    """Return the lowest value that minimisation from random starts finds, and where."""

    def function(w: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = land.value_and_gradient(w.reshape(land.shape))
        return float(value), gradient.ravel()

    found = [
        scipy.optimize.minimize(
            function,
            rng.choice([0.1, 1.0]) * rng.standard_normal(land.shape).ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 5000, "ftol": 1e-16, "gtol": 1e-10, "maxcor": 30},
        )
        for _ in range(starts)
    ]
    best = min(found, key=lambda result: float(result.fun))
    return float(best.fun), best.x.reshape(land.shape)


def assert_is_the_minimum(land: Any, rng: np.random.Generator) -> None:
    minimum = land.minimum()
    assert isinstance(minimum, pyssl.Minimum)
    scale = max(abs(minimum.value), 1e-3)
    lowest, _ = descend(land, rng)
    assert lowest == pytest.approx(minimum.value, abs=1e-7 * scale)
    assert land.value(minimum.weights) == pytest.approx(minimum.value, rel=1e-11, abs=1e-14)
    assert np.abs(land.gradient(minimum.weights)).max() < 1e-11
    assert np.linalg.eigvalsh(land.hessian(minimum.weights)).min() > -1e-10
    W = minimum.weights[:, : land.moments.dim]
    assert minimum.amplitudes.shape == (land.moments.dim,)
    spectrum = np.linalg.eigvalsh(W @ land.moments.covariance @ W.T)
    wanted = np.sort(np.pad(minimum.amplitudes, (0, len(W))))[::-1][: len(W)]
    np.testing.assert_allclose(np.sort(spectrum)[::-1], wanted, rtol=1e-9, atol=1e-13)
    assert minimum.rank == np.count_nonzero(minimum.amplitudes) <= len(W)
    V = land.vectors[: land.moments.dim]
    overlap = V.T @ land.moments.covariance @ V
    inside = np.count_nonzero(np.diag(overlap) > 0.5)
    np.testing.assert_allclose(
        overlap, np.diag([1.0] * inside + [0.0] * (len(V) - inside)), atol=1e-9
    )
    np.testing.assert_allclose(
        V @ np.diag(minimum.amplitudes) @ V.T, W.T @ W, rtol=1e-9, atol=1e-12
    )


@similarities
@pytest.mark.parametrize("number", range(30))
def test_minimum_without_decay(similarity: str, number: int) -> None:
    m, k, rng = problem(2, number, mean=True)
    if similarity == "dot":
        m = m.centered()
    land = infonce(similarity, int(rng.choice(NEGATIVES))).effective(m, k)
    assert_is_the_minimum(land, rng)


@similarities
def test_minimum_with_decay_where_moments_commute(similarity: str) -> None:
    solved = 0
    for number in range(40):
        m, k, rng = problem(3, number, commuting=True)
        loss = infonce(similarity, int(rng.choice(NEGATIVES)))
        critical = loss.effective(m, k).critical_weight_decay[0]
        land = loss.effective(m, k, weight_decay=rng.uniform(0.0, 1.1) * critical)
        if hasattr(land, "minimum"):
            solved += 1
            assert_is_the_minimum(land, rng)
    assert solved >= 25


@similarities
def test_minimum_with_decay_and_a_small_embedding(similarity: str) -> None:
    # isotropic noise on a clean signal: directions of more variance are better aligned
    for number in range(12):
        rng = seeded(4, number)
        d = int(rng.integers(3, 6))
        basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
        clean = (basis * rng.uniform(0.2, 2.0, d)) @ basis.T
        m = pyssl.Moments(clean + rng.uniform(0.1, 1.0) * np.eye(d), clean)
        loss = infonce(similarity, int(rng.choice(NEGATIVES)))
        g = 0.1 * loss.effective(m, 1).critical_weight_decay[0]
        land = loss.effective(m, int(rng.integers(1, d - 1)), weight_decay=g)
        assert_is_the_minimum(land, rng)
        assert land.minimum().rank == land.embedding_dim


@similarities
def test_no_closed_form_where_terms_do_not_commute(similarity: str) -> None:
    m, k, _ = problem(5, 4)
    loss = infonce(similarity, 3)
    assert m.dim > 1
    assert hasattr(loss.effective(m, k), "minimum")
    assert not hasattr(loss.effective(m, k, weight_decay=0.01), "minimum")


def test_no_closed_form_where_the_best_mode_is_a_mixture() -> None:
    # one dimension for two modes, one better aligned, the other less hurt by decay
    m = pyssl.Moments(np.diag([1.0, 50.0]), np.diag([0.9, 20.0]))
    loss, g = infonce("dot", 1), 0.8 / (2 * TAU)
    assert loss.effective(m, 2, weight_decay=g).minimum().rank == 2
    land: Any = loss.effective(m, 1, weight_decay=g)
    assert not hasattr(land, "minimum")
    alone = [
        loss.effective(pyssl.Moments([[s]], [[a]]), 1, weight_decay=g).minimum().value
        for s, a in ((1.0, 0.9), (50.0, 20.0))
    ]
    lowest, W = descend(land, seeded(6))
    assert lowest < 1.01 * min(alone) < 0.0
    assert np.abs(W * np.sqrt([1.0, 50.0])).min() > 0.1


@similarities
def test_learned_spectrum_as_a_function_of_the_negatives(similarity: str) -> None:
    m = random_moments([0.75, 0.5, 0.25], seeded(8))
    spectra = np.array(
        [infonce(similarity, K).effective(m, 3).minimum().amplitudes for K in (1, 4, 16, np.inf)]
    )
    assert (np.diff(spectra, axis=1) < 0.0).all()
    if similarity == "dot":
        assert (np.diff(spectra, axis=0) > 0.0).all()
    else:  # the mode that is aligned best is learned less the more negatives there are
        assert (np.diff(spectra[:, 0]) < 0.0).all()
        assert (np.diff(spectra[:, 1:], axis=0) > 0.0).all()


def test_ties_nulls_and_nothing_to_learn() -> None:
    m = pyssl.Moments(np.diag([1.0, 1.0, 1.0, 0.0]), np.diag([0.5, 0.5, -0.25, 0.0]))
    for similarity, g in itertools.product(SIMILARITIES, (0.0, 0.1)):
        loss = infonce(similarity, 3)
        minima = [loss.effective(m, k, weight_decay=g).minimum() for k in (1, 2, 4)]
        assert [minimum.rank for minimum in minima] == [1, 2, 2]
        assert [minimum.degenerate for minimum in minima] == [True, False, False]
        for k, minimum in zip((1, 2, 4), minima, strict=True):
            assert (
                np.abs(loss.effective(m, k, weight_decay=g).gradient(minimum.weights)).max() < 1e-14
            )
        nothing: Any = loss.effective(pyssl.Moments(np.eye(2), -0.5 * np.eye(2)), 2, weight_decay=g)
        minimum = nothing.minimum()
        assert (minimum.rank, minimum.value) == (0, 0.0)
        assert not minimum.weights.any() and not nothing.critical_weight_decay.any()


# ---- the origin ----------------------------------------------------------------------------------


@similarities
def test_origin_and_complete_collapse(similarity: str) -> None:
    for number, K in enumerate(NEGATIVES):
        m, k, rng = problem(9, number, mean=True)
        loss = infonce(similarity, K)
        land: Any = loss.effective(m, k, weight_decay=0.2)
        top = np.linalg.eigvalsh(m.cross_covariance)[-1]
        spectrum = np.linalg.eigvalsh(land.hessian(np.zeros(land.shape)))
        expected = np.sort(np.repeat(-2 * (land.origin_spectrum - 0.1), k))
        np.testing.assert_allclose(spectrum, expected, atol=1e-13)
        critical = land.critical_weight_decay
        if top <= 0.0:
            assert not critical.any()
            continue
        assert critical[0] == pytest.approx(2 * K * top / ((K + 1) * TAU), rel=1e-12)
        assert np.isnan(critical[1:]).all() and critical.shape == (m.dim,)
        lowest, _ = descend(loss.effective(m, k, weight_decay=1.02 * critical[0]), rng)
        assert lowest > -1e-13
        lowest, _ = descend(loss.effective(m, k, weight_decay=0.9 * critical[0]), rng)
        assert lowest < -1e-8


@similarities
def test_rank_at_the_threshold(similarity: str) -> None:
    m = random_moments([0.75, 0.5, 0.25], seeded(10), commuting=True)
    loss = infonce(similarity, 4)
    critical = loss.effective(m, 3).critical_weight_decay[0]
    ranks = [
        loss.effective(m, 3, weight_decay=factor * critical).minimum().rank
        for factor in (1 - 1e-9, 1.0, 1 + 1e-9)
    ]
    assert ranks == [1, 0, 0]


# ---- bias ----------------------------------------------------------------------------------------


@similarities
def test_bias(similarity: str) -> None:
    for number in range(6):
        m, k, rng = problem(11, number, mean=True, commuting=True)
        loss = infonce(similarity, 3)
        g = 0.2 * max(loss.effective(m, k).critical_weight_decay[0], 0.1)
        land: Any = loss.effective(m, k, weight_decay=g, bias=True)
        centred: Any = loss.effective(m.centered(), k, weight_decay=g)
        assert hasattr(land, "minimum") == hasattr(centred, "minimum")
        np.testing.assert_array_equal(land.origin_spectrum, centred.origin_spectrum)
        if not hasattr(land, "minimum"):
            continue
        minimum, expected = land.minimum(), centred.minimum()
        assert minimum.value == expected.value
        np.testing.assert_array_equal(minimum.weights[:, :-1], expected.weights)
        offset = -expected.weights @ m.mean if similarity == "dot" else np.zeros(k)
        np.testing.assert_allclose(minimum.weights[:, -1], offset, atol=1e-13)
        assert land.vectors.shape == (m.dim + 1, m.dim)
        assert_is_the_minimum(land, rng)


def test_dot_with_a_mean_and_no_bias_has_no_closed_form() -> None:
    m = pyssl.Moments(np.eye(2), 0.5 * np.eye(2), [1.0, 0.0])
    assert not hasattr(infonce("dot", 3).effective(m, 2), "minimum")
    assert hasattr(infonce("dot", 3).effective(m, 2, bias=True), "minimum")
    assert hasattr(infonce("sqeuclidean", 3).effective(m, 2), "minimum")


# ---- what there is not ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "level", "reason"),
    [
        (pyssl.InfoNCE(negatives=3), "population", "finitely many terms has no closed form"),
        (pyssl.InfoNCE(negatives=3, partition="joint"), "effective", "those of a finite batch"),
    ],
)
def test_what_is_missing_says_why(loss: pyssl.InfoNCE, level: str, reason: str) -> None:
    with pytest.raises(NotImplementedError, match=reason):
        getattr(loss, level)(pyssl.Moments(np.eye(2), 0.5 * np.eye(2)), 2)


def test_a_batch_has_its_own_negatives() -> None:
    z, z_plus = seeded(12).standard_normal((2, 6, 3))
    assert pyssl.InfoNCE(negatives=2).value(z, z_plus) == pyssl.InfoNCE().value(z, z_plus)
