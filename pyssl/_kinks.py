"""Landscapes with kinks as problems for descent: rows of W move along the kinks that hold them."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pyssl._problems import DirectProblem, Lazy, linearised
from pyssl._trust import Point, norm
from pyssl.landscape import Landscape

__all__ = ["KinkProblem", "Kinked"]

Floats = npt.NDArray[Any]

_ON_KINK = 1e-9  # |c_i| of a row on its kink, relative to the quadratic form there
_MEETING_STEPS = 10  # of Newton's method, to where two kinks of a row meet


class Kinked(Landscape, Protocol):
    """A landscape with hinges for each row of W, whose kinks are ellipsoids (theory 3.5).

    One hinge a row, or two: then arrays have a leading axis of length 2.
    """

    def kinks(self, W: npt.ArrayLike) -> Floats:
        """Return c_i (k,): a quadratic form of row i minus a constant, < 0 where the hinge acts."""
        ...

    def kink_normals(self, W: npt.ArrayLike) -> Floats:
        """Return the gradient of c_i by row i, (k, d)."""
        ...

    def with_slopes(self, theta: npt.ArrayLike) -> Landscape:
        """Return the smooth landscape with the hinges' slopes given."""
        ...

    def kkt_residual(self, W: npt.ArrayLike, tolerance: float) -> tuple[Any, Floats]:
        """Return the least norm of a subgradient, and the slopes that reach it."""
        ...


class KinkProblem(DirectProblem):
    """An active-set problem: which rows lie on which kinks is read off the multipliers.

    A row on a kink stays there while the multiplier theta lies inside (0, 1), and leaves it to the
    side that pulls it otherwise; a row that a step takes across a kink is put on it. The gradient
    is the subgradient of least norm, the Hessian that of the Lagrangian on the tangent space of the
    kinks, both exact to second order along them.
    """

    land: Kinked

    def _measure(self) -> None:
        super()._measure()
        # the square root in the hinge turns long before the kinks, which W is to reach
        probe = self.random_weights(np.random.default_rng(0))
        form, reach, _ = self._forms(probe)
        if form.sum() > 0.0 and reach.sum() > 0.0:
            self.size = max(self.size, norm(probe) * float(np.sqrt(reach.sum() / form.sum())))

    def _forms(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        """Return the forms whose kinks c are (h, k), what they are there, normals (h, k, d)."""
        normals = self.land.kink_normals(x).reshape(-1, *x.shape)
        form = 0.5 * np.einsum("sij,ij->si", normals, x)
        return form, form - self.land.kinks(x).reshape(form.shape), normals

    def at(self, x: Floats) -> Point:
        """Evaluate the landscape."""
        form, reach, normals = self._forms(x)
        tolerance = _ON_KINK * max(float(reach.max()), 0.0)
        _, slopes = self.land.kkt_residual(x, tolerance)
        smooth = self.land.with_slopes(slopes)
        theta = slopes.reshape(form.shape)
        held = (np.abs(form - reach) <= tolerance) & (theta > 0.0) & (theta < 1.0)
        across = _orthonormal(np.where(held[..., None], normals, 0.0))

        def tangent(direction: Floats) -> Floats:
            along = np.einsum("isj,ij->is", across, direction)
            return np.asarray(direction - np.einsum("is,isj->ij", along, across))

        hessian = Lazy(lambda: linearised(smooth, x))

        def hvp(direction: Floats) -> Floats:
            return tangent(hessian(tangent(direction)))

        gradient = tangent(smooth.gradient(x))
        return Point(x, float(self.land.value(x)), gradient, norm(gradient), hvp, sides=theta)

    def move(self, point: Point, step: Floats) -> Point:
        """Return the point that a step leads to, with rows put on the kinks they would cross."""
        x = point.x + step
        form, reach, _ = self._forms(x)
        if not np.isfinite(form).all():
            return self.at(x)
        able = (reach > 0.0) & (form > 0.0)
        held = (point.sides > 0.0) & (point.sides < 1.0) & able
        below = form < reach
        crossing = ((point.sides == 1.0) & ~below) | ((point.sides == 0.0) & below)
        put = held | (crossing & able)
        excess = np.where(put, form / np.where(reach > 0.0, reach, 1.0), 1.0)
        if len(put) > 1:  # a row that was on none is put on the one that it meets first
            first = np.argmax(np.abs(np.log(excess)), axis=0) == np.arange(len(put))[:, None]
            put &= first | held.any(axis=0)
            excess = np.where(put, excess, 1.0)
        both = put.sum(axis=0) > 1
        x = x / np.sqrt(np.prod(np.where(both, 1.0, excess), axis=0))[:, None]
        if both.any():
            x = self._meeting(x, both)
        return self.at(x)

    def _meeting(self, x: Floats, rows: Any) -> Floats:
        """Put rows where their kinks meet, by the shortest steps; those that find it in a few."""
        at = x.copy()
        for _ in range(_MEETING_STEPS):
            form, reach, normals = self._forms(at)
            for i in np.flatnonzero(rows):
                at[i] -= np.linalg.lstsq(normals[:, i], (form - reach)[:, i])[0]
            form, reach, _ = self._forms(at)
            if (np.abs(form - reach) <= 1e-3 * _ON_KINK * reach)[:, rows].all():
                break
        met = rows & (np.abs(form - reach) <= _ON_KINK * reach).all(axis=0)
        return np.where(met[:, None], at, x)


def _orthonormal(normals: Floats) -> Floats:
    """Return an orthonormal basis of what the normals (h, k, d) span for each row, (k, h, d)."""
    _, sizes, basis = np.linalg.svd(normals.swapaxes(0, 1), full_matrices=False)
    keep = sizes > 1e-12 * sizes.max(initial=0.0)
    wide = np.zeros((len(basis), len(normals), normals.shape[2]))
    wide[:, : basis.shape[1]] = basis * keep[..., None]
    return wide
