"""The page and its sentences: self-contained, whole or not at all, and true."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import stat
import sys
import zipfile
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import pyssl
from pyssl import _advice, _page, _views, report
from pyssl.collapse import Cause

matplotlib = pytest.importorskip("matplotlib")


def moments(d: int = 6, seed: int = 0) -> pyssl.Moments:
    """Moments with well separated directions, the last without variation."""
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.standard_normal((d, d)))[0][:, : d - 1]
    spread = np.linspace(2.0, 0.5, d - 1)
    share = np.linspace(0.95, 0.05, d - 1)
    return pyssl.Moments((q * spread) @ q.T, (q * (spread * share)) @ q.T)


# ---- which losses, which form --------------------------------------------------------------------


def test_every_loss_of_the_registry_has_a_closed_form_or_a_reason():
    found = report.compare(moments())
    assert [*found.losses] == [*pyssl.LOSSES]
    assert {*found.reports} | {*found.missing} == {*pyssl.LOSSES}
    assert {"infonce", "spectral", "barlow_twins", "squared_vicreg"} <= {*found.reports}
    for name, why in found.missing.items():
        assert len(why) > 20, name


def test_losses_of_ones_own():
    own = pyssl.InfoNCE(temperature=0.3, similarity="dot")
    found = report.compare(moments(), losses=[own, "spectral"], temperature=2.0)
    assert found.losses == {"infonce": own, "spectral": pyssl.SpectralContrastive()}
    assert report.named_losses("infonce", 2.0) == {"infonce": pyssl.InfoNCE(2.0)}
    assert report.named_losses(own) == {"infonce": own}


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"losses": ["bogus"]}, ValueError, "loss must be one of infonce, .*, got 'bogus'"),
        ({"losses": [3]}, TypeError, "losses must be names of losses, or losses, got 3"),
        ({"losses": []}, ValueError, "at least one loss"),
        ({"losses": ["infonce", "infonce"]}, ValueError, "got infonce twice"),
        ({"losses": ["ntxent"]}, NotImplementedError, "no closed form in this version for ntxent"),
        ({"temperature": 0.0}, ValueError, "temperature must be > 0, got 0"),
        ({"temperature": 0.0, "losses": "spectral"}, ValueError, "temperature must be > 0"),
        ({"embedding_dim": 0}, ValueError, "embedding_dim must be at least 1, got 0"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay must be >= 0, got -1"),
        ({"image_shape": (2, 2)}, ValueError, "image_shape must hold 6 inputs, got 2 x 2"),
        ({"data": np.ones((3, 2))}, TypeError, "data must be pyssl.Moments or two arrays"),
        ({"data": (np.ones((3, 2)), np.ones((3, 1)))}, ValueError, "x_plus must have the shape"),
        ({"data": (np.ones((3, 2)), np.full((3, 2), np.nan))}, ValueError, r"\(row 0\)"),
    ],
)
def test_refusals(settings, error, message):
    with pytest.raises(error, match=message):
        report.compare(**{"data": moments(), **settings})


def test_moments_are_centred():
    m = moments()
    shifted = pyssl.Moments(m.covariance, m.cross_covariance, np.arange(6.0))
    one, other = report.compare(m), report.compare(shifted)
    assert not other.moments.mean.any()
    assert other.as_dict() == one.as_dict()


def test_defaults_depend_on_whose_views_they_are(rng):
    assert report.compare(moments()).weight_decay == 0.0
    assert report.compare(rng.standard_normal((2, 30, 3)).tolist()).moments.n_samples == 30
    assert report.compare((np.eye(3), np.eye(3))).weight_decay == 0.0


# ---- the sentences are true ----------------------------------------------------------------------


def rank_at(loss: pyssl.Loss, m: pyssl.Moments, k: int, g: float) -> int:
    land = report.closed_form(loss, m, k, g)
    return land.minimum().rank


CASES = [
    (name, k, g)
    for name in report.compare(moments()).reports
    for k in (2, 4, 8)
    for g in (0.05, 0.6)
]


def sentences(name: str, k: int, g: float) -> tuple[pyssl.Loss, pyssl.CollapseReport, str]:
    found = report.compare(moments(), losses=[name], embedding_dim=k, weight_decay=g)
    loss, each = found.losses[name], found.reports[name]
    return loss, each, "\n".join(_advice.changes(each, loss, found.moments))


@pytest.mark.parametrize(("name", "k", "g"), CASES)
def test_weight_decay_that_keeps_or_loses_a_mode(name, k, g):
    loss, each, text = sentences(name, k, g)
    for bound, mode in re.findall(r"weight decay keeps more: below (\S+) mode (\d+)", text):
        assert rank_at(loss, moments(), k, 0.999 * float(bound)) >= int(mode) > each.rank
        assert rank_at(loss, moments(), k, 1.02 * float(bound)) < int(mode)
    for bound, mode in re.findall(r"and below (\S+) every mode up to (\d+)", text):
        assert rank_at(loss, moments(), k, 0.999 * float(bound)) == int(mode)
        assert rank_at(loss, moments(), k, 1.02 * float(bound)) < int(mode)
    for bound, mode in re.findall(r"in a larger one, below (\S+) mode (\d+)", text):
        assert rank_at(loss, moments(), k, 0.999 * float(bound)) == k == each.rank
        assert rank_at(loss, moments(), int(mode), 0.999 * float(bound)) == int(mode)
        assert rank_at(loss, moments(), int(mode), 1.02 * float(bound)) < int(mode)
    for bound, mode in re.findall(r"from (\S+) on mode (\d+) is lost", text):
        assert rank_at(loss, moments(), k, float(bound)) < int(mode) == each.rank
        assert rank_at(loss, moments(), k, 0.98 * float(bound)) == each.rank
    for bound in re.findall(r"from (\S+) on everything is", text):
        assert rank_at(loss, moments(), k, float(bound)) == 0
        assert rank_at(loss, moments(), k, 0.98 * float(bound)) > 0


@pytest.mark.parametrize(("name", "k", "g"), CASES)
def test_embedding_dimension_that_holds_all(name, k, g):
    loss, each, text = sentences(name, k, g)
    lost = list(each.modes.cause).count(Cause.CAPACITY)
    found = re.findall(r"with embedding dimension (\d+) \(now (\d+)\) all (\d+) modes", text)
    assert bool(found) == bool(lost)
    for larger, now, everything in found:
        assert int(now) == k == each.rank
        assert int(larger) == int(everything) == k + lost
        assert rank_at(loss, moments(), int(larger), g) == int(everything)
        assert rank_at(loss, moments(), int(larger) + 5, g) == int(everything)


def test_temperature_that_keeps_a_mode():
    found = 0
    for k, g in ((4, 0.6), (8, 0.6), (8, 3.0), (8, 30.0)):
        _, each, text = sentences("infonce", k, g)
        for bound, mode in re.findall(r"lower temperature .* below (\S+) mode (\d+)", text):
            found += 1
            assert rank_at(pyssl.InfoNCE(0.999 * float(bound)), moments(), k, g) >= int(mode)
            assert rank_at(pyssl.InfoNCE(1.02 * float(bound)), moments(), k, g) < int(mode)
            assert int(mode) == each.rank + 1
    assert found >= 3


def test_invariance_that_keeps_a_mode():
    found = report.compare(
        moments(), losses=[pyssl.SquaredVICReg(3.0)], embedding_dim=4, weight_decay=0.05
    )
    each = found.reports["squared_vicreg"]
    text = "\n".join(_advice.changes(each, found.losses["squared_vicreg"], found.moments))
    ((bound, mode, filled),) = re.findall(
        r"invariance keeps more: below (\S+) mode (\d+) .* and below (\S+) the embedding", text
    )
    assert int(mode) == each.rank + 1
    for weight, wanted in ((bound, int(mode)), (filled, 4)):
        assert rank_at(pyssl.SquaredVICReg(0.999 * float(weight)), moments(), 4, 0.05) >= wanted
        assert rank_at(pyssl.SquaredVICReg(1.02 * float(weight)), moments(), 4, 0.05) < wanted


def test_what_no_setting_brings_back():
    a = np.diag([0.9, -0.5, 0.0])
    found = report.compare(pyssl.Moments(np.diag([1.0, 1.0, 0.0]), a), losses="infonce")
    text = "\n".join(_advice.changes(found.reports["infonce"], None, None))
    assert "what the augmentation took (1 mode)" in text
    assert "what has no variation (1 mode)" in text


def test_nothing_to_change():
    found = report.compare(pyssl.Moments(np.eye(1), 0.5 * np.eye(1)), losses="spectral")
    each = found.reports["spectral"]
    assert _advice.kept_and_lost(each)[0] == "Everything that fits is learned: 1 of 1 mode."
    assert not any("No setting" in text for text in _advice.changes(each, None, None))


@pytest.mark.parametrize("x", [0.12, 0.12345, 1.0, 999.9, 1e-7, 3.0, 0.1 + 0.2, 12345.0])
def test_thresholds_are_rounded_to_the_side_that_stays_true(x):
    below, above = float(_advice._below(x)), float(_advice._from(x))
    assert below <= x * (1 + 1e-12)
    assert above >= x * (1 - 1e-12)
    assert above - below <= 0.0101 * x


def test_counts_and_splits_match_the_table():
    each = report.compare(moments(), losses="infonce", embedding_dim=2, weight_decay=0.6).reports[
        "infonce"
    ]
    causes = list(each.modes.cause)
    text = " ".join(_advice.kept_and_lost(each))
    assert f"{each.rank} of 6 modes" in text
    assert f"{causes.count(Cause.DECAY)} lost to weight decay" in text
    last = each.modes[each.rank - 1]
    why = _advice.reasons(each)
    assert why[0].startswith(f"Mode {each.rank}, the last one learned: signal {last.signal:.3g}")
    assert f"= {last.eigenvalue:.2g}." in why[0]


def test_directions_that_turn_do_not_make_the_reasons_contradict_the_causes():
    # at g = 0 a second mode survives; at g the vector that is mode 2 has lost its signal already
    rng = np.random.default_rng(2)
    for _ in range(500):
        b, c = rng.standard_normal((2, 3, 3))
        m = pyssl.Moments(b @ b.T + c @ c.T, b @ b.T)
        land = pyssl.SquaredVICReg(2.0).population(m, 2, 0.5)
        each = pyssl.classify(land)
        row = each.modes[1]
        if row.cause is Cause.DECAY and row.signal <= row.augmentation:
            break
    else:
        pytest.fail("no example found")
    assert any("by the count" in text for text in _advice.reasons(each))


# ---- the plane -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["infonce", "spectral", "barlow_twins", "squared_vicreg"])
@pytest.mark.parametrize(
    ("k", "g"), [(1, 0.3), (2, 0.3), (5, 0.05), (3, 1.5), (3, 50.0), (1, 50.0)]
)
def test_plane_is_the_landscapes_and_its_points_are_stationary(name, k, g):
    found = report.compare(moments(), losses=[name], embedding_dim=k, weight_decay=g)
    land, each = found.landscapes[name], found.reports[name]
    grid = np.array([-1.2, 0.0, 0.4, 1.0])
    result = _page.plane_through_minimum(land, each, grid)
    assert result is not None
    values, points, words = result
    assert f"{6 * k} dimensions" in words
    # recover the directions from the words' own definition, and compare with the plain plane
    first, second = directions(land, each, words)
    np.testing.assert_allclose(
        values, land.plane(np.zeros(land.shape), first, second, grid, grid), atol=1e-9
    )
    lowest = min(points.values(), key=lambda p: float(land.value(p[0] * first + p[1] * second)))
    assert land.value(lowest[0] * first + lowest[1] * second) == pytest.approx(each.minimum.value)
    for u, v in points.values():
        gradient = land.gradient(u * first + v * second)
        assert np.abs(gradient).max() < 1e-8 * max(1.0, np.abs(land.hessian(first)).max())


def directions(land, each, words):
    k, rank = land.embedding_dim, each.rank
    first, second = np.zeros(land.shape), np.zeros(land.shape)
    if rank >= 2:
        cut = int(re.search(r"u scales modes? (?:1 (?:to|and) )?(\d+)", words)[1])
        first[:cut], second[cut:rank] = each.minimum.weights[:cut], each.minimum.weights[cut:rank]
    else:
        size = np.sqrt(each.minimum.amplitudes[0]) if rank else 1.0
        first[0], second[min(1, k - 1)] = size * land.vectors[:, 0], size * land.vectors[:, 1]
    return first, second


def test_no_plane_without_a_minimum_or_with_one_direction():
    same = pyssl.Moments(np.eye(2), np.eye(2))
    found = report.compare(same, losses="infonce")
    assert not found.reports["infonce"].minimum.attained
    assert "No plane to draw: no minimum exists." in found.page()
    line = pyssl.Moments(np.eye(1), 0.5 * np.eye(1))
    assert "a single direction" in report.build(line, losses="spectral")


# ---- the page ------------------------------------------------------------------------------------


class Checker(HTMLParser):
    """Collects what a page refers to, and complains about tags that do not match."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.images: list[str] = []
        self.anchors: set[str] = set()
        self.alternatives: list[str | None] = []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "src":
                self.images.append(value)
            elif name in ("href", "action", "data", "srcset"):
                self.links.append(value)
            elif name == "id":
                assert value not in self.anchors
                self.anchors.add(value)
        if tag == "img":
            self.alternatives.append(dict(attrs).get("alt"))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert not checker.open
    return checker


