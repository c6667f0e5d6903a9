"""Ridge regression on embeddings: what it costs, mode by mode, that a representation collapsed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._pencil import Array, Metric, readonly
from pyssl._ridge import Features, Regression, embedded, tuned, with_ridge
from pyssl._tables import ROWS_PRINTED, table_of_modes

__all__ = ["DownstreamRisk", "downstream_risk", "downstream_split", "optimal_ridge"]

Floats = npt.NDArray[Any]

_OPTIMAL = "optimal"


def downstream_risk(
    W: npt.ArrayLike,
    covariance: npt.ArrayLike,
    target: npt.ArrayLike,
    n_samples: int | npt.ArrayLike,
    noise: float | npt.ArrayLike = 0.0,
    ridge: float | npt.ArrayLike | str = 0.0,
) -> Any:
    """Return the expected test error of ridge regression on the embedding z = W x.

    The weights w minimise |y - Z w|^2 + ridge |w|^2, a sum over n samples, for the target
    y = beta'x + noise.

    Parameters
    ----------
    W : (..., k, d) array_like
        Weights of the embedding.
    covariance : (d, d) array_like
        Of what is embedded at evaluation: clean data, as a rule.
    target : (d,) array_like
        beta.
    n_samples : int or array_like
        n >= 1, the labelled samples; an array of them for a learning curve.
    noise : float or array_like, optional
        s^2 >= 0, the variance of the label noise.
    ridge : float, array_like or "optimal", optional
        >= 0. 0 is least squares, and the interpolation of least norm where there are fewer samples
        than features; infinite is no regression at all; ``"optimal"`` the ridge of least error.

    Returns
    -------
    float or ndarray
        E (y - z'w)^2, label noise included. `n_samples`, `noise` and `ridge` broadcast against each
        other and the batch (...): for the learning curve of every matrix of a batch (m, k, d) pass
        n of shape (l, 1), for the result (l, m). A float where all are scalars, else an array,
        float32 if W is. inf for n equal to the rank of the embedding and no ridge, as long as
        there is noise or a part of the target outside of the embedding.

    Raises
    ------
    ValueError
        For a wrong shape, NaN or infinity, a covariance that is not positive semidefinite, an
        `n_samples` below 1 or not whole, a negative noise or ridge, or another word than
        ``"optimal"``.
    TypeError
        For anything but real numbers.

    See Also
    --------
    downstream_split : The same, mode by mode.

    Notes
    -----
    Source: theory 8; Simon et al., "The eigenlearning framework" (2023). With the eigenvalues l_i
    of W Sigma W', the target's components t_i along their directions and its variance t_0^2 outside
    of the features, kappa solves sum l_i/(l_i + kappa) + ridge/kappa = n, and with
    L_i = l_i/(l_i + kappa) the error is n/(n - sum L_i^2) (sum (1 - L_i)^2 t_i^2 + t_0^2 + noise).
    It is the limit of many features and samples, for features that look Gaussian: within a few
    percent of the mean over training sets from some dozens on, except where n is near the rank
    and the ridge tiny.

    There is no intercept: features and target have no mean, or are centred by means that are
    known. Where they have one, the uncentred second moment stands for the covariance, and the
    regression has to learn the mean. With an intercept, that is centred by the training means, the
    error from n samples is (1 + 1/n) times that from n - 1.

    The rank is numerical: standard deviations of principal features count above max(k, d) eps of
    the largest.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> W, beta = np.diag([1.0, 1.0, 0.0]), [1.0, 0.5, 0.5]
    >>> round(pyssl.downstream_risk(W, np.eye(3), beta, n_samples=10, noise=0.25), 6)
    0.625
    >>> pyssl.downstream_risk(W, np.eye(3), beta, [4, 10, 100], 0.25).round(3)
    array([1.   , 0.625, 0.51 ])
    """
    features, dtype = _features(W, covariance, target)
    n, s2 = _samples(n_samples), _not_negative("noise", noise)
    found = _regression(features, n, s2, ridge)
    risk: Floats = found.risk
    return float(risk) if risk.ndim == 0 else risk.astype(dtype, copy=False)


def optimal_ridge(
    W: npt.ArrayLike,
    covariance: npt.ArrayLike,
    target: npt.ArrayLike,
    n_samples: int | npt.ArrayLike,
    noise: float | npt.ArrayLike = 0.0,
) -> Any:
    """Return the ridge for which the expected test error on the embedding is least.

    Parameters
    ----------
    W : (..., k, d) array_like
        Weights of the embedding.
    covariance : (d, d) array_like
        Of what is embedded at evaluation.
    target : (d,) array_like
        beta.
    n_samples : int or array_like
        n >= 1.
    noise : float or array_like, optional
        s^2 >= 0.

    Returns
    -------
    float or ndarray
        With the shape of what `downstream_risk` returns. 0 where every ridge costs more than it
        saves, infinite where the embedding knows nothing of the target.

    Raises
    ------
    ValueError
        As `downstream_risk`.
    TypeError
        For anything but real numbers.

    Notes
    -----
    Source: theory 8. The error may have several minima in the ridge: it is evaluated on a grid of
    kappa, from that without a ridge to where the regression is no more, and the three lowest
    valleys are followed down.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> round(pyssl.optimal_ridge(np.eye(4), np.eye(4), np.ones(4), 8, noise=2.0), 6)
    2.0
    >>> pyssl.optimal_ridge(np.eye(2)[:1], np.eye(2), [0.0, 1.0], 8)
    inf
    """
    features, dtype = _features(W, covariance, target)
    n, s2 = _samples(n_samples), _not_negative("noise", noise)
    best = _regression(features, n, s2, _OPTIMAL)
    with np.errstate(over="ignore"):
        ridge: Floats = best.ridge * features.unit * features.unit
    return float(ridge) if ridge.ndim == 0 else ridge.astype(dtype, copy=False)


@dataclass(frozen=True, eq=False, repr=False)
class DownstreamRisk:
    """The expected test error of ridge regression on an embedding, split. Prints as a table.

    risk = variance_factor (sum of bias + lost + noise).

    Attributes
    ----------
    risk : float
        E (y - z'w)^2, label noise included.
    bias : (r,) ndarray
        (1 - L_i)^2 t_i^2, what n samples and the ridge leave of the target in each mode.
    lost : float
        t_0^2, the variance of the target that the embedding does not hold.
    noise : float
        s^2, the variance of the label noise.
    variance_factor : float
        n/(n - sum L_i^2) >= 1, what learning from n samples instead of all multiplies the rest by.
    variances : (r,) ndarray
        l_i, of the principal components of the embedding, descending; r is its rank.
    coefficients : (r,) ndarray
        t_i, of the target along them, up to the sign; t_i^2 is the variance that each explains.
    learnability : (r,) ndarray
        L_i = l_i/(l_i + kappa), the share of t_i that is learned.
    kappa : float
        The ridge that n samples amount to.
    ridge : float
    n_samples, embedding_dim : int

    Notes
    -----
    Source: theory 8.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> W = np.diag([2.0, 1.0])
    >>> print(pyssl.downstream_split(W, np.eye(2), [1.0, 1.0], 8, noise=0.5, ridge=2.0))
    test error 0.6864 from 8 samples: ridge 2, kappa 0.3168
    <BLANKLINE>
      mode  variance  target  learned      bias
         1         4       1   0.9266  0.005384
         2         1       1   0.7594   0.05787
    <BLANKLINE>
    (bias 0.06325 + lost 0 + noise 0.5) x 1.219 for 8 samples
    """

    risk: float
    bias: Array
    lost: float
    noise: float
    variance_factor: float
    variances: Array
    coefficients: Array
    learnability: Array
    kappa: float
    ridge: float
    n_samples: int
    embedding_dim: int

    @property
    def rank(self) -> int:
        """The numerical rank of the embedding's covariance."""
        return len(self.variances)

    def __str__(self) -> str:
        columns = {
            "variance": self.variances,
            "target": np.square(self.coefficients),
            "learned": self.learnability,
            "bias": self.bias,
        }
        lines = [
            (
                f"test error {self.risk:.4g} from {self.n_samples} samples:"
                f" ridge {self.ridge:.4g}, kappa {self.kappa:.4g}"
            ),
            "",
            *table_of_modes({name: values[: self.rank] for name, values in columns.items()}),
        ]
        if self.rank > ROWS_PRINTED:
            rest = float(self.bias[ROWS_PRINTED:].sum())
            lines.append(f"  ... and {self.rank - ROWS_PRINTED} more, with a bias of {rest:.4g}")
        lines += [
            "",
            (
                f"(bias {float(self.bias.sum()):.4g} + lost {self.lost:.4g} + noise"
                f" {self.noise:.4g}) x {self.variance_factor:.4g} for {self.n_samples} samples"
            ),
        ]
        return "\n".join(lines)

    __repr__ = __str__


def downstream_split(
    W: npt.ArrayLike,
    covariance: npt.ArrayLike,
    target: npt.ArrayLike,
    n_samples: int,
    noise: float = 0.0,
    ridge: float | str = 0.0,
) -> DownstreamRisk:
    """Split the expected test error of ridge regression on an embedding by its modes.

    Parameters
    ----------
    W : (k, d) array_like
        Weights of the embedding.
    covariance : (d, d) array_like
        Of what is embedded at evaluation.
    target : (d,) array_like
        beta.
    n_samples : int
        n >= 1.
    noise : float, optional
        s^2 >= 0, the variance of the label noise.
    ridge : float or "optimal", optional
        >= 0, may be infinite.

    Returns
    -------
    DownstreamRisk

    Raises
    ------
    ValueError
        For a wrong shape or value.
    TypeError
        For an argument of the wrong kind.

    Notes
    -----
    Source: theory 8.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> split = pyssl.downstream_split(np.eye(3)[:2], np.eye(3), [1.0, 0.0, 0.5], 10, noise=0.25)
    >>> split.lost, split.variance_factor
    (0.25, 1.25)
    >>> float(split.variance_factor * (split.bias.sum() + split.lost + split.noise) / split.risk)
    1.0
    """
    weights = _checks.array("W", W, ndim=2)
    features, _ = _features(weights, covariance, target)
    n = _checks.integer("n_samples", n_samples, minimum=1)
    s2 = _checks.real("noise", noise, minimum=0.0)
    if not isinstance(ridge, str):
        ridge = _checks.real("ridge", ridge, minimum=0.0, allow_infinite=True)
    found = _regression(features, np.array(float(n)), np.array(s2), ridge)
    rank, unit = int(features.rank), float(features.unit)
    t = features.coefficients[:rank]
    learned, missed = found.learned[:rank], found.missed[:rank]

    def scaled(relative: Any) -> Any:
        with np.errstate(over="ignore", under="ignore"):
            return relative * unit * unit

    return DownstreamRisk(
        risk=float(found.risk),
        bias=readonly(np.square(missed) * np.square(t)),
        lost=float(features.lost),
        noise=s2,
        variance_factor=float(found.factor),
        variances=readonly(scaled(features.spectrum[:rank])),
        coefficients=readonly(t.copy()),
        learnability=readonly(learned.copy()),
        kappa=float(scaled(found.kappa)),
        ridge=float(scaled(found.ridge)) if isinstance(ridge, str) else ridge,
        n_samples=n,
        embedding_dim=len(weights),
    )


# ---- what the doors share ------------------------------------------------------------------------


def evaluation(covariance: Any, target: Any, dim: int | None = None) -> tuple[Array, Array]:
    """Return a factor R (d, r) of the covariance, R R' = Sigma, and the target R'beta (r,)."""
    sigma, eps = _checks.symmetric("covariance", covariance, dim=dim, bounded_below=True)
    _checks.semidefinite("covariance", sigma, _checks.rounding(sigma, eps))
    return white(Metric.of(sigma, eps), target)


def white(metric: Metric, target: Any) -> tuple[Array, Array]:
    """Return a factor R (d, r) of a decomposed covariance, and the target R'beta (r,)."""
    d = len(metric.basis)
    beta = _checks.array("target", target, ndim=1).astype(np.float64, copy=False)
    if beta.shape != (d,):
        raise ValueError(f"target must be ({d},), as covariance is ({d}, {d}), got {beta.shape}")
    _checks.squarable("target", beta)
    root = metric.basis[:, : metric.rank] * np.sqrt(metric.spectrum[: metric.rank])
    return root, root.T @ beta


def _features(W: Any, covariance: Any, target: Any) -> tuple[Features, Any]:
    """Return the features of a batch of embeddings, and the dtype of what is said of them."""
    weights = _checks.array("W", W, minimum_ndim=2)
    root, beta = evaluation(covariance, target)
    if weights.shape[-1] != len(root) or weights.shape[-2] == 0:
        raise ValueError(
            f"W must be (..., k, {len(root)}) with k >= 1, got {weights.shape};"
            f" covariance is {(len(root), len(root))}"
        )
    _checks.squarable("W", weights)
    eps = float(np.finfo(weights.dtype).eps)
    factor = embedded(weights.astype(np.float64), root, eps)
    return Features.of(factor, beta, eps), weights.dtype


def _samples(value: Any) -> Array:
    n = _checks.array("n_samples", value).astype(np.float64)
    if n.size and n.min() < 1.0:
        raise ValueError(f"n_samples must be at least 1, got {n.min():g}")
    if (n != np.floor(n)).any():
        raise ValueError(f"n_samples must be whole, got {n[n != np.floor(n)][0]:g}")
    return n


def _not_negative(name: str, value: Any, *, allow_infinite: bool = False) -> Array:
    result = _checks.array(name, value, check_finite=not allow_infinite).astype(np.float64)
    if np.isnan(result).any():
        _checks.finite(name, np.where(np.isnan(result), result, 0.0))
    if result.size and result.min() < 0.0:
        raise ValueError(f"{name} must be >= 0, got {result.min():g}")
    return result


def _regression(features: Features, n: Array, noise: Array, ridge: Any) -> Regression:
    """Return the regression with a ridge in the unit of W, once all shapes broadcast."""
    parts = {"W": features.lost, "n_samples": n, "noise": noise}
    if isinstance(ridge, str):
        _checks.choice("ridge", ridge, (_OPTIMAL,))
    else:
        ridge = parts["ridge"] = _not_negative("ridge", ridge, allow_infinite=True)
    together: tuple[int, ...] = ()
    for name, part in parts.items():
        try:
            together = np.broadcast_shapes(together, part.shape)
        except ValueError:
            raise ValueError(
                f"{name} must broadcast against what comes before it, {together}, got {part.shape}"
            ) from None
    if isinstance(ridge, str):
        return tuned(features, n, noise)
    return with_ridge(features, n, noise, features.ridge(ridge))
