"""The losses on embeddings as an expert writes them in PyTorch and JAX, for benchmarks/peers.py.

Where a loss allows it they go through Gram matrices, so that nothing of size n x n is made.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

import pyssl

Call = Callable[[], Any]
Pair = tuple[np.ndarray, np.ndarray]

_TAU = 0.5
_REDUNDANCY = 5e-3


@dataclass(frozen=True)
class Case:
    """A loss, its value in PyTorch and in JAX, and how much faster than the fastest it must be."""

    title: str
    loss: pyssl.Loss
    by_torch: Callable[..., Any]  # (torch, z, z_plus)
    by_jax: Callable[..., Any]  # (jax, z, z_plus)
    at_least: float
    size: tuple[int, int]  # (n, k)
    quick_size: tuple[int, int]
    value_tolerance: float = 1e-5


def embeddings(n: int, k: int) -> Pair:
    """Return two views in float32, with columns on both sides of VICReg's hinge."""
    rng = np.random.default_rng(0)
    scale = np.linspace(0.4, 1.2, k, dtype=np.float32)
    clean, *noise = (rng.standard_normal((n, k), dtype=np.float32) for _ in range(3))
    first, second = ((clean + 0.5 * item) * scale for item in noise)
    return first, second


# ---- the losses ----------------------------------------------------------------------------------


def ntxent_torch(torch: ModuleType, z: Any, z_plus: Any) -> Any:
    n = len(z)
    x = torch.nn.functional.normalize(torch.cat([z, z_plus]), dim=1, eps=1e-12)
    logits = (x / _TAU) @ x.T
    logits = logits.masked_fill(torch.eye(2 * n, dtype=torch.bool), -torch.inf)
    return torch.nn.functional.cross_entropy(logits, torch.arange(2 * n).roll(n))


def ntxent_jax(jax: ModuleType, z: Any, z_plus: Any) -> Any:
    n = len(z)
    x = _unit_jax(jax, jax.numpy.concatenate([z, z_plus]))
    logits = (x / _TAU) @ x.T
    logits = jax.numpy.where(jax.numpy.eye(2 * n, dtype=bool), -jax.numpy.inf, logits)
    positives = 2.0 * (x[:n] * x[n:]).sum() / _TAU
    return (jax.nn.logsumexp(logits, axis=1).sum() - positives) / (2 * n)


def infonce_torch(torch: ModuleType, z: Any, z_plus: Any) -> Any:
    x, y = (torch.nn.functional.normalize(side, dim=1, eps=1e-12) for side in (z, z_plus))
    return torch.nn.functional.cross_entropy((x / _TAU) @ y.T, torch.arange(len(z)))


def infonce_jax(jax: ModuleType, z: Any, z_plus: Any) -> Any:
    x, y = _unit_jax(jax, z), _unit_jax(jax, z_plus)
    return (jax.nn.logsumexp((x / _TAU) @ y.T, axis=1) - (x * y).sum(1) / _TAU).mean()


def _unit_jax(jax: ModuleType, z: Any) -> Any:
    return z / jax.numpy.maximum(jax.numpy.linalg.norm(z, axis=1, keepdims=True), 1e-12)


def spectral(_: ModuleType, z: Any, z_plus: Any) -> Any:
    """Return the loss in either library: sum (z_i.z'_j)^2 = tr(Z'Z Z+'Z+)."""
    n = len(z)
    positives = (z * z_plus).sum(1)
    squares = ((z.T @ z) * (z_plus.T @ z_plus)).sum() - (positives**2).sum()
    return -2.0 / n * positives.sum() + squares / (n * (n - 1))


def barlow_torch(torch: ModuleType, z: Any, z_plus: Any) -> Any:
    x, y = (
        torch.nn.functional.batch_norm(side, None, None, training=True, eps=1e-5)
        for side in (z, z_plus)
    )
    c = x.T @ y / len(z)
    return _barlow(c, c.diagonal())


def barlow_jax(jax: ModuleType, z: Any, z_plus: Any) -> Any:
    x, y = ((side - side.mean(0)) * jax.lax.rsqrt(side.var(0) + 1e-5) for side in (z, z_plus))
    c = x.T @ y / len(z)
    return _barlow(c, jax.numpy.diagonal(c))


def _barlow(c: Any, diagonal: Any) -> Any:
    rest = (c**2).sum() - (diagonal**2).sum()
    return ((diagonal - 1.0) ** 2).sum() + _REDUNDANCY * rest


