"""What collapses and why: the kinds, the causes and the report (theory 5)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._pencil import Array
from pyssl._tables import ROWS_PRINTED, table_of_modes
from pyssl.stationary import Minimum

__all__ = ["Cause", "Collapse", "CollapseReport", "Mode", "ModeTable"]


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
        learned = (
            f"{self.rank} of {self.capacity} modes learned (effective rank {soft})"
            if self.capacity
            else "there is no variation to learn"
        )
        title = f"{_KIND_TITLE[self.kind]}: {learned}, weight decay {self.weight_decay:g}"
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


# ---- printing ------------------------------------------------------------------------------------


def _table(modes: ModeTable, critical: Array | None) -> str:
    """Lay the modes out in columns; a long tail of like rows is counted, not listed."""
    names = [item.name for item in fields(modes) if item.name != "cause"]
    columns = {name: getattr(modes, name) for name in names}
    if critical is not None:
        columns["critical decay"] = critical
    lines = table_of_modes(columns, ("cause", modes.cause.__getitem__))
    rest = list(modes.cause[ROWS_PRINTED:])
    if rest:
        counts = ", ".join(f"{rest.count(cause)} {cause}" for cause in Cause if cause in rest)
        lines.append(f"  ... and {len(rest)} more: {counts}")
    return "\n".join(lines)
