"""Problems, dense references and derivative checks: one source for tests, benchmarks and docs.

Problems are drawn so that what should be exact is: their matrices have dyadic entries, which
float64 holds and multiplies without rounding, so a repeated eigenvalue is repeated and a zero one
zero, whatever the dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl.losses import InfoNCE
from pyssl.moments import Moments
from pyssl.potentials import InfoNCEPotential, Potential, Quartic
from pyssl.spectral import SpectralLandscape

__all__ = [
    "SpectralReference",
    "check_gradient",
    "check_hvp",
    "commuting_moments",
    "complex_step",
    "finite_difference",
    "gaussian_views",
    "infonce_monte_carlo",
    "matrix_potential",
    "random_moments",
    "random_pencil",
    "random_spectrum",
]

Array = npt.NDArray[Any]
MatrixFunction = Callable[[Array], Array]

# ---- problems -----------------------------------------------------------------------------------


def random_spectrum(
    size: int,
    rng: np.random.Generator,
    *,
    positive: bool = False,
    repeated: bool = False,
    zeros: int = 0,
) -> Array:
    """Draw eigenvalues in (-1, 1), descending.

    Parameters
    ----------
    size : int
    rng : numpy.random.Generator
    positive : bool, optional
        Draw from (0, 1) instead; else about a third is negative.
    repeated : bool, optional
        Repeat values in groups of up to three.
    zeros : int, optional
        Set this many to zero.

    Returns
    -------
    (size,) ndarray
        Dyadic numbers, at least 1/(16 size) apart where they differ.

    Examples
    --------
    >>> import numpy as np
    >>> from pyssl.testing import random_spectrum
    >>> spectrum = random_spectrum(6, np.random.default_rng(0), repeated=True, zeros=2)
    >>> bool((np.diff(spectrum) <= 0).all()), int((spectrum == 0).sum())
    (True, 2)
    """
    steps = 1 << (8 * size).bit_length()
    values = rng.choice(np.arange(1, steps), size, replace=False) / steps
    if not positive:
        values *= np.where(rng.random(size) < 1.0 / 3.0, -1.0, 1.0)
    if repeated:
        values = np.repeat(values, rng.integers(1, 4, size))[:size]
    values[rng.choice(size, zeros, replace=False)] = 0.0
    return np.asarray(np.sort(values)[::-1].copy())


def random_pencil(
    eigenvalues: npt.ArrayLike, rng: np.random.Generator, *, curvature: npt.ArrayLike = ()
) -> tuple[Array, Array]:
    """Draw a pencil (B, S) with given eigenvalues, by theory 2.5 where S is singular.

    Parameters
    ----------
    eigenvalues : (m,) array_like
        Of the pencil on the range of S.
    rng : numpy.random.Generator
    curvature : (d - m,) array_like, optional
        v'Bv of the modes on the null space of S: none by default, so that S > 0. The landscape is
        bounded below iff none is positive.

    Returns
    -------
    B, S : (d, d) ndarray
        F'diag(eigenvalues, curvature)F and F'diag(1, ..., 1, 0, ..., 0)F with a well-conditioned
        F (condition number about 10): exact for dyadic eigenvalues.

    Examples
    --------
    >>> import numpy as np, scipy.linalg
    >>> from pyssl.testing import random_pencil
    >>> B, S = random_pencil([0.5, -0.25], np.random.default_rng(0))
    >>> scipy.linalg.eigh(B, S, eigvals_only=True).round(12)
    array([-0.25,  0.5 ])
    """
    lam, null = np.asarray(eigenvalues, float), np.asarray(curvature, float)
    factor = _dyadic_factor(len(lam) + len(null), rng)
    ones = np.concatenate([np.ones(len(lam)), np.zeros(len(null))])
    return _congruent(factor, np.concatenate([lam, null])), _congruent(factor, ones)


def random_moments(
    alignments: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    nulls: int = 0,
    mean: bool = False,
    commuting: bool = False,
) -> Moments:
    """Draw population moments with given alignments.

    Parameters
    ----------
    alignments : (m,) array_like
        rho in [-1, 1]: the eigenvalues of A v = rho Sigma v on the range of Sigma.
    rng : numpy.random.Generator
    nulls : int, optional
        Dimension of the null space of Sigma.
    mean : bool, optional
        Draw a mean instead of zero.
    commuting : bool, optional
        Whether Sigma and A commute.

    Returns
    -------
    Moments
        Of dimension d = m + nulls; exact for dyadic alignments unless `commuting`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyssl.testing import random_moments
    >>> random_moments([0.75, 0.25], np.random.default_rng(0)).alignments.round(12)
    array([0.75, 0.25])
    """
    rho = np.asarray(alignments, float)
    d = len(rho) + nulls
    factor = _dyadic_factor(d, rng)
    if commuting:
        basis = np.linalg.qr(factor)[0]
        factor = np.sqrt(rng.uniform(0.5, 2.0, d))[:, None] * basis.T
    ones = np.concatenate([np.ones(len(rho)), np.zeros(nulls)])
    rho = np.concatenate([rho, np.zeros(nulls)])
    return Moments(
        _congruent(factor, ones),
        _congruent(factor, ones * rho),
        rng.integers(-4, 5, d) / 4.0 if mean else np.zeros(d),
        augmentation_covariance=_congruent(factor, ones * (1.0 - rho)),
    )


def commuting_moments(
    alignments: npt.ArrayLike, variances: npt.ArrayLike, rng: np.random.Generator | None = None
) -> Moments:
    """Return moments whose Sigma and A share eigenvectors, with given eigenvalues.

    Parameters
    ----------
    alignments, variances : (d,) array_like
        rho_j and the eigenvalues of Sigma.
    rng : numpy.random.Generator, optional
        Draws the eigenvectors; the axes by default.

    Returns
    -------
    Moments

    Examples
    --------
    >>> from pyssl.testing import commuting_moments
    >>> commuting_moments([0.75, 0.25], [1.0, 2.0]).cross_covariance
    array([[0.75, 0.  ],
           [0.  , 0.5 ]])
    """
    scale, rho = np.asarray(variances, float), np.asarray(alignments, float)
    turn = np.eye(len(scale))
    if rng is not None:
        turn = np.linalg.qr(rng.standard_normal((len(scale), len(scale))))[0]
    return Moments(_congruent(turn, scale), _congruent(turn, scale * rho))


def gaussian_views(moments: Moments, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Sample pairs of Gaussian views with the given moments.

    Parameters
    ----------
    moments : Moments
    n : int
        Pairs.
    rng : numpy.random.Generator

    Returns
    -------
    x, x_plus : (n, d) ndarray
        Jointly Gaussian, by the independence of x + x+ and x - x+.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> from pyssl.testing import gaussian_views
    >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.5]))
    >>> x, x_plus = gaussian_views(moments, 100_000, np.random.default_rng(0))
    >>> np.round(x.T @ x_plus / len(x), 1) + 0.0
    array([[0.9, 0. ],
           [0. , 0.5]])
    """
    middle = moments.covariance + moments.cross_covariance
    shared = rng.standard_normal((n, moments.dim)) @ _root(0.5 * middle)
    shared += moments.mean
    own = rng.standard_normal((n, moments.dim)) @ _root(0.5 * moments.augmentation_covariance)
    return shared + own, shared - own


