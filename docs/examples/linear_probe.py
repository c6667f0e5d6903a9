"""How many modes a linear probe wants depends on its ridge and on how many labels it gets.

Theory (8): what ridge regression on an embedding errs by, from second moments alone. A spectral
contrastive representation of handwritten digits collapses mode by mode as its weight decay grows,
and probes with one target for each digit (1 for it, 0 for the others) are trained on few of them.
With hardly any ridge the error peaks where there are as many modes as samples, and collapse
helps; with a tuned ridge each mode lost costs something.

The digits are not Gaussian, and what a linear function leaves of a label is no independent noise:
theory takes it for such. Features and labels are centred by the means of the training set, which
costs one sample and its own error, (1 + 1/n) times the error from n - 1.
"""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import pyssl
from pyssl._views import digits

LOSS = pyssl.SpectralContrastive()
SAMPLES = 40
RANKS = (0, 1, 2, 4, 7, 11, 16, 22, 28, 34, 38, 42, 45)
RIDGES = ("hardly any", "tuned")
RUNS = 25


@cache
def population() -> tuple[np.ndarray, np.ndarray]:
    """Return all digits (1797, 64), each less its mean, and their labels (1797, 10), as 0 and 1."""
    images, label = load_digits(return_X_y=True)
    x = images / 16.0
    return x - x.mean(axis=1, keepdims=True), np.eye(10)[label]


@cache
def targets() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the digits' covariance, the best linear targets (10, 64) and what they leave (10,)."""
    x, y = (part - part.mean(axis=0) for part in population())
    covariance = x.T @ x / len(x)
    beta = np.linalg.lstsq(x, y, rcond=None)[0].T
    return covariance, beta, np.mean((y - x @ beta.T) ** 2, axis=0)


@cache
def representations() -> np.ndarray:
    """Return the weights (ranks, 64, 64) that decays leave, each between two thresholds."""
    views = digits(draws=2)
    moments = pyssl.Moments.from_views(views.x, views.x_plus).centered()
    critical = pyssl.classify(LOSS.population(moments, 64)).critical_weight_decay
    found = []
    for rank in RANKS:
        top = critical[rank - 1] if rank else 1.1 * critical[0]
        land = LOSS.population(moments, 64, weight_decay=np.sqrt(critical[rank] * top))
        found.append(land.minimum().weights)
    return np.array(found)


@cache
def ridges(kind: str) -> np.ndarray:
    """Return the ridge of each representation and target (ranks, 10)."""
    weights, (covariance, beta, noise) = representations(), targets()
    if kind == "tuned":
        found = [
            pyssl.optimal_ridge(weights, covariance, b, SAMPLES - 1, s2)
            for b, s2 in zip(beta, noise, strict=True)
        ]
        return np.array(found).T
    largest = [np.linalg.eigvalsh(W @ covariance @ W.T)[-1] for W in weights]
    return np.repeat(1e-4 * np.array(largest)[:, None], 10, axis=1)


def in_theory(kind: str) -> np.ndarray:
    """Return the expected squared error of all ten probes, for each representation."""
    weights, (covariance, beta, noise) = representations(), targets()
    risks = [
        pyssl.downstream_risk(weights, covariance, b, SAMPLES - 1, s2, ridge)
        for b, s2, ridge in zip(beta, noise, ridges(kind).T, strict=True)
    ]
    return (1.0 + 1.0 / SAMPLES) * np.sum(risks, axis=0)


@cache
def measured(kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return squared error, its standard error and accuracy on the digits not trained on."""
    x, y = population()
    rng = np.random.default_rng(0)
    error, correct = np.empty((2, RUNS, len(RANKS)))
    for run in range(RUNS):
        order = rng.permutation(len(x))
        train, test = order[:SAMPLES], order[SAMPLES:]
        for row, (W, ridge) in enumerate(zip(representations(), ridges(kind), strict=True)):
            centre, mean = x[train].mean(axis=0), y[train].mean(axis=0)
            left, size, right = np.linalg.svd((x[train] - centre) @ W.T, full_matrices=False)
            kept = size > 1e-12 * size[0]
            left, size, right = left[:, kept], size[kept, None], right[kept]
            shrunk = size * (left.T @ (y[train] - mean)) / (size**2 + ridge)
            predicted = mean + (x[test] - centre) @ (W.T @ (right.T @ shrunk))
            error[run, row] = np.mean(np.sum((y[test] - predicted) ** 2, axis=1))
            correct[run, row] = np.mean(predicted.argmax(axis=1) == y[test].argmax(axis=1))
    return error.mean(axis=0), error.std(axis=0, ddof=1) / np.sqrt(RUNS), correct.mean(axis=0)


def claim() -> dict[str, float]:
    numbers = {}
    for kind in RIDGES:
        theory, (error, _, accuracy) = in_theory(kind), measured(kind)
        for row, rank in enumerate(RANKS):
            numbers[f"{kind} ridge, rank {rank}, squared error in theory"] = theory[row]
            numbers[f"{kind} ridge, rank {rank}, squared error measured"] = error[row]
            numbers[f"{kind} ridge, rank {rank}, accuracy"] = accuracy[row]
    return numbers


def figure() -> Figure:
    fig = Figure(figsize=(10, 4.2), layout="constrained")
    errors, accuracies = fig.subplots(1, 2)
    for kind in RIDGES:
        error, noise, accuracy = measured(kind)
        line = errors.plot(RANKS, in_theory(kind), label=f"{kind} ridge, theory")[0]
        colour = line.get_color()
        errors.errorbar(RANKS, error, noise, fmt="o", ms=4, color=colour)
        accuracies.plot(RANKS, accuracy, "o-", ms=4, lw=0.8, color=colour, label=f"{kind} ridge")
    for ax in (errors, accuracies):
        ax.axvline(SAMPLES - 1, color="#8c8c8c", linewidth=1.0, linestyle=":")
        ax.set(xlabel="modes left by weight decay (dotted: samples less one)")
        ax.legend(frameon=False, loc="upper left" if ax is errors else "lower right")
    errors.set(yscale="log", ylabel=f"squared error (points: trained on {SAMPLES} digits)")
    errors.set_yticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    errors.minorticks_off()
    accuracies.set(ylabel="accuracy on the other digits", ylim=(0, 1))
    return fig


if __name__ == "__main__":
    for name, number in claim().items():
        print(f"{name}: {number:.4g}")
    figure().savefig(sys.argv[1] if len(sys.argv) > 1 else "linear_probe.svg")
