"""Labelled data as a mixture of classes: what imbalance acts on (theory 7)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._pencil import Array, Metric, readonly
from pyssl.augment._base import Augmentation, Identity, State
from pyssl.moments import Moments

__all__ = ["Mixture", "augmentation_for", "long_tailed_priors"]

_MISSING = cast(Any, None)
# Sums of priors may be off by so many units in the last place for each of them.
_ULPS = 16.0


@dataclass(frozen=True, eq=False, repr=False)
class Mixture:
    """Classes of data, by their priors, means and covariances. Prints as a table.

    Parameters
    ----------
    priors : (C,) array_like
        p_c > 0, which sum to one.
    means : (C, d) array_like
        m_c.
    within_covariance : (d, d) or (C, d, d) array_like
        Of the data of a class about its mean: one for all classes, or one for each.
    classes : sequence, optional
        What the classes are called, each once; 0 to C - 1 by default.
    n_samples : int, optional
        The number of samples that all this was estimated from; None for a population.

    Attributes
    ----------
    priors : (C,) ndarray
    means : (C, d) ndarray
    within_covariance : (d, d) or (C, d, d) ndarray
    classes : tuple
    n_samples : int or None

    Raises
    ------
    ValueError
        For a wrong shape, NaN or infinity, priors that are not positive or do not sum to one, a
        covariance that is asymmetric or not positive semidefinite, or a name given twice.
    TypeError
        For input that does not hold real numbers.

    See Also
    --------
    Mixture.from_data : the mixture that labelled data are.

    Notes
    -----
    Source: theory 7. What losses see of it are its first two moments; only `sample` takes classes
    to be Gaussian. Means far from the origin cost no digits: covariances are built from differences
    of means.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> mix = pyssl.Mixture([0.8, 0.2], [[0.0, 0.0], [5.0, 0.0]], np.eye(2))
    >>> mix.covariance
    array([[5., 0.],
           [0., 1.]])
    >>> mix.moments(pyssl.augment.Noise(1.0)).alignments.round(3)
    array([0.833, 0.5  ])
    """

    priors: Array
    means: Array
    within_covariance: Array
    classes: tuple[Any, ...] = field(default=_MISSING, kw_only=True)  # 0 .. C - 1
    n_samples: int | None = field(default=None, kw_only=True)
    _eps: float = field(init=False)  # of the dtype that it came in

    def __post_init__(self) -> None:
        priors, eps = _priors("priors", self.priors)
        means = _checks.array("means", self.means, ndim=2)
        if len(means) != len(priors) or not means.shape[1]:
            raise ValueError(f"means must be ({len(priors)}, d) with d >= 1, got {means.shape}")
        _checks.squarable("means", means)
        within, eps_w = _within("within_covariance", self.within_covariance, *means.shape)
        eps = max(eps, eps_w, float(np.finfo(means.dtype).eps))
        given: Sequence[Any] | None = self.classes
        try:
            classes = tuple(range(len(priors)) if given is None else given)
            different = len(set(classes))
        except TypeError:
            raise TypeError(f"classes must be a sequence of names, got {given!r}") from None
        if not len(classes) == different == len(priors):
            raise ValueError(f"classes must be {len(priors)} different names, got {classes}")
        if self.n_samples is not None:
            _checks.integer("n_samples", self.n_samples, minimum=1)
        object.__setattr__(self, "classes", classes)
        self._set(priors, means.astype(np.float64), within, eps)
        _checks.magnitude("the covariance of the mixture", self.covariance)

    def _set(self, priors: Array, means: Array, within: Array, eps: float) -> None:
        object.__setattr__(self, "priors", readonly(priors))
        object.__setattr__(self, "means", readonly(means))
        object.__setattr__(self, "within_covariance", readonly(within))
        object.__setattr__(self, "_eps", eps)

    @classmethod
    def from_data(cls, x: npt.ArrayLike, labels: Sequence[Any], *, shared: bool = False) -> Mixture:
        """Estimate the mixture that labelled data are.

        Parameters
        ----------
        x : (n, d) array_like
            One sample a row; n >= 2.
        labels : (n,) sequence
            The class of each: numbers or strings. Their sorted values become `classes`.
        shared : bool, optional
            Whether one covariance is kept for all classes, the mean of theirs.

        Returns
        -------
        Mixture
            With the shares of the classes as priors, and covariances normalised by 1/n_c, so that
            `covariance` is that of all data.

        Raises
        ------
        ValueError
            For a wrong shape, fewer than two samples, NaN or infinity.
        TypeError
            For data that do not hold real numbers, or labels that can't be sorted.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> mix = pyssl.Mixture.from_data([[0.0], [2.0], [9.0]], ["cat", "cat", "dog"])
        >>> mix.classes, mix.priors.round(3), mix.means.ravel()
        (('cat', 'dog'), array([0.667, 0.333]), array([1., 9.]))
        """
        rows = _checks.array("x", x, ndim=2)
        if len(rows) < 2 or not rows.shape[1]:
            raise ValueError(f"x must be (n, d) with n >= 2 and d >= 1, got {rows.shape}")
        _checks.squarable("x", rows)
        one = _checks.flag("shared", shared)
        classes, index = _classes(labels, len(rows))
        counts = np.bincount(index)
        wide = rows.astype(np.float64)
        means = np.array([wide[index == c].mean(axis=0) for c in range(len(counts))])
        centred = wide - means[index]
        if one:
            within = centred.T @ centred / len(wide)
        else:
            within = np.stack(
                [centred[index == c].T @ centred[index == c] / n for c, n in enumerate(counts)]
            )
        return cls(counts / len(wide), means, within, classes=classes, n_samples=len(wide))

    # -- what it is --------------------------------------------------------------------------------

    @property
    def n_classes(self) -> int:
        """C, the number of classes."""
        return len(self.priors)

    @property
    def dim(self) -> int:
        """The dimension d of a sample."""
        return int(self.means.shape[1])

    @cached_property
    def mean(self) -> Array:
        """The mean of all data, (d,)."""
        return readonly(self.means[0] - self._offsets[0])

    @cached_property
    def covariance(self) -> Array:
        """The covariance of all data, (d, d): within and between classes."""
        scaled = self._offsets * np.sqrt(self.priors)[:, None]
        return readonly(self._pooled + scaled.T @ scaled)

    @cached_property
    def second_moment(self) -> Array:
        """The second moment of all data, (d, d): not centred."""
        return readonly(self.covariance + np.outer(self.mean, self.mean))

    @cached_property
    def _offsets(self) -> Array:
        """m_c - mean, (C, d), from differences of means, which large ones don't cancel in."""
        apart = self.means - self.means[0]
        offsets: Array = apart - self.priors @ apart
        return offsets

    @cached_property
    def _pooled(self) -> Array:
        """The mean of the covariances within classes, (d, d)."""
        if self.within_covariance.ndim == 2:
            return self.within_covariance
        return np.asarray(np.einsum("c,cij->ij", self.priors, self.within_covariance))

    @property
    def _rounding(self) -> float:
        """The length that is rounding in what `_offsets` has."""
        apart = float(np.abs(self.means - self.means[0]).max())
        stored = float(np.finfo(np.float64).eps) * float(np.abs(self.means).max())
        return _ULPS * math.sqrt(self.dim) * (self._eps * apart + stored)

    # -- what becomes of it ------------------------------------------------------------------------

    def moments(self, aug: Augmentation | None = None) -> Moments:
        """Return the exact moments of two independent views.

        Parameters
        ----------
        aug : pyssl.augment.Augmentation, optional
            What makes the views; without it they are the data.

        Returns
        -------
        Moments

        Raises
        ------
        ValueError
            For an augmentation of another dimension.
        TypeError
            For anything but an augmentation.

        Notes
        -----
        Source: theory 6.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> mix = pyssl.Mixture([0.5, 0.5], [[-1.0], [1.0]], [[1.0]])
        >>> mix.moments(pyssl.augment.Noise(2.0)).alignments
        array([0.5])
        """
        return self._views(augmentation_for(aug, self.dim)).moments(self.n_samples, self._eps)

    def _views(self, aug: Augmentation) -> State:
        return aug._map(State.of_clean(self.covariance, self.mean))

    def sample(
        self,
        n: int,
        rng: np.random.Generator | int | None = None,
        *,
        stratified: bool = False,
    ) -> tuple[Array, npt.NDArray[np.int64]]:
        """Draw data: a class by its prior, then a Gaussian sample of it.

        Parameters
        ----------
        n : int
            Samples, >= 0.
        rng : numpy.random.Generator or int, optional
            The source of randomness, or its seed.
        stratified : bool, optional
            Whether every class gets the share of its prior, to the nearest whole numbers, rather
            than a random one.

        Returns
        -------
        (n, d) ndarray
        (n,) ndarray of int
            The class of each, as an index into `classes`.

        Raises
        ------
        ValueError
            For a negative `n`.
        TypeError
            For an `n` that is no integer.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> mix = pyssl.Mixture([0.75, 0.25], [[0.0], [9.0]], [[1.0]])
        >>> x, labels = mix.sample(8, rng=0, stratified=True)
        >>> x.shape, np.bincount(labels)
        ((8, 1), array([6, 2]))
        """
        count = _checks.integer("n", n, minimum=0)
        generator = _checks.generator("rng", rng)
        p = self.priors / self.priors.sum()
        if _checks.flag("stratified", stratified):
            ends = np.rint(count * np.cumsum(p)).astype(np.int64)
            labels = generator.permutation(np.repeat(np.arange(len(p)), np.diff(ends, prepend=0)))
        else:
            labels = generator.choice(len(p), size=count, p=p)
        noise = generator.standard_normal((count, self.dim))
        x = self.means[labels]
        for c, factor in enumerate(self._factors):
            chosen = labels == c if len(self._factors) > 1 else slice(None)
            x[chosen] += noise[chosen] @ factor.T
        return x, labels

    @cached_property
    def _factors(self) -> list[Array]:
        """F (d, d) with F F' the covariance: one for all classes, or one for each."""
        stack = self.within_covariance.reshape(-1, self.dim, self.dim)
        metrics = [Metric.of(matrix, self._eps) for matrix in stack]
        return [m.basis * np.sqrt(np.maximum(m.spectrum, 0.0)) for m in metrics]

    def with_priors(self, priors: npt.ArrayLike) -> Mixture:
        """Return the same classes with other priors.

        Parameters
        ----------
        priors : (C,) array_like
            p_c > 0, which sum to one.

        Returns
        -------
        Mixture

        Raises
        ------
        ValueError
            For a wrong shape, NaN or infinity, priors that are not positive or do not sum to one.
        TypeError
            For input that does not hold real numbers.

        Examples
        --------
        >>> import pyssl
        >>> mix = pyssl.Mixture([0.5, 0.5], [[-1.0], [1.0]], [[1.0]])
        >>> mix.with_priors(pyssl.long_tailed_priors(2, ratio=9.0)).priors
        array([0.9, 0.1])
        """
        given, eps = _priors("priors", priors)
        if len(given) != self.n_classes:
            raise ValueError(f"priors must be ({self.n_classes},), got {given.shape}")
        return self._at(given, max(eps, self._eps))

    def with_prior(self, class_index: int, p: float) -> Mixture:
        """Return the same classes with one prior set, and the others rescaled.

        Parameters
        ----------
        class_index : int
            From 0 to C - 1.
        p : float
            Between 0 and 1, both excluded.

        Returns
        -------
        Mixture

        Raises
        ------
        ValueError
            For a class or a prior out of range, or a mixture of a single class.
        TypeError
            For an argument of the wrong kind.

        Examples
        --------
        >>> import pyssl
        >>> mix = pyssl.Mixture([0.5, 0.25, 0.25], [[0.0], [1.0], [5.0]], [[1.0]])
        >>> mix.with_prior(0, 0.8).priors
        array([0.8, 0.1, 0.1])
        """
        index = self._index(class_index)
        prior = _checks.real("p", p, minimum=0.0, maximum=1.0, open_minimum=True, open_maximum=True)
        if self.n_classes == 1:
            raise ValueError("with_prior: a mixture of a single class has no other to rescale")
        others = self.priors.copy()
        others[index] = 0.0
        priors = others * ((1.0 - prior) / others.sum())
        priors[index] = prior
        return self._at(priors, self._eps)

    def _at(self, priors: Array, eps: float) -> Mixture:
        """Return the mixture at other priors, which are valid."""
        other = object.__new__(Mixture)
        object.__setattr__(other, "classes", self.classes)
        object.__setattr__(other, "n_samples", self.n_samples)
        other._set(priors, self.means, self.within_covariance, eps)
        return other

    def _index(self, class_index: int) -> int:
        """Return a class index, once it is one."""
        index = _checks.integer("class_index", class_index, minimum=0)
        if index >= self.n_classes:
            raise ValueError(f"class_index must be at most {self.n_classes - 1}, got {index}")
        return index

    def __repr__(self) -> str:
        kind = "one covariance" if self.within_covariance.ndim == 2 else "a covariance each"
        lines = [
            f"Mixture of {self.n_classes} class(es) in {self.dim} dimension(s), {kind}",
            "",
            f"  {'class':>12}  {'prior':>9}  {'from mean':>9}  {'within':>9}",
        ]
        away = np.linalg.norm(self._offsets, axis=1)
        stack = np.broadcast_to(self.within_covariance, (self.n_classes, self.dim, self.dim))
        spread = np.sqrt(np.trace(stack, axis1=1, axis2=2))
        for name, *numbers in zip(self.classes, self.priors, away, spread, strict=True):
            lines.append(f"  {name!s:>12}  " + "  ".join(f"{value:>9.4g}" for value in numbers))
        return "\n".join(lines)


