"""Time pyssl against NumPy, PyTorch and JAX in one run, and print the ratios as a Markdown table.

    python benchmarks/peers.py                  the sizes that targets are stated for: minutes
    python benchmarks/peers.py --quick          small sizes: that everything runs and agrees
    python benchmarks/peers.py --single-thread  one thread each
    python benchmarks/peers.py --cpu-time       processor time, all threads': for a busy machine

Every contender computes the same thing and is checked against pyssl before it is timed. In one
repetition all contenders of a task run one after another, each after a pause in which the thread
pool of the one before it goes to sleep and after an untimed call that wakes its own; a ratio
compares two times of the same repetition. The table gives the median over the repetitions and, in
brackets, the smallest and the largest; then the ratio of the best times, which a busy machine
disturbs least. Without --single-thread every library uses its default threads.

The losses on embeddings and their peers are in peers_losses.py, descents in peers_descent.py.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import threadpoolctl
from scipy.linalg import blas

import pyssl

Call = Callable[[], Any]

# Thread pools of BLAS libraries spin for some 30 ms before they sleep, and take a core with them.
_PAUSE = 0.1
_Q = 0.5


@dataclass
class Contender:
    """One way to do a task.

    `share` is the part of the task that one call does, for what would take minutes in full;
    `at_least` (`at_most`) is what time(contender)/time(pyssl) (its inverse) is meant to be.
    """

    name: str
    call: Call
    result: Call | None = None  # what is checked; the call itself if None
    share: float = 1.0
    at_least: float | None = None
    at_most: float | None = None


@dataclass
class Task:
    """Contenders that compute the same result, pyssl first."""

    title: str
    contenders: list[Contender]
    tolerance: float = 1e-10
    value_tolerance: float | None = None  # of single numbers, if another
    norm: Callable[[np.ndarray], Any] = lambda error: np.abs(error).max()
    missing: dict[str, str] = field(default_factory=dict)  # contenders that failed, and why
    budget_ms: float | None = None
    best_of: tuple[str, ...] = ()
    best_at_least: float | None = None
    times: dict[str, list[float]] = field(default_factory=dict)


# ---- peers ---------------------------------------------------------------------------------------


def load(name: str, single_thread: bool) -> ModuleType | None:
    """Import a peer, or say that it is not there."""
    if name == "jax" and single_thread:  # which JAX reads when it starts
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    try:
        module = importlib.import_module(name)
    except ImportError:
        print(f"**{name} is not installed: its rows are missing.**\n")
        return None
    if name == "jax":
        module.config.update("jax_enable_x64", True)
    elif single_thread:
        module.set_num_threads(1)
    return module


def torch_value_and_gradient(torch: ModuleType, problem: Problem) -> Callable[[Any], Any]:
    """Return the landscape by PyTorch's autograd, (..., k, d) in, NumPy out."""
    signal, scale = torch.from_numpy(problem.B), torch.from_numpy(problem.S)

    def run(W: np.ndarray) -> Any:
        weights = torch.from_numpy(W).requires_grad_()
        gram = weights @ scale @ weights.mT
        values = _Q * gram.square().sum((-2, -1)) - (weights @ signal * weights).sum((-2, -1))
        (gradient,) = torch.autograd.grad(values.sum(), weights)
        return values.detach(), gradient

    return run


def jax_value_and_gradient(jax: ModuleType, problem: Problem) -> Callable[[Any], Any]:
    """Return the landscape by JAX, compiled, and vmapped over a batch."""
    signal, scale = jax.numpy.asarray(problem.B), jax.numpy.asarray(problem.S)

    def value(weights: Any, signal: Any, scale: Any) -> Any:
        gram = weights @ scale @ weights.T
        return _Q * (gram**2).sum() - (weights @ signal * weights).sum()

    both = jax.value_and_grad(value)
    single, batched = jax.jit(both), jax.jit(jax.vmap(both, in_axes=(0, None, None)))

    def run(weights: Any) -> Any:
        function = single if weights.ndim == 2 else batched
        return jax.block_until_ready(function(weights, signal, scale))

    return run


