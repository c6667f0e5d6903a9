"""Running means and centred scatters: what streams of data leave behind (theory 1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import dsyr, dsyrk

from pyssl import _checks

__all__ = ["PairBlocks", "Scatter", "ViewScatter", "add_product", "clean_scatter", "mirrored"]

Array = npt.NDArray[np.float64]

# Rows that BLAS multiplies at a time: enough for its full speed, few enough that the temporaries
# stay in the last-level cache at a few hundred dimensions. They are widened and subtracted in
# strips that stay in the caches before that.
_BLOCK_ROWS, _STRIP_ROWS = 2048, 128


class Scatter:
    """Mean and centred scatter of a stream of rows, merged by Chan's formula.

    Attributes
    ----------
    n : rows seen.
    mean : (d,).
    matrix : (d, d), sum of (row - mean)(row - mean)', lower triangle only.
    """

    def __init__(self, dim: int) -> None:
        self.n = 0
        self.mean = np.zeros(dim)
        self.matrix = np.zeros((dim, dim), order="F")

    def add(self, centred: Array, mean: Array, factor: float = 1.0) -> None:
        """Add rows (m, d), given less their mean (d,) and divided by a factor."""
        self.matrix = add_product(self.matrix, centred, factor**2)
        self._shift(len(centred), mean)

    def merge(self, other: Scatter) -> None:
        """Add what another has seen."""
        if other.n:
            self.matrix = self.matrix + other.matrix
            self._shift(other.n, other.mean)

    def without(self, other: Scatter) -> Scatter:
        """Return what is left when a part of the stream is taken out."""
        n, m = self.n, other.n
        result = Scatter(len(self.mean))
        result.n = n - m
        result.mean = (n * self.mean - m * other.mean) / (n - m)
        delta = other.mean - result.mean
        result.matrix = self.matrix - other.matrix - ((n - m) * m / n) * np.outer(delta, delta)
        return result

    def covariance(self) -> Array:
        """Return the scatter over n, (d, d)."""
        return mirrored(self.matrix) / self.n

    def _shift(self, m: int, mean: Array) -> None:
        """Account for the offset between our mean and that of `m` rows already in the matrix."""
        n = self.n
        delta = mean - self.mean
        if n:
            self.matrix = dsyr(n * m / (n + m), delta, lower=1, a=self.matrix, overwrite_a=1)
        self.mean = self.mean + delta * (m / (n + m))
        self.n = n + m


class PairBlocks:
    """Centred sums x + x+ and differences x - x+ of pairs of views, block by block.

    In memory that is reused: a block is overwritten by the next one.
    """

    def __init__(self, dim: int, rows: int) -> None:
        self._sum, self._difference = np.empty((2, min(_BLOCK_ROWS, rows), dim))
        self._strip = np.empty((min(_STRIP_ROWS, rows), dim))

    def of(
        self, x: npt.NDArray[Any], x_plus: npt.NDArray[Any]
    ) -> Iterator[tuple[Array, Array, Array]]:
        """Yield centred sums (m, d), the mean (d,) of a view, and differences (m, d)."""
        for start in range(0, len(x), _BLOCK_ROWS):
            stop = min(start + _BLOCK_ROWS, len(x))
            both, difference = self._sum[: stop - start], self._difference[: stop - start]
            # relative to a row of its own before anything is added: then equal rows have no scatter
            # at all, and a large mean costs the sums no digits
            origin = x[start].astype(np.float64)
            total = np.zeros(len(origin))
            with np.errstate(invalid="ignore"):  # of infinities, found below
                for low in range(start, stop, _STRIP_ROWS):
                    rows = slice(low, min(low + _STRIP_ROWS, stop))
                    here = slice(low - start, rows.stop - start)
                    first, second = both[here], self._strip[: rows.stop - low]
                    np.copyto(first, x[rows])  # widens faster than a subtraction of two dtypes
                    np.copyto(second, x_plus[rows])
                    np.subtract(first, second, out=difference[here])
                    first -= origin
                    second -= origin
                    first += second
                    total += np.ones(len(first)) @ first
            offset = total / len(both)
            if not np.isfinite(offset).all():
                _checks.finite("x", x)
                _checks.finite("x_plus", x_plus)
            both -= offset
            yield both, origin + 0.5 * offset, difference


def add_product(matrix: Array, rows: Array, weight: float = 1.0) -> Array:
    """Return `matrix`, Fortran-ordered and overwritten, plus weight rows' rows: lower triangle."""
    # the transposed C-ordered block is the Fortran-ordered operand that BLAS wants
    product: Array = dsyrk(weight, rows.T, beta=1.0, c=matrix, lower=1, overwrite_c=1)
    return product


def mirrored(lower: Array) -> Array:
    """Return the symmetric matrix whose lower triangle is given."""
    triangle = np.tril(lower)
    return np.ascontiguousarray(triangle + np.tril(triangle, -1).T)


def clean_scatter(x: npt.NDArray[Any]) -> Scatter:
    """Return the mean and scatter of samples (n, d), block by block."""
    result = Scatter(x.shape[1])
    for start in range(0, len(x), _BLOCK_ROWS):
        rows = x[start : start + _BLOCK_ROWS]
        origin = rows[0].astype(np.float64)
        centred = np.subtract(rows, origin, dtype=np.float64)
        offset = centred.mean(axis=0)
        centred -= offset
        result.add(centred, origin + offset)
    return result


class ViewScatter:
    """Scatter of several views of every sample: between samples and within them.

    Attributes
    ----------
    views : V, of every sample.
    between : Scatter of the mean of a sample's views.
    within : (d, d), sum of (view - that mean)(view - that mean)', lower triangle only.
    """

    def __init__(self, dim: int, views: int) -> None:
        self.views = views
        self.between = Scatter(dim)
        self.within = np.zeros((dim, dim), order="F")

    def add(self, views: Array) -> None:
        """Add the views (V, m, d) of m samples; overwritten."""
        first = views[0].copy()
        views -= first  # equal views have no scatter within
        middle = views.mean(axis=0)
        views -= middle
        self.within = add_product(self.within, views.reshape(-1, views.shape[-1]))
        origin = first[0].copy()
        first -= origin
        first += middle
        offset = first.mean(axis=0)
        first -= offset
        self.between.add(first, origin + offset)

    def merge(self, other: ViewScatter) -> None:
        """Add what another has seen."""
        self.between.merge(other.between)
        self.within = self.within + other.within

    def without(self, other: ViewScatter) -> ViewScatter:
        """Return what is left when some of the samples are taken out."""
        result = ViewScatter(len(self.within), self.views)
        result.between = self.between.without(other.between)
        result.within = self.within - other.within
        return result

    def moments(self) -> tuple[Array, Array, Array, Array]:
        """Return Sigma, A, C and the mean."""
        n, v = self.between.n, self.views
        c = mirrored(self.within) / (n * (v - 1))
        between = self.between.covariance()
        return between + (v - 1) / v * c, between - c / v, c, self.between.mean.copy()
