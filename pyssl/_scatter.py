"""Running means and centred scatters: what streams of data leave behind (theory 1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import dsyrk

from pyssl import _checks, _core
from pyssl._threads import get_num_threads

__all__ = ["Scatter", "ViewScatter", "mirrored", "of_pairs", "of_samples"]

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[Any]

# Rows that a kernel takes at a time: an error in a long file is found before its end.
_CHUNK_ROWS = 8192


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

    def merge(self, other: Scatter) -> None:
        """Add what another has seen."""
        n, m = self.n, other.n
        if not m:
            return
        delta = other.mean - self.mean
        self.matrix = self.matrix + other.matrix
        if n:  # not by BLAS, whose threads would go on spinning beside those of the next chunk
            self.matrix += np.outer((n * m / (n + m)) * delta, delta)
        self.mean = self.mean + delta * (m / (n + m))
        self.n = n + m

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


def of_pairs(x: Floats, x_plus: Floats) -> tuple[Scatter, Array]:
    """Return the scatter of (x + x+)/2 and the sum (d, d) of (x - x+)(x - x+)'.

    Of views (n, d) of one dtype, C-contiguous, read once: whether they are finite, and small enough
    for their squares, shows in what is computed.
    """
    dim = x.shape[1]
    total, differences = Scatter(dim), np.zeros((dim, dim))
    for start in range(0, len(x), _CHUNK_ROWS):
        first, second = x[start : start + _CHUNK_ROWS], x_plus[start : start + _CHUNK_ROWS]
        chunk, difference = Scatter(dim), np.empty((dim, dim))
        chunk.n = len(first)
        _core.pair_scatter(first, second, chunk.mean, chunk.matrix.T, difference, get_num_threads())
        # |x - mean| <= |(x + x+)/2 - mean| + |x - x+|/2, and no term is larger than its sum
        spread = np.sqrt(np.diag(chunk.matrix)) + 0.5 * np.sqrt(np.diag(difference))
        if not (np.abs(chunk.mean) + spread <= _checks.SQUARABLE).all():
            for name, view in (("x", x), ("x_plus", x_plus)):
                _checks.finite(name, view)
                _checks.squarable(name, view)
        total.merge(chunk)
        differences += difference
    return total, differences


def of_samples(x: Floats) -> Scatter:
    """Return the mean and scatter of samples (n, d), finite and C-contiguous."""
    result = Scatter(x.shape[1])
    result.n = len(x)
    _core.pair_scatter(x, None, result.mean, result.matrix.T, None, get_num_threads())
    return result


def mirrored(lower: Array) -> Array:
    """Return the symmetric matrix whose lower triangle is given."""
    triangle = np.tril(lower)
    return np.ascontiguousarray(triangle + np.tril(triangle, -1).T)


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
        # the transposed C-ordered block is the Fortran-ordered operand that BLAS wants
        rows = views.reshape(-1, views.shape[-1]).T
        self.within = dsyrk(1.0, rows, beta=1.0, c=self.within, lower=1, overwrite_c=1)
        origin = first[0].copy()
        first -= origin
        first += middle
        middles = of_samples(first)
        middles.mean += origin
        self.between.merge(middles)

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
