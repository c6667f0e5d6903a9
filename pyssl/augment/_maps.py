"""Augmentations of vectors: noise, masks, scales, reflections, groups, linear maps (theory 6)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._pencil import Array, Metric, readonly
from pyssl.augment._base import Augmentation, Floats, Interpolated, State, sandwiched, symmetrised

__all__ = ["Group", "Linear", "Mask", "Noise", "Reflection", "Scale"]

# Maps that a sampler is asked for at a time: so many entries.
_DRAWN_ENTRIES = 1 << 22
# Maps that stand for the distribution of a `Linear` without second order, and their seed.
_MAPS, _SEED = 4096, 0


@dataclass(frozen=True, eq=False)
class Noise(Augmentation):
    """Additive Gaussian noise of zero mean.

    Parameters
    ----------
    covariance : (d, d) array_like or float
        N; a number is the variance of independent noise on every input.

    Raises
    ------
    ValueError
        For a wrong shape, NaN or infinity, an asymmetric matrix or one that is not positive
        semidefinite, or a negative variance.
    TypeError
        For a covariance that does not hold real numbers.

    Notes
    -----
    Source: theory 6: Sigma gains N, A stays. Strength s: N -> s N. The moments are those of any
    noise of this covariance.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> noise = pyssl.augment.Noise(np.diag([1.0, 0.0]))
    >>> noise.moments(np.eye(2)).covariance
    array([[2., 0.],
           [0., 1.]])
    """

    covariance: Array | float

    def __post_init__(self) -> None:
        if np.ndim(self.covariance) == 0:
            value = _checks.real("covariance", self.covariance, minimum=0.0)
            object.__setattr__(self, "covariance", value)
            return
        matrix, eps = _checks.symmetric("covariance", self.covariance)
        _checks.semidefinite("covariance", matrix, _checks.rounding(matrix, eps))
        object.__setattr__(self, "covariance", readonly(matrix))

    @property
    def dim(self) -> int | None:
        return None if isinstance(self.covariance, float) else len(self.covariance)

    @cached_property
    def _factor(self) -> Array:
        """F (d, m) with F F' = N."""
        metric = Metric.of(np.asarray(self.covariance), float(np.finfo(float).eps))
        scaled: Array = metric.basis * np.sqrt(np.maximum(metric.spectrum, 0.0))
        return scaled[:, : metric.rank]

    def _mean(self, rows: Floats) -> Floats:
        return rows

    def _spread(self, state: State) -> Array:
        if isinstance(self.covariance, float):
            return np.asarray(self.covariance * np.eye(len(state.mean)))
        return self.covariance

    def _draw(self, x: Floats, rng: np.random.Generator) -> Floats:
        if isinstance(self.covariance, float):
            noise = rng.standard_normal(x.shape, dtype=x.dtype.type)
            return np.asarray(x + x.dtype.type(math.sqrt(self.covariance)) * noise)
        factor = self._factor.astype(x.dtype)
        shape = len(x), factor.shape[1]
        return np.asarray(x + rng.standard_normal(shape, dtype=x.dtype.type) @ factor.T)

    def _scaled(self, strength: float) -> Augmentation:
        return Noise(strength * self.covariance)

    @property
    def _is_pencil(self) -> bool:
        return True


