"""Losses side by side: which classes of a mixture each of them keeps (theory 7)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._pencil import Array, readonly
from pyssl.augment._base import Augmentation, is_sequence
from pyssl.imbalance import checked_threshold, retention_bounds, room
from pyssl.loss import Loss
from pyssl.losses import (
    BarlowTwins,
    InfoNCE,
    NTXent,
    SpectralContrastive,
    SquaredVICReg,
    VICReg,
)
from pyssl.mixture import Mixture, augmentation_for

__all__ = ["RetentionTable", "compare_retention"]

# Retention is open where it differs by more than this between minima.
_OPEN = 1e-6
# Columns of a table that are printed.
_CLASSES_PRINTED = 10


@dataclass(frozen=True, eq=False, repr=False)
class RetentionTable:
    """What each loss keeps of each class. Prints as a table.

    Attributes
    ----------
    losses : tuple of str
        One a row, with the settings that are not the default.
    classes : tuple
        One a column.
    priors : (C,) ndarray
    retention : (L, C) ndarray
        As `class_retention` has it.
    open : (L, C) ndarray of bool
        Where modes tie at the capacity, so that retention could be another: any of them may be
        learned.
    rank : (L,) ndarray of int
        Modes learned.
    embedding_dim : int
    weight_decay : (L,) ndarray
    threshold : float
        The retention from which on a class counts as kept.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> mix = pyssl.Mixture([0.9, 0.1], [[0.0, 0.0], [0.0, 3.0]], np.diag([2.0, 0.1]))
    >>> losses = [pyssl.InfoNCE(), pyssl.BarlowTwins(1.0, normalize=False)]
    >>> table = pyssl.compare_retention(mix, pyssl.augment.Noise(1.0), losses, embedding_dim=1)
    >>> table.kept, table.open
    (array([[False, False],
           [False, False]]), array([[False, False],
           [ True,  True]]))
    """

    losses: tuple[str, ...]
    classes: tuple[Any, ...]
    priors: Array
    retention: Array
    open: npt.NDArray[np.bool_]
    rank: npt.NDArray[np.int64]
    embedding_dim: int
    weight_decay: Array
    threshold: float

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """Whether each class is kept for certain, (L, C)."""
        kept: npt.NDArray[np.bool_] = (self.retention >= self.threshold) & ~self.open
        return kept

    def __str__(self) -> str:
        shown = min(len(self.classes), _CLASSES_PRINTED)
        head = [str(name) for name in self.classes[:shown]]
        priors = [f"{p:.3g}" for p in self.priors[:shown]]
        marks = np.where(self.open, "?", np.where(self.kept, "*", " "))
        cells = [
            ["-" if math.isnan(r) else f"{r:.2f}{mark}" for r, mark in zip(*row, strict=True)]
            for row in zip(self.retention[:, :shown], marks[:, :shown], strict=True)
        ]
        wide = max(map(len, [*head, *priors, "0.00*"]))
        first = max(map(len, [*self.losses, "prior"]))
        more = f"  and {len(self.classes) - shown} more" if shown < len(self.classes) else ""

        def line(name: str, decay: str, rank: str, row: list[str]) -> str:
            columns = "  ".join(f"{cell:>{wide}}" for cell in row)
            return f"  {name:<{first}}  {decay:>6}  {rank:>4}  {columns}".rstrip()

        lines = [
            f"Retention of classes, embedding dim {self.embedding_dim};"
            f" * kept, from {self.threshold:g} on"
            + ("; ? open, as modes tie" if self.open.any() else ""),
            "",
            line("class", "decay", "rank", head) + more,
            line("prior", "", "", priors),
        ]
        for name, g, rank, row in zip(
            self.losses, self.weight_decay, self.rank, cells, strict=True
        ):
            lines.append(line(name, f"{g:.3g}", str(rank), row))
        return "\n".join(lines)

    __repr__ = __str__


def compare_retention(
    mix: Mixture,
    aug: Augmentation | None = None,
    losses: Sequence[Loss] | None = None,
    *,
    embedding_dim: int | None = None,
    weight_decay: float | Sequence[float] = 0.0,
    threshold: float = 0.5,
    centered: bool = False,
    restarts: int = 1,
    rng: np.random.Generator | int | None = None,
) -> RetentionTable:
    """Set side by side which classes of a mixture each loss keeps.

    Parameters
    ----------
    mix : Mixture
    aug : pyssl.augment.Augmentation, optional
        What makes the views; without it they are the data.
    losses : sequence of Loss, optional
        By default InfoNCE, InfoNCE with dot products, spectral contrastive, squared VICReg, Barlow
        Twins not normalised, NT-Xent and VICReg.
    embedding_dim : int, optional
        k >= 1; by default the dimension of the views, room for every mode.
    weight_decay : float or sequence of float, optional
        g >= 0: of all, or of each loss.
    threshold : float, optional
        The retention from which on a class counts as kept; between 0 and 1.
    centered : bool, optional
        Whether the views are centred before they are embedded, as a bias or centred data do. Makes
        a difference only where the loss sees their mean.
    restarts, rng : optional
        As in `class_retention`, where a landscape has no closed form.

    Returns
    -------
    RetentionTable

    Raises
    ------
    ValueError
        For a value out of range, an augmentation of another dimension, or no losses.
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
    Source: theory 7. Each loss stands for the sharpest landscape that it has in the moments; see
    `Loss.sharpest`. By capacity alone losses that order modes by their alignment drop rare classes
    first; Barlow Twins, not normalised, orders nothing. A heuristic: hence this table.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> means = 3.0 * np.eye(3)
    >>> mix = pyssl.Mixture(pyssl.long_tailed_priors(3, 20.0), means, 0.1 * np.eye(3))
    >>> losses = [pyssl.SpectralContrastive(), pyssl.SquaredVICReg()]
    >>> table = pyssl.compare_retention(
    ...     mix, pyssl.augment.Noise(1.0), losses, embedding_dim=1, centered=True
    ... )
    >>> print(table)
    Retention of classes, embedding dim 1; * kept, from 0.5 on
    <BLANKLINE>
      class                   decay  rank       0       1       2
      prior                                 0.785   0.176  0.0393
      SpectralContrastive()       0     1   0.99*   0.98*   0.18
      SquaredVICReg()             0     1   0.99*   0.98*   0.18
    """
    _checks.instance("mix", mix, Mixture, "a pyssl.Mixture")
    acting = augmentation_for(aug, mix.dim)
    compared = _losses(losses)
    k = room(embedding_dim, mix, acting)
    decays = _decays(weight_decay, len(compared))
    level = checked_threshold(threshold)
    center = _checks.flag("centered", centered)
    runs = _checks.integer("restarts", restarts, minimum=1)
    generator = _checks.generator("rng", 0 if rng is None else rng)
    found = [
        retention_bounds(loss, mix, acting, k, g, center, runs, generator)
        for loss, g in zip(compared, decays, strict=True)
    ]
    return RetentionTable(
        losses=tuple(map(_named, compared)),
        classes=mix.classes,
        priors=mix.priors,
        retention=readonly(np.array([item.retention for item in found])),
        open=readonly(np.array([item.high - item.low > _OPEN for item in found])),
        rank=readonly(np.array([item.rank for item in found])),
        embedding_dim=k,
        weight_decay=readonly(np.array(decays)),
        threshold=level,
    )


def _losses(given: Any) -> tuple[Loss, ...]:
    if given is None:
        return (
            InfoNCE(),
            InfoNCE(similarity="dot"),
            SpectralContrastive(),
            SquaredVICReg(),
            BarlowTwins(redundancy=1.0, normalize=False),
            NTXent(),
            VICReg(),
        )
    if not isinstance(given, list | tuple):
        raise TypeError(f"losses must be a sequence of losses, got {type(given).__name__}")
    for index, loss in enumerate(given):
        _checks.instance(f"losses[{index}]", loss, Loss, "a loss such as pyssl.InfoNCE()")
    if not given:
        raise ValueError("losses must be at least one, got none")
    return tuple(given)


def _decays(given: Any, count: int) -> list[float]:
    if not is_sequence(given):
        return [_checks.real("weight_decay", given, minimum=0.0)] * count
    if len(given) != count:
        raise ValueError(f"weight_decay must be one number or {count}, got {len(given)}")
    return [
        _checks.real(f"weight_decay[{index}]", value, minimum=0.0)
        for index, value in enumerate(given)
    ]


def _named(loss: Loss) -> str:
    """Return the loss with the settings that are not its default."""
    changed = [
        f"{item.name}={getattr(loss, item.name)!r}"
        for item in fields(cast(Any, loss))
        if getattr(loss, item.name) != item.default
    ]
    return f"{type(loss).__name__}({', '.join(changed)})"
