"""The examples of the documentation: each shows what it claims, in numbers and in a picture."""

from __future__ import annotations

import importlib.util
import re
import runpy
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

matplotlib = pytest.importorskip("matplotlib")

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "docs/examples").glob("*.py"))


@cache
def example(name: str) -> Any:
    """Return the module of an example; its results are computed once."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/examples/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def numbers(name: str) -> dict[str, float]:
    found: dict[str, float] = example(name).claim()
    return found


def series(name: str, pattern: str) -> list[float]:
    """Return the numbers whose names contain the pattern, in their order; there are some."""
    found = [number for label, number in numbers(name).items() if re.search(pattern, label)]
    assert found, pattern
    return found


def test_the_origin_has_k_directions_down_for_each_mode_learned() -> None:
    name = "collapse_at_the_origin"
    assert series(name, "directions down") == [4, 2, 0]
    assert series(name, "rank in theory") == series(name, "rank trained") == [2, 1, 0]


def test_weight_decay_takes_modes_one_by_one() -> None:
    found = numbers("weight_decay")
    assert found["decays tried"] == 12
    assert found["rank in theory, smallest decay"] == 4
    assert found["rank in theory, largest decay"] == 0
    assert found["decays at which the trained rank differs"] == 0
    assert found["largest difference over largest amplitude"] < 0.02


def test_depth_takes_modes_at_once_and_training_remembers() -> None:
    assert max(series("depth", "modes that differ from theory")) == 0
    assert max(series("depth", "largest difference")) < 0.015
    lost, critical = series("depth", "is lost"), series("depth", "critical decay")
    gone = series("depth", "well is gone")
    assert lost[0] < 1e-6 and min(lost[1:]) > 0.5
    assert critical[0] == gone[0]
    assert all(g > 1.4 * c for g, c in zip(gone[1:], critical[1:], strict=True))
    held = series("depth", "held at the origin")
    assert held[0] == 0 and min(held[1:]) >= 6


def test_augmentation_weakens_infonce_and_takes_modes_of_squared_vicreg() -> None:
    for which in ("in theory", "trained"):
        assert series("augmentation", f"InfoNCE, rank {which}") == [3, 3, 3, 3, 3]
        assert series("augmentation", f"squared VICReg, rank {which}") == [3, 3, 2, 1, 0]
    assert max(series("augmentation", "largest difference")) < 0.03


def test_crops_leave_few_directions_of_the_digits_and_squared_vicreg_none() -> None:
    name = "digits_augmentation"
    for loss, kept in (
        ("InfoNCE", [7, 6, 4, 2, 2]),
        ("spectral contrastive", [12, 10, 6, 5, 5]),
        ("squared VICReg", [12, 8, 3, 2, 1]),
    ):
        assert series(name, f"{loss}, kept in theory") == kept
        trained = series(name, f"{loss}, kept trained")
        # 599 pairs: noise of their moments can lift one more direction above the decay
        assert all(0 <= t - k <= 1 for t, k in zip(trained, kept, strict=True))
    assert min(series(name, "overlap")) > 0.8
    assert len(example(name).in_theory("squared VICReg", 2.0).any(axis=1).nonzero()[0]) == 0


def test_normalisation_removes_complete_collapse() -> None:
    found = numbers("normalisation")
    assert found["InfoNCE, variance at the end over that at the start"] < 1e-2
    assert found["NT-Xent, |W|^2 at the end over exp(-2 g t) |W(0)|^2"] == pytest.approx(1.0, 1e-3)
    assert found["NT-Xent, effective rank at the end"] > 3.0
    assert found["NT-Xent, largest difference of a share"] < 0.03


def test_a_bias_brings_complete_collapse_back() -> None:
    theory, training = series("bias", "rate in theory"), series("bias", "rate in training")
    assert theory[0] > theory[1] > 0.05 and theory[3] < theory[2] < -0.05
    assert training == pytest.approx(theory, abs=2e-3)
    growth = series("bias", "over the start")
    assert min(growth[:2]) > 2.0
    assert max(growth[2:]) < 0.5


def test_modes_are_learned_one_after_another() -> None:
    found = series("stepwise_learning", "in training")
    assert len(found) == 4
    assert all(later > 1.2 * earlier for earlier, later in pairwise(found))
    assert found == pytest.approx(series("stepwise_learning", "predicted"), rel=0.07)


def test_more_negatives_survive_more_decay() -> None:
    ranks = series("negatives", "rank trained")
    assert ranks == series("negatives", "rank in theory") == [0, 2, 3, 3, 3]
    assert numbers("negatives")["largest difference over largest amplitude"] < 0.05


def test_temperature_takes_all_from_infonce_and_spreads_nt_xent() -> None:
    ranks = series("temperature", "InfoNCE, rank trained")
    assert ranks == series("temperature", "InfoNCE, rank in theory") == [6, 6, 5, 4, 1, 0]
    theory = series("temperature", "NT-Xent, effective rank in theory")
    trained = series("temperature", "NT-Xent, effective rank trained")
    for spread in (theory, trained):
        assert spread == sorted(spread, reverse=True)
        assert spread[0] > spread[-1] + 1.5
        assert spread[-1] > 1.5
    assert trained == pytest.approx(theory, rel=0.1)


def test_a_long_tail_loses_its_rare_digits_and_the_loss_decides_how_many() -> None:
    pytest.importorskip("sklearn")
    name = "long_tailed_digits"
    assert max(series(name, "largest difference")) < 0.05
    found = numbers(name)
    assert found["images of the rarest digit"] == 6
    assert series(name, "long tail, classes kept in theory") == [9, 6]
    assert series(name, "long tail, classes kept trained") == [9, 6]
    assert found["Barlow Twins, balanced, classes kept trained"] == 9
    spectral, barlow = series(name, "rarer half trained")
    assert spectral > barlow + 0.1


def test_linear_probes_err_as_predicted_while_modes_are_lost() -> None:
    pytest.importorskip("sklearn")
    ranks = example("linear_probe").RANKS
    for kind, within in (("tuned", 0.04), ("hardly any", 0.1)):
        theory = series("linear_probe", f"{kind} ridge, .* in theory")
        found = series("linear_probe", f"{kind} ridge, .* measured")
        assert len(theory) == len(found) == len(ranks)
        # with hardly any ridge, up to half as many modes as samples; beyond, theory is too low
        for rank, predicted, measured in zip(ranks, theory, found, strict=True):
            if kind == "tuned" or rank <= 20:
                assert measured == pytest.approx(predicted, rel=within), rank
            else:
                assert predicted < measured < 1.8 * predicted, rank
    # without a ridge collapse helps: the error peaks where modes equal samples
    assert max(found) == found[ranks.index(38)] > 10.0 * min(found)
    assert 4 < ranks[found.index(min(found))] < 20
    accuracy = dict(zip(ranks, series("linear_probe", "hardly any .* accuracy"), strict=True))
    assert accuracy[11] > accuracy[45] + 0.2
    # with a tuned one nothing is gained by it
    tuned = series("linear_probe", "tuned ridge, .* measured")
    assert max(tuned[ranks.index(22) :]) < 1.03 * min(tuned)
    assert series("linear_probe", "tuned ridge, rank 0, accuracy")[0] < 0.15


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_picture_shows_theory_and_training(script: Path, tmp_path: Path) -> None:
    if "sklearn" in script.read_text(encoding="utf-8"):
        pytest.importorskip("sklearn")
    figure = example(script.stem).figure()
    figure.savefig(tmp_path / "picture.svg")
    drawn = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
    assert any("trained" in text or "views" in text for text in drawn)


def test_an_example_runs_as_a_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = ROOT / "docs/examples/stepwise_learning.py"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script)])
    runpy.run_path(str(script), run_name="__main__")
    assert "mode 1 learned in training at" in capsys.readouterr().out
    assert "<svg" in (tmp_path / "stepwise_learning.svg").read_text(encoding="utf-8")


def test_every_example_has_a_test_and_a_place_on_the_page() -> None:
    tested = Path(__file__).read_text(encoding="utf-8")
    page = (ROOT / "docs/examples.md").read_text(encoding="utf-8")
    assert len(SCRIPTS) == 12
    for script in SCRIPTS:
        assert f'"{script.stem}"' in tested
        assert f"python docs/examples/{script.name}" in page
