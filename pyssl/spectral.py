"""The spectral landscape and its closed form: one theorem for all losses (theory 2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._pencil import (
    Array,
    Metric,
    descending,
    diagonalise,
    quadratic_forms,
    rank_tolerance,
    readonly,
)
from pyssl._products import product
from pyssl.landscape import ModeLandscape, SpectralEvaluation
from pyssl.potentials import Potential
from pyssl.stationary import Minimum, Modes, Origin, StationaryPoint, enumerate_active_sets

__all__ = ["SpectralLandscape"]

Floats = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class ModeSplit:
    """What a loss knows of its pencil beyond B and S: how each eigenvalue splits (theory 5)."""

    name: str  # of the loss, for messages and tables
    signal: float  # lambda of a mode that augmentation and decay leave alone
    sensitivity: float  # of lambda to the alignment
    augmentation: Array | None  # (d, d), v'(.)v is what the augmentation takes; None: nothing
    covariance: Array  # (d, d), of the representation that S refers to
    cross_covariance: Array  # (d, d)
    rank: int  # the modes that have variation
    cancels: bool  # whether augmentation can cancel a signal to zero, beyond A's own rank
    n_samples: int | None
    noise_metric: Metric | None = None  # of the covariance, where that is not S
    centered: Array | None = None  # (d, d), the covariance of the views, where that is another


@dataclass(frozen=True, eq=False)
class ExactDeficit:
    """slope_limit S - B at g = 0, from a source that keeps its digits (theory 2.2)."""

    matrix: Array  # (d, d)
    nullity: int  # of the matrix on the range of S


class SpectralLandscape(SpectralEvaluation):
    """The landscape L(W) = -Tr[W B W'] + Tr r(W S W') + constant, solved in closed form.

    Every stationary point is known: with B v = lambda S v, an active set of modes with
    0 < lambda_j < r'(inf), each at the amplitude r'(n_j) = lambda_j.

    Parameters
    ----------
    B : (d, d) array_like
        Symmetric, of any signature.
    S : (d, d) array_like
        Symmetric, positive semidefinite.
    potential : Potential
        r, applied to the eigenvalues of W S W'.
    embedding_dim : int
        k >= 1, the number of rows of W.
    weight_decay : float, optional
        g >= 0 adds (g/2)||W||^2, that is, subtracts (g/2) I from B.
    constant : float, optional
        Added to every value.

    Attributes
    ----------
    B, S : (d, d) ndarray
        B with the weight decay already subtracted.
    potential : Potential
    weight_decay, constant : float
    embedding_dim, dim : int
    shape : tuple of int
        (k, d).

    Raises
    ------
    ValueError
        For a wrong shape, NaN or infinity, an asymmetric matrix, an S that is not positive
        semidefinite, ``embedding_dim < 1`` or a negative weight decay.
    TypeError
        For arguments of the wrong kind.

    Notes
    -----
    Source: theory 2. Numerical ranks: S has rank #{s_j > d eps s_1}; a mode is learnable when B has
    an eigenvalue above d eps (||B at g = 0|| + g/2) for it, counted from the inertia of B alone.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> land = pyssl.SpectralLandscape(np.diag([2.0, 1.0, -1.0]), np.eye(3), pyssl.Quartic(0.5),
    ...                                embedding_dim=2)
    >>> land.eigenvalues
    array([ 2.,  1., -1.])
    >>> minimum = land.minimum()
    >>> minimum.rank, float(minimum.value), minimum.amplitudes
    (2, -2.5, array([2., 1., 0.]))
    >>> [point.active for point in land.stationary_points()]
    [(0, 1), (0,), (1,), ()]
    """

    def __init__(
        self,
        B: npt.ArrayLike,
        S: npt.ArrayLike,
        potential: Potential,
        embedding_dim: int,
        *,
        weight_decay: float = 0.0,
        constant: float = 0.0,
    ) -> None:
        signal, eps_b = _checks.symmetric("B", B)
        scale, eps_s = _checks.symmetric("S", S, dim=len(signal), bounded_below=True)
        eps = max(eps_b, eps_s)
        _checks.semidefinite("S", scale, _checks.rounding(scale, eps))
        _checks.instance("potential", potential, Potential, "a pyssl.Potential")
        self._setup(
            signal,
            scale,
            potential,
            _checks.integer("embedding_dim", embedding_dim, minimum=1),
            _checks.real("weight_decay", weight_decay, minimum=0.0),
            _checks.real("constant", constant),
            eps,
        )

    def _setup(
        self,
        signal: Array,
        scale: Array,
        potential: Potential,
        embedding_dim: int,
        weight_decay: float,
        constant: float,
        eps: float,
        *,
        metric: Metric | None = None,
        deficit: ExactDeficit | None = None,
        split: ModeSplit | None = None,
    ) -> None:
        """Take validated parts; `signal` is B at g = 0."""
        self._signal = readonly(signal)
        self.S = readonly(scale)
        self.potential = potential
        self.weight_decay = weight_decay
        self.constant = constant
        self.shape = (embedding_dim, len(scale))
        self._eps = eps
        self._deficit = deficit
        self._split = split
        if metric is not None:
            self.__dict__["_metric"] = metric

    @classmethod
    def _of(cls, *parts: Any, **options: Any) -> SpectralLandscape:
        self = object.__new__(cls)
        self._setup(*parts, **options)
        return self

    # -- parts -------------------------------------------------------------------------------------

    @property
    def embedding_dim(self) -> int:
        """k, the number of rows of W."""
        return self.shape[0]

    @property
    def dim(self) -> int:
        """d, the number of columns of W."""
        return self.shape[1]

    @cached_property
    def B(self) -> Array:
        """B with the weight decay subtracted, (d, d)."""
        if self.weight_decay == 0.0:
            return self._signal
        return readonly(self._signal - np.diag(0.5 * self.weight_decay * self._decayed))

    @property
    def _decayed(self) -> Array:
        """1 for the columns of W that decay, (d,)."""
        return np.ones(self.dim)

    def _without_bias(self) -> tuple[SpectralLandscape, Array | None]:
        """Return the landscape over W alone, and m (d,) of the best bias -W m; None without one."""
        return self, None

    @cached_property
    def _metric(self) -> Metric:
        return Metric.of(self.S, self._eps)

    @cached_property
    def _single(self) -> tuple[Floats, Floats]:
        return self.B.astype(np.float32), self.S.astype(np.float32)

    def _dense(self, dtype: Any) -> tuple[Floats, Floats]:
        return self._single if dtype == np.float32 else (self.B, self.S)

    def _times_signal(self, W: Floats) -> Floats:
        return product(W, self._dense(W.dtype)[0])

    def _times_scale(self, W: Floats) -> Floats:
        return product(W, self._dense(W.dtype)[1])

    # -- closed form -------------------------------------------------------------------------------

    @cached_property
    def _signal_spectrum(self) -> Array:
        """Eigenvalues of B at g = 0, (d,), descending."""
        return readonly(descending(self._signal))

    def _zero(self, weight_decay: float) -> float:
        """Return what counts as zero among the eigenvalues of B (theory 2.2)."""
        return rank_tolerance(self.dim, self._eps, self._terms + 0.5 * weight_decay)

    @cached_property
    def _terms(self) -> float:
        """The norm that the rounding of B is relative to: where A and C cancel, also that of C."""
        finite = self._signal_spectrum[np.isfinite(self._signal_spectrum)]
        norm, split = float(np.abs(finite).max(initial=0.0)), self._split
        if split is None or not split.cancels or split.augmentation is None:
            return norm
        return norm + float(np.linalg.norm(split.augmentation))

    @property
    def _tolerance(self) -> float:
        return self._zero(self.weight_decay)

    @property
    def _rank_tolerance(self) -> float:
        return self._zero(0.0)

    def _count_positive(self, weight_decay: float) -> int:
        """Return n_+(B) at another weight decay: the inertia, for which no pencil is solved."""
        above = self._signal_spectrum - 0.5 * weight_decay > self._zero(weight_decay)
        return int(np.count_nonzero(above))

    @cached_property
    def _modes(self) -> Modes:
        return self._solve()

    def _solve(self) -> Modes:
        """Solve the pencil (B, S) with S >= 0 (theory 2.5)."""
        metric, d = self._metric, self.dim
        whitener, null = metric.whitener, metric.null_basis
        bounded = True
        curvature = np.zeros(d - metric.rank)
        if self._split is not None:
            # no loss sees the directions in which views don't vary: there B is the decay, exactly
            curvature -= 0.5 * self.weight_decay
        elif metric.rank < d:
            curvature, rotation = np.linalg.eigh(null.T @ self.B @ null)
            null = null @ rotation
            curvature[np.abs(curvature) <= self._tolerance] = 0.0
            spectrum, basis = metric.spectrum[: metric.rank], metric.basis[:, : metric.rank]
            coupling = null.T @ self.B @ basis
            # of 64 tolerances only the larger one can tell an unbounded landscape from rounding,
            # which turns the null space towards a direction of variance s by about d eps s_1/s
            limit = 64.0 * self._tolerance
            turned = 64.0 * rank_tolerance(d, self._eps, 1.0) * spectrum.max(initial=0.0) / spectrum
            limits = limit + turned @ np.abs(basis.T @ self.B @ basis)
            flat = curvature >= 0.0
            bounded = not ((curvature > limit).any() or (np.abs(coupling[flat]) > limits).any())
            curvature = np.minimum(curvature, 0.0)
            steep = curvature < 0.0
            lift = null[:, steep] / -curvature[steep] @ coupling[steep]
            whitener = whitener + lift / np.sqrt(spectrum)
        slope_limit = self.potential.slope_limit
        if np.isinf(slope_limit):
            negated, vectors = diagonalise(-self.B, whitener)
            eigenvalues, deficits = -negated, np.full(metric.rank, np.inf)
            unattained = beyond = 0
        else:
            deficits, vectors, unattained, beyond = self._deficits(whitener)
            eigenvalues = slope_limit - deficits
        return Modes.assemble(
            eigenvalues,
            deficits,
            vectors,
            null,
            curvature,
            scale=self.S,
            positive=self._count_positive(self.weight_decay),
            unattained=unattained,
            beyond=beyond,
            bounded=bounded,
        )

    def _deficits(self, whitener: Array) -> tuple[Array, Array, int, int]:
        """Return r'(inf) - lambda_j, ascending, with vectors and how many are <= 0 and < 0."""
        exact, g = self._deficit, self.weight_decay
        limit = self.potential.slope_limit
        if exact is None:
            form = limit * self.S - self.B
            span = np.linalg.qr(whitener)[0]
            spectrum, turn = np.linalg.eigh(span.T @ form @ span)
            norm = limit * float(self._metric.spectrum[0]) + float(np.abs(self.B).max())
            tolerance = rank_tolerance(self.dim, self._eps, norm)
            deficits, vectors = diagonalise(form, whitener)
            beyond = int(np.count_nonzero(spectrum < -tolerance))
            # zero is no deficit of zero where the scale itself is hardly more than this rounding
            null = span @ turn[:, np.abs(spectrum) <= tolerance]
            scale = limit * np.linalg.eigvalsh(null.T @ self.S @ null)
            unattained = beyond + int(np.count_nonzero(scale > 64.0 * tolerance))
            least = tolerance  # v'(.)v/|v|^2 of the others, by the inertia
        else:
            form = exact.matrix + 0.5 * g * np.eye(self.dim)
            deficits, vectors = diagonalise(form, whitener)
            beyond, unattained = 0, exact.nullity if g == 0.0 else 0
            least = 0.5 * g
        if len(deficits):
            floor = max(least / float(self._metric.spectrum[0]), float(np.finfo(float).tiny))
            deficits[unattained:] = np.maximum(deficits[unattained:], floor)
        deficits[beyond:unattained] = 0.0
        return deficits, vectors, unattained, beyond

    @property
    def eigenvalues(self) -> Array:
        """The pencil's eigenvalues lambda (d,), descending.

        On the null space of S the pencil has none: the entry is 0 where B vanishes too and -inf
        where B is negative (theory 2.5).
        """
        return self._modes.eigenvalues

    @property
    def vectors(self) -> Array:
        """The modes v_j as columns (d, d), v'Sv = 1; of unit length on the null space of S.

        With a bias (d + 1, d), the last row what it is where the mode is active.
        """
        return self._modes.vectors

    @property
    def bounded(self) -> bool:
        """Whether the landscape is bounded below on the null space of S (theory 2.5)."""
        return self._modes.bounded

    def minimum(self) -> Minimum:
        """Return the global minimum.

        Returns
        -------
        Minimum
            The min(k, n_+(B)) largest positive modes. Where the landscape has no minimiser,
            ``attained`` is False, the amplitudes of the diverging modes are inf and the weights
            are nan.

        Notes
        -----
        Source: theory 2.2 and 2.5.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> land = pyssl.SpectralLandscape(np.diag([2.0, 1.0]), np.eye(2), pyssl.Quartic(0.5), 1)
        >>> minimum = land.minimum()
        >>> abs(minimum.weights), float(minimum.value)
        (array([[1.41421356, 0.        ]]), -2.0)
        """
        return Minimum.of(self._modes, self.potential, self.embedding_dim, self.constant)

    def stationary_points(self, max_rank: int | None = None) -> Iterator[StationaryPoint]:
        """Iterate over all stationary points, lowest value first.

        Up to the gauge W -> O W and rotations inside tied eigenvalues, which give one entry an
        orbit. Lazy: the first points of a landscape with 2^d of them cost nothing.

        Parameters
        ----------
        max_rank : int, optional
            Only points with at most this many active modes.

        Returns
        -------
        iterator of StationaryPoint
            Empty for a landscape that is unbounded on the null space of S, except for the origin.

        Raises
        ------
        ValueError
            For a negative `max_rank`.
        TypeError
            For a `max_rank` that is no integer.

        Notes
        -----
        Source: theory 2.1.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> land = pyssl.SpectralLandscape(np.diag([2.0, 1.0]), np.eye(2), pyssl.Quartic(0.5), 2)
        >>> [(point.active, point.index, float(point.value)) for point in land.stationary_points()]
        [((0, 1), 0, -2.5), ((0,), 1, -2.0), ((1,), 2, -0.5), ((), 4, 0.0)]
        """
        k = self.embedding_dim
        most = k if max_rank is None else min(k, _checks.integer("max_rank", max_rank, minimum=0))
        modes = self._modes
        if not modes.bounded:
            return iter([self.origin()])
        # not a generator function: a wrong max_rank is to raise here, not at the first point
        return (
            StationaryPoint(modes, self.potential, k, self.constant, active)
            for active in enumerate_active_sets(modes, self.potential, most)
        )

    def origin(self) -> Origin:
        """Return the stationary point at W = 0.

        Returns
        -------
        Origin
            With the index k n_+(B) and the direction of fastest escape.

        Notes
        -----
        Source: theory 2.4. The origin is the global minimum exactly when B <= 0: complete collapse.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> land = pyssl.SpectralLandscape(np.diag([2.0, -1.0]), np.eye(2), pyssl.Quartic(0.5), 3)
        >>> origin = land.origin()
        >>> origin.index, abs(origin.fastest_escape)
        (3, array([1., 0.]))
        """
        return Origin(
            self._modes,
            self.potential,
            self.embedding_dim,
            self.constant,
            (),
            signal=self.B,
            metric=self._metric,
        )

    def in_modes(self) -> ModeLandscape:
        """Return the same landscape in mode coordinates, O(k^2 d) an evaluation.

        Returns
        -------
        ModeLandscape

        Raises
        ------
        ValueError
            Where the landscape has no modes to speak of: unbounded on the null space of S.

        Notes
        -----
        Source: theory 2.6.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> land = pyssl.SpectralLandscape(np.diag([2.0, -1.0]), np.eye(2), pyssl.Quartic(0.5), 3)
        >>> land.in_modes().eigenvalues
        array([ 2., -1.])
        """
        if not self.bounded:
            raise ValueError("the landscape is unbounded below on the null space of S")
        return ModeLandscape(self._modes, self.potential, self.embedding_dim, self.constant)

    def alignments(self) -> Array:
        """Return v_j'A v_j/v_j'Sigma v_j of each mode, (d,); nan where no loss made the landscape.

        Returns
        -------
        (d,) ndarray
            0 for modes without variation.

        Notes
        -----
        Source: theory 5.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.5]))
        >>> pyssl.SpectralContrastive().effective(moments, embedding_dim=1).alignments()
        array([0.9, 0.5])
        """
        return self._alignments(self.vectors)

    def _alignments(self, vectors: Array) -> Array:
        """Return v_j'A v_j/v_j'Sigma v_j of any modes, given as columns."""
        if self._split is None:
            return np.full(self.dim, np.nan)
        variation = quadratic_forms(vectors, self._split.covariance)
        norm = float(np.trace(self._split.covariance))
        floor = rank_tolerance(self.dim, self._eps, norm) * np.sum(vectors**2, axis=0)
        return np.divide(
            quadratic_forms(vectors, self._split.cross_covariance),
            variation,
            out=np.zeros(len(variation)),
            where=variation > floor,
        )

    def __repr__(self) -> str:
        name = "" if self._split is None else f"{self._split.name}, "
        return (
            f"{type(self).__name__.lstrip('_')}({name}shape={self.shape},"
            f" potential={self.potential!r}, weight_decay={self.weight_decay:g})"
        )
