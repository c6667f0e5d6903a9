"""What a real augmentation leaves to each loss: random crops of handwritten digits.

Theory (5, 6): what crops do to the moments of the digits is known exactly, at any strength. InfoNCE
and the spectral contrastive loss keep the directions whose variance survives the average crop; from
strength 1 on that average stays as it is, and so does what they keep. Squared VICReg with an
invariance of 2 weighs it against C, which grows on.
"""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import pyssl

LOSSES = {
    "InfoNCE": pyssl.InfoNCE(),
    "spectral contrastive": pyssl.SpectralContrastive(),
    "squared VICReg": pyssl.SquaredVICReg(invariance=2.0),
}
CROP = pyssl.augment.Crop((8, 8), [(5, 5), (6, 6), (7, 7)], size=(8, 8))
DECAY, ROWS = 0.3, 16
STRENGTHS = (0.1, 0.3, 0.6, 1.0, 1.6)
SHOWN = (0.1, 1.6)  # strengths of which the picture has directions


@cache
def digits() -> np.ndarray:
    """Return the images that scikit-learn ships (n, 64), pixels in [0, 1], less their mean."""
    x = load_digits().data / 16.0
    return x - x.mean(axis=0)


@cache
def in_theory(name: str, strength: float) -> np.ndarray:
    """Return the weights (k, 64) at the minimum in the exact moments of all digits."""
    moments = pyssl.Moments.from_data(digits(), CROP.with_strength(strength))
    return LOSSES[name].population(moments, ROWS, DECAY).minimum().weights


@cache
def in_training(name: str, strength: float) -> np.ndarray:
    """Return the weights (k, 64) that one drawn pair of crops of every third digit leads to."""
    rng = np.random.default_rng(0)
    crop = CROP.with_strength(strength)
    x, x_plus = (crop.sample(digits()[::3], rng) for _ in range(2))
    batch = LOSSES[name].empirical(x, x_plus, ROWS, DECAY)
    return pyssl.minimize(batch, 1e-2 * rng.standard_normal(batch.shape)).weights


def directions(weights: np.ndarray) -> np.ndarray:
    """Return what the rows of W (k, d) span, the most weighted first: orthonormal rows."""
    _, size, rows = np.linalg.svd(weights, full_matrices=False)
    rows = rows[size > 1e-3 * max(size[0], 1e-12)]
    return rows * np.where(rows.sum(axis=1) < 0.0, -1.0, 1.0)[:, None]


def claim() -> dict[str, float]:
    numbers = {}
    for name in LOSSES:
        for s in STRENGTHS:
            kept, trained = (directions(of(name, s)) for of in (in_theory, in_training))
            numbers[f"{name}, kept in theory at strength {s}"] = len(kept)
            numbers[f"{name}, kept trained at strength {s}"] = len(trained)
            # squared cosines of the angles between the two spaces, of as many as both have
            cosines = np.linalg.svd(kept @ trained.T, compute_uv=False)
            numbers[f"{name}, overlap of the two at strength {s}"] = np.mean(cosines**2)
    return numbers


def figure() -> Figure:
    fig = Figure(figsize=(11, 5), layout="constrained")
    left, right = fig.subfigures(1, 2, width_ratios=[1.0, 1.1])
    ax = left.subplots()
    strengths = np.linspace(0.0, 2.0, 81)
    for name in LOSSES:
        kept = [len(directions(in_theory(name, s))) for s in strengths]
        line = ax.plot(strengths, kept, label=name, drawstyle="steps-mid")[0]
        trained = [len(directions(in_training(name, s))) for s in STRENGTHS]
        ax.plot(STRENGTHS, trained, "o", ms=5, color=line.get_color())
    ax.set(xlabel="strength of the crops", ylabel="directions kept (points: trained)")
    ax.set(ylim=(0, ROWS), xlim=(0.0, 2.0))
    ax.legend(frameon=False)

    columns = 6
    right.suptitle(f"the first {columns} directions kept (signs are arbitrary)", fontsize="medium")
    grid = right.subplots(len(LOSSES) * len(SHOWN), columns)
    places = ((name, s) for name in LOSSES for s in SHOWN)
    for axes, (name, s) in zip(grid, places, strict=True):
        for cell in axes:
            cell.set_axis_off()
        for cell, direction in zip(axes, directions(in_theory(name, s)), strict=False):
            most = abs(direction).max()
            cell.imshow(direction.reshape(8, 8), cmap="RdBu_r", vmin=-most, vmax=most)
        axes[0].text(
            -0.15, 0.5, f"{name}\nat {s:g}", transform=axes[0].transAxes, ha="right", va="center"
        )
    return fig


if __name__ == "__main__":
    for name, number in claim().items():
        print(f"{name}: {number:.4g}")
    figure().savefig(sys.argv[1] if len(sys.argv) > 1 else "digits_augmentation.svg")
