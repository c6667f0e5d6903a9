"""Wells of deep models, mode by mode: against samples of the value, and as classify counts them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import pyssl
from pyssl.testing import commuting_moments

DEPTHS = (2, 3, 5)
depths = pytest.mark.parametrize("depth", DEPTHS)
SPECTRAL = pyssl.SpectralContrastive()
LOSSES = (
    SPECTRAL,
    pyssl.InfoNCE(0.6),
    pyssl.InfoNCE(0.6, partition="joint"),
    pyssl.InfoNCE(0.6, "dot"),
    pyssl.InfoNCE(0.6, "dot", "joint"),
    pyssl.BarlowTwins(1.0, normalize=False),
    pyssl.SquaredVICReg(1.3),
)
losses = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: repr(loss)[:60])


def seeded(*key: int) -> np.random.Generator:
    return np.random.default_rng([9, *key])


# ---- wells of one mode ---------------------------------------------------------------------------


def profile(land: pyssl.DeepLandscape, b: float, sigma: float, s: np.ndarray) -> np.ndarray:
    potential = land.landscape.potential.value(sigma * s * s)
    penalty = 0.5 * land.weight_decay * land.depth * s ** (2.0 / land.depth)
    return np.asarray(potential - b * s * s + penalty)


def stationary(values: np.ndarray) -> list[tuple[str, int]]:
    """Return the inner extrema of samples, as (kind, index)."""
    signs = np.sign(np.diff(values))
    where = np.flatnonzero(signs[:-1] * signs[1:] < 0) + 1
    return [("barrier" if signs[i - 1] > 0 else "well", int(i)) for i in where]


@losses
@pytest.mark.parametrize("depth", [2, 3, 7])
def test_wells_are_those_of_the_profile(loss: Any, depth: int) -> None:
    m = commuting_moments([0.9], [0.8])
    free = loss.population(m, 1, depth=depth)
    b, sigma = float(free.landscape.B[0, 0]), float(free.landscape.S[0, 0])
    table = free.wells()
    existence, critical = float(table.existence_decay[0]), float(table.critical_weight_decay[0])
    assert 0.0 < critical < existence
    for g in np.array([0.05, 0.5, 0.99]) * existence:
        land = loss.population(m, 1, weight_decay=g, depth=depth)
        found = land.wells()
        reach = 1.5 * float(found.singular_value[0])
        s = np.linspace(0.0, reach, 30_001)[1:]
        with np.errstate(divide="ignore", invalid="ignore"):
            f = profile(land, b, sigma, s)
        f = f[np.isfinite(f)]
        kinds = stationary(f)
        assert [kind for kind, _ in kinds] == ["barrier", "well"]
        (_, top), (_, bottom) = kinds
        spacing = reach / 30_000
        # where both are about to meet the bottom is flat, and samples are blunt
        assert found.singular_value[0] == pytest.approx(s[bottom], abs=3 * spacing)
        assert found.barrier_singular_value[0] == pytest.approx(s[top], abs=3 * spacing)
        assert found.value[0] == pytest.approx(f[bottom], rel=1e-6, abs=1e-8)
        assert found.barrier_height[0] == pytest.approx(f[top], rel=1e-4)
        assert found.amplitude[0] == pytest.approx(sigma * found.singular_value[0] ** 2)
        assert found.is_global[0] == (f[bottom] < 0.0) == (g < critical)
        at = [found.barrier_singular_value[0], found.singular_value[0]]
        expected = [found.barrier_height[0], found.value[0]]
        np.testing.assert_allclose(land.profile(at)[:, 0], expected, rtol=1e-9, atol=1e-13)
    beyond = loss.population(m, 1, weight_decay=1.01 * existence, depth=depth)
    s = np.linspace(0.0, 3.0, 30_001)[1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        f = profile(beyond, b, sigma, s)
    assert stationary(f[np.isfinite(f)]) == []
    assert not beyond.wells().exists[0]
    assert np.isnan(beyond.wells().value[0])
    level = loss.population(m, 1, weight_decay=critical, depth=depth).wells()
    assert abs(level.value[0]) < 1e-13 * level.barrier_height[0]


@depths
@pytest.mark.parametrize(("rho", "variance"), [(0.9, 1.0), (0.3, 2.5), (0.05, 0.1)])
def test_critical_decays_of_quartics_are_those_of_theory(
    depth: int, rho: float, variance: float
) -> None:
    m = commuting_moments([rho], [variance])
    table = SPECTRAL.population(m, 1, depth=depth).wells()
    b, big_q, e = 2.0 * rho * variance, variance**2, 2.0 / depth
    s = np.sqrt(b * (2 - e) / (2 * big_q * (4 - e)))
    existence = 2 * b * s ** (2 - e) - 4 * big_q * s ** (4 - e)
    assert table.existence_decay[0] == pytest.approx(existence, rel=1e-13)
    s = np.sqrt(b * (2 - e) / (big_q * (4 - e)))
    critical = 2 / depth * (b * s ** (2 - e) - big_q * s ** (4 - e))
    assert table.critical_weight_decay[0] == pytest.approx(critical, rel=1e-13)


@losses
def test_critical_decays_need_no_decay_in_force(loss: Any) -> None:
    m = commuting_moments([0.9, 0.5, 0.2], [1.0, 0.5, 2.0], seeded(1))
    tables = [loss.population(m, 3, weight_decay=g, depth=3).wells() for g in (0.0, 0.03, 10.0)]
    for name in ("existence_decay", "critical_weight_decay"):
        columns = [np.sort(getattr(table, name)) for table in tables]
        for column in columns[1:]:
            np.testing.assert_allclose(column, columns[0], rtol=1e-12)


@losses
def test_the_transition_is_of_first_order(loss: Any) -> None:
    m = commuting_moments([0.9], [0.8])
    shallow = loss.population(m, 1)
    critical = pyssl.classify(shallow).critical_weight_decay[0]
    nearly = loss.population(m, 1, weight_decay=critical * (1 - 1e-6)).minimum().amplitudes[0]
    free = shallow.minimum().amplitudes[0]
    assert 0.0 < nearly < 1e-5 * free  # one layer: continuous
    deep = loss.population(m, 1, depth=2)
    critical = deep.wells().critical_weight_decay[0]
    before, after = (
        loss.population(m, 1, weight_decay=critical * factor, depth=2).minimum()
        for factor in (1 - 1e-6, 1 + 1e-6)
    )
    assert before.amplitudes[0] > 0.1 * free
    assert (before.rank, after.rank, after.amplitudes[0]) == (1, 0, 0.0)
    assert before.value == pytest.approx(after.value, abs=1e-5)


def test_a_mode_without_augmentation_has_a_well_under_any_decay() -> None:
    m = commuting_moments([1.0, 0.5], [1.0, 1.0])
    for g in (1e-6, 1e-3, 0.1):
        land = pyssl.InfoNCE(0.7).population(m, 2, weight_decay=g, depth=2)
        minimum = land.minimum()
        assert minimum.attained
        pulls = 2.0 * minimum.weights @ land.landscape.B  # the gradient is rounding beside these
        assert np.abs(land.gradient(minimum.weights)).max() < 1e-15 * np.abs(pulls).max()
    free = pyssl.InfoNCE(0.7).population(m, 2, depth=2)
    assert not free.minimum().attained
    assert free.wells().amplitude[0] == np.inf


def test_a_well_of_a_weak_mode_keeps_its_digits() -> None:
    # one mode scaled by t: lambda = 2 t, n = t n_1, g = t^(3/2) g_1
    t = 1e-9
    one, other = (
        SPECTRAL.population(commuting_moments([x], [1.0]), 1, 0.3 * x**1.5, depth=2).wells()
        for x in (0.5, 0.5 * t)
    )
    for name in ("amplitude", "barrier_amplitude"):
        assert getattr(other, name)[0] == pytest.approx(t * getattr(one, name)[0], rel=1e-12)
    assert other.value[0] == pytest.approx(t**2 * one.value[0], rel=1e-11)


@depths
def test_modes_of_any_scale_are_solved(depth: int) -> None:
    for scale in (1e-12, 1.0, 1e12):
        m = commuting_moments([0.9, 0.15], [scale, 2.0 * scale])
        for loss in (SPECTRAL, pyssl.InfoNCE(), LOSSES[5]):
            critical = loss.population(m, 2, depth=50 * depth).wells().critical_weight_decay.min()
            for factor in (1e-9, 0.999):
                land = loss.population(m, 2, weight_decay=factor * critical, depth=50 * depth)
                minimum = land.minimum()
                pulls = 2.0 * minimum.weights @ land.landscape.B
                assert minimum.rank == 2
                gradient = np.abs(land.gradient(minimum.weights)).max()
                assert gradient < 1e-12 * np.abs(pulls).max()


# ---- what classify makes of them -----------------------------------------------------------------


def test_classification_counts_wells() -> None:
    m = commuting_moments(
        [0.9, 0.6, 0.5, 0.3, 0.0, 0.7], [1.0, 1.0, 1.0, 1.0, 1.0, 0.0], seeded(22)
    )
    critical = SPECTRAL.population(m, 2, depth=2).wells().critical_weight_decay
    g = 0.5 * (critical[2] + critical[3])
    land = SPECTRAL.population(m, 2, weight_decay=float(g), depth=2)
    report = pyssl.classify(land)
    assert [str(cause) for cause in report.modes.cause] == [
        *("learned", "learned", "capacity", "decay", "augmentation", "no variation"),
    ]
    assert (report.kind, report.rank, report.capacity) == (pyssl.Collapse.NONE, 2, 2)
    np.testing.assert_allclose(report.critical_weight_decay, critical, rtol=1e-12, atol=1e-14)
    assert report.minimum.value == land.minimum().value
    table = report.modes
    learned = slice(0, 3)
    # at its well a mode has r'(n) left of lambda, r = n^2
    np.testing.assert_allclose(table.eigenvalue[learned], 2.0 * land.wells().amplitude[learned])
    left = table.signal - table.augmentation - table.decay
    np.testing.assert_allclose(table.eigenvalue[learned], left[learned], rtol=1e-12)
    np.testing.assert_allclose(table.alignment[learned], [0.9, 0.6, 0.5], rtol=1e-12)
    assert any("origin is a local minimum" in note for note in report.notes)
    assert "SpectralContrastive" in str(report)
    roomy = pyssl.classify(SPECTRAL.population(m, 6, weight_decay=float(g), depth=2))
    assert (roomy.kind, roomy.rank) == (pyssl.Collapse.DIMENSIONAL, 3)
    lost = pyssl.classify(SPECTRAL.population(m, 6, weight_decay=9.0, depth=2))
    assert (lost.kind, lost.rank) == (pyssl.Collapse.COMPLETE, 0)


def test_a_metastable_mode_is_noted() -> None:
    m = commuting_moments([0.9], [1.0])
    table = SPECTRAL.population(m, 1, depth=3).wells()
    between = 0.5 * float(table.existence_decay[0] + table.critical_weight_decay[0])
    land = SPECTRAL.population(m, 1, weight_decay=between, depth=3)
    assert land.wells().metastable.tolist() == [True]
    assert repr(land.wells()).endswith("metastable")
    report = pyssl.classify(land)
    assert report.kind is pyssl.Collapse.COMPLETE
    assert any("1 mode(s) lost to decay still have a well" in note for note in report.notes)


def test_a_decay_within_rounding_of_the_critical_one_warns() -> None:
    m = commuting_moments([0.9, 0.5], [1.0, 0.8], seeded(23))
    critical = float(SPECTRAL.population(m, 2, depth=2).wells().critical_weight_decay[1])
    with pytest.warns(pyssl.ThresholdWarning, match="could as well be 2 instead of 1") as caught:
        pyssl.classify(SPECTRAL.population(m, 2, weight_decay=critical, depth=2))
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pyssl.classify(SPECTRAL.population(m, 2, weight_decay=critical * (1 + 1e-12), depth=2))
        pyssl.classify(SPECTRAL.population(m, 1, weight_decay=critical, depth=2))  # no room anyway


# ---- potentials of one's own ---------------------------------------------------------------------


class _Square(pyssl.Potential):
    """n^2/2 by methods that know nothing of `Quartic`, which has closed forms."""

    def value(self, n):
        return 0.5 * n * n

    def slope(self, n):
        return n

    def curvature(self, n):
        return np.ones_like(n)

    def amplitude(self, slope, deficit):
        return slope


def test_a_landscape_of_ones_own() -> None:
    quartic = pyssl.SpectralLandscape(np.diag([2.0, 1.0]), np.eye(2), pyssl.Quartic(0.5), 2)
    custom = _Square()
    own = pyssl.SpectralLandscape(np.diag([2.0, 1.0]), np.eye(2), custom, 2)
    one, other = (pyssl.DeepLandscape(land, 3, weight_decay=0.4) for land in (quartic, own))
    for name in ("amplitude", "value", "barrier_amplitude", "existence_decay"):
        np.testing.assert_allclose(
            getattr(other.wells(), name), getattr(one.wells(), name), rtol=1e-10
        )
    assert other.minimum().value == pytest.approx(one.minimum().value, rel=1e-12)
    assert pyssl.classify(other).rank == pyssl.classify(one).rank == 1
    assert other.loss is None
    assert other.moments is None


class _Steep(_Square):
    """r'(n) = 0.02 n and a step from 0 to 2 at n = 2: two maxima of (lambda - r') sqrt n."""

    def slope(self, n):
        return 0.02 * n + 1.0 + np.tanh(10.0 * (n - 2.0))

    def curvature(self, n):
        return 0.02 + 10.0 / np.cosh(np.minimum(np.abs(10.0 * (n - 2.0)), 300.0)) ** 2

    def amplitude(self, slope, deficit):
        low, high = np.zeros_like(slope), np.full_like(slope, 200.0)
        for _ in range(60):
            middle = 0.5 * (low + high)
            below = self.slope(middle) < slope
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return low


def test_a_potential_with_several_wells_is_refused() -> None:
    land = pyssl.SpectralLandscape(3 * np.eye(1), np.eye(1), _Steep(), 1)
    deep = pyssl.DeepLandscape(land, 2, weight_decay=0.5)
    for call in (deep.wells, deep.minimum):
        with pytest.raises(NotImplementedError, match=r"more than one well.*lambda = 3"):
            call()
    assert np.isfinite(deep.value([[0.5]]))
