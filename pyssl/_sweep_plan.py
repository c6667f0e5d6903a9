"""What a sweep is to compute: its settings, checked, its grid, and how it is cut into tasks."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl.landscape import Landscape
from pyssl.loss import Loss
from pyssl.moments import Moments

__all__ = ["OUTPUTS", "Plan", "make_plan", "numeric_fields"]

Array = npt.NDArray[Any]
Source = Moments | Sequence[Moments] | Callable[..., Moments]

# Every output with its dtype, what stands for "not computed", and what it is.
OUTPUTS: dict[str, tuple[str, float, str]] = {
    "kind": ("int8", -1, "kind of collapse"),
    "rank": ("int32", -1, "modes active at the minimum"),
    "capacity": ("int32", -1, "modes that an embedding of this size could learn"),
    "effective_rank": ("float64", math.nan, "entropy effective rank of the embedding"),
    "participation_ratio": ("float64", math.nan, "participation ratio of the embedding"),
    "stable_rank": ("float64", math.nan, "stable rank of the embedding"),
    "value": ("float64", math.nan, "loss at the minimum"),
}

_SETTINGS = ("weight_decay", "embedding_dim", "augmentation_strength")


@dataclass(frozen=True, eq=False)
class Plan:
    """A sweep with everything validated; it pickles.

    Attributes
    ----------
    loss : with the values that no axis changes.
    level : which of its landscapes.
    names, values : the axes.
    moments : over the product of the axes of the moments, in C order.
    moment_axes : positions of those axes.
    embedding_dim, weight_decay : where they are no axes.
    """

    loss: Loss
    level: str
    bias: bool
    names: tuple[str, ...]
    values: tuple[Array, ...]
    moments: tuple[Moments, ...]
    moment_axes: tuple[int, ...]
    embedding_dim: int
    weight_decay: float
    outputs: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(value) for value in self.values)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def position(self, setting: str) -> int | None:
        """Return which axis a setting is; None for none, or for one that the moments have taken."""
        if setting not in self.names:
            return None
        position = self.names.index(setting)
        return None if position in self.moment_axes else position

    def axis(self, name: str, default: float) -> Array:
        """Return the values of an axis, or of what is none."""
        if name in self.names:
            return self.values[self.names.index(name)]
        return np.array([default])

    def field(self, name: str) -> Array:
        """Return the values that a field of the loss takes; nan where it has no such field."""
        return self.axis(name, getattr(self.loss, name, math.nan))

    def loss_with(self, **settings: float) -> Loss:
        """Return the loss with other values of those fields that are its own."""
        own = numeric_fields(self.loss)
        return replaced(self.loss, {name: value for name, value in settings.items() if name in own})

    def landscape(self, loss: Loss, m: Moments, k: int, g: float) -> Landscape:
        """Make a landscape of the level that is swept."""
        make = loss.population if self.level == "population" else loss.effective
        return make(m, k, g, self.bias)

    def strengthened(self, index: int, strength: float) -> Moments:
        """Return moments with another strength of the augmentation."""
        m = self.moments[index]
        return m if strength == 1.0 else m.with_augmentation_strength(strength)

    def chunk_shape(self, points: int) -> tuple[int, ...]:
        """Cut the grid into boxes of at most so many points, whole in the last axes."""
        sides: list[int] = []
        for length in reversed(self.shape):
            sides.append(min(length, max(1, points // math.prod(sides))))
        return tuple(reversed(sides))

    def description(self) -> dict[str, Any]:
        """Return what the results depend on, for JSON."""
        digest = hashlib.sha256()
        for m in self.moments:
            parts = (m.covariance, m.cross_covariance, m.augmentation_covariance, m.mean)
            for part in parts:
                digest.update(part.tobytes())
            digest.update(repr((m.dim, m._eps, m.n_samples, m._augmentation_scale)).encode())
        return {
            "loss": repr(self.loss),
            "level": self.level,
            "bias": self.bias,
            "embedding_dim": self.embedding_dim,
            "weight_decay": self.weight_decay,
            "moments": digest.hexdigest(),
            "axes": [
                # first and last for a message's sake, as text: JSON has no infinity
                [
                    name,
                    len(value),
                    hashlib.sha256(value.tobytes()).hexdigest(),
                    *(str(value[end].item()) for end in (0, -1)),
                ]
                for name, value in zip(self.names, self.values, strict=True)
            ],
            "outputs": list(self.outputs),
        }


def numeric_fields(loss: Any) -> tuple[str, ...]:
    """Return the fields of a loss that hold numbers."""
    fields = dataclasses.fields(loss)
    return tuple(f.name for f in fields if str(f.type) in ("float", "int", "float | None"))


def replaced(loss: Any, settings: Mapping[str, float]) -> Loss:
    """Return a loss with other values of some fields, which its own check names if wrong."""
    changed: Loss = dataclasses.replace(loss, **settings)
    return changed


def make_plan(
    loss: Loss,
    moments: Source,
    axes: Mapping[str, npt.ArrayLike],
    outputs: Sequence[str],
    embedding_dim: int | None,
    weight_decay: float,
    level: str | None,
    bias: bool,
) -> Plan:
    """Validate everything that a user hands to a sweep."""
    _checks.instance("loss", loss, Loss, "a pyssl loss")
    _checks.instance("axes", axes, Mapping, "a mapping of names to values")
    if not axes:
        raise ValueError("axes must name at least one axis, got none")
    wanted = _outputs(outputs)
    _checks.flag("bias", bias)
    own = numeric_fields(loss)
    settings = set(own) | set(_SETTINGS)
    if _takes_strength(moments):
        settings.discard("augmentation_strength")
    foreign = [name for name in axes if name not in settings]
    _require_known(moments, foreign, own)
    names = tuple(axes)
    values = tuple(_axis(name, axes[name], name in foreign) for name in names)
    table = dict(zip(names, values, strict=True))
    sources = _moments(moments, foreign, table)
    for name in names:
        if name in own:
            for value in table[name]:
                replaced(loss, {name: float(value)})
    k = sources[0].dim if embedding_dim is None else embedding_dim
    plan = Plan(
        loss=loss,
        level="population",
        bias=bias,
        names=names,
        values=values,
        moments=sources,
        moment_axes=tuple(names.index(name) for name in foreign),
        embedding_dim=_checks.integer("embedding_dim", k, minimum=1),
        weight_decay=_checks.real("weight_decay", weight_decay, minimum=0.0),
        outputs=wanted,
    )
    _require_strengths(plan)
    return dataclasses.replace(plan, level=_level(plan, level))


def _outputs(outputs: Sequence[str]) -> tuple[str, ...]:
    if isinstance(outputs, str):
        raise TypeError(f"outputs must be a sequence of names, got {outputs!r} (str)")
    wanted = tuple(_checks.choice("outputs", name, tuple(OUTPUTS)) for name in outputs)
    if not wanted or len(set(wanted)) < len(wanted):
        raise ValueError(f"outputs must be different names, at least one, got {wanted}")
    return wanted


def _takes_strength(moments: Source) -> bool:
    """Return whether a function of moments has its own notion of an augmentation's strength."""
    if isinstance(moments, Moments) or not callable(moments):
        return False
    try:
        return "augmentation_strength" in inspect.signature(moments).parameters
    except ValueError:  # of compiled functions
        return False


