"""Symmetric pencils (E, S) with S >= 0: the linear algebra that moments and landscapes share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def rank_tolerance(dim: int, eps: float, scale: float) -> float:
    """Return the size below which an eigenvalue counts as zero (theory 2.2: d eps times scale)."""
    return dim * eps * scale


@dataclass(frozen=True, eq=False)
class Metric:
    """The eigendecomposition of S >= 0, split at its numerical rank.

    Attributes
    ----------
    spectrum : (d,) eigenvalues of S, descending.
    basis : (d, d) the orthonormal eigenvectors as columns.
    rank : eigenvalues above d eps times the largest.
    """

    spectrum: Array
    basis: Array
    rank: int

    @classmethod
    def of(cls, matrix: Array, eps: float) -> Metric:
        """Decompose the symmetric matrix (d, d)."""
        ascending, basis = np.linalg.eigh(matrix)
        spectrum = ascending[::-1].copy()
        scale = max(float(spectrum[0]), 0.0)
        rank = int(np.count_nonzero(spectrum > rank_tolerance(len(matrix), eps, scale)))
        return cls(spectrum, basis[:, ::-1].copy(), rank)

    @cached_property
    def whitener(self) -> Array:
        """The map T (d, rank) with T'ST = I."""
        scaled: Array = self.basis[:, : self.rank] / np.sqrt(self.spectrum[: self.rank])
        return scaled

    @property
    def null_basis(self) -> Array:
        """An orthonormal basis (d, d - rank) of the null space of S."""
        return self.basis[:, self.rank :]


def diagonalise(form: Array, whitener: Array) -> tuple[Array, Array]:
    """Solve form v = lambda S v on the span of a `whitener` T with T'ST = I.

    Parameters
    ----------
    form : (d, d), symmetric.
    whitener : (d, m).

    Returns
    -------
    (m,) eigenvalues, ascending, and (d, m) vectors with v'Sv = 1.
    """
    projected = whitener.T @ form @ whitener
    values, rotation = np.linalg.eigh(0.5 * (projected + projected.T))
    return values, whitener @ rotation


def quadratic_forms(vectors: Array, matrix: Array) -> Array:
    """Return v_j'Mv_j (m,) for the columns v_j of `vectors` (d, m)."""
    values: Array = np.einsum("ij,ij->j", vectors, matrix @ vectors)
    return values


def descending(matrix: Array) -> Array:
    """Return the eigenvalues of a symmetric matrix, largest first."""
    return np.asarray(np.linalg.eigvalsh(matrix)[::-1], dtype=np.float64).copy()


def embedded_spectrum(weights: Array, covariance: Array) -> Array:
    """Return the eigenvalues of W Sigma W' (k,), descending, for W (k, d)."""
    return np.maximum(descending(weights @ covariance @ weights.T), 0.0)


def readonly(a: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return `a`, no longer writeable: results and moments are shared, never changed."""
    a.flags.writeable = False
    return a
