"""Moments against their dense definitions (theory 1), and the digits that they keep."""

from __future__ import annotations

import copy
import dataclasses
import multiprocessing
import pickle
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import scipy.linalg

import pyssl
from pyssl import MomentAccumulator, Moments

EPS = np.finfo(float).eps
PARTS = ("covariance", "cross_covariance", "augmentation_covariance", "mean")


def views(n=50, d=4, seed=0, mean=1.0, noise=0.5):
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((d, d))
    clean = mean + rng.standard_normal((n, d)) @ mixing
    return tuple(clean + noise * rng.standard_normal((2, n, d)))


def pickled(item):
    return pickle.loads(pickle.dumps(item))


def definition(x, x_plus):
    """Theory 1 as it is written: pooled mean, symmetrised, 1/(2n)."""
    n = len(x)
    mean = np.concatenate([x, x_plus]).mean(axis=0)
    x, x_plus = x - mean, x_plus - mean
    difference = x - x_plus
    return {
        "covariance": (x.T @ x + x_plus.T @ x_plus) / (2 * n),
        "cross_covariance": (x.T @ x_plus + x_plus.T @ x) / (2 * n),
        "augmentation_covariance": difference.T @ difference / (2 * n),
        "mean": mean,
    }


def assert_same(moments, expected, rtol=1e-12):
    for name in PARTS:
        wanted = getattr(expected, name) if isinstance(expected, Moments) else expected[name]
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(
            getattr(moments, name), wanted, rtol=0.0, atol=rtol * scale, err_msg=name
        )


def exact(x, x_plus):
    """The definition in rational arithmetic: no rounding until the end."""
    n, d = x.shape
    x, x_plus = (
        [[Fraction(entry) for entry in row] for row in side.tolist()] for side in (x, x_plus)
    )
    mean = [sum(row[j] for row in x + x_plus) / (2 * n) for j in range(d)]
    result = {name: np.zeros((d, d)) for name in PARTS[:3]}
    for i in range(d):
        for j in range(d):
            pairs = [
                (a[i] - mean[i], b[i] - mean[i], a[j] - mean[j], b[j] - mean[j])
                for a, b in zip(x, x_plus, strict=True)
            ]
            entries = {
                "covariance": sum(ai * aj + bi * bj for ai, bi, aj, bj in pairs),
                "cross_covariance": sum(ai * bj + bi * aj for ai, bi, aj, bj in pairs),
                "augmentation_covariance": sum((ai - bi) * (aj - bj) for ai, bi, aj, bj in pairs),
            }
            for name, total in entries.items():
                result[name][i, j] = float(total / (2 * n))
    return {**result, "mean": np.array([float(entry) for entry in mean])}


# ---- estimates -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 50, 5000])  # 5000 takes several blocks
@pytest.mark.parametrize("d", [1, 4])
def test_from_views_is_the_definition(n, d):
    x, x_plus = views(n, d)
    moments = Moments.from_views(x, x_plus)
    assert_same(moments, definition(x, x_plus))
    assert moments.n_samples == n
    assert moments.dim == d


def test_from_views_is_symmetric_in_the_views():
    x, x_plus = views()
    assert_same(Moments.from_views(x, x_plus), Moments.from_views(x_plus, x), rtol=4 * EPS)


def test_from_views_has_symmetric_parts_that_add_up():
    moments = Moments.from_views(*views(d=7))
    for name in PARTS[:3]:
        part = getattr(moments, name)
        np.testing.assert_array_equal(part, part.T, err_msg=name)
    np.testing.assert_allclose(
        moments.covariance - moments.cross_covariance,
        moments.augmentation_covariance,
        rtol=0.0,
        atol=8 * EPS * np.abs(moments.covariance).max(),
    )
    # valid as direct moments, too
    Moments(*(getattr(moments, name) for name in ("covariance", "cross_covariance", "mean")))


def test_uncentred_moments():
    x, x_plus = views()
    moments, both = Moments.from_views(x, x_plus), np.concatenate([x, x_plus])
    np.testing.assert_allclose(moments.second_moment, both.T @ both / len(both), rtol=1e-12)
    cross = (x.T @ x_plus + x_plus.T @ x) / len(both)
    np.testing.assert_allclose(moments.cross_moment, cross, rtol=1e-12)


