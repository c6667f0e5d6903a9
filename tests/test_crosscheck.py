"""One minimum, three ways: by closed form, by descent, and as the limit of gradient flow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import pyssl
from pyssl.testing import gaussian_views, random_moments, random_spectrum

Array = np.ndarray

PROBLEMS = 50
BARLOW = pyssl.BarlowTwins(normalize=False, redundancy=1.0)


def infonce(similarity: str, partition: str, **options: Any) -> pyssl.InfoNCE:
    return pyssl.InfoNCE(0.5, similarity, partition, **options)


# name -> (loss, level, what else its landscape and moments need)
CLOSED: dict[str, tuple[pyssl.Loss, str, dict[str, Any]]] = {
    **{
        f"InfoNCE {similarity} {partition} {level}": (infonce(similarity, partition), level, {})
        for similarity in ("sqeuclidean", "dot")
        for partition in ("conditional", "joint")
        for level in ("population", "effective")
    },
    **{
        f"InfoNCE dot {partition}, mean and bias": (
            infonce("dot", partition),
            "population",
            {"bias": True, "mean": True},
        )
        for partition in ("conditional", "joint")
    },
    **{
        f"InfoNCE {similarity}, {K} negatives": (
            infonce(similarity, "conditional", negatives=K),
            "effective",
            {"commuting": True},
        )
        for similarity, K in (("sqeuclidean", 1), ("sqeuclidean", 7), ("dot", 1), ("dot", 20))
    },
    "spectral contrastive": (pyssl.SpectralContrastive(), "population", {}),
    "spectral contrastive, mean": (pyssl.SpectralContrastive(), "population", {"mean": True}),
    "spectral contrastive, mean and bias": (
        pyssl.SpectralContrastive(),
        "population",
        {"mean": True, "bias": True},
    ),
    "Barlow Twins": (BARLOW, "population", {}),
    "SquaredVICReg": (pyssl.SquaredVICReg(1.5), "population", {}),
    "SquaredVICReg, bias": (pyssl.SquaredVICReg(0.5), "effective", {"bias": True, "mean": True}),
    "NT-Xent": (pyssl.NTXent(0.8), "effective", {}),
    "NT-Xent, mean and bias": (pyssl.NTXent(0.8), "effective", {"mean": True, "bias": True}),
}


def problem(number: int, rng: np.random.Generator, *, mean: bool, commuting: bool) -> Any:
    """Draw moments, k and a decay: below, at and above d; null spaces; ties; samples."""
    d = int(rng.integers(2, 9))
    k = (int(rng.integers(1, d)), d, d + int(rng.integers(1, 4)))[number % 3]
    decay = 0.0 if number % 4 == 0 else float(rng.uniform(0.01, 0.3))
    if number % 5 == 4 and not commuting:
        # as few pairs as leave the sample cross-covariance indefinite
        population = random_moments(np.abs(random_spectrum(d, rng)), rng, mean=mean)
        moments = pyssl.Moments.from_views(*gaussian_views(population, 4 * d, rng))
        return (moments if mean else moments.centered()), k, decay
    nulls = int(d > 2 and number % 5 == 3)
    spectrum = random_spectrum(d - nulls, rng, positive=number % 2 == 0, repeated=number % 7 == 6)
    return random_moments(spectrum, rng, nulls=nulls, mean=mean, commuting=commuting), k, decay


def closed(name: str) -> Iterator[tuple[int, Any, np.random.Generator]]:
    loss, level, options = CLOSED[name]
    bias, drawn = options.get("bias", False), {"mean": False, "commuting": False}
    drawn |= {key: options[key] for key in drawn if key in options}
    for number in range(PROBLEMS):
        rng = np.random.default_rng([number, len(name)])
        moments, k, decay = problem(number, rng, **drawn)
        yield number, getattr(loss, level)(moments, k, decay, bias), rng


# Losses without closed form: of several descents and flows the lowest ends are compared.
NUMERICAL: dict[str, tuple[pyssl.Loss, str, dict[str, Any]]] = {
    "InfoNCE sqeuclidean, 3 negatives": (
        infonce("sqeuclidean", "conditional", negatives=3),
        "effective",
        {},
    ),
    "InfoNCE dot, 3 negatives, mean": (
        infonce("dot", "conditional", negatives=3),
        "effective",
        {"mean": True},
    ),
    "InfoNCE dot conditional, mean": (infonce("dot", "conditional"), "population", {"mean": True}),
    "InfoNCE dot joint, mean": (infonce("dot", "joint"), "population", {"mean": True}),
    "Barlow Twins, redundancy 0.1": (
        pyssl.BarlowTwins(normalize=False, redundancy=0.1),
        "population",
        {},
    ),
    "Barlow Twins, redundancy 2": (
        pyssl.BarlowTwins(normalize=False, redundancy=2.0),
        "population",
        {},
    ),
    "Barlow Twins, normalised": (pyssl.BarlowTwins(redundancy=0.05), "population", {"free": True}),
    "VICReg": (pyssl.VICReg(invariance=5.0), "population", {}),
    "VICReg, bias": (pyssl.VICReg(10.0, 25.0, 3.0), "population", {"bias": True, "mean": True}),
    "NT-Xent, mean": (pyssl.NTXent(0.8), "effective", {"mean": True, "free": True}),
}