def _dyadic_factor(d: int, rng: np.random.Generator) -> Array:
    """Draw F (d, d), a permuted diagonally dominated matrix with entries of a few bits."""
    # the entries -1, 0, 1 have spectral norm near 1.63 sqrt(d), below the diagonal's 2 sqrt(d)
    diagonal = math.ceil(2.0 * math.sqrt(d))
    factor = diagonal * np.eye(d) + rng.integers(-1, 2, (d, d))
    return np.asarray(factor[:, rng.permutation(d)] / (1 << (diagonal - 1).bit_length()))


def _congruent(factor: Array, diagonal: Array) -> Array:
    return np.asarray((factor.T * diagonal) @ factor)


def _root(matrix: Array) -> Array:
    values, basis = np.linalg.eigh(matrix)
    return np.asarray((basis * np.sqrt(np.maximum(values, 0.0))) @ basis.T)


# ---- dense references ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SpectralReference:
    """The spectral landscape by its definition, with no eigenvalues and in plain NumPy.

    Accepts complex W (..., k, d), for derivatives by the complex step: no transpose conjugates.

    Parameters
    ----------
    B, S : (d, d) ndarray
    trace : callable
        P (..., k, k) -> Tr r(P) (...).
    slope : callable
        P (..., k, k) -> r'(P) (..., k, k).
    constant : float, optional

    Notes
    -----
    Source: theory 2.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> from pyssl.testing import SpectralReference
    >>> land = pyssl.SpectralLandscape(np.eye(2), np.eye(2), pyssl.InfoNCEPotential(0.5), 3)
    >>> W = np.arange(6.0).reshape(3, 2)
    >>> bool(np.isclose(SpectralReference.of(land).value(W), land.value(W)))
    True
    """

    B: Array
    S: Array
    trace: MatrixFunction
    slope: MatrixFunction
    constant: float = 0.0

    @classmethod
    def of(cls, land: SpectralLandscape) -> SpectralReference:
        """Make the reference of a landscape with a built-in potential."""
        return cls(land.B, land.S, *matrix_potential(land.potential), land.constant)

    def value(self, W: Array) -> Array:
        """Return L(W) (...)."""
        return np.asarray(self.trace(self._gram(W)) - _trace(W @ self.B @ _t(W)) + self.constant)

    def gradient(self, W: Array) -> Array:
        """Return the gradient (..., k, d)."""
        return np.asarray(2.0 * (self.slope(self._gram(W)) @ W @ self.S - W @ self.B))

    def hessian(self, W: Array) -> Array:
        """Return the Hessian at W (k, d) by the complex step: (k*d, k*d), in C order of W."""
        rows = complex_step(self.gradient, W).reshape(W.size, W.size)
        return 0.5 * (rows + rows.T)

    def hessian_in_modes(self, W: Array, vectors: Array) -> Array:
        """Return the Hessian at W in the coordinates U of W = U V', V = `vectors` (d, d).

        With v_i'S v_j = delta_ij it has the eigenvalues of that in V-coordinates (theory 2.3).
        """
        change = np.kron(np.eye(len(W)), vectors)
        return np.asarray(change.T @ self.hessian(W) @ change)

    def _gram(self, W: Array) -> Array:
        return W @ self.S @ _t(W)


