"""The landscape of a loss on a batch of views: what training a linear model sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._products import product_transposed
from pyssl.landscape import assemble_hessian
from pyssl.loss import Loss

__all__ = ["EmpiricalLandscape"]

Floats = npt.NDArray[Any]


class EmpiricalLandscape:
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
        self.loss = loss
        self.embedding_dim = embedding_dim
        self.weight_decay = weight_decay
        self.bias = bias
        self.shape = (embedding_dim, x.shape[1] + int(bias))
        self._views = {x.dtype: (x, x_plus)}
        self._source = x.dtype

    def value(self, W: npt.ArrayLike) -> Any:
        """Evaluate the landscape.

        Parameters
        ----------
        W : (..., k, d) array_like

        Returns
        -------
        float or (...) ndarray

        Raises
        ------
        ValueError
            For a wrong shape, NaN or infinity.
        TypeError
            For anything but real numbers.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> land = pyssl.SpectralContrastive().empirical(np.eye(2), np.eye(2), embedding_dim=1)
        >>> land.value([[[1.0, 0.0]], [[0.0, 0.0]]])
        array([-1.,  0.])
        """
        weights = _checks.weights("W", W, self.shape)
        values = [
            self.loss._sample(*self._embed(w)).value() + self._decay(w) for w in self._flat(weights)
        ]
        return self._shaped(values, weights)

    def gradient(self, W: npt.ArrayLike) -> Floats:
        """Evaluate the gradient.

        Parameters
        ----------
        W : (..., k, d) array_like

        Returns
        -------
        (..., k, d) ndarray

        Raises
        ------
        ValueError
            For a wrong shape, NaN or infinity.
        TypeError
            For anything but real numbers.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> land = pyssl.SpectralContrastive().empirical(np.eye(2), np.eye(2), embedding_dim=1)
        >>> land.gradient([[1.0, 0.0]])
        array([[-2.,  0.]])
        """
        return self.value_and_gradient(W)[1]

    def value_and_gradient(self, W: npt.ArrayLike) -> tuple[Any, Floats]:
        """Evaluate the landscape and its gradient together.

        Parameters
        ----------
        W : (..., k, d) array_like

        Returns
        -------
        float or (...) ndarray
            L(W).
        (..., k, d) ndarray
            Its gradient.

        Raises
        ------
        ValueError
            For a wrong shape, NaN or infinity.
        TypeError
            For anything but real numbers.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> land = pyssl.SpectralContrastive().empirical(np.eye(2), np.eye(2), embedding_dim=1)
        >>> value, gradient = land.value_and_gradient([[1.0, 0.0]])
        >>> float(value), gradient
        (-1.0, array([[-2.,  0.]]))
        """
        weights = _checks.weights("W", W, self.shape)
        gradient = np.empty_like(weights)
        values = []
        for w, out in zip(self._flat(weights), self._flat(gradient), strict=True):
            value, by_embedding = self.loss._sample(*self._embed(w)).value_and_gradient()
            values.append(value + self._decay(w))
            out[...] = self._pull(by_embedding, w)
        return self._shaped(values, weights), gradient

    def hvp(self, W: npt.ArrayLike, D: npt.ArrayLike) -> Floats:
        """Apply the Hessian at W to a direction.

        Parameters
        ----------
        W : (..., k, d) array_like
        D : (..., k, d) array_like
            Broadcasts against W.

        Returns
        -------
        (..., k, d) ndarray

        Raises
        ------
        ValueError
            For a wrong shape, NaN or infinity, or shapes that do not broadcast.
        TypeError
            For anything but real numbers.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> land = pyssl.SpectralContrastive().empirical(np.eye(2), np.eye(2), embedding_dim=1)
        >>> land.hvp([[0.0, 0.0]], [[1.0, 0.0]])
        array([[-2.,  0.]])
        """
        weights = _checks.weights("W", W, self.shape)
        direction = _checks.weights("D", D, self.shape)
        weights, direction = _checks.one_dtype("W", weights, "D", direction)
        weights, direction = np.broadcast_arrays(weights, direction)
        result = np.empty(weights.shape, weights.dtype)
        triples = zip(self._flat(weights), self._flat(direction), self._flat(result), strict=True)
        for w, along, out in triples:
            change = self.loss._sample(*self._embed(w)).hvp(*self._embed(along))
            out[...] = self._pull(change, along)
        return result

    def hessian(self, W: npt.ArrayLike) -> Floats:
        """Assemble the Hessian.

        Parameters
        ----------
        W : (..., k, d) array_like

        Returns
        -------
        (..., k*d, k*d) ndarray
            In C order of W.

        Raises
        ------
        ValueError
            For a wrong shape, NaN or infinity.
        TypeError
            For anything but real numbers.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> land = pyssl.SpectralContrastive().empirical(np.eye(2), np.eye(2), embedding_dim=1)
        >>> land.hessian([[0.0, 0.0]])
        array([[-2.,  0.],
               [ 0., -2.]])
        """
        weights = _checks.weights("W", W, self.shape)
        return assemble_hessian(self.hvp, weights)

    def plane(
        self,
        W0: npt.ArrayLike,
        D1: npt.ArrayLike,
        D2: npt.ArrayLike,
        u: npt.ArrayLike,
        v: npt.ArrayLike,
    ) -> Floats:
        """Evaluate the landscape on a grid in a plane.

        Parameters
        ----------
        W0, D1, D2 : (k, d) array_like
            Origin and the two directions of the plane.
        u, v : (m,), (n,) array_like
            Coordinates along D1 and D2.

        Returns
        -------
        (m, n) ndarray
            L(W0 + u_i D1 + v_j D2).

        Raises
        ------
        ValueError
            For a wrong shape, NaN or infinity.
        TypeError
            For anything but real numbers.

        Notes
        -----
        Source: theory 2.8. Where the loss is a polynomial of degree 4 in W (`Loss.polynomial`), 25
        evaluations settle the plane; else each point costs one.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> land = pyssl.SpectralContrastive().empirical(np.eye(2), np.eye(2), embedding_dim=1)
        >>> land.plane([[0.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]], [0.0, 1.0], [0.0]).round(12)
        array([[ 0.],
               [-1.]])
        """
        (origin, first, second), (rows, columns), dtype = _checks.plane(
            self.shape, W0, D1, D2, u, v
        )

        def grid(a: Floats, b: Floats) -> Floats:
            lines = [self.value(origin + x * first + b[:, None, None] * second) for x in a]
            return np.asarray(lines).reshape(len(a), len(b))

        if self.loss.polynomial and len(rows) * len(columns) > 25:
            surface = _interpolated(grid, rows, columns)
        else:
            surface = grid(rows, columns)
        return surface.astype(dtype, copy=False)

    # -- machinery ---------------------------------------------------------------------------------

    def _flat(self, weights: Floats) -> Iterator[Floats]:
        return iter(weights.reshape(-1, *self.shape))

    def _shaped(self, values: list[float], weights: Floats) -> Any:
        return np.array(values, dtype=weights.dtype).reshape(weights.shape[:-2])[()]

    def _pair(self, dtype: Any) -> tuple[Floats, Floats]:
        """Return the views in a dtype; a float32 W meets float64 views in float64."""
        wanted = np.result_type(dtype, self._source)
        if wanted not in self._views:
            x, x_plus = self._views[self._source]
            self._views[wanted] = x.astype(wanted), x_plus.astype(wanted)
        return self._views[wanted]

    def _embed(self, w: Floats) -> tuple[Floats, Floats]:
        """Return w times both views, (n, k) each."""
        x, x_plus = self._pair(w.dtype)
        matrix = np.ascontiguousarray(w[:, : x.shape[1]], dtype=x.dtype)
        first, second = product_transposed(x, matrix), product_transposed(x_plus, matrix)
        if self.bias:
            offset = w[:, -1].astype(x.dtype)
            first, second = first + offset, second + offset
        return first, second

    def _pull(self, by_embedding: tuple[Floats, Floats], decayed: Floats) -> Floats:
        """Return the gradient by W of one by the embeddings, the weight decay's added."""
        dz, dz_plus = by_embedding
        x, x_plus = self._pair(decayed.dtype)
        columns = x.shape[1]
        out = np.empty(self.shape, x.dtype)
        out[:, :columns] = dz.T @ x
        out[:, :columns] += dz_plus.T @ x_plus
        out[:, :columns] += x.dtype.type(self.weight_decay) * decayed[:, :columns]
        if self.bias:
            out[:, -1] = dz.sum(axis=0, dtype=np.float64) + dz_plus.sum(axis=0, dtype=np.float64)
        return out

    def _decay(self, w: Floats) -> float:
        matrix = w[:, : self.shape[1] - int(self.bias)]
        return 0.5 * self.weight_decay * float(np.sum(np.square(matrix, dtype=np.float64)))

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
