"""The closed form of deep linear models whose B and S commute: mode by mode (theory 9)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl._aligned import shared_eigenbasis
from pyssl._pencil import Array, rank_tolerance, readonly
from pyssl.spectral import SpectralLandscape
from pyssl.stationary import Minimum
from pyssl.wells import ModeWells, WellTable

__all__ = ["CONSTANT_VALUE", "Solution", "keeps_constant", "unattained"]

# Wells whose values differ by less than so many d eps of the lowest are tied.
_TIE_ULPS = 16.0
# r(1) - 2 of the spectral contrastive loss: what learning the constant function gains (theory 4).
CONSTANT_VALUE = -1.0
# Its row of the table. The bias does not decay: it reaches n = 1 without a barrier.
_CONSTANT: dict[str, Any] = {
    "exists": True,
    "is_global": True,
    "singular_value": np.nan,
    "amplitude": 1.0,
    "value": CONSTANT_VALUE,
    "barrier_singular_value": np.nan,
    "barrier_amplitude": 0.0,
    "barrier_height": 0.0,
    "existence_decay": np.inf,
    "critical_weight_decay": np.inf,
}


@dataclass(frozen=True, eq=False)
class Solution:
    """The modes that B and S share, with their wells, in the order of `DeepLandscape.wells`.

    Attributes
    ----------
    table : WellTable
    vectors : (d, d) v_j as columns, with the best bias below where there is one.
    rates, scales : (d,) eigenvalues of B and S; nan for the constant function.
    learnable : how many modes would be learned without decay, if there were room.
    inside : how many modes S has.
    near : modes whose critical decay is the weight decay within rounding.
    """

    table: WellTable
    vectors: Array
    rates: Array
    scales: Array
    learnable: int
    inside: int
    near: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, land: SpectralLandscape, depth: int, g: float) -> Solution | None:
        """Solve every mode of a landscape without decay; None where B and S don't commute."""
        core, offset = land._without_bias()
        modes = _Shared.of(core)
        if modes is None:
            return None
        columns = modes.columns(core, depth, g)
        rounding = modes.rounding(core, columns["critical_weight_decay"])
        critical = columns["critical_weight_decay"]
        columns["is_global"] = g < critical - rounding
        near = np.abs(g - critical) <= rounding
        # lowest first, then what has no well, as it comes back; modes are learned in this order
        value = np.where(columns["exists"], columns["value"], np.inf)
        order = np.lexsort((-columns["existence_decay"], value, ~columns["is_global"]))
        columns = {name: column[order] for name, column in columns.items()}
        vectors, rates, scales = modes.vectors[:, order], modes.rates[order], modes.scales[order]
        near, learnable, inside = near[order], core._modes.learnable, int(np.sum(scales > 0.0))
        if offset is not None:
            vectors = np.vstack([vectors, -(offset @ vectors)])
        if keeps_constant(land):
            columns = {name: np.append(_CONSTANT[name], columns[name]) for name in columns}
            vectors = np.column_stack([np.eye(len(vectors))[-1], vectors])
            rates, scales = np.append(np.nan, rates), np.append(np.nan, scales)
            near, learnable, inside = np.append(False, near), learnable + 1, inside + 1
        is_global = columns["is_global"]
        table = WellTable(
            **{name: readonly(column) for name, column in columns.items()},
            learned=readonly(is_global & (np.cumsum(is_global) <= land.embedding_dim)),
            weight_decay=g,
            depth=depth,
        )
        return cls(table, readonly(vectors), rates, scales, learnable, inside, near)

    def minimum(self, land: SpectralLandscape) -> Minimum:
        """Activate the k lowest wells below the origin."""
        table, chosen = self.table, np.flatnonzero(self.table.learned)
        amplitudes = np.where(table.learned, table.amplitude, 0.0)
        value = float(np.sum(table.value[chosen]))
        if not np.isfinite(amplitudes).all():
            return unattained(amplitudes, value, land)
        weights = np.zeros(land.shape)
        weights[: len(chosen)] = (self.vectors[:, chosen] * np.sqrt(amplitudes[chosen])).T
        left = np.flatnonzero(table.is_global & ~table.learned)
        tied = False
        if len(left):
            gap = table.value[left[0]] - table.value[chosen[-1]]
            lowest = abs(float(table.value[chosen[0]]))
            tied = bool(gap <= _TIE_ULPS * len(table) * float(np.finfo(float).eps) * lowest)
        return Minimum(
            weights=readonly(weights),
            value=math.fsum(table.value[chosen]) + land.constant,
            amplitudes=readonly(amplitudes),
            rank=len(chosen),
            attained=True,
            bounded=True,
            degenerate=tied,
        )