@pytest.fixture(scope="module")
def page() -> str:
    pytest.importorskip("sklearn")
    return report.build()


def test_page_is_self_contained(page):
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    assert "url(" not in page
    found = check(page)
    assert not found.tags & {"script", "link", "iframe", "object", "embed"}
    assert found.links
    assert all(link[0] == "#" and link[1:] in found.anchors for link in found.links)
    assert all(found.alternatives)
    # four pictures a loss and the gallery; what is inside them refers to nothing outside either
    assert len(found.images) == 4 * 4 + 1
    for image in found.images:
        kind, data = re.fullmatch(r"data:image/(svg\+xml|png);base64,(.*)", image).groups()
        content = base64.b64decode(data, validate=True)
        if kind == "png":
            assert content.startswith(b"\x89PNG")
        else:
            assert b"<svg" in content
            assert not re.search(rb'href="(?!#)', content)


def test_page_says_what_it_must(page):
    found = report.compare()
    for name, loss in found.losses.items():
        assert type(loss).__name__ in page, name
    for name, each in found.reports.items():
        assert each.loss.replace("'", "&#x27;") in page, name
        for text in _advice.changes(each, found.losses[name], found.moments):
            assert text.replace("'", "&#x27;") in page
    for why in found.missing.values():
        assert why in page
    for words in (
        "probability 1/2 the picture moves by one pixel",
        "standard deviation 0.1",
        "n = 7,188 pairs",
        "centred",
        "not a Gaussian augmentation",
        "Pairs of the same digit are not independent",
    ):
        assert words in page, words