# ---- tasks ---------------------------------------------------------------------------------------


class Problem:
    """A quartic landscape with dense B and S, and weights of the size of its minimiser."""

    def __init__(self, d: int, k: int, batch: tuple[int, ...] = ()) -> None:
        rng = np.random.default_rng(0)
        x = rng.standard_normal((2, d, d)) / np.sqrt(d)
        self.B = x[0] + x[0].T
        self.S = x[1] @ x[1].T + np.eye(d)
        self.W = rng.standard_normal((*batch, k, d)) / np.sqrt(d)
        self.land = pyssl.SpectralLandscape(self.B, self.S, pyssl.Quartic(_Q), k)


def gradient_task(peers: Peers, d: int, k: int) -> Task:
    """Value and gradient of one large W, where the four matrix products are all the work."""
    problem = Problem(d, k)
    B, S, W = problem.B, problem.S, problem.W
    wide = [np.empty((k, d)) for _ in range(3)]
    square = np.empty((k, k))

    def numpy_products() -> None:
        np.matmul(W, B, out=wide[0])
        np.matmul(W, S, out=wide[1])
        np.matmul(wide[1], W.T, out=square)
        np.matmul(square, wide[1], out=wide[2])

    def scipy_products() -> None:
        # transposed, C order is the Fortran order that BLAS reads and writes in place
        blas.dgemm(1.0, B.T, W.T, c=wide[0].T, overwrite_c=1)
        blas.dgemm(1.0, S.T, W.T, c=wide[1].T, overwrite_c=1)
        blas.dgemm(1.0, W.T, wide[1].T, trans_a=1, c=square.T, overwrite_c=1)
        blas.dgemm(1.0, wide[1].T, square.T, c=wide[2].T, overwrite_c=1)

    def from_products(products: Call) -> Call:
        def result() -> Any:
            products()
            value = _Q * np.vdot(square, square) - np.vdot(wide[0], W)
            return value, 4.0 * _Q * wide[2] - 2.0 * wide[0]

        return result

    bare = [("NumPy", numpy_products), ("SciPy", scipy_products)]
    name, products = min(bare, key=lambda item: best_time(item[1]))
    contenders = [
        Contender("pyssl", lambda: problem.land.value_and_gradient(W)),
        Contender(
            f"the bare products, {name}'s BLAS", products, from_products(products), at_most=1.15
        ),
    ]
    if peers.torch:
        by_torch = torch_value_and_gradient(peers.torch, problem)
        contenders.append(Contender("PyTorch autograd", lambda: by_torch(W), at_least=2.0))
    if peers.jax:
        by_jax, W_jax = jax_value_and_gradient(peers.jax, problem), peers.jax.numpy.asarray(W)
        contenders.append(Contender("JAX jit", lambda: by_jax(W_jax)))
    return Task(f"value + gradient, d = {d}, k = {k}", contenders)


def mode_task(peers: Peers, d: int, k: int) -> Task:
    """Value and gradient in mode coordinates, against the original ones elsewhere."""
    problem = Problem(d, k)
    W, modes = problem.W, problem.land.in_modes()
    U = modes.from_weights(W)

    def through_modes() -> Any:
        value, gradient = modes.value_and_gradient(U)
        return value, modes.gradient_to_weights(gradient)

    names = []
    contenders = [
        Contender("pyssl, in mode coordinates", lambda: modes.value_and_gradient(U), through_modes)
    ]
    if peers.torch:
        by_torch = torch_value_and_gradient(peers.torch, problem)
        contenders.append(Contender("PyTorch autograd", lambda: by_torch(W)))
        names.append("PyTorch autograd")
    if peers.jax:
        by_jax, W_jax = jax_value_and_gradient(peers.jax, problem), peers.jax.numpy.asarray(W)
        contenders.append(Contender("JAX jit", lambda: by_jax(W_jax)))
        names.append("JAX jit")
    _, G = modes.value_and_gradient(U)
    contenders += [
        Contender("pyssl, original coordinates", lambda: problem.land.value_and_gradient(W)),
        Contender(
            "pyssl, W to modes and gradient back, apart",
            lambda: (modes.from_weights(W), modes.gradient_to_weights(G)),
            through_modes,
        ),
    ]
    return Task(
        f"value + gradient, d = {d}, k = {k}",
        contenders,
        tolerance=1e-9,  # the change of coordinates costs the condition of S
        best_of=tuple(names),
        best_at_least=15.0,
    )


