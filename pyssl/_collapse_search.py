"""The search behind `helpful_collapse`: subsets of modes, and settings that leave them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pyssl._pencil import Array, quadratic_forms
from pyssl._ridge import Features, embedded, tuned
from pyssl.loss import Loss
from pyssl.moments import Moments
from pyssl.spectral import SpectralLandscape

__all__ = ["CollapseSetting", "Search"]

Masks = npt.NDArray[np.bool_]
Interval = tuple[float, float]

# Up to so many modes all subsets are tried.
_MOST_ENUMERATED = 10
# A smaller gain is rounding: then more modes are kept.
_GAIN = 1e-9
# Modes that are tried first.
_FRONT = 8
# Settings between two thresholds, how far they stay from both, and how often the best is refined.
_STEPS, _MARGIN, _ROUNDS = 4, 1.0 / 64.0, 4
# Thresholds that differ by less, relative to the largest, differ by rounding.
_TIED = 1e-12
# How far beyond the last threshold a strength is looked for.
_REACH = 4.0


@dataclass(frozen=True, eq=False, repr=False)
class CollapseSetting:
    """A weight decay or augmentation strength, what it keeps, and the error downstream there.

    Attributes
    ----------
    kept : tuple of int
        The modes that are learned, as they are numbered without the setting, ascending.
    interval : (float, float)
        Thresholds between which so many modes are learned.
    value : float
        The setting between them with the least error.
    risk : float
        The expected test error of the minimum there, with its ridge tuned.
    ridge : float
    overlap : float
        Share of the learned subspace that the kept modes span: 1 unless modes turn with the
        setting; nan where none is kept.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(3), np.diag([0.9, 0.5, 0.1]))
    >>> found = pyssl.helpful_collapse(moments, [1.0, 0.0, 0.0], 20, noise=1.0)
    >>> found.weight_decay.kept, found.weight_decay.interval
    ((0,), (2.0, 3.6))
    """

    kept: tuple[int, ...]
    interval: tuple[float, float]
    value: float
    risk: float
    ridge: float
    overlap: float

    def __repr__(self) -> str:
        low, high = self.interval
        return (
            f"CollapseSetting(kept={self.kept}, interval=({low:.4g}, {high:.4g}),"
            f" value={self.value:.4g}, risk={self.risk:.4g}, ridge={self.ridge:.4g},"
            f" overlap={self.overlap:.4g})"
        )


@dataclass(frozen=True, eq=False)
class Search:
    """A representation without weight decay, and what its modes are for.

    Attributes
    ----------
    loss, moments : what it is trained with.
    embedding_dim : k.
    base : the landscape without weight decay.
    root : (d, r) a factor of the covariance at evaluation.
    target : (r,) root'beta.
    n_samples, noise : of the regression.
    """

    loss: Loss
    moments: Moments
    embedding_dim: int
    base: SpectralLandscape
    root: Array
    target: Array
    n_samples: int
    noise: float

    @cached_property
    def vectors(self) -> Array:
        """The modes v_j as columns (d, d); of tied ones those that a weight decay takes singly."""
        vectors = self.base.vectors.copy()
        rank = self.base.minimum().rank
        for group in self.base._modes.ties():
            learned = slice(group.start, min(group.stop, rank))
            for part in (learned, slice(max(group.start, rank), group.stop)):
                tied = vectors[:, part]
                if tied.shape[1] > 1:
                    vectors[:, part] = tied @ np.linalg.eigh(tied.T @ tied)[1]
        return vectors

    @cached_property
    def weights(self) -> Array:
        """Of the minimum without weight decay, a row for each mode that it learns (r, d)."""
        minimum = self.base.minimum()
        scale = np.sqrt(minimum.amplitudes[: minimum.rank])
        return np.asarray((self.vectors[:, : minimum.rank] * scale).T)

    def risks(self, weights: Array) -> tuple[Array, Array]:
        """Return the error with the best ridge, and that ridge, of a batch (N, k, d)."""
        eps = float(np.finfo(np.float64).eps)
        features = Features.of(embedded(weights, self.root, eps), self.target, eps)
        best = tuned(features, np.array(float(self.n_samples)), np.array(self.noise))
        with np.errstate(over="ignore"):
            return best.risk, best.ridge * features.unit * features.unit

    # -- subsets -----------------------------------------------------------------------------------

    def best_subset(self, candidates: Iterable[tuple[int, ...]]) -> tuple[tuple[int, ...], bool]:
        """Return the modes to keep, and whether all subsets were tried."""
        count = len(self.weights)
        if count <= _MOST_ENUMERATED:
            masks = (np.arange(1 << count)[:, None] >> np.arange(count)) & 1 == 1
            return _named(self._lowest(masks)[0]), True
        everything = np.ones(count, dtype=bool)
        known = np.stack([everything, *(_mask(kept, count) for kept in candidates)])
        starts = self._lowest(known)[0], everything, ~everything
        ends = [self._descended(start) for start in starts]
        return _named(self._lowest(np.stack(ends))[0]), False

    def _lowest(self, masks: Masks) -> tuple[Masks, float]:
        """Return the mask of least error; of those within rounding of it the one that keeps most.

        Then the one that keeps the first modes.
        """
        risk = self.risks(masks[:, :, None] * self.weights)[0]
        near = np.flatnonzero(risk <= risk.min() * (1.0 + _GAIN))
        best = max(near, key=lambda row: (masks[row].sum(), masks[row].tolist()))
        return masks[best], float(risk[best])

    def _descended(self, mask: Masks) -> Masks:
        """Drop or take back one mode at a time, as long as that lowers the error.

        Those that promised most when they were last tried come first, the others only where none of
        them helps.
        """
        count, weights = len(mask), self.weights
        risk = self._lowest(mask[None])[1]
        order, front = np.arange(count), count
        promise = np.zeros(count)
        while True:
            for part in (order[:front], order[front:]):
                if not len(part):
                    continue
                flipped = mask ^ np.eye(count, dtype=bool)[part]
                promise[part] = self.risks(flipped[:, :, None] * weights)[0]
                best = part[np.argmin(promise[part])]
                if promise[best] < risk * (1.0 - _GAIN):
                    break
            else:
                return mask
            mask, risk = mask.copy(), float(promise[best])
            mask[best], promise[best] = not mask[best], np.inf
            order, front = np.argsort(promise, kind="stable"), _FRONT

    # -- settings ----------------------------------------------------------------------------------

    def weight_decays(self) -> list[CollapseSetting]:
        """Return the best weight decay for every set of modes that some weight decay leaves."""
        critical = 2.0 * self.base._signal_spectrum
        return self._left(critical[critical > 2.0 * self.base._rank_tolerance], self.with_decay)

    def strengths(self) -> list[CollapseSetting]:
        """Return the same for the strength of the augmentation; nothing where it takes no mode."""
        from pyssl.augment._critical import of_pencil  # built on landscapes, and not always needed

        m = self.moments
        a, c = m.cross_covariance, m.augmentation_covariance
        clean = Moments._trusted(a, a, np.zeros_like(c), m.mean, None, m._eps)
        critical = of_pencil(self.loss, clean, m, 0.0)
        if critical is None or not ((critical > 0.0) & np.isfinite(critical)).any():
            return []
        return self._left(critical[critical > 0.0], self.with_strength, present=1.0)

    def with_decay(self, g: float) -> SpectralLandscape | None:
        """Return the landscape at a weight decay."""
        land = self.loss.sharpest(self.moments, self.embedding_dim, g)[1]
        assert isinstance(land, SpectralLandscape)
        return land

    def with_strength(self, s: float) -> SpectralLandscape | None:
        """Return the landscape at an augmentation strength; None where no views have its moments.

        A that was estimated from a sample is indefinite, and A + s C for a small s too.
        """
        try:
            m = self.moments if s == 1.0 else self.moments.with_augmentation_strength(s)
        except ValueError:
            return None
        land = self.loss.sharpest(m, self.embedding_dim)[1]
        assert isinstance(land, SpectralLandscape)
        return land

    def refined(
        self, setting: CollapseSetting, at: Callable[[float], SpectralLandscape | None]
    ) -> CollapseSetting:
        """Look closer around a setting for a lower error with the same modes."""
        low, high = setting.interval
        if setting.value <= low or not np.isfinite(high) or not setting.kept:
            return setting
        width = (high - low) / _STEPS
        for _ in range(_ROUNDS):
            values = setting.value + width * np.linspace(-1.0, 1.0, _STEPS + 1)
            margin = _MARGIN * (high - low)
            values = values[(values >= low + margin) & (values <= high - margin)]
            nearby = self._tried(at, [(float(value), setting.interval) for value in values])
            same = [setting, *(one for one in nearby if one.kept == setting.kept)]
            setting = min(same, key=lambda one: one.risk)
            width *= 2.0 / _STEPS
        return setting

    def _left(
        self,
        thresholds: Array,
        at: Callable[[float], SpectralLandscape | None],
        present: float = 0.0,
    ) -> list[CollapseSetting]:
        """Try settings between thresholds, descending, of which each takes one mode more."""
        count, k = len(thresholds), self.embedding_dim
        ends = np.concatenate([[np.inf], thresholds, [0.0]])
        pairs = [(float(ends[rank + 1]), float(ends[rank])) for rank in range(min(k, count) + 1)]
        if count > k:  # so many are learned here too: those that there is room for
            pairs.append((0.0, float(thresholds[k])))
        same = _TIED * float(thresholds.max(initial=0.0))
        places: list[tuple[float, Interval]] = []
        for low, high in pairs:
            here = low <= present < high
            if high <= low or (high - low <= same and not here):  # ties are one threshold
                continue
            top = high if np.isfinite(high) else max(_REACH * low, _REACH)
            values = low + (top - low) * np.linspace(_MARGIN, 1.0 - _MARGIN, _STEPS)
            if here:
                values = np.append(present, values)
            places += [(float(value), (low, high)) for value in values]
        return _merged(self._tried(at, places))

    def _tried(
        self,
        at: Callable[[float], SpectralLandscape | None],
        places: list[tuple[float, Interval]],
    ) -> list[CollapseSetting]:
        """Return a setting for every value, in its interval, that has a minimum."""
        weights, rows = [], []
        for value, interval in places:
            land = at(value)
            if land is None:
                continue
            minimum = land.minimum()
            if minimum.attained:
                weights.append(minimum.weights)
                rows.append((value, interval, *self._kept(land, minimum.rank)))
        if not rows:
            return []
        risks, ridges = self.risks(np.stack(weights))
        return [
            CollapseSetting(kept, interval, value, float(risk), float(ridge), overlap)
            for (value, interval, kept, overlap), risk, ridge in zip(
                rows, risks, ridges, strict=True
            )
        ]

    def _kept(self, land: SpectralLandscape, rank: int) -> tuple[tuple[int, ...], float]:
        """Return the modes of the base that make up the learned ones, and their share in them.

        In the coordinates V = W S^(1/2) of the base its modes are orthonormal, and their shares in
        the learned subspace add up to its dimension.
        """
        if rank == 0:
            return (), float("nan")
        modes, covectors = self._frame
        learned = land.vectors[:, :rank]
        cross = learned.T @ covectors
        gram = learned.T @ self.base.S @ learned
        shares = np.einsum("ij,ij->j", cross, np.linalg.solve(gram, cross))
        most = np.argsort(-shares, kind="stable")[:rank]
        return tuple(sorted(int(j) for j in modes[most])), float(shares[most].sum()) / rank

    @cached_property
    def _frame(self) -> tuple[npt.NDArray[np.int64], Array]:
        """Return the modes of the base that vary, and S v_j as columns."""
        inside = np.flatnonzero(self.base._modes.signature > 0.0)
        return inside, self.base.S @ self.vectors[:, inside]

    # -- what a table says of the modes ------------------------------------------------------------

    def critical_weight_decays(self) -> Array:
        """Return 2 v'B v/|v|^2 of the modes of the minimum (r,)."""
        vectors = self.vectors[:, : len(self.weights)]
        lengths = np.square(vectors).sum(axis=0)
        return np.asarray(2.0 * quadratic_forms(vectors, self.base.B) / lengths)

    def target_shares(self) -> Array:
        """Return the share of the target that each mode explains by itself (r,)."""
        features = self.weights @ self.root
        variances, total = np.square(features).sum(axis=1), float(self.target @ self.target)
        explained = np.square(features @ self.target)
        scale = variances * total
        shares = np.divide(explained, scale, out=np.zeros_like(scale), where=scale > 0.0)
        return np.asarray(shares)


def _mask(kept: Iterable[int], count: int) -> Masks:
    mask = np.zeros(count, dtype=bool)
    mask[[j for j in kept if j < count]] = True
    return mask


def _named(mask: Masks) -> tuple[int, ...]:
    return tuple(int(j) for j in np.flatnonzero(mask))


def _merged(found: list[CollapseSetting]) -> list[CollapseSetting]:
    """Return one setting for every set of modes: that of least error, over adjoining intervals."""
    groups: dict[tuple[int, ...], list[CollapseSetting]] = {}
    for one in found:
        groups.setdefault(one.kept, []).append(one)
    result = []
    for group in groups.values():
        best = min(group, key=lambda one: (one.risk, one.value))
        low, high = best.interval
        for other in group:
            if other.interval[1] == low or other.interval[0] == high:
                low, high = min(low, other.interval[0]), max(high, other.interval[1])
        result.append(replace(best, interval=(low, high)))
    return result
