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
    "NT-Xent": (pyssl.NTXent(0.8), "effective", {"free": True}),
    "NT-Xent, bias": (pyssl.NTXent(0.8), "effective", {"bias": True, "free": True}),
}


def problem(
    number: int, rng: np.random.Generator, largest: int, *, mean: bool, commuting: bool
) -> tuple[pyssl.Moments, int, float]:
    """Draw moments, k below, at and above d, and a decay: null spaces, ties, samples."""
    d = int(rng.integers(2, largest + 1))
    k = (int(rng.integers(1, d)), d, d + int(rng.integers(1, 3)))[number % 3]
    decay = 0.0 if number % 4 == 0 else float(rng.uniform(0.01, 0.3))
    if number % 5 == 4 and not commuting:
        # as few pairs as leave the sample cross-covariance indefinite
        population = random_moments(np.abs(random_spectrum(d, rng)), rng, mean=mean)
        moments = pyssl.Moments.from_views(*gaussian_views(population, 4 * d, rng))
        return (moments if mean else moments.centered()), k, decay
    nulls = int(d > 2 and number % 5 == 3)
    spectrum = random_spectrum(d - nulls, rng, positive=number % 2 == 0, repeated=number % 7 == 6)
    return random_moments(spectrum, rng, nulls=nulls, mean=mean, commuting=commuting), k, decay


def landscapes(
    loss: pyssl.Loss, level: str, options: dict[str, Any], largest: int
) -> Iterator[tuple[int, Any, np.random.Generator]]:
    bias, free = options.get("bias", False), options.get("free", False)
    drawn = {key: options.get(key, False) for key in ("mean", "commuting")}
    for number in range(PROBLEMS):
        rng = np.random.default_rng([number, 11])
        moments, k, decay = problem(number, rng, largest, **drawn)
        yield number, getattr(loss, level)(moments, k, 0.0 if free else decay, bias), rng


def action(land: Any, W: Array) -> Array:
    """Return S W'W S, or for scale-free landscapes its share of the trace: what is no gauge."""
    S = land.S if isinstance(land, pyssl.SpectralLandscape) else land.moments.covariance
    embedded = W[:, : len(S)] @ S
    result = embedded.T @ embedded
    if getattr(land, "scale_free", False):
        result /= np.trace(W[:, : len(S)] @ embedded.T)
    return result


def gain(land: Any, value: float) -> float:
    """Return what a value is relative to: its distance to the origin's, where there is one."""
    free = getattr(land, "scale_free", False)
    return max(abs(value - (0.0 if free else float(land.value(np.zeros(land.shape))))), 1e-6)


@pytest.mark.parametrize("name", CLOSED)
def test_closed_form_descent_and_flow_agree(name: str) -> None:
    met = 0
    for number, land, rng in landscapes(*CLOSED[name], largest=8):
        if not hasattr(land, "minimum"):  # too few dimensions for modes that cross (theory 3.1)
            continue
        minimum, case = land.minimum(), f"problem {number}: {land!r}"
        # small: a constant that the bias puts into a free unit would keep a mode out (theory 4)
        start = 1e-3 * rng.standard_normal(land.shape)
        found = pyssl.minimize(land, start, closed_form=False)
        flow = pyssl.gradient_flow(land, start, [0.0, np.inf], rtol=1e-6)
        assert minimum.attained and found.converged and found.index == 0, case
        assert not found.closed_form and flow.outcome == "converged", case
        expected = action(land, minimum.weights)
        for value, W in ((found.value, found.weights), (flow.values[-1], flow.weights[-1])):
            scale = gain(land, minimum.value)
            np.testing.assert_allclose(
                value, minimum.value, rtol=0, atol=1e-6 * scale, err_msg=case
            )
            if not minimum.degenerate:
                size = max(float(np.abs(expected).max()), 1e-3)
                np.testing.assert_allclose(
                    action(land, W), expected, atol=1e-5 * size, err_msg=case
                )
        met += 1
    assert met >= 0.8 * PROBLEMS


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


@pytest.mark.parametrize("name", NUMERICAL)
def test_descent_and_flow_agree(name: str) -> None:
    for number, land, rng in landscapes(*NUMERICAL[name], largest=4):
        found = pyssl.minimize(land, rng=number, closed_form=False)
        case = f"problem {number}: {land!r}"
        assert found.converged and found.index == 0, case
        # there are several local minima: the flow starts beside the one that was found
        size = max(float(np.abs(found.weights).max()), 1e-2)
        start = found.weights + 0.05 * size * rng.standard_normal(land.shape)
        flow = pyssl.gradient_flow(land, start, [0.0, np.inf], rtol=1e-6)
        assert flow.outcome in ("converged", "stationary start"), case
        scale = gain(land, found.value)
        np.testing.assert_allclose(
            flow.values[-1], found.value, rtol=0, atol=1e-6 * scale, err_msg=case
        )
