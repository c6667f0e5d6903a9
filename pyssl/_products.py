"""Dense products: the kernel where it is at least as fast as any BLAS, else NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _core
from pyssl._threads import get_num_threads

Floats = npt.NDArray[Any]

# Without AVX2 the kernel has nothing that BLAS lacks; below this many multiplications a call into
# either costs more than they do, and NumPy's is the cheaper call.
_KERNEL = _core.simd_level() != "baseline"
_SMALL = 32768


def product(a: Floats, b: Floats) -> Floats:
    """Return a b (..., k, n) for a (..., k, d) and one matrix b (d, n) of the same dtype."""
    k, depth = a.shape[-2:]
    if not _KERNEL or a.size * b.shape[1] < _SMALL:
        return np.asarray(a @ b)
    rows = np.ascontiguousarray(a).reshape(-1, depth)
    out = np.empty((len(rows), b.shape[1]), a.dtype)
    _core.product(rows, np.ascontiguousarray(b), out, num_threads=get_num_threads())
    return out.reshape(*a.shape[:-2], k, b.shape[1])


def product_transposed(a: Floats, b: Floats) -> Floats:
    """Return a b' (..., m, n) for a (..., m, d) and b (..., n, d) of the same dtype."""
    if not _KERNEL or a.ndim != 2 or b.ndim != 2 or a.size * len(b) < _SMALL:
        return np.asarray(a @ np.swapaxes(b, -1, -2))
    out = np.empty((len(a), len(b)), a.dtype)
    _core.product(
        np.ascontiguousarray(a),
        np.ascontiguousarray(b),
        out,
        transposed=True,
        num_threads=get_num_threads(),
    )
    return out


def add_product(out: Floats, a: Floats, b: Floats) -> None:
    """Add a b to the C-contiguous `out`, (..., m, n) for a (..., m, l) and b (..., l, n)."""
    if not _KERNEL or out.ndim != 2 or a.size * out.shape[1] < _SMALL:
        out += a @ b
    else:
        left, right = np.ascontiguousarray(a), np.ascontiguousarray(b)
        _core.product(left, right, out, add=True, num_threads=get_num_threads())
