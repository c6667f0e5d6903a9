"""Landscapes as problems for descent: coordinates, symmetries and scales of each kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl._products import product, product_transposed
from pyssl._trust import VALUE_NOISE, Point, norm
from pyssl.landscape import Landscape, ModeLandscape, SpectralEvaluation
from pyssl.numerical import NumericalLandscape

__all__ = ["DirectProblem", "Lazy", "ModeProblem", "linearised"]

Floats = npt.NDArray[Any]

# The metric of modes is kept this far from zero, relative to its largest entry: along the gauge the
# Hessian's diagonal vanishes.
_METRIC_FLOOR = 2e-2


class DirectProblem:
    """A landscape in its own coordinates W; at |W| = 1 and without decay if it is scale free."""

    # Whether the curvature at W = 0 is that of the weight decay within rounding: then nothing is
    # learned, and no scale of the landscape can be measured that would say when W is small.
    quenched = False

    def __init__(self, land: Landscape) -> None:
        self.land = land
        self.scale_free = bool(getattr(land, "scale_free", False))
        self._measure()

    def _measure(self) -> None:
        """Find the size of W at which the landscape's curvature is no more what it is near 0."""
        k, d = self.land.shape
        probe = np.random.default_rng(0).standard_normal((k, d))
        probe /= norm(probe)
        if self.scale_free:
            self.size = 1.0
            value, gradient = self._evaluate(probe)
            curvature = norm(self._hvp(probe)(probe)) + norm(gradient)
            if curvature <= VALUE_NOISE * abs(value):  # a constant, and its rounding
                curvature = abs(value)
        else:
            self.size, curvature = self._turning(probe)
        rms = math.sqrt(k * d) * curvature if self.scale_free else curvature
        self.gradient_scale = rms * self.size
        self.value_scale = self.gradient_scale * self.size

    def _turning(self, probe: Floats) -> tuple[float, float]:
        bent = self._hvp(np.zeros_like(probe))(probe)
        curvature = norm(bent)
        # the loss has a size, weight decay has none: a huge decay must not make everything else
        # look small
        decay = self._decay(probe)
        own = norm(bent - decay)
        if own > VALUE_NOISE * curvature:
            curvature = own
        else:
            # without a bias, which does not decay
            self.quenched = bool(decay.any() and not getattr(self.land, "bias", False))
        if curvature == 0.0:
            return 1.0, norm(self._hvp(probe)(probe))

        def turned(size: float) -> bool:
            change = norm(self._hvp(size * probe)(probe) - bent)
            return not change <= 0.5 * curvature

        size = 1.0
        if turned(size):
            while size > 2.0**-100 and turned(0.25 * size):
                size *= 0.25
        else:
            while size < 2.0**100 and not turned(size):
                size *= 4.0
            if not turned(size):  # it never does: a quadratic has no size of its own
                size = 1.0
        return size, curvature

    def _decay(self, direction: Floats) -> Floats:
        """Return what the weight decay adds to the Hessian along a direction."""
        decay = getattr(self.land, "weight_decay", 0.0) * direction
        if getattr(self.land, "bias", False):
            decay[:, -1] = 0.0
        return np.asarray(decay * getattr(self.land, "_decayed", 1.0))

    def random_weights(self, rng: np.random.Generator) -> Floats:
        """Draw a start small beside the landscape's size."""
        w = rng.standard_normal(self.land.shape)
        return np.asarray(w * ((1.0 if self.scale_free else 0.1) * self.size / norm(w)))

    def coordinates(self, w: Floats) -> Floats:
        """Return W in the coordinates of the search."""
        return w

    def weights(self, point: Point) -> Floats:
        """Return the W of a point."""
        return point.x

    def at(self, x: Floats) -> Point:
        """Evaluate the landscape."""
        if self.scale_free:
            x = x / norm(x)
        value, gradient = self._evaluate(x)
        return Point(x, value, gradient, norm(gradient), Lazy(lambda: self._hvp(x)))

    def move(self, point: Point, step: Floats) -> Point:
        """Return the point that a step leads to."""
        return self.at(point.x + step)

    def _evaluate(self, w: Floats) -> tuple[float, Floats]:
        if self.scale_free and isinstance(self.land, NumericalLandscape):
            return self.land._value_and_gradient(w)
        value, gradient = self.land.value_and_gradient(w)
        return float(value), gradient

    def _hvp(self, w: Floats) -> Callable[[Floats], Floats]:
        return linearised(self.land, w, decay=not self.scale_free)


