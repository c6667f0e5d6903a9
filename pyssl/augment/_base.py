"""What every augmentation can do, and how augmentations combine (theory 6)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._pencil import Array
from pyssl.moments import Moments

__all__ = [
    "Augmentation",
    "Composition",
    "Identity",
    "State",
    "augmentations",
    "is_sequence",
    "probability",
    "sandwiched",
    "symmetrised",
]

Floats = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class State:
    """The moments on their way through an augmentation, in a form that cancels nothing.

    A and the mean go through the mean map alone, C is added to, and Sigma_u is their sum: nothing
    is subtracted on the way, and nothing left to centre at the end.

    Attributes
    ----------
    cross : (d, d) A, centred.
    augmentation : (d, d) C = Sigma - A.
    mean : (d,).
    rounding : the norm that the rounding of C is relative to, beside its own; 0 where it keeps its
        digits.
    """

    cross: Array
    augmentation: Array
    mean: Array
    rounding: float = 0.0

    @cached_property
    def covariance(self) -> Array:
        """Sigma, (d, d)."""
        total: Array = self.cross + self.augmentation
        return total

    @cached_property
    def second_moment(self) -> Array:
        """Sigma_u, (d, d)."""
        total: Array = self.covariance + np.outer(self.mean, self.mean)
        return total

    @classmethod
    def of_clean(cls, covariance: Array, mean: Array) -> State:
        """Start from clean data: two equal views."""
        return cls(covariance, np.zeros_like(covariance), mean)

    def moments(self, n_samples: int | None, eps: float) -> Moments:
        """Return the moments that an augmentation has arrived at."""
        sigma, a, c = (symmetrised(s) for s in (self.covariance, self.cross, self.augmentation))
        _checks.magnitude("the covariance of the views", sigma, bounded_below=False)
        scale = self.rounding + float(np.linalg.norm(c)) if self.rounding else None
        return Moments._trusted(sigma, a, c, self.mean.copy(), n_samples, eps, scale)


class Augmentation(ABC):
    """A random affine map of a sample, drawn anew for every view.

    The augmentations of this module are frozen dataclasses. ``first | second`` applies `first`,
    then `second`.

    Attributes
    ----------
    dim : int or None
        The dimension of the samples that it takes; None for any.
    output_dim : int or None
        The dimension of the views that it makes; None for that of the samples.

    Notes
    -----
    Source: theory 6.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> augmentation = pyssl.augment.Scale(variance=0.1) | pyssl.augment.Noise(np.eye(2))
    >>> augmentation.dim
    2
    >>> augmentation.sample(np.ones((5, 2)), rng=0).shape
    (5, 2)
    """

    @property
    def dim(self) -> int | None:
        """The dimension of the samples that it takes; None for any."""
        return None

    @property
    def output_dim(self) -> int | None:
        """The dimension of the views that it makes; None for that of the samples."""
        return self.dim

    def moments(self, second_moment: npt.ArrayLike, mean: npt.ArrayLike | None = None) -> Moments:
        """Return the exact moments of two independent views of clean data.

        Parameters
        ----------
        second_moment : (d, d) array_like
            R = E xhat xhat' of the clean data, not centred.
        mean : (d,) array_like, optional
            E xhat; zero by default.

        Returns
        -------
        Moments

        Raises
        ------
        ValueError
            For a wrong shape or dimension, NaN or infinity, an asymmetric matrix, or one from which
            the mean leaves no positive semidefinite covariance.
        TypeError
            For input that does not hold real numbers.

        Notes
        -----
        Source: theory 6. C is carried through the maps by itself and keeps its digits, however weak
        the augmentation or large the mean.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.augment.Noise(1.0).moments(np.diag([3.0, 1.0]))
        >>> moments.alignments
        array([0.75, 0.5 ])
        """
        state, eps = self._start(second_moment, mean)
        return self._map(state).moments(None, eps)

    def sample(
        self, x: npt.ArrayLike, rng: np.random.Generator | int | None = None
    ) -> npt.NDArray[Any]:
        """Draw one view of every sample.

        Parameters
        ----------
        x : (n, d) array_like
            One sample a row.
        rng : numpy.random.Generator or int, optional
            The source of randomness, or its seed.

        Returns
        -------
        (n, output_dim) ndarray
            Drawn independently for every row; float32 if `x` is.

        Raises
        ------
        ValueError
            For a wrong shape or dimension, NaN or infinity.
        TypeError
            For input that does not hold real numbers.
        NotImplementedError
            For a `Linear` map that has no sampler.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> pyssl.augment.Mask(0.5).sample(np.ones((2, 4)), rng=0)
        array([[0., 1., 1., 1.],
               [0., 0., 0., 0.]])
        """
        rows = _checks.array("x", x, ndim=2)
        self._check_dim("x", rows)
        drawn: Floats = self._draw(rows, _checks.generator("rng", rng))
        return drawn.astype(rows.dtype, copy=drawn is rows)

    def with_strength(self, strength: float) -> Augmentation:
        """Return the augmentation at another strength: 0 is the identity, 1 what it is now.

        Parameters
        ----------
        strength : float
            s >= 0. `Noise` scales its covariance by s; `Mask` keeps entries with probability
            keep^s; `Reflection` and `Group` scale the probability that they act, up to what mixes
            most; `Blur` scales the squared width of its kernels. All other maps T go from the
            identity to their mean as s goes from 0 to 1, and the covariance of what deviates from
            that mean grows with s: T_s = I + min(s, 1) (E T - I) + sqrt(s) (T - E T). What
            changes the dimension has no identity to start from: there T_s = E T + sqrt(s) (T - E
            T). Compositions and choices scale every part.

        Returns
        -------
        Augmentation

        Raises
        ------
        ValueError
            For a strength that is negative or not finite.
        TypeError
            For a strength that is no real number.

        Examples
        --------
        >>> import pyssl
        >>> pyssl.augment.Mask(0.9).with_strength(2).keep
        0.81
        """
        return self._scaled(_checks.real("strength", strength, minimum=0.0))

    def family(self, second_moment: npt.ArrayLike, mean: npt.ArrayLike | None = None) -> Family:
        """Return the moments of clean data as a function of this augmentation's strength.

        Parameters
        ----------
        second_moment : (d, d) array_like
            R = E xhat xhat' of the clean data, not centred.
        mean : (d,) array_like, optional
            E xhat; zero by default.

        Returns
        -------
        Family
            Which `pyssl.sweep` takes for its moments: its axis ``augmentation_strength`` then is
            that of `with_strength`.

        Raises
        ------
        ValueError
            As `moments` does.
        TypeError
            As `moments` does.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> family = pyssl.augment.Mask(0.5).family(np.diag([4.0, 1.0]))
        >>> family(2.0).alignments
        array([0.25, 0.25])
        """
        return Family(self, *self._start(second_moment, mean))

    def __or__(self, other: Augmentation) -> Augmentation:
        """Apply this augmentation, then `other`."""
        if not isinstance(other, Augmentation):
            return NotImplemented
        return Composition((self, other))

    def _start(self, second_moment: Any, mean: Any) -> tuple[State, float]:
        """Return the state of validated clean data, and the eps of their dtype."""
        second, eps = _checks.symmetric("second_moment", second_moment, bounded_below=True)
        d = len(second)
        if self.dim is not None and d != self.dim:
            raise ValueError(
                f"second_moment must be ({self.dim}, {self.dim}) for this augmentation,"
                f" got {second.shape}"
            )
        offset = np.zeros(d) if mean is None else _checks.vector("mean", mean, d).copy()
        _checks.squarable("mean", offset)
        covariance = second - np.outer(offset, offset)
        tolerance = _checks.rounding(second, eps)
        _checks.semidefinite("second_moment - mean mean'", covariance, tolerance)
        return State.of_clean(covariance, offset), eps

    def _check_dim(self, name: str, rows: Floats) -> None:
        """Raise ValueError for samples that are not of the dimension that this takes."""
        if not rows.shape[1] or (self.dim is not None and rows.shape[1] != self.dim):
            expected = "(n, d) with d >= 1" if self.dim is None else f"(n, {self.dim})"
            raise ValueError(f"{name} must be {expected}, got {rows.shape}")

    def _moments_of(self, covariance: Array, mean: Array, n_samples: int) -> Moments:
        """Return the moments of views of clean data whose moments were estimated."""
        eps = float(np.finfo(np.float64).eps)
        return self._map(State.of_clean(covariance, mean)).moments(n_samples, eps)

    # T the random map: T xhat + e, with E e = 0.

    @abstractmethod
    def _mean(self, rows: Floats) -> Floats:
        """Apply E T to every row (m, d) -> (m, output_dim); `rows` itself, unchanged, may do."""

    @abstractmethod
    def _spread(self, state: State) -> Array:
        """Return E (T - E T) Sigma_u (T - E T)' + E e e', without a subtraction."""

    @abstractmethod
    def _draw(self, x: Floats, rng: np.random.Generator) -> Floats:
        """Draw a view of every row of validated samples, which stay as they are."""

    @abstractmethod
    def _scaled(self, strength: float) -> Augmentation:
        """Return the augmentation at a validated strength."""

    @property
    def _is_pencil(self) -> bool:
        """Whether the mean map does not depend on the strength, and C is linear in it."""
        return False

    def _rounding(self, state: State) -> float:
        """Return the norm that the rounding of `_spread` is relative to, 0 for its own."""
        return 0.0

    def _map(self, state: State) -> State:
        """Take the moments through the map: C to Tbar C Tbar' plus the spread (theory 6)."""
        return State(
            self._congruent(state.cross),
            self._congruent(state.augmentation) + self._spread(state),
            self._mean(state.mean[None])[0],
            state.rounding + self._rounding(state),
        )

    def _congruent(self, matrix: Array) -> Array:
        """Return Tbar M Tbar' of a symmetric M."""
        return (
            matrix
            if not matrix.any() and self.output_dim == self.dim
            else sandwiched(self._mean, matrix)
        )


