"""The front door: every coercion and validation of what a user hands in.

Nothing behind this module checks its input again. Each function takes the *name* of the argument
first, so that a message can say which argument is at fault and what was seen in it. ``ValueError``
is for shape and value, ``TypeError`` for kind and dtype.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["ThresholdWarning"]

Array: TypeAlias = npt.NDArray[Any]

# Asymmetry, indefiniteness and the like are judged relative to the largest entry of the matrix,
# with so many units in the last place for each dimension: what BLAS products of any blocking make.
_ULPS_PER_DIMENSION = 64.0

# Matrices of this magnitude can be multiplied with and divided by one another in float64; views are
# to have squares of this magnitude.
_SMALLEST, _LARGEST = 1e-140, 1e140
SQUARABLE = math.sqrt(_LARGEST)


class ThresholdWarning(UserWarning):
    """An eigenvalue lies within rounding of a threshold: the class could go either way.

    Examples
    --------
    >>> import warnings, numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(2), np.diag([0.5, 0.25]))
    >>> land = pyssl.InfoNCE().effective(moments, embedding_dim=2, weight_decay=0.5)
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     report = pyssl.classify(land)
    >>> caught[0].category.__name__
    'ThresholdWarning'
    """


# ---- scalars -------------------------------------------------------------------------------------


def real(
    name: str,
    value: Any,
    *,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    open_minimum: bool = False,
    open_maximum: bool = False,
    allow_infinite: bool = False,
) -> float:
    """Return `value` as a float within the stated bounds."""
    number = _scalar(name, value, "a real number")
    if isinstance(number, bool | np.bool_) or not isinstance(number, numbers.Real):
        raise TypeError(f"{name} must be a real number, got {_describe(value)}")
    try:
        result = float(number)
    except OverflowError:  # an int or a fraction beyond float64
        raise ValueError(f"{name} must fit float64, got {_describe(value)}") from None
    if math.isnan(result) or (math.isinf(result) and not allow_infinite):
        raise ValueError(f"{name} must be finite, got {result}")
    below = result < minimum or (open_minimum and result == minimum)
    above = result > maximum or (open_maximum and result == maximum)
    if below or above:
        raise ValueError(
            f"{name} must be {_interval(minimum, maximum, open_minimum, open_maximum)},"
            f" got {result:g}"
        )
    return result


def integer(name: str, value: Any, *, minimum: int | None = None) -> int:
    """Return `value` as an int not below `minimum`."""
    number = _scalar(name, value, "an integer")
    if isinstance(number, bool | np.bool_) or not isinstance(number, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {_describe(value)}")
    result = int(number)
    if minimum is not None and result < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {result}")
    return result


def flag(name: str, value: Any) -> bool:
    """Return `value` as a bool; numbers and strings are not flags."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {_describe(value)}")
    return bool(value)


def choice(name: str, value: Any, options: Sequence[str]) -> str:
    """Return `value` if it is one of the strings in `options`."""
    listed = ", ".join(repr(option) for option in options)
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {listed}, got {_describe(value)}")
    if value not in options:
        raise ValueError(f"{name} must be one of {listed}, got {value!r}")
    return value


