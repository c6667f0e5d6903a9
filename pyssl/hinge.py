"""The population landscape of VICReg, whose minimum sits on the kinks of its hinge (theory 3.5)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyssl import _checks, _plane
from pyssl._pencil import descending, readonly
from pyssl._products import product, product_transposed
from pyssl.moments import Moments
from pyssl.numerical import NumericalLandscape
from pyssl.population import PopulationLandscape

if TYPE_CHECKING:
    from pyssl.redundancy_losses import VICReg

__all__ = ["VICRegLandscape"]

Floats = npt.NDArray[Any]


@dataclass(frozen=True)
class _Point:
    """What VICReg computes at one W."""

    matrix: Floats  # (k, d), W without the bias
    scaled: Floats  # (k, d), W Sigma
    gram: Floats  # (k, k), P = W Sigma W'

    @property
    def variance(self) -> Floats:
        """P_ii (k,), not below 0."""
        return np.asarray(np.maximum(np.diagonal(self.gram), 0.0))


class _SlopedVICReg(PopulationLandscape):
    """VICReg with slope theta_i of the hinge: theta_i (1 - sqrt(P_ii + eps)) for relu(.)."""

    def __init__(
        self, loss: VICReg, moments: Moments, embedding_dim: int, weight_decay: float, bias: bool
    ) -> None:
        super().__init__(loss, moments, embedding_dim, weight_decay, bias)
        k = embedding_dim
        self._epsilon = loss.epsilon
        # the factors of Tr[W C W'], of each unit's hinge and of sum_{i != j} P_ij^2
        self._invariance = 2.0 * loss.invariance / k
        self._hinge = loss.variance * (1.0 if loss.halve_variance else 2.0) / k
        self._covariance = 2.0 * loss.covariance / k

    @abstractmethod
    def _slopes(self, kinks: Floats) -> Floats:
        """Return theta for P_ii + eps - 1, both (..., k)."""

    def _at(self, w: Floats) -> _Point:
        matrix = self._matrix(w)
        scaled = product(matrix, self.moments.covariance)
        return _Point(matrix, scaled, product_transposed(scaled, matrix))

    def _kinks(self, variance: Floats) -> Floats:
        return np.asarray(variance + (self._epsilon - 1.0))

    def _of(self, gram: Floats, apart: Any) -> Floats:
        """Return the loss from P (..., k, k) and Tr[W C W'] (...)."""
        off = gram.copy()
        diagonal = np.einsum("...ii->...i", off)
        variance = np.maximum(diagonal, 0.0)
        hinges = self._slopes(self._kinks(variance)) * (1.0 - np.sqrt(variance + self._epsilon))
        diagonal[...] = 0.0
        return np.asarray(
            self._invariance * apart
            + self._hinge * np.sum(hinges, axis=-1)
            + self._covariance * np.einsum("...ij,...ij->...", off, off)
        )

    def _augmented(self, matrix: Floats) -> Floats:
        """Return W C, by which the invariance term pulls."""
        return product(matrix, self.moments.augmentation_covariance)

    def _mixing(self, point: _Point) -> Floats:
        """Return the matrix (k, k) by which W Sigma goes into the gradient."""
        matrix = (4.0 * self._covariance) * point.gram
        variance = point.variance
        pulls = self._slopes(self._kinks(variance)) / np.sqrt(variance + self._epsilon)
        np.fill_diagonal(matrix, -self._hinge * pulls)
        return np.asarray(matrix)

    def _value(self, w: Floats) -> float:
        point = self._at(w)
        return float(self._of(point.gram, _dot(self._augmented(point.matrix), point.matrix)))

    def _value_and_gradient(self, w: Floats) -> tuple[float, Floats]:
        point = self._at(w)
        augmented = self._augmented(point.matrix)
        value = self._of(point.gram, _dot(augmented, point.matrix))
        augmented *= 2.0 * self._invariance
        augmented += product(self._mixing(point), point.scaled)
        return float(value), self._full(augmented)

    def _linearised(self, w: Floats) -> Callable[[Floats], Floats]:
        point = self._at(w)
        mixing = self._mixing(point)
        variance = point.variance
        theta = self._slopes(self._kinks(variance))
        bend = self._hinge * theta / (variance + self._epsilon) ** 1.5

        def hvp(along: Floats) -> Floats:
            direction = self._matrix(along)
            cross = product_transposed(point.scaled, direction)
            change = (4.0 * self._covariance) * (cross + cross.T)
            np.fill_diagonal(change, bend * np.diagonal(cross))
            out = self._augmented(direction)
            out *= 2.0 * self._invariance
            out += product(mixing, product(direction, self.moments.covariance))
            out += product(change, point.scaled)
            return self._full(out)

        return hvp

    def _grid(self, W0: Floats, D1: Floats, D2: Floats, u: Floats, v: Floats) -> Floats:
        stack = np.stack([self._matrix(each) for each in (W0, D1, D2)])
        decay = 0.5 * self.weight_decay * _plane.trace(stack, stack)
        surface = _plane.polynomial(decay, None, u, v)
        grams = _plane.gram(product(stack, self.moments.covariance), stack)
        apart = _plane.trace(self._augmented(stack), stack)
        for index, coordinate in enumerate(u):
            on_line = _plane.monomials(coordinate, v)
            surface[index] += self._of(np.tensordot(on_line, grams, axes=1), on_line @ apart)
        return surface


class VICRegLandscape(_SlopedVICReg):
    """VICReg's population landscape, and the kinks that its minimum generically sits on.

    L(W) = inv 2 Tr[W C W']/k + var mean_i relu(1 - sqrt(P_ii + eps)) + cov 2 sum_{i != j} P_ij^2/k,
    P = W Sigma W'; ``halve_variance=False`` doubles the second term. Made by `VICReg.population`;
    answers to every method of `Landscape`.

    Parameters
    ----------
    loss : VICReg
    moments : Moments
    embedding_dim : int
    weight_decay : float
    bias : bool
        Whether W has a last column, on which nothing depends.

    Attributes
    ----------
    loss : VICReg
    moments : Moments
    origin_spectrum : (d,) ndarray
        Eigenvalues, descending, of B = (var/(2 sqrt(eps)) Sigma - 2 inv C)/k, where the Hessian at
        the origin is -2 I_k (x) (B - (g/2) I); without its first term for eps >= 1, where the hinge
        is never active.
    critical_weight_decay : (d,) ndarray
        The first is 2 max(0, b_1): from there on everything collapses. The others have no closed
        form: nan; 0 beyond the rank of Sigma.

    Notes
    -----
    Source: theory 3.5, 2.8. Unit i has its kink where c_i = P_ii + eps - 1 is 0, its hinge is
    active where c_i < 0; derivatives count it as inactive at c_i = 0, as those of the loss on a
    batch do. A solver moves along the kinks that it has found with `kinks` and `kink_normals`. W is
    stationary iff some slopes theta_i in [0, 1] of the hinges there make the gradient of
    `with_slopes(theta)` vanish: `kkt_residual` is what the best ones leave of it, and gives them.
    It is then a minimum to second order where the Hessian of `with_slopes(theta)` is positive on
    the directions that no normal of a kink with 0 < theta_i < 1 sees.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.8]))
    >>> land = pyssl.VICReg(epsilon=0.25).population(moments, embedding_dim=2)
    >>> land.origin_spectrum
    array([10. ,  7.5])
    >>> W = np.sqrt(0.75) * np.eye(2)
    >>> residual, theta = land.kkt_residual(W)
    >>> theta
    array([0.4, 0.8])
    >>> bool(residual < 1e-12)
    True
    """

    def __init__(
        self, loss: VICReg, moments: Moments, embedding_dim: int, weight_decay: float, bias: bool
    ) -> None:
        super().__init__(loss, moments, embedding_dim, weight_decay, bias)
        signal = -self._invariance * moments.augmentation_covariance
        if self._epsilon < 1.0:
            signal += 0.5 * self._hinge / math.sqrt(self._epsilon) * moments.covariance
        self.origin_spectrum = readonly(descending(signal))
        self.critical_weight_decay = self._critical(self.origin_spectrum, 1)

    def _slopes(self, kinks: Floats) -> Floats:
        return np.asarray(kinks < 0.0, dtype=np.float64)

    def kinks(self, W: npt.ArrayLike) -> Floats:
        """Return where each unit stands to the kink of its hinge.

        Parameters
        ----------
        W : (..., k, d) array_like

        Returns
        -------
        (..., k) ndarray
            c_i = P_ii + eps - 1: below 0 the hinge is active, above it is not.

        Raises
        ------
        ValueError
            For a wrong shape, NaN or infinity.
        TypeError
            For anything but real numbers.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.eye(2), 0.5 * np.eye(2))
        >>> land = pyssl.VICReg(epsilon=0.25).population(moments, embedding_dim=1)
        >>> land.kinks([[0.5, 0.5]])
        array([-0.25])
        """
        weights, working = self._weights(W)
        matrix = self._matrix(working)
        variance = np.sum(product(matrix, self.moments.covariance) * matrix, axis=-1)
        return self._kinks(variance).astype(weights.dtype, copy=False)

    def kink_normals(self, W: npt.ArrayLike) -> Floats:
        """Return the gradients of what `kinks` returns, each by its own row of W.

        Parameters
        ----------
        W : (..., k, d) array_like

        Returns
        -------
        (..., k, d) ndarray
            2 Sigma w_i, the gradient of c_i by row i; it does not depend on the other rows.

        Raises
        ------
        ValueError
            For a wrong shape, NaN or infinity.
        TypeError
            For anything but real numbers.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.eye(2), 0.5 * np.eye(2))
        >>> land = pyssl.VICReg().population(moments, embedding_dim=1, bias=True)
        >>> land.kink_normals([[0.5, 1.0, 7.0]])
        array([[1., 2., 0.]])
        """
        weights, working = self._weights(W)
        normals = np.zeros(weights.shape, weights.dtype)
        inner = normals[..., : self.moments.dim]
        inner[...] = 2.0 * product(self._matrix(working), self.moments.covariance)
        return normals

    def with_slopes(self, theta: npt.ArrayLike) -> NumericalLandscape:
        """Return the smooth landscape in which the hinges have given slopes.

        Parameters
        ----------
        theta : (k,) array_like
            In [0, 1]: relu(h_i) becomes theta_i h_i, h_i = 1 - sqrt(P_ii + eps). 1 where a hinge is
            active, 0 where it is not, and between them the multiplier of a kink.

        Returns
        -------
        NumericalLandscape
            With the weight decay and the bias of this one.

        Raises
        ------
        ValueError
            For a wrong shape, NaN, infinity or a slope outside [0, 1].
        TypeError
            For anything but real numbers.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.8]))
        >>> land = pyssl.VICReg(epsilon=0.25).population(moments, embedding_dim=2)
        >>> W = np.sqrt(0.75) * np.eye(2)
        >>> smooth = land.with_slopes([0.4, 0.8])
        >>> bool(abs(smooth.gradient(W)).max() < 1e-12)
        True
        """
        slopes = _checks.vector("theta", theta, self.embedding_dim)
        outside = slopes[(slopes < 0.0) | (slopes > 1.0)]
        if len(outside):
            raise ValueError(f"theta must be between 0 and 1, got {outside[0]:g}")
        return _FixedSlopes(self, readonly(slopes.copy()))

    def kkt_residual(self, W: npt.ArrayLike, tolerance: float = 1e-8) -> tuple[Any, Floats]:
        """Return how far W is from a stationary point, and the slopes of the hinges there.

        Parameters
        ----------
        W : (..., k, d) array_like
        tolerance : float, optional
            A unit with |c_i| at most this is on its kink; variances there are 1 - eps.

        Returns
        -------
        float or (...) ndarray
            The least Frobenius norm of a subgradient: of the gradient of `with_slopes(theta)`.
        (..., k) ndarray
            The slopes theta that reach it: 1 where a hinge is active, 0 where it is not, and on a
            kink whatever in [0, 1] leaves least of the gradient by that row.

        Raises
        ------
        ValueError
            For a wrong shape, NaN or infinity, or a negative tolerance.
        TypeError
            For anything but real numbers.

        Notes
        -----
        Source: theory 3.5. A row's slope only enters the gradient by that row, so the best slopes
        are projections, one a row.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.eye(1), 0.9 * np.eye(1))
        >>> land = pyssl.VICReg(epsilon=0.25).population(moments, embedding_dim=1)
        >>> residual, theta = land.kkt_residual([[0.0]])
        >>> float(residual), theta
        (0.0, array([1.]))
        """
        weights, working = self._weights(W)
        tolerance = _checks.real("tolerance", tolerance, minimum=0.0)
        theta = np.empty(weights.shape[:-1], weights.dtype)
        residuals = []
        flat = theta.reshape(-1, self.embedding_dim)
        for w, out in zip(self._flat(working), flat, strict=True):
            residual, out[...] = self._kkt(w, tolerance)
            residuals.append(residual)
        return self._shaped(residuals, weights), theta

    def _kkt(self, w: Floats, tolerance: float) -> tuple[float, Floats]:
        point = self._at(w)
        variance = point.variance
        mixing = self._mixing(point)
        np.fill_diagonal(mixing, 0.0)
        smooth = 2.0 * self._invariance * self._augmented(point.matrix)
        smooth += product(mixing, point.scaled)
        smooth += self.weight_decay * point.matrix
        # the gradient by row i is smooth - theta_i pull
        pull = point.scaled * (self._hinge / np.sqrt(variance + self._epsilon))[:, None]
        length = np.sum(pull * pull, axis=1)
        best = np.sum(smooth * pull, axis=1) / np.where(length > 0.0, length, 1.0)
        c = self._kinks(variance)
        theta = np.where(c < -tolerance, 1.0, np.where(c > tolerance, 0.0, best.clip(0.0, 1.0)))
        smooth -= theta[:, None] * pull
        return math.sqrt(float(np.sum(smooth * smooth))), theta


class _FixedSlopes(_SlopedVICReg):
    """The Lagrangian of the kinks: hinges of given slopes."""

    def __init__(self, land: VICRegLandscape, theta: Floats) -> None:
        loss: Any = land.loss
        super().__init__(loss, land.moments, land.embedding_dim, land.weight_decay, land.bias)
        self._theta = theta

    def _slopes(self, kinks: Floats) -> Floats:
        return self._theta


def _dot(a: Floats, b: Floats) -> float:
    return float(np.einsum("ij,ij->", a, b))
