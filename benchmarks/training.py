"""Does training end where theory says? `pyssl.verify` over many settings, as tables of markdown.

    python benchmarks/training.py [--only NAME ...] [--quick] [--store DIR] [--out FILE]

Every result is appended to a file of the store as soon as it is there; what is there already is not
computed again. `--out` writes the tables of all that the store holds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import pyssl
from pyssl._views import digits
from pyssl.testing import gaussian_views

# A setting is excluded when theory's rank changes with a weight decay this much smaller or larger.
NEAR = 0.02
# A mode counts by its share where nothing collapses for good (NT-Xent).
SHARE = 0.01


@dataclass(frozen=True)
class Study:
    """A loss, and how its settings are drawn."""

    name: str
    loss: pyssl.Loss
    level: float  # sum of the squared alignments of Gaussian views: how many modes are strong
    n: int  # pairs
    views: tuple[str, ...] = ("even", "geometric", "blocks")
    dims: tuple[int, ...] = (4, 8, 16, 32, 64)
    narrow: int = 100  # from this d on one k instead of two
    large: tuple[int, ...] = (4, 8, 16, 32, 64)  # d of the settings of 20,000 pairs
    restarts: int = 1
    part: float = 0.1  # of the decay of complete collapse, where no formula knows the others

    @property
    def kinds(self) -> tuple[str, ...]:
        """The collapses to aim at by weight decay; without a scale there is none."""
        free = self.loss.scale_free or self.loss.units_scale_free
        return ("none",) if free else ("none", "dimensional", "complete")

    @property
    def shared(self) -> bool:
        """Whether modes count by their shares of what is learned."""
        return self.loss.scale_free and not self.loss.units_scale_free


STUDIES = [
    Study("spectral", pyssl.SpectralContrastive(), 4.0, 8000),
    Study("barlow", pyssl.BarlowTwins(redundancy=1.0, normalize=False), 4.0, 8000),
    Study("squared_vicreg", pyssl.SquaredVICReg(1.5), 4.0, 8000),
    Study("infonce", pyssl.InfoNCE(), 2.0, 4000, ("geometric", "blocks"), narrow=32, large=(8, 64)),
    Study(
        "infonce_dot",
        pyssl.InfoNCE(similarity="dot"),
        1.0,
        4000,
        ("geometric", "blocks"),
        narrow=32,
        large=(8, 32),
    ),
    Study("vicreg", pyssl.VICReg(), 1000.0, 4000, narrow=32, large=(8, 16)),
    # from the field's redundancy, which leaves duplicates, to one that leaves none
    *(
        Study(
            f"barlow_normalized_{redundancy:g}",
            pyssl.BarlowTwins(redundancy=redundancy, epsilon=0.0),
            4.0,
            20_000,
            dims=(4, 8, 16, 32),
            narrow=16,
            large=(),
        )
        for redundancy in (0.005, 0.05, 0.5)
    ),
    Study("ntxent_0.5", pyssl.NTXent(0.5), 4.0, 2000, large=()),
    Study("ntxent_1", pyssl.NTXent(1.0), 4.0, 2000, large=()),
    Study("ntxent_2", pyssl.NTXent(2.0), 4.0, 2000, ("even",), large=()),
]


# ---- settings ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """Gaussian views by their moments, and what is trained on them."""

    views: str
    d: int
    k: int
    collapse: str  # what is aimed at
    n: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.views} d={self.d} k={self.k} {self.collapse} n={self.n}"


def settings(study: Study, *, large: bool) -> Iterator[Setting]:
    """Yield the settings of a loss; `large`: few, of 20,000 pairs."""
    if large:
        for d in study.large:
            for kind in study.kinds[:2]:
                yield Setting("geometric", d, d // (2 if d < 32 else 4), kind, 20_000, 1000 + d)
        return
    for d in study.dims:
        ks = (d // 2, d) if d < 32 else (d // 4, d // 2)
        ks = ks[:1] if d >= study.narrow else ks
        for views in study.views:
            for number, k in enumerate(ks):
                for kind in study.kinds:
                    yield Setting(views, d, k, kind, study.n, 100 * d + number)


def moments_of(setting: Setting, level: float) -> pyssl.Moments:
    """Return moments whose augmentation does not commute with the signal."""
    rng = np.random.default_rng(setting.seed)
    d = setting.d
    signal = {
        "even": np.linspace(1.0, 0.1, d),
        "geometric": np.maximum(0.8 ** np.arange(d), 1e-3),
        "blocks": np.repeat([1.0, 0.4, 0.1], [d // 4, d // 4, d - 2 * (d // 4)])
        * np.linspace(1.05, 0.95, d),
    }[setting.views]
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    cross = (rotation * signal) @ rotation.T
    other = np.linalg.qr(rng.standard_normal((d, d)))[0]
    noise = (other * rng.uniform(0.5, 1.5, d)) @ other.T

    def strength(c: float) -> float:
        return float(np.sum(pyssl.Moments(cross + c * noise, cross).alignments ** 2))

    low, high = 0.1, 100.0  # alignments of at most about 0.9
    if strength(low) > level:
        for _ in range(40):
            middle = float(np.sqrt(low * high))
            low, high = (middle, high) if strength(middle) > level else (low, middle)
    return pyssl.Moments(cross + low * noise, cross)


def critical(land: Any) -> np.ndarray:
    """Return the critical weight decays, descending; nan where no formula knows them."""
    if isinstance(land, pyssl.SpectralLandscape):
        return pyssl.classify(land).critical_weight_decay
    return np.asarray(land.critical_weight_decay)


def decay_of(study: Study, kind: str, x: np.ndarray, x_plus: np.ndarray, k: int) -> float:
    """Return the weight decay that aims at a collapse, between two thresholds."""
    if len(study.kinds) == 1:
        return 0.0
    land = study.loss.sharpest(pyssl.Moments.from_views(x, x_plus).centered(), k)[1]
    at = critical(land)
    if kind == "none":
        # where theory leaves open which modes are learned, a little decay decides
        tied = isinstance(land, pyssl.SpectralLandscape) and land.minimum().degenerate
        return 0.25 * float(at[land.minimum().rank - 1]) if tied else 0.0
    if kind == "complete":
        return 1.15 * float(at[0])
    rank = max(1, k // 2)
    if np.isnan(at[rank]):
        return study.part * float(at[0])
    return float(np.sqrt(at[rank - 1] * at[rank]))


# ---- one setting ---------------------------------------------------------------------------------


def theory_rank(study: Study, moments: pyssl.Moments, k: int, g: float) -> int:
    land = study.loss.sharpest(moments, k, g)[1]
    if isinstance(land, pyssl.SpectralLandscape):
        return land.minimum().rank
    weights = pyssl.minimize(land, restarts=study.restarts).weights
    if study.loss.units_scale_free:
        variances = np.sum((weights @ moments.covariance) * weights, axis=1)
        weights = weights / np.sqrt(variances)[:, None]
    spectrum = np.linalg.eigvalsh(weights @ moments.covariance @ weights.T)
    return int(np.count_nonzero(spectrum > 1e-6 * max(float(spectrum[-1]), 1.0)))


def near(study: Study, moments: pyssl.Moments, k: int, g: float) -> bool:
    """Return whether theory's answer changes within 2%: what decides is the decay.

    For normalised Barlow Twins it is the redundancy; for NT-Xent, whether the alignments of the
    last mode that has room and of the next differ by less.
    """
    if isinstance(study.loss, pyssl.BarlowTwins) and study.loss.normalize:
        ranks = (
            theory_rank(
                replace(study, loss=replace(study.loss, redundancy=factor * study.loss.redundancy)),
                moments,
                k,
                0.0,
            )
            for factor in (1.0 - NEAR, 1.0 + NEAR)
        )
        return len(set(ranks)) > 1
    if study.shared:
        rho = moments.alignments
        return k < len(rho) and bool(rho[k - 1] - rho[k] <= NEAR * rho[k - 1])
    land = study.loss.sharpest(moments, k)[1]
    if g:
        around = [(moments, g * (1.0 - NEAR)), (moments, g * (1.0 + NEAR))]
    elif isinstance(land, pyssl.SpectralLandscape):
        around = [(moments, 0.0), (moments, NEAR * float(critical(land)[0]))]
    else:  # the decay of complete collapse says nothing of where other modes are lost
        around = [(moments.with_augmentation_strength(1.0 + s), 0.0) for s in (-NEAR, NEAR)]
    return len({theory_rank(study, m, k, decay) for m, decay in around}) > 1


def run(
    study: Study, name: str, x: np.ndarray, x_plus: np.ndarray, k: int, g: float
) -> dict[str, Any]:
    """Verify one setting."""
    start = time.perf_counter()
    moments = pyssl.Moments.from_views(x, x_plus).centered()
    result: dict[str, Any] = {
        "study": study.name,
        "setting": name,
        "n": len(x),
        "d": x.shape[1],
        "k": k,
        "weight_decay": g,
        "near": near(study, moments, k, g),
    }
    if not result["near"]:
        check = pyssl.verify(
            study.loss,
            x,
            x_plus,
            embedding_dim=k,
            weight_decay=g,
            restarts=study.restarts,
            redraws=0,
        )
        theory, trained = check.theory_spectrum, check.trained_spectrum
        capacity = min(k, moments.rank)
        rank = check.theory_rank
        result |= {
            "kind": "complete" if rank == 0 else "none" if rank >= capacity else "dimensional",
            "theory_rank": rank,
            "trained_rank": check.trained_rank,
            "spectrum_error": check.spectrum_error,
            "subspace_angle": check.subspace_angle,
            "theory_value": check.theory_value,
            "trained_value": check.trained_value,
            "converged": check.converged,
            "reasons": check.reasons,
        }
        if study.shared:
            water = study.loss.effective(moments, k).minimum().amplitudes
            water = water / water.sum()
            result |= {
                "theory_modes": int(np.count_nonzero(theory > SHARE)),
                "trained_modes": int(np.count_nonzero(trained > SHARE)),
                "same_modes": bool(np.array_equal(theory > SHARE, trained > SHARE)),
                "margin": float(np.abs(trained - SHARE).min()),
                "water_error": float(np.abs(water - trained).max() / trained.max()),
                "effective_rank": float(pyssl.effective_rank(trained)),
            }
    return result | {"seconds": time.perf_counter() - start}


def gaussian(study: Study, *, large: bool, quick: bool) -> Iterator[tuple[str, Any]]:
    """Yield names of settings of Gaussian views, and functions that make and verify them."""
    for setting in settings(study, large=large):
        if quick and (setting.d > 8 or large):
            continue

        def make(setting: Setting = setting) -> tuple[np.ndarray, np.ndarray, int, float]:
            moments = moments_of(setting, study.level)
            x, x_plus = gaussian_views(moments, setting.n, np.random.default_rng(setting.seed))
            return x, x_plus, setting.k, decay_of(study, setting.collapse, x, x_plus, setting.k)

        yield setting.name, make


def handwritten(study: Study, *, quick: bool) -> Iterator[tuple[str, Any]]:
    """Yield the settings of digits."""
    for k in (2, 4) if quick else (2, 4, 8, 16, 32):
        for kind in study.kinds:

            def make(k: int = k, kind: str = kind) -> tuple[np.ndarray, np.ndarray, int, float]:
                views = digits(draws=1 if quick else 2)
                return views.x, views.x_plus, k, decay_of(study, kind, views.x, views.x_plus, k)

            yield f"digits k={k} {kind}", make


# ---- tables --------------------------------------------------------------------------------------


def tables(results: list[dict[str, Any]]) -> str:
    """Return what a store holds of one loss, as markdown."""
    lines = []
    for title, rows in (
        ("Gaussian views", [r for r in results if r["part"] == "gaussian"]),
        ("Gaussian views, 20,000 pairs", [r for r in results if r["part"] == "large"]),
        ("Digits", [r for r in results if r["part"] == "digits"]),
    ):
        kept = [r for r in rows if not r["near"]]
        if not rows:
            continue
        lines += [f"{title}: {len(rows)} settings, {len(rows) - len(kept)} near a threshold.", ""]
        if kept and "same_modes" in kept[0]:
            lines += _shares_table(kept)
        else:
            lines += _ranks_table(kept)
        lines.append("")
    return "\n".join(lines)


def _ranks_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| predicted | d | settings | rank equal | spectra within | median | median angle |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in ("none", "dimensional", "complete"):
        group = [r for r in rows if r["kind"] == kind]
        if not group:
            continue
        equal = sum(r["theory_rank"] == r["trained_rank"] for r in group)
        errors = [r["spectrum_error"] for r in group]
        angles = [np.degrees(r["subspace_angle"]) for r in group]
        spectra, angle = " | ", ""
        if kind != "complete":
            spectra = f"{max(errors):.2%} | {np.median(errors):.2%}"
            angle = f"{np.nanmedian(angles):.2g} degrees"
        ds = sorted({r["d"] for r in group})
        lines.append(
            f"| {kind} | {', '.join(map(str, ds))} | {len(group)} | {equal} | {spectra} | {angle} |"
        )
    equal = sum(r["theory_rank"] == r["trained_rank"] for r in rows)
    lines += ["", f"Ranks equal in {equal} of {len(rows)}."]
    for r in rows:
        if r["theory_rank"] != r["trained_rank"]:
            lines.append(
                f"* {r['setting']}: {r['theory_rank']} predicted, {r['trained_rank']} trained;"
                f" spectra within {r['spectrum_error']:.2%}"
                + ("" if r["converged"] else "; the training did not converge")
            )
    return lines


def _shares_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        (
            "| effective rank | settings | modes above 1% equal | spectra within | median |"
            " water-filling within | median |"
        ),
        "|---|---|---|---|---|---|---|",
    ]
    for low, high in ((1, 3), (3, 5), (5, 8), (8, 12), (12, 20), (20, 65)):
        group = [r for r in rows if low <= r["effective_rank"] < high]
        if not group:
            continue
        exact, water = ([r[key] for r in group] for key in ("spectrum_error", "water_error"))
        equal = sum(r["same_modes"] for r in group)
        lines.append(
            f"| {low} to {high} | {len(group)} | {equal} | {max(exact):.1%}"
            f" | {np.median(exact):.1%} | {max(water):.1%} | {np.median(water):.1%} |"
        )
    equal = sum(r["same_modes"] for r in rows)
    lines += ["", f"The same modes above 1% in {equal} of {len(rows)}."]
    for r in rows:
        if not r["same_modes"]:
            lines.append(
                f"* {r['setting']}: {r['theory_modes']} predicted, {r['trained_modes']} trained;"
                f" a share trained comes as near to 1% as {100 * r['margin']:.2g} percentage points"
            )
    return lines


# ---- command line --------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [study.name for study in STUDIES]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--parts", nargs="+", default=["gaussian", "digits", "large"])
    parser.add_argument("--quick", action="store_true", help="few small settings, in a minute")
    parser.add_argument("--store", type=Path, default=Path("build/training"))
    parser.add_argument("--out", type=Path, help="write the tables here, else they are printed")
    options = parser.parse_args(arguments)
    pyssl.set_num_threads(1)
    options.store.mkdir(parents=True, exist_ok=True)
    text = []
    for study in STUDIES:
        if study.name not in options.only:
            continue
        path = options.store / f"{study.name}{'-quick' if options.quick else ''}.jsonl"
        done = []
        if path.exists():
            done = [json.loads(line) for line in path.read_text().splitlines()]
        known = {(r["part"], r["setting"]) for r in done}
        parts = {
            "gaussian": gaussian(study, large=False, quick=options.quick),
            "digits": handwritten(study, quick=options.quick),
            "large": gaussian(study, large=True, quick=options.quick),
        }
        for part in options.parts:
            for name, make in parts[part]:
                if (part, name) in known:
                    continue
                result = {"part": part} | run(study, name, *make())
                done.append(result)
                with path.open("a") as file:
                    file.write(json.dumps(result) + "\n")
                ranks = f"{result.get('theory_rank')} {result.get('trained_rank')}"
                print(
                    f"{study.name} {part} {name}: {ranks} {result.get('spectrum_error', 0.0):.2%}"
                    f" {result['seconds']:.1f} s",
                    file=sys.stderr,
                    flush=True,
                )
        text.append(f"## {study.loss!r}\n\n{tables(done)}")
    if options.out is None:
        print("\n".join(text))
    else:
        options.out.write_text("\n".join(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
