"""Spectral contrastive, Barlow Twins and VICReg on embeddings: what surrounds the Gram kernels.

Every loss is a function of few k x k matrices of sums over rows, and its gradient is a product of
the embeddings with such a matrix: O(n k^2), and nothing of size n x n unless n <= k (theory 3.3 to
3.5). What is k or k x k here is float64; what is n x k has the type of the embeddings.

The classes take validated arrays: z and z_plus (n, k), finite, C-contiguous and of one dtype, with
n >= 2 where the loss has negatives or an unbiased variance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _core
from pyssl._threads import get_num_threads

Floats = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]
Pair = tuple[Floats, Floats]

_ROWS = 8192  # rows at a time in what is done between the kernels: temporaries stay small


# ---- embeddings as the kernels see them ---------------------------------------------------------


def _power_of_two(size: Doubles, most: int) -> Doubles:
    """Return powers of two near positive numbers, 1 for zeros; exponents up to `most`."""
    exponent = np.frexp(size)[1].clip(-most, most)
    return np.asarray(np.where(size > 0.0, np.ldexp(1.0, exponent), 1.0))


def _exponents(dtype: np.dtype[Any]) -> int:
    """Return how far exponents may go in a type."""
    return 126 if dtype == np.float32 else 1022


@dataclass(frozen=True)
class _Side:
    """Embeddings (n, k), or anything of that kind, with their centre and size by column.

    Kernels read (data - shift)/size: `shift` is the centre in the type of the data, the rest of it
    is put right in double; `size` is a power of two, so that products of tiny or huge embeddings
    stay inside the type and nothing else changes.
    """

    data: Floats
    center: Doubles
    size: Doubles

    @classmethod
    def of(cls, data: Floats, center: Doubles, spread: Doubles) -> _Side:
        """Return a side from its centre and its spread by column (any rough measure of it)."""
        return cls(data, center, _power_of_two(spread, _exponents(data.dtype)))

    @cached_property
    def columns(self) -> Floats:
        return np.stack([self.center, 1.0 / self.size]).astype(self.data.dtype)

    @property
    def rest(self) -> Doubles:
        """What rounding takes from the centre."""
        return np.asarray(self.center - self.columns[0])


def _plain(data: Floats, spread: float) -> _Side:
    """Return a side that is not centred."""
    k = data.shape[1]
    return _Side.of(data, np.zeros(k), np.full(k, spread))


def _gram(a: _Side, b: _Side | None = None) -> Doubles:
    """Return (a - center)'(b - center) (p, q), the centres those of all rows; a'a without b."""
    other = a if b is None else b
    out = np.empty((a.data.shape[1], other.data.shape[1]))
    _core.gram(
        a.data,
        a.columns,
        None if b is None else b.data,
        None if b is None else b.columns,
        out,
        num_threads=get_num_threads(),
    )
    if a.rest.any() and other.rest.any():
        out -= len(a.data) * np.outer(a.rest, other.rest)
    return out


def _mix(
    left: _Side,
    matrix: Doubles,
    *,
    plus: _Side | None = None,
    minus: Floats | None = None,
    rows: Doubles | None = None,
    weight: Doubles | float = 0.0,
    center: Doubles | None = None,
    out: Floats | None = None,
) -> Floats:
    """Return (left - center) matrix + rows weight (plus - its center), or add it to `out`.

    With `minus`, the last factor is plus - minus, not centred.
    """
    dtype = left.data.dtype
    most = _exponents(dtype)
    q = matrix.shape[1]
    origin = left.center if center is None else center
    constant = np.einsum("l,lj->j", left.columns[0] - origin, matrix)
    weight = np.broadcast_to(np.asarray(weight, dtype=np.float64), q)
    shift = np.zeros(q)
    inside = matrix * left.size[:, None]
    top = np.maximum(np.maximum(inside.max(axis=0), -inside.min(axis=0)), np.abs(constant))
    if plus is not None:
        if rows is not None:
            highest = float(np.abs(rows).max())
            rows, weight = rows / (highest or 1.0), weight * highest
        if minus is None:
            shift = plus.columns[0].astype(np.float64)
            if rows is None:
                constant = constant - weight * plus.rest
        top = np.maximum(top, np.abs(weight) * plus.size)
    # sums near one, and their magnitude in two factors of which neither leaves the type
    factor = _power_of_two(top, 2 * most - 8)
    first = np.ldexp(1.0, np.frexp(factor)[1] // 2)
    columns = np.stack([shift, weight / factor, constant / factor, first, factor / first])
    result = np.empty((len(left.data), q), dtype) if out is None else out
    _core.mix(
        left.data,
        left.columns,
        np.ascontiguousarray(inside / factor, dtype=dtype),
        columns.astype(dtype),
        result,
        plus=None if plus is None else plus.data,
        minus=minus,
        rows=None if rows is None or plus is None else rows.astype(dtype),
        add=out is not None,
        num_threads=get_num_threads(),
    )
    return result


@dataclass(frozen=True)
class _Columns:
    """Means, centred sums of squares and products, and sums of (a - b)^2, by column (k,)."""

    a: _Side
    b: _Side
    aa: Doubles
    bb: Doubles
    ab: Doubles
    difference: Doubles

    @classmethod
    def of(cls, a: Floats, b: Floats) -> _Columns:
        out = np.empty((6, a.shape[1]))
        _core.column_moments(a, b, out, num_threads=get_num_threads())
        sides = [
            _Side.of(data, mean, np.sqrt(square / len(a)))
            for data, mean, square in zip((a, b), out[:2], out[2:4], strict=True)
        ]
        return cls(sides[0], sides[1], *out[2:])


def _row_moments(a: Floats, b: Floats) -> tuple[Doubles, Doubles, Doubles]:
    """Return |a_i|^2, a_i.b_i and |b_i|^2 (n,)."""
    out = np.empty((3, len(a)))
    _core.row_moments(a, b, out, num_threads=get_num_threads())
    return out[0], out[1], out[2]


def _spread(squares: Doubles, k: int) -> float:
    """Return the root mean square of entries from the squared lengths of rows."""
    return math.sqrt(float(squares.sum()) / (len(squares) * k))


def _off_diagonal(a: Doubles, diagonal: Doubles | float = 0.0) -> Doubles:
    """Return a with another diagonal; overwrites a."""
    np.fill_diagonal(a, diagonal)
    return a


def _divide(by: float, *arrays: Floats) -> None:
    """Divide arrays in place."""
    for a in arrays:
        np.divide(a, a.dtype.type(by), out=a)


def _total_square(a: Doubles) -> float:
    return float(np.sum(a * a))


# ---- spectral contrastive -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Clip:
    """Rows of z with |z| >= length shortened to it, and derivatives between both."""

    z: Floats
    length: float
    squares: Doubles

    @cached_property
    def _norms(self) -> tuple[Doubles, Doubles]:
        """Return 1/|z| and the factor of each row."""
        norm = np.sqrt(self.squares)
        beyond = norm >= self.length
        inverse = 1.0 / np.where(beyond, norm, 1.0)
        return np.where(beyond, inverse, 0.0), np.where(beyond, self.length * inverse, 1.0)

    def rows(self) -> Floats:
        """Return the shortened rows."""
        return self._by_rows(lambda z, inverse, factor: z * factor)

    def _by_rows(self, body: Callable[..., Doubles], *arrays: Floats) -> Floats:
        inverse, factor = self._norms
        out = np.empty_like(self.z)
        for start in range(0, len(out), _ROWS):
            rows = slice(start, start + _ROWS)
            parts = (a[rows].astype(np.float64) for a in (self.z, *arrays))
            z, *others = parts
            out[rows] = body(z, inverse[rows, None], factor[rows, None], *others)
        return out

    def pull(self, a: Floats) -> Floats:
        """Return the derivative applied to a: factor (a - u u.a), u = z/|z|; a where not clipped.

        At |z| = length the derivative is that of the clipped branch.
        """

        def body(z: Doubles, inverse: Doubles, factor: Doubles, a: Doubles) -> Doubles:
            u = z * inverse
            return np.asarray(factor * (a - u * np.sum(u * a, axis=1, keepdims=True)))

        return self._by_rows(body, a)

    def pull_tangent(self, gradient: Floats, change: Floats, dz: Floats) -> Floats:
        """Return the derivative of pull(gradient) along dz, `change` that of the gradient."""

        def body(
            z: Doubles, inverse: Doubles, factor: Doubles, g: Doubles, h: Doubles, dz: Doubles
        ) -> Doubles:
            def along(x: Doubles, y: Doubles) -> Doubles:
                return np.asarray(np.sum(x * y, axis=1, keepdims=True))

            u = z * inverse
            radial = along(u, dz)
            du = (dz - u * radial) * inverse
            pulled = g - u * along(u, g)
            turned = du * along(u, g) + u * along(du, g)
            return factor * (h - u * along(u, h) - pulled * radial * inverse - turned)

        return self._by_rows(body, gradient, change, dz)


@dataclass(frozen=True)
class SpectralContrastive:
    """-(2/n) sum z_i.z+_i + mean of (z_i.z+_j)^2 over i != j, or over all pairs (theory 3.3).

    With `clip` = mu the rows are first shortened to sqrt(mu), and the loss is divided by mu.
    """

    z: Floats
    z_plus: Floats
    clip: float | None = None
    negatives: str = "offdiagonal"

    @cached_property
    def _clips(self) -> tuple[_Clip, _Clip] | None:
        if self.clip is None:
            return None
        first, _, second = _row_moments(self.z, self.z_plus)
        length = math.sqrt(self.clip)
        return _Clip(self.z, length, first), _Clip(self.z_plus, length, second)

    @cached_property
    def _inner(self) -> _Negatives:
        z, z_plus = self.z, self.z_plus
        if self._clips is not None:
            z, z_plus = (clip.rows() for clip in self._clips)
        return _Negatives.of(z, z_plus, self.negatives == "all")

    def _scaled(self, gradients: Pair) -> Pair:
        """Return gradients by clipped rows, divided by mu, as gradients by the rows."""
        if self.clip is None or self._clips is None:
            return gradients
        _divide(self.clip, *gradients)
        first, second = self._clips
        return first.pull(gradients[0]), second.pull(gradients[1])

    def terms(self) -> dict[str, float]:
        """Return the means of z_i.z+_i and of the negatives' (z_i.z+_j)^2, of clipped rows.

        The loss is negatives - 2 alignment, divided by mu where rows are clipped.
        """
        inner = self._inner
        return {
            "alignment": float(inner.positives.mean()),
            "negatives": inner.weight * inner.sum_of_squares(),
        }

    def value(self) -> float:
        """Return the loss."""
        terms = self.terms()
        loss = terms["negatives"] - 2.0 * terms["alignment"]
        return loss if self.clip is None else loss / self.clip

    def value_and_gradient(self) -> tuple[float, Pair]:
        """Return the loss and its gradients by z and z_plus."""
        return self.value(), self._scaled(self._inner.gradient())

    def hvp(self, dz: Floats, dz_plus: Floats) -> Pair:
        """Return the Hessian applied to a direction, by z and z_plus.

        Where |z| = sqrt(mu), second derivatives are those of the clipped branch.
        """
        if self.clip is None or self._clips is None:
            return self._inner.hvp(dz, dz_plus)
        first, second = self._clips
        changes = self._inner.hvp(first.pull(dz), second.pull(dz_plus))
        gradients = self._inner.gradient()
        _divide(self.clip, *changes, *gradients)
        return (
            first.pull_tangent(gradients[0], changes[0], dz),
            second.pull_tangent(gradients[1], changes[1], dz_plus),
        )


def spectral_contrastive(
    z: Floats, z_plus: Floats, clip: float | None, negatives: str
) -> SpectralContrastive | _Widened:
    """Return the loss; in float64 where float32 would not do.

    A few rows much longer than the others make the products of pairs that are left out nearly the
    whole of the sum that they are subtracted from.
    """
    sample = SpectralContrastive(z, z_plus, clip, negatives)
    inner = sample._inner
    if z.dtype == np.float64 or not isinstance(inner, _Large) or not inner.cancels:
        return sample
    wide, wide_plus = z.astype(np.float64), z_plus.astype(np.float64)
    return _Widened(SpectralContrastive(wide, wide_plus, clip, negatives), z.dtype)


@dataclass(frozen=True)
class _Widened:
    """A loss evaluated in float64, with results in the type of the embeddings."""

    inner: SpectralContrastive
    dtype: np.dtype[Any]

    def _narrow(self, pair: Pair) -> Pair:
        return pair[0].astype(self.dtype), pair[1].astype(self.dtype)

    def terms(self) -> dict[str, float]:
        return self.inner.terms()

    def value(self) -> float:
        return self.inner.value()

    def value_and_gradient(self) -> tuple[float, Pair]:
        value, gradients = self.inner.value_and_gradient()
        return value, self._narrow(gradients)

    def hvp(self, dz: Floats, dz_plus: Floats) -> Pair:
        return self._narrow(self.inner.hvp(dz.astype(np.float64), dz_plus.astype(np.float64)))


@dataclass(frozen=True)
class _Negatives:
    """The loss of rows that are clipped already."""

    z: _Side
    z_plus: _Side
    positives: Doubles
    all: bool

    @staticmethod
    def of(z: Floats, z_plus: Floats, every: bool) -> _Negatives:
        n, k = z.shape
        squares, positives, squares_plus = _row_moments(z, z_plus)
        sides = _plain(z, _spread(squares, k)), _plain(z_plus, _spread(squares_plus, k))
        # With n <= k the n x n matrix is the smaller one, and the sum over i != j, which then may
        # be small beside that over i = j, needs no subtraction.
        kind = _Small if n <= k else _Large
        return kind(*sides, positives, every)

    @property
    def weight(self) -> float:
        """Return one over the number of negatives."""
        n = len(self.positives)
        return 1.0 / (n * n) if self.all else 1.0 / (n * (n - 1))

    def sum_of_squares(self) -> float:
        """Return the sum of (z_i.z+_j)^2 over the negatives."""
        raise NotImplementedError

    def gradient(self) -> Pair:
        """Return the gradients by z and z_plus."""
        raise NotImplementedError

    def hvp(self, dz: Floats, dz_plus: Floats) -> Pair:
        """Return the Hessian applied to a direction."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Large(_Negatives):
    """Sums over pairs from Gram matrices."""

    @cached_property
    def grams(self) -> tuple[Doubles, Doubles]:
        return _gram(self.z), _gram(self.z_plus)

    def sum_of_squares(self) -> float:
        total = float(np.sum(self.grams[0] * self.grams[1]))
        return total if self.all else max(0.0, total - float(np.sum(self.positives**2)))

    @property
    def cancels(self) -> bool:
        """Whether the positives, subtracted, take most of the digits of the sum with them."""
        return not self.all and self.sum_of_squares() < 0.2 * float(np.sum(self.positives**2))

    def _pull(self) -> Doubles:
        """Return what each positive's own product pulls on, the derivative by z_i.z+_i."""
        n = len(self.positives)
        own = 0.0 if self.all else 2.0 * self.weight
        return np.asarray(-2.0 / n - own * self.positives)

    def gradient(self) -> Pair:
        first, second = self.grams
        c, rows = 2.0 * self.weight, self._pull()
        return (
            _mix(self.z, c * second, plus=self.z_plus, rows=rows, weight=1.0),
            _mix(self.z_plus, c * first, plus=self.z, rows=rows, weight=1.0),
        )

    def hvp(self, dz: Floats, dz_plus: Floats) -> Pair:
        k = dz.shape[1]
        first, second = self.grams
        squares, along, _ = _row_moments(dz, self.z_plus.data)
        squares_plus, along_plus, _ = _row_moments(dz_plus, self.z.data)
        d, d_plus = _plain(dz, _spread(squares, k)), _plain(dz_plus, _spread(squares_plus, k))
        cross, cross_plus = _gram(self.z, d), _gram(self.z_plus, d_plus)
        c, rows = 2.0 * self.weight, self._pull()
        change = np.zeros_like(along) if self.all else -c * (along + along_plus)
        h = _mix(d, c * second, plus=d_plus, rows=rows, weight=1.0)
        h_plus = _mix(d_plus, c * first, plus=d, rows=rows, weight=1.0)
        moved, moved_plus = c * (cross + cross.T), c * (cross_plus + cross_plus.T)
        _mix(self.z, moved_plus, plus=self.z_plus, rows=change, weight=1.0, out=h)
        _mix(self.z_plus, moved, plus=self.z, rows=change, weight=1.0, out=h_plus)
        return h, h_plus


