"""How a sweep is computed: the cheapest algorithm that answers what was asked (theory 2, 5)."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import pencils
from pyssl._checks import ThresholdWarning
from pyssl._pencil import Array, diagonalise
from pyssl._sweep_plan import OUTPUTS, Plan
from pyssl.classification import classify
from pyssl.collapse import Collapse
from pyssl.landscape import Landscape
from pyssl.losses import BarlowTwins, InfoNCE, SpectralContrastive, SquaredVICReg
from pyssl.moments import Moments
from pyssl.potentials import InfoNCEPotential
from pyssl.spectral import SpectralLandscape

__all__ = ["KINDS", "Evaluator", "make_evaluator"]

Block = tuple[slice, ...]
Results = dict[str, npt.NDArray[Any]]

KINDS = tuple(Collapse)

# Sigma and A commute where in one basis what is off their diagonals is this many d eps at most,
# relative to the variances: what rotating diagonal matrices leaves there.
_COMMUTING_ULPS = 16.0
# Of A + alpha C only a coincidence ties eigenvalues of different pairs (a, c): three chances.
_MIXTURES = (0.6180339887498949, 1.7320508075688772, 0.2360679774997897)
# Points a task, so that its arrays stay small and Ctrl-C is answered soon.
_CHUNK_POINTS = {"elementwise": 65536, "inertia": 65536, "pencils": 4096, "loop": 256}
_PENCILS_AT_ONCE = 1 << 20  # entries
_CELLS_KEPT = 1024
_CELLS_FOR_LINES = 4096  # or what draws over a picture costs more than the picture
# Decays that agree to 46 bits, as those with one product tau g do, share a pencil.
_DECAY_BITS = 46


@dataclass(frozen=True)
class Family:
    """A loss whose B is (beta (A + (1 - inv) C) - theta I)/tau, theta = g tau/2.

    Attributes
    ----------
    beta : float
    own : whether S = A, not Sigma.
    form : 0 for r = q n^2, else which population form of InfoNCE (theory 3.1), in units of tau.
    q : float
    constant : of the value, for each row of W.
    """

    beta: float
    own: bool = False
    form: int = 0
    q: float = 1.0
    constant: float = 0.0

    @property
    def diverges(self) -> bool:
        """Whether a mode without augmentation has no amplitude without decay."""
        return self.form >= 2


def _family(plan: Plan) -> Family | None:
    """Return the family of a sweep, None where some of it is not spectral."""
    loss = plan.loss
    if isinstance(loss, InfoNCE):
        if loss.normalize or np.isfinite(plan.field("negatives")).any():
            return None
        offset = any(m.mean.any() for m in plan.moments)
        if loss.similarity == "dot" and offset and not plan.bias:
            return None
        unit = InfoNCEPotential(1.0, loss.similarity, loss.partition)
        q = 0.5 * float(unit.curvature(np.zeros(())))
        form = {
            ("dot", "conditional"): 0,
            ("dot", "joint"): 1,
            ("sqeuclidean", "conditional"): 2,
            ("sqeuclidean", "joint"): 3,
        }[loss.similarity, loss.partition]
        return Family(1.0, form=0 if plan.level == "effective" else form, q=q)
    if isinstance(loss, SpectralContrastive) and loss.clip is None and "clip" not in plan.names:
        return Family(2.0)
    if isinstance(loss, BarlowTwins) and not loss.normalize:
        return Family(2.0, own=True, constant=1.0) if _all(plan, "redundancy", 1.0) else None
    if isinstance(loss, SquaredVICReg):
        return Family(2.0, constant=1.0)
    return None


def _all(plan: Plan, name: str, value: float) -> bool:
    return bool((plan.field(name) == value).all())


@dataclass(frozen=True, eq=False)
class Cell:
    """What points of one (moments, strength, invariance) share, at temperature 1 without decay."""

    land: SpectralLandscape
    spectrum: Array  # of B, descending
    norm: float
    rounding: float  # d eps
    inside: int  # rank S
    diverging: int  # modes without amplitude as long as nothing decays


@dataclass(frozen=True, eq=False)
class Points:
    """The settings at the points of a block, each (n,)."""

    of: npt.NDArray[np.int64]
    tau: Array
    half: Array
    k: npt.NDArray[np.int64]
    strength: Array
    invariance: Array

    def cells(self) -> tuple[list[tuple[int, float, float]], npt.NDArray[np.int64]]:
        """Return the distinct (moments, strength, invariance), and which one each point has."""
        stacked = np.stack([self.of.astype(np.float64), self.strength, self.invariance], axis=1)
        distinct, inverse = np.unique(stacked, axis=0, return_inverse=True)
        return [(int(m), float(s), float(i)) for m, s, i in distinct], inverse.ravel()


@dataclass(eq=False)
class Evaluator:
    """Evaluates blocks of a sweep's grid: a pure function of the block, which pickles.

    Attributes
    ----------
    plan : Plan
    algorithm : its name.
    why : one line about the choice.
    """

    plan: Plan
    algorithm: str
    why: str
    family: Family | None = None
    a: Array | None = None  # (moments, d), diagonals of A and C in their common basis
    c: Array | None = None
    commuting: bool = False
    _cells: dict[tuple[int, float, float], Cell] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cells": {}}

    @property
    def chunk_points(self) -> int:
        return _CHUNK_POINTS[self.algorithm]

    def __call__(self, block: Block) -> Results:
        """Return every output on a block of the grid, in its shape."""
        shape = tuple(part.stop - part.start for part in block)
        if self.algorithm == "loop":
            found = self._loop(block)
        else:
            found = self._spectral(self._points(block))
        return {
            name: found[name].astype(OUTPUTS[name][0]).reshape(shape) for name in self.plan.outputs
        }

    # -- closed forms ------------------------------------------------------------------------------

    def _points(self, block: Block) -> Points:
        plan, shape = self.plan, tuple(part.stop - part.start for part in block)

        def along(name: str, default: float) -> npt.NDArray[Any]:
            position = plan.position(name)
            if position is None:
                return np.full(math.prod(shape), default)
            values = plan.values[position][block[position]]
            values = values.reshape([-1 if i == position else 1 for i in range(len(shape))])
            return np.ascontiguousarray(np.broadcast_to(values, shape)).ravel()

        of: npt.NDArray[Any] = np.zeros(shape, dtype=np.int64)
        for position in plan.moment_axes:
            steps = np.arange(block[position].start, block[position].stop)
            of = of * plan.shape[position] + steps.reshape(
                [-1 if i == position else 1 for i in range(len(shape))]
            )
        temperature = getattr(plan.loss, "temperature", 1.0)
        return Points(
            of=np.ascontiguousarray(of).ravel(),
            tau=along("temperature", temperature).astype(np.float64),
            half=0.5 * along("weight_decay", plan.weight_decay),
            k=along("embedding_dim", plan.embedding_dim).astype(np.int64),
            strength=along("augmentation_strength", 1.0),
            invariance=along("invariance", getattr(plan.loss, "invariance", 1.0)),
        )

    def _spectral(self, points: Points) -> Results:
        assert self.family is not None
        size = len(points.of)
        positive, inside = np.empty(size, np.int64), np.empty(size, np.int64)
        if self.commuting:
            from pyssl import _sweep_kernels

            _sweep_kernels.counts(*self._modes(points), positive, inside)
        else:
            self._count(points, positive, inside)
        rank, capacity = np.minimum(points.k, positive), np.minimum(points.k, inside)
        kind = np.where(rank == capacity, KINDS.index(Collapse.NONE), 1)
        kind[rank == 0] = KINDS.index(Collapse.COMPLETE)
        found: Results = {"kind": kind, "rank": rank, "capacity": capacity}
        soft = ("value", "effective_rank", "participation_ratio", "stable_rank")
        if any(name in self.plan.outputs for name in soft):
            table = np.empty((size, len(soft)))
            self._summarise(points, rank, table)
            table[:, 0] += self.family.constant * points.k
            found |= dict(zip(soft, table.T, strict=True))
        return found

    def _modes(self, points: Points) -> tuple[Any, ...]:
        assert self.family is not None and self.a is not None
        eps = np.array([m._eps for m in self.plan.moments])
        return (
            self.a, self.c, eps, points.of, self.family.beta, self.family.own, points.tau,
            points.half, points.strength, points.invariance,
        )  # fmt: skip

    def _count(self, points: Points, positive: Any, inside: Any) -> None:
        """Count by the inertia of B: one spectrum a cell, comparisons along tau and g."""
        distinct, which = points.cells()
        for number, key in enumerate(distinct):
            here = np.flatnonzero(which == number)
            cell = self._cell(key)
            tau, half = points.tau[here], points.half[here]
            zero = cell.rounding * (cell.norm / tau + half)
            learned = np.zeros(len(here), np.int64)
            for eigenvalue in cell.spectrum:
                above = eigenvalue / tau - half > zero
                if not above.any():
                    break
                learned += above
            positive[here] = np.minimum(learned, cell.inside)
            inside[here] = cell.inside

    def _summarise(self, points: Points, rank: npt.NDArray[Any], out: Array) -> None:
        from pyssl import _sweep_kernels

        family = self.family
        assert family is not None
        diverges = np.zeros(len(rank), dtype=bool)
        if family.diverges and (points.half == 0.0).any():
            distinct, which = points.cells()
            counts = np.zeros(len(distinct), dtype=bool)
            for number in np.unique(which[points.half == 0.0]):
                counts[number] = self._cell(distinct[number]).diverging > 0
            diverges = counts[which] & (points.half == 0.0)
        if self.a is not None:
            _sweep_kernels.from_modes(
                *self._modes(points), family.form, family.q, rank, diverges, out
            )
            return
        distinct, which = points.cells()
        theta = _rounded(points.half * points.tau)
        for number, key in enumerate(distinct):
            here = np.flatnonzero(which == number)
            shifts, of = np.unique(theta[here], return_inverse=True)
            lam, deficits = self._pencils(key, shifts)
            part = np.empty((len(here), out.shape[1]))
            _sweep_kernels.from_eigenvalues(
                of.ravel(), lam, deficits, family.form, family.q, rank[here], diverges[here], part
            )
            out[here] = part

    def _pencils(self, key: tuple[int, float, float], shifts: Array) -> tuple[Array, Array]:
        """Return tau lambda and 1 - tau lambda of the pencils (B - theta I, S), (n, d)."""
        assert self.family is not None
        land = self._cell(key).land
        whitener = land._metric.whitener
        unit = whitener.T @ whitener
        deficient = self.family.diverges
        if deficient:
            assert land._deficit is not None
            form = whitener.T @ land._deficit.matrix @ whitener
        else:
            form = -(whitener.T @ land._signal @ whitener)
        unit, form = 0.5 * (unit + unit.T), 0.5 * (form + form.T)
        found = np.empty((len(shifts), len(form)))
        step = max(1, _PENCILS_AT_ONCE // max(1, form.size))
        for start in range(0, len(shifts), step):
            part = shifts[start : start + step]
            stack = form + part[:, None, None] * unit
            found[start : start + step] = pencils.eigenvalues(stack)[:, ::-1]  # ascending
        if deficient:
            floor = shifts / max(float(land._metric.spectrum[0]), float(np.finfo(float).tiny))
            tiny = float(np.finfo(float).tiny)
            found = np.maximum(found, np.maximum(floor, tiny)[:, None])
            return 1.0 - found, found
        return -found, np.full_like(found, np.inf)

    def _cell(self, key: tuple[int, float, float]) -> Cell:
        cell = self._cells.get(key)
        if cell is None:
            cell = self._make_cell(*key)
            if len(self._cells) >= _CELLS_KEPT:
                self._cells.clear()
            self._cells[key] = cell
        return cell

    def _make_cell(self, index: int, strength: float, invariance: float) -> Cell:
        plan = self.plan
        m = plan.strengthened(index, strength)
        loss = plan.loss_with(temperature=1.0, invariance=invariance)
        land = plan.landscape(loss, m, 1, 0.0)
        assert isinstance(land, SpectralLandscape)
        inside = int(np.count_nonzero(land._modes.signature > 0.0))
        spectrum = land._signal_spectrum
        bare = getattr(land, "_inner", land)  # a bias that the loss does not see
        return Cell(
            land=bare,
            spectrum=spectrum,
            norm=land._terms,
            rounding=bare.dim * bare._eps,
            inside=inside,
            diverging=land._modes.unattained,
        )

    # -- critical lines ----------------------------------------------------------------------------

    def critical_lines(self, dims: tuple[str, ...], most: int) -> Array | None:
        """Return the critical weight decays over all axes but two, and modes: (..., d).

        None where they have more than `most` entries, or where not even the first is known.
        """
        plan = self.plan
        size = math.prod(len(plan.axis(name, 0.0)) for name in dims)
        if size * plan.moments[0].dim > most:
            return None
        block = tuple(slice(0, n if name in dims else 1)
                      for name, n in zip(plan.names, plan.shape, strict=True))  # fmt: skip
        if self.family is None:
            rows = self._stated_lines(block)
        else:
            rows = self._spectral_lines(self._points(block))
        if rows is None or not np.isfinite(rows).any():
            return None
        return rows.reshape(*(len(plan.axis(name, 0.0)) for name in dims), -1)

    def _spectral_lines(self, points: Points) -> Array | None:
        distinct, which = points.cells()
        if len(distinct) > _CELLS_FOR_LINES:
            return None
        rows: Array | None = None
        for number, key in enumerate(distinct):
            here = np.flatnonzero(which == number)
            cell = self._cell(key)
            if rows is None:
                rows = np.empty((len(which), len(cell.spectrum)))
            critical = cell.spectrum / points.tau[here, None]
            zero = cell.rounding * cell.norm / points.tau[here, None]
            rows[here] = np.where(critical > zero, 2.0 * critical, 0.0)
        return rows

    def _stated_lines(self, block: Block) -> Array | None:
        rows = []
        ranges = [range(part.start, part.stop) for part in block]
        for number, point in enumerate(itertools.product(*ranges)):
            if number == _CELLS_FOR_LINES:
                return None
            stated = getattr(self._landscape(point), "critical_weight_decay", None)
            if stated is None:
                return None
            rows.append(np.array(stated))
        return np.stack(rows)

    # -- without closed form -----------------------------------------------------------------------

    def _loop(self, block: Block) -> Results:
        plan = self.plan
        ranges = [range(part.start, part.stop) for part in block]
        reports = []
        for point in itertools.product(*ranges):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ThresholdWarning)
                reports.append(classify(self._landscape(point)))
        found: Results = {
            "kind": np.array([KINDS.index(r.kind) for r in reports]),
            "value": np.array([r.minimum.value for r in reports]),
        }
        for name in set(plan.outputs) - set(found):
            found[name] = np.array([getattr(r, name) for r in reports])
        return found

    def _landscape(self, point: tuple[int, ...]) -> Landscape:
        plan = self.plan
        at = {
            name: values[index].item()
            for name, values, index in zip(plan.names, plan.values, point, strict=True)
            if plan.position(name) is not None
        }
        of = 0
        for position in plan.moment_axes:
            of = of * plan.shape[position] + point[position]
        m = plan.strengthened(of, at.pop("augmentation_strength", 1.0))
        k = at.pop("embedding_dim", plan.embedding_dim)
        g = at.pop("weight_decay", plan.weight_decay)
        return plan.landscape(plan.loss_with(**at), m, k, g)


def make_evaluator(plan: Plan) -> Evaluator:
    """Choose the algorithm from what was asked and from the structure of the sweep."""
    family = _family(plan)
    if family is None:
        return Evaluator(plan, "loop", "no closed form on all of the grid: classify at every point")
    hard = set(plan.outputs) <= {"kind", "rank", "capacity"}
    constant = isinstance(plan.loss, SpectralContrastive) and (
        plan.bias or any(m.mean.any() for m in plan.moments)
    )
    if not constant:
        bases = _each(plan.moments, _common_basis)
        if bases is None and family.own and not set(plan.outputs) & {
            "effective_rank", "participation_ratio", "stable_rank",
        }:  # fmt: skip
            bases = _each(plan.moments, _own_basis)
        if bases is not None:
            return Evaluator(
                plan, "elementwise", "B and S commute on all of the grid: formulas for every mode",
                family, *bases, commuting=True,
            )  # fmt: skip
    inertia = "inertia: eigenvalues of B once for each of the moments"
    if hard:
        return Evaluator(plan, "inertia", inertia, family)
    if constant or family.own:
        return Evaluator(
            plan, "loop", "the embedding's spectrum is not that of the modes: classify", family
        )
    if not plan.axis("weight_decay", plan.weight_decay).any():
        bases = _each(plan.moments, _congruent_basis)
        assert bases is not None
        return Evaluator(
            plan, "elementwise",
            "without weight decay one pencil diagonalises all: formulas for every mode",
            family, *bases,
        )  # fmt: skip
    return Evaluator(
        plan, "pencils", "one pencil for each product of temperature and weight decay", family
    )


def _each(
    moments: tuple[Moments, ...], basis: Callable[[Moments], tuple[Array, Array] | None]
) -> tuple[Array, Array] | None:
    """Return the diagonals of A and C, (moments, d) each, where all moments have them."""
    found = []
    for m in moments:
        pair = basis(m)
        if pair is None:
            return None
        order = np.argsort(-pair[0], kind="stable")  # where lambda ties, Barlow Twins' order is A's
        found.append((pair[0][order], pair[1][order]))
    return np.stack([a for a, _ in found]), np.stack([c for _, c in found])


def _common_basis(m: Moments) -> tuple[Array, Array] | None:
    """Return the diagonals of A and C in a basis that diagonalises both, None without one."""
    a, c = m.cross_covariance, m.augmentation_covariance
    if not (_off_diagonal(a).any() or _off_diagonal(c).any()):
        return np.diagonal(a).copy(), np.diagonal(c).copy()
    for mixture in _MIXTURES:
        basis = np.linalg.eigh(a + mixture * c)[1]
        turned_a, turned_c = basis.T @ a @ basis, basis.T @ c @ basis
        variance = np.maximum(np.diagonal(turned_a) + np.diagonal(turned_c), 0.0)
        eps, top = m.dim * float(np.finfo(float).eps), float(variance.max())
        limit = np.sqrt(np.outer(variance, variance))
        absent = variance <= eps * top  # no modes: what couples to them has no effect
        limit[absent, :] = limit[:, absent] = top
        limit *= _COMMUTING_ULPS * eps
        rest = np.maximum(np.abs(_off_diagonal(turned_a)), np.abs(_off_diagonal(turned_c)))
        if (rest <= limit).all():
            return np.diagonal(turned_a).copy(), np.diagonal(turned_c).copy()
    return None


def _own_basis(m: Moments) -> tuple[Array, Array]:
    """Return the eigenvalues of A alone, where S = A; C then has no part in the minimum."""
    a: Array = np.asarray(np.linalg.eigvalsh(m.cross_covariance), dtype=np.float64)
    return a, np.zeros_like(a)


def _congruent_basis(m: Moments) -> tuple[Array, Array]:
    """Return the diagonals of A and C in modes v with v'Sigma v = 1, zero where nothing varies."""
    metric = m._metric
    taken: Array = np.zeros(m.dim)
    taken[: metric.rank] = np.clip(
        diagonalise(m.augmentation_covariance, metric.whitener)[0], 0.0, None
    )
    kept: Array = np.zeros(m.dim)
    kept[: metric.rank] = 1.0 - taken[: metric.rank]
    return kept, taken


def _off_diagonal(matrix: Array) -> Array:
    return matrix - np.diag(np.diagonal(matrix))


def _rounded(theta: Array) -> Array:
    """Round to `_DECAY_BITS` bits."""
    mantissa, exponent = np.frexp(theta)
    scale = float(2**_DECAY_BITS)
    return np.asarray(np.ldexp(np.round(mantissa * scale) / scale, exponent))
