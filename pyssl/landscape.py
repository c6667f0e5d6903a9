"""Landscapes over the weights of a linear model: what they answer, and how spectral ones do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pyssl import _checks, _core, _plane
from pyssl._pencil import readonly
from pyssl._products import add_product, product, product_transposed
from pyssl._threads import get_num_threads
from pyssl.potentials import Potential, Quartic
from pyssl.stationary import Modes

__all__ = ["Landscape", "ModeLandscape", "SpectralEvaluation"]

Floats = npt.NDArray[Any]

# Below this many weights and above this many matrices the batched kernel beats BLAS, whose calls
# then cost more than their arithmetic (benchmarks/bench_landscape.py measures both).
_KERNEL_MAXIMUM_WEIGHTS = 1024
_KERNEL_MINIMUM_BATCH = 8


@runtime_checkable
class Landscape(Protocol):
    """A function of the weights W (k, d) with derivatives; every landscape answers to these.

    W may be any batch (..., k, d); results drop the last two axes. float32 in gives float32 out,
    everything else is float64.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> land = pyssl.SpectralLandscape(np.eye(2), np.eye(2), pyssl.Quartic(1.0), embedding_dim=1)
    >>> isinstance(land, pyssl.Landscape)
    True
    """

    @property
    def shape(self) -> tuple[int, int]:
        """What one W must be: (k, d)."""
        ...

    def value(self, W: npt.ArrayLike) -> Any:
        """Return L(W)."""
        ...

    def gradient(self, W: npt.ArrayLike) -> Floats:
        """Return the gradient of L, with the shape of W."""
        ...

    def value_and_gradient(self, W: npt.ArrayLike) -> tuple[Any, Floats]:
        """Return both at less than the cost of each."""
        ...

    def hvp(self, W: npt.ArrayLike, D: npt.ArrayLike) -> Floats:
        """Return the Hessian at W applied to the direction D."""
        ...

    def hessian(self, W: npt.ArrayLike) -> Floats:
        """Return the Hessian (..., k*d, k*d), in C order of W."""
        ...

    def plane(
        self,
        W0: npt.ArrayLike,
        D1: npt.ArrayLike,
        D2: npt.ArrayLike,
        u: npt.ArrayLike,
        v: npt.ArrayLike,
    ) -> Floats:
        """Return L(W0 + u D1 + v D2), (len(u), len(v))."""
        ...


class SpectralEvaluation:
    """L(W) = -Tr[W B W'] + Tr r(W S W') + constant, whatever B and S look like."""

    potential: Potential
    constant: float
    shape: tuple[int, int]

    # -- what a subclass says ----------------------------------------------------------------------

    def _times_signal(self, W: Floats) -> Floats:
        """Return W B (..., k, d), newly allocated."""
        raise NotImplementedError

    def _times_scale(self, W: Floats) -> Floats:
        """Return W S (..., k, d)."""
        raise NotImplementedError

    def _dense(self, dtype: Any) -> tuple[Floats, Floats]:
        """Return B and S as (d, d) arrays."""
        raise NotImplementedError

    # -- what they share ---------------------------------------------------------------------------

    def value(self, W: npt.ArrayLike) -> Any:
        """Evaluate the landscape.

        Parameters
        ----------
        W : (..., k, d) array_like

        Returns
        -------
        float or (...) ndarray
            L(W), one for each matrix.

        Raises
        ------
        ValueError
            For a wrong shape, NaN or infinity.
        TypeError
            For anything but real numbers.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> land = pyssl.SpectralLandscape(np.eye(2), np.eye(2), pyssl.Quartic(1.0), 1)
        >>> land.value([[[0.0, 0.0]], [[1.0, 1.0]]])
        array([0., 2.])
        """
        weights = _checks.weights("W", W, self.shape, check_finite=False)
        batch = self._kernel_batch(weights)
        if batch is not None:
            values: Floats = np.empty(len(batch), batch.dtype)
            _core.quartic_value(
                batch, *self._dense(batch.dtype), self._q, values, get_num_threads()
            )
            values += values.dtype.type(self.constant)
            _checks.finite_unless(values, W=weights)
            values = values.reshape(weights.shape[:-2])
        else:
            _checks.finite("W", weights)
            gram = product_transposed(self._times_scale(weights), weights)
            linear = inner(self._times_signal(weights), weights)
            values = (self._potential_value(gram) - linear + self.constant).astype(weights.dtype)
        return values[()]

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
        >>> land = pyssl.SpectralLandscape(np.eye(2), np.eye(2), pyssl.Quartic(1.0), 1)
        >>> land.gradient([[1.0, 1.0]])
        array([[6., 6.]])
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
            -2 W B + 2 r'(W S W') W S.

        Raises
        ------
        ValueError
            For a wrong shape, NaN or infinity.
        TypeError
            For anything but real numbers.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> land = pyssl.SpectralLandscape(np.eye(2), np.eye(2), pyssl.Quartic(1.0), 1)
        >>> value, gradient = land.value_and_gradient([[1.0, 1.0]])
        >>> float(value), gradient
        (2.0, array([[6., 6.]]))
        """
        weights = _checks.weights("W", W, self.shape, check_finite=False)
        batch = self._kernel_batch(weights)
        if batch is not None:
            values: Floats = np.empty(len(batch), batch.dtype)
            gradient: Floats = np.empty_like(batch)
            _core.quartic_value_and_gradient(
                batch, *self._dense(batch.dtype), self._q, values, gradient, get_num_threads()
            )
            values += values.dtype.type(self.constant)
            _checks.finite_unless(values, W=weights)
            values, gradient = values.reshape(weights.shape[:-2]), gradient.reshape(weights.shape)
        else:
            _checks.finite("W", weights)
            gradient = self._times_signal(weights)
            scaled = self._times_scale(weights)
            linear = inner(gradient, weights)
            gram = product_transposed(scaled, weights)
            potential, slope = self._potential_slope(gram)
            gradient *= -2.0
            add_product(gradient, (2.0 * slope).astype(weights.dtype, copy=False), scaled)
            values = (potential - linear + self.constant).astype(weights.dtype)
        return values[()], gradient

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
        >>> land = pyssl.SpectralLandscape(np.eye(2), np.eye(2), pyssl.Quartic(1.0), 1)
        >>> land.hvp(np.zeros((1, 2)), [[1.0, 0.0]])
        array([[-2.,  0.]])
        """
        weights = _checks.weights("W", W, self.shape, check_finite=False)
        direction = _checks.weights("D", D, self.shape, check_finite=False)
        weights, direction = _checks.one_dtype("W", weights, "D", direction)
        if weights.shape == direction.shape:
            batch = self._kernel_batch(weights)
            if batch is not None:
                out = np.empty_like(batch)
                _core.quartic_hvp(
                    batch,
                    direction.reshape(batch.shape),
                    *self._dense(batch.dtype),
                    self._q,
                    out,
                    get_num_threads(),
                )
                _checks.finite_unless(out, W=weights, D=direction)
                return out.reshape(weights.shape)
        _checks.finite("W", weights)
        _checks.finite("D", direction)
        return self._hvp(weights, direction)

    def hessian(self, W: npt.ArrayLike) -> Floats:
        """Assemble the Hessian.

        Parameters
        ----------
        W : (..., k, d) array_like

        Returns
        -------
        (..., k*d, k*d) ndarray
            In C order of W: entry (i*d + a, j*d + b) is the derivative by W[i, a] and W[j, b].

        Raises
        ------
        ValueError
            For a wrong shape, NaN or infinity.
        TypeError
            For anything but real numbers.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> land = pyssl.SpectralLandscape(np.eye(2), np.eye(2), pyssl.Quartic(1.0), 1)
        >>> land.hessian(np.zeros((1, 2)))
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
        Source: theory 2.8. A quartic landscape is a polynomial of degree 4 on the plane, whose 15
        coefficients come from Gram matrices; for other potentials each point costs the eigenvalues
        of a k x k matrix.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> land = pyssl.SpectralLandscape(np.eye(2), np.eye(2), pyssl.Quartic(1.0), 1)
        >>> land.plane([[0.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]], [0.0, 1.0], [0.0, 1.0])
        array([[0., 0.],
               [0., 2.]])
        """
        corners, (u64, v64), dtype = _checks.plane(self.shape, W0, D1, D2, u, v)
        stack = np.stack(corners)
        second = -_plane.trace(self._times_signal(stack), stack)
        second[0] += self.constant
        grams = _plane.gram(self._times_scale(stack), stack)
        if isinstance(self.potential, Quartic):
            fourth = self._q * np.einsum("pij,qij->pq", grams, grams)
            return np.asarray(_plane.polynomial(second, fourth, u64, v64), dtype=dtype)
        surface = _plane.polynomial(second, None, u64, v64)
        for index, coordinate in enumerate(u64):
            on_line = np.tensordot(_plane.monomials(coordinate, v64), grams, axes=1)
            surface[index] += self._potential_value(on_line)
        return np.asarray(surface, dtype=dtype)

    # -- machinery ---------------------------------------------------------------------------------

    @property
    def _q(self) -> float:
        assert isinstance(self.potential, Quartic)
        return self.potential.coefficient

    def _kernel_batch(self, weights: Floats) -> Floats | None:
        """Return the weights as (N, k, d) if the batched kernel is the way to evaluate them."""
        k, d = self.shape
        if weights.ndim == 2 or not isinstance(self.potential, Quartic):
            return None
        if k * d > _KERNEL_MAXIMUM_WEIGHTS or weights.size < _KERNEL_MINIMUM_BATCH * k * d:
            return None
        return weights.reshape(-1, k, d)

    def _potential_value(self, gram: Floats) -> Floats:
        """Return Tr r(P) for P (..., k, k)."""
        if isinstance(self.potential, Quartic):
            return np.asarray(self._q * inner(gram, gram))
        n = np.linalg.eigvalsh(gram.astype(np.float64, copy=False))
        return np.asarray(self.potential.value(np.maximum(n, 0.0)).sum(axis=-1))

    def _potential_slope(self, gram: Floats) -> tuple[Floats, Floats]:
        """Return Tr r(P) and r'(P) for P (..., k, k)."""
        if isinstance(self.potential, Quartic):
            return self._potential_value(gram), gram * (2.0 * self._q)
        n, basis = np.linalg.eigh(gram.astype(np.float64, copy=False))
        n = np.maximum(n, 0.0)  # P >= 0: what lies below is rounding
        slope = (basis * self.potential.slope(n)[..., None, :]) @ np.swapaxes(basis, -1, -2)
        return np.asarray(self.potential.value(n).sum(axis=-1)), slope

    def _hvp(self, weights: Floats, direction: Floats) -> Floats:
        return self._linearised(weights)(direction)

    def _linearised(self, weights: Floats) -> Callable[[Floats], Floats]:
        """Return the Hessian as a function of a direction, which broadcasts against the weights.

        -2 D B + 2 [r'(P) D S + (d r'(P)) W S] with BLAS. What depends on the weights alone, their
        eigendecomposition foremost, is computed once.
        """
        scaled = self._times_scale(weights)
        gram = product_transposed(scaled, weights)
        basis = transposed = quotient = None
        if isinstance(self.potential, Quartic):
            slope: Floats = gram * (2.0 * self._q)
        else:
            n, basis = np.linalg.eigh(gram.astype(np.float64, copy=False))
            n = np.maximum(n, 0.0)
            transposed = np.swapaxes(basis, -1, -2)
            slope = (basis * self.potential.slope(n)[..., None, :]) @ transposed
            # the derivative of a matrix function, by divided differences in its eigenbasis
            quotient = self.potential.slope_quotient(n[..., :, None], n[..., None, :])

        def along(direction: Floats) -> Floats:
            cross = scaled @ np.swapaxes(direction, -1, -2)
            change = cross + np.swapaxes(cross, -1, -2)
            if quotient is None:
                slope_change: Floats = change * (2.0 * self._q)
            else:
                slope_change = basis @ (quotient * (transposed @ change @ basis)) @ transposed
            dtype = direction.dtype
            result = slope.astype(dtype, copy=False) @ self._times_scale(direction)
            result += slope_change.astype(dtype, copy=False) @ scaled
            result -= self._times_signal(direction)
            result *= 2.0
            return np.asarray(result)

        return along


