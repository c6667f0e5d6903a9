"""Which modes to let collapse: the choice, the settings that make it, and simulation (theory 8)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import pyssl
from pyssl import _collapse_search
from pyssl._probe import Probe, simulated_risk
from pyssl.testing import gaussian_views

LOSSES = [
    pyssl.SpectralContrastive(),
    pyssl.InfoNCE(0.5),
    pyssl.BarlowTwins(1.0, normalize=False),
    pyssl.SquaredVICReg(1.5),
]


def random_problem(seed, d=6):
    """Return moments whose augmentation does not commute with the signal, and a target."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    cross = (basis * np.geomspace(1.0, 0.05, d)) @ basis.T
    root = rng.standard_normal((d, 2 * d)) / np.sqrt(2 * d)
    moments = pyssl.Moments(cross + 0.2 * root @ root.T, cross)
    return moments, basis @ (rng.standard_normal(d) * (rng.random(d) < 0.5))


def diagonal(a, c=None):
    a = np.asarray(a, dtype=float)
    c = 1.0 - a if c is None else np.asarray(c)
    return pyssl.Moments(np.diag(a + c), np.diag(a))


def weights_of(loss, moments, k, g=0.0):
    return loss.population(moments, k, weight_decay=g).minimum().weights


# ---- the choice ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_the_choice_is_the_best_of_all_subsets(loss, seed):
    moments, beta = random_problem(seed)
    n, noise = [4, 8, 30][seed % 3], [0.1, 2.0][seed % 2]
    found = pyssl.helpful_collapse(moments, beta, n, loss=loss, noise=noise)
    assert found.exhaustive
    minimum = loss.population(moments, 6).minimum()
    modes = range(minimum.rank)
    subsets = [s for size in range(7) for s in itertools.combinations(modes, size)]
    rows = np.array([np.isin(np.arange(6), subset) for subset in subsets])
    problem = moments.cross_covariance, beta, n, noise
    tried = pyssl.downstream_risk(rows[:, :, None] * minimum.weights, *problem, "optimal")
    risks = dict(zip(subsets, tried.tolist(), strict=True))
    assert found.risk == pytest.approx(min(risks.values()), rel=1e-9)
    assert found.risk == pytest.approx(risks[found.kept], rel=1e-12)
    assert found.risk_of_everything == pytest.approx(risks[tuple(modes)], rel=1e-12)
    assert sorted(found.kept + found.dropped) == list(modes)
    assert found.helps == bool(found.dropped)
    W = minimum.weights
    kept = W * np.isin(np.arange(6), found.kept)[:, None]
    given = pyssl.downstream_risk(kept, *problem, found.ridge)
    assert given == pytest.approx(found.risk, rel=1e-9)
    given = pyssl.downstream_risk(W, *problem, found.ridge_of_everything)
    assert given == pytest.approx(found.risk_of_everything, rel=1e-9)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("seed", range(8))
