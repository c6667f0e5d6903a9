"""Gradient flow: training with an infinitesimal step, in closed form or integrated (theory 2.7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._aligned import AlignedFlow, ModeFrame, mode_frame
from pyssl._integrate import LARGEST, STIFF_LIMIT, Path, Problem, follow, is_saddle
from pyssl._pencil import Array, readonly
from pyssl._sliding import slide
from pyssl.deep import DeepLandscape
from pyssl.landscape import Landscape
from pyssl.spectral import SpectralLandscape

__all__ = ["Flow", "FlowOutcome", "FlowState", "gradient_flow"]

Floats = npt.NDArray[Any]

_METHODS = ("auto", "closed form", "implicit", "explicit")
# Without `atol`: so much of rtol times the largest entry of the start. Directions that are small at
# the start may be the ones that are learned.
_ABSOLUTE = 1e-3
_ROWS = 9


class FlowOutcome(StrEnum):
    """How a gradient flow ended.

    COMPLETED: followed through the last time. CONVERGED: at rest before or at infinite time, where
    the Hessian has no negative eigenvalue. SADDLE: at infinite time at a stationary point with a
    direction of descent, which an exact start may run into. STATIONARY_START: the gradient at the
    start is zero within rounding, and the flow stays. DIVERGED: W left every bound, or infinite
    time was asked of a landscape without minimiser. STOPPED: by the callback.

    Examples
    --------
    >>> import pyssl
    >>> pyssl.FlowOutcome.DIVERGED
    <FlowOutcome.DIVERGED: 'diverged'>
    """

    COMPLETED = "completed"
    CONVERGED = "converged"
    SADDLE = "saddle"
    STATIONARY_START = "stationary start"
    DIVERGED = "diverged"
    STOPPED = "stopped"


@dataclass(frozen=True)
class FlowState:
    """Where a flow is: what its callback sees.

    Attributes
    ----------
    time : float
    value : float
        L.
    gradient_norm : float
        The Frobenius norm of its gradient.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> land = pyssl.SpectralLandscape(np.eye(1), np.eye(1), pyssl.Quartic(0.5), embedding_dim=1)
    >>> flow = pyssl.gradient_flow(land, [[0.1]], [0.0, 2.0],
    ...                            callback=lambda state: print(state.time, state.value < 0.0))
    0.0 True
    2.0 True
    """

    time: float
    value: float
    gradient_norm: float


@dataclass(frozen=True, eq=False, repr=False)
class Flow:
    """A gradient flow at the times asked for. Prints as a table.

    Attributes
    ----------
    times : (t,) ndarray
    weights : (t, k, d) ndarray
        W(t), of the dtype of the start; nan at times that the flow was not followed to.
    values, gradient_norms : (t,) ndarray
        L and the Frobenius norm of its gradient (of hinge VICReg: the KKT residual); nan where the
        weights are.
    outcome : FlowOutcome
    end_time : float
        The time to which the flow was followed: the last one unless it diverged or was stopped.
    closed_form : bool
        Whether the weights come from the formula of theory 2.7.
    evaluations : int
        Gradients that the integration took; 0 in closed form.
    amplitudes : (t, d) ndarray or None
        n_j = v_j'S M S v_j (v'Sv = 1) of a spectral landscape, in the order of its eigenvalues:
        what each mode has learned. Where B and S commute the modes are eigenvectors of both.
    learning_times : (d,) ndarray or None
        When n_j first reaches half its amplitude at the global minimum: 0 if at the start, nan if
        not by `end_time`, or if the minimum does not learn the mode.
    predicted_learning_times : (d,) ndarray or None
        log(n_inf/n_0 - 1)/(4 b_j), from the amplitudes at the start: exact for an aligned start on
        a quartic landscape, a small-start heuristic else; nan for modes that the minimum does not
        learn, and everywhere where B and S don't commute.

    Notes
    -----
    Source: theory 2.7. "Fastest b_j first" is a heuristic for starts that are not aligned.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> land = pyssl.SpectralLandscape(np.diag([2.0, 1.0]), np.eye(2), pyssl.Quartic(0.5), 2)
    >>> flow = pyssl.gradient_flow(land, 1e-3 * np.eye(2), [0.0, 2.0, 4.0])
    >>> flow
    Flow(completed at time 4, closed form)
     time         value  |gradient|  learned
        0        -3e-06    0.004472        0
        2      -1.93546      0.9452        1
        4      -2.49488      0.1918        2
    >>> flow.learning_times.round(3)
    array([1.814, 3.454])
    """

    times: Array
    weights: Floats
    values: Floats
    gradient_norms: Floats
    outcome: FlowOutcome
    end_time: float
    closed_form: bool
    evaluations: int
    amplitudes: Array | None = None
    learning_times: Array | None = None
    predicted_learning_times: Array | None = None

    def __repr__(self) -> str:
        how = "closed form" if self.closed_form else f"{self.evaluations} evaluations"
        lines = [f"Flow({self.outcome} at time {self.end_time:g}, {how})"]
        head = f"{'time':>5} {'value':>13} {'|gradient|':>11}"
        lines.append(head if self.learning_times is None else head + f" {'learned':>8}")
        rows = np.unique(np.linspace(0, len(self.times) - 1, _ROWS).round().astype(int))
        for i in rows:
            t = self.times[i]
            line = f"{t:5.4g} {self.values[i]:13.6g} {self.gradient_norms[i]:11.4g}"
            if self.learning_times is not None:
                line += f" {np.count_nonzero(self.learning_times <= t):8d}"
            lines.append(line)
        return "\n".join(lines)


def gradient_flow(
    land: Landscape,
    start: npt.ArrayLike,
    times: npt.ArrayLike,
    *,
    rtol: float = 1e-8,
    atol: float | None = None,
    method: str = "auto",
    callback: Callable[[FlowState], object] | None = None,
) -> Flow:
    """Follow the gradient flow W' = -grad L(W) from a start through given times.

    Parameters
    ----------
    land : Landscape
        Any landscape.
    start : (k, d) array_like
        W(0).
    times : (t,) array_like
        Strictly ascending and not negative. The last may be inf: the limit of the flow.
    rtol : float, optional
        Relative accuracy of a step of the integration, 1e-13 to 1e-2.
    atol : float, optional
        Absolute one, in the units of W; by default rtol/1000 times the start's largest entry, as
        directions that are small at the start may be those that are learned.
    method : {"auto", "closed form", "implicit", "explicit"}
        "auto" takes the closed form where there is one, else the implicit method (LSODA with the
        exact Hessian, which turns implicit where the flow is stiff) up to 2048 weights and the
        explicit one (DOP853) beyond.
    callback : callable, optional
        Called with a `FlowState` at the start and after every step (in closed form at every finite
        time); a true result stops the flow there.

    Returns
    -------
    Flow
        Its `outcome` says how the flow ended: diverged and stopped flows are returned, with nan
        after their end.

    Raises
    ------
    ValueError
        For a wrong shape, NaN or infinity, times that are negative or not ascending, a start at
        which the landscape is not finite, or ``method="closed form"`` where there is none.
    TypeError
        For arguments of the wrong kind.
    NotImplementedError
        For a `DeepLandscape`.
    RuntimeError
        Where the flow can't be followed in 50,000 steps (implicit) or 200,000 evaluations
        (explicit), or its value rises by more than its errors explain.

    Notes
    -----
    Source: theory 2.7. The closed form holds where B and S commute (the commutator is at most
    64 d eps |B| |S|, entry by entry) and the start is aligned: the columns of W(0) in the common
    eigenvectors, chosen to fit the start where eigenvalues of both are tied, are orthogonal within
    64 d eps of their lengths. Quartic landscapes then follow the logistic formula; for other
    potentials each mode's scalar equation is solved to 1e-12.

    The flow is at rest, and is not followed further, once the Newton step that is left is below
    rtol/10 times the largest |W| so far, or its gradient is rounding, with no negative curvature;
    the explicit method, asked for infinite time, takes modes slower than about 100 rtol times the
    fastest for resting. A start whose gradient is zero
    within rounding, 16 eps |Hessian| |W|, stays: also at a saddle, and at W = 0. Flows that pass
    |W| = 1e70 have diverged.

    On VICReg the flow follows the subgradient of least norm along the kinks of its hinges
    (theory 3.5), in smooth pieces, whatever integrating method is asked for: those of the
    population, and those of both views on a batch.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(3), np.diag([0.9, 0.5, 0.1]))
    >>> land = pyssl.InfoNCE().population(moments, embedding_dim=2, weight_decay=0.4)
    >>> start = 1e-3 * np.random.default_rng(0).standard_normal((2, 3))
    >>> flow = pyssl.gradient_flow(land, start, [0.0, 10.0, np.inf])
    >>> flow.outcome, flow.closed_form
    (<FlowOutcome.CONVERGED: 'converged'>, False)
    >>> bool(np.isclose(flow.values[-1], land.minimum().value, rtol=1e-9))
    True
    """
    if isinstance(land, type) or not isinstance(land, Landscape):
        raise TypeError(f"land must be a landscape, got {type(land).__name__}")
    if isinstance(land, DeepLandscape):
        raise NotImplementedError(
            "gradient_flow: layers don't follow the gradient of their product; give the flow of one"
            " layer, or train layers from land.layers(W)"
        )
    first = _checks.weights("start", start, land.shape)
    if first.ndim != 2:
        raise ValueError(f"start must be {land.shape}, got {first.shape}")
    moments = _times(times)
    rtol = _checks.real("rtol", rtol, minimum=1e-13, maximum=1e-2)
    if atol is not None:
        atol = _checks.real("atol", atol, minimum=0.0, open_minimum=True)
    _checks.choice("method", method, _METHODS)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a function or None, got {type(callback).__name__}")

    w0 = first.astype(np.float64)
    eps = float(np.finfo(first.dtype).eps)
    problem, frame = Problem(land), mode_frame(land)
    frame = None if frame is None else frame.fitted(w0, eps)
    value, gradient = problem.value_and_gradient(w0.reshape(-1))
    if not (np.isfinite(value) and np.isfinite(gradient).all()):
        raise ValueError(f"start must be where the landscape is finite, got the value {value:g}")

    def hook(time: float, value: float, norm: float) -> bool:
        return callback is not None and bool(callback(FlowState(time, value, norm)))

    if problem.stays(w0.reshape(-1), gradient):
        stopped = hook(0.0, value, float(np.linalg.norm(gradient)))
        path = Path(np.tile(w0.reshape(-1), (len(moments), 1)), _at_start(frame, w0))
        path.outcome = "stopped" if stopped else "stationary start"
        path.end = 0.0 if stopped else float(moments[-1])
        path.weights[(moments > 0.0) & stopped] = np.nan
        return _flow(problem, frame, first, moments, path, closed_form=False)
    if method in ("auto", "closed form"):
        aligned = AlignedFlow.of(land, frame, w0, eps)  # type: ignore[arg-type]
        if isinstance(aligned, AlignedFlow):
            assert frame is not None
            path = _closed(problem, aligned, frame, moments, hook)
            return _flow(problem, frame, first, moments, path, closed_form=True)
        if method == "closed form":
            raise ValueError(f"method 'closed form' is not for this flow: {aligned}")
    small = _ABSOLUTE * rtol * float(np.abs(w0).max()) if atol is None else atol
    if hasattr(land, "with_slopes"):
        path = slide(land, w0.reshape(-1), moments, rtol=rtol, atol=small, hook=hook)
        return _flow(problem, frame, first, moments, path, closed_form=False)
    path = follow(
        problem,
        w0.reshape(-1),
        moments,
        rtol=rtol,
        atol=small,
        stiff=method == "implicit" or (method != "explicit" and w0.size <= STIFF_LIMIT),
        watched=_watched(frame, land.shape),
        levels=_levels(frame),
        hook=hook,
        attained=_has_minimum(land),
    )
    return _flow(problem, frame, first, moments, path, closed_form=False)


def _times(times: Any) -> Array:
    result = _checks.array("times", times, ndim=1, check_finite=False).astype(np.float64)
    if len(result) == 0:
        raise ValueError("times must not be empty")
    _checks.finite("times", result[:-1])  # the last may be infinite
    if not result[-1] > -np.inf:
        raise ValueError(f"times must be numbers, got {result[-1]} at times[{len(result) - 1}]")
    if result[0] < 0.0:
        raise ValueError(f"times must not be negative, got {result[0]:g}")
    falls = np.flatnonzero(~(np.diff(result) > 0.0))
    if len(falls):
        i = int(falls[0])
        raise ValueError(f"times must ascend, got {result[i]:g} and then {result[i + 1]:g}")
    return result


def _has_minimum(land: Any) -> bool:
    """Return whether the landscape has a minimiser, as far as is known without looking for it."""
    if isinstance(land, SpectralLandscape):
        return land.minimum().attained
    return not (getattr(land, "scale_free", False) and land.weight_decay > 0.0)


def _levels(frame: ModeFrame | None) -> Array:
    """Return the amplitudes at which modes count as learned: inf for those that never will."""
    if frame is None:
        return np.empty(0)
    return np.where(frame.final > 0.0, 0.5 * frame.final, np.inf)


def _watched(frame: ModeFrame | None, shape: tuple[int, int]) -> Callable[[Array], Array]:
    if frame is None:
        return lambda w: np.empty(0)
    return lambda w: frame.amplitudes(w.reshape(shape))


def _at_start(frame: ModeFrame | None, w0: Array) -> Array:
    learned = _watched(frame, w0.shape)(w0) >= _levels(frame)
    return np.where(learned, 0.0, np.nan)


def _closed(
    problem: Problem,
    aligned: AlignedFlow,
    frame: ModeFrame,
    times: Array,
    hook: Callable[[float, float, float], bool],
) -> Path:
    """Evaluate the closed form, and look at where it ends."""
    weights = aligned.weights(times).reshape(len(times), -1)
    with np.errstate(invalid="ignore"):
        lost = ~(np.abs(weights).max(axis=1) <= LARGEST)
    weights[lost] = np.nan
    path = Path(weights, np.empty(0), end=float(times[-1]))
    if lost.any():
        path.outcome = "diverged"
        path.end = np.inf if np.isinf(times[-1]) and not lost[:-1].any() else np.nan
        kept = times[~lost]
        if np.isnan(path.end):
            path.end = float(kept[-1]) if len(kept) else 0.0
    elif np.isinf(times[-1]):
        path.outcome = "saddle" if is_saddle(problem, weights[-1]) else "converged"
    for time, w in zip(times, weights, strict=True):
        if np.isfinite(time) and np.isfinite(w).all():
            value, gradient = problem.value_and_gradient(w)
            if hook(float(time), value, float(np.linalg.norm(gradient))):
                path.outcome, path.end = "stopped", float(time)
                weights[times > time] = np.nan
                break
    last = path.end if path.outcome in ("diverged", "stopped") else float(times[-1])
    path.crossed = aligned.learning_times(frame.final, last)
    return path


def _flow(
    problem: Problem,
    frame: ModeFrame | None,
    start: Floats,
    times: Array,
    path: Path,
    *,
    closed_form: bool,
) -> Flow:
    values, norms = np.full(len(times), np.nan), np.full(len(times), np.nan)
    kinked: Any = problem.land if hasattr(problem.land, "with_slopes") else None
    for i in np.flatnonzero(np.isfinite(path.weights).all(axis=1)):
        values[i], gradient = problem.value_and_gradient(path.weights[i])
        norms[i] = np.linalg.norm(gradient)
        if kinked is not None:
            norms[i] = kinked.kkt_residual(path.weights[i].reshape(start.shape))[0]
    weights = path.weights.reshape(len(times), *start.shape)
    flow = Flow(
        times=readonly(times),
        weights=readonly(weights.astype(start.dtype)),
        values=readonly(values.astype(start.dtype)),
        gradient_norms=readonly(norms.astype(start.dtype)),
        outcome=FlowOutcome(path.outcome),
        end_time=path.end,
        closed_form=closed_form,
        evaluations=path.evaluations,
    )
    if frame is None:
        return flow
    return replace(
        flow,
        amplitudes=readonly(frame.amplitudes(weights)),
        learning_times=readonly(path.crossed),
        predicted_learning_times=readonly(frame.predicted_times(start.astype(np.float64))),
    )
