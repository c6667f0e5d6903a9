"""Sweeps: the same answers as classify at every point, by whichever algorithm."""

from __future__ import annotations

import dataclasses
import importlib
import pickle
import warnings

import numpy as np
import pytest

import pyssl
from pyssl import _sweep_evaluate

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


def axes_for(loss, rng, points, largest=1.0):
    """Return axes of random settings on every side of the thresholds."""
    axes = {
        "weight_decay": np.append(0.0, largest * rng.uniform(0.0, 5.0, points)),
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
    largest = np.linalg.eigvalsh(moments.cross_covariance)[-1]
    axes = axes_for(loss, rng, 6, largest)
    ds = pyssl.sweep(loss, moments, axes, outputs=ALL, progress=False, level=level)
    expected = {"commuting": "elementwise", "general": "pencils", "sampled": "pencils"}
    if isinstance(loss, pyssl.BarlowTwins) and kind is not commuting:
        assert ds.attrs["algorithm"] == "loop"
    else:
        assert ds.attrs["algorithm"] == expected[kind.__name__]
    assert len(np.unique(ds["kind"])) > 1
    assert_agrees(ds, loss, moments, level)


@pytest.mark.parametrize(("loss", "level"), SPECTRAL, ids=lambda x: repr(x)[:60])
@pytest.mark.parametrize("kind", [general, sampled])
def test_kind_and_rank_take_no_pencil(loss, level, kind, rng, monkeypatch):
    moments = kind(rng, 5)
    if loss.key == "infonce" and loss.similarity == "dot":
        moments = moments.centered()
    largest = np.linalg.eigvalsh(moments.cross_covariance)[-1]
    axes = axes_for(loss, rng, 5, largest)
    whole = pyssl.sweep(
        loss, moments, axes, outputs=["kind", "rank", "capacity", "value"], level=level,
        progress=False,
    )  # fmt: skip
    monkeypatch.setattr(_sweep_evaluate.Evaluator, "_summarise", None)
    ds = pyssl.sweep(
        loss, moments, axes, outputs=["kind", "rank", "capacity"], level=level, progress=False
    )
    # Barlow Twins always commutes with itself
    assert ds.attrs["algorithm"] == ("elementwise" if loss.key == "barlow_twins" else "inertia")
    for name in ("kind", "rank", "capacity"):
        np.testing.assert_array_equal(ds[name], whole[name])


@pytest.mark.parametrize(("loss", "level"), SPECTRAL, ids=lambda x: repr(x)[:60])
def test_without_decay_one_diagonalisation_is_enough(loss, level, rng):
    moments = general(rng, 5)
    axes = axes_for(loss, rng, 1)
    del axes["weight_decay"]
    ds = pyssl.sweep(loss, moments, axes, outputs=ALL, progress=False, level=level)
    if loss.key != "barlow_twins":
        assert ds.attrs["algorithm"] == "elementwise"
        assert "without weight decay" in ds.attrs["reason"]
    assert_agrees(ds, loss, moments, level)


@pytest.mark.parametrize("level", ["population", "effective"])
@pytest.mark.parametrize("g", [0.0, 0.3])
def test_degenerate_moments(level, g):
    # no variation, no signal, no augmentation, and all of them at no strength at all
    a, c = [0.0, 0.5, 0.25, 0.0], [0.0, 0.5, 0.0, 1.0]
    turn = np.linalg.qr(np.arange(16.0).reshape(4, 4) ** 2 % 7)[0]
    for basis in (np.eye(4), turn):
        moments = pyssl.Moments((basis * np.add(a, c)) @ basis.T, (basis * np.array(a)) @ basis.T)
        axes = {"augmentation_strength": [0.0, 0.5, 1.0], "weight_decay": [g, 2.0]}
        for loss in (pyssl.InfoNCE(), pyssl.InfoNCE(partition="joint")):
            ds = pyssl.sweep(loss, moments, axes, outputs=ALL, level=level, progress=False)
            assert_agrees(ds, loss, moments, level)
    if level == "population" and g == 0.0:
        assert np.isinf(ds["value"].values[:, 0]).all()
        assert np.isnan(ds["effective_rank"].values[:, 0]).all()


@pytest.mark.parametrize(
    ("loss", "bias", "algorithm"),
    [
        (pyssl.SpectralContrastive(), False, "loop"),
        (pyssl.SpectralContrastive(), True, "loop"),
        (pyssl.InfoNCE(), True, "pencils"),
        (pyssl.InfoNCE(similarity="dot"), True, "pencils"),
        (pyssl.InfoNCE(similarity="dot"), False, "loop"),
    ],
)
def test_means_and_biases(loss, bias, algorithm, rng):
    moments = sampled(rng, 3)
    axes = {"weight_decay": [0.0, 0.4, 1.5], "embedding_dim": [2, 4]}
    ds = pyssl.sweep(loss, moments, axes, outputs=ALL, bias=bias, progress=False)
    assert ds.attrs["algorithm"] == algorithm
    assert_agrees(ds, loss, moments, bias=bias)
    hard = pyssl.sweep(loss, moments, axes, outputs=["kind", "rank"], bias=bias, progress=False)
    if algorithm != "loop" or loss.key == "spectral":
        assert hard.attrs["algorithm"] == "inertia"
    np.testing.assert_array_equal(hard["rank"], ds["rank"])
    np.testing.assert_array_equal(hard["kind"], ds["kind"])


@pytest.mark.parametrize(
    ("loss", "axes", "level"),
    [
        (pyssl.NTXent(), {"temperature": [0.2, 1.0, 3.0]}, "effective"),
        (pyssl.InfoNCE(), {"negatives": [1, 4, np.inf], "weight_decay": [0.1]}, "effective"),
        (pyssl.VICReg(1.0, 1.0, 1.0, 0.1), {"invariance": [0.5, 4.0]}, "population"),
        (pyssl.BarlowTwins(normalize=False), {"redundancy": [0.5, 1.0]}, "population"),
    ],
)
def test_losses_without_closed_form_are_classified_one_by_one(loss, axes, level):
    moments = pyssl.Moments(np.eye(3), np.diag([0.9, 0.5, 0.1]))
    ds = pyssl.sweep(loss, moments, axes, outputs=ALL, embedding_dim=2, progress=False)
    assert (ds.attrs["algorithm"], ds.attrs["level"]) == ("loop", level)
    assert_agrees(ds, loss, moments, level)


# ---- 2,000 random settings -----------------------------------------------------------------------


def test_random_settings(rng):
    # a sweep of one point each: what the issue asks of 2,000 of them; here of 300
    assert_random_settings(rng, 300)


def assert_random_settings(rng, count):
    for _ in range(count):
        loss, level = SPECTRAL[rng.integers(len(SPECTRAL))]
        kind = (commuting, general, sampled)[rng.integers(3)]
        moments = kind(rng, int(rng.integers(2, 9))).centered()
        largest = np.linalg.eigvalsh(moments.cross_covariance)[-1]
        axes = {
            "weight_decay": [largest * rng.uniform(0.0, 4.0) * (rng.random() < 0.8)],
            "embedding_dim": [int(rng.integers(1, 10))],
            "augmentation_strength": [rng.uniform(0.5, 3.0)],
        }
        if isinstance(loss, pyssl.InfoNCE):
            axes["temperature"] = [np.exp(rng.uniform(-2.0, 2.0))]
        if isinstance(loss, pyssl.SquaredVICReg):
            axes["invariance"] = [rng.uniform(0.0, 3.0)]
        ds = pyssl.sweep(loss, moments, axes, outputs=ALL, level=level, progress=False)
        assert_agrees(ds, loss, moments, level)


# ---- moments as axes -----------------------------------------------------------------------------


def power_law(spectral_exponent, noise=0.1):
    a = np.arange(1.0, 5.0) ** -spectral_exponent
    return pyssl.Moments(np.diag(a + noise), np.diag(a))


def test_axes_of_the_moments():
    axes = {"spectral_exponent": [0.5, 2.0], "weight_decay": [0.1, 0.5, 1.0], "noise": [0.1, 1.0]}
    ds = pyssl.sweep(pyssl.InfoNCE(), power_law, axes, outputs=ALL, progress=False)
    assert ds["kind"].dims == tuple(axes)
    for i, exponent in enumerate(axes["spectral_exponent"]):
        for j, noise in enumerate(axes["noise"]):
            part = ds.isel(spectral_exponent=i, noise=j)
            assert_agrees(part, pyssl.InfoNCE(), power_law(exponent, noise))


DATA = np.diag([9.0, 4.0, 1.0]) + 0.5
STRENGTHENED = [
    (pyssl.InfoNCE(), pyssl.augment.Mask(0.5), 0.4, "population"),
    (pyssl.SpectralContrastive(), pyssl.augment.Mask(0.7) | pyssl.augment.Noise(0.2), 0.6, None),
    (pyssl.SquaredVICReg(3.0), pyssl.augment.Noise(1.0), 0.2, None),
    (pyssl.InfoNCE(), pyssl.augment.Blur((1, 3), [0.5, 1.0]), 2.0, "effective"),
]


@pytest.mark.parametrize(("loss", "augmentation", "g", "level"), STRENGTHENED)
@pytest.mark.parametrize("outputs", [["rank"], list(ALL)])
def test_the_strength_of_an_augmentation_is_an_axis(loss, augmentation, g, level, outputs):
    critical = pyssl.augment.critical_strengths(loss, augmentation, DATA, weight_decay=g)
    finite = critical[np.isfinite(critical)]
    assert 0.0 < finite.min() < finite.max() < 40.0  # modes are lost on the axis, not all at once
    strengths = np.sort([*(finite * (1.0 - 1e-6)), *(finite * (1.0 + 1e-6)), 0.0, 50.0])
    axes = {"weight_decay": [g], "augmentation_strength": strengths, "embedding_dim": [1, 3]}
    ds = pyssl.sweep(loss, augmentation.family(DATA), axes, outputs, level=level, progress=False)
    kept = np.sum(critical > strengths[:, None], axis=1)
    np.testing.assert_array_equal(ds["rank"].values[0], np.minimum(kept[:, None], [1, 3]))


def test_a_function_that_takes_the_strength_gets_it():
    augmentation = pyssl.augment.Mask(0.6) | pyssl.augment.Noise(np.diag([0.1, 0.2, 0.3]))
    calls = []

    def moments(scale, augmentation_strength):
        calls.append((scale, augmentation_strength))
        return augmentation.with_strength(augmentation_strength).moments(scale * DATA)

    axes = {"augmentation_strength": [0.5, 3.0], "weight_decay": [0.3], "scale": [1.0, 2.0]}
    for loss in (pyssl.InfoNCE(), pyssl.VICReg()):  # by pencils, and by a loop
        calls.clear()
        ds = pyssl.sweep(loss, moments, axes, ALL, progress=False)
        assert calls == [(1.0, 0.5), (2.0, 0.5), (1.0, 3.0), (2.0, 3.0)]
        for index, s in enumerate(axes["augmentation_strength"]):
            there = augmentation.with_strength(s).moments(DATA)
            one = {"weight_decay": [0.3], "scale": [1.0]}
            alone = pyssl.sweep(loss, lambda scale, m=there: m, one, ALL, progress=False)
            for name in ALL:
                got = ds[name].isel(augmentation_strength=index, scale=0).values
                np.testing.assert_array_equal(got, alone[name].values[:, 0], err_msg=name)
    with pytest.raises(ValueError, match=r"axes\['augmentation_strength'\] must be >= 0, got -1"):
        pyssl.sweep(loss, moments, {**axes, "augmentation_strength": [-1.0]}, progress=False)
    # a function without such a parameter leaves the strength to C -> s C
    base = augmentation.moments(DATA)
    axes = {"scale": [1.0], "augmentation_strength": [0.5, 3.0]}
    scaled = pyssl.sweep(
        pyssl.SquaredVICReg(2.0), lambda scale: base, axes, ["value"], progress=False
    )
    for index, s in enumerate(axes["augmentation_strength"]):
        land = pyssl.SquaredVICReg(2.0).population(base.with_augmentation_strength(s), 3)
        np.testing.assert_allclose(scaled["value"].values[0, index], land.minimum().value)


def test_a_family_pickles_and_checks_its_strength():
    family = pyssl.augment.Mask(0.6).family(DATA, [0.1, 0.2, 0.3])
    assert repr(family) == "Family(Mask(keep=0.6, rescale=False), dim=3)"
    for again in (family, pickle.loads(pickle.dumps(family))):
        expected = pyssl.augment.Mask(0.36).moments(DATA, [0.1, 0.2, 0.3])
        np.testing.assert_allclose(again(2.0).covariance, expected.covariance, rtol=1e-14)
        np.testing.assert_allclose(again(2.0).mean, expected.mean, rtol=1e-14)
        assert not again(augmentation_strength=0.0).augmentation_covariance.any()
    for strength, error in ((-1.0, ValueError), (np.nan, ValueError), ("1", TypeError)):
        with pytest.raises(error, match="augmentation_strength must be"):
            family(strength)
    with pytest.raises(ValueError, match=r"second_moment must be \(d, d\)"):
        pyssl.augment.Mask(0.6).family(np.ones((2, 3)))


def test_a_sequence_of_moments_has_an_axis():
    sequence = [power_law(1.0), power_law(3.0)]
    axes = {"weight_decay": [0.1, 0.5], "data": ["flat", "steep"]}
    ds = pyssl.sweep(pyssl.InfoNCE(), sequence, axes, outputs=ALL, progress=False)
    for name, moments in zip(axes["data"], sequence, strict=True):
        assert_agrees(ds.sel(data=name), pyssl.InfoNCE(), moments)


# ---- what a dataset holds ------------------------------------------------------------------------


def test_dataset_says_what_it_is():
    axes = {"temperature": [0.5, 2.0], "weight_decay": [0.1, 0.5, 3.0]}
    ds = pyssl.sweep(pyssl.InfoNCE(), power_law(1.0), axes, progress=False)
    assert ds["kind"].dtype == np.int8 and ds["rank"].dtype.kind == "i"
    assert ds["kind"].attrs["flag_values"] == [0, 1, 2]
    assert ds["kind"].attrs["flag_meanings"].split() == [str(kind) for kind in pyssl.Collapse]
    assert list(ds.sizes.items()) == [("temperature", 2), ("weight_decay", 3), ("mode", 4)]
    for name, values in axes.items():
        np.testing.assert_array_equal(ds[name], values)
    assert ds.attrs["embedding_dim"] == 4 and "weight_decay" not in ds.attrs


@pytest.mark.parametrize(("loss", "level"), SPECTRAL, ids=lambda x: repr(x)[:60])
def test_critical_lines_are_those_of_classify(loss, level, rng):
    moments = general(rng, 4)
    axes = axes_for(loss, rng, 2)
    ds = pyssl.sweep(loss, moments, axes, outputs=["rank"], level=level, progress=False)
    lines = ds["critical_weight_decay"]
    assert lines.dims[-1] == "mode" and not {"weight_decay", "embedding_dim"} & set(lines.dims)
    # the rank at every point, from the lines
    g, k = xr.broadcast(ds["weight_decay"], ds["embedding_dim"])
    counted = np.minimum((lines > g).sum("mode"), k).transpose(*ds["rank"].dims)
    np.testing.assert_array_equal(counted, ds["rank"])


def test_lines_without_closed_form_are_the_known_ones():
    moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]))
    loss = pyssl.InfoNCE(negatives=4)
    axes = {"temperature": [0.5, 1.0], "weight_decay": [1.0]}
    lines = pyssl.sweep(loss, moments, axes, progress=False)["critical_weight_decay"]
    np.testing.assert_allclose(lines[:, 0], 2.0 * 4 / 5 * 0.9 / np.array([0.5, 1.0]))
    assert np.isnan(lines[:, 1]).all()