def vicreg_torch(torch: ModuleType, z: Any, z_plus: Any) -> Any:
    n, k = z.shape
    total = 25.0 * torch.nn.functional.mse_loss(z, z_plus)
    for side in (z, z_plus):
        x = side - side.mean(0)
        covariance = x.T @ x / (n - 1)
        variance = covariance.diagonal()
        total = total + 12.5 * torch.relu(1.0 - (variance + 1e-4).sqrt()).mean()
        total = total + ((covariance**2).sum() - (variance**2).sum()) / k
    return total


def vicreg_jax(jax: ModuleType, z: Any, z_plus: Any) -> Any:
    n, k = z.shape
    total = 25.0 * ((z - z_plus) ** 2).mean()
    for side in (z, z_plus):
        x = side - side.mean(0)
        covariance = x.T @ x / (n - 1)
        variance = jax.numpy.diagonal(covariance)
        total += 12.5 * jax.nn.relu(1.0 - jax.numpy.sqrt(variance + 1e-4)).mean()
        total += ((covariance**2).sum() - (variance**2).sum()) / k
    return total


CASES = (
    Case(
        "NT-Xent",
        pyssl.NTXent(temperature=_TAU),
        ntxent_torch,
        ntxent_jax,
        at_least=3.0,
        size=(4096, 128),
        quick_size=(200, 32),
    ),
    Case(
        "InfoNCE, cosine",
        pyssl.InfoNCE(temperature=_TAU, similarity="dot", normalize=True),
        infonce_torch,
        infonce_jax,
        at_least=2.0,
        size=(8192, 128),
        quick_size=(200, 32),
    ),
    *(
        Case(
            title,
            loss,
            *peers,
            at_least=2.0,
            size=(65_536, 512),
            quick_size=(1000, 32),
            value_tolerance=tolerance,
        )
        for title, loss, peers, tolerance in (
            ("spectral contrastive", pyssl.SpectralContrastive(), (spectral, spectral), 1e-5),
            # PyTorch's batch_norm, its fastest way, is off by 7e-5 from float64
            ("Barlow Twins", pyssl.BarlowTwins(_REDUNDANCY), (barlow_torch, barlow_jax), 1e-4),
            ("VICReg", pyssl.VICReg(), (vicreg_torch, vicreg_jax), 1e-5),
        )
    ),
)


# ---- value and gradient --------------------------------------------------------------------------


def by_pyssl(case: Case, pair: Pair) -> Call:
    """Return a call for (value, gradient by z, gradient by z_plus)."""

    def run() -> Any:
        value, gradients = case.loss.value_and_gradient(*pair)
        return value, *gradients

    return run


def by_torch(torch: ModuleType, case: Case, pair: Pair, compiled: bool) -> Call:
    """Return the same by PyTorch's autograd, compiled in the first call if wanted."""
    tensors = [torch.from_numpy(side).requires_grad_() for side in pair]

    def function(z: Any, z_plus: Any) -> Any:
        return case.by_torch(torch, z, z_plus)

    if compiled:
        function = torch.compile(function, dynamic=False)

    def run() -> Any:
        value = function(*tensors)
        return value.detach(), *torch.autograd.grad(value, tensors)

    return run


def by_jax(jax: ModuleType, case: Case, pair: Pair) -> Call:
    """Return the same by JAX, compiled in the first call."""
    arrays = [jax.numpy.asarray(side) for side in pair]
    both = jax.jit(
        jax.value_and_grad(lambda z, z_plus: case.by_jax(jax, z, z_plus), argnums=(0, 1))
    )

    def run() -> Any:
        value, gradients = jax.block_until_ready(both(*arrays))
        return value, *gradients

    return run


# ---- memory --------------------------------------------------------------------------------------

_PEAK = """
import sys
from pathlib import Path
import numpy as np, pyssl

def size(key):  # in bytes
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])

pyssl.set_num_threads(int(sys.argv[3]))
n, k = int(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(0)
z, z_plus = (rng.standard_normal((n, k), dtype=np.float32) for _ in range(2))
loss = pyssl.NTXent(temperature=0.5)
loss.value_and_gradient(z[:64], z_plus[:64])  # loads what a first call loads
Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
before = size("VmRSS")
_, gradients = loss.value_and_gradient(z, z_plus)
print(size("VmHWM") - before - sum(item.nbytes for item in gradients))
"""


def peak_memory(n: int, k: int) -> int | None:
    """Return the bytes that NT-Xent's value and gradient need beside inputs and outputs.

    None where the system doesn't tell, that is anywhere but on Linux.
    """
    if not os.access("/proc/self/clear_refs", os.W_OK):
        return None
    arguments = [str(item) for item in (n, k, pyssl.get_num_threads())]
    run = subprocess.run(
        [sys.executable, "-c", _PEAK, *arguments], check=True, capture_output=True, text=True
    )
    return int(run.stdout)