class ModeLandscape(SpectralEvaluation):
    """A spectral landscape in the coordinates U (k, m) of its modes, where B and S are diagonal.

    L = -sum_j lambda_j |u_j|^2 + Tr r(U U') + constant over the columns u_j of U, m = rank S: value
    and gradient cost O(k^2 m) instead of O(k d^2). Made by `SpectralLandscape.in_modes`; answers to
    every method of `Landscape`.

    Parameters
    ----------
    modes : Modes
        Solution of the pencil.
    potential : Potential
    embedding_dim : int
    constant : float

    Notes
    -----
    Source: theory 2.6.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> land = pyssl.SpectralLandscape(np.diag([2.0, 1.0]), np.eye(2), pyssl.Quartic(1.0), 2)
    >>> modes = land.in_modes()
    >>> W = np.array([[1.0, 2.0], [0.0, 1.0]])
    >>> bool(np.isclose(modes.value(modes.from_weights(W)), land.value(W)))
    True
    """

    def __init__(
        self, modes: Modes, potential: Potential, embedding_dim: int, constant: float
    ) -> None:
        inside = modes.signature > 0
        self.eigenvalues = readonly(modes.eigenvalues[inside])
        self.potential = potential
        self.constant = constant
        self.shape = (embedding_dim, len(self.eigenvalues))
        # in C order, which the products read without a copy
        self._vectors = np.ascontiguousarray(modes.vectors[:, inside])
        self._covectors = np.ascontiguousarray(modes.covectors[:, inside])

    def from_weights(self, W: npt.ArrayLike) -> Floats:
        """Return the mode coordinates of weights.

        Parameters
        ----------
        W : (..., k, d) array_like

        Returns
        -------
        (..., k, m) ndarray
            U = W S V. Where S is singular, what W does on its null space is dropped.

        Raises
        ------
        ValueError
            For a wrong shape, NaN or infinity.
        TypeError
            For anything but real numbers.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> land = pyssl.SpectralLandscape(np.eye(1), 4 * np.eye(1), pyssl.Quartic(1.0), 1)
        >>> abs(land.in_modes().from_weights([[3.0]]))
        array([[6.]])
        """
        weights = _checks.weights("W", W, (self.shape[0], len(self._covectors)))
        return product(weights, self._covectors.astype(weights.dtype, copy=False))

    def to_weights(self, U: npt.ArrayLike) -> Floats:
        """Return the weights with the given mode coordinates.

        Parameters
        ----------
        U : (..., k, m) array_like

        Returns
        -------
        (..., k, d) ndarray
            W = U V'. Where S is singular, at its optimum on the null space (theory 2.5).

        Raises
        ------
        ValueError
            For a wrong shape, NaN or infinity.
        TypeError
            For anything but real numbers.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> land = pyssl.SpectralLandscape(np.eye(1), 4 * np.eye(1), pyssl.Quartic(1.0), 1)
        >>> abs(land.in_modes().to_weights([[6.0]]))
        array([[3.]])
        """
        coordinates = _checks.weights("U", U, self.shape)
        return product_transposed(coordinates, self._vectors.astype(coordinates.dtype, copy=False))

    def gradient_to_weights(self, G: npt.ArrayLike) -> Floats:
        """Turn a gradient by U into the gradient by W, dL/dW = (dL/dU) V'S.

        Parameters
        ----------
        G : (..., k, m) array_like

        Returns
        -------
        (..., k, d) ndarray
            Where S is singular, the gradient at the optimum on its null space.

        Raises
        ------
        ValueError
            For a wrong shape, NaN or infinity.
        TypeError
            For anything but real numbers.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> land = pyssl.SpectralLandscape(np.eye(1), 4 * np.eye(1), pyssl.Quartic(1.0), 1)
        >>> modes = land.in_modes()
        >>> gradient = modes.gradient(modes.from_weights([[3.0]]))
        >>> bool(np.isclose(modes.gradient_to_weights(gradient), land.gradient([[3.0]])).all())
        True
        """
        gradient = _checks.weights("G", G, self.shape)
        return product_transposed(gradient, self._covectors.astype(gradient.dtype, copy=False))

    def _times_signal(self, W: Floats) -> Floats:
        return np.asarray(W * self.eigenvalues.astype(W.dtype, copy=False))

    def _times_scale(self, W: Floats) -> Floats:
        return W

    def _dense(self, dtype: Any) -> tuple[Floats, Floats]:
        return np.diag(self.eigenvalues).astype(dtype), np.eye(self.shape[1], dtype=dtype)

    def __repr__(self) -> str:
        return f"ModeLandscape(shape={self.shape}, potential={self.potential!r})"


def assemble_hessian(hvp: Callable[[Floats, Floats], Floats], weights: Floats) -> Floats:
    """Return the Hessian (..., k*d, k*d) at `weights` (..., k, d), a product for each column."""
    k, d = weights.shape[-2:]
    basis = np.eye(k * d, dtype=weights.dtype).reshape(k * d, k, d)
    columns = hvp(weights[..., None, :, :], basis)
    result = columns.reshape(*weights.shape[:-2], k * d, k * d)
    return np.asarray(0.5 * (result + np.swapaxes(result, -1, -2)))


def inner(a: Floats, b: Floats) -> Floats:
    """Return sum a*b over the last two axes, in double."""
    if a.ndim == 2:
        # not by BLAS: its threads, woken for this, would spin on the cores that our own need next
        rows = np.empty(len(a))
        _core.row_dots(
            np.ascontiguousarray(a), np.ascontiguousarray(b), rows, num_threads=get_num_threads()
        )
        return np.asarray(rows.sum())
    return np.asarray(np.einsum("...ij,...ij->...", a, b), dtype=np.float64)
