"""The landscape of a loss on a batch of views: what training a linear model sees."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _plane
from pyssl._products import product_transposed
from pyssl.loss import Loss, Sample
from pyssl.moments import Moments
from pyssl.numerical import NumericalLandscape

__all__ = ["EmpiricalLandscape"]

Floats = npt.NDArray[Any]


class EmpiricalLandscape(NumericalLandscape):
    """L(W) = loss(x W' + b, x+ W' + b) + (g/2)||W||^2 on a batch of pairs of views.

    Made by `Loss.empirical`; answers to every method of `Landscape`.

    Parameters
    ----------
    loss : Loss
    x, x_plus : (n, d) ndarray
        float32 views are evaluated in float32 at a W of float32, else in float64.
    embedding_dim : int
    weight_decay : float
    bias : bool
        Whether W has a last column b that multiplies 1 and does not decay.

    Attributes
    ----------
    shape : tuple of int
        (k, d), or (k, d + 1) with a bias.
    moments : Moments
        Of the views.

    Notes
    -----
    Source: theory 3. Every evaluation costs the loss on n embeddings and the products with the
    views; a Hessian is made of Hessian-vector products, one for each entry of W.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((100, 3))
    >>> land = pyssl.NTXent().empirical(x, x + 0.1 * rng.standard_normal(x.shape), embedding_dim=2)
    >>> land.gradient(np.ones((2, 3))).shape
    (2, 3)
    """

    def __init__(
        self,
        loss: Loss,
        x: Floats,
        x_plus: Floats,
        embedding_dim: int,
        weight_decay: float,
        bias: bool,
    ) -> None:
        super().__init__((embedding_dim, x.shape[1] + int(bias)), weight_decay, bias)
        self.loss = loss
        self.scale_free = loss.scale_free
        self._views = {x.dtype: (x, x_plus)}
        self._source = x.dtype
        self._remake = partial(type(self), loss, x, x_plus, bias=bias)

    @cached_property
    def moments(self) -> Moments:
        """The moments of the views."""
        return Moments.from_views(*self._views[self._source])

    def _value(self, w: Floats) -> float:
        return self._sample(w).value()

    def _value_and_gradient(self, w: Floats) -> tuple[float, Floats]:
        value, by_embedding = self._sample(w).value_and_gradient()
        return value, self._pull(by_embedding)

    def _linearised(self, w: Floats) -> Callable[[Floats], Floats]:
        sample = self._sample(w)
        return lambda along: self._pull(sample.hvp(*self._embed(along)))

    def _working_dtype(self, dtype: Any) -> Any:
        return np.result_type(dtype, self._source)  # a float32 W meets float64 views in float64

    def _grid(self, W0: Floats, D1: Floats, D2: Floats, u: Floats, v: Floats) -> Floats:
        points = super()._grid
        if self.loss.polynomial and len(u) * len(v) > 25:
            return _interpolated(lambda a, b: points(W0, D1, D2, a, b), u, v)
        n = len(self._views[self._source][0])
        if not self.loss._plane_pays(n, self.embedding_dim, len(u), len(v)):
            return points(W0, D1, D2, u, v)
        # a plane around the middle of the grid keeps the most digits
        (u_center, u), (v_center, v) = (
            (middle, axis - middle)
            for axis, middle in ((a, 0.5 * (a.min() + a.max())) for a in (u, v))
        )
        origin = (W0 + u_center * D1 + v_center * D2).astype(W0.dtype, copy=False)
        corners = np.stack([origin, D1, D2])
        sides = zip(*(self._embed(w) for w in corners), strict=True)
        z, z_plus = (np.stack(side) for side in sides)
        weights = np.stack([self._decaying(w) for w in corners.astype(np.float64)])
        decay = 0.5 * self.weight_decay * _plane.trace(weights, weights)
        return self.loss._plane(z, z_plus, u, v) + _plane.polynomial(decay, None, u, v)

    def _sample(self, w: Floats) -> Sample:
        """Return the loss on the embeddings that w makes of the views."""
        return self.loss._sample(*self._embed(w))

    def _pair(self, dtype: Any) -> tuple[Floats, Floats]:
        """Return the views in a dtype."""
        if dtype not in self._views:
            x, x_plus = self._views[self._source]
            self._views[dtype] = x.astype(dtype), x_plus.astype(dtype)
        return self._views[dtype]

    def _embed(self, w: Floats) -> tuple[Floats, Floats]:
        """Return w times both views, (n, k) each."""
        x, x_plus = self._pair(w.dtype)
        matrix = np.ascontiguousarray(self._decaying(w))
        first, second = product_transposed(x, matrix), product_transposed(x_plus, matrix)
        if self.bias:
            first, second = first + w[:, -1], second + w[:, -1]
        return first, second

    def _pull(self, by_embedding: tuple[Floats, Floats]) -> Floats:
        """Return the gradient by W of one by the embeddings."""
        dz, dz_plus = by_embedding
        x, x_plus = self._pair(dz.dtype)
        out = np.empty(self.shape, dz.dtype)
        weights = self._decaying(out)
        weights[...] = dz.T @ x
        weights += dz_plus.T @ x_plus
        if self.bias:
            out[:, -1] = dz.sum(axis=0, dtype=np.float64) + dz_plus.sum(axis=0, dtype=np.float64)
        return out

    def __repr__(self) -> str:
        n = len(self._views[self._source][0])
        return (
            f"EmpiricalLandscape({self.loss!r}, n={n}, shape={self.shape},"
            f" weight_decay={self.weight_decay:g}, bias={self.bias})"
        )


def _interpolated(grid: Callable[[Floats, Floats], Floats], u: Floats, v: Floats) -> Floats:
    """Evaluate a polynomial of degree 4 in each variable on a grid, from 5 x 5 values of it.

    Between Chebyshev points, which loses no digits inside their range.
    """
    bases, nodes = [], []
    for axis in (u, v):
        low, high = float(axis.min()), float(axis.max())
        center, half = 0.5 * (low + high), 0.5 * (high - low) or 1.0
        points = np.cos(np.pi * (np.arange(5) + 0.5) / 5)
        scaled = (axis - center) / half
        chebyshev = np.polynomial.chebyshev.chebvander
        bases.append(np.linalg.solve(chebyshev(points, 4).T, chebyshev(scaled, 4).T).T)
        nodes.append(center + half * points)
    return np.asarray(bases[0] @ grid(*nodes) @ bases[1].T)
