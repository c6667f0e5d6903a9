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
from pyssl._numerical_classification import RANK_TOLERANCE, canonical_modes, rank_floor
from pyssl._pencil import Array, embedded_spectrum, readonly
from pyssl._training import train
from pyssl.landscape import Landscape
from pyssl.loss import Loss
from pyssl.measures import effective_rank
from pyssl.moments import Moments
from pyssl.solvers import MinimizeState, minimize
from pyssl.spectral import SpectralLandscape
from pyssl.testing import gaussian_views

__all__ = ["Verification", "verify"]

_ROWS_PRINTED = 24
# Differences count beyond this many standard errors.
_SIGMAS = 3.0
# Views drawn anew for a loss that goes over all pairs: a fraction of theirs, but not fewer than
# this, as far as there are.
_SHARE, _FEWEST = 4, 1000
# Anchors of which the negatives that count are counted.
_ANCHORS = 256


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
        Standard error of trained - theory where theory holds, from views drawn anew; inf where tied
        modes leave open which of them are learned, nan without redraws.
    beyond_noise : (d,) ndarray of bool
        Modes that differ by more than three of those and by more than d/n of the largest amplitude,
        to which order the noise of moments, sqrt(d/n), bends what theory says.
    spectrum_error : float
        Largest |trained - theory| over the largest theory amplitude; nan where theory learns none.
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
                f"rank {self.theory_rank} and {self.trained_rank}; spectra differ by up to"
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
    redraws: int = 6,
    rng: np.random.Generator | int | None = None,
    callback: Callable[[MinimizeState], Any] | None = None,
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
        Small random starts of the training, of which the lowest end counts; and of the search for
        theory's minimum, where it has no closed form.
    redraws : int, optional
        Trainings on views drawn anew, by which the noise is known: 0, or at least 2.
    rng : numpy.random.Generator or int, optional
        Of the starts and of the views drawn anew; 0 by default.
    callback : callable, optional
        Called with a `MinimizeState` at every iteration of the training on these views; a true
        result stops that run.

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
    Source: theory 3. Theory takes the moments of the same views, so that their noise is in both.
    What is left is the noise of what else enters the loss, and what theory leaves out: that there
    are finitely many negatives, that views need not be Gaussian (InfoNCE, NT-Xent), and corrections
    in 1/effective rank (NT-Xent).

    The noise is the spread of trained - theory over views drawn anew as theory supposes them, so
    that views of another kind do not hide behind noise of their own. Where theory needs Gaussian
    views, these are Gaussian, with the same moments (and fewer, with the noise scaled by
    sqrt(n)). Elsewhere theory holds for any views and only knows both views of a pair together:
    there they are swapped, each pair with probability 1/2.

    Training is L-BFGS in whitened coordinates from a small random start, to a gradient of 1e-8 of
    its size at embeddings that vary by one unit.

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
        raise ValueError(f"x must have at least 4 rows, got {len(first)}")
    k = _checks.integer("embedding_dim", embedding_dim, minimum=1)
    g = _checks.real("weight_decay", weight_decay, minimum=0.0)
    runs = _checks.integer("restarts", restarts, minimum=1)
    generator = _checks.generator("rng", 0 if rng is None else rng)

    count = _checks.integer("redraws", redraws, minimum=0)
    if count == 1:
        raise ValueError("redraws must be 0 or at least 2, got 1")

    first, second = _centered(first, second)
    whole = _run(loss, first, second, k, g, runs, generator, callback)
    theory, trained = _spectra(whole, loss)
    noise = np.full_like(theory, np.nan if count == 0 else np.inf)
    if count and not whole.degenerate:
        noise = _noise(loss, whole, first, second, count, generator)
    top = float(theory.max(initial=0.0)) if whole.predicted.rank else math.nan
    gap = np.abs(trained - theory)
    # where theory learns nothing the loss itself says what is little
    little = (RANK_TOLERANCE + len(theory) / len(first)) * (
        top if whole.predicted.rank else 1.0 if loss.scale_free else loss.embedding_unit
    )
    return Verification(
        loss=repr(loss),
        level=whole.level,
        n_samples=len(first),
        embedding_dim=k,
        weight_decay=g,
        theory_rank=whole.predicted.rank,
        trained_rank=whole.trained.rank,
        alignments=readonly(_basis(whole.land, whole.moments)[1]),
        theory_spectrum=readonly(theory),
        trained_spectrum=readonly(trained),
        noise=readonly(noise),
        beyond_noise=readonly(gap > _SIGMAS * noise + little),
        spectrum_error=float(gap.max(initial=0.0)) / top,
        subspace_angle=_angle(whole),
        theory_value=whole.predicted.value,
        trained_value=whole.trained.value,
        converged=whole.converged,
        reasons=_reasons(loss, whole, first, second, theory),
    )