def matrix_potential(potential: Potential) -> tuple[MatrixFunction, MatrixFunction]:
    """Return P -> Tr r(P) and P -> r'(P) of a built-in potential, as matrix algebra.

    Parameters
    ----------
    potential : Quartic or InfoNCEPotential

    Returns
    -------
    trace, slope : callable
        On (batches of) symmetric matrices (..., k, k), real or complex.

    Raises
    ------
    TypeError
        For any other potential.

    Notes
    -----
    Source: theory 3.1, the table.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> from pyssl.testing import matrix_potential
    >>> trace, slope = matrix_potential(pyssl.Quartic(2.0))
    >>> float(trace(np.eye(3))), float(slope(np.eye(3))[0, 0])
    (6.0, 4.0)
    """
    if isinstance(potential, Quartic):
        q = potential.coefficient
        return lambda P: q * _trace(P @ P), lambda P: 2.0 * q * P
    if not isinstance(potential, InfoNCEPotential):
        raise TypeError(f"potential must be a built-in one, got {type(potential).__name__}")
    tau = potential.temperature

    def resolvent(X: Array, factor: float) -> Array:
        return np.linalg.inv(np.eye(X.shape[-1]) + factor * X)

    def logdet(X: Array, factor: float) -> Array:
        sign, logarithm = np.linalg.slogdet(np.eye(X.shape[-1]) + factor * X)
        return np.asarray(np.log(sign) + logarithm)

    forms: dict[tuple[str, str], tuple[MatrixFunction, MatrixFunction]] = {
        ("dot", "conditional"): (lambda X: 0.5 * _trace(X @ X), lambda X: X),
        ("dot", "joint"): (
            lambda X: -0.5 * logdet(X @ X, -1.0),
            lambda X: X @ resolvent(X @ X, -1.0),
        ),
        ("sqeuclidean", "conditional"): (
            lambda X: 0.5 * (_trace(X) - logdet(X, 1.0)) + 0.5 * _trace(X @ X @ resolvent(X, 1.0)),
            lambda X: 0.5 * (3.0 * X + 2.0 * X @ X) @ resolvent(X, 1.0) @ resolvent(X, 1.0),
        ),
        ("sqeuclidean", "joint"): (
            lambda X: _trace(X) - 0.5 * logdet(X, 2.0),
            lambda X: 2.0 * X @ resolvent(X, 2.0),
        ),
    }
    trace, slope = forms[potential.similarity, potential.partition]
    return lambda P: trace(P / tau), lambda P: slope(P / tau) / tau


