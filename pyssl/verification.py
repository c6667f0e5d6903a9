"""Does training end where theory says? Both on a user's own views, side by side."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

from pyssl import _checks
from pyssl._numerical_classification import RANK_TOLERANCE, canonical_modes
from pyssl._pencil import Array, descending, readonly
from pyssl.landscape import Landscape
from pyssl.loss import Loss
from pyssl.measures import effective_rank
from pyssl.moments import Moments
from pyssl.solvers import minimize
from pyssl.spectral import SpectralLandscape

__all__ = ["Verification", "verify"]

_ROWS_PRINTED = 24
# Differences count beyond this many standard errors of the noise seen between both halves.
_SIGMAS = 3.0
# Training starts here, in units of where the loss bends: small, as theory 2.7 has it.
_START = 1e-3


@dataclass(frozen=True, eq=False, repr=False)
class Verification:
    """Theory beside training on the same views. Prints as a table.

    Attributes
    ----------
    loss : str
        The loss and its settings.
    level : str
        What theory stands for: ``"population"`` or ``"effective"``.
    n_samples, embedding_dim : int
    weight_decay : float
    theory_rank, trained_rank : int
        Modes learned: eigenvalues of W Sigma W' above 1e-6 of the largest.
    alignments : (d,) ndarray
        Of the modes, in theory's order.
    theory_spectrum, trained_spectrum : (d,) ndarray
        n_j = v_j'S W'W S v_j in theory's modes v_j; shares of their sum for scale-free losses.
    noise : (d,) ndarray
        Standard error of trained - theory, from training on both halves of the views; inf where
        tied modes leave open which of them are learned.
    beyond_noise : (d,) ndarray of bool
        Modes that differ by more than three of those.
    spectrum_error : float
        Largest |trained - theory| over the largest theory amplitude.
    subspace_angle : float
        Largest principal angle, in radians, between the learned subspaces; nan where nothing is
        learned or the ranks differ.
    theory_value, trained_value : float
        The loss at both minima, without the logarithm of the number of negatives.
    converged : bool
        Whether the training did.
    reasons : tuple of str
        Why theory and training may differ here, each with its size.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> rng = np.random.default_rng(0)
    >>> clean = rng.standard_normal((2000, 3)) * [1.5, 1.0, 0.5]
    >>> x, x_plus = clean + 0.5 * rng.standard_normal((2, 2000, 3))
    >>> check = pyssl.verify(pyssl.SpectralContrastive(), x, x_plus, embedding_dim=2)
    >>> check.theory_rank, check.trained_rank, check.agrees
    (2, 2, True)
    """

    loss: str
    level: str
    n_samples: int
    embedding_dim: int
    weight_decay: float
    theory_rank: int
    trained_rank: int
    alignments: Array
    theory_spectrum: Array
    trained_spectrum: Array
    noise: Array
    beyond_noise: npt.NDArray[np.bool_]
    spectrum_error: float
    subspace_angle: float
    theory_value: float
    trained_value: float
    converged: bool
    reasons: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether ranks are equal and no mode differs by more than noise."""
        return self.theory_rank == self.trained_rank and not bool(self.beyond_noise.any())

    def __str__(self) -> str:
        verdict = "agree" if self.agrees else "differ"
        lines = [
            self.loss,
            (
                f"theory ({self.level}) and training {verdict} on {self.n_samples} pairs;"
                f" embedding dim {self.embedding_dim}, weight decay {self.weight_decay:g}"
            ),
            (
                f"rank {self.theory_rank} and {self.trained_rank}; spectra within"
                f" {self.spectrum_error:.2g} of the largest amplitude,"
                f" {int(self.beyond_noise.sum())} mode(s) beyond noise"
            ),
            (
                f"value {self.theory_value:.6g} and {self.trained_value:.6g}; learned subspaces"
                f" {math.degrees(self.subspace_angle):.2g} degrees apart"
            ),
            "",
            f"  {'mode':>4}  {'alignment':>9}  {'theory':>10}  {'trained':>10}  {'noise':>8}",
        ]
        shown = min(len(self.noise), _ROWS_PRINTED)
        for j in range(shown):
            mark = "  *" if self.beyond_noise[j] else ""
            lines.append(
                f"  {j + 1:>4}  {self.alignments[j]:>9.3g}  {self.theory_spectrum[j]:>10.4g}"
                f"  {self.trained_spectrum[j]:>10.4g}  {self.noise[j]:>8.1e}{mark}"
            )
        if len(self.noise) > shown:
            lines.append(f"  ... and {len(self.noise) - shown} more")
        if self.reasons:
            lines += ["", *(f"note: {reason}" for reason in self.reasons)]
        return "\n".join(lines)

    __repr__ = __str__