@dataclass(frozen=True)
class _Small(_Negatives):
    """Sums over pairs from the matrix of all products z_i.z+_j."""

    @cached_property
    def _unit(self) -> tuple[Floats, Floats]:
        """Return the embeddings divided by their sizes, so that products stay inside the type."""
        return tuple(  # type: ignore[return-value]
            (side.data * (1.0 / side.size)).astype(side.data.dtype)
            for side in (self.z, self.z_plus)
        )

    @property
    def _size(self) -> float:
        return float(self.z.size[0]) * float(self.z_plus.size[0])

    def _products(self, *pairs: tuple[Floats, Floats]) -> _Side:
        """Return the sum of a b' over pairs; 0 for positives that are no negatives."""
        out: Floats | None = None
        for a, b in pairs:
            out = _mix(_plain(a, 1.0), b.T.astype(np.float64), out=out)
        assert out is not None
        if not self.all:
            np.fill_diagonal(out, 0.0)
        return _plain(out, float(np.sqrt(np.mean(np.square(out, dtype=np.float64)))))

    @cached_property
    def _matrix(self) -> _Side:
        return self._products(self._unit)

    def sum_of_squares(self) -> float:
        return float(np.sum(np.square(self._matrix.data, dtype=np.float64))) * self._size**2

    @staticmethod
    def _transposed(side: _Side) -> _Side:
        return _plain(np.ascontiguousarray(side.data.T), float(side.size[0]))

    def gradient(self) -> Pair:
        s, c, pull = self._matrix, 2.0 * self.weight * self._size, -2.0 / len(self.positives)
        return (
            _mix(s, c * self.z_plus.data.astype(np.float64), plus=self.z_plus, weight=pull),
            _mix(self._transposed(s), c * self.z.data.astype(np.float64), plus=self.z, weight=pull),
        )

    def hvp(self, dz: Floats, dz_plus: Floats) -> Pair:
        k = dz.shape[1]
        squares, _, squares_plus = _row_moments(dz, dz_plus)
        d, d_plus = _plain(dz, _spread(squares, k)), _plain(dz_plus, _spread(squares_plus, k))
        unit, unit_plus = self._unit
        # a direction by the size of its own view: products of both sums have one size
        move = (dz / self.z.size).astype(dz.dtype)
        move_plus = (dz_plus / self.z_plus.size).astype(dz.dtype)
        s, change = self._matrix, self._products((move, unit_plus), (unit, move_plus))
        c, pull = 2.0 * self.weight * self._size, -2.0 / len(self.positives)
        h = _mix(s, c * dz_plus.astype(np.float64), plus=d_plus, weight=pull)
        h_plus = _mix(self._transposed(s), c * dz.astype(np.float64), plus=d, weight=pull)
        _mix(change, c * self.z_plus.data.astype(np.float64), out=h)
        _mix(self._transposed(change), c * self.z.data.astype(np.float64), out=h_plus)
        return h, h_plus


