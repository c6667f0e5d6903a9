"""Pictures of training: how modes are learned in time, and where training ends beside theory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pyssl import _checks
from pyssl._drawing import INK, axes, finish, legend
from pyssl.flow import Flow
from pyssl.verification import Verification

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["flow", "verification"]

# Okabe and Ito's palette, one colour a mode; beyond its end it begins again.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c8c")
_THEORY, _BEYOND = "#009e73", "#d55e00"
# The bars reach as far as a difference may before it counts.
_SIGMAS = 3.0


def flow(flow: Flow, ax: Axes | None = None, *, most: int = 7) -> Axes:
    """Draw what each mode has learned over time, and when it was predicted to.

    Parameters
    ----------
    flow : Flow
        Of `gradient_flow` on a spectral landscape.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.
    most : int, optional
        Only so many modes, from the first.

    Returns
    -------
    matplotlib.axes.Axes
        One line a mode, its amplitudes n_j at the finite times that were reached. A dotted vertical
        line of the same colour at its predicted learning time, if that lies within them, where n_j
        should pass half of its amplitude at the minimum.

    Raises
    ------
    ValueError
        For a flow without amplitudes, which only spectral landscapes have, or ``most < 1``.
    TypeError
        For anything but a flow.
    ImportError
        Without Matplotlib.

    Notes
    -----
    Source: theory 2.7.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> from matplotlib.figure import Figure
    >>> land = pyssl.SpectralLandscape(np.diag([2.0, 1.0]), np.eye(2), pyssl.Quartic(0.5), 2)
    >>> learned = pyssl.gradient_flow(land, 1e-3 * np.eye(2), np.linspace(0.0, 5.0, 51))
    >>> ax = pyssl.plots.flow(learned, Figure().subplots())
    >>> [line.get_label() for line in ax.get_lines()]
    ['mode 1', 'mode 2', 'predicted', '_nolegend_']
    """
    _checks.instance("flow", flow, Flow, "a Flow")
    most = _checks.integer("most", most, minimum=1)
    if flow.amplitudes is None or flow.predicted_learning_times is None:
        raise ValueError("flow must have amplitudes, which only spectral landscapes have, got None")
    ax = axes(ax)
    reached = np.isfinite(flow.times) & np.isfinite(flow.amplitudes).all(axis=1)
    times, amplitudes = flow.times[reached], flow.amplitudes[reached]
    drawn = range(min(most, amplitudes.shape[1]))
    colours = [_COLOURS[j % len(_COLOURS)] for j in drawn]
    for j in drawn:
        ax.plot(times, amplitudes[:, j], color=colours[j], label=f"mode {j + 1}")
    label = "predicted"
    for j in drawn:
        predicted = flow.predicted_learning_times[j]
        if times.size and times[0] <= predicted <= times[-1]:
            ax.axvline(predicted, color=colours[j], linewidth=1.0, linestyle=":", label=label)
            label = "_nolegend_"
    ax.set_ylim(bottom=0.0)
    ax.set_xlabel("time")
    ax.set_ylabel("amplitude")
    legend(ax)
    return ax


def verification(check: Verification, ax: Axes | None = None, *, most: int = 24) -> Axes:
    """Draw what training learned of each mode over what theory predicts.

    Parameters
    ----------
    check : Verification
        Of `verify`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.
    most : int, optional
        Only so many modes, from the first.

    Returns
    -------
    matplotlib.axes.Axes
        Bars for theory; points for training, with three standard errors of noise to either side,
        none where the noise is infinite. Points beyond the noise have a colour of their own.

    Raises
    ------
    ValueError
        For ``most < 1``.
    TypeError
        For anything but a verification.
    ImportError
        Without Matplotlib.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> from matplotlib.figure import Figure
    >>> rng = np.random.default_rng(0)
    >>> clean = rng.standard_normal((2000, 3)) * [1.5, 1.0, 0.5]
    >>> x, x_plus = clean + 0.5 * rng.standard_normal((2, 2000, 3))
    >>> check = pyssl.verify(pyssl.SpectralContrastive(), x, x_plus, embedding_dim=2)
    >>> theory, training = pyssl.plots.verification(check, Figure().subplots()).containers
    >>> theory.get_label(), training.get_label()
    ('theory (rank 2)', 'training (rank 2)')
    """
    _checks.instance("check", check, Verification, "a Verification")
    most = _checks.integer("most", most, minimum=1)
    ax = axes(ax)
    theory, trained = check.theory_spectrum[:most], check.trained_spectrum[:most]
    noise, beyond = _SIGMAS * check.noise[:most], check.beyond_noise[:most]
    noise = np.where(np.isfinite(noise), noise, 0.0)
    number = np.arange(1, len(theory) + 1)
    ax.bar(number, theory, width=0.8, color=_THEORY, label=f"theory (rank {check.theory_rank})")
    named = f"training (rank {check.trained_rank})"
    for chosen, colour, label in ((~beyond, INK, named), (beyond, _BEYOND, "beyond noise")):
        if chosen.any():
            ax.errorbar(
                number[chosen],
                trained[chosen],
                noise[chosen],
                linestyle="none",
                marker="o",
                markersize=4.0,
                capsize=3.0,
                color=colour,
                label=label,
            )
    ax.set_ylim(bottom=0.0)
    ax.set_xlim(0.3, len(theory) + 0.7)
    ax.set_xlabel("mode")
    ax.set_ylabel("amplitude")
    finish(ax)
    return ax
