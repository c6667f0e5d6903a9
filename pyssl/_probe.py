"""Ridge regression on sampled features: what `downstream_risk` predicts, tried.

Tests, the benchmark and the documentation share it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Probe", "random_probe", "simulated_risk"]

Array = npt.NDArray[np.float64]

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Probe:
    """An embedding, the data that it embeds, and a target.

    Attributes
    ----------
    name : what it stands for.
    weights : (k, d).
    covariance : (d, d).
    target : (d,), of variance 1 on the data.
    """

    name: str
    weights: Array
    covariance: Array
    target: Array


def random_probe(d: int, spectrum: str, target: str, weights: str, seed: int) -> Probe:
    """Draw a probe.

    Parameters
    ----------
    d : int
    spectrum : {"flat", "geometric", "power"}
        Of the covariance, in a random basis.
    target : {"strong", "weak", "spread"}
        Whether it lies in the first quarter of the principal components, the last, or in all.
    weights : {"full", "low rank", "narrow", "collapsing"}
        Square; square, of a rank of a third; with half as many rows as columns; square with
        singular values that fall over five decades.
    seed : int

    Examples
    --------
    >>> from pyssl._probe import random_probe
    >>> random_probe(6, "flat", "weak", "narrow", seed=0).weights.shape
    (3, 6)
    """
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    variances = {
        "flat": np.ones(d),
        "geometric": np.geomspace(1.0, 1e-3, d),
        "power": 1.0 / np.arange(1, d + 1),
    }[spectrum]
    quarter = max(1, d // 4)
    part = {"strong": slice(quarter), "weak": slice(d - quarter, d), "spread": slice(d)}[target]
    share = np.zeros(d)
    share[part] = rng.standard_normal(len(share[part]))
    beta = basis @ (share / np.sqrt(variances)) / np.linalg.norm(share)
    W = rng.standard_normal((d, d)) / np.sqrt(d)
    if weights == "low rank":
        W = W[:, : d // 3] @ rng.standard_normal((d // 3, d)) / np.sqrt(d // 3)
    elif weights == "narrow":
        W = W[: d // 2]
    elif weights == "collapsing":
        left, _, right = np.linalg.svd(W)
        W = left * np.geomspace(1.0, 1e-5, d) @ right
    name = f"d={d}, {spectrum} spectrum, {target} target, {weights} weights"
    return Probe(name, W, (basis * variances) @ basis.T, beta)


def simulated_risk(
    probe: Probe, n: int, noise: float, ridge: float, runs: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Fit ridge regression on Gaussian samples, many times.

    Parameters
    ----------
    probe : Probe
    n : int
        Samples of a training set.
    noise, ridge : float
    runs : int
        Training sets.
    rng : numpy.random.Generator

    Returns
    -------
    float
        The mean over training sets of the exact test error, label noise included.
    float
        Its standard error.

    Examples
    --------
    >>> import numpy as np
    >>> from pyssl._probe import random_probe, simulated_risk
    >>> probe = random_probe(20, "power", "spread", "full", seed=0)
    >>> mean, error = simulated_risk(probe, 80, 0.5, 0.1, 20, np.random.default_rng(0))
    >>> 0.5 < mean < 1.0 and error < 0.05
    True
    """
    W, sigma, beta = probe.weights, probe.covariance, probe.target
    variances, basis = np.linalg.eigh(sigma)
    root = basis * np.sqrt(np.maximum(variances, 0.0))
    found = np.empty(runs)
    for run in range(runs):
        x = rng.standard_normal((n, len(sigma))) @ root.T
        y = x @ beta + np.sqrt(noise) * rng.standard_normal(n)
        left, size, right = np.linalg.svd(x @ W.T, full_matrices=False)
        keep = size > max(n, len(W)) * _EPS * size.max(initial=0.0)
        shrunk = np.divide(size, size**2 + ridge, out=np.zeros_like(size), where=keep)
        missed = beta - W.T @ (right.T @ (shrunk * (left.T @ y)))
        found[run] = missed @ sigma @ missed + noise
    return float(found.mean()), float(found.std(ddof=1) / np.sqrt(runs))
