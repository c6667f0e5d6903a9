"""Gradient flow in closed form: commuting pencils and aligned starts (theory 2.7)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl._pencil import Array, rank_tolerance
from pyssl.landscape import ModeLandscape, SpectralEvaluation
from pyssl.potentials import InfoNCEPotential, Potential, Quartic
from pyssl.spectral import SpectralLandscape

__all__ = ["AlignedFlow", "ModeFrame", "mode_frame", "shared_eigenbasis"]

Floats = npt.NDArray[Any]

# Commuting and aligned mean: up to so many d eps of the norms.
_ULPS = 64.0
# Combinations of B and S, of which the one is taken that keeps apart best what is apart in either.
_MIXES = (0.618, 1.732, -0.577, -1.414)
# The scalar equations of potentials without formula are solved to this relative accuracy.
_SCALAR_RTOL = 1e-12


@dataclass(frozen=True, eq=False)
class ModeFrame:
    """The modes of a spectral landscape, as the flow needs them.

    Attributes
    ----------
    covectors : (d, m) columns c_j, with n_j = |W c_j|^2.
    final : (m,) amplitudes at the global minimum.
    deficits : (m,) r'(inf) - lambda_j; 0 where the mode diverges.
    basis : (d, m) orthonormal eigenvectors that B and S share, or None where they don't commute.
    rates, scales : (m,) eigenvalues of B and S on that basis.
    """

    covectors: Array
    final: Array
    deficits: Array
    basis: Array | None = None
    rates: Array | None = None
    scales: Array | None = None

    def fitted(self, start: Array, eps: float) -> ModeFrame:
        """Turn the modes that are tied in B and in S so that the start is diagonal in them."""
        if self.basis is None or self.rates is None or self.scales is None:
            return self
        basis = _fitted_basis(self.basis, self.rates, self.scales, start, eps)
        return replace(self, basis=basis, covectors=basis * np.sqrt(np.abs(self.scales)))

    def amplitudes(self, weights: Floats) -> Array:
        """Return n_j (..., m) of weights (..., k, d)."""
        return np.asarray(np.sum((weights @ self.covectors) ** 2, axis=-2))

    def predicted_times(self, start: Array) -> Array:
        """Return log(n_inf/n_0 - 1)/(4 b_j), the time at which a logistic n_j is half n_inf."""
        result = np.full(len(self.final), np.nan)
        if self.rates is None:
            return result
        learned = (self.final > 0.0) & np.isfinite(self.final)
        with np.errstate(divide="ignore"):
            ratio = self.final[learned] / self.amplitudes(start)[learned]
            result[learned] = np.log(np.maximum(ratio - 1.0, 1.0)) / (4.0 * self.rates[learned])
        return result


def mode_frame(land: Any) -> ModeFrame | None:
    """Return the modes of a landscape that has them."""
    if isinstance(land, ModeLandscape):
        lam = land.eigenvalues
        deficits = land.potential.slope_limit - lam
        final = np.zeros(len(lam))
        learned = np.flatnonzero(lam > 0.0)[: land.shape[0]]
        within = learned[deficits[learned] > 0.0]
        final[learned] = np.inf
        final[within] = land.potential.amplitude(lam[within], deficits[within])
        eye = np.eye(len(lam))
        return ModeFrame(eye, final, deficits, eye, lam, np.ones(len(lam)))
    if not isinstance(land, SpectralLandscape):
        return None
    modes = land._modes
    final = land.minimum().amplitudes
    deficits = modes.deficits.copy()
    deficits[: modes.unattained] = 0.0
    # the closed form is that of the modes alone: a bias moves with none of them
    biased = len(modes.vectors) > len(final)
    shared = None if biased else shared_eigenbasis(land.B, land.S, land._eps)
    if shared is None:
        return ModeFrame(modes.covectors, final, deficits)
    basis, rates, scales = shared
    # in the order of the landscape's own modes; a tie in lambda leaves n_inf and deficit the same
    inside = scales > 0.0
    lam = np.where(rates < 0.0, -np.inf, 0.0)
    lam[inside] = rates[inside] / scales[inside]
    order = np.lexsort((~inside, -lam))
    basis, rates, scales = basis[:, order], rates[order], scales[order]
    return ModeFrame(basis * np.sqrt(np.abs(scales)), final, deficits, basis, rates, scales)


def shared_eigenbasis(B: Array, S: Array, eps: float) -> tuple[Array, Array, Array] | None:
    """Return orthonormal eigenvectors of both and the eigenvalues, or None: they don't commute."""
    d = len(B)
    sizes = [float(np.abs(matrix).max()) for matrix in (B, S)]
    tolerance = _ULPS * d * eps
    if np.abs(B @ S - S @ B).max() > tolerance * sizes[0] * sizes[1]:
        return None
    unit = [matrix / (size or 1.0) for matrix, size in zip((B, S), sizes, strict=True)]
    basis = max(
        (np.linalg.eigh(unit[0] + mix * unit[1]) for mix in _MIXES),
        key=lambda solved: min((gap for gap in np.diff(solved[0]) if gap > tolerance), default=0.0),
    )[1]
    spectra = []
    for matrix, size in zip((B, S), sizes, strict=True):
        turned = basis.T @ matrix @ basis
        spectrum = turned.diagonal().copy()
        if np.abs(turned - np.diag(spectrum)).max() > tolerance * size:
            return None
        spectra.append(spectrum)
    rates, scales = spectra
    scales[np.abs(scales) <= rank_tolerance(d, eps, sizes[1])] = 0.0
    flat = (scales == 0.0) & (np.abs(rates) <= rank_tolerance(d, eps, sizes[0]))
    rates[flat] = 0.0
    return basis, rates, scales