@dataclass(frozen=True, eq=False, repr=False)
class Family:
    """The moments of given clean data at every strength of an augmentation.

    Made by `Augmentation.family`; it pickles.

    Attributes
    ----------
    augmentation : Augmentation
        At strength 1.

    Notes
    -----
    Source: theory 6.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> family = pyssl.augment.Mask(0.5).family(np.diag([4.0, 1.0]))
    >>> [round(float(family(s).alignments[0]), 6) for s in (0.0, 1.0, 2.0)]
    [1.0, 0.5, 0.25]
    """

    augmentation: Augmentation
    _clean: State
    _eps: float

    def __call__(self, augmentation_strength: float = 1.0) -> Moments:
        """Return the moments at a strength s >= 0, as `Augmentation.with_strength` has it."""
        strength = _checks.real("augmentation_strength", augmentation_strength, minimum=0.0)
        return self.augmentation._scaled(strength)._map(self._clean).moments(None, self._eps)

    def __repr__(self) -> str:
        return f"Family({self.augmentation!r}, dim={len(self._clean.mean)})"


@dataclass(frozen=True)
class Identity(Augmentation):
    """The augmentation that changes nothing.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> pyssl.augment.Identity().moments(np.eye(2)).alignments
    array([1., 1.])
    """

    def _mean(self, rows: Floats) -> Floats:
        return rows

    def _spread(self, state: State) -> Array:
        return np.zeros_like(state.cross)

    def _draw(self, x: Floats, rng: np.random.Generator) -> Floats:
        return x

    def _scaled(self, strength: float) -> Augmentation:
        return self

    @property
    def _is_pencil(self) -> bool:
        return True