@pytest.mark.parametrize("order", ["C", "F", "strided", "reversed", "read-only"])
def test_memory_layout_does_not_matter(order):
    x, x_plus = views()
    expected = Moments.from_views(x, x_plus)
    match order:
        case "strided":
            laid_out = [np.kron(side, np.ones((2, 3)))[::2, ::3] for side in (x, x_plus)]
        case "reversed":
            laid_out = [side[::-1, ::-1].copy()[::-1, ::-1] for side in (x, x_plus)]
        case "read-only":
            laid_out = [x.copy(), x_plus.copy()]
            for side in laid_out:
                side.flags.writeable = False
        case _:
            laid_out = [np.array(side, order=order) for side in (x, x_plus)]
    assert_same(Moments.from_views(*laid_out), expected, rtol=0.0)


# ---- digits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_a_large_mean_costs_no_digits(chunk):
    # mean 1e6, variance 1: the squares are 1e12, and subtracting their means would leave 4 digits
    x, x_plus = (1e6 + side for side in views(1000, 2, mean=0.0))
    accumulator = MomentAccumulator(2)
    for start in range(0, 1000, chunk):
        accumulator.update(x[start : start + chunk], x_plus[start : start + chunk])
    assert_same(accumulator.moments(), exact(x, x_plus), rtol=1e-10)


def test_a_large_mean_costs_no_digits_over_many_rows():
    # the reference is shifted: integers / 2^20 stay exact under the shift by 2^20
    rng = np.random.default_rng(1)
    x, x_plus = np.round(rng.standard_normal((2, 200_000, 3)) * 2**20) / 2**20
    x_plus = 0.5 * x + x_plus
    shifted = Moments.from_views(x + 2.0**20, x_plus + 2.0**20)
    expected = definition(x, x_plus)
    expected["mean"] = expected["mean"] + 2.0**20
    assert_same(shifted, expected, rtol=1e-10)


def test_means_of_different_magnitude():
    x, x_plus = views(300, 3, mean=0.0)
    offset = np.array([0.0, 1e3, -1e6])
    moments = Moments.from_views(x + offset, x_plus + offset)
    assert_same(moments, exact(x + offset, x_plus + offset), rtol=1e-10)


@pytest.mark.parametrize("noise", [1e-5, 1e-8])
def test_weak_augmentation_keeps_its_digits(noise):
    # 1e-8 of the mean, and 1e-8 of the standard deviation; both leave nothing of Sigma - A
    rng = np.random.default_rng(2)
    clean = 1e3 + rng.standard_normal((400, 3))
    x, x_plus = clean + noise * rng.standard_normal((2, 400, 3))
    moments = Moments.from_views(x, x_plus)
    c = exact(x, x_plus)["augmentation_covariance"]
    np.testing.assert_allclose(
        moments.augmentation_covariance, c, rtol=0.0, atol=1e-13 * np.abs(c).max()
    )
    if noise == 1e-8:  # the subtraction can't: this test would otherwise test nothing
        subtracted = moments.covariance - moments.cross_covariance
        assert np.abs(subtracted - c).max() > 0.05 * np.abs(c).max()


def test_weak_augmentation_in_many_chunks_and_merged():
    rng = np.random.default_rng(3)
    clean = 1e3 + rng.standard_normal((400, 2))
    x, x_plus = clean + 1e-8 * rng.standard_normal((2, 400, 2))
    left, right = MomentAccumulator(2), MomentAccumulator(2)
    for start in range(0, 400, 10):
        side = left if start < 130 else right
        side.update(x[start : start + 10], x_plus[start : start + 10])
    left.merge(right)
    c = exact(x, x_plus)["augmentation_covariance"]
    got = left.moments().augmentation_covariance
    np.testing.assert_allclose(got, c, rtol=0.0, atol=1e-13 * np.abs(c).max())


def test_misalignment_of_weak_augmentation():
    # 1 - rho is 1e-16 and smaller here: rho itself can't show it, InfoNCE's deficit must
    scale = np.array([1.0, 2.0, 4.0])
    c = 1e-12 * np.diag(scale)
    moments = Moments(np.eye(3), np.eye(3) - c, augmentation_covariance=c)
    amplitudes = pyssl.InfoNCE().population(moments, 3).minimum().amplitudes
    with mpmath.workdps(50):
        # theory 3.1, sqeuclidean conditional, from e = 1 - t exactly
        expected = []
        for misalignment in 1e-12 * scale:
            e = mpmath.mpf(float(misalignment))
            y = 4 * e / (1 + mpmath.sqrt(1 + 8 * e))
            expected.append(float((1 - y) / y))
    np.testing.assert_allclose(amplitudes, expected, rtol=1e-12)


