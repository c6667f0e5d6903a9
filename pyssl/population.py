"""Population landscapes that are exact functions of the moments and not spectral: Barlow Twins."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyssl import _plane
from pyssl._pencil import Array, descending, rank_tolerance, readonly
from pyssl._products import product, product_transposed
from pyssl.loss import Loss
from pyssl.moments import Moments
from pyssl.numerical import NumericalLandscape

if TYPE_CHECKING:
    from pyssl.redundancy_losses import BarlowTwins

__all__ = ["BarlowTwinsLandscape", "NormalizedBarlowTwinsLandscape", "PopulationLandscape"]

Floats = npt.NDArray[Any]


class PopulationLandscape(NumericalLandscape):
    """A landscape that is a function of the moments of the views and of W alone.

    A bias changes none of those in this module: its column is flat (theory 4).

    Parameters
    ----------
    loss : Loss
    moments : Moments
    embedding_dim : int
    weight_decay : float
    bias : bool

    Attributes
    ----------
    loss : Loss
    moments : Moments
    origin_spectrum : (d,) ndarray or None
        Eigenvalues, descending, of B without weight decay, where the Hessian at the origin is
        -2 I_k (x) (B - (g/2) I); None where the origin is no point of the landscape.
    critical_weight_decay : (d,) ndarray
        Descending: the j-th mode is lost from this weight decay on, as long as j <= k; nan where
        there is no closed form.
    """

    origin_spectrum: Array | None
    critical_weight_decay: Array

    def __init__(
        self, loss: Loss, moments: Moments, embedding_dim: int, weight_decay: float, bias: bool
    ) -> None:
        super().__init__((embedding_dim, moments.dim + int(bias)), weight_decay, bias)
        self.loss = loss
        self.moments = moments

    def _matrix(self, w: Floats) -> Floats:
        """Return W without the bias, contiguous."""
        return np.ascontiguousarray(w[..., : self.moments.dim])

    def _full(self, matrix: Floats) -> Floats:
        """Return a gradient by W, with the bias column: 0."""
        if not self.bias:
            return matrix
        return np.concatenate([matrix, np.zeros((len(matrix), 1))], axis=1)

    def _first_critical(self, spectrum: Array) -> Array:
        """Return critical decays of which the first is known; all, where no decay is needed."""
        return self._critical(spectrum, 1 if spectrum[0] > 0.0 else len(spectrum))

    def _critical(self, spectrum: Array, known: int) -> Array:
        """Return critical decays of which the first `known` follow from B's spectrum."""
        zero = rank_tolerance(len(spectrum), self.moments._eps, float(np.abs(spectrum).max()))
        critical = np.where(spectrum > zero, 2.0 * spectrum, 0.0)
        critical[known:] = np.nan
        critical[self.moments.rank :] = 0.0  # nothing is learned where nothing varies
        return readonly(critical)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.loss!r}, shape={self.shape},"
            f" weight_decay={self.weight_decay:g}, bias={self.bias})"
        )


