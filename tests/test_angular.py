"""Exact angular moments: quadrature against samples and finer rules, minima against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize

import pyssl
from pyssl import Moments, NTXent
from pyssl.angular import _curvature, _moment, _Rule, _shares
from pyssl.testing import check_gradient, finite_difference, gaussian_views, random_moments


def spectra():
    """Every kind of spectrum that the rules must survive, with its alignments."""
    rng = np.random.default_rng(2)
    for d in (1, 2, 3, 8, 64, 256):
        falling = np.linspace(0.95, 0.1, d)
        dominant = np.full(d, 1e-6)
        dominant[0] = 1.0
        gap = rng.random(d)
        gap[d // 2 + 1 :] = 0.0
        yield f"equal-{d}", np.ones(d), falling
        yield f"decades-{d}", 10.0 ** -np.linspace(0.0, 12.0, d), np.linspace(0.99, -0.5, d)
        yield f"dominant-{d}", dominant, falling
        yield f"identical-{d}", rng.random(d), np.ones(d)
        yield f"nearly-{d}", rng.random(d), np.full(d, 1.0 - 1e-8)
        yield f"zeros-{d}", gap, np.linspace(1.0, -1.0, d)


SPECTRA = {name: (p / p.sum(), rho) for name, p, rho in spectra()}


def moments(p, rho, fineness=1.0):
    single = _Rule.of(p, pair=False, fineness=fineness)
    pair = _Rule.of(p, pair=True, fineness=fineness)
    return (*_shares(single, p), *_curvature(pair, p, rho, 1.0 - rho**2))


def exact(rho, tau, k=None, **options):
    m = Moments(np.eye(len(rho)), np.diag(rho))
    return NTXent(tau).effective(m, k or len(rho), angular="exact", **options)


# ---- quadrature ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPECTRA)
def test_against_a_finer_rule(name):
    p, rho = SPECTRA[name]
    shares, _, cosine, gradient, _ = moments(p, rho)
    fine_shares, _, fine_cosine, fine_gradient, _ = moments(p, rho, fineness=3.0)
    np.testing.assert_allclose(shares, fine_shares, rtol=0.0, atol=1e-11)
    assert shares.sum() == pytest.approx(1.0, abs=1e-11)
    assert cosine == pytest.approx(fine_cosine, abs=1e-11)
    active = p > 1e-8  # below, derivatives may be as large as one likes
    np.testing.assert_allclose(gradient[active], fine_gradient[active], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", [name for name in SPECTRA if "identical" in name])
def test_identical_views(name):
    p, rho = SPECTRA[name]
    assert moments(p, rho)[2] == pytest.approx(1.0, abs=1e-11)


@pytest.mark.parametrize("rho", [0.9, 0.3, 0.0, -0.5, -1.0])
def test_one_mode_is_the_arcsine_law(rho):
    cosine = moments(np.ones(1), np.array([rho]))[2]
    assert cosine == pytest.approx(2.0 / math.pi * math.asin(rho), abs=1e-11)


def test_two_equal_modes_by_hand():
    """E cos of the angle between correlated planar Gaussians, by its density."""
    r = 0.7
    angle = np.linspace(-math.pi, math.pi, 4001)[:-1]
    b = r * np.cos(angle)
    density = (1 - r * r) * (1 / (1 - b * b) + b * np.arccos(-b) / (1 - b * b) ** 1.5)
    expected = np.mean(np.cos(angle) * density)
    cosine = moments(np.array([0.5, 0.5]), np.array([r, r]))[2]
    assert cosine == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("d", [2, 9])
def test_against_samples(d):
    rng = np.random.default_rng(11)
    p, rho = rng.random(d), np.linspace(0.95, -0.4, d)
    p /= p.sum()
    z, z_plus = gaussian_views(Moments(np.diag(p), np.diag(rho * p)), 1_000_000, rng)
    squares = z**2 / np.sum(z**2, axis=1)[:, None]
    cosines = np.sum(z * z_plus, axis=1)
    cosines /= np.linalg.norm(z, axis=1) * np.linalg.norm(z_plus, axis=1)
    shares, _, cosine, *_ = moments(p, rho)
    assert abs(cosines.mean() - cosine) < 4.0 * cosines.std() / 1000.0
    assert (abs(squares.mean(axis=0) - shares) < 4.0 * squares.std(axis=0) / 1000.0).all()


def test_derivatives_of_the_integrals(rng):
    """On one rule, so that finite differences see a smooth function."""
    p, c = 20.0 + 20.0 * rng.random(7), rng.standard_normal(7)  # the differences take steps of 1/4
    rho = np.linspace(0.9, -0.3, 7)
    q, misfit = rho * p, 1.0 - rho**2
    single, pair = (_Rule.of(p, pair=both) for both in (False, True))

    def check(function, derivative, at):
        steps = [finite_difference(function, at, step) for step in np.eye(7)]
        expected = np.array(steps)
        np.testing.assert_allclose(derivative, expected, rtol=0.0, atol=1e-7 * abs(expected).max())

    _, gradient, hessian = _curvature(pair, p, c, misfit)
    check(lambda x: _curvature(pair, x, c, misfit)[0], gradient, p)
    check(lambda x: _curvature(pair, x, c, misfit)[1], hessian, p)
    check(lambda x: _shares(single, x)[0], _shares(single, p)[1].T, p)
    _, by_p, by_q = _moment(pair, p, q, 1)
    check(lambda x: _moment(pair, x, q, 0)[0], by_p, p)
    check(lambda x: _moment(pair, p, x, 0)[0], by_q, q)


def test_in_blocks(monkeypatch):
    p, rho = SPECTRA["decades-8"]
    whole = moments(p, rho)
    monkeypatch.setattr("pyssl.angular._BLOCK", 1000)
    for one, other in zip(whole, moments(p, rho), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10)


# ---- over spectra --------------------------------------------------------------------------------


def test_only_shares_matter(rng):
    land = exact(np.linspace(0.9, 0.1, 6), 0.5)
    p = rng.random(6)
    value, gradient = land.value_of_spectrum(p)
    scaled, slope = land.value_of_spectrum(1e6 * p)
    assert scaled == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(1e6 * slope, gradient, rtol=1e-10)
    assert abs(gradient @ p) < 1e-10
    assert land.shares_of_spectrum(p).sum() == pytest.approx(1.0, abs=1e-11)


def test_approaches_the_leading_order():
    """By 1/effective rank."""
    errors = []
    for d in (32, 128):
        rho = np.linspace(0.9, 0.3, d)
        m, W = Moments(np.eye(d), np.diag(rho)), np.eye(d)
        leading = NTXent(0.5).effective(m, d).value(W)
        errors.append(abs(exact(rho, 0.5).value(W) - leading))
    assert errors[1] < 0.3 * errors[0]
    assert errors[0] < 2.0 / 32


@pytest.mark.parametrize(
    ("p", "error", "message"),
    [
        ([1.0, -1.0, 0.0], ValueError, "p must not be negative, got -1"),
        ([0.0, 0.0, 0.0], ValueError, "p must be positive somewhere"),
        ([1.0, 1.0, 1.0], ValueError, "only where the views vary"),
        ([1.0, 1.0], ValueError, r"p must be \(3,\), got \(2,\)"),
        ([1.0, np.nan, 0.0], ValueError, "p must be finite"),
        ([1.0, 1j, 0.0], TypeError, "p must hold real numbers"),
    ],
)
def test_spectra_are_checked(p, error, message):
    m = Moments(np.diag([1.0, 1.0, 0.0]), np.diag([0.9, 0.5, 0.0]))
    land = NTXent().effective(m, 2, angular="exact")
    with pytest.raises(error, match=message):
        land.value_of_spectrum(p)


# ---- the minimum ---------------------------------------------------------------------------------


def descended(land, k, rng):
    """The lowest value over p = y^2 that descent finds."""
    d = land.moments.dim

    def evaluate(y):
        p = np.zeros(d)
        p[:k] = np.maximum(y * y, 1e-250)
        value, gradient = land.value_of_spectrum(p)
        return value, 2.0 * y * gradient[:k]

    starts = [np.sqrt(rng.dirichlet(np.ones(k))) for _ in range(3)]
    return min(
        scipy.optimize.minimize(evaluate, y, jac=True, method="L-BFGS-B").fun for y in starts
    )


@pytest.mark.parametrize("tau", [0.05, 0.2, 1.0, 10.0, 1e3])
@pytest.mark.parametrize(("d", "k"), [(1, 1), (2, 2), (3, 2), (6, 6), (12, 5), (24, 24)])
def test_minimum(rng, d, k, tau):
    rho = np.sort(rng.uniform(-0.2, 1.0, d))[::-1]
    if d == 6:
        rho = np.sort(np.round(rho, 1))[::-1]  # ties
    land = exact(rho, tau, k)
    minimum = land.minimum()
    p = minimum.amplitudes
    value, gradient = land.value_of_spectrum(p)
    scale = 1.0 / tau + 1.0 / tau**2
    assert value == pytest.approx(minimum.value, abs=1e-12 * scale)
    assert p.sum() == pytest.approx(1.0)
    assert minimum.rank == np.count_nonzero(p) == len(land.active)
    assert not p[k:].any()
    # the conditions of Karush, Kuhn and Tucker
    assert abs(gradient[:k][p[:k] > 0.0]).max() < 1e-8 * scale
    assert gradient[:k].min() > -1e-8 * scale
    assert minimum.value <= descended(land, k, rng) + 1e-11 * scale
    assert land.value(minimum.weights) == pytest.approx(minimum.value, abs=1e-11 * scale)
    assert abs(land.gradient(minimum.weights)).max() < 1e-7 * scale


def test_the_most_aligned_modes_are_the_best():
    """With alignments >= 0 it is a theorem: E cos+ grows with every rho."""
    rho = np.array([0.9, 0.7, 0.6, 0.3, -0.1])
    land = exact(rho, 0.5, k=2)
    wide = exact(rho, 0.5)
    for i in range(5):
        for j in range(i):
            share = scipy.optimize.minimize_scalar(
                lambda t, i=i, j=j: wide.value_of_spectrum(
                    t * np.eye(5)[i] + (1.0 - t) * np.eye(5)[j]
                )[0],
                bounds=(0.01, 0.99),
                method="bounded",
            )
            assert share.fun >= land.minimum().value - 1e-12
    grown = [
        wide.value_of_spectrum(np.full(5, 0.2))[0],
        exact(rho + 0.05, 0.5).value_of_spectrum(np.full(5, 0.2))[0],
    ]
    assert grown[1] < grown[0]


def test_causes():
    m = Moments(np.diag([1.0, 1.0, 1.0, 1.0, 0.0]), np.diag([0.95, 0.9, 0.8, 0.0, 0.0]))
    land = NTXent(1.0).effective(m, 2, angular="exact", weight_decay=0.1)
    assert [str(cause) for cause in land.causes()] == [
        "learned", "learned", "capacity", "competition", "no variation",
    ]  # fmt: skip
    np.testing.assert_array_equal(land.critical_weight_decay, [np.inf] * 3 + [0.0] * 2)
    assert np.isnan(land.critical_temperature).all()
    assert not land.minimum().attained
    assert land._remake(3, 0.0).minimum().rank == 3


def test_against_training():
    """What the loss learns from a sample, beside both theories."""
    rng, d, tau = np.random.default_rng(6), 12, 1.0
    x, x_plus = gaussian_views(Moments(np.eye(d), np.diag(np.linspace(0.95, 0.05, d))), 2000, rng)
    sample = Moments.from_views(x, x_plus).centered()
    trained = NTXent(tau).empirical(x.astype("f"), x_plus.astype("f"), d)

    def evaluate(w):
        value, gradient = trained.value_and_gradient(w.reshape(d, d).astype("f"))
        return float(value), gradient.ravel().astype(float)

    found = scipy.optimize.minimize(
        evaluate, rng.standard_normal(d * d), jac=True, method="L-BFGS-B",
        options={"maxiter": 60, "ftol": 1e-9},
    )  # fmt: skip
    z = np.concatenate([x, x_plus]) @ found.x.reshape(d, d).T
    z /= np.linalg.norm(z, axis=1)[:, None]
    learned = np.linalg.eigvalsh(z.T @ z / len(z))[::-1]
    land = NTXent(tau).effective(sample, d, angular="exact")
    minimum = land.minimum()
    predicted = np.sort(land.shares_of_spectrum(minimum.amplitudes))[::-1]
    filled = NTXent(tau).effective(sample, d).minimum()
    off, leading = abs(predicted - learned).sum(), abs(filled.amplitudes - learned).sum()
    assert off < 0.08
    assert off < 0.5 * leading
    value = found.fun - math.log(2 * len(x) - 1)
    assert abs(value - minimum.value) < 0.5 * abs(value - filled.value)


# ---- over W --------------------------------------------------------------------------------------


def test_value_and_gradient_where_w_is_aligned(rng):
    m = random_moments([0.875, 0.5, 0.25, -0.125], rng, nulls=1)
    land = NTXent(0.5).effective(m, 3, weight_decay=0.2, angular="exact")
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    modes = land.vectors.T
    size = np.array([1.0, 0.7, 0.4])

    def at(amplitudes):
        return turn @ (modes[:3] * np.asarray(amplitudes)[:, None])

    W = at(size)
    inner = size**2
    free = land.value(W) - 0.1 * np.sum(W**2)
    p = np.append(inner, [0.0, 0.0])
    assert free == pytest.approx(land.value_of_spectrum(p)[0], rel=1e-12)
    slope, h = land.gradient(W), 1e-5
    for step in np.eye(3):
        expected = (land.value(at(size + h * step)) - land.value(at(size - h * step))) / (2.0 * h)
        assert np.sum(slope * at(step)) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    axis = [0.0, 0.25]
    surface = land.plane(W, at([1.0, 0.0, 0.0]), at([0.0, 1.0, 1.0]), axis, axis)
    assert surface[1, 1] == pytest.approx(land.value(at(size + 0.25)), rel=1e-12)


def test_one_row_is_always_aligned(rng):
    m = random_moments([0.75, 0.5, -0.25], rng)
    land = NTXent(0.5).effective(m, 1, angular="exact")
    W = rng.standard_normal((1, 3))
    rho = float((W @ m.cross_covariance @ W.T / (W @ m.covariance @ W.T))[0, 0])
    expected = -2.0 / math.pi * math.asin(rho) / 0.5 + 2.0
    assert land.value(W) == pytest.approx(expected, abs=1e-10)
    check_gradient(land.value, land.gradient, W, rtol=1e-6)


def test_what_it_refuses(rng):
    m = random_moments([0.75, 0.5, -0.25], rng)
    land = NTXent(0.5).effective(m, 2, angular="exact")
    W = rng.standard_normal((2, 3))
    with pytest.raises(NotImplementedError, match="take a W that aligns with the modes"):
        land.value(W)
    with pytest.raises(NotImplementedError, match="no Hessian over W"):
        land.hvp(land.minimum().weights, W)
    with pytest.raises(ValueError, match="the origin is no point"):
        land.origin()
    with pytest.raises(ValueError, match="W must not be zero"):
        land.value(np.zeros((2, 3)))
    shifted = random_moments([0.75, 0.5], rng, mean=True)
    for options in ({"m": shifted}, {"m": m, "bias": True}):
        views = options.pop("m")
        with pytest.raises(NotImplementedError, match=r"NTXent.effective: exact .* centred views"):
            NTXent().effective(views, 2, angular="exact", **options)
    with pytest.raises(ValueError, match="angular must be one of 'leading', 'exact', got 'both'"):
        NTXent().effective(m, 2, angular="both")
    with pytest.raises(TypeError, match="angular must be one of"):
        NTXent().effective(m, 2, angular=True)
    assert isinstance(land, pyssl.AngularNTXentLandscape)


def test_minimize_takes_the_minimum_that_is_known() -> None:
    # the gradient there is one of aligned W, of which others have none
    moments = random_moments([0.8, 0.5, 0.2], np.random.default_rng(0)).centered()
    land = pyssl.NTXent(1.0).effective(moments, 2, angular="exact")
    found = pyssl.minimize(land)
    assert found.converged
    assert found.value == land.minimum().value
    assert found.gradient_norm < 1e-6