def instance(name: str, value: Any, kind: type | tuple[type, ...], expected: str) -> None:
    """Raise TypeError unless `value` is an instance of `kind`."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {expected}, got {_describe(value)}")


def generator(name: str, value: Any) -> np.random.Generator:
    """Return `value`, a Generator or a seed, as a Generator."""
    try:
        return np.random.default_rng(value)
    except ValueError as error:
        raise ValueError(f"{name} must be a seed or a Generator: {error}") from None
    except TypeError:
        raise TypeError(
            f"{name} must be a seed or a numpy.random.Generator, got {_describe(value)}"
        ) from None


# ---- arrays --------------------------------------------------------------------------------------


def array(
    name: str,
    value: Any,
    *,
    ndim: int | None = None,
    minimum_ndim: int = 0,
    check_finite: bool = True,
) -> Array:
    """Return `value` as a C-contiguous, finite float32 or float64 array.

    float32 stays float32; every other real dtype becomes float64. Who passes
    ``check_finite=False`` calls `finite_unless` on what was computed instead.
    """
    unmasked(name, value)
    try:
        raw = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be a rectangular array: {error}") from None
    except Exception as error:
        raise TypeError(f"{name} can't be read as an array: {error}") from None
    if raw.dtype.kind not in "iuf":
        raise TypeError(f"{name} must hold real numbers, got dtype {raw.dtype}")
    if ndim is not None and raw.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension(s), got shape {raw.shape}")
    if raw.ndim < minimum_ndim:
        raise ValueError(
            f"{name} must have at least {minimum_ndim} dimension(s), got shape {raw.shape}"
        )
    single = raw.dtype.kind == "f" and raw.dtype.itemsize == 4
    with np.errstate(over="ignore"):  # a long double that becomes infinite is found below
        # dtype= also brings foreign byte orders home, and the kernels read whole words
        dtype = np.float32 if single else np.float64
        result = np.require(raw, dtype=dtype, requirements=["C", "A"])
    if check_finite:
        finite(name, result)
    return result


def finite_unless(result: Array, **inputs: Array) -> None:
    """Raise ValueError for an input that is not finite, looking only if the `result` isn't.

    For results through which every NaN and infinity of the inputs shows: saves a pass over the
    inputs, which for small matrices costs as much as the evaluation. A result that overflowed is
    not an error.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        total = result.sum()
    if not np.isfinite(total):
        for name, a in inputs.items():
            finite(name, a)


def unmasked(name: str, value: Any) -> None:
    """Raise TypeError for a masked array that hides entries."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise TypeError(f"{name} must not be masked: {int(value.mask.sum())} entries are hidden")


def finite(name: str, a: Array) -> None:
    """Raise ValueError naming the first entry of `a` that is NaN or infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = a.sum()
    if np.isfinite(total):  # one pass and no temporary; a finite sum has finite terms
        return
    bad = np.argwhere(~np.isfinite(a))
    if len(bad):
        index = tuple(int(i) for i in bad[0])
        where = f"[{', '.join(map(str, index))}]" if index else ""
        row = f" (row {index[0]})" if a.ndim == 2 else ""
        raise ValueError(f"{name} must be finite, got {a[index]} at {name}{where}{row}")


def vector(name: str, value: Any, dim: int) -> Array:
    """Return `value` as a float64 array of shape (dim,)."""
    result = array(name, value, ndim=1)
    if result.shape != (dim,):
        raise ValueError(f"{name} must be ({dim},), got {result.shape}")
    return result.astype(np.float64, copy=False)


def magnitude(name: str, a: Array, *, bounded_below: bool = True) -> None:
    """Raise ValueError for a matrix so large or so small that its products leave float64."""
    largest = float(np.abs(a).max(initial=0.0))
    if largest > _LARGEST or (bounded_below and 0.0 < largest < _SMALLEST):
        interval = f"between {_SMALLEST:g} and" if bounded_below else "at most"
        raise ValueError(
            f"{name} must be 0 or {interval} {_LARGEST:g} in magnitude, got {largest:.3g}; rescale"
        )


def squarable(name: str, a: Array) -> None:
    """Raise ValueError for entries whose squares leave what `magnitude` allows."""
    if a.dtype == np.float64 and a.size:  # squares of float32 can't
        largest = max(float(a.max()), -float(a.min()))  # no temporary of the size of the views
        if not largest <= SQUARABLE:
            finite(name, a)
            raise ValueError(
                f"{name} must be at most {SQUARABLE:g} in magnitude, got {largest:.3g}; rescale"
            )


def symmetric(
    name: str, value: Any, *, dim: int | None = None, bounded_below: bool = False
) -> tuple[Array, float]:
    """Return `value` as a float64 symmetric matrix (d, d), d >= 1, and the eps of its source.

    Asymmetry within rounding is averaged out. `bounded_below` is for what others are divided by.
    """
    result = array(name, value, ndim=2)
    expected = "(d, d)" if dim is None else f"({dim}, {dim})"
    rows, columns = result.shape
    if rows != columns or (dim is not None and rows != dim) or rows == 0:
        raise ValueError(f"{name} must be {expected}, got {result.shape}")
    magnitude(name, result, bounded_below=bounded_below)
    gap = np.abs(result - result.T)
    eps = float(np.finfo(result.dtype).eps)
    if gap.max() > rounding(result, eps):
        i, j = (int(index) for index in np.unravel_index(int(gap.argmax()), gap.shape))
        raise ValueError(
            f"{name} must be symmetric, got {result[i, j]} at [{i}, {j}]"
            f" and {result[j, i]} at [{j}, {i}]"
        )
    wide = result.astype(np.float64)
    return 0.5 * wide + 0.5 * wide.T, eps


