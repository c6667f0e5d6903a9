"""The second moments of a pair of views: all that landscapes ever see of the data (theory 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._pencil import Metric, diagonalise, rank_tolerance, readonly
from pyssl._scatter import Scatter, ViewScatter, mirrored, of_pairs, of_samples

if TYPE_CHECKING:
    from pyssl.augment import Augmentation

__all__ = ["MomentAccumulator", "Moments"]

Array = npt.NDArray[np.float64]

# What a user leaves out; the attributes themselves are never None.
_MISSING = cast(Array, None)

# Samples that a sampler of views is given at a time, and the groups of the jackknife.
_CHUNK_ROWS, _GROUPS = 4096, 20


@dataclass(frozen=True, eq=False, repr=False)
class Moments:
    """Mean, covariance and cross-covariance of a pair of views (x, x+) in R^d.

    Immutable and validated once. The views are exchangeable (each as likely the first as the
    second), so `cross_covariance` is symmetric, and both ``covariance - cross_covariance`` and
    ``covariance + cross_covariance`` are positive semidefinite.

    Parameters
    ----------
    covariance : (d, d) array_like
        Sigma = Cov(x, x).
    cross_covariance : (d, d) array_like
        A = Cov(x, x+).
    mean : (d,) array_like, optional
        mu = E x; zero by default.
    augmentation_covariance : (d, d) array_like, optional
        C = Sigma - A, where it is known more precisely than the subtraction gives it: with weak
        augmentation the subtraction loses the digits of C. Must agree with it within rounding.
    n_samples : int, optional
        The number of pairs that the moments were estimated from; None for population moments.

    Attributes
    ----------
    covariance, cross_covariance, augmentation_covariance : (d, d) ndarray
        Sigma, A and C.
    mean : (d,) ndarray
    n_samples : int or None

    Raises
    ------
    ValueError
        For a wrong shape, NaN or infinity, an asymmetric matrix, or one that is not positive
        semidefinite where it must be; the tolerance is 64 d eps times the largest entry of Sigma.
        For a magnitude beyond 1e140 or below 1e-140, where products leave float64.
    TypeError
        For input that does not hold real numbers.

    See Also
    --------
    Moments.from_views : moments of a sample of pairs.
    MomentAccumulator : the same, streaming.

    Notes
    -----
    Source: theory 1.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.diag([2.0, 1.0]), np.diag([1.0, 0.2]))
    >>> moments.alignments
    array([0.5, 0.2])
    >>> moments.augmentation_covariance
    array([[1. , 0. ],
           [0. , 0.8]])
    """

    covariance: Array
    cross_covariance: Array
    mean: Array = _MISSING  # zeros
    augmentation_covariance: Array = field(default=_MISSING, kw_only=True)
    n_samples: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        sigma, eps = _checks.symmetric("covariance", self.covariance, bounded_below=True)
        d = len(sigma)
        a, eps_a = _checks.symmetric("cross_covariance", self.cross_covariance, dim=d)
        eps = max(eps, eps_a)
        given: Array | None = self.augmentation_covariance
        if given is None:
            c = sigma - a
            scale = float(np.linalg.norm(sigma))
            tolerance = _checks.rounding(sigma, eps)
        else:
            c, eps_c = _checks.symmetric("augmentation_covariance", given, dim=d)
            eps = max(eps, eps_c)
            tolerance = _checks.rounding(sigma, eps)
            scale = None
            gap = float(np.abs(sigma - a - c).max())
            if gap > tolerance:
                raise ValueError(
                    "augmentation_covariance must be covariance - cross_covariance within"
                    f" {tolerance:.1e}, got a difference of {gap:.3g}"
                )
        _checks.semidefinite("covariance", sigma, tolerance)
        ordered = " (the canonical correlations of two views lie in [-1, 1])"
        _checks.semidefinite("covariance - cross_covariance", c, tolerance, ordered)
        _checks.semidefinite("covariance + cross_covariance", sigma + a, tolerance, ordered)
        offset: Array | None = self.mean
        mean = np.zeros(d) if offset is None else _checks.vector("mean", offset, d).copy()
        _checks.squarable("mean", mean)
        if self.n_samples is not None:
            object.__setattr__(
                self, "n_samples", _checks.integer("n_samples", self.n_samples, minimum=1)
            )
        self._set(sigma, a, c, mean, eps, scale)

    def _set(
        self, sigma: Array, a: Array, c: Array, mean: Array, eps: float, scale: float | None
    ) -> None:
        for name, value in (
            ("covariance", sigma),
            ("cross_covariance", a),
            ("augmentation_covariance", c),
            ("mean", mean),
        ):
            object.__setattr__(self, name, readonly(value))
        object.__setattr__(self, "_eps", eps)
        object.__setattr__(self, "_augmentation_scale", scale)

    @classmethod
    def _trusted(
        cls,
        sigma: Array,
        a: Array,
        c: Array,
        mean: Array,
        n_samples: int | None,
        eps: float,
        scale: float | None = None,
    ) -> Moments:
        """Make moments that are valid by construction."""
        self = object.__new__(cls)
        object.__setattr__(self, "n_samples", n_samples)
        self._set(sigma, a, c, mean, eps, scale)
        return self

    @classmethod
    def from_views(cls, x: npt.ArrayLike, x_plus: npt.ArrayLike) -> Moments:
        """Estimate the moments from `n` pairs of views.

        Parameters
        ----------
        x, x_plus : (n, d) array_like
            Row i of each is one view of sample i. n >= 2. float32 is accumulated in float64.

        Returns
        -------
        Moments
            Symmetrised over the two views and centred by the pooled mean of all 2n rows, with the
            1/(2n) normalisation; ``n_samples`` is n.

        Raises
        ------
        ValueError
            For views of different shapes, fewer than two pairs, NaN or infinity (the message names
            the row), or a magnitude beyond 1e70.
        TypeError
            For views that do not hold real numbers.

        Notes
        -----
        Source: theory 1. The augmentation covariance is accumulated from x - x+ itself, so it
        keeps its digits however weak the augmentation or large the mean.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> rng = np.random.default_rng(0)
        >>> clean = rng.standard_normal((1000, 3))
        >>> noise = 0.1 * rng.standard_normal((2, 1000, 3))
        >>> pyssl.Moments.from_views(clean + noise[0], clean + noise[1]).alignments.round(2)
        array([0.99, 0.99, 0.99])
        """
        first, second = _checks.views(x, x_plus, check_finite=False, check_size=False)
        accumulator = MomentAccumulator(first.shape[1])
        accumulator._add(first, second)
        return accumulator.moments()

    @classmethod
    def from_data(cls, x: npt.ArrayLike, augmentation: Augmentation) -> Moments:
        """Estimate the moments of augmented views from clean data, without drawing any.

        Parameters
        ----------
        x : (n, d) array_like
            One clean sample a row; n >= 2.
        augmentation : pyssl.augment.Augmentation
            Whose exact map of moments is applied to those of the data.

        Returns
        -------
        Moments
            With ``n_samples`` n: what they lack in precision comes from the data alone.

        Raises
        ------
        ValueError
            For fewer than two samples, another dimension than the augmentation's, NaN or infinity.
        TypeError
            For data that do not hold real numbers, or anything but an augmentation.

        Notes
        -----
        Source: theory 6.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> x = np.random.default_rng(0).standard_normal((1000, 2))
        >>> pyssl.Moments.from_data(x, pyssl.augment.Mask(0.5)).alignments.round(3)
        array([0.505, 0.495])
        """
        from pyssl import augment  # which is built on moments

        _checks.instance("augmentation", augmentation, augment.Augmentation, "an augmentation")
        rows = _samples(x)
        augmentation._check_dim("x", rows)
        data = of_samples(rows)
        return augmentation._moments_of(data.covariance(), data.mean, len(rows))

    @classmethod
    def from_sampler(
        cls,
        x: npt.ArrayLike,
        fn: Callable[[npt.NDArray[Any], np.random.Generator], npt.ArrayLike],
        views: int = 2,
        rng: np.random.Generator | int | None = None,
    ) -> Moments:
        """Estimate the moments from clean data and a function that draws views of them.

        Parameters
        ----------
        x : (n, d) array_like
            One clean sample a row; n >= 2. Read in chunks of 4096 rows, so that a memory map will
            do.
        fn : callable
            ``fn(chunk, rng)`` returns one random view (m, d') of every row of a chunk (m, d), which
            it may overwrite.
        views : int, optional
            Views that are drawn of every sample, >= 2: more make C more precise.
        rng : numpy.random.Generator or int, optional
            The source of randomness, or its seed.

        Returns
        -------
        Moments
            With ``n_samples`` n and ``alignment_errors``.

        Raises
        ------
        ValueError
            For fewer than two samples or views, NaN or infinity in the data, or an `fn` that
            returns NaN, infinity or another shape.
        TypeError
            For data that do not hold real numbers, or an `fn` that is not callable or returns none.

        Notes
        -----
        Source: theory 1; for two views the same estimate as that of `from_views`. The errors are
        those of a jackknife over 20 random groups of samples: themselves good to some 16%, and of
        little meaning for n below 100.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> x = np.random.default_rng(0).standard_normal((2000, 2))
        >>> jitter = lambda rows, rng: rows + 0.5 * rng.standard_normal(rows.shape)
        >>> moments = pyssl.Moments.from_sampler(x, jitter, rng=1)
        >>> moments.alignments.round(2)
        array([0.81, 0.79])
        >>> bool((moments.alignment_errors < 0.02).all())
        True
        """
        rows = _samples(x)
        if not callable(fn):
            raise TypeError(f"fn must be callable, got {type(fn).__name__}")
        count = _checks.integer("views", views, minimum=2)
        generator = _checks.generator("rng", rng)
        label = generator.permutation(len(rows)) % _GROUPS
        groups: list[ViewScatter] = []
        for start in range(0, len(rows), _CHUNK_ROWS):
            chunk = rows[start : start + _CHUNK_ROWS]
            dim = len(groups[0].within) if groups else None
            drawn = np.stack([_drawn(fn, chunk, generator, dim) for _ in range(count)])
            groups = groups or [ViewScatter(drawn.shape[-1], count) for _ in range(_GROUPS)]
            here = label[start : start + _CHUNK_ROWS]
            for index in np.unique(here):
                groups[index].add(drawn[:, here == index])
        total = ViewScatter(len(groups[0].within), count)
        for group in groups:
            total.merge(group)
        sigma, a, c, mean = total.moments()
        _checks.magnitude("the covariance of the views", sigma)
        eps = float(np.finfo(np.float64).eps)
        result = cls._trusted(sigma, a, c, mean, len(rows), eps)
        kept = [total.without(group) for group in groups if 0 < group.between.n < len(rows)]
        left_out = np.array([cls._trusted(*k.moments(), None, eps).alignments for k in kept])
        errors = np.sqrt((len(kept) - 1) * left_out.var(axis=0))
        object.__setattr__(result, "_alignment_errors", readonly(errors))
        return result

    @property
    def dim(self) -> int:
        """The dimension d of a view."""
        return len(self.mean)

    @cached_property
    def second_moment(self) -> Array:
        """Sigma_u = Sigma + mu mu', (d, d): uncentred."""
        return readonly(self.covariance + np.outer(self.mean, self.mean))

    @cached_property
    def cross_moment(self) -> Array:
        """A_u = A + mu mu', (d, d): uncentred."""
        return readonly(self.cross_covariance + np.outer(self.mean, self.mean))

    @cached_property
    def alignments(self) -> Array:
        """The eigenvalues rho (d,) of A v = rho Sigma v, descending; 0 on the null space of Sigma.

        Their magnitudes are the canonical correlations of the two views.
        """
        metric = self._metric
        misalignment, _ = diagonalise(self.augmentation_covariance, metric.whitener)
        rho = np.zeros(self.dim)
        rho[: metric.rank] = np.clip(1.0 - misalignment, -1.0, 1.0)
        return readonly(np.sort(rho)[::-1].copy())

    @property
    def alignment_errors(self) -> Array | None:
        """The standard errors (d,) of `alignments`; None unless `from_sampler` has estimated them.

        Of the alignments in their order: where two are nearer than their errors, which of them is
        first is chance.
        """
        return self._alignment_errors

    @property
    def rank(self) -> int:
        """The numerical rank of the covariance: directions in which the data vary."""
        return self._metric.rank

    def with_augmentation_strength(self, strength: float) -> Moments:
        """Scale the augmentation covariance, C -> s C, at fixed A (theory 5).

        Parameters
        ----------
        strength : float
            s >= 0; 1 changes nothing, 0 makes the two views of a sample identical.

        Returns
        -------
        Moments
            With covariance A + s C.

        Raises
        ------
        ValueError
            For a negative or infinite strength, or where A + s C is not positive semidefinite (A
            estimated from a sample can have negative eigenvalues).
        TypeError
            For a strength that is no real number.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.diag([2.0, 1.0]), np.diag([1.0, 0.2]))
        >>> moments.with_augmentation_strength(3).alignments
        array([0.25      , 0.07692308])
        """
        s = _checks.real("strength", strength, minimum=0.0)
        with np.errstate(over="ignore"):  # found by the next line but one
            c = s * self.augmentation_covariance
        sigma = self.cross_covariance + c
        _checks.magnitude(f"cross_covariance + {s:g} augmentation_covariance", sigma)
        tolerance = _checks.rounding(self.covariance, self._eps)
        _checks.semidefinite(f"cross_covariance + {s:g} augmentation_covariance", sigma, tolerance)
        both = f"2 cross_covariance + {s:g} augmentation_covariance"
        _checks.semidefinite(both, sigma + self.cross_covariance, tolerance)
        scale = None if self._augmentation_scale is None else s * self._augmentation_scale
        return self._trusted(
            sigma, self.cross_covariance, c, self.mean, self.n_samples, self._eps, scale
        )

    def centered(self) -> Moments:
        """Return the moments of the views less their mean.

        Returns
        -------
        Moments
            With the same covariances and zero mean.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> pyssl.Moments(np.eye(2), 0.5 * np.eye(2), [3.0, 4.0]).centered().mean
        array([0., 0.])
        """
        result = self._trusted(
            self.covariance,
            self.cross_covariance,
            self.augmentation_covariance,
            np.zeros(self.dim),
            self.n_samples,
            self._eps,
            self._augmentation_scale,
        )
        if "_metric" in self.__dict__:  # the decomposition does not see the mean
            result.__dict__["_metric"] = self._metric
        object.__setattr__(result, "_alignment_errors", self._alignment_errors)
        return result

    def __setstate__(self, state: dict[str, Any]) -> None:
        # pickling and deep copies forget that arrays are read-only
        for name, value in state.items():
            frozen = readonly(value) if isinstance(value, np.ndarray) else value
            object.__setattr__(self, name, frozen)

    def __repr__(self) -> str:
        source = "population" if self.n_samples is None else f"n_samples={self.n_samples}"
        offset = "" if not self.mean.any() else f", |mean|={np.linalg.norm(self.mean):.3g}"
        return (
            f"Moments(dim={self.dim}, {source}, trace covariance={np.trace(self.covariance):.4g},"
            f" trace cross_covariance={np.trace(self.cross_covariance):.4g}{offset})"
        )

    # The eps of the source's dtype, and the norm that the rounding of C is relative to: that of
    # Sigma where C came by subtraction, its own (None) where it was accumulated from differences.
    _eps: float = field(init=False)
    _augmentation_scale: float | None = field(init=False)
    _alignment_errors: Array | None = field(init=False, default=None)

    @cached_property
    def _metric(self) -> Metric:
        return Metric.of(self.covariance, self._eps)

    @cached_property
    def _uncentered_metric(self) -> Metric:
        return Metric.of(self.second_moment, self._eps) if self.mean.any() else self._metric

    @cached_property
    def _augmentation_rank(self) -> int:
        """The numerical rank of C on the range of Sigma."""
        c, metric = self.augmentation_covariance, self._metric
        scale = self._augmentation_scale
        if scale is None:
            scale = float(np.linalg.norm(c))
        tolerance = rank_tolerance(self.dim, self._eps, scale)
        if self.n_samples is not None and metric.rank:
            # the views' own rounding, squared, is no augmentation
            rounding = rank_tolerance(self.dim, self._eps, 1.0) ** 2
            tolerance = max(tolerance, rounding * float(metric.spectrum[0]))
        # restricted before counting: where Sigma is rounding, C may still stand out of its own
        inside = metric.basis[:, : metric.rank]
        spectrum, turn = np.linalg.eigh(inside.T @ c @ inside)
        null = turn[:, spectrum <= tolerance]
        # nor is the augmentation missing where variance itself is hardly more than this rounding
        variance = np.linalg.eigvalsh((null.T * metric.spectrum[: metric.rank]) @ null)
        return metric.rank - int(np.count_nonzero(variance > 64.0 * tolerance))


class MomentAccumulator:
    """Moments of a stream of pairs, chunk by chunk, in memory O(d^2).

    Chunks may be of any length and come in any order; accumulators filled by different processes
    merge (they pickle). The result does not depend on the chunking beyond rounding: moments are
    kept centred and merged by Chan's formula, so that a mean of m standard deviations costs the
    covariance no more than m eps, and the augmentation covariance comes from the differences
    x - x+, so that a weak augmentation costs it nothing.

    Parameters
    ----------
    dim : int
        The dimension d of a view.

    Attributes
    ----------
    dim : int
    n_samples : int
        Pairs seen so far.

    Raises
    ------
    ValueError
        For ``dim < 1``.
    TypeError
        For a `dim` that is no integer.

    Notes
    -----
    Source: theory 1; Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances" (1979).

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> rng = np.random.default_rng(0)
    >>> accumulator = pyssl.MomentAccumulator(2)
    >>> for _ in range(10):
    ...     clean = 1e6 + rng.standard_normal((100, 2))
    ...     noise = 0.5 * rng.standard_normal((2, 100, 2))
    ...     accumulator.update(clean + noise[0], clean + noise[1])
    >>> accumulator.n_samples
    1000
    >>> accumulator.moments().alignments.round(1)
    array([0.8, 0.8])
    """

    def __init__(self, dim: int) -> None:
        self.dim = _checks.integer("dim", dim, minimum=1)
        # With h = (x + x+)/2 the centred scatter of h and that of x - x+ give Sigma + A and
        # Sigma - A separately.
        self._means = Scatter(self.dim)
        self._differences = np.zeros((self.dim, self.dim))

    @property
    def n_samples(self) -> int:
        """Pairs seen so far."""
        return self._means.n

    def update(self, x: npt.ArrayLike, x_plus: npt.ArrayLike) -> None:
        """Add a chunk of pairs.

        Parameters
        ----------
        x, x_plus : (m, d) array_like
            Row i of each is one view of one sample; m >= 0.

        Raises
        ------
        ValueError
            For a wrong shape, NaN or infinity, or magnitudes above 1e70, whose squares would
            overflow. The accumulator is then unchanged.
        TypeError
            For views that do not hold real numbers. The accumulator is then unchanged.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> accumulator = pyssl.MomentAccumulator(2)
        >>> accumulator.update(np.eye(2), np.eye(2))
        >>> accumulator.n_samples
        2
        """
        views = _checks.views(x, x_plus, dim=self.dim, check_finite=False, check_size=False)
        self._add(*views)

    def _add(self, x: npt.NDArray[Any], x_plus: npt.NDArray[Any]) -> None:
        # the views may be a file: the rest of what they must be is checked as they are read
        means, differences = of_pairs(x, x_plus)
        self._means.merge(means)
        self._differences = self._differences + differences

    def merge(self, other: MomentAccumulator) -> None:
        """Add everything that another accumulator has seen.

        Parameters
        ----------
        other : MomentAccumulator
            Of the same dimension; unchanged.

        Raises
        ------
        ValueError
            For another dimension.
        TypeError
            For anything but an accumulator.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> left, right = pyssl.MomentAccumulator(2), pyssl.MomentAccumulator(2)
        >>> left.update(np.eye(2), np.eye(2))
        >>> right.update(np.ones((3, 2)), np.eye(2)[[0, 1, 0]])
        >>> left.merge(right)
        >>> left.n_samples
        5
        """
        _checks.instance("other", other, MomentAccumulator, "a MomentAccumulator")
        if other.dim != self.dim:
            raise ValueError(f"other must have dim {self.dim}, got {other.dim}")
        self._differences = self._differences + other._differences
        self._means.merge(other._means)

    def moments(self) -> Moments:
        """Return the moments of all pairs seen so far.

        Returns
        -------
        Moments
            With ``n_samples`` set.

        Raises
        ------
        ValueError
            For fewer than two pairs.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> accumulator = pyssl.MomentAccumulator(2)
        >>> accumulator.update([[1.0, 0.0], [-1.0, 0.0]], [[1.0, 1.0], [-1.0, 1.0]])
        >>> accumulator.moments().covariance
        array([[1.  , 0.  ],
               [0.  , 0.25]])
        """
        n = self.n_samples
        if n < 2:
            raise ValueError(f"moments need at least 2 pairs of views, got {n}")
        c = mirrored(self._differences) / (2 * n)
        mean_scatter = self._means.covariance()
        sigma = mean_scatter + 0.5 * c
        _checks.magnitude("the covariance of the views", sigma)
        eps = float(np.finfo(np.float64).eps)
        return Moments._trusted(sigma, mean_scatter - 0.5 * c, c, self._means.mean.copy(), n, eps)

    def __copy__(self) -> MomentAccumulator:
        # what is accumulated is changed in place: a copy must not share it
        result = MomentAccumulator(self.dim)
        result.merge(self)
        return result

    def __repr__(self) -> str:
        return f"MomentAccumulator(dim={self.dim}, n_samples={self.n_samples})"


def _samples(x: Any) -> npt.NDArray[Any]:
    """Return clean samples (n, d), n >= 2."""
    rows = _checks.array("x", x, ndim=2)
    if len(rows) < 2 or not rows.shape[1]:
        raise ValueError(f"x must be (n, d) with n >= 2 and d >= 1, got {rows.shape}")
    _checks.squarable("x", rows)
    return rows


def _drawn(
    fn: Callable[[npt.NDArray[Any], np.random.Generator], npt.ArrayLike],
    chunk: npt.NDArray[Any],
    rng: np.random.Generator,
    dim: int | None,
) -> Array:
    """Return one view of every row of a chunk, of `dim` entries unless that is not known yet."""
    view = _checks.array("what fn returned", fn(chunk.copy(), rng), ndim=2)
    if len(view) != len(chunk) or not view.shape[1] or (dim is not None and view.shape[1] != dim):
        expected = f"({len(chunk)}, d)" if dim is None else f"({len(chunk)}, {dim})"
        raise ValueError(f"fn must return {expected}, one view of every row, got {view.shape}")
    _checks.squarable("what fn returned", view)
    return view.astype(np.float64, copy=False)
