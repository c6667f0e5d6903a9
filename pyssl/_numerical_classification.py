"""Classification where no closed form exists: by minimising, and counting at the minimum."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl._checks import ThresholdWarning
from pyssl._pencil import Array, diagonalise, embedded_spectrum, readonly
from pyssl.collapse import Cause, Collapse, CollapseReport, ModeTable
from pyssl.deep import DeepLandscape, origin_note
from pyssl.landscape import Landscape
from pyssl.measures import effective_rank, participation_ratio, stable_rank
from pyssl.moments import Moments
from pyssl.spectral import SpectralLandscape
from pyssl.stationary import Minimum

# Eigenvalues of W Sigma W' above this share of the largest count as learned (theory 5).
RANK_TOLERANCE = 1e-6
# A converged minimum leaves what is lost far below the tolerance and what is learned far above it:
# an eigenvalue within this factor of it, on either side, could go either way.
_CLEAR = 10.0


@dataclass(frozen=True)
class _Counted:
    """A minimum, and the modes that count as learned there."""

    minimum: Minimum
    spectrum: Array  # (k,) of W Sigma W', descending
    tolerance: float  # absolute; 0 where the rank is not counted but known
    ending: str  # how the minimisation ended that did not converge

    @property
    def rank(self) -> int:
        return self.minimum.rank

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
    g, data = land.weight_decay, _Data.of(land, m)
    found = _lowest(land, data, restarts, rng)
    capacity = min(land.shape[0], data.rank)
    if found.rank == 0:
        kind = Collapse.COMPLETE
    else:
        kind = Collapse.NONE if found.rank >= capacity else Collapse.DIMENSIONAL
    if found.near:
        warnings.warn(
            f"{found.near} eigenvalue(s) of W Sigma W' lie within a factor {_CLEAR:g} of the"
            f" tolerance {RANK_TOLERANCE:g} that decides the rank: it could be another than"
            f" {found.rank}",
            ThresholdWarning,
            stacklevel=3,
        )
    # where W has no end, neither has its spectrum
    ended = found.minimum.attained or land.scale_free
    unknown = readonly(np.full(len(data.alignment), np.nan))
    critical = getattr(land, "critical_weight_decay", None)
    loss = getattr(land, "loss", None)
    # what does not count has no dimension: a rank of 0 is none, not that of its rounding
    counted = np.where(found.spectrum > found.tolerance, found.spectrum, 0.0)
    return CollapseReport(
        kind=kind,
        rank=found.rank,
        capacity=capacity,
        effective_rank=effective_rank(counted) if ended else math.nan,
        participation_ratio=participation_ratio(counted) if ended else math.nan,
        stable_rank=stable_rank(counted) if ended else math.nan,
        modes=ModeTable(
            eigenvalue=unknown,
            alignment=readonly(data.alignment),
            amplitude=found.minimum.amplitudes,
            signal=unknown,
            augmentation=unknown,
            decay=unknown,
            cause=readonly(_causes(land, data, found, restarts, rng)),
        ),
        critical_weight_decay=unknown if critical is None else readonly(np.array(critical)),
        minimum=found.minimum,
        loss="" if loss is None else repr(loss),
        weight_decay=g,
        n_samples=m.n_samples,
        within_noise=0,
        notes=_notes(land, m, found),
    )


@dataclass(frozen=True, eq=False)
class _Data:
    """What the embeddings are made of: views x, or (x, 1) where a constant can be learned."""

    covariance: Array  # (d, d), or the uncentred one of (x, 1), (d + 1, d + 1)
    vectors: Array  # v_j as columns
    alignment: Array
    rank: int

    @classmethod
    def of(cls, land: Any, m: Moments) -> _Data:
        vectors, alignment = canonical_modes(m)
        loss = getattr(land, "loss", None)
        if loss is None or not (land.bias and loss.keeps_constant):
            return cls(m.covariance, vectors, alignment, m.rank)
        # theory 4: the constant is a mode of alignment 1, the others are those of centred views
        mu, d = m.mean, m.dim
        constant = np.append(np.zeros(d), 1.0)
        return cls(
            np.block([[m.second_moment, mu[:, None]], [mu[None, :], np.ones((1, 1))]]),
            np.column_stack([constant, np.vstack([vectors, -mu @ vectors])]),
            np.append(1.0, alignment),
            m.rank + 1,
        )


def _lowest(land: Any, data: _Data, restarts: int, rng: np.random.Generator) -> _Counted:
    """Return the global minimum, as far as it can be known."""
    columns = len(data.covariance)

    def embed(weights: Array) -> Array:
        inner = np.asarray(weights, dtype=np.float64)[:, :columns]
        return embedded_spectrum(inner, data.covariance)

    if hasattr(land, "minimum"):
        known: Minimum = land.minimum()  # which may have to be searched for
        return _Counted(known, embed(known.weights), 0.0, "")
    from pyssl.solvers import Outcome, minimize  # this module is imported by all that classify

    result = minimize(land, restarts=restarts, rng=rng)
    spectrum = embed(result.weights)
    endless = result.outcome in (Outcome.UNBOUNDED, Outcome.NO_MINIMISER)
    loss = getattr(land, "loss", None)
    # a scale-free landscape has no unit, and no complete collapse to tell from rounding; beside a
    # mode that diverges every other would be small
    unit = 0.0 if land.scale_free or loss is None else loss.embedding_unit
    tolerance = RANK_TOLERANCE * unit if endless else rank_floor(spectrum, unit)
    embedded = result.weights[:, :columns] @ (data.covariance @ data.vectors)
    minimum = Minimum(
        weights=result.weights,
        value=result.value,
        amplitudes=readonly(np.einsum("ij,ij->j", embedded, embedded)),
        rank=int(np.count_nonzero(spectrum > tolerance)),
        attained=result.attained,
        bounded=result.outcome is not Outcome.UNBOUNDED,
        degenerate=False,
    )
    return _Counted(minimum, spectrum, tolerance, "" if result.converged else result.message)


def _causes(
    land: Any, data: _Data, found: _Counted, restarts: int, rng: np.random.Generator
) -> npt.NDArray[np.object_]:
    """Count modes as theory 5 does, each count the rank of a minimum of its own."""
    if hasattr(land, "causes"):
        return np.asarray(land.causes())
    k, rank, g = land.shape[0], found.rank, land.weight_decay
    number = np.arange(1, len(data.alignment) + 1)
    lost = Cause.COMPETITION if land.scale_free else Cause.AUGMENTATION
    causes = np.array([lost] * len(number), dtype=object)  # np.full would make it a str
    if rank < data.rank and land._remake is not None:

        def count(weight_decay: float) -> int:
            again: Landscape = land._remake(data.rank, weight_decay)
            if isinstance(again, SpectralLandscape):
                return again.minimum().rank
            return _lowest(again, data, restarts, rng).rank

        # with room for every mode, without the decay and with it; where the landscape changes with
        # k, that may learn what one of this size does not, though it has room
        undecayed = count(0.0) if g > 0.0 and not land.scale_free else None
        roomy = max(rank, count(g)) if k < data.rank else rank
        causes[number <= (roomy if undecayed is None else undecayed)] = Cause.DECAY
        causes[number <= roomy] = Cause.CAPACITY
    causes[number > data.rank] = Cause.NO_VARIATION
    causes[number <= rank] = Cause.LEARNED
    return causes


def rank_floor(spectrum: Array, unit: float) -> float:
    """Return the least eigenvalue of W Sigma W' that counts as learned (theory 5).

    `unit` is that of the loss, and 0 for a scale-free one.
    """
    return RANK_TOLERANCE * max(float(spectrum[0]), unit)


def canonical_modes(m: Moments) -> tuple[Array, Array]:
    """Return v_j (d, d) with A v = rho Sigma v, v'Sigma v = 1, and rho, descending.

    Directions without variation come last, of length 0.
    """
    rho, vectors = diagonalise(m.cross_covariance, m._metric.whitener)
    full, alignment = np.zeros((m.dim, m.dim)), np.zeros(m.dim)
    full[:, : m.rank], alignment[: m.rank] = vectors[:, ::-1], rho[::-1]
    return full, alignment


def _notes(land: Any, m: Moments, found: _Counted) -> tuple[str, ...]:
    notes = []
    if found.tolerance > 0.0:
        notes.append(
            f"rank by counting eigenvalues of W Sigma W' above {RANK_TOLERANCE:g} of the largest,"
            f" or of the loss's unit where that is larger: {found.margin()}"
        )
    if found.ending:
        notes.append(f"the minimisation found no minimum: {found.ending}; read with care")
    if isinstance(land, DeepLandscape) and land.weight_decay > 0.0:
        notes.append(origin_note(land))
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
