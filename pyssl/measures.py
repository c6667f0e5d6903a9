"""Soft counts of the dimensions that embeddings use (theory 5)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._pencil import Array

__all__ = ["effective_rank", "participation_ratio", "rankme", "stable_rank"]


def effective_rank(spectrum: npt.ArrayLike) -> float:
    """Return the entropy effective rank of a spectrum, exp(-sum p log p) with p = l/sum l.

    Parameters
    ----------
    spectrum : (m,) array_like
        Eigenvalues l >= 0 of a covariance.

    Returns
    -------
    float
        Between 1 and m; 0 where all l vanish.

    Raises
    ------
    ValueError
        For negative, infinite or NaN entries, or a wrong shape.
    TypeError
        For anything but real numbers.

    Notes
    -----
    Source: theory 5; Roy and Vetterli, "The effective rank" (2007).

    Examples
    --------
    >>> import pyssl
    >>> round(pyssl.effective_rank([1.0, 1.0, 0.0]), 12)
    2.0
    """
    p = _shares(spectrum)
    p = p[p > 0.0]
    return float(np.exp(-np.sum(p * np.log(p)))) if len(p) else 0.0


def participation_ratio(spectrum: npt.ArrayLike) -> float:
    """Return the participation ratio of a spectrum, (sum l)^2/sum l^2.

    Parameters
    ----------
    spectrum : (m,) array_like
        Eigenvalues l >= 0 of a covariance.

    Returns
    -------
    float
        Between 1 and m; 0 where all l vanish.

    Raises
    ------
    ValueError
        For negative, infinite or NaN entries, or a wrong shape.
    TypeError
        For anything but real numbers.

    Examples
    --------
    >>> import pyssl
    >>> pyssl.participation_ratio([1.0, 1.0, 0.0])
    2.0
    """
    p = _shares(spectrum)
    return float(1.0 / np.sum(p * p)) if p.any() else 0.0


def stable_rank(spectrum: npt.ArrayLike) -> float:
    """Return the stable rank of a spectrum, sum l/max l.

    Parameters
    ----------
    spectrum : (m,) array_like
        Eigenvalues l >= 0 of a covariance.

    Returns
    -------
    float
        Between 1 and m; 0 where all l vanish.

    Raises
    ------
    ValueError
        For negative, infinite or NaN entries, or a wrong shape.
    TypeError
        For anything but real numbers.

    Examples
    --------
    >>> import pyssl
    >>> pyssl.stable_rank([2.0, 1.0, 1.0])
    2.0
    """
    p = _shares(spectrum)
    return float(1.0 / p.max()) if p.any() else 0.0


def rankme(embeddings: npt.ArrayLike) -> float:
    """Return RankMe of embeddings: the entropy effective rank of their singular values.

    Parameters
    ----------
    embeddings : (n, k) array_like

    Returns
    -------
    float
        Between 1 and min(n, k); 0 for zero embeddings.

    Raises
    ------
    ValueError
        For a wrong shape, NaN or infinity.
    TypeError
        For anything but real numbers.

    Notes
    -----
    Source: Garrido et al., "RankMe" (2023), without its 1e-7 under the logarithm. Singular values,
    not their squares: not the effective rank of the covariance.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> round(pyssl.rankme(np.eye(3)), 12)
    3.0
    """
    z = _checks.array("embeddings", embeddings, ndim=2)
    if z.size == 0:
        raise ValueError(f"embeddings must have at least one row and column, got {z.shape}")
    largest = float(np.abs(z).max())
    if largest == 0.0:
        return 0.0
    scaled = z.astype(np.float64) / largest  # no overflow in the singular values
    return effective_rank(np.linalg.svd(scaled, compute_uv=False))


def _shares(spectrum: npt.ArrayLike) -> Array:
    values = _checks.array("spectrum", spectrum, ndim=1).astype(np.float64)
    if len(values) and values.min() < 0.0:
        raise ValueError(f"spectrum must not be negative, got {values.min():g}")
    top = values.max(initial=0.0)
    if top == 0.0:
        return np.zeros_like(values)
    values = values / top  # no overflow in the sum, no underflow in the quotient
    return np.asarray(values / values.sum())