# ---- Barlow Twins -------------------------------------------------------------------------------


@dataclass(frozen=True)
class BarlowTwins:
    """sum_i (c_ii - 1)^2 + redundancy sum_{i != j} c_ij^2 of the cross-correlation c (theory 3.4).

    Each view is standardised with the biased variance, `epsilon` inside the root; without
    `normalize` it is only centred.
    """

    z: Floats
    z_plus: Floats
    redundancy: float = 5e-3
    normalize: bool = True
    epsilon: float = 1e-5

    @cached_property
    def _columns(self) -> _Columns:
        return _Columns.of(self.z, self.z_plus)

    @cached_property
    def _deviations(self) -> tuple[Doubles, Doubles]:
        """Return what the columns of both views are divided by."""
        n, columns = len(self.z), self._columns
        if not self.normalize:
            one = np.ones(self.z.shape[1])
            return one, one
        return np.sqrt(columns.aa / n + self.epsilon), np.sqrt(columns.bb / n + self.epsilon)

    @cached_property
    def _correlation(self) -> Doubles:
        n, (s, s_plus), columns = len(self.z), self._deviations, self._columns
        c = _gram(columns.a, columns.b) / n
        # the diagonal comes near 1 in training: c - 1 needs the digits of the sums in double
        return _off_diagonal(c, columns.ab / n) / np.outer(s, s_plus)

    def terms(self) -> dict[str, float]:
        """Return sum_i (c_ii - 1)^2 and sum_{i != j} c_ij^2.

        The loss is on_diagonal + redundancy off_diagonal.
        """
        c = self._correlation
        return {
            "on_diagonal": _total_square(np.diagonal(c) - 1.0),
            "off_diagonal": _total_square(_off_diagonal(c.copy())),
        }

    def value(self) -> float:
        """Return the loss."""
        terms = self.terms()
        return terms["on_diagonal"] + self.redundancy * terms["off_diagonal"]

    def _weights(self, c: Doubles, target: float) -> Doubles:
        """Return the derivative by c (target 1), or its change with c (target 0)."""
        return _off_diagonal(2.0 * self.redundancy * c, 2.0 * (np.diagonal(c) - target))

    def value_and_gradient(self) -> tuple[float, Pair]:
        """Return the loss and its gradients by z and z_plus."""
        n, columns, c = len(self.z), self._columns, self._correlation
        s, s_plus = self._deviations
        weights = self._weights(c, 1.0)
        product = weights / np.outer(n * s, s_plus)
        if self.normalize:
            # a column of a standardised view has no component along itself
            along = -np.sum(weights * c, axis=1) / (n * s * s)
            along_plus = -np.sum(weights * c, axis=0) / (n * s_plus * s_plus)
        else:
            along = along_plus = np.zeros(len(s))
        gradients = (
            _mix(columns.b, product.T, plus=columns.a, weight=along),
            _mix(columns.a, product, plus=columns.b, weight=along_plus),
        )
        return self.value(), gradients

    def hvp(self, dz: Floats, dz_plus: Floats) -> Pair:
        """Return the Hessian applied to a direction, by z and z_plus."""
        n, columns, c = len(self.z), self._columns, self._correlation
        move, move_plus = _Columns.of(self.z, dz), _Columns.of(self.z_plus, dz_plus)
        d, d_plus = move.b, move_plus.b
        s, s_plus = self._deviations
        weights = self._weights(c, 1.0)
        # of standardised views: t is the relative change of each deviation, the others the mean
        # products of one view with the change of the other
        t, t_plus = move.ab / (n * s), move_plus.ab / (n * s_plus)
        if not self.normalize:
            t, t_plus = np.zeros_like(t), np.zeros_like(t)
        cross = _gram(columns.a, d_plus) / np.outer(n * s, s_plus) - c * (t_plus / s_plus)
        back = _gram(d, columns.b) / np.outer(n * s, s_plus) - c * (t / s)[:, None]
        change = self._weights(cross + back, 0.0)
        first = _BarlowSide(n, weights, change, c, cross, back, s, s_plus, t, t_plus)
        second = _BarlowSide(n, weights.T, change.T, c.T, back.T, cross.T, s_plus, s, t_plus, t)
        return (
            first.hvp(columns.a, columns.b, d, d_plus, self.normalize),
            second.hvp(columns.b, columns.a, d_plus, d, self.normalize),
        )


