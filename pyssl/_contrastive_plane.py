"""InfoNCE on planes of embeddings z = a + u b + v c: products once, then powers of quadratics.

The logits at (u, v) are quadratics in (u, v), pair by pair. Three arrays stand for what moves along
a plane: its values at the origin, and along both directions. Quadratics are given by their
coefficients of 1, u, v, u^2, u v, v^2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _core, _plane
from pyssl._contrastive import FLOAT32_LARGEST, LOG2, row_dots
from pyssl._threads import get_num_threads

Floats = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]

# Of a grid the kernel takes as many points at a time as keep its sums, of 16 bytes for each point
# and block of rows, within 32 MiB.
_SUMS = 2**21
_BLOCK = 96
_LONGEST = 1024  # points along v
_WIDEST = 16  # points in a vector, at most

# What a power costs in multiplications, and a call for a point in pairs times multiplications:
# fitted in float64 to embeddings of 2 to 256 dimensions in batches of 32 to 1024 and grids of 4 to
# 64 points, where the way it chooses took at most 1.3 times as long as the other. In float32 it
# waits for a few points more than it has to.
_POWER = 20
_CALL = 3e6
_LANES = 8  # points along v that the kernel takes together

_SWAPPED = [0, 2, 1, 5, 4, 3]  # the coefficients where u and v change places


def pays(n: int, k: int, rows: int, columns: int, sides: int) -> bool:
    """Return whether a grid of rows x columns costs less here than point by point.

    Here a pair takes nine inner products once, and a power a point and side; there an inner product
    and a power a point.
    """
    here = n**2 * (9 * k + _POWER * min(_padded(rows, columns), _padded(columns, rows))) * sides
    return here < rows * columns * (n**2 * (k + _POWER) + _CALL)


def _padded(rows: int, columns: int) -> int:
    return rows * -(-columns // _LANES) * _LANES


def infonce(
    z: Floats,
    z_plus: Floats,
    u: Doubles,
    v: Doubles,
    *,
    temperature: float,
    similarity: str,
    partition: str,
    symmetric: bool,
) -> Doubles:
    """Return InfoNCE (len(u), len(v)) of embeddings z and z_plus (3, n, k), not normalised.

    In float32 where the embeddings are, with an error relative to the largest logit on the plane.
    """
    scale = math.sqrt(1.0 / (temperature * LOG2))
    reach = sum(
        size * max(float(np.abs(side[part]).max(initial=0.0)) for side in (z, z_plus))
        for part, size in enumerate((1.0, np.abs(u).max(), np.abs(v).max()))
    )
    dtype = z.dtype
    if dtype == np.float32 and (scale * reach) ** 2 * (z.shape[2] + 2) > FLOAT32_LARGEST:
        dtype = np.dtype(np.float64)
    squared = similarity == "sqeuclidean"
    center: Any = 0.0
    if squared:  # close to the origin squares keep the digits of differences
        means = z.mean(axis=1, dtype=np.float64), z_plus.mean(axis=1, dtype=np.float64)
        center = 0.5 * (means[0] + means[1])[:, None]
    x, y = (
        np.ascontiguousarray((side.astype(dtype, copy=False) - center) * scale, dtype=dtype)
        for side in (z, z_plus)
    )
    if squared:
        gaps = x - y  # the squares of close views would cancel
        positives = -0.5 * _product(gaps, gaps)
        x_terms, y_terms = ((-0.5 * _product(a, a)).astype(dtype) for a in (x, y))
    else:
        positives = _product(x, y)
        x_terms = y_terms = np.zeros(positives.shape, dtype)
    offsets = None
    if partition == "joint":
        offsets = positives - positives.mean(axis=1, keepdims=True)
    losses = _losses(x, y, x_terms, y_terms, positives, offsets, u, v)
    if symmetric:
        losses += _losses(y, x, y_terms, x_terms, positives, None, u, v)
        losses *= 0.5
    return losses


def _product(x: Floats, y: Floats) -> Doubles:
    """Return the coefficients (6, n) of x_i.y_i."""
    return _plane.quadratic(np.array([[row_dots(a, b) for b in y] for a in x]))


def _losses(
    x: Floats,
    y: Floats,
    x_terms: Floats,
    y_terms: Floats,
    positives: Doubles,
    offsets: Doubles | None,
    u: Doubles,
    v: Doubles,
) -> Doubles:
    """Return the losses of anchors x among candidates y on the grid, piece by piece of it."""
    if _padded(len(u), len(v)) > _padded(len(v), len(u)):
        x, y = x[[0, 2, 1]], y[[0, 2, 1]]
        x_terms, y_terms, positives = (a[_SWAPPED] for a in (x_terms, y_terms, positives))
        offsets = None if offsets is None else offsets[_SWAPPED]
        return _losses(x, y, x_terms, y_terms, positives, offsets, v, u).T
    losses = np.empty((len(u), len(v)))
    points = _SUMS // -(-x.shape[1] // _BLOCK)
    across = min(len(v), _LONGEST, max(_WIDEST, points))
    along = max(1, points // (across + _WIDEST - 1))  # the kernel pads v
    for i in range(0, len(u), along):
        for j in range(0, len(v), across):
            piece = np.empty(losses[i : i + along, j : j + across].shape)
            axes = u[i : i + along], v[j : j + across]
            _core.plane_losses(
                x,
                y,
                x_terms,
                y_terms,
                positives,
                offsets,
                *axes,
                piece,
                num_threads=get_num_threads(),
            )
            losses[i : i + along, j : j + across] = piece
    return losses
