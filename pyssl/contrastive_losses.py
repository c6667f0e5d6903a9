"""The contrastive losses, as dataclasses that make landscapes (theory 3.1 to 3.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from pyssl import _checks, _contrastive, _contrastive_plane
from pyssl._bias import BiasedLandscape, with_mean
from pyssl._finite import Terms, finite_negatives
from pyssl._pencil import Array, descending
from pyssl._spectral_contrastive import spectral_contrastive
from pyssl.angular import AngularNTXentLandscape
from pyssl.landscape import Landscape
from pyssl.loss import Floats, Loss, Sample
from pyssl.moments import Moments
from pyssl.normalized import NTXentLandscape
from pyssl.potentials import InfoNCEPotential, Potential, Quartic
from pyssl.spectral import ExactDeficit, ModeSplit, SpectralLandscape
from pyssl.stationary import Modes

__all__ = ["InfoNCE", "NTXent", "SpectralContrastive"]


@dataclass(frozen=True)
class InfoNCE(Loss):
    """InfoNCE: find the positive among negatives by the similarity of embeddings.

    Parameters
    ----------
    temperature : float
        tau > 0.
    similarity : {"sqeuclidean", "dot"}
        The logit: -|z - z'|^2/(2 tau), the paper's, or z.z'/tau.
    partition : {"conditional", "joint"}
        Whether the log-mean over negatives is taken inside the expectation over anchors (InfoNCE
        as it is trained), or over anchors and negatives together (uniformity; the paper's).
    negatives : float
        K, the negatives beside the positive: infinite, or an integer >= 1 for `effective`. On
        batches (`value` and its derivatives, `empirical`) it is not used: n pairs have n - 1.
    normalize : bool
        Whether embeddings are scaled to unit length first (cosine similarity).
    symmetric : bool
        Whether the loss averages both directions, from x to x+ and back.

    Raises
    ------
    ValueError
        For a setting out of range.
    TypeError
        For a setting of the wrong kind.

    Notes
    -----
    Source: theory 3.1 and 4. With infinite negatives the landscape is spectral: S = Sigma,
    B = A/tau - (g/2) I. Everything collapses iff the largest eigenvalue of A is at most g tau/2,
    and at most g tau (K + 1)/(2K) with K negatives.

    The dot similarity sees the mean of the views: without a bias it is a penalty, and the landscape
    not spectral; with one, b = -W mu removes it.

    ``effective`` with finite negatives is a quartic. Where its terms have common modes (without
    weight decay, or where Sigma and A commute) it has a closed form, ``minimum()``.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]))
    >>> land = pyssl.InfoNCE(temperature=0.5).population(moments, embedding_dim=2)
    >>> land.eigenvalues
    array([1.8, 0.2])
    """

    key: ClassVar[str] = "infonce"

    temperature: float = 1.0
    similarity: str = "sqeuclidean"
    partition: str = "conditional"
    negatives: float = math.inf
    normalize: bool = False
    symmetric: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "temperature", _temperature(self.temperature))
        InfoNCEPotential(self.temperature, self.similarity, self.partition)  # checks the others
        count = _checks.real("negatives", self.negatives, minimum=1.0, allow_infinite=True)
        if not (math.isinf(count) or count.is_integer()):
            raise ValueError(f"negatives must be an integer or infinite, got {count:g}")
        _checks.flag("normalize", self.normalize)
        _checks.flag("symmetric", self.symmetric)

    @property
    def scale_free(self) -> bool:
        return self.normalize

    @property
    def embedding_unit(self) -> float:
        return self.temperature

    @property
    def needs_gaussian_views(self) -> bool:
        return True

    def log_candidates(self, n: int) -> float:
        return math.log(n)

    def _sample(self, z: Floats, z_plus: Floats) -> Sample:
        return _contrastive.infonce(
            z,
            z_plus,
            temperature=self.temperature,
            similarity=self.similarity,
            partition=self.partition,
            normalize=self.normalize,
            symmetric=self.symmetric,
        )

    def _plane_pays(self, n: int, k: int, rows: int, columns: int) -> bool:
        sides = 1 + int(self.symmetric)
        return not self.normalize and _contrastive_plane.pays(n, k, rows, columns, sides)

    def _plane(self, z: Floats, z_plus: Floats, u: Floats, v: Floats) -> Floats:
        return _contrastive_plane.infonce(
            z,
            z_plus,
            u,
            v,
            temperature=self.temperature,
            similarity=self.similarity,
            partition=self.partition,
            symmetric=self.symmetric,
        )

    def _landscape(self, level: str, m: Moments, k: int, g: float, bias: bool) -> Landscape:
        if self.normalize:
            self._lacks(level, "normalised embeddings have no landscape in the moments alone")
        if not math.isinf(self.negatives):
            if level == "population":
                self._lacks(
                    level,
                    "the expectation of a log of finitely many terms has no closed form; effective"
                    " has it to fourth order, empirical on a batch",
                )
            if self.partition == "joint":
                self._lacks(
                    level,
                    "the joint partition takes the mean over anchors inside the logarithm, where"
                    " finite negatives are those of a finite batch: see empirical",
                )
            terms = Terms.of(self.negatives, self.temperature, self.similarity)
            return finite_negatives(self, terms, m, k, g, bias)
        if self.similarity == "dot":
            return with_mean(
                self,
                m,
                g,
                bias,
                lambda decay: self._spectral(level, m, k, decay),
                self.temperature,
                self.partition,
            )
        land = self._spectral(level, m, k, g)
        return BiasedLandscape.around(land) if bias else land

    def _spectral(self, level: str, m: Moments, k: int, g: float) -> SpectralLandscape:
        """Return the landscape of the centred views with infinite negatives."""
        tau = self.temperature
        potential: Potential = InfoNCEPotential(tau, self.similarity, self.partition)
        q = 0.5 * float(potential.curvature(np.zeros(())))
        quartic = level == "effective" or (self.similarity, self.partition) == (
            "dot",
            "conditional",
        )
        deficit = None
        c = m.augmentation_covariance / tau
        if quartic:
            potential = Quartic(q)
        elif self.similarity == "sqeuclidean":
            deficit = ExactDeficit(c, max(m.rank - m._augmentation_rank, 0))
        return SpectralLandscape._of(
            m.cross_covariance / tau,
            m.covariance,
            potential,
            k,
            g,
            0.0,
            m._eps,
            metric=m._metric,
            deficit=deficit,
            split=ModeSplit(
                name=repr(self),
                signal=1.0 / tau,
                sensitivity=1.0 / tau,
                augmentation=c,
                covariance=m.covariance,
                cross_covariance=m.cross_covariance,
                rank=m.rank,
                cancels=False,
                n_samples=m.n_samples,
            ),
        )


@dataclass(frozen=True)
class NTXent(Loss):
    """NT-Xent (SimCLR): cosine InfoNCE over all 2n views, the anchor itself excluded.

    Parameters
    ----------
    temperature : float
        tau > 0.

    Raises
    ------
    ValueError
        For a temperature that is not positive and finite.
    TypeError
        For a temperature that is no real number.

    Notes
    -----
    Source: theory 3.2.

    Examples
    --------
    >>> import pyssl
    >>> pyssl.NTXent(temperature=0.1)
    NTXent(temperature=0.1)
    """

    key: ClassVar[str] = "ntxent"

    temperature: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "temperature", _temperature(self.temperature))

    @property
    def scale_free(self) -> bool:
        return True

    @property
    def needs_gaussian_views(self) -> bool:
        return True

    def log_candidates(self, n: int) -> float:
        return math.log(2 * n - 1)

    def sharpest(
        self, moments: Moments, embedding_dim: int, weight_decay: float = 0.0
    ) -> tuple[str, Landscape]:
        # the exact angular moments are those of centred views
        _checks.instance("moments", moments, Moments, "pyssl.Moments")
        angular = "leading" if moments.mean.any() else "exact"
        return "effective", self.effective(moments, embedding_dim, weight_decay, angular=angular)

    def _sample(self, z: Floats, z_plus: Floats) -> Sample:
        return _contrastive.ntxent(z, z_plus, temperature=self.temperature)

    def effective(
        self,
        moments: Moments,
        embedding_dim: int,
        weight_decay: float = 0.0,
        bias: bool = False,
        *,
        depth: int = 1,
        angular: str = "leading",
    ) -> Landscape:
        """Return the effective landscape: second cumulant of the cosine between negatives.

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
            1: deep models need a spectral landscape (theory 9).
        angular : {"leading", "exact"}, optional
            Moments of normalised embeddings to leading order in 1/effective rank, or exact for
            centred Gaussian views and W that align with the modes.

        Returns
        -------
        NTXentLandscape
            An AngularNTXentLandscape for ``angular="exact"``.

        Raises
        ------
        ValueError
            For a wrong value, or moments without variation.
        TypeError
            For an argument of the wrong kind.
        NotImplementedError
            For exact angular moments with a bias or a mean.

        Notes
        -----
        Source: theory 3.2.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.eye(3), np.diag([0.9, 0.8, 0.1]))
        >>> loss = pyssl.NTXent(temperature=1.0)
        >>> loss.effective(moments, 3).minimum().amplitudes.round(3)
        array([0.55, 0.45, 0.  ])
        >>> loss.effective(moments, 3, angular="exact").minimum().rank
        3
        """
        exact = _checks.choice("angular", angular, ("leading", "exact")) == "exact"
        land = super().effective(moments, embedding_dim, weight_decay, bias, depth=depth)
        assert isinstance(land, NTXentLandscape)
        if not exact:
            return land
        if land.bias or moments.mean.any():
            self._lacks(
                "effective",
                "exact angular moments are those of centred views without a bias; pass"
                " moments.centered() and bias=False",
            )
        return AngularNTXentLandscape(self, moments, land.embedding_dim, land.weight_decay, False)

    def _landscape(self, level: str, m: Moments, k: int, g: float, bias: bool) -> Landscape:
        if level == "population":
            self._lacks(level, "its expectation over normalised embeddings has no closed form")
        return NTXentLandscape(self, m, k, g, bias)


@dataclass(frozen=True)
class SpectralContrastive(Loss):
    """The spectral contrastive loss -2 E z.z+ + E (z.z')^2.

    Parameters
    ----------
    clip : float, optional
        mu > 0: embeddings are first shortened to length sqrt(mu), the loss divided by mu.
    negatives : {"offdiagonal", "all"}
        Whether a batch's own pairs count among its negatives.

    Raises
    ------
    ValueError
        For a setting out of range.
    TypeError
        For a setting of the wrong kind.

    Notes
    -----
    Source: theory 3.3; with a bias, theory 4. Exact for any distribution: S and B = 2 A - (g/2) I
    uncentred, q = 1. A bias spends one embedding dimension on the constant function, whose
    eigenvalue is exactly 2; the other modes are then those of the centred moments.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]), mean=[3.0, 1.0])
    >>> land = pyssl.SpectralContrastive().population(moments, embedding_dim=2, bias=True)
    >>> land.eigenvalues
    array([2. , 1.8, 0.2])
    """

    key: ClassVar[str] = "spectral"

    clip: float | None = None
    negatives: str = "offdiagonal"

    def __post_init__(self) -> None:
        if self.clip is not None:
            clip = _checks.real("clip", self.clip, minimum=0.0, open_minimum=True)
            object.__setattr__(self, "clip", clip)
        _checks.choice("negatives", self.negatives, ("offdiagonal", "all"))

    @property
    def polynomial(self) -> bool:
        return self.clip is None

    @property
    def keeps_constant(self) -> bool:
        return True

    def _sample(self, z: Floats, z_plus: Floats) -> Sample:
        return spectral_contrastive(z, z_plus, self.clip, self.negatives)

    def _landscape(self, level: str, m: Moments, k: int, g: float, bias: bool) -> Landscape:
        if self.clip is not None:
            self._lacks(level, "clipped embeddings have no landscape in the moments alone")
        sigma, a, c, metric = (
            m.second_moment,
            m.cross_moment,
            m.augmentation_covariance,
            m._uncentered_metric,
        )
        kind: type[SpectralLandscape] = SpectralLandscape
        options: dict[str, Any] = {"metric": metric}
        rank, centered = metric.rank, m.covariance
        if bias:
            kind, options = _WithConstant, {"centered": m}
            rank = m.rank + 1
            nothing = np.zeros(m.dim)
            sigma, a, c, centered = (
                _bordered(sigma, m.mean, 1.0),
                _bordered(a, m.mean, 1.0),
                _bordered(c, nothing, 0.0),
                _bordered(centered, nothing, 0.0),
            )
        return kind._of(
            2.0 * a,
            sigma,
            Quartic(1.0),
            k,
            g,
            0.0,
            m._eps,
            split=ModeSplit(
                name=repr(self),
                signal=2.0,
                sensitivity=2.0,
                augmentation=2.0 * c,
                covariance=sigma,
                cross_covariance=a,
                rank=rank,
                cancels=False,
                n_samples=m.n_samples,
                centered=centered,
            ),
            **options,
        )


class _WithConstant(SpectralLandscape):
    """The spectral contrastive loss of (x, 1): the constant function is a mode (theory 4)."""

    _centered: Moments

    def _setup(self, *parts: Any, centered: Moments | None = None, **options: Any) -> None:
        super()._setup(*parts, **options)
        assert centered is not None
        self._centered = centered

    @property
    def _decayed(self) -> Array:
        return np.append(np.ones(self.dim - 1), 0.0)

    @cached_property
    def _signal_spectrum(self) -> Array:
        # b = -W mu leaves the centred pencil, and the constant no decay can touch
        return np.append(np.inf, 2.0 * descending(self._centered.cross_covariance))

    def _without_bias(self) -> tuple[SpectralLandscape, Array | None]:
        m, g = self._centered, self.weight_decay
        centered = SpectralContrastive()._landscape(
            "population", m.centered(), self.embedding_dim, g, False
        )
        assert isinstance(centered, SpectralLandscape)
        return centered, m.mean

    def _solve(self) -> Modes:
        mu, g = self._centered.mean, self.weight_decay
        inner = self._without_bias()[0]._modes
        inside = inner.signature > 0.0

        def extended(vectors: Array) -> Array:
            return np.vstack([vectors, -mu @ vectors])

        constant = np.append(np.zeros(len(mu)), 1.0)[:, None]
        null, flat = extended(inner.vectors[:, ~inside]), not inner.curvature[~inside].any()
        null = np.linalg.qr(null)[0]  # of unit length again, and diagonal in the decay
        curvature, turn = np.linalg.eigh((0.0 if flat else -0.5 * g) * null[:-1].T @ null[:-1])
        return Modes.assemble(
            np.append(2.0, inner.eigenvalues[inside]),
            np.full(1 + int(inside.sum()), np.inf),
            np.hstack([constant, extended(inner.vectors[:, inside])]),
            null @ turn,
            curvature,
            scale=self.S,
            positive=self._count_positive(g),
        )


def _temperature(value: float) -> float:
    """Return a temperature whose logits stay inside float32, far from any in use."""
    tau = _checks.real("temperature", value, minimum=0.0, open_minimum=True)
    if not 1e-30 <= tau <= 1e30:
        raise ValueError(f"temperature must be between 1e-30 and 1e30, got {tau:g}")
    return tau


def _bordered(matrix: Array, edge: Array, corner: float) -> Array:
    """Return the moment matrix (d + 1, d + 1) of (x, 1) from that of x."""
    return np.block([[matrix, edge[:, None]], [edge[None, :], np.array([[corner]])]])
