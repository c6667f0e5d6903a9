"""The potentials r of spectral landscapes, Tr r(W S W'): built-in ones and the user's own.

A potential acts on the eigenvalues n >= 0 of W S W'. It satisfies r(0) = r'(0) = 0 and r' strictly
increasing (theory 2), so that a mode with pencil eigenvalue lambda grows to the amplitude n at
which r'(n) = lambda.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _checks

__all__ = ["CustomPotential", "InfoNCEPotential", "Potential", "Quartic"]

Array = npt.NDArray[np.float64]
Scalar = Callable[[float], float]


class Potential(ABC):
    """A potential r(n) with r(0) = r'(0) = 0 and r' strictly increasing.

    All methods are elementwise on float64 arrays of eigenvalues n >= 0. Subclass it, or make one
    from three functions with `CustomPotential`.

    Attributes
    ----------
    slope_limit : float
        r'(inf). A mode whose pencil eigenvalue reaches it has no finite amplitude.
    asymptote : float
        The limit of r(n) - slope_limit * n, the value of a mode exactly at `slope_limit`.

    Notes
    -----
    Source: theory 2.

    Examples
    --------
    >>> import pyssl
    >>> isinstance(pyssl.Quartic(1.0), pyssl.Potential)
    True
    """

    slope_limit: float = math.inf
    asymptote: float = -math.inf

    @abstractmethod
    def value(self, n: Array) -> Array:
        """Return r(n)."""

    @abstractmethod
    def slope(self, n: Array) -> Array:
        """Return r'(n)."""

    @abstractmethod
    def curvature(self, n: Array) -> Array:
        """Return r''(n)."""

    @abstractmethod
    def amplitude(self, slope: Array, deficit: Array) -> Array:
        """Return the n at which r'(n) = `slope`, for 0 <= slope < r'(inf).

        `deficit` is slope_limit - slope, given beside the slope because near the limit only it
        carries the digits (theory 2.2).
        """

    def gain(self, n: Array, slope: Array, deficit: Array) -> Array:
        """Return r(n) - `slope` n at the `amplitude` n, what the mode adds to the value.

        `deficit` as for `amplitude`: near the limit the two terms cancel.
        """
        return self.value(n) - slope * n

    def slope_quotient(self, a: Array, b: Array) -> Array:
        """Return (r'(a) - r'(b))/(a - b), and r''(a) where a = b.

        Between neighbours, where the difference loses its digits, it is the mean of r'' from a to b
        by Gauss's rule.
        """
        a, b = np.broadcast_arrays(a, b)
        # balances the quotient's rounding, eps/gap, against the rule's error, O(gap^6)
        near = np.abs(a - b) <= 1e-3 * np.maximum(a, b)
        gap = np.where(near, 1.0, a - b)
        quotient = (self.slope(a) - self.slope(b)) / gap
        middle, offset = 0.5 * (a + b), math.sqrt(0.15) * (a - b)
        outer = self.curvature(middle - offset) + self.curvature(middle + offset)
        mean = (5.0 * outer + 8.0 * self.curvature(middle)) / 18.0
        return np.where(near, mean, quotient)


@dataclass(frozen=True)
class Quartic(Potential):
    """The potential r(n) = q n^2 of a landscape that is a quartic in W: the paper's.

    Parameters
    ----------
    coefficient : float
        q > 0.

    Raises
    ------
    ValueError
        For a coefficient that is not positive and finite.
    TypeError
        For a coefficient that is no real number.

    Notes
    -----
    Source: theory 2 and 3.1 (effective landscapes).

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> pyssl.Quartic(0.5).slope(np.array([1.0, 2.0]))
    array([1., 2.])
    """

    coefficient: float

    def __post_init__(self) -> None:
        q = _checks.real("coefficient", self.coefficient, minimum=0.0, open_minimum=True)
        object.__setattr__(self, "coefficient", q)

    def value(self, n: Array) -> Array:
        return self.coefficient * n * n

    def slope(self, n: Array) -> Array:
        return 2.0 * self.coefficient * n

    def curvature(self, n: Array) -> Array:
        return np.full(np.shape(n), 2.0 * self.coefficient)

    def amplitude(self, slope: Array, deficit: Array) -> Array:
        return slope / (2.0 * self.coefficient)

    def slope_quotient(self, a: Array, b: Array) -> Array:
        return np.full(np.broadcast_shapes(np.shape(a), np.shape(b)), 2.0 * self.coefficient)


