"""Gradient flow along the kinks of a hinge: smooth pieces, joined where a hinge turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from pyssl._hinge_on_batch import best_in_box
from pyssl._integrate import LARGEST, Array, Hook, Path, Problem, crossing
from pyssl.landscape import Landscape

__all__ = ["Slide", "slide"]

# What is reasonable work: pieces, and steps of all of them.
_PIECES = 2_000
_STEPS = 50_000
_ON_KINK = 1e-12  # |c_i| of a row that starts on its kink
_RETURNS = 3  # Newton's steps back onto kinks, from which a flow drifts by its errors
_SAME = 1e-12  # normals of two views that differ by less, relative to them, are one


@dataclass(frozen=True, eq=False)
class Slide:
    """One smooth piece of the flow: hinges of slope 0 or 1, and kinks (nan) that it slides along.

    On its kinks, one or two, a row moves so that their c_i do not change: the gradient by it loses
    its part in the span of their normals. Each hinge only depends on its own row (theory 3.5).
    """

    land: Any  # of the kind `Kinked`
    slopes: Array  # (h, k): one hinge a row, or two
    # By how much a hinge may stand on the wrong side of its kink, or a slope outside [0, 1]: what
    # the errors of the integration do, or a row would not get away from a kink that it leaves
    # ever so slowly.
    margin: float

    @classmethod
    def at(cls, land: Landscape, flat: Array, margin: float) -> tuple[Slide, Array]:
        """Return the piece that starts at w, and its start."""
        kinked = _with_one_kink_for_two(land)
        c = np.atleast_2d(kinked.kinks(flat.reshape(land.shape)))
        piece = cls(kinked, (c < 0.0).astype(float), margin)
        on = np.abs(c) <= _ON_KINK
        for row in np.flatnonzero(on.any(axis=0)):
            piece, flat = piece._settled(flat, on[:, row], int(row))
        return piece, flat

    @property
    def kinks(self) -> Any:
        """What the rows slide along (h, k)."""
        return np.isnan(self.slopes)

    def smooth(self, theta: Array) -> Landscape:
        """Return the landscape in which the hinges have the slopes theta (h, k)."""
        smooth: Landscape = self.land.with_slopes(theta if len(theta) > 1 else theta[0])
        return smooth

    def _gradient(self, w: Array, slopes: Array) -> Array:
        return np.asarray(self.smooth(slopes).gradient(w))

    def _split(self, w: Array, kinks: Any) -> tuple[Array, Array]:
        """Return the gradient without some hinges, and what each of them pulls (h, k, d).

        With them it is gradient - theta_1 pull_1 - theta_2 pull_2 by each row that slides along no
        others.
        """
        bare = np.where(kinks | self.kinks, 0.0, self.slopes)
        gradient = self._gradient(w, bare)
        pulls = np.zeros((len(kinks), *w.shape))
        for view in np.flatnonzero(kinks.any(axis=1)):
            full = bare.copy()
            full[view, kinks[view]] = 1.0
            pulls[view] = gradient - self._gradient(w, full)
        return gradient, pulls

    def _normals(self, w: Array) -> Array:
        return np.reshape(self.land.kink_normals(w), (len(self.slopes), *w.shape))

    def steepness(self, flat: Array) -> float:
        """Return the norm of the gradient off the kinks, on their steeper sides."""
        w, on = flat.reshape(self.land.shape), self.kinks
        return max(
            float(np.linalg.norm(self._gradient(w, np.where(on, slope, self.slopes))))
            for slope in (0.0, 1.0)
        )

    def gradient(self, flat: Array) -> Array:
        """Return the gradient along the kinks, (k d,)."""
        w, on = flat.reshape(self.land.shape), self.kinks
        gradient = self._gradient(w, np.where(on, 0.0, self.slopes))
        if on.any():
            normals = self._normals(w)
            for row in np.flatnonzero(on.any(axis=0)):
                across = np.linalg.qr(normals[on[:, row], row].T)[0]
                gradient[row] -= across @ (across.T @ gradient[row])
        return gradient.reshape(-1)

    def theta(self, w: Array) -> Array:
        """Return the slopes (h, k), those of the kinks being what keeps the flow on them."""
        theta, on = self.slopes.copy(), self.kinks
        if on.any():
            gradient, pulls = self._split(w, on)
            normals = self._normals(w)
            for row in np.flatnonzero(on.any(axis=0)):
                held = on[:, row]
                rates = normals[held, row] @ pulls[held, row].T
                theta[held, row] = np.linalg.lstsq(rates, normals[held, row] @ gradient[row])[0]
        return theta

    def margins(self, flat: Array) -> Array:
        """Return by how much each hinge is beyond where this piece ends, negative inside it."""
        w = flat.reshape(self.land.shape)
        c, theta = np.atleast_2d(self.land.kinks(w)), self.theta(w)
        beside = np.where(self.slopes == 1.0, c, -c)
        return np.where(self.kinks, np.maximum(-theta, theta - 1.0), beside) - self.margin

    def snapped(self, flat: Array) -> Array:
        """Return w with the rows that slide put back on their kinks, from which errors drift."""
        w, on = flat.reshape(self.land.shape).copy(), self.kinks
        for _ in range(_RETURNS if on.any() else 0):
            normals, c = self._normals(w), np.atleast_2d(self.land.kinks(w))
            for row in np.flatnonzero(on.any(axis=0)):
                held = on[:, row]
                w[row] -= np.linalg.lstsq(normals[held, row], c[held, row])[0]
        return w.reshape(-1)

    def turned(self, flat: Array, hinge: tuple[int, int]) -> tuple[Slide, Array]:
        """Return the piece that follows where a hinge turns on its kink, and its start."""
        view, row = hinge
        met = self.kinks[:, row]
        met[view] = True
        return self._settled(flat, met, row)

    def _settled(self, flat: Array, met: Any, row: int) -> tuple[Slide, Array]:
        """Return the piece that starts where a row is on the kinks `met` (h,), and its start.

        The flow takes the subgradient of least norm: a hinge whose slope is 0 or 1 there leaves.
        """
        slopes = self.slopes.copy()
        slopes[met, row] = np.nan
        start = replace(self, slopes=slopes).snapped(flat)
        at = np.zeros_like(self.kinks)
        at[met, row] = True
        gradient, pulls = self._split(start.reshape(self.land.shape), at)
        best = best_in_box(pulls[met, row], gradient[row])
        slopes[met, row] = np.where((best > 0.0) & (best < 1.0), np.nan, best)
        return replace(self, slopes=slopes), start

    def curves_down(self, flat: Array, norm: float) -> bool:
        """Return whether the landscape has a direction of descent of second order."""
        w = flat.reshape(self.land.shape)
        hessian = self.smooth(self.theta(w).clip(0.0, 1.0)).hessian(w)
        views, rows = np.nonzero(self.kinks)
        normals = np.zeros((len(rows), *self.land.shape))
        normals[np.arange(len(rows)), rows] = self._normals(w)[views, rows]
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
    land: Landscape,
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
    (piece, w), t = Slide.at(land, start, rtol), 0.0
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
            turning = None
            for hinge in zip(*np.nonzero(piece.margins(w) > 0.0), strict=True):
                at = crossing(partial(_margin, piece, dense, hinge), before, float(solver.t))
                if turning is None or at < t:
                    turning, t = hinge, at
            until = int(np.searchsorted(times, t, side="right"))
            for j in range(path.filled, until):
                path.fill(j + 1, piece.snapped(dense(times[j])))
            if turning is not None:
                piece, w = piece.turned(dense(t), turning)
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
            if turning is None and t > 2.0 * tested and norm * t <= rtol * largest:
                tested = t
                if norm <= rtol * curvature * largest and not piece.curves_down(w, norm):
                    path.outcome, path.end = "converged", float(times[-1])
                    path.fill(len(times), piece.snapped(w))
                    return path
            if turning is not None:
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
    smooth = piece.smooth(piece.slopes)
    return lambda _, w: -smooth.hessian(w.reshape(piece.land.shape))


def _margin(
    piece: Slide, dense: Callable[[float], Array], hinge: tuple[int, int], time: float
) -> float:
    return float(piece.margins(dense(time))[hinge])


def _with_one_kink_for_two(land: Any) -> Any:
    """Return the landscape with one hinge a row where those of both views are the same."""
    probe = np.random.default_rng(0).standard_normal(land.shape)
    normals = np.reshape(land.kink_normals(probe), (-1, *land.shape))
    if len(normals) == 1:
        return land
    apart = np.abs(normals[1] - normals[0]).max()
    return _OneKink(land) if apart <= _SAME * np.abs(normals).max() else land


@dataclass(frozen=True, eq=False)
class _OneKink:
    """A landscape whose two hinges of a row are the same, seen as one hinge."""

    land: Any

    @property
    def shape(self) -> Any:
        return self.land.shape

    def kinks(self, w: Array) -> Array:
        return np.asarray(self.land.kinks(w)[0])

    def kink_normals(self, w: Array) -> Array:
        return np.asarray(self.land.kink_normals(w)[0])

    def with_slopes(self, theta: Array) -> Any:
        return self.land.with_slopes(np.stack([theta, theta]))