def test_digits_show_every_cause():
    pytest.importorskip("sklearn")
    found = report.compare()
    causes = {cause for each in found.reports.values() for cause in each.modes.cause}
    assert causes == {*Cause} - {Cause.COMPETITION}
    assert {each.kind for each in found.reports.values()} == {
        pyssl.Collapse.NONE,
        pyssl.Collapse.DIMENSIONAL,
    }


def test_same_input_gives_the_same_page():
    options = {"losses": ["infonce"], "embedding_dim": 2, "weight_decay": 0.3}
    assert report.build(moments(), **options) == report.build(moments(), **options)


def captions(html: str) -> str:
    return " ".join(re.findall(r"<figcaption>(.*?)</figcaption>", html))


def test_captions_speak_of_lines_and_marks_that_are_there():
    full = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]))
    text = captions(report.build(full, losses="infonce", embedding_dim=2))
    for word in ("dashed", "dotted", "bottom edge"):
        assert word not in text
    assert "correlation, which does not depend on the units" in text
    text = captions(report.build(moments(), losses="infonce", embedding_dim=2, weight_decay=0.1))
    for words in ("dashed line survive", "left of the dotted line", "edge stand for zero."):
        assert words in text
    tiny = np.diag([1.0, 1e-9, 5e-15])
    text = captions(report.build(pyssl.Moments(tiny, tiny), losses="spectral", embedding_dim=1))
    (bound,) = re.findall(r"edge stand for zero, or for less than (\S+)\.", text)
    assert 2e-14 < float(bound) < 4e-9


