"""Normalising the embeddings removes complete collapse, whatever the weight decay.

Theory (3.2): NT-Xent does not depend on the scale of W. A decay g shrinks it, under gradient flow
|W|^2 = exp(-2 g t) |W(0)|^2, and cannot change what its directions are; under InfoNCE the same
decay takes everything.
"""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
from matplotlib.figure import Figure

import pyssl

DECAY, TIMES = 4.0, np.linspace(0.0, 1.2, 61)  # InfoNCE's critical decay is 1.8
SIGNAL = np.array([0.9, 0.8, 0.7, 0.6])  # eigenvalues of A; the views have variance 1
LOSSES = {"InfoNCE": pyssl.InfoNCE(), "NT-Xent": pyssl.NTXent(temperature=1.0)}


@cache
def views() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clean = rng.standard_normal((1000, 4)) * np.sqrt(SIGNAL)
    x, x_plus = clean + np.sqrt(1.0 - SIGNAL) * rng.standard_normal((2, *clean.shape))
    return x, x_plus


@cache
def spectra(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return |W|^2 and the spectrum of the embeddings in training, a row for each time."""
    batch = LOSSES[name].empirical(*views(), embedding_dim=4, weight_decay=DECAY)
    start = np.random.default_rng(1).standard_normal(batch.shape)
    weights = pyssl.gradient_flow(batch, start, TIMES, rtol=1e-5).weights
    covariance = weights @ batch.moments.covariance @ weights.transpose(0, 2, 1)
    return np.sum(weights**2, axis=(1, 2)), np.linalg.eigvalsh(covariance)[:, ::-1]


def shares_in_theory() -> np.ndarray:
    moments = pyssl.Moments.from_views(*views()).centered()
    return LOSSES["NT-Xent"].effective(moments, 4, angular="exact").minimum().amplitudes


def claim() -> dict[str, float]:
    (_, infonce), (size, ntxent) = spectra("InfoNCE"), spectra("NT-Xent")
    trained = ntxent[-1] / ntxent[-1].sum()
    decayed = np.exp(-2.0 * DECAY * TIMES[-1])
    return {
        "InfoNCE, variance at the end over that at the start": infonce[-1, 0] / infonce[0, 0],
        "NT-Xent, |W|^2 at the end over exp(-2 g t) |W(0)|^2": size[-1] / size[0] / decayed,
        "NT-Xent, effective rank at the end": pyssl.effective_rank(trained),
        "NT-Xent, effective rank in theory": pyssl.effective_rank(shares_in_theory()),
        "NT-Xent, largest difference of a share": abs(trained - shares_in_theory()).max(),
    }


def figure() -> Figure:
    fig = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = fig.subplots(1, 2)
    (_, infonce), (_, ntxent) = spectra("InfoNCE"), spectra("NT-Xent")
    shares = ntxent / ntxent.sum(axis=1, keepdims=True)
    for j in range(4):
        left.plot(TIMES, infonce[:, j], label=f"mode {j + 1}, trained")
        line = right.plot(TIMES, shares[:, j], label=f"mode {j + 1}, trained")[0]
        right.axhline(shares_in_theory()[j], color=line.get_color(), linewidth=1.0, linestyle=":")
    left.set(ylabel="variance of the embeddings", yscale="log", title="InfoNCE")
    right.set(ylabel="share of the variance (dotted: theory)", ylim=(0, 0.7), title="NT-Xent")
    for ax in (left, right):
        ax.set_xlabel(f"time, under a weight decay of {DECAY:g}")
        ax.legend(frameon=False, ncols=2)
    return fig


if __name__ == "__main__":
    for name, number in claim().items():
        print(f"{name}: {number:.4g}")
    figure().savefig(sys.argv[1] if len(sys.argv) > 1 else "normalisation.svg")
