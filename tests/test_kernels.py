"""The compiled kernels against dense references, and what they promise about memory and threads."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pyssl import _core

Array = npt.NDArray[Any]

DTYPES = [np.float64, np.float32]
LEVELS = ["baseline", "x86-64-v3", "x86-64-v4"]
SANITIZED = bool(os.environ.get("ASAN_OPTIONS"))
# Batches below, at, between and above multiples of any number of lanes (2 to 16).
SIZES = [1, 2, 7, 8, 16, 19, 33]
# k, d below, at and above the register blocks, k > d, and blocks with every remainder.
SHAPES = [
    (1, 1), (1, 2), (2, 1), (3, 2), (4, 8), (5, 3), (4, 5), (8, 16), (9, 4), (3, 31), (7, 13)
]  # fmt: skip


def problem(
    rng: np.random.Generator, n: int, k: int, d: int, dtype: Any
) -> tuple[Array, Array, Array, Array]:
    weights, directions = rng.standard_normal((2, n, k, d)) / np.sqrt(d)
    a, b = rng.standard_normal((2, d, d))
    signal, scale = a + a.T, b @ b.T / d
    return tuple(x.astype(dtype) for x in (weights, directions, signal, scale))  # type: ignore[return-value]


def reference(
    weights: Array, directions: Array, signal: Array, scale: Array, q: float
) -> tuple[Array, Array, Array]:
    """Theory 2 with r(n) = q n^2, in double, by dense products."""
    w, v, b, s = (x.astype(np.float64) for x in (weights, directions, signal, scale))
    p = w @ s @ w.mT
    dp = v @ s @ w.mT + w @ s @ v.mT
    value = -np.trace(w @ b @ w.mT, axis1=1, axis2=2) + q * np.sum(p**2, axis=(1, 2))
    gradient = -2 * w @ b + 4 * q * p @ w @ s
    hvp = -2 * v @ b + 4 * q * (dp @ w @ s + p @ v @ s)
    return value, gradient, hvp


def kernels(
    weights: Array, directions: Array, signal: Array, scale: Array, q: float, num_threads: int = 1
) -> tuple[Array, Array, Array]:
    value, gradient, hvp = np.empty(len(weights), weights.dtype), *np.empty_like([weights, weights])
    _core.quartic_value_and_gradient(
        weights, signal, scale, q, value=value, gradient=gradient, num_threads=num_threads
    )
    _core.quartic_hvp(weights, directions, signal, scale, q, out=hvp, num_threads=num_threads)
    alone = np.empty_like(value)
    _core.quartic_value(weights, signal, scale, q, value=alone, num_threads=num_threads)
    assert alone.tobytes() == value.tobytes()
    return value, gradient, hvp


def assert_same_bits(results: tuple[Array, ...], others: tuple[Array, ...]) -> None:
    for result, other in zip(results, others, strict=True):
        assert result.tobytes() == other.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("k", "d"), SHAPES)
def test_quartic_is_the_dense_formula(
    rng: np.random.Generator, k: int, d: int, dtype: type[np.floating[Any]]
) -> None:
    for n in SIZES:
        for q in (0.7, 0.0, -1.3):
            arguments = problem(rng, n, k, d, dtype)
            tolerance = 16 * (d + k) * np.finfo(dtype).eps
            for result, expected in zip(
                kernels(*arguments, q), reference(*arguments, q), strict=True
            ):
                assert result.dtype == dtype
                # sums cancel: rounding is relative to their terms, which are of the batch's size
                np.testing.assert_allclose(
                    result, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max()
                )


def test_value_accumulates_in_double() -> None:
    weights = np.ones((1, 1, 24), np.float32)
    signal = np.zeros((24, 24), np.float32)
    # far apart, so that they meet in different register blocks: 2^24 + 1 is no float32
    signal[[0, 8, 16], [0, 8, 16]] = -(2.0**24), -1, 2.0**24
    value = np.empty(1, np.float32)
    _core.quartic_value(weights, signal, np.zeros_like(signal), 1.0, value)
    assert value[0] == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_is_the_derivative_of_the_value(
    rng: np.random.Generator, dtype: type[np.floating[Any]]
) -> None:
    weights, directions, signal, scale = problem(rng, 5, 3, 4, dtype)
    step = np.finfo(dtype).eps ** (1 / 3)
    moved = (weights + step * directions).astype(dtype), (weights - step * directions).astype(dtype)
    (up, up_slope, _), (down, down_slope, _) = (
        kernels(w, directions, signal, scale, 0.7) for w in moved
    )
    _, gradient, hvp = kernels(weights, directions, signal, scale, 0.7)
    for difference, derivative in (
        (up - down, np.sum(gradient * directions, axis=(1, 2))),
        (up_slope - down_slope, hvp),
    ):
        tolerance = 30 * step**2 * np.abs(derivative).max()
        np.testing.assert_allclose(difference / (2 * step), derivative, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "k", "d"), [(20_011, 4, 8), (301, 16, 33), (3, 2, 2)])
def test_bits_do_not_depend_on_threads(
    rng: np.random.Generator, n: int, k: int, d: int, dtype: type[np.floating[Any]]
) -> None:
    arguments = problem(rng, n, k, d, dtype)
    expected = kernels(*arguments, 0.7, num_threads=1)
    for num_threads in (2, 3, 4, 64, 0):
        assert_same_bits(kernels(*arguments, 0.7, num_threads=num_threads), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_the_place_in_the_batch(
    rng: np.random.Generator, dtype: type[np.floating[Any]]
) -> None:
    weights, directions, signal, scale = problem(rng, 53, 5, 7, dtype)
    expected = kernels(weights, directions, signal, scale, 0.7)
    order = rng.permutation(53)[:45]
    shuffled = kernels(weights[order], directions[order], signal, scale, 0.7)
    assert_same_bits(shuffled, tuple(x[order] for x in expected))
    for i in (0, 17, 52):
        alone = kernels(weights[i : i + 1], directions[i : i + 1], signal, scale, 0.7)
        assert_same_bits(alone, tuple(x[i : i + 1] for x in expected))


def test_one_bad_problem_leaves_the_others_alone(rng: np.random.Generator) -> None:
    weights, directions, signal, scale = problem(rng, 11, 2, 3, np.float64)
    expected = kernels(weights, directions, signal, scale, 0.7)
    weights[4] = np.nan
    value, gradient, hvp = kernels(weights, directions, signal, scale, 0.7)
    assert np.isnan(value[4])
    others = np.arange(11) != 4
    assert_same_bits(
        (value[others], gradient[others], hvp[others]), tuple(x[others] for x in expected)
    )


def test_empty_batch(rng: np.random.Generator) -> None:
    value, gradient, hvp = kernels(*problem(rng, 0, 2, 3, np.float64), 0.7)
    assert value.shape == (0,)
    assert gradient.shape == hvp.shape == (0, 2, 3)


@pytest.mark.parametrize("offset", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_need_no_more_alignment_than_their_type(
    rng: np.random.Generator, dtype: type[np.floating[Any]], offset: int
) -> None:
    arguments = problem(rng, 9, 3, 5, dtype)
    expected = kernels(*arguments, 0.7)

    def shifted(x: Array) -> Array:
        buffer = np.empty(x.size + offset, x.dtype)
        view = buffer[offset:].reshape(x.shape)
        view[...] = x
        return view

    weights, directions, signal, scale = map(shifted, arguments)
    value, gradient, hvp = map(shifted, expected)
    _core.quartic_value_and_gradient(weights, signal, scale, 0.7, value, gradient)
    _core.quartic_hvp(weights, directions, signal, scale, 0.7, hvp)
    assert_same_bits((value, gradient, hvp), expected)


def arrays(**changed: Array) -> dict[str, Any]:
    good = {
        "weights": np.zeros((3, 2, 4)),
        "signal": np.eye(4),
        "scale": np.eye(4),
        "value": np.empty(3),
        "gradient": np.empty((3, 2, 4)),
    }
    return {**good, **changed, "q": 1.0, "num_threads": 1}


def read_only(x: Array) -> Array:
    x.flags.writeable = False
    return x


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"weights": np.zeros((2, 4))}, ValueError, r"weights must be \(N, k, d\), got \(2, 4\)"),
        ({"weights": np.zeros((3, 2, 8))[:, :, ::2]}, ValueError, "weights must be C-contiguous"),
        ({"weights": np.zeros((3, 2, 4), int)}, TypeError, "weights .* float64, got int64"),
        ({"weights": np.zeros((3, 2, 4), ">f8")}, TypeError, "weights .* got >f8"),
        ({"signal": np.eye(3)}, ValueError, r"signal must be \(4, 4\), got \(3, 3\)"),
        ({"scale": np.ones(4)}, ValueError, r"scale must be \(4, 4\), got \(4,\)"),
        ({"scale": np.eye(4, dtype=np.float32)}, TypeError, "scale must be float64 .* float32"),
        ({"value": np.empty(4)}, ValueError, r"value must be \(3,\), got \(4,\)"),
        ({"value": np.empty(6)[::2]}, ValueError, "value must be C-contiguous"),
        ({"value": np.empty(3, np.float32)}, TypeError, "value must be float64 .* float32"),
        ({"value": read_only(np.empty(3))}, ValueError, "value must be writeable"),
        ({"gradient": np.empty((3, 4, 2))}, ValueError, r"gradient must be \(3, 2, 4\)"),
        ({"gradient": np.empty((3, 2, 4), order="F")}, ValueError, "gradient .* C-contiguous"),
        ({"gradient": read_only(np.empty((3, 2, 4)))}, ValueError, "gradient must be writeable"),
        ({"gradient": [[0.0]]}, TypeError, "incompatible function arguments"),
        ({"num_threads": -1}, ValueError, r"num_threads must be >= 0 .*, got -1"),
    ],
)
def test_bad_arguments_are_refused(
    changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments = arrays() | changed
    with pytest.raises(error, match=message):
        _core.quartic_value_and_gradient(**arguments)


def test_misaligned_numbers_are_refused() -> None:
    value = np.empty(3 * 8 + 1, np.uint8)[1:].view(np.float64)
    with pytest.raises(ValueError, match="value must be C-contiguous and aligned"):
        _core.quartic_value_and_gradient(**arrays(value=value))


def test_results_must_not_overlap_arguments() -> None:
    memory = np.zeros(30)
    weights, gradient = memory[:24].reshape(3, 2, 4), memory[6:].reshape(3, 2, 4)
    with pytest.raises(ValueError, match="gradient must not share memory with weights"):
        _core.quartic_value_and_gradient(**arrays(weights=weights, gradient=gradient))
    with pytest.raises(ValueError, match="gradient must not share memory with value"):
        _core.quartic_value_and_gradient(
            **arrays(value=memory[:3], gradient=memory[2:26].reshape(3, 2, 4))
        )


@pytest.mark.skipif(SANITIZED, reason="the address sanitizer ends the process instead")
@pytest.mark.parametrize("num_threads", [1, 2, 4])
def test_a_worker_out_of_memory_raises(num_threads: int) -> None:
    # scratch is k^2 numbers a lane, here more than there are addresses; the zeros are never touched
    weights = np.zeros((16, 4_000_000, 1))
    with pytest.raises(MemoryError):
        _core.quartic_value(
            weights, np.eye(1), np.eye(1), 1.0, np.empty(16), num_threads=num_threads
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("m", "depth", "n"),
    [(1, 1, 1), (3, 0, 2), (0, 3, 2), (5, 7, 3), (12, 16, 16), (13, 257, 33), (40, 600, 300)],
)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("add", [False, True])
def test_product(
    rng: np.random.Generator,
    m: int,
    depth: int,
    n: int,
    transposed: bool,
    add: bool,
    dtype: type[np.floating[Any]],
) -> None:
    a = rng.standard_normal((m, depth)).astype(dtype)
    b = rng.standard_normal((n, depth) if transposed else (depth, n)).astype(dtype)
    before = rng.standard_normal((m, n)).astype(dtype) if add else np.full((m, n), np.nan, dtype)
    expected = a.astype(float) @ (b.T if transposed else b)
    if add:
        expected += before
    results = []
    for num_threads in (1, 2, 4):
        out = before.copy()
        _core.product(a, b, out, transposed=transposed, add=add, num_threads=num_threads)
        results.append(out)
    tolerance = (depth + 1) * np.finfo(dtype).eps
    np.testing.assert_allclose(results[0], expected, rtol=tolerance, atol=4 * tolerance)
    assert_same_bits((results[1], results[2]), (results[0], results[0]))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"a": np.zeros(3)}, ValueError, r"a must be \(m, depth\), got \(3,\)"),
        ({"a": np.zeros((2, 3), int)}, TypeError, "a must be float32 or float64, got int64"),
        ({"b": np.zeros((4, 3))}, ValueError, r"b must be \(3, 3\), got \(4, 3\)"),
        ({"b": np.zeros((3, 4), np.float32)}, TypeError, "b must be float64 .* float32"),
        ({"out": np.zeros((2, 3))}, ValueError, r"out must be \(2, 4\), got \(2, 3\)"),
        ({"out": np.zeros((2, 4), order="F")}, ValueError, "out must be C-contiguous"),
        ({"out": read_only(np.zeros((2, 4)))}, ValueError, "out must be writeable"),
        ({"num_threads": -2}, ValueError, "num_threads must be >= 0 .*, got -2"),
    ],
)
def test_product_refuses(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"a": np.zeros((2, 3)), "b": np.zeros((3, 4)), "out": np.zeros((2, 4))}
    with pytest.raises(error, match=message):
        _core.product(**arguments | changed)


LEVEL_SCRIPT = """
import sys
import numpy as np
from pyssl import _core

rng = np.random.default_rng(7)
w, v = rng.standard_normal((2, 37, 5, 9))
b, s = (x + x.T for x in rng.standard_normal((2, 9, 9)))
g, h, f, c = np.empty_like(w), np.empty_like(w), np.empty(37), np.empty((9, 9))
_core.quartic_value_and_gradient(w, b, s, 0.7, f, g)
_core.quartic_hvp(w, v, b, s, 0.7, h)
_core.product(b, s, c)
x, y = rng.standard_normal((2, 700, 45)).astype(np.float32)
m, u, d = np.empty(45), np.empty((45, 45)), np.empty((45, 45))
_core.pair_scatter(x, y, m, u, d)
print(_core.simd_level())
np.savez(sys.argv[1], f=f, g=g, h=h, c=c, m=m, u=u, d=d)
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
        scale = np.abs(array).max()
        np.testing.assert_allclose(array, results[1][name], rtol=1e-12, atol=1e-13 * scale)
