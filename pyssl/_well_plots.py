"""The picture of a deep linear model: the value along every mode, its well and its barrier."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pyssl import _checks
from pyssl._drawing import INK, axes, legend
from pyssl.deep import DeepLandscape

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["wells"]

# Okabe and Ito's palette, one colour a mode; beyond its end it begins again.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c8c")
_POINTS = 400


def wells(landscape: DeepLandscape, ax: Axes | None = None, *, most: int = 7) -> Axes:
    """Draw the value along every mode of a deep model, with wells and barriers.

    Parameters
    ----------
    landscape : DeepLandscape
        Whose B and S commute.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.
    most : int, optional
        Only so many modes, from the lowest.

    Returns
    -------
    matplotlib.axes.Axes
        One line a mode, f(s) over the singular value s; a dot at its well, filled where that lies
        below the origin, and a triangle at its barrier. Without any well s reaches 1. The constant
        function, which is no direction of W, is left out.

    Raises
    ------
    ValueError
        For ``most < 1``.
    TypeError
        For anything but a deep landscape.
    NotImplementedError
        Where B and S don't commute.
    ImportError
        Without Matplotlib.

    Notes
    -----
    Source: theory 9.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> from matplotlib.figure import Figure
    >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.4]))
    >>> land = pyssl.SpectralContrastive().population(moments, 2, weight_decay=0.3, depth=2)
    >>> ax = pyssl.plots.wells(land, Figure().subplots())
    >>> ax.get_legend_handles_labels()[1]
    ['mode 1', 'mode 2', 'well', 'barrier']
    """
    _checks.instance("landscape", landscape, DeepLandscape, "a DeepLandscape")
    most = _checks.integer("most", most, minimum=1)
    table = landscape.wells()
    ax = axes(ax)
    finite = np.isfinite(table.singular_value)
    reach = 1.25 * float(table.singular_value[finite].max()) if finite.any() else 1.0
    s = np.linspace(0.0, reach, _POINTS)
    along = landscape.profile(s)
    drawn = np.flatnonzero(~np.isnan(along).any(axis=0))[:most]
    for j in drawn:
        colour = _COLOURS[j % len(_COLOURS)]
        ax.plot(s, along[:, j], color=colour, label=f"mode {j + 1}")
    named = set()
    for j in drawn[finite[drawn]]:
        colour = _COLOURS[j % len(_COLOURS)]
        for name, marker, at, height, filled in (
            ("well", "o", table.singular_value[j], table.value[j], table.is_global[j]),
            ("barrier", "^", table.barrier_singular_value[j], table.barrier_height[j], True),
        ):
            ax.plot(
                [at],
                [height],
                linestyle="none",
                marker=marker,
                markersize=5.0,
                color=colour,
                markerfacecolor=colour if filled else "white",
                label="_nolegend_" if name in named else name,
                zorder=3,
            )
            named.add(name)
    ax.axhline(0.0, color=INK, linewidth=1.0)
    lowest = min(0.0, float(np.nanmin(np.append(table.value[finite], 0.0))))
    highest = float(np.nanmax(np.append(table.barrier_height[finite], -0.2 * lowest)))
    if highest > 0.0:  # else nothing but the origin is stationary, and all of f is shown
        ax.set_ylim(1.15 * lowest - 0.1 * highest, 1.6 * highest)
    ax.set_xlim(0.0, reach)
    ax.set_xlabel("singular value s of the product of the layers")
    ax.set_ylabel("value beside the origin")
    legend(ax)
    return ax