@dataclass(frozen=True)
class Mask(Augmentation):
    """Every entry is kept with probability `keep`, else set to zero.

    Parameters
    ----------
    keep : float
        p in [0, 1].
    rescale : bool
        Whether what is kept is divided by p, as dropout does, so that the mean stays.

    Raises
    ------
    ValueError
        For a probability outside [0, 1], or 0 with `rescale`.
    TypeError
        For arguments of the wrong kind.

    Notes
    -----
    Source: theory 6: Sigma_u -> p^2 Sigma_u + p (1 - p) diag(Sigma_u), A_u -> p^2 A_u. Strength s:
    p -> p^s.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> pyssl.augment.Mask(0.5).moments(np.eye(2)).alignments
    array([0.5, 0.5])
    """

    keep: float
    rescale: bool = False

    def __post_init__(self) -> None:
        rescale = _checks.flag("rescale", self.rescale)
        keep = _checks.real("keep", self.keep, minimum=0.0, maximum=1.0, open_minimum=rescale)
        object.__setattr__(self, "keep", keep)

    @property
    def _unit(self) -> float:
        """What a kept entry is multiplied with."""
        return 1.0 / self.keep if self.rescale else 1.0

    def _mean(self, rows: Floats) -> Floats:
        return rows if self.rescale else rows * rows.dtype.type(self.keep)

    def _spread(self, state: State) -> Array:
        variance = self._unit**2 * self.keep * (1.0 - self.keep)
        return np.diag(variance * np.diag(state.second_moment))

    def _draw(self, x: Floats, rng: np.random.Generator) -> Floats:
        kept = rng.random(x.shape, dtype=x.dtype.type) < self.keep
        return np.asarray(x * kept * x.dtype.type(self._unit))

    def _scaled(self, strength: float) -> Augmentation:
        return replace(self, keep=self.keep**strength)


@dataclass(frozen=True, eq=False)
class Reflection(Augmentation):
    """With some probability a sample is reflected: its component along v changes sign.

    Parameters
    ----------
    vector : (d,) array_like
        v, of any length but 0.
    probability : float
        p in [0, 1].

    Raises
    ------
    ValueError
        For a vector of zeros or of a wrong shape, NaN or infinity, or a probability outside [0, 1].
    TypeError
        For arguments of the wrong kind.

    Notes
    -----
    Source: theory 6, with E T = I - 2 p vv'. Strength s: p -> s p up to 1/2, which mixes most (or
    up to p, where that is larger).

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> pyssl.augment.Reflection([1.0, 0.0]).moments(np.eye(2)).alignments
    array([1., 0.])
    """

    vector: Array
    probability: float = 0.5

    def __post_init__(self) -> None:
        v = _checks.array("vector", self.vector, ndim=1).astype(np.float64)
        largest = float(np.abs(v).max(initial=0.0))
        if largest == 0.0:
            raise ValueError(f"vector must not be zero, got {v}")
        v /= largest
        v /= np.linalg.norm(v)
        object.__setattr__(self, "vector", readonly(v))
        object.__setattr__(self, "probability", probability("probability", self.probability))

    @property
    def dim(self) -> int | None:
        return len(self.vector)

    def _mean(self, rows: Floats) -> Floats:
        v = self.vector.astype(rows.dtype)
        return np.asarray(rows - rows.dtype.type(2.0 * self.probability) * np.outer(rows @ v, v))

    def _spread(self, state: State) -> Array:
        v, p = self.vector, self.probability
        along = float(v @ state.covariance @ v) + float(v @ state.mean) ** 2
        return np.asarray(4.0 * p * (1.0 - p) * along * np.outer(v, v))

    def _draw(self, x: Floats, rng: np.random.Generator) -> Floats:
        v = self.vector.astype(x.dtype)
        turned = rng.random(len(x)) < self.probability
        return np.asarray(x - 2 * np.outer(turned * (x @ v), v))

    def _scaled(self, strength: float) -> Augmentation:
        limit = max(0.5, self.probability)
        return replace(self, probability=min(strength * self.probability, limit))


