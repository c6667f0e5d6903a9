"""Gradient flow by integration: stiff-safe, with certified limits and stated ends."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl.landscape import Landscape

__all__ = [
    "LARGEST",
    "STIFF_LIMIT",
    "Array",
    "Hook",
    "Path",
    "Problem",
    "crossing",
    "follow",
    "is_saddle",
]

Array = npt.NDArray[np.float64]
# (time, value, gradient norm) -> whether to stop
Hook = Callable[[float, float, float], bool]

# Entries of W beyond which a flow has diverged: its products still fit float64.
LARGEST = 1e70
# The largest k d whose dense Hessian an implicit step may factor.
STIFF_LIMIT = 2048
# What is reasonable work: steps of the implicit method, evaluations of the explicit one.
_STEPS = 50_000
_EVALUATIONS = 200_000
# Evaluations per unit of (largest curvature x time) at the edge of the explicit method's stability.
_EVALUATIONS_PER_UNIT = 2.0
# A time, in units of 1/(largest curvature), after which only what rounding decides still moves.
_FOREVER = 1e30

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Problem:
    """A landscape as a function of flat float64 vectors w (k d,)."""

    land: Landscape

    def value_and_gradient(self, w: Array) -> tuple[float, Array]:
        """Return L and its gradient; nan outside the landscape's domain."""
        if np.isfinite(w).all():
            try:
                with np.errstate(all="ignore"):
                    value, gradient = self.land.value_and_gradient(w.reshape(self.land.shape))
                return float(value), gradient.reshape(-1)
            except np.linalg.LinAlgError:  # of products that overflowed
                pass
        return np.nan, np.full_like(w, np.nan)

    def hessian(self, w: Array) -> Array:
        """Return the Hessian (k d, k d)."""
        return self.land.hessian(w.reshape(self.land.shape))

    def hvp(self, w: Array, direction: Array) -> Array:
        """Return the Hessian at w times a direction."""
        shape = self.land.shape
        return self.land.hvp(w.reshape(shape), direction.reshape(shape)).reshape(-1)

    def curvature(self, w: Array) -> float:
        """Estimate the norm of the Hessian at w from below, within a factor of about two.

        What does not depend on the scale of w may be constant: its unit then is |L|/|w|^2.
        """
        unit = 0.0
        if getattr(self.land, "scale_free", False):
            unit = abs(self.value_and_gradient(w)[0]) / float(w @ w)
        direction = np.random.default_rng(0).standard_normal(len(w))
        norm = 0.0
        for _ in range(8):
            direction /= np.linalg.norm(direction)
            direction = self.hvp(w, direction)
            norm = float(np.linalg.norm(direction))
            if norm == 0.0 or not np.isfinite(norm):
                return unit
        return max(norm, unit)

    def stays(self, w: Array, gradient: Array) -> bool:
        """Return whether the gradient is zero within its own rounding."""
        size = float(np.linalg.norm(w))
        return float(np.linalg.norm(gradient)) <= 16.0 * _EPS * self.curvature(w) * size


@dataclass(eq=False)
class Path:
    """What a flow passed: filled as it is followed.

    Attributes
    ----------
    weights : (t, k d), nan where the flow was not followed to.
    end : the time to which it was followed.
    crossed : (m,) when each watched quantity first reached its level.
    outcome : "completed", "converged", "saddle", "diverged" or "stopped".
    """

    weights: Array
    crossed: Array
    end: float = 0.0
    outcome: str = "completed"
    evaluations: int = 0
    filled: int = field(default=0, repr=False)

    def fill(self, until: int, weights: Any) -> None:
        """Set the weights of the times up to number `until`."""
        self.weights[self.filled : until] = weights
        self.filled = until