# ---- nothing depends on how ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [commuting, general])
@pytest.mark.parametrize("threads", [1, 3])
def test_chunks_and_threads_change_no_bit(kind, threads, rng):
    moments = kind(rng, 5)
    axes = {
        "temperature": np.geomspace(0.3, 3.0, 7),
        "weight_decay": np.geomspace(0.1, 1.0, 5),
        "embedding_dim": [2, 3, 5],
    }
    whole = pyssl.sweep(pyssl.InfoNCE(), moments, axes, outputs=ALL, progress=False)
    pyssl.set_num_threads(threads)
    try:
        for size in (1, 4, 50):
            cut = pyssl.sweep(
                pyssl.InfoNCE(), moments, axes, outputs=ALL, chunk_size=size, progress=False
            )
            xr.testing.assert_identical(cut, whole)
    finally:
        pyssl.set_num_threads(None)


def test_kernels_have_the_formulas_of_the_potentials():
    from pyssl import _sweep_kernels

    e = np.array([1e-12, 1e-4, 0.1, 0.5, 0.9, 0.999, 1.0 - 1e-9])
    forms = [("dot", "joint"), ("sqeuclidean", "conditional"), ("sqeuclidean", "joint")]
    for form, (similarity, partition) in enumerate(forms, start=1):
        potential = pyssl.InfoNCEPotential(1.0, similarity, partition)
        n = potential.amplitude(1.0 - e, e)
        gains = potential.gain(n, 1.0 - e, e)
        for index in range(len(e)):
            out = np.empty((1, 4))
            _sweep_kernels.from_eigenvalues(
                np.zeros(1, np.int64), 1.0 - e[index].reshape(1, 1), e[index].reshape(1, 1), form,
                1.0, np.ones(1, np.int64), np.zeros(1, bool), out,
            )  # fmt: skip
            np.testing.assert_allclose(out[0], [gains[index], 1.0, 1.0, 1.0], rtol=1e-14)


