"""Training of the linear model on a batch: it ends where Newton's method does."""

from __future__ import annotations

import numpy as np
import pytest

import pyssl
from pyssl._training import train
from pyssl.testing import gaussian_views, random_moments

LOSSES = [
    pyssl.SpectralContrastive(),
    pyssl.BarlowTwins(redundancy=1.0, normalize=False),
    pyssl.SquaredVICReg(1.5),
    pyssl.InfoNCE(0.7),
    pyssl.NTXent(1.0),
    pyssl.VICReg(),
]


def batch(loss, *, n=300, decay=0.2, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    views = gaussian_views(random_moments([0.8, 0.5, 0.2], rng).centered(), n, rng)
    x, x_plus = (scale * view for view in views)
    mean = 0.5 * (x.mean(axis=0) + x_plus.mean(axis=0))
    x, x_plus = x - mean, x_plus - mean
    decay = 0.0 if loss.scale_free else decay
    return loss.empirical(x, x_plus, 2, decay), pyssl.Moments.from_views(x, x_plus).centered()


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_ends_at_the_minimum_that_newton_finds(loss):
    land, moments = batch(loss)
    trained = train(land, moments, loss.embedding_unit, np.random.default_rng(0))
    assert trained.converged
    found = pyssl.minimize(land, start=trained.weights)
    assert found.converged
    assert found.index == 0
    assert trained.value == pytest.approx(found.value, rel=1e-10)
    # the value is flat at the minimum: the gradient says more
    steepest = np.linalg.norm(land.gradient(np.eye(*land.shape)))
    assert np.linalg.norm(land.gradient(trained.weights)) < 1e-6 * steepest


def test_units_of_the_views_make_no_difference():
    loss = pyssl.InfoNCE()
    ends = []
    for scale in (1.0, 1e3):
        land, moments = batch(loss, decay=0.2 * scale**2, scale=scale)
        end = train(land, moments, loss.embedding_unit, np.random.default_rng(0))
        assert end.converged
        ends.append(end)
    assert ends[1].value == pytest.approx(ends[0].value, rel=1e-10)


def test_directions_without_variation_stay_out():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 3)) * [1.0, 1.0, 0.0]
    x_plus = x + 0.3 * rng.standard_normal((100, 3)) * [1.0, 1.0, 0.0]
    loss = pyssl.SpectralContrastive()
    moments = pyssl.Moments.from_views(x, x_plus).centered()
    end = train(loss.empirical(x, x_plus, 2), moments, 1.0, rng)
    assert end.converged
    assert not end.weights[:, 2].any()
    nothing = np.zeros((10, 3))
    none = train(
        loss.empirical(nothing, nothing, 2), pyssl.Moments.from_views(nothing, nothing), 1.0, rng
    )
    assert none.converged
    assert not none.weights.any()


def test_a_start_at_the_end_stays_there():
    land, moments = batch(pyssl.InfoNCE())
    first = train(land, moments, 1.0, np.random.default_rng(0))
    states = []
    again = train(
        land, moments, 1.0, np.random.default_rng(1), start=first.weights, callback=states.append
    )
    np.testing.assert_allclose(again.weights, first.weights, atol=1e-6)
    assert len(states) <= 3


def test_callback_sees_the_descent_and_stops_it():
    land, moments = batch(pyssl.SpectralContrastive())
    states = []

    def stop(state):
        states.append(state)
        return state.iteration == 4

    end = train(land, moments, 1.0, np.random.default_rng(0), run=2, callback=stop)
    assert not end.converged
    assert [state.iteration for state in states] == [1, 2, 3, 4]
    assert {state.restart for state in states} == {2}
    values = [state.value for state in states]
    assert values == sorted(values, reverse=True)