def batch_task(peers: Peers, n: int, d: int, k: int) -> Task:
    """Value and gradient of many small W in one call."""
    problem = Problem(d, k, (n,))
    B, S, W = problem.B, problem.S, problem.W

    def by_numpy(signal: np.ndarray, scaled: np.ndarray) -> Any:
        gram = scaled @ W.swapaxes(-1, -2)
        values = _Q * np.einsum("nij,nij->n", gram, gram) - np.einsum("nij,nij->n", signal, W)
        gradient = gram @ scaled
        gradient *= 4.0 * _Q
        signal *= 2.0
        gradient -= signal
        return values, gradient

    def batched() -> Any:
        return by_numpy(W @ B, W @ S)

    def flattened() -> Any:
        rows = W.reshape(-1, d)
        return by_numpy((rows @ B).reshape(W.shape), (rows @ S).reshape(W.shape))

    contenders = [
        Contender("pyssl", lambda: problem.land.value_and_gradient(W)),
        Contender("NumPy batched matmul", batched, at_least=20.0),
        Contender("NumPy, products by B and S flattened", flattened),
    ]
    if peers.torch:
        by_torch = torch_value_and_gradient(peers.torch, problem)
        contenders.append(Contender("PyTorch autograd", lambda: by_torch(W)))
    if peers.jax:
        by_jax, W_jax = jax_value_and_gradient(peers.jax, problem), peers.jax.numpy.asarray(W)
        contenders.append(Contender("JAX jit vmap", lambda: by_jax(W_jax), at_least=5.0))
    return Task(f"value + gradient, {n:,} W of ({k}, {d})", contenders)


def plane_task(peers: Peers, side: int, d: int, k: int) -> Task:
    """Values on a grid; the peers evaluate a patch of it, and their times are scaled up."""
    problem = Problem(d, k)
    B, S = problem.B, problem.S
    D1, D2 = np.random.default_rng(1).standard_normal((2, k, d)) / np.sqrt(d)
    axis, patch = np.linspace(-1.0, 1.0, side), slice(0, side, max(1, side // 8))
    u, v = (item.ravel() for item in np.meshgrid(axis[patch], axis[patch], indexing="ij"))
    share = len(u) / side**2

    def ours() -> np.ndarray:
        return problem.land.plane(problem.W, D1, D2, axis, axis)

    def by_numpy() -> np.ndarray:
        W = problem.W + u[:, None, None] * D1 + v[:, None, None] * D2
        rows = W.reshape(-1, d)
        scaled = (rows @ S).reshape(W.shape)
        gram = scaled @ W.swapaxes(-1, -2)
        linear = np.einsum("nij,nij->n", (rows @ B).reshape(W.shape), W)
        return np.asarray(_Q * np.einsum("nij,nij->n", gram, gram) - linear)

    grams = _plane_grams(problem, D1, D2)

    def from_grams() -> np.ndarray:
        linear, parts = grams
        monomials = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=1)
        gram = monomials @ parts
        return np.asarray(_Q * np.einsum("ni,ni->n", gram, gram) - monomials @ linear)

    def patch_of_ours() -> np.ndarray:
        return ours()[patch, patch].ravel()

    contenders = [
        Contender("pyssl", ours, patch_of_ours),
        Contender("NumPy, point by point", by_numpy, share=share),
        Contender("NumPy, Gram matrices given", from_grams, share=share),
    ]
    if peers.torch:
        torch = peers.torch
        tensors = [torch.from_numpy(item) for item in (B, S, problem.W, D1, D2, u, v)]

        def by_torch() -> Any:
            signal, scale, W0, T1, T2, tu, tv = tensors
            with torch.inference_mode():
                W = W0 + tu[:, None, None] * T1 + tv[:, None, None] * T2
                gram = W @ scale @ W.mT
                return _Q * gram.square().sum((-2, -1)) - (W @ signal * W).sum((-2, -1))

        contenders.append(Contender("PyTorch, point by point", by_torch, share=share))
    return Task(
        f"plane of {side} x {side} points, d = {d}, k = {k}",
        contenders,
        tolerance=1e-10,
        budget_ms=50.0,
    )


def _plane_grams(problem: Problem, D1: np.ndarray, D2: np.ndarray) -> tuple[Any, Any]:
    """Return the linear coefficients (6,) and Gram matrices (6, k*k) of 1, u, v, uu, uv, vv."""
    corners = [problem.W, D1, D2]
    linear, parts = [], []
    for a, b in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)):
        twice = 1.0 if a == b else 2.0
        gram = corners[a] @ problem.S @ corners[b].T
        linear.append(twice * np.vdot(corners[a] @ problem.B, corners[b]))
        parts.append(0.5 * twice * (gram + gram.T).ravel())
    return np.array(linear), np.array(parts)


