"""InfoNCE with finitely many negatives, to fourth order in W (theory 3.1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _plane
from pyssl._pencil import Array, descending, diagonalise, rank_tolerance, readonly
from pyssl._products import product, product_transposed
from pyssl.loss import Loss
from pyssl.moments import Moments
from pyssl.population import PopulationLandscape
from pyssl.stationary import Minimum

__all__ = ["FiniteNegatives", "SolvedFiniteNegatives", "finite_negatives"]

Floats = npt.NDArray[Any]

# Mixtures of Sigma and A whose eigenvectors are those of both, unless eigenvalues coincide.
_MIXTURES = (0.7548776662466927, -0.5698402909980532, 0.3247179572447461)


class FiniteNegatives(PopulationLandscape):
    """L(W) = -(K/n) Tr[M A]/tau + Q(W) + (g/2)||W||^2 with K negatives, n = K + 1: a quartic.

    With q(N) = Tr[M N M N], M = W'W, and P_m = P + m m', m = W mu (+ b):

        dot          Q = K/(2 n^2 tau^2) [n Tr[P P_m] + q(A) + (Tr M A)^2]
        sqeuclidean  Q = K/(2 n^2 tau^2) [(3K + 1)/2 q(Sigma) + q(C) + (Tr M A)^2]

    Exact to fourth order for Gaussian views of any mean. Q >= 0, so that the origin alone decides
    on complete collapse: of `critical_weight_decay` the first entry is known. A bias is flat
    but for the dot similarity. `SolvedFiniteNegatives` has a closed form too.

    Notes
    -----
    Source: theory 3.1; the terms with a mean, too, are exact.
    """

    def __init__(self, loss: Loss, terms: Terms, m: Moments, k: int, g: float, bias: bool) -> None:
        super().__init__(loss, m, k, g, bias)
        self._terms = terms
        self._spectrum = readonly(terms.signal * descending(m.cross_covariance))
        self.origin_spectrum = self._spectrum
        self.critical_weight_decay = self._first_critical(self._spectrum)
        border = (0, int(bias))
        mean = np.append(m.mean, np.ones(int(bias)))
        self._pull = np.pad(m.cross_covariance, border)
        sigma = np.pad(m.covariance, border)
        # the quartic terms c Tr[(W M W')(W N W')], and Tr[W A W']^2 beside them
        self._quartics: list[tuple[float, Array, Array]] = (
            [
                (terms.covariance, sigma, sigma + np.outer(mean, mean)),
                (terms.square, self._pull, self._pull),
            ]
            if terms.dot
            else [
                (terms.covariance, sigma, sigma),
                (terms.square, *(np.pad(m.augmentation_covariance, border),) * 2),
            ]
        )

    def _zero(self, g: float) -> float:
        """Return what counts as zero among the eigenvalues of B (theory 2.2)."""
        norm = float(np.abs(self._spectrum).max())
        return rank_tolerance(self.moments.dim, self.moments._eps, norm + 0.5 * g)

    # -- evaluation --------------------------------------------------------------------------------

    def _value(self, w: Floats) -> float:
        trace = float(np.sum(product(w, self._pull) * w))
        total = trace * (self._terms.square * trace - self._terms.signal)
        for c, first, second in self._quartics:
            gram, other, *_ = _grams(w, first, second)
            total += c * float(np.sum(gram * other))
        return total

    def _value_and_gradient(self, w: Floats) -> tuple[float, Floats]:
        pulled, square, signal = product(w, self._pull), self._terms.square, self._terms.signal
        trace = float(np.sum(pulled * w))
        total = trace * (square * trace - signal)
        slope = (4.0 * square * trace - 2.0 * signal) * pulled
        for c, first, second in self._quartics:
            gram, other, scaled, other_scaled = _grams(w, first, second)
            total += c * float(np.sum(gram * other))
            slope += 2.0 * c * (other @ scaled + gram @ other_scaled)
        return total, slope

    def _linearised(self, w: Floats) -> Callable[[Floats], Floats]:
        pulled, square, signal = product(w, self._pull), self._terms.square, self._terms.signal
        factor = 4.0 * square * float(np.sum(pulled * w)) - 2.0 * signal
        parts = [(*part, *_grams(w, *part[1:])) for part in self._quartics]

        def along(d: Floats) -> Floats:
            result = factor * product(d, self._pull)
            result += 8.0 * square * float(np.sum(pulled * d)) * pulled
            for c, first, second, gram, other, scaled, other_scaled in parts:
                result += 2.0 * c * (other @ product(d, first) + gram @ product(d, second))
                result += (
                    2.0 * c * (_turn(other_scaled, d) @ scaled + _turn(scaled, d) @ other_scaled)
                )
            return np.asarray(result)

        return along

    def _grid(self, W0: Floats, D1: Floats, D2: Floats, u: Floats, v: Floats) -> Floats:
        stack = np.stack([W0, D1, D2])
        decaying = stack[..., : self.moments.dim]
        traces = _plane.trace(stack @ self._pull, stack)
        second = 0.5 * self.weight_decay * _plane.trace(decaying, decaying)
        fourth = self._terms.square * np.outer(traces, traces)
        for c, first, other in self._quartics:
            grams = (_plane.gram(stack @ matrix, stack) for matrix in (first, other))
            fourth += c * np.einsum("pij,qij->pq", *grams)
        return _plane.polynomial(second - self._terms.signal * traces, fourth, u, v)


class SolvedFiniteNegatives(FiniteNegatives):
    """A `FiniteNegatives` whose global minimum is known: all its terms have common modes.

    Without weight decay they always do; with it, where Sigma and A commute. Where fewer modes fit
    into the embedding than could be learned, the order of the modes must not depend on the term
    either: variance (for the dot similarity, a) must fall with rho.

    Notes
    -----
    The minimiser is aligned. With N = W'W in whitened coordinates the quartic terms weigh |N_ij|^2
    by positive numbers and the others see only the diagonal: leaving out what is off the diagonal
    lowers L, which settles k >= d. For k < d, (Tr M A)^2 is the maximum of its tangents; beside
    each of them the rest is a sum of phi(eigenvalues of a product of two matrices) with phi(exp)
    convex and increasing, least where they are aligned (log-majorisation of products).
    """

    _solution: Solution

    @property
    def vectors(self) -> Array:
        """The modes v_j as columns (d, d), v'Sigma v = 1; (d + 1, d) with a bias."""
        return self._solution.vectors

    def minimum(self) -> Minimum:
        """Return the global minimum.

        Returns
        -------
        Minimum
            Its amplitudes, of W Sigma W', are those of the modes in `vectors`.

        Notes
        -----
        Source: theory 3.1. Over amplitudes n_j >= 0 L is a quadratic program whose matrix is a
        diagonal and (rho rho') alone, solved by an active set in sorted order, as water-filling.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.5]))
        >>> for K in (1, 10, 100, np.inf):
        ...     land = pyssl.InfoNCE(negatives=K).effective(moments, embedding_dim=2)
        ...     print(land.minimum().amplitudes.round(3))
        [0.591 0.294]
        [0.598 0.327]
        [0.6   0.333]
        [0.6   0.333]
        """
        return self._solution.minimum(self)


