"""Many small symmetric pencils: accuracy, exact inertia, independence of neighbours and threads."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.linalg

import pyssl
from pyssl import _core, pencils

Array = npt.NDArray[Any]

DTYPES = [np.float64, np.float32]
# d = 1, 2, and all remainders of the register blocks up to twice the widest vectors, then some.
SIZES = [*range(1, 41), 57, 64, 100]
LEVELS = ["baseline", "x86-64-v3", "x86-64-v4"]
# What the eigenvalues of a matrix may be off by, in units of eps ||B||.
ALLOWED = 8.0


def symmetric(rng: np.random.Generator, *shape: int, dtype: Any = np.float64) -> Array:
    a = rng.standard_normal((*shape, shape[-1])).astype(dtype)
    return (a + np.swapaxes(a, -1, -2)) / 2


def positive(rng: np.random.Generator, *shape: int, dtype: Any = np.float64) -> Array:
    a = rng.standard_normal((*shape, shape[-1]))
    d = shape[-1]
    return (np.eye(d) + a @ np.swapaxes(a, -1, -2) / d).astype(dtype)


def jacobi(a: Array) -> Array:
    """Return the eigenvalues (n, d) of (n, d, d), descending, by Jacobi in long double."""
    a = a.astype(np.longdouble)
    d = a.shape[-1]
    scale = np.abs(a).max()
    for _ in range(20):
        if np.abs(np.tril(a, -1)).max(initial=0.0) <= np.finfo(np.longdouble).eps * scale / 8:
            break
        for p in range(d - 1):
            for q in range(p + 1, d):
                off = a[:, p, q]
                gap = (a[:, q, q] - a[:, p, p]) / 2
                root = np.sqrt(gap**2 + off**2)
                sign = np.where(gap < 0, -1, 1)
                t = np.where(off == 0, 0, sign * off / np.where(off == 0, 1, np.abs(gap) + root))
                c = (1 / np.sqrt(1 + t**2))[:, None]
                s = t[:, None] * c
                a[:, p], a[:, q] = c * a[:, p] - s * a[:, q], s * a[:, p] + c * a[:, q]
                a[:, :, p], a[:, :, q] = (
                    c * a[:, :, p] - s * a[:, :, q],
                    s * a[:, :, p] + c * a[:, :, q],
                )
    return -np.sort(-np.diagonal(a, axis1=1, axis2=2), axis=1)


def families(rng: np.random.Generator, d: int) -> dict[str, Array]:
    """Return matrices (n, d, d) of the kinds that eigenvalue algorithms stumble over."""
    q, _ = np.linalg.qr(rng.standard_normal((d, d)))

    def turned(spectrum: Array) -> Array:
        a = (q * spectrum) @ q.T
        return (a + a.T) / 2

    grades = 10.0 ** -np.linspace(0, 20, d)
    signs = np.where(np.arange(d) % 2, -1.0, 1.0)
    wilkinson = np.diag(np.abs(np.arange(d) - (d - 1) / 2)) + np.eye(d, k=1) + np.eye(d, k=-1)
    roots = np.sqrt(grades)
    blocks = scipy.linalg.block_diag(*[np.array([[1.0, 2.0], [2.0, 1.0]])] * (d // 2 + 1))[:d, :d]
    return {
        "random": symmetric(rng, 7, d),
        "graded": np.stack([turned(grades), turned(grades * signs)]),
        "graded rows": symmetric(rng, 3, d) * roots * roots[:, None],
        "graded rows, reversed": symmetric(rng, 3, d) * roots[::-1] * roots[::-1, None],
        "repeated": np.stack([turned(np.sign(np.arange(d) - d / 3)), turned(np.ones(d))]),
        "clustered": np.stack([turned(1.0 + 1e-13 * rng.standard_normal(d))]),
        "low rank": np.stack([np.ones((d, d)), turned(np.arange(d) < 2)]),
        "indefinite": np.stack([turned(signs), turned(signs * np.arange(1, d + 1))]),
        "tridiagonal": np.stack([wilkinson, 2 * np.eye(d) - np.eye(d, k=1) - np.eye(d, k=-1)]),
        "blocks": np.stack([blocks, blocks[::-1, ::-1]]),
        "huge and tiny": symmetric(rng, 4, d)
        * np.array([1e300, 1e-300, 1e-312, 1.0])[:, None, None],
    }


def assert_close(values: Array, expected: Array, eps: float, allowed: float = ALLOWED) -> None:
    norm = np.abs(expected).max(axis=-1, keepdims=True)
    tiny = float(np.finfo(values.dtype).smallest_subnormal)
    error = np.abs(values.astype(np.longdouble) - expected)
    assert (error <= allowed * eps * norm + tiny).all(), np.max(error / (eps * norm))


# ---- eigenvalues ---------------------------------------------------------------------------------


@pytest.mark.parametrize("d", SIZES)
def test_eigenvalues_of_random_matrices(rng: np.random.Generator, d: int) -> None:
    B = symmetric(rng, 11, d)
    values = pencils.eigenvalues(B)
    assert values.shape == (11, d) and values.dtype == np.float64
    assert (np.diff(values) <= 0).all()
    if d <= 24:
        assert_close(values, jacobi(B), np.finfo(float).eps)
    else:  # LAPACK's own errors are some 15 eps ||B||
        assert_close(values, np.linalg.eigvalsh(B)[:, ::-1], np.finfo(float).eps, 32.0)


@pytest.mark.parametrize("d", [1, 2, 3, 4, 5, 8, 13, 16, 21, 32])
def test_eigenvalues_are_accurate(rng: np.random.Generator, d: int) -> None:
    for name, B in families(rng, d).items():
        scale = np.abs(B).max(axis=(1, 2), keepdims=True) if name == "huge and tiny" else 1.0
        exact = jacobi(B / scale) * np.reshape(scale, (-1, 1)) if d > 1 else B[:, :, 0]
        assert_close(pencils.eigenvalues(B), exact, np.finfo(float).eps)
        assert_close(pencils.eigh(B)[0], exact, np.finfo(float).eps)


@pytest.mark.parametrize("d", [1, 2, 3, 7, 8, 16, 33, 40, 64])
def test_single_precision(rng: np.random.Generator, d: int) -> None:
    eps = float(np.finfo(np.float32).eps)
    for name, wide in families(rng, d).items():
        if name == "huge and tiny":
            continue
        B = wide.astype(np.float32)
        B = (B + np.swapaxes(B, 1, 2)) / 2
        values = pencils.eigenvalues(B)
        assert values.dtype == np.float32
        assert_close(values, np.linalg.eigvalsh(B.astype(float))[:, ::-1], eps)
        assert_close(pencils.eigh(B)[0], np.linalg.eigvalsh(B.astype(float))[:, ::-1], eps)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_eigenvalues_known_exactly(k: int) -> None:
    # H diag(lambda) H / d with a Hadamard matrix H: every entry is a dyadic number
    d = 2**k
    H = scipy.linalg.hadamard(d).astype(float)
    for spectrum in (np.arange(d) - d // 2, np.repeat([3.0, -5.0], d // 2), 2.0 ** -np.arange(d)):
        exact = np.sort(spectrum)[::-1]
        assert_close(pencils.eigenvalues(H * spectrum @ H / d), exact, np.finfo(float).eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 2, 5, 16, 37])
def test_diagonal_matrices_are_solved_exactly(
    rng: np.random.Generator, d: int, dtype: type[np.floating[Any]]
) -> None:
    diagonals = rng.standard_normal((9, d)).astype(dtype)
    diagonals[1] = diagonals[1, 0]
    diagonals[2] = 0
    diagonals[3] *= (10.0 ** -np.arange(d)).astype(dtype)
    B = diagonals[:, None, :] * np.eye(d, dtype=dtype)
    expected = -np.sort(-diagonals, axis=1)
    np.testing.assert_array_equal(pencils.eigenvalues(B), expected)
    values, vectors = pencils.eigh(B)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(np.abs(vectors).sum(axis=1), 1)


# ---- eigenvectors and pencils --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 2, 3, 5, 8, 9, 16, 31, 40, 100])
def test_eigh(rng: np.random.Generator, d: int, dtype: type[np.floating[Any]]) -> None:
    eps = float(np.finfo(dtype).eps)
    for name, wide in families(rng, d).items():
        if name == "huge and tiny" and dtype == np.float32:
            continue
        largest = np.abs(wide).max(axis=(1, 2), keepdims=True)
        B = (wide / np.where(largest > 0, largest, 1)).astype(dtype)
        B = (B + np.swapaxes(B, 1, 2)) / 2
        values, vectors = pencils.eigh(B)
        assert values.dtype == vectors.dtype == dtype
        np.testing.assert_array_equal(values, pencils.eigenvalues(B))
        v, b = vectors.astype(float), B.astype(float)
        norm = np.abs(values.astype(float)).max(axis=1)[:, None, None]
        slack = (8 + 2 * d) * eps
        assert (np.abs(b @ v - v * values[:, None, :]) <= slack * norm).all(), name
        assert np.abs(np.swapaxes(v, 1, 2) @ v - np.eye(d)).max() <= slack, name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 2, 3, 8, 17, 40])
def test_pencils(rng: np.random.Generator, d: int, dtype: type[np.floating[Any]]) -> None:
    B, S = symmetric(rng, 13, d, dtype=dtype), positive(rng, 13, d, dtype=dtype)
    S = (S + np.swapaxes(S, 1, 2)) / 2 * dtype(3e5)
    values, vectors = pencils.eigh(B, S)
    np.testing.assert_array_equal(values, pencils.eigenvalues(B, S))
    slack = 40 * (d + 8) * float(np.finfo(dtype).eps)
    v, b, s = vectors.astype(float), B.astype(float), S.astype(float)
    expected = np.stack(
        [scipy.linalg.eigh(x, y, eigvals_only=True) for x, y in zip(b, s, strict=True)]
    )
    norm = np.abs(expected).max()
    np.testing.assert_allclose(values, expected[:, ::-1], rtol=0, atol=slack * norm)
    np.testing.assert_allclose(np.swapaxes(v, 1, 2) @ s @ v, [np.eye(d)] * 13, atol=slack)
    modes = np.swapaxes(v, 1, 2) @ b @ v
    np.testing.assert_allclose(modes, values[:, :, None] * np.eye(d), rtol=0, atol=slack * norm)


def test_extreme_scales(rng: np.random.Generator) -> None:
    B, S = symmetric(rng, 5, 6), positive(rng, 5, 6)
    values, vectors = pencils.eigh(B, S)
    for b, s in ((2.0**900, 2.0**-100), (2.0**-700, 2.0**300), (2.0**-1000, 2.0**-1000)):
        scaled, scaled_vectors = pencils.eigh(B * b, S * s)
        np.testing.assert_array_equal(scaled, values * (b / s))
        np.testing.assert_array_equal(scaled_vectors, vectors / np.sqrt(s))


def test_broadcasting(rng: np.random.Generator) -> None:
    B, S = symmetric(rng, 3, 1, 5), positive(rng, 4, 5)
    values, vectors = pencils.eigh(B, S)
    assert values.shape == (3, 4, 5) and vectors.shape == (3, 4, 5, 5)
    np.testing.assert_array_equal(pencils.eigenvalues(B, S), values)
    for i in range(3):
        for j in range(4):
            alone, alone_vectors = pencils.eigh(B[i, 0], S[j])
            np.testing.assert_array_equal(values[i, j], alone)
            np.testing.assert_array_equal(vectors[i, j], alone_vectors)
    # one S for all is factored once, to the same bits
    np.testing.assert_array_equal(pencils.eigenvalues(B[:, 0], S[2]), values[:, 2])
    np.testing.assert_array_equal(pencils.eigenvalues(B[1, 0], S), values[1])
    mixed = pencils.eigenvalues(B.astype(np.float32), S)
    assert mixed.dtype == np.float64


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3)])
def test_empty_batches(shape: tuple[int, ...]) -> None:
    B = np.empty((*shape, 4, 4))
    assert pencils.eigenvalues(B).shape == (*shape, 4)
    assert pencils.eigenvalues(B, np.eye(4)).shape == (*shape, 4)
    assert pencils.eigh(B)[1].shape == (*shape, 4, 4)
    assert pencils.inertia(B).shape == (*shape, 3)
    assert pencils.counts_above(B, [0.0, 1.0]).shape == (*shape, 2)


# ---- inertia -------------------------------------------------------------------------------------


def by_eigenvalues(values: Array, tolerance: Array) -> Array:
    above = np.sum(values > tolerance[..., None], axis=-1)
    below = np.sum(values < -tolerance[..., None], axis=-1)
    return np.stack([above, values.shape[-1] - above - below, below], axis=-1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", SIZES)
def test_inertia_is_exact(rng: np.random.Generator, d: int, dtype: type[np.floating[Any]]) -> None:
    """Spectra with a gap of 16 eps ||B|| on both sides of the tolerance, at any place in it."""
    eps = float(np.finfo(dtype).eps)
    gap = (16.0 + d) * eps  # the default tolerance is d eps ||B||
    small = gap * 1.01 * (1.0 + rng.random((6, d)))
    signs = np.where(rng.random((6, d)) < 0.5, -1.0, 1.0)
    spectra = np.concatenate(
        [
            signs * np.where(rng.random((6, d)) < 0.5, small, 0.0),
            signs * np.geomspace(1.0, gap * 1.01, d),
            np.repeat([[1.0, -1.0]], 3, axis=0)[:, [0] * (d // 2) + [1] * (d - d // 2)],
        ]
    )
    spectra[:, 0] = np.sign(spectra[:, 0] + 0.5)  # ||B|| = 1
    q, _ = np.linalg.qr(rng.standard_normal((len(spectra), d, d)))
    B = (q.astype(np.longdouble) * spectra[:, None, :]) @ np.swapaxes(q, 1, 2).astype(np.longdouble)
    B = ((B + np.swapaxes(B, 1, 2)) / 2).astype(dtype)
    expected = by_eigenvalues(spectra, np.zeros(len(spectra)))
    np.testing.assert_array_equal(pencils.inertia(B), expected)
    diagonal = (spectra[:, None, :] * np.eye(d)).astype(dtype)
    np.testing.assert_array_equal(pencils.inertia(diagonal), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_inertia_of_special_matrices(dtype: type[np.floating[Any]]) -> None:
    swap = np.array([[0, 1], [1, 0]], dtype)
    np.testing.assert_array_equal(pencils.inertia(swap), [1, 0, 1])
    for d in (1, 2, 7, 16, 33):
        zero = np.zeros((d, d), dtype)
        np.testing.assert_array_equal(pencils.inertia(zero), [0, d, 0])
        np.testing.assert_array_equal(pencils.inertia(zero, 0.0), [0, d, 0])
        np.testing.assert_array_equal(pencils.inertia(zero + 1), [1, d - 1, 0])
        np.testing.assert_array_equal(pencils.inertia(-np.eye(d, dtype=dtype)), [0, 0, d])
        # zero pivots all the way: +-1 in pairs, and one 1 where the two diagonals cross
        anti = np.eye(d, dtype=dtype)[::-1]
        np.testing.assert_array_equal(pencils.inertia(anti), [(d + 1) // 2, 0, d // 2])
        # a chain of zeros on the diagonal: 2 cos(pi j/(d + 1))
        chain = np.eye(d, k=1, dtype=dtype) + np.eye(d, k=-1, dtype=dtype)
        np.testing.assert_array_equal(pencils.inertia(chain), [d // 2, d % 2, d // 2])


def test_tolerance_is_relative_to_the_two_norm() -> None:
    # between the lower and the upper bound of the norm that is known before any eigenvalue
    eps, d = float(np.finfo(float).eps), 32
    H = scipy.linalg.hadamard(d) / np.sqrt(d)
    for factor, counted in ((1.3, True), (0.7, False)):
        spectrum = np.ones(d)
        spectrum[5], spectrum[7] = factor * d * eps, -factor * d * eps
        expected = [d - 1, 0, 1] if counted else [d - 2, 2, 0]
        np.testing.assert_array_equal(pencils.inertia(np.diag(spectrum)), expected)
        chain = scipy.linalg.block_diag(
            2 * np.eye(3) + np.eye(3, k=1) + np.eye(3, k=-1), np.eye(d - 3)
        )
        chain[-1, -1] = factor * d * eps * (2 + np.sqrt(2))
        np.testing.assert_array_equal(
            pencils.inertia(chain), [d, 0, 0] if counted else [d - 1, 1, 0]
        )
    assert np.linalg.norm(H, 2) == pytest.approx(1)


def test_given_tolerances(rng: np.random.Generator) -> None:
    B = symmetric(rng, 3, 29, 6)
    values = pencils.eigenvalues(B)
    for tolerance in (0.0, 0.3, 5.0, rng.random((3, 29)), rng.random(29), rng.random((3, 1))):
        expected = by_eigenvalues(values, np.broadcast_to(tolerance, (3, 29)))
        np.testing.assert_array_equal(pencils.inertia(B, tolerance), expected)
        single = pencils.inertia(B.astype(np.float32), tolerance)
        np.testing.assert_array_equal(single, expected)
    # what equals the tolerance is zero
    np.testing.assert_array_equal(pencils.inertia(np.diag([0.5, -0.5, 1.0]), 0.5), [1, 2, 0])
    np.testing.assert_array_equal(pencils.inertia(np.diag([1.0, 1e-30, -1e-30]), 0.0), [2, 0, 1])


def test_counts_above(rng: np.random.Generator) -> None:
    A, thresholds = symmetric(rng, 5, 7), rng.standard_normal(9)
    values = pencils.eigenvalues(A)
    expected = np.sum(values[:, None, :] > thresholds[:, None], axis=-1)
    np.testing.assert_array_equal(pencils.counts_above(A, thresholds), expected)
    np.testing.assert_array_equal(pencils.counts_above(A[2], thresholds), expected[2])
    each = rng.standard_normal((5, 4))
    counts = pencils.counts_above(A, each)
    np.testing.assert_array_equal(counts[3], pencils.counts_above(A[3], each[3]))
    assert pencils.counts_above(A[0], each).shape == (5, 4)
    # strictly above
    np.testing.assert_array_equal(
        pencils.counts_above(np.diag([1.0, 2.0, 2.0]), [2.0, 1.0]), [0, 2]
    )
    np.testing.assert_array_equal(
        pencils.counts_above(np.diag([1.0, 2.0, 2.0])[None], [2.0, 1.0]), [[0, 2]]
    )


# ---- neighbours, threads, instruction sets -------------------------------------------------------


def everything(B: Array, S: Array) -> tuple[Array, ...]:
    return (
        pencils.eigenvalues(B),
        *pencils.eigh(B),
        pencils.inertia(B),
        pencils.eigenvalues(B, S),
        *pencils.eigh(B, S),
    )


def mixture(rng: np.random.Generator, n: int, d: int, dtype: Any) -> tuple[Array, Array]:
    """Return matrices that take QL and the refinement very different numbers of steps."""
    kinds = np.concatenate([a for name, a in families(rng, d).items() if name != "huge and tiny"])
    B = kinds[rng.integers(0, len(kinds), n)].astype(dtype)
    S = positive(rng, n, d, dtype=dtype)
    return (B + np.swapaxes(B, 1, 2)) / 2, (S + np.swapaxes(S, 1, 2)) / 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [3, 8, 17])
def test_bits_do_not_depend_on_the_place_in_the_batch(
    rng: np.random.Generator, d: int, dtype: type[np.floating[Any]]
) -> None:
    B, S = mixture(rng, 173, d, dtype)
    expected = everything(B, S)
    order = rng.permutation(173)[:151]
    for result, whole in zip(everything(B[order], S[order]), expected, strict=True):
        np.testing.assert_array_equal(result, whole[order])
    for n in (1, 2, 7, 8, 9, 33, 65):
        for result, whole in zip(everything(B[5 : 5 + n], S[5 : 5 + n]), expected, strict=True):
            np.testing.assert_array_equal(result, whole[5 : 5 + n])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d"), [(9001, 4), (1001, 12), (70, 40)])
def test_bits_do_not_depend_on_threads(
    rng: np.random.Generator, n: int, d: int, dtype: type[np.floating[Any]]
) -> None:
    B, S = mixture(rng, n, d, dtype)
    results = []
    try:
        for count in (1, 2, 3, 16):
            pyssl.set_num_threads(count)
            results.append(everything(B, S))
    finally:
        pyssl.set_num_threads(None)
    for other in results[1:]:
        for result, expected in zip(other, results[0], strict=True):
            assert result.tobytes() == expected.tobytes()


def test_one_bad_matrix_leaves_the_others_alone(rng: np.random.Generator) -> None:
    B = symmetric(rng, 37, 5)
    expected = pencils.eigenvalues(B)
    for bad in (np.nan, np.inf, -np.inf):
        spoilt = B.copy()
        spoilt[[17, 20], 3, 3] = bad
        values = np.empty_like(expected)
        assert _core.pencil_eigenvalues(spoilt, None, values) == (17, -1, -1)
        others = ~np.isin(np.arange(37), [17, 20])
        np.testing.assert_array_equal(values[others], expected[others])


LEVEL_SCRIPT = """
import sys
import numpy as np
from pyssl import _core, pencils

