"""Which classes does training keep, and which does theory say? Mixtures, as tables of markdown.

    python benchmarks/imbalance.py [--only NAME ...] [--quick] [--store DIR] [--out FILE]

The real loss is trained on views of a sample of a long-tailed mixture, and the retention of every
class is measured. Every result is appended to a file of the store as soon as it is there; what is
there already is not computed again. `--out` writes the tables of all that the store holds.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg

import pyssl
from pyssl import augment
from pyssl._training import train
from pyssl.testing import gaussian_views

# A setting is excluded when theory changes its mind about a class within this much.
NEAR = 0.03
# Critical priors are tried this much below and above.
AROUND = 0.08
KEPT = 0.5
CLASSES, DIM = 5, 10


@dataclass(frozen=True)
class Study:
    """A loss, and the pairs that it is trained on."""

    name: str
    loss: pyssl.Loss
    n: int
    aims: tuple[str, ...] = ("decay", "capacity")
    critical: tuple[str, ...] = ("decay", "capacity")
    starts: int = 0  # from which capacity is tried again
    part: float = 0.1  # of the decay of complete collapse, where no formula knows the others


STUDIES = [
    Study("spectral", pyssl.SpectralContrastive(), 20_000, starts=20),
    Study("squared_vicreg", pyssl.SquaredVICReg(1.5), 20_000),
    Study(
        "barlow",
        pyssl.BarlowTwins(redundancy=1.0, normalize=False),
        20_000,
        ("decay",),
        ("decay",),
        starts=20,
    ),
    Study("infonce", pyssl.InfoNCE(), 4000),
    Study("infonce_dot", pyssl.InfoNCE(similarity="dot"), 4000),
    Study("ntxent", pyssl.NTXent(2.0), 2000, ("capacity",), ()),
    Study("vicreg", pyssl.VICReg(), 4000, critical=("capacity",)),
]


# ---- mixtures and settings -----------------------------------------------------------------------


def mixture(kind: str, ratio: float, seed: int) -> tuple[pyssl.Mixture, augment.Augmentation]:
    """Return classes with a long tail, and an augmentation that does not commute with them.

    "axes": every class has an axis of its own, beside directions in which all vary alike.
    "oblique": means and covariances in general position, a covariance for each class.
    """
    rng = np.random.default_rng(seed)
    turn, other = (np.linalg.qr(rng.standard_normal((DIM, DIM)))[0] for _ in range(2))
    priors = pyssl.long_tailed_priors(CLASSES, ratio)
    noise = augment.Noise((other * rng.uniform(0.5, 1.5, DIM)) @ other.T)
    if kind == "axes":
        within = np.append(np.full(CLASSES, 0.1), np.linspace(0.4, 1.2, DIM - CLASSES))
        means = 3.0 * turn[:, :CLASSES].T
        return pyssl.Mixture(priors, means, (turn * within) @ turn.T), noise
    factors = rng.standard_normal((CLASSES, DIM, DIM)) * np.sqrt(0.5 / DIM)
    means = 1.2 * rng.standard_normal((CLASSES, DIM))
    mix = pyssl.Mixture(priors, means, factors @ factors.transpose(0, 2, 1))
    return mix, augment.Mask(0.9) | noise


@dataclass(frozen=True)
class Setting:
    """A mixture, and the collapse that is aimed at: by decay or by capacity, to a rank."""

    kind: str
    ratio: float
    aim: str
    rank: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.kind} ratio={self.ratio:g} {self.aim} to {self.rank}"


def settings(study: Study) -> Iterator[Setting]:
    for kind in ("axes", "oblique"):
        for number, ratio in enumerate((5.0, 30.0, 100.0)):
            for aim, ranks in (("decay", (2, 4, 6)), ("capacity", (2, 4))):
                if aim in study.aims:
                    for rank in ranks:
                        yield Setting(kind, ratio, aim, rank, 10 * number + rank)


def critical_decays(study: Study, moments: pyssl.Moments) -> np.ndarray:
    """Return the critical weight decays, descending; nan where no formula knows them."""
    land = study.loss.sharpest(moments, DIM)[1]
    if isinstance(land, pyssl.SpectralLandscape):
        return pyssl.classify(land).critical_weight_decay
    return np.asarray(land.critical_weight_decay)


def decay_and_dim(study: Study, setting: Setting, moments: pyssl.Moments) -> tuple[float, int]:
    if setting.aim == "capacity":
        return 0.0, setting.rank
    at = critical_decays(study, moments)
    if np.isnan(at[1]):
        return study.part * float(at[0]) * (6 - setting.rank + 1), DIM
    return float(np.sqrt(at[setting.rank - 1] * at[setting.rank])), DIM


# ---- theory and training -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Sample:
    """Views of a sample, centred, and the mixture that it is of."""

    mix: pyssl.Mixture
    aug: augment.Augmentation
    x: np.ndarray
    x_plus: np.ndarray

    @classmethod
    def draw(
        cls, mix: Any, aug: Any, n: int, rng: np.random.Generator, *, matched: bool = False
    ) -> Sample:
        """Draw views; `matched`: moved a little, so that their moments are those of the mixture."""
        clean, _ = mix.sample(n, rng, stratified=True)
        x, x_plus = centered(aug.sample(clean, rng), aug.sample(clean, rng))
        if matched:
            x, x_plus = matching(x, x_plus, mix.moments(aug))
        return cls(mix, aug, x, x_plus)

    @property
    def moments(self) -> pyssl.Moments:
        return pyssl.Moments.from_views(self.x, self.x_plus).centered()

    def theory(self, loss: pyssl.Loss, moments: pyssl.Moments, k: int, g: float) -> np.ndarray:
        land = loss.sharpest(moments, k, g)[1]
        return pyssl.class_retention(land, self.mix, self.aug)

    def trained(
        self, loss: pyssl.Loss, k: int, g: float, *, gaussian: bool = False, seed: int = 0
    ) -> Any:
        """Return retention in training, and whether that converged; on Gaussian views instead."""
        rng, x, x_plus = np.random.default_rng(seed), self.x, self.x_plus
        if gaussian:
            drawn = centered(*gaussian_views(self.moments, len(x), rng))
            x, x_plus = matching(*drawn, self.moments)
        batch = loss.empirical(x, x_plus, k, g)
        moments = pyssl.Moments.from_views(x, x_plus).centered()
        end = train(batch, moments, loss.embedding_unit, rng)
        found = pyssl.class_retention(end.weights, self.mix, self.aug, loss=loss)
        return found, end.converged


def matching(x: np.ndarray, x_plus: np.ndarray, m: pyssl.Moments) -> tuple[np.ndarray, np.ndarray]:
    """Return views moved by as little as sampling noise, to have exactly these moments."""
    middle = recoloured(0.5 * (x + x_plus), m.covariance - 0.5 * m.augmentation_covariance)
    half = recoloured(0.5 * (x - x_plus), 0.5 * m.augmentation_covariance)
    return middle + half, middle - half


def recoloured(rows: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Return rows of exactly that second moment, by a map that is the identity but for noise."""
    own = rows.T @ rows / len(rows)
    root = scipy.linalg.sqrtm(own).real
    between = scipy.linalg.sqrtm(root @ covariance @ root).real
    inverse = np.linalg.inv(root)
    return rows @ (inverse @ between @ inverse)


