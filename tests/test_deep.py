"""Deep linear models: wells against brute force, minima against training of the layers."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.optimize

import pyssl
from pyssl.testing import (
    check_gradient,
    check_hvp,
    commuting_moments,
    gaussian_views,
    random_moments,
    random_pencil,
    random_spectrum,
)

DEPTHS = (2, 3, 5)
depths = pytest.mark.parametrize("depth", DEPTHS)
SPECTRAL = pyssl.SpectralContrastive()
LOSSES = (
    SPECTRAL,
    pyssl.InfoNCE(0.6),
    pyssl.InfoNCE(0.6, partition="joint"),
    pyssl.InfoNCE(0.6, "dot"),
    pyssl.InfoNCE(0.6, "dot", "joint"),
    pyssl.BarlowTwins(1.0, normalize=False),
    pyssl.SquaredVICReg(1.3),
)
losses = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: repr(loss)[:60])


def seeded(*key: int) -> np.random.Generator:
    return np.random.default_rng([9, *key])


# ---- the layers themselves -----------------------------------------------------------------------


@dataclass
class Network:
    """L_0(W_D ... W_1 (, b)) + (g/2) sum ||W_l||^2 over layers in one flat vector, W_1 first."""

    value_and_gradient: Any
    depth: int
    decay: float
    k: int
    d: int
    bias: bool = False

    @classmethod
    def of(cls, land: pyssl.DeepLandscape) -> Network:
        d = land.shape[1] - land.bias
        evaluate = land.landscape.value_and_gradient
        return cls(evaluate, land.depth, land.weight_decay, land.shape[0], d, land.bias)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        m = min(self.k, self.d)
        return [(m, self.d), *[(m, m)] * (self.depth - 2), (self.k, m)]

    def layers(self, x: np.ndarray) -> list[np.ndarray]:
        cuts = np.cumsum([rows * columns for rows, columns in self.shapes])
        parts = np.split(x, cuts)[: self.depth]
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def product(self, x: np.ndarray) -> np.ndarray:
        return reduce(lambda behind, layer: layer @ behind, self.layers(x))

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        layers = self.layers(x)
        behind = [np.eye(self.d)]
        for layer in layers:
            behind.append(layer @ behind[-1])
        size = sum(layer.size for layer in layers)
        bias = x[size:].reshape(self.k, -1)
        if not np.abs(behind[-1]).max() < 1e3:
            return 1e30, np.zeros_like(x)
        value, ahead = self.value_and_gradient(np.hstack([behind[-1], bias]))
        if not np.isfinite(value):  # a line search has left the domain
            return 1e30, np.zeros_like(x)
        parts = [ahead[:, self.d :].ravel()]
        ahead = ahead[:, : self.d]
        for layer, before in zip(layers[::-1], behind[-2::-1], strict=True):
            parts.append((ahead @ before.T + self.decay * layer).ravel())
            ahead = layer.T @ ahead
        decay = 0.5 * self.decay * float(np.sum(x[:size] ** 2))
        return float(value) + decay, np.concatenate(parts[::-1])

    def random(self, rng: np.random.Generator, size: float) -> np.ndarray:
        n = sum(rows * columns for rows, columns in self.shapes) + self.k * self.bias
        return size * rng.standard_normal(n)

    def descended(self, x: np.ndarray) -> scipy.optimize.OptimizeResult:
        options = {"maxiter": 4000, "ftol": 0.0, "gtol": 1e-9}
        return scipy.optimize.minimize(self, x, jac=True, method="L-BFGS-B", options=options)

    def lowest(self, rng: np.random.Generator, starts: int) -> float:
        sizes = np.linspace(0.4, 1.2, starts)
        return min(self.descended(self.random(rng, size)).fun for size in sizes)

    def flow(self, x: np.ndarray, rate: float, steps: int) -> np.ndarray:
        """Follow plain gradient descent, with steps far too short to cross a barrier."""
        for _ in range(steps):
            x = x - rate * self(x)[1]
        return x


def flat(layers: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([layer.ravel() for layer in layers[::-1]])


def imbalance(layers: list[np.ndarray]) -> float:
    """Return the largest entry of W_(l+1)'W_(l+1) - W_l W_l', for W_1 first."""
    pairs = pairwise(layers)
    return max(float(np.abs(after.T @ after - before @ before.T).max()) for before, after in pairs)


# ---- derivatives ---------------------------------------------------------------------------------


@losses
@pytest.mark.parametrize("bias", [False, True])
def test_derivatives(loss: Any, bias: bool) -> None:
    for number, depth in enumerate(DEPTHS):
        rng = seeded(2, number)
        d, k = int(rng.integers(1, 5)), int(rng.integers(1, 5))
        centred = "dot" in repr(loss)
        m = random_moments(random_spectrum(d, rng), rng, mean=not centred)
        land = loss.population(m, k, weight_decay=0.3, bias=bias, depth=depth)
        assert land.shape == (k, d + bias)
        # inside the domain of the joint dot form; finite differences take steps of unit/4
        size = 0.4 / np.sqrt(k * d * np.linalg.norm(land.landscape.S, 2))
        W, D = size * rng.standard_normal((2, *land.shape))
        unit = size / 64.0
        check_gradient(
            lambda x, land=land, unit=unit: land.value(unit * x),
            lambda x, land=land, unit=unit: unit * land.gradient(unit * x),
            W / unit,
            rtol=1e-7,
        )
        check_hvp(land.gradient, land.hvp, W, D / 64.0, rtol=1e-7)
        bend = (land.hessian(W) @ D.ravel()).reshape(W.shape)
        np.testing.assert_allclose(bend, land.hvp(W, D), rtol=1e-9, atol=1e-12)
        s = np.linalg.svd(W[:, :d], compute_uv=False)
        penalty = 0.15 * depth * np.sum(s ** (2.0 / depth))
        assert land.value(W) == pytest.approx(land.landscape.value(W) + penalty, rel=1e-13)
        batch = size * rng.standard_normal((3, 2, *land.shape))
        values, gradients = land.value_and_gradient(batch)
        assert values[2, 1] == pytest.approx(float(land.value(batch[2, 1])), rel=1e-13)
        np.testing.assert_allclose(gradients[1, 1], land.gradient(batch[1, 1]), atol=1e-13)
        u, v = np.linspace(-0.5, 0.2, 4), np.linspace(-0.2, 0.4, 5)
        points = W + u[:, None, None, None] * D + v[:, None, None] * batch[0, 0]
        exact = land.value(points)
        plane = land.plane(W, D, batch[0, 0], u, v)
        assert plane == pytest.approx(exact, rel=1e-11, abs=1e-12)


@depths
def test_hessian_between_singular_values_that_nearly_agree(depth: int) -> None:
    rng = seeded(3)
    B, S = random_pencil(np.array([1.0, 0.5, 0.2]), rng)
    land = pyssl.DeepLandscape(
        pyssl.SpectralLandscape(B, S, pyssl.Quartic(1.0), 3), depth, weight_decay=0.4
    )
    u, v = (np.linalg.qr(rng.standard_normal((3, 3)))[0] for _ in range(2))
    D = rng.standard_normal((3, 3))
    tied = land.hvp(u @ np.diag([1.0, 1.0, 0.3]) @ v, D)
    for gap in (1e-15, 1e-12, 1e-9, 1e-6):
        bend = land.hvp(u @ np.diag([1.0, 1.0 + gap, 0.3]) @ v, D)
        assert np.abs(bend - tied).max() < 100.0 * gap + 1e-12
    # far apart, the quotient is the plain one
    W = u @ np.diag([1.0, 1e-3, 1e-6]) @ v
    core = u.T @ D @ v.T
    slope = 0.4 * np.array([1.0, 1e-3, 1e-6]) ** (2.0 / depth - 1.0)
    s = np.array([1.0, 1e-3, 1e-6])
    quotient = (slope[:, None] - slope) / (s[:, None] - s + np.eye(3))
    np.fill_diagonal(quotient, (2.0 / depth - 1.0) * slope / s)
    turn = (slope[:, None] + slope) / (s[:, None] + s)
    expected = 0.5 * (quotient * (core + core.T) + turn * (core - core.T))
    found = u.T @ (land.hvp(W, D) - land.landscape.hvp(W, D)) @ v.T
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max())


@losses
def test_single_precision_is_kept(loss: Any) -> None:
    m = commuting_moments([0.9, 0.5, 0.2], [1.0, 0.5, 2.0], seeded(4))
    land = loss.population(m, 2, weight_decay=0.2, depth=3)
    wide = 0.1 * seeded(5).standard_normal((4, 2, 3))
    W = wide.astype(np.float32)
    value, gradient = land.value_and_gradient(W)
    assert value.dtype == gradient.dtype == land.hvp(W, W).dtype == np.float32
    assert land.plane(W[0], W[1], W[2], W[0, 0], W[0, 1]).dtype == np.float32
    exact, slope = land.value_and_gradient(wide)
    np.testing.assert_allclose(value, exact, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, slope, atol=1e-4 * np.abs(slope).max())


@depths
def test_where_rank_is_lost_the_gradient_is_that_along_the_range(depth: int) -> None:
    m = commuting_moments([0.9, 0.6, 0.5], [1.0, 0.5, 2.0], seeded(6))
    land = SPECTRAL.population(m, 3, weight_decay=0.2, depth=depth)
    rng = seeded(7)
    W = rng.standard_normal((3, 1)) @ rng.standard_normal((1, 3))
    rest = land.gradient(W) - land.landscape.gradient(W)
    size = np.linalg.norm(W)
    np.testing.assert_allclose(rest, 0.2 * size ** (2.0 / depth - 2.0) * W, rtol=1e-9)
    penalty = float(land.value(W) - land.landscape.value(W))
    assert penalty == pytest.approx(0.1 * depth * size ** (2.0 / depth), rel=1e-10)
    for call in (lambda: land.hvp(W, W), lambda: land.hessian(W)):
        with pytest.raises(ValueError, match="W must have 3 nonzero singular values, got"):
            call()
    assert not land.gradient(np.zeros((3, 3))).any()
    # out of the range the value rises on every side, faster than any quadratic
    out = rng.standard_normal((3, 3))
    for step in (1e-4, -1e-4):
        assert land.value(step * out) > land.value(0.0 * out)
    # rank is judged in the precision of W
    single = W.astype(np.float32)
    rest = land.gradient(single) - land.landscape.gradient(single)
    np.testing.assert_allclose(rest, 0.2 * size ** (2.0 / depth - 2.0) * W, rtol=1e-3, atol=1e-5)


@losses
def test_without_decay_depth_changes_nothing(loss: Any) -> None:
    m = random_moments(random_spectrum(3, seeded(8)), seeded(8))
    shallow, deep = loss.population(m, 2), loss.population(m, 2, depth=3)
    W = 0.2 * seeded(9).standard_normal((2, 3))
    W[1] = W[0]  # also where rank is lost
    np.testing.assert_array_equal(deep.gradient(W), shallow.gradient(W))
    np.testing.assert_allclose(deep.hessian(W), shallow.hessian(W), atol=1e-14)
    assert deep.value(W) == pytest.approx(shallow.value(W), rel=1e-14)
    one, other = deep.minimum(), shallow.minimum()
    assert (one.value, one.rank) == (other.value, other.rank)
    assert deep.origin().index == shallow.origin().index
    assert pyssl.classify(deep).rank == pyssl.classify(shallow).rank


# ---- the minimum against the layers --------------------------------------------------------------


@depths
def test_layers_are_balanced_and_decay_least(depth: int) -> None:
    rng = seeded(10)
    for k, d in ((2, 3), (3, 2), (1, 4), (4, 1)):
        m = random_moments(random_spectrum(d, rng), rng)
        land = SPECTRAL.population(m, k, weight_decay=0.7, depth=depth)
        W = rng.standard_normal((k, d))
        layers = land.layers(W)
        assert len(layers) == depth
        np.testing.assert_allclose(reduce(np.matmul, layers), W, atol=1e-13)
        assert imbalance(layers[::-1]) < 1e-13
        decay = 0.35 * sum(np.sum(layer**2) for layer in layers)
        assert decay == pytest.approx(land.value(W) - land.landscape.value(W), rel=1e-12)
        mixed = [layer.copy() for layer in layers]
        turn = rng.standard_normal((min(k, d),) * 2)
        mixed[0], mixed[1] = mixed[0] @ turn, np.linalg.solve(turn, mixed[1])
        np.testing.assert_allclose(reduce(np.matmul, mixed), W, atol=1e-9)
        assert 0.35 * sum(np.sum(layer**2) for layer in mixed) > decay
    assert land.layers(W.astype(np.float32))[0].dtype == np.float32


@depths
def test_the_gradient_of_balanced_layers_is_that_of_the_product(depth: int) -> None:
    rng = seeded(11)
    m = random_moments(random_spectrum(3, rng), rng)
    land = pyssl.InfoNCE(0.6).population(m, 2, weight_decay=0.3, depth=depth)
    W = rng.standard_normal((2, 3))
    layers = land.layers(W)[::-1]
    value, slope = Network.of(land)(flat(layers[::-1]))
    assert value == pytest.approx(float(land.value(W)), rel=1e-13)
    for number, part in enumerate(Network.of(land).layers(slope)):
        behind = reduce(lambda a, b: b @ a, layers[:number], np.eye(3))
        ahead = reduce(lambda a, b: b @ a, layers[number + 1 :], np.eye(layers[number].shape[0]))
        np.testing.assert_allclose(part, ahead.T @ land.gradient(W) @ behind.T, atol=1e-12)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_training_on_either_side_of_the_barrier(depth: int) -> None:
    m = commuting_moments([0.9, 0.5, 0.3], [1.0, 0.8, 1.2], seeded(12))
    free = SPECTRAL.population(m, 2, depth=depth)
    existence, critical = free.wells().existence_decay[0], free.wells().critical_weight_decay[0]
    # a decay at which the well lies below the origin, one at which it lies above, one with none
    for g in (0.7 * critical, 0.5 * (critical + existence), 1.1 * existence):
        land = SPECTRAL.population(m, 2, weight_decay=g, depth=depth)
        table, network = land.wells(), Network.of(land)
        mode = land.vectors[:, 0] / np.linalg.norm(land.vectors[:, 0])

        def trained(s: float, mode: Any = mode, land: Any = land, network: Any = network) -> float:
            start = land.layers(np.vstack([s * mode, np.zeros(3)]))
            end = network.flow(flat(start), 0.2 / land.depth, 1500)
            return float(np.linalg.norm(network.product(end)))

        if not table.exists[0]:
            assert [trained(s) < 1e-6 for s in (0.5, 1.5)] == [True, True]
            continue
        at, barrier = float(table.singular_value[0]), float(table.barrier_singular_value[0])
        assert table.is_global[0] == (g < critical)
        assert trained(1.03 * barrier) == pytest.approx(at, rel=1e-6)
        assert trained(1.3 * at) == pytest.approx(at, rel=1e-6)
        assert trained(0.97 * barrier) < 1e-6 * at


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_training_from_anywhere_ends_balanced(depth: int) -> None:
    m = commuting_moments([0.9, 0.7], [1.0, 0.8], seeded(13))
    land = SPECTRAL.population(m, 2, weight_decay=0.1, depth=depth)
    network, minimum = Network.of(land), land.minimum()
    ends = []
    for number in range(6):
        start = network.random(seeded(14, number), 0.9)
        assert imbalance(network.layers(start)) > 0.3
        end = network.descended(start).x
        assert imbalance(network.layers(end)) < 1e-6
        W = network.product(end)
        # a minimum of the landscape over products, where rank is kept
        assert np.abs(land.gradient(W)).max() < 1e-5 or np.abs(W).max() < 1e-6
        ends.append(float(land.value(W)))
    assert min(ends) == pytest.approx(minimum.value, rel=1e-8)


def test_the_lowest_wells_are_the_global_minimum() -> None:
    for number in range(8):
        rng = seeded(15, number)
        d, depth = int(rng.integers(1, 5)), int(rng.choice(DEPTHS))
        k = int(rng.integers(1, d + 2))
        # alignment and variance need not agree on the order of the modes
        m = commuting_moments(rng.uniform(0.1, 1.0, d), rng.uniform(0.1, 2.0, d), rng)
        critical = SPECTRAL.population(m, k, depth=depth).wells().critical_weight_decay
        g = float(rng.uniform(0.1, 0.9) * critical.max())
        land = SPECTRAL.population(m, k, weight_decay=g, depth=depth)
        minimum = land.minimum()
        assert float(land.value(minimum.weights)) == pytest.approx(minimum.value, rel=1e-12)
        assert np.abs(land.gradient(minimum.weights)).max() < 1e-13
        assert minimum.rank == min(k, np.count_nonzero(g < critical)) > 0
        network = Network.of(land)
        stay = network.descended(flat(land.layers())).fun
        assert stay == pytest.approx(minimum.value, rel=1e-9)
        assert network.lowest(rng, 8) > minimum.value - 1e-9 * abs(minimum.value)


@losses
@pytest.mark.parametrize("bias", [False, True])
def test_the_search_finds_what_training_finds(loss: Any, bias: bool) -> None:
    for number in range(2):
        rng = seeded(16, number)
        d, k, depth = 3, 2 + number, 2 + number
        # the domain of the joint dot form is hard on a random start; its layers start small
        m = random_moments([0.9, 0.6, 0.3], rng, mean="dot" not in repr(loss))
        land = loss.population(m, k, weight_decay=0.08, bias=bias, depth=depth)
        barlow = isinstance(loss, pyssl.BarlowTwins)
        assert land.commutes == barlow
        minimum = land.minimum()
        assert np.abs(land.gradient(minimum.weights)).max() < 1e-8
        assert float(land.value(minimum.weights)) == pytest.approx(minimum.value, rel=1e-12)
        assert d + bias == len(minimum.amplitudes) or not bias or loss is not SPECTRAL
        lowest = Network.of(land).lowest(rng, 6)
        assert minimum.value <= lowest + 1e-8
        if "joint" not in repr(loss):
            assert minimum.value == pytest.approx(lowest, abs=1e-7)


def test_the_search_agrees_with_the_closed_form() -> None:
    for number in range(6):
        rng = seeded(17, number)
        d = int(rng.integers(2, 6))
        m = commuting_moments(rng.uniform(0.2, 1.0, d), rng.uniform(0.5, 2.0, d), rng)
        land = SPECTRAL.population(m, d - 1, weight_decay=0.15, depth=2 + number % 3)
        expected = land.minimum()
        assert land.commutes
        searching = SPECTRAL.population(m, d - 1, weight_decay=0.15, depth=2 + number % 3)
        searching.__dict__["_solution"] = None
        found = searching.minimum()
        assert found.value == pytest.approx(expected.value, rel=1e-10)
        assert found.rank == expected.rank
        np.testing.assert_allclose(
            np.sort(found.amplitudes), np.sort(expected.amplitudes), atol=1e-7
        )


def test_training_on_a_batch_reaches_the_predicted_minimum() -> None:
    population = commuting_moments([0.85, 0.6, 0.2], [1.0, 1.0, 1.0])
    x, x_plus = gaussian_views(population, 4000, seeded(18))
    batch = SPECTRAL.empirical(x, x_plus, 3)
    sample = pyssl.Moments.from_views(x, x_plus)
    for m, near in ((population, 0.05), (sample, 0.002)):
        land = SPECTRAL.population(m, 3, weight_decay=0.2, depth=2)
        network = Network(batch.value_and_gradient, 2, 0.2, 3, 3)
        end = network.descended(flat(land.layers(1.2 * land.minimum().weights)))
        W = network.product(end.x)
        trained = np.linalg.eigvalsh(W @ m.covariance @ W.T)[::-1]
        theory = np.sort(land.minimum().amplitudes)[::-1]
        assert land.minimum().rank == np.count_nonzero(trained > 1e-6) == 2
        np.testing.assert_allclose(trained, theory, atol=near)
        assert end.fun == pytest.approx(land.minimum().value, abs=near)


def test_squared_vicreg_on_a_batch_is_theory_of_the_sample() -> None:
    loss = pyssl.SquaredVICReg(1.2)
    x, x_plus = gaussian_views(commuting_moments([0.9, 0.6], [1.0, 2.0]), 60, seeded(19))
    land = loss.population(pyssl.Moments.from_views(x, x_plus), 2, weight_decay=0.3, depth=3)
    batch = loss.empirical(x, x_plus, 2)
    end = Network(batch.value_and_gradient, 3, 0.3, 2, 2).lowest(seeded(20), 12)
    assert end == pytest.approx(land.minimum().value, rel=1e-7)


# ---- biases --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss", [pyssl.InfoNCE(0.6), pyssl.SquaredVICReg(1.2), pyssl.BarlowTwins(1.0, False)]
)
def test_a_bias_that_the_loss_does_not_see(loss: Any) -> None:
    m = pyssl.Moments(np.diag([1.0, 2.0]), np.diag([0.8, 1.0]), [1.0, -2.0])
    plain, biased = (loss.population(m, 2, 0.1, bias=bias, depth=2) for bias in (False, True))
    assert biased.minimum().value == pytest.approx(plain.minimum().value, rel=1e-14)
    np.testing.assert_allclose(biased.minimum().weights[:, :2], plain.minimum().weights)
    assert not biased.gradient(np.ones((2, 3)))[:, 2].any()
    assert biased.vectors.shape == (3, 2)
    assert biased.origin().hessian_spectrum().tolist() == [0.0, 0.0, *[np.inf] * 4]


def test_a_bias_centres_the_dot_similarity() -> None:
    m = pyssl.Moments(np.diag([1.0, 2.0]), np.diag([0.8, 1.0]), [1.0, -2.0])
    loss = pyssl.InfoNCE(0.6, "dot")
    land = loss.population(m, 2, weight_decay=0.1, bias=True, depth=2)
    minimum = land.minimum()
    assert minimum.value == pytest.approx(
        loss.population(m.centered(), 2, 0.1, depth=2).minimum().value, rel=1e-14
    )
    np.testing.assert_allclose(minimum.weights[:, :2] @ m.mean, -minimum.weights[:, 2])
    assert np.abs(land.gradient(minimum.weights)).max() < 1e-14
    with pytest.raises(NotImplementedError, match=r"a spectral landscape .*PenalisedMean"):
        loss.population(m, 2, weight_decay=0.1, depth=2)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_constant_function_is_learned_first(k: int) -> None:
    m = pyssl.Moments(np.diag([1.0, 2.0]), np.diag([0.8, 1.0]), [1.0, -2.0])
    land = SPECTRAL.population(m, k, weight_decay=0.1, bias=True, depth=3)
    minimum, table, origin = land.minimum(), land.wells(), land.origin()
    assert len(table) == len(minimum.amplitudes) == 3
    assert (table.amplitude[0], table.value[0], table.barrier_height[0]) == (1.0, -1.0, 0.0)
    assert table.critical_weight_decay[0] == np.inf
    assert float(land.value(minimum.weights)) == pytest.approx(minimum.value, rel=1e-13)
    assert np.abs(land.gradient(minimum.weights)).max() < 1e-14
    assert Network.of(land).lowest(seeded(21), 12) == pytest.approx(minimum.value, abs=1e-7)
    assert origin.index == k
    assert np.abs(origin.fastest_escape).tolist() == [0.0, 0.0, 1.0]
    report = pyssl.classify(land)
    assert (report.rank, report.capacity) == (minimum.rank, min(k, 3))
    assert report.modes.decay[0] == 0.0


# ---- what users read -----------------------------------------------------------------------------


def test_tied_modes_make_the_minimum_degenerate() -> None:
    m = commuting_moments([0.9, 0.9, 0.2], [1.0, 1.0, 1.0])
    assert SPECTRAL.population(m, 1, weight_decay=0.2, depth=2).minimum().degenerate
    assert not SPECTRAL.population(m, 2, weight_decay=0.2, depth=2).minimum().degenerate


def test_classification_of_sample_moments_searches() -> None:
    x, x_plus = gaussian_views(commuting_moments([0.9, 0.6, 0.1], [1.0, 0.5, 2.0]), 500, seeded(24))
    m = pyssl.Moments.from_views(x, x_plus)
    land = SPECTRAL.population(m, 3, weight_decay=0.2, depth=2)
    assert not land.commutes
    assert land.moments is m
    assert land.loss == SPECTRAL
    report = pyssl.classify(land)
    assert report.rank == land.minimum().rank == 2
    assert [str(cause) for cause in report.modes.cause[:2]] == ["learned", "learned"]
    assert np.isnan(report.critical_weight_decay).all()
    assert any("2 layers" in note for note in report.notes)
    for call in (land.wells, lambda: land.vectors, lambda: land.profile([1.0])):
        with pytest.raises(NotImplementedError, match="B and S don't commute"):
            call()


@depths
def test_the_origin_is_always_a_local_minimum(depth: int) -> None:
    m = commuting_moments([0.9, 0.5], [1.0, 0.8])
    land = SPECTRAL.population(m, 3, weight_decay=1e-3, depth=depth)
    origin = land.origin()
    assert (origin.index, origin.active, origin.fastest_escape) == (0, (), None)
    assert origin.value == 0.0
    assert origin.hessian_spectrum().tolist() == [np.inf] * 6
    assert not origin.weights().any()
    assert SPECTRAL.population(m, 3, depth=depth).origin().index == 6


def test_results_survive_pickling() -> None:
    m = commuting_moments([0.9, 0.5], [1.0, 0.8])
    land = SPECTRAL.population(m, 2, weight_decay=0.2, bias=True, depth=2)
    again = pickle.loads(pickle.dumps(land))
    assert again.minimum().value == land.minimum().value
    assert repr(again.wells()) == repr(land.wells())
    assert str(pickle.loads(pickle.dumps(pyssl.classify(land)))) == str(pyssl.classify(land))
    assert repr(again) == repr(land)


def test_minimize_takes_the_closed_form() -> None:
    land = SPECTRAL.population(commuting_moments([0.9, 0.5], [1.0, 0.8]), 2, 0.2, depth=2)
    result = pyssl.minimize(land)
    assert (result.closed_form, result.converged) == (True, True)
    assert result.value == land.minimum().value
    with pytest.raises(NotImplementedError, match="no derivative where W loses rank"):
        pyssl.minimize(land, closed_form=False)
    with pytest.raises(NotImplementedError, match="layers don't follow the gradient"):
        pyssl.gradient_flow(land, np.ones((2, 2)), [0.0, 1.0])


# ---- landscapes of one's own ---------------------------------------------------------------------


def test_unbounded_landscapes_say_so() -> None:
    flat_direction = pyssl.SpectralLandscape(np.eye(2), np.diag([1.0, 0.0]), pyssl.Quartic(1.0), 1)
    deep = pyssl.DeepLandscape(flat_direction, 2, weight_decay=0.3)
    minimum = deep.minimum()
    assert (minimum.value, minimum.attained, minimum.bounded) == (-np.inf, False, False)
    with pytest.raises(ValueError, match="W must be given where the minimum is not attained"):
        deep.layers()
    assert not pyssl.classify(deep).minimum.attained
    beyond = pyssl.SpectralLandscape(2 * np.eye(1), np.eye(1), pyssl.InfoNCEPotential(1.0), 1)
    minimum = pyssl.DeepLandscape(beyond, 2, weight_decay=0.3).minimum()
    assert (minimum.value, minimum.attained, minimum.bounded) == (-np.inf, False, True)
    assert minimum.amplitudes.tolist() == [np.inf]


def test_nothing_to_learn() -> None:
    for land in (
        SPECTRAL.population(pyssl.Moments(np.zeros((2, 2)), np.zeros((2, 2))), 2, 0.1, depth=2),
        SPECTRAL.population(pyssl.Moments(np.eye(2), np.zeros((2, 2))), 2, 0.1, depth=2),
        pyssl.BarlowTwins(1, False).population(
            pyssl.Moments(np.eye(2), -np.eye(2)), 2, 0.1, depth=2
        ),
    ):
        assert land.minimum().rank == 0
        assert not land.minimum().weights.any()
        assert not land.wells().exists.any()
        assert pyssl.classify(land).kind is pyssl.Collapse.COMPLETE
    # nor where it would have to be searched for
    m = random_moments([0.9, 0.5], seeded(25))
    land = pyssl.SquaredVICReg(50.0).population(m, 2, 0.1, depth=2)
    assert not land.commutes
    assert (land.minimum().rank, land.minimum().value) == (0, 2.0)
    assert pyssl.classify(land).kind is pyssl.Collapse.COMPLETE


def test_arguments_are_checked() -> None:
    land = pyssl.SpectralLandscape(np.eye(2), np.eye(2), pyssl.Quartic(1.0), 1)
    decayed = pyssl.SpectralLandscape(np.eye(2), np.eye(2), pyssl.Quartic(1.0), 1, weight_decay=0.5)
    with pytest.raises(TypeError, match="landscape must be a SpectralLandscape, got"):
        pyssl.DeepLandscape(np.eye(2), 2)
    with pytest.raises(ValueError, match=r"no weight decay, .* got 0\.5"):
        pyssl.DeepLandscape(decayed, 2)
    deep = pyssl.DeepLandscape(land, 2)
    with pytest.raises(ValueError, match=r"W must be \(1, 2\), got \(3, 1, 2\)"):
        deep.layers(np.ones((3, 1, 2)))
