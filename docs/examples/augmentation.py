"""What augmentation does depends on the loss: it weakens what InfoNCE learns, and can remove modes.

Theory (3.1, 3.5, 5): multiply the augmentation covariance C by s. Under InfoNCE, C shrinks the
amplitude of a mode and never decides whether it is learned. A loss that pulls views together
harder, squared VICReg with an invariance above 1, loses mode j from the strength
s = a_j/(c_j (invariance - 1)) on.
"""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
from matplotlib.figure import Figure

import pyssl

LOSSES = {"InfoNCE": pyssl.InfoNCE(), "squared VICReg": pyssl.SquaredVICReg(invariance=2.0)}
SIGNAL = np.array([0.9, 0.6, 0.3])  # eigenvalues of A; those of C are 0.3 s
STRENGTHS = (0.3, 0.8, 1.8, 2.4, 3.2)


def moments(strength: float) -> pyssl.Moments:
    clean = pyssl.Moments(np.diag(SIGNAL + 0.3), np.diag(SIGNAL))
    return clean.with_augmentation_strength(strength)


def in_theory(loss: pyssl.Loss, strengths: np.ndarray) -> np.ndarray:
    """Return the amplitudes of the modes, a row for each strength."""
    return np.array([loss.population(moments(s), 3).minimum().amplitudes for s in strengths])


@cache
def in_training(loss: pyssl.Loss) -> np.ndarray:
    """Return the variance of the trained embeddings along their axes, a row for each strength."""
    rng = np.random.default_rng(0)
    clean = rng.standard_normal((2000, 3)) * np.sqrt(SIGNAL)
    noise = np.sqrt(0.3) * rng.standard_normal((2, *clean.shape))
    rows = []
    for s in STRENGTHS:
        x, x_plus = clean + np.sqrt(s) * noise
        batch = loss.empirical(x, x_plus, embedding_dim=3)
        W = pyssl.minimize(batch, 1e-3 * rng.standard_normal(batch.shape)).weights
        rows.append(np.linalg.eigvalsh(W @ batch.moments.covariance @ W.T)[::-1])
    return np.array(rows)


def claim() -> dict[str, float]:
    numbers = {}
    for name, loss in LOSSES.items():
        theory, trained = in_theory(loss, np.array(STRENGTHS)), in_training(loss)
        for which, rows in (("in theory", theory), ("trained", trained)):
            for row, s in zip(rows, STRENGTHS, strict=True):
                numbers[f"{name}, rank {which} at strength {s}"] = np.sum(row > 1e-6)
        error = abs(trained - theory).max() / theory.max()
        numbers[f"{name}, largest difference over largest amplitude"] = error
    return numbers


def figure() -> Figure:
    fig = Figure(figsize=(10, 4.2), layout="constrained")
    strengths = np.linspace(0.25, 3.4, 120)
    for ax, (name, loss) in zip(fig.subplots(1, 2), LOSSES.items(), strict=True):
        for j, theory in enumerate(in_theory(loss, strengths).T):
            line = ax.plot(strengths, theory, label=f"mode {j + 1}, theory")[0]
            ax.plot(
                STRENGTHS, in_training(loss)[:, j], "o", ms=4, color=line.get_color(), clip_on=False
            )
            if name != "InfoNCE":
                ax.axvline(SIGNAL[j] / 0.3, color=line.get_color(), linewidth=1.0, linestyle=":")
        ax.set_title(name)
        ax.set(xlabel="augmentation strength", ylabel="amplitude (points: trained)", ylim=(0, None))
        ax.legend(frameon=False)
    return fig


if __name__ == "__main__":
    for name, number in claim().items():
        print(f"{name}: {number:.4g}")
    figure().savefig(sys.argv[1] if len(sys.argv) > 1 else "augmentation.svg")
