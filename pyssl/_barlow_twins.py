"""Barlow Twins on embeddings (theory 3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pyssl._gram import (
    Batch,
    Columns,
    Doubles,
    Floats,
    Pair,
    Side,
    gram,
    mix,
    off_diagonal,
    total_square,
)


@dataclass(frozen=True)
class BarlowTwins(Batch):
    """sum_i (c_ii - 1)^2 + redundancy sum_{i != j} c_ij^2 of the cross-correlation c (theory 3.4).

    Each view is standardised with the biased variance, `epsilon` inside the root; without
    `normalize` it is only centred.
    """

    redundancy: float = 5e-3
    normalize: bool = True
    epsilon: float = 1e-5

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
        c = gram(columns.a, columns.b)
        c /= (n * s)[:, None]
        c /= s_plus
        # the diagonal comes near 1 in training: c - 1 needs the digits of the sums in double
        return off_diagonal(c, columns.ab / (n * s * s_plus))

    def terms(self) -> dict[str, float]:
        """Return sum_i (c_ii - 1)^2 and sum_{i != j} c_ij^2.

        The loss is on_diagonal + redundancy off_diagonal.
        """
        c = self._correlation
        return {
            "on_diagonal": total_square(np.diagonal(c) - 1.0),
            "off_diagonal": total_square(off_diagonal(c.copy())),
        }

    def value(self) -> float:
        """Return the loss."""
        terms = self.terms()
        return terms["on_diagonal"] + self.redundancy * terms["off_diagonal"]

    def _weights(self, c: Doubles, target: float) -> Doubles:
        """Return the derivative by c (target 1), or its change with c (target 0)."""
        return off_diagonal(2.0 * self.redundancy * c, 2.0 * (np.diagonal(c) - target))

    def value_and_gradient(self) -> tuple[float, Pair]:
        """Return the loss and its gradients by z and z_plus."""
        n, columns, c = len(self.z), self._columns, self._correlation
        s, s_plus = self._deviations
        weights = self._weights(c, 1.0)
        product = weights / (n * s)[:, None]
        product /= s_plus
        if self.normalize:
            # a column of a standardised view has no component along itself
            along = -np.sum(weights * c, axis=1) / (n * s * s)
            along_plus = -np.sum(weights * c, axis=0) / (n * s_plus * s_plus)
        else:
            along = along_plus = np.zeros(len(s))
        gradients = (
            mix(columns.b, product.T, plus=columns.a, weight=along),
            mix(columns.a, product, plus=columns.b, weight=along_plus),
        )
        return self.value(), gradients

    def hvp(self, dz: Floats, dz_plus: Floats) -> Pair:
        """Return the Hessian applied to a direction, by z and z_plus."""
        n, columns, c = len(self.z), self._columns, self._correlation
        move, move_plus = Columns.of(self.z, dz), Columns.of(self.z_plus, dz_plus)
        d, d_plus = move.b, move_plus.b
        s, s_plus = self._deviations
        weights = self._weights(c, 1.0)
        # of standardised views: t is the relative change of each deviation, the others the mean
        # products of one view with the change of the other
        t, t_plus = move.ab / (n * s), move_plus.ab / (n * s_plus)
        if not self.normalize:
            t, t_plus = np.zeros_like(t), np.zeros_like(t)
        cross = gram(columns.a, d_plus) / np.outer(n * s, s_plus) - c * (t_plus / s_plus)
        back = gram(d, columns.b) / np.outer(n * s, s_plus) - c * (t / s)[:, None]
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

    def hvp(self, z: Side, other: Side, d: Side, d_other: Side, normalize: bool) -> Floats:
        n, s, w = self.n, self.s, self.weights
        product = w.T / np.outer(self.s_other, n * s)
        moved = (
            self.change.T / np.outer(self.s_other, n * s)
            - product * (self.t_other / self.s_other)[:, None]
            - product * (self.t / s)
        )
        if not normalize:
            return mix(other, moved, out=mix(d_other, product))
        # the gradient by standardised rows along them, and how that changes
        b = np.sum(w * self.correlation, axis=1) / n
        slope = np.sum(w * (self.cross + self.back) + self.change * self.correlation, axis=1) / n
        out = mix(d_other, product, plus=d, weight=-b / s**2)
        along = (2.0 * self.t * b / s - slope) / s**2
        return mix(other, moved, plus=z, weight=along, out=out)