def follow(
    problem: Problem,
    start: Array,
    times: Array,
    *,
    rtol: float,
    atol: float,
    stiff: bool,
    watched: Callable[[Array], Array],
    levels: Array,
    hook: Hook,
    attained: bool,
) -> Path:
    """Integrate w' = -grad L(w) from `start` (k d,) through `times` (t,).

    `watched` maps w to quantities (m,) whose first passage of `levels` is reported. `attained` is
    False where the landscape is known to have no minimum: then infinite time has no weights.
    """
    from scipy.integrate import DOP853, LSODA

    path = Path(np.full((len(times), len(start)), np.nan), np.full(len(levels), np.nan))
    curvature = max(problem.curvature(start), float(np.finfo(np.float64).tiny))
    finite_last = float(times[np.isfinite(times)].max(initial=0.0))
    endless = bool(np.isinf(times[-1])) and attained
    horizon = max(min(_FOREVER / curvature, 1e300), finite_last) if endless else finite_last
    if not stiff:
        needed = _EVALUATIONS_PER_UNIT * curvature * finite_last
        if needed > _EVALUATIONS:
            raise RuntimeError(
                f"the flow would take some {needed:.1e} evaluations of the explicit method, which"
                f" {len(start)} weights call for: the largest curvature is {curvature:.3g} and the"
                f" last time {finite_last:.3g}; ask for earlier times, or method='implicit'"
            )

    def slope(_: float, w: Array) -> Array:
        return -problem.value_and_gradient(w)[1]

    def jacobian(_: float, w: Array) -> Array:
        return -problem.hessian(w)

    value, gradient = problem.value_and_gradient(start)
    reached = watched(start) >= levels
    path.crossed[reached] = 0.0
    path.fill(int(np.searchsorted(times, 0.0, side="right")), start)
    if hook(0.0, value, float(np.linalg.norm(gradient))):
        path.outcome = "stopped"
        return path
    if path.filled == len(times) or horizon == 0.0:
        return path if attained else _without_limit(path, times)
    options = {"rtol": rtol, "atol": atol}
    if stiff:
        solver = LSODA(slope, 0.0, start, horizon, jac=jacobian, **options)
    else:
        solver = DOP853(slope, 0.0, start, horizon, **options)
    largest = size = float(np.linalg.norm(start))
    norm = float(np.linalg.norm(gradient))
    tested, norm_then = 0.0, np.inf
    for _ in range(_STEPS):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")  # what LSODA warns of goes into the error below
            message = solver.step() or ""
        w, t = solver.y, float(solver.t)
        top = float(np.abs(w).max())
        failed = solver.status == "failed"
        if failed and top < 1e6 * max(largest, float(np.abs(start).max())) and np.isfinite(top):
            reason = " ".join([*(str(warning.message) for warning in caught), message])
            raise RuntimeError(
                f"the flow can't be followed beyond time {t:.6g}, where the gradient norm is"
                f" {norm:.3g}; is the landscape smooth there? ({reason})"
            )
        if failed or not top <= LARGEST:
            path.outcome, path.end = "diverged", t
            break
        passed, norm_before = value, norm
        value, gradient = problem.value_and_gradient(w)
        norm = float(np.linalg.norm(gradient))
        size = float(np.linalg.norm(w))
        largest = max(largest, size)
        # what the errors of a step, and rounding, may add to the value
        slack = 10.0 * np.sqrt(len(w)) * (rtol * size + atol) * max(norm_before, norm)
        slack += 64.0 * _EPS * (abs(value) + curvature * largest**2)
        if not value <= passed + slack:
            raise RuntimeError(
                f"the value rose from {passed:.10g} to {value:.10g} at time {t:.6g}, which a"
                " gradient flow can't do: a smaller rtol may help"
            )
        until = int(np.searchsorted(times, t, side="right"))
        above = watched(w) >= levels
        if until > path.filled or (above & ~reached).any():
            dense = solver.dense_output()
            for i in range(path.filled, until):
                path.fill(i + 1, dense(times[i]))
            for j in np.flatnonzero(above & ~reached):
                excess = partial(_excess, watched, dense, int(j), float(levels[j]))
                path.crossed[j] = crossing(excess, float(solver.t_old), t)
            reached |= above
        path.end = t
        if hook(t, value, norm):
            path.outcome = "stopped"
            break
        if path.filled == len(times):
            break
        # Too early a test would cost a Hessian a step; at rest the bound is met soon. Explicit
        # steps end at the edge of stability: the gradient does not fall below their own error.
        noise = norm <= (64.0 * _EPS if stiff else 100.0 * rtol) * curvature * largest
        soon = noise or norm * t <= rtol * largest
        if soon and t > 2.0 * tested and (stiff or t > finite_last):
            # noise does not fall any more
            left = 0.0 if noise and norm > 0.5 * norm_then else 0.1 * rtol * largest
            if _at_rest(problem, w, gradient, curvature, left, stiff):
                path.outcome = "converged"
                break
            tested, norm_then = t, norm
        if solver.status == "finished":
            break
        if not stiff and solver.nfev > _EVALUATIONS:
            _exhausted(problem, path, w, norm, curvature, size, endless)
            break
    else:
        _exhausted(problem, path, solver.y, norm, curvature, size, endless)
    path.evaluations = int(solver.nfev)
    if path.outcome in ("diverged", "stopped") or path.filled == len(times):
        return path
    grown = float(np.linalg.norm(solver.y)) > float(np.linalg.norm(start))
    vanished = endless and grown and problem.curvature(solver.y) <= 64.0 * _EPS * curvature
    if not attained or vanished:  # onto a plain that nothing ends: the loss has underflown
        return _without_limit(path, times)
    # what is left are times of a flow at rest
    path.fill(len(times), solver.y)
    path.end = float(times[-1])
    if endless:
        path.outcome = "saddle" if is_saddle(problem, solver.y) else "converged"
    return path


