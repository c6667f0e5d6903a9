"""From a small start the modes are learned one after another, the fastest first.

Theory (2.7): under gradient flow mode j grows by exp(4 b_j t) until it reaches half of its final
amplitude at the time log(n_inf/n_0 - 1)/(4 b_j), with b_j the eigenvalues of B.
"""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
from matplotlib.figure import Figure

import pyssl

LOSS = pyssl.SpectralContrastive()
SIGNAL = np.array([0.9, 0.6, 0.4, 0.25])  # eigenvalues of A; the views have variance 1
TIMES = np.linspace(0.0, 16.0, 161)


@cache
def flows() -> tuple[pyssl.Flow, pyssl.Flow, np.ndarray]:
    """Return the flow in theory, in training on views, and the amplitudes of the latter."""
    rng = np.random.default_rng(0)
    clean = rng.standard_normal((10_000, 4)) * np.sqrt(SIGNAL)
    x, x_plus = clean + np.sqrt(1.0 - SIGNAL) * rng.standard_normal((2, *clean.shape))
    theory = LOSS.population(pyssl.Moments(np.eye(4), np.diag(SIGNAL)), embedding_dim=4)
    start = 1e-3 * np.linalg.qr(rng.standard_normal((4, 4)))[0]
    trained = pyssl.gradient_flow(LOSS.empirical(x, x_plus, 4), start, TIMES, rtol=1e-6)
    return pyssl.gradient_flow(theory, start, TIMES), trained, np.sum(trained.weights**2, axis=1)


def learning_times() -> np.ndarray:
    """Return when the trained modes pass half of what the minimum learns of them."""
    half = 0.5 * flows()[0].amplitudes[-1]
    passed = flows()[2] > half
    return TIMES[passed.argmax(axis=0)]


def claim() -> dict[str, float]:
    theory, trained = flows()[0], learning_times()
    numbers = {f"mode {j + 1} learned in training at": t for j, t in enumerate(trained)}
    for j, t in enumerate(theory.predicted_learning_times):
        numbers[f"mode {j + 1} predicted at"] = t
    return numbers


def figure() -> Figure:
    theory, _, amplitudes = flows()
    fig = Figure(figsize=(7, 4.5), layout="constrained")
    ax = pyssl.plots.flow(theory, fig.subplots())
    lines = [line for line in ax.get_lines() if line.get_label().startswith("mode")]
    for line, trained in zip(lines, amplitudes.T, strict=True):
        ax.plot(TIMES[::4], trained[::4], "o", ms=3, color=line.get_color())
    ax.set_ylabel("amplitude (points: trained)")
    return fig


if __name__ == "__main__":
    for name, number in claim().items():
        print(f"{name}: {number:.4g}")
    figure().savefig(sys.argv[1] if len(sys.argv) > 1 else "stepwise_learning.svg")
