"""A collapse report in plain sentences: what is kept, what is lost and why, what changes that."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any, cast

import numpy as np

from pyssl.collapse import Cause, Collapse, CollapseReport
from pyssl.losses import Loss
from pyssl.moments import Moments
from pyssl.spectral import SpectralLandscape

# Enough halvings for the three digits that are printed.
_BISECTIONS = 24

_KIND = {
    Collapse.NONE: "no collapse",
    Collapse.DIMENSIONAL: "dimensional collapse",
    Collapse.COMPLETE: "complete collapse",
}
_WHY = {
    Cause.CAPACITY: "lost to capacity (worth learning, but the embedding is full)",
    Cause.DECAY: "lost to weight decay (learned without it)",
    Cause.AUGMENTATION: "lost to the augmentation (not learned even without weight decay)",
    Cause.NO_VARIATION: "without variation in the views",
    Cause.COMPETITION: "crowded out by better aligned modes",
}


def counts(report: CollapseReport) -> dict[Cause, int]:
    """Return how many modes have each cause, learned ones first."""
    causes = list(report.modes.cause)
    return {cause: causes.count(cause) for cause in (Cause.LEARNED, *_WHY)}


def nothing_varies(report: CollapseReport) -> bool:
    """Return whether the views are constant, so that there is nothing to learn or lose."""
    return counts(report)[Cause.NO_VARIATION] == len(report.modes)


def kind(report: CollapseReport) -> str:
    """Name the kind of collapse."""
    return "nothing varies" if nothing_varies(report) else _KIND[report.kind]


def headline(report: CollapseReport) -> str:
    """Say in a few words what became of the modes."""
    if nothing_varies(report):
        return f"{kind(report)}: the views are constant, so there is nothing to learn"
    if report.capacity == 0:
        return f"{kind(report)}: the views are nowhere positively correlated"
    return f"{kind(report)}: {report.rank} of {report.capacity} modes learned"


def kept_and_lost(report: CollapseReport) -> list[str]:
    """Say how many modes are learned, and where the others went."""
    tally, d = counts(report), len(report.modes)
    if nothing_varies(report):
        return [
            f"The views are constant: none of {_modes(d)} varies, so there is nothing to learn."
        ]
    if report.kind is Collapse.COMPLETE:
        head = f"Nothing is learned, none of {_modes(d)}."
    elif report.kind is Collapse.NONE:
        head = f"Everything that fits is learned: {report.rank} of {_modes(d)}."
    else:
        head = (
            f"{report.rank} of {_modes(d)} {_are(report.rank)} learned, though the embedding has"
            f" room for {report.capacity}."
        )
    lost = [f"{tally[cause]} {why}" for cause, why in _WHY.items() if tally[cause]]
    others = "The others" if report.rank else "Where they go"
    sentences = [head] + ([f"{others}: {', '.join(lost)}."] if lost else [])
    if report.rank and math.isfinite(report.effective_rank):
        even = report.effective_rank > 0.9 * report.rank
        sentences.append(
            f"The effective rank of the embedding is {report.effective_rank:.1f}: "
            + (
                "its variance is spread almost evenly over the modes learned."
                if even
                else "some of the modes learned carry much more of its variance than others."
            )
        )
    return sentences


def reasons(report: CollapseReport) -> list[str]:
    """Show the split of the last mode learned and of the first one lost to each cost."""
    table, found = report.modes, []
    names = {
        Cause.LEARNED: "the last one learned",
        Cause.CAPACITY: "the first one that finds no room",
        Cause.DECAY: "the first one lost to weight decay",
    }
    for cause, name in names.items():
        where = [index for index, item in enumerate(table.cause) if item is cause]
        if not where:
            continue
        row = table[where[-1] if cause is Cause.LEARNED else where[0]]
        number = 1 + (where[-1] if cause is Cause.LEARNED else where[0])
        if not (math.isfinite(row.signal) and math.isfinite(row.augmentation)):
            continue
        if cause is Cause.DECAY and row.signal <= row.augmentation:
            # causes go by the count, and this split would seem to contradict it
            found.append(
                f"Mode {number} is lost to weight decay by the count: without any, {number} or more"
                " would survive. (Directions turn with the decay; the direction that is mode"
                f" {number} at this one loses its whole signal to the augmentation already.)"
            )
            continue
        cost = row.augmentation if abs(row.augmentation) > 1e-12 * row.signal else 0.0
        split = (
            f"signal {row.signal:.3g} - augmentation {cost:.3g} - decay {row.decay:.3g}"
            f" = {row.eigenvalue:.2g}"
        )
        found.append(f"Mode {number}, {name}: {split}.")
    tally = counts(report)
    if tally[Cause.AUGMENTATION]:
        alive = sum(tally[cause] for cause in (Cause.LEARNED, Cause.CAPACITY, Cause.DECAY))
        found.append(
            f"Without any weight decay {_modes(alive)} would have a positive eigenvalue. The"
            f" augmentation alone costs the loss the other {tally[Cause.AUGMENTATION]} along which"
            " the views vary."
        )
    return found


def changes(report: CollapseReport, loss: Loss | None, moments: Moments | None) -> list[str]:
    """Say which settings would keep more modes, or lose them.

    Thresholds are rounded to the side on which the sentence stays true.
    """
    tally = counts(report)
    critical, g = report.critical_weight_decay, report.weight_decay
    k = report.minimum.weights.shape[0]
    wanted = report.rank + tally[Cause.CAPACITY]  # modes whose signal survives, room or not
    first_lost = wanted + 1
    result = []
    if tally[Cause.CAPACITY]:
        result.append(
            f"A larger embedding keeps more: with embedding dimension {wanted} (now {k}) all"
            f" {wanted} modes that survive are learned."
        )
    if tally[Cause.DECAY]:
        result.append(_less_decay(report, wanted, k))
        if first_lost <= k and loss is not None and _has(loss, "temperature"):
            tau = loss.temperature * critical[wanted] / g  # type: ignore[attr-defined]
            result.append(
                f"So does a lower temperature at this weight decay: below {_below(tau)} mode"
                f" {first_lost} is learned{_too(report)}."
            )
    if report.rank:
        first, last = float(critical[0]), float(critical[report.rank - 1])
        if math.isfinite(last) and last > g:
            more = f"More weight decay loses more: from {_from(last)} on mode {report.rank} is lost"
            if math.isfinite(first):
                more += (
                    f", and from {_from(first)} on everything is (complete collapse)"
                    if report.rank > 1
                    else " and with it everything (complete collapse)"
                )
            result.append(more + ".")
    if tally[Cause.AUGMENTATION]:
        result.extend(_augmentation(report, loss, moments, wanted, k, tally[Cause.AUGMENTATION]))
    if tally[Cause.NO_VARIATION]:
        n = tally[Cause.NO_VARIATION]
        result.append(
            f"No setting brings back what has no variation ({_modes(n)}): the views are constant"
            " there, and only other data or another preprocessing changes that."
        )
    if not result:
        result.append("Nothing is lost, so there is nothing to change.")
    return result


def _less_decay(report: CollapseReport, wanted: int, k: int) -> str:
    critical = report.critical_weight_decay
    undecayed = wanted + counts(report)[Cause.DECAY]
    one = f"below {_below(float(critical[wanted]))} mode {wanted + 1}"
    if wanted >= k:
        return (
            "Less weight decay alone adds no mode, because the embedding is full; in a larger one,"
            f" {one} would be learned as well."
        )
    reach = min(k, undecayed)
    text = f"Less weight decay keeps more: {one} is learned{_too(report)}"
    if reach > wanted + 1:
        text += f", and below {_below(float(critical[reach - 1]))} every mode up to {reach}"
        text += ", which fills the embedding" if reach == k else ""
    return text + "."


def _augmentation(
    report: CollapseReport,
    loss: Loss | None,
    moments: Moments | None,
    wanted: int,
    k: int,
    lost: int,
) -> list[str]:
    """Say what brings modes back that the augmentation took."""
    if loss is not None and moments is not None and _has(loss, "invariance"):
        if wanted >= k:
            return [
                "A lower invariance weight would leave more modes alive, but the embedding is full."
            ]
        critical = _critical_invariance(loss, moments, report, wanted + 1, k)
        if critical is not None:
            text = (
                f"Less weight on invariance keeps more: below {_below(critical)} mode"
                f" {wanted + 1} is learned{_too(report)} (at this weight decay)"
            )
            reach = min(k, report.capacity)
            if reach > wanted + 1:
                all_of_them = _critical_invariance(loss, moments, report, reach, k)
                if all_of_them is not None:
                    text += f", and below {_below(all_of_them)} the embedding is filled"
            return [text + "."]
    text = (
        f"No setting of this loss brings back what the augmentation took ({_modes(lost)}): the two"
        " views are not positively correlated there. A weaker augmentation may, and so may more"
        " data: in a sample, noise alone makes weak correlations negative."
    )
    return [text]


def _critical_invariance(
    loss: Loss, moments: Moments, report: CollapseReport, count: int, k: int
) -> float | None:
    """Return the largest invariance weight at which `count` modes survive; None if none does."""

    def survive(invariance: float) -> bool:
        other: Loss = replace(cast("Any", loss), invariance=invariance)
        land = other.population(moments, k, report.weight_decay)
        assert isinstance(land, SpectralLandscape)
        return land._count_positive(report.weight_decay) >= count

    # the number of survivors falls with the weight, so there is one crossing (theory 5)
    low, high = 0.0, float(loss.invariance)  # type: ignore[attr-defined]
    if not survive(low) or survive(high):
        return None
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if survive(middle) else (low, middle)
    return low


def _has(loss: Loss, name: str) -> bool:
    return any(item.name == name for item in fields(loss))  # type: ignore[arg-type]


def _too(report: CollapseReport) -> str:
    return " too" if report.rank else ""


def _modes(count: int) -> str:
    return f"{count} mode" if count == 1 else f"{count} modes"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _below(x: float) -> str:
    """Write x with three digits, rounded down: what is true below x is true below that."""
    return _digits(x, math.floor)


def _from(x: float) -> str:
    """Write x with three digits, rounded up."""
    return _digits(x, math.ceil)


def _digits(x: float, direction: Any) -> str:
    if x == 0.0 or not math.isfinite(x):
        return f"{x:g}"
    unit = 10.0 ** (math.floor(math.log10(abs(x))) - 2)
    scaled = x / unit
    # a number that has three digits is not pushed to the next by the rounding of the division
    near = float(np.rint(scaled))
    if abs(scaled - near) < 1e-9 * abs(near):
        return f"{near * unit:.3g}"
    return f"{direction(scaled) * unit:.3g}"