def infonce_monte_carlo(
    loss: InfoNCE,
    moments: Moments,
    W: Array,
    rng: np.random.Generator,
    *,
    anchors: int = 4000,
    negatives: int = 4000,
) -> tuple[float, float]:
    """Estimate InfoNCE with infinitely many negatives by its definition, on Gaussian views.

    Parameters
    ----------
    loss : InfoNCE
        ``normalize`` is not supported.
    moments : Moments
    W : (k, d) ndarray
    rng : numpy.random.Generator
    anchors, negatives : int, optional
        Sample sizes.

    Returns
    -------
    estimate, standard_error : float
        The logarithm is of a mean over negatives. The error adds the variances over anchors and
        over negatives, both to first order; the bias is of order 1/negatives.

    Notes
    -----
    Source: theory 3.1.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> from pyssl.testing import infonce_monte_carlo
    >>> moments = pyssl.Moments(np.eye(1), 0.5 * np.eye(1))
    >>> loss, W = pyssl.InfoNCE(), np.ones((1, 1))
    >>> estimate, error = infonce_monte_carlo(loss, moments, W, np.random.default_rng(0))
    >>> exact = loss.population(moments, embedding_dim=1).value(W)
    >>> bool(abs(estimate - exact) < 3 * error < 0.1)
    True
    """
    z, z_plus = (view @ W.T for view in gaussian_views(moments, anchors, rng))
    other = gaussian_views(moments, negatives, rng)[0] @ W.T
    if loss.similarity == "dot":
        positive, logits = np.sum(z * z_plus, axis=1), z @ other.T
    else:
        positive = -0.5 * np.sum((z - z_plus) ** 2, axis=1)
        squares = np.sum(z**2, axis=1)[:, None] + np.sum(other**2, axis=1)
        logits = z @ other.T - 0.5 * squares
    kernel = np.exp(logits / loss.temperature)
    of_anchor = kernel.mean(axis=1, keepdims=True)
    attraction = -positive / loss.temperature
    if loss.partition == "conditional":
        terms = attraction + np.log(of_anchor[:, 0])
        shares = (kernel / of_anchor).mean(axis=0)
        estimate = float(terms.mean())
    else:
        mean = of_anchor.mean()
        terms = attraction + of_anchor[:, 0] / mean
        shares = kernel.mean(axis=0) / mean
        estimate = float(attraction.mean() + np.log(mean))
    return estimate, math.sqrt(terms.var() / anchors + shares.var() / negatives)


def _t(a: Array) -> Array:
    return np.swapaxes(a, -1, -2)


def _trace(a: Array) -> Array:
    return np.asarray(np.trace(a, axis1=-2, axis2=-1))


# ---- derivative checks --------------------------------------------------------------------------


def complex_step(function: Callable[[Array], Array], point: Array) -> Array:
    """Differentiate a function by every entry of its argument, exactly to rounding.

    Parameters
    ----------
    function : callable
        Real-analytic and batched: complex (n, *shape) -> (n, ...).
    point : (*shape) ndarray

    Returns
    -------
    (*shape, ...) ndarray

    Examples
    --------
    >>> import numpy as np
    >>> from pyssl.testing import complex_step
    >>> complex_step(lambda x: np.exp(x).prod(axis=-1), np.zeros(2))
    array([1., 1.])
    """
    step = 1e-30
    batch = point + 1j * step * np.eye(point.size).reshape(point.size, *point.shape)
    columns = np.asarray(function(batch)).imag / step
    return columns.reshape(*point.shape, *columns.shape[1:])


