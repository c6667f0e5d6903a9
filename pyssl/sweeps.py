"""Phase diagrams: what a loss keeps on a grid of settings, in memory or on disk (theory 5)."""

from __future__ import annotations

import itertools
import math
import os
import pickle
import sys
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._checks import ThresholdWarning
from pyssl._core import __version__
from pyssl._sweep_evaluate import KINDS, Block, Evaluator, Results, make_evaluator
from pyssl._sweep_plan import OUTPUTS, Source, make_plan
from pyssl._sweep_store import Store
from pyssl._threads import get_num_threads, set_num_threads
from pyssl.loss import Loss

if TYPE_CHECKING:
    import xarray

__all__ = ["sweep"]

_EXTRA = '"pyssl-landscapes[sweep]"'
_CRITICAL = "critical_weight_decay"
# Critical lines are left out of a dataset where they would have more entries than this.
_CRITICAL_ENTRIES = 1 << 20
_SLAB = 1 << 20

Chunk = tuple[int, ...]
Task = tuple[Chunk, Block]


def sweep(
    loss: Loss,
    moments: Source,
    axes: Mapping[str, npt.ArrayLike],
    outputs: Sequence[str] = ("kind", "rank", "effective_rank", "value"),
    store: str | os.PathLike[str] | None = None,
    resume: bool = True,
    client: Any = None,
    progress: bool = True,
    *,
    embedding_dim: int | None = None,
    weight_decay: float = 0.0,
    level: str | None = None,
    bias: bool = False,
    chunk_size: int | None = None,
) -> xarray.Dataset:
    """Classify a loss at every point of a grid of settings.

    Parameters
    ----------
    loss : Loss
        With the settings that no axis changes.
    moments : Moments, sequence of Moments, or callable
        Of the views. A sequence belongs to the one axis that names no other setting; a function is
        called with the values of all such axes as keywords, once for each combination; where it has
        a parameter ``augmentation_strength``, that axis is among them (`Augmentation.family`).
    axes : mapping of str to (n,) array_like
        ``weight_decay``, ``embedding_dim``, ``augmentation_strength`` (C -> s C), the numeric
        fields of the loss (``temperature``, ``negatives``, ``invariance``, ...), and those of the
        moments (a class prior, a spectral exponent, ...).
    outputs : sequence of str, optional
        Of ``kind``, ``rank``, ``capacity``, ``effective_rank``, ``participation_ratio``,
        ``stable_rank`` and ``value``. Without the last four no pencil is solved.
    store : path, optional
        A zarr group to write to; its chunks are all that is in memory. In memory by default.
    resume : bool, optional
        Whether to go on with a store that is there: it must be of the same sweep.
    client : distributed.Client, optional
        Whose workers compute; the active one by default, and without one threads of this process.
    progress : bool, optional
        Whether to show a bar with the rate and the time left.
    embedding_dim : int, optional
        k where it is no axis; the dimension of the views by default.
    weight_decay : float, optional
        g where it is no axis.
    level : {"population", "effective"}, optional
        Which landscape; the sharper that the loss has by default.
    bias : bool, optional
        Whether W has a last column that multiplies 1.
    chunk_size : int, optional
        Most points a task. Results do not depend on it.

    Returns
    -------
    xarray.Dataset
        The outputs over the axes. ``kind`` is an int8 with ``flag_values`` and ``flag_meanings``;
        where the embedding diverges the effective rank is nan. ``critical_weight_decay`` has the
        closed-form lines over the other axes and ``mode``, unless they are many.
        ``attrs["algorithm"]`` and ``attrs["reason"]`` say how it was computed.

    Raises
    ------
    ValueError
        For a wrong value, an unknown or empty axis, or a store of another sweep (the message says
        what differs).
    TypeError
        For an argument of the wrong kind.
    NotImplementedError
        For a level that the loss does not have.
    ImportError
        Without the packages of the extra ``sweep`` that are needed.

    Notes
    -----
    Source: theory 2.2 and 5. The cheapest algorithm that answers: ``elementwise`` where B and S
    commute on all of the grid (A and C share a basis: what is off their diagonals is at most
    16 d eps of the variances; or no weight decay), ``inertia`` where only kind and rank are asked,
    ``pencils`` elsewhere, ``loop`` (over `classify`) without closed form. Nothing depends on the
    chunking, nor on how many threads or workers there are.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(3), np.diag([0.9, 0.5, 0.1]))
    >>> axes = {"temperature": [0.5, 1.0, 2.0], "weight_decay": [0.0, 0.4, 4.0]}
    >>> ds = pyssl.sweep(pyssl.InfoNCE(), moments, axes, outputs=["kind", "rank"], progress=False)
    >>> ds["rank"].values
    array([[3, 2, 0],
           [3, 2, 0],
           [3, 2, 0]], dtype=int32)
    """
    return prepare(
        loss, moments, axes, outputs, store, resume, client, progress, embedding_dim=embedding_dim,
        weight_decay=weight_decay, level=level, bias=bias, chunk_size=chunk_size,
    )()  # fmt: skip


