"""One minimum, three ways: by closed form, by descent, and as the limit of gradient flow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import pyssl
from pyssl.testing import gaussian_views, random_moments, random_spectrum

Array = np.ndarray

PROBLEMS = 50  # of every loss; of its variants with a bias half as many
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
    "InfoNCE sqeuclidean, mean and bias": (
        infonce("sqeuclidean", "conditional"),
        "population",
        {"mean": True, "bias": True},
    ),
    "Barlow Twins, mean and bias": (BARLOW, "population", {"mean": True, "bias": True}),
    "SquaredVICReg": (pyssl.SquaredVICReg(1.5), "population", {}),
    "SquaredVICReg, bias": (pyssl.SquaredVICReg(0.5), "effective", {"bias": True, "mean": True}),
    "NT-Xent": (pyssl.NTXent(0.8), "effective", {"free": True}),
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


def problems(options: dict[str, Any]) -> int:
    return PROBLEMS // 2 if options.get("bias", False) else PROBLEMS


def landscapes(
    loss: pyssl.Loss, level: str, options: dict[str, Any], largest: int
) -> Iterator[tuple[int, Any, np.random.Generator]]:
    bias, free = options.get("bias", False), options.get("free", False)
    drawn = {key: options.get(key, False) for key in ("mean", "commuting")}
    for number in range(problems(options)):
        rng = np.random.default_rng([number, 11])
        moments, k, decay = problem(number, rng, largest, **drawn)
        k = max(k, options.get("least", 1))
        yield number, getattr(loss, level)(moments, k, 0.0 if free else decay, bias), rng


def action(land: Any, W: Array) -> Array:
    """Return S W'W S, or for scale-free landscapes its share of the trace: what is no gauge."""
    S = land.S if isinstance(land, pyssl.SpectralLandscape) else land.moments.covariance
    embedded = W[:, : len(S)] @ S
    result = embedded.T @ embedded
    if getattr(land, "scale_free", False):
        result /= np.trace(W[:, : len(S)] @ embedded.T) + np.sum(W[:, len(S) :] ** 2)
    return result


def gain(land: Any, value: float) -> float:
    """Return what a value is relative to: its distance to the origin's, where there is one."""
    free = getattr(land, "scale_free", False)
    return max(abs(value - (0.0 if free else float(land.value(np.zeros(land.shape))))), 1e-6)


@pytest.mark.parametrize("name", CLOSED)
def test_closed_form_descent_and_flow_agree(name: str) -> None:
    met = 0
    for number, land, rng in landscapes(*CLOSED[name], largest=5):
        if not hasattr(land, "minimum"):  # too few dimensions for modes that cross (theory 3.1)
            continue
        minimum, case = land.minimum(), f"problem {number}: {land!r}"
        # small: a constant that the bias puts into a free unit would keep a mode out (theory 4)
        start = 1e-3 * rng.standard_normal(land.shape)
        found = pyssl.minimize(land, start, closed_form=False)
        states: list[pyssl.FlowState] = []
        flow = pyssl.gradient_flow(land, start, [0.0, np.inf], rtol=1e-6, callback=states.append)
        assert minimum.attained and found.converged and found.index == 0, case
        assert not found.closed_form and flow.outcome == "converged", case
        values = [state.value for state in states]
        assert (np.diff(values) <= 1e-9 * (abs(values[0]) + abs(values[-1]))).all(), case
        expected = action(land, minimum.weights)
        for value, W in ((found.value, found.weights), (flow.values[-1], flow.weights[-1])):
            scale = gain(land, minimum.value)
            np.testing.assert_allclose(
                value, minimum.value, rtol=0, atol=1e-6 * scale, err_msg=case
            )
            if not minimum.degenerate:
                free = getattr(land, "scale_free", False)
                size = 1.0 if free else max(float(np.abs(expected).max()), 1e-3)
                np.testing.assert_allclose(
                    action(land, W), expected, atol=1e-4 * size, err_msg=case
                )
        met += 1
    assert met >= 0.8 * problems(CLOSED[name][2])


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
    "Barlow Twins, normalised, mean and bias": (
        pyssl.BarlowTwins(redundancy=0.5),
        "population",
        {"free": True, "mean": True, "bias": True},
    ),
    "VICReg": (pyssl.VICReg(invariance=5.0), "population", {}),
    "VICReg, bias": (pyssl.VICReg(10.0, 25.0, 3.0), "population", {"bias": True, "mean": True}),
    "NT-Xent, bias": (pyssl.NTXent(0.8), "effective", {"bias": True, "free": True, "least": 2}),
    "NT-Xent, mean": (pyssl.NTXent(0.8), "effective", {"mean": True, "free": True}),
}


@pytest.mark.parametrize("name", NUMERICAL)
def test_descent_and_flow_agree(name: str) -> None:
    for number, land, rng in landscapes(*NUMERICAL[name], largest=3):
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