def square_matrices(name: str, value: Any) -> Array:
    """Return `value` as an array (..., d, d), d >= 1, whose entries nobody has looked at."""
    result = array(name, value, minimum_ndim=2, check_finite=False)
    rows, columns = result.shape[-2:]
    if rows != columns or rows == 0:
        raise ValueError(f"{name} must be (..., d, d) with d >= 1, got {result.shape}")
    return result


def symmetric_entries(name: str, a: Array) -> None:
    """Raise ValueError unless `a` (..., d, d) is finite, and symmetric within rounding.

    The kernels in cpp/pencils_kernels.cpp apply the same rule, bit by bit, to what they read.
    """
    finite(name, a)
    transposed = np.swapaxes(a, -1, -2)
    factor = a.dtype.type(_ULPS_PER_DIMENSION * a.shape[-1] * float(np.finfo(a.dtype).eps))
    allowed = factor * np.abs(a).max(axis=(-2, -1), keepdims=True, initial=0.0)
    with np.errstate(over="ignore"):
        bad = np.argwhere(np.abs(a - transposed) > allowed)
    if len(bad):
        *batch, i, j = (int(index) for index in bad[0])
        raise ValueError(
            f"{name} must be symmetric, got {a[*batch, i, j]} at {[*batch, i, j]}"
            f" and {a[*batch, j, i]} at {[*batch, j, i]}"
        )


def indefinite(name: str, a: Array) -> ValueError:
    """Return the error for a symmetric matrix `a` (d, d) that is not positive definite."""
    spectrum = np.linalg.eigvalsh(a)
    return ValueError(
        f"{name} must be positive definite, got eigenvalues from {spectrum[0]:.3g}"
        f" to {spectrum[-1]:.3g}"
    )


