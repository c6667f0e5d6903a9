"""Stationary points of spectral landscapes, each against dense algebra (theory 2.1-2.5)."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize

import pyssl
from pyssl.stationary import Modes, enumerate_active_sets
from pyssl.testing import SpectralReference, matrix_potential, random_pencil, random_spectrum

POTENTIALS: dict[str, pyssl.Potential] = {
    "quartic": pyssl.Quartic(0.7),
    **{
        f"{similarity}-{partition}": pyssl.InfoNCEPotential(0.8, similarity, partition)
        for similarity in ("dot", "sqeuclidean")
        for partition in ("conditional", "joint")
    },
    "saturating": pyssl.InfoNCEPotential(2.0),  # r'(inf) = 1/2 inside the spectra drawn here
}
# (d, k): all d in 1..8 and k in 1..10
SIZES = [
    *zip((1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 8), (1, 3, 1, 5, 2, 9, 4, 7, 3, 6, 8, 10), strict=True)
]
KINDS = {
    "distinct": {},
    "repeated": {"repeated": True},
    "zeros": {"zeros": 1},
    "repeated and zeros": {"repeated": True, "zeros": 1},
}


@dataclass(frozen=True)
class Problem:
    land: pyssl.SpectralLandscape
    reference: SpectralReference
    eigenvalues: np.ndarray  # on the range of S, descending
    vectors: np.ndarray  # (d, d): T'ST = diag(1, ..., 0, ...), unit length on the null space
    curvature: np.ndarray  # on the null space


def problem(
    name: str,
    eigenvalues: np.ndarray,
    k: int,
    rng: np.random.Generator,
    curvature: tuple[float, ...] | np.ndarray = (),
) -> Problem:
    B, S = random_pencil(eigenvalues, rng, curvature=curvature)
    potential = POTENTIALS[name]
    if len(curvature):
        # modes by elimination (theory 2.5), with SciPy's null space instead of pyssl's
        null = scipy.linalg.null_space(S)
        level, turn = np.linalg.eigh(null.T @ B @ null)
        null = null @ turn
        complement = scipy.linalg.null_space(null.T)
        steep = np.abs(level) > 1e-12
        lift = null[:, steep] @ ((null[:, steep].T @ B @ complement) / -level[steep, None])
        lifted = complement + lift
        _, modes = scipy.linalg.eigh(lifted.T @ B @ lifted, lifted.T @ S @ lifted)
        vectors = np.hstack([lifted @ modes[:, ::-1], null])
    else:
        level = np.zeros(0)
        vectors = scipy.linalg.eigh(B, S)[1][:, ::-1]
    return Problem(
        pyssl.SpectralLandscape(B, S, potential, k, constant=0.25),
        SpectralReference(B, S, *matrix_potential(potential), 0.25),
        np.asarray(eigenvalues, float),
        vectors,
        level,
    )


def seeded(*key: int) -> np.random.Generator:
    return np.random.default_rng([2210, 638, *key])


def active_candidates(item: Problem) -> list[int]:
    limit = item.land.potential.slope_limit
    return [j for j, value in enumerate(item.eigenvalues) if 0.0 < value < limit]


def orbits(item: Problem) -> int:
    """Count the orbits of stationary points: how many of each tied group are active."""
    values = item.eigenvalues[active_candidates(item)]
    sizes = np.unique(values, return_counts=True)[1]
    choices = itertools.product(*(range(size + 1) for size in sizes))
    return sum(sum(choice) <= item.land.embedding_dim for choice in choices)


def check_point(item: Problem, point: Any) -> None:
    """Check everything a point says of itself against dense algebra at its weights."""
    land, W = item.land, point.weights()
    assert W.shape == land.shape
    scale = 1.0 + np.abs(W).max() * (np.abs(land.B).max() + np.abs(land.S).max())
    np.testing.assert_allclose(item.reference.gradient(W), 0.0, atol=1e-11 * scale)
    np.testing.assert_allclose(point.value, item.reference.value(W), rtol=1e-10, atol=1e-12)

    active = list(point.active)
    assert active == sorted(set(active))
    assert set(active) <= set(active_candidates(item))
    np.testing.assert_allclose(
        land.potential.slope(point.amplitudes[active]), item.eigenvalues[active], rtol=1e-12
    )
    assert np.count_nonzero(point.amplitudes) == len(active)
    embedded = np.linalg.eigvalsh(W @ land.S @ W.T)[::-1]
    expected = np.zeros(land.embedding_dim)
    expected[: len(active)] = np.sort(point.amplitudes[active])[::-1]
    np.testing.assert_allclose(embedded, expected, rtol=1e-10, atol=1e-12)

    dense = np.linalg.eigvalsh(item.reference.hessian_in_modes(W, item.vectors))
    spectrum = point.hessian_spectrum()
    top = np.abs(dense).max(initial=1e-30)
    np.testing.assert_allclose(spectrum, dense, rtol=1e-8, atol=1e-11 * top)
    # dyadic problems leave no eigenvalue between rounding and 1e-4
    assert point.index == np.count_nonzero(dense < -1e-9 * top)
    assert point.index == np.count_nonzero(spectrum < -1e-9 * top)


# ---- every stationary point (2.1, 2.3) ----------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", POTENTIALS)
def test_every_stationary_point(name: str, kind: str, size: tuple[int, int]) -> None:
    d, k = size
    rng = seeded(d, k, list(KINDS).index(kind))
    item = problem(name, random_spectrum(d, rng, **KINDS[kind]), k, rng)
    np.testing.assert_allclose(item.land.eigenvalues, item.eigenvalues, atol=1e-13)
    points = list(item.land.stationary_points())
    assert len(points) == orbits(item)
    signatures = {tuple(item.eigenvalues[list(point.active)]) for point in points}
    assert len(signatures) == len(points)  # one entry an orbit
    values = [point.value for point in points]
    assert values == sorted(values)
    for point in points:
        check_point(item, point)


def test_every_point_of_the_largest_problem() -> None:
    rng = seeded(8)
    item = problem("sqeuclidean-conditional", random_spectrum(8, rng, positive=True), 10, rng)
    points = list(item.land.stationary_points())
    assert len(points) == 256
    for point in points:
        check_point(item, point)


def test_everything_tied() -> None:
    for name in POTENTIALS:
        item = problem(name, np.full(5, 0.375), 3, seeded(1))
        points = list(item.land.stationary_points())
        assert [len(point.active) for point in points] == [3, 2, 1, 0]
        for point in points:
            check_point(item, point)
        assert item.land.minimum().degenerate


def test_active_sets_are_all_subsets() -> None:
    rng = seeded(2)
    for k in (1, 3, 7):
        item = problem("quartic", random_spectrum(6, rng), k, rng)
        positive = active_candidates(item)
        expected = {
            subset
            for size in range(min(k, len(positive)) + 1)
            for subset in itertools.combinations(positive, size)
        }
        points = list(item.land.stationary_points())
        assert {point.active for point in points} == expected
        for rank in range(k + 2):
            fewer = list(item.land.stationary_points(max_rank=rank))
            assert [point.active for point in fewer] == [
                point.active for point in points if len(point.active) <= rank
            ]


@pytest.mark.parametrize("name", ["quartic", "sqeuclidean-conditional", "dot-joint"])
@pytest.mark.parametrize("size", [(1, 1), (2, 1), (2, 2), (1, 3), (3, 2)], ids=str)
def test_no_stationary_point_is_missing(name: str, size: tuple[int, int]) -> None:
    d, k = size
    rng = seeded(d, k)
    item = problem(name, random_spectrum(d, rng, positive=True), k, rng)
    land, vectors = item.land, item.vectors
    points = list(land.stationary_points())
    invariants = [point.weights().T @ point.weights() for point in points]
    top = np.sqrt(max(point.amplitudes.max() for point in points))
    met = set()
    for _ in range(60 * len(points)):
        start = rng.uniform(-0.9, 0.9) * top * rng.standard_normal((k, d)) @ vectors.T
        if np.linalg.eigvalsh(start @ land.S @ start.T)[-1] > 0.6:
            continue  # outside the domain of dot-joint
        found = scipy.optimize.root(
            lambda w: item.reference.gradient(w.reshape(k, d)).ravel(),
            start.ravel(),
            jac=lambda w: item.reference.hessian(w.reshape(k, d)),
            tol=1e-13,
        )
        W = found.x.reshape(k, d)
        if np.abs(item.reference.gradient(W)).max() > 1e-11:
            continue
        # near a manifold of points the equations are singular and Newton stops early
        gaps = [np.abs(W.T @ W - invariant).max() for invariant in invariants]
        assert min(gaps) < 1e-5, (W, found)
        met.add(int(np.argmin(gaps)))
    assert met == set(range(len(points)))


def test_first_points_of_a_huge_landscape_are_instant() -> None:
    d = 2048
    lam = np.linspace(2.0, 1.0, d)
    nothing = np.zeros((d, 0))
    modes = Modes(  # a solved pencil without its vectors, which take seconds to find
        lam, np.full(d, np.inf), nothing, nothing, np.ones(d), lam, d, d, 0, 0, True
    )
    start = time.perf_counter()
    potential = pyssl.Quartic(0.5)
    active = list(itertools.islice(enumerate_active_sets(modes, potential, d), 100))
    assert time.perf_counter() - start < 10.0  # there are 2^2048 of them
    # the minimum, then the 99 cheapest to leave out: each costs lambda^2/2, two cost at least 1
    left_out = [tuple(sorted(set(range(d)) - set(chosen))) for chosen in active]
    assert left_out == [(), *((d - 1 - j,) for j in range(99))]


def test_points_are_lazy() -> None:
    d = 128
    lam = np.linspace(1.0, 2.0, d)
    land = pyssl.SpectralLandscape(np.diag(lam), np.eye(d), pyssl.Quartic(0.5), d)
    points = list(itertools.islice(land.stationary_points(), 50))
    values = np.array([point.value for point in points])
    assert (np.diff(values) >= 0.0).all()
    costs = np.sort(np.concatenate([lam**2 / 2, [0.0]]))[:50]  # two left out cost more than 1
    np.testing.assert_allclose(values - land.minimum().value, costs, atol=1e-11)
    assert [point.index for point in points] == [
        sum(j < i for i in point.active for j in range(d) if j not in point.active)
        + (d - len(point.active)) ** 2
        for point in points
    ]


def test_order_of_many_points() -> None:
    rng = seeded(5)
    lam = np.sort(rng.uniform(0.1, 1.0, 16))[::-1]
    land = pyssl.SpectralLandscape(np.diag(lam), np.eye(16), pyssl.Quartic(0.5), 5)
    values = np.array([point.value for point in land.stationary_points()])
    expected = [
        -0.5 * np.sum(lam[list(subset)] ** 2)
        for size in range(6)
        for subset in itertools.combinations(range(16), size)
    ]
    np.testing.assert_allclose(values, np.sort(expected), rtol=1e-13, atol=1e-15)


# ---- the table, row by row (2.3) ----------------------------------------------------------------


def test_table_for_a_quartic() -> None:
    # written out for d = 3, k = 2, the active set {second}, at r = q n^2
    l1, l2, l3 = 2.0, 1.0, -0.5
    land = pyssl.SpectralLandscape(np.diag([l1, l2, l3]), np.eye(3), pyssl.Quartic(0.5), 2)
    (point,) = [point for point in land.stationary_points() if point.active == (1,)]
    rows = [2 * (l2 - l1), 2 * (l2 - l3), -2 * l1, -2 * l3, 0.0, 4 * l2]
    np.testing.assert_allclose(point.hessian_spectrum(), np.sort(rows), rtol=1e-14)
    assert point.index == 2
    (both,) = [point for point in land.stationary_points() if point.active == (0, 1)]
    rows = [2 * (l1 - l3), 2 * (l2 - l3), 0.0, 2 * (l1 + l2), 4 * l1, 4 * l2]
    np.testing.assert_allclose(both.hessian_spectrum(), np.sort(rows), rtol=1e-14)


def test_inertia_is_that_of_the_weights() -> None:
    # hessian_spectrum is in V-coordinates; in W-coordinates only the signs agree
    rng = seeded(6)
    item = problem("sqeuclidean-joint", random_spectrum(4, rng), 3, rng)
    differs = False
    for point in item.land.stationary_points():
        in_weights = np.linalg.eigvalsh(item.land.hessian(point.weights()))
        spectrum = point.hessian_spectrum()
        for sign in (-1.0, 1.0):
            assert np.count_nonzero(sign * in_weights > 1e-9) == np.count_nonzero(
                sign * spectrum > 1e-9
            )
        differs |= not np.allclose(in_weights, spectrum, rtol=1e-3)
    assert differs


@pytest.mark.parametrize("name", POTENTIALS)
def test_only_the_minimum_is_no_strict_saddle(name: str) -> None:
    rng = seeded(7)
    for d, k in SIZES:
        item = problem(name, random_spectrum(d, rng, repeated=True, zeros=d // 4), k, rng)
        points = list(item.land.stationary_points())
        attained = item.land.minimum().attained
        assert [point.index == 0 for point in points] == [attained] + [False] * (len(points) - 1)


# ---- the minimum (2.2) --------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", [name for name in POTENTIALS if name != "saturating"])
def test_minimum_is_the_first_point(name: str, size: tuple[int, int]) -> None:
    d, k = size
    rng = seeded(d, k, 3)
    item = problem(name, random_spectrum(d, rng), k, rng)
    minimum = item.land.minimum()
    first = next(item.land.stationary_points())
    assert minimum.attained and minimum.bounded
    assert minimum.rank == len(first.active) == min(k, np.count_nonzero(item.eigenvalues > 0))
    assert first.active == tuple(range(minimum.rank))
    np.testing.assert_allclose(minimum.value, first.value, rtol=1e-15)
    np.testing.assert_array_equal(minimum.weights, first.weights())
    np.testing.assert_array_equal(minimum.amplitudes, first.amplitudes)


@pytest.mark.parametrize("name", [name for name in POTENTIALS if name != "saturating"])
def test_minimum_is_what_minimisation_finds(name: str) -> None:
    for d, k in ((1, 1), (3, 2), (4, 6), (6, 3)):
        rng = seeded(d, k, 4)
        item = problem(name, random_spectrum(d, rng), k, rng)
        minimum = item.land.minimum()

        def objective(w: np.ndarray, item: Problem = item) -> tuple[float, np.ndarray]:
            W = w.reshape(item.land.shape)
            if np.linalg.eigvalsh(W @ item.land.S @ W.T)[-1] >= 0.799 and name == "dot-joint":
                return 1e3, 0.0 * w  # outside the domain: the line search turns back
            return float(item.reference.value(W)), item.reference.gradient(W).ravel()

        for _ in range(3):
            start = 0.1 * rng.standard_normal((k, d)) @ item.vectors.T
            found = scipy.optimize.minimize(
                objective, start.ravel(), jac=True, method="L-BFGS-B",
                options={"maxiter": 5000, "maxfun": 20000, "ftol": 1e-16, "gtol": 1e-11},
            )  # fmt: skip
            np.testing.assert_allclose(found.fun, minimum.value, rtol=1e-9, atol=1e-11)
            W = found.x.reshape(k, d)
            expected = minimum.weights.T @ minimum.weights
            np.testing.assert_allclose(W.T @ W, expected, atol=1e-4 * (1e-3 + expected.max()))


def test_degenerate_minimum() -> None:
    for k, degenerate in ((1, False), (2, True), (3, False), (4, False)):
        land = pyssl.SpectralLandscape(
            np.diag([2.0, 1.0, 1.0, -1.0]), np.eye(4), pyssl.Quartic(1.0), k
        )
        assert land.minimum().degenerate is degenerate


def rational_potential() -> pyssl.CustomPotential:
    """r = n^2/(1 + n): r'(inf) = 1, r(n) - n -> -1."""
    return pyssl.CustomPotential(
        lambda n: n * n / (1 + n),
        lambda n: n * (2 + n) / (1 + n) ** 2,
        lambda n: 2 / (1 + n) ** 3,
        slope_limit=1.0,
        asymptote=-1.0,
    )