def verify(
    loss: Loss,
    x: npt.ArrayLike,
    x_plus: npt.ArrayLike,
    *,
    embedding_dim: int,
    weight_decay: float = 0.0,
    restarts: int = 1,
    rng: np.random.Generator | int | None = None,
    callback: Callable[[Any], Any] | None = None,
) -> Verification:
    """Train the linear model on the views, and set the end beside what theory predicts.

    Parameters
    ----------
    loss : Loss
    x, x_plus : (n, d) array_like
        Row i of each is one view of sample i; n >= 4. They are centred first, by the mean of both.
    embedding_dim : int
        k >= 1.
    weight_decay : float, optional
        g >= 0.
    restarts : int, optional
        Small random starts of the training, of which the lowest end counts.
    rng : numpy.random.Generator or int, optional
        Of the starts; 0 by default.
    callback : callable, optional
        Progress, as for `minimize`.

    Returns
    -------
    Verification

    Raises
    ------
    ValueError
        For a wrong shape or value, or n < 4.
    TypeError
        For an argument of the wrong kind.
    NotImplementedError
        For a loss without a landscape in the moments.

    Notes
    -----
    Source: theory 3. Theory takes the moments of the same views, so that their noise is in both;
    what is left is the noise of higher moments, seen by training on both halves of the views too,
    and what theory leaves out: that there are finitely many negatives, that views need not be
    Gaussian (InfoNCE, NT-Xent), and corrections in 1/effective rank (NT-Xent).

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> rng = np.random.default_rng(0)
    >>> clean = rng.standard_normal((1000, 2)) * [1.5, 0.3]
    >>> x, x_plus = clean + 0.5 * rng.standard_normal((2, 1000, 2))
    >>> check = pyssl.verify(pyssl.InfoNCE(), x, x_plus, embedding_dim=2, weight_decay=1.0)
    >>> check.theory_rank, check.trained_rank
    (1, 1)
    """
    _checks.instance("loss", loss, Loss, "a loss such as pyssl.InfoNCE()")
    first, second = _checks.views(x, x_plus)
    if len(first) < 4:
        raise ValueError(f"x must have at least 4 rows, two in each half, got {len(first)}")
    k = _checks.integer("embedding_dim", embedding_dim, minimum=1)
    g = _checks.real("weight_decay", weight_decay, minimum=0.0)
    count = _checks.integer("restarts", restarts, minimum=1)
    generator = _checks.generator("rng", 0 if rng is None else rng)

    whole = _run(loss, first, second, k, g, count, generator, callback)
    halves = [
        _run(loss, first[part], second[part], k, g, count, generator, callback)
        for part in (slice(0, None, 2), slice(1, None, 2))
    ]
    covectors, alignments = _basis(whole.land, whole.moments)

    def spectrum(end: _End) -> Array:
        return _amplitudes(end.weights, covectors, loss.scale_free)

    theory, trained = spectrum(whole.predicted), spectrum(whole.trained)
    first_gap, second_gap = (spectrum(h.trained) - spectrum(h.predicted) for h in halves)
    # half the difference of two halves has the standard error of the whole; a single one is a poor
    # estimate, so none counts for less than all modes' together, in proportion to their amplitudes
    apart, scale = 0.5 * np.abs(first_gap - second_gap), np.maximum(theory, trained)
    known = scale > RANK_TOLERANCE * scale.max(initial=0.0)
    relative = apart[known] / scale[known]
    common = math.sqrt(float(np.mean(relative**2))) if known.any() else 0.0
    noise = np.maximum(apart, common * scale)
    if whole.degenerate:
        noise = np.full_like(noise, np.inf)
    top = max(float(theory.max(initial=0.0)), float(np.finfo(float).tiny))
    gap = np.abs(trained - theory)
    return Verification(
        loss=repr(loss),
        level=whole.level,
        n_samples=len(first),
        embedding_dim=k,
        weight_decay=g,
        theory_rank=whole.predicted.rank,
        trained_rank=whole.trained.rank,
        alignments=readonly(alignments),
        theory_spectrum=readonly(theory),
        trained_spectrum=readonly(trained),
        noise=readonly(noise),
        beyond_noise=readonly(gap > _SIGMAS * noise + RANK_TOLERANCE * top),
        spectrum_error=float(gap.max(initial=0.0)) / top,
        subspace_angle=_angle(whole),
        theory_value=whole.predicted.value,
        trained_value=whole.trained.value,
        converged=whole.converged and all(half.converged for half in halves),
        reasons=_reasons(loss, whole, first, theory),
    )


# ---- one training --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Run:
    """Theory and training on one set of views."""

    moments: Moments
    land: Any  # theory's landscape
    level: str
    predicted: _End
    degenerate: bool  # whether theory leaves open which modes are learned
    trained: _End
    converged: bool


@dataclass(frozen=True, eq=False)
class _End:
    """A minimum."""

    weights: Array  # (k, d)
    value: float
    rank: int