def test_constant_columns_do_not_vary():
    # the mean of n equal numbers is not always that number: 0.1, 0.3 and 1e6/3 are such
    x, x_plus = views(5000, 5, mean=0.0)
    for side in (x, x_plus):
        side[:, 1:4] = [0.1, 0.3, 1e6 / 3.0]
    moments = Moments.from_views(x, x_plus)
    assert not moments.covariance[1:4].any()
    assert moments.rank == 2
    np.testing.assert_array_equal(moments.mean[1:4], [0.1, 0.3, 1e6 / 3.0])
    # also when nothing else is there to compare with, and in chunks
    accumulator = MomentAccumulator(3)
    for rows in (1, 10, 3000):
        accumulator.update(x[:rows, 1:4], x_plus[:rows, 1:4])
    assert not accumulator.moments().covariance.any()
    assert accumulator.moments().rank == 0
    np.testing.assert_array_equal(accumulator.moments().alignments, np.zeros(3))


# ---- the accumulator -----------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [[50], [1] * 50, [0, 13, 0, 36, 1], [2, 48]])
def test_chunks_of_any_length(lengths):
    x, x_plus = views(50)
    accumulator, start = MomentAccumulator(4), 0
    for length in lengths:
        accumulator.update(x[start : start + length], x_plus[start : start + length])
        start += length
        assert accumulator.n_samples == start
    assert_same(accumulator.moments(), Moments.from_views(x, x_plus), rtol=1e-13)


def test_merge():
    x, x_plus = views(60)
    parts = []
    for start, stop in ((0, 1), (1, 20), (20, 20), (20, 60)):
        part = MomentAccumulator(4)
        part.update(x[start:stop], x_plus[start:stop])
        parts.append(part)
    forward, backward = MomentAccumulator(4), MomentAccumulator(4)
    for part in parts:
        forward.merge(part)
    for part in reversed(parts):
        backward.merge(part)
    assert [part.n_samples for part in parts] == [1, 19, 0, 40]  # unchanged
    for merged in (forward, backward):
        assert merged.n_samples == 60
        assert_same(merged.moments(), Moments.from_views(x, x_plus), rtol=1e-13)


def test_merging_does_not_share_memory():
    x, x_plus = views()
    source, target = MomentAccumulator(4), MomentAccumulator(4)
    source.update(x, x_plus)
    target.merge(source)
    before = source.moments()
    target.update(x + 5.0, x_plus)
    assert_same(source.moments(), before, rtol=0.0)


def test_merging_with_itself_repeats_the_data():
    x, x_plus = views()
    accumulator = MomentAccumulator(4)
    accumulator.update(x, x_plus)
    accumulator.merge(accumulator)
    assert accumulator.n_samples == 100
    assert_same(accumulator.moments(), Moments.from_views(x, x_plus), rtol=1e-14)


def test_moments_are_a_snapshot():
    x, x_plus = views()
    accumulator = MomentAccumulator(4)
    accumulator.update(x, x_plus)
    snapshot = accumulator.moments()
    expected = definition(x, x_plus)
    accumulator.update(x + 100.0, x_plus)
    assert_same(snapshot, expected)
    assert snapshot.n_samples == 50


def _accumulate(chunk):
    accumulator = MomentAccumulator(chunk.shape[-1])
    accumulator.update(*chunk)
    return accumulator


def test_processes():
    x, x_plus = views(90, mean=1e6)
    chunks = [np.stack([x[start::3], x_plus[start::3]]) for start in range(3)]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        parts = pool.map(_accumulate, chunks)
    total = MomentAccumulator(4)
    for part in parts:
        total.merge(part)
    assert_same(total.moments(), Moments.from_views(x, x_plus), rtol=1e-11)


@pytest.mark.parametrize("duplicate", [pickled, copy.copy, copy.deepcopy])
def test_a_copied_accumulator_goes_on_by_itself(duplicate):
    x, x_plus = views()
    accumulator = MomentAccumulator(4)
    accumulator.update(x[:30], x_plus[:30])
    copied = duplicate(accumulator)
    copied.update(x[30:], x_plus[30:])
    assert_same(copied.moments(), Moments.from_views(x, x_plus), rtol=1e-13)
    assert_same(accumulator.moments(), Moments.from_views(x[:30], x_plus[:30]), rtol=0.0)


