"""Gradient flow: closed form against integration, limits against minima, stated ends."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import pyssl
from pyssl import _integrate
from pyssl.testing import gaussian_views, random_moments, random_pencil, random_spectrum

QUARTIC = pyssl.Quartic(0.7)
BUILT_IN = [
    QUARTIC,
    *(
        pyssl.InfoNCEPotential(0.6, similarity, partition)
        for similarity in ("dot", "sqeuclidean")
        for partition in ("conditional", "joint")
    ),
]
SPECTRAL = {
    "InfoNCE": pyssl.InfoNCE(temperature=0.5),
    "InfoNCE-dot": pyssl.InfoNCE(temperature=0.5, similarity="dot"),
    "InfoNCE-joint": pyssl.InfoNCE(temperature=0.5, partition="joint"),
    "SpectralContrastive": pyssl.SpectralContrastive(),
    "BarlowTwins": pyssl.BarlowTwins(redundancy=1.0, normalize=False),
    "SquaredVICReg": pyssl.SquaredVICReg(1.5),
}


def commuting(
    d: int, rng: np.random.Generator, *, nulls: int = 0, repeated: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw B and S that share eigenvectors, and those by descending lambda."""
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    scales = rng.uniform(0.3, 2.0, d)
    if repeated:
        scales = np.repeat(scales, 2)[:d]
    rates = scales * random_spectrum(d, rng, repeated=repeated)
    scales[d - nulls :] = 0.0
    rates[d - nulls :] = -rng.uniform(0.1, 1.0, nulls)
    B, S = (basis * rates) @ basis.T, (basis * scales) @ basis.T
    return 0.5 * (B + B.T), 0.5 * (S + S.T), basis


def aligned(k: int, basis: np.ndarray, rng: np.random.Generator, size: float) -> np.ndarray:
    """Draw a start in the first min(k, d) modes: at rounding no faster one is missing."""
    r = min(k, basis.shape[1])
    frame = np.linalg.qr(rng.standard_normal((k, k)))[0][:, :r]
    return size * (frame * rng.uniform(0.2, 1.0, r)) @ basis[:, :r].T


def diagonal(
    rates: list[float], k: int, scales: list[float] | None = None, **options: Any
) -> pyssl.SpectralLandscape:
    S = np.eye(len(rates)) if scales is None else np.diag(scales)
    return pyssl.SpectralLandscape(np.diag(rates), S, pyssl.Quartic(0.5), k, **options)


# ---- closed form --------------------------------------------------------------------------------


@pytest.mark.parametrize("potential", BUILT_IN, ids=repr)
def test_closed_form_is_what_integration_gives(
    potential: pyssl.Potential, rng: np.random.Generator
) -> None:
    for number in range(10):
        d, k = (int(size) for size in rng.integers(1, 7, 2))
        B, S, basis = commuting(d, rng, nulls=int(d > 2 and number % 3 == 0), repeated=number % 2)
        land = pyssl.SpectralLandscape(B, S, potential, k, weight_decay=0.1 * (number % 2))
        start = aligned(k, basis[:, : np.linalg.matrix_rank(S)], rng, 10.0 ** rng.uniform(-2, -0.7))
        times = [0.0, 0.5, 2.0, 8.0]
        closed = pyssl.gradient_flow(land, start, times)
        assert closed.closed_form and closed.outcome == "completed" and closed.evaluations == 0
        flow = pyssl.gradient_flow(land, start, times, method="implicit")
        assert not flow.closed_form
        scale = np.abs(flow.weights).max()
        np.testing.assert_allclose(closed.weights, flow.weights, atol=1e-6 * scale)
        np.testing.assert_allclose(closed.amplitudes, flow.amplitudes, atol=1e-6 * scale**2)
        np.testing.assert_allclose(closed.learning_times, flow.learning_times, rtol=1e-5)