def _run(
    loss: Loss,
    x: npt.NDArray[Any],
    x_plus: npt.NDArray[Any],
    k: int,
    g: float,
    restarts: int,
    rng: np.random.Generator,
    callback: Callable[[Any], Any] | None,
) -> _Run:
    mean = 0.5 * (x.mean(axis=0, dtype=np.float64) + x_plus.mean(axis=0, dtype=np.float64))
    x, x_plus = (np.asarray(side - mean, dtype=np.float64) for side in (x, x_plus))
    moments = Moments.from_views(x, x_plus).centered()
    level, land = loss.sharpest(moments, k, g)
    unit = 0.0 if loss.scale_free else loss.embedding_unit

    def end(weights: Array, value: float) -> _End:
        spectrum = np.maximum(descending(weights @ moments.covariance @ weights.T), 0.0)
        floor = RANK_TOLERANCE * max(float(spectrum[0]), unit)
        return _End(weights, value, int(np.count_nonzero(spectrum > floor)))

    if hasattr(land, "minimum"):
        predicted = land.minimum()
        if not np.isfinite(predicted.weights).all():
            raise ValueError(
                f"{loss!r} has no minimiser on these views: modes that the augmentation leaves"
                f" unchanged grow without bound; weight_decay must be positive, got {g:g}"
            )
    else:
        predicted = minimize(land, restarts=restarts, rng=rng)

    variance = max(float(np.trace(moments.covariance)), float(np.finfo(float).tiny))
    size = _START * math.sqrt(loss.embedding_unit / variance)
    batch = loss.empirical(x, x_plus, k, g)
    results = [
        minimize(batch, size * rng.standard_normal(batch.shape), rng=rng, callback=callback)
        for _ in range(restarts)
    ]
    best = min(results, key=lambda result: float(result.value))
    return _Run(
        moments,
        land,
        level,
        end(predicted.weights, float(predicted.value)),
        getattr(predicted, "degenerate", False),
        end(best.weights, float(best.value) - loss.log_candidates(len(x))),
        bool(best.converged),
    )


# ---- side by side --------------------------------------------------------------------------------


def _basis(land: Landscape, moments: Moments) -> tuple[Array, Array]:
    """Return the columns S v_j (d, d) of theory's modes, and their alignments."""
    if isinstance(land, SpectralLandscape):
        return land._modes.covectors, land.alignments()
    vectors, alignments = canonical_modes(moments)
    return moments.covariance @ vectors, alignments


def _amplitudes(weights: Array, covectors: Array, shares: bool) -> Array:
    coordinates = weights @ covectors
    amplitudes = np.einsum("ij,ij->j", coordinates, coordinates)
    total = float(amplitudes.sum())
    if shares and total > 0.0:
        amplitudes /= total
    return np.asarray(amplitudes)


def _angle(run: _Run) -> float:
    """Return the largest principal angle between the learned subspaces, as the views vary."""
    rank = run.predicted.rank
    if rank == 0 or rank != run.trained.rank:
        return math.nan
    metric = run.moments._metric
    root = metric.basis[:, : metric.rank] * np.sqrt(metric.spectrum[: metric.rank])
    spans = [
        np.linalg.svd(end.weights @ root, full_matrices=False)[2][:rank].T
        for end in (run.predicted, run.trained)
    ]
    return float(scipy.linalg.subspace_angles(*spans).max())


def _reasons(loss: Loss, run: _Run, x: npt.NDArray[Any], theory: Array) -> tuple[str, ...]:
    reasons = []
    if not run.converged:
        reasons.append("the training did not converge")
    n = len(x)
    if run.degenerate:
        reasons.append("modes tie at the capacity: which of them are learned is arbitrary")
    if loss.log_candidates(n) > 0.0:
        reasons.append(
            f"theory has infinitely many negatives, the batch {n - 1} a sample: a relative change"
            f" of order 1/n = {1.0 / n:.1e}"
        )
    if loss.needs_gaussian_views:
        excess, error = _excess_kurtosis(x, run.moments)
        if abs(excess) > _SIGMAS * error:
            reasons.append(
                f"theory takes views to be Gaussian; theirs have fourth moments {excess:+.1%} away"
                f" from that ({error:.1%} would be noise)"
            )
    if loss.scale_free:
        spread = effective_rank(theory) if theory.any() else math.nan
        reasons.append(
            f"theory is to leading order in 1/effective rank; the effective rank is {spread:.3g}"
        )
    if run.level == "effective":
        reasons.append("theory is the fourth-order expansion, not the exact expectation")
    return tuple(reasons)


def _excess_kurtosis(x: npt.NDArray[Any], moments: Moments) -> tuple[float, float]:
    """Return Mardia's kurtosis of one view relative to a Gaussian's, less 1, and its error."""
    whitened = (x - x.mean(axis=0)) @ moments._metric.whitener
    p = whitened.shape[1]
    if p == 0:
        return 0.0, math.inf
    gaussian = p * (p + 2)
    fourth = float(np.mean(np.einsum("ij,ij->i", whitened, whitened) ** 2))
    return fourth / gaussian - 1.0, math.sqrt(8.0 * gaussian / len(x)) / gaussian
