"""Phase diagrams: what is drawn is what the dataset holds."""

from __future__ import annotations

import numpy as np
import pytest

import pyssl

pytest.importorskip("matplotlib")
pytest.importorskip("xarray")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from pyssl import _phase, plots

MOMENTS = pyssl.Moments(np.eye(3), np.diag([0.9, 0.5, 0.1]))
AXES = {
    "temperature": np.geomspace(0.1, 10.0, 30),
    "weight_decay": np.linspace(0.0, 2.0, 20),
    "augmentation_strength": [0.5, 1.0, 2.0],
}


@pytest.fixture(scope="module")
def ds():
    return pyssl.sweep(pyssl.InfoNCE(), MOMENTS, AXES, progress=False)


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def axes():
    return Figure().subplots()


AT = {"augmentation_strength": 1.0}


@pytest.mark.parametrize("show", ["kind", "rank", "value", "effective_rank"])
def test_cells_are_the_values(ds, show):
    ax = plots.phase_diagram(ds, "temperature", "weight_decay", axes(), show=show, at=AT)
    (mesh,) = ax.collections
    drawn = np.asarray(mesh.get_array()).reshape(20, 30)
    np.testing.assert_array_equal(drawn, ds[show].sel(AT).transpose("weight_decay", ...))
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("temperature", "weight decay")


def test_lines_bound_the_phases(ds):
    ax = plots.phase_diagram(ds, "temperature", "weight_decay", axes(), at=AT)
    lines = ax.get_lines()
    for line, a in zip(lines, [0.9, 0.5, 0.1], strict=True):
        np.testing.assert_allclose(line.get_ydata(), 2.0 * a / AXES["temperature"])
    assert lines[0].get_linewidth() > lines[1].get_linewidth()
    swapped = plots.phase_diagram(ds, "weight_decay", "temperature", axes(), at=AT)
    np.testing.assert_array_equal(swapped.get_lines()[1].get_xdata(), lines[1].get_ydata())
    assert not plots.phase_diagram(
        ds, "temperature", "weight_decay", axes(), at=AT, lines=False
    ).get_lines()


def test_lines_where_the_decay_is_no_axis():
    loss, g = pyssl.SquaredVICReg(), 0.8
    sweep = {
        "invariance": np.linspace(0.0, 5.0, 41),
        "augmentation_strength": np.linspace(0.0, 2.0, 51),
    }
    moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.5]))
    found = pyssl.sweep(loss, moments, sweep, weight_decay=g, progress=False)
    ax = plots.phase_diagram(found, "invariance", "augmentation_strength", axes())
    contours = ax.collections[1:]
    assert len(contours) == 2
    for contour, a in zip(contours, [0.9, 0.5], strict=True):
        inv, s = np.concatenate([path.vertices for path in contour.get_paths()]).T
        # 2 (a + (1 - inv) s c) = g/2; between points of the grid to second order
        np.testing.assert_allclose(2.0 * (a + (1.0 - inv) * s * (1.0 - a)), g / 2.0, atol=1e-2)


def test_lines_end_where_the_embedding_does():
    sweep = {"weight_decay": np.linspace(0.01, 2.0, 50), "embedding_dim": [1, 2, 3]}
    found = pyssl.sweep(pyssl.InfoNCE(), MOMENTS, sweep, progress=False)
    ax = plots.phase_diagram(found, "weight_decay", "embedding_dim", axes(), show="rank")
    lowest = [
        min(path.vertices[:, 1].min() for path in contour.get_paths() if len(path.vertices))
        for contour in ax.collections[1:]
        if any(len(path.vertices) for path in contour.get_paths())
    ]
    assert lowest == [1.0, 2.0]  # the third needs k = 3: a point, no line


def test_facets_share_their_colours(ds):
    panels = plots.phase_diagram(
        ds, "temperature", "weight_decay", facet="augmentation_strength", show="value"
    )
    assert [panel.get_title(loc="right") for panel in panels] == [
        f"augmentation strength {s}" for s in ("0.5", "1", "2")
    ]
    limits = {panel.collections[0].get_clim() for panel in panels}
    assert limits == {(ds["value"].min().item(), ds["value"].max().item())}
    for index, panel in enumerate(panels):
        drawn = np.asarray(panel.collections[0].get_array()).reshape(20, 30)
        np.testing.assert_array_equal(
            drawn, ds["value"].isel(augmentation_strength=index).transpose()
        )


def test_many_cells_are_thinned(monkeypatch, ds):
    monkeypatch.setattr(_phase, "_CELLS", 10)
    ax = plots.phase_diagram(ds, "temperature", "weight_decay", axes(), at=AT)
    assert ax.collections[0].get_array().size == 10 * 10


def test_overview(ds):
    assert _phase.overview(ds).startswith(b"\x89PNG")
    assert _phase.overview(ds.isel(temperature=[0], weight_decay=[1])) is None
    assert not plt.get_fignums()


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"ds": 3}, TypeError, "ds must be an xarray.Dataset"),
        ({"x": "mode"}, ValueError, "x must be one of"),
        ({"y": "temperature"}, ValueError, "different axes"),
        ({"show": "critical_weight_decay"}, ValueError, "show must be one of"),
        ({"at": {}}, ValueError, "at must have a value of 'augmentation_strength'"),
        ({"at": {"augmentation_strength": 7.0}}, ValueError, "must be a value of that axis"),
        ({"at": {"colour": 1}}, ValueError, "at must be one of"),
        ({"facet": "augmentation_strength", "at": {}, "ax": "new"}, ValueError, "ax must be left"),
    ],
)
def test_wrong_input_is_named(ds, wrong, error, words):
    options = {"ds": ds, "x": "temperature", "y": "weight_decay", "at": AT, **wrong}
    with pytest.raises(error, match=words):
        plots.phase_diagram(**options)