def test_logistic_formula() -> None:
    # theory 2.7, by hand: lambda = 2, 0, -1 at s = 0.5, 2, 1
    land = diagonal([1.0, 0.0, -1.0], 3, [0.5, 2.0, 1.0])
    times, start = np.array([0.0, 0.3, 4.0, 1e6]), np.diag([0.2, 0.3, 0.4])
    n0 = np.array([0.5, 2.0, 1.0]) * np.diag(start) ** 2
    expected = np.stack(
        [
            2.0 / (1.0 + (2.0 / n0[0] - 1.0) * np.exp(-4.0 * times)),
            n0[1] / (1.0 + 4.0 * 2.0 * n0[1] * times),
            -1.0 / (1.0 + (-1.0 / n0[2] - 1.0) * np.exp(np.minimum(4.0 * times, 700.0))),
        ],
        axis=1,
    )
    flow = pyssl.gradient_flow(land, start, times)
    assert flow.closed_form
    np.testing.assert_allclose(flow.amplitudes, expected, rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_closed_form_does_not_overflow(scale: float) -> None:
    land = pyssl.SpectralLandscape(scale * np.diag([2.0, -1.0]), np.eye(2), pyssl.Quartic(scale), 2)
    times = np.array([0.0, 1.0, 1e3, 1e200, np.inf]) / scale
    flow = pyssl.gradient_flow(land, 1e-100 * np.eye(2), times)
    assert flow.closed_form and flow.outcome == "converged"
    np.testing.assert_allclose(flow.amplitudes[-2:], [[1.0, 0.0], [1.0, 0.0]], rtol=1e-14)
    assert flow.predicted_learning_times is not None and flow.learning_times is not None
    np.testing.assert_allclose(flow.learning_times, flow.predicted_learning_times, rtol=1e-10)


def test_tied_modes_are_chosen_to_fit_the_start(rng: np.random.Generator) -> None:
    land = diagonal([1.0, 1.0, 0.5], 2)
    turn = np.linalg.qr(rng.standard_normal((2, 2)))[0]
    start = np.hstack(
        [turn * [0.1, 0.2] @ np.linalg.qr(rng.standard_normal((2, 2)))[0], [[0], [0]]]
    )
    times = [0.0, 1.0, 3.0]
    closed = pyssl.gradient_flow(land, start, times, method="closed form")
    flow = pyssl.gradient_flow(land, start, times, method="implicit")
    np.testing.assert_allclose(closed.weights, flow.weights, atol=1e-7)


def test_what_is_not_aligned_is_integrated(rng: np.random.Generator) -> None:
    B, S, basis = commuting(4, rng)
    land = pyssl.SpectralLandscape(B, S, QUARTIC, 3)
    start = aligned(3, basis, rng, 0.1)
    assert pyssl.gradient_flow(land, start, [1.0]).closed_form
    tilted = start + 1e-9 * rng.standard_normal(start.shape)
    assert not pyssl.gradient_flow(land, tilted, [1.0]).closed_form
    with pytest.raises(ValueError, match="method 'closed form' is not for this flow: the start"):
        pyssl.gradient_flow(land, tilted, [1.0], method="closed form")
    apart = pyssl.SpectralLandscape(*random_pencil([0.5, 0.25], rng), QUARTIC, 2)
    with pytest.raises(ValueError, match="B and S don't commute"):
        pyssl.gradient_flow(apart, 0.1 * np.eye(2), [1.0], method="closed form")
    # a component far below the others counts where the data are exact
    small = pyssl.gradient_flow(diagonal([1.0, 0.5], 1), [[1e-30, 1e-3]], [0.0, 60.0])
    assert not small.closed_form


def test_mode_landscapes(rng: np.random.Generator) -> None:
    land = pyssl.SpectralLandscape(*commuting(4, rng)[:2], QUARTIC, 3)
    modes = land.in_modes()
    start = 1e-2 * rng.standard_normal(modes.shape)
    flow = pyssl.gradient_flow(modes, start, [0.0, np.inf])
    assert flow.outcome == "converged"
    np.testing.assert_allclose(flow.values[-1], land.minimum().value, rtol=1e-9)
    np.testing.assert_allclose(flow.amplitudes[-1], land.minimum().amplitudes, atol=1e-7)


# ---- limits -------------------------------------------------------------------------------------


def test_empirical_landscapes(rng: np.random.Generator) -> None:
    moments = random_moments([0.75, 0.5, 0.25], rng)
    x, x_plus = gaussian_views(moments, 60, rng)
    loss = pyssl.SquaredVICReg()
    start = 0.1 * rng.standard_normal((2, 3))
    times = [0.0, 0.5, 1.0, np.inf]
    # the empirical landscape of squared VICReg is the population landscape of the sample
    flow = pyssl.gradient_flow(loss.empirical(x, x_plus, 2, 0.1), start, times)
    land = loss.population(pyssl.Moments.from_views(x, x_plus), 2, 0.1)
    expected = pyssl.gradient_flow(land, start, times)
    np.testing.assert_allclose(flow.weights, expected.weights, atol=1e-7)
    assert flow.amplitudes is None and flow.learning_times is None
    assert flow.outcome == expected.outcome == "converged"
    start = 0.1 * rng.standard_normal((3, 3))
    for other in (pyssl.InfoNCE(), pyssl.NTXent(), pyssl.BarlowTwins()):
        flow = pyssl.gradient_flow(other.empirical(x, x_plus, 3), start, [0.0, 0.01, 0.1])
        assert flow.outcome == "completed" and (np.diff(flow.values) < 0.0).all()


def test_scale_free_flows_keep_their_norm(rng: np.random.Generator) -> None:
    x = rng.standard_normal((40, 3))
    x_plus = x + 0.5 * rng.standard_normal(x.shape)
    start = rng.standard_normal((2, 3))
    flow = pyssl.gradient_flow(pyssl.NTXent().empirical(x, x_plus, 2), start, [0.0, 1.0, 100.0])
    np.testing.assert_allclose(
        np.linalg.norm(flow.weights, axis=(1, 2)), np.linalg.norm(start), rtol=1e-6
    )
    decaying = pyssl.NTXent().empirical(x, x_plus, 2, weight_decay=0.1)
    flow = pyssl.gradient_flow(decaying, start, [0.0, 1.0, np.inf])
    assert flow.outcome == "diverged" and flow.end_time == np.inf  # it has no minimiser
    assert np.isfinite(flow.weights[:2]).all() and np.isnan(flow.weights[2]).all()
    norms = np.linalg.norm(flow.weights[:2], axis=(1, 2))
    np.testing.assert_allclose(norms[1], norms[0] * np.exp(-0.1), rtol=1e-6)


# ---- stiffness ----------------------------------------------------------------------------------


def test_stiff_flows_finish(rng: np.random.Generator) -> None:
    scales = np.logspace(0.0, -8.0, 6)
    basis = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    B, S = (
        (basis * spectrum) @ basis.T for spectrum in (scales * np.linspace(0.5, 1.0, 6), scales)
    )
    for matrices in ((B, S), (np.diag(scales * np.linspace(0.5, 1.0, 6)), np.diag(scales))):
        pair = [0.5 * (matrix + matrix.T) for matrix in matrices]
        land = pyssl.SpectralLandscape(*pair, pyssl.Quartic(0.5), 3)
        flow = pyssl.gradient_flow(land, 1e-3 * rng.standard_normal((3, 6)), [0.0, 1e4, 1e11])
        assert flow.outcome in ("completed", "converged")
        np.testing.assert_allclose(flow.values[-1], land.minimum().value, rtol=1e-6)
        assert flow.learning_times is not None
        # the three modes that are learned are the slowest
        assert (np.diff(flow.learning_times[:3]) < 0.0).all() and flow.learning_times[0] > 1e8
    with pytest.raises(RuntimeError, match="evaluations of the explicit method"):
        pyssl.gradient_flow(land, 1e-3 * rng.standard_normal((3, 6)), [1e11], method="explicit")


def test_work_has_a_bound(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    land = pyssl.SpectralLandscape(*random_pencil([0.75, 0.5, 0.25], rng), QUARTIC, 2)
    start = 1e-3 * rng.standard_normal((2, 3))
    monkeypatch.setattr(_integrate, "_STEPS", 20)
    with pytest.raises(RuntimeError, match=r"the flow reached only time .* in 20 steps"):
        pyssl.gradient_flow(land, start, [100.0])
    monkeypatch.setattr(_integrate, "_EVALUATIONS", 400)
    with pytest.raises(RuntimeError, match="the flow reached only time"):
        pyssl.gradient_flow(land, start, [np.inf], method="explicit")


def test_many_weights_are_integrated_explicitly(rng: np.random.Generator) -> None:
    B, S = random_pencil(random_spectrum(80, rng, positive=True), rng)
    land = pyssl.SpectralLandscape(B, S, pyssl.Quartic(0.5), 30)
    start = 1e-2 * rng.standard_normal((30, 80))
    flow = pyssl.gradient_flow(land, start, [0.0, 2.0, 4.0])
    assert flow.outcome == "completed" and start.size > _integrate.STIFF_LIMIT
    tight = pyssl.gradient_flow(land, start, [0.0, 2.0, 4.0], rtol=1e-11, method="explicit")
    np.testing.assert_allclose(flow.weights, tight.weights, atol=1e-7)
    small = pyssl.SpectralLandscape(*random_pencil([0.5, 0.25, -0.5], rng), QUARTIC, 2)
    limit = pyssl.gradient_flow(
        small, 0.1 * rng.standard_normal((2, 3)), [np.inf], method="explicit"
    )
    assert limit.outcome == "converged"
    np.testing.assert_allclose(limit.values[-1], small.minimum().value, rtol=1e-8)


def test_tighter_tolerances_are_closer(rng: np.random.Generator) -> None:
    land = pyssl.SpectralLandscape(*random_pencil([0.75, 0.5, 0.25], rng), QUARTIC, 2)
    start = 1e-2 * rng.standard_normal((2, 3))
    exact = pyssl.gradient_flow(land, start, [5.0], rtol=1e-12).weights
    errors = [
        np.abs(pyssl.gradient_flow(land, start, [5.0], rtol=rtol).weights - exact).max()
        for rtol in (1e-4, 1e-7, 1e-10)
    ]
    assert errors[0] > 10.0 * errors[1] > 100.0 * errors[2]
    assert errors[1] < 1e-5 * np.abs(exact).max()


# ---- kinks --------------------------------------------------------------------------------------


def test_flows_along_kinks_are_limits_of_subgradient_steps(rng: np.random.Generator) -> None:
    # a step so small that plain subgradient descent chatters around the kinks within 1e-4
    for k, d in ((1, 2), (2, 3), (3, 3)):
        moments = random_moments(random_spectrum(d, rng, positive=True), rng)
        land = pyssl.VICReg().population(moments, k, 0.01)
        start = 0.3 * rng.standard_normal((k, d))
        step, expected = 5e-5, start.copy()
        for _ in range(8_000):
            expected -= step * land.gradient(expected)
        flow = pyssl.gradient_flow(land, start, [0.0, 0.1, 8_000 * step])
        assert np.abs(land.kinks(flow.weights[-1])).min() < 1e-12  # it got to a kink
        np.testing.assert_allclose(flow.weights[-1], expected, atol=5e-3)


def test_limits_on_kinks(rng: np.random.Generator) -> None:
    met = 0
    for _ in range(12):
        d, k = (int(size) for size in rng.integers(1, 5, 2))
        moments = random_moments(random_spectrum(d, rng, positive=True), rng)
        land = pyssl.VICReg().population(moments, k, 0.01)
        states: list[pyssl.FlowState] = []
        flow = pyssl.gradient_flow(
            land, 0.1 * rng.standard_normal((k, d)), [0.0, np.inf], callback=states.append
        )
        assert flow.outcome == "converged"
        residual, theta = land.kkt_residual(flow.weights[-1])
        scale = np.linalg.norm(land.gradient(flow.weights[0]))
        assert residual == flow.gradient_norms[-1] <= 1e-6 * scale
        assert (np.diff([state.value for state in states]) <= 1e-7).all()
        met += bool(((theta > 0.0) & (theta < 1.0)).any())
    assert met >= 4


def batch(seed: int, k: int, d: int, **options: float) -> pyssl.Landscape:
    rng = np.random.default_rng(seed)
    moments = random_moments(random_spectrum(d, rng, positive=True), rng)
    views = gaussian_views(moments, 60, rng)
    return pyssl.VICReg(**options).empirical(*views, k, 0.01, bias=seed % 2 == 0)


def test_flows_along_kinks_of_a_batch_are_limits_of_subgradient_steps() -> None:
    # plain subgradient descent chatters around the kinks by some ten steps' length
    step = 1e-4
    for seed, k, d in ((1, 1, 2), (2, 2, 3)):
        land = batch(seed, k, d, invariance=4.0)
        start = 0.6 * np.random.default_rng(seed).standard_normal(land.shape)
        expected = start.copy()
        for _ in range(2_000):
            expected -= step * land.gradient(expected)
        flow = pyssl.gradient_flow(land, start, [0.0, 0.1, 2_000 * step])
        assert np.abs(land.kinks(flow.weights[-1])).min() < 1e-12  # it got to a kink
        np.testing.assert_allclose(flow.weights[-1], expected, atol=2e-3)


def test_limits_on_the_kinks_of_both_views() -> None:
    met = []
    for seed, k, d in ((0, 1, 1), (3, 2, 3), (2, 2, 6)):
        land = batch(seed, k, d, invariance=4.0)
        start = 0.1 * np.random.default_rng(seed).standard_normal(land.shape)
        states: list[pyssl.FlowState] = []
        flow = pyssl.gradient_flow(land, start, [0.0, np.inf], rtol=1e-6, callback=states.append)
        assert flow.outcome == "converged"
        residual, theta = land.kkt_residual(flow.weights[-1])
        assert residual == flow.gradient_norms[-1]
        assert residual <= 1e-5 * np.linalg.norm(land.gradient(start))
        on = (theta > 0.0) & (theta < 1.0)
        np.testing.assert_allclose(land.kinks(flow.weights[-1])[on], 0.0, atol=1e-12)
        values = np.array([state.value for state in states])
        assert (np.diff(values) <= 1e-5 * np.abs(values[0])).all()
        found = pyssl.minimize(land, start=flow.weights[-1])
        assert found.converged
        assert flow.values[-1] == pytest.approx(found.value, rel=1e-6)
        met.append(int(on.sum(axis=0).max()))
    assert min(met) >= 1
    assert max(met) == 2  # a row where its two kinks meet


def test_views_with_one_covariance_have_one_kink_for_two() -> None:
    x = np.random.default_rng(0).standard_normal((40, 3))
    start = 0.3 * np.random.default_rng(1).standard_normal((2, 3))
    for views in (x, x[::-1], -x):
        land = pyssl.VICReg(4.0).empirical(x, views, 2)
        flow = pyssl.gradient_flow(land, start, [0.0, np.inf], rtol=1e-6)
        assert flow.outcome == "converged"
        found = pyssl.minimize(land, start=flow.weights[-1])
        assert flow.values[-1] == pytest.approx(found.value, rel=1e-6, abs=1e-6)


def test_starts_on_kinks_of_a_batch() -> None:
    land = batch(0, 2, 6, invariance=4.0)
    end = pyssl.minimize(land).weights  # one row where its kinks meet
    flow = pyssl.gradient_flow(land, end, [0.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(flow.weights[-1], end, atol=1e-5)


# ---- ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["auto", "implicit", "explicit"])
def test_unbounded_landscapes(method: str) -> None:
    land = diagonal([1.0, 1.0], 1, [1.0, 0.0])  # B is positive on the null space of S
    times = [0.0, 1.0, 10.0, 1e3]
    flow = pyssl.gradient_flow(land, [[0.1, 0.2]], times, method=method)
    assert flow.outcome == "diverged" and flow.end_time < 1e3
    assert np.isfinite(flow.weights[:3]).all() and np.isfinite(flow.values[:3]).all()
    np.testing.assert_allclose(flow.weights[2, 0, 1], 0.2 * np.exp(20.0), rtol=1e-6)
    assert np.isnan(flow.weights[3]).all() and np.isnan(flow.values[3])
    limit = pyssl.gradient_flow(land, [[0.1, 0.2]], [0.0, np.inf], method=method)
    assert limit.outcome == "diverged" and np.isnan(limit.values[-1])


@pytest.mark.parametrize("method", ["auto", "implicit"])
def test_landscapes_without_minimiser(method: str, rng: np.random.Generator) -> None:
    moments = pyssl.Moments(np.eye(3), np.diag([1.0, 0.5, 0.2]))  # nothing augments the first
    land = pyssl.InfoNCE().population(moments, embedding_dim=2)
    start = 1e-2 * (np.eye(3)[:2] if method == "auto" else rng.standard_normal((2, 3)))
    flow = pyssl.gradient_flow(land, start, [0.0, 100.0, np.inf], method=method)
    assert not land.minimum().attained and flow.closed_form == (method == "auto")
    assert flow.outcome == "diverged" and flow.end_time == np.inf
    assert np.isfinite(flow.weights[1]).all() and np.isnan(flow.weights[2]).all()


@pytest.mark.parametrize("method", ["auto", "implicit", "explicit"])
def test_indefinite_barlow_twins(method: str) -> None:
    cross = np.diag([0.9, 0.4, -0.3])  # of a sample
    land = SPECTRAL["BarlowTwins"].population(pyssl.Moments(np.eye(3), cross), 3, 0.1)
    flow = pyssl.gradient_flow(land, 0.1 * np.eye(3), [0.0, 1.0, np.inf], method=method)
    assert flow.outcome == "converged" and flow.closed_form == (method == "auto")
    np.testing.assert_allclose(flow.values[-1], land.minimum().value, rtol=1e-9)


def test_stationary_starts(rng: np.random.Generator) -> None:
    land = pyssl.SpectralLandscape(*random_pencil([0.75, 0.5, -0.25], rng), QUARTIC, 2)
    for start in (np.zeros((2, 3)), *(point.weights() for point in land.stationary_points())):
        flow = pyssl.gradient_flow(land, start, [0.0, 1.0, np.inf])
        assert flow.outcome == "stationary start" and flow.end_time == np.inf
        np.testing.assert_array_equal(flow.weights, np.broadcast_to(start, (3, 2, 3)))
    # a nudge off the saddle is no stationary start
    nudged = pyssl.gradient_flow(land, 1e-9 * rng.standard_normal((2, 3)), [0.0, np.inf])
    np.testing.assert_allclose(nudged.values[-1], land.minimum().value, rtol=1e-9)


def test_an_exact_start_may_run_into_a_saddle() -> None:
    flow = pyssl.gradient_flow(diagonal([2.0, 1.0], 1), [[0.0, 0.1]], [0.0, np.inf])
    assert flow.closed_form and flow.outcome == "saddle"
    np.testing.assert_allclose(flow.values[-1], -0.5, rtol=1e-12)
    assert flow.learning_times is not None and np.isnan(flow.learning_times).all()


def test_flows_on_null_directions() -> None:
    # theory 2.5: nothing but the decay acts there, aligned or not
    land = diagonal([1.0, -0.5], 2, [1.0, 0.0])
    start = np.array([[0.1, 0.3], [0.0, 0.4]])
    flow = pyssl.gradient_flow(land, start, [0.0, 2.0])
    assert flow.closed_form
    np.testing.assert_allclose(flow.weights[1, :, 1], start[:, 1] * np.exp(-2.0), rtol=1e-14)


# ---- learning times -----------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["aligned", "random"])
def test_modes_are_learned_fastest_first(start: str, rng: np.random.Generator) -> None:
    # fastest b_j first, which is not the order of lambda = 1, 0.9, 0.8
    rates, scales = np.array([0.25, 0.9, 0.48]), np.array([0.25, 1.0, 0.6])
    basis = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    B, S = ((basis * spectrum) @ basis.T for spectrum in (rates, scales))
    land = pyssl.SpectralLandscape(0.5 * (B + B.T), 0.5 * (S + S.T), QUARTIC, 3)
    # an orthogonal start is aligned whatever the modes
    small = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    if start == "random":
        small = rng.standard_normal((3, 3))
    flow = pyssl.gradient_flow(land, 1e-8 * small, [0.0, 400.0])
    times, predicted = flow.learning_times, flow.predicted_learning_times
    assert times is not None and predicted is not None
    assert flow.closed_form == (start == "aligned")
    np.testing.assert_allclose(land.eigenvalues, [1.0, 0.9, 0.8], rtol=1e-12)
    assert times[1] < times[2] < times[0]
    np.testing.assert_allclose(times, predicted, rtol=1e-9 if flow.closed_form else 0.1)


def test_learning_times_are_when_half_is_reached(rng: np.random.Generator) -> None:
    land = pyssl.SpectralLandscape(*random_pencil([0.75, 0.5, -0.25], rng), QUARTIC, 2)
    start = 1e-3 * rng.standard_normal((2, 3))
    flow = pyssl.gradient_flow(land, start, [0.0, 100.0])
    assert flow.learning_times is not None and flow.predicted_learning_times is not None
    assert np.isfinite(flow.learning_times[:2]).all() and np.isnan(flow.learning_times[2])
    assert np.isnan(flow.predicted_learning_times).all()  # B and S don't commute
    for j in range(2):
        at = pyssl.gradient_flow(land, start, [float(flow.learning_times[j])])
        assert at.amplitudes is not None
        half = 0.5 * land.minimum().amplitudes[j]
        np.testing.assert_allclose(at.amplitudes[0, j], half, rtol=1e-6)
    early = pyssl.gradient_flow(land, start, [0.0, 1.0])
    assert early.learning_times is not None and np.isnan(early.learning_times).all()
    late = pyssl.gradient_flow(land, flow.weights[-1] * 1.01, [0.0, 1.0])
    assert late.learning_times is not None
    np.testing.assert_array_equal(late.learning_times[:2], 0.0)


# ---- the door -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_at", [1, 3])
@pytest.mark.parametrize("method", ["auto", "implicit", "explicit"])
def test_callbacks_stop_the_flow(method: str, stop_at: int) -> None:
    states: list[pyssl.FlowState] = []

    def callback(state: pyssl.FlowState) -> bool:
        states.append(state)
        return len(states) == stop_at

    times = np.linspace(0.0, 50.0, 6)
    flow = pyssl.gradient_flow(
        diagonal([2.0, 1.0], 2), 0.1 * np.eye(2), times, method=method, callback=callback
    )
    assert flow.outcome == "stopped" and len(states) == stop_at
    assert flow.end_time == states[-1].time and states[0].time == 0.0
    np.testing.assert_array_equal(np.isnan(flow.values), times > flow.end_time)
    first = states[0]
    np.testing.assert_allclose([first.value, first.gradient_norm], [-0.02990, 0.442], rtol=0.1)


def test_single_precision(rng: np.random.Generator) -> None:
    land = pyssl.SpectralLandscape(*random_pencil([0.75, 0.5], rng), QUARTIC, 2)
    start = 0.1 * rng.standard_normal((2, 2))
    wide = pyssl.gradient_flow(land, start.astype(np.float32).astype(float), [0.0, 3.0])
    flow = pyssl.gradient_flow(land, start.astype(np.float32), [0.0, 3.0])
    assert flow.weights.dtype == flow.values.dtype == np.float32
    assert wide.weights.dtype == np.float64
    np.testing.assert_allclose(flow.weights, wide.weights, rtol=1e-6)


def test_results_are_read_only() -> None:
    times, start = np.array([0.0, 1.0]), 0.1 * np.eye(2)
    flow = pyssl.gradient_flow(diagonal([2.0, 1.0], 2), start, times)
    for result in (flow.times, flow.weights, flow.values, flow.amplitudes, flow.learning_times):
        assert result is not None and not result.flags.writeable
    times[0] = start[0] = 1.0  # the user's own stay theirs
    assert flow.times[0] == 0.0


def test_repr_is_a_table() -> None:
    flow = pyssl.gradient_flow(diagonal([2.0, 1.0], 2), 0.1 * np.eye(2), np.linspace(0, 9, 100))
    lines = repr(flow).splitlines()
    assert lines[0] == "Flow(completed at time 9, closed form)" and len(lines) == 11
    assert lines[1].split() == ["time", "value", "|gradient|", "learned"]
    assert lines[-1].split()[0] == "9" and lines[-1].split()[-1] == "2"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"land": np.eye(2)}, TypeError, "land must be a landscape, got ndarray"),
        ({"land": pyssl.SpectralLandscape}, TypeError, "land must be a landscape, got "),
        ({"start": np.ones((3, 2, 2))}, ValueError, r"start must be \(2, 2\), got \(3, 2, 2\)"),
        ({"times": []}, ValueError, "times must not be empty"),
        ({"times": [1.0, 1.0]}, ValueError, "times must ascend, got 1 and then 1"),
        ({"times": [2.0, 1.0]}, ValueError, "times must ascend, got 2 and then 1"),
        ({"times": [-1.0, 1.0]}, ValueError, "times must not be negative, got -1"),
        ({"times": [np.inf, 1.0]}, ValueError, r"times must be finite, got inf at times\[0\]"),
        ({"times": [0.0, np.nan]}, ValueError, r"times must be numbers, got nan at times\[1\]"),
        ({"rtol": 0.0}, ValueError, "rtol must be >= 1e-13 and <= 0.01, got 0"),
        ({"atol": 0.0}, ValueError, "atol must be > 0, got 0"),
        ({"method": "euler"}, ValueError, "method must be one of 'auto', .*, got 'euler'"),
        ({"callback": 1}, TypeError, "callback must be a function or None, got int"),
    ],
    ids=repr,
)
def test_wrong_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    good = {"land": diagonal([2.0, 1.0], 2), "start": 0.1 * np.eye(2), "times": [0.0, 1.0]}
    with pytest.raises(error, match=message):
        pyssl.gradient_flow(**{**good, **options})


def test_starts_outside_the_domain() -> None:
    moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.5]))
    loss = pyssl.InfoNCE(temperature=0.5, similarity="dot", partition="joint")
    land = loss.population(moments, 2, 0.1)
    with pytest.raises(ValueError, match="start must be where the landscape is finite, got"):
        pyssl.gradient_flow(land, np.eye(2), [1.0])
    edge = pyssl.gradient_flow(land, np.sqrt(0.499) * np.array([[0.6, 0.8], [0.8, -0.6]]), [np.inf])
    np.testing.assert_allclose(edge.values[-1], land.minimum().value, rtol=1e-8)


def test_a_rising_value_is_told() -> None:
    class Lying(pyssl.SpectralLandscape):
        """A landscape with the gradient of another sign."""

        def value_and_gradient(self, W: Any) -> Any:
            value, gradient = super().value_and_gradient(W)
            return value, -gradient

    land = Lying(np.diag([-2.0, -1.0]), np.eye(2), pyssl.Quartic(0.5), 2)
    with pytest.raises(RuntimeError, match=re.escape("the value rose from")):
        pyssl.gradient_flow(land, 0.1 * np.eye(2), [1.0], method="implicit")
