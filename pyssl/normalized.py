"""NT-Xent's landscape in the moments: scale-free, and solved by water-filling (theory 3.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from pyssl import _checks, _plane
from pyssl._cosine import (
    ONE,
    OTHER,
    centred,
    crowding,
    expansion,
    forms,
    slope,
    water_filling,
)
from pyssl._pencil import Array, descending, diagonalise, rank_tolerance, readonly
from pyssl.collapse import Cause
from pyssl.loss import Loss
from pyssl.moments import Moments
from pyssl.numerical import NumericalLandscape
from pyssl.stationary import Minimum

__all__ = ["ConstantEmbedding", "NTXentLandscape"]

Floats = npt.NDArray[Any]

# Alignments closer than this many d eps are one tied alignment.
_TIE_ULPS = 16.0
# Directions with less of the variance than this, relative to the largest, are not learned where the
# minimum is numerical (theory 5).
_RANK_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class ConstantEmbedding:
    """The stationary point W = 0, b != 0 of NT-Xent with a bias: every embedding is the same.

    To second order in W the landscape there is that of InfoNCE with squared distances at the
    temperature tau |b|^2, in the k - 1 directions orthogonal to b. That says what is stable against
    small weights, and no more.

    Attributes
    ----------
    weights : (k, d + 1) ndarray
        W = 0 and a bias of the length |b|.
    value : float
        0, without the constant log n.
    temperature : float
        tau |b|^2.
    index : int
        Directions of descent: k - 1 for each eigenvalue of A above g tau |b|^2/2.
    stable : bool
        Whether every eigenvalue of A lies below g tau |b|^2/2.
    marginal : bool
        Whether there is no descent, but the largest eigenvalue of A equals g tau |b|^2/2 within
        rounding, d eps of both, or there is no decay to hold the weights.
    critical_bias : float
        The |b| from which on the point is stable; inf without weight decay, 0 where nothing
        escapes.
    fastest_escape : (d,) ndarray or None
        The direction of the views along which weights grow first; None where there is none.

    Notes
    -----
    Source: theory 4.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(2), np.diag([0.8, 0.1]))
    >>> land = pyssl.NTXent(0.5).effective(moments, 2, weight_decay=0.2, bias=True)
    >>> point = land.constant_embedding(3.0)
    >>> point.index, point.stable, point.critical_bias
    (1, False, 4.0)
    >>> land.constant_embedding(4.5).stable
    True
    """

    weights: Array
    value: float
    temperature: float
    index: int
    stable: bool
    marginal: bool
    critical_bias: float
    fastest_escape: Array | None


class NTXentLandscape(NumericalLandscape):
    """NT-Xent over the weights of a linear model, to leading order in 1/effective rank.

    Made by `NTXent.effective`; answers to every method of `Landscape`. With m = W mu + b, P and Q
    the covariances W Sigma W' and W A W' and N = Tr P + |m|^2, normalised embeddings vary by
    P_J = J P J/N and Q_J = J Q J/N, J = I - m m'/N, and

        L = -Tr Q_J/tau + Tr[P_J (P_J + m m'/N)]/(2 tau^2) + (g/2)||W||^2

    up to a constant log n. For centred moments it is -Tr[WAW']/(tau N) + Tr P^2/(2 tau^2 N^2).

    Attributes
    ----------
    loss : NTXent
    moments : Moments
    shape : tuple of int
        What W must be: (k, d), or (k, d + 1) with a bias.
    weight_decay : float
    bias : bool

    Notes
    -----
    Source: theory 3.2. It does not depend on the scale of W, apart from the decay: the origin is no
    point of it, and with weight decay nothing minimises it, because smaller weights are always
    better.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(3), np.diag([0.9, 0.8, 0.1]))
    >>> land = pyssl.NTXent(temperature=1.0).effective(moments, embedding_dim=3)
    >>> land.minimum().amplitudes.round(12)
    array([0.55, 0.45, 0.  ])
    >>> land.critical_temperature.round(12)
    array([        inf, 10.        ,  0.66666667])
    """

    scale_free = True
    _angular = "leading"

    def __init__(
        self, loss: Any, moments: Moments, embedding_dim: int, weight_decay: float, bias: bool
    ) -> None:
        super().__init__((embedding_dim, moments.dim + int(bias)), weight_decay, bias)
        assert isinstance(loss, Loss)
        if moments.rank == 0:
            raise ValueError("moments must have variation, got a covariance of zero")
        self.loss: Any = loss
        self.moments = moments
        self._mean = moments.mean if moments.mean.any() else None
        self._remake = partial(type(self), loss, moments, bias=bias)

    # -- modes -------------------------------------------------------------------------------------

    @cached_property
    def _solved(self) -> tuple[Array, Array, Array]:
        """Return 1 - rho (m,) ascending, ties settled, and the vectors on and off range Sigma."""
        m = self.moments
        misalignment, vectors = diagonalise(m.augmentation_covariance, m._metric.whitener)
        e = np.clip(misalignment, 0.0, 2.0)
        gap = _TIE_ULPS * m.dim * m._eps
        for group in np.split(np.arange(len(e)), 1 + np.flatnonzero(np.diff(e) > gap)):
            e[group] = e[group].mean()
        return e, vectors, m._metric.null_basis

    @cached_property
    def _order(self) -> npt.NDArray[np.intp]:
        """Where the modes, those on the range of Sigma first, stand in descending order."""
        e, _, null = self._solved
        return np.argsort(-np.append(1.0 - e, np.zeros(null.shape[1])), kind="stable")

    def _in_order(self, on_range: Array, off_range: float) -> Array:
        """Return a property of the modes (d,) in descending order of rho."""
        everything = np.full(self.moments.dim, off_range)
        everything[: len(on_range)] = on_range
        return readonly(everything[self._order])

    @cached_property
    def eigenvalues(self) -> Array:
        """The alignments rho of the modes (d,), descending; 0 on the null space of Sigma."""
        return self._in_order(1.0 - self._solved[0], 0.0)

    @cached_property
    def vectors(self) -> Array:
        """The modes v_j as columns (d, d), v'Sigma v = 1; unit length on the null space."""
        _, vectors, null = self._solved
        return readonly(np.concatenate([vectors, null], axis=1)[:, self._order])

    @property
    def capacity(self) -> int:
        """How many modes an embedding of this size could learn: min(k, rank Sigma)."""
        return min(self.embedding_dim, self.moments.rank)

    @property
    def active(self) -> tuple[int, ...]:
        """The modes that the minimum learns, ascending: those of the `rank` largest amplitudes."""
        minimum = self.minimum()
        largest = np.argsort(-minimum.amplitudes, kind="stable")[: minimum.rank]
        return tuple(sorted(int(j) for j in largest))

    @cached_property
    def critical_temperature(self) -> Array:
        """The temperature below which each mode is learned (d,).

        Mode r + 1 is learned iff r < k and tau sum_{i <= r} (rho_i - rho_{r+1}) < 1: inf for what
        is learned at any temperature, nan for what is at none, beyond k or without variation, and
        where there is no closed form: with a mean and no bias.

        Notes
        -----
        Source: theory 3.2. With a bias and temperatures below 1/sum rho of the first k modes, those
        with rho <= 0 give way to the constant (theory 4), whatever stands here.
        """
        with np.errstate(divide="ignore"):
            critical = 1.0 / crowding(self._solved[0])
        critical[self.embedding_dim :] = np.nan
        if self._mean is not None and not self.bias:
            critical[:] = np.nan
        return self._in_order(critical, np.nan)

    @cached_property
    def _unlimited(self) -> Array:
        """The spectrum (m,) that an embedding without limit of size would learn."""
        e = self._solved[0]
        return water_filling(e, self.loss.temperature, len(e), slack=self.bias)

    @cached_property
    def critical_weight_decay(self) -> Array:
        """Infinite (d,) for modes that some k makes worth learning, decay or not; else 0.

        Notes
        -----
        Source: theory 5. As for every loss, the j-th mode is learned as long as j <= k.
        """
        return self._in_order(np.where(self._unlimited > 0.0, np.inf, 0.0), 0.0)

    def causes(self) -> npt.NDArray[np.object_]:
        """Return why each mode is learned or not.

        Returns
        -------
        (d,) ndarray of Cause
            LEARNED; NO_VARIATION on the null space of Sigma; CAPACITY for what a larger k would
            learn; COMPETITION for what better aligned modes crowd out.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.diag([1.0, 1, 1, 0]), np.diag([0.9, 0.8, 0.1, 0]))
        >>> land = pyssl.NTXent(temperature=1.0).effective(moments, embedding_dim=1)
        >>> [str(cause) for cause in land.causes()]
        ['learned', 'capacity', 'competition', 'no variation']
        """
        inside = self._in_order(np.ones(len(self._solved[0])), 0.0) > 0.0
        wanted = self._in_order(self._unlimited, 0.0) > 0.0
        causes = np.array([Cause.COMPETITION] * len(inside), dtype=object)
        causes[wanted] = Cause.CAPACITY
        causes[~inside] = Cause.NO_VARIATION
        causes[list(self.active)] = Cause.LEARNED
        return readonly(causes)

    # -- points ------------------------------------------------------------------------------------

    def minimum(self) -> Minimum:
        """Return the global minimum: in closed form, except for a mean that no bias can remove.

        Returns
        -------
        Minimum
            With Tr[W Sigma_u W'] = 1, the scale being free; ``amplitudes`` p are the shares of the
            variance along the modes. ``attained`` is False with weight decay: the directions are
            those at g = 0, and smaller weights are always better. With a bias sum p < 1 where a
            constant part of the embedding pays (theory 4).

        Notes
        -----
        Source: theory 3.2. With a mean and no bias, or with a bias where more than k - 1 modes and
        a constant compete, the minimum is the best that descent from several starts finds, not
        proven global; its rank counts eigenvalues of W Sigma W' above 1e-6 of the largest.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.8]))
        >>> pyssl.NTXent(temperature=1.0).effective(moments, embedding_dim=2).minimum()
        Minimum(value=-0.6025, rank=2, attained=True)
        """
        return self._minimum

    @cached_property
    def _minimum(self) -> Minimum:
        if not self._closed:
            return self._numerical_minimum()
        p = self._filled
        tau = self.loss.temperature
        e = self._solved[0]
        value = -math.fsum((1.0 - e) * p) / tau + math.fsum(p * p) / (2.0 * tau * tau)
        return self._spectral_minimum(p, value)

    def _spectral_minimum(self, p: Array, value: float) -> Minimum:
        """Return the minimum that learns p_j of the modes on the range of Sigma (m,)."""
        (e, vectors, _), k = self._solved, self.embedding_dim
        rank = int(np.count_nonzero(p))
        weights = np.zeros(self.shape)
        inner = self._decaying(weights)
        inner[:rank] = (vectors[:, :rank] * np.sqrt(p[:rank])).T
        if self.bias:
            weights[:, -1] = -inner @ self.moments.mean
            if rank < k:
                weights[rank, -1] += math.sqrt(max(1.0 - p.sum(), 0.0))
        return Minimum(
            weights=readonly(weights),
            value=value,
            amplitudes=self._in_order(p, 0.0),
            rank=rank,
            attained=self.weight_decay == 0.0,
            bounded=True,
            degenerate=bool(rank == k < len(e) and e[k - 1] == e[k]),
        )

    @cached_property
    def _filled(self) -> Array:
        return water_filling(
            self._solved[0], self.loss.temperature, self.embedding_dim, slack=self.bias
        )

    @cached_property
    def _closed(self) -> bool:
        """Whether water-filling is the minimum.

        It is a lower bound in every case: JP_J J <= P and Tr P_J <= 1. A bias attains it, with the
        constant part of the embedding in a direction that no mode uses.
        """
        if not self.bias:
            return self._mean is None
        whole = abs(self._filled.sum() - 1.0) <= 1e-12
        return bool(whole or np.count_nonzero(self._filled) < self.embedding_dim)

    def _numerical_minimum(self) -> Minimum:
        m, k = self.moments, self.embedding_dim
        tau = self.loss.temperature
        p = water_filling(self._solved[0], tau, k)
        filled = self._spectral_minimum(p, 0.0).weights
        starts = [filled]
        if not self.bias:  # the best that does not see the mean at all
            blind = filled - np.outer(filled @ m.mean, m.mean) / (m.mean @ m.mean)
            if blind.any():  # not where every row lies along the mean, as with d = 1
                starts.append(blind)
        elif k > 1:  # a constant in the place of the last mode
            fewer = water_filling(self._solved[0], tau, k - 1, slack=True)
            starts.append(self._spectral_minimum(fewer, 0.0).weights)
        rng = np.random.default_rng(0)
        starts += [rng.standard_normal(self.shape) for _ in range(3)]
        weights = _descend(self, starts)
        inner = self._decaying(weights)
        covariance = inner @ m.covariance @ inner.T
        spectrum = descending(covariance)
        amplitudes = np.sum((inner @ m.covariance @ self.vectors) ** 2, axis=0)
        amplitudes[~(self._in_order(np.ones(m.rank), 0.0) > 0.0)] = 0.0
        return Minimum(
            weights=readonly(weights),
            value=self._value(weights),
            amplitudes=readonly(amplitudes),
            rank=int(np.count_nonzero(spectrum > _RANK_TOLERANCE * max(spectrum[0], 0.0))),
            attained=self.weight_decay == 0.0,
            bounded=True,
            degenerate=False,
        )

    def origin(self) -> NoReturn:
        """Raise: a scale-free landscape has no value at W = 0.

        Raises
        ------
        ValueError
            Always.

        Notes
        -----
        Source: theory 3.2. With a bias see `constant_embedding`.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.8]))
        >>> pyssl.NTXent().effective(moments, embedding_dim=2).origin()
        Traceback (most recent call last):
            ...
        ValueError: the origin is no point of NT-Xent, which does not depend on the scale of W
        """
        raise ValueError(
            "the origin is no point of NT-Xent, which does not depend on the scale of W"
        )

    def constant_embedding(self, bias: float) -> ConstantEmbedding:
        """Return the stationary point at which all embeddings are equal.

        Parameters
        ----------
        bias : float
            The length |b| > 0; its direction does not matter.

        Returns
        -------
        ConstantEmbedding

        Raises
        ------
        ValueError
            For a landscape without bias, or a length that is not positive and finite.
        TypeError
            For anything but a real number.

        Notes
        -----
        Source: theory 4: a bias brings complete collapse back.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.eye(2), np.diag([0.8, 0.1]))
        >>> land = pyssl.NTXent(0.5).effective(moments, 3, weight_decay=0.1, bias=True)
        >>> land.constant_embedding(1.0).index
        4
        """
        if not self.bias:
            raise ValueError("only a landscape with bias=True has a constant embedding")
        (k, columns), m, g = self.shape, self.moments, self.weight_decay
        length = _checks.real("bias", bias, minimum=0.0, open_minimum=True)
        weights = np.zeros((k, columns))
        weights[0, -1] = length
        tau = self.loss.temperature * length**2
        spectrum, vectors = np.linalg.eigh(m.cross_covariance)
        threshold = 0.5 * g * tau
        tolerance = rank_tolerance(m.dim, m._eps, float(np.abs(spectrum).max()) + threshold)
        above = int(np.count_nonzero(spectrum > threshold + tolerance)) if k > 1 else 0
        # along b weights change no cosine: only the decay bends the landscape there
        held = k == 1 or float(spectrum[-1]) < threshold - tolerance
        stable = held and g > 0.0
        top = max(float(spectrum[-1]), 0.0) if k > 1 else 0.0
        critical = math.sqrt(2.0 * top / (g * self.loss.temperature)) if g > 0.0 else math.inf
        return ConstantEmbedding(
            weights=readonly(weights),
            value=0.0,
            temperature=tau,
            index=(k - 1) * above,
            stable=stable,
            marginal=above == 0 and not stable,
            critical_bias=critical,
            fastest_escape=readonly(vectors[:, -1].copy()) if above else None,
        )

    # -- evaluation --------------------------------------------------------------------------------

    def _scaled(self, w: Floats) -> tuple[float, Floats, Floats, Floats, Floats | None]:
        """Return the scale of w, w at Tr[W Sigma_u W'] = 1, W Sigma, W A and W mu + b there."""
        largest = float(np.abs(w).max())
        if largest == 0.0:
            raise ValueError("W must not be zero: NT-Xent does not depend on the scale of W")
        w = w / largest
        inner, m = self._decaying(w), self.moments
        ws, wa = inner @ m.covariance, inner @ m.cross_covariance
        offset = self._offset(w)
        size = float(np.sum(ws * inner)) + (0.0 if offset is None else float(offset @ offset))
        norm = float(np.trace(m.covariance)) * float(np.sum(inner * inner))
        # with a bias W = 0 is a point like any other
        floor = 0.0 if self.bias else rank_tolerance(m.dim, m._eps, norm)
        if not size > floor:
            raise ValueError(
                "W must not map all views to zero, where NT-Xent has no value: got"
                f" Tr[W Sigma_u W'] = {size * largest**2:.3g}"
            )
        root = math.sqrt(size)
        return (
            largest * root,
            w / root,
            ws / root,
            wa / root,
            None if offset is None else offset / root,
        )

    def _offset(self, w: Floats) -> Floats | None:
        """Return m = W mu + b (k,), or None where it is zero for all w."""
        offset: Floats | None = None if self._mean is None else self._decaying(w) @ self._mean
        if self.bias:
            offset = w[:, -1] if offset is None else offset + w[:, -1]
        return offset

    def _value(self, w: Floats) -> float:
        _, w, ws, wa, offset = self._scaled(w)
        inner = self._decaying(w)
        p, a = ws @ inner.T, float(np.sum(wa * inner))
        tau = self.loss.temperature
        if offset is None:
            n = np.trace(p)
            return float(centred(tau, n, a, np.sum(p * p)))
        y, q = p @ offset, wa @ inner.T
        s = offset @ offset
        n = np.trace(p) + s
        scalars = n, a, offset @ q @ offset, s, np.sum(p * p), offset @ y, y @ y
        return float(expansion(tau, *scalars))

    def _value_and_gradient(self, w: Floats) -> tuple[float, Floats]:
        scale, w, ws, wa, offset = self._scaled(w)
        value, gradient = self._slope(w, ws, wa, offset)
        return float(value), gradient / scale

    def _slope(
        self, w: Floats, ws: Floats, wa: Floats, offset: Floats | None
    ) -> tuple[Any, Floats]:
        """Return f and its gradient: holomorphic in w, the products and the offset."""
        value, into, by_offset = slope(self.loss.temperature, self._decaying(w), ws, wa, offset)
        if by_offset is None:
            return value, into
        if self._mean is not None:
            into += np.outer(by_offset, self._mean)
        return value, np.column_stack([into, by_offset]) if self.bias else into

    def _linearised(self, w: Floats) -> Callable[[Floats], Floats]:
        scale, w, ws, wa, offset = self._scaled(w)
        m = self.moments

        def along(direction: Floats) -> Floats:
            # a complex step: exact to rounding, because no difference is taken
            length = float(np.abs(direction).max())
            if length == 0.0:
                return np.zeros_like(direction)
            d = direction * (_STEP / length)
            inner, shift = self._decaying(d), self._offset(d)
            _, bent = self._slope(
                w + 1j * d,
                ws + 1j * (inner @ m.covariance),
                wa + 1j * (inner @ m.cross_covariance),
                None if offset is None or shift is None else offset + 1j * shift,
            )
            return np.asarray(bent.imag * (length / _STEP) / scale / scale)

        return along

    def _grid(self, W0: Floats, D1: Floats, D2: Floats, u: Floats, v: Floats) -> Floats:
        """Return the plane from Gram matrices; nan where W maps all views to zero.

        Along it the parts of L are polynomials: P and Q of degree 2, m of degree 1.
        """
        moments, tau = self.moments, self.loss.temperature
        length = max(float(np.abs(w).max()) for w in (W0, D1, D2)) or 1.0
        spread = float(np.trace(moments.covariance))
        unit = length * math.sqrt(spread)  # for products that stay inside float64
        corners = [w / unit for w in (W0, D1, D2)]
        stack = np.stack([self._decaying(w) for w in corners])
        linear = np.stack(np.broadcast_arrays(1.0, u[:, None], v), axis=-1).reshape(-1, 3)
        square = linear[:, ONE] * linear[:, OTHER]
        norm = square @ _plane.trace(stack, stack)
        p = _plane.gram(stack @ moments.covariance, stack)  # (6, k, k)
        q = _plane.gram(stack @ moments.cross_covariance, stack)
        n, a = (square @ np.trace(form, axis1=1, axis2=2) for form in (p, q))
        flat = p.reshape(6, -1)
        b = forms(square, flat @ flat.T, square)
        offsets = [self._offset(w) for w in corners]
        with np.errstate(divide="ignore", invalid="ignore"):
            if offsets[0] is None:
                surface = centred(tau, n, a, b)
            else:
                m = np.array(offsets)  # (3, k)
                cubic = (square[:, :, None] * linear[:, None, :]).reshape(-1, 18)
                y, qm = (np.einsum("aij,bj->abi", form, m).reshape(18, -1) for form in (p, q))
                s, across = forms(linear, m @ m.T, linear), forms(cubic, qm @ m.T, linear)
                h, y2 = forms(cubic, y @ m.T, linear), forms(cubic, y @ y.T, cubic)
                n = n + s
                surface = expansion(tau, n, a, across, s, b, h, y2)
        floor = 0.0 if self.bias else rank_tolerance(moments.dim, moments._eps, spread)
        surface = np.where(n > floor * norm, surface, np.nan)
        with np.errstate(over="ignore"):  # where the decay itself is beyond float64
            surface = surface + 0.5 * self.weight_decay * unit * norm * unit
        return np.asarray(surface.reshape(len(u), len(v)))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.loss!r}, shape={self.shape},"
            f" weight_decay={self.weight_decay:g}, bias={self.bias})"
        )


# The imaginary part of a complex step: its square vanishes beside any real part.
_STEP = 1e-60


def _descend(land: NTXentLandscape, starts: list[Array]) -> Array:
    """Return the best minimiser at g = 0 that descent from the starts finds, on the scale 1."""
    from pyssl.solvers import minimize  # slow to import

    free = type(land)(land.loss, land.moments, land.embedding_dim, 0.0, land.bias)
    ends = [minimize(free, start, closed_form=False) for start in starts]
    best = min(ends, key=lambda end: end.value).weights
    return np.asarray(best / free._scaled(best)[0])