def test_views_in_different_units(rng):
    units = np.array([100.0, 10.0, 1.0, 0.01])
    clean = rng.standard_normal((500, 4)) * units
    x, x_plus = clean + 0.5 * units * rng.standard_normal((2, 500, 4))
    found = report.compare((x, x_plus))
    assert found.reports["infonce"].rank == 4
    text = captions(found.page())
    assert "bottom edge" not in text
    assert "nan" not in text


def test_views_that_do_not_vary():
    x = np.full((10, 3), 7.0)
    found = report.compare((x, x))
    for name, each in found.reports.items():
        line = next(
            row for row in found.summary().splitlines() if type(found.losses[name]).__name__ in row
        )
        assert line.endswith("nothing varies: the views are constant, so there is nothing to learn")
        assert _advice.kept_and_lost(each)[0].startswith("The views are constant")
    html = found.page()
    check(html)
    assert "complete collapse" not in html
    assert "d = 3 inputs, of which none varies" in html
    # what varies without being learned is another matter
    varied = report.compare(pyssl.Moments(np.eye(2), -0.5 * np.eye(2)), losses=["barlow_twins"])
    assert "complete collapse: the views are nowhere positively correlated" in varied.summary()


def test_summary_has_one_short_reason_a_loss():
    for line in report.compare(moments()).summary().splitlines():
        assert len(line) < 100
        assert line.count("population") + line.count("effective") == 0
        assert ";" not in line or line.count("this version") <= 1