def long_tailed_priors(n_classes: int, ratio: float) -> Array:
    """Return priors that fall geometrically from the first class to the last: a long tail.

    Parameters
    ----------
    n_classes : int
        C >= 1.
    ratio : float
        The largest prior over the smallest, the field's imbalance factor, >= 1.

    Returns
    -------
    (C,) ndarray

    Raises
    ------
    ValueError
        For a value out of range.
    TypeError
        For an argument of the wrong kind.

    Notes
    -----
    As the long-tailed CIFAR of Cao et al., "Learning imbalanced datasets with label-distribution-
    aware margin loss" (2019).

    Examples
    --------
    >>> import pyssl
    >>> pyssl.long_tailed_priors(3, ratio=100.0).round(4)
    array([0.9009, 0.0901, 0.009 ])
    """
    count = _checks.integer("n_classes", n_classes, minimum=1)
    factor = _checks.real("ratio", ratio, minimum=1.0)
    falling = np.exp(-math.log(factor) * np.linspace(0.0, 1.0, count))
    return np.asarray(falling / falling.sum())


def augmentation_for(aug: Augmentation | None, dim: int) -> Augmentation:
    """Return `aug`, the identity for None, once it takes samples of that dimension."""
    if aug is None:
        return Identity()
    _checks.instance("aug", aug, Augmentation, "an augmentation such as pyssl.augment.Noise(1.0)")
    if aug.dim not in (None, dim):
        raise ValueError(f"aug must take {dim} inputs, got one of {aug.dim}")
    return aug


