"""Ridge regression on embeddings: theory 8 to full precision, and beside simulation."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pyssl
from pyssl._probe import random_probe, simulated_risk

# ---- the formula, in 60 digits -------------------------------------------------------------------


def reference(W, covariance, target, n, noise, ridge):
    """Return the risk by theory 8 as it stands, from the eigenvalues of W Sigma W'."""
    with mpmath.workdps(80):
        w, sigma, beta = (mpmath.matrix(np.asarray(a).tolist()) for a in (W, covariance, target))
        values, vectors = mpmath.eigsy(w * sigma * w.T)
        explained = vectors.T * (w * sigma * beta)
        total = (beta.T * sigma * beta)[0]
        floor = mpmath.mpf(10) ** -60 * max(abs(value) for value in values)
        kept = [i for i in range(len(values)) if values[i] > floor]
        spectrum = [values[i] for i in kept]
        t2 = [explained[i] ** 2 / values[i] for i in kept]
        kappa, ratio = mpmath.mpf(0), mpmath.mpf(n - len(kept))
        if ridge > 0.0 or n < len(kept):
            low, high = mpmath.mpf(-300), mpmath.mpf(300)
            for _ in range(240):
                middle = (low + high) / 2
                x = mpmath.exp(middle)
                if sum(value / (value + x) for value in spectrum) + ridge / x > n:
                    low = middle
                else:
                    high = middle
            kappa = mpmath.exp(low)
            ratio = ridge / kappa
        learned = [value / (value + kappa) for value in spectrum]
        denominator = sum(x * (1 - x) for x in learned) + ratio
        bias = sum((1 - x) ** 2 * t for x, t in zip(learned, t2, strict=True))
        return float(n / denominator * (bias + noise + total - sum(t2)))


