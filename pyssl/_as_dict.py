"""Reports as plain Python values that strict JSON can hold."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np

from pyssl import _checks
from pyssl.collapse import CollapseReport
from pyssl.verification import Verification

__all__ = ["as_dict", "verification_as_dict"]


def as_dict(report: CollapseReport) -> dict[str, Any]:
    """Return a report as plain Python values that strict JSON can hold.

    Parameters
    ----------
    report : CollapseReport

    Returns
    -------
    dict
        With the report's fields; ``modes`` is a list of one dict a mode, with its critical weight
        decay. What does not exist (nan) is None, infinities are the strings "Infinity" and
        "-Infinity". The weights of the minimum are left out.

    Raises
    ------
    TypeError
        For anything but a report.

    Examples
    --------
    >>> import json, numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]))
    >>> report = pyssl.classify(pyssl.InfoNCE().population(moments, 2, weight_decay=0.4))
    >>> json.loads(json.dumps(pyssl.report.as_dict(report), allow_nan=False))["kind"]
    'dimensional'
    """
    _checks.instance("report", report, CollapseReport, "a CollapseReport")
    modes = []
    for index, mode in enumerate(report.modes):
        row = {item.name: getattr(mode, item.name) for item in fields(mode)}
        critical = float(report.critical_weight_decay[index])
        numbers = {name: _json(value) for name, value in row.items() if name != "cause"}
        modes.append(
            {**numbers, "critical_weight_decay": _json(critical), "cause": str(mode.cause)}
        )
    minimum = report.minimum
    return {
        "loss": report.loss,
        "kind": str(report.kind),
        "rank": report.rank,
        "capacity": report.capacity,
        "effective_rank": _json(report.effective_rank),
        "participation_ratio": _json(report.participation_ratio),
        "stable_rank": _json(report.stable_rank),
        "weight_decay": report.weight_decay,
        "n_samples": report.n_samples,
        "within_noise": report.within_noise,
        "value": _json(minimum.value),
        "attained": minimum.attained,
        "bounded": minimum.bounded,
        "modes": modes,
        "notes": list(report.notes),
    }


def verification_as_dict(check: Verification) -> dict[str, Any]:
    """Return training beside theory as such values."""
    result: dict[str, Any] = {"agrees": check.agrees}
    for item in fields(check):
        value = getattr(check, item.name)
        if isinstance(value, np.ndarray):
            flags = value.dtype == np.bool_
            value = [bool(x) if flags else _json(float(x)) for x in value]
        elif isinstance(value, float):
            value = _json(value)
        result[item.name] = list(value) if isinstance(value, tuple) else value
    return result


def _json(value: float) -> float | str | None:
    if math.isfinite(value):
        return float(value)
    if math.isnan(value):
        return None
    return "Infinity" if value > 0.0 else "-Infinity"
