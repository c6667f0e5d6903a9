"""Sweeps on disk: what a kill or a full disk leaves is finished to the same bytes."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import pyssl

xr = pytest.importorskip("xarray")
zarr = pytest.importorskip("zarr")

MOMENTS = pyssl.Moments(np.diag([1.0, 0.8, 0.6]), np.diag([0.9, 0.5, 0.1]))
AXES = {"temperature": np.geomspace(0.1, 10.0, 12), "weight_decay": np.linspace(0.0, 1.0, 10)}
OUTPUTS = ("kind", "rank", "effective_rank", "value")

# The same sweep in another process, slowed down so that there is time to interrupt it.
SCRIPT = """
    import signal, sys, time
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs the tests may ignore it
    import numpy as np, pyssl
    from pyssl import _sweep_store
    write = _sweep_store.Store.write
    def slowly(self, *results):
        write(self, *results)
        time.sleep(float(sys.argv[2]))
    _sweep_store.Store.write = slowly
    moments = pyssl.Moments(np.diag([1.0, 0.8, 0.6]), np.diag([0.9, 0.5, 0.1]))
    axes = {"temperature": np.geomspace(0.1, 10.0, 12), "weight_decay": np.linspace(0.0, 1.0, 10)}
    print("begins", flush=True)
    pyssl.sweep(pyssl.InfoNCE(), moments, axes, store=sys.argv[1], chunk_size=2, progress=False)
"""


def sweep(store=None, **options):
    settings = {"chunk_size": 2, "progress": False, **options}
    return pyssl.sweep(pyssl.InfoNCE(), MOMENTS, AXES, store=store, **settings)


def contents(store: Path) -> dict[str, bytes]:
    """Return every file of a store."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }


def start(store: Path, pause: float = 0.0, **options) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(store), str(pause)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def completed(store: Path) -> int:
    return int((zarr.open_group(store, mode="r")["status"][...] == 1).sum())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    store = tmp_path_factory.mktemp("whole") / "sweep.zarr"
    sweep(store)
    return contents(store)


def test_on_disk_as_in_memory(tmp_path):
    store = tmp_path / "sweep.zarr"
    found = sweep(store)
    xr.testing.assert_identical(found.load(), sweep())
    # and for others: nothing of ours is needed to read it
    opened = xr.open_zarr(store, consolidated=False)
    assert opened["kind"].dtype == np.int8
    np.testing.assert_array_equal(opened["kind"], found["kind"])


def test_reading_is_lazy(tmp_path):
    found = sweep(tmp_path / "sweep.zarr")
    assert not found["value"].variable._in_memory


def test_status_is_written_last(tmp_path, monkeypatch):
    store = tmp_path / "sweep.zarr"
    seen = []

    def observed(path, *_):
        seen.append(Path(path))

    from zarr.storage import _local

    put = _local._put
    monkeypatch.setattr(
        _local, "_put", lambda path, *rest, **o: (observed(path), put(path, *rest, **o))[1]
    )
    sweep(store)
    chunks = [path for path in seen if "c" in path.relative_to(path.parents[3]).parts]
    assert seen[0].name == "zarr.json" and len(chunks) >= 60 * 5
    arrays = [
        path.parents[2].name for path in chunks if path.parents[2].name in (*OUTPUTS, "status")
    ]
    done = [i for i, name in enumerate(arrays) if name == "status"]
    assert len(done) == 60
    assert arrays[: len(OUTPUTS) + 1] == [*OUTPUTS, "status"]
    # metadata before every chunk of a result
    first = next(i for i, path in enumerate(seen) if path.parents[2].name in OUTPUTS)
    assert all(path.name != "zarr.json" for path in seen[first:])


def test_resuming_what_is_complete_writes_nothing(tmp_path, whole):
    store = tmp_path / "sweep.zarr"
    sweep(store)
    stamps = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    sweep(store)
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == stamps
    assert contents(store) == whole


