"""The minimum of a self-supervised loss over linear embeddings as a scikit-learn transformer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl.classification import classify
from pyssl.collapse import CollapseReport
from pyssl.losses import InfoNCE, Loss
from pyssl.moments import Moments
from pyssl.spectral import SpectralLandscape
from pyssl.stationary import Minimum

with _checks.needs("pyssl.LinearSSL needs scikit-learn 1.6 or newer"):
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils import check_array
    from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = ["LinearSSL"]

Array = npt.NDArray[np.float64]


class LinearSSL(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Linear self-supervised learning: the minimum of a loss, without training.

    Learns from two views of every sample the linear embedding z = W (x - mean) that minimises the
    population form of a loss, and says which directions collapsed. In closed form where there is
    one, else by `minimize`.

    Parameters
    ----------
    loss : Loss, optional
        Any loss with a landscape in the moments: the population's, else the effective one (NT-Xent,
        InfoNCE with finitely many negatives). ``InfoNCE()`` by default.
    embedding_dim : int
        k >= 1, the dimension of the embedding. It may exceed that of the data: the embedding
        coordinates beyond the number of modes learned are zero.
    weight_decay : float
        g >= 0; adds (g/2)||W||^2 to the loss.

    Attributes
    ----------
    components_ : (k, d) ndarray
        W: one row for each mode learned, by descending eigenvalue, then rows of zeros. Unique up
        to W -> O W with an orthogonal O; the signs are fixed by the largest entry of a row. Without
        closed form the rows are those that the search finds. Where the scale of W makes no
        difference, the embedding of NT-Xent has a total variance of 1 (with its mean), and every
        unit of normalised Barlow Twins one of 1.
    mean_ : (d,) ndarray
        The pooled mean of both views.
    collapse_ : CollapseReport
        Which modes are learned, which are lost, and why.
    moments_ : Moments
        Of the views that were fitted. What is minimised is the landscape of
        ``moments_.centered()``.
    n_features_in_ : int
        d, the dimension of a view.
    feature_names_in_ : (d,) ndarray of str
        Only where the first view has feature names that are all strings.

    Raises
    ------
    ValueError
        By ``fit``: for a setting out of range, for views of different shapes, fewer than two pairs,
        NaN or infinity, and where the loss has no minimum on these views (InfoNCE without decay
        grows forever along directions that the augmentation leaves alone), or the search for one
        does not converge. By ``transform``: for another number of features.
    TypeError
        By ``fit``: for a setting of the wrong kind, or views that do not hold real numbers.
    NotImplementedError
        By ``fit``: for a loss without a landscape in the moments (``InfoNCE(normalize=True)``).

    See Also
    --------
    classify : the report of any landscape.

    Notes
    -----
    Source: theory 2.2 and 3. Views are centred by their pooled mean before the loss sees them. A
    search without closed form starts at one small random W, the same at every call; it ends at a
    local minimum, not proven global.

    ``fit`` takes the second view where other estimators take the target, so a Pipeline transforms
    the first view but not the second: transform both, fit, and put the fitted estimator into a
    pipeline as ``sklearn.frozen.FrozenEstimator``.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> rng = np.random.default_rng(0)
    >>> clean = rng.standard_normal((500, 4)) * [3.0, 2.0, 1.0, 0.5]
    >>> x, x_plus = clean + 0.5 * rng.standard_normal((2, 500, 4))
    >>> ssl = pyssl.LinearSSL(pyssl.SpectralContrastive(), embedding_dim=2).fit(x, x_plus)
    >>> ssl.transform(x).shape
    (500, 2)
    >>> ssl.collapse_.rank, ssl.collapse_.modes.alignment.round(1)
    (2, array([1. , 0.9, 0.8, 0.5]))
    """

    def __init__(
        self, loss: Loss | None = None, embedding_dim: int = 16, weight_decay: float = 1e-3
    ) -> None:
        self.loss = loss
        self.embedding_dim = embedding_dim
        self.weight_decay = weight_decay

    def fit(self, x: npt.ArrayLike, x_plus: npt.ArrayLike) -> LinearSSL:
        """Minimise the loss over linear embeddings of the two views.

        Parameters
        ----------
        x, x_plus : (n, d) array_like
            Row i of each is one view of sample i. n >= 2.

        Returns
        -------
        LinearSSL
            Itself.

        Raises
        ------
        ValueError
            For a setting out of range, views of different shapes, fewer than two pairs, NaN or
            infinity, and where the loss has no minimum on these views or none is found.
        TypeError
            For a setting of the wrong kind, or views that do not hold real numbers.
        NotImplementedError
            For a loss without a landscape in the moments.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> x = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
        >>> pyssl.LinearSSL(embedding_dim=1).fit(x, 0.5 * x).components_.shape
        (1, 2)
        """
        loss = InfoNCE() if self.loss is None else self.loss
        _checks.instance("loss", loss, Loss, "a loss such as pyssl.InfoNCE()")
        first = self._view(x, reset=True, ensure_min_samples=2)
        _checks.unmasked("x_plus", x_plus)
        # of scikit-learn's checks only those of the entries: the others would not name x_plus
        second = check_array(
            x_plus,
            dtype="numeric",
            ensure_2d=False,
            allow_nd=True,
            ensure_min_samples=0,
            ensure_min_features=0,
            input_name="x_plus",
            estimator=self,
        )
        moments = Moments.from_views(first, second)
        # the shape is right by now; this compares the names of the features
        validate_data(self, x_plus, reset=False, skip_check_array=True)

        _, land = loss.sharpest(moments.centered(), self.embedding_dim, self.weight_decay)
        report = classify(land)
        minimum = report.minimum
        free = bool(getattr(land, "scale_free", False))
        if not (minimum.attained or (free and np.isfinite(minimum.weights).all())):
            raise ValueError(_no_minimum(loss, minimum, land))
        weights = minimum.weights.copy()
        if loss.units_scale_free:
            weights /= np.sqrt(np.sum((weights @ moments.covariance) * weights, axis=1))[:, None]
        if not isinstance(land, SpectralLandscape):
            largest = np.argmax(np.abs(weights), axis=1)
            signs = np.sign(weights[np.arange(len(weights)), largest])
            weights *= np.where(signs == 0.0, 1.0, signs)[:, None]
        self.components_: Array = weights
        self.mean_: Array = moments.mean.copy()
        self.moments_ = moments
        self.collapse_: CollapseReport = report
        return self

    def transform(self, x: npt.ArrayLike, /) -> npt.NDArray[Any]:
        """Embed samples.

        Parameters
        ----------
        x : (n, d) array_like
            Views, or clean samples.

        Returns
        -------
        (n, k) ndarray
            (x - mean_) @ components_.T; float32 for float32 samples.

        Raises
        ------
        ValueError
            For another number of features than was fitted, NaN or infinity; sklearn's
            NotFittedError before ``fit``.
        TypeError
            For samples that are not real numbers.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> x = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
        >>> ssl = pyssl.LinearSSL(pyssl.SpectralContrastive(), 1, weight_decay=0.0).fit(x, x)
        >>> abs(ssl.transform([[0.0, 1.0]])).round(3)
        array([[0.707]])
        """
        check_is_fitted(self)
        samples = self._view(x, reset=False)
        # centred in double, so that a large mean does not cost float32 samples their digits
        centred = (samples - self.mean_).astype(samples.dtype, copy=False)
        return np.asarray(centred @ self.components_.T.astype(samples.dtype, copy=False))

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def _view(self, x: npt.ArrayLike, *, reset: bool, **options: Any) -> npt.NDArray[Any]:
        """Return `x` as scikit-learn reads it (numbers in an object array are numbers)."""
        _checks.unmasked("x", x)
        numbers = validate_data(self, x, reset=reset, dtype="numeric", **options)
        return _checks.array("x", numbers, ndim=2)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True  # the second view
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _no_minimum(loss: Loss, minimum: Minimum, land: Any) -> str:
    if not isinstance(land, SpectralLandscape):
        return f"{loss!r}: the search found no minimum on these views; pyssl.minimize says why"
    diverging = int(np.count_nonzero(np.isinf(minimum.amplitudes)))
    where = (
        f"{diverging} mode(s) that the augmentation leaves unchanged grow without bound"
        if minimum.bounded
        else "it is unbounded below along directions in which the views do not vary"
    )
    return (
        f"{loss!r} has no minimum on these views: {where};"
        f" weight_decay must be positive, got {land.weight_decay:g}"
    )