@dataclass(frozen=True)
class InfoNCEPotential(Potential):
    """The potential of the InfoNCE population landscape on Gaussian views, infinite negatives.

    Parameters
    ----------
    temperature : float
        tau > 0.
    similarity : {"sqeuclidean", "dot"}
        Logit -|z - z'|^2/(2 tau) or z.z'/tau.
    partition : {"conditional", "joint"}
        Whether the logarithm of the mean over negatives is taken for each anchor and then averaged
        (InfoNCE), or of the mean over anchors and negatives (uniformity).

    Raises
    ------
    ValueError
        For a temperature that is not positive and finite, or an unknown similarity or partition.
    TypeError
        For arguments of the wrong kind.

    Notes
    -----
    Source: theory 3.1, the table of population forms. With x = n/tau:

    ==========================  ==========================================  ============
    form                        r                                           r'(inf)
    ==========================  ==========================================  ============
    dot, conditional            x^2/2                                       inf
    dot, joint                  -log(1 - x^2)/2, for n < tau                inf (at tau)
    sqeuclidean, conditional    (x - log1p x)/2 + x^2/(2(1 + x))            1/tau
    sqeuclidean, joint          x - log1p(2x)/2                             1/tau
    ==========================  ==========================================  ============

    Outside the domain of "dot, joint" the value is inf and the derivatives are nan.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> potential = pyssl.InfoNCEPotential(0.5)
    >>> n = potential.amplitude(np.array([1.0]), np.array([1.0]))
    >>> potential.slope(n)
    array([1.])
    """

    temperature: float
    similarity: str = "sqeuclidean"
    partition: str = "conditional"
    slope_limit: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tau = _checks.real("temperature", self.temperature, minimum=0.0, open_minimum=True)
        _checks.choice("similarity", self.similarity, ("sqeuclidean", "dot"))
        _checks.choice("partition", self.partition, ("conditional", "joint"))
        object.__setattr__(self, "temperature", tau)
        limit = 1.0 / tau if self.similarity == "sqeuclidean" else math.inf
        object.__setattr__(self, "slope_limit", limit)

    @property
    def _form(self) -> tuple[str, str]:
        return self.similarity, self.partition

    def value(self, n: Array) -> Array:
        x = n / self.temperature
        match self._form:
            case ("dot", "conditional"):
                return 0.5 * x * x
            case ("dot", "joint"):
                outside = x >= 1.0
                return np.where(outside, np.inf, -0.5 * np.log1p(-(np.where(outside, 0.0, x) ** 2)))
            case ("sqeuclidean", "conditional"):
                return 0.5 * _minus_log1p(x) + 0.5 * x * (x / (1.0 + x))
            case _:
                return 0.5 * _minus_log1p(2.0 * x)

    def slope(self, n: Array) -> Array:
        x = n / self.temperature
        match self._form:
            case ("dot", "conditional"):
                scaled = x
            case ("dot", "joint"):
                x = _inside(x)
                scaled = x / ((1.0 - x) * (1.0 + x))
            case ("sqeuclidean", "conditional"):
                scaled = 0.5 * (x / (1.0 + x)) * ((3.0 + 2.0 * x) / (1.0 + x))
            case _:
                scaled = 2.0 * x / (1.0 + 2.0 * x)
        return np.asarray(scaled / self.temperature)

    def curvature(self, n: Array) -> Array:
        return self.slope_quotient(n, n)

    def slope_quotient(self, a: Array, b: Array) -> Array:
        # In y = 1/(1 + x) and the like every slope is a polynomial, so the quotient has no
        # subtraction left in it and stays exact between neighbours.
        a, b = a / self.temperature, b / self.temperature
        match self._form:
            case ("dot", "conditional"):
                scaled = np.ones(np.broadcast_shapes(np.shape(a), np.shape(b)))
            case ("dot", "joint"):
                a, b = _inside(a), _inside(b)
                scaled = (1.0 + a * b) / ((1.0 - a) * (1.0 + a) * (1.0 - b) * (1.0 + b))
            case ("sqeuclidean", "conditional"):
                a, b = 1.0 / (1.0 + a), 1.0 / (1.0 + b)
                scaled = 0.5 * a * b * (1.0 + a + b)
            case _:
                scaled = 2.0 / (1.0 + 2.0 * a) / (1.0 + 2.0 * b)
        return np.asarray(scaled / self.temperature / self.temperature)

    def amplitude(self, slope: Array, deficit: Array) -> Array:
        t, e = self.temperature * slope, self.temperature * deficit
        match self._form:
            case ("dot", "conditional"):
                x = t
            case ("dot", "joint"):
                x = 2.0 * t / (1.0 + np.hypot(1.0, 2.0 * t))
            case ("sqeuclidean", "conditional"):
                root = np.sqrt(1.0 + 8.0 * e)
                # (1 - y)/y with y = 4e/(1 + root), and 1 - y = 4t/(3 + root) free of cancellation
                x = t / (3.0 + root) * (1.0 + root) / e
            case _:
                x = 0.5 * t / e
        return self.temperature * x

    def gain(self, n: Array, slope: Array, deficit: Array) -> Array:
        direct = super().gain(n, slope, deficit)
        if self.similarity == "dot":
            return direct
        # r = x - (a logarithm and less): of x - t x only e x is left; below x = 1 nothing cancels
        x, e = n / self.temperature, self.temperature * deficit
        if self.partition == "conditional":
            rest = 0.5 * (np.log1p(x) + x / (1.0 + x))
        else:
            rest = 0.5 * np.log1p(2.0 * x)
        return np.where(x < 1.0, direct, e * x - rest)