# ---- the front door ------------------------------------------------------------------------------

MOMENTS = power_law(1.0)
GOOD = {"loss": pyssl.InfoNCE(), "moments": MOMENTS, "axes": {"weight_decay": [0.1]}}


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"loss": "infonce"}, TypeError, "loss must be a pyssl loss"),
        ({"moments": np.eye(3)}, TypeError, "moments must be"),
        ({"axes": {}}, ValueError, "at least one axis"),
        ({"axes": [0.1]}, TypeError, "axes must be a mapping"),
        ({"axes": {"wieght_decay": [0.1]}}, ValueError, "got 'wieght_decay'"),
        ({"axes": {"invariance": [0.1]}}, ValueError, "temperature, negatives.*got 'invariance'"),
        ({"axes": {"weight_decay": []}}, ValueError, "'weight_decay'.*at least one value"),
        ({"axes": {"weight_decay": [[0.1]]}}, ValueError, "'weight_decay'.*dimension"),
        ({"axes": {"weight_decay": ["a"]}}, TypeError, "'weight_decay'.*real numbers"),
        ({"axes": {"weight_decay": [np.nan]}}, ValueError, "'weight_decay'.*nan"),
        ({"axes": {"weight_decay": [-1.0]}}, ValueError, "'weight_decay'.*>= 0"),
        ({"axes": {"weight_decay": [1.0, 1.0]}}, ValueError, "'weight_decay'.*repeat.*1.0"),
        ({"axes": {"temperature": [0.0]}}, ValueError, "temperature must be > 0"),
        ({"axes": {"embedding_dim": [1.5]}}, ValueError, "'embedding_dim'.*integers.*1.5"),
        ({"axes": {"embedding_dim": [0]}}, ValueError, "'embedding_dim'.*got 0"),
        ({"outputs": "kind"}, TypeError, "sequence of names"),
        ({"outputs": ["colour"]}, ValueError, "'colour'"),
        ({"outputs": []}, ValueError, "at least one"),
        ({"level": "empirical"}, ValueError, "level"),
        ({"embedding_dim": 0}, ValueError, "embedding_dim"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay"),
        ({"chunk_size": 0}, ValueError, "chunk_size"),
        ({"client": "here"}, TypeError, "client"),
        ({"store": 3}, TypeError, "store"),
        ({"progress": 1}, TypeError, "progress"),
        ({"moments": [MOMENTS]}, ValueError, "one name for the sequence"),
        ({"moments": [MOMENTS], "axes": {"data": [1, 2]}}, ValueError, "as many as"),
        ({"moments": lambda data: data, "axes": {"data": [1]}}, TypeError, r"moments\[0\]"),
        (
            {"loss": pyssl.NTXent(), "level": "population"},
            NotImplementedError,
            "NTXent.population",
        ),
    ],
)
def test_wrong_input_is_named(wrong, error, words):
    if "client" in wrong:
        pytest.importorskip("distributed")
    with pytest.raises(error, match=words):
        pyssl.sweep(**{**GOOD, "progress": False, **wrong})


def test_strengths_that_some_moments_do_not_allow(rng):
    # more dimensions than pairs: a sample's A has negative eigenvalues
    moments = pyssl.Moments.from_views(*rng.standard_normal((2, 4, 6)))
    with pytest.raises(ValueError, match="positive semidefinite"):
        pyssl.sweep(pyssl.InfoNCE(), moments, {"augmentation_strength": [1.0, 0.1]}, progress=False)


def test_progress_counts_points(capsys):
    pytest.importorskip("tqdm")
    pyssl.sweep(**GOOD)
    assert "points/s" in capsys.readouterr().err
    pyssl.sweep(**GOOD, progress=False)
    assert capsys.readouterr().err == ""
