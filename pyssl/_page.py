"""The page that `pyssl.report` writes: one HTML file, figures inside, no script, no link."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import pyssl
from pyssl import _advice, _checks, plots
from pyssl._views import About
from pyssl.collapse import Cause, CollapseReport
from pyssl.moments import Moments
from pyssl.spectral import SpectralLandscape
from pyssl.verification import Verification

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]

_CAUSE = {
    Cause.LEARNED: ("learned", "active at the global minimum"),
    Cause.CAPACITY: (
        "lost to capacity",
        "worth learning, but the embedding has too few dimensions",
    ),
    Cause.DECAY: ("lost to weight decay", "learned without the weight decay"),
    Cause.AUGMENTATION: (
        "lost to augmentation",
        "not learned even without weight decay: the views agree too little along it",
    ),
    Cause.NO_VARIATION: ("no variation", "the views do not vary along it"),
    Cause.COMPETITION: ("lost to competition", "crowded out by better aligned modes"),
}
_MODES_DRAWN = 24
_BARS_DRAWN = 24
_ROWS_SHOWN = 64
_PLANE = (0.12, 0.125, 1.0, 0.93)  # the colour bar takes its place from the axes
_GRID = np.linspace(-1.5, 1.5, 61)


@dataclass
class Page:
    """A page under construction: `add` a section for each loss, then `render`."""

    about: About
    moments: Moments
    embedding_dim: int
    weight_decay: float
    missing: dict[str, str]
    rows: list[str] = field(default_factory=list)
    sections: list[str] = field(default_factory=list)
    causes: set[Cause] = field(default_factory=set)

    def add(
        self,
        land: SpectralLandscape,
        report: CollapseReport,
        *,
        name: str,
        remark: str,
        kept: Sequence[str],
        reasons: Sequence[str],
        changes: Sequence[str],
        notes: Sequence[str],
        verification: Verification | None = None,
    ) -> None:
        """Add a loss: a row of the overview and a section with its pictures."""
        tally = _advice.counts(report)
        self.causes |= {cause for cause, count in tally.items() if count}
        anchor = f"loss-{len(self.sections) + 1}"
        self.rows.append(_overview_row(anchor, name, report, tally))
        figures = [
            _figure(
                _draw(lambda ax: plots.spectrum(report, ax), "svg"),
                "Critical weight decay of every mode, with the decay in force",
                _spectrum_caption(report),
            ),
            _figure(
                _draw(lambda ax: plots.budget(report, ax, most=_BARS_DRAWN), "svg"),
                "How the signal of each mode is spent",
                f"What becomes of the signal of the first {min(_BARS_DRAWN, len(report.modes))}"
                " modes. Where the costs reach the black line nothing is left to learn from.",
            ),
            self._directions(land, report),
            _plane_figure(land, report),
        ]
        self.sections.append(
            f'<section id="{anchor}">\n<h2>{escape(name)}'
            f' <span class="kind {report.kind}">{_advice.kind(report)}</span></h2>\n'
            f'<p class="settings"><code>{escape(report.loss)}</code>, embedding dimension'
            f" {land.embedding_dim}, weight decay {report.weight_decay:g}</p>\n"
            + (f"<p>{escape(remark)}</p>\n" if remark else "")
            + '<div class="words">\n'
            + _list("What it keeps and loses", kept)
            + _list("Why", reasons)
            + _list("What would change that", changes)
            + "</div>\n"
            + f'<div class="figures">{"".join(figures)}</div>\n'
            + ("" if verification is None else _training(verification))
            + (_list("Notes", notes, kind="notes") if notes else "")
            + _mode_table(report)
            + "</section>\n"
        )

    def _directions(self, land: SpectralLandscape, report: CollapseReport) -> str:
        shape = self.about.image_shape
        drawn = min(_MODES_DRAWN, land.dim)
        margins = (0.0, 0.0, 1.0, 1.0) if shape else (0.24, 0.125, 0.985, 0.98)
        what = f"{shape[0]} x {shape[1]} pictures" if shape else "rows, one column for each input"
        return _figure(
            _draw(
                lambda ax: plots.modes(land, report, shape, ax, most=drawn), "png", margins=margins
            ),
            f"Directions of the first {drawn} modes",
            f"The first {drawn} modes as {what}: how each input goes along with the mode, red"
            " against blue. Shown is their correlation, which does not depend on the units of the"
            " inputs, each mode on its own scale. The frame says what became of the mode.",
        )

    def render(self) -> str:
        """Return the page."""
        m, g = self.moments, self.weight_decay
        n = "" if m.n_samples is None else f" from n = {m.n_samples:,} pairs"
        facts = (
            f"Moments of the views{n}: d = {m.dim} inputs that vary in {m.rank} dimensions;"
            f" alignment of the two views {_range(m.alignments)}."
            if m.rank
            else f"Moments of the views{n}: d = {m.dim} inputs, of which none varies."
        )
        subtitle = (
            f"{self.about.title} · embedding dimension {self.embedding_dim} · weight decay {g:g}"
        )
        parts = [
            "<h1>What each loss keeps and loses</h1>\n",
            f'<p class="subtitle">{escape(subtitle)}</p>\n',
            _overview(self.rows, self.missing),
            _legend(self.causes),
            '<section>\n<h2>The views</h2>\n<div class="data"><div>\n',
            "".join(f"<p>{escape(text)}</p>\n" for text in self.about.description),
            f"<p>{escape(facts)}</p>\n</div>",
            self._gallery(),
            "</div>\n",
            _list("What to keep in mind", self._caveats(), kind="notes"),
            "</section>\n",
            *self.sections,
        ]
        title = f"pyssl report: {self.about.title}"
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(title)}</title>\n<style>\n{_style()}</style>\n</head>\n<body>\n<main>\n"
            + "".join(parts)
            + f"</main>\n<footer>pyssl {pyssl.__version__}</footer>\n</body>\n</html>\n"
        )

    def _caveats(self) -> list[str]:
        texts = [
            (
                "All losses see the same centred moments: the mean of the views is subtracted"
                " before anything else, so that the losses can be compared. InfoNCE on squared"
                " distances, Barlow Twins and VICReg do not see the mean anyway."
            ),
            (
                "Shifting a picture is not a Gaussian augmentation, and digits are not Gaussian"
                " data. InfoNCE's population form is exact for Gaussian views only; here it is an"
                " approximation that knows the views by their second moments. Whether the origin"
                " is a local minimum of InfoNCE depends on second moments alone, whatever the"
                " distribution; how many modes are learned away from it, and how strongly, does"
                " not. The other losses on this page are exact for any distribution."
                if self.about.gaussian is False
                else "InfoNCE's population form is exact for Gaussian views only. Masks, shifts,"
                " rescalings and reflections break that even for Gaussian data; it is then an"
                " approximation that knows the views by their second moments. Whether the origin"
                " is a local minimum of InfoNCE depends on second moments alone, whatever the"
                " distribution. Spectral contrastive, unnormalised Barlow Twins and squared VICReg"
                " are exact for any distribution."
            ),
            (
                "The model is linear, z = W x, and each section describes the global minimum of"
                " its landscape. Modes are counted in descending order of their eigenvalue; causes"
                " go by that count."
            ),
        ]
        if self.moments.n_samples is not None:
            noise = math.sqrt(2.0 * self.moments.dim / self.moments.n_samples)
            texts.append(
                "The moments come from a sample: alignments carry noise of up to sqrt(2d/n) ="
                f" {noise:.2g}, and modes near a threshold could go the other way in another"
                " sample. The notes of each loss count them."
            )
        return texts

    def _gallery(self) -> str:
        gallery = self.about.gallery
        if gallery is None:
            return ""
        columns, height, width = gallery.shape[1:]

        def draw(ax: Any) -> None:
            plots.pictures(gallery.reshape(-1, height, width), ax=ax, columns=columns, signed=False)
            for row, label in enumerate(self.about.gallery_labels):
                y = row * (height + 2) + 0.5 * height + 0.5
                ax.text(-1.0, y, label, ha="right", va="center", fontsize="small")

        return _figure(
            _draw(draw, "png", (6.0, 1.9), (0.16, 0.0, 1.0, 1.0)),
            "Samples and their views",
            f"{columns} samples and a pair of views of each.",
        )


def _spectrum_caption(report: CollapseReport) -> str:
    """Describe the picture of critical decays: only lines and marks that it has."""
    critical, bottom = report.critical_weight_decay, plots.decay_range(report)[0]
    lines = []
    if report.weight_decay > 0.0:
        lines.append("marks above the dashed line survive the decay in force")
    if report.minimum.weights.shape[0] < len(critical):
        lines.append("marks left of the dotted line find room in the embedding")
    if (critical <= bottom).any():
        small = ((critical > 0.0) & (critical <= bottom)).any()
        edge = f"zero, or for less than {_advice._from(bottom)}" if small else "zero"
        lines.append(f"marks on the bottom edge stand for {edge}")
    text = "The weight decay from which on each mode is lost."
    if not lines:
        return text
    words = ", ".join(lines)
    return f"{text} {words[0].upper()}{words[1:]}."


def _training(check: Verification) -> str:
    """Return the part of a section that sets training beside theory."""
    verdict = "Training ends where theory says" if check.agrees else "Training ends elsewhere"
    return (
        f'<div class="training">\n<h3>{verdict}</h3>\n'
        f"<p>The same loss, trained on {check.n_samples:,} pairs of these views from a small"
        " start, beside theory for the moments of the same pairs.</p>\n"
        f"<pre>{escape(str(check))}</pre>\n</div>\n"
    )


# ---- the plane -----------------------------------------------------------------------------------


def _plane_figure(land: SpectralLandscape, report: CollapseReport) -> str:
    """Draw the plane through the origin and the minimum, or say why there is none."""
    found = plane_through_minimum(land, report)
    if found is None:
        why = (
            "no minimum exists"
            if not report.minimum.attained
            else "the landscape has a single direction"
        )
        return f"<figure><figcaption>No plane to draw: {why}.</figcaption></figure>"
    values, points, words = found
    return _figure(
        _draw(
            lambda ax: plots.plane(values, _GRID, _GRID, ax, points=points), "png", margins=_PLANE
        ),
        "The landscape on a plane through the origin and the minimum",
        words,
    )


def plane_through_minimum(
    land: SpectralLandscape, report: CollapseReport, grid: Array = _GRID
) -> tuple[Array, dict[str, tuple[float, float]], str] | None:
    """Return L(u D1 + v D2) on a grid, points to mark, and words; None where there is no plane.

    D1 holds the first modes of the minimum, D2 its others, cut so that each half gains about as
    much: the minimum is at (1, 1), and where only one half is learned is a saddle. With one mode or
    none, the next modes stand in.
    """
    minimum, (k, d) = report.minimum, land.shape
    if not minimum.attained:
        return None
    first, second = np.zeros((k, d)), np.zeros((k, d))
    rank, dimensions = minimum.rank, f"in the {k * d:,} dimensions of W"
    points: dict[str, tuple[float, float]] = {"origin": (0.0, 0.0)}
    if rank >= 2:
        n = minimum.amplitudes[:rank]
        gains = np.cumsum(land.eigenvalues[:rank] * n - land.potential.value(n))
        cut = 1 + int(np.argmin(np.abs(gains[:-1] - 0.5 * gains[-1])))
        first[:cut], second[cut:rank] = minimum.weights[:cut], minimum.weights[cut:rank]
        points |= {"minimum": (1.0, 1.0), "saddle": (1.0, 0.0), "saddle ": (0.0, 1.0)}
        words = (
            f"A plane {dimensions}, through the origin and the minimum: u scales"
            f" {_span(1, cut)} of the minimum, v {_span(cut + 1, rank)}. At the saddles only one of"
            " the two groups is learned. Signs do not matter, so the minimum shows four times."
        )
    elif d < 2:
        return None
    else:
        # beside the one mode learned, or instead of it, the next best; all at one amplitude
        size = math.sqrt(float(minimum.amplitudes[0])) if rank else 1.0
        first[0] = size * land.vectors[:, 0]
        second[min(1, k - 1)] = size * land.vectors[:, 1]
        if rank:
            points["minimum"] = (1.0, 0.0)
            words = (
                f"A plane {dimensions}, through the origin and the minimum: u scales mode 1, the"
                " only one learned, v mode 2, which is not. Signs do not matter, so the minimum"
                " shows twice."
            )
        else:
            points = {"origin = minimum": (0.0, 0.0)}
            words = (
                f"A plane {dimensions}, through the origin, which is the minimum: u scales mode 1,"
                " v mode 2, the two that come closest to being learned."
            )
    index = land.origin().index
    if rank:
        words += f" At the origin {index:,} independent directions lead down."
    origin = np.zeros((k, d))
    if k == 1:
        return land.plane(origin, first, second, grid, grid), points, words
    # Different rows hold different modes, so that the landscape on this plane is a sum of one
    # function of u and one of v: two lines instead of a grid of k x k eigenvalue problems.
    along = land.plane(origin, first, second, grid, np.zeros(1))
    across = land.plane(origin, first, second, np.zeros(1), grid)
    return along + across - float(land.value(origin)), points, words


def _span(first: int, last: int) -> str:
    if first == last:
        return f"mode {first}"
    return f"modes {first} {'and' if last == first + 1 else 'to'} {last}"


# ---- figures -------------------------------------------------------------------------------------


def _draw(
    draw: Any,
    kind: str,
    size: tuple[float, float] = (5.6, 3.7),
    margins: tuple[float, float, float, float] = (0.15, 0.125, 0.985, 0.88),
) -> str:
    """Return a figure as a data URI; the user's backend and settings stay as they are.

    Of kind "svg" where it holds marks, "png" where it holds pixels. Margins (left, bottom, right,
    top) are given because finding them costs as much as drawing.
    """
    with _checks.needs("pages need Matplotlib"):
        import matplotlib as mpl
        from matplotlib.figure import Figure
    with mpl.rc_context(_RC):
        figure: Figure = Figure(figsize=size)
        draw(figure.add_axes(_box(margins)))
        return _data_uri(figure, kind)


_RC: Any = {
    "font.size": 9.0,
    "axes.linewidth": 0.8,
    "axes.labelcolor": "#333333",
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "svg.hashsalt": "pyssl",  # the same input gives the same page
    "svg.fonttype": "path",
}


def _box(margins: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    left, bottom, right, top = margins
    return left, bottom, right - left, top - bottom


def _data_uri(figure: Figure, kind: str) -> str:
    stream = io.BytesIO()
    # without the date and the address of Matplotlib's home
    nothing = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    figure.savefig(stream, format=kind, dpi=160, metadata=nothing)
    mime = {"svg": "image/svg+xml", "png": "image/png"}[kind]
    return f"data:{mime};base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _figure(uri: str, alternative: str, caption: str) -> str:
    return (
        f'<figure><img src="{uri}" alt="{escape(alternative)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )


# ---- tables and text -----------------------------------------------------------------------------


def _overview(rows: list[str], missing: dict[str, str]) -> str:
    head = "".join(
        f"<th{extra}>{text}</th>"
        for text, extra in (
            ("loss", ""),
            ("collapse", ""),
            ("rank", ' class="number" title="modes learned"'),
            ("capacity", ' class="number" title="modes that the embedding could learn"'),
            ("effective rank", ' class="number"'),
            ("learned and lost", ' class="wide"'),
        )
    )
    absent = "".join(
        f'<tr class="missing"><th scope="row">{escape(name)}</th>'
        f'<td colspan="5">left out: {escape(why)}</td></tr>\n'
        for name, why in missing.items()
    )
    return (
        f'<div class="overview"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "".join(rows)
        + absent
        + "</tbody>\n</table></div>\n"
    )


def _overview_row(anchor: str, name: str, report: CollapseReport, tally: dict[Cause, int]) -> str:
    present = {cause: count for cause, count in tally.items() if count}
    bar = "".join(
        f'<span class="{_css(cause)}" style="flex-grow:{count}"></span>'
        for cause, count in present.items()
    )
    words = ", ".join(f"{count} {_CAUSE[cause][0]}" for cause, count in present.items())
    return (
        f'<tr><th scope="row"><a href="#{anchor}">{escape(name)}</a></th>'
        f'<td><span class="kind {report.kind}">{_advice.kind(report)}</span></td>'
        f'<td class="number">{report.rank}</td><td class="number">{report.capacity}</td>'
        f'<td class="number">{_number(report.effective_rank, ".1f")}</td>'
        f'<td><div class="bar">{bar}</div><div class="small">{words}</div></td></tr>\n'
    )


def _legend(causes: set[Cause]) -> str:
    items = "".join(
        f'<li><span class="swatch {_css(cause)}"></span><b>{label}</b>: {meaning}</li>'
        for cause, (label, meaning) in _CAUSE.items()
        if cause in causes
    )
    return (
        '<div class="legend"><p>A <b>mode</b> is a direction in input space that a loss treats on'
        " its own: it is either learned, and then takes one embedding dimension, or lost. The"
        " <b>rank</b> counts the modes learned, the <b>capacity</b> how many fit.</p>"
        f"<ul>{items}</ul></div>\n"
    )


def _mode_table(report: CollapseReport) -> str:
    names = [item.name for item in fields(report.modes) if item.name != "cause"]
    head = "".join(f'<th class="number">{name}</th>' for name in ("mode", *names))
    head += '<th class="number">critical decay</th><th>cause</th>'
    shown = min(len(report.modes), _ROWS_SHOWN)
    rows = []
    for index in range(shown):
        cause = report.modes.cause[index]
        cells = [getattr(report.modes, name)[index] for name in names]
        cells.append(report.critical_weight_decay[index])
        numbers = "".join(f'<td class="number">{_number(x, ".4g")}</td>' for x in cells)
        rows.append(
            f'<tr><td class="number">{index + 1}</td>{numbers}'
            f'<td><span class="swatch {_css(cause)}"></span>{cause}</td></tr>\n'
        )
    rest = len(report.modes) - shown
    more = (
        f'<tr><td colspan="{len(names) + 3}">... and {rest} more modes</td></tr>\n' if rest else ""
    )
    return (
        f"<details><summary>Table of all {len(report.modes)} modes</summary>\n"
        '<p class="small">eigenvalue = signal - augmentation - decay; a mode is learned where that'
        " is positive and the embedding has room. Alignment: correlation of the two views along the"
        " mode. Amplitude: how strongly it is embedded at the minimum.</p>\n"
        f'<div class="scroll"><table class="modes">\n<thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "".join(rows)
        + more
        + "</tbody>\n</table></div></details>\n"
    )


def _list(title: str, texts: Sequence[str], kind: str = "") -> str:
    if not texts:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<div class="{kind}"><h3>{title}</h3><ul>{items}</ul></div>\n'


def _number(value: float, form: str) -> str:
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0.0 else "−∞"
    return f"{value + 0.0:{form}}".replace("-", "−")


def _range(values: Array) -> str:
    return f"from {values.min():.2f} to {values.max():.2f}"


def _css(cause: Cause) -> str:
    return "cause-" + str(cause).replace(" ", "-")


def _style() -> str:
    causes = "".join(
        f".{_css(cause)} {{ background: {colour}; }}\n"
        for cause, colour in plots.CAUSE_COLOURS.items()
    )
    return _STYLE + causes


_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f5f4; color: #1f2725; line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 2rem 1.25rem 1rem; }
h1 { font-size: 1.9rem; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 1.35rem; margin: 0 0 0.4rem; }
h3 { font-size: 0.85rem; margin: 0 0 0.3rem; color: #4b5a56; }
a { color: #00664b; }
.subtitle { margin: 0.2rem 0 1.4rem; color: #55625f; }
section, .overview, .legend { background: #fff; border: 1px solid #dfe3e1; border-radius: 8px; }
section { padding: 1.4rem 1.5rem; margin: 1.4rem 0; }
table { border-collapse: collapse; font-size: 0.92rem; }
.overview { overflow-x: auto; }
.overview table { width: 100%; min-width: 56rem; }
.overview th, .overview td { padding: 0.6rem 0.8rem; text-align: left; vertical-align: middle;
  border-bottom: 1px solid #eaedec; }
.overview tr:last-child > * { border-bottom: 0; }
.overview thead th { background: #eef1f0; font-size: 0.8rem; color: #4b5a56; }
.overview th.wide { width: 44%; }
.overview .number, .modes .number { text-align: right; font-variant-numeric: tabular-nums; }
.missing > * { color: #76827f; font-weight: normal; }
.bar { display: flex; height: 0.8rem; border-radius: 3px; overflow: hidden; gap: 1px; }
.small { font-size: 0.8rem; color: #55625f; margin: 0.2rem 0 0; }
.kind { display: inline-block; font-size: 0.8rem; font-weight: 600; padding: 0.1rem 0.55rem;
  border-radius: 1rem; white-space: nowrap; vertical-align: middle; }
.kind.none { background: #d9f0e7; color: #00553e; }
.kind.dimensional { background: #fdeecd; color: #6f4900; }
.kind.complete { background: #f9dcd2; color: #8a2f0b; }
.legend { padding: 0.8rem 1.2rem; margin: 0.8rem 0; font-size: 0.88rem; }
.legend p { margin: 0 0 0.4rem; }
.legend ul { margin: 0; padding: 0; list-style: none; display: grid; gap: 0.1rem 1.4rem;
  grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); }
.swatch { display: inline-block; width: 0.7rem; height: 0.7rem; border-radius: 2px;
  margin-right: 0.45rem; vertical-align: baseline; }
.settings { margin: 0 0 0.6rem; color: #55625f; font-size: 0.85rem; }
code { font-size: 0.95em; }
.data { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr));
  align-items: center; }
.words { display: grid; gap: 1rem 2rem; margin: 0.8rem 0 1.2rem;
  grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); }
.words ul, .notes ul { margin: 0; padding-left: 1.1rem; font-size: 0.92rem; }
.words li, .notes li { margin-bottom: 0.3rem; }
.notes { margin: 0.8rem 0; }
.notes ul { font-size: 0.85rem; color: #4b5a56; }
.figures { display: grid; gap: 1.2rem 1.8rem;
  grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); }
figure { margin: 0; }
figure img { width: 100%; height: auto; display: block; }
figcaption { font-size: 0.82rem; color: #55625f; margin-top: 0.3rem; }
details { margin-top: 1rem; }
summary { cursor: pointer; color: #00664b; font-size: 0.92rem; }
.scroll { overflow-x: auto; }
.modes { font-size: 0.82rem; }
.modes th, .modes td { padding: 0.15rem 0.7rem 0.15rem 0; text-align: left; white-space: nowrap; }
.modes th { border-bottom: 1px solid #cfd6d3; }
footer { max-width: 72rem; margin: 0 auto; padding: 0 1.25rem 2rem; color: #76827f;
  font-size: 0.8rem; }
@media print { body { background: #fff; } section { break-inside: avoid; } }
"""
