"""Values and derivatives of spectral landscapes: dense references, batches, modes, planes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyssl
from pyssl.testing import (
    SpectralReference,
    check_gradient,
    check_hvp,
    matrix_potential,
    random_pencil,
    random_spectrum,
)

SHAPES = [(1, 1), (4, 1), (1, 5), (2, 3), (5, 2), (3, 3), (10, 8), (7, 6)]  # (k, d)
BUILT_IN: dict[str, pyssl.Potential] = {
    "quartic": pyssl.Quartic(0.7),
    **{
        f"{similarity}-{partition}": pyssl.InfoNCEPotential(0.6, similarity, partition)
        for similarity in ("dot", "sqeuclidean")
        for partition in ("conditional", "joint")
    },
}
NAMES = [*BUILT_IN, "custom"]


def custom_matrices() -> tuple[Any, Any]:
    """r(n) = n^3 + n^2 as matrix algebra."""

    def trace(P: np.ndarray) -> np.ndarray:
        return np.trace(P @ P @ P + P @ P, axis1=-2, axis2=-1)

    return trace, lambda P: 3.0 * P @ P + 2.0 * P


@pytest.fixture(scope="module")
def potentials() -> dict[str, tuple[pyssl.Potential, Any]]:
    custom = pyssl.CustomPotential(
        lambda n: n**3 + n**2, lambda n: 3 * n**2 + 2 * n, lambda n: 6 * n + 2
    )
    table = {name: (item, matrix_potential(item)) for name, item in BUILT_IN.items()}
    return {**table, "custom": (custom, custom_matrices())}


def problem(
    potential: tuple[pyssl.Potential, Any],
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    nulls: int = 0,
) -> tuple[pyssl.SpectralLandscape, SpectralReference]:
    k, d = shape
    B, S = random_pencil(random_spectrum(d - nulls, rng), rng, curvature=-np.ones(nulls))
    land = pyssl.SpectralLandscape(B, S, potential[0], k, weight_decay=0.25, constant=1.5)
    decayed = B - 0.125 * np.eye(d)
    return land, SpectralReference(decayed, S, *potential[1], 1.5)


def inside(land: pyssl.SpectralLandscape, W: np.ndarray) -> np.ndarray:
    """Scale W so that the eigenvalues of W S W' stay within 0.5, inside every domain."""
    top = np.linalg.eigvalsh(W @ land.S @ np.swapaxes(W, -1, -2))[..., -1]
    return W * np.sqrt(0.5 / top)[..., None, None]