class ModeProblem:
    """A spectral landscape in the coordinates of its modes, with rows that diagonalise U U'.

    That the gauge U -> O U allows; the gradient then is 2 (r'(n_i) - lambda_j) u_ij, and the
    Hessian's diagonal is known.
    """

    def __init__(self, modes: ModeLandscape, land: Landscape) -> None:
        self.land = land
        self._modes = modes
        self._direct = DirectProblem(land)
        self.gradient_scale = self._direct.gradient_scale
        self.value_scale = self._direct.value_scale
        self.quenched = self._direct.quenched
        self.size = norm(self.coordinates(self.random_weights(np.random.default_rng(0)))) / 0.1

    def random_weights(self, rng: np.random.Generator) -> Floats:
        """Draw a start small beside the landscape's size."""
        return self._direct.random_weights(rng)

    def coordinates(self, w: Floats) -> Floats:
        """Return the U of W."""
        return self._modes.from_weights(w)

    def weights(self, point: Point) -> Floats:
        """Return the W of a point."""
        return self._modes.to_weights(point.x)

    def at(self, x: Floats) -> Point:
        """Evaluate the landscape, with rows rotated so that U U' is diagonal."""
        potential, lam = self._modes.potential, self._modes.eigenvalues
        n, rotation = np.linalg.eigh(product_transposed(x, x))
        n = np.maximum(n, 0.0)
        u = product(np.ascontiguousarray(rotation.T), x)
        slope = potential.slope(n)
        squares = u * u
        value = float(potential.value(n).sum() - lam @ squares.sum(axis=0)) + self._modes.constant
        tilt = 2.0 * (slope[:, None] - lam)
        gradient = tilt * u
        by_weights = norm(self._modes.gradient_to_weights(gradient)) if value < np.inf else np.inf
        quotient = 2.0 * potential.slope_quotient(n[:, None], n[None, :])

        def hvp(direction: Floats) -> Floats:
            cross = product_transposed(direction, u)
            cross += cross.T.copy()
            cross *= quotient
            result = product(cross, u)
            result += tilt * direction
            return result

        metric = product(quotient, squares)
        metric += np.diagonal(quotient)[:, None] * squares
        metric += tilt
        np.abs(metric, out=metric)
        floor = _METRIC_FLOOR * float(metric.max())
        np.maximum(metric, floor or 1.0, out=metric)
        return Point(u, value, gradient, by_weights, hvp, metric)

    def move(self, point: Point, step: Floats) -> Point:
        """Return the point that a step leads to."""
        return self.at(point.x + step)


def linearised(land: Landscape, w: Floats, *, decay: bool = True) -> Callable[[Floats], Floats]:
    """Return the Hessian at w as a function of a direction, (k, d) float64 both."""
    if isinstance(land, NumericalLandscape):
        hessian = land._linearised(w)
        if not decay:
            return hessian
        return lambda along: land._with_decay(hessian(along), along)
    if isinstance(land, SpectralEvaluation):
        return land._linearised(w)
    return lambda along: land.hvp(w, along)


class Lazy:
    """A function made when it is first called: points that are rejected need no Hessian."""

    def __init__(self, make: Callable[[], Callable[[Floats], Floats]]) -> None:
        self._make: Callable[[], Callable[[Floats], Floats]] | None = make

    def __call__(self, direction: Floats) -> Floats:
        if self._make is not None:
            self._function, self._make = self._make(), None
        return self._function(direction)
