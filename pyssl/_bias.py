"""Biases, and the means that they remove: landscapes over (W, b) and with a mean (theory 4)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _checks, _plane
from pyssl._pencil import Array, Metric, readonly
from pyssl.landscape import Landscape
from pyssl.loss import Loss
from pyssl.moments import Moments
from pyssl.population import PopulationLandscape
from pyssl.potentials import Quartic
from pyssl.spectral import SpectralLandscape
from pyssl.stationary import Modes

__all__ = ["BiasedLandscape", "MeanPenalty", "PenalisedMean", "with_mean"]

Floats = npt.NDArray[Any]


class BiasedLandscape(SpectralLandscape):
    """A spectral landscape over (W, b), (k, d + 1), that does not see the bias.

    Its closed form is that of the landscape over W: d modes, their last entry what the bias is
    where they are active. The bias adds k zeros to Hessian spectra.
    """

    _inner: SpectralLandscape
    _offset: Array  # (d,): at stationary points b = -W offset

    @classmethod
    def around(cls, inner: SpectralLandscape) -> BiasedLandscape:
        """Add a flat bias to the landscape that a loss has without one."""
        split = inner._split
        assert split is not None
        noise, taken = split.noise_metric, split.augmentation
        self = cls._of(
            _bordered(inner._signal),
            _bordered(inner.S),
            inner.potential,
            inner.embedding_dim,
            inner.weight_decay,
            inner.constant,
            inner._eps,
            split=replace(
                split,
                augmentation=None if taken is None else _bordered(taken),
                covariance=_bordered(split.covariance),
                cross_covariance=_bordered(split.cross_covariance),
                noise_metric=None if noise is None else _bordered_metric(noise),
            ),
        )
        assert isinstance(self, cls)
        self._inner, self._offset = inner, np.zeros(inner.dim)
        return self

    @property
    def _decayed(self) -> Array:
        return np.append(np.ones(self.dim - 1), 0.0)

    def _without_bias(self) -> tuple[SpectralLandscape, Array | None]:
        return self._inner, self._offset

    @cached_property
    def _signal_spectrum(self) -> Array:
        return self._inner._signal_spectrum

    def _zero(self, weight_decay: float) -> float:
        return self._inner._zero(weight_decay)

    def _solve(self) -> Modes:
        modes = self._inner._modes
        last = -(self._offset @ modes.vectors)
        return replace(
            modes,
            vectors=readonly(np.vstack([modes.vectors, last])),
            covectors=np.vstack([modes.covectors, np.zeros_like(last)]),
            bias_curvature=self._bias_curvature,
        )

    def _bias_curvature(self, n: Array) -> Array:
        return np.zeros_like(n)


@dataclass(frozen=True, eq=False)
class MeanPenalty:
    """What the dot similarity charges for the mean m of the embeddings: F = c m'P y.

    P = W Sigma W', m = W mu (+ b), y = m or (I - P/tau)^-1 m. F = 0 at m = 0 and nowhere below.

    Attributes
    ----------
    coefficient : c.
    covariance : (d, d) Sigma; (d + 1, d + 1) and bordered with zeros where there is a bias.
    mean : (d,) mu; (d + 1,) and (mu, 1) where there is a bias.
    pole : tau, the eigenvalue of P at which F diverges; inf for y = m.

    Notes
    -----
    Source: theory 4 for the conditional partition, c = 1/(2 tau^2). For the joint one, on Gaussian
    views, log E exp(z.z'/tau) = |m|^2/tau - log det(I - P^2/tau^2)/2 + F with c = 1/tau^2 and the
    pole at tau: to fourth order in W the conditional penalty twice.
    """

    coefficient: float
    covariance: Array
    mean: Array
    pole: float = math.inf

    def _at(self, W: Floats) -> tuple[Floats, Floats, Floats, Floats | None, Floats]:
        """Return W Sigma, P, m, the inverse that makes y of m, and y; vectors are (..., k, 1)."""
        wide = W.astype(np.float64, copy=False)
        scaled = wide @ self.covariance
        gram = scaled @ np.swapaxes(wide, -1, -2)
        m = wide @ self.mean[:, None]
        if math.isinf(self.pole):
            return scaled, gram, m, None, m
        n, basis = np.linalg.eigh(gram)
        room = 1.0 - n / self.pole
        inverse = np.divide(1.0, room, out=np.full_like(n, np.nan), where=room > 0.0)
        resolvent = (basis * inverse[..., None, :]) @ np.swapaxes(basis, -1, -2)
        return scaled, gram, m, resolvent, resolvent @ m

    def value(self, W: Floats) -> Floats:
        """Return F at W (..., k, d): inf beyond the pole."""
        _, gram, m, _, y = self._at(W)
        values = self.coefficient * np.sum(m * (gram @ y), axis=(-2, -1))
        return np.where(np.isnan(values), np.inf, values)

    def gradient(self, W: Floats) -> Floats:
        """Return the gradient (..., k, d): nan beyond the pole."""
        scaled, gram, _, _, y = self._at(W)
        slope = y @ (np.swapaxes(y, -1, -2) @ scaled) + gram @ y * self.mean
        return np.asarray(2.0 * self.coefficient * slope)

    def linearised(self, W: Floats) -> Callable[[Floats], Floats]:
        """Return the Hessian at W as a function of a direction, which broadcasts."""
        scaled, gram, _, resolvent, y = self._at(W)
        row = np.swapaxes(y, -1, -2) @ scaled

        def along(D: Floats) -> Floats:
            wide = D.astype(np.float64, copy=False)
            cross = scaled @ np.swapaxes(wide, -1, -2)
            turn = cross + np.swapaxes(cross, -1, -2)
            bend = wide @ self.mean[:, None]
            if resolvent is not None:
                bend = resolvent @ (bend + turn @ y / self.pole)
            moved = np.swapaxes(bend, -1, -2) @ scaled
            moved = moved + np.swapaxes(y, -1, -2) @ (wide @ self.covariance)
            slope = bend @ row + y @ moved + (turn @ y + gram @ bend) * self.mean
            return np.asarray(2.0 * self.coefficient * slope)

        return along

    def plane(self, stack: Floats, u: Floats, v: Floats) -> Floats:
        """Return F on a grid (len(u), len(v)) in the plane of a stack (W0, D1, D2)."""
        if math.isinf(self.pole):
            grams = _plane.gram(stack @ self.covariance, stack)
            m = stack @ self.mean
            means = _plane.quadratic(np.einsum("ai,bj->abij", m, m))
            fourth = self.coefficient * np.einsum("pij,qij->pq", grams, means)
            return _plane.polynomial(np.zeros(6), fourth, u, v)
        surface = np.empty((len(u), len(v)))
        for line, coordinate in zip(surface, u, strict=True):
            line[...] = self.value(stack[0] + coordinate * stack[1] + v[:, None, None] * stack[2])
        return surface


class DotLandscape(BiasedLandscape):
    """InfoNCE with the dot similarity and a bias: b = -W mu leaves the landscape of centred views.

    Elsewhere the mean of the embeddings costs what `MeanPenalty` says.
    """

    _penalty: MeanPenalty

    @classmethod
    def with_penalty(cls, inner: SpectralLandscape, penalty: MeanPenalty) -> DotLandscape:
        """Add a bias to the landscape of the centred views."""
        self = cls.around(inner)
        assert isinstance(self, cls)
        self._penalty, self._offset = penalty, penalty.mean[:-1]
        return self

    def _bias_curvature(self, n: Array) -> Array:
        return np.asarray(self._penalty.coefficient * n / (1.0 - n / self._penalty.pole))

    def _kernel_batch(self, weights: Floats) -> Floats | None:
        return None  # the kernels know of no mean

    def value(self, W: npt.ArrayLike) -> Any:
        weights = _checks.weights("W", W, self.shape)
        return (super().value(weights) + self._penalty.value(weights)).astype(weights.dtype)[()]

    def value_and_gradient(self, W: npt.ArrayLike) -> tuple[Any, Floats]:
        weights = _checks.weights("W", W, self.shape)
        value, gradient = super().value_and_gradient(weights)
        gradient += self._penalty.gradient(weights).astype(weights.dtype)
        return (value + self._penalty.value(weights)).astype(weights.dtype)[()], gradient

    def _linearised(self, weights: Floats) -> Callable[[Floats], Floats]:
        spectral, penalty = super()._linearised(weights), self._penalty.linearised(weights)

        def along(direction: Floats) -> Floats:
            return np.asarray(spectral(direction) + penalty(direction).astype(direction.dtype))

        return along

    def plane(
        self,
        W0: npt.ArrayLike,
        D1: npt.ArrayLike,
        D2: npt.ArrayLike,
        u: npt.ArrayLike,
        v: npt.ArrayLike,
    ) -> Floats:
        corners, axes, dtype = _checks.plane(self.shape, W0, D1, D2, u, v)
        surface = super().plane(*corners, *axes) + self._penalty.plane(np.stack(corners), *axes)
        return np.asarray(surface, dtype=dtype)


class PenalisedMean(PopulationLandscape):
    """InfoNCE with the dot similarity and no bias: the mean of the views is a penalty.

    The landscape of the centred views plus what `MeanPenalty` says: not spectral, but its origin
    is theirs, and the penalty being nowhere negative, so is its condition of complete collapse:
    of `critical_weight_decay` the first entry is known.
    """

    def __init__(
        self, loss: Loss, moments: Moments, inner: SpectralLandscape, penalty: MeanPenalty, g: float
    ) -> None:
        super().__init__(loss, moments, inner.embedding_dim, g, bias=False)
        self.origin_spectrum = inner._signal_spectrum
        self.critical_weight_decay = self._first_critical(inner._signal_spectrum)
        self._inner = inner  # without weight decay, which is the base's
        self._penalty = penalty

    def _value(self, w: Floats) -> float:
        return float(self._inner.value(w) + self._penalty.value(w))

    def _value_and_gradient(self, w: Floats) -> tuple[float, Floats]:
        value, gradient = self._inner.value_and_gradient(w)
        gradient += self._penalty.gradient(w)
        return float(value + self._penalty.value(w)), gradient

    def _linearised(self, w: Floats) -> Callable[[Floats], Floats]:
        penalty = self._penalty.linearised(w)
        return lambda along: self._inner.hvp(w, along) + penalty(along)

    def _grid(self, W0: Floats, D1: Floats, D2: Floats, u: Floats, v: Floats) -> Floats:
        stack = np.stack([W0, D1, D2])
        decay = _plane.polynomial(0.5 * self.weight_decay * _plane.trace(stack, stack), None, u, v)
        return self._inner.plane(W0, D1, D2, u, v) + self._penalty.plane(stack, u, v) + decay


def with_mean(
    loss: Loss,
    m: Moments,
    g: float,
    bias: bool,
    make: Callable[[float], SpectralLandscape],
    temperature: float,
    partition: str,
) -> Landscape:
    """Return InfoNCE's landscape with the dot similarity, from `make`, which centres the views.

    `make` takes a weight decay.
    """
    if not bias and not m.mean.any():
        return make(g)
    inner = make(g if bias else 0.0)
    joint = partition == "joint"
    penalty = MeanPenalty(
        (1.0 if joint else 0.5) / temperature / temperature,
        _bordered(m.covariance) if bias else m.covariance,
        np.append(m.mean, 1.0) if bias else m.mean,
        temperature if joint and not isinstance(inner.potential, Quartic) else math.inf,
    )
    if bias:
        return DotLandscape.with_penalty(inner, penalty)
    return PenalisedMean(loss, m, inner, penalty, g)


def _bordered(matrix: Array) -> Array:
    """Return a matrix (d, d) with a row and a column of zeros for the bias."""
    return np.pad(matrix, (0, 1))


def _bordered_metric(metric: Metric) -> Metric:
    basis = np.pad(metric.basis, (0, 1))
    basis[-1, -1] = 1.0
    return Metric(np.append(metric.spectrum, 0.0), basis, metric.rank)