def _require_known(moments: Source, foreign: list[str], own: Sequence[str]) -> None:
    """Raise for axes that neither the loss nor the moments have."""
    known = ", ".join([*own, *_SETTINGS])
    if isinstance(moments, Moments) and foreign:
        raise ValueError(f"axes must be of {known}, got {foreign[0]!r}")
    if not isinstance(moments, Moments) and not callable(moments):
        _checks.instance("moments", moments, Sequence, "pyssl.Moments, a sequence or a function")
        if len(foreign) != 1:
            raise ValueError(
                "axes must have one name for the sequence of moments beside"
                f" {known}, got {foreign or 'none'}"
            )


def _axis(name: str, value: npt.ArrayLike, of_moments: bool) -> Array:
    """Return the values of an axis, (n,)."""
    label = f"axes[{name!r}]"
    if of_moments and name not in _SETTINGS and np.asarray(value).dtype.kind == "U":
        values: Array = np.asarray(value)
        if values.ndim != 1:
            raise ValueError(f"{label} must have 1 dimension(s), got shape {values.shape}")
    elif name == "embedding_dim":
        found = _checks.array(label, value, ndim=1)
        for item in found:
            if item < 1 or item != np.floor(item):
                raise ValueError(f"{label} must be integers of at least 1, got {item:g}")
        values = found.astype(np.int64)
    else:
        # of finite numbers, but negatives may be infinite
        found = _checks.array(label, value, ndim=1, check_finite=name != "negatives")
        values = found.astype(np.float64)
        if name in ("weight_decay", "augmentation_strength"):
            for item in values:
                _checks.real(label, float(item), minimum=0.0)
    if len(values) == 0:
        raise ValueError(f"{label} must have at least one value, got none")
    distinct, counts = np.unique(values, return_counts=True)
    if counts.max() > 1:
        repeated = distinct[counts.argmax()].item()
        raise ValueError(f"{label} must not repeat a value, got {repeated!r} more than once")
    return values