# ---- one training --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Run:
    """Theory and training on one set of views."""

    moments: Moments
    land: Any  # theory's landscape
    level: str
    weight_decay: float
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


def _centered(x: npt.NDArray[Any], x_plus: npt.NDArray[Any]) -> tuple[Array, Array]:
    mean = 0.5 * (x.mean(axis=0, dtype=np.float64) + x_plus.mean(axis=0, dtype=np.float64))
    return np.asarray(x - mean, dtype=np.float64), np.asarray(x_plus - mean, dtype=np.float64)


def _run(
    loss: Loss,
    x: Array,
    x_plus: Array,
    k: int,
    g: float,
    restarts: int,
    rng: np.random.Generator,
    callback: Callable[[MinimizeState], Any] | None = None,
    start: Array | None = None,
) -> _Run:
    """Predict and train; from `start` where it is given, else from small random W."""
    moments = Moments.from_views(x, x_plus).centered()
    level, land = loss.sharpest(moments, k, g)
    unit = 0.0 if loss.scale_free else loss.embedding_unit

    def end(weights: Array, value: float) -> _End:
        if loss.units_scale_free:
            variance = np.einsum("ij,ij->i", weights @ moments.covariance, weights)
            weights = weights / np.sqrt(np.where(variance > 0.0, variance, 1.0))[:, None]
        spectrum = embedded_spectrum(weights, moments.covariance)
        rank = int(np.count_nonzero(spectrum > rank_floor(spectrum, unit)))
        return _End(weights, value, rank)

    if hasattr(land, "minimum"):
        predicted = land.minimum()
        if not np.isfinite(predicted.weights).all():
            raise ValueError(
                f"{loss!r} has no minimiser on these views: modes that the augmentation leaves"
                f" unchanged grow without bound; weight_decay must be positive, got {g:g}"
            )
    else:
        predicted = minimize(land, restarts=restarts, rng=rng)

    # decay only shrinks a scale-free W: its directions are trained without
    batch = loss.empirical(x, x_plus, k, 0.0 if loss.scale_free else g)
    results = [
        train(
            batch,
            moments,
            loss.embedding_unit,
            rng,
            start=start if run == 0 else None,
            run=run,
            callback=callback,
        )
        for run in range(restarts)
    ]
    best = min(results, key=lambda result: result.value)
    return _Run(
        moments,
        land,
        level,
        g,
        end(predicted.weights, float(predicted.value)),
        getattr(predicted, "degenerate", False),
        end(best.weights, best.value - loss.log_candidates(len(x))),
        best.converged,
    )