# ---- derivatives --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_derivatives(
    potentials: dict[str, Any], name: str, shape: tuple[int, int], rng: np.random.Generator
) -> None:
    for nulls in {0, min(1, shape[1] - 1)}:
        land, reference = problem(potentials[name], shape, rng, nulls=nulls)
        W, D = inside(land, rng.standard_normal(shape)), rng.standard_normal(shape)
        # the reference's own gradient is the complex step of its value, so the chain is closed
        check_gradient(land.value, land.gradient, W, reference=reference.value)
        check_gradient(land.value, reference.gradient, W, reference=reference.value)
        check_hvp(land.gradient, land.hvp, W, D, reference=reference.gradient)
        value, gradient = land.value_and_gradient(W)
        np.testing.assert_allclose(value, land.value(W), rtol=1e-13)
        np.testing.assert_array_equal(gradient, land.gradient(W))
        expected = reference.hessian(W)
        np.testing.assert_allclose(land.hessian(W), expected, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_in_single_precision(
    potentials: dict[str, Any], name: str, rng: np.random.Generator
) -> None:
    for shape in SHAPES:
        land, reference = problem(potentials[name], shape, rng)
        W = inside(land, rng.standard_normal(shape)).astype(np.float32)
        D = rng.standard_normal(shape).astype(np.float32)
        check_gradient(land.value, land.gradient, W, reference=reference.value, rtol=1e-4)
        check_hvp(land.gradient, land.hvp, W, D, reference=reference.gradient, rtol=1e-4)
        value, gradient = land.value_and_gradient(W)
        for result in (value, land.value(W), gradient, land.gradient(W), land.hvp(W, D)):
            assert result.dtype == np.float32
        assert land.hessian(W).dtype == np.float32
        assert land.hvp(W, D.astype(np.float64)).dtype == np.float64


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_where_the_embedding_degenerates(
    potentials: dict[str, Any], name: str, rng: np.random.Generator
) -> None:
    # at W = 0, at rank one, and at equal eigenvalues of W S W' its eigenvectors are arbitrary
    d, k = 4, 3
    B, S = random_pencil(random_spectrum(d, rng), rng)
    land = pyssl.SpectralLandscape(B, S, potentials[name][0], k)
    reference = SpectralReference(B, S, *potentials[name][1])
    white = np.linalg.inv(np.linalg.cholesky(S)).T  # its columns are S-orthonormal
    equal = 0.5 * white.T[:k]
    one = inside(land, np.outer(rng.standard_normal(k), rng.standard_normal(d)))
    for W in (np.zeros((k, d)), one, equal, equal * np.array([1.0, 1.0, 1.0 + 1e-9])[:, None]):
        D = rng.standard_normal((k, d))
        check_gradient(land.value, land.gradient, W, reference=reference.value)
        check_hvp(land.gradient, land.hvp, W, D, reference=reference.gradient)


def test_derivatives_by_finite_differences(rng: np.random.Generator) -> None:
    # a second witness that shares nothing with the reference: a quartic's stencil has no error
    land, _ = problem((BUILT_IN["quartic"], matrix_potential(BUILT_IN["quartic"])), (3, 4), rng)
    W, D = rng.standard_normal((3, 4)), rng.standard_normal((3, 4))
    check_gradient(land.value, land.gradient, W)
    check_hvp(land.gradient, land.hvp, W, D)


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_adds_half_g_times_the_square(
    potentials: dict[str, Any], name: str, rng: np.random.Generator
) -> None:
    B, S = random_pencil(random_spectrum(4, rng), rng)
    land = pyssl.SpectralLandscape(B, S, potentials[name][0], 3)
    decayed = pyssl.SpectralLandscape(B, S, potentials[name][0], 3, weight_decay=0.7)
    W = inside(land, rng.standard_normal((3, 4)))
    np.testing.assert_allclose(decayed.value(W), land.value(W) + 0.35 * np.sum(W * W), rtol=1e-13)
    np.testing.assert_allclose(decayed.gradient(W), land.gradient(W) + 0.7 * W, rtol=1e-12)
    np.testing.assert_array_equal(decayed.B, B - 0.35 * np.eye(4))


@pytest.mark.parametrize("name", NAMES)
def test_gauge_invariance(potentials: dict[str, Any], name: str, rng: np.random.Generator) -> None:
    land, _ = problem(potentials[name], (4, 3), rng)
    W = inside(land, rng.standard_normal((4, 3)))
    turn = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    np.testing.assert_allclose(land.value(turn @ W), land.value(W), rtol=1e-13)
    np.testing.assert_allclose(land.gradient(turn @ W), turn @ land.gradient(W), atol=1e-12)


# ---- batches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(0,), (1,), (3,), (9,), (2, 7), (64,), (3, 0, 2)], ids=str)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", NAMES)
def test_batches_equal_loops(
    potentials: dict[str, Any],
    name: str,
    dtype: Any,
    batch: tuple[int, ...],
    rng: np.random.Generator,
) -> None:
    shape = (3, 5)
    land, _ = problem(potentials[name], shape, rng)
    W = inside(land, rng.standard_normal((*batch, *shape))).astype(dtype)
    D = rng.standard_normal((*batch, *shape)).astype(dtype)
    rtol = 1e-12 if dtype == np.float64 else 1e-5
    values, gradients = land.value_and_gradient(W)
    products, hessians = land.hvp(W, D), land.hessian(W)
    assert values.shape == land.value(W).shape == batch
    assert gradients.shape == land.gradient(W).shape == products.shape == W.shape
    assert hessians.shape == (*batch, 15, 15)
    for result in (values, land.value(W), gradients, land.gradient(W), products, hessians):
        assert result.dtype == dtype
    for index in np.ndindex(batch):
        one = land.value_and_gradient(W[index])
        for actual, expected in (
            (values[index], one[0]),
            (land.value(W)[index], one[0]),
            (gradients[index], one[1]),
            (land.gradient(W)[index], one[1]),
            (products[index], land.hvp(W[index], D[index])),
            (hessians[index], land.hessian(W[index])),
        ):
            np.testing.assert_allclose(
                actual, expected, rtol=rtol, atol=rtol * np.abs(expected).max()
            )


@pytest.mark.parametrize("shape", [*SHAPES, (40, 30), (16, 64), (17, 61)], ids=str)
def test_batches_of_every_size(shape: tuple[int, int], rng: np.random.Generator) -> None:
    # around the sizes at which the evaluation changes hands
    quartic = BUILT_IN["quartic"]
    land, reference = problem((quartic, matrix_potential(quartic)), shape, rng)
    for count in (7, 8, 9, 21):
        W, D = rng.standard_normal((2, count, *shape))
        value, gradient = land.value_and_gradient(W)
        np.testing.assert_allclose(value, reference.value(W), rtol=1e-11)
        np.testing.assert_allclose(land.value(W), value, rtol=1e-13)
        exact = reference.gradient(W + 1e-30j * D)
        scale = np.abs(exact).max()
        np.testing.assert_allclose(gradient, exact.real, atol=1e-12 * scale)
        product = exact.imag / 1e-30
        np.testing.assert_allclose(land.hvp(W, D), product, atol=1e-12 * np.abs(product).max())


@pytest.mark.parametrize("name", NAMES)
def test_directions_broadcast(
    potentials: dict[str, Any], name: str, rng: np.random.Generator
) -> None:
    land, _ = problem(potentials[name], (2, 3), rng)
    W = inside(land, rng.standard_normal((4, 2, 3)))
    D = rng.standard_normal((5, 1, 2, 3))
    products = land.hvp(W, D)
    assert products.shape == (5, 4, 2, 3)
    for i, j in np.ndindex(5, 4):
        expected = land.hvp(W[j], D[i, 0])
        np.testing.assert_allclose(products[i, j], expected, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_allclose(land.hvp(W[0], D), land.hvp(W[[0]], D), atol=1e-13)


@pytest.mark.parametrize("name", ["quartic", "sqeuclidean-conditional"])
def test_arguments_are_left_alone(
    potentials: dict[str, Any], name: str, rng: np.random.Generator
) -> None:
    land, _ = problem(potentials[name], (3, 4), rng)
    for batch in ((), (20,)):
        W = rng.standard_normal((*batch, 3, 4))
        D = rng.standard_normal((*batch, 3, 4))
        copies = W.copy(), D.copy()
        W.flags.writeable = D.flags.writeable = False
        first = land.value_and_gradient(W), land.hvp(W, D), land.hessian(W)
        np.testing.assert_array_equal(W, copies[0])
        np.testing.assert_array_equal(D, copies[1])
        for result in (first[0][1], first[1], first[2]):
            assert result.flags.writeable
            assert not np.shares_memory(result, W)
        np.testing.assert_array_equal(first[1], land.hvp(W, D))


def test_any_memory_layout(rng: np.random.Generator) -> None:
    quartic = BUILT_IN["quartic"]
    land, _ = problem((quartic, matrix_potential(quartic)), (3, 4), rng)
    W = rng.standard_normal((12, 3, 4))
    expected = land.value_and_gradient(W)
    wide = np.zeros((12, 6, 8))
    wide[:, ::2, ::2] = W
    for view in (
        np.asfortranarray(W),
        np.ascontiguousarray(W.transpose(2, 1, 0)).transpose(2, 1, 0),
        wide[:, ::2, ::2],
        W.astype(W.dtype.newbyteorder()),
        W.tolist(),
    ):
        value, gradient = land.value_and_gradient(view)
        np.testing.assert_array_equal(value, expected[0])
        np.testing.assert_array_equal(gradient, expected[1])
    integers = rng.integers(-3, 4, (3, 4))
    assert land.value(integers) == land.value(integers.astype(float))


# ---- planes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_plane(
    potentials: dict[str, Any], name: str, shape: tuple[int, int], rng: np.random.Generator
) -> None:
    land, _ = problem(potentials[name], shape, rng)
    W0, D1, D2 = (0.3 * inside(land, rng.standard_normal(shape)) for _ in range(3))
    u, v = np.linspace(-1.0, 1.2, 7), np.linspace(-0.8, 0.7, 4)
    surface = land.plane(W0, D1, D2, u, v)
    grid = W0 + u[:, None, None, None] * D1 + v[:, None, None] * D2
    expected = np.array([[land.value(point) for point in row] for row in grid])
    assert surface.shape == (7, 4)
    np.testing.assert_allclose(surface, expected, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("name", NAMES)
def test_plane_in_single_precision(
    potentials: dict[str, Any], name: str, rng: np.random.Generator
) -> None:
    land, _ = problem(potentials[name], (3, 4), rng)
    corners = [0.3 * inside(land, rng.standard_normal((3, 4))) for _ in range(3)]
    axes = np.linspace(-1.0, 1.0, 5), np.linspace(-1.0, 1.0, 3)
    single = land.plane(*(item.astype(np.float32) for item in (*corners, *axes)))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, land.plane(*corners, *axes), rtol=1e-4)


def test_plane_degenerate_axes(rng: np.random.Generator) -> None:
    quartic = BUILT_IN["quartic"]
    land, _ = problem((quartic, matrix_potential(quartic)), (2, 2), rng)
    W0, D1, D2 = rng.standard_normal((3, 2, 2))
    assert land.plane(W0, D1, D2, [], [1.0]).shape == (0, 1)
    np.testing.assert_allclose(land.plane(W0, D1, D2, [0.0], [0.0]), land.value(W0), rtol=1e-13)
    np.testing.assert_allclose(
        land.plane(W0, D1, 0.0 * D2, [2.0], [-3.0, 5.0]), land.value(W0 + 2.0 * D1), rtol=1e-12
    )


# ---- mode coordinates ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_mode_coordinates(
    potentials: dict[str, Any], name: str, shape: tuple[int, int], rng: np.random.Generator
) -> None:
    land, _ = problem(potentials[name], shape, rng)
    modes = land.in_modes()
    assert modes.shape == shape
    for batch in ((), (12,)):
        W = inside(land, rng.standard_normal((*batch, *shape)))
        D = rng.standard_normal((*batch, *shape))
        U = modes.from_weights(W)
        np.testing.assert_allclose(modes.to_weights(U), W, atol=1e-12)
        np.testing.assert_allclose(
            U @ np.swapaxes(U, -1, -2), W @ land.S @ np.swapaxes(W, -1, -2), atol=1e-12
        )
        value, gradient = modes.value_and_gradient(U)
        np.testing.assert_allclose(value, land.value(W), rtol=1e-11)
        expected = land.gradient(W)
        np.testing.assert_allclose(
            modes.gradient_to_weights(gradient), expected, atol=1e-11 * np.abs(expected).max()
        )
        expected = land.hvp(W, D)
        product = modes.gradient_to_weights(modes.hvp(U, modes.from_weights(D)))
        np.testing.assert_allclose(product, expected, atol=1e-11 * np.abs(expected).max())