# ---- helpers -------------------------------------------------------------------------------------


def _priors(name: str, value: Any) -> tuple[Array, float]:
    """Return priors in float64, and the eps of their source."""
    given = _checks.array(name, value, ndim=1)
    eps = float(np.finfo(given.dtype).eps)
    wide = given.astype(np.float64)
    if not len(wide):
        raise ValueError(f"{name} must be (C,) with C >= 1, got {wide.shape}")
    if wide.min() <= 0.0:
        raise ValueError(f"{name} must be > 0, got {wide.min():g} at {name}[{wide.argmin()}]")
    total = math.fsum(wide)
    if abs(total - 1.0) > _ULPS * eps * len(wide):
        raise ValueError(f"{name} must sum to 1, got a sum of {total:.12g}")
    return wide, eps


def _within(name: str, value: Any, count: int, dim: int) -> tuple[Array, float]:
    """Return one or `count` covariances in float64, and the eps of their source."""
    given = _checks.array(name, value, minimum_ndim=2)
    if given.shape not in ((dim, dim), (count, dim, dim)):
        raise ValueError(
            f"{name} must be ({dim}, {dim}) or ({count}, {dim}, {dim}) with means ({count}, {dim}),"
            f" got {given.shape}"
        )
    if given.ndim == 2:
        matrix, eps = _checks.symmetric(name, given)
        _checks.semidefinite(name, matrix, _checks.rounding(matrix, eps))
        return matrix, eps
    pairs = [_checks.symmetric(f"{name}[{c}]", matrix) for c, matrix in enumerate(given)]
    for c, (matrix, eps) in enumerate(pairs):
        _checks.semidefinite(f"{name}[{c}]", matrix, _checks.rounding(matrix, eps))
    return np.stack([matrix for matrix, _ in pairs]), pairs[0][1]


def _classes(labels: Sequence[Any], n: int) -> tuple[tuple[Any, ...], npt.NDArray[np.int64]]:
    """Return the sorted classes of labels, and the index of each sample's."""
    _checks.unmasked("labels", labels)
    try:
        given = np.asarray(labels)
        if given.dtype.kind in "US" and not all(isinstance(item, str | bytes) for item in labels):
            given = np.asarray(labels, dtype=object)  # else numbers would become text
    except ValueError as error:
        raise ValueError(f"labels must be ({n},): {error}") from None
    if given.shape != (n,):
        raise ValueError(f"labels must be ({n},), got {given.shape}")
    if given.dtype.kind == "f":
        _checks.finite("labels", given)
    try:
        classes, index = np.unique(given, return_inverse=True)
    except TypeError as error:
        raise TypeError(f"labels can't be sorted: {error}") from None
    return tuple(classes.tolist()), index
