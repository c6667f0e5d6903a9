"""Potentials against mpmath, tiny to huge amplitudes (theory 2 and 3.1)."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import mpmath as mp
import numpy as np
import pytest

import pyssl

EPS = np.finfo(float).eps

# r as a function of x = n/tau, written as in the table of theory 3.1
DEFINITIONS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("dot", "conditional"): lambda x: x**2 / 2,
    ("dot", "joint"): lambda x: -mp.log(1 - x**2) / 2,
    ("sqeuclidean", "conditional"): lambda x: (x - mp.log(1 + x)) / 2 + x**2 / (2 * (1 + x)),
    ("sqeuclidean", "joint"): lambda x: x - mp.log(1 + 2 * x) / 2,
}
FORMS = list(DEFINITIONS)
SQEUCLIDEAN = [form for form in FORMS if form[0] == "sqeuclidean"]
TEMPERATURES = [0.07, 1.0, 30.0]


@pytest.fixture(autouse=True)
def _many_digits() -> Any:
    with mp.workdps(500):  # n = 1e-100 leaves r(n) ~ 1e-200 of sums of order 1
        yield


def make(form: tuple[str, str], tau: float) -> pyssl.InfoNCEPotential:
    return pyssl.InfoNCEPotential(tau, *form)


def amplitudes(form: tuple[str, str], tau: float) -> np.ndarray:
    """Amplitudes n from tiny to huge, or up to the singularity of "dot, joint"."""
    x = np.logspace(-100, 100, 41)
    if form == ("dot", "joint"):
        x = np.concatenate([x[x < 1.0], 1.0 - np.logspace(-1, -15, 15)])
    return np.concatenate([x, [0.009999, 0.010001, 0.3, 0.97]]) * tau


def derivative(function: Callable[[Any], Any], n: float, order: int) -> Any:
    """Differentiate at n to hundreds of digits; in units of n, whose size may be anything."""
    return mp.diff(lambda u: function(n * u), 1, order) / mp.mpf(n) ** order


def assert_relative(actual: Any, expected: list[Any], rtol: float) -> None:
    for got, want in zip(np.atleast_1d(actual), expected, strict=True):
        assert abs(mp.mpf(float(got)) - want) <= rtol * abs(want), (float(got), float(want))


@pytest.mark.parametrize("tau", TEMPERATURES)
@pytest.mark.parametrize("form", FORMS)
def test_infonce_value_and_derivatives(form: tuple[str, str], tau: float) -> None:
    potential, n = make(form, tau), amplitudes(form, tau)
    if form == ("dot", "joint"):  # near the singularity n itself decides, to eps/(1 - x)
        n = n[n < 0.99 * tau]

    def r(m: Any) -> Any:
        return DEFINITIONS[form](m / mp.mpf(tau))

    assert_relative(potential.value(n), [r(mp.mpf(m)) for m in n], 1e-13)
    assert_relative(potential.slope(n), [derivative(r, m, 1) for m in n], 2e-14)
    assert_relative(potential.curvature(n), [derivative(r, m, 2) for m in n], 2e-13)


@pytest.mark.parametrize("form", FORMS)
def test_infonce_vanishes_at_zero_and_rises(form: tuple[str, str]) -> None:
    potential = make(form, 0.5)
    zero = np.zeros(1)
    assert potential.value(zero) == 0.0
    assert potential.slope(zero) == 0.0
    n = np.sort(amplitudes(form, 0.5))
    n = n[n < (0.5 if form == ("dot", "joint") else 1e6)]
    assert (np.diff(potential.slope(n)) > 0.0).all()


@pytest.mark.parametrize(("form", "q"), list(zip(FORMS, [0.5, 0.5, 0.75, 1.0], strict=True)))
def test_quartic_coefficient_of_the_table(form: tuple[str, str], q: float) -> None:
    tau = 0.4  # the column q = r''(0)/2 of theory 3.1
    np.testing.assert_allclose(0.5 * make(form, tau).curvature(np.zeros(1)), q / tau**2, rtol=1e-15)


@pytest.mark.parametrize("form", FORMS)
def test_infonce_slope_quotient(form: tuple[str, str]) -> None:
    tau = 0.7
    potential = make(form, tau)
    limit = 0.9 if form == ("dot", "joint") else 1e30
    points = [x * tau for x in (1e-80, 1e-9, 0.003, 0.5, 0.85, 40.0, 1e25) if x < limit]
    pairs = [(a, b) for a in points for b in points if a != b]
    pairs += [(a, a * (1 + gap)) for a in points for gap in (4 * EPS, 1e-12, 1e-7, 1e-3)]
    pairs += [(0.0, a) for a in points]

    def slope(n: Any) -> Any:
        return mp.diff(DEFINITIONS[form], mp.mpf(n) / mp.mpf(tau)) / tau

    exact = {a: slope(a) for pair in pairs for a in pair}
    expected = [(exact[a] - exact[b]) / (mp.mpf(a) - mp.mpf(b)) for a, b in pairs]
    a, b = np.array(pairs).T
    assert_relative(potential.slope_quotient(a, b), expected, 2e-14)


@pytest.mark.parametrize("tau", TEMPERATURES)
@pytest.mark.parametrize("form", FORMS)
def test_infonce_amplitude(form: tuple[str, str], tau: float) -> None:
    potential = make(form, tau)
    if form[0] == "sqeuclidean":
        # the deficit is what is exact near the limit; from 1e-200 of it to all of it
        share = np.concatenate([np.logspace(-200, -1, 80), np.linspace(0.15, 0.999999, 20)])
        deficit = share * potential.slope_limit
        slope = potential.slope_limit - deficit
        exact = [
            mp.mpf(s) if e > 0.5 / tau else 1 / mp.mpf(tau) - mp.mpf(e)
            for s, e in zip(slope, deficit, strict=True)
        ]
    else:
        slope = np.logspace(-200, 200, 81) / tau
        deficit = np.full(len(slope), math.inf)
        exact = [mp.mpf(s) for s in slope]

    def slope_of(n: Any) -> Any:
        x = n / mp.mpf(tau)
        scaled = {
            ("dot", "conditional"): lambda: x,
            ("dot", "joint"): lambda: x / (1 - x**2),
            ("sqeuclidean", "conditional"): lambda: x * (3 + 2 * x) / (2 * (1 + x) ** 2),
            ("sqeuclidean", "joint"): lambda: 2 * x / (1 + 2 * x),
        }[form]()
        return scaled / mp.mpf(tau)

    got = potential.amplitude(slope, deficit)
    assert np.isfinite(got).all()
    for n, lam in zip(got, exact, strict=True):
        # what rounding of n to either side by a few ulps brackets holds the exact root
        low, high = mp.mpf(n) * (1 - 8 * EPS), mp.mpf(n) * (1 + 8 * EPS)
        assert slope_of(low) < lam, (n, lam)
        assert slope_of(high) > lam or (form == ("dot", "joint") and high >= tau), (n, lam)


@pytest.mark.parametrize("form", SQEUCLIDEAN)
def test_value_of_a_mode_near_the_slope_limit(form: tuple[str, str]) -> None:
    # r(n) - lambda n: both terms grow like 1/deficit, their difference like its logarithm
    tau = 0.5
    potential = make(form, tau)
    for deficit in (1e-3, 1e-8, 1e-13, 1e-100, 1e-290):
        B, C = np.eye(1) / tau - deficit, np.array([[deficit]])
        n = float(potential.amplitude(np.array([B[0, 0]]), C[0])[0])
        exact = DEFINITIONS[form](mp.mpf(n) / tau) - (1 / mp.mpf(tau) - mp.mpf(deficit)) * n
        moments = pyssl.Moments(np.eye(1), np.eye(1))
        land = pyssl.InfoNCE(tau, *form).population(moments, 1, weight_decay=2 * deficit)
        minimum = land.minimum()
        assert minimum.attained
        np.testing.assert_allclose(minimum.amplitudes, n, rtol=1e-14)
        np.testing.assert_allclose(minimum.value, float(exact), rtol=1e-12)


def test_dot_joint_ends_at_its_singularity() -> None:
    potential = make(("dot", "joint"), 2.0)
    n = np.array([1.0, 2.0, 3.0])
    assert np.isfinite(potential.value(n)).tolist() == [True, False, False]
    assert (potential.value(n)[1:] == np.inf).all()
    assert np.isnan(potential.slope(n)).tolist() == [False, True, True]
    assert np.isnan(potential.curvature(n)).tolist() == [False, True, True]


def test_slope_limits() -> None:
    for form in FORMS:
        limit = 2.0 if form[0] == "sqeuclidean" else math.inf
        assert make(form, 0.5).slope_limit == limit
    assert pyssl.Quartic(3.0).slope_limit == math.inf


def test_quartic() -> None:
    potential, n = pyssl.Quartic(1.5), np.array([0.0, 1e-120, 2.0, 1e120])
    np.testing.assert_array_equal(potential.value(n), 1.5 * n * n)
    np.testing.assert_array_equal(potential.slope(n), 3.0 * n)
    np.testing.assert_array_equal(potential.curvature(n), 3.0)
    np.testing.assert_array_equal(potential.slope_quotient(n[:, None], n), np.full((4, 4), 3.0))
    np.testing.assert_allclose(potential.amplitude(3.0 * n, np.full(4, np.inf)), n, rtol=1e-15)


# ---- custom potentials --------------------------------------------------------------------------

CUSTOM: dict[str, tuple[tuple[Any, Any, Any], dict[str, float], Callable[[Any], Any]]] = {
    "sextic": (
        (lambda n: n**3 + n**2, lambda n: 3 * n**2 + 2 * n, lambda n: 6 * n + 2),
        {},
        lambda n: n**3 + n**2,
    ),
    "cubic": (  # r''(0) = 0
        (lambda n: n**3, lambda n: 3 * n * n, lambda n: 6 * n),
        {},
        lambda n: n**3,
    ),
    "rational": (
        (
            lambda n: n * n / (1 + n),
            lambda n: n * (2 + n) / (1 + n) ** 2,
            lambda n: 2 / (1 + n) ** 3,
        ),
        {"slope_limit": 1.0, "asymptote": -1.0},
        lambda n: n**2 / (1 + n),
    ),
    "barrier": (
        (lambda n: -math.log1p(-n) - n, lambda n: n / (1 - n), lambda n: 1 / (1 - n) ** 2),
        {"domain": 1.0},
        lambda n: -mp.log(1 - n) - n,
    ),
    "cosh": (
        (lambda n: 2 * math.sinh(n / 2) ** 2, lambda n: +math.sinh(n), lambda n: +math.cosh(n)),
        {},
        lambda n: mp.cosh(n) - 1,
    ),
}


@pytest.fixture(scope="module")
def custom() -> dict[str, pyssl.CustomPotential]:
    return {
        name: pyssl.CustomPotential(*functions, **options)
        for name, (functions, options, _) in CUSTOM.items()
    }


@pytest.mark.parametrize("name", CUSTOM)
def test_custom_amplitude(custom: dict[str, pyssl.CustomPotential], name: str) -> None:
    potential, definition = custom[name], CUSTOM[name][2]
    n = np.logspace(-6, 2, 30)
    n = n[n < 0.99 * potential.domain]
    with mp.workdps(60):
        slopes = np.array([float(mp.diff(definition, mp.mpf(m))) for m in n])
    got = potential.amplitude(slopes, potential.slope_limit - slopes)
    # rounding the slope alone moves n by r'/r'' eps
    condition = potential.slope(n) / (n * potential.curvature(n))
    np.testing.assert_array_less(np.abs(got / n - 1.0), 8 * EPS * (1.0 + condition))
    assert potential.amplitude(np.zeros(1), np.ones(1)) == 0.0


@pytest.mark.parametrize("name", CUSTOM)
def test_custom_slope_quotient(custom: dict[str, pyssl.CustomPotential], name: str) -> None:
    potential, definition = custom[name], CUSTOM[name][2]
    points = [m for m in (1e-6, 0.02, 0.4, 0.93, 7.0) if m < potential.domain]
    pairs = [(a, b) for a in points for b in points]
    pairs += [(a, a * (1 + gap)) for a in points for gap in (1e-15, 1e-9, 5e-6, 7e-6, 1e-4)]
    pairs += [(0.0, a) for a in points]
    a, b = np.array(pairs).T
    expected = []
    with mp.workdps(80):
        for one, other in pairs:
            if one == other:
                expected.append(mp.diff(definition, mp.mpf(one), 2))
            else:
                slopes = [mp.diff(definition, mp.mpf(m)) for m in (one, other)]
                expected.append((slopes[0] - slopes[1]) / (mp.mpf(one) - mp.mpf(other)))
    assert_relative(potential.slope_quotient(a, b), expected, 1e-10)


def test_custom_pickles() -> None:
    potential = pyssl.CustomPotential(_cube, _cube_slope, _cube_curvature)
    again = pickle.loads(pickle.dumps(potential))
    n = np.linspace(0.0, 2.0, 5)
    np.testing.assert_array_equal(again.value(n), n**3)
    np.testing.assert_array_equal(again.amplitude(3 * n**2, n), potential.amplitude(3 * n**2, n))


class _Opaque:
    def __init__(self, n: float) -> None:
        self.n = n


def _cube(n: float) -> float:
    return n**3


def _cube_slope(n: float) -> float:
    return 3 * n**2


def _cube_curvature(n: float) -> float:
    return 6 * n


@pytest.mark.parametrize(
    ("functions", "options", "message"),
    [
        ((lambda n: n * n + 1, lambda n: 2 * n, lambda n: 2.0), {}, "r must be 0 at n = 0"),
        ((lambda n: n * n + n, lambda n: 2 * n + 1, lambda n: 2.0), {}, "r_prime must be 0"),
        ((lambda n: -n * n, lambda n: -2 * n, lambda n: -2.0), {}, "strictly increasing"),
        ((lambda n: n * n, lambda n: 3 * n, lambda n: 3.0), {}, "r_prime must be the derivative"),
        ((lambda n: n * n, lambda n: 2 * n, lambda n: 2.5), {}, "r_second must be the derivative"),
        ((lambda n: n * n, lambda n: 2 * n, lambda n: 2.0), {"slope_limit": 0.0}, "slope_limit"),
        ((lambda n: n * n, lambda n: 2 * n, lambda n: 2.0), {"asymptote": 1.0}, "asymptote"),
        ((lambda n: n * n, lambda n: 2 * n, lambda n: 2.0), {"domain": -1.0}, "domain"),
    ],
)
def test_custom_rejects_what_is_no_potential(
    functions: Any, options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pyssl.CustomPotential(*functions, **options)


def test_custom_rejects_what_is_no_function() -> None:
    with pytest.raises(TypeError, match="r_prime must be a function"):
        pyssl.CustomPotential(lambda n: n * n, 3.0, lambda n: 2.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="r can't be compiled"):
        pyssl.CustomPotential(lambda n: _Opaque(n).n, lambda n: n, lambda n: 2.0)


@pytest.mark.parametrize("kind", [pyssl.Quartic, pyssl.InfoNCEPotential])
@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_parameters_are_checked(kind: Any, bad: float) -> None:
    with pytest.raises(ValueError, match=r"coefficient|temperature"):
        kind(bad)
    with pytest.raises(TypeError, match=r"coefficient|temperature"):
        kind("1")


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="similarity must be one of"):
        pyssl.InfoNCEPotential(1.0, "cosine")
    with pytest.raises(ValueError, match="partition must be one of"):
        pyssl.InfoNCEPotential(1.0, "dot", "both")