@dataclass(frozen=True)
class _BarlowSide:
    """What the Hessian of one view needs: (k, k), or (k,) from `s` on."""

    n: int
    weights: Doubles
    change: Doubles
    correlation: Doubles
    cross: Doubles  # mean of this view with the change of the other, standardised
    back: Doubles  # mean of the change of this view with the other
    s: Doubles
    s_other: Doubles
    t: Doubles
    t_other: Doubles

    def hvp(self, z: _Side, other: _Side, d: _Side, d_other: _Side, normalize: bool) -> Floats:
        n, s, w = self.n, self.s, self.weights
        product = w.T / np.outer(self.s_other, n * s)
        moved = (
            self.change.T / np.outer(self.s_other, n * s)
            - product * (self.t_other / self.s_other)[:, None]
            - product * (self.t / s)
        )
        if not normalize:
            return _mix(other, moved, out=_mix(d_other, product))
        # the gradient by standardised rows along them, and how that changes
        b = np.sum(w * self.correlation, axis=1) / n
        slope = np.sum(w * (self.cross + self.back) + self.change * self.correlation, axis=1) / n
        out = _mix(d_other, product, plus=d, weight=-b / s**2)
        along = (2.0 * self.t * b / s - slope) / s**2
        return _mix(other, moved, plus=z, weight=along, out=out)


