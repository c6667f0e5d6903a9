"""Augmentations: exact moments against sampling and against their definition (theory 6)."""

from __future__ import annotations

import math
import pickle
import re

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage

import pyssl
from pyssl import Moments
from pyssl.augment import (
    Blur,
    Composition,
    Crop,
    Group,
    Identity,
    Linear,
    Mask,
    Noise,
    OneOf,
    Reflection,
    Resize,
    Scale,
    critical_strengths,
)

D = 6  # of the vectors; of a grid (2, 3)
EPS = np.finfo(float).eps
RNG = np.random.default_rng(0)
MIXING = RNG.standard_normal((D, D))
MEAN = RNG.standard_normal(D)
SECOND = MIXING @ MIXING.T + np.outer(MEAN, MEAN)
NOISE = np.cov(RNG.standard_normal((D, 20)))
MAPS = np.eye(D) + 0.4 * RNG.standard_normal((3, D, D))
CYCLE = np.array([np.roll(np.eye(D), k, axis=0) for k in range(D)])


def gaussian_maps(rng, n):
    return np.eye(D)[:4] + 0.3 * rng.standard_normal((n, 4, D))


def gaussian_second_order(m):
    return m[:4, :4] + 0.09 * np.trace(m) * np.eye(4)


def exponential(rng, n):
    return rng.exponential(size=n)


AUGMENTATIONS = {
    "identity": Identity(),
    "white noise": Noise(0.5),
    "noise": Noise(NOISE),
    "mask": Mask(0.7),
    "rescaled mask": Mask(0.7, rescale=True),
    "scale": Scale(0.8, 0.3),
    "uniform scale": Scale.uniform(0.2, 1.2),
    "sampled scale": Scale(1.0, 1.0, exponential),
    "stronger scale": Scale(0.8, 0.1, strength=2.0),
    "reflection": Reflection(MEAN, 0.3),
    "matrices": Group(CYCLE, 0.6),
    "shifts": Group.shifts(D),
    "grid shifts": Group.shifts((2, 3), 0.8),
    "flips": Group.flips((2, 3)),
    "fixed linear": Linear(MAPS[0][:4]),
    "linear": Linear(np.eye(D)[:4], gaussian_second_order, gaussian_maps),
    "weaker linear": Linear(MAPS[0], strength=0.5),
    "one of": OneOf([Linear(m) for m in MAPS], [0.2, 0.3, 0.5]),
    "one of many kinds": OneOf([Identity(), Noise(0.3) | Mask(0.5), Reflection(MEAN)]),
    "crop": Crop((2, 3), (2, 2)),
    "resized crop": Crop((2, 3), [(1, 2), (2, 2)], size=(2, 3)),
    "weaker crop": Crop((2, 3), [(1, 2), (2, 2)], size=(2, 3)).with_strength(0.5),
    "resize": Resize((2, 3), (3, 2)),
    "blur": Blur((2, 3), [0.0, 0.7, 1.5], [0.5, 0.25, 0.25]),
    "composition": Noise(NOISE) | Mask(0.8) | Crop((2, 3), (2, 2)) | Scale(1.0, 0.2),
}
EVERY = pytest.mark.parametrize("aug", AUGMENTATIONS.values(), ids=AUGMENTATIONS)


def clean(n, rng, dtype=float):
    return (MEAN + rng.standard_normal((n, D)) @ MIXING.T).astype(dtype)


def parts(moments):
    return (
        moments.covariance,
        moments.cross_covariance,
        moments.augmentation_covariance,
        moments.mean,
    )


def distance(left, right):
    scale = np.linalg.norm(right.covariance)
    pairs = zip(parts(left), parts(right), strict=True)
    return max(np.linalg.norm(a - b) / scale for a, b in pairs)


def assert_same(left, right, rtol=1e-12):
    assert distance(left, right) <= rtol


# ---- exact moments -------------------------------------------------------------------------------


