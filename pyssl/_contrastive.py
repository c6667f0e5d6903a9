"""InfoNCE and NT-Xent on embeddings: what surrounds the kernels that never store the n x n matrix.

The kernels see rows x and y scaled so that 2^(x_i.y_j) is the exponential of a logit, and leave the
positives out; a positive and the sum over the negatives then meet in a softplus, which keeps the
digits of a small loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _core
from pyssl._threads import get_num_threads

Floats = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]
Pair = tuple[Floats, Floats]

LOG2 = math.log(2.0)

# Squared lengths of rows up to which exponentials of logits, sums of them and their products with
# rows stay inside the type: those need no running maximum.
_SMALL = {np.dtype(np.float32): 55.0, np.dtype(np.float64): 480.0}

# Logits in float32 up to this size keep their products inside the type.
FLOAT32_LARGEST = 1e30

# Rows up to which their powers against all columns are kept, some 192 rows at a time: 29 MiB in
# float32. With more they'd leave the cache, and to make logits twice takes no more time.
_ONE_SIDED = 40_000

# Half squares of float32 rows up to this size leave logits an absolute error of about 1/16.
_FLOAT32_FAR = 2.0**20

# What PyTorch's normalize uses, too.
_FLOOR = 1e-12


def row_dots(a: Floats, b: Floats) -> Doubles:
    """Return a_i.b_i (n,), accumulated in double."""
    out = np.empty(len(a))
    _core.row_dots(a, b, out, num_threads=get_num_threads())
    return out


# ---- from embeddings to rows ---------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """Embeddings z (n, k) and the rows x that the kernels see, with derivatives between them.

    A gradient h by x becomes one by z as stretch (h - x (x.h) project), row by row; where
    `stretch` is None, `pull` does it.
    """

    x: Floats
    project: Doubles | None
    stretch: Doubles | None
    tangent: Callable[[Floats], Floats]  # dz -> dx
    pull: Callable[[Floats], Floats]  # gradient by x -> gradient by z
    # (gradient by x, its change along dz, dz) -> change of the gradient by z
    pull_tangent: Callable[[Floats, Floats, Floats], Floats]


def plain_rows(z: Floats, scale: float) -> Rows:
    """Return x = scale z."""
    factor = z.dtype.type(scale)

    def times(a: Floats) -> Floats:
        return np.asarray(factor * a)

    return Rows(times(z), None, np.full(len(z), scale), times, times, lambda _, h, __: times(h))


def normalized_rows(z: Floats, scale: float) -> Rows:
    """Return x = scale z/max(|z|, 1e-12)."""
    length = np.sqrt(row_dots(z, z))
    if z.dtype == np.float64:  # squares may have left the type; those of float32 can't
        extreme = ~((length > 1e-140) & (length < 1e140))
        length[extreme] = [math.hypot(*row) for row in z[extreme]]
    stretch = scale / np.maximum(length, _FLOOR)
    x = z * stretch.astype(z.dtype)[:, None]
    project = np.where(length > _FLOOR, 1.0 / scale**2, 0.0)

    dtype = x.dtype  # the closures keep x, and must not keep z

    def column(a: Doubles) -> Floats:
        return a.astype(dtype)[:, None]

    def pull(a: Floats) -> Floats:
        return np.asarray(column(stretch) * (a - x * column(row_dots(a, x) * project)))

    def pull_tangent(gradient: Floats, change: Floats, dz: Floats) -> Floats:
        dx = pull(dz)  # the tangent map is its own transpose
        result = pull(change)
        result -= dx * column(stretch * project * row_dots(gradient, x))
        result -= x * column(stretch * project * row_dots(dx, gradient))
        result -= pull(gradient) * column(stretch * project * row_dots(dz, x))
        return result

    return Rows(x, project, stretch, pull, pull, pull_tangent)


def squared_rows(z: Floats, center: Doubles, scale: float, first: bool) -> Rows:
    """Return x with x.y = -|scale (z - z')|^2/2, the squares in two more columns."""
    moved = np.ascontiguousarray((z - center) * scale, dtype=z.dtype)
    square, one = (-2, -1) if first else (-1, -2)
    x = np.empty((len(z), z.shape[1] + 2), z.dtype)
    x[:, :-2] = moved
    x[:, square] = -0.5 * row_dots(moved, moved)
    x[:, one] = 1.0
    factor = z.dtype.type(scale)

    def tangent(dz: Floats) -> Floats:
        along = factor * dz
        dx = np.zeros_like(x)
        dx[:, :-2] = along
        dx[:, square] = -row_dots(moved, along)
        return dx

    def pull(gradient: Floats) -> Floats:
        return np.asarray(factor * (gradient[:, :-2] - gradient[:, square, None] * moved))

    def pull_tangent(gradient: Floats, change: Floats, dz: Floats) -> Floats:
        return np.asarray(pull(change) - factor**2 * gradient[:, square, None] * dz)

    return Rows(x, None, None, tangent, pull, pull_tangent)


# ---- one contrast --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contrast:
    """The contrastive loss of anchors x and candidates y, the positives at equal positions.

    ``sides`` says which log-sum-exps the loss is made of: ``"rows"``, ``"both"`` (their average
    with the columns'), ``"joint"`` (the logarithm of the mean over anchors) or ``"stacked"``: x is
    y, both views of NT-Xent one above the other, the positives half way round.
    """

    rows: Rows
    columns: Rows
    sides: str
    dtype: Any  # of the embeddings
    squared: bool = False  # rows end with their squares (`squared_rows`)

    @property
    def _stacked(self) -> bool:
        return self.sides == "stacked"

    @property
    def _n(self) -> int:
        """The number of log-sum-exps that are averaged."""
        return len(self.rows.x)

    @property
    def _period(self) -> int:
        """Pairs whose positions differ by a multiple of it are no negatives."""
        return self._n // 2 if self._stacked else self._n

    def _partner(self, a: Floats) -> Floats:
        """Return the rows of the positives."""
        return np.roll(a, self._period, axis=0) if self._stacked else a

    @cached_property
    def _small(self) -> bool:
        x, y = self.rows.x, self.columns.x
        sides = (x,) if self._stacked else (x, y)
        return all(float(row_dots(side, side).max()) <= _SMALL[x.dtype] for side in sides)

    @cached_property
    def _positives(self) -> Doubles:
        """The logits of the positives, in units of log 2."""
        x, y, half = self.rows.x, self.columns.x, self._period
        if self.squared:  # from differences: the squares of close views would cancel
            gap = x[:, :-2] - y[:, :-2]
            return -0.5 * row_dots(gap, gap)
        return np.tile(row_dots(x[:half], x[half:]), 2) if self._stacked else row_dots(x, y)

    @cached_property
    def _logs(self) -> tuple[Doubles, Doubles]:
        """log2-sum-exps over the negatives of each row and each column, where there are any."""
        rows = np.empty(self._n)
        columns = np.empty(self._n) if self.sides == "both" else None
        _core.log_sum_exp(
            self.rows.x,
            self.columns.x,
            self._period,
            self._small,
            rows,
            columns,
            num_threads=get_num_threads(),
        )
        if self._stacked:
            columns = rows
        # of a side without a softmax: 2^(logit - log) vanishes
        return rows, np.full(self._n, np.inf) if columns is None else columns

    @cached_property
    def _losses(self) -> Doubles:
        """-log of the positive's share for each row; averaged with the column's for both sides."""
        rows, columns = self._logs
        loss = np.logaddexp(0.0, LOG2 * (rows - self._positives))
        if self.sides == "both":
            loss = 0.5 * loss + 0.5 * np.logaddexp(0.0, LOG2 * (columns - self._positives))
        return loss

    def finite(self) -> bool:
        """Return whether the embeddings are finite, and what was made of them."""
        return bool(np.isfinite(self.rows.x.sum() + self.columns.x.sum()))

    def terms(self) -> dict[str, float]:
        """Return minus the mean logit of the positives, and what the log-sum-exps add."""
        alignment = -LOG2 * float(self._positives.mean())
        return {"alignment": alignment, "log_partition": self.value() - alignment}

    def value(self) -> float:
        """Return the loss."""
        if self.sides != "joint":
            return float(self._losses.mean())
        logits = LOG2 * self._positives
        excess = logits - logits.mean() + self._losses
        top = float(excess.max())
        if top < 1.0:  # a small loss keeps its digits, as in a softplus
            return float(np.log1p(np.expm1(excess).mean()))
        return top + math.log(float(np.exp(excess - top).mean()))

    @cached_property
    def _weights(self) -> _Weights:
        gap = LOG2 * (self._logs[0] - self._positives)
        share, rest = _expit(gap), _expit(-gap)  # of the negatives, and of the positive
        zero = np.zeros(self._n)
        if self.sides == "rows":
            return _Weights(share, zero, rest, zero, -share)
        if self.sides == "stacked":
            # an anchor is its positive's positive: two softmaxes pull at each pair
            return _Weights(share, share, rest, zero, -(share + self._partner(share)))
        if self.sides == "both":
            gap = LOG2 * (self._logs[1] - self._positives)
            share, rest = 0.5 * share, 0.5 * rest
            other, other_rest = 0.5 * _expit(gap), 0.5 * _expit(-gap)
            return _Weights(share, other, rest, other_rest, -(share + other))
        whole = LOG2 * self._positives + self._losses
        anchor = np.exp(whole - whole.max())
        anchor *= self._n / anchor.sum()
        return _Weights(anchor * share, zero, anchor * rest, zero, anchor * rest - 1.0)

    def _gradient(self, pulled: bool) -> Pair:
        """Return the gradients by x and y, or pulled back to the embeddings where that is fused.

        A pulled gradient takes the place of its rows in memory: the contrast is used up.
        """
        x, y = self.rows.x, self.columns.x
        weights, (row_logs, column_logs) = self._weights, self._logs
        out_x = x if pulled else np.empty_like(x)
        out_y = out_x if self._stacked else y if pulled else np.empty_like(y)
        first, second = self.rows, self.columns
        _core.weighted_sums(
            x,
            y,
            self._period,
            self._small,
            weights.row,
            row_logs,
            weights.column,
            column_logs,
            weights.pull,
            first.project if pulled else None,
            first.stretch if pulled else None,
            second.project if pulled else None,
            second.stretch if pulled else None,
            LOG2 / self._n,
            out_x,
            out_y,
            num_threads=get_num_threads(),
        )
        return out_x, out_y

    def _split(self, by_rows: Floats, by_columns: Floats) -> Pair:
        if self._stacked:
            by_rows, by_columns = by_rows[: self._period], by_rows[self._period :]
        return by_rows.astype(self.dtype, copy=False), by_columns.astype(self.dtype, copy=False)

    def _one_sided(self, pulled: bool) -> Pair:
        """Return what `_gradient` does, with logits made once, and fill in `_logs`."""
        x, y = self.rows.x, self.columns.x
        logs, positives = np.empty(self._n), self._positives
        out_x, out_y = (x, y) if pulled else (np.empty_like(x), np.empty_like(y))
        first, second = self.rows, self.columns
        _core.one_sided(
            x,
            y,
            self._small,
            positives,
            first.project if pulled else None,
            first.stretch if pulled else None,
            second.project if pulled else None,
            second.stretch if pulled else None,
            LOG2 / self._n,
            logs,
            out_x,
            out_y,
            num_threads=get_num_threads(),
        )
        self.__dict__["_logs"] = logs, np.full(self._n, np.inf)
        return out_x, out_y

    def value_and_gradient(self) -> tuple[float, Pair]:
        """Return the loss and its gradients by the embeddings of both views. Call it once."""
        fused = self.rows.stretch is not None
        if self.sides == "rows" and self._n <= _ONE_SIDED:
            by_rows, by_columns = self._one_sided(fused)
            value = self.value()
        else:
            value = self.value()
            by_rows, by_columns = self._gradient(fused)
        if not fused:
            by_rows, by_columns = self.rows.pull(by_rows), self.columns.pull(by_columns)
        return value, self._split(by_rows, by_columns)

    def hvp(self, dz: Floats, dz_plus: Floats) -> Pair:
        """Return the Hessian applied to a direction, by the embeddings of both views."""
        x, y = self.rows.x, self.columns.x
        dz, dz_plus = dz.astype(x.dtype, copy=False), dz_plus.astype(x.dtype, copy=False)
        if self._stacked:
            dz = dz_plus = np.concatenate([dz, dz_plus])
        dx = self.rows.tangent(dz)
        dy = dx if self._stacked else self.columns.tangent(dz_plus)
        weights, logs = self._weights, self._logs
        by_rows, by_columns = self._gradient(False)

        # slopes: the tangents of the logits, their means those of each softmax
        kernel = (x, y, dx, dy, self._period)
        means = np.empty(self._n), np.empty(self._n)
        _core.tangent_means(*kernel, *logs, *means, num_threads=get_num_threads())
        slopes = LOG2 * (row_dots(dx, self._partner(y)) + row_dots(x, self._partner(dy)))
        rows, columns = (
            share * mean + (1.0 - share) * slopes
            for share, mean in zip(
                (_expit(LOG2 * (log - self._positives)) for log in logs), means, strict=True
            )
        )
        if self._stacked:
            columns = rows
        elif self.sides == "joint":
            rows = np.full(self._n, float((weights.row + weights.positive) @ rows) / self._n)

        out_x, out_y = np.empty_like(x), np.empty_like(y)
        _core.tangent_sums(
            *kernel,
            weights.row,
            logs[0],
            rows,
            weights.column,
            logs[1],
            columns,
            out_x,
            out_x if self._stacked else out_y,
            num_threads=get_num_threads(),
        )
        pull_change = weights.positive * (slopes - rows)
        if self._stacked:
            pull_change = pull_change + self._partner(pull_change)
        else:
            pull_change = pull_change + weights.other_positive * (slopes - columns)
        sides = [(out_x, self._partner(y), self._partner(dy)), (out_y, x, dx)]
        for out, partner, change in sides[:1] if self._stacked else sides:
            np.add(out, change * weights.pull.astype(x.dtype)[:, None], out=out)
            np.add(out, partner * pull_change.astype(x.dtype)[:, None], out=out)
            np.multiply(out, x.dtype.type(LOG2 / self._n), out=out)
        by_rows = self.rows.pull_tangent(by_rows, out_x, dz)
        if not self._stacked:
            by_columns = self.columns.pull_tangent(by_columns, out_y, dz_plus)
        return self._split(by_rows, by_columns)


@dataclass(frozen=True)
class _Weights:
    """n times the derivatives of the loss by the logits, softmax by softmax."""

    row: Doubles  # of the row's softmax, summed over its negatives
    column: Doubles
    positive: Doubles  # of the row's softmax, at its positive
    other_positive: Doubles  # of the column's
    pull: Doubles  # at the positive altogether, the loss's own term -1 included


def _expit(t: Doubles) -> Doubles:
    """Return 1/(1 + exp(-t)) without overflow."""
    e = np.exp(-np.abs(t))
    return np.where(t >= 0.0, 1.0, e) / (1.0 + e)


def infonce(
    z: Floats,
    z_plus: Floats,
    *,
    temperature: float,
    similarity: str,
    partition: str,
    normalize: bool,
    symmetric: bool,
) -> Contrast:
    """Return the contrast of InfoNCE."""
    dtype, scale = z.dtype, math.sqrt(1.0 / (temperature * LOG2))
    sides = "joint" if partition == "joint" else "both" if symmetric else "rows"
    if normalize:  # on the sphere the two similarities differ by a constant
        return Contrast(normalized_rows(z, scale), normalized_rows(z_plus, scale), sides, dtype)
    largest = max(float(np.abs(side).max(initial=0.0)) for side in (z, z_plus))
    if dtype == np.float32 and (scale * largest) ** 2 * (z.shape[1] + 2) > FLOAT32_LARGEST:
        z, z_plus = z.astype(np.float64), z_plus.astype(np.float64)
    if similarity == "dot":
        return Contrast(plain_rows(z, scale), plain_rows(z_plus, scale), sides, dtype)
    center = 0.5 * (z.mean(axis=0, dtype=np.float64) + z_plus.mean(axis=0, dtype=np.float64))

    def rows() -> tuple[Rows, Rows]:
        return squared_rows(z, center, scale, True), squared_rows(z_plus, center, scale, False)

    first, second = rows()
    # the squares of rows far from the rest would drown the distances of all others, and a power
    # that is off by a factor is no answer
    far = -float(min(first.x[:, -2].min(), second.x[:, -1].min()))
    if z.dtype == np.float32 and far > _FLOAT32_FAR:
        z, z_plus = z.astype(np.float64), z_plus.astype(np.float64)
        first, second = rows()
    return Contrast(first, second, sides, dtype, squared=True)


def ntxent(z: Floats, z_plus: Floats, *, temperature: float) -> Contrast:
    """Return the contrast of NT-Xent, both views stacked."""
    rows = normalized_rows(np.concatenate([z, z_plus]), math.sqrt(1.0 / (temperature * LOG2)))
    return Contrast(rows, rows, "stacked", z.dtype)
