"""Theory beside training: they agree where theory holds, and say so where it does not."""

from __future__ import annotations

import numpy as np
import pytest

import pyssl
from pyssl._views import digits
from pyssl.testing import gaussian_views, random_moments
from pyssl.verification import _negatives_that_count

EXACT = [
    pyssl.SpectralContrastive(),
    pyssl.BarlowTwins(redundancy=1.0, normalize=False),
    pyssl.SquaredVICReg(1.5),
]
GAUSSIAN = [
    pyssl.InfoNCE(0.7),
    pyssl.InfoNCE(0.7, "dot"),
    pyssl.InfoNCE(0.7, partition="joint"),
]


def evenly(d: int, strongest: float = 0.9) -> pyssl.Moments:
    return pyssl.Moments(np.eye(d), np.diag(np.linspace(strongest, 0.1, d)))


def sample(n: int = 2000, d: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return gaussian_views(evenly(d), n, np.random.default_rng(seed))


@pytest.mark.parametrize("loss", EXACT, ids=repr)
@pytest.mark.parametrize("decay", [0.1, 0.9])
def test_polynomial_losses_end_where_theory_says(loss, decay):
    # with the sample's moments theory is the loss, up to n - 1 for n and the antisymmetric part
    check = pyssl.verify(loss, *sample(), embedding_dim=3, weight_decay=decay)
    assert check.converged
    assert check.theory_rank == check.trained_rank
    assert check.spectrum_error < 0.02
    assert check.subspace_angle < 0.02
    assert abs(check.theory_value - check.trained_value) < 0.02 * abs(check.theory_value)


def test_ties_are_no_disagreement():
    # without decay every mode of Barlow Twins is worth the same (theory 3.4)
    loss = pyssl.BarlowTwins(redundancy=1.0, normalize=False)
    check = pyssl.verify(loss, *sample(), embedding_dim=3)
    assert check.agrees
    assert any("arbitrary" in reason for reason in check.reasons)


@pytest.mark.parametrize("loss", GAUSSIAN, ids=repr)
def test_gaussian_views_agree_within_noise(loss):
    check = pyssl.verify(loss, *sample(), embedding_dim=3, weight_decay=0.9)
    assert (check.theory_rank, check.trained_rank) == (3, 3) or check.theory_rank == 2
    assert check.theory_rank == check.trained_rank
    assert check.agrees, str(check)


def test_views_that_are_not_gaussian_are_named():
    rng = np.random.default_rng(1)
    clean = rng.standard_t(5.0, (3000, 3)) * [1.5, 1.0, 0.5]
    x, x_plus = clean + 0.5 * rng.standard_normal((2, 3000, 3))
    check = pyssl.verify(pyssl.InfoNCE(0.5), x, x_plus, embedding_dim=2)
    assert not check.agrees
    assert any("Gaussian" in reason for reason in check.reasons)
    quiet = pyssl.verify(pyssl.InfoNCE(0.5), *sample(), embedding_dim=2)
    assert not any("Gaussian" in reason for reason in quiet.reasons)


def test_noise_is_that_of_other_samples():
    checks = [
        pyssl.verify(pyssl.InfoNCE(0.7), *sample(500, 2, seed), embedding_dim=2)
        for seed in range(20)
    ]
    gaps = np.array([check.trained_spectrum - check.theory_spectrum for check in checks])
    claimed = np.sqrt(np.mean([check.noise**2 for check in checks], axis=0))
    ratio = claimed / gaps.std(axis=0)
    assert ((ratio > 0.5) & (ratio < 3.0)).all(), ratio


def test_complete_collapse_is_seen_on_both_sides():
    check = pyssl.verify(pyssl.InfoNCE(), *sample(400), embedding_dim=2, weight_decay=3.0)
    assert (check.theory_rank, check.trained_rank) == (0, 0)
    assert check.agrees
    assert np.isnan(check.subspace_angle)
    assert "rank 0 and 0" in str(check)


def test_theory_without_minimiser_is_refused():
    x = np.random.default_rng(0).standard_normal((50, 2))
    with pytest.raises(ValueError, match=r"no minimiser on these views.*weight_decay"):
        pyssl.verify(pyssl.InfoNCE(), x, x, embedding_dim=1)


def test_same_seed_same_result():
    first, second = (
        pyssl.verify(pyssl.VICReg(), *sample(200, 3), embedding_dim=2, rng=5) for _ in range(2)
    )
    np.testing.assert_array_equal(first.trained_spectrum, second.trained_spectrum)


def test_offsets_and_float32_make_no_difference():
    x, x_plus = sample(300, 3)
    plain = pyssl.verify(pyssl.InfoNCE(), x, x_plus, embedding_dim=2)
    moved = pyssl.verify(pyssl.InfoNCE(), x + 100.0, x_plus + 100.0, embedding_dim=2)
    single = pyssl.verify(
        pyssl.InfoNCE(), x.astype(np.float32), x_plus.astype(np.float32), embedding_dim=2
    )
    for other, tolerance in ((moved, 1e-6), (single, 1e-4)):
        np.testing.assert_allclose(other.trained_spectrum, plain.trained_spectrum, atol=tolerance)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"loss": "infonce"}, TypeError, "loss"),
        ({"x": np.zeros((3, 2)), "x_plus": np.zeros((3, 2))}, ValueError, "at least 4 rows"),
        ({"embedding_dim": 0}, ValueError, "embedding_dim"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay"),
        ({"restarts": 0}, ValueError, "restarts"),
        ({"redraws": -1}, ValueError, "redraws"),
        ({"redraws": 1}, ValueError, "redraws must be 0 or at least 2, got 1"),
        ({"rng": "seed"}, TypeError, "rng"),
    ],
)
def test_errors_name_the_argument(change, error, match):
    x, x_plus = sample(20, 2)
    arguments = {"loss": pyssl.InfoNCE(), "x": x, "x_plus": x_plus, "embedding_dim": 1}
    with pytest.raises(error, match=match):
        pyssl.verify(**(arguments | change))


