"""What every loss of self-supervised learning can do: landscapes, and evaluation on embeddings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl.landscape import Landscape
from pyssl.moments import Moments
from pyssl.numerical import NumericalLandscape

__all__ = ["Loss", "Sample"]

Floats = npt.NDArray[Any]


class Sample(Protocol):
    """A loss on one batch of validated embeddings."""

    def finite(self) -> bool:
        """Return whether a sum that every NaN and infinity of the embeddings reaches is finite."""
        ...

    def value(self) -> float: ...
    def value_and_gradient(self) -> tuple[float, tuple[Floats, Floats]]: ...
    def hvp(self, dz: Floats, dz_plus: Floats) -> tuple[Floats, Floats]: ...
    def terms(self) -> dict[str, float]: ...


class Loss(ABC):
    """A loss on two views of every sample.

    A loss is a frozen dataclass of its settings. It makes landscapes over the weights of a linear
    model z = W x (+ b): `effective` (fourth order in W, the paper's), `population` (the exact
    expectation) and `empirical` (the loss itself on a batch). A level that a loss does not have
    raises NotImplementedError with the reason.

    Attributes
    ----------
    key : str
        The name in `LOSSES`.

    Notes
    -----
    Source: theory 3.

    Examples
    --------
    >>> import pyssl
    >>> sorted(pyssl.LOSSES)
    ['barlow_twins', 'infonce', 'ntxent', 'spectral', 'squared_vicreg', 'vicreg']
    """

    key: ClassVar[str]

    @property
    def polynomial(self) -> bool:
        """Whether the loss is a polynomial of degree 4 in the embeddings, and so in W."""
        return False

    @property
    def scale_free(self) -> bool:
        """Whether the loss does not change when all embeddings are multiplied by a number."""
        return False

    @property
    def units_scale_free(self) -> bool:
        """Whether the loss does not change when one unit of the embeddings is multiplied.

        By a number that is not small beside an epsilon of the loss.
        """
        return False

    @property
    def embedding_unit(self) -> float:
        """The variance of embeddings at which the loss bends: learned modes are of its order."""
        return 1.0

    @property
    def keeps_constant(self) -> bool:
        """Whether a bias lets it learn the constant function, as a mode beside the others."""
        return False

    @property
    def needs_gaussian_views(self) -> bool:
        """Whether the population landscape is exact for Gaussian views only."""
        return False

    def log_candidates(self, n: int) -> float:
        """Return what a batch of n pairs adds to the loss beyond `population`: a logarithm.

        Parameters
        ----------
        n : int
            Pairs in the batch.

        Returns
        -------
        float
            The log of the number of terms in a softmax, whose mean theory has; 0 without one.

        Examples
        --------
        >>> import pyssl
        >>> round(pyssl.InfoNCE().log_candidates(100), 3)
        4.605
        """
        return 0.0

    def sharpest(
        self, moments: Moments, embedding_dim: int, weight_decay: float = 0.0
    ) -> tuple[str, Landscape]:
        """Return the landscape in the moments that comes nearest to training, and its level.

        Parameters
        ----------
        moments : Moments
            Of the views.
        embedding_dim : int
            k >= 1.
        weight_decay : float, optional
            g >= 0.

        Returns
        -------
        str
            ``"population"``, or ``"effective"`` where there is no population form.
        Landscape

        Raises
        ------
        ValueError
            For a wrong value.
        TypeError
            For an argument of the wrong kind.
        NotImplementedError
            Where the loss has neither, with the reasons.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]))
        >>> pyssl.SpectralContrastive().sharpest(moments, embedding_dim=2)[0]
        'population'
        """
        try:
            return "population", self.population(moments, embedding_dim, weight_decay)
        except NotImplementedError as first:
            try:
                return "effective", self.effective(moments, embedding_dim, weight_decay)
            except NotImplementedError as second:
                raise NotImplementedError(f"{first}; {second}") from None

    def effective(
        self,
        moments: Moments,
        embedding_dim: int,
        weight_decay: float = 0.0,
        bias: bool = False,
        *,
        depth: int = 1,
    ) -> Landscape:
        """Return the effective landscape: the loss to fourth order in W, the paper's.

        Parameters
        ----------
        moments : Moments
            Of the views.
        embedding_dim : int
            k >= 1, the rows of W.
        weight_decay : float, optional
            g >= 0 adds (g/2)||W||^2; a bias does not decay.
        bias : bool, optional
            Whether W has a last column that multiplies 1.
        depth : int, optional
            Layers of a deep linear model; weight decay acts on each. W is their product.

        Returns
        -------
        Landscape

        Raises
        ------
        ValueError
            For a wrong value.
        TypeError
            For an argument of the wrong kind.
        NotImplementedError
            Where the loss has no such level, with the reason.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]))
        >>> land = pyssl.InfoNCE().effective(moments, embedding_dim=2, weight_decay=0.4)
        >>> land.minimum().rank
        1
        """
        return self._linear("effective", moments, embedding_dim, weight_decay, bias, depth)

    def population(
        self,
        moments: Moments,
        embedding_dim: int,
        weight_decay: float = 0.0,
        bias: bool = False,
        *,
        depth: int = 1,
    ) -> Landscape:
        """Return the population landscape: the exact expectation of the loss.

        InfoNCE needs Gaussian views for it; the other losses are exact for any distribution.

        Parameters
        ----------
        moments : Moments
            Of the views.
        embedding_dim : int
            k >= 1, the rows of W.
        weight_decay : float, optional
            g >= 0 adds (g/2)||W||^2; a bias does not decay.
        bias : bool, optional
            Whether W has a last column that multiplies 1.
        depth : int, optional
            Layers of a deep linear model; weight decay acts on each. W is their product.

        Returns
        -------
        Landscape

        Raises
        ------
        ValueError
            For a wrong value.
        TypeError
            For an argument of the wrong kind.
        NotImplementedError
            Where the loss has no such level, with the reason.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]))
        >>> pyssl.SpectralContrastive().population(moments, embedding_dim=2).minimum().amplitudes
        array([0.9, 0.1])
        """
        return self._linear("population", moments, embedding_dim, weight_decay, bias, depth)

    def empirical(
        self,
        x: npt.ArrayLike,
        x_plus: npt.ArrayLike,
        embedding_dim: int,
        weight_decay: float = 0.0,
        bias: bool = False,
    ) -> Landscape:
        """Return the landscape of the loss on a batch of pairs of views: what training sees.

        Parameters
        ----------
        x, x_plus : (n, d) array_like
            Row i of each is one view of sample i; n >= 2.
        embedding_dim : int
            k >= 1, the rows of W.
        weight_decay : float, optional
            g >= 0 adds (g/2)||W||^2; a bias does not decay.
        bias : bool, optional
            Whether W has a last column that multiplies 1.

        Returns
        -------
        Landscape

        Raises
        ------
        ValueError
            For a wrong shape or value, NaN or infinity (the message names the row), or n < 2.
        TypeError
            For an argument of the wrong kind.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> land = pyssl.NTXent().empirical(np.eye(4), np.eye(4), embedding_dim=4)
        >>> round(float(land.value(np.eye(4))), 6)
        0.594438
        """
        first, second = self._pairs("x", x, x_plus)
        return self._on_batch(
            first.copy(),  # the landscape is that of the views as they are now
            second.copy(),
            _checks.integer("embedding_dim", embedding_dim, minimum=1),
            _checks.real("weight_decay", weight_decay, minimum=0.0),
            _checks.flag("bias", bias),
        )

    def _on_batch(self, x: Floats, x_plus: Floats, k: int, g: float, bias: bool) -> Landscape:
        """Make the landscape of a batch from validated arguments."""
        from pyssl.empirical import EmpiricalLandscape

        return EmpiricalLandscape(self, x, x_plus, k, g, bias)

    # -- on embeddings -----------------------------------------------------------------------------

    def value(self, z: npt.ArrayLike, z_plus: npt.ArrayLike) -> float:
        """Evaluate the loss on a batch of embeddings, from any encoder.

        Parameters
        ----------
        z, z_plus : (n, k) array_like
            Row i of each is the embedding of one view of sample i; n >= 2. float32 is evaluated in
            float32 with sums over samples in float64.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            For a wrong shape, n < 2, NaN or infinity (the message names the row).
        TypeError
            For anything but real numbers.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> z = np.eye(4)
        >>> round(pyssl.NTXent(temperature=0.5).value(z, z), 6)
        0.594438
        """
        return self._checked_sample(z, z_plus).value()

    def value_and_gradient(
        self, z: npt.ArrayLike, z_plus: npt.ArrayLike
    ) -> tuple[float, tuple[Floats, Floats]]:
        """Evaluate the loss and its gradients by both embeddings.

        Parameters
        ----------
        z, z_plus : (n, k) array_like
            Row i of each is the embedding of one view of sample i; n >= 2.

        Returns
        -------
        float
            The loss.
        tuple of (n, k) ndarray
            Its gradients by `z` and `z_plus`, in their dtype.

        Raises
        ------
        ValueError
            For a wrong shape, n < 2, NaN or infinity (the message names the row).
        TypeError
            For anything but real numbers.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> z = np.eye(4)
        >>> value, (dz, dz_plus) = pyssl.NTXent(temperature=0.5).value_and_gradient(z, z)
        >>> dz.shape
        (4, 4)
        """
        return self._checked_sample(z, z_plus).value_and_gradient()

    def hvp(
        self,
        z: npt.ArrayLike,
        z_plus: npt.ArrayLike,
        dz: npt.ArrayLike,
        dz_plus: npt.ArrayLike,
    ) -> tuple[Floats, Floats]:
        """Apply the Hessian on a batch of embeddings to a direction.

        Parameters
        ----------
        z, z_plus : (n, k) array_like
            The embeddings; n >= 2.
        dz, dz_plus : (n, k) array_like
            The direction.

        Returns
        -------
        tuple of (n, k) ndarray
            The change of the gradients by `z` and `z_plus` along the direction.

        Raises
        ------
        ValueError
            For a wrong shape, n < 2, NaN or infinity (the message names the row).
        TypeError
            For anything but real numbers.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> z = np.eye(4)
        >>> hz, hz_plus = pyssl.SpectralContrastive().hvp(z, z, z, 0 * z)
        >>> hz.shape
        (4, 4)
        """
        first, second = self._pairs("z", z, z_plus)
        along, along_plus = (
            _checks.array(name, value, ndim=2) for name, value in (("dz", dz), ("dz_plus", dz_plus))
        )
        for name, direction in (("dz", along), ("dz_plus", along_plus)):
            if direction.shape != first.shape:
                raise ValueError(f"{name} must be {first.shape}, got {direction.shape}")
        dtype = np.result_type(first, along, along_plus)
        first, second, along, along_plus = (
            a.astype(dtype, copy=False) for a in (first, second, along, along_plus)
        )
        return self._sample(first, second).hvp(along, along_plus)

    def terms(self, z: npt.ArrayLike, z_plus: npt.ArrayLike) -> dict[str, float]:
        """Return the named parts of the loss, before their weights.

        Parameters
        ----------
        z, z_plus : (n, k) array_like
            Row i of each is the embedding of one view of sample i; n >= 2.

        Returns
        -------
        dict of str to float
            For InfoNCE and NT-Xent ``alignment`` (minus the mean logit of the positives) and
            ``log_partition``, whose sum is the loss; for the others what their papers call the
            terms: docs/api/losses.md has the table of what the loss is made of them.

        Raises
        ------
        ValueError
            For a wrong shape, n < 2, NaN or infinity (the message names the row).
        TypeError
            For anything but real numbers.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> sorted(pyssl.VICReg().terms(np.eye(4), np.eye(4)))
        ['covariance', 'invariance', 'variance']
        """
        return self._checked_sample(z, z_plus).terms()

    def _checked_sample(self, z: npt.ArrayLike, z_plus: npt.ArrayLike) -> Sample:
        """Return the loss on embeddings whose entries are looked at only if their sums demand it.

        That saves a pass over them, as long as some of the losses read them five times.
        """
        first, second = self._pairs("z", z, z_plus, check_finite=False)
        with np.errstate(over="ignore", invalid="ignore"):
            sample = self._sample(first, second)
            finite = sample.finite()
        if not finite:
            _checks.finite("z", first)
            _checks.finite("z_plus", second)
        return sample

    @abstractmethod
    def _sample(self, z: Floats, z_plus: Floats) -> Sample:
        """Prepare the loss on validated embeddings, for one evaluation."""

    def _plane_pays(self, n: int, k: int, rows: int, columns: int) -> bool:
        """Return whether `_plane` is the fastest way to that many points."""
        return False

    def _plane(self, z: Floats, z_plus: Floats, u: Floats, v: Floats) -> Floats:
        """Return the loss at z[0] + u z[1] + v z[2] and the same of z_plus, (len(u), len(v)).

        Only for losses that say in `_plane_pays` that they can; z and z_plus are (3, n, k).
        """
        raise NotImplementedError

    @staticmethod
    def _pairs(
        name: str, first: npt.ArrayLike, second: npt.ArrayLike, *, check_finite: bool = True
    ) -> tuple[Floats, Floats]:
        pair = _checks.views(first, second, names=(name, f"{name}_plus"), check_finite=check_finite)
        if len(pair[0]) < 2:
            raise ValueError(
                f"{name} must have at least 2 rows: a sample alone has no negatives and no"
                f" variance, got {len(pair[0])}"
            )
        return pair

    # -- on the linear model -----------------------------------------------------------------------

    def _linear(
        self,
        level: str,
        moments: Moments,
        embedding_dim: int,
        weight_decay: float,
        bias: bool,
        depth: int,
    ) -> Landscape:
        _checks.instance("moments", moments, Moments, "pyssl.Moments")
        k = _checks.integer("embedding_dim", embedding_dim, minimum=1)
        g = _checks.real("weight_decay", weight_decay, minimum=0.0)
        bias = _checks.flag("bias", bias)
        layers = _checks.integer("depth", depth, minimum=1)
        make = partial(self._landscape, level, moments, bias=bias)
        if layers > 1:
            make = partial(self._deep, make, level, moments, layers)
        land = make(k, g)
        if isinstance(land, NumericalLandscape):
            land._remake = make
        return land

    def _deep(
        self,
        make: Callable[[int, float], Landscape],
        level: str,
        moments: Moments,
        depth: int,
        k: int,
        g: float,
    ) -> Landscape:
        """Make the landscape of a deep model from that of one layer without weight decay."""
        from pyssl.deep import DeepLandscape
        from pyssl.spectral import SpectralLandscape

        shallow = make(k, 0.0)
        if not isinstance(shallow, SpectralLandscape):
            self._lacks(
                level,
                "models with more than one layer need a spectral landscape (theory 9), and that of"
                f" one layer is a {type(shallow).__name__}",
            )
        land = DeepLandscape(shallow, depth, g)
        land.loss, land.moments = self, moments
        return land

    @abstractmethod
    def _landscape(self, level: str, m: Moments, k: int, g: float, bias: bool) -> Landscape:
        """Make the landscape from validated arguments."""

    def _lacks(self, level: str, reason: str) -> NoReturn:
        raise NotImplementedError(f"{type(self).__name__}.{level}: {reason}")
