"""Descents to a minimum with torch.optim.LBFGS, as peers of `pyssl.minimize` for peers.py.

Both start at the same small random W. The landscapes are written by hand for PyTorch, gradients
included: without autograd they take half the time. In float64 a line search by values stops at a
gradient of about 1e-6, where rounding hides how the value falls; L-BFGS then goes on with unit
steps. Histories of 10 to 100 were tried; 50 was the fastest of those that reach 1e-8.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

import pyssl

Evaluate = Callable[[Any], tuple[Any, Any]]

_HISTORY = 50
GRADIENT_NORM = 1e-8
KKT_RESIDUAL = 1e-6


def moments(d: int) -> pyssl.Moments:
    """Return moments with a dense covariance and evenly spaced alignments."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((d, d)) / np.sqrt(d)
    factor = np.linalg.cholesky(np.eye(d) + noise @ noise.T)
    factor = factor @ np.linalg.qr(rng.standard_normal((d, d)))[0]
    rho = np.linspace(0.98, 0.02, d)
    parts = [(factor * weights) @ factor.T for weights in (np.ones(d), rho, 1.0 - rho)]
    covariance, cross, augmentation = (0.5 * (part + part.T) for part in parts)
    return pyssl.Moments(covariance, cross, augmentation_covariance=augmentation)


def start(d: int, k: int) -> np.ndarray:
    """Return a small random W (k, d)."""
    return 0.1 * np.random.default_rng(1).standard_normal((k, d)) / np.sqrt(d)


def infonce_torch(torch: ModuleType, m: pyssl.Moments, k: int) -> Evaluate:
    """Return InfoNCE's population landscape at temperature 1, by a Cholesky factor of I + P."""
    d = m.dim
    pencil = torch.from_numpy(np.hstack([m.cross_covariance, m.covariance]))
    identity = torch.eye(k, dtype=torch.float64)

    def evaluate(W: Any) -> tuple[Any, Any]:
        products = W @ pencil
        signal, scaled = products[:, :d], products[:, d:]
        gram = scaled @ W.T
        factor = torch.linalg.cholesky(identity + gram)
        resolvent = torch.cholesky_inverse(factor)
        value = gram.trace() - factor.diagonal().log().sum() + 0.5 * (resolvent.trace() - k)
        slope = identity - 0.5 * resolvent - 0.5 * resolvent @ resolvent
        return value - (signal * W).sum(), torch.addmm(signal, slope, scaled, beta=-2.0, alpha=2.0)

    return evaluate


def vicreg_torch(torch: ModuleType, m: pyssl.Moments, k: int) -> Evaluate:
    """Return VICReg's population landscape with the default weights 25, 25, 1."""
    d = m.dim
    pencil = torch.from_numpy(np.hstack([m.augmentation_covariance, m.covariance]))

    def evaluate(W: Any) -> tuple[Any, Any]:
        products = W @ pencil
        apart, scaled = products[:, :d], products[:, d:]
        gram = scaled @ W.T
        deviation = (gram.diagonal() + 1e-4).sqrt()
        active = deviation < 1.0
        off = gram - gram.diagonal().diag()
        value = 50.0 * (apart * W).sum() + 25.0 * (active * (1.0 - deviation)).sum()
        value = value + 2.0 * off.square().sum()
        mixing = 8.0 * off - (25.0 * active / deviation).diag()
        return value / k, (100.0 * apart + mixing @ scaled) / k

    return evaluate


class _ReachedError(Exception):
    pass


def lbfgs(
    torch: ModuleType, evaluate: Evaluate, W0: np.ndarray, target: float, seconds: float
) -> tuple[np.ndarray, float, float]:
    """Descend by torch.optim.LBFGS; return W, the least gradient norm, and the time to it."""
    W = torch.from_numpy(W0.copy()).requires_grad_()
    begun = time.perf_counter()
    least, when = np.inf, 0.0

    def closure() -> Any:
        nonlocal least, when
        with torch.no_grad():
            value, W.grad = evaluate(W)
            size = float(W.grad.norm())
        spent = time.perf_counter() - begun
        if size < least:
            least, when = size, spent
        if size <= target or spent > seconds:
            raise _ReachedError
        return value

    try:
        for search in ("strong_wolfe", None):
            optimizer = torch.optim.LBFGS(
                [W],
                max_iter=1_000_000,
                tolerance_grad=0.0,
                tolerance_change=0.0,
                history_size=_HISTORY,
                line_search_fn=search,
            )
            optimizer.step(closure)
    except _ReachedError:
        pass
    return W.detach().numpy(), least, when
