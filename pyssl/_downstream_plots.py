"""Pictures of what collapse costs or saves downstream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pyssl import _checks
from pyssl._drawing import INK, axes, finish
from pyssl.downstream import DownstreamRisk
from pyssl.helpful import HelpfulCollapse

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["downstream", "helpful_collapse"]

# Okabe and Ito's palette.
_LEARNED, _MISSED, _LOST, _NOISE = "#009e73", "#e69f00", "#d55e00", "#8c8c8c"
_BEST = "#0072b2"


def downstream(split: DownstreamRisk, ax: Axes | None = None, *, most: int = 24) -> Axes:
    """Draw what ridge regression learns and misses of the target in each mode.

    Parameters
    ----------
    split : DownstreamRisk
        Of `downstream_split`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.
    most : int, optional
        Only so many modes, from the first.

    Returns
    -------
    matplotlib.axes.Axes
        Stacked bars, one container each for the variance t_i^2 that is learned and for the bias;
        beside the modes a bar for what the embedding does not hold and one for the label noise,
        where there is any. The expected error is what is not learned times the variance factor.

    Raises
    ------
    ValueError
        For ``most < 1``.
    TypeError
        For anything but a split.
    ImportError
        Without Matplotlib.

    Notes
    -----
    Source: theory 8.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> from matplotlib.figure import Figure
    >>> split = pyssl.downstream_split(np.eye(3)[:2], np.eye(3), [1.0, 0.0, 0.5], 4, ridge=1.0)
    >>> ax = pyssl.plots.downstream(split, Figure().subplots())
    >>> [container.get_label() for container in ax.containers]
    ['learned', 'missed', 'not in the embedding']
    """
    _checks.instance("split", split, DownstreamRisk, "a DownstreamRisk")
    most = _checks.integer("most", most, minimum=1)
    ax = axes(ax)
    bias = split.bias[:most]
    learned = np.square(split.coefficients[:most]) - bias
    number = np.arange(1, len(bias) + 1)
    ax.bar(number, learned, width=0.8, color=_LEARNED, label="learned")
    ax.bar(number, bias, bottom=learned, width=0.8, color=_MISSED, label="missed")
    place = len(bias) + 1.5
    for name, height, colour in (
        ("not in the embedding", split.lost, _LOST),
        ("label noise", split.noise, _NOISE),
    ):
        if height > 0.0:
            ax.bar([place], [height], width=0.8, color=colour, label=name)
            place += 1.0
    ax.set_xlim(0.3, place - 0.3)
    ax.set_ylim(bottom=0.0)
    ax.set_xlabel(f"mode (test error {split.risk:.3g}: what is not learned x"
                  f" {split.variance_factor:.3g})")  # fmt: skip
    ax.set_ylabel("variance of the labels")
    finish(ax)
    ticks = [tick for tick in ax.get_xticks() if 1 <= tick <= len(bias)]
    ax.set_xticks(ticks)
    return ax


def helpful_collapse(found: HelpfulCollapse, ax: Axes | None = None) -> Axes:
    """Draw the expected test error over the number of modes that a weight decay leaves.

    Parameters
    ----------
    found : HelpfulCollapse
        Of `helpful_collapse`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        A line with a mark for every number of modes; two horizontal lines, for the embedding of all
        modes and for that of the best subset, both at their amplitudes without decay.

    Raises
    ------
    TypeError
        For anything but a `HelpfulCollapse`.
    ImportError
        Without Matplotlib.

    Notes
    -----
    Source: theory 8.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> from matplotlib.figure import Figure
    >>> moments = pyssl.Moments(np.eye(3), np.diag([0.9, 0.5, 0.1]))
    >>> found = pyssl.helpful_collapse(moments, [1.0, 0.0, 0.0], 20, noise=1.0)
    >>> ax = pyssl.plots.helpful_collapse(found, Figure().subplots())
    >>> ax.get_lines()[0].get_xdata().tolist()
    [0, 1, 2, 3]
    """
    _checks.instance("found", found, HelpfulCollapse, "a HelpfulCollapse")
    ax = axes(ax)
    settings = found.weight_decays
    ax.plot(
        [len(one.kept) for one in settings],
        [one.risk for one in settings],
        marker="o",
        markersize=4.0,
        color=INK,
        label="left by weight decay",
    )
    count = len(found.amplitudes)
    for height, style, colour, label in (
        (found.risk_of_everything, ":", INK, f"all {count} modes"),
        (found.risk, "--", _BEST, f"best {len(found.kept)} modes"),
    ):
        ax.axhline(height, color=colour, linewidth=1.2, linestyle=style, label=label)
    ax.set_xlabel("modes that are learned")
    ax.set_ylabel("expected test error")
    finish(ax)
    return ax
