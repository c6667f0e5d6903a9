"""Class imbalance: mixtures, what an embedding keeps of each class, and how rare one may be."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import scipy.linalg

import pyssl
from pyssl import augment
from pyssl._training import train

NOISE = augment.Noise(np.diag([0.5, 1.0, 0.7, 1.2]))
AUGMENTATIONS = [
    None,
    NOISE,
    augment.Mask(0.7),
    augment.Scale(variance=0.2) | NOISE,
    augment.Reflection([1.0, 2.0, 0.0, 1.0], 0.3) | augment.Mask(0.9),
    augment.Linear(np.arange(8.0).reshape(2, 4) / 8.0) | augment.Noise(0.3),
]


def random_mixture(rng, classes=3, d=4, *, shared=False, offset=0.0):
    """Return classes in general position, whose means lie around an offset."""
    factors = rng.standard_normal((classes, d, d)) / math.sqrt(d)
    within = factors @ factors.transpose(0, 2, 1)
    return pyssl.Mixture(
        pyssl.long_tailed_priors(classes, 8.0),
        2.0 * rng.standard_normal((classes, d)) + offset,
        within[0] if shared else within,
    )


def reference(weights, mix, aug):
    """Return retention from dense matrices and subtractions, for classes in general position."""
    aug = aug or augment.Identity()
    moments = aug.moments(mix.second_moment, mix.mean)
    centre = aug._mean(mix.means) - moments.mean
    hides = moments.covariance - np.einsum("c,ci,cj->ij", mix.priors, centre, centre)
    root = scipy.linalg.sqrtm(hides).real
    basis = scipy.linalg.orth(root @ np.asarray(weights).T)
    standard = np.linalg.solve(root, centre.T)
    return np.sum((basis.T @ standard) ** 2, axis=0) / np.sum(standard**2, axis=0)


# ---- mixtures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
def test_moments_of_a_mixture_are_those_of_its_samples(rng, shared):
    mix = random_mixture(rng, shared=shared)
    x, labels = mix.sample(200_000, rng)
    scale = np.trace(mix.covariance)
    assert np.bincount(labels) / len(x) == pytest.approx(mix.priors, abs=0.005)
    assert np.abs(x.mean(axis=0) - mix.mean).max() < 0.01 * math.sqrt(scale)
    assert np.abs(np.cov(x.T) - mix.covariance).max() < 0.01 * scale
    for c in range(mix.n_classes):
        within = mix.within_covariance if shared else mix.within_covariance[c]
        rows = x[labels == c]
        assert np.abs(rows.mean(axis=0) - mix.means[c]).max() < 0.02 * math.sqrt(scale)
        assert np.abs(np.cov(rows.T) - within).max() < 0.02 * scale


@pytest.mark.parametrize("aug", AUGMENTATIONS, ids=repr)
def test_moments_of_views_are_those_of_the_augmentation(rng, aug):
    mix = random_mixture(rng, offset=1.0)
    moments = mix.moments(aug)
    expected = (aug or augment.Identity()).moments(mix.second_moment, mix.mean)
    for name in ("covariance", "cross_covariance", "augmentation_covariance", "mean"):
        got, wanted = getattr(moments, name), getattr(expected, name)
        np.testing.assert_allclose(got, wanted, atol=1e-12 * np.abs(wanted).max(), rtol=1e-12)


def test_labelled_data_have_the_moments_of_the_data(rng):
    x = rng.standard_normal((60, 4)) + 3.0
    labels = rng.integers(0, 3, 60)
    wanted = pyssl.Moments.from_data(x, NOISE)
    for shared in (False, True):
        mix = pyssl.Mixture.from_data(x, labels, shared=shared)
        moments = mix.moments(NOISE)
        np.testing.assert_allclose(moments.covariance, wanted.covariance, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(moments.mean, wanted.mean, rtol=1e-13)
        assert moments.n_samples == wanted.n_samples == 60
    for c in range(3):
        np.testing.assert_allclose(mix.means[c], x[labels == c].mean(axis=0), rtol=1e-13)


def test_labels_keep_their_names():
    x = np.arange(12.0).reshape(6, 2)
    mix = pyssl.Mixture.from_data(x, ["b", "a", "b", "b", "a", "c"])
    assert mix.classes == ("a", "b", "c")
    assert mix.priors == pytest.approx([2 / 6, 3 / 6, 1 / 6])
    assert pyssl.Mixture.from_data(x, [7, 3, 7, 7, 3, 9]).classes == (3, 7, 9)
    assert np.all(mix.within_covariance[2] == 0.0)  # a class of one sample
    assert "a" in str(mix) and "0.3333" in str(mix)


def test_a_large_offset_costs_no_digits(rng):
    mix = random_mixture(rng)
    away = np.round(mix.means * 1024.0) / 1024.0  # exact beside the offset
    near = pyssl.Mixture(mix.priors, away, mix.within_covariance)
    far = pyssl.Mixture(mix.priors, away + 2.0**30, mix.within_covariance)
    np.testing.assert_allclose(far.covariance, near.covariance, rtol=1e-13, atol=1e-13)
    weights = rng.standard_normal((2, 4))
    got = pyssl.class_retention(weights, far, NOISE)
    np.testing.assert_allclose(got, pyssl.class_retention(weights, near, NOISE), rtol=1e-10)


def test_priors_change_and_the_others_are_rescaled(rng):
    mix = random_mixture(rng)
    rarer = mix.with_prior(1, 0.01)
    assert rarer.priors[1] == 0.01
    assert rarer.priors[0] / rarer.priors[2] == pytest.approx(mix.priors[0] / mix.priors[2])
    assert rarer.priors.sum() == pytest.approx(1.0, abs=1e-15)
    built = pyssl.Mixture(rarer.priors, mix.means, mix.within_covariance)
    assert np.array_equal(built.covariance, rarer.covariance)
    other = mix.with_priors([0.2, 0.3, 0.5])
    assert np.array_equal(other.priors, [0.2, 0.3, 0.5])
    np.testing.assert_allclose(other.mean, np.array([0.2, 0.3, 0.5]) @ mix.means)


def test_long_tailed_priors_fall_geometrically_by_the_imbalance_factor():
    priors = pyssl.long_tailed_priors(5, 81.0)
    assert priors.sum() == pytest.approx(1.0, abs=1e-15)
    assert priors[:-1] / priors[1:] == pytest.approx(3.0, rel=1e-12)
    assert pyssl.long_tailed_priors(4, 1.0) == pytest.approx(0.25)
    assert np.array_equal(pyssl.long_tailed_priors(1, 100.0), [1.0])


def test_stratified_samples_have_the_shares_of_the_priors(rng):
    mix = random_mixture(rng)
    x, labels = mix.sample(1001, rng, stratified=True)
    assert len(x) == 1001
    assert np.abs(np.bincount(labels) - 1001 * mix.priors).max() <= 1.0
    assert len(mix.sample(0, rng)[0]) == 0


def test_mixtures_of_float32(rng):
    mix = random_mixture(rng)
    parts = [mix.priors, mix.means, mix.within_covariance]
    single = pyssl.Mixture(*(part.astype(np.float32) for part in parts))
    weights = rng.standard_normal((2, 4))
    got = pyssl.class_retention(weights, single, NOISE)
    np.testing.assert_allclose(got, pyssl.class_retention(weights, mix, NOISE), rtol=1e-4)
    assert pyssl.class_retention(weights.astype(np.float32), mix, NOISE).dtype == np.float32


# ---- retention -----------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3, 6])
@pytest.mark.parametrize("aug", AUGMENTATIONS, ids=repr)
def test_retention_is_what_dense_matrices_give(rng, aug, k):
    mix = random_mixture(rng, offset=1.0)
    weights = rng.standard_normal((k, 2 if aug is AUGMENTATIONS[-1] else 4))
    got = pyssl.class_retention(weights, mix, aug)
    np.testing.assert_allclose(got, reference(weights, mix, aug), atol=1e-9)
    if k >= weights.shape[1]:
        np.testing.assert_allclose(got, 1.0, atol=1e-12)


def test_retention_is_the_share_that_a_readout_of_samples_sees(rng):
    """Squared distances in units of the noise, in the embedding and in the views, on samples."""
    mix = random_mixture(rng)
    weights = rng.standard_normal((2, 4))
    x, labels = mix.sample(100_000, rng)
    views = NOISE.sample(x, rng)

    def distances(z):
        means = np.array([z[labels == c].mean(axis=0) for c in range(3)])
        within = np.atleast_2d(np.cov((z - means[labels]).T))
        away = means - z.mean(axis=0)
        return np.sum(away * np.linalg.solve(within, away.T).T, axis=1)

    got = pyssl.class_retention(weights, mix, NOISE)
    assert distances(views @ weights.T) / distances(views) == pytest.approx(got, abs=0.02)


def test_invertible_maps_of_the_embedding_change_nothing(rng):
    mix = random_mixture(rng, d=6)
    noise = augment.Noise(0.5)
    weights = rng.standard_normal((3, 6))
    expected = pyssl.class_retention(weights, mix, noise)
    turn, other = (np.linalg.qr(rng.standard_normal((3, 3)))[0] for _ in range(2))
    for scales in ([1.0, 1e-2, 1e-4], [1e-150, 1e150, 1.0], [1.0, 1e-8, 1e8]):
        mapped = np.diag(scales) @ turn @ weights
        np.testing.assert_allclose(
            pyssl.class_retention(mapped, mix, noise), expected, rtol=1e-9, err_msg=str(scales)
        )
    # a pseudo-inverse of W T W' has no digit left for this one
    mapped = other @ np.diag([1.0, 1e-5, 1e-9]) @ turn @ weights
    np.testing.assert_allclose(pyssl.class_retention(mapped, mix, noise), expected, rtol=1e-5)


def test_weights_of_low_rank_count_their_range_once(rng):
    mix = random_mixture(rng, d=6)
    weights = rng.standard_normal((2, 6))
    expected = pyssl.class_retention(weights, mix, NOISE6)
    for factor in (rng.standard_normal((5, 2)), rng.standard_normal((9, 2)) * 1e-6):
        repeated = factor @ weights
        np.testing.assert_allclose(
            pyssl.class_retention(repeated, mix, NOISE6), expected, rtol=1e-9
        )
        single = pyssl.class_retention(repeated.astype(np.float32), mix, NOISE6)
        np.testing.assert_allclose(single, expected, rtol=1e-4)
    padded = np.vstack([np.zeros((3, 6)), weights, np.zeros((1, 6))])
    np.testing.assert_allclose(pyssl.class_retention(padded, mix, NOISE6), expected, rtol=1e-12)


NOISE6 = augment.Noise(np.linspace(0.2, 1.0, 6) * np.eye(6))


def test_nothing_is_kept_by_zero_weights_and_all_by_all(rng):
    mix = random_mixture(rng)
    assert np.array_equal(pyssl.class_retention(np.zeros((2, 4)), mix, NOISE), np.zeros(3))
    everything = pyssl.class_retention(np.eye(4), mix, NOISE)
    np.testing.assert_allclose(everything, 1.0, rtol=1e-12)


def test_a_bias_and_batches(rng):
    mix = random_mixture(rng)
    batch = rng.standard_normal((2, 3, 2, 4))
    got = pyssl.class_retention(batch, mix, NOISE)
    assert got.shape == (2, 3, 3)
    for index in np.ndindex(2, 3):
        one = pyssl.class_retention(batch[index], mix, NOISE)
        np.testing.assert_allclose(got[index], one, rtol=1e-12)
    biased = np.concatenate([batch, 5.0 * rng.standard_normal((2, 3, 2, 1))], axis=-1)
    np.testing.assert_allclose(pyssl.class_retention(biased, mix, NOISE), got, rtol=1e-12)


def test_where_nothing_hides_a_class_retention_is_undefined(rng):
    # T has rank 2: classes 0 and 1 differ inside of it, class 2 stands outside
    means = np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    mix = pyssl.Mixture([0.25, 0.25, 0.5], means, np.diag([1.0, 2.0, 0.0]))
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    for rotation in (np.eye(3), turn):
        turned = pyssl.Mixture(
            mix.priors, mix.means @ rotation.T, rotation @ mix.within_covariance @ rotation.T
        )
        for row, expected in (([1, 0, 0], 1.0), ([1, 1, 5], 1 / 3), ([0, 1, 7], 0.0)):
            weights = np.array([row], dtype=float) @ rotation.T
            got = pyssl.class_retention(weights, turned)
            assert got[:2] == pytest.approx(expected, abs=1e-12), row
            assert math.isnan(got[2])  # its mean is that of all: it has no offset to keep
        outside = pyssl.Mixture(
            mix.priors,
            turned.means + 0.1 * rotation[:, 2] * [[1], [0], [0]],
            turned.within_covariance,
        )
        assert np.isnan(pyssl.class_retention(rotation.T[:1], outside)).all()


def test_a_mixture_of_one_class_and_views_without_noise_have_no_retention():
    lonely = pyssl.Mixture([1.0], [[3.0]], [[2.0]])
    assert np.isnan(pyssl.class_retention([[1.0]], lonely, augment.Noise(1.0))).all()
    points = pyssl.Mixture([0.5, 0.5], [[0.0], [1.0]], [[0.0]])
    assert np.isnan(pyssl.class_retention([[1.0]], points)).all()
    assert np.array_equal(pyssl.class_retention([[1.0]], points, augment.Noise(1.0)), [1.0, 1.0])


LANDSCAPES = [
    (pyssl.InfoNCE(), 0.3),
    (pyssl.InfoNCE(0.5, partition="joint"), 0.4),
    (pyssl.InfoNCE(similarity="dot"), 0.3),
    (pyssl.InfoNCE(negatives=8), 0.3),
    (pyssl.SpectralContrastive(), 0.3),
    (pyssl.SquaredVICReg(1.2), 0.1),
    (pyssl.BarlowTwins(1.0, normalize=False), 0.5),
    (pyssl.BarlowTwins(0.5, epsilon=0.0), 0.0),
    (pyssl.NTXent(1.0), 0.0),
    (pyssl.VICReg(), 0.1),
]


@pytest.mark.parametrize(("loss", "g"), LANDSCAPES, ids=lambda value: str(value)[:24])
def test_a_landscape_keeps_what_its_minimum_embeds(rng, loss, g):
    mix = random_mixture(rng)
    moments = mix.moments(NOISE).centered()
    land = loss.sharpest(moments, 2, g)[1]
    found = land.minimum() if hasattr(land, "minimum") else pyssl.minimize(land)
    got = pyssl.class_retention(land, mix, NOISE)
    expected = pyssl.class_retention(found.weights, mix, NOISE, loss=loss)
    np.testing.assert_allclose(got, expected, atol=1e-7)
    assert got.max() > 0.1  # something is learned
    assert got.min() < 0.999  # and not all of it


def test_a_batch_keeps_what_its_minimum_embeds(rng):
    mix, loss = random_mixture(rng), pyssl.SpectralContrastive()
    x, _ = mix.sample(500, rng)
    batch = loss.empirical(NOISE.sample(x, rng), NOISE.sample(x, rng), 2, 0.3)
    found = pyssl.minimize(batch)
    expected = pyssl.class_retention(found.weights, mix, NOISE, loss=loss)
    np.testing.assert_allclose(pyssl.class_retention(batch, mix, NOISE), expected, rtol=1e-7)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_units_of_the_data_and_of_the_views_make_no_difference(rng, scale):
    flat = np.diag([1.0, 2.0, 0.5, 0.0])  # T is singular: what is rounding has to be known
    means = rng.standard_normal((3, 4)) * [1.0, 1.0, 1.0, 0.0]
    turn = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    weights = rng.standard_normal((2, 4))
    mix = pyssl.Mixture([0.2, 0.3, 0.5], means @ turn.T, turn @ flat @ turn.T)
    expected = pyssl.class_retention(weights, mix)
    assert np.isfinite(expected).all()
    scaled = pyssl.Mixture(mix.priors, scale * mix.means, scale**2 * mix.within_covariance)
    np.testing.assert_allclose(pyssl.class_retention(weights, scaled), expected, rtol=1e-9)
    views = augment.Linear(scale * np.eye(4))
    np.testing.assert_allclose(pyssl.class_retention(weights, mix, views), expected, rtol=1e-9)


def test_a_diverging_minimum_keeps_the_span_of_its_modes(rng):
    mix = random_mixture(rng)
    land = pyssl.InfoNCE().population(mix.moments(augment.Noise(np.diag([0.0, 0, 1, 1]))), 3)
    assert not land.minimum().attained
    noise = augment.Noise(np.diag([0.0, 0.0, 1.0, 1.0]))
    got = pyssl.class_retention(land, mix, noise)
    nearly = pyssl.InfoNCE().population(mix.moments(noise), 3, weight_decay=1e-9)
    np.testing.assert_allclose(got, pyssl.class_retention(nearly, mix, noise), atol=1e-4)
    np.testing.assert_allclose(got, reference(land.vectors[:, :3].T, mix, noise), atol=1e-9)


def test_coordinates_of_modes_are_those_of_the_landscape(rng):
    mix = random_mixture(rng)
    land = pyssl.InfoNCE().population(mix.moments(NOISE), 2, weight_decay=0.3)
    got = pyssl.class_retention(land.in_modes(), mix, NOISE)
    np.testing.assert_allclose(got, pyssl.class_retention(land, mix, NOISE), rtol=1e-12)


@pytest.mark.parametrize("loss", [pyssl.InfoNCE(), pyssl.SpectralContrastive()], ids=repr)
def test_a_bias_of_a_landscape_plays_no_part(rng, loss):
    mix = random_mixture(rng, offset=1.0)
    moments = mix.moments(NOISE)
    biased = loss.population(moments, 3, weight_decay=0.3, bias=True)
    # spectral contrastive spends a dimension on a constant
    k = 2 if loss.keeps_constant else 3
    plain = loss.population(moments.centered(), k, weight_decay=0.3)
    got = pyssl.class_retention(biased, mix, NOISE)
    np.testing.assert_allclose(got, pyssl.class_retention(plain, mix, NOISE), atol=1e-9)


def test_complete_collapse_keeps_nothing(rng):
    mix = random_mixture(rng)
    land = pyssl.InfoNCE().population(mix.moments(NOISE), 2, weight_decay=100.0)
    assert np.array_equal(pyssl.class_retention(land, mix, NOISE), np.zeros(3))
    # what training leaves of it is small, not zero
    left = 1e-9 * rng.standard_normal((4, 4))
    assert pyssl.class_retention(left, mix, NOISE) == pytest.approx(1.0)
    assert np.array_equal(
        pyssl.class_retention(left, mix, NOISE, loss=pyssl.InfoNCE()), np.zeros(3)
    )


def test_an_unbounded_landscape_has_no_minimum_to_measure(rng):
    land = pyssl.SpectralLandscape(np.eye(2), np.diag([1.0, 0.0]), pyssl.Quartic(1.0), 1)
    mix = random_mixture(rng, d=2)
    with pytest.raises(ValueError, match="land must be bounded below"):
        pyssl.class_retention(land, mix)


# ---- critical priors -----------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.5, 1.0])
@pytest.mark.parametrize("within", [0.0, 0.05])
@pytest.mark.parametrize("common", [1, 3])
def test_an_orthogonal_class_dies_where_the_closed_form_says(rng, tau, within, common):
    """Theory 7: its eigenvalue of A is p (1 - p) |delta|^2 + w, and it dies iff <= g tau/2."""
    d, g = 5, 0.8
    spread = np.diag([within, 2.0, 1.5, 1.0, 0.5])
    means = np.zeros((common + 1, d))
    means[1:, 1:] = rng.standard_normal((common, d - 1))
    means[0, 1:] = np.full(common, 1.0 / common) @ means[1:, 1:]  # apart along one axis alone
    means[0, 0] = 3.0
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    mix = pyssl.Mixture(
        np.full(common + 1, 1.0 / (common + 1)), means @ turn.T, turn @ spread @ turn.T
    )
    noise = augment.Noise(turn @ np.diag([0.3, 1.0, 0.8, 1.2, 1.0]) @ turn.T)
    root = math.sqrt(0.25 - (0.5 * g * tau - within) / 9.0)
    p = pyssl.critical_prior(
        pyssl.InfoNCE(tau), mix, noise, 0, embedding_dim=d, weight_decay=g, tolerance=1e-9
    )
    assert p == pytest.approx(0.5 - root, rel=1e-7)  # the small root
    for factor, kept in ((0.99, False), (1.01, True)):
        there = mix.with_prior(0, factor * p)
        land = pyssl.InfoNCE(tau).population(there.moments(noise), d, weight_decay=g)
        assert (pyssl.class_retention(land, there, noise)[0] >= 0.5) == kept


@pytest.mark.parametrize("factor", [0.3, 3.0])
def test_what_other_modes_see_of_a_class_whose_own_is_lost(rng, factor):
    """Theory 7: noise that does not commute leaves a share of it, in closed form."""
    d, p, g = 4, 0.2, 2.0
    delta = np.array([2.0, 0.0, 0.0, 0.0])
    mix = pyssl.Mixture([1.0 - p, p], [np.zeros(d), delta], np.diag([0.3, 2.0, 1.7, 1.5]))
    other = np.linalg.qr(rng.standard_normal((d, d)))[0]
    noise = augment.Noise(factor * (other * [0.1, 1.0, 2.0, 4.0]) @ other.T)
    eigenvalue = p * (1.0 - p) * 4.0 + 0.3
    hides = mix._pooled + noise.covariance
    alpha, beta = delta @ hides @ delta, delta @ np.linalg.solve(hides, delta)
    squared = delta @ delta
    s = p * (1.0 - p) * squared
    left = (alpha * beta - squared**2) / (beta * (alpha + 2.0 * s * squared + s * s * beta))
    assert 0.01 < left < 0.5
    moments = mix.moments(noise)
    for tau, rank, expected in (
        (2.0 * eigenvalue / g * (1.0 - 1e-7), d, 1.0),
        (2.0 * eigenvalue / g * (1.0 + 1e-7), d - 1, left),
    ):
        land = pyssl.InfoNCE(tau).population(moments, d, weight_decay=g)
        assert land.minimum().rank == rank
        assert pyssl.class_retention(land, mix, noise)[1] == pytest.approx(expected, abs=1e-5)


def test_outcomes_of_a_critical_prior():
    mix = pyssl.Mixture([0.5, 0.5], [[0.0, 0.0], [0.0, 2.0]], np.diag([2.0, 0.4]))
    noise = augment.Noise(0.5)

    def critical(g, loss=None, k=2):
        return pyssl.critical_prior(
            loss or pyssl.InfoNCE(), mix, noise, 1, embedding_dim=k, weight_decay=g
        )

    assert critical(0.7) == 0.0  # the variance within the class is enough, w > g tau/2
    assert critical(1.4) == pytest.approx(0.5 - math.sqrt(0.25 - 0.3 / 4.0), rel=1e-5)
    assert critical(2.9) == math.inf  # at most |delta|^2/4 + w
    barlow = pyssl.BarlowTwins(1.0, normalize=False)
    assert math.isnan(critical(0.0, barlow, k=1))  # either of two tied modes may be learned
    assert critical(0.0, barlow) == 0.0
    # without noise and variance along it the class stands apart
    bare = pyssl.Mixture([0.5, 0.5], [[0.0, 0.0], [0.0, 2.0]], np.diag([2.0, 0.0]))
    flat = augment.Noise(np.diag([1.0, 0.0]))
    p = pyssl.critical_prior(pyssl.InfoNCE(), bare, flat, 1, embedding_dim=2, weight_decay=1.0)
    assert math.isnan(p)


def test_by_capacity_retention_jumps_where_alignments_cross():
    """One dimension for two directions: theory 7's heuristic, where it is exact."""
    # rho of the class is (p (1 - p) 9 + w)/(that + c), that of the other 2/(2 + 1)
    mix = pyssl.Mixture([0.5, 0.5], [[0.0, 0.0], [0.0, 3.0]], np.diag([2.0, 0.1]))
    noise = augment.Noise(np.diag([1.0, 0.5]))
    root = 0.5 - math.sqrt(0.25 - (2.0 * 0.5 - 0.1) / 9.0)
    for loss in (
        pyssl.InfoNCE(),
        pyssl.InfoNCE(similarity="dot"),
        pyssl.SpectralContrastive(),
        pyssl.SquaredVICReg(),
    ):
        p = pyssl.critical_prior(loss, mix, noise, 1, embedding_dim=1, centered=True)
        assert p == pytest.approx(root, rel=1e-5)
        values = []
        for q in (0.999 * p, 1.001 * p):
            there = mix.with_prior(1, q)
            land = loss.population(there.moments(noise).centered(), 1)
            values.append(pyssl.class_retention(land, there, noise)[1])
        assert values == pytest.approx([0.0, 1.0], abs=1e-9)


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_a_class_that_leans_on_others_crosses_its_threshold(rng, threshold):
    mix = random_mixture(rng, classes=4, d=6)
    loss, noise, g = pyssl.SpectralContrastive(), augment.Noise(0.8), 0.6

    def retention(p):
        there = mix.with_prior(3, p)
        land = loss.population(there.moments(noise).centered(), 3, weight_decay=g)
        return pyssl.class_retention(land, there, noise)[3]

    p = pyssl.critical_prior(
        loss, mix, noise, 3, embedding_dim=3, weight_decay=g, threshold=threshold, centered=True
    )
    if p == 0.0:
        assert retention(1e-6) >= threshold
    else:
        assert 1e-6 < p < 1.0
        assert retention(p * (1.0 - 1e-5)) < threshold <= retention(p * (1.0 + 1e-5))


