"""Tables of modes as text: how every report lays them out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from pyssl._pencil import Array

__all__ = ["ROWS_PRINTED", "table_of_modes"]

ROWS_PRINTED = 24


def table_of_modes(
    columns: Mapping[str, Array], verdict: tuple[str, Callable[[int], object]] | None = None
) -> list[str]:
    """Return a line of titles, and one for each of the first `ROWS_PRINTED` modes.

    `verdict`: title of a last column, and what stands there for a mode. What does not exist, nan,
    is a dash.
    """
    shown = min(ROWS_PRINTED, *map(len, columns.values()))
    cells = {"mode": [str(index + 1) for index in range(shown)]}
    for name, values in columns.items():
        cells[name] = ["-" if math.isnan(x) else f"{x + 0.0:.4g}" for x in values[:shown]]
    widths = {name: max(len(name), *map(len, column), 0) for name, column in cells.items()}
    lines = [
        "  " + "  ".join(f"{text:>{widths[name]}}" for name, text in zip(cells, line, strict=True))
        for line in (cells, *zip(*cells.values(), strict=True))
    ]
    if verdict is None:
        return lines
    title, of = verdict
    last = [title, *map(of, range(shown))]
    return [f"{line}  {end}" for line, end in zip(lines, last, strict=True)]