def finite_difference(function: Callable[[Array], Any], point: Array, direction: Array) -> Array:
    """Differentiate a function along a direction by central differences of order eight.

    Exact up to rounding for polynomials of degree at most eight; for others the error is about
    1e-10 of the function's scale where the function varies on the scale of `direction`.

    Parameters
    ----------
    function : callable
    point, direction : ndarray
        Of one shape.

    Returns
    -------
    ndarray
        Of the shape of the function's result.

    Examples
    --------
    >>> import numpy as np
    >>> from pyssl.testing import finite_difference
    >>> float(finite_difference(np.exp, np.array(0.0), np.array(1.0)).round(10))
    1.0
    """
    step = 1.0 / 16.0  # a power of two: the steps themselves are exact
    total: Any = 0.0
    for multiple, weight in enumerate((4 / 5, -1 / 5, 4 / 105, -1 / 280), start=1):
        ahead, behind = (function(point + s * multiple * step * direction) for s in (1.0, -1.0))
        total = total + weight * (np.asarray(ahead) - np.asarray(behind))
    return np.asarray(total / step)


def check_gradient(
    value: Callable[[Array], Any],
    gradient: Callable[[Array], Array],
    point: Array,
    *,
    reference: Callable[[Array], Array] | None = None,
    rtol: float = 1e-10,
) -> None:
    """Assert that `gradient` is the gradient of `value` at a point.

    Parameters
    ----------
    value, gradient : callable
        What is tested.
    point : ndarray
    reference : callable, optional
        The same function in plain NumPy, batched and accepting complex arguments; the gradient is
        then compared with its complex step and `value` with the reference itself. Without it,
        with finite differences of `value`.
    rtol : float, optional
        Relative to the largest entry.

    Raises
    ------
    AssertionError
        Where they differ.

    Examples
    --------
    >>> import numpy as np
    >>> from pyssl.testing import check_gradient
    >>> check_gradient(lambda x: (x**2).sum(), lambda x: 2 * x, np.arange(3.0))
    """
    if reference is not None:
        expected = complex_step(reference, point.astype(np.float64))
        _assert_close(value(point), reference(point.astype(np.float64)), rtol, "value")
    else:
        basis = np.eye(point.size).reshape(point.size, *point.shape)
        slopes = [finite_difference(value, point, direction) for direction in basis]
        expected = np.array(slopes).reshape(point.shape)
    _assert_close(gradient(point), expected, rtol, "gradient")


def check_hvp(
    gradient: Callable[[Array], Array],
    hvp: Callable[[Array, Array], Array],
    point: Array,
    direction: Array,
    *,
    reference: Callable[[Array], Array] | None = None,
    rtol: float = 1e-10,
) -> None:
    """Assert that `hvp` is the derivative of `gradient` along a direction.

    Parameters
    ----------
    gradient, hvp : callable
        What is tested.
    point, direction : ndarray
    reference : callable, optional
        The gradient in plain NumPy, accepting complex arguments; else `gradient` is differentiated
        by finite differences.
    rtol : float, optional
        Relative to the largest entry.

    Raises
    ------
    AssertionError
        Where they differ.

    Examples
    --------
    >>> import numpy as np
    >>> from pyssl.testing import check_hvp
    >>> check_hvp(lambda x: x**3, lambda x, d: 3 * x**2 * d, np.arange(3.0), np.ones(3))
    """
    if reference is not None:
        step = 1e-30
        wide, along = point.astype(np.float64), direction.astype(np.float64)
        expected = reference(wide + 1j * step * along).imag / step
    else:
        expected = finite_difference(gradient, point, direction)
    _assert_close(hvp(point, direction), expected, rtol, "hvp")


def _assert_close(actual: Any, expected: Any, rtol: float, what: str) -> None:
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=0.0, atol=rtol * scale, err_msg=what)
