"""Deep linear models: spectral landscapes over the product of layers that decay (theory 9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._deep_search import descend_by_rank
from pyssl._deep_solution import CONSTANT_VALUE, Solution, keeps_constant, unattained
from pyssl._pencil import Array, readonly
from pyssl._schatten import LayerDecay
from pyssl.loss import Loss
from pyssl.moments import Moments
from pyssl.numerical import NumericalLandscape
from pyssl.spectral import SpectralLandscape
from pyssl.stationary import Minimum, Origin
from pyssl.wells import WellTable

__all__ = ["DeepLandscape"]

Floats = npt.NDArray[Any]


class DeepLandscape(NumericalLandscape):
    """A spectral landscape over the product W = W_D ... W_1 of D layers, each under weight decay.

    L(W) = L_0(W) + (g/2) D sum_i s_i(W)^(2/D) over the singular values s_i: L_0 is the landscape of
    one layer, the rest the least (g/2) sum_l ||W_l||^2 that layers with the product W can have, as
    balanced ones do. Answers to every method of `Landscape`. Made by the losses, ``depth=D``, or of
    a `SpectralLandscape` of one's own.

    Parameters
    ----------
    landscape : SpectralLandscape
        L_0, without weight decay.
    depth : int
        D >= 2 layers; those between have at least min(k, d) units. A bias is the last layer's.
    weight_decay : float, optional
        g >= 0, of each layer.

    Attributes
    ----------
    landscape : SpectralLandscape
    depth, embedding_dim : int
    weight_decay : float
    loss : Loss or None
    moments : Moments or None
        What made it, if a loss did.
    commutes : bool
        Whether B and S of L_0 commute within rounding: then everything is in closed form, mode by
        mode.
    shape : tuple of int
        (k, d), or (k, d + 1) with a bias.

    Raises
    ------
    ValueError
        For ``depth < 2``, a negative weight decay, or a landscape that has some already.
    TypeError
        For arguments of the wrong kind.

    Notes
    -----
    Source: theory 9. Where W has rank below min(k, d) and g > 0 the decay has no derivative: its
    slope out of the range of W is positive in every direction (infinite for D > 2). `gradient` is
    then that along the range, which is what the layers follow, whose vanishing singular values
    stay; W is stationary where it is 0. `hvp` and `hessian` raise ValueError there. Singular values
    up to max(k, d) eps of the largest are zero. Without decay everything is as with one layer.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.4]))
    >>> land = pyssl.SpectralContrastive().population(moments, 2, weight_decay=0.4, depth=2)
    >>> land.minimum()
    Minimum(value=-0.442379, rank=1, attained=True)
    >>> land.origin().index  # a local minimum, as always
    0
    """

    def __init__(self, landscape: SpectralLandscape, depth: int, weight_decay: float = 0.0) -> None:
        _checks.instance("landscape", landscape, SpectralLandscape, "a SpectralLandscape")
        if landscape.weight_decay:
            raise ValueError(
                "landscape must have no weight decay, that of the layers being weight_decay, got"
                f" {landscape.weight_decay:g}"
            )
        self.depth = _checks.integer("depth", depth, minimum=2)
        g = _checks.real("weight_decay", weight_decay, minimum=0.0)
        super().__init__(landscape.shape, g, not bool(landscape._decayed[-1]))
        self.landscape = landscape
        self.loss: Loss | None = None
        self.moments: Moments | None = None

    # -- evaluation --------------------------------------------------------------------------------

    @cached_property
    def _layers_decay(self) -> LayerDecay:
        return LayerDecay(self.depth, self.weight_decay)

    @property
    def _columns(self) -> int:
        """The columns of W that are no bias."""
        return self.shape[1] - int(self.bias)

    def _working_dtype(self, dtype: Any) -> Any:
        return dtype

    def _decay(self, w: Floats) -> float:
        return float(self._layers_decay.value(w[..., : self._columns]))

    def _value(self, w: Floats) -> float:
        return float(self.landscape.value(w))

    def _value_and_gradient(self, w: Floats) -> tuple[float, Floats]:
        value, gradient = self.landscape.value_and_gradient(w)
        inner = gradient[:, : self._columns]
        inner += self._layers_decay.gradient(w[:, : self._columns])
        return float(value), gradient

    def _linearised(self, w: Floats) -> Callable[[Floats], Floats]:
        columns = self._columns
        shallow = self.landscape._linearised(w)
        decay = self._layers_decay.linearised(w[:, :columns])

        def along(direction: Floats) -> Floats:
            result = shallow(direction)
            inner = result[:, :columns]
            inner += decay(direction[:, :columns])
            return result

        return along

    def _with_decay(self, slope: Floats, w: Floats) -> Floats:
        return slope  # the derivatives above have it

    def _grid(self, W0: Floats, D1: Floats, D2: Floats, u: Floats, v: Floats) -> Floats:
        surface = self.landscape.plane(W0, D1, D2, u, v).astype(np.float64)
        columns = self._columns
        line = W0[:, :columns] + v[:, None, None] * D2[:, :columns]
        for values, coordinate in zip(surface, u, strict=True):
            values[...] += self._layers_decay.value(line + coordinate * D1[:, :columns])
        return surface

    # -- closed form -------------------------------------------------------------------------------

    @property
    def commutes(self) -> bool:
        """Whether B and S commute, so that minimum, wells and critical decays are closed forms."""
        return self._solution is not None

    @cached_property
    def _solution(self) -> Solution | None:
        return Solution.of(self.landscape, self.depth, self.weight_decay)

    def _solved(self) -> Solution:
        if self._solution is None:
            raise NotImplementedError(
                "DeepLandscape: B and S don't commute, so that no mode has a well of its own"
                " (theory 9); minimum() searches"
            )
        return self._solution

    @property
    def vectors(self) -> Array:
        """The modes v_j as columns (d, d), v'Sv = 1, of unit length on the null space of S.

        In the order of `wells`; with a bias the last row is what it is where the mode is active.
        """
        return self._solved().vectors

    def wells(self) -> WellTable:
        """Return the well of every mode, its barrier, and the decays at which they go.

        Returns
        -------
        WellTable

        Raises
        ------
        NotImplementedError
            Where B and S don't commute, or the potential gives a mode several wells.

        Notes
        -----
        Source: theory 9. A well is a minimum along its own mode. Beside another mode j that is
        empty and has b_j - r'(n) sigma_j > b - r'(n) sigma it is a saddle: the direction turns.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.4]))
        >>> land = pyssl.SpectralContrastive().population(moments, 2, weight_decay=0.4, depth=2)
        >>> table = land.wells()
        >>> table.exists, table.learned
        (array([ True, False]), array([ True, False]))
        """
        return self._solved().table

    def profile(self, s: npt.ArrayLike) -> Floats:
        """Return f along every mode, where `wells` finds minima and maxima.

        Parameters
        ----------
        s : (m,) array_like
            Singular values.

        Returns
        -------
        (m, d) ndarray
            -b_j s^2 + r(sigma_j s^2) + (g/2) D |s|^(2/D), in the order of `wells`. nan for the
            constant function, which with a bias is no direction of W.

        Raises
        ------
        ValueError
            For a wrong shape, NaN or infinity.
        TypeError
            For anything but real numbers.
        NotImplementedError
            Where B and S don't commute.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.eye(1), 0.5 * np.eye(1))
        >>> land = pyssl.SpectralContrastive().population(moments, 1, weight_decay=0.5, depth=2)
        >>> land.profile([0.0, 1.0]).ravel()
        array([0. , 0.5])
        """
        solution = self._solved()
        along = _checks.array("s", s, ndim=1)
        squares = np.square(along.astype(np.float64))[:, None]
        values = self.landscape.potential.value(squares * solution.scales)
        values = values - squares * solution.rates + self._layers_decay.of_squares(squares)
        return np.asarray(values, dtype=along.dtype)

    def minimum(self) -> Minimum:
        """Return the global minimum.

        Returns
        -------
        Minimum
            Over the product W. Where B and S commute the k lowest wells that lie below the origin.
            Where they don't, the lowest end of descents at several ranks: a local minimum, the
            global one as far as those find it.

        Raises
        ------
        NotImplementedError
            Where the potential gives a mode several wells.

        Notes
        -----
        Source: theory 9.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.eye(1), 0.5 * np.eye(1))
        >>> loss = pyssl.SpectralContrastive()
        >>> for g in (0.2, 0.3, 0.4):
        ...     print(loss.population(moments, 1, weight_decay=g, depth=2).minimum().rank)
        1
        1
        0
        """
        return self._minimum

    @cached_property
    def _minimum(self) -> Minimum:
        if self.weight_decay == 0.0:
            return self.landscape.minimum()
        if self._solution is not None:
            return self._solution.minimum(self.landscape)
        core, offset = self.landscape._without_bias()
        if not core.bounded or core._modes.beyond:
            amplitudes = np.zeros(core.dim)
            amplitudes[: core._modes.beyond] = np.inf
            return unattained(amplitudes, -np.inf, self.landscape)
        spent = int(keeps_constant(self.landscape))  # on the constant function, which nothing beats
        best, value = np.zeros((0, core.dim)), core.constant
        if self.embedding_dim > spent:
            best, value = descend_by_rank(core, self._layers_decay, self.embedding_dim - spent)
        amplitudes = np.sum((best @ core._modes.covectors) ** 2, axis=0)
        weights = np.zeros(self.shape)
        weights[spent:, : self._columns] = best
        rank = int(np.count_nonzero(best.any(axis=1)))
        if offset is not None:
            weights[spent:, -1] = -(best @ offset)
        if spent:
            weights[0, -1], value, rank = 1.0, value + CONSTANT_VALUE, rank + 1
            amplitudes = np.append(1.0, amplitudes)
        return Minimum(
            weights=readonly(weights),
            value=value,
            amplitudes=readonly(amplitudes),
            rank=rank,
            attained=True,
            bounded=True,
            degenerate=False,
        )

    def origin(self) -> Origin:
        """Return the stationary point at W = 0.

        Returns
        -------
        Origin
            With weight decay a local minimum, index 0: along W the value rises as s^(2/D), faster
            than any quadratic, which the Hessian spectrum gives as inf. A bias moves as ever.

        Notes
        -----
        Source: theory 9. Leaving the origin is a first-order transition.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.4]))
        >>> loss = pyssl.SpectralContrastive()
        >>> [loss.population(moments, 2, 0.1, depth=D).origin().index for D in (1, 2)]
        [4, 0]
        """
        if self.weight_decay == 0.0:
            return self.landscape.origin()
        land, constant = self.landscape, int(keeps_constant(self.landscape))
        modes = land._modes
        curvature = np.full(len(modes.curvature), -np.inf)
        signal = np.zeros_like(land.B)
        if constant:
            curvature[0], signal[-1, -1] = modes.curvature[0], land.B[-1, -1]
        return Origin(
            replace(
                modes,
                curvature=curvature,
                positive=constant,
                learnable=constant,
                unattained=0,
                beyond=0,
                bounded=True,
            ),
            land.potential,
            self.embedding_dim,
            land.constant,
            (),
            signal=signal,
            metric=land._metric,
        )

    def layers(self, W: npt.ArrayLike | None = None) -> list[Floats]:
        """Return balanced layers whose product is W: of all that have it, those that decay least.

        Parameters
        ----------
        W : (k, d) array_like, optional
            That of the minimum by default. A bias, (k, d + 1), is left out: it belongs to the last
            layer and does not decay.

        Returns
        -------
        list of D ndarray
            W_D (k, m), ..., W_1 (m, d) with m = min(k, d), so that ``W_D @ ... @ W_1`` is W and
            W_(l+1)'W_(l+1) = W_l W_l'.

        Raises
        ------
        ValueError
            For a wrong shape, NaN or infinity, or where the minimum is not attained.
        TypeError
            For anything but real numbers.

        Notes
        -----
        Source: theory 9.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.4]))
        >>> land = pyssl.SpectralContrastive().population(moments, 1, weight_decay=0.1, depth=3)
        >>> [layer.shape for layer in land.layers()]
        [(1, 1), (1, 1), (1, 2)]
        """
        if W is None:
            minimum = self.minimum()
            if not minimum.attained:
                raise ValueError("W must be given where the minimum is not attained")
            W = minimum.weights
        weights = _checks.weights("W", W, self.shape)
        if weights.ndim != 2:
            raise ValueError(f"W must be {self.shape}, got {weights.shape}")
        product = weights[:, : self._columns].astype(np.float64)
        u, s, vt = np.linalg.svd(product, full_matrices=False)
        share = s ** (1.0 / self.depth)
        between = [np.diag(share) for _ in range(self.depth - 2)]
        layers = [u * share, *between, share[:, None] * vt]
        return [layer.astype(weights.dtype, copy=False) for layer in layers]

    def __repr__(self) -> str:
        return (
            f"DeepLandscape({self.landscape!r}, depth={self.depth},"
            f" weight_decay={self.weight_decay:g})"
        )


def origin_note(land: DeepLandscape) -> str:
    """Say what a report has to say of every deep model with weight decay."""
    return (
        f"{land.depth} layers: with weight decay the origin is a local minimum, from which small"
        " weights don't escape"
    )