def test_page_leaves_matplotlib_as_it_was():
    import matplotlib.pyplot as plt

    backend, settings = matplotlib.get_backend(), dict(plt.rcParams)
    report.build(moments(), losses=["spectral"])
    assert (matplotlib.get_backend(), dict(plt.rcParams)) == (backend, settings)
    assert not plt.get_fignums()


@pytest.mark.parametrize(
    ("sigma", "a"),
    [
        (np.zeros((2, 2)), np.zeros((2, 2))),  # nothing varies
        (np.eye(2), -0.5 * np.eye(2)),  # nothing but augmentation
        (np.eye(2), np.eye(2)),  # no augmentation
        (np.eye(2), np.diag([0.5, 0.5])),  # tied
        (np.eye(1), np.zeros((1, 1))),
    ],
)
@pytest.mark.parametrize("g", [0.0, 0.7])
def test_page_of_degenerate_views(sigma, a, g):
    losses = ["infonce", "barlow_twins"]
    html = report.build(pyssl.Moments(sigma, a), losses=losses, weight_decay=g, embedding_dim=1)
    check(html)
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]*", "", html))


def test_words_of_the_user_are_escaped():
    html = report.build(
        moments(), losses=["spectral"], title="<b>&", description=["a < b", "second"]
    )
    check(html)
    assert "<b>&" not in html
    assert "&lt;b&gt;&amp;" in html
    assert "<p>a &lt; b</p>" in html


def test_threshold_warnings_become_notes():
    m = pyssl.Moments(np.eye(2), np.diag([0.5, 0.25]))
    found = report.compare(m, losses=["infonce"], weight_decay=0.5)
    assert len(found.warnings["infonce"]) == 1
    assert "within rounding" in found.page()
    assert "warning: " in str(found)
    assert found.as_dict()["warnings"] == found.warnings


def test_progress_goes_from_nothing_to_everything():
    seen = []
    report.build(moments(), losses=["spectral"], progress=lambda *step: seen.append(step))
    assert seen[0][0] == 0
    assert seen[0][2] == "views"
    assert all(before[0] <= after[0] <= after[1] for before, after in pairwise(seen))
    assert seen[-1][0] == seen[-1][1]


