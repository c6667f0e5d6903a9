"""The minimum of a deep linear model without closed form: descents at several ranks (theory 9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl._pencil import Array
from pyssl._problems import Lazy
from pyssl._schatten import LayerDecay
from pyssl._trust import Point, descend, norm
from pyssl.spectral import SpectralLandscape
from pyssl.wells import ModeWells

__all__ = ["descend_by_rank"]

Floats = npt.NDArray[Any]

# A singular value below this share of the largest is on its way to zero.
_VANISHING = 1e-6
# How small the gradient of the layers, and then that of W, is to become beside that of B alone.
_COARSE, _FINE = 1e-5, 1e-10
# The search goes no further up or down once so many ranks in a row have not led lower.
_PATIENCE = 2
# What the line search is told of a step out of the landscape's domain: finite, but never lower.
_TOO_FAR = 1e30


def descend_by_rank(core: SpectralLandscape, decay: LayerDecay, k: int) -> tuple[Array, float]:
    """Return the lowest end (k, d) of descents with few rows and with many, and its value.

    With as many rows as its rank W has a smooth decay; one that loses a singular value on the way
    is left to the lower ranks. Rows start along the modes of the pencil (B, S) that would be
    learned best if each decayed alone, and along those found so far with one more or less. The rank
    that those modes would have comes first, then the ranks above and below it.
    """
    modes = core._modes
    count = modes.learnable
    vectors = modes.vectors[:, :count]
    lam, deficits = modes.eigenvalues[:count], np.maximum(modes.deficits[:count], 0.0)
    scales = 1.0 / np.sum(vectors**2, axis=0)
    alone = ModeWells.of(core.potential, lam, deficits, scales, decay.depth, decay.weight_decay)
    order = np.argsort(-alone.critical, kind="stable")
    amplitudes = core.potential.amplitude(0.75 * lam, deficits + 0.25 * lam)
    rows = (vectors * np.sqrt(amplitudes)).T[order]
    most = min(k, count)
    guess = max(1, min(most, int(np.count_nonzero(alone.critical > decay.weight_decay))))
    best, best_value = np.zeros((0, core.dim)), 0.0
    for ranks in (range(guess, most + 1), range(guess - 1, 0, -1)):
        failures = 0
        for rank in ranks:
            starts = [rows[:rank]]
            if 0 < len(best) == rank - 1:
                starts += [np.vstack([best, row]) for row in rows[rank - 1 : rank + 1]]
            elif len(best) == rank + 1:
                starts.append(best[:-1])
            failures += 1
            for start in starts:
                found, value = _Rows(core, decay).minimum(start)
                if found is not None and value < best_value:
                    best, best_value, failures = found, value, 0
            if failures == _PATIENCE:
                break
    return np.vstack([best, np.zeros((k - len(best), core.dim))]), best_value + core.constant


@dataclass
class _Rows:
    """A deep landscape over W (r, d) of rank r, as a problem for descent."""

    core: SpectralLandscape
    decay: LayerDecay
    size: float = 1.0
    gradient_scale: float = 1.0
    value_scale: float = 1.0

    def minimum(self, start: Array) -> tuple[Array | None, float]:
        """Return the minimum near a start of full rank and its value; None if rank is lost.

        Over the layers the loss is smooth also where singular values vanish: what they come near
        to, Newton's method on W makes exact.
        """
        while not np.isfinite(self._shallow(start)[0]):  # rows that overlap may leave the domain
            start = 0.5 * start
        self.size = norm(start)
        self.gradient_scale = 2.0 * norm(start @ self.core.B)
        self.value_scale = self.gradient_scale * self.size
        found = self._over_layers(start)
        if not _has_rank(found):
            return None, 0.0
        point = descend(
            self,
            found,
            tolerance=_FINE,
            max_iterations=50,
            rng=np.random.default_rng(0),
            report=lambda iteration, point: False,
        ).point
        if not point.gradient_norm <= _COARSE * self.gradient_scale:
            return None, 0.0
        sizes, rotated = np.linalg.svd(point.x, full_matrices=False)[1:]
        return sizes[:, None] * rotated, point.value

    def at(self, x: Floats) -> Point:
        """Evaluate the landscape; a W that has lost rank is nowhere to go."""
        value, gradient = self._shallow(x)
        if not _has_rank(x):
            return Point(x, np.inf, gradient, np.inf, Lazy(lambda: np.zeros_like))
        gradient += self.decay.gradient(x)
        value += float(self.decay.value(x))

        def linearised() -> Callable[[Floats], Floats]:
            shallow = self.core._linearised(self._padded(x))
            bend = self.decay.linearised(x)
            return lambda along: shallow(self._padded(along))[: len(x)] + bend(along)

        return Point(x, value, gradient, norm(gradient), Lazy(linearised))

    def move(self, point: Point, step: Floats) -> Point:
        """Return the point that a step leads to."""
        return self.at(point.x + step)

    def _padded(self, x: Floats) -> Floats:
        k = self.core.shape[0]
        return np.vstack([x, np.zeros((k - len(x), x.shape[1]))])

    def _shallow(self, x: Floats) -> tuple[float, Floats]:
        value, gradient = self.core.value_and_gradient(self._padded(x))
        return float(value - self.core.constant), gradient[: len(x)]

    def _over_layers(self, start: Array) -> Array:
        """Return the product of the layers at which descent over them ends, from balanced ones."""
        from scipy.optimize import minimize

        g, depth = self.decay.weight_decay, self.decay.depth
        s, vt = np.linalg.svd(start, full_matrices=False)[1:]
        share = s ** (1.0 / depth)
        # W_1 first; what U would add to W_D is a gauge
        first = [share[:, None] * vt, *(np.diag(share) for _ in range(depth - 1))]
        cuts = np.cumsum([layer.size for layer in first])[:-1]

        def layers(x: Array) -> list[Array]:
            return [
                part.reshape(layer.shape)
                for part, layer in zip(np.split(x, cuts), first, strict=True)
            ]

        def evaluate(x: Array) -> tuple[float, Array]:
            parts = layers(x)
            behind = [parts[0]]
            for layer in parts[1:]:
                behind.append(layer @ behind[-1])
            value, ahead = np.inf, parts[-1]
            if np.abs(behind[-1]).max() < 1e3 * self.size:
                value, ahead = self._shallow(behind[-1])
            if not np.isfinite(value):  # a step too far
                return _TOO_FAR, np.zeros_like(x)
            slopes = []
            for number in range(depth - 1, 0, -1):
                slopes.append(ahead @ behind[number - 1].T)
                ahead = parts[number].T @ ahead
            slope = np.concatenate([part.ravel() for part in (ahead, *slopes[::-1])])
            total = value + 0.5 * g * float(x @ x)
            return total / self.value_scale, (slope + g * x) / self.value_scale

        x = np.concatenate([layer.ravel() for layer in first])
        limit = _COARSE * self.size / float(np.abs(x).max())
        options = {"maxiter": 5000, "maxfun": 20_000, "ftol": 0.0, "gtol": limit}
        end = minimize(evaluate, x, jac=True, method="L-BFGS-B", options=options).x
        product: Array = reduce(lambda behind, layer: layer @ behind, layers(end))
        return product


def _has_rank(x: Array) -> bool:
    """Return whether no singular value is on its way to zero."""
    sizes = np.linalg.svd(x, compute_uv=False)
    return bool(sizes[-1] > _VANISHING * sizes[0])