class BarlowTwinsLandscape(PopulationLandscape):
    """Unnormalised Barlow Twins: sum_i (c_ii - 1)^2 + redundancy sum_{i != j} c_ij^2, c = W A W'.

    Made by `BarlowTwins.population` and `BarlowTwins.effective`, the same here: a polynomial of
    degree 4 in W. Answers to every method of `Landscape`. With redundancy 1 the landscape is a
    `SpectralLandscape` instead.

    Parameters
    ----------
    loss : BarlowTwins
    moments : Moments
    embedding_dim : int
    weight_decay : float
    bias : bool
        Whether W has a last column, on which nothing depends.

    Attributes
    ----------
    loss : BarlowTwins
    moments : Moments
    origin_spectrum : (d,) ndarray
        Eigenvalues of B = 2 A, descending: the redundancy is of fourth order.
    critical_weight_decay : (d,) ndarray
        4 a_j with a redundancy above 1 or k = 1. Below 1 that is known of the first mode only, the
        others are nan; 0 beyond the rank of Sigma.

    Notes
    -----
    Source: theory 3.4, 2.8. Everything collapses iff a_1 <= g/4: without the fourth order the loss
    is k - 2 Tr[W A W'] + (g/2)||W||^2. A redundancy above 1 adds nothing where c is diagonal, so
    its minima are those minima of redundancy 1 in which each unit has a mode of its own.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(2), np.diag([0.5, 0.1]))
    >>> loss = pyssl.BarlowTwins(redundancy=0.1, normalize=False)
    >>> land = loss.population(moments, embedding_dim=2, weight_decay=0.4)
    >>> land.critical_weight_decay
    array([ 2., nan])
    >>> round(float(land.value(np.eye(2))), 12)
    1.46
    """

    def __init__(
        self,
        loss: BarlowTwins,
        moments: Moments,
        embedding_dim: int,
        weight_decay: float,
        bias: bool,
    ) -> None:
        super().__init__(loss, moments, embedding_dim, weight_decay, bias)
        self._redundancy = loss.redundancy
        self.origin_spectrum = readonly(2.0 * descending(moments.cross_covariance))
        alone = loss.redundancy >= 1.0 or embedding_dim == 1
        known = moments.dim if alone else 1
        self.critical_weight_decay = self._critical(self.origin_spectrum, known)

    def _value(self, w: Floats) -> float:
        matrix = self._matrix(w)
        c = product_transposed(product(matrix, self.moments.cross_covariance), matrix)
        return float(_deviation(c, self._redundancy))

    def _value_and_gradient(self, w: Floats) -> tuple[float, Floats]:
        matrix = self._matrix(w)
        y = product(matrix, self.moments.cross_covariance)
        c = product_transposed(y, matrix)
        slope = product(_slope(c, self._redundancy, 1.0), y)
        slope *= 2.0
        return float(_deviation(c, self._redundancy)), self._full(slope)

    def _linearised(self, w: Floats) -> Callable[[Floats], Floats]:
        matrix, a = self._matrix(w), self.moments.cross_covariance
        y = product(matrix, a)
        slope = 2.0 * _slope(product_transposed(y, matrix), self._redundancy, 1.0)

        def hvp(along: Floats) -> Floats:
            direction = self._matrix(along)
            cross = product_transposed(y, direction)
            change = _slope(cross + cross.T, self._redundancy, 0.0)
            out = product(slope, product(direction, a))
            out += product(2.0 * change, y)
            return self._full(out)

        return hvp

    def _grid(self, W0: Floats, D1: Floats, D2: Floats, u: Floats, v: Floats) -> Floats:
        stack = np.stack([self._matrix(each) for each in (W0, D1, D2)])
        c = _plane.gram(product(stack, self.moments.cross_covariance), stack)
        second = 0.5 * self.weight_decay * _plane.trace(stack, stack)
        second -= 2.0 * np.trace(c, axis1=1, axis2=2)
        second[0] += len(W0)
        weighted = c * self._redundancy
        np.einsum("pii->pi", weighted)[...] = np.einsum("pii->pi", c)
        return _plane.polynomial(second, np.einsum("pij,qij->pq", weighted, c), u, v)