def test_killed_at_any_moment_it_resumes_to_the_same_bytes(tmp_path, whole, rng):
    # three moments here; all 20 that the issue asks for with PYSSL_KILLS=20
    for trial in range(int(os.environ.get("PYSSL_KILLS", "3"))):
        store = tmp_path / f"{trial}.zarr"
        process = start(store, pause=0.005)
        assert process.stdout is not None and process.stdout.readline() == "begins\n"
        time.sleep(rng.uniform(0.05, 2.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        sweep(store)
        assert contents(store) == whole


def test_killed_twice_while_writing(tmp_path, whole):
    # not by the clock: once some chunks are there
    store = tmp_path / "sweep.zarr"
    before = 0
    for _ in range(2):
        process = start(store, pause=0.02)
        while process.poll() is None and not (store.exists() and completed(store) > before + 5):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        now = completed(store)
        assert before < now < 60
        before = now
    sweep(store)
    assert contents(store) == whole


def test_interrupt_leaves_a_store_that_resumes(tmp_path, whole):
    store = tmp_path / "sweep.zarr"
    process = start(store, pause=0.02)
    while process.poll() is None and not (store.exists() and completed(store) > 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in error
    assert 3 < completed(store) < 60
    sweep(store)
    assert contents(store) == whole


def test_outputs_without_their_status_are_computed_again(tmp_path, whole):
    store = tmp_path / "sweep.zarr"
    sweep(store)
    group = zarr.open_group(store, mode="r+")
    group["status"][3, 2] = 0
    group["value"][3, 4:6] = 7.0
    (store / "value" / "c" / "left.0123.partial").write_bytes(b"cut short")
    sweep(store)
    assert contents(store) == whole


def test_disk_full_and_freed(tmp_path, whole):
    store = tmp_path / "sweep.zarr"

    def limit():  # a file may have no more bytes than this: metadata do not fit
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))

    process = start(store, preexec_fn=limit)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1 and "File too large" in error
    assert not store.exists()
    # once it exists, chunks that do not fit
    script = textwrap.dedent(SCRIPT).replace(
        'print("begins", flush=True)',
        "import resource\n"
        "def later(self, *results, count=[0]):\n"
        "    count[0] += 1\n"
        "    if count[0] == 9:\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (4, resource.RLIM_INFINITY))\n"
        "    write(self, *results)\n"
        "_sweep_store.Store.write = later",
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(store), "0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "File too large" in done.stderr
    assert completed(store) == 8
    sweep(store)
    assert contents(store) == whole


# ---- stores of other sweeps ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            {"loss": pyssl.InfoNCE(partition="joint")},
            "its loss is .*'conditional'.*, not .*'joint'",
        ),
        ({"moments": MOMENTS.with_augmentation_strength(2.0)}, "its moments are others"),
        ({"axes": {**AXES, "weight_decay": [0.1]}}, r"axis weight_decay has 10 value\(s\), not 1"),
        ({"axes": {**AXES, "weight_decay": AXES["weight_decay"] + 1.0}}, "weight_decay has other"),
        ({"axes": {"temperature": [1.0]}}, "axes are temperature, weight_decay, not temperature"),
        ({"outputs": ["kind"]}, "its outputs is"),
        ({"level": "effective"}, "its level is 'population', not 'effective'"),
        ({"embedding_dim": 2}, "its embedding_dim is 3, not 2"),
        ({"chunk_size": 7}, "its chunks is"),
        ({"resume": False}, "exists; resume it, or choose another name"),
    ],
)
def test_another_sweep_is_refused(tmp_path, other, words):
    store = tmp_path / "sweep.zarr"
    base = {
        "loss": pyssl.InfoNCE(), "moments": MOMENTS, "axes": AXES, "outputs": ["kind", "rank"],
        "progress": False, "store": store,
    }  # fmt: skip
    pyssl.sweep(**base)
    before = contents(store)
    with pytest.raises(ValueError, match=words) as caught:
        pyssl.sweep(**{**base, **other})
    assert "sweep.zarr" in str(caught.value)
    assert contents(store) == before


def test_what_is_no_sweep_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious").write_text("data")
    with pytest.raises(ValueError, match=r"'.*folder' exists and is not a sweep"):
        sweep(tmp_path / "folder")
    zarr.create_group(tmp_path / "other.zarr", attributes={"a": 1})
    with pytest.raises(ValueError, match="is not a sweep"):
        sweep(tmp_path / "other.zarr")
    assert (tmp_path / "folder" / "precious").read_text() == "data"


def test_store_says_what_it_is_of(tmp_path):
    store = tmp_path / "sweep.zarr"
    sweep(store)
    mark = json.loads((store / "zarr.json").read_text())["attributes"]["pyssl_sweep"]
    assert len(mark["hash"]) == 64
    assert mark["configuration"]["version"] == pyssl.__version__
    assert "pyssl_sweep" not in sweep(store).attrs


def test_axis_of_names_on_disk(tmp_path):
    sequence = [MOMENTS, MOMENTS.with_augmentation_strength(3.0)]
    axes = {"data": ["weak", "strong"], "weight_decay": [0.1, 0.5]}
    args = (pyssl.InfoNCE(), sequence, axes)
    found = pyssl.sweep(*args, store=tmp_path / "names.zarr", progress=False)
    assert found["data"].values.tolist() == ["weak", "strong"]
    np.testing.assert_array_equal(found["rank"], pyssl.sweep(*args, progress=False)["rank"])
