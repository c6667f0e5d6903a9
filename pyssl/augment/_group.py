"""Augmentations by a random element of a finite group (theory 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._pencil import Array, readonly
from pyssl.augment._base import (
    Augmentation,
    Floats,
    State,
    probability,
    sandwiched,
    symmetrised,
)

__all__ = ["Group"]


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


# ---- checks --------------------------------------------------------------------------------------


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