def test_float32_is_accumulated_in_float64():
    # in float32 the mean alone would be off by 1e-3
    x, x_plus = (side.astype(np.float32) for side in views(3000, 3, mean=1e4))
    moments = Moments.from_views(x, x_plus)
    assert moments.covariance.dtype == np.float64
    wide = Moments.from_views(x.astype(np.float64), x_plus.astype(np.float64))
    assert_same(moments, wide, rtol=0.0)
    mixed = Moments.from_views(x, x_plus.astype(np.float64))
    assert_same(mixed, wide, rtol=0.0)


@pytest.mark.parametrize(
    ("x", "x_plus", "error"),
    [
        (np.full((2, 4), np.nan), np.zeros((2, 4)), ValueError),
        (np.zeros((2, 4)), np.full((2, 4), np.inf), ValueError),
        (np.zeros((2, 4)), np.full((2, 4), 1e200), ValueError),
        (np.zeros((2, 3)), np.zeros((2, 3)), ValueError),
        (np.zeros((2, 4)), np.zeros((3, 4)), ValueError),
        (np.zeros(4), np.zeros(4), ValueError),
        (np.zeros((2, 4)), np.zeros((2, 4), dtype=complex), TypeError),
        (None, np.zeros((2, 4)), TypeError),
    ],
)
def test_a_failed_update_changes_nothing(x, x_plus, error):
    good = views()
    accumulator = MomentAccumulator(4)
    accumulator.update(*good)
    before = pickle.dumps(accumulator)
    with pytest.raises(error):
        accumulator.update(x, x_plus)
    assert pickle.dumps(accumulator) == before


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_named_wherever_it_lies(dtype, value):
    good = [side.astype(dtype) for side in views(20_000, 3)]
    accumulator = MomentAccumulator(3)
    accumulator.update(*good)
    before = pickle.dumps(accumulator)
    for row in (0, 9000, 19_999):  # in the first chunk that is read, a later one and the last
        x, x_plus = good[0], good[1].copy()
        x_plus[row, 2] = value
        message = rf"x_plus must be finite, got {value} at x_plus\[{row}, 2\] \(row {row}\)"
        with pytest.raises(ValueError, match=message):
            accumulator.update(x, x_plus)
        assert pickle.dumps(accumulator) == before
        with pytest.raises(ValueError, match=message):
            Moments.from_views(x, x_plus)


def test_magnitudes_up_to_1e70_are_taken():
    x = np.where(np.random.default_rng(0).standard_normal((200, 3)) > 0.0, 9e69, -9e69)
    moments = Moments.from_views(x, -x)  # none of the variance is in the middles
    assert_same(moments, definition(x, -x))
    for value in (1.1e70, -1.1e70):
        x[150, 1] = value
        with pytest.raises(
            ValueError, match=r"x must be at most 1e\+70 in magnitude, got 1.1e\+70"
        ):
            Moments.from_views(x, np.zeros_like(x))


def test_a_failed_merge_changes_nothing():
    accumulator = MomentAccumulator(4)
    accumulator.update(*views())
    before = pickle.dumps(accumulator)
    with pytest.raises(ValueError, match="other must have dim 4, got 3"):
        accumulator.merge(MomentAccumulator(3))
    with pytest.raises(TypeError, match="other must be a MomentAccumulator, got Moments"):
        accumulator.merge(accumulator.moments())
    assert pickle.dumps(accumulator) == before


@pytest.mark.parametrize("n", [0, 1])
def test_moments_need_two_pairs(n):
    x = np.ones((n, 2))
    accumulator = MomentAccumulator(2)
    accumulator.update(x, x)
    with pytest.raises(ValueError, match=f"at least 2 pairs of views, got {n}"):
        accumulator.moments()
    with pytest.raises(ValueError, match=f"at least 2 pairs of views, got {n}"):
        Moments.from_views(x, x)


# ---- alignments ----------------------------------------------------------------------------------


