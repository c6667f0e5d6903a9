"""Pictures of results: every function takes what was computed and returns Matplotlib axes.

Nothing is computed here, no figure is shown or saved, and the backend stays the user's. Matplotlib
comes with ``python -m pip install "pyssl-landscapes[app]"`` and loads when a picture is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._downstream_plots import downstream, helpful_collapse
from pyssl._drawing import INK, axes, finish
from pyssl._phase import phase_diagram
from pyssl._retention_plots import retention
from pyssl._training_plots import flow, verification
from pyssl._well_plots import wells
from pyssl.collapse import Cause, CollapseReport
from pyssl.spectral import SpectralLandscape

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "CAUSE_COLOURS",
    "budget",
    "downstream",
    "flow",
    "helpful_collapse",
    "modes",
    "phase_diagram",
    "pictures",
    "plane",
    "retention",
    "spectrum",
    "verification",
    "wells",
]

Array = npt.NDArray[np.float64]

# Okabe and Ito's palette, distinct under every colour blindness; the markers say it again.
CAUSE_COLOURS: dict[Cause, str] = {
    Cause.LEARNED: "#009e73",
    Cause.CAPACITY: "#0072b2",
    Cause.DECAY: "#e69f00",
    Cause.AUGMENTATION: "#cc79a7",
    Cause.NO_VARIATION: "#8c8c8c",
    Cause.COMPETITION: "#d55e00",
}
_MARKERS: dict[Cause, str] = {
    Cause.LEARNED: "o",
    Cause.CAPACITY: "s",
    Cause.DECAY: "v",
    Cause.AUGMENTATION: "d",
    Cause.NO_VARIATION: "x",
    Cause.COMPETITION: "^",
}
_LABELS: dict[Cause, str] = {
    Cause.LEARNED: "learned",
    Cause.CAPACITY: "lost to capacity",
    Cause.DECAY: "lost to weight decay",
    Cause.AUGMENTATION: "lost to augmentation",
    Cause.NO_VARIATION: "no variation",
    Cause.COMPETITION: "lost to competition",
}

# How far below the largest critical decay one is drawn at its place, learned or not.
_DECADES = 1e-14


def spectrum(report: CollapseReport, ax: Axes | None = None) -> Axes:
    """Draw the critical weight decay of every mode against the weight decay in force.

    A mode is learned where its mark lies above the horizontal line (its critical decay exceeds the
    decay g) and left of the vertical one (the embedding has room for it).

    Parameters
    ----------
    report : CollapseReport
        Of `classify`, with d modes.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        One line of marks for each cause, labelled with it. The vertical axis is logarithmic. It
        reaches down to every mode learned and to the decay in force, else over 14 decades; marks on
        its bottom edge stand for a critical decay of zero, or below that.

    Raises
    ------
    TypeError
        For anything but a report.
    ImportError
        Without Matplotlib.

    Notes
    -----
    Source: theory 5.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> from matplotlib.figure import Figure
    >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]))
    >>> report = pyssl.classify(pyssl.InfoNCE().population(moments, 2, weight_decay=0.4))
    >>> ax = pyssl.plots.spectrum(report, Figure().subplots())
    >>> [line.get_ydata().tolist() for line in ax.get_lines()[:2]]
    [[1.8], [0.2]]
    """
    _checks.instance("report", report, CollapseReport, "a CollapseReport")
    ax = axes(ax)
    critical, g = report.critical_weight_decay, report.weight_decay
    bottom, top = decay_range(report)
    height = np.clip(critical, bottom, top)
    number = np.arange(1, len(critical) + 1)
    for cause, colour in CAUSE_COLOURS.items():
        chosen = np.array([item is cause for item in report.modes.cause]) & ~np.isnan(critical)
        if chosen.any():
            ax.plot(
                number[chosen],
                height[chosen],
                linestyle="none",
                marker=_MARKERS[cause],
                markersize=5.0,
                color=colour,
                label=f"{_LABELS[cause]} ({int(chosen.sum())})",
                clip_on=False,
                zorder=3,
            )
    if g > 0.0:
        ax.axhline(g, color=INK, linewidth=1.0, linestyle="--")
        ax.annotate(
            f"weight decay {g:g}",
            (1.0, g),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            color=INK,
            fontsize="small",
        )
    k = report.minimum.weights.shape[0]
    if k < len(critical):
        ax.axvline(k + 0.5, color=INK, linewidth=1.0, linestyle=":")
        ax.annotate(
            f"{k} dimensions",
            (k + 0.5, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, -3),
            textcoords="offset points",
            va="top",
            color=INK,
            fontsize="small",
        )
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("")
    ax.set_ylim(bottom, top)
    ax.set_xlim(0.0, len(critical) + 1.0)
    ax.set_xlabel("mode")
    ax.set_ylabel("critical weight decay")
    finish(ax)
    return ax


def budget(report: CollapseReport, ax: Axes | None = None, *, most: int = 24) -> Axes:
    """Draw how each mode's signal is spent: on the augmentation, on the decay, what is left.

    Parameters
    ----------
    report : CollapseReport
        Of `classify` for a loss's landscape.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.
    most : int, optional
        Only so many modes, from the first.

    Returns
    -------
    matplotlib.axes.Axes
        Stacked bars, one container each for what is left (nothing where the costs exceed the
        signal), the augmentation and the decay. Costs beyond 1.5 times the signal are cut off.

    Raises
    ------
    ValueError
        For ``most < 1``.
    TypeError
        For anything but a report.
    ImportError
        Without Matplotlib.

    Notes
    -----
    Source: the exact split lambda = signal - augmentation - decay, theory 5.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> from matplotlib.figure import Figure
    >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]))
    >>> report = pyssl.classify(pyssl.InfoNCE().population(moments, 2, weight_decay=0.4))
    >>> left, augmentation, decay = pyssl.plots.budget(report, Figure().subplots()).containers
    >>> [round(float(bar.get_height()), 12) for bar in decay]
    [0.2, 0.2]
    """
    _checks.instance("report", report, CollapseReport, "a CollapseReport")
    most = _checks.integer("most", most, minimum=1)
    ax = axes(ax)
    table = report.modes
    inside = np.flatnonzero(np.isfinite(table.signal))[:most]
    number = inside + 1
    # a mode of a deep model that has no well has no decay, and nothing left
    left = np.maximum(np.nan_to_num(table.eigenvalue[inside], nan=0.0), 0.0)
    augmentation = np.nan_to_num(table.augmentation[inside], nan=0.0)
    decay = np.nan_to_num(table.decay[inside], nan=0.0)
    parts = (
        ("left to learn from", left, CAUSE_COLOURS[Cause.LEARNED], np.zeros_like(left)),
        ("spent on augmentation", augmentation, CAUSE_COLOURS[Cause.AUGMENTATION], left),
        ("spent on weight decay", decay, CAUSE_COLOURS[Cause.DECAY], left + augmentation),
    )
    for label, heights, colour, base in parts:
        named = label if heights.any() else "_nolegend_"
        ax.bar(number, heights, bottom=base, width=0.8, color=colour, label=named)
    signal = table.signal[inside]
    ax.step(
        np.append(number - 0.5, number[-1:] + 0.5),
        np.append(signal, signal[-1:]),
        where="post",
        color=INK,
        linewidth=1.2,
        label="signal",
    )
    if len(inside):
        ax.set_ylim(0.0, 1.5 * float(signal.max()))
        ax.set_xlim(0.3, number[-1] + 0.7)
    k = report.minimum.weights.shape[0]
    if len(inside) and k < number[-1]:
        ax.axvline(k + 0.5, color=INK, linewidth=1.0, linestyle=":")
    ax.set_xlabel("mode")
    ax.set_ylabel("eigenvalue")
    finish(ax)
    return ax


def modes(
    landscape: SpectralLandscape,
    report: CollapseReport,
    shape: tuple[int, int] | None = None,
    ax: Axes | None = None,
    *,
    most: int = 24,
    columns: int = 6,
) -> Axes:
    """Draw how the inputs go along with each mode, framed by what became of it.

    Parameters
    ----------
    landscape : SpectralLandscape
        With d inputs.
    report : CollapseReport
        Of the same landscape.
    shape : (int, int), optional
        Height and width of the images that the inputs are, for one picture a mode. Without it, one
        row a mode and one column an input.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.
    most : int, optional
        Only so many modes, from the first.
    columns : int, optional
        Pictures side by side.

    Returns
    -------
    matplotlib.axes.Axes
        One image: the correlation of every input with the mode, (Sigma v_j)_i/sd_i up to a factor,
        which does not depend on the units of the inputs; divided by its largest entry in magnitude
        (its sign and scale mean nothing). Modes without variation are blank. Frames have the colour
        of the cause.

    Raises
    ------
    ValueError
        For a shape that is not two integers whose product is d, or a report of another landscape.
    TypeError
        For arguments of the wrong kind.
    ImportError
        Without Matplotlib.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> from matplotlib.figure import Figure
    >>> moments = pyssl.Moments(np.eye(4), np.diag([0.9, 0.5, 0.3, 0.1]))
    >>> land = pyssl.SpectralContrastive().population(moments, embedding_dim=2)
    >>> ax = pyssl.plots.modes(land, pyssl.classify(land), (2, 2), Figure().subplots())
    >>> len(ax.patches)
    4
    """
    _checks.instance("landscape", landscape, SpectralLandscape, "a SpectralLandscape")
    _checks.instance("report", report, CollapseReport, "a CollapseReport")
    if len(report.modes) != landscape.dim:
        raise ValueError(
            f"report must be of the landscape with {landscape.dim} modes, got {len(report.modes)}"
        )
    count = min(_checks.integer("most", most, minimum=1), landscape.dim)
    causes = list(report.modes.cause[:count])
    directions = _patterns(landscape, causes)
    colours = [CAUSE_COLOURS[cause] for cause in causes]
    if shape is not None:
        height, width = _checks.image_shape("shape", shape, landscape.dim)
        images = directions.reshape(count, height, width)
        labels = [str(index + 1) for index in range(count)]
        return pictures(images, labels, ax=ax, columns=columns, frames=colours)
    ax = axes(ax)
    ax.imshow(_scaled(directions), cmap="RdBu_r", vmin=-1.0, vmax=1.0, aspect="auto")
    for index, colour in enumerate(colours):
        ax.add_patch(_rectangle(-0.5, index - 0.5, landscape.dim, 1.0, colour))
    ax.set_yticks(range(count), [f"{index + 1}  {cause}" for index, cause in enumerate(causes)])
    ax.set_xlabel("input")
    ax.set_ylabel("mode")
    return ax


def pictures(
    images: npt.ArrayLike,
    labels: list[str] | None = None,
    ax: Axes | None = None,
    *,
    columns: int = 8,
    frames: list[str] | None = None,
    signed: bool = True,
) -> Axes:
    """Draw small images side by side in one axes.

    Parameters
    ----------
    images : (n, height, width) array_like
    labels : list of str, optional
        One above each image.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.
    columns : int, optional
        Images side by side.
    frames : list of str, optional
        A colour for the frame of each image.
    signed : bool, optional
        True scales each image to its largest magnitude around a white zero, False to its own range
        from white to black.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        For a wrong shape, NaN or infinity.
    TypeError
        For anything but real numbers.
    ImportError
        Without Matplotlib.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> from matplotlib.figure import Figure
    >>> ax = pyssl.plots.pictures(np.eye(3)[None], ["identity"], Figure().subplots())
    >>> ax.get_images()[0].get_array().shape
    (5, 5)
    """
    stack = _checks.array("images", images, ndim=3)
    if stack.size == 0:
        raise ValueError(f"images must have at least one pixel, got shape {stack.shape}")
    columns = _checks.integer("columns", columns, minimum=1)
    for name, each in (("labels", labels), ("frames", frames)):
        if each is not None and len(each) != len(stack):
            raise ValueError(f"{name} must have {len(stack)} entries, got {len(each)}")
    ax = axes(ax)
    count, height, width = stack.shape
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    # a gap of one pixel around every image, wider above where there are labels
    above = max(1, round(0.28 * height)) if labels is not None else 1
    step_y, step_x = height + 1 + above, width + 2
    canvas = np.full((rows * step_y, columns * step_x), np.nan)
    flat = _scaled(stack.reshape(count, -1), signed=signed).reshape(stack.shape)
    for index in range(count):
        y = (index // columns) * step_y + above
        x = (index % columns) * step_x + 1
        canvas[y : y + height, x : x + width] = flat[index]
        if labels is not None:
            ax.text(x + 0.5 * width - 0.5, y - 0.9, labels[index], ha="center", va="bottom",
                    fontsize="small", color=INK)  # fmt: skip
        if frames is not None:
            ax.add_patch(_rectangle(x - 0.5, y - 0.5, width, height, frames[index]))
    low = -1.0 if signed else 0.0
    ax.imshow(canvas, cmap="RdBu_r" if signed else "gray_r", vmin=low, vmax=1.0,
              interpolation="nearest")  # fmt: skip
    ax.set_axis_off()
    return ax


def plane(
    values: npt.ArrayLike,
    u: npt.ArrayLike,
    v: npt.ArrayLike,
    ax: Axes | None = None,
    *,
    points: Mapping[str, tuple[float, float]] | None = None,
    levels: int = 24,
) -> Axes:
    """Draw the contours of a landscape on a plane.

    Parameters
    ----------
    values : (m, n) array_like
        Of `Landscape.plane`.
    u, v : (m,), (n,) array_like
        Its coordinates, increasing; u is drawn to the right, v upwards.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.
    points : mapping of str to (float, float), optional
        Coordinates (u, v) to mark and name.
    levels : int, optional
        About how many contours.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        For a wrong shape, NaN or infinity.
    TypeError
        For anything but real numbers.
    ImportError
        Without Matplotlib.

    Notes
    -----
    Source: theory 2.8.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> from matplotlib.figure import Figure
    >>> land = pyssl.SpectralLandscape(np.eye(2), np.eye(2), pyssl.Quartic(0.5), 1)
    >>> u = np.linspace(-1.5, 1.5, 31)
    >>> values = land.plane(np.zeros((1, 2)), [[1.0, 0.0]], [[0.0, 1.0]], u, u)
    >>> ax = pyssl.plots.plane(values, u, u, Figure().subplots(), points={"origin": (0.0, 0.0)})
    >>> [text.get_text() for text in ax.texts]
    ['origin']
    """
    across = _checks.array("u", u, ndim=1)
    up = _checks.array("v", v, ndim=1)
    heights = _checks.array("values", values, ndim=2)
    if heights.shape != (len(across), len(up)):
        raise ValueError(f"values must be ({len(across)}, {len(up)}), got {heights.shape}")
    if min(heights.shape) < 2:
        raise ValueError(f"values must be at least (2, 2), got {heights.shape}")
    levels = _checks.integer("levels", levels, minimum=1)
    ax = axes(ax)
    filled = ax.contourf(across, up, heights.T, levels=levels, cmap="viridis")
    for name, (x, y) in (points or {}).items():
        ax.plot([x], [y], marker="o", markersize=6, color="white", markeredgecolor=INK, zorder=3)
        ax.annotate(
            name,
            (x, y),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            color=INK,
            fontsize="small",
            bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "alpha": 0.8, "linewidth": 0},
        )
    ax.figure.colorbar(filled, ax=ax).ax.set_title("L", fontsize="medium")
    ax.set_xlabel("u")
    ax.set_ylabel("v")
    return ax


# ---- parts ---------------------------------------------------------------------------------------


def decay_range(report: CollapseReport) -> tuple[float, float]:
    """Return the ends of the axis of critical decays: every mode learned and g lie inside."""
    critical, g = report.critical_weight_decay, report.weight_decay
    drawable = critical[np.isfinite(critical) & (critical > 0.0)]
    ends = [*drawable, *([g] if g > 0.0 else [])] or [1.0]
    largest = max(ends)
    # no lower for a mode that is not learned, however small: rounding would stretch the axis
    seen = [g, *critical[: report.rank]]
    lowest = min(end for end in ends if end in seen or end >= _DECADES * largest)
    bottom = min(0.5 * lowest, 0.03 * largest)
    return max(bottom, float(np.finfo(np.float64).tiny)), 2.5 * largest


def _patterns(land: SpectralLandscape, causes: list[Cause]) -> Array:
    """Return Sigma v_j over the standard deviations of the inputs for the first modes (m, d).

    Unlike the weights v_j these do not depend on the units, and correlated inputs show alike.
    """
    covariance = land.S if land._split is None else land._split.covariance
    patterns = land.vectors[:, : len(causes)].T @ covariance
    patterns[[cause is Cause.NO_VARIATION for cause in causes]] = 0.0  # what is there is rounding
    deviations = np.sqrt(np.maximum(np.diagonal(covariance), 0.0))
    return np.asarray(
        np.divide(patterns, deviations, out=np.zeros_like(patterns), where=deviations > 0.0)
    )


def _rectangle(x: float, y: float, width: float, height: float, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=2.0, zorder=3)


def _scaled(rows: npt.NDArray[Any], *, signed: bool = True) -> Array:
    """Return each row (m, p) over its largest magnitude, or its range mapped onto [0, 1]."""
    base = 0.0 if signed else rows.min(axis=1, keepdims=True)
    size = np.abs(rows - base).max(axis=1, keepdims=True)
    return np.asarray((rows - base) / np.where(size > 0.0, size, 1.0), dtype=np.float64)