def test_random_moments_agree():
    rng = np.random.default_rng(3)
    for _ in range(5):
        moments = random_moments(rng.uniform(0.1, 0.9, 4), rng)
        views = gaussian_views(moments.centered(), 2000, rng)
        check = pyssl.verify(pyssl.SpectralContrastive(), *views, embedding_dim=2)
        assert check.theory_rank == check.trained_rank == 2
        assert check.spectrum_error < 0.02


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_ntxent_ends_near_its_exact_angular_moments(temperature):
    loss = pyssl.NTXent(temperature)
    rho = np.append(np.linspace(0.9, 0.75, 8), np.full(4, 0.1))
    moments = pyssl.Moments(np.eye(12), np.diag(rho))
    views = gaussian_views(moments, 1000, np.random.default_rng(0))
    check = pyssl.verify(loss, *views, embedding_dim=12, redraws=0)
    assert check.converged
    assert check.level == "effective"
    assert check.theory_spectrum.sum() == pytest.approx(1.0)
    assert check.spectrum_error < 0.1
    np.testing.assert_array_equal(check.theory_spectrum > 0.01, check.trained_spectrum > 0.01)
    assert any("1/effective rank" in reason for reason in check.reasons)
    # water-filling, to leading order, is farther off
    water = loss.effective(pyssl.Moments.from_views(*views).centered(), 12).minimum().amplitudes
    leading = np.abs(water / water.sum() - check.trained_spectrum).max()
    assert leading > 1.3 * np.abs(check.theory_spectrum - check.trained_spectrum).max()


def test_units_of_normalised_barlow_twins_are_compared_at_unit_variance():
    loss = pyssl.BarlowTwins(redundancy=0.5)
    check = pyssl.verify(loss, *sample(d=6), embedding_dim=4, restarts=3, redraws=0)
    assert check.theory_rank == check.trained_rank
    # variance 1 for each of four units, in all modes together
    assert check.theory_spectrum.sum() == pytest.approx(4.0)
    assert check.trained_spectrum.sum() == pytest.approx(4.0)
    assert check.spectrum_error < 0.05


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_vicreg_ends_where_theory_says(decay):
    check = pyssl.verify(
        pyssl.VICReg(), *sample(d=6), embedding_dim=4, weight_decay=decay, restarts=2, redraws=0
    )
    assert check.theory_rank == check.trained_rank > 0
    assert check.spectrum_error < 0.05
    assert check.trained_value == pytest.approx(check.theory_value, rel=1e-2)


def test_digits_end_where_theory_says():
    views = digits(draws=1)
    for decay, rank in ((0.0, 8), (0.5, 5)):
        check = pyssl.verify(
            pyssl.SpectralContrastive(),
            views.x,
            views.x_plus,
            embedding_dim=8,
            weight_decay=decay,
            redraws=0,
        )
        assert check.theory_rank == check.trained_rank == rank
        assert check.spectrum_error < 0.02


def test_without_redraws_nothing_is_known_of_noise():
    check = pyssl.verify(pyssl.SpectralContrastive(), *sample(), embedding_dim=2, redraws=0)
    assert np.isnan(check.noise).all()
    assert not check.beyond_noise.any()
    assert check.agrees


def test_negatives_that_count_are_those_that_softmax_weighs():
    rng = np.random.default_rng(0)
    z, z_plus = rng.standard_normal((2, 40, 2))
    for loss, logits in (
        (pyssl.InfoNCE(0.3, "dot"), lambda a, b: a @ b / 0.3),
        (pyssl.InfoNCE(0.3), lambda a, b: -np.sum((a - b) ** 2) / 0.6),
        (pyssl.NTXent(0.3), lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b) / 0.3),
    ):
        squares = []
        for i in range(40):
            weights = np.exp([logits(z[i], z_plus[j]) for j in range(40) if j != i])
            squares.append(np.sum((weights / weights.sum()) ** 2))
        assert _negatives_that_count(loss, z, z_plus) == pytest.approx(1.0 / np.mean(squares))
        # embeddings of no size leave all alike
        everything = _negatives_that_count(loss, 0.0 * z, 0.0 * z_plus)
        assert everything == pytest.approx(39.0)


def test_callback_sees_the_training_and_stops_it():
    states = []
    check = pyssl.verify(
        pyssl.SpectralContrastive(),
        *sample(),
        embedding_dim=2,
        redraws=0,
        callback=lambda state: states.append(state) or len(states) == 3,
    )
    assert len(states) == 3
    assert not check.converged
    assert "the training did not converge" in check.reasons
