"""Random linear maps: any, scales, and choices between augmentations (theory 6)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._pencil import Array, readonly
from pyssl.augment._base import (
    Augmentation,
    Floats,
    State,
    augmentations,
    sandwiched,
    symmetrised,
)

__all__ = ["Interpolated", "Linear", "OneOf", "Scale", "returned", "shares"]

# Maps that a sampler is asked for at a time: so many entries.
_DRAWN_ENTRIES = 1 << 22
# Maps that stand for the distribution of a `Linear` without second order, and their seed.
_MAPS, _SEED = 4096, 0


@dataclass(frozen=True, eq=False)
class Interpolated(Augmentation):
    """A random linear map whose strength mixes it with the identity; see `with_strength`.

    T_s = J + sqrt(s) (T - E T), with J = I + min(s, 1) (E T - I), or E T where that is not square.
    """

    strength: float = field(default=1.0, kw_only=True)

    def _check_strength(self) -> None:
        object.__setattr__(self, "strength", _checks.real("strength", self.strength, minimum=0.0))

    @abstractmethod
    def _full_mean(self, rows: Floats) -> Floats:
        """Apply E T, at strength 1."""

    @abstractmethod
    def _full_spread(self, state: State) -> Array:
        """Return what `_spread` is at strength 1."""

    @abstractmethod
    def _full_draw(self, x: Floats, rng: np.random.Generator) -> Floats:
        """Draw views at strength 1."""

    def _mean(self, rows: Floats) -> Floats:
        if self.strength >= 1.0 or self.output_dim != self.dim:
            return self._full_mean(rows)
        mixed: Floats = (1.0 - self.strength) * rows + self.strength * self._full_mean(rows)
        return mixed

    def _spread(self, state: State) -> Array:
        spread: Array = self.strength * self._full_spread(state)
        return spread

    def _draw(self, x: Floats, rng: np.random.Generator) -> Floats:
        drawn = self._full_draw(x, rng)
        if self.strength == 1.0:
            return drawn
        deviation = drawn - self._full_mean(x)
        return np.asarray(self._mean(x) + np.sqrt(self.strength).astype(x.dtype) * deviation)

    def _scaled(self, strength: float) -> Augmentation:
        return replace(self, strength=strength * self.strength)


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
        return len(self.mean[0])

    @property
    def output_dim(self) -> int | None:
        return len(self.mean)

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


@dataclass(frozen=True, eq=False)
class OneOf(Augmentation):
    """One of several augmentations, drawn at random for every view.

    Parameters
    ----------
    parts : sequence of Augmentation
        All from the same dimension to the same dimension.
    probabilities : (m,) array_like, optional
        Of the parts, with sum 1; all the same by default.

    Raises
    ------
    ValueError
        For no parts, parts of different dimensions, or probabilities that are negative or whose sum
        is not 1 within 1e-9.
    TypeError
        For parts that are no augmentations.

    Notes
    -----
    Source: theory 6, as a random linear map. Half the time nothing: ``OneOf((Identity(), x))``.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> from pyssl.augment import Identity, Noise, OneOf
    >>> OneOf([Identity(), Noise(1.0)], [0.75, 0.25]).moments(np.eye(2)).alignments
    array([0.8, 0.8])
    """

    parts: tuple[Augmentation, ...]
    probabilities: Array | None = None

    def __post_init__(self) -> None:
        parts = augmentations(self.parts)
        d = next((part.dim for part in parts if part.dim is not None), None)
        sizes = {part.output_dim or d for part in parts}
        for index, part in enumerate(parts):
            if d is not None and (part.dim or d) != d:
                raise ValueError(f"parts[{index}] must take {d} inputs, got one of {part.dim}")
        if len(sizes) > 1:
            raise ValueError(
                f"parts must make views of one dimension, got {sorted(s or 0 for s in sizes)}"
            )
        object.__setattr__(self, "parts", parts)
        p = shares("probabilities", self.probabilities, len(parts))
        object.__setattr__(self, "probabilities", readonly(p))

    @property
    def dim(self) -> int | None:
        return next((part.dim for part in self.parts if part.dim is not None), None)

    @property
    def output_dim(self) -> int | None:
        return next((part.output_dim for part in self.parts if part.output_dim is not None), None)

    @property
    def _weighted(self) -> list[tuple[float, Augmentation]]:
        assert self.probabilities is not None
        pairs = zip(self.probabilities.tolist(), self.parts, strict=True)
        return [(p, part) for p, part in pairs if p > 0.0]

    def _mean(self, rows: Floats) -> Floats:
        first, *rest = (p * part._mean(rows) for p, part in self._weighted)
        return np.asarray(sum(rest, start=first))

    def _spread(self, state: State) -> Array:
        tbar = self._mean(np.eye(len(state.mean)))  # (d, d'), the mean map transposed

        def deviating(part: Augmentation, rows: Floats) -> Floats:
            return np.asarray(part._mean(rows) - rows @ tbar)

        total = np.zeros((tbar.shape[1], tbar.shape[1]))
        for p, part in self._weighted:
            total += p * part._spread(state)
            total += p * sandwiched(lambda rows, part=part: deviating(part, rows), state.covariance)
            offset = deviating(part, state.mean[None])[0]
            total += p * np.outer(offset, offset)
        return total

    def _rounding(self, state: State) -> float:
        return sum(p * part._rounding(state) for p, part in self._weighted)

    def _draw(self, x: Floats, rng: np.random.Generator) -> Floats:
        choice = rng.choice(len(self.parts), size=len(x), p=self.probabilities)
        result = np.empty((len(x), self.output_dim or x.shape[1]), x.dtype)
        for index in np.unique(choice):
            rows = choice == index
            result[rows] = self.parts[index]._draw(x[rows], rng)
        return result

    def _scaled(self, strength: float) -> Augmentation:
        return OneOf(tuple(part._scaled(strength) for part in self.parts), self.probabilities)


# ---- checks --------------------------------------------------------------------------------------


def shares(name: str, value: Any, count: int) -> Array:
    """Return `count` probabilities of sum 1; equal ones for None."""
    if value is None:
        return np.full(count, 1.0 / count)
    p = _checks.vector(name, value, count).copy()
    if p.min() < 0.0 or p.max() > 1.0:
        worst = p.min() if p.min() < 0.0 else p.max()
        raise ValueError(f"{name} must lie in [0, 1], got {worst:g}")
    if abs(float(p.sum()) - 1.0) > 1e-9:
        raise ValueError(f"{name} must have sum 1, got {p.sum():.10g}")
    return np.asarray(p / p.sum())


def returned(name: str, value: Any, shape: tuple[int, ...]) -> Floats:
    """Return what a user's function made, if it has the shape that it should."""
    result = _checks.array(f"what {name} returned", value)
    if result.shape != shape:
        raise ValueError(f"{name} must return {shape}, got {result.shape}")
    return result


def _callable(name: str, value: Any) -> None:
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable or None, got {type(value).__name__}")