@pytest.mark.parametrize("seed", range(24))
def test_nearly_collapsed_features_keep_their_digits(seed):
    # singular values over twelve decades, whose squares no eigenvalue solver of W Sigma W' has
    rng = np.random.default_rng(seed)
    k, d = [(3, 5), (5, 5), (6, 4), (1, 3)][seed % 4]
    W = rng.standard_normal((k, d)) * 10.0 ** -np.linspace(0.0, 12.0, k)[rng.permutation(k), None]
    root = rng.standard_normal((d, d))
    beta = rng.standard_normal(d)
    n, ridge = [1, 2, 4, 9][seed // 4 % 4], [0.0, 1e-20, 1e-9, 1.0][seed % 3]
    sigma = root @ root.T
    if ridge == 0.0 and n == min(k, d):
        ridge = 1e-3
    got = pyssl.downstream_risk(W, sigma, beta, n, 0.25, ridge)
    assert got == pytest.approx(reference(W, sigma, beta, n, 0.25, ridge), rel=1e-11)


@settings(max_examples=60)
@given(
    spread=st.floats(0.0, 12.0),
    size=st.integers(1, 12),
    n=st.integers(1, 14),
    ridge=st.floats(-25.0, 8.0).map(lambda x: 10.0**x) | st.just(0.0),
    seed=st.integers(0, 1000),
)
def test_kappa_is_found_to_full_precision(spread, size, n, ridge, seed):
    rng = np.random.default_rng(seed)
    deviations = 10.0 ** -rng.uniform(0.0, max(spread, 1e-3), size)
    if n == size and ridge == 0.0:
        return
    W, beta = np.diag(deviations), rng.standard_normal(size)
    got = pyssl.downstream_risk(W, np.eye(size), beta, n, 0.5, ridge)
    assert got == pytest.approx(reference(W, np.eye(size), beta, n, 0.5, ridge), rel=1e-12)


def test_the_equation_of_kappa_holds():
    rng = np.random.default_rng(0)
    for n, ridge in ((3, 0.0), (3, 0.7), (8, 1e-6), (20, 5.0)):
        split = pyssl.downstream_split(
            rng.standard_normal((8, 10)), np.eye(10), rng.standard_normal(10), n, 0.1, ridge
        )
        assert split.learnability.sum() + ridge / split.kappa == pytest.approx(n, rel=1e-12)
        expected = n / (n - np.square(split.learnability).sum())
        assert split.variance_factor == pytest.approx(expected, rel=1e-10)


# ---- what is known by itself ---------------------------------------------------------------------


def test_least_squares_with_more_samples_than_features():
    rng = np.random.default_rng(1)
    W, beta = rng.standard_normal((3, 5)), rng.standard_normal(5)
    lost = pyssl.downstream_split(W, np.eye(5), beta, 12).lost
    fitted = np.linalg.lstsq(W.T, beta, rcond=None)[0]
    assert lost == pytest.approx(np.sum((beta - W.T @ fitted) ** 2), rel=1e-12)
    risk = pyssl.downstream_risk(W, np.eye(5), beta, [4, 12, 10**9], noise=0.3)
    np.testing.assert_allclose(risk, (lost + 0.3) * np.array([4.0, 12 / 9, 1.0]), rtol=1e-8)
    # what is invertible changes nothing without a ridge
    T = np.diag([1.0, 1e-7, 1e-11]) @ rng.standard_normal((3, 3))
    np.testing.assert_allclose(
        pyssl.downstream_risk(T @ W, np.eye(5), beta, [4, 12, 10**9], noise=0.3), risk, rtol=1e-3
    )


def test_as_many_samples_as_features():
    W, beta = np.eye(4)[:2], np.array([1.0, 2.0, 0.0, 0.0])
    assert pyssl.downstream_risk(W, np.eye(4), beta, 2, noise=0.1) == math.inf
    assert pyssl.downstream_risk(W, np.eye(4), beta + 0.5, 2) == math.inf
    assert pyssl.downstream_risk(W, np.eye(4), beta, 2) == 0.0  # nothing to fit wrongly
    assert pyssl.downstream_risk(W, np.eye(4), beta, 2, noise=0.1, ridge=1e-12) < math.inf
    near = pyssl.downstream_risk(W, np.eye(4), beta, 2, 0.1, [1e-4, 1e-8, 1e-12])
    assert near[0] < near[1] < near[2]


@pytest.mark.parametrize("ridge", [0.0, 1.0, math.inf, "optimal"])
@pytest.mark.parametrize("W", [np.zeros((3, 4)), np.zeros((1, 4)), np.eye(4)[3:]], ids=len)
def test_complete_collapse_leaves_all_of_the_target(W, ridge):
    covariance, beta = np.diag([2.0, 1.0, 0.5, 0.0]), np.array([1.0, 1.0, 2.0, 7.0])
    risk = pyssl.downstream_risk(W, covariance, beta, [1, 2, 50], 0.25, ridge)
    np.testing.assert_allclose(risk, np.full(3, 5.25), rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_rows_in_the_null_space_of_the_covariance_are_nothing(dtype):
    rng = np.random.default_rng(0)
    factor = rng.standard_normal((3, 2)) * [1.0, 1e-3]
    covariance, target = factor @ factor.T, np.array([1.0, 0.5, 0.2])
    power = target @ covariance @ target
    nowhere = np.linalg.svd(factor.T)[2][2:].astype(dtype)
    risk = pyssl.downstream_risk(nowhere, covariance, target, [3, 30], noise=0.25)
    np.testing.assert_allclose(risk, power + 0.25, rtol=1e-6)
    assert pyssl.optimal_ridge(nowhere, covariance, target, 30) == np.inf

    # beside rows that vary, and however short those are
    row = (1e-6 * rng.standard_normal((1, 3))).astype(dtype)
    both = np.concatenate([row, nowhere])
    split = pyssl.downstream_split(both, covariance, target, 30)
    assert split.rank == 1
    alone = pyssl.downstream_risk(row, covariance, target, 30)
    np.testing.assert_allclose(split.risk, alone, rtol=1e-6)


def test_a_weak_direction_beside_a_null_space_counts():
    W, covariance = [[0.0, 1e-9, 0.0]], np.diag([1.0, 1e-14, 0.0])
    assert pyssl.downstream_risk(W, covariance, [0.0, 1e7, 5.0], 10) == pytest.approx(0.0)
    single = np.array(W, dtype=np.float32)
    assert pyssl.downstream_risk(single, covariance, [0.0, 1e7, 5.0], 10) == pytest.approx(0.0)


def test_an_infinite_ridge_learns_nothing():
    rng = np.random.default_rng(2)
    W, beta = rng.standard_normal((4, 4)), rng.standard_normal(4)
    everything = beta @ beta + 0.5
    assert pyssl.downstream_risk(W, np.eye(4), beta, 3, 0.5, math.inf) == pytest.approx(everything)
    large = pyssl.downstream_risk(W, np.eye(4), beta, 3, 0.5, 1e12)
    assert large == pytest.approx(everything, rel=1e-9)
    split = pyssl.downstream_split(W, np.eye(4), beta, 3, 0.5, math.inf)
    assert split.kappa == math.inf
    assert split.variance_factor == 1.0
    assert not split.learnability.any()


@pytest.mark.parametrize("n", [1, 3, 5, 8, 40])
@pytest.mark.parametrize("scale", [1e-60, 1e-9, 3.0, 1e60])
def test_units_and_rotations_change_nothing(n, scale):
    rng = np.random.default_rng(3)
    W, beta, root = (rng.standard_normal(shape) for shape in ((5, 6), 6, (6, 6)))
    covariance = root @ root.T
    for ridge in (0.0, 1e-3, 2.0):
        if n == 5 and ridge == 0.0:
            continue
        expected = pyssl.downstream_risk(W, covariance, beta, n, 0.3, ridge)
        turn = np.linalg.qr(rng.standard_normal((5, 5)))[0]
        T = root / 7.0
        for got in (
            pyssl.downstream_risk(scale * W, covariance, beta, n, 0.3, scale**2 * ridge),
            pyssl.downstream_risk(turn @ W, covariance, beta, n, 0.3, ridge),
            pyssl.downstream_risk(np.vstack([W, 0.0 * W]), covariance, beta, n, 0.3, ridge),
            pyssl.downstream_risk(
                W @ np.linalg.inv(T), T @ covariance @ T.T, np.linalg.inv(T).T @ beta, n, 0.3, ridge
            ),
        ):
            assert got == pytest.approx(expected, rel=1e-7)
    best = pyssl.optimal_ridge(W, covariance, beta, n, 0.3)
    scaled = pyssl.optimal_ridge(scale * W, covariance, beta, n, 0.3)
    assert scaled == pytest.approx(scale**2 * best, rel=1e-6)


def test_one_dimension():
    # z = 3 x, L = 9/(9 + kappa), 9/(9 + kappa) + ridge/kappa = n
    split = pyssl.downstream_split([[3.0]], [[1.0]], [2.0], 4, noise=0.5, ridge=6.0)
    kappa = (6.0 + 9.0 - 36.0 + math.sqrt(21.0**2 + 4 * 4 * 54.0)) / 8.0
    learned = 9.0 / (9.0 + kappa)
    assert split.kappa == pytest.approx(kappa, rel=1e-14)
    expected = 4.0 / (4.0 - learned**2) * (4.0 * (1.0 - learned) ** 2 + 0.5)
    assert split.risk == pytest.approx(expected, rel=1e-14)


def test_many_weak_features_act_as_a_ridge():
    # without a ridge, dropping them is what ruins the interpolation
    strong, weak, n = 30, 300, 30
    deviations = np.sqrt(np.concatenate([np.ones(strong), np.full(weak, 0.1)]))
    beta = np.concatenate([np.full(strong, 0.2), np.zeros(weak)])
    W, dropped = np.diag(deviations), np.diag(deviations * (deviations == 1.0))
    eye = np.eye(strong + weak)
    kept = pyssl.downstream_risk(W, eye, beta, n - 1, 0.1)
    assert 4.0 * kept < pyssl.downstream_risk(dropped, eye, beta, n - 1, 0.1)


# ---- batches, dtypes -----------------------------------------------------------------------------


def test_batches_and_curves_broadcast():
    rng = np.random.default_rng(4)
    batch, beta = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal(5)
    risk = pyssl.downstream_risk(batch, np.eye(5), beta, 9, 0.1, 0.5)
    assert risk.shape == (2, 3)
    one = pyssl.downstream_risk(batch[1, 2], np.eye(5), beta, 9, 0.1, 0.5)
    assert type(one) is float
    assert risk[1, 2] == pytest.approx(one, rel=1e-13)
    samples = np.array([2, 6, 30])
    assert pyssl.downstream_risk(batch[0, 0], np.eye(5), beta, samples).shape == (3,)
    assert pyssl.downstream_risk(batch, np.eye(5), beta, samples).shape == (2, 3)
    curves = pyssl.downstream_risk(batch, np.eye(5), beta, samples[:, None, None], 0.1, "optimal")
    assert curves.shape == (3, 2, 3)
    assert (np.diff(curves, axis=0) < 0.0).all()
    grid = pyssl.downstream_risk(
        batch[0, 0], np.eye(5), beta, samples, np.array([[0.1], [0.2]]), np.ones((4, 1, 1))
    )
    assert grid.shape == (4, 2, 3)
    assert pyssl.downstream_risk(batch[:0], np.eye(5), beta, 9).shape == (0, 3)
    ridges = pyssl.optimal_ridge(batch, np.eye(5), beta, samples[:, None, None], 0.1)
    assert ridges.shape == (3, 2, 3)
    np.testing.assert_allclose(
        pyssl.downstream_risk(batch, np.eye(5), beta, samples[:, None, None], 0.1, ridges), curves
    )


def test_single_precision():
    rng = np.random.default_rng(5)
    W, beta = rng.standard_normal((3, 4, 5)).astype(np.float32), rng.standard_normal(5)
    risk = pyssl.downstream_risk(W, np.eye(5), beta, 9, 0.1, 0.5)
    assert risk.dtype == np.float32
    exact = pyssl.downstream_risk(W.astype(float), np.eye(5), beta, 9, 0.1, 0.5)
    assert exact.dtype == np.float64
    np.testing.assert_allclose(risk, exact, rtol=1e-6)
    # what float32 rounds is no feature
    rows = np.stack([W[0, 0], W[0, 0] / np.float32(3.0)])
    assert pyssl.downstream_split(rows, np.eye(5), beta, 9).rank == 1
    assert pyssl.downstream_split(rows.astype(float), np.eye(5), beta, 9).rank == 2


def test_huge_and_tiny_numbers():
    W, beta = np.eye(2), np.array([1.0, 0.5])
    assert pyssl.downstream_risk(W, np.eye(2), beta, 1e300, 0.5, 1.0) == pytest.approx(0.5)
    assert pyssl.downstream_risk(1e-69 * W, np.eye(2), beta, 4, 0.5, 1e300) == pytest.approx(1.75)
    risk = pyssl.downstream_risk(1e69 * W, np.eye(2), beta, 4, 0.5, 1e-300)
    assert risk == pytest.approx(1.0)
    assert pyssl.downstream_risk(W, np.eye(2), beta, 4, 1e308) > 1e308 * 1.7


# ---- the ridge of least error --------------------------------------------------------------------


def test_optimal_ridge_of_isotropic_features():
    # with all variances and coefficients equal the best ridge is noise over the coefficients' mean
    for n, noise in ((3, 0.2), (6, 0.5), (40, 3.0)):
        beta = np.full(6, 0.7)
        got = pyssl.optimal_ridge(np.eye(6), np.eye(6), beta, n, noise)
        assert got == pytest.approx(noise / 0.49, rel=1e-6)


@pytest.mark.parametrize("seed", range(40))
def test_no_ridge_is_better_than_the_optimal(seed):
    rng = np.random.default_rng(seed)
    k, d, n = (int(rng.integers(1, top)) for top in (9, 9, 15))
    W = rng.standard_normal((k, d)) * 10.0 ** rng.uniform(-4.0, 0.0, (k, 1))
    beta = rng.standard_normal(d) * 10.0 ** rng.uniform(-4.0, 0.0, d)
    noise = 10.0 ** rng.uniform(-8.0, 1.0)
    best = pyssl.downstream_risk(W, np.eye(d), beta, n, noise, "optimal")
    ridges = np.concatenate([[0.0], np.geomspace(1e-16, 1e10, 2000), [math.inf]])
    tried = pyssl.downstream_risk(W, np.eye(d), beta, n, noise, ridges)
    assert best <= tried.min() * (1.0 + 1e-12)
    ridge = pyssl.optimal_ridge(W, np.eye(d), beta, n, noise)
    again = pyssl.downstream_risk(W, np.eye(d), beta, n, noise, ridge)
    assert again == pytest.approx(best, rel=1e-9)


def test_the_optimal_ridge_may_be_zero_or_infinite():
    eye = np.eye(6)
    # an interpolation whose weak features are ridge enough: any more costs
    W = np.diag([1.0, *[0.3] * 5])
    assert pyssl.optimal_ridge(W, eye, [1.0, 0, 0, 0, 0, 0], 2, noise=1e-6) == 0.0
    assert pyssl.optimal_ridge(eye[:3], eye, [0, 0, 0, 1.0, 1.0, 0], 20, noise=0.1) == math.inf
    assert pyssl.optimal_ridge(eye, eye, np.zeros(6), 20, noise=0.1) == math.inf
    # nothing to protect from
    assert pyssl.optimal_ridge(eye, eye, np.ones(6), 20) == 0.0
    assert pyssl.downstream_risk(eye, eye, np.ones(6), 20, ridge="optimal") == 0.0
    assert pyssl.downstream_risk(eye, eye, np.ones(6), 6, ridge="optimal") == 0.0
    # rounding in an orthogonal target is no reason for a ridge
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
    W, beta = rotation[:3], rotation[3] + rotation[4]
    assert pyssl.optimal_ridge(W, eye, beta, 20, noise=0.1) == math.inf


def test_the_risk_may_have_two_valleys():
    # strong features for one part of the target, a multitude of weak ones for the other
    deviations = np.array([1.0] * 4 + [1e-3] * 30)
    beta = np.array([0.5] * 4 + [0.12] * 30)
    W, eye = np.diag(deviations), np.eye(34)
    ridges = np.geomspace(1e-10, 1e3, 4000)
    curve = pyssl.downstream_risk(W, eye, beta, 40, 0.5, ridges)
    valleys = np.flatnonzero((curve[1:-1] < curve[:-2]) & (curve[1:-1] < curve[2:])) + 1
    assert len(valleys) == 2
    best = pyssl.downstream_risk(W, eye, beta, 40, 0.5, "optimal")
    assert best == pytest.approx(curve.min(), rel=1e-5)
    assert best <= curve.min()


# ---- the split -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ridge", [0.0, 0.3, "optimal"])
def test_the_split_adds_up(ridge):
    rng = np.random.default_rng(6)
    W, beta = rng.standard_normal((5, 8)), rng.standard_normal(8)
    W[4] = W[0] + W[1]  # rank 4
    split = pyssl.downstream_split(W, np.eye(8), beta, 11, 0.4, ridge)
    assert split.rank == len(split.bias) == 4
    assert split.risk == pyssl.downstream_risk(W, np.eye(8), beta, 11, 0.4, ridge)
    parts = split.bias.sum() + split.lost + split.noise
    assert split.variance_factor * parts == pytest.approx(split.risk, rel=1e-14)
    spectrum = np.linalg.eigvalsh(W @ W.T)[::-1]
    np.testing.assert_allclose(split.variances, spectrum[:4], rtol=1e-12)
    explained = np.square(split.coefficients).sum()
    assert explained + split.lost == pytest.approx(beta @ beta, rel=1e-12)
    np.testing.assert_allclose(
        split.bias, np.square((1.0 - split.learnability) * split.coefficients), atol=1e-13
    )
    if split.kappa:
        np.testing.assert_allclose(
            split.learnability, split.variances / (split.variances + split.kappa)
        )
    assert split.ridge == (pyssl.optimal_ridge(W, np.eye(8), beta, 11, 0.4) if ridge == "optimal"
                           else ridge)  # fmt: skip


def test_the_split_prints_as_a_table():
    split = pyssl.downstream_split(np.diag(np.linspace(3, 1, 30)), np.eye(30), np.ones(30), 40, 0.5)
    text = str(split)
    assert text.splitlines()[0].startswith("test error 2 from 40 samples: ridge 0, kappa 0")
    assert "... and 6 more, with a bias of 0" in text
    assert text.splitlines()[-1] == "(bias 0 + lost 0 + noise 0.5) x 4 for 40 samples"
    nothing = pyssl.downstream_split(np.zeros((2, 3)), np.eye(3), np.ones(3), 4)
    assert "(bias 0 + lost 3 + noise 0) x 1 for 4 samples" in str(nothing)


# ---- beside simulation ---------------------------------------------------------------------------


def setting(i: int):
    """Return one of thirty settings: a probe, samples, noise and ridge."""
    d = (40, 48)[i % 2]
    weights = ("full", "low rank", "narrow", "collapsing")[i // 2 % 4]
    probe = random_probe(
        d,
        ("flat", "geometric", "power")[i % 3],
        ("strong", "weak", "spread")[i // 3 % 3],
        weights,
        seed=i,
    )
    noise = (0.1, 1.0)[i // 4 % 2]
    n = int(d * ((0.8, 0.25)[i % 2] if i >= 15 else (2, 3)[i % 2]))
    parts = probe.weights, probe.covariance, probe.target, n, noise
    largest = pyssl.downstream_split(*parts).variances[0]
    best = pyssl.optimal_ridge(*parts)
    # tiny, tuned, large
    ridge = (1e-9 * largest, best, 10.0 * min(best, largest) + 0.1 * largest)[i // 2 % 3]
    return probe, n, noise, ridge


@pytest.mark.parametrize("i", range(30))
def test_predicts_simulated_regression(i):
    probe, n, noise, ridge = setting(i)
    predicted = pyssl.downstream_risk(
        probe.weights, probe.covariance, probe.target, n, noise, ridge
    )
    simulated, error = simulated_risk(probe, n, noise, ridge, 150, np.random.default_rng(i))
    tolerance = 0.05 if n >= 2 * len(probe.target) else 0.15
    assert error < tolerance * simulated / 1.9
    assert predicted == pytest.approx(simulated, rel=tolerance)


def test_an_intercept_costs_one_sample_and_its_own_error():
    rng = np.random.default_rng(8)
    probe = random_probe(20, "power", "spread", "full", seed=3)
    mean, n, noise, ridge = rng.standard_normal(20), 30, 0.5, 0.4
    root = np.linalg.cholesky(probe.covariance)
    errors = []
    for _ in range(400):
        x = mean + rng.standard_normal((n, 20)) @ root.T
        y = 3.0 + x @ probe.target + np.sqrt(noise) * rng.standard_normal(n)
        z = (x - x.mean(axis=0)) @ probe.weights.T
        w = np.linalg.solve(z.T @ z + ridge * np.eye(20), z.T @ (y - y.mean()))
        missed = probe.target - probe.weights.T @ w
        offset = (
            3.0 + mean @ probe.target - y.mean() - (mean - x.mean(axis=0)) @ (probe.target - missed)
        )
        errors.append(missed @ probe.covariance @ missed + offset**2 + noise)
    predicted = (1.0 + 1.0 / n) * pyssl.downstream_risk(
        probe.weights, probe.covariance, probe.target, n - 1, noise, ridge
    )
    assert np.std(errors) / 20.0 < 0.01 * predicted
    assert predicted == pytest.approx(np.mean(errors), rel=0.03)
