"""Minima, saddles and their Hessian spectra: the closed form of spectral landscapes (theory 2)."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import scipy.linalg

from pyssl._pencil import Array, Metric, descending, readonly
from pyssl.potentials import Potential

__all__ = ["Minimum", "Modes", "Origin", "StationaryPoint", "enumerate_active_sets"]

# Pencil eigenvalues closer than this many d eps of the largest are one tied eigenvalue.
_TIE_ULPS = 16.0


@dataclass(frozen=True, eq=False)
class Modes:
    """The solved pencil B v = lambda S v: d modes, descending in lambda.

    Attributes
    ----------
    eigenvalues : (d,) lambda; 0 or -inf for the modes on the null space of S.
    deficits : (d,) r'(inf) - lambda.
    vectors : (d, d) columns v_j with v'Sv = signature, of unit length where that is 0.
    covectors : (d, d) columns S v_j.
    signature : (d,) 1 on the range of S, 0 on its null space, -1 where S is negative (the
        cross-covariance of a sample under Barlow Twins).
    curvature : (d,) v_j'B v_j: the eigenvalue where the signature is 1.
    positive : n_+(B), from its inertia.
    learnable : the first so many modes have lambda > 0.
    unattained, beyond : the first so many modes have lambda >= r'(inf), and > r'(inf).
    bounded : whether the landscape is bounded below on the null space of S.
    bias_curvature : h, where W has a bias that is no part of the pencil: along the mean m of the
        embeddings the Hessian at a stationary point is 2 h(n) in active modes, 0 in free rows.

    With such a bias, vectors and covectors are (d + 1, d).
    """

    eigenvalues: Array
    deficits: Array
    vectors: Array
    covectors: Array
    signature: Array
    curvature: Array
    positive: int
    learnable: int
    unattained: int
    beyond: int
    bounded: bool
    bias_curvature: Callable[[Array], Array] | None = None

    @classmethod
    def assemble(
        cls,
        eigenvalues: Array,
        deficits: Array,
        vectors: Array,
        null_vectors: Array,
        null_curvature: Array,
        *,
        scale: Array,
        positive: int,
        null_signature: Array | None = None,
        null_eigenvalue: float | None = None,
        unattained: int = 0,
        beyond: int = 0,
        bounded: bool = True,
    ) -> Modes:
        """Sort the modes on the positive range of S (m, descending) and off it into one list.

        The inertia of B decides which eigenvalues are positive; those of the pencil are divided by
        what may be a tiny s_j and only follow (theory 2.2).
        """
        learnable = min(positive, len(eigenvalues))
        if not bounded:  # some of B's positive eigenvalues then belong to the null space of S
            learnable = min(learnable, int(np.count_nonzero(eigenvalues > 0.0)))
        tiny = float(np.finfo(float).tiny)
        settled = eigenvalues.copy()
        settled[:learnable] = np.maximum(settled[:learnable], tiny)
        settled[learnable:] = np.minimum(settled[learnable:], 0.0)
        nulls = len(null_curvature)
        off_range = np.where(null_curvature < 0.0, -np.inf, 0.0)
        if null_eigenvalue is not None:
            off_range = np.full(nulls, null_eigenvalue)
        everything = np.concatenate([settled, off_range])
        order = np.argsort(-everything, kind="stable")
        every_vector = np.concatenate([vectors, null_vectors], axis=1)[:, order]
        # a sign that does not depend on the eigensolver: the largest entry is positive
        largest = np.abs(every_vector).argmax(axis=0)
        every_vector *= np.where(every_vector[largest, np.arange(len(order))] < 0.0, -1.0, 1.0)
        off_signature = np.zeros(nulls) if null_signature is None else null_signature
        return cls(
            eigenvalues=readonly(everything[order]),
            deficits=np.concatenate([deficits, np.full(nulls, np.inf)])[order],
            vectors=readonly(every_vector),
            covectors=scale @ every_vector,
            signature=np.concatenate([np.ones(len(settled)), off_signature])[order],
            curvature=np.concatenate([settled, null_curvature])[order],
            positive=positive,
            learnable=learnable,
            unattained=min(unattained, learnable),
            beyond=min(beyond, learnable),
            bounded=bounded,
        )

    def amplitudes(self, potential: Potential) -> Array:
        """Return n_j with r'(n_j) = lambda_j (d,): inf where there is none, 0 where lambda <= 0."""
        result = np.zeros(len(self.eigenvalues))
        result[: self.unattained] = np.inf
        attained = slice(self.unattained, self.learnable)
        result[attained] = potential.amplitude(self.eigenvalues[attained], self.deficits[attained])
        return result

    def gains(self, potential: Potential, amplitudes: Array) -> Array:
        """Return r(n_j) - lambda_j n_j (d,), what activating mode j adds to the value."""
        finite = np.where(np.isinf(amplitudes), 0.0, amplitudes)
        attained = slice(self.unattained, self.learnable)
        result = np.zeros(len(finite))
        result[attained] = potential.gain(
            finite[attained], self.eigenvalues[attained], self.deficits[attained]
        )
        result[: self.unattained] = potential.asymptote
        result[: self.beyond] = -np.inf
        return result

    def ties(self) -> list[range]:
        """Return the learnable modes that have an amplitude, grouped where lambda is tied."""
        first, last = self.unattained, self.learnable
        if first == last:
            return []
        # where r'(inf) is finite the eigenvalues were found as its differences from the deficits
        limit = float(self.eigenvalues[0] + self.deficits[0])
        top = limit if np.isfinite(limit) else float(self.eigenvalues[0])
        gap = _TIE_ULPS * len(self.eigenvalues) * float(np.finfo(float).eps) * top
        cuts = 1 + first + np.flatnonzero(-np.diff(self.eigenvalues[first:last]) > gap)
        bounds = [first, *(int(cut) for cut in cuts), last]
        return [range(a, b) for a, b in itertools.pairwise(bounds)]

    def weights(self, active: tuple[int, ...], amplitudes: Array, k: int) -> Array:
        """Return W (k, d) with one row for each active mode, zero rows below."""
        result = np.zeros((k, len(self.vectors)))
        chosen = list(active)
        result[: len(chosen)] = (self.vectors[:, chosen] * np.sqrt(amplitudes[chosen])).T
        return result