@EVERY
def test_moments_are_those_of_samples(aug):
    """The error falls as 1/sqrt(n): by 8 from n to 64 n, here by 4 at the least."""
    exact = aug.moments(SECOND, MEAN)
    rng = np.random.default_rng(1)
    errors = []
    for n, repeats in ((500, 24), (32_000, 6)):
        squares = []
        for _ in range(repeats):
            x = clean(n, rng)
            views = aug.sample(x, rng), aug.sample(x, rng)
            squares.append(distance(Moments.from_views(*views), exact) ** 2)
        errors.append(math.sqrt(np.mean(squares)))
    assert errors[1] < 0.03
    assert 4.0 < errors[0] / errors[1] < 16.0


@EVERY
def test_moments_are_valid_and_ordered(aug):
    moments = aug.moments(SECOND, MEAN)
    sigma, a, c, mean = parts(moments)
    again = Moments(sigma, a, mean, augmentation_covariance=c)  # which validates them
    np.testing.assert_allclose(again.alignments, moments.alignments, atol=1e-12)
    assert moments.alignments.min() > -1e-12
    assert moments.dim == (aug.output_dim or D)
    assert moments.n_samples is None


@EVERY
def test_moments_from_data_are_those_of_its_moments(aug):
    x = clean(3000, np.random.default_rng(2))
    got = Moments.from_data(x, aug)
    assert_same(got, aug.moments(x.T @ x / len(x), x.mean(axis=0)))
    assert got.n_samples == len(x)