def tolerances(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """Return `value`, >= 0, as a float64 array broadcast to `shape`."""
    result = array(name, value).astype(np.float64, copy=False)
    if result.size and result.min() < 0.0:
        raise ValueError(f"{name} must be >= 0, got {result.min():g}")
    try:
        return np.broadcast_to(result, shape)
    except ValueError:
        raise ValueError(f"{name} must broadcast to {shape}, got {result.shape}") from None


def rounding(a: Array, eps: float) -> float:
    """Return what rounding by `eps` may do to an entry or eigenvalue of the symmetric `a`."""
    return _ULPS_PER_DIMENSION * len(a) * eps * float(np.abs(a).max())


def semidefinite(name: str, a: Array, tolerance: float, why: str = "") -> None:
    """Raise ValueError unless the symmetric `a` has no eigenvalue below -`tolerance`."""
    try:
        # far cheaper than eigenvalues, and succeeds for every matrix that passes
        np.linalg.cholesky(a + (tolerance or np.finfo(np.float64).tiny) * np.eye(len(a)))
    except np.linalg.LinAlgError:
        lowest = float(np.linalg.eigvalsh(a)[0])
        if lowest < -tolerance:
            raise ValueError(
                f"{name} must be positive semidefinite{why}, got an eigenvalue of {lowest:.3g}"
            ) from None


def views(
    x: Any,
    x_plus: Any,
    *,
    dim: int | None = None,
    names: tuple[str, str] = ("x", "x_plus"),
    check_finite: bool = True,
    check_size: bool = True,
) -> tuple[Array, Array]:
    """Return two views (n, d) of the same samples, of one dtype.

    Who passes ``check_finite=False`` calls `finite` on those of float32 where need be; with
    ``check_size=False`` also `squarable` on those of float64.
    """
    name, name_plus = names
    first = array(name, x, ndim=2, check_finite=check_finite)
    second = array(name_plus, x_plus, ndim=2, check_finite=check_finite)
    if first.shape != second.shape:
        raise ValueError(
            f"{name_plus} must have the shape of {name} {first.shape}, got {second.shape}"
        )
    columns = first.shape[1]
    if columns == 0 or (dim is not None and columns != dim):
        expected = "(n, d) with d >= 1" if dim is None else f"(n, {dim})"
        raise ValueError(f"{name} must be {expected}, got {first.shape}")
    if check_size:
        squarable(name, first)
        squarable(name_plus, second)
    if first.dtype != second.dtype:
        first, second = first.astype(np.float64), second.astype(np.float64)
    return first, second


def weights(name: str, value: Any, shape: tuple[int, int], *, check_finite: bool = True) -> Array:
    """Return `value` as an array (..., k, d) of weight matrices."""
    result = array(name, value, minimum_ndim=2, check_finite=check_finite)
    if result.shape[-2:] != shape:
        raise ValueError(f"{name} must be (..., {shape[0]}, {shape[1]}), got {result.shape}")
    return result


def image_shape(name: str, value: Any, dim: int) -> tuple[int, int]:
    """Return `value` as the (height, width) of images that hold `dim` inputs."""
    try:
        height, width = value
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be (height, width), got {value!r}") from None
    height = integer(f"{name}[0]", height, minimum=1)
    width = integer(f"{name}[1]", width, minimum=1)
    if height * width != dim:
        raise ValueError(f"{name} must hold {dim} inputs, got {height} x {width}")
    return height, width


def plane(
    shape: tuple[int, int], W0: Any, D1: Any, D2: Any, u: Any, v: Any
) -> tuple[list[Array], list[Array], Any]:
    """Return origin and directions (k, d) and both axes of a plane in float64, and their dtype."""
    corners = []
    for name, value in (("W0", W0), ("D1", D1), ("D2", D2)):
        corners.append(weights(name, value, shape))
        if corners[-1].ndim != 2:
            raise ValueError(f"{name} must be {shape}, got {corners[-1].shape}")
    axes = [array(name, axis, ndim=1) for name, axis in (("u", u), ("v", v))]
    dtype = np.result_type(*(item.dtype for item in (*corners, *axes)))
    wide = [[a.astype(np.float64, copy=False) for a in items] for items in (corners, axes)]
    return wide[0], wide[1], dtype


def one_dtype(first: str, a: Array, second: str, b: Array) -> tuple[Array, Array]:
    """Return `a` and `b` with the wider of their dtypes, once their shapes broadcast."""
    try:
        np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise ValueError(
            f"{second} must broadcast against {first} {a.shape}, got {b.shape}"
        ) from None
    dtype = np.result_type(a.dtype, b.dtype)
    return a.astype(dtype, copy=False), b.astype(dtype, copy=False)


# ---- optional packages ---------------------------------------------------------------------------


@contextmanager
def needs(purpose: str, package: str = '"pyssl-landscapes[app]"') -> Iterator[None]:
    """Say how to install what an import inside the block misses."""
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"{purpose}, but {error}; python -m pip install {package} installs it"
        ) from error


# ---- wording -------------------------------------------------------------------------------------


def _scalar(name: str, value: Any, expected: str) -> Any:
    """Unwrap zero-dimensional arrays, which NumPy code produces where it means a number."""
    if isinstance(value, np.ndarray):
        if value.ndim != 0:
            raise TypeError(f"{name} must be {expected}, got an array of shape {value.shape}")
        return value[()]
    return value


def _describe(value: Any) -> str:
    kind = type(value).__name__
    text = repr(value)
    return kind if len(text) > 40 or isinstance(value, type) else f"{text} ({kind})"


def _interval(minimum: float, maximum: float, open_minimum: bool, open_maximum: bool) -> str:
    low = "" if minimum == -math.inf else f"{'>' if open_minimum else '>='} {minimum:g}"
    high = "" if maximum == math.inf else f"{'<' if open_maximum else '<='} {maximum:g}"
    return " and ".join(part for part in (low, high) if part)