@dataclass(frozen=True, eq=False, repr=False)
class Minimum:
    """The global minimum of a landscape with modes.

    Attributes
    ----------
    weights : (k, d) ndarray
        A minimiser (every W' = O W with orthogonal O is another); nan where a mode diverges.
    value : float
        The infimum; -inf for an unbounded landscape.
    amplitudes : (d,) ndarray
        n_j, the eigenvalues of W S W' along the modes; 0 where not learned, inf where the mode
        diverges.
    rank : int
        How many modes are active.
    attained : bool
        Whether a minimiser exists: not where a mode diverges, nor with weight decay on a landscape
        that is scale-free without it, where the weights name the best directions.
    bounded : bool
        Whether the landscape is bounded below on the null space of S.
    degenerate : bool
        Whether the last mode learned ties with the first one lost to capacity, so that which of
        the two is learned is arbitrary.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(2), np.diag([1.0, 0.5]))
    >>> pyssl.InfoNCE().population(moments, embedding_dim=2).minimum()
    Minimum(value=-inf, rank=2, attained=False: 1 of 2 modes diverges)
    """

    weights: Array
    value: float
    amplitudes: Array
    rank: int
    attained: bool
    bounded: bool
    degenerate: bool

    @classmethod
    def of(cls, modes: Modes, potential: Potential, k: int, constant: float) -> Minimum:
        """Activate the min(k, n_+) largest modes (theory 2.2)."""
        rank = min(k, modes.learnable)
        amplitudes = modes.amplitudes(potential)
        gains = modes.gains(potential, amplitudes)
        amplitudes[rank:] = 0.0
        attained = modes.bounded and not np.isinf(amplitudes).any()
        value = math.fsum(gains[:rank]) + constant if np.isfinite(gains[:rank]).all() else -np.inf
        if attained:
            weights = modes.weights(tuple(range(rank)), amplitudes, k)
        else:
            weights = np.full((k, len(modes.vectors)), np.nan)
        tied = any(k - 1 in group and k in group for group in modes.ties())
        return cls(
            weights=readonly(weights),
            value=value if modes.bounded else -np.inf,
            amplitudes=readonly(amplitudes),
            rank=rank,
            attained=attained,
            bounded=modes.bounded,
            degenerate=tied,
        )

    def __repr__(self) -> str:
        text = f"Minimum(value={self.value:.6g}, rank={self.rank}, attained={self.attained}"
        if not self.bounded:
            text += ": unbounded below on the null space of S"
        elif not self.attained and np.isfinite(self.amplitudes).all():
            text += ": smaller weights are always better"
        elif not self.attained:
            count = int(np.isinf(self.amplitudes).sum())
            text += f": {count} of {self.rank} modes diverge{'s' if count == 1 else ''}"
        return text + ")"