def random_population(d, seed, rank=None):
    """Random Sigma of a rank, and A with alignments in [-1, 1]."""
    rng = np.random.default_rng(seed)
    rank = d if rank is None else rank
    root = rng.standard_normal((d, rank))
    rho = np.sort(rng.uniform(-1.0, 1.0, rank))[::-1]
    rotation = scipy.linalg.qr(rng.standard_normal((rank, rank)))[0]
    root = root @ rotation
    return root @ root.T, (root * rho) @ root.T, rho


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("d", [1, 2, 5, 20])
def test_alignments_are_the_eigenvalues_of_the_pencil(d, seed):
    sigma, a, rho = random_population(d, seed)
    alignments = Moments(sigma, a).alignments
    np.testing.assert_allclose(alignments, rho, atol=1e-9)
    np.testing.assert_allclose(alignments, scipy.linalg.eigh(a, sigma)[0][::-1], atol=1e-9)


def test_alignments_are_canonical_correlations():
    # of the pooled, symmetrised sample, in which each view is as often the first as the second
    x, x_plus = views(200, 4)
    first, second = np.concatenate([x, x_plus]), np.concatenate([x_plus, x])
    q = [np.linalg.qr(side - side.mean(axis=0))[0] for side in (first, second)]
    correlations = np.linalg.svd(q[0].T @ q[1], compute_uv=False)
    alignments = Moments.from_views(x, x_plus).alignments
    np.testing.assert_allclose(np.sort(np.abs(alignments))[::-1], correlations, atol=1e-12)


@pytest.mark.parametrize(("d", "rank"), [(1, 0), (3, 0), (3, 2), (6, 1), (6, 4)])
def test_alignments_of_a_singular_covariance(d, rank):
    sigma, a, rho = random_population(d, 3, rank)
    moments = Moments(sigma, a)
    assert moments.rank == rank
    expected = np.sort(np.append(rho, np.zeros(d - rank)))[::-1]
    np.testing.assert_allclose(moments.alignments, expected, atol=1e-9)


def test_alignments_are_within_one():
    identical = Moments(np.diag([1e4, 1.0, 1e-4]), np.diag([1e4, 1.0, 1e-4]))
    np.testing.assert_array_equal(identical.alignments, np.ones(3))
    opposite = Moments(np.eye(3), -np.eye(3))
    np.testing.assert_array_equal(opposite.alignments, -np.ones(3))
    x, _ = views()
    assert (Moments.from_views(x, x).alignments == 1.0).all()


# ---- other moments from these --------------------------------------------------------------------


def test_augmentation_strength():
    x, x_plus = views()
    moments = Moments.from_views(x, x_plus)
    for s in (0.25, 1, 7.5):
        scaled = moments.with_augmentation_strength(s)
        np.testing.assert_array_equal(scaled.cross_covariance, moments.cross_covariance)
        c = moments.augmentation_covariance
        np.testing.assert_allclose(scaled.augmentation_covariance, s * c, rtol=1e-15)
        np.testing.assert_allclose(scaled.covariance, moments.cross_covariance + s * c, atol=1e-14)
        np.testing.assert_array_equal(scaled.mean, moments.mean)
        assert scaled.n_samples == 50
    # rho -> a/(a + s c) mode by mode where A and C commute
    population = Moments(np.diag([2.0, 1.0]), np.diag([1.5, 0.1]))
    expected = [1.5 / (1.5 + 4.0 * 0.5), 0.1 / (0.1 + 4.0 * 0.9)]
    got = population.with_augmentation_strength(4.0).alignments
    np.testing.assert_allclose(got, expected, rtol=1e-14)
    np.testing.assert_allclose(population.with_augmentation_strength(0).alignments, 1.0)


def test_augmentation_strength_keeps_weak_digits():
    c = 1e-14 * np.eye(2)
    moments = Moments(np.eye(2), np.eye(2) - c, augmentation_covariance=c)
    np.testing.assert_array_equal(
        moments.with_augmentation_strength(0.5).augmentation_covariance, 0.5e-14 * np.eye(2)
    )


def test_augmentation_strength_needs_valid_moments():
    # a sample's A can be negative where Sigma is not: there A + s C turns negative first
    moments = Moments(np.eye(2), np.diag([0.5, -0.5]))
    assert moments.with_augmentation_strength(2 / 3).alignments.min() == pytest.approx(-1.0)
    with pytest.raises(ValueError, match="positive semidefinite"):
        moments.with_augmentation_strength(0.6)
    for strength, error in (
        (-1.0, ValueError),
        (np.nan, ValueError),
        (np.inf, ValueError),
        (1e308, ValueError),
        ("1", TypeError),
        (None, TypeError),
    ):
        with pytest.raises(error, match=r"strength|augmentation_covariance"):
            Moments(4.0 * np.eye(2), np.eye(2)).with_augmentation_strength(strength)


