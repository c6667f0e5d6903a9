"""Which classes an embedding keeps, and how rare one may be before it is lost (theory 7)."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._numerical_classification import RANK_TOLERANCE, rank_floor
from pyssl._pencil import Array, Metric, rank_tolerance
from pyssl.augment._base import Augmentation, symmetrised
from pyssl.landscape import Landscape, ModeLandscape
from pyssl.loss import Loss
from pyssl.mixture import Mixture, augmentation_for
from pyssl.solvers import Outcome, minimize
from pyssl.spectral import SpectralLandscape

__all__ = [
    "Bounds",
    "checked_threshold",
    "class_retention",
    "critical_prior",
    "retention_bounds",
    "room",
]

Floats = npt.NDArray[Any]

# Rounding, in units in the last place for each dimension.
_ULPS = 64.0
# Priors that `critical_prior` looks at: so many to a decade, from the rarest one to a half.
_PER_DECADE = 4
# Priors beyond a half, of a class that more of its kind could still save.
_COMMON = (0.6, 0.7, 0.8, 0.9, 0.99)


# ---- retention -----------------------------------------------------------------------------------


def class_retention(
    land: Landscape | npt.ArrayLike,
    mix: Mixture,
    aug: Augmentation | None = None,
    *,
    loss: Loss | None = None,
    restarts: int = 1,
    rng: np.random.Generator | int | None = None,
) -> Floats:
    """Return how much of each class's offset an embedding keeps, beside what hides it.

    Parameters
    ----------
    land : Landscape or (..., k, d) array_like
        Of which the embedding is the minimum: by its closed form, also where modes diverge, else by
        `minimize`. Or weights W; a last column more than the views have inputs is a bias, and
        plays no part.
    mix : Mixture
        The classes.
    aug : pyssl.augment.Augmentation, optional
        What makes the views; without it they are the data.
    loss : Loss, optional
        That W was trained on. What it lost it left small, not zero: with its loss, directions of
        the embedding do not count whose variance is at most 1e-6 of the largest, or of the loss's
        own unit where that is larger. Without, all that is not rounding counts.
    restarts : int, optional
        Starts of a numerical minimisation, of which the lowest end counts.
    rng : numpy.random.Generator or int, optional
        Where they start; 0 by default.

    Returns
    -------
    (..., C) ndarray
        From 0, lost, to 1, kept in full; nan where it is undefined. float32 for weights of float32.

    Raises
    ------
    ValueError
        For weights, a landscape or an augmentation of another dimension, NaN or infinity, or a
        landscape that is unbounded below.
    TypeError
        For an argument of the wrong kind.

    Warns
    -----
    RuntimeWarning
        Where a numerical minimisation does not converge.

    Notes
    -----
    Source: theory 7. T is the covariance of views about the means that the views of each class
    have, d = T_bar (m_c - mean), e = T^(-1/2) d, and Q an orthonormal basis of the range of
    T^(1/2) W': the retention is |Q'e|^2/|e|^2, the share of the squared distance between the class
    and the mean, in units of what hides it, that a linear readout of the embedding can see. An
    invertible map of the embedding changes nothing.

    Undefined where d is not in the range of T, so that the class stands apart without noise, and
    where d = 0: the views of the class are centred on the mean of all.

    Where modes tie at the capacity of the embedding (Barlow Twins without decay) any of them may be
    learned, and the answer is that of the minimum which the closed form names.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> mix = pyssl.Mixture([0.9, 0.1], [[0.0, 0.0], [0.0, 3.0]], np.diag([2.0, 0.1]))
    >>> noise = pyssl.augment.Noise(1.0)
    >>> for g in (1.0, 2.0):
    ...     land = pyssl.InfoNCE().population(mix.moments(noise), 2, weight_decay=g)
    ...     print(pyssl.class_retention(land, mix, noise).round(6))
    [1. 1.]
    [0. 0.]
    """
    _checks.instance("mix", mix, Mixture, "a pyssl.Mixture")
    scene = _Scene.of(mix, augmentation_for(aug, mix.dim))
    if loss is not None:
        _checks.instance("loss", loss, Loss, "a loss such as pyssl.InfoNCE()")
    runs = _checks.integer("restarts", restarts, minimum=1)
    generator = _checks.generator("rng", 0 if rng is None else rng)
    if isinstance(land, Landscape):
        if loss is not None:
            raise ValueError("loss must be None where land is a landscape, which has its own")
        return scene.retention(_learned(land, scene, runs, generator).rows)
    weights = _checks.array("land", land, minimum_ndim=2)
    scene.check_columns(weights.shape)
    if loss is not None:
        _checks.squarable("land", weights)
    eps = float(np.finfo(weights.dtype).eps)
    flat = weights.reshape(-1, *weights.shape[-2:])[..., : scene.dim].astype(np.float64)
    kept = [w if loss is None else _trained_rows(w, scene, loss) for w in flat]
    found = [scene.retention(rows, eps) for rows in kept]
    shape = *weights.shape[:-2], mix.n_classes
    return np.array(found, dtype=weights.dtype).reshape(shape)


@dataclass(frozen=True, eq=False)
class _Scene:
    """Classes as the views show them.

    Attributes
    ----------
    covariance : (d, d) Sigma, of the views.
    range, spread : (d, m) and (m,): T = range diag(spread^2) range' on its range.
    standards : (C, m) e_c = T^(-1/2) d_c; nan where it is undefined.
    """

    covariance: Array
    range: Array
    spread: Array
    standards: Array

    @classmethod
    def of(cls, mix: Mixture, aug: Augmentation) -> _Scene:
        state = mix._views(aug)
        # Sigma without the covariance between classes, of which nothing is subtracted
        hides = symmetrised(state.augmentation + aug._congruent(mix._pooled))
        offsets = np.asarray(aug._mean(mix._offsets), dtype=np.float64)
        d = len(hides)
        metric = Metric.of(hides, mix._eps)
        floor = rank_tolerance(d, mix._eps, max(float(metric.spectrum[0]), state.rounding))
        rank = int(np.count_nonzero(metric.spectrum > floor))
        inside, outside = metric.basis[:, :rank], metric.basis[:, rank:]
        spectrum = metric.spectrum[:rank]
        along = offsets @ inside
        before, after = (float(np.abs(part).max()) for part in (mix._offsets, offsets))
        little = mix._rounding * max(1.0, after / before if before else 1.0)
        # rounding turns the null space towards a direction of variance s by about d eps s_1/s
        turned = rank_tolerance(d, mix._eps, 1.0) * spectrum.max(initial=0.0) / spectrum
        undefined = np.linalg.norm(offsets @ outside, axis=1) > (
            little + _ULPS * np.abs(along) @ turned
        )
        undefined |= np.linalg.norm(offsets, axis=1) <= little
        standards = along / np.sqrt(spectrum)
        standards[undefined] = np.nan
        covariance = symmetrised(state.covariance)
        return cls(covariance, inside, np.sqrt(spectrum), standards)

    @property
    def dim(self) -> int:
        """The inputs that a view has."""
        return len(self.covariance)

    def check_columns(self, shape: tuple[int, ...]) -> None:
        """Raise ValueError unless weights of this shape take the views, or the views and 1."""
        d = self.dim
        if shape[-1] not in (d, d + 1) or not shape[-2]:
            raise ValueError(f"land must be (..., k, {d}), or (..., k, {d + 1}), got {shape}")

    def retention(self, rows: Array, eps: float = float(np.finfo(np.float64).eps)) -> Array:
        """Return |Q'e|^2/|e|^2 (C,) of an embedding by its rows (r, d), given to that eps."""
        # lengths of the rows and of what T leaves of them, once each, make no difference
        largest = np.abs(rows).max(axis=1, initial=0.0)
        rows = rows[largest > 0.0] / largest[largest > 0.0, None]
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        columns = self.spread[:, None] * (self.range.T @ rows.T)  # (m, r)
        lengths = np.linalg.norm(columns, axis=0)
        rounding = _ULPS * self.dim * eps * float(self.spread.max(initial=0.0))
        seen = lengths > rounding
        columns = columns[:, seen] / lengths[seen]
        basis = np.zeros((len(self.spread), 0))
        if columns.size:
            left, singular, _ = np.linalg.svd(columns, full_matrices=False)
            basis = left[:, singular > rounding / float(lengths[seen].min()) * singular[0]]
        whole = np.linalg.norm(self.standards, axis=1)
        whole[whole == 0.0] = np.nan
        shares = np.linalg.norm(self.standards / whole[:, None] @ basis, axis=1) ** 2
        shares[np.isnan(whole)] = np.nan
        return np.asarray(np.minimum(shares, 1.0))