@dataclass(frozen=True)
class Composition(Augmentation):
    """Augmentations one after another: what ``|`` makes.

    Parameters
    ----------
    parts : sequence of Augmentation
        From the first that a sample meets to the last; compositions among them are taken apart, so
        that composing is associative to the last bit.

    Raises
    ------
    ValueError
        For no parts, or a part that takes another dimension than the one before it makes.
    TypeError
        For parts that are no augmentations.

    Examples
    --------
    >>> import pyssl
    >>> from pyssl.augment import Mask, Noise
    >>> Noise(1.0) | Mask(0.9) | Noise(0.1)
    Composition(parts=(Noise(covariance=1.0), Mask(keep=0.9, rescale=False), Noise(covariance=0.1)))
    """

    parts: tuple[Augmentation, ...]

    def __post_init__(self) -> None:
        given = augmentations(self.parts)
        flat: list[Augmentation] = []
        for part in given:
            flat += part.parts if isinstance(part, Composition) else (part,)
        dim = None
        for index, part in enumerate(flat):
            if None not in (dim, part.dim) and part.dim != dim:
                raise ValueError(f"parts[{index}] must take {dim} inputs, got one of {part.dim}")
            dim = dim if part.output_dim is None else part.output_dim
        object.__setattr__(self, "parts", tuple(flat))

    @property
    def dim(self) -> int | None:
        return next((part.dim for part in self.parts if part.dim is not None), None)

    @property
    def output_dim(self) -> int | None:
        sizes = [part.output_dim for part in self.parts if part.output_dim is not None]
        return sizes[-1] if sizes else None

    def _mean(self, rows: Floats) -> Floats:
        for part in self.parts:
            rows = part._mean(rows)
        return rows

    def _map(self, state: State) -> State:
        for part in self.parts:
            state = part._map(state)
        return state

    def _spread(self, state: State) -> Array:
        # what the parts add where the views were equal before them
        return self._map(State.of_clean(state.covariance, state.mean)).augmentation

    def _rounding(self, state: State) -> float:
        return self._map(State.of_clean(state.covariance, state.mean)).rounding

    def _draw(self, x: Floats, rng: np.random.Generator) -> Floats:
        for part in self.parts:
            x = part._draw(x, rng)
        return x

    def _scaled(self, strength: float) -> Augmentation:
        return Composition(tuple(part._scaled(strength) for part in self.parts))

    @property
    def _is_pencil(self) -> bool:
        from pyssl.augment._maps import Noise

        acting = [part for part in self.parts if not isinstance(part, Identity)]
        # noise adds to noise; all else multiplies what came before
        together = len(acting) < 2 or all(isinstance(part, Noise) for part in acting)
        return together and all(part._is_pencil for part in acting)


