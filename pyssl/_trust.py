"""Trust-region Newton descent to a minimum: Steihaug's conjugate gradients and saddle escape.

It works on matrices x of any shape (k, m) and knows landscapes only as a `Problem`, which says what
a point is: its value, its gradient, its Hessian as a function of a direction. Symmetries that leave
the landscape as it is (the gauge W -> O W, the scale of W) make zero eigenvalues, not negative
ones, and cost nothing here.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pyssl.landscape import inner

__all__ = ["VALUE_NOISE", "Ending", "Outcome", "Point", "Problem", "descend", "norm"]

Floats = npt.NDArray[Any]

# An eigenvalue of the Hessian is negative below this many times its largest in magnitude.
CURVATURE_TOLERANCE = 1e-6
# A run has converged when, beside a small gradient, Newton's step is this small relative to x:
# where a minimiser lies at infinity the gradient vanishes too, but the step stays large.
_SETTLED = 1e-3
# W is on its way to infinity when it has grown by the last of these factors; what the value did
# between them tells a fall by a power of |W| from one that levels off.
_MILESTONES = (1e2, 1e4, 1e7)
_FLAT = 1e-11  # curvature that is zero, relative to the largest met
_QUARTERS = 6  # how often a rejected step is quartered before a new one is computed
VALUE_NOISE = 1e3 * float(np.finfo(float).eps)  # what rounding does to a value
_DENSE = 300  # below so many weights all eigenvalues of the Hessian are computed
_MOST_NEGATIVE = 24  # and above it, negative ones are counted as far as this


class Outcome(enum.StrEnum):
    """How a minimisation ended.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(2), np.diag([1.0, 0.5]))
    >>> land = pyssl.InfoNCE().population(moments, embedding_dim=2)
    >>> pyssl.minimize(land).outcome
    <Outcome.NO_MINIMISER: 'no minimiser'>
    """

    CONVERGED = "converged"
    UNBOUNDED = "unbounded"
    NO_MINIMISER = "no minimiser"
    SCALE_FREE = "scale free"
    STALLED = "stalled"
    ITERATION_LIMIT = "iteration limit"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, eq=False)
class Point:
    """A point of a landscape and its derivatives.

    Attributes
    ----------
    x : (k, m)
        In coordinates that the problem chose for the point.
    value : float
    gradient : (k, m)
    gradient_norm : float
        Of the gradient by W, whatever the coordinates.
    hvp : callable
        Direction (k, m) -> Hessian times direction.
    metric : (k, m) or float
        Positive; about the magnitude of the Hessian's diagonal, for preconditioning.
    sides : (k,) or None
        For landscapes with kinks: the slope theta_i of each row's hinge.
    """

    x: Floats
    value: float
    gradient: Floats
    gradient_norm: float
    hvp: Callable[[Floats], Floats]
    metric: Any = 1.0
    sides: Any = None


class Problem(Protocol):
    """What `descend` minimises."""

    size: float  # |x| at which the landscape turns from its behaviour near 0 to that far out
    gradient_scale: float  # that of a typical gradient by W, at that size
    value_scale: float

    def at(self, x: Floats) -> Point:
        """Evaluate the landscape; the point may be an equivalent of x."""
        ...

    def move(self, point: Point, step: Floats) -> Point:
        """Return the point that a step leads to."""
        ...


@dataclass(frozen=True, eq=False)
class Ending:
    """Where a descent ended, and how; `index` None where it was not looked for."""

    point: Point
    outcome: Outcome
    iterations: int
    index: int


def norm(a: Floats) -> float:
    """Return the Frobenius norm."""
    return math.sqrt(float(inner(a, a)))


def descend(
    problem: Problem,
    x: Floats,
    *,
    tolerance: float,
    max_iterations: int,
    rng: np.random.Generator,
    report: Callable[[int, Point], bool],
) -> Ending:
    """Descend from x until the gradient is small and no curvature is negative.

    `report` is called with every iteration and its point; True stops the descent.
    """
    point = start = problem.at(x)
    limit = tolerance * problem.gradient_scale
    rounding = VALUE_NOISE * problem.value_scale / problem.size**2  # of curvatures
    growth = _Growth(problem.size, point)
    radius = max(norm(x), 0.1 * problem.size) * _mean_root(point.metric)
    outcome = Outcome.ITERATION_LIMIT
    iteration = 0
    index: int | None = None
    first = max(point.gradient_norm, problem.gradient_scale)
    for iteration in range(max_iterations + 1):
        if report(iteration, point):
            outcome = Outcome.INTERRUPTED
            break
        if (escaped := growth.outcome(point)) is not None:
            outcome = escaped
            break
        small = point.gradient_norm <= limit
        forcing = 0.1 if small else max(min(0.3, math.sqrt(point.gradient_norm / first)), 1e-6)
        steps = _steihaug(point, radius, forcing)
        extent = max(norm(point.x), problem.size)
        if small and norm(steps[0].step) <= _SETTLED * extent:
            if growth.reached and (outward := _outward(point)) is not None:
                if not outward.any():
                    break
                point = problem.move(point, outward)
                continue
            index, directions = _negative_curvature(point, rng, rounding)
            if index == 0:
                outcome = Outcome.CONVERGED
                # a plain that x has descended to and grown into: the loss has underflown
                if (
                    point.sides is None
                    and point.value < start.value
                    and norm(point.x) > max(norm(start.x), problem.size)
                    and _steepness(point) <= rounding
                ):
                    outcome = Outcome.NO_MINIMISER
                break
            there = _escape(problem, point, directions, rng) if iteration < max_iterations else None
            if there is None:
                if iteration < max_iterations:
                    outcome = Outcome.STALLED
                break
            radius = norm(there.x - point.x) * _mean_root(there.metric)
            point, index = there, None
            continue
        if iteration == max_iterations:
            break
        for trial in steps:
            there = problem.move(point, trial.step)
            ratio = _agreement(point, there, trial.fall, problem.value_scale)
            if ratio < 0.25:
                radius = 0.25 * trial.length
            elif ratio > 0.75 and not trial.inside:
                radius = 2.0 * max(radius, trial.length)
            if ratio > 0.05:
                point = there
                break
        else:
            if norm(steps[-1].step) <= 1e-13 * extent:
                outcome = Outcome.CONVERGED if small else Outcome.STALLED
                break
    if outcome in (Outcome.STALLED, Outcome.ITERATION_LIMIT):
        outcome = growth.outcome(point, final=True) or outcome
    if index is None:
        index, _ = _negative_curvature(point, rng, rounding)
        if outcome is Outcome.CONVERGED and index:
            outcome = Outcome.STALLED
    return Ending(point, outcome, iteration, index)


class _Growth:
    """Watches |x| go to infinity, and the value meanwhile."""

    def __init__(self, size: float, start: Point) -> None:
        self._unit = max(size, norm(start.x))
        self._values = [start.value]

    @property
    def reached(self) -> bool:
        """Whether the first milestone has been passed."""
        return len(self._values) > 1

    def outcome(self, point: Point, *, final: bool = False) -> Outcome | None:
        """Return how a run ends that has passed the last milestone, or a `final` one any."""
        length, passed = norm(point.x), self._values
        while (
            len(passed) <= len(_MILESTONES) and length > _MILESTONES[len(passed) - 1] * self._unit
        ):
            passed.append(point.value)
        if len(passed) <= len(_MILESTONES) and not (final and self.reached):
            return None
        falls = -np.diff(passed)
        # by |W|^p the last fall is 100^p times the one before; by log |W| it is about as large
        if len(falls) > 1 and falls[-1] > 10.0 * max(falls[-2], 0.0):
            return Outcome.UNBOUNDED
        return Outcome.NO_MINIMISER


def _outward(point: Point) -> Floats | None:
    """Return Newton's step along the direction in which x has grown, None where it has settled.

    There the gradient may vanish beside that in other directions long before the minimum, which
    may lie at infinity. Zero where rounding has left nothing of the curvature.
    """
    left, sizes, right = np.linalg.svd(point.x, full_matrices=False)
    grown = sizes[0] * np.outer(left[:, 0], right[0])
    curvature = float(inner(grown, point.hvp(grown)))
    if curvature <= 1e-14 * _steepness(point) * sizes[0] ** 2:
        return np.zeros_like(point.x)
    factor = -float(inner(grown, point.gradient)) / curvature
    if abs(factor) <= _SETTLED:
        return None
    return np.asarray(min(max(factor, -0.5), 1.0) * grown, dtype=np.float64)


def _steepness(point: Point) -> float:
    """Return the curvature in a random direction, about that in all of them."""
    probe = np.random.default_rng(0).standard_normal(point.x.shape)
    return norm(point.hvp(probe)) / norm(probe)


def _agreement(point: Point, there: Point, predicted: float, value_scale: float) -> float:
    """Return the fall of the value relative to the model's, or -1 for a step not to take."""
    if not math.isfinite(there.value):
        return -1.0
    fall = point.value - there.value
    noise = VALUE_NOISE * max(abs(point.value), value_scale)
    if predicted > noise:
        return fall / predicted
    # rounding hides the fall of the value: the gradient has to tell
    better = there.gradient_norm <= 2.0 * point.gradient_norm and fall >= -2.0 * noise
    return 1.0 if better else -1.0