@dataclass(frozen=True, eq=False)
class _Shared:
    """The eigenvectors v_j (d, d) that B and S share, v'Sv = 1, in the order of one layer's modes.

    On the null space of S they have unit length.
    """

    vectors: Array
    rates: Array
    scales: Array

    @classmethod
    def of(cls, core: SpectralLandscape) -> _Shared | None:
        shared = shared_eigenbasis(core.B, core.S, core._eps)
        if shared is None:
            return None
        basis, rates, scales = shared
        if core._split is not None:  # no loss sees directions in which views don't vary
            rates = np.where(scales == 0.0, 0.0, rates)
        inside = scales > 0.0
        lam = np.where(rates < 0.0, -np.inf, 0.0)
        lam[inside] = rates[inside] / scales[inside]
        order = np.lexsort((~inside, -lam))
        basis, rates, scales = basis[:, order], rates[order], scales[order]
        basis = basis / np.sqrt(np.where(scales == 0.0, 1.0, np.abs(scales)))
        # a sign that does not depend on the eigensolver: the largest entry is positive
        largest = np.abs(basis).argmax(axis=0)
        basis *= np.where(basis[largest, np.arange(len(order))] < 0.0, -1.0, 1.0)
        return cls(basis, rates, scales)

    def columns(self, core: SpectralLandscape, depth: int, g: float) -> dict[str, Any]:
        """Return the columns of the table of wells."""
        modes, number = core._modes, np.arange(core.dim)
        # the landscape of one layer knows lambda and r'(inf) - lambda to all their digits
        alive = (number < modes.learnable) & (self.scales > 0.0)
        endless = alive & (number < modes.beyond)
        endless |= (self.scales == 0.0) & (self.rates > 0.0)
        alive &= ~endless
        wells = ModeWells.of(
            core.potential,
            modes.eigenvalues[alive],
            np.maximum(modes.deficits[alive], 0.0),
            self.scales[alive],
            depth,
            g,
        )

        def everywhere(values: Array, elsewhere: float, end: float) -> Array:
            result = np.where(endless, end, elsewhere)
            result[alive] = values
            return result

        amplitude = everywhere(wells.amplitude, np.nan, np.inf)
        barrier = everywhere(wells.barrier_amplitude, np.nan, np.nan)
        size = np.where(self.scales > 0.0, self.scales, 1.0)
        existence = everywhere(wells.existence, 0.0, np.inf)
        return {
            "exists": g < existence,
            "singular_value": np.sqrt(amplitude / size),
            "amplitude": amplitude,
            "value": everywhere(wells.value, np.nan, -np.inf),
            "barrier_singular_value": np.sqrt(barrier / size),
            "barrier_amplitude": barrier,
            "barrier_height": everywhere(wells.barrier_height, np.nan, np.nan),
            "existence_decay": existence,
            "critical_weight_decay": everywhere(wells.critical, 0.0, np.inf),
        }

    def rounding(self, core: SpectralLandscape, critical: Array) -> Array:
        """Return what rounding of B and S may do to critical decays (theory 2.2).

        Those are products of powers of b and sigma, of at most 2.
        """
        share = np.zeros(core.dim)
        for values in (self.rates, self.scales):
            largest = float(np.abs(values).max())
            share += largest / np.where(values > 0.0, values, np.inf)
        finite = np.where(np.isfinite(critical), critical, 0.0)
        return np.asarray(2.0 * rank_tolerance(core.dim, core._eps, 1.0) * share * finite)


def keeps_constant(land: SpectralLandscape) -> bool:
    """Return whether the constant function is a mode, on which a unit and its bias are spent."""
    return bool(np.isinf(land._signal_spectrum[0]))


def unattained(amplitudes: Array, value: float, land: SpectralLandscape) -> Minimum:
    """Return the minimum of a landscape that has no minimiser."""
    return Minimum(
        weights=readonly(np.full(land.shape, np.nan)),
        value=value,
        amplitudes=readonly(amplitudes),
        rank=int(np.count_nonzero(amplitudes)),
        attained=False,
        bounded=land.bounded,
        degenerate=False,
    )
