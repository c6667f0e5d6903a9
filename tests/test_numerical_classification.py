"""Classification by minimising: what the closed form of the same moments says, and its edges."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import pyssl
from pyssl import Cause, Collapse, ThresholdWarning
from pyssl.testing import gaussian_views, random_moments, random_spectrum

Array = np.ndarray


def exact_views(moments: pyssl.Moments, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw views whose sample moments are those asked for, both views' separately as well."""
    d = moments.dim
    joint = np.block(
        [
            [moments.covariance, moments.cross_covariance],
            [moments.cross_covariance, moments.covariance],
        ]
    )
    white = rng.standard_normal((n, 2 * d))
    white -= white.mean(axis=0)
    white = np.linalg.qr(white)[0] * np.sqrt(n)
    values, basis = np.linalg.eigh(joint)
    views = white @ ((basis * np.sqrt(np.maximum(values, 0.0))) @ basis.T)
    return views[:, :d] + moments.mean, views[:, d:] + moments.mean


def causes(report: pyssl.CollapseReport) -> list[str]:
    return [str(cause) for cause in report.modes.cause]


SETTINGS = [
    # alignments, k, weight decay: no, dimensional and complete collapse, by every cause
    ([0.9, 0.6, 0.3], 3, 0.0),
    ([0.9, 0.6, 0.3], 2, 0.1),
    ([0.9, 0.6, 0.3], 5, 0.3),
    ([0.9, 0.6, -0.3], 3, 0.0),
    ([0.9, 0.5, -0.3], 1, 0.4),
    ([0.5, 0.25, -0.3], 4, 8.0),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=repr)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "loss",
    [pyssl.SpectralContrastive(negatives="all"), pyssl.SquaredVICReg(1.5)],
    ids=["spectral", "squared_vicreg"],
)
def test_the_closed_form_of_the_same_moments(
    loss: pyssl.Loss, bias: bool, setting: tuple[Any, int, float]
) -> None:
    alignments, k, decay = setting
    rng = np.random.default_rng(0)
    moments = random_moments(alignments, rng, nulls=1, mean=bias)
    views = exact_views(moments, 40, rng)
    report = pyssl.classify(loss.empirical(*views, k, decay, bias))
    expected = pyssl.classify(loss.population(pyssl.Moments.from_views(*views), k, decay, bias))
    assert (report.kind, report.rank, report.capacity) == (
        expected.kind,
        expected.rank,
        expected.capacity,
    )
    # the bias of a loss that ignores it is a row of its own in the closed form
    number = len(report.modes)
    assert causes(report) == causes(expected)[:number]
    if report.rank:
        assert report.effective_rank == pytest.approx(expected.effective_rank, rel=1e-5) or bias
    assert report.minimum.value == pytest.approx(expected.minimum.value, rel=1e-6, abs=1e-9)
    assert np.isnan(report.critical_weight_decay).all()


@pytest.mark.parametrize("similarity", ["sqeuclidean", "dot"])
@pytest.mark.parametrize("decay", [0.0, 0.5, 6.0])
def test_a_batch_of_infonce(similarity: str, decay: float) -> None:
    rng = np.random.default_rng(1)
    moments = random_moments([0.875, 0.75, 0.625], rng)
    views = gaussian_views(moments, 400, rng)
    loss = pyssl.InfoNCE(0.7, similarity)
    centred = [view - np.mean(views, axis=(0, 1)) for view in views]
    report = pyssl.classify(loss.empirical(*centred, 2, decay))
    expected = pyssl.classify(
        loss.population(pyssl.Moments.from_views(*views).centered(), 2, decay)
    )
    assert (report.kind, report.rank) == (expected.kind, expected.rank)
    assert causes(report) == causes(expected)


@pytest.mark.parametrize("K", [1, 20])
def test_finite_negatives_without_common_modes(K: int) -> None:
    moments = random_moments([0.875, 0.625, 0.25], np.random.default_rng(2))
    loss = pyssl.InfoNCE(0.5, negatives=K)
    first = loss.effective(moments, 3).critical_weight_decay[0]
    kinds, ranks = [], []
    for share in (0.0, 0.5, 0.99, 1.01):
        land = loss.effective(moments, 3, share * first)
        assert hasattr(land, "minimum") == (share == 0.0)  # they don't commute
        report = pyssl.classify(land)
        kinds.append(report.kind)
        ranks.append(report.rank)
        if share:
            lost = causes(report)[report.rank :]
            assert lost == ["decay"] * len(lost)
    assert kinds[0] is Collapse.NONE and kinds[-1] is Collapse.COMPLETE
    assert ranks[0] == 3 and ranks[-1] == 0 and ranks == sorted(ranks, reverse=True)
    assert ranks[2] >= 1  # collapse is complete from the critical decay on, and not before