def prepare(
    loss: Loss,
    moments: Source,
    axes: Mapping[str, npt.ArrayLike],
    outputs: Sequence[str] = ("kind", "rank", "effective_rank", "value"),
    store: str | os.PathLike[str] | None = None,
    resume: bool = True,
    client: Any = None,
    progress: bool = True,
    *,
    embedding_dim: int | None = None,
    weight_decay: float = 0.0,
    level: str | None = None,
    bias: bool = False,
    chunk_size: int | None = None,
) -> Callable[[], xarray.Dataset]:
    """Check everything that `sweep` takes, and return what is left to do; nothing is written."""
    plan = make_plan(loss, moments, axes, outputs, embedding_dim, weight_decay, level, bias)
    _checks.flag("resume", resume)
    _checks.flag("progress", progress)
    size = None if chunk_size is None else _checks.integer("chunk_size", chunk_size, minimum=1)
    if store is not None:
        _checks.instance("store", store, (str, os.PathLike), "a path")
    pool = _client(client)
    with _checks.needs("sweeps need xarray", _EXTRA):
        import xarray  # noqa: F401

    evaluator = make_evaluator(plan)
    chunks = plan.chunk_shape(size or evaluator.chunk_points)
    if store is None:
        return partial(_in_memory, evaluator, chunks, pool, progress)
    place = Store(store, _description(evaluator, chunks))
    place.check(resume)
    return partial(_on_disk, evaluator, chunks, place, pool, progress)


def _in_memory(evaluator: Evaluator, chunks: Chunk, client: Any, progress: bool) -> xarray.Dataset:
    import xarray as xr

    plan = evaluator.plan
    found = {
        name: np.full(plan.shape, OUTPUTS[name][1], dtype=OUTPUTS[name][0]) for name in plan.outputs
    }

    def keep(_: Chunk, block: Block, results: Results) -> None:
        for name, values in results.items():
            found[name][block] = values

    _run(evaluator, list(_tasks(plan.shape, chunks)), keep, client, progress)
    given = _variables(evaluator)
    return xr.Dataset(
        {
            **{name: (plan.names, found[name], _told(name)) for name in plan.outputs},
            **{name: item for name, item in given.items() if name == _CRITICAL},
        },
        coords={name: item for name, item in given.items() if name != _CRITICAL},
        attrs=_attributes(evaluator),
    )


def _on_disk(
    evaluator: Evaluator, chunks: Chunk, store: Store, client: Any, progress: bool
) -> xarray.Dataset:
    plan = evaluator.plan
    store.open(
        plan.shape,
        chunks,
        _variables(evaluator),
        {name: _told(name) for name in plan.outputs},
        plan.names,
        _attributes(evaluator),
    )
    done = store.done()
    tasks = [task for task in _tasks(plan.shape, chunks) if not done[task[0]]]
    _run(evaluator, tasks, store.write, client, progress)
    found: xarray.Dataset = store.dataset()
    return found


def _description(evaluator: Evaluator, chunks: Chunk) -> dict[str, Any]:
    return {
        "version": __version__,
        **evaluator.plan.description(),
        "algorithm": evaluator.algorithm,
        "chunks": list(chunks),
    }