def _noise(
    loss: Loss, whole: _Run, x: Array, x_plus: Array, count: int, rng: np.random.Generator
) -> Array:
    """Return the standard error of trained - theory by mode, from views drawn anew."""
    n = drawn = len(x)
    if loss.needs_gaussian_views:
        drawn = max(n // _SHARE, min(n, _FEWEST))
    ends = []
    for _ in range(count):
        if loss.needs_gaussian_views:
            views = _centered(*gaussian_views(whole.moments, drawn, rng))
        else:
            swapped = rng.random((n, 1)) < 0.5
            views = np.where(swapped, x_plus, x), np.where(swapped, x, x_plus)
        k, g = whole.land.shape[0], whole.weight_decay
        ends.append(_spectra(_run(loss, *views, k, g, 1, rng, start=whole.trained.weights), loss))
    theory, trained = (np.array(side) for side in zip(*ends, strict=True))
    spread = math.sqrt(drawn / n) * (trained - theory).std(axis=0, ddof=1)
    # of a single mode that is a poor estimate: what all modes show counts as one more redraw
    return np.asarray(np.sqrt(((count - 1) * spread**2 + np.mean(spread**2)) / count))


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


def _spectra(run: _Run, loss: Loss) -> tuple[Array, Array]:
    """Return what theory and training learn of theory's modes, (d,) each."""
    covectors, _ = _basis(run.land, run.moments)
    theory, trained = (
        _amplitudes(end.weights, covectors, loss.scale_free) for end in (run.predicted, run.trained)
    )
    return theory, trained


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


def _reasons(
    loss: Loss, run: _Run, x: npt.NDArray[Any], x_plus: npt.NDArray[Any], theory: Array
) -> tuple[str, ...]:
    reasons = []
    if not run.converged:
        reasons.append("the training did not converge")
    n = len(x)
    if run.degenerate:
        reasons.append("modes tie at the capacity: which of them are learned is arbitrary")
    if loss.log_candidates(n) > 0.0:
        counting = _negatives_that_count(
            loss, x @ run.trained.weights.T, x_plus @ run.trained.weights.T
        )
        reasons.append(
            f"theory has infinitely many negatives; of the {n - 1} that a sample has here, softmax"
            f" weighs as many as {counting:.3g} equal ones: a relative change of order"
            f" {1.0 / counting:.1e}"
        )
    if loss.needs_gaussian_views:
        excess, error = _excess_kurtosis(x, run.moments)
        if abs(excess) > _SIGMAS * error:
            reasons.append(
                f"theory takes views to be Gaussian; theirs have fourth moments {excess:+.1%} away"
                f" from that ({error:.1%} would be noise)"
            )
    if loss.scale_free and loss.needs_gaussian_views:
        spread = effective_rank(theory) if theory.any() else math.nan
        reasons.append(
            "theory has the negatives' second cumulant alone, which leaves corrections in"
            f" 1/effective rank; the effective rank is {spread:.3g}"
        )
    elif run.level == "effective":
        reasons.append("theory is the fourth-order expansion, not the exact expectation")
    return tuple(reasons)


def _negatives_that_count(loss: Any, z: Array, z_plus: Array) -> float:
    """Return 1 over the mean of sum w^2, w the softmax weights of an anchor's negatives."""
    if loss.scale_free:
        lengths = (np.linalg.norm(side, axis=1, keepdims=True) for side in (z, z_plus))
        z, z_plus = (
            side / np.where(length > 0.0, length, 1.0)
            for side, length in zip((z, z_plus), lengths, strict=True)
        )
    anchors = z[:: max(1, len(z) // _ANCHORS)]
    logits = anchors @ z_plus.T
    if getattr(loss, "similarity", "dot") == "sqeuclidean":
        logits -= 0.5 * np.sum(z_plus**2, axis=1)
    logits /= loss.temperature
    np.fill_diagonal(logits[:, :: max(1, len(z) // _ANCHORS)], -np.inf)  # the positives
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return 1.0 / float(np.mean(np.sum(weights**2, axis=1)))


def _excess_kurtosis(x: npt.NDArray[Any], moments: Moments) -> tuple[float, float]:
    """Return Mardia's kurtosis of one view relative to a Gaussian's, less 1, and its error."""
    whitened = (x - x.mean(axis=0)) @ moments._metric.whitener
    p = whitened.shape[1]
    if p == 0:
        return 0.0, math.inf
    gaussian = p * (p + 2)
    fourth = float(np.mean(np.einsum("ij,ij->i", whitened, whitened) ** 2))
    return fourth / gaussian - 1.0, math.sqrt(8.0 * gaussian / len(x)) / gaussian
