"""Weight decay collapses modes one by one, each at its own critical decay.

Theory (2.1, 5): under InfoNCE mode j is learned if and only if the decay g is below 2 a_j/tau, with
a_j the eigenvalues of A, the covariance that the two views share.
"""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
from matplotlib.figure import Figure

import pyssl

LOSS = pyssl.InfoNCE(temperature=0.5)
SIGNAL = np.array([0.8, 0.6, 0.4, 0.2])  # eigenvalues of A; the views have variance 1
FACTORS = (0.6, 0.95, 1.05)  # training is tried at these multiples of every critical decay


@cache
def training() -> tuple[pyssl.Moments, dict[float, np.ndarray]]:
    """Return the moments of views, and the weights that training reaches at each decay."""
    rng = np.random.default_rng(0)
    clean = rng.standard_normal((500, 4)) * np.sqrt(SIGNAL)
    x, x_plus = clean + np.sqrt(1.0 - SIGNAL) * rng.standard_normal((2, *clean.shape))
    moments, found = pyssl.Moments.from_views(x, x_plus), {}
    critical = pyssl.classify(LOSS.population(moments, 4)).critical_weight_decay
    for g in sorted(np.outer(FACTORS, critical).ravel()):
        batch = LOSS.empirical(x, x_plus, 4, g)
        found[g] = pyssl.minimize(batch, 1e-3 * rng.standard_normal(batch.shape)).weights
    return moments, found


def in_theory(decays: list[float]) -> np.ndarray:
    """Return the amplitudes of the modes, a row for each decay."""
    moments = training()[0]
    return np.array([LOSS.population(moments, 4, g).minimum().amplitudes for g in decays])


def in_training() -> np.ndarray:
    """Return the variance of the trained embeddings along their axes, a row for each decay."""
    moments, found = training()
    return np.array(
        [np.linalg.eigvalsh(W @ moments.covariance @ W.T)[::-1] for W in found.values()]
    )


def claim() -> dict[str, float]:
    theory, trained = in_theory(list(training()[1])), in_training()
    ranks = [np.count_nonzero(n > 1e-6, axis=1) for n in (theory, trained)]
    return {
        "decays tried": len(theory),
        "rank in theory, smallest decay": ranks[0][0],
        "rank in theory, largest decay": ranks[0][-1],
        "decays at which the trained rank differs": np.count_nonzero(ranks[0] != ranks[1]),
        "largest difference over largest amplitude": abs(trained - theory).max() / theory.max(),
    }


def figure() -> Figure:
    moments, found = training()
    critical = pyssl.classify(LOSS.population(moments, 4)).critical_weight_decay
    decays = np.linspace(0.0, 1.1 * critical[0], 300)
    fig = Figure(figsize=(7, 4.5), layout="constrained")
    ax = fig.subplots()
    for j, theory in enumerate(in_theory(list(decays)).T):
        line = ax.plot(decays, theory, label=f"mode {j + 1}, theory")[0]
        ax.plot(list(found), in_training()[:, j], "o", ms=4, color=line.get_color())
        ax.axvline(critical[j], color=line.get_color(), linewidth=1.0, linestyle=":")
    ax.set(xlabel="weight decay (dotted: critical)", ylabel="amplitude (points: trained)")
    ax.legend(frameon=False)
    return fig


if __name__ == "__main__":
    for name, number in claim().items():
        print(f"{name}: {number:.4g}")
    figure().savefig(sys.argv[1] if len(sys.argv) > 1 else "weight_decay.svg")