@dataclass(frozen=True, eq=False)
class Group(Augmentation):
    """A uniformly drawn element of a finite group of orthogonal maps.

    Parameters
    ----------
    maps : (m, d, d) or (m, d) array_like, or a tuple of such
        The elements as matrices, or as permutations p with (g x)_i = x_p[i] (integers). A tuple
        holds the factors of a product: an element is a product of one map from each, the first
        applied first.
    probability : float, optional
        That an element is drawn; else the sample stays as it is.

    Raises
    ------
    ValueError
        For a wrong shape, NaN or infinity, a map that is not orthogonal, a mean of the maps that is
        no orthogonal projection (that of a group is: the projection on what no element changes), or
        a probability outside [0, 1].
    TypeError
        For arguments of the wrong kind.

    See Also
    --------
    Group.shifts : cyclic shifts of a grid.
    Group.flips : its reflections.

    Notes
    -----
    Source: theory 6: A is projected on the invariants from both sides, Sigma_u averaged over the
    group. Strength s: the probability is multiplied by s, up to 1.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> signs = pyssl.augment.Group([np.eye(2), np.diag([1.0, -1.0])])
    >>> signs.moments(np.eye(2)).alignments
    array([1., 0.])
    """

    maps: Any
    probability: float = 1.0

    def __post_init__(self) -> None:
        given = self.maps if isinstance(self.maps, tuple) else (self.maps,)
        if not given:
            raise ValueError("maps must hold at least one map, got none")
        factors = tuple(
            readonly(_orthogonal("maps" if len(given) == 1 else f"maps[{i}]", maps))
            for i, maps in enumerate(given)
        )
        d = factors[0].shape[1]
        for index, maps in enumerate(factors):
            if maps.shape[1] != d:
                raise ValueError(f"maps[{index}] must act on {d} inputs, got {maps.shape}")
        object.__setattr__(self, "maps", factors)
        object.__setattr__(self, "probability", probability("probability", self.probability))
        p = self._projection
        gap = max(float(np.abs(p - p.T).max()), float(np.abs(p @ p - p).max()))
        if gap > _checks.rounding(np.eye(d), float(np.finfo(float).eps)):
            raise ValueError(
                "maps must be a group, whose mean is an orthogonal projection, got one that misses"
                f" that by {gap:.3g}"
            )

    @classmethod
    def shifts(cls, shape: int | tuple[int, ...], probability: float = 1.0) -> Group:
        """Return the cyclic shifts of a grid, along every axis by any distance.

        Parameters
        ----------
        shape : int or tuple of int
            Of the grid, whose entries are the inputs in C order: (height, width) for images.
        probability : float, optional
            That a shift is drawn.

        Returns
        -------
        Group

        Raises
        ------
        ValueError
            For a length below 1, or a probability outside [0, 1].
        TypeError
            For lengths that are no integers.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> pyssl.augment.Group.shifts(4).moments(np.eye(4)).alignments.round(12)
        array([1., 0., 0., 0.])
        """
        lengths = _lengths(shape)
        index = np.arange(math.prod(lengths)).reshape(lengths)
        factors = tuple(
            np.stack([np.roll(index, step, axis).ravel() for step in range(length)])
            for axis, length in enumerate(lengths)
        )
        return cls(factors, probability)

    @classmethod
    def flips(
        cls,
        shape: int | tuple[int, ...],
        axes: int | tuple[int, ...] | None = None,
        probability: float = 1.0,
    ) -> Group:
        """Return the reflections of a grid along some of its axes.

        Parameters
        ----------
        shape : int or tuple of int
            Of the grid, whose entries are the inputs in C order: (height, width) for images.
        axes : int or tuple of int, optional
            Along which to flip, each with even odds; all by default.
        probability : float, optional
            That an element is drawn.

        Returns
        -------
        Group

        Raises
        ------
        ValueError
            For a length below 1, an axis that the grid does not have, or a probability outside
            [0, 1].
        TypeError
            For lengths or axes that are no integers.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> pyssl.augment.Group.flips((2, 2), axes=1).sample([[1.0, 2.0, 3.0, 4.0]], rng=1)
        array([[2., 1., 4., 3.]])
        """
        lengths = _lengths(shape)
        chosen = range(len(lengths)) if axes is None else axes
        index = np.arange(math.prod(lengths)).reshape(lengths)
        factors = []
        for axis in chosen if isinstance(chosen, range | tuple | list) else (chosen,):
            number = _checks.integer("axes", axis)
            if not -len(lengths) <= number < len(lengths):
                raise ValueError(f"axes must name axes of a grid {lengths}, got {number}")
            factors.append(np.stack([index.ravel(), np.flip(index, number).ravel()]))
        return cls(tuple(factors), probability)

    @property
    def dim(self) -> int | None:
        return int(self.maps[0].shape[1])

    @cached_property
    def _projection(self) -> Array:
        """The mean P of the maps, (d, d)."""
        d = self.maps[0].shape[1]
        result = np.eye(d)
        for maps in self.maps:
            mean = maps.mean(axis=0) if maps.ndim == 3 else np.zeros((d, d))
            if maps.ndim == 2:
                for order in maps:
                    mean[np.arange(d), order] += 1.0 / len(maps)
            result = mean @ result
        return readonly(result)

    def _moving(self, rows: Floats) -> Floats:
        """Apply I - P, the projection on what the group moves, to every row."""
        return np.asarray(rows - rows @ self._projection.T)

    def _averaged(self, matrix: Array) -> Array:
        """Return the mean of g M g'."""
        for maps in self.maps:
            total = np.zeros_like(matrix)
            for g in maps:
                total += matrix[g][:, g] if g.ndim == 1 else g @ matrix @ g.T
            matrix = total / len(maps)
        return matrix

    def _mean(self, rows: Floats) -> Floats:
        return np.asarray(rows - self.probability * self._moving(rows))

    def _spread(self, state: State) -> Array:
        # P g = g P = P: only what the group moves, Q Sigma_u Q with Q = I - P, spreads
        moved = self._moving(state.mean[None])[0]
        inside = sandwiched(self._moving, state.covariance) + np.outer(moved, moved)
        q = self.probability
        return symmetrised(q * (1.0 - q) * inside + q * self._averaged(inside))

    def _draw(self, x: Floats, rng: np.random.Generator) -> Floats:
        acts = rng.random(len(x)) < self.probability
        result = x[acts]
        for maps in self.maps:
            choice = rng.integers(len(maps), size=len(result))
            if maps.ndim == 2:
                result = np.take_along_axis(result, maps[choice], axis=1)
                continue
            for index in np.unique(choice):
                rows = choice == index
                result[rows] = result[rows] @ maps[index].T.astype(x.dtype)
        drawn = x.copy()
        drawn[acts] = result
        return drawn

    def _scaled(self, strength: float) -> Augmentation:
        return replace(self, probability=min(strength * self.probability, 1.0))