@dataclass(frozen=True, eq=False, repr=False)
class StationaryPoint:
    """A stationary point of a spectral landscape, named by its active modes.

    Attributes
    ----------
    active : tuple of int
        The active modes, ascending. For tied eigenvalues it stands for the whole orbit.
    value : float
    index : int
        Negative eigenvalues of the Hessian.
    amplitudes : (d,) ndarray

    Notes
    -----
    Source: theory 2.1 and 2.3.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> land = pyssl.SpectralLandscape(np.diag([2.0, 1.0]), np.eye(2), pyssl.Quartic(0.5), 1)
    >>> saddle = list(land.stationary_points())[1]
    >>> saddle
    StationaryPoint(active=(1,), value=-0.5, index=1)
    >>> saddle.hessian_spectrum()
    array([-2.,  4.])
    """

    _modes: Modes
    _potential: Potential
    _embedding_dim: int
    _constant: float
    active: tuple[int, ...]

    @cached_property
    def amplitudes(self) -> Array:
        """n_j (d,): zero outside the active set."""
        everything = self._modes.amplitudes(self._potential)
        result = np.zeros_like(everything)
        result[list(self.active)] = everything[list(self.active)]
        return readonly(result)

    @cached_property
    def value(self) -> float:
        """L at the point."""
        gains = self._modes.gains(self._potential, self._modes.amplitudes(self._potential))
        return math.fsum(gains[list(self.active)]) + self._constant

    @cached_property
    def index(self) -> int:
        """The number of negative eigenvalues of the Hessian (theory 2.3)."""
        modes, r = self._modes, len(self.active)
        # modes before i that are not active have a larger lambda: for tied ones the active set
        # holds the first of the group, so none of them counts
        crossing = sum(i - position for position, i in enumerate(self.active))
        return crossing + (self._embedding_dim - r) * (modes.positive - r)

    def weights(self) -> Array:
        """Return a W at the point, one row for each active mode.

        Returns
        -------
        (k, d) ndarray

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> land = pyssl.SpectralLandscape(np.diag([2.0, 1.0]), np.eye(2), pyssl.Quartic(0.5), 1)
        >>> abs(next(land.stationary_points()).weights())
        array([[1.41421356, 0.        ]])
        """
        return self._modes.weights(self.active, self.amplitudes, self._embedding_dim)

    def hessian_spectrum(self) -> Array:
        """Return the eigenvalues of the Hessian in V-coordinates, V = W S^(1/2).

        In W-coordinates the inertia is the same, the values are not (unless S = I). A bias enters
        by the mean of the embeddings, m = W mu + b.

        Returns
        -------
        (k*d,) ndarray
            Ascending; (k*(d + 1),) with a bias, which is k zeros where the loss does not see it.
            Directions in the null space of S are measured at unit length.

        Notes
        -----
        Source: the table in theory 2.3.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> land = pyssl.SpectralLandscape(np.diag([2.0, 1.0]), np.eye(2), pyssl.Quartic(0.5), 1)
        >>> next(land.stationary_points()).hessian_spectrum()
        array([2., 8.])
        """
        modes, k, r = self._modes, self._embedding_dim, len(self.active)
        chosen = np.zeros(len(modes.eigenvalues), dtype=bool)
        chosen[list(self.active)] = True
        lam, n = modes.eigenvalues[chosen], self.amplitudes[chosen]
        signature, curvature = modes.signature[~chosen], modes.curvature[~chosen]
        one, other = np.triu_indices(r, 1)
        quotient = self._potential.slope_quotient(n[one], n[other])
        parts = [
            2.0 * (lam[:, None] * signature - curvature).ravel(),
            np.repeat(-2.0 * curvature, k - r),
            np.zeros((k - r) * r + len(one)),
            2.0 * quotient * (n[one] + n[other]),
            4.0 * n * self._potential.curvature(n),
        ]
        if modes.bias_curvature is not None:
            parts += [2.0 * modes.bias_curvature(n), np.zeros(k - r)]
        return np.sort(np.concatenate(parts))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(active={self.active}, value={self.value:.6g},"
            f" index={self.index})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Origin(StationaryPoint):
    """The stationary point at W = 0: its geometry decides on complete collapse (theory 2.4).

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> land = pyssl.SpectralLandscape(-np.eye(2), np.eye(2), pyssl.Quartic(0.5), 3)
    >>> origin = land.origin()
    >>> origin.index, origin.fastest_escape is None
    (0, True)
    """

    signal: Array = field(kw_only=True)
    metric: Metric = field(kw_only=True)

    def hessian_spectrum(self) -> Array:
        """Return the eigenvalues of the Hessian in V-coordinates, V = W S^(1/2).

        Returns
        -------
        (k*d,) ndarray
            Ascending. Directions in the null space of S are measured at unit length.

        Notes
        -----
        Source: theory 2.4. Also for a landscape that is unbounded on the null space of S.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> land = pyssl.SpectralLandscape(np.eye(2), np.diag([4.0, 0.0]), pyssl.Quartic(1.0), 1)
        >>> land.bounded, land.origin().hessian_spectrum()
        (False, array([-2. , -0.5]))
        """
        if self._modes.bounded:
            return super().hessian_spectrum()
        frame = np.hstack([self.metric.whitener, self.metric.null_basis])
        return np.repeat(-2.0 * descending(frame.T @ self.signal @ frame), self._embedding_dim)

    @cached_property
    def _top(self) -> tuple[float, Array]:
        last = len(self.signal) - 1
        values, vectors = scipy.linalg.eigh(self.signal, subset_by_index=[last, last])
        vector = vectors[:, 0]
        sign = -1.0 if vector[np.abs(vector).argmax()] < 0.0 else 1.0
        return float(values[0]), readonly(sign * vector)

    @property
    def fastest_escape(self) -> Array | None:
        """The unit direction (d,) of fastest escape, B's top eigenvector; None where none is."""
        return self._top[1] if self._modes.positive else None

    @property
    def escape_rate(self) -> float:
        """Twice the top eigenvalue of B: |W| grows as exp(rate t) under gradient flow; or 0."""
        return 2.0 * self._top[0] if self._modes.positive else 0.0


def enumerate_active_sets(
    modes: Modes, potential: Potential, most: int
) -> Iterator[tuple[int, ...]]:
    """Yield the active sets of at most `most` modes by ascending value (theory 2.1).

    Best first over a heap: each set leads to those in which one mode gives way to the next, which
    is never better, and every set of r modes is reached from the r best. Tied modes are filled
    from the front of their group, so that an orbit is met once.
    """
    groups = modes.ties() if modes.bounded else []
    gains = modes.gains(potential, modes.amplitudes(potential))
    group_of = {index: position for position, group in enumerate(groups) for index in group}
    members = [index for group in groups for index in group]

    def value(active: tuple[int, ...]) -> float:
        # one gain for a whole group, and correctly rounded: the order of the sums is exact
        return math.fsum(gains[groups[group_of[index]][0]] for index in active)

    starts = [tuple(members[:size]) for size in range(min(most, len(members)) + 1)]
    heap = [(value(active), -len(active), active) for active in starts]
    heapq.heapify(heap)
    seen = set(starts)
    while heap:
        _, _, active = heapq.heappop(heap)
        yield active
        chosen = set(active)
        for position, index in enumerate(active):
            here = group_of[index]
            last_of_group = position + 1 == len(active) or group_of[active[position + 1]] != here
            if not last_of_group or here + 1 == len(groups):
                continue
            vacant = next((j for j in groups[here + 1] if j not in chosen), None)
            if vacant is None:
                continue
            successor = tuple(sorted((chosen - {index}) | {vacant}))
            if successor not in seen:
                seen.add(successor)
                heapq.heappush(heap, (value(successor), -len(successor), successor))