@dataclass(frozen=True)
class Terms:
    """The coefficients of a `FiniteNegatives`, which stay finite and exact however large K is."""

    signal: float  # of -Tr[M A]
    covariance: float  # of Tr[P P_m] or q(Sigma)
    square: float  # of (Tr M A)^2 and q(A) or q(C)
    dot: bool

    @classmethod
    def of(cls, negatives: float, temperature: float, similarity: str) -> Terms:
        """Return them for K negatives."""
        n, tau = negatives + 1.0, temperature
        share = negatives / n
        dot = similarity == "dot"
        # K n/(2 n^2) and K (3K + 1)/(4 n^2)
        weight = 0.5 * share if dot else 0.25 * share * (3.0 - 2.0 / n)
        return cls(share / tau, weight / tau / tau, 0.5 * share / n / tau / tau, dot)


@dataclass(frozen=True, eq=False)
class Solution:
    """The common modes and the amplitudes at the minimum.

    Attributes
    ----------
    vectors : (d, d) v_j as columns; the last ones span the null space of Sigma.
    amplitudes : (d,)
    gains : (d,) what each mode adds to the value.
    degenerate : whether the last mode learned ties with the first lost to capacity.
    """

    vectors: Array
    amplitudes: Array
    gains: Array
    degenerate: bool

    def minimum(self, land: FiniteNegatives) -> Minimum:
        """Return the minimum that they make."""
        active = np.flatnonzero(self.amplitudes)
        weights = np.zeros(land.shape)
        weights[: len(active)] = (self.vectors[:, active] * np.sqrt(self.amplitudes[active])).T
        return Minimum(
            weights=readonly(weights),
            value=math.fsum(self.gains),
            amplitudes=readonly(self.amplitudes.copy()),
            rank=len(active),
            attained=True,
            bounded=True,
            degenerate=self.degenerate,
        )


def finite_negatives(
    loss: Loss, terms: Terms, m: Moments, k: int, g: float, bias: bool
) -> FiniteNegatives:
    """Return the landscape, with its closed form where it has one."""
    parts = (loss, terms, m, k, g, bias)
    plain = FiniteNegatives(*parts)
    solution = _solve(plain)
    if solution is None:
        return plain
    solved = SolvedFiniteNegatives(*parts)
    solved._solution = solution
    return solved