@dataclass(frozen=True, eq=False)
class Scale(Interpolated):
    """Every sample is multiplied by a random number.

    Parameters
    ----------
    mean, variance : float
        Of the number.
    sampler : callable, optional
        ``sampler(rng, n)`` draws n such numbers, (n,); by default uniform ones of that mean and
        variance.
    strength : float, optional
        See `Augmentation.with_strength`: 1 + min(s, 1) (mean - 1) and s times the variance.

    Raises
    ------
    ValueError
        For a negative variance, NaN or infinity.
    TypeError
        For arguments of the wrong kind.

    See Also
    --------
    Scale.uniform : given by the interval.

    Notes
    -----
    Source: theory 6: Sigma_u -> E a^2 Sigma_u, A_u -> (E a)^2 A_u.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> pyssl.augment.Scale(mean=1.0, variance=0.25).moments(np.eye(2)).alignments
    array([0.8, 0.8])
    """

    mean: float = 1.0
    variance: float = 0.0
    sampler: Callable[[np.random.Generator, int], npt.ArrayLike] | None = None

    def __post_init__(self) -> None:
        self._check_strength()
        object.__setattr__(self, "mean", _checks.real("mean", self.mean))
        variance = _checks.real("variance", self.variance, minimum=0.0)
        object.__setattr__(self, "variance", variance)
        _callable("sampler", self.sampler)

    @classmethod
    def uniform(cls, low: float, high: float) -> Scale:
        """Return the scale by a uniform number.

        Parameters
        ----------
        low, high : float
            The ends of its interval.

        Returns
        -------
        Scale

        Raises
        ------
        ValueError
            For ``high < low``, NaN or infinity.
        TypeError
            For ends that are no real numbers.

        Examples
        --------
        >>> import pyssl
        >>> pyssl.augment.Scale.uniform(0.5, 1.5).mean
        1.0
        """
        start = _checks.real("low", low)
        end = _checks.real("high", high, minimum=start)
        return cls(0.5 * start + 0.5 * end, (end - start) ** 2 / 12.0)

    def _full_mean(self, rows: Floats) -> Floats:
        return np.asarray(rows * rows.dtype.type(self.mean))

    def _full_spread(self, state: State) -> Array:
        return np.asarray(self.variance * state.second_moment)

    def _full_draw(self, x: Floats, rng: np.random.Generator) -> Floats:
        n = len(x)
        if self.sampler is None:
            half = math.sqrt(3.0 * self.variance)
            a = rng.uniform(self.mean - half, self.mean + half, size=n)
        else:
            a = returned("sampler", self.sampler(rng, n), (n,))
        return np.asarray(x * a[:, None].astype(x.dtype))

    @property
    def _is_pencil(self) -> bool:
        return self.mean == 1.0