@dataclass(frozen=True, eq=False)
class _Learned:
    """The rows (r, d) that span what a minimum embeds.

    Where modes tie at the capacity: `certain`, what every minimum spans, and `possible`, which no
    minimum goes beyond.
    """

    rows: Array
    certain: Array
    possible: Array


def _learned(land: Any, scene: _Scene, restarts: int, rng: np.random.Generator) -> _Learned:
    """Return what the minimum of a landscape embeds."""
    d = scene.dim
    if isinstance(land, ModeLandscape):  # whose weights are coordinates of its modes
        scene.check_columns((land.shape[0], len(land._vectors)))
        rank = min(land.shape[0], int(np.count_nonzero(land.eigenvalues > 0.0)))
        rows = land._vectors[:d, :rank].T
        return _Learned(rows, rows, rows)
    scene.check_columns(land.shape)
    if isinstance(land, SpectralLandscape):
        # the modes themselves: their span is known where their lengths are not
        modes, k = land._modes, land.shape[0]
        if not modes.bounded:
            raise ValueError("land must be bounded below: there is no minimum that embeds anything")
        rows, rank = modes.vectors[:d].T, min(k, modes.learnable)
        groups = [range(modes.unattained), *modes.ties()]
        tied = next((group for group in groups if k - 1 in group and k in group), None)
        first, last = (rank, rank) if tied is None else (tied.start, tied.stop)
        return _Learned(rows[:rank], rows[:first], rows[:last])
    if hasattr(land, "minimum"):
        minimum = land.minimum()
        rows = _leading(minimum.weights[:, :d], scene, 0.0)[: minimum.rank]
        return _Learned(rows, rows, rows)
    result = minimize(land, restarts=restarts, rng=rng)
    if result.outcome in (Outcome.STALLED, Outcome.ITERATION_LIMIT):
        warnings.warn(
            f"the search for the minimum of {land!r} did not converge: {result.message};"
            " what is kept is that of where it ended",
            RuntimeWarning,
            stacklevel=3,
        )
    weights = np.asarray(result.weights[:, :d], dtype=np.float64)
    loss = getattr(land, "loss", None)
    if loss is not None and result.outcome not in (Outcome.UNBOUNDED, Outcome.NO_MINIMISER):
        rows = _trained_rows(weights, scene, loss)
    else:  # beside what diverges all else would be small
        unit = 1.0 if loss is None else loss.embedding_unit
        rows = _leading(weights, scene, RANK_TOLERANCE * unit)
    return _Learned(rows, rows, rows)


