"""What a sweep computes at every point of its grid: modes that commute, elementwise (theory 2, 5).

Compiled by Numba without the GIL; every point is a function of its own parameters alone, so that
results depend neither on the chunking nor on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

__all__ = ["counts", "from_eigenvalues", "from_modes"]

_TINY = float(np.finfo(float).tiny)

# Numba compiles once a machine, not once a process.
_compiled: Any = numba.njit(cache=True, nogil=True, error_model="numpy")
_inlined: Any = numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")


@_inlined
def _minus_log1p(x):  # type: ignore[no-untyped-def]
    """Return x - log1p(x), by the series where the difference loses its digits."""
    if x >= 0.01:
        return x - np.log1p(x)
    series = 1.0 / 9.0 - x * (1.0 / 10.0)  # a loop over the powers would divide by each of them
    series = 1.0 / 7.0 - x * (1.0 / 8.0 - x * series)
    series = 1.0 / 5.0 - x * (1.0 / 6.0 - x * series)
    series = 1.0 / 3.0 - x * (1.0 / 4.0 - x * series)
    return x * x * (0.5 - x * series)


@_inlined
def _amplitude(form, q, t, e):  # type: ignore[no-untyped-def]
    """Return n/tau at t = tau lambda with the deficit e = 1 - t (theory 3.1).

    form: 0 for r = q n^2, 1 for dot joint, 2 for sqeuclidean conditional, 3 for joint.
    """
    if form == 0:
        return t / (2.0 * q)
    if form == 1:
        return 2.0 * t / (1.0 + np.hypot(1.0, 2.0 * t))
    if form == 2:
        root = np.sqrt(1.0 + 8.0 * e)
        return t / (3.0 + root) * (1.0 + root) / e
    return 0.5 * t / e


@_inlined
def _gain(form, q, x, t, e):  # type: ignore[no-untyped-def]
    """Return r - t x at the amplitude x, near the limit from e, which alone keeps the digits."""
    if form == 0:
        return q * x * x - t * x
    if form == 1:
        return -0.5 * np.log1p(-(x * x)) - t * x
    if form == 2:
        if x < 1.0:
            return 0.5 * _minus_log1p(x) + 0.5 * x * (x / (1.0 + x)) - t * x
        return e * x - 0.5 * (np.log1p(x) + x / (1.0 + x))
    if x < 1.0:
        return 0.5 * _minus_log1p(2.0 * x) - t * x
    return e * x - 0.5 * np.log1p(2.0 * x)


@_inlined
def _sort(order, lam):  # type: ignore[no-untyped-def]
    """Sort `order` by descending lam, ties by index: next to nothing where it hardly changes."""
    for i in range(1, len(order)):
        item = order[i]
        key = lam[item]
        j = i - 1
        while j >= 0 and (lam[order[j]] < key or (lam[order[j]] == key and order[j] > item)):
            order[j + 1] = order[j]
            j -= 1
        order[j + 1] = item


@_inlined
def _summarise(form, q, rank, diverges, order, lam, deficit, weight, spectrum, out):  # type: ignore[no-untyped-def]
    """Write value, effective rank, participation ratio and stable rank of the `rank` top modes."""
    if rank == 0:
        out[:] = 0.0
        return
    if diverges:
        out[0] = -np.inf
        out[1:] = np.nan
        return
    value = 0.0
    top = 0.0
    for i in range(rank):
        j = order[i]
        t = max(lam[j], 0.0)
        x = _amplitude(form, q, t, deficit[j])
        value += _gain(form, q, x, t, deficit[j])
        spectrum[i] = x * weight[j]
        top = max(top, spectrum[i])
    out[0] = value
    total, squares, entropy = 0.0, 0.0, 0.0
    for i in range(rank):
        share = spectrum[i] / top if top > 0.0 else 0.0
        total += share
        squares += share * share
        if share > 0.0:
            entropy += share * np.log(share)
    if total == 0.0:
        out[1:] = 0.0
        return
    out[1] = np.exp(np.log(total) - entropy / total)
    out[2] = total * total / squares
    out[3] = total


@_inlined
def _changes(point, of, strength, invariance):  # type: ignore[no-untyped-def]
    """Return whether a point has other matrices A and C than the one before it."""
    return (
        of[point] != of[point - 1]
        or strength[point] != strength[point - 1]
        or invariance[point] != invariance[point - 1]
    )


@_compiled
def counts(a, c, eps, of, beta, own, tau, half, strength, invariance, positive, inside):  # type: ignore[no-untyped-def]
    """Count n_+(B) and rank S where A and C are diagonal: B = beta (a + (1 - inv) c)/tau - half.

    a, c : (moments, d). eps : (moments,). of, tau, half, strength, invariance : (n,), of which
    moments and the settings. own : S = A (Barlow Twins), not A + C. Out: positive, inside (n,).
    """
    dim = a.shape[1]
    signal = np.empty(dim)
    norm, flat, varied = 0.0, 0.0, 0
    for point in range(len(of)):
        m = of[point]
        if point == 0 or _changes(point, of, strength, invariance):
            s, gain = strength[point], (1.0 - invariance[point]) * strength[point]
            norm, taken, scale, varied = 0.0, 0.0, 0.0, 0
            for j in range(dim):
                signal[j] = beta * (a[m, j] + gain * c[m, j])
                norm = max(norm, abs(signal[j]))
                taken += c[m, j] ** 2
                scale = max(scale, abs(a[m, j]) if own else a[m, j] + s * c[m, j])
            if gain != 0.0:  # where A and C cancel, the rounding of both is left
                norm += beta * invariance[point] * s * np.sqrt(taken)
            flat = dim * eps[m] * scale
            for j in range(dim):
                varied += (a[m, j] if own else a[m, j] + s * c[m, j]) > flat
        zero, learned = dim * eps[m] * (norm / tau[point] + half[point]), 0
        for j in range(dim):
            learned += signal[j] / tau[point] - half[point] > zero
        positive[point], inside[point] = min(learned, varied), varied


@_compiled
def from_modes(  # type: ignore[no-untyped-def]
    a, c, eps, of, beta, own, tau, half, strength, invariance, form, q, rank, diverges, out
):
    """Evaluate points where A and C are diagonal; out (n, 4) as `_summarise` has it."""
    dim = a.shape[1]
    order = np.arange(dim)
    lam, deficit, weight = np.empty(dim), np.empty(dim), np.empty(dim)
    spectrum, signal, taken, inverse = np.empty(dim), np.empty(dim), np.empty(dim), np.empty(dim)
    for point in range(len(of)):
        m = of[point]
        if point == 0 or _changes(point, of, strength, invariance):
            s, gain = strength[point], (1.0 - invariance[point]) * strength[point]
            scale = 0.0
            for j in range(dim):
                scale = max(scale, abs(a[m, j]) if own else a[m, j] + s * c[m, j])
            for j in range(dim):
                total = a[m, j] + s * c[m, j]
                variance = a[m, j] if own else total
                if variance > dim * eps[m] * scale:
                    inverse[j] = 1.0 / variance
                    if own:  # a/a, where a product with the inverse would break ties by rounding
                        signal[j] = beta
                    else:
                        signal[j] = beta * (a[m, j] + gain * c[m, j]) * inverse[j]
                    taken[j] = max(max(s * c[m, j], 0.0) * inverse[j], _TINY)
                    weight[j] = max(total, 0.0) * inverse[j]
                else:
                    inverse[j], signal[j], taken[j], weight[j] = 0.0, -np.inf, 1.0, 0.0
        theta = half[point] * tau[point]
        for j in range(dim):
            lam[j] = signal[j] - theta * inverse[j]
            deficit[j] = taken[j] + theta * inverse[j]
        _sort(order, lam)
        _summarise(
            form, q, rank[point], diverges[point], order, lam, deficit, weight, spectrum,
            out[point],
        )  # fmt: skip


@_compiled
def from_eigenvalues(of, lam, deficit, form, q, rank, diverges, out):  # type: ignore[no-untyped-def]
    """Evaluate points whose pencils are solved.

    lam, deficit : (m, d), descending in lam. of : (n,) which of them.
    """
    dim = lam.shape[1]
    order, weight, spectrum = np.arange(dim), np.ones(dim), np.empty(dim)
    for point in range(len(of)):
        m = of[point]
        _summarise(
            form, q, rank[point], diverges[point], order, lam[m], deficit[m], weight, spectrum,
            out[point],
        )  # fmt: skip
