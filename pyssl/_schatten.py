"""The weight decay of layers as a function of their product: a Schatten norm (theory 9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["LayerDecay"]

Floats = npt.NDArray[Any]


@dataclass(frozen=True)
class LayerDecay:
    """h(W) = (g/2) D sum s_i(W)^(2/D), the least (g/2) sum ||W_l||^2 over D layers with product W.

    Batches W (..., k, d) all along; singular values are taken in double, those up to max(k, d) eps
    of the largest are zero, eps being that of W's dtype.
    """

    depth: int
    weight_decay: float

    def of_squares(self, squares: Floats) -> Floats:
        """Return h by the squares of singular values, elementwise."""
        return np.asarray(0.5 * self.weight_decay * self.depth * squares ** (1.0 / self.depth))

    def value(self, W: Floats) -> Floats:
        """Return h(W), float64."""
        if self.weight_decay == 0.0:
            return np.zeros(W.shape[:-2])
        s = np.linalg.svd(W.astype(np.float64, copy=False), compute_uv=False)
        # rounding of a zero is nothing, but its power 2/D would be something
        squares = np.where(_zero(s, W), 0.0, s * s)
        return np.asarray(self.of_squares(squares).sum(axis=-1))

    def gradient(self, W: Floats) -> Floats:
        """Return the gradient along the range of W, where h has one, in W's dtype."""
        if self.weight_decay == 0.0:
            return np.zeros_like(W)
        u, s, vt, zero = self._svd(W)
        slope = self._slope(np.where(zero, 1.0, s))
        slope[zero] = 0.0
        return ((u * slope[..., None, :]) @ vt).astype(W.dtype, copy=False)

    def linearised(self, W: Floats) -> Callable[[Floats], Floats]:
        """Return the Hessian at W as a function of a direction.

        Raises ValueError where W is rank-deficient, unless there is no decay.
        """
        if self.weight_decay == 0.0:
            return np.zeros_like
        u, s, vt, zero = self._svd(W)
        if zero.any():
            raise ValueError(
                f"W must have {s.shape[-1]} nonzero singular values, got {s[zero].min():.3g}: the"
                " weight decay of the layers has no second derivative there"
            )
        slope = self._slope(s)
        level, one, other = slope / s, s[..., :, None], s[..., None, :]
        # of the symmetric part, (h'(s) - h'(t))/(s - t); of the antisymmetric, with two plus signs
        change = self._slope_quotient(one, other)
        turn = (slope[..., :, None] + slope[..., None, :]) / (one + other)

        def along(direction: Floats) -> Floats:
            wide = direction.astype(np.float64, copy=False)
            left = np.swapaxes(u, -1, -2) @ wide
            core = left @ np.swapaxes(vt, -1, -2)
            mirrored = np.swapaxes(core, -1, -2)
            inside = 0.5 * (change * (core + mirrored) + turn * (core - mirrored))
            result = u @ (inside @ vt + level[..., :, None] * (left - core @ vt))
            right = wide @ np.swapaxes(vt, -1, -2)
            result += ((right - u @ core) * level[..., None, :]) @ vt
            return np.asarray(result, dtype=direction.dtype)

        return along

    def _svd(self, W: Floats) -> tuple[Floats, Floats, Floats, Any]:
        """Return U, s, V' and which s are zero."""
        u, s, vt = np.linalg.svd(W.astype(np.float64, copy=False), full_matrices=False)
        return u, s, vt, _zero(s, W)

    def _slope(self, s: Floats) -> Floats:
        """Return g s^(2/D - 1), the derivative by a singular value."""
        return np.asarray(self.weight_decay * s ** (2.0 / self.depth - 1.0))

    def _slope_quotient(self, s: Floats, t: Floats) -> Floats:
        """Return the divided difference of the slope, its derivative at s = t, uncancelled.

        (s^p - t^p)/(s - t) = t^(p - 1) expm1(p x)/expm1(x) with x = log(s/t).
        """
        power = 2.0 / self.depth - 1.0
        x = np.where(np.abs(s - t) < 0.5 * t, np.log1p((s - t) / t), np.log(s / t))
        ratio = np.divide(
            np.expm1(power * x), np.expm1(x), out=np.full(x.shape, power), where=x != 0.0
        )
        return np.asarray(self.weight_decay * t ** (power - 1.0) * ratio)


def _zero(s: Floats, W: Floats) -> Any:
    """Return which singular values of W are zero within rounding."""
    return s <= max(W.shape[-2:]) * float(np.finfo(W.dtype).eps) * s[..., :1]
