"""Sweeps on a Dask cluster: the same bits, one thread a worker, and lost workers."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

import pyssl
from pyssl import sweeps

xr = pytest.importorskip("xarray")
distributed = pytest.importorskip("distributed")

# A cluster has its own threads, files and clocks, of which not all end without a word.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

MOMENTS = pyssl.Moments(
    np.array([[2.0, 0.5, 0.25], [0.5, 1.5, 0.0], [0.25, 0.0, 1.0]]), np.diag([1.0, 0.8, 0.2])
)
AXES = {"temperature": np.geomspace(0.1, 10.0, 20), "weight_decay": np.linspace(0.0, 1.0, 10)}


def sweep(**options):
    return pyssl.sweep(pyssl.InfoNCE(), MOMENTS, AXES, progress=False, **options)


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_an_active_client_is_used(client, monkeypatch):
    monkeypatch.setattr(sweeps, "_threads", None)
    assert sweep(chunk_size=10).attrs["algorithm"] == "pencils"
    assert client.run(pyssl.get_num_threads).keys() == client.nthreads().keys()


def test_same_bits_as_in_threads(client, tmp_path):
    here = tmp_path / "here.zarr", tmp_path / "there.zarr"
    found = [
        sweep(chunk_size=10, store=store, client=chosen)
        for store, chosen in zip(here, (None, client), strict=True)
    ]
    with_client = sweep(client=client, chunk_size=7)
    for ds in (found[0].load(), found[1].load()):
        xr.testing.assert_identical(ds, with_client)
    files = [
        {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}
        for store in here
    ]
    assert files[0] == files[1]


def test_workers_use_one_thread(client):
    sweep(chunk_size=10, client=client)

    def threads():
        from threadpoolctl import threadpool_info

        return pyssl.get_num_threads(), {item["num_threads"] for item in threadpool_info()}

    for kernels, libraries in client.run(threads).values():
        assert kernels == 1 and libraries == {1}
    pyssl.set_num_threads(None)


def test_a_lost_worker_costs_its_block_only(client):
    expected = sweep(client=client, chunk_size=10)
    done = []
    victims = list(client.run(os.getpid).values())

    def killing(*results):
        done.append(results)
        if len(done) == 3:
            os.kill(victims[0], signal.SIGKILL)

    tasks = len(AXES["temperature"])
    evaluator = slowed(expected)
    evaluated = list(sweeps._tasks((20, 10), (1, 10)))
    sweeps._run(evaluator, evaluated, killing, client, False)
    assert len(done) == tasks
    for _, block, results in done:
        for name, values in results.items():
            np.testing.assert_array_equal(values, expected[name].values[block])
    deadline = time.monotonic() + 60.0
    while len(client.nthreads()) < 2 and time.monotonic() < deadline:  # the nanny's new one
        time.sleep(0.1)


class Slow:
    """An evaluator that takes its time, so that a worker can be lost meanwhile."""

    def __init__(self, evaluator):
        self.evaluator = evaluator
        self.plan = evaluator.plan
        self.algorithm = evaluator.algorithm

    def __call__(self, block):
        time.sleep(0.1)
        return self.evaluator(block)


def slowed(ds):
    from pyssl._sweep_evaluate import make_evaluator
    from pyssl._sweep_plan import make_plan

    outputs = [name for name in ds.data_vars if name != "critical_weight_decay"]
    plan = make_plan(pyssl.InfoNCE(), MOMENTS, AXES, outputs, None, 0.0, None, False)
    return Slow(make_evaluator(plan))
