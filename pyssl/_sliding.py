"""Gradient flow along the kinks of a hinge: smooth pieces, joined where a hinge turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pyssl._integrate import LARGEST, Array, Hook, Path, Problem, crossing
from pyssl.hinge import VICRegLandscape

__all__ = ["Slide", "slide"]

# What is reasonable work: pieces, and steps of all of them.
_PIECES = 2_000
_STEPS = 50_000
# By how much a hinge may stand on the wrong side of its kink, or a slope outside [0, 1].
_MARGIN = 1e-12


@dataclass(frozen=True, eq=False)
class Slide:
    """One smooth piece of the flow: hinges of slope 0 or 1, and kinks (nan) that it slides along.

    On a kink the slope is that for which c_i does not change: the gradient by row i loses its part
    along the normal of the kink. Each hinge only depends on its own row (theory 3.5).
    """

    land: VICRegLandscape
    slopes: Array

    @property
    def kinks(self) -> Any:
        """The rows that are on their kinks (k,)."""
        return np.isnan(self.slopes)

    def _gradient(self, w: Array, slope: float) -> Array:
        theta = np.where(self.kinks, slope, self.slopes)
        return np.asarray(self.land.with_slopes(theta).gradient(w))

    def rates(self, w: Array) -> tuple[Array, Array]:
        """Return dc_i/dt (k,) of rows on kinks if their hinges were inactive, and active."""
        normals = self.land.kink_normals(w)
        low, high = (-np.sum(normals * self._gradient(w, s), axis=1) for s in (0.0, 1.0))
        return low, high

    def steepness(self, flat: Array) -> float:
        """Return the norm of the gradient off the kinks, on their steeper sides."""
        w = flat.reshape(self.land.shape)
        return max(float(np.linalg.norm(self._gradient(w, slope))) for slope in (0.0, 1.0))

    def gradient(self, flat: Array) -> Array:
        """Return the gradient along the kinks, (k d,)."""
        w = flat.reshape(self.land.shape)
        gradient = self._gradient(w, 0.0)
        on = self.kinks
        if on.any():
            normals = self.land.kink_normals(w)[on]
            share = np.sum(normals * gradient[on], axis=1) / np.sum(normals**2, axis=1)
            gradient[on] -= share[:, None] * normals
        return gradient.reshape(-1)

    def theta(self, w: Array) -> Array:
        """Return the slopes (k,), those of the kinks being what keeps the flow on them."""
        low, high = self.rates(w)
        gap = np.where(high > low, high - low, 1.0)
        return np.where(self.kinks, -low / gap, self.slopes)

    def margins(self, flat: Array) -> Array:
        """Return by how much each row is beyond where this piece ends (k,), negative inside it."""
        w = flat.reshape(self.land.shape)
        c, theta = self.land.kinks(w), self.theta(w)
        beside = np.where(self.slopes == 1.0, c, -c)
        return np.where(self.kinks, np.maximum(-theta, theta - 1.0), beside) - _MARGIN

    def snapped(self, flat: Array) -> Array:
        """Return w with the rows that slide put back on their kinks, from which errors drift."""
        w = flat.reshape(self.land.shape).copy()
        level = 1.0 - self.land.loss.epsilon  # type: ignore[attr-defined]
        variance = np.where(self.kinks, self.land.kinks(w) + level, level)
        w[:, : self.land.moments.dim] *= np.sqrt(level / variance)[:, None]
        return w.reshape(-1)

    def turned(self, flat: Array, row: int) -> tuple[Slide, Array]:
        """Return the piece that follows where `row` turns on its kink, and its start."""
        slopes = self.slopes.copy()
        slopes[row] = np.nan
        on = Slide(self.land, slopes)
        start = on.snapped(flat)
        low, high = (float(rate[row]) for rate in on.rates(start.reshape(self.land.shape)))
        if low > 0.0:  # rises even without its hinge
            slopes[row] = 0.0
        elif high < 0.0:
            slopes[row] = 1.0
        return Slide(self.land, slopes), start

    def curves_down(self, flat: Array, norm: float) -> bool:
        """Return whether the landscape has a direction of descent of second order."""
        w = flat.reshape(self.land.shape)
        smooth = self.land.with_slopes(self.theta(w).clip(0.0, 1.0))
        hessian = smooth.hessian(w)
        rows = np.flatnonzero(self.kinks)
        normals = np.zeros((len(rows), *self.land.shape))
        normals[np.arange(len(rows)), rows] = self.land.kink_normals(w)[rows]
        tangent = np.eye(w.size)
        if len(rows):
            normal = normals.reshape(len(rows), w.size).T
            tangent = np.linalg.qr(normal, mode="complete")[0][:, len(rows) :]
        if not tangent.shape[1]:
            return False
        spectrum = np.linalg.eigvalsh(tangent.T @ hessian @ tangent)
        top = float(np.abs(np.linalg.eigvalsh(hessian)).max())
        floor = 1e-10 * top + 4.0 * norm / max(float(np.linalg.norm(w)), 1e-300)
        return bool(spectrum[0] < -floor)


def slide(
    land: VICRegLandscape,
    start: Array,
    times: Array,
    *,
    rtol: float,
    atol: float,
    hook: Hook,
) -> Path:
    """Integrate the subgradient flow from `start` (k d,) through `times` (t,)."""
    from scipy.integrate import LSODA

    problem = Problem(land)
    path = Path(np.full((len(times), len(start)), np.nan), np.empty(0))
    c = land.kinks(start.reshape(land.shape))
    piece, w, t = Slide(land, (c < 0.0).astype(float)), start, 0.0
    for unit in np.flatnonzero(np.abs(c) <= _MARGIN):
        piece, w = piece.turned(w, int(unit))
    curvature = max(problem.curvature(start), 1e-300)
    finite_last = float(times[np.isfinite(times)].max(initial=0.0))
    horizon = max(1e18 / curvature, finite_last) if np.isinf(times[-1]) else finite_last
    path.fill(int(np.searchsorted(times, 0.0, side="right")), start)
    value = float(land.value(w.reshape(land.shape)))
    norm = float(np.linalg.norm(piece.gradient(w)))
    if hook(t, value, norm):
        path.outcome = "stopped"
        return path
    largest = float(np.linalg.norm(start))
    steps = 0
    tested = 0.0
    for _ in range(_PIECES):
        if path.filled == len(times):
            return path
        solver = LSODA(
            partial(_slope, piece), t, w, horizon, rtol=rtol, atol=atol, jac=_jacobian(piece)
        )
        evaluated = path.evaluations
        while solver.status == "running" and steps < _STEPS:
            message = solver.step()
            steps += 1
            if solver.status == "failed":
                raise RuntimeError(f"the flow can't be followed beyond time {t:.6g}: {message}")
            dense, before, t, w = solver.dense_output(), t, float(solver.t), solver.y
            row = -1
            for i in range(len(piece.slopes)):
                if piece.margins(w)[i] > 0.0:
                    at = crossing(partial(_margin, piece, dense, i), before, float(solver.t))
                    if row < 0 or at < t:
                        row, t = i, at
            until = int(np.searchsorted(times, t, side="right"))
            for j in range(path.filled, until):
                path.fill(j + 1, piece.snapped(dense(times[j])))
            if row >= 0:
                piece, w = piece.turned(dense(t), row)
            path.end, path.evaluations = t, evaluated + int(solver.nfev)
            passed, norm_before = value, norm
            value = float(land.value(w.reshape(land.shape)))
            norm = float(np.linalg.norm(piece.gradient(w)))
            size = float(np.linalg.norm(w))
            largest = max(largest, size)
            # errors lead off the kinks, where the landscape is steep
            slack = 10.0 * np.sqrt(len(w)) * (rtol * size + atol)
            slack *= max(norm_before, norm, piece.steepness(w))
            slack += 1e-10 * (abs(value) + curvature * rtol * largest**2)
            if not value <= passed + slack:
                raise RuntimeError(
                    f"the value rose from {passed:.10g} to {value:.10g} at time {t:.6g}, which a"
                    " gradient flow can't do: a smaller rtol may help"
                )
            if not np.abs(w).max() <= LARGEST:
                path.outcome = "diverged"
                return path
            if hook(t, value, norm):
                path.outcome = "stopped"
                return path
            if path.filled == len(times):
                return path
            if row < 0 and t > 2.0 * tested and norm * t <= rtol * largest:
                tested = t
                if norm <= rtol * curvature * largest and not piece.curves_down(w, norm):
                    path.outcome, path.end = "converged", float(times[-1])
                    path.fill(len(times), piece.snapped(w))
                    return path
            if row >= 0:
                break
        if solver.status == "finished" or steps >= _STEPS:
            break
    raise RuntimeError(
        f"the flow reached only time {path.end:.6g} in {steps} steps (gradient norm {norm:.3g});"
        " ask for earlier times or a larger rtol"
    )


def _slope(piece: Slide, _: float, w: Array) -> Array:
    return -piece.gradient(w) if np.isfinite(w).all() else np.full_like(w, np.nan)


def _jacobian(piece: Slide) -> Callable[[float, Array], Array] | None:
    if piece.kinks.any():
        return None  # by differences
    smooth = piece.land.with_slopes(piece.slopes)
    return lambda _, w: -smooth.hessian(w.reshape(piece.land.shape))


def _margin(piece: Slide, dense: Callable[[float], Array], row: int, time: float) -> float:
    return float(piece.margins(dense(time))[row])