def test_a_loss_without_closed_form_has_critical_priors_too():
    mix = pyssl.Mixture([0.5, 0.5], [[0.0, 0.0], [0.0, 3.0]], np.diag([2.0, 0.1]))
    loss, noise = pyssl.VICReg(epsilon=0.25), augment.Noise(0.5)
    # theory 3.5: a direction of the origin is lost iff var/(2 sqrt(eps)) Sigma - 2 inv C <= 0
    p = pyssl.critical_prior(loss, mix, noise, 1, embedding_dim=2, tolerance=1e-2, smallest=1e-3)
    assert 1e-3 < p < 0.5
    for factor, kept in ((0.9, False), (1.1, True)):
        there = mix.with_prior(1, factor * p)
        land = loss.population(there.moments(noise), 2)
        assert (pyssl.class_retention(land, there, noise)[1] >= 0.5) == kept


# ---- side by side --------------------------------------------------------------------------------


def long_tail():
    """Five classes along axes of their own, beside three directions of variance."""
    means = np.zeros((5, 8))
    means[:, :5] = 3.0 * np.eye(5)
    within = np.diag([*[0.1] * 5, 0.6, 0.4, 0.2])
    return pyssl.Mixture(pyssl.long_tailed_priors(5, 50.0), means, within)


def test_by_capacity_rare_classes_go_first_and_barlow_twins_orders_nothing():
    mix, noise = long_tail(), augment.Noise(1.0)
    table = pyssl.compare_retention(mix, noise, embedding_dim=3, centered=True)
    ordered = [name.startswith(("Info", "Spec", "Squa", "NTX")) for name in table.losses]
    assert sum(ordered) == 5
    for kept in table.kept[ordered]:
        assert kept.tolist() == sorted(kept.tolist(), reverse=True)  # the common ones
        assert 0 < kept.sum() < 5
    barlow = next(i for i, name in enumerate(table.losses) if name.startswith("Barlow"))
    assert table.open[barlow].all()
    assert not table.kept[barlow].any()
    assert not table.open[ordered].any()
    # with decay it does: by their covariance
    decayed = pyssl.compare_retention(
        mix, noise, [pyssl.BarlowTwins(1.0, normalize=False)], embedding_dim=8, weight_decay=2.2
    )
    assert decayed.kept[0].tolist() == [True, True, True, False, False]
    assert decayed.weight_decay == pytest.approx([2.2])


