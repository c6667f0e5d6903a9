"""The command line: exit codes, one line a fault, files whole or not at all, and a light start."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pyssl
from pyssl import _views, cli, report


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def views(folder: Path, rng: np.random.Generator) -> str:
    path = folder / "views.npz"
    clean = rng.standard_normal((200, 6)) * [3.0, 2.0, 1.0, 0.5, 0.3, 0.0]
    x, x_plus = clean + 0.2 * rng.standard_normal((2, 200, 6)) * [1.0, 1.0, 1.0, 1.0, 1.0, 0.0]
    np.savez(path, x=x, x_plus=x_plus)
    return path.name


def run(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does, warnings being errors."""
    command = [sys.executable, "-W", "error", "-m", "pyssl", *arguments]
    environment = {**os.environ, "COLUMNS": "80"}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, **options
    )


# ---- help and version ----------------------------------------------------------------------------


def test_version():
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"pyssl {pyssl.__version__}\n", "")


@pytest.mark.parametrize("command", [[], ["report"], ["classify"], ["sweep"]])
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([*command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert re.search(rf"examples?:\n  pyssl {command[0] if command else 'report'}", text)
    assert "exit codes: 0 done, 1 failure, 2 bad usage" in text


@pytest.mark.parametrize("command", ["report", "classify"])
def test_help_says_which_settings_differ_from_the_library(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name, settings in report.own_settings().items():
        assert f"{name} means {settings}" in text
        loss = report.named_losses([name])[name]
        assert loss == eval(settings, vars(pyssl)) != type(loss)()
    losses = report.named_losses()
    differing = {
        name for name, loss in losses.items() if loss not in (type(loss)(), type(loss)(1.0))
    }
    assert differing == {*report.own_settings()}
    assert ("for the digits" in text) == (command == "report")


def test_help_loads_nothing_optional():
    code = (
        "import sys; from pyssl.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "slow = {'matplotlib', 'sklearn', 'rich', 'numba', 'pandas'} & set(sys.modules)\n"
        "sys.exit(str(slow) if slow else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---- report --------------------------------------------------------------------------------------


def test_report_of_the_digits_end_to_end(folder):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    pytest.importorskip("rich")
    done = run("report", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no bar where no terminal is
    assert [path.name for path in folder.iterdir()] == ["pyssl-report.html"]
    page = (folder / "pyssl-report.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert page.endswith("</html>\n")
    for loss in pyssl.LOSSES.values():
        assert loss.__name__ in done.stdout
        assert loss.__name__ in page
    assert "InfoNCE              dimensional collapse: 10 of 12 modes learned" in done.stdout
    assert "wrote pyssl-report.html" in done.stdout


def test_report_of_views_takes_every_option(views, folder, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("rich")
    arguments = (
        f"report {views} --loss infonce,spectral --embedding-dim 3 --weight-decay 0.25"
        " --temperature 0.5 --image-shape 2x3 --out page.html"
    )
    assert cli.main(arguments.split()) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("wrote page.html")
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert "InfoNCE(temperature=0.5" in page
    assert "BarlowTwins" not in page
    assert '<div class="training">' not in page
    assert cli.main([*arguments.split(), "--verify"]) == 0
    assert '<div class="training">' in (folder / "page.html").read_text(encoding="utf-8")
    assert "2 x 3 pictures" in page
    data = _views.read(views)
    assert page == report.build(
        data,
        losses=["infonce", "spectral"],
        embedding_dim=3,
        weight_decay=0.25,
        temperature=0.5,
        image_shape=(2, 3),
    )


# ---- classify ------------------------------------------------------------------------------------


def test_classify_prints_the_table(views, capsys):
    assert cli.main(f"classify {views} --embedding-dim 3 --weight-decay 0.25".split()) == 0
    x = np.load(views)
    moments = pyssl.Moments.from_views(x["x"], x["x_plus"]).centered()
    expected = pyssl.classify(pyssl.InfoNCE().population(moments, 3, 0.25))
    assert capsys.readouterr().out == f"{expected}\n"


def test_classify_json(views, capsys):
    arguments = f"classify {views} --loss barlow_twins,ntxent,infonce --temperature 2 --json"
    assert cli.main(arguments.split()) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["source"] == "views.npz"
    assert (found["dim"], found["n_samples"], found["centered"]) == (6, 200, True)
    assert (found["embedding_dim"], found["weight_decay"]) == (12, 0.0)
    assert [*found["reports"]] == ["barlow_twins", "infonce"]
    assert [*found["missing"]] == ["ntxent"]
    infonce = found["reports"]["infonce"]
    assert "temperature=2.0" in infonce["loss"]
    assert len(infonce["modes"]) == 6
    assert infonce["modes"][5]["cause"] == "no variation"


# ---- bad usage and input -------------------------------------------------------------------------


def refused(capsys, *arguments: str) -> str:
    """Return the one line on stderr of a call that exits with 2."""
    try:
        code = cli.main(arguments)
    except SystemExit as error:
        code = error.code
    out, err = capsys.readouterr()
    assert code == 2, err
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("pyssl")
    return err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--loss bogus", "loss must be one of infonce, ntxent, .*, got 'bogus'"),
        ("--loss infonce,infonce", "got infonce twice"),
        ("--loss ntxent,vicreg", "no closed form in this version for ntxent: .*; vicreg: "),
        ("--temperature 0", "temperature must be > 0, got 0"),
        ("--temperature -1", "temperature must be > 0, got -1"),
        ("--temperature nan", "temperature must be finite, got nan"),
        ("--temperature cold", "argument --temperature: invalid float value: 'cold'"),
        ("--embedding-dim 0", "embedding_dim must be at least 1, got 0"),
        ("--embedding-dim 1.5", "argument --embedding-dim: invalid int value: '1.5'"),
        ("--weight-decay -1", "weight_decay must be >= 0, got -1"),
        ("--weight-decay inf", "weight_decay must be finite, got inf"),
        ("--bogus", "unrecognized arguments: --bogus"),
        ("more.npz", "unrecognized arguments: more.npz"),
    ],
)
@pytest.mark.parametrize("command", ["report", "classify"])
def test_bad_usage(command, options, message, views, folder, capsys):
    assert re.search(message, refused(capsys, command, views, *options.split()))
    assert [path.name for path in folder.iterdir()] == ["views.npz"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "arguments are required: COMMAND"),
        ("train", "invalid choice: 'train'"),
        ("classify", "arguments are required: VIEWS"),
        ("report views.npz --image-shape 8", "expected HxW such as 28x28, got '8'"),
        ("report views.npz --image-shape 8x8", "image_shape must hold 6 inputs, got 8 x 8"),
        ("report views.npz --image-shape 0x6", r"image_shape\[0\] must be at least 1, got 0"),
        ("report views.npz --out missing/page.html", "missing: no such folder to write page.html"),
        ("report views.npz --out .", "is a folder, not a file to write"),
        (f"report views.npz --out {os.devnull}", "is not a regular file"),
    ],
)
@pytest.mark.usefixtures("views")
def test_bad_usage_of_one_command(arguments, message, capsys):
    assert re.search(message, refused(capsys, *arguments.split()))


@pytest.mark.parametrize("command", ["report", "classify"])
def test_bad_input(command, folder, capsys):
    x = np.arange(60.0).reshape(10, 6)
    holed = x.copy()
    holed[7, 2] = np.nan
    cases = {
        "shapes": ({"x": x, "x_plus": x[:4]}, r"x_plus must have the shape of x \(10, 6\), got"),
        "nan": ({"x": x, "x_plus": holed}, r"x_plus must be finite, got nan at .* \(row 7\)"),
        "flat": ({"x": x[0], "x_plus": x[0]}, r"x must have 2 dimension\(s\), got shape \(6,\)"),
        "text": ({"x": np.array([["a"]]), "x_plus": x}, "x must hold real numbers, got dtype <U1"),
        "complex": ({"x": x * 1j, "x_plus": x}, "x must hold real numbers, got dtype complex128"),
        "single": ({"x": x[:1], "x_plus": x[:1]}, "at least 2 pairs of views, got 1"),
        "none": ({"x": x[:0], "x_plus": x[:0]}, "at least 2 pairs of views, got 0"),
        "empty": ({"x": x[:, :0], "x_plus": x[:, :0]}, "x must be"),
        "huge": ({"x": x * 1e200, "x_plus": x}, "views must be|x must be"),
        "objects": ({"x": np.array([None]), "x_plus": x}, "x is an object array"),
        "absent": ({"x": x}, "no array x_plus; it holds x"),
    }
    for name, (arrays, message) in cases.items():
        np.savez(f"{name}.npz", **arrays)
        assert re.search(message, refused(capsys, command, f"{name}.npz")), name
    assert re.search("nowhere.npz: no such file", refused(capsys, command, "nowhere.npz"))
    assert not list(folder.glob("*.html"))


# ---- failures ------------------------------------------------------------------------------------


def failed(capsys, *arguments: str, code: int = 1) -> str:
    assert cli.main(arguments) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("matplotlib", "report views.npz"),
        ("rich", "report views.npz"),
        ("sklearn", "report"),
    ],
)
@pytest.mark.usefixtures("views")
def test_missing_package(package, arguments, folder, capsys, monkeypatch):
    pytest.importorskip("rich")
    loaded = [name for name in sys.modules if name == package or name.startswith(f"{package}.")]
    for name in {package, *loaded}:
        monkeypatch.setitem(sys.modules, name, None)
    err = failed(capsys, *arguments.split())
    assert 'python -m pip install "pyssl-landscapes[app]"' in err
    assert package in err
    assert [path.name for path in folder.iterdir()] == ["views.npz"]


def test_classify_needs_nothing_optional(views, monkeypatch):
    for package in ("matplotlib", "sklearn", "rich"):
        monkeypatch.setitem(sys.modules, package, None)
    assert cli.main(["classify", views]) == 0


@pytest.mark.parametrize("where", ["compare", "save"])
def test_interruption_writes_nothing_and_says_so_in_one_line(
    where, views, folder, capsys, monkeypatch
):
    pytest.importorskip("rich")
    pytest.importorskip("matplotlib")
    (folder / "pyssl-report.html").write_text("before")

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    if where == "compare":
        monkeypatch.setattr(report, "compare", interrupted)
    else:
        monkeypatch.setattr(Path, "replace", interrupted)
    err = failed(capsys, "report", views, "--loss", "spectral", code=130)
    assert err == "pyssl report: interrupted\n"
    assert (folder / "pyssl-report.html").read_text() == "before"
    assert {path.name for path in folder.iterdir()} == {"views.npz", "pyssl-report.html"}


def test_full_disk(views, folder, capsys, monkeypatch):
    pytest.importorskip("rich")
    pytest.importorskip("matplotlib")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert "No space left" in failed(capsys, "report", views, "--loss", "spectral")
    assert [path.name for path in folder.iterdir()] == ["views.npz"]


def test_a_fault_of_ours_is_one_line_and_not_blamed_on_the_user(views, capsys, monkeypatch):
    pytest.importorskip("rich")

    def broken(*_):
        raise ValueError("two\nlines")

    monkeypatch.setattr(report.Comparison, "page", broken)
    assert failed(capsys, "report", views) == ("pyssl report: failed with ValueError: two lines\n")


def test_reader_that_has_seen_enough(views, folder):
    command = [sys.executable, "-m", "pyssl", "classify", views]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


# ---- sweeps --------------------------------------------------------------------------------------

SWEEP = """
embedding_dim = 4
[loss]
name = "infonce"
partition = "joint"
[moments]
dim = 6
[axes]
spectral_exponent = [0.5, 2.0]
temperature = {from = 0.1, to = 10.0, points = 5, spacing = "log"}
weight_decay = {from = 0.0, to = 1.0, points = 4}
"""


@pytest.fixture
def sweep_file(folder: Path) -> str:
    for package in ("xarray", "zarr", "matplotlib"):
        pytest.importorskip(package)
    (folder / "sweep.toml").write_text(SWEEP)
    return "sweep.toml"


def test_sweep_end_to_end(sweep_file, folder, capsys):
    assert cli.main(["sweep", sweep_file, "--store", "out.zarr"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    ds = pytest.importorskip("xarray").open_zarr("out.zarr", consolidated=False)
    sizes = {"spectral_exponent": 2, "temperature": 5, "weight_decay": 4}
    assert dict(ds["kind"].sizes) == sizes
    np.testing.assert_array_equal(ds["temperature"], np.geomspace(0.1, 10.0, 5))
    loss = pyssl.InfoNCE(temperature=10.0, partition="joint")
    a = np.arange(1.0, 7.0) ** -2.0
    moments = pyssl.Moments(np.diag(a + 0.1), np.diag(a))
    expected = pyssl.classify(loss.population(moments, 4, weight_decay=1.0 / 3.0))
    corner = ds.isel(spectral_exponent=1, temperature=4, weight_decay=1)
    assert corner["rank"] == expected.rank
    assert abs(corner["value"] - expected.minimum.value) < 1e-12
    counts = np.bincount(ds["kind"].values.ravel(), minlength=3)
    for kind, count in zip(pyssl.Collapse, counts, strict=True):
        assert re.search(rf"^  {kind} +{count} +{count / 40:.1%}$", out, re.MULTILINE)
    assert out.splitlines()[-1] == "wrote out.zarr and out.png"
    assert (folder / "out.png").read_bytes().startswith(b"\x89PNG")


def test_sweep_resumes_only_when_told(sweep_file, capsys):
    assert cli.main(["sweep", sweep_file, "--store", "out.zarr", "--out", "first.png"]) == 0
    capsys.readouterr()
    assert "out.zarr' exists" in refused(capsys, "sweep", sweep_file, "--store", "out.zarr")
    again = ["sweep", sweep_file, "--store", "out.zarr", "--resume", "--out", "second.png"]
    assert cli.main(again) == 0
    assert Path("first.png").read_bytes() == Path("second.png").read_bytes()


def test_sweep_of_views(views, folder, capsys):
    pytest.importorskip("zarr")
    text = (
        f"loss = 'spectral'\nmoments = {{views = '{views}'}}\naxes = {{weight_decay = [0.0, 0.5]}}"
    )
    (folder / "views.toml").write_text(text)
    assert cli.main(["sweep", "views.toml", "--store", "out.zarr"]) == 0
    assert "no picture: fewer than two axes" in capsys.readouterr().out
    assert not Path("out.png").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dim = 6", "dim =", "sweep.toml: is not TOML: Invalid value"),
        ("[axes]", "[axis]", "axis = .* is unknown; known are loss, moments, axes"),
        ('name = "infonce"', "", "loss.name is missing"),
        ('name = "infonce"', 'name = "info"', "loss.name must be one of .*, got 'info'"),
        ("partition", "division", "loss.division = 'joint' is unknown"),
        ('"joint"', '"odd"', "partition must be one of .*, got 'odd'"),
        ("dim = 6", "dim = 0", "moments.dim must be at least 1, got 0"),
        ("dim = 6", "noise = 0.1", "moments must have views, .*, or dim"),
        ("dim = 6", "views = 'nowhere.npz'", "nowhere.npz: no such file"),
        ("dim = 6", "dim = 6\nspectral_exponent = 1.0", "spectral_exponent = 1 is an axis too"),
        ("spectral_exponent", "invariance", "axes.invariance = .* is unknown|got 'invariance'"),
        ("[0.5, 2.0]", "[]", r"axes.spectral_exponent must have at least one value, got \[\]"),
        ("[0.5, 2.0]", "[0.5, 'a']", "axes.spectral_exponent must hold numbers, got 'a'"),
        ("[0.5, 2.0]", "[0.5, true]", "axes.spectral_exponent must hold numbers, got True"),
        ("[0.5, 2.0]", "2.0", "axes.spectral_exponent must be a list or a table .*, got 2.0"),
        ("points = 5", "points = 'a'", "axes.temperature.points must be an integer, got 'a'"),
        ("points = 5", "number = 5", "axes.temperature.number = 5 is unknown"),
        ("from = 0.1", "from = -0.1", "axes.temperature.from must be > 0, got -0.1"),
        ("to = 1.0", "to = -1.0", "weight_decay.* must be >= 0"),
        ("embedding_dim = 4", "embedding_dim = 'a'", "embedding_dim must be an integer, got 'a'"),
        ("embedding_dim = 4", "outputs = ['colour']", "outputs must be one of .*, got 'colour'"),
    ],
)
def test_sweep_of_a_bad_file(old, new, message, sweep_file, folder, capsys):
    assert old in SWEEP
    (folder / sweep_file).write_text(SWEEP.replace(old, new, 1))
    assert re.search(message, refused(capsys, "sweep", sweep_file, "--store", "out.zarr"))
    assert [path.name for path in folder.iterdir()] == [sweep_file]


def test_sweep_into_the_store_of_another(sweep_file, folder, capsys):
    assert cli.main(["sweep", sweep_file, "--store", "out.zarr"]) == 0
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    (folder / sweep_file).write_text(SWEEP.replace("0.1", "0.2"))
    before[folder / sweep_file] = (folder / sweep_file).stat().st_mtime_ns
    message = refused(capsys, "sweep", sweep_file, "--store", "out.zarr", "--resume")
    assert "its axis temperature has other values, from " in message
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("package", ["xarray", "zarr", "matplotlib"])
def test_sweep_without_a_package(package, sweep_file, folder, capsys, monkeypatch):
    loaded = [name for name in sys.modules if name == package or name.startswith(f"{package}.")]
    for name in {package, *loaded}:
        monkeypatch.setitem(sys.modules, name, None)
    err = failed(capsys, "sweep", sweep_file, "--store", "out.zarr")
    assert 'python -m pip install "pyssl-landscapes[' in err and package in err
    assert [path.name for path in folder.iterdir()] == [sweep_file]
