"""VICReg on a batch, where each unit has two kinks: one for its variance in either view."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl.empirical import EmpiricalLandscape
from pyssl.loss import Sample

__all__ = ["EmpiricalVICRegLandscape", "best_in_box"]

Floats = npt.NDArray[Any]


class EmpiricalVICRegLandscape(EmpiricalLandscape):
    """VICReg on a batch, and the kinks c_si = var_s,i + eps - 1 of unit i in view s.

    They answer to what `KinkProblem` asks as those of `VICRegLandscape` do, (2, k) for (k,): a row
    of W sits on one kink, on the other, or where both meet.
    """

    loss: Any

    @cached_property
    def _covariances(self) -> Floats:
        """Of either view, as the loss takes them (2, d, d)."""
        views = self._pair(np.dtype(np.float64))
        return np.array([np.cov(side, rowvar=False).reshape(2 * side.shape[1:]) for side in views])

    def kinks(self, W: npt.ArrayLike) -> Floats:
        """Return c_si (2, k)."""
        matrix = self._decaying(np.asarray(W, dtype=np.float64))
        variances = np.einsum("ia,sab,ib->si", matrix, self._covariances, matrix)
        return np.asarray(variances + (self.loss.epsilon - 1.0))

    def kink_normals(self, W: npt.ArrayLike) -> Floats:
        """Return the gradients of c_si by row i, (2, k, d), the bias column 0."""
        matrix = np.asarray(W, dtype=np.float64)
        normals = np.zeros((2, *self.shape))
        normals[..., : self._covariances.shape[1]] = 2.0 * (
            self._decaying(matrix) @ self._covariances
        )
        return normals

    def with_slopes(self, theta: npt.ArrayLike) -> EmpiricalLandscape:
        """Return the smooth landscape whose hinges have the slopes theta (2, k)."""
        return _FixedSlopes(self, np.asarray(theta, dtype=np.float64))

    def kkt_residual(self, W: npt.ArrayLike, tolerance: float = 1e-8) -> tuple[float, Floats]:
        """Return the least norm of a subgradient, and the slopes (2, k) that reach it.

        The gradient by row i is a_i - theta_1i p_1i - theta_2i p_2i.
        """
        c = self.kinks(W)
        theta = (c < -tolerance).astype(np.float64)
        gradient = self.with_slopes(theta).gradient(W)
        scale = 0.5 * self.loss.variance * (0.5 if self.loss.halve_variance else 1.0)
        pulls = (
            self.kink_normals(W)
            * (scale / self.shape[0] / np.sqrt(np.maximum(c + 1.0, 0.0)))[..., None]
        )
        on = np.abs(c) <= tolerance
        for i in np.flatnonzero(on.any(axis=0)):
            which = np.flatnonzero(on[:, i])
            theta[which, i] = best_in_box(pulls[which, i], gradient[i])
            gradient[i] -= theta[which, i] @ pulls[which, i]
        return math.sqrt(float(np.sum(gradient * gradient))), theta


def best_in_box(pulls: Floats, target: Floats) -> Floats:
    """Return theta in [0, 1] for which theta @ pulls comes nearest to the target; one or two."""
    if len(pulls) == 2:
        inside, _, rank, _ = np.linalg.lstsq(pulls.T, target)
        if rank == 2 and (inside >= 0.0).all() and (inside <= 1.0).all():
            return np.asarray(inside)
        edges = []
        for fixed in (0, 1):
            for at in (0.0, 1.0):
                theta = np.full(2, at)
                rest = target - at * pulls[fixed]
                theta[1 - fixed] = best_in_box(pulls[1 - fixed, None], rest)[0]
                edges.append(theta)
        return min(edges, key=lambda theta: float(np.sum((theta @ pulls - target) ** 2)))
    length = float(np.sum(pulls * pulls))
    best = float(pulls[0] @ target) / length if length > 0.0 else 0.0
    return np.clip([best], 0.0, 1.0)


class _FixedSlopes(EmpiricalLandscape):
    """The Lagrangian of the kinks: hinges of given slopes."""

    def __init__(self, land: EmpiricalVICRegLandscape, theta: Floats) -> None:
        x, x_plus = land._views[land._source]
        super().__init__(land.loss, x, x_plus, land.shape[0], land.weight_decay, land.bias)
        self._views = land._views
        self._theta = theta

    def _sample(self, w: Floats) -> Sample:
        sample: Any = super()._sample(w)
        return replace(sample, slopes=self._theta)  # type: ignore[no-any-return]