def test_without_matplotlib_one_sentence_says_how_to_install_it(monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pages need Matplotlib.* pip install"):
        report.build(moments(), losses=["spectral"])


# ---- values --------------------------------------------------------------------------------------


def test_json_round_trip():
    same = pyssl.Moments(np.diag([1.0, 1.0, 0.0]), np.diag([1.0, 0.5, 0.0]))
    found = report.compare(same, losses=["infonce", "ntxent"])
    text = json.dumps(found.as_dict(), allow_nan=False)
    back = json.loads(text)
    assert back == found.as_dict()
    each = found.reports["infonce"]
    rows = back["reports"]["infonce"]["modes"]
    assert rows[0]["amplitude"] == "Infinity"
    assert float(rows[0]["amplitude"]) == each.modes[0].amplitude
    assert rows[2]["signal"] is None
    assert back["reports"]["infonce"]["value"] == "-Infinity"
    assert [row["cause"] for row in rows] == [str(cause) for cause in each.modes.cause]
    assert [row["critical_weight_decay"] for row in rows] == list(each.critical_weight_decay)
    assert back["missing"].keys() == {"ntxent"}


def test_prints_as_tables():
    found = report.compare(moments(), losses=["infonce", "vicreg"])
    assert str(found.reports["infonce"]) in str(found)
    assert "vicreg: left out: its landscape is not spectral" in str(found)
    assert found.summary().splitlines()[0].startswith("InfoNCE  no collapse: 5 of 5")


# ---- saving --------------------------------------------------------------------------------------


def test_save_replaces_a_whole_file(tmp_path):
    path = tmp_path / "page.html"
    assert report.save("one", path) == path
    report.save("two", str(path))
    assert path.read_text() == "two"
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("disk full")])
def test_interrupted_save_leaves_what_was_there(tmp_path, monkeypatch, error):
    path = tmp_path / "page.html"
    path.write_text("before")

    def fails(*_):
        raise error

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises((KeyboardInterrupt, OSError)):
        report.save("after", path)
    assert path.read_text() == "before"
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]


def test_save_follows_links(tmp_path):
    (tmp_path / "there").mkdir()
    link = tmp_path / "link.html"
    link.symlink_to(tmp_path / "there" / "page.html")
    report.save("page", link)
    assert link.is_symlink()
    assert (tmp_path / "there" / "page.html").read_text() == "page"


def test_save_refuses(tmp_path):
    with pytest.raises(ValueError, match=r"no such folder to write page\.html into"):
        report.save("page", tmp_path / "missing" / "page.html")
    with pytest.raises(ValueError, match="is a folder, not a file"):
        report.save("page", tmp_path)
    with pytest.raises(ValueError, match=r"is not a regular file"):
        report.save("page", os.devnull)
    with pytest.raises(TypeError, match="html must be a string, got"):
        report.save(b"page", tmp_path / "page.html")


# ---- views ---------------------------------------------------------------------------------------


def test_digits_are_what_the_page_says():
    datasets = pytest.importorskip("sklearn.datasets")
    views = _views.digits()
    assert views.x.shape == views.x_plus.shape == (4 * 1797, 64)
    np.testing.assert_array_equal(views.x, _views.digits().x)
    assert not np.array_equal(views.x, views.x_plus)
    # brightness carries nothing: exactly one direction without variation
    np.testing.assert_allclose(views.x.mean(axis=1), 0.0, atol=1e-12)
    assert pyssl.Moments.from_views(views.x, views.x_plus).rank == 63

    # without noise a view is the picture moved by at most one pixel, half of them not at all
    images = datasets.load_digits().images / 16.0
    view = _views._view(images, 0.0, np.random.default_rng(1))
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    steps = [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)]
    moved = np.stack([padded[:, i : i + 8, j : j + 8] for i, j in steps])
    moved = moved - moved.mean(axis=(2, 3), keepdims=True)
    equal = np.isclose(moved, view).all(axis=(2, 3))
    assert equal.any(axis=0).all()
    assert 0.45 < equal[0].mean() < 0.55
    noisy = _views._view(np.zeros((500, 8, 8)), 0.1, np.random.default_rng(1))
    assert noisy.std() == pytest.approx(0.1 * np.sqrt(63 / 64), rel=0.02)


