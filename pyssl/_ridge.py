"""Ridge regression on embeddings: its expected error from n samples, and the best ridge (theory 8).

All is relative to the largest variance of a feature: spectra descend from 1, ridges and kappas are
in its unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl._pencil import Array

__all__ = ["Features", "Regression", "embedded", "tuned", "with_ridge"]

Floats = npt.NDArray[Any]

_EPS = float(np.finfo(np.float64).eps)
_TINY = float(np.finfo(np.float64).tiny)

# A Newton step in log kappa below this leaves an error of its square.
_SMALL_STEP = 1e-9
_MOST_STEPS = 200
# The search for the best kappa: points on its range, of which the lowest valleys are followed down
# by bisection, and how many numbers are held at a time.
_GRID, _VALLEYS, _HALVINGS, _CHUNK = 128, 3, 44, 1 << 22
# Where a kappa is looked for: beyond, what it changes is less than rounding.
_LEAST, _MOST = 1e-60, 1e30
# A ridge below this one is as good as this one, and its kappa does not underflow.
_LEAST_RIDGE = 1e-280


@dataclass(frozen=True, eq=False)
class Features:
    """What ridge regression sees of embeddings, for a batch (...) of them.

    Attributes
    ----------
    spectrum : (..., m) l_i/l_1, descending; 0 beyond the numerical rank.
    coefficients : (..., m) t_i, the target along the principal axes; 0 beyond the rank.
    lost : (...) t_0^2, the variance of the target outside of the features.
    unit : (...) sqrt(l_1), 1 where no feature varies.
    """

    spectrum: Array
    coefficients: Array
    lost: Array
    unit: Array

    @property
    def rank(self) -> npt.NDArray[np.int64]:
        """The features that vary, (...)."""
        return np.asarray(np.count_nonzero(self.spectrum, axis=-1))

    @classmethod
    def of(cls, factor: Array, target: Array, eps: float) -> Features:
        """Take features F g of white g (r,), F (..., k, r), and the target u'g, u (r,).

        By the singular values of F: the eigenvalues of F F' would lose the digits of features that
        have nearly collapsed. Rows come in descending order, and F = L Q' is reduced to L first, so
        that small rows keep theirs beside large ones. `eps` is that of the entries of F.
        """
        *batch, k, r = factor.shape
        size = np.abs(factor).max(axis=(-2, -1), initial=0.0)
        size = np.where(size > 0.0, size, 1.0)
        scaled = factor / size[..., None, None]
        order = np.argsort(-np.square(scaled).sum(axis=-1), axis=-1, kind="stable")
        scaled = np.take_along_axis(scaled, order[..., None], axis=-2)
        power = float(target @ target)
        if min(k, r) == 0:
            nothing = np.zeros((*batch, 0))
            return cls(nothing, nothing, np.full(batch, power), np.ones(batch))
        frame, triangle = np.linalg.qr(np.swapaxes(scaled, -1, -2))
        _, sigma, right = np.linalg.svd(np.swapaxes(triangle, -1, -2), full_matrices=False)
        largest = np.where(sigma[..., :1] > 0.0, sigma[..., :1], 1.0)
        varies = sigma > max(k, r) * eps * largest
        axes = right @ np.swapaxes(frame, -1, -2)
        t = np.where(varies, axes @ target, 0.0)
        outside = np.square(target - (t[..., None, :] @ axes)[..., 0, :]).sum(axis=-1)
        # what is within rounding of nothing is nothing: the best ridge may hang on it
        rounding = (max(k, r) * _EPS) ** 2 * power
        whole = np.count_nonzero(varies, axis=-1) == r
        outside = np.where(whole | (outside <= rounding), 0.0, outside)
        t = np.where(np.square(t).sum(axis=-1, keepdims=True) > rounding, t, 0.0)
        return cls(
            spectrum=np.where(varies, np.square(sigma / largest), 0.0),
            coefficients=t,
            lost=outside,
            unit=np.where(sigma[..., 0] > 0.0, sigma[..., 0] * size, 1.0),
        )

    def ridge(self, ridge: Array) -> Array:
        """Return a ridge in the unit of the spectrum: positive if it is, 0 if it is."""
        with np.errstate(over="ignore", under="ignore"):
            relative = ridge / self.unit / self.unit
        return np.where(ridge > 0.0, np.maximum(relative, _LEAST_RIDGE), 0.0)


def embedded(weights: Array, root: Array, eps: float) -> Array:
    """Return the features W R (..., k, r) of white data, without rows that are rounding alone.

    Those are the rows of W in the null space of the covariance R R': nothing varies along them, but
    their products with R are not exactly zero, and a regression would take them for features that
    know the target.

    Parameters
    ----------
    weights : (..., k, d)
    root : (d, r) with orthogonal columns.
    eps : of the entries of `weights`.
    """
    factor = np.asarray(weights @ root)
    d, r = root.shape
    if r in (0, d):
        return factor
    spread = np.linalg.norm(root, axis=0)
    # rounding turns an axis of variance s towards the null space by about eps s_1/s
    turned = _EPS * spread.max() ** 2 / spread
    lengths = np.linalg.norm(weights, axis=-1)
    floor = d * (eps * (np.abs(weights) @ np.abs(root)) + lengths[..., None] * turned)
    nothing = (np.abs(factor) <= floor).all(axis=-1)
    return np.where(nothing[..., None], 0.0, factor)


@dataclass(frozen=True, eq=False)
class Regression:
    """Ridge regression from n samples, for a batch (...).

    Attributes
    ----------
    ridge, kappa : (...) in the unit of the spectrum.
    learned : (..., m) L_i.
    missed : (..., m) 1 - L_i, without a subtraction.
    factor : (...) n/(n - sum L_i^2).
    risk : (...) the expected test error.
    """

    ridge: Array
    kappa: Array
    learned: Array
    missed: Array
    factor: Array
    risk: Array


def with_ridge(features: Features, n: Array, noise: Array, ridge: Array) -> Regression:
    """Return the regression with a ridge (...) in the unit of the spectrum.

    Parameters
    ----------
    features : of a batch.
    n, noise, ridge : (...) that broadcast against it; n whole and at least 1, the others >= 0.
    """
    shape = np.broadcast_shapes(features.lost.shape, n.shape, noise.shape, ridge.shape)
    n, ridge = np.broadcast_to(n, shape), np.broadcast_to(ridge, shape)
    spectrum = np.broadcast_to(features.spectrum, (*shape, features.spectrum.shape[-1]))
    kappa = _kappa(spectrum, n, ridge)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(kappa > 0.0, ridge / kappa, n - np.count_nonzero(spectrum, axis=-1))
    ratio = np.where(np.isinf(ridge), n, ratio)
    return _regression(features, spectrum, n, noise, ridge, kappa, ratio)


def tuned(features: Features, n: Array, noise: Array) -> Regression:
    """Return the regression with the ridge of least risk, which may be 0 or infinite.

    Every kappa from that without a ridge on is that of one ridge, kappa (n - sum L): the search is
    over kappa, and solves for it only once. The risk may have several valleys.
    """
    m = features.spectrum.shape[-1]
    shape = np.broadcast_shapes(features.lost.shape, n.shape, noise.shape)
    parts = [np.broadcast_to(a, shape).reshape(-1) for a in (n, noise + features.lost)]
    rows = [
        np.broadcast_to(a, (*shape, m)).reshape(len(parts[0]), m)
        for a in (features.spectrum, np.square(features.coefficients))
    ]
    flat = np.empty(len(parts[0]))
    step = max(1, _CHUNK // (_GRID * max(m, 1)))
    for start in range(0, len(flat), step):
        here = slice(start, start + step)
        flat[here] = _best_kappa(*(a[here] for a in rows), *(a[here] for a in parts))
    kappa: Array = flat.reshape(shape)
    n = np.broadcast_to(n, shape)
    spectrum = np.broadcast_to(features.spectrum, (*shape, m))
    # without kappa all that varies is learned
    left = np.where(kappa > 0.0, 0.0, n - np.count_nonzero(spectrum, axis=-1))
    ratio = _without_ridge(*_shares(spectrum, kappa), n)[0]
    ratio = np.where(kappa > 0.0, np.maximum(ratio, 0.0), left)
    # where a ridge of 0 leaves a kappa, what is left of n - sum L there is rounding
    alone = _kappa(spectrum, n, np.zeros(shape))
    ratio = np.where((kappa <= alone) & (alone > 0.0), 0.0, ratio)
    with np.errstate(invalid="ignore"):
        ridge = np.where(kappa > 0.0, kappa * ratio, 0.0)
    return _regression(features, spectrum, n, noise, ridge, kappa, ratio)


def _regression(
    features: Features,
    spectrum: Array,
    n: Array,
    noise: Array,
    ridge: Array,
    kappa: Array,
    ratio: Array,
) -> Regression:
    """Return the regression at a kappa; `ratio` is ridge/kappa = n - sum L."""
    learned, missed = _shares(spectrum, kappa)
    denominator = (learned * missed).sum(axis=-1) + ratio
    unlearned = (np.square(missed) * np.square(features.coefficients)).sum(axis=-1)
    parts = unlearned + noise + features.lost
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        factor = n / denominator
        risk = np.where(parts > 0.0, factor * parts, 0.0)
    return Regression(ridge, kappa, learned, missed, factor, risk)


def _shares(spectrum: Array, kappa: Array) -> tuple[Array, Array]:
    """Return L = l/(l + kappa) and 1 - L (..., m); what does not vary is not learned."""
    finite = np.where(np.isinf(kappa), 1.0, kappa)[..., None]
    total = np.where(spectrum > 0.0, spectrum + finite, 1.0)
    never = np.isinf(kappa)[..., None] | (spectrum == 0.0)
    return np.where(never, 0.0, spectrum / total), np.where(never, 1.0, finite / total)


def _without_ridge(learned: Array, missed: Array, n: Array) -> tuple[Array, Array]:
    """Return n - sum L and sum L (1 - L) (...), kappa > 0.

    1 - L is summed over the n largest modes and L over the others: where n - sum L is small, so are
    both sums, and both to rounding.
    """
    m = learned.shape[-1]
    first = np.arange(m) < n[..., None]
    rest = np.where(first, missed, -learned).sum(axis=-1)
    return np.maximum(n - m, 0.0) + rest, (learned * missed).sum(axis=-1)


def _kappa(spectrum: Array, n: Array, ridge: Array) -> Array:
    """Solve sum l/(l + kappa) + ridge/kappa = n: Newton in log kappa, between bounds."""
    m = spectrum.shape[-1]
    rank = np.count_nonzero(spectrum, axis=-1)
    known = np.isinf(ridge) | ((ridge == 0.0) & (n >= rank))
    answer = np.where(np.isinf(ridge), np.inf, 0.0)
    if known.all():
        return answer
    delta = np.where(known, 1.0, ridge)
    # the j largest modes alone, taken for as small as the last, ask for kappa >= l_j (j - n)/n
    over = np.arange(1, m + 1) / n[..., None] - 1.0
    low = np.maximum(delta / n, (spectrum * over).max(axis=-1, initial=0.0)) * (1.0 - 8.0 * _EPS)
    low = np.maximum(low, _TINY)
    high = np.maximum((spectrum.sum(axis=-1) / n + delta / n) * (1.0 + 8.0 * m * _EPS), low)
    kappa = np.sqrt(low) * np.sqrt(high)
    for _ in range(_MOST_STEPS):
        rest, slope = _without_ridge(*_shares(spectrum, kappa), n)
        excess = rest - delta / kappa
        low = np.where(excess <= 0.0, kappa, low)
        high = np.where(excess >= 0.0, kappa, high)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            step = -excess / (slope + delta / kappa)
            trial = kappa * np.exp(step)
        inside = (trial >= low) & (trial <= high)
        kappa = np.where(inside, trial, np.sqrt(low) * np.sqrt(high))
        settled = (inside & (np.abs(step) <= _SMALL_STEP)) | (high <= low * (1.0 + 4.0 * _EPS))
        if (settled | known).all():
            break
    return np.where(known, answer, kappa)


def _best_kappa(spectrum: Array, squares: Array, n: Array, rest: Array) -> Array:
    """Return the kappa (N,) of least risk; `squares` are t_i^2 (N, m), `rest` noise + t_0^2."""
    alone = _kappa(spectrum, n, np.zeros(len(n)))
    low, high = _range(spectrum, squares, n, rest, alone)
    grid = low * (high / low) ** np.linspace(0.0, 1.0, _GRID)[:, None]
    grid[0] = low
    values = _risk_and_slope(spectrum, squares, n, rest, grid)[0]
    padded = np.pad(values, ((1, 1), (0, 0)), constant_values=np.inf)
    valley = (values <= padded[:-2]) & (values <= padded[2:])
    lowest = np.argsort(np.where(valley, values, np.inf), axis=0)[:_VALLEYS]
    left = np.take_along_axis(grid, np.maximum(lowest - 1, 0), axis=0)
    right = np.take_along_axis(grid, np.minimum(lowest + 1, _GRID - 1), axis=0)
    for _ in range(_HALVINGS):
        middle = np.sqrt(left) * np.sqrt(right)
        down = _risk_and_slope(spectrum, squares, n, rest, middle)[1] < 0.0
        left, right = np.where(down, middle, left), np.where(down, right, middle)
    # the left end, which stays that of the range where the risk rises from there on
    found = _risk_and_slope(spectrum, squares, n, rest, left)[0]
    best = np.argmin(found, axis=0)[None]
    kappa = np.take_along_axis(left, best, axis=0)[0]
    nothing = rest + squares.sum(axis=-1)
    kappa = np.where(np.take_along_axis(found, best, axis=0)[0] < nothing, kappa, np.inf)
    # without noise, n samples tell all of n features
    return np.where((rest == 0.0) & (alone == 0.0) & (nothing > 0.0), 0.0, kappa)


def _range(
    spectrum: Array, squares: Array, n: Array, rest: Array, alone: Array
) -> tuple[Array, Array]:
    """Return where to look for the best kappa: `alone`, that without a ridge, is the least.

    For small kappa the risk goes as (rest + b kappa^2)/(n - rank + 2 a kappa), for large ones as
    1 - 2 pull/kappa + bend/kappa^2: nothing happens beyond where these turn.
    """
    with np.errstate(all="ignore"):
        inverse = np.where(spectrum > 0.0, 1.0 / spectrum, 0.0)
        a, b = inverse.sum(axis=-1), (squares * np.square(inverse)).sum(axis=-1)
        c = b * np.maximum(n - np.count_nonzero(spectrum, axis=-1), 0.0)
        low = 2.0 * a * rest / (c + np.sqrt(c * c + 4.0 * a * a * b * rest))
        low = 0.1 * np.fmin(low, 1.0 / inverse.max(axis=-1, initial=1.0))
        everything = (rest + squares.sum(axis=-1)) / n
        bend = np.square(spectrum) * (everything[:, None] + 3.0 * squares)
        high = 10.0 * np.fmax(bend.sum(axis=-1) / (spectrum * squares).sum(axis=-1), 1.0)
    low = np.where(alone > 0.0, alone, np.clip(low, _LEAST, 1.0))
    return low, np.clip(high, 10.0 * low, np.maximum(_MOST, 10.0 * low))


def _risk_and_slope(
    spectrum: Array, squares: Array, n: Array, rest: Array, kappa: Array
) -> tuple[Array, Array]:
    """Return the risk at kappa (..., N) and the slope of its logarithm in log kappa."""
    learned, missed = _shares(spectrum, kappa)
    ratio, spread = _without_ridge(learned, missed, n)
    denominator = spread + np.maximum(ratio, 0.0)
    unlearned = np.square(missed) * squares
    parts = unlearned.sum(axis=-1) + rest
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        gain = np.where(parts > 0.0, (learned * unlearned).sum(axis=-1) / parts, 0.0)
        slope = 2.0 * (gain - (np.square(learned) * missed).sum(axis=-1) / denominator)
        risk = np.where(parts > 0.0, n * parts / denominator, 0.0)
    return risk, slope