def test_a_table_is_what_class_retention_gives():
    mix, noise = long_tail(), augment.Noise(1.0)
    losses = [pyssl.InfoNCE(0.5), pyssl.SpectralContrastive()]
    table = pyssl.compare_retention(
        mix, noise, losses, embedding_dim=4, weight_decay=[0.2, 0.5], threshold=0.4
    )
    for row, loss, g in zip(table.retention, losses, (0.2, 0.5), strict=True):
        land = loss.population(mix.moments(noise), 4, weight_decay=g)
        assert np.array_equal(row, pyssl.class_retention(land, mix, noise))
    assert table.losses == ("InfoNCE(temperature=0.5)", "SpectralContrastive()")
    assert np.array_equal(table.kept, table.retention >= 0.4)
    text = str(table)
    assert "embedding dim 4" in text and "from 0.4 on" in text
    assert len(text.splitlines()) == 6


def test_a_table_of_many_classes_stays_readable():
    means = np.linspace(-3.0, 3.0, 30)[:, None]
    mix = pyssl.Mixture(np.full(30, 1.0 / 30.0), means, [[1.0]])
    text = str(pyssl.compare_retention(mix, None, [pyssl.SpectralContrastive()], embedding_dim=1))
    assert "and 20 more" in text
    assert max(map(len, text.splitlines())) < 140


