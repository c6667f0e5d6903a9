"""Phase diagrams: pictures of sweeps, with the closed-form lines that bound the phases."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._drawing import INK, axes
from pyssl.collapse import Collapse

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

__all__ = ["overview", "phase_diagram"]

Array = npt.NDArray[Any]

_COLOURS = {"none": "#009e73", "dimensional": "#f0e442", "complete": "#999999"}
_LINES = "critical_weight_decay"
# More cells than pixels show nothing more.
_CELLS = 1200
_PANELS = 9


def phase_diagram(
    ds: xarray.Dataset,
    x: str,
    y: str,
    ax: Axes | None = None,
    *,
    show: str = "kind",
    facet: str | None = None,
    at: Mapping[str, Any] | None = None,
    lines: bool = True,
) -> Axes | list[Axes]:
    """Draw a sweep over two of its axes, and where theory has the modes go.

    Parameters
    ----------
    ds : xarray.Dataset
        Of `pyssl.sweep`.
    x, y : str
        The axes drawn to the right and upwards.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default. Not with `facet`.
    show : str, optional
        Which output the colours show.
    facet : str, optional
        A third axis, with a panel for each of its values.
    at : mapping, optional
        Values of the other axes, which need one where they are longer than one.
    lines : bool, optional
        Whether to draw the closed-form lines at which modes are lost, where the dataset has them:
        beyond the thick one, that of the first mode, everything collapses.

    Returns
    -------
    matplotlib.axes.Axes or list of matplotlib.axes.Axes
        One for each value of `facet`, where there is one. Axes of evenly spaced ratios are
        logarithmic.

    Raises
    ------
    ValueError
        For a name that the dataset does not have, or an axis without a value.
    TypeError
        For anything but a dataset.
    ImportError
        Without Matplotlib or xarray.

    Notes
    -----
    Source: theory 5, critical weight decays. They come with the dataset; nothing is computed here.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> from matplotlib.figure import Figure
    >>> moments = pyssl.Moments(np.eye(3), np.diag([0.9, 0.5, 0.1]))
    >>> axes = {"temperature": np.geomspace(0.1, 10, 20), "weight_decay": np.linspace(0, 2, 20)}
    >>> ds = pyssl.sweep(pyssl.InfoNCE(), moments, axes, progress=False)
    >>> ax = pyssl.plots.phase_diagram(ds, "temperature", "weight_decay", Figure().subplots())
    >>> ax.get_xscale(), ax.get_yscale(), len(ax.get_lines())
    ('log', 'linear', 3)
    """
    with _checks.needs("phase diagrams need xarray", '"pyssl-landscapes[sweep]"'):
        import xarray as xr

    _checks.instance("ds", ds, xr.Dataset, "an xarray.Dataset of pyssl.sweep")
    shown = [str(name) for name in ds.data_vars if name != _LINES]
    _checks.choice("show", show, shown)
    dims = [str(name) for name in ds[show].dims]
    for name, value in (("x", x), ("y", y), ("facet", facet)):
        if value is not None:
            _checks.choice(name, value, dims)
    chosen = [name for name in (x, y, facet) if name is not None]
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"x, y and facet must be different axes, got {', '.join(chosen)}")
    ds = _at(ds, [name for name in dims if name not in chosen], at or {})
    if facet is None:
        return _panel(ds, x, y, axes(ax), show, lines)
    if ax is not None:
        raise ValueError("ax must be left out with facet: every panel has its own")
    panels = _panels(ds.sizes[facet])
    every = ds[show].values[np.isfinite(ds[show].values)]
    limits = (every.min(), every.max()) if every.size else (0.0, 1.0)
    for index, (panel, value) in enumerate(zip(panels, ds[facet].values, strict=True)):
        _panel(ds.isel({facet: index}), x, y, panel, show, lines, index == 0, limits)
        told = f"{value:.3g}" if np.issubdtype(type(value), np.number) else str(value)
        panel.set_title(f"{_words(facet)} {told}", fontsize="medium", loc="right")
    return panels


def overview(ds: xarray.Dataset) -> bytes | None:
    """Return a picture of a sweep over its two longest axes of numbers, in panels by a third.

    PNG; None where it has fewer than two such axes. Other axes have their first value.
    """
    show = next((name for name in ("kind", "rank") if name in ds), str(next(iter(ds.data_vars))))
    axes = [name for name in ds[show].dims if ds.sizes[name] > 1]
    numeric = [str(name) for name in axes if ds[name].dtype.kind in "iuf"]
    if len(numeric) < 2:
        return None
    longest = sorted(numeric, key=lambda name: -ds.sizes[name])[:2]
    x, y = (name for name in numeric if name in longest)
    facet = next((str(name) for name in axes if name not in (x, y)), None)
    at = {str(name): ds[name].values[0] for name in ds[show].dims if name not in (x, y, facet)}
    if facet is not None:
        ds = ds.isel({facet: slice(_PANELS)})
    drawn = phase_diagram(ds, x, y, show=show, facet=facet, at=at)
    figure = (drawn[0] if isinstance(drawn, list) else drawn).figure
    import matplotlib.pyplot as plt

    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)  # type: ignore[union-attr]
    plt.close(figure)  # type: ignore[arg-type]
    return content.getvalue()


def _at(ds: xarray.Dataset, others: Sequence[str], at: Mapping[str, Any]) -> xarray.Dataset:
    """Return the part of a dataset at one value of each other axis."""
    for name in at:
        _checks.choice("at", name, tuple(others))
    for name in others:
        values = ds[name].values
        if name in at:
            where = np.flatnonzero(values == at[name])
            if not len(where):
                raise ValueError(f"at[{name!r}] must be a value of that axis, got {at[name]!r}")
            ds = ds.isel({name: int(where[0])})
        elif len(values) == 1:
            ds = ds.isel({name: 0})
        else:
            raise ValueError(
                f"at must have a value of {name!r}, an axis of {len(values)}, or it be the facet"
            )
    return ds


def _panel(
    ds: xarray.Dataset,
    x: str,
    y: str,
    ax: Axes,
    show: str,
    lines: bool,
    legend: bool = True,
    limits: tuple[float | None, float | None] = (None, None),
) -> Axes:
    thin = {name: slice(None, None, -(-ds.sizes[name] // _CELLS)) for name in (x, y)}
    part = ds.isel(thin)
    across, up = part[x].values, part[y].values
    for name, values in ((x, across), (y, up)):
        if values.dtype.kind not in "iuf":
            raise ValueError(f"axis {name!r} must hold numbers to be drawn, got {values.dtype}")
    heights = part[show].transpose(y, x).values
    options: dict[str, Any] = {"shading": "nearest", "rasterized": True}
    if show == "kind":
        from matplotlib.colors import ListedColormap

        colours = ListedColormap([_COLOURS[str(kind)] for kind in Collapse])
        ax.pcolormesh(across, up, heights, cmap=colours, vmin=-0.5, vmax=2.5, **options)
        if legend:
            _legend(ax)
    else:
        mesh = ax.pcolormesh(across, up, heights, cmap="viridis", vmin=limits[0],
                             vmax=limits[1], **options)  # fmt: skip
        ax.figure.colorbar(mesh, ax=ax, label=_words(show))
    for name, values, scale in ((x, across, ax.set_xscale), (y, up, ax.set_yscale)):
        scale("log" if _geometric(values) else "linear")
        (ax.set_xlabel if name == x else ax.set_ylabel)(_words(name))
    if lines and _LINES in part:
        window = ax.axis()
        _draw_lines(part, x, y, ax, INK if show == "kind" else "white")
        ax.axis(window)
    return ax


def _draw_lines(ds: xarray.Dataset, x: str, y: str, ax: Axes, colour: str) -> None:
    """Draw where the critical weight decay of each mode is the weight decay."""
    critical = ds[_LINES]
    dim = ds["embedding_dim"] if "embedding_dim" in ds.coords else ds.attrs["embedding_dim"]
    decay = ds["weight_decay"] if "weight_decay" in ds.coords else ds.attrs["weight_decay"]
    for index in range(int(np.max(dim)) if np.max(dim) < ds.sizes["mode"] else ds.sizes["mode"]):
        line = critical.isel(mode=index)
        style: dict[str, Any] = {"color": colour, "linewidth": 2.0 if index == 0 else 0.8}
        if {x, y} & {"weight_decay"} and "embedding_dim" not in (x, y):
            other = y if x == "weight_decay" else x
            place = np.broadcast_to(line.values, ds[other].shape)
            drawn = np.where(np.isfinite(place) & (place > 0.0), place, np.nan)
            if np.isfinite(drawn).any():
                pair = (
                    (drawn, ds[other].values) if x == "weight_decay" else (ds[other].values, drawn)
                )
                ax.plot(*pair, **style)
            continue
        # modes beyond the embedding are lost to it whatever the decay
        excess = (line - decay).where(index < dim) + 0.0 * (ds[x] + ds[y])
        heights = excess.transpose(y, x).values
        if heights.shape > (1, 1) and np.nanmin(heights) < 0.0 < np.nanmax(heights):
            ax.contour(
                ds[x].values, ds[y].values, heights, levels=[0.0], colors=style["color"],
                linewidths=style["linewidth"],
            )  # fmt: skip


def _legend(ax: Axes) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=_COLOURS[str(kind)], label="no collapse" if kind == "none" else str(kind))
        for kind in Collapse
    ]
    ax.legend(
        handles=handles, fontsize="small", frameon=False, ncols=3, loc="lower left",
        bbox_to_anchor=(-0.02, 1.0), columnspacing=1.2, handletextpad=0.4,
    )  # fmt: skip


def _geometric(values: Array) -> bool:
    """Whether the ratios of an axis are more even than its steps."""
    if len(values) < 3 or values.min() <= 0:
        return False
    steps, ratios = np.diff(values), np.diff(np.log(values))
    return bool(np.ptp(ratios) / np.abs(ratios).max() < np.ptp(steps) / np.abs(steps).max())


def _panels(count: int) -> list[Axes]:
    with _checks.needs("plots need Matplotlib"):
        import matplotlib.pyplot as plt
    columns = min(count, 3)
    rows = -(-count // columns)
    figure = plt.figure(figsize=(4.2 * columns, 3.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for spare in grid[count:]:
        spare.set_axis_off()
    return list(grid[:count])


def _words(name: str) -> str:
    return name.replace("_", " ")
