"""The curvature at the origin decides what collapses.

Paper and theory (2.4, 5): everything collapses if and only if no direction leads down from W = 0;
with k rows, k directions lead down for each mode that the loss would learn.
"""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
from matplotlib.figure import Figure

import pyssl

LOSS, DECAYS = pyssl.InfoNCE(), (0.4, 1.2, 2.0)
SIGNAL = np.array([0.8, 0.4])  # eigenvalues of A; the views have variance 1


@cache
def views() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clean = rng.standard_normal((1000, 2)) * np.sqrt(SIGNAL)
    x, x_plus = clean + np.sqrt(1.0 - SIGNAL) * rng.standard_normal((2, *clean.shape))
    return x, x_plus


@cache
def trained(weight_decay: float) -> np.ndarray:
    """Return where training from a small random start ends."""
    land = LOSS.empirical(*views(), embedding_dim=2, weight_decay=weight_decay)
    start = 1e-3 * np.random.default_rng(1).standard_normal(land.shape)
    return pyssl.minimize(land, start).weights


def landscape(weight_decay: float) -> pyssl.SpectralLandscape:
    return LOSS.population(pyssl.Moments.from_views(*views()), 2, weight_decay)


def claim() -> dict[str, float]:
    numbers = {}
    for g in DECAYS:
        numbers[f"directions down from the origin, decay {g}"] = landscape(g).origin().index
        numbers[f"rank in theory, decay {g}"] = pyssl.classify(landscape(g)).rank
        numbers[f"rank trained, decay {g}"] = int(np.linalg.matrix_rank(trained(g), tol=1e-3))
    return numbers


def figure() -> Figure:
    fig = Figure(figsize=(13, 4), layout="constrained")
    u = np.linspace(-1.3, 1.3, 105)
    for ax, g in zip(fig.subplots(1, 3), DECAYS, strict=True):
        land, lengths = landscape(g), np.linalg.norm(trained(g), axis=0)
        values = land.plane(np.zeros((2, 2)), np.diag([1.0, 0.0]), np.diag([0.0, 1.0]), u, u)
        pyssl.plots.plane(values, u, u, ax, points={"trained": tuple(lengths)})
        kind = str(pyssl.classify(land).kind).replace("none", "no")
        ax.set_title(f"weight decay {g}: {kind} collapse", loc="left", fontsize="medium")
        ax.set(xlabel="weight of mode 1", ylabel="weight of mode 2")
    return fig


if __name__ == "__main__":
    for name, number in claim().items():
        print(f"{name}: {number:.4g}")
    figure().savefig(sys.argv[1] if len(sys.argv) > 1 else "collapse_at_the_origin.svg")
