"""Many small symmetric pencils (B, S) at once: inertia, eigenvalues, eigenvectors (theory 2).

All functions take one matrix (d, d) or any batch (..., d, d), in float32 or float64, and give for a
matrix the same bits wherever it stands in a batch, whatever the batch's size and the number of
threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _checks, _core
from pyssl._pencil import rank_tolerance
from pyssl._threads import get_num_threads

__all__ = ["counts_above", "eigenvalues", "eigh", "inertia"]

Floats = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]

# Where LAPACK takes over; `Crossover` in benchmarks/bench_pencils.py measures it. By the size of a
# matrix alone: by their number, too, results would depend on how a sweep is cut into chunks.
_LARGEST_VALUES = 256
_LARGEST_VECTORS = 128


def inertia(B: npt.ArrayLike, tolerance: npt.ArrayLike | None = None) -> Counts:
    """Count the positive, zero and negative eigenvalues of symmetric matrices.

    The inertia of B is that of every pencil (B, S) with S > 0: all that the rank of a spectral
    landscape's minimum needs (theory 2.4). It costs a reduction to tridiagonal form and two Sturm
    counts, no eigenvalue.

    Parameters
    ----------
    B : (..., d, d) array_like
        Symmetric, of any signature.
    tolerance : (...) array_like, optional
        >= 0; an eigenvalue counts as zero up to this magnitude. The default is d eps ||B||, in the
        2-norm and with the eps of B's dtype. Eigenvalues nearer than 8 eps ||B|| to the tolerance
        may fall on either side of it.

    Returns
    -------
    (..., 3) int64
        Positive, zero, negative; each row adds up to d.

    Raises
    ------
    ValueError
        For B that is not square, finite or symmetric within rounding, and for a tolerance that is
        negative or does not broadcast to B's leading axes.
    TypeError
        For entries that are not real numbers.

    Notes
    -----
    Source: theory 2.2, 2.4.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> pyssl.pencils.inertia([[0.0, 1.0], [1.0, 0.0]])
    array([1, 0, 1])
    >>> pyssl.pencils.inertia(np.diag([3.0, 1e-20, -2.0, -1.0]))
    array([1, 1, 2])
    """
    forms = _checks.square_matrices("B", B)
    batch, d = forms.shape[:-2], forms.shape[-1]
    bounds = None if tolerance is None else _checks.tolerances("tolerance", tolerance, batch)
    if d > _LARGEST_VALUES:
        values = _values(forms, None, batch)
        if bounds is None:
            eps = float(np.finfo(forms.dtype).eps)
            bounds = rank_tolerance(d, eps, 1.0) * np.abs(values).max(axis=-1, initial=0.0)
        above = np.sum(values > bounds[..., None], axis=-1)
        below = np.sum(values < -bounds[..., None], axis=-1)
        return np.stack([above, d - above - below, below], axis=-1).astype(np.int64, copy=False)
    counts = np.empty((*batch, 3), np.int64)
    faults = _core.pencil_inertia(
        forms.reshape(-1, d, d),
        None if bounds is None else np.ascontiguousarray(bounds).reshape(-1),
        counts.reshape(-1, 3),
        num_threads=get_num_threads(),
    )
    _refuse(faults, forms, None)
    return counts


def eigenvalues(B: npt.ArrayLike, S: npt.ArrayLike | None = None) -> Floats:
    """Return the eigenvalues of symmetric matrices, or of symmetric pencils B v = lambda S v.

    Parameters
    ----------
    B : (..., d, d) array_like
        Symmetric, of any signature.
    S : (..., d, d) array_like, optional
        Symmetric, positive definite; broadcasts against B. The identity by default.

    Returns
    -------
    (..., d)
        Descending, as everywhere in pyssl. float32 if B and S are, else float64. Without S the
        error of each is below 8 eps ||B|| for d <= 64; S multiplies it by its condition.

    Raises
    ------
    ValueError
        For B or S that is not square, finite or symmetric within rounding, or does not fit the
        other; for S with an eigenvalue that is not positive at numerical rank (theory 2.5 says
        what a landscape with singular S is: restrict B and S to the range of S first).
    TypeError
        For entries that are not real numbers.

    Notes
    -----
    Source: theory 2.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> pyssl.pencils.eigenvalues(np.diag([1.0, 3.0, -2.0]))
    array([ 3.,  1., -2.])
    >>> pyssl.pencils.eigenvalues(np.diag([1.0, 3.0]), [np.eye(2), 4.0 * np.eye(2)])
    array([[3.  , 1.  ],
           [0.75, 0.25]])
    """
    return _values(*_pencils(B, S))


def eigh(B: npt.ArrayLike, S: npt.ArrayLike | None = None) -> tuple[Floats, Floats]:
    """Return eigenvalues and eigenvectors of symmetric matrices or pencils B v = lambda S v.

    Parameters
    ----------
    B : (..., d, d) array_like
        Symmetric, of any signature.
    S : (..., d, d) array_like, optional
        Symmetric, positive definite; broadcasts against B. The identity by default.

    Returns
    -------
    values : (..., d)
        The eigenvalues, descending, as from `eigenvalues`.
    vectors : (..., d, d)
        The eigenvectors as columns, v_i'Sv_j = 1 if i = j, else 0.

    Raises
    ------
    ValueError
        As `eigenvalues`.
    TypeError
        For entries that are not real numbers.

    Notes
    -----
    Source: theory 2.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> B, S = np.array([[2.0, 1.0], [1.0, 2.0]]), np.diag([1.0, 2.0])
    >>> values, vectors = pyssl.pencils.eigh(B, S)
    >>> np.allclose(B @ vectors, S @ vectors * values)
    True
    >>> np.allclose(vectors.T @ S @ vectors, np.eye(2))
    True
    """
    forms, metrics, batch = _pencils(B, S)
    d = forms.shape[-1]
    if d > _LARGEST_VECTORS:
        return _vectors_by_lapack(forms, metrics)
    values = np.empty((*batch, d), forms.dtype)
    vectors = np.empty((*batch, d, d), forms.dtype)
    faults = _core.pencil_eigh(
        _flat(forms, batch),
        _flat_metrics(metrics, batch),
        values.reshape(-1, d),
        vectors.reshape(-1, d, d),
        num_threads=get_num_threads(),
    )
    _refuse(faults, forms, metrics)
    return values, vectors


def counts_above(A: npt.ArrayLike, thresholds: npt.ArrayLike) -> Counts:
    """Count the eigenvalues of symmetric matrices above each of many thresholds.

    The rank along a shift axis A - theta I: the eigenvalues are computed once, however many
    thresholds there are.

    Parameters
    ----------
    A : (..., d, d) array_like
        Symmetric.
    thresholds : (..., m) array_like
        In any order; the leading axes broadcast against those of A.

    Returns
    -------
    (..., m) int64

    Raises
    ------
    ValueError
        For A that is not square, finite or symmetric within rounding, and for thresholds that are
        not finite or do not broadcast.
    TypeError
        For entries that are not real numbers.

    Notes
    -----
    Source: theory 2.4, 5.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> pyssl.pencils.counts_above(np.diag([0.9, 0.5, 0.1]), [0.0, 0.3, 0.7, 1.0])
    array([3, 2, 1, 0])
    """
    matrices = _checks.square_matrices("A", A)
    levels = _checks.array("thresholds", thresholds, minimum_ndim=1)
    batch, m = levels.shape[:-1], levels.shape[-1]
    try:
        shape = np.broadcast_shapes(matrices.shape[:-2], batch)
    except ValueError:
        raise ValueError(
            f"thresholds must broadcast against A's leading axes {matrices.shape[:-2]},"
            f" got {levels.shape}"
        ) from None
    values = _values(matrices, None, matrices.shape[:-2], "A")
    if values.ndim == 1:
        ascending = values[::-1]
        return (len(values) - np.searchsorted(ascending, levels, "right")).astype(np.int64)
    counts = np.zeros((*shape, m), np.int64)
    for j in range(values.shape[-1]):
        counts += values[..., j, None] > levels
    return counts


# ---- kernels -------------------------------------------------------------------------------------


def _pencils(B: Any, S: Any) -> tuple[Floats, Floats | None, tuple[int, ...]]:
    """Return the matrices in one dtype, and the leading axes of the pencils they make."""
    forms = _checks.square_matrices("B", B)
    if S is None:
        return forms, None, forms.shape[:-2]
    metrics = _checks.square_matrices("S", S)
    if metrics.shape[-1] != forms.shape[-1]:
        d = forms.shape[-1]
        raise ValueError(f"S must be (..., {d}, {d}) like B, got {metrics.shape}")
    forms, metrics = _checks.one_dtype("B", forms, "S", metrics)
    return forms, metrics, np.broadcast_shapes(forms.shape[:-2], metrics.shape[:-2])


def _flat(matrices: Floats, batch: tuple[int, ...]) -> Floats:
    """Return the matrices as (N, d, d) for the whole batch."""
    d = matrices.shape[-1]
    return np.ascontiguousarray(np.broadcast_to(matrices, (*batch, d, d))).reshape(-1, d, d)


def _flat_metrics(metrics: Floats | None, batch: tuple[int, ...]) -> Floats | None:
    """Return None, one metric for all pencils (1, d, d), or one for each (N, d, d)."""
    if metrics is None:
        return None
    d = metrics.shape[-1]
    return metrics.reshape(1, d, d) if metrics.size == d * d else _flat(metrics, batch)


def _values(
    forms: Floats, metrics: Floats | None, batch: tuple[int, ...], name: str = "B"
) -> Floats:
    """Return the eigenvalues (*batch, d), descending; `name` is what the user calls the forms."""
    d = forms.shape[-1]
    if d > _LARGEST_VALUES:
        return np.linalg.eigvalsh(_standard_form(forms, metrics, name)[0])[..., ::-1].copy()
    values = np.empty((*batch, d), forms.dtype)
    faults = _core.pencil_eigenvalues(
        _flat(forms, batch),
        _flat_metrics(metrics, batch),
        values.reshape(-1, d),
        num_threads=get_num_threads(),
    )
    _refuse(faults, forms, metrics, name)
    return values


def _refuse(
    faults: tuple[int, int, int], forms: Floats, metrics: Floats | None, name: str = "B"
) -> None:
    """Raise the error for what a kernel would not compute, if there is any."""
    if faults == (-1, -1, -1):
        return
    _checks.symmetric_entries(name, forms)
    if metrics is not None:
        _checks.symmetric_entries("S", metrics)
        batch = np.broadcast_shapes(forms.shape[:-2], metrics.shape[:-2])
        shared = metrics.size == metrics.shape[-1] ** 2
        flat = metrics.reshape(1, *metrics.shape[-2:]) if shared else _flat(metrics, batch)
        raise _checks.indefinite("S", flat[faults[2]])


# ---- LAPACK --------------------------------------------------------------------------------------


def _symmetrised(a: Floats) -> Floats:
    half = a.dtype.type(0.5)
    mean: Floats = half * a + half * np.swapaxes(a, -1, -2)
    return mean


def _standard_form(
    forms: Floats, metrics: Floats | None, name: str
) -> tuple[Floats, Floats | None]:
    """Return L^-1 B L^-T and L, S = L L'; B and None without S. Checks as the kernels do."""
    _checks.symmetric_entries(name, forms)
    if metrics is None:
        return _symmetrised(forms), None
    _checks.symmetric_entries("S", metrics)
    metrics = _symmetrised(metrics)
    d, eps = metrics.shape[-1], float(np.finfo(metrics.dtype).eps)
    spectra = np.linalg.eigvalsh(metrics)
    bad = np.argwhere(spectra[..., 0] <= rank_tolerance(d, eps, 1.0) * spectra[..., -1])
    if len(bad):
        raise _checks.indefinite("S", metrics[tuple(bad[0])])
    factors = np.linalg.cholesky(metrics)
    half = np.swapaxes(np.linalg.solve(factors, _symmetrised(forms)), -1, -2)
    return _symmetrised(np.linalg.solve(factors, half)), factors


def _vectors_by_lapack(forms: Floats, metrics: Floats | None) -> tuple[Floats, Floats]:
    standard, factors = _standard_form(forms, metrics, "B")
    ascending, vectors = np.linalg.eigh(standard)
    if factors is not None:
        vectors = np.linalg.solve(np.swapaxes(factors, -1, -2), vectors)
    return ascending[..., ::-1].copy(), vectors[..., ::-1].copy()