@dataclass(frozen=True, eq=False)
class Linear(Interpolated):
    """A random linear map, given by its mean and its second order, or by drawing from it.

    Parameters
    ----------
    mean : (d', d) array_like
        E T.
    second_order : callable, optional
        ``second_order(M)`` returns E T M T', (d', d'), of a symmetric M (d, d).
    sampler : callable, optional
        ``sampler(rng, n)`` draws n maps, (n, d', d).
    strength : float, optional
        See `Augmentation.with_strength`.

    Raises
    ------
    ValueError
        For a wrong shape, NaN or infinity; later, for a callable that returns such, or a second
        order that leaves no positive semidefinite covariance.
    TypeError
        For arguments of the wrong kind.

    See Also
    --------
    OneOf : a choice between finitely many maps, exact without any callable.

    Notes
    -----
    Source: theory 6. With neither callable the map is not random. With a sampler alone, what theory
    calls E T Sigma_u T' is the average over 4096 maps, always the same, about the given mean: good
    to 2% or so. The second order, from which a subtraction makes C, costs C digits where the map
    hardly varies.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> half = pyssl.augment.Linear([[0.5, 0.5]])
    >>> half.moments(np.eye(2)).covariance
    array([[0.5]])
    """

    mean: Array
    second_order: Callable[[Array], npt.ArrayLike] | None = None
    sampler: Callable[[np.random.Generator, int], npt.ArrayLike] | None = None

    def __post_init__(self) -> None:
        self._check_strength()
        matrix = _checks.array("mean", self.mean, ndim=2).astype(np.float64)
        if 0 in matrix.shape:
            raise ValueError(f"mean must be (d', d) with both >= 1, got {matrix.shape}")
        _checks.squarable("mean", matrix)
        object.__setattr__(self, "mean", readonly(matrix))
        _callable("second_order", self.second_order)
        _callable("sampler", self.sampler)

    @property
    def dim(self) -> int | None:
        return self.mean.shape[1]

    @property
    def output_dim(self) -> int | None:
        return self.mean.shape[0]

    def _full_mean(self, rows: Floats) -> Floats:
        return np.asarray(rows @ self.mean.T.astype(rows.dtype))

    def _full_spread(self, state: State) -> Array:
        size = self.mean.shape[0]
        if self.second_order is not None:
            raw = returned("second_order", self.second_order(state.second_moment), (size, size))
            total, eps = _checks.symmetric("what second_order returned", raw)
            spread: Array = total - self.mean @ state.second_moment @ self.mean.T
            tolerance = _checks.rounding(total, eps)
            _checks.semidefinite("second_order(M) - mean M mean'", spread, tolerance)
            return symmetrised(spread)
        spread = np.zeros((size, size))
        if self.sampler is not None:
            rng = np.random.default_rng(_SEED)
            block = max(_DRAWN_ENTRIES // self.mean.size, 1)
            for start in range(0, _MAPS, block):
                maps = self._maps(rng, min(block, _MAPS - start)) - self.mean
                halfway = maps @ state.second_moment
                spread += np.tensordot(halfway, maps, axes=((0, 2), (0, 2))) / _MAPS
        return symmetrised(spread)

    def _rounding(self, state: State) -> float:
        if self.second_order is None:
            return 0.0
        size = float(np.linalg.norm(self.mean, 2)) ** 2
        return self.strength * size * float(np.linalg.norm(state.second_moment))

    def _maps(self, rng: np.random.Generator, n: int) -> Array:
        assert self.sampler is not None
        return returned("sampler", self.sampler(rng, n), (n, *self.mean.shape))

    def _full_draw(self, x: Floats, rng: np.random.Generator) -> Floats:
        if self.sampler is None:
            if self.second_order is not None:
                raise NotImplementedError("Linear.sample: a random map needs a sampler; give one")
            return self._full_mean(x)
        result = np.empty((len(x), self.mean.shape[0]), x.dtype)
        block = max(_DRAWN_ENTRIES // self.mean.size, 1)
        for start in range(0, len(x), block):
            rows = x[start : start + block]
            maps = self._maps(rng, len(rows)).astype(x.dtype)
            result[start : start + block] = (maps @ rows[..., None])[..., 0]
        return result

    @property
    def _is_pencil(self) -> bool:
        return np.array_equal(self.mean, np.eye(len(self.mean)))


# ---- checks --------------------------------------------------------------------------------------


def probability(name: str, value: Any) -> float:
    """Return a number in [0, 1]."""
    return _checks.real(name, value, minimum=0.0, maximum=1.0)


def returned(name: str, value: Any, shape: tuple[int, ...]) -> Floats:
    """Return what a user's function made, if it has the shape that it should."""
    result = _checks.array(f"what {name} returned", value)
    if result.shape != shape:
        raise ValueError(f"{name} must return {shape}, got {result.shape}")
    return result


def _callable(name: str, value: Any) -> None:
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable or None, got {type(value).__name__}")


def _lengths(shape: Any) -> tuple[int, ...]:
    lengths = shape if isinstance(shape, tuple | list) else (shape,)
    if not lengths:
        raise ValueError(f"shape must have at least one length, got {shape}")
    return tuple(_checks.integer("shape", length, minimum=1) for length in lengths)


def _orthogonal(name: str, value: Any) -> npt.NDArray[Any]:
    """Return permutations (m, d) of integers, or orthogonal matrices (m, d, d)."""
    maps = _checks.array(name, value)
    if (
        maps.ndim not in (2, 3)
        or 0 in maps.shape
        or (maps.ndim == 3 and len(set(maps.shape[1:])) > 1)
    ):
        raise ValueError(f"{name} must be (m, d, d) or (m, d), got {maps.shape}")
    d = maps.shape[1]
    if maps.ndim == 2:
        orders = maps.astype(np.intp)
        wrong = (orders != maps).any(axis=1) | (np.sort(orders, axis=1) != np.arange(d)).any(axis=1)
        if wrong.any():
            first = int(np.argmax(wrong))
            raise ValueError(f"{name} must hold permutations of 0..{d - 1}, got {maps[first]}")
        return orders
    wide = maps.astype(np.float64)
    eps = float(np.finfo(maps.dtype).eps)
    for index, g in enumerate(wide):
        gap = float(np.abs(g @ g.T - np.eye(d)).max())
        if gap > _checks.rounding(np.eye(d), eps):
            raise ValueError(
                f"{name}[{index}] must be orthogonal, got g g' - I with an entry of {gap:.3g}"
            )
    return wide