def test_a_constant_in_a_free_unit_keeps_a_mode_out() -> None:
    # InfoNCE dot with a bias: beyond |m|^2 = tau^2 lambda the last mode has no way to grow
    moments = pyssl.Moments(np.eye(2), np.diag([0.8, 0.1]))
    land = infonce("dot", "conditional").population(moments, 2, bias=True)
    start = np.array([[0.3, 0.0, 0.0], [0.0, 1e-3, 0.5]])
    flow = pyssl.gradient_flow(land, start, [0.0, np.inf])
    assert flow.outcome == "converged"
    minimum = land.minimum()
    learned = minimum.value + land.eigenvalues[1] ** 2 / (4.0 * 2.0)
    assert flow.values[-1] == pytest.approx(learned, rel=1e-6)
    small = pyssl.gradient_flow(land, 1e-2 * start, [0.0, np.inf])
    assert small.values[-1] == pytest.approx(minimum.value, rel=1e-6)


# ---- ends that are no minimum --------------------------------------------------------------------


def unbounded() -> Any:
    return pyssl.SpectralLandscape(np.diag([1.0, 0.5]), np.diag([1.0, 0.0]), pyssl.Quartic(1.0), 2)


def unaugmented(similarity: str = "sqeuclidean") -> Any:
    moments = pyssl.Moments(np.eye(2), np.diag([1.0, 0.5]))
    return pyssl.InfoNCE(similarity=similarity).population(moments, 2)


def unaugmented_batch() -> Any:
    x = np.random.default_rng(0).standard_normal((30, 2))
    return pyssl.InfoNCE().empirical(x, x, 2)


def shrinking() -> Any:
    moments = random_moments([0.75, 0.5], np.random.default_rng(0))
    return pyssl.BarlowTwins().population(moments, 2, 0.1)


def shrinking_ntxent() -> Any:
    moments = random_moments([0.75, 0.5], np.random.default_rng(0))
    return pyssl.NTXent().effective(moments, 2, 0.1)


@pytest.mark.parametrize(
    ("make", "outcome", "note"),
    [
        (unbounded, pyssl.Outcome.UNBOUNDED, "unbounded below"),
        (unaugmented, pyssl.Outcome.NO_MINIMISER, "no minimiser exists"),
        (unaugmented_batch, pyssl.Outcome.NO_MINIMISER, "found no minimum"),
        (shrinking, pyssl.Outcome.SCALE_FREE, "no minimiser exists"),
        (shrinking_ntxent, pyssl.Outcome.SCALE_FREE, "no minimiser exists"),
    ],
)
def test_without_minimum(make: Callable[[], Any], outcome: pyssl.Outcome, note: str) -> None:
    land = make()
    for closed_form in (True, False):
        result = pyssl.minimize(land, closed_form=closed_form)
        assert result.outcome is outcome and not result.attained
    start = 0.1 * np.random.default_rng(0).standard_normal(land.shape)
    flow = pyssl.gradient_flow(land, start, [0.0, np.inf])
    assert flow.outcome == "diverged" and np.isnan(flow.weights[-1]).all()
    report = pyssl.classify(land)
    assert not report.minimum.attained
    assert any(note in text for text in report.notes)


@pytest.mark.parametrize("name", sorted(CLOSED | NUMERICAL))
def test_nothing_to_learn(name: str) -> None:
    loss, level, options = (CLOSED | NUMERICAL)[name]
    zero, bias = pyssl.Moments(*np.zeros((2, 3, 3))), options.get("bias", False)
    if loss.scale_free or options.get("free"):
        with pytest.raises(ValueError, match="must have varia"):
            pyssl.minimize(getattr(loss, level)(zero, 4, 0.1, bias), closed_form=False)
        return
    land = getattr(loss, level)(zero, 4, 0.1, bias)
    start = 0.1 * np.random.default_rng(0).standard_normal(land.shape)
    found, flow = (
        pyssl.minimize(land, closed_form=False),
        pyssl.gradient_flow(land, start, [np.inf]),
    )
    assert found.converged and found.index == 0 and flow.outcome == "converged"
    for W in (found.weights, flow.weights[-1]):
        assert np.abs(W[:, :3]).max() < 1e-6
    report = pyssl.classify(land)
    constant = int(bias and loss.keeps_constant)
    assert report.rank == report.capacity == constant
    assert all(cause == pyssl.Cause.NO_VARIATION for cause in report.modes.cause[constant:])


@pytest.mark.parametrize("name", sorted(CLOSED | NUMERICAL))
def test_starts_at_the_origin(name: str) -> None:
    loss, level, options = (CLOSED | NUMERICAL)[name]
    moments = random_moments([0.875, 0.625], np.random.default_rng(0), commuting=True)
    land = getattr(loss, level)(moments, 3, 0.01, options.get("bias", False))
    origin = np.zeros(land.shape)
    if land.scale_free if hasattr(land, "scale_free") else False:
        with pytest.raises(ValueError, match="start must not be 0"):
            pyssl.minimize(land, origin, closed_form=False)
        return
    # a saddle: descent leaves it, a flow stays and says so
    found = pyssl.minimize(land, origin, closed_form=False)
    assert found.converged and found.index == 0
    assert found.value < land.value(origin) - 1e-3
    assert pyssl.gradient_flow(land, origin, [np.inf]).outcome == "stationary start"
