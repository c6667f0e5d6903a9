"""Sweeps: the same answers as classify at every point, by whichever algorithm."""

from __future__ import annotations

import dataclasses
import importlib
import warnings

import numpy as np
import pytest

import pyssl
from pyssl import _sweep_evaluate, testing

pytest.importorskip("xarray")
xr = importlib.import_module("xarray")

SOFT = ("effective_rank", "participation_ratio", "stable_rank", "value")
ALL = ("kind", "rank", "capacity", *SOFT)


def commuting(rng, dim, rotate=True):
    a = rng.uniform(0.05, 1.0, dim)
    c = rng.uniform(0.01, 1.0, dim)
    turn = np.linalg.qr(rng.standard_normal((dim, dim)))[0] if rotate else np.eye(dim)
    return pyssl.Moments((turn * (a + c)) @ turn.T, (turn * a) @ turn.T)


def general(rng, dim):
    first, second = rng.standard_normal((2, dim, dim))
    a = first @ first.T / dim
    return pyssl.Moments(a + 0.3 * second @ second.T / dim, a)


def sampled(rng, dim):
    clean = rng.standard_normal((60, dim))
    x, x_plus = clean + 0.7 * rng.standard_normal((2, 60, dim)) + 0.5
    return pyssl.Moments.from_views(x, x_plus)


def by_classify(ds, loss, moments, level, bias=False):
    """Fill the outputs of a sweep by a plain loop over `classify`."""
    dims = ds["kind"].dims
    found = {name: np.empty(ds["kind"].shape) for name in ALL}
    make = {"population": "population", "effective": "effective"}[level]
    for index in np.ndindex(*ds["kind"].shape):
        at = {d: ds[d].values[i].item() for d, i in zip(dims, index, strict=True)}
        m = moments
        if "augmentation_strength" in at:
            m = m.with_augmentation_strength(at.pop("augmentation_strength"))
        k = at.pop("embedding_dim", ds.attrs.get("embedding_dim"))
        g = at.pop("weight_decay", ds.attrs.get("weight_decay"))
        land = getattr(dataclasses.replace(loss, **at), make)(m, k, g, bias)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pyssl.ThresholdWarning)
            report = pyssl.classify(land)
        found["kind"][index] = list(pyssl.Collapse).index(report.kind)
        found["value"][index] = report.minimum.value
        for name in ("rank", "capacity", *SOFT[:-1]):
            found[name][index] = getattr(report, name)
    return found


def assert_agrees(ds, loss, moments, level="population", bias=False):
    expected = by_classify(ds, loss, moments, level, bias)
    for name in ("kind", "rank", "capacity"):
        np.testing.assert_array_equal(ds[name].values, expected[name], err_msg=name)
    for name in SOFT:
        scale = np.abs(expected[name][np.isfinite(expected[name])]).max(initial=0.0)
        np.testing.assert_allclose(
            ds[name].values, expected[name], rtol=1e-10, atol=1e-13 * scale, err_msg=name
        )


SPECTRAL = [
    (pyssl.InfoNCE(), "population"),
    (pyssl.InfoNCE(), "effective"),
    (pyssl.InfoNCE(partition="joint"), "population"),
    (pyssl.InfoNCE(partition="joint"), "effective"),
    (pyssl.InfoNCE(similarity="dot"), "population"),
    (pyssl.InfoNCE(similarity="dot", partition="joint"), "population"),
    (pyssl.InfoNCE(similarity="dot", partition="joint"), "effective"),
    (pyssl.SpectralContrastive(), "population"),
    (pyssl.BarlowTwins(redundancy=1.0, normalize=False), "population"),
    (pyssl.SquaredVICReg(), "population"),
]


def axes_for(loss, rng, points):
    """Return axes of random settings on every side of the thresholds."""
    axes = {
        "weight_decay": np.append(0.0, rng.uniform(0.0, 2.5, points)),
        "augmentation_strength": rng.uniform(0.2, 3.0, 2),
        "embedding_dim": [2, 6],
    }
    if isinstance(loss, pyssl.InfoNCE):
        axes["temperature"] = np.exp(rng.uniform(-1.0, 1.0, 3))
    if isinstance(loss, pyssl.SquaredVICReg):
        axes["invariance"] = rng.uniform(0.5, 3.0, 3)
    return axes


@pytest.mark.parametrize(("loss", "level"), SPECTRAL, ids=lambda x: repr(x)[:60])
@pytest.mark.parametrize("kind", [commuting, general, sampled])
def test_agrees_with_a_loop_over_classify(loss, level, kind, rng):
    moments = kind(rng, 5).centered()
    ds = pyssl.sweep(
        loss, moments, axes_for(loss, rng, 6), outputs=ALL, progress=False, level=level
    )
    expected = {"commuting": "elementwise", "general": "pencils", "sampled": "pencils"}
    if isinstance(loss, pyssl.BarlowTwins) and kind is not commuting:
        assert ds.attrs["algorithm"] == "loop"
    else:
        assert ds.attrs["algorithm"] == expected[kind.__name__]
    assert len(np.unique(ds["kind"])) > 1
    assert_agrees(ds, loss, moments, level)