class CustomPotential(Potential):
    """A potential made of the user's own functions r, r' and r'', compiled by Numba.

    Parameters
    ----------
    r, r_prime, r_second : callable
        Scalar functions float -> float: plain Python that Numba can compile, or functions already
        decorated with ``numba.njit``. r(0) = r'(0) = 0, r' strictly increasing.
    slope_limit : float, optional
        r'(inf), infinite by default.
    asymptote : float, optional
        The limit of r(n) - slope_limit n, where `slope_limit` is finite.
    domain : float, optional
        The n at which r diverges, infinite by default.

    Raises
    ------
    ValueError
        Where the functions are not a potential: r(0) or r'(0) nonzero, r' not increasing, or one
        function not the derivative of the one before it.
    TypeError
        For something that can't be called or compiled.

    Notes
    -----
    Source: theory 2. Amplitudes come from a safeguarded Newton iteration on r'(n) = lambda. The
    functions are compiled when the potential is made (about a second).

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> sextic = pyssl.CustomPotential(lambda n: n**3 + n**2, lambda n: 3 * n**2 + 2 * n,
    ...                                lambda n: 6 * n + 2)
    >>> land = pyssl.SpectralLandscape(5 * np.eye(1), np.eye(1), sextic, embedding_dim=1)
    >>> land.minimum().amplitudes
    array([1.])
    """

    def __init__(
        self,
        r: Scalar,
        r_prime: Scalar,
        r_second: Scalar,
        *,
        slope_limit: float = math.inf,
        asymptote: float = -math.inf,
        domain: float = math.inf,
    ) -> None:
        bounds = {"minimum": 0.0, "open_minimum": True, "allow_infinite": True}
        self.slope_limit = _checks.real("slope_limit", slope_limit, **bounds)  # type: ignore[arg-type]
        self.asymptote = _checks.real("asymptote", asymptote, maximum=0.0, allow_infinite=True)
        self.domain = _checks.real("domain", domain, **bounds)  # type: ignore[arg-type]
        self._sources = tuple(
            _compiled(name, function)
            for name, function in (("r", r), ("r_prime", r_prime), ("r_second", r_second))
        )
        self._require_potential()

    def __repr__(self) -> str:
        names = ", ".join(function.__name__ for function in self._sources)
        return f"CustomPotential({names}, slope_limit={self.slope_limit:g})"

    def __reduce__(self) -> tuple[Any, ...]:
        options = {name: getattr(self, name) for name in ("slope_limit", "asymptote", "domain")}
        return _rebuild, (tuple(source.py_func for source in self._sources), options)

    def value(self, n: Array) -> Array:
        return np.asarray(self._ufuncs[0](n))

    def slope(self, n: Array) -> Array:
        return np.asarray(self._ufuncs[1](n))

    def curvature(self, n: Array) -> Array:
        return np.asarray(self._ufuncs[2](n))

    def amplitude(self, slope: Array, deficit: Array) -> Array:
        return np.asarray(self._ufuncs[3](slope))

    @cached_property
    def _ufuncs(self) -> tuple[Any, Any, Any, Any]:
        import numba

        r, r_prime, r_second = self._sources
        domain = self.domain
        vectorize: Any = numba.vectorize([numba.float64(numba.float64)])  # type: ignore[no-untyped-call]

        def amplitude(slope):  # type: ignore[no-untyped-def]
            if not slope > 0.0:
                return 0.0 * slope
            low, high = 0.0, min(1.0, 0.5 * domain)
            while r_prime(high) < slope:  # bracket the root
                low = high
                high = min(2.0 * high, 0.5 * (high + domain))
                if high == low:
                    return high
            n = high
            for _ in range(2000):  # Newton inside the bracket, bisection where it leaves it
                gap = r_prime(n) - slope
                if gap == 0.0:
                    return n
                if gap > 0.0:
                    high = n
                else:
                    low = n
                curvature = r_second(n)
                step = n - gap / curvature if curvature > 0.0 else low
                if not (low < step < high):
                    step = 0.5 * (low + high)
                if step in (n, low, high):
                    return step
                n = step
            return n

        def ufunc(function: Any) -> Any:
            def elementwise(n):  # type: ignore[no-untyped-def]
                return function(n)

            return vectorize(elementwise)

        return ufunc(r), ufunc(r_prime), ufunc(r_second), vectorize(amplitude)

    def _require_potential(self) -> None:
        zero = np.zeros(1)
        for name, at_zero in (("r", self.value(zero)[0]), ("r_prime", self.slope(zero)[0])):
            if not abs(at_zero) <= 1e-12:
                raise ValueError(f"{name} must be 0 at n = 0, got {at_zero:g}")
        n = (
            np.logspace(-3, 3, 61)
            if math.isinf(self.domain)
            else self.domain * np.linspace(0.01, 0.95, 61)
        )
        with np.errstate(over="ignore"):  # what grows like exp(n) is checked as far as it is finite
            overflown = np.isposinf(self.value(1.001 * n)) | np.isposinf(self.slope(1.001 * n))
        n = n[~overflown]
        slopes = self.slope(n)
        # a slope that has reached its limit within rounding may stand still there
        rising = np.diff(slopes) > 0.0
        saturated = slopes[1:] >= self.slope_limit * (1.0 - 1e-9)
        if not (rising | saturated).all():
            first = n[int(np.argmin(rising | saturated))]
            raise ValueError(f"r_prime must be strictly increasing, but it isn't at n = {first:g}")
        step = 1e-4 * n
        for name, function, derivative in (
            ("r_prime", self.value, slopes),
            ("r_second", self.slope, self.curvature(n)),
        ):
            inner, outer = (function(n + h) - function(n - h) for h in (step, 2.0 * step))
            difference = (8.0 * inner - outer) / (12.0 * step)
            scale = np.abs(derivative) + np.abs(function(n)) / n
            wrong = ~(np.abs(difference - derivative) <= 1e-4 * scale)
            if wrong.any():
                i = int(np.argmax(wrong))
                raise ValueError(
                    f"{name} must be the derivative of the function before it, got"
                    f" {derivative[i]:g} at n = {n[i]:g} where differences give {difference[i]:g}"
                )


