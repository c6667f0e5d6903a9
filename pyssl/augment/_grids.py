"""Augmentations of images on 2-D grids, as linear maps: crops, resizing, blur (theory 6)."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from pyssl import _checks
from pyssl._pencil import Array
from pyssl.augment._base import Augmentation, Floats, State, is_sequence
from pyssl.augment._linear import Interpolated, OneOf, shares

__all__ = ["Blur", "Crop", "Resize"]


@dataclass(frozen=True, eq=False)
class _Separable(Augmentation):
    """The map of images X -> R X C', not random."""

    rows: Array  # (height', height)
    columns: Array  # (width', width)

    @property
    def dim(self) -> int | None:
        return int(self.rows.shape[1] * self.columns.shape[1])

    @property
    def output_dim(self) -> int | None:
        return int(self.rows.shape[0] * self.columns.shape[0])

    def _mean(self, rows: Floats) -> Floats:
        images = rows.reshape(len(rows), self.rows.shape[1], self.columns.shape[1])
        mapped = self.rows.astype(rows.dtype) @ images @ self.columns.T.astype(rows.dtype)
        return np.asarray(mapped.reshape(len(rows), len(self.rows) * len(self.columns)))

    def _spread(self, state: State) -> Array:
        size = self.rows.shape[0] * self.columns.shape[0]
        return np.zeros((size, size))

    def _draw(self, x: Floats, rng: np.random.Generator) -> Floats:
        return self._mean(x)

    def _scaled(self, strength: float) -> Augmentation:
        raise NotImplementedError("a part of Crop, Resize or Blur, which scale as a whole")


class _OnGrid(Augmentation):
    """A random choice between maps X -> R X C' of images."""

    @property
    @abstractmethod
    def _choice(self) -> OneOf: ...

    @property
    def dim(self) -> int | None:
        return self._choice.dim

    @property
    def output_dim(self) -> int | None:
        return self._choice.output_dim

    def _mean(self, rows: Floats) -> Floats:
        return self._choice._mean(rows)

    def _spread(self, state: State) -> Array:
        return self._choice._spread(state)

    def _draw(self, x: Floats, rng: np.random.Generator) -> Floats:
        return self._choice._draw(x, rng)


@dataclass(frozen=True, eq=False)
class Resize(_OnGrid):
    """Images are resampled to another size, by linear interpolation; not random.

    Parameters
    ----------
    shape : tuple of int
        (height, width) of the images, whose pixels are the inputs in C order.
    size : tuple of int
        (height, width) of the views.

    Raises
    ------
    ValueError
        For a shape or size that is not a pair of integers >= 1.
    TypeError
        For lengths that are no integers.

    Notes
    -----
    Source: theory 6. Where an image shrinks, the interpolating triangle is widened as much, so that
    every pixel counts. A strength changes nothing: there is nothing random.

    Examples
    --------
    >>> import pyssl
    >>> pyssl.augment.Resize((1, 4), (1, 2)).sample([[0.0, 1.0, 2.0, 3.0]]).round(3)
    array([[0.714, 2.286]])
    """

    shape: tuple[int, int]
    size: tuple[int, int]

    def __post_init__(self) -> None:
        for name in ("shape", "size"):
            object.__setattr__(self, name, _pair(name, getattr(self, name)))

    @cached_property
    def _choice(self) -> OneOf:
        rows, columns = (
            _resampling(old, new) for old, new in zip(self.shape, self.size, strict=True)
        )
        return OneOf((_Separable(rows, columns),))

    def _scaled(self, strength: float) -> Augmentation:
        return self