def test_unattained_minimum_with_a_finite_infimum() -> None:
    potential = rational_potential()
    lam = [1.0, 0.75, -0.5]  # r'(n) = 3/4 at n = 1, where r - 3n/4 = -1/4
    B, S = random_pencil(lam, seeded(9))
    minimum = pyssl.SpectralLandscape(B, S, potential, 2).minimum()
    assert not minimum.attained and minimum.bounded
    assert minimum.rank == 2
    np.testing.assert_allclose(minimum.amplitudes, [np.inf, 1.0, 0.0])
    np.testing.assert_allclose(minimum.value, -1.25)
    assert np.isnan(minimum.weights).all()
    # reached by no point: the only stationary ones leave the diverging mode out
    land = pyssl.SpectralLandscape(B, S, potential, 2)
    assert [point.active for point in land.stationary_points()] == [(1,), ()]
    # beyond the limit the landscape falls without end
    B, S = random_pencil([1.25, 0.75, -0.5], seeded(9))
    minimum = pyssl.SpectralLandscape(B, S, potential, 2).minimum()
    assert minimum.value == -math.inf and not minimum.attained
    np.testing.assert_allclose(minimum.amplitudes, [np.inf, 1.0, 0.0])


@pytest.mark.parametrize("partition", ["conditional", "joint"])
@pytest.mark.parametrize("top", [2.0, 2.5])
def test_saturating_infonce_has_no_minimiser(partition: str, top: float) -> None:
    # r'(inf) = 2; for these potentials the infimum is -inf at equality as well (theory 2.2)
    potential = pyssl.InfoNCEPotential(0.5, "sqeuclidean", partition)
    B, S = random_pencil([top, 1.0, 0.5], seeded(10))
    land = pyssl.SpectralLandscape(B, S, potential, 2)
    minimum = land.minimum()
    assert not minimum.attained
    assert minimum.value == -math.inf
    assert minimum.amplitudes[0] == np.inf and 0.0 < minimum.amplitudes[1] < np.inf
    assert minimum.rank == 2
    # the landscape itself falls along that mode, ever more slowly at equality
    u = scipy.linalg.eigh(B, S)[1][:, -1]
    values = [land.value(np.outer([scale, 0.0], u)) for scale in (1e2, 1e4, 1e6)]
    assert values[0] > values[1] > values[2]
    for point in land.stationary_points():
        assert 0 not in point.active
        assert point.index > 0