def centered(x: np.ndarray, x_plus: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = 0.5 * (x.mean(axis=0) + x_plus.mean(axis=0))
    return x - mean, x_plus - mean


def near(study: Study, sample: Sample, k: int, g: float) -> bool:
    """Return whether theory changes its mind about a class within 3%.

    Of the decay; by capacity, of the alignments of the last mode that has room and the next. Or
    whether a retention lies as near to the threshold of 1/2.
    """
    moments = sample.moments
    retention = sample.theory(study.loss, moments, k, g)
    if (np.abs(retention / KEPT - 1.0) < NEAR).any():
        return True
    if g == 0.0:
        rho = moments.alignments
        return k < len(rho) and bool(rho[k - 1] - rho[k] <= NEAR * rho[k - 1])
    kept = {tuple(retention >= KEPT)}
    for factor in (1.0 - NEAR, 1.0 + NEAR):
        kept.add(tuple(sample.theory(study.loss, moments, k, factor * g) >= KEPT))
    return len(kept) > 1


def compared(study: Study, sample: Sample, k: int, g: float) -> dict[str, Any]:
    """Return theory and training side by side."""
    theory = sample.theory(study.loss, sample.moments, k, g)
    population = sample.theory(study.loss, sample.mix.moments(sample.aug).centered(), k, g)
    trained, converged = sample.trained(study.loss, k, g)
    result: dict[str, Any] = {
        "k": k,
        "weight_decay": g,
        "priors": sample.mix.priors.tolist(),
        "theory": theory.tolist(),
        "population": population.tolist(),
        "trained": trained.tolist(),
        "agree": np.array_equal(theory >= KEPT, trained >= KEPT),
        "population_agrees": np.array_equal(population >= KEPT, trained >= KEPT),
        "converged": converged,
    }
    if not result["agree"] and study.loss.needs_gaussian_views:
        gaussian, _ = sample.trained(study.loss, k, g, gaussian=True)
        result["gaussian"] = gaussian.tolist()
        result["gaussian_agrees"] = np.array_equal(theory >= KEPT, gaussian >= KEPT)
    return result


def retention(study: Study, *, quick: bool) -> Iterator[tuple[str, Any]]:
    """Yield names of settings, and functions that compute them."""
    for setting in settings(study):
        if quick and setting.ratio != 30.0:
            continue

        def run(setting: Setting = setting) -> dict[str, Any]:
            mix, aug = mixture(setting.kind, setting.ratio, setting.seed)
            n = 1000 if quick else study.n
            sample = Sample.draw(mix, aug, n, np.random.default_rng(setting.seed))
            g, k = decay_and_dim(study, setting, sample.moments)
            about = {"aim": setting.aim, "near": near(study, sample, k, g)}
            return about if about["near"] else about | compared(study, sample, k, g)

        yield setting.name, run


# ---- critical priors -----------------------------------------------------------------------------


def critical_settings(
    study: Study, mix: pyssl.Mixture, aug: Any, aim: str
) -> Iterator[tuple[int, float, float]]:
    """Yield k, g and the critical prior of the last class, where it is rare and crosses there."""
    last = CLASSES - 1

    def prior(k: int, g: float) -> float:
        return pyssl.critical_prior(
            study.loss,
            mix,
            aug,
            last,
            embedding_dim=k,
            weight_decay=g,
            centered=True,
            smallest=1e-3,
            tolerance=1e-3,
        )

    if aim == "capacity":
        for k in (2, 3, 4):
            p = prior(k, 0.0)
            if 0.01 < p < 0.4:
                yield k, 0.0, p
        return
    for wanted in (0.05, 0.15):
        at = critical_decays(study, mix.with_prior(last, wanted).moments(aug).centered())
        for g in at[(at > 0.0) & np.isfinite(at)]:
            p = prior(DIM, float(g))
            if abs(p / wanted - 1.0) < 0.2:  # the mode is that of the class
                yield DIM, float(g), p
                break


def critical(study: Study, *, quick: bool) -> Iterator[tuple[str, Any]]:
    """Yield names of mixtures, and functions that train around their critical priors."""
    for kind in ("axes", "oblique"):
        for seed in (1,) if quick else (1, 2):
            for aim in study.critical:

                def run(kind: str = kind, seed: int = seed, aim: str = aim) -> dict[str, Any]:
                    mix, aug = mixture(kind, 3.0, seed)
                    found = []
                    for k, g, p in critical_settings(study, mix, aug, aim):
                        for factor in (1.0 - AROUND, 1.0 + AROUND):
                            there = mix.with_prior(CLASSES - 1, factor * p)
                            rng = np.random.default_rng(seed)
                            n = 1000 if quick else study.n
                            sample = Sample.draw(there, aug, n, rng, matched=True)
                            side = compared(study, sample, k, g)
                            theory, trained = side["theory"][-1], side["trained"][-1]
                            found.append(
                                {
                                    "critical_prior": p,
                                    "factor": factor,
                                    "k": k,
                                    "weight_decay": g,
                                    "expected": factor > 1.0,
                                    "theory": theory,
                                    "trained": trained,
                                    "gaussian": side.get("gaussian", [None])[-1],
                                }
                            )
                    return {"aim": aim, "tried": found}

                yield f"{kind} seed={seed} {aim}", run


# ---- starts --------------------------------------------------------------------------------------


def starts(study: Study, *, quick: bool) -> Iterator[tuple[str, Any]]:
    """Yield names of mixtures, and functions that train from many starts by capacity alone."""
    for kind in ("axes", "oblique"):
        for k in (2, 4) if study.starts else ():

            def run(kind: str = kind, k: int = k) -> dict[str, Any]:
                mix, aug = mixture(kind, 30.0, 10 + k)
                n = 1000 if quick else study.n
                sample = Sample.draw(mix, aug, n, np.random.default_rng(k))
                ends = [
                    sample.trained(study.loss, k, 0.0, seed=seed)[0] >= KEPT
                    for seed in range(study.starts)
                ]
                return {
                    "aim": "starts",
                    "priors": mix.priors.tolist(),
                    "kept": np.mean(ends, 0).tolist(),
                }

            yield f"{kind} {k} dimensions", run


# ---- tables --------------------------------------------------------------------------------------


def title(loss: pyssl.Loss) -> str:
    """Return the loss with the settings that are not its default."""
    given = {item.name: getattr(loss, item.name) for item in fields(loss)}
    changed = (
        f"{item.name}={given[item.name]!r}"
        for item in fields(loss)
        if given[item.name] != item.default
    )
    return f"{type(loss).__name__}({', '.join(changed)})"


def row(name: str, results: list[dict[str, Any]]) -> str:
    """Return one line of the table of retention."""
    cells = [name]
    for aim in ("decay", "capacity"):
        group = [r for r in results if r["part"] == "retention" and r["aim"] == aim]
        kept = [r for r in group if not r["near"]]
        if not group:
            cells += ["", "", ""]
            continue
        equal = sum(r["agree"] for r in kept)
        error = np.median([np.abs(np.subtract(r["theory"], r["trained"])).max() for r in kept])
        cells += [f"{equal} of {len(kept)}", f"{len(group) - len(kept)}", f"{error:.2f}"]
    return "| " + " | ".join(cells) + " |"


def critical_row(name: str, results: list[dict[str, Any]]) -> str:
    """Return one line of the table of critical priors."""
    cells = [name]
    for aim in ("decay", "capacity"):
        group = [r for r in results if r["part"] == "critical" and r["aim"] == aim]
        tried = [item for r in group for item in r["tried"]]
        if not tried:
            cells += ["", ""]
            continue
        right = sum((t["trained"] >= KEPT) == t["expected"] for t in tried)
        priors = sorted({t["critical_prior"] for t in tried})
        cells += [f"{right} of {len(tried)}", f"{priors[0]:.3f} to {priors[-1]:.3f}"]
    return "| " + " | ".join(cells) + " |"


def starts_table(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return how often each class is kept by capacity alone, over many starts."""
    rows = [(name, r) for name, rs in found.items() for r in rs if r["part"] == "starts"]
    if not rows:
        return []
    priors = " | ".join(f"{p:.3f}" for p in rows[0][1]["priors"])
    lines = [f"| loss | mixture | {priors} |", "|---|---|" + "---|" * CLASSES]
    for name, r in rows:
        lines.append(
            f"| {name} | {r['setting']} | " + " | ".join(f"{x:.0%}" for x in r["kept"]) + " |"
        )
    return [*lines, ""]


def misses(name: str, results: list[dict[str, Any]]) -> list[str]:
    """Return a line for each setting in which training differs from theory."""

    def shown(values: list[float]) -> str:
        return ", ".join(f"{value:.2f}" for value in values)

    lines = []
    for r in results:
        if r["part"] == "retention" and not r["near"] and not r["agree"]:
            text = f"* {name}, {r['setting']}: {shown(r['theory'])} predicted,"
            text += f" {shown(r['trained'])} trained"
            if "gaussian" in r:
                text += f", {shown(r['gaussian'])} on Gaussian views of the same moments"
            lines.append(text + ("" if r["converged"] else "; the training did not converge"))
        for t in r.get("tried", []):
            if (t["trained"] >= KEPT) != t["expected"]:
                text = (
                    f"* {name}, {r['setting']}: at {t['factor']:g} of the critical prior"
                    f" {t['critical_prior']:.3f}, {t['theory']:.2f} predicted,"
                    f" {t['trained']:.2f} trained"
                )
                if t["gaussian"] is not None:
                    text += f", {t['gaussian']:.2f} on Gaussian views of the same moments"
                lines.append(text)
    return lines


def tables(found: dict[str, list[dict[str, Any]]]) -> str:
    """Return what a store holds, as markdown."""
    lines = [
        "| loss | by decay: classes agree | near | median gap | by capacity | near | median gap |",
        "|---|---|---|---|---|---|---|",
        *(row(name, results) for name, results in found.items()),
        "",
        "| loss | by decay: as predicted | critical priors | by capacity | critical priors |",
        "|---|---|---|---|---|",
        *(critical_row(name, results) for name, results in found.items()),
        "",
        *starts_table(found),
    ]
    settled = [r for rs in found.values() for r in rs if r["part"] == "retention" and not r["near"]]
    near_ones = sum(r.get("near", False) for rs in found.values() for r in rs)
    tried = [t for rs in found.values() for r in rs for t in r.get("tried", [])]
    right = sum((t["trained"] >= KEPT) == t["expected"] for t in tried)
    equal, population = (sum(r[key] for r in settled) for key in ("agree", "population_agrees"))
    lines += [
        (
            f"Classes kept and lost agree in {equal} of {len(settled)} settings ({population} with"
            f" the moments of the mixture instead of the sample's); {near_ones} more are near a"
            f" threshold. Around critical priors {right} of {len(tried)}."
        ),
        "",
        *(line for name, results in found.items() for line in misses(name, results)),
    ]
    return "\n".join(lines) + "\n"


# ---- command line --------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [study.name for study in STUDIES]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--parts", nargs="+", default=["retention", "critical", "starts"])
    parser.add_argument("--quick", action="store_true", help="few settings of few pairs, a minute")
    parser.add_argument("--store", type=Path, default=Path("build/imbalance"))
    parser.add_argument("--out", type=Path, help="write the tables here, else they are printed")
    options = parser.parse_args(arguments)
    pyssl.set_num_threads(1)
    options.store.mkdir(parents=True, exist_ok=True)
    found = {}
    for study in STUDIES:
        if study.name not in options.only:
            continue
        path = options.store / f"{study.name}{'-quick' if options.quick else ''}.jsonl"
        done = []
        if path.exists():
            done = [json.loads(line) for line in path.read_text().splitlines()]
        known = {(r["part"], r["setting"]) for r in done}
        parts = {
            "retention": retention(study, quick=options.quick),
            "critical": critical(study, quick=options.quick),
            "starts": starts(study, quick=options.quick),
        }
        for part in options.parts:
            for name, compute in parts[part]:
                if (part, name) in known:
                    continue
                start = time.perf_counter()
                result = {"part": part, "setting": name} | compute()
                result["seconds"] = time.perf_counter() - start
                done.append(result)
                with path.open("a") as file:
                    file.write(json.dumps(result) + "\n")
                agree = result.get("agree", math.nan)
                print(
                    f"{study.name} {part} {name}: {agree} {result['seconds']:.1f} s",
                    file=sys.stderr,
                    flush=True,
                )
        found[title(study.loss)] = done
    text = tables(found)
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
