"""Landscapes that are evaluated, not solved: one front door for all that have no closed form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl.landscape import Landscape, assemble_hessian

__all__ = ["NumericalLandscape"]

Floats = npt.NDArray[Any]


class NumericalLandscape(ABC):
    """A landscape L(W) = f(W) + (g/2)||W||^2 known by evaluation; f is what a subclass says.

    Answers to every method of `Landscape`: it validates, broadcasts over batches, adds the weight
    decay and settles dtypes. A subclass sees one finite W (k, d) at a time, in the dtype that
    `_working_dtype` chooses.

    Parameters
    ----------
    shape : tuple of int
        What W must be: (k, d), or (k, d + 1) with a bias.
    weight_decay : float
        g >= 0.
    bias : bool
        Whether the last column of W multiplies 1 and does not decay.

    Attributes
    ----------
    shape : tuple of int
    weight_decay : float
    bias : bool
    scale_free : bool
        Whether f does not change when W is multiplied by a number: then the origin is no point of
        it, and with weight decay it has no minimiser.

    Notes
    -----
    Source: theory 3, where no closed form is given.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> views = np.eye(3), np.eye(3)
    >>> land = pyssl.NTXent().empirical(*views, embedding_dim=2, weight_decay=0.1)
    >>> isinstance(land, pyssl.NumericalLandscape), land.shape
    (True, (2, 3))
    """

    scale_free: bool = False
    # the same landscape for another embedding_dim and weight_decay; what made it says so
    _remake: Callable[[int, float], Landscape] | None = None

    def __init__(self, shape: tuple[int, int], weight_decay: float, bias: bool) -> None:
        self.shape = shape
        self.weight_decay = weight_decay
        self.bias = bias

    # -- what a subclass says ----------------------------------------------------------------------

    @abstractmethod
    def _value(self, w: Floats) -> float:
        """Return f(w)."""

    @abstractmethod
    def _value_and_gradient(self, w: Floats) -> tuple[float, Floats]:
        """Return f(w) and its gradient (k, d), newly allocated."""

    @abstractmethod
    def _linearised(self, w: Floats) -> Callable[[Floats], Floats]:
        """Return the Hessian of f at w as a function of a direction (k, d).

        What depends on w alone is computed once: solvers ask for many directions.
        """

    def _working_dtype(self, dtype: Any) -> Any:
        """Return the dtype in which a W of `dtype` is evaluated."""
        return np.float64

    def _grid(self, W0: Floats, D1: Floats, D2: Floats, u: Floats, v: Floats) -> Floats:
        """Return L(W0 + u D1 + v D2), (len(u), len(v)), from weights in the working dtype.

        u and v are float64.
        """
        lines = [[self._total(W0 + a * D1 + b * D2) for b in v] for a in u]
        return np.array(lines, dtype=np.float64).reshape(len(u), len(v))

    # -- what users call ---------------------------------------------------------------------------

    @property
    def embedding_dim(self) -> int:
        """k, the number of rows of W."""
        return self.shape[0]

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
        weights, working = self._weights(W)
        return self._shaped([self._total(w) for w in self._flat(working)], weights)

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
        weights, working = self._weights(W)
        gradient = np.empty(weights.shape, weights.dtype)
        values = []
        for w, out in zip(self._flat(working), self._flat(gradient), strict=True):
            value, slope = self._value_and_gradient(w)
            values.append(value + self._decay(w))
            out[...] = self._with_decay(slope, w)
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
        return self._hvp(weights, direction)

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
        return assemble_hessian(self._hvp, weights)

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
        evaluations settle the plane of a batch. InfoNCE on a batch, unless normalised: the logits
        of a pair are a quadratic in (u, v) whose six coefficients cost nine inner products, and a
        point of the grid then costs one power a pair, whatever k and d are. Rounding errors are
        relative to the largest logit on the plane; where everything is float32, so is this. Grids
        too small for that, and other losses, take one evaluation a point.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> land = pyssl.SpectralContrastive().empirical(np.eye(2), np.eye(2), embedding_dim=1)
        >>> land.plane([[0.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]], [0.0, 1.0], [0.0]).round(12)
        array([[ 0.],
               [-1.]])
        """
        corners, (rows, columns), dtype = _checks.plane(self.shape, W0, D1, D2, u, v)
        working = self._working_dtype(dtype)
        origin, first, second = (corner.astype(working, copy=False) for corner in corners)
        return self._grid(origin, first, second, rows, columns).astype(dtype, copy=False)

    # -- machinery ---------------------------------------------------------------------------------

    def _weights(self, W: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Return validated weights as they came, and in the dtype that they are evaluated in."""
        weights = _checks.weights("W", W, self.shape)
        return weights, weights.astype(self._working_dtype(weights.dtype), copy=False)

    def _hvp(self, weights: Floats, direction: Floats) -> Floats:
        dtype = self._working_dtype(weights.dtype)
        batch = np.broadcast_shapes(weights.shape[:-2], direction.shape[:-2])
        result = np.empty((*batch, *self.shape), weights.dtype)
        # which W each direction meets: many directions at one W share what depends on it alone
        number = np.arange(weights[..., 0, 0].size).reshape(weights.shape[:-2])
        numbers = np.broadcast_to(number, batch).reshape(-1)
        every = weights.astype(dtype, copy=False).reshape(-1, *self.shape)
        along = np.broadcast_to(direction, result.shape).astype(dtype, copy=False)
        last = -1
        for which, d, out in zip(numbers, self._flat(along), self._flat(result), strict=True):
            if which != last:
                linearised, last = self._linearised(every[which]), int(which)
            out[...] = self._with_decay(linearised(d), d)
        return result

    def _flat(self, weights: Floats) -> Iterator[Floats]:
        return iter(weights.reshape(-1, *self.shape))

    def _shaped(self, values: list[float], weights: Floats) -> Any:
        return np.array(values, dtype=weights.dtype).reshape(weights.shape[:-2])[()]

    def _total(self, w: Floats) -> float:
        return self._value(w) + self._decay(w)

    def _decaying(self, w: Floats) -> Floats:
        return w[:, : self.shape[1] - int(self.bias)]

    def _decay(self, w: Floats) -> float:
        return (
            0.5 * self.weight_decay * float(np.sum(np.square(self._decaying(w), dtype=np.float64)))
        )

    def _with_decay(self, slope: Floats, w: Floats) -> Floats:
        """Add what the weight decay adds to a gradient at w, or to the Hessian along w."""
        inner = self._decaying(slope)
        inner += slope.dtype.type(self.weight_decay) * self._decaying(w)
        return slope
