"""The spectral contrastive loss on embeddings (theory 3.3)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pyssl._gram import Doubles, Floats, Pair, Side, divide, gram, mix, plain, row_moments, spread

_ROWS = 8192  # rows at a time in what is done between the kernels: temporaries stay small


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
        first, _, second = row_moments(self.z, self.z_plus)
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
        divide(self.clip, *gradients)
        first, second = self._clips
        return first.pull(gradients[0]), second.pull(gradients[1])

    def finite(self) -> bool:
        """Return whether the embeddings are finite: the products of the positives show it."""
        return bool(np.isfinite(self._inner.positives.sum()))

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
        divide(self.clip, *changes, *gradients)
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

    def finite(self) -> bool:
        return self.inner.finite()

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
class _Negatives(ABC):
    """The loss of rows that are clipped already."""

    z: Side
    z_plus: Side
    positives: Doubles
    all: bool

    @staticmethod
    def of(z: Floats, z_plus: Floats, every: bool) -> _Negatives:
        n, k = z.shape
        squares, positives, squares_plus = row_moments(z, z_plus)
        sides = plain(z, spread(squares, k)), plain(z_plus, spread(squares_plus, k))
        # With n <= k the n x n matrix is the smaller one, and the sum over i != j, which then may
        # be small beside that over i = j, needs no subtraction.
        kind = _Small if n <= k else _Large
        return kind(*sides, positives, every)

    @property
    def weight(self) -> float:
        """Return one over the number of negatives."""
        n = len(self.positives)
        return 1.0 / (n * n) if self.all else 1.0 / (n * (n - 1))

    @abstractmethod
    def sum_of_squares(self) -> float:
        """Return the sum of (z_i.z+_j)^2 over the negatives."""

    @abstractmethod
    def gradient(self) -> Pair:
        """Return the gradients by z and z_plus."""

    @abstractmethod
    def hvp(self, dz: Floats, dz_plus: Floats) -> Pair:
        """Return the Hessian applied to a direction."""


@dataclass(frozen=True)
class _Large(_Negatives):
    """Sums over pairs from Gram matrices."""

    @cached_property
    def grams(self) -> tuple[Doubles, Doubles]:
        return gram(self.z), gram(self.z_plus)

    @cached_property
    def _all_squares(self) -> float:
        return float(np.sum(self.grams[0] * self.grams[1]))

    def sum_of_squares(self) -> float:
        total = self._all_squares
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
            mix(self.z, c * second, plus=self.z_plus, rows=rows, weight=1.0),
            mix(self.z_plus, c * first, plus=self.z, rows=rows, weight=1.0),
        )

    def hvp(self, dz: Floats, dz_plus: Floats) -> Pair:
        k = dz.shape[1]
        first, second = self.grams
        squares, along, _ = row_moments(dz, self.z_plus.data)
        squares_plus, along_plus, _ = row_moments(dz_plus, self.z.data)
        d, d_plus = plain(dz, spread(squares, k)), plain(dz_plus, spread(squares_plus, k))
        cross, cross_plus = gram(self.z, d), gram(self.z_plus, d_plus)
        c, rows = 2.0 * self.weight, self._pull()
        change = np.zeros_like(along) if self.all else -c * (along + along_plus)
        h = mix(d, c * second, plus=d_plus, rows=rows, weight=1.0)
        h_plus = mix(d_plus, c * first, plus=d, rows=rows, weight=1.0)
        moved, moved_plus = c * (cross + cross.T), c * (cross_plus + cross_plus.T)
        mix(self.z, moved_plus, plus=self.z_plus, rows=change, weight=1.0, out=h)
        mix(self.z_plus, moved, plus=self.z, rows=change, weight=1.0, out=h_plus)
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

    def _products(self, *pairs: tuple[Floats, Floats]) -> Side:
        """Return the sum of a b' over pairs; 0 for positives that are no negatives."""
        out: Floats | None = None
        for a, b in pairs:
            out = mix(plain(a, 1.0), b.T.astype(np.float64), out=out)
        assert out is not None
        if not self.all:
            np.fill_diagonal(out, 0.0)
        return plain(out, float(np.sqrt(np.mean(np.square(out, dtype=np.float64)))))

    @cached_property
    def _matrix(self) -> Side:
        return self._products(self._unit)

    def sum_of_squares(self) -> float:
        return float(np.sum(np.square(self._matrix.data, dtype=np.float64))) * self._size**2

    @staticmethod
    def _transposed(side: Side) -> Side:
        return plain(np.ascontiguousarray(side.data.T), float(side.size[0]))

    def gradient(self) -> Pair:
        s, c, pull = self._matrix, 2.0 * self.weight * self._size, -2.0 / len(self.positives)
        return (
            mix(s, c * self.z_plus.data.astype(np.float64), plus=self.z_plus, weight=pull),
            mix(self._transposed(s), c * self.z.data.astype(np.float64), plus=self.z, weight=pull),
        )

    def hvp(self, dz: Floats, dz_plus: Floats) -> Pair:
        k = dz.shape[1]
        squares, _, squares_plus = row_moments(dz, dz_plus)
        d, d_plus = plain(dz, spread(squares, k)), plain(dz_plus, spread(squares_plus, k))
        unit, unit_plus = self._unit
        # a direction by the size of its own view: products of both sums have one size
        move = (dz / self.z.size).astype(dz.dtype)
        move_plus = (dz_plus / self.z_plus.size).astype(dz.dtype)
        s, change = self._matrix, self._products((move, unit_plus), (unit, move_plus))
        c, pull = 2.0 * self.weight * self._size, -2.0 / len(self.positives)
        h = mix(s, c * dz_plus.astype(np.float64), plus=d_plus, weight=pull)
        h_plus = mix(self._transposed(s), c * dz.astype(np.float64), plus=d, weight=pull)
        mix(change, c * self.z_plus.data.astype(np.float64), out=h)
        mix(self._transposed(change), c * self.z.data.astype(np.float64), out=h_plus)
        return h, h_plus