def test_never_worse_than_keeping_everything(loss, seed):
    rng = np.random.default_rng(seed)
    moments, beta = random_problem(seed, d=5)
    if seed % 2:
        moments = pyssl.Moments.from_views(*gaussian_views(moments, 60, rng))
    k = [5, 3, 2, 9][seed % 4]
    found = pyssl.helpful_collapse(
        moments, beta, int(rng.integers(1, 20)), loss=loss, embedding_dim=k, noise=0.5
    )
    assert found.risk <= found.risk_of_everything
    # without a weight decay everything is kept
    assert found.best_weight_decay.risk <= found.risk_of_everything * (1.0 + 1e-12)
    strength = found.best_augmentation_strength
    assert (strength is None) == (loss != pyssl.SquaredVICReg(1.5))
    if strength is not None:
        assert strength.risk <= found.risk_of_everything * (1.0 + 1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_the_descent_finds_what_trying_everything_finds(seed, monkeypatch):
    moments, beta = random_problem(seed, d=8)
    arguments = (moments, beta, [5, 9, 20][seed % 3])
    everything = pyssl.helpful_collapse(*arguments, noise=1.0)
    monkeypatch.setattr(_collapse_search, "_MOST_ENUMERATED", 0)
    descended = pyssl.helpful_collapse(*arguments, noise=1.0)
    assert everything.exhaustive and not descended.exhaustive
    assert "too many modes to try all subsets" in descended.notes[0]
    assert everything.risk <= descended.risk <= everything.risk * 1.01
    assert descended.risk <= everything.risk_of_everything


def test_the_descent_begins_from_nothing_too(monkeypatch):
    # from all modes, and from those that settings leave, it ends 3% above the best
    rng = np.random.default_rng(192)
    spectrum = np.exp(-rng.random(8))
    beta = rng.standard_normal(8) * (rng.random(8) < 0.5)
    factor = rng.standard_normal((8, 8))
    moments = pyssl.Moments(np.diag(spectrum) + factor @ factor.T / 16, np.diag(spectrum))
    everything = pyssl.helpful_collapse(moments, beta, 5, noise=0.1)
    monkeypatch.setattr(_collapse_search, "_MOST_ENUMERATED", 0)
    descended = pyssl.helpful_collapse(moments, beta, 5, noise=0.1)
    assert descended.kept == everything.kept == (1, 2, 6, 7)


def test_there_is_no_general_sign():
    moments = diagonal([0.9, 0.5, 0.1])
    # the target in the strong mode: the others are noise to it
    strong = pyssl.helpful_collapse(moments, [1.0, 0.0, 0.0], 20, noise=1.0)
    assert strong.kept == (0,) and strong.helps
    # in all, with samples enough: nothing to drop
    spread = pyssl.helpful_collapse(moments, [1.0, 1.0, 1.0], 1000, noise=0.1)
    assert spread.dropped == () and not spread.helps
    assert spread.risk == spread.risk_of_everything
    # in the weak mode: collapse would take just what is needed
    weak = pyssl.helpful_collapse(moments, [0.0, 0.0, 1.0], 20, noise=1.0)
    assert weak.kept == (2,)
    assert weak.weight_decay is None
    assert weak.best_weight_decay.value == 0.0
    assert all(one.risk >= weak.risk_of_everything for one in weak.weight_decays)


def test_a_target_of_nothing_is_no_reason_to_drop():
    found = pyssl.helpful_collapse(diagonal([0.9, 0.5]), [0.0, 0.0], 20, noise=1.0)
    assert found.dropped == ()
    assert found.risk == 1.0
    assert found.ridge == np.inf
    assert not found.target_shares.any()


# ---- weight decay --------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [*LOSSES[:3], pyssl.SquaredVICReg(1.05)], ids=repr)
def test_a_tail_has_an_interval_of_weight_decays(loss):
    moments = diagonal([0.9, 0.6, 0.3, 0.1])
    found = pyssl.helpful_collapse(moments, [1.0, 1.0, 0.0, 0.0], 15, loss=loss, noise=2.0)
    assert found.kept == (0, 1)
    critical = pyssl.classify(loss.population(moments, 4)).critical_weight_decay
    np.testing.assert_allclose(found.critical_weight_decays, critical, rtol=1e-12)
    setting = found.weight_decay
    assert setting.interval == pytest.approx((critical[2], critical[1]), rel=1e-12)
    low, high = setting.interval
    assert low < setting.value < high
    assert setting.overlap == pytest.approx(1.0)
    W = weights_of(loss, moments, 4, setting.value)
    assert np.count_nonzero(np.abs(W).max(axis=0) > 0.0) == 2
    given = pyssl.downstream_risk(
        W, moments.cross_covariance, [1.0, 1.0, 0.0, 0.0], 15, 2.0, setting.ridge
    )
    assert given == pytest.approx(setting.risk, rel=1e-9)
    assert setting.risk < found.risk_of_everything
    for g in np.linspace(low, high, 12)[1:-1]:  # none in the interval is better
        W = weights_of(loss, moments, 4, g)
        risk = pyssl.downstream_risk(
            W, moments.cross_covariance, [1.0, 1.0, 0.0, 0.0], 15, 2.0, "optimal"
        )
        assert risk >= setting.risk * (1.0 - 1e-4)


def test_decay_takes_modes_by_their_own_order():
    # the weak input is the better aligned one: first in the table, and the first to die
    moments = pyssl.Moments(np.diag([4.0, 0.25]), np.diag([2.0, 0.2]))
    loss = pyssl.SpectralContrastive()
    first = pyssl.helpful_collapse(moments, [0.0, 1.0], 10, noise=1.0)
    np.testing.assert_allclose(first.alignments, [0.8, 0.5])
    assert first.kept == (0,)
    assert first.weight_decay is None
    second = pyssl.helpful_collapse(moments, [1.0, 0.0], 10, noise=1.0)
    assert second.kept == (1,)
    assert second.weight_decay.interval == pytest.approx((0.8, 8.0))
    W = weights_of(loss, moments, 2, second.weight_decay.value)
    assert (np.abs(W).max(axis=0) > 0.0).tolist() == [True, False]


def test_tied_modes_are_those_that_decay_takes_singly():
    # equal alignments in a basis that no eigensolver finds by chance, the variances differ
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    cross = (basis * [2.0, 0.5, 0.1]) @ basis.T
    found = pyssl.helpful_collapse(pyssl.Moments(2.0 * cross, cross), basis[:, 0], 10, noise=1.0)
    np.testing.assert_allclose(found.alignments, 0.5)
    np.testing.assert_allclose(found.critical_weight_decays, [8.0, 2.0, 0.4])
    np.testing.assert_allclose(found.target_shares, [1.0, 0.0, 0.0], atol=1e-12)
    assert found.kept == (0,)
    assert found.weight_decay.interval == pytest.approx((2.0, 8.0))
    assert found.weight_decay.overlap == pytest.approx(1.0)


def test_thresholds_that_tie_are_one():
    rng = np.random.default_rng(0)
    frame, _ = np.linalg.qr(rng.standard_normal((5, 5)))
    A = frame @ frame.T  # the identity, but for rounding
    factor = rng.standard_normal((5, 5))
    moments = pyssl.Moments(A + factor @ factor.T / 5, A)
    found = pyssl.helpful_collapse(moments, rng.standard_normal(5), 4, noise=10.0)
    nothing, everything = found.weight_decays
    assert (nothing.kept, everything.kept) == ((), (0, 1, 2, 3, 4))
    assert nothing.interval == pytest.approx((4.0, np.inf))
    assert everything.interval == pytest.approx((0.0, 4.0))


def test_no_decay_is_tried_however_weak_a_mode():
    moments = pyssl.Moments(np.diag([2.0, 1e-13]), np.diag([1.0, 1e-14]))
    found = pyssl.helpful_collapse(moments, [0.0, 1e7], 10, noise=1e-3)
    assert found.best_weight_decay.kept == (0, 1)
    assert found.best_weight_decay.risk <= found.risk_of_everything


def test_the_weights_kept_have_the_risk_that_is_said():
    # rows of the landscape's own minimum do not: all its modes tie, and are turned otherwise
    rng = np.random.default_rng(1)
    frame, _ = np.linalg.qr(rng.standard_normal((6, 6)))
    root = rng.standard_normal((6, 12)) / np.sqrt(12)
    moments = pyssl.Moments(frame @ frame.T + root @ root.T, frame @ frame.T)
    beta = rng.standard_normal(6) * [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    loss = pyssl.BarlowTwins(1.0, normalize=False)
    found = pyssl.helpful_collapse(moments, beta, 9, loss=loss, noise=0.5)
    assert found.helps
    for weights, expected in (
        (found.weights, found.risk_of_everything),
        (found.weights[list(found.kept)], found.risk),
    ):
        arguments = weights, moments.cross_covariance, beta, 9, 0.5, "optimal"
        assert pyssl.downstream_risk(*arguments) == pytest.approx(expected, rel=1e-9)


def test_modes_without_room_may_come_in_under_decay():
    # one dimension: without decay the better aligned input, with some the stronger one
    moments = pyssl.Moments(np.diag([4.0, 0.25]), np.diag([2.0, 0.2]))
    found = pyssl.helpful_collapse(moments, [1.0, 0.0], 10, embedding_dim=1, noise=0.1)
    assert found.kept == (0,)
    best = found.best_weight_decay
    assert best.kept == (1,)
    assert 0.2 < best.value < 8.0
    assert best.risk < 0.5 * found.risk
    W = weights_of(pyssl.SpectralContrastive(), moments, 1, best.value)
    assert abs(W[0, 0]) > 0.0 and W[0, 1] == 0.0


def test_one_setting_for_every_rank():
    moments, beta = random_problem(3)
    found = pyssl.helpful_collapse(moments, beta, 12, noise=1.0)
    assert [len(one.kept) for one in found.weight_decays] == list(range(7))
    assert found.weight_decays[-1].value == 0.0 or found.weight_decays[-1].interval[0] == 0.0
    critical = pyssl.classify(pyssl.SpectralContrastive().population(moments, 6))
    for rank, one in enumerate(found.weight_decays):
        land = pyssl.SpectralContrastive().population(moments, 6, weight_decay=one.value)
        assert land.minimum().rank == rank
        ends = np.concatenate([[np.inf], critical.critical_weight_decay, [0.0]])
        assert one.interval == pytest.approx((ends[rank + 1], ends[rank]))
    nothing = found.weight_decays[0]
    total = beta @ moments.cross_covariance @ beta
    assert nothing.risk == pytest.approx(1.0 + total)
    assert np.isnan(nothing.overlap)


def test_turning_modes_are_said():
    moments, beta = random_problem(1)
    beta = moments.cross_covariance @ np.linalg.eigh(moments.cross_covariance)[1][:, -1]
    found = pyssl.helpful_collapse(moments, 5.0 * beta, 6, noise=1.0)
    tails = [one for one in found.weight_decays if 0 < len(one.kept) < 6]
    assert all(0.5 < one.overlap <= 1.0 + 1e-12 for one in tails)
    assert min(one.overlap for one in tails) < 0.999


# ---- augmentation strength -----------------------------------------------------------------------


def test_strength_takes_modes_where_the_threshold_sees_it():
    loss = pyssl.SquaredVICReg(2.0)
    moments = diagonal([2.0, 0.8, 0.3, 0.1], [0.1, 0.2, 0.1, 0.04])
    beta = [1.0, 0.0, 1.0, 0.0]
    found = pyssl.helpful_collapse(moments, beta, 12, loss=loss, noise=2.0)
    assert found.kept in ((0, 1), (0, 2), (0,))
    # thresholds a/(c (invariance - 1)) = 20, 4, 3, 2.5
    strong = pyssl.helpful_collapse(moments, [1.0, 0.0, 0.0, 0.0], 12, loss=loss, noise=2.0)
    assert strong.kept == (0,)
    setting = strong.augmentation_strength
    assert setting.interval == pytest.approx((4.0, 20.0), rel=1e-12)
    assert 4.0 < setting.value < 20.0
    stronger = moments.with_augmentation_strength(setting.value)
    W = weights_of(loss, stronger, 4)
    assert (np.abs(W).max(axis=0) > 0.0).tolist() == [True, False, False, False]
    given = pyssl.downstream_risk(
        W, moments.cross_covariance, [1.0, 0.0, 0.0, 0.0], 12, 2.0, "optimal"
    )
    assert given == pytest.approx(setting.risk, rel=1e-9)
    # decay takes them too, by another order: the weights are those of a/(...) and not of a
    assert strong.weight_decay is not None


@pytest.mark.parametrize("loss", LOSSES[:3], ids=repr)
def test_strength_takes_nothing_where_the_threshold_does_not(loss):
    found = pyssl.helpful_collapse(diagonal([0.9, 0.5]), [1.0, 0.0], 5, loss=loss, noise=1.0)
    assert found.augmentation_strength is None
    assert found.best_augmentation_strength is None
    assert "augmentation strength" not in str(found)


def test_strengths_of_sample_moments():
    # A is indefinite: weak augmentations have no moments, others are tried
    rng = np.random.default_rng(0)
    population = diagonal([0.9, 0.5, 0.0, 0.0, 0.0], 5 * [0.3])
    moments = pyssl.Moments.from_views(*gaussian_views(population, 100, rng))
    assert np.linalg.eigvalsh(moments.cross_covariance)[0] < 0.0
    found = pyssl.helpful_collapse(
        moments, [1.0, 0.0, 0.0, 0.0, 0.0], 8, loss=pyssl.SquaredVICReg(1.5), noise=1.0
    )
    assert found.best_augmentation_strength.risk <= found.risk_of_everything * (1.0 + 1e-12)
    assert "moments from 100 pairs" in found.notes[-1]


# ---- what is embedded at evaluation --------------------------------------------------------------


def test_clean_data_by_default():
    moments, beta = random_problem(2)
    default = pyssl.helpful_collapse(moments, beta, 9, noise=0.5)
    for covariance, same in ((moments.cross_covariance, True), (moments.covariance, False)):
        found = pyssl.helpful_collapse(moments, beta, 9, noise=0.5, covariance=covariance)
        assert (found.risk == pytest.approx(default.risk, rel=1e-9)) == same


def test_negative_eigenvalues_of_a_sample_are_left_out():
    rng = np.random.default_rng(1)
    population = diagonal([0.9, 0.5, 0.0, 0.0], 4 * [0.3])
    moments = pyssl.Moments.from_views(*gaussian_views(population, 50, rng))
    values, vectors = np.linalg.eigh(moments.cross_covariance)
    assert values[0] < 0.0
    positive = (vectors * np.maximum(values, 0.0)) @ vectors.T
    beta = np.array([1.0, 0.5, 0.0, 0.0])
    default = pyssl.helpful_collapse(moments, beta, 9, noise=0.5)
    given = pyssl.helpful_collapse(moments, beta, 9, noise=0.5, covariance=positive)
    assert default.risk == pytest.approx(given.risk, rel=1e-9)
    assert default.kept == given.kept


def test_nothing_is_shared():
    found = pyssl.helpful_collapse(pyssl.Moments(np.eye(2), np.zeros((2, 2))), [1.0, 1.0], 5)
    assert found.kept == found.dropped == ()
    assert found.risk == found.risk_of_everything == 0.0
    assert found.best_weight_decay.value == 0.0
    assert "no collapse helps: test error 0 with all 0 modes" in str(found)


def test_one_mode():
    found = pyssl.helpful_collapse(diagonal([0.5]), [2.0], 3, noise=0.1)
    assert found.kept == (0,)
    assert found.weight_decay.interval == pytest.approx((0.0, 2.0))


def test_what_has_no_modes_to_drop_is_refused():
    moments = diagonal([0.9, 0.5])
    for loss in (pyssl.NTXent(), pyssl.VICReg(), pyssl.BarlowTwins()):
        with pytest.raises(NotImplementedError, match="not spectral"):
            pyssl.helpful_collapse(moments, [1.0, 0.0], 5, loss=loss)
    clean = diagonal([0.9, 0.5], [0.0, 0.5])
    with pytest.raises(ValueError, match=r"loss must have a minimum .* 1 mode\(s\) .* diverge"):
        pyssl.helpful_collapse(clean, [1.0, 0.0], 5, loss=pyssl.InfoNCE())


# ---- beside simulation, and printed --------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_dropping_helps_in_simulation_too(seed):
    moments, beta = random_problem(seed, d=8)
    n, noise = [6, 12, 24][seed % 3], 1.0
    found = pyssl.helpful_collapse(moments, beta, n, noise=noise)
    W = weights_of(pyssl.SpectralContrastive(), moments, 8)
    kept = W * np.isin(np.arange(8), found.kept)[:, None]
    sigma = moments.cross_covariance
    rng = np.random.default_rng(seed)
    everything, error = simulated_risk(
        Probe("", W, sigma, beta), n, noise, found.ridge_of_everything, 400, rng
    )
    best, other = simulated_risk(Probe("", kept, sigma, beta), n, noise, found.ridge, 400, rng)
    assert best <= everything + 3.0 * np.hypot(error, other)


@pytest.mark.parametrize("seed", range(3))
def test_the_error_at_a_setting_is_that_of_simulation(seed):
    moments, beta = random_problem(seed, d=8)
    loss, n, noise = pyssl.SquaredVICReg(2.0), 30, 0.5
    found = pyssl.helpful_collapse(moments, beta, n, loss=loss, noise=noise)
    decay, strength = found.best_weight_decay, found.best_augmentation_strength
    stronger = moments.with_augmentation_strength(strength.value)
    for setting, W in (
        (decay, weights_of(loss, moments, 8, decay.value)),
        (strength, weights_of(loss, stronger, 8)),
    ):
        probe = Probe("", W, moments.cross_covariance, beta)
        simulated, error = simulated_risk(
            probe, n, noise, setting.ridge, 200, np.random.default_rng(seed)
        )
        assert abs(simulated - setting.risk) < 4.0 * error + 0.01 * setting.risk


def test_prints_as_a_table():
    found = pyssl.helpful_collapse(diagonal([0.9, 0.5, 0.1]), [1.0, 0.0, 0.0], 20, noise=1.0)
    lines = str(found).splitlines()
    assert lines[1].startswith("dropping 2 of 3 modes lowers the test error from 1.081 to 1.05")
    assert lines[2].startswith("weight decay: from 2 to 3.6 drops just those; test error 1.05 at")
    assert [line.split()[-1] for line in lines[4:8]] == ["verdict", "keep", "drop", "drop"]
    weak = str(pyssl.helpful_collapse(diagonal([0.9, 0.5]), [0.0, 1.0], 20, noise=1.0))
    assert "weight decay: no single one drops just those" in weak
    assert "weight decay: least test error" in weak
    d = 26
    many = pyssl.helpful_collapse(diagonal(np.linspace(0.9, 0.1, d)), np.eye(d)[0], 10, noise=1.0)
    assert "  ... and 2 more: 0 keep, 2 drop" in str(many)
