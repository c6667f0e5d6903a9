"""The minimum of a deep linear model without closed form: descents at every rank (theory 9)."""

from __future__ import annotations

import numpy as np

from pyssl._pencil import Array
from pyssl._schatten import LayerDecay
from pyssl.spectral import SpectralLandscape
from pyssl.wells import ModeWells

__all__ = ["descend_by_rank"]

# A singular value that falls below this share of the largest is on its way to zero.
_VANISHING = 1e-6
# A descent has ended when the gradient is this small beside those of the landscape.
_GRADIENT = 1e-9


def descend_by_rank(core: SpectralLandscape, decay: LayerDecay, k: int) -> tuple[Array, float]:
    """Return the lowest end (k, d) of descents with 0, 1, 2, ... rows, and its value.

    With as many rows as its rank a W has a differentiable decay, whose minima are minima at that
    rank; a W that loses a singular value on the way is left to the lower ranks. Rows start along
    the modes of the pencil (B, S) that would be learned best if each decayed alone, then along
    those found with one row less.
    """
    modes = core._modes
    count = modes.learnable
    vectors = modes.vectors[:, :count]
    length = np.sum(vectors**2, axis=0)
    lam, deficits = modes.eigenvalues[:count], np.maximum(modes.deficits[:count], 0.0)
    wells = ModeWells.of(
        core.potential, lam, deficits, 1.0 / length, decay.depth, decay.weight_decay
    )
    order = np.argsort(-wells.critical, kind="stable")
    amplitudes = core.potential.amplitude(0.75 * lam, deficits + 0.25 * lam)
    rows = (vectors * np.sqrt(amplitudes)).T[order]
    best, best_value = np.zeros((k, core.dim)), core.constant
    for rank in range(1, min(k, count) + 1):
        starts = [rows[:rank]]
        if np.linalg.matrix_rank(best) == rank - 1:
            starts += [np.vstack([best[: rank - 1], row]) for row in rows[: rank + 1]]
        for start in starts:
            found = _descend(core, decay, start)
            if found is not None and found[1] < best_value:
                best, best_value = np.zeros_like(best), found[1]
                best[:rank] = found[0]
    return best, best_value


def _descend(
    core: SpectralLandscape, decay: LayerDecay, start: Array
) -> tuple[Array, float] | None:
    """Return the minimum near a start of full rank (r, d) and its value; None if rank is lost."""
    from scipy.optimize import minimize

    rank, d = start.shape
    padded = np.zeros(core.shape)

    def evaluate(x: Array) -> tuple[float, Array]:
        w = x.reshape(rank, d)
        padded[:rank] = w
        value, gradient = core.value_and_gradient(padded)
        total = gradient[:rank] + decay.gradient(w)
        return float(value - core.constant + decay.value(w)) / unit, total.ravel() / unit

    unit = 1.0
    unit = float(np.linalg.norm(evaluate(1e-3 * start.ravel())[1])) * 1e3 * np.linalg.norm(start)
    result = minimize(
        evaluate,
        start.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 20_000, "maxfun": 40_000, "ftol": 0.0, "gtol": _GRADIENT, "maxcor": 20},
    )
    found = result.x.reshape(rank, d)
    u, s, vt = np.linalg.svd(found, full_matrices=False)
    if s[-1] <= _VANISHING * s[0]:
        return None
    return s[:, None] * vt, float(result.fun) * unit + core.constant
