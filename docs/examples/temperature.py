"""Temperature decides between all and nothing under InfoNCE, and how many modes NT-Xent learns.

Theory (3.1, 3.2): under InfoNCE mode j is lost from the temperature 2 a_j/g on. NT-Xent spreads over
more modes the lower its temperature, and loses none but to better aligned ones: what decides is the
temperature times the gaps between their alignments.
"""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
from matplotlib.figure import Figure

import pyssl

SIGNAL = np.array([0.9, 0.7, 0.5, 0.3])  # eigenvalues of A; the views have variance 1
DECAY, INFONCE, NTXENT = 0.4, (0.5, 1.0, 2.0, 3.0, 4.0, 5.0), (0.5, 0.7, 1.0, 1.5, 2.5, 5.0)


@cache
def views() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clean = rng.standard_normal((800, 4)) * np.sqrt(SIGNAL)
    x, x_plus = clean + np.sqrt(1.0 - SIGNAL) * rng.standard_normal((2, *clean.shape))
    return x, x_plus


def in_theory(name: str, temperature: float) -> np.ndarray:
    """Return the amplitudes of the modes; of NT-Xent their shares of the variance."""
    moments = pyssl.Moments.from_views(*views()).centered()
    if name == "InfoNCE":
        land = pyssl.InfoNCE(temperature).population(moments, 4, weight_decay=DECAY)
    else:
        land = pyssl.NTXent(temperature).effective(moments, 8, angular="exact")
    return land.minimum().amplitudes


@cache
def in_training(name: str, temperature: float) -> np.ndarray:
    if name == "InfoNCE":
        batch = pyssl.InfoNCE(temperature).empirical(*views(), 4, weight_decay=DECAY)
    else:
        batch = pyssl.NTXent(temperature).empirical(*views(), 4)
    start = 1e-3 * np.random.default_rng(1).standard_normal(batch.shape)
    W = pyssl.minimize(batch, start).weights
    spectrum = np.linalg.eigvalsh(W @ batch.moments.covariance @ W.T)[::-1]
    return spectrum if name == "InfoNCE" else spectrum / spectrum.sum()


def claim() -> dict[str, float]:
    numbers = {}
    for name, temperatures in (("InfoNCE", INFONCE), ("NT-Xent", NTXENT)):
        errors = []
        for tau in temperatures:
            theory, trained = in_theory(name, tau), in_training(name, tau)
            floor = 1e-6 if name == "InfoNCE" else 0.01
            numbers[f"{name}, rank in theory at temperature {tau}"] = np.sum(theory > floor)
            numbers[f"{name}, rank trained at temperature {tau}"] = np.sum(trained > floor)
            errors.append(abs(trained - theory).max() / theory.max())
        numbers[f"{name}, largest difference"] = max(errors)
    return numbers