# ---- beside training -----------------------------------------------------------------------------

TRAINED = [
    (pyssl.SpectralContrastive(), 4000),
    (pyssl.SquaredVICReg(1.3), 4000),
    (pyssl.BarlowTwins(1.0, normalize=False), 4000),
    (pyssl.InfoNCE(), 800),
    (pyssl.InfoNCE(similarity="dot"), 800),
    (pyssl.VICReg(), 1000),
]


def trained(loss, mix, noise, n, k, g, *, seed=0):
    """Train on views of a sample; return retention there, and theory from the same moments."""
    rng = np.random.default_rng(seed)
    x, _ = mix.sample(n, rng, stratified=True)
    views = [noise.sample(x, rng) for _ in range(2)]
    mean = 0.5 * (views[0].mean(axis=0) + views[1].mean(axis=0))
    x, x_plus = (view - mean for view in views)
    moments = pyssl.Moments.from_views(x, x_plus).centered()
    batch = loss.empirical(x, x_plus, k, g)
    end = train(batch, moments, loss.embedding_unit, np.random.default_rng(seed + 1))
    got = pyssl.class_retention(end.weights, mix, noise, loss=loss)
    land = loss.sharpest(moments, k, g)[1]
    return got, pyssl.class_retention(land, mix, noise)


