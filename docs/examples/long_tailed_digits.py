"""A long tail of digits loses its rare classes; which loss keeps more of them, theory says.

Theory (7): where not all modes have room, the spectral contrastive loss keeps those that the
augmentation hides least (by alignment), Barlow Twins, not normalised and with a little weight
decay, those that the data have most of (by covariance). With noise that neighbouring pixels share
the two orders differ, and so does what is left of the rare digits.
"""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import minimize
from sklearn.datasets import load_digits

import pyssl

K, RATIO, PAIRS = 9, 30.0, 8000
NEAR = np.exp(-0.5 * np.subtract.outer(np.arange(8), np.arange(8)) ** 2)  # pixels vary together
NOISE = pyssl.augment.Noise(0.1 * np.kron(NEAR, NEAR) + 0.01 * np.eye(64))
LOSSES = {  # with their weight decay
    "spectral contrastive": (pyssl.SpectralContrastive(), 0.0),
    "Barlow Twins": (pyssl.BarlowTwins(redundancy=1.0, normalize=False), 0.2),
}
DATA = ("balanced", "long tail")


@cache
def digits(data: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels: as many of every digit, or 1/30 as many nines as zeros."""
    images, labels = load_digits(return_X_y=True)
    shares = pyssl.long_tailed_priors(10, RATIO) if data == "long tail" else np.full(10, 0.1)
    most = np.rint(174 * shares / shares.max())
    number = np.array([np.sum(labels[:i] == label) for i, label in enumerate(labels)])
    kept = number < most[labels]
    return images[kept] / 16.0, labels[kept]


@cache
def mixture(data: str) -> pyssl.Mixture:
    return pyssl.Mixture.from_data(*digits(data))


@cache
def in_theory(data: str, name: str) -> np.ndarray:
    """Return the retention of the ten classes at the minimum, from exact moments."""
    loss, decay = LOSSES[name]
    land = loss.population(mixture(data).moments(NOISE).centered(), K, decay)
    return pyssl.class_retention(land, mixture(data), NOISE)


@cache
def in_training(data: str, name: str) -> np.ndarray:
    """Return the retention of the ten classes in training on noisy digits."""
    loss, decay = LOSSES[name]
    rng = np.random.default_rng(0)
    images = digits(data)[0]
    drawn = images[np.arange(PAIRS) % len(images)]
    x, x_plus = NOISE.sample(drawn, rng), NOISE.sample(drawn, rng)
    mean = 0.5 * (x.mean(axis=0) + x_plus.mean(axis=0))
    batch = loss.empirical(x - mean, x_plus - mean, K, decay)

    def evaluate(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = batch.value_and_gradient(flat.reshape(batch.shape))
        return float(value), gradient.ravel()

    start = 1e-3 * rng.standard_normal(batch.shape).ravel()
    options = {"maxiter": 2000, "maxcor": 30, "gtol": 1e-6}
    end = minimize(evaluate, start, jac=True, method="L-BFGS-B", options=options)
    weights = end.x.reshape(batch.shape)
    return pyssl.class_retention(weights, mixture(data), NOISE, loss=loss)


def claim() -> dict[str, float]:
    numbers: dict[str, float] = {"images of the rarest digit": np.sum(digits("long tail")[1] == 9)}
    for name in LOSSES:
        for data in DATA:
            theory, trained = in_theory(data, name), in_training(data, name)
            numbers[f"{name}, {data}, classes kept in theory"] = np.sum(theory >= 0.5)
            numbers[f"{name}, {data}, classes kept trained"] = np.sum(trained >= 0.5)
            numbers[f"{name}, {data}, largest difference"] = abs(trained - theory).max()
        rare = in_training("long tail", name)[5:].mean()
        numbers[f"{name}, long tail, retention of the rarer half trained"] = rare
    return numbers


def figure() -> Figure:
    fig = Figure(figsize=(10, 4.2), layout="constrained")
    for ax, data in zip(fig.subplots(1, 2, sharey=True), DATA, strict=True):
        for name in LOSSES:
            line = ax.plot(in_theory(data, name), label=f"{name}, theory")[0]
            colour = line.get_color()
            ax.plot(in_training(data, name), "o", ms=5, color=colour, label=f"{name}, trained")
        ax.axhline(0.5, color="#333333", linewidth=1.0, linestyle=":")
        counts = np.bincount(digits(data)[1])
        ax.set_xticks(range(10), [f"{c}\n{count}" for c, count in enumerate(counts)])
        ax.set(title=data, xlabel="digit and number of images", ylim=(0.0, 1.0))
    fig.axes[0].set_ylabel("retention of the class (dotted: kept from here)")
    fig.axes[0].legend(frameon=False, fontsize="small")
    return fig


if __name__ == "__main__":
    for name, number in claim().items():
        print(f"{name}: {number:.4g}")
    figure().savefig(sys.argv[1] if len(sys.argv) > 1 else "long_tailed_digits.svg")