def _compiled(name: str, function: Any) -> Any:
    import numba
    from numba.core.errors import NumbaError

    if not callable(function):
        raise TypeError(f"{name} must be a function float -> float, got {type(function).__name__}")
    compiled = function if hasattr(function, "py_func") else numba.njit(function)
    try:
        compiled(0.5)
    except NumbaError as error:
        reason = str(error).strip().splitlines()[0]
        raise TypeError(f"{name} can't be compiled by Numba: {reason}") from None
    return compiled


def _rebuild(functions: tuple[Any, ...], options: dict[str, Any]) -> CustomPotential:
    return CustomPotential(*functions, **options)


def _inside(x: Array) -> Array:
    """Mark what lies outside the domain x < 1 of the dot-joint form."""
    return np.where(x < 1.0, x, np.nan)


def _minus_log1p(x: Array) -> Array:
    """Return x - log1p(x), x >= 0, to full relative precision."""
    # The subtraction loses 2 log10(1/x) digits; below 0.01 nine terms of the series lose none.
    small = np.minimum(x, 0.01)
    series = np.zeros_like(small)
    for power in range(10, 1, -1):
        series = small * ((1.0 if power % 2 == 0 else -1.0) / power + series)
    series = small * series
    return np.where(x < 0.01, series, x - np.log1p(x))