def _trained_rows(weights: Array, scene: _Scene, loss: Loss) -> Array:
    """Return the rows of W, turned, whose variance counts as learned (theory 5)."""
    if loss.units_scale_free:
        variance = np.einsum("ij,ij->i", weights @ scene.covariance, weights)
        weights = weights / np.sqrt(np.where(variance > 0.0, variance, 1.0))[:, None]
    unit = 0.0 if loss.scale_free else loss.embedding_unit
    return _leading(weights, scene, unit, relative=True)


def _leading(weights: Array, scene: _Scene, floor: float, *, relative: bool = False) -> Array:
    """Return the rows (r, d) of U'W with W Sigma W' = U diag U', descending, above a floor.

    The floor is a variance, or the unit of that of `rank_floor`; rounding never counts.
    """
    spectrum, turn = np.linalg.eigh(weights @ scene.covariance @ weights.T)
    top = max(float(spectrum[-1]), 0.0)
    least = rank_floor(spectrum[::-1], floor) if relative else floor
    least = max(least, rank_tolerance(len(spectrum), float(np.finfo(np.float64).eps), top))
    rows: Array = turn[:, spectrum > least][:, ::-1].T @ weights
    return rows


# ---- how rare ------------------------------------------------------------------------------------


def critical_prior(
    loss: Loss,
    mix: Mixture,
    aug: Augmentation | None,
    class_index: int,
    *,
    embedding_dim: int | None = None,
    weight_decay: float = 0.0,
    threshold: float = 0.5,
    centered: bool = False,
    smallest: float = 1e-6,
    tolerance: float = 1e-6,
    restarts: int = 1,
    rng: np.random.Generator | int | None = None,
) -> float:
    """Return how rare a class may become before it is lost, the others rescaled.

    Parameters
    ----------
    loss : Loss
        Of the sharpest landscape that it has in the moments; see `Loss.sharpest`.
    mix : Mixture
        Of at least two classes.
    aug : pyssl.augment.Augmentation or None
        What makes the views; for None they are the data.
    class_index : int
        From 0 to C - 1.
    embedding_dim : int, optional
        k >= 1; by default the dimension of the views, room for every mode.
    weight_decay : float, optional
        g >= 0.
    threshold : float, optional
        The retention from which on a class counts as kept; between 0 and 1.
    centered : bool, optional
        Whether the views are centred before they are embedded, as a bias or centred data do. Makes
        a difference only where the loss sees their mean.
    smallest : float, optional
        The prior at which the search begins, in (0, 1/2).
    tolerance : float, optional
        Of the prior found, relative; > 0.
    restarts, rng : optional
        As in `class_retention`, where a landscape has no closed form.

    Returns
    -------
    float
        The prior at which retention, coming from the rare side, first reaches the threshold. 0.0
        where it has reached it at `smallest`: kept, however rare. inf where it reaches it at no
        prior. nan where retention is undefined, or open: where modes tie at the capacity, so that
        any of them may be learned.

    Raises
    ------
    ValueError
        For a value out of range, an augmentation of another dimension, a mixture of one class.
    TypeError
        For an argument of the wrong kind.
    NotImplementedError
        For a loss without a landscape in the moments.

    Warns
    -----
    RuntimeWarning
        Where a numerical minimisation does not converge.

    Notes
    -----
    Source: theory 7. p(1 - p) has two roots; this is the smaller one. Priors from `smallest` to 1/2
    are looked at four to a decade, then a few beyond; between the last one lost and the first one
    kept the crossing is bisected, for retention may jump there. Where a class is kept only between
    two of these priors, as may be where modes cross, that goes unseen. That makes some 40 minima:
    fast in closed form, but a loss without one (VICReg, normalised Barlow Twins) is minimised as
    often, so give it a larger `tolerance`.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> mix = pyssl.Mixture([0.9, 0.1], [[0.0, 0.0], [0.0, 3.0]], np.diag([2.0, 0.1]))
    >>> loss, noise = pyssl.InfoNCE(), pyssl.augment.Noise(1.0)
    >>> p = pyssl.critical_prior(loss, mix, noise, 1, embedding_dim=2, weight_decay=1.0)
    >>> round(p, 6), round(9.0 * p * (1.0 - p) + 0.1, 6)  # g tau/2
    (0.046618, 0.5)
    """
    _checks.instance("loss", loss, Loss, "a loss such as pyssl.InfoNCE()")
    _checks.instance("mix", mix, Mixture, "a pyssl.Mixture")
    acting = augmentation_for(aug, mix.dim)
    index = mix._index(class_index)
    k = room(embedding_dim, mix, acting)
    g = _checks.real("weight_decay", weight_decay, minimum=0.0)
    level = checked_threshold(threshold)
    center = _checks.flag("centered", centered)
    rarest = _checks.real(
        "smallest", smallest, minimum=0.0, maximum=0.5, open_minimum=True, open_maximum=True
    )
    precision = _checks.real("tolerance", tolerance, minimum=0.0, open_minimum=True)
    runs = _checks.integer("restarts", restarts, minimum=1)
    generator = _checks.generator("rng", 0 if rng is None else rng)
    if mix.n_classes == 1:
        raise ValueError("mix must have at least two classes, got 1: no other could be rescaled")

    def at(p: float) -> tuple[float, float]:
        """Return the least and the largest retention of the minima at a prior."""
        here = mix.with_prior(index, p)
        found = retention_bounds(loss, here, acting, k, g, center, runs, generator)
        return float(found.low[index]), float(found.high[index])

    low, high = at(rarest)
    if math.isnan(low) or low < level <= high:
        return math.nan
    if low >= level:
        return 0.0
    count = math.ceil(_PER_DECADE * math.log10(0.5 / rarest))
    lost = rarest
    for p in (*np.geomspace(rarest, 0.5, count + 1)[1:].tolist(), *_COMMON):
        if at(p)[0] >= level:
            return _bisected(lambda q: at(q)[0] >= level, lost, p, precision)
        lost = p
    return math.inf


