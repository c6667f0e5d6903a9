"""The losses that reduce redundancy, as dataclasses that make landscapes (theory 3.4, 3.5)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pyssl import _barlow_twins, _checks, _vicreg
from pyssl._bias import BiasedLandscape
from pyssl._pencil import rank_tolerance
from pyssl.hinge import VICRegLandscape
from pyssl.landscape import Landscape
from pyssl.loss import Floats, Loss, Sample
from pyssl.moments import Moments
from pyssl.population import BarlowTwinsLandscape, NormalizedBarlowTwinsLandscape
from pyssl.potentials import Quartic
from pyssl.spectral import ModeSplit, SpectralLandscape
from pyssl.stationary import Modes

__all__ = ["BarlowTwins", "SquaredVICReg", "VICReg"]


@dataclass(frozen=True)
class BarlowTwins(Loss):
    """Barlow Twins: drive the cross-correlation of the two embeddings to the identity.

    Parameters
    ----------
    redundancy : float
        Weight >= 0 of the off-diagonal terms.
    normalize : bool
        Whether embeddings are standardised, the cross-correlation instead of the cross-covariance.
    epsilon : float
        >= 0, added to the variances when standardising a batch; the population landscape leaves it
        out.

    Raises
    ------
    ValueError
        For a setting out of range.
    TypeError
        For a setting of the wrong kind.

    Notes
    -----
    Source: theory 3.4. ``normalize=False`` with redundancy 1 is spectral and exact:
    ||I - W A W'||^2, learned iff a_j > g/4. Where A, estimated from a sample, has negative
    eigenvalues, their modes are never active; the landscape itself keeps them. With another
    redundancy, or normalised, the landscape is exact in the moments but has no closed form.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(2), np.diag([0.5, 0.1]))
    >>> loss = pyssl.BarlowTwins(redundancy=1.0, normalize=False)
    >>> loss.population(moments, embedding_dim=2, weight_decay=1.0).eigenvalues
    array([ 1., -3.])
    """

    key: ClassVar[str] = "barlow_twins"

    redundancy: float = 5e-3
    normalize: bool = True
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("redundancy", "epsilon"):
            object.__setattr__(self, name, _checks.real(name, getattr(self, name), minimum=0.0))
        _checks.flag("normalize", self.normalize)

    @property
    def polynomial(self) -> bool:
        return not self.normalize

    @property
    def scale_free(self) -> bool:
        return self.normalize and self.epsilon == 0.0

    @property
    def units_scale_free(self) -> bool:
        return self.normalize

    def duplicate_threshold(self, moments: Moments) -> float:
        """Return the redundancy below which two units duplicate each other.

        Parameters
        ----------
        moments : Moments
            Of the views.

        Returns
        -------
        float
            (1 - rho_1)(rho_1 - rho_2)/(rho_1 (rho_1 + rho_2)): with k = 2, at the minimum both
            units are the best aligned mode, rank 1, iff the redundancy is below it. inf where there
            is no second mode, nan where no mode is aligned, rho_1 <= 0.

        Raises
        ------
        TypeError
            For anything but moments.
        NotImplementedError
            For ``normalize=False``, where the covariance of a unit is free.

        Notes
        -----
        Source: theory 3.4. A negative rho_2, which samples have, counts as 0: units that turn to
        opposite sides of such a mode gain nothing, those that turn to the same side as much as 0.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.eye(2), np.diag([0.8, 0.2]))
        >>> round(pyssl.BarlowTwins().duplicate_threshold(moments), 12)
        0.15
        """
        _checks.instance("moments", moments, Moments, "pyssl.Moments")
        if not self.normalize:
            self._lacks("duplicate_threshold", "theory has it for normalised embeddings")
        rho = moments.alignments
        if rho[0] <= 0.0:
            return math.nan
        if moments.rank < 2:
            return math.inf
        first, second = float(rho[0]), max(float(rho[1]), 0.0)
        return (1.0 - first) * (first - second) / (first * (first + second))

    def _sample(self, z: Floats, z_plus: Floats) -> Sample:
        return _barlow_twins.BarlowTwins(z, z_plus, self.redundancy, self.normalize, self.epsilon)

    def _landscape(self, level: str, m: Moments, k: int, g: float, bias: bool) -> Landscape:
        if self.normalize:
            if level == "effective":
                self._lacks(level, "normalised, it has no expansion around the origin")
            return NormalizedBarlowTwinsLandscape(self, m, k, g, bias)
        if self.redundancy != 1.0:
            return BarlowTwinsLandscape(self, m, k, g, bias)
        land = _CrossCovarianceLandscape._of(
            2.0 * m.cross_covariance,
            m.cross_covariance,
            Quartic(1.0),
            k,
            g,
            float(k),
            m._eps,
            split=ModeSplit(
                name=repr(self),
                signal=2.0,
                sensitivity=2.0,
                augmentation=None,
                covariance=m.covariance,
                cross_covariance=m.cross_covariance,
                rank=m.rank,
                cancels=False,
                noise_metric=m._metric,
                n_samples=m.n_samples,
            ),
        )
        return BiasedLandscape.around(land) if bias else land


@dataclass(frozen=True)
class VICReg(Loss):
    """VICReg: invariance, a hinge on every unit's variance, and decorrelation of the units.

    Parameters
    ----------
    invariance, variance, covariance : float
        Weights >= 0 of the three terms.
    epsilon : float
        > 0, added to the variances inside the square root.
    halve_variance : bool
        Whether the variance term averages the two views (the official code) or adds them.

    Raises
    ------
    ValueError
        For a setting out of range.
    TypeError
        For a setting of the wrong kind.

    Notes
    -----
    Source: theory 3.5. The population landscape is exact in the moments and has no closed form, but
    one of complete collapse: a direction escapes the origin iff var Sigma > 4 inv sqrt(eps) C along
    it, without weight decay.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]))
    >>> land = pyssl.VICReg(epsilon=0.25).population(moments, embedding_dim=1)
    >>> land.origin_spectrum
    array([ 20., -20.])
    """

    key: ClassVar[str] = "vicreg"

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    epsilon: float = 1e-4
    halve_variance: bool = True

    def __post_init__(self) -> None:
        for name in ("invariance", "variance", "covariance"):
            object.__setattr__(self, name, _checks.real(name, getattr(self, name), minimum=0.0))
        epsilon = _checks.real("epsilon", self.epsilon, minimum=0.0, open_minimum=True)
        object.__setattr__(self, "epsilon", epsilon)
        _checks.flag("halve_variance", self.halve_variance)

    def _sample(self, z: Floats, z_plus: Floats) -> Sample:
        return _vicreg.VICReg(
            z,
            z_plus,
            self.invariance,
            self.variance,
            self.covariance,
            self.epsilon,
            self.halve_variance,
        )

    def _landscape(self, level: str, m: Moments, k: int, g: float, bias: bool) -> Landscape:
        if level == "effective":
            self._lacks(level, "the hinge has no fourth-order expansion; see SquaredVICReg")
        return VICRegLandscape(self, m, k, g, bias)

    def _on_batch(self, x: Floats, x_plus: Floats, k: int, g: float, bias: bool) -> Landscape:
        from pyssl._hinge_on_batch import EmpiricalVICRegLandscape

        return EmpiricalVICRegLandscape(self, x, x_plus, k, g, bias)


@dataclass(frozen=True)
class SquaredVICReg(Loss):
    """VICReg with squares for the hinge: inv E|z - z+|^2 + ||I - Cov z||^2.

    Parameters
    ----------
    invariance : float
        Weight >= 0 of the first term.

    Raises
    ------
    ValueError
        For a negative or infinite invariance.
    TypeError
        For an invariance that is no real number.

    Notes
    -----
    Source: theory 3.5. Spectral and exact: S = Sigma, B = 2 (Sigma - inv C) - (g/2) I, q = 1. Above
    invariance 1 the augmentation alone collapses directions.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]))
    >>> pyssl.SquaredVICReg(2.0).population(moments, embedding_dim=2).eigenvalues
    array([ 1.6, -1.6])
    """

    key: ClassVar[str] = "squared_vicreg"

    invariance: float = 1.0

    def __post_init__(self) -> None:
        invariance = _checks.real("invariance", self.invariance, minimum=0.0)
        object.__setattr__(self, "invariance", invariance)

    @property
    def polynomial(self) -> bool:
        return True

    def _sample(self, z: Floats, z_plus: Floats) -> Sample:
        return _vicreg.SquaredVICReg(z, z_plus, self.invariance)

    def _landscape(self, level: str, m: Moments, k: int, g: float, bias: bool) -> Landscape:
        c = m.augmentation_covariance
        land = SpectralLandscape._of(
            2.0 * (m.cross_covariance + (1.0 - self.invariance) * c),
            m.covariance,
            Quartic(1.0),
            k,
            g,
            float(k),
            m._eps,
            metric=m._metric,
            split=ModeSplit(
                name=repr(self),
                signal=2.0,
                sensitivity=2.0 * self.invariance,
                augmentation=2.0 * self.invariance * c,
                covariance=m.covariance,
                cross_covariance=m.cross_covariance,
                rank=m.rank,
                cancels=self.invariance != 1.0,
                n_samples=m.n_samples,
            ),
        )
        return BiasedLandscape.around(land) if bias else land


class _CrossCovarianceLandscape(SpectralLandscape):
    """B = 2A - (g/2) I and S = A commute, and A may be indefinite (theory 3.4)."""

    def _solve(self) -> Modes:
        # By the formula lambda = 2 - g/(2a): a numerical pencil gives 2 +- eps and sorts noise.
        a, basis = (item[..., ::-1] for item in np.linalg.eigh(self.S))
        g, d = self.weight_decay, self.dim
        tolerance = rank_tolerance(d, self._eps, float(np.abs(a).max(initial=0.0)))
        inside = a > tolerance
        size = np.sqrt(np.where(np.abs(a) > tolerance, np.abs(a), 1.0))
        vectors = basis / size
        eigenvalues = 2.0 - 0.5 * g / a[inside]
        outside = ~inside
        signature = np.where(outside & (a < -tolerance), -1.0, 0.0)[outside]
        level = np.where(signature < 0.0, 2.0 * a[outside], 0.0) - 0.5 * g
        return Modes.assemble(
            eigenvalues,
            np.full(len(eigenvalues), np.inf),
            vectors[:, inside],
            vectors[:, outside],
            level / size[outside] ** 2,
            null_signature=signature,
            null_eigenvalue=0.0 if g == 0.0 else -np.inf,
            scale=self.S,
            positive=self._count_positive(g),
        )