# ---- helpers -------------------------------------------------------------------------------------


def symmetrised(matrix: Array) -> Array:
    """Return (M + M')/2."""
    half: Array = 0.5 * (matrix + matrix.T)
    return half


def is_sequence(value: Any) -> bool:
    """Return whether a value is a list, a tuple or an array, and no number."""
    array = hasattr(value, "__array__") and getattr(value, "ndim", 1) > 0
    return isinstance(value, list | tuple) or array


def sandwiched(apply: Any, matrix: Array) -> Array:
    """Return T M T' of a symmetric M, for an `apply` that maps every row by T."""
    return symmetrised(apply(np.ascontiguousarray(apply(matrix).T)))


def augmentations(value: Any) -> tuple[Augmentation, ...]:
    """Return `parts` as a tuple of augmentations."""
    try:
        parts = tuple(value)
    except TypeError:
        raise TypeError(f"parts must be augmentations, got {type(value).__name__}") from None
    if not parts:
        raise ValueError("parts must hold at least one augmentation, got none")
    for index, part in enumerate(parts):
        _checks.instance(f"parts[{index}]", part, Augmentation, "an augmentation")
    return parts


def probability(name: str, value: Any) -> float:
    """Return a number in [0, 1]."""
    return _checks.real(name, value, minimum=0.0, maximum=1.0)