def test_matrices_by_hand():
    exact = Mask(0.75).moments(SECOND, MEAN)
    sigma = 0.5625 * SECOND + 0.1875 * np.diag(np.diag(SECOND))
    centre = 0.5625 * np.outer(MEAN, MEAN)
    np.testing.assert_allclose(exact.covariance, sigma - centre, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(exact.cross_moment, 0.5625 * SECOND, rtol=1e-12, atol=1e-12)
    exact = Scale.uniform(0.5, 2.0).moments(SECOND, MEAN)
    np.testing.assert_allclose(exact.second_moment, 1.75 * SECOND, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(exact.cross_moment, 1.5625 * SECOND, rtol=1e-12, atol=1e-12)
    v = MEAN / np.linalg.norm(MEAN)
    h = np.eye(D) - 2.0 * np.outer(v, v)
    exact = Reflection(7.0 * v, 0.3).moments(SECOND, MEAN)
    second = 0.7 * SECOND + 0.3 * h @ SECOND @ h
    np.testing.assert_allclose(exact.second_moment, second, rtol=1e-12, atol=1e-12)
    exact = OneOf([Linear(m) for m in MAPS], [0.2, 0.3, 0.5]).moments(SECOND, MEAN)
    p = np.array([0.2, 0.3, 0.5])
    second = sum(q * m @ SECOND @ m.T for q, m in zip(p, MAPS, strict=True))
    tbar = np.tensordot(p, MAPS, axes=1)
    np.testing.assert_allclose(exact.second_moment, second, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(exact.cross_moment, tbar @ SECOND @ tbar.T, rtol=1e-12, atol=1e-12)


def test_a_sampler_stands_in_for_the_second_order():
    exact = Linear(np.eye(D)[:4], gaussian_second_order).moments(SECOND, MEAN)
    drawn = Linear(np.eye(D)[:4], sampler=gaussian_maps).moments(SECOND, MEAN)
    np.testing.assert_array_equal(drawn.cross_covariance, exact.cross_covariance)
    gap = drawn.augmentation_covariance - exact.augmentation_covariance
    assert 0.0 < np.abs(gap).max() < 0.1 * np.abs(exact.augmentation_covariance).max()
    with pytest.raises(NotImplementedError, match=r"Linear\.sample: a random map needs a sampler"):
        Linear(np.eye(D)[:4], gaussian_second_order).sample(np.ones((2, D)))


@EVERY
def test_mean_defaults_to_zero(aug):
    assert_same(aug.moments(SECOND), aug.moments(SECOND, np.zeros(D)), rtol=0.0)


@pytest.mark.parametrize("name", ["white noise", "noise", "mask", "sampled scale", "reflection"])
def test_weak_augmentations_keep_their_digits(name):
    """C of a map that deviates by 1e-9 from its mean, beside a mean of 1e3: theory 1, R."""
    weak = 1e-18
    aug = AUGMENTATIONS[name].with_strength(weak)
    offset = 1e3 * MEAN
    second = SECOND + np.outer(offset, offset)
    got = aug.moments(second, offset).augmentation_covariance
    x = second - np.outer(offset, offset)  # what centring leaves, to the rounding of `second`
    expected = {
        "white noise": 0.5 * weak * np.eye(D),
        "noise": weak * NOISE,
        "mask": -weak * math.log(0.7) * np.diag(np.diag(x + np.outer(offset, offset))),
        "sampled scale": weak * (x + np.outer(offset, offset)),
        "reflection": 4.0
        * 0.3
        * weak
        * np.outer(MEAN, MEAN)
        / (MEAN @ MEAN) ** 2
        * (MEAN @ (x + np.outer(offset, offset)) @ MEAN),
    }[name]
    if name == "mask":  # 0.7^s itself has no more digits than 1 - 0.7^s > eps leaves
        got = AUGMENTATIONS[name].with_strength(1e-9).moments(second, offset)
        got, expected = got.augmentation_covariance, 1e9 * expected
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max())


def test_a_mean_that_the_group_leaves_alone_costs_no_digits():
    # of shifted images with a common brightness, C must not see the brightness
    offset = 1e6 * np.ones(D)
    bright = Group.shifts(D).moments(SECOND + np.outer(offset, offset), offset)
    x = (SECOND + np.outer(offset, offset)) - np.outer(offset, offset)
    dark = Group.shifts(D).moments(x)
    np.testing.assert_allclose(
        bright.augmentation_covariance, dark.augmentation_covariance, atol=1e-12 * np.abs(x).max()
    )


def test_float32_moments_are_accepted():
    rough = Mask(0.5).moments(SECOND.astype(np.float32), MEAN.astype(np.float32))
    assert_same(rough, Mask(0.5).moments(SECOND, MEAN), rtol=1e-6)


# ---- groups --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "invariant"),
    [
        (Group.shifts(D), lambda x: np.repeat(x.mean(axis=1, keepdims=True), D, axis=1)),
        (Group.shifts((2, 3)), lambda x: np.repeat(x.mean(axis=1, keepdims=True), D, axis=1)),
        (Group.flips(D), lambda x: 0.5 * (x + x[:, ::-1])),
        (
            Group.flips((2, 3), axes=(1,)),
            lambda x: 0.5 * (x.reshape(-1, 2, 3) + x.reshape(-1, 2, 3)[..., ::-1]).reshape(-1, D),
        ),
        (Group(CYCLE), lambda x: np.repeat(x.mean(axis=1, keepdims=True), D, axis=1)),
    ],
    ids=["1-D shifts", "2-D shifts", "1-D flips", "one axis", "matrices"],
)
def test_groups_project_exactly(group, invariant):
    p = invariant(np.eye(D))
    moments = group.moments(SECOND, MEAN)
    np.testing.assert_allclose(moments.mean, p @ MEAN, atol=4 * EPS * np.abs(MEAN).max())
    atol = 64 * EPS * np.abs(SECOND).max()
    covariance = SECOND - np.outer(MEAN, MEAN)
    np.testing.assert_allclose(moments.cross_covariance, p @ covariance @ p, atol=atol)
    # the views of a sample are as different as its orbit: A aligned fully or not at all
    np.testing.assert_allclose(moments.alignments, np.round(moments.alignments), atol=1e-12)
    assert moments.alignments.sum() == pytest.approx(np.trace(p))
    # the views do not change in distribution when they are augmented again
    assert_same((group | group).moments(SECOND, MEAN), moments)


def test_groups_against_the_sum_over_their_elements():
    shape, rng = (2, 3), np.random.default_rng(3)
    elements = [
        np.stack([np.roll(e.reshape(shape), (i, j), (0, 1)).ravel() for e in np.eye(D)], axis=1)
        for i in range(2)
        for j in range(3)
    ]
    average = sum(g @ SECOND @ g.T for g in elements) / 6
    got = Group.shifts(shape).moments(SECOND)
    np.testing.assert_allclose(got.covariance, average, atol=1e-12 * np.abs(SECOND).max())
    assert_same(got, Group(np.array(elements)).moments(SECOND))
    x = rng.standard_normal((1, D))
    drawn = Group.shifts(shape).sample(np.repeat(x, 400, axis=0), rng)
    orbit = np.array([g @ x[0] for g in elements])
    seen = np.unique(np.round(drawn, 12), axis=0)
    np.testing.assert_allclose(seen, np.unique(np.round(orbit, 12), axis=0))


def test_larger_grids_are_no_burden():
    shifts = Group.shifts((8, 8)) | Group.flips((8, 8))
    assert shifts.moments(np.eye(64)).alignments.round(9).tolist() == [1.0] + [0.0] * 63


# ---- grids ---------------------------------------------------------------------------------------


def test_crops_are_windows():
    image = np.arange(12.0).reshape(1, 12)
    crop = Crop((3, 4), (2, 3))
    windows = np.lib.stride_tricks.sliding_window_view(image.reshape(3, 4), (2, 3)).reshape(-1, 6)
    drawn = crop.sample(np.repeat(image, 300, axis=0), 0)
    np.testing.assert_array_equal(np.unique(drawn, axis=0), np.unique(windows, axis=0))


def test_resize_keeps_constants_and_straight_lines():
    for shape, size in (((5, 4), (3, 8)), ((2, 2), (7, 1)), ((6, 6), (6, 6))):
        resize = Resize(shape, size)
        np.testing.assert_allclose(resize.sample(np.ones((1, math.prod(shape)))), 1.0)
    line = Resize((1, 8), (1, 4)).sample(np.arange(8.0)[None])[0]
    np.testing.assert_allclose(np.diff(line)[1:-1], 2.0)
    finer = Resize((1, 4), (1, 8)).sample(np.arange(4.0)[None])[0]
    np.testing.assert_allclose(finer[1:-1], np.arange(0.25, 3.0, 0.5))


def test_blur_is_gaussian_away_from_the_border():
    image = np.zeros((21, 21))
    image[10, 10] = 1.0
    got = Blur((21, 21), 1.5).sample(image.reshape(1, -1)).reshape(21, 21)
    expected = scipy.ndimage.gaussian_filter(image, 1.5, truncate=6.0)
    np.testing.assert_allclose(got, expected, atol=1e-7)


# ---- composition ---------------------------------------------------------------------------------


def test_composition_is_associative_to_the_last_bit():
    a, b, c = Noise(NOISE), Mask(0.7), Reflection(MEAN, 0.3)
    left, right = (a | b) | c, a | (b | c)
    assert left.parts == right.parts == (a, b, c)
    assert_same(left.moments(SECOND, MEAN), right.moments(SECOND, MEAN), rtol=0.0)
    x = clean(5, RNG)
    np.testing.assert_array_equal(left.sample(x, 1), right.sample(x, 1))


def test_composition_goes_from_left_to_right():
    moments = (Noise(1.0) | Scale(3.0)).moments(np.eye(2))
    np.testing.assert_allclose(moments.augmentation_covariance, 9.0 * np.eye(2))
    moments = (Scale(3.0) | Noise(1.0)).moments(np.eye(2))
    np.testing.assert_allclose(moments.augmentation_covariance, np.eye(2))


@EVERY
def test_identity_is_neutral(aug):
    exact = aug.moments(SECOND, MEAN)
    assert_same((Identity() | aug).moments(SECOND, MEAN), exact, rtol=0.0)
    assert_same((aug | Identity()).moments(SECOND, MEAN), exact, rtol=0.0)


def test_one_of_a_composition_is_the_mixture():
    both = Noise(0.3) | Mask(0.5)
    got = OneOf([both, Identity()], [0.25, 0.75]).moments(SECOND, MEAN)
    inside = both.moments(SECOND, MEAN)
    second = 0.25 * inside.second_moment + 0.75 * SECOND
    np.testing.assert_allclose(got.second_moment, second, rtol=1e-12, atol=1e-12)


# ---- samples -------------------------------------------------------------------------------------


@EVERY
def test_samples_keep_dtype_shape_and_data(aug):
    x = clean(7, np.random.default_rng(4), np.float32)
    kept = x.copy()
    drawn = aug.sample(x, 0)
    assert drawn.dtype == np.float32 and drawn.shape == (7, aug.output_dim or D)
    assert drawn is not x and not np.shares_memory(drawn, x)
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(drawn, aug.sample(x, 0))
    assert aug.sample(x[:0], 0).shape == (0, aug.output_dim or D)


@pytest.mark.parametrize("name", ["noise", "mask", "scale", "reflection", "shifts", "one of"])
def test_rows_are_drawn_independently(name):
    x = np.repeat(clean(1, np.random.default_rng(5)), 50, axis=0)
    assert len(np.unique(AUGMENTATIONS[name].sample(x, 0), axis=0)) > 1


@EVERY
def test_pickles(aug):
    again = pickle.loads(pickle.dumps(aug))
    assert_same(again.moments(SECOND, MEAN), aug.moments(SECOND, MEAN), rtol=0.0)


# ---- strength ------------------------------------------------------------------------------------

ENDOMORPHISMS = {
    name: aug
    for name, aug in AUGMENTATIONS.items()
    if aug.output_dim in (None, D) and not re.search("weaker|stronger|^resize$", name)
}


@EVERY
def test_strength_one_changes_nothing(aug):
    assert_same(aug.with_strength(1.0).moments(SECOND, MEAN), aug.moments(SECOND, MEAN))


@pytest.mark.parametrize("aug", ENDOMORPHISMS.values(), ids=ENDOMORPHISMS)
def test_strength_zero_is_the_identity(aug):
    none = aug.with_strength(0.0)
    assert_same(none.moments(SECOND, MEAN), Identity().moments(SECOND, MEAN))
    x = clean(20, np.random.default_rng(6))
    np.testing.assert_allclose(none.sample(x, 0), x, rtol=1e-12, atol=1e-12)


def test_strength_zero_of_what_changes_the_dimension_is_its_mean():
    none = Crop((2, 3), (2, 2)).with_strength(0.0)
    assert not none.moments(SECOND, MEAN).augmentation_covariance.any()
    x = clean(3, np.random.default_rng(6))
    mean = 0.5 * (x.reshape(-1, 2, 3)[..., :2] + x.reshape(-1, 2, 3)[..., 1:])
    np.testing.assert_allclose(none.sample(x, 0), mean.reshape(3, 4), rtol=1e-12, atol=1e-12)


# a choice grows more alike where one of its parts, as the mask here, ends up losing everything
MONOTONE = {name: aug for name, aug in ENDOMORPHISMS.items() if name != "one of many kinds"}


@pytest.mark.parametrize("aug", MONOTONE.values(), ids=MONOTONE)
def test_alignment_falls_as_strength_grows(aug):
    # from weak to strong; the sum of the alignments is Tr Sigma^-1 A
    sums = [
        aug.with_strength(s).moments(SECOND - np.outer(MEAN, MEAN)).alignments.sum()
        for s in (0.0, 0.125, 0.5, 1.0, 2.0, 8.0)
    ]
    assert np.all(np.diff(sums) <= 1e-9 * D)


@pytest.mark.parametrize("s", [0.3, 2.5])
@EVERY
def test_samples_have_the_moments_of_their_strength(aug, s):
    at = aug.with_strength(s)
    rng = np.random.default_rng(7)
    x = clean(40_000, rng)
    sampled = Moments.from_views(at.sample(x, rng), at.sample(x, rng))
    assert distance(sampled, at.moments(SECOND, MEAN)) < 0.06


# ---- critical strengths --------------------------------------------------------------------------

SPECTRUM = np.array([4.0, 2.0, 1.0, 0.5, 0.25, 0.125])


def counted(loss, aug, second, s, g, k=D):
    moments = aug.with_strength(s).moments(second)
    level = loss.effective if isinstance(loss, pyssl.NTXent) else loss.population
    land = level(moments, k, g)
    return pyssl.classify(land).rank


@pytest.mark.parametrize("g", [0.0, 0.4])
@pytest.mark.parametrize(
    ("loss", "aug"),
    [
        (pyssl.SquaredVICReg(3.0), Noise(NOISE)),
        (pyssl.SquaredVICReg(3.0), Noise(np.diag([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]))),
        (pyssl.SquaredVICReg(4.0), Scale(1.0, 0.3)),
        (pyssl.SquaredVICReg(2.0), Mask(0.8)),
        (pyssl.SquaredVICReg(2.0), Noise(0.1) | Mask(0.9) | Reflection(MEAN)),
        (pyssl.InfoNCE(0.5), Mask(0.8)),
        (pyssl.SpectralContrastive(), Scale(0.5, 0.1)),
        (pyssl.BarlowTwins(1.0, normalize=False), Mask(0.7)),
        (pyssl.InfoNCE(0.5), Group.shifts(D)),
        (pyssl.NTXent(0.7), Noise(0.2)),
    ],
    ids=str,
)
def test_modes_are_lost_at_their_critical_strengths(loss, aug, g):
    if isinstance(loss, pyssl.NTXent) and g:
        pytest.skip("decay takes nothing from it")
    critical = critical_strengths(loss, aug, SECOND, weight_decay=g)
    assert critical.shape == (D,) and np.all(critical[1:] <= critical[:-1])
    finite = critical[np.isfinite(critical) & (critical > 0.0)]
    middle = np.sqrt(finite[1:] * finite[:-1])[finite[1:] < 0.99 * finite[:-1]]
    for s in (*(0.999 * finite), *(1.001 * finite), *middle, 0.0, 20.0):
        assert counted(loss, aug, SECOND, s, g) == np.count_nonzero(critical > s), s


@pytest.mark.parametrize("seed", range(8))
def test_critical_strengths_where_the_data_do_not_vary(seed):
    # beyond 1/(0.5 * 0.3) B is negative, and its null space is what rounding leaves
    factor = np.random.default_rng(seed).normal(size=(4, 2))
    got = critical_strengths(pyssl.SquaredVICReg(1.5), Scale(1.0, 0.3), factor @ factor.T)
    np.testing.assert_allclose(got, [20 / 3, 20 / 3, 0.0, 0.0], rtol=1e-10)
    noise = np.random.default_rng(seed).normal(size=4)
    got = critical_strengths(pyssl.SquaredVICReg(1.5), Noise(np.eye(4)), np.outer(noise, noise))
    np.testing.assert_allclose(got, [2.0 * noise @ noise, 0.0, 0.0, 0.0], rtol=1e-12, atol=0.0)


def test_critical_strengths_where_nothing_is_left():
    # from s * 0.3 = 1/2 and 1 on the mean map is 0: the last margin stays there
    got = critical_strengths(pyssl.SpectralContrastive(), Reflection([1.0], 0.3), [[1.0]])
    np.testing.assert_allclose(got, 5 / 3, rtol=1e-6)  # where it is 0 twice
    signs = Group([np.eye(2), -np.eye(2)], 0.3)
    got = critical_strengths(pyssl.InfoNCE(), signs, np.diag([4.0, 1.0]))
    np.testing.assert_allclose(got, 10 / 3, rtol=1e-6)


def test_critical_strengths_in_closed_form():
    data = np.diag(SPECTRUM)
    # lost where p^(2s) a = g tau/2
    got = critical_strengths(pyssl.InfoNCE(0.5), Mask(0.8), data, weight_decay=0.4)
    expected = np.maximum(np.log(0.1 / SPECTRUM) / (2.0 * math.log(0.8)), 0.0)
    np.testing.assert_allclose(got, expected, rtol=1e-10)
    # lost where A - 2 s N = g/4
    got = critical_strengths(pyssl.SquaredVICReg(3.0), Noise(NOISE), SECOND, weight_decay=0.4)
    theta = scipy.linalg.eigh(SECOND - 0.1 * np.eye(D), 2.0 * NOISE, eigvals_only=True)
    np.testing.assert_allclose(got, np.maximum(theta[::-1], 0.0), rtol=1e-9)


def test_noise_takes_no_mode_of_a_loss_whose_signal_is_a():
    barlow = pyssl.BarlowTwins(1.0, normalize=False)
    for loss in (pyssl.InfoNCE(), pyssl.SpectralContrastive(), barlow):
        got = critical_strengths(loss, Noise(NOISE), np.diag(SPECTRUM), weight_decay=0.3)
        scale = {"infonce": 0.15, "spectral": 0.075, "barlow_twins": 0.075}[loss.key]
        np.testing.assert_array_equal(got, np.where(scale < SPECTRUM, np.inf, 0.0))


def test_noise_that_helps_takes_no_mode():
    got = critical_strengths(pyssl.SquaredVICReg(0.5), Noise(1.0), np.diag(SPECTRUM))
    assert np.isinf(got).all()


def test_directions_without_variation_leave_a_pencil_a_pencil():
    frame = np.linalg.qr(np.random.default_rng(3).standard_normal((5, 5)))[0][:, :3]
    data, noise = np.diag([3.0, 1.0, 0.5]), np.diag([0.5, 0.4, 0.2])
    loss = pyssl.SquaredVICReg(2.0)
    inside = critical_strengths(loss, Noise(noise), data)
    np.testing.assert_allclose(inside, [6.0, 2.5, 2.5], rtol=1e-12)
    wide = Noise(frame @ noise @ frame.T)
    found = critical_strengths(loss, wide, frame @ data @ frame.T)
    np.testing.assert_allclose(found, [*inside, 0.0, 0.0], rtol=1e-12)
    whole = wide.moments(frame @ data @ frame.T)
    collapse = pyssl.helpful_collapse(whole, frame @ [1.0, 0.2, 0.0], 8, loss=loss, noise=2.0)
    assert collapse.kept == (0,)
    low, high = collapse.augmentation_strength.interval
    np.testing.assert_allclose([low, high], [2.5, 6.0], rtol=1e-12)


def test_pencils_agree_with_the_search():
    # two parts of noise are a pencil; with a mask that keeps everything they are searched
    loss, noise = pyssl.SquaredVICReg(3.0), Noise(NOISE) | Noise(0.1)
    closed = critical_strengths(loss, noise, SECOND, weight_decay=0.1)
    searched = critical_strengths(loss, noise | Mask(1.0), SECOND, weight_decay=0.1)
    np.testing.assert_allclose(searched, closed, rtol=1e-9)


def test_singular_pencils():
    # noise on three of the inputs leaves the others; data without variation have nothing to lose
    data = np.diag([4.0, 2.0, 1.0, 3.0, 0.0, 0.0])
    noise = Noise(np.diag([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]))
    got = critical_strengths(pyssl.SquaredVICReg(2.0), noise, data)
    np.testing.assert_allclose(got, [np.inf, 4.0, 2.0, 1.0, 0.0, 0.0], rtol=1e-9)


def test_only_the_first_mode_of_losses_without_closed_form():
    loss = pyssl.VICReg(1.0, 1.0, 1.0, epsilon=0.25)
    got = critical_strengths(loss, Noise(1.0), np.diag(SPECTRUM))
    # var Sigma = 4 inv sqrt(eps) C: a + s = 2 s
    np.testing.assert_allclose(got[0], 4.0, rtol=1e-9)
    assert np.isnan(got[1:]).all()
    for loss, mean in ((pyssl.BarlowTwins(), None), (pyssl.NTXent(), MEAN)):
        with pytest.raises(NotImplementedError, match="has no condition for its modes"):
            critical_strengths(loss, Noise(1.0), SECOND, mean)


# ---- samplers ------------------------------------------------------------------------------------


def test_two_views_of_a_sampler_are_views():
    x = clean(9000, np.random.default_rng(8))
    drawn = []

    def record(rows, rng):
        drawn.append(rows + rng.standard_normal(rows.shape))
        return drawn[-1]

    moments = Moments.from_sampler(x, record, rng=0)
    assert_same(moments, Moments.from_views(np.vstack(drawn[::2]), np.vstack(drawn[1::2])))
    assert moments.n_samples == 9000


def test_more_views_estimate_the_same():
    x = clean(20_000, np.random.default_rng(9))
    aug = Noise(NOISE) | Mask(0.8)
    exact = Moments.from_data(x, aug)
    gaps = []
    for views in (2, 16):
        got = Moments.from_sampler(x, aug.sample, views, rng=1)
        gaps.append(np.abs(got.augmentation_covariance - exact.augmentation_covariance).max())
        assert distance(got, exact) < 0.02
    assert gaps[1] < gaps[0]


def test_errors_of_alignments_are_their_spread():
    """The jackknife against 200 repetitions of the whole experiment."""
    aug, rng = Noise(np.diag(SPECTRUM[::-1])) | Scale(1.0, 0.1), np.random.default_rng(10)
    found, claimed = [], []
    for _ in range(200):
        x = rng.standard_normal((400, D)) * np.sqrt(SPECTRUM)
        moments = Moments.from_sampler(x, aug.sample, rng=rng)
        found.append(moments.alignments)
        claimed.append(moments.alignment_errors)
    spread = np.std(found, axis=0)
    ratio = np.sqrt(np.mean(np.square(claimed), axis=0)) / spread
    assert np.all((ratio > 0.8) & (ratio < 1.3)), ratio


def test_samplers_may_change_the_dimension_and_overwrite_their_input():
    x = clean(50, np.random.default_rng(11), np.float32)
    kept = x.copy()

    def scribble(rows, rng):
        rows *= rng.random((len(rows), 1), dtype=np.float32)
        return rows[:, :2]

    moments = Moments.from_sampler(x, scribble, views=3, rng=0)
    assert moments.dim == 2 and moments.alignment_errors.shape == (2,)
    np.testing.assert_array_equal(x, kept)
    assert moments.centered().alignment_errors is moments.alignment_errors
    assert moments.with_augmentation_strength(0.5).alignment_errors is None
    assert Moments(np.eye(2), np.eye(2)).alignment_errors is None


def test_equal_views_have_no_augmentation():
    moments = Moments.from_sampler(1e6 + clean(500, RNG), lambda rows, rng: rows, views=3)
    assert not moments.augmentation_covariance.any()
    np.testing.assert_array_equal(moments.alignments, 1.0)


def test_a_few_samples_will_do():
    moments = Moments.from_sampler(clean(3, RNG), Noise(0.1).sample, rng=0)
    assert moments.n_samples == 3 and np.isfinite(moments.alignment_errors).all()


def test_files_are_read_in_chunks(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, clean(5000, np.random.default_rng(12), np.float32))
    mapped = np.load(path, mmap_mode="r")
    sizes = []

    def record(rows, _):
        sizes.append(len(rows))
        return rows

    Moments.from_sampler(mapped, record)
    assert max(sizes) < 5000 and sum(sizes) == 2 * 5000
    got = Moments.from_data(mapped, Mask(0.5))
    assert_same(got, Moments.from_data(np.asarray(mapped, float), Mask(0.5)))


# ---- construction --------------------------------------------------------------------------------


def test_reprs_and_equality():
    assert repr(Mask(0.5)) == "Mask(keep=0.5, rescale=False)"
    assert Mask(0.5) == Mask(0.5) != Mask(0.6)
    assert Composition((Mask(0.5),)).parts == (Mask(0.5),)
    assert Composition((Mask(0.5), Crop((2, 3), (1, 1)))).dim == D


def test_dimensions():
    assert (Mask(0.5) | Noise(NOISE)).dim == D
    chain = Mask(0.5) | Crop((2, 3), (2, 2)) | Resize((2, 2), (1, 5))
    assert (chain.dim, chain.output_dim) == (D, 5)
    assert OneOf([Identity(), Noise(NOISE)]).dim == D
