"""Landscapes with kinks as problems for descent: rows of W move along the kinks that hold them."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pyssl._problems import DirectProblem, linearised
from pyssl._trust import Point, norm
from pyssl.landscape import Landscape

__all__ = ["KinkProblem", "Kinked"]

Floats = npt.NDArray[Any]

_ON_KINK = 1e-9  # |c_i| of a row on its kink, relative to the quadratic form there


class Kinked(Landscape, Protocol):
    """A landscape with a hinge for each row of W, whose kink is an ellipsoid (theory 3.5)."""

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
    """An active-set problem: which rows lie on their kink is read off the multipliers.

    A row on its kink stays there while its multiplier theta_i lies inside (0, 1), and leaves it to
    the side that pulls it otherwise; a row that a step takes across its kink is put on it. The
    gradient is the subgradient of least norm, the Hessian that of the Lagrangian on the tangent
    space of the kinks, both exact to second order along them.
    """

    land: Kinked

    def _measure(self) -> None:
        super()._measure()
        # the square root in the hinge turns long before the kinks, which W is to reach
        probe = self.random_weights(np.random.default_rng(0))
        form, reach = self._forms(probe)
        if form.sum() > 0.0 and reach.sum() > 0.0:
            self.size = max(self.size, norm(probe) * float(np.sqrt(reach.sum() / form.sum())))

    def _forms(self, x: Floats) -> tuple[Floats, Floats]:
        """Return the quadratic forms whose kinks c_i are, and what they are on the kink."""
        form = 0.5 * np.einsum("ij,ij->i", self.land.kink_normals(x), x)
        return form, form - self.land.kinks(x)

    def at(self, x: Floats) -> Point:
        """Evaluate the landscape."""
        normals = self.land.kink_normals(x)
        form, reach = self._forms(x)
        tolerance = _ON_KINK * max(float(reach.max()), 0.0)
        _, theta = self.land.kkt_residual(x, tolerance)
        held = (np.abs(form - reach) <= tolerance) & (theta > 0.0) & (theta < 1.0)
        smooth = self.land.with_slopes(theta)
        gradient = smooth.gradient(x)
        normals[~held] = 0.0
        length = np.sqrt(np.einsum("ij,ij->i", normals, normals))
        normals /= np.where(length > 0.0, length, 1.0)[:, None]

        def tangent(direction: Floats) -> Floats:
            along = np.einsum("ij,ij->i", normals, direction)
            return np.asarray(direction - along[:, None] * normals)

        hessian: Any = None

        def hvp(direction: Floats) -> Floats:
            nonlocal hessian
            if hessian is None:
                hessian = linearised(smooth, x)
            return tangent(hessian(tangent(direction)))

        gradient = tangent(gradient)
        return Point(x, float(self.land.value(x)), gradient, norm(gradient), hvp, sides=theta)

    def move(self, point: Point, step: Floats) -> Point:
        """Return the point that a step leads to, with rows put on the kinks they would cross."""
        x = point.x + step
        form, reach = self._forms(x)
        if not np.isfinite(form).all():
            return self.at(x)
        held = (point.sides > 0.0) & (point.sides < 1.0)
        below = form < reach
        crossing = ((point.sides == 1.0) & ~below) | ((point.sides == 0.0) & below)
        put = (held | crossing) & (reach > 0.0) & (form > 0.0)
        return self.at(x * np.sqrt(np.where(put, reach / np.where(put, form, 1.0), 1.0))[:, None])
