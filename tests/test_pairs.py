"""The kernel that reads pairs of views against dense sums, and the digits that it keeps."""

from __future__ import annotations

import signal
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pyssl import _core

Array = npt.NDArray[Any]

DTYPES = [np.float64, np.float32]
BLOCK = 384  # rows that the kernel centres at a time
# Rows below, at and above blocks; columns below, at and above panels, tiles, and what a task packs.
SHAPES = [
    (1, 1), (2, 3), (7, 8), (33, 16), (BLOCK, 17), (BLOCK + 1, 12), (2 * BLOCK - 1, 25),
    (3 * BLOCK + 9, 193), (50, 400),
]  # fmt: skip


def views(rng: np.random.Generator, n: int, d: int, dtype: Any, mean: float = 1.0) -> list[Array]:
    clean = mean + rng.standard_normal((n, d)) @ rng.standard_normal((d, d))
    return [(clean + 0.5 * rng.standard_normal((n, d))).astype(dtype) for _ in range(2)]


def scatters(x: Array, x_plus: Array, num_threads: int = 1) -> tuple[Array, Array, Array]:
    d = x.shape[1]
    mean, middles, differences = np.full(d, np.nan), *np.full((2, d, d), np.nan)
    _core.pair_scatter(x, x_plus, mean, middles, differences, num_threads=num_threads)
    return mean, middles, differences


def reference(x: Array, x_plus: Array) -> tuple[Array, Array, Array]:
    """Theory 1, with more digits than double where the machine has them."""
    first, second = x.astype(np.longdouble), x_plus.astype(np.longdouble)
    middle = (first + second) / 2
    mean = middle.mean(axis=0)
    difference = first - second
    return mean, (middle - mean).T @ (middle - mean), difference.T @ difference


def assert_same_bits(results: tuple[Array, ...], others: tuple[Array, ...]) -> None:
    for result, other in zip(results, others, strict=True):
        assert result.tobytes() == other.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_scatters_are_the_dense_sums(rng: np.random.Generator, n: int, d: int, dtype: Any) -> None:
    pair = views(rng, n, d, dtype)
    results = scatters(*pair)
    for result, expected in zip(results, reference(*pair), strict=True):
        # sums of n products, each rounded: relative to the largest entry
        atol = 8 * np.finfo(float).eps * np.sqrt(n) * np.abs(expected).max()
        np.testing.assert_allclose(result, expected.astype(float), rtol=0.0, atol=atol)
    for matrix in results[1:]:
        np.testing.assert_array_equal(matrix, matrix.T)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_one_set_of_rows(rng: np.random.Generator, n: int, d: int, dtype: Any) -> None:
    x, _ = views(rng, n, d, dtype)
    mean, scatter = np.empty(d), np.empty((d, d))
    _core.pair_scatter(x, None, mean, scatter, None)
    both = scatters(x, x)
    assert_same_bits((mean, scatter), both[:2])
    assert not both[2].any()


def test_it_does_not_matter_which_view_is_the_first(rng: np.random.Generator) -> None:
    x, x_plus = views(rng, 500, 19, float)
    assert_same_bits(scatters(x, x_plus), scatters(x_plus, x))