def test_closed_forms_are_not_counted() -> None:
    # a mode of 1e-8 of the largest amplitude is learned: the formula knows
    moments = pyssl.Moments(np.eye(2), np.diag([0.9, 1e-8]))
    report = pyssl.classify(pyssl.InfoNCE(negatives=5).effective(moments, 2))
    assert report.rank == 1 + bool(report.minimum.amplitudes[1] > 0.0)
    assert not any("counting" in note for note in report.notes)
    land = pyssl.NTXent(1.0).effective(pyssl.Moments(np.eye(3), np.diag([0.9, 0.8, 0.1])), 1)
    report = pyssl.classify(land)
    assert causes(report) == ["learned", "capacity", "competition"]
    assert report.kind is Collapse.NONE


# ---- VICReg --------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.9, 1.1])
def test_vicreg_collapses_completely_at_its_threshold(share: float) -> None:
    # theory 3.5: var Sigma against 4 inv sqrt(eps) C along every direction
    moments = pyssl.Moments(np.eye(3), np.diag([0.75, 0.5, 0.25]))
    invariance = share * 25.0 / (4.0 * np.sqrt(0.25) * 0.25)
    loss = pyssl.VICReg(invariance=invariance, epsilon=0.25)
    land = loss.population(moments, 2)
    report = pyssl.classify(land)
    collapsed = bool(land.origin_spectrum[0] <= 0.0)
    assert collapsed == (share > 1.0)
    assert (report.kind is Collapse.COMPLETE) == collapsed
    assert causes(report) == (["augmentation"] * 3 if collapsed else causes(report))
    batch = loss.empirical(*exact_views(moments, 4000, np.random.default_rng(0)), 2)
    assert (pyssl.classify(batch).kind is Collapse.COMPLETE) == collapsed


def test_decay_collapses_vicreg() -> None:
    moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.8]))
    loss = pyssl.VICReg(epsilon=0.25)
    critical = loss.population(moments, 2).critical_weight_decay[0]
    below, above = (pyssl.classify(loss.population(moments, 2, f * critical)) for f in (0.9, 1.1))
    assert below.rank >= 1 and above.kind is Collapse.COMPLETE
    assert causes(above) == ["decay", "decay"]
    assert np.isnan(above.critical_weight_decay[1])
    assert "-" in str(above).splitlines()[4]  # nan prints as a dash


# ---- normalised losses ---------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "rank"), [(0.8, 1), (1.25, 2)])
def test_duplicate_units_of_barlow_twins(share: float, rank: int) -> None:
    # theory 3.4: rank 1 iff redundancy < (1 - rho_1)(rho_1 - rho_2)/(rho_1 (rho_1 + rho_2))
    one, two = 0.75, 0.25
    threshold = (1.0 - one) * (one - two) / (one * (one + two))
    loss = pyssl.BarlowTwins(redundancy=share * threshold)
    moments = random_moments([one, two], np.random.default_rng(0))
    report = pyssl.classify(loss.population(moments, 2), restarts=3)
    assert report.rank == rank
    assert report.kind is (Collapse.DIMENSIONAL if rank == 1 else Collapse.NONE)
    assert causes(report) == ["learned", "competition" if rank == 1 else "learned"]
    np.testing.assert_array_equal(report.critical_weight_decay, np.inf)


def test_decay_only_shrinks_scale_free_landscapes() -> None:
    moments = random_moments([0.75, 0.5], np.random.default_rng(0))
    for decay in (0.0, 0.5):
        report = pyssl.classify(pyssl.BarlowTwins().population(moments, 2, decay))
        assert report.minimum.attained == (decay == 0.0)
        assert report.kind is not Collapse.COMPLETE and np.isfinite(report.effective_rank)
        assert any("only shrinks" in note for note in report.notes) == (decay > 0.0)


# ---- edges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", sorted(pyssl.LOSSES))
def test_data_without_variation(key: str) -> None:
    same = np.ones((6, 3))
    report = pyssl.classify(pyssl.LOSSES[key]().empirical(same, same, 2, 0.1))
    assert (report.kind, report.rank, report.capacity) == (Collapse.COMPLETE, 0, 0)
    assert causes(report) == ["no variation"] * 3
    assert "there is no variation to learn" in str(report)


@pytest.mark.parametrize(
    "loss", [pyssl.BarlowTwins(), pyssl.NTXent()], ids=["barlow_twins", "ntxent"]
)
def test_normalised_losses_need_variation(loss: Any) -> None:
    zero = pyssl.Moments(np.zeros((2, 2)), np.zeros((2, 2)))
    level = loss.effective if isinstance(loss, pyssl.NTXent) else loss.population
    with pytest.raises(ValueError, match="must have varia"):
        pyssl.classify(level(zero, 2))