def _without_limit(path: Path, times: Array) -> Path:
    """Say what becomes at infinite time of a flow on a landscape without minimiser."""
    if np.isinf(times[-1]):
        path.outcome, path.end = "diverged", np.inf
    return path


def _exhausted(
    problem: Problem,
    path: Path,
    w: Array,
    norm: float,
    curvature: float,
    size: float,
    endless: bool,
) -> None:
    """Accept a flow at which only rounding is left, or say that the work has been too much."""
    if norm <= 64.0 * _EPS * curvature * size and not (endless and is_saddle(problem, w)):
        path.outcome = "converged"
        return
    raise RuntimeError(
        f"the flow reached only time {path.end:.6g} in {_STEPS} steps (gradient norm {norm:.3g});"
        " ask for earlier times or a larger rtol"
    )


def _at_rest(
    problem: Problem,
    w: Array,
    gradient: Array,
    curvature: float,
    distance: float,
    stiff: bool,
) -> bool:
    """Return whether the flow is within a `distance` of a limit that is no saddle.

    A distance of 0 stands for a gradient that is all rounding: then only the curvature decides.
    """
    norm = float(np.linalg.norm(gradient))
    flat = _flat(curvature, norm, w)
    if not stiff:
        return _lowest(problem, w) >= -max(flat, 1e-8 * curvature)
    spectrum, basis = np.linalg.eigh(problem.hessian(w))
    top = float(np.abs(spectrum).max())
    floor = max(flat, 4.0 * len(w) * _EPS * top)
    if spectrum[0] < -floor or distance == 0.0:
        return bool(spectrum[0] >= -floor)
    # the step that Newton's method has left; across gauge orbits there is no gradient
    left = (basis.T @ gradient) / np.maximum(spectrum, 4.0 * len(w) * _EPS * top)
    return float(np.linalg.norm(left)) <= distance


def is_saddle(problem: Problem, w: Array) -> bool:
    """Return whether the landscape curves down at a stationary w, beyond rounding."""
    gradient = problem.value_and_gradient(w)[1]
    curvature = problem.curvature(w)
    floor = _flat(curvature, float(np.linalg.norm(gradient)), w)
    if len(w) > STIFF_LIMIT:
        return _lowest(problem, w) < -max(floor, 1e-8 * curvature)
    return float(np.linalg.eigvalsh(problem.hessian(w))[0]) < -floor


def _flat(curvature: float, norm: float, w: Array) -> float:
    """Return what an eigenvalue along a gauge orbit may be: rounding, and |gradient|/|w|."""
    size = float(np.linalg.norm(w))
    return 64.0 * len(w) * _EPS * curvature + (4.0 * norm / size if size > 0.0 else 0.0)


def _lowest(problem: Problem, w: Array) -> float:
    """Return the lowest eigenvalue of the Hessian from its products with directions."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    operator = LinearOperator(
        (len(w), len(w)), matvec=lambda v: problem.hvp(w, np.ravel(v)), dtype=np.float64
    )
    first = np.random.default_rng(0).standard_normal(len(w))
    return float(eigsh(operator, k=1, which="SA", tol=1e-6, v0=first)[0][0])


def _excess(
    watched: Callable[[Array], Array],
    dense: Callable[[float], Array],
    j: int,
    level: float,
    time: float,
) -> float:
    """Return how far the watched quantity j lies above its level at a time inside a step."""
    return float(watched(dense(time))[j] - level)


def crossing(gap: Callable[[float], float], low: float, high: float) -> float:
    """Return where `gap` changes sign."""
    from scipy.optimize import brentq

    # the interpolant may miss the ends of its step by its own error
    if gap(low) >= 0.0:
        return low
    if gap(high) <= 0.0:
        return high
    return float(brentq(gap, low, high, xtol=4.0 * _EPS * high, rtol=1e-12))