@pytest.mark.parametrize("partition", ["conditional", "joint"])
def test_just_below_the_slope_limit(partition: str) -> None:
    potential = pyssl.InfoNCEPotential(0.5, "sqeuclidean", partition)
    for gap in (2.0**-20, 2.0**-40):
        land = pyssl.SpectralLandscape([[2.0 - gap]], [[1.0]], potential, 1)
        minimum = land.minimum()
        assert minimum.attained
        np.testing.assert_allclose(potential.slope(minimum.amplitudes), 2.0 - gap, rtol=1e-15)
        np.testing.assert_allclose(
            minimum.amplitudes, potential.amplitude(np.array([2 - gap]), np.array([gap]))
        )


@pytest.mark.parametrize("s", [1e-10, 5e-15, 6e-16, 1e-17])
def test_a_scale_of_rounding_is_at_no_limit(s: float) -> None:
    potential = pyssl.InfoNCEPotential(1.0, partition="joint")
    land = pyssl.SpectralLandscape(np.diag([0.5, s / 2]), np.diag([1.0, s]), potential, 2)
    minimum = land.minimum()
    assert minimum.attained
    np.testing.assert_allclose(minimum.amplitudes[0], 0.5, rtol=1e-12)
    at_limit = pyssl.SpectralLandscape(np.diag([1.0, s / 2]), np.diag([1.0, s]), potential, 2)
    assert np.isinf(at_limit.minimum().amplitudes).tolist() == [True, False]


