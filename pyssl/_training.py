"""Training the linear model on a batch: L-BFGS in whitened coordinates, from a small start.

A gradient of a contrastive loss is a pass over all pairs and a product with its Hessian costs
several: where views are white some fifty gradients lead to the minimum, and Newton's steps of
`minimize`, which would also count the negative curvatures there, cost ten times that. A descent
from a random start ends at no saddle. Only where the landscape has kinks and says where, `minimize`
goes on from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl.landscape import Landscape
from pyssl.moments import Moments
from pyssl.solvers import MinimizeState, minimize

__all__ = ["Trained", "train"]

Floats = npt.NDArray[Any]

# The start's embedding, in units of where the loss bends: small, as theory 2.7 has it.
_START = 1e-3
# Where the descent stops, and what counts as converged: the largest entry of the gradient relative
# to what it is at embeddings of unit size. Rounding of the value ends descents between the two.
# It also ends where a step lowers the value by less than this of it: on kinks no gradient is small.
_AIM, _ENOUGH, _LEAST = 1e-8, 1e-6, 1e-14
_HISTORY = 30
_MOST = 5000  # evaluations


@dataclass(frozen=True, eq=False)
class Trained:
    """Where training ended.

    Attributes
    ----------
    weights : (k, d) ndarray
    value : float
    converged : bool
    """

    weights: Floats
    value: float
    converged: bool


def train(
    land: Landscape,
    moments: Moments,
    unit: float,
    rng: np.random.Generator,
    *,
    start: Floats | None = None,
    run: int = 0,
    callback: Callable[[MinimizeState], Any] | None = None,
) -> Trained:
    """Descend on a batch's landscape from a small random start, or a given one.

    `moments` are those of the batch and `unit` is the variance of embeddings at which the loss
    bends. W stays in the range of the covariance, outside of which nothing acts but decay.
    """
    import scipy.optimize  # slow to import

    k, d = land.shape
    metric = moments._metric
    size = math.sqrt(unit)
    away = size * metric.whitener.T  # W = u away, (m, d)
    m = len(away)
    if m == 0:
        return Trained(np.zeros((k, d)), float(land.value(np.zeros((k, d)))), True)

    def evaluate(flat: Floats) -> tuple[float, Floats]:
        value, gradient = land.value_and_gradient(flat.reshape(k, m) @ away)
        return float(value), (gradient @ away.T).ravel()

    probe = rng.standard_normal(k * m)
    scale = float(np.abs(evaluate(probe / math.sqrt(m))[1]).max())
    if start is not None:
        first = (start @ (moments.covariance @ away.T)).ravel() / unit
    else:  # where the scale of W makes no difference, none is small
        first = probe / math.sqrt(m) if getattr(land, "scale_free", False) else _START * probe
    iteration = 0

    def report(intermediate_result: Any) -> None:
        nonlocal iteration
        iteration += 1
        assert callback is not None
        slope = float(np.linalg.norm(evaluate(intermediate_result.x)[1])) / size
        if callback(MinimizeState(run, iteration, float(intermediate_result.fun), slope)):
            raise StopIteration

    result = scipy.optimize.minimize(
        evaluate,
        first,
        jac=True,
        method="L-BFGS-B",
        callback=None if callback is None else report,
        options={
            "maxcor": _HISTORY,
            "ftol": _LEAST,
            "gtol": _AIM * scale,
            "maxiter": _MOST,
            "maxfun": _MOST,
        },
    )
    weights = result.x.reshape(k, m) @ away
    if hasattr(land, "with_slopes"):  # on kinks no gradient is small, and L-BFGS stops short
        found = minimize(land, start=weights)
        return Trained(found.weights, found.value, found.converged)
    steepest = float(np.abs(result.jac).max())
    return Trained(weights, float(result.fun), bool(steepest <= _ENOUGH * scale))