@dataclass(frozen=True, eq=False)
class AlignedFlow:
    """The flow from an aligned start: each column of W in the shared eigenbasis scales alone.

    Attributes
    ----------
    potential : Potential
    basis : (d, m) the shared eigenvectors, fitted to the start.
    start : (k, m) the start in them.
    rates, scales, deficits : (m,) eigenvalues b_j of B and s_j of S, r'(inf) - b_j/s_j.
    """

    potential: Potential
    basis: Array
    start: Array
    rates: Array
    scales: Array
    deficits: Array

    @classmethod
    def of(
        cls, land: SpectralEvaluation, frame: ModeFrame | None, start: Array, eps: float
    ) -> AlignedFlow | str:
        """Return the flow in modes fitted to the start, or why there is none."""
        if frame is None:
            return "the landscape is not spectral"
        if frame.basis is None or frame.rates is None or frame.scales is None:
            return "B and S don't commute"
        d = len(frame.basis)
        basis = frame.basis
        columns = start @ basis
        # what rounding may have put into a column; nothing where the basis is the standard one
        floor = 8.0 * d * eps * np.linalg.norm(np.abs(start) @ np.abs(basis), axis=0)
        size = np.linalg.norm(columns, axis=0)
        limit = _ULPS * d * eps * np.outer(size, size)
        limit += np.outer(floor, size + floor) + np.outer(size, floor)
        overlap = np.abs(columns.T @ columns)
        np.fill_diagonal(overlap, 0.0)
        # on the null space of S columns don't meet
        coupled = np.outer(frame.scales, frame.scales) != 0.0
        if (overlap[coupled] > limit[coupled]).any():
            return "the start is not aligned with the modes"
        if (frame.scales < 0.0).any() and _quartic(land.potential) is None:
            return "S is indefinite"
        columns[:, size <= floor] = 0.0
        return cls(land.potential, basis, columns, frame.rates, frame.scales, frame.deficits)

    @property
    def _sizes(self) -> Array:
        return np.asarray(np.sum(self.start**2, axis=0))

    @property
    def _active(self) -> npt.NDArray[np.intp]:
        return np.flatnonzero(self._sizes > 0.0)

    def weights(self, times: Array) -> Floats:
        """Return W (t, k, d) at `times`, which may end with inf; nan where a mode is infinite."""
        active = self._active
        factors = self._factors(times, active)
        result = np.full((len(times), len(self.start), len(self.basis)), np.nan)
        finite = np.isfinite(factors).all(axis=1)
        columns = self.start[:, active] * factors[finite, None, :]
        result[finite] = columns @ self.basis[:, active].T
        return result

    def _factors(self, times: Array, active: npt.NDArray[np.intp]) -> Array:
        """Return sqrt(m_j(t)/m_j(0)) (t, a) of the squared norms m_j of the active columns."""
        q = _quartic(self.potential)
        with np.errstate(over="ignore", under="ignore"):
            if q is not None:
                return np.sqrt(self._logistic(q, times[:, None], active))
            nulls = self.scales[active] == 0.0
            factors = np.empty((len(times), len(active)))
            factors[:, nulls] = np.sqrt(self._logistic(0.0, times[:, None], active[nulls]))
            factors[:, ~nulls] = np.exp(0.5 * self._logarithms(times, active[~nulls]))
            return factors

    def _logistic(self, q: float, t: Array, active: npt.NDArray[np.intp]) -> Array:
        """Solve m' = 4 m (b - 2 q s^2 m) for m(t)/m(0), which no t makes overflow to nan."""
        b, drag = self.rates[active], 2.0 * q * self.scales[active] ** 2 * self._sizes[active]
        growing = b > 0.0
        exponent = -4.0 * np.abs(b) * np.where(np.isinf(t), 1.0, t)
        # -expm1(-4 |b| t)/|b|, which is 4 t without a rate
        safe = np.where(b == 0.0, 1.0, np.abs(b))
        span = np.where(b == 0.0, 4.0 * t, -np.expm1(exponent) / safe)
        shrink = np.exp(exponent)
        ended = np.isinf(t) & (b != 0.0)
        span, shrink = np.where(ended, 1.0 / safe, span), np.where(ended, 0.0, shrink)
        with np.errstate(divide="ignore", invalid="ignore"):
            resisted = np.where(drag == 0.0, 0.0, drag * span)
            up = 1.0 / (shrink + resisted)
            return np.where(growing, up, shrink / (1.0 + resisted))

    def _logarithms(self, times: Array, active: npt.NDArray[np.intp]) -> Array:
        """Solve y' = 4 (b - s r'(s m_0 exp y)), y(0) = 0, for y (t, a)."""
        from scipy.integrate import solve_ivp

        b, s, m = self.rates[active], self.scales[active], self._sizes[active]
        n = s * m

        def slope(_: float, y: Array) -> Array:
            return np.asarray(4.0 * (b - s * self.potential.slope(n * np.exp(y))))

        def jacobian(_: float, y: Array) -> Array:
            grown = n * np.exp(y)
            return np.asarray(-4.0 * s * self.potential.curvature(grown) * grown)[None, :]

        result = np.zeros((len(times), len(active)))
        later = np.flatnonzero((times > 0.0) & np.isfinite(times))
        if len(later) and len(active):
            solution = solve_ivp(
                slope,
                (0.0, times[later[-1]]),
                np.zeros(len(active)),
                method="LSODA",
                t_eval=times[later],
                rtol=_SCALAR_RTOL,
                atol=_SCALAR_RTOL,
                jac=jacobian,
                lband=0,
                uband=0,
            )
            if solution.status != 0:
                raise RuntimeError(f"the flow of the modes can't be solved: {solution.message}")
            result[later] = solution.y.T
        if np.isinf(times[-1]):
            with np.errstate(divide="ignore"):
                result[-1] = np.log(self._limits(active)) - np.log(n)
        return result

    def _limits(self, active: npt.NDArray[np.intp]) -> Array:
        """Return n_j at infinite time for modes on the range of S (a,)."""
        slope, deficit = self.rates[active] / self.scales[active], self.deficits[active]
        limits = np.zeros(len(active))
        growing = slope > 0.0
        limits[growing] = np.inf
        inside = growing & (deficit > 0.0)
        limits[inside] = self.potential.amplitude(slope[inside], deficit[inside])
        return limits

    def learning_times(self, final: Array, last: float) -> Array:
        """Return when n_j first reaches half of `final` (m,), nan if not by the time `last`."""
        from scipy.integrate import quad

        n = np.abs(self.scales) * self._sizes
        result = np.full(len(final), np.nan)
        for j in np.flatnonzero((final > 0.0) & np.isfinite(final) & (n > 0.0)):
            half = 0.5 * float(final[j])
            b, s = float(self.rates[j]), float(self.scales[j])

            def pace(y: float, b: float = b, s: float = s) -> float:
                return 0.25 / (b - s * float(self.potential.slope(np.exp(np.array([y])))[0]))

            time = 0.0
            if n[j] < half:
                bounds = math.log(n[j]), math.log(half)
                time = quad(pace, *bounds, epsrel=_SCALAR_RTOL, epsabs=0.0, limit=200)[0]
            if time <= last:
                result[j] = time
        return result


def _fitted_basis(basis: Array, rates: Array, scales: Array, start: Array, eps: float) -> Array:
    """Turn the basis inside eigenvalues tied in B and S so that the start is diagonal there."""
    tolerance = _ULPS * len(basis) * eps
    fitted = basis.copy()
    near = np.abs(rates[:, None] - rates) <= tolerance * np.abs(rates).max()
    near &= np.abs(scales[:, None] - scales) <= tolerance * np.abs(scales).max()
    left = set(range(len(rates)))
    while left:
        first = min(left)
        group = [j for j in sorted(left) if near[first, j]]
        left -= set(group)
        if len(group) > 1:
            turn = np.linalg.svd(start @ basis[:, group])[2].T
            fitted[:, group] = basis[:, group] @ turn
    return fitted


def _quartic(potential: Potential) -> float | None:
    """Return q of a potential that is q n^2."""
    if isinstance(potential, Quartic):
        return potential.coefficient
    if not isinstance(potential, InfoNCEPotential):
        return None
    quartic = (potential.similarity, potential.partition) == ("dot", "conditional")
    return 0.5 / potential.temperature**2 if quartic else None