def test_centered():
    moments = Moments.from_views(*views())
    for source in (moments, Moments.from_views(*views())):
        centered = source.centered()
        assert not centered.mean.any()
        assert source.mean.any()
        assert centered.n_samples == 50
        parts = {name: getattr(moments, name) for name in PARTS[:3]}
        assert_same(centered, {**parts, "mean": np.zeros(4)}, rtol=0.0)
        np.testing.assert_array_equal(centered.second_moment, centered.covariance)
        np.testing.assert_array_equal(centered.alignments, moments.alignments)


# ---- direct moments ------------------------------------------------------------------------------


def test_direct_moments():
    sigma, a, _ = random_population(4, 0)
    moments = Moments(sigma, a, [1, 2, 3, 4], n_samples=10)
    np.testing.assert_allclose(moments.covariance, sigma, rtol=1e-14)
    np.testing.assert_allclose(moments.cross_covariance, a, rtol=1e-14)
    np.testing.assert_allclose(moments.augmentation_covariance, sigma - a, rtol=1e-12)
    np.testing.assert_array_equal(moments.mean, [1.0, 2.0, 3.0, 4.0])
    assert moments.n_samples == 10
    assert not Moments(sigma, a).mean.any() and Moments(sigma, a).n_samples is None


def test_rounding_is_not_an_error():
    sigma, a, _ = random_population(30, 1)
    rng = np.random.default_rng(0)
    shaken = sigma * (1.0 + EPS * rng.uniform(-1.0, 1.0, sigma.shape))
    moments = Moments(shaken, a)
    np.testing.assert_array_equal(moments.covariance, moments.covariance.T)
    # singular within rounding, from either side
    for size in (0.0, EPS, -EPS):
        assert Moments(np.diag([1.0, size]), np.zeros((2, 2))).rank == 1
    # float32 matrices have the rounding of float32
    low = (root := rng.standard_normal((30, 5)).astype(np.float32)) @ root.T
    assert Moments(low, low).rank == 5
    # C given in float32 need not agree with Sigma - A to more than that
    c = np.diag([0.1, 0.3]).astype(np.float32)
    Moments(np.eye(2), np.diag([0.9, 0.7]), augmentation_covariance=c)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ([[1.0, 0.2], [0.1, 1.0]], np.eye(2)),
            r"covariance must be symmetric, got 0.2 at \[0, 1\] and 0.1 at",
        ),
        ((np.eye(2), [[0.0, 0.2], [0.1, 0.0]]), r"cross_covariance must be symmetric, got 0.2"),
        (
            (np.diag([1.0, -0.5]), np.zeros((2, 2))),
            r"covariance must be positive semidefinite, got an eigenvalue of -0.5",
        ),
        (
            (np.eye(2), np.diag([0.5, 1.25])),
            r"covariance - cross_covariance must be positive semidefinite.*-0.25",
        ),
        (
            (np.eye(2), np.diag([0.5, -1.25])),
            r"covariance \+ cross_covariance must be positive semidefinite.*-0.25",
        ),
        ((np.ones((2, 3)), np.eye(2)), r"covariance must be \(d, d\), got \(2, 3\)"),
        ((np.eye(2), np.eye(3)), r"cross_covariance must be \(2, 2\), got \(3, 3\)"),
        ((np.zeros((0, 0)), np.zeros((0, 0))), r"covariance must be \(d, d\), got \(0, 0\)"),
        ((np.eye(2), 0.5 * np.eye(2), np.zeros(3)), r"mean must be \(2,\), got \(3,\)"),
        (
            (np.eye(2), 0.5 * np.eye(2), np.zeros((2, 1))),
            r"mean must have 1 dimension\(s\), got shape \(2, 1\)",
        ),
        (
            (np.eye(2), 0.5 * np.eye(2), [0.0, 1e80]),
            r"mean must be at most 1e\+70 in magnitude, got 1e\+80",
        ),
        ((1e150 * np.eye(2), np.eye(2)), r"covariance must be .* in magnitude, got 1e\+150"),
        ((1e-150 * np.eye(2), 0 * np.eye(2)), r"covariance must be .* in magnitude, got 1e-150"),
    ],
)
def test_invalid_direct_moments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Moments(*arguments)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"augmentation_covariance": 0.6 * np.eye(2)},
            ValueError,
            r"must be covariance - cross_covariance within .*, got a difference of 0.1",
        ),
        (
            {"augmentation_covariance": np.eye(3)},
            ValueError,
            r"augmentation_covariance must be \(2, 2\), got \(3, 3\)",
        ),
        (
            {"augmentation_covariance": "C"},
            TypeError,
            "augmentation_covariance must hold real numbers",
        ),
        ({"n_samples": 0}, ValueError, "n_samples must be at least 1, got 0"),
        ({"n_samples": 2.5}, TypeError, "n_samples must be an integer, got 2.5"),
    ],
)
def test_invalid_options(options, error, message):
    with pytest.raises(error, match=message):
        Moments(np.eye(2), 0.5 * np.eye(2), **options)