def test_decay_may_hold_what_is_beyond_the_slope_limit() -> None:
    # r'(inf) = 2; without decay lambda = 2.05, with it 1.95
    potential = pyssl.InfoNCEPotential(0.5)
    land = pyssl.SpectralLandscape([[2.05]], [[1.0]], potential, 1, weight_decay=0.2)
    np.testing.assert_allclose(land.eigenvalues, [1.95], rtol=1e-14)
    minimum = land.minimum()
    assert minimum.attained
    np.testing.assert_allclose(potential.slope(minimum.amplitudes), [1.95], rtol=1e-14)
    assert abs(land.gradient(minimum.weights)) < 1e-12
    assert not pyssl.SpectralLandscape([[2.05]], [[1.0]], potential, 1).minimum().attained


# ---- the origin (2.4) ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", POTENTIALS)
def test_origin(name: str, size: tuple[int, int]) -> None:
    d, k = size
    rng = seeded(d, k, 5)
    item = problem(name, random_spectrum(d, rng, zeros=d // 3), k, rng)
    land, origin = item.land, item.land.origin()
    dense = item.reference.hessian(np.zeros((k, d)))
    np.testing.assert_allclose(dense, np.kron(np.eye(k), -2.0 * land.B), atol=1e-13)
    values = np.linalg.eigvalsh(dense)
    assert origin.active == () and not origin.weights().any() and origin.value == 0.25
    assert origin.index == np.count_nonzero(values < -1e-12)
    assert origin.index == k * np.count_nonzero(item.eigenvalues > 0.0)
    check_point(item, origin)
    if origin.index:
        np.testing.assert_allclose(origin.escape_rate, -values[0], rtol=1e-12)
        escape = origin.fastest_escape
        np.testing.assert_allclose(land.B @ escape, 0.5 * origin.escape_rate * escape, atol=1e-12)
        np.testing.assert_allclose(np.linalg.norm(escape), 1.0)
    else:
        assert origin.fastest_escape is None and origin.escape_rate == 0.0


def test_complete_collapse_is_a_negative_semidefinite_B() -> None:
    for lam in ([0.0, -0.5], [-0.25, -0.25], [0.0, 0.0]):
        item = problem("quartic", np.array(lam), 3, seeded(11))
        minimum = item.land.minimum()
        assert (minimum.rank, minimum.value) == (0, 0.25)
        assert item.land.origin().index == 0
        assert [point.active for point in item.land.stationary_points()] == [()]


def test_rank_comes_from_the_inertia_of_B() -> None:
    # lambda = b/s: the tiny s of the second mode must not make a mode of rounding in B
    S = np.diag([1.0, 1e-14, 1.0])
    B = np.diag([1.0, 1e-17, 0.5])
    land = pyssl.SpectralLandscape(B, S, pyssl.Quartic(1.0), 3)
    assert land.minimum().rank == 2
    assert land.origin().index == 6
    # nor hide one that is there
    land = pyssl.SpectralLandscape(np.diag([1.0, 1e-10, 0.5]), S, pyssl.Quartic(1.0), 3)
    assert land.minimum().rank == 3
    np.testing.assert_allclose(land.eigenvalues, [1e4, 1.0, 0.5])


# ---- singular S (2.5) ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(2, 1), (3, 2), (4, 5), (6, 3), (8, 4)], ids=str)
@pytest.mark.parametrize("name", POTENTIALS)
def test_singular_scale(name: str, size: tuple[int, int]) -> None:
    d, k = size
    for nulls, flat in ((1, 0), (1, 1), (d // 2, 0), (d // 2, 1)):
        rng = seeded(d, k, nulls, flat)
        curvature = -random_spectrum(nulls, rng, positive=True)
        curvature[:flat] = 0.0
        item = problem(name, random_spectrum(d - nulls, rng), k, rng, curvature)
        land = item.land
        assert land.bounded
        finite = land.eigenvalues[np.isfinite(land.eigenvalues)]
        expected = np.sort(np.concatenate([item.eigenvalues, np.zeros(flat)]))[::-1]
        np.testing.assert_allclose(finite, expected, atol=1e-13)
        assert np.count_nonzero(land.eigenvalues == -np.inf) == nulls - flat
        points = list(land.stationary_points())
        assert len(points) == orbits(item)
        for point in points:
            check_singular_point(item, point)
        minimum = land.minimum()
        below = item.eigenvalues[: min(k, np.count_nonzero(item.eigenvalues > 0))]
        assert minimum.attained == (below < land.potential.slope_limit).all()


def check_singular_point(item: Problem, point: Any) -> None:
    """As `check_point`; the zero eigenvalue of B's null space may sort before negative ones."""
    W = point.weights()
    scale = 1.0 + np.abs(W).max() * np.abs(item.land.B).max()
    np.testing.assert_allclose(item.reference.gradient(W), 0.0, atol=1e-11 * scale)
    np.testing.assert_allclose(point.value, item.reference.value(W), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(
        np.sort(item.land.potential.slope(point.amplitudes[list(point.active)])),
        np.sort(item.land.eigenvalues[list(point.active)]),
        rtol=1e-12,
    )
    dense = np.linalg.eigvalsh(item.reference.hessian_in_modes(W, item.vectors))
    top = np.abs(dense).max()
    np.testing.assert_allclose(point.hessian_spectrum(), dense, rtol=1e-8, atol=1e-11 * top)
    assert point.index == np.count_nonzero(dense < -1e-9 * top)


def test_singular_scale_minimum_by_minimisation() -> None:
    rng = seeded(12)
    item = problem("sqeuclidean-conditional", random_spectrum(3, rng, positive=True), 2, rng,
        np.array([-0.5, -0.25]))  # fmt: skip
    minimum = item.land.minimum()
    found = scipy.optimize.minimize(
        lambda w: (
            float(item.reference.value(w.reshape(2, 5))),
            item.reference.gradient(w.reshape(2, 5)).ravel(),
        ),
        rng.standard_normal(10),
        jac=True,
        options={"gtol": 1e-10},
    )
    np.testing.assert_allclose(found.fun, minimum.value, rtol=1e-10)
    W = found.x.reshape(2, 5)
    np.testing.assert_allclose(W.T @ W, minimum.weights.T @ minimum.weights, atol=1e-6)


UNBOUNDED = {
    "positive on the null space": ([[-1.0, 0.0], [0.0, 1.0]], 1),
    "positive on both": ([[2.0, 0.0], [0.0, 1.0]], 2),
    "coupled to the null space of B00": ([[-1.0, 0.5], [0.5, 0.0]], 1),
    "positive and coupled": ([[1.0, 0.5], [0.5, 0.0]], 1),
}


@pytest.mark.parametrize("case", UNBOUNDED)
@pytest.mark.parametrize("name", POTENTIALS)
def test_unbounded_landscapes(name: str, case: str) -> None:
    B, positive = UNBOUNDED[case]
    S = np.diag([1.0, 0.0])
    land = pyssl.SpectralLandscape(B, S, POTENTIALS[name], 2, constant=0.5)
    assert not land.bounded
    minimum = land.minimum()
    assert minimum.value == -math.inf
    assert not minimum.attained and not minimum.bounded
    assert np.isnan(minimum.weights).all()
    # the origin is the only point it lists, and its Hessian is -2 I (x) B
    (origin,) = land.stationary_points()
    assert origin.active == ()
    for point in (origin, land.origin()):
        dense = np.linalg.eigvalsh(np.kron(np.eye(2), -2.0 * np.array(B)))
        assert point.index == np.count_nonzero(dense < 0) == 2 * positive
        np.testing.assert_allclose(point.hessian_spectrum(), dense, rtol=1e-14)
    with pytest.raises(ValueError, match="unbounded"):
        land.in_modes()
    # a direction along which it does fall without end
    directions = (np.array([[t, s], [0.0, 0.0]]) for t in (0.0, 0.1, -0.1) for s in (1e3, -1e3))
    assert min(land.value(direction) for direction in directions) < -10.0


def test_eigenvalues_of_an_unbounded_landscape() -> None:
    # the mode on the range of S is what it is, whatever happens on the null space
    land = pyssl.SpectralLandscape(
        [[-1.0, 0.0], [0.0, 1.0]], np.diag([1.0, 0.0]), pyssl.Quartic(1.0), 1
    )
    assert -1.0 in land.eigenvalues
    assert land.minimum().rank == 0


@pytest.mark.parametrize("name", ["quartic", "sqeuclidean-joint"])
def test_no_range_at_all(name: str) -> None:
    # S = 0: nothing holds W, and only B < 0 keeps it bounded
    land = pyssl.SpectralLandscape(-np.eye(2), np.zeros((2, 2)), POTENTIALS[name], 2)
    assert land.bounded
    assert land.minimum().rank == 0 and land.minimum().value == 0.0
    assert (land.eigenvalues == -np.inf).all()
    assert land.origin().index == 0
    assert not pyssl.SpectralLandscape(
        np.diag([1.0, -1.0]), np.zeros((2, 2)), POTENTIALS[name], 2
    ).bounded


def test_weight_decay_bounds_what_is_flat() -> None:
    # W is free on null(S) without decay and zero there with it
    B, S = random_pencil([0.75, 0.5], seeded(13), curvature=[0.0])
    flat = pyssl.SpectralLandscape(B, S, pyssl.Quartic(1.0), 2)
    held = pyssl.SpectralLandscape(B, S, pyssl.Quartic(1.0), 2, weight_decay=0.01)
    assert flat.bounded and held.bounded
    null = scipy.linalg.null_space(S)
    np.testing.assert_allclose(held.minimum().weights @ null, 0.0, atol=1e-13)
    assert np.count_nonzero(flat.eigenvalues == 0.0) == 1
    assert np.count_nonzero(held.eigenvalues == -np.inf) == 1


# ---- single precision sources -------------------------------------------------------------------


def test_single_precision_matrices_have_single_precision_ranks() -> None:
    rng = seeded(14)
    B, S = random_pencil([0.5, 0.25, 0.0, -0.5], rng)
    noise = rng.standard_normal((4, 4))
    noisy = (B + 1e-8 * (noise + noise.T)).astype(np.float32)
    land = pyssl.SpectralLandscape(noisy, S.astype(np.float32), pyssl.Quartic(1.0), 4)
    assert land.minimum().rank == 2
