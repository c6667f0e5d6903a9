"""Pictures of imbalance: what each loss keeps of each class."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pyssl import _checks
from pyssl._drawing import INK, axes
from pyssl._retention_table import RetentionTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["retention"]

# Columns that have room for a number in every cell.
_NUMBERED = 16
# Cells from here on are dark, and written on in white.
_DARK = 0.6


def retention(table: RetentionTable, ax: Axes | None = None) -> Axes:
    """Draw what each loss keeps of each class, from the commonest to the rarest.

    Parameters
    ----------
    table : RetentionTable
        Of `compare_retention`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        One image, a row for each loss and a column for each class, darker the more is kept; blank
        where retention is undefined. Up to 16 classes the cells hold its number. Hatched cells are
        open: which of tied modes are learned decides.

    Raises
    ------
    TypeError
        For anything but a table.
    ImportError
        Without Matplotlib.

    Notes
    -----
    Source: theory 7.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> from matplotlib.figure import Figure
    >>> mix = pyssl.Mixture([0.2, 0.8], [[0.0, 0.0], [0.0, 3.0]], np.diag([2.0, 0.1]))
    >>> table = pyssl.compare_retention(mix, pyssl.augment.Noise(1.0), embedding_dim=1)
    >>> ax = pyssl.plots.retention(table, Figure().subplots())
    >>> [label.get_text().split() for label in ax.get_xticklabels()]
    [['1', '0.8'], ['0', '0.2']]
    """
    _checks.instance("table", table, RetentionTable, "a RetentionTable")
    ax = axes(ax)
    order = np.argsort(-table.priors, kind="stable")
    shares = table.retention[:, order]
    ax.imshow(shares, cmap="YlGn", vmin=0.0, vmax=1.0, aspect="auto")
    rows, columns = shares.shape
    for row, column in np.ndindex(rows, columns):
        share, is_open = float(shares[row, column]), bool(table.open[row, order[column]])
        if columns <= _NUMBERED:
            text = "-" if math.isnan(share) else "open" if is_open else f"{share:.2f}"
            ink = "white" if share > _DARK and not is_open else INK
            ax.text(column, row, text, ha="center", va="center", color=ink, fontsize="small")
        if is_open:
            ax.add_patch(_cell(row, column))
    names = [f"{table.classes[c]}\n{table.priors[c]:.2g}" for c in order]
    shown = range(0, columns, 1 + columns // (2 * _NUMBERED))
    ax.set_xticks(shown, [names[column] for column in shown])
    ax.set_yticks(range(rows), table.losses)
    ax.tick_params(length=0.0)
    ax.set_xlabel("class and prior")
    ax.set_title("retention", fontsize="medium", loc="left")
    ax.spines[:].set_visible(False)
    return ax


def _cell(row: int, column: int) -> Any:
    """Return a hatched cell."""
    from matplotlib.patches import Rectangle

    corner = column - 0.5, row - 0.5
    return Rectangle(corner, 1.0, 1.0, hatch="//", facecolor="white", edgecolor="#c8c8c8", zorder=1)
