"""Classification of deep linear models: by their wells, or by search where there are none."""

from __future__ import annotations

import math
import warnings

import numpy as np

from pyssl._checks import ThresholdWarning
from pyssl._deep_solution import Solution
from pyssl._pencil import Array, embedded_spectrum, quadratic_forms, readonly
from pyssl.collapse import Cause, Collapse, CollapseReport, ModeTable
from pyssl.deep import DeepLandscape, origin_note
from pyssl.measures import effective_rank, participation_ratio, stable_rank
from pyssl.stationary import Minimum

__all__ = ["classify_by_wells"]


def classify_by_wells(land: DeepLandscape, solution: Solution) -> CollapseReport:
    """Count wells below the origin where theory 5 counts positive eigenvalues (theory 9)."""
    minimum, table = land.minimum(), solution.table
    split, k, g = land.landscape._split, land.embedding_dim, land.weight_decay
    rank, capacity = minimum.rank, min(k, solution.inside)
    if rank == 0:
        kind = Collapse.COMPLETE
    else:
        kind = Collapse.NONE if rank == capacity else Collapse.DIMENSIONAL

    variation = solution.inside if split is None else split.rank
    number = np.arange(1, len(table) + 1)
    causes = np.array([Cause.CAPACITY] * len(number), dtype=object)  # np.full would make it a str
    causes[number > np.count_nonzero(table.is_global)] = Cause.DECAY
    causes[number > solution.learnable] = Cause.AUGMENTATION
    causes[number > variation] = Cause.NO_VARIATION
    causes[number <= rank] = Cause.LEARNED

    near = min(int(np.count_nonzero(solution.near)), k - rank)
    if near > 0:
        warnings.warn(
            f"the weight decay {g:g} lies within rounding of the critical one of {near} mode(s),"
            " whose wells are level with the origin; the rank counts them as not learned, but could"
            f" as well be {rank + near} instead of {rank}",
            ThresholdWarning,
            stacklevel=3,
        )
    spectrum = minimum.amplitudes
    if split is not None and minimum.attained:
        covariance = split.covariance if split.centered is None else split.centered
        spectrum = embedded_spectrum(minimum.weights, covariance)
    return CollapseReport(
        kind=kind,
        rank=rank,
        capacity=capacity,
        effective_rank=effective_rank(spectrum) if minimum.attained else math.nan,
        participation_ratio=participation_ratio(spectrum) if minimum.attained else math.nan,
        stable_rank=stable_rank(spectrum) if minimum.attained else math.nan,
        modes=_mode_table(land, solution, minimum, causes),
        critical_weight_decay=readonly(-np.sort(-table.critical_weight_decay)),
        minimum=minimum,
        loss="" if split is None else split.name,
        weight_decay=g,
        n_samples=None if split is None else split.n_samples,
        within_noise=0,
        notes=_notes(land, solution, minimum),
    )


def _mode_table(
    land: DeepLandscape, solution: Solution, minimum: Minimum, causes: Array
) -> ModeTable:
    """Split each eigenvalue at the mode's well; without one the decay has no value, nor has it."""
    table, split, vectors = solution.table, land.landscape._split, solution.vectors
    with np.errstate(divide="ignore", invalid="ignore"):
        # of (g/2) D s^(2/D) by the amplitude; the constant function has no s and does not decay
        decay = 0.5 * land.weight_decay * table.singular_value ** (2.0 / land.depth - 2.0)
        decay = np.where(np.isnan(solution.scales), 0.0, decay / solution.scales)
    decay = np.where(table.exists, decay, np.nan)
    on_range = (solution.scales > 0.0) | np.isnan(solution.scales)
    with np.errstate(divide="ignore", invalid="ignore"):
        undecayed = np.where(on_range, solution.rates / solution.scales, np.nan)
    if split is None:
        signal, augmentation = undecayed, np.full(len(table), np.nan)
    else:
        taken = split.augmentation
        cost = 0.0 if taken is None else quadratic_forms(vectors, taken)
        augmentation = np.where(on_range, cost, np.nan)
        signal = np.where(on_range, split.signal, np.nan)
        undecayed = signal - augmentation
    return ModeTable(
        eigenvalue=readonly(undecayed - decay),
        alignment=readonly(land.landscape._alignments(vectors)),
        amplitude=minimum.amplitudes,
        signal=readonly(signal),
        augmentation=readonly(augmentation),
        decay=readonly(decay),
        cause=readonly(causes),
    )


def _notes(land: DeepLandscape, solution: Solution, minimum: Minimum) -> tuple[str, ...]:
    table, notes = solution.table, []
    if land.weight_decay > 0.0:
        notes.append(origin_note(land))
        count = int(np.count_nonzero(table.metastable))
        if count:
            notes.append(
                f"{count} mode(s) lost to decay still have a well, above the origin: training from"
                " beyond its barrier stays there"
            )
    if not minimum.bounded:
        notes.append("the landscape is unbounded below on the null space of S: no minimum exists")
    diverging = int(np.isinf(minimum.amplitudes).sum())
    if diverging:
        notes.append(f"{diverging} mode(s) diverge: no minimiser exists")
    if minimum.degenerate:
        notes.append(
            "the last mode learned ties with the first one lost to capacity: which of them is"
            " learned is arbitrary"
        )
    split = land.landscape._split
    if split is not None and split.n_samples is not None:
        d = len(table)
        notes.append(
            f"moments from {split.n_samples} pairs: alignments carry noise of up to"
            f" sqrt(2d/n) = {math.sqrt(2.0 * d / split.n_samples):.2g}"
        )
    return tuple(notes)