def test_without_minimiser() -> None:
    # nothing augments these views, and nothing holds them together
    x = np.random.default_rng(0).standard_normal((30, 2)) * [2.0, 1.0]
    report = pyssl.classify(pyssl.InfoNCE().empirical(x, x, 2))
    assert not report.minimum.attained and report.rank == 2
    assert np.isnan([report.effective_rank, report.participation_ratio, report.stable_rank]).all()
    assert any("found no minimum" in note and "W grows" in note for note in report.notes)
    assert "effective rank undefined" in str(report)


def test_a_saddle_is_no_answer() -> None:
    report = pyssl.classify(Stuck())
    assert any("found no minimum" in note for note in report.notes)


class Stuck(pyssl.NumericalLandscape):
    """A landscape whose values rounding hides: no descent meets its tolerance."""

    def __init__(self) -> None:
        super().__init__((1, 2), 0.0, False)
        self.moments = pyssl.Moments(np.eye(2), 0.5 * np.eye(2))

    def _value(self, w: Array) -> float:
        return float(np.abs(w).sum())

    def _value_and_gradient(self, w: Array) -> tuple[float, Array]:
        return self._value(w), np.where(w >= 0.0, 1.0, -1.0)

    def _linearised(self, w: Array) -> Any:
        return np.ones_like


def test_near_the_tolerance() -> None:
    # lambda_2/lambda_1 is the ratio of the amplitudes of a quartic
    for ratio, near in ((1e-3, False), (3e-6, True)):
        moments = pyssl.Moments(np.eye(2), np.diag([0.5, 0.5 * ratio]))
        views = exact_views(moments, 20, np.random.default_rng(0))
        land = pyssl.SpectralContrastive(negatives="all").empirical(*views, 2)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            report = pyssl.classify(land)
        assert report.rank == 2
        assert [item.category for item in caught] == [ThresholdWarning] * near
        assert any("the smallest kept is" in note for note in report.notes)


def test_more_units_than_dimensions() -> None:
    moments = random_moments([0.9, 0.5], np.random.default_rng(0), nulls=1)
    report = pyssl.classify(pyssl.VICReg(invariance=1.0).population(moments, 6))
    assert report.capacity == 2 and report.rank == 2 and report.kind is Collapse.NONE
    assert causes(report) == ["learned", "learned", "no variation"]
    assert (report.modes.amplitude[:2] > 0.1).all() and report.modes.amplitude[2] == 0.0


def test_the_report_prints() -> None:
    moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.8]))
    text = str(pyssl.classify(pyssl.VICReg().population(moments, 1)))
    assert text.startswith("VICReg(") and "1 of 1 modes learned" in text
    assert "rank by counting eigenvalues of W Sigma W' above 1e-06 of the largest" in text
    assert "capacity" in text


def test_the_same_seed_gives_the_same_report() -> None:
    land = pyssl.VICReg().population(random_moments([0.9, 0.5], np.random.default_rng(0)), 2)
    first, second, other = (pyssl.classify(land, rng=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.minimum.weights, second.minimum.weights)
    assert not np.array_equal(first.minimum.weights, other.minimum.weights)
    assert pyssl.classify(land, restarts=3).minimum.value <= first.minimum.value + 1e-9


def test_what_has_no_moments() -> None:
    class Bare(Stuck):
        """Of no views."""

        def __init__(self) -> None:
            super().__init__()
            del self.moments

    with pytest.raises(NotImplementedError, match="neither spectral nor says of which views"):
        pyssl.classify(Bare())
    with pytest.raises(ValueError, match="restarts must be at least 1, got 0"):
        pyssl.classify(Stuck(), restarts=0)


def test_a_complete_collapse_has_no_dimensions() -> None:
    # what descent leaves of it is rounding, whose effective rank is about 1
    moments = pyssl.Moments(np.eye(3), np.diag([0.9, 0.5, 0.1]), [0.1, 0.2, 0.3])
    land = pyssl.InfoNCE(1.7, similarity="dot").population(moments, 2, weight_decay=10.0)
    report = pyssl.classify(land)
    assert report.kind == pyssl.Collapse.COMPLETE
    assert (report.effective_rank, report.participation_ratio, report.stable_rank) == (0, 0, 0)


def test_what_a_larger_embedding_learns_is_lost_to_capacity() -> None:
    # VICReg's landscape changes with k: two units share one mode where four learn two
    rng = np.random.default_rng(10)
    moments = random_moments(random_spectrum(4, rng, positive=True), rng).centered()
    loss = pyssl.VICReg(invariance=float(rng.uniform(5.0, 40.0)))
    small, large = (pyssl.classify(loss.population(moments, k)) for k in (2, 4))
    assert (small.rank, large.rank) == (1, 2)
    assert list(small.modes.cause) == [
        Cause.LEARNED,
        Cause.CAPACITY,
        Cause.AUGMENTATION,
        Cause.AUGMENTATION,
    ]
    assert list(large.modes.cause[1:]) == [Cause.LEARNED, Cause.AUGMENTATION, Cause.AUGMENTATION]
