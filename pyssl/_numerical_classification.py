"""Classification where no closed form exists: by minimising, and counting at the minimum."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyssl._checks import ThresholdWarning
from pyssl._pencil import Array, descending, diagonalise, readonly
from pyssl.collapse import Cause, Collapse, CollapseReport, ModeTable
from pyssl.landscape import Landscape
from pyssl.measures import effective_rank, participation_ratio, stable_rank
from pyssl.moments import Moments
from pyssl.stationary import Minimum

# Eigenvalues of W Sigma W' above this share of the largest count as learned (theory 5).
RANK_TOLERANCE = 1e-6
# A converged minimum leaves what is lost far below the tolerance and what is learned far above it:
# an eigenvalue within this factor of it, on either side, could go either way.
_CLEAR = 10.0


@dataclass(frozen=True)
class _Counted:
    """A minimum, and the modes that count as learned there."""

    weights: Array  # (k, d), no bias
    value: float
    spectrum: Array  # (k,) of W Sigma W', descending
    tolerance: float  # absolute
    rank: int
    attained: bool
    settled: bool  # whether the minimiser says that it converged
    outcome: str

    @property
    def near(self) -> int:
        """How many eigenvalues lie within a factor 10 of the tolerance."""
        low, high = self.tolerance / _CLEAR, self.tolerance * _CLEAR
        return int(np.count_nonzero((self.spectrum > low) & (self.spectrum < high)))

    def margin(self) -> str:
        """Say how far the eigenvalues keep from the tolerance."""
        kept, dropped = self.spectrum[: self.rank], self.spectrum[self.rank :]
        parts = []
        if len(kept):
            parts.append(f"the smallest kept is {kept[-1] / self.tolerance:.2g} times that")
        if len(dropped):
            parts.append(f"the largest dropped {dropped[0] / self.tolerance:.2g} times")
        return ", ".join(parts)


def classify_numerically(land: Any, restarts: int, rng: np.random.Generator) -> CollapseReport:
    """Classify a landscape that has moments, by `pyssl.minimize` or its own `minimum`."""
    m: Moments | None = getattr(land, "moments", None)
    if m is None:
        raise NotImplementedError(
            f"classify: {type(land).__name__} is neither spectral nor says of which views it is;"
            " give it an attribute `moments`"
        )
    k, d, g = land.shape[0], m.dim, land.weight_decay
    found = _lowest(land, m, restarts, rng)
    capacity = min(k, m.rank)
    if found.rank == 0:
        kind = Collapse.COMPLETE
    else:
        kind = Collapse.NONE if found.rank >= capacity else Collapse.DIMENSIONAL
    causes = _causes(land, m, found, restarts, rng)
    if found.near:
        warnings.warn(
            f"{found.near} eigenvalue(s) of W Sigma W' lie within a factor {_CLEAR:g} of the"
            f" tolerance {RANK_TOLERANCE:g} that decides the rank: it could be another than"
            f" {found.rank}",
            ThresholdWarning,
            stacklevel=3,
        )
    vectors, alignment = canonical_modes(m)
    embedded = found.weights @ (m.covariance @ vectors)
    amplitude = np.einsum("ij,ij->j", embedded, embedded)
    unknown = readonly(np.full(d, np.nan))
    critical = getattr(land, "critical_weight_decay", None)
    loss = getattr(land, "loss", None)
    return CollapseReport(
        kind=kind,
        rank=found.rank,
        capacity=capacity,
        effective_rank=effective_rank(found.spectrum),
        participation_ratio=participation_ratio(found.spectrum),
        stable_rank=stable_rank(found.spectrum),
        modes=ModeTable(
            eigenvalue=unknown,
            alignment=readonly(alignment),
            amplitude=readonly(amplitude),
            signal=unknown,
            augmentation=unknown,
            decay=unknown,
            cause=readonly(causes),
        ),
        critical_weight_decay=unknown if critical is None else readonly(np.array(critical)),
        minimum=Minimum(
            weights=readonly(found.weights),
            value=found.value,
            amplitudes=readonly(amplitude),
            rank=found.rank,
            attained=found.attained,
            bounded=math.isfinite(found.value),
            degenerate=False,
        ),
        loss="" if loss is None else repr(loss),
        weight_decay=g,
        n_samples=m.n_samples,
        within_noise=0,
        notes=_notes(land, m, found),
    )


def _lowest(land: Any, m: Moments, restarts: int, rng: np.random.Generator) -> _Counted:
    """Return the global minimum, as far as it can be known."""
    if hasattr(land, "minimum"):
        minimum = land.minimum()
        weights, value, attained = minimum.weights, minimum.value, minimum.attained
        settled, outcome = True, ""
    else:
        from pyssl.solvers import minimize  # this module is imported by all that classify

        result = minimize(land, restarts=restarts, rng=rng)
        weights, value, settled = result.weights, result.value, result.converged
        attained, outcome = settled, str(result.outcome)
    weights = np.asarray(weights, dtype=np.float64)[:, : m.dim]
    spectrum = np.maximum(descending(weights @ m.covariance @ weights.T), 0.0)
    loss = getattr(land, "loss", None)
    # a scale-free landscape has no unit, and no complete collapse to tell from rounding
    unit = 0.0 if land.scale_free or loss is None else loss.embedding_unit
    tolerance = RANK_TOLERANCE * max(float(spectrum[0]), unit)
    rank = int(np.count_nonzero(spectrum > tolerance))
    return _Counted(weights, value, spectrum, tolerance, rank, attained, settled, outcome)


def _causes(land: Any, m: Moments, found: _Counted, restarts: int, rng: np.random.Generator) -> Any:
    """Count modes as theory 5 does, each count the rank of a minimum of its own."""
    k, d, rank, g = land.shape[0], m.dim, found.rank, land.weight_decay
    number = np.arange(1, d + 1)
    lost = Cause.COMPETITION if land.scale_free else Cause.AUGMENTATION
    causes = np.array([lost] * d, dtype=object)  # np.full would make it a str
    if rank < m.rank and land._remake is not None:
        wide = min(m.rank, d)

        def count(weight_decay: float) -> int:
            again: Landscape = land._remake(wide, weight_decay)
            return _rank_of(again, m, restarts, rng)

        # with room for every mode, without the decay and with it
        undecayed = count(0.0) if g > 0.0 and not land.scale_free else None
        roomy = count(g) if rank == k else rank
        causes[number <= (roomy if undecayed is None else undecayed)] = Cause.DECAY
        causes[number <= roomy] = Cause.CAPACITY
    causes[number > m.rank] = Cause.NO_VARIATION
    causes[number <= rank] = Cause.LEARNED
    return causes


def _rank_of(land: Any, m: Moments, restarts: int, rng: np.random.Generator) -> int:
    from pyssl.spectral import SpectralLandscape

    if isinstance(land, SpectralLandscape):
        return land.minimum().rank
    return _lowest(land, m, restarts, rng).rank


def canonical_modes(m: Moments) -> tuple[Array, Array]:
    """Return v_j (d, d) with A v = rho Sigma v, v'Sigma v = 1, and rho, descending.

    Directions without variation come last, of length 0.
    """
    rho, vectors = diagonalise(m.cross_covariance, m._metric.whitener)
    full, alignment = np.zeros((m.dim, m.dim)), np.zeros(m.dim)
    full[:, : m.rank], alignment[: m.rank] = vectors[:, ::-1], rho[::-1]
    return full, alignment


def _notes(land: Any, m: Moments, found: _Counted) -> tuple[str, ...]:
    notes = [
        f"rank by counting eigenvalues of W Sigma W' above {RANK_TOLERANCE:g} of the largest"
        + (f": {found.margin()}" if found.margin() else "")
    ]
    if not found.settled:
        notes.append(f"the minimisation did not converge ({found.outcome}): read with care")
    if land.scale_free and land.weight_decay > 0.0:
        notes.append(
            "the landscape does not depend on the length of W, and weight decay only shrinks it: no"
            " minimiser exists; directions are those without decay"
        )
    if m.n_samples is not None:
        notes.append(
            f"moments from {m.n_samples} pairs: alignments carry noise of up to"
            f" sqrt(2d/n) = {math.sqrt(2.0 * m.dim / m.n_samples):.2g}"
        )
    return tuple(notes)