def test_mode_coordinates_are_a_landscape(rng: np.random.Generator) -> None:
    for potential in BUILT_IN.values():
        land, _ = problem((potential, matrix_potential(potential)), (3, 4), rng)
        modes = land.in_modes()
        assert isinstance(land, pyssl.Landscape)
        assert isinstance(modes, pyssl.Landscape)
        reference = SpectralReference(
            np.diag(modes.eigenvalues), np.eye(4), *matrix_potential(potential), modes.constant
        )
        U = 0.1 * rng.standard_normal((3, 4))
        check_gradient(modes.value, modes.gradient, U, reference=reference.value)
        check_hvp(modes.gradient, modes.hvp, U, U + 1.0, reference=reference.gradient)
        expected = reference.hessian(U)
        np.testing.assert_allclose(modes.hessian(U), expected, atol=1e-10)
        plane = modes.plane(U, 0.1 * U, np.ones((3, 4)) / 9, [0.5], [0.0, 1.0])
        np.testing.assert_allclose(plane[0, 1], modes.value(1.05 * U + 1 / 9), rtol=1e-12)
        assert modes.value(U.astype(np.float32)).dtype == np.float32
        assert modes.gradient(U.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("name", NAMES)
def test_mode_coordinates_of_singular_scale(
    potentials: dict[str, Any], name: str, rng: np.random.Generator
) -> None:
    # what W does on the null space of S is at its optimum, theory 2.5
    land, _ = problem(potentials[name], (3, 5), rng, nulls=2)
    modes = land.in_modes()
    assert modes.shape == (3, 3)
    U = 0.1 * rng.standard_normal((3, 3))
    W = modes.to_weights(U)
    np.testing.assert_allclose(modes.from_weights(W), U, atol=1e-13)
    np.testing.assert_allclose(modes.value(U), land.value(W), rtol=1e-12)
    gradient = land.gradient(W)
    np.testing.assert_allclose(modes.gradient_to_weights(modes.gradient(U)), gradient, atol=1e-12)
    null = np.linalg.svd(land.S)[2][3:].T
    np.testing.assert_allclose(gradient @ null, 0.0, atol=1e-12)
    off = W + rng.standard_normal((3, 2)) @ null.T
    assert land.value(off) > land.value(W)
    np.testing.assert_allclose(modes.from_weights(off), U, atol=1e-12)


# ---- arguments ----------------------------------------------------------------------------------


def test_arguments_are_checked() -> None:
    B, S, potential = np.eye(2), np.eye(2), pyssl.Quartic(1.0)
    make = pyssl.SpectralLandscape
    for kind, message, arguments in (
        (ValueError, r"B must be \(d, d\), got \(2, 3\)", (np.ones((2, 3)), S, potential, 1)),
        (ValueError, r"S must be \(2, 2\), got \(3, 3\)", (B, np.eye(3), potential, 1)),
        (ValueError, "B must be symmetric", ([[0.0, 1.0], [0.0, 0.0]], S, potential, 1)),
        (ValueError, "S must be positive semidefinite", (B, -S, potential, 1)),
        (ValueError, "B must be finite, got nan", (np.nan * B, S, potential, 1)),
        (ValueError, "embedding_dim must be at least 1, got 0", (B, S, potential, 0)),
        (TypeError, "embedding_dim must be an integer", (B, S, potential, 1.5)),
        (TypeError, "potential must be a pyssl.Potential", (B, S, "quartic", 1)),
        (TypeError, "B must hold real numbers", (1j * B, S, potential, 1)),
    ):
        with pytest.raises(kind, match=message):
            make(*arguments)
    with pytest.raises(ValueError, match="weight_decay must be >= 0, got -1"):
        make(B, S, potential, 1, weight_decay=-1.0)
    land = make(B, S, potential, 3)
    good = np.zeros((3, 2))
    for method in (land.value, land.gradient, land.value_and_gradient, land.hessian):
        with pytest.raises(ValueError, match=r"W must be \(..., 3, 2\), got \(2, 3\)"):
            method(good.T)
        with pytest.raises(ValueError, match="W must be finite, got inf"):
            method(good + np.inf)
        with pytest.raises(TypeError, match="W must hold real numbers"):
            method(good.astype(str))
    with pytest.raises(ValueError, match=r"D must be \(..., 3, 2\)"):
        land.hvp(good, good[:2])
    with pytest.raises(ValueError, match="D must broadcast against W"):
        land.hvp(np.zeros((2, 3, 2)), np.zeros((3, 3, 2)))
    with pytest.raises(ValueError, match=r"D1 must be \(3, 2\), got \(1, 3, 2\)"):
        land.plane(good, good[None], good, [0.0], [0.0])
    with pytest.raises(ValueError, match="u must have 1 dimension"):
        land.plane(good, good, good, 0.0, [0.0])
    with pytest.raises(ValueError, match="max_rank must be at least 0"):
        list(land.stationary_points(max_rank=-1))
