"""From which strength of an augmentation on each mode is lost (theory 5, by counting)."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._pencil import Array, Metric, descending, diagonalise, readonly
from pyssl.augment._base import Augmentation
from pyssl.loss import Loss
from pyssl.moments import Moments
from pyssl.normalized import NTXentLandscape
from pyssl.population import PopulationLandscape
from pyssl.spectral import SpectralLandscape

__all__ = ["critical_strengths"]

# Where losses of modes are looked for: from the smallest strength on, two to an octave.
_SMALLEST, _STEPS_PER_OCTAVE = 2.0**-20, 2
_ROOT_RTOL = 1e-12


def critical_strengths(
    loss: Loss,
    augmentation: Augmentation,
    second_moment: npt.ArrayLike,
    mean: npt.ArrayLike | None = None,
    *,
    weight_decay: float = 0.0,
    maximum: float = 64.0,
) -> Array:
    """Return the strength of an augmentation from which on each mode is lost.

    Parameters
    ----------
    loss : Loss
        With its sharpest landscape in the moments.
    augmentation : Augmentation
        Whose strength is varied, see `Augmentation.with_strength`.
    second_moment : (d, d) array_like
        R = E xhat xhat' of the clean data, not centred.
    mean : (d,) array_like, optional
        E xhat; zero by default.
    weight_decay : float, optional
        g >= 0.
    maximum : float, optional
        Where the search ends, if there is no closed form.

    Returns
    -------
    (output_dim,) ndarray
        Descending: the j-th mode is lost from this strength on, as long as j <= k; 0 if it is not
        learned without augmentation either, inf if no strength (up to `maximum`) takes it. nan for
        modes of which the loss has no condition: all but the first of VICReg, of InfoNCE with
        finitely many negatives, and of InfoNCE with the dot similarity and a mean.

    Raises
    ------
    ValueError
        For a wrong shape or value.
    TypeError
        For an argument of the wrong kind.
    NotImplementedError
        For a loss without any condition: Barlow Twins that normalises, and NT-Xent of views with a
        mean.

    Notes
    -----
    Source: theory 5. By counting: with n_+(s) the positive eigenvalues of B at strength s, the j-th
    critical strength is the least s with n_+(s) < j. For noise, and other augmentations that only
    add to C, B(s) = B0 - s B1 is a pencil, and these are its generalised eigenvalues. Otherwise it
    is a root of the j-th eigenvalue of B(s), bracketed on a grid of two strengths an octave; that
    presumes that modes do not come back within half an octave. NT-Xent, by its effective
    landscape: the j-th mode is lost where its critical temperature falls below the temperature.

    Noise changes neither A nor, with it, the B of InfoNCE, the spectral contrastive loss or Barlow
    Twins: it makes their modes smaller, but takes none.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> from pyssl.augment import Mask, Noise, critical_strengths
    >>> data = np.diag([4.0, 1.0])
    >>> critical_strengths(pyssl.SquaredVICReg(3.0), Noise(1.0), data)
    array([2. , 0.5])
    >>> critical_strengths(pyssl.InfoNCE(), Noise(1.0), data)
    array([inf, inf])
    >>> critical_strengths(pyssl.InfoNCE(), Mask(0.5), data, weight_decay=0.5)
    array([2., 1.])
    """
    _checks.instance("loss", loss, Loss, "a loss")
    _checks.instance("augmentation", augmentation, Augmentation, "an augmentation")
    g = _checks.real("weight_decay", weight_decay, minimum=0.0)
    limit = _checks.real("maximum", maximum, minimum=0.0, open_minimum=True)
    start, eps = augmentation._start(second_moment, mean)

    def moments(strength: float) -> Moments:
        return augmentation._scaled(strength)._map(start).moments(None, eps)

    if augmentation._is_pencil:
        closed = of_pencil(loss, moments(0.0), moments(1.0), g)
        if closed is not None:
            return readonly(closed)
    return readonly(_by_search(lambda s: _margins(loss, moments(s), g), limit))


def _margins(loss: Loss, m: Moments, g: float) -> Array:
    """Return numbers (d,) that are positive where the j-th mode is learned; nan for unknown."""
    _, land = loss.sharpest(m, m.dim, g)
    if isinstance(land, SpectralLandscape):
        margins: Array = land._signal_spectrum - 0.5 * g - land._tolerance
        return margins
    if isinstance(land, NTXentLandscape) and not m.mean.any():
        land = loss.effective(m, m.dim, g)  # whose modes have critical temperatures
        assert isinstance(land, NTXentLandscape)
        # what has no variation is not learned at any temperature
        ratio = np.nan_to_num(land.loss.temperature / land.critical_temperature, nan=2.0)
        return np.asarray(1.0 - ratio)
    if isinstance(land, PopulationLandscape) and land.origin_spectrum is not None:
        result = np.full(m.dim, np.nan)
        result[0] = land.origin_spectrum[0] - 0.5 * g
        return result
    raise NotImplementedError(
        f"critical_strengths: {loss!r} has no condition for its modes without minimising; compare"
        " pyssl.classify at several strengths"
    )


def of_pencil(loss: Loss, clean: Moments, augmented: Moments, g: float) -> Array | None:
    """Return the critical strengths where A is fixed and C is s times what it is at 1, or None."""
    _, land = loss.sharpest(clean, clean.dim, g)
    if not isinstance(land, SpectralLandscape):
        return None
    c = augmented.augmentation_covariance
    nothing = np.zeros_like(c)
    alone = Moments._trusted(c, nothing, c, np.zeros(len(c)), None, augmented._eps)
    # B is linear in A and C
    _, of_c = loss.sharpest(alone, clean.dim, 0.0)
    assert isinstance(of_c, SpectralLandscape)
    b0, b1 = land.B, -of_c._signal
    metric = Metric.of(b1, clean._eps)
    if metric.spectrum[-1] < -land._tolerance:
        if metric.spectrum[0] > land._tolerance:
            return None
        metric = Metric.of(np.zeros_like(b1), clean._eps)  # what only helps takes nothing
    null, inside = metric.null_basis, metric.basis[:, : metric.rank]
    curvature, turn = np.linalg.eigh(null.T @ b0 @ null)
    if metric.rank == 0:
        return np.where(descending(b0) > land._tolerance, np.inf, 0.0)
    coupling = (null @ turn).T @ b0 @ inside
    flat = np.abs(curvature) <= land._tolerance
    if (np.linalg.norm(coupling[flat], axis=1) > land._tolerance).any():
        return None
    # what neither matrix reaches is no mode, where the data do not vary
    curvature, coupling = curvature[~flat], coupling[~flat]
    # inertia adds up: what B1 does not reach stays, the rest is the pencil of the complement
    reduced = inside.T @ b0 @ inside - (coupling.T / curvature) @ coupling
    theta, _ = diagonalise(reduced, np.diag(metric.spectrum[: metric.rank] ** -0.5))
    result = np.zeros(len(b0))
    kept = int(np.count_nonzero(curvature > 0.0))
    result[:kept] = np.inf
    result[kept : kept + metric.rank] = np.maximum(theta[::-1], 0.0)
    result[np.count_nonzero(descending(b0) > land._tolerance) :] = 0.0
    return result


def _by_search(margins: Callable[[float], Array], limit: float) -> Array:
    """Return the first root of each margin (d,) in the strength."""
    octaves = max(math.log2(limit / _SMALLEST), 0.0)
    steps = math.ceil(octaves * _STEPS_PER_OCTAVE)
    grid = [0.0, *(limit * 2.0 ** (-step / _STEPS_PER_OCTAVE) for step in range(steps, -1, -1))]
    before = margins(0.0)
    result = np.where(before > 0.0, np.inf, 0.0)
    result[np.isnan(before)] = np.nan
    for low, high in pairwise(grid):
        open_ = np.isinf(result)
        if not open_.any():
            break
        after = margins(high)
        for j in np.flatnonzero(open_ & (after <= 0.0)):
            result[j] = _root(margins, int(j), low, high)
    return result


def _root(margins: Callable[[float], Array], j: int, low: float, high: float) -> float:
    """Return where the j-th margin ceases to be positive."""
    from scipy.optimize import brentq  # slow to import

    def margin(s: float) -> float:
        return float(margins(s)[j])

    root = brentq(
        lambda s: margin(s) or -1.0, low, high, xtol=1e-300, rtol=_ROOT_RTOL, maxiter=30, disp=False
    )
    if margin((1.0 - 2.0 * _ROOT_RTOL) * root) > 0.0 >= margin((1.0 + 2.0 * _ROOT_RTOL) * root):
        return float(root)
    # a margin that stays near 0, where modes have been lost, has no slope to follow
    while high - low > _ROOT_RTOL * high:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if margin(middle) > 0.0 else (low, middle)
    return high
