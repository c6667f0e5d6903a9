"""Which directions a landscape keeps, which it loses, and why (theory 5)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._checks import ThresholdWarning
from pyssl._pencil import Array, descending, diagonalise, quadratic_forms, readonly
from pyssl.landscape import Landscape
from pyssl.spectral import SpectralLandscape
from pyssl.stationary import Minimum

__all__ = [
    "Cause",
    "Collapse",
    "CollapseReport",
    "Mode",
    "ModeTable",
    "classify",
    "effective_rank",
    "participation_ratio",
    "rankme",
    "stable_rank",
]

_ROWS_PRINTED = 24


class Collapse(StrEnum):
    """The kind of collapse: no mode lost, some, or all.

    Examples
    --------
    >>> import pyssl
    >>> [kind.value for kind in pyssl.Collapse]
    ['none', 'dimensional', 'complete']
    """

    NONE = "none"
    DIMENSIONAL = "dimensional"
    COMPLETE = "complete"


class Cause(StrEnum):
    """Why a mode is learned or not, by counting modes in descending order (theory 5).

    ``LEARNED``; ``DECAY``: lost to weight decay, learned without it; ``AUGMENTATION``: lost to the
    augmentation even without decay; ``NO_VARIATION``: the data do not vary there; ``CAPACITY``:
    worth learning, but the embedding has too few dimensions; ``COMPETITION``: crowded out by
    better aligned modes under normalisation.

    Examples
    --------
    >>> import pyssl
    >>> pyssl.Cause.DECAY
    <Cause.DECAY: 'decay'>
    """

    LEARNED = "learned"
    DECAY = "decay"
    AUGMENTATION = "augmentation"
    NO_VARIATION = "no variation"
    CAPACITY = "capacity"
    COMPETITION = "competition"


@dataclass(frozen=True)
class Mode:
    """One row of a `ModeTable`.

    Attributes
    ----------
    eigenvalue, alignment, amplitude, signal, augmentation, decay : float
    cause : Cause
        As the columns of `ModeTable`.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]))
    >>> report = pyssl.classify(pyssl.InfoNCE().effective(moments, 2, weight_decay=0.4))
    >>> report.modes[1].cause
    <Cause.DECAY: 'decay'>
    """

    eigenvalue: float
    alignment: float
    amplitude: float
    signal: float
    augmentation: float
    decay: float
    cause: Cause


@dataclass(frozen=True, eq=False, repr=False)
class ModeTable:
    """One row a mode, by descending eigenvalue.

    Attributes
    ----------
    eigenvalue : (d,) ndarray
        lambda = signal - augmentation - decay.
    alignment : (d,) ndarray
        v'Av/v'Sigma v, the correlation of the two views along the mode.
    amplitude : (d,) ndarray
        n, the variance (for Barlow Twins the covariance) of the embedding along the mode at the
        minimum: 0 if not learned, inf if it diverges.
    signal, augmentation, decay : (d,) ndarray
        What drives the mode, and what the augmentation and the weight decay take from it; nan for
        a mode outside the range of S.
    cause : (d,) ndarray of Cause

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]))
    >>> table = pyssl.classify(pyssl.InfoNCE().effective(moments, 2, weight_decay=0.4)).modes
    >>> len(table), table.decay
    (2, array([0.2, 0.2]))
    >>> [str(cause) for cause in table.cause]
    ['learned', 'decay']
    """

    eigenvalue: Array
    alignment: Array
    amplitude: Array
    signal: Array
    augmentation: Array
    decay: Array
    cause: npt.NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.eigenvalue)

    def __getitem__(self, index: int) -> Mode:
        row = _checks.integer("index", index)
        values = {item.name: getattr(self, item.name)[row] for item in fields(self)}
        cause = values.pop("cause")
        return Mode(**{name: float(value) for name, value in values.items()}, cause=cause)

    def __iter__(self) -> Iterator[Mode]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return _table(self, None)


@dataclass(frozen=True, eq=False, repr=False)
class CollapseReport:
    """What a landscape's minimum keeps and loses. Prints as a table.

    Attributes
    ----------
    kind : Collapse
        NONE where rank = capacity, COMPLETE where rank = 0, else DIMENSIONAL.
    rank : int
        Modes active at the minimum.
    capacity : int
        Modes that an embedding of this size could learn: min(k, rank S).
    effective_rank, participation_ratio, stable_rank : float
        Soft counts of the dimensions of the embedding's covariance; nan where it diverges.
    modes : ModeTable
    critical_weight_decay : (d,) ndarray
        Descending: the j-th mode is lost from this weight decay on, as long as j <= k.
    minimum : Minimum
    loss : str
        The loss and its settings; empty for a landscape given by its matrices.
    weight_decay : float
    n_samples : int or None
        Pairs that the moments were estimated from.
    within_noise : int
        Modes nearer to the threshold, in units of alignment, than sqrt(2 d/n), where noise alone
        puts its largest mode: another sample could decide them differently. 0 for population
        moments.
    notes : tuple of str
        What else a reader should know.

    Notes
    -----
    Source: theory 5.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]))
    >>> land = pyssl.SpectralContrastive().effective(moments, embedding_dim=2, weight_decay=0.8)
    >>> print(pyssl.classify(land))
    SpectralContrastive(clip=None, negatives='offdiagonal')
    dimensional collapse: 1 of 2 modes learned (effective rank 1.00), weight decay 0.8
    <BLANKLINE>
      mode  eigenvalue  alignment  amplitude  signal  augmentation  decay  critical decay  cause
         1         1.4        0.9        0.7       2           0.2    0.4             3.6  learned
         2        -0.2        0.1          0       2           1.8    0.4             0.4  decay
    """

    kind: Collapse
    rank: int
    capacity: int
    effective_rank: float
    participation_ratio: float
    stable_rank: float
    modes: ModeTable
    critical_weight_decay: Array
    minimum: Minimum
    loss: str
    weight_decay: float
    n_samples: int | None
    within_noise: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        soft = "undefined" if math.isnan(self.effective_rank) else f"{self.effective_rank:.2f}"
        title = (
            f"{_KIND_TITLE[self.kind]}: {self.rank} of {self.capacity} modes learned"
            f" (effective rank {soft}), weight decay {self.weight_decay:g}"
        )
        lines = [
            *([self.loss] if self.loss else []),
            title,
            "",
            _table(self.modes, self.critical_weight_decay),
        ]
        if self.notes:
            lines += ["", *(f"note: {note}" for note in self.notes)]
        return "\n".join(lines)

    __repr__ = __str__


_KIND_TITLE = {
    Collapse.NONE: "no collapse",
    Collapse.DIMENSIONAL: "dimensional collapse",
    Collapse.COMPLETE: "complete collapse",
}


def classify(landscape: Landscape) -> CollapseReport:
    """Say which modes a landscape's minimum learns, which it loses, and why.

    Parameters
    ----------
    landscape : Landscape
        Of any loss, or a `SpectralLandscape` of one's own.

    Returns
    -------
    CollapseReport

    Raises
    ------
    TypeError
        For anything but a landscape.
    NotImplementedError
        For a landscape without closed form.

    Warns
    -----
    ThresholdWarning
        Where an eigenvalue of B lies within rounding, d eps (||B at g = 0|| + g/2), of the
        threshold 0 and the rank depends on it.

    Notes
    -----
    Source: theory 5. Causes go by counting, not by following eigenvectors, which turn with the
    weight decay: in descending order mode j has NO_VARIATION if j > rank Sigma, falls to
    AUGMENTATION if j > n_+(B at g = 0), to DECAY if j > n_+(B), to CAPACITY if j > k.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(3), np.diag([0.9, 0.5, 0.1]))
    >>> report = pyssl.classify(pyssl.InfoNCE().population(moments, 3, weight_decay=0.4))
    >>> report.kind, report.rank, report.critical_weight_decay
    (<Collapse.DIMENSIONAL: 'dimensional'>, 2, array([1.8, 1. , 0.2]))
    """
    _checks.instance("landscape", landscape, Landscape, "a landscape")
    if not isinstance(landscape, SpectralLandscape):
        raise NotImplementedError(
            f"classify: {type(landscape).__name__} has no closed form, and numerical minimisation"
            " is not part of this version"
        )
    return _classify_spectral(landscape)


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
    number = np.arange(1, land.dim + 1)
    causes = np.array([Cause.CAPACITY] * land.dim, dtype=object)  # np.full would make it a str
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
    return np.maximum(descending(minimum.weights @ covariance @ minimum.weights.T), 0.0)


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
    noise = math.sqrt(2.0 * land.dim / split.n_samples)
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
            f" sqrt(2d/n) = {math.sqrt(2.0 * land.dim / split.n_samples):.2g};"
            f" {within_noise} mode(s) lie within it of their threshold"
        )
        if split.n_samples <= land.dim:
            notes.append(
                "no more pairs than dimensions: views that share nothing would look as aligned"
            )
    return tuple(notes)


# ---- soft measures -------------------------------------------------------------------------------


def effective_rank(spectrum: npt.ArrayLike) -> float:
    """Return the entropy effective rank of a spectrum, exp(-sum p log p) with p = l/sum l.

    Parameters
    ----------
    spectrum : (m,) array_like
        Eigenvalues l >= 0 of a covariance.

    Returns
    -------
    float
        Between 1 and m; 0 where all l vanish.

    Raises
    ------
    ValueError
        For negative, infinite or NaN entries, or a wrong shape.
    TypeError
        For anything but real numbers.

    Notes
    -----
    Source: theory 5; Roy and Vetterli, "The effective rank" (2007).

    Examples
    --------
    >>> import pyssl
    >>> round(pyssl.effective_rank([1.0, 1.0, 0.0]), 12)
    2.0
    """
    p = _shares(spectrum)
    p = p[p > 0.0]
    return float(np.exp(-np.sum(p * np.log(p)))) if len(p) else 0.0


def participation_ratio(spectrum: npt.ArrayLike) -> float:
    """Return the participation ratio of a spectrum, (sum l)^2/sum l^2.

    Parameters
    ----------
    spectrum : (m,) array_like
        Eigenvalues l >= 0 of a covariance.

    Returns
    -------
    float
        Between 1 and m; 0 where all l vanish.

    Raises
    ------
    ValueError
        For negative, infinite or NaN entries, or a wrong shape.
    TypeError
        For anything but real numbers.

    Examples
    --------
    >>> import pyssl
    >>> pyssl.participation_ratio([1.0, 1.0, 0.0])
    2.0
    """
    p = _shares(spectrum)
    return float(1.0 / np.sum(p * p)) if p.any() else 0.0


def stable_rank(spectrum: npt.ArrayLike) -> float:
    """Return the stable rank of a spectrum, sum l/max l.

    Parameters
    ----------
    spectrum : (m,) array_like
        Eigenvalues l >= 0 of a covariance.

    Returns
    -------
    float
        Between 1 and m; 0 where all l vanish.

    Raises
    ------
    ValueError
        For negative, infinite or NaN entries, or a wrong shape.
    TypeError
        For anything but real numbers.

    Examples
    --------
    >>> import pyssl
    >>> pyssl.stable_rank([2.0, 1.0, 1.0])
    2.0
    """
    p = _shares(spectrum)
    return float(1.0 / p.max()) if p.any() else 0.0


def rankme(embeddings: npt.ArrayLike) -> float:
    """Return RankMe of embeddings: the entropy effective rank of their singular values.

    Parameters
    ----------
    embeddings : (n, k) array_like

    Returns
    -------
    float
        Between 1 and min(n, k); 0 for zero embeddings.

    Raises
    ------
    ValueError
        For a wrong shape, NaN or infinity.
    TypeError
        For anything but real numbers.

    Notes
    -----
    Source: Garrido et al., "RankMe" (2023), without its 1e-7 under the logarithm. Singular values,
    not their squares: not the effective rank of the covariance.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> round(pyssl.rankme(np.eye(3)), 12)
    3.0
    """
    z = _checks.array("embeddings", embeddings, ndim=2)
    if z.size == 0:
        raise ValueError(f"embeddings must have at least one row and column, got {z.shape}")
    largest = float(np.abs(z).max())
    if largest == 0.0:
        return 0.0
    scaled = z.astype(np.float64) / largest  # no overflow in the singular values
    return effective_rank(np.linalg.svd(scaled, compute_uv=False))


def _shares(spectrum: npt.ArrayLike) -> Array:
    values = _checks.array("spectrum", spectrum, ndim=1).astype(np.float64)
    if len(values) and values.min() < 0.0:
        raise ValueError(f"spectrum must not be negative, got {values.min():g}")
    top = values.max(initial=0.0)
    if top == 0.0:
        return np.zeros_like(values)
    values = values / top  # no overflow in the sum, no underflow in the quotient
    return np.asarray(values / values.sum())


# ---- printing ------------------------------------------------------------------------------------


def _table(modes: ModeTable, critical: Array | None) -> str:
    """Lay the modes out in columns; a long tail of like rows is counted, not listed."""
    names = [item.name for item in fields(modes) if item.name != "cause"]
    columns = {name: getattr(modes, name) for name in names}
    if critical is not None:
        columns["critical decay"] = critical
    shown = min(len(modes), _ROWS_PRINTED)
    cells = {"mode": [str(index + 1) for index in range(shown)]}
    for name, values in columns.items():
        cells[name] = ["-" if math.isnan(x) else f"{x + 0.0:.4g}" for x in values[:shown]]
    widths = {name: max(len(name), *map(len, column), 0) for name, column in cells.items()}
    lines = ["  " + "  ".join(f"{name:>{widths[name]}}" for name in cells) + "  cause"]
    for row in range(shown):
        line = "  ".join(f"{column[row]:>{widths[name]}}" for name, column in cells.items())
        lines.append(f"  {line}  {modes.cause[row]}")
    rest = list(modes.cause[shown:])
    if rest:
        counts = ", ".join(f"{rest.count(cause)} {cause}" for cause in Cause if cause in rest)
        lines.append(f"  ... and {len(rest)} more: {counts}")
    return "\n".join(lines)