def _moments(moments: Source, foreign: list[str], table: dict[str, Array]) -> tuple[Moments, ...]:
    if isinstance(moments, Moments):
        return (moments,)
    if callable(moments):
        # of the axes that are not the loss's; without any, once
        grids = product(*(table[name].tolist() for name in foreign))
        found = tuple(moments(**dict(zip(foreign, point, strict=True))) for point in grids)
    else:
        found = tuple(moments)
        expected = len(table[foreign[0]])
        if len(found) != expected:
            raise ValueError(
                f"moments must be as many as axes[{foreign[0]!r}], {expected}, got {len(found)}"
            )
    for index, m in enumerate(found):
        _checks.instance(f"moments[{index}]", m, Moments, "pyssl.Moments")
        if m.dim != found[0].dim:
            raise ValueError(f"moments must be of one dimension, got {found[0].dim} and {m.dim}")
    return found


def _require_strengths(plan: Plan) -> None:
    """Raise for strengths that some moments don't allow: the least is the hardest."""
    if plan.position("augmentation_strength") is None:
        return
    strengths = plan.axis("augmentation_strength", 1.0)
    for index in range(len(plan.moments)):
        for strength in {float(strengths.min()), float(strengths.max())}:
            plan.strengthened(index, strength)


def _level(plan: Plan, level: str | None) -> str:
    """Return a level that the loss has at every point, by default the sharpest."""
    levels: tuple[str, ...] = ("population", "effective")
    if level is not None:
        levels = (_checks.choice("level", level, levels),)
    reasons = []
    for candidate in levels:
        trial = dataclasses.replace(plan, level=candidate)
        try:
            # what a loss has hangs on whether negatives are finite, redundancy is 1 and the like
            for settings in _extremes(plan):
                trial.landscape(plan.loss_with(**settings), plan.moments[0], 1, 0.0)
        except NotImplementedError as error:
            reasons.append(str(error))
        else:
            return candidate
    raise NotImplementedError("; ".join(reasons))


def _extremes(plan: Plan) -> list[dict[str, float]]:
    """Return settings of the loss, least and largest of each axis."""
    own = [name for name in plan.names if name in numeric_fields(plan.loss)]
    ends = [{float(plan.field(name).min()), float(plan.field(name).max())} for name in own]
    return [dict(zip(own, point, strict=True)) for point in product(*ends)]
