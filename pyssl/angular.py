"""NT-Xent with exact angular moments: quadrature over modes, and its minimum (theory 3.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._cosine import water_filling
from pyssl._pencil import Array, readonly
from pyssl.normalized import NTXentLandscape
from pyssl.stationary import Minimum

__all__ = ["AngularNTXentLandscape"]

Floats = npt.NDArray[Any]

# Steps of the trapezoidal rule in the logarithms of radius and angle, and what is cut off the
# tail: together below 1e-9 of the moments (measured against steps of a third of these).
_RADIUS_STEP, _ANGLE_STEP, _TAIL = 0.25, 0.3, 27.0
_BLOCK = 1 << 19  # entries of the (nodes, d) arrays held at a time
# How far W Sigma W' and W A W' may be from commuting, relative to |W Sigma W'|^2.
_COMMUTING = 1e-9
# Shares of the spectrum smaller than this are none.
_LEAST = 1e-12


@dataclass(frozen=True, eq=False)
class _Rule:
    """Nodes of the integral over R > 0 and, for the pair of views, over the angle.

    Attributes
    ----------
    radius : (n,) R = s^2 + t^2.
    mixing : (n,) R^2 sin^2(2 theta), theta the angle of (s, t); zeros for one view alone.
    weight : (n,).
    """

    radius: Array
    mixing: Array
    weight: Array

    @classmethod
    def of(cls, p: Array, *, pair: bool, fineness: float = 1.0) -> _Rule:
        """Make the rule for a spectrum p (d,) of sum 1.

        For any angle the integral beyond R is at most prod (1 + 2 R p_i)^(-1/2): that says where to
        stop. Towards 0, where nothing happens any more, the nodes thin out doubly exponentially.
        """
        step = _RADIUS_STEP / fineness

        def tail(x: float) -> float:
            return 0.5 * float(np.log1p(2.0 * np.exp(x) * p).sum()) - _TAIL

        from scipy.optimize import brentq  # slow to import

        high = float(brentq(tail, 0.0, 120.0, xtol=1e-2))
        x = step * np.arange(math.floor(-3.6 / step), math.ceil(high / step) + 1)
        radius = np.exp(x - np.exp(-x))
        weight = step * radius * (1.0 + np.exp(-x))
        if not pair:
            return cls(radius, np.zeros_like(radius), weight)
        # tan theta = exp(-v): logarithmic down to the narrowest feature, 1/sqrt(R), then thinning
        step, depth = _ANGLE_STEP / fineness, 1.0 + 0.5 * high
        x = step * np.arange(math.ceil((depth + 3.6) / step) + 1)
        v = x + 2.0 * np.sinh(x) * math.exp(-depth)
        angle = step * (1.0 + 2.0 * np.cosh(x) * math.exp(-depth)) / (2.0 * np.cosh(v))
        angle[0] *= 0.5
        mixing = np.outer(radius**2, 1.0 / np.cosh(v) ** 2)
        return cls(
            np.repeat(radius, len(x)),
            mixing.ravel(),
            (4.0 / math.pi) * np.outer(weight, angle).ravel(),
        )

    def blocks(self, columns: int) -> list[_Rule]:
        """Return the rule in parts of a size that fits the cache."""
        size = max(1, _BLOCK // max(columns, 1))
        return [
            _Rule(self.radius[i : i + size], self.mixing[i : i + size], self.weight[i : i + size])
            for i in range(0, len(self.radius), size)
        ]


def _moment(rule: _Rule, p: Array, q: Array, order: int) -> tuple[Any, ...]:
    """Integrate prod D_i^(-1/2) sum_j q_j/D_j, D = 1 + 2 R p + mixing (p^2 - q^2).

    With mixing = 0 it is sum_j q_j E[zhat_j^2]/p_j for any q.

    Returns
    -------
    The value; for order 1 also its derivatives by p and q (d,).
    """
    value, by_p, by_q = 0.0, np.zeros_like(p), np.zeros_like(p)
    square = (p - q) * (p + q)
    for part in rule.blocks(len(p)):
        radius, mixing = 2.0 * part.radius[:, None], part.mixing[:, None]
        spread = 1.0 + radius * p + mixing * square
        inverse = 1.0 / spread
        density = part.weight * np.exp(-0.5 * np.log(spread).sum(axis=1))
        share = inverse @ q
        value += float(density @ share)
        if order:
            mass = density * share
            slope = radius + (2.0 * mixing) * p  # of D by p; by q it is -2 mixing q
            inner = 0.5 * mass[:, None] * inverse + (density[:, None] * q) * inverse**2
            by_p -= np.sum(inner * slope, axis=0)
            by_q += density @ inverse + 2.0 * q * (part.mixing @ inner)
    return (value, by_p, by_q) if order else (value,)


def _curvature(rule: _Rule, p: Array, c: Array, misfit: Array) -> tuple[float, Array, Array]:
    """Integrate prod D_i^(-1/2) sum_j c_j p_j/D_j, D = 1 + 2 R p + mixing misfit p^2.

    Returns
    -------
    The value, its gradient (d,) and its Hessian (d, d) by p.
    """
    value, gradient = 0.0, np.zeros_like(p)
    hessian = np.zeros((len(p), len(p)))
    for part in rule.blocks(len(p)):
        radius, bend = 2.0 * part.radius[:, None], 2.0 * part.mixing[:, None] * misfit
        slope = radius + bend * p  # of D, whose second derivative is bend
        inverse = 1.0 / (1.0 + radius * p + 0.5 * bend * p * p)
        density = part.weight * np.exp(0.5 * np.log(inverse).sum(axis=1))
        ratio = slope * inverse
        mass = density * (inverse @ (c * p))
        own = c * inverse * (1.0 - p * ratio)  # of c p/D
        value += float(mass.sum())
        gradient += density @ own - 0.5 * (mass @ ratio)
        cross = (density[:, None] * ratio).T @ own
        hessian += 0.25 * (ratio * mass[:, None]).T @ ratio - 0.5 * (cross + cross.T)
        second = -c * inverse**2 * (p * bend + 2.0 * (1.0 - p * ratio) * slope)
        logarithm = -0.5 * (bend * inverse - ratio**2)
        hessian[np.diag_indices(len(p))] += mass @ logarithm + density @ second
    return value, gradient, hessian


def _shares(rule: _Rule, p: Array) -> tuple[Array, Array]:
    """Return w_j = E zhat_j^2 (d,), and its Jacobian (d, d), w_j by p_i at [j, i]."""
    shares, jacobian = np.zeros_like(p), np.zeros((len(p), len(p)))
    for part in rule.blocks(len(p)):
        radius = 2.0 * part.radius[:, None]
        inverse = 1.0 / (1.0 + radius * p)
        density = part.weight * np.exp(0.5 * np.log(inverse).sum(axis=1))
        first = density @ inverse
        shares += p * first
        ratio = radius * inverse
        jacobian -= 0.5 * ((density[:, None] * inverse).T @ ratio) * p[:, None]
        jacobian[np.diag_indices(len(p))] += density @ inverse**2
    return shares, jacobian


class AngularNTXentLandscape(NTXentLandscape):
    """NT-Xent with the exact angular moments of centred Gaussian views, in mode space.

    Made by ``NTXent.effective(..., angular="exact")``. Where W aligns with the modes, which W
    Sigma W' and W A W' show by commuting, only their eigenvalues p_j and rho_j p_j matter:

        L = -E cos(z, z+)/tau + sum_j w_j^2/(2 tau^2) + (g/2)||W||^2,    w_j = E zhat_j^2

    by quadrature. Only the second cumulant of the negatives is approximate. Elsewhere the double
    integral is over determinants of matrices that share no eigenvectors: `value` and `gradient`
    raise NotImplementedError, and so do Hessians, which look there.

    Attributes
    ----------
    loss : NTXent
    moments : Moments
    shape : tuple of int
    weight_decay : float
    bias : bool

    Notes
    -----
    Source: theory 3.2. Trapezoidal rules in the logarithms of s^2 + t^2 and s/t, which stop where a
    proven bound on the rest is 2e-12; absolute errors are below 1e-9 for spectra over many decades.
    With fewer than three modes in p the derivative towards a mode at 0 may be infinite; a large
    number of the right sign then stands for it.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(4), np.diag([0.9, 0.8, 0.7, 0.1]))
    >>> land = pyssl.NTXent(temperature=1.0).effective(moments, 4, angular="exact")
    >>> land.minimum().amplitudes.round(4)
    array([0.4999, 0.307 , 0.1931, 0.    ])
    """

    _angular = "exact"

    # -- in mode space -----------------------------------------------------------------------------

    def value_of_spectrum(self, p: npt.ArrayLike) -> tuple[float, Array]:
        """Evaluate L over the variances of the embedding along the modes, without decay.

        Parameters
        ----------
        p : (d,) array_like
            At least 0, in the order of `eigenvalues`; 0 on the null space of Sigma. Only p/sum p
            matters.

        Returns
        -------
        float
            L.
        (d,) ndarray
            Its gradient by p.

        Raises
        ------
        ValueError
            For a wrong shape, NaN, infinity, a negative entry, or no variance at all.
        TypeError
            For anything but real numbers.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.eye(3), np.diag([0.9, 0.8, 0.1]))
        >>> land = pyssl.NTXent(temperature=1.0).effective(moments, 3, angular="exact")
        >>> value, gradient = land.value_of_spectrum([1.0, 1.0, 1.0])
        >>> round(value, 8), bool(abs(gradient.sum()) < 1e-9)
        (-0.38031156, True)
        """
        spectrum = self._spectrum(p)
        total = float(spectrum.sum())
        spectrum = spectrum / total
        value, by_p, by_q = self._integrals(spectrum, self.eigenvalues * spectrum, 1)
        return value, (by_p + self.eigenvalues * by_q) / total

    def shares_of_spectrum(self, p: npt.ArrayLike) -> Array:
        """Return w_j = E zhat_j^2, the shares of the variance of the normalised embedding.

        Parameters
        ----------
        p : (d,) array_like
            As in `value_of_spectrum`.

        Returns
        -------
        (d,) ndarray
            Of sum 1.

        Raises
        ------
        ValueError
            For a wrong shape, NaN, infinity, a negative entry, or no variance at all.
        TypeError
            For anything but real numbers.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.eye(3), np.diag([0.9, 0.8, 0.1]))
        >>> land = pyssl.NTXent().effective(moments, 3, angular="exact")
        >>> land.shares_of_spectrum([4.0, 1.0, 0.0]).round(10)
        array([0.66666667, 0.33333333, 0.        ])
        """
        spectrum = self._spectrum(p)
        spectrum = spectrum / spectrum.sum()
        return _shares(_Rule.of(spectrum, pair=False), spectrum)[0]

    def _spectrum(self, p: npt.ArrayLike) -> Array:
        spectrum = _checks.vector("p", p, self.moments.dim)
        inside = self._in_order(np.ones(self.moments.rank), 0.0) > 0.0
        if (spectrum < 0.0).any():
            raise ValueError(f"p must not be negative, got {spectrum.min():g}")
        if not spectrum[inside].any() or spectrum[~inside].any():
            raise ValueError("p must be positive somewhere, and only where the views vary")
        _checks.magnitude("p", spectrum)
        return spectrum

    def _integrals(self, p: Array, q: Array, order: int) -> tuple[Any, ...]:
        """Return L, and for order 1 its derivatives, by the variances and covariances p, q (m,)."""
        tau = self.loss.temperature
        single = _Rule.of(p, pair=False)
        shares, jacobian = _shares(single, p)
        cosine, *slopes = _moment(_Rule.of(p, pair=True), p, q, order)
        value = -cosine / tau + float(shares @ shares) / (2.0 * tau * tau)
        if not order:
            return (value,)
        return value, -slopes[0] / tau + shares @ jacobian / tau**2, -slopes[1] / tau

    def _on_simplex(self, p: Array, misalignment: Array) -> tuple[float, Array, Array]:
        """Return L, gradient and Hessian by the spectrum p (m,) of sum 1."""
        tau = self.loss.temperature
        single, pair = _Rule.of(p, pair=False), _Rule.of(p, pair=True)
        shares, jacobian = _shares(single, p)
        misfit = misalignment * (2.0 - misalignment)  # 1 - rho^2
        cosine, by_p, bend = _curvature(pair, p, 1.0 - misalignment, misfit)
        _, _, own = _curvature(single, p, shares, np.zeros_like(p))
        value = -cosine / tau + float(shares @ shares) / (2.0 * tau * tau)
        gradient = -by_p / tau + shares @ jacobian / tau**2
        return value, gradient, -bend / tau + (jacobian.T @ jacobian + own) / tau**2

    @cached_property
    def _minimum(self) -> Minimum:
        e = self._solved[0][: self.embedding_dim]
        tau = self.loss.temperature
        start = 0.95 * water_filling(e, tau, len(e)) + 0.05 / len(e)
        scale = 1.0 / tau + 1.0 / tau**2
        p, value = _on_the_simplex(lambda x: self._on_simplex(x, e), start, scale)
        spectrum = np.zeros(len(self._solved[0]))
        spectrum[: len(p)] = p
        return self._spectral_minimum(spectrum, value)

    @cached_property
    def _unlimited(self) -> Array:
        everything = self._remade(len(self._solved[0]))
        return everything.minimum().amplitudes[self._order.argsort()][: len(self._solved[0])]

    def _remade(self, embedding_dim: int) -> AngularNTXentLandscape:
        return AngularNTXentLandscape(self.loss, self.moments, embedding_dim, 0.0, False)

    @cached_property
    def critical_temperature(self) -> Array:
        """All nan (d,): the temperatures at which modes come in have no closed form here."""
        return readonly(np.full(self.moments.dim, np.nan))

    # -- over W ------------------------------------------------------------------------------------

    def _common(self, w: Floats, ws: Floats, wa: Floats) -> tuple[Array, Array, Array]:
        """Return the common eigenvectors (k, k) of P and Q, and their eigenvalues (k,)."""
        p, q = ws @ w.T, wa @ w.T
        commutator = p @ q - q @ p
        if float(np.abs(commutator).max()) > _COMMUTING * float(np.sum(p * p)):
            raise NotImplementedError(
                "exact angular moments take a W that aligns with the modes (W Sigma W' and W A W'"
                " commute); use angular='leading', or value_of_spectrum"
            )
        _, basis = np.linalg.eigh(p + 0.5 * (math.sqrt(5.0) - 1.0) * q)
        variance = np.maximum(np.einsum("ij,ij->j", basis, p @ basis), 0.0)
        covariance = np.einsum("ij,ij->j", basis, q @ basis)
        return basis, variance, np.clip(covariance, -variance, variance)

    def _value(self, w: Floats) -> float:
        _, w, ws, wa, _ = self._scaled(w)
        _, p, q = self._common(w, ws, wa)
        return float(self._integrals(p, q, 0)[0])

    def _value_and_gradient(self, w: Floats) -> tuple[float, Floats]:
        scale, w, ws, wa, _ = self._scaled(w)
        basis, p, q = self._common(w, ws, wa)
        value, by_p, by_q = self._integrals(p, q, 1)
        slope = (basis * by_p) @ (basis.T @ ws) + (basis * by_q) @ (basis.T @ wa)
        return float(value), 2.0 * slope / scale

    def _linearised(self, w: Floats) -> Callable[[Floats], Floats]:
        raise NotImplementedError(
            "exact angular moments have no Hessian over W, which looks at weights that do not"
            " align with the modes; use angular='leading'"
        )

    def _grid(self, W0: Floats, D1: Floats, D2: Floats, u: Floats, v: Floats) -> Floats:
        return super(NTXentLandscape, self)._grid(W0, D1, D2, u, v)


def _on_the_simplex(
    evaluate: Callable[[Array], tuple[float, Array, Array]], start: Array, scale: float
) -> tuple[Array, float]:
    """Minimise a function of p >= 0 that does not see the scale of p, by projected Newton steps.

    Ends where sum p_j max(gradient_j, 0) and -min gradient_j, which bound what is to be gained, are
    within 1e-11 of `scale`, the size of the function's parts, or no step gains any more.

    Returns
    -------
    The minimiser (m,) of sum 1, and its value; shares below 1e-12 are none.
    """
    p = start / start.sum()
    value, gradient, hessian = evaluate(p)
    for _ in range(100):
        gradient = gradient - p @ gradient  # 0 but for the rounding of the quadrature
        # coordinates at 0, or about to reach it, that want to shrink stay out of the step
        free = (gradient < 0.0) | (p > 1e-6 * min(1.0, np.abs(gradient * p).sum() / scale))
        residual = float(np.maximum(gradient, 0.0) @ p) - min(float(gradient.min()), 0.0)
        if residual <= 1e-11 * scale and p[~free].sum() == 0.0:
            break
        inner = np.flatnonzero(free)
        # p itself is a null direction, which the ones fill
        spectrum, basis = np.linalg.eigh(hessian[np.ix_(inner, inner)] + scale)
        spectrum = np.maximum(np.abs(spectrum), 1e-10 * np.abs(spectrum).max())
        step = np.zeros_like(p)
        step[inner] = -(basis / spectrum) @ (basis.T @ gradient[inner])
        for halving in range(40):
            trial = np.where(free, np.maximum(p + 0.5**halving * step, 0.0), 0.0)
            if not trial.any():
                continue
            trial /= trial.sum()
            found = evaluate(trial)
            needed = 1e-4 * min(float(gradient @ (trial - p)), 0.0)
            if found[0] <= value + needed + 1e-15 * scale:
                break
        else:
            break
        p, (value, gradient, hessian) = trial, found
    return np.where(p < _LEAST, 0.0, p), value
