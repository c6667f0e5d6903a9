"""With two layers or more, weight decay takes modes at once, and training remembers.

Theory (9): with one layer an amplitude shrinks to zero at the critical decay. With more a mode
keeps a well of its own behind a barrier. At its critical decay the well is level with the origin,
and the amplitude at the minimum jumps to zero; up to a larger decay the well still holds weights
that are in it, and at any decay the origin holds small ones.
"""

from __future__ import annotations

import sys
from functools import cache, reduce

import numpy as np
from matplotlib.figure import Figure

import pyssl

LOSS, DEPTHS = pyssl.SpectralContrastive(), (1, 2, 3)
SIGNAL = np.array([0.8, 0.5])  # eigenvalues of A; the views have variance 1
FACTORS = (0.03, 0.4, 0.94, 1.06)  # training is tried at these multiples of every threshold
LARGE, SMALL = 1.0, 0.05  # singular values at the start


@cache
def views() -> tuple[np.ndarray, np.ndarray, pyssl.Moments]:
    """Return views in the coordinates of their modes, so that sample moments are diagonal."""
    rng = np.random.default_rng(0)
    clean = rng.standard_normal((500, 2)) * np.sqrt(SIGNAL)
    x, x_plus = clean + np.sqrt(1.0 - SIGNAL) * rng.standard_normal((2, *clean.shape))
    sample = pyssl.Moments.from_views(x, x_plus)
    modes = LOSS.population(sample.centered(), 2).vectors
    x, x_plus = ((view - sample.mean) @ modes for view in (x, x_plus))
    return x, x_plus, pyssl.Moments.from_views(x, x_plus)


def thresholds(depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the decays at which each mode's well is level with the origin, and disappears."""
    land = LOSS.population(views()[2], 2, depth=depth)
    if depth == 1:
        critical = pyssl.classify(land).critical_weight_decay
        return critical, critical
    return land.wells().critical_weight_decay, land.wells().existence_decay


def decays(depth: int) -> np.ndarray:
    return np.unique(np.outer(FACTORS, thresholds(depth)[1]))


@cache
def trained(depth: int, size: float) -> np.ndarray:
    """Return the variances that layers learn on the batch from weights of a size, per decay."""
    x, x_plus, moments = views()
    batch, rng, found = LOSS.empirical(x, x_plus, 2), np.random.default_rng(1), []
    for g in decays(depth):
        start = size ** (1.0 / depth) * np.eye(2)
        layers = [start * (1.0 + 0.01 * rng.standard_normal((2, 2))) for _ in range(depth)]
        for _ in range(1000):  # plain gradient descent, in steps that cross no barrier
            slope = batch.gradient(reduce(np.matmul, layers))
            slopes = []
            for number, layer in enumerate(layers):
                ahead = reduce(np.matmul, layers[:number], np.eye(2))
                behind = reduce(np.matmul, layers[number + 1 :], np.eye(2))
                slopes.append(ahead.T @ slope @ behind.T + g * layer)
            layers = [layer - 0.08 * s for layer, s in zip(layers, slopes, strict=True)]
            if max(np.abs(s).max() for s in slopes) < 1e-4:
                break
        W = reduce(np.matmul, layers)
        found.append(np.diag(W @ moments.covariance @ W.T))
    return np.array(found)


def in_theory(depth: int, g: float, *, metastable: bool = False) -> np.ndarray:
    """Return the amplitudes at the minimum, or in all wells that exist."""
    land = LOSS.population(views()[2], 2, weight_decay=g, depth=depth)
    if depth > 1 and metastable:
        return np.nan_to_num(land.wells().amplitude)
    return land.minimum().amplitudes


def claim() -> dict[str, float]:
    numbers = {}
    for depth in DEPTHS:
        critical, existence = thresholds(depth)
        layers = "1 layer" if depth == 1 else f"{depth} layers"
        numbers[f"critical decay of mode 1, {layers}"] = critical[0]
        numbers[f"decay from which its well is gone, {layers}"] = existence[0]
        jump = in_theory(depth, critical[0] * (1.0 - 1e-9))[0]
        numbers[f"amplitude at which it is lost, {layers}"] = jump
        wells = np.array([in_theory(depth, g, metastable=True) for g in decays(depth)])
        large = trained(depth, LARGE)
        difference = np.count_nonzero((large > 1e-3) != (wells > 1e-3))
        numbers[f"modes that differ from theory, large start, {layers}"] = difference
        numbers[f"largest difference of an amplitude, {layers}"] = abs(large - wells).max()
        held = np.count_nonzero(trained(depth, SMALL) < 1e-3) - np.count_nonzero(wells < 1e-3)
        numbers[f"modes held at the origin, small start, {layers}"] = held
    return numbers


def figure() -> Figure:
    fig = Figure(figsize=(11, 4.2), layout="constrained")
    for depth, ax in zip(DEPTHS, fig.subplots(1, 3, sharey=True), strict=True):
        critical, existence = thresholds(depth)
        for j, colour in enumerate(("#0072b2", "#d55e00")):
            below = np.linspace(0.0, critical[j], 200, endpoint=False)
            between = np.linspace(critical[j], existence[j], 100, endpoint=False)
            line = [in_theory(depth, g)[j] for g in below]
            ax.plot(below, line, color=colour, label=f"mode {j + 1}, minimum")
            if depth > 1:
                ax.axvline(critical[j], color=colour, linewidth=1.0, linestyle=":")
                line = [in_theory(depth, g, metastable=True)[j] for g in between]
                ax.plot(between, line, "--", color=colour, label=f"mode {j + 1}, well above 0")
            large, small = trained(depth, LARGE)[:, j], trained(depth, SMALL)[:, j]
            points = {"color": colour, "linestyle": "none", "clip_on": False, "zorder": 3}
            ax.plot(decays(depth), large, marker="o", ms=5, label="trained, large start", **points)
            ax.plot(decays(depth), small, marker="v", ms=6, mfc="none", mew=1.2,
                    label="trained, small start", **points)  # fmt: skip
        ax.set_title("one layer" if depth == 1 else f"{depth} layers", fontsize="medium")
        ax.set(xlabel="weight decay of every layer", xlim=(0.0, None), ylim=(0.0, 0.85))
        ax.spines[["top", "right"]].set_visible(False)
    fig.axes[0].set_ylabel("amplitude")
    handles, labels = fig.axes[1].get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    fig.legend(once.values(), once, frameon=False, ncols=3, loc="outside lower center")
    return fig


if __name__ == "__main__":
    for name, number in claim().items():
        print(f"{name}: {number:.4g}")
    figure().savefig(sys.argv[1] if len(sys.argv) > 1 else "depth.svg")
