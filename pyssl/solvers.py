"""Minima of landscapes by descent, where there is no closed form or to check it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._kinks import KinkProblem
from pyssl._pencil import readonly
from pyssl._problems import DirectProblem, ModeProblem
from pyssl._trust import Ending, Outcome, Point, descend, norm
from pyssl.deep import DeepLandscape
from pyssl.landscape import Landscape
from pyssl.numerical import NumericalLandscape
from pyssl.spectral import SpectralLandscape

__all__ = ["MinimizeResult", "MinimizeState", "Outcome", "minimize"]

Floats = npt.NDArray[Any]


@dataclass(frozen=True)
class MinimizeState:
    """Where a minimisation stands: what its callback is told.

    Attributes
    ----------
    restart : int
        The run, counted from 0.
    iteration : int
        Of this run, counted from 0, which is the start.
    value : float
    gradient_norm : float

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> land = pyssl.SpectralLandscape(np.eye(2), np.eye(2), pyssl.Quartic(1.0), 1)
    >>> states = []
    >>> result = pyssl.minimize(land, closed_form=False, callback=states.append)
    >>> states[0].iteration, states[-1].iteration == result.iterations
    (0, True)
    """

    restart: int
    iteration: int
    value: float
    gradient_norm: float


@dataclass(frozen=True, eq=False, repr=False)
class MinimizeResult:
    """A minimum found by `minimize`, or how the search for it ended.

    Attributes
    ----------
    weights : (k, d) ndarray
        The minimiser found; nan where the closed form says that none exists. Without a minimiser
        the numerical search returns the last point on its way to infinity.
    value : float
        L there; the infimum where the closed form says that no minimiser exists or the landscape
        is scale free.
    gradient_norm : float
        Of the gradient there; on kinks, of the subgradient of least norm (the KKT residual).
    index : int
        Negative eigenvalues of the Hessian there (on kinks: of the Lagrangian on their tangent
        space), those below -1e-6 of the largest in magnitude. With more than 300 weights it is
        counted as far as 24.
    outcome : Outcome
    iterations : int
        Of the run that won.
    restarts : int
        Runs that were made.
    closed_form : bool
        Whether the closed form was used.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> land = pyssl.SpectralLandscape(np.diag([2.0, 1.0]), np.eye(2), pyssl.Quartic(0.5), 1)
    >>> pyssl.minimize(land).converged
    True
    """

    weights: Floats
    value: float
    gradient_norm: float
    index: int
    outcome: Outcome
    iterations: int
    restarts: int
    closed_form: bool

    @property
    def converged(self) -> bool:
        """Whether the weights are a local minimum to the tolerance: index 0, small gradient.

        Of a scale-free landscape with weight decay: whether their directions are.
        """
        return self.outcome in (Outcome.CONVERGED, Outcome.SCALE_FREE)

    @property
    def attained(self) -> bool:
        """Whether a minimiser was found; every outcome but `CONVERGED` says why not."""
        return self.outcome is Outcome.CONVERGED

    @property
    def message(self) -> str:
        """What the outcome means, in a sentence."""
        return _MESSAGES[self.outcome]

    def __repr__(self) -> str:
        how = "closed form" if self.closed_form else f"{self.iterations} iterations"
        if self.restarts > 1:
            how += f", best of {self.restarts} runs"
        rows = [
            ("outcome", f"{self.outcome.value}: {self.message}"),
            ("value", f"{self.value:.12g}"),
            ("gradient norm", f"{self.gradient_norm:.2e}"),
            ("index", str(self.index)),
            ("weights", f"{self.weights.shape}, norm {np.linalg.norm(self.weights):.6g}"),
            ("found by", how),
        ]
        return "MinimizeResult\n" + "\n".join(f"  {name:<14} {text}" for name, text in rows)


_MESSAGES = {
    Outcome.CONVERGED: "a local minimum",
    Outcome.UNBOUNDED: "the value falls without limit as W grows; there is no minimum",
    Outcome.NO_MINIMISER: "the value keeps falling, ever more slowly, as W grows without limit",
    Outcome.SCALE_FREE: "the directions are a local minimum; the decay shrinks W without end",
    Outcome.STALLED: "rounding stopped the descent before the tolerance was met",
    Outcome.ITERATION_LIMIT: "the iterations ran out before the tolerance was met",
    Outcome.INTERRUPTED: "the callback stopped the descent",
}


def minimize(
    land: Landscape,
    start: npt.ArrayLike | None = None,
    restarts: int = 1,
    rng: Any = None,
    *,
    closed_form: bool = True,
    tolerance: float = 1e-9,
    max_iterations: int = 1000,
    callback: Callable[[MinimizeState], Any] | None = None,
) -> MinimizeResult:
    """Minimise a landscape.

    By the closed form where the landscape has one, else by a trust-region Newton method on
    Hessian-vector products, which follows negative curvature: a saddle is left, whatever the
    start, and never returned as a minimum.

    Parameters
    ----------
    land : Landscape
    start : (k, d) array_like, optional
        Where the first run starts; otherwise at a small random W. The closed form needs none.
    restarts : int, optional
        How many runs are made, from random starts but the first; the lowest value wins.
    rng : int, numpy.random.Generator or other seed, optional
        For the random starts. By default the same at every call.
    closed_form : bool, optional
        False searches numerically even where there is a closed form.
    tolerance : float, optional
        A run has converged when the gradient's norm is at most `tolerance` times the scale of
        gradients on the landscape (root-mean-square curvature at small W times the |W| at which
        the curvature changes by half), the Newton step is at most 1e-3 of W, and the Hessian has
        no negative eigenvalue.
    max_iterations : int, optional
        Newton steps of a run.
    callback : callable, optional
        Called with a `MinimizeState` at every iteration; a true result stops everything.

    Returns
    -------
    MinimizeResult

    Raises
    ------
    ValueError
        For a wrong shape or value, NaN or infinity.
    TypeError
        For arguments of the wrong kind.
    NotImplementedError
        For a numerical search on a `DeepLandscape`.

    Notes
    -----
    Source: theory 2.2, 2.3, 2.6 and 3.5. A spectral landscape is searched in the coordinates of
    its modes. Of a scale-free landscape the directions are minimised, without the decay, at
    |W| = 1: with decay there is no minimiser. Where the curvature at W = 0 is the weight decay's
    within rounding, 1e3 eps, the minimum is W = 0, whatever the start (without a bias, which does
    not decay). On the kinks of the hinge in VICReg, where its minimum sits, rows of W move along
    the kink.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> land = pyssl.SpectralLandscape(np.diag([2.0, 1.0]), np.eye(2), pyssl.Quartic(0.5), 1)
    >>> result = pyssl.minimize(land, start=[[0.0, 0.0]], closed_form=False)
    >>> result.outcome, round(result.value, 6), result.index
    (<Outcome.CONVERGED: 'converged'>, -2.0, 0)
    """
    _checks.instance("land", land, Landscape, "a pyssl.Landscape")
    runs = _checks.integer("restarts", restarts, minimum=1)
    by_formula = _checks.flag("closed_form", closed_form)
    tol = _checks.real("tolerance", tolerance, minimum=0.0, open_minimum=True)
    most = _checks.integer("max_iterations", max_iterations, minimum=0)
    first = None if start is None else _checks.weights("start", start, land.shape)
    if first is not None and first.ndim != 2:
        raise ValueError(f"start must be {land.shape}, got {first.shape}")
    if first is not None:
        _checks.squarable("start", first)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a function, got {type(callback).__name__}")
    generator = _checks.generator("rng", 0 if rng is None else rng)
    if by_formula and hasattr(land, "minimum"):
        return _by_formula(land)
    if isinstance(land, DeepLandscape):
        raise NotImplementedError(
            "minimize: the decay of a deep model has no derivative where W loses rank, which Newton"
            " steps need; closed_form=True gives its minimum"
        )
    if first is not None and _scale_free(land) and not first.any():
        raise ValueError("start must not be 0: a scale-free landscape has no value there")
    problem = _problem(land)
    best: tuple[Ending, int] | None = None
    stopped = False
    for run in range(runs):
        w = problem.random_weights(generator)
        if run == 0 and first is not None:
            w = first.astype(np.float64)
        if problem.quenched:
            w = np.zeros(land.shape)

        def report(iteration: int, point: Point, run: int = run) -> bool:
            nonlocal stopped
            if callback is not None:
                state = MinimizeState(run, iteration, point.value, point.gradient_norm)
                stopped = bool(callback(state))
            return stopped

        with np.errstate(all="ignore"):  # a step too far may overflow; it is not taken
            ending = descend(
                problem,
                problem.coordinates(w),
                tolerance=tol,
                max_iterations=most,
                rng=generator,
                report=report,
            )
        if best is None or _better(ending, best[0], problem.value_scale):
            best = ending, run
        if stopped:
            break
    assert best is not None
    return _result(problem, best[0], run + 1)


def _problem(land: Any) -> DirectProblem | ModeProblem:
    if hasattr(land, "with_slopes"):
        return KinkProblem(land)
    if isinstance(land, SpectralLandscape) and land.bounded:
        modes = land.in_modes()
        if modes.shape[1]:
            return ModeProblem(modes, land)
    return DirectProblem(land)


def _scale_free(land: Landscape) -> bool:
    return bool(getattr(land, "scale_free", False))


def _better(ending: Ending, best: Ending, value_scale: float) -> bool:
    """Whether a run beats the best: by its value, or by its outcome where that ties."""
    gap = ending.point.value - best.point.value
    if abs(gap) <= 1e-9 * max(abs(best.point.value), value_scale):
        return ending.outcome is Outcome.CONVERGED and best.outcome is not Outcome.CONVERGED
    return gap < 0.0


def _result(problem: DirectProblem | ModeProblem, ending: Ending, runs: int) -> MinimizeResult:
    land, outcome = problem.land, ending.outcome
    weights, value = readonly(problem.weights(ending.point)), ending.point.value
    if not _scale_free(land):
        value = float(land.value(weights))
    elif outcome is Outcome.CONVERGED and getattr(land, "weight_decay", 0.0) > 0.0:
        outcome = Outcome.SCALE_FREE
    return MinimizeResult(
        weights=weights,
        value=value,
        gradient_norm=ending.point.gradient_norm,
        index=ending.index,
        outcome=outcome,
        iterations=ending.iterations,
        restarts=runs,
        closed_form=False,
    )


def _by_formula(land: Any) -> MinimizeResult:
    minimum = land.minimum()
    weights = minimum.weights
    known = bool(np.isfinite(weights).all())
    outcome = Outcome.CONVERGED
    if not minimum.attained:
        outcome = Outcome.NO_MINIMISER
        if _scale_free(land) and known:
            outcome = Outcome.SCALE_FREE
        elif isinstance(land, SpectralLandscape) and not (land.bounded and land._modes.beyond == 0):
            outcome = Outcome.UNBOUNDED
    gradient = np.nan
    if known:
        own = _scale_free(land) and isinstance(land, NumericalLandscape)  # without the decay
        gradient = norm(land._value_and_gradient(weights)[1] if own else land.gradient(weights))
    return MinimizeResult(
        weights=weights,
        value=float(minimum.value),
        gradient_norm=gradient,
        index=0,
        outcome=outcome,
        iterations=0,
        restarts=0,
        closed_form=True,
    )