@dataclass(frozen=True, eq=False)
class Crop(Interpolated):
    """A window of an image, at a place drawn uniformly, resized if asked to.

    Parameters
    ----------
    shape : tuple of int
        (height, width) of the images, whose pixels are the inputs in C order.
    windows : tuple of int, or a sequence of them
        (height, width) of the window, or several, one of which is drawn with even odds.
    size : tuple of int, optional
        (height, width) that windows are resized to, as by `Resize`; that of the window by default.
    strength : float, optional
        See `Augmentation.with_strength`.

    Raises
    ------
    ValueError
        For a shape that is not a pair of integers >= 1, a window that does not fit the image, or
        windows of several sizes without `size`.
    TypeError
        For lengths that are no integers.

    Notes
    -----
    Source: theory 6. Exact, at the cost of two matrix products for each place of the window.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> crop = pyssl.augment.Crop((4, 4), (3, 3))
    >>> crop.dim, crop.output_dim
    (16, 9)
    >>> pyssl.augment.Crop((4, 4), [(3, 3), (4, 4)], size=(4, 4)).output_dim
    16
    """

    shape: tuple[int, int]
    windows: Any
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self._check_strength()
        shape = _pair("shape", self.shape)
        several = is_sequence(self.windows) and any(map(is_sequence, self.windows))
        listed = [
            _pair("windows", window) for window in (self.windows if several else [self.windows])
        ]
        for window in listed:
            if window[0] > shape[0] or window[1] > shape[1]:
                raise ValueError(f"windows must fit images of {shape}, got {window}")
        if self.size is None and len(set(listed)) > 1:
            raise ValueError(f"windows must be of one size unless size is given, got {listed}")
        size = listed[0] if self.size is None else _pair("size", self.size)
        for name, value in (("shape", shape), ("windows", tuple(listed)), ("size", size)):
            object.__setattr__(self, name, value)

    @cached_property
    def _choice(self) -> OneOf:
        maps, weights = [], []
        assert self.size is not None
        for window in self.windows:
            placed = [
                [
                    _resampling(part, new) @ np.eye(part, old, start)
                    for start in range(old - part + 1)
                ]
                for old, part, new in zip(self.shape, window, self.size, strict=True)
            ]
            here = [_Separable(rows, columns) for rows in placed[0] for columns in placed[1]]
            maps += here
            weights += [1.0 / len(here)] * len(here)
        return OneOf(tuple(maps), np.array(weights) / len(self.windows))

    @property
    def dim(self) -> int | None:
        return self.shape[0] * self.shape[1]

    @property
    def output_dim(self) -> int | None:
        return self._choice.output_dim

    def _full_mean(self, rows: Floats) -> Floats:
        return self._choice._mean(rows)

    def _full_spread(self, state: State) -> Array:
        return self._choice._spread(state)

    def _full_draw(self, x: Floats, rng: np.random.Generator) -> Floats:
        return self._choice._draw(x, rng)


@dataclass(frozen=True, eq=False)
class Blur(_OnGrid):
    """Images are smoothed by a Gaussian kernel, of a width drawn from a list.

    Parameters
    ----------
    shape : tuple of int
        (height, width) of the images, whose pixels are the inputs in C order.
    widths : float or sequence of float
        Standard deviations of the kernel in pixels, >= 0.
    probabilities : (m,) array_like, optional
        Of the widths, with sum 1; all the same by default.

    Raises
    ------
    ValueError
        For a shape that is not a pair of integers >= 1, a negative width, or wrong probabilities.
    TypeError
        For arguments of the wrong kind.

    Notes
    -----
    Source: theory 6. At the border the kernel is cut off and scaled back to sum 1. Strength s:
    squared widths are multiplied by s.

    Examples
    --------
    >>> import pyssl
    >>> pyssl.augment.Blur((1, 3), 1.0).sample([[0.0, 1.0, 0.0]]).round(3)
    array([[0.348, 0.452, 0.348]])
    """

    shape: tuple[int, int]
    widths: Any
    probabilities: Array | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _pair("shape", self.shape))
        listed = self.widths if is_sequence(self.widths) else (self.widths,)
        widths = tuple(_checks.real("widths", width, minimum=0.0) for width in listed)
        if not widths:
            raise ValueError("widths must hold at least one width, got none")
        object.__setattr__(self, "widths", widths)
        p = shares("probabilities", self.probabilities, len(widths))
        object.__setattr__(self, "probabilities", p)

    @cached_property
    def _choice(self) -> OneOf:
        maps = [
            _Separable(*(_smoothing(length, width) for length in self.shape))
            for width in self.widths
        ]
        return OneOf(tuple(maps), self.probabilities)

    def _scaled(self, strength: float) -> Augmentation:
        root = math.sqrt(strength)
        return replace(self, widths=tuple(root * width for width in self.widths))


# ---- helpers -------------------------------------------------------------------------------------


def _pair(name: str, value: Any) -> tuple[int, int]:
    try:
        height, width = value
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be (height, width), got {value!r}") from None
    return (
        _checks.integer(f"{name}[0]", height, minimum=1),
        _checks.integer(f"{name}[1]", width, minimum=1),
    )


def _normalised(kernel: Array) -> Array:
    rows: Array = kernel / kernel.sum(axis=1, keepdims=True)
    return rows


def _resampling(old: int, new: int) -> Array:
    """Return the matrix (new, old) of linear interpolation between the centres of pixels."""
    if old == new:
        return np.eye(old)
    step = old / new
    centres = (np.arange(new) + 0.5) * step
    distance = np.abs(centres[:, None] - (np.arange(old) + 0.5)) / max(step, 1.0)
    return _normalised(np.maximum(1.0 - distance, 0.0))


def _smoothing(length: int, width: float) -> Array:
    """Return the Gaussian kernel (length, length) of a standard deviation in pixels."""
    distance = np.subtract.outer(np.arange(length), np.arange(length))
    if width == 0.0:
        return np.eye(length)
    with np.errstate(over="ignore"):  # of the narrowest kernel, whose other entries are 0
        return _normalised(np.exp(-0.5 * (distance / width) ** 2))
