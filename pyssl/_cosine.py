"""NT-Xent in second moments: water-filling, and the formulas of its landscape (theory 3.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl._pencil import Array

Floats = npt.NDArray[Any]

# The pairs of 1, u and v that make the monomials of degree 2 in a plane, in the order of `_plane`.
ONE, OTHER = np.triu_indices(3)


def water_filling(
    misalignment: Array, temperature: float, most: int, *, slack: bool = False
) -> Array:
    """Minimise -sum rho_j p_j/tau + sum p_j^2/(2 tau^2) over the simplex.

    Parameters
    ----------
    misalignment : (m,) ndarray
        1 - rho, ascending, m >= 1.
    temperature : float
    most : int
        How many p_j may be positive, at least 1.
    slack : bool, optional
        Whether sum p <= 1 will do, instead of sum p = 1.

    Returns
    -------
    (m,) ndarray
        p, descending.
    """
    e = misalignment[: min(most, len(misalignment))]
    active = 1 + int(np.count_nonzero(temperature * crowding(e)[1:] < 1.0))
    e = e[:active]
    p = np.zeros(len(misalignment))
    # tau (rho_j - theta) with theta eliminated, which keeps the digits of close alignments
    p[:active] = 1.0 / active + temperature * (e.mean() - e)
    rho = 1.0 - e
    if slack and temperature * rho.sum() < 1.0:  # theta < 0: less than all of it is better
        p[:active] = temperature * np.maximum(rho, 0.0)
    return p


def crowding(misalignment: Array) -> Array:
    """Return sum_{i <= r} (rho_i - rho_{r+1}) for r = 0, ..., m - 1: ascending."""
    number = np.arange(len(misalignment))
    before = np.concatenate([[0.0], np.cumsum(misalignment)[:-1]])
    crowding = number * misalignment - before
    # not by rounding: where the first alignments are tied nothing crowds them
    crowding[misalignment == misalignment[0]] = 0.0
    return np.maximum.accumulate(np.maximum(crowding, 0.0))


def centred(tau: float, n: Any, a: Any, b: Any) -> Any:
    """Return f from N, Tr Q and Tr P^2."""
    return -a / (tau * n) + b / (2.0 * (tau * n) ** 2)


def expansion(tau: float, n: Any, a: Any, u: Any, s: Any, b: Any, h: Any, v: Any) -> Any:
    """Return f from N, Tr Q, m'Qm, m'm, Tr P^2, m'Pm and m'P^2 m."""
    positive = a - (2.0 - s / n) * u / n  # N Tr Q_J
    gamma = (2.0 - s / n) / n
    second = b - 2.0 * gamma * v + (gamma * h) ** 2 + (1.0 - s / n) ** 2 * h
    return -positive / (tau * n) + second / (2.0 * (tau * n) ** 2)


def slope(
    tau: float, w: Floats, ws: Floats, wa: Floats, offset: Floats | None
) -> tuple[Any, Floats, Floats | None]:
    """Return f and its gradients by w and by the mean embedding, holomorphic in all arguments.

    Parameters
    ----------
    tau : float
    w : (k, d), without a bias.
    ws, wa : (k, d) w Sigma and w A.
    offset : (k,) the mean embedding, or None for zero.
    """
    p = ws @ w.T
    a, b = np.sum(wa * w), np.sum(p * p)
    if offset is None:
        n = np.trace(p)
        kappa = 0.5 / (tau * n) ** 2
        by_n = (a / tau - b / (tau**2 * n)) / n**2
        into = 4.0 * kappa * (p @ ws) - (2.0 / (tau * n)) * wa + (2.0 * by_n) * ws
        return centred(tau, n, a, b), into, None
    m, q = offset, wa @ w.T
    y, qm, s = p @ m, q @ m, m @ m
    n, u, h, v = np.trace(p) + s, m @ qm, m @ y, y @ y
    # the partial derivatives of `expansion`
    rest, gamma, kappa = 1.0 - s / n, (2.0 - s / n) / n, 0.5 / (tau * n) ** 2
    second = b - 2.0 * gamma * v + (gamma * h) ** 2 + rest**2 * h
    by_a, by_u = -1.0 / (tau * n), (2.0 - s / n) / (tau * n**2)
    by_b, by_v = kappa, -2.0 * gamma * kappa
    by_h = kappa * (2.0 * gamma**2 * h + rest**2)
    spread = 2.0 * gamma * h * h - 2.0 * v  # of `second` by gamma
    by_s = -u / (tau * n**3) - kappa * (spread / n + 2.0 * rest * h) / n
    by_n = (a - 4.0 * u / n + 3.0 * s * u / n**2) / (tau * n**2)
    by_n += kappa * (2.0 * rest * s * h - 2.0 * rest * spread) / n**2 - second / (tau**2 * n**3)
    around = by_h * np.outer(m, m) + by_v * (np.outer(y, m) + np.outer(m, y)) + 2.0 * by_b * p
    into = 2.0 * (around @ ws + by_n * ws + by_a * wa + by_u * np.outer(m, m @ wa))
    by_m = 2.0 * ((by_n + by_s) * m + by_u * qm + by_h * y + by_v * (p @ y))
    return expansion(tau, n, a, u, s, b, h, v), into, by_m


def forms(left: Floats, gram: Floats, right: Floats) -> Floats:
    """Return left_i' G right_i of every row."""
    return np.asarray(np.sum((left @ gram) * right, axis=1))