def pencil_tasks(quick: bool) -> Iterator[Task]:
    """Eigenvalues and inertia of many small symmetric matrices; NumPy does a tenth of them."""
    n = 2_000 if quick else 100_000
    for d, at_least in ((8, 15.0), (16, 8.0), (32, 3.0)):
        B = np.random.default_rng(0).standard_normal((n, d, d))
        B += B.swapaxes(1, 2).copy()
        few = B[: n // 10]

        def eigenvalues(B: np.ndarray = B) -> np.ndarray:
            return np.linalg.eigvalsh(B)[:, ::-1]

        def counts(B: np.ndarray = B) -> np.ndarray:
            values = np.linalg.eigvalsh(B)
            above, below = np.sum(values > 0.0, axis=1), np.sum(values < 0.0, axis=1)
            return np.stack([above, B.shape[-1] - above - below, below], axis=1)

        name = "numpy.linalg.eigvalsh"
        yield Task(
            f"eigenvalues, {n:,} matrices, d = {d}",
            [
                Contender("pyssl", partial(pyssl.pencils.eigenvalues, B)),
                Contender(name, partial(eigenvalues, few), eigenvalues, 0.1, at_least),
            ],
        )
        yield Task(
            f"inertia, {n:,} matrices, d = {d}",
            [
                Contender("pyssl", partial(pyssl.pencils.inertia, B)),
                Contender(name, partial(counts, few), counts, 0.1, 20.0 if d == 16 else None),
            ],
        )


def loss_task(peers: Peers, number: int, quick: bool) -> Task:
    """Value and gradient of a loss on float32 embeddings."""
    import peers_losses  # which asv, importing this file from elsewhere, would not find

    case = peers_losses.CASES[number]
    n, k = case.quick_size if quick else case.size
    pair = peers_losses.embeddings(n, k)
    task = Task(
        f"{case.title}, value + gradient, {n:,} pairs, k = {k}, float32",
        [Contender("pyssl", peers_losses.by_pyssl(case, pair))],
        tolerance=1e-4,
        value_tolerance=case.value_tolerance,
        norm=np.linalg.norm,
        best_at_least=case.at_least,
    )
    if peers.torch:
        eager = peers_losses.by_torch(peers.torch, case, pair, compiled=False)
        task.contenders.append(Contender("PyTorch eager", eager))
        compiled = peers_losses.by_torch(peers.torch, case, pair, compiled=True)
        try:
            compiled()
        except Exception as error:  # a missing compiler, or whatever else it stumbles over
            reason = (str(error).strip() or "no message").splitlines()[0].replace("|", "/")
            task.missing["torch.compile"] = f"**failed: {type(error).__name__}: {reason[:100]}**"
        else:
            task.contenders.append(Contender("torch.compile", compiled))
    if peers.jax:
        task.contenders.append(Contender("JAX jit", peers_losses.by_jax(peers.jax, case, pair)))
    task.best_of = tuple(item.name for item in task.contenders[1:])
    return task


def memory_rows(quick: bool) -> Iterator[list[str]]:
    """Yield the rows of the table for the memory of NT-Xent."""
    import peers_losses

    n, k = (1024, 32) if quick else (16_384, 128)
    extra = peers_losses.peak_memory(n, k)
    title = f"NT-Xent, peak memory beside inputs and outputs, {2 * n:,} views, k = {k}, float32"
    if extra is None:
        yield [title, "pyssl", "**not measured: needs Linux's /proc**", "", "", ""]
        return
    target = "" if quick else verdict("<= 64 MiB", extra <= 64 * 2**20)
    yield [title, "pyssl", f"{extra / 2**20:.3g} MiB", "", "", target]
    # the logits and their softmax, which autograd keeps; the gradient by the logits comes on top
    theirs = 2 * 4 * (2 * n) ** 2
    ratio = f"{theirs / extra:.3g}x" if extra > 0 else ""
    needed = f">= {theirs / 2**20:,.0f} MiB"
    yield ["", "PyTorch eager: two matrices of logits, not run", needed, ratio, "", ""]


def descent_rows(peers: Peers, quick: bool, repeat: int) -> Iterator[list[str]]:
    """Yield the rows for descents to a minimum, which take too long to be tasks like the others."""
    import peers_descent

    d, k = (64, 16) if quick else (512, 128)
    repeat, patience = min(3, repeat), 5.0 if quick else 30.0
    moments, W0 = peers_descent.moments(d), peers_descent.start(d, k)
    for loss, by_torch, target, at_least, what in (
        (pyssl.InfoNCE(), "infonce_torch", peers_descent.GRADIENT_NORM, 5.0, "gradient norm"),
        (pyssl.VICReg(), "vicreg_torch", peers_descent.KKT_RESIDUAL, None, "KKT residual"),
    ):
        ours: list[float] = []
        theirs: list[float] = []
        reached = np.inf
        for _ in range(repeat):
            time.sleep(_PAUSE)
            start = time.perf_counter()
            # a new landscape each time, so that its modes are found anew
            land = loss.population(moments, embedding_dim=k)
            result = pyssl.minimize(land, W0, closed_form=False)
            ours.append(time.perf_counter() - start)
            if not (result.converged and result.gradient_norm <= target):
                raise SystemExit(f"{type(loss).__name__}: {result}")
            if peers.torch:
                time.sleep(_PAUSE)
                evaluate = getattr(peers_descent, by_torch)(peers.torch, moments, k)
                W, least, spent = peers_descent.lbfgs(peers.torch, evaluate, W0, target, patience)
                reached = min(reached, least)
                theirs.append(spent)
                error = abs(float(land.value(W)) - result.value) / abs(result.value)
                if least <= target and error > 1e-9:
                    raise SystemExit(f"{type(loss).__name__}: L-BFGS is off by {error:.1e}")
        title = f"{type(loss).__name__}, population, to {what} {target:g}, d = {d}, k = {k}"
        yield [title, "pyssl.minimize, numerical", milliseconds(ours), "", "", ""]
        if peers.torch:
            ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
            name = "PyTorch L-BFGS"
            if reached > target:
                name += f", **its least: {reached:.1e}**, time to that"
            target_met = ""
            if at_least is not None and not quick:
                target_met = verdict(f">= {at_least:g}x", statistics.median(ratios) >= at_least)
            best = f"{min(theirs) / min(ours):.3g}x"
            yield ["", name, milliseconds(theirs), spread(ratios, "x"), best, target_met]


def import_times(repeat: int) -> list[float]:
    """Return what `import pyssl` takes after `import numpy, scipy.linalg`, in seconds."""
    script = (
        "import time, numpy, scipy.linalg; start = time.perf_counter(); import pyssl;"
        " print(time.perf_counter() - start)"
    )
    with tempfile.TemporaryDirectory() as folder:
        # compiled once, as after an installation, by the run that is not counted
        environment = os.environ | {"PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        runs = [
            subprocess.run(
                [sys.executable, "-c", script],
                check=True,
                capture_output=True,
                text=True,
                env=environment,
            )
            for _ in range(repeat + 1)
        ]
    return [float(run.stdout) for run in runs[1:]]


# ---- measuring -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Peers:
    """The optional libraries, None where not installed."""

    torch: ModuleType | None
    jax: ModuleType | None


def best_time(call: Call, repeat: int = 3) -> float:
    """Return the shortest of a few calls, of fewer if they are long."""
    time.sleep(_PAUSE)
    call()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
        if sum(times) > 0.5:
            break
    return min(times)


def check(task: Task) -> None:
    """Stop unless every contender's result is pyssl's, to the task's tolerance and in its norm."""

    def parts(contender: Contender) -> list[np.ndarray]:
        result = (contender.result or contender.call)()
        parts = result if isinstance(result, tuple | list) else (result,)
        return [np.asarray(part) for part in parts]

    expected = parts(task.contenders[0])
    for contender in task.contenders[1:]:
        for ours, theirs in zip(expected, parts(contender), strict=True):
            error = float(task.norm(ours - theirs) / task.norm(ours))
            tolerance = task.tolerance
            if ours.ndim == 0 and task.value_tolerance is not None:
                tolerance = task.value_tolerance
            if not error <= tolerance:
                raise SystemExit(f"{task.title}: {contender.name} is off by {error:.1e}")


def measure(task: Task, repeat: int, clock: Callable[[], float]) -> None:
    """Time the contenders in turns; short calls several times a turn."""
    calls = {item.name: max(1, round(0.02 / best_time(item.call))) for item in task.contenders}
    task.times = {item.name: [] for item in task.contenders}
    for turn in range(repeat):
        order = task.contenders if turn % 2 == 0 else task.contenders[::-1]
        for item in order:
            time.sleep(_PAUSE)
            item.call()
            start = clock()
            for _ in range(calls[item.name]):
                item.call()
            elapsed = (clock() - start) / calls[item.name]
            task.times[item.name].append(elapsed / item.share)


# ---- the table -----------------------------------------------------------------------------------


def rows(task: Task, targets: bool) -> Iterator[list[str]]:
    """Yield the rows of the table for a task that was measured."""
    first, *others = task.contenders
    ours = task.times[first.name]
    target = ""
    if targets and task.budget_ms is not None:
        met = 1e3 * statistics.median(ours) <= task.budget_ms
        target = verdict(f"<= {task.budget_ms:g} ms", met)
    yield [task.title, first.name, milliseconds(ours), "", "", target]
    for name, reason in task.missing.items():
        yield ["", name, reason, "", "", ""]
    compared = [(item.name, task.times[item.name], item) for item in others]
    if task.best_of:
        names = f"best of {' and '.join(task.best_of)}"
        best = [
            min(turn) for turn in zip(*(task.times[name] for name in task.best_of), strict=True)
        ]
        compared.append((names, best, Contender(names, first.call, at_least=task.best_at_least)))
    for name, theirs, item in compared:
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        median = statistics.median(ratios)
        target = ""
        if targets and item.at_least is not None:
            target = verdict(f">= {item.at_least:g}x", median >= item.at_least)
        if targets and item.at_most is not None:
            limit = f"pyssl/this = {1.0 / median:.3g} <= {item.at_most:g}"
            target = verdict(limit, 1.0 / median <= item.at_most)
        scaled = "" if item.share == 1.0 else f", {item.share:.1e} of it, scaled up"
        best_times = f"{min(theirs) / min(ours):.3g}x"
        yield ["", name + scaled, milliseconds(theirs), spread(ratios, "x"), best_times, target]


def milliseconds(times: list[float]) -> str:
    """Format times in seconds."""
    return spread([1e3 * item for item in times], " ms")


def spread(values: list[float], unit: str) -> str:
    """Format the median of the values, the smallest and the largest."""
    median, low, high = statistics.median(values), min(values), max(values)
    return f"{median:.3g}{unit} ({low:.3g} - {high:.3g})"


def verdict(target: str, met: bool) -> str:
    """Format a target and whether it is met."""
    return f"{target}: {'met' if met else '**missed**'}"


def environment(peers: Peers, single_thread: bool) -> str:
    """Describe what was measured on what."""
    libraries = [f"Python {platform.python_version()}", f"pyssl {pyssl.__version__}"]
    libraries += [f"NumPy {np.__version__}"]
    threads = [f"pyssl {pyssl.get_num_threads()}"]
    for pool in threadpoolctl.threadpool_info():
        if pool["user_api"] == "blas":
            name = Path(pool["filepath"]).name.split("-")[0]
            kind = f"{pool['internal_api']} {pool['version']}, {pool.get('architecture', '?')}"
            threads.append(f"{name} {pool['num_threads']} ({kind})")
    if peers.torch:
        libraries.append(f"PyTorch {peers.torch.__version__}")
        threads.append(f"PyTorch {peers.torch.get_num_threads()}")
    if peers.jax:
        libraries.append(f"JAX {peers.jax.__version__}")
        threads.append(f"JAX {'1' if single_thread else 'all cores'}")
    return (
        f"{', '.join(libraries)}\n\n{os.cpu_count()} cores ({platform.machine()}); threads:"
        f" {', '.join(threads)}; load before: {os.getloadavg()[0]:.1f}\n"
    )


def main() -> None:
    """Run every task and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, no targets")
    parser.add_argument("--repeat", type=int, help="repetitions of each task")
    parser.add_argument("--only", type=int, nargs="+", help="tasks to run, counted from 1")
    parser.add_argument("--single-thread", action="store_true", help="one thread each")
    parser.add_argument("--cpu-time", action="store_true", help="processor time, of all threads")
    options = parser.parse_args()
    repeat = options.repeat or (3 if options.quick else 15)
    single = options.single_thread
    peers = Peers(load("torch", single), load("jax", single))
    if single:
        pyssl.set_num_threads(1)
        threadpoolctl.threadpool_limits(1)
    tasks: list[Callable[[], Task]] = [
        lambda: gradient_task(peers, *((256, 32) if options.quick else (2048, 256))),
        lambda: mode_task(peers, *((256, 16) if options.quick else (2048, 64))),
        lambda: batch_task(peers, 2_000 if options.quick else 100_000, 8, 4),
        lambda: plane_task(peers, *((64, 64, 8) if options.quick else (1024, 512, 64))),
        *(partial(loss_task, peers, number, options.quick) for number in range(5)),
    ]
    print(environment(peers, single))
    clock = time.process_time if options.cpu_time else time.perf_counter
    spent = "processor time" if options.cpu_time else "time"
    print(f"| task | contender | {spent} | ratio to pyssl | of best times | target |")
    print("|---|---|---|---|---|---|")

    def show(task: Task) -> None:
        check(task)
        measure(task, repeat, clock)
        for row in rows(task, targets=not options.quick):
            print(f"| {' | '.join(row)} |", flush=True)

    for number, make in enumerate(tasks, 1):
        if not options.only or number in options.only:
            show(make())
    if not options.only or len(tasks) + 1 in options.only:
        for row in memory_rows(options.quick):
            print(f"| {' | '.join(row)} |", flush=True)
    if not options.only or len(tasks) + 2 in options.only:
        times = import_times(repeat)
        met = 1e3 * statistics.median(times) <= 50.0
        target = "" if options.quick else verdict("<= 50 ms", met)
        title = "import, after numpy and scipy.linalg"
        print(f"| {title} | pyssl | {milliseconds(times)} | | | {target} |")
    if not options.only or len(tasks) + 3 in options.only:
        for row in descent_rows(peers, options.quick, repeat):
            print(f"| {' | '.join(row)} |", flush=True)
    if not options.only or len(tasks) + 4 in options.only:
        for task in pencil_tasks(options.quick):
            show(task)


if __name__ == "__main__":
    main()
