"""Which directions a landscape keeps, which it loses, and why (theory 5)."""

from __future__ import annotations

import math
import warnings

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._checks import ThresholdWarning
from pyssl._deep_classification import classify_by_wells
from pyssl._numerical_classification import classify_numerically
from pyssl._pencil import Array, diagonalise, embedded_spectrum, quadratic_forms, readonly
from pyssl.collapse import Cause, Collapse, CollapseReport, ModeTable
from pyssl.deep import DeepLandscape
from pyssl.landscape import Landscape
from pyssl.measures import effective_rank, participation_ratio, stable_rank
from pyssl.spectral import SpectralLandscape
from pyssl.stationary import Minimum

__all__ = ["classify"]


def classify(
    landscape: Landscape,
    *,
    restarts: int = 1,
    rng: np.random.Generator | int | None = None,
) -> CollapseReport:
    """Say which modes a landscape's minimum learns, which it loses, and why.

    Parameters
    ----------
    landscape : Landscape
        Of any loss, or a `SpectralLandscape` of one's own.
    restarts : int, optional
        Starts of a numerical minimisation, of which the lowest end counts.
    rng : numpy.random.Generator or int, optional
        Where they start; 0 by default, so that the same landscape gives the same report.

    Returns
    -------
    CollapseReport

    Raises
    ------
    TypeError
        For anything but a landscape.
    NotImplementedError
        For a landscape of one's own that neither is spectral nor has `moments`.
    ValueError
        For `restarts` below 1.

    Warns
    -----
    ThresholdWarning
        Where an eigenvalue of B lies within rounding, d eps (||B at g = 0|| + g/2), of the
        threshold 0 and the rank depends on it; without closed form, where an eigenvalue of
        W Sigma W' lies within a factor 10 of the tolerance.

    Notes
    -----
    Source: theory 5; of deep models theory 9. Causes go by counting, not by following eigenvectors,
    which turn with the weight decay: in descending order mode j has NO_VARIATION if j > rank Sigma,
    falls to AUGMENTATION if j > n_+(B at g = 0), to DECAY if j > n_+(B), to CAPACITY if j > k.

    In deep models whose B and S commute wells below the origin take the place of n_+(B): a mode
    falls to DECAY where its well lies above the origin or is gone, and its critical decay is that
    at which the well is level with the origin. Eigenvalue and decay are those at the well.

    Without closed form the landscape is minimised, and the rank is that of W Sigma W': eigenvalues
    above 1e-6 of the largest (or of `Loss.embedding_unit`, where even that is smaller) count. Each
    count then is the rank of a minimum: with room for every mode, and without weight decay.
    CAPACITY is what that larger embedding learns, also where this one has room: VICReg's landscape
    changes with k. Modes are those of the alignments; what moves them is nan. Under normalisation
    what is lost without want of room is lost to COMPETITION.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(3), np.diag([0.9, 0.5, 0.1]))
    >>> report = pyssl.classify(pyssl.InfoNCE().population(moments, 3, weight_decay=0.4))
    >>> report.kind, report.rank, report.critical_weight_decay
    (<Collapse.DIMENSIONAL: 'dimensional'>, 2, array([1.8, 1. , 0.2]))
    """
    _checks.instance("landscape", landscape, Landscape, "a landscape")
    count = _checks.integer("restarts", restarts, minimum=1)
    if isinstance(landscape, SpectralLandscape):
        return _classify_spectral(landscape)
    if isinstance(landscape, DeepLandscape) and landscape._solution is not None:
        return classify_by_wells(landscape, landscape._solution)
    generator = _checks.generator("rng", 0 if rng is None else rng)
    return classify_numerically(landscape, count, generator)


def _classify_spectral(land: SpectralLandscape) -> CollapseReport:
    minimum = land.minimum()
    split, k = land._split, land.embedding_dim
    inside = int(np.count_nonzero(land._modes.signature > 0.0))
    capacity = min(k, inside)
    if minimum.rank == 0:
        kind = Collapse.COMPLETE
    else:
        kind = Collapse.NONE if minimum.rank == capacity else Collapse.DIMENSIONAL

    # counting (theory 5)
    variation = inside if split is None else split.rank
    undecayed, decayed = land._count_positive(0.0), land._count_positive(land.weight_decay)
    number = np.arange(1, len(land.eigenvalues) + 1)
    causes = np.array([Cause.CAPACITY] * len(number), dtype=object)  # np.full would make it a str
    causes[number > decayed] = Cause.DECAY
    causes[number > undecayed] = Cause.AUGMENTATION
    causes[number > variation] = Cause.NO_VARIATION
    causes[number <= minimum.rank] = Cause.LEARNED

    spectrum = _embedding_spectrum(land, minimum)
    near = _near_threshold(land)
    if near:
        warnings.warn(
            f"{near} eigenvalue(s) of B lie within rounding ({land._tolerance:.1e}) of the"
            f" threshold 0; the rank counts them as not learned, but could as well be"
            f" {min(k, minimum.rank + near)} instead of {minimum.rank}",
            ThresholdWarning,
            stacklevel=3,
        )
    within_noise = _within_noise(land)
    critical = land._signal_spectrum
    return CollapseReport(
        kind=kind,
        rank=minimum.rank,
        capacity=capacity,
        effective_rank=effective_rank(spectrum) if minimum.attained else math.nan,
        participation_ratio=participation_ratio(spectrum) if minimum.attained else math.nan,
        stable_rank=stable_rank(spectrum) if minimum.attained else math.nan,
        modes=_mode_table(land, minimum, causes),
        critical_weight_decay=readonly(
            np.where(critical > land._rank_tolerance, 2.0 * critical, 0.0)
        ),
        minimum=minimum,
        loss="" if split is None else split.name,
        weight_decay=land.weight_decay,
        n_samples=None if split is None else split.n_samples,
        within_noise=within_noise,
        notes=_notes(land, minimum, within_noise),
    )