# ---- what a dataset says -------------------------------------------------------------------------


def _told(name: str) -> dict[str, Any]:
    told: dict[str, Any] = {"long_name": OUTPUTS[name][2]}
    if name == "kind":
        told["flag_values"] = list(range(len(KINDS)))
        told["flag_meanings"] = " ".join(str(kind) for kind in KINDS)
    return told


def _attributes(evaluator: Evaluator) -> dict[str, Any]:
    plan = evaluator.plan
    told: dict[str, Any] = {
        "loss": repr(plan.loss),
        "level": plan.level,
        "bias": int(plan.bias),
        "dim": plan.moments[0].dim,
        "algorithm": evaluator.algorithm,
        "reason": evaluator.why,
        "pyssl_version": __version__,
    }
    for name in ("embedding_dim", "weight_decay"):
        if name not in plan.names:
            told[name] = getattr(plan, name)
    return told


def _variables(
    evaluator: Evaluator,
) -> dict[str, tuple[tuple[str, ...], npt.NDArray[Any], dict[str, Any]]]:
    """Return the axes and the critical lines: name -> (dims, values, attributes)."""
    plan = evaluator.plan
    variables: dict[str, Any] = {
        name: ((name,), values, {}) for name, values in zip(plan.names, plan.values, strict=True)
    }
    dims = tuple(name for name in plan.names if name not in ("weight_decay", "embedding_dim"))
    lines = evaluator.critical_lines(dims, _CRITICAL_ENTRIES)
    if lines is not None:
        modes = np.arange(1, lines.shape[-1] + 1)
        variables["mode"] = (("mode",), modes, {})
        told = {"long_name": "weight decay from which on the mode is lost"}
        variables[_CRITICAL] = ((*dims, "mode"), lines, told)
    return variables


