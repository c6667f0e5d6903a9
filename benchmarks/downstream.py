"""Does ridge regression err as `pyssl.downstream_risk` predicts, and does dropping modes help?

    python benchmarks/downstream.py [--runs N] [--quick] [--out FILE]

Both on Gaussian data, over many settings, as tables of markdown.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

import pyssl
from pyssl._probe import Probe, random_probe, simulated_risk

SPECTRA = ("flat", "geometric", "power")
TARGETS = ("strong", "weak", "spread")
WEIGHTS = ("full", "low rank", "narrow", "collapsing")
SHARES = (0.25, 0.5, 0.8, 2.0, 5.0)  # samples over dimensions
RIDGES = ("tiny", "tuned", "large")
LOSSES = (
    pyssl.SpectralContrastive(),
    pyssl.InfoNCE(),
    pyssl.BarlowTwins(redundancy=1.0, normalize=False),
    pyssl.SquaredVICReg(1.5),
)


# ---- the prediction ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """One setting: what was predicted, and what was found."""

    name: str
    share: float
    ridge: str
    freedom: float  # n - sum L^2
    predicted: float
    simulated: float
    error: float

    @property
    def off(self) -> float:
        return abs(self.predicted / self.simulated - 1.0)


def predictions(d: int, runs: int, *, quick: bool) -> Iterator[Result]:
    """Yield a result for every setting; `quick` takes one in seven."""
    everything = itertools.product(SPECTRA, TARGETS, WEIGHTS, SHARES, RIDGES)
    for number, (spectrum, target, weights, share, kind) in enumerate(everything):
        if quick and number % 7:
            continue
        probe = random_probe(d, spectrum, target, weights, number)
        n, noise = round(share * d), (0.1, 1.0)[number // 3 % 2]
        parts = probe.weights, probe.covariance, probe.target, n, noise
        largest = float(pyssl.downstream_split(*parts).variances[0])
        best = float(pyssl.optimal_ridge(*parts))
        ridge = {
            "tiny": 1e-9 * largest,
            "tuned": best,
            "large": 10.0 * min(best, largest) + 0.1 * largest,
        }[kind]
        split = pyssl.downstream_split(*parts, ridge)
        rng = np.random.default_rng(number)
        simulated, error = simulated_risk(probe, n, noise, ridge, runs, rng)
        freedom = n / split.variance_factor
        yield Result(probe.name, share, kind, freedom, split.risk, simulated, error / simulated)


def prediction_table(results: list[Result]) -> list[str]:
    lines = [
        "| n/d | ridge | settings | within | median | noise of the simulation, median |",
        "|---|---|---|---|---|---|",
    ]
    for share, kind in itertools.product(SHARES, RIDGES):
        group = [r for r in results if r.share == share and r.ridge == kind]
        off = [r.off for r in group]
        lines.append(
            f"| {share:g} | {kind} | {len(group)} | {max(off):.1%} | {np.median(off):.2%}"
            f" | {np.median([r.error for r in group]):.2%} |"
        )
    return lines


def freedom_table(results: list[Result]) -> list[str]:
    lines = [
        "| n - sum L^2 | settings | within | median | noise of the simulation, median |",
        "|---|---|---|---|---|",
    ]
    for low, high in itertools.pairwise((0.0, 2.0, 5.0, 10.0, 30.0, 100.0, np.inf)):
        group = [r for r in results if low <= r.freedom < high]
        if not group:
            continue
        off = [r.off for r in group]
        name = f"{low:g} to {high:g}" if np.isfinite(high) else f"above {low:g}"
        lines.append(
            f"| {name} | {len(group)} | {max(off):.1%} | {np.median(off):.2%}"
            f" | {np.median([r.error for r in group]):.2%} |"
        )
    return lines


# ---- the choice of modes -------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """One setting: the errors with all modes and with the chosen ones."""

    loss: str
    target: str
    share: float
    dropped: int
    tail: bool
    gain: float  # predicted, of the embedding without decay
    decay_gain: float  # predicted, of the best weight decay
    simulated_gain: float
    noise: float  # of the last one, relative to the error as they are


def choices(d: int, runs: int, *, quick: bool) -> Iterator[Choice]:
    """Yield a choice for every setting; `quick` takes one in five."""
    everything = itertools.product(LOSSES, SPECTRA, TARGETS, (0.5, 1.5, 5.0), (0.1, 1.0))
    for number, (loss, spectrum, target, share, noise) in enumerate(everything):
        if quick and number % 5:
            continue
        rng = np.random.default_rng(number)
        probe = random_probe(d, spectrum, target, "full", number)
        root = rng.standard_normal((d, 2 * d)) / np.sqrt(2 * d)
        level = 0.3 * np.trace(probe.covariance) / d
        moments = pyssl.Moments(probe.covariance + level * root @ root.T, probe.covariance)
        n = round(share * d)
        found = pyssl.helpful_collapse(moments, probe.target, n, loss=loss, noise=noise)
        W = found.weights
        kept = W * np.isin(np.arange(len(W)), found.kept)[:, None]
        risks = [
            simulated_risk(
                Probe("", weights, probe.covariance, probe.target), n, noise, ridge, runs, rng
            )
            for weights, ridge in ((W, found.ridge_of_everything), (kept, found.ridge))
        ]
        (everything_risk, one), (best, other) = risks
        yield Choice(
            type(loss).__name__,
            target,
            share,
            len(found.dropped),
            found.weight_decay is not None,
            1.0 - found.risk / found.risk_of_everything,
            1.0 - found.best_weight_decay.risk / found.risk_of_everything,
            1.0 - best / everything_risk,
            float(np.hypot(one, other)) / everything_risk,
        )


def choice_table(found: list[Choice], d: int) -> list[str]:
    lines = [
        (
            "| target | n/d | settings | modes dropped, median | just those by weight decay"
            " | gain predicted, median | simulated, median | best weight decay, median"
            " | worse by 3 sigma |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for target, share in itertools.product(TARGETS, (0.5, 1.5, 5.0)):
        group = [c for c in found if c.target == target and c.share == share]
        if not group:
            continue
        worse = sum(c.simulated_gain < -3.0 * c.noise for c in group)
        lines.append(
            f"| {target} | {share:g} | {len(group)} | {np.median([c.dropped for c in group]):g}"
            f" of {d} | {sum(c.tail for c in group)}"
            f" | {np.median([c.gain for c in group]):.1%}"
            f" | {np.median([c.simulated_gain for c in group]):.1%}"
            f" | {np.median([c.decay_gain for c in group]):.1%} | {worse} |"
        )
    return lines


# ---- command line --------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100, help="training sets of a setting")
    parser.add_argument("--dim", type=int, default=60, help="of the predictions")
    parser.add_argument("--quick", action="store_true", help="few settings")
    parser.add_argument("--out", type=Path, help="write the tables here, else they are printed")
    options = parser.parse_args(arguments)
    with threadpool_limits(1, user_api="blas"):
        results = list(predictions(options.dim, options.runs, quick=options.quick))
        found = list(choices(12, 4 * options.runs, quick=options.quick))
    off = [r for r in results if (r.share >= 2.0 and r.off > 0.05) or r.off > 0.15]
    text = "\n".join(
        [
            f"## Prediction, d = {options.dim}, {options.runs} training sets a setting",
            "",
            *prediction_table(results),
            "",
            *freedom_table(results),
            "",
            "More than 5% off at n >= 2d, or more than 15% below:",
            "",
            *(
                f"* {r.name}, n/d = {r.share:g}, {r.ridge} ridge: {r.predicted:.4g} predicted,"
                f" {r.simulated:.4g} simulated (noise {r.error:.1%}), n - sum L^2 = {r.freedom:.2g}"
                for r in off
            ),
            "",
            "## Choice of modes, d = 12",
            "",
            *choice_table(found, 12),
            "",
        ]
    )
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
