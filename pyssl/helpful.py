"""Which modes to let collapse for the least error downstream, and the setting that does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._collapse_search import CollapseSetting, Search
from pyssl._pencil import Array, Metric, readonly
from pyssl._tables import ROWS_PRINTED, table_of_modes
from pyssl.downstream import evaluation, white
from pyssl.loss import Loss
from pyssl.losses import SpectralContrastive
from pyssl.moments import Moments
from pyssl.spectral import SpectralLandscape

__all__ = ["CollapseSetting", "HelpfulCollapse", "helpful_collapse"]

At = Callable[[float], SpectralLandscape | None]

# A smaller share of kept modes in what is learned is said.
_TURNED = 0.99


@dataclass(frozen=True, eq=False, repr=False)
class HelpfulCollapse:
    """Which modes to drop for the least expected test error, and how. Prints as a table.

    Modes are numbered from 0 as the landscape orders them, by descending eigenvalue; the table
    counts from 1. Ridges are tuned throughout.

    Attributes
    ----------
    kept, dropped : tuple of int
        Of the modes that the minimum without decay learns, those whose embedding has the least
        error, and the others.
    risk, ridge : float
        With the kept modes, at their amplitudes without decay.
    risk_of_everything, ridge_of_everything : float
        With all modes.
    exhaustive : bool
        Whether all subsets were tried; else the subset is the best found, see `helpful_collapse`.
    weight_decay, augmentation_strength : CollapseSetting or None
        What drops just the dropped modes; None where no such setting does.
    best_weight_decay, best_augmentation_strength : CollapseSetting or None
        The settings of least error among those looked at, four between any two thresholds and then
        some around the best, whatever they keep; None for a strength that takes no mode.
    weight_decays : tuple of CollapseSetting
        The best for every number of modes that some weight decay leaves, from none on.
    weights : (r, d) ndarray
        Of the r modes that the minimum without decay learns, a row each: ``weights[list(kept)]`` is
        the embedding to use. Of tied modes rows of the landscape's minimum may be others.
    eigenvalues, alignments, amplitudes : (r,) ndarray
        Of these modes.
    critical_weight_decays : (r,) ndarray
        2 v'B v/|v|^2: the weight decay from which on each is lost, where it does not turn before.
    target_shares : (r,) ndarray
        The share of the target's variance that each mode explains by itself.
    loss : str
        The loss and its settings.
    n_samples : int
    noise : float
    notes : tuple of str

    Notes
    -----
    Source: theory 8.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(3), np.diag([0.9, 0.5, 0.1]))
    >>> found = pyssl.helpful_collapse(moments, [1.0, 0.0, 0.0], 20, noise=1.0)
    >>> found.kept, found.dropped, found.helps
    ((0,), (1, 2), True)
    """

    kept: tuple[int, ...]
    dropped: tuple[int, ...]
    risk: float
    ridge: float
    risk_of_everything: float
    ridge_of_everything: float
    exhaustive: bool
    weight_decay: CollapseSetting | None
    best_weight_decay: CollapseSetting
    augmentation_strength: CollapseSetting | None
    best_augmentation_strength: CollapseSetting | None
    weight_decays: tuple[CollapseSetting, ...]
    weights: Array
    eigenvalues: Array
    alignments: Array
    amplitudes: Array
    critical_weight_decays: Array
    target_shares: Array
    loss: str
    n_samples: int
    noise: float
    notes: tuple[str, ...]

    @property
    def helps(self) -> bool:
        """Whether dropping modes lowers the error, by the formula."""
        return bool(self.dropped)

    def __str__(self) -> str:
        count = len(self.amplitudes)
        if self.dropped:
            verdict = (
                f"dropping {len(self.dropped)} of {count} modes lowers the test error from"
                f" {self.risk_of_everything:.4g} to {self.risk:.4g}"
            )
        else:
            verdict = f"no collapse helps: test error {self.risk:.4g} with all {count} modes"
        lines = [
            self.loss,
            f"{verdict} ({self.n_samples} samples, noise {self.noise:g}, ridge {self.ridge:.4g})",
        ]
        named = [("weight decay", self.weight_decay, self.best_weight_decay)]
        if self.best_augmentation_strength is not None:
            strengths = self.augmentation_strength, self.best_augmentation_strength
            named.append(("augmentation strength", *strengths))
        for name, just, best in named:
            lines += _described(name, just, best, all_kept=not self.dropped)
        lines += ["", *self._table()]
        if self.notes:
            lines += ["", *(f"note: {note}" for note in self.notes)]
        return "\n".join(lines)

    __repr__ = __str__

    def _table(self) -> Iterator[str]:
        columns = {
            "eigenvalue": self.eigenvalues,
            "alignment": self.alignments,
            "amplitude": self.amplitudes,
            "critical decay": self.critical_weight_decays,
            "target share": self.target_shares,
        }
        count = len(self.amplitudes)
        verdict = "verdict", lambda row: "keep" if row in self.kept else "drop"
        yield from table_of_modes(columns, verdict)
        rest = count - ROWS_PRINTED
        if rest > 0:
            kept = sum(index >= ROWS_PRINTED for index in self.kept)
            yield f"  ... and {rest} more: {kept} keep, {rest - kept} drop"


def helpful_collapse(
    moments: Moments,
    target: npt.ArrayLike,
    n_samples: int,
    *,
    loss: Loss | None = None,
    embedding_dim: int | None = None,
    noise: float = 0.0,
    covariance: npt.ArrayLike | None = None,
) -> HelpfulCollapse:
    """Say which modes to let collapse for the least error of ridge regression on the embedding.

    Parameters
    ----------
    moments : Moments
        Of the views that the representation is trained on.
    target : (d,) array_like
        beta, of the labels y = beta'x + noise.
    n_samples : int
        n >= 1, the labelled samples.
    loss : Loss, optional
        With a spectral landscape; `SpectralContrastive()` by default.
    embedding_dim : int, optional
        k >= 1; d by default, room for every mode.
    noise : float, optional
        s^2 >= 0, the variance of the label noise.
    covariance : (d, d) array_like, optional
        Of what is embedded at evaluation. By default A, what the views share: with zero-mean noise
        for an augmentation the covariance of the clean data, else that of the mean view of a
        sample. An A estimated from a sample has negative eigenvalues, which are left out.

    Returns
    -------
    HelpfulCollapse

    Raises
    ------
    ValueError
        For a wrong shape or value, or where the loss has no minimiser without weight decay.
    TypeError
        For an argument of the wrong kind.
    NotImplementedError
        For a loss without a spectral landscape on these moments.

    See Also
    --------
    downstream_risk : The error of any embedding.

    Notes
    -----
    Source: theory 8. The embedding is that of the minimum without weight decay, and of every subset
    of its modes at their amplitudes there; each has its ridge tuned. All subsets are tried for up
    to 10 modes. Beyond, those that a weight decay or an augmentation strength leaves, and from the
    best of them, from all modes and from none a descent that drops or takes back one mode at a
    time. To keep everything is always among them.

    A weight decay takes modes in the order of 2 v'B v/|v|^2 (theory 5), and shrinks those it
    leaves; augmentation A + s C, where the loss's thresholds depend on C, in an order of its own.
    Where B and S do not commute modes turn with the setting, and what it keeps are those that
    overlap most with what is learned. Of tied eigenvalues the modes are those that a weight decay
    takes one by one.

    Everything is in expectation over training sets, for features that look Gaussian, without an
    intercept; `moments` with a mean give the weights that the loss has for it, and the features are
    centred.

    There is no general sign: where many weak modes act like a ridge, or the target lies in them,
    nothing should be dropped.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(3), np.diag([0.9, 0.5, 0.1]))
    >>> print(pyssl.helpful_collapse(moments, [1.0, 0.0, 0.0], 20, noise=1.0))
    SpectralContrastive(clip=None, negatives='offdiagonal')
    dropping 2 of 3 modes lowers the test error from 1.081 to 1.05 (20 samples, noise 1, ridge 0.9)
    weight decay: from 2 to 3.6 drops just those; test error 1.05 at 2.025
    <BLANKLINE>
      mode  eigenvalue  alignment  amplitude  critical decay  target share  verdict
         1         1.8        0.9        0.9             3.6             1  keep
         2           1        0.5        0.5               2             0  drop
         3         0.2        0.1        0.1             0.4             0  drop
    """
    _checks.instance("moments", moments, Moments, "pyssl.Moments")
    n = _checks.integer("n_samples", n_samples, minimum=1)
    chosen: Loss = SpectralContrastive() if loss is None else loss
    _checks.instance("loss", chosen, Loss, "a loss")
    d = moments.dim
    k = d if embedding_dim is None else _checks.integer("embedding_dim", embedding_dim, minimum=1)
    s2 = _checks.real("noise", noise, minimum=0.0)
    if covariance is None:
        # of whose eigenvalues only the positive ones count
        root, beta = white(Metric.of(moments.cross_covariance, moments._eps), target)
    else:
        root, beta = evaluation(covariance, target, d)
    base = chosen.sharpest(moments, k)[1]
    if not isinstance(base, SpectralLandscape):
        raise NotImplementedError(
            f"helpful_collapse: the landscape of {chosen!r} on these moments is not spectral, and"
            " its minimum has no modes to drop; compare downstream_risk at several settings"
        )
    minimum = base.minimum()
    if not minimum.attained:
        raise ValueError(
            "loss must have a minimum without weight decay on these moments:"
            f" {int(np.isinf(minimum.amplitudes).sum())} mode(s) of {chosen!r} diverge"
        )
    return _solved(Search(chosen, moments, k, base, root, beta, n, s2))


def _solved(search: Search) -> HelpfulCollapse:
    decays, strengths = search.weight_decays(), search.strengths()
    kept, exhaustive = search.best_subset([one.kept for one in (*decays, *strengths)])
    weights = search.weights
    count = len(weights)
    pair = np.zeros((2, *weights.shape))
    pair[0], pair[1, list(kept)] = weights, weights[list(kept)]
    risks, ridges = search.risks(pair)

    decay, lowest = _chosen(search, decays, kept, search.with_decay)
    strength, lowest_strength = _chosen(search, strengths, kept, search.with_strength)
    assert lowest is not None  # no decay at all is among them
    by_count = {}
    for one in sorted(decays, key=lambda one: -one.risk):
        by_count[len(one.kept)] = one
    return HelpfulCollapse(
        kept=kept,
        dropped=tuple(j for j in range(count) if j not in kept),
        risk=float(risks[1]),
        ridge=float(ridges[1]),
        risk_of_everything=float(risks[0]),
        ridge_of_everything=float(ridges[0]),
        exhaustive=exhaustive,
        weight_decay=decay,
        best_weight_decay=lowest,
        augmentation_strength=strength,
        best_augmentation_strength=lowest_strength,
        weight_decays=tuple(by_count[size] for size in sorted(by_count)),
        weights=readonly(weights.copy()),
        eigenvalues=readonly(search.base.eigenvalues[:count].copy()),
        alignments=readonly(search.base.alignments()[:count].copy()),
        amplitudes=readonly(search.base.minimum().amplitudes[:count].copy()),
        critical_weight_decays=readonly(search.critical_weight_decays()),
        target_shares=readonly(search.target_shares()),
        loss=repr(search.loss),
        n_samples=search.n_samples,
        noise=search.noise,
        notes=_notes(search, exhaustive),
    )


def _chosen(
    search: Search, settings: list[CollapseSetting], kept: tuple[int, ...], at: At
) -> tuple[CollapseSetting | None, CollapseSetting | None]:
    """Return the setting that leaves just the kept modes, and the one of least error."""
    if not settings:
        return None, None
    lowest = min(settings, key=lambda one: (one.risk, one.value))
    just = next((one for one in settings if one.kept == kept), None)
    best = search.refined(lowest, at)
    if just is None:
        return None, best
    just = best if just is lowest else search.refined(just, at)
    return just, min(best, just, key=lambda one: one.risk)


def _notes(search: Search, exhaustive: bool) -> tuple[str, ...]:
    notes = []
    m = search.moments
    if not exhaustive:
        notes.append(
            "too many modes to try all subsets: the best of what settings leave, and of a descent"
            " that drops or takes back one mode at a time"
        )
    if search.base.minimum().degenerate:
        notes.append(
            "the last mode learned ties with the first one lost to capacity: which of them is"
            " learned is arbitrary"
        )
    if m.n_samples is not None:
        notes.append(
            f"moments from {m.n_samples} pairs: modes, and the error that is predicted with them,"
            f" carry noise of order sqrt(d/n) = {np.sqrt(m.dim / m.n_samples):.2g}"
        )
    return tuple(notes)


def _described(
    name: str, just: CollapseSetting | None, best: CollapseSetting | None, *, all_kept: bool
) -> Iterator[str]:
    """Say which setting drops just the modes, and which one has the least error."""
    if just is None:
        yield f"{name}: no single one {'keeps all' if all_kept else 'drops just those'}"
    else:
        low, high = just.interval
        does = "keeps all" if all_kept else "drops just those"
        turned = "" if not just.overlap < _TURNED else f", which have turned ({just.overlap:.0%})"
        yield (
            f"{name}: from {low:.4g} to {high:.4g} {does}{turned}; test error {just.risk:.4g} at"
            f" {just.value:.4g}"
        )
    if best is not None and (just is None or best.value != just.value):
        yield (
            f"{name}: least test error {best.risk:.4g} at {best.value:.4g},"
            f" {len(best.kept)} modes learned"
        )