def _mean_root(metric: Any) -> float:
    return math.sqrt(float(np.mean(metric)))


@dataclass(frozen=True, eq=False)
class _Step:
    """A step, the fall of the model that it promises, its length in the metric."""

    step: Floats
    fall: float
    length: float
    inside: bool = False  # whether the trust region had no part in it


def _steihaug(point: Point, radius: float, forcing: float) -> list[_Step]:
    """Minimise the quadratic model by conjugate gradients inside the trust region.

    Along negative curvature the step goes to the boundary. Behind it come the steps that smaller
    trust regions would have given, each a quarter of the one before: they lie on the same path, so
    that a step which is rejected costs no second one.
    """
    step = np.zeros_like(point.x)
    residual = point.gradient.copy()
    scaled = residual / point.metric
    direction = -scaled
    square = first = float(inner(residual, scaled))
    if square == 0.0:
        return [_Step(step, 0.0, 0.0, inside=True)]
    length2, cross, along2 = 0.0, 0.0, square  # of step, step . direction and direction
    radii = [radius * 4.0**-power for power in range(_QUARTERS + 1)]
    path: list[_Step] = []
    inside = False
    steepest = 0.0

    def fall(step: Floats, residual: Floats) -> float:
        # of g.p + p.Hp/2 the residual g + Hp holds the second term
        return -0.5 * float(inner(point.gradient + residual, step))

    for _ in range(10 * point.x.size):
        bent = point.hvp(direction)
        curvature = float(inner(direction, bent))
        steepest = max(steepest, abs(curvature) / along2)
        if length2 > 0.0 and abs(curvature) <= _FLAT * steepest * along2:
            # what is left of the gradient points along a symmetry: rounding, not a way down
            inside = True
            break
        alpha = square / curvature if curvature > 0.0 else math.inf
        while radii and (
            math.isinf(alpha) or length2 + alpha * (2.0 * cross + alpha * along2) >= radii[-1] ** 2
        ):
            crossed = radii.pop()
            room = (crossed - math.sqrt(length2)) * (crossed + math.sqrt(length2))
            to = (math.sqrt(max(cross * cross + along2 * room, 0.0)) - cross) / along2
            there = step + to * direction
            path.append(_Step(there, fall(there, residual + to * bent), crossed))
        if not radii:
            break
        step += alpha * direction
        residual += alpha * bent
        length2 = max(length2 + alpha * (2.0 * cross + alpha * along2), 0.0)
        scaled = residual / point.metric
        before, square = square, float(inner(residual, scaled))
        if square <= forcing * forcing * first:
            inside = True
            break
        beta = square / before
        cross = beta * (cross + alpha * along2)
        along2 = square + beta * beta * along2
        direction *= beta
        direction -= scaled
    if radii:
        path.append(_Step(step, fall(step, residual), math.sqrt(length2), inside))
    return path[::-1]