rng = np.random.default_rng(7)
b, s = rng.standard_normal((2, 45, 9, 9))
b, s = b + b.mT, s @ s.mT + np.eye(9)
values, vectors = pencils.eigh(b, s)
print(_core.simd_level())
np.savez(sys.argv[1], values=values, vectors=np.abs(vectors), plain=pencils.eigenvalues(b),
         single=pencils.eigenvalues(b.astype(np.float32)), inertia=pencils.inertia(b))
"""


@pytest.mark.parametrize("level", LEVELS)
def test_every_instruction_set_gives_the_same_answer(level: str, tmp_path: Any) -> None:
    most = _core.simd_level()
    if LEVELS.index(level) > LEVELS.index(most):
        pytest.skip(f"this machine has {most}")
    results = []
    for wanted in (level, most):
        done = subprocess.run(
            [sys.executable, "-c", LEVEL_SCRIPT, str(tmp_path / f"{wanted}.npz")],
            env=os.environ | {"PYSSL_SIMD_LEVEL": wanted},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == wanted
        with np.load(tmp_path / f"{wanted}.npz") as file:
            results.append(dict(file))
    for name, array in results[0].items():
        tolerance = 1e-5 if array.dtype == np.float32 else 1e-10
        np.testing.assert_allclose(array, results[1][name], rtol=tolerance, atol=tolerance)


# ---- LAPACK, and what is refused -----------------------------------------------------------------


def test_large_matrices_go_to_lapack(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    B, S = symmetric(rng, 2, 3, 6), positive(rng, 3, 6)
    here = everything(B, S), pencils.inertia(B, 0.4)
    monkeypatch.setattr(pencils, "_LARGEST_VALUES", 5)
    monkeypatch.setattr(pencils, "_LARGEST_VECTORS", 5)
    monkeypatch.setattr(pencils, "_core", None)
    there = everything(B, S), pencils.inertia(B, 0.4)
    for ours, theirs in zip((*here[0], here[1]), (*there[0], there[1]), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(np.abs(ours), np.abs(theirs), rtol=0, atol=1e-13)
    test_what_is_not_a_pencil_is_refused()


def test_what_is_not_a_pencil_is_refused() -> None:
    stack = np.stack([np.eye(6)] * 4)
    stack[2, 1, 3] = 0.5
    for function in (pencils.eigenvalues, pencils.eigh, pencils.inertia):
        with pytest.raises(ValueError, match=r"B must be symmetric, got 0.5 at \[2, 1, 3\]"):
            function(stack)
    with pytest.raises(ValueError, match=r"S must be symmetric, got 0.5 at \[2, 1, 3\]"):
        pencils.eigenvalues(np.eye(6), stack)
    with pytest.raises(ValueError, match=r"A must be symmetric"):
        pencils.counts_above(stack, [0.0])
    singular = np.diag([1.0, 2.0, 1.0, 1.0, 1.0, 0.0])
    for S in (singular, np.stack([np.eye(6), singular]), singular - np.eye(6), np.zeros((6, 6))):
        with pytest.raises(ValueError, match="S must be positive definite, got eigenvalues from"):
            pencils.eigh(np.eye(6), S)
    with pytest.raises(ValueError, match="from -1 to"):
        pencils.eigenvalues(np.stack([np.eye(6)] * 3), np.diag([1.0, 1, 1, 1, 1, -1]))
    with pytest.raises(ValueError, match=r"S must be \(..., 6, 6\) like B, got \(2, 2\)"):
        pencils.eigenvalues(np.eye(6), np.eye(2))
    with pytest.raises(ValueError, match="S must broadcast against B"):
        pencils.eigenvalues(stack, stack[:3])
    with pytest.raises(ValueError, match=r"B must be \(..., d, d\) with d >= 1, got \(0, 0\)"):
        pencils.eigenvalues(np.empty((0, 0)))
    with pytest.raises(ValueError, match="tolerance must be >= 0, got -1"):
        pencils.inertia(np.eye(6), -1.0)
    with pytest.raises(ValueError, match=r"tolerance must broadcast to \(\), got \(2,\)"):
        pencils.inertia(np.eye(6), [1.0, 2.0])
    with pytest.raises(ValueError, match="thresholds must broadcast"):
        pencils.counts_above(np.stack([np.eye(6)] * 4), np.zeros((3, 2)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_asymmetry_within_rounding_is_averaged_out(
    rng: np.random.Generator, dtype: type[np.floating[Any]]
) -> None:
    B = symmetric(rng, 9, 6, dtype=dtype)
    eps = float(np.finfo(dtype).eps)
    noise = 20 * eps * np.triu(rng.standard_normal((9, 6, 6)), 1)
    noisy = (B + noise).astype(dtype)
    mean = (noisy + np.swapaxes(noisy, 1, 2)) / 2
    np.testing.assert_array_equal(pencils.eigenvalues(noisy), pencils.eigenvalues(mean))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"forms": np.zeros((3, 4))}, ValueError, r"forms must be \(N, d, d\), got \(3, 4\)"),
        ({"forms": np.zeros((3, 4, 5))}, ValueError, r"forms must be \(3, 4, 4\)"),
        ({"forms": np.zeros((3, 0, 0))}, ValueError, "with d >= 1"),
        ({"forms": np.zeros((3, 4, 4), int)}, TypeError, "forms must be float32 or float64"),
        ({"metrics": np.zeros((2, 4, 4))}, ValueError, r"metrics must be \(3, 4, 4\)"),
        ({"metrics": np.zeros((1, 4, 4), np.float32)}, TypeError, "metrics must be float64"),
        ({"values": np.zeros((3, 5))}, ValueError, r"values must be \(3, 4\)"),
        ({"vectors": np.zeros((3, 4))}, ValueError, r"vectors must be \(3, 4, 4\)"),
        ({"num_threads": -1}, ValueError, r"num_threads must be >= 0 .*, got -1"),
    ],
)
def test_kernels_refuse(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {
        "forms": np.zeros((3, 4, 4)), "metrics": None, "values": np.zeros((3, 4)),
        "vectors": np.zeros((3, 4, 4)), "num_threads": 1,
    }  # fmt: skip
    with pytest.raises(error, match=message):
        _core.pencil_eigh(**arguments | changed)


def test_kernels_refuse_to_overwrite_what_they_read() -> None:
    B = np.zeros((3, 4, 4))
    with pytest.raises(ValueError, match="vectors must not share memory with forms"):
        _core.pencil_eigh(B, None, np.zeros((3, 4)), B)
    with pytest.raises(ValueError, match="values must not share memory with forms"):
        _core.pencil_eigenvalues(B, None, B.reshape(-1)[:12].reshape(3, 4))
    with pytest.raises(TypeError, match="counts must be int64, got float64"):
        _core.pencil_inertia(B, None, np.zeros((3, 3)))  # type: ignore[arg-type]
