"""What all pictures share: the axes they are drawn in, their ink, their legends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyssl import _checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#333333"


def axes(ax: Axes | None) -> Axes:
    """Return the axes given, or those of a new figure."""
    if ax is not None:
        return ax
    with _checks.needs("plots need Matplotlib"):
        import matplotlib.pyplot as plt
    return plt.subplots(layout="constrained")[1]


def finish(ax: Axes) -> None:
    """Name the colours above the axes, where nothing is drawn; count modes in whole numbers."""
    ax.locator_params(axis="x", integer=True)
    legend(ax)


def legend(ax: Axes) -> None:
    """Name the colours above the axes, where nothing is drawn."""
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(
            fontsize="small",
            frameon=False,
            ncols=3,
            loc="lower left",
            bbox_to_anchor=(-0.08, 1.0),
            columnspacing=1.2,
            handletextpad=0.4,
        )