def _negative_curvature(
    point: Point, rng: np.random.Generator, rounding: float
) -> tuple[int, list[Floats]]:
    """Count the negative eigenvalues of the Hessian, with directions that go with them.

    A Hessian no larger than `rounding` has none.

    Of the Hessian scaled by the metric on both sides, which has the same inertia and, for a good
    metric, eigenvalues far from zero or at it.
    """
    if _steepness(point) <= rounding:
        return 0, []
    shape, size = point.x.shape, point.x.size
    root = 1.0 / np.sqrt(np.broadcast_to(point.metric, shape))

    def apply(vector: Floats) -> Floats:
        return np.asarray((root * point.hvp(root * vector.reshape(shape))).ravel())

    if size <= _DENSE:
        matrix = np.array([apply(column) for column in np.eye(size)])
        values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
        scale = float(np.abs(values).max(initial=0.0))
    else:
        values, vectors, scale = _lowest(apply, rng.standard_normal(size))
    negative = np.flatnonzero(values < -CURVATURE_TOLERANCE * scale)
    directions = [root * vectors[:, i].reshape(shape) for i in negative[:_MOST_NEGATIVE]]
    return len(negative), directions


def _lowest(apply: Callable[[Floats], Floats], start: Floats) -> tuple[Floats, Floats, float]:
    """Return the lowest eigenvalues by Lanczos: one, or more if it is negative, and |H|."""
    from scipy.sparse.linalg import LinearOperator, eigsh  # slow to import, and few need it

    shape = (len(start), len(start))
    operator = LinearOperator(shape, apply, dtype=np.float64)
    extreme = eigsh(operator, 1, which="LM", v0=start, tol=1e-2, return_eigenvectors=False)
    scale = float(np.abs(extreme[0]))
    if scale == 0.0:
        return np.zeros(1), start[:, None], 0.0
    # ARPACK's tolerance is relative to the eigenvalue it looks for, which may be zero: shift it
    shifted = LinearOperator(shape, lambda v: scale * v - apply(v), dtype=np.float64)
    count = 1
    while True:
        values, vectors = eigsh(shifted, count, which="LA", v0=start, tol=1e-4)
        values, vectors = scale - values[::-1], vectors[:, ::-1]
        if values[-1] >= -CURVATURE_TOLERANCE * scale or count == _MOST_NEGATIVE:
            return values, vectors, scale
        count = min(4 * count, _MOST_NEGATIVE)


def _escape(
    problem: Problem, point: Point, directions: list[Floats], rng: np.random.Generator
) -> Point | None:
    """Leave a saddle along its directions of negative curvature, all of them at once.

    One alone would lead from the origin to the next saddle, where only one row of W has grown.
    """
    mixture = sum(
        c * d for c, d in zip(rng.standard_normal(len(directions)), directions, strict=True)
    )
    for vector in (mixture, directions[0]):
        downhill = -1.0 if float(inner(vector, point.gradient)) > 0.0 else 1.0
        direction = vector * (downhill / norm(vector))
        length = 0.1 * problem.size
        while length > 1e-9 * problem.size:
            there = problem.move(point, length * direction)
            if there.value < point.value:
                return there
            length *= 0.25
    return None
