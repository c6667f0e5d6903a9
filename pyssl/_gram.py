"""The Gram kernels on embeddings: what the losses of theory 3.3 to 3.5 have in common.

Each of them is a function of few k x k matrices of sums over rows, and its gradient is a product of
the embeddings with such a matrix: O(n k^2), and nothing of size n x n unless n <= k. What is k or
k x k here is float64; what is n x k has the type of the embeddings.

The classes of the losses take validated arrays: z and z_plus (n, k), finite, C-contiguous and of
one dtype, with n >= 2 where the loss has negatives or an unbiased variance.
"""

from __future__ import annotations

import math
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


def _power_of_two(size: Doubles, most: int) -> Doubles:
    """Return powers of two near positive numbers, 1 for zeros; exponents up to `most`."""
    exponent = np.frexp(size)[1].clip(-most, most)
    return np.asarray(np.where(size > 0.0, np.ldexp(1.0, exponent), 1.0))


def _exponents(dtype: np.dtype[Any]) -> int:
    """Return how far exponents may go in a type."""
    return 126 if dtype == np.float32 else 1022


@dataclass(frozen=True)
class Side:
    """Embeddings (n, k), or anything of that kind, with their centre and size by column.

    Kernels read (data - shift)/size: `shift` is the centre in the type of the data, the rest of it
    is put right in double; `size` is a power of two, so that products of tiny or huge embeddings
    stay inside the type and nothing else changes.
    """

    data: Floats
    center: Doubles
    size: Doubles

    @classmethod
    def of(cls, data: Floats, center: Doubles, spread: Doubles) -> Side:
        """Return a side from its centre and its spread by column (any rough measure of it)."""
        return cls(data, center, _power_of_two(spread, _exponents(data.dtype)))

    @cached_property
    def columns(self) -> Floats:
        return np.stack([self.center, 1.0 / self.size]).astype(self.data.dtype)

    @property
    def rest(self) -> Doubles:
        """What rounding takes from the centre."""
        return np.asarray(self.center - self.columns[0])


def plain(data: Floats, spread: float) -> Side:
    """Return a side that is not centred."""
    k = data.shape[1]
    return Side.of(data, np.zeros(k), np.full(k, spread))


def gram(a: Side, b: Side | None = None) -> Doubles:
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
        out -= np.outer(len(a.data) * a.rest, other.rest)
    return out


def mix(
    left: Side,
    matrix: Doubles,
    *,
    plus: Side | None = None,
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
    inside /= factor
    columns = np.stack([shift, weight / factor, constant / factor, first, factor / first])
    result = np.empty((len(left.data), q), dtype) if out is None else out
    _core.mix(
        left.data,
        left.columns,
        np.ascontiguousarray(inside, dtype=dtype),
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
class Columns:
    """Means, centred sums of squares and products, and sums of (a - b)^2, by column (k,)."""

    a: Side
    b: Side
    aa: Doubles
    bb: Doubles
    ab: Doubles
    difference: Doubles

    @classmethod
    def of(cls, a: Floats, b: Floats) -> Columns:
        out = np.empty((6, a.shape[1]))
        _core.column_moments(a, b, out, num_threads=get_num_threads())
        sides = [
            Side.of(data, mean, np.sqrt(square / len(a)))
            for data, mean, square in zip((a, b), out[:2], out[2:4], strict=True)
        ]
        return cls(sides[0], sides[1], *out[2:])

    def finite(self) -> bool:
        """Return whether the data are finite."""
        return bool(np.isfinite(self.aa.sum() + self.bb.sum()))


@dataclass(frozen=True)
class Batch:
    """Embeddings of two views, for losses that see them by their columns."""

    z: Floats
    z_plus: Floats

    @cached_property
    def _columns(self) -> Columns:
        return Columns.of(self.z, self.z_plus)

    def finite(self) -> bool:
        """Return whether the embeddings are finite."""
        return self._columns.finite()


def row_moments(a: Floats, b: Floats) -> tuple[Doubles, Doubles, Doubles]:
    """Return |a_i|^2, a_i.b_i and |b_i|^2 (n,)."""
    out = np.empty((3, len(a)))
    _core.row_moments(a, b, out, num_threads=get_num_threads())
    return out[0], out[1], out[2]


def spread(squares: Doubles, k: int) -> float:
    """Return the root mean square of entries from the squared lengths of rows."""
    return math.sqrt(float(squares.sum()) / (len(squares) * k))


def off_diagonal(a: Doubles, diagonal: Doubles | float = 0.0) -> Doubles:
    """Return a with another diagonal; overwrites a."""
    np.fill_diagonal(a, diagonal)
    return a


def divide(by: float, *arrays: Floats) -> None:
    """Divide arrays in place."""
    for a in arrays:
        np.divide(a, a.dtype.type(by), out=a)


def total_square(a: Doubles) -> float:
    return float(np.sum(a * a))