def test_float32_is_widened_before_anything_is_added(rng: np.random.Generator) -> None:
    pair = views(rng, 1000, 21, np.float32, mean=1e4)
    assert_same_bits(scatters(*pair), scatters(*(side.astype(float) for side in pair)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d"), [(2500, 200), (BLOCK + 1, 130), (5, 3)])
def test_bits_do_not_depend_on_threads(
    rng: np.random.Generator, n: int, d: int, dtype: Any
) -> None:
    pair = views(rng, n, d, dtype)
    expected = scatters(*pair)
    for num_threads in (2, 3, 64, 0):
        assert_same_bits(scatters(*pair, num_threads=num_threads), expected)


def test_equal_rows_have_no_scatter() -> None:
    # the mean of n equal numbers, added up, is not always that number
    row = np.array([0.1, 0.3, 1e6 / 3.0, -7e60])
    x = np.tile(row, (2 * BLOCK + 5, 1))
    mean, middles, differences = scatters(x, x.copy())
    np.testing.assert_array_equal(mean, row)
    assert not middles.any() and not differences.any()


@pytest.mark.parametrize("d", [3, 20])
def test_a_large_mean_costs_no_digits(rng: np.random.Generator, d: int) -> None:
    # numbers of 20 bits stay exact under the shift, so that both problems are the same
    x, x_plus = np.round(rng.standard_normal((2, 5 * BLOCK + 3, d)) * 2**20) / 2**20
    mean, middles, differences = scatters(x, x_plus)
    shifted = scatters(x + 2.0**20, x_plus + 2.0**20)
    np.testing.assert_allclose(shifted[0] - 2.0**20, mean, rtol=0.0, atol=2.0**-32)
    np.testing.assert_allclose(shifted[1], middles, rtol=0.0, atol=1e-13 * middles.max())
    np.testing.assert_array_equal(shifted[2], differences)


def test_blocks_of_different_mean(rng: np.random.Generator) -> None:
    # nearly all of the scatter lies between the blocks: Chan's term has to bring it
    x, x_plus = views(rng, 4 * BLOCK, 5, float)
    steps = np.repeat(1e4 * rng.standard_normal((4, 5)), BLOCK, axis=0)
    pair = x + steps, x_plus + steps
    for result, expected in zip(scatters(*pair), reference(*pair), strict=True):
        atol = 1e-13 * np.abs(expected).max()
        np.testing.assert_allclose(result, expected.astype(float), rtol=0.0, atol=atol)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_not_finite_shows_in_the_mean(
    rng: np.random.Generator, value: float, side: int, dtype: Any
) -> None:
    for row in (0, 5, BLOCK - 1, BLOCK, BLOCK + 7):
        for column in (0, 15, 18):
            pair = views(rng, BLOCK + 8, 19, dtype)
            pair[side][row, column] = value
            mean, middles, differences = scatters(*pair)
            assert list(np.flatnonzero(~np.isfinite(mean))) == [column]
            for matrix in (middles, differences):
                others = np.delete(np.delete(matrix, column, axis=0), column, axis=1)
                assert np.isfinite(others).all()


def test_an_interrupt_stops_it() -> None:
    x = np.zeros((200_000, 512), np.float32)  # seconds; pages of zeros that are only read cost none
    mean, middles, differences = np.empty(512), *np.full((2, 512, 512), np.nan)
    timer = threading.Timer(0.02, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        _core.pair_scatter(x, x, mean, middles, differences, num_threads=1)
    timer.join()
    assert np.isnan(middles).all()  # it had not come to the end


def read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"x": np.zeros(3)}, ValueError, r"x must be \(n, d\), got \(3,\)"),
        ({"x": np.zeros((0, 3))}, ValueError, r"x must not be empty, got \(0, 3\)"),
        ({"x": np.zeros((4, 3), int)}, TypeError, "x must be float32 or float64, got int64"),
        ({"x": np.zeros((3, 4)).T}, ValueError, "x must be C-contiguous and aligned"),
        ({"x_plus": np.zeros((5, 3))}, ValueError, r"x_plus must be \(4, 3\), got \(5, 3\)"),
        ({"x_plus": np.zeros((4, 3), np.float32)}, TypeError, "x_plus must be float64 .* float32"),
        ({"x_plus": None}, ValueError, "x_plus and differences must be given together"),
        ({"differences": None}, ValueError, "x_plus and differences must be given together"),
        ({"mean": np.zeros(4)}, ValueError, r"mean must be \(3,\), got \(4,\)"),
        ({"mean": np.zeros(3, np.float32)}, TypeError, "mean must be float64 .* float32"),
        ({"middles": np.zeros((2, 3))}, ValueError, r"middles must be \(3, 3\), got \(2, 3\)"),
        ({"differences": read_only(np.zeros((3, 3)))}, ValueError, "differences must be writeable"),
        ({"num_threads": -1}, ValueError, r"num_threads must be >= 0 .*, got -1"),
    ],
)
def test_arguments_are_checked(
    changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments = {
        "x": np.zeros((4, 3)),
        "x_plus": np.zeros((4, 3)),
        "mean": np.zeros(3),
        "middles": np.zeros((3, 3)),
        "differences": np.zeros((3, 3)),
    }
    with pytest.raises(error, match=message):
        _core.pair_scatter(**arguments | changed)