@pytest.mark.parametrize("d", [1, 2, 5, 40])
def test_validity_is_decided_within_rounding(d):
    # just inside passes, 1e-6 outside does not, whatever the scale and the basis
    rng = np.random.default_rng(d)
    q = scipy.linalg.qr(rng.standard_normal((d, d)))[0]
    for scale in (1e-12, 1.0, 1e12):
        for rho in (1.0, -1.0):
            edge = rho * scale * (q * np.linspace(0.0, 1.0, d) if d > 1 else q) @ q.T
            sigma = scale * np.eye(d)
            Moments(sigma, edge)
            with pytest.raises(ValueError, match="must be positive semidefinite"):
                Moments(sigma, edge * (1.0 + 1e-6))


# ---- immutability --------------------------------------------------------------------------------

ARRAYS = [*PARTS, "second_moment", "cross_moment", "alignments"]


@pytest.mark.parametrize(
    "duplicate",
    [
        lambda m: m,
        pickled,
        copy.copy,
        copy.deepcopy,
        lambda m: m.centered(),
        lambda m: m.with_augmentation_strength(2.0),
    ],
    ids=["itself", "pickle", "copy", "deepcopy", "centered", "with_augmentation_strength"],
)
@pytest.mark.parametrize(
    "source",
    [lambda: Moments.from_views(*views()), lambda: Moments(*random_population(4, 0)[:2])],
    ids=["sample", "population"],
)
@pytest.mark.parametrize("touched", [False, True])
def test_moments_are_immutable(source, duplicate, touched):
    moments = source()
    if touched:  # what is computed on first use travels with the copy
        for name in ARRAYS:
            getattr(moments, name)
    moments = duplicate(moments)
    for name in ARRAYS:
        values = getattr(moments, name)
        before = values.copy()
        with pytest.raises(ValueError, match="read-only"):
            values[...] = 7.0
        with pytest.raises(AttributeError):
            setattr(moments, name, before)
        np.testing.assert_array_equal(getattr(moments, name), before)
    with pytest.raises(dataclasses.FrozenInstanceError):
        moments.n_samples = 3


@pytest.mark.parametrize("duplicate", [pickled, copy.copy, copy.deepcopy])
def test_copies_are_complete(duplicate):
    x, x_plus = views()
    moments = Moments.from_views(x, x_plus)
    copied = duplicate(moments)
    assert_same(copied, moments, rtol=0.0)
    assert copied.n_samples == moments.n_samples
    assert repr(copied) == repr(moments)
    land, again = (pyssl.InfoNCE().population(item.centered(), 2) for item in (moments, copied))
    np.testing.assert_array_equal(again.eigenvalues, land.eigenvalues)


def test_moments_do_not_alias_what_they_were_made_from():
    sigma, a, mean = np.eye(2), 0.5 * np.eye(2), np.ones(2)
    c = sigma - a
    moments = Moments(sigma, a, mean, augmentation_covariance=c)
    for array in (sigma, a, mean, c):
        array[:] = -9.0  # still writeable, and nobody's business any more
    np.testing.assert_array_equal(moments.covariance, np.eye(2))
    np.testing.assert_array_equal(moments.cross_covariance, 0.5 * np.eye(2))
    np.testing.assert_array_equal(moments.augmentation_covariance, 0.5 * np.eye(2))
    np.testing.assert_array_equal(moments.mean, np.ones(2))


def test_repr_is_a_summary():
    text = repr(Moments.from_views(*views()))
    assert "dim=4" in text and "n_samples=50" in text and "\n" not in text
    assert "population" in repr(Moments(np.eye(2), np.zeros((2, 2))))
    assert repr(MomentAccumulator(3)) == "MomentAccumulator(dim=3, n_samples=0)"
