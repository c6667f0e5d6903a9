"""Temperature decides between all and nothing under InfoNCE, and how many modes NT-Xent learns.

Theory (3.1, 3.2): under InfoNCE mode j is lost from the temperature 2 a_j/g on. NT-Xent spreads
over more modes the lower its temperature, and loses none but to better aligned ones: what decides
is the temperature times the gaps between their alignments.
"""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
from matplotlib.figure import Figure

import pyssl

SIGNAL = np.linspace(0.9, 0.4, 6)  # eigenvalues of A; the views have variance 1
DECAY, INFONCE, NTXENT = 0.4, (0.5, 1.0, 2.0, 3.0, 4.2, 5.0), (0.5, 1.0, 2.0, 4.0)


@cache
def views() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clean = rng.standard_normal((600, 6)) * np.sqrt(SIGNAL)
    x, x_plus = clean + np.sqrt(1.0 - SIGNAL) * rng.standard_normal((2, *clean.shape))
    return x, x_plus


def in_theory(name: str, temperature: float) -> np.ndarray:
    """Return the amplitudes of the modes; of NT-Xent their shares of the variance."""
    moments = pyssl.Moments.from_views(*views()).centered()
    if name == "InfoNCE":
        land = pyssl.InfoNCE(temperature).population(moments, 6, weight_decay=DECAY)
    else:
        land = pyssl.NTXent(temperature).effective(moments, 8, angular="exact")
    return land.minimum().amplitudes


@cache
def in_training(name: str, temperature: float) -> np.ndarray:
    if name == "InfoNCE":
        batch = pyssl.InfoNCE(temperature).empirical(*views(), 6, weight_decay=DECAY)
    else:
        batch = pyssl.NTXent(temperature).empirical(*views(), 6)
    start = 1e-3 * np.random.default_rng(1).standard_normal(batch.shape)
    W = pyssl.minimize(batch, start, tolerance=1e-6).weights
    spectrum = np.linalg.eigvalsh(W @ batch.moments.covariance @ W.T)[::-1]
    return spectrum if name == "InfoNCE" else spectrum / spectrum.sum()


def claim() -> dict[str, float]:
    numbers = {}
    for tau in INFONCE:
        for which, spectrum in (("in theory", in_theory), ("trained", in_training)):
            rank = np.sum(spectrum("InfoNCE", tau) > 1e-6)
            numbers[f"InfoNCE, rank {which}, temperature {tau}"] = rank
    for tau in NTXENT:
        for which, spectrum in (("in theory", in_theory), ("trained", in_training)):
            rank = pyssl.effective_rank(np.maximum(spectrum("NT-Xent", tau), 0.0))
            numbers[f"NT-Xent, effective rank {which}, temperature {tau}"] = rank
    return numbers


def figure() -> Figure:
    fig = Figure(figsize=(10, 4.2), layout="constrained")
    panels = zip(fig.subplots(1, 2), ("InfoNCE", "NT-Xent"), (INFONCE, NTXENT), strict=True)
    for ax, name, tried in panels:
        temperatures = np.geomspace(tried[0], tried[-1], 40)
        theory = np.array([in_theory(name, tau) for tau in temperatures])
        trained = np.array([in_training(name, tau) for tau in tried])
        for j in range(6):
            line = ax.plot(temperatures, theory[:, j], label=f"mode {j + 1}")[0]
            ax.plot(tried, trained[:, j], "o", ms=4, color=line.get_color(), clip_on=False)
        ax.set(xscale="log", xlabel="temperature", title=name, ylim=(0, 1.3 * theory.max()))
        ax.set_xticks(tried, [f"{tau:g}" for tau in tried])
        ax.minorticks_off()
        ax.legend(frameon=False, ncols=3, fontsize="small", loc="upper left")
    fig.axes[0].set_ylabel(f"amplitude at decay {DECAY} (line: theory, point: trained)")
    fig.axes[1].set_ylabel("share of the variance (line: theory, point: trained)")
    return fig


if __name__ == "__main__":
    for name, number in claim().items():
        print(f"{name}: {number:.4g}")
    figure().savefig(sys.argv[1] if len(sys.argv) > 1 else "temperature.svg")