@pytest.mark.parametrize(("loss", "n"), TRAINED, ids=lambda value: str(value)[:20])
@pytest.mark.parametrize("ratio", [5.0, 40.0])
def test_training_keeps_the_classes_that_theory_keeps(loss, n, ratio):
    mix = long_tail().with_priors(pyssl.long_tailed_priors(5, ratio))
    noise = augment.Noise(np.diag(np.linspace(1.2, 0.8, 8)))
    land = loss.sharpest(mix.moments(noise).centered(), 8)[1]
    if isinstance(land, pyssl.SpectralLandscape):
        critical = pyssl.classify(land).critical_weight_decay
        g = float(np.sqrt(critical[2] * critical[3]))  # three modes are learned
    else:
        g = 0.1 * float(land.critical_weight_decay[0])
    got, theory = trained(loss, mix, noise, n, 8, g)
    assert np.array_equal(got >= 0.5, theory >= 0.5)
    assert 0 < np.sum(theory >= 0.5) < 5
    # exact in the moments, or InfoNCE near the origin, where no more than they count
    assert got == pytest.approx(theory, abs=0.1 if loss.needs_gaussian_views else 0.02)


@pytest.mark.parametrize("loss", [loss for loss, _ in TRAINED[:4]], ids=lambda loss: loss.key)
def test_training_around_a_critical_prior_loses_and_keeps_the_class(loss):
    """Theory 7: apart along an axis of its own, by decay, 10% below and above."""
    within = np.diag([0.1, 2.5, 2.0, 1.6])
    means = np.zeros((2, 4))
    means[1, 0] = 4.0
    mix = pyssl.Mixture([0.5, 0.5], means, within)
    noise = augment.Noise(np.diag([0.4, 1.0, 1.0, 1.0]))
    critical = pyssl.classify(loss.population(mix.with_prior(1, 0.06).moments(noise).centered(), 4))
    g = float(critical.critical_weight_decay[3])
    p = pyssl.critical_prior(loss, mix, noise, 1, embedding_dim=4, weight_decay=g, centered=True)
    assert p == pytest.approx(0.06, rel=1e-4)
    n = 2000 if loss.needs_gaussian_views else 20_000
    for factor, kept in ((0.9, False), (1.1, True)):
        got, _ = trained(loss, mix.with_prior(1, factor * p), noise, n, 4, g)
        assert (got[1] >= 0.5) == kept