# ---- VICReg -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VICReg:
    """invariance, variance and covariance terms with their weights (theory 3.5).

    The hinge relu(1 - sqrt(var + epsilon)) counts as inactive where it is 0, derivatives too.
    """

    z: Floats
    z_plus: Floats
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    epsilon: float = 1e-4
    halve_variance: bool = True

    @cached_property
    def _columns(self) -> _Columns:
        return _Columns.of(self.z, self.z_plus)

    @cached_property
    def _covariances(self) -> tuple[Doubles, Doubles]:
        """Return the off-diagonal parts of both views' covariances."""
        n, columns = len(self.z), self._columns
        first, second = (_off_diagonal(_gram(side)) for side in (columns.a, columns.b))
        return first / (n - 1), second / (n - 1)

    @cached_property
    def _deviations(self) -> tuple[Doubles, Doubles]:
        n, columns = len(self.z), self._columns
        first, second = (np.sqrt(a / (n - 1) + self.epsilon) for a in (columns.aa, columns.bb))
        return first, second

    @property
    def _share(self) -> float:
        return 0.5 if self.halve_variance else 1.0

    def terms(self) -> dict[str, float]:
        """Return the three terms without their weights."""
        n, k = self.z.shape
        hinges = sum(float(np.maximum(1.0 - s, 0.0).mean()) for s in self._deviations)
        return {
            "invariance": float(self._columns.difference.sum()) / (n * k),
            "variance": self._share * hinges,
            "covariance": sum(_total_square(c) for c in self._covariances) / k,
        }

    def value(self) -> float:
        """Return the loss."""
        terms = self.terms()
        return (
            self.invariance * terms["invariance"]
            + self.variance * terms["variance"]
            + self.covariance * terms["covariance"]
        )

    def _factors(self) -> tuple[float, float, float]:
        """Return the factors of z - z+, of z/deviation and of z covariance in the gradient."""
        n, k = self.z.shape
        return (
            2.0 * self.invariance / (n * k),
            -self.variance * self._share / (k * (n - 1)),
            4.0 * self.covariance / (k * (n - 1)),
        )

    def _matrix(self, covariance: Doubles, deviation: Doubles) -> Doubles:
        _, hinge, off = self._factors()
        active = np.where(deviation < 1.0, hinge / deviation, 0.0)
        return np.asarray(off * covariance + np.diag(active))

    def value_and_gradient(self) -> tuple[float, Pair]:
        """Return the loss and its gradients by z and z_plus."""
        columns, weight = self._columns, self._factors()[0]
        first, second = map(self._matrix, self._covariances, self._deviations)
        gradients = (
            _mix(columns.a, first, plus=columns.a, minus=self.z_plus, weight=weight),
            _mix(columns.b, second, plus=columns.b, minus=self.z, weight=weight),
        )
        return self.value(), gradients

    def hvp(self, dz: Floats, dz_plus: Floats) -> Pair:
        """Return the Hessian applied to a direction, by z and z_plus.

        Columns whose hinge is exactly at its kink count as inactive.
        """
        n = len(self.z)
        weight, hinge, off = self._factors()
        results = []
        for z, other, covariance, deviation in zip(
            ((self.z, dz), (self.z_plus, dz_plus)),
            (dz_plus, dz),
            self._covariances,
            self._deviations,
            strict=True,
        ):
            move = _Columns.of(*z)
            cross = _gram(move.a, move.b)
            bend = -hinge * move.ab / ((n - 1) * deviation**3)
            change = _off_diagonal(
                (off / (n - 1)) * (cross + cross.T), np.where(deviation < 1.0, bend, 0.0)
            )
            matrix = self._matrix(covariance, deviation)
            out = _mix(move.b, matrix, plus=move.b, minus=other, weight=weight)
            results.append(_mix(move.a, change, out=out))
        return results[0], results[1]