def _mode_table(
    land: SpectralLandscape, minimum: Minimum, causes: npt.NDArray[np.object_]
) -> ModeTable:
    split, vectors = land._split, land.vectors
    on_range = land._modes.signature > 0.0

    def column(values: Array | float) -> Array:
        return readonly(np.where(on_range, values, np.nan))

    decay = 0.5 * land.weight_decay * (land._decayed @ vectors**2)
    if split is None:
        signal, augmentation = column(land.eigenvalues + decay), column(np.nan)
    else:
        signal = column(split.signal)
        taken = split.augmentation
        augmentation = column(0.0 if taken is None else quadratic_forms(vectors, taken))
    return ModeTable(
        eigenvalue=land.eigenvalues,
        alignment=readonly(land.alignments()),
        amplitude=minimum.amplitudes,
        signal=signal,
        augmentation=augmentation,
        decay=column(decay),
        cause=readonly(causes),
    )


def _embedding_spectrum(land: SpectralLandscape, minimum: Minimum) -> Array:
    """Return the eigenvalues of W Sigma W' at the minimum (k,)."""
    if land._split is None or not minimum.attained:
        return minimum.amplitudes
    split = land._split
    covariance = split.covariance if split.centered is None else split.centered
    return embedded_spectrum(minimum.weights, covariance)


def _near_threshold(land: SpectralLandscape) -> int:
    """Count the eigenvalues of B within rounding of 0 on which the rank depends."""
    spectrum, tolerance = land._signal_spectrum, land._tolerance
    near = np.abs(spectrum - 0.5 * land.weight_decay) <= tolerance
    if land._split is not None and not land._split.cancels:
        # zero without decay is the rank of A itself, and no coincidence
        near &= spectrum > land._rank_tolerance
        count = int(np.count_nonzero(near))
    else:
        modes = land._modes
        off_range = (modes.signature == 0.0) & (np.abs(modes.curvature) <= tolerance)
        count = int(np.count_nonzero(near)) - int(np.count_nonzero(off_range))
    vacant = land.embedding_dim - land._count_positive(land.weight_decay)
    return max(0, min(count, vacant))


def _within_noise(land: SpectralLandscape) -> int:
    """Count the modes that noise alone could have put where they are.

    The alignments of n pairs of independent views fill a semicircle of radius sqrt(2 d/n).
    """
    split = land._split
    if split is None or split.n_samples is None:
        return 0
    if split.noise_metric is None:
        margins = land.eigenvalues[land._modes.signature > 0.0]
    else:  # in units of alignment the threshold is that of the pencil (B, Sigma)
        margins, _ = diagonalise(land.B, split.noise_metric.whitener)
    noise = math.sqrt(2.0 * len(land.eigenvalues) / split.n_samples)
    return int(np.count_nonzero(np.abs(margins) < split.sensitivity * noise))


def _notes(land: SpectralLandscape, minimum: Minimum, within_noise: int) -> tuple[str, ...]:
    notes = []
    if not minimum.bounded:
        notes.append("the landscape is unbounded below on the null space of S: no minimum exists")
    diverging = int(np.isinf(minimum.amplitudes).sum())
    if diverging:
        notes.append(
            f"{diverging} mode(s) see no augmentation and diverge: no minimiser exists"
            " (any weight decay or augmentation there gives one)"
        )
    if minimum.degenerate:
        notes.append(
            "the last mode learned ties with the first one lost to capacity: which of them is"
            " learned is arbitrary"
        )
    split = land._split
    if split is not None and split.n_samples is not None:
        notes.append(
            f"moments from {split.n_samples} pairs: alignments carry noise of up to"
            f" sqrt(2d/n) = {math.sqrt(2.0 * len(land.eigenvalues) / split.n_samples):.2g};"
            f" {within_noise} mode(s) lie within it of their threshold"
        )
        if split.n_samples <= len(land.eigenvalues):
            notes.append(
                "no more pairs than dimensions: views that share nothing would look as aligned"
            )
    return tuple(notes)
