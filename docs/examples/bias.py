"""A bias brings complete collapse back, as a local minimum.

Theory (4): with a bias b NT-Xent has a point that it had not, W = 0, where all embeddings are
equal. Small weights grow there at the rate 2 a_1/(tau |b|^2) - g, with a_1 the largest eigenvalue
of A: the collapse is stable once |b| is above its critical value, sqrt(2 a_1/(g tau)).
"""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
from matplotlib.figure import Figure

import pyssl

LOSS, DECAY, TIMES = pyssl.NTXent(temperature=0.5), 0.4, np.linspace(0.0, 12.0, 61)
SIGNAL = np.array([0.9, 0.6, 0.3])  # eigenvalues of A; the views have variance 1
FACTORS = (0.8, 0.9, 1.1, 1.2)  # lengths of the bias at the start, over the critical one


@cache
def batch() -> pyssl.EmpiricalLandscape:
    rng = np.random.default_rng(0)
    clean = rng.standard_normal((600, 3)) * np.sqrt(SIGNAL)
    x, x_plus = clean + np.sqrt(1.0 - SIGNAL) * rng.standard_normal((2, *clean.shape))
    return LOSS.empirical(x, x_plus, embedding_dim=3, weight_decay=DECAY, bias=True)


def critical_bias() -> float:
    theory = LOSS.effective(batch().moments, 3, weight_decay=DECAY, bias=True)
    return theory.constant_embedding(1.0).critical_bias


@cache
def trained(factor: float) -> np.ndarray:
    """Return the norm of W in training from small weights and a bias, at all times."""
    start = np.zeros((3, 4))
    start[:, :3] = 0.02 * np.random.default_rng(1).standard_normal((3, 3))
    start[0, 3] = factor * critical_bias()
    weights = pyssl.gradient_flow(batch(), start, TIMES, rtol=1e-5).weights
    return np.linalg.norm(weights[:, :, :3], axis=(1, 2))


def rate_in_theory(length: float) -> float:
    """Return 2 a_1/(tau |b|^2) - g, which is zero at the critical bias."""
    return DECAY * ((critical_bias() / length) ** 2 - 1.0)


def rate_in_training(length: float) -> float:
    """Return the fastest growth of small weights across the bias, from the batch's Hessian."""
    constant = np.zeros((3, 4))
    constant[0, 3] = length
    hessian = batch().hessian(constant).reshape(3, 4, 3, 4)[1:, :3, 1:, :3]
    return -np.linalg.eigvalsh(hessian.reshape(6, 6))[0]


def claim() -> dict[str, float]:
    numbers = {"critical length of the bias": critical_bias()}
    for factor in FACTORS:
        length = factor * critical_bias()
        numbers[f"rate in theory, bias {factor} of critical"] = rate_in_theory(length)
        numbers[f"rate in training, bias {factor} of critical"] = rate_in_training(length)
        growth = trained(factor)[-1] / trained(factor)[0]
        numbers[f"|W| at the end over the start, bias {factor} of critical"] = growth
    return numbers


def figure() -> Figure:
    fig = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = fig.subplots(1, 2)
    for factor in FACTORS:
        left.plot(TIMES, trained(factor), label=f"bias {factor} of critical, trained")
    left.set(xlabel="time", ylabel="|W|", yscale="log")
    lengths = critical_bias() * np.linspace(0.7, 1.4, 71)
    right.plot(lengths, [rate_in_theory(length) for length in lengths], label="theory")
    trained_rates = [rate_in_training(length) for length in lengths[::10]]
    right.plot(lengths[::10], trained_rates, "o", ms=4, label="batch of views")
    right.axhline(0.0, color="#333333", linewidth=1.0)
    right.axvline(critical_bias(), color="#333333", linewidth=1.0, linestyle=":")
    right.set(xlabel="length of the bias (dotted: critical)", ylabel="growth rate of small weights")
    for ax in (left, right):
        ax.legend(frameon=False)
    return fig


if __name__ == "__main__":
    for name, number in claim().items():
        print(f"{name}: {number:.4g}")
    figure().savefig(sys.argv[1] if len(sys.argv) > 1 else "bias.svg")