@dataclass(frozen=True)
class SquaredVICReg:
    """invariance mean_i |z_i - z+_i|^2 + ||I - Cov||^2, Cov of both views' rows together.

    Their mean is that of all 2n rows, and sums are divided by 2n (theory 1, 3.5).
    """

    z: Floats
    z_plus: Floats
    invariance: float = 1.0

    @cached_property
    def _columns(self) -> _Columns:
        return _Columns.of(self.z, self.z_plus)

    @property
    def _center(self) -> Doubles:
        return 0.5 * (self._columns.a.center + self._columns.b.center)

    @cached_property
    def _excess(self) -> Doubles:
        """Return Cov - I."""
        n, columns = len(self.z), self._columns
        apart = columns.a.center - columns.b.center
        pooled = _gram(columns.a) + _gram(columns.b)
        result = _off_diagonal(pooled, columns.aa + columns.bb) / (2 * n)
        result += 0.25 * np.outer(apart, apart)
        return _off_diagonal(result, np.diagonal(result) - 1.0)

    def terms(self) -> dict[str, float]:
        """Return mean_i |z_i - z+_i|^2 and ||I - Cov||^2; the first has its weight in the loss."""
        return {
            "invariance": float(self._columns.difference.sum()) / len(self.z),
            "covariance": _total_square(self._excess),
        }

    def value(self) -> float:
        """Return the loss."""
        terms = self.terms()
        return self.invariance * terms["invariance"] + terms["covariance"]

    def _mix(self, sides: tuple[_Side, _Side], center: Doubles, matrix: Doubles) -> Pair:
        """Return (side - center) matrix + (2 invariance/n) (side - other) for both sides."""
        weight = 2.0 * self.invariance / len(self.z)
        a, b = sides
        return (
            _mix(a, matrix, center=center, plus=a, minus=b.data, weight=weight),
            _mix(b, matrix, center=center, plus=b, minus=a.data, weight=weight),
        )

    def value_and_gradient(self) -> tuple[float, Pair]:
        """Return the loss and its gradients by z and z_plus."""
        columns, matrix = self._columns, (2.0 / len(self.z)) * self._excess
        return self.value(), self._mix((columns.a, columns.b), self._center, matrix)

    def hvp(self, dz: Floats, dz_plus: Floats) -> Pair:
        """Return the Hessian applied to a direction, by z and z_plus."""
        n, columns = len(self.z), self._columns
        move, move_plus = _Columns.of(self.z, dz), _Columns.of(self.z_plus, dz_plus)
        d, d_plus = move.b, move_plus.b
        apart, turn = columns.a.center - columns.b.center, d.center - d_plus.center
        cross = _gram(columns.a, d) + _gram(columns.b, d_plus) + 0.5 * n * np.outer(apart, turn)
        change = (cross + cross.T) / (2 * n)
        results = self._mix((d, d_plus), 0.5 * (d.center + d_plus.center), (2.0 / n) * self._excess)
        for side, out in zip((columns.a, columns.b), results, strict=True):
            _mix(side, (2.0 / n) * change, center=self._center, out=out)
        return results