def summary(ds: xarray.Dataset) -> str:
    """Return what a sweep found as a table, reading it slab by slab."""
    outputs = [name for name in OUTPUTS if name in ds]
    sizes = ds[outputs[0]].sizes
    first, length = next(iter(sizes.items()))
    step = max(1, _SLAB // math.prod(list(sizes.values())[1:]))
    kinds = np.zeros(len(KINDS), np.int64)
    ends = {name: [math.inf, -math.inf] for name in outputs if name != "kind"}
    for start in range(0, length, step):
        slab = ds[outputs].isel({first: slice(start, start + step)}).load()
        if "kind" in outputs:
            kinds += np.bincount(slab["kind"].values.ravel(), minlength=len(KINDS))
        for name, (low, high) in ends.items():
            values = slab[name].values.astype(np.float64)
            values = values[np.isfinite(values)]
            ends[name] = [
                float(min(low, values.min(initial=math.inf))),
                float(max(high, values.max(initial=-math.inf))),
            ]
    points = math.prod(sizes.values())
    grid = " x ".join(f"{size} {name}" for name, size in sizes.items())
    lines = [f"{ds.attrs['loss']}: {points} points ({grid}), {ds.attrs['algorithm']}"]
    if "kind" in outputs:
        width = max(len(str(kind)) for kind in KINDS)
        lines += [
            f"  {kind!s:<{width}}  {count:>12}  {count / points:>7.1%}"
            for kind, count in zip(KINDS, kinds, strict=True)
        ]
    lines += [
        f"  {name:<20}  {low:.6g} to {high:.6g}" if low <= high else f"  {name:<20}  nowhere finite"
        for name, (low, high) in ends.items()
    ]
    return "\n".join(lines)


# ---- running -------------------------------------------------------------------------------------


def _tasks(shape: tuple[int, ...], chunks: Chunk) -> Iterator[Task]:
    grid = [range(-(-n // c)) for n, c in zip(shape, chunks, strict=True)]
    for chunk in itertools.product(*grid):
        yield (
            chunk,
            tuple(
                slice(i * c, min((i + 1) * c, n))
                for i, c, n in zip(chunk, chunks, shape, strict=True)
            ),
        )


def _run(
    evaluator: Evaluator,
    tasks: list[Task],
    keep: Callable[[Chunk, Block, Results], None],
    client: Any,
    progress: bool,
) -> None:
    """Compute the tasks and hand each one's results to `keep`, in this thread, as they come."""
    run = _threads if client is None else _futures
    with (
        _bar(tasks, evaluator.plan.size, progress) as advance,
        closing(run(evaluator, tasks, client)) as coming,
    ):
        for (chunk, block), results in coming:
            keep(chunk, block, results)
            advance(_points(block))


def _threads(
    evaluator: Evaluator, tasks: list[Task], _: None
) -> Generator[tuple[Task, Results], None, None]:
    """Compute in threads of this process: kernels and LAPACK hold no lock."""
    from threadpoolctl import threadpool_limits

    # a loop over Python code would only wait for its lock; pencils have threads of their own
    count = get_num_threads() if evaluator.algorithm in ("elementwise", "inertia") else 1
    waiting = iter(tasks)
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(1, user_api="blas"))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", ThresholdWarning)
        pool = ThreadPoolExecutor(count)
        stack.callback(pool.shutdown, cancel_futures=True)
        running = {
            pool.submit(evaluator, task[1]): task for task in itertools.islice(waiting, 2 * count)
        }
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                for following in itertools.islice(waiting, 1):
                    running[pool.submit(evaluator, following[1])] = following
                yield task, future.result()


def _futures(
    evaluator: Evaluator, tasks: list[Task], client: Any
) -> Generator[tuple[Task, Results], None, None]:
    """Compute on a Dask cluster.

    By futures, not by mapping over a chunked array: only so many are under way that neither the
    scheduler nor this process holds the grid, results are stored as they come, by this process
    alone (workers need no shared disk), and what a lost worker had is computed again elsewhere.
    """
    from distributed import as_completed

    payload = pickle.dumps(evaluator)
    # the result of a task, unlike data that is scattered, survives the workers that hold it
    shared = client.submit(pickle.loads, payload, pure=False)
    client.replicate([shared])  # tasks go where it is
    here, waiting = os.getpid(), iter(tasks)
    threads = max(1, sum(client.nthreads().values()))
    running: dict[Any, Task] = {}

    def submit(count: int) -> list[Any]:
        started = []
        for task in itertools.islice(waiting, count):
            future = client.submit(_evaluate, shared, task[1], here, pure=False)
            running[future] = task
            started.append(future)
        return started

    try:
        coming = as_completed(submit(2 * threads + 2))
        for future in coming:
            results = future.result()
            task = running.pop(future)
            for following in submit(1):
                coming.add(following)
            future.release()
            yield task, results
    finally:
        if running:
            client.cancel(list(running))


def _evaluate(evaluator: Evaluator, block: Block, home: int) -> Results:
    """Evaluate a block on a worker, with one thread for BLAS and one for the kernels."""
    if os.getpid() != home:
        _one_thread()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ThresholdWarning)
        return evaluator(block)


@cache
def _one_thread() -> None:
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    set_num_threads(1)


def _client(given: Any) -> Any:
    """Return the Dask client to use, None to compute in this process."""
    if given is None:
        if "distributed" not in sys.modules:  # then none is active
            return None
        from distributed import Client

        try:
            return Client.current()
        except ValueError:
            return None
    with _checks.needs("a client needs distributed", _EXTRA):
        from distributed import Client

    _checks.instance("client", given, Client, "a distributed.Client")
    return given


def _points(block: Block) -> int:
    return math.prod(part.stop - part.start for part in block)


@contextmanager
def _bar(tasks: list[Task], size: int, progress: bool) -> Iterator[Callable[[int], Any]]:
    """Show what is done, at which rate, and how long the rest will take."""
    if not progress:
        yield lambda _: None
        return
    with _checks.needs("the progress bar needs tqdm (or pass progress=False)", _EXTRA):
        from tqdm.auto import tqdm

    left = sum(_points(block) for _, block in tasks)
    with tqdm(
        total=size, initial=size - left, desc="sweep", unit=" points", unit_scale=True
    ) as bar:
        yield bar.update
