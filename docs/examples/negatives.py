"""The number of negatives decides how much decay the embedding survives, and what it learns.

Theory (3.1): with K negatives everything collapses if and only if the largest eigenvalue of A is at
most g tau (K + 1)/(2K), so that one negative survives half the decay that infinitely many do.
"""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import minimize

import pyssl

SIGNAL = np.array([0.9, 0.8, 0.7])  # eigenvalues of A; the views have variance 1
DECAY, COUNTS, PAIRS = 1.1, (1, 3, 7, 31, 127), 2048


@cache
def views() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clean = rng.standard_normal((PAIRS, 3)) * np.sqrt(SIGNAL)
    x, x_plus = clean + np.sqrt(1.0 - SIGNAL) * rng.standard_normal((2, *clean.shape))
    return x, x_plus


def spectrum(W: np.ndarray) -> np.ndarray:
    """Return the variance of the embeddings along their axes, which are at most three."""
    covariance = pyssl.Moments.from_views(*views()).covariance
    return np.linalg.eigvalsh(W @ covariance @ W.T)[::-1]


@cache
def in_theory(negatives: float) -> np.ndarray:
    loss = pyssl.InfoNCE(similarity="dot", negatives=negatives)
    moments = pyssl.Moments.from_views(*views()).centered()
    return spectrum(pyssl.minimize(loss.effective(moments, 3, weight_decay=DECAY)).weights)


@cache
def in_training(negatives: int) -> np.ndarray:
    """Train on batches of K + 1 pairs, which have K negatives each, all batches at once."""
    size = negatives + 1
    batches = [
        pyssl.InfoNCE(similarity="dot").empirical(x, x_plus, 3, weight_decay=DECAY)
        for x, x_plus in zip(*(np.split(view, PAIRS // size) for view in views()), strict=True)
    ]

    def mean(w: np.ndarray) -> tuple[float, np.ndarray]:
        parts = [batch.value_and_gradient(w.reshape(3, 3)) for batch in batches]
        return np.mean([p[0] for p in parts]), np.mean([p[1] for p in parts], axis=0).ravel()

    start = 0.1 * np.random.default_rng(1).standard_normal(9)
    return spectrum(minimize(mean, start, jac=True, method="BFGS").x.reshape(3, 3))


def claim() -> dict[str, float]:
    numbers = {}
    for count in COUNTS:
        numbers[f"rank in theory, K = {count}"] = np.sum(in_theory(count) > 1e-3)
        numbers[f"rank trained, K = {count}"] = np.sum(in_training(count) > 1e-3)
    errors = [abs(in_training(count) - in_theory(count)).max() for count in COUNTS]
    return numbers | {
        "largest difference over largest amplitude": max(errors) / in_theory(COUNTS[-1]).max()
    }


def figure() -> Figure:
    fig = Figure(figsize=(7, 4.5), layout="constrained")
    ax = fig.subplots()
    counts = np.unique(np.geomspace(1, 256, 40).round().astype(int))
    theory = np.array([in_theory(int(count)) for count in counts])
    trained = np.array([in_training(count) for count in COUNTS])
    for j in range(3):
        line = ax.plot(counts, theory[:, j], label=f"mode {j + 1}, theory")[0]
        ax.plot(COUNTS, trained[:, j], "o", ms=4, color=line.get_color())
        ax.axhline(in_theory(np.inf)[j], color=line.get_color(), linewidth=1.0, linestyle=":")
    ax.set(xscale="log", xlabel="negatives K (dotted: infinitely many)")
    ax.set_ylabel("amplitude (points: trained)")
    ax.legend(frameon=False)
    return fig


if __name__ == "__main__":
    for name, number in claim().items():
        print(f"{name}: {number:.4g}")
    figure().savefig(sys.argv[1] if len(sys.argv) > 1 else "negatives.svg")
