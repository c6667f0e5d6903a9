"""The landscape of a batch: derivatives, and its limit in n."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import pyssl
from pyssl.testing import gaussian_views

LOSSES = [
    pyssl.InfoNCE(0.7),
    pyssl.InfoNCE(0.7, "dot", symmetric=True),
    pyssl.InfoNCE(0.7, partition="joint"),
    pyssl.NTXent(0.4),
    pyssl.SpectralContrastive(),
    pyssl.SpectralContrastive(clip=1.5, negatives="all"),
    pyssl.BarlowTwins(),
    pyssl.BarlowTwins(redundancy=1.0, normalize=False),
    pyssl.VICReg(),
    pyssl.SquaredVICReg(2.0),
]
POLYNOMIAL = [
    pyssl.SpectralContrastive(),
    pyssl.BarlowTwins(redundancy=0.3, normalize=False),
    pyssl.SquaredVICReg(2.0),
]


def views(n=40, d=4, dtype=np.float64):
    rng = np.random.default_rng(7)
    x = rng.standard_normal((n, d))
    return x.astype(dtype), (x + 0.4 * rng.standard_normal((n, d))).astype(dtype)


def directions(land, dtype=np.float64):
    return np.random.default_rng(8).standard_normal((3, *land.shape)).astype(dtype)


def test_every_loss_has_one():
    assert {type(loss) for loss in LOSSES} == set(pyssl.LOSSES.values())


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_derivatives(loss, bias):
    land = loss.empirical(*views(), embedding_dim=3, weight_decay=0.3, bias=bias)
    assert isinstance(land, pyssl.Landscape)
    W, D, E = directions(land)
    value, gradient = land.value_and_gradient(W)
    assert land.shape == (3, 4 + bias)
    assert value == land.value(W)
    step = 1e-5
    slope = (land.value(W + step * D) - land.value(W - step * D)) / (2 * step)
    assert abs(slope - np.vdot(gradient, D)) <= 1e-7 * np.abs(gradient * D).sum()
    change = (land.gradient(W + step * D) - land.gradient(W - step * D)) / (2 * step)
    product = land.hvp(W, D)
    np.testing.assert_allclose(product, change, atol=1e-6 * np.abs(change).max())
    np.testing.assert_allclose(
        np.vdot(product, E), np.vdot(land.hvp(W, E), D), rtol=1e-9, atol=1e-9
    )
    hessian = land.hessian(W)
    np.testing.assert_allclose(hessian @ D.ravel(), product.ravel(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_is_the_loss_of_the_embeddings(loss):
    x, x_plus = views()
    land = loss.empirical(x, x_plus, embedding_dim=3, weight_decay=0.3, bias=True)
    W = directions(land)[0]
    z, z_plus = (a @ W[:, :-1].T + W[:, -1] for a in (x, x_plus))
    expected = loss.value(z, z_plus) + 0.15 * (W[:, :-1] ** 2).sum()
    np.testing.assert_allclose(land.value(W), expected, rtol=1e-12)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_batches_and_float32(loss):
    land = loss.empirical(*views(dtype=np.float32), embedding_dim=3)
    batch = directions(land, np.float32)
    value, gradient = land.value_and_gradient(batch)
    assert value.dtype == gradient.dtype == np.float32
    assert value.shape == (3,)
    for one, expected, slope in zip(batch, value, gradient, strict=True):
        np.testing.assert_array_equal(land.value(one), expected)
        np.testing.assert_array_equal(land.gradient(one), slope)
    wide = land.value_and_gradient(batch.astype(np.float64))
    assert wide[1].dtype == np.float64
    np.testing.assert_allclose(value, wide[0], rtol=1e-5)
    error = np.linalg.norm(gradient - wide[1])
    assert error <= 1e-4 * np.linalg.norm(wide[1])


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_planes(loss):
    land = loss.empirical(*views(), embedding_dim=3, weight_decay=0.3)
    W, D, E = directions(land)
    u, v = np.linspace(-1, 2, 6), np.linspace(-0.5, 0.5, 7)
    expected = [[land.value(W + a * D + b * E) for b in v] for a in u]
    np.testing.assert_allclose(land.plane(W, D, E, u, v), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("loss", POLYNOMIAL, ids=str)
def test_planes_of_polynomials_take_25_values(loss, monkeypatch):
    land = loss.empirical(*views(), embedding_dim=3)
    taken = []
    sample = type(loss)._sample
    monkeypatch.setattr(
        type(loss), "_sample", lambda self, *pair: taken.append(1) or sample(self, *pair)
    )
    W, D, E = directions(land)
    land.plane(W, D, E, np.linspace(-1, 1, 20), np.linspace(-1, 1, 20))
    assert len(taken) == 25


# What training sees goes to what theory computes: the error of a mean of n terms falls as
# 1/sqrt(n), and InfoNCE's n - 1 negatives approach infinitely many as 1/n.
LIMITS = [
    (pyssl.InfoNCE(1.0), True),
    (pyssl.InfoNCE(1.0, "dot"), True),
    (pyssl.InfoNCE(1.0, partition="joint"), True),
    (pyssl.SpectralContrastive(), False),
    (pyssl.BarlowTwins(redundancy=1.0, normalize=False), False),
    (pyssl.BarlowTwins(redundancy=0.3, normalize=False), False),
    (pyssl.BarlowTwins(redundancy=0.3), False),
    (pyssl.VICReg(1.0, 2.0, 3.0), False),
    (pyssl.SquaredVICReg(2.0), False),
]


@pytest.mark.parametrize(("loss", "log_n"), LIMITS, ids=str)
def test_limit_of_many_pairs(loss, log_n):
    moments = pyssl.Moments(np.diag([1.0, 0.8, 0.5]), np.diag([0.7, 0.4, 0.1]))
    theory = loss.population(moments, embedding_dim=2, weight_decay=0.1)
    W = 0.4 * np.random.default_rng(1).standard_normal(theory.shape)
    errors = []
    for n in (250, 4000):
        gaps = []
        for seed in range(24):
            x, x_plus = gaussian_views(moments, n, np.random.default_rng(seed))
            land = loss.empirical(x, x_plus, embedding_dim=2, weight_decay=0.1)
            # the sample's logarithm is of a sum over n, the population's of a mean
            gaps.append(land.value(W) - (np.log(n) if log_n else 0.0) - theory.value(W))
        errors.append(np.sqrt(np.mean(np.square(gaps))))
    # sixteen times the pairs: four times less, within the scatter of the draws
    assert errors[1] <= 0.5 * errors[0]
    assert errors[1] <= 10 / np.sqrt(4000) * max(1.0, abs(theory.value(W)))


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_bad_input(loss):
    x, x_plus = views()
    with pytest.raises(ValueError, match="x must have at least 2 rows"):
        loss.empirical(x[:1], x_plus[:1], embedding_dim=2)
    with pytest.raises(ValueError, match="embedding_dim must be at least 1"):
        loss.empirical(x, x_plus, embedding_dim=0)
    with pytest.raises(ValueError, match=r"W must be \(\.\.\., 2, 4\), got \(2, 3\)"):
        loss.empirical(x, x_plus, embedding_dim=2).value(np.zeros((2, 3)))


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_pickles(loss):
    land = loss.empirical(*views(), embedding_dim=2, weight_decay=0.3, bias=True)
    again = pickle.loads(pickle.dumps(land))
    W = directions(land)[0]
    assert again.value(W) == land.value(W)
    assert (again._remake(3, 0.1).shape, again._remake(3, 0.1).weight_decay) == ((3, 5), 0.1)
