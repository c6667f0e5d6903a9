"""VICReg and its squared form on embeddings (theory 3.5)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pyssl._gram import (
    Batch,
    Columns,
    Doubles,
    Floats,
    Pair,
    Side,
    divide,
    gram,
    mix,
    off_diagonal,
    total_square,
)


@dataclass(frozen=True)
class VICReg(Batch):
    """invariance, variance and covariance terms with their weights (theory 3.5).

    The hinge relu(1 - sqrt(var + epsilon)) counts as inactive where it is 0, derivatives too.
    With `slopes` (2, k), a row a view, it is slope (1 - sqrt(var + epsilon)) instead.
    """

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    epsilon: float = 1e-4
    halve_variance: bool = True
    slopes: Doubles | None = None

    @cached_property
    def _covariances(self) -> tuple[Doubles, Doubles]:
        """Return the off-diagonal parts of both views' covariances."""
        n, columns = len(self.z), self._columns
        first, second = (off_diagonal(gram(side)) for side in (columns.a, columns.b))
        divide(n - 1.0, first, second)
        return first, second

    @cached_property
    def _deviations(self) -> tuple[Doubles, Doubles]:
        n, columns = len(self.z), self._columns
        first, second = (np.sqrt(a / (n - 1) + self.epsilon) for a in (columns.aa, columns.bb))
        return first, second

    @cached_property
    def _slopes(self) -> Doubles:
        if self.slopes is not None:
            return self.slopes
        return np.array([s < 1.0 for s in self._deviations], dtype=np.float64)

    @property
    def _share(self) -> float:
        return 0.5 if self.halve_variance else 1.0

    def terms(self) -> dict[str, float]:
        """Return the three terms without their weights."""
        n, k = self.z.shape
        short = 1.0 - np.array(self._deviations)
        hinges = np.maximum(short, 0.0) if self.slopes is None else self.slopes * short
        return {
            "invariance": float(self._columns.difference.sum()) / (n * k),
            "variance": self._share * sum(float(hinge.mean()) for hinge in hinges),
            "covariance": sum(total_square(c) for c in self._covariances) / k,
        }

    def value(self) -> float:
        """Return the loss."""
        terms = self.terms()
        return (
            self.invariance * terms["invariance"]
            + self.variance * terms["variance"]
            + self.covariance * terms["covariance"]
        )

    def _factors(self) -> tuple[float, float, float]:
        """Return the factors of z - z+, of z/deviation and of z covariance in the gradient."""
        n, k = self.z.shape
        return (
            2.0 * self.invariance / (n * k),
            -self.variance * self._share / (k * (n - 1)),
            4.0 * self.covariance / (k * (n - 1)),
        )

    def _matrix(self, covariance: Doubles, deviation: Doubles, slopes: Doubles) -> Doubles:
        _, hinge, off = self._factors()
        return off_diagonal(off * covariance, hinge * slopes / deviation)

    def value_and_gradient(self) -> tuple[float, Pair]:
        """Return the loss and its gradients by z and z_plus."""
        columns, weight = self._columns, self._factors()[0]
        first, second = map(self._matrix, self._covariances, self._deviations, self._slopes)
        gradients = (
            mix(columns.a, first, plus=columns.a, minus=self.z_plus, weight=weight),
            mix(columns.b, second, plus=columns.b, minus=self.z, weight=weight),
        )
        return self.value(), gradients

    def hvp(self, dz: Floats, dz_plus: Floats) -> Pair:
        """Return the Hessian applied to a direction, by z and z_plus.

        Columns whose hinge is exactly at its kink count as inactive.
        """
        n = len(self.z)
        weight, hinge, off = self._factors()
        results = []
        for z, other, covariance, deviation, slopes in zip(
            ((self.z, dz), (self.z_plus, dz_plus)),
            (dz_plus, dz),
            self._covariances,
            self._deviations,
            self._slopes,
            strict=True,
        ):
            move = Columns.of(*z)
            cross = gram(move.a, move.b)
            bend = -hinge * slopes * move.ab / ((n - 1) * deviation**3)
            change = off_diagonal((off / (n - 1)) * (cross + cross.T), bend)
            matrix = self._matrix(covariance, deviation, slopes)
            out = mix(move.b, matrix, plus=move.b, minus=other, weight=weight)
            results.append(mix(move.a, change, out=out))
        return results[0], results[1]


@dataclass(frozen=True)
class SquaredVICReg(Batch):
    """invariance mean_i |z_i - z+_i|^2 + ||I - Cov||^2, Cov of both views' rows together.

    Their mean is that of all 2n rows, and sums are divided by 2n (theory 1, 3.5).
    """

    invariance: float = 1.0

    @property
    def _center(self) -> Doubles:
        return 0.5 * (self._columns.a.center + self._columns.b.center)

    @cached_property
    def _excess(self) -> Doubles:
        """Return Cov - I."""
        n, columns = len(self.z), self._columns
        apart = columns.a.center - columns.b.center
        pooled = gram(columns.a) + gram(columns.b)
        result = off_diagonal(pooled, columns.aa + columns.bb) / (2 * n)
        result += 0.25 * np.outer(apart, apart)
        return off_diagonal(result, np.diagonal(result) - 1.0)

    def terms(self) -> dict[str, float]:
        """Return mean_i |z_i - z+_i|^2 and ||I - Cov||^2; the first has its weight in the loss."""
        return {
            "invariance": float(self._columns.difference.sum()) / len(self.z),
            "covariance": total_square(self._excess),
        }

    def value(self) -> float:
        """Return the loss."""
        terms = self.terms()
        return self.invariance * terms["invariance"] + terms["covariance"]

    def _mix(self, sides: tuple[Side, Side], center: Doubles, matrix: Doubles) -> Pair:
        """Return (side - center) matrix + (2 invariance/n) (side - other) for both sides."""
        weight = 2.0 * self.invariance / len(self.z)
        a, b = sides
        return (
            mix(a, matrix, center=center, plus=a, minus=b.data, weight=weight),
            mix(b, matrix, center=center, plus=b, minus=a.data, weight=weight),
        )

    def value_and_gradient(self) -> tuple[float, Pair]:
        """Return the loss and its gradients by z and z_plus."""
        columns, matrix = self._columns, (2.0 / len(self.z)) * self._excess
        return self.value(), self._mix((columns.a, columns.b), self._center, matrix)

    def hvp(self, dz: Floats, dz_plus: Floats) -> Pair:
        """Return the Hessian applied to a direction, by z and z_plus."""
        n, columns = len(self.z), self._columns
        move, move_plus = Columns.of(self.z, dz), Columns.of(self.z_plus, dz_plus)
        d, d_plus = move.b, move_plus.b
        apart, turn = columns.a.center - columns.b.center, d.center - d_plus.center
        cross = gram(columns.a, d) + gram(columns.b, d_plus) + 0.5 * n * np.outer(apart, turn)
        change = (cross + cross.T) / (2 * n)
        results = self._mix((d, d_plus), 0.5 * (d.center + d_plus.center), (2.0 / n) * self._excess)
        for side, out in zip((columns.a, columns.b), results, strict=True):
            mix(side, (2.0 / n) * change, center=self._center, out=out)
        return results