def room(embedding_dim: Any, mix: Mixture, aug: Augmentation) -> int:
    """Return k, room for every mode where it is None."""
    if embedding_dim is None:
        return mix.dim if aug.output_dim is None else aug.output_dim
    return _checks.integer("embedding_dim", embedding_dim, minimum=1)


def _bisected(keeps: Any, lost: float, kept: float, precision: float) -> float:
    """Return a crossing between a prior that loses and a larger one that keeps."""
    while kept - lost > precision * kept:
        middle = math.sqrt(lost * kept)
        if not lost < middle < kept:
            break
        lost, kept = (lost, middle) if keeps(middle) else (middle, kept)
    return kept


@dataclass(frozen=True, eq=False)
class Bounds:
    """Retention at a minimum, and its least and largest over all minima (C,); the rank."""

    retention: Array
    low: Array
    high: Array
    rank: int


def retention_bounds(
    loss: Loss,
    mix: Mixture,
    aug: Augmentation,
    k: int,
    g: float,
    centered: bool,
    restarts: int,
    rng: np.random.Generator,
) -> Bounds:
    """Return the retention of the classes at the minimum of a loss's sharpest landscape."""
    moments = mix.moments(aug)
    land = loss.sharpest(moments.centered() if centered else moments, k, g)[1]
    scene = _Scene.of(mix, aug)
    learned = _learned(land, scene, restarts, rng)
    return Bounds(
        scene.retention(learned.rows),
        scene.retention(learned.certain),
        scene.retention(learned.possible),
        len(learned.rows),
    )


def checked_threshold(value: Any) -> float:
    """Return `threshold`, once it lies between 0 and 1."""
    # a retention of 1 is never quite reached
    return _checks.real(
        "threshold", value, minimum=0.0, maximum=1.0, open_minimum=True, open_maximum=True
    )
