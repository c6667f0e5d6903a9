"""Augmentations of vectors: noise, masks and reflections (theory 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pyssl import _checks
from pyssl._pencil import Array, Metric, readonly
from pyssl.augment._base import Augmentation, Floats, State, is_sequence, probability

__all__ = ["Mask", "Noise", "Reflection"]


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
        if not is_sequence(self.covariance):
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