def test_digits_without_scikit_learn(monkeypatch):
    for name in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"digits need scikit-learn.* pip install"):
        _views.digits()


def npz(path: Path, **arrays) -> Path:
    np.savez(path, **arrays)
    return path


def test_read_returns_what_was_written(tmp_path, rng):
    x, x_plus = rng.standard_normal((2, 5, 3))
    views = _views.read(npz(tmp_path / "views.npz", x=x, x_plus=x_plus, labels=np.arange(5)))
    np.testing.assert_array_equal(views.x, x)
    np.testing.assert_array_equal(views.x_plus, x_plus)
    assert views.about.title == "views.npz"


def corrupt(path: Path) -> None:
    """Change a byte of the data, which the archive's checksum notices."""
    content = bytearray(path.read_bytes())
    content[content.index(b"NUMPY") + 200] ^= 255
    path.write_bytes(content)


def test_read_names_what_it_found(tmp_path):
    x = np.arange(60.0).reshape(10, 6)

    def refused(path: Path, message: str) -> None:
        with pytest.raises(ValueError, match=message) as caught:
            _views.read(path)
        assert "\n" not in str(caught.value)
        assert path.name in str(caught.value)

    refused(tmp_path / "missing.npz", "no such file")
    refused(tmp_path, "is a folder")
    (tmp_path / "text.npz").write_text("hello")
    refused(tmp_path / "text.npz", "not an .npz file")
    (tmp_path / "empty.npz").touch()
    refused(tmp_path / "empty.npz", "not an .npz file")
    np.save(tmp_path / "single.npy", x)
    refused(tmp_path / "single.npy", r"a single array of shape \(10, 6\)")
    refused(npz(tmp_path / "one.npz", x=x), "no array x_plus; it holds x")
    refused(npz(tmp_path / "other.npz", a=x, b=x), "no array x or x_plus; it holds a, b")
    objects = np.array([{}, None], dtype=object)
    refused(npz(tmp_path / "objects.npz", x=objects, x_plus=x), "x is an object array")
    np.save(tmp_path / "objects.npy", objects, allow_pickle=True)
    refused(tmp_path / "objects.npy", "not an .npz file")
    corrupt(npz(tmp_path / "corrupt.npz", x=x, x_plus=x))
    refused(tmp_path / "corrupt.npz", "x can't be read")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x", "text")
        archive.writestr("x_plus", "text")
    (tmp_path / "zip.npz").write_bytes(buffer.getvalue())
    refused(tmp_path / "zip.npz", "x is not stored as an array")


# ---- training ------------------------------------------------------------------------------------


def test_training_beside_theory():
    rng = np.random.default_rng(4)
    clean = rng.standard_normal((300, 3)) * [1.5, 1.0, 0.5]
    views = tuple(clean + 0.5 * rng.standard_normal((2, 300, 3)))
    losses = ["spectral", "infonce"]
    found = pyssl.report.compare(views, losses=losses, embedding_dim=2, verify=True)
    assert list(found.verifications) == losses
    check = found.verifications["spectral"]
    assert check.theory_rank == check.trained_rank == found.reports["spectral"].rank
    html = found.page()
    assert html.count('<div class="training">') == 2
    assert ("Training ends where theory says" in html) == any(
        each.agrees for each in found.verifications.values()
    )
    plain = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert plain["verifications"]["spectral"]["trained_rank"] == check.trained_rank


def test_training_needs_views_and_a_minimiser():
    moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]))
    with pytest.raises(TypeError, match="verify trains on views"):
        pyssl.report.compare(moments, losses="spectral", verify=True)
    x = np.random.default_rng(0).standard_normal((40, 2))
    found = pyssl.report.compare((x, x), losses="infonce", embedding_dim=1, verify=True)
    assert found.verifications == {}