def test_by_capacity_barlow_twins_keeps_another_class_from_every_start():
    mix, noise = long_tail(), augment.Noise(1.0)
    loss = pyssl.BarlowTwins(1.0, normalize=False)
    ends = [trained(loss, mix, noise, 4000, 2, 0.0, seed=seed)[0] for seed in range(8)]
    assert len({tuple(got >= 0.5) for got in ends}) > 2
    ordered = [
        trained(pyssl.SpectralContrastive(), mix, noise, 4000, 2, 0.0, seed=seed)[0] >= 0.5
        for seed in range(3)
    ]
    assert len({tuple(kept) for kept in ordered}) == 1
    assert ordered[0].tolist() == sorted(ordered[0].tolist(), reverse=True)


def test_by_default_there_is_room_for_every_mode() -> None:
    mix = pyssl.Mixture([0.9, 0.1], [[0.0, 0.0], [0.0, 3.0]], np.diag([2.0, 0.1]))
    wide = pyssl.augment.Linear(np.eye(3, 2)) | pyssl.augment.Noise(1.0)
    loss = pyssl.InfoNCE()
    for aug, k in ((pyssl.augment.Noise(1.0), 2), (None, 2), (wide, 3)):
        assert pyssl.compare_retention(mix, aug, [loss], weight_decay=1.0).embedding_dim == k
        given = pyssl.critical_prior(loss, mix, aug, 1, embedding_dim=k, weight_decay=1.0)
        assert pyssl.critical_prior(loss, mix, aug, 1, weight_decay=1.0) == given


def test_labels_that_mix_numbers_and_text_are_refused() -> None:
    with pytest.raises(TypeError, match="labels can't be sorted"):
        pyssl.Mixture.from_data(np.eye(4), [0, "a", 0, "a"])
    assert pyssl.Mixture.from_data(np.eye(4), ["b", "a", "b", "a"]).classes == ("a", "b")


def test_a_search_that_does_not_converge_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    mix = pyssl.Mixture([0.7, 0.3], [[0.0, 0.0], [0.0, 3.0]], np.diag([2.0, 0.1]))
    noise = pyssl.augment.Noise(1.0)
    land = pyssl.VICReg().population(mix.moments(noise), 2)
    pyssl.class_retention(land, mix, noise)  # converges, and warns of nothing
    hurried = functools.partial(pyssl.minimize, max_iterations=1)
    monkeypatch.setattr("pyssl.imbalance.minimize", hurried)
    with pytest.warns(RuntimeWarning, match="did not converge: the iterations ran out"):
        pyssl.class_retention(land, mix, noise)