class NormalizedBarlowTwinsLandscape(PopulationLandscape):
    """Barlow Twins: sum_i (c_ii - 1)^2 + redundancy sum_{i != j} c_ij^2 of the cross-correlation.

    c_ij = w_i'A w_j/sqrt(w_i'Sigma w_i w_j'Sigma w_j). Made by `BarlowTwins.population`; answers to
    every method of `Landscape`. The length and the sign of a row of W do not matter, but a row
    without variance is singular: there everything raises `ValueError`.

    Parameters
    ----------
    loss : BarlowTwins
        Its epsilon guards a batch against dividing by zero. It is left out: with it no unit is
        scale-free, and the loss of a batch whose units have variance s differs by about epsilon/s.
    moments : Moments
    embedding_dim : int
    weight_decay : float
        With g > 0 there is no minimiser: shrinking W costs nothing.
    bias : bool
        Whether W has a last column, on which nothing depends.

    Attributes
    ----------
    loss : BarlowTwins
    moments : Moments
    scale_free : bool
        True.
    origin_spectrum : None
        The origin is no point of it.
    critical_weight_decay : (d,) ndarray
        inf: no decay makes everything collapse; 0 beyond the rank of Sigma.

    Notes
    -----
    Source: theory 3.4, 2.8. A row counts as without variance where w'Sigma w is at most
    d eps times ||Sigma|| |w|^2. With k <= rank Sigma the canonical modes, one a unit, are
    stationary with the value sum (1 - rho_i)^2, but in general not the minimum.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(2), np.diag([0.5, 0.1]))
    >>> land = pyssl.BarlowTwins().population(moments, embedding_dim=2)
    >>> round(float(land.value(np.eye(2))), 12)  # 0.5^2 + 0.9^2
    1.06
    >>> round(float(land.value([[1.0, 0.0], [-3.0, 0.0]])), 12)  # a duplicate is better
    0.5025
    """

    scale_free = True
    origin_spectrum = None

    def __init__(
        self,
        loss: BarlowTwins,
        moments: Moments,
        embedding_dim: int,
        weight_decay: float,
        bias: bool,
    ) -> None:
        super().__init__(loss, moments, embedding_dim, weight_decay, bias)
        self._redundancy = loss.redundancy
        largest = max(float(moments._metric.spectrum[0]), 0.0)
        self._rounding = rank_tolerance(moments.dim, moments._eps, largest)
        varies = np.arange(moments.dim) < moments.rank
        self.critical_weight_decay = readonly(np.where(varies, np.inf, 0.0))

    def _value(self, w: Floats) -> float:
        u, _, _ = self._units(self._matrix(w))
        c = product_transposed(product(u, self.moments.cross_covariance), u)
        return float(_deviation(c, self._redundancy))

    def _value_and_gradient(self, w: Floats) -> tuple[float, Floats]:
        u, z, deviation = self._units(self._matrix(w))
        y = product(u, self.moments.cross_covariance)
        c = product_transposed(y, u)
        slope = _slope(c, self._redundancy, 1.0)
        out = product(slope, y)
        z *= np.sum(slope * c, axis=1)[:, None]  # a unit's own variance pulls on it alone
        out -= z
        out *= (2.0 / deviation)[:, None]
        return float(_deviation(c, self._redundancy)), self._full(out)

    def _linearised(self, w: Floats) -> Callable[[Floats], Floats]:
        a, sigma = self.moments.cross_covariance, self.moments.covariance
        u, z, deviation = self._units(self._matrix(w))
        y = product(u, a)
        c = product_transposed(y, u)
        slope = _slope(c, self._redundancy, 1.0)
        pull = np.sum(slope * c, axis=1)[:, None]
        gradient = product(slope, y) - pull * z  # by u, less the factor 2 and the deviation

        def hvp(along: Floats) -> Floats:
            v = self._matrix(along) / deviation[:, None]
            t = np.sum(z * v, axis=1)[:, None]  # the relative change of each deviation
            v -= t * u  # what is left of it changes the unit
            dy, dz = product(v, a), product(v, sigma)
            cross = product_transposed(y, v)
            dc = cross + cross.T
            change = _slope(dc, self._redundancy, 0.0)
            out = product(slope, dy)
            out += product(change, y)
            out -= pull * dz
            out -= np.sum(change * c + slope * dc, axis=1)[:, None] * z
            out -= t * gradient
            out *= (2.0 / deviation)[:, None]
            return self._full(out)

        return hvp

    def _grid(self, W0: Floats, D1: Floats, D2: Floats, u: Floats, v: Floats) -> Floats:
        stack = np.stack([self._matrix(each) for each in (W0, D1, D2)])
        decay = 0.5 * self.weight_decay * _plane.trace(stack, stack)
        surface = _plane.polynomial(decay, None, u, v)
        numerators = _plane.gram(product(stack, self.moments.cross_covariance), stack)
        scaled = product(stack, self.moments.covariance)
        variances = _plane.quadratic(np.einsum("aij,bij->abi", scaled, stack))
        # of a difference, and so relative to the lengths of what it is the difference of
        rounding = 64.0 * self._rounding
        length, along, across = np.linalg.norm(stack, axis=2)
        for index, coordinate in enumerate(u):
            on_line = _plane.monomials(coordinate, v)
            variance = on_line @ variances
            size = length + abs(coordinate) * along + np.abs(v)[:, None] * across
            where = f"W0 + u D1 + v D2 at u = {coordinate:g}"
            _need_variance(where, variance, rounding * size * size)
            deviation = np.sqrt(variance)
            c = np.tensordot(on_line, numerators, axes=1)
            c /= deviation[:, :, None] * deviation[:, None, :]
            surface[index] += _deviation(c, self._redundancy)
        return surface

    def _units(self, matrix: Floats) -> tuple[Floats, Floats, Floats]:
        """Return U and U Sigma (k, d), the rows of W standardised, and their deviations (k,)."""
        # a power of two takes the rows to length one: their squares neither overflow nor vanish
        exponent = np.frexp(np.abs(matrix).max(axis=1))[1]
        u = np.ldexp(matrix, -exponent[:, None])
        z = product(u, self.moments.covariance)
        variance = np.sum(z * u, axis=1)
        _need_variance("W", variance, self._rounding * np.sum(u * u, axis=1))
        deviation = np.sqrt(variance)
        u /= deviation[:, None]
        z /= deviation[:, None]
        return u, z, np.ldexp(deviation, exponent)


def _need_variance(name: str, variance: Floats, rounding: Floats) -> None:
    """Raise ValueError for the first row whose variance (..., k) is within rounding of 0."""
    bad = np.argwhere(variance <= rounding)
    if len(bad):
        seen, row = variance[tuple(bad[0])], int(bad[0][-1])
        raise ValueError(
            f"{name} must have variance in every row, got w'Sigma w = {seen:.3g} in row {row}:"
            " normalised Barlow Twins is singular there"
        )


def _deviation(c: Floats, redundancy: float) -> Floats:
    """Return sum_i (c_ii - 1)^2 + redundancy sum_{i != j} c_ij^2 for c (..., k, k)."""
    off = c.copy()
    diagonal = np.einsum("...ii->...i", off)
    on = np.sum(np.square(diagonal - 1.0), axis=-1)
    diagonal[...] = 0.0
    return np.asarray(on + redundancy * np.einsum("...ij,...ij->...", off, off))


def _slope(c: Floats, redundancy: float, target: float) -> Floats:
    """Return the derivative by c (k, k) (target 1), or its change with c (target 0)."""
    slope = (2.0 * redundancy) * c
    np.fill_diagonal(slope, 2.0 * (np.diagonal(c) - target))
    return np.asarray(slope)