def _solve(land: FiniteNegatives) -> Solution | None:
    """Return the global minimum where the terms have common modes, or None."""
    m, terms, k, g = land.moments, land._terms, land.embedding_dim, land.weight_decay
    if terms.dot and m.mean.any() and not land.bias:
        return None  # the mean is a term of its own (theory 4)
    common = _common_modes(m, g)
    if common is None:
        return None
    vectors, misalignment = common
    rho = 1.0 - misalignment
    variance = 1.0 / np.sum(vectors**2, axis=0)  # of Sigma where it commutes with A
    drive = terms.signal * rho - (0.5 * g / variance if g else 0.0)
    order = np.argsort(-drive, kind="stable")
    vectors, misalignment, rho, variance, drive = (
        item[..., order] for item in (vectors, misalignment, rho, variance, drive)
    )
    other = rho if terms.dot else misalignment
    weight = terms.covariance + terms.square * other**2
    # which modes are worth learning at all: by the inertia of B, not by what may be divided by a
    # tiny variance
    count = int(np.count_nonzero(land._spectrum - 0.5 * g > land._zero(g)))
    worth = np.sort(np.argsort(-drive * variance, kind="stable")[:count])
    worth = worth[rho[worth] > 0.0]
    degenerate = False
    parts = np.maximum(drive, 0.0), rho, weight, terms.square
    amplitudes = _fill(worth, *parts)
    if np.count_nonzero(amplitudes) > k:
        second = np.ones_like(rho) if g == 0.0 else variance * (rho if terms.dot else 1.0)
        slack = 64.0 * m.dim * m._eps
        one, two = rho[worth] / rho[worth].max(), second[worth] / second[worth].max()
        crossed = (one[:, None] > one + slack) & (two[:, None] < two - slack)
        if crossed.any():
            return None
        key = one + two
        ranked = np.argsort(-key, kind="stable")
        degenerate = bool(key[ranked[k - 1]] - key[ranked[k]] <= slack)
        amplitudes = _fill(np.sort(worth[ranked[:k]]), *parts)
    gains = -0.5 * drive * amplitudes
    rest = m.dim - len(rho)
    everything = np.hstack([vectors, m._metric.null_basis])
    if land.bias:  # the mean of the embeddings vanishes, for which only the dot similarity asks
        last = -m.mean @ everything if terms.dot else np.zeros(m.dim)
        everything = np.vstack([everything, last])
    return Solution(
        readonly(everything), np.pad(amplitudes, (0, rest)), np.pad(gains, (0, rest)), degenerate
    )


def _fill(chosen: Any, drive: Array, rho: Array, weight: Array, square: float) -> Array:
    """Minimise sum w n^2 - b n + c (sum rho n)^2 over the amplitudes n >= 0 of the chosen modes.

    Mode j is active iff b_j/rho_j > 2 c sum rho n: the active ones are the first in that order.
    """
    result = np.zeros(len(rho))
    level = drive[chosen] / rho[chosen]
    order = np.argsort(-level, kind="stable")
    chosen, level = chosen[order], level[order]
    share = 0.5 * rho[chosen] ** 2 / weight[chosen]
    below = 2.0 * square * np.cumsum(share * level)
    active = int(np.count_nonzero(level * (1.0 + 2.0 * square * np.cumsum(share)) > below))
    chosen, level, share = chosen[:active], level[:active], share[:active]
    # level_j - 2 c sum rho n, by differences of levels: where they are equal nothing cancels
    excess = level + 2.0 * square * (level[:, None] - level) @ share
    excess /= 1.0 + 2.0 * square * share.sum()
    result[chosen] = 0.5 * rho[chosen] * excess / weight[chosen]
    return result


def _common_modes(m: Moments, g: float) -> tuple[Array, Array] | None:
    """Return v_j as columns (d, r), v'Sigma v = 1, with 1 - rho_j; None where there are none."""
    metric, c = m._metric, m.augmentation_covariance
    if g == 0.0:
        misalignment, vectors = diagonalise(c, metric.whitener)
        return vectors, misalignment
    sigma, a = m.covariance, m.cross_covariance
    scale = float(np.linalg.norm(sigma, 2))
    small = 64.0 * m.dim * m._eps * scale
    if np.abs(sigma @ a - a @ sigma).max() > small * scale:
        return None
    best, basis = math.inf, np.eye(m.dim)
    for mixture in _MIXTURES:
        _, candidate = np.linalg.eigh(sigma + mixture * a)
        rests = (candidate.T @ matrix @ candidate for matrix in (sigma, a))
        worst = max(float(np.abs(rest - np.diag(rest.diagonal())).max()) for rest in rests)
        if worst < best:
            best, basis = worst, candidate
    # to second order in what is left off the diagonal the minimum is still right
    if best > 1e-9 * scale:
        return None
    variances = np.einsum("ij,ij->j", basis, sigma @ basis)
    inside = variances > rank_tolerance(m.dim, m._eps, scale)
    basis, variances = basis[:, inside], variances[inside]
    if int(inside.sum()) != metric.rank:
        return None
    return basis / np.sqrt(variances), np.einsum("ij,ij->j", basis, c @ basis) / variances


def _grams(w: Floats, first: Array, second: Array) -> tuple[Floats, Floats, Floats, Floats]:
    """Return W M W', W N W', W M and W N."""
    scaled = product(w, first)
    gram = product_transposed(scaled, w)
    if second is first:
        return gram, gram, scaled, scaled
    other = product(w, second)
    return gram, product_transposed(other, w), scaled, other


def _turn(scaled: Floats, d: Floats) -> Floats:
    """Return what a direction changes in W M W', from W M."""
    cross = product_transposed(scaled, d)
    return np.asarray(cross + cross.T)
